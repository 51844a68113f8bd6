"""Reader of tables: CSV and Parquet, numeric columns only."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vae.data.cache import Rows
from keras_vae.data.content import Content, DataError, listed, only_label, reading

_ROWS_AT_ONCE = 2**14


def table(path: Path, labels: bool) -> Content:
    """The numeric columns of a table, apart from the one of the labels."""
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        with reading(path, "a Parquet table"):
            frame = pd.read_parquet(path)
    else:
        with reading(path, "a CSV table"):
            frame = _csv(path)
        _check_header(path, [str(name) for name in frame.columns])
    label_name, columns = _columns(path, frame)
    x, given = _content(path, frame, columns, label_name if labels else None)
    return Content(x, given, tuple(columns))


def parquet_rows(path: Path) -> Rows:
    """The same of a Parquet table with its labels, one group of rows after the other."""
    import pyarrow.parquet as pq

    with reading(path, "a Parquet table"):
        file = pq.ParquetFile(path)
        types = file.schema_arrow.empty_table().to_pandas()
    label_name, columns = _columns(path, types, file.metadata.num_rows)
    dtype = np.result_type(*(_dtype(types[name]) for name in columns))

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with reading(path, "a Parquet table"):
            for group in file.iter_batches(_ROWS_AT_ONCE):
                frame = group.to_pandas()
                frame.columns = [str(name) for name in frame.columns]
                x, labels = _content(path, frame, columns, label_name)
                if not np.can_cast(x.dtype, dtype):
                    raise DataError(
                        f"{path} holds missing values in columns of whole numbers. Fill them in "
                        "or leave those rows out."
                    )
                yield x, labels

    return Rows((file.metadata.num_rows, len(columns)), dtype, parts(), tuple(columns))


def _columns(path: Path, frame: Any, rows: int | None = None) -> tuple[str | None, list[str]]:
    """Name of the column of the labels, if there is one, and names of those of the data."""
    frame.columns = [str(name) for name in frame.columns]
    label_name = only_label(path, list(frame.columns))
    columns = [name for name in frame.columns if name != label_name]
    count = len(frame) if rows is None else rows
    if not columns or not count:
        raise DataError(
            f"{path} has {count} rows and {len(columns)} columns of data. "
            "Give at least one of each."
        )
    text = [name for name in columns if not _is_numeric(frame[name].dtype)]
    if text:
        raise DataError(
            f"{path} has columns that are not numbers: {listed(text)}. Encode them as numbers "
            "or leave them out (values are separated by commas, decimals written with a point)."
        )
    return label_name, columns


def _content(
    path: Path, frame: Any, columns: Sequence[str], label_name: str | None
) -> tuple[np.ndarray, np.ndarray | None]:
    with reading(path, "a table of numbers"):
        x = np.stack([_numbers(frame[name]) for name in columns], axis=1)
    return x, _labels(path, frame[label_name]) if label_name else None


def _dtype(column: Any) -> np.dtype[Any]:
    return np.dtype(getattr(column.dtype, "numpy_dtype", column.dtype))


def _csv(path: Path) -> Any:
    """The table as pandas reads it, but never with a column taken silently for row names."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, index_col=False, low_memory=False)
        except pd.errors.ParserWarning as error:
            raise DataError(
                f"{path} has rows with more values than the first line has names. "
                "Name every column."
            ) from error


def _check_header(path: Path, names: Sequence[str]) -> None:
    if "Unnamed: 0" in names:
        raise DataError(
            f"{path} has a column without a name, probably the row numbers that pandas saves. "
            "Write it with index=False, or name the column if it is data."
        )
    if all(map(_is_number, names)) and names != [str(i) for i in range(len(names))]:
        raise DataError(
            f"{path} begins with a row of numbers ({listed(names)}) where the column names were "
            "expected. Add a first line with a name for each column."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_numeric(dtype: Any) -> bool:
    from pandas.api import types

    return bool(
        types.is_bool_dtype(dtype) or types.is_integer_dtype(dtype) or types.is_float_dtype(dtype)
    )


def _numbers(column: Any) -> np.ndarray:
    """Values of a numeric column; a missing one is NaN."""
    if column.isna().any():
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(column.to_numpy(dtype=getattr(column.dtype, "numpy_dtype", None)))


def _labels(path: Path, column: Any) -> np.ndarray:
    if column.isna().any():
        raise DataError(
            f"{path} has {int(column.isna().sum())} rows without a label in column "
            f"{column.name!r}. Fill them in or leave the rows out."
        )
    return _numbers(column) if _is_numeric(column.dtype) else np.array(list(map(str, column)))
