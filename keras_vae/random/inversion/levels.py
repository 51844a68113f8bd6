"""Draws of ordered levels by inversion of their distribution function."""

import tensorflow as tf

from keras_vae.random.elementary import total
from keras_vae.random.philox import Tensor

__all__ = ["mixture_of_logistics", "ordinal"]


def ordinal(u: Tensor, location: Tensor, thresholds: Tensor) -> Tensor:
    """Draws levels with P(x <= r) = sigmoid(thresholds[r] - location).

    Args:
        u: Uniforms in (0, 1), float32.
        location: Centre of the logistic variable that is cut, of a shape that broadcasts to `u`.
        thresholds: Increasing cut points on a last axis, one less than levels.

    Returns:
        float32, whole numbers from 0: how many cumulative probabilities are at most u.
    """
    cumulative = tf.sigmoid(thresholds - location[..., None])
    return total(tf.cast(cumulative <= u[..., None], tf.float32))


def mixture_of_logistics(
    u: Tensor, logits: Tensor, loc: Tensor, scale: Tensor, levels: int = 256
) -> Tensor:
    """Draws levels of a mixture of logistic distributions that are rounded to 0 .. levels - 1.

    The draw is the smallest k with F(k) > u, found by bisection, where F(k) is the weighted sum of
    sigmoid((k + 1/2 - loc) / scale), and 1 from the last level on.

    Args:
        u: Uniforms in (0, 1), float32 `[...]`.
        logits: Unnormalised log-weights of the components `[..., M]`.
        loc: Their centres, in levels, likewise.
        scale: Their scales, in levels, likewise; positive.
        levels: Number of levels, at least 2.

    Returns:
        float32 `[...]`, whole numbers.
    """
    weights = tf.exp(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
    threshold = u * total(weights)
    draw = tf.zeros_like(u)
    for bit in reversed(range((levels - 1).bit_length())):
        higher = draw + 2.0**bit
        tails = tf.sigmoid((higher[..., None] - 0.5 - loc) / scale)
        is_passed = total(weights * tails) <= threshold
        draw = tf.where(is_passed & (higher <= levels - 1.0), higher, draw)
    return draw
