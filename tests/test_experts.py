"""Posteriors that combine one expert for each part that is present."""

import itertools

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import keras_vae
from keras_vae import (
    ELBO,
    IWAE,
    MixtureOfExperts,
    MixtureOfProducts,
    Normal,
    Parts,
    PartsEncoder,
    ProductOfExperts,
    StandardNormal,
    SubsetELBO,
    evaluation,
)
from keras_vae.distributions import inverse_positive
from keras_vae.distributions.noise import from_rows
from keras_vae.random import row_seeds
from keras_vae.signatures import signatures
from tests.models import terms_of

KINDS = {"product": ProductOfExperts, "mixture": MixtureOfExperts, "products": MixtureOfProducts}
MIXTURES = {name: kind for name, kind in KINDS.items() if name != "product"}
SIZES = {"a": 5, "b": 4, "c": 2}
SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(sorted(SIZES), size)]
SCALE = 0.7
ERRORS = 5.0  # standard errors; 1 in 10^6

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
every_mixture = pytest.mark.parametrize("kind", MIXTURES.values(), ids=MIXTURES)


def views(latents, seed=0):
    """Makes W_m and b_m of several views of z, x_m = W_m z + b_m, with orthogonal columns."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, size in SIZES.items():
        square = np.linalg.qr(rng.normal(size=(max(size, latents),) * 2))[0]
        columns = np.where(np.arange(latents) < size, 1.0, 0.0)
        weights[name] = square[:size, :latents] * columns * np.linspace(1.5, 0.5, latents)
        if size < latents:
            weights[name] = np.linalg.qr(rng.normal(size=(size, size)))[0] @ np.eye(size, latents)
    return weights, {name: rng.normal(size=size) for name, size in SIZES.items()}


def linear_vae(kind, latents=3):
    """Makes a VAE of several linear views with exact experts, and the joint model."""
    weights, biases = views(latents)
    policy = {"dtype": "float64"}
    vae = keras_vae.VAE(
        prior=StandardNormal(latents, **policy),
        likelihood=Parts(
            {
                name: Normal(size, scale=SCALE, missing=True, **policy)
                for name, size in SIZES.items()
            },
            **policy,
        ),
        posterior=kind(latents, dict.fromkeys(SIZES), **policy),
        **policy,
    )
    for name in SIZES:
        vae.likelihood.parts[name].head.set_weights([weights[name].T, biases[name]])
        precision = np.diag(weights[name].T @ weights[name]) / SCALE**2
        # A view says nothing of some latents: a precision of 1e-14 is 0 beside the prior's 1.
        scale = 1.0 / np.sqrt(np.maximum(precision, 1e-14))
        kernel = weights[name] / SCALE**2 * scale**2
        raw = inverse_positive(scale)
        vae.posterior.expert(name).head.set_weights(
            [
                np.concatenate([kernel, np.zeros_like(kernel)], 1),
                np.concatenate([-biases[name] @ kernel, raw]),
            ]
        )
    joint = keras_vae.LinearGaussian(
        np.concatenate(list(weights.values())), np.concatenate(list(biases.values())), SCALE
    )
    return vae, joint


def data(count=6, seed=3):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(count, size)) for name, size in SIZES.items()}


def only(x, subset):
    return {name: x[name] for name in subset}


def side_by_side(x, subset):
    """Returns all views as one matrix, NaN where a view is not in the subset."""
    return np.concatenate(
        [x[name] if name in subset else np.full_like(x[name], np.nan) for name in sorted(x)], 1
    )


def log_weights(vae, x, num_samples, seed=0):
    rows = vae._cast(vae.data.arrays(x, in_support=True))
    count = len(next(iter(x.values())))
    noise = from_rows(vae.noise(), row_seeds(seed, count), num_samples, vae.float_dtype)
    return vae.infer(rows).trace(noise).log_weights().numpy()


@pytest.mark.parametrize("subset", SUBSETS, ids="".join)
def test_the_product_of_exact_experts_is_the_exact_posterior_of_every_subset_of_views(subset):
    vae, joint = linear_vae(ProductOfExperts)
    x = data()
    exact = joint.log_prob(side_by_side(x, subset)).numpy()
    found = log_weights(vae, only(x, subset), 3)
    np.testing.assert_allclose(found, np.broadcast_to(exact, (3, 6)), rtol=0, atol=1e-8)
    q, p = vae.encode(only(x, subset)), joint.posterior(side_by_side(x, subset))
    np.testing.assert_allclose(q.mean(), p.mean(), rtol=0, atol=1e-8)
    np.testing.assert_allclose(q.variance(), p.variance(), rtol=0, atol=1e-8)


def test_one_view_given_another_is_the_difference_of_two_bounds():
    vae, joint = linear_vae(ProductOfExperts)
    x = data()
    found = log_weights(vae, only(x, "ab"), 1) - log_weights(vae, only(x, "b"), 1)
    covariance = joint.weights @ joint.weights.T + SCALE**2 * np.eye(11)
    a, b = slice(0, 5), slice(5, 9)
    gain = covariance[a, b] @ np.linalg.inv(covariance[b, b])
    mean = joint.bias[a] + (x["b"] - joint.bias[b]) @ gain.T
    rest = covariance[a, a] - gain @ covariance[b, a]
    exact = [
        scipy.stats.multivariate_normal(centre, rest).logpdf(row)
        for centre, row in zip(mean, x["a"], strict=True)
    ]
    np.testing.assert_allclose(found[0], exact, rtol=0, atol=1e-8)


def test_subsets_are_trained_by_their_own_bounds_and_elbo_is_that_of_the_whole():
    """With exact experts each bound is the log-density of its views."""
    vae, joint = linear_vae(ProductOfExperts)
    x = data()
    subsets = [(name,) for name in sorted(SIZES)]

    def evidence(subset):
        return joint.log_prob(side_by_side(x, subset)).numpy()

    for chosen, expected in ((None, subsets), ([("a", "b"), ("c",)], [("a", "b"), ("c",)])):
        objective = SubsetELBO(chosen, weight=0.5, kl="monte_carlo", num_samples=2)
        terms = terms_of(vae, objective, {k: tf.constant(v) for k, v in x.items()}, 0)
        whole = evidence(sorted(SIZES))
        np.testing.assert_allclose(-(terms.distortion + terms.rate), whole, atol=1e-8)
        added = -0.5 * sum(evidence(subset) for subset in expected)
        np.testing.assert_allclose(terms.extra["subsets"], added, atol=1e-8)
        np.testing.assert_allclose(terms.loss, added - whole, atol=1e-8)


def test_subsets_need_parts_that_may_be_absent():
    parts = Parts({"a": Normal(2, missing=True), "b": Normal(2)})
    encoder = keras_vae.PartsEncoder(complete=["b"])
    vae = keras_vae.VAE(
        prior=StandardNormal(1),
        likelihood=parts,
        posterior=keras_vae.DiagonalNormal(1, network=encoder),
    )
    for model, objective, match in (
        (vae, SubsetELBO(), "'b' may not be absent"),
        (vae, SubsetELBO([("c",)]), "got 'c'"),
        (keras_vae.mlp_vae(3, 2, hidden=(4,)), SubsetELBO(), "named parts"),
    ):
        with pytest.raises(ValueError, match=match):
            model.compile("adam", objective)
    for wrong in ([], ["a"]):
        with pytest.raises(ValueError, match="lists of names"):
            SubsetELBO(wrong)
    vae.compile("adam", SubsetELBO([("b",)]), run_eagerly=True)
    x = {"a": np.zeros((8, 2)), "b": np.ones((8, 2))}
    logs = vae.fit(x, verbose=0).history
    np.testing.assert_allclose(logs["loss"][0], logs["subsets"][0] - logs["elbo"][0], rtol=1e-5)
    config = vae.objective.get_config()
    assert SubsetELBO.from_config(config).get_config() == config


def test_a_mixture_of_products_of_one_part_is_exact_and_of_several_below():
    vae, joint = linear_vae(MixtureOfProducts)
    x = data()
    for subset in SUBSETS:
        exact = joint.log_prob(side_by_side(x, subset)).numpy()
        found = log_weights(vae, only(x, subset), 200)
        if len(subset) == 1:
            np.testing.assert_allclose(found, np.broadcast_to(exact, (200, 6)), rtol=0, atol=1e-8)
        else:
            assert (found.mean(0) < exact).all()


GRID = np.linspace(-12.0, 12.0, 4001)
STEP = GRID[1] - GRID[0]


def bound_on_grid(vae, x):
    """Computes the ELBO of a model of one latent by quadrature: sum of q (log p - log q)."""
    count = len(next(iter(x.values())))
    z = np.broadcast_to(GRID[:, None, None], (len(GRID), count, 1))
    log_q = vae.encode(x).log_prob(z)
    log_joint = vae.log_joint(x, z)
    return tf.reduce_sum(tf.exp(log_q) * (log_joint - log_q), 0) * STEP, log_q


def nonlinear(kind, latents=1, sizes=("a", "b", "c"), dtype="float64", **options):
    """Makes a VAE of three columns whose experts are broad enough for a grid."""
    keras.utils.set_random_seed(4)
    networks = {name: keras.layers.Dense(4, "tanh", dtype=dtype) for name in sizes}
    vae = keras_vae.VAE(
        prior=StandardNormal(latents, dtype=dtype),
        likelihood=Parts(
            {
                name: Normal(
                    2,
                    network=keras.layers.Dense(3, "tanh", dtype=dtype),
                    scale="learned",
                    missing=True,
                    dtype=dtype,
                )
                for name in sizes
            },
            dtype=dtype,
        ),
        posterior=kind(latents, networks, dtype=dtype, **options),
        dtype=dtype,
    )
    return vae


def columns(count=4, sizes=("a", "b", "c"), seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(count, 1))
    return {name: shared + 0.3 * rng.normal(size=(count, 2)) for name in sizes}


@every_kind
@pytest.mark.parametrize("subset", ["abc", "b"])
def test_density_integrates_to_one_and_the_bound_is_below(kind, subset):
    vae, x = nonlinear(kind), only(columns(), subset)
    bound, log_q = bound_on_grid(vae, x)
    np.testing.assert_allclose(tf.reduce_sum(tf.exp(log_q), 0) * STEP, 1.0, rtol=0, atol=1e-10)
    exact = evaluation.log_marginal(vae, x, method="quadrature").value
    assert (bound.numpy() <= exact).all()
    weights = log_weights(vae, x, 4000)
    error = weights.std(0) / np.sqrt(4000)
    assert (np.abs(weights.mean(0) - bound) <= ERRORS * error + 1e-10).all()
    ratio = np.exp(weights - exact)
    error = ratio.std(0) / np.sqrt(4000)
    assert (np.abs(ratio.mean(0) - 1.0) <= ERRORS * error + 1e-6).all()


@every_mixture
def test_gradients_of_a_mixture_are_those_of_its_bound(kind):
    """A component is chosen by weights without parameters, so the pathwise gradient is unbiased."""
    vae, x = nonlinear(kind), columns(2)
    kernel = vae.posterior.expert("b").head.kernel
    with tf.GradientTape() as tape:
        bound = tf.reduce_sum(_traced_bound(vae, x))
    exact = tape.gradient(bound, kernel).numpy()
    rows = vae._cast(x)
    for gradient in ("pathwise", "sticking_the_landing"):
        found = []
        for seed in range(10):
            noise = from_rows(vae.noise(), row_seeds(seed, 2), 400, "float64")
            with tf.GradientTape() as tape:
                terms = ELBO(kl="monte_carlo", gradient=gradient).terms(vae.infer(rows), noise)
                loss = -tf.reduce_sum(terms.loss)
            found.append(tape.gradient(loss, kernel).numpy())
        error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found))
        # The statistic is Student's t of 9 degrees: 12 errors are exceeded once in 10^6 times.
        assert (np.abs(np.mean(found, axis=0) - exact) <= 12 * error + 1e-9).all()


def _traced_bound(vae, x):
    inference = vae.infer(vae._cast(x))
    z = tf.broadcast_to(tf.constant(GRID)[:, None, None], (len(GRID), len(x["a"]), 1))
    trace = inference.at({"z": z})
    log_q = trace.log_posterior()
    return tf.reduce_sum(tf.exp(log_q) * (trace.log_joint() - log_q), 0) * STEP


@every_kind
def test_an_absent_part_contributes_nothing_to_value_or_gradient(kind):
    vae, x = nonlinear(kind, latents=2, dtype="float32"), columns(6)
    present = {"b": np.zeros(6, bool)}
    bounds = [
        vae.elbo(only(x, "ac"), seed=0),
        vae.elbo({**x, "present": present}, seed=0),
        vae.elbo({**x, "b": np.full((6, 2), np.inf), "present": present}, seed=0),
    ]
    for other in bounds[1:]:
        for found, expected in zip(other, bounds[0], strict=True):
            np.testing.assert_array_equal(found, expected)
    rows = vae._cast(vae.data.arrays(only(x, "ac"), in_support=True))
    noise = from_rows(vae.noise(), row_seeds(0, 6), 2)
    hidden = [*vae.posterior.expert("b").trainable_weights]
    seen = [*vae.posterior.expert("a").trainable_weights]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(ELBO().terms(vae.infer(rows), noise).loss)
    gradients = tape.gradient(loss, [*hidden, *seen])
    for gradient in gradients[: len(hidden)]:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
    assert all(np.abs(gradient).max() > 0 for gradient in gradients[len(hidden) :])


@every_kind
def test_the_posterior_of_no_part_is_the_prior(kind):
    vae = nonlinear(kind, latents=2)
    x = {name: np.full((3, 2), np.nan) for name in "abc"}
    z = np.random.default_rng(0).normal(size=(50, 3, 2))
    expected = vae.prior.distribution().log_prob(z)
    np.testing.assert_allclose(vae.encode(x).log_prob(z), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(vae.elbo(x, seed=0).elbo, 0.0, rtol=0, atol=1e-12)


def test_a_product_of_a_part_that_is_absent_is_the_product_of_the_others_bit_for_bit():
    x = columns(5)
    whole, part = nonlinear(ProductOfExperts), nonlinear(ProductOfExperts, sizes=("a", "c"))
    for name in ("a", "c"):
        part.posterior.expert(name).set_weights(whole.posterior.expert(name).get_weights())
    for found, expected in zip(
        (whole.encode(only(x, "ac")).mean(), whole.encode(only(x, "ac")).stddev()),
        (part.encode(only(x, "ac")).mean(), part.encode(only(x, "ac")).stddev()),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_an_expert_of_a_part_with_holes_is_given_filled_values_and_the_mask():
    networks = {"a": PartsEncoder(keras.layers.Dense(4, "tanh")), "b": keras.layers.Dense(4)}
    vae = keras_vae.VAE(
        prior=StandardNormal(2),
        likelihood=Parts({"a": Normal(3, missing=True), "b": Normal(3, missing=True)}),
        posterior=ProductOfExperts(2, networks),
    )
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    torn = np.where(np.arange(3) == 1, np.nan, x).astype("float32")
    absent = np.full_like(x, np.nan)

    def mean(a, b):
        return vae.encode({"a": a, "b": b}).mean().numpy()

    alone = vae.posterior.expert("a").parameters(tf.constant(torn))
    precision = 1.0 / alone["scale"] ** 2
    np.testing.assert_allclose(
        mean(torn, absent), precision * alone["loc"] / (1.0 + precision), rtol=1e-6, atol=1e-7
    )
    assert np.abs(mean(torn, absent) - mean(x, absent)).min() > 1e-4
    # The network of b knows no mask, so b informs q only where all of it is there.
    np.testing.assert_array_equal(mean(x, torn), mean(x, absent))
    assert np.isfinite(vae.elbo({"a": torn, "b": torn}, seed=0).elbo).all()


@every_mixture
def test_draws_are_stratified_over_the_components_and_have_the_distribution(kind):
    vae, x = nonlinear(kind, latents=2), columns(3)
    posterior = vae.posterior
    parameters = posterior.parameters(vae._cast(x))
    count, per_component = posterior.num_components, 300
    noise = from_rows(posterior.noise(), row_seeds(1, 3), count * per_component, "float64")
    # Centres far apart tell which component a draw is from.
    far = {**parameters, "loc": parameters["loc"] + 1e3 * np.arange(count)[:, None]}
    drawn = posterior.draw(noise, **far).value.numpy()[..., 0]
    found = np.round(drawn / 1e3).astype(int)
    for example in range(3):
        np.testing.assert_array_equal(np.bincount(found[:, example]), per_component)
    draw = posterior.draw(noise, **parameters)
    q = posterior.make_distribution(**parameters)
    np.testing.assert_allclose(draw.log_prob, q.log_prob(draw.value), rtol=0, atol=1e-12)
    error = q.stddev() / np.sqrt(count * per_component)
    assert (np.abs(tf.reduce_mean(draw.value, 0) - q.mean()) <= ERRORS * error).numpy().all()
    single = from_rows(posterior.noise(), row_seeds(2, 3), None, "float64")
    assert posterior.draw(single, **parameters).value.shape == (3, 2)


def test_a_component_of_an_absent_part_is_never_drawn():
    vae, x = nonlinear(MixtureOfExperts), columns(3)
    parameters = vae.posterior.parameters(vae._cast({**x, "a": x["a"] * np.nan}))
    np.testing.assert_array_equal(parameters["weights"], [[0.0, 0.5, 0.5]] * 3)
    far = {**parameters, "loc": parameters["loc"] + 1e3 * np.arange(3.0)[:, None]}
    noise = from_rows(vae.posterior.noise(), row_seeds(0, 3), 1000, "float64")
    assert vae.posterior.draw(noise, **far).value.numpy().min() > 900


@every_kind
def test_dropped_parts_are_hidden_in_training_only(kind):
    vae, x = nonlinear(kind, drop=0.5), columns(400)
    posterior, rows = vae.posterior, vae._cast(x)
    hidden = posterior.parameters(rows, training=True)
    np.testing.assert_array_equal(
        posterior.parameters(rows)["loc"], posterior.parameters(rows)["loc"]
    )
    if kind is ProductOfExperts:
        share = (hidden["scale"].numpy() == 1.0).mean()  # all three are hidden
        assert abs(share - 0.125) < ERRORS * np.sqrt(0.125 * 0.875 / 400)
    else:
        share = (hidden["weights"].numpy() == 0.0).any(axis=-1).mean()  # one or two are hidden
        assert abs(share - 0.75) < ERRORS * np.sqrt(0.75 * 0.25 / 400)
    assert (posterior.parameters(rows)["loc"] != hidden["loc"]).numpy().any()


def test_models_train_in_the_fast_loop():
    vae = nonlinear(MixtureOfProducts, latents=2, dtype="float32", drop=0.1)
    x = columns(300)
    x["b"][::3] = np.nan
    vae.compile(keras.optimizers.Adam(0.02), monitor=True)
    history = vae.fit(x, epochs=8, batch_size=50, validation_data=x, verbose=0).history
    assert history["val_elbo"][-1] > history["val_elbo"][0] + 0.5


@every_kind
def test_saved_models_load_as_they_were(kind, tmp_path):
    vae, x = nonlinear(kind, latents=2, dtype="float32", drop=0.1), columns(4)
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(loaded.elbo(x, seed=0).elbo, vae.elbo(x, seed=0).elbo)
    assert loaded.posterior.drop == 0.1
    for name, value in loaded.reconstruct(x).items():
        np.testing.assert_array_equal(value, vae.reconstruct(x)[name])


@every_kind
def test_signatures_name_the_parameters_and_score_as_the_model_does(kind):
    vae, x = nonlinear(kind, latents=2, dtype="float32"), columns(4)
    x["b"][1:3] = np.nan
    table = signatures(vae)
    inputs = {f"x_{name}": tf.constant(value, tf.float32) for name, value in x.items()}
    encoded = table["encode"].function(**inputs)
    assert table["encode"].outputs == tuple(encoded) == tuple(vae.posterior.parameter_specs())
    expected = vae.posterior.parameters(vae._cast(x))
    for name, value in encoded.items():
        np.testing.assert_array_equal(value, expected[name])
    scored = table["score"].function(**inputs, seed=row_seeds(3, 4))
    for name, value in vae.elbo(x, seed=3)._asdict().items():
        # One draw with an axis of draws and without it: the last bit of a sum.
        np.testing.assert_allclose(scored[name], value, rtol=2e-6, atol=2e-6)


def test_annealed_chains_start_from_a_mixture():
    vae, x = nonlinear(MixtureOfExperts), columns(4)
    exact = evaluation.log_marginal(vae, x, method="quadrature").value
    chains = evaluation.log_marginal(vae, x, "annealed", num_samples=32, temperatures=50, seed=0)
    # They bound from below in expectation; a quarter of a nat covers 32 of them.
    assert np.abs(chains.value - exact).max() < 0.25


@every_kind
def test_objectives_that_suit_a_posterior_compile_and_others_are_refused(kind):
    vae = nonlinear(kind)
    for objective in (ELBO(gradient="sticking_the_landing"), IWAE(3), ELBO(num_samples=3)):
        vae.compile(objective=objective)
    if kind is ProductOfExperts:
        vae.compile(objective=ELBO(kl="analytic", free_bits=0.1))
        vae.compile(objective=IWAE(3, gradient="doubly_reparameterized"))
        return
    with pytest.raises(ValueError, match="has no closed form"):
        vae.compile(objective=ELBO(kl="analytic"))
    with pytest.raises(ValueError, match="needs independent draws"):
        vae.compile(objective=IWAE(3, gradient="doubly_reparameterized"))


@every_kind
def test_a_mixture_of_these_posteriors_is_a_prior(kind):
    vae = nonlinear(kind, latents=2)
    vae = keras_vae.VAE(
        prior=keras_vae.VampPrior(2, 3, dtype="float64"),
        likelihood=vae.likelihood,
        posterior=vae.posterior,
        dtype="float64",
    )
    p = vae.prior.distribution()
    draws = vae.prior.draw_rows(row_seeds(0, 4000))
    error = p.stddev() / np.sqrt(4000)
    assert (np.abs(tf.reduce_mean(draws, 0) - p.mean()) <= ERRORS * error).numpy().all()
    assert np.isfinite(vae.elbo(columns(4), seed=0).elbo).all()
    assert vae.sample(3, seed=0)["a"].shape == (3, 2)


@every_kind
def test_experts_of_a_conditional_model_are_given_the_condition(kind):
    vae = keras_vae.VAE(
        prior=keras_vae.ConditionalNormal(2),
        likelihood=Parts({"a": Normal(2, missing=True), "b": Normal(3, missing=True)}),
        posterior=kind(2, {"a": None, "b": PartsEncoder(keras.layers.Dense(4))}),
        condition_shape=3,
    )
    x = {"a": np.zeros((5, 2)), "b": np.zeros((5, 3)), "condition": np.zeros((5, 3))}
    means = [
        vae.encode({**x, "b": np.full((5, 3), np.nan), "condition": condition}).mean().numpy()
        for condition in (np.zeros((5, 3)), np.ones((5, 3)))
    ]
    assert np.abs(means[0] - means[1]).max() > 1e-3
    assert np.isfinite(vae.elbo(x, seed=0).elbo).all()


@pytest.mark.parametrize(
    ("networks", "options", "match"),
    [
        ({}, {}, "one network or more"),
        (["a"], {}, "one network or more"),
        ({"a": 3}, {}, "Expected a Keras layer"),
        ({"a": None}, {"drop": 1.0}, "`drop`"),
        (dict.fromkeys("abcdefghi"), {}, "at most 8 networks, got 9"),
    ],
)
def test_wrong_arguments_are_refused(networks, options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        MixtureOfProducts(2, networks, **options)


def test_wrong_names_and_wrong_models_are_refused():
    with pytest.raises(ValueError, match="expert for the part 'aeg', but the data has age"):
        keras_vae.VAE(
            prior=StandardNormal(2),
            likelihood=Parts({"age": Normal(1)}),
            posterior=ProductOfExperts(2, {"aeg": None}),
        )
    with pytest.raises(ValueError, match="this one has a single x"):
        keras_vae.VAE(
            prior=StandardNormal(2),
            likelihood=Normal(1),
            posterior=ProductOfExperts(2, {"x": None}),
        )
    with pytest.raises(ValueError, match="one of a, b"):
        ProductOfExperts(2, {"a": None, "b": None}).expert("c")
