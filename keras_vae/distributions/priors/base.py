"""The base class of priors, and what a prior tells of itself."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count
from keras_vae.distributions.base import Posterior
from keras_vae.distributions.base.renamed import refuse_old_methods
from keras_vae.distributions.noise import Draw, Noise, from_rows
from keras_vae.distributions.tfp import tfd

__all__ = ["Components", "InputShapes", "Prior", "refuse_other_space", "shapes_by_name"]

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

    is_discrete: ClassVar[bool] = False
    """Whether it is a distribution over embedded codes, see `keras_vae.distributions.codes`."""

    on_sphere: ClassVar[bool | None] = False
    """Whether it is a distribution over unit vectors; None if the posterior decides."""

    is_conditional = False
    """Whether the prior is p(z | c), which requires a model with a condition."""

    def __init__(self, latent_size: int | None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.latent_size: Any = None
        if latent_size is not None or not self.is_discrete:
            self.latent_size = as_count("latent_size", latent_size, least=1)  # type: ignore[arg-type]
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


def refuse_other_space(prior: Prior, posterior: Posterior) -> None:
    """Refuses a prior of unit vectors with a posterior of all vectors, and the reverse.

    Raises:
        ValueError: if one of the two is on the sphere and the other is not.
    """
    if prior.on_sphere in (None, posterior.on_sphere):
        return
    unit, other = ("posterior", prior) if posterior.on_sphere else ("prior", posterior)
    remedy = (
        "prior UniformSphere or VampPrior" if posterior.on_sphere else "posterior VonMisesFisher"
    )
    layer = posterior if posterior.on_sphere else prior
    raise ValueError(
        f"The {unit} {type(layer).__name__} is a distribution of vectors of length 1, and "
        f"{type(other).__name__} is one of all vectors, so no divergence between them exists: "
        f"choose the {remedy}."
    )


def shapes_by_name(shapes: InputShapes) -> dict[str, tuple[int, ...]]:
    """Returns the shapes by name, those of a list as x and condition."""
    if isinstance(shapes, Mapping):
        return dict(shapes)
    return dict(zip(("x", "condition"), shapes, strict=False))
