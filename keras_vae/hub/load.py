"""Loading of models from the hub."""

from __future__ import annotations

import glob
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from keras_vae import integrity
from keras_vae.hub import contents, remote
from keras_vae.hub.contents import ARCHIVE, HubError

__all__ = ["from_hub", "pull"]

_SHOWN = 5


def from_hub(
    repo: str,
    revision: str | None = None,
    *,
    token: str | None = None,
    report: Callable[[str], None] = print,
) -> Any:
    """Loads a model from the Hugging Face Hub without running any code of the repository.

    Only the files that Keras writes of a model are downloaded, into the cache of
    `huggingface_hub`. A model with a `Lambda` layer, a pickle or a class that is not registered is
    refused, whatever `keras.config.enable_unsafe_deserialization` says. If there is an artifact
    beside the model, its manifest states the digest of the weights, which must agree.

    The model takes prepared data, as every model does. `pull` also brings the run, with its
    preparation.

    Args:
        repo: OWNER/NAME, or its address hf://OWNER/NAME.
        revision: branch, tag or commit; None is the newest of the branch main.
        token: access token; None takes the one that `hf auth login` stored, or HF_TOKEN.
        report: called with messages: the commit that was loaded, unless `revision` is one, and
            files that were left out.

    Returns:
        The model, compiled if it was compiled when it was pushed.

    Raises:
        HubError: if the repository or revision cannot be read, or holds what is refused.
        ImportError: naming the extra if `huggingface_hub` is not installed.

    Example:
        >>> import keras_vae
        >>> keras_vae.from_hub("digits")
        Traceback (most recent call last):
            ...
        keras_vae.hub.contents.HubError: Expected OWNER/NAME of a repository on the hub; ...
    """
    repo = remote.repository(repo)
    api = remote.client(token)
    found = _listed(api, repo, revision)
    versions = {contents.artifact_version(name) for name in found.names} - {None}
    manifest = f"artifact/{max(versions, default=0)}/{integrity.MANIFEST}"  # type: ignore[type-var]
    wanted = [*found.of_model, *(name for name in found.names if name == manifest)]
    with remote.explained(repo, revision):
        folder = Path(
            api.snapshot_download(
                repo,
                revision=revision,
                allow_patterns=[glob.escape(name) for name in wanted] or list(contents.PATTERNS),
                local_files_only=found.commit is None,
            )
        )
    with tempfile.TemporaryDirectory() as name:
        path = _archive(folder, found.of_model or _present(folder), Path(name), repo)
        model = _loaded(path, repo)
    if (folder / manifest).is_file():
        _check_digest(model, json.loads((folder / manifest).read_text()), repo)
    _say(found, repo, folder.name, revision, report)
    return model


def pull(
    repo: str,
    directory: str | Path,
    revision: str | None = None,
    *,
    token: str | None = None,
    report: Callable[[str], None] = print,
) -> str:
    """Downloads model, run and artifact from the hub into a new directory.

    The directory holds `model.keras` and, of a run, the files that `keras-vae sample` and `export`
    read. Every file of an artifact is compared with the hash in its manifest. The directory appears
    by one rename when everything in it was checked, or not at all.

    Args:
        repo: OWNER/NAME, or its address hf://OWNER/NAME.
        directory: directory to make.
        revision: branch, tag or commit; None is the newest of the branch main.
        token: access token; None takes the one that `hf auth login` stored, or HF_TOKEN.
        report: called with messages.

    Returns:
        The commit that was downloaded.

    Raises:
        HubError: if the repository or revision cannot be read, or holds what is refused.
        ArtifactError: if a file of the artifact is not the one that was published.
        FileExistsError: if the directory exists.
        ImportError: naming the extra if `huggingface_hub` is not installed.

    Example:
        >>> pull("digits", "runs/digits")
        Traceback (most recent call last):
            ...
        keras_vae.hub.contents.HubError: Expected OWNER/NAME of a repository on the hub; ...
    """
    repo, target = remote.repository(repo), Path(directory)
    if target.exists():
        raise FileExistsError(17, "exists already; choose another directory", str(target))
    api = remote.client(token)
    found = _listed(api, repo, revision)
    if found.commit is None:
        raise HubError(f"The hub cannot be reached for {repo}: check the connection.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".keras_vae-") as name:
        folder, ready = Path(name) / "downloaded", Path(name) / "ready"
        ready.mkdir()
        with remote.explained(repo, revision):
            api.snapshot_download(
                repo,
                revision=found.commit,
                allow_patterns=[glob.escape(name) for name in found.known],
                local_dir=folder,
            )
        path = _archive(folder, found.of_model, ready, repo)
        contents.refuse_code(path, repo)
        for version in (folder / "artifact").glob("*"):
            integrity.check(version)
        for name in (*contents.RUN, contents.CARD, "artifact"):
            if (folder / name).exists():
                shutil.move(folder / name, ready / name)
        ready.rename(target)
    _say(found, repo, found.commit, revision, report)
    return found.commit


class _Listing(NamedTuple):
    """Files of a repository at a commit; no names and None where the hub cannot be reached."""

    commit: str | None
    names: list[str]

    @property
    def known(self) -> list[str]:
        """Those that `push_to_hub` writes."""
        return [name for name in self.names if contents.is_known(name)]

    @property
    def of_model(self) -> list[str]:
        """Those of the model: what Keras writes into a directory, or else one archive."""
        return _of_model(self.names)


def _of_model(names: list[str]) -> list[str]:
    found = [name for name in names if contents.is_of_model(name)]
    return found if "config.json" in found else [name for name in names if name == ARCHIVE]


def _listed(api: Any, repo: str, revision: str | None) -> _Listing:
    """Lists a repository; where there is no connection, the cache is left to answer.

    Raises:
        HubError: if it holds no model.
    """
    with remote.explained(repo, revision):
        try:
            info = api.model_info(repo, revision=revision)
        except Exception as error:
            if remote.is_unreachable(error):
                return _Listing(None, [])
            raise
    found = _Listing(info.sha, [entry.rfilename for entry in info.siblings or ()])
    if not found.of_model:
        raise HubError(
            f"{repo} holds no model that Keras saved: expected config.json and model.weights.h5, "
            f"or {ARCHIVE}; got {_few(found.names) or 'no files'}."
        )
    return found


def _archive(folder: Path, names: list[str], target: Path, repo: str) -> Path:
    """Returns the model of a download as one .keras file in another folder."""
    path = target / ARCHIVE
    if names == [ARCHIVE]:
        shutil.copyfile(folder / ARCHIVE, path)
        return path
    missing = [name for name in ("config.json", "model.weights.h5") if name not in names]
    if missing:
        raise HubError(f"{repo} lacks {missing[0]}, which Keras writes of every model.")
    contents.pack(folder, names, path)
    return path


def _present(folder: Path) -> list[str]:
    """Lists the files of a model in a download that was found in the cache."""
    return _of_model([path.relative_to(folder).as_posix() for path in folder.rglob("*")])


def _loaded(path: Path, repo: str) -> Any:
    import keras

    from keras_vae.latent_variable_model import LatentVariableModel

    contents.refuse_code(path, repo)
    try:
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:
        raise HubError(f"{repo} cannot be loaded: {' '.join(str(error).split()):.500}") from error
    if not isinstance(model, LatentVariableModel):
        raise HubError(
            f"Expected a model of keras_vae in {repo}; got a {type(model).__name__}. Load it with "
            f"keras.saving.load_model('hf://{repo}')."
        )
    return model


def _check_digest(model: Any, manifest: dict[str, Any], repo: str) -> None:
    """Refuses a model whose weights are not those of the artifact beside it."""
    from keras_vae.runs.weights import digest

    trained_in = manifest.get("precision", {}).get("trained_in")
    if trained_in == ["float32"] and digest(model) != manifest.get("weights_digest"):
        raise HubError(
            f"Refused {repo}: the weights of its model are not those that the manifest of its "
            "artifact states. One of them was replaced."
        )


def _say(
    found: _Listing,
    repo: str,
    commit: str,
    revision: str | None,
    report: Callable[[str], None],
) -> None:
    ignored = sorted(set(found.names) - set(found.known) - {".gitattributes"})
    if ignored:
        report(f"Left out of {repo}, as no part of a model: {_few(ignored)}.")
    if found.commit is None:
        report(f"The hub cannot be reached; {repo} comes from the cache.")
    if revision != commit:
        report(f"Loaded {repo} at commit {commit}; revision={commit!r} pins it.")


def _few(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
