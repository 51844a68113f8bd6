"""Autoregressive likelihoods: exact probabilities, draws step by step, padding, word dropout."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from asked import ask
from scipy import stats

import keras_vae
from export import parity
from keras_vae import networks
from keras_vae.data import DataError, Vocabulary, lengths, padded
from keras_vae.data.preparation import Preparation
from keras_vae.distributions.noise import from_rows, from_seed
from keras_vae.objectives import ELBO
from keras_vae.trace import Observation

KINDS = networks.sequences.KINDS
TOKENS = 3


def tokens(steps, **options):
    """Makes the likelihood of tokens with random weights, so that steps depend on each other."""
    family = keras_vae.Categorical((steps, TOKENS), sequence=True, missing=True)
    keras.utils.set_random_seed(0)
    core = networks.CausalSteps(options.pop("kind", "recurrent"), width=8, num_heads=2)
    likelihood = keras_vae.AutoregressiveLikelihood(family, core=core, **options)
    likelihood.build((None, 2))
    for index, weight in enumerate(likelihood.weights):
        weight.assign_add(0.4 * tf.random.stateless_normal(weight.shape, [index, 0]))
    return likelihood


def model(steps, kind="recurrent", word_dropout=0.0):
    encoder = networks.sequence_encoder((steps, TOKENS), "convolution", width=4, depth=1)
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=tokens(steps, kind=kind, word_dropout=word_dropout),
        posterior=keras_vae.DiagonalNormal(2, network=encoder),
    )


def every(steps):
    """Returns every sequence of tokens, as one-hot vectors."""
    codes = np.array(list(itertools.product(range(TOKENS), repeat=steps)))
    return np.eye(TOKENS, dtype="float32")[codes]


def ragged(longest=5, count=12):
    rng = np.random.default_rng(0)
    sizes = [longest, *rng.integers(1, longest + 1, count - 1)]
    return padded([np.eye(TOKENS)[rng.integers(0, TOKENS, size)] for size in sizes], longest)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_all_sequences_sum_to_one(kind):
    p = tokens(4, kind=kind).distribution(tf.constant([[0.5, -1.0]]))
    x = every(4)
    log_p = np.asarray(p.log_prob(x), np.float64)
    # float32: 81 terms, each the exponential of a sum of four logarithms.
    assert np.exp(log_p).sum() == pytest.approx(1.0, abs=1e-5)
    assert np.ptp(log_p) > 0.5
    prefix = x.copy()
    prefix[:, 2:] = np.nan
    seen = tf.constant(~np.isnan(prefix).all(-1))
    told = Observation(tf.constant(prefix), p, seen, np.eye(TOKENS)[0]).log_prob()
    of_two = np.exp(np.asarray(told, np.float64))
    # The first two steps have the probability of all sequences that begin with them.
    by_prefix = np.exp(log_p).reshape(9, 9).sum(axis=1)
    np.testing.assert_allclose(of_two.reshape(9, 9)[:, 0], by_prefix, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_of_the_distribution_whose_probabilities_are_told(kind):
    """4000 draws from row seeds against the exact probabilities of all 27 sequences."""
    likelihood = tokens(3, kind=kind)
    z = tf.constant([[0.5, -1.0]])
    p = likelihood.distribution(z)
    expected = np.exp(np.asarray(p.log_prob(every(3)), np.float64))
    seeds = keras_vae.random.row_seeds(5, 4000)
    noise = from_rows(likelihood.noise(), seeds)
    context = tf.repeat(likelihood.parameters(z)["context"], 4000, axis=0)
    drawn = np.asarray(likelihood.draw(noise, context).value).argmax(-1) @ [9, 3, 1]
    counts = np.bincount(drawn, minlength=27)
    # Fixed seed; a correct sampler fails once in a hundred choices of it.
    assert stats.chisquare(counts, 4000 * expected / expected.sum()).pvalue > 0.01
    fewer = likelihood.draw(noise[7:9], context[:2]).value
    np.testing.assert_array_equal(np.asarray(fewer).argmax(-1) @ [9, 3, 1], drawn[7:9])


def test_the_mean_is_that_of_the_greedy_path():
    p = tokens(4).distribution(tf.constant([[0.5, -1.0]]))
    mean, mode = np.asarray(p.mean())[0], np.asarray(p.mode())[0]
    for step in range(4):
        start = np.repeat(mode[None], TOKENS, axis=0)
        start[:, step] = np.eye(TOKENS)
        given = np.asarray(p.given(start).distribution.log_prob(start))[:, step]
        np.testing.assert_allclose(np.exp(given), mean[step], rtol=1e-5)  # float32
        assert mode[step].argmax() == mean[step].argmax()


def described(vae, x):
    """Returns bound, draws, training loss and gradient, as arrays."""

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            noise = from_seed(vae.noise(), tf.constant([1, 2]), [1, x.shape[0]])
            log_weights = vae.infer(x, training=True).trace(noise).log_weights()
            loss = -tf.reduce_mean(log_weights)
        return loss, tape.gradient(loss, [each.value for each in vae.trainable_variables])

    return [*map(np.asarray, tf.nest.flatten([*vae.elbo(x, seed=3), step(x)]))]


# Matrix products of another size may fuse other additions: three roundings of float32.
@pytest.mark.parametrize(("kind", "tolerance"), [("recurrent", 0.0), ("attention", 3e-7)])
def test_padding_changes_no_bit(kind, tolerance):
    """Loss, gradient and bound are equal to the last bit, and the first steps of a draw."""
    short, long = model(5, kind), model(21, kind)
    long.set_weights(short.get_weights())
    x = ragged()
    longer = np.concatenate([x, np.full((len(x), 16, TOKENS), np.nan, "float32")], axis=1)
    for ours, theirs in zip(described(short, x), described(long, longer), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(ours).max())
    np.testing.assert_array_equal(short.sample(3, seed=1), long.sample(3, seed=1)[:, :5])


def test_series_of_numbers_are_a_gaussian_whose_covariance_is_known():
    """x_t = w z + a x_{t-1} + s e_t, by a linear core, in float64; p(x) is multivariate normal."""
    steps, w, a, s = 5, 0.7, 0.6, 0.4
    own = {"dtype": "float64"}
    family = keras_vae.Normal((steps, 1), scale=s, sequence=True, missing=True, **own)
    likelihood = keras_vae.AutoregressiveLikelihood(family, core=_Identity(**own), **own)
    encoder = networks.sequence_encoder((steps, 1), width=4, depth=1)
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(1, **own),
        likelihood=likelihood,
        posterior=keras_vae.DiagonalNormal(1, network=encoder, **own),
    )
    likelihood.head.kernel.assign([[w]])
    likelihood.fed_back.kernel.assign([[a], [0.0]])
    family.head.kernel.assign([[1.0]])
    for layer in (likelihood.head, likelihood.fed_back, family.head):
        layer.bias.assign(tf.zeros_like(layer.bias))
    rng = np.random.default_rng(0)
    series = [rng.normal(size=steps), rng.normal(size=3)]
    z = rng.normal(size=(2, 1))
    inverse = np.linalg.inv(np.eye(steps) - a * np.eye(steps, k=-1))
    loading, noise = w * inverse.sum(axis=1), s**2 * inverse @ inverse.T
    for x, latent, log_joint in zip(series, z, vae.log_joint(padded(series), z), strict=True):
        size = len(x)
        own_noise, own_loading = noise[:size, :size], loading[:size]
        covariance = own_noise + np.outer(own_loading, own_loading)
        precision = 1.0 + own_loading @ np.linalg.solve(own_noise, own_loading)
        mean = own_loading @ np.linalg.solve(own_noise, x) / precision
        log_p = float(log_joint) - stats.norm.logpdf(latent[0], mean, precision**-0.5)
        # float64 with condition numbers below 100.
        assert log_p == pytest.approx(
            stats.multivariate_normal(cov=covariance).logpdf(x), abs=1e-10
        )


class _Identity(keras.layers.Layer):
    """Core whose features are what it is given."""

    width = 1

    def call(self, x, training=False):
        return x

    def start(self, size):
        return []

    def step(self, x, index, state):
        return x, state


def test_word_dropout_is_in_training_alone_and_comes_from_the_noise_of_the_step():
    vae = model(5, word_dropout=0.5)
    x = ragged(count=64)
    objective = ELBO()
    assert set(objective.noise(vae)) == {"z", "training of x"}
    assert set(vae.noise()) == {"z"}
    noise = from_seed(objective.noise(vae), tf.constant([1, 2]), [1, 64])
    kept = {**noise, "training of x": tf.ones_like(noise["training of x"])}
    hidden = {**noise, "training of x": tf.zeros_like(noise["training of x"])}
    of = {
        name: np.asarray(vae.infer(x, training=training).trace(each).log_likelihood())
        for name, each, training in (
            ("dropped", noise, True),
            ("again", noise, True),
            ("kept", kept, True),
            ("hidden", hidden, True),
            ("evaluated", noise, False),
        )
    }
    np.testing.assert_array_equal(of["dropped"], of["again"])
    np.testing.assert_array_equal(of["kept"], of["evaluated"])
    assert np.abs(of["dropped"] - of["kept"]).mean() > 0.1
    # With every step hidden, the steps before do not matter.
    other = x.copy()
    other[:, 0] = np.roll(x[:, 0], 1, axis=-1)
    p = vae.likelihood.make_distribution(
        tf.zeros([64, 8]), training=True, known=tf.zeros([64, 5], tf.bool)
    )
    ours, theirs = (np.asarray(p.given(each).distribution.logits) for each in (x, other))
    np.testing.assert_array_equal(ours[:, 1:], theirs[:, 1:])
    assert not np.array_equal(of["hidden"], of["kept"])


def test_tokens_train_survive_a_file_and_are_exported(tmp_path):
    """Draws, greedy decoding and bounds are the same in ONNX Runtime, whose files hold ids."""
    keras.utils.set_random_seed(0)
    vae = keras_vae.sequence_vae(
        (5, TOKENS),
        2,
        "categorical",
        width=8,
        depth=1,
        autoregressive=True,
        word_dropout=0.3,
    )
    vae.compile("adam")
    x = ragged(count=32)
    history = vae.fit(x, batch_size=16, epochs=2, verbose=0)
    assert np.isfinite(history.history["elbo"]).all()
    evidence = keras_vae.evaluation.log_marginal(vae, x[:4], num_samples=20, seed=0)
    assert (np.asarray(evidence.value) < 0).all()
    vae.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.elbo(x, seed=1).elbo, vae.elbo(x, seed=1).elbo)
    np.testing.assert_array_equal(loaded.sample(4, seed=1), vae.sample(4, seed=1))
    asked = ask(vae, Preparation(categories=TOKENS), ("sample", "reconstruct", "score"))
    assert asked.about["likelihood"]["family"] == "AutoregressiveLikelihood"
    comparisons = parity.compare("onnxruntime", *asked.parity, asked.answers(), asked.about)
    parity.refuse_failed(comparisons)
    drawn = asked.table["sample"].function(seed=keras_vae.random.row_seeds(3, 4))["sample"]
    np.testing.assert_array_equal(drawn, np.asarray(vae.sample(4, seed=3)).argmax(-1))


@pytest.mark.parametrize("scale", ["learned", "per_feature", "optimal"])
def test_steps_of_numbers_are_drawn_with_their_scale(scale):
    family = keras_vae.Normal((4, 2), scale=scale, sequence=True)
    likelihood = keras_vae.AutoregressiveLikelihood(family, core=networks.CausalSteps(width=4))
    p = likelihood.distribution(tf.zeros([3, 2]))
    drawn = p.sample(5, seed=0)
    assert drawn.shape == (5, 3, 4, 2)
    likelihood.observe(drawn[0], p)
    assert np.isfinite(np.asarray(p.log_prob(drawn))).all()


def test_holes_are_refused_and_what_follows_the_end_is_not_imputed():
    vae, x = model(5), ragged()
    assert lengths(x)[0] == 5
    x[0, 2] = np.nan
    with pytest.raises(DataError, match="hole at step 2 of example 0"):
        vae.elbo(x)
    with pytest.raises(ValueError, match="not imputed"):
        vae.impute(ragged())
    with pytest.raises(ValueError, match="depends on those before it"):
        vae.classify(ragged(), "x")
    vae.compile("adam")
    with pytest.raises(DataError, match="has a hole"):
        vae.fit(tf.data.Dataset.from_tensor_slices(x).batch(4), verbose=0)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: keras_vae.Categorical(3), ValueError, "sequence=True and without"),
        (lambda: "tokens", TypeError, "a keras_vae likelihood"),
        (
            lambda: keras_vae.Categorical((3, 2), keras.layers.Dense(2), sequence=True),
            ValueError,
            "Give the network to AutoregressiveLikelihood",
        ),
    ],
)
def test_other_steps_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        keras_vae.AutoregressiveLikelihood(make())


def test_wrong_options_are_refused():
    steps = keras_vae.Categorical((3, 2), sequence=True)
    with pytest.raises(TypeError, match="`start` and `step`"):
        keras_vae.AutoregressiveLikelihood(steps, core=keras.layers.GRU(4))
    with pytest.raises(ValueError, match="word_dropout=1"):
        keras_vae.AutoregressiveLikelihood(steps, word_dropout=1.0)
    with pytest.raises(ValueError, match="autoregressive=True"):
        keras_vae.sequence_vae((3, 2), 2, "categorical", word_dropout=0.3)
    with pytest.raises(ValueError, match="got both"):
        keras_vae.sequence_vae((3, 2), 2, seasons=(), autoregressive=True)


def test_texts_are_tokens_and_back(tmp_path):
    texts = ["the cat sees", "the dog", "the the the cat", "owl"]
    vocabulary = Vocabulary.of(texts, "words", least=2)
    assert vocabulary.tokens == ("<end>", "<unknown>", "the", "cat")
    ids = vocabulary.ids(texts, 6)
    assert lengths(ids[..., None]).tolist() == [4, 3, 5, 2]
    known = ["the cat <unknown>", "the <unknown>", "the the the cat", "<unknown>"]
    assert vocabulary.texts(ids) == vocabulary.texts(vocabulary.one_hot(texts)) == known
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = Vocabulary.load(tmp_path / "vocabulary.json")
    assert (loaded.tokens, loaded.unit) == (vocabulary.tokens, "words")
    letters = Vocabulary.of(["ab", "né"])
    assert letters.texts(letters.ids(["néb", ""])) == ["néb", ""]
    assert len(Vocabulary.of(["aab"], size=3)) == 3
    (tmp_path / "other.json").write_text("[]")
    for make, match in (
        (lambda: letters.ids(["abc"], 2), "at most 1 characters and an end; got one of 3"),
        (lambda: letters.ids([]), "got none"),
        (lambda: letters.texts([[0.5]]), "whole numbers from 0 to 5"),
        (lambda: letters.texts([1.0]), "shape"),
        (lambda: letters.ids("ab"), r"a list of texts; got one text. Write \[text\]"),
        (lambda: letters.ids(["ab", None]), "texts; got None as text 1"),
        (lambda: Vocabulary.of("ab"), "a list of texts; got one text"),
        (lambda: Vocabulary.of(None), "a list of texts; got None"),
        (lambda: Vocabulary.of(["a"], least=2), "2 times or more"),
        (lambda: Vocabulary.load(tmp_path / "other.json"), "other.json"),
    ):
        with pytest.raises(DataError, match=match):
            make()
    for make, match in (
        (lambda: Vocabulary(["a", "a"]), "'a' twice"),
        (lambda: Vocabulary(["a"], "bytes"), "unit='bytes'"),
        (lambda: letters.ids(["ab"], 0), "length=0"),
        (lambda: letters.ids(["ab"], 4.5), "length=4.5"),
        (lambda: Vocabulary.of(["a"], size=3.5), "size=3.5"),
    ):
        with pytest.raises(ValueError, match=match):
            make()
