"""Runs: directories of one training each, readable at any moment.

`history.csv` is replaced before `model.keras`, each by one rename, and the number of finished
epochs is read from the model's own optimizer. So whenever a process is killed, the next one finds
a complete model and drops the rows of history after it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import shlex
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vae import data, factories
from keras_vae.data import DataError, Schema, Vocabulary
from keras_vae.data.preparation import Preparation
from keras_vae.distributions import AutoregressiveLikelihood, Categorical, Parts
from keras_vae.hierarchical import HierarchicalVAE
from keras_vae.model import VAE
from keras_vae.runs import classes, datasets, sequences, tables
from keras_vae.runs.config import LEVELS, RESTORE, TABLE, TEXT, RunConfig, RunError
from keras_vae.runs.config_file import read_run
from keras_vae.runs.units import Units
from keras_vae.spelling import counted
from keras_vae.tokens import Tokens
from keras_vae.training.backup import write_atomically

__all__ = ["FINGERPRINT", "SCHEMA", "Run", "read_json", "refuse_damaged", "resume_command"]

SCHEMA = "schema.toml"
"""Name of the file with the columns of a table."""

FINGERPRINT = "data.sha256"
"""Name of the file with the fingerprint of the data."""


class Run:
    """A run directory: `config.toml`, `model.keras`, `history.csv`, `evaluation.json`.

    The run of a table as it is holds its `schema.toml`, too, and that of texts `vocabulary.json`.

    Args:
        path: the directory.

    Raises:
        RunError: if it holds no readable run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = read_run(self.path)
        self.schema: Schema | None = None
        self.preparation = self.config.preparation or Preparation()
        if self.config.likelihood == TABLE:
            self.schema = self._read_schema()
            return
        if self.config.preparation is None:
            raise RunError(f"{self.path / 'config.toml'} lacks the section [preparation].")
        if self.config.likelihood == "auto":
            raise RunError(f"{self.path / 'config.toml'} does not name its likelihood: {RESTORE}.")
        if self.config.likelihood == TEXT:
            tokens = self._read_vocabulary().coding
            self.preparation = dataclasses.replace(self.preparation, vocabulary=tokens)

    def _read_vocabulary(self) -> Vocabulary:
        try:
            return Vocabulary.load(self.path / sequences.VOCABULARY)
        except DataError as error:
            raise RunError(f"{error} It belongs to the run: {RESTORE}.") from error

    @property
    def tokens(self) -> Tokens | None:
        """The tokens of texts; None for other data."""
        return self.preparation.vocabulary

    def row_nats(self, x: Any) -> Any:
        """Returns the nats that turn log p of prepared examples into that of the file.

        They are a number for each row of a table or time series, and otherwise one number.
        """
        if self.schema is not None:
            return self.schema.row_nats(x)
        if self.config.is_sequence:
            return sequences.row_nats(self.preparation, x)
        x = x["x"] if self.config.condition else x
        return self.preparation.nats_offset * math.prod(x.shape[1:])

    def _read_schema(self) -> Schema:
        try:
            return Schema.load(self.path / SCHEMA)
        except DataError as error:
            raise RunError(f"{error} It belongs to the run: {RESTORE}.") from error

    def units(self, vae: VAE | HierarchicalVAE) -> Units:
        """Returns the units of log p of its model."""
        if self.schema is not None:
            return Units.of_table(self.schema, self.config.row_nats)
        units = Units.of(vae, self.preparation, self.config.row_nats)
        return units.given_labels() if self.config.condition else units

    @property
    def table_schema(self) -> Schema:
        """The columns of a table as it is.

        Raises:
            RunError: if the run is not of such a table.
        """
        if self.schema is None:
            raise RunError(
                f"{self.path} is no run of a table as it is. Train one "
                "with `keras-vae train --likelihood table`."
            )
        return self.schema

    def table(self) -> tables.Table:
        """Reads training and test set of a table as it is; raises as `table_schema`."""
        return tables.read(self.config, self.table_schema)

    @property
    def model_path(self) -> Path:
        """Path of the model."""
        return self.path / "model.keras"

    def load(self) -> Any:
        """Loads the trained model.

        Raises:
            RunError: if there is none yet, it cannot be read, or it does not fit `config.toml`.
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

    def check(self, vae: VAE | HierarchicalVAE) -> None:
        """Refuses a model that is not the one `config.toml` describes.

        Raises:
            RunError: naming the first difference.
        """
        config, likelihood = self.config, vae.likelihood
        is_autoregressive = isinstance(likelihood, AutoregressiveLikelihood)
        likelihood = likelihood.steps if is_autoregressive else likelihood
        pairs: dict[str, tuple[Any, Any]] = {
            "autoregressive": (is_autoregressive, config.autoregressive),
            "likelihood": (type(likelihood).__name__, self._likelihood_name),
            **_latents(vae, config),
        }
        if self.schema is not None:
            own = vae.data.schema
            pairs["the schema"] = (own and own.to_toml(), self.schema.to_toml())
        for name, value in config.likelihood_options.items():
            pairs[name] = (getattr(likelihood, name, None), value)
        if config.condition:
            pairs["the number of classes"] = (vae.condition_shape, (len(config.classes),))
        if config.features:
            pairs["features"] = (vae.feature_names, config.features)
        if self.preparation.center:
            pairs["center"] = (vae.event_shape[-1], len(self.preparation.center))
        for name, (found, said) in pairs.items():
            if found != said and name == "the schema":
                raise RunError(
                    f"{self.model_path} is not the model of its {SCHEMA}: one of them was edited "
                    "or replaced. Train again into another directory with --schema."
                )
            if found != said:
                raise RunError(
                    f"{self.model_path} is not the model of its config.toml, where {name} is "
                    f"{said} and not {found}: one of them was replaced. Train again into another "
                    "directory."
                )
        trained, digest = vae.preparation_digest, self.preparation.digest
        if trained is not None and trained != digest:  # models of older versions have none
            raise RunError(
                f"{self.model_path} is not the model of its config.toml, where [preparation] has "
                f"the digest {digest[:8]} and not {trained[:8]}: one of them was edited or "
                "replaced. Restore the one that belongs to the other, or train again into another "
                "directory."
            )

    @property
    def _likelihood_name(self) -> str:
        if self.schema is not None:
            return Parts.__name__
        if self.config.likelihood == TEXT:
            return Categorical.__name__
        return factories.LIKELIHOODS[self.config.likelihood].__name__

    def raw(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads training and test set as in their files, with columns in the model's order.

        Raises:
            RunError: if the run is of a table as it is, which `table` reads.
        """
        found = self.read()
        return found.train, found.test

    def read(self) -> datasets.Datasets:
        """Reads the same, with the labels; raises as `raw`."""
        if self.schema is not None:
            raise RunError(f"{self.path} is the run of a table, which is no array of numbers.")
        if self.tokens is not None:
            return datasets.Datasets(*sequences.read_texts(self.config, self.tokens), (), "texts")
        return datasets.read(self.config)

    def inputs(self, raw: Any, labels: np.ndarray | None) -> Any:
        """Returns examples as the model takes them: x, or {"x": ..., "condition": ...}.

        Args:
            raw: examples as in their file [N, ...].
            labels: their labels, which a model with a condition needs.

        Raises:
            RunError: if a label is missing, or none of the model's.
        """
        return self.with_condition(self.preparation.array(raw, self.config.seed), labels)

    def test_inputs(self, sets: datasets.Datasets) -> Any:
        """Returns the test set as the model takes it; raises as `inputs`."""
        return self.inputs(sets.test, sets.labels[1])

    def with_condition(self, x: Any, labels: np.ndarray | None) -> Any:
        """Returns x, or {"x": x, "condition": ...} if the model takes one; raises as `inputs`."""
        if not self.config.condition:
            return x
        source = self.config.test_data or self.config.data
        return {"x": x, "condition": classes.one_hot(labels, self.config.classes, source)}

    def finished(self, vae: VAE, examples: int) -> int:
        """Returns the number of epochs that a model has finished on so many training examples."""
        per_epoch = data.steps(examples, self.config.batch_size)
        return int(vae.optimizer.iterations.numpy()) // per_epoch

    def history(self, finished: int = 0) -> list[dict[str, float]]:
        """Reads one row of logs per finished epoch, whose `epoch` is an integer.

        Args:
            finished: number of epochs that the model has finished; each needs a row.

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
                f"Expected {path} to hold {counted(max(finished, 1), 'row')}, one per finished "
                f"epoch of the model; it holds {len(rows)}: {RESTORE}."
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

    def save(self, vae: VAE | HierarchicalVAE) -> None:
        """Replaces `model.keras`."""
        with write_atomically(self.model_path) as temporary:
            vae.save(temporary)


def _latents(vae: VAE | HierarchicalVAE, config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Returns what a model is and what its configuration says of its latents, by setting."""
    if isinstance(vae, HierarchicalVAE):
        blocks = vae.blocks.values()
        return {
            "latents": (" and ".join(sorted({block.kind for block in blocks})), config.latents),
            "level_sizes": (tuple(block.latent_shape[-1] for block in blocks), config.levels),
        }
    if config.latents in LEVELS:
        return {"latents": (type(vae.posterior).__name__, config.latents)}
    return _codes(vae, config) if config.latents == "codes" else _vector(vae, config)


def refuse_damaged(path: Path) -> None:
    """Refuses a model file that is cut off or changed, which Keras would report as missing.

    A file of another kind, recognised by its name, is left to its reader.

    Raises:
        RunError: if it is not a complete zip archive.
    """
    if path.suffix != ".keras":
        return
    try:
        with zipfile.ZipFile(path) as archive:
            is_whole = archive.testzip() is None
    except OSError:
        return
    except Exception:  # the type depends on how the decompressor fails
        is_whole = False
    if not is_whole:
        raise RunError(
            f"{path} is damaged: expected a complete model file as Keras saves it; got "
            f"{path.stat().st_size} bytes that are cut off or changed: {RESTORE}."
        )


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file of a run.

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


def _vector(vae: VAE, config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Returns what a model with a latent vector is, and what its configuration says, by setting."""
    posterior, prior = factories.POSTERIORS[config.posterior], factories.PRIORS[config.prior]
    return {
        "latent": (vae.latent_size, config.latent),
        "posterior": (type(vae.posterior).__name__, posterior.__name__),
        "prior": (type(vae.prior).__name__, prior.__name__),
        "components": (
            getattr(vae.prior, "num_components", config.components),
            config.components,
        ),
    }


def _codes(vae: VAE, config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Returns the same of a model of codes."""
    return {
        "latents": (type(vae.posterior).__name__, "VectorQuantizer"),
        "codes": (getattr(vae.posterior, "num_codes", None), config.codes),
        "code_size": (getattr(vae.posterior, "code_size", None), config.code_size),
        "code_prior": (
            type(vae.prior).__name__,
            factories.CODE_PRIORS[config.code_prior].__name__,
        ),
    }
