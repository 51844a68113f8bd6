"""Numbers that summarise a model or a set of values."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_vae.distributions.tfp import has_moments
from keras_vae.evaluation._batches import batch_seed, batches
from keras_vae.evaluation._draws import trace_of
from keras_vae.hierarchical import HierarchicalVAE
from keras_vae.model import VAE
from keras_vae.training.monitor import ACTIVE

__all__ = ["active_units", "log_mean_error", "mean_and_error", "posterior_moments"]

_CHUNK = 1000


def posterior_moments(
    vae: VAE | HierarchicalVAE, x: Any, *, num_samples: int = 64, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Computes mean and standard deviation of each latent under q(z | x), [N, L] each.

    They are exact where q has them in closed form. Those of a flow are estimated from draws, and
    those of a hierarchy are of each level at the means of the levels above it, side by side.

    Args:
        vae: the model.
        x: data [N, *D], or {"x": ..., "condition": ...}.
        num_samples: draws per example where there is no closed form.
        seed: integer, for the draws.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> loc, scale = posterior_moments(vae, np.array([[0.0], [3.0]]))
        >>> loc.tolist(), scale.round(3).tolist()
        ([[0.0], [2.0]], [[0.577], [0.577]])
    """
    if isinstance(vae, HierarchicalVAE):
        levels = vae.encode(x).values()
        return _side_by_side(q.mean() for q in levels), _side_by_side(q.stddev() for q in levels)
    if _closed(vae):
        q = vae.encode(x)
        return q.mean().numpy(), q.stddev().numpy()
    draws = _draws(vae, x, num_samples, seed)
    return draws.mean(axis=0), draws.std(axis=0)


def _side_by_side(levels: Iterable[Any]) -> np.ndarray:
    """Joins numbers of latents of any shape, [N, ...] each, to [N, L]."""
    return np.concatenate([np.reshape(each, (len(each), -1)) for each in levels], axis=1)


def _closed(vae: VAE) -> bool:
    """Tells whether the moments of q have a closed form."""
    return vae.posterior.tells_density and has_moments(vae.encode(vae.data.zeros()))


def _draws(vae: VAE, x: Any, num_samples: int, seed: int) -> np.ndarray:
    """Draws z from q(z | x), [S, N, L] in float64."""
    x = vae.data.arrays(x, in_support=False)
    parts = [
        trace_of(vae, batch, num_samples, batch_seed(seed, start)).latents["z"].value.numpy()
        for start, batch in batches(x, _CHUNK)
    ]
    return np.concatenate(parts, axis=1).astype(np.float64)


def active_units(vae: VAE | HierarchicalVAE, x: Any, threshold: float = ACTIVE) -> int:
    """Counts the latents whose posterior mean varies over the data: Var_x(E_q[z_j]) > threshold.

    Where the mean has no closed form, the variance is the covariance over x of the means of two
    independent halves of 64 draws, whose expectation it is. Source: Burda, Grosse and Salakhutdinov
    (2016), arXiv:1509.00519.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> active_units(vae, np.array([[-1.0], [1.0]]))
        1
    """
    if isinstance(vae, HierarchicalVAE) or _closed(vae):
        variance = np.var(posterior_moments(vae, x)[0], axis=0, dtype=np.float64)
    else:
        first, second = np.split(_draws(vae, x, 64, 0), 2)
        first, second = (each.mean(axis=0) - each.mean(axis=(0, 1)) for each in (first, second))
        variance = (first * second).mean(axis=0)
    return int((variance > threshold).sum())


def log_mean_error(ess: np.ndarray, num_samples: int) -> np.ndarray:
    """Computes the standard error of log mean w of k weights by the delta method; NaN for k = 1.

    It is sqrt((1 / ESS - 1 / k) k / (k - 1)), the relative deviation of the mean of w. The log mean
    is skewed and biased downwards, so value +- 2 errors covers log p(x) less often than the 95 % of
    a normal estimate: for importance weights with a standard normal logarithm, 80 % at k = 5, 88 %
    at 20 and 93 % at 100.
    """
    if num_samples < 2:
        return np.full(np.shape(ess), math.nan)
    variance = np.maximum(1.0 / ess - 1.0 / num_samples, 0.0)
    return np.sqrt(variance * num_samples / (num_samples - 1))


def mean_and_error(values: Any) -> tuple[float, float]:
    """Computes the mean over examples and its standard error.

    Example:
        >>> mean_and_error([1.0, 2.0, 3.0])
        (2.0, 0.577...)
    """
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
