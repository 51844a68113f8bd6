"""Comparison: how two served versions of a model answer the same requests."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vae.spelling import counted
from serving.artifact import Artifact, Signature
from serving.client import Client
from serving.deploy import warmup
from serving.errors import ServingError
from serving.protocol import messages, rest
from serving.protocol.checks import Arrays

__all__ = [
    "Check",
    "Comparison",
    "Recorded",
    "Tolerance",
    "compare",
    "read_recorded",
    "warm_up_requests",
]

_SEED = 20131220


@dataclass(frozen=True)
class Recorded:
    """A recorded request: a signature and its inputs, arrays with the batch first."""

    signature: str
    inputs: Arrays


@dataclass(frozen=True)
class Tolerance:
    """Margins by which the second version may be worse.

    Attributes:
        elbo: nats per example by which its mean ELBO may be lower.
        latency: maximum ratio of its median response time to that of the first.
        outputs: largest absolute difference of any output, or None for no limit: another model
            returns other numbers.
    """

    elbo: float = 0.5
    latency: float = 2.0
    outputs: float | None = None

    def __post_init__(self) -> None:
        """Refuses limits that cannot be compared with."""
        for name, value in (
            ("elbo", self.elbo),
            ("latency", self.latency),
            ("outputs", self.outputs),
        ):
            if value is not None and not value >= 0.0:
                raise ServingError(f"Expected a tolerance of {name} of at least 0; got {value}.")


@dataclass(frozen=True)
class Check:
    """One line of the verdict."""

    what: str
    found: str
    allowed: str
    passed: bool


@dataclass(frozen=True)
class Comparison:
    """Answers of two versions to the same requests.

    Attributes:
        requests: number of requests sent to each.
        rows: number of examples whose ELBO was computed by both.
        elbos: mean ELBO of the first and of the second, nats per example.
        elbo_error: standard error of the mean difference over the examples; None for one example.
        differences: largest absolute difference by signature and output.
        seconds: median and 95 % quantile of the response time, of the first and of the second.
        failures: requests at which the second version failed and the first did not.
    """

    requests: int
    rows: int
    elbos: tuple[float, float]
    elbo_error: float | None
    differences: dict[tuple[str, str], float]
    seconds: tuple[tuple[float, float], tuple[float, float]]
    failures: list[str]

    def checks(self, tolerance: Tolerance) -> list[Check]:
        """Compares the numbers with the tolerance, one line each."""
        gain = self.elbos[1] - self.elbos[0]
        error = "" if self.elbo_error is None else f" +- {self.elbo_error:.3f}"
        ratio = self.seconds[1][0] / self.seconds[0][0]
        worst = max(self.differences.values(), default=0.0)
        checks = [
            Check("failed requests", str(len(self.failures)), "0", not self.failures),
            Check(
                f"ELBO, nats per example, {counted(self.rows, 'example')}",
                f"{gain:+.3f}{error} ({self.elbos[0]:.3f} -> {self.elbos[1]:.3f})",
                f">= {-tolerance.elbo:g}",
                gain >= -tolerance.elbo,
            ),
            Check(
                "median response time",
                f"x {ratio:.2f} ({1e3 * self.seconds[0][0]:.2f} -> {1e3 * self.seconds[1][0]:.2f} "
                f"ms; 95 %: {1e3 * self.seconds[0][1]:.2f} -> {1e3 * self.seconds[1][1]:.2f} ms)",
                f"<= x {tolerance.latency:g}",
                ratio <= tolerance.latency,
            ),
        ]
        allowed = "any" if tolerance.outputs is None else f"<= {tolerance.outputs:g}"
        passed = tolerance.outputs is None or worst <= tolerance.outputs
        return [*checks, Check("largest difference of an output", f"{worst:.3g}", allowed, passed)]


def read_recorded(path: Path, signatures: dict[str, Signature]) -> list[Recorded]:
    """Reads the requests of a file: each line is the JSON body of a predict request.

    Raises:
        ServingError: naming the first line that is not a request for one of the signatures.
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            signature, _, inputs = rest.read_predict(line, signatures)
        except ServingError as error:
            raise ServingError(f"{path}, line {number}: {error}") from error
        found.append(Recorded(signature.name, inputs))
    if not found:
        raise ServingError(f"{path} holds no requests; write one request body per line.")
    return found


def warm_up_requests(artifact: Artifact) -> list[Recorded]:
    """Reads the warm-up requests of an artifact, whose rows were drawn by its own model."""
    found = []
    for request in warmup.requests(artifact):
        signature, inputs = messages.read_predict(request, artifact.signatures)
        found.append(Recorded(signature.name, inputs))
    return found


def compare(first: Client, second: Client, requests: Sequence[Recorded]) -> Comparison:
    """Sends every request to both versions in turn, and the data in them to `score`.

    The ELBO is computed for each distinct example among the inputs `x`. Both versions get the same
    seed pair for it, so their noise is the same.

    Args:
        first, second: clients of the two versions.
        requests: the recorded requests.

    Raises:
        ServingError: if the first version refuses a request, or no request holds data.
    """
    data = _distinct(requests)
    if not data:
        raise ServingError(
            "None of the recorded requests holds x, so no ELBO can be compared; record requests of "
            "encode, reconstruct or score."
        )
    times: tuple[list[float], list[float]] = ([], [])
    differences: dict[tuple[str, str], float] = {}
    failures: list[str] = []
    for number, request in enumerate([requests[0], *requests]):
        is_timed = number > 0  # the first request is also sent once to connect
        answers: list[Arrays | None] = [None, None]
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            try:
                answers[which] = (first, second)[which].predict(request.signature, request.inputs)
            except ServingError as error:
                if which == 0:
                    raise
                failures += [f"request {number}: {error}"] if is_timed else []
                continue
            if is_timed:
                times[which].append(time.perf_counter() - start)
        _note(differences, request.signature, *answers)
    elbos = [_elbo(first, data)]
    try:
        elbos.append(_elbo(second, data))
    except ServingError as error:
        failures.append(f"score: {error}")
    gain = elbos[-1] - elbos[0]
    rows = len(gain)
    return Comparison(
        requests=len(requests),
        rows=rows,
        elbos=(float(elbos[0].mean()), float(elbos[1].mean()) if len(elbos) > 1 else -np.inf),
        elbo_error=float(gain.std(ddof=1) / np.sqrt(rows)) if rows > 1 else None,
        differences=differences,
        seconds=(_quantiles(times[0]), _quantiles(times[1])),
        failures=failures,
    )


def _note(
    differences: dict[tuple[str, str], float],
    signature: str,
    first: Arrays | None,
    second: Arrays | None,
) -> None:
    if first is None or second is None:
        return
    for name in first.keys() | second.keys():
        a, b = first.get(name), second.get(name)
        found = np.inf
        if a is not None and b is not None and a.shape == b.shape:
            found = float(np.max(np.abs(a.astype(np.float64) - b), initial=0.0))
        key = (signature, name)
        differences[key] = max(found, differences.get(key, 0.0))


def _elbo(client: Client, data: Arrays) -> np.ndarray:
    pairs = np.array([[_SEED, row] for row in range(len(data["x"]))], np.int32)
    return client.predict("score", {**data, "seed": pairs})["elbo"].astype(np.float64)


def _distinct(requests: Sequence[Recorded]) -> Arrays:
    """Collects the distinct examples among the inputs x, with their conditions."""
    found: dict[bytes, Arrays] = {}
    for row in _rows(requests):
        found.setdefault(b"".join(array.tobytes() for array in row.values()), row)
    rows = list(found.values())
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}


def _rows(requests: Sequence[Recorded]) -> Iterator[Arrays]:
    for request in requests:
        kept = {name: request.inputs[name] for name in ("x", "condition") if name in request.inputs}
        for row in range(len(kept.get("x", ()))):
            yield {name: array[row] for name, array in kept.items()}


def _quantiles(seconds: list[float]) -> tuple[float, float]:
    if not seconds:
        return np.inf, np.inf
    return statistics.median(seconds), float(np.quantile(seconds, 0.95))
