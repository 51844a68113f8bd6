"""Peak memory of an export against the weights of the model.

    python -m benchmarks.export_memory --results benchmarks/results/export_memory.txt

For each size a model of two tables of half that size is built, its optimizer's state with it, and
saved, in a process of its own. Then `export` runs on the file in a fresh process. What is reported
is the peak of that process (VmHWM of /proc), the largest peak of the runtimes that it starts, and
the largest sum over all of them at one time, in MB. "Times weights" is the peak without that of an
export of almost no weights, divided by the weights.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

FEATURES = 1000
_NOTHING = 0.1
_INTERVAL = 0.02


@dataclass
class Peak:
    """Peaks of one export in MB, and what it wrote."""

    weights: float
    exporter: float
    runtime: float
    together: float
    seconds: float
    onnx: float


def save(megabytes: float, path: Path) -> None:
    """Saves a compiled model of this many MB, its optimizer's state twice as large beside it."""
    import keras_vae

    width = max(1, round(megabytes * 1e6 / 4 / 2 / FEATURES))
    vae = keras_vae.mlp_vae((FEATURES,), 2, "bernoulli", hidden=(width,))
    vae.compile("adam", keras_vae.ELBO())
    vae.optimizer.build(vae.trainable_variables)
    vae.save(path)


def measure(megabytes: float) -> Peak:
    """Exports a model of this many MB in a fresh process."""
    with tempfile.TemporaryDirectory() as name:
        model, target = Path(name) / "model.keras", Path(name) / "artifact"
        program = [sys.executable, "-m", "benchmarks.export_memory", "--save", str(model)]
        subprocess.run([*program, "--megabytes", str(megabytes)], check=True)
        began = time.perf_counter()
        command = [sys.executable, "-m", "export", str(model), "--out", str(target)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peaks: dict[int, float] = {}
        together = 0.0
        while process.poll() is None:
            found = {pid: _memory(pid) for pid in _family(process.pid)}
            for pid, (peak, _) in found.items():
                peaks[pid] = max(peak, peaks.get(pid, 0.0))
            together = max(together, sum(resident for _, resident in found.values()))
            time.sleep(_INTERVAL)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"The export of {megabytes} MB ended with {process.returncode}.")
        (version,) = target.iterdir()
        return Peak(
            megabytes,
            peaks.pop(process.pid),
            max(peaks.values()),
            together,
            seconds,
            sum(file.stat().st_size for file in (version / "onnx").iterdir()) / 1e6,
        )


def _memory(pid: int) -> tuple[float, float]:
    """Peak and present resident memory of a process in MB; zeros if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    peak, present = (re.search(rf"{key}:\s+(\d+) kB", status) for key in ("VmHWM", "VmRSS"))
    if peak is None or present is None:
        return 0.0, 0.0
    return float(peak[1]) * 1.024e-3, float(present[1]) * 1.024e-3


def _family(pid: int) -> list[int]:
    """A process and those it started; until one of these is another program, it is its parent."""
    own = _command(pid)
    return [pid, *(child for child in _children(pid) if _command(child) not in (b"", own))]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _children(pid: int) -> list[int]:
    try:
        tasks = [task / "children" for task in Path(f"/proc/{pid}/task").iterdir()]
        direct = [int(word) for file in tasks for word in file.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*direct, *(each for child in direct for each in _children(child))]


def table(peaks: list[Peak]) -> str:
    """The table; the first is the export of almost nothing."""
    base, *rest = peaks
    lines = [
        "weights MB  exporter MB  times weights  runtime MB  times weights  together MB"
        "  times weights  seconds  onnx MB"
    ]
    for peak in peaks:
        cells = [f"{peak.weights:10.0f}"]
        for key, width in (("exporter", 11), ("runtime", 10), ("together", 11)):
            value = getattr(peak, key)
            times = f"{(value - getattr(base, key)) / peak.weights:.1f}" if peak in rest else "-"
            cells += [f"{value:{width}.0f}", f"{times:>13}"]
        cells += [f"{peak.seconds:7.0f}", f"{peak.onnx:7.0f}"]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[30.0, 110.0, 600.0])
    parser.add_argument("--results", type=Path, help="file for the table")
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.save:
        save(options.megabytes[0], options.save)
        return
    peaks = []
    for megabytes in [_NOTHING, *options.megabytes]:
        peaks.append(measure(megabytes))
        print(json.dumps(vars(peaks[-1])), file=sys.stderr, flush=True)
    text = table(peaks)
    print(text)
    if options.results:
        options.results.write_text(text + "\n")


if __name__ == "__main__":
    main()
