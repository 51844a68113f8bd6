"""Sparse matrices as arrays of which only the rows that are read become dense."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["SparseRows", "is_scipy_sparse"]


def is_scipy_sparse(value: Any) -> bool:
    """Tells whether a value is a matrix or array of scipy.sparse."""
    return hasattr(value, "toarray") and type(value).__module__.startswith("scipy.sparse")


class SparseRows:
    """A matrix of scipy.sparse with the shape and dtype of an array, read row by row.

    Rows and slices of it are such matrices. NumPy and TensorFlow read it as the dense array.

    Args:
        matrix: matrix or array of scipy.sparse, of any format.

    Attributes:
        matrix: the same in rows (CSR).
    """

    ndim = 2

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix.tocsr()
        self.shape: tuple[int, int] = self.matrix.shape
        self.dtype: np.dtype = self.matrix.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> SparseRows:
        return SparseRows(self.matrix[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.matrix.toarray().astype(dtype or self.dtype, copy=False)

    @property
    def size(self) -> int:
        """Number of entries, zeros included."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the dense array."""
        return self.size * self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        """Bytes of an entry."""
        return self.dtype.itemsize

    def min(self) -> Any:
        """Returns the smallest entry."""
        return self.matrix.min()

    def max(self) -> Any:
        """Returns the largest entry."""
        return self.matrix.max()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows as a dense array, [len(rows), F]."""
        return self.matrix[rows].toarray()
