"""Sources of batches: arrays in memory or in files, gathered by epoch and batch."""

from __future__ import annotations

import itertools
import math
import weakref
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_vae.data.mapped import read

if TYPE_CHECKING:
    import tensorflow as tf


class StepRange(NamedTuple):
    """Consecutive batches that are gathered at once: a chunk of an epoch.

    Attributes:
        first: number of the first batch.
        steps: number of batches.
        end: end of their rows in the order of the epoch.
    """

    first: int
    steps: int
    end: int


class Tables(NamedTuple):
    """Tables that the batches of a source are gathered from.

    Attributes:
        parts: tables by the name of the part, tensors [N, ...] or arrays that are read by rows.
        seed: seed of order and transforms, int64.
        weight: weight of each example, float32 [N], or None.
        read: rows of a batch that were already taken from their table, by the name of the part.
    """

    parts: dict[str, Any]
    seed: Any
    weight: Any
    read: dict[str, Any]

    def rows(self, name: str, rows: tf.Tensor) -> tf.Tensor:
        """Returns rows of a part, of any number of axes."""
        return self.read[name] if name in self.read else rows_of(self.parts[name], rows)


class Source(NamedTuple):
    """The arrays behind a dataset of `batches`, from which a training loop gathers many batches.

    Attributes:
        tables: the parts of an example by name, "x" if it is alone: tensors, or arrays that are
            read by rows, because they are in files or too large to copy.
        gather: function that gathers a batch from the tables, made of TensorFlow ops.
        examples: number of rows of each table.
        batch_size: rows of a batch; the last of an epoch may be shorter.
        steps: batches of an epoch.
        epochs: epochs of the dataset.
        shuffle: whether each epoch has its own order.
        seed: seed of order and transforms, int64.
        weight: weight of each example, float32 [N], or None.
        feature_names: names of the columns of x, or None.
        whole: dtypes of the boolean and integer columns of x, by name, if it was a data frame.
    """

    tables: dict[str, Any]
    gather: Gather
    examples: int
    batch_size: int
    steps: int
    epochs: range
    shuffle: bool
    seed: Any
    weight: Any = None
    feature_names: tuple[str, ...] | None = None
    whole: Mapping[str, str] = MappingProxyType({})

    @property
    def all_tables(self) -> Tables:
        """The tables, tensors and arrays."""
        return Tables(self.tables, self.seed, self.weight, {})

    @property
    def ends_short(self) -> bool:
        """Whether the last batch of an epoch is shorter than the others."""
        return self.steps * self.batch_size > self.examples

    @property
    def numbers_per_example(self) -> int:
        """Numbers in all parts of an example."""
        return sum(math.prod(table.shape[1:]) for table in self.tables.values())

    def step_ranges(self, begin: int, steps: int, capacity: int) -> list[StepRange]:
        """Divides the next `steps` batches of an epoch, from batch `begin` on, into chunks.

        A chunk has at most `capacity` batches. A short last batch is a separate chunk.
        """
        stop = min(begin + steps, self.steps)
        short = stop == self.steps and self.ends_short
        edges = [*range(begin, stop - short, capacity), stop - short, *([stop] if short else [])]
        return [
            StepRange(first, last - first, min(last * self.batch_size, self.examples))
            for first, last in itertools.pairwise(edges)
        ]

    def in_chunks(self, steps: int, capacity: int, within: Collection[str]) -> tf.data.Dataset:
        """Makes a dataset of the positions of chunks, and of their rows of some tables.

        An element is epoch, first batch, indices of rows, {name: rows of a table}. They are read
        while earlier chunks are trained on.

        Args:
            steps: number of batches after which the training returns to Python.
            capacity: maximum number of batches in a chunk.
            within: names of the tables that the training gathers from itself.
        """
        import tensorflow as tf

        calls = (self.step_ranges(begin, steps, capacity) for begin in range(0, self.steps, steps))
        chunks = [chunk for call in calls for chunk in call]
        positions = self.positions([c.first for c in chunks], [c.end for c in chunks])
        read = {name: table for name, table in self.tables.items() if name not in within}

        def with_rows(epoch: tf.Tensor, first: tf.Tensor, rows: tf.Tensor) -> Any:
            return epoch, first, rows, {name: rows_of(table, rows) for name, table in read.items()}

        options = tf.data.Options()
        # There is nothing to tune, and an iterator waits for the thread that tunes, when it ends:
        # for seconds after a long training. Nor is there anything to rewrite in so small a program.
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False
        return positions.map(_as_it_is(with_rows)).prefetch(1).with_options(options)

    def in_batches(self) -> tf.data.Dataset:
        """Makes the dataset of the batches, one after another, of every epoch."""
        import tensorflow as tf

        tables = self.all_tables
        fixed_size = None if self.ends_short else self.batch_size

        def element(epoch: tf.Tensor, batch: tf.Tensor, rows: tf.Tensor) -> Any:
            rows.set_shape([fixed_size])
            return self.gather(tables, epoch, batch, rows)

        ends = np.minimum(np.arange(1, self.steps + 1) * self.batch_size, self.examples)
        positions = self.positions(range(self.steps), ends.tolist())
        function = element if self.gather.calls_foreign_code else _as_it_is(element)
        found = positions.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        count = tf.data.experimental.assert_cardinality(len(self.epochs) * self.steps)
        return found.apply(count).prefetch(tf.data.AUTOTUNE)

    def positions(self, firsts: Sequence[int], ends: Sequence[int]) -> tf.data.Dataset:
        """Makes a dataset of epoch, first batch and row indices, for the chunks of every epoch."""
        import tensorflow as tf

        bounds = tf.data.Dataset.from_tensor_slices(
            (np.asarray(firsts, np.int64), np.asarray(ends, np.int64))
        )

        places = tf.int32 if self.examples < 2**31 else tf.int64

        def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.range(self.examples, dtype=places)
            if self.shuffle:
                key = tf.stack([self.seed, epoch])
                order = tf.random.experimental.stateless_shuffle(order, key, alg="philox")

            def rows(first: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, ...]:
                return epoch, first, tf.cast(order[first * self.batch_size : end], tf.int64)

            return bounds.map(_as_it_is(rows))

        epochs = tf.data.Dataset.range(self.epochs.start, self.epochs.stop)
        return epochs.flat_map(_as_it_is(of_epoch))


@dataclass(frozen=True)
class Change:
    """Preprocessing of the batches of one part.

    Attributes:
        rescale: factor, or None.
        transform: function of (batch, int32 seed[2]) to batch, or None.
    """

    rescale: float | None = None
    transform: Callable[[Any, Any], Any] | None = None


@dataclass(frozen=True)
class Gather:
    """Function that gathers and transforms one batch from the tables.

    It compares by value, so equal configurations reuse one graph.

    Attributes:
        alone: whether a batch is x itself, and not a dict of parts.
        changes: preprocessing by the name of the part, for parts that have some.
    """

    alone: bool
    changes: Mapping[str, Change]

    @property
    def changes_values(self) -> bool:
        """Whether batches hold other numbers than the tables."""
        return bool(self.changes)

    @property
    def calls_foreign_code(self) -> bool:
        """Whether a transform is not of this package, and may have Python branches."""
        transforms = [change.transform for change in self.changes.values() if change.transform]
        return not all(_is_of_this_package(transform) for transform in transforms)

    def __call__(self, tables: Tables, epoch: tf.Tensor, batch: tf.Tensor, rows: tf.Tensor) -> Any:
        """Returns the batch of an epoch and number; or many along a new first axis.

        Every part becomes float32, except that a condition of integers stays as it is.
        """
        import tensorflow as tf

        parts = {}
        for name in tables.parts | tables.read:
            values = tables.rows(name, rows)
            if name != "condition" or values.dtype.is_floating:
                values = tf.cast(values, tf.float32)
            if name in self.changes:
                values = _changed(self.changes[name], name, values, tables.seed, epoch, batch)
            parts[name] = values
        inputs = parts["x"] if self.alone else parts
        if tables.weight is not None:
            return inputs, None, tf.gather(tables.weight, rows)
        return inputs


def _changed(
    change: Change, name: str, values: tf.Tensor, seed: Any, epoch: tf.Tensor, batch: tf.Tensor
) -> tf.Tensor:
    """Preprocesses one batch of a part, or many along the first axis."""
    import tensorflow as tf

    if change.rescale is not None:
        values /= 1.0 / change.rescale
    if change.transform is None:
        return values
    parts, transformed = (values, epoch, batch), _transformed(change.transform, name, seed)
    if batch.shape.rank == 0:
        return transformed(parts)
    first = transformed(tuple(part[0] for part in parts))
    spec = tf.TensorSpec(first.shape, first.dtype)
    return tf.map_fn(transformed, parts, fn_output_signature=spec)


def _transformed(
    transform: Callable[[Any, Any], Any], name: str, seed: Any
) -> Callable[[Any], Any]:
    """Makes the transform a function of a batch, its epoch and its number.

    The seed of every other part than x is derived from that of x and the name, so no two parts
    share their noise.
    """
    import tensorflow as tf

    def of_batch(parts: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        values, epoch, batch = parts
        key = tf.cast(tf.stack([tf.cast(seed, tf.int64), epoch]), tf.int32)
        fold_in = tf.random.experimental.stateless_fold_in
        key = fold_in(key, tf.cast(batch, tf.int32), alg="philox")
        if name != "x":
            key = fold_in(key, zlib.crc32(name.encode()) >> 1, alg="philox")
        return transform(values, key)

    return of_batch


def _is_of_this_package(function: Any) -> bool:
    """Tells whether a function, or the class of a callable object, is defined in this package."""
    function = getattr(function, "func", function)
    named = function if hasattr(function, "__qualname__") else type(function)
    return bool(named.__module__.partition(".")[0] == __name__.partition(".")[0])


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    """Spares `tf.data` the conversion of a function without Python branches by AutoGraph."""
    import tensorflow as tf

    plain: Callable[..., Any] = tf.autograph.experimental.do_not_convert(function)
    return plain


def rows_of(table: Any, rows: tf.Tensor) -> tf.Tensor:
    """Returns rows of a table: gathered in the graph, or read by NumPy as the graph runs.

    TensorFlow keeps the functions that a graph calls until the process ends, so this one holds the
    table by a weak reference. Whoever makes the graph holds the table: a dataset and its iterators
    hold the function that they map.
    """
    import tensorflow as tf

    if tf.is_tensor(table):
        return tf.gather(table, rows)
    dtype = tf.as_dtype(table.dtype.newbyteorder("="))
    held: Callable[[], Any] = weakref.ref(table)
    values = tf.numpy_function(lambda wanted: read(held(), wanted), [rows], dtype)
    values.set_shape([*rows.shape, *table.shape[1:]])
    return values
