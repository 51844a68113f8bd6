"""Distributions over embedded codes, as TensorFlow Probability has distributions."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_vae.distributions.tfp import softmax, split_seed, tfd

__all__ = ["CategoricalCodes", "EmbeddedCodes", "PointOfCodes"]


class _OverVectors(tfd.Distribution):
    """A distribution over vectors z [L] that hold embedded codes.

    Args:
        size: number L of entries of z.
        tensors: parameters by name.
        batch: batch shape, static and as a tensor.
        dtype: dtype of z.
    """

    is_discrete = True

    def __init__(
        self,
        name: str,
        size: int,
        tensors: dict[str, tf.Tensor],
        batch: tuple[tf.TensorShape, Any],
        dtype: tf.DType,
    ) -> None:
        self._size, self._batch = size, batch
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={**tensors, "name": name},
            name=name,
        )

    def _batch_shape(self) -> tf.TensorShape:
        return self._batch[0]

    def _batch_shape_tensor(self, **_: Any) -> tf.Tensor:
        return tf.convert_to_tensor(self._batch[1], tf.int32)

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([self._size])

    def _event_shape_tensor(self, *_: Any, **__: Any) -> tf.Tensor:
        return tf.constant([self._size], tf.int32)

    def _default_event_space_bijector(self) -> None:
        return None


def _batch_of(value: tf.Tensor, axes: int) -> tuple[tf.TensorShape, tf.Tensor]:
    """Returns the shape of a tensor without its last axes, static and as a tensor."""
    return value.shape[:-axes], tf.shape(value)[:-axes]


class PointOfCodes(_OverVectors):
    """A point mass: z is certain.

    Args:
        value: z [..., L].
        codes: its codes, int32 [..., *codes_shape].
    """

    def __init__(self, value: tf.Tensor, codes: tf.Tensor, name: str = "PointOfCodes") -> None:
        self.value, self.codes = value, codes
        tensors = {"value": value, "codes": codes}
        super().__init__(name, value.shape[-1], tensors, _batch_of(value, 1), value.dtype)

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        is_there = tf.reduce_all(tf.equal(z, self.value), axis=-1)
        there = tf.zeros(tf.shape(is_there), self.dtype)
        return tf.where(is_there, there, tf.constant(-math.inf, self.dtype))

    def _mean(self) -> tf.Tensor:
        return self.value

    def _mode(self) -> tf.Tensor:
        return self.value

    def _entropy(self) -> tf.Tensor:
        return tf.zeros(tf.shape(self.value)[:-1], self.dtype)

    def _sample_n(self, n: int, seed: Any = None) -> tf.Tensor:
        return tf.broadcast_to(self.value, tf.concat([[n], tf.shape(self.value)], 0))


class CategoricalCodes(_OverVectors):
    """Independent codes, each drawn from K, whose embeddings are one-hot vectors.

    Args:
        logits: unnormalised log-probabilities [..., N, K].
        codes_shape: shape of the N codes.
    """

    def __init__(
        self, logits: tf.Tensor, codes_shape: tuple[int, ...], name: str = "CategoricalCodes"
    ) -> None:
        self.logits, self._codes_shape = logits, codes_shape
        size = logits.shape[-2] * logits.shape[-1]
        super().__init__(name, size, {"logits": logits}, _batch_of(logits, 2), logits.dtype)

    @property
    def count(self) -> int:
        """Number N of codes."""
        return self.logits.shape[-2]

    @property
    def categories(self) -> int:
        """Number K of categories of each code."""
        return self.logits.shape[-1]

    @property
    def codes(self) -> tf.Tensor:
        """The most probable codes, int32 [..., *codes_shape]."""
        codes = tf.argmax(self.logits, axis=-1, output_type=tf.int32)
        return tf.reshape(codes, tf.concat([tf.shape(codes)[:-1], self._codes_shape], 0))

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        one_hot = _unflat(z, *self.logits.shape[-2:])
        log_p = tf.nn.log_softmax(self.logits)
        return tf.reduce_sum(tf.math.multiply_no_nan(log_p, one_hot), axis=[-2, -1])

    def _mean(self) -> tf.Tensor:
        return _flat(softmax(self.logits))

    def _mode(self) -> tf.Tensor:
        best = tf.argmax(self.logits, axis=-1)
        return _flat(tf.one_hot(best, self.logits.shape[-1], dtype=self.dtype))

    def _entropy(self) -> tf.Tensor:
        log_p = tf.nn.log_softmax(self.logits)
        return -tf.reduce_sum(tf.math.multiply_no_nan(log_p, tf.exp(log_p)), axis=[-2, -1])

    def _sample_n(self, n: int, seed: Any = None) -> tf.Tensor:
        each = tfd.OneHotCategorical(logits=self.logits, dtype=self.dtype)
        return _flat(each.sample(n, seed=seed))


class EmbeddedCodes(_OverVectors):
    """A distribution over codes, as one over the vectors of their embeddings.

    Args:
        codes_of: function from z [..., L] to codes int32 [..., N] and their one-hot vectors
            [..., N, K].
        log_prob_of: function from such a pair to log p(codes), [...].
        draw: function from uniform numbers [..., N] to z.
        size: number L of entries of z.
        count: number N of codes.
        uniform_over: number K of codes, if all N are uniform and independent; otherwise None.
        dtype: dtype of z.
    """

    def __init__(
        self,
        codes_of: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        log_prob_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        draw: Callable[[tf.Tensor], tf.Tensor],
        *,
        size: int,
        count: int,
        uniform_over: int | None,
        dtype: Any,
        name: str = "EmbeddedCodes",
    ) -> None:
        self._codes_of, self.log_prob_of, self._draw = codes_of, log_prob_of, draw
        self.count, self.uniform_over = count, uniform_over
        batch: tuple[tf.TensorShape, Any] = (tf.TensorShape([]), [])
        super().__init__(name, size, {}, batch, tf.as_dtype(dtype))

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        return self.log_prob_of(*self._codes_of(z))

    def _sample_n(self, n: int, seed: Any = None) -> tf.Tensor:
        seed = split_seed(seed, 1)[0]
        u = tf.random.stateless_uniform([n, self.count], seed, minval=2.0**-24, dtype=self.dtype)
        return self._draw(u)


@tfd.RegisterKL(PointOfCodes, EmbeddedCodes)
def _kl_point(q: PointOfCodes, p: EmbeddedCodes, name: str | None = None) -> tf.Tensor:
    """Returns -log p(codes), for q has no entropy."""
    with tf.name_scope(name or "kl_point"):
        codes = tf.reshape(q.codes, tf.concat([q.batch_shape_tensor(), [p.count]], 0))
        return -p.log_prob_of(codes, None)


@tfd.RegisterKL(CategoricalCodes, EmbeddedCodes)
def _kl_categorical(q: CategoricalCodes, p: EmbeddedCodes, name: str | None = None) -> tf.Tensor:
    """Returns N log K - H(q) if p is uniform."""
    if p.uniform_over is None:
        raise NotImplementedError(f"No closed KL from {q.name} to codes that depend on each other.")
    with tf.name_scope(name or "kl_categorical"):
        return p.count * math.log(p.uniform_over) - q.entropy()


def _flat(values: tf.Tensor) -> tf.Tensor:
    """Joins the last two axes."""
    size = values.shape[-2] * values.shape[-1]
    return tf.reshape(values, tf.concat([tf.shape(values)[:-2], [size]], 0))


def _unflat(values: tf.Tensor, count: int, size: int) -> tf.Tensor:
    """Splits the last axis into two."""
    return tf.reshape(values, tf.concat([tf.shape(values)[:-1], [count, size]], 0))
