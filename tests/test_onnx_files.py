"""Weights beside their graphs: the same graphs, in files that a runtime reads, of any size."""

import json

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from click.testing import CliRunner
from models import tiny_vae
from onnx.reference import ReferenceEvaluator

import keras_vae
from export import onnx_files, onnx_graphs, pipeline
from export.cli import main
from export.errors import ExportError
from export.verify import verify
from keras_vae.integrity import WEIGHTS
from keras_vae.signatures import Signature, signatures
from serving.artifact import Artifact
from serving.errors import ServingError
from serving.explore import site
from serving.local import sessions


def convolutions():
    """Makes a model whose kernels have another order in ONNX than in TensorFlow."""
    layers = keras.layers
    encoder = [layers.Conv2D(3, 3, 2, "same"), layers.DepthwiseConv2D(3, padding="same")]
    decoder = [layers.Dense(12), layers.Reshape((2, 2, 3)), layers.Conv2DTranspose(3, 3, 2, "same")]
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(
            (4, 4, 1), network=keras.Sequential(decoder), head=layers.Conv2D(1, 3, padding="same")
        ),
        posterior=keras_vae.DiagonalNormal(
            2, network=keras.Sequential([*encoder, layers.Flatten()])
        ),
    )


@pytest.fixture(scope="module", params=[convolutions, lambda: tiny_vae("normal", (5,))])
def model(request):
    keras.utils.set_random_seed(3)
    return request.param()


@pytest.fixture
def apart(monkeypatch):
    """Kernels stay out of their graphs."""
    monkeypatch.setattr(onnx_files, "LARGE", 100)


@pytest.fixture
def outside(apart, monkeypatch):
    """Lowers the limit of file sizes, so that no file holds its weights."""
    monkeypatch.setattr(onnx_files, "LIMIT", 1000)


def paths(graphs, directory):
    return {directory / f"{name}.onnx": graph for name, graph in graphs.items()}


def feeds(signature):
    generator = np.random.default_rng(0)
    return {
        name: np.ones([3, 2], np.int32)
        if name == "seed"
        else generator.random([3, *spec.shape[1:]]).astype(np.float32)
        for name, spec in signature.inputs.items()
    }


def test_graphs_and_bytes_do_not_depend_on_where_weights_wait(model, apart, tmp_path, monkeypatch):
    table = signatures(model)
    for name in ("encode", "reconstruct"):
        large = onnx_graphs.convert(table[name], model.weights)
        monkeypatch.setattr(onnx_files, "LARGE", 2**31)
        small = onnx_graphs.convert(table[name], model.weights)
        monkeypatch.setattr(onnx_files, "LARGE", 100)
        assert not small.weights
        assert large.weights
        kinds = [[node.op_type for node in graph.model.graph.node] for graph in (large, small)]
        assert kinds[0] == kinds[1]

        path, plain = tmp_path / f"{name}.onnx", tmp_path / "plain.onnx"
        large.save(path)
        first = path.read_bytes()
        onnx_graphs.convert(table[name], model.weights).save(path)
        assert path.read_bytes() == first
        small.save(plain)
        assert onnx.load(plain) == small.model
        inputs = feeds(table[name])
        answers = [onnxruntime.InferenceSession(p).run(None, inputs) for p in (path, plain)]
        for got, want in zip(*answers, strict=True):
            np.testing.assert_array_equal(got, want)


def test_weights_beside_the_graphs_are_stored_once(model, outside, tmp_path):
    table = signatures(model)
    graphs = {name: onnx_graphs.convert(entry, model.weights) for name, entry in table.items()}
    onnx_files.save(paths(graphs, tmp_path))
    ends = {}
    for name in table:
        proto = onnx.load(tmp_path / f"{name}.onnx", load_external_data=False)
        for tensor in proto.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                place = {entry.key: entry.value for entry in tensor.external_data}
                ends[int(place["offset"])] = int(place["length"])
        session = onnxruntime.InferenceSession(tmp_path / f"{name}.onnx")
        evaluator = ReferenceEvaluator(onnx.load(tmp_path / f"{name}.onnx"))
        inputs = feeds(table[name])
        outputs = list(table[name].outputs)
        want = table[name].function(**{k: tf.constant(v) for k, v in inputs.items()})
        for run in (session.run, evaluator.run):
            for key, got in zip(outputs, run(outputs, inputs), strict=True):
                np.testing.assert_allclose(got, want[key], rtol=0, atol=1e-5)
    distinct = {
        graph.weights[key].content().tobytes() for graph in graphs.values() for key in graph.weights
    }
    assert sorted(ends.values()) == sorted(map(len, distinct))
    assert all(offset % 2**16 == 0 for offset in ends)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """Publishes an artifact whose weights are in a separate file."""
    keras.utils.set_random_seed(1)
    target = tmp_path_factory.mktemp("artifacts") / "large"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_files, "LARGE", 100)
        patch.setattr(onnx_files, "LIMIT", 1000)
        options = pipeline.Options(precisions=("float16",), max_nats=1.0)
        return pipeline.export_model(tiny_vae("bernoulli", (4, 4, 1)), target, options)


def test_artifact_with_weights_outside_is_verified_and_served(artifact):
    manifest = json.loads((artifact / "manifest.json").read_text())
    assert WEIGHTS in manifest["files"]
    verify(artifact, runtimes=["onnxruntime", "node", "openvino"])
    served = sessions.load(Artifact.read(artifact), 1)
    z = np.zeros([2, manifest["latent_size"]], np.float32)
    got = served["decode"]({"z": z})["mean"]
    session = onnxruntime.InferenceSession(artifact / "onnx" / "decode.onnx")
    np.testing.assert_array_equal(got, session.run(["mean"], {"z": z})[0])


def test_browser_is_told_that_the_weights_are_too_large(artifact, tmp_path):
    with pytest.raises(ServingError, match="expected ONNX files below 2 GB"):
        site.write(Artifact.read(artifact), tmp_path, tmp_path / "site")


@pytest.mark.parametrize(
    "place", [{"location": "../weights.bin"}, {"length": "99999999"}, {"offset": "-1"}]
)
def test_weights_elsewhere_are_refused(artifact, tmp_path, place):
    source = artifact / "onnx"
    proto = onnx.load(source / "decode.onnx", load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.external_data)
    for entry in tensor.external_data:
        entry.value = place.get(entry.key, entry.value)
    (tmp_path / "decode.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "weights.bin").write_bytes((source / "weights.bin").read_bytes())
    with pytest.raises(ExportError, match=r"expected the values of .* inside weights.bin"):
        onnx_files.read(tmp_path / "decode.onnx")


def test_quantizer_is_not_given_more_than_it_takes(monkeypatch):
    vae = tiny_vae("bernoulli", (4, 4, 1))
    graph = onnx_graphs.convert(signatures(vae)["decode"], vae.weights)
    monkeypatch.setattr(pipeline.variants, "LIMIT", 10)
    with pytest.raises(ExportError, match="int8: expected a graph of at most"):
        pipeline.variants.convert(graph, "int8")


# What other programs are asked to understand


def ops(graph):
    return {node.op_type for node in graph.model.graph.node}


@pytest.mark.parametrize("name", ["decode", "encode", "reconstruct"])
def test_graphs_without_seed_are_of_op_set_13_and_work_on_no_shape(name):
    vae = tiny_vae("discretized_logistic", (4,), levels=40)
    graph = onnx_graphs.convert(signatures(vae)[name])
    assert graph.opset == 13
    assert "Softplus" in ops(graph)
    assert not ops(graph) & {"Shape", "ConstantOfShape", "Slice"}
    # Where data comes in, rows that cannot be are told from others.
    assert bool(ops(graph) & {"Greater", "Where"}) == (name != "decode")


def test_zeros_beside_a_max_pooling_stay_zeros():
    """ONNX Runtime folds a Pad of 0 into MaxPool, which pads with minus infinity."""
    network = keras.Sequential(
        [
            keras.layers.Conv2D(2, 1, kernel_initializer="ones"),
            keras.layers.ZeroPadding2D(),
            keras.layers.MaxPooling2D(3, 2),
            keras.layers.Flatten(),
        ]
    )
    signature = Signature(
        "encode",
        lambda x: {"loc": network(x)},
        {"x": tf.TensorSpec([None, 7, 7, 2], tf.float32, "x")},
        ("loc",),
        "A test.",
    )
    x = -1.0 - np.random.default_rng(0).random((3, 7, 7, 2)).astype(np.float32)
    expected = network(x).numpy()
    assert ((expected == 0.0).mean(), (expected < 0.0).mean()) == (0.75, 0.25)
    model = onnx_graphs.convert(signature).model
    session = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-6, atol=1e-37)


def test_noise_is_made_of_32_bit_integers():
    graph = onnx_graphs.convert(signatures(tiny_vae("bernoulli", (4, 4, 1)))["sample"])
    assert graph.opset == 18
    assert "BitShift" not in ops(graph)
    kinds = {
        attribute.i
        for node in graph.model.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
    }
    assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT32, onnx.TensorProto.BOOL}


def test_option_of_former_versions_says_that_it_is_the_rule_now():
    result = CliRunner().invoke(main, ["model.keras", "--out", "a", "--int32-random"])
    assert result.exit_code == 2
    assert "noise in 32-bit integers. Leave the option out." in " ".join(result.output.split())
