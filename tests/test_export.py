"""The whole pipeline: what is published, what is refused, and that nothing else is ever seen."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import keras
import numpy as np
import onnx
import onnxruntime
import preloaded
import pytest
import tensorflow as tf
from click.testing import CliRunner
from models import tiny_vae
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

import keras_vae
from export import (
    gates,
    model_card,
    onnx_graphs,
    parity,
    pipeline,
    publish,
    saved_model,
    warmup,
)
from export import variants as other
from export.cases import Case
from export.cli import main
from export.errors import ExportError
from export.onnx_files import Graph
from export.parity import live
from export.verify import read_manifest
from keras_vae import integrity, random
from keras_vae.data.preparation import Preparation
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd
from keras_vae.runs import measurements
from keras_vae.runs.config import RunConfig
from keras_vae.signatures import Signature, signatures

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "export" / "runtimes" / "examples"
FIVE = {"decode", "encode", "sample", "reconstruct", "score"}
NUMBER = {"mean": -9.5, "standard_error": 0.25}
EVALUATION = {
    "elbo": {"mean": -10.0, "standard_error": 0.25},
    "log_marginal": {**NUMBER, "method": "importance sampling, k = 100", "side": "below"},
    "distortion": NUMBER,
    "rate": NUMBER,
    "active_units": 2,
    "latent_size": 2,
    "baselines": {"independent pixels": NUMBER},
    "schema_version": measurements.SCHEMA_VERSION,
    "examples": "the first 7 of 9 test examples",
    "test_examples": 7,
    "quantity": "log-probability",
    "data": "the binarised data",
    "bits_per_dim": 1.25,
    "preparation": "binarised",
    "preparation_nats": 0.0,
    "share_at_atoms": 0.0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Makes a run directory as after a training, of a model that keeps its first weights."""
    keras.utils.set_random_seed(1)
    path = tmp_path_factory.mktemp("runs") / "digits"
    path.mkdir()
    vae = tiny_vae("bernoulli", (4, 4, 1))
    vae.compile("sgd", keras_vae.ELBO(beta=0.5))
    vae.save(path / "model.keras")
    preparation = Preparation("binarize", 16.0, sentence="binarised anew")
    config = RunConfig(data="digits", likelihood="bernoulli", latent=2, preparation=preparation)
    (path / "config.toml").write_text(config.to_toml())
    (path / "evaluation.json").write_text(json.dumps(EVALUATION))
    return path


@pytest.fixture(scope="module")
def published(run, tmp_path_factory):
    """Publishes a version; returns it with the output of the command line."""
    target = tmp_path_factory.mktemp("artifacts") / "digits"
    words = [str(run / "model.keras"), "--out", str(target)]
    words += ["--precisions", "float16,int8", "--max-nats", "1", "--tflite"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return result.output, target / "1"


@pytest.fixture
def artifact(published, tmp_path):
    """Copies the artifact, so that a test may damage it."""
    return shutil.copytree(published[1], tmp_path / "digits" / "1")


def sentence(words):
    """Returns the message that a command fails with."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    return lines[0]


# What is published


def test_artifact_holds_every_file(published):
    directory = published[1]
    files = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    models = {f"onnx/{name}.onnx" for name in FIVE}
    models |= {
        f"onnx/{name}.{kind}.onnx" for name in FIVE - {"sample"} for kind in ("float16", "int8")
    }
    assert files >= models | {
        "saved_model.pb",
        "variables/variables.index",
        "assets.extra/tf_serving_warmup_requests",
        "manifest.json",
        "parity.json",
        "MODEL_CARD.md",
        "decode.tflite",
    }
    assert [entry.name for entry in directory.parent.iterdir()] == ["1"]
    assert directory.stat().st_mode & 0o777 == 0o755


def test_terminal_says_where_the_time_goes_and_what_agrees(published):
    text, directory = published
    for name in FIVE:
        assert f"s  ONNX of {name}\n" in text
    assert "s  all cases in onnxruntime" in text
    assert "s  in all" in text
    assert "FAILED" not in text
    assert f"Published {directory}" in text
    # The path that is published may be of any length.
    assert max(len(line.replace(str(directory), "")) for line in text.splitlines()) <= 100


def test_manifest_obeys_its_schema(published):
    jsonschema.Draft202012Validator.check_schema(integrity.schema())
    found = read_manifest(published[1])
    jsonschema.validate(found, integrity.schema())
    assert set(found["signatures"]) == FIVE
    assert found["data"]["range"] == [0.0, 16.0]
    assert found["data"]["shape"] == [4, 4, 1]
    assert found["data"]["preparation"]["step"] == "binarize"
    assert found["likelihood"]["family"] == "Bernoulli"
    assert found["latent_size"] == 2
    assert found["training"]["final_beta"] == 0.5
    assert found["omitted"] == {}
    assert found["versions"]["keras-vae"] == keras_vae.__version__
    assert set(found["files"]) == set(integrity.hashes(published[1]))


def test_onnx_files_say_what_the_manifest_says(published):
    found = read_manifest(published[1])
    for path in sorted((published[1] / "onnx").iterdir()):
        model = onnx.load(path)
        about = {entry.key: entry.value for entry in model.metadata_props}
        assert about.pop("keras_vae.signature") == path.name.split(".")[0]
        assert len(about) == 11
        for key, value in about.items():
            expected = found[key.removeprefix("keras_vae.")]
            assert value == expected or json.loads(value) == expected


def test_onnx_files_are_plain_and_the_batch_is_called_batch(published):
    found = read_manifest(published[1])
    for path in sorted((published[1] / "onnx").iterdir()):
        model = onnx.load(path)
        name = path.name.split(".")[0]
        opset = found["signatures"][name]["opset"]
        assert opset == (18 if name in ("sample", "score") else 13)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
        assert model.ir_version == 8
        for entry in [*model.graph.input, *model.graph.output]:
            dims = entry.type.tensor_type.shape.dim
            assert dims[0].dim_param == "batch"
            assert all(dim.dim_value > 0 for dim in dims[1:])
            kinds = {"seed": onnx.TensorProto.INT32}
            assert entry.type.tensor_type.elem_type == kinds.get(entry.name, onnx.TensorProto.FLOAT)


def test_saved_model_obeys_tensorflow_serving(published):
    definitions = dict(saved_model._meta_graph(published[1]).signature_def)
    definitions.pop("__saved_model_init_op", None)
    assert set(definitions) == FIVE | {"serving_default"}
    assert set(definitions["serving_default"].inputs) == {"z"}
    for definition in definitions.values():
        for name, info in [*definition.inputs.items(), *definition.outputs.items()]:
            sizes = [dim.size for dim in info.tensor_shape.dim]
            assert sizes[0] == -1
            assert all(size > 0 for size in sizes[1:])
            assert not name.endswith("_bytes")


@pytest.mark.parametrize(
    ("row", "sizes"), [(4, warmup.SIZES), (64 * 64 * 3, (1, 2, 4, 8)), (2**20, (1,))]
)
def test_warm_up_of_large_rows_is_bounded(row, sizes, tmp_path):
    case = Case("encode", {"x": np.zeros([warmup.SIZES[-1], row], np.float32)}, ("loc",))
    warmup.write(tmp_path, "large", [case])
    assert tuple(len(each.inputs["x"]) for each in warmup.read(tmp_path)) == sizes
    assert (tmp_path / warmup.FILE).stat().st_size <= max(warmup.BYTES, 4 * row) + 1000


def test_every_runtime_and_precision_was_compared(published):
    entries = json.loads((published[1] / "parity.json").read_text())
    assert {(entry["runtime"], entry["precision"]) for entry in entries} == {
        ("onnxruntime", "float32"),
        ("saved_model", "float32"),
        ("onnxruntime", "float16"),
        ("onnxruntime", "int8"),
        ("litert", "float32"),
    }
    assert all(entry["passed"] for entry in entries)
    whole = [entry for entry in entries if entry["precision"] == "float32"]
    assert {entry["different"] for entry in whole if entry["output"] == "sample"} == {0}
    assert max(entry["max_nats"] for entry in whole if entry["output"] == "elbo") < 1e-3
    for precision in ("float16", "int8"):
        (cost,) = {entry["mean_nats"] for entry in entries if entry["precision"] == precision}
        assert 0.0 < cost <= 1.0


def test_variants_are_smaller_and_priced(published):
    found = read_manifest(published[1])["variants"]
    for path, entry in found.items():
        assert entry["bytes"] == (published[1] / path).stat().st_size
        assert (entry["mean_nats"] is None) == (entry["precision"] == "float32")
    assert len(found) == len(other.PRECISIONS) * len(other.SIGNATURES) + 1  # LiteRT beside them


def test_model_card(published):
    text = (published[1] / "MODEL_CARD.md").read_text()
    for words in (
        "# digits",
        "likelihood Bernoulli",
        "binarised anew",
        "from 0 to 16",
        "The first 7 of 9 test examples: log-probability of the binarised data, nats per example",
        "| VAE, ELBO (lower bound) | -10.00 | 0.25 |",
        "| VAE, importance sampling, k = 100 (lower bound) | -9.50 | 0.25 |",
        "at most 1.250 bits per dimension",
        "at least 0.50 nats below log p(x)",
        "final beta 0.5",
        "| *.float16.onnx |",
    ):
        assert words in text


def test_model_card_says_ranges_and_columns_in_words():
    ranges = ((None, None), (0.0, None), (None, 1.0), (0.0, 255.0))
    said = [model_card._range_in_words(*limits) for limits in ranges]
    assert said == ["any real number", "from 0 on", "up to 1", "from 0 to 255"]
    names = [f"column {index}" for index in range(52)]
    assert model_card._columns(names[:2]) == "Columns, in this order: `column 0`, `column 1`."
    assert "`column 49` and 2 more, which manifest.json lists." in model_card._columns(names)


def test_saved_model_checks_shapes_and_rows_in_the_loader_of_tensorflow_serving(published):
    """As flat as the network takes it, with height and width exchanged, or with a row too few."""
    x, seed = np.zeros([2, 4, 4, 1], np.float32), np.zeros([2, 2], np.int32)
    cases = [
        Case("encode", {"x": x}, ("loc",)),
        Case("encode", {"x": x.reshape(2, 16)}, ("loc",)),
        Case("encode", {"x": x.reshape(2, 2, 8, 1)}, ("loc",)),
        Case("score", {"x": x, "seed": seed}, ("elbo",)),
        Case("score", {"x": x, "seed": seed[:1]}, ("elbo",)),
        Case("score", {"x": x[:1], "seed": seed}, ("elbo",)),
    ]
    tensors = saved_model.tensor_names(published[1])
    found = parity.run_runtime("c", published[1], cases, tensors)
    right, flat, exchanged, scored, few, many = found
    assert right["loc"].shape == (2, 2)
    assert scored["elbo"].shape == (2,)
    for message in (flat, exchanged):
        assert "is not compatible with expected shape [?,4,4,1]" in message
    assert "score takes as many rows of seed as of x; got] [1] [and] [2]" in few
    assert "score takes as many rows of seed as of x; got] [2] [and] [1]" in many


def test_warm_up_asks_every_signature_at_every_size(published):
    cases = list(warmup.read(published[1]))
    asked = {(case.signature, len(next(iter(case.inputs.values())))) for case in cases}
    assert asked == {(name, size) for name in FIVE for size in warmup.SIZES}


def test_consumer_without_tensorflow_prints_the_models_own_sample(published, run):
    """The one in JavaScript is run by test_runtimes.py."""
    vae = keras.saving.load_model(run / "model.keras")
    expected = vae.sample(3, seed=7).numpy().reshape(3, -1) * 16.0
    command = [sys.executable, "-P", str(EXAMPLES / "sample.py"), str(published[1]), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.strip().splitlines()]
    np.testing.assert_array_equal(np.array(lines, float), expected)


# Publishing


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def start(run, target):
    command = [*preloaded.python(), "-m", "export", str(run / "model.keras"), "--out", str(target)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )


def kill_after(process, words):
    for line in process.stdout:
        if words in line:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_exporters_at_once_and_a_killed_one(published, run, tmp_path):
    """Two fresh processes publish byte-equal ONNX files as two versions; a third one dies."""
    target = tmp_path / "digits"
    shutil.copytree(published[1], target / "1")
    before = integrity.hashes(target / "1")
    killed, *others = [start(run, target) for _ in range(3)]
    kill_after(killed, "all cases in saved_model")
    for process in others:
        text, _ = process.communicate()
        assert process.returncode == 0, text
    assert publish.versions(target) == [1, 2, 3]
    assert integrity.hashes(target / "1") == before
    second, third = (read_manifest(target / number) for number in ("2", "3"))
    assert second["weights_digest"] == third["weights_digest"]
    for name in FIVE:
        file = f"onnx/{name}.onnx"
        assert second["files"][file] == third["files"][file] == before[file]
    for number, found in (("2", second), ("3", third)):
        assert integrity.hashes(target / number) == found["files"]
    (left,) = target.glob(".export-*")
    with publish.staging(target) as directory:
        assert not left.exists()
        with publish.staging(target):
            assert directory.exists()


_KILLED = """
import os, signal, sys
from pathlib import Path
from export import publish

moment, target, count = int(sys.argv[1]), Path(sys.argv[2]), 0
EVENTS = ("open", "os.", "fcntl.", "shutil.", "tempfile.")

def hook(event, arguments):
    global count
    if event.startswith(EVENTS):
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
with publish.staging(target) as directory:
    (directory / "onnx").mkdir()
    for name in ("saved_model.pb", "onnx/decode.onnx", "manifest.json"):
        (directory / name).write_text(name)
    publish.publish(directory, target, None)
"""


def test_killed_at_every_file_operation_of_publishing(tmp_path):
    """From the first operation on until one exporter lives to its end."""
    complete = {"saved_model.pb", "onnx/decode.onnx", "manifest.json"}
    moment, versions = 0, 0
    while True:
        moment += 1
        command = [sys.executable, "-c", _KILLED, str(moment), str(tmp_path / "digits")]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False)
        for number in publish.versions(tmp_path / "digits"):
            directory = tmp_path / "digits" / str(number)
            files = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
            assert files == complete
            versions = max(versions, number)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert moment > 20
    assert versions > 1
    assert not list((tmp_path / "digits").glob(".export-*"))


def test_version_can_be_chosen_and_is_never_overwritten(tmp_path, run, published):
    for number in ("7", None):
        with publish.staging(tmp_path) as directory:
            (directory / "file").write_text("x")
            version = None if number is None else int(number)
            assert publish.publish(directory, tmp_path, version).name == (number or "8")
    with (
        publish.staging(tmp_path) as directory,
        pytest.raises(ExportError, match=r"7 exists, and a published version is never overwritt"),
    ):
        publish.publish(directory, tmp_path, 7)
    assert (tmp_path / "7" / "file").read_text() == "x"
    words = [run / "model.keras", "--out", published[1].parent, "--version", "1"]
    assert "1 exists, and a published version is never overwritten" in sentence(words)


def fails_within(target):
    with contextlib.suppress(KeyError), publish.staging(target) as directory:
        (directory / "half").write_text("x")
        raise KeyError


def test_failure_leaves_the_target_as_it_was(tmp_path):
    target = tmp_path / "new"
    fails_within(target)
    assert not target.exists()
    (tmp_path / "old").mkdir()
    fails_within(tmp_path / "old")
    assert list((tmp_path / "old").iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="cannot be written"), publish.staging(tmp_path / "file"):
        pass


# Verifying


def test_verify_repeats_everything(published):
    result = CliRunner().invoke(main, ["verify", str(published[1])])
    assert result.exit_code == 0, result.output
    assert "is unchanged since it was published" in result.output
    for words in ("float16", "int8", "litert"):
        assert words in result.output


def test_parity_in_another_runtime(published):
    words = ["parity", str(published[1]), "--runtimes", "c"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert " c " in result.output


@pytest.mark.parametrize("name", ["my model", "é", ".dot", "a:b", "a\nb", "x" * 64])
def test_a_name_that_no_server_could_serve_is_refused(run, tmp_path, name):
    said = sentence([str(run / "model.keras"), "--out", str(tmp_path / name)])
    assert "with a name of at most 63 letters" in said
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_reported(tmp_path):
    with (
        pytest.raises(ExportError, match=r"digits has no room for the artifact \(No space left"),
        publish.staging(tmp_path / "digits"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not any(tmp_path.iterdir())


def test_verify_refuses_what_is_no_artifact(tmp_path):
    assert "is not a version of an artifact" in sentence(["verify", tmp_path])


# Warm-up


def request(signature, **inputs):
    message = PredictRequest()
    message.model_spec.signature_name = signature
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return PredictionLog(predict_log=PredictLog(request=message)).SerializeToString()


Z = np.zeros([1, 2], np.float32)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([request("sing", z=Z)], "the signature 'sing' refuses"),
        ([request("decode", z=Z[:, :1])], "the signature 'decode' refuses"),
        ([request("decode", z=Z.astype(np.float64))], "the signature 'decode' refuses"),
        ([request("decode", z=Z, w=Z)], "the signature 'decode' refuses"),
        ([request("decode")], "the signature 'decode' refuses"),
        ([b"\xff\xff"], "request 0 is damaged"),
        ([], "holds 0 requests"),
        ([request("decode", z=Z)] * 1001, "holds 1001 requests"),
    ],
    ids=["name", "shape", "dtype", "extra", "missing", "bytes", "none", "many"],
)
def test_bad_warm_up_is_refused(artifact, records, words):
    with tf.io.TFRecordWriter(str(artifact / warmup.FILE)) as writer:
        for record in records:
            writer.write(record)
    with pytest.raises(ExportError, match=words):
        warmup.replay(artifact)


def test_truncated_warm_up_is_refused(artifact):
    path = artifact / warmup.FILE
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ExportError, match="is damaged"):
        warmup.replay(artifact)


# Models that are refused


class Layer(keras.layers.Layer):
    """A layer of one function, which a saved model would not bring along."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)

    def compute_output_shape(self, input_shape):
        return input_shape


def with_layer(function, where="likelihood"):
    dense = keras.layers.Dense(4)
    network = keras.Sequential([keras.layers.Dense(4), Layer(function)])
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(3, network=network if where == "likelihood" else dense),
        posterior=keras_vae.DiagonalNormal(2, network=network if where == "posterior" else dense),
    )


def refused(vae, tmp_path, **options):
    """Returns the message that an export fails with, and checks that it left nothing."""
    target = tmp_path / "artifacts"
    with pytest.raises(ExportError) as caught:
        pipeline.export_model(vae, target, pipeline.Options(**options))
    assert not target.exists()
    return str(caught.value)


def read_a_file(x):
    return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), x.dtype)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x + tf.random.normal(tf.shape(x)), "op RandomStandardNormal of layer"),
        (lambda x: keras.random.dropout(x, 0.5), "is random"),
        (lambda x: tf.ensure_shape(tf.py_function(tf.abs, [x], x.dtype), x.shape), "runs Python"),
        (read_a_file, "op ReadFile of layer"),
    ],
    ids=["random", "stateless", "python", "file"],
)
def test_impure_model_is_refused(function, words, tmp_path):
    message = refused(with_layer(function), tmp_path, allow_partial=True)
    assert message.startswith("decode: ")
    assert words in message


def test_table_is_refused(tmp_path):
    initializer = tf.lookup.KeyValueTensorInitializer([0, 1], [2.0, 3.0], tf.int32, tf.float32)
    table = tf.lookup.StaticHashTable(initializer, 0.0)
    message = refused(with_layer(lambda x: table.lookup(tf.cast(x, tf.int32))), tmp_path)
    assert message.startswith("decode: the op LookupTableFindV2 of layer")


def test_custom_gradients_constants_and_requests_for_xla_stay_behind():
    """A grouped convolution asks for XLA, a Normalization holds tensors, a clip has a gradient."""
    outside = tf.constant([1.0, 2.0, 3.0, 4.0])

    @tf.custom_gradient
    def clipped(x):
        return tf.clip_by_value(x, -1.0, 1.0), lambda gradient: gradient

    def function(x):
        return tf.function(clipped, jit_compile=True)(x) + outside

    entry = signatures(with_layer(function))["decode"]
    found = onnx_graphs.traced(entry)
    z = tf.constant(np.random.default_rng(0).normal(size=(5, 2)), tf.float32)
    for name, value in entry.function(z=z).items():
        np.testing.assert_array_equal(found(z)[name], value)
    concrete = found.get_concrete_function()
    handles = {id(variable.handle) for variable in concrete.graph.variables}
    assert {id(outside) for outside, _ in concrete.graph.captures} == handles
    text = str(concrete.graph.as_graph_def())
    assert "_XlaMustCompile" not in text
    assert "_gradient_op_type" not in text


def test_lambda_layer_is_refused(tmp_path):
    network = keras.Sequential([keras.layers.Dense(4), keras.layers.Lambda(lambda x: x + 1)])
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(3, network=network),
        posterior=keras_vae.DiagonalNormal(2),
    )
    assert "is a Lambda, which runs its own Python code" in refused(vae, tmp_path)
    vae.save(tmp_path / "model.keras")
    words = [tmp_path / "model.keras", "--out", tmp_path / "artifacts"]
    assert "holds a Lambda layer" in sentence(words)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    vae = tiny_vae()
    weight = vae.likelihood.trainable_weights[0]
    weight.assign(weight * np.nan)
    assert f"The weight {weight.path} holds NaN or infinity" in refused(vae, tmp_path)


def test_answers_that_are_not_finite_are_refused(tmp_path):
    vae = with_layer(lambda x: x / tf.maximum(12.0 - tf.abs(x), 0.0))
    vae.likelihood.network.layers[0].kernel.assign(tf.ones([2, 4]))
    message = refused(vae, tmp_path)
    assert "is not finite on adversarial input" in message


class Wrong(keras_vae.Normal):
    """A likelihood that breaks its contract in the way it is told."""

    def __init__(self, fault):
        super().__init__(3, network=keras.layers.Dense(4), scale="decoder")
        self.fault = fault

    def parameters(self, c, training=False):
        found = super().parameters(c, training)
        if self.fault == "batch":
            found["scale"] = found["scale"][0]
        return found

    def make_distribution(self, loc, scale):
        if self.fault == "event":
            return tfd.Normal(loc, scale)
        if self.fault == "mean":
            return Meanless(tfd.Normal(loc, scale), 1)
        return super().make_distribution(loc, scale)

    def draw(self, noise, loc, scale):
        if self.fault == "none":
            raise NotImplementedError("Wrong cannot draw")
        return Draw(noise[:, :2] if self.fault == "draw" else loc)


class Meanless(tfd.Independent):
    def _mean(self, **_):
        return self.distribution.mean()[..., :2]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("batch", r"the parameter scale has shape \(3,\) for 11 rows; its axis 0 must be the"),
        ("event", r"its distribution has batch shape \(11, 3\) and event shape \(\)"),
        (
            "mean",
            r"the mean of its distribution has shape \(11, 2\) for 11 rows; expected \(11, 3\)",
        ),
        ("draw", r"what `draw` returns has shape \(11, 2\) for 11 rows; expected \(11, 3\)"),
        ("none", "Wrong cannot be exported: Wrong cannot draw"),
    ],
)
def test_likelihood_that_breaks_its_contract_is_refused(fault, words):
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=Wrong(fault),
        posterior=keras_vae.DiagonalNormal(2),
    )
    with pytest.raises(ExportError, match=words):
        gates.check_contract(vae)


@pytest.mark.parametrize("name", ["mean", "image_bytes"])
def test_parameter_names_that_clash_are_refused(name):
    with pytest.raises(ExportError, match=f"rename the parameter {name}"):
        gates._check_names(keras_vae.Bernoulli(3), [name])


def signature(function):
    spec = {"z": tf.TensorSpec([None, 2], tf.float32, "z")}
    return Signature("decode", function, spec, ("mean",), "A test.")


def test_output_whose_axis_0_is_not_the_batch_is_refused():
    total = signature(lambda z: {"mean": tf.reduce_sum(z, axis=0)})
    function = onnx_graphs.traced(total)
    case = Case("decode", {"z": np.zeros([5, 2], np.float32)}, ("mean",))
    with pytest.raises(ExportError, match="axis 0 of mean is not the batch: it has shape"):
        live.reference({"decode": function}, [case])
    scalar = signature(lambda z: {"mean": tf.reduce_sum(z)})
    with pytest.raises(ExportError, match="expected the batch as axis 0"):
        onnx_graphs.traced(scalar)


def test_output_that_no_input_reaches_is_refused():
    constant = signature(lambda z: {"mean": tf.ones([3, 2])})
    with pytest.raises(ExportError, match="decode: the ONNX checker refuses the model"):
        onnx_graphs.convert(constant)


def unknown(x):
    return tf.math.bessel_i0e(x)


def test_op_without_an_onnx_form_is_refused():
    table = signatures(with_layer(unknown))
    with pytest.raises(
        ExportError, match=r"decode: the op BesselI0e of layer .* has no ONNX form at op set 18"
    ):
        onnx_graphs.convert(table["decode"])


def test_what_the_converter_says_is_its_reason_alone():
    def transformed(x):
        return tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64)))

    says = r"the op FFT of .*\. tf2onnx says: [^'\\]*only allows ComplexAbs[^\\]*$"
    with pytest.raises(ExportError, match=says):
        onnx_graphs.convert(signatures(with_layer(transformed))["decode"])


def test_partial_export_says_what_it_left_out(tmp_path):
    vae = with_layer(unknown, "posterior")
    assert "encode: the op BesselI0e" in refused(vae, tmp_path)
    options = pipeline.Options(allow_partial=True)
    directory = pipeline.export_model(vae, tmp_path / "artifacts", options)
    found = read_manifest(directory)
    assert set(found["omitted"]) == {"encode", "reconstruct", "score"}
    assert "BesselI0e" in found["omitted"]["encode"]
    assert "Bernoulli with DiagonalNormal and StandardNormal" in found["omitted"]["encode"]
    assert found["signatures"]["encode"]["onnx"] is None
    assert sorted(path.stem for path in (directory / "onnx").iterdir()) == ["decode", "sample"]
    assert "BesselI0e" in (directory / "MODEL_CARD.md").read_text()
    assert not found["training"]


def write_a_file(x):
    with tf.control_dependencies([tf.io.write_file("/nowhere/never", "x")]):
        return {"y": tf.identity(x)}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (tf.function(write_a_file), "the op WriteFile"),
        (tf.function(lambda x: {"y": x + 1.0}, jit_compile=True), "requests XLA"),
    ],
    ids=["file", "xla"],
)
def test_saved_model_ops_are_checked_again_on_disk(function, words, tmp_path):
    module = tf.Module()
    module.function = function
    concrete = function.get_concrete_function(tf.TensorSpec([None, 2], tf.float32))
    tf.saved_model.save(module, str(tmp_path), signatures={"decode": concrete})
    with pytest.raises(ExportError, match=words):
        saved_model.check_ops(tmp_path)


def test_onnx_gate_refuses_other_domains_and_names(published):
    model = onnx.load(published[1] / "onnx" / "decode.onnx")
    names = ["z"], ["mean", "logits"]
    onnx_graphs.check(model, "decode", *names)
    with pytest.raises(ExportError, match="takes"):
        onnx_graphs.check(model, "decode", ["x"], names[1])
    with pytest.raises(ExportError, match="gives"):
        onnx_graphs.check(model, "decode", ["z"], ["mean"])
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ExportError, match="expected op set 13 or 18 of the standard domain alone"):
        onnx_graphs.check(model, "decode", *names)


# Precisions


def test_precision_that_costs_too_much_is_refused(run, tmp_path):
    words = [run / "model.keras", "--out", tmp_path / "a", "--precisions", "int8"]
    message = sentence([*words, "--max-nats", "1e-9"])
    assert "int8 costs" in message
    assert "raise --max-nats" in message
    assert not (tmp_path / "a").exists()


def test_float16_keeps_noise_exact_and_refuses_weights_out_of_range(published):
    model = onnx.load(published[1] / "onnx" / "score.onnx")
    half = other.convert(Graph(model, {}), "float16").model
    kinds = {tensor.data_type for tensor in half.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    linear = {"MatMul", "Gemm"}
    casts = sum(node.op_type == "Cast" for node in half.graph.node)
    casts -= sum(node.op_type == "Cast" for node in model.graph.node)
    assert casts == 2 * sum(
        node.op_type in linear and any("float16" in name for name in node.input)
        for node in half.graph.node
    )
    weights = next(t for t in model.graph.initializer if t.data_type == 1 and len(t.dims) == 2)
    large = onnx.numpy_helper.from_array(
        onnx.numpy_helper.to_array(weights) + np.float32(1e5), weights.name
    )
    weights.CopyFrom(large)
    with pytest.raises(ExportError, match="float16: a weight is"):
        other.convert(Graph(model, {}), "float16")


def test_unused_precision_words(published):
    model = onnx.load(published[1] / "onnx" / "decode.onnx")
    with pytest.raises(ExportError, match="Unknown precision 'int4'"):
        other.convert(Graph(model, {}), "int4")


# The command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["missing.keras", "--out", "a"],
            "missing.keras does not exist. Give the directory of a run",
        ),
        (["{model}", "--out", "a", "--runtimes", "toaster"], "Unknown runtime 'toaster'"),
        (["{model}", "--out", "a", "--precisions", "int4"], "Unknown precision 'int4'"),
        (["{model}", "--out", "{model}"], "cannot be written"),
        (["{config}", "--out", "a"], "cannot be loaded"),
        (["parity", "nowhere"], "is not a version of an artifact"),
    ],
    ids=["file", "runtime", "precision", "target", "format", "artifact"],
)
def test_one_sentence_says_what_is_wrong(words, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = {"model": run / "model.keras", "config": run / "config.toml"}
    assert message in sentence([word.format(**paths) for word in words])
    assert not (tmp_path / "a").exists()


def test_options_come_before_or_after_the_model(run):
    for words in (["--help"], ["-h"], ["verify", "--help"], ["publish", "-h"]):
        assert CliRunner().invoke(main, words).exit_code == 0
    for words in (["--out", "verify", "nothing.keras"], ["nothing.keras", "--out", "verify"]):
        assert "nothing.keras does not exist" in sentence(words)
    assert CliRunner().invoke(main, ["m.keras", "--out", "a", "--version", "0"]).exit_code == 2


def test_model_that_is_no_vae(tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]).save(tmp_path / "m.keras")
    message = sentence([tmp_path / "m.keras", "--out", tmp_path / "a"])
    assert (
        "Expected a keras_vae.VAE or another keras_vae.LatentVariableModel; got a Sequential"
        in message
    )


def test_options_are_checked_at_once():
    for options in ({"version": 0}, {"max_nats": float("nan")}, {"runtimes": ("openwine",)}):
        with pytest.raises(ExportError, match=r"Expected|Unknown"):
            pipeline.Options(**options)
    assert dataclasses.replace(pipeline.Options(), runtimes=("c", "onnxruntime")).verified_in == [
        "onnxruntime",
        "saved_model",
        "c",
    ]


def test_row_seeds_are_all_that_a_row_depends_on(published):
    """To the last bit for draws of discrete data, alone and among 257."""
    session = onnxruntime.InferenceSession(published[1] / "onnx" / "sample.onnx")
    seeds = random.row_seeds(9, 257).numpy()
    (many,) = session.run(["sample"], {"seed": seeds})
    for row in (0, 100, 256):
        (one,) = session.run(["sample"], {"seed": seeds[row : row + 1]})
        np.testing.assert_array_equal(one[0], many[row])
