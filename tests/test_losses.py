"""Distribution layers as heads of ordinary Keras models: -log p(y | x) as the loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import keras_vae
from keras_vae import NegativeLogLikelihood

RNG = np.random.default_rng(0)
X = RNG.uniform(-1.0, 1.0, (512, 2)).astype("float32")
Y = (X @ [1.5, -0.5] + 0.25 + 0.3 * RNG.normal(size=512)).astype("float32")


def head(layer, *before, functional=False, **options):
    if functional:
        inputs = keras.Input((2,))
        outputs = inputs
        for part in (*before, layer):
            outputs = part(outputs)
        model = keras.Model(inputs, outputs)
    else:
        model = keras.Sequential([*before, layer])
    options = {"optimizer": keras.optimizers.Adam(0.05), **options}
    model.compile(loss=NegativeLogLikelihood(), **options)
    return model


def test_linear_regression_finds_its_weights_and_its_noise(tmp_path):
    keras.utils.set_random_seed(1)
    layer = keras_vae.Normal(1, scale="learned")
    model = head(layer)
    model.fit(X, Y, epochs=60, batch_size=128, verbose=0)

    design = np.c_[X, np.ones(512)].astype("float64")
    weights, residual = np.linalg.lstsq(design, Y.astype("float64"))[:2]
    scale = np.sqrt(residual[0] / 512)  # the maximum of the likelihood
    best = -stats.norm(design @ weights, scale).logpdf(Y).mean()
    distribution = keras_vae.distribution_of(model(X))
    # Adam at this rate ends within 2 % of the optimum, where the loss is flat.
    np.testing.assert_allclose(distribution.stddev().numpy()[0, 0], scale, rtol=0.02)
    found = [*layer.head.kernel.numpy().ravel(), *layer.head.bias.numpy()]
    np.testing.assert_allclose(found, weights, atol=0.02)
    assert scale == pytest.approx(0.3, rel=0.05)

    value = model.evaluate(X, Y, verbose=0)
    assert best - 1e-6 < value < best + 1e-3
    exact = -distribution.log_prob(Y[:, None]).numpy().mean()
    assert value == pytest.approx(exact, rel=1e-6)

    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.evaluate(X, Y, verbose=0) == pytest.approx(value, rel=1e-6)
    loaded.fit(X, Y, verbose=0)


HEADS = {
    "normal": (lambda: keras_vae.Normal(2, scale="decoder"), lambda n: RNG.normal(size=(n, 2))),
    "laplace": (lambda: keras_vae.Laplace(1), lambda n: RNG.normal(size=n)),
    "bernoulli": (lambda: keras_vae.Bernoulli(1), lambda n: RNG.integers(0, 2, n)),
    "categorical": (lambda: keras_vae.Categorical(3), lambda n: np.eye(3)[RNG.integers(0, 3, n)]),
    "poisson": (lambda: keras_vae.Poisson(1), lambda n: RNG.integers(0, 9, (n, 1))),
    "posterior": (lambda: keras_vae.FullCovarianceNormal(2), lambda n: RNG.normal(size=(n, 2))),
}


@pytest.mark.parametrize("name", HEADS)
def test_loss_is_minus_the_log_probability_of_every_distribution(name):
    make, targets = HEADS[name]
    model, y = head(make(), run_eagerly=True), targets(64)
    model.build((None, 2))
    y = y.astype("float32")
    distribution = keras_vae.distribution_of(model(X[:64]))
    expected = -distribution.log_prob(y.reshape(64, *distribution.event_shape)).numpy()
    assert model.evaluate(X[:64], y, verbose=0) == pytest.approx(expected.mean(), rel=1e-5)
    weights = np.linspace(0, 2, 64)
    weighted = model.evaluate(X[:64], y, sample_weight=weights, verbose=0)
    assert weighted == pytest.approx((weights * expected).mean(), rel=1e-5)
    before = model.get_weights()
    model.fit(X[:64], y, verbose=0)
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_compiled_training_is_the_same():
    losses = []
    for options in (
        {"run_eagerly": True},
        {"functional": True},
        {"jit_compile": True},
        {"steps_per_execution": 2},
    ):
        keras.utils.set_random_seed(1)
        layers = keras_vae.Normal(1, scale="learned"), keras.layers.Dense(4, "tanh")
        model = head(*layers, **options)
        history = model.fit(X, Y, batch_size=128, epochs=2, shuffle=False, verbose=0).history
        losses.append(history["loss"])
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-5)  # of sums in another order


def test_half_precision_keeps_the_loss_in_full():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layers = keras_vae.Normal(1, scale="learned"), keras.layers.Dense(4, "tanh")
        model = head(*layers, run_eagerly=True)
        model.fit(X, Y, batch_size=256, verbose=0)
        distribution = keras_vae.distribution_of(model(X))
    finally:
        keras.config.set_dtype_policy("float32")
    assert distribution.dtype == tf.float32


@pytest.mark.parametrize(
    ("layer", "y", "message"),
    [
        (lambda: keras.layers.Dense(1), Y, "output of a keras_vae distribution layer"),
        (lambda: keras_vae.Normal(1, scale="optimal"), Y, 'Choose scale="learned"'),
        (lambda: keras_vae.Normal(3), Y, r"events of shape \[3\]; got targets of shape \[\d+\]"),
        (
            lambda: keras_vae.Categorical(3),
            RNG.integers(0, 3, 512),
            r"to_categorical\(y, 3\)",
        ),
    ],
)
def test_what_is_no_distribution_of_the_targets_is_refused(layer, y, message):
    with pytest.raises(ValueError, match=message):
        head(layer()).fit(X, y, verbose=0)
    with pytest.raises(ValueError, match="output of a keras_vae distribution layer"):
        keras_vae.distribution_of(tf.zeros(3))


@pytest.mark.parametrize(
    ("layer", "y", "message"),
    [
        (keras_vae.Bernoulli, Y, "Bernoulli models binary data"),
        (keras_vae.Normal, np.where(Y > 1, np.nan, Y), "was given NaN"),
    ],
)
def test_targets_outside_the_support_are_refused(layer, y, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        head(layer(1), run_eagerly=True).fit(X, y, verbose=0)


def test_sequences_of_open_length_are_explained():
    for inputs in ((None, None, 4), (None, 3, None)):
        with pytest.raises(ValueError, match=r"Normal makes one event .*TimeDistributed"):
            keras_vae.Normal(2).build(inputs)
    with pytest.raises(ValueError, match="no fixed size"):
        keras_vae.Normal((5, 2), head=keras.layers.Dense(2)).build((None, None, 4))
    each = keras.layers.TimeDistributed(keras_vae.Normal(2))
    assert each(np.zeros((3, 5, 4), "float32")).shape == (3, 5, 2)
