"""Posteriors that are mixtures of diagonal normal distributions."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, register
from keras_vae.distributions import tfp
from keras_vae.distributions.base import Parameter, Posterior, positive
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.tfp import tfd

__all__ = ["MixtureOfNormals", "NormalMixturePosterior"]

_LEAST_WEIGHT = 1e-30


class MixtureOfNormals(Posterior):
    """Base class of mixtures q(z | x) = sum_k w_k N(z; loc_k, diag scale_k^2).

    The parameters are `weights` [..., K], and `loc` and `scale` [..., K, L].
    """

    @property
    def num_components(self) -> int:
        """Number K of components."""
        raise NotImplementedError

    def by_component(self, raw: tf.Tensor) -> tf.Tensor:
        """Returns numbers [..., K L] by component, [..., K, L]."""
        leading = tf.shape(raw)[:-1] if raw.shape.rank != 2 else [-1]
        return tf.reshape(raw, tf.concat([leading, [self.num_components, self.latent_size]], 0))

    def make_distribution(
        self, weights: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor
    ) -> tfd.Distribution:
        """Returns the mixture."""
        components = tfp.Independent(tfp.Normal(loc, scale), 1)
        weighted = tfd.Categorical(probs=weights)
        return tfp.MixtureOfVectors(weighted, components, name=type(self).__name__)

    def noise(self) -> Any:
        """Returns one normal number per latent, and one uniform number for the component."""
        return {
            "latent": Noise(self.event_shape, "normal", random.POSTERIOR),
            "component": Noise((), "uniform", random.POSTERIOR_COMPONENT),
        }

    def drawn(
        self,
        u: tf.Tensor,
        noise: tf.Tensor,
        weights: tf.Tensor,
        loc: tf.Tensor,
        scale: tf.Tensor,
    ) -> tf.Tensor:
        """Draws loc + scale noise from the component at the uniform number u."""
        chosen = random.categorical(
            tf.cast(u, tf.float32), tf.math.log(tf.cast(weights, tf.float32))
        )
        chosen = tf.cast(chosen, loc.dtype)[..., tf.newaxis]
        own_loc, own_scale = (tf.reduce_sum(chosen * each, axis=-2) for each in (loc, scale))
        return own_loc + own_scale * noise


@register
class NormalMixturePosterior(MixtureOfNormals):
    """Mixture q(z | x) = sum_k w_k(x) N(z; loc_k(x), diag scale_k(x)^2), all learned.

    It can have several modes. The density is that of the whole mixture, at any z, so the bound is
    one, and `IWAE`, both other gradients and annealing work; the rate has no closed form. A draw
    takes a component by its weight. Its gradient is implicit, through the distribution functions of
    z_1, of z_2 given z_1, and so on, so that it is exact for the weights too. Sources: Graves
    (2016), Stochastic backpropagation through mixture density distributions, arXiv:1607.05690;
    Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients, arXiv:1805.08498.

    Args:
        latent_size: number L of latents.
        network: the encoder, from x to features.
        num_components: number K of components.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> q = NormalMixturePosterior(2, num_components=3).distribution(tf.zeros([5, 3]))
        >>> q.batch_shape, q.event_shape
        (TensorShape([5]), TensorShape([2]))
    """

    def __init__(
        self,
        latent_size: int,
        network: keras.layers.Layer | None = None,
        *,
        num_components: int = 5,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self._num_components = as_count("num_components", num_components, least=1)
        super().__init__(latent_size, network, head=head, **kwargs)

    @property
    def num_components(self) -> int:
        """Number K of components."""
        return self._num_components

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the weights [..., K], and centres and scales [..., K, L]."""
        size = self.num_components * self.latent_size
        return {
            "weights": Parameter(self.num_components, _weights),
            "loc": Parameter(size, self.by_component),
            "scale": Parameter(size, lambda raw: positive(self.by_component(raw))),
        }

    def draw(
        self, noise: Mapping[str, tf.Tensor], weights: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor
    ) -> Draw:
        """Draws a component, then loc + scale noise from it."""
        value = self.drawn(noise["component"], noise["latent"], weights, loc, scale)
        return Draw(_implicit(value, weights, loc, scale))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "num_components": self.num_components}


def _weights(raw: tf.Tensor) -> tf.Tensor:
    """Returns weights whose logarithms are finite."""
    return tf.maximum(tfp.softmax(raw), _LEAST_WEIGHT)


def _implicit(value: tf.Tensor, weights: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Returns draws [..., L] of a mixture, whose gradient is that of its quantiles.

    With F_j the distribution function of z_j given z_1 .. z_{j-1}, the draw is the z at which all
    F_j have given values. So J dz = -dF, where J = dF/dz is triangular and dF the change of F with
    the parameters at a fixed z.
    """
    value = tf.stop_gradient(value)

    @tf.custom_gradient
    def through(*parameters: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(parameters)
                cdf, jacobian = _distribution_functions(value, *parameters)
            solved = tf.linalg.triangular_solve(jacobian, upstream[..., tf.newaxis], adjoint=True)
            return tape.gradient(cdf, list(parameters), -solved[..., 0])

        return tf.identity(value), gradient

    return through(weights, loc, scale)


def _distribution_functions(
    z: tf.Tensor, weights: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes F [..., L] up to a constant, and its Jacobian [..., L, L] with respect to z.

    Where F_j is above 1/2, F_j - 1 is computed, which keeps the digits of the upper tail.
    """
    a = (z[..., tf.newaxis, :] - loc) / scale
    log_density = -0.5 * tf.square(a) - tf.math.log(scale) - 0.5 * math.log(2.0 * math.pi)
    log_before = tf.math.log(weights)[..., tf.newaxis] + tf.cumsum(
        log_density, axis=-1, exclusive=True
    )
    share = tf.nn.softmax(log_before, axis=-2)
    below, above = (0.5 * tf.math.erfc(side * math.sqrt(0.5) * a) for side in (-1.0, 1.0))
    cdf, rest = (tf.reduce_sum(share * each, axis=-2) for each in (below, above))
    is_low = cdf < 0.5

    tail = tf.where(
        is_low[..., tf.newaxis, :], below - cdf[..., None, :], rest[..., None, :] - above
    )
    earlier = tf.einsum("...kj,...ki->...ji", share * tail, -a / scale)
    size = z.shape[-1]
    strictly_lower = tf.constant(
        [[float(i < j) for i in range(size)] for j in range(size)], z.dtype
    )
    density = tf.reduce_sum(share * tf.exp(log_density), axis=-2)
    jacobian = earlier * strictly_lower + tf.linalg.diag(tf.maximum(density, _LEAST_WEIGHT))
    return tf.where(is_low, cdf, -rest), jacobian
