"""Files that are scored: Parquet files, and files of texts with one in each line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from keras_vae.tokens import TEXT, TEXT_SUFFIXES, text_of_json
from serving.errors import ServingError

__all__ = ["chunks", "schema_and_rows"]

_SCHEMA = pa.schema([pa.field(TEXT, pa.string())])


def schema_and_rows(path: Path) -> tuple[pa.Schema, int]:
    """Reads the schema of a file and its number of rows.

    Raises:
        ServingError: if it cannot be read.
    """
    if path.name.lower().endswith(TEXT_SUFFIXES):
        return _SCHEMA, sum(1 for _ in _texts(path))
    try:
        footer = pq.read_metadata(path)
    except (OSError, ValueError) as error:
        raise ServingError(
            f"{path} cannot be read as a Parquet file: {str(error).rstrip('.')}. Give Parquet "
            f"files, or texts in {' or '.join(TEXT_SUFFIXES)}; pandas.read_csv(...).to_parquet(...)"
            " converts a CSV file."
        ) from error
    return footer.schema.to_arrow_schema(), footer.num_rows


def chunks(
    path: Path, columns: Sequence[str], start: int, stop: int, size: int
) -> Iterator[pa.Table]:
    """Reads rows of a file as tables of at most `size` rows; skips row groups outside the range."""
    if path.name.lower().endswith(TEXT_SUFFIXES):
        yield from _chunks_of_texts(path, columns, start, stop, size)
        return
    with pq.ParquetFile(path, buffer_size=2**20) as file:
        at = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if at + rows <= start:
                at += rows
                continue
            # Asked for several groups at once, the reader keeps everything it has read of each.
            for batch in file.iter_batches(size, row_groups=[group], columns=list(columns)):
                begin, end = max(start, at), min(stop, at + len(batch))
                if begin < end:
                    yield pa.Table.from_batches([batch.slice(begin - at, end - begin)])
                at += len(batch)
                if at >= stop:
                    return


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
