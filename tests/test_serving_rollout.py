"""Labels move as a server can follow them, and a worse version is told from a good one."""

import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from artifacts import published
from click.testing import CliRunner
from manifests import reseal

from serving import Client
from serving.artifact import Artifact
from serving.cli import main
from serving.deploy import directory as directories
from serving.errors import ServingError
from serving.rollout import comparison, labels

MODELS = "server/models.config"
NATS = 5.0  # that version 3 scores too low


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Versions 1 and 2, which are the same, 3, which is worse, and 4, which is damaged."""
    root = tmp_path_factory.mktemp("artifacts")
    for version in ("1", "2", "3", "4"):
        shutil.copytree(published(tmp_path_factory), root / "digits" / version)
    _make_worse(root / "digits" / "3")
    (root / "digits" / "4" / "parity.json").unlink()
    return root


def _make_worse(directory):
    """Publishes an artifact of a model whose ELBO is lower."""
    path = directory / "onnx" / "score.onnx"
    model = onnx.load(path)
    (node,) = (node for node in model.graph.node if "elbo" in node.output)
    node.output[list(node.output).index("elbo")] = "elbo_before"
    offset = onnx.numpy_helper.from_array(np.float32(NATS), "elbo_offset")
    model.graph.initializer.append(offset)
    model.graph.node.append(onnx.helper.make_node("Sub", ["elbo_before", offset.name], ["elbo"]))
    onnx.save(model, path)
    reseal(directory)


@pytest.fixture
def deployment(artifacts, tmp_path):
    """Writes a deployment with version 1 as stable."""
    target = tmp_path / "deployment"
    assert run("config", artifacts, "--out", target, "--label", "digits:stable=1").exit_code == 0
    return target


@pytest.fixture
def live(artifacts, deployment):
    """A server of the deployment: its REST and its gRPC address."""
    command = [sys.executable, "-m", "serving", "local", str(artifacts), "--port", "0"]
    command += ["--grpc-port", "0", "--poll", "0.1", "--config", str(deployment / MODELS)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    rest = grpc = None
    for line in process.stdout:
        if match := re.match(r"REST +(http://[^/]+)/", line):
            rest = match[1]
        if match := re.match(r"gRPC +(\S+)", line):
            grpc = f"grpc://{match[1]}"
            break
    assert rest is not None
    assert grpc is not None
    yield rest, grpc
    process.terminate()
    process.stdout.close()
    process.wait(60)


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def sentence(*words):
    """Returns the message that a command fails with."""
    result = run(*words)
    assert result.exit_code == 1, result.output
    (line,) = result.output.splitlines()
    return line


def eventually(condition):
    """Waits until the server has read its file."""
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def state(directory):
    found = labels.served(directory)["digits"]
    return found.labels, found.versions


# With a server


def test_a_version_goes_from_canary_to_stable_and_back(deployment, live, tmp_path):
    rest, grpc = live
    compare = ["compare", deployment, "digits", "--latency", "1000"]

    def version(**which):
        """Returns the version that answers under a label or a number, or None."""
        with Client(rest, "digits", **which) as client:
            try:
                return client.metadata().version
            except ServingError:
                return None

    assert run("label", deployment, "digits", "canary=3").exit_code == 0
    assert eventually(lambda: version(label="canary") == 3)
    result = run(*compare, "--url", rest)
    assert result.exit_code == 3, result.output
    assert "WORSE  ELBO" in result.output
    assert re.search(rf"-{NATS:.3f} \+- 0\.000", result.output), result.output
    assert "canary is worse than stable." in result.output
    assert run(*compare, "--url", rest, "--elbo", NATS + 0.1).exit_code == 0

    assert run("label", deployment, "digits", "canary=2", "--url", rest).exit_code == 0
    assert state(deployment) == ({"stable": 1, "canary": 2}, (1, 2))
    assert eventually(lambda: version(label="canary") == 2)
    with Client(rest, "digits", label="canary") as client:
        x = client.sample(seed=1, n=3)["sample"].tolist()
    recorded = tmp_path / "requests.jsonl"
    columns = {"signature_name": "score", "inputs": {"x": x, "seed": [[1, 2]] * 3}}
    rows = {"signature_name": "encode", "instances": [{"x": row} for row in x]}
    recorded.write_text(f"{json.dumps(columns)}\n\n{json.dumps(rows)}\n")
    for url in (rest, grpc):
        result = run(*compare, "--url", url, "--requests", recorded, "--outputs", "0")
        assert result.exit_code == 0, result.output
        assert "2 requests" in result.output
        assert "canary is as good as stable" in result.output

    assert run("promote", deployment, "digits", "--url", rest).exit_code == 0
    assert state(deployment) == ({"stable": 2, "previous": 1}, (1, 2))
    assert eventually(lambda: version(label="stable") == 2)
    assert "No version has the label 'canary'" in sentence(*compare, "--url", rest)
    assert run("rollback", deployment, "digits").exit_code == 0
    assert state(deployment) == ({"stable": 1}, (1,))
    assert eventually(lambda: version(version=2) is None)
    assert version(label="stable") == 1


def test_a_server_that_does_not_load_the_canary_keeps_it_from_being_stable(deployment):
    run("label", deployment, "digits", "canary=2")
    before = state(deployment)
    line = sentence("promote", deployment, "digits", "--url", "http://localhost:1", "--wait", "1")
    assert "was not ready" in line
    assert state(deployment) == before


# Without one


def loaded(*versions):
    """Makes the load function of a server with these versions, and the list of its requests."""
    asked = []

    def load(version):
        asked.append(version)
        if version not in versions:
            raise ServingError("not loaded")

    return load, asked


def test_a_label_moves_only_after_the_server_has_loaded_the_version(deployment):
    labels.label(deployment, "digits", "canary", 2, None)  # a new label: nothing to wait for
    assert "give --url" in sentence("label", deployment, "digits", "canary=3")
    assert state(deployment) == ({"stable": 1, "canary": 2}, (1, 2))
    load, asked = loaded()
    with pytest.raises(ServingError, match="not loaded"):
        labels.label(deployment, "digits", "canary", 3, load)
    # The version is loaded, and no label has moved; a second call goes on from there.
    assert state(deployment) == ({"stable": 1, "canary": 2}, (1, 2, 3))
    load, asked = loaded(3)
    labels.label(deployment, "digits", "canary", 3, load)
    assert asked == [3]
    assert state(deployment) == ({"stable": 1, "canary": 3}, (1, 3))


def test_promotion_waits_for_the_canary(deployment):
    labels.label(deployment, "digits", "canary", 2, None)
    load, asked = loaded(2)
    labels.promote(deployment, "digits", load)
    assert asked == [2]
    assert state(deployment) == ({"stable": 2, "previous": 1}, (1, 2))


def test_a_version_without_a_label_is_unloaded(deployment):
    run("label", deployment, "digits", "canary=2")
    result = run("label", deployment)
    assert "digits: canary=2, stable=1; loaded: 1, 2" in result.output
    assert "Callers that name neither version nor label get version 2" in result.output
    assert run("label", deployment, "digits", "canary=").exit_code == 0
    assert state(deployment) == ({"stable": 1}, (1,))
    assert "neither" not in run("label", deployment, "digits").output


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("label", "digits", "canary=9"), "has no version 9"),
        (("label", "digits", "canary=4"), "parity.json is missing"),
        (("label", "nobody", "canary=1"), "does not serve 'nobody'"),
        (("label", "digits", "canary=-1"), "Expected LABEL=VERSION"),
        (("label", "digits", "canary"), "Expected LABEL=VERSION"),
        (("label", "digits", "ca/nary=1"), "Expected a label"),
        (("label", "digits", "canary="), "No version has the label 'canary'"),
        (("label", "digits", "stable="), "nothing would be served"),
        (("promote", "digits", "--url", "http://localhost:1"), "No version has the label 'canary'"),
        (("rollback", "digits"), "No version has the label 'previous'"),
        (("compare", "digits"), "No version has the label 'canary'"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(deployment, words, why):
    before = (deployment / MODELS).read_bytes()
    assert why in sentence(words[0], deployment, *words[1:])
    assert (deployment / MODELS).read_bytes() == before


def test_a_canary_that_is_damaged_meanwhile_is_not_promoted(artifacts, tmp_path):
    copy, target = shutil.copytree(artifacts, tmp_path / "copy"), tmp_path / "d"
    given = [f"digits:{label}=1" for label in ("stable", "previous")] + ["digits:canary=2"]
    words = [word for label in given for word in ("--label", label)]
    assert run("config", copy, "--out", target, *words).exit_code == 0
    before = state(target)
    for version in ("1", "2"):
        (copy / "digits" / version / "variables" / "variables.index").unlink()
    load, asked = loaded(2)
    with pytest.raises(ServingError, match=r"variables\.index is missing"):
        labels.promote(target, "digits", load)
    with pytest.raises(ServingError, match=r"variables\.index is missing"):
        labels.rollback(target, "digits")
    assert (state(target), asked) == (before, [])


def test_a_directory_that_is_no_deployment_is_refused(deployment, tmp_path):
    assert "is not a deployment" in sentence("label", tmp_path, "digits", "canary=2")
    (deployment / MODELS).write_text("model_config_list { config {")
    assert "is not a ModelServerConfig" in sentence("rollback", deployment, "digits")
    (deployment / MODELS).unlink()
    assert "cannot be read" in sentence("rollback", deployment, "digits")
    (deployment / "deployment.json").write_text("{}")
    assert "is damaged" in sentence("label", deployment)


def test_a_writer_that_dies_leaves_the_file_whole(deployment, monkeypatch):
    before = {path.name for path in (deployment / "server").iterdir()}
    content = (deployment / MODELS).read_bytes()

    def fail(*paths):
        raise OSError(28, "No space left on device", str(paths[1]))

    monkeypatch.setattr(directories.os, "replace", fail)
    assert "No space left" in sentence("label", deployment, "digits", "canary=2")
    assert (deployment / MODELS).read_bytes() == content
    assert {path.name for path in (deployment / "server").iterdir()} == before


def test_two_that_edit_at_once_both_succeed(deployment):
    names = [f"label{number}" for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: labels.label(deployment, "digits", name, 2, None), names))
    assert state(deployment)[0] == {"stable": 1, **dict.fromkeys(names, 2)}


def test_what_else_is_in_the_file_is_kept(deployment):
    path = deployment / MODELS
    config = directories.server.parse_models(path.read_text())
    config.model_config_list.config[0].logging_config.sampling_config.sampling_rate = 0.5
    path.write_text(directories.server.render_models(config))
    run("label", deployment, "digits", "canary=2")
    (entry,) = directories.server.parse_models(path.read_text()).model_config_list.config
    assert entry.logging_config.sampling_config.sampling_rate == 0.5


# Verdicts


class Answers:
    """A client that answers each signature with a function of its inputs."""

    def __init__(self, **functions):
        self.functions = functions

    def predict(self, signature, inputs):
        if signature not in self.functions:
            raise ServingError(f"no {signature}")
        return self.functions[signature](inputs)


def scorer(offset):
    return lambda inputs: {"elbo": (inputs["x"].sum(axis=1) + offset).astype(np.float32)}


def recorded(rows):
    x = np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2)
    return [comparison.Recorded("score", {"x": x, "seed": np.zeros((rows, 2), np.int32)})]


def test_elbo_is_that_of_each_distinct_example():
    requests = [*recorded(2), *recorded(3)]  # the second holds the rows of the first
    found = comparison.compare(Answers(score=scorer(0.0)), Answers(score=scorer(-0.25)), requests)
    assert (found.requests, found.rows) == (2, 3)
    assert found.elbos == (5.0, 4.75)
    assert found.elbo_error == 0.0
    assert found.differences == {("score", "elbo"): 0.25}
    checks = {check.what: check.passed for check in found.checks(comparison.Tolerance(0.25, 1e9))}
    assert all(checks.values())
    checks = found.checks(comparison.Tolerance(0.2, 1e9, outputs=0.2))
    assert [check.passed for check in checks] == [True, False, True, False]


def test_what_only_the_second_fails_at_is_counted():
    found = comparison.compare(Answers(score=scorer(0.0)), Answers(), recorded(1))
    assert len(found.failures) == 2  # the request, and the score
    assert found.elbos == (1.0, -np.inf)
    checks = found.checks(comparison.Tolerance())
    assert [check.passed for check in checks] == [False, False, False, True]
    with pytest.raises(ServingError, match="no score"):
        comparison.compare(Answers(), Answers(score=scorer(0.0)), recorded(1))


def test_an_output_of_another_shape_is_a_difference():
    first = Answers(score=scorer(0.0), encode=lambda inputs: {"loc": np.zeros((1, 2))})
    second = Answers(score=scorer(0.0), encode=lambda inputs: {"loc": np.zeros((1, 3))})
    requests = [*recorded(1), comparison.Recorded("encode", {"x": recorded(1)[0].inputs["x"]})]
    found = comparison.compare(first, second, requests)
    assert found.differences == {("score", "elbo"): 0.0, ("encode", "loc"): np.inf}


def test_requests_without_data_compare_no_elbo():
    decode = [comparison.Recorded("decode", {"z": np.zeros((1, 2), np.float32)})]
    with pytest.raises(ServingError, match="None of the recorded requests holds x"):
        comparison.compare(Answers(), Answers(), decode)


@pytest.mark.parametrize("values", [{"elbo": -1.0}, {"latency": float("nan")}, {"outputs": -0.1}])
def test_a_tolerance_that_compares_to_nothing_is_refused(values):
    with pytest.raises(ServingError, match="Expected a tolerance"):
        comparison.Tolerance(**values)


def test_recorded_requests_are_checked_line_by_line(artifacts, tmp_path):
    signatures = Artifact.read(artifacts / "digits" / "1").signatures
    path = tmp_path / "requests.jsonl"
    path.write_text('{"signature_name": "decode", "inputs": [[0, 1]]}\n{"signature_name": "no"}\n')
    with pytest.raises(ServingError, match="line 2"):
        comparison.read_recorded(path, signatures)
    path.write_text("\n\n")
    with pytest.raises(ServingError, match="holds no requests"):
        comparison.read_recorded(path, signatures)


def test_warm_up_requests_are_those_of_every_signature(artifacts):
    artifact = Artifact.read(artifacts / "digits" / "1")
    found = comparison.warm_up_requests(artifact)
    assert {request.signature for request in found} == set(artifact.signatures)
    for request in found:
        assert set(request.inputs) == set(artifact.signatures[request.signature].inputs)
