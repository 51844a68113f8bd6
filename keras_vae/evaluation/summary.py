"""Numbers that summarise a model or a set of values."""

import math
from typing import Any

import numpy as np

from keras_vae.model import VAE
from keras_vae.training.monitor import ACTIVE

__all__ = ["active_units", "log_mean_error", "mean_and_error"]


def active_units(vae: VAE, x: Any, threshold: float = ACTIVE) -> int:
    """Counts the latents whose posterior mean varies over the data: Var_x(E_q[z_j]) > threshold.

    Source: Burda, Grosse and Salakhutdinov (2016), arXiv:1509.00519.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> active_units(vae, np.array([[-1.0], [1.0]]))
        1
    """
    loc = vae.encode(x).mean().numpy()
    return int((np.var(loc, axis=0, dtype=np.float64) > threshold).sum())


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
