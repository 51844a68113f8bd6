"""Functions of rows and their gradients, computed in chunks to save memory."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["CHUNK", "by_chunks", "rows_in", "spec_of"]

CHUNK = 128 * 2**20
"""Approximate bytes of the activations of a chunk."""

_ALIGNMENT = 64
"""Alignment in bytes that TensorFlow needs to use memory without copying it."""


def rows_in(memory: int, model: Any) -> int:
    """Returns the number of (draw, example) pairs whose activations take about `memory` bytes."""
    shapes = [weight.shape[1:] for weight in model.weights]
    for layer in model._flatten_layers():
        shapes += [y.shape[1:] for node in layer._inbound_nodes for y in node.output_tensors]
    widest = max((math.prod(shape) for shape in shapes if None not in shape), default=1)
    return max(1, memory // (4 * (6 * model.numbers_per_example + 2 * widest)))


def spec_of(x: Any) -> Any:
    """Returns the specification of batches of x, of any size."""
    return keras.tree.map_structure(
        lambda part: tf.TensorSpec([None, *part.shape[1:]], part.dtype), x
    )


def by_chunks(graph: Callable[..., Any], inputs: Any, rows: int) -> Any:
    """Computes a function of all rows by calling it on a few rows at a time.

    The chunks are written into the memory of the result, which a tensor then uses. For a gradient,
    they are computed again, one after the other.

    Args:
        graph: function from tensors [n, ...] to tensors [n, ...], in any structure, each row of
            which depends only on the same row.
        inputs: structure of arrays and tensors [N, ...]; arrays may be memory-mapped.
        rows: number of rows per chunk.

    Returns:
        The structure of `graph`, of tensors [N, ...] in the memory of the CPU.
    """
    parts = keras.tree.flatten(inputs)
    tensors = [part for part in parts if _is_differentiable(part)]
    slices = [slice(start, start + rows) for start in range(0, len(parts[0]), rows)]
    structure = None

    def chunk(rows: slice) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(part[rows]) for part in parts]

    def at(chunk: list[tf.Tensor]) -> Any:
        return graph(keras.tree.pack_sequence_as(inputs, chunk))

    @tf.custom_gradient
    def whole(*_: tf.Tensor) -> Any:
        nonlocal structure
        results: list[np.ndarray] = []
        for rows in slices:
            structure = at(chunk(rows))
            found = keras.tree.flatten(structure)
            results = results or [_aligned((len(parts[0]), *y.shape[1:]), y.dtype) for y in found]
            for result, y in zip(results, found, strict=True):
                result[rows] = y

        def gradient(*upstream: tf.Tensor, variables: Sequence[tf.Variable] = ()) -> Any:
            of_tensors: list[list[tf.Tensor]] = [[] for _ in tensors]
            of_variables = [tf.zeros_like(variable) for variable in variables]
            for rows in slices:
                pieces = chunk(rows)
                watched = [
                    y for y, part in zip(pieces, parts, strict=True) if _is_differentiable(part)
                ]
                with tf.GradientTape() as tape:
                    tape.watch(watched)
                    found = keras.tree.flatten(at(pieces))
                sources = [watched, list(variables)]
                above = [y[rows] for y in upstream]
                of_chunk = tape.gradient(found, sources, above, unconnected_gradients="zero")
                for rows_so_far, more in zip(of_tensors, of_chunk[0], strict=True):
                    rows_so_far.append(more)
                of_variables = [
                    so_far + more for so_far, more in zip(of_variables, of_chunk[1], strict=True)
                ]
            return [tf.concat(rows, axis=0) for rows in of_tensors], of_variables

        return [_tensor(result) for result in results], gradient

    results = whole(*tensors)
    return keras.tree.pack_sequence_as(structure, results)


def _is_differentiable(part: Any) -> bool:
    return tf.is_tensor(part) and part.dtype.is_floating


def _aligned(shape: Sequence[int], dtype: tf.DType) -> np.ndarray:
    """Allocates memory for a tensor."""
    size = math.prod(shape) * dtype.size
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype.as_numpy_dtype).reshape(shape)


def _tensor(array: np.ndarray) -> tf.Tensor:
    """Wraps an array as a tensor in the same memory, which nobody else may write to."""
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
