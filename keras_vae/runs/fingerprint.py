"""Fingerprint of the data of a run, by which a resumed training notices that it has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from keras_vae.runs.config import RunError
from keras_vae.runs.run import FINGERPRINT, Run
from keras_vae.runs.tasks import Task
from keras_vae.training.backup import write_atomically

__all__ = ["fingerprint", "refuse_changed", "write"]

_NUMBERS = 2**22
"""Most numbers of an array that are read for its fingerprint."""

_ROWS = 2**16
"""Most rows of an array that are read: each may be a read of a file."""


def fingerprint(task: Task) -> str:
    """Returns the SHA-256 of the prepared data: shapes, and all rows or a fixed sample of them.

    The rows are float32 and evenly spaced, at most 65 536 with 4 million numbers, so the digest of
    an array in memory is that of the same array in a file.
    """
    digest = hashlib.sha256()
    for part in (task.train, task.test):
        parts = part if isinstance(part, Mapping) else {"": part}
        for name, x in sorted(parts.items()):
            digest.update(f"{name} {tuple(x.shape)}\n".encode())
            step = max(1, -(-x.size // _NUMBERS), -(-len(x) // _ROWS))
            rows = np.asarray(x[::step]).astype("<f4")
            rows[np.isnan(rows)] = np.nan  # one pattern of bits for all
            digest.update(rows.tobytes())
    return digest.hexdigest()


def write(run: Run, found: str) -> None:
    """Writes the fingerprint of a run's data into it."""
    with write_atomically(run.path / FINGERPRINT) as temporary:
        temporary.write_text(f"{found}\n")


def refuse_changed(run: Run, found: str) -> None:
    """Refuses to continue a run on other data; a run without a fingerprint takes any.

    Raises:
        RunError: if the fingerprint is not that of the run.
    """
    path = run.path / FINGERPRINT
    if path.is_file() and path.read_text().strip() != found:
        raise RunError(
            f"Expected the data that {run.path} was trained on; {run.config.data} has changed or "
            "other data was given. Give it with --data and --test-data as it was, or train on the "
            "new data with another --out."
        )
