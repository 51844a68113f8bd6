"""Time to a bound: seconds of training until a bound on held-out images is a number of nats.

    python -m benchmarks.peers.to_bound --data PATH_OF_MNIST
    python -m benchmarks.peers.to_bound --data PATH_OF_MNIST --target 95 --systems keras_vae
    python -m benchmarks.peers.to_bound --data PATH_OF_MNIST --draws 500 --target 92

Every system trains the network 784-200-200-50 with Adam from the same weights on the same 50 000
binarised images, and chooses the batch, the learning rate, and whether and in how many epochs this
falls to zero, by the same small search: all are tried, and the fastest counts. In each of these
settings the systems train an epoch at a time, in turns; one that has taken longer than its own best
so far is stopped. The bound is measured after every epoch, on 5 000 images that are not trained on,
outside of the time; compilation is inside. It is the negative ELBO, or with `--draws k` the
importance-weighted bound -L_k: each system computes it with its own networks on the first 1 000 of
those images, from the first epoch on whose negative ELBO is at most 6.5 nats above the target.
Writes benchmarks/results/to-bound.json and to-bound.txt after each setting; two to three hours.
`--decays`, `--batches` and `--rates` search fewer settings; `--seconds` stops what takes longer.
"""

import argparse
import dataclasses
import itertools
import json
import math
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.__main__ import OURS, grey_images, machine
from benchmarks.peers.cases import CASES, TIGHT_EXAMPLES, Case, data
from benchmarks.peers.processes import Worker, workers

_ROOT = Path(__file__).parents[2]
_RESULTS = _ROOT / "benchmarks" / "results"

SYSTEMS = ("keras_vae", "jax_scan", "torch_eager", "pythae", "keras_example")
GAP = 6.5
"""Nats above the target from which on, as the negative ELBO falls, -L_k is computed. It has to be
more than lies between the two: with 500 draws 5.9 nats at learning rates of 7e-4, and 4.1 at 0."""

DECAYS, BATCHES, RATES = (0, 40, 60), (100, 200), (1e-3, 2e-3)
"""Epochs in which the learning rate falls to zero, or 0 if it stays, batches and learning rates."""

_MOST_EPOCHS = 60
_CASE = dataclasses.replace(CASES["mlp-100"], name="to-bound", examples=50_000, held_out=5_000)


def measure(
    case: Case, systems: list[str], path: Path, peers: Path, target: float, most: dict[str, float]
) -> dict[str, Any]:
    """Trains each system in one setting until it is there, or has taken longer than its `most`.

    That is its best so far, which a faster one replaces.
    """
    found: dict[str, Any] = {}
    with workers(systems, case, path, peers) as running:
        waiting: list[Worker] = list(running)
        while waiting:
            for worker in list(waiting):
                worker.epoch()
                seconds = sum(epoch["seconds"] for epoch in worker.epochs)
                bound, epochs = worker.epochs[-1]["loss"], len(worker.epochs)
                is_there = bound <= target
                is_late = seconds > most[worker.system]
                if is_there or is_late or epochs == (case.decay or _MOST_EPOCHS):
                    waiting.remove(worker)
                    found[worker.system] = {
                        "seconds": seconds if is_there else None,
                        "trained": seconds,
                        "epochs": epochs,
                        "bounds": [epoch["loss"] for epoch in worker.epochs],
                        "others": max(epoch["others"] for epoch in worker.epochs),
                        "versions": worker.versions,
                    }
                    print(f"{worker.system}: {bound:.2f} in {seconds:.1f} seconds", flush=True)
                    if is_there:
                        most[worker.system] = min(seconds, most[worker.system])
            waiting = waiting[1:] + waiting[:1]
    return found


def table(result: dict[str, Any]) -> str:
    """Returns the fastest setting of each system."""
    draws = result["draws"]
    bound = f"-L_{draws} of {TIGHT_EXAMPLES}"
    if draws == 1:
        bound = f"the negative ELBO of {result['held_out']}"
    lines = [
        f"Seconds until {bound} held-out images is at most {result['target']:g} nats; "
        f"{result['examples']} images an epoch.",
        f"  {'system':14s} {'seconds':>8s} {'ours/this':>9s} {'epochs':>6s} {'decay':>5s} "
        f"{'batch':>5s} {'rate':>6s}",
    ]
    fastest = {}
    for system in result["systems"]:
        there = [
            (
                row[system]["seconds"],
                row[system]["epochs"],
                row["decay"],
                row["batch"],
                row["learning_rate"],
            )
            for row in result["settings"]
            if row[system]["seconds"] is not None
        ]
        fastest[system] = min(there, default=None)
    ours = fastest.get(OURS)
    for system, at in fastest.items():
        if at is None:
            rows = [row[system] for row in result["settings"]]
            lowest = min((min(row["bounds"]), row["epochs"], row["trained"]) for row in rows)
            lines.append(
                f"  {system:14s} not reached: {lowest[0]:.2f} in {lowest[1]} epochs, "
                f"{lowest[2]:.1f} seconds"
            )
            continue
        ratio = math.nan if ours is None else ours[0] / at[0]
        seconds, *chosen, rate = at
        shown = " ".join(
            f"{value:{width}d}" for value, width in zip(chosen, (6, 5, 5), strict=True)
        )
        lines.append(f"  {system:14s} {seconds:8.1f} {ratio:9.2f} {shown} {rate:6g}")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and keeps the result."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers.to_bound",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="the training images of MNIST")
    parser.add_argument("--target", type=float, default=100.0, help="negative ELBO, nats")
    parser.add_argument("--draws", type=int, default=1, help="k of -L_k; 1 is the negative ELBO")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--decays", nargs="+", type=int, default=DECAYS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--seconds", type=float, default=math.inf, help="of training, at most")
    parser.add_argument("--name", default="to-bound", help="of the files of results")
    parser.add_argument("--peers", type=Path, default=_ROOT / ".venv-bench" / "bin" / "python")
    arguments = parser.parse_args()
    is_tight = arguments.draws > 1
    tight = arguments.target + GAP if is_tight else -math.inf
    base = dataclasses.replace(_CASE, tight=tight, tight_draws=arguments.draws)
    searched = itertools.product(arguments.batches, arguments.rates, arguments.decays)
    described, most = machine(), dict.fromkeys(arguments.systems, arguments.seconds)
    settings: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        np.save(path, data(_CASE, grey_images(arguments.data)))
        for batch, rate, decay in searched:
            chosen = {"decay": decay, "batch": batch, "learning_rate": rate}
            case = dataclasses.replace(base, **chosen)
            row = measure(case, arguments.systems, path, arguments.peers, arguments.target, most)
            settings.append({**chosen, **row})
            result = {
                "date": datetime.now(UTC).isoformat("T", "seconds"),
                "machine": described,
                "target": arguments.target,
                "draws": arguments.draws,
                "examples": _CASE.examples,
                "held_out": _CASE.held_out,
                "systems": arguments.systems,
                "settings": settings,
            }
            text = table(result)
            print(f"{chosen}\n{text}", flush=True)
            (_RESULTS / f"{arguments.name}.json").write_text(json.dumps(result) + "\n")
            at = f"{described['cores']} cores of {described['processor']}"
            (_RESULTS / f"{arguments.name}.txt").write_text(
                f"{text}\n  {result['date']}, {at}, revision {described['revision']}\n"
            )


if __name__ == "__main__":
    main()
