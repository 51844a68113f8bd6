"""Everything that TensorFlow Serving is run with: written from artifacts, read by its schemas."""

import dataclasses
import http.server
import json
import os
import re
import shutil
import socketserver
import stat
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import kubernetes_validate
import numpy as np
import promql_parser
import pytest
import tensorflow as tf
import yaml
from artifacts import published
from check_jsonschema.builtin_schemas import get_builtin_schema
from click.testing import CliRunner
from google.protobuf import text_format
from manifests import reseal
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from export import warmup as written
from serving.artifact import Artifact
from serving.cli import main
from serving.deploy import configuration_pb2 as messages
from serving.deploy import deployment as deployments
from serving.deploy import directory as directories
from serving.deploy import server, warmup
from serving.errors import ServingError

KUBERNETES = "1.37.0"
IMAGES = re.compile(r"[a-z0-9./-]+:v?[0-9]+\.[0-9]+\.[0-9]+")

# Metrics of TensorFlow Serving and of TensorFlow's loader with their labels, from their sources.
METRICS = {
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency_bucket": {"model_name", "API", "entrypoint", "le"},
    ":tensorflow:serving:runtime_latency_bucket": {"model_name", "API", "runtime", "le"},
    ":tensorflow:serving:batching_session:queuing_latency_bucket": {"thread_pool_name", "le"},
    ":tensorflow:serving:model_warmup_latency_count": {"model_path", "status"},
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
    "up": {"job"},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Publishes two equal models, one of them in two versions."""
    root = tmp_path_factory.mktemp("artifacts")
    for version in ("digits/1", "digits/2", "Other_model.v2/7"):
        shutil.copytree(published(tmp_path_factory), root / version)
    return root


@pytest.fixture
def artifacts(exported, tmp_path):
    """Copies the artifacts, so that a test may damage them."""
    return shutil.copytree(exported, tmp_path / "artifacts")


def run(*words):
    """Runs the command line in this process."""
    return CliRunner().invoke(main, [str(word) for word in words])


def config(artifacts, target, *words):
    result = run("config", artifacts, "--out", target, *words)
    assert result.exit_code == 0, result.output
    return target


def sentence(*words):
    """Returns the message that a command fails with."""
    result = run(*words)
    assert result.exit_code == 1, result.output
    (line,) = result.output.splitlines()
    return line


@pytest.fixture(scope="module")
def written_directory(exported, tmp_path_factory):
    """Writes a deployment with all options."""
    target = tmp_path_factory.mktemp("deployments") / "here"
    labels = ["--label", "digits:stable=1", "--label", "digits:canary=2"]
    return config(exported, target, *labels, "--tls", "/etc/serving/ssl.config")


def load(path):
    return yaml.safe_load(path.read_text())


def tree(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


# Artifact


def test_signatures_survive_what_server_side_batching_does(exported):
    """Callers' rows are joined, padded with the first row, and cut apart by axis 0."""
    artifact = Artifact.read(exported / "digits" / "1")
    loaded = tf.saved_model.load(str(artifact.path)).signatures
    assert set(loaded) == {*artifact.signatures, "serving_default"}
    for case in written.read(artifact.path):
        if len(next(iter(case.inputs.values()))) != 4:
            continue
        function = loaded[case.signature]
        alone = [
            function(**{name: tf.constant(value[rows]) for name, value in case.inputs.items()})
            for rows in (slice(0, 2), slice(2, 3))
        ]
        padded = {name: tf.constant(value[[0, 1, 2, 0]]) for name, value in case.inputs.items()}
        for name, value in function(**padded).items():
            assert value.dtype.name == artifact.signatures[case.signature].outputs[name].dtype
            # Sums in a product of matrices are taken in another order for other sizes.
            np.testing.assert_allclose(value[:2], alone[0][name], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(value[2:3], alone[1][name], rtol=1e-5, atol=1e-5)


# Server


def test_models_config_is_a_message_of_the_server(written_directory):
    text = (written_directory / "server" / "models.config").read_text()
    found = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    assert [entry.name for entry in found] == ["Other_model.v2", "digits"]
    other, digits = found
    assert digits.base_path == "/models/digits"
    assert digits.model_platform == "tensorflow"
    assert list(digits.model_version_policy.specific.versions) == [1, 2]
    assert dict(digits.version_labels) == {"stable": 1, "canary": 2}
    assert list(other.model_version_policy.specific.versions) == [7]
    assert dict(other.version_labels) == {"stable": 7}


def test_following_the_newest_version_has_no_labels(exported, tmp_path):
    target = config(exported, tmp_path / "d", "--follow-latest", "--model", "digits")
    (entry,) = server.parse_models(
        (target / "server" / "models.config").read_text()
    ).model_config_list.config
    assert entry.model_version_policy.latest.num_versions == 1
    assert not entry.version_labels


def test_batch_sizes_are_those_of_the_warm_up_and_end_in_the_largest(written_directory):
    text = (written_directory / "server" / "batching.config").read_text()
    batching = text_format.Parse(text, messages.BatchingParameters())
    assert tuple(batching.allowed_batch_sizes) == written.SIZES
    assert batching.max_batch_size.value == written.SIZES[-1]
    assert batching.batch_timeout_micros.value > 0
    assert batching.num_batch_threads.value == 2


def test_monitoring_config_is_on_where_prometheus_looks(written_directory):
    text = (written_directory / "server" / "monitoring.config").read_text()
    prometheus = text_format.Parse(text, messages.MonitoringConfig()).prometheus_config
    assert prometheus.enable
    (job,) = load(written_directory / "prometheus" / "prometheus.yml")["scrape_configs"]
    assert prometheus.path == job["metrics_path"]


def test_declared_messages_are_those_of_the_server():
    """Numbers and types from the .proto files; of the log, from the package that has it."""
    declared = {
        "BatchingParameters": {
            "max_batch_size": (1, "google.protobuf.Int64Value"),
            "batch_timeout_micros": (2, "google.protobuf.Int64Value"),
            "max_enqueued_batches": (3, "google.protobuf.Int64Value"),
            "num_batch_threads": (4, "google.protobuf.Int64Value"),
            "thread_pool_name": (5, "google.protobuf.StringValue"),
            "allowed_batch_sizes": (6, 3),
        },
        "PrometheusConfig": {"enable": (1, 8), "path": (2, 9)},
        "MonitoringConfig": {"prometheus_config": (1, "keras_vae.serving.PrometheusConfig")},
        "SSLConfig": {
            "server_key": (1, 9),
            "server_cert": (2, 9),
            "custom_ca": (3, 9),
            "client_verify": (4, 8),
        },
    }
    for name, fields in declared.items():
        descriptor = messages.DESCRIPTOR.message_types_by_name[name]
        assert fields == {
            field.name: (
                field.number,
                field.message_type.full_name if field.message_type else field.type,
            )
            for field in descriptor.fields
        }


def test_warm_up_is_read_as_tensorflow_wrote_it(exported):
    artifact = Artifact.read(exported / "digits" / "1")
    requests = [
        prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        for record in warmup.records(artifact)
    ]
    cases = list(written.read(artifact.path))
    assert [entry.model_spec.signature_name for entry in requests] == [
        case.signature for case in cases
    ]
    assert warmup.batch_sizes(artifact) == list(written.SIZES)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-9], "ends within a request"),
        (lambda content: content[:5], "ends within a request"),
        (lambda content: b"", "has no batch size"),
        (lambda content: content.replace(b"encode", b"uncode"), "does not fit this artifact"),
        (None, "cannot be read"),
    ],
)
def test_damaged_warm_up_is_refused(artifacts, damage, words):
    path = artifacts / "digits" / "1" / warmup.FILE
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ServingError, match=words):
        warmup.batch_sizes(Artifact.read(artifacts / "digits" / "1"))


def test_a_version_that_is_not_as_it_was_published_is_not_served(artifacts, tmp_path):
    path = artifacts / "digits" / "2" / "saved_model.pb"
    path.write_bytes(path.read_bytes() + b"\0")
    line = sentence("config", artifacts, "--out", tmp_path / "d")
    assert "saved_model.pb was changed after publishing" in line
    assert not (tmp_path / "d").exists()
    path.unlink()
    assert "is missing" in sentence("config", artifacts, "--out", tmp_path / "d")
    config(artifacts, tmp_path / "d", "--label", "digits:stable=1")


# Readiness


class _Status(http.server.BaseHTTPRequestHandler):
    states = None

    def do_GET(self):
        state = self.states.get(self.path)
        body = {"error": "no such model"} if state is None else {"model_version_status": []}
        if state is not None:
            body["model_version_status"] = [{"version": "1", "state": state}]
        self.send_response(200 if state else 404)
        self.end_headers()
        self.wfile.write(json.dumps(body, indent=1).encode())

    def log_message(self, *words):
        """Says nothing."""


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ({"a": "AVAILABLE", "b": "AVAILABLE"}, 0),
        ({"a": "AVAILABLE", "b": "LOADING"}, 1),
        ({"a": "END", "b": "AVAILABLE"}, 1),
        ({"a": "AVAILABLE"}, 1),
        (None, 1),
    ],
)
def test_ready_means_that_every_model_has_a_version_that_answers(
    written_directory, states, code, monkeypatch
):
    with socketserver.TCPServer(("127.0.0.1", 0), _Status) as listener:
        port = listener.server_address[1]
        if states is None:
            listener.server_close()
        else:
            found = {f"/v1/models/{name}": state for name, state in states.items()}
            monkeypatch.setattr(_Status, "states", found)
            threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        command = ["bash", str(written_directory / "server" / "ready.sh"), str(port), "a", "b"]
        result = subprocess.run(command, capture_output=True, check=False, timeout=30)
        if states is not None:
            listener.shutdown()
    assert result.returncode == code, result


# Compose


def test_compose_file_obeys_the_specification(written_directory, exported, tmp_path):
    schema = get_builtin_schema("vendor.compose-spec")
    plain = config(exported, tmp_path / "plain")
    for directory in (written_directory, plain):
        jsonschema.validate(load(directory / "compose.yaml"), schema)


def test_containers_are_locked_down_and_pinned(written_directory):
    services = load(written_directory / "compose.yaml")["services"]
    assert set(services) == {"serving", "prometheus", "grafana"}
    for service in services.values():
        assert IMAGES.fullmatch(service["image"])
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
        for mount in service["volumes"]:
            assert mount["type"] == "volume" or mount["read_only"] is True
    assert services["serving"]["user"] == "10001:10001"
    assert services["prometheus"]["profiles"] == services["grafana"]["profiles"] == ["monitoring"]


def test_mounts_lead_to_what_is_there(written_directory, exported):
    for service in load(written_directory / "compose.yaml")["services"].values():
        for mount in service["volumes"]:
            if mount["type"] == "bind":
                source = (written_directory / mount["source"]).resolve()
                assert source.is_dir()
                assert source == exported or source.is_relative_to(written_directory)


def test_flags_name_files_that_are_mounted(written_directory):
    serving = load(written_directory / "compose.yaml")["services"]["serving"]
    flags = dict(word[2:].split("=", 1) for word in serving["entrypoint"][1:])
    named = {key: value for key, value in flags.items() if key.endswith("_file")}
    assert named.pop("ssl_config_file") == serving["secrets"][0]["target"]
    assert len(named) == 3
    for path in named.values():
        assert (written_directory / "server" / path.removeprefix("/config/")).is_file()
    assert flags["allow_version_labels_for_unavailable_models"] == "true"


def test_only_grpc_under_tls_is_open_to_others(written_directory, exported, tmp_path):
    plain = config(exported, tmp_path / "plain")
    for directory, addresses in (
        (written_directory, {8500: "0.0.0.0", 8501: "127.0.0.1"}),
        (plain, {8500: "127.0.0.1", 8501: "127.0.0.1"}),
    ):
        ports = load(directory / "compose.yaml")["services"]["serving"]["ports"]
        assert {port["target"]: port["host_ip"] for port in ports} == addresses


def test_paths_are_never_taken_for_variables(exported, tmp_path):
    odd = tmp_path / 'a ${HOME} "b": c'
    odd.mkdir()
    os.symlink(exported, odd / "artifacts")
    target = config(exported, odd / "d", "--tls", odd / "ssl.config")
    document = load(target / "compose.yaml")
    path = document["secrets"]["ssl_config"]["file"]
    assert path.replace("$$", "$") == str(odd / "ssl.config")
    assert "$$" in path


# Kubernetes


def test_manifests_obey_the_schemas_of_kubernetes(written_directory):
    files = sorted((written_directory / "kubernetes").iterdir())
    kinds = set()
    for file in files:
        document = load(file)
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        kinds.add(document["kind"])
    assert kinds == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "PersistentVolumeClaim",
    }


def test_manifests_fit_together(written_directory):
    found = {
        document["kind"]: document
        for document in map(load, (written_directory / "kubernetes").iterdir())
    }
    deployment, service = found["Deployment"], found["Service"]
    template = deployment["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert "replicas" not in deployment["spec"]  # the autoscaler's, which every apply would undo
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    (container,) = template["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
    assert claim == found["PersistentVolumeClaim"]["metadata"]["name"]


def test_pods_run_without_rights(written_directory):
    spec = load(written_directory / "kubernetes" / "deployment.yaml")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["readinessProbe"]["exec"]["command"][-2:] == ["Other_model.v2", "digits"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "2048Mi"}
    for mount in container["volumeMounts"]:
        assert mount["name"] == "tmp" or mount["readOnly"] is True


def test_kustomization_names_every_file_that_is_mounted(written_directory):
    document = load(written_directory / "kustomization.yaml")
    for path in document["resources"]:
        assert (written_directory / path).is_file()
    generated = {entry["name"]: entry for entry in document["configMapGenerator"]}
    files = {path for entry in generated.values() for path in entry["files"]}
    assert files == {f"server/{path.name}" for path in (written_directory / "server").iterdir()}
    # The one that is edited keeps its name, so that no server is replaced for a label.
    assert generated["serving-models"]["options"] == {"disableNameSuffixHash": True}
    spec = load(written_directory / "kubernetes" / "deployment.yaml")["spec"]["template"]["spec"]
    sources = next(v for v in spec["volumes"] if v["name"] == "config")["projected"]["sources"]
    assert {source["configMap"]["name"] for source in sources} == set(generated)


def test_inference_services_embed_a_pod_that_kubernetes_knows(written_directory):
    """KServe's own schema is in no package that installs beside TensorFlow Serving's."""
    files = sorted((written_directory / "kserve").iterdir())
    assert [file.stem for file in files] == ["digits", "other-model-v2"]
    for file, model in zip(files, ("digits", "Other_model.v2"), strict=True):
        document = load(file)
        assert document["apiVersion"] == "serving.kserve.io/v1beta1"
        assert document["kind"] == "InferenceService"
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])
        assert set(document["spec"]) == {"predictor"}
        predictor = document["spec"]["predictor"]
        assert predictor.pop("minReplicas") <= predictor.pop("maxReplicas")
        container = predictor.pop("model")
        assert container.pop("modelFormat") == {"name": "tensorflow"}
        assert container.pop("storageUri") == f"pvc://serving-models/{model}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": document["metadata"],
            "spec": {**predictor, "containers": [{"name": "kserve-container", **container}]},
        }
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


# Monitoring


def queries(directory):
    dashboard = json.loads((directory / "grafana" / "dashboards" / "serving.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$model", "digits")
    for group in load(directory / "prometheus" / "alerts.yml")["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def selectors(node, grouped=frozenset()):
    """Metrics in a parsed query, with the labels that it compares and groups them by."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, grouped | {matcher.name for matcher in node.matchers.matchers}
    if isinstance(node, promql_parser.AggregateExpr):
        grouped = grouped | set(node.modifier.labels)
    children = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
    for child in [*children, *getattr(node, "args", [])]:
        if child is not None:
            yield from selectors(child, grouped)


def test_queries_are_promql_on_metrics_that_the_server_has(written_directory):
    seen = set()
    for expression in queries(written_directory):
        found = list(selectors(promql_parser.parse(expression)))
        assert found, expression
        for metric, labels in found:
            assert labels <= METRICS[metric], expression
            seen.add(metric)
    assert seen == set(METRICS)


def test_dashboard_reads_from_the_source_that_is_provisioned(written_directory):
    grafana = written_directory / "grafana"
    dashboard = json.loads((grafana / "dashboards" / "serving.json").read_text())
    (source,) = load(grafana / "provisioning" / "datasources" / "prometheus.yaml")["datasources"]
    panels = dashboard["panels"]
    used = [target["datasource"] for panel in panels for target in panel["targets"]]
    used += [entry["datasource"] for entry in dashboard["templating"]["list"]]
    assert all(entry == {"type": "prometheus", "uid": source["uid"]} for entry in used)
    assert source["url"] == "http://prometheus:9090"
    cells = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(cells) == len({panel["id"] for panel in panels}) == len(panels)
    (provider,) = load(grafana / "provisioning" / "dashboards" / "serving.yaml")["providers"]
    mounts = load(written_directory / "compose.yaml")["services"]["grafana"]["volumes"]
    assert provider["options"]["path"] in {mount["target"] for mount in mounts}


def test_prometheus_scrapes_the_server_and_loads_the_alerts(written_directory):
    document = load(written_directory / "prometheus" / "prometheus.yml")
    assert set(document) == {"global", "rule_files", "scrape_configs"}
    for name in document["rule_files"]:
        assert (written_directory / "prometheus" / name).is_file()
    (job,) = document["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["serving:8501"]}]
    (group,) = load(written_directory / "prometheus" / "alerts.yml")["groups"]
    for rule in group["rules"]:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"[0-9]+m", rule["for"])


# TLS


PEM = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n"


@pytest.fixture
def pair(tmp_path):
    (tmp_path / "key.pem").write_text(PEM.format("PRIVATE KEY"))
    (tmp_path / "cert.pem").write_text(PEM.format("CERTIFICATE") * 2)
    return ["--key", tmp_path / "key.pem", "--cert", tmp_path / "cert.pem"]


def test_tls_file_holds_the_pair_and_is_for_its_owner(pair, tmp_path):
    target = tmp_path / "ssl.config"
    assert run("tls", *pair, "--out", target).exit_code == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o400
    found = text_format.Parse(target.read_text(), messages.SSLConfig())
    assert found.server_key == PEM.format("PRIVATE KEY")
    assert found.server_cert == PEM.format("CERTIFICATE") * 2
    assert not found.client_verify
    assert "never overwritten" in sentence("tls", *pair, "--out", target)


def test_tls_can_ask_callers_for_a_certificate(pair, tmp_path):
    target, authority = tmp_path / "ssl.config", tmp_path / "cert.pem"
    assert run("tls", *pair, "--client-ca", authority, "--out", target).exit_code == 0
    found = text_format.Parse(target.read_text(), messages.SSLConfig())
    assert found.client_verify
    assert found.custom_ca == authority.read_text()


def test_what_is_no_key_is_refused(pair, tmp_path):
    pair[1], pair[3] = pair[3], pair[1]
    assert "Expected a PEM file with a PRIVATE KEY" in sentence(
        "tls", *pair, "--out", tmp_path / "s"
    )
    assert not (tmp_path / "s").exists()


# Directory


def test_every_file_can_be_read_by_the_user_of_the_container(written_directory):
    for path in [written_directory, *written_directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


def test_same_artifacts_give_the_same_files(exported, written_directory, tmp_path):
    again = config(exported, written_directory.parent / "again", "--label", "digits:stable=1")
    other = config(exported, written_directory.parent / "other", "--label", "digits:stable=1")
    assert tree(again) == tree(other)


def test_nothing_else_is_ever_replaced(exported, tmp_path):
    target = tmp_path / "d"
    target.mkdir()
    config(exported, target)  # an empty directory is a place like any other
    assert "--overwrite" in sentence("config", exported, "--out", target)
    (target / "notes.txt").write_text("mine")
    before = tree(target)
    line = sentence("config", exported, "--out", target, "--overwrite")
    assert "notes.txt was added by hand" in line
    (target / "notes.txt").unlink()
    (target / "compose.yaml").write_text("services: {}")
    line = sentence("config", exported, "--out", target, "--overwrite")
    assert "compose.yaml was edited by hand" in line
    before = before | {"compose.yaml": b"services: {}"}
    del before["notes.txt"]
    assert tree(target) == before
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "file").touch()
    line = sentence("config", exported, "--out", stranger, "--overwrite")
    assert "is not a deployment" in line
    assert [entry.name for entry in stranger.iterdir()] == ["file"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d", "stranger"]


def test_replacing_keeps_labels(exported, tmp_path):
    target = config(exported, tmp_path / "d", "--label", "digits:stable=1")
    config(exported, target, "--overwrite", "--cpus", "4", "--label", "digits:canary=2")
    assert directories.labels_in(target)["digits"] == {"stable": 1, "canary": 2}
    assert (
        load(target / "compose.yaml")["services"]["serving"]["deploy"]["resources"]["limits"][
            "cpus"
        ]
        == "4"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def test_a_writer_that_fails_leaves_what_was_there(exported, tmp_path, monkeypatch):
    target = config(exported, tmp_path / "d")
    before = tree(target)
    rename = Path.rename

    def fail(self, other):
        if self.name == "new":
            raise OSError(28, "No space left on device", str(other))
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", fail)
    assert "No space left" in sentence("config", exported, "--out", target, "--overwrite")
    assert tree(target) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--model", "nobody"], "holds no model 'nobody'"),
        (["--label", "nobody:stable=1"], "holds no model 'nobody'"),
        (["--label", "digits:stable=9"], "has no version 9"),
        (["--image", "tensorflow/serving"], "Expected an image with a version"),
        (["--image", "tensorflow/serving:latest"], "Expected an image with a version"),
        (["--image", "tensorflow/serving@sha256:12"], "Expected an image with a version"),
        (["--replicas", "3..2"], "Expected replicas"),
        (["--label", "digits:2nd=1"], "Expected a label"),
    ],
)
def test_what_could_not_run_is_refused(exported, tmp_path, words, why):
    assert why in sentence("config", exported, "--out", tmp_path / "d", *words)
    assert not any(tmp_path.iterdir())


def test_image_may_be_a_digest(exported, tmp_path):
    image = "registry.example/tensorflow/serving@sha256:" + 64 * "0"
    target = config(exported, tmp_path / "d", "--image", image)
    assert load(target / "compose.yaml")["services"]["serving"]["image"] == image


def test_artifact_of_a_newer_tensorflow_needs_a_named_image(artifacts, tmp_path):
    def change(entries):
        entries["versions"]["tensorflow"] = "2.22.0"

    reseal(artifacts / "digits" / "2", change)
    assert "newer than" in sentence("config", artifacts, "--out", tmp_path / "d")
    config(artifacts, tmp_path / "d", "--image", "tensorflow/serving:2.22.0")


def test_models_that_kserve_cannot_tell_apart_are_refused(artifacts, tmp_path):
    (artifacts / "Digits").mkdir()
    shutil.copytree(artifacts / "digits" / "1", artifacts / "Digits" / "1")
    assert "rename one" in sentence("config", artifacts, "--out", tmp_path / "d")
    (artifacts / "Digits").rename(artifacts / "a:b")
    assert "Rename its directory" in sentence("config", artifacts, "--out", tmp_path / "d")


def test_models_with_no_batch_size_in_common_are_refused():
    models = (
        deployments.Model("a", (1,), {}, (1, 2)),
        deployments.Model("b", (1,), {}, (2, 4)),
    )
    deployment = deployments.Deployment(Path("."), models, deployments.Settings())
    assert deployment.batch_sizes == (2,)
    assert dataclasses.replace(deployment, models=models[:1]).batch_sizes == (1, 2)


def test_commands_do_not_load_tensorflow(exported, tmp_path):
    program = (
        "import sys; from serving.cli import main; "
        f"main(['config', {str(exported)!r}, '--out', {str(tmp_path / 'd')!r}], "
        "standalone_mode=False); "
        "assert not {'tensorflow', 'keras', 'onnxruntime'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "d").is_dir()


# The real thing


def test_smoke_test_says_in_one_sentence_that_there_is_no_docker(tmp_path):
    script = Path(__file__).with_name("compose_smoke.py")
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(script.parents[1])}
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 77
    assert result.stdout == ""
    assert result.stderr == "The smoke test did not run: there is no `docker` command.\n"


def test_workflow_runs_the_smoke_test():
    workflow = load(Path(__file__).parents[1] / ".github" / "workflows" / "test.yml")
    workflow["on"] = workflow.pop(True)  # YAML 1.1 takes the word for a truth value
    jsonschema.validate(workflow, get_builtin_schema("vendor.github-workflows"))
    commands = [step.get("run") for step in workflow["jobs"]["compose"]["steps"]]
    assert commands[-1] == ".venv/bin/python tests/compose_smoke.py"
