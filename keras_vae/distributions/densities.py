"""Log-densities of real numbers that stay accurate in float32 at extreme parameters.

A density of concentration k is its largest value over the mean less k times a divergence, so that
no difference of large numbers is left as k grows:

    log Gamma(x; m, k)  = peak(k) - log x - k (x / m - 1 - log(x / m))
    log Beta(x; m, c)   = peak(c m) + peak(c (1 - m)) - peak(c) - log x - log(1 - x)
                          - c (m log(m / x) + (1 - m) log((1 - m) / (1 - x)))
    peak(k)             = k log k - k - log Gamma(k)

and the constant of a Student-t density of large df is a difference of remainders of Stirling's
formula. A normal density on an interval is taken relative to the end that is nearer to its centre.
"""

import functools
import math
from collections.abc import Callable

import tensorflow as tf

from keras_vae.distributions.counts.deviance import deviance, remainder
from keras_vae.random.normal_tails import erf, integrated_hazard, log_cdf, log_upper

__all__ = [
    "beta_log_prob",
    "censored_normal_log_prob",
    "from_nearer_end",
    "gamma_log_prob",
    "log_normal_log_prob",
    "student_t_log_prob",
    "together",
    "truncated_normal_log_prob",
]

_TINY = 1e-37
_LARGEST = 80.0
"""Largest size of a log-mean whose exponential is taken."""

_WIDEST = 1e18
"""Widest interval in standard deviations; its square is finite in float32."""

_STIRLING_FROM = {tf.float32: 3.0, tf.float64: 8.0}
"""Argument from which the series of Stirling's formula is exact, by dtype."""

_LOG_ROOT = 0.5 * math.log(2.0 * math.pi)

Gradient = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def together(*tensors: tf.Tensor) -> list[tf.Tensor]:
    """Broadcasts tensors to their common shape, so that gradients have the shapes of inputs."""
    shape = functools.reduce(tf.broadcast_dynamic_shape, map(tf.shape, tensors))
    return [tf.broadcast_to(tensor, shape) for tensor in tensors]


def _peak(k: tf.Tensor, log_k: tf.Tensor) -> tf.Tensor:
    """Computes k log k - k - log Gamma(k) from k and its logarithm, also where k underflows."""
    start = _STIRLING_FROM[k.dtype]
    large, small = tf.maximum(k, start), tf.minimum(k, start)
    near = log_k + small * log_k - small - tf.math.lgamma(small + 1.0)
    return tf.where(k < start, near, 0.5 * log_k - _LOG_ROOT - remainder(large))


def gamma_log_prob(x: tf.Tensor, log_mean: tf.Tensor, concentration: tf.Tensor) -> tf.Tensor:
    """Returns the log-density of Gamma(k) of mean m in nats, entry by entry; the shapes broadcast.

    Args:
        x: positive numbers.
        log_mean: logarithm of the mean, from -80 on.
        concentration: shape k, positive; the variance is m^2 / k.
    """
    x, log_mean = together(tf.maximum(x, _TINY), log_mean)
    largest = _peak(concentration, tf.math.log(concentration))
    return largest - concentration * _gamma_deviance(x, log_mean) - tf.math.log(x)


@tf.custom_gradient
def _gamma_deviance(x: tf.Tensor, log_mean: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """Computes r - 1 - log r for r = x / m."""
    log_mean = tf.maximum(log_mean, -_LARGEST)
    mean = tf.exp(tf.minimum(log_mean, _LARGEST))
    shortfall = (mean - x) / mean

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream * (1.0 / mean - 1.0 / x), upstream * shortfall

    log_ratio = log_mean - tf.math.log(x)
    return deviance(tf.ones_like(x), x / mean, log_ratio, shortfall), gradient


def log_normal_log_prob(x: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Returns the log-density of exp(loc + scale Z) in nats, Z standard normal."""
    log_x = tf.math.log(tf.maximum(x, _TINY))
    return -0.5 * tf.square((log_x - loc) / scale) - tf.math.log(scale) - _LOG_ROOT - log_x


def student_t_log_prob(x: tf.Tensor, df: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Returns the log-density of loc + scale T in nats, T of Student's distribution."""
    k, start = 0.5 * df, _STIRLING_FROM[df.dtype]
    large, small = tf.maximum(k, start), tf.minimum(k, start)
    near = tf.math.lgamma(small + 0.5) - tf.math.lgamma(small) - 0.5 * tf.math.log(small)
    far = large * tf.math.log1p(0.5 / large) - 0.5 - remainder(large) + remainder(large + 0.5)
    largest = tf.where(k < start, near, far) - tf.math.log(scale) - _LOG_ROOT
    return largest - (k + 0.5) * tf.math.log1p(tf.square((x - loc) / scale) / df)


def beta_log_prob(x: tf.Tensor, logits: tf.Tensor, concentration: tf.Tensor) -> tf.Tensor:
    """Returns the log-density of Beta(c m, c (1 - m)) in nats; the shapes broadcast.

    Args:
        x: numbers in (0, 1).
        logits: log-odds of the mean m.
        concentration: sum c of both shapes, positive; the variance is m (1 - m) / (c + 1).
    """
    x, logits = together(x, logits)
    log_c = tf.math.log(concentration)
    log_mean, log_rest = -tf.math.softplus(-logits), -tf.math.softplus(logits)
    largest = (
        _peak(concentration * tf.math.sigmoid(logits), log_c + log_mean)
        + _peak(concentration * tf.math.sigmoid(-logits), log_c + log_rest)
        - _peak(concentration, log_c)
    )
    log_x, log_y = tf.math.log(tf.maximum(x, _TINY)), tf.math.log(tf.maximum(1.0 - x, _TINY))
    return largest - concentration * _divergence(x, logits) - log_x - log_y


@tf.custom_gradient
def _divergence(x: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """Computes the Kullback-Leibler divergence of Bernoulli(x) from Bernoulli(sigmoid(logits))."""
    mean, rest = tf.math.sigmoid(logits), tf.math.sigmoid(-logits)
    x, y = tf.maximum(x, _TINY), tf.maximum(1.0 - x, _TINY)
    excess = tf.where(logits > 0.0, y - rest, mean - x)
    log_x, log_y = tf.math.log(x), tf.math.log(y)
    to_x = -tf.math.softplus(-logits) - log_x
    to_y = -tf.math.softplus(logits) - log_y

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream * -(excess / x) / y, upstream * mean * rest * (logits - log_x + log_y)

    return deviance(mean, x, to_x, excess) + deviance(rest, y, to_y, -excess), gradient


def from_nearer_end(
    x: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor, low: float, high: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Measures an interval from the end that is nearer to `loc`, in standard deviations.

    Args:
        x: numbers in the interval.
        loc, scale: centre and standard deviation.
        low, high: ends of the interval, one of which may be infinite.

    Returns:
        Distance of x from that end; position of the end relative to the centre, positive where
        the centre lies outside; width of the interval, at most 1e18; whether the end is `high`.
    """
    from_low, from_high = (
        ((x - low) / scale, (low - loc) / scale),
        ((high - x) / scale, (loc - high) / scale),
    )
    if math.isinf(high):
        return (
            *from_low,
            tf.fill(tf.shape(from_low[1]), tf.constant(_WIDEST, x.dtype)),
            tf.zeros_like(from_low[1], tf.bool),
        )
    if math.isinf(low):
        return (
            *from_high,
            tf.fill(tf.shape(from_high[1]), tf.constant(_WIDEST, x.dtype)),
            tf.ones_like(from_high[1], tf.bool),
        )
    is_high = loc > 0.5 * (low + high)
    distance, near = (tf.where(is_high, b, a) for a, b in zip(from_low, from_high, strict=True))
    return distance, near, tf.minimum((high - low) / scale, _WIDEST), is_high


def truncated_normal_log_prob(
    x: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor, low: float, high: float
) -> tf.Tensor:
    """Returns the log-density of a normal distribution restricted to [low, high], in nats.

    Args:
        x: numbers in the interval.
        loc, scale: centre and standard deviation before the restriction.
        low, high: ends of the interval, one of which may be infinite.
    """
    distance, near, width, _ = from_nearer_end(x, loc, scale, low, high)
    start, inner = tf.maximum(near, 0.0), tf.minimum(near, 0.0)
    outside = (
        -distance * (0.5 * distance + start)
        - log_upper(start)
        - _log1mexp(integrated_hazard(start, width))
    )
    share = 0.5 * (erf((inner + width) * math.sqrt(0.5)) - erf(inner * math.sqrt(0.5)))
    inside = -0.5 * tf.square(distance + inner) - tf.math.log(share)
    return tf.where(near > 0.0, outside, inside) - tf.math.log(scale) - _LOG_ROOT


def _log1mexp(depth: tf.Tensor) -> tf.Tensor:
    """Computes log(1 - exp(-depth)) for positive depths."""
    return tf.math.log(-tf.math.expm1(-depth))


def censored_normal_log_prob(
    x: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor, low: float, high: float
) -> tf.Tensor:
    """Returns log-densities of a normal variable between two limits, and log-probabilities at them.

    At an end it is the log-probability that the variable lies there or beyond; in nats.

    Args:
        x: numbers in the interval.
        loc, scale: centre and standard deviation of the variable.
        low, high: ends of the interval, one of which may be infinite.
    """
    value = -0.5 * tf.square((x - loc) / scale) - tf.math.log(scale) - _LOG_ROOT
    if not math.isinf(low):
        value = tf.where(x <= low, log_cdf((low - loc) / scale), value)
    if not math.isinf(high):
        value = tf.where(x >= high, log_cdf((loc - high) / scale), value)
    return value
