"""Posteriors and priors with heavier tails than the normal distribution."""

import abc
from typing import Any

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import is_real, register
from keras_vae.distributions import density_families, tfp
from keras_vae.distributions.base import Parameter, Posterior, positive
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.priors import Prior
from keras_vae.distributions.tfp import tfd
from keras_vae.random.inversion.gammas import STUDENT_UNIFORMS

__all__ = ["LaplacePosterior", "LaplacePrior", "StudentTPosterior", "StudentTPrior"]


class _Family(abc.ABC):
    """A distribution of numbers by its centre and scale, drawn by inversion."""

    def noise_shape(self, size: int) -> tuple[int, ...]:
        """Returns the shape of the uniform numbers behind one draw of a vector."""
        return (size,)

    @abc.abstractmethod
    def standard(self, noise: tf.Tensor) -> tf.Tensor:
        """Draws numbers of centre 0 and scale 1 from uniform ones, in float32."""

    @abc.abstractmethod
    def at(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns the distribution of each number."""


class _Laplace(_Family):
    def standard(self, noise: tf.Tensor) -> tf.Tensor:
        return random.laplace(noise)

    def at(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        return tfd.Laplace(loc, scale)


class _StudentT(_Family):
    """Student's distribution.

    Raises:
        ValueError: if `df` is not above 2, so that mean and variance exist.
    """

    def __init__(self, df: float) -> None:
        if not (is_real(df) and 2.0 < df < float("inf")):
            raise ValueError(
                "Invalid value for argument `df`. Expected a finite number above 2, so that mean "
                f"and variance exist. Received: df={df!r}"
            )
        self.df = float(df)

    def noise_shape(self, size: int) -> tuple[int, ...]:
        return (size, STUDENT_UNIFORMS)

    def standard(self, noise: tf.Tensor) -> tf.Tensor:
        return random.student_t(noise, tf.constant(self.df, tf.float32))

    def at(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        return density_families.StudentT(tf.constant(self.df, loc.dtype), loc, scale)


def _standard(family: _Family, noise: tf.Tensor, dtype: str) -> tf.Tensor:
    return tf.cast(family.standard(tf.cast(noise, tf.float32)), dtype)


class _Posterior(Posterior):
    """Posterior with a centre and a scale per latent, of one family."""

    family: _Family

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns a centre and a scale per latent."""
        size = self.latent_size
        return {"loc": Parameter(size), "scale": Parameter(size, positive)}

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent distributions of the family."""
        return self.independent(self.family.at(loc, scale))

    def noise(self) -> Noise:
        """Returns uniform numbers."""
        return Noise(self.family.noise_shape(self.latent_size), "uniform", random.POSTERIOR)

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws the centre plus the scale times a draw that depends on no parameter."""
        return Draw(loc + scale * _standard(self.family, noise, self.float_dtype))


class _Prior(Prior):
    """Prior of independent latents of one family, with centre 0 and scale 1."""

    family: _Family

    def parameters(self, condition: Any = None) -> dict[str, tf.Tensor]:
        """Returns an empty dict: there are no parameters."""
        return {}

    def make_distribution(self) -> tfd.Distribution:
        """Returns independent distributions of the family."""
        zeros = tf.zeros([self.latent_size], self.float_dtype)
        return tfp.Independent(self.family.at(zeros, tf.ones_like(zeros)), 1)

    def noise(self) -> Noise:
        """Returns uniform numbers."""
        return Noise(self.family.noise_shape(self.latent_size), "uniform", random.LATENT)

    def draw(self, noise: tf.Tensor) -> Draw:
        """Draws by inversion."""
        return Draw(_standard(self.family, noise, self.float_dtype))


@register
class LaplacePosterior(_Posterior):
    """Laplace q(z | x) with a centre and a scale per latent.

    Example:
        >>> q = LaplacePosterior(2).distribution(tf.zeros([5, 3]))
        >>> q.batch_shape, q.event_shape
        (TensorShape([5]), TensorShape([2]))
    """

    family = _Laplace()


@register
class LaplacePrior(_Prior):
    """Standard Laplace p(z): log p(z) = -sum |z_j| - L log 2, under which few latents are large.

    Its rate against `LaplacePosterior` has a closed form.

    Example:
        >>> float(LaplacePrior(2)(tf.zeros([1, 2]))[0])  # -2 log 2
        -1.386294...
    """

    family = _Laplace()


@register
class StudentTPosterior(_Posterior):
    """Student-t q(z | x) with a centre and a scale per latent.

    It covers the tails of the true posterior, so that importance weights have a finite variance
    where those of a normal q have not. Source: Mattei and Frellsen (2019), MIWAE, arXiv:1812.02633.

    Args:
        latent_size: number L of latents.
        network: the encoder, from x to features.
        df: degrees of freedom, above 2.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `df` is out of range.

    Example:
        >>> q = StudentTPosterior(2, df=4.0).distribution(tf.zeros([5, 3]))
        >>> q.batch_shape, q.event_shape
        (TensorShape([5]), TensorShape([2]))
    """

    def __init__(
        self,
        latent_size: int,
        network: keras.layers.Layer | None = None,
        *,
        df: float = 4.0,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(latent_size, network, head=head, **kwargs)
        self.df = float(df) if is_real(df) else df
        self.family = _StudentT(df)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "df": self.df}


@register
class StudentTPrior(_Prior):
    """Standard Student-t p(z) of independent latents.

    Args:
        latent_size: number L of latents.
        df: degrees of freedom, above 2.

    Raises:
        ValueError: if `df` is out of range.

    Example:
        >>> float(StudentTPrior(1, df=4.0)(tf.zeros([1, 1]))[0])  # log(3 / 8)
        -0.981
    """

    def __init__(self, latent_size: int, df: float = 4.0, **kwargs: Any) -> None:
        super().__init__(latent_size, **kwargs)
        self.df = float(df) if is_real(df) else df
        self.family = _StudentT(df)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "df": self.df}
