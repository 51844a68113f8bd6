"""The loop of `fit` in one graph: each example once an epoch, callbacks in their places."""

import gc
import itertools
import weakref

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from models import (
    ORDERED,
    again,
    assert_same_weights,
    binary,
    compiled,
    linear_gaussian,
    tiny_vae,
)

import keras_vae
from keras_vae import data, devices
from keras_vae.data.stream import source_of_arrays
from keras_vae.distributions.supports import DataError
from keras_vae.training import fast_loop

X = binary(45)
GRAPH = {"run_eagerly": False}
JIT = {"run_eagerly": False, "jit_compile": True}


class Steps(keras.callbacks.Callback):
    """The steps after which it was called, epoch by epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.seen[-1].append(batch)


def stream(x, epochs=1, size=8, **kwargs):
    return data.batches(x, size, epochs=epochs, seed=3, **kwargs)


@pytest.mark.parametrize(
    ("options", "size"),
    [(GRAPH, 9), (GRAPH, 8), (GRAPH, 64), (JIT, 8)],
    ids=["9-graph", "8-graph", "64-graph", "8-XLA"],
)
def test_logs_are_means_over_every_example_once(options, size):
    model = linear_gaussian()
    x = model.marginal().sample(45, seed=0).numpy().astype("float32")
    # With this posterior the bound of each example is log p(x), whatever is drawn.
    objective = keras_vae.ELBO(kl="monte_carlo")
    vae = compiled(model.vae(full_covariance=True), objective, optimizer="sgd", **options)
    vae.optimizer.learning_rate = 0.0
    history = vae.fit(x, batch_size=size, epochs=2, verbose=0).history
    evidence = float(tf.reduce_mean(model.log_prob(x)))
    np.testing.assert_allclose(history["elbo"], evidence, rtol=1e-5)  # float32
    assert vae.loss_metric.count == 45


@pytest.mark.parametrize(
    ("options", "steps", "weights"),
    [
        (GRAPH, None, None),
        (GRAPH, 2, np.linspace(0.0, 2.0, 45)),
        (JIT, 100, None),
        (JIT, None, np.linspace(0.0, 2.0, 45)),
    ],
    ids=["graph", "graph-2-weighted", "XLA-100", "XLA-weighted"],
)
def test_loop_equals_steps_one_by_one(options, steps, weights, monkeypatch):
    eager = again()
    quick = again()
    compiled(quick, **options, steps_per_execution=steps)
    if steps == 100:
        two_steps = property(lambda _: 4 * 8 * 8 * 2)  # of 8 rows and 8 numbers
        monkeypatch.setattr(devices.Device, "call_bytes", two_steps)
    arguments = {**ORDERED, "batch_size": 8, "sample_weight": weights, "epochs": 3}
    first = eager.fit(X, validation_data=X[:7], **arguments).history
    second = quick.fit(X, validation_data=X[:7], **arguments).history
    assert quick._loop is not None
    for name, values in first.items():
        if options is GRAPH or not name.startswith("val_"):  # which XLA would draw otherwise
            np.testing.assert_allclose(second[name], values, rtol=1e-5, err_msg=name)  # fused ops
    assert quick.steps_per_execution == (steps or 1)


def test_conditions_and_validation_split_reach_the_loop():
    inputs = {"x": X, "condition": np.linspace(0, 1, 45, dtype="float32")[:, None]}
    histories = []
    for options in ({}, GRAPH):
        vae = compiled(again(condition_shape=1), **options)
        histories.append(vae.fit(inputs, epochs=2, validation_split=0.2, **ORDERED).history)
    assert vae._loop is not None
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5, err_msg=name)


def test_callbacks_within_epochs_are_called_after_each_step():
    callback = Steps()
    compiled(tiny_vae(), **GRAPH).fit(X, batch_size=8, epochs=2, verbose=0, callbacks=[callback])
    assert callback.seen == [list(range(6))] * 2


def test_callbacks_see_the_steps_per_execution_that_was_asked_for():
    callback = Steps()
    vae = compiled(tiny_vae(), **GRAPH, steps_per_execution=4)
    vae.fit(X, batch_size=8, epochs=2, verbose=0, callbacks=[callback])
    assert callback.seen == [[3, 7]] * 2
    assert int(vae.optimizer.iterations) == 12


@pytest.mark.parametrize(
    ("callback", "acts"),
    [
        (keras.callbacks.EarlyStopping(), False),
        (keras.callbacks.ModelCheckpoint("m.keras"), False),
        (keras.callbacks.ModelCheckpoint("m.keras", save_freq=10), True),
        (keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: None), False),
        (keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_: None), True),
        (keras_vae.callbacks.LinearSchedule("beta", epochs=1), True),
        (Steps(), True),
    ],
)
def test_callbacks_that_act_within_epochs_are_known(callback, acts):
    assert fast_loop.acts_within_epochs(callback) == acts


def test_fitting_again_does_not_compile_again():
    vae = compiled(tiny_vae(), **GRAPH)
    vae.fit(X, verbose=0)
    first = vae._loop
    vae.fit(X[::-1].copy(), epochs=3, verbose=0)
    assert vae._loop is first
    assert first._execute_in_turn.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("kind", ["array", "file", "rows of a file", "table in the cache"])
def test_nothing_keeps_a_model_or_its_data_after_training(kind, tmp_path):
    x, vae = binary(45), compiled(tiny_vae(), **GRAPH)
    if kind == "table in the cache":
        frame = pd.DataFrame(x, columns=list("abcdef"))
        frame.to_parquet(tmp_path / "x.parquet")
        x = data.load(tmp_path / "x.parquet", cache=tmp_path / "cache").x
    elif kind != "array":
        np.save(tmp_path / "x.npy", x)
        x = data.load(tmp_path / "x.npy").x
    if kind == "rows of a file":
        x = data.split(x, copy=False)[0]
    vae.fit(x, epochs=2, batch_size=16, validation_data=x[:20], verbose=0)
    vae.evaluate(data.batches(x, 16, transform=data.binarize), verbose=0)
    vae.elbo(x, seed=0)
    vae.sample(2, seed=0)
    kept = [weakref.ref(each) for each in (x, vae, vae.optimizer, vae.posterior, vae.likelihood)]
    del x, vae
    gc.collect()
    assert [each() for each in kept] == [None] * len(kept)


def test_training_by_other_means_between_fits_is_the_same_training():
    vae = compiled(tiny_vae(), **GRAPH)
    vae.fit(X, verbose=0)
    vae.fit(tf.data.Dataset.from_tensor_slices(X).batch(8), verbose=0)
    vae.fit(X, verbose=0)
    assert int(vae.optimizer.iterations) == 2 + 6 + 2
    assert np.isfinite(vae.evaluate(X, verbose=0, return_dict=True)["elbo"])


@pytest.mark.parametrize("options", [GRAPH, JIT], ids=["graph", "XLA"])
def test_resumed_stream_ends_at_the_same_bits(options):
    whole, halves = (compiled(again(), **options) for _ in range(2))
    arguments = {"steps_per_epoch": 6, "verbose": 0}
    whole.fit(stream(X, 4), epochs=4, **arguments)
    halves.fit(stream(X, 2), epochs=2, **arguments)
    halves.fit(stream(X, 4, initial_epoch=2), epochs=4, initial_epoch=2, **arguments)
    assert whole._loop is not None
    assert_same_weights(whole, halves)


def test_stream_binarised_in_the_loop_is_the_stream():
    grey = np.random.default_rng(0).random((45, 6), dtype="float32")
    histories = []
    for options in ({}, GRAPH, JIT):
        vae = compiled(again(), **options)
        x = stream(grey, 3, transform=data.binarize)
        histories.append(vae.fit(x, steps_per_epoch=6, epochs=3, verbose=0).history)
    for name, values in histories[0].items():
        for history in histories[1:]:
            np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("options", [GRAPH, JIT], ids=["graph", "XLA"])
def test_stream_of_data_that_does_not_fit_is_refused(options):
    vae = compiled(tiny_vae(), **options)
    for bad, sentence in ((0.5, "models binary data"), (np.nan, "NaN")):
        for row in (3, 44):  # in a batch of full size, and in the short last one
            x = X.copy()
            x[row, 2] = bad
            with pytest.raises(DataError, match=sentence):
                vae.fit(stream(x, shuffle=False), verbose=0)
    assert vae._loop is not None


def test_loss_that_stops_being_finite_stops_the_loop():
    vae = compiled(tiny_vae("normal"), optimizer=keras.optimizers.SGD(1e30), **GRAPH)
    with pytest.raises(keras_vae.NonFiniteError, match="one of steps 1 to 6 of epoch 1"):
        vae.fit(X, batch_size=8, verbose=0)
    assert vae.steps_per_execution == 1


def test_memory_mapped_array_trains(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    histories = []
    for x in (X, mapped):
        vae = compiled(again(), **GRAPH)
        histories.append(vae.fit(x, epochs=2, **ORDERED).history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("examples", "size"), [*itertools.product([1, 99, 100, 101, 60000], [1, 7])]
)
def test_calls_of_an_epoch_are_equally_long(examples, size):
    source = data.batch_dataset.source_of(data.batches(np.zeros((examples, 1)), size))
    most = fast_loop.steps_at_once(source, 50, devices.CPU)
    calls = -(-source.steps // most)
    assert 1 <= most <= 100
    assert calls * most - source.steps < calls


def test_xla_is_chosen_where_it_pays():
    source = data.batch_dataset.source_of(data.batches(X, 8))
    dense = tiny_vae()
    convolutional = keras_vae.conv_vae((8, 8, 1), 2, "bernoulli", filters=(2,))
    assert fast_loop.pays_to_compile(dense, source, 200, devices.CPU)
    assert not fast_loop.pays_to_compile(dense, source, 2, devices.CPU)
    assert not fast_loop.pays_to_compile(convolutional, source, 200, devices.CPU)


@pytest.mark.parametrize(
    ("size", "epochs", "shared"), [(8, 166, True), (8, 167, False), (9, 1, False), (64, 1, False)]
)
def test_sizes_of_batches_share_a_graph_where_few_steps_follow(size, epochs, shared):
    source = data.batch_dataset.source_of(data.batches(X, size))
    assert fast_loop.shares_a_graph(source, epochs, devices.CPU) == shared


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stream: stream.prefetch(1), "no longer knows its arrays"),
        (lambda stream: stream.take(9), "no longer knows its arrays"),
        (lambda stream: stream.map(lambda x: x), "no longer knows its arrays"),
        (lambda stream: stream, "steps_per_epoch=2 is not the 6 batches"),
        (lambda stream: tf.data.Dataset.from_tensor_slices(X).batch(8), None),
    ],
)
def test_fit_says_when_it_could_be_faster(change, words, capsys):
    stream = data.batches(X, 8, epochs=2)
    assert type(stream) is data.batch_dataset.BatchDataset
    vae = tiny_vae()
    vae.compile("sgd")
    vae.fit(change(stream), epochs=1, steps_per_epoch=2, verbose=2)
    said = capsys.readouterr().out
    assert ("fit reads the data batch by batch" in said) == (words is not None)
    assert words is None or words in said
    vae.fit(change(stream), epochs=1, steps_per_epoch=2, verbose=0)
    assert capsys.readouterr().out == ""


def test_fit_from_memory_says_nothing(capsys):
    vae = tiny_vae()
    vae.compile("sgd")
    vae.fit(data.batches(X, 8, epochs=2), epochs=2, steps_per_epoch=6, verbose=2)
    assert "batch by batch" not in capsys.readouterr().out


def test_no_thread_tunes_the_chunks():
    """At its end an iterator waited for that thread: for seconds, after a long training."""
    source = source_of_arrays(X, 8, range(3), seed=0, shuffle=True)
    options = source.in_chunks(2, 2, frozenset(source.tables)).options()
    assert options.autotune.enabled is False
