"""Replicas: how a batch is shared among devices and machines, with the numbers of one device.

Keras trains as on one device: it iterates over whole batches and calls the steps of the model. A
step then runs on every replica with its share of the rows; what the replicas found is added up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

__all__ = [
    "OneDevice",
    "Share",
    "WorkerError",
    "agree",
    "is_chief",
    "leave_summing",
    "on_each",
    "steps_in_turn",
    "summed",
    "worker_errors",
    "workers",
]


class Share(NamedTuple):
    """Rows of a batch that a replica works on.

    Where the replicas do not divide the batch, as it may be with the last one of an epoch, each
    works on all of it and counts as a part of one.

    Attributes:
        start: first row.
        size: number of rows.
        total: rows of the whole batch.
        weight: what a row counts.
    """

    start: Any
    size: Any
    total: Any
    weight: Any

    @property
    def is_whole(self) -> bool:
        """Whether it is known to be the whole batch."""
        return self.size is self.total

    def of(self, part: tf.Tensor, axis: int = 0) -> tf.Tensor:
        """The share of a tensor that has the batch along axis 0 or 1."""
        if self.is_whole:
            return part
        rows = slice(self.start, self.start + self.size)
        return part[rows] if axis == 0 else part[:, rows]

    @classmethod
    def whole(cls, total: Any) -> Share:
        """The share of the only replica."""
        return cls(0, total, total, 1.0)

    @classmethod
    def of_this_replica(cls, total: Any) -> Share:
        """The share of the replica that calls."""
        context = tf.distribute.get_replica_context()
        index, count = context.replica_id_in_sync_group, context.num_replicas_in_sync
        if isinstance(total, int):
            if total % count:
                return cls(0, total, total, 1.0 / count)
            return cls(index * (total // count), total // count, total, 1.0)
        even = tf.equal(total % count, 0)
        size = tf.where(even, total // count, total)
        start = tf.where(even, tf.cast(index, size.dtype) * size, 0)
        return cls(start, size, total, tf.where(even, 1.0, 1.0 / count))


class WorkerError(RuntimeError):
    """Another process of a training on several machines has stopped."""


class OneDevice:
    """What Keras is given as its strategy: batches and functions pass through as they are."""

    def experimental_distribute_dataset(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The dataset."""
        return dataset

    def run(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        """What the function returns."""
        return function(*args)


def on_each(
    strategy: tf.distribute.Strategy | None, total: Any, function: Callable[[Share], None]
) -> None:
    """Calls a function on each replica with its share of a batch.

    Args:
        strategy: whose replicas they are; None for one device.
        total: rows of the batch.
        function: of the share.
    """
    if strategy is None:
        function(Share.whole(total))
    else:
        strategy.run(lambda: function(Share.of_this_replica(total)))


def summed(tensors: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Sums over replicas, each of whom calls this; None stays None."""
    found = [part for part in tensors if part is not None]
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1 and found:
        found = context.all_reduce(tf.distribute.ReduceOp.SUM, found)
    rest = iter(found)
    return [None if part is None else next(rest) for part in tensors]


def steps_in_turn(model: Any, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Function of an iterator to the logs after the next steps, as Keras calls it.

    Its own puts several of them into branches of one graph, where replicas cannot run.
    """
    graph = tf.function(step, autograph=False, reduce_retracing=True)

    def none_of(part: Any) -> Any:
        return None if isinstance(part, tf.experimental.Optional) else part

    def function(iterator: Any) -> Any:
        logs = None
        for _ in range(model.steps_per_execution):
            try:
                batch = next(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                if logs is None:
                    raise
                break
            logs = graph(tf.nest.map_structure(none_of, batch))
        return logs

    return function


def leave_summing(optimizer: Any) -> None:
    """Makes an optimizer take gradients as sums over replicas, whose norms it may then clip."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list


def workers(strategy: tf.distribute.Strategy | None) -> Any:
    """Cluster resolver of a strategy over several machines; None for one machine."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    resolver = strategy.cluster_resolver
    return resolver if resolver is not None and resolver.task_type else None


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process is the one that writes files: the chief, or worker 0 without one."""
    resolver = workers(strategy)
    if resolver is None or resolver.task_type == "chief":
        return True
    return not resolver.cluster_spec().as_dict().get("chief") and resolver.task_id == 0


@contextlib.contextmanager
def worker_errors(strategy: tf.distribute.Strategy | None) -> Iterator[None]:
    """Says what to do when another worker has stopped.

    Raises:
        WorkerError: in place of what the collective operations of TensorFlow raise then.
    """
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    ) as error:
        if workers(strategy) is None:
            raise
        raise WorkerError(
            "Another worker has stopped, or cannot be reached, and training stopped with it. Start "
            "every worker again: with callbacks.Backup they go on after the last epoch that was "
            f"finished. TensorFlow says: {error.message.splitlines()[0]}"
        ) from error


def agree(strategy: tf.distribute.Strategy | None, number: int) -> bool:
    """Whether all workers, each of whom calls this, have the same number."""
    if strategy is None or workers(strategy) is None:
        return True
    numbers = strategy.gather(tf.constant([number]), axis=0)
    return bool(tf.reduce_all(numbers == number))
