"""`fit` from a memory-mapped file, a Parquet table and a directory of images, beside the array.

    python benchmarks/from_files.py                  # two minutes; prints, and writes the results

The 784-200-200-50 network at batch 100 on the same 20 000 rows of bytes, binarised anew at each
step: in memory, in a .npy file, and in the cache that `load(..., cache=)` makes of the other two.
Fits of five epochs take turns in one process; the first round does not count. A machine that is
shared halves its speed for seconds at a time, so the ratio is that of the least times. Then how
long the cache took to write, and how far a process grows that trains from a file of 2 GiB.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import keras_vae
from keras_vae import data

ROWS, BATCH, EPOCHS, REPEATS = 20_000, 100, 5, 5
ROOT = Path(__file__).parents[1]


def sources(folder: Path, x: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    """Array and seconds that it took to load, by kind."""
    np.save(folder / "x.npy", x.reshape(ROWS, 28, 28, 1))
    pd.DataFrame(x, columns=[f"p{i}" for i in range(784)]).to_parquet(folder / "x.parquet")
    pictures = folder / "pictures"
    pictures.mkdir()
    for i, pixels in enumerate(x.reshape(ROWS, 28, 28)):
        Image.fromarray(pixels).save(pictures / f"{i:05d}.png")
    found = {"memory": (x.reshape(ROWS, 28, 28, 1), 0.0)}
    for kind, path in (("npy", "x.npy"), ("Parquet", "x.parquet"), ("images", "pictures")):
        started = time.perf_counter()
        rows = data.load(folder / path, cache=folder / "cache").x
        found[kind] = rows, time.perf_counter() - started
    return found


def growth(
    rows: int,
    size: int,
    hidden: tuple[int, ...],
    batch: int,
    few: int,
    python: Sequence[str] = (sys.executable,),
) -> float:
    """MiB by which a process grows that trains an epoch from a file, after one from a few rows.

    Args:
        rows, size: of the file, which holds bytes: zeros that take no disk.
        hidden: widths of the layers.
        batch: examples of a step.
        few: rows that the process trained on before.
        python: command that starts Python.
    """
    program = f"""
import re, sys, numpy as np, keras_vae
def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
def train(x):
    vae = keras_vae.mlp_vae(x.shape[1:], 50, "bernoulli", hidden={hidden})
    vae.compile()
    vae.fit(x, batch_size={batch}, epochs=1, verbose=0)
x = np.load(sys.argv[1], mmap_mode="r")
train(np.array(x[:{few}]))
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
train(x)
print(memory("VmHWM") - before)
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.lib.format.open_memmap(path, "w+", np.uint8, (rows, size))
        command = [*python, "-c", program, str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return float(found.stdout.split()[-1])


def main() -> None:
    """Measures and prints."""
    x = np.random.default_rng(0).integers(0, 256, (ROWS, 784), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        kinds = sources(Path(name), x)
        models, times = {}, {kind: [] for kind in kinds}
        for number in range(1 + REPEATS):
            for kind, (rows, _) in kinds.items():
                if number == 0:
                    models[kind] = keras_vae.mlp_vae(
                        rows.shape[1:], 50, "bernoulli", hidden=(200, 200), activation="tanh"
                    )
                    models[kind].compile()
                stream = data.batches(
                    rows, BATCH, epochs=EPOCHS, rescale=1 / 255, transform=data.binarize
                )
                started = time.perf_counter()
                models[kind].fit(stream, steps_per_epoch=ROWS // BATCH, epochs=EPOCHS, verbose=0)
                if number:
                    times[kind].append(time.perf_counter() - started)
    base = min(times["memory"])
    lines = [
        f"python benchmarks/from_files.py    ({len(os.sched_getaffinity(0))} cores, "
        f"{platform.platform()})",
        "",
        f"{ROWS} rows of 784 bytes, batch {BATCH}, {EPOCHS} epochs a fit, {REPEATS} fits each",
        f"{'kind':10s} {'us/step, min':>12s} {'median':>8s} {'max':>8s} "
        f"{'min over memory':>16s} {'to load, s':>11s}",
    ]
    steps = EPOCHS * ROWS // BATCH
    for kind, seconds in times.items():
        ordered = [value / steps * 1e6 for value in sorted(seconds)]
        lines.append(
            f"{kind:10s} {ordered[0]:12.0f} {statistics.median(ordered):8.0f} {ordered[-1]:8.0f} "
            f"{min(seconds) / base:16.2f} {kinds[kind][1]:11.2f}"
        )
    grown = growth(2 * 2**30 // 784, 784, hidden=(200, 200), batch=BATCH, few=2000)
    lines += ["", f"Training an epoch from a file of 2048 MiB: {grown:.0f} MiB more memory."]
    text = "\n".join(lines) + "\n"
    print(text)
    (ROOT / "benchmarks" / "results" / "from_files.txt").write_text(text)


if __name__ == "__main__":
    main()
