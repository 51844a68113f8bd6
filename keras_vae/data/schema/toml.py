"""A schema as TOML: written with comments, and read with messages that name what is wrong."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from typing import Any

import tomli_w

from keras_vae.data.content import DataError
from keras_vae.data.schema.column import FAMILIES, KINDS, LEFT_OUT, Column
from keras_vae.spelling import meant

__all__ = ["read", "write"]

_FORMAT = 1
_WIDEST = 80
_FACTS = ("whole", "decimals", "low", "high", "mean", "deviation", "absent", "reason", "note")
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "kind": ((str,), "text"),
    "likelihood": ((str,), "text"),
    "options": ((dict,), "a table"),
    "missing": ((bool,), "true or false"),
    "categories": ((list,), "a list of labels"),
    "dtype": ((str,), "text"),
    "whole": ((bool,), "true or false"),
    "decimals": ((int,), "a whole number"),
    "low": ((int, float), "a number"),
    "high": ((int, float), "a number"),
    "mean": ((int, float), "a number"),
    "deviation": ((int, float), "a number"),
    "top": ((int, float), "a number"),
    "absent": ((int, float), "a number"),
    "reason": ((str,), "text"),
    "missing_values": ((list,), "a list of values"),
    "note": ((str,), "text"),
}


def write(columns: Sequence[Column], rows: int) -> str:
    """Returns the TOML of a schema."""
    parts = [_heading(rows)]
    for column in columns:
        values = _values(column)
        values["dtype"] = values.pop("dtype")
        changeable = [_line(key, value) for key, value in values.items() if key not in _FACTS]
        facts = [_line(key, value) for key, value in values.items() if key in _FACTS]
        lines = [f"[columns.{_key(column.name)}]", *changeable, "# seen in the table:", *facts]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _heading(rows: int) -> str:
    choices = "\n".join(
        f"#   {kind:<12} {', '.join(key for key, each in FAMILIES.items() if kind in each.kinds)}"
        for kind in KINDS
    )
    return f"""# How the columns of a table are modelled. Edit it, and give it to keras_vae again.
#
# You may change, in each column:
#   kind, to one of those below, or to "{LEFT_OUT}"
#   likelihood, to one beside the kind (leave it out for the first), and its options
#   missing, to true if values may be absent in other tables
#   missing_values, labels that stand for a missing value, as in ["unknown"]; numbers change the
#   range and the mean, so name them to `keras-vae schema FILE --missing-value COLUMN=-999`
#   categories: their order; add those that other tables hold
#   top, the number that stands for 1 in a proportion (100 for percentages)
#   dtype, the type in which rows come back: int64, float64, Int64, str, object, category[str], ...
#
{choices}
#
# You may remove a column that you leave out. Numbers seen in the table are not settings.

format = {_FORMAT}
rows = {rows}
"""


def _key(name: str) -> str:
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")


def _line(key: str, value: Any) -> str:
    return f"{_key(key)} = {_inline(value)}"


def _inline(value: Any) -> str:
    """Returns a value in one line, lists of many labels excepted."""
    if isinstance(value, dict):
        return "{ " + ", ".join(_line(key, each) for key, each in value.items()) + " }"
    if isinstance(value, list):
        parts = [_inline(each) for each in value]
        line = f"[{', '.join(parts)}]"
        return line if len(line) < _WIDEST else "[\n    " + ",\n    ".join(parts) + ",\n]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").removesuffix("\n")


def _values(column: Column) -> dict[str, Any]:
    """Returns the entries of a column that say something."""
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(column):
        value = getattr(column, entry.name)
        if entry.name == "name" or value is None:
            continue
        always = ("kind", "dtype", "missing") if column.is_modelled else ("kind", "dtype")
        if entry.name in always or value not in ((), "", {}, entry.default):
            values[entry.name] = list(value) if isinstance(value, tuple) else value
    if column.low is not None:
        values |= {key: float(getattr(column, key)) for key in ("low", "high", "mean", "deviation")}
    if "options" in values:
        values["options"] = dict(values["options"])
    return values


def read(text: str, source: str) -> tuple[tuple[Column, ...], int]:
    """Returns the columns of a schema, and the number of rows that it was inferred from.

    Raises:
        DataError: if the text is no schema; the message names the column and the key.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source} is not TOML: {error}.") from error
    if values.get("format") != _FORMAT:
        raise DataError(
            f"{source} has format = {values.get('format')!r}; expected {_FORMAT}. Write it anew "
            "with this version: keras-vae schema FILE --out schema.toml."
        )
    known = ("format", "rows", "columns")
    unknown = [name for name in values if name not in known]
    if unknown:
        raise DataError(
            f"{source} holds the unknown key {unknown[0]!r}{meant(unknown[0], known)}. Known ones: "
            f"{', '.join(known)}."
        )
    rows, columns = values.get("rows", 0), values.get("columns")
    if not isinstance(rows, int) or isinstance(rows, bool):
        raise DataError(f"Expected rows of {source} to be a whole number; got {rows!r}.")
    if not isinstance(columns, dict) or not columns:
        raise DataError(f"{source} has no columns: write one [columns.NAME] for each.")
    found = tuple(_column(name, entries, source) for name, entries in columns.items())
    if not any(column.is_modelled for column in found):
        raise DataError(f"{source} leaves every column out: give a kind to at least one.")
    return found, rows


def _column(name: str, entries: Any, source: str) -> Column:
    where = f"[columns.{_key(name)}] of {source}"
    if not isinstance(entries, dict):
        raise DataError(f"Expected {where} to be a table; got {entries!r}.")
    for key, value in entries.items():
        if key not in _KINDS:
            raise DataError(
                f"{where} holds the unknown key {key!r}{meant(key, _KINDS)}. Known ones: "
                f"{', '.join(_KINDS)}."
            )
        kinds, words = _KINDS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise DataError(f"Expected {key} of {where} to be {words}; got {value!r}.")
    for key in ("kind", "dtype"):
        if key not in entries:
            raise DataError(f"{where} has no {key}: add one.")
    values: dict[str, Any] = dict(entries)
    for key in {"categories", "missing_values"} & set(values):
        values[key] = tuple(values[key])
        odd = [each for each in values[key] if not isinstance(each, (str, bool, int, float))]
        if odd:
            raise DataError(
                f"Expected the {key} of {where} to be text, numbers or true and false; got "
                f"{odd[0]!r}."
            )
    try:
        return Column(name, **values)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
