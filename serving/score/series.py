"""Time series that are scored: tables with one row a step, and arrays, as `train` reads them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from keras_vae.data.content import DataError
from keras_vae.data.long_series import Cuts, cut_to_the_end
from keras_vae.data.sequences import lengths, padded
from keras_vae.data.series_files import load_series
from keras_vae.spelling import counted
from serving.errors import ServingError

__all__ = ["PLACES", "SeriesReader", "about_windows"]

PLACES = ("series", "step", "steps")
"""Columns beside x: the series of a row, the number of its first step, from 0, and how many."""

_COUNTS = b"keras_vae.windows"
"""Key in the metadata of a table of examples: counts of windows and of what was left out."""


@dataclass(frozen=True)
class SeriesReader:
    """Reader of a model's time series.

    Attributes:
        steps, numbers: steps of an example, and numbers at each.
        entries: columns of a table that hold the numbers; empty for all beside the next two.
        id_column, time_column: columns of a table for the series of a row and its time, or "".
        is_long: whether files hold long series, from which windows are cut.
        missing: whether steps may be absent, so that the last window may be shorter.
    """

    steps: int
    numbers: int
    entries: tuple[str, ...]
    id_column: str
    time_column: str
    is_long: bool
    missing: bool = True

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> SeriesReader | None:
        """Returns the reader of an artifact's series; None if its data is something else."""
        parts = manifest.get("observations", {})
        about = parts.get("x", {}) if len(parts) == 1 else {}
        shape = about.get("shape", ())
        if len(shape) != 2 or about.get("one_hot"):
            return None
        config = (manifest.get("training") or {}).get("config") or {}
        steps, numbers = shape
        return cls(
            steps,
            numbers,
            tuple(config.get("entries", ())),
            config.get("id_column", ""),
            config.get("time_column", ""),
            bool(config.get("window")),
            about.get("missing", True),
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns of a table that hold no numbers."""
        return tuple(name for name in (self.id_column, self.time_column) if name)

    def columns(self, names: Sequence[str]) -> tuple[str, ...]:
        """Returns the columns of a table with one row a step; none if it is another table."""
        keys = self.keys
        found = self.entries or tuple(name for name in names if name not in keys)
        fits = len(found) == self.numbers and {*found, *keys} <= set(names)
        return found if fits and self.steps > 1 else ()

    def check(self, path: Path, schema: pa.Schema, others: Collection[str]) -> None:
        """Refuses a file whose columns hold neither steps nor whole examples.

        Args:
            path, schema: the file and its columns, or those of its examples.
            others: columns that hold something else than x.
        """
        size = self.steps * self.numbers
        left = [field for field in schema if field.name not in others]
        if len(left) == size or any(pa.types.is_nested(field.type) for field in left):
            return
        columns = ", ".join(self.entries) or f"{counted(self.numbers, 'column')} of numbers"
        beside = f" beside {', '.join(self.keys)}" if self.keys else ""
        raise ServingError(
            f"Expected {path} to have one row a step with {columns}{beside}, or one row an example "
            f"with a column of lists of {counted(size, 'number')}; it has "
            f"{', '.join(schema.names[:8])}. Series are also read from .npy, "
            f"[N, {self.steps}, {self.numbers}]."
        )

    def read(self, path: Path, names: Sequence[str] = ()) -> pa.Table:
        """Reads a file as a table of examples: series, step, steps, and lists x.

        Windows of long series are disjoint. The last of a series is shorter if steps are left, so
        each step is in one row.

        Args:
            path: a .npy file, or a table.
            names: columns of the table.

        Raises:
            ServingError: if it cannot be read, or a series is longer than the model's.
        """
        entries = self.columns(names)
        is_long = self.is_long or (bool(names) and not self.id_column)
        try:
            x, found, ids, _ = load_series(
                path,
                id_column=self.id_column if names else "",
                time_column=self.time_column if names else "",
                drop=tuple(name for name in names if name not in (*entries, *self.keys)),
                long=is_long,
            )
            if found:
                x = x[..., [found.index(name) for name in entries]]
            if x.shape[2] != self.numbers:
                raise ServingError(
                    f"Expected {path} to hold {counted(self.numbers, 'number')} at each step; "
                    f"got an array of shape {x.shape}."
                )
            about: dict[str, int] = {}
            if is_long:
                cuts = cut_to_the_end(x, self.steps)
                about["unobserved"] = cuts.left_out
                if not self.missing:
                    cuts, about["steps"] = self._whole(cuts)
                about["windows"] = len(cuts.windows)
                about["shorter"] = int((cuts.lengths < self.steps).sum())
                rows, starts, counts, x = cuts.series, cuts.steps, cuts.lengths, cuts.windows
            else:
                if x.shape[1] > self.steps:
                    raise ServingError(
                        f"Expected series of at most {counted(self.steps, 'step')} in {path}; got "
                        f"one of {x.shape[1]}. Cut it into several."
                    )
                rows, starts, counts, x = (
                    np.arange(len(x)),
                    np.zeros(len(x), int),
                    lengths(x),
                    padded(list(x), self.steps),
                )
        except DataError as error:
            raise ServingError(str(error)) from error
        values = pa.array(x.astype(np.float64).ravel())
        lists = pa.FixedSizeListArray.from_arrays(values, self.steps * self.numbers)
        owners = pa.array([ids[row] for row in rows] if ids else rows)
        places = (pa.array(each, pa.int64()) for each in (starts, counts))
        table = pa.Table.from_arrays([owners, *places, lists], names=[*PLACES, "x"])
        return table.replace_schema_metadata({_COUNTS: json.dumps(about).encode()})

    def _whole(self, cuts: Cuts) -> tuple[Cuts, int]:
        """Leaves out windows that are shorter; returns the others and the steps left out.

        Raises:
            DataError: if no window is left.
        """
        whole = cuts.lengths == self.steps
        if not whole.any():
            raise DataError(
                f"Expected series of {counted(self.steps, 'step')} or more, the length of a "
                f"window; got at most {int(cuts.lengths.max())}. Give a longer one."
            )
        kept = Cuts(
            cuts.windows[whole],
            cuts.series[whole],
            cuts.steps[whole],
            cuts.lengths[whole],
            cuts.left_out,
        )
        return kept, int(cuts.lengths[~whole].sum())


def about_windows(schemas: Sequence[pa.Schema], steps: int) -> str:
    """Describes how long series were cut, in one sentence; "" if none were.

    Args:
        schemas: schemas of tables of examples.
        steps: steps of a window.
    """
    stated = [(schema.metadata or {}).get(_COUNTS) for schema in schemas]
    counts: Counter[str] = Counter()
    for each in filter(None, stated):
        counts.update(json.loads(each))
    if not counts:
        return ""
    found = f"{counted(counts['windows'], 'window')} of {counted(steps, 'step')}"
    if counts["shorter"]:
        where = (
            "at the end of a series, has"
            if counts["shorter"] == 1
            else "at the ends of series, have"
        )
        found += f"; {counts['shorter']} of them, {where} fewer"
    without = [("unobserved", "window with nothing observed", "windows with nothing observed")]
    without += [("steps", "step at the end of a series", "steps at the ends of series")]
    left = [counted(counts[key], one, plural=many) for key, one, many in without if counts[key]]
    return found + (f". Left out: {', '.join(left)}" if left else "")
