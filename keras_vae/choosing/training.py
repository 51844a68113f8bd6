"""Training of one candidate, which ends when it has settled, has lost, or its time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_vae.choosing.candidates import Candidate
from keras_vae.choosing.problem import Problem
from keras_vae.choosing.search import CLEAR, DROPPED, Trial, difference
from keras_vae.likelihood_model import LikelihoodModel
from keras_vae.runs.train import fit

__all__ = ["trained"]

_PATIENCE = 20
_SHARE_OF_PATIENCE = 5
_FIRST_CHECK = 4
_HOPE = 2.0
_REPAYS_XLA = 60.0


def trained(
    problem: Problem,
    candidate: Candidate,
    *,
    rival: Trial | None,
    share: float,
    epochs: int,
    watch: Callable[[str], None],
) -> tuple[Trial, LikelihoodModel, float]:
    """Trains a candidate and measures it on the validation examples.

    Training ends when the held-out bound has not risen for 20 epochs, or for a fifth of them if
    that is more, and when the time is up. After 4, 8, 16, ... epochs a candidate is dropped if it
    could not catch up with its rival even if every doubling of its epochs that is left gained twice
    as much as the last one did. Its best weights are measured.

    Args:
        problem: the data.
        candidate: the settings.
        rival: the trial that leads, or None.
        share: seconds that the training may take after its first epoch.
        epochs: most epochs.
        watch: called with a message after each epoch.

    Returns:
        The trial, its model, and the seconds that it took beside the epochs after the first one:
        those of building, compiling and measuring.
    """
    started = time.perf_counter()
    config, task = problem.task(candidate, epochs)
    keras.utils.set_random_seed(config.seed)
    vae = task.make(config)
    if share < _REPAYS_XLA:
        _without_xla(vae)
    race = _Race(problem, candidate, rival, share, epochs, watch)
    fit(vae, config, task, [race])
    vae.set_weights(race.weights)
    trial = Trial(
        candidate,
        problem.validation(vae, candidate),
        epochs=race.best_epoch,
        seconds=time.perf_counter() - started,
        ended=race.ended,
        share=share,
    )
    return trial, vae, trial.seconds - race.seconds


def _without_xla(vae: Any) -> None:
    """Compiles a model again so that its steps are not compiled by XLA."""
    config = vae.get_compile_config()
    options = {key: config[key] for key in config if key not in ("optimizer", "objective")}
    vae.compile(vae.optimizer, vae.objective, **{**options, "jit_compile": False})


class _Race(keras.callbacks.Callback):
    """Callback that keeps the best weights and ends a training that need not go on."""

    def __init__(
        self,
        problem: Problem,
        candidate: Candidate,
        rival: Trial | None,
        share: float,
        limit: int,
        watch: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.ended = "epochs"
        self.best_epoch = 0
        self.weights: list[np.ndarray] = []
        self._problem, self._candidate, self._rival = problem, candidate, rival
        self._share, self._limit, self._watch = share, limit, watch
        self._best: list[float] = []
        self._started = self.seconds = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps the weights if they are the best so far, and ends the training if it may."""
        value = self._problem.nats(self.model, self._candidate, (logs or {})["val_elbo"])
        if not self._best or value > self._best[-1]:
            self.best_epoch, self.weights = epoch + 1, self.model.get_weights()
        self._best.append(max([value, *self._best[-1:]]))
        now = time.perf_counter()
        if not epoch:
            self._started = now
        now -= self._started
        self.seconds = now
        self._watch(
            f"{self._candidate}: epoch {epoch + 1}, {value:.2f} nats, "
            f"{now:.0f} of {self._share:.0f} s"
        )
        if ended := self._end(epoch + 1, now):
            self.ended = ended
            self.model.stop_training = True

    def _end(self, done: int, now: float) -> str | None:
        """Returns why the training ends after so many epochs; None if it goes on."""
        if done - self.best_epoch >= max(_PATIENCE, done // _SHARE_OF_PATIENCE):
            return "settled"
        per_epoch = now / (done - 1) if done > 1 else 0.0
        if now + per_epoch > self._share:
            return "time"
        if self._has_lost(done, (self._share - now) / per_epoch if per_epoch else math.inf):
            return DROPPED
        return None

    def _has_lost(self, done: int, left: float) -> bool:
        """Tells whether the candidate could not catch up in the epochs that are left."""
        if self._rival is None or done < _FIRST_CHECK or done & (done - 1):
            return False
        gain = self._best[-1] - self._best[done // 2 - 1]
        hope = _HOPE * gain * math.log2(min(done + left, self._limit) / done)
        if self._best[-1] + hope >= self._rival.mean:
            return False
        bounds = self._problem.validation(self.model, self._candidate)
        mean, error = difference(bounds, self._rival.bounds)
        return mean + hope < -CLEAR * error
