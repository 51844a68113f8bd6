"""Repository of served models: finds versions on disk, loads and replaces them, reads labels."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from keras_vae.integrity import is_name
from serving import artifact as artifacts
from serving.artifact import Artifact, Signature
from serving.errors import RefusedError, ServingError, UnknownModelError, UnknownSignatureError
from serving.local import sessions
from serving.local.batching import Batcher
from serving.local.config import Policy, read_config
from serving.local.settings import Settings

__all__ = ["Loaded", "Repository", "Status"]

_log = structlog.get_logger("serving.local")


@dataclass(frozen=True)
class Loaded:
    """A version that answers requests.

    Attributes:
        name: name of the served model.
        artifact: the artifact on disk.
        batchers: the queue of each signature that can be run.
    """

    name: str
    artifact: Artifact
    batchers: dict[str, Batcher]

    def batcher(self, signature: Signature) -> Batcher:
        """Returns the queue of a signature.

        Raises:
            UnknownSignatureError: if it has no ONNX file.
        """
        if signature.name in self.batchers:
            return self.batchers[signature.name]
        reason = self.artifact.manifest.get("omitted", {}).get(
            signature.name, "it has no ONNX file."
        )
        raise UnknownSignatureError(
            f"The local server cannot run {signature.name!r}: {reason} TensorFlow Serving can; "
            f"this server has {', '.join(self.batchers)}."
        )


@dataclass
class Status:
    """A version as `GET /v1/models/NAME` shows it.

    Attributes:
        state: LOADING, AVAILABLE or END.
        error: why it does not answer, or "".
        loaded: the loaded version, if there is one.
        identity: fingerprint of the directory, which changes with its files.
    """

    state: str
    error: str = ""
    loaded: Loaded | None = None
    identity: tuple[int, ...] = ()


@dataclass
class _Model:
    directory: Path
    policy: Policy
    versions: dict[int, Status] = field(default_factory=dict)

    def available(self) -> list[int]:
        return [number for number, status in self.versions.items() if status.loaded]


class Repository:
    """All models below `artifacts/`, kept in step with the directory.

    A version is loaded before the one that it replaces is unloaded, and running requests keep the
    version that they started with. A version that cannot be loaded shows the reason in its status
    and leaves the earlier version in service.

    Args:
        root: directory that holds NAME/VERSION.
        settings: limits.
        executor: where graphs are loaded and run.
        config: a models.config of TensorFlow Serving: models, versions and labels. Without it, the
            latest version of every model is served.
        observe: called with model, version, signature and number of rows of each batch.

    Attributes:
        passed_over: directories that are skipped because no URL could name them.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        settings: Settings,
        executor: Executor,
        config: str | os.PathLike[str] | None = None,
        observe: Callable[[str, int, str, int], None] = lambda *labels: None,
    ) -> None:
        self.root = Path(root).resolve()
        self._settings = settings
        self._executor = executor
        self._config = None if config is None else Path(config)
        self._observe = observe
        self._models: dict[str, _Model] = {}
        self._turn = asyncio.Lock()
        self.passed_over: list[str] = []

    @property
    def is_ready(self) -> bool:
        """Whether every model has a version that answers."""
        return bool(self._models) and all(m.available() for m in self._models.values())

    def serves(self, name: str) -> bool:
        """Tells whether there is a model of that name."""
        return name in self._models

    def models(self) -> Iterable[tuple[str, dict[int, Status], dict[str, int]]]:
        """Yields name, versions with their status, and labels of each model."""
        for name, model in sorted(self._models.items()):
            yield name, dict(sorted(model.versions.items())), dict(model.policy.labels)

    def latest(self) -> Iterable[Loaded]:
        """Yields the newest version of each model that answers."""
        for name in sorted(self._models):
            if self._models[name].available():
                yield self.get(name)

    def get(self, name: str, version: int | None = None, label: str | None = None) -> Loaded:
        """Returns the version that answers a request.

        Raises:
            UnknownModelError: if there is no such model or version in service.
            RefusedError: if there is no such label.
        """
        model = self._model(name)
        available = model.available()
        if label is not None:
            labels = {k: v for k, v in model.policy.labels.items() if v in available}
            if label not in labels:
                raise RefusedError(
                    f"Unrecognized servable version label: {_short(label)}; {name} has "
                    f"{', '.join(labels) or 'no label (see --config)'}."
                )
            version = labels[label]
        if version is None and available:
            version = max(available)
        if version not in available:
            wanted = "version" if version is None else f"version {version}"
            raise UnknownModelError(
                f"Servable not found for request: {name} has no {wanted} in service; it has "
                f"{', '.join(map(str, sorted(available))) or 'none'}."
            )
        loaded = model.versions[version].loaded
        if loaded is None:
            raise UnknownModelError(f"Servable not found for request: {name}/{version}.")
        return loaded

    def status(self, name: str, version: int | None = None) -> dict[int, Status]:
        """Returns the status by version, newest first as TensorFlow Serving lists them.

        Raises:
            UnknownModelError: if there is no such model or version.
        """
        model = self._model(name)
        if version is not None and version not in model.versions:
            raise UnknownModelError(
                f"Could not find version {version} of model {name}; it has "
                f"{', '.join(map(str, sorted(model.versions))) or 'none'}."
            )
        numbers = sorted(model.versions, reverse=True) if version is None else [version]
        return {number: model.versions[number] for number in numbers}

    async def refresh(self) -> None:
        """Loads and unloads versions to match the directory.

        Raises:
            ServingError: if there is no model, or the configuration cannot be read. The served
                versions then stay as they were.
        """
        async with self._turn:
            wanted = self._wanted()
            for name in set(self._models) - set(wanted):
                del self._models[name]
                _log.info("model removed", model=name)
            for name, (directory, policy) in wanted.items():
                model = self._models.setdefault(name, _Model(directory, policy))
                model.directory, model.policy = directory, policy
                await self._refresh(name, model)

    async def watch(self) -> None:
        """Refreshes forever, at the poll interval; logs a failure once and tries again."""
        said = ""
        while True:
            await asyncio.sleep(self._settings.poll)
            try:
                await self.refresh()
                said = ""
            except (ServingError, OSError) as error:
                if str(error) != said:
                    _log.error("artifacts cannot be read", error=str(error))
                said = str(error)

    def _wanted(self) -> dict[str, tuple[Path, Policy]]:
        if self._config is not None:
            return read_config(self._config, self.root)
        found = artifacts.find(self.root)
        self.passed_over = [name for name in found if not is_name(name)]
        return {
            name: (self.root / name, Policy()) for name in found if name not in self.passed_over
        }

    async def _refresh(self, name: str, model: _Model) -> None:
        numbers = artifacts.versions(model.directory)
        if not numbers and model.versions:
            return  # as in TensorFlow Serving, an empty directory unloads nothing
        wanted = model.policy.choose(numbers)
        for number in wanted:
            identity = _identity(model.directory / str(number))
            known = model.versions.get(number)
            if known is None or known.identity != identity:
                model.versions[number] = await self._load(name, model, number, identity)
        # An unwanted version is unloaded once a newer one answers, or if it is gone from disk.
        answering = [number for number in wanted if model.versions[number].loaded]
        for number in set(model.versions) - set(wanted):
            if answering or model.versions[number].loaded is None:
                del model.versions[number]
                _log.info("version unloaded", model=name, version=number)

    async def _load(
        self, name: str, model: _Model, number: int, identity: tuple[int, ...]
    ) -> Status:
        before = model.versions.get(number)
        loaded = before.loaded if before else None
        if loaded is None:
            model.versions[number] = Status("LOADING", identity=identity)
        loop = asyncio.get_running_loop()
        try:
            artifact, runs = await loop.run_in_executor(
                self._executor, self._read, model.directory / str(number)
            )
        except Exception as error:
            _log.error("version cannot be loaded", model=name, version=number, error=str(error))
            return Status("AVAILABLE" if loaded else "END", str(error), loaded, identity)
        batchers = {
            key: Batcher(run, self._settings, self._executor, self._observer(name, number, key))
            for key, run in runs.items()
        }
        _log.info("version loaded", model=name, version=number, signatures=list(batchers))
        return Status("AVAILABLE", "", Loaded(name, artifact, batchers), identity)

    def _read(self, path: Path) -> tuple[Artifact, dict[str, sessions.Session]]:
        artifact = Artifact.read(path)
        return artifact, sessions.load(artifact, self._settings.threads)

    def _observer(self, name: str, number: int, key: str) -> Callable[[int], None]:
        return lambda rows: self._observe(name, number, key, rows)

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            raise UnknownModelError(
                f"Could not find any versions of model {_short(name)}; served: "
                f"{', '.join(sorted(self._models))}."
            )
        return self._models[name]


def _identity(path: Path) -> tuple[int, ...]:
    """Returns a fingerprint of a version's files, so that a half-copied one is tried again."""
    stats = [file.stat() for file in sorted(path.glob("onnx/*.onnx"))]
    with contextlib.suppress(FileNotFoundError):
        stats.append((path / "manifest.json").stat())
    return tuple(n for stat in stats for n in (stat.st_ino, stat.st_size, stat.st_mtime_ns))


def _short(name: Any) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}..."
