"""Cases: inputs on disk for runners in any language, and the answers of the runners.

A directory of cases holds `cases.txt` and one raw little-endian file per tensor, in C order. Lines
of `cases.txt` are words separated by single spaces:

    case 0 decode                        number and signature; the lines below belong to it
    in z float32 2 3 16 0-z.bin NODE:0   name, dtype, rank, sizes, file, tensor of the SavedModel
    out mean NODE_1:0                    name of an output, and its tensor of the SavedModel

A runner answers with a directory that holds `answers.txt` and files of the same form:

    case 0 decode
    out mean float32 4 3 8 8 1 0-mean.bin
    error 0 message in one line          instead of outs, if the runtime refused the case

This module needs only NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

__all__ = ["Case", "Tensors", "read_answers", "read_cases", "write_answers", "write_cases"]

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One call of one signature.

    Attributes:
        signature: name of the signature.
        inputs: tensors by name.
        outputs: names of the requested outputs.
        kind: "random", "adversarial", ... for reports; not written.
        sensitivity: by output, how much rounding of the weights changes it; see
            `export.parity.tolerances`; not written.
    """

    signature: str
    inputs: Tensors
    outputs: tuple[str, ...]
    kind: str = "random"
    sensitivity: dict[str, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of rows."""
        return len(next(iter(self.inputs.values())))


def write_cases(
    directory: Path, cases: list[Case], tensors: dict[tuple[str, str], str] | None = None
) -> None:
    """Writes cases for runners.

    Args:
        directory: new or empty.
        cases: the cases to write.
        tensors: names of the SavedModel's tensors by (signature, input or output).
    """
    tensors = tensors or {}
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, case in enumerate(cases):
        lines.append(f"case {number} {case.signature}")
        for name, value in case.inputs.items():
            file = f"{number}-{name}.bin"
            node = tensors.get((case.signature, name), "-")
            lines.append(f"in {name} {_words(value)} {file} {node}")
            _write(directory / file, value)
        lines += [f"out {name} {tensors.get((case.signature, name), '-')}" for name in case.outputs]
    (directory / "cases.txt").write_text("\n".join(lines) + "\n")


def read_cases(directory: Path) -> list[Case]:
    """Reads the cases in a directory."""
    cases: list[Case] = []
    for words in _lines(directory / "cases.txt"):
        match words:
            case ["case", _, signature]:
                cases.append(Case(signature, {}, ()))
            case ["in", name, *shape, file, _]:
                cases[-1].inputs[name] = _read(directory / file, shape)
            case ["out", name, _]:
                last = cases.pop()
                cases.append(Case(last.signature, last.inputs, (*last.outputs, name)))
    return cases


def write_answers(directory: Path, answers: list[tuple[str, Tensors | str]]) -> None:
    """Writes the answers of a runtime: for each case its signature, and outputs or an error."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (signature, answer) in enumerate(answers):
        lines.append(f"case {number} {signature}")
        if isinstance(answer, str):
            lines.append(f"error {number} {' '.join(answer.split())}")
            continue
        for name, value in answer.items():
            file = f"{number}-{name}.bin"
            lines.append(f"out {name} {_words(value)} {file}")
            _write(directory / file, value)
    (directory / "answers.txt").write_text("\n".join(lines) + "\n")


def read_answers(directory: Path) -> list[Tensors | str]:
    """Reads the answers of a runner: outputs by name, or the error, for each case."""
    answers: list[Tensors | str] = []
    for words in _lines(directory / "answers.txt"):
        match words:
            case ["case", *_]:
                answers.append({})
            case ["out", name, *shape, file]:
                outputs = answers[-1]
                if isinstance(outputs, dict):
                    outputs[name] = _read(directory / file, shape)
            case ["error", _, *message]:
                answers[-1] = " ".join(message)
    return answers


def _words(value: np.ndarray) -> str:
    return " ".join(map(str, [value.dtype.name, value.ndim, *value.shape]))


def _write(path: Path, value: np.ndarray) -> None:
    path.write_bytes(np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"))).tobytes())


def _read(path: Path, shape: list[str]) -> np.ndarray:
    dtype, rank, *sizes = shape
    if int(rank) != len(sizes):
        raise ValueError(f"{path.name}: rank {rank} and sizes {sizes} disagree.")
    values = np.frombuffer(path.read_bytes(), np.dtype(dtype).newbyteorder("<"))
    return values.reshape([int(size) for size in sizes])


def _lines(path: Path) -> list[list[str]]:
    return [line.split(" ") for line in path.read_text().splitlines() if line]
