"""Rollout: moves labels in `models.config`, and so decides which version callers get.

A version is first `canary`, then `stable`. The version that was stable before stays loaded as
`previous`, so a rollback takes one poll of the file. A server loads only versions that have a
label.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.deploy import server
from serving.deploy.deployment import STABLE, artifacts_of, check_label, published
from serving.deploy.directory import MODELS_CONFIG, lock, write_atomically
from serving.errors import ServingError

__all__ = [
    "CANARY",
    "PREVIOUS",
    "Load",
    "Served",
    "label",
    "of",
    "promote",
    "rollback",
    "served",
    "unlabel",
]

CANARY, PREVIOUS = "canary", "previous"
"""Labels of the version on trial, and of the one that was stable before."""

Load = Callable[[int], None]
"""Function that returns once the server answers with that version, and raises otherwise."""


@dataclass(frozen=True)
class Served:
    """Served versions and labels of a model.

    Attributes:
        versions: versions that are loaded; empty for the newest one.
        labels: version by label.
    """

    versions: tuple[int, ...]
    labels: dict[str, int]

    def version(self, label: str) -> int:
        """Returns the version under a label.

        Raises:
            ServingError: if there is no such label.
        """
        if label not in self.labels:
            known = ", ".join(sorted(self.labels)) or "none"
            raise ServingError(f"No version has the label {label!r}; labels are: {known}.")
        return self.labels[label]


def served(directory: Path) -> dict[str, Served]:
    """Reads what a deployment serves, by model."""
    config = _parse(directory)
    return {entry.name: _read(entry) for entry in config.model_config_list.config}


def of(directory: Path, model: str) -> Served:
    """Reads what a deployment serves of a model.

    Raises:
        ServingError: if it does not serve the model.
    """
    return _read(_find(_parse(directory), model))


def label(directory: Path, model: str, name: str, version: int, load: Load | None) -> Served:
    """Gives a label to a version of a model, and takes it from the version that had it.

    A server that reads a label on a version that it has not loaded refuses the whole file. So the
    version is loaded first, and then the label moves.

    Args:
        directory: the deployment.
        model: the model.
        name: the label.
        version: the version.
        load: waits for the server; needed only if the label moves from another version.

    Raises:
        ServingError: if the version is not published as its manifest says, or not loaded.
    """
    check_label(name)
    of(directory, model)
    published(artifacts_of(directory) / model, version)
    with _edited(directory, model) as entry:
        before = _read(entry)
        moves = before.labels.get(name, version) != version
        if moves and load is None:
            raise ServingError(
                f"{name} is on version {before.labels[name]}, and a label moves only to a version "
                "that the server has loaded: give --url to wait for it."
            )
        if moves and version not in before.versions:
            _set_versions(entry, {*before.versions, version})
    if moves and load is not None:
        load(version)
    with _edited(directory, model) as entry:
        entry.version_labels[name] = version
        _set_versions(entry, entry.version_labels.values())
        return _read(entry)


def unlabel(directory: Path, model: str, name: str) -> Served:
    """Removes a label; a version without labels is unloaded.

    Raises:
        ServingError: if no version has it, or it is the last one.
    """
    with _edited(directory, model) as entry:
        before = _read(entry)
        before.version(name)
        if len(before.labels) == 1:
            raise ServingError(f"{name} is the last label of {model}; nothing would be served.")
        del entry.version_labels[name]
        _set_versions(entry, entry.version_labels.values())
        return _read(entry)


def promote(directory: Path, model: str, load: Load) -> Served:
    """Makes the canary stable, and the version that was stable before `previous`.

    Args:
        directory: the deployment.
        model: the model.
        load: waits for the server.

    Raises:
        ServingError: if there is no canary, it is stable already, its files differ from its
            manifest, or the server has not loaded it.
    """
    before = of(directory, model)
    canary, stable = before.version(CANARY), before.version(STABLE)
    if canary == stable:
        raise ServingError(f"Version {canary} of {model} is canary and stable already.")
    published(artifacts_of(directory) / model, canary)
    load(canary)
    labels = {**before.labels, STABLE: canary, PREVIOUS: stable}
    del labels[CANARY]
    return _relabel(directory, model, before, labels)


def rollback(directory: Path, model: str) -> Served:
    """Makes the previous version stable again; the one that was stable is unloaded.

    Raises:
        ServingError: if there is no previous version, or its files differ from its manifest.
    """
    before = of(directory, model)
    previous = before.version(PREVIOUS)
    published(artifacts_of(directory) / model, previous)
    labels = {**before.labels, STABLE: previous}
    del labels[PREVIOUS]
    return _relabel(directory, model, before, labels)


def _relabel(directory: Path, model: str, before: Served, labels: dict[str, int]) -> Served:
    with _edited(directory, model) as entry:
        if _read(entry) != before:
            raise ServingError(
                f"{MODELS_CONFIG} was changed meanwhile; check it and run the command again."
            )
        entry.version_labels.clear()
        for name, version in labels.items():
            entry.version_labels[name] = version
        _set_versions(entry, labels.values())
        return _read(entry)


def _parse(directory: Path) -> Any:
    artifacts_of(directory)
    try:
        return server.parse_models((directory / MODELS_CONFIG).read_text())
    except OSError as error:
        raise ServingError(
            f"{directory / MODELS_CONFIG} cannot be read ({error.strerror}); write the deployment "
            "again with `keras-vae serve config --overwrite`."
        ) from error


@contextlib.contextmanager
def _edited(directory: Path, model: str) -> Iterator[Any]:
    """Yields the entry of a model, and writes it back after the block if it was changed."""
    artifacts_of(directory)
    with lock(directory):
        config = _parse(directory)
        before = server.render_models(config)
        yield _find(config, model)
        after = server.render_models(config)
        if after != before:
            write_atomically(directory / MODELS_CONFIG, after)


def _find(config: Any, model: str) -> Any:
    entries = {entry.name: entry for entry in config.model_config_list.config}
    if model not in entries:
        raise ServingError(
            f"The deployment does not serve {model!r}; it serves {', '.join(entries)}."
        )
    return entries[model]


def _read(entry: Any) -> Served:
    return Served(tuple(entry.model_version_policy.specific.versions), dict(entry.version_labels))


def _set_versions(entry: Any, versions: Any) -> None:
    del entry.model_version_policy.specific.versions[:]
    entry.model_version_policy.specific.versions.extend(sorted(set(versions)))
