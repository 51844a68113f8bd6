"""Regressions as R has them, by likelihoods without latents, and sizes of rows in whole models."""

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import tensorflow as tf
from scipy import stats

import keras_vae
from tests.models import maximise

RNG = np.random.default_rng(7)
X = RNG.normal(size=(1500, 2))
GROUP = np.eye(2)[RNG.integers(2, size=1500)]
LOG_SIZE = RNG.normal(1.0, 0.5, size=(1500, 1))
FEATURES = np.concatenate([X, GROUP], axis=1)
MEAN = np.exp(FEATURES @ [0.5, -0.3, 0.2, 0.9] + LOG_SIZE[:, 0])
DISPERSION = GROUP @ [0.8, 4.0]
COUNTS = RNG.poisson(RNG.gamma(DISPERSION, MEAN / DISPERSION)).astype(float)
OPEN = RNG.random(1500) > scipy.special.expit(X[:, 0] - 0.5)

NEAR = 2e-4
"""The curvature of the log-likelihoods is above 1e-2 per row, and slopes end below 1e-6."""


def optimum(log_likelihood, size):
    """Maximises with SciPy's own distributions, whose slopes are differences."""
    best = scipy.optimize.minimize(lambda p: -log_likelihood(p).mean(), np.zeros(size), tol=1e-9)
    return best.x, -best.fun


def nbinom(log_mean, log_dispersion):
    t = np.exp(log_dispersion)
    return stats.nbinom(t, t / (t + np.exp(log_mean)))


def test_negative_binomial_regression_with_offset_and_a_dispersion_per_group():
    """R: MASS::glm.nb(y ~ x + group + offset(log_size)), with one theta for each group."""

    def log_likelihood(p):
        return nbinom(FEATURES @ p[:4] + LOG_SIZE[:, 0], GROUP @ p[4:]).logpmf(COUNTS)

    expected, best = optimum(log_likelihood, 6)
    head = keras.layers.Dense(1, use_bias=False, dtype="float64")
    layer = keras_vae.NegativeBinomial(
        1, head=head, offset=True, dispersion="per_group", num_groups=2, dtype="float64"
    )
    c = [tf.constant(X), tf.constant(np.concatenate([GROUP, LOG_SIZE], axis=1))]
    found = maximise(layer, c, tf.constant(COUNTS[:, None]))
    np.testing.assert_allclose(np.ravel(head.kernel), expected[:4], atol=NEAR)
    np.testing.assert_allclose(np.ravel(layer.log_dispersion), expected[4:], atol=NEAR)
    assert found == pytest.approx(best, abs=1e-8)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_zero_inflated_regression(family):
    """R: pscl::zeroinfl(y ~ x + group + offset(log_size) | x + group, dist = ...)."""
    x = OPEN * (COUNTS if family == "negative_binomial" else RNG.poisson(MEAN).astype(float))
    cls = {
        "poisson": keras_vae.ZeroInflatedPoisson,
        "negative_binomial": keras_vae.ZeroInflatedNegativeBinomial,
    }[family]
    options = {} if family == "poisson" else {"dispersion": "learned"}

    def log_likelihood(p):
        log_mean, gate = FEATURES @ p[:4] + LOG_SIZE[:, 0], FEATURES @ p[4:8]
        counts = stats.poisson(np.exp(log_mean)) if len(p) == 8 else nbinom(log_mean, p[8])
        log_closed, log_open = -np.logaddexp(0.0, -gate), -np.logaddexp(0.0, gate)
        own = log_open + counts.logpmf(x)
        return np.where(x == 0, np.logaddexp(log_closed, own), own)

    expected, best = optimum(log_likelihood, 8 + len(options))
    head = keras.layers.Dense(2, use_bias=False, dtype="float64")
    layer = cls(1, head=head, offset=True, dtype="float64", **options)
    c = [tf.constant(FEATURES), tf.constant(LOG_SIZE)]
    found = maximise(layer, c, tf.constant(x[:, None]))
    np.testing.assert_allclose(np.ravel(np.transpose(head.kernel)), expected[:8], atol=NEAR)
    if options:
        assert float(layer.log_dispersion.value) == pytest.approx(expected[8], abs=NEAR)
    assert found == pytest.approx(best, abs=1e-8)


def test_beta_binomial_regression():
    """R: VGAM::vglm(cbind(y, n - y) ~ x + group, betabinomial)."""
    p = scipy.special.expit(FEATURES @ [0.5, -0.3, 0.2, -0.9])
    x = RNG.binomial(12, RNG.beta(5.0 * p, 5.0 * (1.0 - p))).astype(float)

    def log_likelihood(weights):
        mean, s = scipy.special.expit(FEATURES @ weights[:4]), np.exp(weights[4])
        return stats.betabinom(12, s * mean, s * (1.0 - mean)).logpmf(x)

    expected, best = optimum(log_likelihood, 5)
    head = keras.layers.Dense(1, use_bias=False, dtype="float64")
    layer = keras_vae.BetaBinomial(
        1, head=head, total_count=12, concentration="learned", dtype="float64"
    )
    found = maximise(layer, tf.constant(FEATURES), tf.constant(x[:, None]))
    np.testing.assert_allclose(np.ravel(head.kernel), expected[:4], atol=NEAR)
    assert float(layer.log_concentration.value) == pytest.approx(expected[4], abs=NEAR)
    assert found == pytest.approx(best, abs=1e-8)


def sized_vae(likelihood="negative_binomial", **options):
    """Makes a model of 6 counts whose condition is a group of two and the logarithm of the size."""
    keras.utils.set_random_seed(0)
    options = {"hidden": (8,), "offset": True, **options}
    return keras_vae.mlp_vae(6, 2, likelihood, condition_shape=3, **options)


def sized_data(n=200):
    rng = np.random.default_rng(3)
    group, log_size = np.eye(2)[rng.integers(2, size=n)], rng.normal(3.0, 0.5, size=(n, 1))
    x = rng.poisson(np.exp(log_size) * rng.dirichlet(np.ones(6), size=n)).astype("float32")
    return {"x": x, "condition": np.concatenate([group, log_size], axis=1).astype("float32")}


@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial", "multinomial"])
def test_the_size_of_a_row_goes_through_the_whole_model(likelihood):
    share = {} if likelihood == "multinomial" else {"link": "softmax"}
    grouped = {"dispersion": "per_group", "num_groups": 2}
    vae = sized_vae(likelihood, **share, **(grouped if likelihood == "negative_binomial" else {}))
    data = sized_data()
    if likelihood == "multinomial":
        data["condition"][:, -1] = np.log(data["x"].sum(1))
    vae.compile(keras.optimizers.Adam(0.01))
    losses = vae.fit(data, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert np.isfinite(vae.elbo(data, seed=0).elbo).all()
    z, condition = np.zeros([2, 2], "float32"), data["condition"][[0, 0]]
    condition[1, -1] = condition[0, -1] + np.log(2.0)
    means = vae.decode(z, condition).mean().numpy()
    rounded = 2e-2 if likelihood == "multinomial" else 1e-5  # to whole trials
    np.testing.assert_allclose(means[1], 2.0 * means[0], rtol=rounded)
    np.testing.assert_allclose(means[0].sum(), np.exp(condition[0, -1]), rtol=rounded)
    draws = vae.sample(3, seed=0, condition=condition[:1])
    assert draws.shape == (3, 6)
    assert not np.any(draws % 1.0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(vae))
    assert again.likelihood.get_config() == vae.likelihood.get_config()


def test_sizes_and_groups_without_their_condition_are_refused():
    with pytest.raises(ValueError, match="offset=True takes a list of z and a condition"):
        keras_vae.mlp_vae(6, 2, "poisson", offset=True)
    with pytest.raises(ValueError, match="has 5 groups, one-hot at the start of the condition"):
        sized_vae(dispersion="per_group", num_groups=5)
    with pytest.raises(ValueError, match="goes with num_groups="):
        keras_vae.NegativeBinomial(3, dispersion="per_group")
    with pytest.raises(ValueError, match="set offset=True, too"):
        keras_vae.Poisson(3, link="softmax")
    with pytest.raises(ValueError, match="'log' or 'softmax'"):
        keras_vae.Poisson(3, link="sqrt")
    with pytest.raises(TypeError, match="True or False"):
        keras_vae.Poisson(3, offset=1)


def test_a_part_of_counts_has_the_size_and_the_group_of_its_row():
    data = sized_data()
    counts = keras_vae.NegativeBinomial(6, offset=True, dispersion="per_group", num_groups=2)
    keras.utils.set_random_seed(0)
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Parts({"counts": counts, "age": keras_vae.Normal(1)}),
        posterior=keras_vae.DiagonalNormal(2, network=keras_vae.PartsEncoder()),
        condition_shape=3,
    )
    vae.compile()
    rows = {"counts": data["x"], "age": data["x"][:, :1], "condition": data["condition"]}
    assert np.isfinite(vae.fit(rows, epochs=1, verbose=0).history["loss"]).all()
    z, condition = np.zeros([2, 2], "float32"), data["condition"][[0, 0]]
    condition[1, -1] += np.log(2.0)
    head, log_size = vae.likelihood.parameters_by_part([z, condition]), condition[:, -1:]
    shared = counts.head.kernel[2:] if counts.head.kernel.shape[0] == 5 else np.zeros([3, 6])
    log_means = head["counts"]["log_mean"] - log_size - condition @ np.asarray(shared)
    np.testing.assert_allclose(log_means[0], log_means[1], atol=1e-5)
    group = int(condition[0, 1])
    own = np.exp(counts.log_dispersion[group])
    np.testing.assert_allclose(head["counts"]["dispersion"][0], own, rtol=1e-6)
    plain = keras_vae.Parts({"counts": keras_vae.Poisson(6, offset=True)})
    with pytest.raises(ValueError, match="offset=True takes a list of z and a condition"):
        plain.build((None, 2))
