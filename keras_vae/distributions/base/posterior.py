"""Posteriors q(z | x): what every family of distributions of a latent has."""

from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.distributions import tfp
from keras_vae.distributions.base.conditional import ConditionalDistribution
from keras_vae.distributions.noise import Noise
from keras_vae.distributions.noise import centre as noise_centre

__all__ = ["Posterior"]


class Posterior(ConditionalDistribution):
    """A family of distributions q(z | x) over a latent vector, drawn by reparameterisation.

    Args:
        latent_size: number L of latents.
        network: the encoder, from x to features.
        head: layer from features to raw parameters; None is one Dense layer.

    Example:
        >>> import keras_vae
        >>> posterior = keras_vae.DiagonalNormal(2, keras.layers.Dense(8, "relu"))
        >>> posterior.distribution(tf.zeros([5, 3])).sample(seed=0).shape
        TensorShape([5, 2])
    """

    is_discrete: ClassVar[bool] = False
    """Whether z holds embedded codes, see `keras_vae.distributions.codes`."""

    on_sphere: ClassVar[bool] = False
    """Whether z has length 1 and its density is relative to the area of the unit sphere."""

    def __init__(
        self,
        latent_size: int,
        network: keras.layers.Layer | None = None,
        *,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(latent_size, network, head=head, **kwargs)
        if len(self.event_shape) != 1:
            raise ValueError(
                f"{type(self).__name__} expects a latent size such as 50; got {latent_size}."
            )

    @property
    def latent_size(self) -> int:
        """Number L of latents."""
        return self.event_shape[0]

    @property
    def features_shape(self) -> tuple[int, ...]:
        """Shape of what a likelihood's network receives of one z."""
        return self.event_shape

    def features(self, z: tf.Tensor) -> tf.Tensor:
        """Returns what a likelihood's network receives of z [..., L]; by default, z itself."""
        return z

    def observe(
        self, parameters: dict[str, tf.Tensor], sample_weight: tf.Tensor | None = None
    ) -> None:
        """Updates weights that no gradient trains; a hook that is called in every training pass.

        Args:
            parameters: parameters of q at the batch.
            sample_weight: weights of the examples in the loss, [B]; None for equal ones.
        """

    def noise(self) -> Any:
        """Returns the noise that a draw is made of: one normal number per latent, by default."""
        return Noise(self.event_shape, "normal", random.POSTERIOR)

    def centre(self, parameters: dict[str, tf.Tensor], needed_by: str) -> tf.Tensor:
        """Returns the mean of q, [B, L], or the draw at the medians of the noise if it has none.

        Args:
            parameters: of q, by name.
            needed_by: what needs it, for the message.

        Raises:
            ValueError: if q has no mean in closed form.
        """
        if self.tells_density:
            return tfp.statistic(self.make_distribution(**parameters), "mean", needed_by)
        return self.centre_of_noise(parameters)

    def centre_of_noise(self, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the draw at the medians of the noise, [B, L]."""
        noise = noise_centre(self.noise(), [self.size_of(parameters)], self.float_dtype)
        return self.draw(noise, **parameters).value

    def size_of(self, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the number of rows of parameters."""
        return tf.shape(parameters[next(iter(self.parameter_specs()))])[0]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        config = super().get_config()
        config["latent_size"] = config.pop("event_shape")[0]
        return config
