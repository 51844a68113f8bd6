"""Rate against distortion of models trained at several beta."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.estimators import elbo_terms
from keras_vae.evaluation._batches import (
    SEED,
    batch_seed,
    batches,
    compiled,
    count_of,
    rows_in,
    spec_of,
)
from keras_vae.evaluation._draws import trace_of
from keras_vae.evaluation._progress import Progress
from keras_vae.evaluation.summary import mean_and_error
from keras_vae.model import VAE

__all__ = ["RateDistortion", "rate_distortion"]


@dataclass(frozen=True)
class RateDistortion:
    """Means over a data set of M models in the order of their beta, [M] each, in nats per example.

    Attributes:
        beta: weight of the rate that each model was trained with.
        rate: KL(q(z | x) || p(z)).
        distortion: -E_q log p(x | z).
        rate_error, distortion_error: standard errors, from the scatter of the examples.

    Example:
        >>> error = np.array([0.1, 0.1])
        >>> beta, rate, distortion = np.array([[0.5, 1.0], [3.0, 2.0], [7.0, 7.5]])
        >>> RateDistortion(beta, rate, distortion, error, error).elbo
        array([-10. ,  -9.5])
    """

    beta: np.ndarray
    rate: np.ndarray
    distortion: np.ndarray
    rate_error: np.ndarray
    distortion_error: np.ndarray

    @property
    def elbo(self) -> np.ndarray:
        """Lower bounds on the mean of log p(x), -(distortion + rate), [M]."""
        return -(self.distortion + self.rate)


def rate_distortion(
    models: Mapping[float, VAE],
    x: Any,
    *,
    num_samples: int = 8,
    seed: int = 0,
    memory: int = 256 * 2**20,
    progress: bool | None = None,
) -> RateDistortion:
    """Measures rate and distortion of models trained with `ELBO(beta=...)` on the same data.

    A model that minimises distortion + beta rate lies where the curve of the smallest distortion at
    each rate has the slope -beta; the ELBO is best at beta 1. The ideal curve is convex, and a
    point above it is a model that trained badly. Source: Alemi,
    Poole, Fischer, Dillon, Saurous and Murphy (2018), Fixing a broken ELBO, arXiv:1711.00464.

    Args:
        models: trained models by their beta.
        x: data [N, *D], or {"x": ..., "condition": ...}.
        num_samples: draws per example.
        seed: integer, for the draws, which all models share.
        memory: approximate memory to use, in bytes.
        progress: whether to show the time left for each model; None shows it in a terminal.

    Raises:
        DataError: if x lies outside the support of a likelihood.
        ValueError: if there is no model or the number of draws is out of range.

    Example:
        >>> import keras_vae, numpy as np
        >>> models = {beta: keras_vae.mlp_vae(5, 2, "normal", hidden=(8,)) for beta in (0.5, 1.0)}
        >>> x = np.random.default_rng(0).normal(size=(16, 5))
        >>> rate_distortion(models, x, num_samples=2).beta
        array([0.5, 1. ])
    """
    num_samples = as_count("num_samples", num_samples, least=1)
    if not models:
        raise ValueError("Expected trained models by their beta, such as {1.0: vae}; got none.")
    rows = []
    for beta in sorted(models):
        vae = models[beta]
        rows.append([beta, *_point(vae, x, num_samples, seed, memory, progress)])
    beta_, distortion, distortion_error, rate, rate_error = np.array(rows, np.float64).T
    return RateDistortion(beta_, rate, distortion, rate_error, distortion_error)


def _point(
    vae: VAE, x: Any, num_samples: int, seed: int, memory: int, progress: bool | None
) -> tuple[float, float, float, float]:
    """Computes mean and standard error of the distortion, then of the rate."""
    x = vae.data.arrays(x, in_support=True)

    def terms(batch: Any, batch_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return elbo_terms(trace_of(vae, batch, num_samples, batch_seed))

    graph = compiled(terms, spec_of(x), SEED)
    size = max(1, rows_in(memory, vae) // num_samples)
    with Progress("rate_distortion", count_of(x), progress) as done:
        parts = [
            [part.numpy() for part in graph(batch, batch_seed(seed, start))]
            for start, batch in batches(x, size, done)
        ]
    distortion, rate = (np.concatenate(part) for part in zip(*parts, strict=True))
    return *mean_and_error(distortion), *mean_and_error(rate)
