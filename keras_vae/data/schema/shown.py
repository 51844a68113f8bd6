"""A schema as a table for people: one line per column, readable in 80 characters."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from keras_vae.data.schema.column import Column
from keras_vae.spelling import counted

__all__ = ["as_text"]

_WIDEST = 160
_LONGEST_NAME = 20
_HEADER = ("column", "kind", "likelihood", "missing", "values")
_SHORT = {"zero_inflated_negative_binomial": "zero-inflated NB"}


def as_text(
    columns: Sequence[Column], rows: int, *, reasons: bool = False, width: int | None = None
) -> str:
    """Returns the table as text.

    Args:
        columns: all columns of the schema.
        rows: number of rows that it was inferred from.
        reasons: whether to add a line on why each column is modelled as it is.
        width: characters in a line; None is the width of the terminal.
    """
    width = width or min(shutil.get_terminal_size((100, 24)).columns, _WIDEST)
    cells = [_cells(column) for column in columns]
    sizes = [max(map(len, texts)) for texts in zip(_HEADER, *cells, strict=True)]
    sizes[-1] = max(len(_HEADER[-1]), width - sum(sizes[:-1]) - 2 * (len(sizes) - 1))
    modelled = sum(column.is_modelled for column in columns)
    lines = [f"{modelled} of {len(columns)} columns are modelled; {counted(rows, 'row', ',')}"]
    for row in (_HEADER, *cells):
        name, kind, likelihood, missing, values = map(_fitted, row, sizes)
        padded = (name, kind, likelihood)
        left = "  ".join(text.ljust(size) for text, size in zip(padded, sizes, strict=False))
        lines.append(f"{left}  {missing.rjust(sizes[3])}  {values}".rstrip())
    for column in columns if reasons else ():
        lines += textwrap.wrap(f"{column.name}: {column.reason}", width, subsequent_indent="    ")
    if not reasons:
        for column in columns:
            if not column.is_modelled:
                lines += textwrap.wrap(
                    f"{column.name} is left out: {column.reason}", width, subsequent_indent="    "
                )
    for column in columns:
        if column.note:
            lines += textwrap.wrap(f"{column.name} {column.note}", width, subsequent_indent="    ")
    return "\n".join(lines)


def _cells(column: Column) -> tuple[str, ...]:
    if not column.is_modelled:
        return (_fitted(column.name, _LONGEST_NAME), "left out", "", _missing(column), "")
    likelihood = _SHORT.get(column.likelihood, column.likelihood.replace("_", " "))
    return (
        _fitted(column.name, _LONGEST_NAME),
        column.kind,
        likelihood,
        _missing(column),
        _holds(column),
    )


def _fitted(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: max(size - 3, 1)]}..."


def _missing(column: Column) -> str:
    if not column.missing and not column.absent:
        return ""
    return f"{column.absent:.1%}" if column.absent else "may be"


def _holds(column: Column) -> str:
    if column.categories:
        labels = ", ".join(map(_label, column.categories[:20]))
        return labels if len(column.categories) < 4 else f"{len(column.categories)}: {labels}"
    if column.low is None or column.high is None:
        return ""
    if column.whole:
        return f"{column.low:.0f} to {column.high:.0f}"
    return f"{float(f'{column.low:.4g}'):g} to {float(f'{column.high:.4g}'):g}"


def _label(label: object) -> str:
    """Returns a label in quotes where its comma would be taken for the next one's."""
    if isinstance(label, float):
        return f"{label:g}"
    text = str(label)[:20]
    return repr(text) if "," in text or "\n" in text else text
