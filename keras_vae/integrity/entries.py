"""Entries of a manifest: parsed strictly, and checked against schema, version and each other."""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from keras_vae.integrity.files import MANIFEST
from keras_vae.integrity.names import one_line

__all__ = ["SCHEMA_VERSION", "check_entries", "parse", "schema"]

SCHEMA_VERSION = 2
"""Schema version of the manifests that `seal` writes; `read` accepts version 1 too."""

_KNOWN = (1, SCHEMA_VERSION)
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # one component of a path
_MOST_PATH = 1024  # maximum number of characters of a path
_MOST_NUMBERS = 2**28  # maximum number of numbers in one row of a tensor


def check_entries(entries: dict[str, Any], *, has_digest: bool) -> None:
    """Refuses entries that are not those of a manifest.

    Args:
        entries: parsed content.
        has_digest: whether the file begins with its digest.

    Raises:
        ValueError: naming the first entry that is wrong.
    """
    _check_version(entries, has_digest)
    _check_schema(entries)
    _check_paths(entries)


@functools.cache
def schema() -> dict[str, Any]:
    """Returns the JSON Schema of a manifest."""
    return json.loads((Path(__file__).parent.parent / "manifest.schema.json").read_text())


def parse(text: bytes) -> dict[str, Any]:
    """Returns the entries of a JSON object without repeated keys or extraordinary numbers.

    Raises:
        ValueError: if it is anything else.
    """
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
