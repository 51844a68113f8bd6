"""Elementary functions from operations that IEEE 754 rounds exactly.

Libraries differ in the last bits of their logarithm, sine and cosine. Functions made of additions,
multiplications, divisions and comparisons are the same everywhere.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from keras_vae.random.philox import Tensor, arithmetic

STIRLING = (
    1 / 12,
    -1 / 360,
    1 / 1260,
    -1 / 1680,
    1 / 1188,
    -691 / 360360,
    1 / 156,
    -3617 / 122400,
    43867 / 244188,
    -174611 / 125400,
)
"""Coefficients B_2k / (2k (2k - 1)) of x^(1 - 2k) in Stirling's series of log gamma(x)."""


def horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Evaluates the polynomial with these coefficients, the constant first."""
    *rest, total = coefficients
    for coefficient in reversed(rest):
        total = total * x + coefficient
    return total


def sqrt(x: Tensor) -> Tensor:
    """Computes the square root of float32, rounded to nearest on a GPU too."""
    return arithmetic().sqrt(x)


def log(x: Tensor, largest_shift: int) -> Tensor:
    """Computes log x for x in [2^-(2 largest_shift), 1], within 2 units in the last place.

    x = m / 2^e with m in [sqrt(1/2), sqrt(2)), and log m = 2 artanh((m - 1) / (m + 1)).
    """
    exponent = 0.0
    shift = largest_shift
    while shift:
        small = tf.cast(x < math.sqrt(0.5) * 2.0 ** (1 - shift), tf.float32)
        x = x * (1.0 + (2.0**shift - 1.0) * small)
        exponent = exponent + shift * small
        shift //= 2
    ratio = (x - 1.0) / (x + 1.0)
    log_mantissa = ratio * horner(ratio * ratio, [2.0 / (2 * k + 1) for k in range(5)])
    return log_mantissa - math.log(2.0) * exponent


def log1p(x: Tensor) -> Tensor:
    """Computes log(1 + x) for x from 2^-20 - 1 to 2^60."""
    total = 1.0 + x
    size = log(tf.minimum(total, 1.0 / total), largest_shift=32)
    far = tf.where(x > 0.0, -size, size)
    return tf.where((x < -0.5) | (x > 1.0), far, log1p_near(x))


def log1p_near(x: Tensor) -> Tensor:
    """Computes log(1 + x) for x from -1/2 to 1."""
    near = tf.clip_by_value(x, -0.5, 1.0)
    ratio = near / (2.0 + near)
    return ratio * horner(ratio * ratio, [2.0 / (2 * k + 1) for k in range(9)])


def expm1(x: Tensor) -> Tensor:
    """Computes exp(x) - 1, by the Taylor series where |x| < 1/2."""
    near = tf.clip_by_value(x, -0.5, 0.5)
    series = near * horner(near, [1.0 / math.factorial(k + 1) for k in range(9)])
    return tf.where(tf.abs(x) < 0.5, series, tf.exp(x) - 1.0)


def total(values: Tensor) -> Tensor:
    """Sums the last axis from its first entry to its last one, in this order in every runtime."""
    return tf.cumsum(values, axis=-1)[..., -1]
