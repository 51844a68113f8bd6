"""Methods that a VAE inherits from Keras: checked like `fit`, or refused with a remedy."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import keras_vae
from keras_vae import DataError, NonFiniteError, data
from tests.models import assert_same_weights, binary, compiled, tiny_vae

X = binary()
TERMS = ["loss", "elbo", "distortion", "rate"]

BEFORE = {
    "nothing": lambda vae: None,
    "fit of an array": lambda vae: vae.fit(X, verbose=0),
    "fit of batches": lambda vae: vae.fit(data.batches(X, 16), verbose=0),
    "fit of a dataset": lambda vae: vae.fit(
        tf.data.Dataset.from_tensor_slices(X).batch(16), verbose=0
    ),
}


@pytest.mark.parametrize("before", BEFORE)
def test_train_on_batch_takes_one_step_whatever_came_before(before):
    keras.utils.set_random_seed(1)
    vae = compiled(tiny_vae(), run_eagerly=False)
    BEFORE[before](vae)
    steps = int(vae.optimizer.iterations)
    logs = vae.train_on_batch(X, return_dict=True)
    assert int(vae.optimizer.iterations) == steps + 1
    assert sorted(logs) == sorted(TERMS)
    assert logs["loss"] == pytest.approx(logs["distortion"] + logs["rate"], abs=1e-5)
    assert len(vae.train_on_batch(X.tolist(), sample_weight=np.ones(48))) == 4
    vae.fit(X, verbose=0)
    assert int(vae.optimizer.iterations) == steps + 4


def test_on_batch_methods_are_fit_evaluate_and_predict_of_one_batch():
    one, other = (compiled(tiny_vae()) for _ in range(2))
    for vae in (one, other):
        keras.utils.set_random_seed(1)
        vae.set_weights([np.full(w.shape, 0.1) for w in vae.get_weights()])
        vae._draws = keras.random.SeedGenerator(5)
    one.train_on_batch(X)
    other.fit(X, batch_size=48, shuffle=False, verbose=0)
    assert_same_weights(one, other)
    assert (
        one.test_on_batch(X, return_dict=True).keys()
        == other.test_on_batch(X, return_dict=True).keys()
    )
    np.testing.assert_array_equal(one.predict_on_batch(X), one.predict(X, verbose=0))


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch", "predict_on_batch"])
def test_on_batch_methods_refuse_what_fit_refuses(method):
    vae = compiled(tiny_vae())
    before = vae.get_weights()
    call = getattr(vae, method)
    cases = [
        (X * np.nan, DataError, "nan in example 0|not finite in example 0"),
        (X[:, :5], DataError, r"x must have shape \[n, 6\]"),
        (np.ma.masked_array(X, X > 0), DataError, "masked"),
    ]
    if method != "predict_on_batch":
        cases.append((X * 0.5, DataError, "binary data"))
        cases.append((iter([X]), ValueError, f"{method} takes one batch of arrays; got list_iter"))
        with pytest.raises(ValueError, match=f"{method} was given targets y"):
            call(X, X)
    for x, error, message in cases:
        with pytest.raises(error, match=message):
            call(x)
    with pytest.raises(ValueError, match="use sample_weight"):
        vae.train_on_batch(X, class_weight={0: 1.0})
    for old, new in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_train_on_batch_says_that_weights_broke():
    vae = compiled(tiny_vae(), optimizer=keras.optimizers.SGD(np.inf))
    with pytest.raises(NonFiniteError, match=r"weight .* NaN or infinite in this step"):
        vae.train_on_batch(X)
    with pytest.raises(NonFiniteError, match=r"distortion.* became nan in this step.*lower"):
        vae.train_on_batch(X)


def test_export_and_foreign_formats_name_the_way(tmp_path):
    vae = compiled(tiny_vae())
    vae.fit(X, verbose=0)
    for options in ({}, {"format": "onnx"}):
        with pytest.raises(NotImplementedError, match=r"keras-vae export model\.keras --out"):
            vae.export(tmp_path / "artifact", **options)
    for name in ("m.h5", "m.hdf5", "M.H5"):
        with pytest.raises(ValueError, match=r'saved as \.keras, .*save\("model\.keras"\)'):
            vae.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    vae.save(tmp_path / "m.keras")
    assert_same_weights(keras.saving.load_model(tmp_path / "m.keras"), vae)


CONDITIONS = {
    "list": [0.0, 1.0, 0.0],
    "integers": [0, 1, 0],
    "tuple": (0, 1, 0),
    "list of rows": [[0, 1, 0], [0, 1, 0]],
    "array": np.array([[0.0, 1.0, 0.0]]),
    "tensor": tf.constant([[0.0, 1.0, 0.0]] * 2),
    "frame": pd.DataFrame([[0, 1, 0]]).convert_dtypes(),
}


@pytest.fixture(scope="module")
def conditional():
    return tiny_vae(condition_shape=3)


@pytest.mark.parametrize("form", CONDITIONS)
def test_conditions_come_in_any_form(conditional, form):
    condition, expected = CONDITIONS[form], np.array([[0.0, 1.0, 0.0]] * 2, "float32")
    for call in (
        lambda c: conditional.sample(2, seed=1, condition=c),
        lambda c: conditional.sample_mean(2, seed=1, condition=c),
        lambda c: conditional.decode([[0.5, 1.0]] * 2, condition=c).mean(),
    ):
        np.testing.assert_array_equal(call(condition), call(expected))
    rows = expected.tolist()
    np.testing.assert_array_equal(
        conditional.encode({"x": X[:2].tolist(), "condition": rows}).mean(),
        conditional.encode({"x": X[:2], "condition": expected}).mean(),
    )


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            [0, 1],
            r"condition must have shape \[n, 3\]; got \[2\]\. .*to_categorical\(condition, 3\)",
        ),
        (np.ones((2, 4)), r"condition must have shape \[n, 3\]; got \[2, 4\]"),
        ([np.nan, 0, 0], "condition is not finite"),
        (["a", "b", "c"], "condition must be an array of numbers"),
    ],
)
def test_conditions_that_do_not_fit_are_explained(conditional, condition, message):
    with pytest.raises(DataError, match=message):
        conditional.sample(2, condition=condition)


class WithLoss(keras_vae.VAE):
    """A subclass that overrides what Keras documents for a loss of one's own."""

    def compute_loss(self, *_, **__):
        raise AssertionError("never called")


class WithMetrics(keras_vae.VAE):
    """Likewise for metrics."""

    def compute_metrics(self, *_, **__):
        raise AssertionError("never called")


class AddsLoss(keras_vae.VAE):
    """Likewise, from inside `call`."""

    def call(self, x, training=False):
        mean = super().call(x, training)
        self.add_loss(tf.reduce_mean(mean))
        return mean


class OtherCall(keras_vae.VAE):
    """A call that adds nothing, and does not even work."""

    def call(self, x, training=False):
        raise RuntimeError("only called by predict")


class OwnStep(AddsLoss):
    """With a training step of its own the rest may be used."""

    compute_loss = WithLoss.compute_loss

    def train_step(self, batch):
        return super().train_step(batch)


def subclass(kind):
    return kind(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6),
        posterior=keras_vae.DiagonalNormal(2),
    )


def test_overrides_that_training_would_ignore_are_refused():
    for kind, what in (
        (WithLoss, "compute_loss"),
        (WithMetrics, "compute_metrics"),
        (AddsLoss, "add_loss in call"),
    ):
        with pytest.raises(TypeError, match=rf"{kind.__name__} defines {what}, .*Objective"):
            subclass(kind).compile()
    for kind in (OtherCall, OwnStep):
        subclass(kind).compile(optimizer="sgd", run_eagerly=True)
    vae = subclass(OwnStep)
    vae.compile("sgd", run_eagerly=True)
    vae.fit(X, verbose=0)
    vae(X)
    assert len(vae.losses) == 1


def test_networks_are_attributes_and_shown(tmp_path):
    vae = tiny_vae()
    assert vae.encoder is vae.posterior.network
    assert vae.decoder is vae.likelihood.network
    assert subclass(keras_vae.VAE).encoder is None
    lines: list[str] = []
    vae.summary(print_fn=lines.append, expand_nested=True, line_length=80)
    text = "\n".join(lines)
    for layer in (*vae.encoder.layers, *vae.decoder.layers, vae.likelihood.head):
        assert layer.name in text
    vae.summary(print_fn=lambda line: lines.append(line), line_length=80)
    assert "dense" not in lines[-1]
    assert not hasattr(vae.likelihood, "layers")

    class Own(keras_vae.VAE):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.encoder = keras.layers.Dense(1)
            self.encoder.build((None, 1))

    own = subclass(Own)
    assert isinstance(own.encoder, keras.layers.Dense)
    own.save_weights(tmp_path / "own.weights.h5")
    other = subclass(Own)
    other.load_weights(tmp_path / "own.weights.h5")
    np.testing.assert_array_equal(other.encoder.kernel, own.encoder.kernel)


def test_second_names_do_not_change_what_is_saved(tmp_path):
    import h5py

    tiny_vae().save_weights(tmp_path / "v.weights.h5")
    with h5py.File(tmp_path / "v.weights.h5") as file:
        assert "network" in file["layers/bernoulli"]
        assert not {"encoder", "decoder"} & set(file)


def test_more_rows_than_32_bits_count_are_refused():
    with pytest.raises(ValueError, match=r"below 2\^31; got n=2147483648"):
        tiny_vae().sample(2**31)
