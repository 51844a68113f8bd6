"""Site: the page, the ONNX files and their runtime, as one folder for any static host."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from keras_vae import integrity
from serving.artifact import Artifact
from serving.errors import ServingError
from serving.explore import runtime

__all__ = ["PAGE", "bundle", "write"]

PAGE: Final = Path(__file__).parent / "page"
"""The page itself."""


def write(artifact: Artifact, ort: Path, directory: Path) -> None:
    """Writes the site of an artifact.

    Args:
        artifact: the model to explore; its SavedModel is left out.
        ort: directory with `runtime.FILES`.
        directory: empty or new.

    Raises:
        ServingError: if the artifact differs from what was published.
    """
    if artifact.has_weights_outside:
        raise ServingError(
            f"{artifact.path} cannot be explored: expected ONNX files below 2 GB, the most a "
            "browser loads; its weights are larger. Draw from it with ONNX Runtime instead."
        )
    artifact.verify()
    shutil.copytree(PAGE, directory, dirs_exist_ok=True)
    for name, ours in runtime.FILES.items():
        _copy(ort / name, directory / "ort" / ours)
    _copy(artifact.path / integrity.MANIFEST, directory / "artifact" / integrity.MANIFEST)
    for signature in artifact.signatures.values():
        if signature.onnx is not None:
            target = directory / "artifact" / signature.onnx.relative_to(artifact.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(artifact.content(signature.onnx))
    parts = integrity.observations(artifact.manifest).values()
    about = {
        "name": artifact.name,
        "version": artifact.version,
        "runtime": f"ONNX Runtime Web {runtime.VERSION}",
        "standard": integrity.is_standard(artifact.manifest),
        "whole": all(part.whole for part in parts),
        "parts": None if "data" in artifact.manifest else [_field(part) for part in parts],
    }
    (directory / "site.json").write_text(json.dumps(about) + "\n")


def _field(part: integrity.Observation) -> dict[str, Any]:
    """Describes a part as a field of the page's form; codes have labels, if only their numbers.

    So has a single one-hot vector, whose x holds a number for each label.
    """
    one_hot = part.one_hot and len(part.shape) == 1
    count = part.shape[0] if one_hot else part.preparation.get("categories", 0)
    return {
        "name": part.name,
        "tensors": part.tensors,
        "shape": part.shape,
        "low": part.low,
        "high": part.high,
        "whole": part.whole or part.preparation.get("step") == "dequantize",
        "missing": part.missing,
        "oneHot": one_hot,
        "labels": part.categories or list(range(count)),
    }


def bundle(artifact: Artifact, ort: Path, target: Path) -> None:
    """Writes the site into a new or empty directory, completely or not at all.

    Raises:
        ServingError: if the directory is not empty, or the artifact differs from what was
            published.
    """
    target = target.absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ServingError(
            f"{target} exists and is not an empty folder; name another, or remove it first."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        made = Path(temporary) / "site"
        write(artifact, ort, made)
        made.rename(target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
