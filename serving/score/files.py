"""Files that are scored: Parquet files, other tables, arrays, and texts with one in each line."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from keras_vae.data.content import DataError
from keras_vae.data.tables import TABLE_SUFFIXES, load_frame
from keras_vae.tokens import TEXT, TEXT_SUFFIXES, text_of_json
from serving.errors import ServingError
from serving.score.series import SeriesReader

__all__ = ["FILES", "chunks", "leads_on", "schema_and_rows"]

FILES = (
    "Parquet files, tables in .csv, .tsv or .feather, arrays in .npy, and texts in "
    + " or ".join(TEXT_SUFFIXES)
)
"""The files that can be scored, in words."""

_SCHEMA = pa.schema([pa.field(TEXT, pa.string())])
_MAGIC = b"PAR1"


def schema_and_rows(path: Path, series: SeriesReader | None = None) -> tuple[pa.Schema, int]:
    """Reads the schema of a file and its number of rows.

    Args:
        path: the file.
        series: reader of the model's time series; None if its data is something else.

    Raises:
        ServingError: if it cannot be read.
    """
    if path.name.lower().endswith(TEXT_SUFFIXES):
        return _SCHEMA, sum(1 for _ in _texts(path))
    if (table := _held(path, series)) is not None:
        return table.schema, len(table)
    footer = _footer(path)
    return footer.schema.to_arrow_schema(), footer.num_rows


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (OSError, ValueError) as error:
        raise ServingError(
            f"{path} cannot be read as a Parquet file: {str(error).rstrip('.')}. Write or download "
            "it again."
        ) from error


def _held(path: Path, series: SeriesReader | None) -> pa.Table | None:
    """Reads a file that is kept in memory; None for a Parquet file with one row an example."""
    status = path.stat()
    return _read(path, series, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read(path: Path, series: SeriesReader | None, size: int, modified: int) -> pa.Table | None:
    name = path.name.lower()
    if name.endswith(".npy"):
        return _array(path) if series is None else series.read(path)
    if _is_parquet(path):
        names = _footer(path).schema.to_arrow_schema().names
        return series.read(path, names) if series is not None and series.columns(names) else None
    if not name.endswith(TABLE_SUFFIXES):
        raise ServingError(f"{path} is of another kind than what can be scored: {FILES}.")
    try:
        frame = load_frame(path)
    except DataError as error:
        raise ServingError(str(error)) from error
    names = list(frame.columns)
    if series is not None and series.columns(names):
        return series.read(path, names)
    return pa.Table.from_pandas(frame, preserve_index=False)


def _is_parquet(path: Path) -> bool:
    if path.name.lower().endswith(".parquet"):
        return True
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _array(path: Path) -> pa.Table:
    """Reads an array as a table with a column x of lists."""
    try:
        x = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ServingError(
            f"{path} cannot be read as a .npy array: it is damaged, or holds Python objects. Save "
            "numbers by numpy.save."
        ) from error
    if x.dtype.kind not in "biuf" or not x.ndim or not x.size:
        raise ServingError(
            f"Expected {path} to hold numbers [N, ...]; got shape {x.shape} of dtype {x.dtype}."
        )
    values = x if x.dtype.kind == "f" and x.itemsize > 2 else x.astype(np.float64)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), x.size // len(x))
    return pa.Table.from_arrays([lists], names=["x"])


def chunks(
    path: Path,
    columns: Sequence[str],
    start: int,
    stop: int,
    size: int,
    series: SeriesReader | None = None,
) -> Iterator[pa.Table]:
    """Reads rows of a file as tables of at most `size` rows; skips row groups outside the range."""
    if path.name.lower().endswith(TEXT_SUFFIXES):
        yield from _chunks_of_texts(path, columns, start, stop, size)
        return
    if (table := _held(path, series)) is not None:
        for begin in range(start, stop, size):
            yield table.select(list(columns)).slice(begin, min(size, stop - begin))
        return
    # By default the reader keeps the bytes of everything it has read of a row group.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        at = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if at + rows <= start:
                at += rows
                continue
            for batch in file.iter_batches(size, row_groups=[group], columns=list(columns)):
                begin, end = max(start, at), min(stop, at + len(batch))
                if begin < end:
                    yield pa.Table.from_batches([batch.slice(begin - at, end - begin)])
                at += len(batch)
                if at >= stop:
                    return


def leads_on(path: Path, at: int, start: int, series: SeriesReader | None = None) -> bool:
    """Tells whether `chunks` that have come to row `at` are the cheapest way to row `start`.

    They are where new ones from `start` on would read the rows between as well: those of the same
    row group, and lines of text.
    """
    if at >= start or path.name.lower().endswith(TEXT_SUFFIXES):
        return at <= start
    if _held(path, series) is not None:
        return False
    footer = _footer(path)
    ends = np.cumsum([footer.row_group(group).num_rows for group in range(footer.num_row_groups)])
    return not ((at < ends) & (ends <= start)).any()


def _chunks_of_texts(
    path: Path, columns: Sequence[str], start: int, stop: int, size: int
) -> Iterator[pa.Table]:
    held: list[str] = []
    for row, text in enumerate(_texts(path)):
        if row >= stop:
            break
        if row >= start:
            held.append(text)
        if len(held) == size:
            yield pa.table({TEXT: held}, _SCHEMA).select(columns)
            held = []
    if held:
        yield pa.table({TEXT: held}, _SCHEMA).select(columns)


def _texts(path: Path) -> Iterator[str]:
    """Yields the texts of a file."""
    is_json = path.name.lower().endswith(".jsonl")
    row = -1
    try:
        with path.open("rb") as file:
            for row, content in enumerate(file):
                line = content.decode("utf-8-sig" if row == 0 else "utf-8")
                line = line.removesuffix("\n").removesuffix("\r")
                yield _text_of(line, path, row) if is_json else line
    except UnicodeDecodeError as error:
        raise ServingError(f"{path}, line {row + 1}, is not UTF-8: save it in UTF-8.") from error
    except OSError as error:
        raise ServingError(f"{path} cannot be read: {error.strerror}.") from error


def _text_of(line: str, path: Path, row: int) -> str:
    try:
        return text_of_json(line)
    except ValueError as error:
        raise ServingError(f"{path}, line {row + 1}, {error}") from error
