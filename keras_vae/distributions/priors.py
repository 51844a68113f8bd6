"""Priors p(z): layers without input whose `distribution()` is a law over a latent vector."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, register
from keras_vae.distributions import Posterior, positive, tfp
from keras_vae.distributions.tfp import tfd

__all__ = ["NormalMixture", "Prior", "StandardNormal", "VampPrior"]


class Components(NamedTuple):
    """A prior written as a mixture of K normal laws, which every prior here is.

    Attributes:
        logits: unnormalised log-weights [K].
        loc: centres [K, L].
        scale: standard deviations [K, L], or lower triangular factors [K, L, L].
    """

    logits: tf.Tensor
    loc: tf.Tensor
    scale: tf.Tensor

    def draw(self, seed: tf.Tensor) -> tf.Tensor:
        """Draws z [B, L] as a pure function of row seeds, the same in every runtime.

        The noise is standard normal, from the stream `LATENT`; a mixture draws its component by
        inversion of one uniform from the stream `COMPONENT`.

        Args:
            seed: int32 [B, 2], one pair per row; see `keras_vae.random`.
        """
        count, size = self.loc.shape
        loc, scale = tf.convert_to_tensor(self.loc), tf.convert_to_tensor(self.scale)
        noise = tf.cast(random.normal(seed, (size,), stream=random.LATENT), loc.dtype)
        if count == 1:
            loc, scale = loc[0], scale[0]
        else:
            u = random.uniform(seed, (), stream=random.COMPONENT)
            logits = tf.broadcast_to(tf.cast(self.logits, tf.float32), [tf.shape(seed)[0], count])
            chosen = tf.argmax(random.categorical(u, logits), axis=-1)
            loc, scale = tf.gather(loc, chosen), tf.gather(scale, chosen)
        is_diagonal = self.scale.ndim == 2
        spread = scale * noise if is_diagonal else tf.linalg.matvec(scale, noise)
        return loc + spread


class Prior(keras.layers.Layer, abc.ABC):
    """A law p(z) over L latents, whose weights, if any, are trained with the model.

    Args:
        latent_size: number L of latents.

    Attributes:
        is_standard: whether it is the standard normal law, for those who show it.

    Raises:
        ValueError: if `latent_size` is not a positive integer.
    """

    is_standard: ClassVar[bool] = False

    def __init__(self, latent_size: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.latent_size = as_count("latent_size", latent_size, least=1)
        self.built = type(self).build is keras.layers.Layer.build

    @abc.abstractmethod
    def distribution(self) -> tfd.Distribution:
        """Law p(z), batch shape [], event shape [L], rebuilt at each call."""

    @abc.abstractmethod
    def components(self) -> Components:
        """The same law as a mixture of normal laws."""

    def bind(
        self,
        posterior: Posterior,
        input_shapes: Sequence[tuple[int, ...]],
        low: float | None,
        high: float | None,
    ) -> None:
        """Hook called by the VAE: the posterior, its input shapes and the bounds of the data."""

    @property
    def law_dtype(self) -> str:
        """Dtype of log-probabilities: float32, or float64 under that policy."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """Log-density log p(z) in nats, [B], at z [B, L]."""
        return self.distribution().log_prob(tf.cast(z, self.law_dtype))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """The batch shape of z."""
        return tuple(input_shape[:-1])

    def compute_output_spec(self, z: Any) -> keras.KerasTensor:
        """Symbolic result of `call`."""
        return keras.KerasTensor(self.compute_output_shape(z.shape), dtype=self.law_dtype)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "latent_size": self.latent_size}


@register
class StandardNormal(Prior):
    """Standard normal p(z): log p(z) = -1/2 |z|^2 - L/2 log 2 pi.

    Example:
        >>> float(StandardNormal(2)(tf.zeros([1, 2]))[0])  # -log 2 pi
        -1.837877...
    """

    is_standard = True

    def distribution(self) -> tfd.Distribution:
        """Independent standard normal laws."""
        zeros = tf.zeros([self.latent_size], self.law_dtype)
        return tfp.Independent(tfp.Normal(zeros, tf.ones_like(zeros)), 1)

    def components(self) -> Components:
        """One normal law."""
        zeros = tf.zeros([1, self.latent_size], self.law_dtype)
        return Components(zeros[:, 0], zeros, tf.ones_like(zeros))


@register
class NormalMixture(Prior):
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
        own = {"dtype": self.law_dtype, "autocast": False}
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros", **own)
        self.loc = self.add_weight(
            name="loc", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0), **own
        )
        self.raw_scale = self.add_weight(name="raw_scale", shape=shape, initializer="zeros", **own)

    def distribution(self) -> tfd.Distribution:
        """Mixture of independent normal laws."""
        loc, raw_scale = tf.convert_to_tensor(self.loc), tf.convert_to_tensor(self.raw_scale)
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=tf.convert_to_tensor(self.logits)),
            tfp.Independent(tfp.Normal(loc, positive(raw_scale)), 1),
        )

    def components(self) -> Components:
        """The mixture's weights, centres and scales."""
        scale = positive(tf.convert_to_tensor(self.raw_scale))
        logits, loc = (tf.convert_to_tensor(weight) for weight in (self.logits, self.loc))
        return Components(logits, loc, scale)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "num_components": self.num_components}


@register
class VampPrior(Prior):
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
        input_shapes: Sequence[tuple[int, ...]],
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
        for index, shape in enumerate(input_shapes):
            self.pseudo_inputs.append(
                self.add_weight(
                    name=f"pseudo_inputs_{index}",
                    shape=(self.num_components, *shape),
                    initializer=middle if index == 0 else "zeros",
                    dtype=self.law_dtype,
                    autocast=False,
                )
            )

    def distribution(self) -> tfd.Distribution:
        """Mixture of the posteriors at the pseudo-inputs."""
        logits = tf.zeros([self.num_components], self.law_dtype)
        posterior, parameters = self._at_pseudo_inputs()
        return tfd.MixtureSameFamily(tfd.Categorical(logits=logits), posterior.law(**parameters))

    def components(self) -> Components:
        """The posteriors at the pseudo-inputs, of equal weights."""
        posterior, parameters = self._at_pseudo_inputs()
        law = posterior.law(**parameters)
        logits = tf.zeros([self.num_components], self.law_dtype)
        if "scale_tril" in parameters:
            return Components(logits, law.mean(), parameters["scale_tril"])
        return Components(logits, law.mean(), law.stddev())

    def _at_pseudo_inputs(self) -> tuple[Posterior, dict[str, tf.Tensor]]:
        if self._posterior is None:
            raise ValueError("VampPrior needs an encoder: give it to keras_vae.VAE(prior=...).")
        u, *condition = (tf.convert_to_tensor(weight) for weight in self.pseudo_inputs)
        u = tf.clip_by_value(u, *self._bounds)
        posterior = self._posterior()
        return posterior, posterior.parameters([u, *condition] if condition else u)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "num_components": self.num_components}
