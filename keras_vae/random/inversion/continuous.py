"""Draws of real numbers by inversion in closed form."""

import math

import tensorflow as tf

from keras_vae.random.elementary import horner, log
from keras_vae.random.philox import Tensor

__all__ = ["continuous_bernoulli", "laplace", "logistic"]


def logistic(u: Tensor) -> Tensor:
    """Draws from the standard logistic distribution: log u - log(1 - u).

    Args:
        u: Uniforms in (0, 1), float32.

    Returns:
        float32, finite, within 2e-7 of the exact value, relative where that exceeds 1.
    """
    tail = tf.minimum(u, 1.0 - u)
    return tf.sign(0.5 - u) * log(tail / (1.0 - tail), largest_shift=64)


def laplace(u: Tensor) -> Tensor:
    """Draws from the standard Laplace distribution: -sign(u - 1/2) log(1 - 2 |u - 1/2|).

    Args:
        u: Uniforms in (0, 1), float32.

    Returns:
        float32, finite.
    """
    return tf.sign(0.5 - u) * log(2.0 * tf.minimum(u, 1.0 - u), largest_shift=64)


def continuous_bernoulli(u: Tensor, logits: Tensor) -> Tensor:
    """Draws from continuous Bernoulli distributions: log(1 + u (exp(l) - 1)) / l; u at l = 0.

    l are the logits. With a = |l| and v = u or 1 - u, the draw is -log((1 - v) + v exp(-a)) / a, or
    one minus that for l > 0. Below a = 1/4 the quotient is expanded: with b = (1 - exp(-a)) / a and
    s = a b v / (2 - a b v), it is 2 b v / (2 - a b v) * (1 + s^2/3 + s^4/5 + ...).

    Source: Loaiza-Ganem, Cunningham (2019), The continuous Bernoulli, arXiv:1907.06845.

    Args:
        u: Uniforms in (0, 1), float32.
        logits: Parameter of the distribution (not the logits of its mean), of the same shape.

    Returns:
        float32 in [0, 1], within 1e-6 of the exact value.
    """
    size = tf.abs(logits)
    is_positive = logits > 0.0
    v, complement = tf.where(is_positive, 1.0 - u, u), tf.where(is_positive, u, 1.0 - u)

    series = [(-1) ** k / math.factorial(k + 1) for k in range(7)]
    bounded = tf.minimum(size, 0.25)
    slope = horner(bounded, series)
    rest = 2.0 - bounded * slope * v
    ratio = bounded * slope * v / rest
    near = 2.0 * slope * v / rest * horner(ratio * ratio, [1.0, 1 / 3, 1 / 5, 1 / 7])

    far = -log(complement + v * tf.exp(-size), largest_shift=64) / tf.maximum(size, 0.25)
    value = tf.where(size < 0.25, near, far)
    return tf.where(is_positive, 1.0 - value, value)
