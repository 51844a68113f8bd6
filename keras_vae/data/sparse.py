"""Readers of sparse matrices: .npz of scipy.sparse and Matrix Market, as dense arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_vae.data.cache import Rows
from keras_vae.data.content import Content, DataError, reading

__all__ = ["dense", "dense_rows", "is_sparse", "read_sparse"]

_LARGEST = 2**31
"""Maximum size in bytes of a matrix that is made dense in memory."""

_ROWS_AT_ONCE = 2**12


def is_sparse(path: Path) -> bool:
    """Tells whether a file is a Matrix Market file or was written by `scipy.sparse.save_npz`."""
    if path.name.lower().endswith((".mtx", ".mtx.gz")):
        return True
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"format.npy", "shape.npy", "data.npy"} <= set(archive.namelist())


def read_sparse(path: Path) -> Any:
    """Reads the matrix of such a file, with rows as examples."""
    from scipy import io, sparse

    if path.suffix.lower() == ".npz":
        with reading(path, "a sparse matrix"):
            return sparse.load_npz(path).tocsr()
    with reading(path, "a Matrix Market file"):
        return sparse.csr_array(io.mmread(path))


def dense(path: Path, matrix: Any) -> Content:
    """Converts the matrix to a dense array.

    Raises:
        DataError: if the array takes more than 2 GiB.
    """
    size = int(np.prod(matrix.shape, dtype=np.int64)) * matrix.dtype.itemsize
    if size > _LARGEST:
        raise DataError(
            f"{path} is a sparse matrix of shape {list(matrix.shape)}, which takes "
            f"{size / 2**30:.1f} GiB as a dense array. Give a directory for it with cache=, or "
            "fewer columns."
        )
    return Content(matrix.toarray())


def dense_rows(matrix: Any) -> Rows:
    """Converts the matrix to dense arrays, one chunk of rows after the other."""

    def chunks() -> Iterator[tuple[np.ndarray, None]]:
        for start in range(0, matrix.shape[0], _ROWS_AT_ONCE):
            yield matrix[start : start + _ROWS_AT_ONCE].toarray(), None

    return Rows(tuple(matrix.shape), matrix.dtype, chunks())
