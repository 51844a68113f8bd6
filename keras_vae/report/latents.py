"""Pictures of the latents."""

from __future__ import annotations

import math

import numpy as np

from keras_vae import data, evaluation
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
from keras_vae.runs.run import Run

__all__ = ["latents"]


def latents(subject: Subject) -> list[Picture]:
    """Plots what the latents carry: rates, overlap with the prior, and a map."""
    vae = subject.vae
    if subject.is_discrete:
        return [_codes(subject)]
    centre, scale = subject.moments
    per_latent = (0.5 * (scale**2 + centre**2 - 1.0) - np.log(scale)).mean(axis=0)
    order = np.argsort(-(per_latent if subject.is_normal else centre.var(axis=0)))
    pictures = [_nats(subject, per_latent[order])] if subject.is_normal else []
    if subject.has_levels:
        return [_levels(subject), _map(subject, centre, *order[[0, min(1, len(order) - 1)]])]
    first, second = order[0], order[min(1, len(order) - 1)]
    figure, axes = axes_of()
    grid = np.linspace(-4.0, 4.0, 300)
    for latent, color in ((first, BLUE), (second, ORANGE)):
        gaps = (grid[:, None] - centre[:, latent]) / scale[:, latent]
        density = np.exp(-0.5 * gaps**2) / (scale[:, latent] * math.sqrt(2.0 * math.pi))
        axes.plot(grid, density.mean(axis=1), color=color, label=f"q(z), latent {latent}")
    prior = vae.prior.components()
    if prior is not None and len(prior.loc) == 1:
        normal = np.exp(-0.5 * grid**2) / math.sqrt(2.0 * math.pi)
        axes.plot(grid, normal, "--", color=GREY, label="p(z)")
    legend(axes)
    label(axes, "z_j", "density")
    caption = (
        f"Posterior averaged over {subject.examples()} against the prior, the two most used "
        "latents."
    )
    if not subject.is_normal:
        caption += " Each q(z | x) is shown as a normal distribution of its mean and scale."
    pictures.append(drawn("Posterior and prior overlap", caption, figure))
    return [*pictures, _map(subject, centre, first, second)]


def _map(subject: Subject, centre: np.ndarray, first: int, second: int) -> Picture:
    """Plots the posterior means on two latents."""
    figure, axes = axes_of()
    colors = _labels(subject.run, len(subject.raw))
    marks = {"c": colors, "cmap": "tab10"} if colors is not None else {"color": BLUE}
    axes.scatter(centre[:, first], centre[:, second], s=6, alpha=0.7, **marks)
    label(axes, f"latent {first}", f"latent {second}")
    caption = f"Posterior means of {subject.examples()} on the two most used latents" + (
        ", coloured by label." if colors is not None else "."
    )
    return drawn("Map of the latents", caption, figure)


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


def _nats(subject: Subject, per_latent: np.ndarray) -> Picture:
    """Plots the rate of each latent against a standard normal distribution."""
    figure, axes = axes_of()
    axes.bar(range(len(per_latent)), per_latent, color=BLUE)
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


def _labels(run: Run, count: int) -> np.ndarray | None:
    """Reads labels of the test examples as integers; None if the data has none that match."""
    config = run.config
    try:
        if config.test_data:
            found = data.load(config.test_data, labels=True).labels
        elif config.data == "digits":
            labels = data.load("digits", labels=True).labels
            found = data.split(
                np.asarray(labels), test_fraction=config.test_fraction, seed=config.seed
            )[1]
        else:
            found = data.load(config.data, labels=True, split="test").labels
    except data.DataError:
        return None
    if found is None or len(np.unique(found)) > 20:
        return None
    return np.unique(found, return_inverse=True)[1][:count]
