"""Configuration file of a run: `config.toml`, or a recipe."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vae.runs.config import RESTORE, RunConfig, RunError, settings
from keras_vae.runs.setting import is_a
from keras_vae.spelling import meant

if TYPE_CHECKING:
    from keras_vae.data.preparation import Preparation

__all__ = ["read_config", "read_run"]


def read_run(directory: Path) -> RunConfig:
    """Reads the configuration of a run.

    Raises:
        RunError: if the directory is not one, or its configuration cannot be read.
    """
    if not (directory / "config.toml").is_file():
        raise RunError(
            f"{directory} is not a run directory: it holds no config.toml. Make one with "
            "`keras-vae train --out`."
        )
    return read_config(directory / "config.toml")


def read_config(path: Path, *, needs_data: bool = True) -> RunConfig:
    """Reads the configuration in a TOML file.

    Args:
        path: the file.
        needs_data: whether it must name the data; otherwise the caller does.

    Raises:
        RunError: if the file is missing, is not TOML, or holds a name or value that is unknown.
    """
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is not TOML: {error}.") from error
    unknown = sorted(set(values) - set(settings()))
    if unknown:
        hinted = ", ".join(f"{name}{meant(name, settings())}" for name in unknown)
        raise RunError(
            f"{path} holds unknown settings: {hinted}. Known ones: {', '.join(sorted(settings()))}."
        )
    if needs_data and "data" not in values:
        raise RunError(f"{path} names no data: add data = 'PATH'.")
    try:
        if "preparation" in values:
            values["preparation"] = _preparation(values["preparation"])
        return RunConfig(**values)
    except RunError as error:
        raise RunError(f"{path}: {error}") from error


def _preparation(parts: Any) -> Preparation:
    from keras_vae.data.preparation import Preparation

    known = {entry.name for entry in dataclasses.fields(Preparation)}
    if not isinstance(parts, dict) or set(parts) - known:
        raise RunError("[preparation] differs from what the training wrote: do not edit it.")
    lists = {name: tuple(value) for name, value in parts.items() if isinstance(value, list)}
    sizes = {}
    for name in ("center", "spread", "whole", "constant"):
        kind = (float, "numbers") if name in ("center", "spread") else (bool, "true or false")
        items = lists.get(name, () if name not in parts else (None,))
        if not all(is_a(kind[0], item) for item in items):
            raise RunError(
                f"Expected {name} of [preparation] to be a list of {kind[1]}; got "
                f"{parts[name]!r}: {RESTORE}."
            )
        if items or (name == "spread" and "center" in sizes):
            sizes[name] = len(items)
    if len(set(sizes.values())) > 1 or ("spread" in sizes and "center" not in sizes):
        found = ", ".join(f"{name} of {size}" for name, size in sizes.items())
        raise RunError(
            "Expected center, spread, whole and constant of [preparation] to have one entry per "
            f"feature; got {found}: {RESTORE}."
        )
    return Preparation(**{**parts, **lists})
