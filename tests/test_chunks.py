"""Calls on large arrays: the values and gradients of one pass, in the memory of a chunk."""

import subprocess

import keras
import numpy as np
import preloaded
import pytest
import tensorflow as tf

import keras_vae
from keras_vae.distributions import supports
from keras_vae.random import row_seeds
from keras_vae.signatures import signatures
from keras_vae.training import checked_model, containers
from keras_vae.training.data_spec import part as data_part
from tests.models import binary, compiled, tiny_vae
from tests.registry import every_model, vae_of

# A matrix product of seven rows sums in another order than one of many does: a few units in the
# last place of float32, on numbers up to a few hundred nats. A discrete draw could flip where its
# uniform is that close to a probability, once in a million numbers; none of these does.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


def calls(vae, x, z, c=None):
    """Returns the results of the calls that use each distribution, as arrays."""
    given, data = ({}, x) if c is None else ({"condition": c}, {"x": x, "condition": c})
    q, p = vae.encode(data), vae.decode(z, **given)
    return {
        "encode": (q.mean(), q.log_prob(z[0, :1])),
        "decode": keras.tree.map_structure(lambda p, x: (p.mean(), p.log_prob(x)), p, x),
        "sample": vae.sample(z.shape[1], seed=3, **given),
        "elbo": vae.elbo(data, 3, seed=4),
        "log_joint": (vae.log_joint(data, z), vae.log_joint(data, z[0])),
    }


def others(vae, x, z, c):
    """Returns the results of the other calls."""
    data = {"x": x, "condition": c}
    return {
        "decode": vae.decode(z[0], c).mean(),
        "sample_mean": vae.sample_mean(len(x), seed=3, condition=c),
        "of one condition": vae.sample_mean(len(x), seed=3, condition=c[0]),
        "reconstruct": vae.reconstruct(data),
        "predict": vae.predict(data, verbose=0),
    }


@pytest.fixture
def seven_at_once(monkeypatch):
    """Chunks of seven examples, so that 30 make four and a shorter one."""

    def turn_on():
        monkeypatch.setattr(checked_model, "rows_in", lambda memory, vae: 7)

    return turn_on


def same(found, expected):
    for name in expected:
        for a, b in zip(tf.nest.flatten(found[name]), tf.nest.flatten(expected[name]), strict=True):
            assert a.shape == b.shape, name
            np.testing.assert_allclose(a, b, err_msg=name, **CLOSE)


@every_model
def test_chunks_give_what_one_pass_gives(distributions, seven_at_once):
    vae, x = vae_of(**distributions)
    x = keras.tree.map_structure(lambda part: np.concatenate([part, part[:14]]), x)
    z = np.random.default_rng(0).normal(size=(2, 30, vae.latent_size)).astype("float32")
    whole = calls(vae, x, z)
    seven_at_once()
    same(calls(vae, x, z), whole)


def test_conditions_stay_beside_their_rows(seven_at_once):
    vae = tiny_vae(condition_shape=3)
    rng = np.random.default_rng(0)
    x, c = (rng.normal(size=(30, size)).astype("float32") for size in (6, 3))
    x, z = (x > 0).astype("float32"), rng.normal(size=(2, 30, 2)).astype("float32")
    whole, rest = calls(vae, x, z, c), others(vae, x, z, c)
    seven_at_once()
    same(calls(vae, x, z, c), whole)
    same(others(vae, x, z, c), rest)


def test_gradients_of_chunks_are_those_of_one_pass(seven_at_once):
    vae, x = tiny_vae(), tf.constant(binary(30))
    z = tf.constant(np.random.default_rng(0).normal(size=(30, 2)), tf.float32)

    def gradients():
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, z])
            values = {
                "encode": tf.reduce_sum(vae.encode(x).mean() ** 2),
                "decode": tf.reduce_sum(vae.decode(z).mean() ** 2),
                "elbo": tf.reduce_sum(vae.elbo(x, 2, seed=1).elbo),
                "log_joint": tf.reduce_sum(vae.log_joint(x, z)),
                "reconstruct": tf.reduce_sum(vae.reconstruct(x) ** 2),
                "sample_mean": tf.reduce_sum(vae.sample_mean(30, seed=1) ** 2),
            }
        sources = [x, z, *(weight.value for weight in vae.trainable_weights)]
        kept = {"unconnected_gradients": "zero"}
        return {name: tape.gradient(value, sources, **kept) for name, value in values.items()}

    whole = gradients()
    for name, of in {"encode": 0, "decode": 1, "elbo": 0, "log_joint": 1, "reconstruct": 0}.items():
        assert np.any(whole[name][of]), name
    assert all(np.any(gradient) for gradient in whole["elbo"][2:])
    seven_at_once()
    same(gradients(), whole)


def test_log_joint_of_a_hierarchy_goes_through_chunks(seven_at_once):
    vae, rng = keras_vae.hierarchical_vae(6, (2, 3), hidden=(8,)), np.random.default_rng(0)
    sizes = {name: block.latent_shape for name, block in vae.blocks.items()}
    z = {
        name: tf.constant(rng.normal(size=(30, *size)), tf.float32) for name, size in sizes.items()
    }

    def both():
        with tf.GradientTape() as tape:
            tape.watch(z)
            log_joint = vae.log_joint(binary(30), z)
        return {"log_joint": log_joint, "gradient": tape.gradient(log_joint, z)}

    whole = both()
    assert not vae._graphs
    seven_at_once()
    same(both(), whole)
    assert vae._graphs


def test_bound_of_a_row_stands_alone_and_is_the_exported_one():
    vae, x = tiny_vae(), binary(30)
    bound = vae.elbo(x, seed=5)
    np.testing.assert_allclose(vae.elbo(x[:4], seed=5).elbo, bound.elbo[:4], **CLOSE)
    found = signatures(vae)["score"].function(x=tf.constant(x), seed=row_seeds(5, 30))
    np.testing.assert_allclose(found["distortion"], bound.distortion, **CLOSE)
    assert np.all(vae.elbo(x, seed=6).distortion != bound.distortion)


def test_graph_is_traced_once_and_belongs_to_its_distributions(seven_at_once):
    vae, x = compiled(tiny_vae()), binary(30)
    traces = []
    network = vae.posterior.network
    call = network.call
    network.call = lambda *args, **kwargs: (traces.append(0), call(*args, **kwargs))[1]
    seven_at_once()
    first = vae.encode(x).mean()
    for part in (x, x[:12], tf.constant(x)):
        vae.encode(part)
    assert len(traces) == 1
    for weight in vae.trainable_weights:
        weight.assign_add(0.1 * tf.ones(weight.shape))
    moved = vae.encode(x).mean()
    assert len(traces) == 1
    assert np.all(moved != first)
    np.testing.assert_allclose(moved[:5], vae.encode(x[:5]).mean(), **CLOSE)
    vae.posterior = tiny_vae().posterior
    np.testing.assert_allclose(vae.encode(x).mean()[:5], vae.encode(x[:5]).mean(), **CLOSE)
    vae.encode(x)
    assert len(traces) == 2  # the direct call of five rows above


def test_batch_size_is_chosen_by_the_size_of_an_example(seven_at_once):
    vae, x = compiled(tiny_vae()), binary(30)
    batches = []

    class Count(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            batches.append(len(logs["outputs"]))

        def on_test_batch_end(self, batch, logs=None):
            batches.append(1)

    def of(call, **options):
        batches.clear()
        call(x, callbacks=[Count()], verbose=0, **options)
        return list(batches)

    assert of(vae.predict) == [30]
    seven_at_once()
    assert of(vae.predict) == [7, 7, 7, 7, 2]
    assert of(vae.predict, batch_size=20) == [20, 10]
    assert of(vae.evaluate) == [1] * 5
    assert of(vae.evaluate, batch_size=10) == [1] * 3
    assert of(vae.fit, validation_data=x) == [1] * 5
    assert of(vae.fit, validation_split=0.5) == [1] * 3
    weights = np.arange(30.0)
    loss = vae.evaluate(x, sample_weight=weights, verbose=0, return_dict=True)["loss"]
    plain = vae.evaluate(x, verbose=0, return_dict=True)["loss"]
    assert 10 * plain < loss < 20 * plain  # of weights whose mean is 14.5, and other draws


class Watched(np.memmap):
    """A mapped file that remembers how many of its rows were read at once."""

    most = 0

    def __array__(self, *args, **kwargs):
        Watched.most = max(Watched.most, len(self))
        return np.array(self.view(np.ndarray), *args, **kwargs)


def test_mapped_files_are_read_chunk_by_chunk(seven_at_once, tmp_path, monkeypatch):
    vae, x = compiled(tiny_vae()), binary(30)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r").view(Watched)
    seven_at_once()
    for module in (data_part, supports):
        monkeypatch.setattr(module, "CHECKED_BYTES", 7 * x[0].nbytes)
    for call in (vae.encode, vae.reconstruct, vae.elbo):
        Watched.most = 0
        call(mapped)
        assert 0 < Watched.most <= 7, call
    for call in (vae.reconstruct, lambda x: vae.predict(x, batch_size=4, verbose=0)):
        np.testing.assert_allclose(call(mapped), call(x), **CLOSE)
    for data, given, sliced in ((mapped, 4, True), (x, None, True), (x, 4, False)):
        (source, *_), size = containers.in_batches((data, None, None), given, 7)
        assert (isinstance(source, keras.utils.PyDataset), size) == (sliced, given or 7)


PROGRAM = """
import pathlib
import numpy as np
import keras_vae

def peak():  # of this process; ru_maxrss counts that of its parent, too
    return int(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

vae = keras_vae.mlp_vae(500, 2, hidden=(8,))
x = np.zeros([80_000, 500], "float32")
for call, few, many in ((vae.reconstruct, x[:20_000], x), (vae.sample, 20_000, 80_000)):
    call(few)  # libraries and graphs
    before = peak()
    result = call(many)
    print(peak() - before)
    del result
"""


def test_memory_is_that_of_the_result_and_a_chunk():
    done = subprocess.run(
        [*preloaded.python(), "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    reconstruct, sample = map(float, done.stdout.split())
    size = 80_000 * 500 * 4 / 2**20  # MiB; the second result takes the place of the first
    assert reconstruct < size + 128
    assert sample < 128
