"""A deployment: which versions of which models are served, and with which settings."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_vae.integrity import is_name
from serving.artifact import Artifact, find
from serving.deploy import warmup
from serving.errors import ServingError

__all__ = [
    "IMAGE",
    "MARKER",
    "STABLE",
    "Deployment",
    "Model",
    "Settings",
    "artifacts_of",
    "check_label",
    "check_name",
    "plan",
    "published",
    "read_marker",
]

IMAGE = "tensorflow/serving:2.21.0"
"""Default image of a deployment."""

MARKER = "deployment.json"
"""File that marks a directory as a deployment."""

STABLE = "stable"
"""Label of the version that callers are meant to use."""

_TENSORFLOW = (2, 21)
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Settings:
    """Options of a deployment.

    Attributes:
        image: TensorFlow Serving, pinned by a tag or a digest.
        follow_latest: serve the newest version of each model as soon as it is published, without
            labels; otherwise only versions that have a label are served.
        cpus: CPUs per server.
        memory_mib: memory per server, MiB.
        replicas: minimum and maximum number of servers in Kubernetes.
        poll_seconds: seconds between checks for a changed `models.config` and new versions.
        tls: file with the `ssl_config_file` of the server, or None for gRPC without TLS.
    """

    image: str = IMAGE
    follow_latest: bool = False
    cpus: int = 2
    memory_mib: int = 2048
    replicas: tuple[int, int] = (2, 6)
    poll_seconds: int = 10
    tls: Path | None = None

    def __post_init__(self) -> None:
        """Refuses settings that cannot run."""
        if not _IMAGE.fullmatch(self.image) or self.image.endswith(":latest"):
            raise ServingError(
                f"Expected an image with a version, such as {IMAGE} or NAME@sha256:DIGEST; got "
                f"{self.image!r}, which may mean another image tomorrow."
            )
        low, high = self.replicas
        if not 1 <= low <= high:
            raise ServingError(f"Expected replicas as FEWEST..MOST; got {low}..{high}.")


@dataclass(frozen=True)
class Model:
    """A model that is served.

    Attributes:
        name: as in its URL.
        versions: versions that are loaded; empty for the newest one.
        labels: version by label.
        batch_sizes: batch sizes that all of its versions are warmed up with.
    """

    name: str
    versions: tuple[int, ...]
    labels: dict[str, int]
    batch_sizes: tuple[int, ...]


@dataclass(frozen=True)
class Deployment:
    """Models, settings, and the location of the artifacts."""

    artifacts: Path
    models: tuple[Model, ...]
    settings: Settings

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes that every model is warmed up with, ascending."""
        return tuple(sorted(set.intersection(*(set(model.batch_sizes) for model in self.models))))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(model.name for model in self.models)


def plan(
    artifacts: Path,
    settings: Settings,
    *,
    names: Sequence[str] = (),
    labels: dict[str, dict[str, int]] | None = None,
) -> Deployment:
    """Plans a deployment of artifacts and checks each version against its manifest.

    Args:
        artifacts: directory of NAME/VERSION.
        settings: options of the deployment.
        names: the models that are served; empty for all.
        labels: version by label by model; a model without labels gets its newest version as
            `stable`.

    Raises:
        ServingError: if a model, a version or its files are missing or damaged, or the models
            cannot be served together.
    """
    artifacts = artifacts.resolve()
    present, wanted = find(artifacts), labels or {}
    for name in [*names, *wanted]:
        if name not in present:
            raise ServingError(
                f"{artifacts} holds no model {name!r}; it holds {', '.join(present)}."
            )
    models = []
    for name in dict.fromkeys(names or present):
        check_name(name)
        chosen = {} if settings.follow_latest else wanted.get(name) or {STABLE: present[name][-1]}
        served = sorted(set(chosen.values())) or [present[name][-1]]
        sizes = [_check(artifacts / name, version, settings) for version in served]
        models.append(
            Model(
                name,
                () if settings.follow_latest else tuple(served),
                chosen,
                tuple(sorted(set.intersection(*map(set, sizes)))),
            )
        )
    deployment = Deployment(artifacts, tuple(models), settings)
    if not deployment.batch_sizes:
        raise ServingError(
            "The models are warmed up at different batch sizes, and one server has one list of "
            "them; publish them again with one version of `keras-vae export`."
        )
    return deployment


def check_name(name: str) -> None:
    """Refuses a model's name that would not survive a URL.

    Raises:
        ServingError: if it would not.
    """
    if not is_name(name):
        raise ServingError(
            f"Expected a model name of at most 63 letters, digits, '.', '_' and '-'; got "
            f"{name!r}. Rename its directory."
        )


def check_label(label: str) -> None:
    """Refuses a label that would not survive a URL.

    Raises:
        ServingError: if it would not.
    """
    if not _LABEL.fullmatch(label):
        raise ServingError(
            f"Expected a label of letters, digits, '_' and '-' that begins with a letter, such as "
            f"canary; got {label!r}."
        )


def published(directory: Path, version: int) -> Artifact:
    """Reads a version of a model and verifies it against the hashes of its manifest.

    Raises:
        ServingError: if it does not exist or differs from what was published.
    """
    if not (directory / str(version)).is_dir():
        raise ServingError(
            f"{directory} has no version {version}; publish it with `keras-vae export MODEL --out "
            f"{directory} --version {version}`."
        )
    artifact = Artifact.read(directory / str(version))
    artifact.verify()
    return artifact


def read_marker(directory: Path) -> dict[str, Any]:
    """Reads the marker file of a deployment's directory.

    Raises:
        ServingError: if the directory is not a deployment.
    """
    path = directory / MARKER
    try:
        marker = json.loads(path.read_text())
        if marker["schema_version"] != 1:
            raise ValueError(f"schema_version {marker['schema_version']}")
        return {"files": dict(marker["files"]), "artifacts": str(marker["artifacts"])}
    except OSError as error:
        raise ServingError(
            f"{directory} is not a deployment (it has no readable {MARKER}); write one with "
            f"`keras-vae serve config ARTIFACTS --out {directory}`."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServingError(
            f"{path} is damaged ({error!r}); write the deployment again with "
            "`keras-vae serve config`."
        ) from error


def artifacts_of(directory: Path) -> Path:
    """Returns the directory of the artifacts that a deployment serves."""
    return Path(os.path.normpath(directory.resolve() / read_marker(directory)["artifacts"]))


def _check(directory: Path, version: int, settings: Settings) -> list[int]:
    artifact = published(directory, version)
    written = artifact.manifest["versions"].get("tensorflow", "none")
    match = re.match(r"([0-9]{1,6})\.([0-9]{1,6})", written)
    if match is None:
        raise ServingError(
            f"Expected {artifact.path} to name the version of TensorFlow that wrote it; got "
            f"{written!a}."
        )
    numbers = int(match[1]), int(match[2])
    if settings.image == IMAGE and numbers > _TENSORFLOW:
        raise ServingError(
            f"{artifact.path} was written by TensorFlow {written}, newer than {IMAGE}; name an "
            "image at least as new with --image."
        )
    return warmup.batch_sizes(artifact)
