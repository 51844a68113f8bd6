"""Draws of gamma, beta and Student-t variables: smooth functions of a few uniforms each."""

import math

import tensorflow as tf

from keras_vae.random.elementary import expm1, horner, log, sqrt
from keras_vae.random.normal_tails import quantile
from keras_vae.random.philox import Tensor

__all__ = ["beta", "gamma", "student_t"]

_BOOST = 3
GAMMA_UNIFORMS = 1 + _BOOST
"""Uniforms of one gamma draw."""
BETA_UNIFORMS = 2 * GAMMA_UNIFORMS
"""Uniforms of one beta draw."""
STUDENT_UNIFORMS = 2
"""Uniforms of one Student-t draw."""

_SMALLEST = 2.0**-126
_LARGEST_BELOW_ONE = 1.0 - 2.0**-24
_LARGEST_EXPONENT = 80.0

# log(quantile / k) of Gamma(k), k >= 3, as sum_i k^-i P_i(e), e = z / sqrt(k) and z the normal
# quantile of u: fitted with equal weight to errors in z over |z| <= 5.42, by at most 1.3e-7.
_LOG_QUANTILE = (
    (
        0.0,
        0.999999977,
        -0.166666659,
        0.0277779406,
        -0.00370400089,
        0.000231685076,
        5.92609044e-05,
        -2.61043501e-05,
        4.6490307e-06,
        1.48273873e-07,
        -1.28642308e-07,
        -5.20152928e-08,
        -2.15380615e-08,
        2.37244252e-08,
        1.01307858e-09,
        -2.73297942e-09,
        9.13567814e-11,
        1.43672343e-10,
        -9.14932649e-12,
        -3.00765425e-12,
        2.61788496e-13,
    ),
    (
        -0.333333029,
        0.138891265,
        -0.0364133941,
        0.00594890447,
        -0.000116371056,
        -0.000284528235,
        0.000112041537,
        -2.92911569e-05,
        1.11608222e-06,
        3.81370777e-06,
        -1.07074062e-06,
        -1.73483477e-07,
        8.26424336e-08,
        3.19091721e-09,
        -2.74516773e-09,
    ),
    (
        -0.0358184737,
        0.0154193062,
        -0.00206301592,
        -0.000947538867,
        0.000764491169,
        -0.000274943908,
        4.4866187e-06,
        3.35550504e-05,
        -8.78352575e-06,
        -1.0552757e-06,
        5.62289797e-07,
    ),
    (
        0.00162191396,
        -0.00305506567,
        0.0022681921,
        -0.000929390289,
        -8.22036221e-06,
        0.000148085581,
        -6.18668268e-06,
        -8.38438836e-06,
    ),
    (
        0.00133838451,
        -0.000352650029,
        -0.000320110759,
        0.000386924917,
        -0.000150018165,
    ),
)


def gamma(u: Tensor, concentration: Tensor) -> Tensor:
    """Draws from gamma distributions of mean 1.

    For k >= 3 the first uniform is inverted by Temme's expansion of the quantile in 1 / k. A
    smaller k is raised by 3 and the draw multiplied by U^(1/k) U'^(1/(k+1)) U''^(1/(k+2)), which
    makes it exactly a draw of k. The distribution function at a draw is within 1e-6 of that of
    exact arithmetic.

    Source: Temme (1992), Asymptotic inversion of incomplete gamma functions.

    Args:
        u: Uniforms in (0, 1), float32 `[..., 4]`.
        concentration: Positive number k of a shape that broadcasts to `[...]`; the variance is
            1 / k.

    Returns:
        float32 `[...]`, at least 2^-126.
    """
    return tf.maximum(tf.exp(_log_gamma(u, concentration)), _SMALLEST)


def _log_gamma(u: Tensor, concentration: Tensor) -> Tensor:
    """Computes the logarithm of `gamma`, also where that underflows."""
    k = tf.broadcast_to(concentration, tf.shape(u)[:-1])
    is_small = k < float(_BOOST)
    raised = tf.where(is_small, k + float(_BOOST), k)
    first = u[..., 0]
    log_tail = log(tf.minimum(first, 1.0 - first), largest_shift=64)
    inverse = 1.0 / raised
    e = quantile(first - 0.5, log_tail) * sqrt(inverse)
    direct = horner(inverse, [horner(e, polynomial) for polynomial in _LOG_QUANTILE])

    boost = sum(log(u[..., 1 + i], largest_shift=64) / (k + float(i)) for i in range(_BOOST))
    return tf.where(is_small, direct + boost + tf.math.log(raised / k), direct)


def beta(u: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Draws from beta distributions: X / (X + Y) for X of Gamma(a) and Y of Gamma(b).

    Args:
        u: Uniforms in (0, 1), float32 `[..., 8]`.
        a, b: Positive numbers of shapes that broadcast to `[...]`.

    Returns:
        float32 `[...]`, from 2^-126 to 1 - 2^-24.
    """
    hits = _log_gamma(u[..., :GAMMA_UNIFORMS], a)
    misses = _log_gamma(u[..., GAMMA_UNIFORMS:], b)
    draw = tf.sigmoid(tf.math.log(a / b) + (hits - misses))
    return tf.clip_by_value(draw, _SMALLEST, _LARGEST_BELOW_ONE)


def student_t(u: Tensor, df: Tensor) -> Tensor:
    """Draws from Student-t distributions by polar coordinates, exactly for any df.

    sqrt(df (U^(-2/df) - 1)) cos(2 pi V) has the distribution, as Box and Muller's formula, its
    limit, has the normal one. The radius is cut off at sqrt(df) e^40.

    Source: Bailey (1994), Polar generation of random variates with the t-distribution.

    Args:
        u: Uniforms in (0, 1), float32 `[..., 2]`.
        df: Degrees of freedom, positive, of a shape that broadcasts to `[...]`.

    Returns:
        float32 `[...]`, finite.
    """
    df = tf.broadcast_to(df, tf.shape(u)[:-1])
    exponent = -2.0 * log(u[..., 0], largest_shift=64) / df
    radius = sqrt(df * expm1(tf.minimum(exponent, _LARGEST_EXPONENT)))
    turn = u[..., 1] - 0.5
    odd = [(-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(9)]
    sine = turn * horner(turn * turn, odd)  # of half the angle
    return radius * (2.0 * sine * sine - 1.0)
