"""Peak and mean of a von Mises-Fisher distribution, as functions of its concentration.

With t = mu'z, the density relative to the uniform one on the sphere of d dimensions is

    p(z) / uniform = exp(k t - M(k)),   M(k) = log E[exp(k t)] = log 0F1(d/2; k^2 / 4),

and M'(k) = E[t] = A(k) = I_{v+1}(k) / I_v(k) with v = d/2 - 1, of modified Bessel functions.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.polynomial import Polynomial

from keras_vae.random.elementary import horner

__all__ = ["Peak", "log_area", "peak"]

_LEAST_ORDER = {tf.float32: 8.0, tf.float64: 16.0}
_TERMS = {tf.float32: 5, tf.float64: 10}
"""Order from which the expansion is used, and its terms: within 1e-7 in float32, 1e-13 else."""


class Peak(NamedTuple):
    """A function of the concentration k.

    Attributes:
        log_density: k - M(k), the log-density at the mean direction relative to the uniform one.
        shortfall: 1 - A(k), which the length of the mean vector lacks.
    """

    log_density: tf.Tensor
    shortfall: tf.Tensor


def log_area(size: int) -> float:
    """Returns the logarithm of the area of the unit sphere of vectors of so many dimensions."""
    return math.log(2.0) + 0.5 * size * math.log(math.pi) - math.lgamma(0.5 * size)


def peak(concentration: tf.Tensor, size: int) -> Peak:
    """Computes the peak of the von Mises-Fisher distribution.

    Debye's expansion holds uniformly in k for a large order w. Steps of the recurrence of Bessel
    functions, downwards, lead from there to v = d/2 - 1: with n = 2, 4, ... the ratio
    r_v = I_{v+1} / I_v is k / (2 (v + 1) + k r_{v+1}), and M_v is M_{v+1} plus
    log(1 + k r_{v+1} / (2 (v + 1))). All terms are positive, so no digits cancel for small k; the
    shortfalls 1 - r keep theirs for large k. Source: Olver (1997), Asymptotics and special
    functions, chapter 10.

    Args:
        concentration: numbers k of at least 0.
        size: dimension d of the sphere's vectors, at least 2.
    """
    order = 0.5 * size - 1.0
    steps = max(0, math.ceil(_LEAST_ORDER[concentration.dtype] - order))
    log_density, shortfall = _expanded(concentration, order + steps)
    for step in reversed(range(steps)):
        twice = 2.0 * (order + step + 1.0)
        growth = concentration * (1.0 - shortfall)
        log_density -= tf.math.log1p(growth / twice)
        shortfall = (twice - concentration * shortfall) / (twice + growth)
    return Peak(log_density, shortfall)


def _expanded(concentration: tf.Tensor, order: float) -> Peak:
    """Computes the peak for a large order w, by k = w z, s = sqrt(1 + z^2) and p = 1 / s."""
    z = concentration / order
    unit = tf.maximum(z, 1.0)  # so that no square overflows
    s = unit * tf.sqrt(tf.square(1.0 / unit) + tf.square(z / unit))
    p = 1.0 / s
    above_one = z * (z / (1.0 + s))
    differences, slopes = _coefficients(order, _TERMS[concentration.dtype])
    log_density = (
        order * (2.0 * z / (z + 1.0 + s) + tf.math.log1p(0.5 * above_one))
        + 0.5 * tf.math.log(s)
        + (z / (1.0 + s)) * (z / s) * horner(p, differences)
    )
    shortfall = (1.0 + 1.0 / (s + z)) / (1.0 + s)
    shortfall += z * p * p * (0.5 / order + p * horner(p, slopes))
    return Peak(log_density, shortfall)


@functools.cache
def _coefficients(order: float, terms: int) -> tuple[list[float], list[float]]:
    """Returns polynomials in p made of the logarithm of Debye's series, D_k(p) / w^k.

    The first is the sum of (D_k(1) - D_k(p)) / (1 - p) / w^k, the second that of D_k'(p) / w^(k+1).
    """
    p = Polynomial([0.0, 1.0])
    series = [Polynomial([1.0])]
    for last in (series[-1] for _ in range(terms)):
        inner = ((1.0 - 5.0 * p**2) * last).integ() / 8.0
        series.append(0.5 * p**2 * (1.0 - p**2) * last.deriv() + inner)
    logs = [Polynomial([0.0])]
    for k in range(1, terms + 1):
        others = sum((j * logs[j] * series[k - j] for j in range(1, k)), Polynomial([0.0]))
        logs.append(series[k] - others / k)
    differences, slopes = Polynomial([0.0]), Polynomial([0.0])
    for k, log in enumerate(logs[1:], 1):
        differences += (log(1.0) - log) // (1.0 - p) / order**k
        slopes += log.deriv() / order ** (k + 1)
    return np.trim_zeros(differences.coef, "b").tolist(), slopes.coef.tolist()
