"""Weighted draws from the posterior given what is present."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from keras_vae.imputation.statistics import Statistic

__all__ = ["ABSENT", "PosteriorDraws", "posterior_draws", "resampled", "weighted_sum"]

ABSENT = "absent_"
"""Prefix of the name of a latent that holds the absent entries of a part, which it also draws."""


class PosteriorDraws(NamedTuple):
    """Weighted draws from the posterior given what is present.

    Attributes:
        latents: draws z_k by name, [K, B, ...].
        weights: self-normalised importance weights, [K, B], whose sum over the draws is 1.
        ess: effective sample size 1 / sum W^2, [B], from 1 to K.
        expectations: weighted means of statistics of the parts by name, [B, ...].
    """

    latents: dict[str, tf.Tensor]
    weights: tf.Tensor
    ess: tf.Tensor
    expectations: dict[str, tf.Tensor]


def posterior_draws(
    model: Any,
    x: Any,
    noise: Mapping[str, Any],
    statistics: Mapping[str, Statistic] | None = None,
    at_once: int | None = None,
) -> PosteriorDraws:
    """Draws from q(z | present), weighs the draws, and averages statistics of the parts.

    Args:
        model: latent variable model.
        x: tensors, as `model.infer` takes them; absent entries are NaN.
        noise: noise of the latents, [K, B, ...].
        statistics: by part, a function of p(x | z_k), [K, B, ...] in batch shape, to a tensor
            [K, B, ...].
        at_once: number of draws that are decoded at once; None is all of them. Results depend on
            it by rounding only.
    """
    inference = model.infer(x)
    statistics = statistics or {}

    def at(some: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        trace = inference.trace(some)
        latents = {name: latent.value for name, latent in trace.latents.items()}
        found = {
            name: latents[ABSENT + name]
            if ABSENT + name in latents
            else of(trace.observations[name].p)
            for name, of in statistics.items()
        }
        return trace.log_weights(), latents, found

    count = tf.nest.flatten(noise)[0].shape[0]
    if at_once is None or count is None or count <= at_once:
        log_w, latents, found = at(noise)
        weights = tf.nn.softmax(log_w, axis=0)
        sums = {name: weighted_sum(values, weights) for name, values in found.items()}
    else:
        log_w, latents, sums = _in_turns(at, noise, count, at_once)
        weights = tf.nn.softmax(log_w, axis=0)
    ess = 1.0 / tf.reduce_sum(weights**2, axis=0)
    return PosteriorDraws(latents, weights, ess, sums)


def _in_turns(
    at: Callable[..., Any], noise: Any, count: int, at_once: int
) -> tuple[tf.Tensor, dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Returns log-weights [K, B], latents, and weighted means, from some draws after the others."""
    first = tf.nest.map_structure(lambda one: one[:at_once], noise)
    log_w, latents, found = at(first)
    top = tf.reduce_max(log_w, axis=0)
    weights = tf.exp(log_w - top)
    total = tf.reduce_sum(weights, axis=0)
    sums = {name: weighted_sum(values, weights) for name, values in found.items()}
    turns = -(-count // at_once)
    kept = [
        tf.TensorArray(
            each.dtype, turns, infer_shape=False, element_shape=[None, *each.shape[1:]]
        ).write(0, each)
        for each in (log_w, *latents.values())
    ]

    def step(turn: tf.Tensor, top: Any, total: Any, sums: Any, kept: Any) -> tuple[Any, ...]:
        start = turn * at_once
        some = tf.nest.map_structure(lambda one: one[start : start + at_once], noise)
        log_w, latents, found = at(some)
        higher = tf.maximum(top, tf.reduce_max(log_w, axis=0))
        shrink, weights = tf.exp(top - higher), tf.exp(log_w - higher)
        total = total * shrink + tf.reduce_sum(weights, axis=0)
        sums = {
            name: _times(sums[name], shrink) + weighted_sum(values, weights)
            for name, values in found.items()
        }
        kept = [
            array.write(turn, each)
            for array, each in zip(kept, (log_w, *latents.values()), strict=True)
        ]
        return turn + 1, higher, total, sums, kept

    _, _, total, sums, kept = tf.while_loop(
        lambda turn, *_: turn < turns,
        step,
        (tf.constant(1), top, total, sums, kept),
        parallel_iterations=1,
    )
    log_w, *values = (array.concat() for array in kept)
    means = {name: _times(value, 1.0 / total) for name, value in sums.items()}
    return log_w, dict(zip(latents, values, strict=True)), means


def _times(values: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies by a factor of the first axes; where the factor is 0 so is the product."""
    while factor.shape.rank < values.shape.rank:
        factor = factor[..., tf.newaxis]
    return tf.math.multiply_no_nan(values, factor)


def weighted_sum(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns the sum of values [S, B, ...] times weights [S, B] over the first axis."""
    return tf.reduce_sum(_times(values, weights), axis=0)


def resampled(found: PosteriorDraws, u: tf.Tensor) -> dict[str, tf.Tensor]:
    """Draws latents from the posterior, by resampling the weighted draws.

    Args:
        found: weighted draws.
        u: uniform numbers in (0, 1), [M, B]; each picks the first draw at which the sum of the
            weights exceeds it.

    Returns:
        Latents by name, [M, B, ...].
    """
    cumulative = tf.cumsum(found.weights, axis=0)
    passed = cumulative[:-1, tf.newaxis] <= u * cumulative[-1]
    index = tf.transpose(tf.reduce_sum(tf.cast(passed, tf.int32), axis=0))

    def picked(z: tf.Tensor) -> tf.Tensor:
        order = [1, 0, *range(2, z.shape.rank)]
        return tf.transpose(tf.gather(tf.transpose(z, order), index, batch_dims=1), order)

    return {name: picked(z) for name, z in found.latents.items()}
