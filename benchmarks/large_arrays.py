"""Calls on large arrays beside the straightforward one, and the memory that each takes.

    python -m benchmarks.large_arrays --rows 50000 --results benchmarks/results/large_arrays.txt

The straightforward call is one eager pass over all rows, or Keras' `predict` and `evaluate` with
their default batch of 32. Both are run in turn in one process for the times. For the memory each
has a process of its own: its peak above that of the same call on 12 000 rows, a few chunks.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("sample", "sample_mean", "encode", "decode", "reconstruct", "elbo", "predict", "evaluate")
_PROGRAM = [sys.executable, "-m", "benchmarks.large_arrays"]


def calls(rows: int) -> Callable[[str, bool], Callable[[], Any]]:
    """Map from the name of a call, and whether it is the straightforward one, to the call."""
    import keras
    import numpy as np

    import keras_vae
    from keras_vae.training import trainer

    vae = keras_vae.mlp_vae(784, 50, hidden=(200, 200))
    vae.compile()
    rng = np.random.default_rng(0)
    x = (rng.random((rows, 784), np.float32) < 0.5).astype(np.float32)
    z = rng.standard_normal((rows, 50), np.float32)
    chunk = trainer.rows_in

    def call(name: str, plain: bool, count: int = rows) -> Any:
        trainer.rows_in = (lambda *_: rows) if plain else chunk
        quiet: dict[str, Any] = {"verbose": 0, "batch_size": 32} if plain else {"verbose": 0}
        owner: Any = keras.Model if plain else type(vae)
        return {
            "sample": lambda: vae.sample(count, 0),
            "sample_mean": lambda: vae.sample_mean(count, 0),
            "encode": lambda: vae.encode(x[:count]),
            "decode": lambda: vae.decode(z[:count]),
            "reconstruct": lambda: vae.reconstruct(x[:count]),
            "elbo": lambda: vae.elbo(x[:count], seed=0),
            "predict": lambda: owner.predict(vae, x[:count], **quiet),
            "evaluate": lambda: owner.evaluate(vae, x[:count], **quiet),
        }[name]()

    return call


def seconds(call: Callable[..., Any], name: str, repeats: int) -> tuple[float, float]:
    """Medians of the straightforward call and of ours, in turn, after one of each."""
    took: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats + 1):
        for plain in (True, False):
            start = time.perf_counter()
            call(name, plain)
            took[plain].append(time.perf_counter() - start)
    return statistics.median(took[True][1:]), statistics.median(took[False][1:])


def peak() -> float:
    """Most memory that this process has taken, MiB; `getrusage` counts that of its parent, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Prints the table, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--calls", nargs="+", default=list(CALLS))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    call = calls(arguments.rows)
    if arguments.memory:
        name, plain = arguments.memory[0], arguments.memory[1] == "plain"
        call(name, plain, 12_000)
        before = peak()
        call(name, plain)
        print(peak() - before)
        return
    size = arguments.rows * 784 * 4 / 2**20
    lines = [
        f"784-200-200-50, {arguments.rows} rows of 784 numbers, which are {size:.0f} MiB",
        f"{'':14}{'plain ms':>10}{'ours ms':>10}{'ratio':>8}{'plain MiB':>11}{'ours MiB':>10}",
    ]
    print(*lines, sep="\n", flush=True)
    for name in arguments.calls:
        plain, ours = seconds(call, name, arguments.repeats)
        memory = [
            float(
                subprocess.run(
                    [*_PROGRAM, "--rows", str(arguments.rows), "--memory", name, which],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
            for which in ("plain", "ours")
        ]
        lines.append(
            f"{name:14}{1e3 * plain:10.0f}{1e3 * ours:10.0f}{ours / plain:8.2f}"
            f"{memory[0]:11.0f}{memory[1]:10.0f}"
        )
        print(lines[-1], flush=True)
    if arguments.results:
        arguments.results.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
