"""Endings of the files that commands write."""

from collections.abc import Sequence
from pathlib import Path

from keras_vae.runs.setting import RunError

__all__ = ["ARRAYS", "check_ending"]

ARRAYS = (".npy", ".csv", ".parquet", ".png")
"""Endings of a file of draws, unless they are rows of a table as it is."""


def check_ending(out: Path, endings: Sequence[str]) -> None:
    """Refuses a path with another ending.

    Raises:
        RunError: naming the endings.
    """
    if not out.name.lower().endswith(tuple(endings)):
        *some, last = endings
        raise RunError(f"Expected --out to end in {', '.join(some)} or {last}; got {out.name}.")
