"""Files of a model in a repository, and what in them is refused."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "ARCHIVE",
    "CARD",
    "EVALUATION",
    "PATTERNS",
    "RUN",
    "HubError",
    "artifact_version",
    "is_known",
    "is_of_model",
    "pack",
    "refuse_code",
    "unpack",
]

ARCHIVE = "model.keras"
"""The model as one file."""

CARD = "README.md"
"""The model card, which the hub shows."""

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
EVALUATION = "evaluation.json"

RUN = ("config.toml", "schema.toml", "vocabulary.json", "history.csv", EVALUATION)
"""Files of a run that are pushed beside its model."""

_MEMBERS = (CONFIG, "metadata.json", WEIGHTS)
PATTERNS = (*_MEMBERS, "assets/*")
"""Patterns of the files that Keras writes of a model."""

_PART = re.compile(r"(?!\.+$)[^/\\\x00]+")
_ARTIFACT = re.compile(r"artifact/([1-9]\d*)/[A-Za-z0-9_]")
_MOST_BYTES = 2**28  # maximum size of a model's configuration

_CODE = {
    "Lambda": "a Lambda layer, whose Python code would run",
    "__lambda__": "a Python lambda, which would run",
    "TorchModuleWrapper": "a pickled module of PyTorch",
    "TFSMLayer": "a layer that runs a SavedModel",
    "JaxLayer": "a layer that runs functions of JAX",
    "FlaxLayer": "a layer that runs functions of Flax",
}
_VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
_NO_PARTS_OF_MODELS = ("backend", "config", "export", "preprocessing", "saving", "utils")
_FUNCTIONS = ("builtins", "keras.activations", "keras.initializers", "keras.losses", "keras.ops")


class HubError(ValueError):
    """A repository that is refused, or a hub that refuses a request.

    Example:
        >>> issubclass(HubError, ValueError)
        True
    """


def is_of_model(name: str) -> bool:
    """Tells whether a file is one that Keras writes of a model.

    Example:
        >>> is_of_model("model.weights.h5"), is_of_model("assets/../../x"), is_of_model("train.py")
        (True, False, False)
    """
    return name in _MEMBERS or (name.startswith("assets/") and _is_path(name))


def is_known(name: str) -> bool:
    """Tells whether a file of a repository is one that `push_to_hub` writes."""
    is_run = name in RUN or name in (ARCHIVE, CARD)
    return is_run or is_of_model(name) or artifact_version(name) is not None


def artifact_version(name: str) -> int | None:
    """Returns the version of the artifact that a file belongs to; None for any other file.

    Example:
        >>> artifact_version("artifact/3/onnx/decode.onnx")
        3
    """
    found = _ARTIFACT.match(name)
    return int(found[1]) if found and _is_path(name) else None


def _is_path(name: str) -> bool:
    return all(_PART.fullmatch(part) for part in name.split("/"))


def unpack(archive: Path, folder: Path) -> list[str]:
    """Writes the members of a .keras file into a folder and returns their names.

    Raises:
        HubError: if it is not a complete model file.
    """
    with _opened(archive) as file:
        file.extractall(folder)
        return file.namelist()


def pack(folder: Path, names: Iterable[str], target: Path) -> None:
    """Writes files below a folder into a .keras file."""
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(names):
            archive.write(folder / name, name)


def refuse_code(path: Path, source: str) -> None:
    """Refuses a model file that would run code, or read other files, when Keras loads it.

    Only classes of Keras and of keras_vae are accepted, and those that an imported module has
    registered with Keras.

    Args:
        path: a .keras file.
        source: where it comes from, for the message.

    Raises:
        HubError: naming what was refused.
    """
    import h5py

    with _opened(path) as archive:
        if archive.getinfo(CONFIG).file_size > _MOST_BYTES:
            raise HubError(f"{source}: {CONFIG} is larger than {_MOST_BYTES} bytes.")
        _refuse_classes(archive.read(CONFIG), source)
        with archive.open(WEIGHTS) as file:
            try:
                with h5py.File(file) as weights:
                    _refuse_links(weights, source)
            except OSError as error:
                raise HubError(f"{source}: {WEIGHTS} is damaged: {error}") from error


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise HubError(f"{path} is not a model file as Keras saves it: {error}") from error
    names = archive.namelist()
    strange = [name for name in names if not is_of_model(name) and name != "assets/"]
    if strange or len(set(names)) < len(names) or not {CONFIG, WEIGHTS} <= set(names):
        archive.close()
        raise HubError(
            f"Expected {path} to hold {', '.join(_MEMBERS)} and nothing but assets beside them; "
            f"got {', '.join(sorted(names)[:20])}."
        )
    return archive


def _refuse_classes(text: bytes, source: str) -> None:
    import keras

    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HubError(f"{source}: {CONFIG} is damaged: {error}") from error
    if not isinstance(config, dict) or "class_name" not in config:
        raise HubError(f"{source}: {CONFIG} is damaged: it states no class.")
    registered = keras.saving.get_custom_objects()
    for about in _objects(config):
        name, module = about["class_name"], about.get("module")
        if name in _CODE:
            raise HubError(
                f"Refused {source}: it holds {_CODE[name]} on this machine. Ask its author for a "
                "model of registered layers."
            )
        own = about.get("registered_name") or name
        if name in _VALUES or own in registered or _is_of_keras(name, module):
            continue
        raise HubError(
            f"Refused {source}: it holds {own!a:.80}, which is neither of Keras nor of keras_vae "
            "and which no imported module registers with Keras. If it is your own class, import "
            "its module first."
        )


def _is_of_keras(name: str, module: Any) -> bool:
    if name == "function":
        return module in _FUNCTIONS
    parts = module.split(".") if isinstance(module, str) else [""]
    return parts[0] == "keras" and not set(parts[1:3]) & set(_NO_PARTS_OF_MODELS)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yields what Keras would build, at any depth."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str) and "config" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _refuse_links(weights: Any, source: str) -> None:
    """Refuses weights that stand in another file, which HDF5 would open."""
    import h5py

    waiting = [weights]
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            found = group[name] if isinstance(link, h5py.HardLink) else None
            is_group = isinstance(found, h5py.Group)
            if found is None or (not is_group and (found.external or found.is_virtual)):
                raise HubError(f"Refused {source}: {WEIGHTS} refers to another file in {name!a}.")
            if is_group:
                waiting.append(found)
