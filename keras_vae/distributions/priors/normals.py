"""Priors that are one normal distribution: the standard one, and one of the condition."""

from typing import Any

import keras
import tensorflow as tf

from keras_vae.arguments import deserialize, register, serialize
from keras_vae.distributions import tfp
from keras_vae.distributions.base import Posterior
from keras_vae.distributions.noise import Draw, log_standard_normal
from keras_vae.distributions.posteriors import DiagonalNormal
from keras_vae.distributions.priors.base import (
    Components,
    InputShapes,
    Prior,
    shapes_by_name,
)
from keras_vae.distributions.tfp import tfd

__all__ = ["ConditionalNormal", "StandardNormal"]


@register
class StandardNormal(Prior):
    """Standard normal p(z): log p(z) = -1/2 |z|^2 - L/2 log 2 pi.

    Example:
        >>> float(StandardNormal(2)(tf.zeros([1, 2]))[0])  # -log 2 pi
        -1.837877...
    """

    is_standard = True

    def parameters(self, condition: Any = None) -> dict[str, tf.Tensor]:
        """Returns an empty dict: there are no parameters."""
        return {}

    def make_distribution(self) -> tfd.Distribution:
        """Returns independent standard normal distributions."""
        zeros = tf.zeros([self.latent_size], self.float_dtype)
        return tfp.Independent(tfp.Normal(zeros, tf.ones_like(zeros)), 1)

    def draw(self, noise: tf.Tensor) -> Draw:
        """Returns the noise."""
        return Draw(noise)

    def log_density(self, z: tf.Tensor) -> tf.Tensor:
        """Returns log p(z), [B]."""
        return log_standard_normal(z)

    def components(self) -> Components:
        """Returns one normal distribution."""
        zeros = tf.zeros([1, self.latent_size], self.float_dtype)
        return Components(zeros[:, 0], zeros, tf.ones_like(zeros))


@register
class ConditionalNormal(Prior):
    """Normal p(z | c) with a centre and a scale per latent that a network computes from c.

    Source: Sohn, Lee and Yan (2015), Learning structured output representation using deep
    conditional generative models.

    Args:
        latent_size: number L of latents.
        network: layer from the condition to features; None is the identity.

    Raises:
        ValueError: if `latent_size` is not a positive integer, or without a condition.

    Example:
        >>> prior = ConditionalNormal(2, network=keras.layers.Dense(8, "relu"))
        >>> prior.distribution(tf.zeros([5, 3])).batch_shape
        TensorShape([5])
    """

    is_conditional = True

    def __init__(
        self, latent_size: int, network: keras.layers.Layer | None = None, **kwargs: Any
    ) -> None:
        super().__init__(latent_size, **kwargs)
        self.normal = DiagonalNormal(
            self.latent_size, network, dtype=self.dtype_policy, name="normal"
        )

    def parameters(self, condition: Any = None) -> dict[str, tf.Tensor]:
        """Returns centre and scale at the condition."""
        if condition is None:
            raise ValueError(
                "ConditionalNormal is p(z | c) and needs the condition: build the VAE with "
                "condition_shape= and pass conditions."
            )
        return self.normal.parameters(condition)

    def make_distribution(self, **parameters: Any) -> tfd.Distribution:
        """Returns independent normal distributions."""
        return self.normal.make_distribution(**parameters)

    def draw(self, noise: tf.Tensor, **parameters: Any) -> Draw:
        """Draws loc + scale noise."""
        return self.normal.draw(noise, **parameters)

    def bind(
        self,
        posterior: Posterior,
        input_shapes: InputShapes,
        low: float | None,
        high: float | None,
    ) -> None:
        """Builds the network for the conditions of the model."""
        shapes = shapes_by_name(input_shapes)
        if "condition" not in shapes:
            raise ValueError(
                "ConditionalNormal is p(z | c), and this model has no condition: build the VAE "
                "with condition_shape=, or choose StandardNormal."
            )
        self.normal.build((None, *shapes["condition"]))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "network": serialize(self.normal.network)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ConditionalNormal":
        """Returns the layer with new weights."""
        return cls(**{**config, "network": deserialize(config["network"])})
