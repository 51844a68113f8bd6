"""Arrays that are read by rows: lazy ones, and those in files, without the map's pages."""

from __future__ import annotations

import itertools
import mmap
import os
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_vae.data.content import DataError
from keras_vae.data.lazy_rows import LazyRows

__all__ = ["chunks", "is_mapped", "read", "reads_by_rows"]

_COPIED = 2**26
"""Most bytes of an array in memory that training copies into a tensor."""

_FEW, _SHORT = 16, 1024
"""Runs of rows, and bytes of a run, up to which each is read by a call of the system."""

_REGION = 2**24
"""Bytes of a file whose pages are held at a time while short rows are copied from it."""

_END = 64
"""Number of bytes at each end of a file by which it is recognised."""

_identities: weakref.WeakKeyDictionary[mmap.mmap, tuple[int, int]] = weakref.WeakKeyDictionary()
"""Device and inode of each mapped file, as they were when it was first read."""


class _Place(NamedTuple):
    """Location of the rows of an array in a file, in bytes, and the file's identity."""

    path: str
    offset: int
    stride: int
    size: int
    identity: tuple[int, int]


def is_mapped(array: Any) -> bool:
    """Tells whether an array is read by rows: it is lazy, or its memory is a mapped file."""
    if isinstance(array, LazyRows):
        return True
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def reads_by_rows(array: Any) -> bool:
    """Tells whether batches are read from an array, which is mapped or too large to be copied."""
    return is_mapped(array) or array.nbytes > _COPIED


def read(array: np.ndarray | LazyRows, rows: np.ndarray) -> np.ndarray:
    """Reads rows of an array in the given order, into memory and the machine's byte order.

    Args:
        array: [N, ...], mapped or not, or lazy.
        rows: int [n], from 0 to N - 1.

    Raises:
        DataError: if the file was replaced, or has become shorter.
    """
    if isinstance(array, LazyRows):
        return array.read(rows)
    if not is_mapped(array):
        found = array.take(rows, axis=0) if array.flags.c_contiguous else array[rows]
        return found.astype(array.dtype.newbyteorder("="), copy=False)
    place = _place(array) if len(rows) else None
    if place is None:
        return _through_the_map(array, rows)
    found = np.empty((len(rows), place.size), np.uint8)
    handle = os.open(place.path, os.O_RDONLY)
    try:
        status = os.fstat(handle)
        if (status.st_dev, status.st_ino) != place.identity:
            raise _replaced(place.path)
        starts = _starts(rows, place)
        if len(starts) > _FEW and found.nbytes <= _SHORT * len(starts):
            _gather(handle, status.st_size, place, rows, found)
        else:
            _read_runs(handle, place, rows, starts, found)
    finally:
        os.close(handle)
    values = found.reshape(-1).view(array.dtype).reshape(len(rows), *array.shape[1:])
    return values.astype(array.dtype.newbyteorder("="), copy=False)


def _through_the_map(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copies rows that are not contiguous in the file, or not in the file alone."""
    values = np.array(array[rows], array.dtype.newbyteorder("="))
    root = _root(array)
    if root is not None and root.mode != "c":
        root.base.madvise(mmap.MADV_DONTNEED)  # its pages no longer count as memory
    return values


def chunks(
    array: np.ndarray | LazyRows, size: int = 16 * 2**20
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields pairs of the first row and a chunk of an array, about `size` bytes each."""
    rows = max(1, size // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        stop = min(start + rows, len(array))
        if isinstance(array, LazyRows) or is_mapped(array):
            yield start, read(array, np.arange(start, stop))
        else:
            yield start, array[start:stop]


def _starts(rows: np.ndarray, place: _Place) -> np.ndarray:
    """Returns where each run of rows that lie side by side in the file begins."""
    if place.stride != place.size:
        return np.arange(len(rows))
    return np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1])


def _read_runs(
    handle: int, place: _Place, rows: np.ndarray, starts: np.ndarray, found: np.ndarray
) -> None:
    """Reads each run of rows at its place in the file."""
    for start, stop in itertools.pairwise([*starts.tolist(), len(rows)]):
        target = found[start:stop].reshape(-1).data
        at = place.offset + int(rows[start]) * place.stride
        while len(target):
            got = os.preadv(handle, [target], at)
            if not got:
                raise _shortened(place.path, int(rows[stop - 1]))
            target, at = target[got:], at + got


def _gather(
    handle: int, file_size: int, place: _Place, rows: np.ndarray, found: np.ndarray
) -> None:
    """Copies short rows out of a map of the file, in the order in which they lie there.

    A call of the system for each would take twenty times as long. The pages of a region are given
    back before the next one is read.
    """
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    last = int(ordered[-1])
    end = place.offset + last * place.stride + place.size
    if file_size < end:
        raise _shortened(place.path, last)
    regions = (place.offset + ordered * place.stride) // _REGION
    edges = [0, *(np.flatnonzero(np.diff(regions)) + 1).tolist(), len(rows)]
    with mmap.mmap(handle, end, access=mmap.ACCESS_READ) as pages:
        pages.madvise(mmap.MADV_RANDOM)
        shape, strides = (last + 1, place.size), (place.stride, 1)
        table = np.ndarray(shape, np.uint8, pages, place.offset, strides)
        for start, stop in itertools.pairwise(edges):
            found[order[start:stop]] = table[ordered[start:stop]]
            begin = int(regions[start]) * _REGION
            length = min(_REGION + place.size, end - begin)
            pages.madvise(mmap.MADV_DONTNEED, begin, length)
        del table


def _shortened(path: str, row: int) -> DataError:
    return DataError(
        f"{path} ends before row {row}: it was changed while it was read. Write it again, and "
        "restart the training."
    )


def _place(array: np.ndarray) -> _Place | None:
    """Finds the location of the rows, if each is contiguous in a file and nowhere else."""
    root = _root(array)
    if root is None or root.mode == "c" or root.filename is None:
        return None
    if not array[0].flags.c_contiguous or array.strides[0] < 0:
        return None
    path, address = os.fspath(root.filename), root.ctypes.data
    offset = root.offset + array.ctypes.data - address
    if root.base not in _identities:
        _identities[root.base] = _identity(root)
    return _Place(path, offset, array.strides[0], array[0].nbytes, _identities[root.base])


def _root(array: np.ndarray) -> Any:
    """Finds the mapped array that this one is a view of; None if there is none."""
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    mapped = isinstance(root, np.memmap) and isinstance(root.base, mmap.mmap)
    return root if mapped else None


def _identity(root: Any) -> tuple[int, int]:
    """Identifies a mapped file by device and inode, as far as its ends tell.

    Raises:
        DataError: if another file has taken its place.
    """
    path, ends = os.fspath(root.filename), (slice(0, _END), slice(-_END, None))
    held = root.reshape(-1, order="A").view(np.uint8)
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        there = np.empty(0, np.uint8)
        if status.st_size >= root.offset + root.nbytes:
            there = np.memmap(file, np.uint8, "r", root.offset, (root.nbytes,))
        if not all(np.array_equal(held[end], there[end]) for end in ends):
            raise _replaced(path)
    return status.st_dev, status.st_ino


def _replaced(path: str) -> DataError:
    return DataError(f"{path} was replaced or changed since it was opened: load it again.")
