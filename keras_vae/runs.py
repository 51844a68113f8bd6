"""Runs: a directory that holds one training, readable at any moment of it.

`history.csv` is replaced before `model.keras`, each by one rename, and the number of finished
epochs is read from the model's own optimizer: whatever moment a process is killed at, the next
one finds a whole model and drops at most one row of history that ran ahead of it.
"""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import io
import itertools
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tomli_w

from keras_vae import callbacks, data, factories, objectives
from keras_vae.backup import write_atomically
from keras_vae.data import Data
from keras_vae.estimators import Gradient
from keras_vae.model import VAE
from keras_vae.preparation import Preparation, prepare

__all__ = ["Run", "RunConfig", "RunError", "read_config", "train"]


_STEPS_OF_WARM_UP = 20
"""Steps in which beta stays as it is while it rises."""


class RunError(ValueError):
    """A run directory that cannot be used as asked."""


@dataclass(frozen=True)
class RunConfig:
    """Everything a training depends on; `config.toml` and recipes hold these names.

    Attributes:
        data: path or name for `keras_vae.data.load`.
        test_data: path of the test set; empty sets `test_fraction` of the data aside.
        test_fraction: share of the data set aside as test set.
        drop: names of columns of a table to leave out.
        keep_labels: whether a column that is named like labels is data as the others are.
        image_size: height and width to bring a directory of images to; empty leaves them.
        image_mode: mode to convert them to, see `keras_vae.data.load`; empty leaves them.
        likelihood: name as in `keras_vae.mlp_vae`.
        likelihood_options: arguments of the likelihood, such as scale and levels.
        network: "mlp" or "conv".
        hidden: widths of the layers, or filters of the convolutions.
        activation: of the hidden layers.
        latent: number of latents.
        posterior: name as in `keras_vae.mlp_vae`.
        prior: name as in `keras_vae.mlp_vae`.
        components: components of a mixture or vamp prior.
        objective: "elbo" or "iwae".
        num_samples: draws per example.
        gradient: estimator, see `keras_vae.estimators`.
        kl: "analytic", "monte_carlo" or empty for the closed form where there is one.
        beta: weight of the rate.
        free_bits: nats per latent that are free.
        warmup_epochs: epochs in which beta rises linearly from 0.
        epochs: epochs of training.
        batch_size: examples per step.
        learning_rate: of Adam.
        learning_rate_milestones: epochs after which the learning rate falls, ascending.
        learning_rate_decay: what it is multiplied by at each of them.
        adam_beta_1: decay of Adam's mean of gradients.
        adam_epsilon: number that Adam adds to the root of the mean square. A loss here is a mean
            over the batch; where a paper's is a sum, divide its number by the batch size.
        output_bias: "zeros", or "data_mean": the decoder's mean starts at that of the training set.
        monitor: whether to log what the latents carry, see `keras_vae.monitor`.
        seed: of initial weights, order, noise and test split.
        preparation: how raw numbers become data; decided from the training set.
    """

    data: str
    test_data: str = ""
    test_fraction: float = 0.1
    drop: tuple[str, ...] = ()
    keep_labels: bool = False
    image_size: tuple[int, ...] = ()
    image_mode: str = ""
    likelihood: str = "bernoulli"
    likelihood_options: dict[str, Any] = field(default_factory=dict)
    network: str = "mlp"
    hidden: tuple[int, ...] = (200, 200)
    activation: str = "tanh"
    latent: int = 16
    posterior: str = "diagonal"
    prior: str = "standard_normal"
    components: int = 50
    objective: str = "elbo"
    num_samples: int = 1
    gradient: Gradient = "pathwise"
    kl: str = ""
    beta: float = 1.0
    free_bits: float = 0.0
    warmup_epochs: float = 0.0
    epochs: int = 20
    batch_size: int = 100
    learning_rate: float = 1e-3
    learning_rate_milestones: tuple[int, ...] = ()
    learning_rate_decay: float = 0.1
    adam_beta_1: float = 0.9
    adam_epsilon: float = 1e-7
    output_bias: str = "zeros"
    monitor: bool = False
    seed: int = 0
    preparation: Preparation | None = None

    def __post_init__(self) -> None:
        """Refuses values that no training could use."""
        choices = {
            "network": ("mlp", "conv"),
            "objective": ("elbo", "iwae"),
            "output_bias": ("zeros", "data_mean"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise RunError(
                    f"Expected {name} to be one of {', '.join(allowed)}; got "
                    f"{getattr(self, name)!r}."
                )
        for name in ("latent", "epochs", "batch_size", "num_samples"):
            if getattr(self, name) < 1:
                raise RunError(f"Expected {name} of at least 1; got {getattr(self, name)}.")
        if not 0.0 < self.learning_rate < float("inf"):
            raise RunError(f"Expected a positive learning_rate; got {self.learning_rate}.")
        if not 0.0 < self.learning_rate_decay <= 1.0:
            raise RunError(
                f"Expected learning_rate_decay in (0, 1]; got {self.learning_rate_decay}."
            )
        milestones = self.learning_rate_milestones
        if any(later <= earlier for earlier, later in itertools.pairwise((0, *milestones))):
            raise RunError(
                f"Expected learning_rate_milestones to be ascending epochs from 1 on; got "
                f"{', '.join(map(str, milestones))}."
            )
        if not 0.0 <= self.adam_beta_1 < 1.0:
            raise RunError(f"Expected adam_beta_1 in [0, 1); got {self.adam_beta_1}.")
        if not 0.0 < self.adam_epsilon < float("inf"):
            raise RunError(f"Expected a positive adam_epsilon; got {self.adam_epsilon}.")
        if self.output_bias == "data_mean" and self.network == "conv":
            raise RunError(
                "output_bias = 'data_mean' sets one number per entry, which a convolution does not "
                "have: choose network = 'mlp' or output_bias = 'zeros'."
            )

    def load(self, source: str, split: Literal["train", "test"] | None = None) -> Data:
        """The data of a source, read as the training set is.

        Raises:
            DataError: if it cannot be read.
        """
        return data.load(
            source,
            labels=False if self.keep_labels else "if_any",
            split=split,
            drop=self.drop,
            image_size=self.image_size or None,  # type: ignore[arg-type]
            image_mode=self.image_mode or None,
        )

    def build(self, event_shape: tuple[int, ...]) -> VAE:
        """The compiled model, with new weights."""
        make = factories.conv_vae if self.network == "conv" else factories.mlp_vae
        widths: dict[str, Any] = {"filters" if self.network == "conv" else "hidden": self.hidden}
        vae = make(
            event_shape,
            self.latent,
            self.likelihood,
            activation=self.activation,
            posterior=self.posterior,
            prior=self.prior,
            num_components=self.components,
            **widths,
            **self.likelihood_options,
        )
        objective: objectives.Objective
        if self.objective == "iwae":
            objective = objectives.IWAE(self.num_samples, gradient=self.gradient)
        else:
            objective = objectives.ELBO(
                kl=self.kl or None,  # type: ignore[arg-type]
                num_samples=self.num_samples,
                beta=self.beta,
                free_bits=self.free_bits,
                gradient=self.gradient,
            )
        adam = keras.optimizers.Adam(
            self.learning_rate, self.adam_beta_1, epsilon=self.adam_epsilon
        )
        steps = _STEPS_OF_WARM_UP if self.warmup_epochs else None
        vae.compile(adam, objective, monitor=self.monitor, steps_per_execution=steps)
        return vae

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        passed = sum(milestone <= epoch for milestone in self.learning_rate_milestones)
        return self.learning_rate * self.learning_rate_decay**passed

    def to_toml(self) -> str:
        """The configuration as TOML."""
        values = dataclasses.asdict(self)
        if self.preparation is None:
            del values["preparation"]
        return tomli_w.dumps(values)


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
        self.preparation: Preparation = self.config.preparation

    @property
    def model_path(self) -> Path:
        """Where the model is."""
        return self.path / "model.keras"

    def load(self) -> VAE:
        """The trained model.

        Raises:
            RunError: if there is none yet, or it cannot be read.
        """
        if not self.model_path.is_file():
            raise RunError(
                f"{self.path} holds no model.keras yet: its training did not finish one epoch. "
                "Continue it with `keras-vae train --resume`."
            )
        try:
            return keras.saving.load_model(self.model_path)
        except Exception as error:
            raise RunError(f"{self.model_path} cannot be read: {error}") from error

    def raw(self) -> tuple[np.ndarray, np.ndarray]:
        """Training and test set as in their files."""
        return _raw(self.config)

    def history(self) -> list[dict[str, float]]:
        """One row of logs per finished epoch."""
        path = self.path / "history.csv"
        if not path.is_file():
            return []
        with path.open(newline="") as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]

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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def read_config(path: Path, *, needs_data: bool = True) -> RunConfig:
    """The configuration in a TOML file.

    Args:
        path: the file.
        needs_data: whether it must say which data; otherwise the caller does.

    Raises:
        RunError: if the file is missing, is not TOML, or holds a name or value that is unknown.
    """
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is not TOML: {error}.") from error
    known = {entry.name for entry in dataclasses.fields(RunConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise RunError(
            f"{path} holds unknown settings: {', '.join(unknown)}. Known ones: "
            f"{', '.join(sorted(known))}."
        )
    if needs_data and "data" not in values:
        raise RunError(f"{path} does not say which data: add data = 'PATH'.")
    for name in ("hidden", "learning_rate_milestones", "drop", "image_size"):
        if name in values:
            values[name] = tuple(values[name])
    if "preparation" in values:
        parts = values["preparation"]
        for name in ("center", "spread"):
            parts[name] = tuple(parts.get(name, ()))
        values["preparation"] = Preparation(**parts)
    return RunConfig(**{"data": "", **values})


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
        config: what to train; ignored but for its epochs when resuming.
        out: the run directory.
        resume: whether to continue the run that is there.
        report: called with sentences about what is done.
        extra_callbacks: Keras callbacks, such as a progress bar.

    Raises:
        RunError: if the directory is in use, or holds no run to resume.
        DataError: if the data cannot be read or does not suit the likelihood.
        NonFiniteError: if training stops being finite; the last good model stays.
        OSError: if the directory cannot be written.
    """
    out = Path(out)
    if resume and (out / "config.toml").is_file():
        run = Run(out)
        config = dataclasses.replace(run.config, epochs=max(config.epochs, run.config.epochs))
    else:
        if out.is_dir() and any(out.iterdir()) and not (resume and _holds_only_temporaries(out)):
            raise RunError(
                f"{out} exists and is not empty. Continue it with --resume or choose another --out."
            )
        if out.exists() and not out.is_dir():
            raise RunError(f"{out} is a file; choose another --out.")
        run = None
    train_raw, test_raw = _raw(config)
    preparation = config.preparation
    if preparation is None:
        preparation, options = prepare(config.likelihood, train_raw, [test_raw])
        config = dataclasses.replace(
            config,
            preparation=preparation,
            likelihood_options={**options, **config.likelihood_options},
        )
    report(f"{len(train_raw)} training and {len(test_raw)} test examples; {preparation.sentence}.")
    train_x, test_x = preparation.static(train_raw), preparation.array(test_raw, config.seed)
    keras.utils.set_random_seed(config.seed)
    finished, vae = 0, None
    per_epoch = data.steps(len(train_x), config.batch_size)
    if run is not None and run.model_path.is_file():
        vae = run.load()
        finished = int(vae.optimizer.iterations.numpy()) // per_epoch
    if vae is None:
        vae = config.build(train_x.shape[1:])
        if config.output_bias == "data_mean":
            factories.start_at_mean(vae, preparation.mean(train_raw))
    out.mkdir(parents=True, exist_ok=True)
    with write_atomically(out / "config.toml") as temporary:
        temporary.write_text(config.to_toml())
    run = Run(out)
    if finished >= config.epochs:
        report(f"All {config.epochs} epochs are finished; nothing to do.")
        return run
    if finished:
        report(f"Continuing after epoch {finished} of {config.epochs}.")
    schedule: list[keras.callbacks.Callback] = []
    if config.learning_rate_milestones:
        schedule.append(keras.callbacks.LearningRateScheduler(config.learning_rate_at))
    if config.warmup_epochs and config.objective == "elbo":
        schedule.append(
            callbacks.LinearSchedule("beta", stop=config.beta, epochs=config.warmup_epochs)
        )
    with _held(out):
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


class _SaveRun(keras.callbacks.Callback):
    """Writes history and model after each epoch, in this order."""

    def __init__(self, run: Run, finished: int) -> None:
        super().__init__()
        self._run = run
        self._rows = run.history()[:finished]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._rows.append({"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}})
        self._run.write_history(self._rows)
        self._run.save(self.model)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Holds a run directory, so that one process at a time trains into it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for leftover in path.glob(".*-*"):
            leftover.unlink()
        yield
    except BlockingIOError as error:
        raise RunError(f"Another process is training into {path}; wait for it.") from error
    finally:
        os.close(handle)


def _raw(config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    if config.test_data:
        return config.load(config.data).x, config.load(config.test_data).x
    source = Path(config.data)
    if config.data != "digits" and source.is_dir() and list(source.glob("t10k-images*")):
        return config.load(config.data, "train").x, config.load(config.data, "test").x
    return data.split(
        config.load(config.data).x, test_fraction=config.test_fraction, seed=config.seed
    )


def _holds_only_temporaries(path: Path) -> bool:
    return all(entry.name.startswith(".") for entry in path.iterdir())
