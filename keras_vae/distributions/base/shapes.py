"""Shapes of conditions: one tensor, or a list or dict of tensors."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

__all__ = ["folded", "shapes_of", "symbolic"]


def folded(inputs: Any, ranks: Sequence[int]) -> tuple[Any, tf.Tensor | None]:
    """Folds all axes in front of the event into one, as networks take their inputs.

    Args:
        inputs: tensor [..., *E], or a structure of such with the same axes in front.
        ranks: number of axes of each event.

    Returns:
        The inputs of shape [n, *E], and the shape of the axes in front; None if it is one already.
    """
    parts = keras.tree.flatten(inputs)
    if parts[0].shape.rank - ranks[0] == 1:
        return inputs, None
    leading = tf.shape(parts[0])[: parts[0].shape.rank - ranks[0]]
    flat = [
        tf.reshape(part, tf.concat([[-1], tf.shape(part)[part.shape.rank - rank :]], 0))
        for part, rank in zip(parts, ranks, strict=True)
    ]
    return keras.tree.pack_sequence_as(inputs, flat), leading


def shapes_of(inputs: Any) -> Any:
    """Returns the shapes of a tensor, or of a list or dict of tensors."""
    if isinstance(inputs, dict):
        return {name: part.shape for name, part in inputs.items()}
    return [part.shape for part in inputs] if isinstance(inputs, list) else inputs.shape


def symbolic(shapes: Any, dtype: str) -> Any:
    """Returns symbolic tensors of a shape, or of a list or dict of shapes, for any batch size."""
    if isinstance(shapes, dict):
        return {name: symbolic(shape, dtype) for name, shape in shapes.items()}
    if len(shapes) > 0 and isinstance(shapes[0], (tuple, list, tf.TensorShape)):
        return [symbolic(shape, dtype) for shape in shapes]
    return keras.KerasTensor((None, *shapes[1:]), dtype=dtype)
