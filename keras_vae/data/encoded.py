"""Model numbers of a table that is larger than memory, kept as rows of a file in a cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_vae.data.cache import Rows, cached
from keras_vae.data.content import DataError
from keras_vae.data.row_views import ComputedRows, KeptRows
from keras_vae.data.schema import Schema
from keras_vae.data.schema.column import Column
from keras_vae.data.tables import frame_chunks, parquet_length

__all__ = ["columns_of", "encoded_rows"]


def encoded_rows(
    schema: Schema, path: str | os.PathLike[str], cache: str | os.PathLike[str], seed: int
) -> np.ndarray:
    """Reads a Parquet file once, by groups of rows, into an entry of the cache.

    Args:
        schema: the columns.
        path: path of the file.
        cache: directory of the entries, see `keras_vae.data.cache.cached`.
        seed: seed of the uniform noise that densities of whole numbers add.

    Returns:
        Numbers of `schema.encode`, and codes of categories, float32 [rows, columns], mapped.

    Raises:
        DataError: as `Schema.encode` and `cached`; the message names the group of rows.
    """
    path, columns = Path(path), schema.columns

    def chunks() -> Iterator[tuple[np.ndarray, None]]:
        start, encode = 0, schema.encoder(seed, one_hot=False)
        for frame in frame_chunks(path):
            if not len(frame):
                continue
            try:
                found = encode(frame)
            except DataError as error:
                stop = start + len(frame)
                raise DataError(
                    f"{path}, in a group of rows that begins at row {start} and ends before "
                    f"{stop}, counted from its start: {error}"
                ) from error
            yield np.concatenate([each.reshape(len(frame), 1) for each in found.values()], 1), None
            start += len(frame)

    def rows() -> Rows:
        return Rows((parquet_length(path), len(columns)), np.dtype(np.float32), chunks())

    options = f"encoded {seed} {schema.to_toml()}"
    return cached(cache, path, [path], rows, options).x


def columns_of(schema: Schema, cells: Any) -> dict[str, ComputedRows]:
    """Returns what `schema.encode` returns, as arrays that are read by rows.

    Args:
        schema: the columns.
        cells: what `encoded_rows` returned, or some rows of it, mapped or lazy.
    """
    kept, columns = KeptRows(cells), schema.columns
    return {
        name: ComputedRows(kept, partial(_column, column, index), (column.size,), np.float32)
        for index, (name, column) in enumerate(columns.items())
    }


def _column(column: Column, index: int, rows: np.ndarray) -> np.ndarray:
    found = rows[:, index]
    return column.encode(found) if column.form == "one_hot" else found[:, np.newaxis]
