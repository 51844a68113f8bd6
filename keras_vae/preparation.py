"""Preparation: how the numbers of a file become the data that a likelihood is a law of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vae import data

__all__ = ["Preparation", "prepare"]


@dataclass(frozen=True)
class Preparation:
    """Map from raw data to model data, fixed by the training set and kept with the run.

    First `(raw - center) / spread` per entry or one-hot coding with `categories`, then division by
    `divide`, then one random step per presentation.

    Attributes:
        step: "none", "binarize" (Bernoulli draw) or "dequantize" (uniform noise within a level).
        divide: largest level, for "binarize" and "none".
        levels: number of levels, for "dequantize".
        categories: number of categories of one-hot coding, 0 for none.
        center, spread: per feature; empty for none.
        sentence: what is done, for the reader.
    """

    step: str = "none"
    divide: float = 1.0
    levels: int = 0
    categories: int = 0
    center: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    sentence: str = "as in the file"

    def static(self, raw: np.ndarray) -> np.ndarray:
        """The part without randomness that changes shape or centre; views where there is none."""
        if self.center:
            centred = (raw - np.asarray(self.center)) / np.asarray(self.spread)
            return centred.astype(np.float32)
        if self.categories:
            if raw.max() >= self.categories or raw.min() < 0:
                raise data.DataError(
                    f"The training data has the categories 0 to {self.categories - 1}; this data "
                    f"holds values from {raw.min()} to {raw.max()}."
                )
            return np.eye(self.categories, dtype=np.float32)[raw.astype(np.int64)]
        return raw

    def stream(self) -> dict[str, Any]:
        """Arguments `rescale` and `transform` of `keras_vae.data.batches`."""
        transform: Callable[..., Any] | None = None
        if self.step == "binarize":
            transform = data.binarize
        elif self.step == "dequantize":
            transform = functools.partial(data.dequantize, levels=self.levels)
        return {
            "rescale": None if self.divide == 1.0 else 1.0 / self.divide,
            "transform": transform,
        }

    def array(self, raw: np.ndarray, seed: int = 0) -> np.ndarray:
        """All of `raw` [N, ...] as model data, random steps drawn once with `seed`."""
        stream = data.batches(self.static(raw), 1000, seed=seed, shuffle=False, **self.stream())
        return np.concatenate([batch.numpy() for batch in stream])

    def mean(self, raw: np.ndarray) -> np.ndarray:
        """Mean of the model data over `raw` [N, ...] and over the random step, [...]."""
        mean = self.static(raw).mean(axis=0, dtype=np.float64) / self.divide
        return (mean + 0.5) / self.levels if self.step == "dequantize" else mean

    @property
    def nats_offset(self) -> float:
        """Nats per dimension that take a bound on prepared data to one on the raw data.

        It is the change of variables of densities; binarised data is not a density.
        """
        if self.step == "dequantize":
            return -float(np.log(self.levels))
        if self.step == "none" and self.divide != 1.0:
            return -float(np.log(self.divide))
        if self.spread:
            return -float(np.mean(np.log(self.spread)))
        return 0.0


def prepare(likelihood: str, raw: np.ndarray) -> tuple[Preparation, dict[str, int]]:
    """How to prepare training data for a likelihood, and the options that the data decides.

    Args:
        likelihood: name as in `keras_vae.mlp_vae`.
        raw: training data [N, ...].

    Returns:
        The preparation, and `levels` or `total_count` where the likelihood takes one.
    """
    low, high = float(raw.min()), float(raw.max())
    integral = raw.dtype.kind in "bui" or bool((raw == np.round(raw)).all())
    top = 255.0 if raw.dtype == np.uint8 and high > 1 else (1.0 if high <= 1.0 else high)
    options: dict[str, int] = {}
    if likelihood == "discretized_logistic":
        options["levels"] = int(top) + 1
    if likelihood == "binomial":
        options["total_count"] = max(1, int(top))
    if likelihood == "bernoulli" and low >= 0.0 and not (integral and high <= 1.0):
        sentence = f"grey levels 0 to {top:g} binarised anew at each presentation"
        return Preparation("binarize", top, sentence=sentence), options
    if likelihood == "continuous_bernoulli" and low >= 0.0 and top != 1.0:
        return Preparation(divide=top, sentence=f"divided by {top:g}"), options
    if likelihood == "categorical" and integral and low >= 0.0 and not _is_one_hot(raw):
        count = int(high) + 1
        return Preparation(categories=count, sentence=f"one-hot coded, {count} categories"), options
    if likelihood in ("normal", "laplace"):
        if integral and raw.ndim == 4 and low >= 0.0:
            levels = int(top) + 1
            sentence = f"levels 0 to {top:g} dequantised: (x + u) / {levels}, u uniform on [0, 1)"
            return Preparation("dequantize", levels=levels, sentence=sentence), options
        if raw.ndim == 2 and raw.dtype.kind == "f":
            spread = np.asarray(raw.std(axis=0), np.float64)
            spread = np.where(spread > 0.0, spread, 1.0)
            return (
                Preparation(
                    center=tuple(map(float, raw.mean(axis=0))),
                    spread=tuple(map(float, spread)),
                    sentence="each feature centred and divided by its standard deviation",
                ),
                options,
            )
    return Preparation(), options


def _is_one_hot(raw: np.ndarray) -> bool:
    return raw.ndim > 2 and bool((raw.max(axis=-1) == 1).all() and (raw.sum(axis=-1) == 1).all())
