"""Sparse matrices as arrays of which only the rows that are read become dense."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_vae.data.lazy_rows import LazyRows

__all__ = ["SparseRows", "is_scipy_sparse"]


def is_scipy_sparse(value: Any) -> bool:
    """Tells whether a value is a matrix or array of scipy.sparse."""
    return hasattr(value, "toarray") and type(value).__module__.startswith("scipy.sparse")


class SparseRows(LazyRows):
    """A matrix of scipy.sparse with the shape and dtype of an array, read row by row.

    Rows and slices of it are such matrices.

    Args:
        matrix: matrix or array of scipy.sparse, of any format.

    Attributes:
        matrix: the same in rows (CSR).
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix.tocsr()
        self.shape: tuple[int, int] = self.matrix.shape
        self.dtype: np.dtype = self.matrix.dtype

    def __getitem__(self, rows: Any) -> SparseRows:
        return SparseRows(self.matrix[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.matrix.toarray().astype(dtype or self.dtype, copy=False)

    def min(self) -> Any:
        """Returns the smallest entry."""
        return self.matrix.min()

    def max(self) -> Any:
        """Returns the largest entry."""
        return self.matrix.max()

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows as a dense array, [len(rows), F]."""
        return self.matrix[rows].toarray()
