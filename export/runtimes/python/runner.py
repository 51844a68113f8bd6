"""Shared parts of the runners in Python: reading cases, answering them and giving up."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from export.cases import Tensors, read_cases, write_answers

__all__ = ["Call", "check", "main", "one_line", "threads"]

Call: TypeAlias = Callable[[Tensors, tuple[str, ...]], list[np.ndarray]]
"""A loaded signature: inputs by name and the outputs wanted, to these outputs."""

_LONGEST = 500


def main(load: Callable[[Path, str], Call]) -> None:
    """Answers the cases that the command line names.

    Args:
        load: artifact directory and name of a signature, to the signature ready to be called.

    Raises:
        SystemExit: with one sentence, if the command line is wrong or a model cannot be loaded.
    """
    if len(sys.argv) != 4:
        raise SystemExit("expected ARTIFACT_DIR CASES_DIR ANSWERS_DIR")
    artifact, questions, answers_directory = map(Path, sys.argv[1:])
    calls: dict[str, Call] = {}
    answers: list[tuple[str, Tensors | str]] = []
    for case in read_cases(questions):
        if case.signature not in calls:
            calls.clear()  # weights of one signature at a time
            try:
                calls[case.signature] = load(artifact, case.signature)
            except Exception as error:
                message = f"the signature {case.signature} cannot be loaded: {one_line(error)}"
                raise SystemExit(message) from None
        answer: Tensors | str
        try:
            values = calls[case.signature](case.inputs, case.outputs)
            answer = dict(zip(case.outputs, map(np.asarray, values), strict=True))
        except Exception as error:
            answer = one_line(error)
        answers.append((case.signature, answer))
    write_answers(answers_directory, answers)


def check(name: str, value: np.ndarray, sizes: list[int | None], dtype: np.dtype) -> None:
    """Refuses an input that is not what the model declares, for runtimes that take anything.

    Args:
        name: of the input.
        value: what is given.
        sizes: what the model declares, None for any size.
        dtype: what the model declares.

    Raises:
        ValueError: if the shape or the type differs.
    """
    fits = len(sizes) == value.ndim and all(
        want in (None, size) for want, size in zip(sizes, value.shape, strict=True)
    )
    if not fits or value.dtype != dtype:
        shape = ["any" if size is None else size for size in sizes]
        given = f"{value.dtype} {list(value.shape)}"
        raise ValueError(f"{name}: expected {dtype} {shape}; got {given}.")


def one_line(error: Exception) -> str:
    """Formats an error in one line; a long one by its start and its end, 500 characters."""
    line = " ".join(str(error).split()) or type(error).__name__
    half = (_LONGEST - 5) // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}"


def threads() -> int:
    """Returns how many threads a runner may use."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))
