"""Texts in files: one a line, in JSON Lines, or in a column of a table."""

from __future__ import annotations

import os
from pathlib import Path

from keras_vae.data.content import DataError, listed, reason
from keras_vae.data.tables import TABLE_SUFFIXES, load_frame
from keras_vae.tokens import TEXT, TEXT_SUFFIXES, text_of_json

__all__ = ["load_texts"]


def load_texts(source: str | os.PathLike[str], column: str = "") -> list[str]:
    """Reads texts.

    Args:
        source: a .txt file with one text a line; a .jsonl file, each line of which is a JSON string
            or an object with a key; or a table, .csv, .tsv, .parquet or .feather.
        column: name of the column of a table, or of the key; empty is "text".

    Returns:
        The texts in the order of the file.

    Raises:
        DataError: if the file cannot be read, or a text is missing or empty; it names the line.

    Example:
        >>> load_texts("poems.md")
        Traceback (most recent call last):
        ...
        keras_vae.data.content.DataError: Expected texts in a file that ends in .txt, .jsonl, ...
    """
    path = Path(source).expanduser()
    name = path.name.lower()
    if name.endswith(TABLE_SUFFIXES):
        return _of_table(path, column or TEXT)
    if not name.endswith(TEXT_SUFFIXES):
        raise DataError(
            f"Expected texts in a file that ends in "
            f"{', '.join((*TEXT_SUFFIXES, *TABLE_SUFFIXES))}; got {path}."
        )
    lines = _lines(path)
    if name.endswith(".jsonl"):
        return [_of_json(line, column, path, row) for row, line in enumerate(lines, start=1)]
    if column:
        raise DataError(f"{path} has one text a line and no columns: leave the column out.")
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            raise DataError(f"{path}, line {row}, is empty; every line is a text. Remove it.")
    return lines


def _lines(path: Path) -> list[str]:
    """Reads the lines of a file in UTF-8, without their ends."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Give the path of a file of texts.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {reason(error)}.") from error
    if not content:
        raise DataError(f"{path} is empty (0 bytes). Write or download it again.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {row}, is not UTF-8. Save the file in UTF-8, for example with "
            "iconv -f LATIN1 -t UTF-8."
        ) from error
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def _of_json(line: str, column: str, path: Path, row: int) -> str:
    try:
        return text_of_json(line, column or TEXT)
    except ValueError as error:
        raise DataError(f"{path}, line {row}, {error}") from error


def _of_table(path: Path, column: str) -> list[str]:
    frame = load_frame(path)
    if column not in frame.columns:
        raise DataError(
            f"{path} has no column {column!r}; it has {listed(list(frame.columns))}. Name the one "
            "that holds the texts with --text-column."
        )
    values = frame[column].tolist()
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{path}, row {row} (counted from 0), holds no text in {column!r}. Remove the row."
            )
    return values
