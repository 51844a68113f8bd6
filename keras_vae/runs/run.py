"""Runs: a directory that holds one training, readable at any moment of it.

`history.csv` is replaced before `model.keras`, each by one rename, and the number of finished
epochs is read from the model's own optimizer: whatever moment a process is killed at, the next
one finds a whole model and drops at most one row of history that ran ahead of it.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import fcntl
import io
import json
import os
import shlex
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_vae import callbacks, data, factories, objectives
from keras_vae.data.columns import positions
from keras_vae.data.preparation import Preparation, prepare, propose
from keras_vae.model import VAE
from keras_vae.runs.config import RESTORE
from keras_vae.runs.config import RunConfig as RunConfig
from keras_vae.runs.config import RunError as RunError
from keras_vae.runs.config import read_config as read_config
from keras_vae.training.backup import leftovers, write_atomically

__all__ = [
    "Run",
    "RunConfig",
    "RunError",
    "build",
    "read_config",
    "read_json",
    "refuse_damaged",
    "resume_command",
    "train",
]

_STEPS_OF_WARM_UP = 20
"""Training steps per execution during KL warm-up; beta is updated once per execution."""


def build(config: RunConfig, event_shape: tuple[int, ...]) -> VAE:
    """Returns the compiled model of a configuration, with new weights.

    Args:
        config: what to train; its likelihood is not "auto".
        event_shape: shape of one prepared example.
    """
    make = factories.conv_vae if config.network == "conv" else factories.mlp_vae
    widths: dict[str, Any] = {"filters" if config.network == "conv" else "hidden": config.hidden}
    vae = make(
        event_shape,
        config.latent,
        config.likelihood,
        activation=config.activation,
        posterior=config.posterior,
        prior=config.prior,
        num_components=config.components,
        **widths,
        **config.likelihood_options,
    )
    gradient: Any = config.gradient
    kl: Any = config.kl or None
    objective: objectives.Objective
    if config.objective == "iwae":
        objective = objectives.IWAE(config.num_samples, gradient=gradient)
    else:
        objective = objectives.ELBO(
            kl=kl,
            num_samples=config.num_samples,
            beta=config.beta,
            free_bits=config.free_bits,
            gradient=gradient,
        )
    adam = keras.optimizers.Adam(
        config.learning_rate, config.adam_beta_1, epsilon=config.adam_epsilon
    )
    steps = _STEPS_OF_WARM_UP if config.warmup_epochs else None
    vae.compile(adam, objective, monitor=config.monitor, steps_per_execution=steps)
    return vae


class Run:
    """A run directory: `config.toml`, `model.keras`, `history.csv`, `evaluation.json`.

    Args:
        path: the directory.

    Raises:
        RunError: if it holds no readable run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "config.toml").is_file():
            raise RunError(
                f"{self.path} is not a run directory: it holds no config.toml. Make one with "
                "`keras-vae train --out`."
            )
        self.config = read_config(self.path / "config.toml")
        if self.config.preparation is None:
            raise RunError(f"{self.path / 'config.toml'} lacks the section [preparation].")
        if self.config.likelihood == "auto":
            raise RunError(f"{self.path / 'config.toml'} does not say which likelihood it is of.")
        self.preparation: Preparation = self.config.preparation

    @property
    def model_path(self) -> Path:
        """Where the model is."""
        return self.path / "model.keras"

    def load(self) -> VAE:
        """Returns the trained model.

        Raises:
            RunError: if there is none yet, it cannot be read, or it is not that of `config.toml`.
        """
        if not self.model_path.is_file():
            raise RunError(
                f"{self.path} holds no model.keras yet: its training did not finish one epoch. "
                f"Continue it with `{resume_command(self.path)}`."
            )
        try:
            vae = keras.saving.load_model(self.model_path)
        except Exception as error:
            refuse_damaged(self.model_path)
            raise RunError(f"{self.model_path} cannot be read: {error}") from error
        self.check(vae)
        return vae

    def check(self, vae: VAE) -> None:
        """Refuses a model that is not the one `config.toml` describes.

        Raises:
            RunError: naming the first difference.
        """
        config, likelihood = self.config, vae.likelihood
        pairs: dict[str, tuple[Any, Any]] = {
            "likelihood": (
                type(likelihood).__name__,
                factories.LIKELIHOODS[config.likelihood].__name__,
            ),
            "latent": (vae.latent_size, config.latent),
            "posterior": (
                type(vae.posterior).__name__,
                factories.POSTERIORS[config.posterior].__name__,
            ),
            "prior": (type(vae.prior).__name__, factories.PRIORS[config.prior].__name__),
            "components": (
                getattr(vae.prior, "num_components", config.components),
                config.components,
            ),
        }
        for name, value in config.likelihood_options.items():
            pairs[name] = (getattr(likelihood, name, None), value)
        if config.features:
            pairs["features"] = (vae.feature_names, config.features)
        if self.preparation.center:
            pairs["center"] = (vae.event_shape[-1], len(self.preparation.center))
        for name, (found, said) in pairs.items():
            if found != said:
                raise RunError(
                    f"{self.model_path} is not the model of its config.toml, where {name} is "
                    f"{said} and not {found}: one of them was replaced. Train anew into another "
                    "directory."
                )
        trained, digest = vae.preparation_digest, self.preparation.digest
        if trained is not None and trained != digest:  # models of older versions have none
            raise RunError(
                f"{self.model_path} is not the model of its config.toml, where [preparation] has "
                f"the digest {digest[:8]} and not {trained[:8]}: one of them was edited or "
                "replaced. Put back the one that belongs to the other, or train anew into another "
                "directory."
            )

    def raw(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns training and test set as in their files, columns in the model's order."""
        parts = _parts(self.config)
        return parts.train, parts.test

    def finished(self, vae: VAE, examples: int) -> int:
        """Returns how many epochs a model has finished on so many training examples."""
        per_epoch = data.steps(examples, self.config.batch_size)
        return int(vae.optimizer.iterations.numpy()) // per_epoch

    def history(self, finished: int = 0) -> list[dict[str, float]]:
        """Returns one row of logs per finished epoch, whose `epoch` is an integer.

        Args:
            finished: how many epochs the model has finished, each of which needs a row.

        Raises:
            RunError: if `history.csv` is missing beside a model, is damaged or lacks rows.
        """
        path = self.path / "history.csv"
        if not path.is_file():
            if finished or self.model_path.is_file():
                raise RunError(
                    f"Expected {path} with one row per finished epoch; there is none: {RESTORE}."
                )
            return []
        rows: list[dict[str, float]] = []
        try:
            with path.open(newline="") as file:
                for row in csv.DictReader(file, strict=True):
                    numbers = {name: float(value) for name, value in row.items()}
                    if numbers["epoch"] != len(rows) + 1:
                        raise ValueError
                    rows.append({**numbers, "epoch": len(rows) + 1})
        except (csv.Error, KeyError, OverflowError, TypeError, ValueError) as error:
            raise RunError(
                f"Expected {path} to hold the numbers of each epoch under its header; the row of "
                f"epoch {len(rows) + 1} is damaged: {RESTORE}."
            ) from error
        if len(rows) < finished or not rows:
            raise RunError(
                f"Expected {path} to hold {max(finished, 1)} rows, one per finished epoch of the "
                f"model; it holds {len(rows)}: {RESTORE}."
            )
        return rows

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Replaces `history.csv`."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with write_atomically(self.path / "history.csv") as temporary:
            temporary.write_text(text.getvalue())

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Replaces a JSON file of the run."""
        with write_atomically(self.path / name) as temporary:
            temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")

    def save(self, vae: VAE) -> None:
        """Replaces `model.keras`."""
        with write_atomically(self.model_path) as temporary:
            vae.save(temporary)


def refuse_damaged(path: Path) -> None:
    """Refuses a model file that is cut off or changed, which Keras takes for a missing one.

    A file of another kind, told by its name, is left to whoever reads it.

    Raises:
        RunError: if it is not a whole zip archive.
    """
    if path.suffix != ".keras":
        return
    try:
        with zipfile.ZipFile(path) as archive:
            is_whole = archive.testzip() is None
    except OSError:
        return
    except Exception:  # whatever the decompressor says of bytes that are not its own
        is_whole = False
    if not is_whole:
        raise RunError(
            f"{path} is damaged: expected a whole model file as Keras saves it; got "
            f"{path.stat().st_size} bytes that are cut off or changed: {RESTORE}."
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def resume_command(out: str | os.PathLike[str]) -> str:
    """Returns the command that continues the training of a run directory."""
    return f"keras-vae train --resume --out {shlex.quote(os.fspath(out))}"


def train(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    report: Callable[[str], None] = lambda sentence: None,
    extra_callbacks: tuple[keras.callbacks.Callback, ...] = (),
) -> Run:
    """Trains a model into a run directory, or goes on where a killed training stopped.

    Args:
        config: what to train. Of a run that is resumed only the places of the data and the epochs
            count: training goes on until that many are finished.
        out: the run directory.
        resume: whether to continue the run that is there.
        report: called with sentences about what is done.
        extra_callbacks: Keras callbacks, such as a progress bar.

    Raises:
        RunError: if the directory is in use, or a setting does nothing.
        DataError: if the data cannot be read or does not suit the likelihood.
        NonFiniteError: if training stops being finite; the last good model stays.
        OSError: if the directory cannot be written.
    """
    out = Path(out)
    with _held(out):
        run = Run(out) if resume and (out / "config.toml").is_file() else None
        if run is not None:
            config = dataclasses.replace(
                run.config,
                epochs=config.epochs,
                data=config.data or run.config.data,
                test_data=config.test_data or run.config.test_data,
            )
        elif any(out.iterdir()):
            raise RunError(
                f"{out} exists and is not empty. Continue it with --resume or choose another --out."
            )
        else:
            config.refuse_idle()
        parts = _parts(config)
        report(f"{len(parts.train)} training and {len(parts.test)} test examples; {parts.columns}.")
        if config.keep_labels and not parts.features:
            raise RunError(
                f"keep_labels does nothing: {config.data} names no columns. Leave it out."
            )
        if config.preparation is None:
            config = _decided(config, parts, report)
        return _fit(config, parts, run, out, report, extra_callbacks)


def _decided(config: RunConfig, parts: _Parts, report: Callable[[str], None]) -> RunConfig:
    """Returns the configuration with what the data decides."""
    if config.likelihood == "auto":
        proposal = propose(
            factories.LIKELIHOODS.values(), [parts.train, parts.test], top=config.top or None
        )
        options = {**proposal.options, **config.likelihood_options}
        config = dataclasses.replace(
            config, likelihood=proposal.likelihood, likelihood_options=options
        )
        words = "".join(f", {name} {value}" for name, value in proposal.options.items())
        report(
            f"Likelihood {proposal.likelihood}{words}, for {proposal.reason}; --likelihood "
            "chooses another."
        )
        config.refuse_idle()
    likelihood = factories.LIKELIHOODS[config.likelihood]
    preparation, options = prepare(
        likelihood,
        parts.train,
        [parts.test],
        top=config.top or None,
        names=parts.features,
    )
    report(f"Preparation: {preparation.sentence}.")
    output_bias = config.output_bias
    if output_bias == "auto":
        is_far = likelihood.starts_at_mean(preparation)
        output_bias = "data_mean" if is_far and config.network == "mlp" else "zeros"
    return dataclasses.replace(
        config,
        features=parts.features,
        output_bias=output_bias,
        preparation=preparation,
        likelihood_options={**options, **config.likelihood_options},
    )


def _fit(
    config: RunConfig,
    parts: _Parts,
    run: Run | None,
    out: Path,
    report: Callable[[str], None],
    extra_callbacks: tuple[keras.callbacks.Callback, ...],
) -> Run:
    preparation = config.preparation or Preparation()
    train_x = preparation.static(parts.train)
    test_x = preparation.array(parts.test, config.seed)
    keras.utils.set_random_seed(config.seed)
    finished, vae = 0, None
    per_epoch = data.steps(len(train_x), config.batch_size)
    if run is not None and run.model_path.is_file():
        vae = run.load()
        finished = run.finished(vae, len(train_x))
        run.history(finished)
        if finished >= config.epochs:
            report(
                f"{finished} epochs are finished and {config.epochs} are asked for: nothing to do. "
                "--epochs asks for more."
            )
            return run
    if vae is None:
        vae = build(config, train_x.shape[1:])
        if config.output_bias == "data_mean":
            factories.start_at_mean(vae, preparation.mean(parts.train))
        vae.feature_names = parts.features or None
        vae.preparation_digest = preparation.digest
    is_new = run is None
    with write_atomically(out / "config.toml") as temporary:
        temporary.write_text(config.to_toml())
    run = Run(out)
    if finished:
        report(f"Continuing after epoch {finished} of {config.epochs}.")
    schedule: list[keras.callbacks.Callback] = []
    if config.learning_rate_milestones:
        schedule.append(keras.callbacks.LearningRateScheduler(config.learning_rate_at))
    if config.warmup_epochs and config.objective == "elbo":
        schedule.append(
            callbacks.LinearSchedule("beta", stop=config.beta, epochs=config.warmup_epochs)
        )
    with _kept_or_removed(run, is_new):
        vae.fit(
            data.batches(
                train_x,
                config.batch_size,
                epochs=config.epochs,
                initial_epoch=finished,
                seed=config.seed,
                **preparation.stream(),
            ),
            steps_per_epoch=per_epoch,
            epochs=config.epochs,
            initial_epoch=finished,
            validation_data=test_x,
            validation_batch_size=500,
            verbose=0,
            callbacks=[*schedule, _SaveRun(run, finished), *extra_callbacks],
        )
    return run


@contextmanager
def _kept_or_removed(run: Run, is_new: bool) -> Iterator[None]:
    """Removes the files of a new run that fails before its first epoch is saved.

    A run that is killed or interrupted keeps them, and can be resumed.
    """
    try:
        yield
    except Exception:
        if is_new and not run.model_path.is_file():
            for name in ("config.toml", "history.csv"):
                (run.path / name).unlink(missing_ok=True)
        raise


class _SaveRun(keras.callbacks.Callback):
    """Writes history and model after each epoch, in this order."""

    def __init__(self, run: Run, finished: int) -> None:
        super().__init__()
        self._run = run
        self._rows = run.history(finished)[:finished] if finished else []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._rows.append({"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}})
        self._run.write_history(self._rows)
        self._run.save(self.model)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Holds a run directory, so that one process at a time trains into it.

    It is made if it is missing, and removed again where nothing was written into it.
    """
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; choose another --out.")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    handle = _lock(path)
    try:
        for leftover in leftovers(path):
            leftover.unlink()
        yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        os.close(handle)


def _lock(path: Path) -> int:
    """Returns a descriptor of the directory, locked."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
            except BlockingIOError as error:
                os.close(handle)
                raise RunError(f"Another process is training into {path}; wait for it.") from error
            os.close(handle)  # another process removed it, empty, before it was locked


class _Parts(NamedTuple):
    """Training and test set as in their files.

    Attributes:
        train, test: arrays [N, ...], columns in the order of `features`.
        features: names of the columns; empty where they have none.
        columns: what is used as what, in words.
    """

    train: np.ndarray
    test: np.ndarray
    features: tuple[str, ...]
    columns: str


def _parts(config: RunConfig) -> _Parts:
    """Reads the data of a configuration.

    Raises:
        DataError: if it cannot be read.
        RunError: if its parts do not fit together.
    """
    if not config.data:
        raise RunError("The configuration does not say which data: set data to a path.")
    source = Path(config.data)
    in_two = config.data != "digits" and source.is_dir() and list(source.glob("t10k-images*"))
    if config.test_data or in_two:
        train = config.load(config.data, "train" if not config.test_data and in_two else None)
        test = (
            config.load(config.test_data) if config.test_data else config.load(config.data, "test")
        )
        names = config.features or train.feature_names or ()
        arrays = _arranged(train, names, config.data), _arranged(test, names, config.test_data)
        if arrays[0].shape[1:] != arrays[1].shape[1:]:
            raise RunError(
                f"Training examples have the shape {arrays[0].shape[1:]}, those of "
                f"{config.test_data or 'the test part'} {arrays[1].shape[1:]}. Give the same kind "
                "of data."
            )
        columns = train.columns
        if names and test.feature_names is None:
            columns += f"; {config.test_data} names no columns and is read in this order"
        return _Parts(*arrays, names, columns)
    whole = config.load(config.data)
    names = config.features or whole.feature_names or ()
    arrays = data.split(
        _arranged(whole, names, config.data), test_fraction=config.test_fraction, seed=config.seed
    )
    return _Parts(*arrays, names, whole.columns)


def _arranged(found: data.Data, names: tuple[str, ...], source: str) -> np.ndarray:
    """Returns the examples with their columns in the order of `names`."""
    if not names or found.feature_names is None:
        if names and found.x.shape[-1] != len(names):
            raise RunError(
                f"{source} has {found.x.shape[-1]} columns without names; expected "
                f"{len(names)}: {', '.join(names)}."
            )
        return found.x
    order = positions(found.feature_names, names, source)
    return found.x if order == list(range(len(order))) else found.x[:, order]
