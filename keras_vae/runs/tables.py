"""Tables of a run as they are: mixed columns and missing values, described by a schema."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_vae import data
from keras_vae.data import DataError, Schema
from keras_vae.data.encoded import columns_of, encoded_rows
from keras_vae.data.frames import is_numeric
from keras_vae.data.tables import TABLE_SUFFIXES, frame_chunks
from keras_vae.runs.config import TABLE, RunConfig, RunError

__all__ = ["Sample", "Table", "TableRows", "decided", "is_asked", "is_needed", "read"]


_MOST = 2**17
"""Rows of a table in a cache that are in memory as a data frame at once."""


class Sample(NamedTuple):
    """Rows of a table, as in the file and as the model's numbers.

    Attributes:
        frame: data frame.
        x: arrays by column, NaN where a value is missing.
    """

    frame: Any
    x: dict[str, np.ndarray]


@dataclass(frozen=True)
class TableRows:
    """Rows of the training or the test set of a table.

    Attributes:
        schema: the columns.
        x: arrays by column, NaN where a value is missing; read by rows if they are in a cache.
        frame: data frame of all rows; None if they are in a cache.
    """

    schema: Schema
    x: Mapping[str, Any]
    frame: Any = None

    def __len__(self) -> int:
        return len(next(iter(self.x.values())))

    def first(self, count: int) -> Sample:
        """Returns the first rows."""
        return self._at(slice(count))

    def few(self) -> Sample:
        """Returns all rows, or of a cache at most 131 072 that are evenly spaced."""
        return self._at(slice(None, None, 1 if self.frame is not None else -(-len(self) // _MOST)))

    def _at(self, rows: slice) -> Sample:
        x = {name: np.asarray(value[rows]) for name, value in self.x.items()}
        if self.frame is None:
            return Sample(self.schema.decode(x), x)
        return Sample(self.frame.iloc[rows], x)


class Table(NamedTuple):
    """Training and test set of a table.

    Attributes:
        schema: the columns.
        train, test: their rows.
    """

    schema: Schema
    train: TableRows
    test: TableRows


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
        return any(
            not is_numeric(column.dtype) or bool(column.isna().any())
            for chunk in frame_chunks(config.data)
            for _, column in chunk.drop(columns=list(config.drop), errors="ignore").items()
        )
    except DataError:
        return False


def decided(config: RunConfig) -> tuple[RunConfig, Schema]:
    """Completes the configuration of a table, and infers or reads its schema.

    Raises:
        DataError: if the schema cannot be read, or a column cannot be modelled.
        RunError: if a setting has no effect on a table.
    """
    if config.network != "mlp":
        raise RunError(
            f"A table has no pixels and no steps for network = {config.network!r}: leave it out."
        )
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
    if config.cache:
        for source in filter(None, (config.data, config.test_data)):
            _check_parquet(source)
    return config, schema


def read(config: RunConfig, schema: Schema) -> Table:
    """Reads the data of a configuration.

    Raises:
        DataError: if it cannot be read, or does not suit the schema.
    """
    in_two = (config.data, config.test_data) if config.test_data else (config.data,)
    how: dict[str, Any] = {"test_fraction": config.test_fraction, "seed": config.seed}
    if config.cache:
        cells = [encoded_rows(schema, source, config.cache, config.seed) for source in in_two]
        parts = cells if config.test_data else data.split(cells[0], copy=False, **how)
        return Table(schema, *(TableRows(schema, columns_of(schema, part)) for part in parts))
    samples = [_sample(source, schema, config.seed) for source in in_two]
    if not config.test_data:
        frame, x = samples[0]
        samples = [
            Sample(
                frame.iloc[rows].reset_index(drop=True),
                {name: value[rows] for name, value in x.items()},
            )
            for rows in data.split(np.arange(len(frame)), **how)
        ]
    return Table(schema, *(TableRows(schema, sample.x, sample.frame) for sample in samples))


def _sample(source: str, schema: Schema, seed: int) -> Sample:
    frame = schema.with_holes(data.load_frame(source))
    try:
        return Sample(frame, schema.encode(frame, seed))
    except DataError as error:
        raise DataError(f"{Path(source)}: {error}") from error


def _check_parquet(source: str) -> None:
    if not source.lower().endswith(".parquet"):
        raise RunError(
            f"{source} is a table with text, categories or missing values, which a cache keeps if "
            "it is a Parquet file. Write it as one, for example with pandas.read_csv(...)"
            ".to_parquet(...), or leave cache out and read it into memory."
        )
