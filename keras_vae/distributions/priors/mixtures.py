"""Priors that are mixtures, of normal distributions or of posteriors."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, register
from keras_vae.distributions import tfp
from keras_vae.distributions.base import Posterior, positive
from keras_vae.distributions.noise import Draw, Noise, log_standard_normal, only_own_draws
from keras_vae.distributions.priors.base import (
    Components,
    InputShapes,
    Prior,
    shapes_by_name,
)
from keras_vae.distributions.tfp import tfd

__all__ = ["NormalMixture", "VampPrior"]


class _Mixture(Prior):
    """A mixture of K distributions of equal kind, whose parameters have the axis K in front."""

    num_components: int

    def noise(self) -> Any:
        """Returns one normal number per latent, and one uniform number for the component."""
        latent = super().noise()
        return {"latent": latent, "component": Noise((), "uniform", random.COMPONENT)}

    def draw(self, noise: Any, logits: Any, **parameters: Any) -> Draw:
        """Draws a component by inversion of the uniform number, then z from it."""
        u = tf.cast(noise["component"], tf.float32)
        each = tf.cast(logits, tf.float32)
        each = tf.broadcast_to(each, tf.concat([tf.shape(u), tf.shape(each)], 0))
        chosen = tf.argmax(random.categorical(u, each), axis=-1)
        return Draw(self._draw_component(noise["latent"], chosen, **parameters))

    @abc.abstractmethod
    def _draw_component(
        self, noise: tf.Tensor, chosen: tf.Tensor, *args: Any, **parameters: Any
    ) -> tf.Tensor:
        """Returns draws [..., L] from the components of the indices [...]."""

    def log_density(self, z: tf.Tensor, logits: Any, **parameters: Any) -> tf.Tensor:
        """Returns log p(z), [B]; of normal components without solving triangular systems."""
        if not tfp.is_normal(self._component_distribution(**parameters)):
            return super().log_density(z, logits=logits, **parameters)
        loc, scale = _location_and_scale(**parameters)
        shifted = z[:, tf.newaxis] - loc
        if scale.ndim == 2:
            whitened, diagonal = shifted / scale, scale
        else:
            inverse = np.linalg.inv(scale.astype(np.float64)).astype(scale.dtype)
            whitened = tf.reduce_sum(inverse * shifted[:, :, tf.newaxis], axis=-1)
            diagonal = np.diagonal(scale, axis1=1, axis2=2)
        log_weights = logits - np.logaddexp.reduce(logits)
        log_each = log_standard_normal(whitened) - np.log(diagonal).sum(axis=1) + log_weights
        return tf.reduce_logsumexp(log_each, axis=-1)

    def components(self) -> Components | None:
        """Returns the weights, centres and scales; None if the components are not normal."""
        parameters = self.parameters()
        logits = parameters.pop("logits")
        if not tfp.is_normal(self._component_distribution(**parameters)):
            return None
        return Components(logits, *_location_and_scale(**parameters))

    def make_distribution(self, logits: Any, **parameters: Any) -> tfd.Distribution:
        """Returns the mixture."""
        components = self._component_distribution(**parameters)
        return tfd.MixtureSameFamily(tfd.Categorical(logits=logits), components)

    @abc.abstractmethod
    def _component_distribution(self, *args: Any, **parameters: Any) -> tfd.Distribution:
        """Returns the components as one distribution of batch shape [K]."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "num_components": self.num_components}


@register
class NormalMixture(_Mixture):
    """Trained mixture p(z) = sum_k w_k N(z; loc_k, diag scale_k^2).

    Args:
        latent_size: number L of latents.
        num_components: number K of components.

    Raises:
        ValueError: if a size is not a positive integer.

    Example:
        >>> NormalMixture(2, num_components=3)(tf.zeros([4, 2])).shape  # log p(z)
        TensorShape([4])
    """

    def __init__(self, latent_size: int, num_components: int, **kwargs: Any) -> None:
        super().__init__(latent_size, **kwargs)
        self.num_components = as_count("num_components", num_components, least=1)
        shape = (self.num_components, self.latent_size)
        own = {"dtype": self.float_dtype, "autocast": False}
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros", **own)
        self.loc = self.add_weight(
            name="loc", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0), **own
        )
        self.raw_scale = self.add_weight(name="raw_scale", shape=shape, initializer="zeros", **own)

    def parameters(self, condition: Any = None) -> dict[str, tf.Tensor]:
        """Returns the weights' logits, the centres and the scales."""
        return {
            "logits": tf.convert_to_tensor(self.logits),
            "loc": tf.convert_to_tensor(self.loc),
            "scale": positive(tf.convert_to_tensor(self.raw_scale)),
        }

    def _component_distribution(self, loc: Any, scale: Any) -> tfd.Distribution:
        return tfp.Independent(tfp.Normal(loc, scale), 1)

    def _draw_component(
        self, noise: tf.Tensor, chosen: tf.Tensor, loc: Any, scale: Any
    ) -> tf.Tensor:
        return tf.gather(loc, chosen) + tf.gather(scale, chosen) * noise


@register
class VampPrior(_Mixture):
    """Mixture of posteriors p(z) = 1/K sum_k q(z | u_k) at K trained pseudo-inputs u_k.

    The pseudo-inputs pass through the encoder of the VAE that the prior is given to, clipped to the
    range of the data; a conditional VAE trains a pseudo-condition beside each. Source: Tomczak and
    Welling (2018), VAE with a VampPrior, arXiv:1705.07120.

    Args:
        latent_size: number L of latents.
        num_components: number K of pseudo-inputs.

    Raises:
        ValueError: if a size is not a positive integer, or if used outside a VAE.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.mlp_vae(4, 2, prior="vamp", num_components=3, hidden=(8,))
        >>> vae.prior(tf.zeros([5, 2])).shape  # log p(z)
        TensorShape([5])
    """

    on_sphere = None

    def __init__(self, latent_size: int, num_components: int, **kwargs: Any) -> None:
        super().__init__(latent_size, **kwargs)
        self.num_components = as_count("num_components", num_components, least=1)
        self.pseudo_inputs: list[keras.Variable] = []
        self._posterior: Callable[[], Posterior] | None = None

    def bind(
        self,
        posterior: Posterior,
        input_shapes: InputShapes,
        low: float | None,
        high: float | None,
    ) -> None:
        """Creates the pseudo-inputs, spread over the lower half of the data's range.

        Raises:
            ValueError: if the prior already belongs to another VAE, or the posterior has no density
                at points that it did not draw.
        """
        if not posterior.tells_density:
            name = type(posterior).__name__
            raise ValueError(f"VampPrior is a mixture of posteriors. {only_own_draws(name)}")
        if self._posterior is not None:
            raise ValueError(
                "This VampPrior already belongs to a VAE, whose encoder defines it. Make a new one."
            )
        self._posterior = lambda: posterior
        self._bounds = (
            -float("inf") if low is None else low,
            float("inf") if high is None else high,
        )
        start, stop = (0.0 if low is None else low), (1.0 if high is None else high)
        middle = keras.initializers.RandomUniform(start, start + 0.5 * (stop - start))
        self._part_names = list(input_shapes) if isinstance(input_shapes, Mapping) else None
        for index, (name, shape) in enumerate(shapes_by_name(input_shapes).items()):
            self.pseudo_inputs.append(
                self.add_weight(
                    name=f"pseudo_inputs_{index}",
                    shape=(self.num_components, *shape),
                    initializer="zeros" if name == "condition" else middle,
                    dtype=self.float_dtype,
                    autocast=False,
                )
            )

    def noise(self) -> Any:
        """Returns the noise of a draw of a posterior, and one uniform number for the component."""
        found = super().noise()
        if self._posterior is None:
            return found
        return {**found, "latent": tf.nest.map_structure(_of_prior, self._posterior().noise())}

    def parameters(self, condition: Any = None) -> dict[str, tf.Tensor]:
        """Returns equal weights, and the parameters of the posteriors at the pseudo-inputs."""
        logits = tf.zeros([self.num_components], self.float_dtype)
        posterior, inputs = self._pseudo_inputs()
        return {"logits": logits, **posterior.parameters(inputs)}

    def _component_distribution(self, **parameters: Any) -> tfd.Distribution:
        return self._pseudo_inputs()[0].make_distribution(**parameters)

    def _draw_component(self, noise: tf.Tensor, chosen: tf.Tensor, **parameters: Any) -> tf.Tensor:
        posterior, _ = self._pseudo_inputs()
        own = {
            name: tf.gather(value, chosen) if name in posterior.parameter_specs() else value
            for name, value in parameters.items()
        }
        return posterior.draw(noise, **own).value

    def _pseudo_inputs(self) -> tuple[Posterior, Any]:
        if self._posterior is None:
            raise ValueError("VampPrior needs an encoder: give it to keras_vae.VAE(prior=...).")
        u, *condition = (tf.convert_to_tensor(weight) for weight in self.pseudo_inputs)
        if self._part_names is not None:
            return self._posterior(), dict(zip(self._part_names, [u, *condition], strict=True))
        u = tf.clip_by_value(u, *self._bounds)
        return self._posterior(), [u, *condition] if condition else u


def _of_prior(noise: Noise) -> Noise:
    """Returns the noise of a posterior from the streams of the prior."""
    if noise.stream == random.POSTERIOR:
        return replace(noise, stream=random.LATENT)
    if noise.stream == random.POSTERIOR_COMPONENT:
        return replace(noise, stream=random.COMPONENT, index=noise.index + 1)
    return noise


def _location_and_scale(loc: Any, scale: Any = None, scale_tril: Any = None) -> tuple[Any, Any]:
    """Returns centres [K, L] and scales [K, L], or factors [K, L, L], of normal components."""
    if scale_tril is not None:
        return loc, scale_tril
    ones = np.ones_like(loc) if isinstance(loc, np.ndarray) else tf.ones_like(loc)
    return loc, scale * ones
