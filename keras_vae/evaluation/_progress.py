"""Progress: one line on standard error with the time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import numpy as np
import tensorflow as tf

__all__ = ["Progress"]

_PATIENCE = 1.0
_PERIOD = 0.2


class Progress:
    """A line with the share done and an estimate of the time left, on standard error.

    It appears after one second. In a terminal it is one line, which vanishes at the end; elsewhere
    it is a line for each tenth of the work.

    Args:
        name: name of the work.
        total: amount of work, in any unit.
        show: whether to show it; None shows it if standard error is a terminal.
    """

    def __init__(self, name: str, total: float, show: bool | None) -> None:
        self._name = name
        self._total = max(float(total), 1e-9)
        self._is_terminal = sys.stderr.isatty()
        self._show = self._is_terminal if show is None else show
        self._done = 0.0
        self._start = self._last = time.perf_counter()
        self._tenths = 0
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_terminal and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()

    def add(self, amount: float) -> None:
        """Counts finished work."""
        self._done += amount
        now = time.perf_counter()
        if not self._show or now - self._start < _PATIENCE:
            return
        share = min(self._done / self._total, 1.0)
        tenths = int(10.0 * share + 1e-6)
        if not (now - self._last >= _PERIOD if self._is_terminal else tenths > self._tenths):
            return
        self._last, self._tenths = now, tenths
        left = (now - self._start) * (1.0 - share) / share
        line = f"{self._name}: {100 * share:.0f} %, about {_duration(left)} left"
        start, end = ("\r", "") if self._is_terminal else ("", "\n")
        sys.stderr.write(start + line.ljust(self._width) + end)
        sys.stderr.flush()
        self._width = len(line)

    def add_in_graph(self, amount: tf.Tensor) -> None:
        """Counts work from within a graph, whenever it reaches this op."""
        if self._show:
            tf.numpy_function(self._added, [tf.cast(amount, tf.float32)], [], name="progress")

    def _added(self, amount: np.ndarray) -> None:
        self.add(float(amount))


def _duration(seconds: float) -> str:
    if seconds < 60.0:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
