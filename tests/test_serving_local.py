"""The local server: rules, batches, versions, its end, and what strangers send it."""

import asyncio
import contextlib
import json
import logging
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import grpc
import jsonschema
import numpy as np
import pytest
import structlog
from click.testing import CliRunner
from manifests import reseal, seal
from onnx import TensorProto, helper, numpy_helper

from serving.cli import main
from serving.errors import InputError, ServingError, UnavailableError
from serving.local import command
from serving.local.app import build
from serving.local.batching import Batcher
from serving.local.service import Service
from serving.local.settings import Settings
from serving.protocol import messages, rest
from serving.protocol import tensorflow_serving_pb2 as pb

WEIGHTS = np.array([[1.0, 2.0, -1.0], [0.5, -3.0, 4.0]], np.float32)
TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}


# Artifacts of three small graphs, whose answers are known and tell the version


def signatures(bias):
    """Inputs, outputs, nodes and constants of each signature."""
    seed = {"seed": ("int32", (2,))}
    cast = helper.make_node("Cast", ["seed"], ["seeds"], to=TensorProto.FLOAT)
    sums = helper.make_node("ReduceSum", ["seeds", "axis"], ["sum"], keepdims=0)
    axis = {"axis": np.array([1], np.int64)}
    return {
        "decode": (
            {"z": ("float32", (2,))},
            {"mean": ("float32", (3,)), "logits": ("float32", (3,))},
            [
                helper.make_node("Gemm", ["z", "W", "b"], ["mean"]),
                helper.make_node("Neg", ["mean"], ["logits"]),
            ],
            {"W": WEIGHTS, "b": np.full(3, bias, np.float32)},
        ),
        "sample": (
            seed,
            {"z": ("float32", (2,))},
            [helper.make_node("Cast", ["seed"], ["z"], to=TensorProto.FLOAT)],
            {},
        ),
        "score": (
            {"x": ("float32", (3,)), **seed},
            {"elbo": ("float32", ())},
            [
                cast,
                sums,
                helper.make_node("ReduceSum", ["x", "axis"], ["total"], keepdims=0),
                helper.make_node("Add", ["sum", "total"], ["elbo"]),
            ],
            axis,
        ),
    }


def publish(root, version=1, name="m", bias=None):
    """Publishes an artifact by one rename; its decode adds `bias`, by default the version."""
    directory = root / name / f".{version}"
    (directory / "onnx").mkdir(parents=True)
    table = {}
    for key, (inputs, outputs, nodes, constants) in signatures(bias or version).items():
        graph = helper.make_graph(
            nodes,
            key,
            [
                helper.make_tensor_value_info(k, TYPES[t], ["batch", *shape])
                for k, (t, shape) in inputs.items()
            ],
            [
                helper.make_tensor_value_info(k, TYPES[t], ["batch", *shape])
                for k, (t, shape) in outputs.items()
            ],
            [numpy_helper.from_array(value, k) for k, value in constants.items()],
        )
        opset = [helper.make_opsetid("", 18)]
        content = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
        file = f"onnx/{key}.onnx"
        (directory / file).write_bytes(content)
        table[key] = {
            "description": f"{key} <of> a test.",
            "inputs": {k: {"dtype": t, "shape": ["batch", *s]} for k, (t, s) in inputs.items()},
            "outputs": {k: {"dtype": t, "shape": ["batch", *s]} for k, (t, s) in outputs.items()},
            "onnx": file,
        }
    table["encode"] = {**table["decode"], "onnx": None}
    seal(directory, table, omitted={"encode": "it has Cholesky."})
    return directory.rename(root / name / str(version))


def mean(z, bias=1.0):
    return np.asarray(z, np.float32) @ WEIGHTS + np.float32(bias)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("artifacts")
    publish(root)
    return root


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    """Drops log lines, which the test runner would keep in memory for ten thousand requests."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


async def ask(app, method, path, body=b"", headers=(), receive=None):
    """Status and body of the answer to one request, in this process."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = []
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_all():
        if parts:
            return parts.pop()
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path.partition("?")[0]),
        "raw_path": path.encode(),
        "query_string": path.partition("?")[2].encode(),
        "root_path": "",
        "headers": list(headers),
        "client": ("test", 1),
        "server": ("test", 80),
    }
    await app(scope, receive or receive_all, send)
    answer = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], answer


def run(root, use, config=None, **limits):
    """Calls `use(service, ask)` with a server of the directory in this process."""

    async def main():
        service = Service(root, Settings(threads=1, poll=3600.0, **limits), config)
        async with service.running():
            app = build(service)
            return await use(service, lambda *words, **more: ask(app, *words, **more))

    return asyncio.run(main())


def once(root, *request, **more):
    """Status and JSON of one request."""

    async def use(service, ask):
        status, body = await ask(*request)
        return status, json.loads(body)

    return run(root, use, **more)


PREDICT = "/v1/models/m:predict"
ROWS = {"signature_name": "decode", "instances": [[0.0, 1.0], [2.0, 0.5]]}


# What is asked, and what is answered


def test_predict_in_rows_and_in_columns(root):
    z = ROWS["instances"]
    status, rows = once(root, "POST", PREDICT, ROWS)
    assert status == 200
    np.testing.assert_array_equal([row["mean"] for row in rows["predictions"]], mean(z))
    columns = {"inputs": {"z": z}}  # without a name it is decode
    for path in (PREDICT, "/v1/models/m/versions/1:predict"):
        status, answer = once(root, "POST", path, columns)
        assert status == 200
        np.testing.assert_array_equal(answer["outputs"]["mean"], mean(z))
        np.testing.assert_array_equal(answer["outputs"]["logits"], -mean(z))
    body = {"signature_name": "sample", "inputs": [[1, -(2**31)]]}
    status, answer = once(root, "POST", PREDICT, body)
    assert status == 200  # in the fewest digits that tell two float32 apart
    assert np.float32(answer["outputs"]).tolist() == [[1.0, -(2.0**31)]]
    body = {"signature_name": "score", "instances": [{"x": [1, 2, 3], "seed": [4, 5]}]}
    assert once(root, "POST", PREDICT, body) == (200, {"predictions": [15.0]})


def test_status_and_metadata(root):
    version = {"version": "1", "state": "AVAILABLE"}
    version["status"] = {"error_code": "OK", "error_message": ""}
    for path in ("/v1/models/m", "/v1/models/m/versions/1"):
        assert once(root, "GET", path) == (200, {"model_version_status": [version]})
    status, answer = once(root, "GET", "/v1/models/m/metadata")
    assert (status, answer["model_spec"]["version"]) == (200, "1")
    table = answer["metadata"]["signature_def"]["signature_def"]
    assert set(table) == {"serving_default", "decode", "encode", "sample", "score"}
    z = table["decode"]["inputs"]["z"]
    assert (z["dtype"], [dim["size"] for dim in z["tensor_shape"]["dim"]]) == (
        "DT_FLOAT",
        ["-1", "2"],
    )


def test_fixed_words_of_a_path_are_in_any_case(root):
    assert once(root, "GET", "/V1/Models/m/VERSIONS/1")[0] == 200
    assert once(root, "POST", "/v1/MODELS/m:predict", ROWS)[0] == 200
    assert once(root, "GET", "/v1/models/M")[0] == 404


def test_status_shows_all_versions_whatever_the_label(root):
    assert once(root, "GET", "/v1/models/m/labels/nope") == once(root, "GET", "/v1/models/m")


@pytest.mark.parametrize(
    ("host", "is_answered"),
    [
        ("127.0.0.1:8501", True),
        ("localhost", True),
        ("LOCALHOST.:80", True),
        ("[::1]:8501", True),
        ("192.0.2.7:8501", True),
        ("mine.example:8501", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:8501", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("mine.example.evil.example", False),
        ("127.0.0.1, evil.example", False),
        ("evil.example@127.0.0.1", False),
    ],
)
def test_only_names_of_this_machine_are_answered(root, host, is_answered):
    headers = [(b"host", host.encode())]

    async def use(service, ask):
        status, body = await ask("POST", PREDICT, ROWS, headers=headers)
        live, _ = await ask("GET", "/livez", headers=headers)
        return status, live, body

    status, live, body = run(root, use, hosts=("Mine.example",))
    assert status == live == (200 if is_answered else 400)
    assert is_answered or b"--allow-host" in body


def test_a_large_body_is_read_off_the_event_loop(root, monkeypatch):
    """A reader that blocks until another request was answered would otherwise block for ever."""
    answered, read = threading.Event(), rest.read_predict

    def slow(*arguments):
        assert answered.wait(30)
        return read(*arguments)

    monkeypatch.setattr(rest, "read_predict", slow)
    body = json.dumps(ROWS).encode() + b" " * 2**20

    async def use(service, ask):
        large = asyncio.create_task(ask("POST", PREDICT, body))
        await asyncio.sleep(0.05)
        assert (await ask("GET", "/livez"))[0] == 200
        answered.set()
        return (await large)[0]

    assert run(root, use) == 200


WRONG = [
    ("POST", "/v1/models/q:predict", ROWS, 404, "'q'"),
    ("POST", "/v1/models/m/versions/7:predict", ROWS, 404, "no version 7"),
    ("POST", f"/v1/models/m/versions/{10**18}:predict", ROWS, 404, "no version"),
    ("POST", f"/v1/models/m/versions/{'9' * 5000}:predict", ROWS, 400, "Malformed request"),
    ("POST", "/v1/models/m/versions/-1:predict", ROWS, 400, "Malformed request"),
    ("POST", "/v1/models/m/labels/stable:predict", ROWS, 400, "Unrecognized servable version"),
    ("GET", "/v1/models/q", b"", 404, "'q'"),
    ("GET", "/v1/models/m/versions/7", b"", 404, "version 7"),
    ("GET", "/v1/models/m/labels/x/metadata", b"", 400, "label"),
    ("GET", "/v1/models/m?x=1", b"", 400, "without a query"),
    ("POST", f"{PREDICT}?x=1", ROWS, 400, "without a query"),
    ("POST", "/v1/models/m:PREDICT", ROWS, 400, "Malformed request"),
    ("POST", PREDICT, json.dumps(ROWS).encode("utf-16"), 400, "not JSON"),
    ("POST", PREDICT, json.dumps(ROWS).encode("utf-8-sig"), 400, "not JSON"),
    ("GET", "/v1/models/q/metadata", b"", 404, "'q'"),
    ("GET", PREDICT, b"", 400, "Malformed request: GET"),
    ("POST", "/v1/models/m", ROWS, 400, "Malformed request: POST"),
    ("POST", "/v1/models/m:classify", ROWS, 400, "Malformed request"),
    ("GET", "/elsewhere", b"", 404, "/docs"),
    ("POST", PREDICT, {"signature_name": "q", "instances": [[0, 0]]}, 400, "no signature 'q'"),
    ("POST", PREDICT, {"signature_name": "encode", "instances": [[0, 0]]}, 400, "Cholesky"),
    ("POST", PREDICT, b"", 400, "not JSON"),
    ("POST", PREDICT, b"[" * 200_000, 400, "not JSON"),
    ("POST", PREDICT, b'{"instances": [[0, 1]', 400, "not JSON"),
    ("POST", PREDICT, {}, 400, "instances"),
    ("POST", PREDICT, {**ROWS, "inputs": [[0, 0]]}, 400, "both"),
    # Where TensorFlow Serving goes wrong without a word, or hangs:
    ("POST", PREDICT, {"inputs": {"z": [[0, 0]], "extra": [1]}}, 400, "extra"),
    ("POST", PREDICT, {"instances": []}, 400, "empty"),
    ("POST", PREDICT, b'{"instances": [[1e39, 0]]}', 400, "range of float32"),
    ("POST", PREDICT, b'{"instances": [[NaN, 0]]}', 400, "finite"),
    ("POST", PREDICT, {"signature_name": "sample", "inputs": [[2**31, 0]]}, 400, "integers"),
    ("POST", PREDICT, {"signature_name": "sample", "inputs": [[1.0, 0]]}, 400, "integers"),
    ("POST", PREDICT, {"instances": [[0, 0, 0]]}, 400, "[batch, 2]"),
    ("POST", PREDICT, {"instances": [[0, 0]] * 513}, 400, "at most 512"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), WRONG)
def test_wrong_request_is_refused_with_a_sentence(root, method, path, body, status, words):
    got, answer = once(root, method, path, body)
    assert got == status
    assert list(answer) == ["error"]
    assert words in answer["error"]
    assert len(answer["error"]) < 500


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fetc",
        "../../etc/passwd",
        "%2fetc%2fpasswd",
        "m/..",
        "m%00",
        "m%2f..%2fm",
        "~",
        "m\\..\\m",
        "%",
        "M",
        "m%3apredict",
        "\u212a",
        "m" * 3000,
    ],
)
def test_path_tricks_in_the_name_of_a_model(root, name):
    for method, path in (
        ("GET", f"/v1/models/{name}"),
        ("GET", f"/v1/models/{name}/metadata"),
        ("POST", f"/v1/models/{name}:predict"),
        ("POST", f"/v1/models/{name}/versions/1:predict"),
        ("POST", f"/v1/models/m/labels/{name}:predict"),
        ("GET", f"/v1/models/m/versions/{name}"),
    ):
        status, answer = once(root, method, path, ROWS)
        assert status in (400, 404)
        assert set(answer) == {"error"}


def test_health_and_metrics(root):
    async def use(service, ask):
        await ask("POST", PREDICT, ROWS)
        await ask("POST", "/v1/models/stranger:predict", ROWS)
        assert (await ask("GET", "/livez"))[0] == (await ask("GET", "/readyz"))[0] == 200
        service.is_closing = True
        assert (await ask("GET", "/readyz"))[0] == 503
        return (await ask("GET", "/metrics"))[1].decode()

    text = run(root, use)
    assert 'requests_total{model="m",status="200",transport="rest"} 1.0' in text
    assert 'requests_total{model="",status="404",transport="rest"} 1.0' in text
    assert 'batch_rows_sum{model="m",signature="decode",version="1"} 2.0' in text
    assert "stranger" not in text


def test_page_and_document_describe_requests_that_work(root):
    async def use(service, ask):
        document = json.loads((await ask("GET", "/openapi.json"))[1])
        page = (await ask("GET", "/docs"))[1].decode()
        operation = document["paths"][PREDICT]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        answers = operation["responses"]["200"]["content"]["application/json"]["schema"]
        for example in content["examples"].values():
            status, body = await ask("POST", PREDICT, example["value"])
            assert status == 200
            for schema, value in (content["schema"], example["value"]), (answers, json.loads(body)):
                jsonschema.validate(value, {**schema, "components": document["components"]})
        return len(content["examples"]), page

    examples, page = run(root, use)
    assert examples == 6
    assert "decode &lt;of&gt; a test." in page
    assert not re.search(r"(src|href)=.?(https?:)?//", page)  # nothing comes from elsewhere


# Batches


def test_concurrent_requests_are_batched_and_none_is_crossed(root):
    rng = np.random.default_rng(0)
    bodies = [rng.normal(size=(rows, 2)).astype(np.float32) for rows in rng.integers(1, 9, 200)]

    async def use(service, ask):
        answers = await asyncio.gather(
            *(ask("POST", PREDICT, {"inputs": z.tolist()}) for z in bodies)
        )
        return answers, (await ask("GET", "/metrics"))[1].decode()

    for delay in (0.0, 0.005):
        answers, metrics = run(root, use, batch_delay=delay, max_batch=64)
        for z, (status, body) in zip(bodies, answers, strict=True):
            assert status == 200
            # One row and many take other kernels, which may round the last bit otherwise.
            np.testing.assert_allclose(
                json.loads(body)["outputs"]["mean"], mean(z), rtol=1e-6, atol=1e-6
            )
        batches = float(re.search(r"batch_rows_count\S+ (\S+)", metrics)[1])
        assert sum(map(len, bodies)) / 64 <= batches <= 100


def batched(use, function, **limits):
    """Calls `use(batcher)` with a batcher of the function."""

    async def main():
        with ThreadPoolExecutor(2) as executor:
            return await use(Batcher(function, Settings(**limits), executor))

    return asyncio.run(main())


def rows(*values):
    return {"z": np.array(values, np.float32)}


def test_request_that_the_graph_refuses_does_not_spoil_its_neighbours():
    def function(inputs):
        if (inputs["z"] < 0).any():
            raise ServingError("negative")
        return {"y": inputs["z"] * 2}

    async def use(batcher):
        requests = [batcher(rows(value)) for value in (1.0, 2.0, -3.0, 4.0)]
        return await asyncio.gather(*requests, return_exceptions=True)

    answers = batched(use, function, batch_delay=0.01)
    assert isinstance(answers[2], ServingError)
    assert [float(answers[i]["y"][0]) for i in (0, 1, 3)] == [2.0, 4.0, 8.0]


def test_full_queue_is_refused_and_drains():
    gate = threading.Event()

    def function(inputs):
        assert gate.wait(60)
        return {"y": inputs["z"]}

    async def use(batcher):
        waiting = [asyncio.create_task(batcher(rows(i))) for i in range(1)]
        await asyncio.sleep(0.05)  # the first one runs
        waiting += [asyncio.create_task(batcher(rows(i))) for i in range(1, 5)]
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="4 rows already in the queue"):
            await batcher(rows(9.0))
        with pytest.raises(InputError, match="at most 3"):
            await batcher(rows(1, 2, 3, 4))
        waiting[2].cancel()  # its caller went away
        gate.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers.pop(2), asyncio.CancelledError)
        again = await batcher(rows(5.0))
        return [float(answer["y"][0]) for answer in [*answers, again]]

    assert batched(use, function, max_queue=4, max_batch=3) == [0, 1, 3, 4, 5]


def test_slow_answer_and_too_many_requests(root):
    gate = threading.Event()

    async def use(service, ask):
        batcher = service.repository.get("m").batchers["decode"]
        batcher._run = lambda inputs: gate.wait(60) and {}
        slow = asyncio.create_task(ask("POST", PREDICT, ROWS))
        await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        refused = await ask("POST", PREDICT, ROWS)
        late = await slow
        gate.set()
        return refused, late

    refused, late = run(root, use, max_requests=1, timeout=0.2)
    assert (refused[0], late[0]) == (503, 504)
    assert b"1 requests are running" in refused[1]
    assert b"--timeout" in late[1]


# Bodies


def test_body_over_the_limit_is_refused_before_it_is_read(root):
    read = 0

    async def endless():
        nonlocal read
        read += 1000
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    async def use(service, ask):
        length = [(b"content-length", b"5001")]
        declared = await ask("POST", PREDICT, headers=length, receive=endless)
        assert read == 0
        huge = [(b"content-length", b"9" * 5000)]
        assert (await ask("POST", PREDICT, headers=huge, receive=endless))[0] == 413
        streamed = await ask("POST", PREDICT, receive=endless)
        return declared, streamed

    for status, body in run(root, use, max_body=5000):
        assert (status, b"--max-body" in body) == (413, True)
    assert read == 6000


def test_body_that_does_not_come(root):
    async def never():
        await asyncio.Event().wait()

    async def use(service, ask):
        return await ask("POST", PREDICT, receive=never)

    status, body = run(root, use, timeout=0.05)
    assert (status, b"0 bytes" in body) == (408, True)


# Versions


async def answered(ask, path=PREDICT):
    """Returns the bias of the version that answers."""
    status, body = await ask("POST", path, {"instances": [[0, 0]]})
    assert status == 200, body
    return json.loads(body)["predictions"][0]["mean"][0]


async def states(ask):
    answer = json.loads((await ask("GET", "/v1/models/m"))[1])["model_version_status"]
    return {int(entry["version"]): entry["state"] for entry in answer}, answer


def test_new_versions_and_models_are_taken_up(tmp_path):
    publish(tmp_path)
    gate = threading.Event()

    async def use(service, ask):
        assert await answered(ask) == 1
        old = service.repository.get("m").batchers["decode"]
        before, old._run = old._run, lambda inputs: gate.wait(60) and before(inputs)
        in_hand = asyncio.create_task(answered(ask))
        await asyncio.sleep(0.02)
        publish(tmp_path, 2)
        publish(tmp_path, 5, name="other")
        await service.repository.refresh()
        assert await answered(ask) == 2
        assert (await states(ask))[0] == {2: "AVAILABLE"}
        gate.set()
        assert await in_hand == 1  # what was in hand is answered by the version it came to
        assert await answered(ask, "/v1/models/other/versions/5:predict") == 5
        shutil.rmtree(tmp_path / "m" / "2")
        shutil.rmtree(tmp_path / "other")
        await service.repository.refresh()
        assert await answered(ask) == 1
        assert (await ask("GET", "/v1/models/other"))[0] == 404

    run(tmp_path, use)


def other_file(path):
    file = path / "onnx" / "decode.onnx"
    file.write_bytes(file.read_bytes() + b" ")


def other_graph(path):
    """Replaces a graph by another signature's, with its sha256: wrong but not damaged."""
    shutil.copy(path / "onnx" / "sample.onnx", path / "onnx" / "decode.onnx")
    reseal(path)


def no_graph(path):
    (path / "onnx" / "score.onnx").write_bytes(b"no graph")
    reseal(path)


BROKEN = {
    "was changed": other_file,
    "manifest.json": lambda path: (path / "manifest.json").unlink(),
    "damaged": lambda path: (path / "manifest.json").write_text('{"signatures": [1]}'),
    "cannot be read": lambda path: (path / "onnx" / "score.onnx").unlink(),
    "has the inputs": other_graph,
    "cannot be loaded": no_graph,
}


@pytest.mark.parametrize("words", BROKEN)
def test_broken_version_leaves_the_old_one_in_service(tmp_path, words):
    publish(tmp_path)

    async def use(service, ask):
        BROKEN[words](publish(tmp_path, 2))
        for _ in range(2):
            await service.repository.refresh()
            assert await answered(ask) == 1
            found, entries = await states(ask)
            assert found == {1: "AVAILABLE", 2: "END"}
            assert words in entries[0]["status"]["error_message"]
            assert (await ask("POST", "/v1/models/m/versions/2:predict", ROWS))[0] == 404
        shutil.rmtree(tmp_path / "m" / "2")
        publish(tmp_path, 2)  # put right
        await service.repository.refresh()
        assert await answered(ask) == 2
        assert (await states(ask))[0] == {2: "AVAILABLE"}

    run(tmp_path, use)


def test_versions_and_labels_of_a_configuration(tmp_path):
    root = tmp_path / "artifacts"
    for version in (1, 2, 3):
        publish(root, version)
    config = tmp_path / "models.config"

    def write(stable, canary):
        config.write_text(
            'model_config_list { config { name: "m" base_path: "/models/m" '
            'model_platform: "tensorflow" model_version_policy { specific { versions: 1 versions: '
            f'3 }} }} version_labels {{ key: "stable" value: {stable} }} '
            f'version_labels {{ key: "canary" value: {canary} }} }} }}'
        )

    async def use(service, ask):
        stable, canary = (f"/v1/models/m/labels/{x}:predict" for x in ("stable", "canary"))
        assert (await states(ask))[0] == {3: "AVAILABLE", 1: "AVAILABLE"}
        assert [await answered(ask, path) for path in (stable, canary, PREDICT)] == [1, 3, 3]
        write(3, 2)  # 2 is not served, so its label is not either
        await service.repository.refresh()
        assert await answered(ask, stable) == 3
        assert (await ask("POST", canary, ROWS))[0] == 400
        config.write_text("half a conf")
        with pytest.raises(ServingError, match=r"not a models\.config"):
            await service.repository.refresh()
        assert await answered(ask, stable) == 3

    write(1, 3)
    run(root, use, config)


@pytest.mark.parametrize("path", ["/models/../m", "/models/q", "/models/..", ""])
def test_configuration_of_what_is_not_there(root, tmp_path, path):
    config = tmp_path / "models.config"
    config.write_text(f'model_config_list {{ config {{ name: "m" base_path: "{path}q" }} }}')
    with pytest.raises(ServingError, match="base path"):
        once(root, "GET", "/v1/models/m", config=config)


# Requests from strangers


def instance(schema, rng, schemas, wild, rows):
    """Makes a value of a schema of so many rows; with probability `wild`, something else."""
    if rng.random() < wild:
        return rng.choice(STRANGE)()
    if "$ref" in schema:
        return instance(schemas[schema["$ref"].rpartition("/")[2]], rng, schemas, wild, rows)
    if "anyOf" in schema:
        return instance(rng.choice(schema["anyOf"]), rng, schemas, wild, rows)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema["type"]
    if kind == "object":
        value = {
            key: instance(entry, rng, schemas, wild, rows)
            for key, entry in schema["properties"].items()
            if key in schema["required"] or rng.random() < 0.8
        }
        if value and rng.random() < wild:
            value.pop(rng.choice(list(value)))
        return value
    if kind == "array":
        size = schema.get("maxItems", rows)
        size += rng.random() < wild
        return [instance(schema["items"], rng, schemas, wild, rows) for _ in range(size)]
    if kind == "integer":
        return rng.randint(schema["minimum"], schema["maximum"])
    return rng.choice([0, 1, -1, rng.random(), rng.gauss(0, 1e6), 3.4e38, 1e-45])


def deep():
    value = []
    for _ in range(500):
        value = [value]
    return value


STRANGE = [
    lambda: None,
    lambda: True,
    lambda: "",
    lambda: "\x00\ud800\U0001f600",
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: 1e308,
    lambda: 2**31,
    lambda: -(2**63) - 1,
    lambda: 10**400,
    lambda: [],
    lambda: [[]],
    lambda: {},
    lambda: {"b64": "AAAA"},
    lambda: {"z": [[0, 0]], "__proto__": {}},
    lambda: [0.0] * 3000,
    deep,
]


def mutated(body, rng):
    """Bytes of a body with some taken away, doubled, changed or put in."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(4)
        if what == 0:
            del data[at : at + rng.randint(1, 20)]
        elif what == 1:
            data[at:at] = data[at : at + rng.randint(1, 200)] * rng.randint(1, 5)
        elif what == 2 and at < len(data):
            data[at] = rng.randrange(256)
        else:
            data[at:at] = rng.choice(
                [
                    b"[",
                    b"]",
                    b"{",
                    b'"',
                    b",",
                    b"-",
                    b"e999",
                    b"\xff\xfe",
                    b"\x00",
                    b"NaN",
                    b"9" * 99,
                ]
            )
    return bytes(data)


def resident():
    """Returns the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_ten_thousand_fuzzed_requests(root):
    rng = random.Random(0)
    seen = {}

    async def use(service, ask):
        document = json.loads((await ask("GET", "/openapi.json"))[1])
        schemas = document["components"]["schemas"]
        operation = document["paths"][PREDICT]["post"]
        request = operation["requestBody"]["content"]["application/json"]["schema"]
        paths = [PREDICT] * 8
        paths += ["/v1/models/m/versions/1:predict", "/v1/models/m/labels/a:predict"]
        before = 0.0
        for number in range(10_000):
            kind = ("valid", "wild", "mutated")[number % 3]
            value = instance(request, rng, schemas, 0.05 * (kind == "wild"), rng.randint(1, 5))
            body = json.dumps(value).encode()
            path = PREDICT
            if kind == "mutated":
                body = mutated(body, rng)
            if kind == "wild":
                path = rng.choice(paths)
            if number % 50 == 49:
                path = mutated(path.encode(), rng).decode("latin-1")
            async with asyncio.timeout(60):
                status, answer = await ask("POST", path, body)
            assert status in (200, 400, 404, 413), (path, body, answer)
            if kind == "valid" and path == PREDICT:
                assert status == 200, (body, answer)
            answer = json.loads(answer)
            assert status == 200 or list(answer) == ["error"]
            seen[kind, status] = seen.get((kind, status), 0) + 1
            if number == 1999:
                before = resident()
        return resident() - before

    growth = run(root, use, max_body=2**20)
    # A request that left 4 KiB behind would show as 31 MiB.
    assert growth < 16.0
    assert min(seen["valid", 200], seen["wild", 200], seen["wild", 400]) > 300
    assert seen["mutated", 400] > 1000


# The process


@contextlib.contextmanager
def process(root, *options):
    """Starts `python -m serving local` on free ports; yields its process and both ports."""
    command = [sys.executable, "-m", "serving", "local", str(root), "--port", "0"]
    command += ["--grpc-port", "0", "--threads", "1", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            said = b""
            while not (
                ports := re.search(rb"REST\s+http://[\d.]+:(\d+).*gRPC\s+\S+:(\d+)", said, re.S)
            ):
                line = server.stdout.readline()
                assert line, said
                said += line
            threading.Thread(target=server.stdout.read, daemon=True).start()
            yield server, int(ports[1]), int(ports[2])
        finally:
            server.kill()


def talk(port, data, finish=False):
    """Sends bytes and returns all that the server answers until it closes or 0.2 s pass."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
            if finish:
                connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                answer += part
    return answer


def http(body, path=PREDICT, *headers):
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def predict_bytes(**inputs):
    request = messages.predict_request(messages.model_spec("m"), inputs)
    return request.SerializeToString()


def test_strangers_on_the_sockets(root):
    rng = random.Random(1)
    body = json.dumps(ROWS).encode()
    good = http(body, PREDICT, "Connection: close")
    with process(root, "--max-body", "0.01", "--log-level", "warning") as (server, port, grpc_port):
        # Refused early: the answer comes although the body never does, and the connection ends.
        head = b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
        chunks = (b"3e8\r\n" + b" " * 1000 + b"\r\n") * 20
        for rest in (
            b"Content-Length: 99999999\r\n\r\n{",
            b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        ):
            answer = talk(port, head + rest)
            assert answer.startswith(b"HTTP/1.1 413"), answer
            assert b"--max-body" in answer
        for _ in range(400):
            answer = talk(port, mutated(good, rng), finish=True)
            statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
            assert all(status < b"500" for status in statuses), answer
        for trick in ("/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2f", "//v1/models/m", "*"):
            data = f"GET {trick} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            assert re.match(rb"HTTP/1\.1 40[04]", talk(port, data))
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            call = channel.unary_unary(messages.METHODS["Predict"].path)
            message = predict_bytes(z=np.zeros((2, 2), np.float32))
            codes = set()
            for _ in range(400):
                try:
                    call(mutated(message, rng), timeout=30)
                except grpc.RpcError as error:
                    codes.add(error.code())
            known = grpc.StatusCode
            assert codes <= {known.INVALID_ARGUMENT, known.NOT_FOUND}, codes
            answer = pb.PredictResponse.FromString(call(message, timeout=30))
            assert answer.model_spec.version.value == 1
        assert talk(port, good).startswith(b"HTTP/1.1 200")
        assert server.poll() is None


def test_end_answers_what_is_in_hand_and_refuses_what_is_new(root):
    """Requests wait 5 s for company; the signal comes meanwhile."""
    with process(root, "--batch-delay", "5000") as (server, port, grpc_port):
        body = json.dumps(ROWS).encode()
        with (
            ThreadPoolExecutor(20) as callers,
            grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
        ):
            call = channel.unary_unary(messages.METHODS["Predict"].path)
            message = predict_bytes(z=np.zeros((2, 2), np.float32))
            grpc.channel_ready_future(channel).result(60)
            by_rest = [callers.submit(talk, port, http(body)) for _ in range(10)]
            by_grpc = [callers.submit(call, message, timeout=60) for _ in range(10)]
            wait_until_in_hand(port, 20)
            server.send_signal(signal.SIGTERM)
            refused = wait_until_refused(port)
            for answer in by_rest:
                assert answer.result().startswith(b"HTTP/1.1 200"), answer.result()
            for answer in by_grpc:
                assert pb.PredictResponse.FromString(answer.result()).outputs
        assert refused
        assert server.wait(60) == 0


def wait_until_in_hand(port, count):
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for _ in range(2000):
        if f"requests_in_hand {count}.0".encode() in talk(port, request):
            return
        time.sleep(0.005)
    raise AssertionError


def wait_until_refused(port):
    for _ in range(2000):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.005)
    return False


def test_half_a_request_is_not_waited_for(root):
    with process(root, "--timeout", "1") as (_, port, _):
        whole = http(json.dumps(ROWS).encode())
        for sent in (b"", b"GET /livez HTTP/1.1\r\nHo"):
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(sent)
                time.sleep(0.5)
                connection.sendall(b"st:" if sent else b"")  # more of it wins no time
                assert connection.recv(1) == b""
            assert 0.9 < time.monotonic() - began < 20
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            for _ in range(2):  # a connection may rest longer between two requests
                connection.sendall(whole)
                answer = b""
                while not answer.endswith(b"}]}"):
                    answer += connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200")
                time.sleep(1.5)


def test_a_public_address_is_warned_of(capsys):
    for host, is_public in (("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)):
        service = types.SimpleNamespace(
            repository=types.SimpleNamespace(models=lambda: []), settings=Settings()
        )
        command._announce(service, host, 1, 2)
        assert ("neither password" in capsys.readouterr().out) is is_public


def test_what_keeps_the_server_from_starting_is_said_in_a_sentence(root, tmp_path):
    def said(*words):
        result = CliRunner().invoke(main, ["local", *map(str, words)])
        assert result.exit_code == 1
        assert "Traceback" not in result.output
        return " ".join(result.output.split())

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = ["--port", 0, "--grpc-port", 0]
        assert "--port" in said(root, "--port", port)
        assert "--grpc-port" in said(root, "--port", 0, "--grpc-port", port)
        assert "--host" in said(root, "--host", "192.0.2.1", *free)
        assert "no artifact" in said(tmp_path, *free)
        other_file(publish(tmp_path))
        assert "m/1" in said(tmp_path, *free)
        assert f"name the directory above it, {tmp_path}" in said(tmp_path / "m", *free)
        assert "was changed after publishing" in said(tmp_path, *free)
        (tmp_path / "m").rename(tmp_path / "my model")
        assert "'my model' cannot stand in a URL" in said(tmp_path, *free)
