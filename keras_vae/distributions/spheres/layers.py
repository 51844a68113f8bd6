"""The von Mises-Fisher posterior and the uniform prior."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, register
from keras_vae.distributions.base import Parameter, Posterior, positive
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.priors import Prior
from keras_vae.distributions.spheres.concentration import log_area
from keras_vae.distributions.spheres.distributions import (
    UniformOnSphere,
    VonMisesFisherVectors,
    around,
    directions,
)
from keras_vae.distributions.tfp import tfd

__all__ = ["UniformSphere", "VonMisesFisher"]


@register
class VonMisesFisher(Posterior):
    """Von Mises-Fisher q(z | x) of unit vectors z, around a mean direction `loc`.

    log q(z) = k loc'z - log E[exp(k t)] - log of the sphere's area, with one concentration k for
    each x: 0 is the uniform distribution, and a large k a point. Densities are relative to the area
    of the sphere, so the prior must be on the sphere too: `UniformSphere`, against which the rate
    has a closed form and no centre is preferred, or `VampPrior`.

    A draw inverts the distribution function of the angle to `loc`, of which it takes one uniform
    number, and one normal number for each other dimension: no draw is rejected, and the gradient
    with respect to k is exact. Source: Davidson, Falorsi, De Cao, Kipf and Tomczak (2018),
    Hyperspherical variational auto-encoders, arXiv:1804.00891.

    Args:
        latent_size: number L of latents, at least 2; the sphere has one dimension less.
        network: the encoder, from x to features.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if there are fewer than 2 latents.

    Example:
        >>> q = VonMisesFisher(3).distribution(tf.zeros([5, 4]))
        >>> q.batch_shape, q.event_shape
        (TensorShape([5]), TensorShape([3]))
    """

    on_sphere = True

    def __init__(
        self,
        latent_size: int,
        network: keras.layers.Layer | None = None,
        *,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        as_count("latent_size", latent_size, least=2)
        super().__init__(latent_size, network, head=head, **kwargs)

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns a unit vector, and a concentration whose raw number 0 means L."""
        size = self.latent_size
        return {
            "loc": Parameter(size, directions),
            "concentration": Parameter(1, lambda raw: float(size) * positive(raw)),
        }

    def make_distribution(self, loc: tf.Tensor, concentration: tf.Tensor) -> tfd.Distribution:
        """Returns the distribution."""
        loc, concentration = tf.convert_to_tensor(loc), tf.convert_to_tensor(concentration)
        return VonMisesFisherVectors(loc, concentration[..., 0])

    def noise(self) -> Any:
        """Returns one uniform number for the angle, and normal ones for the way it is turned."""
        return {
            "latent": Noise((self.latent_size - 1,), "normal", random.POSTERIOR),
            "component": Noise((), "uniform", random.POSTERIOR_COMPONENT),
        }

    def draw(
        self, noise: Mapping[str, tf.Tensor], loc: tf.Tensor, concentration: tf.Tensor
    ) -> Draw:
        """Draws an angle to the mean direction, then the vector at that angle."""
        angle = self._inverted(
            lambda u, k: random.polar_angle(u, k, self.latent_size),
            noise["component"],
            tf.convert_to_tensor(concentration)[..., 0],
        )
        return Draw(around(tf.convert_to_tensor(loc), angle, directions(noise["latent"])))

    def centre(self, parameters: dict[str, tf.Tensor], needed_by: str) -> tf.Tensor:
        """Returns the mean direction, [B, L]; the mean lies inside the sphere."""
        return parameters["loc"]


@register
class UniformSphere(Prior):
    """Uniform p(z) of unit vectors: log p(z) = -log of the area of their sphere.

    It goes with `VonMisesFisher`. No z is nearer to the prior's centre than another, so the rate
    pulls no latent to 0.

    Args:
        latent_size: number L of latents, at least 2.

    Raises:
        ValueError: if there are fewer than 2 latents.

    Example:
        >>> float(UniformSphere(3)(tf.constant([[0.0, 0.0, 1.0]]))[0])  # -log 4 pi
        -2.531024...
    """

    on_sphere = True

    def __init__(self, latent_size: int, **kwargs: Any) -> None:
        super().__init__(as_count("latent_size", latent_size, least=2), **kwargs)

    def parameters(self, condition: Any = None) -> dict[str, tf.Tensor]:
        """Returns an empty dict: there are no parameters."""
        return {}

    def make_distribution(self) -> tfd.Distribution:
        """Returns the distribution."""
        return UniformOnSphere(self.latent_size, self.float_dtype)

    def draw(self, noise: tf.Tensor) -> Draw:
        """Returns the direction of the noise."""
        return Draw(directions(noise))

    def log_density(self, z: tf.Tensor) -> tf.Tensor:
        """Returns log p(z), [B]."""
        return tf.zeros_like(z[..., 0]) - log_area(self.latent_size)
