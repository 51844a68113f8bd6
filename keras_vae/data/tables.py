"""Reader of tables: CSV and Parquet, numeric columns only."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vae.data.content import Content, DataError, listed, only_label, reading


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
    frame.columns = [str(name) for name in frame.columns]
    label_name = only_label(path, list(frame.columns))
    columns = [name for name in frame.columns if name != label_name]
    if not columns or frame.empty:
        raise DataError(
            f"{path} has {len(frame)} rows and {len(columns)} columns of data. "
            "Give at least one of each."
        )
    text = [name for name in columns if not _is_numeric(frame[name].dtype)]
    if text:
        raise DataError(
            f"{path} has columns that are not numbers: {listed(text)}. Encode them as numbers "
            "or leave them out (values are separated by commas, decimals written with a point)."
        )
    with reading(path, "a table of numbers"):
        x = np.stack([_numbers(frame[name]) for name in columns], axis=1)
    given = _labels(path, frame[label_name]) if labels and label_name else None
    return Content(x, given, tuple(columns))


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
