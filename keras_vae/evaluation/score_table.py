"""Table of scores of novelty, which always has trivial baselines in it."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from keras_vae.evaluation.novelty import compressed_bits
from keras_vae.linear_gaussian import LinearGaussian

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
    """How well scores separate anomalies from normal examples, best first.

    Attributes:
        scores: area under the ROC curve by the name of the score.
        trivial: that of scores which need no model worth the name.
        counts: number of normal examples and of anomalies.
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

    - mean: mean of the entries, and compressed size: bits of zlib, of 256 levels between the
      smallest and the largest training value (of each column of a table, of all pixels of images).
      Each of them in three forms, as nobody knows beforehand which is novel: large, small, and far
      from the median of the training data.
    - independent entries: minus log p(x) of independent entries: frequencies if the data is binary,
      normal distributions otherwise.
    - probabilistic PCA: minus log p(x), fitted to at most 20 000 training rows; left out above 1024
      entries, or if the rows lie in fewer dimensions than it has latents.

    Entries that hardly vary in the training data count with a thousandth of the mean variance, so
    one dead pixel does not decide.

    Args:
        train: training data [M, *D].
        x: examples [N, *D].
        latent_size: latents of probabilistic PCA.

    Returns:
        Scores [N] by name; larger is more novel.
    """
    is_image = np.ndim(train) > 2
    train, x = (np.asarray(part, np.float64).reshape(len(part), -1) for part in (train, x))
    axis = None if is_image else 0
    low, high = train.min(axis=axis), train.max(axis=axis)
    span = np.where(high > low, high - low, 1.0)
    ours, theirs = (np.clip((part - low) / span, 0.0, 1.0) for part in (train, x))
    found = {}
    for name, measure in (("mean", lambda part: part.mean(axis=1)), ("size", compressed_bits)):
        value, middle = measure(theirs).astype(np.float64), np.median(measure(ours[:_MOST_ROWS]))
        title = "mean" if name == "mean" else "compressed size"
        found[f"{title}, large"], found[f"{title}, small"] = value, -value
        found[f"{title}, unusual"] = np.abs(value - middle)
    centre, variance = train.mean(axis=0), train.var(axis=0)
    if np.isin(train, (0.0, 1.0)).all() and np.isin(x, (0.0, 1.0)).all():
        share = (train.sum(axis=0) + 0.5) / (len(train) + 1.0)
        log_prob = special.xlogy(x, share) + special.xlogy(1.0 - x, 1.0 - share)
    else:
        floored = np.maximum(variance, _RESOLUTION * variance.mean())
        log_prob = -0.5 * ((x - centre) ** 2 / floored + np.log(2.0 * np.pi * floored))
    found["independent entries"] = -log_prob.sum(axis=1)
    latents = min(latent_size, train.shape[1] - 1)
    if latents > 0 and train.shape[1] <= _MOST_FEATURES:
        with contextlib.suppress(ValueError):  # the data lies in fewer dimensions
            ppca = LinearGaussian.fit(train[:_MOST_ROWS], latents)
            scale = max(ppca.scale, math.sqrt(_RESOLUTION * variance.mean()))
            ppca = LinearGaussian(ppca.weights, ppca.bias, scale)
            found[f"probabilistic PCA, {latents} latents"] = -ppca.log_prob(x).numpy()
    return found
