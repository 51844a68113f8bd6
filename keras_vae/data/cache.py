"""Cache: writes a table or a directory of images once as rows of a file, in bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from keras_vae.data.arrays import npy
from keras_vae.data.content import Content, DataError, reading, reason

__all__ = ["Rows", "cached"]

_FORM = 2
_DAY = 86_400


class Rows(NamedTuple):
    """Rows of a source, read in chunks.

    Attributes:
        shape: shape of all rows, [N, ...].
        dtype: dtype of all rows.
        chunks: arrays [n, ...] with their labels [n], or None if there are none.
        feature_names: names of the columns of a table.
        left_out: reasons why other columns are left out, by name.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: Iterator[tuple[np.ndarray, np.ndarray | None]]
    feature_names: tuple[str, ...] | None = None
    left_out: Mapping[str, str] = MappingProxyType({})


def cached(
    folder: str | os.PathLike[str],
    source: Path,
    files: Sequence[Path],
    rows: Callable[[], Rows],
    options: str = "",
) -> Content:
    """Maps the rows of a source from a file in the cache, which is written if it does not exist.

    An entry is a directory that is renamed into place when it is complete. It belongs to one state
    of the source (paths, sizes and times of its files) and to the options that it was read with.

    Args:
        folder: directory of the entries; created if it does not exist.
        source: path of the source, for messages and the name of the entry.
        files: files of the source.
        rows: function that reads it.
        options: options of the reader, as text.

    Raises:
        DataError: if the source cannot be used, or the entry is damaged.
    """
    entry = Path(folder) / f"{source.resolve().name}-{_fingerprint(source, files, options)}"
    if Path(folder).exists() and not Path(folder).is_dir():
        raise DataError(f"{folder} is a file; choose a directory for the cache.")
    if not entry.is_dir():
        with reading(Path(folder), "a directory of the cache"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            _remove_leftovers(Path(folder))
            temporary = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
        try:
            _write(temporary, rows())
            try:
                temporary.rename(entry)
            except OSError:
                if not entry.is_dir():  # unless another process was faster
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    try:
        return _read(entry)
    except PermissionError as error:
        raise DataError(f"{entry} cannot be opened: {reason(error)}. Ask for access.") from error
    except (EOFError, KeyError, OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{entry} of the cache is damaged. Remove it, and it will be written again."
        ) from error


def _read(entry: Path) -> Content:
    """Maps the rows of an entry; raises any exception if it is damaged."""
    about = json.loads((entry / "about.json").read_text())
    x = npy(entry / "x.npy").x
    if list(x.shape) != about["shape"]:
        raise ValueError(f"Expected rows of shape {about['shape']}; got {x.shape}.")
    labels = np.load(entry / "labels.npy") if about["labels"] else None
    names = about["feature_names"]
    return Content(x, labels, tuple(names) if names else None, about["left_out"])


def _remove_leftovers(folder: Path) -> None:
    """Removes unfinished entries of processes that were killed more than a day ago."""
    for part in folder.glob(".part-*"):
        if part.stat().st_mtime < time.time() - _DAY:
            shutil.rmtree(part, ignore_errors=True)


def _fingerprint(source: Path, files: Sequence[Path], options: str) -> str:
    digest = hashlib.sha256(f"{_FORM} {source.resolve()} {options}".encode())
    for path in files:
        status = path.stat()
        digest.update(f"\n{path} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def _write(folder: Path, rows: Rows) -> None:
    labels: list[np.ndarray] = []
    with (folder / "x.npy").open("wb") as file:
        header = {"descr": rows.dtype.str, "fortran_order": False, "shape": rows.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk, given in rows.chunks:
            file.write(np.ascontiguousarray(chunk, rows.dtype).data)
            labels += [] if given is None else [given]
        file.flush()
        os.fsync(file.fileno())
    if labels:
        np.save(folder / "labels.npy", np.concatenate(labels))
    names = None if rows.feature_names is None else list(rows.feature_names)
    about = {
        "shape": list(rows.shape),
        "labels": bool(labels),
        "feature_names": names,
        "left_out": dict(rows.left_out),
    }
    (folder / "about.json").write_text(json.dumps(about))
