"""Named parts of the data in the columns of Parquet files: numbers, codes and labels."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from keras_vae.integrity import Observation
from keras_vae.spelling import counted, numbers_in
from serving.errors import ServingError
from serving.ranges import Range
from serving.score.rows import is_list, is_number, listed, refusal, tensor

__all__ = ["check_columns", "columns_of_parts", "part_tensor"]


def columns_of_parts(
    schema: pa.Schema, parts: Sequence[Observation], columns: Sequence[str], key: Sequence[str]
) -> tuple[str, ...]:
    """Decides which column holds each part; "" for one that may be absent and has no column.

    Args:
        schema: schema of the file.
        parts: parts of the data.
        columns: columns in the order of the parts, given by the user; empty for those with their
            names.
        key: columns that are copied.

    Raises:
        ServingError: if a part that may not be absent has no column, or a column belongs to none.
    """
    names = [part.name for part in parts]
    if columns:
        if len(columns) != len(parts):
            raise ServingError(
                f"Expected one column for each of the parts {listed(names)}, in this order; got "
                f"{listed(columns)}."
            )
        return tuple(columns)
    left = [name for name in schema.names if name not in key]
    for name in left:
        if name not in names:
            alike = [part for part in names if part.lower() == name.lower()]
            near = alike or difflib.get_close_matches(name, names, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ServingError(
                f"Expected the parts of the model, {listed(names)}; the file also has {name!r}"
                f"{hint}. Name columns to copy with --key, or those of the parts with --columns."
            )
    lacking = [part.name for part in parts if part.name not in left and not part.missing]
    if lacking or not left:
        raise ServingError(
            f"The file has no column {(lacking or names)[0]!r}, and this part may not be absent in "
            f"the model; it has {listed(schema)}."
        )
    return tuple(name if name in left else "" for name in names)


def check_columns(
    path: Path, schema: pa.Schema, parts: Sequence[Observation], columns: Sequence[str]
) -> None:
    """Refuses a file that lacks a column, or whose columns do not fit their parts."""
    for part, name in zip(parts, columns, strict=True):
        if not name:
            continue
        if schema.get_field_index(name) < 0:
            raise ServingError(
                f"{path} has no column {name!r} (or has it twice); it has {listed(schema)}."
            )
        kind = schema.field(name).type
        if is_list(kind) or pa.types.is_null(kind):
            continue
        is_share = (part.low, part.high) == (0.0, 1.0)
        if pa.types.is_boolean(kind) and not (part.categories or is_share):
            raise ServingError(f"{path}, column {name!r}: expected numbers; got {kind}.")
        if part.size != 1:
            raise ServingError(
                f"{path}, column {name!r}: expected lists of {counted(part.size, 'number')}; got "
                f"{kind}."
            )
        if not is_number(kind) and not (part.categories and _is_label(kind)):
            expected = "numbers or labels" if part.categories else "numbers"
            raise ServingError(f"{path}, column {name!r}: expected {expected}; got {kind}.")


def part_tensor(table: pa.Table, name: str, part: Observation, path: Path, at: int) -> np.ndarray:
    """Converts a column to float32 [rows, *shape]; nulls are NaN where the part may be absent.

    Labels become codes by the categories in the manifest.

    Args:
        table: rows of a file.
        name: the column; "" for a part that is absent in all rows.
        part: the part.
        path, at: the file and the number of the first row, for errors.

    Raises:
        ServingError: naming file, row and column of the first value that the part cannot hold.
    """
    if not name or pa.types.is_null(table.schema.field(name).type):
        if name and len(table) and not part.missing:
            raise refusal(path, at, name, "a number; got null")
        return np.full((len(table), *part.shape), np.nan, np.float32)
    values = _with_holes(table.column(name), part.missing_values)
    has_numbers = _are_numbers(part.categories) and is_number(values.type)
    if part.categories and (has_numbers or _is_label(values.type)):
        values = _codes(values, part, path, at, name)
    table = table.set_column(table.schema.get_field_index(name), name, values)
    return tensor(table, [name], part.shape, Range.of(part), path, at)


def _with_holes(values: Any, marks: Sequence[Any]) -> Any:
    """Returns a column in which values that stand for a missing one are null."""
    if not marks or is_list(values.type):
        return values
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if is_number(values.type) and not pa.types.is_boolean(values.type):
        found = pa.array(numbers_in(marks), pa.float64())
        is_mark = pc.is_in(values.cast(pa.float64()), found)
    else:
        is_mark = pc.is_in(values.cast(pa.string()), pa.array(list(map(str, marks)), pa.string()))
    return pc.if_else(is_mark, pa.scalar(None, values.type), values)


def _are_numbers(categories: Sequence[Any]) -> bool:
    """Tells whether the labels of categories are numbers, and not true and false."""
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in categories)


def _codes(values: Any, part: Observation, path: Path, at: int, name: str) -> Any:
    """Converts labels of categories, which are texts or numbers, to their codes."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_boolean(values.type):
        values = pc.if_else(values, "True", "False")
    made, kind = (float, pa.float64()) if is_number(values.type) else (str, pa.string())
    values = values.cast(kind)
    codes = pc.index_in(values, pa.array(list(map(made, part.categories)), kind))
    unknown = pc.and_not(pc.is_null(codes), pc.is_null(values, nan_is_null=True))
    if (row := pc.index(unknown, True).as_py()) >= 0:
        got, known = values[row].as_py(), list(map(str, part.categories))
        shown = f"{got!r}" if isinstance(got, str) else f"{got:g}"
        if isinstance(got, str) and (near := difflib.get_close_matches(got, known, 1)):
            shown = f"{got!r} (is it {near[0]!r}?)"
        raise refusal(path, at + row, name, f"one of the categories {listed(known)}; got {shown}")
    return codes


def _is_label(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind)
