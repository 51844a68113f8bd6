"""Time series in files: arrays with lengths, or tables with one row a step."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_vae.data.content import DataError, listed, reading
from keras_vae.data.frames import is_numeric
from keras_vae.data.sequences import padded
from keras_vae.data.tables import TABLE_SUFFIXES, load_frame
from keras_vae.spelling import counted

__all__ = ["Series", "load_series"]

_VALUES = ("values", "x", "X", "data", "series", "arr_0")
_LENGTHS = "lengths"

_SAME_STEP = 0.25
"""Part of a step by which another may differ and still be as long, as months do."""


class Series(NamedTuple):
    """Time series as one array.

    Attributes:
        x: float32 or float64 [N, T, D], NaN where nothing was observed.
        names: names of the D columns of a table; empty for an array.
        ids: values of the column that says to which series a row belongs; empty without one.
        remark: sentence on times that are not equally far apart, which count as one step each, or
            nothing.
    """

    x: np.ndarray
    names: tuple[str, ...]
    ids: tuple[Any, ...] = ()
    remark: str = ""


def load_series(
    source: str | os.PathLike[str],
    *,
    id_column: str = "",
    time_column: str = "",
    drop: tuple[str, ...] = (),
    long: bool = False,
) -> Series:
    """Reads time series of different lengths.

    Args:
        source: a .npy file of an array [N, T] or [N, T, D], NaN where nothing was observed; a .npz
            file of such an array, `values`, and of the number of steps of each series, `lengths`;
            or a table, one row a step.
        id_column: column of a table that says to which series a row belongs. A series keeps its
            rows together however they are ordered, and series are in the order in which they come.
        time_column: column of a table by which the steps of a series are ordered; empty keeps the
            order of the rows. Steps are taken to be equally long; `remark` says where they are not.
        drop: columns of a table to leave out.
        long: whether a table without `id_column` is one series, and an array [T] or [T, D], too.

    Raises:
        DataError: if the file cannot be read or holds no such series.
    """
    path = Path(source).expanduser()
    name = path.name.lower()
    if name.endswith(TABLE_SUFFIXES):
        return _of_table(path, id_column, time_column, drop, long)
    if id_column or time_column or drop:
        raise DataError(f"{path} is no table, so it has no columns to name: leave them out.")
    if not path.is_file():
        raise DataError(f"{path} does not exist. Give the path of a file of series.")
    if name.endswith(".npy"):
        with reading(path, "a .npy array"):
            return Series(_checked(path, np.load(path, allow_pickle=False), long), ())
    if not name.endswith(".npz"):
        raise DataError(
            f"Expected series in a file that ends in "
            f"{', '.join(('.npy', '.npz', *TABLE_SUFFIXES))}; got {path}."
        )
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no .npz archive, or incomplete: write or download it again.")
    with reading(path, "a .npz archive"), np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    key = next((key for key in _VALUES if key in arrays), None)
    if key is None:
        raise DataError(
            f"{path} has no array `values`; it holds {listed(list(arrays)) or 'nothing'}. Save the "
            "series as np.savez(file, values=..., lengths=...)."
        )
    ends = arrays.get(_LENGTHS)
    return Series(_ended(path, _checked(path, arrays[key], long and ends is None), ends), ())


def _checked(path: Path, x: np.ndarray, long: bool) -> np.ndarray:
    """Returns series [N, T, D] of floats."""
    if long and x.ndim in (1, 2):
        x = x.reshape(1, len(x), -1) if x.size else x
    if x.dtype.kind not in "biuf" or x.ndim not in (2, 3) or not x.size:
        raise DataError(
            f"Expected {path} to hold numbers of shape [series, steps] or [series, steps, "
            f"entries]; got shape {x.shape} of dtype {x.dtype}."
        )
    x = x[..., np.newaxis] if x.ndim == 2 else x
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    _refuse_infinite(path, x)
    return x


def _refuse_infinite(path: Path, x: np.ndarray) -> None:
    if (np.abs(x) > np.finfo(np.float32).max).any():
        raise DataError(
            f"{path} holds infinite numbers, or such that float32 cannot hold. Leave them out as "
            "NaN, or clip them."
        )


def _ended(path: Path, x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """Makes the steps after the end of each series absent."""
    if lengths is None:
        return x
    is_number = lengths.dtype.kind in "iuf"
    fits = is_number and (lengths >= 1) & (lengths <= x.shape[1]) & (lengths == np.rint(lengths))
    if lengths.shape != (len(x),) or not np.all(fits):
        raise DataError(
            f"Expected `lengths` of {path} to be {len(x)} whole numbers from 1 to {x.shape[1]}; "
            f"got an array of shape {lengths.shape} and dtype {lengths.dtype}"
            f"{'' if lengths.shape != (len(x),) else ' with others'}. Correct it, or leave it out."
        )
    ended = np.arange(x.shape[1]) >= lengths[:, np.newaxis]
    return np.where(ended[..., np.newaxis], np.asarray(np.nan, x.dtype), x)


def _of_table(
    path: Path, id_column: str, time_column: str, drop: tuple[str, ...], long: bool
) -> Series:
    frame: Any = load_frame(path)
    for column in filter(None, (id_column, time_column, *drop)):
        if column not in frame.columns:
            raise DataError(
                f"{path} has no column {column!r}; it has {listed(list(frame.columns))}. Name one "
                "of these."
            )
    if not len(frame):
        raise DataError(f"{path} has no rows below its header. Write or download it again.")
    if not id_column and not long:
        raise DataError(
            f"{path} is a table: name the column that says to which series a row belongs with "
            f"--id-column, and the one of the times with --time-column; or cut one long series "
            f"into windows with --window. It has {listed(list(frame.columns))}."
        )
    keys = [*filter(None, [id_column, time_column])]
    twice_named = [key for key in keys if key in drop or keys.count(key) > 1]
    if twice_named:
        raise DataError(
            f"Expected different columns for --id-column, --time-column and --drop; got "
            f"{twice_named[0]!r} twice. Name each once."
        )
    frame = frame.drop(columns=list(drop))
    absent = frame[keys].isna().any(axis=1)
    if absent.any():
        raise DataError(
            f"{path}, row {int(absent.argmax())} (counted from 0), has no {' or no '.join(keys)}. "
            "Fill it, or remove the row."
        )
    names = [name for name in frame.columns if name not in keys]
    text = [name for name in names if not is_numeric(frame[name].dtype)]
    if text or not names:
        what = f"{text[0]!r} holds text or dates; leave it out with --drop" if text else "got none"
        if text and not time_column:
            what += ", or order the steps by it with --time-column"
        beside = f" beside {', '.join(keys)}" if keys else ""
        raise DataError(f"Expected columns of numbers in {path}{beside}: {what}.")
    if time_column:
        frame[time_column] = _times(path, frame[time_column])
        twice = frame.duplicated(keys)
        if twice.any():
            row = frame[twice].iloc[0]
            of_one = f" of the series {row[id_column]}" if id_column else ""
            raise DataError(f"{path} has two rows{of_one} at {row[time_column]}. Keep one of them.")
        frame = frame.sort_values(time_column, kind="stable")
    first: dict[Any, None] = {}
    remark = _remark(frame, id_column, time_column) if time_column else ""
    if id_column:
        groups = frame.groupby([id_column], sort=False)[names]
        first = dict.fromkeys(frame.sort_index()[id_column])
        x = padded([groups.get_group((key,)).to_numpy(np.float64) for key in first])
    else:
        x = frame[names].to_numpy(np.float64)[np.newaxis]
    _refuse_infinite(path, x)
    return Series(x, tuple(names), tuple(first), remark)


def _remark(frame: Any, id_column: str, time_column: str) -> str:
    """Says how many steps of ordered rows are longer or shorter than the commonest one."""
    times = frame.groupby([id_column], sort=False)[time_column] if id_column else frame[time_column]
    steps = times.diff().dropna()
    if not len(steps):
        return ""
    commonest = steps.mode().iloc[0]
    others = int((abs(steps - commonest) > _SAME_STEP * abs(commonest)).sum())
    if not others:
        return ""
    return (
        f"{others:,} of {counted(len(steps), 'step', ',')} between rows are not {commonest} in "
        f"{time_column!r}, the commonest, and count as one step all the same"
    )


def _times(path: Path, column: Any) -> Any:
    """Returns times that can be ordered: numbers, dates, or the dates that text holds."""
    import pandas as pd

    if is_numeric(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column
    try:
        return pd.to_datetime(column, format="ISO8601", utc=True)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Expected numbers or dates such as 2024-01-31 12:00 in {column.name!r} of {path}; "
            f"got {column.iloc[0]!r}. Text has no order in time: write the times as numbers."
        ) from error
