"""Pareto-k: how heavy the tail of importance weights is, and so whether their mean is reliable."""

import math

import numpy as np

__all__ = ["FEWEST_DRAWS", "TRUSTED", "pareto_k", "tail_size"]

FEWEST_DRAWS = 100
"""With fewer draws, the tail has fewer than 20 weights and its shape cannot be estimated."""

TRUSTED = 0.7
"""Below this k the error of the mean falls with the number of draws, in practice."""

_FLAT = 0.01


def tail_size(num_samples: int) -> int:
    """Returns the number of largest weights in the tail: min(S / 5, 3 sqrt(S)), rounded up."""
    return math.ceil(min(num_samples / 5, 3.0 * math.sqrt(num_samples)))


def pareto_k(largest: np.ndarray) -> np.ndarray:
    """Fits a generalised Pareto distribution to each example's largest weights; returns k, [N].

    Weights have 1/k finite moments: the variance exists for k < 1/2, the mean for k < 1. The fit is
    that of Zhang and Stephens (2009) with the weak prior of Vehtari et al., which counts as ten
    weights with k 0.5. Weights that agree within a percent have no tail: k is -inf.

    Args:
        largest: the M + 1 largest log-weights of each example in any order, [N, M + 1]; the
            smallest is the threshold.

    Sources: Zhang and Stephens (2009), A new and efficient estimation method for the generalized
    Pareto distribution; Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance
    sampling, arXiv:1507.02646.

    Example:
        >>> uniform = (np.arange(1000.0) + 0.5) / 1000.0
        >>> pareto_k(-0.5 * np.log(uniform)[None]).round(1)  # w = u^-0.5
        array([0.5])
    """
    log_w = np.sort(np.asarray(largest, np.float64), axis=1)
    spread = log_w[:, -1] - log_w[:, 0]
    w = np.exp(log_w - log_w[:, -1:])
    excess = np.maximum(w[:, 1:] - w[:, :1], np.finfo(np.float64).tiny)
    size = excess.shape[1]
    grid_size = 30 + int(size**0.5)
    quartile = excess[:, int(size / 4 + 0.5) - 1, None]
    grid = 1.0 - np.sqrt(grid_size / (np.arange(1, grid_size + 1) - 0.5))
    b = grid / (3.0 * quartile) + 1.0 / excess[:, -1:]
    with np.errstate(all="ignore"):
        k = np.log1p(-b[:, :, None] * excess[:, None]).mean(axis=2)
        log_likelihood = size * (np.log(-b / k) - k - 1.0)
        log_likelihood = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
        weight = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
        b_mean = (b * weight).sum(axis=1) / weight.sum(axis=1)
        shape = np.log1p(-b_mean[:, None] * excess).mean(axis=1)
    shape = (size * shape + 10 * 0.5) / (size + 10)
    return np.where(spread < _FLAT, -np.inf, shape)
