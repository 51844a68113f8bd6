"""Training loop of `fit`: many steps in one call of a graph that takes its batches from memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.batch_dataset import source_of
from keras_vae.data.lazy_rows import LazyRows
from keras_vae.data.mapped import is_mapped
from keras_vae.data.source import Gather, Source, Tables
from keras_vae.data.stream import epoch_range, source_of_arrays, steps
from keras_vae.devices import Device
from keras_vae.distributions.noise import from_seeds
from keras_vae.distributions.supports import DataError
from keras_vae.training.containers import in_batches
from keras_vae.training.guard import NonFiniteGuard
from keras_vae.training.step import draw_noise, train_on

__all__ = [
    "Loop",
    "acts_within_epochs",
    "array_source",
    "compiles_well",
    "pays_to_compile",
    "placed",
    "shares_a_graph",
    "steps_at_once",
    "stream_source",
    "tables_within",
]

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


_BY_EPOCH = {"log_every_epoch": True, "logging_batch_wise": False}
"""Attributes by which the callbacks of MLflow and of Weights & Biases say that they log epochs."""


class Loop:
    """Keras `train_function` that runs many steps per call.

    The steps are one program. With XLA, it keeps the weights in the loop's memory and fuses
    objective, gradient and optimizer. The short last batch of an epoch is a separate call, of the
    same graph where a graph for each size takes more time to make than it saves.

    Args:
        model: the VAE.
        gather: function that gathers a batch.
        assertions: function from a batch to booleans, by the message for a false one; None if the
            data was checked before.
        jit_compile: whether XLA compiles the steps.
        constant_sizes: whether each size of a batch has a graph of its own. XLA needs that.
        device: the device that trains. On a GPU, tables that fit are kept in its memory, and the
            noise of a call is one draw within its program.
    """

    def __init__(
        self,
        model: Any,
        gather: Gather,
        assertions: Callable[[Any], dict[str, tf.Tensor]] | None,
        jit_compile: bool,
        constant_sizes: bool,
        device: Device,
    ) -> None:
        self._jit_compile = jit_compile
        self._constant_sizes = constant_sizes
        self._device = device
        self._draws_at_once = device.is_gpu and model.float_dtype == "float32"
        self._model = model
        self._gather = gather
        self._assertions = assertions
        self._sentences: list[str] = []
        self._execute = tf.function(self._steps_on_chunk, autograph=False)
        self._execute_in_turn = tf.function(self._steps_in_turn, autograph=False)
        self._train = tf.function(
            self._steps_on_batches, autograph=False, jit_compile=jit_compile or None
        )
        self._last_step = tf.function(self._short_step, autograph=False)

    def does(
        self,
        source: Source,
        assertions: Any,
        jit_compile: bool,
        constant_sizes: bool,
        device: Device,
    ) -> bool:
        """Tells whether the loop trains on such a source, compiled and checked in this way."""
        return (
            self._gather == source.gather
            and (self._assertions is None) == (assertions is None)
            and self._jit_compile == jit_compile
            and self._constant_sizes == constant_sizes
            and self._device == device
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
        held = tables_within(source, self._device)
        self._tables = placed(source, held, self._device)
        return self._pace, source.in_chunks(steps, self._capacity, held)

    def __call__(self, iterator: Any) -> dict[str, tf.Tensor]:
        """Runs the next steps, all within one epoch, and returns the logs after them.

        Raises:
            DataError: if a batch is not valid data of the model.
        """
        source = self._feed
        for chunk in source.step_ranges(self._pace.step, self._per_call, self._capacity):
            rows = chunk.end - chunk.first * source.batch_size
            count = tf.constant(chunk.steps)
            if not self._constant_sizes:
                size = tf.constant(rows // chunk.steps)
                logs, fine = self._execute_in_turn(self._tables, iterator, count, size)
            elif rows == chunk.steps * source.batch_size:
                is_full = self._device.is_gpu and chunk.steps == self._capacity
                logs, fine = self._execute(
                    self._tables,
                    iterator,
                    chunk.steps if is_full else count,
                    source.batch_size,
                    self._capacity,
                )
            else:
                logs, fine = self._last_step(self._tables, iterator, rows)
            self._refuse(fine)
        return logs

    def _steps_in_turn(
        self, tables: Tables, iterator: Any, count: tf.Tensor, batch_size: tf.Tensor
    ) -> Any:
        """Runs the steps of a chunk, each of which gathers its batch and draws its noise."""
        epoch, first, rows, parts = tf.nest.map_structure(
            lambda part: (
                part
                if part.shape.rank == 0
                else tf.reshape(part, [count, batch_size, *part.shape[1:]])
            ),
            iterator.get_next(),
        )
        seeds = self._model.take_seeds(count, count)

        def batch_of(step: Any) -> Any:
            read = {name: part[step] for name, part in parts.items()}
            number = first + tf.cast(step, first.dtype)
            return self._gather(tables._replace(read=read), epoch, number, rows[step])

        def train(step: tf.Tensor, fine: tf.Tensor) -> Any:
            batch = batch_of(step)
            train_on(self._model, batch, draw_noise(self._model, seeds[step], batch_size))
            return step + 1, tf.logical_and(fine, self._checks(batch))

        return self._repeated(train, count, batch_of(0))

    def _repeated(
        self, train: Callable[[tf.Tensor, tf.Tensor], Any], count: int | tf.Tensor, batch: Any
    ) -> Any:
        """Trains `count` steps; returns the logs, and which checks of a batch passed in all."""
        fine = tf.ones_like(self._checks(batch))
        _, fine = tf.while_loop(lambda step, _: step < count, train, [tf.constant(0), fine])
        return self._model.get_metrics_result(), fine

    def _steps_on_chunk(
        self,
        tables: Tables,
        iterator: Any,
        count: int | tf.Tensor,
        batch_size: int,
        capacity: int,
    ) -> Any:
        """Runs the steps of a chunk, whose batches are gathered and whose noise is drawn before.

        Batches of zeros at the end keep the shapes constant for XLA. A static count spares a GPU
        the question after each step whether it was the last.
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
        noise = seeds if self._draws_at_once else self._step_by_step(seeds, batch_size)
        return self._train(batches, noise, count, batch_size)

    def _step_by_step(self, seeds: tf.Tensor, batch_size: int) -> Any:
        """Draws the noise of each step, by TensorFlow's kernels, which on a CPU are fast."""
        dtypes = tf.nest.map_structure(
            lambda _: self._model.float_dtype, self._model.objective.noise(self._model)
        )
        return tf.map_fn(
            lambda seed: draw_noise(self._model, seed, batch_size),
            seeds,
            fn_output_signature=dtypes,
        )

    def _steps_on_batches(
        self, batches: Any, noise: Any, count: int | tf.Tensor, batch_size: int
    ) -> Any:
        """Runs the steps, on batches and their noise, or the seeds of it."""
        if self._draws_at_once:
            objective = self._model.objective
            leading = [objective.num_samples, batch_size]
            noise = from_seeds(objective.noise(self._model), noise, leading)

        def at(step: Any, parts: Any) -> Any:
            return tf.nest.map_structure(lambda part: None if part is None else part[step], parts)

        def train(step: tf.Tensor, fine: tf.Tensor) -> Any:
            batch = at(step, batches)
            train_on(self._model, batch, at(step, noise))
            return step + 1, tf.logical_and(fine, self._checks(batch))

        return self._repeated(train, count, at(0, batches))

    def _short_step(self, tables: Tables, iterator: Any, size: int) -> Any:
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


def array_source(
    x: Any, weights: np.ndarray | None, options: dict[str, Any], order: Callable[[int], int]
) -> tuple[Source | None, dict[str, Any]]:
    """Makes the source of checked arrays, and the options of `fit` that go with it.

    `order` maps the number of steps before the initial epoch to the seed of the shuffling.

    The source is None if a part is no array, or the options need more than a source can do: a
    different number of steps per epoch, a `shuffle` that is not a boolean, or float64.
    """
    arrays = list(x.values()) if isinstance(x, dict) else [x]
    if (
        not all(isinstance(array, np.ndarray | LazyRows) for array in arrays)
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
    first = options.get("initial_epoch", 0)
    passed = first * steps(kept, batch_size)
    source = source_of_arrays(
        x,
        batch_size,
        epoch_range(first, max(options.get("epochs", 1), first + 1)),
        seed=order(passed) if shuffle else 0,
        shuffle=shuffle,
        sample_weight=weights,
    )
    options["steps_per_epoch"] = steps(kept, batch_size)
    return source, options


def steps_at_once(source: Source, noise: int, device: Device) -> int:
    """Returns the number of steps per call of the graph.

    On a CPU, it makes the calls of an epoch equally long. On a GPU, it also divides the full
    batches of an epoch if a number not much smaller does, so that one program runs all of them.

    Args:
        source: source of the batches in memory during a call.
        noise: noise numbers per example, which are also in memory.
        device: the device that trains.
    """
    numbers = noise + source.numbers_per_example
    most = device.call_bytes // (4 * numbers * source.batch_size)
    most = max(1, min(device.steps_per_call, most))
    calls = -(-source.steps // most)
    even = -(-source.steps // calls)
    full = source.examples // source.batch_size
    if device.is_gpu:
        divisors = (size for size in range(min(most, full), even // 2, -1) if full % size == 0)
        return next(divisors, even)
    return even


def tables_within(source: Source, device: Device) -> frozenset[str]:
    """Returns the names of the tables from which the loop's graph gathers batches.

    The rows of the others are read while earlier chunks are trained on, and on a GPU moved to its
    memory once a call. On a CPU these are tables in files and large arrays. On a GPU, the smallest
    tables that are not in files are held as float32 in its memory while all of them take at most a
    quarter of it; there is no kernel that gathers narrow integers there.
    """
    held = {name: table for name, table in source.tables.items() if not is_mapped(table)}
    if device.is_gpu:
        sizes = {
            name: 4 * source.examples * math.prod(table.shape[1:])
            for name, table in held.items()
            if name != "condition" or tf.as_dtype(table.dtype).is_floating
        }
        names, total = [], 0
        for name in sorted(sizes, key=sizes.__getitem__):
            total += sizes[name]
            if total <= device.table_bytes:
                names.append(name)
        return frozenset(names)
    return frozenset(name for name, table in held.items() if tf.is_tensor(table))


def placed(source: Source, names: frozenset[str], device: Device) -> Tables:
    """Returns the tables of these names, in the memory of the device."""
    tables = source.all_tables
    held = {name: table for name, table in tables.parts.items() if name in names}
    if not device.is_gpu:
        return tables._replace(parts=held)
    with tf.device(device.name):
        moved = {name: tf.identity(tf.cast(table, tf.float32)) for name, table in held.items()}
        weight = None if tables.weight is None else tf.identity(tables.weight)
    return tables._replace(parts=moved, weight=weight)


def acts_within_epochs(callback: keras.callbacks.Callback) -> bool:
    """Tells whether a callback acts between the steps of an epoch.

    The guard only reads running means, which stay non-finite after a non-finite term.
    """
    if isinstance(callback, NonFiniteGuard) or getattr(callback, "save_freq", None) == "epoch":
        return False
    silent: type = keras.callbacks.Callback
    if isinstance(callback, keras.callbacks.TensorBoard) and _logs_by_epoch(callback):
        silent = keras.callbacks.TensorBoard
    elif any(getattr(callback, name, None) is value for name, value in _BY_EPOCH.items()):
        silent = type(callback)
    return any(
        getattr(getattr(callback, name), "__func__", None) is not getattr(silent, name)
        for name in _WITHIN_EPOCHS
    )


def _logs_by_epoch(callback: keras.callbacks.TensorBoard) -> bool:
    """Tells whether TensorBoard only counts the batches of an epoch."""
    acts = callback.update_freq != "epoch" or callback.write_steps_per_second
    return not acts and callback._start_batch <= 0


def pays_to_compile(model: keras.Model, source: Source, epochs: int, device: Device) -> bool:
    """Tells whether XLA saves more time than its compilation takes."""
    return source.steps * epochs >= device.steps_that_pay and compiles_well(model, device)


def shares_a_graph(source: Source, epochs: int, device: Device) -> bool:
    """Tells whether one graph for batches of all sizes saves more time than its steps take.

    A step takes up to a third longer in it, since TensorFlow must find out which shapes are equal.
    """
    has_two_sizes = source.steps > 1 and source.ends_short
    return has_two_sizes and not device.is_gpu and source.steps * epochs < device.steps_that_pay


def compiles_well(model: keras.Model, device: Device) -> bool:
    """Tells whether XLA supports all layers of the model, and none of them is slow in it."""
    slow = () if device.compiles_convolutions else _CONVOLUTIONS
    return all(
        layer.supports_jit and not isinstance(layer, slow) for layer in model._flatten_layers()
    )
