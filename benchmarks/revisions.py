"""Compares the speed and memory of two checkouts, measured in turns on one machine.

    python benchmarks/revisions.py BEFORE AFTER [--rounds 5] [--cases mlp-100,conv-28]

BEFORE and AFTER are checkouts with a .venv each. Every round runs each case once in each checkout,
in a process of its own; the ratio of a case is the median over rounds of after / before. It is
written to benchmarks/results/revisions.txt of this checkout.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

CASES = {
    "mlp-100": 'keras_vae.mlp_vae((784,), 50, "bernoulli"), 100, 6000, {}',
    "mlp-512": 'keras_vae.mlp_vae((784,), 50, "bernoulli", hidden=(512, 512)), 512, 5120, {}',
    "iwae-5": 'keras_vae.mlp_vae((784,), 50, "bernoulli"), 100, 2000, {"objective": '
    "keras_vae.IWAE(5)}",
    "table-20": 'keras_vae.mlp_vae((20,), 4, "normal", scale="per_feature", hidden=(64,)), 100, '
    "20000, {}",
    "mixture": 'keras_vae.mlp_vae((784,), 20, "bernoulli", prior="normal_mixture", '
    "num_components=50), 100, 3000, {}",
    "conv-28": 'keras_vae.conv_vae((28, 28, 1), 32, "bernoulli"), 100, 1000, {}',
}
PROGRAM = """
import time
begin = time.perf_counter()
import json, resource
import numpy as np
import keras
import keras_vae
keras_vae.VAE
imported = time.perf_counter() - begin
keras.utils.set_random_seed(0)
vae, batch, count, options = {case}
shape = vae.event_shape
x = np.random.default_rng(0).random((count, *shape))
x = x.astype("float32") if {real} else (x < 0.3).astype("float32")
begin = time.perf_counter()
vae.compile("adam", **options)
vae.fit(x, batch_size=batch, epochs=1, verbose=0)
first = time.perf_counter() - begin
times = []
for _ in range(4):
    begin = time.perf_counter()
    vae.fit(x, batch_size=batch, epochs=3, verbose=0)
    times.append((time.perf_counter() - begin) / (3 * (count // batch)))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({{"step": min(times), "first": first, "import": imported, "peak": peak}}))
"""
WHAT = {
    "step": "seconds of a step, the least of four trainings",
    "first": "seconds of compile and the first epoch",
    "import": "seconds of the import",
    "peak": "peak memory of the process",
}


def measured(checkout: Path, name: str) -> dict[str, float]:
    """Runs a case in a checkout."""
    program = PROGRAM.format(case=CASES[name], real=name.startswith("table"))
    command = [checkout / ".venv/bin/python", "-c", program]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def revision(checkout: Path) -> str:
    """Short name of the revision that is checked out."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(
        command, cwd=checkout, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES))
    arguments = parser.parse_args()
    both = (arguments.before.resolve(), arguments.after.resolve())
    lines = [
        f"{revision(both[1])} against {revision(both[0])}, {arguments.rounds} rounds in turns; "
        "median of after / before (least, most).",
        *(f"{name}: {what}." for name, what in WHAT.items()),
        "",
        f"{'case':10}" + "".join(f"{name:>22}" for name in WHAT) + f"{'us/step after':>16}",
    ]
    for name in arguments.cases.split(","):
        pairs = []
        for round_ in range(arguments.rounds):
            order = both if round_ % 2 == 0 else both[::-1]
            found = {checkout: measured(checkout, name) for checkout in order}
            pairs.append((found[both[0]], found[both[1]]))
        cells = []
        for key in WHAT:
            ratios = [after[key] / before[key] for before, after in pairs]
            cells.append(f"{statistics.median(ratios):.3f} ({min(ratios):.2f}, {max(ratios):.2f})")
        least = 1e6 * min(after["step"] for _, after in pairs)
        lines.append(f"{name:10}" + "".join(f"{cell:>22}" for cell in cells) + f"{least:16.0f}")
        print(lines[-1], flush=True)
    path = Path(__file__).parent / "results/revisions.txt"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
