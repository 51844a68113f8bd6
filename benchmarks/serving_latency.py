"""Latency and throughput of `decode`: local server, bare ONNX Runtime and Keras `predict`.

    python benchmarks/serving_latency.py

A decoder 50-200-200-784 with untrained weights is exported and served by `keras-vae serve local`
in a process of its own. The ways are timed in turn, round after round, so that what disturbs the
machine disturbs all of them. A call is what its user waits for: NumPy in, NumPy out, JSON or
protobuf included. Keras gives the mean alone; the others give mean and logits.
"""

import argparse
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import keras
import numpy as np
import onnxruntime

import keras_vae
from export.pipeline import export_model
from serving.artifact import Artifact
from serving.protocol import messages, rest
from serving.protocol.rest import Layout

Call = Callable[[np.ndarray], object]
MODEL = "bench"


def rest_call(artifact: Artifact, port: int, layout: Layout) -> Call:
    """Calls over one connection that is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    # http.client sends head and body apart, and the second waits for the first's receipt otherwise.
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    signature = artifact.signatures["decode"]

    def call(z: np.ndarray) -> object:
        body = rest.write_predict(signature, {"z": z}, layout)
        connection.request("POST", f"/v1/models/{MODEL}:predict", body)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(answer)
        return rest.read_outputs(answer, signature, layout)

    return call


def grpc_call(port: int) -> Call:
    """Calls over one channel."""
    channel = grpc.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)]
    )
    method = messages.METHODS["Predict"]
    predict = channel.unary_unary(
        method.path, method.request.SerializeToString, method.response.FromString
    )
    spec = messages.model_spec(MODEL, signature="decode")
    return lambda z: messages.read_outputs(predict(messages.predict_request(spec, {"z": z})))


def onnx_call(artifact: Artifact, threads: int) -> Call:
    """Calls in this process."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        artifact.signatures["decode"].onnx, options, providers=["CPUExecutionProvider"]
    )
    return lambda z: session.run(None, {"z": z})


def keras_call(vae: keras_vae.VAE) -> Call:
    """`predict` of the decoder as a Keras model, which gives the mean."""
    z = keras.Input((vae.latent_size,))
    decoder = keras.Model(z, vae.likelihood(z))
    return lambda z: decoder.predict(z, batch_size=len(z), verbose=0)


def start(artifacts: Path, threads: int) -> tuple[subprocess.Popen[str], int, int]:
    """The server's process and its two ports."""
    command = [sys.executable, "-m", "serving", "local", str(artifacts), "--port", "0"]
    command += ["--grpc-port", "0", "--log-level", "warning", "--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if match := re.search(r"gRPC\s+\S+:(\d+)", said):
            rest_port = re.search(r"REST\s+http://[\d.]+:(\d+)", said)
            assert rest_port is not None
            return process, int(rest_port[1]), int(match[1])
    raise RuntimeError(said)


def seconds(call: Call, z: np.ndarray, calls: int) -> list[float]:
    """Times of some calls."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        call(z)
        times.append(time.perf_counter() - started)
    return times


def together(make: Callable[[], Call], z: np.ndarray, callers: int, calls: int) -> float:
    """Requests per second of callers that each send one row after another."""
    ways = [make() for _ in range(callers)]
    for way in ways:
        way(z)
    threads = [threading.Thread(target=seconds, args=(way, z, calls)) for way in ways]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return callers * calls / (time.perf_counter() - started)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=100, help="of one row, in each round")
    parser.add_argument("--batches", type=int, default=4, help="of 256 rows, in each round")
    parser.add_argument("--artifacts", type=Path, help="kept there, and used if there already")
    arguments = parser.parse_args()
    threads = os.cpu_count() or 1
    keras.utils.set_random_seed(0)
    vae = keras_vae.mlp_vae((28, 28, 1), 50, "bernoulli", hidden=(200, 200))
    with tempfile.TemporaryDirectory() as temporary:
        artifacts = arguments.artifacts or Path(temporary)
        if not (artifacts / MODEL).exists():
            export_model(vae, artifacts / MODEL)
        artifact = Artifact.read(artifacts / MODEL / "1")
        process, port, grpc_port = start(artifacts, threads)
        try:
            measure(arguments, artifact, vae, port, grpc_port, threads)
        finally:
            process.terminate()
            process.wait()


def measure(
    arguments: argparse.Namespace,
    artifact: Artifact,
    vae: keras_vae.VAE,
    port: int,
    grpc_port: int,
    threads: int,
) -> None:
    """Times every way in turn."""
    ways: dict[str, Call] = {
        "bare ONNX Runtime": onnx_call(artifact, threads),
        "local server, gRPC": grpc_call(grpc_port),
        "local server, REST columns": rest_call(artifact, port, "columns"),
        "local server, REST rows": rest_call(artifact, port, "rows"),
        "Keras predict": keras_call(vae),
    }
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 50)).astype("float32")
    many = rng.normal(size=(256, 50)).astype("float32")
    singles: dict[str, list[float]] = {name: [] for name in ways}
    batches: dict[str, list[float]] = {name: [] for name in ways}
    for call in ways.values():
        seconds(call, one, 5)
        seconds(call, many, 2)
    for _ in range(arguments.rounds):
        for name, call in ways.items():
            calls = arguments.calls // 5 if name.startswith("Keras") else arguments.calls
            singles[name] += seconds(call, one, calls)
            batches[name] += seconds(call, many, arguments.batches)
    print(f"{'':28}   1 row: median      p95   256 rows: median     rows/s")
    for name in ways:
        median, p95 = np.percentile(singles[name], [50, 95]) * 1e3
        batch = float(np.median(batches[name]))
        print(
            f"{name:28} {median:11.3f} ms {p95:5.2f} ms {batch * 1e3:15.2f} ms {256 / batch:10.0f}"
        )
    for callers in (1, 8, 32):
        grpc_rate = together(lambda: grpc_call(grpc_port), one, callers, 320 // callers)
        rest_rate = together(
            lambda: rest_call(artifact, port, "columns"), one, callers, 320 // callers
        )
        print(f"{callers:2} callers of 1 row: gRPC {grpc_rate:6.0f}/s, REST {rest_rate:6.0f}/s")


if __name__ == "__main__":
    main()
