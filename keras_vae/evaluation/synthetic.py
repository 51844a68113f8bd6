"""Report on a synthetic table: how like the real one it is, how useful, and whether it copies."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from sklearn.model_selection import cross_val_predict

from keras_vae import random
from keras_vae.data import Schema
from keras_vae.data.content import DataError
from keras_vae.evaluation.independent_columns import kinds_of

__all__ = ["SyntheticReport", "synthetic_report"]

_MOST_LEVELS = 100  # levels of a category that models and distances know; others are one level
_FEWEST_ROWS = 20
_AT_ONCE = 500
_TREES = {"n_estimators": 50, "min_samples_leaf": 3}
_COLUMNS = ("synthetic", "real", "independent")
_CATEGORIES = ("categorical", "binary", "ordinal")


@dataclass(frozen=True)
class SyntheticReport:
    """Measures of a synthetic table, beside those of a real one and of independent columns.

    Attributes:
        table: one row per measure, with three columns: `synthetic`; `real`, the same measure of
            rows of the holdout, the best that can be expected; and `independent`, of training
            columns that were shuffled one by one, which are right alone and wrong together.
        columns: distance of each column from the training data, in [0, 1]: of numbers the largest
            difference of the distribution functions (Kolmogorov-Smirnov), of categories half the
            sum of the differences of their shares (total variation).
        pairs: association of each pair of columns in the training data and in the synthetic table:
            rank correlation of numbers, bias-corrected Cramer's V of categories (Bergsma 2013),
            correlation ratio of ranks for a number and a category.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> first, second, third = (pd.DataFrame({"a": rng.normal(size=60)}) for _ in range(3))
        >>> list(synthetic_report(first, second, third).table.columns)
        ['synthetic', 'real', 'independent']
    """

    table: pd.DataFrame
    columns: pd.DataFrame
    pairs: pd.DataFrame

    def __str__(self) -> str:
        return self.table.to_string(float_format=lambda value: f"{value:.3f}")


def synthetic_report(
    train: Any,
    synthetic: Any,
    holdout: Any,
    *,
    targets: Sequence[Any] = (),
    kinds: Mapping[Any, str] | Schema | None = None,
    most: int = 2000,
    seed: int = 0,
) -> SyntheticReport:
    """Compares a synthetic table with the real one that its generator was trained on.

    - column distance, pair difference: see `SyntheticReport`; 0 if equal.
    - told apart: AUROC of a random forest that tells the table from training rows, cross-validated;
      0.5 if it cannot.
    - TARGET, MODEL: a model of the target trained on the table and tested on the holdout: AUROC for
      two classes, accuracy for more, R^2 for a number. The model of the column `real` is trained on
      the training data.
    - nearest training row: median distance to it, from 0 to 1: the mean over columns of differences
      in rank, and of 1 for another category.
    - closer to training: share of rows that are closer to a training row than to any of as many
      holdout rows; 0.5 if nothing was copied.
    - copies: share of rows that equal a training row in every column.

    The three tables are cut to the same number of rows, half of the holdout at most, so finite
    samples blur them alike.

    Args:
        train: data frame [N, D] that the generator was trained on.
        synthetic: generated data frame with the same columns.
        holdout: data frame of real rows that the generator did not see.
        targets: columns to predict from all others.
        kinds: a schema, whose modelled columns are compared, or kinds by the name of the column:
            `categorical`, `binary` and `ordinal` columns are compared as categories, those of all
            other kinds as numbers. Columns without a kind are numbers if they hold floats, more
            than 20 different integers, dates or durations, and categories otherwise.
        most: largest number of rows for nearest rows and for models.
        seed: integer, for the choice of rows, for shuffles and models.

    Raises:
        DataError: if a table lacks a column or has fewer than 20 rows, or a column of the training
            data is empty.
        ValueError: if a target is no column, or a kind or the name of its column is unknown.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> def draw(n):
        ...     a = rng.normal(size=n)
        ...     return pd.DataFrame({"a": a, "b": a + 0.1 * rng.normal(size=n)})
        >>> report = synthetic_report(draw(500), draw(500), draw(500))
        >>> report.pairs.round(1)
             train  synthetic
        a b    1.0        1.0
    """
    wanted = list(kinds.columns if isinstance(kinds, Schema) else pd.DataFrame(train).columns)
    train, synthetic, holdout = (
        _frame(name, table, wanted)
        for name, table in (("train", train), ("synthetic", synthetic), ("holdout", holdout))
    )
    if unknown := [name for name in targets if name not in train.columns]:
        raise ValueError(f"Expected targets among {list(train.columns)}; got {unknown}.")
    rng = np.random.default_rng(random.as_seed(seed))
    code = _Code(train, kinds)
    count = min(len(train), len(synthetic), len(holdout) // 2)
    order = rng.permutation(len(holdout))
    shuffled = pd.DataFrame(
        {name: train[name].array[rng.permutation(len(train))] for name in train.columns}
    )
    tables = {
        "synthetic": synthetic.iloc[rng.permutation(len(synthetic))[:count]],
        "real": holdout.iloc[order[:count]],
        "independent": shuffled.iloc[:count],
    }
    columns = pd.DataFrame({name: code.distances(table) for name, table in tables.items()})
    associations = {name: code.associations(table) for name, table in tables.items()}
    pairs = pd.DataFrame({"train": code.associations(train), **associations})
    differences = pairs.sub(pairs["train"], axis=0).abs()[list(_COLUMNS)]
    measures = {}
    for title, found in (("column distance", columns), ("pair difference", differences)):
        if len(found):
            measures[f"{title}, mean"] = found.mean()
            measures[f"{title}, largest"] = found.max()

    few = min(count, most)
    known = code(train.iloc[rng.permutation(len(train))[:few]])
    others = code(holdout.iloc[order[count : count + few]])
    coded = {name: code(table.iloc[:few]) for name, table in tables.items()}
    measures["told apart, AUROC"] = pd.Series(
        {name: code.told_apart(known, rows, seed) for name, rows in coded.items()}
    )
    teachers = {**tables, "real": train.iloc[rng.permutation(len(train))[:count]]}
    for target in targets:
        scores = {
            name: code.usefulness(table.iloc[:few], holdout, target, seed)
            for name, table in teachers.items()
        }
        measures |= {f"{target}, {name}": row for name, row in pd.DataFrame(scores).iterrows()}
    everything = code(train)
    near = {name: code.nearness(rows, known, others, everything) for name, rows in coded.items()}
    measures |= dict(pd.DataFrame(near).iterrows())
    table = pd.DataFrame(measures).T[list(_COLUMNS)]
    return SyntheticReport(table, columns, pairs[["train", "synthetic"]])


def _frame(name: str, table: Any, wanted: list[Any]) -> pd.DataFrame:
    """Returns a table as a data frame with the columns that are compared, in their order."""
    frame = pd.DataFrame(table)
    if missing := [column for column in wanted if column not in frame.columns]:
        raise DataError(f"Expected the columns {wanted} in {name}; it lacks {missing}.")
    if len(frame) < _FEWEST_ROWS:
        raise DataError(f"Expected at least {_FEWEST_ROWS} rows in {name}; got {len(frame)}.")
    return frame[wanted]


class _Code:
    """Tables as numbers: the rank of a number among the training data, and codes of categories.

    An absent entry is NaN. Categories beyond the 100 most frequent ones share a code.
    """

    def __init__(self, train: pd.DataFrame, kinds: Mapping[Any, str] | Schema | None) -> None:
        self.train = train
        found = kinds_of(train, kinds)
        self.levels: dict[Any, dict[Any, int]] = {}
        self.sorted: dict[Any, np.ndarray] = {}
        for name in train.columns:
            seen = train[name].dropna()
            if not len(seen):
                raise DataError(f"Expected an observed entry in column {name!r}; it has none.")
            if found[name] in _CATEGORIES and not _is_time(seen):
                top = seen.value_counts().index[:_MOST_LEVELS]
                self.levels[name] = {level: code for code, level in enumerate(top)}
            else:
                self.sorted[name] = np.sort(_numbers(seen, name))
        self.is_category = np.array([name in self.levels for name in train.columns])

    def __call__(self, table: pd.DataFrame) -> np.ndarray:
        """Returns ranks in [0, 1] and codes, [N, D]."""
        return np.stack([self._column(name, table[name]) for name in table.columns], axis=1)

    def _column(self, name: Any, column: pd.Series) -> np.ndarray:
        present = column.notna().to_numpy()
        found = np.full(len(column), np.nan)
        if name in self.levels:
            levels = self.levels[name]
            found[present] = [levels.get(value, _MOST_LEVELS) for value in column[present]]
        else:
            values, among = _numbers(column[present], name), self.sorted[name]
            below = np.searchsorted(among, values) + np.searchsorted(among, values, "right")
            found[present] = 0.5 * below / len(among)
        return found

    def distances(self, table: pd.DataFrame) -> dict[Any, float]:
        """Computes the distance of each column from the training data."""
        found = {}
        for name in table.columns:
            ours, theirs = self.train[name], table[name]
            if name in self.levels:
                shares = [
                    column.astype(object)
                    .where(column.notna(), None)
                    .value_counts(normalize=True, dropna=False)
                    for column in (ours, theirs)
                ]
                found[name] = 0.5 * shares[0].sub(shares[1], fill_value=0.0).abs().sum()
                continue
            absent = abs(ours.isna().mean() - theirs.isna().mean())
            seen = theirs.dropna()
            values = _numbers(seen, name)
            apart = stats.ks_2samp(self.sorted[name], values).statistic if len(values) else 1.0
            found[name] = max(float(apart), float(absent))
        return found

    def associations(self, table: pd.DataFrame) -> pd.Series:
        """Computes the association of each pair of columns where both are observed."""
        rows, names = self(table), list(table.columns)
        found = {}
        for i, j in itertools.combinations(range(len(names)), 2):
            both = rows[~np.isnan(rows[:, [i, j]]).any(axis=1)][:, [i, j]].T
            kinds = self.is_category[[i, j]]
            if kinds.all():
                found[names[i], names[j]] = _cramer(*both.astype(int))
            elif kinds.any():
                codes, numbers = both if kinds[0] else both[::-1]
                found[names[i], names[j]] = _correlation_ratio(codes.astype(int), numbers)
            else:
                found[names[i], names[j]] = _correlation(*both)
        index = pd.MultiIndex.from_tuples(found) if found else None
        return pd.Series(list(found.values()), index=index, dtype=float)

    def told_apart(self, known: np.ndarray, rows: np.ndarray, seed: int) -> float:
        """Computes the area under the ROC curve of trees that tell rows from training rows."""
        x, y = np.concatenate([known, rows]), np.repeat([0, 1], [len(known), len(rows)])
        trees = RandomForestClassifier(random_state=seed, **_TREES)
        score = cross_val_predict(trees, x, y, cv=3, method="predict_proba")[:, 1]
        return float(roc_auc_score(y, score))

    def usefulness(
        self, table: pd.DataFrame, holdout: pd.DataFrame, target: Any, seed: int
    ) -> dict[str, float]:
        """Computes how well models of a table predict a target of real rows."""
        (x, dense, y), (x_test, dense_test, y_test) = (
            self._task(part, target) for part in (table, holdout)
        )
        if target not in self.levels:
            models = {
                "random forest": RandomForestRegressor(random_state=seed, **_TREES)
                .fit(x, y)
                .predict(x_test),
                "linear": Ridge().fit(dense, y).predict(dense_test),
            }
            return {f"{name}, R^2": float(r2_score(y_test, m)) for name, m in models.items()}
        two = len(self.levels[target]) == 2
        measure = "AUROC" if two else "accuracy"
        if len(np.unique(y)) < 2:
            same = 0.5 if two else float((y_test == y[0]).mean())
            return {f"random forest, {measure}": same, f"linear, {measure}": same}
        models = {
            "random forest": (
                RandomForestClassifier(random_state=seed, **_TREES).fit(x, y),
                x_test,
            ),
            "linear": (LogisticRegression(max_iter=2000).fit(dense, y), dense_test),
        }
        return {
            f"{name}, {measure}": float(
                roc_auc_score(y_test == 1, model.predict_proba(inputs)[:, 1])
                if two
                else accuracy_score(y_test, model.predict(inputs))
            )
            for name, (model, inputs) in models.items()
        }

    def _task(self, table: pd.DataFrame, target: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns codes and dense numbers of all other columns, and the target, where observed."""
        seen = table[table[target].notna()]
        rows, others = self(seen), table.columns != target
        x = rows[:, others]
        y = rows[:, ~others][:, 0] if target in self.levels else _numbers(seen[target], target)
        return x, _dense(x, self.is_category[others]), y

    def nearness(
        self, rows: np.ndarray, known: np.ndarray, others: np.ndarray, everything: np.ndarray
    ) -> dict[str, float]:
        """Computes how near rows are to training rows."""
        to_known, to_others = self._nearest(rows, known), self._nearest(rows, others)
        closer = (to_known < to_others) + 0.5 * (to_known == to_others)
        all_known = {row.tobytes() for row in everything}
        copies = np.mean([row.tobytes() in all_known for row in rows])
        return {
            "nearest training row": float(np.median(to_known)),
            "closer to training": float(closer.mean()),
            "copies": float(copies),
        }

    def _nearest(self, rows: np.ndarray, among: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            total = np.zeros([len(some), len(among)])
            for place, is_category in enumerate(self.is_category):
                a, b = some[:, place, None], among[None, :, place]
                apart = (a != b).astype(float) if is_category else np.abs(a - b)
                absent = np.isnan(a).astype(int) + np.isnan(b)
                total += np.where(absent == 0, apart, absent == 1)
            found.append(total.min(axis=1) / rows.shape[1])
        return np.concatenate(found)


def _is_time(column: pd.Series) -> bool:
    return column.dtype.kind in "mM"


def _numbers(seen: pd.Series, name: Any) -> np.ndarray:
    """Returns observed entries as numbers; of dates and durations those that pandas stores."""
    try:
        return seen.astype(np.int64 if _is_time(seen) else np.float64).to_numpy(np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"Expected numbers in column {name!r}; got {seen.iloc[0]!r}. Call it categorical."
        ) from None


def _dense(rows: np.ndarray, is_category: np.ndarray) -> np.ndarray:
    """Returns ranks and one column for each code, for linear models."""
    parts = []
    for place, category in enumerate(is_category):
        column = rows[:, place]
        absent = np.isnan(column)
        if category:
            parts.append(column[:, None] == np.arange(_MOST_LEVELS + 1))
        else:
            parts.append(np.where(absent, 0.5, column)[:, None])
        parts.append(absent[:, None])
    return np.concatenate(parts, axis=1).astype(np.float64)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the rank correlation; 0 if either is constant."""
    a, b = stats.rankdata(a), stats.rankdata(b)
    if len(a) < 2 or a.std() == 0.0 or b.std() == 0.0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _correlation_ratio(codes: np.ndarray, numbers: np.ndarray) -> float:
    """Computes the root of the share of the variance of ranks that categories explain."""
    ranks = stats.rankdata(numbers)
    if len(ranks) < 2 or ranks.std() == 0.0:
        return 0.0
    counts = np.bincount(codes)
    means = np.bincount(codes, ranks)[counts > 0] / counts[counts > 0]
    between = counts[counts > 0] @ (means - ranks.mean()) ** 2 / len(ranks)
    return float(np.sqrt(between / ranks.var()))


def _cramer(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the bias-corrected V of Bergsma (2013); 0 if either is constant."""
    if len(a) < 2:
        return 0.0
    width = b.max() + 1
    table = np.bincount(a * width + b, minlength=(a.max() + 1) * width).reshape(-1, width)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    (r, c), n = table.shape, len(a)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi = max(0.0, ((table - expected) ** 2 / expected).sum() / n - (r - 1) * (c - 1) / (n - 1))
    r, c = (size - (size - 1) ** 2 / (n - 1) for size in (r, c))
    return float(np.sqrt(phi / (min(r, c) - 1))) if min(r, c) > 1 else 0.0
