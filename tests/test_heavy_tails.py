"""Laplace and Student-t latents against SciPy, their integrals and the evidence."""

import json

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from models import binary, tiny_vae

import keras_vae
from keras_vae import estimators, evaluation, random
from keras_vae.distributions.noise import from_rows

FAMILIES = {"laplace": scipy.stats.laplace, "student_t": scipy.stats.t(4.0)}
OF = {
    "laplace": (keras_vae.LaplacePosterior, keras_vae.LaplacePrior),
    "student_t": (keras_vae.StudentTPosterior, keras_vae.StudentTPrior),
}
families = pytest.mark.parametrize("name", FAMILIES)


@families
def test_density_and_draws_are_those_of_scipy(name):
    (posterior, prior), family = OF[name], FAMILIES[name]
    layer = posterior(2, dtype="float64")
    layer.build((None, 3))
    c = np.random.default_rng(0).normal(size=(4, 3))
    parameters = {key: value.numpy() for key, value in layer.parameters(c).items()}
    z = np.random.default_rng(1).normal(size=(4, 2))
    standard = (z - parameters["loc"]) / parameters["scale"]
    expected = (family.logpdf(standard) - np.log(parameters["scale"])).sum(axis=-1)
    np.testing.assert_allclose(layer.distribution(c).log_prob(z), expected, atol=1e-12)
    own = prior(2, dtype="float64")
    np.testing.assert_allclose(own(z), family.logpdf(z).sum(axis=-1), atol=1e-12)
    np.testing.assert_allclose(own.log_density(tf.constant(z)), own(z), atol=1e-12)
    seeds = random.row_seeds(0, 20_000)
    drawn = layer.draw(
        from_rows(layer.noise(), seeds), parameters["loc"][:1], parameters["scale"][:1]
    ).value
    draws = own.draw_rows(seeds)
    for numbers in (draws, (drawn - parameters["loc"][:1]) / parameters["scale"][:1]):
        for column in np.asarray(numbers).T:
            assert scipy.stats.kstest(column, family.cdf).pvalue > 1e-6


@families
def test_bound_is_below_the_evidence_and_moments_are_closed(name):
    vae, x = tiny_vae(posterior=name, prior=name), binary(3)
    points, step = np.linspace(-30.0, 30.0, 601, retstep=True)  # with the kink of Laplace at 0
    grid = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 1, 2).astype("float32")
    log_joint = vae.log_joint(x, np.repeat(grid, len(x), axis=1)).numpy().astype("float64")
    evidence = scipy.special.logsumexp(log_joint, axis=0) + 2.0 * np.log(step)
    drawn = vae.elbo(np.tile(x, (200, 1)), seed=1).elbo.numpy()
    assert np.all(drawn.reshape(200, len(x)).mean(axis=0) < evidence)
    found = evaluation.log_marginal(vae, x, num_samples=500)
    # The rule of the trapezoid errs by step^2 / 12 of the jump of the slope at the kink.
    assert np.all(np.abs(found.value - evidence) < 5 * found.standard_error + 2e-3)
    assert np.all(np.isfinite(vae.reconstruct(x)))
    loc, scale = evaluation.posterior_moments(vae, x)
    parameters = vae.posterior.parameters(x)
    np.testing.assert_array_equal(loc, parameters["loc"])
    # The variances are 2 and df / (df - 2) = 2 of scale 1.
    np.testing.assert_allclose(scale, np.sqrt(2.0) * parameters["scale"], rtol=1e-6)


def test_rate_of_two_laplace_distributions_is_closed():
    vae, x = tiny_vae(posterior="laplace", prior="laplace"), binary(4)
    trace = vae.infer(x).trace(from_rows(vae.noise(), random.row_seeds(1, 4), 20_000))
    closed = estimators.analytic_rate(trace.latents["z"])
    drawn = -np.asarray(trace.log_ratio())
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(axis=0) - closed) < 5 * error)  # 1 in 10^6


@pytest.mark.parametrize("kind", OF["student_t"])
def test_degrees_of_freedom_are_kept_and_checked(kind):
    layer = kind(3, df=5.0)
    again = kind.from_config(json.loads(json.dumps(layer.get_config())))
    assert again.df == 5.0
    for df in (2.0, float("inf"), "learned"):
        with pytest.raises(ValueError, match="above 2"):
            kind(3, df=df)
