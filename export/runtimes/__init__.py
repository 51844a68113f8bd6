"""Runtimes: other programs that run an artifact, each in a process and a language of its own.

A runner is called as `RUNNER ARTIFACT_DIR CASES_DIR ANSWERS_DIR`. It loads the model of each
signature once and answers the cases in the form that `export.cases` describes. If its runtime
refuses a case, it writes an error for that case. If a model cannot be loaded, it prints a message
and exits with a non-zero status.

| name        | format      | what runs it                                                       |
|-------------|-------------|--------------------------------------------------------------------|
| onnxruntime | onnx        | ONNX Runtime in Python                                             |
| reference   | onnx        | the reference evaluator of the `onnx` package                      |
| openvino    | onnx        | OpenVINO on the CPU                                                |
| node        | onnx        | ONNX Runtime in Node.js                                            |
| browser     | onnx        | ONNX Runtime Web (WebAssembly) in a headless Chromium              |
| saved_model | saved_model | TensorFlow in Python, with Keras and TensorFlow Probability barred |
| c           | saved_model | a C program on TensorFlow's C API, the loader of TensorFlow Serving |

No module here imports TensorFlow. Example:

    runtime = RUNTIMES["node"]
    if lack := runtime.missing():
        raise SystemExit(lack)
    write_cases(directory / "cases", cases)
    runtime.run(Path("artifacts/quickstart/1"), directory / "cases", directory / "answers")
    answers = read_answers(directory / "answers")
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from export.runtimes import needs

__all__ = ["RUNTIMES", "Runtime", "RuntimeFailure"]

_PATIENCE = 5.0  # seconds that a runner has to stop its own processes


class RuntimeFailure(RuntimeError):  # noqa: N818
    """A runtime that is missing, could not load a model, died or took too long."""


@dataclass(frozen=True)
class Runtime:
    """A program that runs artifacts.

    Attributes:
        name: key in `RUNTIMES`.
        format: which part of the artifact it reads.
        description: description for reports.
        requirements: what must be installed on the machine.
        command: returns the runner without its three arguments, compiled if necessary.
        packages: packages whose versions identify the runtime.
    """

    name: str
    format: Literal["onnx", "saved_model"]
    description: str
    requirements: tuple[needs.Need, ...] = field(repr=False)
    command: Callable[[], list[str]] = field(repr=False)
    packages: tuple[str, ...] = field(repr=False)

    def missing(self) -> str | None:
        """Returns a message that says what is missing and how to install it, or None."""
        lack = next(filter(None, (need() for need in self.requirements)), None)
        return f"{self.name}: {lack}" if lack else None

    def version(self) -> str:
        """Returns packages and versions that run the artifact, as in `onnxruntime-node 1.30.0`."""
        return ", ".join(map(needs.version_of, self.packages))

    def run(self, artifact: Path, cases: Path, answers: Path, timeout: float = 120.0) -> None:
        """Runs cases in a separate process.

        Args:
            artifact: version directory with `saved_model.pb` and `onnx/`.
            cases: directory that `export.cases.write_cases` wrote.
            answers: directory for `export.cases.read_answers`; created if it does not exist.
            timeout: maximum time in seconds.

        Raises:
            RuntimeFailure: if the runtime is missing, fails or takes longer.
        """
        if lack := self.missing():
            raise RuntimeFailure(lack)
        try:
            paths = [str(path.absolute()) for path in (artifact, cases, answers)]
            command = [*self.command(), *paths]
        except RuntimeError as error:
            raise RuntimeFailure(f"{self.name}: {error}") from error
        answers.mkdir(parents=True, exist_ok=True)
        (answers / "answers.txt").unlink(missing_ok=True)
        environment = {**needs.runner_environment(), "RUNNER_TIMEOUT": f"{timeout:g}"}
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            errors="replace",
            start_new_session=True,
        )
        try:
            _, complaint = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            message = f"{self.name}: expected answers within {timeout:g} seconds; got none."
            raise RuntimeFailure(message) from None
        finally:
            _end(process)
        if process.returncode:
            raise RuntimeFailure(f"{self.name}: {_last_line(complaint, process.returncode)}")
        asked, answered = _count(cases / "cases.txt"), _count(answers / "answers.txt")
        if asked != answered:
            raise RuntimeFailure(f"{self.name}: expected {asked} answers; got {answered}.")


def _end(process: "subprocess.Popen[str]") -> None:
    """Ends a running runner: asks it first, so that it can stop its own processes."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_PATIENCE)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _last_line(complaint: str, status: int) -> str:
    lines = [line for line in complaint.splitlines() if line.strip()]
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return lines[-1].strip() if lines else f"ended with status {status} and no message"


def _count(file: Path) -> int:
    lines = file.read_text().splitlines() if file.exists() else []
    return sum(line.startswith("case ") for line in lines)


def _runtimes() -> list[Runtime]:
    tensorflow, node = needs.python("tensorflow"), needs.program("node", "nodejs")
    return [
        Runtime(
            "onnxruntime",
            "onnx",
            "ONNX Runtime in Python",
            (needs.python("onnxruntime"),),
            needs.python_runner("onnxruntime"),
            ("onnxruntime",),
        ),
        Runtime(
            "reference",
            "onnx",
            "onnx.reference",
            (needs.python("onnx"),),
            needs.python_runner("reference"),
            ("onnx",),
        ),
        Runtime(
            "openvino",
            "onnx",
            "OpenVINO on the CPU",
            (needs.python("openvino"),),
            needs.python_runner("openvino"),
            ("openvino",),
        ),
        Runtime(
            "node",
            "onnx",
            "ONNX Runtime in Node.js",
            (node, needs.javascript("onnxruntime-node")),
            lambda: ["node", str(needs.JAVASCRIPT / "node.mjs")],
            ("onnxruntime-node",),
        ),
        Runtime(
            "browser",
            "onnx",
            "ONNX Runtime Web in Chromium",
            (needs.chromium_missing, needs.javascript("onnxruntime-web")),
            needs.python_runner("browser"),
            ("onnxruntime-web",),
        ),
        Runtime(
            "saved_model",
            "saved_model",
            "TensorFlow without Keras",
            (tensorflow,),
            needs.python_runner("saved_model"),
            ("tensorflow",),
        ),
        Runtime(
            "c",
            "saved_model",
            "C program on TensorFlow's C API",
            (tensorflow, needs.program("gcc", "gcc", "libc6-dev")),
            lambda: [str(needs.c_runner())],
            ("tensorflow",),
        ),
    ]


RUNTIMES: Final[dict[str, Runtime]] = {runtime.name: runtime for runtime in _runtimes()}
"""Every runtime by name."""
