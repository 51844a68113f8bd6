"""The client gives a right answer or a clear error, over both interfaces, blocking and awaited."""

import asyncio
import contextlib
import itertools
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import grpc
import numpy as np
import onnxruntime
import pytest
from artifacts import published
from stub_server import MODELS, PEM, answer, serve_grpc, serve_rest

from export import saved_model
from export.cases import Case, read_answers, write_cases
from export.runtimes import RUNTIMES
from serving import AsyncClient, Client
from serving.artifact import Artifact
from serving.errors import (
    DeadlineError,
    DtypeError,
    FailedError,
    InputError,
    RefusedError,
    ReplyError,
    ServingError,
    ShapeError,
    UnavailableError,
    UnknownModelError,
    UnknownSignatureError,
    ValueRangeError,
)

FOREVER = {"deadline": 900.0, "timeout": 600.0}  # a machine may stand still while it measures
KINDS = ("blocking", "awaited")


def ask(kind, url, method, *args, model="plain", options=None, **kwargs):
    """Calls one method of a client of either kind."""
    options = {**FOREVER, **(options or {})}
    if kind == "blocking":
        with Client(url, model, **options) as client:
            return getattr(client, method)(*args, **kwargs)

    async def main():
        async with AsyncClient(url, model, **options) as client:
            return await getattr(client, method)(*args, **kwargs)

    return asyncio.run(main())


@pytest.fixture(scope="module")
def rest_stub():
    with serve_rest() as stub:
        yield stub


@pytest.fixture(scope="module")
def grpc_stub():
    with serve_grpc() as stub:
        yield stub


@pytest.fixture(params=["rest", "grpc"])
def stub(request):
    stub, url = request.getfixturevalue(f"{request.param}_stub")
    stub.faults.clear()
    stub.rows.clear()
    return stub, url


@pytest.fixture(params=[serve_rest, serve_grpc])
def fresh_stub(request):
    """Starts a separate server, for tests that leave requests behind."""
    with request.param() as stub:
        yield stub


@pytest.fixture(scope="module")
def unasked_stub():
    with serve_rest() as stub:
        yield stub


X = np.arange(10, dtype=np.float32).reshape(5, 2)
PAIRS = np.stack([np.full(5, 7), np.arange(5)], axis=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "args", "inputs"),
    [
        ("encode", (X,), {"x": X}),
        ("decode", (X,), {"z": X}),
        ("reconstruct", (X.tolist(),), {"x": X}),
        ("sample", (7, 5), {"seed": PAIRS}),
        ("sample", (PAIRS,), {"seed": PAIRS}),
        ("sample", (np.int64(7),), {"seed": PAIRS[:1]}),
        ("score", (X, 7), {"x": X, "seed": PAIRS}),
        ("score", (X, PAIRS), {"x": X, "seed": PAIRS}),
        ("predict", ("decode", {"z": X}), {"z": X}),
    ],
)
def test_method_asks_for_its_signature(stub, kind, method, args, inputs):
    signature = MODELS["plain"]["decode" if method == "predict" else method]
    np.testing.assert_equal(ask(kind, stub[1], method, *args), answer(signature, inputs))


@pytest.mark.parametrize("condition", [X, X[1]], ids=["one each", "one for all"])
def test_condition_goes_with_every_row(stub, condition):
    for method, args, inputs in (
        ("encode", (X,), {"x": X}),
        ("decode", (X,), {"z": X}),
        ("sample", (7, 5), {"seed": PAIRS}),
        ("reconstruct", (X,), {"x": X}),
        ("score", (X, 7), {"x": X, "seed": PAIRS}),
    ):
        got = ask("blocking", stub[1], method, *args, model="conditional", condition=condition)
        inputs = {**inputs, "condition": np.broadcast_to(condition, X.shape)}
        np.testing.assert_equal(got, answer(MODELS["conditional"][method], inputs))


def test_rows_and_columns_give_the_same(rest_stub):
    for layout in ("rows", "columns"):
        got = ask("blocking", rest_stub[1], "score", X, 7, options={"layout": layout})
        expected = answer(MODELS["plain"]["score"], {"x": X, "seed": PAIRS})
        np.testing.assert_equal(got, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_large_input_is_sent_in_parts_and_joined_in_order(stub, kind):
    z = np.random.default_rng(0).standard_normal((103, 2)).astype(np.float32)
    got = ask(kind, stub[1], "decode", z, options={"max_rows": 10, "concurrency": 4})
    np.testing.assert_equal(got, answer(MODELS["plain"]["decode"], {"z": z}))
    assert sorted(stub[0].rows) == [3, *[10] * 10]


@pytest.mark.parametrize("kind", KINDS)
def test_grpc_is_recommended_once_for_many_numbers(stub, kind, caplog, monkeypatch):
    monkeypatch.setattr("serving.client.core._MANY_NUMBERS", 5)
    z = np.zeros((2, 2), np.float32)

    async def awaited():
        async with AsyncClient(stub[1], "plain", **FOREVER) as client:
            await client.decode(z)
            await client.decode(z)

    if kind == "awaited":
        asyncio.run(awaited())
    else:
        with Client(stub[1], "plain", **FOREVER) as client:
            client.decode(z)
            client.decode(z)
    said = [record for record in caplog.records if record.name == "serving.client"]
    assert len(said) == (1 if stub[1].startswith("http") else 0)
    assert all("gRPC (grpc://localhost:8500)" in record.getMessage() for record in said)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_answered_by_one_version(fresh_stub, kind):
    server, url = fresh_stub
    z = np.random.default_rng(1).standard_normal((50, 2)).astype(np.float32)
    server.faults.extend([None, "reload"])
    got = ask(kind, url, "decode", z, options={"max_rows": 10, "concurrency": 1})
    assert server.version == 4
    np.testing.assert_equal(got, answer(MODELS["plain"]["decode"], {"z": z}, version=4))
    assert server.rows == [10] * 7


@pytest.mark.parametrize("kind", KINDS)
def test_part_that_fails_fails_the_whole(fresh_stub, kind):
    server, url = fresh_stub
    server.faults.extend([None] * 3 + ["few"])
    with pytest.raises(ReplyError, match="should have 10 rows; it has 9"):
        ask(kind, url, "decode", np.zeros((100, 2)), options={"max_rows": 10})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "args", "error", "words"),
    [
        ("encode", (np.zeros((2, 3)),), ShapeError, r"\[batch, 2\]; got \[2, 3\]"),
        ("encode", (np.zeros(2),), ShapeError, "np.newaxis"),
        ("encode", (np.zeros((0, 2)),), InputError, "empty batch"),
        ("encode", ([],), InputError, "empty batch"),
        ("encode", ([[1.0, 2.0], [3.0]],), ShapeError, "different lengths"),
        ("encode", ([["a", "b"]],), DtypeError, "expected float32"),
        ("encode", ([[1.0, np.nan]],), ValueRangeError, r"got nan at \[0, 1\]"),
        ("encode", ([[1.0, 1e39]],), ValueRangeError, "range of float32"),
        ("decode", (None,), InputError, "lacks z"),
        ("predict", ("decode", {"x": X}), InputError, "lacks z and has the unknown x"),
        (
            "predict",
            ("generate", {"x": X}),
            UnknownSignatureError,
            "'generate'; this model",
        ),
        ("sample", (7, 0), ShapeError, "n of at least 1"),
        ("sample", (7, 2.0), ShapeError, "n of at least 1"),
        ("sample", (2**31,), ValueRangeError, "seed from"),
        ("sample", (7.0,), DtypeError, "expected int32; got float64"),
        ("sample", (True,), DtypeError, "expected int32; got bool"),
        ("sample", ([[7, 0]], 3), InputError, "Give n only with one integer"),
        ("sample", ([7, 0],), ShapeError, "np.newaxis"),
        ("sample", ([[1, 2**31]],), ValueRangeError, "got 2147483648"),
        ("score", (X, PAIRS[:2]), ShapeError, "seed has 2, x has 5"),
        ("score", (5.0, 7), ShapeError, r"got \[\]"),
    ],
)
def test_input_that_is_wrong_is_refused_before_it_is_sent(
    unasked_stub, kind, method, args, error, words
):
    stub, url = unasked_stub
    with pytest.raises(ServingError, match=words) as caught:
        ask(kind, url, method, *args)
    assert type(caught.value) is error
    assert not stub.rows


def test_condition_of_a_model_without_one_is_refused(rest_stub):
    with pytest.raises(InputError, match="has the unknown condition"):
        ask("blocking", rest_stub[1], "encode", X, condition=X)
    with pytest.raises(InputError, match="lacks condition"):
        ask("blocking", rest_stub[1], "encode", X, model="conditional")


CODES = grpc.StatusCode
TRANSIENT = {"rest": [503, 429, 502, 504, 408, "reset", "cut"], "grpc": [CODES.UNAVAILABLE]}
TRANSIENT["grpc"] += [CODES.DEADLINE_EXCEEDED, CODES.CANCELLED]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("interface", "fault"), [(key, fault) for key, faults in TRANSIENT.items() for fault in faults]
)
def test_request_without_an_answer_is_sent_again(request, kind, interface, fault):
    stub, url = request.getfixturevalue(f"{interface}_stub")
    stub.rows.clear()
    stub.faults.append(fault)
    got = ask(kind, url, "decode", X)
    np.testing.assert_equal(got, answer(MODELS["plain"]["decode"], {"z": X}))
    assert stub.rows == [5, 5]
    stub.faults.extend([fault, fault])
    with pytest.raises(UnavailableError, match=r"//localhost:\d+ "):
        ask(kind, url, "decode", X, options={"retries": 1})
    assert not stub.faults
    assert len(stub.rows) == 4


FINAL = [
    ("rest", 400, RefusedError, "refused the request .*what the server says"),
    ("rest", 413, RefusedError, "refused the request"),
    ("rest", 302, RefusedError, "refused the request"),
    ("rest", 404, UnknownModelError, "has no 'plain' at http"),
    ("rest", 500, FailedError, "failed on the request .*what the server says"),
    ("rest", "half", ReplyError, "cannot be read: the body is not JSON"),
    ("rest", "html", ReplyError, "cannot be read: the body is not JSON"),
    ("rest", "few", ReplyError, "5 rows; it has 4"),
    ("rest", "nan", ReplyError, "'mean' of the reply is not finite in row 4"),
    ("rest", "less", ReplyError, "cannot be read: expected values by name"),
    ("rest", "shape", ReplyError, "cannot be read|should be float32"),
    ("grpc", CODES.INVALID_ARGUMENT, RefusedError, "refused the request .*what the server says"),
    ("grpc", CODES.RESOURCE_EXHAUSTED, RefusedError, "refused the request"),
    ("grpc", CODES.NOT_FOUND, UnknownModelError, "has no 'plain' at grpc"),
    ("grpc", CODES.INTERNAL, FailedError, "failed on the request .*what the server says"),
    ("grpc", "html", ReplyError, "cannot be read"),
    ("grpc", "type", ReplyError, "cannot be read.*DT_STRING"),
    ("grpc", "few", ReplyError, "5 rows; it has 4"),
    ("grpc", "nan", ReplyError, "'mean' of the reply is not finite in row 4"),
    ("grpc", "less", ReplyError, "should hold logits, mean; it holds logits"),
    ("grpc", "shape", ReplyError, "should be float32"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("interface", "fault", "error", "words"), FINAL)
def test_answer_that_is_no_success_is_an_error_at_once(
    request, kind, interface, fault, error, words
):
    stub, url = request.getfixturevalue(f"{interface}_stub")
    stub.rows.clear()
    stub.faults.append(fault)
    with pytest.raises(ServingError, match=words) as caught:
        ask(kind, url, "decode", X)
    assert type(caught.value) is error
    assert stub.rows == [5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("interface", "fault"), [("rest", "late"), ("rest", "drip"), ("grpc", "late")]
)
def test_answer_that_is_late_is_asked_for_again_until_the_deadline(request, kind, interface, fault):
    stub, url = request.getfixturevalue(f"{interface}_stub")
    stub.faults.append(fault)
    got = ask(kind, url, "decode", X, options={"timeout": 0.2})
    np.testing.assert_equal(got, answer(MODELS["plain"]["decode"], {"z": X}))
    stub.faults.extend([fault] * 9)
    with pytest.raises(DeadlineError, match=r"in time|within|before the deadline"):
        ask(kind, url, "decode", X, options={"deadline": 0.4, "timeout": 0.2})
    stub.faults.clear()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_server_that_is_down_is_said_to_be_down(kind, scheme):
    url = f"{scheme}://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=url):
        ask(kind, url, "sample", 7, options={"retries": 1})
    with pytest.raises(
        DeadlineError, match=r"not ready within 0.2 s; last reply: .*(refused|failed)"
    ):
        ask(kind, url, "wait_ready", 0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_status_and_metadata(stub, kind):
    states = ask(kind, stub[1], "status")
    assert [(status.version, status.state) for status in states] == [(3, "AVAILABLE"), (2, "END")]
    for metadata in (ask(kind, stub[1], "metadata"), ask(kind, stub[1], "wait_ready", 60.0)):
        assert (metadata.name, metadata.version) == ("plain", 3)
        for name, signature in MODELS["plain"].items():
            read = metadata.signatures[name]
            assert (read.inputs, read.outputs) == (signature.inputs, signature.outputs)


@pytest.mark.parametrize("method", ["status", "metadata"])
def test_model_and_label_that_are_not_served_are_said_to_be_unknown(stub, method):
    with pytest.raises(UnknownModelError, match=r"no 'other' at .*no such model"):
        ask("blocking", stub[1], method, model="other")
    with pytest.raises(UnknownModelError, match="label"):
        ask("blocking", stub[1], method, options={"label": "gold"})


@pytest.mark.parametrize("serve", [serve_rest, serve_grpc])
@pytest.mark.parametrize("kind", KINDS)
def test_tls_with_an_authority_of_its_own(serve, kind):
    with serve(tls=True) as (_, url):
        got = ask(kind, url, "decode", X, options={"root_certificates": PEM})
        np.testing.assert_equal(got, answer(MODELS["plain"]["decode"], {"z": X}))
        with pytest.raises(UnavailableError):
            ask(kind, url, "decode", X, options={"retries": 0})


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("localhost:8501", {}, "Expected an address such as"),
        ("ftp://localhost", {}, "Expected an address such as"),
        ("http://", {}, "Expected an address such as"),
        ("http://localhost:99999", {}, "not the address of a server"),
        ("http://localhost?x=1", {}, "only scheme, host and port"),
        ("grpc://localhost/models", {}, "only scheme, host and port"),
        ("http://localhost", {"model": ""}, "name of a model"),
        ("http://localhost", {"version": 1, "label": "a"}, "not both"),
        ("http://localhost", {"version": 0}, "positive integer"),
        ("http://localhost", {"layout": "row"}, "rows or columns"),
        ("http://localhost", {"retries": -1}, "retries of at least 0"),
        ("http://localhost", {"deadline": 0}, "deadline of at least"),
        ("http://localhost", {"max_rows": 0}, "max_rows of at least 1"),
        ("http://localhost", {"concurrency": 0}, "concurrency of at least 1"),
        ("http://localhost", {"root_certificates": PEM}, "are for https"),
        ("https://localhost", {"root_certificates": "no.pem"}, "not a file"),
    ],
)
def test_client_that_cannot_be_is_refused(url, options, words):
    for cls in (Client, AsyncClient):
        with pytest.raises(ServingError, match=words):
            cls(url, **{"model": "digits", **options})


def test_address_has_default_ports_and_the_prefix_of_a_proxy():
    with Client("http://[::1]", "a/b", label="x y") as client:
        assert client._address.target == "[::1]:8501"
        assert client._address.path == "/v1/models/a%2Fb/labels/x%20y"
    with Client("https://models.example/tf/", "digits", version=3) as client:
        assert client._address.path == "/tf/v1/models/digits/versions/3"
        assert repr(client) == "<Client of 'digits' version 3 at https://models.example/tf/>"
    with Client("grpc://models.example", "digits") as client:
        assert client._address.target == "models.example:8500"


def test_importing_a_client_loads_no_tensorflow_and_no_connection():
    code = "import sys; from serving import Client; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert "serving" in loaded
    assert loaded.isdisjoint({"tensorflow", "keras", "export", "grpc", "httpx", "jsonschema"})


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class LocalServer:
    """`python -m serving local` on ports of its own, that can be killed and started again."""

    def __init__(self, root, log):
        self.root, self.log = root, log
        self.ports = free_port(), free_port()
        self.urls = {
            "rest": f"http://127.0.0.1:{self.ports[0]}",
            "grpc": f"grpc://127.0.0.1:{self.ports[1]}",
        }

    def start(self):
        command = [sys.executable, "-m", "serving", "local", self.root, "--threads", "1"]
        command += ["--port", str(self.ports[0]), "--grpc-port", str(self.ports[1])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--log-level", "warning"], stdout=log, stderr=log
            )

    def kill(self):
        self.process.kill()
        self.process.wait()

    def wait_ready(self):
        for url in self.urls.values():
            ask("blocking", url, "wait_ready", 600.0, model="digits")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return Artifact.read(published(tmp_path_factory))


@pytest.fixture(scope="module")
def server(artifact, tmp_path_factory):
    server = LocalServer(artifact.path.parents[1], tmp_path_factory.mktemp("log") / "log.txt")
    server.start()
    try:
        server.wait_ready()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def onnx(artifact):
    """Computes answers in ONNX Runtime alone, by signature and inputs."""
    sessions = {
        name: onnxruntime.InferenceSession(signature.onnx)
        for name, signature in artifact.signatures.items()
    }

    def run(name, inputs):
        outputs = list(artifact.signatures[name].outputs)
        return dict(zip(outputs, sessions[name].run(outputs, inputs), strict=True))

    return run


def some(artifact, name, rows):
    generator = np.random.default_rng(rows)
    draws = {
        "x": generator.integers(0, 2, (rows, 4, 4, 1)).astype(np.float32),
        "z": generator.standard_normal((rows, 2)).astype(np.float32),
        "seed": generator.integers(-(2**31), 2**31, (rows, 2)).astype(np.int32),
    }
    return {key: draws[key] for key in artifact.signatures[name].inputs}


WAYS = [("rest", "rows"), ("rest", "columns"), ("grpc", "columns")]
NAMES = ("decode", "encode", "sample", "reconstruct", "score")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("interface", "layout"), WAYS)
def test_local_server_answers_what_onnx_runtime_does(
    artifact, server, onnx, interface, layout, kind
):
    assert set(artifact.signatures) == set(NAMES)
    for name in NAMES:
        inputs = some(artifact, name, 70)
        options = {"layout": layout, "max_rows": 32}
        arguments = [inputs[key] for key in artifact.signatures[name].inputs]
        got = ask(kind, server.urls[interface], name, *arguments, model="digits", options=options)
        want = onnx(name, inputs)
        assert list(got) == list(want) or set(got) == set(want)
        for key, value in want.items():
            assert (got[key].dtype, got[key].shape) == (value.dtype, value.shape)
            # A product of matrices sums in another order where a batch has another size.
            np.testing.assert_allclose(got[key], value, rtol=1e-6, atol=1e-6)


def test_local_server_describes_the_artifact(artifact, server):
    for url in server.urls.values():
        metadata = ask("blocking", url, "metadata", model="digits", options={"version": 1})
        assert metadata.version == artifact.version
        for name, signature in artifact.signatures.items():
            read = metadata.signatures[name]
            inputs = {k: replace(one, allowed=None) for k, one in signature.inputs.items()}
            assert (read.inputs, read.outputs) == (inputs, signature.outputs)
        with pytest.raises(UnknownModelError, match="version 9"):
            ask("blocking", url, "metadata", model="digits", options={"version": 9})


def test_c_interface_of_tensorflow_answers_the_same(artifact, server, onnx, tmp_path):
    """The loader of TensorFlow Serving on the SavedModel, the local server and its client."""
    runtime = RUNTIMES["c"]
    assert runtime.missing() is None
    cases = [
        Case(name, some(artifact, name, 16), tuple(artifact.signatures[name].outputs))
        for name in NAMES
    ]
    write_cases(tmp_path / "cases", cases, saved_model.tensor_names(artifact.path))
    runtime.run(artifact.path, tmp_path / "cases", tmp_path / "answers", timeout=600.0)
    for case, want in zip(cases, read_answers(tmp_path / "answers"), strict=True):
        assert isinstance(want, dict), want
        for interface, layout in WAYS:
            got = ask(
                "blocking",
                server.urls[interface],
                "predict",
                case.signature,
                case.inputs,
                model="digits",
                options={"layout": layout},
            )
            for key, value in want.items():
                # float32 of two libraries, about 10 units in the last place of numbers near 1.
                np.testing.assert_allclose(got[key], value, rtol=1e-6, atol=1e-6, err_msg=key)


REQUESTS, CALLERS, KILLS = 10_000, 32, (2_500, 6_000)


class Tally:
    """Requests handed out one by one, answers checked as they come, the server killed between."""

    def __init__(self, expected, server):
        self.expected, self.server = expected, server
        self.numbers = iter(range(REQUESTS))
        self.lock = threading.Lock()
        self.answered = np.zeros(REQUESTS, int)
        self.count = self.unavailable = 0
        self.wrong = []
        self.kills = list(KILLS)

    def next(self):
        with self.lock:
            return next(self.numbers, None)

    def answer(self, number, outputs):
        right = all(
            (abs(outputs[key] - value[number]) <= 1e-6 * (1.0 + abs(value[number]))).all()
            for key, value in self.expected[number % 2].items()
        )
        with self.lock:
            self.answered[number] += 1
            self.count += 1
            if not right:
                self.wrong.append(number)
            due = bool(self.kills) and self.count >= self.kills[0]
            if due:
                del self.kills[0]
        if due:
            self.server.kill()
            self.server.start()

    def failed(self, number, error):
        with self.lock:
            self.unavailable += 1
            if not isinstance(error, UnavailableError):
                self.wrong.append((number, repr(error)))


def test_ten_thousand_requests_while_the_server_is_killed(server, onnx):
    """Request k has the seed pair [k, 1 - k], half of the requests also data; no two are alike."""
    k = np.arange(REQUESTS, dtype=np.int32)
    seed = np.stack([k, 1 - k], axis=1)
    x = ((k[:, np.newaxis] >> np.arange(16)) & 1).astype(np.float32).reshape(-1, 4, 4, 1)
    expected = [onnx("sample", {"seed": seed}), onnx("score", {"seed": seed, "x": x})]
    tally = Tally(expected, server)
    impatient = {**FOREVER, "retries": 0}  # half of the callers, so that errors are seen

    def call(client, number):
        if number % 2:
            return client.score(x[number : number + 1], seed[number : number + 1])
        return client.sample(seed[number : number + 1])

    def work(client):
        for number in iter(tally.next, None):
            while True:
                try:
                    tally.answer(number, call(client, number))
                    break
                except ServingError as error:
                    tally.failed(number, error)
                    time.sleep(0.05)

    async def work_async(client):
        for number in iter(tally.next, None):
            while True:
                try:
                    outputs = await call(client, number)
                    break
                except ServingError as error:
                    tally.failed(number, error)
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(tally.answer, number, outputs)

    def work_in_a_loop(urls):
        async def main():
            async with contextlib.AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(AsyncClient(url, "digits", **options))
                    for url, options in itertools.product(urls, (FOREVER, impatient))
                ]
                share = CALLERS // 2 // len(clients)
                await asyncio.gather(*(work_async(client) for client in clients * share))

        asyncio.run(main())

    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(url, "digits", **options))
            for url, options in itertools.product(server.urls.values(), (FOREVER, impatient))
        ]
        callers = [
            threading.Thread(target=work, args=(client,))
            for client in clients * (CALLERS // 2 // len(clients))
        ]
        callers.append(threading.Thread(target=work_in_a_loop, args=(server.urls.values(),)))
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not tally.wrong
    assert (tally.answered == 1).all()
    assert not tally.kills
    assert tally.unavailable > 0
