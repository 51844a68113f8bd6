"""Records: the finished trials of a choice on disk, from which a killed one continues."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vae.choosing.candidates import Candidate
from keras_vae.choosing.search import DROPPED, Trial
from keras_vae.likelihood_model import LikelihoodModel
from keras_vae.runs.config import RESTORE, RunError
from keras_vae.runs.setting import is_a
from keras_vae.training.backup import write_atomically

__all__ = ["Records"]

_SETTINGS = "settings.json"
_LEAST_SHARE = 0.8
_OF_TRIAL = ("epochs", "seconds", "ended", "share")


class Records:
    """Directory of trials; each is complete once its `trial.json` is there.

    A trial holds `trial.json`, `bounds.npy` and, unless it was dropped, `model.keras`.

    Args:
        path: the directory.
        resume: whether to use the trials that are there.

    Raises:
        RunError: if the directory is not empty and is not to be continued, or has no choice.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        settings = path / _SETTINGS
        if not any(path.iterdir()):
            return
        if not resume:
            raise RunError(
                f"{path} exists and is not empty. Continue it with --resume or choose another "
                "--out."
            )
        if not settings.is_file():
            raise RunError(f"{path} holds no choice to continue: choose another --out.")

    def check(self, settings: dict[str, Any]) -> None:
        """Refuses trials of other settings or data; writes the settings if there are none.

        Raises:
            RunError: naming the settings that differ.
        """
        path = self.path / _SETTINGS
        settings = json.loads(json.dumps(settings))
        if not path.is_file():
            with write_atomically(path) as temporary:
                temporary.write_text(json.dumps(settings, indent=2) + "\n")
            return
        known = _read(path)
        both = sorted(known | settings)
        names = [name for name in both if settings.get(name) != known.get(name)]
        if names:
            raise RunError(
                f"{self.path} holds trials of other {', '.join(names)}. Continue them with the "
                "same command and the same data, or choose another --out."
            )

    @property
    def seconds(self) -> float:
        """Time that all trials on disk took."""
        return sum(_trial(path)["seconds"] for path in self.path.glob("trials/*/trial.json"))

    def load(self, candidate: Candidate, share: float, examples: int) -> Trial | str | None:
        """Returns a finished trial, why it failed, or None if it must be trained.

        A trial whose time was up is trained again if it may now take longer.

        Args:
            candidate: the settings.
            share: seconds that the training may now take.
            examples: number of validation examples.

        Raises:
            RunError: if a file of the trial is damaged or missing.
        """
        folder = self._folder(candidate)
        if not (folder / "trial.json").is_file():
            return None
        values = _trial(folder / "trial.json")
        if values["ended"] == "failed":
            return values["reason"]
        if values["ended"] == "time" and values["share"] < _LEAST_SHARE * share:
            return None
        try:
            bounds = np.load(folder / "bounds.npy")
        except (EOFError, OSError, ValueError) as error:
            raise _damaged(folder / "bounds.npy") from error
        if bounds.shape != (examples,) or bounds.dtype.kind != "f":
            raise _damaged(folder / "bounds.npy")
        if values["ended"] != DROPPED and not (folder / "model.keras").is_file():
            raise _damaged(folder / "model.keras")
        return Trial(candidate, bounds, *(values[name] for name in _OF_TRIAL))

    def save(self, trial: Trial, vae: LikelihoodModel | None) -> None:
        """Writes a trial, and its model unless it is None."""
        folder = self._cleared(trial.candidate)
        with write_atomically(folder / "bounds.npy") as temporary:
            np.save(temporary, trial.bounds)
        if vae is not None:
            with write_atomically(folder / "model.keras") as temporary:
                vae.save(temporary)
        values = {name: getattr(trial, name) for name in _OF_TRIAL}
        self._commit(folder, {**trial.candidate._asdict(), "elbo": trial.mean, **values})

    def fail(self, candidate: Candidate, reason: str, seconds: float) -> None:
        """Writes that a candidate could not be trained."""
        values = {"ended": "failed", "reason": reason, "seconds": seconds}
        self._commit(self._cleared(candidate), {**candidate._asdict(), **values})

    def model(self, candidate: Candidate) -> Any:
        """Loads the model of a trial."""
        path = self._folder(candidate) / "model.keras"
        try:
            return keras.saving.load_model(path)
        except Exception as error:
            raise _damaged(path) from error

    def remove(self) -> None:
        """Removes all trials and the settings, when there is nothing to continue."""
        shutil.rmtree(self.path / "trials", ignore_errors=True)
        (self.path / _SETTINGS).unlink()

    def _folder(self, candidate: Candidate) -> Path:
        return self.path / "trials" / "-".join(map(str, candidate))

    def _cleared(self, candidate: Candidate) -> Path:
        folder = self._folder(candidate)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _commit(self, folder: Path, values: dict[str, Any]) -> None:
        with write_atomically(folder / "trial.json") as temporary:
            temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise TypeError("Expected an object.")
    except (OSError, TypeError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {RESTORE}.") from error
    return values


def _trial(path: Path) -> dict[str, Any]:
    """Reads the record of a trial."""
    try:
        values = _read(path)
    except RunError as error:
        raise _damaged(path) from error
    has_failed = values.get("ended") == "failed"
    kinds = {"ended": str, "seconds": float}
    kinds |= {"reason": str} if has_failed else {"epochs": int, "share": float}
    if not all(is_a(kind, values.get(name)) for name, kind in kinds.items()):
        raise _damaged(path)
    return values


def _damaged(path: Path) -> RunError:
    return RunError(
        f"{path} is missing or damaged. Remove the directory {path.parent}, and --resume trains "
        "this model again."
    )
