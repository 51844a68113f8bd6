"""Pictures of data and draws, in the units of the file."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from keras_vae import evaluation
from keras_vae.report import table_draws, text_draws
from keras_vae.report.figures import (
    BLUE,
    GREY,
    Picture,
    Words,
    axes_of,
    drawn,
    edges,
    label,
    legend,
    pixels,
)
from keras_vae.report.subject import Subject
from keras_vae.spelling import counted

__all__ = ["draws"]

_COLUMNS = 20
_FEATURES = 24
_LINES = 30
_CHANNELS = 3
_MOST_CORRELATED = 100
_PAIRS = 4
_ROWS = 4


def draws(subject: Subject) -> Sequence[Picture | Words]:
    """Plots data beside draws: images as they are, lines of series, histograms of tables.

    Texts are shown as they are.
    """
    if subject.run.tokens is not None:
        return text_draws.text_draws(subject)
    if subject.run.schema is not None:
        return table_draws.table_draws(subject)
    if subject.is_image:
        return _images(subject)
    if subject.raw.ndim == 3:
        return _series(subject)
    return _tables(subject)


def _images(subject: Subject) -> list[Picture]:
    raw, span = subject.raw, subject.range
    drawn_x, means = subject.draws(3 * _COLUMNS).values()
    draws_title, means_title = (title.capitalize() for title in subject.titles)
    found = [pixels("Test data", "As in the file.", raw[: 3 * _COLUMNS], span)]
    caption = "z from the prior, x from the likelihood"
    caption += ", given the labels of the test data." if subject.given(0) else "."
    found.append(pixels(draws_title, caption, drawn_x, span))
    if means.shape == drawn_x.shape:
        pairs = np.concatenate([raw[:_COLUMNS], subject.reconstructed(_COLUMNS)])
        found += [
            pixels(means_title, "No draws: the noise of the likelihood is left out.", means, span),
            pixels(
                "Reconstructions",
                "Test data above, decoder mean at "
                f"{'its codes' if subject.is_discrete else 'the posterior mean'} below.",
                pairs,
                span,
            ),
        ]
        if subject.has_levels:
            found.append(_by_level(subject))
        if not (subject.is_discrete or subject.has_levels):
            on_lines = subject.means(*_interpolations(subject, _PAIRS))
            across, size = _traversals(subject, _ROWS), subject.vae.latent_size
            rows = f"the {_ROWS} most used latents" if size > _ROWS else "the most used first"
            found += [
                pixels(
                    "Interpolations",
                    "Decoder means on lines between posterior means of test pairs"
                    f"{', given the label of the first' if subject.given(0) else ''}.",
                    on_lines,
                    span,
                ),
                *_geodesics(subject, on_lines),
                pixels(
                    "Traversals",
                    "One latent from -3 to 3, the others at one example's posterior mean; "
                    f"{rows}, one a row.",
                    subject.means(across, np.zeros(len(across), int)),
                    span,
                ),
            ]
    return [*found, _least_likely(subject)]


def _geodesics(subject: Subject, on_lines: np.ndarray) -> list[Picture]:
    """Plots the same pairs joined by the curves that are shortest for the decoder, if it has means.

    A Student-t distribution of few degrees of freedom has none; `on_lines` shows that.
    """
    if not np.isfinite(on_lines).all():
        return []
    ends = subject.moments[0][: 2 * _PAIRS]
    count = len(ends) // 2
    given = subject.given(range(0, 2 * count, 2))
    found = evaluation.geodesics(
        subject.vae, ends[: 2 * count : 2], ends[1 : 2 * count : 2], num_points=_COLUMNS, **given
    )
    shorter = 1.0 - found.length.sum() / max(found.line_length.sum(), np.finfo(np.float64).tiny)
    caption = (
        "Decoder means between the same pairs on geodesics: curves along which the decoder mean "
        f"changes least and evenly. On average they are {shorter:.0%} shorter than the lines "
        "(evaluation.geodesics)."
    )
    z = found.z.reshape(-1, found.z.shape[-1])
    means = subject.means(z, np.repeat(range(0, 2 * count, 2), _COLUMNS))
    return [pixels("Interpolations on geodesics", caption, means, subject.range)]


def _by_level(subject: Subject) -> Picture:
    """Plots reconstructions of which only the upper levels are known."""
    rows = [subject.raw[:_COLUMNS], *subject.by_level(_COLUMNS)]
    levels = list(subject.vae.blocks)[: len(rows) - 1]
    caption = (
        f"Test data, then decoder means with the levels down to {', '.join(levels)} at their "
        "posterior means and those below drawn from p."
    )
    return pixels("What each level adds", caption, np.concatenate(rows), subject.range)


def _least_likely(subject: Subject) -> Picture:
    few = keras.tree.map_structure(lambda part: part[:300], subject.x)
    log_p = subject.units.log_p(
        evaluation.log_marginal(subject.vae, few, num_samples=100, seed=subject.seed).value
    )
    worst = np.argsort(log_p)[:_COLUMNS]
    how = "the ELBO" if subject.is_discrete else "importance sampling, k = 100"
    caption = (
        f"The {len(worst)} of {subject.examples(len(log_p))} with the lowest "
        f"{subject.units.quantity}, from {log_p[worst[0]]:.1f} to {log_p[worst[-1]]:.1f} nats "
        f"({how})."
    )
    return pixels("Least likely examples", caption, subject.raw[worst], subject.range)


def _series(subject: Subject) -> list[Picture]:
    raw, found = subject.raw[:_LINES], subject.draws(_LINES)["sample"]
    names = subject.run.config.entries or [f"channel {k}" for k in range(raw.shape[2])]
    pictures = []
    for channel, name in enumerate(names[:_CHANNELS]):
        for title, lines, color in (("Test data", raw, GREY), ("Draws from p(x)", found, BLUE)):
            figure, axes = axes_of()
            axes.plot(lines[:, :, channel].T, color=color, alpha=0.6, linewidth=0.9)
            axes.set_ylim(_limits(raw[:, :, channel]))
            label(axes, "step", name)
            caption = f"{len(lines)} series, in the units of the file."
            pictures.append(drawn(f"{title}, {name}", caption, figure))
    return pictures


def _tables(subject: Subject) -> list[Picture]:
    raw = subject.raw.reshape(len(subject.raw), -1).astype(np.float64)
    found = subject.draws(len(raw))["sample"].reshape(len(raw), -1)
    names = subject.run.config.features or [f"number {column}" for column in range(raw.shape[1])]
    about = f"{subject.examples()} and as many draws from p(x), in the units of the file."
    about = about[0].upper() + about[1:]
    pictures = []
    shown = _telling(raw)
    left_out = (
        f" Shown are {len(shown)} of {counted(raw.shape[1], 'column')}, those that take the most "
        "values."
        if len(shown) < raw.shape[1]
        else ""
    )
    for column in shown:
        figure, axes = axes_of()
        ends = edges(raw[:, column], found[:, column])
        axes.hist(raw[:, column], ends, density=True, color=GREY, alpha=0.6, label="test data")
        axes.hist(found[:, column], ends, density=True, histtype="step", color=BLUE, label="draws")
        legend(axes)
        label(axes, names[column], "density")
        pictures.append(drawn(names[column], about + left_out, figure))
    return [*pictures, *_correlations(raw, found, about)]


def _telling(raw: np.ndarray) -> list[int]:
    """Selects up to `_FEATURES` columns, in their order: those with the most different values."""
    counts = np.array([min(len(np.unique(column)), 20) for column in raw.T])
    return sorted(np.argsort(-counts, kind="stable")[:_FEATURES].tolist())


def _correlations(raw: np.ndarray, found: np.ndarray, about: str) -> list[Picture]:
    """Plots the correlation of each pair of columns, in the data and in the draws."""
    varies = (raw.std(axis=0) > 0.0) & (found.std(axis=0) > 0.0)
    count = int(varies.sum())
    if not 2 < count <= _MOST_CORRELATED:
        return []
    pairs = np.triu_indices(count, 1)
    of_raw, of_found = (np.corrcoef(x[:, varies].T)[pairs] for x in (raw, found))
    figure, axes = axes_of()
    axes.plot([-1.0, 1.0], [-1.0, 1.0], "--", color=GREY)
    axes.scatter(of_raw, of_found, s=9, color=BLUE, alpha=0.6)
    label(axes, "correlation in the test data", "in the draws")
    caption = f"Each pair of {count} columns: of the data across, of the draws upwards. {about}"
    return [drawn("Correlations", caption, figure)]


def _limits(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    margin = 0.25 * float(np.ptp(values)) + 1e-9
    return float(values.min()) - margin, float(values.max()) + margin


def _interpolations(subject: Subject, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns latents on lines between pairs of examples, and the first example of each."""
    centre = subject.moments[0][: 2 * rows]
    weights = np.linspace(0.0, 1.0, _COLUMNS, dtype=np.float32)[:, None]
    firsts = range(0, len(centre) // 2 * 2, 2)
    lines = [(1 - weights) * centre[first] + weights * centre[first + 1] for first in firsts]
    return np.concatenate(lines), np.repeat(firsts, _COLUMNS)


def _traversals(subject: Subject, rows: int) -> np.ndarray:
    centre = subject.moments[0]
    used = np.argsort(-centre.var(axis=0))[:rows]
    lines = np.repeat(centre[:1], len(used) * _COLUMNS, axis=0)
    for row, latent in enumerate(used):
        lines[row * _COLUMNS : (row + 1) * _COLUMNS, latent] = np.linspace(-3.0, 3.0, _COLUMNS)
    return lines
