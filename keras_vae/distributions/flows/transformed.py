"""Distribution of an invertible function of standard normal noise."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_vae.distributions import tfp
from keras_vae.distributions.flows.steps import Moved
from keras_vae.distributions.tfp import tfd

__all__ = ["Transformed"]


class Transformed(tfd.Distribution):
    """Distribution of vectors z that are an invertible function of standard normal noise.

    log p(z) = log N(u; 0, I) - sum log scale + log |det du/dz|, where u is the noise of z and the
    determinant leaves out the scale. Moments have no closed form.

    Args:
        scale: scale [..., L], which gives the batch shape.
        to_noise: function from z to its noise and the logarithm of the determinant.
        to_value: function from noise to z.
        name: name of the distribution.

    Attributes:
        typical_scale: the scale.
    """

    def __init__(
        self,
        scale: tf.Tensor,
        to_noise: Callable[[tf.Tensor], Moved],
        to_value: Callable[[tf.Tensor], tf.Tensor],
        name: str,
    ) -> None:
        parameters: dict[str, Any] = dict(locals())
        self.typical_scale, self._to_noise, self._to_value = (
            tf.convert_to_tensor(scale),
            to_noise,
            to_value,
        )
        super().__init__(
            dtype=self.typical_scale.dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _batch_shape(self) -> tf.TensorShape:
        return self.typical_scale.shape[:-1]

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.typical_scale)[:-1]

    def _event_shape(self) -> tf.TensorShape:
        return self.typical_scale.shape[-1:]

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.typical_scale)[-1:]

    def _default_event_space_bijector(self) -> None:
        return None

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        noise, log_det = self._to_noise(z)
        entries = -0.5 * tf.math.square(noise) - (
            tf.math.log(self.typical_scale) + 0.5 * math.log(2.0 * math.pi)
        )
        return tf.reduce_sum(entries, axis=-1) + log_det

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        zeros = tf.zeros_like(self.typical_scale)
        return self._to_value(tfp.Normal(zeros, tf.ones_like(zeros)).sample(n, seed=seed))
