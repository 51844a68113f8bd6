"""Table: formats comparisons as lines of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from export.parity.comparison import Comparison

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["log", "table"]


def table(comparisons: Sequence[Comparison]) -> str:
    """Returns a table with the worst output of each signature, runtime and precision."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    result = Table(
        title="Agreement with the live model",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("runtime", "precision", "signature", "worst output"):
        result.add_column(column, no_wrap=True)
    for column in ("max error", "draws differ", "ELBO, nats"):
        result.add_column(column, justify="right", no_wrap=True)
    result.add_column("")
    _fill(result, comparisons)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(result)
    return capture.get().rstrip()


def log(comparisons: Sequence[Comparison], report: Callable[[str], None]) -> None:
    """Prints the table, and which runtimes accept no empty batch.

    Args:
        comparisons: the comparisons.
        report: called with lines.
    """
    report(f"\n{table(comparisons)}\n")
    for runtime in dict.fromkeys(entry.runtime for entry in comparisons):
        refused = [
            entry.signature
            for entry in comparisons
            if entry.runtime == runtime and not entry.takes_empty_batch
        ]
        if refused:
            names = ", ".join(dict.fromkeys(refused))
            report(f"{runtime} accepts no empty batch in {names}.")


def _fill(result: Table, comparisons: Sequence[Comparison]) -> None:
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for entry in comparisons:
        groups.setdefault((entry.runtime, entry.precision, entry.signature), []).append(entry)
    previous = None
    for (runtime, precision, signature), entries in groups.items():
        worst = max(entries, key=lambda entry: (not entry.passed, entry.max_scaled))
        drawn = [entry for entry in entries if entry.output.startswith("sample")]
        nats = [entry for entry in entries if entry.max_nats is not None]
        result.add_row(
            "" if previous == (runtime, precision) else runtime,
            "" if previous == (runtime, precision) else precision,
            signature,
            worst.output if worst.max_scaled else "all equal",
            f"{worst.max_scaled:.1e}" if worst.max_scaled else "0",
            f"{_sum(drawn, 'different')}/{_sum(drawn, 'numbers')}" if drawn else "",
            _nats(nats[0]) if nats else "",
            "ok" if all(entry.passed for entry in entries) else "[red]FAILED[/red]",
        )
        previous = runtime, precision


def _sum(entries: Sequence[Comparison], name: str) -> int:
    return sum(getattr(entry, name) for entry in entries)


def _nats(entry: Comparison) -> str:
    is_whole = entry.precision == "float32"
    nats = entry.max_nats if is_whole else entry.mean_nats
    return f"{'max' if is_whole else 'mean'} {nats:.1e}" if nats else "0"
