"""Seeds: checks, fresh seeds, and one seed per row."""

import operator
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae.random.philox import ROWS, Tensor, arithmetic, philox, wrap_to_int32


def integer(value: Any, name: str) -> int:
    """Returns the value as an int; raises a `TypeError` that names it otherwise."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"Expected `{name}` to be an int; got {value!r}.") from None


def row_seeds(seed: int | Sequence[int] | Tensor, n: int | Tensor) -> Tensor:
    """Makes one seed per row from a single seed.

    An int gives row i the seed (seed, i), which a client in any language can write down itself. A
    pair gives row i the first two words of philox((i, 0, ROWS, 0), key=pair), as int32.

    Args:
        seed: An int in [-2^31, 2^31), or a pair of them, such as `stateless_seed` returns.
        n: Number of rows.

    Returns:
        int32 `[n, 2]`.

    Raises:
        TypeError: If `seed` is not made of ints, or `n` is not an int.
        ValueError: If `seed` is a sequence but not a pair, or an int does not fit into 32 bits.

    Example:
        >>> row_seeds(7, 3).numpy().tolist()
        [[7, 0], [7, 1], [7, 2]]
    """
    if tf.is_tensor(n):
        n = tf.cast(n, tf.int32)
    elif not 0 <= integer(n, "n") < 2**31:
        raise ValueError(
            f"Expected `n` from 0 to 2^31 - 1, the rows that one seed can number; got {n}. Draw "
            "the others with another seed."
        )

    if tf.is_tensor(seed):
        pair = stateless_seed(seed)
    elif isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str):
        if len(seed) != 2:
            raise ValueError(f"Expected `seed` to be an int or a pair of ints; got {seed!r}.")
        pair = tf.constant([as_seed(value) for value in seed], tf.int32)
    else:
        rows = tf.range(n, dtype=tf.int32)
        return tf.stack([tf.fill(tf.shape(rows), tf.constant(as_seed(seed), tf.int32)), rows], -1)

    even, odd = philox(pair[None], n, ROWS)
    join = arithmetic().join
    return tf.stack([join(even)[0, 0], join(odd)[0, 0]], axis=-1)


def as_seed(seed: Any) -> int:
    """Returns the value as a signed 32-bit int.

    Raises:
        TypeError: If `seed` is not an int.
        ValueError: If it does not fit into 32 bits.

    Example:
        >>> as_seed(7)
        7
    """
    value = integer(seed, "seed")
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"Expected `seed` in [-2^31, 2^31); got {value}.")
    return value


def fresh_seed() -> int:
    """Draws a seed in [-2^31, 2^31) from the operating system's entropy, for `seed=None`.

    Example:
        >>> -(2**31) <= fresh_seed() < 2**31
        True
    """
    return secrets.randbits(32) - 2**31


def stateless_seed(value: Tensor) -> Tensor:
    """Makes a seed for stateless sampling from the state of a `keras.random.SeedGenerator`.

    `SeedGenerator.next()` is int64 or uint32; TFP wants int32. The low 32 bits are kept.

    Args:
        value: Integers `[2]`.

    Returns:
        int32 `[2]`.

    Raises:
        ValueError: If `value` is not a pair of integers.

    Example:
        >>> stateless_seed(tf.constant([2**31, 5], tf.int64)).numpy().tolist()
        [-2147483648, 5]
    """
    value = tf.convert_to_tensor(value)
    if not value.dtype.is_integer or value.shape != [2]:
        raise ValueError(
            f"Expected a pair of integers; got {value.dtype.name} of shape {value.shape}."
        )
    return value if value.dtype == tf.int32 else wrap_to_int32(value)
