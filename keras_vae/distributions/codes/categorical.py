"""Categorical latents, drawn by Gumbel noise."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, as_weight, register
from keras_vae.distributions.base import Parameter
from keras_vae.distributions.codes.base import CodePosterior, straight_through
from keras_vae.distributions.codes.distributions import CategoricalCodes
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.tfp import tfd

__all__ = ["CategoricalLatent"]


@register
class CategoricalLatent(CodePosterior):
    """Independent categorical codes q(codes | x), each one of K; z holds their one-hot vectors.

    A draw is the category of the largest sum of a logit and Gumbel noise. It is exact, and its
    gradient is that of softmax((logits + noise) / temperature): the straight-through estimator,
    which is biased. `keras_vae.RelaxedELBO` trains on the softmax itself, and `EnumeratedELBO` sums
    over all codes, without bias, where these are few. Whatever the training, `elbo` is that of
    exact draws. Sources: Jang, Gu and Poole (2017), Categorical reparameterization with
    Gumbel-softmax, arXiv:1611.01144; Maddison, Mnih and Teh (2017), The concrete distribution,
    arXiv:1611.00712.

    Args:
        codes_shape: shape of the codes, such as 10 or (7, 7).
        num_codes: number K of categories of each code.
        temperature: temperature of the softmax, positive.
        network: the encoder, from x to features.
        head: layer from features to the logits; None is one Dense layer.

    Raises:
        ValueError: if a size is not a positive integer, or the temperature is not positive.

    Example:
        >>> q = CategoricalLatent(3, num_codes=4).distribution(tf.zeros([5, 2]))
        >>> q.event_shape, q.codes.shape
        (TensorShape([12]), TensorShape([5, 3]))
    """

    def __init__(
        self,
        codes_shape: int | Sequence[int],
        num_codes: int,
        network: keras.layers.Layer | None = None,
        *,
        temperature: float = 0.5,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        size = as_count("num_codes", num_codes, least=2)
        self.temperature = as_weight("temperature", temperature)
        if self.temperature == 0.0:
            raise ValueError(
                "Invalid value for argument `temperature`. Expected a positive number. Received: "
                f"temperature={temperature!r}"
            )
        super().__init__(codes_shape, size, size, size, 1, network, head=head, **kwargs)

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the logits of each code."""
        return {"logits": Parameter(self._head_size)}

    def make_distribution(self, logits: tf.Tensor) -> tfd.Distribution:
        """Returns independent categorical distributions over one-hot vectors."""
        return CategoricalCodes(self._by_code(logits), self.codes_shape)

    def noise(self) -> Noise:
        """Returns one uniform number per category of each code."""
        return Noise((self.latent_size,), "uniform", random.POSTERIOR)

    def draw(self, noise: tf.Tensor, logits: tf.Tensor) -> Draw:
        """Draws one-hot vectors; `relaxed` are the softmaxes behind them."""
        noisy = self._by_code(logits - tf.math.log(-tf.math.log(noise)))
        best = tf.argmax(noisy, axis=-1)
        hard = self._together(tf.one_hot(best, self.num_codes, dtype=logits.dtype))
        soft = self._together(tf.nn.softmax(noisy / self.temperature))
        return Draw(straight_through(hard, soft), relaxed=soft)

    def centre(self, parameters: dict[str, tf.Tensor], needed_by: str) -> tf.Tensor:
        """Returns the most probable one-hot vectors, [B, L]."""
        return self.make_distribution(**parameters).mode()

    def embed(self, codes: Any, **book: Any) -> tf.Tensor:
        """Returns one-hot vectors, [..., L]."""
        one_hot = tf.one_hot(self.side_by_side(codes), self.num_codes, dtype=self.float_dtype)
        return self._together(one_hot)

    def codes_of(self, z: tf.Tensor, **book: Any) -> tf.Tensor:
        """Returns the place of the largest entry of each one-hot vector."""
        return tf.argmax(self._by_code(z), axis=-1, output_type=tf.int32)

    def indicators(self, z: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        """Returns z by code, [..., N, K]."""
        return self._by_code(z)

    def _by_code(self, values: tf.Tensor) -> tf.Tensor:
        shape = [self.count, self.num_codes]
        return tf.reshape(values, tf.concat([tf.shape(values)[:-1], shape], 0))

    def _together(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, tf.concat([tf.shape(values)[:-2], [self.latent_size]], 0))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        config = super().get_config()
        return {**config, "num_codes": self.num_codes, "temperature": self.temperature}
