"""`fit` beside its peers: every system trains the same model, an epoch at a time, in turns.

    make bench                                       # every case, a quarter of an hour
    make bench BENCH_ARGS="--cases mlp-100 iwae-50 --systems keras_vae jax_scan"
    make bench BENCH_ARGS="--data PATH_OF_MNIST"     # binarised MNIST instead of generated images

Each system is a process of its own that is stopped (SIGSTOP) while another one works. Rounds go
A B C, B C A, ...: what the machine does in the meantime hits all alike. The table gives medians and
the span of the middle half, as ratios to `fit` of keras_vae; "products" is the time of the matrix
products alone. A row is void if its loss after the first epoch, on the same examples from the same
initial weights, is further than the band from the median of the systems. Before that, the systems
that can take noise from outside show that they train the same model (`benchmarks.peers.same`).
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.cases import CASES, Case, data
from benchmarks.peers.processes import workers
from benchmarks.peers.same import compared
from benchmarks.peers.worker import MODULES

OURS = "keras_vae"
FLOOR = "products"
_OTHERS, _TRIES = 0.05, 3
"""Cores that other processes may take during an epoch that counts; how often it is tried."""

_MARK = "<!-- written by make bench -->"
_FEWEST = 4
"""Epochs that a median needs."""

_ROOT = Path(__file__).parents[2]
_RESULTS = _ROOT / "benchmarks" / "results"


def takes_part(system: str, case: Case) -> bool:
    """Whether a system is measured on a case.

    A convolution in the body of a `lax.scan` takes XLA 1.6 s a step on two cores, so that nobody
    trains like that there.
    """
    if case.task == "evidence":
        return system in (OURS, "pythae", "pythae_wide", FLOOR)
    if system == "without_onednn" and not case.convolutional:
        return False
    if case.model != "vae" and system in ("keras_example", "pythae"):
        return False
    return system != "pythae_wide" and not (case.convolutional and system == "jax_scan")


def measure(
    case: Case,
    systems: list[str],
    peers: Path,
    grey: np.ndarray | None,
    warm: int,
    repeats: int,
    clock: str = "wall",
) -> dict[str, Any]:
    """Seconds of each system's epochs, by rounds; the first `warm` rounds do not count."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        np.save(path, data(case, grey))
        allowed = (_OTHERS, _TRIES) if clock == "wall" else ()
        with workers(dict.fromkeys(systems, case), path, peers, clock) as running:
            for number in range(warm + repeats):
                turn = number % len(running)
                for worker in running[turn:] + running[:turn]:
                    worker.epoch(*(allowed if number >= warm else ()))
                if sys.stderr.isatty():
                    round_of = f"\r{case.name}: round {number + 1} of {warm + repeats}  "
                    print(round_of, end="\r", file=sys.stderr, flush=True)
    return {
        "case": case.name,
        "data": "generated" if grey is None or np.prod(case.event_shape) != 784 else "given",
        "steps": case.steps,
        "batch": case.batch,
        "warm": warm,
        "clock": clock,
        "systems": {
            worker.system: {
                "versions": worker.versions,
                "loss": worker.epochs[0]["loss"],
                "first": worker.epochs[0]["seconds"],
                "seconds": [epoch["seconds"] for epoch in worker.epochs[warm:]],
                "others": [
                    round(epoch["others"], 3) if clock == "wall" else 0.0
                    for epoch in worker.epochs[warm:]
                ],
                "peak_mib": worker.epochs[-1]["peak_mib"],
            }
            for worker in running
        },
    }


def _quiet(row: dict[str, Any]) -> list[float]:
    """Seconds of the epochs that the system had to itself; of all, where there are not two."""
    pairs = zip(row["seconds"], row["others"], strict=True)
    quiet = [seconds for seconds, others in pairs if others <= _OTHERS]
    return quiet if len(quiet) > 1 else row["seconds"]


def table(result: dict[str, Any]) -> str:
    """The result as text: time of a step or of an image, ratios, loss and verdict."""
    systems = result["systems"]
    losses = [row["loss"] for row in systems.values() if row["loss"] is not None]
    middle = statistics.median(losses) if losses else 0.0
    case = CASES[result["case"]]
    count, unit, scale = (
        (case.steps, "us/step", 1e6) if case.task == "fit" else (case.examples, "ms/image", 1e3)
    )
    base = statistics.median(_quiet(systems[OURS])) if OURS in systems else None
    floor = statistics.median(_quiet(systems[FLOOR])) if FLOOR in systems else None
    lines = [
        f"{case.name}: batch {case.batch}, {case.steps} steps, k = {case.num_samples}, "
        f"{result['data']} data"
        + (", processor time on one core" if result.get("clock") == "cpu" else ""),
        f"  {'system':14s} {unit:>9s} {'middle half':>17s} {'ours/this':>9s} {'over floor':>10s} "
        f"{'loss':>9s} {'peak MiB':>8s}",
    ]
    for name, row in systems.items():
        quiet = _quiet(row)
        low, mid, high = statistics.quantiles(quiet, n=4, method="inclusive")
        ratio = f"{base / mid:9.2f}" if base is not None else " " * 9
        above = f"{mid / floor:10.2f}" if floor is not None else " " * 10
        loss = " " * 9 if row["loss"] is None else f"{row['loss']:9.2f}"
        void = ""
        if row["loss"] is not None and abs(row["loss"] - middle) > case.band * abs(middle):
            void = f"  VOID: loss more than {case.band:.0%} from the median {middle:.2f}"
        if len(quiet) < _FEWEST:
            void += f"  NOT CLEAN: others worked during {len(row['seconds']) - len(quiet)} epochs"
        figures = (value / count * scale for value in (mid, low, high))
        lines.append(
            "  {:14s} {:9.0f} {:8.0f}-{:8.0f} ".format(name, *figures)
            + f"{ratio} {above} {loss} {row['peak_mib']:8.0f}{void}"
        )
    return "\n".join(lines)


def write_tables(folder: Path) -> None:
    """peers.txt: the table of each result that is there, with its date and revision."""
    results = [folder / f"peers-{name}.json" for name in CASES]
    texts = []
    for path in filter(Path.is_file, results):
        result = json.loads(path.read_text())
        at = result["machine"]
        texts.append(
            f"{table(result)}\n  {result['date']}, {at['cores']} cores of {at['processor']}, "
            f"revision {at['revision']}\n"
        )
    (folder / "peers.txt").write_text("\n".join(texts))


def write_summary(folder: Path, page: Path) -> None:
    """The table between the marks of a page: time of `fit` over that of each system."""
    paths = {name: folder / f"peers-{name}.json" for name in CASES}
    results = {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}
    measured = {system for result in results.values() for system in result["systems"]}
    columns = [system for system in MODULES if system in measured - {OURS}]
    lines = [f"| case | us/step | {' | '.join(columns)} |", "|---|" + "---|" * (len(columns) + 1)]
    for name, result in results.items():
        systems, case = result["systems"], CASES[name]
        ours = statistics.median(_quiet(systems[OURS]))
        unit = ours / case.steps * 1e6 if case.task == "fit" else ours / case.examples * 1e6
        cells = [
            f"{ours / statistics.median(_quiet(systems[column])):.2f}" if column in systems else ""
            for column in columns
        ]
        at = ", one core" if result.get("clock") == "cpu" else ""
        lines.append(f"| {name}{at} | {unit:.0f} | {' | '.join(cells)} |")
    before, _, rest = page.read_text().partition(_MARK)
    _, _, after = rest.partition(_MARK)
    table_text = "\n".join(lines)
    page.write_text(f"{before}{_MARK}\n{table_text}\n{_MARK}{after}")


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    model = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        model = next((line for line in text.splitlines() if line.startswith("model name")), "")
    names = ("tensorflow", "keras", "tensorflow-probability", "numpy")
    return {
        "processor": model.partition(":")[2].strip() or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "threads": "each library's own choice, which is every core",
        "onednn": "keras_vae with it, without_onednn without it, others by default",
        "instructions": os.environ.get("ONEDNN_MAX_CPU_ISA", "all of the processor's"),
        "revision": _revision(),
    }


def _revision() -> str:
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def grey_images(path: Path) -> np.ndarray:
    """The images of a file, in [0, 1]."""
    from keras_vae.data import load

    return load(path).x / 255.0


def main() -> None:
    """Measures, prints, and writes peers-CASE.json and peers.txt into the results."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--systems", nargs="+", choices=MODULES, default=list(MODULES))
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument("--warm", type=int, default=2, help="rounds before them")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu is processor time on one core, which others on the machine hardly change",
    )
    parser.add_argument("--data", type=Path, help="MNIST, instead of generated images")
    parser.add_argument("--peers", type=Path, default=_ROOT / ".venv-bench" / "bin" / "python")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    arguments = parser.parse_args()
    grey = None if arguments.data is None else grey_images(arguments.data)
    described = machine()
    print("\n".join(f"{key}: {value}" for key, value in described.items()), end="\n\n")
    arguments.results.mkdir(parents=True, exist_ok=True)
    for name in arguments.cases:
        case = CASES[name]
        if case.task == "fit":
            print(compared(case, arguments.peers, grey))
        systems = [system for system in arguments.systems if takes_part(system, case)]
        rounds = (arguments.warm, arguments.repeats, arguments.clock)
        result = measure(case, systems, arguments.peers, grey, *rounds)
        result = {
            "date": datetime.now(UTC).isoformat("T", "seconds"),
            "machine": described,
        } | result
        path = arguments.results / f"peers-{name}.json"
        path.write_text(json.dumps(result) + "\n")
        print(table(result), end="\n\n", flush=True)
    write_tables(arguments.results)
    if arguments.results == _RESULTS and OURS in arguments.systems:
        write_summary(_RESULTS, _ROOT / "docs" / "performance.md")


if __name__ == "__main__":
    main()
