"""Families of counts against their limits, by enumeration and where float32 would cancel."""

import mpmath
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_vae.distributions import counts


def test_negative_binomial_becomes_poisson_with_an_error_of_order_one_over_the_dispersion():
    x, log_mean = np.arange(30.0), np.log(7.3)
    limit = stats.poisson(7.3).logpmf(x)
    for t in (1e4, 1e6):
        found = counts.negative_binomial_log_prob(
            tf.constant(x), tf.constant(log_mean, tf.float64), tf.constant(t, tf.float64)
        )
        first_order = ((x - 7.3) ** 2 - x) / 2.0
        # The next order is below x^3 / t^2 = 27 000 / t^2.
        np.testing.assert_allclose((found - limit) * t, first_order, atol=3e4 / t + 1e-9 * t)


def test_beta_binomial_becomes_binomial_with_an_error_of_order_one_over_the_concentration():
    x, n, p = np.arange(31.0), 30.0, 0.3
    limit = stats.binom(30, p).logpmf(x)
    for s in (1e4, 1e6):
        shapes = (tf.constant(s * each, tf.float64) for each in (p, 1.0 - p))
        found = counts.beta_binomial_log_prob(tf.constant(x), tf.constant(n, tf.float64), *shapes)
        by_p = [x * (x - 1.0) / p, (n - x) * (n - x - 1.0) / (1.0 - p), -n * (n - 1.0)]
        np.testing.assert_allclose((found - limit) * s, sum(by_p) / 2.0, atol=1e6 / s + 1e-9 * s)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_probability_of_zero_of_inflated_counts_keeps_its_digits(dtype):
    """Chances of an excess zero and of any count range from certain to all but impossible."""
    gate, log_zero = np.meshgrid(
        np.array([-1e4, -90.0, -20.0, -1.0, 0.0, 1.0, 20.0, 90.0, 1e4], dtype),
        -np.array([0.0, 1e-30, 1e-6, 0.1, 0.7, 1.0, 20.0, 90.0, 1e4], dtype),
    )
    gate_, log_zero_ = tf.constant(gate), tf.constant(log_zero)
    with tf.GradientTape() as tape:
        tape.watch([gate_, log_zero_])
        found = counts.zero_inflated_zero(log_zero_, gate_)
    by_gate, by_zero = tape.gradient(found, [gate_, log_zero_])
    exact, slopes = [], []
    with mpmath.workdps(60):
        for logit, log_p in zip(map(float, gate.flat), map(float, log_zero.flat), strict=True):
            odds, p = mpmath.exp(logit), mpmath.exp(log_p)
            lost = mpmath.expm1(log_p) / (odds + 1)
            exact.append(
                float(
                    mpmath.log1p(lost) if lost > -0.5 else mpmath.log(odds + p) - mpmath.log1p(odds)
                )
            )
            slopes.append([float(odds / (odds + p) - odds / (odds + 1)), float(p / (odds + p))])
    # Each number is a product or sum of three functions that are within 2.5 units.
    eps = 16 * np.finfo(dtype).eps
    np.testing.assert_allclose(found.numpy().ravel(), exact, rtol=eps, atol=1e-37)
    np.testing.assert_allclose(by_gate.numpy().ravel(), [s for s, _ in slopes], rtol=0, atol=eps)
    np.testing.assert_allclose(by_zero.numpy().ravel(), [s for _, s in slopes], rtol=0, atol=eps)
