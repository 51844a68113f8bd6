"""Draws from normal distributions on an interval, by inversion."""

import math

import tensorflow as tf

from keras_vae.random.elementary import expm1, log, log1p_near, sqrt
from keras_vae.random.normal_tails import erf, hazard, integrated_hazard, quantile, upper
from keras_vae.random.philox import Tensor

__all__ = ["truncated_normal"]

_NEWTON_STEPS = 4


def truncated_normal(u: Tensor, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Draws from normal distributions restricted to an interval.

    The distance from the end that is nearer to the centre is inverted: by the normal quantile if
    the centre lies inside, and by Newton's method on the integral of the hazard if it lies outside,
    at any distance.

    Args:
        u: Uniforms in (0, 1), float32.
        loc: Centre before the restriction, of a shape that broadcasts to that of `u`.
        scale: Standard deviation before it, positive, likewise.
        low, high: Ends of the interval, likewise; one of them may be infinite.

    Returns:
        float32 in [low, high].
    """
    is_mirrored = loc > 0.5 * low + 0.5 * high
    v = tf.where(is_mirrored, 1.0 - u, u)
    rest = tf.where(is_mirrored, u, 1.0 - u)
    near = tf.where(is_mirrored, loc - high, low - loc) / scale
    width = tf.minimum((high - low) / scale, 1e18)
    distance = tf.where(
        near > 0.0,
        _outside(v, rest, tf.maximum(near, 0.0), width),
        _inside(v, rest, tf.minimum(near, 0.0), width),
    )
    step = scale * tf.clip_by_value(distance, 0.0, width)
    return tf.clip_by_value(tf.where(is_mirrored, high - step, low + step), low, high)


def _inside(v: Tensor, rest: Tensor, near: Tensor, width: Tensor) -> Tensor:
    """Inverts the distribution function from an end at `near` <= 0 on, in standard deviations."""
    far = near + width
    below, above = upper(-near), upper(tf.maximum(far, 0.0))
    share = 0.5 * (erf(far * math.sqrt(0.5)) - erf(near * math.sqrt(0.5)))
    centered = 0.5 * (v * erf(far * math.sqrt(0.5)) + rest * erf(near * math.sqrt(0.5)))
    tail = tf.where(centered < 0.0, below + v * share, above + rest * share)
    return quantile(centered, log(tf.minimum(tail, 1.0), largest_shift=64)) - near


def _outside(v: Tensor, rest: Tensor, near: Tensor, width: Tensor) -> Tensor:
    """Inverts it from an end at `near` >= 0 on: the integrated hazard at the draw is `depth`."""
    total = integrated_hazard(near, width)
    lost = v * expm1(-total)
    depth = tf.where(
        lost > -0.5, -log1p_near(lost), -log(rest + v * tf.exp(-total), largest_shift=64)
    )
    slope = hazard(near)
    x = tf.minimum(depth / slope, 2.0 * depth / (near + sqrt(near * near + 2.0 * depth)))
    for _ in range(_NEWTON_STEPS):
        x = tf.maximum(x - (integrated_hazard(near, x) - depth) / hazard(near + x), 0.0)
    return x
