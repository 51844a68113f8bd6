"""Replicas: split a batch among devices and machines, with the numbers of one device.

Keras trains as on one device: it iterates over whole batches and calls the steps of the model. A
step then runs on every replica with its shard of the rows, and the results are summed.
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
    """Rows of a batch that one replica processes.

    If the batch size is not divisible by the number of replicas, every replica processes the whole
    batch with weight 1/replicas.

    Attributes:
        start: first row.
        size: number of rows.
        total: rows of the whole batch.
        weight: weight of each row.
    """

    start: Any
    size: Any
    total: Any
    weight: Any

    @property
    def is_whole(self) -> bool:
        """Whether the shard is known to be the whole batch."""
        return self.size is self.total

    def of(self, part: tf.Tensor, axis: int = 0) -> tf.Tensor:
        """Returns the shard of a tensor that has the batch along axis 0 or 1."""
        if self.is_whole:
            return part
        rows = slice(self.start, self.start + self.size)
        return part[rows] if axis == 0 else part[:, rows]

    @classmethod
    def whole(cls, total: Any) -> Share:
        """Returns the shard of the only replica: the whole batch."""
        return cls(0, total, total, 1.0)

    @classmethod
    def of_this_replica(cls, total: Any) -> Share:
        """Returns the shard of the calling replica."""
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
    """Strategy that Keras is given for one device: batches and functions pass through."""

    def experimental_distribute_dataset(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the dataset unchanged."""
        return dataset

    def run(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> Any:
        """Calls the function and returns its result."""
        return function(*args)


def on_each(
    strategy: tf.distribute.Strategy | None, total: Any, function: Callable[[Share], None]
) -> None:
    """Calls a function on each replica with its shard of a batch.

    Args:
        strategy: strategy with the replicas; None for one device.
        total: number of rows of the batch.
        function: function of the shard.
    """
    if strategy is None:
        function(Share.whole(total))
    else:
        strategy.run(lambda: function(Share.of_this_replica(total)))


def summed(tensors: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Sums tensors over replicas, each of which calls this function; None stays None."""
    found = [part for part in tensors if part is not None]
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1 and found:
        found = context.all_reduce(tf.distribute.ReduceOp.SUM, found)
    rest = iter(found)
    return [None if part is None else next(rest) for part in tensors]


def steps_in_turn(model: Any, step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Makes a function of an iterator that runs the next steps in turn, as Keras calls it.

    Keras' own function puts several steps into branches of one graph, in which replicas cannot run.
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
    """Makes an optimizer treat gradients as sums over replicas, so that it can clip their norms."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = list


def workers(strategy: tf.distribute.Strategy | None) -> Any:
    """Returns the cluster resolver of a strategy over several machines; None for one machine."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    resolver = strategy.cluster_resolver
    return resolver if resolver is not None and resolver.task_type else None


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Tells whether this process writes files: the chief, or worker 0 if there is no chief."""
    resolver = workers(strategy)
    if resolver is None or resolver.task_type == "chief":
        return True
    return not resolver.cluster_spec().as_dict().get("chief") and resolver.task_id == 0


@contextlib.contextmanager
def worker_errors(strategy: tf.distribute.Strategy | None) -> Iterator[None]:
    """Raises a `WorkerError` that says what to do if another worker has stopped.

    Raises:
        WorkerError: instead of the exception that TensorFlow's collective operations raise.
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
            "Another worker stopped or cannot be reached, so training stopped too. Start every "
            "worker again: with callbacks.Backup they continue after the last finished epoch. "
            f"TensorFlow says: {error.message.splitlines()[0]}"
        ) from error


def agree(strategy: tf.distribute.Strategy | None, number: int) -> bool:
    """Tells whether all workers, each of which calls this function, have the same number."""
    if strategy is None or workers(strategy) is None:
        return True
    numbers = strategy.gather(tf.constant([number]), axis=0)
    return bool(tf.reduce_all(numbers == number))
