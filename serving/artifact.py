"""Artifacts on disk: their versions, and the tensors that each signature takes and returns."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from keras_vae import integrity
from serving.errors import ServingError
from serving.onnx_model import OnnxModel
from serving.ranges import Range

__all__ = ["Artifact", "Signature", "Tensor", "find", "latest", "versions"]

_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature.

    Attributes:
        dtype: "float32" or "int32".
        shape: shape of one row; the batch is axis 0 before it.
        missing: whether it may hold NaN, which is absent.
        tokens: tokens of texts, whose numbers it holds; None for other data, and in the metadata of
            a server, which does not know them.
        allowed: the numbers that it may hold; None for any, and in the metadata of a server.
    """

    dtype: str
    shape: tuple[int, ...]
    missing: bool = False
    tokens: integrity.Tokens | None = None
    allowed: Range | None = None


@dataclass(frozen=True)
class Signature:
    """One function of an artifact.

    Attributes:
        name: decode, encode, sample, reconstruct or score, and impute or classify of models
            whose data may be absent.
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
        manifest: the parsed content of `manifest.json`.
        sha256: digest of `manifest.json`.
        signatures: its functions by name.
    """

    path: Path
    name: str
    version: int
    manifest: dict[str, Any]
    sha256: str
    signatures: dict[str, Signature]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Artifact:
        """Reads the artifact in a version directory.

        Raises:
            ServingError: if `path` is not a version directory, or its manifest is damaged.
        """
        path = Path(path).resolve()
        if not _VERSION.fullmatch(path.name):
            raise ServingError(
                f"{path} is not a version of an artifact: name a directory such as "
                "artifacts/quickstart/1."
            )
        with _refusals():
            manifest = integrity.read(path)
        parts = integrity.observations(manifest.entries).values()
        about = {part.tensors["x"]: part for part in parts}
        codes = integrity.codes_of(manifest.entries)
        ranges = {} if codes is None else {"codes": Range(0, codes["num_codes"] - 1, whole=True)}
        signatures = {
            name: _signature(path, name, entry, about, ranges)
            for name, entry in manifest.entries["signatures"].items()
        }
        return cls(
            path, path.parent.name, int(path.name), manifest.entries, manifest.sha256, signatures
        )

    def verify(self) -> None:
        """Compares every entry of the directory with the manifest.

        Raises:
            ServingError: naming the first one that is missing, changed or unknown.
        """
        with _refusals():
            integrity.check(self.path)

    def content(self, path: Path) -> bytes:
        """Returns the bytes of one of the artifact's files.

        Raises:
            ServingError: if they differ from what was published.
        """
        name = path.relative_to(self.path).as_posix()
        with _refusals():
            return integrity.content(self.path, self.manifest["files"], name)

    @property
    def has_weights_outside(self) -> bool:
        """Whether the ONNX files keep their weights, 2 GB or more, in a separate file."""
        return integrity.WEIGHTS in self.manifest["files"]

    def onnx_model(self, path: Path) -> OnnxModel:
        """Reads one of the artifact's ONNX files.

        Raises:
            ServingError: if it, or the file with its weights, differs from what was published.
        """
        content = self.content(path)
        if not self.has_weights_outside:
            return OnnxModel(content)
        with _refusals():
            integrity.check_file(self.path, self.manifest["files"], integrity.WEIGHTS)
        return OnnxModel(content, path.parent)


def versions(path: str | os.PathLike[str]) -> list[int]:
    """Lists the version numbers in an artifact's directory `artifacts/NAME`, ascending.

    Names that are not positive integers are skipped, as TensorFlow Serving does.
    """
    directory = Path(path)
    if not directory.is_dir():
        return []
    return sorted(
        int(entry.name)
        for entry in directory.iterdir()
        if _VERSION.fullmatch(entry.name) and entry.is_dir()
    )


def latest(path: str | os.PathLike[str]) -> Artifact:
    """Reads the newest version in an artifact's directory `artifacts/NAME`.

    Raises:
        ServingError: if there is none.
    """
    numbers = versions(path)
    if not numbers:
        raise ServingError(
            f"{path} holds no version of an artifact; publish one with `keras-vae export MODEL "
            f"--out {path}`."
        )
    return Artifact.read(Path(path) / str(numbers[-1]))


def find(root: str | os.PathLike[str]) -> dict[str, list[int]]:
    """Lists the models below `artifacts/` with their versions, by name.

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
    if not models and versions(directory):
        raise ServingError(
            f"{root} holds the versions of one model; name the directory above it, "
            f"{directory.resolve().parent}."
        )
    if not models:
        raise ServingError(
            f"{root} holds no artifact NAME/VERSION; publish one with `keras-vae export MODEL "
            f"--out {directory / 'NAME'}`."
        )
    return models


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Raises errors of `keras_vae.integrity` as `ServingError`."""
    try:
        yield
    except integrity.ArtifactError as error:
        raise ServingError(str(error)) from error


def _signature(
    path: Path,
    name: str,
    entry: dict[str, Any],
    parts: dict[str, integrity.Observation],
    ranges: Mapping[str, Range],
) -> Signature:
    return Signature(
        name,
        entry["description"],
        _tensors(entry["inputs"], parts, ranges),
        _tensors(entry["outputs"]),
        None if entry["onnx"] is None else path / entry["onnx"],
    )


def _tensors(
    entries: dict[str, Any],
    parts: Mapping[str, integrity.Observation] = MappingProxyType({}),
    ranges: Mapping[str, Range] = MappingProxyType({}),
) -> dict[str, Tensor]:
    return {
        name: Tensor(
            entry["dtype"],
            tuple(entry["shape"][1:]),
            name in parts and parts[name].missing,
            parts[name].tokens if name in parts else None,
            Range.of(parts[name]) if name in parts else ranges.get(name),
        )
        for name, entry in entries.items()
    }
