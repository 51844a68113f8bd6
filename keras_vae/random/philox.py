"""Philox-4x32-10 in integer TensorFlow operations, on 64-bit or on 32-bit integers.

Source: Salmon, Moraes, Dror, Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, SC '11.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

Tensor: TypeAlias = Any
Word: TypeAlias = tuple[Tensor, ...]

LATENT, COMPONENT, OBSERVATION, ROWS, PREPARATION, POSTERIOR = range(6)

_ROUNDS = 10
_FACTORS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


class _Int64:
    """Words held as one int64 limb in [0, 2^32)."""

    dtype = tf.int64
    width = 32

    @staticmethod
    def split(value: Tensor) -> Word:
        return (tf.cast(value, tf.int64) & 0xFFFFFFFF,)

    @staticmethod
    def add(word: Word, constant: Word) -> Word:
        return ((word[0] + constant[0]) & 0xFFFFFFFF,)

    @staticmethod
    def multiply(word: Word, constant: Word) -> tuple[Word, Word]:
        product = word[0] * constant[0]
        high = tf.bitwise.right_shift(tf.cast(product, tf.uint64), np.uint64(32))
        return (tf.cast(high, tf.int64),), (product & 0xFFFFFFFF,)

    @staticmethod
    def join(word: Word) -> Tensor:
        return tf.cast((word[0] ^ 0x80000000) - 0x80000000, tf.int32)


class _Int32:
    """Words held as two int32 limbs in [0, 2^16), the low one first.

    Products stay below 2^24 and quotients are exact, so that a runtime which multiplies and divides
    integers in float32 is right too.
    """

    dtype = tf.int32
    width = 16

    @staticmethod
    def split(value: Tensor) -> Word:
        low = value & 0xFFFF
        return low, tf.truncatediv(value - low, 0x10000) & 0xFFFF

    @staticmethod
    def add(word: Word, constant: Word) -> Word:
        low = word[0] + constant[0]
        high = word[1] + constant[1] + tf.truncatediv(low, 0x10000)
        return low & 0xFFFF, high & 0xFFFF

    @staticmethod
    def multiply(word: Word, constant: Word) -> tuple[Word, Word]:
        quarters = [limb >> shift & 0xFF for limb in constant for shift in (0, 8)]
        low, high = ([limb * quarter for quarter in quarters] for limb in word)
        even = (low[0], low[2] + high[0], high[2])
        odd = (low[1], low[3] + high[1], high[3])

        carry, limbs = 0, []
        for whole, half in zip(even, odd, strict=True):
            low_byte = half & 0xFF
            total = carry + whole + low_byte * 0x100
            limb = total & 0xFFFF
            limbs.append(limb)
            carry = tf.truncatediv(total - limb, 0x10000) + tf.truncatediv(half - low_byte, 0x100)
        return (limbs[2], carry), (limbs[0], limbs[1])

    @staticmethod
    def join(word: Word) -> Tensor:
        return ((word[1] ^ 0x8000) - 0x8000) * 0x10000 + word[0]


Arithmetic: TypeAlias = type[_Int64] | type[_Int32]

_arithmetic: contextvars.ContextVar[Arithmetic] = contextvars.ContextVar(
    "arithmetic", default=_Int64
)


def arithmetic() -> Arithmetic:
    """How words are held and multiplied in the current context."""
    return _arithmetic.get()


@contextlib.contextmanager
def int32_arithmetic() -> Iterator[None]:
    """A context in which noise is traced with 32-bit integers only; the bits are the same.

    For runtimes whose 64-bit integers are wrong (OpenVINO's CPU plugin computes them in 32 bits).
    The graph is about three times as large. It takes effect when a function is traced, so trace
    the function for the first time inside the context.

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
    """Constant words, each limb an array `[len(values), 1, 1]`."""
    dtype, width = arithmetic().dtype.as_numpy_dtype, arithmetic().width
    limbs = [[v >> shift & (2**width - 1) for v in values] for shift in range(0, 32, width)]
    return tuple(np.array(limb, dtype)[:, None, None] for limb in limbs)


def _swap(word: Word) -> Word:
    return tuple(tf.gather(limb, [1, 0], axis=0) for limb in word)


def _xor(left: Word, right: Word) -> Word:
    return tuple(a ^ b for a, b in zip(left, right, strict=True))


def philox(seed: Tensor, blocks: int | Tensor, stream: int) -> tuple[Word, Word]:
    """Blocks of four words from the keys in `seed` and the counters (block, 0, stream, 0).

    One round maps (c0, c1, c2, c3) to (hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0), where hi and lo are
    the halves of the products c0 * factor0 and c2 * factor1. The pairs (c0, c2) and (c1, c3) are
    one tensor each, for which this is a swap of the pair. Every other round works on the swapped
    order, with factors, keys and steps swapped to match, so that only one tensor has to move.

    Args:
        seed: int32 `[b, 2]`.
        blocks: Number of blocks, static or not.
        stream: Third word of the counter.

    Returns:
        Words (0, 2) and words (1, 3) of each block, each limb `[2, b, blocks]`.
    """
    integers = arithmetic()
    block = tf.range(blocks, dtype=tf.int32)
    counter = tf.stack([block, tf.fill(tf.shape(block), tf.constant(stream, tf.int32))])
    even = integers.split(counter[:, None, :])
    odd = tuple(tf.zeros_like(limb) for limb in even)

    next_keys = integers.split(tf.transpose(seed)[:, :, None])
    keys, factors, steps = _swap(next_keys), _FACTORS, _KEY_STEPS[::-1]
    for index in range(_ROUNDS):
        key = integers.add(keys, constant_words([index * step % 2**32 for step in steps]))
        high, low = integers.multiply(even, constant_words(factors))
        even, odd = _xor(_xor(high, _swap(odd)), key), low
        keys, next_keys = next_keys, keys
        factors, steps = factors[::-1], steps[::-1]
    return even, odd


def wrap_to_int32(value: Tensor) -> Tensor:
    """The low 32 bits of integers, as int32."""
    return _Int64.join(_Int64.split(value))
