"""Time to a bound: seconds of training until a bound on held-out images is a number of nats.

    python -m benchmarks.peers.to_bound --data PATH_OF_MNIST
    python -m benchmarks.peers.to_bound --data PATH_OF_MNIST --target 95 --systems keras_vae
    python -m benchmarks.peers.to_bound --data PATH_OF_MNIST --draws 500 --target 92

Every system trains the network 784-200-200-50 with Adam from the same weights on the same 50 000
images, binarised anew in each epoch, and chooses the batch, the learning rate, and whether and in
how many epochs this falls to zero, by the same small search: all are tried, and the fastest counts.
In each of these settings the systems train an epoch at a time, in turns; one that has taken longer
than its own best so far is stopped. With `--seeds n` each system then trains in its fastest setting
from n other seeds, and the seconds of these count, which chose nothing.

The bound is measured after every epoch, on 5 000 images that are not trained on, binarised once,
outside of the time; compilation and binarising are inside. It is the negative ELBO, or with
`--draws k` the importance-weighted bound -L_k: each system computes it with its own networks on the
first 1 000 of those images, from the first epoch on whose negative ELBO is at most 4.5 nats above
the target. Writes benchmarks/results/NAME.json and NAME.txt after each setting and seed; two to
three hours. `--decays`, `--batches` and `--rates` search fewer settings; `--seconds` stops what
takes longer.
"""

import argparse
import dataclasses
import itertools
import json
import math
import statistics
import tempfile
from collections.abc import Mapping
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
GAP = 4.5
"""Nats above the target from which on, as the negative ELBO falls, -L_k is computed. It has to be
more than lies between the two where the learning rate is nearly 0: with 500 draws 4.1."""

DECAYS, BATCHES, RATES = (0, 40, 60), (100, 200), (1e-3, 2e-3)
"""Epochs in which the learning rate falls to zero, or 0 if it stays, batches and learning rates."""

_MOST_EPOCHS = 60
_CASE = dataclasses.replace(
    CASES["mlp-100"], name="to-bound", examples=50_000, held_out=5_000, binarise=True
)


def measure(
    cases: Mapping[str, Case], path: Path, peers: Path, target: float, most: dict[str, float]
) -> dict[str, Any]:
    """Trains each system in a setting until it is there, or has taken longer than its `most`.

    That is its best so far, which a faster one replaces.
    """
    found: dict[str, Any] = {}
    with workers(cases, path, peers) as running:
        waiting: list[Worker] = list(running)
        while waiting:
            for worker in list(waiting):
                worker.epoch()
                seconds = sum(epoch["seconds"] for epoch in worker.epochs)
                bound, epochs = worker.epochs[-1]["loss"], len(worker.epochs)
                is_there = bound <= target
                is_late = seconds > most[worker.system]
                last = cases[worker.system].decay or _MOST_EPOCHS
                if is_there or is_late or epochs == last:
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
    found = {system: fastest(result["settings"], system) for system in result["systems"]}
    ours = found.get(OURS)
    for system, row in found.items():
        if row is None:
            rows = [row[system] for row in result["settings"]]
            lowest = min((min(row["bounds"]), row["epochs"], row["trained"]) for row in rows)
            lines.append(
                f"  {system:14s} not reached: {lowest[0]:.2f} in {lowest[1]} epochs, "
                f"{lowest[2]:.1f} seconds"
            )
            continue
        at = row[system]
        ratio = math.nan if ours is None else ours[OURS]["seconds"] / at["seconds"]
        lines.append(
            f"  {system:14s} {at['seconds']:8.1f} {ratio:9.2f} {at['epochs']:6d} "
            f"{row['decay']:5d} {row['batch']:5d} {row['learning_rate']:6g}"
        )
    if result["seeds"]:
        lines.append(f"From {len(result['seeds'])} other seeds in these settings, each:")
        lines += [_of_seeds(result["seeds"], system) for system, row in found.items() if row]
    return "\n".join(lines)


def fastest(settings: list[dict[str, Any]], system: str) -> dict[str, Any] | None:
    """Returns the setting in which a system arrived first, if it did."""
    there = [row for row in settings if row[system]["seconds"] is not None]
    return min(there, key=lambda row: row[system]["seconds"], default=None)


def _of_seeds(seeds: list[dict[str, Any]], system: str) -> str:
    """The seconds of a system from each seed, and the mean of ours over its own."""
    texts = [
        f"{row[system]['seconds']:.1f} ({row[system]['epochs']})"
        if row[system]["seconds"] is not None
        else f"not in {row[system]['trained']:.1f}"
        for row in seeds
    ]
    text = f"  {system:14s} seconds (epochs) {', '.join(texts)}"
    both = [[row[name]["seconds"] for row in seeds if name in row] for name in (OURS, system)]
    if not all(both) or None in itertools.chain(*both):
        return text
    ours, own = map(statistics.fmean, both)
    return f"{text}; mean {own:.1f}, ours/this {ours / own:.2f}"


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
    parser.add_argument("--seeds", type=int, default=0, help="other seeds in the fastest settings")
    parser.add_argument("--name", default="to-bound", help="of the files of results")
    parser.add_argument("--peers", type=Path, default=_ROOT / ".venv-bench" / "bin" / "python")
    arguments = parser.parse_args()
    is_tight = arguments.draws > 1
    tight = arguments.target + GAP if is_tight else -math.inf
    base = dataclasses.replace(_CASE, tight=tight, tight_draws=arguments.draws)
    searched = itertools.product(arguments.batches, arguments.rates, arguments.decays)
    result: dict[str, Any] = {
        "date": None,
        "machine": machine(),
        "target": arguments.target,
        "draws": arguments.draws,
        "examples": _CASE.examples,
        "held_out": _CASE.held_out,
        "systems": arguments.systems,
        "settings": [],
        "seeds": [],
    }
    most = dict.fromkeys(arguments.systems, arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        np.save(path, data(_CASE, grey_images(arguments.data)))
        for batch, rate, decay in searched:
            chosen = {"decay": decay, "batch": batch, "learning_rate": rate}
            case = dataclasses.replace(base, **chosen)
            cases = dict.fromkeys(arguments.systems, case)
            row = measure(cases, path, arguments.peers, arguments.target, most)
            result["settings"].append({**chosen, **row})
            _keep(result, arguments.name)
        best = {system: fastest(result["settings"], system) for system in arguments.systems}
        for seed in range(1, 1 + arguments.seeds):
            cases = {}
            for system, found in best.items():
                if found is not None:
                    chosen = {name: found[name] for name in ("decay", "batch", "learning_rate")}
                    cases[system] = dataclasses.replace(base, seed=seed, **chosen)
            most = dict.fromkeys(cases, math.inf)
            row = measure(cases, path, arguments.peers, arguments.target, most)
            result["seeds"].append({"seed": seed, **row})
            _keep(result, arguments.name)


def _keep(result: dict[str, Any], name: str) -> None:
    """Writes the result and its table."""
    result["date"] = datetime.now(UTC).isoformat("T", "seconds")
    text, described = table(result), result["machine"]
    print(text, flush=True)
    (_RESULTS / f"{name}.json").write_text(json.dumps(result) + "\n")
    at = f"{described['cores']} cores of {described['processor']}"
    (_RESULTS / f"{name}.txt").write_text(
        f"{text}\n  {result['date']}, {at}, revision {described['revision']}\n"
    )


if __name__ == "__main__":
    main()
