"""Content of a file as the readers return it, and errors that name the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

LABEL_NAMES = ("label", "labels", "y", "target", "class")


class DataError(ValueError):
    """Data that cannot be read or used; the message names the file and says what to do.

    Example:
        >>> import keras_vae
        >>> keras_vae.data.load("nowhere.csv")
        Traceback (most recent call last):
            ...
        keras_vae.data.content.DataError: nowhere.csv does not exist. Give the path of a file ...
    """


@dataclass(frozen=True, eq=False)
class Content:
    """Arrays as a reader found them, before they are checked.

    Attributes:
        x: examples along axis 0.
        labels: labels of the examples, or None.
        feature_names: names of the columns of a table.
        left_out: reasons why columns of the source are left out, by name.
    """

    x: np.ndarray
    labels: np.ndarray | None = None
    feature_names: tuple[str, ...] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


def only_label(path: Path, names: Sequence[str]) -> str | None:
    """Finds the only one of `names` that stands for labels; None if there is none."""
    found = [name for name in names if name.lower() in LABEL_NAMES]
    if len(found) > 1:
        raise DataError(
            f"{path} has several candidates for the labels: {', '.join(found)}. "
            "Drop (--drop) or rename all but one."
        )
    return found[0] if found else None


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turns every exception that a reader raises on a bad file into a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(f"{path} cannot be opened: {reason(error)}. Ask for access.") from error
    except Exception as error:
        if re.search(r"\bobjects?\b", str(error), re.IGNORECASE) and kind.startswith("a .np"):
            raise DataError(
                f"{path} holds Python objects, which are never unpickled because that can run "
                "code. Save it again as an array of numbers."
            ) from error
        raise DataError(
            f"{path} cannot be read as {kind}: {reason(error)}. It is incomplete or of another "
            "kind; write or download it again."
        ) from error


def reason(error: Exception) -> str:
    """Returns the message of an exception, on one line and without a full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split()).rstrip(".")


def listed(names: Sequence[str], most: int = 5) -> str:
    """Lists the first few of `names`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
