"""Rows of a file in another order or with other numbers, read and computed when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_vae.data.lazy_rows import LazyRows
from keras_vae.data.mapped import chunks, read

__all__ = ["ComputedRows", "DrawnRows", "KeptRows", "SelectedRows"]


class _View(LazyRows):
    """Rows that are read from an array."""

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            found = range(len(self))[rows]
            return SelectedRows(self, np.arange(found.start, found.stop, found.step))
        places = np.asarray(rows)
        if not places.ndim:
            return self.read(np.array([range(len(self))[rows]]))[0]
        return SelectedRows(self, np.arange(len(self))[places])

    def min(self) -> Any:
        """Returns the smallest entry."""
        return np.min([chunk.min() for _, chunk in chunks(self)])

    def max(self) -> Any:
        """Returns the largest entry."""
        return np.max([chunk.max() for _, chunk in chunks(self)])


class SelectedRows(_View):
    """Some rows of an array, in any order.

    Args:
        array: [N, ...], mapped or lazy.
        rows: int [n], from 0 to N - 1.
    """

    def __init__(self, array: Any, rows: np.ndarray) -> None:
        self._array = array
        self._rows = rows
        self.shape = (len(rows), *array.shape[1:])
        self.dtype = array.dtype.newbyteorder("=")

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads rows of the selection."""
        return read(self._array, self._rows[rows])


class ComputedRows(_View):
    """A function of the rows of an array.

    Args:
        array: [N, ...], mapped or lazy.
        function: function from rows [n, ...] to rows [n, *shape], each of which depends only on
            the same row.
        shape: shape of one computed row.
        dtype: dtype of the computed rows.
    """

    def __init__(
        self,
        array: Any,
        function: Callable[[np.ndarray], np.ndarray],
        shape: Sequence[int],
        dtype: Any,
    ) -> None:
        self._array = array
        self._function = function
        self.shape = (len(array), *shape)
        self.dtype = np.dtype(dtype)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads rows of the array, and computes."""
        return self._function(read(self._array, rows))


class KeptRows(_View):
    """An array whose last rows that were read are kept, for several views of the same rows.

    Args:
        array: [N, ...], mapped or lazy.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self._kept: tuple[np.ndarray, np.ndarray] | None = None
        self.shape = array.shape
        self.dtype = array.dtype.newbyteorder("=")

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads rows of the array, unless they are those of the last call."""
        kept = self._kept
        if kept is None or not np.array_equal(kept[0], rows):
            kept = self._kept = rows.copy(), read(self._array, rows)
        return kept[1]


class DrawnRows(_View):
    """Rows that are drawn in batches of consecutive ones, whose noise is that of the batch.

    The last batch that was drawn is kept, so reading in order draws each batch once.

    Args:
        draw: function from the number of a batch to its rows, [at most batch_size, ...].
        batch_size: number of rows in every batch but the last.
        shape: shape of all rows.
    """

    def __init__(
        self, draw: Callable[[int], np.ndarray], batch_size: int, shape: tuple[int, ...]
    ) -> None:
        self._draw = draw
        self._batch_size = batch_size
        self._kept: tuple[int, np.ndarray] | None = None
        self.shape = shape
        self.dtype = np.dtype(np.float32)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Draws the batches of the rows."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        batches = rows // self._batch_size
        for number in np.unique(batches):
            kept = self._kept
            if kept is None or kept[0] != number:
                kept = self._kept = int(number), self._draw(int(number))
            where = batches == number
            found[where] = kept[1][rows[where] - number * self._batch_size]
        return found
