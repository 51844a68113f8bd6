"""Numbers that summarise a model or a set of values."""

import math
from typing import Any

import numpy as np

from keras_vae.model import VAE
from keras_vae.monitor import ACTIVE

__all__ = ["active_units", "mean_and_error"]


def active_units(vae: VAE, x: Any, threshold: float = ACTIVE) -> int:
    """Number of latents whose posterior mean varies over the data: Var_x(E_q[z_j]) > threshold.

    Source: Burda, Grosse and Salakhutdinov (2016), arXiv:1509.00519.
    """
    return int((np.var(vae.encode(x).mean().numpy(), axis=0) > threshold).sum())


def mean_and_error(values: Any) -> tuple[float, float]:
    """Mean over examples and its standard error, from the scatter of the examples."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), float(error)
