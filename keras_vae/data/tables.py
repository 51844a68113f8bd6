"""Reader of tables, delimited text, Parquet and Feather: as data frames, or as numeric arrays."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vae.data.cache import Rows
from keras_vae.data.columns import Columns, Labels, select
from keras_vae.data.content import Content, DataError, listed, reading
from keras_vae.data.delimited import DELIMITED_SUFFIXES, delimited_chunks, read_delimited
from keras_vae.data.frames import column_numbers, is_numeric
from keras_vae.spelling import counted

__all__ = [
    "TABLE_SUFFIXES",
    "delimited_rows",
    "frame_chunks",
    "frame_content",
    "load_frame",
    "parquet_length",
    "parquet_rows",
    "table",
]

TABLE_SUFFIXES = (*DELIMITED_SUFFIXES, ".parquet", ".feather")

_ROWS_AT_ONCE = 2**14
_ABSENT = ("?",)
"""Words for an absent value in text files, in addition to those of pandas."""


def load_frame(path: str | os.PathLike[str]) -> Any:
    """Reads a table as a pandas data frame, text and categories included.

    In text, a field is absent if it is empty, ?, NA, N/A, NaN, null, None or another of the
    strings that `pandas.read_csv` takes for it.

    Args:
        path: path of a .csv, .tsv (gzip or not), .parquet or .feather file.

    Raises:
        DataError: if the file is missing, of another kind or damaged.

    Example:
        >>> import pathlib, tempfile
        >>> import pandas as pd
        >>> path = pathlib.Path(tempfile.mkdtemp(), "people.csv")
        >>> pd.DataFrame({"age": [31.0, None], "city": ["Oslo", "Rome"]}).to_csv(path, index=False)
        >>> load_frame(path)["age"].isna().tolist()
        [False, True]
    """
    return _named(_read(_table_path(path), as_text=True))


def frame_chunks(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Reads a table as `load_frame` does, a Parquet file in groups of rows.

    The first chunk of a Parquet file has no rows, but the dtypes of a whole column.
    """
    path = _table_path(path)
    if path.suffix.lower() != ".parquet":
        yield load_frame(path)
        return
    with reading(path, "a Parquet table"):
        file = _parquet(path)
        yield _named(file.schema_arrow.empty_table().to_pandas())
        for group in file.iter_batches(_ROWS_AT_ONCE):
            yield _named(group.to_pandas())


def parquet_length(path: Path) -> int:
    """Returns the number of rows of a Parquet file."""
    with reading(path, "a Parquet table"):
        return int(_parquet(path).metadata.num_rows)


def _parquet(path: Path) -> Any:
    """Opens a Parquet file to be read in chunks.

    By default pyarrow keeps the bytes of every chunk that it has read until the file is closed.
    """
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)


def _named(frame: Any) -> Any:
    frame.columns = [str(name) for name in frame.columns]
    return frame


def _table_path(path: str | os.PathLike[str]) -> Path:
    """Returns the path of a table that exists."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise DataError(f"{found} does not exist. Give the path of a table.")
    if found.stat().st_size == 0:
        raise DataError(f"{found} is empty (0 bytes). Write or download it again.")
    if not found.name.lower().endswith(TABLE_SUFFIXES):
        raise DataError(
            f"{found} is not a table. Give a file that ends in {', '.join(TABLE_SUFFIXES)}."
        )
    return found


def _read(path: Path, as_text: bool = False) -> Any:
    """Reads a data frame; in text files with "?" for absent values if `as_text`."""
    import pandas as pd

    if path.suffix.lower() in (".parquet", ".feather"):
        import pyarrow  # noqa: F401  # what pandas reads it with

        is_parquet = path.suffix.lower() == ".parquet"
        with reading(path, f"a {'Parquet' if is_parquet else 'Feather'} table"):
            return pd.read_parquet(path) if is_parquet else pd.read_feather(path)
    with reading(path, "a CSV table"):
        return read_delimited(path, _ABSENT if as_text else ())


def table(path: Path, labels: Labels, drop: Sequence[str]) -> Content:
    """Reads the numeric columns of a table, without dropped columns and labels."""
    frame = _read(path)
    categories = _categories(path) if path.suffix.lower() == ".parquet" else set()
    columns = _columns(path, frame, labels, drop, categories)
    return Content(*_content(path, frame, columns), columns.data, columns.left_out)


def frame_content(frame: Any, labels: Labels, drop: Sequence[str]) -> Content:
    """Returns the same columns of a data frame."""
    frame, name = frame.copy(deep=False), Path("The data frame")
    columns = _columns(name, frame, labels, drop)
    return Content(*_content(name, frame, columns), columns.data, columns.left_out)


def parquet_rows(path: Path, labels: Labels, drop: Sequence[str]) -> Rows:
    """Reads the same columns of a Parquet table, one group of rows after the other."""
    with reading(path, "a Parquet table"):
        file = _parquet(path)
        types = file.schema_arrow.empty_table().to_pandas()
    columns = _columns(path, types, labels, drop, _categories(path), file.metadata.num_rows)
    dtype = np.result_type(*(_dtype(types[name]) for name in columns.data))

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with reading(path, "a Parquet table"):
            for group in file.iter_batches(_ROWS_AT_ONCE):
                frame = group.to_pandas()
                frame.columns = [str(name) for name in frame.columns]
                x, given = _content(path, frame, columns)
                if not np.can_cast(x.dtype, dtype):
                    raise DataError(
                        f"{path} holds missing values in columns of whole numbers. Fill them in "
                        "or leave those rows out."
                    )
                yield x, given

    shape = (file.metadata.num_rows, len(columns.data))
    return Rows(shape, dtype, chunks(), columns.data, columns.left_out)


def delimited_rows(path: Path, labels: Labels, drop: Sequence[str]) -> Rows:
    """Reads the same columns of delimited text in chunks, after a first pass for their dtypes."""
    import pandas as pd

    dtypes: dict[str, set[Any]] = {}
    count = 0
    with reading(path, "a CSV table"):
        for frame in delimited_chunks(path, _ROWS_AT_ONCE):
            count += len(frame)
            for name, column in frame.items():
                dtypes.setdefault(str(name), set()).add(column.dtype)
    types = pd.DataFrame(
        {name: pd.Series([], dtype=_common(found)) for name, found in dtypes.items()}
    )
    columns = _columns(path, types, labels, drop, rows=count)
    dtype = np.result_type(*(types[name].dtype for name in columns.data))
    is_text = columns.label is not None and types[columns.label].dtype == object

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with reading(path, "a CSV table"):
            for frame in delimited_chunks(path, _ROWS_AT_ONCE):
                _named(frame)
                if is_text:
                    frame[columns.label] = frame[columns.label].astype(object)
                x, given = _content(path, frame, columns)
                yield x.astype(dtype), given

    return Rows((count, len(columns.data)), dtype, chunks(), columns.data, columns.left_out)


def _common(dtypes: Collection[Any]) -> Any:
    """Returns the dtype of a column whose chunks have these: that of all of its values at once."""
    kinds = {dtype.kind for dtype in dtypes}
    if kinds <= set("iuf") or kinds == {"b"}:
        return np.result_type(*dtypes)
    return np.dtype(object)


def _categories(path: Path) -> set[str]:
    """Returns the columns that were pandas categoricals, which Parquet may keep as integers."""
    import pyarrow.parquet as pq

    with reading(path, "a Parquet table"):
        described = (pq.read_schema(path).pandas_metadata or {}).get("columns", [])
    return {str(column["name"]) for column in described if column["pandas_type"] == "categorical"}


def _columns(
    path: Path,
    frame: Any,
    labels: Labels,
    drop: Sequence[str],
    categories: Collection[str] = (),
    rows: int | None = None,
) -> Columns:
    frame.columns = [str(name) for name in frame.columns]
    columns = select(path, list(frame.columns), labels, drop)
    count = len(frame) if rows is None else rows
    if not columns.data or not count:
        raise DataError(
            f"{path} has {counted(count, 'row')} and {counted(len(columns.data), 'column')} of "
            "data. Give at least one of each."
        )
    text = [
        name for name in columns.data if name in categories or not is_numeric(frame[name].dtype)
    ]
    if text:
        drop = shlex.quote(",".join(text[:5]))
        raise DataError(
            f"{path} has columns that are not numbers: {listed(text)}. Encode them as numbers, "
            f"leave them out (drop=, --drop {drop}), or write the decimals of all columns in the "
            "same way, with a point or with a comma."
        )
    return columns


def _content(path: Path, frame: Any, columns: Columns) -> tuple[np.ndarray, np.ndarray | None]:
    with reading(path, "a table of numbers"):
        x = np.stack([column_numbers(frame[name]) for name in columns.data], axis=1)
    return x, None if columns.label is None else _labels(path, frame[columns.label])


def _dtype(column: Any) -> np.dtype[Any]:
    return np.dtype(getattr(column.dtype, "numpy_dtype", column.dtype))


def _labels(path: Path, column: Any) -> np.ndarray:
    if column.isna().any():
        raise DataError(
            f"{path} has {counted(int(column.isna().sum()), 'row')} without a label in column "
            f"{column.name!r}. Fill them in or leave the rows out."
        )
    return column_numbers(column) if is_numeric(column.dtype) else np.array(list(map(str, column)))
