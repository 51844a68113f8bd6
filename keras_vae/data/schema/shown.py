"""A schema as a table for people: one line per column."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from typing import Any

from keras_vae.data.schema.column import Column

__all__ = ["as_table", "as_text"]

_WIDEST = 160


def as_table(columns: Sequence[Column], rows: int) -> Any:
    """Returns the table as rich prints it."""
    from rich.table import Table
    from rich.text import Text

    modelled = sum(column.is_modelled for column in columns)
    title = f"{modelled} of {len(columns)} columns are modelled; {rows:,} rows"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("column", "kind", "likelihood"):
        table.add_column(name, overflow="fold")
    table.add_column("missing", justify="right")
    table.add_column("range or categories", overflow="fold")
    table.add_column("reason", overflow="fold")
    for column in columns:
        cells = (
            column.name,
            column.kind.replace("_", " "),
            column.likelihood if column.is_modelled else "",
            _missing(column),
            _holds(column),
            column.reason,
        )
        style = "" if column.is_modelled else "dim"
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def as_text(columns: Sequence[Column], rows: int) -> str:
    """Returns the table as text, as wide as the terminal."""
    from rich.console import Console

    width = min(shutil.get_terminal_size((120, 24)).columns, _WIDEST)
    file = io.StringIO()
    Console(file=file, width=width).print(as_table(columns, rows))
    return file.getvalue().rstrip("\n")


def _missing(column: Column) -> str:
    if not column.missing and not column.absent:
        return ""
    return f"{column.absent:.1%}" if column.absent else "may be"


def _holds(column: Column, most: int = 4) -> str:
    if column.categories:
        labels = ", ".join(str(label)[:20] for label in column.categories[:most])
        more = len(column.categories) - most
        return f"{labels} and {more} more" if more > 0 else labels
    if column.low is None or column.high is None:
        return ""
    digits = ".0f" if column.whole else ".4g"
    return f"{column.low:{digits}} to {column.high:{digits}}"
