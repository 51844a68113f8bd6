"""Pairs: an expected output, the actual output, and the tolerance of their difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from export.cases import Case, Tensors
from export.parity import tolerances
from keras_vae import integrity, random
from keras_vae.conformal import Conformal

__all__ = ["Pair"]


class Pair:
    """An output of one case: expected and actual values, and their tolerance."""

    def __init__(
        self, case: Case, output: str, want: Tensors, got: np.ndarray, about: dict[str, Any]
    ) -> None:
        self.case, self.output = case, output
        self.want, self.got = want[output].astype(np.float64), got.astype(np.float64)
        self.size = tolerances.size_of(case.signature, output, about)
        self.difference = np.abs(self.got - self.want)
        kind, part = integrity.observation_of(about, output) or ("", None)
        is_value = kind in ("sample", "value")
        self.is_picked = case.signature == "impute" and kind == "sample"
        grid = None
        if part and is_value and not self.is_picked:
            grid = part.grid or part.preparation.get("whole")
        self.grid = np.broadcast_to(np.asarray(grid or 0.0, np.float64), self.want.shape)
        self.is_draw = (
            is_value
            and not self.is_picked
            and not self.is_rounded.any()
            and tolerances.is_whole(self.want)
        )
        self.is_threshold = bool(
            self.is_draw and part and part.threshold and case.signature == "sample"
        )
        mean = part.tensors["mean"] if part else output
        if self.is_picked:
            size = np.maximum(self.size, np.abs(self.want))
            self.allowed = tolerances.PICKED * np.broadcast_to(size, self.want.shape)
            self.allowed = np.maximum(self.allowed, 1.5 * ((part and part.grid) or 0.0))
        elif self.is_threshold and part and part.high:
            near = _near_threshold(case, want[mean] / part.high, mean, part.index)
            self.allowed = np.where(near, np.inf, 0.0)
        elif self.is_draw:
            self.allowed = np.full(self.want.shape, np.inf)
            self.sigma = _sigma(self.want, want[mean]) if case.size else 0.0
        elif case.signature == "score" and output == "p_value":
            self.allowed = _of_p_values(case, want, about)
        else:
            self.allowed = tolerances.allowed(
                self.want,
                self.size,
                tolerances.terms_of(case.signature, output, about),
                case.sensitivity.get(mean if self.is_rounded.any() else output, 0.0),
            )
        share = np.divide(self.allowed, self.grid, where=self.is_rounded, out=self.grid.copy())
        self.expected = float(np.minimum(share, 1.0).sum())
        self.allowed = self.allowed + self.grid

    @property
    def is_rounded(self) -> np.ndarray:
        """Where the values are rounded to a grid."""
        return self.grid > 0.0

    @property
    def is_from_model(self) -> bool:
        """Whether x was drawn from the model."""
        return self.case.kind != "adversarial"

    @property
    def other_picks(self) -> int:
        """Number of rows of an imputed draw that come from another draw of z."""
        return int((self.excess > 1.0).reshape(len(self.want), -1).any(axis=1).sum())

    @property
    def excess(self) -> np.ndarray:
        """Difference divided by the tolerance; NaN counts as infinite."""
        with np.errstate(invalid="ignore", divide="ignore"):
            excess = np.where(self.difference == 0.0, 0.0, self.difference / self.allowed)
        return np.where(np.isnan(excess), np.inf, excess)

    def worst(self) -> str:
        """Describes the value with the largest excess and its place."""
        row = int(np.unravel_index(np.argmax(self.excess), self.excess.shape)[0])
        kind, size = self.case.kind, self.case.size
        place = (
            f"{kind} alone"
            if kind.startswith("row")
            else f"row {row} of the {kind} batch of {size}"
        )
        return f"{place}: {self.number()}"

    def number(self) -> str:
        """Describes the value with the largest excess."""
        index = np.unravel_index(np.argmax(self.excess), self.excess.shape)
        rest = list(map(int, index[1:]))
        allowed = self.allowed[index]
        return (
            f"{self.output}{rest if rest else ''} is {self.got[index]:.9g} instead of "
            f"{self.want[index]:.9g}, allowed is "
            f"{'any' if np.isinf(allowed) else f'{allowed:.2g}'}"
        )


def _of_p_values(case: Case, want: Tensors, about: dict[str, Any]) -> np.ndarray:
    """Returns how far p-values may move if the ELBO moves by its tolerance."""
    calibration = Conformal.from_config(about["calibration"])
    elbo = Pair(case, "elbo", want, want["elbo"], about)
    p = calibration.p_value(-elbo.want)
    ends = [calibration.p_value(-elbo.want + sign * elbo.allowed) for sign in (-1.0, 1.0)]
    return np.max(np.abs(np.subtract(ends, p)), axis=0) + tolerances.allowed(p, 1.0)


def _sigma(draws: np.ndarray, mean: np.ndarray) -> float:
    """Returns the standard deviation of draws; at most the number of categories of codes."""
    if mean.shape != draws.shape:
        return float(mean.shape[-1])
    return float(np.sqrt(np.mean((draws - mean) ** 2)))


def _near_threshold(case: Case, probability: np.ndarray, mean: str, index: int) -> np.ndarray:
    """Finds draws whose uniform is so near its threshold that either value is correct."""
    seeds = tf.constant(case.inputs["seed"])
    stream = random.OBSERVATION
    u = random.uniform(seeds, probability.shape[1:], stream=stream, index=index).numpy()
    sensitivity = case.sensitivity.get(mean, 0.0)
    return np.abs(u - probability) <= tolerances.allowed(probability, 1.0, 1, sensitivity)
