"""Validation within `fit`: its draws, and its batches of arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_vae.training.chunking import spec_of

__all__ = ["ValidationBatches", "ValidationDraws"]

_APART = 2**31
"""Steps between the draws of a training and those of its validation."""


class ValidationDraws(keras.callbacks.Callback):
    """Callback that gives validation draws of its own: training is the same with and without it.

    Args:
        generator: whose state the steps of training and of validation advance.
    """

    def __init__(self, generator: keras.random.SeedGenerator) -> None:
        super().__init__()
        self._state = generator.state

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Goes far ahead of the training."""
        self._before = keras.ops.convert_to_numpy(self._state)
        self._state.assign(self._before + np.array([0, _APART]))

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Goes back to where the training is."""
        self._state.assign(self._before)


class ValidationBatches(keras.callbacks.Callback):
    """Callback that hands batches of arrays to the `evaluate` that Keras calls in each epoch.

    Keras itself makes two iterators of a `tf.data.Dataset` in each, which take as long as the
    evaluation of many thousand examples, and holds a copy of the arrays.

    Args:
        data: x, or (x, y, sample_weight), of arrays [N, ...].
        batch_size: number of examples in a batch; the last one may have fewer.
        graph_of: function from the specification of a batch to the graph that evaluates one.
    """

    def __init__(
        self, data: Any, batch_size: int, graph_of: Callable[[Any], Callable[[Any], Any]]
    ) -> None:
        super().__init__()
        self._data = keras.tree.map_structure(_as_floatx, data)
        self._batch_size = batch_size
        self._count = len(keras.tree.flatten(data)[0])
        self._evaluate = graph_of(spec_of(self._data))

    @property
    def num_batches(self) -> int:
        """Number of batches."""
        return -(-self._count // self._batch_size)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the place of the iterator that Keras would make at the first evaluation."""
        self.model._eval_epoch_iterator = self

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Lets the model evaluate batches instead of what an iterator yields."""
        self._of_iterators, self.model.test_function = self.model.test_function, self._evaluate

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the function back: another callback may call `evaluate`."""
        self.model.test_function = self._of_iterators

    def reset(self) -> None:
        """Does nothing: every iteration begins with the first batch."""

    def catch_stop_iteration(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context without effect: arrays do not end too early."""
        return contextlib.nullcontext()

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        for step, first in enumerate(range(0, self._count, self._batch_size)):
            yield step, step, self._rows(slice(first, first + self._batch_size))

    def _rows(self, rows: slice) -> Any:
        return keras.tree.map_structure(lambda part: part[rows], self._data)


def _as_floatx(part: np.ndarray) -> np.ndarray:
    """Returns floating-point numbers in Keras' precision, and others as they are."""
    floatx = keras.config.floatx()
    return part.astype(floatx, copy=False) if part.dtype.kind == "f" else part
