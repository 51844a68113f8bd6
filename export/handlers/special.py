"""Special functions: complementary error function, its inverses, log-gamma and digamma.

Chebyshev series are truncated at the precision of the argument's dtype, float32 or float64. Their
coefficients come from interpolation in 50 or more Chebyshev nodes, computed with 60 digits.
"""

import math
from collections.abc import Sequence

import numpy as np

from export.handlers.values import Value, exp, floor, log, sqrt, where
from keras_vae.random.elementary import STIRLING
from keras_vae.random.normal_tails import (
    PROBIT_CENTER,
    PROBIT_FAR_TAIL,
    PROBIT_TAIL,
    SCALED_ERFC,
)

# log gamma(x) / ((x - 1) (x - 2)) in t = (8 x - 17) / 7.
_SCALED_LGAMMA = (
    0.42269410167815263,
    -0.08671529733616665,
    0.012292358463130678,
    -0.0019908570290752573,
    0.0003463354841482954,
    -6.294311535811732e-05,
    1.1776393479235851e-05,
    -2.2488304961255778e-06,
    4.3595602307749215e-07,
    -8.54923484772858e-08,
    1.6918035597668133e-08,
    -3.372535145881428e-09,
    6.763855468019408e-10,
    -1.363477156188799e-10,
    2.7605598075076147e-11,
    -5.610358055192206e-12,
    1.1440010881492913e-12,
    -2.339592909693745e-13,
    4.7972905910594806e-14,
    -9.860056463185781e-15,
    2.0309228727113597e-15,
    -4.191359225508671e-16,
    8.665461231000414e-17,
    -1.794489405486472e-17,
)


def _is_single(x: Value) -> bool:
    return x.dtype == np.float32


def _chebyshev(t: Value, series: Sequence[float]) -> Value:
    threshold = (2.0**-27 if _is_single(t) else 2.0**-56) * abs(series[0])
    kept = [coefficient for coefficient in series if abs(coefficient) > threshold]
    return t.polynomial(np.polynomial.chebyshev.cheb2poly(kept).tolist())


def erfc(x: Value) -> Value:
    """Computes the complementary error function, with small relative error in the upper tail.

    erfc(x) = exp(-x^2) f(t) / (1 + x) for x >= 0, t = (x - 3) / (x + 3), and 2 - erfc(-x) below.
    The square is split, x^2 = h^2 + (x - h) (x + h) with h a multiple of 1/16, whose square is
    exact; otherwise the exponential would magnify its rounding.
    """
    size = where(abs(x) > 30.0, 30.0, abs(x))
    head = floor(size * 16.0) * 0.0625
    decay = exp(-(head * head)) * exp((head - size) * (head + size))
    upper = decay * (_chebyshev(1.0 - 6.0 / (size + 3.0), SCALED_ERFC) / (size + 1.0))
    return where(x < 0.0, 2.0 - upper, upper)


def _probit(centered: Value, tail: Value) -> Value:
    """Computes the normal quantile of p from p - 1/2 and min(p, 1 - p)."""

    def ratio(x: Value, coefficients: tuple[Sequence[float], Sequence[float]]) -> Value:
        return x.polynomial(coefficients[0]) / x.polynomial(coefficients[1])

    center = centered * ratio(0.180625 - centered * centered, PROBIT_CENTER)
    depth = sqrt(-log(tail))
    size = where(depth <= 5.0, ratio(depth - 1.6, PROBIT_TAIL), ratio(depth - 5.0, PROBIT_FAR_TAIL))
    size = where(tail.equals(0.0), math.inf, size)
    return where(abs(centered) <= 0.425, center, where(centered < 0.0, -size, size))


def ndtri(p: Value) -> Value:
    """Computes the standard normal quantile: minus and plus infinity at 0 and 1, NaN outside.

    Source: Wichura (1988), Algorithm AS 241: the percentage points of the normal distribution.
    """
    return _probit(p - 0.5, where(p < 0.5, p, 1.0 - p))


def erfinv(x: Value) -> Value:
    """Computes the inverse error function from the normal quantile at (1 + x) / 2."""
    return _probit(x * 0.5, (1.0 - abs(x)) * 0.5) * math.sqrt(0.5)


def lgamma(x: Value) -> Value:
    """Computes the logarithm of |gamma(x)|, infinite at 0, -1, -2, ...

    Below 3, log gamma(y) = (y - 1) (y - 2) f(t) with y = x, x + 1 or x + 2 in [5/4, 3), so the
    zeros at 1 and 2 are exact. Above, Stirling's series, which float64 enters at 9 by a shift.
    For negative x, log gamma(x) = log(pi / |x sin(pi x)|) - log gamma(-x): its absolute error is
    small, but near the zeros between the poles its relative error is not.
    """
    size = abs(x)
    is_low, is_middle = size < 0.25, size < 1.25
    offset = size + where(is_low, size.constant(1.0), where(is_middle, size.constant(0.0), -1.0))
    quotient = _chebyshev((offset - 1.125) * (8 / 7), _SCALED_LGAMMA)
    skipped = where(is_low, size * (size + 1.0), where(is_middle, size, 1.0))
    near = offset * (offset - 1.0) * quotient - log(skipped)
    positive = where(size < 3.0, near, _stirling(size))

    fraction = size - floor(size)
    sine = (math.pi * fraction.apply("Min", 1.0 - fraction)).apply("Sin")
    reflected = log(math.pi / (size * sine)) - positive
    is_pole = fraction.equals(0.0) | size.equals(math.inf)
    return where(x < 0.0, where(is_pole, math.inf, reflected), positive)


def _stirling(x: Value) -> Value:
    """Computes the logarithm of gamma(x) for x >= 3."""
    if _is_single(x):
        return _stirling_series(x, 6)
    is_small = x < 9.0
    product = x
    for k in range(1, 6):
        product = product * (x + float(k))
    shifted = _stirling_series(where(is_small, x + 6.0, x), 10)
    return shifted - log(where(is_small, product, 1.0))


def _stirling_series(x: Value, terms: int) -> Value:
    inverse = 1.0 / x
    remainder = inverse * (inverse * inverse).polynomial(STIRLING[:terms])
    return (x - 0.5) * (log(x) - 1.0) + (0.5 * math.log(2 * math.pi) - 0.5 + remainder)


def digamma(x: Value) -> Value:
    """Computes the derivative of log gamma, NaN at 0, -1, -2, ...

    psi(x) = log y - 1/(2 y) - sum_k B_2k / (2k y^2k) - sum_{k<n} 1/(x + k), y = x + n, with n = 4
    in float32 and 9 in float64, and psi(-x) = psi(x) + 1/x + pi / tan(pi x). The absolute error is
    small, and so is the relative error away from the zeros at 1.4616 and below 0.
    """
    size = abs(x)
    shift, terms = (4, 6) if _is_single(x) else (9, 10)
    is_small = size < float(shift)
    y = where(is_small, size + float(shift), size)
    steps = 1.0 / size
    for k in range(1, shift):
        steps = steps + 1.0 / (size + float(k))
    inverse = 1.0 / y
    series = [coefficient * (2 * k + 1) for k, coefficient in enumerate(STIRLING[:terms])]
    square = inverse * inverse
    positive = log(y) - (0.5 * inverse + square * square.polynomial(series))
    positive = positive - where(is_small, steps, 0.0)

    fraction = size - floor(size)
    angle = math.pi * (fraction - where(fraction > 0.5, fraction.constant(1.0), 0.0))
    reflected = positive + 1.0 / size + math.pi * (angle.apply("Cos") / angle.apply("Sin"))
    value = where(x < 0.0, reflected, positive)
    is_pole = (x <= 0.0) & (fraction.equals(0.0) | size.equals(math.inf))
    return where(is_pole, math.nan, value)
