"""Noise for draws, and draws that know their density."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from keras_vae import random

__all__ = ["Draw", "Noise", "centre", "from_rows", "from_seed", "numbers_in"]

_HALF_A_STEP = 2.0**-24


@dataclass(frozen=True)
class Noise:
    """Specification of the noise for one draw of one example.

    Attributes:
        shape: shape of the noise.
        kind: "normal" for standard normal numbers, "uniform" for numbers in (0, 1).
        stream: stream of `keras_vae.random` that row seeds draw it from.
        index: index of the latent or part, if a model has several.
    """

    shape: tuple[int, ...]
    kind: Literal["normal", "uniform"] = "normal"
    stream: int = random.LATENT
    index: int = 0


class Draw(NamedTuple):
    """A value drawn from a distribution, with its log-density if the draw knows it.

    Attributes:
        value: the draw, [..., *event_shape].
        log_prob: its log-density in nats, [...], as a function of the noise; None if only the
            distribution can tell.
        penalties: terms of a loss by name, [...], such as the commitment to a code. They are
            minimised but are not part of a bound.
    """

    value: tf.Tensor
    log_prob: tf.Tensor | None = None
    penalties: Mapping[str, tf.Tensor] = MappingProxyType({})


def from_rows(
    noise: Any, seed: tf.Tensor, num_samples: int | None = None, dtype: str = "float32"
) -> Any:
    """Draws noise as a pure function of row seeds, the same in every runtime.

    Args:
        noise: structure of `Noise`.
        seed: int32 [B, 2], one pair per row; see `keras_vae.random`.
        num_samples: draws S per row; None is one, without the axis S.
        dtype: dtype of the result.

    Returns:
        The structure, of tensors [S, B, *shape] or [B, *shape].
    """

    def drawn(one: Noise) -> tf.Tensor:
        make = random.normal if one.kind == "normal" else random.uniform
        shape = one.shape if num_samples is None else (num_samples, *one.shape)
        numbers = tf.cast(make(seed, shape, stream=one.stream, index=one.index), dtype)
        if num_samples is None:
            return numbers
        return tf.transpose(numbers, [1, 0, *range(2, len(shape) + 1)])

    return tf.nest.map_structure(drawn, noise)


def from_seed(noise: Any, seed: tf.Tensor, leading: Sequence[Any], dtype: str = "float32") -> Any:
    """Draws noise from one seed for all rows, by the fast kernels of TensorFlow.

    Args:
        noise: structure of `Noise`.
        seed: int32 [2].
        leading: axes before those of the noise, such as [S, B].
        dtype: dtype of the result.

    Returns:
        The structure, of tensors [*leading, *shape]. The first is drawn with the seed itself, the
        others with seeds derived from it.
    """
    drawn = []
    for index, one in enumerate(tf.nest.flatten(noise)):
        own = tf.random.experimental.stateless_fold_in(seed, index) if index else seed
        shape = [*leading, *one.shape]
        if one.kind == "normal":
            drawn.append(tf.random.stateless_normal(shape, own, dtype=dtype, alg="philox"))
        else:
            numbers = tf.random.stateless_uniform(shape, own, dtype=dtype, alg="philox")
            drawn.append(numbers + _HALF_A_STEP)  # of its grid, which begins at 0
    return tf.nest.pack_sequence_as(noise, drawn)


def centre(noise: Any, leading: Sequence[Any], dtype: str = "float32") -> Any:
    """Returns the medians of the noise, 0 of normal and 1/2 of uniform numbers, as `from_seed`."""
    return tf.nest.map_structure(
        lambda one: tf.fill(
            [*leading, *one.shape], tf.constant(0.0 if one.kind == "normal" else 0.5, dtype)
        ),
        noise,
    )


def numbers_in(noise: Any) -> int:
    """Counts the numbers in the noise for one draw of one example."""
    return sum(tf.TensorShape(one.shape).num_elements() for one in tf.nest.flatten(noise))
