"""A server that answers like TensorFlow Serving, or fails in the way that a test asks for."""

import collections
import contextlib
import http.server
import re
import ssl
import threading
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np

from serving.artifact import Signature, Tensor
from serving.protocol import messages, rest
from serving.protocol import tensorflow_serving_pb2 as pb

PEM = Path(__file__).parent / "localhost.pem"  # a key that protects nothing, and its certificate
PAIR, NUMBER = Tensor("float32", (2,)), Tensor("float32", ())
SEED = {"seed": Tensor("int32", (2,))}


def signatures(**condition):
    x, z = {"x": PAIR, **condition}, {"z": PAIR, **condition}
    table = {
        "decode": (z, {"mean": PAIR, "logits": PAIR}),
        "encode": (x, {"loc": PAIR, "scale": PAIR}),
        "sample": ({**SEED, **condition}, {"sample": PAIR, "mean": PAIR, "z": PAIR}),
        "reconstruct": (x, {"mean": PAIR}),
        "score": ({"x": PAIR, **SEED, **condition}, {"elbo": NUMBER, "rate": NUMBER}),
    }
    return {name: Signature(name, "", *tensors, None) for name, tensors in table.items()}


MODELS = {"plain": signatures(), "conditional": signatures(condition=PAIR)}


def answer(signature, inputs, version=3):
    """Computes output j of a row: (j + 1) times the sum of its inputs and of version - 3."""
    total = sum(np.float32(array) for array in inputs.values()) + np.float32(version - 3)
    return {
        name: (number + 1) * (total if tensor.shape else total.sum(axis=1))
        for number, (name, tensor) in enumerate(signature.outputs.items())
    }


class Stub:
    """The server, with the faults of the next requests for a prediction, in order.

    Attributes:
        faults: what to do instead of a right answer: a status, a code, or a word.
        rows: number of rows of each prediction asked for so far.
        version: of its models; 3 at first, and another after the fault "reload".
        released: set at the end, for answers that wait.
    """

    def __init__(self):
        self.faults = collections.deque()
        self.rows = []
        self.version = 3
        self.released = threading.Event()

    def outputs(self, signature, inputs, fault):
        self.rows.append(len(next(iter(inputs.values()))))
        outputs = answer(signature, inputs, self.version)
        if fault == "reload":
            self.version += 1
        name = next(iter(outputs))
        if fault == "few":
            return {key: value[1:] for key, value in outputs.items()}
        if fault == "nan":
            outputs[name][-1] = np.nan
        if fault == "less":
            del outputs[name]
        if fault == "shape":
            outputs[name] = np.stack([outputs[name]] * 2, axis=1)
        return outputs


@contextlib.contextmanager
def serve_rest(*, tls=False):
    """Serves a `Stub` over HTTP and yields it with its address."""
    stub = Stub()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("H", (_Handler,), {"stub": stub})
    )
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(PEM)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub, f"{'https' if tls else 'http'}://localhost:{server.server_port}"
    finally:
        stub.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


_PREDICT = r"/v1/models/(\w+)(?:/versions/(\d+))?:predict"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stub: Stub

    def log_message(self, *words):
        pass

    def do_GET(self):
        name, verb = re.fullmatch(r"/v1/models/(\w+)(?:/\w+/\w+)?(/metadata)?", self.path).groups()
        if name not in MODELS:
            self.reply(404, rest.write_error("no such model"))
        elif "/labels/" in self.path:
            self.reply(400, rest.write_error("Unrecognized servable version label"))
        elif verb:
            self.reply(200, rest.write_metadata(self.spec(name), MODELS[name]))
        else:
            self.reply(200, rest.write_status(_status()))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name, version = re.fullmatch(_PREDICT, self.path).groups()
        if version and int(version) != self.stub.version:
            return self.reply(404, rest.write_error("no such version"))
        signature, layout, inputs = rest.read_predict(body, MODELS[name])
        fault = self.stub.faults.popleft() if self.stub.faults else None
        outputs = self.stub.outputs(signature, inputs, fault)
        if fault == "less":
            signature = Signature(name, "", {}, {key: PAIR for key in outputs}, None)
        good = rest.write_outputs(signature, outputs, layout)
        match fault:
            case int():
                self.reply(fault, rest.write_error("what the server says"))
            case "reset":
                self.close_connection = True
            case "cut":
                self.reply(200, good[: len(good) // 2], length=len(good))
                self.close_connection = True
            case "half":
                self.reply(200, good[: len(good) // 2])
            case "html":
                self.reply(200, b"<html>It works!</html>")
            case "late":
                self.stub.released.wait(60.0)
                self.close_connection = True
            case "drip":
                self.reply(200, b"", length=10_000)
                while not self.stub.released.wait(0.01):
                    with contextlib.suppress(OSError):
                        self.wfile.write(b" ")
                self.close_connection = True
            case _:
                self.reply(200, good)

    def spec(self, name):
        return messages.model_spec(name, self.stub.version)

    def reply(self, status, body, length=None):
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)


@contextlib.contextmanager
def serve_grpc(*, tls=False):
    """Serves a `Stub` over gRPC and yields it with its address."""
    stub = Stub()
    server = grpc.server(futures.ThreadPoolExecutor(8))

    def predict(request, context):
        name = _known(request, context)
        if request.model_spec.version.value not in (0, stub.version):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        signature, inputs = messages.read_predict(request, MODELS[name])
        fault = stub.faults.popleft() if stub.faults else None
        outputs = stub.outputs(signature, inputs, fault)
        if isinstance(fault, grpc.StatusCode):
            context.abort(fault, "what the server says")
        if fault == "late":
            stub.released.wait(60.0)
        response = messages.write_outputs(request.model_spec, outputs)
        if fault == "type":
            next(iter(response.outputs.values())).dtype = pb.DT_STRING
        return b"\xff\xff" if fault == "html" else response.SerializeToString()

    def metadata(request, context):
        name = _known(request, context)
        return messages.metadata(
            messages.model_spec(name, stub.version), MODELS[name]
        ).SerializeToString()

    def status(request, context):
        _known(request, context)
        return _status().SerializeToString()

    for name, function in (
        ("Predict", predict),
        ("GetModelMetadata", metadata),
        ("GetModelStatus", status),
    ):
        method = messages.METHODS[name]
        _, service, verb = method.path.split("/")
        handler = grpc.unary_unary_rpc_method_handler(function, method.request.FromString)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {verb: handler})]
        )
    if tls:
        credentials = grpc.ssl_server_credentials([(PEM.read_bytes(), PEM.read_bytes())])
        port = server.add_secure_port("localhost:0", credentials)
    else:
        port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield stub, f"{'grpcs' if tls else 'grpc'}://localhost:{port}"
    finally:
        stub.released.set()
        server.stop(0).wait()


def _known(request, context):
    name = request.model_spec.name
    if name not in MODELS:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
    if request.model_spec.version_label:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label")
    return name


def _status():
    return pb.GetModelStatusResponse(
        model_version_status=[{"version": 2, "state": 50}, {"version": 3, "state": 30}]
    )
