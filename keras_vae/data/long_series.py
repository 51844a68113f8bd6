"""Windows of long series: training windows before a moment in time, test windows after it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_vae.data.content import DataError
from keras_vae.data.sequences import lengths, windows
from keras_vae.spelling import counted

__all__ = ["Cuts", "Windows", "cut", "cut_to_the_end", "split_by_time"]


class Windows(NamedTuple):
    """Training and test windows of long series.

    Attributes:
        train, test: [N, window, D], NaN where nothing was observed.
        steps: number of steps of all series.
        test_steps: number of those after the moments.
        left_out: number of windows in which nothing was observed.
    """

    train: np.ndarray
    test: np.ndarray
    steps: int
    test_steps: int
    left_out: int


class Cuts(NamedTuple):
    """Windows of series and their places.

    Attributes:
        windows: [N, window, D], NaN where nothing was observed and after their ends.
        series: number of the series of each window.
        steps: number of its first step in this series.
        lengths: number of its steps.
        left_out: number of windows in which nothing was observed.
    """

    windows: np.ndarray
    series: np.ndarray
    steps: np.ndarray
    lengths: np.ndarray
    left_out: int


def split_by_time(x: np.ndarray, window: int, stride: int, *, test_fraction: float) -> Windows:
    """Cuts windows of each series before and after a moment in time.

    The last `test_fraction` of the steps of each series is for the test, so no step is in both a
    training and a test window. Test windows are disjoint, so each step counts once.

    Args:
        x: series [N, T, D], NaN where nothing was observed and after their ends.
        window: number of steps of a window.
        stride: number of steps between the starts of two training windows.
        test_fraction: share of the steps of each series for the test, between 0 and 1.

    Raises:
        DataError: if no series has a whole window on each side.

    Example:
        >>> found = split_by_time(np.arange(8.0).reshape(1, 8, 1), 2, 1, test_fraction=0.5)
        >>> found.train[..., 0].tolist(), found.test[..., 0].tolist()
        ([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]])
    """
    ends = lengths(x)
    moments = ends - np.rint(ends * test_fraction).astype(int)
    parts: list[list[np.ndarray]] = [[], []]
    for row, moment, end in zip(x, moments, ends, strict=True):
        parts[0].append(_windows(row[:moment], window, stride))
        parts[1].append(_windows(row[moment:end], window, window))
    (train, some), (test, others) = (_observed(np.concatenate(part)) for part in parts)
    steps = int(moments.sum()), int((ends - moments).sum())
    for found, which, count in (
        (train, "for training in the first", steps[0]),
        (test, "for the test in the last", steps[1]),
    ):
        if not len(found):
            raise DataError(
                f"Expected windows of {counted(window, 'step')} {which} {count} of "
                f"{counted(sum(steps), 'step')}{f' of {len(x)} series' if len(x) > 1 else ''}; "
                "got none. Choose shorter windows or another --test-fraction, or give longer "
                "series."
            )
    return Windows(train, test, sum(steps), steps[1], some + others)


def cut(x: np.ndarray, window: int, stride: int) -> np.ndarray:
    """Cuts all windows of series, [N, window, D].

    Raises:
        DataError: if no series has a whole window.
    """
    ends = lengths(x)
    every = [_windows(row[:end], window, stride) for row, end in zip(x, ends, strict=True)]
    found, _ = _observed(np.concatenate(every))
    if not len(found):
        raise DataError(
            f"Expected series of {counted(window, 'step')} or more, the length of a window; got "
            f"at most {int(ends.max())}. Give a longer one."
        )
    return found


def cut_to_the_end(x: np.ndarray, window: int) -> Cuts:
    """Cuts series into disjoint windows, so each step is in one; the last may be shorter.

    Args:
        x: series [N, T, D], NaN where nothing was observed and after their ends.
        window: number of steps of a window.

    Raises:
        DataError: if nothing was observed.

    Example:
        >>> found = cut_to_the_end(np.arange(3.0).reshape(1, 3, 1), 2)
        >>> found.windows[..., 0].tolist(), found.steps.tolist(), found.lengths.tolist()
        ([[0.0, 1.0], [2.0, nan]], [0, 2], [2, 1])
    """
    ends = lengths(x)
    counts = -(-ends // window)
    if not counts.any():
        raise DataError("Expected series with something observed; got none. Check the file.")
    every = []
    for row, end, count in zip(x, ends, counts, strict=True):
        long = np.full((count * window, x.shape[2]), np.nan, x.dtype)
        long[:end] = row[:end]
        every.append(long.reshape(count, window, x.shape[2]))
    series = np.repeat(np.arange(len(every)), counts)
    steps = np.concatenate([np.arange(count) * window for count in counts])
    found, sizes = np.concatenate(every), np.minimum(ends[series] - steps, window)
    some = _is_observed(found)
    return Cuts(found[some], series[some], steps[some], sizes[some], int((~some).sum()))


def _windows(series: np.ndarray, window: int, stride: int) -> np.ndarray:
    if len(series) < window:
        return np.empty((0, window, series.shape[1]), series.dtype)
    return windows(series, window, stride)


def _observed(found: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the windows in which something was observed, and the number of the others."""
    some = _is_observed(found)
    return found[some], int((~some).sum())


def _is_observed(found: np.ndarray) -> np.ndarray:
    return ~np.isnan(found).all(axis=(1, 2))
