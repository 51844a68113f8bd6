"""Sources of batches: arrays in memory or in files, gathered by epoch and batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_vae.data.mapped import is_mapped, read

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


class Source(NamedTuple):
    """The arrays behind a dataset of `batches`, from which a training loop gathers many batches.

    Attributes:
        tables: the arrays and the seed, as tensors; arrays that are mapped stay in their files.
        gather: function that gathers a batch from the tables, made of TensorFlow ops.
        examples: number of rows of x.
        batch_size: rows of a batch; the last of an epoch may be shorter.
        steps: batches of an epoch.
        epochs: epochs of the dataset.
        shuffle: whether each epoch has its own order.
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
    feature_names: tuple[str, ...] | None = None
    whole: Mapping[str, str] = MappingProxyType({})

    @property
    def resident(self) -> dict[str, tf.Tensor]:
        """The tables in memory."""
        return {name: table for name, table in self.tables.items() if not is_mapped(table)}

    def step_ranges(self, begin: int, steps: int, capacity: int) -> list[StepRange]:
        """Divides the next `steps` batches of an epoch, from batch `begin` on, into chunks.

        A chunk has at most `capacity` batches. A short last batch is a separate chunk.
        """
        stop = min(begin + steps, self.steps)
        short = stop == self.steps and self.steps * self.batch_size > self.examples
        edges = [*range(begin, stop - short, capacity), stop - short, *([stop] if short else [])]
        return [
            StepRange(first, last - first, min(last * self.batch_size, self.examples))
            for first, last in itertools.pairwise(edges)
        ]

    def in_chunks(self, steps: int, capacity: int) -> tf.data.Dataset:
        """Makes a dataset of the positions of chunks, and of their rows of tables in files.

        An element is epoch, first batch, indices of rows, {name: rows of a table in a file}. Files
        are read while earlier chunks are trained on.

        Args:
            steps: number of batches after which the training returns to Python.
            capacity: maximum number of batches in a chunk.
        """
        calls = (self.step_ranges(begin, steps, capacity) for begin in range(0, self.steps, steps))
        chunks = [chunk for call in calls for chunk in call]
        positions = self.positions([c.first for c in chunks], [c.end for c in chunks])
        files = {name: table for name, table in self.tables.items() if is_mapped(table)}

        def of_files(epoch: tf.Tensor, first: tf.Tensor, rows: tf.Tensor) -> Any:
            return epoch, first, rows, {name: _read(table, rows) for name, table in files.items()}

        return positions.map(of_files).prefetch(1)

    def positions(self, firsts: Sequence[int], ends: Sequence[int]) -> tf.data.Dataset:
        """Makes a dataset of epoch, first batch and row indices, for the chunks of every epoch."""
        import tensorflow as tf

        bounds = tf.data.Dataset.from_tensor_slices(
            (np.asarray(firsts, np.int64), np.asarray(ends, np.int64))
        )

        def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.range(self.examples, dtype=tf.int64)
            if self.shuffle:
                key = tf.stack([self.tables["seed"], epoch])
                order = tf.random.experimental.stateless_shuffle(order, key, alg="philox")
            return bounds.map(
                lambda first, end: (epoch, first, order[first * self.batch_size : end])
            )

        return tf.data.Dataset.range(self.epochs.start, self.epochs.stop).flat_map(of_epoch)


@dataclass(frozen=True)
class Gather:
    """Function that gathers and transforms one batch from the tables.

    It compares by value, so equal configurations reuse one graph.

    Attributes:
        rescale: factor on x, or None.
        transform: function of (batch, int32 seed[2]) to batch, or None.
    """

    rescale: float | None
    transform: Callable[[Any, Any], Any] | None

    @property
    def changes_values(self) -> bool:
        """Whether batches hold other numbers than the tables."""
        return self.rescale is not None or self.transform is not None

    def __call__(
        self, tables: dict[str, Any], epoch: tf.Tensor, batch: tf.Tensor, rows: tf.Tensor
    ) -> Any:
        """Returns the batch of an epoch and number; or many along a new first axis.

        Rows that were already read from files are in tables["read"], by the name of the table.
        """
        import tensorflow as tf

        values = tf.cast(_rows(tables, "x", rows), tf.float32)
        if self.rescale is not None:
            values /= 1.0 / self.rescale
        if self.transform is not None:
            parts, transformed = (
                (values, epoch, batch),
                _transformed(self.transform, tables["seed"]),
            )
            if rows.shape.rank == 1:
                values = transformed(parts)
            else:
                first = transformed(tuple(part[0] for part in parts))
                spec = tf.TensorSpec(first.shape, first.dtype)
                values = tf.map_fn(transformed, parts, fn_output_signature=spec)
        inputs = values
        if "condition" in tables:
            given = _rows(tables, "condition", rows)
            given = tf.cast(given, tf.float32) if given.dtype.is_floating else given
            inputs = {"x": values, "condition": given}
        if "weight" in tables:
            return inputs, None, _rows(tables, "weight", rows)
        return inputs


def _transformed(transform: Callable[[Any, Any], Any], seed: Any) -> Callable[[Any], Any]:
    """Makes the transform a function of a batch, its epoch and its number."""
    import tensorflow as tf

    def of_batch(parts: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        values, epoch, batch = parts
        key = tf.cast(tf.stack([tf.cast(seed, tf.int64), epoch]), tf.int32)
        fold_in = tf.random.experimental.stateless_fold_in
        return transform(values, fold_in(key, tf.cast(batch, tf.int32), alg="philox"))

    return of_batch


def _rows(tables: dict[str, Any], name: str, rows: tf.Tensor) -> tf.Tensor:
    """Returns rows of a table: read before, gathered in the graph, or read from a file now."""
    import tensorflow as tf

    if name in tables.get("read", {}):
        return tables["read"][name]
    table = tables[name]
    return tf.gather(table, rows) if tf.is_tensor(table) else _read(table, rows)


def _read(table: np.ndarray, rows: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    dtype = tf.as_dtype(table.dtype.newbyteorder("="))
    values = tf.numpy_function(lambda wanted: read(table, wanted), [rows], dtype)
    values.set_shape([*rows.shape, *table.shape[1:]])
    return values
