"""Poisson, binomial and multinomial log-probabilities: saturated values less deviances."""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_vae.random.elementary import STIRLING, horner

__all__ = [
    "binomial_log_prob",
    "deviance",
    "multinomial_log_prob",
    "poisson_log_prob",
    "remainder",
    "saturated",
]

_STIRLING_TERMS = {tf.float32: 5, tf.float64: 8}
"""Number of terms of Stirling's series: the rest is below half a unit in the last place."""
_ASYMPTOTIC = 8.0
_NEAR = 1.0 / 3.0
_TINY = 1e-30


def _polynomial(degree: int) -> list[float]:
    """Returns coefficients in s = v^2 of (atanh(v) / v - 1) / s, for |v| up to 1/3.

    They are those of the polynomial through its values at Chebyshev nodes, which takes half the
    terms of the power series 1/3 + s / 5 + s^2 / 7 + ... for the same error.
    """
    fitted = np.polynomial.Chebyshev.interpolate(
        lambda s: horner(s, [1.0 / (2 * j + 3) for j in range(30)]), degree, [0.0, _NEAR**2]
    )
    return fitted.convert(kind=np.polynomial.Polynomial).coef.tolist()


_SERIES = {tf.float32: _polynomial(4), tf.float64: _polynomial(10)}
"""Coefficients of the deviance's series, by dtype."""

Gradient = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def poisson_log_prob(x: tf.Tensor, log_rate: tf.Tensor) -> tf.Tensor:
    """Returns log Poisson(x; exp(log_rate)) in nats, entry by entry; the shapes broadcast."""
    return saturated(x) - _poisson_deviance(*_together(x, log_rate))


def binomial_log_prob(x: tf.Tensor, total_count: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns log Binomial(x; total_count, sigmoid(logits)) in nats; the shapes broadcast.

    Args:
        x: successes, from 0 to `total_count`.
        total_count: trials, a constant that is not differentiated.
        logits: log-odds of a success.
    """
    n = tf.stop_gradient(total_count)
    largest = saturated(x) + saturated(n - x) - saturated(n)
    x, logits = _together(x, logits)
    return largest - _binomial_deviance(x, n * tf.ones_like(x), logits)


def multinomial_log_prob(x: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns log Multinomial(x; softmax(logits)) in nats, over the last axis.

    Args:
        x: counts [..., K]; their sum is the number of trials.
        logits: unnormalised log-probabilities [..., K]; the leading axes broadcast.
    """
    largest = tf.reduce_sum(saturated(x), axis=-1) - saturated(tf.reduce_sum(x, axis=-1))
    return largest - _multinomial_deviance(*_together(x, logits))


def _together(x: tf.Tensor, parameter: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Broadcasts both to a common shape; gradients have the shapes of the inputs."""
    if x.shape.is_fully_defined() and x.shape == parameter.shape:
        return x, parameter
    shape = tf.broadcast_dynamic_shape(tf.shape(x), tf.shape(parameter))
    return tf.broadcast_to(x, shape), tf.broadcast_to(parameter, shape)


def remainder(k: tf.Tensor) -> tf.Tensor:
    """Computes log k! - (k + 1/2) log k + k - log(2 pi) / 2, the rest of Stirling's formula.

    It is exact to float64 from 8 on, and to float32 from 3 on.
    """
    return horner(1.0 / (k * k), STIRLING[: _STIRLING_TERMS[k.dtype]]) / k


def saturated(k: tf.Tensor) -> tf.Tensor:
    """Computes the largest log-probability of a real count, k log k - k - log k!.

    From 8 on it is -1/2 log(2 pi k) less the remainder of Stirling's series.
    """
    large = tf.maximum(k, _ASYMPTOTIC)
    small = tf.minimum(k, _ASYMPTOTIC)
    log_k = _log(k)
    exact = small * log_k - small - tf.math.lgamma(small + 1.0)
    asymptotic = -0.5 * (log_k + math.log(2.0 * math.pi)) - remainder(large)
    return tf.where(k < _ASYMPTOTIC, exact, asymptotic)


def deviance(
    k: tf.Tensor, mean: tf.Tensor, log_ratio: tf.Tensor, difference: tf.Tensor | None = None
) -> tf.Tensor:
    """Computes the deviance k log(k / mean) + mean - k.

    Args:
        k: real numbers, at least 0.
        mean: real numbers, at least 0.
        log_ratio: log(k / mean), finite where k is 0.
        difference: k - mean, if the caller knows it more exactly than a subtraction.

    With v = (k - mean) / (k + mean) it is (k - mean) v + 2 k (v^3 / 3 + v^5 / 5 + ...), which has
    no cancellation; the logarithm is used where |v| exceeds 1/3.
    """
    if difference is None:
        difference = k - mean
    v = difference / tf.maximum(k + mean, _TINY)
    near = tf.clip_by_value(v, -_NEAR, _NEAR)
    square = near * near
    series = near * (difference + 2.0 * k * square * horner(square, _SERIES[k.dtype]))
    return tf.where(tf.abs(v) < _NEAR, series, k * log_ratio - difference)


def _log(k: tf.Tensor) -> tf.Tensor:
    return tf.math.log(tf.maximum(k, _TINY))


@tf.custom_gradient
def _poisson_deviance(x: tf.Tensor, log_rate: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    rate, log_ratio = tf.exp(log_rate), _log(x) - log_rate

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream * log_ratio, upstream * (rate - x)

    return deviance(x, rate, log_ratio), gradient


@tf.custom_gradient
def _binomial_deviance(
    x: tf.Tensor, n: tf.Tensor, logits: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]]]:
    odds = tf.exp(-tf.abs(logits))
    likely, rare = 1.0 / (1.0 + odds), odds / (1.0 + odds)
    log_likely = -tf.math.log1p(odds)
    log_rare = log_likely - tf.abs(logits)
    positive = logits > 0.0
    hits = n * tf.where(positive, likely, rare)
    misses = n * tf.where(positive, rare, likely)
    log_n = _log(n)
    to_hits = _log(x) - log_n - tf.where(positive, log_likely, log_rare)
    to_misses = _log(n - x) - log_n - tf.where(positive, log_rare, log_likely)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, tf.Tensor]:
        return upstream * (to_hits - to_misses), None, upstream * (hits - x)

    return deviance(x, hits, to_hits) + deviance(n - x, misses, to_misses), gradient


@tf.custom_gradient
def _multinomial_deviance(x: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    n = tf.reduce_sum(x, axis=-1, keepdims=True)
    log_p = tf.nn.log_softmax(logits)
    means, log_ratio = n * tf.nn.softmax(logits), _log(x) - _log(n) - log_p

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        upstream = upstream[..., tf.newaxis]
        return upstream * log_ratio, upstream * (means - x)

    return tf.reduce_sum(deviance(x, means, log_ratio), axis=-1), gradient
