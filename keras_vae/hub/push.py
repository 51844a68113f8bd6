"""Pushing of models to the hub."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from keras_vae import integrity
from keras_vae.hub import contents, remote
from keras_vae.hub.card import card
from keras_vae.hub.contents import ARCHIVE, CARD, EVALUATION, HubError
from keras_vae.spelling import counted

__all__ = ["Pushed", "model_file", "push_to_hub"]

_PATHS = ("data", "test_data", "schema", "cache")
"""Settings of a run that are paths, of which only the last part is pushed."""


class Pushed(NamedTuple):
    """A model on the hub.

    Attributes:
        repo: OWNER/NAME of the repository.
        commit: the commit, which `from_hub` takes as `revision`.
        url: address of the commit.

    Example:
        >>> Pushed("ada/digits", "5f0c", "https://huggingface.co/ada/digits/commit/5f0c").commit
        '5f0c'
    """

    repo: str
    commit: str
    url: str


def push_to_hub(
    model: Any,
    repo: str,
    *,
    artifact: str | os.PathLike[str] | None = None,
    license: str | None = None,
    description: str = "",
    private: bool | None = None,
    token: str | None = None,
    message: str = "Push a model of keras_vae",
    report: Callable[[str], None] = print,
) -> Pushed:
    """Pushes a model to the Hugging Face Hub in one commit.

    The repository is created if it does not exist. It gets the files that
    `keras.saving.load_model("hf://OWNER/NAME")` reads, the run without the paths of its data, the
    artifact, and a model card. The metadata of the card hold the bounds that `keras-vae evaluate`
    measured, in nats with standard errors; nothing is measured here. Files of an earlier push that
    are no part of this one are removed by the same commit, and other files are left alone.

    Args:
        model: directory of a run, a .keras file, or a model.
        repo: OWNER/NAME, or its address hf://OWNER/NAME.
        artifact: version that was exported of the model, such as artifacts/digits/1.
        license: licence of the weights by its name on the hub, such as "apache-2.0".
        description: text for the top of the card, in Markdown.
        private: whether a new repository is private; None takes the owner's default.
        token: access token; None takes the one that `hf auth login` stored, or HF_TOKEN.
        message: message of the commit.
        report: called with messages.

    Returns:
        Repository, commit and address.

    Raises:
        HubError: if the hub refuses, or `from_hub` would refuse the model.
        ArtifactError: if the artifact was changed after publishing.
        ImportError: naming the extra if `huggingface_hub` is not installed.

    Example:
        >>> import keras_vae
        >>> keras_vae.push_to_hub(keras_vae.mlp_vae(4, 2), "digits")
        Traceback (most recent call last):
            ...
        keras_vae.hub.contents.HubError: Expected OWNER/NAME of a repository on the hub; ...
    """
    repo = remote.repository(repo)
    api = remote.client(token)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = _written(model, folder)
        manifest, number = None, None
        if artifact is not None:
            version = Path(artifact)
            manifest = integrity.check(version).entries
            _check_belongs(folder / ARCHIVE, manifest, version)
            number = int(version.name) if version.name.isdigit() else 1
            names = [integrity.MANIFEST, *manifest["files"]]
            files |= {f"artifact/{number}/{each}": version / each for each in names}
        (folder / CARD).write_text(
            card(
                repo,
                _config(folder),
                license=license,
                description=description,
                evaluation=_evaluation(files, manifest),
                data=_data(files, manifest),
                artifact=number,
            )
        )
        files[CARD] = folder / CARD
        with remote.explained(repo):
            pushed = _commit(api, repo, files, private, message)
    report(f"Pushed {counted(len(files), 'file')} to {pushed.url}")
    return pushed


def model_file(path: Path) -> Path:
    """Returns the model file of a path, which may be the directory of a run.

    Raises:
        HubError: if there is none.
    """
    file = path / ARCHIVE if path.is_dir() else path
    if not file.is_file() or file.suffix != ".keras":
        raise HubError(
            f"Expected the directory of a run with {ARCHIVE}, a .keras file, or a model; got "
            f"{path}."
        )
    return file


def _written(model: Any, folder: Path) -> dict[str, Path]:
    """Returns the files of a model and of its run by their names in the repository."""
    archive, run = folder / ARCHIVE, None
    if isinstance(model, str | os.PathLike):
        file = model_file(Path(model))
        archive.symlink_to(file.resolve())
        run = file.parent if Path(model).is_dir() else None
    else:
        model.save(archive)
    contents.refuse_code(archive, "the model")
    files = {name: folder / name for name in contents.unpack(archive, folder)}
    for name in contents.RUN:
        if run is not None and (run / name).is_file():
            files[name] = run / name
    if "config.toml" in files:
        files["config.toml"] = folder / "config.toml"
        (folder / "config.toml").write_text(_without_paths(run))
    return {name: path for name, path in files.items() if path.is_file()}


def _without_paths(run: Any) -> str:
    """Returns the configuration of a run, without the directories of its data."""
    from keras_vae.runs.config_file import read_run

    config = read_run(run)
    named: dict[str, Any] = {name: Path(getattr(config, name)).name for name in _PATHS}
    return dataclasses.replace(config, **named).to_toml()


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / contents.CONFIG).read_text())
    return found


def _evaluation(files: dict[str, Path], manifest: Any) -> dict[str, Any] | None:
    from keras_vae.runs import measurements

    if EVALUATION in files:
        return measurements.read(files[EVALUATION])
    found: dict[str, Any] | None = (manifest or {}).get("training", {}).get("evaluation")
    return found


def _data(files: dict[str, Path], manifest: Any) -> str | None:
    """Returns the name of the data set that the model was measured on."""
    from keras_vae.runs.config_file import read_run

    if "config.toml" in files:
        config = read_run(files["config.toml"].parent)
        return Path(config.data).stem
    config = (manifest or {}).get("training", {}).get("config")
    return Path(config["data"]).stem if config else None


def _check_belongs(archive: Path, manifest: dict[str, Any], version: Path) -> None:
    """Refuses an artifact of other weights than the model's.

    Raises:
        HubError: if they differ.
    """
    import keras

    from keras_vae.runs.weights import digest

    if manifest.get("precision", {}).get("trained_in") != ["float32"]:
        return
    model = keras.saving.load_model(archive)
    if digest(model) != manifest["weights_digest"]:
        raise HubError(
            f"{version} is not an artifact of this model: its weights are others. Export the model "
            "again, or leave the artifact out."
        )


def _commit(
    api: Any, repo: str, files: dict[str, Path], private: bool | None, message: str
) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    api.create_repo(repo, private=private, exist_ok=True)
    info = api.model_info(repo)
    before = [entry.rfilename for entry in info.siblings or ()]
    stale = [name for name in before if contents.is_known(name) and name not in files]
    operations = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
    operations += [CommitOperationDelete(name) for name in stale]
    done = api.create_commit(repo, operations, commit_message=message, parent_commit=info.sha)
    return Pushed(repo, done.oid, str(done.commit_url))
