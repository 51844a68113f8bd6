"""Flows against what they must be: the identity, linear maps, Jacobians, integrals and the exact
posterior."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import binary, digits, gradient, tiny_vae

import keras_vae
from keras_vae import ELBO, IWAE, evaluation, random

POSTERIORS = (keras_vae.CouplingFlow, keras_vae.InverseAutoregressiveFlow)
PRIORS = (keras_vae.FlowPrior, keras_vae.AutoregressivePrior)
EXACT = 1e-10  # float64: sums of a few dozen terms of size 100
C = np.random.default_rng(0).normal(size=(6, 5))

transforms = pytest.mark.parametrize("transform", ["affine", "spline"])
posteriors = pytest.mark.parametrize("kind", POSTERIORS)
priors = pytest.mark.parametrize("kind", PRIORS)


def moved(layer, by=0.3):
    """Moves the weights of a flow off its initial state, where it is the identity."""
    rng = np.random.default_rng(1)
    for weight in layer.steps.weights:
        weight.assign_add(by * rng.normal(size=weight.shape))
    return layer


def posterior(kind, size=4, dtype="float64", **options):
    options = {"num_layers": 3, "hidden": (7,), "context_size": 3, **options}
    layer = kind(size, dtype=dtype, **options)
    layer.build((None, C.shape[1]))
    return layer


@pytest.mark.parametrize("size", [1, 3, 4])
@transforms
@posteriors
def test_new_posterior_is_a_diagonal_normal_to_the_last_bit(kind, transform, size):
    flow = posterior(kind, size, "float32", transform=transform)
    normal = keras_vae.DiagonalNormal(size)
    normal.build((None, C.shape[1]))
    normal.head.set_weights([each[..., : 2 * size] for each in flow.head.get_weights()])
    c = C.astype("float32")
    noise = 3.0 * np.random.default_rng(2).normal(size=(3, 6, size)).astype("float32")
    found = flow.draw(noise, **flow.parameters(c))
    expected = normal.draw(noise, **normal.parameters(c))
    np.testing.assert_array_equal(found.value, expected.value)
    np.testing.assert_array_equal(found.log_prob, expected.log_prob)
    if kind.tells_density:
        q, p = flow.distribution(c), normal.distribution(c)
        z = 2.0 * expected.value
        np.testing.assert_array_equal(q.log_prob(z), p.log_prob(z))
        np.testing.assert_array_equal(*(each.sample(4, seed=(1, 2)) for each in (q, p)))


@pytest.mark.parametrize("size", [1, 2, 5])
@transforms
@priors
def test_new_prior_is_a_standard_normal_to_the_last_bit(kind, transform, size):
    flow, normal = kind(size, transform=transform), keras_vae.StandardNormal(size)
    z = tf.constant(3.0 * np.random.default_rng(3).normal(size=(30, size)), tf.float32)
    np.testing.assert_array_equal(flow(z), normal(z))
    np.testing.assert_array_equal(flow.log_density(z, **flow.parameters()), normal.log_density(z))
    seeds = random.row_seeds(3, 10)
    np.testing.assert_array_equal(flow.draw_rows(seeds), normal.draw_rows(seeds))
    np.testing.assert_array_equal(
        *(each.distribution().sample(4, seed=(1, 2)) for each in (flow, normal))
    )


@pytest.mark.parametrize("layers", [1, 4])
@posteriors
def test_linear_flow_is_a_normal_with_full_covariance(kind, layers):
    """Networks without hidden layers and constant scales: one autoregressive step is triangular."""
    size = 5
    flow = moved(posterior(kind, size, num_layers=layers, hidden=(), context_size=0))
    for weight in flow.steps.weights:
        if "kernel" in weight.name:
            kernel = weight.numpy()
            kernel[:, kernel.shape[1] // 2 :] = 0.0  # log-scales do not depend on the input
            weight.assign(kernel)
    parameters = flow.parameters(C)
    origin = flow.draw(np.zeros((1, size)), **parameters).value
    columns = [flow.draw(np.eye(size)[j], **parameters).value - origin for j in range(size)]
    matrix = np.stack(columns, axis=-1)
    if layers == 1 and kind is keras_vae.InverseAutoregressiveFlow:
        np.testing.assert_allclose(np.triu(matrix, 1), 0.0, atol=1e-15)
        assert np.all(np.abs(matrix[:, *np.tril_indices(size, -1)]) > 1e-4)
    factor = np.linalg.cholesky(matrix @ np.swapaxes(matrix, 1, 2))
    full = keras_vae.FullCovarianceNormal(size, dtype="float64").make_distribution(
        loc=origin, scale_tril=factor
    )
    draw = flow.draw(np.random.default_rng(2).normal(size=(3, 6, size)), **parameters)
    np.testing.assert_allclose(draw.log_prob, full.log_prob(draw.value), atol=EXACT)
    if kind.tells_density:
        z = 2.0 * draw.value
        np.testing.assert_allclose(flow.distribution(C).log_prob(z), full.log_prob(z), atol=EXACT)


@transforms
@pytest.mark.parametrize("kind", [*POSTERIORS, *PRIORS])
def test_log_determinant_is_that_of_the_jacobian_and_the_inverse_returns(kind, transform):
    options = {"num_layers": 2, "hidden": (7,), "transform": transform}
    if kind in POSTERIORS:
        layer = moved(posterior(kind, **options))
        context = layer.parameters(C)["context"]
    else:
        layer, context = moved(kind(4, dtype="float64", **options)), None
    weights = layer.steps.tensors()
    x = tf.constant(2.0 * np.random.default_rng(2).normal(size=(6, 4)))
    assert np.any(np.abs(x) > 4.0)  # outside of the interval of the splines too
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, log_det = layer.steps.forward(weights, x, context)
    _, expected = np.linalg.slogdet(tape.batch_jacobian(y, x))
    assert np.any(np.abs(expected) > 0.1)
    np.testing.assert_allclose(log_det, expected, atol=EXACT)
    back, same = layer.steps.inverse(weights, y, context)
    np.testing.assert_allclose(back, x, atol=EXACT)
    np.testing.assert_allclose(same, log_det, atol=EXACT)


@transforms
def test_density_of_a_point_is_that_of_the_draw(transform):
    layer = moved(posterior(keras_vae.CouplingFlow, transform=transform))
    noise = np.random.default_rng(2).normal(size=(3, 6, 4))
    draw = layer.draw(noise, **layer.parameters(C))
    np.testing.assert_allclose(
        draw.log_prob, layer.distribution(C).log_prob(draw.value), atol=EXACT
    )


@transforms
@priors
def test_prior_has_the_density_of_its_draws_and_integrates_to_one(kind, transform):
    by = 0.3 if transform == "affine" else 0.1
    layer = moved(kind(2, dtype="float64", transform=transform, num_layers=2, hidden=(7,)), by)
    points = np.linspace(-12.0, 12.0, 401)
    grid = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2)
    log_density = layer(grid).numpy()
    mass = np.exp(log_density) * (points[1] - points[0]) ** 2
    # The rule of the trapezoid errs by the kinks of the slope at the ends of a spline's bins.
    error = 1e-9 if transform == "affine" else 2e-4
    assert mass.sum() == pytest.approx(1.0, abs=error)
    draws = layer.draw_rows(random.row_seeds(0, 20_000)).numpy()
    for found, expected in ((draws, mass @ grid), (layer(draws).numpy(), mass @ log_density)):
        size = found.std(axis=0) / np.sqrt(len(found))
        assert np.all(np.abs(found.mean(axis=0) - expected) < 5 * size + error)  # 1 in 10^6


@transforms
@pytest.mark.parametrize("kind", [*POSTERIORS, *PRIORS])
def test_config_makes_the_same_flow(kind, transform):
    layer = kind(3, num_layers=2, hidden=(4, 5), transform=transform, name="flow")
    again = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    assert again.get_config() == layer.get_config()
    assert [w.shape for w in again.steps.weights] == [w.shape for w in layer.steps.weights]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": "cubic"}, "Expected one of affine, spline"),
        ({"num_layers": 0}, "num_layers"),
        ({"hidden": (0,)}, "hidden"),
        ({"context_size": -1}, "context_size"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        keras_vae.CouplingFlow(2, **options)


def sphere_of(size=4, layers=4):
    """Makes a linear-Gaussian model whose exact posterior is diagonal, with a coupling flow."""
    rng = np.random.default_rng(0)
    weights = np.linalg.qr(rng.normal(size=(6, size)))[0] * [1.5, 1.0, 0.7, 0.3][:size]
    exact = keras_vae.LinearGaussian(weights, rng.normal(size=6), 0.5)
    twin = exact.vae()
    flow = keras_vae.CouplingFlow(
        size, num_layers=layers, context_size=0, hidden=(5,), dtype="float64"
    )
    vae = keras_vae.VAE(
        prior=twin.prior, likelihood=twin.likelihood, posterior=flow, dtype="float64"
    )
    flow.head.set_weights(twin.posterior.head.get_weights())
    return exact, vae, rng.normal(size=(7, 6))


def test_sticking_the_landing_holds_the_weights_of_the_flow_constant():
    """At the exact posterior the gradient is zero, for every draw and every weight."""
    exact, vae, x = sphere_of()
    np.testing.assert_allclose(vae.elbo(x, seed=1).elbo, exact.log_prob(x), atol=EXACT)
    weights = vae.posterior.trainable_weights
    assert len(weights) == 2 + 4 * 4
    for objective in (
        ELBO(gradient="sticking_the_landing"),
        IWAE(3, gradient="doubly_reparameterized"),
    ):
        np.testing.assert_allclose(gradient(vae, objective, x, 1, weights), 0.0, atol=EXACT)
    assert np.any(np.abs(gradient(vae, ELBO(), x, 1, weights)) > 1e-3)


def test_gradients_of_the_draw_and_of_the_density_agree():
    """Both ways to differentiate log q at its own draw are the same derivative."""
    _, vae, x = sphere_of()
    moved(vae.posterior)
    weights = vae.posterior.trainable_weights
    found = gradient(vae, ELBO(), x, 1, weights)
    vae.posterior.scores_draws = False
    np.testing.assert_allclose(found, gradient(vae, ELBO(), x, 1, weights), atol=EXACT)


def test_evaluators_bracket_the_evidence_of_a_flow():
    exact, vae, x = sphere_of(2, layers=1)
    moved(vae.posterior)
    expected = exact.log_prob(x).numpy()
    assert vae.elbo(np.repeat(x, 200, axis=0), seed=1).elbo.numpy().mean() < expected.mean() - 0.01
    found = evaluation.log_marginal(vae, x, num_samples=5000)
    np.testing.assert_allclose(found.value, expected, atol=5 * found.standard_error.max())
    annealed = evaluation.log_marginal(vae, x, "annealed", num_samples=16, temperatures=20)
    np.testing.assert_allclose(annealed.value, expected, atol=5 * annealed.standard_error.max())


def test_what_needs_the_density_of_other_points_is_refused_by_name():
    vae = tiny_vae(posterior="inverse_autoregressive")
    x, only = binary(4), "InverseAutoregressiveFlow knows only the density of its own draws"
    for objective in (
        ELBO(gradient="sticking_the_landing"),
        IWAE(3, gradient="doubly_reparameterized"),
    ):
        with pytest.raises(ValueError, match=only):
            vae.compile(objective=objective)
    for refused in (
        lambda: vae.encode(x),
        lambda: evaluation.diagnose(vae, x),
        lambda: evaluation.log_marginal(vae, x, "annealed", num_samples=2, temperatures=2),
        lambda: tiny_vae(posterior="inverse_autoregressive", prior="vamp"),
    ):
        with pytest.raises(ValueError, match=only):
            refused()
    with pytest.raises(ValueError, match="this posterior is InverseAutoregressiveFlow"):
        evaluation.bound_gap(vae, x)
    assert np.all(np.isfinite(evaluation.log_marginal(vae, x, num_samples=10).value))


def test_moments_of_a_flow_are_those_of_its_draws():
    exact, vae, x = sphere_of()  # a new flow: the exact moments are known
    loc, scale = evaluation.posterior_moments(vae, x, num_samples=4000)
    q = exact.posterior(x)
    assert np.all(np.abs(loc - q.mean()) < 5 * q.stddev() / np.sqrt(4000))  # 1 in 10^6
    np.testing.assert_allclose(scale, q.stddev(), rtol=5 / np.sqrt(8000))
    assert evaluation.active_units(vae, x) == evaluation.active_units(exact.vae(), x) == 4
    assert evaluation.active_units(tiny_vae(posterior="inverse_autoregressive"), binary(40)) <= 2
    scores = evaluation.anomaly_scores(vae, x, num_samples=10)
    same = evaluation.anomaly_scores(exact.vae(), x, num_samples=10)
    np.testing.assert_allclose(scores.reconstruction, same.reconstruction, atol=EXACT)


def test_evidence_under_a_flow_prior_is_integrated():
    vae = tiny_vae("normal", 3)
    flow = keras_vae.VAE(
        prior=keras_vae.FlowPrior(2), likelihood=vae.likelihood, posterior=vae.posterior
    )
    x = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")
    found = evaluation.log_marginal(flow, x, "quadrature").value
    np.testing.assert_allclose(
        found, evaluation.log_marginal(vae, x, "quadrature").value, atol=1e-4
    )  # float32, on another grid
    assert not evaluation.is_normal(flow)
    with pytest.raises(ValueError, match="got FlowPrior"):
        evaluation.rate_per_latent(flow, x)


def rotated():
    """Makes the linear-Gaussian model of the digits with rotated latents, and its diagonal gap."""
    model = keras_vae.LinearGaussian.fit(digits(), 10)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((10, 10)))[0]
    model = keras_vae.LinearGaussian(model.weights @ rotation, model.bias, model.scale)
    precision = model.weights.T @ model.weights + model.scale**2 * np.eye(10)
    gap = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    return model, gap


def test_coupling_posterior_closes_the_gap_of_the_best_diagonal_one():
    """The loss is the Kullback-Leibler divergence of draws, the same for every x."""
    model, gap = rotated()
    assert gap == pytest.approx(0.6400278612, abs=1e-9)
    x = digits()[:500]
    twin = model.vae()
    flow = keras_vae.CouplingFlow(10, hidden=(), num_layers=4, context_size=0, dtype="float64")
    vae = keras_vae.VAE(
        prior=twin.prior, likelihood=twin.likelihood, posterior=flow, dtype="float64"
    )
    flow.head.set_weights(twin.posterior.head.get_weights())
    vae.likelihood.trainable = False
    evidence = model.log_prob(x).numpy()

    draws = np.tile(x, (20, 1))
    before = np.tile(evidence, 20) - vae.elbo(draws, seed=1).elbo.numpy()
    assert abs(before.mean() - gap) < 5 * before.std() / np.sqrt(len(before))
    vae.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.02, 1000)),
        ELBO(gradient="sticking_the_landing"),
    )
    vae.fit(x, epochs=200, batch_size=100, verbose=0)
    after = np.tile(evidence, 20) - vae.elbo(draws, seed=2).elbo.numpy()
    assert after.mean() + 5 * after.std() / np.sqrt(len(after)) >= 0.0
    assert after.mean() < 0.01


@pytest.mark.parametrize("posterior", ["inverse_autoregressive", "student_t"])
def test_mixture_fitted_afterwards_is_a_prior_for_any_posterior_and_its_bound_a_bound(posterior):
    vae, x = tiny_vae(posterior=posterior, prior="flow"), binary(60)
    again = evaluation.ex_post_density(vae, x, 2)
    evidence = evaluation.log_marginal(again, x[:4], num_samples=500)
    drawn = again.elbo(np.tile(x[:4], (200, 1)), seed=1).elbo.numpy()
    bound = drawn.reshape(200, 4).mean(axis=0)
    assert np.all(bound < evidence.value + 5 * evidence.standard_error)
    assert np.all(np.isfinite(again.sample(3, seed=1)))
