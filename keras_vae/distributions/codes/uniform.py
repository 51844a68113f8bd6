"""Uniform distribution over codes."""

import math

import tensorflow as tf

from keras_vae.arguments import register
from keras_vae.distributions.codes.base import CodePrior

__all__ = ["UniformCodes"]


@register
class UniformCodes(CodePrior):
    """Uniform p(codes): log p = -N log K for N codes of K.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.VAE(
        ...     prior=UniformCodes(),
        ...     likelihood=keras_vae.Normal(5),
        ...     posterior=keras_vae.VectorQuantizer(4, num_codes=8, code_size=2),
        ... )
        >>> float(vae.elbo(tf.zeros([1, 5]), seed=0).rate[0])  # 4 log 8
        8.317766...
    """

    is_uniform = True

    def log_prob_of(self, codes: tf.Tensor, indicators: tf.Tensor | None = None) -> tf.Tensor:
        """Returns -N log K, [...]."""
        log_p = -self.codes.count * math.log(self.codes.num_codes)
        return tf.fill(tf.shape(codes)[:-1], tf.constant(log_p, self.float_dtype))

    def draw_codes(self, u: tf.Tensor) -> tf.Tensor:
        """Draws each code as the whole part of K u."""
        size = self.codes.num_codes
        return tf.minimum(tf.cast(tf.floor(u * size), tf.int32), size - 1)
