"""Table of scores of novelty, which always has trivial baselines in it."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from keras_vae.evaluation.independent_columns import IndependentColumns
from keras_vae.evaluation.novelty import compressed_bits
from keras_vae.linear_gaussian import LinearGaussian
from keras_vae.spelling import counted

__all__ = ["Auroc", "ScoreTable", "auroc", "score_table", "trivial_scores"]

_MOST_FEATURES = 1024
_MOST_ROWS = 20_000  # for the fit of probabilistic PCA
_RESOLUTION = 1e-3  # least variance of an entry, as a share of the mean variance


@dataclass(frozen=True)
class Auroc:
    """Area under the ROC curve: chance that an anomaly scores above a normal example.

    Attributes:
        value: from 0 to 1; ties count half.
        error: standard error over examples (DeLong, DeLong and Clarke-Pearson 1988).

    Example:
        >>> print(auroc([0.0, 1.0, 2.0, 1.5], [0, 0, 1, 1]))
        1.000 +- 0.000
    """

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.3f} +- {self.error:.3f}"


def auroc(scores: Any, labels: Any) -> Auroc:
    """Computes the area under the ROC curve of scores [N], and its standard error.

    Args:
        scores: scores [N]; larger is more novel.
        labels: 1 or True for an anomaly, [N].

    Raises:
        ValueError: if a score is NaN, the shapes differ, or there are not two examples of each
            kind.

    Example:
        >>> auroc([0.0, 1.0, 2.0, 1.5], [0, 0, 1, 1])
        Auroc(value=1.0, error=0.0)
    """
    scores = np.asarray(scores, np.float64)
    truth = np.asarray(labels).astype(bool)
    if scores.shape != truth.shape or scores.ndim != 1 or np.isnan(scores).any():
        raise ValueError(
            f"Expected scores and labels [N] without NaN; got shapes {list(scores.shape)} and "
            f"{list(truth.shape)}, {int(np.isnan(scores).sum())} scores are NaN."
        )
    novel, normal = scores[truth], scores[~truth]
    if min(len(novel), len(normal)) < 2:
        raise ValueError(
            f"Expected at least two examples of each kind; got {len(normal)} normal ones and "
            f"{len(novel)} anomalies."
        )
    ranks = stats.rankdata(scores)
    above = (ranks[truth] - stats.rankdata(novel)) / len(normal)
    below = 1.0 - (ranks[~truth] - stats.rankdata(normal)) / len(novel)
    variance = above.var(ddof=1) / len(novel) + below.var(ddof=1) / len(normal)
    return Auroc(float(above.mean()), math.sqrt(variance))


@dataclass(frozen=True)
class ScoreTable:
    """Areas under ROC curves: how well scores separate anomalies from normal examples.

    Attributes:
        scores: area under the ROC curve by the name of the score.
        trivial: that of scores which need no model worth the name.
        counts: number of normal examples and of anomalies.

    Example:
        >>> print(ScoreTable({"elbo": Auroc(0.9, 0.02)}, {"mean": Auroc(0.6, 0.05)}, (50, 10)))
        AUROC, 50 normal examples and 10 anomalies
          scores
            elbo  0.900 +- 0.020
          trivial
            mean  0.600 +- 0.050
    """

    scores: dict[str, Auroc]
    trivial: dict[str, Auroc]
    counts: tuple[int, int]

    def __iter__(self) -> Iterator[tuple[str, Auroc]]:
        yield from {**self.scores, **self.trivial}.items()

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self)
        lines = [f"AUROC, {self.counts[0]} normal examples and {self.counts[1]} anomalies"]
        for title, part in (("scores", self.scores), ("trivial", self.trivial)):
            ordered = sorted(part.items(), key=lambda item: -item[1].value)
            lines += [f"  {title}", *(f"    {name:{width}s}  {value}" for name, value in ordered)]
        return "\n".join(lines)


def score_table(
    scores: Mapping[str, Any], labels: Any, *, train: Any, x: Any, latent_size: int = 10
) -> ScoreTable:
    """Compares scores of novelty with one another and with `trivial_scores`.

    Args:
        scores: scores [N] by name; larger is more novel.
        labels: 1 or True for an anomaly, [N].
        train: training data of the model [M, *D], without anomalies.
        x: examples that were scored [N, *D].
        latent_size: latents of probabilistic PCA.

    Raises:
        ValueError: as `auroc`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> train, x = rng.normal(size=(50, 3)), np.repeat([[0.1], [0.2], [5.0], [6.0]], 3, axis=1)
        >>> size = x.sum(axis=1)
        >>> found = score_table({"size": size}, [0, 0, 1, 1], train=train, x=x, latent_size=1)
        >>> found.scores["size"].value
        1.0
    """
    truth = np.asarray(labels).astype(bool)
    trivial = trivial_scores(train, x, latent_size)
    return ScoreTable(
        {name: auroc(values, truth) for name, values in scores.items()},
        {name: auroc(values, truth) for name, values in trivial.items()},
        (int((~truth).sum()), int(truth.sum())),
    )


def trivial_scores(train: Any, x: Any, latent_size: int = 10) -> dict[str, np.ndarray]:
    """Computes scores of novelty that need no neural network.

    A set that these separate says nothing for a deep model that separates it too: on Fashion-MNIST
    against MNIST the size of the compressed image does as well as published scores.

    - mean of the entries, and compressed size in bits of zlib, with 256 levels between the smallest
      and the largest training value. Each of them in three forms, as nobody knows beforehand which
      is novel: large, small, and far from the median of the training data.
    - independent entries: minus log p(x): frequencies of binary data, normal distributions
      otherwise, `IndependentColumns` for a data frame.
    - probabilistic PCA: minus log p(x), fitted to at most 20 000 training rows; left out above 1024
      entries, or if the rows lie in fewer dimensions than it has latents.

    Data of rank 3 or more are images, whose entries share one scale: pixels that hardly vary in the
    training data count with a thousandth of the mean variance, so no dead pixel decides. Anything
    else is a table, whose numbers are standardised column by column. Absent entries are NaN or
    missing; the share of them is then a score too. Columns of a data frame that are constant in the
    training data are left out.

    Args:
        train: training data [M, *D], or a data frame.
        x: examples [N, *D], or a data frame.
        latent_size: latents of probabilistic PCA.

    Returns:
        Scores [N] by name; larger is more novel.

    Example:
        >>> train = np.random.default_rng(0).normal(size=(50, 3))
        >>> found = trivial_scores(train, np.array([[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]]))
        >>> int(found["independent entries"].argmax())
        1
    """
    if np.ndim(train) > 2:
        train, x = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (train, x))
        low, high = train.min(), train.max()
        levels = [_levels(part, low, high) for part in (train, x)]
        found = _three_forms("mean", *(part.mean(axis=1) for part in (train, x)))
        found["independent entries"] = _independent(train, x)
    else:
        columns = isinstance(train, pd.DataFrame)
        ours, theirs = pd.DataFrame(train), pd.DataFrame(x)
        kept = [name for name in ours if not columns or ours[name].nunique() > 1]
        ours, theirs = ours[kept], theirs[kept]
        is_number = [pd.api.types.is_numeric_dtype(dtype) for dtype in ours.dtypes]
        train, x = (
            part.loc[:, is_number].to_numpy(np.float64, na_value=np.nan) for part in (ours, theirs)
        )
        absent = [part.isna().mean(axis=1).to_numpy() for part in (ours, theirs)]
        levels = [_codes(ours, part, is_number) for part in (ours, theirs)]
        found = _three_forms("share absent", *absent) if max(map(np.max, absent)) > 0.0 else {}
        if columns:
            found["independent entries"] = -IndependentColumns.fit(ours).log_prob(theirs)
        if train.shape[1]:
            deviation = np.nanstd(train, axis=0)
            scale = np.where(deviation > 0.0, deviation, 1.0)
            centre = np.nanmean(train, axis=0)
            binary = np.isin(train, (0.0, 1.0)).all()
            if not columns and binary:
                found["independent entries"] = _independent(train, x)
            train, x = ((part - centre) / scale for part in (train, x))
            if not columns and not binary:
                found["independent entries"] = _independent(train, x) + np.log(scale).sum()
            found |= _three_forms(
                "mean", *(np.nan_to_num(part).mean(axis=1) for part in (train, x))
            )
    found |= _three_forms("compressed size", *map(compressed_bits, levels))
    latents = min(latent_size, train.shape[1] - 1)
    if latents > 0 and train.shape[1] <= _MOST_FEATURES:
        with contextlib.suppress(ValueError):  # the data lies in fewer dimensions
            ppca = LinearGaussian.fit(train[:_MOST_ROWS], latents)
            least = math.sqrt(_RESOLUTION * float(np.nanvar(train, axis=0).mean()))
            ppca = LinearGaussian(ppca.weights, ppca.bias, max(ppca.scale, least))
            found[f"probabilistic PCA, {counted(latents, 'latent')}"] = -ppca.log_prob(x).numpy()
    return found


def _three_forms(name: str, train: np.ndarray, x: np.ndarray) -> dict[str, np.ndarray]:
    value = x.astype(np.float64)
    unusual = np.abs(value - np.median(train))
    return {f"{name}, large": value, f"{name}, small": -value, f"{name}, unusual": unusual}


def _independent(train: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Computes -log p of independent entries, with a least variance; absent entries add 0."""
    if np.isin(train, (0.0, 1.0)).all() and np.isin(x, (0.0, 1.0)).all():
        share = (train.sum(axis=0) + 0.5) / (len(train) + 1.0)
        return -(special.xlogy(x, share) + special.xlogy(1.0 - x, 1.0 - share)).sum(axis=1)
    variance = np.nanvar(train, axis=0)
    variance = np.maximum(variance, _RESOLUTION * variance.mean())
    square = (x - np.nanmean(train, axis=0)) ** 2 / variance
    return np.nansum(0.5 * (square + np.log(2.0 * np.pi * variance)), axis=1)


def _levels(x: np.ndarray, low: float, high: float) -> np.ndarray:
    span = high - low if high > low else 1.0
    return np.clip((x - low) / span, 0.0, 1.0)


def _codes(train: pd.DataFrame, x: pd.DataFrame, is_number: list[bool]) -> np.ndarray:
    """Returns one byte per entry: 0 if absent, otherwise a level or the code of a category."""
    found = np.zeros(x.shape, np.uint8)
    for place, name in enumerate(x):
        present = x[name].notna().to_numpy()
        if is_number[place]:
            seen = train[name].dropna().to_numpy(np.float64)
            values = x[name][present].to_numpy(np.float64)
            found[present, place] = 1 + np.round(254 * _levels(values, seen.min(), seen.max()))
        else:
            codes = {
                level: 1 + code % 255 for code, level in enumerate(train[name].dropna().unique())
            }
            found[present, place] = [codes.get(value, 0) for value in x[name][present]]
    return found
