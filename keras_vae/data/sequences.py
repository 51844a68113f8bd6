"""Sequences: windows of long series, and sequences of different lengths as one array."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_vae.data.content import DataError
from keras_vae.spelling import counted

__all__ = ["lengths", "padded", "windows"]


def windows(series: Any, length: int, stride: int = 1) -> np.ndarray:
    """Returns windows of a long series, [N, length, D], a view of it.

    Args:
        series: numbers [T] or [T, D].
        length: number of steps of a window.
        stride: number of steps between the starts of two windows; `length` makes them disjoint.

    Raises:
        DataError: if the series has another shape, fewer steps than a window, or no numbers.
        ValueError: if `length` or `stride` is no integer of at least 1.

    Example:
        >>> windows([1.0, 2.0, 3.0, 4.0], 2, stride=2)[..., 0].tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    if not all(isinstance(size, int | np.integer) and size >= 1 for size in (length, stride)):
        raise ValueError(
            "Expected integers of at least 1 as length and stride; got "
            f"length={length!r}, stride={stride!r}."
        )
    array = _numbers(series)
    if array.ndim == 1:
        array = array[:, np.newaxis]
    if array.ndim != 2 or len(array) < length:
        raise DataError(
            f"Expected a series [T] or [T, D] of at least {counted(length, 'step')}; got an array "
            f"of shape {np.asarray(series).shape}. Give shorter windows, or one series at a time."
        )
    view = np.lib.stride_tricks.sliding_window_view(array, length, axis=0)
    return np.swapaxes(view[::stride], 1, 2)


def padded(sequences: Sequence[Any], length: int | None = None) -> np.ndarray:
    """Returns sequences of different lengths as one array, [N, length, D], with NaN at their ends.

    Args:
        sequences: arrays [T_i] or [T_i, D].
        length: number of steps of the result; None is the longest sequence.

    Raises:
        DataError: if there is no sequence, their entries differ in shape, one is longer, or one
            holds no numbers.

    Example:
        >>> padded([[1.0, 2.0], [3.0]])[..., 0].tolist()
        [[1.0, 2.0], [3.0, nan]]
    """
    if not isinstance(sequences, Iterable):
        raise DataError(f"Expected a list of sequences; got {sequences!r}. Write [sequence, ...].")
    arrays = [_numbers(each) for each in sequences]
    arrays = [each[:, np.newaxis] if each.ndim == 1 else each for each in arrays]
    shapes = {each.shape[1:] for each in arrays}
    if len(shapes) != 1 or arrays[0].ndim < 2:
        raise DataError(
            "Expected sequences [T_i, D] with the same entries at each step; got entries of shape "
            f"{', '.join(map(str, sorted(shapes))) or 'none'}. Give all of them the same D."
        )
    longest = max(len(each) for each in arrays)
    steps = longest if length is None else length
    if longest > steps:
        raise DataError(
            f"Expected sequences of at most length={counted(steps, 'step')}; got one of "
            f"{longest}. Cut it, or raise length."
        )
    dtype = np.result_type(np.float32, *arrays)
    result = np.full((len(arrays), steps, *shapes.pop()), np.nan, dtype)
    for row, each in zip(result, arrays, strict=True):
        row[: len(each)] = each
    return result


def lengths(x: Any) -> np.ndarray:
    """Returns the length of each sequence of [N, T, ...]: its last step that is present, plus one.

    Nats per step are `vae.elbo(x).elbo / lengths(x)`.

    Raises:
        DataError: if x is of another shape or holds no numbers.

    Example:
        >>> lengths(padded([[1.0, 2.0], [3.0]])).tolist()
        [2, 1]
    """
    array = _numbers(x)
    if array.ndim < 2:
        raise DataError(
            f"Expected sequences [N, T, ...]; got an array of shape {array.shape}. Give one "
            "sequence as [sequence]."
        )
    present = ~np.isnan(array.reshape(*array.shape[:2], -1)).all(axis=-1)
    steps = np.arange(1, array.shape[1] + 1)
    return np.where(present, steps, 0).max(axis=1)


def _numbers(values: Any) -> np.ndarray:
    """Returns an array of numbers; refuses anything else."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"Expected numbers; got values of dtype {array.dtype}. Convert them to floats first, "
            "with NaN for what is absent."
        )
    return array
