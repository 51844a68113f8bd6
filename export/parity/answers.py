"""Answers: runs each runtime on the cases, in a separate process."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from export.cases import Case, Tensors, read_answers, write_cases
from export.errors import ExportError
from export.runtimes import RUNTIMES, RuntimeFailure

__all__ = ["check_runtimes", "run_runtime"]

_TIMEOUT = 600.0


def check_runtimes(runtimes: Sequence[str]) -> None:
    """Refuses runtimes that are unknown or not installed on this machine.

    Raises:
        ExportError: naming the known runtimes, or how to install one.
    """
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise ExportError(
                f"Unknown runtime {runtime!r}; expected one of {', '.join(RUNTIMES)}."
            )
        if lack := RUNTIMES[runtime].missing():
            raise ExportError(lack)


def run_runtime(
    runtime: str,
    artifact: Path,
    cases: Sequence[Case],
    tensors: dict[tuple[str, str], str] | None = None,
) -> list[Tensors | str]:
    """Runs cases in a runtime in a separate process; a refused case gives its error message.

    Args:
        runtime: name of the runtime.
        artifact: directory of the artifact.
        cases: the cases.
        tensors: names of the SavedModel's tensors, as for `write_cases`.

    Raises:
        ExportError: if the runtime cannot load the artifact.
    """
    try:
        return _run(runtime, artifact, cases, tensors)
    except RuntimeFailure as error:
        # A batch of no rows ends some processes: ONNX Runtime 1.31 aborts in an LSTM.
        some = [case for case in cases if case.size]
        if len(some) == len(cases):
            raise ExportError(f"The artifact does not run: {error}") from error
        answers = iter(run_runtime(runtime, artifact, some, tensors))
        return [next(answers) if case.size else str(error) for case in cases]


def _run(
    runtime: str,
    artifact: Path,
    cases: Sequence[Case],
    tensors: dict[tuple[str, str], str] | None,
) -> list[Tensors | str]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_cases(directory / "cases", list(cases), tensors)
        RUNTIMES[runtime].run(artifact, directory / "cases", directory / "answers", _TIMEOUT)
        return read_answers(directory / "answers")
