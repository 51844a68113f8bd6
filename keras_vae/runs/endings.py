"""Endings of the files that commands write."""

from collections.abc import Sequence
from pathlib import Path

from keras_vae.runs.config import TABLE, TEXT, RunConfig
from keras_vae.runs.setting import RunError
from keras_vae.tokens import TEXT_SUFFIXES

__all__ = ["ARRAYS", "check_ending", "endings_of"]

ARRAYS = (".npy", ".csv", ".parquet", ".png")
"""Endings of a file of draws, unless they are rows of a table as it is."""


def endings_of(config: RunConfig) -> Sequence[str]:
    """Returns the endings of a file of draws of a run."""
    if config.likelihood == TABLE:
        from keras_vae.data.tables import TABLE_SUFFIXES

        return TABLE_SUFFIXES
    return TEXT_SUFFIXES if config.likelihood == TEXT else ARRAYS


def check_ending(out: Path, endings: Sequence[str]) -> None:
    """Refuses a path with another ending.

    Raises:
        RunError: naming the endings.
    """
    if not out.name.lower().endswith(tuple(endings)):
        *some, last = endings
        raise RunError(f"Expected --out to end in {', '.join(some)} or {last}; got {out.name}.")
