"""Texts of a report: test texts, draws, reconstructions, and texts between two."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_vae.report.figures import Words
from keras_vae.report.subject import Subject
from keras_vae.runs import sequences

__all__ = ["text_draws"]

_TEXTS = 12
_PATHS = 3
_STEPS = 5


def text_draws(subject: Subject) -> list[Words]:
    """Shows draws, reconstructions and interpolations of texts."""
    found = subject.draws(_TEXTS)["sample"]
    pictures = [
        Words(
            "Draws from p(x)",
            "z from the prior, each text from p(x | z).",
            ("text",),
            [(text,) for text in _texts(subject, found)],
        )
    ]
    if not subject.is_discrete and not subject.has_levels:
        pictures += [_reconstructions(subject), _between(subject)]
    return pictures


def _texts(subject: Subject, numbers: Any) -> list[str]:
    """Returns texts to show; an empty one says so."""
    tokens = subject.run.tokens
    texts = [] if tokens is None else sequences.of_texts(numbers, tokens)
    return [text if text.strip() else "(empty)" for text in texts]


def _most_probable(subject: Subject, z: np.ndarray) -> list[str]:
    return _texts(subject, np.argmax(subject.means(z.astype(np.float32), range(len(z))), axis=-1))


def _reconstructions(subject: Subject) -> Words:
    test, mean = subject.raw[:_TEXTS], subject.moments[0][:_TEXTS]
    pairs = zip(_texts(subject, test), _most_probable(subject, mean), strict=True)
    return Words(
        "Reconstructions",
        "Test texts, and the most probable tokens at their posterior means"
        + (", each given those before it." if subject.run.config.autoregressive else "."),
        ("test text", "reconstruction"),
        list(pairs),
    )


def _between(subject: Subject) -> Words:
    """Shows texts on straight lines between posterior means."""
    mean = subject.moments[0]
    count = min(_PATHS, len(mean) // 2)
    shares = np.linspace(0.0, 1.0, _STEPS)[:, np.newaxis]
    paths = [(1.0 - shares) * mean[2 * k] + shares * mean[2 * k + 1] for k in range(count)]
    texts = [_most_probable(subject, path) for path in paths]
    return Words(
        "Interpolations",
        "The most probable tokens at points on the line between the posterior means of two test "
        "texts, a column for each pair.",
        tuple(f"pair {k + 1}" for k in range(count)),
        [tuple(row) for row in zip(*texts, strict=True)],
    )
