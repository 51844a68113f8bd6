"""Pairs: an expected output, the actual output, and the tolerance of their difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from export.cases import Case, Tensors
from export.parity import tolerances
from keras_vae import integrity, random

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
        rounded = output == "sample" and about["data"]["preparation"].get("whole")
        self.is_rounded = np.broadcast_to(np.asarray(rounded or False, bool), self.want.shape)
        self.is_draw = (
            output == "sample" and not self.is_rounded.any() and tolerances.is_whole(self.want)
        )
        self.is_threshold = self.is_draw and integrity.is_threshold(about)
        if self.is_threshold:
            near = _near_threshold(case, want["mean"] / about["data"]["range"][1])
            self.allowed = np.where(near, np.inf, 0.0)
        elif self.is_draw:
            self.allowed = np.full(self.want.shape, np.inf)
            self.sigma = (
                float(np.sqrt(np.mean((self.want - want["mean"]) ** 2))) if case.size else 0
            )
        else:
            self.allowed = tolerances.allowed(
                self.want,
                self.size,
                tolerances.terms_of(case.signature, output, about),
                case.sensitivity.get("mean" if self.is_rounded.any() else output, 0.0),
            )
        self.expected = float(np.minimum(self.allowed, 1.0)[self.is_rounded].sum())
        self.allowed = self.allowed + self.is_rounded

    @property
    def is_from_model(self) -> bool:
        """Whether x was drawn from the model."""
        return self.case.kind != "adversarial"

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


def _near_threshold(case: Case, probability: np.ndarray) -> np.ndarray:
    """Finds draws whose uniform is so near its threshold that either value is correct."""
    seeds = tf.constant(case.inputs["seed"])
    u = random.uniform(seeds, probability.shape[1:], stream=random.OBSERVATION).numpy()
    sensitivity = case.sensitivity.get("mean", 0.0)
    return np.abs(u - probability) <= tolerances.allowed(probability, 1.0, 1, sensitivity)
