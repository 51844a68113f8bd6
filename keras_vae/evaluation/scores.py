"""Scores: anomaly scores of examples, and log-probabilities in bits per dimension."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from keras_vae.arguments import as_count, as_shape
from keras_vae.distributions.noise import centre
from keras_vae.distributions.tfp import has_moments
from keras_vae.evaluation._batches import (
    SEED,
    batch_seed,
    batches,
    compiled,
    count_of,
    rows_in,
    spec_of,
)
from keras_vae.evaluation._draws import size_of, trace_of
from keras_vae.evaluation.marginal import log_marginal
from keras_vae.model import VAE

__all__ = ["AnomalyScores", "anomaly_scores", "bits_per_dim"]


@dataclass(frozen=True)
class AnomalyScores:
    """Scores of each example, [N], in nats; a higher score is less like the training data.

    Attributes:
        negative_log_marginal: -log p(x) by importance sampling.
        negative_elbo: -ELBO(x), distortion plus rate.
        reconstruction: -log p(x | z) at the mean of q(z | x).
        auroc: area under the ROC curve of each score by its name, if labels were given.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> int(anomaly_scores(vae, [[0.0], [4.0]], num_samples=10).negative_elbo.argmax())
        1
    """

    negative_log_marginal: np.ndarray
    negative_elbo: np.ndarray
    reconstruction: np.ndarray
    auroc: dict[str, float] | None


def anomaly_scores(
    vae: VAE,
    x: Any,
    labels: Any = None,
    *,
    num_samples: int = 1000,
    elbo_samples: int = 16,
    seed: int = 0,
    memory: int = 256 * 2**20,
    progress: bool | None = None,
) -> AnomalyScores:
    """Computes anomaly scores of each example, and how well they separate labels.

    Args:
        vae: a model trained on normal data.
        x: data [N, *D], or {"x": ..., "condition": ...}.
        labels: labels [N], 1 or True for an anomaly; None leaves `auroc` out.
        num_samples: importance samples per example.
        elbo_samples: draws per example for the ELBO.
        seed: integer, for all draws.
        memory: approximate memory to use, in bytes.
        progress: whether to show the time left; None shows it in a terminal.

    Raises:
        DataError: if x lies outside the support of the likelihood.
        ValueError: if the labels are not N numbers 0 and 1, both present.

    Warns:
        UserWarning: as `log_marginal`; expect it, since q is bad at anomalies.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> scores = anomaly_scores(vae, [[0.0], [0.5], [4.0]], [0, 0, 1], num_samples=100)
        >>> scores.auroc["negative_log_marginal"]
        1.0
    """
    elbo_samples = as_count("elbo_samples", elbo_samples, least=1)
    x = vae.data.arrays(x, in_support=True)
    truth = None if labels is None else _labels(labels, count_of(x))
    marginal = log_marginal(
        vae, x, num_samples=num_samples, seed=seed, memory=memory, progress=progress
    )

    def others(batch: Any, batch_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        trace = trace_of(vae, batch, elbo_samples, batch_seed)
        noise = centre(vae.noise(), [1, size_of(batch)], vae.float_dtype)
        at_centre = vae.infer(batch).trace(noise).latents
        middle = {
            name: latent.posterior().mean()[tf.newaxis]
            if latent.q is not None and has_moments(latent.posterior())
            else at_centre[name].value
            for name, latent in trace.latents.items()
        }
        at_middle = vae.infer(batch).at(middle)
        return -tf.reduce_mean(trace.log_weights(), axis=0), -at_middle.log_likelihood()[0]

    graph = compiled(others, spec_of(x), SEED)
    size = max(1, rows_in(memory, vae) // elbo_samples)
    parts = [
        [part.numpy() for part in graph(batch, batch_seed(seed, start))]
        for start, batch in batches(x, size)
    ]
    negative_elbo, reconstruction = (np.concatenate(part) for part in zip(*parts, strict=True))
    scores = {
        "negative_log_marginal": -marginal.value,
        "negative_elbo": negative_elbo,
        "reconstruction": reconstruction,
    }
    auroc = None
    if truth is not None:
        auroc = {name: float(roc_auc_score(truth, score)) for name, score in scores.items()}
    return AnomalyScores(**scores, auroc=auroc)


def _labels(labels: Any, count: int) -> np.ndarray:
    truth = np.asarray(labels)
    if truth.shape != (count,) or set(np.unique(truth).tolist()) != {0, 1}:
        raise ValueError(
            f"labels must be {count} numbers, 0 for normal and 1 for an anomaly, both present; got "
            f"shape {list(truth.shape)} with values {np.unique(truth)[:5].tolist()}."
        )
    return truth


def bits_per_dim(
    log_prob: Any, event_shape: int | Sequence[int], *, levels: int | None = None
) -> np.ndarray:
    """Converts log-probabilities in nats to bits per dimension, -log2 P(x) / D.

    Integer data modelled by a density is dequantised, y = (x + u) / levels, with u uniform on [0,
    1). Then log P(x) >= E log p(y) - D log levels, and the second term, log2 levels bits per
    dimension, is added if `levels` is given. For a density of real data leave it out: the result
    then
    depends on the unit of the data and may be negative. Source: Theis, van den Oord and Bethge
    (2016), A note on the evaluation of generative models, arXiv:1511.01844.

    Args:
        log_prob: log-probability, log-density or a bound on it, [N], in nats.
        event_shape: shape of one example, of D numbers.
        levels: number of levels of the integers that were dequantised.

    Raises:
        ValueError: if the shape or the number of levels is out of range.

    Example:
        >>> bits_per_dim([0.0], (28, 28, 1), levels=256)  # a uniform density: 8 bits
        array([8.])
    """
    dimensions = math.prod(as_shape(event_shape, "bits_per_dim"))
    offset = 0.0 if levels is None else math.log2(as_count("levels", levels, least=2))
    return offset - np.asarray(log_prob, np.float64) / (dimensions * math.log(2.0))
