"""Texts: as the numbers of their tokens, which servers take, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_vae.tokens import Tokens
from serving.artifact import Tensor
from serving.errors import DtypeError, ShapeError, ValueRangeError

__all__ = ["ONLY_NUMBERS", "texts_of", "with_numbers"]

ONLY_NUMBERS = (
    "A server takes the numbers of tokens, and a client turns texts into them if it knows the "
    "artifact: Client(..., artifact=PATH)."
)
"""What to do about texts where their tokens are not known."""


def with_numbers(where: str, value: Any, tensor: Tensor) -> Any:
    """Returns texts as the numbers of their tokens; any other value as it is.

    Args:
        where: what the texts are for, which begins an error.
        value: a list or an array of texts, or anything else.
        tensor: the input.

    Raises:
        DtypeError: if the tokens of a text are not known here, or it is no list of texts.
        ValueRangeError: if the model cannot take a text.
    """
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    texts = list(value) if kind in ("O", "U") and np.ndim(value) == 1 else value
    if isinstance(texts, str) and tensor.tokens is not None:
        raise DtypeError(f"{where}: expected a list of texts; got one text. Write [text].")
    if not isinstance(texts, list | tuple) or not texts or not isinstance(texts[0], str):
        return value
    if not all(isinstance(text, str) for text in texts):
        raise DtypeError(f"{where}: expected texts in all rows; got other values beside texts.")
    if tensor.tokens is None:
        raise DtypeError(f"{where}: expected {tensor.dtype}; got texts. {ONLY_NUMBERS}")
    (steps,) = tensor.shape
    for row, text in enumerate(texts):
        if (problem := tensor.tokens.problem(text, steps)) is not None:
            raise ValueRangeError(f"{where}: the text of row {row} {problem}.")
    return np.array([tensor.tokens.padded(text, steps) for text in texts], np.float32)


def texts_of(tokens: Tokens, x: Any) -> list[str]:
    """Returns the texts of tokens, each up to its first end.

    Args:
        tokens: the tokens of the model.
        x: numbers of tokens [n, T], or probabilities [n, T, K], of which the largest counts.

    Raises:
        ShapeError: if the shape is another.
        ValueRangeError: if a number is no token.

    Example:
        >>> tokens = Tokens(("<end>", "<unknown>", "a", "b"))
        >>> texts_of(tokens, [[3, 2, 0, 2]]), texts_of(tokens, np.eye(4)[[[2, 3]]])
        (['ba'], ['ab'])
    """
    array = np.asarray(x, np.float64)
    count = len(tokens)
    if array.ndim == 3 and array.shape[-1] == count:
        absent = np.isnan(array).any(axis=-1)
        array = np.where(absent, 0, np.where(np.isnan(array), -np.inf, array).argmax(axis=-1))
    elif array.ndim != 2:
        raise ShapeError(
            f"Expected numbers of tokens [n, T] or their probabilities [n, T, {count}]; got shape "
            f"{list(array.shape)}."
        )
    numbers = np.where(np.isnan(array), 0, array)
    if not np.isin(numbers, np.arange(count)).all():
        raise ValueRangeError(f"Expected numbers of tokens from 0 to {count - 1}; got others.")
    return [tokens.text(row) for row in numbers.astype(int).tolist()]
