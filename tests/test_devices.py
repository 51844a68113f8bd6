"""What is chosen by the device, with the device passed in, and what a GPU runs, on a CPU."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import assert_same_weights, binary, compiled, linear_gaussian, tiny_vae
from tensorflow.python.util import _pywrap_util_port

import keras_vae
from keras_vae import data, devices, random
from keras_vae.data.batch_dataset import source_of
from keras_vae.devices import CPU, Device, could_use_onednn, device
from keras_vae.distributions.noise import Noise, from_seed, from_seeds
from keras_vae.evaluation import marginal
from keras_vae.random import many
from keras_vae.tensorflow_start import ONEDNN, choose
from keras_vae.training import fast_loop, trainer

GIB = 2**30
GPU = Device("GPU", 80 * GIB)
SEEDS = np.random.default_rng(0).integers(-(2**31), 2**31, (30, 2)).astype("int32")
X = binary(45)


def source(examples, size=100, width=784, dtype="uint8", **more):
    return source_of(data.batches(np.zeros((examples, width), dtype), size, **more))


@pytest.fixture
def gpu(monkeypatch):
    """Makes models train as on a GPU of the given memory, which is the CPU."""

    def use(memory=80 * GIB):
        monkeypatch.setattr(Device, "name", "CPU:0")
        monkeypatch.setattr(trainer, "device", lambda: Device("GPU", memory))

    return use


# oneDNN, by which a CPU computes convolutions


@pytest.fixture
def processor(monkeypatch):
    """Makes the machine one of the given kind, whose TensorFlow has left oneDNN off."""

    def use(system="Linux", machine="x86_64", enabled=False):
        monkeypatch.setattr("platform.system", lambda: system)
        monkeypatch.setattr("platform.machine", lambda: machine)
        monkeypatch.setattr(_pywrap_util_port, "IsMklEnabled", lambda: enabled)
        monkeypatch.delenv(ONEDNN, raising=False)

    return use


@pytest.mark.parametrize(
    ("system", "machine", "given", "chosen"),
    [
        ("Linux", "x86_64", {}, "1"),
        ("Windows", "AMD64", {}, "1"),
        ("Linux", "x86_64", {ONEDNN: "0"}, "0"),
        ("Linux", "aarch64", {}, None),
        ("Darwin", "x86_64", {}, None),
    ],
)
def test_commands_choose_onednn(processor, system, machine, given, chosen):
    processor(system, machine)
    environment = dict(given)
    choose(environment)
    assert environment.get(ONEDNN) == chosen


def test_onednn_that_tensorflow_left_off(processor, monkeypatch):
    processor()
    assert could_use_onednn()
    monkeypatch.setenv(ONEDNN, "0")
    assert not could_use_onednn()
    processor(enabled=True)
    assert not could_use_onednn()
    processor(machine="arm64", system="Darwin")
    assert not could_use_onednn()


def test_fit_says_once_that_convolutions_are_faster_with_onednn(processor, capsys):
    processor()
    trainer._say_once.cache_clear()
    dense = compiled(tiny_vae())
    dense.fit(X, epochs=1, verbose=2)
    assert "oneDNN" not in capsys.readouterr().out
    vae = keras_vae.conv_vae((8, 8, 1), 2, "bernoulli", filters=(2,))
    vae.compile()
    images = np.zeros((4, 8, 8, 1), "float32")
    vae.fit(images, epochs=1, verbose=0)
    assert "oneDNN" not in capsys.readouterr().out
    vae.fit(images, epochs=1, verbose=2)
    assert "Set TF_ENABLE_ONEDNN_OPTS=1 in the environment" in capsys.readouterr().out
    vae.fit(images, epochs=1, verbose=2)
    assert "oneDNN" not in capsys.readouterr().out


# Which device it is


def test_a_machine_without_gpus_is_a_cpu(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [])
    assert device() == CPU
    assert CPU.steps_per_call == 100
    assert CPU.call_bytes == 32 * 2**20


def test_hidden_gpus_do_not_count_and_limits_of_memory_do(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: ["hidden"])
    assert device() == CPU
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a", "b"])
    limits = {"a": [types.SimpleNamespace(memory_limit=2048)], "b": None}
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", limits.get)
    monkeypatch.setattr(devices, "_physical_memory", lambda: 80 * GIB)
    assert device() == Device("GPU", 2 * GIB)


def test_memory_is_asked_of_the_driver(monkeypatch):
    def total(pointer, handle):
        pointer._obj.value = 16 * GIB if handle.value else 24 * GIB
        return 0

    def count(pointer):
        pointer._obj.value = 2
        return 0

    def get(pointer, index):
        pointer._obj.value = index
        return 0

    driver = types.SimpleNamespace(
        cuInit=lambda flags: 0,
        cuDeviceGetCount=count,
        cuDeviceGet=get,
        cuDeviceTotalMem_v2=total,
    )
    asked = devices._physical_memory.__wrapped__
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: driver)
    assert asked() == 16 * GIB
    driver.cuInit = lambda flags: 3
    assert asked() == 8 * GIB
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert asked() == 8 * GIB


# What is chosen by it


@pytest.mark.parametrize(
    ("examples", "size", "where", "steps"),
    [
        (60000, 100, CPU, 100),
        (60000, 100, GPU, 600),  # an epoch, which takes 200 MB of 640
        (60000, 100, Device("GPU", 8 * GIB), 200),  # 201 steps fit
        (59900, 100, Device("GPU", 8 * GIB), 200),  # 599 is prime
        (60001, 100, GPU, 600),  # and a short batch
        (30, 100, GPU, 1),
    ],
)
def test_steps_of_a_call(examples, size, where, steps):
    assert fast_loop.steps_at_once(source(examples, size), 50, where) == steps


def test_tables_are_held_by_a_gpu_while_they_fit():
    parts = {
        "a": np.zeros((1000, 10), "uint8"),
        "b": np.zeros((1000, 100), "float32"),
        "condition": np.zeros(1000, "int8"),
    }
    of_parts = source_of(data.batches(parts, 10))
    assert fast_loop.tables_within(of_parts, CPU) == {"a", "b", "condition"}
    assert fast_loop.tables_within(of_parts, GPU) == {"a", "b"}
    assert fast_loop.tables_within(of_parts, Device("GPU", 4 * 440_000)) == {"a", "b"}
    assert fast_loop.tables_within(of_parts, Device("GPU", 4 * 439_999)) == {"a"}
    assert fast_loop.tables_within(of_parts, Device("GPU", 4 * 39_999)) == set()


def test_auto_compiles_by_device():
    dense, few = tiny_vae(), source(4500, 100, 6)
    convolutional = keras_vae.conv_vae((8, 8, 1), 2, "bernoulli", filters=(2,))
    assert fast_loop.pays_to_compile(dense, few, 30, CPU)
    assert not fast_loop.pays_to_compile(dense, few, 30, GPU)
    assert fast_loop.pays_to_compile(dense, few, 70, GPU)
    assert fast_loop.pays_to_compile(convolutional, few, 70, GPU)
    assert not fast_loop.pays_to_compile(convolutional, few, 70, CPU)


@pytest.mark.parametrize(("asked", "found"), [("auto", False), (True, True), (False, False)])
def test_keras_compiles_evaluation_only_if_asked(monkeypatch, asked, found):
    present = [types.SimpleNamespace(device_type="GPU")]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: present)
    vae = tiny_vae()
    vae.compile(jit_compile=asked)
    assert vae.jit_compile is found
    assert vae.get_compile_config()["jit_compile"] == asked


def test_few_programs_serve_every_number_of_examples(monkeypatch):
    vae = tiny_vae()
    exact = marginal.log_marginal(vae, X[:7], num_samples=50).value
    monkeypatch.setattr(marginal, "device", lambda: GPU)
    counts = [2**power + more for power in range(14) for more in (0, 1)]
    plans = {marginal._plan(vae, count, 50, 256 * 2**20, GPU) for count in counts}
    assert len(plans) == 14  # 1, 2, 4, ..., 8192 examples
    vae._graphs.clear()
    found = [marginal.log_marginal(vae, X[:count], num_samples=50) for count in (5, 6, 7, 8)]
    assert len(vae._graphs) == 1
    assert [len(each.value) for each in found] == [5, 6, 7, 8]
    for each in found[:3]:
        np.testing.assert_array_equal(each.value, found[3].value[: len(each.value)])
    # Other draws of the same weights: 50 draws of 2 latents scatter by a tenth of a nat.
    np.testing.assert_allclose(found[2].value, exact, atol=0.5)


# Noise of many seeds in one draw, against TensorFlow's kernels


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5, 2), (2048,)])
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "XLA"])
def test_numbers_of_many_seeds_are_those_of_each(shape, jit_compile):
    together = tf.function(
        lambda seeds: (many.uniforms(seeds, shape), many.normals(seeds, shape)),
        jit_compile=jit_compile,
    )
    uniforms, normals = together(tf.constant(SEEDS))
    for row, seed in enumerate(SEEDS):
        one = tf.random.stateless_uniform(shape, seed, alg="philox")
        np.testing.assert_array_equal(uniforms[row], one)
        one = tf.random.stateless_normal(shape, seed, alg="philox")
        # The angle in float32 is within 6e-7, and the radius at most 5.7.
        np.testing.assert_allclose(normals[row], one, rtol=0, atol=4e-6)


def test_noise_of_several_draws_is_that_of_each_seed():
    noise = {"z": Noise((3,)), "u": [Noise((2, 2), "uniform", index=1), Noise((), index=2)]}
    together = from_seeds(noise, tf.constant(SEEDS), [4, 5])
    for row, seed in enumerate(SEEDS[:5]):
        alone = from_seed(noise, tf.constant(seed), [4, 5])
        np.testing.assert_array_equal(together["u"][0][row], alone["u"][0])
        np.testing.assert_allclose(together["z"][row], alone["z"], rtol=0, atol=4e-6)
        np.testing.assert_allclose(together["u"][1][row], alone["u"][1], rtol=0, atol=4e-6)


def test_square_roots_are_rounded_once():
    """Against 60-digit integer square roots, beside the midpoints of two float32 too."""
    from math import isqrt

    from keras_vae.random.philox import arithmetic

    rng = np.random.default_rng(0)
    roots = 1.0 + rng.integers(0, 2**23, 20_000) * 2.0**-23 + 2.0**-24  # midpoints
    x = np.concatenate([roots**2, rng.random(20_000) * 64]).astype("float32")
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), [0.0, 2.0**-126]]).astype("float32")
    found = arithmetic().sqrt(tf.constant(x)).numpy()
    for value, root in zip(x.tolist(), found.tolist(), strict=True):
        scale = 2**200
        exact = isqrt(int(value * 2.0**100) * 2**300)  # sqrt(value) 2^200
        half = int(np.spacing(np.float32(root)) * 2.0**60) * 2**139
        assert abs(int(root * 2.0**60) * (scale >> 60) - exact) <= half + 1
    with random.int32_arithmetic():
        np.testing.assert_array_equal(arithmetic().sqrt(tf.constant(x)), found)  # on a CPU


def test_draws_of_a_seed_are_multiplied_in_float32(monkeypatch):
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    was_enabled, seen, vae = enabled(), [], tiny_vae()
    drawn = vae._drawn
    monkeypatch.setattr(vae, "_drawn", lambda inputs: (seen.append(enabled()), drawn(inputs))[1])
    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        vae.sample(3, seed=1)
        assert seen == [False]
        assert enabled()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(was_enabled)


# What a GPU runs, on a CPU


def conditional():
    vae = tiny_vae(condition_shape=2)
    rng = np.random.default_rng(1)
    return vae, {"x": X.astype("uint8"), "condition": rng.integers(0, 2, (45, 2)).astype("int8")}


def trained(make, **options):
    keras.utils.set_random_seed(3)
    vae, x = make()
    compiled(vae, run_eagerly=False, **options)
    weights = np.linspace(0.5, 2.0, 45)
    history = vae.fit(
        x, sample_weight=weights, batch_size=8, epochs=3, validation_split=0.2, verbose=0
    ).history
    return vae, history


@pytest.mark.parametrize(
    ("make", "jit_compile"),
    [(conditional, False), (lambda: (tiny_vae(), X), True)],
    ids=["condition-graph", "x-XLA"],
)
def test_training_on_a_gpu_is_that_of_a_cpu(gpu, make, jit_compile):
    _, expected = trained(make, jit_compile=jit_compile)
    ends = []
    for memory in (80 * GIB, 0):  # tables held by the GPU, and read from the host
        gpu(memory)
        vae, found = trained(make, jit_compile=jit_compile)
        assert vae._loop._draws_at_once
        ends.append(vae)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)  # the noise's
    if not jit_compile:  # of another number of steps in a program, XLA may fuse others
        assert_same_weights(*ends)


def test_epoch_is_one_program_where_a_number_of_steps_divides_it(gpu):
    gpu()
    vae = compiled(tiny_vae(), run_eagerly=False)
    vae.fit(X, batch_size=8, epochs=2, verbose=0)
    assert vae._loop._capacity == 5
    assert vae._loop._execute.experimental_get_tracing_count() == 1


def test_noise_in_float64_is_drawn_step_by_step(gpu):
    gpu()
    vae = compiled(linear_gaussian().vae(), run_eagerly=False)
    vae.fit(data.batches(X[:, :5], 9), verbose=0)
    assert vae._loop is not None
    assert not vae._loop._draws_at_once
