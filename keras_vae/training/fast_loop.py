"""Training loop of `fit`: many steps in one call of a graph that takes its batches from memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.batch_dataset import source_of
from keras_vae.data.source import Gather, Source
from keras_vae.data.sparse_rows import SparseRows
from keras_vae.data.stream import batches, steps
from keras_vae.distributions.supports import DataError
from keras_vae.training.containers import in_batches
from keras_vae.training.guard import NonFiniteGuard
from keras_vae.training.step import draw_noise, train_on

__all__ = [
    "Loop",
    "acts_within_epochs",
    "array_stream",
    "compiles_well",
    "pays_to_compile",
    "steps_at_once",
    "stream_source",
]

_MOST_STEPS = 100
_MOST_BYTES = 32 * 2**20
"""Maximum bytes of batches and noise in memory for one call of the graph."""

_STEPS_THAT_PAY = 1000

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)

_WITHIN_EPOCHS = (
    "on_batch_begin",
    "on_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
)


class Loop:
    """Keras `train_function` that runs many steps per call.

    The steps are one program. With XLA, it keeps the weights in the loop's memory and fuses
    objective, gradient and optimizer. The short last batch of an epoch is a separate call.

    Args:
        model: the VAE.
        gather: function that gathers a batch.
        assertions: function from a batch to booleans, by the message for a false one; None if the
            data was checked before.
        jit_compile: whether XLA compiles the steps.
    """

    def __init__(
        self,
        model: Any,
        gather: Gather,
        assertions: Callable[[Any], dict[str, tf.Tensor]] | None,
        jit_compile: bool,
    ) -> None:
        self._jit_compile = jit_compile
        self._model = model
        self._gather = gather
        self._assertions = assertions
        self._sentences: list[str] = []
        self._execute = tf.function(self._steps_on_chunk, autograph=False)
        self._train = tf.function(
            self._steps_on_batches, autograph=False, jit_compile=jit_compile or None
        )
        self._last_step = tf.function(self._short_step, autograph=False)

    def does(self, source: Source, assertions: Any, jit_compile: bool) -> bool:
        """Tells whether the loop trains on such a source, compiled and checked in this way."""
        return (
            self._gather == source.gather
            and (self._assertions is None) == (assertions is None)
            and self._jit_compile == jit_compile
        )

    def prepare(
        self, source: Source, steps: int, capacity: int, validation: int
    ) -> tuple[keras.callbacks.Callback, tf.data.Dataset]:
        """Prepares a source; returns a callback that keeps the loop within epochs, and the chunks.

        Args:
            source: source of the batches.
            steps: number of steps between calls of callbacks.
            capacity: maximum number of steps in one call of the graph.
            validation: number of steps in one call of the validation.
        """
        self._feed, self._per_call, self._capacity = source, steps, min(steps, capacity)
        self._pace = _Pace(validation)
        return self._pace, source.in_chunks(steps, self._capacity)

    def __call__(self, iterator: Any) -> dict[str, tf.Tensor]:
        """Runs the next steps, all within one epoch, and returns the logs after them.

        Raises:
            DataError: if a batch is not valid data of the model.
        """
        source = self._feed
        for chunk in source.step_ranges(self._pace.step, self._per_call, self._capacity):
            rest = chunk.end - chunk.first * source.batch_size
            if rest == chunk.steps * source.batch_size:
                logs, fine = self._execute(
                    source.resident,
                    iterator,
                    tf.constant(chunk.steps),
                    source.batch_size,
                    self._capacity,
                )
            else:
                logs, fine = self._last_step(source.resident, iterator, rest)
            self._refuse(fine)
        return logs

    def _steps_on_chunk(
        self, tables: Any, iterator: Any, count: tf.Tensor, batch_size: int, capacity: int
    ) -> Any:
        """Runs the steps of a chunk, whose batches and noise TensorFlow gathers and draws at once.

        TensorFlow's kernels draw several times faster than XLA. Batches of zeros at the end keep
        the shapes constant for XLA.
        """
        epoch, first, rows, parts = iterator.get_next()
        missing = capacity * batch_size - tf.size(rows)

        def by_batch(part: tf.Tensor) -> tf.Tensor:
            padding = [[0, missing], *([[0, 0]] * (part.shape.rank - 1))]
            part = tf.pad(part, padding)
            return tf.reshape(part, [capacity, batch_size, *part.shape[1:]])

        read = tf.nest.map_structure(by_batch, parts)
        batches = self._gather(
            tables._replace(read=read),
            tf.fill([capacity], epoch),
            first + tf.range(capacity, dtype=first.dtype),
            by_batch(rows),
        )
        seeds = self._model.take_seeds(count, capacity)
        dtypes = tf.nest.map_structure(
            lambda _: self._model.float_dtype, self._model.objective.noise(self._model)
        )
        noise = tf.map_fn(
            lambda seed: draw_noise(self._model, seed, batch_size),
            seeds,
            fn_output_signature=dtypes,
        )
        return self._train(batches, noise, count)

    def _steps_on_batches(self, batches: Any, noise: Any, count: tf.Tensor) -> Any:
        def at(step: Any, parts: Any) -> Any:
            return tf.nest.map_structure(lambda part: None if part is None else part[step], parts)

        def train(step: tf.Tensor, fine: tf.Tensor) -> Any:
            batch = at(step, batches)
            train_on(self._model, batch, at(step, noise))
            return step + 1, tf.logical_and(fine, self._checks(batch))

        fine = tf.ones_like(self._checks(at(0, batches)))
        _, fine = tf.while_loop(lambda step, _: step < count, train, [tf.constant(0), fine])
        return self._model.get_metrics_result(), fine

    def _short_step(self, tables: Any, iterator: Any, size: int) -> Any:
        epoch, first, rows, parts = iterator.get_next()
        rows, parts = tf.nest.map_structure(
            lambda part: tf.ensure_shape(part, [size, *part.shape[1:]]), (rows, parts)
        )
        batch = self._gather(tables._replace(read=parts), epoch, first, rows)
        logs = self._model.train_step(batch)
        return logs, self._checks(batch)

    def _checks(self, batch: Any) -> tf.Tensor:
        """Checks that the batch is valid data of the model; returns booleans by message."""
        if self._assertions is None:
            return tf.ones([0], tf.bool)
        found = self._assertions(keras.utils.unpack_x_y_sample_weight(batch)[0])
        self._sentences = list(found)
        return tf.stack(list(found.values()))

    def _refuse(self, fine: tf.Tensor) -> None:
        for sentence, holds in zip(self._sentences, fine.numpy(), strict=False):
            if not holds:
                raise DataError(sentence)


class _Pace(keras.callbacks.Callback):
    """Callback that tracks the step within the epoch; a loop must not run into the next epoch.

    Keras reads `steps_per_execution` when it makes the iterator of the training data, and again for
    the validation data, whose steps are compiled for a fixed number, which is restored by then.
    """

    def __init__(self, validation: int) -> None:
        super().__init__()
        self.step = 0
        self._validation = validation

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the validation its own number of steps."""
        self.model.steps_per_execution = self._validation

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Remembers the number of the next step."""
        self.step = batch


def stream_source(x: Any, options: dict[str, Any]) -> Source | None:
    """Returns the source of a dataset of `batches` that `fit` goes through epoch by epoch."""
    source = source_of(x)
    if source is None:
        return None
    given, total = options.get("steps_per_epoch"), len(source.epochs) * source.steps
    return source if source.steps == (total if given is None else given) else None


def array_stream(
    x: Any, weights: np.ndarray | None, options: dict[str, Any], order: Callable[[int], int]
) -> tuple[tf.data.Dataset | None, dict[str, Any]]:
    """Makes the stream of checked arrays, and the options of `fit` that go with it.

    `order` maps the number of steps before the initial epoch to the seed of the shuffling.

    The stream is None if a part is no array, or the options need more than a stream can do: a
    different number of steps per epoch, a `shuffle` that is not a boolean, or float64.
    """
    arrays = list(x.values()) if isinstance(x, dict) else [x]
    if (
        not all(isinstance(array, np.ndarray | SparseRows) for array in arrays)
        or options.get("steps_per_epoch") is not None
        or not isinstance(options.get("shuffle", True), bool)
        or keras.config.floatx() != "float32"
    ):
        return None, options
    count, held = len(arrays[0]), options.get("validation_split") or 0.0
    kept = count if options.get("validation_data") is not None else int(count * (1.0 - held))
    if not 0 < kept <= count:
        return None, options
    options = {**options}
    batch_size = options.pop("batch_size", None) or 32
    options.setdefault("validation_batch_size", batch_size)
    options.pop("validation_split", None)
    if kept < count:
        later = keras.tree.map_structure(lambda array: array[kept:], x)
        later_weights = None if weights is None else weights[kept:]
        targets = None if weights is None else np.zeros_like(later_weights)
        size = options["validation_batch_size"]
        held_out, _ = in_batches((later, targets, later_weights), size, size)
        options["validation_data"] = held_out[0] if held_out[2] is None else held_out
        weights = None if weights is None else weights[:kept]
        x = keras.tree.map_structure(lambda array: array[:kept], x)
    shuffle = options.pop("shuffle", True)
    options["shuffle"] = (
        False  # the stream is shuffled, and Keras would warn that it cannot shuffle it
    )
    passed = options.get("initial_epoch", 0) * steps(kept, batch_size)
    stream = batches(
        x,
        batch_size,
        epochs=max(options.get("epochs", 1), options.get("initial_epoch", 0) + 1),
        initial_epoch=options.get("initial_epoch", 0),
        seed=order(passed) if shuffle else 0,
        shuffle=shuffle,
        sample_weight=weights,
    )
    options["steps_per_epoch"] = steps(kept, batch_size)
    return stream, options


def steps_at_once(source: Source, noise: int) -> int:
    """Returns the steps per call that make an epoch's calls equally long, at most 100.

    Args:
        source: source of the batches in memory during a call.
        noise: noise numbers per example, which are also in memory.
    """
    numbers = noise + source.numbers_per_example
    most = max(1, min(_MOST_STEPS, _MOST_BYTES // (4 * numbers * source.batch_size)))
    calls = -(-source.steps // most)
    return -(-source.steps // calls)


def acts_within_epochs(callback: keras.callbacks.Callback) -> bool:
    """Tells whether a callback acts between the steps of an epoch.

    The guard only reads running means, which stay non-finite after a non-finite term.
    """
    if isinstance(callback, NonFiniteGuard) or getattr(callback, "save_freq", None) == "epoch":
        return False
    return any(
        getattr(getattr(callback, name), "__func__", None)
        is not getattr(keras.callbacks.Callback, name)
        for name in _WITHIN_EPOCHS
    )


def pays_to_compile(model: keras.Model, source: Source, epochs: int) -> bool:
    """Tells whether XLA saves more time than its compilation takes: a thousand steps."""
    return source.steps * epochs >= _STEPS_THAT_PAY and compiles_well(model)


def compiles_well(model: keras.Model) -> bool:
    """Tells whether XLA supports all layers of the model, and none of them is slow in it.

    On a CPU, it computes convolutions many times slower than TensorFlow's own kernels.
    """
    return all(
        layer.supports_jit and not isinstance(layer, _CONVOLUTIONS)
        for layer in model._flatten_layers()
    )
