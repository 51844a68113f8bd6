"""Columns of a table: which are data, which are left out and why, and their order by name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from keras_vae.data.content import DataError, listed, only_label
from keras_vae.data.mapped import chunks
from keras_vae.spelling import counted, meant

__all__ = [
    "Columns",
    "Labels",
    "columns_line",
    "identifiers",
    "is_named_identifier",
    "positions",
    "select",
]

Labels = bool | Literal["if_any"]
"""Choice of labels: True, False (their column is data), or only if there are any."""

_IDENTIFIER = re.compile(r"(.*[_ .-])?(id|uid|uuid|guid|idx|index|key|row|rownum)", re.IGNORECASE)
_CAMEL_IDENTIFIER = re.compile(r".*[a-z]I[Dd]")
_HEAD = 1000
_MOST_NAMES = 8


class Columns(NamedTuple):
    """Columns of a table.

    Attributes:
        data: names of the columns that are data.
        label: name of the column of labels; None if labels are not wanted or do not exist.
        left_out: reasons why other columns are left out, by name.
    """

    data: tuple[str, ...]
    label: str | None
    left_out: dict[str, str]


def select(path: Path, names: Sequence[str], labels: Labels, drop: Sequence[str]) -> Columns:
    """Divides the columns of a table.

    Args:
        path: path of the table, for messages.
        names: names of all columns.
        labels: whether a column with a label's name holds the labels.
        drop: names of columns to leave out.

    Raises:
        DataError: if a name in `drop` is unknown, or several columns are named like labels.
    """
    unknown = [name for name in drop if name not in names]
    if unknown:
        raise DataError(
            f"{path} has no column {listed(unknown)} to drop; it has {listed(names, 20)}."
        )
    left_out = dict.fromkeys(drop, "dropped")
    kept = [name for name in names if name not in left_out]
    label = only_label(path, kept) if labels else None
    if label is not None and (labels is True or len(kept) > 1):
        left_out[label] = "labels"
    else:
        label = None
    return Columns(tuple(name for name in kept if name != label), label, left_out)


def positions(found: Sequence[str], expected: Sequence[str], owner: str) -> list[int]:
    """Returns the positions of the expected columns among those found, in the expected order.

    Args:
        found: names of the columns of a table, in any order.
        expected: names of the columns that the model was trained on.
        owner: name of the table, for messages.

    Raises:
        DataError: if columns are missing, unknown or repeated.
    """
    repeated = [name for name in dict.fromkeys(found) if found.count(name) > 1]
    if repeated:
        raise DataError(f"{owner} holds several columns {listed(repeated)}. Rename all but one.")
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    if missing or extra:
        parts = []
        if missing:
            hinted = [f"{name}{meant(name, extra)}" for name in missing]
            parts.append(f"lacks {listed(hinted)}")
        if extra:
            parts.append(f"holds {listed(extra)}, which the model does not know")
        raise DataError(
            f"{owner} {' and '.join(parts)}; the model was trained on the columns "
            f"{listed(expected, 20)}. Give these, in any order."
        )
    place = {name: index for index, name in enumerate(found)}
    return [place[name] for name in expected]


def identifiers(x: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """Finds the columns that look like identifiers or row numbers.

    Such a column holds different integers, and has an identifier's name or counts up by one.

    Args:
        x: table [N, columns], which may be mapped.
        names: names of its columns.
    """
    if len(x) < 3:
        return ()
    suspects = [
        column
        for column, name in enumerate(names)
        if _identifies(np.asarray(x[:_HEAD, column]), name)
    ]
    if suspects and len(x) > _HEAD:
        parts = [part[:, suspects] for _, part in chunks(x)]
        whole = np.concatenate(parts)
        suspects = [c for i, c in enumerate(suspects) if _identifies(whole[:, i], names[c])]
    return tuple(names[column] for column in suspects)


def _identifies(values: np.ndarray, name: str) -> bool:
    if values.dtype.kind == "b" or not (values == np.round(values)).all():
        return False
    if (np.diff(values.astype(np.float64)) == 1.0).all():
        return True
    return is_named_identifier(name) and len(np.unique(values)) == len(values)


def is_named_identifier(name: str) -> bool:
    """Tells whether a column has a name of identifiers, such as user_id."""
    return bool(_IDENTIFIER.fullmatch(name) or _CAMEL_IDENTIFIER.fullmatch(name))


def columns_line(
    x: np.ndarray,
    names: Sequence[str] | None,
    left_out: Mapping[str, str],
    suspects: Sequence[str],
) -> str:
    """Describes in one line how the columns of a table, or other arrays, are used."""
    if x.ndim == 2:
        line = f"{x.shape[1]} feature{'s' if x.shape[1] > 1 else ''}"
        line += f": {listed(names, _MOST_NAMES)}" if names else ""
    elif x.ndim == 4:
        line = f"images of {x.shape[1]} x {x.shape[2]} pixels (height x width)"
        line += f", {x.shape[3]} channels" if x.shape[3] > 1 else ""
    elif x.ndim == 3:
        line = f"series of {counted(x.shape[1], 'step')} and {counted(x.shape[2], 'channel')}"
    else:
        line = f"arrays of shape {tuple(map(int, x.shape[1:]))}"
    if left_out:
        said = {"labels": "labels, which `train --condition labels` uses"}
        line += "; left out: "
        line += listed([f"{name} ({said.get(why, why)})" for name, why in left_out.items()], 20)
    if suspects:
        verb = "looks like an identifier" if len(suspects) == 1 else "look like identifiers"
        it = "it" if len(suspects) == 1 else "them"
        drop = shlex.quote(",".join(suspects))
        line += f"; {listed(suspects, 20)} {verb} (leave {it} out with --drop {drop})"
    return line
