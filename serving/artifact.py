"""Artifacts on disk: their versions, and the tensors that each signature takes and gives."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ServingError

__all__ = ["Artifact", "Signature", "Tensor", "find", "latest", "versions"]


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature.

    Attributes:
        dtype: "float32" or "int32".
        shape: shape of one row; the batch is axis 0 before it.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """One function of an artifact.

    Attributes:
        name: decode, encode, sample, reconstruct or score.
        description: one sentence.
        inputs, outputs: tensors by name.
        onnx: its ONNX file, or None where it has none.
    """

    name: str
    description: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    onnx: Path | None


@dataclass(frozen=True)
class Artifact:
    """One published version of a model.

    Attributes:
        path: its directory, `artifacts/NAME/VERSION`.
        name: the model's name, that of the directory of its versions.
        version: its number.
        manifest: all that `manifest.json` says.
        signatures: its functions by name.
    """

    path: Path
    name: str
    version: int
    manifest: dict[str, Any]
    signatures: dict[str, Signature]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Artifact:
        """The artifact in a version directory.

        Raises:
            ServingError: if the directory is none, or its manifest cannot be read.
        """
        path = Path(path).resolve()
        if not path.name.isdigit():
            raise ServingError(
                f"{path} is not a version of an artifact: name a directory such as "
                "artifacts/digits/1."
            )
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            signatures = {
                name: _signature(path, name, entry)
                for name, entry in manifest["signatures"].items()
            }
        except OSError as error:
            raise ServingError(
                f"{path} holds no readable manifest.json ({error.strerror}); publish it with "
                "`python -m export MODEL --to DIR`."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServingError(
                f"{path / 'manifest.json'} is damaged ({error!r}); check the artifact with "
                f"`python -m export verify {path}`."
            ) from error
        return cls(path, path.parent.name, int(path.name), manifest, signatures)

    def verify(self) -> None:
        """Compares every file with the SHA-256 that the manifest states.

        Raises:
            ServingError: naming the first file that is missing, changed or unknown.
        """
        known = self.manifest["files"]
        present = {
            path.relative_to(self.path).as_posix(): path
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and path != self.path / "manifest.json"
        }
        for file in sorted(known.keys() | present.keys()):
            if file not in present:
                why = "is missing"
            elif file not in known:
                why = "is not one of the manifest"
            elif hashlib.sha256(present[file].read_bytes()).hexdigest() != known[file]:
                why = "is not what was published"
            else:
                continue
            raise ServingError(
                f"{self.path / file} {why}: do not serve this version, publish it again with "
                "`python -m export`."
            )


def versions(path: str | os.PathLike[str]) -> list[int]:
    """Numbers of the versions in an artifact's directory `artifacts/NAME`, ascending.

    Names that are no positive integers are passed over, as TensorFlow Serving does.
    """
    directory = Path(path)
    if not directory.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in directory.iterdir()
        if entry.name.isdecimal() and str(int(entry.name)) == entry.name and entry.is_dir()
    )


def latest(path: str | os.PathLike[str]) -> Artifact:
    """The newest version in an artifact's directory `artifacts/NAME`.

    Raises:
        ServingError: if there is none.
    """
    numbers = versions(path)
    if not numbers:
        raise ServingError(
            f"{path} holds no version of an artifact; publish one with `python -m export MODEL "
            f"--to {path}`."
        )
    return Artifact.read(Path(path) / str(numbers[-1]))


def find(root: str | os.PathLike[str]) -> dict[str, list[int]]:
    """Models below `artifacts/` and their versions, by name.

    Raises:
        ServingError: if there is no model.
    """
    directory = Path(root)
    if not directory.is_dir():
        raise ServingError(f"{root} is not a directory; name one that holds NAME/VERSION.")
    models = {
        entry.name: versions(entry)
        for entry in sorted(directory.iterdir())
        if not entry.name.startswith(".") and versions(entry)
    }
    if not models:
        raise ServingError(
            f"{root} holds no artifact NAME/VERSION; publish one with `python -m export MODEL --to "
            f"{directory / 'NAME'}`."
        )
    return models


def _signature(path: Path, name: str, entry: dict[str, Any]) -> Signature:
    return Signature(
        name,
        entry["description"],
        _tensors(entry["inputs"]),
        _tensors(entry["outputs"]),
        None if entry["onnx"] is None else path / entry["onnx"],
    )


def _tensors(entries: dict[str, Any]) -> dict[str, Tensor]:
    return {
        name: Tensor(entry["dtype"], tuple(entry["shape"][1:])) for name, entry in entries.items()
    }
