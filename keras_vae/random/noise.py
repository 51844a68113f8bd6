"""Words, uniforms and normals from per-row seeds."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from keras_vae.random.elementary import horner, log, sqrt
from keras_vae.random.philox import (
    Tensor,
    Word,
    arithmetic,
    constant_words,
    philox,
    philox_at,
)
from keras_vae.random.seeds import integer

_MAX_STREAM = 2**16 - 1


def _static_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, int) or not hasattr(shape, "__iter__"):
        raise TypeError(f"Expected `shape` to be a tuple of ints; got {shape!r}.")
    sizes = tuple(integer(size, "shape") for size in shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"Expected the sizes in `shape` to be 0 or more; got {sizes}.")
    return sizes


def _empty(seed: Tensor, shape: Sequence[int], dtype: tf.DType) -> Tensor:
    return tf.zeros(tf.concat([tf.shape(seed)[:1], shape], axis=0), dtype)


def _checked(seed: Tensor, stream: int) -> Tensor:
    seed = tf.convert_to_tensor(seed)
    if seed.dtype != tf.int32 or seed.shape.rank != 2 or seed.shape[1] not in (2, None):
        raise ValueError(
            "Expected `seed` to be int32 of shape [b, 2], one pair per row; "
            f"got {seed.dtype.name} of shape {seed.shape}. `row_seeds(seed, n)` makes one."
        )
    if not 0 <= integer(stream, "stream") <= _MAX_STREAM:
        raise ValueError(f"Expected `stream` between 0 and {_MAX_STREAM}; got {stream}.")
    return seed


def _draw(seed: Tensor, count: int, stream: int, index: int) -> tuple[Word, Word]:
    return philox(_checked(seed, stream), -(-count // 4), stream, integer(index, "index"))


_Noise: TypeAlias = Callable[..., Any]


def _in_a_graph(noise: _Noise) -> _Noise:
    """Runs a noise function in a graph from its second eager call on, with the same bits.

    It has a hundred operations, which take ten times as long to call as to compute.
    """
    graphs: dict[Any, _Noise | None] = {}

    @functools.wraps(noise)
    def drawn(seed: Tensor, what: Any, **where: int) -> Any:
        seed = _checked(seed, where.get("stream", 0))
        what = _static_shape(what) if where else what
        if not tf.executing_eagerly():
            return noise(seed, what, **where)
        key = what, tuple(sorted(where.items())), arithmetic()
        if key not in graphs:
            graphs[key] = None
            return noise(seed, what, **where)
        graph = graphs[key]
        if graph is None:
            graph = graphs[key] = tf.function(
                lambda seed: noise(seed, what, **where),
                input_signature=[tf.TensorSpec([None, 2], tf.int32)],
                autograph=False,
            ).get_concrete_function()
        return graph(seed)

    return drawn


def _interleave(even: Tensor, odd: Tensor, shape: Sequence[int]) -> Tensor:
    """Interleaves two tensors `[2, b, blocks]` to `[b, *shape]`, in the order of the words."""
    values = tf.transpose(tf.stack([even, odd], axis=-1), [1, 2, 0, 3])
    values = tf.reshape(values, [-1, 4 * even.shape[2]])
    return tf.reshape(values[:, : math.prod(shape)], [-1, *shape])


def bits(seed: Tensor, count: int, *, stream: int, index: int = 0) -> Tensor:
    """Returns the raw words of the generator, 32 bits each.

    Args:
        seed: int32 `[b, 2]`, one pair per row.
        count: Number of words per row.
        stream: One of a row's independent sequences; see the table of the module.
        index: Which latent or part of a model it is for: an independent sequence each.

    Returns:
        int32 `[b, count]`, the bit patterns of the words (`.numpy().view("uint32")`).

    Raises:
        TypeError: If `count` or `stream` is not an int.
        ValueError: If `seed` is not int32 `[b, 2]`, or `count` or `stream` is out of range.

    Example:
        >>> from keras_vae import random
        >>> words = random.bits(random.row_seeds(0, 1), 4, stream=random.LATENT)
        >>> [f"{word:08x}" for word in words.numpy().view("uint32")[0]]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    (count,) = _static_shape([count])
    even, odd = _draw(seed, count, stream, index)
    if count == 0:
        return _empty(seed, [0], tf.int32)
    join = arithmetic().join
    return _interleave(join(even), join(odd), [count])


def _to_float(word: Word) -> Tensor:
    """Converts a word to float32, rounded to nearest, whatever its limbs."""
    values = [tf.cast(limb, tf.float32) for limb in word]
    return values[0] if len(values) == 1 else values[0] + values[1] * 2.0**16


def _to_uniform(word: Word) -> Tensor:
    """Returns (k + 1/2) / 2^23, with k the upper 23 bits; exact in float32, inside (0, 1)."""
    mask = constant_words([0xFFFFFE00])
    high = tuple(limb & limb_mask for limb, limb_mask in zip(word, mask, strict=True))
    return _to_float(high) * 2.0**-32 + 2.0**-24


@_in_a_graph
def uniform(seed: Tensor, shape: Sequence[int], *, stream: int, index: int = 0) -> Tensor:
    """Draws uniform noise on the open interval (0, 1).

    u = (k + 1/2) / 2^23 with k the upper 23 bits of a word. So u and 1 - u are exact in float32,
    lie on the same grid, and are at least 2^-24: no logarithm of either is infinite.

    Args:
        seed: int32 `[b, 2]`, one pair per row. The number of rows may be dynamic, and may be 0.
        shape: Static shape of a row's noise.
        stream: One of a row's independent sequences; see the table of the module.
        index: Which latent or part of a model it is for: an independent sequence each.

    Returns:
        float32 `[b, *shape]`.

    Raises:
        TypeError: If `shape` or `stream` is not made of ints.
        ValueError: If `seed` is not int32 `[b, 2]`, or `shape` or `stream` is out of range.

    Example:
        >>> from keras_vae import random
        >>> random.uniform(random.row_seeds(7, 3), (5,), stream=random.OBSERVATION).shape
        TensorShape([3, 5])
    """
    even, odd = _draw(seed, math.prod(shape), stream, index)
    if 0 in shape:
        return _empty(seed, shape, tf.float32)
    return _interleave(_to_uniform(even), _to_uniform(odd), shape)


@_in_a_graph
def normal(seed: Tensor, shape: Sequence[int], *, stream: int, index: int = 0) -> Tensor:
    """Draws standard normal noise, by the transform of Box and Muller.

    z = sqrt(-2 log u) (cos a, sin a), two normals from two words. The radius uses 32 bits of its
    word, u = (w | 1) / 2^32, so |z| reaches 6.66 (the missing tails have probability 3e-11), and
    the argument of the logarithm is never 0. The angle is drawn in a quarter of the circle around
    0, with 23 bits; two more bits reflect and swap the coordinates.

    Logarithm, sine and cosine are polynomials in operations that are rounded exactly: the values
    are equal to the last bit in every runtime that does not fuse multiplications with additions,
    on a GPU too. XLA and OpenVINO fuse them.
    Words 2i and 2i + 1 give the normals 2i and 2i + 1.

    Args:
        seed: int32 `[b, 2]`, one pair per row. The number of rows may be dynamic, and may be 0.
        shape: Static shape of a row's noise.
        stream: One of a row's independent sequences; see the table of the module.
        index: Which latent or part of a model it is for: an independent sequence each.

    Returns:
        float32 `[b, *shape]`.

    Raises:
        TypeError: If `shape` or `stream` is not made of ints.
        ValueError: If `seed` is not int32 `[b, 2]`, or `shape` or `stream` is out of range.

    Example:
        >>> from keras_vae import random
        >>> random.normal(random.row_seeds(7, 3), (50,), stream=random.LATENT).shape
        TensorShape([3, 50])
    """
    even, odd = _draw(seed, math.prod(shape), stream, index)
    if 0 in shape:
        return _empty(seed, shape, tf.float32)

    return _interleave(*_to_normals(even, odd), shape)


def _to_normals(even: Word, odd: Word) -> tuple[Tensor, Tensor]:
    """Returns two normals from each pair of words."""
    odd_word = (even[0] | 1, *even[1:])
    radius = sqrt(-2.0 * log(_to_float(odd_word) * 2.0**-32, largest_shift=16))

    turn = _to_uniform(odd) - 0.5
    square = turn * turn
    taylor = [(math.pi / 2) ** k / math.factorial(k) * (-1) ** (k // 2) for k in range(11)]
    sine = turn * horner(square, taylor[1::2])
    cosine = horner(square, taylor[0::2]) * (1.0 - tf.cast(odd[0] & 2, tf.float32))

    swap = (odd[0] & 1) > 0
    return radius * tf.where(swap, sine, cosine), radius * tf.where(swap, cosine, sine)


@dataclass(frozen=True)
class Request:
    """Noise to draw for each row, with the arguments of `normal` or `uniform`.

    Attributes:
        kind: "normal" or "uniform".
        shape: static shape of a row's noise.
        stream: stream of the generator.
        index: index of the latent or part.
    """

    kind: str
    shape: tuple[int, ...]
    stream: int
    index: int = 0


def several(seed: Tensor, requests: Sequence[Request]) -> list[Tensor]:
    """Draws the noise of several parts at once: what `normal` and `uniform` draw of each.

    The words of all parts come from one run of the generator, so the graph of a table of many
    columns is about as large as that of one column.

    Args:
        seed: int32 `[b, 2]`, one pair per row.
        requests: what to draw.

    Returns:
        float32 `[b, *shape]` of each request, equal to the bit to those drawn alone.

    Raises:
        TypeError: If a shape or a stream is not made of ints.
        ValueError: If the seed, a shape or a stream is out of range.

    Example:
        >>> from keras_vae import random
        >>> seed = random.row_seeds(0, 2)
        >>> ages, heights = random.several(
        ...     seed,
        ...     [
        ...         random.Request("uniform", (3,), random.OBSERVATION, 0),
        ...         random.Request("normal", (2,), random.OBSERVATION, 1),
        ...     ],
        ... )
        >>> alone = random.normal(seed, (2,), stream=random.OBSERVATION, index=1)
        >>> bool(tf.reduce_all(heights == alone))
        True
    """
    checked = tuple(
        Request(
            each.kind,
            _static_shape(each.shape),
            integer(each.stream, "stream"),
            integer(each.index, "index"),
        )
        for each in requests
    )
    if len(checked) < 2:
        make = {"normal": normal, "uniform": uniform}
        return [
            make[one.kind](seed, one.shape, stream=one.stream, index=one.index) for one in checked
        ]
    found: list[Tensor] = list(_several(seed, checked))
    return found


@_in_a_graph
def _several(seed: Tensor, requests: tuple[Request, ...]) -> tuple[Tensor, ...]:
    for request in requests:
        _checked(seed, request.stream)
    found: dict[int, Tensor] = {}
    places: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
        if math.prod(request.shape):
            places.setdefault(request.kind, []).append(place)
        else:
            found[place] = _empty(seed, request.shape, tf.float32)
    wanted = {kind: [requests[place] for place in own] for kind, own in places.items()}
    for kind, words in _words_by_kind(seed, wanted).items():
        parts = _of_one_kind(_CONVERT[kind](*words), wanted[kind])
        found |= dict(zip(places[kind], parts, strict=True))
    return tuple(found[place] for place in range(len(requests)))


def _to_uniforms(even: Word, odd: Word) -> tuple[Tensor, Tensor]:
    return _to_uniform(even), _to_uniform(odd)


_CONVERT = {"normal": _to_normals, "uniform": _to_uniforms}


def _words_by_kind(seed: Tensor, wanted: dict[str, list[Request]]) -> dict[str, tuple[Word, Word]]:
    """Returns the words for the requests of each kind, all from one run of the generator."""
    counters = {
        kind: np.concatenate([_counters(request) for request in own], axis=1)
        for kind, own in wanted.items()
    }
    if not counters:
        return {}
    sizes = [each.shape[1] for each in counters.values()]
    both = philox_at(seed, np.concatenate(list(counters.values()), axis=1))
    if len(sizes) == 1:
        return dict.fromkeys(counters, both)
    even, odd = (
        zip(*(tf.split(limb, sizes, axis=2) for limb in word), strict=True) for word in both
    )
    return dict(zip(counters, zip(even, odd, strict=True), strict=True))


def _counters(request: Request) -> np.ndarray:
    """Returns block, index and stream of the counters of a request, [3, blocks]."""
    count = _blocks(request)
    return np.stack(
        [np.arange(count), np.full(count, request.index), np.full(count, request.stream)]
    )


def _blocks(request: Request) -> int:
    """Returns the number of blocks of four words that a request takes."""
    return -(-math.prod(request.shape) // 4)


def _of_one_kind(values: tuple[Tensor, Tensor], requests: Sequence[Request]) -> list[Tensor]:
    """Cuts numbers of one kind into the requests of that kind."""
    blocks = [_blocks(request) for request in requests]
    joined = _interleave(*values, [4 * sum(blocks)])
    parts = tf.split(joined, [4 * count for count in blocks], axis=1)
    return [
        tf.reshape(part[:, : math.prod(request.shape)], [-1, *request.shape])
        for request, part in zip(requests, parts, strict=True)
    ]
