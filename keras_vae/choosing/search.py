"""Search: one setting is varied at a time, and a race over paired differences decides.

Each candidate is compared with the best one on the same validation examples. Examples differ by
far more than models do, so the standard error of the mean difference is much smaller than that of
either mean. A candidate is behind if its mean difference is below -2 standard errors.

1. Train a first candidate; it leads.
2. Vary one setting of the leader. Of a name, such as the likelihood, every value is tried. Of a
   size, such as the number of latents, the next larger value is tried, and further ones while they
   are ahead; if the first is not, the next smaller ones are tried while they are not behind.
3. The new leader is the simplest candidate that is not behind the best one.
4. Repeat with the other settings, and again until a whole round changes nothing: all that is left
   is inside the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_vae.choosing.candidates import Axis, Candidate

__all__ = ["CLEAR", "DROPPED", "Search", "Spent", "Trial", "difference"]

CLEAR = 2.0
"""Standard errors from which on a difference is called one."""

DROPPED = "behind"
"""End of a trial that was dropped, because it could not have caught up."""

_ROUNDS = 4


class Spent(Exception):  # noqa: N818
    """Raised by `measure` when the budget does not allow for another trial."""


@dataclass(frozen=True)
class Trial:
    """A trained candidate.

    Attributes:
        candidate: its settings.
        bounds: ELBO of each validation example, nats in the units of the data [N].
        epochs: epochs after which its held-out bound was best; these weights were measured.
        seconds: time that it took.
        ended: "settled" (no better for many epochs), "time", "epochs" (their limit) or "behind"
            (dropped).
        share: seconds of training that it was allowed.

    Example:
        >>> candidate = Candidate("normal", 2, 50, "standard_normal")
        >>> Trial(candidate, np.array([-3.0, -1.0]), 9, 4.0, "settled", 20.0).mean
        -2.0
    """

    candidate: Candidate
    bounds: np.ndarray
    epochs: int
    seconds: float
    ended: str
    share: float

    @property
    def mean(self) -> float:
        """Mean bound over the validation examples."""
        return float(self.bounds.mean())


def difference(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Returns the mean of a - b over examples and its standard error.

    Example:
        >>> difference(np.array([3.0, 2.0, 4.0]), np.array([2.0, 2.0, 2.0]))
        (1.0, 0.577...)
    """
    gap = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    error = gap.std(ddof=1) / math.sqrt(len(gap)) if len(gap) > 1 else math.inf
    return float(gap.mean()), float(error)


def _ahead(a: Trial, b: Trial) -> bool:
    mean, error = difference(a.bounds, b.bounds)
    return mean > CLEAR * error


class Search:
    """Coordinate search over the settings of a model, described at the top of this module.

    Args:
        axes: the settings and their values.
        measure: function from a candidate, and the trial to race against or None, to the trained
            trial; None if the candidate cannot be trained. It raises `Spent` when no time is left.

    Attributes:
        trials: all trials, in the order in which they were made.
        is_complete: whether a whole round changed nothing.
    """

    def __init__(
        self, axes: Sequence[Axis], measure: Callable[[Candidate, Trial | None], Trial | None]
    ) -> None:
        self.trials: list[Trial] = []
        self.is_complete = False
        self._axes = axes
        self._measure = measure
        self._known: dict[Candidate, Trial | None] = {}
        self._lost: set[tuple[str, object]] = set()

    def run(self, start: Candidate) -> Trial | None:
        """Returns the recommended trial; None if no first candidate could be trained.

        If `start` cannot be trained, the other values of the first setting take its place.
        """
        first = self._axes[0]
        others = (start._replace(**{first.name: value}) for value in first.values)
        leader = next(filter(None, map(self._trained, (start, *others))), None)
        for _ in range(_ROUNDS):
            if leader is None:
                return None
            before = leader.candidate
            for axis in self._axes:
                tried = [leader]
                try:
                    walk = self._sizes if axis.is_ordered else self._names
                    walk(axis, leader.candidate, tried)
                except Spent:
                    return self._simplest(axis, tried)
                leader = self._simplest(axis, tried)
            if leader.candidate == before:
                self.is_complete = True
                return leader
        return leader

    @property
    def best(self) -> Trial | None:
        """The trial with the highest mean bound, or None."""
        return max(self.trials, key=lambda trial: trial.mean, default=None)

    def _trained(self, candidate: Candidate) -> Trial | None:
        if candidate not in self._known:
            trial = self._measure(candidate, self.best)
            self._known[candidate] = trial
            if trial is not None:
                self.trials.append(trial)
        return self._known[candidate]

    def _names(self, axis: Axis, base: Candidate, tried: list[Trial]) -> None:
        """Tries every value that has not lost before."""
        for value in axis.values:
            if (axis.name, value) in self._lost or value == getattr(base, axis.name):
                continue
            trial = self._trained(base._replace(**{axis.name: value}))
            if trial is not None:
                tried.append(trial)
                if self._is_behind(trial, max(tried, key=lambda each: each.mean)):
                    self._lost.add((axis.name, value))

    def _sizes(self, axis: Axis, base: Candidate, tried: list[Trial]) -> None:
        """Tries larger values while they are ahead, or else smaller ones while not behind."""
        place, last = axis.index(base), tried[0]
        for value in axis.values[place + 1 :]:
            trial = self._trained(base._replace(**{axis.name: value}))
            if trial is None:
                break
            tried.append(trial)
            if not _ahead(trial, last):
                break
            last = trial
        if last is not tried[0]:
            return
        for value in reversed(axis.values[:place]):
            trial = self._trained(base._replace(**{axis.name: value}))
            if trial is None:
                break
            tried.append(trial)
            if self._is_behind(trial, max(tried, key=lambda each: each.mean)):
                break

    def _simplest(self, axis: Axis, tried: Sequence[Trial]) -> Trial:
        """Returns the simplest of some trials that is not behind the best of all."""
        best = max(self.trials, key=lambda trial: trial.mean)
        kept = [each for each in tried if not self._is_behind(each, best)]
        return min(kept, key=lambda trial: axis.index(trial.candidate))

    @staticmethod
    def _is_behind(trial: Trial, best: Trial) -> bool:
        return trial.ended == DROPPED or _ahead(best, trial)
