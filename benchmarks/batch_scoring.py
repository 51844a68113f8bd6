"""Batch scoring of a million rows with a worker killed half-way, beside bare ONNX Runtime.

    python benchmarks/batch_scoring.py [--data TABLE.npz] [--rows 1000000]

Trains a small Gaussian VAE on the table (`X` of an .npz file of ADBench; 21 normal features without
one), exports it, repeats the rows of the table with a little noise up to the number asked for, runs
`keras-vae score` over them, kills its worker when half of the parts are there, checks the
results. Prints the resident memory of all processes of the run over time, and throughput beside
ONNX Runtime over the same numbers in memory, in the same batches, on one thread.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

import keras_vae
from export.pipeline import export_model

BATCH, PART = 4096, 2**15


def table(path: Path | None) -> np.ndarray:
    """Standardised features, [N, D]."""
    if path is None:
        return np.random.default_rng(0).standard_normal((2000, 21)).astype(np.float32)
    with np.load(path) as content:
        x = content["X"].astype(np.float64)
    return ((x - x.mean(0)) / np.maximum(x.std(0), 1e-9)).astype(np.float32)


def artifact(x: np.ndarray, directory: Path) -> Path:
    """A published VAE of the table."""
    keras.utils.set_random_seed(7)
    vae = keras_vae.mlp_vae(
        x.shape[1], 8, "normal", hidden=(64,), activation="tanh", scale="learned"
    )
    vae.compile(keras.optimizers.Adam(3e-3))
    vae.fit(x, epochs=5, batch_size=64, verbose=0)
    return export_model(vae, directory / "table")


def processes(parent: int) -> dict[int, tuple[str, int]]:
    """Command line and resident memory in MB of a process and of all below it."""
    parents, found = {}, {parent}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    while more := {pid for pid, above in parents.items() if above in found} - found:
        found |= more
    result = {}
    for pid in found:
        try:
            name = Path(f"/proc/{pid}/cmdline").read_text()
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        result[pid] = (name, pages * os.sysconf("SC_PAGE_SIZE") // 10**6)
    return result


def watch(run: "subprocess.Popen[str]", out: Path, parts: int) -> None:
    """Prints memory each second, and kills the worker when half of the parts are there."""
    began, killed, said = time.perf_counter(), False, -1.0
    print(" seconds  parts  worker MB  all processes MB")
    while run.poll() is None:
        done = len(list(out.glob("*.parquet")))
        now = time.perf_counter() - began
        family = processes(run.pid)
        workers = {p: mb for p, (name, mb) in family.items() if name.startswith("ray::MapWorker")}
        if now - said >= 1.0:
            said = now
            total = sum(mb for _, mb in family.values())
            print(f"{now:8.1f}  {done:5d}  {sum(workers.values()):9d}  {total:16d}", flush=True)
        if not killed and done >= parts // 2 and workers:
            os.kill(next(iter(workers)), signal.SIGKILL)
            killed = True
            print(f"{now:8.1f}  {done:5d}  worker killed by SIGKILL", flush=True)
        time.sleep(0.02)
    if not killed:
        raise SystemExit("The run ended before its worker was killed: ask for more rows.")


def bare(model: Path, x: np.ndarray) -> tuple[np.ndarray, float]:
    """ELBO of each row, and rows a second, by ONNX Runtime alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model / "onnx" / "score.onnx", options)
    seed = np.stack([np.zeros(len(x)), np.arange(len(x))], axis=1).astype(np.int32)
    names = ["elbo", "distortion", "rate"]
    session.run(names, {"x": x[:BATCH], "seed": seed[:BATCH]})
    began, elbo = time.perf_counter(), []
    for at in range(0, len(x), BATCH):
        rows = slice(at, at + BATCH)
        elbo.append(session.run(names, {"x": x[rows], "seed": seed[rows]})[0])
    return np.concatenate(elbo), len(x) / (time.perf_counter() - began)


def main() -> None:
    """Prints what happened, and fails if a row is missing, doubled or wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=10**6)
    arguments = parser.parse_args()
    features = table(arguments.data)
    rng = np.random.default_rng(1)
    x = features[rng.integers(0, len(features), arguments.rows)]
    x += 0.01 * rng.standard_normal(x.shape, np.float32)
    with tempfile.TemporaryDirectory() as directory:
        model = artifact(features, Path(directory))
        data, out = Path(directory) / "rows.parquet", Path(directory) / "scores"
        names = {f"f{index}": x[:, index] for index in range(x.shape[1])}
        pq.write_table(pa.table({"id": np.arange(len(x)), **names}), data, row_group_size=2**17)
        out.mkdir()
        command = [sys.executable, "-m", "serving", "score", str(model), "--data", str(data)]
        command += ["--out", str(out), "--key", "id"]
        command += ["--batch-size", str(BATCH), "--part-rows", str(PART)]
        run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        watch(run, out, -(-len(x) // PART))
        output = run.stdout.read() if run.stdout else ""
        if run.returncode:
            raise SystemExit(output)
        print(output)
        scores = pq.read_table(out)
        expected, speed = bare(model, x)
        duplicates = len(scores) - len(np.unique(scores["id"].to_numpy()))
        order = np.array_equal(scores["id"].to_numpy(), np.arange(len(x)))
        error = np.abs(scores["elbo"].to_numpy() - expected).max()
    print(f"{len(scores)} rows for {len(x)}, {duplicates} duplicates, in order: {order}")
    print(f"largest difference from ONNX Runtime: {error:.1e} nats")
    found = re.search(r"(\d+) rows/s for each worker", output)
    ours = float(found[1]) if found else float("nan")
    print(f"bare ONNX Runtime {speed:.0f} rows/s, one worker {ours:.0f}: ratio {ours / speed:.2f}")
    if len(scores) != len(x) or duplicates or not order or error > 1e-3:
        raise SystemExit("Some row is missing, doubled or wrong.")


if __name__ == "__main__":
    main()
