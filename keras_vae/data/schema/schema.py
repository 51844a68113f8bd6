"""Schema: the description of a table as it is, from which a model of its columns is made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_vae.data.columns import positions
from keras_vae.data.content import DataError, listed, reason
from keras_vae.data.foreign import as_known
from keras_vae.data.schema import dtypes, shown, toml
from keras_vae.data.schema.column import LEFT_OUT, Column
from keras_vae.data.schema.inference import describe
from keras_vae.data.schema.seen import Seen
from keras_vae.data.tables import frame_chunks
from keras_vae.spelling import counted, meant

__all__ = ["Schema"]

_ROWS_AT_ONCE = 2**16


@dataclass(frozen=True, repr=False)
class Schema:
    """The columns of a table: what each holds, its likelihood, and its numbers in file and model.

    A schema is inferred from a data frame or a file, printed, edited as TOML, and turns frames into
    the arrays of a model and back:

        schema = Schema.of(frame)
        print(schema)
        x = schema.encode(frame)       # {"age": float32 [n, 1], "city": float32 [n, 5], ...}
        schema.decode(x)               # the frame again

    Absent values (NaN, None, pandas.NA, masked entries) are NaN in arrays. Numbers and categories
    come back exactly; fractions with more digits than float32 has come back rounded to these.

    Attributes:
        table: all columns in the order of the table, with those that are left out.
        rows: number of rows that it was inferred from.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [31, 45, None], "city": ["Oslo", "Rome", "Oslo"]})
        >>> schema = Schema.of(frame)
        >>> [(column.name, column.kind) for column in schema.columns.values()]
        [('age', 'count'), ('city', 'binary')]
        >>> schema.encode(frame)["city"].tolist()
        [[0.0], [1.0], [0.0]]
    """

    table: tuple[Column, ...]
    rows: int = 0

    @classmethod
    def of(
        cls,
        frame: Any,
        *,
        kinds: Mapping[str, str] | None = None,
        drop: Sequence[str] = (),
        missing: bool = False,
        missing_values: Mapping[str, Sequence[Any]] | None = None,
    ) -> Schema:
        """Infers the schema of a table.

        | what a column holds | kind |
        |---|---|
        | booleans, two labels, two numbers | binary |
        | text with few different strings, pandas categoricals | categorical; ordinal if ordered |
        | up to 20 whole numbers with frequencies that counts do not have | categorical, ordinal |
        | other whole numbers from 0 on, up to 1000 or some of them 0 | count |
        | fractions over nearly all of [0, 1]; up to 100 with percent in the name | proportion |
        | numbers above 0, wide for their mean | positive |
        | other numbers | real |
        | one value, none, or identifiers (all values differ) | left_out |

        Args:
            frame: data frame of pandas or Polars, an Arrow table, or a dict of columns (arrays,
                masked arrays, lists).
            kinds: kinds of some columns by name, where the inference decides otherwise;
                "left_out" leaves a column out.
            drop: names of columns to leave out.
            missing: whether columns without absent values here may have some in other tables.
            missing_values: values that stand for a missing one in some columns, by name, as in
                {"age": [-999], "city": ["unknown"]}.

        Raises:
            DataError: if a column holds text of too many kinds, dates, nested values, infinite
                numbers or mixed types; the message says what to do.
        """
        return cls._inferred([_framed(frame)], kinds, drop, missing, missing_values or {})

    @classmethod
    def of_file(
        cls,
        path: str | os.PathLike[str],
        *,
        kinds: Mapping[str, str] | None = None,
        drop: Sequence[str] = (),
        missing: bool = False,
        missing_values: Mapping[str, Sequence[Any]] | None = None,
    ) -> Schema:
        """Infers the schema of a CSV, Parquet or Feather file, as `load_frame` reads it.

        A Parquet file is read by groups of rows, in bounded memory.

        Args:
            path: path of the file.
            kinds, drop, missing, missing_values: as for `of`.

        Raises:
            DataError: as `of` and `load_frame`.
        """
        chunks = frame_chunks(Path(path))
        return cls._inferred(chunks, kinds, drop, missing, missing_values or {})

    @classmethod
    def _inferred(
        cls,
        chunks: Any,
        kinds: Mapping[str, str] | None,
        drop: Sequence[str],
        missing: bool,
        marks: Mapping[str, Sequence[Any]],
    ) -> Schema:
        seen: dict[str, Seen] = {}
        asked = {**(kinds or {}), **dict.fromkeys(drop, LEFT_OUT)}
        for chunk in chunks:
            if not seen:
                names = _names(chunk)
                _refuse_unknown({**asked, **marks}, names)
                seen = {name: Seen(name, chunk[name].dtype, marks.get(name, ())) for name in names}
            for name, column in seen.items():
                column.update(chunk[name])
        if not seen or not next(iter(seen.values())).rows:
            raise DataError(
                f"The table has {counted(len(seen), 'column')} and no rows. Give at least one of "
                "each."
            )
        found, refused = [], {}
        for name, column in seen.items():
            try:
                described = describe(column, asked.get(name))
                may_miss = described.missing or (missing and described.is_modelled)
                found.append(replace(described, missing=may_miss))
            except DataError as error:
                if name in asked:
                    raise
                refused[name] = str(error)
        if refused:
            more = f" ({len(refused) - 5} more such columns)" if len(refused) > 5 else ""
            raise DataError(
                f"{' '.join(list(refused.values())[:5])}{more} To drop "
                f"{'it' if len(refused) == 1 else 'them'}: drop={list(refused)}, in the shell "
                f"--drop {shlex.quote(','.join(refused))}."
            )
        schema = cls(tuple(found), next(iter(seen.values())).rows)
        if not schema.columns:
            raise DataError(
                f"No column is left to model: {listed(schema.notes, 20)}. Give a kind to at least "
                "one."
            )
        return schema

    @property
    def columns(self) -> dict[str, Column]:
        """Columns that a model describes, by name in the order of the table."""
        return {column.name: column for column in self.table if column.is_modelled}

    @property
    def left_out(self) -> dict[str, str]:
        """Reasons why other columns are left out, by name."""
        return {column.name: column.reason for column in self.table if not column.is_modelled}

    @property
    def notes(self) -> list[str]:
        """One sentence for each column that is left out, and what the values of others may mean."""
        left_out = [f"{name} is left out ({reason})" for name, reason in self.left_out.items()]
        return [*left_out, *(f"{column.name} {column.note}" for column in self if column.note)]

    @property
    def nats_offset(self) -> dict[str, float]:
        """Nats that turn log p of a column's model numbers into that of the file, by name.

        Densities change with their variable: if y = (x - a) / b, log p(x) = log p(y) - log b.
        """
        return {name: column.preparation.nats_offset for name, column in self.columns.items()}

    def row_nats(self, x: Mapping[str, Any]) -> np.ndarray:
        """Returns the sum of `nats_offset` over the columns that are present, for each row, [n].

        A bound on log p of model numbers becomes one of what the table holds when it is added.

        Args:
            x: model numbers by name, as `encode` returns them.
        """
        offsets = self.nats_offset
        values = {name: self._of(x, name) for name in offsets}
        found = np.zeros(len(next(iter(values.values()))))
        for start in range(0, len(found), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            for name, nats in offsets.items():
                is_absent = np.isnan(np.asarray(values[name][rows])).any(axis=-1)
                found[rows] += np.where(is_absent, 0.0, nats)
        return found

    def with_holes(self, frame: Any) -> Any:
        """Returns a data frame in which values that stand for a missing one are absent."""
        marks = {name: each.missing_values for name, each in self.columns.items()}
        found = {
            name: dtypes.with_holes(frame[name], of_column)
            for name, of_column in marks.items()
            if of_column and name in frame
        }
        return frame.assign(**found) if found else frame

    def raw(self, frame: Any) -> dict[str, np.ndarray]:
        """Returns a table as the signatures of an artifact take it: file numbers, and codes.

        Args:
            frame: as for `of`, with its columns in any order.

        Returns:
            By name, float32 [n, 1], or codes [n] of categories that are one-hot in the model; NaN
            where absent.

        Raises:
            DataError: if a column is missing, unknown or of another type, or a value is absent or
                unknown; the message names the column and the first row.
        """
        framed = _framed(frame)
        names = _names(framed)
        expected = [column.name for column in self.table]
        given = [name for name in names if name not in self.left_out]
        order = positions(given, list(self.columns), "The table") if given else []
        if not order:
            raise DataError(f"The table has no columns; the schema has {listed(expected, 20)}.")
        return {name: column.raw(framed[name]) for name, column in self.columns.items()}

    def encode(self, frame: Any, seed: int | None = None) -> dict[str, np.ndarray]:
        """Returns a table as the numbers that a model is trained on.

        Args:
            frame: as for `of`, with its columns in any order.
            seed: seed of the uniform noise that densities of whole numbers add; None adds 1/2.

        Returns:
            By name, float32 [n, 1], or one-hot vectors [n, K] of K categories; NaN where absent.

        Raises:
            DataError: as `raw`.
        """
        return self.encoder(seed)(frame)

    def encoder(self, seed: int | None = None, *, one_hot: bool = True) -> Callable[[Any], Any]:
        """Returns `encode` as a function of one chunk after the other, with the noise of the whole.

        Args:
            seed: as for `encode`.
            one_hot: whether categories become one-hot vectors; otherwise they stay codes [n].
        """
        columns = self.columns
        streams = {
            name: np.random.default_rng([seed, index])
            for index, (name, column) in enumerate(columns.items())
            if seed is not None and column.preparation.noise.size
        }

        def encode(frame: Any) -> dict[str, np.ndarray]:
            found = {}
            for name, raw in self.raw(frame).items():
                column = columns[name]
                noise = streams[name].random(raw.shape) if name in streams else None
                is_code = column.form == "one_hot" and not one_hot
                found[name] = raw if is_code else column.encode(raw, noise)
            return found

        return encode

    def decode(self, arrays: Mapping[str, Any]) -> Any:
        """Returns model numbers as a data frame with the columns, dtypes and labels of the table.

        Draws of whole numbers are whole, and one-hot vectors or probabilities become the label of
        the largest. Constant columns come back; identifiers and dropped columns do not.

        Args:
            arrays: model numbers [n, size] by name, NaN where absent.

        Raises:
            DataError: if a column is missing or has another shape.
        """
        raw = {}
        for name, column in self.columns.items():
            values = np.asarray(self._of(arrays, name), np.float32)
            if values.ndim == 1 and column.size == 1:
                values = values[:, np.newaxis]
            if values.ndim != 2 or values.shape[1] != column.size:
                raise DataError(
                    f"Expected {name} of shape [n, {column.size}]; got {list(values.shape)}."
                )
            raw[name] = column.to_raw(values)
        return self.frame(raw)

    def frame(self, raw: Mapping[str, Any]) -> Any:
        """Returns file numbers and codes, as `raw` has them, as a data frame; as `decode`."""
        import pandas as pd

        columns = {}
        found = {name: np.asarray(self._of(raw, name)) for name in self.columns}
        rows = len(next(iter(found.values())))
        for column in self.table:
            if column.is_modelled:
                columns[column.name] = column.series(found[column.name])
            elif len(column.categories) == 1:
                columns[column.name] = column.constant(rows)
        return pd.DataFrame(columns)

    def _of(self, arrays: Mapping[str, Any], name: str) -> Any:
        if name not in arrays:
            raise DataError(
                f"Expected arrays of {listed(list(self.columns), 20)}; got "
                f"{listed(list(arrays), 20) or 'none'}. Column {name!r} is missing."
            )
        return arrays[name]

    def to_toml(self) -> str:
        """Writes the schema as TOML, with comments that say what may be changed."""
        return toml.write(self.table, self.rows)

    @classmethod
    def from_toml(cls, text: str, source: str = "The schema") -> Schema:
        """Reads a schema from TOML.

        Args:
            text: what `to_toml` wrote, edited or not.
            source: name of the text in messages, such as the path of its file.

        Raises:
            DataError: if it is not TOML, or a key, kind, likelihood or category is wrong; the
                message names it.
        """
        return cls(*toml.read(text, source))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the schema into a TOML file."""
        Path(path).write_text(self.to_toml(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Schema:
        """Reads a schema from a TOML file.

        Raises:
            DataError: as `from_toml`, or if the file cannot be read.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read: {reason(error)}.") from error
        return cls.from_toml(text, str(path))

    def __repr__(self) -> str:
        return f"Schema({len(self)} of {len(self.table)} columns modelled, {self.rows} rows)"

    def __str__(self) -> str:
        return shown.as_text(self.table, self.rows)

    def explained(self) -> str:
        """Returns what `print` shows, with the reason for how each column is modelled."""
        return shown.as_text(self.table, self.rows, reasons=True)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns.values())

    def __len__(self) -> int:
        return len(self.columns)


def _framed(value: Any) -> Any:
    """Returns a pandas data frame of a frame, or of a dict of columns."""
    import pandas as pd

    value = as_known(value)
    if isinstance(value, pd.DataFrame):
        return value
    if isinstance(value, Mapping):
        columns = {}
        for name, column in value.items():
            if isinstance(column, np.ma.MaskedArray):
                column = pd.Series(column.data).mask(np.ma.getmaskarray(column))
            columns[name] = column
        return pd.DataFrame(columns)
    raise DataError(
        f"Expected a data frame or a dict of columns; got {type(value).__name__}. Name the "
        "columns: pandas.DataFrame(x, columns=[...])."
    )


def _names(frame: Any) -> list[str]:
    """Returns the names of the columns of a frame; refuses names that are no text or not unique."""
    names = list(frame.columns)
    odd = [name for name in names if not isinstance(name, str) or not name.strip()]
    if odd:
        raise DataError(
            f"Expected names of columns that are text; got {odd[0]!r}. Rename them, for example "
            "with frame.columns = [f'x{i}' for i in range(frame.shape[1])]."
        )
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise DataError(f"The table holds several columns {listed(repeated)}. Rename all but one.")
    return names


def _refuse_unknown(asked: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in asked:
        if name not in names:
            raise DataError(
                f"The table has no column {name!r}{meant(name, names)}; it has {listed(names, 20)}."
            )
