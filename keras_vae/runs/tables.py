"""Tables of a run as they are: mixed columns and missing values, described by a schema."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_vae import data
from keras_vae.data import DataError, Schema
from keras_vae.data.frames import is_numeric
from keras_vae.data.tables import TABLE_SUFFIXES
from keras_vae.runs.config import TABLE, RunConfig, RunError

__all__ = ["Table", "decided", "is_asked", "is_needed", "read"]


class Table(NamedTuple):
    """Training and test set of a table, as in the file and as the model's numbers.

    Attributes:
        schema: the columns.
        train, test: data frames.
        train_x, test_x: arrays by column, NaN where a value is missing.
    """

    schema: Schema
    train: Any
    test: Any
    train_x: dict[str, np.ndarray]
    test_x: dict[str, np.ndarray]


def is_asked(config: RunConfig) -> bool:
    """Tells whether a configuration asks for a model of a table's columns as they are."""
    return config.likelihood == TABLE or (
        config.likelihood == "auto" and (bool(config.schema) or config.missing)
    )


def is_needed(config: RunConfig) -> bool:
    """Tells whether the data is a table with text, categories or missing values.

    A likelihood that was chosen by name takes numbers alone, and then it is not.
    """
    if config.likelihood != "auto" or not config.data.lower().endswith(TABLE_SUFFIXES):
        return False
    try:
        frame = data.load_frame(config.data).drop(columns=list(config.drop), errors="ignore")
    except DataError:
        return False
    return any(
        not is_numeric(column.dtype) or bool(column.isna().any()) for _, column in frame.items()
    )


def decided(config: RunConfig) -> tuple[RunConfig, Schema]:
    """Completes the configuration of a table, and infers or reads its schema.

    Raises:
        DataError: if the schema cannot be read, or a column cannot be modelled.
        RunError: if a setting has no effect on a table.
    """
    if config.network != "mlp":
        raise RunError("A table has no pixels for network = 'conv': leave it out.")
    if config.output_bias == "zeros":
        raise RunError(
            "output_bias = 'zeros' has no effect on a table, whose columns start at their means: "
            "leave it out."
        )
    if not config.data.lower().endswith(TABLE_SUFFIXES):
        raise RunError(
            f"Expected the data to be a table in a file that ends in {', '.join(TABLE_SUFFIXES)}; "
            f"got {config.data}. Choose another likelihood."
        )
    if config.schema:
        if config.drop or config.missing:
            raise RunError(
                f"{config.schema} already says which columns are left out and which may be "
                "missing: leave out drop and missing."
            )
        schema = Schema.load(config.schema)
    else:
        schema = Schema.of_file(config.data, drop=config.drop, missing=config.missing)
    config = dataclasses.replace(
        config, likelihood=TABLE, output_bias="data_mean", keep_labels=False
    )
    config.refuse_idle()
    return config, schema


def read(config: RunConfig, schema: Schema) -> Table:
    """Reads the data of a configuration.

    Raises:
        DataError: if it cannot be read, or does not suit the schema.
    """
    whole, encoded = _encoded(config.data, schema, config.seed)
    if config.test_data:
        test, test_x = _encoded(config.test_data, schema, config.seed)
        return Table(schema, whole, test, encoded, test_x)
    rows = data.split(np.arange(len(whole)), test_fraction=config.test_fraction, seed=config.seed)
    train, test = (whole.iloc[some].reset_index(drop=True) for some in rows)
    arrays = [{name: value[some] for name, value in encoded.items()} for some in rows]
    return Table(schema, train, test, *arrays)


def _encoded(source: str, schema: Schema, seed: int) -> tuple[Any, dict[str, np.ndarray]]:
    frame = data.load_frame(source)
    try:
        return frame, schema.encode(frame, seed)
    except DataError as error:
        raise DataError(f"{Path(source)}: {error}") from error
