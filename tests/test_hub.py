"""Models go to the hub in one commit and come back the same, and nothing of a stranger runs."""

import json
import re
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from artifacts import published
from click.testing import CliRunner
from hub_server import serving
from huggingface_hub import constants
from models import tiny_vae

import keras_vae
from keras_vae import hub
from keras_vae.cli import main
from keras_vae.data import Vocabulary
from keras_vae.hub import contents
from keras_vae.integrity import ArtifactError
from keras_vae.runs import sequences
from keras_vae.runs.config import RunConfig
from keras_vae.runs.config_file import read_run
from keras_vae.runs.measurements import SCHEMA_VERSION
from keras_vae.runs.run import SCHEMA

ROOT = Path(__file__).resolve().parent.parent
# huggingface_hub 2.4 uploads large files by an argument that httpx2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning:httpx2")
EVALUATION = {
    "schema_version": SCHEMA_VERSION,
    "examples": "the first 7 of 9 test examples",
    "quantity": "log-probability",
    "data": "the binarised data",
    "elbo": {"mean": -10.0, "standard_error": 0.25, "examples": 7},
    "log_marginal": {
        "mean": -9.5,
        "standard_error": 0.125,
        "examples": 7,
        "method": "importance sampling, k = 100",
    },
    "distortion": {"mean": 8.0},
    "rate": {"mean": 2.0},
    "active_units": 2,
    "latent_size": 2,
    "bits_per_dim": 1.25,
    "baselines": {},
    "preparation_nats": 0.0,
    "share_at_atoms": 0.0,
}


@pytest.fixture
def server(tmp_path, monkeypatch):

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with serving() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        yield found


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return published(tmp_path_factory)


@pytest.fixture(scope="module")
def vae():
    """The model of the artifact."""
    keras.utils.set_random_seed(1)
    return tiny_vae("bernoulli", (4, 4, 1))


@pytest.fixture
def run(tmp_path, vae):
    folder = tmp_path / "run"
    folder.mkdir()
    config = RunConfig(data="/home/ada/secret/digits.csv", likelihood="bernoulli", latent=2)
    (folder / "config.toml").write_text(config.to_toml())
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    (folder / "report.html").write_text("pictures of the data")
    vae.save(folder / "model.keras")
    return folder


def metadata(card):
    return yaml.safe_load(card.decode().split("---\n")[1])


def test_a_run_comes_back_as_it_was_with_its_artifact(server, run, artifact, vae, tmp_path):
    said = []
    pushed = hub.push_to_hub(
        run, "ada/digits", artifact=artifact, license="apache-2.0", report=said.append
    )
    commit, files = server.head("ada/digits")
    assert pushed == hub.Pushed(
        "ada/digits", commit, f"{server.address}/ada/digits/commit/{commit}"
    )
    assert len(server.commits["ada/digits"]) == 2  # the creation, and all files at once
    assert "report.html" not in files
    assert b"secret" not in files["config.toml"]
    assert b"digits.csv" in files["config.toml"]

    about = metadata(files["README.md"])
    assert (about["library_name"], about["license"]) == ("keras", "apache-2.0")
    (result,) = about["model-index"][0]["results"]
    assert result["dataset"] == {"name": "digits", "type": "digits", "split": "test"}
    bounds = {metric["type"]: metric for metric in result["metrics"]}
    assert {name: found["value"] for name, found in bounds.items()} == {
        "elbo": -10.0,
        "log_marginal": -9.5,
    }
    args = bounds["log_marginal"]["args"]
    assert (args["standard_error"], args["num_examples"], args["num_samples"]) == (0.125, 7, 100)
    assert "nats" in bounds["elbo"]["name"]
    assert "| VAE, ELBO (lower bound) | -10.00 | 0.25 |" in files["README.md"].decode()

    loaded = keras_vae.from_hub("hf://ada/digits", report=said.append)
    np.testing.assert_array_equal(loaded.sample(5, seed=3), vae.sample(5, seed=3))
    assert f"at commit {commit}; revision={commit!r} pins it." in said[-1]
    assert not any("onnx" in request for request in server.requests if "resolve" in request)

    target = tmp_path / "pulled"
    assert hub.pull("ada/digits", target, commit, report=said.append) == commit
    assert keras_vae.integrity.check(target / "artifact" / "1").entries["name"] == "digits"
    expected = {"model.keras", "config.toml", "evaluation.json", "README.md", "artifact"}
    assert {path.name for path in target.iterdir()} == expected
    assert len(said) == 2  # nothing more to say of a pinned commit


def test_a_run_of_texts_keeps_its_vocabulary(server, run, tmp_path):
    assert {"config.toml", "history.csv", SCHEMA, sequences.VOCABULARY} <= set(contents.RUN)
    Vocabulary(["a", "b"]).save(run / "vocabulary.json")
    hub.push_to_hub(run, "ada/texts", report=lambda said: None)
    hub.pull("ada/texts", tmp_path / "pulled", report=lambda said: None)
    assert Vocabulary.load(tmp_path / "pulled" / "vocabulary.json").tokens[2:] == ("a", "b")


def test_commands_push_and_pull(server, run, tmp_path):
    words = ["push", str(run), "ada/digits", "--description", "For *trials*.", "--private"]
    pushed = CliRunner().invoke(main, words)
    assert pushed.exit_code == 0, pushed.output
    commit, files = server.head("ada/digits")
    assert f"revision='{commit}'" in pushed.output
    assert "For *trials*." in files["README.md"].decode()
    pulled = CliRunner().invoke(main, ["pull", "ada/digits", "--out", str(tmp_path / "new")])
    assert pulled.exit_code == 0, pulled.output
    assert read_run(tmp_path / "new").data == "digits.csv"
    for words, said in (
        (["push", str(tmp_path), "ada/digits"], "Expected the directory of a run"),
        (["pull", "digits", "--out", str(tmp_path / "x")], "Expected OWNER/NAME"),
        (["pull", "ada/digits", "--out", str(run)], "exists already"),
    ):
        refused = CliRunner().invoke(main, words)
        assert refused.exit_code == 1
        assert said in refused.output


def test_a_second_push_replaces_the_first_and_leaves_what_others_added(server, run, vae):
    hub.push_to_hub(run, "ada/digits", report=print)
    _, files = server.head("ada/digits")
    server.put("ada/digits", {**files, "notebook.ipynb": b"{}", "artifact/1/manifest.json": b"{}"})
    vae.save("hf://ada/digits")
    _, files = server.head("ada/digits")
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "metadata.json",
        "model.weights.h5",
        "notebook.ipynb",
    }
    about = metadata(files["README.md"])
    assert "model-index" not in about  # nothing was measured
    assert "Not measured." in files["README.md"].decode()
    said = []
    loaded = keras_vae.from_hub("ada/digits", report=said.append)
    np.testing.assert_array_equal(loaded.sample(2, seed=0), vae.sample(2, seed=0))
    assert said[0] == "Left out of ada/digits, as no part of a model: notebook.ipynb."


def test_a_push_that_fails_changes_nothing(server, run, artifact):
    hub.push_to_hub(run, "ada/digits")
    before = server.head("ada/digits")
    for status, said in ((412, "Push again"), (403, "hf auth login"), (500, "answered 500")):
        server.refuse = status
        with pytest.raises(hub.HubError, match=said):
            hub.push_to_hub(run, "ada/digits")
    assert server.head("ada/digits") == before
    with pytest.raises(hub.HubError, match="is not an artifact of this model"):
        hub.push_to_hub(tiny_vae("bernoulli", (4, 4, 1)), "ada/other", artifact=artifact)
    assert "ada/other" not in server.commits


def test_a_download_that_fails_leaves_nothing(server, run, tmp_path):
    hub.push_to_hub(run, "ada/digits")
    server.faults = {"model.weights.h5"}
    with pytest.raises(hub.HubError, match="answered 500 for ada/digits"):
        hub.pull("ada/digits", tmp_path / "new")
    with pytest.raises(hub.HubError, match="answered 500"):
        keras_vae.from_hub("ada/digits")
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".keras_vae-*"))
    server.faults = set()
    assert keras_vae.from_hub("ada/digits").latent_size == 2


def test_what_was_changed_on_the_way_is_refused(server, run, artifact, tmp_path):
    hub.push_to_hub(run, "ada/digits", artifact=artifact)
    _, files = server.head("ada/digits")
    name = "artifact/1/onnx/decode.onnx"
    server.put("ada/changed", {**files, name: files[name] + b"\n"})
    with pytest.raises(ArtifactError, match=r"decode\.onnx was changed after publishing"):
        hub.pull("ada/changed", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    hub.push_to_hub(tiny_vae("bernoulli", (4, 4, 1)), "ada/others")
    weights = server.head("ada/others")[1]["model.weights.h5"]
    server.put("ada/mixed", {**files, "model.weights.h5": weights})
    with pytest.raises(hub.HubError, match="weights of its model are not those that the manifest"):
        keras_vae.from_hub("ada/mixed")


def lambda_model():
    encoder = keras.Sequential([keras.layers.Lambda(lambda x: x), keras.layers.Dense(4)])
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6, network=keras.layers.Dense(4)),
        posterior=keras_vae.DiagonalNormal(2, network=encoder),
    )


@keras.saving.register_keras_serializable(package="stranger")
class Own(keras.layers.Dense):
    """A layer of a user."""


def own_model():
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6, network=Own(4)),
        posterior=keras_vae.DiagonalNormal(2, network=keras.layers.Dense(4)),
    )


def members(model, tmp_path):
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_code_of_a_stranger_is_refused_and_named(server, tmp_path, monkeypatch):
    plain = members(tiny_vae(), tmp_path)
    config = json.loads(plain["config.json"])
    monkeypatch.setattr(keras.saving, "load_model", None)  # refused before Keras sees it
    call = {"module": "keras.utils", "class_name": "function", "config": "get_file"}
    for name, files, said in (
        ("lambda", members(lambda_model(), tmp_path), "it holds a Lambda layer, whose Python code"),
        ("pickle", {"weights.pkl": b"\x80", "train.py": b"1/0"}, "no model that Keras saved"),
        (
            "call",
            {**plain, "config.json": json.dumps({**config, "x": call}).encode()},
            "'function'",
        ),
        ("cut", {**plain, "config.json": b"{"}, "config.json is damaged"),
        ("list", {**plain, "config.json": b"[]"}, "config.json is damaged: it states no class"),
        ("none", {"config.json": plain["config.json"]}, "lacks model.weights.h5"),
        ("weights", {**plain, "model.weights.h5": b"no HDF5"}, "model.weights.h5 is damaged"),
    ):
        server.put(f"mallory/{name}", files)
        with pytest.raises(hub.HubError, match=said):
            keras_vae.from_hub(f"mallory/{name}")
        with pytest.raises(hub.HubError, match=said):
            hub.pull(f"mallory/{name}", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_classes_of_ones_own_load_where_they_are_registered(server, monkeypatch):
    hub.push_to_hub(own_model(), "ada/own")
    assert type(keras_vae.from_hub("ada/own").likelihood.network).__name__ == "Own"
    monkeypatch.delitem(keras.saving.get_custom_objects(), "stranger>Own")
    with pytest.raises(hub.HubError, match="holds 'stranger>Own', which is neither of Keras nor"):
        keras_vae.from_hub("ada/own")


def test_weights_of_another_file_are_refused(tmp_path):
    import h5py

    files = members(tiny_vae(), tmp_path)
    path = tmp_path / "w.h5"
    path.write_bytes(files["model.weights.h5"])
    with h5py.File(path, "a") as weights:
        weights["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/x")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, content in {**files, "model.weights.h5": path.read_bytes()}.items():
            archive.writestr(name, content)
    with pytest.raises(hub.HubError, match="refers to another file in 'elsewhere'"):
        contents.refuse_code(tmp_path / "m.keras", "m")


def test_a_repository_that_is_not_there_is_said_in_one_line(server, run, monkeypatch):
    with pytest.raises(hub.HubError, match="ada/nothing is not on the hub"):
        keras_vae.from_hub("ada/nothing")
    hub.push_to_hub(run, "ada/digits")
    with pytest.raises(hub.HubError, match="ada/digits has no revision 'v9'"):
        keras_vae.from_hub("ada/digits", revision="v9")
    keras_vae.from_hub("ada/digits")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = []
    assert keras_vae.from_hub("ada/digits", report=said.append).latent_size == 2
    assert said[0] == "The hub cannot be reached; ada/digits comes from the cache."
    with pytest.raises(hub.HubError, match="cannot be reached for ada/other, and the cache"):
        keras_vae.from_hub("ada/other")


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setattr(keras_vae.extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "keras-vae\[hub\]"'):
        keras_vae.from_hub("ada/digits")


def test_the_page_runs_and_prints_what_it_says(server, capsys):
    names = {}
    page = (ROOT / "docs" / "hub.md").read_text()
    blocks = re.findall(
        r"^```python\n(.*?)^```\n(?:\nprints\n\n((?:    [^\n]*\n)+))?", page, re.M | re.S
    )
    assert len(blocks) == 2
    for code, said in blocks:
        capsys.readouterr()
        exec(compile(code, "docs/hub.md", "exec"), names)
        if said:
            assert capsys.readouterr().out.split() == said.split()
