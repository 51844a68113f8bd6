"""Resolution of float32, in which models and artifacts compute, in a column of numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_vae.data.mapped import chunks

__all__ = ["Resolution", "moments", "resolution", "unresolved_message"]

_CONSTANT = 1e-6
_NEGLIGIBLE = 1e-3
_RESOLUTION = 1 / 64


class Resolution(NamedTuple):
    """Errors of the columns of a table in float32.

    Attributes:
        error: largest error of each column in float32.
        negligible: whether the column varies so little that it may count as constant.
        unresolved: whether the error is more than 1/64 of the spread.
    """

    error: np.ndarray
    negligible: np.ndarray
    unresolved: np.ndarray


def resolution(low: np.ndarray, high: np.ndarray, spread: np.ndarray) -> Resolution:
    """Returns how well float32 holds columns with this range and standard deviation."""
    size = np.maximum(np.abs(low), np.abs(high))
    with np.errstate(over="ignore", invalid="ignore"):
        error = 0.5 * np.spacing(size.astype(np.float32)).astype(np.float64)
    negligible = high - low <= np.minimum(_CONSTANT * size, _NEGLIGIBLE)
    return Resolution(error, negligible, error > _RESOLUTION * spread)


def moments(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each feature in float64, in two passes."""
    features = raw.shape[-1]
    count = raw.size // features
    origin = np.asarray(raw[0], np.float64).reshape(-1, features)[0]
    total, square = np.zeros(features), np.zeros(features)
    for _, part in chunks(raw):
        total += (part.reshape(-1, features) - origin).sum(axis=0)
    mean = origin + total / count
    for _, part in chunks(raw):
        square += ((part.reshape(-1, features) - mean) ** 2).sum(axis=0)
    return mean, np.sqrt(square / count)


def unresolved_message(what: str, mean: float, deviation: float, error: float) -> str:
    """Returns the message that refuses a column that float32 cannot resolve."""
    return (
        f"{what} has a mean of {mean:g} and a standard deviation of {deviation:g}: float32, in "
        f"which models and artifacts compute, resolves its values only to {2 * error:g}. Subtract "
        "a constant from it, such as its smallest value, or leave it out."
    )
