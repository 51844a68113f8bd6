"""Cost of `fit` against the number of examples, of draws per example, and the width of the layers.

    python -m benchmarks.peers.scaling                   # all three, about five minutes
    python -m benchmarks.peers.scaling --sweeps draws
    python -m benchmarks.peers.scaling --sweeps          # only draw the picture from the results

Each point is a process of its own: the median of its epochs after the first, and its peak resident
size. Writes benchmarks/results/scaling-SWEEP.json and docs/images/scaling.png.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.__main__ import OURS, machine
from benchmarks.peers.cases import CASES, Case, data
from benchmarks.peers.processes import workers

_ROOT = Path(__file__).parents[2]
_RESULTS = _ROOT / "benchmarks" / "results"
_MLP = CASES["mlp-100"]

SWEEPS: dict[str, tuple[str, list[Case]]] = {
    "examples": (
        "examples; 196-200-200-50, batch 500",
        [
            dataclasses.replace(_MLP, event_shape=(196,), batch=500, examples=examples)
            for examples in (10**4, 10**5, 10**6)
        ],
    ),
    "draws": (
        "draws k (IWAE), batch 20",
        [
            dataclasses.replace(_MLP, batch=20, examples=400, num_samples=draws)
            for draws in (1, 5, 10, 20, 50, 100, 200)
        ],
    ),
    "width": (
        "width of the two layers, batch 100",
        [
            dataclasses.replace(_MLP, examples=5_000, hidden=(width, width))
            for width in (50, 100, 200, 400, 800, 1600)
        ],
    ),
}


def _value(sweep: str, case: Case) -> int:
    return {"examples": case.examples, "draws": case.num_samples, "width": case.hidden[0]}[sweep]


def measure(case: Case, epochs: int) -> dict[str, Any]:
    """Seconds per step and per example, and the peak resident size in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        few = dataclasses.replace(case, examples=min(case.examples, 10_000))
        np.save(path, np.resize(data(few), (case.examples, *case.event_shape)))
        with workers({OURS: case}, path, Path(sys.executable)) as (worker,):
            for _ in range(1 + epochs):
                worker.epoch(most=0.05, tries=2)
    seconds = statistics.median(epoch["seconds"] for epoch in worker.epochs[1:])
    return {
        "us_per_step": seconds / case.steps * 1e6,
        "us_per_example": seconds / (case.steps * case.batch) * 1e6,
        "peak_mib": worker.epochs[-1]["peak_mib"],
        "seconds": [epoch["seconds"] for epoch in worker.epochs],
    }


def draw(path: Path) -> None:
    """The picture of the results that are there."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for panel, (name, (label, _)) in zip(axes, SWEEPS.items(), strict=True):
        found = _RESULTS / f"scaling-{name}.json"
        if not found.is_file():
            continue
        points = json.loads(found.read_text())["points"]
        values = [point["value"] for point in points]
        key, unit = ("us_per_example", "example") if name == "examples" else ("us_per_step", "step")
        heights = [point[key] for point in points]
        panel.loglog(values, heights, "o-", color="#1f5a8a")
        if name != "examples":
            power = 1 if name == "draws" else 2
            last = [heights[-1] * (value / values[-1]) ** power for value in values]
            label_of = "proportional to k" if power == 1 else "proportional to width squared"
            panel.loglog(values, last, ":", color="grey", label=label_of)
            panel.legend(frameon=False, fontsize=8)
            panel.set_ylim(min(heights) / 2)
        else:
            panel.set_ylim(min(heights) / 3, max(heights) * 3)
        panel.set_xlabel(label)
        panel.set_ylabel(f"microseconds per {unit}")
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, prints, and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", nargs="*", choices=SWEEPS, default=list(SWEEPS))
    parser.add_argument("--epochs", type=int, default=5, help="that count, of each point")
    arguments = parser.parse_args()
    for name in arguments.sweeps:
        label, cases = SWEEPS[name]
        print(label)
        points = []
        for case in cases:
            epochs = 2 if case.examples > 100_000 else arguments.epochs
            point = {"value": _value(name, case), **measure(case, epochs)}
            points.append(point)
            print(
                f"  {point['value']:8d} {point['us_per_step']:9.0f} us/step "
                f"{point['us_per_example']:8.2f} us/example {point['peak_mib']:7.0f} MiB",
                flush=True,
            )
        result = {"machine": machine(), "sweep": label, "points": points}
        (_RESULTS / f"scaling-{name}.json").write_text(json.dumps(result) + "\n")
    draw(_ROOT / "docs" / "images" / "scaling.png")


if __name__ == "__main__":
    main()
