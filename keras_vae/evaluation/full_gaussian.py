"""Normal distribution with any covariance, of rows with absent entries."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_vae.data.frames import numbers, refuse_infinite
from keras_vae.data.holes import alike, column_means

__all__ = ["FullGaussian"]

_ROUNDING = 1e-12  # share of its numbers below which the spread of a column is rounding
_AT_ONCE = 2**24  # numbers of the matrices of a chunk of rows


class FullGaussian:
    """Normal distribution x ~ N(loc, covariance) of rows of which some entries may be absent.

    It is the baseline that a model of a real-valued table with holes has to beat. An absent entry
    is NaN, missing in a data frame or masked. Everything is computed in float64.

    Args:
        loc: mean, [D].
        covariance: [D, D], positive definite.

    Raises:
        ValueError: if the shapes disagree or the covariance is not positive definite.

    Example:
        >>> gaussian = FullGaussian([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]])
        >>> gaussian.impute([[1.0, np.nan]]).round(3)
        array([[1. , 0.8]])
        >>> gaussian.log_prob([[1.0, np.nan]]).round(3)
        array([-1.419])
    """

    def __init__(self, loc: Any, covariance: Any) -> None:
        self.loc = np.asarray(loc, np.float64)
        self.covariance = np.asarray(covariance, np.float64)
        if self.loc.ndim != 1 or self.covariance.shape != 2 * self.loc.shape:
            raise ValueError(
                f"Expected loc [D] and covariance [D, D]; got {self.loc.shape} and "
                f"{self.covariance.shape}."
            )
        try:
            np.linalg.cholesky(self.covariance)
        except np.linalg.LinAlgError:
            raise ValueError(
                "Expected a positive definite covariance; this one has no Cholesky factor. Add a "
                "ridge to its diagonal."
            ) from None

    @classmethod
    def fit(
        cls, x: Any, *, ridge: float = 1e-3, iterations: int = 1000, tolerance: float = 1e-6
    ) -> "FullGaussian":
        """Fits it to the observed entries of the data [N, D] by expectation maximisation.

        It climbs the mean of log p(x_O) less ridge / 2 sum_d variance_d inv(covariance)_dd, from
        the column means and variances. Without the penalty the covariance of fewer rows than
        columns, or of columns that depend on one another, has no inverse. Source: Little and Rubin
        (2002), Statistical analysis with missing data, section 11.2.

        Args:
            x: data [N, ...], flattened to [N, D]; absent entries are NaN.
            ridge: share of each column's variance that is added to the diagonal in each step.
            iterations: largest number of steps.
            tolerance: the steps end when one adds less than this, in nats per row, to what is
                climbed.

        Raises:
            DataError: if the data is not an array of numbers, or a column has no observed entry.
            ValueError: if the ridge is negative, or it is 0 and the covariance becomes singular.
        """
        if not ridge >= 0.0:
            raise ValueError(f"Expected a ridge of at least 0; got {ridge!r}.")
        x, observed = _read(x)
        middle = column_means(x)
        rounding = (_ROUNDING * np.nanmax(np.abs(x), axis=0)) ** 2
        x = x - middle
        spread = np.where(observed, x, 0.0)
        variances = (spread**2).sum(axis=0) / observed.sum(axis=0)
        variances = np.where(variances > rounding, variances, 1.0)
        model, before = cls(np.zeros_like(middle), np.diag(variances)), -math.inf
        for _ in range(iterations):
            better, value = model._step(x, observed, ridge * variances)
            if value - before < tolerance:
                break
            model, before = better, value
        return cls(model.loc + middle, model.covariance)

    def log_prob(self, x: Any) -> np.ndarray:
        """Computes log p(x_O) in nats, [N], of rows x [N, D]; 0 where nothing is observed."""
        log_prob = np.empty(len(x))
        for known in self._known(*_read(x)):
            log_prob[known.rows] = known.log_prob
        return log_prob

    def impute(self, x: Any) -> np.ndarray:
        """Returns x [N, D] with E[x_d | x_O] in place of absent entries."""
        x, observed = _read(x)
        means = np.empty_like(x)
        for known in self._known(x, observed):
            means[known.rows] = self.loc + known.weighed @ self.covariance
        return np.where(observed, x, means)

    def _known(self, x: np.ndarray, observed: np.ndarray) -> Iterator["_Known"]:
        """Yields what the observed entries say, for all rows, in chunks.

        The inverse of the covariance of the observed entries is that block of the inverse of a
        matrix with ones on the diagonal elsewhere, so all rows have matrices of one shape.
        """
        size = len(self.loc)
        for some in alike(observed, max(1, _AT_ONCE // size**2)):
            pairs = some.observed[:, :, None] & some.observed[:, None, :]
            matrices = np.where(pairs, self.covariance, np.eye(size))
            precision = np.where(pairs, np.linalg.inv(matrices), 0.0)
            residual = np.where(observed[some.rows], x[some.rows] - self.loc, 0.0)
            weighed = (precision[some.which] @ residual[:, :, None])[:, :, 0]
            constant = some.observed.sum(axis=1) * math.log(2.0 * math.pi)
            constant += np.linalg.slogdet(matrices).logabsdet
            log_prob = -0.5 * (constant[some.which] + (weighed * residual).sum(axis=1))
            yield _Known(some.rows, some.which, precision, weighed, log_prob)

    def _step(
        self, x: np.ndarray, observed: np.ndarray, penalty: np.ndarray
    ) -> tuple["FullGaussian", float]:
        """Returns the model after a step, and the penalised mean of log p(x_O) here."""
        mean, second = np.zeros_like(self.loc), np.zeros_like(self.covariance)
        log_prob = 0.0
        for known in self._known(x, observed):
            rows = known.rows
            deviation = np.where(
                observed[rows], x[rows] - self.loc, known.weighed @ self.covariance
            )
            counts = np.bincount(known.which, minlength=len(known.precision))
            mean += deviation.sum(axis=0)
            precision = np.tensordot(counts.astype(np.float64), known.precision, 1)
            second += deviation.T @ deviation - self.covariance @ precision @ self.covariance
            log_prob += known.log_prob.sum()
        mean = mean / len(x)
        covariance = second / len(x) + self.covariance - np.outer(mean, mean) + np.diag(penalty)
        inverse = np.diagonal(np.linalg.inv(self.covariance))
        value = log_prob / len(x) - 0.5 * float((penalty * inverse).sum())
        return FullGaussian(self.loc + mean, 0.5 * (covariance + covariance.T)), value


class _Known(NamedTuple):
    """Moments given the observed entries of some rows.

    Attributes:
        rows: indices of the rows, [n].
        which: index of the set of observed entries of each row, [n].
        precision: inverse covariance of the observed entries of each set, 0 elsewhere, [P, D, D].
        weighed: precision times deviation from the mean, [n, D].
        log_prob: log p(x_O), [n].
    """

    rows: np.ndarray
    which: np.ndarray
    precision: np.ndarray
    weighed: np.ndarray
    log_prob: np.ndarray


def _read(x: Any) -> tuple[np.ndarray, np.ndarray]:
    x = numbers(x, "x", missing=True).astype(np.float64).reshape(len(x), -1)
    refuse_infinite(x, "x", missing=True)
    return x, ~np.isnan(x)
