"""Pictures of the latents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_vae import evaluation
from keras_vae.report.figures import (
    BLUE,
    GREY,
    ORANGE,
    Picture,
    axes_of,
    drawn,
    label,
    legend,
)
from keras_vae.report.subject import Subject
from keras_vae.runs import measurements

__all__ = ["latents"]

_LEVELS = 4
_NAMED = 24
_POSITIONS = 64
_MOST_LABELS = 20
_DRAWS = 1000
_BARS = 40


def latents(subject: Subject) -> list[Picture]:
    """Plots what the latents carry: rates, overlap with the prior, and maps."""
    if subject.is_discrete:
        codes = subject.vae.encode(subject.x).codes
        z = subject.vae.posterior.embed(codes).numpy()
        maps = [_principal(subject, z.reshape(len(z), -1), "embeddings of the codes")]
        return [_codes(subject), _positions(subject, codes.numpy()), *filter(None, maps)]
    centre, scale = subject.moments
    if subject.has_levels:
        return [_levels(subject), *_level_maps(subject, centre)]
    per_latent = (0.5 * (scale**2 + centre**2 - 1.0) - np.log(scale)).mean(axis=0)
    order = np.argsort(-(per_latent if subject.is_normal else centre.var(axis=0)))
    pictures = [_nats(subject, per_latent, order)] if subject.is_normal else []
    first, second = order[0], order[min(1, len(order) - 1)]
    pictures.append(_overlap(subject, centre, scale, first, second))
    if first != second:
        pictures.append(_map(subject, centre, first, second))
    return [*pictures, *filter(None, [_principal(subject, centre, "posterior means")])]


def _overlap(
    subject: Subject, centre: np.ndarray, scale: np.ndarray, first: int, second: int
) -> Picture:
    """Plots the aggregate posterior of two latents beside the prior."""
    figure, axes = axes_of()
    pair = dict.fromkeys(((first, BLUE), (second, ORANGE)))
    both, prior = [first, second], subject.vae.prior.components()
    z = None if prior is not None and len(prior.loc) == 1 else subject.drawn_latents(_DRAWS)
    lowest, highest = centre - 3.0 * scale, centre + 3.0 * scale
    low = min(-4.0, *(np.quantile(x[:, both], 0.01) for x in (lowest, z) if x is not None))
    high = max(4.0, *(np.quantile(x[:, both], 0.99) for x in (highest, z) if x is not None))
    grid = np.linspace(low, high, 300)
    for latent, color in pair:
        gaps = (grid[:, None] - centre[:, latent]) / scale[:, latent]
        density = np.exp(-0.5 * gaps**2) / (scale[:, latent] * math.sqrt(2.0 * math.pi))
        axes.plot(grid, density.mean(axis=1), color=color, label=f"q(z), latent {latent}")
        if z is not None:
            counts, ends = np.histogram(z[:, latent], _BARS, (low, high))
            heights = counts / (len(z) * (ends[1] - ends[0]))
            axes.stairs(heights, ends, color=color, linestyle="--", label=f"p(z), latent {latent}")
    if z is None:
        normal = np.exp(-0.5 * grid**2) / math.sqrt(2.0 * math.pi)
        axes.plot(grid, normal, "--", color=GREY, label="p(z)")
    legend(axes)
    label(axes, "z_j", "density")
    which = "the two most used latents" if first != second else "the only latent"
    caption = f"Posterior averaged over {subject.examples()} against the prior, {which}."
    if z is not None:
        caption += f" The prior is shown by {len(z)} draws."
    if not subject.is_normal:
        caption += " Each q(z | x) is shown as a normal distribution of its mean and scale."
    return drawn("Posterior and prior overlap", caption, figure)


def _scatter(subject: Subject, x: np.ndarray, y: np.ndarray, names: tuple[str, str]) -> Any:
    """Plots examples as dots, coloured by label if there are labels."""
    figure, axes = axes_of()
    labels = _labels(subject)
    classes, codes = (None, None) if labels is None else np.unique(labels, return_inverse=True)
    marks = {"c": codes, "cmap": _colors(len(classes))} if classes is not None else {"color": BLUE}
    dots = axes.scatter(x, y, s=6, alpha=0.7, **marks)
    if classes is not None:
        handles, _ = dots.legend_elements(num=None)
        texts = [str(name) for name in classes.tolist()]
        axes.legend(
            handles, texts, fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
    label(axes, *names)
    return figure, "" if labels is None else ", coloured by label"


def _map(subject: Subject, centre: np.ndarray, first: int, second: int) -> Picture:
    """Plots the posterior means on two latents."""
    names = f"latent {first}", f"latent {second}"
    figure, coloured = _scatter(subject, centre[:, first], centre[:, second], names)
    caption = f"Posterior means of {subject.examples()} on the two most used latents{coloured}."
    return drawn("Map of the latents", caption, figure)


def _principal(subject: Subject, values: np.ndarray, what: str, of: str = "") -> Picture | None:
    """Plots values [N, L] on their two principal components; None if there are not more."""
    if values.shape[1] < 3:
        return None
    moved = np.asarray(values, np.float64) - values.mean(axis=0, dtype=np.float64)
    _, spread, directions = np.linalg.svd(moved, full_matrices=False)
    shares = spread**2 / max(float(np.sum(spread**2)), np.finfo(np.float64).tiny)
    points = moved @ directions[:2].T
    names = tuple(f"component {i + 1}, {shares[i]:.0%} of the variance" for i in range(2))
    figure, coloured = _scatter(subject, points[:, 0], points[:, 1], (names[0], names[1]))
    caption = f"The two directions in which the {what} of {subject.examples()} vary most{coloured}."
    return drawn(f"PCA of the latents{of}", caption, figure)


def _level_maps(subject: Subject, centre: np.ndarray) -> list[Picture]:
    """Plots a map of the posterior means of each level."""
    pictures, start = [], 0
    for name, block in list(subject.vae.blocks.items())[:_LEVELS]:
        size = math.prod(block.latent_shape)
        own = centre[:, start : start + size]
        start += size
        picture = _principal(subject, own, "posterior means", f", level {name}")
        if picture is None and size == 2:
            figure, coloured = _scatter(subject, own[:, 0], own[:, 1], (f"{name}[0]", f"{name}[1]"))
            caption = f"Posterior means of {subject.examples()}{coloured}."
            picture = drawn(f"Map of the latents, level {name}", caption, figure)
        pictures += [] if picture is None else [picture]
    return pictures


def _levels(subject: Subject) -> Picture:
    """Plots the rate of each level."""
    rates = measurements.rate_per_level(subject.vae, subject.x, subject.seed)
    figure, axes = axes_of()
    axes.bar(list(rates), list(rates.values()), color=BLUE)
    label(axes, "level, from the top down", "KL(q(z_k | above, x) || p(z_k | above)), nats")
    active = evaluation.active_units(subject.vae, subject.x)
    caption = (
        f"Mean over {subject.examples()}; {active} of {subject.vae.latent_size} latents are active "
        "(the posterior mean varies by more than 0.01)."
    )
    return drawn("Nats per level", caption, figure)


def _nats(subject: Subject, per_latent: np.ndarray, order: np.ndarray) -> Picture:
    """Plots the rate of each latent against a standard normal distribution."""
    figure, axes = axes_of()
    axes.bar(range(len(order)), per_latent[order], color=BLUE)
    if len(order) <= _NAMED:
        axes.set_xticks(range(len(order)), [str(latent) for latent in order])
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    label(axes, "latent, most used first", "KL(q(z_j | x) || N(0, 1)), nats")
    active = evaluation.active_units(subject.vae, subject.x)
    caption = (
        f"Mean over {subject.examples()}, against a standard normal; {active} of "
        f"{subject.vae.latent_size} latents are active (the posterior mean varies by more than "
        "0.01)."
    )
    return drawn("Nats per latent", caption, figure)


def _codes(subject: Subject) -> Picture:
    """Plots how often each code occurs."""
    usage = evaluation.code_usage(subject.vae, subject.x)
    figure, axes = axes_of()
    for stage, shares in enumerate(usage.frequencies):
        name = f"stage {stage + 1}" if len(usage.frequencies) > 1 else None
        axes.plot(np.sort(shares)[::-1], drawstyle="steps-mid", color=BLUE, label=name)
    axes.axhline(1.0 / usage.num_codes, linestyle="--", color=GREY)
    axes.set_ylim(bottom=0.0)
    label(axes, "code, most used first", "share of all positions")
    caption = (
        f"{subject.examples().capitalize()}: {usage.used:g} of {usage.num_codes} codes occur, "
        f"perplexity {usage.perplexity:.1f}. Dashed: all codes equally often."
    )
    return drawn("Use of the codes", caption, figure)


def _positions(subject: Subject, codes: np.ndarray) -> Picture:
    """Plots the share of each code at each position."""
    posterior = subject.vae.posterior
    flat = codes.reshape(len(codes), -1)[:, :_POSITIONS]
    shares = np.stack([np.bincount(column, minlength=posterior.num_codes) for column in flat.T])
    figure, axes = axes_of()
    axes.grid(visible=False)
    image = axes.imshow(
        shares / len(flat), aspect="auto", cmap="Blues", vmin=0.0, interpolation="nearest"
    )
    figure.colorbar(image, ax=axes).ax.tick_params(labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    label(axes, "code", "position, in reading order")
    count = math.prod(posterior.codes_shape)
    first = f"The first {_POSITIONS} of {count} positions: the" if count > _POSITIONS else "The"
    caption = f"{first} share of {subject.examples()} that has a code at a position."
    return drawn("Codes by position", caption, figure)


def _labels(subject: Subject) -> np.ndarray | None:
    """Returns the labels of the examples; None without labels, or with too many."""
    found = subject.labels
    if found is None or found.ndim != 1 or len(np.unique(found)) > _MOST_LABELS:
        return None
    return found


def _colors(count: int) -> str:
    return "tab10" if count <= 10 else "tab20"
