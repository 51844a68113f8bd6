"""The gap and its parts equal their closed forms, and add up where there are none."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae
from keras_vae.distributions import Draw
from keras_vae.evaluation import BoundGap, bound_gap, log_marginal
from tests.models import digits, linear_gaussian, tiny_vae

CLOSE = 1e-3


def perturbed(vae, scale=0.1):
    """Makes the VAE with its encoder moved away from the best one."""
    rng = np.random.default_rng(3)
    for weight in vae.posterior.trainable_weights:
        weight.assign_add(scale * rng.normal(size=weight.shape))
    return vae


@pytest.mark.parametrize("full", [False, True])
def test_parts_equal_their_closed_forms(full):
    model = linear_gaussian()
    x = model.marginal().sample(8, seed=1).numpy()
    vae = perturbed(model.vae(full_covariance=full))
    found = bound_gap(vae, x)
    q, exact = vae.encode(x), model.log_prob(x).numpy()
    covariance = q.covariance() if full else tf.linalg.diag(q.variance())
    elbo = model.elbo(x, q.mean(), covariance).numpy()
    approximation = 0.0 if full else model.gap()
    assert found.method == "exact"
    np.testing.assert_allclose(found.elbo, elbo, atol=CLOSE)
    np.testing.assert_allclose(found.gap, exact - elbo, atol=CLOSE)
    np.testing.assert_allclose(found.approximation, approximation, atol=CLOSE)
    np.testing.assert_allclose(found.approximation_full, 0.0, atol=CLOSE)
    np.testing.assert_allclose(found.amortisation, exact - approximation - elbo, atol=CLOSE)
    np.testing.assert_array_equal(found.gap_interval[0], found.gap_interval[1])
    assert found.amortisation.min() > 0.1  # there is something to split
    assert f"because q is {'full' if full else 'diagonal'}" in str(found)


def test_interval_is_printed_in_ascending_order_where_the_bounds_cross():
    two = {name: np.zeros(2) for name in ("elbo", "elbo_family", "elbo_full")}
    errors = {name: np.zeros(2) for name in ("log_marginal_error", "elbo_error")}
    lower, upper = np.full(2, 0.997), np.full(2, 0.988)
    found = BoundGap(
        **two,
        **errors,
        lower=lower,
        upper=upper,
        log_marginal=lower,
        method="annealed",
        family="full",
    )
    assert "gap 0.997 nats, between 0.988 and 0.997 (annealed)" in str(found)


def test_isotropic_family_has_its_own_optimum():
    """Best variance of an isotropic q: scale^2 L / trace(M), M the scaled precision."""
    model = linear_gaussian()
    x = model.marginal().sample(4, seed=1).numpy()
    policy = {"dtype": "float64"}
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(3, **policy),
        likelihood=keras_vae.Normal(5, scale=model.scale, **policy),
        posterior=keras_vae.IsotropicNormal(3, **policy),
        **policy,
    )
    vae.likelihood.head.set_weights([model.weights.T, model.bias])
    precision = model.weights.T @ model.weights + model.scale**2 * np.eye(3)
    variance = model.scale**2 * 3 / np.trace(precision)
    centre = model.posterior(x).mean()
    best = model.elbo(x, centre, variance * np.eye(3)).numpy()
    found = bound_gap(vae, x, steps=1500)  # the encoder is untrained, hence far
    np.testing.assert_allclose(found.elbo_family, best, atol=CLOSE)
    np.testing.assert_allclose(found.approximation_full, 0.0, atol=CLOSE)


def test_annealed_interval_contains_the_gap():
    model = linear_gaussian()
    x = model.marginal().sample(8, seed=2).numpy()
    vae = perturbed(model.vae())
    found = bound_gap(vae, x, method="annealed", steps=1, temperatures=150)
    exact = model.log_prob(x).numpy()
    assert np.all(np.abs(found.lower - exact) < 4.0 * found.log_marginal_error + 0.01)
    # means over 8 examples of bounds that scatter by some hundredths
    assert found.lower.mean() < exact.mean() + 0.06
    assert found.upper.mean() > exact.mean() - 0.06
    assert abs((found.upper - found.lower).mean()) < 0.1


def test_parts_on_a_trained_model():
    keras.utils.set_random_seed(1)
    data = (digits() > 0.5).astype("float32")
    vae = keras_vae.mlp_vae(64, 2, "bernoulli", hidden=(64,))
    vae.compile(keras.optimizers.Adam(5e-3))
    vae.fit(data[:1500], epochs=15, batch_size=100, verbose=0)
    x = data[1500:1524]
    found = bound_gap(vae, x, steps=300)
    assert found.method == "quadrature"
    truth = log_marginal(vae, x, "quadrature").value
    np.testing.assert_allclose(found.log_marginal, truth, atol=1e-4)
    np.testing.assert_allclose(found.approximation + found.amortisation, found.gap, atol=1e-9)
    error = 4.0 * found.elbo_error + 1e-4
    for part in (found.approximation, found.amortisation, found.approximation_full):
        assert np.all(part > -error)
    assert found.approximation_full.mean() < found.approximation.mean()
    assert found.amortisation.mean() > 0.05
    # an independent estimate of the first bound, by plain draws
    plain = vae.elbo(x, num_samples=4096, seed=5).elbo.numpy()
    assert abs((plain - found.elbo).mean()) < 0.05


def test_refusals():
    vae, x = tiny_vae("normal", 6), np.zeros((2, 6), np.float32)

    class Own(keras_vae.Posterior):
        def parameter_specs(self):
            return {"loc": keras_vae.Parameter(2)}

        def make_distribution(self, loc):
            return self.independent(keras_vae.distributions.tfp.tfd.Normal(loc, tf.ones_like(loc)))

        def draw(self, noise, loc):
            return Draw(loc + noise)

    other = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2), likelihood=keras_vae.Normal(6), posterior=Own(2)
    )
    with pytest.raises(ValueError, match=r"this posterior is Own\. Its gap is"):
        bound_gap(other, x)
    with pytest.raises(ValueError, match="Expected 'auto', 'exact'"):
        bound_gap(vae, x, method="prior")
    with pytest.raises(ValueError, match=r"steps.*at least 1"):
        bound_gap(vae, x, steps=0)
    with pytest.raises(ValueError, match="only for the linear-Gaussian model"):
        bound_gap(vae, x, method="exact", steps=1)
