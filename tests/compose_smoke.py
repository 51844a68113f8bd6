"""TensorFlow Serving itself, from `docker compose up` to `down`, on what `config` writes.

    python tests/compose_smoke.py              train and export the quickstart, then serve it
    python tests/compose_smoke.py ARTIFACT     serve this one, such as artifacts/quickstart/1

Every signature is called over REST in both forms, gRPC, and gRPC under TLS, and compared with ONNX
Runtime; a version is rolled out and back; every metric that is drawn or alarming is asked for. Exit
status 0 if all is well, 1 if something is not, 77 if there is no Docker: nothing was then tried.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import yaml

from serving import Client
from serving.artifact import Artifact
from serving.errors import ServingError
from serving.rollout import comparison

NO_DOCKER = 77
REST, GRPC = "http://localhost:8501", "grpc://localhost:8500"
TOLERANCE = 1e-4  # float32 with its sums in another order, relative to the largest entry
FLIPPED = 1e-3  # share of draws on the other side of a threshold that lies within rounding


def main() -> int:
    missing = docker_is_missing()
    if missing:
        print(f"The smoke test did not run: {missing}", file=sys.stderr)
        return NO_DOCKER
    with tempfile.TemporaryDirectory(prefix="compose-smoke-") as directory:
        work = Path(directory)
        name = publish(work / "artifacts", *sys.argv[1:])
        target = work / "deployment"
        serving("config", work / "artifacts", "--out", target, "--label", f"{name}:stable=1")
        try:
            compose(target, "up", "--wait", "--wait-timeout", "300")
            everything(work, target, name)
        except BaseException:
            compose(target, "logs", "--no-color", "--tail", "100", check=False)
            raise
        finally:
            compose(target, "--profile", "monitoring", "down", "--volumes", "--timeout", "5")
    print("TensorFlow Serving answers as ONNX Runtime does.")
    return 0


def docker_is_missing() -> str:
    """Returns why Docker cannot be used here, or an empty string."""
    for command, why in (
        (["docker", "info"], "no Docker daemon answers `docker info`."),
        (["docker", "compose", "version"], "`docker compose` is not installed."),
    ):
        if shutil.which("docker") is None:
            return "there is no `docker` command."
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return why
    return ""


def publish(root: Path, artifact: str | None = None) -> str:
    """Puts an artifact below `root` as versions 1, 2 and 3; returns its name."""
    if artifact is None:
        words = ["quickstart", "--epochs", "2", "--out", str(root.parent / "run")]
        made = root.parent / "made" / "quickstart"
        execute(sys.executable, "-m", "keras_vae", *words, "--artifacts", made)
        artifact = str(made / "1")
    name = Path(artifact).resolve().parent.name
    for version in ("1", "2", "3"):
        shutil.copytree(artifact, root / name / version)
    return name


def everything(work: Path, target: Path, name: str) -> None:
    """Runs all checks in order; raises at the first failure."""
    artifact = Artifact.read(work / "artifacts" / name / "1")
    for layout in ("columns", "rows"):
        with Client(REST, name, label="stable", layout=layout) as client:
            call_all(f"REST in {layout}", client, artifact)
    with Client(GRPC, name, label="stable") as client:
        call_all("gRPC", client, artifact)
    check_metrics(target)
    roll_out(target, name)
    with_monitoring(target)
    with_tls(work, target, name, artifact)


def call_all(what: str, client: Client, artifact: Artifact) -> None:
    """Calls every signature at all warm-up sizes and a split one; compares with ONNX Runtime."""
    found = client.wait_ready(60)
    assert found.version == artifact.version, found
    assert found.signatures.keys() >= artifact.signatures.keys(), found
    requests = comparison.warm_up_requests(artifact)
    for name, signature in artifact.signatures.items():
        session = onnxruntime.InferenceSession(signature.onnx)
        cases = [request.inputs for request in requests if request.signature == name]
        most = max(cases, key=lambda inputs: len(next(iter(inputs.values()))))
        cases.append({key: np.concatenate([value] * 3)[:77] for key, value in most.items()})
        for inputs in cases:
            answer = client.predict(name, inputs)
            expected = session.run(list(signature.outputs), dict(inputs))
            for output, value in zip(signature.outputs, expected, strict=True):
                same(f"{what}, {name}, {output}", answer[output], value)
    print(f"{what}: {', '.join(artifact.signatures)} at {len(cases)} sizes")


def same(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Refuses answers that differ by more than rounding does."""
    assert found.shape == expected.shape, f"{what}: {found.shape} for {expected.shape}"
    scale = max(1.0, float(np.max(np.abs(expected))))
    wrong = np.abs(found - expected) > TOLERANCE * scale
    allowed = FLIPPED if what.endswith(", sample") else 0.0
    assert np.mean(wrong) <= allowed, f"{what}: {int(wrong.sum())} of {wrong.size} entries differ"


def check_metrics(target: Path) -> None:
    """Checks that the server has every metric that the dashboard and the alerts use."""
    text = (target / "grafana" / "dashboards" / "serving.json").read_text()
    text += (target / "prometheus" / "alerts.yml").read_text()
    scrape = yaml.safe_load((target / "prometheus" / "prometheus.yml").read_text())
    path = scrape["scrape_configs"][0]["metrics_path"]
    page = httpx.get(f"{REST}{path}").raise_for_status().text
    known = set(re.findall(r"^(:tensorflow:[a-z_:]+)\{", page, re.MULTILINE))
    asked = set(re.findall(r":tensorflow:[a-z_:]+", text))
    assert asked <= known, f"metrics that the server does not have: {asked - known}"
    print(f"metrics: {len(asked)} of {len(asked)}")


def roll_out(target: Path, name: str) -> None:
    """Labels move on the running server, there and back."""
    serving("label", target, name, "canary=2")
    on_version(name, "canary", 2)
    serving("compare", target, name, "--url", REST, "--latency", "100")
    serving("promote", target, name, "--url", REST)
    on_version(name, "stable", 2)
    serving("label", target, name, "canary=1")
    on_version(name, "canary", 1)
    serving("label", target, name, "canary=3", "--url", REST)
    on_version(name, "canary", 3)
    serving("rollback", target, name)
    on_version(name, "stable", 1)
    serving("label", target, name, "canary=")
    print("rollout: canary, compare, promote, rollback")


def on_version(name: str, label: str, version: int) -> None:
    """Waits until a label is on a version."""
    end, found = time.monotonic() + 60, None
    while time.monotonic() < end:
        try:
            with Client(REST, name, label=label) as client:
                found = client.metadata().version
        except ServingError:
            found = None
        if found == version:
            return
        time.sleep(1)
    raise AssertionError(f"{label} is on version {found} and not on {version} after a minute")


def with_monitoring(target: Path) -> None:
    """Prometheus scrapes the server, and Grafana has the dashboard."""
    compose(target, "--profile", "monitoring", "up", "--wait", "--wait-timeout", "300")
    for url, words in (
        ("http://localhost:9090/api/v1/query?query=up", '"1"'),
        ("http://localhost:9090/api/v1/rules", "ServingLoadFailed"),
        ("http://localhost:3000/api/dashboards/uid/tensorflow-serving", "Wait for a batch"),
        ("http://localhost:3000/api/datasources/proxy/uid/prometheus/api/v1/query?query=up", '"1"'),
    ):
        end, text = time.monotonic() + 120, ""
        while words not in text:
            assert time.monotonic() < end, f"{url} says {text!r} and not {words}"
            try:
                text = httpx.get(url).text
            except httpx.HTTPError as error:
                text = str(error)
            time.sleep(1)
    print("monitoring: Prometheus and Grafana")


def with_tls(work: Path, target: Path, name: str, artifact: Artifact) -> None:
    """The same over gRPC under TLS, with a certificate that is made for this run only."""
    key, certificate, file = work / "key.pem", work / "cert.pem", work / "ssl.config"
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    execute("openssl", "req", *words)
    serving("tls", "--key", key, "--cert", certificate, "--out", file)
    file.chmod(0o444)  # instead of the chown that only root may do
    serving("config", work / "artifacts", "--out", target, "--overwrite", "--tls", file)
    compose(target, "up", "--wait", "--wait-timeout", "300", "--force-recreate", "serving")
    url = GRPC.replace("grpc:", "grpcs:")
    with Client(url, name, label="stable", root_certificates=certificate) as client:
        call_all("gRPC under TLS", client, artifact)


def compose(target: Path, *words: str, check: bool = True) -> None:
    execute("docker", "compose", "--project-directory", target, *words, check=check)


def serving(*words: object) -> None:
    execute(sys.executable, "-m", "serving", *words)


def execute(*words: object, check: bool = True) -> None:
    command = [str(word) for word in words]
    print("+", *command, flush=True)
    subprocess.run(command, check=check)


if __name__ == "__main__":
    sys.exit(main())
