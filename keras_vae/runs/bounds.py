"""Bounds on log p(x) of a run's test examples, in nats and in the units of the data file."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_vae import evaluation
from keras_vae.evaluation.pareto import TRUSTED
from keras_vae.runs import measurements
from keras_vae.runs.run import Run
from keras_vae.spelling import counted

__all__ = ["Bounds", "first_of", "measure"]


class Bounds(NamedTuple):
    """Bounds on test examples, in nats per example in the units of the data file.

    Attributes:
        elbo, distortion, rate: of each example, [N], from one draw of the latents.
        marginal: importance-weighted bound on log p(x) of the first M examples; None if there were
            no samples.
    """

    elbo: np.ndarray
    distortion: np.ndarray
    rate: np.ndarray
    marginal: evaluation.LogMarginal | None

    @property
    def log_p(self) -> np.ndarray:
        """The importance-weighted bound on log p(x) of the first examples, [M]."""
        return self._sampled.value

    @property
    def _sampled(self) -> evaluation.LogMarginal:
        if self.marginal is None:
            raise ValueError("Expected bounds with importance samples, got the ELBO alone.")
        return self.marginal

    def values(self) -> dict[str, Any]:
        """Returns the bounds as they stand in `evaluation.json`: of the first M examples."""
        count, size, found = len(self.log_p), len(self.elbo), self._sampled
        tails = found.pareto_k
        values = {
            "examples": measurements.examples(count, size),
            "test_examples": count,
            "test_set": size,
            "elbo": measurements.summary(self.elbo[:count]),
            "log_marginal": {
                **measurements.summary(self.log_p),
                "method": f"importance sampling, k = {found.num_samples}",
                "side": found.side,
                "median_effective_sample_size": float(np.median(found.effective_sample_size)),
                "heavy_tails": None if tails is None else int((tails > TRUSTED).sum()),
            },
            "distortion": measurements.summary(self.distortion[:count]),
            "rate": measurements.summary(self.rate[:count]),
        }
        if count < size:
            values["elbo_of_all"] = measurements.summary(self.elbo)
        return values


def first_of(x: Any, limit: int) -> Any:
    """Returns the first examples of an array or of named arrays; 0 for all."""
    return keras.tree.map_structure(lambda part: np.asarray(part[: limit or None]), x)


def measure(
    run: Run,
    vae: Any,
    x: Any,
    *,
    num_samples: int,
    limit: int,
    seed: int,
    progress: bool = False,
    report: Callable[[str], None],
) -> Bounds:
    """Bounds log p(x) by the ELBO and by importance sampling.

    Args:
        run: the run.
        vae: its model.
        x: prepared test examples.
        num_samples: importance samples per example; 0 leaves importance sampling out.
        limit: number of examples, from the first on, for importance sampling; 0 for all.
        seed: seed of all draws.
        progress: whether to show progress bars.
        report: called with messages.
    """
    offset = run.row_nats(x)
    elbo, distortion, rate = (np.asarray(value, np.float64) for value in vae.elbo(x, seed=seed))
    marginal = None
    if num_samples:
        first = first_of(x, limit)
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # heavy tails are among the results
            found = evaluation.log_marginal(
                vae, first, num_samples=num_samples, seed=seed, progress=progress
            )
        seconds = time.perf_counter() - started
        measured = counted(len(found.value), "example" if run.schema is None else "row")
        report(f"Importance sampling took {seconds:.1f} s for {measured}.")
        shift = offset[: len(found.value)] if np.ndim(offset) else offset
        marginal = dataclasses.replace(found, value=np.asarray(found.value, np.float64) + shift)
    return Bounds(elbo + offset, distortion - offset, rate, marginal)
