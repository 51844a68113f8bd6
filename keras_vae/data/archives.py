"""Reader of .npz archives: a large array is mapped, or written into the cache row by row."""

from __future__ import annotations

import functools
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from keras_vae.data.cache import Rows, cached
from keras_vae.data.columns import Labels
from keras_vae.data.content import LABEL_NAMES, Content, DataError, only_label, reading

__all__ = ["compressed_bytes", "npz"]

ARRAY_NAMES = ("x", "X", "data", "images", "arr_0")

_LARGE = 2**28
"""Bytes of an array from which on it is not read into memory."""

_CHUNK = 2**24
_LOCAL_HEADER = 30


class _Member(NamedTuple):
    """Array of numbers in an archive, in the order of its rows, and where it lies.

    Attributes:
        info: its entry in the archive.
        shape, dtype: as its header states.
        header: bytes of the header.
    """

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    header: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def npz(
    path: Path,
    key: str | None,
    labels: Labels,
    cache: str | os.PathLike[str] | None = None,
) -> Content:
    """Reads the array `key` of a .npz archive, or the one whose name marks it as the data.

    An array of more than 256 MiB that is stored without compression is mapped, after one pass that
    checks it. A compressed one is written into the cache, if one is given, as it is decompressed.

    Raises:
        DataError: if the archive is damaged or holds no such array.
    """
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path} cannot be read as a .npz archive: it is truncated or of another kind. "
            "Write or download it again."
        )
    with reading(path, "a .npz archive"), np.load(path, allow_pickle=False) as archive:
        key = _key(path, archive.files, key)
        label_key = _label_key(path, archive.files, key) if labels else None
        member = _large_member(path, key)
        if member is not None and member.info.compress_type != zipfile.ZIP_STORED:
            if cache is None:
                member = None
            else:
                rows = functools.partial(_rows, path, member, label_key)
                return cached(cache, path, [path], rows, f"{key} {label_key}")
        x = archive[key] if member is None else _mapped(path, member)
        if label_key is None:
            return Content(x)
        return Content(x, archive[label_key], left_out={label_key: "labels"})


def compressed_bytes(path: Path, key: str | None = None) -> int:
    """Returns the bytes of the array of an archive if it is large and compressed, otherwise 0."""
    if not zipfile.is_zipfile(path):
        return 0
    with reading(path, "a .npz archive"), np.load(path, allow_pickle=False) as archive:
        member = _large_member(path, _key(path, archive.files, key))
    if member is None or member.info.compress_type == zipfile.ZIP_STORED:
        return 0
    return member.nbytes


def _key(path: Path, keys: Sequence[str], chosen: str | None) -> str:
    held = ", ".join(keys) or "nothing"
    if chosen is not None:
        if chosen in keys:
            return chosen
        raise DataError(f"{path} has no array {chosen!r}; it holds: {held}. Choose one of these.")
    named = [key for key in keys if key in ARRAY_NAMES]
    others = [key for key in keys if key.lower() not in LABEL_NAMES]
    for candidates in (named, others, keys):
        if len(candidates) == 1:
            return candidates[0]
    raise DataError(
        f"{path} does not tell which of its arrays is the data; it holds: {held}. "
        f'Choose one by writing "{path}:key".'
    )


def _label_key(path: Path, keys: Sequence[str], key: str) -> str | None:
    """Finds the key of the labels: `y_train` for `x_train`, otherwise one with a label's name."""
    twin = "y" + key[1:]
    if key[0] in "xX" and twin in keys:
        return twin
    return only_label(path, [k for k in keys if k != key])


def _large_member(path: Path, key: str) -> _Member | None:
    """Finds a large array that can be read by rows; None if NumPy has to read it as a whole."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        info = archive.getinfo(key if key in names else f"{key}.npy")
        if info.file_size <= _LARGE:
            return None
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                return None
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, is_fortran, dtype = read(file)
            member = _Member(info, shape, dtype, file.tell())
    if is_fortran or dtype.kind not in "biuf" or not shape or not member.nbytes:
        return None
    if info.file_size != member.header + member.nbytes:
        raise DataError(
            f"{path} is damaged: its array {key!r} has {info.file_size - member.header} bytes, "
            f"but its header states {member.nbytes}. Write or download it again."
        )
    return member


def _mapped(path: Path, member: _Member) -> np.ndarray:
    """Maps a stored array from its place in the archive, after its checksum was compared."""
    info = member.info
    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(_LOCAL_HEADER)
        name, extra = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
        begin = info.header_offset + _LOCAL_HEADER + name + extra
        file.seek(begin)
        _check(path, file, info)
    return np.memmap(path, member.dtype, "r", begin + member.header, member.shape)


def _check(path: Path, file: IO[bytes], info: zipfile.ZipInfo) -> None:
    """Compares a stored member with its checksum."""
    found, left = 0, info.file_size
    while left and (chunk := file.read(min(_CHUNK, left))):
        found, left = zlib.crc32(chunk, found), left - len(chunk)
    if left or found != info.CRC:
        raise DataError(
            f"{path} is damaged: {info.filename} does not have the checksum that the archive "
            "states. Write or download it again."
        )


def _rows(path: Path, member: _Member, label_key: str | None) -> Rows:
    """Decompresses an array in chunks of its rows, with all labels beside the first."""
    row = member.nbytes // member.shape[0]
    most = max(1, _CHUNK // row)

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with reading(path, "a .npz archive"), zipfile.ZipFile(path) as archive:
            labels = None
            if label_key is not None:
                with np.load(path, allow_pickle=False) as arrays:
                    labels = arrays[label_key]
            file = archive.open(member.info)
            file.read(member.header)
            for start in range(0, member.shape[0], most):
                count = min(most, member.shape[0] - start)
                values = np.frombuffer(file.read(count * row), member.dtype)
                yield values.reshape(count, *member.shape[1:]), labels
                labels = None
            file.read(1)  # at the end the checksum is compared

    left_out = {} if label_key is None else {label_key: "labels"}
    return Rows(member.shape, member.dtype, chunks(), left_out=left_out)
