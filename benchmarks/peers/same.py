"""Whether the systems train the same model: losses of a few steps from the same weights and noise.

    python -m benchmarks.peers.same                      # every case, a quarter of a minute each
    python -m benchmarks.peers.same --cases flow-prior ladder-4 vq-vae

The first loss shows that the models are the same, the others that gradients, updates and averages
are. `make bench` begins each case with it.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.peers.cases import CASES, SAME_STEPS, Case, data
from benchmarks.peers.processes import workers

__all__ = ["compared"]

SYSTEMS = ("keras_vae", "jax_step", "torch_eager")

FIRST, LATER = 3e-6, 1e-4
"""Largest relative difference of the first loss, whose sum has a thousand float32 terms, and of
those after an update: Adam divides by the size of a gradient, so that the smallest, which are
rounding, move their weights as far as others."""

_ROOT = Path(__file__).parents[2]


def compared(case: Case, peers: Path, grey: np.ndarray | None = None) -> str:
    """Returns by how much the losses of the systems differ.

    Raises:
        RuntimeError: if they differ by more than rounding.
    """
    case = dataclasses.replace(case, task="same")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npy"
        np.save(path, data(case, grey))
        with workers(dict.fromkeys(SYSTEMS, case), path, peers) as running:
            for worker in running:
                worker.epoch()
            losses = {worker.system: worker.epochs[0]["loss"] for worker in running}
    found = np.array(list(losses.values()))
    spread = np.ptp(found, axis=0) / np.abs(found).max(axis=0)
    if spread[0] > FIRST or spread[1:].max() > LATER:
        raise RuntimeError(f"{case.name}: the systems train different models: {losses}")
    return (
        f"{case.name}: loss {found[0, 0]:.4f} in {', '.join(losses)}, which differ by "
        f"{spread[0]:.0e}, and after {SAME_STEPS - 1} updates by {spread[-1]:.0e} of it"
    )


def main() -> None:
    """Compares the chosen cases."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.peers.same",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [name for name, case in CASES.items() if case.task == "fit"]
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="CASE")
    parser.add_argument("--peers", type=Path, default=_ROOT / ".venv-bench" / "bin" / "python")
    arguments = parser.parse_args()
    for name in arguments.cases:
        print(compared(CASES[name], arguments.peers), flush=True)


if __name__ == "__main__":
    main()
