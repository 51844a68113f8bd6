"""Clock: how long each part of an export takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

__all__ = ["Clock", "Report", "silent"]

Report = Callable[[str], None]


def silent(sentence: str) -> None:
    """Says nothing."""


class Clock:
    """Timer that reports how long each part took."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Reports how long the block took, under a name."""
        start = time.perf_counter()
        yield
        self._report(f"{time.perf_counter() - start:6.1f} s  {what}")

    def total(self) -> None:
        """Reports the whole."""
        self._report(f"{time.perf_counter() - self._start:6.1f} s  in all")
