"""Classes of a conditional run: the labels of its examples, one-hot coded in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_vae.runs.setting import RunError
from keras_vae.spelling import counted, meant

__all__ = ["counts", "found", "one_hot", "take_turns"]

_MOST = 1000


def found(labels: np.ndarray | None, source: str) -> tuple[str, ...]:
    """Returns the different labels of the training examples, in order.

    Args:
        labels: labels [N], numbers or words; None if the data has none.
        source: the data, for messages.

    Raises:
        RunError: if there are no labels, or they are no classes.
    """
    values = np.unique(_checked(labels, source))
    words = _words(values)
    fraction = next((word for word in words if "." in word and values.dtype.kind == "f"), None)
    if fraction is not None or not 2 <= len(words) <= _MOST:
        what = counted(len(words), "class", plural="classes")
        raise RunError(
            f"Expected the labels of {source} to be 2 to {_MOST} classes; got "
            f"{what if fraction is None else f'numbers such as {fraction}'}. Leave condition out."
        )
    return tuple(words)


def counts(condition: np.ndarray, classes: Sequence[str]) -> str:
    """Describes how often each class occurs, the first ten by name.

    Args:
        condition: one-hot vectors [N, K].
        classes: the K classes.

    Example:
        >>> counts(np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), ("a", "b"))
        '2 classes: a (1), b (2)'
    """
    often = condition.sum(axis=0, dtype=np.int64)
    shown = [f"{name} ({count})" for name, count in zip(classes[:10], often, strict=False)]
    rest = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
    return f"{counted(len(classes), 'class', plural='classes')}: {', '.join(shown)}{rest}"


def one_hot(labels: np.ndarray | None, classes: Sequence[str], source: str) -> np.ndarray:
    """Codes labels one-hot, float32 [N, K].

    Args:
        labels: labels [N], numbers or words; None if the data has none.
        classes: the K classes.
        source: the data, for messages.

    Raises:
        RunError: if there are no labels, or one is none of the classes.

    Example:
        >>> one_hot(np.array([7.0, 3.0]), ("3", "7"), "digits").tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    values, where = np.unique(_checked(labels, source), return_inverse=True)
    numbers = {name: number for number, name in enumerate(classes)}
    words = _words(values)
    for word in words:
        if word not in numbers:
            known = f" The classes are {', '.join(classes)}." if len(classes) <= 20 else ""
            raise RunError(
                f"Expected a label that the model was trained with; got {word} in {source}"
                f"{meant(word, classes)}.{known}"
            )
    codes = np.array([numbers[word] for word in words])
    return np.eye(len(classes), dtype=np.float32)[codes[where]]


def take_turns(names: Sequence[str], classes: Sequence[str], count: int) -> np.ndarray:
    """Returns the conditions of draws, one-hot [count, K]: the named classes take turns.

    Args:
        names: names of classes; empty for all.
        classes: the K classes of the model.
        count: number of draws.

    Raises:
        RunError: if a name is none of the classes.

    Example:
        >>> take_turns([], ("a", "b"), 3).tolist()
        [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    """
    if not classes:
        raise RunError(
            "This run has no labels to choose from: train one with --condition labels, or leave "
            "--label out."
        )
    names = list(names) or list(classes)
    turns = np.array([names[i % len(names)] for i in range(count)])
    return one_hot(turns, classes, "--label")


def _checked(labels: np.ndarray | None, source: str) -> np.ndarray:
    """Refuses data without labels, and labels that are vectors."""
    if labels is None:
        raise RunError(
            f"condition = 'labels' needs labels, and {source} has none: put images in directories "
            "named by label, or name a column or an array label, labels, y, target or class."
        )
    if labels.ndim != 1:
        raise RunError(
            f"Expected one label for each example of {source}; got labels of shape "
            f"{list(labels.shape)}. Save the number of the class in place of one-hot vectors."
        )
    return labels


def _words(values: np.ndarray) -> list[str]:
    """Returns labels as words; a whole number has no decimals, as it is in other files."""
    if values.dtype.kind == "f":
        return [str(int(v)) if float(v).is_integer() else str(v) for v in values.tolist()]
    return [str(value) for value in values.tolist()]
