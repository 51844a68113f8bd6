"""Noise of many seeds in one draw: the numbers that TensorFlow draws from each of them.

TensorFlow draws from one seed at a time. On a GPU, where starting a kernel takes longer than a
small draw, a hundred draws are a hundred times as slow as one of all their numbers. So the
generator, and what TensorFlow makes of its words, is repeated here for a batch of seeds.
"""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_vae.random.philox import Tensor, rounds

__all__ = ["folded", "normals", "uniforms"]

_SCRAMBLING_KEY = (0x3EC8F720, 0x02461E29)
_MANTISSA = 2**23 - 1
_SMALLEST = 1e-7
"""Least argument of the logarithm in TensorFlow's normals."""


def _words(seeds: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Computes the first `count` words of each seed, rounded up to whole blocks of four.

    The generator on the seed itself, as a counter of two 64-bit numbers, gives the key and the
    upper half of the counters.

    Returns:
        Words (0, 2) and words (1, 3) of each block, int64 `[2, K, blocks]`.
    """
    wide = tf.cast(seeds, tf.int64)
    low = tf.transpose(wide & 0xFFFFFFFF)[..., None]
    high = tf.transpose(tf.where(wide < 0, np.int64(0xFFFFFFFF), np.int64(0)))[..., None]
    fixed = np.array([_SCRAMBLING_KEY], np.uint32).view(np.int32)
    (even,), (odd,) = rounds(low, high, tf.constant(fixed))
    key = tf.concat([even[0], odd[0]], axis=-1)
    key = tf.cast((key ^ 0x80000000) - 0x80000000, tf.int32)
    block = tf.range(-(-count // 4), dtype=tf.int64)
    shape = [tf.shape(seeds)[0], tf.size(block)]
    first = tf.broadcast_to(block, shape)
    counters = tf.stack([first, tf.broadcast_to(even[1], shape)])
    upper = tf.stack([tf.zeros_like(first), tf.broadcast_to(odd[1], shape)])
    (even,), (odd,) = rounds(counters, upper, key)
    return even, odd


def _fraction(words: Tensor) -> Tensor:
    """Returns the lowest 23 bits of words as a fraction in [0, 1), as TensorFlow does."""
    return tf.cast(words & _MANTISSA, tf.float32) * 2.0**-23


def _in_order(even: Tensor, odd: Tensor, shape: Sequence[int]) -> Tensor:
    """Interleaves two tensors `[2, K, blocks]` to `[K, *shape]`, in the order of the words."""
    values = tf.transpose(tf.stack([even, odd], axis=-1), [1, 2, 0, 3])
    values = tf.reshape(values, [tf.shape(even)[1], -1])[:, : math.prod(shape)]
    return tf.reshape(values, [-1, *shape])


def uniforms(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Draws what `tf.random.stateless_uniform(shape, seed, alg="philox")` draws from each seed.

    Args:
        seeds: int32 `[K, 2]`.
        shape: Static shape of the numbers of one seed.

    Returns:
        float32 `[K, *shape]`, equal to TensorFlow's to the bit.

    Example:
        >>> seeds = tf.constant([[1, 2], [3, -4]])
        >>> one = tf.random.stateless_uniform([5], seeds[1], alg="philox")
        >>> bool(tf.reduce_all(uniforms(seeds, [5])[1] == one))
        True
    """
    even, odd = _words(seeds, math.prod(shape))
    return _in_order(_fraction(even), _fraction(odd), shape)


def normals(seeds: Tensor, shape: Sequence[int]) -> Tensor:
    """Draws what `tf.random.stateless_normal(shape, seed, alg="philox")` draws from each seed.

    TensorFlow takes logarithm, sine and cosine from the C library on a CPU and from CUDA's on a
    GPU, and here from its own operations, so the numbers agree to a few units in the last place.

    Args:
        seeds: int32 `[K, 2]`.
        shape: Static shape of the numbers of one seed.

    Returns:
        float32 `[K, *shape]`, within 4e-6 of TensorFlow's.

    Example:
        >>> seeds = tf.constant([[1, 2], [3, -4]])
        >>> one = tf.random.stateless_normal([5], seeds[1], alg="philox")
        >>> bool(tf.reduce_all(tf.abs(normals(seeds, [5])[1] - one) < 4e-6))
        True
    """
    even, odd = _words(seeds, math.prod(shape))
    radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(_fraction(even), _SMALLEST)))
    angle = 2.0 * math.pi * _fraction(odd)
    return _in_order(radius * tf.sin(angle), radius * tf.cos(angle), shape)


def folded(seeds: Tensor, data: int) -> Tensor:
    """Returns what `tf.random.experimental.stateless_fold_in(seed, data)` returns for each seed.

    Args:
        seeds: int32 `[K, 2]`.
        data: Integer.

    Returns:
        int32 `[K, 2]`.

    Example:
        >>> seeds = tf.constant([[1, 2], [3, -4]])
        >>> one = tf.random.experimental.stateless_fold_in(seeds[1], 7)
        >>> bool(tf.reduce_all(folded(seeds, 7)[1] == one))
        True
    """
    even, _ = _words(seeds, 1)
    first = tf.cast((even[0] ^ 0x80000000) - 0x80000000, tf.int32)
    return tf.concat([first, tf.fill(tf.shape(first), data)], axis=-1)
