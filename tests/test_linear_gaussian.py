"""The linear-Gaussian model, in which everything is known, holds the library to the theory."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

import keras_vae
from keras_vae import ELBO, IWAE, LinearGaussian
from keras_vae.data import DataError
from keras_vae.distributions import inverse_positive
from keras_vae.distributions.noise import from_seed
from keras_vae.evaluation import FullGaussian, log_marginal
from tests.models import (
    digits,
    flat,
    gradient,
    linear_gaussian,
    mean_and_error,
    terms_of,
    tiny_vae,
)

EXACT = 1e-10  # float64 holds 16 digits; sums of about 30 terms of size 10 keep 12 of them

X = np.random.default_rng(2).normal(size=(7, 5)) * 2.0
STICKING = ELBO(kl="monte_carlo", gradient="sticking_the_landing")
PATHWISE = ELBO(kl="monte_carlo")


@pytest.fixture
def model():
    return linear_gaussian()


def many(x, n):
    """Repeats the first example n times, for independent draws from one posterior."""
    return np.repeat(x[:1], n, axis=0)


def perturbed(vae, scale=0.1):
    """Moves the posterior of the VAE away from the exact one."""
    rng = np.random.default_rng(3)
    for weight in vae.posterior.trainable_weights:
        weight.assign_add(scale * rng.normal(size=weight.shape))
    return vae


def wider(vae, raw=0.4):
    """Widens the posterior of the VAE, so that all moments of the weights exist."""
    kernel, bias = vae.posterior.head.get_weights()
    bias[vae.latent_size : 2 * vae.latent_size] += raw
    vae.posterior.head.set_weights([kernel, bias])
    return vae


def close(a, b, error, bound=4.0):
    """Tells whether two estimates agree within 4 standard errors; 1 in 16 000 fails by chance."""
    return np.all(np.abs(np.asarray(a) - b) <= bound * error)


def test_evidence_agrees_with_scipy(model):
    covariance = model.weights @ model.weights.T + model.scale**2 * np.eye(5)
    expected = multivariate_normal(model.bias, covariance).logpdf(X)
    np.testing.assert_allclose(model.log_prob(X), expected, atol=EXACT)


def test_log_weights_of_the_exact_posterior_are_the_evidence(model):
    vae, q = model.vae(full_covariance=True), model.posterior(X)
    for distribution in (q, vae.encode(X)):
        z = distribution.sample(11, seed=0)
        log_w = vae.log_joint(X, z) - distribution.log_prob(z)
        np.testing.assert_allclose(log_w, tf.broadcast_to(model.log_prob(X), [11, 7]), atol=EXACT)


def test_closed_form_elbo_of_the_exact_posterior_is_the_evidence(model):
    q = model.posterior(X)
    elbo = model.elbo(X, q.mean(), q.covariance())
    np.testing.assert_allclose(elbo, model.log_prob(X), atol=EXACT)


def test_sticking_the_landing_vanishes_at_the_exact_posterior_and_pathwise_does_not(model):
    vae = model.vae(full_covariance=True)
    assert np.abs(gradient(vae, STICKING, X, seed=0)).max() < EXACT
    assert np.abs(gradient(vae, PATHWISE, X, seed=0)).max() > 1e-2
    assert np.abs(gradient(vae, IWAE(3, gradient="doubly_reparameterized"), X, 0)).max() < EXACT


def test_gap_of_the_best_diagonal_posterior(model):
    precision = model.weights.T @ model.weights + model.scale**2 * np.eye(3)
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.log(np.linalg.det(precision)))
    assert gap > 0.1
    q = model.best_diagonal_posterior(X)
    elbo = model.elbo(X, q.mean(), q.covariance())
    np.testing.assert_allclose(model.log_prob(X) - elbo, gap, atol=EXACT)
    np.testing.assert_allclose(model.gap(), gap, atol=EXACT)

    bound = model.vae().elbo(many(X, 4000), seed=0).elbo
    mean, error = mean_and_error(bound)
    assert close(mean, float(model.log_prob(X[:1])[0]) - gap, error)

    for factor in (0.8, 1.25):
        worse = model.elbo(X, q.mean(), factor**2 * q.covariance().numpy())
        assert np.all(worse < elbo)


def test_three_forms_of_the_elbo_agree(model):
    vae, x = perturbed(model.vae()), many(X, 4000)
    distribution, posterior = vae.encode(X[:1]), model.posterior(X[:1])
    loc, variance = distribution.mean()[0].numpy(), distribution.variance()[0].numpy()
    covariance, shift = posterior.covariance()[0].numpy(), posterior.mean()[0].numpy() - loc
    inverse = np.linalg.inv(covariance)
    kl = 0.5 * (
        np.trace(inverse * variance)
        + shift @ inverse @ shift
        - 3.0
        + np.log(np.linalg.det(covariance) / variance.prod())
    )
    expected = model.elbo(X[:1], [loc], np.diag(variance))[0]
    np.testing.assert_allclose(model.log_prob(X[:1])[0] - kl, expected, atol=EXACT)

    q = vae.encode(x)
    z = q.sample(seed=1)
    bound = vae.elbo(x, seed=2)
    for form in (vae.log_joint(x, z) - q.log_prob(z), -(bound.distortion + bound.rate)):
        mean, error = mean_and_error(form)
        assert close(mean, float(expected), error)


@pytest.fixture(scope="module")
def one_dimension():
    """Makes z ~ N(0, 1), x | z ~ N(z, 0.5), and a VAE of it whose posterior is the prior."""
    model = LinearGaussian([[1.0]], [0.0], np.sqrt(0.5))
    vae = model.vae()
    vae.posterior.head.set_weights([np.zeros((1, 2)), np.array([0.0, inverse_positive(1.0)])])
    return model, vae


def test_one_dimensional_model_has_its_known_values(one_dimension):
    model, vae = one_dimension
    assert float(model.log_prob([[1.0]])[0]) == pytest.approx(-1.455004421, abs=1e-9)
    elbo = model.elbo([[1.0]], [[0.0]], [[1.0]])[0]
    assert float(elbo) == pytest.approx(-2.572364943, abs=1e-9)
    mean, error = mean_and_error(vae.elbo(np.ones((20_000, 1)), seed=0).elbo)
    assert close(mean, -2.572364943, error)


def test_importance_weighted_bound_rises_to_the_evidence_and_stays_below(one_dimension):
    _, vae = one_dimension
    x, evidence = np.ones((20_000, 1)), -1.455004421
    sizes, means = (1, 2, 4, 8, 16, 32, 64), []
    for k in sizes:
        mean, error = mean_and_error(-terms_of(vae, IWAE(k), x, k).loss)
        means.append(mean)
    assert np.all(np.diff(means) > 0.0)  # the smallest step, 0.0059, is 7 standard errors
    assert means[-1] < evidence
    # The next term of the expansion in 1/k is of order 1/k^2.
    assert close(means[-1], evidence - 0.751653 / (2 * 64), error + 1.0 / 64**2 / 4)


def test_importance_weighted_bound_of_one_sample_is_the_elbo(model):
    vae = perturbed(model.vae())
    one, elbo = (terms_of(vae, objective, X, 5) for objective in (IWAE(1), PATHWISE))
    np.testing.assert_allclose(one.loss, elbo.loss, atol=EXACT)
    np.testing.assert_allclose(one.loss, one.distortion + one.rate, atol=EXACT)
    a, b = (gradient(vae, objective, X, 5) for objective in (IWAE(1), PATHWISE))
    np.testing.assert_allclose(a, b, atol=EXACT)


def test_doubly_reparameterized_gradient_is_that_of_its_authors(model):
    """Tucker et al. (2019), equation 8, with an explicit tape for each derivative."""
    vae, k = perturbed(model.vae(full_covariance=True)), 6
    x, q_weights = tf.constant(X), vae.posterior.trainable_weights
    with tf.GradientTape() as outer:
        q = vae.posterior.distribution(x)
        noise = from_seed(vae.noise(), tf.constant([9, 0]), [k, len(X)], "float64")["z"]
        z = q.loc + tf.linalg.matvec(q.scale_tril, noise)
        frozen = tf.stop_gradient(z)
        with tf.GradientTape() as inner:
            inner.watch(frozen)
            log_w = vae.log_joint(X, frozen) - q.log_prob(frozen)
        weights = tf.nn.softmax(log_w, axis=0)
        through_z = weights[..., None] ** 2 * inner.gradient(log_w, frozen)
        surrogate = tf.reduce_sum(tf.stop_gradient(through_z) * z, axis=[0, 2])
        loss = -tf.reduce_mean(surrogate)
    expected = flat(outer.gradient(loss, q_weights))
    found = gradient(vae, IWAE(k, gradient="doubly_reparameterized"), X, seed=9)
    np.testing.assert_allclose(found, expected, atol=EXACT)

    p_weights = vae.likelihood.trainable_weights
    plain, doubly = (
        gradient(vae, IWAE(k, gradient=name), X, 9, p_weights)
        for name in ("pathwise", "doubly_reparameterized")
    )
    np.testing.assert_allclose(doubly, plain, atol=EXACT)


def test_doubly_reparameterized_gradient_is_unbiased_with_less_variance(model):
    vae = wider(model.vae(full_covariance=True), raw=0.1)
    x, weights = tf.constant(many(X, 40)), vae.posterior.trainable_weights

    def draws(objective):
        @tf.function
        def step(seed):
            noise = from_seed(vae.noise(), seed, [objective.num_samples, len(x)], vae.float_dtype)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(objective.terms(vae.infer(x), noise).loss)
            return tape.gradient(loss, weights)

        return np.stack([flat(step(tf.constant([seed, 0]))) for seed in range(100)])

    plain, doubly = draws(IWAE(4)), draws(IWAE(4, gradient="doubly_reparameterized"))
    (mean, error), (other, other_error) = mean_and_error(plain), mean_and_error(doubly)
    assert close(mean, other, np.hypot(error, other_error))
    assert np.abs(other / other_error).max() > 10.0  # the gradient is there to be estimated
    assert doubly.var(axis=0).sum() < 0.1 * plain.var(axis=0).sum()


def test_maximum_likelihood_on_digits_is_probabilistic_pca():
    x = digits()
    model = LinearGaussian.fit(x, 10)
    assert float(tf.reduce_mean(model.log_prob(x))) == pytest.approx(17.451947, abs=1e-6)
    assert model.scale**2 == pytest.approx(0.02275137, abs=1e-8)

    pca = PCA(10, svd_solver="full").fit(x)  # divides by n - 1 where maximum likelihood has n
    assert pca.score(x) == pytest.approx(17.451942, abs=1e-6)
    covariance = pca.get_covariance() * (len(x) - 1) / len(x)
    expected = multivariate_normal(pca.mean_, covariance).logpdf(x)
    np.testing.assert_allclose(model.log_prob(x), expected, atol=1e-8)  # two eigensolvers

    bound = model.vae().elbo(x, seed=0)
    assert model.gap() == pytest.approx(0.0, abs=EXACT)  # columns of W are orthogonal
    assert float(tf.reduce_mean(bound.rate)) == pytest.approx(12.7961, abs=5e-5)


def test_round_trip_through_a_vae(model):
    for full in (False, True):
        again = LinearGaussian.from_vae(model.vae(full_covariance=full))
        np.testing.assert_allclose(again.weights, model.weights, rtol=1e-15)
        np.testing.assert_allclose(again.bias, model.bias, rtol=1e-15)
        assert again.scale == pytest.approx(model.scale, rel=1e-15)
    image = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Normal((3, 2, 1), scale="learned"),
        posterior=keras_vae.DiagonalNormal(2),
    )
    exact = LinearGaussian.from_vae(image)
    z = np.random.default_rng(0).normal(size=(4, 2))
    mean = image.decode(z).mean().numpy().reshape(4, 6)
    np.testing.assert_allclose(z @ exact.weights.T + exact.bias, mean, atol=1e-6)  # float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0]], [0.0, 1.0], 1.0), r"weights \[D, L\] and bias \[D\]; got \(1, 1\) and \(2,\)"),
        (([[1.0]], [0.0], 0.0), "positive finite scale; got 0.0"),
        (([[1.0]], [0.0], float("nan")), "positive finite scale; got nan"),
        (([[np.nan]], [0.0], 1.0), r"finite numbers in weights; got nan at \[0, 0\]"),
    ],
)
def test_refuses_impossible_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinearGaussian(*arguments)


def test_refuses_numbers_that_are_not_finite(model):
    x, vae = np.zeros((2, len(model.bias))), model.vae()
    loc, covariance = np.zeros((2, model.latent_size)), np.eye(model.latent_size)
    for given in ((x + np.inf, loc, covariance), (x, loc + np.nan, covariance)):
        with pytest.raises(DataError, match="Expected finite numbers in"):
            model.elbo(*given)
    with pytest.raises(DataError, match=r"in x; got inf at \[0, 0\]"):
        FullGaussian.fit(x + np.inf)
    for z, message in ((loc + np.nan, "got nan at"), (loc.astype(str), "must be an array of num")):
        with pytest.raises(DataError, match=message):
            vae.decode(z)
        with pytest.raises(DataError, match=message):
            vae.log_joint(x, z)
    with pytest.raises(DataError, match="got a tensor of string"):
        vae.decode(tf.constant(loc.astype(str)))


@pytest.mark.parametrize(("latents", "message"), [(0, "from 1 to 5; got 0"), (3, "lies in 3 dim")])
def test_refuses_impossible_fits(latents, message):
    x = np.pad(np.random.default_rng(0).normal(size=(50, 3)), [(0, 0), (0, 3)])
    with pytest.raises(ValueError, match=message):
        LinearGaussian.fit(x, latents)


@pytest.mark.parametrize("method", ["importance", "prior"])
def test_sampled_evidence_lies_within_its_error_of_the_truth(method):
    model, k = linear_gaussian(latents=2), 4000
    x = model.marginal().sample(12, seed=3).numpy()
    vae = wider(model.vae())
    found, exact = log_marginal(vae, x, method, num_samples=k), log_marginal(vae, x, "exact")
    np.testing.assert_allclose(exact.value, model.log_prob(x), atol=EXACT)
    assert (exact.side, exact.num_samples, exact.standard_error.max()) == ("exact", 0, 0.0)
    bias = 0.5 * found.standard_error**2  # of a logarithm of a mean, to second order
    assert close(found.value, exact.value, found.standard_error + bias)
    assert (found.side, found.method, found.num_samples) == ("below", method, k)
    ess = found.effective_sample_size
    assert np.all((ess >= 1.0) & (ess <= k))


def test_exact_posterior_wastes_no_sample(model):
    found = log_marginal(model.vae(full_covariance=True), X, num_samples=50)
    np.testing.assert_allclose(found.value, model.log_prob(X), atol=EXACT)
    np.testing.assert_allclose(found.effective_sample_size, 50.0, atol=1e-8)
    np.testing.assert_allclose(found.standard_error, 0.0, atol=1e-5)  # a root of a rounding error


def test_standard_error_is_the_scatter_of_the_estimate(model):
    x = np.repeat(X[:4], 100, axis=0)
    found = log_marginal(wider(model.vae()), x, num_samples=400)
    scatter = found.value.reshape(4, 100).std(axis=1, ddof=1)
    claimed = found.standard_error.reshape(4, 100).mean(axis=1)
    # The scatter of 100 values is known to 7 %: 30 % is 4 standard errors.
    np.testing.assert_allclose(claimed, scatter, rtol=0.3)


def test_chunks_change_nothing_but_the_draws(model):
    x, k, vae = X[:2], 100, wider(model.vae(), 0.8)
    whole = log_marginal(vae, x, num_samples=k)
    for memory in (1, 20_000):  # one pair of draw and example at a time; a chunk that leaves a rest
        parts = log_marginal(vae, x, num_samples=k, memory=memory)
        assert close(parts.value, whole.value, np.hypot(parts.standard_error, whole.standard_error))
        np.testing.assert_allclose(
            parts.effective_sample_size, whole.effective_sample_size, rtol=0.3
        )
    again = log_marginal(vae, x, num_samples=k)
    np.testing.assert_array_equal(again.value, whole.value)
    other = log_marginal(vae, x, num_samples=k, seed=1)
    assert np.all(other.value != whole.value)


def test_evidence_of_other_models_is_not_exact():
    vae = tiny_vae("normal")
    x = np.zeros((2, 6), np.float32)
    with pytest.raises(
        ValueError, match=r"only for the linear-Gaussian model.*method='importance'"
    ):
        log_marginal(vae, x, "exact")
    with pytest.raises(ValueError, match="Expected 'importance', 'prior' or 'exact'"):
        log_marginal(vae, x, "guess")
    with pytest.raises(ValueError, match=r"num_samples.*at least 1"):
        log_marginal(vae, x, num_samples=0)
    assert keras.backend.floatx() == "float32"
