"""Error functions and normal quantiles without cancellation, in float32 and float64.

They are made of polynomials and exponentials, so they are the same in every runtime to a few units
in the last place. A tail probability is exp(-z^2 / 2) times a smooth function of z; whatever needs
the ratio of two of them divides the smooth functions.

Source: Wichura (1988), Algorithm AS 241: the percentage points of the normal distribution.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_vae.random.elementary import horner
from keras_vae.random.philox import Tensor

SCALED_ERFC = (
    0.7537126744747984,
    -0.2241538079990932,
    0.03331141869936043,
    0.004729202203160197,
    -0.004667584028574755,
    0.001505458991859158,
    -0.00026627940185075776,
    1.4873372028813446e-05,
    4.608056130651457e-06,
    -9.676802292406137e-07,
    -4.580496022125077e-08,
    3.403835840664566e-08,
    -2.5183402321363754e-10,
    -1.1966477481246857e-09,
    3.164433134105992e-11,
    4.632116431522466e-11,
    -8.079023772841502e-13,
    -1.962398338112284e-12,
    -3.400898553104142e-14,
    8.654949127746541e-14,
    6.547147159229033e-15,
    -3.6838636129200996e-15,
    -6.061318726312009e-16,
    1.3273121984901985e-16,
    4.3939552352609764e-17,
)
"""Chebyshev coefficients of (1 + x) exp(x^2) erfc(x) in t = (x - 3) / (x + 3)."""

PROBIT_CENTER = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
PROBIT_TAIL = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
PROBIT_FAR_TAIL = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)
"""Numerator and denominator of the normal quantile of p, in 0.425^2 - (p - 1/2)^2 near the centre,
and in sqrt(-log p) - 1.6 and sqrt(-log p) - 5 for small p."""

_FARTHEST = 1e18
"""Largest argument: its square is finite in float32."""


@functools.cache
def _scaled_erfc_series(dtype: tf.DType) -> Sequence[float]:
    least = (2.0**-27 if dtype == tf.float32 else 2.0**-56) * SCALED_ERFC[0]
    kept = [coefficient for coefficient in SCALED_ERFC if abs(coefficient) > least]
    return np.polynomial.chebyshev.cheb2poly(kept).tolist()


def scaled_erfc(x: Tensor) -> Tensor:
    """Computes exp(x^2) erfc(x) for x >= 0."""
    return horner(1.0 - 6.0 / (x + 3.0), _scaled_erfc_series(x.dtype)) / (1.0 + x)


def erf(x: Tensor) -> Tensor:
    """Computes the error function, with a small relative error near 0, too."""
    size = tf.abs(x)
    near, far = tf.clip_by_value(x, -1.0, 1.0), tf.clip_by_value(size, 1.0, _FARTHEST)
    terms = 11 if x.dtype == tf.float32 else 20
    series = [
        2.0 / math.sqrt(math.pi) * (-1) ** k / (math.factorial(k) * (2 * k + 1))
        for k in range(terms)
    ]
    inner = near * horner(near * near, series)
    outer = 1.0 - tf.exp(-far * far) * scaled_erfc(far)
    return tf.where(size < 1.0, inner, tf.sign(x) * outer)


def log_upper(z: Tensor) -> Tensor:
    """Computes log(P(Z > z) / exp(-z^2 / 2)) for z >= 0 and Z standard normal."""
    return tf.math.log(0.5 * scaled_erfc(z * math.sqrt(0.5)))


def hazard(z: Tensor) -> Tensor:
    """Computes the ratio of density and P(Z > z) for z >= 0 and Z standard normal."""
    return math.sqrt(2.0 / math.pi) / scaled_erfc(z * math.sqrt(0.5))


def integrated_hazard(start: Tensor, width: Tensor) -> Tensor:
    """Computes log(P(Z > start) / P(Z > start + width)) for start >= 0 and Z standard normal.

    Up to a width of 1 it is a quadrature of the hazard, which is nearly a straight line, so that
    the relative error is small however narrow the interval is.
    """
    short = tf.minimum(width, 1.0)
    nodes, weights = np.polynomial.legendre.leggauss(4 if width.dtype == tf.float32 else 8)
    near = sum(
        0.5 * weight * hazard(start + 0.5 * (1.0 + node) * short)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True)
    )
    far = width * (start + 0.5 * width) + log_upper(start) - log_upper(start + width)
    return tf.where(width < 1.0, short * near, far)


def log_cdf(z: Tensor) -> Tensor:
    """Computes log P(Z < z) for Z standard normal, at any z."""
    size = tf.minimum(tf.where(z < 0.0, -z, z), _FARTHEST)  # of slope 1 at 0
    log_tail = log_upper(size) - 0.5 * size * size
    return tf.where(z < 0.0, log_tail, tf.math.log1p(-tf.exp(log_tail)))


def upper(z: Tensor) -> Tensor:
    """Computes P(Z > z) for z >= 0 and Z standard normal, with a small relative error."""
    z = tf.minimum(z, _FARTHEST)
    return 0.5 * tf.exp(-0.5 * z * z) * scaled_erfc(z * math.sqrt(0.5))


def quantile(centered: Tensor, log_tail: Tensor) -> Tensor:
    """Computes the standard normal quantile of p.

    Args:
        centered: p - 1/2, which decides where it is below 0.425 in size.
        log_tail: logarithm of the smaller of p and 1 - p, from -729 on, which decides elsewhere.
    """

    def ratio(x: Tensor, coefficients: tuple[Sequence[float], Sequence[float]]) -> Tensor:
        return horner(x, coefficients[0]) / horner(x, coefficients[1])

    near = tf.clip_by_value(centered, -0.425, 0.425)
    inner = near * ratio(0.180625 - near * near, PROBIT_CENTER)
    depth = tf.sqrt(tf.maximum(-log_tail, 1.0))
    size = tf.where(
        depth <= 5.0,
        ratio(tf.minimum(depth, 5.0) - 1.6, PROBIT_TAIL),
        ratio(tf.maximum(depth, 5.0) - 5.0, PROBIT_FAR_TAIL),
    )
    outer = tf.where(centered < 0.0, -size, size)
    return tf.where(tf.abs(centered) <= 0.425, inner, outer)
