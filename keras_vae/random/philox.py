"""Philox-4x32-10 in integer TensorFlow operations, on 64-bit or on 32-bit integers.

Source: Salmon, Moraes, Dror, Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, SC '11.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

Tensor: TypeAlias = Any
Word: TypeAlias = tuple[Tensor, ...]

Multiplier: TypeAlias = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Map from words, and 0 or 1 for the order of the factors, to both halves of the products.

It is made once for all rounds, and with it the constants, so that a graph holds each once.
"""

LATENT, COMPONENT, OBSERVATION, ROWS, PREPARATION, POSTERIOR, RESAMPLING = range(7)
POSTERIOR_COMPONENT = 7
IMPUTED = 8

_ROUNDS = 10
_FACTORS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_SWAPPED = (1, 0)
_COLUMNS = ((0, 7), (1, 3), (2, 5), (4, 6))


class _Int64:
    """Words as int64 in [0, 2^32)."""

    dtype = tf.int64
    width = 32

    @staticmethod
    def split(value: Tensor) -> Tensor:
        return tf.cast(value, tf.int64) & 0xFFFFFFFF

    @staticmethod
    def constants(values: np.ndarray) -> np.ndarray:
        return values[..., None, None].astype(np.int64)

    @staticmethod
    def add(words: Tensor, constants: np.ndarray) -> Tensor:
        return (words + constants) & 0xFFFFFFFF

    @staticmethod
    def multiplier() -> Multiplier:
        mask, half = tf.constant(0xFFFFFFFF, tf.int64), tf.constant(32, tf.uint64)
        factors = [tf.constant(each) for each in _factors(_Int64)]

        def multiply(words: Tensor, order: int) -> tuple[Tensor, Tensor]:
            product = words * factors[order]
            high = tf.bitwise.right_shift(tf.cast(product, tf.uint64), half)
            return tf.cast(high, tf.int64), product & mask

        return multiply

    @staticmethod
    def limbs(words: Tensor) -> Word:
        return (words,)

    @staticmethod
    def join(word: Word) -> Tensor:
        return tf.cast((word[0] ^ 0x80000000) - 0x80000000, tf.int32)

    @staticmethod
    def sqrt(x: Tensor) -> Tensor:
        """Computes the square root in float64 and rounds it, which is rounding it once.

        TensorFlow approximates the square root of float32 on a GPU. A square root with twice the
        digits of float32 and two more rounds as the exact one does (Figueroa 1995, When is double
        rounding innocuous?).
        """
        return tf.cast(tf.sqrt(tf.cast(x, tf.float64)), tf.float32)


class _Int32:
    """Words as two int32 limbs in [0, 2^16), the low one first, on an axis before the rows.

    Nothing overflows: if a factor's limb m is 2^15 or more, m - 2^16 is multiplied and the other
    factor is added to the upper half. Quotients are exact, even in float32, in which some runtimes
    divide integers.
    """

    dtype = tf.int32
    width = 16

    @staticmethod
    def split(value: Tensor) -> Tensor:
        low = value & 0xFFFF
        return tf.stack([low, tf.truncatediv(value - low, 0x10000) & 0xFFFF], axis=-3)

    @staticmethod
    def constants(values: np.ndarray) -> np.ndarray:
        return np.stack([values & 0xFFFF, values >> 16], axis=-1)[..., None, None].astype(np.int32)

    @staticmethod
    def add(words: Tensor, constants: np.ndarray) -> Tensor:
        low, high = tf.split(words + constants, 2, axis=-3)
        return tf.concat([low, high + tf.truncatediv(low, 0x10000)], axis=-3) & 0xFFFF

    @staticmethod
    def multiplier() -> Multiplier:
        mask, radix = tf.constant(0xFFFF), tf.constant(0x10000)
        axis, each_twice = tf.constant(1), tf.constant([0, 0, 1, 1])
        columns = [tf.constant(some) for some in _COLUMNS]
        factors = []
        for each in _factors(_Int32):
            is_large = np.tile(each >= 0x8000, [1, 2, 1, 1]).astype(np.int32)
            signed = np.tile(each, [1, 2, 1, 1]) - 0x10000 * is_large
            factors.append((tf.constant(signed), tf.constant(is_large)))

        def multiply(words: Tensor, order: int) -> tuple[Tensor, Tensor]:
            signed, is_large = factors[order]
            wide = tf.gather(words, each_twice, axis=axis)
            products = wide * signed
            low = products & mask
            high = tf.truncatediv(products - low, radix) + wide * is_large
            parts = tf.concat([low, high], axis=axis)
            outer, *inner = (tf.gather(parts, some, axis=axis) for some in columns)
            first, fourth = tf.split(outer, 2, axis=axis)
            second, third = tf.split(inner[0] + inner[1] + inner[2], 2, axis=axis)
            third += tf.truncatediv(second, radix)
            fourth += tf.truncatediv(third, radix)
            upper = tf.concat([third, fourth], axis=axis)
            return upper & mask, tf.concat([first, second], axis=axis) & mask

        return multiply

    @staticmethod
    def limbs(words: Tensor) -> Word:
        return tuple(tf.unstack(words, num=2, axis=1))

    @staticmethod
    def join(word: Word) -> Tensor:
        return ((word[1] ^ 0x8000) - 0x8000) * 0x10000 + word[0]

    @staticmethod
    def sqrt(x: Tensor) -> Tensor:
        return tf.sqrt(x)


Arithmetic: TypeAlias = type[_Int64] | type[_Int32]


def _factors(integers: Arithmetic) -> list[np.ndarray]:
    """Returns the factors in their order and in the swapped order."""
    return [integers.constants(np.array(_FACTORS)[list(order)]) for order in ((0, 1), _SWAPPED)]


_arithmetic: contextvars.ContextVar[Arithmetic] = contextvars.ContextVar(
    "arithmetic", default=_Int64
)


def arithmetic() -> Arithmetic:
    """Returns how words are held and multiplied in the current context."""
    return _arithmetic.get()


@contextlib.contextmanager
def int32_arithmetic() -> Iterator[None]:
    """Traces noise with 32-bit integers only inside the block; the bits are the same.

    This is for runtimes whose 64-bit integers are wrong (OpenVINO's CPU plugin computes them in 32
    bits). Square roots are taken in float32, which other runtimes than TensorFlow on a GPU round
    correctly. The graph is about twice as large. The choice is made when a function is traced, so
    trace the function for the first time inside the block.

    Example:
        >>> from keras_vae import random
        >>> @tf.function
        ... def noise(seed):
        ...     return random.normal(seed, (50,), stream=random.LATENT)
        >>> with random.int32_arithmetic():
        ...     graph = noise.get_concrete_function(tf.TensorSpec([None, 2], tf.int32)).graph
        >>> any(
        ...     "int64" in output.dtype.name
        ...     for op in graph.get_operations()
        ...     for output in op.outputs
        ... )
        False
    """
    token = _arithmetic.set(_Int32)
    try:
        yield
    finally:
        _arithmetic.reset(token)


def constant_words(values: Sequence[int]) -> Word:
    """Makes constant words, each limb an array `[len(values), 1, 1]`."""
    dtype, width = arithmetic().dtype.as_numpy_dtype, arithmetic().width
    limbs = [[v >> shift & (2**width - 1) for v in values] for shift in range(0, 32, width)]
    return tuple(np.array(limb, dtype)[:, None, None] for limb in limbs)


def philox(seed: Tensor, blocks: int | Tensor, stream: int, index: int = 0) -> tuple[Word, Word]:
    """Computes blocks of words from keys in `seed` and counters (block, index, stream, 0).

    One round maps (c0, c1, c2, c3) to (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0), where hi and lo are
    the halves of the products c0 * factor0 and c2 * factor1. The pairs (c0, c2) and (c1, c3) are
    one tensor each, so a round swaps the pair. Every other round works in the swapped order, with
    factors, keys and steps swapped to match, so only one tensor has to move.

    Args:
        seed: int32 `[b, 2]`.
        blocks: Number of blocks, static or not.
        stream: Third word of the counter.
        index: Second word of the counter.

    Returns:
        Words (0, 2) and words (1, 3) of each block, each limb `[2, b, blocks]`.
    """
    integers = arithmetic()
    block = tf.range(blocks, dtype=tf.int32)
    counter = tf.stack([block, tf.fill(tf.shape(block), tf.constant(stream, tf.int32))])
    even = integers.split(counter[:, None, :])
    odd = tf.zeros_like(even)
    if index:
        odd += integers.split(tf.constant([index, 0], tf.int32)[:, None, None])

    return rounds(even, odd, seed)


def philox_at(seed: Tensor, counters: np.ndarray) -> tuple[Word, Word]:
    """Computes the blocks of words at counters, from keys in `seed`; see `philox`.

    Args:
        seed: int32 `[b, 2]`.
        counters: Block, index and stream of each counter, `[3, blocks]`.

    Returns:
        Words (0, 2) and words (1, 3) of each block, each limb `[2, b, blocks]`.
    """
    integers = arithmetic()
    block, index, stream = np.asarray(counters, np.int32)
    even = integers.split(tf.constant(np.stack([block, stream])[:, None, :]))
    odd = integers.split(tf.constant(np.stack([index, np.zeros_like(index)])[:, None, :]))
    return rounds(even, odd, seed)


def rounds(even: Tensor, odd: Tensor, seed: Tensor) -> tuple[Word, Word]:
    """Applies the ten rounds to counters, with the keys in `seed`.

    Args:
        even: Words 0 and 2 of the counters along the first axis; see `philox` for the others.
        odd: Words 1 and 3, likewise.
        seed: int32 `[b, 2]`, or `[1, 2]` for one key for all.

    Returns:
        Words (0, 2) and words (1, 3) of each block, each limb `[2, b, blocks]`.
    """
    integers = arithmetic()
    order = np.array([_SWAPPED, (0, 1)] * (_ROUNDS // 2), np.int32)
    steps = np.arange(_ROUNDS)[:, None] * np.array(_KEY_STEPS)[order] % 2**32
    keys = tf.gather(integers.split(tf.transpose(seed)[:, :, None]), order, axis=0)
    keys = tf.unstack(integers.add(keys, integers.constants(steps)), num=_ROUNDS, axis=0)
    multiply, swapped, axis = integers.multiplier(), tf.constant(_SWAPPED), tf.constant(0)
    for number, key in enumerate(keys):
        high, low = multiply(even, number % 2)
        even, odd = high ^ tf.gather(odd, swapped, axis=axis) ^ key, low
    return integers.limbs(even), integers.limbs(odd)


def wrap_to_int32(value: Tensor) -> Tensor:
    """Returns the low 32 bits of integers, as int32."""
    return _Int64.join((_Int64.split(value),))
