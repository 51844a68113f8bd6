"""Batches of examples within a budget of memory."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.evaluation._progress import Progress
from keras_vae.training.chunking import rows_in, spec_of

__all__ = [
    "SEED",
    "batch_seed",
    "batches",
    "compiled",
    "count_of",
    "fused",
    "rows_in",
    "spec_of",
    "take",
]

SEED = tf.TensorSpec([2], tf.int32)

_CALLS_THAT_PAY = 200


def count_of(x: Any) -> int:
    """Returns the number N of examples in x or {"x": ..., "condition": ...}."""
    return len(keras.tree.flatten(x)[0])


def take(x: Any, rows: Any) -> Any:
    """Selects examples by `rows`, a slice or indices, as tensors."""
    return keras.tree.map_structure(lambda part: tf.convert_to_tensor(part[rows]), x)


def batches(x: Any, size: int, progress: Progress | None = None) -> Iterator[tuple[int, Any]]:
    """Yields pairs of the index of the first example and the batch; progress counts examples."""
    count = count_of(x)
    for start in range(0, count, size):
        yield start, take(x, slice(start, start + size))
        if progress is not None:
            progress.add(min(size, count - start))


def batch_seed(seed: int, start: int) -> tf.Tensor:
    """Derives the seed of a batch's draws from the index of its first example, int32 [2].

    It is not the pair (seed, start) itself, from which TFP may have drawn the data or z: an
    evaluator with the same seed as its data must not draw the same noise again.

    Raises:
        TypeError: if `seed` is not an integer.
        ValueError: if it does not fit in 32 bits.
    """
    pair = tf.constant([random.as_seed(seed), start], tf.int32)
    return tf.random.experimental.stateless_fold_in(pair, random.POSTERIOR)


def compiled(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
    """Traces the function once as a graph, for tensors of the given specifications."""

    def unpacked(*parts: tf.Tensor) -> Any:
        return function(*tf.nest.pack_sequence_as(specs, parts))

    graph = tf.function(unpacked, autograph=False).get_concrete_function(*tf.nest.flatten(specs))
    return lambda *arguments: graph(*tf.nest.flatten(arguments))


def fused(vae: Any, function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """Traces a function that a graph calls many times, compiled by XLA where that pays.

    It pays where a network is a loop over the steps of a sequence: hundreds of small operations,
    each of which takes TensorFlow longer to launch than to compute. Compiling takes some seconds.

    Args:
        vae: the model, whose networks the function runs.
        function: function of tensors.
        calls: number of calls.
    """
    loops = any(isinstance(layer, keras.layers.RNN) for layer in vae._flatten_layers())
    compiles = loops and calls >= _CALLS_THAT_PAY
    whole: Callable[..., Any] = tf.function(function, autograph=False, jit_compile=compiles or None)
    return whole
