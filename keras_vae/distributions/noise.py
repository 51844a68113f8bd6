"""Noise for draws, and draws that know their density."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from keras_vae import random
from keras_vae.random import many

__all__ = [
    "Draw",
    "Noise",
    "Wanted",
    "centre",
    "checked_draw",
    "from_rows",
    "from_rows_at_once",
    "from_seed",
    "from_seeds",
    "log_standard_normal",
    "numbered",
    "numbers_in",
    "only_own_draws",
    "refuse_shared",
]

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

    def __post_init__(self) -> None:
        """Refuses another kind of numbers, and a shape that is no tuple of sizes.

        Raises:
            ValueError: if `kind` or `shape` is neither.
        """
        if self.kind not in ("normal", "uniform"):
            raise ValueError(
                "Invalid value for argument `kind`. Expected 'normal' or 'uniform'. "
                f"Received: kind={self.kind!r}"
            )
        if not isinstance(self.shape, (tuple, list)):
            raise ValueError(
                "Invalid value for argument `shape`. Expected a tuple such as (2,). "
                f"Received: shape={self.shape!r}"
            )
        object.__setattr__(self, "shape", tuple(self.shape))


class Draw(NamedTuple):
    """A value drawn from a distribution, with its log-density if the draw knows it.

    Attributes:
        value: the draw, [..., *event_shape].
        log_prob: its log-density in nats, [...], as a function of the noise; None if only the
            distribution can tell.
        penalties: terms of a loss by name, [...], such as the commitment to a code. They are
            minimised but are not part of a bound.
        relaxed: continuous value in place of a discrete one, for training alone; None if there is
            none.
        independent: whether several draws of one example are independent of each other. Stratified
            draws are not; their means are unbiased all the same.
    """

    value: tf.Tensor
    log_prob: tf.Tensor | None = None
    penalties: Mapping[str, tf.Tensor] = MappingProxyType({})
    independent: bool = True
    relaxed: tf.Tensor | None = None


def checked_draw(
    layer: Any, noise: Any, parameters: Mapping[str, Any], axes: int | None = None
) -> Draw:
    """Returns a layer's draw of its noise.

    Args:
        layer: prior, posterior or likelihood.
        noise: noise as the layer specifies it.
        parameters: parameters of the layer by name.
        axes: number of axes before those of the event; None is any number.

    Raises:
        TypeError: if the layer returns anything else than a `Draw`.
        ValueError: if the shape of its value or log-density is not that of a draw.
    """
    drawn, name = layer.draw(noise, **parameters), type(layer).__name__
    if not isinstance(drawn, Draw):
        raise TypeError(f"{name}.draw must return Draw(value); got {type(drawn).__name__}.")
    event = getattr(layer, "event_shape", None) or (layer.latent_size,)
    value = drawn.value.shape
    if value.rank is None:
        return drawn
    leading = value.rank - len(event)
    wrong = leading < 0 if axes is None else leading != axes
    if wrong or not value[-len(event) :].is_compatible_with(event):
        expected = ", ".join([{2: "S, B"}.get(axes or 0, "..."), *map(str, event)])
        raise ValueError(
            f"{name}.draw must return a value of shape [{expected}]; got {value.as_list()}."
        )
    if drawn.log_prob is not None and drawn.log_prob.shape.rank not in (
        None,
        value.rank - len(event),
    ):
        raise ValueError(
            f"{name}.draw must return one log-density per draw, shape "
            f"{value[: -len(event)].as_list()}; got {drawn.log_prob.shape.as_list()}. Sum it over "
            "the entries."
        )
    return drawn


def refuse_shared(noise: Any) -> None:
    """Refuses noise of which two draws would have the same numbers.

    Args:
        noise: structure of `Noise`.

    Raises:
        ValueError: if two of them have the same stream and index.
    """
    counters = [(one.stream, one.index) for one in tf.nest.flatten(noise)]
    for stream, index in set(counters):
        if counters.count((stream, index)) > 1:
            raise ValueError(
                f"Two draws have noise of stream {stream} and index {index}, so they would share "
                "their numbers. Give each latent an index of its own, as in "
                "dataclasses.replace(noise, index=1), and q the stream random.POSTERIOR."
            )


class Wanted(NamedTuple):
    """Noise that `from_rows_at_once` draws for each row.

    Attributes:
        noise: structure of `Noise`.
        num_samples: draws S per row; None is one, without the axis S.
        dtype: dtype of the result.
    """

    noise: Any
    num_samples: int | None = None
    dtype: str = "float32"


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

    Raises:
        ValueError: if two of the structure would have the same numbers.
    """
    return from_rows_at_once([Wanted(noise, num_samples, dtype)], seed)[0]


def from_rows_at_once(wanted: Sequence[Wanted], seed: tf.Tensor) -> list[Any]:
    """Draws what `from_rows` draws of each, from one run of the generator.

    Raises:
        ValueError: if two draws would have the same numbers.
    """
    refuse_shared([each.noise for each in wanted])
    flat = [(one, each) for each in wanted for one in tf.nest.flatten(each.noise)]
    requests = []
    for one, each in flat:
        leading = () if each.num_samples is None else (each.num_samples,)
        requests.append(random.Request(one.kind, (*leading, *one.shape), one.stream, one.index))
    drawn = []
    for numbers, (_, each) in zip(random.several(seed, requests), flat, strict=True):
        numbers = tf.cast(numbers, each.dtype)
        if each.num_samples is not None:
            numbers = tf.transpose(numbers, [1, 0, *range(2, numbers.shape.rank)])
        drawn.append(numbers)
    return tf.nest.pack_sequence_as([each.noise for each in wanted], drawn)


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


def from_seeds(noise: Any, seeds: tf.Tensor, leading: Sequence[int]) -> Any:
    """Draws what `from_seed` draws from each of many seeds, in one draw for a GPU.

    Args:
        noise: structure of `Noise`.
        seeds: int32 [K, 2].
        leading: static axes before those of the noise, such as [S, B].

    Returns:
        The structure, of float32 tensors [K, *leading, *shape]. Uniform numbers equal those of
        `from_seed` to the bit, normal ones within 4e-6.
    """
    drawn = []
    for index, one in enumerate(tf.nest.flatten(noise)):
        own, shape = many.folded(seeds, index) if index else seeds, [*leading, *one.shape]
        if one.kind == "normal":
            drawn.append(many.normals(own, shape))
        else:
            drawn.append(many.uniforms(own, shape) + _HALF_A_STEP)
    return tf.nest.pack_sequence_as(noise, drawn)


def centre(noise: Any, leading: Sequence[Any], dtype: str = "float32") -> Any:
    """Returns the medians of the noise, 0 of normal and 1/2 of uniform numbers, as `from_seed`."""
    return tf.nest.map_structure(
        lambda one: tf.fill(
            [*leading, *one.shape], tf.constant(0.0 if one.kind == "normal" else 0.5, dtype)
        ),
        noise,
    )


def numbered(noises: Mapping[str, Any]) -> dict[str, Any]:
    """Returns noise whose indices are raised by 0, 1, ..., so that the parts share no number.

    Args:
        noises: structures of `Noise` by part.
    """
    return {
        name: tf.nest.map_structure(lambda one, k=k: replace(one, index=one.index + k), noise)
        for k, (name, noise) in enumerate(noises.items())
    }


def log_standard_normal(z: tf.Tensor) -> tf.Tensor:
    """Returns the log-density of standard normal vectors z [..., L], in nats, [...]."""
    size = z.shape[-1]
    return -0.5 * tf.reduce_sum(z**2, axis=-1) - 0.5 * size * math.log(2.0 * math.pi)


def only_own_draws(family: str) -> str:
    """Returns the message that a posterior has no density at points that it did not draw."""
    return (
        f"{family} knows only the density of its own draws, and that of another point is needed: "
        "train with gradient='pathwise', measure by log_marginal(method='importance'), or choose a "
        "posterior such as CouplingFlow, whose density is known everywhere."
    )


def numbers_in(noise: Any) -> int:
    """Counts the numbers in the noise for one draw of one example."""
    return sum(tf.TensorShape(one.shape).num_elements() for one in tf.nest.flatten(noise))
