"""Lock of a run directory: one process at a time trains into it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_vae.runs.config import RunError
from keras_vae.training.backup import leftovers

__all__ = ["held"]


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Locks a run directory, so that only one process at a time trains into it.

    It is created if it does not exist, and removed again if nothing was written into it.
    """
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; choose another --out.")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    handle = _lock(path)
    try:
        for leftover in leftovers(path):
            leftover.unlink()
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        os.close(handle)


def _lock(path: Path) -> int:
    """Returns a descriptor of the directory, locked."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
            except BlockingIOError as error:
                os.close(handle)
                raise RunError(f"Another process is training into {path}; wait for it.") from error
            os.close(handle)  # another process removed it, empty, before it was locked
