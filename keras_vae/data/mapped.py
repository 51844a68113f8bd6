"""Arrays in files: rows are read at their places, not through the map, whose pages are memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_vae.data.content import DataError

__all__ = ["is_mapped", "read", "slices"]


class _Place(NamedTuple):
    """Where the rows of an array lie in a file, all in bytes."""

    path: str
    offset: int
    stride: int
    size: int


def is_mapped(array: Any) -> bool:
    """Whether the memory of an array, or of what it is a view of, is a mapped file."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def read(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of an array in the order asked for, in memory and in the machine's byte order.

    Args:
        array: [N, ...], mapped or not.
        rows: int [n], from 0 to N - 1.

    Raises:
        DataError: if the file has become shorter.
    """
    place = _place(array) if len(rows) else None
    if place is None:
        return np.array(array[rows], array.dtype.newbyteorder("="))
    found = np.empty((len(rows), place.size), np.uint8)
    handle = os.open(place.path, os.O_RDONLY)
    try:
        for wanted, first, count in _runs(rows, place):
            target = found[wanted : wanted + count].data
            got = os.preadv(handle, [target], place.offset + first)
            if got != count * place.size:
                raise DataError(
                    f"{place.path} ends before row {int(rows[wanted]) + count - 1}: it was changed "
                    "while it was read. Write it again, and train from its beginning."
                )
    finally:
        os.close(handle)
    values = found.reshape(-1).view(array.dtype).reshape(len(rows), *array.shape[1:])
    return values.astype(array.dtype.newbyteorder("="), copy=False)


def slices(array: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs of the first row and a part of an array, each of about `size` bytes in memory."""
    rows = max(1, size // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        stop = min(start + rows, len(array))
        whole = not is_mapped(array)
        yield start, array[start:stop] if whole else read(array, np.arange(start, stop))


def _runs(rows: np.ndarray, place: _Place) -> Iterator[tuple[int, int, int]]:
    """Reads that make up the rows: place in the result, place in the file, number of rows."""
    if place.stride != place.size:
        breaks = np.arange(1, len(rows))
    else:
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for start, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        yield int(start), int(rows[start]) * place.stride, int(stop - start)


def _place(array: np.ndarray) -> _Place | None:
    """Where the rows are, if each is one piece of a file."""
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or not isinstance(root.base, mmap.mmap):
        return None
    if root.filename is None or not array[0].flags.c_contiguous or array.strides[0] < 0:
        return None
    offset = root.offset + array.ctypes.data - root.ctypes.data
    return _Place(os.fspath(root.filename), offset, array.strides[0], array[0].nbytes)
