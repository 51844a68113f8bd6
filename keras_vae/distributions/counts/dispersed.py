"""Log-probabilities of counts more dispersed than Poisson and binomial ones."""

import functools
import math
from collections.abc import Callable

import tensorflow as tf

from keras_vae.distributions.counts.deviance import deviance, remainder, saturated
from keras_vae.random.elementary import horner

__all__ = ["beta_binomial_log_prob", "negative_binomial_log_prob", "zero_inflated_zero"]

_LARGEST = 80.0
"""Largest logarithm of a mean whose exponential is taken; beyond it formulas are their limits."""

_STIRLING_FROM = 3.0
_SHIFTS = {tf.float32: 0, tf.float64: 5}
"""Steps from 3 to where the series of Stirling's formula is exact in each dtype."""

_TINY = 1e-30


def negative_binomial_log_prob(x: tf.Tensor, log_mean: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """Returns log NegativeBinomial(x) in nats, entry by entry; the shapes broadcast.

    Args:
        x: counts.
        log_mean: logarithm of the mean m.
        t: dispersion, positive; the variance is m + m^2 / t.
    """
    x, log_mean, t = _broadcast(x, log_mean, t)
    return _log_prob(x, tf.exp(tf.minimum(log_mean, _LARGEST)), log_mean, t)


def beta_binomial_log_prob(
    x: tf.Tensor, total_count: tf.Tensor, a: tf.Tensor, b: tf.Tensor
) -> tf.Tensor:
    """Returns log BetaBinomial(x) in nats, entry by entry; the shapes broadcast.

    Two independent negative binomial counts of dispersions a and b and a common probability of
    success have a sum of dispersion a + b; given that the sum is n, the first is beta-binomial. So
    the log-probability is that of x, plus that of n - x, less that of n. Means of n a / (a + b), n
    b / (a + b) and n keep all three near their largest values.

    Args:
        x: successes, from 0 to `total_count`.
        total_count: trials n, positive; a constant that is not differentiated.
        a, b: shapes of the beta distribution of the probability of a success, positive.
    """
    x, n, a, b = _broadcast(x, tf.stop_gradient(total_count), a, b)
    both = a + b
    means = tf.stack([n * (a / both), n * (b / both), n])
    found = _log_prob(tf.stack([x, n - x, n]), means, tf.math.log(means), tf.stack([a, b, both]))
    return found[0] + found[1] - found[2]


def zero_inflated_zero(log_zero: tf.Tensor, gate_logits: tf.Tensor) -> tf.Tensor:
    """Returns the log-probability of 0, log(g + (1 - g) P(0)) with g = sigmoid(gate_logits).

    It is log(1 - (1 - g) (1 - P(0))), and log(exp(gate_logits) + P(0)) - softplus(gate_logits)
    where that is below 1/2.

    Args:
        log_zero: log P(0) of the counts that are no excess zeros, at most 0.
        gate_logits: log-odds of an excess zero.
    """
    lost = tf.math.sigmoid(-gate_logits) * tf.math.expm1(log_zero)
    either = tf.where(
        gate_logits > log_zero,
        gate_logits + tf.math.softplus(log_zero - gate_logits),
        log_zero + tf.math.softplus(gate_logits - log_zero),
    )
    return tf.where(
        lost > -0.5,
        tf.math.log1p(tf.maximum(lost, -0.5)),
        either - tf.math.softplus(gate_logits),
    )


def _broadcast(*tensors: tf.Tensor) -> list[tf.Tensor]:
    """Broadcasts tensors to their common shape, so that gradients have the shapes of inputs."""
    shape = functools.reduce(tf.broadcast_dynamic_shape, map(tf.shape, tensors))
    return [tf.broadcast_to(tensor, shape) for tensor in tensors]


def _log_prob(x: tf.Tensor, mean: tf.Tensor, log_mean: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """Computes the negative binomial log-probability as a saturated value minus deviances.

    With n = x + t and p = m / (m + t), it is the probability of x successes and t failures of a
    binomial distribution, times t / n:

        log P(x) = saturated(x) + saturated(t) - saturated(n) + log(t / n)
                   - deviance(x, n p) - deviance(t, n (1 - p))

    If t is large, Stirling's formula replaces the difference of saturated(t) and saturated(n).
    """
    large, small = tf.maximum(t, _STIRLING_FROM), tf.minimum(t, _STIRLING_FROM)
    far = _remainder(x + large) - _remainder(large) - 0.5 * tf.math.log1p(x / large)
    near = _saturated(small) - _saturated(x + small) - tf.math.log1p(x / small)
    largest = saturated(x) + tf.where(t < _STIRLING_FROM, near, far)
    return largest - _deviances(x, tf.stop_gradient(mean), log_mean, t)


def _saturated(k: tf.Tensor) -> tf.Tensor:
    """Computes `saturated` with Stirling's formula from 3 on, where lgamma loses digits."""
    large, small = tf.maximum(k, _STIRLING_FROM), tf.minimum(k, _STIRLING_FROM)
    exact = small * tf.math.log(tf.maximum(small, _TINY)) - small - tf.math.lgamma(small + 1.0)
    series = -0.5 * tf.math.log(2.0 * math.pi * large) - _remainder(large)
    return tf.where(k < _STIRLING_FROM, exact, series)


def _remainder(k: tf.Tensor) -> tf.Tensor:
    """Computes the remainder r of Stirling's formula from 3 on.

    With w = 1 / (2 k + 1) it is r(k) = r(k + 1) + w^2 / 3 + w^4 / 5 + ...; float64 takes five such
    steps before the series is exact.
    """
    shifts = _SHIFTS[k.dtype]
    total = remainder(k + float(shifts))
    for shift in range(shifts):
        square = tf.square(1.0 / (2.0 * (k + float(shift)) + 1.0))
        total += square * horner(square, [1.0 / (2 * j + 3) for j in range(9)])
    return total


@tf.custom_gradient
def _deviances(
    x: tf.Tensor, mean: tf.Tensor, log_mean: tf.Tensor, t: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, None, tf.Tensor, tf.Tensor]]]:
    """Computes the sum of both deviances, which `log_mean` is differentiated for, not `mean`.

    Differences are taken of x and m, so nothing cancels if t is large.
    """
    relative = (x - mean) / (mean + t)
    excess = (x - mean) * (t / (mean + t))  # x - n p, and n (1 - p) - t
    shortfall = tf.nn.relu(mean - x)
    surplus = tf.nn.relu(x - mean)
    to_failures = (
        tf.math.log1p(shortfall / (x + t))
        - tf.math.log1p(tf.nn.relu(relative))
        + tf.nn.relu(log_mean - _LARGEST)
    )
    log_odds = tf.math.log(tf.maximum(t * (surplus / (x + t)), _TINY)) - log_mean
    to_successes = tf.where(
        x > mean,
        tf.math.softplus(log_odds),
        -tf.math.log1p(shortfall * (t / (mean + t)) / tf.maximum(x, _TINY)),
    )

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, tf.Tensor, tf.Tensor]:
        one = tf.ones_like(x)
        by_t = deviance(one, one + relative, to_failures, -relative)
        return upstream * to_successes, None, -upstream * excess, upstream * by_t

    value = deviance(x, x - excess, to_successes, excess)
    value += deviance(t, t + excess, to_failures, -excess)
    return value, gradient
