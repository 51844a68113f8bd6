"""Systems as processes that work in turns."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.cases import Case
from benchmarks.peers.worker import MODULES

__all__ = ["Worker", "workers"]

_ROOT = Path(__file__).parents[2]

_ONEDNN = {
    "keras_vae": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "without_onednn": {"TF_ENABLE_ONEDNN_OPTS": "0"},
}
"""The commands choose oneDNN; every other system takes TensorFlow's default."""


class Worker:
    """A system in its own process, stopped unless it is its turn."""

    def __init__(self, system: str, case: Case, path: Path, python: Path, clock: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(_ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **_ONEDNN.get(system, {}),
        }
        command = [str(python), "-W", "ignore", "-m", "benchmarks.peers.worker"]
        self.system = system
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [*command, system, case.to_json(), str(path), clock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            cwd=_ROOT,
            env=environment,
        )
        self.versions: dict[str, str] = {}
        self.epochs: list[dict[str, Any]] = []

    def wait(self) -> None:
        """Waits until the system is imported."""
        self.versions = self._read()["versions"]
        self.process.send_signal(signal.SIGSTOP)

    def epoch(self, most: float = 1.0, tries: int = 1) -> None:
        """One epoch, with the machine to itself: again if others took more than `most` of it."""
        for _ in range(tries):
            busy, own = _busy(), _used(self.process.pid)
            started = time.perf_counter()
            self.process.send_signal(signal.SIGCONT)
            print("go", file=self.process.stdin, flush=True)
            epoch = self._read()
            self.process.send_signal(signal.SIGSTOP)
            others = _busy() - busy - (_used(self.process.pid) - own)
            epoch["others"] = max(0.0, others / (time.perf_counter() - started))
            if epoch["others"] <= most:
                break
        self.epochs.append(epoch)

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise RuntimeError(f"{self.system} ended:\n{self.log.read()[-3000:]}")
        return json.loads(line)  # type: ignore[no-any-return]


def _busy() -> float:
    """Processor seconds that the machine has worked; 0 where Linux does not say."""
    try:
        fields = Path("/proc/stat").read_text().split()[1:8]
    except OSError:
        return 0.0
    return (sum(map(int, fields)) - int(fields[3]) - int(fields[4])) / os.sysconf("SC_CLK_TCK")


def _used(process: int) -> float:
    """Processor seconds that a process has worked."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def workers(
    cases: Mapping[str, Case], path: Path, peers: Path, clock: str = "wall"
) -> Iterator[list[Worker]]:
    """A system for each of the cases, started together, and ended at the end whatever happens."""
    started: list[Worker] = []
    try:
        for system, case in cases.items():
            ours = MODULES[system] == "keras_systems"
            python = Path(sys.executable) if ours else peers
            started.append(Worker(system, case, path, python, clock))
        for worker in started:
            worker.wait()
        yield started
    finally:
        for worker in started:
            worker.close()
