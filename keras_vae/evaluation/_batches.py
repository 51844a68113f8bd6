"""Batches of examples within a budget of memory, with a progress bar."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_vae.chunks import rows_in, spec_of

__all__ = ["SEED", "batches", "compiled", "count_of", "rows_in", "spec_of", "take"]

SEED = tf.TensorSpec([2], tf.int32)


def count_of(x: Any) -> int:
    """Number N of examples in x or {"x": ..., "condition": ...}."""
    return len(keras.tree.flatten(x)[0])


def take(x: Any, rows: Any) -> Any:
    """The examples that `rows`, a slice or indices, selects, as tensors."""
    return keras.tree.map_structure(lambda part: tf.convert_to_tensor(part[rows]), x)


def batches(x: Any, size: int, progress: bool) -> Iterator[tuple[int, Any]]:
    """Pairs of the index of the first example and the batch, and a bar that moves past each."""
    count = count_of(x)
    bar = keras.utils.Progbar(count, unit_name="example", verbose=int(progress))
    for start in range(0, count, size):
        yield start, take(x, slice(start, start + size))
        bar.update(min(count, start + size))


def compiled(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
    """The function as one graph, traced once, for tensors of the given specifications."""

    def unpacked(*parts: tf.Tensor) -> Any:
        return function(*tf.nest.pack_sequence_as(specs, parts))

    graph = tf.function(unpacked).get_concrete_function(*tf.nest.flatten(specs))
    return lambda *arguments: graph(*tf.nest.flatten(arguments))
