"""Parameters of distributions, as a head emits them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

__all__ = ["SMALLEST_SCALE", "HeadSizeError", "Parameter", "inverse_positive", "positive"]

_SOFTPLUS_ONE = math.log(math.e - 1.0)
SMALLEST_SCALE = 1e-6


def positive(raw: tf.Tensor) -> tf.Tensor:
    """Maps a raw number to softplus(raw + log(e - 1)) + 1e-6, which is 1 + 1e-6 at raw = 0."""
    return tf.math.softplus(raw + _SOFTPLUS_ONE) + SMALLEST_SCALE


def inverse_positive(value: float | np.ndarray) -> np.ndarray:
    """Returns the raw number that `positive` maps to `value`."""
    shifted = np.asarray(value, np.float64) - SMALLEST_SCALE
    return shifted + np.log(-np.expm1(-shifted)) - _SOFTPLUS_ONE


def _identity(raw: tf.Tensor) -> tf.Tensor:
    return raw


class HeadSizeError(ValueError):
    """A head that emits another number of parameters than the distribution takes."""


class Parameter(NamedTuple):
    """One parameter of a distribution, as the head emits it.

    Attributes:
        size: how many numbers it takes on the last axis; 0 if the layer adds it itself, after the
            head, in `at_condition`.
        transform: map from the head's raw numbers [..., size] to the parameter.

    Example:
        >>> Parameter(1, tf.nn.softplus).transform(tf.zeros([1])).numpy()  # log 2
        array([0.693], dtype=float32)
    """

    size: int
    transform: Callable[[tf.Tensor], tf.Tensor] = _identity
