"""Conformal p-values: how unusual a score is among those of held-out normal examples."""

import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

__all__ = ["Conformal", "Guarantee", "p_values"]


class Guarantee(NamedTuple):
    """Share of normal examples whose p-value is at most alpha.

    Attributes:
        expected: mean over calibration sets; at most alpha.
        low, high: interval in which the share lies for 95 % of the calibration sets.

    Example:
        >>> found = Conformal(np.arange(99.0)).guarantee(0.05)
        >>> found.low < found.expected < found.high
        True
    """

    expected: float
    low: float
    high: float


class Conformal:
    """Conformal p-values p = (1 + #{calibration scores >= score}) / (1 + n).

    Calibrated with the scores of n normal examples that the model was not trained on. If another
    normal example is exchangeable with them, P(p <= alpha) <= alpha for every alpha, whatever the
    score is and however wrong the model: 'p <= 0.01' raises a false alarm for at most one normal
    example in a hundred. The probability is over the example and the calibration set; `guarantee`
    says what a single calibration set may do. Where scores do not tie, P(p <= alpha) is exactly
    floor(alpha (n + 1)) / (n + 1). No p-value is below 1 / (n + 1). The promise ends where the data
    drifts, and it says nothing of how many anomalies are found.

    Scores are compared in float32, as exported graphs compute them. A score from random draws keeps
    the promise if its seed does not depend on which examples are for calibration. Sources: Vovk,
    Gammerman and Shafer (2005), Algorithmic learning in a random world; Bates, Candes, Lei, Romano
    and Sesia (2023), Testing for outliers with conformal p-values, arXiv:2104.08279.

    Args:
        scores: scores [n] of held-out normal examples; a larger score is less normal.
        size: number of entries to keep in the table; None keeps all. Half of them are the largest
            scores, so small p-values stay as they are. Others are rounded up, by at most about 2 /
            size.

    Attributes:
        n: number of calibration scores.
        table: scores in ascending order, float32 [K].
        steps: number of calibration scores above the entry before and not above this one, int32
            [K]; all are 1 if the table holds every score and none tie.

    Raises:
        ValueError: if the scores are not n finite numbers, n >= 1, or the size is below 1.

    Example:
        >>> calibration = Conformal(np.arange(99.0))
        >>> calibration.p_value([0.0, 50.0, 98.0, 99.0])
        array([1.  , 0.5 , 0.02, 0.01])
        >>> calibration.guarantee(0.05)
        Guarantee(expected=0.05, low=0.016..., high=0.1...)
    """

    def __init__(self, scores: Any, size: int | None = None) -> None:
        found = np.asarray(scores, np.float64)
        if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
            raise ValueError(
                "Expected the finite scores [n] of at least one held-out normal example; got shape "
                f"{list(found.shape)} with {int((~np.isfinite(found)).sum())} that are not finite."
            )
        if size is not None and size < 1:
            raise ValueError(f"Expected a table of at least 1 entry; got size={size!r}.")
        ordered = np.sort(found.astype(np.float32))
        self.n = len(ordered)
        table, last = np.unique(ordered[::-1], return_index=True)
        below = self.n - last  # number of scores that are not above each entry
        if size is not None and size < len(table):
            tail = len(table) - (size + 1) // 2
            spread = np.linspace(0, tail, size // 2 + 2)[1:-1].astype(int)
            keep = np.concatenate([np.unique(spread), np.arange(tail, len(table))])
            table, below = table[keep], below[keep]
        self.table = table
        self.steps = np.diff(below, prepend=0).astype(np.int32)

    def p_value(self, scores: Any) -> np.ndarray:
        """Computes p-values [N] of scores [N]; NaN of NaN."""
        found = np.asarray(scores, np.float32)
        below = np.concatenate([[0], np.cumsum(self.steps)])[np.searchsorted(self.table, found)]
        return np.where(np.isnan(found), np.nan, (1 + self.n - below) / (1.0 + self.n))

    def threshold(self, alpha: float) -> float:
        """Returns the score above which the p-value is at most alpha; infinite if none is."""
        _check(alpha)
        if alpha == 1.0:
            return -math.inf
        p = (1 + self.n - np.cumsum(self.steps)) / (1.0 + self.n)
        above = np.flatnonzero(p <= alpha)
        return float(self.table[above[0]]) if len(above) else math.inf

    def guarantee(self, alpha: float) -> Guarantee:
        """Computes the share of normal examples that get a p-value of at most alpha.

        It is for a full table without ties; with ties or a smaller one the share is lower. Given
        the calibration set it follows a Beta distribution, from which the interval comes.
        """
        from scipy import stats

        _check(alpha)
        largest = math.floor(alpha * (self.n + 1) + 1e-9)
        if largest == 0:
            return Guarantee(0.0, 0.0, 0.0)
        if largest > self.n:
            return Guarantee(1.0, 1.0, 1.0)
        share = stats.beta(largest, self.n + 1 - largest)
        low, high = (float(end) for end in share.interval(0.95))
        return Guarantee(largest / (self.n + 1), low, high)

    def get_config(self) -> dict[str, Any]:
        """Returns the table as plain numbers, for JSON."""
        return {"n": self.n, "table": self.table.tolist(), "steps": self.steps.tolist()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Conformal":
        """Makes the calibration of its `get_config`.

        Raises:
            ValueError: if the table does not ascend, or its steps do not fit in n.
        """
        table = np.asarray(config["table"], np.float32)
        steps = np.asarray(config["steps"], np.int32)
        n = int(config["n"])
        fits = table.ndim == 1 and len(table) and table.shape == steps.shape and n >= steps.sum()
        if not fits or (np.diff(table) <= 0.0).any() or (steps < 1).any():
            raise ValueError(
                f"Expected a table that ascends, with a positive number of scores for each entry "
                f"and at most n={n} in all; got shapes {list(table.shape)} and "
                f"{list(steps.shape)}, {int(steps.sum())} scores."
            )
        found = cls.__new__(cls)
        found.n, found.table, found.steps = n, table, steps
        return found


def p_values(scores: tf.Tensor, table: tf.Tensor, steps: tf.Tensor, n: int) -> tf.Tensor:
    """Computes conformal p-values [B] of scores [B] in a graph.

    Comparisons and sums alone, without a sort or a search, so every runtime has the same numbers.

    Args:
        scores: float32 scores [B].
        table, steps: those of a `Conformal`, [K].
        n: its number of calibration scores, below 2^24.
    """
    scores = tf.cast(scores, tf.float32)
    is_above = tf.cast(scores[:, tf.newaxis] > tf.constant(table, tf.float32), tf.float32)
    below = tf.linalg.matvec(is_above, tf.constant(steps, tf.float32))
    return tf.where(tf.math.is_nan(scores), scores, (n + 1.0 - below) / (n + 1.0))


def _check(alpha: float) -> None:
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"Expected alpha from 0 to 1; got {alpha!r}.")
