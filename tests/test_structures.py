"""Models of other structures than one latent vector and one x, each against its exact solution.

Every model is written with public base classes alone. Its bound agrees with the closed form in
float64, and its scores agree in ONNX Runtime.
"""

from dataclasses import replace

import keras
import numpy as np
import onnxruntime
import pytest
import scipy.stats
import tensorflow as tf

import keras_vae
from export import gates, loading, manifest, onnx_graphs
from export.pipeline import export_model
from keras_vae import data, estimators, random
from keras_vae.distributions import Draw, Noise, supports
from keras_vae.distributions.noise import from_rows, from_seed
from keras_vae.distributions.tfp import tfd
from keras_vae.evaluation import log_marginal
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.objectives import Objective, Player, Terms
from keras_vae.signatures import signatures
from keras_vae.trace import Generation, Inference, Observation, Site, Trace, spread
from keras_vae.training.data_spec import DataSpec, Part
from tests.models import binary, terms_of, tiny_vae

EXACT = 1e-10  # float64: sums of a few dozen terms of size 100
FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}  # sums of a few dozen terms in float32, in two programs


def trace_of(model, x, draws=3, seed=5):
    """Makes the trace of a batch at draws from row seeds."""
    rows = tf.nest.flatten(x)[0]
    seeds = random.row_seeds(seed, len(rows))
    return model.infer(x).trace(from_rows(model.noise(), seeds, draws, model.float_dtype))


def in_onnx(model, name, **inputs):
    """Runs a signature in ONNX Runtime and in Keras; returns both by output."""
    signature = signatures(model)[name]
    with loading.traceable(model):
        graph = onnx_graphs.convert(signature, model.weights)
    session = onnxruntime.InferenceSession(graph.model.SerializeToString())
    inputs = {
        key: np.asarray(value, "int32" if key == "seed" else "float32")
        for key, value in inputs.items()
    }
    found = dict(
        zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True)
    )
    return found, {k: v.numpy() for k, v in signature.function(**inputs).items()}


def linear(layer, kernel, bias, inputs):
    """Builds a layer on inputs of some sizes and sets its affine head."""
    layer.build([(None, size) for size in inputs] if len(inputs) > 1 else (None, *inputs))
    layer.head.set_weights([kernel, bias])
    return layer


def normal_head(to_loc, offset, factor):
    """Returns kernel and bias of a FullCovarianceNormal: affine centre, constant factor."""
    size = len(factor)
    diagonal = keras_vae.distributions.inverse_positive(np.diag(factor))
    constant = np.concatenate([diagonal, *(factor[row, :row] for row in range(size))])
    kernel = np.concatenate([to_loc, np.zeros((len(to_loc), len(constant)))], axis=1)
    return kernel, np.concatenate([offset, constant])


# Two levels: z2 -> z1 -> x, everything linear and Gaussian


class Chain(LatentVariableModel):
    """p(z2) p(z1 | z2) p(x | z1), with q(z2 | x) q(z1 | z2, x) from the top down."""

    def __init__(self, middle, likelihood, q_top, q_middle, **kwargs):
        super().__init__(**kwargs)
        self.prior = keras_vae.StandardNormal(q_top.latent_size, dtype=self.dtype_policy)
        self.middle, self.likelihood = middle, likelihood
        self.q_top, self.q_middle = q_top, q_middle
        self.built = True

    @property
    def data(self):
        return DataSpec({"x": Part(self.likelihood.event_shape, supports.reals(), "Normal")})

    def noise(self):
        return {"z2": self.q_top.noise(), "z1": replace(self.q_middle.noise(), index=1)}

    def generation_noise(self):
        own = Noise(self.middle.event_shape, "normal", random.LATENT, index=1)
        return {"z2": self.prior.noise(), "z1": own}

    def infer(self, x, training=False, sample_weight=None):
        x = tf.cast(x, self.float_dtype)
        top = self.q_top.parameters(x, training)

        def say(latent):
            z2 = latent("z2", self.q_top, top, self.prior.distribution())
            own = self.q_middle.parameters([z2.value, spread(x, z2.value)], training)
            z1 = latent("z1", self.q_middle, own, self.middle.distribution(z2.value))
            p = self.likelihood.distribution(z1.value, training)
            return Trace({"z2": z2, "z1": z1}, {"x": Observation(x, p)})

        return Inference.by(say)

    def generate(self, noise=None, latents=None, condition=None):
        if latents is None:
            z2 = self.prior.draw(noise["z2"]).value
            latents = {
                "z2": z2,
                "z1": self.middle.draw(noise["z1"], **self.middle.parameters(z2)).value,
            }
        parameters = self.likelihood.parameters(latents["z1"])
        return Generation(latents, {"x": Site(self.likelihood, parameters)})


def chain(dtype="float64"):
    """Makes the model with exact posteriors, the distribution of x, and data."""
    rng = np.random.default_rng(3)
    w, a = rng.normal(size=(3, 2)), rng.normal(size=(5, 3))
    b, c, s1, s = rng.normal(size=3), rng.normal(size=5), 0.6, 0.4
    evidence = scipy.stats.multivariate_normal(
        a @ b + c, a @ (w @ w.T + s1**2 * np.eye(3)) @ a.T + s**2 * np.eye(5)
    )
    gain = (a @ w).T @ np.linalg.inv(evidence.cov)
    top = np.linalg.cholesky(np.eye(2) - gain @ a @ w)
    covariance = np.linalg.inv(np.eye(3) / s1**2 + a.T @ a / s**2)
    from_z2, from_x = covariance @ w / s1**2, covariance @ a.T / s**2
    offset = covariance @ (b / s1**2 - a.T @ c / s**2)
    policy = {"dtype": dtype}
    model = Chain(
        middle=linear(keras_vae.Normal(3, scale=s1, **policy), w.T, b, [2]),
        likelihood=linear(keras_vae.Normal(5, scale=s, **policy), a.T, c, [3]),
        q_top=linear(
            keras_vae.FullCovarianceNormal(2, **policy),
            *normal_head(gain.T, -gain @ (a @ b + c), top),
            [5],
        ),
        q_middle=linear(
            keras_vae.FullCovarianceNormal(3, **policy),
            *normal_head(
                np.concatenate([from_z2, from_x], axis=1).T, offset, np.linalg.cholesky(covariance)
            ),
            [2, 5],
        ),
        **policy,
    )
    return model, evidence, evidence.rvs(7, random_state=1).astype(dtype)


def test_every_weight_of_an_exact_chain_is_the_evidence():
    model, evidence, x = chain()
    expected = evidence.logpdf(x)
    trace = trace_of(model, x)
    np.testing.assert_allclose(trace.log_weights(), np.tile(expected, (3, 1)), atol=EXACT)
    found = log_marginal(model, x, num_samples=20)
    np.testing.assert_allclose(found.value, expected, atol=EXACT)
    annealed = log_marginal(model, x, "annealed", num_samples=4, temperatures=10, leapfrog_steps=1)
    np.testing.assert_allclose(annealed.value, expected, atol=1e-8)  # 10 sums of log-ratios


def test_rates_of_a_chain_in_closed_form_have_the_mean_of_those_of_draws():
    model, evidence, x = chain()
    trace = trace_of(model, np.tile(x[:1], (20_000, 1)), draws=1)
    for latent in trace.latents.values():
        drawn = latent.log_q() - latent.log_p()
        closed = tfd.kl_divergence(latent.posterior(), latent.p)
        error = float(np.std(drawn - closed)) / np.sqrt(drawn.shape[1])
        assert abs(float(tf.reduce_mean(drawn - closed))) < 5 * error  # 1 in 10^6
    bound = model.elbo(np.tile(x[:1], (20_000, 1)), seed=1).elbo.numpy()
    error = bound.std() / np.sqrt(len(bound))
    assert abs(bound.mean() - evidence.logpdf(x[0])) < 5 * error


def test_chain_is_trained_saved_and_scored(tmp_path):
    model, evidence, x = chain("float32")
    found, expected = in_onnx(model, "score", x=x, seed=random.row_seeds(3, len(x)))
    assert set(found) == {"elbo", "distortion", "rate", "rate_z2", "rate_z1"}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, **FLOAT32)
    np.testing.assert_allclose(found["elbo"], model.elbo(x, seed=3).elbo, **FLOAT32)
    found, expected = in_onnx(model, "sample", seed=random.row_seeds(3, 4))
    assert set(found) == {"sample", "mean", "z_z2", "z_z1"}
    np.testing.assert_allclose(found["sample"], expected["sample"], **FLOAT32)
    np.testing.assert_array_equal(expected["sample"], model.sample(4, seed=3))
    for layer in (model.q_top, model.q_middle):
        layer.head.kernel.assign_add(0.1 * tf.ones_like(layer.head.kernel))
    data = evidence.rvs(512, random_state=2).astype("float32")
    before = model.elbo(data, seed=0).elbo.numpy().mean()
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(data, epochs=15, batch_size=64, verbose=0)
    after = model.elbo(data, seed=0).elbo.numpy().mean()
    assert before < after < evidence.logpdf(data).mean() + 0.5


def test_another_structure_passes_the_gates_and_its_manifest_names_the_latents():
    model = chain("float32")[0]
    gates.check_model(model)
    gates.check_contract(model)
    about = manifest.metadata(model)
    assert about["structure"] == "Chain"
    assert {one["tensor"] for one in about["latents"].values()} == {"z_z1", "z_z2"}


class BottomUp(Chain):
    """The same model, inferred from the bottom up: q(z1 | x) q(z2 | z1)."""

    def noise(self):
        return {"z1": replace(self.q_middle.noise(), index=1), "z2": self.q_top.noise()}

    def infer(self, x, training=False, sample_weight=None):
        x = tf.cast(x, self.float_dtype)
        bottom = self.q_middle.parameters(x, training)

        def say(latent):
            z1 = latent("z1", self.q_middle, bottom, None, in_order=False)
            z2 = latent(
                "z2", self.q_top, self.q_top.parameters(z1.value), self.prior.distribution()
            )
            z1 = z1._replace(p=self.middle.distribution(z2.value))
            p = self.likelihood.distribution(z1.value, training)
            return Trace({"z1": z1, "z2": z2}, {"x": Observation(x, p)})

        return Inference.by(say)


def test_rate_of_a_latent_scored_by_a_later_one_has_no_closed_form():
    model, evidence, x = chain()
    (w, b), (a, c) = (layer.head.get_weights() for layer in (model.middle, model.likelihood))
    w, a, s1, s = w.T, a.T, 0.6, 0.4
    from_x = np.linalg.inv(np.linalg.inv(w @ w.T + s1**2 * np.eye(3)) + a.T @ a / s**2)
    from_z1 = np.linalg.inv(np.eye(2) + w.T @ w / s1**2)
    policy = {"dtype": "float64"}
    prior_pull = from_x @ np.linalg.inv(w @ w.T + s1**2 * np.eye(3)) @ b
    bottom_up = BottomUp(
        middle=model.middle,
        likelihood=model.likelihood,
        q_top=linear(
            keras_vae.FullCovarianceNormal(2, **policy),
            *normal_head(
                (from_z1 @ w.T / s1**2).T, -from_z1 @ w.T @ b / s1**2, np.linalg.cholesky(from_z1)
            ),
            [3],
        ),
        q_middle=linear(
            keras_vae.FullCovarianceNormal(3, **policy),
            *normal_head(
                (from_x @ a.T / s**2).T,
                prior_pull - from_x @ a.T @ c / s**2,
                np.linalg.cholesky(from_x),
            ),
            [5],
        ),
        **policy,
    )
    expected = evidence.logpdf(x)
    trace = trace_of(bottom_up, x)
    np.testing.assert_allclose(trace.log_weights(), np.tile(expected, (3, 1)), atol=EXACT)
    distortion, rate = estimators.elbo_terms(trace_of(bottom_up, np.tile(x[:1], (20_000, 1)), 1))
    bound = -(distortion + rate).numpy()
    error = bound.std() / np.sqrt(len(bound))
    assert abs(bound.mean() - expected[0]) < 5 * error  # the closed form of z1 would be nats off
    with pytest.raises(ValueError, match="has no closed form"):
        bottom_up.compile(objective=keras_vae.ELBO(kl="analytic"))


# Two views of one latent, one of which may be absent


class Views(LatentVariableModel):
    """p(z) p(a | z) p(b | z), with the exact q: prior times the experts of the views present."""

    def __init__(self, a, b, to_loc, factors, **kwargs):
        super().__init__(**kwargs)
        self.prior = keras_vae.StandardNormal(2, dtype=self.dtype_policy)
        self.a, self.b = a, b
        self.q = keras_vae.FullCovarianceNormal(2, dtype=self.dtype_policy)
        self.to_loc, self.factors = to_loc, factors
        self.built = True

    @property
    def data(self):
        a, b = (Part(v.event_shape, supports.reals(), "Normal") for v in (self.a, self.b))
        return DataSpec({"a": a, "b": b, "present": Part((2,))})

    def noise(self):
        return {"z": self.q.noise()}

    def generation_noise(self):
        return {"z": self.prior.noise()}

    def infer(self, x, training=False, sample_weight=None):
        x = {name: tf.cast(part, self.float_dtype) for name, part in x.items()}
        masks = [x["present"][:, index] > 0.5 for index in range(2)]
        pattern = tf.cast(tf.reduce_sum(x["present"] * [1.0, 2.0], axis=-1), tf.int32)
        seen = [
            tf.where(mask[:, None], x[name], tf.zeros_like(x[name]))
            for mask, name in zip(masks, "ab", strict=True)
        ]
        both = tf.concat(seen, axis=-1)
        loc = tf.linalg.matvec(tf.gather(tf.cast(self.to_loc, both.dtype), pattern), both)
        factor = tf.gather(tf.cast(self.factors, both.dtype), pattern)

        def say(latent):
            own = {"loc": loc, "scale_tril": factor}
            z = latent("z", self.q, own, self.prior.distribution())
            views = {
                name: Observation(x[name], view.distribution(z.value), mask)
                for name, view, mask in zip("ab", (self.a, self.b), masks, strict=True)
            }
            return Trace({"z": z}, views)

        return Inference.by(say)

    def generate(self, noise=None, latents=None, condition=None):
        latents = latents or {"z": self.prior.draw(noise["z"]).value}
        sites = {
            name: Site(view, view.parameters(latents["z"]))
            for name, view in (("a", self.a), ("b", self.b))
        }
        return Generation(latents, sites)


def views(dtype="float64"):
    """Makes the model, its covariance of (a, b), and data with every pattern of absence."""
    rng = np.random.default_rng(4)
    maps, scales = [rng.normal(size=(3, 2)), rng.normal(size=(4, 2))], [0.5, 0.8]
    to_loc, factors = [], []
    for pattern in range(4):
        weights = [
            m.T / s**2 * bool(pattern & (1 << i))
            for i, (m, s) in enumerate(zip(maps, scales, strict=True))
        ]
        precision = np.eye(2) + sum(w @ m for w, m in zip(weights, maps, strict=True))
        covariance = np.linalg.inv(precision)
        to_loc.append(covariance @ np.concatenate(weights, axis=1))
        factors.append(np.linalg.cholesky(covariance))
    layers = [
        linear(keras_vae.Normal(len(m), scale=s, dtype=dtype), m.T, np.zeros(len(m)), [2])
        for m, s in zip(maps, scales, strict=True)
    ]
    model = Views(*layers, np.array(to_loc), np.array(factors), dtype=dtype)
    both = np.concatenate(maps)
    covariance = both @ both.T + np.diag(np.repeat(np.square(scales), [3, 4]))
    x = rng.multivariate_normal(np.zeros(7), covariance, size=8).astype(dtype)
    present = np.array([[0, 0], [1, 0], [0, 1], [1, 1]] * 2, dtype)
    return model, covariance, {"a": x[:, :3], "b": x[:, 3:], "present": present}


def test_absent_view_is_marginalised():
    model, covariance, x = views()
    both = np.concatenate([x["a"], x["b"]], axis=1)
    expected = []
    for row, present in zip(both, x["present"], strict=True):
        kept = np.repeat(present.astype(bool), [3, 4])
        part = (
            scipy.stats.multivariate_normal(np.zeros(kept.sum()), covariance[kept][:, kept])
            if kept.any()
            else None
        )
        expected.append(0.0 if part is None else part.logpdf(row[kept]))
    trace = trace_of(model, x)
    np.testing.assert_allclose(trace.log_weights(), np.tile(expected, (3, 1)), atol=EXACT)
    np.testing.assert_allclose(log_marginal(model, x, num_samples=9).value, expected, atol=EXACT)


def test_absent_view_has_neither_value_nor_gradient():
    model, _, x = views()
    hidden = x["present"] == 0
    other = {
        "a": np.where(hidden[:, :1], np.nan, x["a"]),
        "b": np.where(hidden[:, 1:], np.inf, x["b"]),
        "present": x["present"],
    }
    x, other = (tf.nest.map_structure(tf.constant, each) for each in (x, other))
    with tf.GradientTape() as tape:
        tape.watch([other["a"], other["b"]])
        bound = trace_of(model, other).log_weights()
    np.testing.assert_array_equal(bound, trace_of(model, x).log_weights())
    gradients = tape.gradient(bound, [other["a"], other["b"]])
    for index, gradient in enumerate(gradients):
        assert np.all(gradient.numpy()[hidden[:, index]] == 0.0)
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("steps", [None, 1])
def test_named_parts_train_in_the_loop_as_step_by_step(steps):
    histories = []
    for options in ({"run_eagerly": True}, {"steps_per_execution": steps}):
        keras.utils.set_random_seed(0)
        model, _, x = views("float32")
        model.compile("sgd", **options)
        histories.append(
            model.fit(
                x, epochs=2, batch_size=3, shuffle=False, validation_split=0.25, verbose=0
            ).history
        )
    assert model._loop is not None
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5, err_msg=name)  # fused ops


def test_stream_of_parts_is_the_same_from_memory_and_from_files(tmp_path):
    ends = []
    for mapped in (False, True):
        keras.utils.set_random_seed(0)
        model, _, x = views("float32")
        x["b"] = np.arange(32, dtype=np.uint8).reshape(8, 4)
        if mapped:
            np.save(tmp_path / "b.npy", x["b"])
            x["b"] = np.load(tmp_path / "b.npy", mmap_mode="r")
        stream = data.batches(
            x,
            3,
            epochs=3,
            seed=2,
            rescale={"b": 1 / 32},
            transform={"b": data.binarize},
            sample_weight=np.linspace(0.0, 2.0, 8),
        )
        model.compile("sgd")
        model.fit(stream, steps_per_epoch=3, epochs=3, verbose=0)
        assert model._loop is not None
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def test_views_are_scored_and_trained():
    model, _, x = views("float32")
    inputs = {"x_a": x["a"], "x_b": x["b"], "present": x["present"]}
    found, expected = in_onnx(model, "score", **inputs, seed=random.row_seeds(3, 8))
    assert set(found) == {"elbo", "distortion", "rate", "distortion_a", "distortion_b"}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, **FLOAT32)
    assert np.all(found["distortion_a"][[0, 2]] == 0.0)
    model.compile("adam")
    logs = model.fit(x, epochs=2, batch_size=4, verbose=0).history
    assert np.all(np.isfinite(logs["loss"]))
    with pytest.raises(
        keras_vae.DataError, match=r'expects \{"a": ..., "b": ..., "present": ...\}'
    ):
        model.elbo({"a": x["a"], "b": x["b"]})


# An affine inverse autoregressive posterior, which knows the only the density of its own draws


@keras.saving.register_keras_serializable("structures")
class AffineFlow(keras_vae.Posterior):
    """q by z_j = loc_j(x) + scale_j noise_j + sum_{k<j} below_jk noise_k: constant gates."""

    tells_density = False

    def __init__(self, latent_size, network=None, **kwargs):
        super().__init__(latent_size, network, **kwargs)
        own = {"dtype": self.float_dtype, "autocast": False}
        shape = (self.latent_size, self.latent_size)
        self.raw = self.add_weight(shape=shape[:1], initializer="zeros", name="raw", **own)
        self.below = self.add_weight(shape=shape, initializer="zeros", name="below", **own)

    def parameter_specs(self):
        return {"loc": keras_vae.Parameter(self.latent_size)}

    def shared_parameters(self):
        strict = tf.linalg.band_part(self.below, -1, 0) - tf.linalg.band_part(self.below, 0, 0)
        scale = keras_vae.distributions.positive(tf.convert_to_tensor(self.raw))
        return {"gain": strict, "spread": scale}

    def make_distribution(self, loc, gain, spread):
        raise NotImplementedError("An inverse autoregressive flow tells no density of a point.")

    def draw(self, noise, loc, gain, spread):
        value = loc + spread * noise + tf.matmul(noise, gain, transpose_b=True)
        normal = tfd.Normal(tf.zeros([], noise.dtype), 1.0)
        log_prob = tf.reduce_sum(normal.log_prob(noise), -1) - tf.reduce_sum(tf.math.log(spread))
        return Draw(value, log_prob)


def flow(dtype="float64"):
    """Makes the linear-Gaussian model with its exact posterior as a flow, and data."""
    rng = np.random.default_rng(1)
    exact = keras_vae.LinearGaussian(rng.normal(size=(5, 3)), rng.normal(size=5), 0.7, dtype)
    twin = exact.vae(full_covariance=True)
    factor = exact.posterior(np.zeros((1, 5))).scale.to_dense().numpy().reshape(3, 3)
    posterior = AffineFlow(3, dtype=dtype)
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(3, dtype=dtype),
        likelihood=twin.likelihood,
        posterior=posterior,
        dtype=dtype,
    )
    kernel, bias = twin.posterior.head.get_weights()
    posterior.head.set_weights([kernel[:, :3], bias[:3]])
    posterior.below.assign(factor)
    posterior.raw.assign(keras_vae.distributions.inverse_positive(np.diag(factor)))
    return exact, vae, rng.normal(size=(6, 5)).astype(dtype)


def test_flow_of_constant_gates_is_exact():
    exact, vae, x = flow()
    expected = exact.log_prob(x).numpy()
    np.testing.assert_allclose(
        trace_of(vae, x).log_weights(), np.tile(expected, (3, 1)), atol=EXACT
    )
    np.testing.assert_allclose(vae.elbo(x, seed=2).elbo, expected, atol=EXACT)
    np.testing.assert_allclose(log_marginal(vae, x, num_samples=9).value, expected, atol=EXACT)
    np.testing.assert_allclose(vae.reconstruct(x), exact.vae().reconstruct(x), atol=EXACT)


def test_what_needs_the_density_of_other_points_refuses_a_flow():
    _, vae, x = flow()
    for objective in (
        keras_vae.ELBO(kl="monte_carlo", gradient="sticking_the_landing"),
        keras_vae.IWAE(3, gradient="doubly_reparameterized"),
    ):
        with pytest.raises(ValueError, match="only the density of its own draws"):
            vae.compile(objective=objective)
    with pytest.raises(ValueError, match="no closed form"):
        vae.compile(objective=keras_vae.ELBO(kl="analytic"))
    with pytest.raises(ValueError, match="only the density of its own draws"):
        log_marginal(vae, x, "annealed", num_samples=2, temperatures=2)


def test_flow_is_trained_converted_and_scored():
    _, vae, x = flow("float32")
    vae.compile("adam", keras_vae.IWAE(3))
    vae.fit(x, epochs=2, verbose=0)
    assert_scores(vae, x)


def assert_scores(vae, x):
    """Asserts that the scores in ONNX Runtime are those of Python."""
    found, _ = in_onnx(vae, "score", x=x, seed=random.row_seeds(3, len(x)))
    np.testing.assert_allclose(found["elbo"], vae.elbo(x, seed=3).elbo, **FLOAT32)


# A categorical latent


@keras.saving.register_keras_serializable("structures")
class UniformCodes(keras_vae.Prior):
    """p(z) uniform over one-hot vectors."""

    def parameters(self, condition=None):
        return {}

    def make_distribution(self):
        logits = tf.zeros([self.latent_size], self.float_dtype)
        return tfd.OneHotCategorical(logits=logits, dtype=self.float_dtype)

    def noise(self):
        return Noise((), "uniform", random.COMPONENT)

    def draw(self, noise):
        logits = tf.zeros(tf.concat([tf.shape(noise), [self.latent_size]], 0))
        codes = random.categorical(tf.cast(noise, tf.float32), logits)
        return Draw(tf.cast(codes, self.float_dtype))


@keras.saving.register_keras_serializable("structures")
class Codes(keras_vae.Posterior):
    """q(z | x) categorical over one-hot vectors."""

    def parameter_specs(self):
        return {"logits": keras_vae.Parameter(self.latent_size)}

    def make_distribution(self, logits):
        return tfd.OneHotCategorical(logits=logits, dtype=logits.dtype)

    def noise(self):
        return Noise((), "uniform", random.POSTERIOR)

    def draw(self, noise, logits):
        leading = tf.concat([tf.shape(noise), tf.shape(logits)[-1:]], 0)
        codes = random.categorical(
            tf.cast(noise, tf.float32), tf.cast(tf.broadcast_to(logits, leading), tf.float32)
        )
        return Draw(tf.cast(codes, logits.dtype))


def mixture(dtype="float64"):
    """Makes a mixture of four normal distributions of one scale, with a posterior affine in x."""
    rng = np.random.default_rng(6)
    centres, scale = 2.0 * rng.normal(size=(4, 5)), 0.9
    vae = keras_vae.VAE(
        prior=UniformCodes(4, dtype=dtype),
        likelihood=linear(keras_vae.Normal(5, scale=scale, dtype=dtype), centres, np.zeros(5), [4]),
        posterior=linear(
            Codes(4, dtype=dtype),
            centres.T / scale**2,
            -0.5 * (centres**2).sum(1) / scale**2,
            [5],
        ),
        dtype=dtype,
    )
    x = (centres[rng.integers(4, size=9)] + scale * rng.normal(size=(9, 5))).astype(dtype)
    each = [scipy.stats.norm(c, scale).logpdf(x).sum(1) for c in centres]
    return vae, x, scipy.special.logsumexp(each, axis=0) - np.log(4)


def test_bound_of_exact_codes_is_the_evidence_drawn_and_enumerated():
    vae, x, expected = mixture()
    trace = trace_of(vae, x)
    np.testing.assert_allclose(trace.log_weights(), np.tile(expected, (3, 1)), atol=EXACT)
    codes = np.tile(np.eye(4)[:, None], (1, len(x), 1))
    everywhere = vae.infer(x).at({"z": tf.constant(codes)})
    evidence = tf.reduce_logsumexp(everywhere.log_joint(), axis=0)
    np.testing.assert_allclose(evidence, expected, atol=EXACT)
    weights = tf.exp(trace.latents["z"].posterior().log_prob(codes))
    enumerated = tf.reduce_sum(weights * everywhere.log_weights(), axis=0)
    np.testing.assert_allclose(enumerated, expected, atol=EXACT)
    distortion, rate = estimators.elbo_terms(trace)  # the rate in closed form, D of three draws
    assert np.all(np.isfinite(distortion))
    assert np.all(rate > 0.0)


def test_codes_are_converted_and_scored():
    vae, x, _ = mixture("float32")
    assert_scores(vae, x)


# An objective with a critic


@keras.saving.register_keras_serializable("structures")
class TotalCorrelation(Objective):
    """ELBO with a penalty that a critic estimates: it tells draws of z from shuffled ones."""

    metric_names = ("critic_loss",)

    def __init__(self, critic, optimizer="adam", *, num_samples=1, gradient="pathwise", **kwargs):
        super().__init__(num_samples, gradient, **kwargs)
        self.critic, self.optimizer = critic, self.make_optimizer(optimizer)

    def terms(self, inference, noise):
        trace = inference.trace(noise)
        distortion, rate = estimators.elbo_terms(trace)
        z = trace.latents["z"].value[0]
        shuffled = tf.stack([tf.roll(z[:, j], j, 0) for j in range(z.shape[1])], axis=-1)
        joint, independent = (self.critic(tf.stop_gradient(v))[:, 0] for v in (z, shuffled))
        critic_loss = tf.nn.softplus(-joint) + tf.nn.softplus(independent)
        loss = distortion + rate + tf.cast(self.critic(z)[:, 0], rate.dtype)
        return Terms(loss, distortion, rate, {"critic_loss": critic_loss}, trace)

    def players(self, model):
        weights = self.critic.trainable_weights
        critic = Player(weights, self.optimizer, lambda terms: terms.extra["critic_loss"])
        return [*super().players(model), critic]

    def get_config(self):
        layers = {key: keras.saving.serialize_keras_object(getattr(self, key)) for key in KEPT}
        return {**super().get_config(), **layers}

    @classmethod
    def from_config(cls, config):
        layers = {key: keras.saving.deserialize_keras_object(config[key]) for key in KEPT}
        return cls(**{**config, **layers})


KEPT = ("critic", "optimizer")


def critic():
    return keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])


def adversarial(seed=1, **kwargs):
    keras.utils.set_random_seed(seed)
    vae = tiny_vae()
    vae.compile("adam", TotalCorrelation(critic()), **kwargs)
    return vae


OPTIONS = {"shuffle": False, "verbose": 0, "batch_size": 12}


def test_two_players_move_their_own_weights_by_their_own_gradients():
    vae, x = adversarial(run_eagerly=True), binary()
    objective = vae.objective
    before = [w.numpy() for w in (*vae.trainable_weights, *objective.critic.trainable_weights)]
    assert not {id(w) for w in objective.critic.weights} & {id(w) for w in vae.weights}
    with tf.GradientTape(persistent=True) as tape:
        terms = terms_of(vae, objective, x, 3)
        loss, critic_loss = tf.reduce_mean(terms.loss), tf.reduce_mean(terms.extra["critic_loss"])
    for player, own in zip(objective.players(vae), (loss, critic_loss), strict=True):
        assert all(g is not None for g in tape.gradient(own, player.weights))
        np.testing.assert_array_equal(tf.reduce_mean(player.loss(terms)), own)
    history = vae.fit(x, epochs=2, **OPTIONS).history
    assert "critic_loss" in history
    after = [w.numpy() for w in (*vae.trainable_weights, *objective.critic.trainable_weights)]
    assert all(np.any(a != b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("kwargs", [{}, {"jit_compile": True}], ids=["graph", "xla"])
def test_two_players_learn_the_same_in_every_loop(kwargs):
    x = binary()
    expected = adversarial(run_eagerly=True).fit(x, epochs=2, **OPTIONS).history
    found = adversarial(**kwargs).fit(x, epochs=2, **OPTIONS).history
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4)  # other orders of summation


def test_critic_is_saved_with_its_optimizer_and_resumes(tmp_path):
    x = binary()
    whole = adversarial()
    whole.fit(x, epochs=2, **OPTIONS)
    first = adversarial()
    first.fit(x, epochs=1, **OPTIONS)
    first.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    again.fit(x, epochs=2, initial_epoch=1, **OPTIONS)
    for a, b in (
        (again.get_weights(), whole.get_weights()),
        (again.objective.critic.get_weights(), whole.objective.critic.get_weights()),
    ):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


def test_backup_brings_the_critic_back(tmp_path):
    x = binary()
    whole = adversarial()
    whole.fit(x, epochs=3, **OPTIONS)
    killed = adversarial()
    backup = keras_vae.callbacks.Backup(tmp_path, keep=True)
    killed.fit(x, epochs=1, callbacks=[backup], **OPTIONS)
    resumed = adversarial(seed=2)
    resumed.fit(x, epochs=3, callbacks=[keras_vae.callbacks.Backup(tmp_path)], **OPTIONS)
    for left, right in zip(
        resumed.objective.critic.get_weights(), whole.objective.critic.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("where", ["mixed_float16", "replicas"])
def test_two_players_train_elsewhere(where):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"]) if where == "replicas" else None
    if where == "mixed_float16":
        keras.config.set_dtype_policy(where)  # which the fixture of conftest.py clears
    with strategy.scope() if strategy else keras.name_scope("none"):
        vae = adversarial()
    is_scaled = isinstance(vae.objective.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (where == "mixed_float16")
    before = vae.objective.critic.get_weights()
    logs = vae.fit(binary(), epochs=2, **OPTIONS).history
    assert np.all(np.isfinite([logs[name] for name in logs]))
    assert np.any(vae.objective.critic.get_weights()[0] != before[0])


def test_critic_is_never_exported(tmp_path):
    vae, x = adversarial(), binary()
    vae.fit(x, **OPTIONS)
    artifact = export_model(vae, tmp_path)
    session = onnxruntime.InferenceSession(artifact / "onnx/score.onnx")
    seeds = random.row_seeds(3, len(x)).numpy()
    (elbo,) = session.run(["elbo"], {"x": x, "seed": seeds})
    np.testing.assert_allclose(elbo, vae.elbo(x, seed=3).elbo, **FLOAT32)
    variables = tf.train.list_variables(str(artifact / "variables/variables"))
    shapes = {tuple(shape) for _, shape in variables}
    assert (8, 1) not in shapes  # the last layer of the critic


# A posterior with weights of its own


class Shared(keras_vae.DiagonalNormal):
    """q(z | x) with a scale that is a weight of the layer, told as a parameter or not."""

    def __init__(self, latent_size, *, told=True, **kwargs):
        super().__init__(latent_size, **kwargs)
        self.told = told
        own = {"dtype": self.float_dtype, "autocast": False}
        self.log_scale = self.add_weight(
            shape=(self.latent_size,), initializer=keras.initializers.Constant(-0.3), **own
        )

    def parameter_specs(self):
        return {"loc": keras_vae.Parameter(self.latent_size)}

    def shared_parameters(self):
        return {"scale": tf.exp(self.log_scale)} if self.told else {}

    def make_distribution(self, loc, scale=None):
        scale = tf.exp(self.log_scale) if scale is None else scale
        return super().make_distribution(loc, scale * tf.ones_like(loc))

    def draw(self, noise, loc, scale=None):
        scale = tf.exp(self.log_scale) if scale is None else scale
        return super().draw(noise, loc, scale * tf.ones_like(loc))


def shared(**kwargs):
    return keras_vae.VAE(
        prior=keras_vae.NormalMixture(2, 3, dtype="float64"),
        likelihood=keras_vae.Normal(5, dtype="float64"),
        posterior=Shared(2, dtype="float64", **kwargs),
        dtype="float64",
    )


@pytest.mark.parametrize("draws", [1, 4])
def test_constant_q_holds_the_weights_of_the_posterior_constant(draws):
    """What is left out is the score of log s in N(loc, s), noise^2 - 1, and nothing else."""
    vae, x = shared(), np.random.default_rng(0).normal(size=(6, 5))
    plain = keras_vae.ELBO(kl="monte_carlo", num_samples=draws)
    sticking = keras_vae.ELBO(gradient="sticking_the_landing", num_samples=draws)
    noise = from_seed(vae.noise(), tf.constant([3, 0]), [draws, 6], "float64")
    found = []
    for objective in (plain, sticking):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(objective.terms(vae.infer(x), noise).loss)
        found.append(tape.gradient(loss, vae.posterior.log_scale).numpy())
    score = (noise["z"].numpy() ** 2 - 1.0).mean(axis=(0, 1))
    np.testing.assert_allclose(found[0] - found[1], score, atol=EXACT)


@pytest.mark.parametrize(
    "objective",
    [
        lambda: keras_vae.ELBO(gradient="sticking_the_landing"),
        lambda: keras_vae.IWAE(3, gradient="doubly_reparameterized"),
    ],
)
def test_weights_that_q_keeps_to_itself_are_refused_by_name(objective):
    shared().compile(objective=objective())
    with pytest.raises(ValueError, match=r"reads the weight .* besides its parameters"):
        shared(told=False).compile(objective=objective())


def test_shared_parameters_of_a_posterior_are_honoured_everywhere(tmp_path):
    vae, x = shared(), np.random.default_rng(0).normal(size=(6, 5))
    scale = np.exp(-0.3)
    np.testing.assert_allclose(vae.encode(x).stddev(), np.full((6, 2), scale), atol=EXACT)
    q = trace_of(vae, x).latents["z"].posterior()
    np.testing.assert_allclose(q.stddev(), np.full((6, 2), scale), atol=EXACT)
    found = signatures(vae)["encode"].function(x=x.astype("float32"))
    np.testing.assert_allclose(found["scale"], np.full((6, 2), scale), rtol=1e-6)
    vamp = keras_vae.VAE(
        prior=keras_vae.VampPrior(2, 3),
        likelihood=keras_vae.Normal(5, network=keras.layers.Dense(4)),
        posterior=Shared(2),
    )
    np.testing.assert_allclose(vamp.prior.components().scale, np.full((3, 2), scale), rtol=1e-6)
    with tf.GradientTape() as tape:
        tf.reduce_mean(vamp.elbo(x.astype("float32"), seed=0).elbo)
        loss = tf.reduce_mean(terms_of(vamp, keras_vae.ELBO(), x.astype("float32"), 0).loss)
    assert np.any(tape.gradient(loss, vamp.posterior.log_scale))


# A prior that is given the condition


def conditional(**kwargs):
    return keras_vae.VAE(
        prior=keras_vae.ConditionalNormal(
            2, network=keras.layers.Dense(4, "tanh", **kwargs), **kwargs
        ),
        likelihood=keras_vae.Normal(5, **kwargs),
        posterior=keras_vae.DiagonalNormal(2, **kwargs),
        condition_shape=3,
        **kwargs,
    )


def test_conditional_prior_scores_and_draws_at_its_condition():
    vae = conditional(dtype="float64")
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(6, 5)), "condition": rng.normal(size=(6, 3))}
    p = vae.prior.normal.distribution(data["condition"])
    z = rng.normal(size=(6, 2))
    expected = p.log_prob(z) + vae.decode(z, data["condition"]).log_prob(data["x"])
    np.testing.assert_allclose(vae.log_joint(data, z), expected, atol=EXACT)
    rate = tfd.kl_divergence(vae.encode(data), p)
    np.testing.assert_allclose(vae.elbo(data, seed=0).rate, rate, atol=EXACT)
    given = np.repeat(data["condition"][:1], 20_000, axis=0)
    draws = vae.prior.draw_rows(random.row_seeds(0, len(given)), given).numpy()
    error = p.stddev()[0] / np.sqrt(len(given))
    assert np.all(np.abs(draws.mean(0) - p.mean()[0]) < 5 * error)  # 1 in 10^6
    with pytest.raises(ValueError, match="needs the condition"):
        vae.prior.distribution()
    with pytest.raises(ValueError, match="this model has no condition"):
        keras_vae.VAE(
            prior=keras_vae.ConditionalNormal(2),
            likelihood=keras_vae.Normal(5),
            posterior=keras_vae.DiagonalNormal(2),
        )


def test_conditional_prior_is_trained_saved_and_converted(tmp_path):
    vae, rng = conditional(), np.random.default_rng(0)
    data = {
        "x": rng.normal(size=(32, 5)).astype("float32"),
        "condition": rng.normal(size=(32, 3)).astype("float32"),
    }
    vae.compile("adam")
    vae.fit(data, epochs=2, verbose=0)
    vae.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.elbo(data, seed=1).elbo, vae.elbo(data, seed=1).elbo)
    seeds = random.row_seeds(3, 32)
    found, _ = in_onnx(again, "score", seed=seeds, **data)
    np.testing.assert_allclose(found["elbo"], vae.elbo(data, seed=3).elbo, **FLOAT32)
    found, _ = in_onnx(again, "sample", seed=seeds, condition=data["condition"])
    expected = vae.sample(32, seed=3, condition=data["condition"])
    np.testing.assert_allclose(found["sample"], expected, **FLOAT32)
