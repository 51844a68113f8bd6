"""Files of an artifact: regular ones below its directory, and their hashes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

__all__ = [
    "MANIFEST",
    "REMEDY",
    "ArtifactError",
    "check_file",
    "compare",
    "content",
    "files_below",
    "hash_of",
    "hashes",
    "opened",
]

MANIFEST = "manifest.json"
"""The file that describes an artifact."""

REMEDY = "Do not use it; export the model again."
"""Advice about an artifact that was changed."""


class ArtifactError(ValueError):
    """An artifact that is damaged, or was changed after publishing."""


def hashes(directory: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a directory except the manifest, by relative path."""
    names = sorted(set(files_below(directory)) - {MANIFEST})
    return {name: hash_of(directory, name) for name in names}


def content(directory: Path, files: dict[str, str], name: str) -> bytes:
    """Reads the bytes of one file of an artifact.

    Args:
        directory: directory of the artifact.
        files: hashes of its files, from the manifest.
        name: name of the file.

    Raises:
        ArtifactError: if they differ from what was published.
    """
    with opened(directory, name) as file:
        found = file.read()
    compare(directory, files, name, hashlib.sha256(found).hexdigest())
    return found


def check_file(directory: Path, files: dict[str, str], name: str) -> None:
    """Checks one file of an artifact, of any size, without loading it.

    Args:
        directory: directory of the artifact.
        files: hashes of its files, from the manifest.
        name: name of the file.

    Raises:
        ArtifactError: if it differs from what was published.
    """
    compare(directory, files, name, hash_of(directory, name))


def hash_of(directory: Path, name: str) -> str:
    """Returns the SHA-256 of a file below a directory."""
    with opened(directory, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare(directory: Path, files: dict[str, str], name: str, found: str) -> None:
    """Refuses a file whose SHA-256 is not the one in the manifest.

    Raises:
        ArtifactError: if it differs, or the manifest does not name the file.
    """
    if files.get(name) != found:
        raise ArtifactError(f"{directory}: {name} was changed after publishing. {REMEDY}")


@contextlib.contextmanager
def opened(directory: Path, name: str) -> Iterator[BufferedReader]:
    """Opens a regular file below a directory, reached through no link."""
    path = directory
    try:
        for part in name.split("/"):
            path = path / part
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise ArtifactError(f"{path} is a link, but an artifact holds none. {REMEDY}")
        if not stat.S_ISREG(mode):
            raise ArtifactError(f"{path} is not a regular file. {REMEDY}")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        if name == MANIFEST:
            raise ArtifactError(
                f"{directory} is not a version of an artifact: {MANIFEST} cannot be read "
                f"({error.strerror}); publish one with `keras-vae export MODEL --out DIR`."
            ) from error
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. {REMEDY}") from error


def files_below(directory: Path, may_be_empty: bool = False) -> Iterator[str]:
    """Yields the paths of all files below a directory; refuses entries of any other kind."""
    waiting = [directory]
    while waiting:
        place = waiting.pop()
        with os.scandir(place) as found:
            entries = list(found)
        if not entries and not may_be_empty:
            raise ArtifactError(
                f"{str(place)!a} is empty, and was added after publishing. {REMEDY}"
            )
        for entry in entries:
            if entry.is_symlink():
                raise ArtifactError(f"{entry.path!a} is a link, but an artifact holds none.")
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path).relative_to(directory).as_posix()
            else:
                raise ArtifactError(f"{entry.path!a} is neither a file nor a directory.")
