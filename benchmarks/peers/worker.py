"""One system training one case: an epoch whenever the runner says so.

    python -m benchmarks.peers.worker SYSTEM CASE DATA.npy CLOCK

CASE is JSON: the attributes of a `Case`. CLOCK is "wall", or "cpu" for processor time on one core.
It reads one line from standard input before each epoch and writes one JSON line after it. What
libraries print goes to standard error. An epoch is timed inside a system's own loop: the gate
stands at its beginning and its end, where fit and trainers call their callbacks.
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import TextIO

import numpy as np

from benchmarks.peers.cases import Case

MODULES = {
    "keras_vae": "keras_systems",
    "without_onednn": "keras_systems",
    "keras_example": "keras_systems",
    "jax_scan": "jax_systems",
    "jax_step": "jax_systems",
    "torch_eager": "torch_systems",
    "torch_compile": "torch_systems",
    "pythae": "pythae_systems",
    "pythae_wide": "pythae_systems",
    "products": "torch_systems",
}
"""Module of each system, whose SYSTEMS holds its function for each task."""


class Gate:
    """Start and end of an epoch, in step with the runner."""

    def __init__(
        self,
        channel: TextIO,
        *,
        every_epoch: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._channel, self._every, self._clock = channel, every_epoch, clock
        self._started = 0.0
        self._epochs = 0

    def begin(self) -> None:
        """Waits for the runner and starts the clock; the process ends when the runner is done."""
        if not sys.stdin.readline():
            os._exit(0)
        self._started = self._clock()

    def end(self, loss: Callable[[], float | list[float]] | None = None) -> None:
        """Stops the clock, and after the first or every epoch computes the loss, untimed."""
        seconds = self._clock() - self._started
        value = loss() if loss is not None and (self._every or not self._epochs) else None
        self._epochs += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.report({"seconds": seconds, "loss": value, "peak_mib": peak / 1024})

    def report(self, message: dict[str, object]) -> None:
        """Writes one line to the runner."""
        print(json.dumps(message), file=self._channel, flush=True)


def main() -> None:
    """Trains until the runner closes the input."""
    system, attributes, path, clock = sys.argv[1:]
    case = Case.from_json(attributes)
    if clock == "cpu":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    now = time.process_time if clock == "cpu" else time.perf_counter
    gate = Gate(channel, every_epoch=case.held_out > 0, clock=now)
    module = importlib.import_module(f"benchmarks.peers.{MODULES[system]}")
    gate.report({"versions": module.versions()})
    module.SYSTEMS[case.task, system](case, np.load(path), gate)


if __name__ == "__main__":
    main()
