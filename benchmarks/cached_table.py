"""Memory of a training from a table in the cache: what is the process's own, and what is a file.

    python benchmarks/cached_table.py [--rows 5000000]      # prints, and writes the results

A Parquet table of 12 columns, half of them real, the others whole numbers and words. `keras-vae
train --cache` writes its rows into a file and trains one epoch at batch 5000. A thread reads
/proc/self/status every 20 ms: anonymous pages (RssAnon) are the process's own, pages of files
(RssFile) are libraries and the mapped table, which the kernel can drop. The time is that of the
processor, so other processes do not count.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
GROUP = 500_000

PROGRAM = """
import os, re, sys, threading, time
names = ("VmRSS", "RssAnon", "RssFile")
most = dict.fromkeys(names, 0.0)
def sizes():
    text = open("/proc/self/status").read()
    return {name: int(re.search(name + r":\\s+(\\d+)", text)[1]) / 1024 for name in names}
def watch():
    while True:
        for name, value in sizes().items():
            most[name] = max(most[name], value)
        time.sleep(0.02)
def cpu():
    used = os.times()
    return used.user + used.system
from keras_vae.runs.config import RunConfig
from keras_vae.runs.train import train
def go(name, out):
    config = RunConfig(
        data=f"{sys.argv[1]}/{name}.parquet", cache=f"{sys.argv[1]}/cache", hidden=(64, 64),
        latent=4, epochs=1, batch_size=5000, likelihood="table",
    )
    train(config, f"{sys.argv[1]}/{out}")
go("small", "a")
threading.Thread(target=watch, daemon=True).start()
before = sizes()
for out in ("b", "c"):
    most.update(dict.fromkeys(names, 0.0))
    begin = cpu()
    go("large", out)
    print("measured", *before.values(), *most.values(), cpu() - begin)
"""


def write(path: Path, rows: int) -> None:
    """Writes a table by groups of rows."""
    rng, writer = np.random.default_rng(0), None
    words = np.array(["north", "east", "south", "west"])
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        columns = {f"real_{i}": rng.normal(i, 1.0, count).astype("f4") for i in range(6)}
        columns |= {f"count_{i}": rng.integers(0, 90, count) for i in range(3)}
        columns |= {f"word_{i}": words[rng.integers(0, 4, count)] for i in range(3)}
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=100_000)
    writer.close()


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "small.parquet", 20_000)
        write(Path(folder) / "large.parquet", rows)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", PROGRAM, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        held = sum(path.stat().st_size for path in Path(folder).glob("cache/*/x.npy")) / 2**20
    lines = [
        f"python benchmarks/cached_table.py --rows {rows}    ({len(os.sched_getaffinity(0))} "
        f"cores, {platform.platform()})",
        "",
        f"12 columns; the rows take {held:.0f} MiB in the cache. MiB; before: after a training on "
        "20 000 rows.",
        f"{'':34s} {'resident':>9s} {'anonymous':>10s} {'of files':>9s} {'cpu, s':>7s}",
    ]
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("measured")]
    first, second = ([float(value) for value in line] for line in found)
    for name, (resident, anonymous, of_files), seconds in (
        ("before", first[:3], None),
        ("most, writing the cache, training", first[3:6], first[6]),
        ("most, training from the cache", second[3:6], second[6]),
    ):
        end = "" if seconds is None else f" {seconds:7.1f}"
        lines.append(f"{name:34s} {resident:9.0f} {anonymous:10.0f} {of_files:9.0f}{end}")
    text = "\n".join(lines) + "\n"
    print(text)
    (ROOT / "benchmarks" / "results" / "cached_table.txt").write_text(text)


if __name__ == "__main__":
    main()
