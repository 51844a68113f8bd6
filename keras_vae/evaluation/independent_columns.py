"""Columns of a table that know nothing of one another, each with its own distribution."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

from keras_vae.data import Schema
from keras_vae.data.content import DataError

__all__ = ["IndependentColumns", "kinds_of"]

_FEW_LEVELS = 20


class IndependentColumns:
    """Independent columns, each with the maximum likelihood distribution of its kind.

    | kind | distribution | in place of an absent entry |
    |---|---|---|
    | `real` | normal | mean |
    | `positive` | log-normal | mean |
    | `proportion` | beta, of 0 to 1 or of 0 to 100; normal if it reaches an end | mean |
    | `count` | negative binomial, or Poisson if the variance is not above the mean | mean |
    | `categorical`, `binary` | frequencies | most frequent value |
    | `ordinal` | frequencies | median level |

    It is the baseline that a model of a table has to beat: what remains above it was learned from
    how columns depend on one another. Frequencies have one pseudo-observation, spread evenly over
    the values seen and one for all others, so a value that was never seen has a probability.
    Ordered levels have the order of the schema or of the pandas categorical, else that of their
    values.

    Args:
        columns: fitted columns by name; see `fit`.

    Example:
        >>> frame = pd.DataFrame({"age": [20.0, 40.0, None], "sex": ["f", "f", None]})
        >>> columns = IndependentColumns.fit(frame)
        >>> columns.impute(frame)
            age sex
        0  20.0   f
        1  40.0   f
        2  30.0   f
        >>> columns.log_prob(frame).round(3)
        array([-3.904, -3.904,  0.   ])
    """

    def __init__(self, columns: Mapping[Any, "_Column"]) -> None:
        self.columns = dict(columns)

    @classmethod
    def fit(cls, x: Any, kinds: Mapping[Any, str] | Schema | None = None) -> "IndependentColumns":
        """Fits each column to its observed entries.

        Args:
            x: data frame, dict of arrays [N], or array [N, D], whose columns are called 0 to D - 1;
                absent entries are NaN, None or missing.
            kinds: a schema, whose modelled columns are fitted, or kinds by the name of the column.
                Other columns are `real` if they hold floats, `count` if they hold more than 20
                different integers of at least 0, `real` if they hold as many and some are negative,
                and `categorical` otherwise.

        Raises:
            DataError: if a column has no observed entry, or values that its kind does not allow.
            ValueError: if a kind or a name is unknown.
        """
        frame = pd.DataFrame(x)
        if isinstance(kinds, Schema):
            frame = kinds.with_holes(frame[list(kinds.columns)])
        found = kinds_of(frame, kinds)
        columns = {name: _KINDS[kind](frame[name].dropna(), name) for name, kind in found.items()}
        if isinstance(kinds, Schema):
            for name, column in columns.items():
                if isinstance(column, _Levels):
                    column.set_order(kinds.columns[name].categories)
        return cls(columns)

    def log_probs(self, x: Any) -> dict[Any, np.ndarray]:
        """Computes log p of each entry in nats, [N] by column; 0 where it is absent."""
        frame, found = pd.DataFrame(x), {}
        for name, column in self.columns.items():
            present = frame[name].notna().to_numpy()
            found[name] = np.zeros(len(frame))
            found[name][present] = column.log_prob(frame[name][present])
        return found

    def log_prob(self, x: Any) -> np.ndarray:
        """Computes log p(x_O) of the observed entries of each row in nats, [N]."""
        return np.sum(list(self.log_probs(x).values()), axis=0)

    def impute(self, x: Any) -> Any:
        """Returns x, of the type that was given, with absent entries filled as the table says."""
        filled = pd.DataFrame(x).copy()
        for name, column in self.columns.items():
            absent = filled[name].isna()
            if absent.any():
                whole = pd.api.types.is_integer_dtype(filled[name].dtype)
                middle = round(column.middle) if whole else column.middle
                filled[name] = filled[name].where(~absent, middle)
        if isinstance(x, np.ndarray):
            return filled.to_numpy(x.dtype)
        return filled if hasattr(x, "columns") else {name: filled[name].to_numpy() for name in x}


class _Column(Protocol):
    """Distribution of a column.

    Attributes:
        middle: value in place of an absent entry.
    """

    middle: Any

    def log_prob(self, values: pd.Series) -> np.ndarray:
        """Computes log p of values that are not absent."""


class _Real:
    def __init__(self, seen: pd.Series, name: Any) -> None:
        values = _numbers(seen, name)
        self.middle, self.scale = float(values.mean()), float(values.std())
        if not self.scale > 0.0:
            raise DataError(
                f"Expected several values in column {name!r}; all are {self.middle:g}, of which no "
                "density exists. Leave it out, or call it categorical."
            )

    def log_prob(self, values: pd.Series) -> np.ndarray:
        standard = (values.to_numpy(np.float64) - self.middle) / self.scale
        return -0.5 * (standard**2 + math.log(2.0 * math.pi)) - math.log(self.scale)


class _Positive:
    def __init__(self, seen: pd.Series, name: Any) -> None:
        values = _numbers(seen, name, least=0.0)
        if not (values > 0.0).all():
            raise DataError(f"Expected positive numbers in column {name!r}; the least is 0.")
        self.log = _Real(np.log(seen.astype(np.float64)), name)
        self.middle = math.exp(self.log.middle + 0.5 * self.log.scale**2)

    def log_prob(self, values: pd.Series) -> np.ndarray:
        logs = np.log(values.astype(np.float64))
        return self.log.log_prob(logs) - logs.to_numpy()


class _Proportion:
    def __init__(self, seen: pd.Series, name: Any) -> None:
        values = _numbers(seen, name, least=0.0)
        self.top = 1.0 if values.max() <= 1.0 else 100.0
        if values.max() > self.top:
            raise DataError(
                f"Expected proportions of 1 or of 100 in column {name!r}; the largest is "
                f"{values.max():g}."
            )
        self.normal = _Real(seen, name)
        self.middle = self.normal.middle
        self.shape: tuple[float, float] | None = None
        if values.min() > 0.0 and values.max() < self.top:
            self.shape = stats.beta.fit(values / self.top, floc=0.0, fscale=1.0)[:2]

    def log_prob(self, values: pd.Series) -> np.ndarray:
        if self.shape is None:
            return self.normal.log_prob(values)
        shares = values.to_numpy(np.float64) / self.top
        return stats.beta(*self.shape).logpdf(shares) - math.log(self.top)


class _Count:
    """Negative binomial of mean m and dispersion t: variance m + m^2 / t."""

    def __init__(self, seen: pd.Series, name: Any) -> None:
        values = _numbers(seen, name, least=0.0)
        if (values != np.round(values)).any():
            raise DataError(f"Expected whole numbers in column {name!r}; some are fractions.")
        self.middle = float(values.mean())
        self.log_dispersion = math.inf
        if values.var() > self.middle > 0.0:
            counts, times = np.unique(values, return_counts=True)

            def loss(log_dispersion: float) -> float:
                return -float(times @ self._log_prob(counts, log_dispersion))

            found = optimize.minimize_scalar(loss, bounds=(-12.0, 18.0), method="bounded")
            self.log_dispersion = float(found.x)

    def log_prob(self, values: pd.Series) -> np.ndarray:
        return self._log_prob(values.to_numpy(np.float64), self.log_dispersion)

    def _log_prob(self, x: np.ndarray, log_dispersion: float) -> np.ndarray:
        if math.isinf(log_dispersion):
            return special.xlogy(x, self.middle) - self.middle - special.gammaln(x + 1.0)
        t, total = math.exp(log_dispersion), self.middle + math.exp(log_dispersion)
        coefficient = special.gammaln(x + t) - special.gammaln(t) - special.gammaln(x + 1.0)
        return coefficient + t * math.log(t / total) + x * math.log(self.middle / total)


class _Frequencies:
    def __init__(self, seen: pd.Series, name: Any) -> None:
        counts = seen.value_counts(sort=True)
        counts = counts[counts > 0]
        share = 1.0 / (len(counts) + 1)
        total = math.log(len(seen) + 1.0)
        self.counts = dict(counts.items())
        self.middle = min(counts.index[counts == counts.max()])
        self.levels = {level: math.log(count + share) - total for level, count in counts.items()}
        self.other = math.log(share) - total

    def log_prob(self, values: pd.Series) -> np.ndarray:
        return np.array([self.levels.get(value, self.other) for value in values])


class _Levels(_Frequencies):
    """Ordered levels, whose middle is the least one that half of the values do not exceed."""

    def __init__(self, seen: pd.Series, name: Any) -> None:
        super().__init__(seen, name)
        is_ordered = isinstance(seen.dtype, pd.CategoricalDtype) and seen.dtype.ordered
        self.set_order(seen.dtype.categories if is_ordered else sorted(self.counts))

    def set_order(self, levels: Iterable[Any]) -> None:
        """Takes the middle in this order of the levels."""
        levels = [level for level in levels if level in self.counts]
        total = np.cumsum([self.counts[level] for level in levels])
        self.middle = levels[int(np.searchsorted(total, 0.5 * total[-1]))]


_KINDS: dict[str, Any] = {
    "real": _Real,
    "positive": _Positive,
    "proportion": _Proportion,
    "count": _Count,
    "categorical": _Frequencies,
    "binary": _Frequencies,
    "ordinal": _Levels,
}


def kinds_of(frame: pd.DataFrame, given: Mapping[Any, str] | Schema | None) -> dict[Any, str]:
    """Returns the kind of each column, given or by its observed values.

    Raises:
        DataError: if a column has no observed entry.
        ValueError: if a given kind or the name of its column is unknown.
    """
    if isinstance(given, Schema):
        given = {name: column.kind for name, column in given.columns.items()}
    given = given or {}
    if unknown := set(given) - set(frame.columns):
        raise ValueError(
            f"Expected kinds of the columns {list(frame.columns)}; got {sorted(unknown)}."
        )
    if wrong := [kind for kind in given.values() if kind not in _KINDS]:
        raise ValueError(f"Expected a kind among {', '.join(_KINDS)}; got {wrong[0]!r}.")
    kinds = {}
    for name in frame.columns:
        seen = frame[name].dropna()
        if not len(seen):
            raise DataError(
                f"Expected an observed entry in column {name!r}; it has none. Leave it out."
            )
        kinds[name] = given.get(name) or _kind_of(seen)
    return kinds


def _kind_of(seen: pd.Series) -> str:
    if pd.api.types.is_float_dtype(seen.dtype):
        return "real"
    if not pd.api.types.is_integer_dtype(seen.dtype) or seen.nunique() <= _FEW_LEVELS:
        return "categorical"
    return "count" if seen.min() >= 0 else "real"


def _numbers(seen: pd.Series, name: Any, least: float = -math.inf) -> np.ndarray:
    try:
        values = seen.to_numpy(np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"Expected numbers in column {name!r}; got {seen.iloc[0]!r}. Call it categorical."
        ) from None
    if not np.isfinite(values).all() or values.min() < least:
        raise DataError(
            f"Expected finite numbers{f' of at least {least:g}' if least == 0.0 else ''} in column "
            f"{name!r}; they lie between {values.min():g} and {values.max():g}."
        )
    return values
