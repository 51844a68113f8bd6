"""Integrity: checks that a directory is what was published, entry by entry and byte by byte.

`manifest.json` names every other file of an artifact with its SHA-256. Since schema 2 it also
covers itself: its first member is `digest`, the SHA-256 of the file with 64 zeros in place of the
digest. The directory holds only those files: no links, no hidden or empty directories.

Anyone who can write the directory can seal it again. Only the SHA-256 of `manifest.json`, compared
with the one that its publisher stated elsewhere, tells a consistent forgery from the original.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

__all__ = [
    "MANIFEST",
    "SCHEMA_VERSION",
    "WEIGHTS",
    "ArtifactError",
    "Manifest",
    "Observation",
    "as_word",
    "check",
    "check_file",
    "content",
    "hashes",
    "is_name",
    "is_standard",
    "observation_of",
    "observations",
    "one_line",
    "read",
    "schema",
    "seal",
]

MANIFEST = "manifest.json"
"""The file that describes an artifact."""

WEIGHTS = "onnx/weights.bin"
"""The file from which ONNX files of 2 GB and more read their weights; others hold their own."""

SCHEMA_VERSION = 2
"""Schema version of the manifests that `seal` writes; `read` accepts version 1 too."""

_KNOWN = (1, SCHEMA_VERSION)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # one component of a path
_HEAD = re.compile(rb'\{\n  "digest": "([0-9a-f]{64})",\n')
_ZEROS = b"0" * 64
_WHOLE_BEFORE = ("Bernoulli", "Binomial", "Categorical", "DiscretizedLogistic", "Poisson")
"""Families of whole numbers, for manifests written before they stated this."""

_MOST_BYTES = 2**24  # maximum size of a manifest
_MOST_PATH = 1024  # maximum number of characters of a path
_MOST_NUMBERS = 2**28  # maximum number of numbers in one row of a tensor
_MOST_CHARACTERS = 300  # maximum length of another library's message


class ArtifactError(ValueError):
    """An artifact that is damaged, or was changed after publishing."""


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


@dataclass(frozen=True)
class Observation:
    """A part of the data as a manifest describes it; the only part of a model is called x.

    Attributes:
        name: name of the part.
        index: its place among the parts, which numbers its noise.
        tensors: names of its tensors by kind: x, mean, sample, distortion, and its parameters.
        shape: shape of one row of x.
        low, high: smallest and largest number of x; None where there is no bound.
        one_hot: whether the last axis of x holds a 1 and zeros.
        whole: whether every number of x is whole, because others have no probability.
        missing: whether it may be absent, which is NaN.
        threshold: whether a draw is the largest value where the row's uniform lies below the mean's
            share of it, and 0 elsewhere.
        categories: labels of the codes 0, 1, ...; empty where there are none.
        feature_names: names of the columns of x; empty where they have none.
        options: arguments of its family.
        preparation: how its numbers become model data.
    """

    name: str
    index: int
    tensors: dict[str, str]
    shape: tuple[int, ...]
    low: float | None
    high: float | None
    one_hot: bool
    whole: bool
    missing: bool
    threshold: bool
    categories: tuple[Any, ...]
    feature_names: tuple[str, ...]
    options: dict[str, Any]
    preparation: dict[str, Any]

    @property
    def size(self) -> int:
        """Number of numbers in one row of x."""
        return math.prod(self.shape)


def read(directory: Path) -> Manifest:
    """Reads the manifest of an artifact, and no other file.

    Raises:
        ArtifactError: if it is missing, damaged, or was changed after publishing.
    """
    with _opened(directory, MANIFEST) as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ArtifactError(f"{directory / MANIFEST} is larger than {_MOST_BYTES} bytes.")
    head = _HEAD.match(text)
    if head and _digest(text, head) != head[1].decode():
        raise ArtifactError(f"{directory}: {MANIFEST} was changed after publishing. {_REMEDY}")
    try:
        entries = _parse(text)
        _check_version(entries, has_digest=head is not None)
        _check_schema(entries)
        _check_paths(entries)
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
    present = set(_files(directory, may_be_empty=not manifest.is_covered)) - {MANIFEST}
    for name in sorted(known.keys() | present):
        if name not in present:
            raise ArtifactError(f"{directory}: {name} is missing after publishing. {_REMEDY}")
        if name not in known:
            raise ArtifactError(f"{directory}: {name!a} was added after publishing. {_REMEDY}")
        _compare(directory, known, name, _hash(directory, name))
    return manifest


def hashes(directory: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below a directory except the manifest, by relative path."""
    names = sorted(set(_files(directory)) - {MANIFEST})
    return {name: _hash(directory, name) for name in names}


def content(directory: Path, files: dict[str, str], name: str) -> bytes:
    """Reads the bytes of one file of an artifact.

    Args:
        directory: directory of the artifact.
        files: hashes of its files, from the manifest.
        name: name of the file.

    Raises:
        ArtifactError: if they differ from what was published.
    """
    with _opened(directory, name) as file:
        found = file.read()
    _compare(directory, files, name, hashlib.sha256(found).hexdigest())
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
    _compare(directory, files, name, _hash(directory, name))


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


@functools.cache
def schema() -> dict[str, Any]:
    """Returns the JSON Schema of a manifest."""
    return json.loads((Path(__file__).parent / "manifest.schema.json").read_text())


def observations(entries: dict[str, Any]) -> dict[str, Observation]:
    """Returns the parts of the data that a manifest of any version describes, by name."""
    return {
        name: _observation(name, index, about)
        for index, (name, about) in enumerate(_described(entries).items())
    }


def observation_of(entries: dict[str, Any], tensor: str) -> tuple[str, Observation] | None:
    """Returns the kind of a tensor and the part it belongs to; None if it belongs to none."""
    for index, (name, about) in enumerate(_described(entries).items()):
        for kind, other in _tensors_of(about).items():
            if other == tensor:
                return kind, _observation(name, index, about)
    return None


def _described(entries: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns `observations`; of a single x the entries that manifests of all versions have."""
    if "data" not in entries:
        return entries["observations"]
    data, likelihood = entries["data"], entries["likelihood"]
    whole = data.get("whole")
    if whole is None:
        preparation = data["preparation"]
        as_it_is = preparation["step"] == "none" and preparation.get("divide", 1.0) == 1.0
        whole = likelihood["family"] in _WHOLE_BEFORE and as_it_is
    threshold = likelihood.get("threshold", likelihood["family"] == "Bernoulli")
    about = entries.get("observations", {}).get("x", {})
    return {"x": {**about, **likelihood, **data, "whole": whole, "threshold": threshold}}


def _tensors_of(about: dict[str, Any]) -> dict[str, str]:
    kinds = ("x", "mean", "sample", "distortion")
    return about.get("tensors") or {name: name for name in (*kinds, *about["parameters"])}


def _observation(name: str, index: int, about: dict[str, Any]) -> Observation:
    low, high = about["range"]
    return Observation(
        name=name,
        index=index,
        tensors=_tensors_of(about),
        shape=tuple(about["shape"]),
        low=low,
        high=high,
        one_hot=about["one_hot"],
        whole=about["whole"],
        missing=about.get("missing", False),
        threshold=about["threshold"],
        categories=tuple(about.get("categories") or ()),
        feature_names=tuple(about.get("feature_names") or ()),
        options=about["options"],
        preparation=about["preparation"],
    )


def is_standard(entries: dict[str, Any]) -> bool:
    """Tells whether the prior of an artifact is the standard normal, by its manifest."""
    prior = entries["prior"]
    return bool(prior.get("standard", prior["family"] == "StandardNormal"))


def is_name(name: str) -> bool:
    """Tells whether an artifact may have that name: it survives URLs, files and configurations."""
    return _NAME.fullmatch(name) is not None


def as_word(name: str) -> str:
    """Returns the name of a part of the data as the names of its tensors have it.

    Accents are dropped, other characters of ASCII than letters, digits and _ become _, and those
    of other scripts become their codes, as in u5e74.
    """
    plain = unicodedata.normalize("NFKD", name)
    letters = (c if re.match("[A-Za-z0-9_]", c) else "_" for c in plain)
    return "".join(
        letter if c.isascii() else f"u{ord(c):x}"
        for c, letter in zip(plain, letters, strict=True)
        if not unicodedata.combining(c)
    )


def one_line(error: BaseException) -> str:
    """Returns another library's message on one printable line, cut if it is long."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."


_REMEDY = "Do not use it; export the model again."


def _digest(text: bytes, head: re.Match[bytes]) -> str:
    return hashlib.sha256(text[: head.start(1)] + _ZEROS + text[head.end(1) :]).hexdigest()


def _hash(directory: Path, name: str) -> str:
    with _opened(directory, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(directory: Path, files: dict[str, str], name: str, found: str) -> None:
    if files.get(name) != found:
        raise ArtifactError(f"{directory}: {name} was changed after publishing. {_REMEDY}")


@contextlib.contextmanager
def _opened(directory: Path, name: str) -> Iterator[BufferedReader]:
    """Opens a regular file below a directory, reached through no link."""
    path = directory
    try:
        for part in name.split("/"):
            path = path / part
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise ArtifactError(f"{path} is a link, but an artifact holds none. {_REMEDY}")
        if not stat.S_ISREG(mode):
            raise ArtifactError(f"{path} is not a regular file. {_REMEDY}")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        if name == MANIFEST:
            raise ArtifactError(
                f"{directory} is not a version of an artifact: {MANIFEST} cannot be read "
                f"({error.strerror}); publish one with `keras-vae export MODEL --to DIR`."
            ) from error
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. {_REMEDY}") from error


def _files(directory: Path, may_be_empty: bool = False) -> Iterator[str]:
    """Yields the paths of all files below a directory; refuses entries of any other kind."""
    waiting = [directory]
    while waiting:
        place = waiting.pop()
        with os.scandir(place) as found:
            entries = list(found)
        if not entries and not may_be_empty:
            raise ArtifactError(
                f"{str(place)!a} is empty, and was added after publishing. {_REMEDY}"
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


def _parse(text: bytes) -> dict[str, Any]:
    entries = json.loads(
        text.decode(),
        object_pairs_hook=_object,
        parse_constant=_refuse_number,
        parse_float=_float,
        parse_int=_int,
    )
    if not isinstance(entries, dict):
        raise ValueError(f"expected a JSON object; got a {type(entries).__name__}.")
    return entries


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is repeated in a JSON object.")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        _refuse_number(digits)
    return value


def _int(digits: str) -> int:
    if len(digits) > 18:
        _refuse_number(digits)
    return int(digits)


def _refuse_number(digits: str) -> NoReturn:
    raise ValueError(f"expected finite numbers of ordinary size; got {digits[:30]}.")


def _check_version(entries: dict[str, Any], has_digest: bool) -> None:
    version = entries.get("schema_version")
    if version not in _KNOWN or isinstance(version, bool | float):
        raise ValueError(
            f"expected schema_version {' or '.join(map(str, _KNOWN))}; got {version!r:.40}. "
            "Another version of keras-vae wrote it, or it was changed."
        )
    if has_digest != (version >= 2):
        raise ValueError(
            "it does not begin with its digest, as schema 2 wants."
            if version >= 2
            else "it has a digest, and schema 1 has none."
        )


def _check_schema(entries: dict[str, Any]) -> None:
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(entries))
    if error is not None:
        where = "/".join(map(str, error.absolute_path))
        raise ValueError(f"{where or 'manifest'}: {one_line(error)}" if where else one_line(error))


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema())


def _check_paths(entries: dict[str, Any]) -> None:
    """Refuses paths that leave the directory, and files that are named without a hash."""
    files, omitted = entries["files"], entries["omitted"]
    for name in files:
        if len(name) > _MOST_PATH or not all(_PART.fullmatch(part) for part in name.split("/")):
            raise ValueError(
                f"files: expected paths below the artifact of letters, digits, '_', '.' and '-'; "
                f"got {name!a:.80}."
            )
    if MANIFEST in files:
        raise ValueError(f"files: {MANIFEST} is not a file beside itself.")
    for name in entries["variants"]:
        if name not in files:
            raise ValueError(f"variants: {name!a:.80} is not one of its files.")
    for name, signature in entries["signatures"].items():
        path = signature["onnx"]
        if (path is None) != (name in omitted):
            raise ValueError(
                f"signatures/{name}/onnx: expected a file, or null for a signature that `omitted` "
                f"gives a reason for; got {path!a:.80}."
            )
        if path is not None and path not in files:
            raise ValueError(f"signatures/{name}/onnx: {path!a:.80} is not one of its files.")
        for tensor in (*signature["inputs"].values(), *signature["outputs"].values()):
            if math.prod(tensor["shape"][1:]) > _MOST_NUMBERS:
                raise ValueError(f"signatures/{name}: rows of {tensor['shape'][1:]} are too large.")
    unknown = sorted(set(omitted) - set(entries["signatures"]))
    if unknown:
        raise ValueError(f"omitted: {unknown[0]!a:.80} is not one of its signatures.")
