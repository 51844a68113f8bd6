"""Rows with absent entries, taken together where the same entries are observed."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from keras_vae.data.content import DataError, listed

__all__ = ["Alike", "alike", "column_means"]


class Alike(NamedTuple):
    """Some rows of a table, and the sets of entries that are observed in them.

    Attributes:
        rows: indices of the rows, [n].
        observed: the sets, bool [P, D], each once.
        which: index of the set of each row, [n].
    """

    rows: np.ndarray
    observed: np.ndarray
    which: np.ndarray


def alike(observed: np.ndarray, most: int) -> Iterator[Alike]:
    """Yields all rows, at most `most` at once, with equal sets of observed entries together.

    Args:
        observed: whether each entry is observed, bool [N, D].
        most: largest number of rows that are yielded together.
    """
    packed = np.ascontiguousarray(np.packbits(observed, axis=1))
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(index, kind="stable")
    for start in range(0, len(order), most):
        rows = order[start : start + most]
        low, high = index[rows[0]], index[rows[-1]]
        yield Alike(rows, observed[first[low : high + 1]], index[rows] - low)


def column_means(x: np.ndarray) -> np.ndarray:
    """Computes the mean of the observed entries of each column of x [N, D]; absent is NaN.

    Raises:
        DataError: if a column has no observed entry.
    """
    observed = ~np.isnan(x)
    counts = observed.sum(axis=0)
    if not counts.all():
        empty = [str(column) for column in np.flatnonzero(counts == 0)]
        raise DataError(
            f"Expected at least one observed entry in every column of x; columns {listed(empty)} "
            "have none. Leave them out."
        )
    return np.where(observed, x, 0.0).sum(axis=0) / counts
