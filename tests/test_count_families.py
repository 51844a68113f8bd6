"""Families of counts against their limits, by enumeration and where float32 would cancel."""

import itertools

import keras
import mpmath
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import tensorflow as tf
from scipy import stats

import keras_vae
from keras_vae import random
from keras_vae.distributions import counts
from tests.models import maximise


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


def test_ordinal_levels_begin_equally_probable_and_are_a_categorical_of_their_probabilities():
    ordinal = keras_vae.Ordinal(3, levels=5, dtype="float64")
    p = ordinal.make_distribution(tf.zeros([3], tf.float64), **ordinal.shared_parameters())
    for level in range(5):
        np.testing.assert_allclose(
            p.log_prob(np.full(3, float(level))), 3 * np.log(0.2), rtol=1e-12
        )
    location = tf.constant([-1.0, 0.3, 2.5], tf.float64)
    p = ordinal.make_distribution(location, **ordinal.shared_parameters())
    each = np.stack([p.distribution.log_prob(np.full(3, float(level))) for level in range(5)], -1)
    categorical = keras_vae.Categorical((3, 5), dtype="float64").make_distribution(
        tf.constant(each)
    )
    x = np.array([4, 0, 2])
    expected = categorical.log_prob(np.eye(5)[x])
    np.testing.assert_allclose(p.log_prob(x.astype(float)), expected, rtol=1e-12)


def test_ordinal_regression_recovers_location_and_thresholds():
    """The layer without latents, trained, is the cumulative logit model of the data."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 1))
    y = ((1.5 * x + rng.logistic(size=x.shape)) > np.array([-1.0, 0.5, 2.0])).sum(1).astype(float)

    def loss(parameters):
        slope, first, *steps = parameters
        cuts = np.cumsum([first, *np.exp(steps)])
        cdf = scipy.special.expit([[-np.inf, *cuts, np.inf]] - slope * x)
        return -np.log(np.diff(cdf)[np.arange(len(y)), y.astype(int)]).sum()

    best = scipy.optimize.minimize(loss, np.zeros(4), method="BFGS")
    cuts = np.cumsum([best.x[1], *np.exp(best.x[2:])])
    head = keras.layers.Dense(1, use_bias=False, dtype="float64")
    layer = keras_vae.Ordinal(1, levels=4, head=head, dtype="float64")
    layer.build((None, 1))
    maximise(layer, tf.constant(x), tf.constant(y[:, None]))
    np.testing.assert_allclose(np.ravel(head.kernel), best.x[:1], atol=1e-4)
    np.testing.assert_allclose(np.ravel(layer.shared_parameters()["thresholds"]), cuts, atol=1e-4)


def test_multinomial_draws_have_the_probabilities_of_all_their_values():
    logits, n = np.array([0.3, -1.0, 0.0, 1.2, -0.4], np.float32), 3
    u = random.uniform(random.row_seeds(3, 40_000), (random.splits(5),), stream=random.OBSERVATION)
    draws = random.multinomial(u, tf.constant(float(n)), tf.constant(logits)).numpy()
    values = [
        np.eye(5)[list(drawn)].sum(0)
        for drawn in itertools.combinations_with_replacement(range(5), n)
    ]
    p = scipy.special.softmax(logits.astype(float))
    expected = np.array([stats.multinomial(n, p).pmf(value) for value in values]) * len(draws)
    observed = [np.all(draws == value, axis=1).sum() for value in values]
    assert sum(observed) == len(draws)
    assert stats.chisquare(observed, expected * len(draws) / expected.sum()).pvalue > 1e-4


def test_multinomial_takes_the_number_of_trials_from_the_condition():
    layer = keras_vae.Multinomial((2, 3), network=keras.layers.Dense(4), offset=True)
    c = [tf.random.stateless_normal([5, 2], [0, 1]), np.log([[7.0], [1.0], [3.0], [2.0], [40.0]])]
    parameters = layer.parameters(c)
    np.testing.assert_array_equal(parameters["total_count"][:, 0], [7, 1, 3, 2, 40])
    draws = layer.draw_rows(random.row_seeds(1, 5), **parameters)
    for counts_ in (draws, layer.distribution(c).mean()):
        np.testing.assert_allclose(tf.reduce_sum(counts_, -1), parameters["total_count"], rtol=1e-6)
    with pytest.raises(ValueError, match="need the number of trials"):
        keras_vae.Multinomial(3)
    with pytest.raises(ValueError, match="condition that is a vector"):
        layer.parameters(c[0])
