"""The manifest of an artifact: read, compared with the directory, and written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_vae.integrity.entries import SCHEMA_VERSION, check_entries, parse
from keras_vae.integrity.files import (
    MANIFEST,
    REMEDY,
    ArtifactError,
    compare,
    files_below,
    hash_of,
    hashes,
    opened,
)
from keras_vae.integrity.names import one_line

__all__ = ["WEIGHTS", "Manifest", "check", "read", "seal"]

WEIGHTS = "onnx/weights.bin"
"""The file from which ONNX files of 2 GB and more read their weights; others hold their own."""

_HEAD = re.compile(rb'\{\n  "digest": "([0-9a-f]{64})",\n')
_ZEROS = b"0" * 64
_MOST_BYTES = 2**24  # maximum size of a manifest


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.

    Attributes:
        entries: the parsed content.
        sha256: digest of `manifest.json`, which identifies the artifact.
    """

    entries: dict[str, Any]
    sha256: str

    @property
    def is_covered(self) -> bool:
        """Whether it states a digest of itself."""
        return "digest" in self.entries


def read(directory: Path) -> Manifest:
    """Reads the manifest of an artifact, and no other file.

    Raises:
        ArtifactError: if it is missing, damaged, or was changed after publishing.
    """
    with opened(directory, MANIFEST) as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ArtifactError(f"{directory / MANIFEST} is larger than {_MOST_BYTES} bytes.")
    head = _HEAD.match(text)
    if head and _digest(text, head) != head[1].decode():
        raise ArtifactError(f"{directory}: {MANIFEST} was changed after publishing. {REMEDY}")
    try:
        entries = parse(text)
        check_entries(entries, has_digest=head is not None)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{directory / MANIFEST} is damaged: {one_line(error)}") from error
    return Manifest(entries, hashlib.sha256(text).hexdigest())


def check(directory: Path) -> Manifest:
    """Reads the manifest and compares every entry of the directory with it.

    Raises:
        ArtifactError: naming the first entry that is missing, changed, or not in the manifest.
    """
    manifest = read(directory)
    known = manifest.entries["files"]
    present = set(files_below(directory, may_be_empty=not manifest.is_covered)) - {MANIFEST}
    for name in sorted(known.keys() | present):
        if name not in present:
            raise ArtifactError(f"{directory}: {name} is missing after publishing. {REMEDY}")
        if name not in known:
            raise ArtifactError(f"{directory}: {name!a} was added after publishing. {REMEDY}")
        compare(directory, known, name, hash_of(directory, name))
    return manifest


def seal(directory: Path, entries: dict[str, Any]) -> Manifest:
    """Writes the manifest of a finished directory; its empty directories are removed.

    Args:
        directory: directory with all other files.
        entries: entries of the manifest, without `digest`, `schema_version` and `files`.

    Raises:
        ArtifactError: if `read` or `check` would refuse the result.
    """
    for root, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(root)
    about = {"digest": _ZEROS.decode(), "schema_version": SCHEMA_VERSION, **entries}
    about["files"] = hashes(directory)
    text = (json.dumps(about, indent=2, allow_nan=False) + "\n").encode()
    digest = hashlib.sha256(text).hexdigest().encode()
    (directory / MANIFEST).write_bytes(text.replace(_ZEROS, digest, 1))
    return read(directory)


def _digest(text: bytes, head: re.Match[bytes]) -> str:
    return hashlib.sha256(text[: head.start(1)] + _ZEROS + text[head.end(1) :]).hexdigest()
