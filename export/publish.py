"""Publishing: an artifact is written and verified beside the target, then renamed into place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from export.errors import ExportError
from keras_vae.integrity import is_name

__all__ = [
    "check_name",
    "publish",
    "refuse_existing",
    "refuse_inside_a_version",
    "staging",
    "versions",
]

_PREFIX = ".export-"


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Makes a directory beside the versions of `target`, removed after the block unless published.

    Directories of killed exporters are removed; that of a running exporter is kept.

    Raises:
        ExportError: if the target cannot be written.
    """
    is_new = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            _remove_abandoned(target)
            directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target))
            handle = os.open(directory, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror}.") from error
    try:
        yield directory
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ExportError(
            f"{target} has no room for the artifact ({error.strerror}); nothing was published."
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(handle)
        if is_new:
            with contextlib.suppress(OSError):
                target.rmdir()


def publish(directory: Path, target: Path, version: int | None) -> Path:
    """Renames a finished directory to its version; None takes the next free number.

    Raises:
        ExportError: if that version exists.
    """
    _sync(directory)
    directory.chmod(0o755)
    with _locked(target):
        number = version if version is not None else max(versions(target), default=0) + 1
        final = target / str(number)
        refuse_existing(final)
        directory.rename(final)
        _sync_directory(target)
    return final


def check_name(target: Path) -> None:
    """Refuses a name that no server could serve, because it is a part of the model's address.

    Raises:
        ExportError: if the name is refused.
    """
    if not is_name(target.name):
        raise ExportError(
            "Expected a directory for the artifact with a name of at most 63 letters, digits, '.', "
            f"'_' and '-' that begins with a letter or digit; got {target.name!a}."
        )


def refuse_inside_a_version(target: Path) -> None:
    """Refuses a target that is a published version or lies inside one.

    Raises:
        ExportError: naming the directory that holds the version.
    """
    for place in dict.fromkeys((target, *target.parents, *target.absolute().parents)):
        holds_model = any((place / name).is_file() for name in ("manifest.json", "saved_model.pb"))
        if holds_model and place.name and (place == target or place.name.isdecimal()):
            raise ExportError(
                f"Expected the directory that holds an artifact's versions; got {target}, but "
                f"{place} is a published version, which is never changed: to publish the next "
                f"version, give --out {place.parent}."
            )


def refuse_existing(final: Path) -> None:
    """Refuses a version that exists.

    Raises:
        ExportError: if it exists.
    """
    if os.path.lexists(final):
        raise ExportError(
            f"{final} exists, and a published version is never overwritten. Leave out --version to "
            "take the next one."
        )


def versions(target: Path) -> list[int]:
    """Lists the published versions, ascending."""
    if not target.is_dir():
        return []
    return sorted(int(entry.name) for entry in target.iterdir() if entry.name.isdecimal())


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_abandoned(target: Path) -> None:
    for entry in target.glob(f"{_PREFIX}*"):
        try:
            handle = os.open(entry, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(entry, ignore_errors=True)
        finally:
            os.close(handle)


def _sync(directory: Path) -> None:
    for root, _, files in os.walk(directory):
        for name in files:
            handle = os.open(Path(root) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        _sync_directory(Path(root))


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
