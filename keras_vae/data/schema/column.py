"""Column of a table: what it holds, how it is modelled, and its numbers in file and model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from keras_vae.data.content import DataError
from keras_vae.data.preparation import Preparation
from keras_vae.data.schema import dtypes
from keras_vae.spelling import counted, meant, numbers_in

__all__ = ["FAMILIES", "KINDS", "LEFT_OUT", "Column", "Family", "Label"]

Label = str | int | float | bool
"""A category as it stands in the table."""

KINDS: Final = ("real", "positive", "proportion", "count", "binary", "categorical", "ordinal")
"""Kinds of columns that a model describes."""

LEFT_OUT: Final = "left_out"
"""Kind of a column that no model describes."""

_CODED: Final = ("binary", "categorical", "ordinal")
_NUMBERS: Final = ("real", "positive", "proportion", "count")


class Family(NamedTuple):
    """A likelihood as columns use it.

    Attributes:
        kinds: kinds of columns that it suits.
        form: model numbers that it takes: "standardised" ones, ones "scaled" by their mean, a
            "share" in [0, 1] or an "open_share" without its ends, "plain" numbers of the file or
            codes, or "one_hot" vectors.
        options: its arguments for one column.
    """

    kinds: tuple[str, ...]
    form: Literal["standardised", "scaled", "share", "open_share", "plain", "one_hot"]
    options: Mapping[str, Any] = MappingProxyType({})


FAMILIES: Final[Mapping[str, Family]] = {
    "log_normal": Family(("positive",), "scaled", {"scale": "learned"}),
    "gamma": Family(("positive",), "scaled", {"concentration": "learned"}),
    "beta": Family(("proportion",), "open_share", {"concentration": "learned"}),
    "negative_binomial": Family(("count",), "plain", {"dispersion": "learned"}),
    "zero_inflated_negative_binomial": Family(("count",), "plain", {"dispersion": "learned"}),
    "poisson": Family(("count",), "plain"),
    "zero_inflated_poisson": Family(("count",), "plain"),
    "normal": Family(_NUMBERS, "standardised", {"scale": "learned"}),
    "student_t": Family(_NUMBERS, "standardised", {"df": "learned", "scale": "learned"}),
    "laplace": Family(_NUMBERS, "standardised", {"scale": "learned"}),
    "continuous_bernoulli": Family(("proportion",), "share"),
    "bernoulli": Family(("binary",), "plain"),
    "ordinal": Family(("ordinal",), "plain"),
    "categorical": Family(("categorical", "ordinal", "binary"), "one_hot"),
}
"""Likelihoods that a column may name, by key; the first that suits a kind is its default."""


@dataclass(frozen=True)
class Column:
    """A column of a table: what it holds, and how a model describes it.

    Attributes:
        name: name of the column.
        kind: one of `KINDS`, or "left_out".
        likelihood: key of its likelihood; empty chooses that of the kind.
        options: arguments of the likelihood; those of `FAMILIES` if the likelihood is not given.
        missing: whether values may be absent.
        categories: labels in the order of their codes; the only label of a constant that is left
            out.
        missing_values: values that stand for a missing one, such as -999.
        dtype: dtype that `Schema.decode` gives back.
        whole: whether its numbers are whole.
        decimals: digits after the point that hold every number; None if more than float32 has.
        low, high: smallest and largest number.
        mean, deviation: mean and standard deviation.
        top: number that stands for 1 in a proportion, such as 100.
        absent: share of the values that were missing.
        reason: why the column is described in this way.
        note: what its values may mean that nobody has said, such as a number for missing values.

    Raises:
        DataError: if the entries do not go together.

    Example:
        >>> Column("city", "categorical", "str", categories=("Oslo", "Rome")).likelihood
        'categorical'
    """

    name: str
    kind: str
    dtype: str
    likelihood: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    missing: bool = False
    categories: tuple[Label, ...] = ()
    whole: bool = False
    decimals: int | None = None
    low: float | None = None
    high: float | None = None
    mean: float = 0.0
    deviation: float = 0.0
    top: float = 1.0
    absent: float = 0.0
    reason: str = ""
    missing_values: tuple[Label, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        """Fills in the likelihood of the kind, and refuses what cannot be modelled."""
        if self.kind not in (*KINDS, LEFT_OUT):
            raise DataError(
                f"Expected kind to be one of {', '.join((*KINDS, LEFT_OUT))}; got "
                f"{self.kind!r}{meant(str(self.kind), KINDS)}."
            )
        if self.kind == LEFT_OUT:
            return
        if not self.likelihood:
            if self.options:
                raise DataError("It has options and no likelihood: name the likelihood, too.")
            key = self._suitable()[0]
            object.__setattr__(self, "likelihood", key)
            object.__setattr__(self, "options", dict(FAMILIES[key].options))
        self._check_likelihood()
        self._check_missing_values()
        if self.kind in _CODED:
            self._check_categories()
        else:
            self._check_numbers()

    def _suitable(self) -> list[str]:
        """Returns the likelihoods that suit its kind, and its ends if it is a proportion."""
        keys = [key for key, family in FAMILIES.items() if self.kind in family.kinds]
        has_ends = self.low == 0.0 or self.high == self.top
        return [key for key in keys if not (has_ends and FAMILIES[key].form == "open_share")]

    def _check_likelihood(self) -> None:
        suitable = self._suitable()
        if self.likelihood not in suitable:
            raise DataError(
                f"Expected the likelihood of a {self.kind} column to be one of "
                f"{', '.join(suitable)}; got {self.likelihood!r}"
                f"{meant(self.likelihood, suitable)}."
            )
        known = FAMILIES[self.likelihood].options
        for name in self.options:
            if name not in known:
                takes = f"takes {', '.join(known)}" if known else "takes no options"
                raise DataError(
                    f"The likelihood {self.likelihood} {takes}; got {name}{meant(name, known)}."
                )

    def _check_missing_values(self) -> None:
        if self.missing_values and not self.missing:
            raise DataError("It has missing_values: write missing = true, too.")
        texts = {str(mark) for mark in self.missing_values}
        if both := [label for label in self.categories if str(label) in texts]:
            raise DataError(
                f"{both[0]!r} stands among its categories and among its missing_values. Leave it "
                "out of one."
            )
        ends = [mark for mark in self.missing_values if mark in (self.low, self.high)]
        if ends and not self.is_coded:
            raise DataError(
                f"{ends[0]!r} stands for a missing value, and was a number of this column when its "
                "range and mean were taken. Infer the schema again: keras-vae schema FILE "
                f"--missing-value {self.name}={ends[0]} --out schema.toml, in Python "
                f"Schema.of(..., missing_values={{{self.name!r}: [{ends[0]!r}]}})."
            )

    def _check_categories(self) -> None:
        count, least = len(self.categories), 2
        if len(set(self.categories)) != count:
            twice = next(each for each in self.categories if self.categories.count(each) > 1)
            raise DataError(f"The category {twice!r} stands twice in it. Leave one out.")
        if count < least or (self.kind == "binary" and count != least):
            wanted = "two categories" if self.kind == "binary" else "two categories or more"
            raise DataError(
                f"Expected a {self.kind} column to have {wanted}; got {count}. Write them as "
                "categories = [...]."
            )

    def _check_numbers(self) -> None:
        if self.low is None or self.high is None or not self.low <= self.high:
            raise DataError(
                f"A {self.kind} column needs the range of its numbers, and this one was read as "
                f"labels. Choose one of {', '.join(_CODED)} or left_out."
            )
        if self.form in ("standardised", "scaled") and not self.deviation > 0.0:
            raise DataError("It is constant, which needs no model. Choose kind = 'left_out'.")
        wrong = {
            "positive": self.low < 0.0 or (self.low == 0.0 and not self.whole),
            "count": self.low < 0.0 or not self.whole,
            "proportion": self.low < 0.0 or self.high > self.top,
        }
        if wrong.get(self.kind):
            raise DataError(
                f"It holds {'whole ' if self.whole else ''}numbers from {self.low:g} to "
                f"{self.high:g}, which {_DOMAINS[self.kind].format(top=self.top)} cannot hold. "
                "Choose kind = 'real'."
            )

    @property
    def is_modelled(self) -> bool:
        """Whether a model describes it."""
        return self.kind != LEFT_OUT

    @property
    def is_coded(self) -> bool:
        """Whether its values are labels, which stand for codes 0, 1, 2, ..."""
        return self.kind in _CODED

    @property
    def form(self) -> str:
        """Model numbers that its likelihood takes, as in `Family`."""
        return FAMILIES[self.likelihood].form

    @property
    def missing_numbers(self) -> list[float]:
        """Those of its `missing_values` that are numbers."""
        return numbers_in(self.missing_values)

    @property
    def digits(self) -> int | None:
        """Digits after the point to which draws of numbers are rounded; None leaves them."""
        return 0 if self.whole or self.kind == "count" else self.decimals

    @property
    def bounds(self) -> tuple[np.float32, np.float32]:
        """Smallest and largest number that a draw becomes; infinite where there is no bound."""
        low, high = -np.inf, np.inf
        if self.kind == "proportion":
            digits = self.digits if self.form == "open_share" else None
            end = 0.0 if digits is None else 10.0**-digits  # its ends are none of its numbers
            low, high = end, self.top - end
        elif self.kind in ("positive", "count"):
            low = 0.0 if self.whole or self.low is None else self.low
        return np.float32(low), np.float32(high)

    @property
    def size(self) -> int:
        """Number of model numbers per row: that of its categories for one-hot vectors, else 1."""
        return len(self.categories) if self.form == "one_hot" else 1

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of its likelihood: the options, and what its categories decide."""
        levels = {"levels": len(self.categories)} if self.likelihood == "ordinal" else {}
        return {**self.options, **levels}

    @property
    def typical(self) -> float:
        """Mean of its model numbers, if they are not one-hot vectors."""
        how = self.preparation
        return (self.mean - how.center[0]) / how.spread[0] if how.center else self.mean / how.divide

    @property
    def preparation(self) -> Preparation:
        """Map from numbers of the file (or codes) to model numbers, with its change of variables.

        Densities of whole numbers are those of x + u, with u uniform on [0, 1): a lower bound on
        their probability.
        """
        whole = (True,) if self.whole else ()
        if self.form == "standardised":
            center = np.float32(self.mean + 0.5 * self.whole)
            spread = np.float32(math.sqrt(self.deviation**2 + self.whole / 12.0))
            return Preparation(center=(float(center),), spread=(float(spread),), whole=whole)
        if self.form == "scaled":
            spread = np.float32(self.mean + 0.5 * self.whole)
            return Preparation(center=(0.0,), spread=(float(spread),), whole=whole)
        if self.form in ("share", "open_share"):
            return Preparation(divide=self.top)
        if self.form == "one_hot":
            return Preparation(categories=len(self.categories))
        return Preparation()

    def raw(self, values: Any) -> np.ndarray:
        """Returns the numbers of the file, or the codes of labels, as the model reads them.

        Args:
            values: pandas series.

        Returns:
            float32 [n, 1], or [n] of a column whose model numbers are one-hot; NaN where absent.

        Raises:
            DataError: naming the column and the first row, if a value is absent, of another type,
                or outside what the column may hold.
        """
        is_text = any(isinstance(label, str) for label in self.categories)
        values = dtypes.with_holes(values, self.missing_values, as_numbers=not is_text)
        present = values.notna().to_numpy()
        if not (self.missing or present.all()):
            raise DataError(
                f"Column {self.name!r} has no value in row {int(np.argmin(present))} "
                f"({counted(int((~present).sum()), 'such row')}), and the schema says that it "
                "always has one. Fill it in, or allow it, with Schema.of(..., missing=True) or "
                "missing = true in TOML, and train again."
            )
        numbers = np.full(len(values), np.nan)
        numbers[present] = self._codes(values, present) if self.is_coded else self._numbers(values)
        raw = numbers.astype(np.float32)
        return raw if self.form == "one_hot" else raw[:, np.newaxis]

    def _codes(self, values: Any, present: np.ndarray) -> np.ndarray:
        found = dtypes.codes(values, self.categories)[present]
        if (found < 0).any():
            row = int(np.flatnonzero(present)[np.argmax(found < 0)])
            label = dtypes.plain(values.iloc[row])
            near = meant(str(label), [c for c in self.categories if isinstance(c, str)])
            raise DataError(
                f"Column {self.name!r} holds the unknown category {label!r}{near} in row {row} "
                f"({counted(int((found < 0).sum()), 'such row')}); the schema has "
                f"{_labels(self.categories)}. "
                "Map it to one of these, or make it absent where the column may be."
            )
        return found

    def _numbers(self, values: Any) -> np.ndarray:
        rows = np.flatnonzero(values.notna().to_numpy())
        try:
            numbers = dtypes.numbers(values.iloc[rows])
        except dtypes.NotANumberError as error:
            raise DataError(
                f"Column {self.name!r} holds {error.what} in row {int(rows[error.place])}, and the "
                f"schema says numbers ({self.kind}). Convert the column with pandas.to_numeric, or "
                "make such values absent."
            ) from error
        with np.errstate(over="ignore"):
            finite = np.isfinite(numbers.astype(np.float32))
        self._refuse(~finite, numbers, rows, "a finite number")
        if self.kind == "count" or self.whole:
            what = "counts" if self.kind == "count" else "whole numbers"
            self._refuse(numbers != np.rint(numbers), numbers, rows, what)
        if self.kind == "count" or (self.kind == "positive" and self.whole):
            self._refuse(numbers < 0.0, numbers, rows, _DOMAINS["count"])
        elif self.kind == "positive":
            self._refuse(numbers <= 0.0, numbers, rows, _DOMAINS["positive"])
        elif self.kind == "proportion":
            outside = (numbers < 0.0) | (numbers > self.top)
            self._refuse(outside, numbers, rows, _DOMAINS["proportion"].format(top=self.top))
            if self.form == "open_share":
                ends = (numbers == 0.0) | (numbers == self.top)
                what = f"numbers between 0 and {self.top:g}, both of which beta leaves out"
                self._refuse(ends, numbers, rows, what)
        return numbers

    def _refuse(self, wrong: np.ndarray, numbers: np.ndarray, rows: np.ndarray, what: str) -> None:
        if wrong.any():
            first = int(np.argmax(wrong))
            raise DataError(
                f"Column {self.name!r} holds {numbers[first]:g} in row {int(rows[first])} "
                f"({counted(int(wrong.sum()), 'such row')}), and the schema says {what} "
                f"({self.kind}). "
                "Correct it, make it absent, or change the kind of the column and train again."
            )

    def encode(self, raw: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """Returns model numbers of what `raw` returned, float32 [n, size]; NaN where absent.

        Args:
            raw: numbers of the file, or codes.
            noise: uniform numbers [n, 1] that a density of whole numbers adds; None is 1/2.
        """
        how = self.preparation
        if how.categories:
            present = ~np.isnan(raw)
            one_hot = np.full((len(raw), how.categories), np.nan, np.float32)
            one_hot[present] = how.static(raw[present])
            return one_hot
        values = (how.static(raw) / np.float32(how.divide)).astype(np.float32)
        if not how.noise.size:
            return values
        middle = values + np.float32(0.5) * how.noise
        if noise is None:
            return middle
        noisy = values + np.asarray(noise, np.float32) * how.noise
        # Rounding may carry a number over the edge of its unit; it stays in the middle then.
        return np.where(self.to_raw(noisy) == raw, noisy, middle)

    def to_raw(self, values: np.ndarray) -> np.ndarray:
        """Returns numbers of the file, or codes, of model numbers; the inverse of `encode`.

        Whole numbers are rounded, one-hot vectors and probabilities give the code of the largest,
        and numbers outside of what the column may hold give the nearest that it may.

        Args:
            values: model numbers [n, size], NaN where absent.
        """
        how, values = self.preparation, np.asarray(values, np.float32)
        if how.categories:
            present = ~np.isnan(values).any(axis=-1)
            codes = np.where(present[:, np.newaxis], values, 0.0).argmax(axis=-1)
            return np.where(present, codes, np.nan).astype(np.float32)
        values = values.reshape(len(values), 1) * np.float32(how.divide)
        if how.center:
            values = values * np.float32(how.spread[0]) + np.float32(how.center[0])
        if how.noise.size:
            values = np.floor(values)
        return self._inside(values)

    def _inside(self, raw: np.ndarray) -> np.ndarray:
        if self.is_coded:
            codes = np.clip(np.floor(raw + np.float32(0.5)), 0.0, len(self.categories) - 1.0)
            return codes.astype(np.float32)
        raw = np.clip(raw, *self.bounds)
        if self.digits is None:
            return raw
        units = np.float32(10.0**self.digits)
        return np.rint(raw * units) / units

    def series(self, raw: np.ndarray) -> Any:
        """Returns numbers of the file, or codes, as a pandas series of the column's dtype.

        Args:
            raw: as `raw` returns them, NaN where absent.
        """
        flat = np.asarray(raw, np.float32).reshape(len(raw))
        if self.is_coded:
            return dtypes.series_of_codes(flat, self.categories, self.dtype)
        numbers = flat.astype(np.float64)
        if self.decimals is not None:
            numbers = np.round(numbers, self.decimals)
        return dtypes.series_of_numbers(numbers, self.dtype, self.whole)

    def constant(self, rows: int) -> Any:
        """Returns the only value of a constant column as a series of that many rows."""
        return dtypes.series_of_codes(np.zeros(rows), self.categories, self.dtype)


_DOMAINS: Final = {
    "positive": "numbers above 0",
    "count": "numbers from 0 on",
    "proportion": "numbers from 0 to {top:g}",
}


def _labels(categories: tuple[Label, ...], most: int = 8) -> str:
    more = f" and {len(categories) - most} more" if len(categories) > most else ""
    return ", ".join(map(repr, categories[:most])) + more
