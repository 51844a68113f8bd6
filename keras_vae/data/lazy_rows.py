"""Base of arrays whose rows are read or computed when they are asked for."""

from __future__ import annotations

import abc
import math
from typing import Any

import numpy as np

__all__ = ["LazyRows"]


class LazyRows(abc.ABC):
    """An array [N, ...] of which only the rows that are read are in memory.

    NumPy and TensorFlow read it as the whole array. Slices and indices of rows give such arrays.

    Attributes:
        shape: shape of the array.
        dtype: dtype of the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @abc.abstractmethod
    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows as an array, [len(rows), ...]."""

    @abc.abstractmethod
    def __getitem__(self, rows: Any) -> Any:
        """Returns a slice of rows, or those of an array of indices, unread; or a single row."""

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.read(np.arange(len(self))).astype(dtype or self.dtype, copy=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return self.size * self.itemsize

    @property
    def itemsize(self) -> int:
        """Bytes of an entry."""
        return self.dtype.itemsize
