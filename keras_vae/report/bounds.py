"""Pictures of the bound: its course in training, and its distance from log p(x)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from scipy.special import logsumexp

from keras_vae import evaluation
from keras_vae.distributions.noise import from_seed
from keras_vae.evaluation.pareto import TRUSTED, pareto_k, tail_size
from keras_vae.model import VAE
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
from keras_vae.runs.units import Units

__all__ = ["bounds", "curves", "frontier", "gap", "measured_gap", "watched"]

_HARD = 64
_GAP = 32
_FEWEST = 16
_NUMBERS = 2**14
_DRAWS = 1000
_METHODS = {
    "exact": "exact log p(x)",
    "quadrature": "log p(x) by quadrature",
    "annealed": "annealed importance sampling",
}


class _Effort(NamedTuple):
    """How much is computed for each example of which the gap is measured."""

    steps: int
    num_samples: int
    num_chains: int
    temperatures: int


_PLAIN, _OF_SEQUENCES = _Effort(200, 64, 8, 200), _Effort(100, 32, 8, 50)


def curves(subject: Subject) -> list[Picture]:
    """Plots the bound and its terms against epochs."""
    units, history = subject.units, subject.run.history()
    figure, axes = axes_of()
    _pair(axes, history, "elbo", BLUE, units)
    early = history[len(history) // 10 :]
    sets = {"elbo": "train", "val_elbo": "test"}
    values = np.array(
        [units.log_p(row[key], sets[key]) for row in early for key in row if key in sets]
    )
    if len(history) > 10:
        margin = 0.1 * float(np.ptp(values)) + 1e-9
        axes.set_ylim(values.min() - margin, values.max() + margin)
    label(axes, "epoch", "ELBO, nats per example")
    caption = (
        f"Unweighted lower bound on the {units.quantity} of {units.data}, one draw of z each; "
        f"held-out: {subject.examples(subject.available)}."
    )
    pictures = [drawn("ELBO", caption, figure)]
    figure, axes = axes_of()
    _pair(axes, history, "distortion", BLUE, units, -1.0)
    _pair(axes, history, "rate", ORANGE)
    label(axes, "epoch", "nats per example")
    caption = "Its two terms: -E log p(x | z) and KL(q(z | x) || p(z)). Their sum is -ELBO."
    pictures.append(drawn("Distortion and rate", caption, figure))
    if any(abs(row["loss"] + row["elbo"]) > 1e-3 * abs(row["loss"]) for row in history):
        figure, axes = axes_of()
        _pair(axes, history, "loss", GREY, units, -1.0)
        label(axes, "epoch", "loss, nats per example")
        config = subject.run.config
        terms = ", with the terms by which the codes are learned" if subject.is_discrete else ""
        caption = f"What was minimised ({config.objective}, beta {config.beta:g}{terms})."
        pictures.append(drawn("Loss, which is not the ELBO", caption, figure))
    return pictures


def watched(subject: Subject) -> list[Picture]:
    """Plots what the monitor logged, if the run had one."""
    history = subject.run.history()
    if "active_units" not in history[0]:
        return []
    units, axes = axes_of()
    _pair(axes, history, "active_units", BLUE)
    axes.set_ylim(bottom=0.0)
    label(axes, "epoch", "number of latents")
    rates, axes = axes_of()
    _pair(axes, history, "rate_max", BLUE)
    _pair(axes, history, "rate_median", ORANGE)
    label(axes, "epoch", "KL(q(z_j | x) || p(z_j)), nats")
    return [
        drawn("Active latents", "Var_x(E_q z_j) > 0.01, over the examples of each epoch.", units),
        drawn("Rate of the latents", "Largest and median over latents, means over x.", rates),
    ]


def measured_gap(subject: Subject) -> evaluation.BoundGap:
    """Measures log p(x) and the gap of the bound for a few examples; the posterior is normal.

    Sequences are annealed where a grid would have three axes: it decodes each 10^5 times and more.
    """
    on_grid = not subject.run.config.is_sequence or subject.vae.latent_size < 3
    return evaluation.bound_gap(
        subject.vae,
        _few(subject, _GAP),
        method="auto" if on_grid else "annealed",
        seed=subject.seed,
        **_effort(subject)._asdict(),
    )


def _effort(subject: Subject) -> _Effort:
    return _OF_SEQUENCES if subject.run.config.is_sequence else _PLAIN


def bounds(subject: Subject, measured: evaluation.BoundGap | None = None) -> Picture:
    """Plots the multi-sample bounds against k, and log p(x) by another method.

    Args:
        subject: the run.
        measured: its gap, which knows log p(x); None anneals, if the posterior has a density.
    """
    few, units = _few(subject, _HARD if measured is None else _GAP), subject.units
    log_w = _log_weights(subject.vae, few, subject.seed)
    count, offsets = log_w.shape[1], subject.offsets(few)
    sizes = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    means = []
    for k in sizes:
        groups = log_w.reshape(_DRAWS // k, k, count)
        means.append(float(np.mean(logsumexp(groups, axis=1) - math.log(k) + offsets)))
    largest = np.partition(log_w, -tail_size(_DRAWS) - 1, axis=0)[-tail_size(_DRAWS) - 1 :]
    heavy = int((pareto_k(largest.T) > TRUSTED).sum())
    figure, axes = axes_of()
    axes.plot(sizes, means, "o-", color=BLUE, label="L_k, importance sampling")
    caption = (
        f"Means over {subject.examples(count)}: ELBO = L_1 = {means[0]:.2f}, L_1000 = "
        f"{means[-1]:.2f}"
    )
    truth, method = _truth(subject, few, measured)
    if truth is not None:
        top, top_error = evaluation.mean_and_error(truth + offsets)
        axes.axhline(top, color=ORANGE, label=_METHODS[method])
        caption += (
            f", {_METHODS[method]}{_settings(subject, method)} = {top:.2f}. Each mean has the "
            f"standard error {top_error:.2f}; all are of the same examples, so their differences "
            "are more certain"
        )
    caption += "."
    axes.set_xscale("log")
    legend(axes)
    label(axes, "k, draws per example", f"bound on the {units.quantity}, nats")
    if heavy:
        caption += f" {measurements.heavy_tails(heavy, count)}"
    return drawn("The bound rises towards log p(x)", caption, figure)


def _truth(
    subject: Subject, few: Any, measured: evaluation.BoundGap | None
) -> tuple[np.ndarray | None, str]:
    """Returns log p(x) of a few examples, or None, and how it was computed."""
    if measured is not None:
        return measured.log_marginal, measured.method
    if not (subject.has_levels or subject.vae.posterior.tells_density):
        return None, ""
    effort = _effort(subject)
    annealed = evaluation.log_marginal(
        subject.vae,
        few,
        "annealed",
        num_samples=effort.num_chains,
        temperatures=effort.temperatures,
        seed=subject.seed,
    )
    return annealed.value, "annealed"


def _settings(subject: Subject, method: str) -> str:
    effort = _effort(subject)
    if method != "annealed":
        return ""
    return f" ({effort.num_chains} chains, {effort.temperatures} temperatures)"


def gap(subject: Subject, measured: evaluation.BoundGap) -> Picture:
    """Plots the gap log p(x) - ELBO and its causes."""
    shares = {
        "the family of q": float(np.mean(measured.approximation)),
        "one encoder for all": float(np.mean(measured.amortisation)),
    }
    figure, axes = axes_of()
    axes.barh([*shares], [*shares.values()], color=[BLUE, ORANGE])
    axes.invert_yaxis()
    axes.set_xlabel("nats per example", fontsize=9)
    axes.tick_params(labelsize=8)
    caption = f"Mean over {subject.examples(len(measured.approximation))}: {measured}."
    return drawn("Why the bound is below log p(x)", caption, figure)


def frontier(subject: Subject) -> list[Picture]:
    """Plots rate against distortion, if models at several beta were trained."""
    values = measurements.read(subject.run.path / "rate_distortion.json")
    if values is None:
        return []
    rate, distortion = np.array(values["rate"]), np.array(values["distortion"])
    figure, axes = axes_of()
    span = np.array([0.0, 1.05 * rate.max()])
    best = (rate + distortion).min()
    axes.plot(span, best - span, "--", color=GREY, label=f"ELBO = {-best:.1f}")
    axes.plot(rate, distortion, "o-", color=BLUE)
    for beta, x, y in zip(values["beta"], rate, distortion, strict=True):
        axes.annotate(f"{beta:g}", (x, y), (5, 5), textcoords="offset points", fontsize=8)
    legend(axes)
    label(axes, "rate, nats per example", "distortion, nats per example")
    caption = (
        f"Models trained at the beta written beside them, means over all {values['test_examples']} "
        f"test examples; {values['quantity']} of {values['data']}. The dashed line joins models of "
        "the best ELBO; -beta is the slope of the ideal curve."
    )
    return [drawn("Rate against distortion", caption, figure)]


def _few(subject: Subject, most: int) -> Any:
    """Selects the first examples, fewer of large ones and of sequences, whose steps take time.

    Annealing evaluates each 16 000 times, a sequence 4000 times.
    """
    most = _FEWEST if subject.run.config.is_sequence else most
    count = max(_FEWEST, min(most, _NUMBERS // subject.vae.numbers_per_example))
    return keras.tree.map_structure(lambda part: part[:count], subject.x)


def _pair(
    axes: Any,
    history: list[dict[str, float]],
    name: str,
    color: str,
    units: Units | None = None,
    sign: float = 1.0,
) -> None:
    """Plots a log of training and test set, to which `sign` times the offset is added."""
    epochs = [row["epoch"] for row in history]
    offsets = [
        0.0 if units is None else sign * units.offset_of(which) for which in ("train", "test")
    ]
    values = [row[name] + offsets[0] for row in history]
    axes.plot(epochs, values, color=color, label=f"{name}, training")
    if f"val_{name}" in history[0]:
        held_out = [row[f"val_{name}"] + offsets[1] for row in history]
        axes.plot(epochs, held_out, "--", color=color, label=f"{name}, held-out")
    axes.xaxis.get_major_locator().set_params(integer=True)
    legend(axes)


def _log_weights(vae: VAE, x: Any, seed: int) -> np.ndarray:
    """Computes log-weights log p(x, z) - log q(z | x) of `_DRAWS` draws, [S, N]."""
    inference = vae.infer(keras.tree.map_structure(tf.constant, x))
    size = len(keras.tree.flatten(x)[0])

    @tf.function
    def chunk(index: tf.Tensor) -> tf.Tensor:
        own_seed = tf.stack([seed, index])
        noise = from_seed(vae.noise(), own_seed, [_DRAWS // 10, size], vae.float_dtype)
        return inference.trace(noise).log_weights()

    return np.concatenate([chunk(tf.constant(index)).numpy() for index in range(10)])
