"""Training of a run: trains the model of a configuration into a directory."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_vae import callbacks, data
from keras_vae.likelihood_model import LikelihoodModel
from keras_vae.runs import fingerprint, sequences
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.lock import held
from keras_vae.runs.run import FINGERPRINT, SCHEMA, Run
from keras_vae.runs.tasks import Task, task_of
from keras_vae.spelling import counted
from keras_vae.training.backup import write_atomically

__all__ = ["epochs_of_one_save", "fit", "learning_rate", "train"]


def learning_rate(config: RunConfig, epoch: int, epochs: int) -> float:
    """Returns the learning rate of one of so many epochs, counted from 0."""
    if config.learning_rate_schedule == "cosine":
        return config.first_learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
    passed = sum(milestone <= epoch for milestone in config.learning_rate_milestones)
    return config.first_learning_rate * config.learning_rate_decay**passed


def train(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    report: Callable[[str], None] = lambda sentence: None,
    extra_callbacks: tuple[keras.callbacks.Callback, ...] = (),
) -> Run:
    """Trains a model into a run directory, or continues a killed training.

    Args:
        config: what to train. For a resumed run, only the paths of the data and the number of
            epochs count: training continues until that many are finished, which are those of the
            run if `epochs` is "auto".
        out: the run directory.
        resume: whether to continue the existing run.
        report: called with messages about the progress.
        extra_callbacks: Keras callbacks, such as a progress bar.

    Raises:
        RunError: if the directory is in use, a setting has no effect, or the data of the run that
            is continued has changed.
        DataError: if the data cannot be read or does not suit the likelihood.
        NonFiniteError: if training is no longer finite; the last good model stays.
        OSError: if the directory cannot be written.
    """
    out = Path(out)
    with held(out):
        run = Run(out) if resume and (out / "config.toml").is_file() else None
        if run is not None:
            config = dataclasses.replace(
                run.config,
                epochs=run.config.epochs if config.epochs == "auto" else config.epochs,
                data=config.data or run.config.data,
                test_data=config.test_data or run.config.test_data,
                cache=config.cache or run.config.cache,
            )
        elif any(out.iterdir()):
            raise RunError(
                f"{out} exists and is not empty. Continue it with --resume or choose another --out."
            )
        else:
            config.refuse_idle()
        config, task = task_of(config, run, report)
        return _fit(config, task, run, out, report, extra_callbacks)


def _fit(
    config: RunConfig,
    task: Task,
    run: Run | None,
    out: Path,
    report: Callable[[str], None],
    extra_callbacks: tuple[keras.callbacks.Callback, ...],
) -> Run:
    keras.utils.set_random_seed(config.seed)
    finished, vae = 0, None
    epochs = config.epochs_of(task.examples)
    of_data = fingerprint.fingerprint(task)
    if run is not None:
        fingerprint.refuse_changed(run, of_data)
    if run is not None and run.model_path.is_file():
        vae = run.load()
        finished = run.finished(vae, task.examples)
        run.history(finished)
        if finished >= epochs:
            report(
                f"{counted(finished, 'epoch')} finished, {epochs} requested: nothing to do. "
                "Set --epochs to train longer."
            )
            return run
    if vae is None:
        vae = task.make(config)
    is_new = run is None
    if is_new:
        for name, kept in ((SCHEMA, task.schema), (sequences.VOCABULARY, task.vocabulary)):
            if kept is not None:
                with write_atomically(out / name) as temporary:
                    kept.save(temporary)
    with write_atomically(out / "config.toml") as temporary:
        temporary.write_text(config.to_toml())
    run = Run(out)
    fingerprint.write(run, of_data)
    if finished:
        report(f"Continuing after epoch {finished} of {epochs}.")
    every = epochs_of_one_save(epochs, data.steps(task.examples, config.batch_size))
    with _kept_or_removed(run, is_new):
        fit(vae, config, task, [_SaveRun(run, finished, every), *extra_callbacks], finished)
    return run


def fit(
    vae: LikelihoodModel,
    config: RunConfig,
    task: Task,
    extra_callbacks: Sequence[keras.callbacks.Callback] = (),
    initial_epoch: int = 0,
) -> None:
    """Trains a model as a configuration says, and validates it on the test set after each epoch.

    Args:
        vae: the model.
        config: the configuration.
        task: the data.
        extra_callbacks: Keras callbacks.
        initial_epoch: number of finished epochs.
    """
    epochs = config.epochs_of(task.examples)
    schedule: list[keras.callbacks.Callback] = []
    if config.learning_rate_milestones or config.learning_rate_schedule == "cosine":
        schedule.append(
            keras.callbacks.LearningRateScheduler(
                lambda epoch: learning_rate(config, epoch, epochs)
            )
        )
    if config.warmup_epochs and config.objective == "elbo":
        schedule.append(
            callbacks.LinearSchedule("beta", stop=config.beta, epochs=config.warmup_epochs)
        )
    vae.fit(
        data.batches(
            task.train,
            config.batch_size,
            epochs=epochs,
            initial_epoch=initial_epoch,
            seed=config.seed,
            **task.stream,
        ),
        steps_per_epoch=data.steps(task.examples, config.batch_size),
        epochs=epochs,
        initial_epoch=initial_epoch,
        validation_data=task.test,
        validation_batch_size=500,
        verbose=0,
        callbacks=[*schedule, *extra_callbacks],
    )


def epochs_of_one_save(epochs: int, steps: int) -> int:
    """Returns how many epochs of so many steps pass between saves.

    It is one, unless the epochs are so short that saving would take longer than training: then the
    saves are up to 50 steps apart, and at least 20.

    Example:
        >>> [epochs_of_one_save(*of) for of in ((20, 2), (500, 2), (59, 17), (3280, 3000))]
        [1, 25, 2, 1]
    """
    return max(1, min(epochs // 20, 50 // steps))


@contextmanager
def _kept_or_removed(run: Run, is_new: bool) -> Iterator[None]:
    """Removes the files of a new run that fails before its first epoch is saved.

    A run that is killed or interrupted keeps them, and can be resumed.
    """
    try:
        yield
    except Exception:
        if is_new and not run.model_path.is_file():
            for name in ("config.toml", "history.csv", SCHEMA, FINGERPRINT, sequences.VOCABULARY):
                (run.path / name).unlink(missing_ok=True)
        raise


class _SaveRun(keras.callbacks.Callback):
    """Callback that writes history and model every few epochs and at the end, in this order."""

    def __init__(self, run: Run, finished: int, every: int) -> None:
        super().__init__()
        self._run = run
        self._every = every
        self._is_saved = True
        self._rows = run.history(finished)[:finished] if finished else []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._rows.append({"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}})
        self._is_saved = (epoch + 1) % self._every == 0
        if self._is_saved:
            self._save()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._is_saved:
            self._save()

    def _save(self) -> None:
        self._run.write_history(self._rows)
        self._run.save(self.model)
