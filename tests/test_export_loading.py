"""Models as they come: other precisions, names, classes of a user's own, files and places."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import preloaded
import pytest
import tensorflow as tf
from click.testing import CliRunner
from models import tiny_vae

import keras_vae
from export import loading, manifest, onnx_graphs, pipeline, publish, saved_model
from export.cli import main
from export.errors import ExportError, sentence
from export.verify import read_manifest
from keras_vae.data.preparation import Preparation
from keras_vae.signatures import signatures

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ("mixed_float16", "float16", "mixed_bfloat16", "bfloat16", "float64")


def made_under(policy, make=tiny_vae):
    kept = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy(kept)


def convolutional():
    vae = keras_vae.conv_vae((8, 8, 1), 2, "normal", filters=(4,), width=8)
    for layer in vae._flatten_layers():
        if isinstance(layer, keras.layers.Dense):
            layer.bias.assign(layer.bias + 0.1)
    return vae


# Precisions


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_is_exported_in_float32_with_the_same_weights(policy):
    vae = made_under(policy, convolutional)
    assert policy in loading.policies(vae)
    found = loading.computing_in_float32(vae)
    assert loading.policies(found) == []
    for old, new in zip(vae.weights, found.weights, strict=True):
        assert new.dtype == "float32"
        np.testing.assert_array_equal(np.asarray(old, "float32"), new.numpy())
    z = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    rounding = {"float16": 2**-8, "bfloat16": 2**-5}.get(policy.removeprefix("mixed_"), 1e-6)
    old, new = (model.decode(z).mean().numpy() for model in (vae, found))
    np.testing.assert_allclose(old, new, atol=rounding)


def test_float32_models_are_exported_as_they_are():
    vae = tiny_vae()
    assert loading.computing_in_float32(vae) is vae


def test_statistics_that_a_layer_was_adapted_to_come_along():
    def make():
        network = keras.Sequential([keras.layers.Normalization(), keras.layers.Dense(2)])
        network.layers[0].adapt(np.array([[1.0, 5.0], [3.0, 9.0]]))
        return keras_vae.VAE(
            prior=keras_vae.StandardNormal(2),
            likelihood=keras_vae.Normal(2),
            posterior=keras_vae.DiagonalNormal(2, network=network),
        )

    found = loading.computing_in_float32(made_under("mixed_float16", make))
    x = np.array([[2.0, 7.0]], "float32")
    np.testing.assert_allclose(found.posterior.network.layers[0](x), [[0.0, 0.0]], atol=1e-6)


def test_model_that_cannot_be_made_anew_is_refused():
    class Unregistered(keras.layers.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, x):
            return x * self.factor

    def make():
        return keras_vae.VAE(
            prior=keras_vae.StandardNormal(2),
            likelihood=keras_vae.Bernoulli(6, network=Unregistered(2.0)),
            posterior=keras_vae.DiagonalNormal(2),
        )

    with pytest.raises(ExportError, match="under the policy mixed_float16 and cannot be rebuilt"):
        loading.computing_in_float32(made_under("mixed_float16", make))


def test_manifest_says_what_the_training_computed_in():
    about = manifest.metadata(tiny_vae(), Preparation(), ["mixed_float16"])
    assert about["precision"] == {"trained_in": ["mixed_float16"], "exported_in": "float32"}
    about = manifest.metadata(tiny_vae(), Preparation())
    assert about["precision"] == {"trained_in": ["float32"], "exported_in": "float32"}


# Names


def test_layers_and_weights_have_plain_names_while_they_are_traced_and_saved(tmp_path):
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6, network=keras.layers.Dense(4, name="décodeur é")),
        posterior=keras_vae.DiagonalNormal(2, network=keras.layers.Dense(4, name="編碼")),
    )
    with loading.traceable(vae):
        assert vae.likelihood.network.name == "decodeur_e"
        assert vae.posterior.network.name == "layer"
        table = signatures(vae)
        functions = {name: onnx_graphs.traced(table[name]) for name in ("decode", "encode")}
        saved_model.write(functions, tmp_path)
    assert vae.likelihood.network.name == "décodeur é"
    assert vae.posterior.network.name == "編碼"
    z = tf.ones([3, 2])
    found = tf.saved_model.load(tmp_path).signatures["decode"](z=z)["mean"]
    np.testing.assert_allclose(found, vae.decode(z).mean(), rtol=1e-6)


def test_recurrent_layers_do_not_use_cudnn_while_they_are_traced():
    """On a GPU they would be traced into an op that servers on processors lack."""
    network = keras.layers.Bidirectional(keras.layers.LSTM(4))
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli((3, 2)),
        posterior=keras_vae.DiagonalNormal(2, network=network),
    )
    with loading.traceable(vae):
        assert not network.forward_layer.use_cudnn
        assert not network.backward_layer.use_cudnn
    assert network.forward_layer.use_cudnn == network.backward_layer.use_cudnn == "auto"


# Files and places


def damaged(path):
    path.write_bytes(b"PK\x03\x04 nothing")
    return path


def error_of(words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1, result.output
    return result.output


def test_a_path_that_speaks_of_lambda_does_not_blame_a_lambda_layer(tmp_path):
    (tmp_path / "lambda").mkdir()
    path = damaged(tmp_path / "lambda" / "lambda.keras")
    message = error_of([path, "--out", tmp_path / "a"])
    assert "lambda.keras is damaged: expected a complete model file" in message
    assert "Lambda layer" not in message


@pytest.mark.parametrize("name", ["manifest.json", "saved_model.pb"])
@pytest.mark.parametrize("inner", ["", "mine", "mine/deep"])
def test_a_target_in_a_published_version_is_refused(name, inner, tmp_path):
    version = tmp_path / "art" / "base" / "1"
    version.mkdir(parents=True)
    (version / name).write_text("published")
    message = error_of([damaged(tmp_path / "m.keras"), "--out", version / inner])
    assert "is a published version, which is never changed" in message
    assert message.rstrip().endswith(f"give --out {version.parent}.")
    assert [path.name for path in version.iterdir()] == [name]


def test_a_version_is_told_from_a_project_with_a_manifest(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text("of a web page")
    publish.refuse_inside_a_version(tmp_path / "art")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").write_text("published")
    monkeypatch.chdir(tmp_path / "1")
    with pytest.raises(ExportError, match=f"give --out {tmp_path}"):
        publish.refuse_inside_a_version(Path("mine"))


def test_a_disk_that_is_full_for_tensorflow_is_named(tmp_path, monkeypatch):
    """test_export.py has the disk that is full for Python."""

    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "variables; No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    target = tmp_path / "a"
    with pytest.raises(ExportError, match=r"/a has no room for the artifact \(No space left"):
        pipeline.export_model(tiny_vae(), target)
    assert not target.exists()


def test_messages_of_keras_are_one_line_without_colours():
    error = ValueError(
        "Exception encountered when calling Functional.call().\n\n\x1b[1m'é' is not a valid scope."
        "\x1b[0m\n\nArguments received by Functional.call():\n  • inputs=[1, 2]"
    )
    assert sentence(error) == "'é' is not a valid scope."
    assert sentence(KeyError()) == "KeyError"
    assert len(sentence(ValueError("x" * 9000))) == 400


# Classes of a user's own

MODULE = """
import keras
import tensorflow as tf
import keras_vae
from keras_vae.distributions import Parameter, positive, supports
from keras_vae.distributions.tfp import tfd


@keras.saving.register_keras_serializable("mine")
class Exponential(keras_vae.Likelihood):
    @property
    def support(self):
        return supports.positive()

    def parameter_specs(self):
        return {"rate": Parameter(self.channels, positive)}

    def make_distribution(self, rate):
        return self.independent(tfd.Exponential(rate))

    def draw(self, noise, rate):
        return keras_vae.distributions.Draw(-tf.math.log1p(-noise) / rate)


@keras.saving.register_keras_serializable("mine")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x


def make():
    network = keras.Sequential([keras.layers.Dense(8, "relu"), Doubled()])
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=Exponential(20, network=network),
        posterior=keras_vae.DiagonalNormal(2, network=keras.layers.Dense(8)),
    )
"""
SAVE = "import sys; sys.path.append(''); from my.module import make; make().save('own.keras')"


def run(command, directory, python=(sys.executable,), **environment):
    return subprocess.run(
        [*python, *command],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_classes_of_a_users_own_without_onednn(tmp_path):
    """`--import` names their module; without it the message does. TensorFlow without oneDNN."""
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "module.py").write_text(MODULE)
    saved = run(["-c", SAVE], tmp_path, preloaded.python())
    assert saved.returncode == 0, saved.stderr
    path = tmp_path / "own.keras"
    assert f"{path} holds " in (message := error_of([path, "--out", tmp_path / "a"]))
    assert "--import my.module" in message
    command = ["-m", "export", "own.keras", "--out", "a", "--import", "my.module"]
    done = run(command, tmp_path, TF_ENABLE_ONEDNN_OPTS="0")
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_manifest(tmp_path / "a" / "1")
    assert found["likelihood"]["family"] == "Exponential"


def test_draws_outside_the_declared_support_are_refused(tmp_path):
    """Graphs answer NaN to what the data cannot hold; so the model's own draws must not be that."""

    class Halves(keras_vae.Poisson):
        def draw(self, noise, **parameters):
            found = super().draw(noise, **parameters)
            return found._replace(value=found.value + 0.5)

    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=Halves(6, network=keras.layers.Dense(8)),
        posterior=keras_vae.DiagonalNormal(2, network=keras.layers.Dense(8)),
    )
    with pytest.raises(
        ExportError, match=r"draws \d+\.5 for x, but takes only whole numbers from 0 to"
    ):
        pipeline.export_model(vae, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_mixed_precision_with_onednn(tmp_path):
    vae = made_under("mixed_float16", lambda: keras_vae.mlp_vae((28, 28, 1), 8))
    vae.save(tmp_path / "half.keras")
    done = run(["-m", "export", "half.keras", "--out", "a"], tmp_path, TF_ENABLE_ONEDNN_OPTS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exported in float32; the training used mixed_float16." in done.stdout
    found = read_manifest(tmp_path / "a" / "1")
    assert found["precision"]["trained_in"] == ["mixed_float16"]
    assert "Trained under mixed_float16" in (tmp_path / "a" / "1" / "MODEL_CARD.md").read_text()


def test_a_module_that_is_not_there_is_named(tmp_path):
    (tmp_path / "m.keras").touch()
    message = error_of([tmp_path / "m.keras", "--out", tmp_path / "a", "--import", "no.such"])
    assert "--import no.such failed: ModuleNotFoundError" in message
