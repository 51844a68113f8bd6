"""Rows of Parquet files as checked input tensors of a signature."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from keras_vae.spelling import counted
from serving.artifact import Tensor
from serving.errors import ServingError
from serving.ranges import Range
from serving.score.files import chunks
from serving.score.series import SeriesReader

__all__ = [
    "Layout",
    "column_layout",
    "is_list",
    "is_number",
    "is_text",
    "listed",
    "read",
    "refusal",
    "tensor",
    "text_tensor",
]


@dataclass(frozen=True)
class Layout:
    """Columns that hold x and the condition, and columns to copy."""

    columns: tuple[str, ...]
    condition: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """Every column once."""
        return [name for name in dict.fromkeys((*self.columns, *self.condition, *self.key)) if name]

    @staticmethod
    def size(shape: Sequence[int]) -> int:
        """Returns how many numbers a row of that shape has."""
        return math.prod(shape)

    def check(self, path: Path, schema: pa.Schema, inputs: dict[str, Tensor]) -> None:
        """Refuses a file that lacks a column, or whose columns do not fit the inputs."""
        for name in self.all:
            if schema.get_field_index(name) < 0:
                raise ServingError(
                    f"{path} has no column {name!r} (or has it twice); it has {listed(schema)}."
                )
        for what, names in (("x", self.columns), ("condition", self.condition)):
            if not names or what not in inputs:
                continue
            shape = inputs[what].shape
            size, kinds = self.size(shape), [schema.field(name).type for name in names]
            if len(names) == 1 and is_list(kinds[0]):
                continue
            if len(names) == 1 and is_text(kinds[0]) and inputs[what].tokens is not None:
                continue
            if len(names) != size or len(set(names)) < size:
                raise ServingError(
                    f"{path}: {what} of shape {shape} is in {counted(size, 'column')} of numbers "
                    f"or in one of lists of {size}; got {counted(len(names), 'column')}, "
                    f"{listed(names)}. Name those of {what}, and those to copy."
                )
            for name, kind in zip(names, kinds, strict=True):
                if not is_number(kind):
                    raise ServingError(f"{path}, column {name!r}: expected numbers; got {kind}.")


def column_layout(
    schema: pa.Schema,
    inputs: dict[str, Tensor],
    *,
    columns: Sequence[str],
    condition: Sequence[str],
    key: Sequence[str],
    features: Sequence[str] = (),
) -> Layout:
    """Decides which columns hold what; without `columns`, x is in all remaining ones.

    If none remain, x is in columns that are copied too.

    Args:
        schema: schema of the file.
        inputs: inputs of the signature.
        columns, condition, key: names given by the user, possibly none.
        features: names of the columns that the model was trained on, possibly none. With them, the
            order of the columns makes no difference.

    Raises:
        ServingError: if a condition is missing or superfluous, or the remaining columns are not
            those of the model.
    """
    if condition and "condition" not in inputs:
        raise ServingError(f"The model takes no condition; got the columns {', '.join(condition)}.")
    if "condition" in inputs and not condition:
        raise ServingError("The model is conditional: name the columns of its condition.")
    if not columns:
        left = [name for name in schema.names if name not in (*key, *condition)]
        left = left or [name for name in schema.names if name not in condition]
        lists = [field.name for field in schema if field.name in left and is_list(field.type)]
        texts = [field.name for field in schema if field.name in left and is_text(field.type)]
        if "x" in inputs and inputs["x"].tokens is not None and len(texts) == 1:
            lists = texts
        columns = lists if len(lists) == 1 else left
        if features and columns is left:
            _check_features(schema.names, left, features)
            columns = features
    elif sorted(columns) == sorted(features):
        columns = features
    return Layout(tuple(columns), tuple(condition), tuple(key))


def _check_features(present: Sequence[str], left: Sequence[str], features: Sequence[str]) -> None:
    missing = [name for name in features if name not in present]
    extra = [name for name in left if name not in features]
    what = [f"lacks {listed(missing)}"] if missing else []
    what += [f"also has {listed(extra)}"] if extra else []
    if what:
        raise ServingError(
            f"Expected the columns that the model was trained on; the file {' and '.join(what)}. "
            "Name columns to copy with --key, or those of x with --columns."
        )


def read(
    path: Path,
    columns: Sequence[str],
    start: int,
    stop: int,
    number: int,
    batch_size: int,
    series: SeriesReader | None = None,
) -> Iterator[pa.Table]:
    """Reads rows of a file as tables that end at a multiple of the batch size, over all files.

    Args:
        path: the file.
        columns: columns to read.
        start, stop: range of rows.
        number: number of row `start`, counted over all files.
        batch_size: rows of a batch.
        series: reader of the model's time series; None if its data is something else.
    """
    held: list[pa.Table] = []
    room = batch_size - number % batch_size
    for chunk in chunks(path, columns, start, stop, batch_size, series):
        while len(chunk):
            held.append(chunk.slice(0, room))
            room -= len(held[-1])
            chunk = chunk.slice(len(held[-1]))
            if not room:
                yield pa.concat_tables(held)
                held, room = [], batch_size
    if held:
        yield pa.concat_tables(held)


def text_tensor(table: pa.Table, name: str, takes: Tensor, path: Path, at: int) -> np.ndarray:
    """Converts a column of texts to the numbers of their tokens, float32 [rows, T].

    Args:
        table: rows of a file.
        name: the column.
        takes: the input, whose tokens are known.
        path, at: the file and the number of the first row, for errors.

    Raises:
        ServingError: naming file and row of the first text that the model cannot take.
    """
    tokens, (steps,) = takes.tokens, takes.shape
    if tokens is None:
        raise ServingError(f"{path}, column {name!r}: expected numbers; got texts.")
    rows = []
    for row, text in enumerate(table.column(name).to_pylist()):
        problem = "is null" if text is None else tokens.problem(text, steps)
        if problem is not None:
            raise ServingError(f"{path}, row {at + row}: the text in {name!r} {problem}.")
        rows.append(tokens.padded(text, steps))
    return np.array(rows, np.float32)


def tensor(
    table: pa.Table,
    names: Sequence[str],
    shape: tuple[int, ...],
    allowed: Range,
    path: Path,
    at: int,
) -> np.ndarray:
    """Converts columns of a table to float32 [rows, *shape].

    Args:
        table: rows of a file.
        names: one column for each number, or one of lists.
        shape: shape of one row.
        allowed: possible values.
        path, at: the file and the number of the first row, for errors.

    Raises:
        ServingError: naming file, row and column of the first null, wrong length or wrong value.
    """
    size = Layout.size(shape)
    rows = len(table)
    if len(names) == 1 and is_list(table.schema.field(names[0]).type):
        column = table.column(names[0]).combine_chunks()
        values = _flat(column, size, path, at, names[0], allowed.missing)
        wide = _numbers(values).reshape(rows, size)
    else:
        wide = np.empty((rows, size))
        for index, name in enumerate(names):
            column = table.column(name)
            if column.null_count and not allowed.missing:
                row = pc.index(pc.is_null(column), True).as_py()
                raise refusal(path, at + row, name, "a number; got null")
            wide[:, index] = _numbers(column)
    with np.errstate(over="ignore"):
        x = wide.astype(np.float32)
    bad = allowed.bad(x)
    if bad.any():
        row, entry = np.argwhere(bad)[0]
        name = names[0] if len(names) == 1 else names[entry]
        where = f"{name}[{entry}]" if len(names) == 1 and size > 1 else name
        raise refusal(path, at + row, where, allowed.problem(float(wide[row, entry])))
    return x.reshape(rows, *shape)


def _flat(
    values: pa.Array, size: int, path: Path, at: int, name: str, missing: bool = False
) -> pa.Array:
    """Flattens a column of lists, nested ones in row-major order, to `size` numbers per row.

    Where values may be `missing`, null stands for a list of nulls.
    """
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if missing and values.null_count:
        nulls = [None] * size
        lists = [nulls if row is None else np.ravel(row).tolist() for row in values.to_pylist()]
        values = pa.array(lists, pa.list_(pa.float64()))
    rows = len(values)
    owners = np.arange(rows)
    while is_list(values.type):
        lengths = pc.list_value_length(values)
        if lengths.null_count:
            row = owners[pc.index(pc.is_null(lengths), True).as_py()]
            raise refusal(path, at + row, name, f"a list of {counted(size, 'number')}; got null")
        owners = np.repeat(owners, lengths.to_numpy())
        values = values.flatten()
    counts = np.bincount(owners, minlength=rows)
    if (counts != size).any():
        row = int(np.argmax(counts != size))
        raise refusal(
            path, at + row, name, f"a list of {counted(size, 'number')}; got {counts[row]}"
        )
    if values.null_count and not missing:
        row = owners[pc.index(pc.is_null(values), True).as_py()]
        raise refusal(path, at + row, name, "numbers; got null")
    return values


def _numbers(values: Any) -> np.ndarray:
    """Returns numbers as an array, nulls as NaN."""
    if not (pa.types.is_float32(values.type) or pa.types.is_float16(values.type)):
        values = values.cast(pa.float64(), safe=False)
    if isinstance(values, pa.Array):
        return values.to_numpy(zero_copy_only=values.null_count == 0)
    return values.to_numpy()


def is_number(kind: pa.DataType) -> bool:
    """Tells whether a column holds numbers."""
    types = pa.types
    return (
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Tells whether a column holds texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_list(kind: pa.DataType) -> bool:
    """Tells whether a column holds lists."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def listed(names: Sequence[str] | pa.Schema) -> str:
    """Lists names, or those of the columns of a schema, at most eight."""
    names = names.names if isinstance(names, pa.Schema) else list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def refusal(path: Path, row: int, column: str, expected: str) -> ServingError:
    """Returns the error about a value in a row of a file."""
    return ServingError(f"{path}, row {row}, column {column!r}: expected {expected}.")
