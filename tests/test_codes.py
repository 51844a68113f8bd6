"""Discrete latents: exact bounds by enumeration, quantisers against NumPy, refusals."""

import dataclasses
import itertools
import json

import keras
import numpy as np
import onnxruntime
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import keras_vae
from export import loading, onnx_graphs
from export.cases import Case
from export.errors import ExportError
from export.parity.other_codes import OtherCodes
from export.pipeline import export_model
from keras_vae import commands, estimators, random
from keras_vae.distributions.noise import from_rows
from keras_vae.evaluation import log_marginal
from keras_vae.runs import measurements
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.run import Run
from keras_vae.runs.train import train
from keras_vae.signatures import signatures
from serving.artifact import Artifact
from serving.ranges import Range

EXACT = 1e-10  # float64: sums of a few dozen terms of size 100
SCALE = 0.9


def trace_of(vae, x, draws=3, seed=5):
    seeds = random.row_seeds(seed, len(x))
    return vae.infer(x).trace(from_rows(vae.noise(), seeds, draws, vae.float_dtype))


def terms_of(vae, objective, x, seed=5, draws=1):
    seeds = random.row_seeds(seed, len(x))
    noise = from_rows(vae.noise(), seeds, draws, vae.float_dtype)
    return objective.terms(vae.infer(x), noise)


def affine(layer, kernel, bias):
    layer.build((None, len(kernel)))
    layer.head.set_weights([kernel, bias])
    return layer


def mixture(exact=True, dtype="float64"):
    """Makes a mixture of four normal distributions, with the exact q(z | x) or another."""
    rng = np.random.default_rng(6)
    centres = 0.8 * rng.normal(size=(4, 5))
    kernel, bias = centres.T / SCALE**2, -0.5 * (centres**2).sum(1) / SCALE**2
    if not exact:
        kernel, bias = kernel + 0.2 * rng.normal(size=kernel.shape), bias + rng.normal(size=4)
    vae = keras_vae.VAE(
        prior=keras_vae.UniformCodes(dtype=dtype),
        likelihood=affine(keras_vae.Normal(5, scale=SCALE, dtype=dtype), centres, np.zeros(5)),
        posterior=affine(keras_vae.CategoricalLatent(1, 4, dtype=dtype), kernel, bias),
        dtype=dtype,
    )
    x = (centres[rng.integers(4, size=9)] + SCALE * rng.normal(size=(9, 5))).astype(dtype)
    each = np.array([scipy.stats.norm(c, SCALE).logpdf(x).sum(1) for c in centres])
    return vae, x, each, scipy.special.log_softmax(x @ kernel + bias, axis=1).T


def test_every_weight_of_an_exact_categorical_latent_is_the_evidence():
    vae, x, each, _ = mixture()
    expected = scipy.special.logsumexp(each, axis=0) - np.log(4)
    np.testing.assert_allclose(
        trace_of(vae, x).log_weights(), np.tile(expected, (3, 1)), atol=EXACT
    )
    found = log_marginal(vae, x, "enumeration")
    assert found.side == "exact"
    np.testing.assert_allclose(found.value, expected, atol=EXACT)
    terms = terms_of(vae, keras_vae.EnumeratedELBO(), x)
    np.testing.assert_allclose(-terms.loss, expected, atol=EXACT)


def test_enumerated_bound_and_its_gradient_are_those_of_the_formula():
    vae, x, each, log_q = mixture(exact=False)
    bound = (np.exp(log_q) * (each - np.log(4) - log_q)).sum(0)
    assert np.all(bound < scipy.special.logsumexp(each, axis=0) - np.log(4))
    terms = terms_of(vae, keras_vae.EnumeratedELBO(), x)
    np.testing.assert_allclose(-(terms.distortion + terms.rate), bound, atol=EXACT)
    expected = (np.exp(log_q) * (log_q + np.log(4))).sum(0)
    np.testing.assert_allclose(terms.rate, expected, atol=EXACT)
    weights = [*vae.posterior.head.weights, *vae.likelihood.head.weights]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(terms_of(vae, keras_vae.EnumeratedELBO(), x).loss)
    found = tape.gradient(loss, [weight.value for weight in weights])
    own = [tf.Variable(weight) for weight in weights]
    with tf.GradientTape() as tape:
        log_q = tf.nn.log_softmax(x @ own[0] + own[1])
        squares = tf.reduce_sum((x[:, None] - own[2] - own[3]) ** 2, axis=-1)
        log_p = -0.5 * squares / SCALE**2 - 2.5 * np.log(2 * np.pi * SCALE**2)
        expected = -tf.reduce_sum(tf.exp(log_q) * (log_p - np.log(4.0) - log_q))
    for one, other in zip(found, tape.gradient(expected, own), strict=True):
        np.testing.assert_allclose(one, other, atol=EXACT)


def test_mean_bound_of_draws_is_the_enumerated_one():
    vae, x, each, log_q = mixture(exact=False)
    bound = (np.exp(log_q) * (each - np.log(4) - log_q)).sum(0)[0]
    found = vae.elbo(np.tile(x[:1], (20_000, 1)), seed=1).elbo.numpy()
    assert abs(found.mean() - bound) < 5 * found.std() / np.sqrt(len(found))  # 1 in 10^6


def test_relaxed_draws_train_and_exact_draws_are_reported():
    vae, x, _, _ = mixture(exact=False)
    with tf.GradientTape(persistent=True) as tape:
        terms = terms_of(vae, keras_vae.RelaxedELBO(num_samples=3), x, draws=3)
    trace = trace_of(vae, x)
    distortion, rate = estimators.elbo_terms(trace)
    np.testing.assert_array_equal(terms.distortion, distortion)
    np.testing.assert_array_equal(terms.rate, rate)
    assert set(np.unique(trace.latents["z"].value)) == {0.0, 1.0}
    relaxed = trace.latents["z"].draw.relaxed
    np.testing.assert_allclose(tf.reduce_sum(relaxed, -1), 1.0, atol=EXACT)
    own = vae.infer(x).at({"z": relaxed})
    expected = tf.reduce_mean(-own.log_likelihood(), 0) + rate
    np.testing.assert_allclose(terms.loss, expected, atol=EXACT)
    assert np.all(terms.loss != terms.distortion + terms.rate)
    kernel = vae.posterior.head.kernel.value
    assert tape.gradient(terms.loss, kernel) is not None
    assert tape.gradient(terms.distortion, kernel) is None


def test_straight_through_draw_is_exact_and_has_the_gradient_of_the_softmax():
    layer = keras_vae.CategoricalLatent(2, 3, temperature=0.7, dtype="float64")
    rng = np.random.default_rng(0)
    logits, noise = (tf.constant(rng.uniform(size=(4, 6))) for _ in range(2))
    towards = rng.normal(size=(4, 6))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        draw = layer.draw(noise, logits)
    gumbel = -np.log(-np.log(noise)).reshape(4, 2, 3)
    best = np.argmax(logits.numpy().reshape(4, 2, 3) + gumbel, axis=-1)
    np.testing.assert_array_equal(draw.value, np.eye(3)[best].reshape(4, 6))
    found = tape.gradient(draw.value, logits, output_gradients=tf.constant(towards))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        soft = tf.nn.softmax((tf.reshape(logits, (4, 2, 3)) + gumbel) / 0.7)
    expected = tape.gradient(soft, logits, output_gradients=tf.constant(towards.reshape(4, 2, 3)))
    np.testing.assert_allclose(found, expected, atol=EXACT)


def test_codes_of_a_categorical_latent_are_independent():
    keras.utils.set_random_seed(0)
    policy = {"dtype": "float64"}
    vae = keras_vae.VAE(
        prior=keras_vae.UniformCodes(**policy),
        likelihood=keras_vae.Normal(5, **policy),
        posterior=keras_vae.CategoricalLatent(2, 3, **policy),
        **policy,
    )
    x = np.random.default_rng(0).normal(size=(4, 5))
    q, p = vae.encode(x), vae.prior.distribution()
    every = np.array(list(itertools.product(range(3), repeat=2)))
    z = vae.posterior.embed(every)
    np.testing.assert_array_equal(vae.posterior.codes_of(z), every)
    log_q, log_p = (np.array([each.log_prob(one) for one in z]).reshape(9, -1) for each in (q, p))
    np.testing.assert_allclose(np.exp(log_q).sum(0), 1.0, atol=EXACT)
    expected = (np.exp(log_q) * (log_q - log_p)).sum(0)
    np.testing.assert_allclose(vae.elbo(x, seed=0).rate, expected, atol=EXACT)
    best = np.argmax(q.log_prob(z[:, None]), axis=0)
    np.testing.assert_array_equal(q.codes, every[best])


# Quantisers


QUANTIZERS = {
    "vectors": lambda **k: keras_vae.VectorQuantizer(1, 6, 3, **k),
    "stages": lambda **k: keras_vae.VectorQuantizer(2, 3, 2, stages=2, **k),
    "grid": lambda **k: keras_vae.VectorQuantizer((2, 1), 4, 2, **k),
    "scalars": lambda **k: keras_vae.FiniteScalarQuantizer(2, (2, 3), **k),
    "signs": lambda **k: keras_vae.LookupFreeQuantizer((1, 2), 3, **k),
    "categories": lambda **k: keras_vae.CategoricalLatent(3, 4, **k),
}
every_quantizer = pytest.mark.parametrize("make", QUANTIZERS.values(), ids=QUANTIZERS)


def vae_of(make, prior=None, dtype="float64", size=5):
    """Makes a model of vectors x whose encoder has the shape that the codes ask for."""
    keras.utils.set_random_seed(1)
    policy = {"dtype": dtype}
    shape = make(**policy).grid
    encoder = keras.Sequential(
        [keras.layers.Dense(4 * int(np.prod(shape)), "tanh", **policy)]
        + ([keras.layers.Reshape((*shape, 4), **policy)] if len(shape) > 1 else [])
    )
    decoder = keras.layers.Flatten(**policy) if len(shape) > 1 else None
    vae = keras_vae.VAE(
        prior=prior or keras_vae.UniformCodes(**policy),
        likelihood=keras_vae.Normal(size, network=decoder, **policy),
        posterior=make(network=encoder, **policy),
        **policy,
    )
    x = np.random.default_rng(0).normal(size=(24, size)).astype(dtype)
    return vae, x


@every_quantizer
def test_bound_is_log_p_of_x_and_codes_and_lies_below_the_evidence(make):
    vae, x = vae_of(make)
    codes, prior = vae.posterior, vae.prior
    found = vae.elbo(x, seed=3)
    evidence = log_marginal(vae, x, "enumeration").value
    if isinstance(codes, keras_vae.CategoricalLatent):
        found = terms_of(vae, keras_vae.EnumeratedELBO(), x)
        assert np.all(-(found.distortion + found.rate) < evidence)
        return
    q = vae.encode(x)
    loc = vae.decode(codes.embed(q.codes)).mean()
    log_p = scipy.stats.norm(loc, 1.0).logpdf(x).sum(1) - codes.count * np.log(codes.num_codes)
    np.testing.assert_allclose(found.elbo, log_p, atol=EXACT)
    np.testing.assert_allclose(prior.distribution().log_prob(q.mode()), -found.rate, atol=EXACT)
    assert np.all(found.elbo < evidence)
    importance = log_marginal(vae, x, num_samples=4)
    np.testing.assert_allclose(importance.value, found.elbo, atol=EXACT)


@every_quantizer
def test_codes_and_embeddings_convert_into_each_other(make):
    codes = make()
    every = np.array(list(itertools.product(range(codes.num_codes), repeat=min(codes.count, 3))))
    every = np.resize(every, (len(every), codes.count)).astype(np.int32)
    z = codes.embed(codes.in_shape(every))
    assert z.shape == (len(every), codes.latent_size)
    np.testing.assert_array_equal(codes.codes_of(z), every)
    np.testing.assert_array_equal(codes.side_by_side(codes.in_shape(every)), every)
    assert codes.features(z).shape == (len(every), *codes.features_shape)
    with pytest.raises(ValueError, match="Expected codes of shape"):
        codes.embed(np.zeros((2, 17)))


@pytest.mark.parametrize("kind", ["stages", "signs"])
def test_codes_are_trained_in_the_loop_as_step_by_step(kind):
    histories = []
    for options in ({"run_eagerly": True}, {}):
        vae, x = vae_of(QUANTIZERS[kind], dtype="float32")
        vae.compile(keras.optimizers.Adam(1e-2), monitor=True, **options)
        fit = {"epochs": 2, "batch_size": 8, "shuffle": False, "verbose": 0}
        histories.append(vae.fit(x, **fit).history)
    for name, values in histories[0].items():
        # Other orders of summation; a code that moves because of them would differ by more.
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-3, err_msg=name)


@every_quantizer
def test_model_with_codes_is_saved_and_loaded(make, tmp_path):
    vae, x = vae_of(make, dtype="float32")
    for weight in vae.posterior.non_trainable_weights:
        weight.assign(weight + 1)
    vae.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.elbo(x, seed=0).elbo, vae.elbo(x, seed=0).elbo)
    np.testing.assert_array_equal(again.sample(3, seed=1), vae.sample(3, seed=1))
    for one, other in zip(again.weights, vae.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_scalars_are_rounded_to_equal_parts_with_the_gradient_of_no_rounding():
    layer = keras_vae.FiniteScalarQuantizer(1, (2, 5), dtype="float64")
    features = tf.constant(np.random.default_rng(0).normal(size=(50, 2)) * 3)
    with tf.GradientTape() as tape:
        tape.watch(features)
        draw = layer.draw(tf.zeros([50], "float64"), features)
    levels = np.array([2, 5])
    s = scipy.special.expit(features)
    places = np.floor(levels * s)
    np.testing.assert_allclose(draw.value, 2 * places / (levels - 1) - 1, atol=EXACT)
    np.testing.assert_array_equal(layer.codes_of(draw.value)[:, 0], places @ [1, 2])
    expected = 2 * levels / (levels - 1) * s * (1 - s)
    np.testing.assert_allclose(tape.gradient(draw.value, features), expected, atol=EXACT)


def test_entropy_term_of_signs_is_that_of_the_formula():
    layer = keras_vae.LookupFreeQuantizer(2, 3, entropy=0.7, dtype="float64")
    layer.means.assign([0.2, 0.5, 0.9])
    features = np.random.default_rng(0).normal(size=(4, 6))
    draw = layer.draw(tf.zeros([4], "float64"), tf.constant(features), layer.means.value)
    s, m = scipy.special.expit(features).reshape(4, 2, 3), np.array([0.2, 0.5, 0.9])
    term = scipy.stats.bernoulli(s).entropy() + s * np.log(m) + (1 - s) * np.log(1 - m)
    np.testing.assert_allclose(draw.penalties["entropy"], 0.7 * term.sum((1, 2)), atol=EXACT)
    layer.observe({"features": tf.constant(features)}, tf.constant([1.0, 0.0, 2.0, 1.0]))
    mean = np.average(s.mean(1), axis=0, weights=[1, 0, 2, 1])
    np.testing.assert_allclose(layer.means, 0.99 * m + 0.01 * mean, atol=EXACT)


def nearest(rows, vectors):
    return ((rows[:, None] - vectors) ** 2).sum(-1).argmin(1)


def test_vectors_are_the_forgetting_means_of_the_features_that_chose_them():
    rng = np.random.default_rng(2)
    layer = keras_vae.VectorQuantizer(2, 4, 3, decay=0.8, revive=0.0, dtype="float64")
    book = layer.codebook.numpy()[0]
    counts, totals = np.zeros(4), np.zeros((4, 3))
    for _ in range(3):
        features, weight = rng.normal(size=(10, 6)), rng.uniform(size=10)
        parameters = {"features": tf.constant(features), **layer.shared_parameters()}
        layer.observe(parameters, tf.constant(weight))
        rows, w = features.reshape(20, 3), np.repeat(weight, 2)
        chosen = np.eye(4)[nearest(rows, book)] * w[:, None]
        counts = 0.8 * counts + 0.2 * chosen.sum(0)
        totals = 0.8 * totals + 0.2 * chosen.T @ rows
        seen = counts > 0
        book[seen] = totals[seen] / counts[seen, None]
        np.testing.assert_allclose(layer.codebook[0], book, atol=EXACT)
        np.testing.assert_allclose(layer.counts[0], counts, atol=EXACT)


def test_codes_are_those_of_the_nearest_vectors_far_from_the_origin():
    rng = np.random.default_rng(3)
    layer = keras_vae.VectorQuantizer(1, 32, 4)
    book = (rng.normal(size=(32, 4)) + 1e4).astype("float32")  # steps of 0.001 in float32
    rows = (rng.normal(size=(500, 4)) + 1e4).astype("float32")
    layer.codebook.assign(book[None])
    exact = nearest(rows.astype("float64"), book.astype("float64"))
    np.testing.assert_array_equal(layer.codes_of(rows)[:, 0], exact)


def test_unused_vectors_move_to_features_of_the_batch():
    layer = keras_vae.VectorQuantizer(1, 4, 2, revive=0.1, dtype="float64")
    layer.codebook.assign([[[0.0, 0.0], [9.0, 9.0], [8.0, 9.0], [1.0, 1.0]]])
    features = np.random.default_rng(0).uniform(size=(40, 2))
    layer.observe({"features": tf.constant(features), **layer.shared_parameters()})
    book = layer.codebook.numpy()[0]
    for moved in book[1:3]:
        assert np.abs(features - moved).sum(1).min() < EXACT
    assert np.any(book[1] != book[2])
    assert np.abs(features - book[0]).sum(1).min() > 1e-4  # a mean, no feature


def test_first_batch_starts_the_vectors_and_stages_halve_the_error():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 2)) * [3.0, 1.0] + 20.0
    errors = []
    for stages in (1, 2, 3):
        keras.utils.set_random_seed(0)
        layer = keras_vae.VectorQuantizer(1, 8, 2, stages=stages, dtype="float64")
        layer.build((None, 2))
        layer.head.set_weights([np.eye(2), np.zeros(2)])
        parameters = layer.parameters(tf.constant(features), training=True)
        z = layer.make_distribution(**parameters).mode()
        errors.append(np.mean((layer.features(z) - features) ** 2))
        layer.observe(parameters)
        before = layer.codebook.numpy()
        layer.parameters(tf.constant(features + 5.0), training=True)
        np.testing.assert_array_equal(layer.codebook, before)  # only the first batch starts them
    assert errors[0] < 0.25 * features.var(0).mean()  # eight points of a uniform one: 1/64 at best
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2


def test_commitment_is_in_the_loss_and_not_in_the_bound():
    vae, x = vae_of(QUANTIZERS["stages"])
    terms = terms_of(vae, keras_vae.ELBO(), x)
    codes = vae.posterior
    parameters = codes.parameters(tf.constant(x))
    z = codes.make_distribution(**parameters).mode()
    distance = (codes.features(z) - parameters["features"]).numpy()
    expected = 0.25 * (distance**2).sum(1)
    np.testing.assert_allclose(terms.loss - terms.distortion - terms.rate, expected, atol=EXACT)
    with tf.GradientTape() as tape:
        features = tf.Variable(parameters["features"])
        noise = tf.zeros([len(x)], "float64")
        z = codes.draw(noise, features, parameters["codebook"]).value
        received = tf.reduce_sum(codes.features(z) ** 3)
    expected = 3.0 * codes.features(z) ** 2
    np.testing.assert_allclose(tape.gradient(received, features), expected, atol=EXACT)


def test_use_of_codes_is_counted_over_the_epoch():
    vae, x = vae_of(QUANTIZERS["vectors"], dtype="float32")
    vae.compile("adam", monitor=True)
    found = vae.evaluate(x, batch_size=5, return_dict=True, verbose=0)
    shares = np.bincount(vae.encode(x).codes.numpy().ravel(), minlength=6) / len(x)
    assert found["codes_used"] == np.count_nonzero(shares)
    perplexity = np.exp(scipy.stats.entropy(shares))
    np.testing.assert_allclose(found["perplexity"], perplexity, rtol=1e-5)  # float32 sums


# The autoregressive prior


def learned(dtype="float64", **sizes):
    """Makes a prior over 4 codes of 3 in a model, with weights far from their start."""
    prior = keras_vae.AutoregressiveCodes(8, heads=2, dtype=dtype, **sizes)
    vae, x = vae_of(QUANTIZERS["stages"], prior, dtype)
    rng = np.random.default_rng(0)
    for weight in prior.trainable_weights:
        weight.assign_add(0.5 * rng.normal(size=weight.shape))
    return vae, x


EVERY = np.array(list(itertools.product(range(3), repeat=4)), np.int32)


def test_autoregressive_probabilities_sum_to_one_and_are_those_of_the_draws():
    vae, _ = learned()
    log_p = vae.prior.log_prob_of(tf.constant(EVERY)).numpy()
    np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, atol=EXACT)
    z = vae.posterior.embed(vae.posterior.in_shape(tf.constant(EVERY)))
    np.testing.assert_allclose(vae.prior.distribution().log_prob(z), log_p, atol=EXACT)
    count = 20_000
    u = np.random.default_rng(1).uniform(size=(count, 4))
    drawn = vae.prior.draw_codes(tf.constant(u)).numpy() @ [27, 9, 3, 1]
    found, p = np.bincount(drawn, minlength=81) / count, np.exp(log_p)
    assert np.all(np.abs(found - p) < 6 * np.sqrt(p / count) + 6 / count)  # 1 in 10^8 each
    assert p.max() > 4 / 81


def test_code_depends_on_no_code_after_it():
    vae, _ = learned(depth=1)
    codes = tf.constant(EVERY)
    logits = vae.prior.head(vae.prior._features(codes)).numpy()
    for place in range(4):
        same = EVERY[:, :place] @ (3 ** np.arange(place))
        for prefix in np.unique(same):
            some = logits[same == prefix, place]
            np.testing.assert_allclose(some, some[:1].repeat(len(some), 0), atol=EXACT)
        if place:
            assert np.ptp(logits[:, place], axis=0).max() > 0.1


def test_autoregressive_prior_starts_as_the_uniform_one_and_learns_with_the_model():
    prior = keras_vae.AutoregressiveCodes(8, heads=2)
    vae, x = vae_of(QUANTIZERS["scalars"], prior, "float32")
    np.testing.assert_allclose(vae.elbo(x).rate, 2 * np.log(6), rtol=1e-6)  # a float32 sum
    before = [weight.numpy() for weight in prior.trainable_weights]
    vae.compile("adam")
    vae.fit(x, epochs=2, batch_size=12, verbose=0)
    after = [weight.numpy() for weight in prior.trainable_weights]
    assert sum(np.any(a != b) for a, b in zip(after, before, strict=True)) == len(before)


def test_fitted_prior_reaches_the_entropy_of_the_codes():
    vae, _ = vae_of(lambda **k: keras_vae.FiniteScalarQuantizer(2, (2,), **k), dtype="float32")
    x = np.random.default_rng(3).normal(size=(2048, 5)).astype("float32")
    fitted = keras_vae.evaluation.fit_code_prior(
        vae, x, keras_vae.AutoregressiveCodes(8, heads=2), epochs=15, learning_rate=0.02
    )
    shares = np.bincount(vae.encode(x).codes.numpy() @ [2, 1], minlength=4) / len(x)
    rate = fitted.elbo(x).rate.numpy().mean()
    entropy = scipy.stats.entropy(shares)
    assert entropy < rate < entropy + 0.01  # four probabilities, fitted by gradient steps
    assert entropy < 2 * np.log(2) - 0.02
    np.testing.assert_array_equal(fitted.elbo(x, seed=0).distortion, vae.elbo(x, seed=0).distortion)
    with pytest.raises(ValueError, match="those of CategoricalLatent are not"):
        keras_vae.evaluation.fit_code_prior(mixture(dtype="float32")[0], x)
    with pytest.raises(ValueError, match=r"choose evaluation\.fit_code_prior"):
        keras_vae.evaluation.ex_post_density(vae, x)


# Export


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a model of residual codes, two of them equal, with a learned prior."""
    vae, x = learned("float32")
    book = vae.posterior.codebook.numpy()
    book[:, 2] = book[:, 1]
    vae.posterior.codebook.assign(book)
    return vae, x, export_model(vae, tmp_path_factory.mktemp("codes"))


def run(artifact, name, **inputs):
    session = onnxruntime.InferenceSession(artifact / f"onnx/{name}.onnx")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def test_artifact_of_codes_answers_as_the_model(exported):
    vae, x, artifact = exported
    seeds = random.row_seeds(3, len(x)).numpy()
    encoded, sampled = run(artifact, "encode", x=x), run(artifact, "sample", seed=seeds)
    assert encoded["codes"].dtype == sampled["codes"].dtype == np.int32
    q = vae.encode(x)
    np.testing.assert_array_equal(encoded["codes"], q.codes)
    np.testing.assert_allclose(encoded["z"], q.mode(), rtol=1e-6)  # gathered weights
    decoded = run(artifact, "decode", codes=encoded["codes"])
    # Sums of a few dozen terms in float32, in two programs.
    close = {"rtol": 2e-5, "atol": 2e-5}
    np.testing.assert_allclose(decoded["mean"], vae.reconstruct(x), **close)
    np.testing.assert_allclose(sampled["sample"], vae.sample(len(x), seed=3), **close)
    z = vae.posterior.embed(sampled["codes"])
    np.testing.assert_allclose(sampled["z"], z, rtol=1e-6)
    scored = run(artifact, "score", x=x, seed=seeds)
    np.testing.assert_allclose(scored["elbo"], vae.elbo(x, seed=3).elbo, **close)
    saved = tf.saved_model.load(str(artifact)).signatures
    np.testing.assert_array_equal(saved["encode"](x=tf.constant(x))["codes"], q.codes)
    found = saved["sample"](seed=tf.constant(seeds))
    np.testing.assert_array_equal(found["codes"], sampled["codes"])


@pytest.mark.parametrize("kind", ["scalars", "signs", "categories"])
def test_signatures_of_other_codes_answer_as_the_model(kind):
    vae, x = vae_of(QUANTIZERS[kind], dtype="float32")
    seeds = random.row_seeds(3, len(x))
    codes = np.array(vae.encode(x).codes)
    inputs = {"encode": {"x": x}, "decode": {"codes": codes}, "score": {"x": x, "seed": seeds}}
    for name, own in inputs.items():
        signature = signatures(vae)[name]
        with loading.traceable(vae):
            graph = onnx_graphs.convert(signature, vae.weights)
        session = onnxruntime.InferenceSession(graph.model.SerializeToString())
        given = {key: np.asarray(value) for key, value in own.items()}
        found = dict(zip(signature.outputs, session.run(signature.outputs, given), strict=True))
        for output, value in signature.function(**own).items():
            # Sums of a few dozen terms in float32, in two programs.
            np.testing.assert_allclose(found[output], value, rtol=2e-5, atol=2e-5)
        if name == "encode":
            np.testing.assert_array_equal(found["codes"], codes)
        if name == "score":
            np.testing.assert_allclose(found["elbo"], vae.elbo(x, seed=3).elbo, rtol=2e-5)


def test_of_equally_near_vectors_every_runtime_takes_the_first(exported):
    vae, x, artifact = exported
    codes = run(artifact, "encode", x=x)["codes"]
    assert 1 in codes
    assert 2 not in codes
    assert 2 not in vae.encode(x).codes.numpy()


def test_manifest_tells_the_sizes_of_the_codes(exported):
    _, _, artifact = exported
    manifest = json.loads((artifact / "manifest.json").read_text())
    about = manifest["latents"]["z"]["codes"]
    assert about == {"shape": [2, 2], "num_codes": 3, "code_size": 2, "uniform": False}
    inputs = manifest["signatures"]["decode"]["inputs"]
    assert inputs == {"codes": {"dtype": "int32", "shape": ["batch", 2, 2]}}
    decode = Artifact.read(artifact).signatures["decode"]
    assert decode.inputs["codes"].allowed == Range(0, 2, whole=True)
    assert "2 x 2 codes of 3" in (artifact / "MODEL_CARD.md").read_text()


def test_rows_of_other_codes_are_left_out_and_too_many_refused():
    about = {"latents": {"z": {"codes": {"shape": [3], "num_codes": 4, "uniform": True}}}}
    about |= {"latent_size": 6, "observations": {}}
    codes = np.arange(300, dtype=np.int32).reshape(100, 3) % 4
    case = Case("encode", {"x": np.zeros((100, 1), np.float32)}, ("codes",))
    for changed, refused in ((1, False), (20, True)):
        others = OtherCodes(about)
        got = codes.copy()
        got[:changed, 1] += 1
        left, want, answers = others.left_out(case, {"codes": codes}, {"codes": got})
        assert left.size == len(want["codes"]) == len(answers["codes"]) == 100 - changed
        if refused:
            with pytest.raises(ExportError, match="chooses other codes in 20 of 100 rows"):
                others.refuse("onnxruntime")
        else:
            others.refuse("onnxruntime")


# Ready models and runs


def test_vq_vae_of_images_has_a_grid_of_codes_and_of_vectors_as_many_as_asked():
    vae = keras_vae.vq_vae((7, 10, 1), "bernoulli", codes=5, code_size=3, hidden=(4, 6))
    assert vae.posterior.codes_shape == (2, 3)
    x = np.zeros((4, 7, 10, 1))
    assert vae.sample(2, seed=0).shape == (2, 7, 10, 1)
    found = keras_vae.evaluation.code_usage(vae, x)
    codes = vae.encode(x[:1]).codes.numpy().ravel()
    shares = np.bincount(codes, minlength=5) / 6
    np.testing.assert_allclose(found.frequencies[0], shares, atol=EXACT)
    np.testing.assert_allclose(found.perplexity, np.exp(scipy.stats.entropy(shares)), atol=EXACT)
    assert found.used == np.count_nonzero(shares)
    vae = keras_vae.vq_vae(5, codes=4, count=3, hidden=(4,), prior="autoregressive", scale=0.5)
    assert (vae.posterior.codes_shape, type(vae.prior)) == ((3,), keras_vae.AutoregressiveCodes)
    with pytest.raises(ValueError, match="give the number of codes"):
        keras_vae.vq_vae(5)
    with pytest.raises(ValueError, match=r"`prior`\. Expected one of uniform, autoregressive"):
        keras_vae.vq_vae(5, count=3, prior="vamp")
    with pytest.raises(ValueError, match=r"choose evaluation\.diagnose"):
        keras_vae.evaluation.code_usage(keras_vae.mlp_vae(5, 2, "normal", hidden=(4,)), x)


def test_run_of_codes_is_trained_evaluated_and_reported(tmp_path):
    config = RunConfig(
        data="digits",
        latents="codes",
        latent=3,
        codes=4,
        code_size=2,
        hidden=(8,),
        likelihood="discretized_logistic",
        epochs=1,
        batch_size=500,
    )
    run = train(config, tmp_path / "run")
    vae = run.load()
    assert vae.posterior.codes_shape == (3,)
    values = commands.evaluate(
        run, num_samples=1, limit=20, seed=0, progress=False, report=lambda _: None
    )
    assert values["codes"]["shape"] == [3]
    assert values["rate"]["mean"] == pytest.approx(3 * np.log(4), rel=1e-6)  # a float32 sum
    assert "3 codes, " in " ".join(measurements.table(values).notes)
    with pytest.raises(RunError, match="posterior does nothing with latents = 'codes'"):
        dataclasses.replace(config, posterior="full").refuse_idle()
    (run.path / "config.toml").write_text(
        (run.path / "config.toml").read_text().replace("codes = 4", "codes = 5")
    )
    with pytest.raises(RunError, match="where codes is"):
        Run(run.path).load()


# Refusals


def test_what_codes_cannot_do_is_refused_with_what_works():
    vae, x = vae_of(QUANTIZERS["vectors"])
    with pytest.raises(ValueError, match="distribution over codes"):
        log_marginal(vae, x, "annealed", num_samples=2, temperatures=2)
    with pytest.raises(ValueError, match="single CategoricalLatent"):
        vae.compile(objective=keras_vae.EnumeratedELBO())
    with pytest.raises(ValueError, match="needs a latent with relaxed draws"):
        vae.compile(objective=keras_vae.RelaxedELBO())
    with pytest.raises(ValueError, match=r"choose a prior such as UniformCodes\(\)"):
        keras_vae.VAE(
            prior=keras_vae.StandardNormal(3),
            likelihood=keras_vae.Normal(5),
            posterior=QUANTIZERS["vectors"](),
        )
    with pytest.raises(ValueError, match="DiagonalNormal has none"):
        keras_vae.VAE(
            prior=keras_vae.UniformCodes(),
            likelihood=keras_vae.Normal(5),
            posterior=keras_vae.DiagonalNormal(3),
        )
    with pytest.raises(ValueError, match="already belongs to another model"):
        keras_vae.VAE(
            prior=vae.prior,
            likelihood=keras_vae.Normal(5, dtype="float64"),
            posterior=QUANTIZERS["vectors"](dtype="float64"),
            dtype="float64",
        )
    with pytest.raises(ValueError, match="give both to"):
        keras_vae.UniformCodes().distribution()
    many, x = vae_of(lambda **k: keras_vae.FiniteScalarQuantizer(3, (8, 8), **k))
    with pytest.raises(ValueError, match=r"64\^3 = 2.62e\+05 values"):
        log_marginal(many, x, "enumeration")
    with pytest.raises(ValueError, match="are continuous: choose 'importance'"):
        log_marginal(keras_vae.mlp_vae(5, 2, "normal", hidden=(4,)), x, "enumeration")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras_vae.CategoricalLatent(2, 3, temperature=0.0), "`temperature`"),
        (lambda: keras_vae.CategoricalLatent(2, 1), "`num_codes`"),
        (lambda: keras_vae.VectorQuantizer(2, 3, 2, decay=1.0), "`decay`"),
        (lambda: keras_vae.VectorQuantizer(2, 3, 2, stages=0), "`stages`"),
        (lambda: keras_vae.FiniteScalarQuantizer(2, (1, 3)), "`levels`"),
        (lambda: keras_vae.LookupFreeQuantizer(2, 40), "`levels`"),
    ],
)
def test_sizes_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("code", [-1, 3, 0.5, np.nan, "a"])
def test_what_is_no_code_is_refused(code):
    posterior = keras_vae.CategoricalLatent(2, 3)
    with pytest.raises(ValueError, match="Expected codes as whole numbers from 0 to 2; got"):
        posterior.embed(np.array([[0, code]], type(code)))
