"""Signatures are pure, say what the model says, and can be reproduced without TensorFlow."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import tiny_vae
from registry import LIKELIHOODS, POSTERIORS, PRIORS
from scipy import special, stats

import keras_vae
from keras_vae import random
from keras_vae.data.preparation import Preparation
from keras_vae.signatures import signatures

NAMES = ["decode", "encode", "sample", "reconstruct", "score"]
WORD = 2**32
COMBINATIONS = [(name, "diagonal", "standard_normal") for name in LIKELIHOODS]
COMBINATIONS += [("bernoulli", posterior, prior) for posterior in POSTERIORS for prior in PRIORS]


def philox(seed, stream, block):
    """Computes the four words of block `block`, as the docstring of keras_vae.random says."""
    c, (k0, k1) = [block, 0, stream, 0], (int(part) % WORD for part in seed)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [second // WORD ^ c[1] ^ k0, second % WORD, first // WORD ^ c[3] ^ k1, first % WORD]
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c


def words(seed, count, stream):
    blocks = [philox(seed, stream, block) for block in range(-(-count // 4))]
    return np.array(blocks, np.int64).ravel()


def uniforms(seed, count, stream):
    return ((words(seed, count, stream) >> 9) + 0.5)[:count] / 2**23


def normals(seed, count, stream):
    radius_words, angle_words = words(seed, count, stream).reshape(-1, 2).T
    radius = np.sqrt(-2.0 * np.log((radius_words | 1) / WORD))
    angle = (((angle_words >> 9) + 0.5) / 2**23 - 0.5) * math.pi / 2
    sine, cosine = np.sin(angle), np.cos(angle) * np.where(angle_words & 2, -1.0, 1.0)
    is_swapped = (angle_words & 1).astype(bool)
    pair = np.where(is_swapped, [sine, cosine], [cosine, sine])
    return (radius * pair).T.ravel()[:count]


def model(likelihood="bernoulli", posterior="diagonal", prior="standard_normal"):
    """Makes a model of the registry whose networks have a hidden layer, so that x and z matter."""
    return keras_vae.VAE(
        prior=PRIORS[prior](),
        likelihood=LIKELIHOODS[likelihood](network=keras.layers.Dense(8, "tanh")),
        posterior=POSTERIORS[posterior](network=encoder()),
    )


def encoder():
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8, "tanh")])


def numpy(outputs):
    return {name: value.numpy() for name, value in outputs.items()}


def inputs_of(vae, table, name, rows=5):
    """Seeds, latents, conditions, and data drawn from the model."""
    seeds = np.random.default_rng(3).integers(-(2**31), 2**31, [rows, 2]).astype(np.int32)
    given = {"seed": seeds, "z": np.random.default_rng(4).normal(size=[rows, vae.latent_size])}
    if vae.condition_shape is not None:
        given["condition"] = np.random.default_rng(5).normal(size=[rows, *vae.condition_shape])
    if "x" in table[name].inputs:
        inputs = {key: given[key] for key in table["sample"].inputs}
        given["x"] = table["sample"].function(**cast(inputs))["sample"]
    return cast({key: given[key] for key in table[name].inputs})


def cast(inputs):
    kinds = {"seed": tf.int32}
    return {key: tf.cast(value, kinds.get(key, tf.float32)) for key, value in inputs.items()}


def test_five_signatures_decode_first():
    assert list(signatures(tiny_vae())) == NAMES


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_signatures_obey_tensorflow_serving(likelihood):
    vae = model(likelihood)
    table = signatures(vae)
    for name, signature in table.items():
        outputs = signature.function(**inputs_of(vae, table, name))
        assert tuple(sorted(outputs)) == tuple(sorted(signature.outputs))
        for key, spec in signature.inputs.items():
            assert spec.name == key
            assert spec.shape[0] is None
            assert None not in spec.shape[1:]
        for key in (*signature.inputs, *signature.outputs):
            assert not key.endswith("_bytes")
        for value in outputs.values():
            assert value.shape[0] == 5
            assert value.dtype == tf.float32
        assert not set(signature.inputs) & set(signature.outputs)
        assert signature.description.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_same_in_same_out_and_no_row_minds_its_neighbours(name):
    vae = model("normal_decoder", "full", "vamp")
    table = signatures(vae)
    inputs = inputs_of(vae, table, name)
    first, again = (numpy(table[name].function(**inputs)) for _ in range(2))
    alone = numpy(table[name].function(**{key: value[2:3] for key, value in inputs.items()}))
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])
        np.testing.assert_allclose(value[2:3], alone[key], rtol=1e-5, atol=1e-6)  # order of sums


@pytest.mark.parametrize(("likelihood", "posterior", "prior"), COMBINATIONS)
def test_sample_is_the_models_own_bit_for_bit(likelihood, posterior, prior):
    vae = model(likelihood, posterior, prior)
    seeds = tf.constant([[11, row] for row in range(6)], tf.int32)
    found = numpy(signatures(vae)["sample"].function(seed=seeds))
    np.testing.assert_array_equal(found["sample"], vae.sample(6, seed=11))
    np.testing.assert_array_equal(found["mean"], vae.sample_mean(6, seed=11))


@pytest.mark.parametrize(("likelihood", "posterior", "prior"), COMBINATIONS)
def test_distributions_are_the_models_own(likelihood, posterior, prior):
    vae = model(likelihood, posterior, prior)
    table = signatures(vae)
    z, x = (inputs_of(vae, table, name)[key] for name, key in (("decode", "z"), ("encode", "x")))
    decoded, encoded = table["decode"].function(z=z), table["encode"].function(x=x)
    np.testing.assert_array_equal(decoded.pop("mean"), vae.decode(z).mean())
    distribution = vae.likelihood.make_distribution(**decoded)
    log_prob = vae.decode(z).log_prob(x)
    np.testing.assert_allclose(distribution.log_prob(x), log_prob, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(
        vae.posterior.make_distribution(**encoded).mean(), vae.encode(x).mean()
    )
    found = table["reconstruct"].function(x=x)["mean"]
    np.testing.assert_array_equal(found, vae.reconstruct(x))


@pytest.mark.parametrize(("likelihood", "posterior", "prior"), COMBINATIONS)
def test_score_is_an_unbiased_bound(likelihood, posterior, prior):
    count = 600
    vae = model(likelihood, posterior, prior)
    table = signatures(vae)
    x = tf.repeat(inputs_of(vae, table, "encode", rows=1)["x"], count, axis=0)
    found = table["score"].function(x=x, seed=random.row_seeds(5, count))
    expected = vae.elbo(x, seed=6)
    np.testing.assert_allclose(found["elbo"], -(found["distortion"] + found["rate"]), rtol=1e-6)
    for name, value in found.items():
        draws = np.stack([value, getattr(expected, name)]).astype(np.float64)
        error = np.sqrt(draws.var(axis=1, ddof=1).sum() / count)
        rounding = 1e-5 * np.abs(draws).max()
        assert abs(draws[0].mean() - draws[1].mean()) <= 4.0 * error + rounding, name


def test_score_by_hand():
    vae = model()
    x = np.random.default_rng(0).integers(0, 2, [4, 2, 3]).astype(np.float32)
    seed = np.array([[1, 2], [3, 4], [-5, 6], [7, -8]], np.int32)
    found = numpy(signatures(vae)["score"].function(x=tf.constant(x), seed=tf.constant(seed)))

    q = vae.encode(x).distribution
    loc, scale = q.loc.numpy().astype(float), q.scale.numpy().astype(float)
    z = loc + scale * [normals(pair, 3, stream=5) for pair in seed]
    logits = vae.decode(z.astype(np.float32)).distribution.logits.numpy()
    distortion = -stats.bernoulli.logpmf(x, special.expit(logits)).sum(axis=(1, 2))
    rate = 0.5 * (scale**2 + loc**2 - 1 - 2 * np.log(scale)).sum(axis=1)
    np.testing.assert_allclose(found["distortion"], distortion, rtol=1e-5)  # float32
    np.testing.assert_allclose(found["rate"], rate, rtol=1e-5, atol=1e-6)


def test_documented_stream_reproduces_sample():
    vae = model()
    seed = np.array([[7, 0], [7, 1], [-1, 2**31 - 1], [-(2**31), 12345]], np.int32)
    found = numpy(signatures(vae)["sample"].function(seed=tf.constant(seed)))
    z = np.array([normals(pair, 3, stream=0) for pair in seed])
    np.testing.assert_allclose(found["z"], z, rtol=0, atol=2e-6)
    u = np.array([uniforms(pair, 6, stream=2) for pair in seed]).reshape(-1, 2, 3)
    probability = vae.decode(z.astype(np.float32)).mean().numpy()
    assert np.abs(u - probability).min() > 1e-6
    np.testing.assert_array_equal(found["sample"], u < probability)


def test_documented_stream_chooses_the_component_of_a_mixture():
    vae = model(prior="normal_mixture")
    seed = np.array([[row, 99] for row in range(20)], np.int32)
    found = signatures(vae)["sample"].function(seed=tf.constant(seed))["z"].numpy()
    logits, loc, scale = (part.numpy() for part in vae.prior.components())
    u = np.array([uniforms(pair, 1, stream=1)[0] for pair in seed])
    chosen = (u[:, None] >= np.cumsum(special.softmax(logits))).sum(axis=1)
    assert len(set(chosen)) == len(logits)
    z = loc[chosen] + scale[chosen] * [normals(pair, 3, stream=0) for pair in seed]
    np.testing.assert_allclose(found, z, rtol=0, atol=1e-5)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", ["normal_mixture", "vamp"])
def test_mixture_of_one_component_is_scored(posterior, prior):
    vae = tiny_vae(posterior=posterior, prior=prior, num_components=1)
    table = signatures(vae)
    inputs = inputs_of(vae, table, "score")
    assert np.isfinite(table["score"].function(**inputs)["elbo"]).all()


@pytest.mark.parametrize("likelihood", ["normal", "laplace", "bernoulli", "poisson"])
@pytest.mark.parametrize("name", ["decode", "sample", "reconstruct"])
def test_grey_images_keep_their_shape(likelihood, name):
    signature = signatures(tiny_vae(likelihood, (3, 2, 1)))[name]
    traced = tf.function(signature.function, autograph=False).get_concrete_function(
        **signature.inputs
    )
    assert traced.structured_outputs["mean"].shape.as_list() == [None, 3, 2, 1]


def test_conditional_model():
    vae = tiny_vae("poisson", condition_shape=3, prior="vamp", num_components=2)
    table = signatures(vae)
    for name in NAMES:
        inputs = inputs_of(vae, table, name)
        assert list(inputs)[-1] == "condition"
        found = numpy(table[name].function(**inputs))
        other = numpy(table[name].function(**{**inputs, "condition": -inputs["condition"]}))
        assert any((found[key] != other[key]).any() for key in found)
    seeds = random.row_seeds(3, 5)
    found = table["sample"].function(seed=seeds, condition=inputs["condition"])["sample"]
    expected = vae.sample(5, seed=3, condition=inputs["condition"])
    np.testing.assert_array_equal(found, expected)


def test_double_precision_model_speaks_float32():
    keras.config.set_floatx("float64")
    vae = model("normal", prior="normal_mixture")
    table = signatures(vae)
    for name in NAMES:
        for value in table[name].function(**inputs_of(vae, table, name)).values():
            assert value.dtype == tf.float32


def scored(vae, preparation, x, seed):
    table = signatures(vae, preparation)
    return table["score"].function(x=tf.constant(x), seed=tf.constant(seed))["elbo"].numpy()


SEED = np.array([[1, 2], [3, 4], [5, 6]], np.int32)
GREY = np.random.default_rng(1).integers(0, 256, [3, 6]).astype(np.float32)


def test_binarisation_is_drawn_from_the_seed():
    vae = tiny_vae()
    u = random.uniform(tf.constant(SEED), (6,), stream=random.PREPARATION).numpy()
    preparation = Preparation("binarize", 255.0)
    expected = scored(vae, None, (u < GREY / 255.0).astype(np.float32), SEED)
    np.testing.assert_array_equal(scored(vae, preparation, GREY, SEED), expected)
    table = signatures(vae, preparation)
    q = vae.posterior.parameters(tf.constant(GREY / 255.0))  # the mean of what is drawn
    found = table["encode"].function(x=tf.constant(GREY))
    for key in ("loc", "scale"):
        np.testing.assert_allclose(found[key], q[key], rtol=1e-6)
    found = table["reconstruct"].function(x=tf.constant(GREY))
    np.testing.assert_allclose(found["mean"], vae.decode(q["loc"]).mean() * 255.0, rtol=1e-6)
    assert set(np.unique(table["sample"].function(seed=SEED)["sample"])) == {0.0, 255.0}


def test_dequantisation_is_drawn_from_the_seed_and_counted():
    vae = tiny_vae("normal", scale="decoder")
    u = random.uniform(tf.constant(SEED), (6,), stream=random.PREPARATION).numpy()
    found = scored(vae, Preparation("dequantize", levels=256), GREY, SEED)
    expected = scored(vae, None, (GREY + u) / 256.0, SEED) - 6 * math.log(256)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_dequantised_bound_is_a_bound_on_the_levels():
    """Each exp(E elbo) is at most P(x), and these sum to at most one."""
    levels, count = 4, 400
    vae = tiny_vae("normal", 1, scale=0.3)
    preparation = Preparation("dequantize", levels=levels)
    seed = random.row_seeds(0, count).numpy()
    means = [
        scored(vae, preparation, np.full([count, 1], level, np.float32), seed).mean()
        for level in range(levels)
    ]
    assert 0.0 < np.exp(means).sum() < 1.0


def test_levels_come_back():
    table = signatures(tiny_vae("normal", scale=0.1), Preparation("dequantize", levels=256))
    draws = table["sample"].function(seed=random.row_seeds(0, 50))
    np.testing.assert_array_equal(draws["sample"], np.round(draws["sample"]))
    assert draws["sample"].numpy().min() == 0.0
    assert draws["sample"].numpy().max() == 255.0


def test_standardisation_is_undone_and_counted():
    vae = tiny_vae("normal", 3)
    center, spread = (1.0, -20.0, 300.0), (0.1, 5.0, 40.0)
    preparation = Preparation(center=center, spread=spread)
    inner = np.random.default_rng(0).normal(size=[3, 3]).astype(np.float32)
    raw = (inner * spread + center).astype(np.float32)
    expected = scored(vae, None, inner, SEED) - np.log(spread).sum()
    np.testing.assert_allclose(scored(vae, preparation, raw, SEED), expected, rtol=1e-4)
    plain = numpy(signatures(vae)["sample"].function(seed=SEED))
    found = numpy(signatures(vae, preparation)["sample"].function(seed=SEED))
    for name in ("sample", "mean"):
        np.testing.assert_allclose(found[name], plain[name] * spread + center, rtol=1e-5)
    np.testing.assert_array_equal(found["z"], plain["z"])


def test_division_is_a_change_of_variables_for_a_density():
    vae = tiny_vae("continuous_bernoulli")
    found = scored(vae, Preparation(divide=255.0), GREY, SEED)
    expected = scored(vae, None, GREY / np.float32(255.0), SEED) - 6 * math.log(255)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_categories_are_coded_inside():
    vae = tiny_vae("categorical", (4, 3))
    codes = np.random.default_rng(2).integers(0, 3, [3, 4])
    preparation = Preparation(categories=3)
    table = signatures(vae, preparation)
    assert table["encode"].inputs["x"].shape == [None, 4]
    found = scored(vae, preparation, codes.astype(np.float32), SEED)
    np.testing.assert_array_equal(found, scored(vae, None, np.eye(3, dtype="f")[codes], SEED))
    draws = table["sample"].function(seed=SEED)
    assert draws["sample"].shape == [3, 4]
    assert set(np.unique(draws["sample"])) <= {0.0, 1.0, 2.0}
    np.testing.assert_allclose(tf.reduce_sum(draws["mean"], axis=-1), 1.0, rtol=1e-6)


def test_training_and_score_prepare_alike():
    """The graph's fixed part gives what `Preparation.array` gives."""
    raw = np.random.default_rng(0).normal(3.0, 2.0, [20, 3]).astype(np.float32)
    preparation = Preparation(center=(3.0, 2.0, 1.0), spread=(2.0, 0.5, 1.0))
    vae = tiny_vae("normal", 3)
    found = numpy(signatures(vae, preparation)["encode"].function(x=tf.constant(raw)))
    expected = vae.encode(preparation.array(raw)).mean()
    np.testing.assert_allclose(found["loc"], expected, rtol=1e-5, atol=1e-6)
