"""Summary of the values of a column, collected from a table at once or chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_vae.data.schema import dtypes

__all__ = ["Seen"]

_MOST_DECIMALS = 8
_MOST_LABELS = 5000
_MOST_LEVELS = 64
_HEAD = 4096
_MOST_EXAMPLES = 100
_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")
_DATES = ("datetime", "datetime64", "date", "time", "timedelta", "timedelta64", "period")


class End(NamedTuple):
    """The smallest or the largest number of a column: how often it occurs, and the one beside it.

    Attributes:
        rows: number of rows that hold it.
        next: the number beside it; infinite if there is no other.
    """

    rows: int
    next: float

    def joined(self, end: float, numbers: np.ndarray, sign: float) -> End:
        """Returns the end of a column after more numbers.

        Args:
            end: the end so far.
            numbers: more numbers.
            sign: 1 for the largest, -1 for the smallest.
        """
        values, before = sign * numbers, sign * end
        top = max(before, float(values.max()))
        inner = values[values < top]
        beside = [sign * self.next, *([before] if before < top else [])]
        beside += [float(inner.max())] if inner.size else []
        rows = int((values == top).sum()) + (self.rows if before == top else 0)
        return End(rows, sign * max(beside))


class Seen:
    """Values of a column, as far as its description depends on them.

    Attributes:
        name: name of the column.
        dtype: name of its dtype.
        rows, absent: number of rows, and of those without a value.
        form: "numbers", "labels", or "" as long as no value has come.
        trouble: what no model can describe in it, such as dates, for messages; "" for nothing.
        categories: declared labels of a pandas categorical, or None.
        ordered: whether they are ordered.
        counts: number of rows by label or whole number; None if there are too many.
        examples: the first different texts.
        missing_values: values that stand for a missing one.
        low, high: smallest and largest number.
        lowest, highest: how many rows hold the smallest and the largest number, and which is next.
        mean: mean of the numbers.
        whole: whether all numbers are whole.
        decimals: digits after the point that hold every number, or None.
        zeros: number of zeros.
        counts_up: whether each number is 1 more than the one before.
    """

    def __init__(self, name: str, dtype: Any, missing_values: Sequence[Any] = ()) -> None:
        self.name = name
        self.dtype = dtypes.dtype_name(dtype)
        self.rows = self.absent = 0
        self.form = self.trouble = ""
        self.categories: list[Any] | None = None
        self.ordered = dtypes.is_category(dtype) and bool(dtype.ordered)
        self.counts: dict[Any, int] | None = {}
        self.examples: dict[str, None] = {}
        self.missing_values = tuple(missing_values)
        self.low, self.high = math.inf, -math.inf
        self.lowest, self.highest = End(0, math.inf), End(0, -math.inf)
        self.mean = self._squares = 0.0
        self.zeros = 0
        self.whole = True
        self.decimals: int | None = 0
        self.counts_up = True
        self._last: Any = None
        self._hashes: list[np.ndarray] | None = []

    @property
    def present(self) -> int:
        """Number of rows with a value."""
        return self.rows - self.absent

    @property
    def labels(self) -> list[Any]:
        """Different labels: all of them, or the first texts of too many."""
        return list(self.examples if self.counts is None else self.counts)

    @property
    def deviation(self) -> float:
        """Standard deviation of the numbers."""
        return math.sqrt(self._squares / max(self.present, 1))

    @property
    def all_differ(self) -> bool:
        """Whether no value occurs twice."""
        if self._hashes is None:
            return False
        hashes = np.concatenate([np.zeros(0, np.uint64), *self._hashes])
        return len(np.unique(hashes)) == len(hashes)

    def update(self, values: Any) -> None:
        """Takes in the next rows, a pandas series."""
        import pandas as pd

        if isinstance(values.dtype, pd.SparseDtype):
            values = values.sparse.to_dense()
        given, start = values.dtype, self.rows
        values = dtypes.with_holes(values, self.missing_values)
        if values.dtype != given and not dtypes.is_category(given):
            self.dtype = dtypes.dtype_name(values.dtype)
        self.rows += len(values)
        missing = values.isna().to_numpy()
        self.absent += int(missing.sum())
        form, trouble = _form_of(values)
        if dtypes.is_category(values.dtype):
            self._declare(values.dtype)
        if form and self.form and form != self.form and not trouble:
            trouble = "numbers and text"
        self.trouble = self.trouble or (_located(trouble, values, start) if trouble else "")
        self.form = self.form or form
        if self.trouble or not form or missing.all():
            return
        found = values[~missing]
        if form == "labels":
            self._count(found.astype(object).value_counts(sort=False))
            if len(self.examples) < _MOST_EXAMPLES:
                texts = [each for each in found.iloc[:_MOST_EXAMPLES] if isinstance(each, str)]
                self.examples |= dict.fromkeys(texts)
        else:
            self._note_numbers(found)
        self._note_differences(found)

    def _declare(self, dtype: Any) -> None:
        if len(dtype.categories):  # the dtype of none is that of no labels
            self.dtype = dtypes.dtype_name(dtype)
        known = self.categories or []
        new = [label for label in map(dtypes.plain, dtype.categories) if label not in set(known)]
        self.categories = [*known, *new]

    def _note_differences(self, found: Any) -> None:
        """Keeps hashes of labels and whole numbers as long as all of them differ."""
        is_fraction = self.form == "numbers" and not self.whole
        if self._hashes is None or is_fraction or found.iloc[:_HEAD].duplicated().any():
            self._hashes = None
            return
        import pandas as pd

        if self.form == "labels":
            plain = found.astype(object).map(str).to_numpy(dtype=object)
        else:
            plain = found.to_numpy() if found.dtype.kind in "iu" else dtypes.numbers(found)
        hashes = pd.util.hash_array(np.asarray(plain), categorize=False)
        self._hashes = None if len(np.unique(hashes)) < len(hashes) else [*self._hashes, hashes]

    def _note_numbers(self, found: Any) -> None:
        numbers = dtypes.numbers(found)
        if not np.isfinite(numbers).all():
            self.trouble = "infinite numbers"
            return
        if np.abs(numbers).max() > np.finfo(np.float32).max:
            self.trouble = "numbers too large for float32"
            return
        self._note_moments(numbers)
        self.zeros += int((numbers == 0.0).sum())
        self.whole = self.whole and bool((numbers == np.rint(numbers)).all())
        if self.counts_up:
            steps = np.diff(numbers, prepend=[] if self._last is None else [self._last])
            self.counts_up = bool((steps == 1.0).all())
            self._last = numbers[-1]
        self._note_decimals(numbers)
        if self.counts is not None:
            import pandas as pd

            self._count(pd.Series(numbers).value_counts(sort=False), _MOST_LEVELS)

    def _note_moments(self, numbers: np.ndarray) -> None:
        before, count = self.present - len(numbers), len(numbers)
        low, high = float(numbers.min()), float(numbers.max())
        self.lowest = self.lowest.joined(self.low, numbers, -1.0)
        self.highest = self.highest.joined(self.high, numbers, 1.0)
        self.low, self.high = min(self.low, low), max(self.high, high)
        mean = low + float((numbers - low).mean())
        step = mean - self.mean
        self._squares += float(((numbers - mean) ** 2).sum()) + step**2 * before * count / (
            before + count
        )
        self.mean += step * count / (before + count)

    def _note_decimals(self, numbers: np.ndarray) -> None:
        while self.decimals is not None and (numbers != np.round(numbers, self.decimals)).any():
            self.decimals = self.decimals + 1 if self.decimals < _MOST_DECIMALS else None

    def _count(self, found: Any, most: int = _MOST_LABELS) -> None:
        if self.counts is None or len(found) > most:
            self.counts = None
            return
        for label, count in zip(found.index, found.to_numpy(), strict=True):
            if count:
                label = dtypes.plain(label)
                self.counts[label] = self.counts.get(label, 0) + int(count)
        if len(self.counts) > most:
            self.counts = None


def _form_of(values: Any) -> tuple[str, str]:
    """Returns whether a series holds numbers or labels, and what no model can describe in it."""
    import pandas as pd
    from pandas.api import types

    dtype = values.dtype
    if dtypes.is_category(dtype):
        odd = [label for label in dtype.categories if not _is_label(label)]
        return "labels", f"categories that are {_words(odd[0])}" if odd else ""
    if types.is_bool_dtype(dtype):
        return "labels", ""
    if types.is_complex_dtype(dtype):
        return "numbers", "complex numbers"
    if types.is_numeric_dtype(dtype):
        return "numbers", ""
    if types.is_timedelta64_dtype(dtype):
        return "labels", "durations"
    if types.is_datetime64_any_dtype(dtype):
        return "labels", "dates"
    if isinstance(dtype, (pd.PeriodDtype, pd.IntervalDtype)):
        return "labels", "dates" if isinstance(dtype, pd.PeriodDtype) else "intervals"
    kind = types.infer_dtype(values, skipna=True)
    if kind == "empty":
        return "", ""
    if kind in ("string", "boolean"):
        return "labels", ""
    if kind in _NUMBERS:
        return "numbers", ""
    if kind in _DATES:
        return "labels", "dates"
    odd = [value for value in values[values.notna()] if not _is_label(value)]
    return "labels", _words(odd[0]) if odd else "numbers and text"


def _is_label(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float, np.bool_, np.integer, np.floating))


def _words(value: Any) -> str:
    import pandas as pd

    if isinstance(value, pd.Interval):
        return "intervals"
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, (list, tuple, dict, set, frozenset, np.ndarray)):
        return f"nested values ({type(value).__name__})"
    return "dates" if hasattr(value, "year") else f"objects ({type(value).__name__})"


def _located(trouble: str, values: Any, start: int) -> str:
    """Returns the trouble with the first text among the numbers of a series."""
    if trouble != "numbers and text":
        return trouble
    for place, value in enumerate(values):
        if isinstance(value, str):
            return f"numbers and text, first {value[:40]!r} in row {start + place}"
    return trouble
