"""Parity: runs each runtime and checks that it agrees with the live model."""

from export.parity.answers import check_runtimes, run_runtime
from export.parity.comparison import Comparison, as_json, compare, compare_runtime, refuse_failed

__all__ = [
    "Comparison",
    "as_json",
    "check_runtimes",
    "compare",
    "compare_runtime",
    "refuse_failed",
    "run_runtime",
]
