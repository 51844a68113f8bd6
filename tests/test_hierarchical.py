"""Models of several levels against two linear levels, whose evidence is a normal distribution."""

import json

import keras
import numpy as np
import onnxruntime
import pytest
import scipy.stats
import tensorflow as tf

import keras_vae
from export.pipeline import export_model
from keras_vae import estimators, evaluation, random
from keras_vae.distributions import inverse_positive
from keras_vae.distributions.noise import from_rows, from_seed
from keras_vae.signatures import signatures

EXACT = 1e-10  # float64: sums of a few dozen terms of size 100
FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}  # sums of a few dozen terms in float32, in two programs


def trace_of(model, x, draws=3, seed=5):
    """Makes the trace of a batch at draws from row seeds."""
    rows = tf.nest.flatten(x)[0]
    noise = from_rows(model.noise(), random.row_seeds(seed, len(rows)), draws, model.float_dtype)
    return model.infer(x).trace(noise)


def affine(layer, to_loc, offset, scale):
    """Sets the head of a level to an affine centre and constant scales."""
    zeros = np.zeros_like(to_loc)
    kernel = np.concatenate([to_loc, zeros], axis=1)
    scales = inverse_positive(np.broadcast_to(scale, offset.shape))
    layer.head.set_weights([kernel, np.concatenate([offset, scales])])


class Linear:
    """p(z1) N(0, I), p(z2 | z1) = N(W z1 + b, s1^2), p(x | z2) = N(A z2 + c, s^2).

    A^T A is a multiple of I and W^T W is diagonal, so every factor of the posterior is.
    """

    def __init__(self):
        rng = np.random.default_rng(3)
        self.a = 1.3 * np.linalg.qr(rng.normal(size=(5, 3)))[0]
        self.w = np.linalg.qr(rng.normal(size=(3, 2)))[0] * [1.5, 0.7]
        self.b, self.c, self.s1, self.s = rng.normal(size=3), rng.normal(size=5), 0.6, 0.4
        inner = self.w @ self.w.T + self.s1**2 * np.eye(3)
        covariance = self.a @ inner @ self.a.T + self.s**2 * np.eye(5)
        self.evidence = scipy.stats.multivariate_normal(self.a @ self.b + self.c, covariance)
        self.x = self.evidence.rvs(7, random_state=1)

    def generative(self, model):
        """Sets p(z2 | z1) and p(x | z2)."""
        affine(model.blocks["z2"].prior, self.w.T, self.b, self.s1)
        model.likelihood.head.set_weights([self.a.T, self.c])
        return model

    def ladder(self, dtype="float64", **kwargs):
        """Makes the ladder whose posterior is exact."""
        policy = {"dtype": dtype}
        model = keras_vae.HierarchicalVAE(
            blocks={
                "z1": keras_vae.TopDownBlock(2, kind="ladder", **policy),
                "z2": keras_vae.TopDownBlock(3, kind="ladder", **policy),
            },
            likelihood=keras_vae.Normal(5, scale=self.s, **policy),
            **policy,
            **kwargs,
        )
        to_z2 = self.a.T / 1.3**2
        affine(model.blocks["z2"].posterior, to_z2.T, -to_z2 @ self.c, self.s / 1.3)
        to_z1 = np.linalg.inv(self.w.T @ self.w) @ self.w.T
        scale = np.sqrt((self.s1**2 + self.s**2 / 1.3**2) / np.diag(self.w.T @ self.w))
        mean = -to_z1 @ (to_z2 @ self.c + self.b)
        affine(model.blocks["z1"].posterior, (to_z1 @ to_z2).T, mean, scale)
        return self.generative(model)

    def residual(self, dtype="float64"):
        """Makes residual blocks for the same data, with a posterior that is not exact."""
        policy = {"dtype": dtype}
        model = keras_vae.HierarchicalVAE(
            encoder=keras.layers.Dense(6, "tanh", **policy),
            blocks={
                "z1": keras_vae.TopDownBlock(2, **policy),
                "z2": keras_vae.TopDownBlock(3, network=Second(**policy), **policy),
            },
            likelihood=keras_vae.Normal(5, scale=self.s, **policy),
            **policy,
        )
        return self.generative(model)


@keras.saving.register_keras_serializable("levels")
class Second(keras.layers.Layer):
    """Returns the second of two inputs."""

    def call(self, inputs):
        return inputs[1]


@pytest.fixture(scope="module")
def linear():
    return Linear()


@pytest.fixture(scope="module")
def ladder(linear):
    return linear.ladder()


def test_every_weight_of_an_exact_ladder_is_the_evidence(linear, ladder):
    expected = linear.evidence.logpdf(linear.x)
    trace = trace_of(ladder, linear.x)
    np.testing.assert_allclose(trace.log_weights(), np.tile(expected, (3, 1)), atol=EXACT)
    found = evaluation.log_marginal(ladder, linear.x, num_samples=20)
    np.testing.assert_allclose(found.value, expected, atol=EXACT)
    annealed = evaluation.log_marginal(
        ladder, linear.x, "annealed", num_samples=4, temperatures=10, leapfrog_steps=1
    )
    np.testing.assert_allclose(annealed.value, expected, atol=1e-8)  # 10 sums of log-ratios
    z = {name: latent.value[0] for name, latent in trace.latents.items()}
    np.testing.assert_allclose(ladder.log_joint(linear.x, z), trace.log_joint()[0], atol=EXACT)


def test_levels_are_inferred_from_the_bottom_up_with_the_exact_posterior():
    """With W of orthogonal rows too, q(z2 | x) and q(z1 | z2) are diagonal."""
    linear, policy = Linear(), {"dtype": "float64"}
    linear.w = np.eye(3, 2) * [1.5, 0.7]
    covariance = linear.w @ linear.w.T + linear.s1**2 * np.eye(3)
    of_x = linear.a @ covariance @ linear.a.T + linear.s**2 * np.eye(5)
    evidence = scipy.stats.multivariate_normal(linear.a @ linear.b + linear.c, of_x)
    model = keras_vae.HierarchicalVAE(
        blocks={
            "z1": keras_vae.TopDownBlock(2, kind="bottom_up", **policy),
            "z2": keras_vae.TopDownBlock(3, kind="bottom_up", **policy),
        },
        likelihood=keras_vae.Normal(5, scale=linear.s, **policy),
        **policy,
    )
    linear.generative(model)
    inverse = np.linalg.inv(covariance)
    of_z2 = np.linalg.inv(inverse + linear.a.T @ linear.a / linear.s**2)
    of_z1 = np.linalg.inv(np.eye(2) + linear.w.T @ linear.w / linear.s1**2)
    for name, cov, given, offset in (
        ("z2", of_z2, linear.a / linear.s**2, inverse @ linear.b),
        ("z1", of_z1, linear.w / linear.s1**2, np.zeros(2)),
    ):
        mean = {"z2": linear.c, "z1": linear.b}[name]
        to_loc = given @ cov
        scale = np.sqrt(np.diag(cov))
        affine(model.blocks[name].posterior, to_loc, cov @ offset - mean @ to_loc, scale)
    expected, trace = evidence.logpdf(linear.x), trace_of(model, linear.x)
    np.testing.assert_allclose(trace.log_weights(), np.tile(expected, (3, 1)), atol=EXACT)
    q = model.encode(linear.x)
    np.testing.assert_allclose(q["z1"].mean(), affine_of(model, "z1", q["z2"].mean()), atol=EXACT)
    sticking = keras_vae.ELBO(gradient="sticking_the_landing", num_samples=2)
    weights = [w for block in model.blocks.values() for w in block.posterior.trainable_weights]
    for gradient in gradients_of(sticking, model, linear.x, weights):
        np.testing.assert_allclose(gradient, np.zeros(gradient.shape), atol=EXACT)
    with pytest.raises(ValueError, match="has no closed form"):
        model.compile(objective=keras_vae.ELBO(kl="analytic"))
    with pytest.raises(ValueError, match="z1 is drawn given z2: choose gradient='pathwise'"):
        model.compile(objective=keras_vae.IWAE(3, gradient="doubly_reparameterized"))


def affine_of(model, name, given):
    """Returns the centre of an affine q of a level."""
    kernel, bias = (value.numpy() for value in model.blocks[name].posterior.head.weights)
    size = len(bias) // 2
    return np.asarray(given) @ kernel[:, :size] + bias[:size]


def test_bounds_of_an_inexact_posterior_lie_below_the_evidence_and_rise(linear):
    model, expected = linear.ladder(), linear.evidence.logpdf(linear.x)
    for block in model.blocks.values():
        kernel = block.posterior.head.kernel
        kernel.assign_add(0.02 * np.random.default_rng(0).normal(size=kernel.shape))
    bound = model.elbo(linear.x, 2000, seed=1).elbo.numpy()
    weighted = evaluation.log_marginal(model, linear.x, num_samples=5000, seed=1)
    annealed = evaluation.log_marginal(
        model, linear.x, "annealed", num_samples=8, temperatures=100, leapfrog_steps=2
    )
    assert np.all(bound < weighted.value)
    assert np.all(weighted.value < expected + 5 * weighted.standard_error)
    assert np.all(np.abs(annealed.value - expected) < 5 * annealed.standard_error + 0.01)


def test_draws_from_the_prior_have_the_moments_of_the_evidence(linear, ladder):
    x = ladder.sample(40_000, seed=2).numpy()
    cov = linear.evidence.cov
    error = np.sqrt(np.diag(cov) / len(x))
    assert np.all(np.abs(x.mean(0) - linear.evidence.mean) < 5 * error)  # 1 in 10^6
    spread = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / len(x))
    assert np.all(np.abs(np.cov(x.T) - cov) < 5 * spread)


def gradients_of(objective, model, x, weights, draws=2):
    noise = from_seed(model.noise(), tf.constant([3, 0]), [draws, len(x)], "float64")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(objective.terms(model.infer(x), noise).loss)
    return tape.gradient(loss, weights)


def test_gradient_of_an_exact_posterior_sticks_to_zero(linear, ladder):
    """Its weights do not depend on the draws; the plain gradient keeps the scores of q."""
    weights = [w for block in ladder.blocks.values() for w in block.posterior.trainable_weights]
    sticking = keras_vae.ELBO(gradient="sticking_the_landing", num_samples=2)
    for gradient in gradients_of(sticking, ladder, linear.x, weights):
        np.testing.assert_allclose(gradient, np.zeros(gradient.shape), atol=EXACT)
    plain = gradients_of(keras_vae.ELBO(kl="monte_carlo", num_samples=2), ladder, linear.x, weights)
    assert all(np.abs(gradient).max() > 1e-3 for gradient in plain)


def test_estimators_of_the_gradient_have_the_same_mean(linear):
    model, x = linear.residual(), np.tile(linear.x[:1], (20_000, 1))
    (weight, *_) = model.blocks["z1"].posterior.trainable_weights
    found = [
        gradients_of(keras_vae.ELBO(gradient=gradient, kl="monte_carlo"), model, x, [weight], 1)[0]
        for gradient in ("pathwise", "sticking_the_landing")
    ]
    size = float(tf.reduce_max(tf.abs(found[0])))
    np.testing.assert_allclose(found[0], found[1], atol=0.05 * size)  # 20 000 draws: errors of 1 %


def test_doubly_reparameterized_draws_given_draws_are_refused(ladder):
    with pytest.raises(ValueError, match="z2 is drawn given z1: choose gradient='pathwise'"):
        ladder.compile(objective=keras_vae.IWAE(3, gradient="doubly_reparameterized"))


def test_level_that_nothing_reads_and_that_costs_nothing_is_one_level_less(linear):
    """q of the idle level is its prior, and no weight passes its draw on."""
    model = linear.residual()
    policy = {"dtype": "float64"}
    idle = keras_vae.TopDownBlock(4, network=First(**policy), **policy)
    more = keras_vae.HierarchicalVAE(
        encoder=model.encoder,
        blocks={"z1": model.blocks["z1"], "idle": idle, "z2": model.blocks["z2"]},
        likelihood=model.likelihood,
        **policy,
    )
    for weight in idle.weights:
        weight.assign(tf.zeros_like(weight))
    noise = from_seed(model.noise(), tf.constant([3, 0]), [4, 7], "float64")
    more_noise = {**noise, "idle": tf.ones([4, 7, 4], tf.float64)}
    terms = keras_vae.ELBO(num_samples=4).terms(more.infer(linear.x), more_noise)
    expected = keras_vae.ELBO(num_samples=4).terms(model.infer(linear.x), noise)
    np.testing.assert_array_equal(terms.extra["rate_idle"], np.zeros(7))
    np.testing.assert_array_equal(terms.loss, expected.loss)


@keras.saving.register_keras_serializable("levels")
class First(keras.layers.Layer):
    """Returns the first of two inputs."""

    def call(self, inputs):
        return inputs[0]


def test_free_bits_by_level_act_on_each_level_as_a_whole(linear):
    model = linear.residual()
    noise = from_seed(model.noise(), tf.constant([3, 0]), [2, 7], "float64")
    inference = model.infer(linear.x)
    plain = keras_vae.ELBO(num_samples=2).terms(inference, noise)
    rates = {name: plain.extra[f"rate_{name}"].numpy() for name in model.blocks}
    free = float(np.median(rates["z1"]))
    terms = keras_vae.ELBO(num_samples=2, free_bits={"z1": free}).terms(inference, noise)
    expected = plain.distortion + np.maximum(rates["z1"], free) + rates["z2"]
    np.testing.assert_allclose(terms.loss, expected, atol=EXACT)
    np.testing.assert_array_equal(terms.rate, plain.rate)
    by_number = keras_vae.ELBO(num_samples=2, free_bits=0.1).terms(inference, noise)
    each = estimators.rate_per_latent(inference.trace(noise)).numpy()
    assert each.shape == (7, 5)
    np.testing.assert_allclose(each.sum(1), plain.rate, atol=EXACT)
    np.testing.assert_allclose(
        by_number.loss, plain.distortion + np.maximum(each, 0.1).sum(1), atol=EXACT
    )
    with pytest.raises(ValueError, match=r"free_bits names top.*latents .* are z1, z2"):
        model.compile(objective=keras_vae.ELBO(free_bits={"top": 1.0}))


def dense(kind, **options):
    """Makes a small model of counts of any kind, with networks in every place."""
    layer = keras.layers.Dense

    def joined(width):
        first, second = keras.Input((width,)), keras.Input((3,))
        both = keras.layers.Concatenate()([first, second])
        return keras.Model([first, second], first + layer(width, "tanh")(both))

    features = keras.Input((6,))
    hidden = layer(8, "tanh")(features)
    encoder = keras.Model(features, {"low": hidden, "top": layer(5, "tanh")(hidden)})
    return keras_vae.HierarchicalVAE(
        encoder=encoder,
        blocks={
            "top": keras_vae.TopDownBlock(2, kind=kind, network=layer(7, "tanh")),
            "low": keras_vae.TopDownBlock(
                3,
                kind=kind,
                prior=layer(4, "tanh"),
                posterior=None
                if kind == "ladder"
                else keras_vae.networks.mlp((7,), (6,), condition_shape=(8,)),
                network=layer(7, "tanh") if kind == "ladder" else joined(7),
            ),
        },
        likelihood=keras_vae.Poisson(6, network=layer(5, "tanh")),
        **options,
    )


COUNTS = np.random.default_rng(0).poisson(2.0, (64, 6)).astype("float32")


@pytest.fixture(scope="module", params=["ladder", "residual"])
def trained(request):
    keras.utils.set_random_seed(1)
    model = dense(request.param)
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(COUNTS, epochs=6, batch_size=16, verbose=0).history
    return model, history


def test_rates_of_levels_are_logged_and_add_up(trained):
    _, history = trained
    bound = {"loss", "elbo", "distortion", "rate"}
    assert set(history) == bound | {"rate_top", "rate_low"}
    np.testing.assert_allclose(
        np.add(history["rate_top"], history["rate_low"]), history["rate"], rtol=1e-5
    )
    assert history["elbo"][-1] > history["elbo"][0]


def test_model_is_saved_and_loaded_and_trains_on(trained, tmp_path):
    model, _ = trained
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert list(again.blocks) == ["top", "low"]
    np.testing.assert_array_equal(again.elbo(COUNTS, seed=1).elbo, model.elbo(COUNTS, seed=1).elbo)
    np.testing.assert_array_equal(again.sample(5, seed=1), model.sample(5, seed=1))
    again.fit(COUNTS, verbose=0)


def test_levels_are_encoded_and_decoded_by_name(trained):
    model, _ = trained
    q = model.encode(COUNTS)
    assert {name: each.mean().shape.as_list() for name, each in q.items()} == {
        "top": [64, 2],
        "low": [64, 3],
    }
    p = model.decode({name: each.mean() for name, each in q.items()})
    np.testing.assert_allclose(p.mean(), model.reconstruct(COUNTS), rtol=1e-5)
    for z, message in (
        ({"top": np.zeros([2, 2])}, "Expected a dict of the latents top, low; got top"),
        (np.zeros([2, 5]), "got ndarray"),
        ({"top": np.zeros([2, 2]), "low": np.zeros([2, 2])}, r"low must have shape \[n, 3\]"),
        ({"top": np.zeros([2, 2]), "low": np.zeros([3, 3])}, "2 of top, 3 of low"),
        (
            {"top": np.zeros([2, 2]), "low": np.full([2, 3], np.nan)},
            r"Expected finite numbers in low; got nan at \[0, 0\]",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            model.decode(z)


def test_score_and_elbo_are_equal_to_the_bit(trained):
    model, _ = trained
    found = signatures(model)["score"].function(x=COUNTS, seed=random.row_seeds(3, 64))
    bound = model.elbo(COUNTS, seed=3)
    for name, value in bound._asdict().items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_allclose(found["rate_top"] + found["rate_low"], bound.rate, rtol=1e-6)


def test_condition_is_the_state_above_the_first_level():
    vae = keras_vae.HierarchicalVAE(
        encoder=keras_vae.networks.mlp((5,), (4,), condition_shape=(3,)),
        blocks={"z1": keras_vae.TopDownBlock(2), "z2": keras_vae.TopDownBlock(3)},
        likelihood=keras_vae.Normal(5),
        condition_shape=3,
    )
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(6, 5)), "condition": rng.normal(size=(6, 3))}
    assert vae.elbo(data, seed=0).elbo.shape == (6,)
    q = {name: each.mean() for name, each in vae.encode(data).items()}
    p = vae.decode(q, data["condition"])
    np.testing.assert_allclose(p.mean(), vae.reconstruct(data), rtol=1e-5)
    first, second = vae.sample(2, seed=1, condition=data["condition"][:2])
    assert np.any(first != second)
    drawn = evaluation.log_marginal(vae, data, "prior", num_samples=3)
    assert np.all(np.isfinite(drawn.value))


def test_images_have_levels_of_images(tmp_path):
    layers = keras.layers
    x = keras.Input((8, 8, 1))
    fine = layers.Conv2D(4, 3, 2, "same", activation="relu")(x)
    coarse = layers.Conv2D(6, 3, 2, "same", activation="relu")(fine)
    up = layers.Conv2DTranspose(4, 3, 2, "same", activation="relu")
    vae = keras_vae.HierarchicalVAE(
        encoder=keras.Model(x, {"z1": coarse, "z2": fine}),
        blocks={
            "z1": keras_vae.TopDownBlock((2, 2, 3), kind="ladder", network=up),
            "z2": keras_vae.TopDownBlock(
                (4, 4, 1), network=None, kind="ladder", prior=layers.Conv2D(4, 3, padding="same")
            ),
        },
        likelihood=keras_vae.Bernoulli(
            (8, 8, 1),
            network=layers.Conv2DTranspose(4, 3, 2, "same", activation="relu"),
            head=layers.Conv2D(1, 3, padding="same"),
        ),
    )
    binary = (np.random.default_rng(0).random((12, 8, 8, 1)) < 0.3).astype("float32")
    vae.compile("adam", keras_vae.ELBO(free_bits=0.01))
    vae.fit(binary, verbose=0)
    assert estimators.rate_per_latent(trace_of(vae, binary)).shape == (12, 12 + 16)
    annealed = evaluation.log_marginal(
        vae, binary, "annealed", num_samples=2, temperatures=3, leapfrog_steps=1
    )
    assert np.all(np.isfinite(annealed.value))
    vae.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.elbo(binary, seed=1).elbo, vae.elbo(binary, seed=1).elbo)


def test_mixed_precision_trains():
    keras.config.set_dtype_policy("mixed_float16")  # which the fixture of conftest.py clears
    model = dense("residual")
    model.compile("adam")
    logs = model.fit(COUNTS, epochs=2, verbose=0).history
    assert np.all(np.isfinite([logs[name] for name in logs]))
    assert model.elbo(COUNTS, seed=0).elbo.dtype == tf.float32


def test_importance_weighted_training_logs_the_rates_of_its_draws():
    model = dense("ladder")
    model.compile("adam", keras_vae.IWAE(3))
    logs = model.fit(COUNTS, verbose=0).history
    np.testing.assert_allclose(
        logs["rate_top"][0] + logs["rate_low"][0], logs["rate"][0], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"blocks": {}}, ValueError, "Expected a dict of one TopDownBlock or more"),
        ({"blocks": {"z 1": keras_vae.TopDownBlock(2)}}, ValueError, "letters, digits and _"),
        ({"blocks": {"z1": keras.layers.Dense(2)}}, TypeError, "Expected a TopDownBlock"),
        ({"likelihood": keras.layers.Dense(2)}, TypeError, "Expected a keras_vae Likelihood"),
        ({"encoder": "mlp"}, TypeError, "argument `encoder`"),
        (
            {
                "blocks": {
                    "z1": keras_vae.TopDownBlock(2),
                    "z2": keras_vae.TopDownBlock(2, kind="bottom_up"),
                }
            },
            ValueError,
            "all blocks or none .* 'z1' of 'residual', 'z2' of 'bottom_up'",
        ),
        (
            {"blocks": {"z1": keras_vae.TopDownBlock(2, dtype="float64")}},
            ValueError,
            "different dtypes",
        ),
        (
            {"likelihood": keras_vae.Normal(5, missing=True)},
            ValueError,
            "The encoder does not take absent entries",
        ),
    ],
)
def test_wrong_arguments_are_refused(change, error, message):
    arguments = {
        "blocks": {"z1": keras_vae.TopDownBlock(2)},
        "likelihood": keras_vae.Normal(5),
        **change,
    }
    with pytest.raises(error, match=message):
        keras_vae.HierarchicalVAE(**arguments)


def test_wrong_kinds_are_refused():
    with pytest.raises(ValueError, match="Expected 'ladder', 'residual' or 'bottom_up'"):
        keras_vae.TopDownBlock(2, kind="top_down")
    with pytest.raises(TypeError, match="argument `network`"):
        keras_vae.TopDownBlock(2, network=3)


def test_each_level_of_convolutions_has_filters_by_default():
    vae = keras_vae.hierarchical_vae((8, 8, 1), (3, 2, 1), structure="residual", network="conv")
    shapes = {name: block.latent_shape for name, block in vae.blocks.items()}
    assert shapes == {"z1": (1, 1, 3), "z2": (2, 2, 2), "z3": (4, 4, 1)}
    kernels = [weight.shape for weight in vae.encoder.trainable_weights if len(weight.shape) == 4]
    assert [shape[-1] for shape in kernels] == [16, 32, 64]


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("structure", ["ladder", "residual"])
def test_factory_names_levels_from_the_top(structure, network):
    sizes = (2, 1, 3)
    vae = keras_vae.hierarchical_vae(
        (8, 8, 1), sizes, structure=structure, network=network, hidden=(4, 5)
    )
    shapes = {name: block.latent_shape for name, block in vae.blocks.items()}
    images = {"z1": (2, 2, 2), "z2": (2, 2, 1), "z3": (4, 4, 3)}
    assert shapes == ({"z1": (2,), "z2": (1,), "z3": (3,)} if network == "mlp" else images)
    assert {block.kind for block in vae.blocks.values()} == {structure}
    x = (np.random.default_rng(0).random((3, 8, 8, 1)) < 0.5).astype("float32")
    again = keras_vae.HierarchicalVAE.from_config(vae.get_config())
    again.set_weights(vae.get_weights())
    np.testing.assert_array_equal(again.elbo(x, seed=0).elbo, vae.elbo(x, seed=0).elbo)


def test_factory_takes_a_condition_and_refuses_what_it_cannot_build():
    vae = keras_vae.hierarchical_vae(
        5, (2, 3), "normal", structure="residual", hidden=(4,), condition_shape=2
    )
    data = {"x": np.zeros((3, 5)), "condition": np.eye(3)[:, :2]}
    assert vae.elbo(data).elbo.shape == (3,)
    for options, message in (
        ({"structure": "flat"}, "Expected one of ladder, residual"),
        ({"structure": "bottom_up", "network": "conv"}, "has Dense layers alone"),
        ({"structure": "residual", "hidden_above": (3,)}, "residual levels share one state"),
        ({"network": "rnn"}, "Expected one of mlp, conv"),
        ({"network": "conv"}, "images of shape"),
        ({"likelihood": "gauss"}, "argument `likelihood`"),
    ):
        with pytest.raises(ValueError, match=message):
            keras_vae.hierarchical_vae(5, (2, 3), **options)


@pytest.mark.parametrize("trained", ["residual"], indirect=True)
def test_artifact_decodes_levels_by_name_and_scores_each(trained, tmp_path):
    model, _ = trained
    artifact = export_model(model, tmp_path)
    session = onnxruntime.InferenceSession(artifact / "onnx/decode.onnx")
    z = {f"z_{name}": each.mean().numpy() for name, each in model.encode(COUNTS).items()}
    (mean,) = session.run(["mean"], z)
    np.testing.assert_allclose(mean, model.reconstruct(COUNTS), **FLOAT32)
    session = onnxruntime.InferenceSession(artifact / "onnx/encode.onnx")
    encoded = dict(
        zip(
            [out.name for out in session.get_outputs()],
            session.run(None, {"x": COUNTS}),
            strict=True,
        )
    )
    assert sorted(encoded) == ["scale_low", "scale_top", "z_low", "z_top"]
    for name, q in model.encode(COUNTS).items():
        np.testing.assert_allclose(encoded[f"z_{name}"], q.mean(), **FLOAT32)
        np.testing.assert_allclose(encoded[f"scale_{name}"], q.stddev(), **FLOAT32)
    session = onnxruntime.InferenceSession(artifact / "onnx/score.onnx")
    inputs = {"x": COUNTS, "seed": random.row_seeds(3, 64).numpy()}
    elbo, *rates = session.run(["elbo", "rate_top", "rate_low"], inputs)
    bound = model.elbo(COUNTS, seed=3)
    np.testing.assert_allclose(elbo, bound.elbo, **FLOAT32)
    np.testing.assert_allclose(sum(rates), bound.rate, **FLOAT32)
    assert list(json.loads((artifact / "manifest.json").read_text())["latents"]) == ["top", "low"]
