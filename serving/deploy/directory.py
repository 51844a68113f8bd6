"""Directory of a deployment: rendered as a whole, published by a rename, edited under a lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from serving.deploy import compose, kubernetes, monitoring, server
from serving.deploy.deployment import MARKER, Deployment, read_marker
from serving.errors import ServingError

__all__ = ["MODELS_CONFIG", "labels_in", "lock", "publish", "render", "write_atomically"]

MODELS_CONFIG = f"server/{server.MODELS_CONFIG}"
"""The file that holds labels and versions; the only one that changes after it was written."""


class _Dumper(yaml.SafeDumper):
    """YAML writer without anchors: repeated values are written out."""

    def ignore_aliases(self, data: Any) -> bool:
        """Returns True, so that no value refers to another place."""
        return True


def render(deployment: Deployment, directory: Path) -> dict[str, str]:
    """Renders the content of every file, by path in the deployment's directory.

    Args:
        deployment: what is served.
        directory: where the files will be.
    """
    files = {f"server/{name}": text for name, text in server.files(deployment).items()}
    documents = {
        "compose.yaml": compose.compose(deployment, directory),
        "kustomization.yaml": kubernetes.kustomization(),
        "prometheus/prometheus.yml": monitoring.scrape(),
        "prometheus/alerts.yml": monitoring.alerts(),
        "grafana/provisioning/datasources/prometheus.yaml": monitoring.datasource(),
        "grafana/provisioning/dashboards/serving.yaml": monitoring.dashboard_provider(),
        **_below("kubernetes", kubernetes.manifests(deployment)),
        **_below("kserve", kubernetes.inference_services(deployment)),
    }
    for path, document in documents.items():
        files[path] = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    files["grafana/dashboards/serving.json"] = _json(monitoring.dashboard())
    marker = {
        "schema_version": 1,
        "artifacts": os.path.relpath(deployment.artifacts, directory),
        "files": {path: _digest(text.encode()) for path, text in sorted(files.items())},
    }
    return {**files, MARKER: _json(marker)}


def publish(files: dict[str, str], directory: Path, *, overwrite: bool = False) -> None:
    """Writes a deployment to a temporary directory and moves it into place.

    Args:
        files: from `render`.
        directory: its place. It must be absent or empty; with `overwrite` it may be an earlier
            deployment in which nothing but `models.config` was edited.
        overwrite: whether to replace the earlier deployment.

    Raises:
        ServingError: if something else is there, which is then left unchanged.
    """
    _refuse_other(directory, overwrite)
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        new, old = staging / "new", staging / "old"
        for name, text in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, text)
        for path in [new, *new.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        if not overwrite or not directory.exists():
            new.rename(directory)
            return
        directory.rename(old)
        try:
            new.rename(directory)
        except OSError:
            old.rename(directory)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def labels_in(directory: Path) -> dict[str, dict[str, int]]:
    """Reads the labels of an existing deployment: version by label by model, or empty."""
    path = directory / MODELS_CONFIG
    if not path.is_file():
        return {}
    config = server.parse_models(path.read_text()).model_config_list.config
    return {entry.name: dict(entry.version_labels) for entry in config if entry.version_labels}


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Keeps other processes from changing the deployment inside the block."""
    handle = os.open(directory / MARKER, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file atomically: readers see the old text or the new one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(handle)
    try:
        _write(Path(name), text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _refuse_other(directory: Path, overwrite: bool) -> None:
    if not os.path.lexists(directory) or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not overwrite:
        raise ServingError(
            f"{directory} exists; give --overwrite to rewrite a deployment (its labels stay), or "
            "name another directory."
        )
    known = read_marker(directory)["files"]
    for path in sorted(directory.rglob("*")):
        file = path.relative_to(directory).as_posix()
        if path.is_dir() or file in (MARKER, MODELS_CONFIG):
            continue
        if known.get(file) != _digest(path.read_bytes()):
            raise ServingError(
                f"{path} was {'edited' if file in known else 'added'} by hand and would be lost; "
                "move it out of the directory first."
            )


def _below(directory: str, documents: dict[str, Any]) -> dict[str, Any]:
    return {f"{directory}/{name}": document for name, document in documents.items()}


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
