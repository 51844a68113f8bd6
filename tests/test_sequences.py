"""Sequences: padding changes nothing, a state-space model is exact; series, images with holes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from asked import ask
from scipy import stats

import keras_vae
from export import parity
from keras_vae import networks
from keras_vae.data import DataError, lengths, padded, windows
from keras_vae.distributions.noise import from_seed
from keras_vae.networks.steps import StepDense, sum_over_steps

KINDS = ("recurrent", "convolution", "attention")


def ragged(count=9, longest=5, entries=2):
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(size, entries)) for size in rng.integers(1, longest + 1, count)]
    x[0] = rng.normal(size=(longest, entries))
    x[1] = rng.normal(size=(longest, entries))
    x[1][2] = np.nan
    x[1][3, 1] = np.nan
    return [each.astype("float32") for each in x]


def model(steps, kind, depth=2, **options):
    keras.utils.set_random_seed(0)
    return keras_vae.sequence_vae(
        (steps, 2), 2, network=kind, width=8, depth=depth, scale="learned", **options
    )


def described(vae, x):
    """Returns bound, posterior, training loss and gradient, as arrays."""

    @tf.function(autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            noise = from_seed(vae.noise(), tf.constant([1, 2]), [2, x.shape[0]])
            log_weights = vae.infer(x, training=True).trace(noise).log_weights()
            loss = -tf.reduce_mean(log_weights)
        return loss, tape.gradient(loss, [each.value for each in vae.trainable_variables])

    bound, q = vae.elbo(x, seed=3), vae.encode(x)
    return [*map(np.asarray, tf.nest.flatten([*bound, q.mean(), q.stddev(), step(x)]))]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_bit(kind):
    """Loss, gradient, bound and posterior are equal to the last bit at 5 and at 21 steps."""
    short, long = model(5, kind), model(21, kind)
    long.set_weights(short.get_weights())
    x = ragged()
    for ours, theirs in zip(
        described(short, padded(x)), described(long, padded(x, 21)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_sums_over_steps_are_of_neighbours_in_pairs():
    x = np.random.default_rng(0).normal(size=(3, 13, 2)).astype("float32")
    longer = np.pad(x, [(0, 0), (0, 30), (0, 0)])
    found = np.asarray(sum_over_steps(x))
    np.testing.assert_array_equal(found, np.asarray(sum_over_steps(longer)))
    # Four additions of numbers below 8, each rounded to 24 bits.
    np.testing.assert_allclose(found, x.sum(axis=1, dtype=np.float64), atol=4 * 8 * 2.0**-24)


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_of_weights_of_steps_is_that_of_a_dense_layer(training):
    keras.utils.set_random_seed(0)
    x = tf.random.stateless_normal([3, 37, 4], [0, 1], dtype="float64")
    layer = StepDense(5, "tanh", dtype="float64")
    layer.build(x.shape)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours = tf.reduce_sum(layer(x, training=training) ** 2)
        theirs = tf.reduce_sum(tf.tanh(x @ layer.kernel.value + layer.bias.value) ** 2)
    of = [x, layer.kernel.value, layer.bias.value]
    for found, wanted in zip(tape.gradient(ours, of), tape.gradient(theirs, of), strict=True):
        # float64, sums of at most 111 terms.
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_attention_is_that_of_its_inputs():
    x = tf.random.stateless_normal([2, 19, 12], [0, 1], dtype="float64")
    layer = networks.sequences.AttentionOverSteps(2, causal=True, dtype="float64")
    gradients = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=training) ** 3)
        gradients.append(tape.gradient(loss, x))
    # float64, the same sums in another order.
    np.testing.assert_allclose(*gradients, rtol=1e-10, atol=1e-12)


def test_attention_is_softmax_attention():
    x = tf.random.stateless_normal([2, 19, 12], [0, 1], dtype="float64")
    mask = tf.constant([[True] * 19, [True] * 7 + [False] * 12])
    found = networks.sequences.AttentionOverSteps(1, dtype="float64")(x, mask=mask)
    q, k, v = tf.split(x, 3, axis=-1)
    logits = tf.where(mask[:, None], q @ tf.transpose(k, [0, 2, 1]) / 2.0, -np.inf)
    # float64, the same sums in another order.
    np.testing.assert_allclose(found, tf.nn.softmax(logits) @ v, rtol=1e-12, atol=1e-13)


def linear(steps, weights, scale):
    """Makes the VAE x_t = (weights z)_t + scale e_t in float64."""
    keras.utils.set_random_seed(0)
    own = {"dtype": "float64"}
    layers = [keras.layers.Dense(steps, **own), keras.layers.Reshape((steps, 1), **own)]
    decoder = keras.Sequential(layers)
    size = weights.shape[1]
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(size, **own),
        likelihood=keras_vae.Normal(
            (steps, 1), network=decoder, scale=scale, missing=True, sequence=True, **own
        ),
        posterior=keras_vae.DiagonalNormal(
            size, network=networks.sequence_encoder((steps, 1), width=4, depth=1), **own
        ),
    )
    layers[0].kernel.assign(weights.T)
    layers[0].bias.assign(np.zeros(steps))
    vae.likelihood.head.kernel.assign([[1.0]])
    return vae


def kalman(x, a, process, noise):
    """Returns log p of a series of s_t = a s_{t-1} + process e_t, x_t = s_t + noise e'_t."""
    mean, variance, total = 0.0, process**2, 0.0
    for value in x:
        total += stats.norm.logpdf(value, mean, np.sqrt(variance + noise**2))
        gain = variance / (variance + noise**2)
        mean, variance = mean + gain * (value - mean), (1.0 - gain) * variance
        mean, variance = a * mean, a**2 * variance + process**2
    return total


def test_a_linear_state_space_model_has_the_density_of_its_kalman_filter():
    """p(x, z) / p(z | x) = p(x) at any z, for series of two lengths in one array."""
    steps, a, process, noise = 6, 0.8, 0.7, 0.4
    weights = process * np.array(
        [[a ** (t - s) if s <= t else 0.0 for s in range(steps)] for t in range(steps)]
    )
    vae = linear(steps, weights, noise)
    rng = np.random.default_rng(0)
    series = [rng.normal(size=6), rng.normal(size=4)]
    z = rng.normal(size=(2, steps))
    found = vae.log_joint(padded(series), z)
    for values, latents, log_joint in zip(series, z, found, strict=True):
        seen = weights[: len(values)]
        covariance = seen @ seen.T + noise**2 * np.eye(len(values))
        by_covariance = stats.multivariate_normal(cov=covariance).logpdf(values)
        precision = np.eye(steps) + seen.T @ seen / noise**2
        posterior = np.linalg.inv(precision)
        mean = posterior @ seen.T @ values / noise**2
        log_p = float(log_joint) - stats.multivariate_normal(mean, posterior).logpdf(latents)
        # float64 with condition numbers below 100.
        assert log_p == pytest.approx(by_covariance, abs=1e-10)
        assert by_covariance == pytest.approx(kalman(values, a, process, noise), abs=1e-10)


def test_sequences_of_one_length_are_flat_vectors():
    """The same numbers as one event [T, D] and as one vector."""
    rng = np.random.default_rng(0)
    loc, x = rng.normal(size=(2, 4, 7, 3))
    ours = keras_vae.Normal((7, 3), scale=0.3, sequence=True, dtype="float64")
    flat = keras_vae.Normal(21, scale=0.3, dtype="float64")
    found = ours.make_distribution(tf.constant(loc), 0.3).log_prob(x)
    wanted = flat.make_distribution(tf.constant(loc.reshape(4, 21)), 0.3).log_prob(x.reshape(4, 21))
    # float64, the same sum in another order.
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_train_survive_a_file_and_are_exported(kind, tmp_path):
    # Only layers of convolutions differ, by their dilation.
    more = {"depth": 2, "seasons": (2,)} if kind == "convolution" else {"depth": 1}
    vae = model(5, kind, **more)
    vae.compile("adam")
    x = padded(ragged(32))
    history = vae.fit(x, batch_size=16, epochs=2, verbose=0)
    assert np.isfinite(history.history["elbo"]).all()
    vae.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.elbo(x, seed=1).elbo, vae.elbo(x, seed=1).elbo)
    asked = ask(vae, None, ("score",))
    comparisons = parity.compare("onnxruntime", *asked.parity, asked.answers(), asked.about)
    parity.refuse_failed(comparisons)


def test_tokens_of_sequences_are_categories():
    tokens = [[0, 1, 2], [2]]
    x = padded([np.eye(3)[each] for each in tokens])
    vae = keras_vae.sequence_vae((3, 3), 2, "categorical", network="convolution", width=4, depth=1)
    bound = vae.elbo(x, seed=0)
    assert np.isfinite(bound.elbo).all()
    drawn = np.asarray(vae.sample(2, seed=0))
    np.testing.assert_array_equal(drawn.sum(axis=-1), 1.0)


def test_the_vision_encoder_does_not_read_absent_patches():
    """Patches without pixels change nothing, whatever image they were cut from."""
    keras.utils.set_random_seed(0)
    encoder = networks.vision_encoder((8, 8, 1), width=8, depth=1)
    x = np.random.default_rng(0).random((2, 8, 8, 1)).astype("float32")
    x[1, :4] = x[0, :4]
    x[:, 4:] = np.nan
    features = np.asarray(encoder(x))
    np.testing.assert_array_equal(features[0], features[1])
    assert np.isfinite(features).all()


def test_series_are_level_trend_and_seasons():
    layer = networks.series.SeriesComponents(6, 1, degree=1, seasons=(3,))
    found = np.asarray(layer(np.array([[1.0, 6.0, 10.0, 20.0, 30.0]], "float32")))
    np.testing.assert_allclose(found.ravel(), [11, 22, 33, 14, 25, 36], rtol=1e-6)  # float32


def test_windows_padding_and_lengths():
    series = np.arange(10.0).reshape(5, 2)
    assert windows(series, 3, stride=2).tolist() == [series[:3].tolist(), series[2:].tolist()]
    x = padded([series, series[:2]], 6)
    assert x.shape == (2, 6, 2)
    assert lengths(x).tolist() == [5, 2]
    assert lengths(np.full((1, 3, 1), np.nan)).tolist() == [0]
    with pytest.raises(DataError, match="at least 9 steps"):
        windows(series, 9)
    with pytest.raises(ValueError, match="stride=0"):
        windows(series, 3, stride=0)
    with pytest.raises(DataError, match="at most length=4"):
        padded([series], 4)
    with pytest.raises(DataError, match="same entries"):
        padded([series, series[:, :1]])
    for make, match in (
        (lambda: windows(["a", "b"], 1), "numbers; got values of dtype <U1"),
        (lambda: padded([["a"]]), "numbers; got values of dtype <U1"),
        (lambda: padded(None), "a list of sequences; got None"),
        (lambda: lengths([1.0, 2.0]), r"sequences \[N, T, ...\]; got an array of shape \(2,\)"),
        (lambda: lengths([["a"]]), "numbers; got values of dtype <U1"),
    ):
        with pytest.raises(DataError, match=match):
            make()
    with pytest.raises(ValueError, match=r"integers .* got length=2.5, stride=1"):
        windows(series, 2.5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: networks.sequence_encoder((5,)), "Expected sequences of shape"),
        (lambda: networks.sequence_encoder((5, 1), depth=0), "at least one layer"),
        (lambda: networks.sequence_decoder(2, (5, 1), "conv"), "recurrent, convolution, attention"),
        (lambda: networks.sequence_decoder(2, (5, 1), "attention", width=6), "heads divides"),
        (lambda: networks.series_decoder(2, (5, 1), seasons=(1,)), "seasons of at least 2"),
        (lambda: networks.series_decoder(2, (5, 1, 1)), "Expected windows of shape"),
        (lambda: networks.vision_encoder((9, 8, 1)), "height and width 4 divides"),
        (lambda: keras_vae.Normal(5, sequence=True), "steps and entries"),
        (lambda: keras_vae.Normal((5, 1), sequence=True).build((None, 2)), "needs a network"),
    ],
)
def test_wrong_arguments_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
