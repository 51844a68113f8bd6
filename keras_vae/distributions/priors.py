"""Priors p(z): layers whose `distribution()` is a distribution over a latent vector."""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, deserialize, register, serialize
from keras_vae.distributions import tfp
from keras_vae.distributions.base import Posterior, positive, refuse_old_methods
from keras_vae.distributions.noise import Draw, Noise, from_rows, log_standard_normal
from keras_vae.distributions.posteriors import DiagonalNormal
from keras_vae.distributions.tfp import tfd

__all__ = [
    "ConditionalNormal",
    "NormalMixture",
    "Prior",
    "StandardNormal",
    "VampPrior",
]

InputShapes = Sequence[tuple[int, ...]] | Mapping[str, tuple[int, ...]]
"""Shapes of x and of the condition, or those of named parts."""


class Components(NamedTuple):
    """Weights, centres and scales of a prior that is a mixture of K normal distributions.

    Attributes:
        logits: unnormalised log-weights [K].
        loc: centres [K, L].
        scale: standard deviations [K, L], or lower triangular factors [K, L, L].
    """

    logits: tf.Tensor
    loc: tf.Tensor
    scale: tf.Tensor


class Prior(keras.layers.Layer, abc.ABC):
    """A distribution p(z), or p(z | c), over L latents; its weights are trained with the model.

    A subclass defines `parameters` and `make_distribution`, and `draw` if models are sampled by
    seeds and exported. Most priors ignore the condition.

    Args:
        latent_size: number L of latents.

    Attributes:
        is_standard: whether it is the standard normal distribution, which manifests state.

    Raises:
        ValueError: if `latent_size` is not a positive integer.

    Example:
        A learned centre:

        >>> class Shifted(Prior):
        ...     def build(self, input_shape):
        ...         self.shift = self.add_weight(shape=(self.latent_size,), name="shift")
        ...         self.built = True
        ...
        ...     def parameters(self, condition=None):
        ...         return {"loc": tf.convert_to_tensor(self.shift)}
        ...
        ...     def make_distribution(self, loc):
        ...         return tfd.MultivariateNormalDiag(loc, tf.ones_like(loc))
        ...
        ...     def draw(self, noise, loc):
        ...         return Draw(loc + noise)
    """

    is_standard: ClassVar[bool] = False

    is_conditional = False
    """Whether the prior is p(z | c), which requires a model with a condition."""

    def __init__(self, latent_size: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.latent_size = as_count("latent_size", latent_size, least=1)
        self.built = type(self).build is keras.layers.Layer.build

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuses a subclass written for an earlier version, as for a likelihood.

        Raises:
            TypeError: naming the methods and what they are called now.
        """
        super().__init_subclass__(**kwargs)
        refuse_old_methods(cls)

    @abc.abstractmethod
    def parameters(self, condition: Any = None) -> dict[str, tf.Tensor]:
        """Returns the parameters; of a conditional prior, [B, ...] at conditions [B, *C]."""

    @abc.abstractmethod
    def make_distribution(self, *args: Any, **parameters: Any) -> tfd.Distribution:
        """Returns the distribution of given parameters, event shape [L]: a pure function."""

    def distribution(self, condition: Any = None) -> tfd.Distribution:
        """Returns p(z), batch shape [], or p(z | c), batch shape [B], built at each call."""
        return self.make_distribution(**self.parameters(condition))

    def noise(self) -> Any:
        """Returns the specification of a draw's noise; by default, one normal number per latent."""
        return Noise((self.latent_size,), "normal", random.LATENT)

    def draw(self, noise: Any, *args: Any, **parameters: Any) -> Draw:
        """Draws from the distribution as a pure function of noise.

        Args:
            noise: noise as specified by `noise()`, [..., *shape].
            *args: parameters of `make_distribution` by position.
            **parameters: parameters by name; NumPy arrays if they are constants.

        Returns:
            `Draw(value)`, the value of shape [..., L].
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot draw: define draw(noise, **parameters) and, if the "
            "noise is not one normal number per latent, noise()."
        )

    def draw_rows(self, seed: tf.Tensor, condition: Any = None) -> tf.Tensor:
        """Draws one z per row seed, [B, L], the same in every runtime."""
        noise = from_rows(self.noise(), seed, dtype=self.float_dtype)
        return self.draw(noise, **self.parameters(condition)).value

    def log_density(self, z: tf.Tensor, *args: Any, **parameters: Any) -> tf.Tensor:
        """Returns log p(z) at z [B, L], in operations that every runtime has.

        Args:
            z: latents [B, L].
            *args: parameters by position, NumPy arrays.
            **parameters: parameters by name, NumPy arrays.
        """
        return self.make_distribution(*args, **parameters).log_prob(z)

    def components(self) -> Components | None:
        """Returns the components of a mixture of normal distributions; None for any other prior."""
        return None

    def bind(
        self,
        posterior: Posterior,
        input_shapes: InputShapes,
        low: float | None,
        high: float | None,
    ) -> None:
        """Receives the posterior, its input shapes and the bounds of the data from the VAE.

        Args:
            posterior: the posterior.
            input_shapes: shapes of x and, if there is one, of the condition; of a model with named
                parts by name.
            low, high: bounds of x, or None.
        """

    @property
    def float_dtype(self) -> str:
        """Dtype of log-probabilities: float32, or float64 under that policy."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """Returns the log-density log p(z) in nats, [B], at z [B, L]."""
        return self.distribution().log_prob(tf.cast(z, self.float_dtype))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Returns the batch shape of z."""
        return tuple(input_shape[:-1])

    def compute_output_spec(self, z: Any) -> keras.KerasTensor:
        """Returns the symbolic result of `call`."""
        return keras.KerasTensor(self.compute_output_shape(z.shape), dtype=self.float_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "latent_size": self.latent_size}


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
        shapes = _by_name(input_shapes)
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
    """

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
            ValueError: if the prior already belongs to another VAE.
        """
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
        for index, (name, shape) in enumerate(_by_name(input_shapes).items()):
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


def _by_name(shapes: InputShapes) -> dict[str, tuple[int, ...]]:
    """Returns the shapes by name, those of a list as x and condition."""
    if isinstance(shapes, Mapping):
        return dict(shapes)
    return dict(zip(("x", "condition"), shapes, strict=False))


def _location_and_scale(loc: Any, scale: Any = None, scale_tril: Any = None) -> tuple[Any, Any]:
    """Returns centres [K, L] and scales [K, L], or factors [K, L, L], of normal components."""
    if scale_tril is not None:
        return loc, scale_tril
    ones = np.ones_like(loc) if isinstance(loc, np.ndarray) else tf.ones_like(loc)
    return loc, scale * ones
