"""Rows and columns of training data without any value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from keras_vae.data.content import listed
from keras_vae.distributions.supports import DataError
from keras_vae.spelling import counted

__all__ = ["presence"]


def presence(
    arrays: Mapping[str, Any],
    feature_names: Sequence[str] | None = None,
    *,
    is_all: bool = True,
    one_hot: Collection[str] = (),
) -> list[str]:
    """Returns messages about parts, columns, classes and rows that have no value.

    Args:
        arrays: parts [n, ...] by name, NaN where absent.
        feature_names: names of the columns of a single part [n, D].
        is_all: whether these are all parts, so that a row without a value of them has none.
        one_hot: names of the parts that are one-hot vectors.

    Raises:
        DataError: if there is no value at all.

    Example:
        >>> nan = float("nan")
        >>> for message in presence(
        ...     {"age": np.array([[1], [nan]]), "city": np.array([[nan], [nan]])}
        ... ):
        ...     print(message)
        No row has a value of city: the model learns nothing about it.
        1 of 2 rows has no value at all, and adds nothing to the training.
    """
    is_present: dict[str, np.ndarray] = {
        name: ~np.isnan(np.reshape(np.asarray(x), (len(x), -1))) for name, x in arrays.items()
    }
    rows = np.stack([found.any(axis=1) for found in is_present.values()])
    empty = [name for name, of_part in zip(is_present, rows, strict=True) if not of_part.any()]
    if is_all and len(empty) == len(rows):
        raise DataError(
            f"Every value of the {counted(rows.shape[1], 'row')} is absent (NaN), so there is "
            "nothing to learn from. Check how the data was read, and give rows with values."
        )
    if len(is_present) == 1 and not empty:
        (found,) = is_present.values()
        names = feature_names or [f"column {index}" for index in range(found.shape[1])]
        empty = [names[int(i)] for i in np.flatnonzero(~found.any(axis=0))]
    messages = []
    if empty:
        them = "it" if len(empty) == 1 else "them"
        messages.append(
            f"No row has a value of {listed(empty, 5)}: the model learns nothing about {them}."
        )
    for name in one_hot:
        seen = (np.asarray(arrays[name]) == 1.0).reshape(-1, arrays[name].shape[-1]).any(axis=0)
        if name not in empty and not seen.all():
            never = listed([str(index) for index in np.flatnonzero(~seen)], 5)
            classes = "class" if seen.sum() == len(seen) - 1 else "classes"
            messages.append(
                f"No row has {classes} {never} of {name}: the model learns that this never occurs."
            )
    count = int((~rows.any(axis=0)).sum()) if is_all else 0
    if count:
        has, adds = ("has", "adds") if count == 1 else ("have", "add")
        messages.append(
            f"{count} of {counted(rows.shape[1], 'row')} {has} no value at all, and {adds} nothing "
            "to the training."
        )
    return messages
