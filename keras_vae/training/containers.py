"""Containers of batches: PyDatasets that check their batches, and batches of long arrays."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.lazy_rows import LazyRows
from keras_vae.data.mapped import reads_by_rows

__all__ = ["CheckedPyDataset", "in_batches", "is_stream"]


def is_stream(inputs: Any) -> bool:
    """Tells whether the inputs yield batches instead of being arrays."""
    kinds = (
        tf.data.Dataset,
        tf.distribute.DistributedDataset,
        keras.utils.PyDataset,
        Iterator,
    )
    return isinstance(inputs, kinds)


class CheckedPyDataset(keras.utils.PyDataset):
    """A PyDataset whose batches are checked as they are read.

    Args:
        inner: the PyDataset.
        check: function from a batch to the checked batch.
    """

    def __init__(self, inner: keras.utils.PyDataset, check: Callable[[Any], Any]) -> None:
        super().__init__(
            workers=inner.workers,
            use_multiprocessing=inner.use_multiprocessing,
            max_queue_size=inner.max_queue_size,
        )
        self._inner = inner
        self._check = check

    @property
    def num_batches(self) -> int | None:
        """Number of batches."""
        return self._inner.num_batches

    def __getitem__(self, index: int) -> Any:
        return self._check(self._inner[index])

    def on_epoch_begin(self) -> None:
        """Passes the call on."""
        self._inner.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Passes the call on."""
        self._inner.on_epoch_end()


class _Slices(keras.utils.PyDataset):
    """PyDataset of batches of arrays in order, each read and copied only when it is needed."""

    def __init__(self, parts: Any, batch_size: int) -> None:
        super().__init__()
        self._parts = parts
        self._batch_size = batch_size
        self._count = len(keras.tree.flatten(parts)[0])

    @property
    def num_batches(self) -> int:
        return -(-self._count // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        rows = slice(index * self._batch_size, (index + 1) * self._batch_size)
        return keras.tree.map_structure(lambda part: _dense(part[rows]), self._parts)


def in_batches(
    data: tuple[Any, Any, Any], given: int | None, most: int
) -> tuple[tuple[Any, Any, Any], int]:
    """Returns x, y, sample_weight in a form that Keras reads in batches, and the batch size.

    Keras copies an array completely, even a memory-mapped one, before it takes batches of it, and
    reads no sparse ones. So long arrays become a PyDataset, unless they are small and the user asks
    for small batches, which are read faster from memory.

    Args:
        data: arrays, or a stream of batches.
        given: batch size that the user asks for, or None.
        most: maximum number of examples in memory at once.
    """
    x, y, sample_weight = data
    size = given or most
    parts = (x,) if sample_weight is None else (x, y, sample_weight)
    arrays = keras.tree.flatten(parts)
    if is_stream(x) or not (given is None or any(map(reads_by_rows, arrays))):
        return data, size
    if len(arrays[0]) <= size:
        return (keras.tree.map_structure(_dense, x), y, sample_weight), size
    return (_Slices(parts, size), None, None), size


def _dense(part: Any) -> Any:
    return np.asarray(part) if isinstance(part, LazyRows) else part
