"""Densities of real numbers at extreme parameters, their moments, and regressions with them.

The unit is eps of 1 + |log p| + sum |d| (1 + |parameter|) over the parameters, d the derivative of
log p by one: the rounding of the result and of the parameters, as in test_accuracy.py.
"""

import mpmath
import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize, special, stats

import keras_vae
from keras_vae import random
from keras_vae.data import DataError
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare
from keras_vae.distributions import densities, density_families, supports
from tests.registry import TRUNCATED

UNITS = 12.0  # measured 9.1, where log scale and the log of the mass, 9.2 each, cancel
NUMBER = mpmath.mpf


def log_gamma(x, log_mean, k):
    m = mpmath.exp(log_mean)
    return k * mpmath.log(k / m) - mpmath.loggamma(k) + (k - 1) * mpmath.log(x) - k * x / m


def log_beta(x, logits, c):
    m, rest = 1 / (1 + mpmath.exp(-logits)), 1 / (1 + mpmath.exp(logits))
    constant = mpmath.loggamma(c) - mpmath.loggamma(c * m) - mpmath.loggamma(c * rest)
    return constant + (c * m - 1) * mpmath.log(x) + (c * rest - 1) * mpmath.log1p(-x)


def log_student_t(x, df, loc, scale):
    z = (x - loc) / scale
    constant = (
        mpmath.loggamma((df + 1) / 2) - mpmath.loggamma(df / 2) - mpmath.log(df * mpmath.pi) / 2
    )
    return constant - mpmath.log(scale) - (df + 1) / 2 * mpmath.log1p(z * z / df)


def log_truncated_normal(low, high):
    def log_prob(x, loc, scale):
        a, b = ((NUMBER(end) - loc) / scale / mpmath.sqrt(2) for end in (low, high))
        ends = (a, b) if a > 0 else (-b, -a)
        mass = (mpmath.erfc(ends[0]) - mpmath.erfc(ends[1])) / 2
        z = (x - loc) / scale
        return -z * z / 2 - mpmath.log(scale * mass) - mpmath.log(2 * mpmath.pi) / 2

    return log_prob


def gamma_case(mean, k):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.gamma(k, mean / k, 6), 1e-30)
    return densities.gamma_log_prob, log_gamma, (x, np.log(mean) + 0.1 * rng.normal(size=6), k)


def beta_case(logits, c):
    rng = np.random.default_rng(0)
    logits = logits + 0.1 * rng.normal(size=6)
    x = rng.beta(c * special.expit(logits), c * special.expit(-logits))
    return densities.beta_log_prob, log_beta, (np.clip(x, 1e-30, 1 - 2.0**-24), logits, c)


def student_case(df):
    x = np.append(3 * np.random.default_rng(0).standard_t(max(df, 1.0), 5), 1e4)
    return densities.student_t_log_prob, log_student_t, (x, df, 1.0, 3.0)


def truncated_case(loc, scale, low, high):
    x = np.random.default_rng(0).uniform(max(low, -5.0), min(high, 5.0), 6)
    x[:2] = max(low, -5.0), min(high, 5.0)

    def log_prob(x, loc, scale):
        return densities.truncated_normal_log_prob(x, loc, scale, low, high)

    return log_prob, log_truncated_normal(low, high), (x, loc, scale)


CASES = {
    **{f"gamma {m:g} {k:g}": gamma_case(m, k) for m in (1e-3, 1e4) for k in (0.01, 2.9, 7.9, 1e6)},
    **{f"beta {m:g} {c:g}": beta_case(m, c) for m in (-6.0, 0.0, 3.0) for c in (0.01, 3.0, 1e6)},
    **{f"student_t {df:g}": student_case(df) for df in (0.1, 5.9, 16.0, 1e6)},
    **{f"truncated {parameters}": truncated_case(*parameters) for parameters in TRUNCATED},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_densities_and_their_slopes_are_accurate(name, dtype):
    log_prob, exact, inputs = CASES[name]
    inputs = [np.asarray(part, dtype) for part in np.broadcast_arrays(*inputs)]
    x, *parameters = map(tf.constant, inputs)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        found = log_prob(x, *parameters)
    slopes = tape.gradient(found, parameters)
    rows = list(zip(*(part.astype(float) for part in inputs), strict=True))
    with mpmath.workdps(50):
        expected = np.array([float(exact(*map(NUMBER, row))) for row in rows])
        exact_slopes = [[slope(exact, row, i) for row in rows] for i in range(1, len(inputs))]
    size = 1.0 + np.abs(expected)
    for parameter, by_parameter in zip(inputs[1:], exact_slopes, strict=True):
        size = size + np.abs(by_parameter) * (1.0 + np.abs(parameter))
    eps = np.finfo(dtype).eps
    assert np.max(np.abs(found - expected) / size) <= UNITS * eps
    for slope_, by_parameter in zip(slopes, exact_slopes, strict=True):
        # The parameter is rounded by eps, which a slope of a slope of k = 1e6 magnifies by 1000.
        np.testing.assert_allclose(slope_, by_parameter, rtol=2e4 * eps, atol=50 * eps * size.max())


def slope(function, row, index):
    step = max(abs(NUMBER(row[index])), NUMBER(10) ** -8) * NUMBER(10) ** -15
    ends = []
    for sign in (1, -1):
        moved = list(map(NUMBER, row))
        moved[index] += sign * step
        ends.append(function(*moved))
    return float((ends[0] - ends[1]) / (2 * step))


@pytest.mark.parametrize("parameters", TRUNCATED)
def test_truncated_normal_has_its_moments_and_its_distribution_function(parameters):
    loc, scale, low, high = parameters
    ours = density_families.TruncatedNormal(
        tf.constant(loc, tf.float64), tf.constant(scale, tf.float64), low, high
    )
    near, far = max(low, -30.0), min(high, 30.0)
    centre = min(max(loc, near), far)

    reach = max(centre - 4.0 * scale, near), min(centre + 4.0 * scale, far)

    def weighted(function):
        def integrand(x):
            exponent = ((centre - loc) ** 2 - (x - loc) ** 2) / (2 * NUMBER(scale) ** 2)
            return function(x) * mpmath.exp(exponent)

        return mpmath.quad(integrand, sorted({near, centre, *reach, far}))

    mass = weighted(lambda x: 1)
    mean = weighted(lambda x: x) / mass
    stddev = mpmath.sqrt(weighted(lambda x: (x - mean) ** 2) / mass)
    # 32 nodes over 14 standard deviations.
    assert float(ours.mean()) == pytest.approx(float(mean), rel=1e-9, abs=1e-9 * float(stddev))
    assert float(ours.stddev()) == pytest.approx(float(stddev), rel=1e-8)
    exact = stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)
    u = np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(ours.cdf(exact.ppf(u)), u, atol=1e-9)  # of SciPy's quantile


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (-1.0, None), (None, 2.0)])
@pytest.mark.parametrize("loc", [-40.0, -1.0, 0.3, 2.0, 40.0])
def test_mean_of_a_censored_normal_is_the_integral_of_its_quantiles(low, high, loc):
    layer = keras_vae.CensoredNormal(1, low=low, high=high, scale=1.5, dtype="float64")
    found = layer.make_distribution(np.array([loc]), 1.5).mean()
    ends = [-np.inf if low is None else low, np.inf if high is None else high]
    u = (np.arange(100_000) + 0.5) / 100_000
    x = np.clip(loc + 1.5 * special.ndtri(u), *ends)
    assert float(found[0]) == pytest.approx(np.mean(x), abs=2e-5)  # of the tails of the quantile


@pytest.mark.parametrize(
    ("ours", "exact"),
    [
        (density_families.Gamma(np.log(3.0), 2.5), stats.gamma(2.5, scale=3.0 / 2.5)),
        (density_families.LogNormal(0.3, 0.7), stats.lognorm(0.7, scale=np.exp(0.3))),
        (density_families.StudentT(4.5, 1.0, 2.0), stats.t(4.5, 1.0, 2.0)),
        (
            density_families.Beta(0.4, 3.0),
            stats.beta(3 * special.expit(0.4), 3 * special.expit(-0.4)),
        ),
    ],
    ids=["gamma", "log_normal", "student_t", "beta"],
)
def test_moments_and_distribution_functions_are_those_of_scipy(ours, exact):
    found = [ours.mean(), ours.stddev(), ours.variance(), *ours.cdf(np.float32([0.1, 0.5, 0.9]))]
    expected = [exact.mean(), exact.std(), exact.var(), *exact.cdf([0.1, 0.5, 0.9])]
    np.testing.assert_allclose(found, expected, rtol=3e-6)  # float32


def test_one_limit_far_away_is_no_limit_and_a_wide_scale_is_uniform():
    x = tf.constant(np.linspace(-1.0, 3.0, 9))
    loc, scale = tf.constant(0.5, tf.float64), tf.constant(2.0, tf.float64)
    near = densities.truncated_normal_log_prob(x, loc, scale, -1.0, np.inf)
    far = densities.truncated_normal_log_prob(x, loc, scale, -1.0, 60.0)
    np.testing.assert_allclose(near, far, atol=1e-14)
    uniform = densities.truncated_normal_log_prob(x, loc, 1e9 * scale, -1.0, 3.0)
    np.testing.assert_allclose(uniform, -np.log(4.0), atol=1e-14)


def test_a_student_t_of_many_degrees_of_freedom_is_normal():
    x, df = np.linspace(-4.0, 4.0, 9), 1e5
    found = densities.student_t_log_prob(
        tf.constant(x), *(tf.constant(part, tf.float64) for part in (df, 0.0, 1.0))
    )
    first_order = (x**4 - 2.0 * x**2 - 1.0) / 4.0
    # The next order is below x^6 / df.
    np.testing.assert_allclose((found - stats.norm.logpdf(x)) * df, first_order, atol=4096 / df)


@pytest.mark.parametrize("low", [None, 0.0])
@pytest.mark.parametrize("cls", [keras_vae.TruncatedNormal, keras_vae.CensoredNormal])
def test_limits_start_the_parameters(cls, low):
    layer = cls(2, low=low, high=4.0)
    parameters = layer.parameters(tf.zeros([1, 3]))
    np.testing.assert_allclose(parameters["loc"], [[4.0 if low is None else 2.0] * 2])
    np.testing.assert_allclose(parameters["scale"], [1.0] * 2, rtol=2e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras_vae.Gamma(2, concentration=0.0), "`concentration`. Expected a positive"),
        (
            lambda: keras_vae.Beta(2, concentration="optimal"),
            "`concentration`. Expected a positive",
        ),
        (lambda: keras_vae.StudentT(2, df=True), "`df`. Expected a positive"),
        (lambda: keras_vae.StudentT(2, scale="optimal"), "`scale`. Expected a positive"),
        (lambda: keras_vae.LogNormal(2, scale="optimal"), "`scale`. Expected a positive"),
        (lambda: keras_vae.TruncatedNormal(2), "limits low < high, or one of them"),
        (lambda: keras_vae.TruncatedNormal(2, low=1.0, high=1.0), "limits low < high"),
        (lambda: keras_vae.CensoredNormal(2, low=np.inf), "`low`. Expected a finite number"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "support",
    [
        supports.reals(),
        supports.positive(),
        supports.open_unit_interval(),
        supports.unit_interval(),
        supports.integers(),
        supports.binary(),
        supports.interval(3.0, 5.0),
        supports.interval(None, -2.0),
        supports.interval(2.0, None, has_masses=True),
    ],
    ids=lambda support: support.description,
)
def test_the_number_inside_a_support_is_inside(support):
    assert bool(support.contains(tf.constant(support.inside)))


@pytest.mark.parametrize(
    ("support", "outside"),
    [
        (supports.positive(), 0.0),
        (supports.positive(), np.inf),
        (supports.open_unit_interval(), 1.0),
        (supports.interval(3.0, 5.0), 2.99),
        (supports.interval(None, -2.0), -1.99),
    ],
)
def test_data_outside_a_support_is_refused(support, outside):
    support.check(np.float32([[support.inside]]), "Family")
    with pytest.raises(DataError, match="Family"):
        support.check(np.float32([[support.inside], [outside]]), "Family")


def test_positive_data_is_divided_by_its_mean():
    rng = np.random.default_rng(0)
    raw = np.stack([1e4 * rng.gamma(2.0, 1.0, 300), rng.integers(1, 9, 300)], axis=1)
    for family in (keras_vae.Gamma, keras_vae.LogNormal):
        preparation, _ = prepare(family, raw, names=("income", "rooms"))
        assert preparation.whole == (False, True)
        assert np.all(preparation.array(raw) > 0.0)
        np.testing.assert_allclose(preparation.mean(raw), 1.0, rtol=1e-6)
        assert not family.starts_at_mean(preparation)
        with pytest.raises(DataError, match="'rooms' reaches down to 0"):
            prepare(family, raw * [1.0, 0.0], names=("income", "rooms"))


def test_proportions_are_taken_without_their_ends():
    x = np.array([[0.2, 0.9], [0.5, 0.1]])
    assert prepare(keras_vae.Beta, x) == (Preparation(), {})
    preparation, _ = prepare(keras_vae.Beta, 100.0 * x, top=100.0)
    np.testing.assert_allclose(preparation.array(100.0 * x), x, rtol=1e-6)
    for wrong in (np.round(x), 100.0 * x):
        with pytest.raises(DataError, match="Choose --likelihood continuous_bernoulli"):
            prepare(keras_vae.Beta, wrong)


def test_limits_are_those_of_the_data():
    x = np.array([[3.0, 9.5], [4.0, 5.5]])
    for family in (keras_vae.TruncatedNormal, keras_vae.CensoredNormal):
        preparation, options = prepare(family, x)
        assert preparation == Preparation()
        assert options == {"low": 3.0, "high": 9.5, "scale": "per_feature"}


def test_draws_start_at_the_mean_that_is_asked_for():
    for layer in (
        keras_vae.Gamma(3),
        keras_vae.Beta(3),
        keras_vae.LogNormal(3),
        keras_vae.LogNormal(3, scale=0.5),
        keras_vae.StudentT(3),
    ):
        mean = np.array([0.2, 0.5, 0.9])
        raw = tf.constant(layer.raw_mean(mean)[None], tf.float32)
        first = next(iter(layer.parameter_specs().values()))
        parameters = {
            next(iter(layer.parameter_specs())): first.transform(raw),
            **layer.shared_parameters(),
        }
        found = layer.make_distribution(**parameters).mean()[0]
        np.testing.assert_allclose(found, mean, rtol=1e-5)


def fitted(layer, covariates, y):
    """Maximises the likelihood of a layer without a network over all of its weights."""
    x = tf.constant(covariates)
    layer.build(x.shape)
    weights = layer.trainable_weights
    sizes = [int(np.prod(weight.shape)) for weight in weights]

    @tf.function
    def terms():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(layer.distribution(x).log_prob(y))
        return loss, tape.gradient(loss, weights)

    def objective(flat):
        for weight, part in zip(weights, np.split(flat, np.cumsum(sizes)[:-1]), strict=True):
            weight.assign(part.reshape(weight.shape))
        loss, gradients = terms()
        return float(loss), np.concatenate([np.ravel(part) for part in gradients])

    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 500}
    optimize.minimize(objective, np.zeros(sum(sizes)), jac=True, options=options, method="L-BFGS-B")
    return np.concatenate([layer.head.bias, layer.head.kernel[:, 0]])


def regression(seed):
    rng = np.random.default_rng(seed)
    covariates = rng.normal(size=(400, 2))
    design = np.column_stack([np.ones(400), covariates])
    return rng, covariates, design, design @ [0.3, 0.8, -0.5]


def test_gamma_regression_solves_the_score_equations():
    rng, covariates, design, log_mean = regression(0)
    y = rng.gamma(3.0, np.exp(log_mean) / 3.0)
    layer = keras_vae.Gamma(1, concentration="learned", dtype="float64")
    found = fitted(layer, covariates, y[:, None])
    k = float(layer.shared_parameters()["concentration"])

    def score(parameters):
        *coefficients, log_k = parameters
        ratio = y / np.exp(design @ coefficients)
        gain = log_k - special.digamma(np.exp(log_k)) - np.mean(ratio - 1.0 - np.log(ratio))
        return [*(design.T @ (ratio - 1.0)), gain]

    solution = optimize.root(score, [0.0, 0.0, 0.0, 0.0], tol=1e-12)
    assert solution.success
    np.testing.assert_allclose([*found, np.log(k)], solution.x, atol=1e-6)  # of L-BFGS
    assert np.max(np.abs(found - [0.3, 0.8, -0.5])) < 5 / np.sqrt(3.0 * 400)  # 5 standard errors


def test_beta_regression_solves_the_score_equations():
    """Ferrari and Cribari-Neto (2004), Beta regression for modelling rates and proportions."""
    rng, covariates, design, logits = regression(1)
    mean, c = special.expit(logits), 12.0
    y = rng.beta(c * mean, c * (1.0 - mean))
    layer = keras_vae.Beta(1, concentration="learned", dtype="float64")
    found = fitted(layer, covariates, y[:, None])

    def score(parameters):
        *coefficients, log_c = parameters
        c, logits = np.exp(log_c), design @ coefficients
        a, b = c * special.expit(logits), c * special.expit(-logits)
        excess = special.logit(y) - special.digamma(a) + special.digamma(b)
        slope = special.expit(logits) * special.expit(-logits)
        gain = special.expit(logits) * excess + np.log1p(-y) - special.digamma(b)
        return [*(design.T @ (slope * excess)), np.mean(gain) + special.digamma(c)]

    solution = optimize.root(score, [0.0, 0.0, 0.0, 1.0], tol=1e-12)
    assert solution.success
    concentration = float(layer.shared_parameters()["concentration"])
    np.testing.assert_allclose([*found, np.log(concentration)], solution.x, atol=1e-6)
    assert (
        np.max(np.abs(found - [0.3, 0.8, -0.5])) < 0.25
    )  # 5 standard errors of 1 / sqrt(12 * 0.2)


def test_noise_of_several_uniforms_keeps_rows_apart():
    layer = keras_vae.Beta((2, 3))
    seeds = random.row_seeds(3, 5)
    parameters = {"logits": tf.zeros([5, 2, 3]), "concentration": tf.constant(2.0)}
    draws = layer.draw_rows(seeds, **parameters)
    alone = layer.draw_rows(seeds[3:4], **{**parameters, "logits": tf.zeros([1, 2, 3])})
    np.testing.assert_allclose(draws[3:4], alone, rtol=3e-7)  # vectors and the rest differ
