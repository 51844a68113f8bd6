"""Reader of delimited text: commas, semicolons or tabs, decimal points or commas, one header."""

from __future__ import annotations

import collections
import csv
import gzip
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from keras_vae.data.content import DataError, listed
from keras_vae.spelling import as_number

__all__ = ["DELIMITED_SUFFIXES", "delimited_chunks", "read_delimited"]

DELIMITED_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")

_LINES_LOOKED_AT = 50
_SEPARATORS = (",", ";", "\t")
_TRUTH_VALUES = ("true", "false")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*")


class _Dialect(NamedTuple):
    separator: str
    decimal: str
    header: list[str]


def read_delimited(path: Path, absent: Sequence[str] = ()) -> Any:
    """Reads a table with pandas, but never takes a column silently for row names.

    The separator is the first of comma, semicolon and tab that divides the first lines into equal
    numbers of fields. The decimal mark is a comma if it is not the separator and fields look like
    it.

    Args:
        path: path of the file, gzip or not.
        absent: fields that are absent values, beside those that pandas knows. With any, spaces
            after a separator do not count.

    Raises:
        DataError: if the text is not UTF-8, the first line holds data instead of names, a name
            occurs twice, or the names do not fit the columns.
    """
    with _strictly(path):
        return _open(path, absent)


def delimited_chunks(path: Path, rows: int) -> Iterator[Any]:
    """Reads the same table in chunks of rows.

    The dtype of a column is that of its values in the chunk.

    Args:
        path: path of the file, gzip or not.
        rows: number of rows in a chunk.

    Raises:
        DataError: as `read_delimited`.
    """
    with _strictly(path):
        reader = _open(path, (), chunksize=rows)
    with reader:
        while True:
            with _strictly(path):
                frame = next(reader, None)
            if frame is None:
                return
            yield frame


def _open(path: Path, absent: Sequence[str], **options: Any) -> Any:
    """Opens the table with pandas."""
    import pandas as pd

    # Before version 3, pandas rounds decimals correctly only on request.
    exactly = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
    dialect = _dialect(path)
    _check_header(path, dialect.header)
    return pd.read_csv(
        path,
        sep=dialect.separator,
        decimal=dialect.decimal,
        index_col=False,
        low_memory=False,
        na_values=list(absent),
        skipinitialspace=bool(absent),
        **exactly,
        **options,
    )


@contextmanager
def _strictly(path: Path) -> Iterator[None]:
    """Refuses rows with more values than the header has names, and text that is not UTF-8."""
    import pandas as pd

    with _in_utf_8(path), warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            yield
        except pd.errors.ParserWarning as error:
            raise DataError(
                f"{path} has rows with more values than the first line has names (values are "
                "separated by commas, semicolons or tabs). Name every column, or write decimals "
                "with a point."
            ) from error


@contextmanager
def _in_utf_8(path: Path) -> Iterator[None]:
    """Turns a decoding error into a `DataError` that says how to convert the text."""
    try:
        yield
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        guess = "UTF-16" if found in (0xFE, 0xFF) else "WINDOWS-1252"
        raise DataError(
            f"{path} holds the byte 0x{found:02x}, but text in UTF-8 was expected. "
            f"Save it again as UTF-8 (in a spreadsheet: CSV UTF-8; in a terminal: iconv -f {guess} "
            "-t UTF-8, if that is its encoding)."
        ) from error


def _dialect(path: Path) -> _Dialect:
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = [line for line in itertools.islice(file, _LINES_LOOKED_AT) if line.strip()]
    for separator in _SEPARATORS:
        rows = list(csv.reader(lines, delimiter=separator))
        if rows and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1:
            break
    else:
        separator = max(_SEPARATORS, key=lambda mark: lines[0].count(mark) if lines else 0)
        rows = list(csv.reader(lines, delimiter=separator))
    fields = list(itertools.chain.from_iterable(rows[1:]))
    commas = separator != "," and any(_DECIMAL_COMMA.fullmatch(field) for field in fields)
    return _Dialect(separator, "," if commas else ".", rows[0] if rows else [])


def _check_header(path: Path, given: Sequence[str]) -> None:
    names = [name.strip() for name in given]
    if names and names[0].lower().startswith("sep="):
        raise DataError(
            f"{path} begins with {names[0]!r}, a line for spreadsheets. Delete this line."
        )
    if len(names) == 1 and "|" in names[0]:
        raise DataError(
            f"{path} has the values of a row between |. Separate them by commas, semicolons or "
            "tabs."
        )
    if len(names) > 1 and names[0] == "":
        raise DataError(
            f"{path} has a column without a name, probably the row numbers that pandas saves. "
            "Write it with index=False, or name the column if it is data."
        )
    if names == [str(i) for i in range(len(names))]:
        return
    values = [
        name for name in names if as_number(name) is not None or name.lower() in _TRUTH_VALUES
    ]
    certain = [name for name in values if not name.isdecimal()]
    if values and (len(values) == len(names) or certain):
        raise DataError(
            f"{path} begins with a row of values ({listed(names)}) where the column names were "
            "expected. Add a first line with a name for each column."
        )
    twice = [name for name, count in collections.Counter(given).items() if name and count > 1]
    if twice:
        raise DataError(f"{path} has several columns {twice[0]}. Rename all but one.")
