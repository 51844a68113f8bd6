"""Pictures of data and draws, in the units of the file."""

from __future__ import annotations

import numpy as np

from keras_vae import evaluation
from keras_vae.report.figures import BLUE, GREY, Picture, axes_of, drawn, label, legend, pixels
from keras_vae.report.subject import Subject

__all__ = ["draws"]

_COLUMNS = 20
_FEATURES = 6


def draws(subject: Subject) -> list[Picture]:
    """Returns data beside draws: images as they are, histograms of the numbers of a table."""
    return _images(subject) if subject.is_image else _tables(subject)


def _images(subject: Subject) -> list[Picture]:
    raw, span = subject.raw, subject.range
    drawn_x, means = subject.draws(3 * _COLUMNS).values()
    draws_title, means_title = (title.capitalize() for title in subject.titles)
    found = [pixels("Test data", "As in the file.", raw[: 3 * _COLUMNS], span)]
    caption = "z from the prior, x from the likelihood."
    found.append(pixels(draws_title, caption, drawn_x, span))
    if means.shape == drawn_x.shape:
        pairs = np.concatenate([raw[:_COLUMNS], subject.reconstructed(_COLUMNS)])
        found += [
            pixels(means_title, "No draws: the noise of the likelihood is left out.", means, span),
            pixels(
                "Reconstructions",
                "Test data above, decoder mean at the posterior mean below.",
                pairs,
                span,
            ),
            pixels(
                "Interpolations",
                "Decoder means on lines between posterior means of test pairs.",
                subject.means(_interpolations(subject, 4)),
                span,
            ),
            pixels(
                "Traversals",
                "One latent from -3 to 3, the others at one example's posterior mean; the four "
                "most used latents, one a row.",
                subject.means(_traversals(subject, 4)),
                span,
            ),
        ]
    return [*found, _least_likely(subject)]


def _least_likely(subject: Subject) -> Picture:
    log_p = subject.units.log_p(
        evaluation.log_marginal(
            subject.vae, subject.x[:300], num_samples=100, seed=subject.seed
        ).value
    )
    worst = np.argsort(log_p)[:_COLUMNS]
    caption = (
        f"The {len(worst)} of {subject.examples(len(log_p))} with the lowest "
        f"{subject.units.quantity}, from {log_p[worst[0]]:.1f} to {log_p[worst[-1]]:.1f} nats "
        "(importance sampling, k = 100)."
    )
    return pixels("Least likely examples", caption, subject.raw[worst], subject.range)


def _tables(subject: Subject) -> list[Picture]:
    raw = subject.raw.reshape(len(subject.raw), -1).astype(np.float64)
    found = subject.draws(len(raw))["sample"].reshape(len(raw), -1)
    pictures = []
    for feature in range(min(_FEATURES, raw.shape[1])):
        figure, axes = axes_of()
        edges = _edges(raw[:, feature], found[:, feature])
        axes.hist(raw[:, feature], edges, density=True, color=GREY, alpha=0.6, label="test data")
        axes.hist(
            found[:, feature], edges, density=True, histtype="step", color=BLUE, label="draws"
        )
        legend(axes)
        label(axes, f"number {feature}", "density")
        caption = f"Of {subject.examples()} and as many draws from p(x), in the units of the file."
        pictures.append(drawn(f"Number {feature} of {raw.shape[1]}", caption, figure))
    return pictures


def _edges(raw: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Edges of a histogram: one bar for each whole number where there are few."""
    low, high = np.quantile(raw, [0.005, 0.995])
    if (raw == np.round(raw)).all() and high - low <= 60.0:
        return np.arange(low - 1.5, high + 2.5)
    return np.histogram_bin_edges(np.clip(np.concatenate([raw, found]), low, high), 40)


def _interpolations(subject: Subject, rows: int) -> np.ndarray:
    centre = subject.vae.encode(subject.x[: 2 * rows]).mean().numpy()
    weights = np.linspace(0.0, 1.0, _COLUMNS, dtype=np.float32)[:, None]
    pairs = range(len(centre) // 2)
    return np.concatenate(
        [(1 - weights) * centre[2 * pair] + weights * centre[2 * pair + 1] for pair in pairs]
    )


def _traversals(subject: Subject, rows: int) -> np.ndarray:
    centre = subject.vae.encode(subject.x).mean().numpy()
    used = np.argsort(-centre.var(axis=0))[:rows]
    lines = np.repeat(centre[:1], len(used) * _COLUMNS, axis=0)
    for row, latent in enumerate(used):
        lines[row * _COLUMNS : (row + 1) * _COLUMNS, latent] = np.linspace(-3.0, 3.0, _COLUMNS)
    return lines
