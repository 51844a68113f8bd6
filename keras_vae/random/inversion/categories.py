"""Draws of zeros and ones, and of categories, by inversion."""

import tensorflow as tf

from keras_vae.random.philox import Tensor

__all__ = ["bernoulli", "categorical"]


def bernoulli(u: Tensor, logits: Tensor) -> Tensor:
    """Draws from Bernoulli distributions: 1 where u < sigmoid(logits), else 0.

    Args:
        u: Uniforms in (0, 1), float32.
        logits: Log-odds of 1, of the same shape.

    Returns:
        float32, 0 or 1.
    """
    return tf.cast(u < tf.sigmoid(logits), tf.float32)


def categorical(u: Tensor, logits: Tensor) -> Tensor:
    """Draws categories: the first class whose cumulative probability exceeds u.

    Args:
        u: Uniforms in (0, 1), float32 `[...]`: one per variable.
        logits: Unnormalised log-probabilities `[..., K]`; a class with minus infinity is never
            drawn.

    Returns:
        float32 `[..., K]`, one-hot.
    """
    weights = tf.exp(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
    cumulative = tf.cumsum(weights, axis=-1)
    threshold = u[..., None] * cumulative[..., -1:]
    passed = tf.cast(cumulative[..., :-1] <= threshold, tf.float32)
    edge = tf.ones_like(threshold)
    return tf.concat([edge, passed], axis=-1) - tf.concat([passed, tf.zeros_like(edge)], axis=-1)
