"""Distributions on the unit sphere, with densities relative to its area."""

from typing import Any

import tensorflow as tf

from keras_vae import random
from keras_vae.distributions.spheres.concentration import log_area, peak
from keras_vae.distributions.tfp import split_seed, tfd

__all__ = ["UniformOnSphere", "VonMisesFisherVectors", "around", "directions"]

_HALF_A_STEP = 2.0**-24
_ROUNDING = 1e-5
"""Most that the squared length of a unit vector differs from 1, for up to 1e4 latents."""

_SHORTEST = 1e-30
"""Square of the length below which a vector has no direction."""


def directions(vectors: tf.Tensor) -> tf.Tensor:
    """Returns vectors [..., n] divided by their lengths; the first unit vector for one of 0."""
    square = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    is_short = square < _SHORTEST
    first = tf.one_hot(0, vectors.shape[-1], dtype=vectors.dtype)
    return tf.where(is_short, first, vectors * tf.math.rsqrt(tf.where(is_short, 1.0, square)))


def projected(z: tf.Tensor) -> tf.Tensor:
    """Returns the points of the unit sphere nearest to vectors [..., n].

    A vector whose length is 1 within rounding stays as it is, bit for bit; one of length 0 becomes
    the first unit vector.
    """
    square = tf.reduce_sum(tf.square(z), axis=-1, keepdims=True)
    largest = tf.reduce_max(tf.abs(z), axis=-1, keepdims=True)
    moderate = z / tf.where(largest > 0.0, largest, tf.ones_like(largest))
    return tf.where(tf.abs(square - 1.0) <= _ROUNDING, z, directions(moderate))


def around(loc: tf.Tensor, angle: tf.Tensor, tangent: tf.Tensor) -> tf.Tensor:
    """Returns unit vectors at an angle from a direction.

    The vector (cos a, sin a tangent) is reflected so that the first axis falls on the direction, or
    on its opposite where that is farther: the reflection never divides by a small number.

    Args:
        loc: directions, unit vectors [..., d].
        angle: angles a, [...].
        tangent: unit vectors [..., d - 1].
    """
    side = tf.where(loc[..., :1] < 0.0, -tf.ones_like(loc[..., :1]), 1.0)
    normal = tf.concat([loc[..., :1] + side, loc[..., 1:]], axis=-1)
    cosine, sine = tf.cos(angle)[..., tf.newaxis], tf.sin(angle)[..., tf.newaxis]
    point = tf.concat([-side * cosine, sine * tangent], axis=-1)
    share = tf.reduce_sum(point * normal, axis=-1, keepdims=True) / (1.0 + side * loc[..., :1])
    return point - share * normal


class _OnSphere(tfd.Distribution):
    """A distribution of unit vectors.

    Attributes:
        is_on_sphere: True; what moves latents in all directions refuses it.
    """

    is_on_sphere = True

    def __init__(self, dtype: tf.DType, parameters: dict[str, Any], name: str) -> None:
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    def _default_event_space_bijector(self) -> None:
        return None


class UniformOnSphere(_OnSphere):
    """Uniform distribution on the unit sphere: log p(z) = -log of its area.

    Args:
        size: dimension d of the vectors.
        dtype: dtype of the vectors.
    """

    def __init__(self, size: int, dtype: Any, name: str = "UniformOnSphere") -> None:
        self.size = size
        super().__init__(tf.as_dtype(dtype), {"size": size, "dtype": dtype, "name": name}, name)

    def _batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.constant([], tf.int32)

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([self.size])

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([self.size])

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(z[..., 0]) - log_area(self.size)

    def _mean(self) -> tf.Tensor:
        return tf.zeros([self.size], self.dtype)

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        zero, one = tf.zeros([], self.dtype), tf.ones([], self.dtype)
        return directions(tfd.Normal(zero, one).sample([n, self.size], seed=seed))


class VonMisesFisherVectors(_OnSphere):
    """Von Mises-Fisher distribution: log p(z) = k mu'z - M(k) - log of the sphere's area.

    See `keras_vae.distributions.spheres.concentration` for M. It is computed from |z - mu|^2, which
    keeps its digits for large k.

    Args:
        loc: mean directions mu, unit vectors [..., d].
        concentration: numbers k of at least 0, [...].
    """

    def __init__(
        self, loc: tf.Tensor, concentration: tf.Tensor, name: str = "VonMisesFisher"
    ) -> None:
        self.loc, self.concentration = loc, concentration
        parameters = {"loc": loc, "concentration": concentration, "name": name}
        super().__init__(loc.dtype, parameters, name)

    @property
    def size(self) -> int:
        """Dimension of the vectors."""
        return self.loc.shape[-1]

    def _batch_shape(self) -> tf.TensorShape:
        return tf.broadcast_static_shape(self.loc.shape[:-1], self.concentration.shape)

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.broadcast_dynamic_shape(tf.shape(self.loc)[:-1], tf.shape(self.concentration))

    def _event_shape(self) -> tf.TensorShape:
        return self.loc.shape[-1:]

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.loc)[-1:]

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        distance = tf.reduce_sum(tf.square(z - self.loc), axis=-1)
        at_loc = peak(self.concentration, self.size).log_density - log_area(self.size)
        return at_loc - 0.5 * self.concentration * distance

    def _mean(self) -> tf.Tensor:
        length = 1.0 - peak(self.concentration, self.size).shortfall
        return length[..., tf.newaxis] * self.loc

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        seeds = split_seed(seed, n=2, salt="von_mises_fisher")
        u = tfd.Uniform().sample(shape, seed=seeds[0]) + _HALF_A_STEP
        tangent = tfd.Normal(0.0, 1.0).sample(tf.concat([shape, [self.size - 1]], 0), seed=seeds[1])
        concentration = tf.cast(self.concentration, u.dtype)
        angle = random.polar_angle(u, concentration, self.size)
        return around(self.loc, *(tf.cast(e, self.dtype) for e in (angle, directions(tangent))))


@tfd.RegisterKL(VonMisesFisherVectors, UniformOnSphere)
def _kl_uniform(q: VonMisesFisherVectors, p: UniformOnSphere, name: str | None = None) -> tf.Tensor:
    """Computes k A(k) - M(k) = (k - M(k)) - k (1 - A(k))."""
    with tf.name_scope(name or "kl_uniform"):
        log_density, shortfall = peak(q.concentration, p.size)
        return log_density - q.concentration * shortfall
