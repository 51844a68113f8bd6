"""Dataset of batches that keeps the arrays from which they are gathered."""

from typing import Any

import tensorflow as tf

from keras_vae.data.source import Source

__all__ = ["BatchDataset", "skipped", "source_behind", "source_of"]

_TRANSPARENT = (
    "AssertCardinalityDataset",
    "CacheDataset",
    "OptionsDataset",
    "PrefetchDataset",
    "RepeatDataset",
    "ShardDataset",
    "ShuffleDataset",
    "SkipDataset",
    "TakeDataset",
)
"""TensorFlow datasets that only pass on the elements of their input."""


class BatchDataset(tf.data.Dataset):
    """Dataset of batches that `data.batches` returns, with their source in `source`.

    `fit` recognises it by its type and gathers many batches at once from the source. `map`, `take`,
    `prefetch` and similar methods return a plain dataset, which `fit` reads batch by batch.

    Args:
        dataset: dataset of the batches.
        source: the arrays behind it.
    """

    def __init__(self, dataset: tf.data.Dataset, source: Source) -> None:
        self._dataset = dataset
        self.source = source
        super().__init__(dataset._variant_tensor)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]

    @property
    def element_spec(self) -> Any:
        """Specification of one batch."""
        return self._dataset.element_spec


def source_of(dataset: Any) -> Source | None:
    """Returns the source of a dataset that `batches` returned; None for any other."""
    return dataset.source if isinstance(dataset, BatchDataset) else None


def source_behind(dataset: Any, *, through_maps: bool = False) -> Source | None:
    """Returns the source of a dataset whose elements are those of a dataset of `batches`.

    Args:
        dataset: any dataset. Those that only reorder, repeat or buffer elements are looked through.
        through_maps: whether to look also through datasets that change elements.
    """
    while (source := source_of(dataset)) is None:
        inputs = dataset._inputs()
        is_transparent = type(dataset).__name__.strip("_") in _TRANSPARENT
        if len(inputs) != 1 or not (through_maps or is_transparent):
            return None
        (dataset,) = inputs
    return source


def skipped(dataset: tf.data.Dataset, epochs: int, steps: int) -> tf.data.Dataset:
    """Skips the first epochs of a dataset; it keeps its source if it has one."""
    if epochs == 0:
        return dataset
    source, rest = source_of(dataset), dataset.skip(epochs * steps)
    if source is None or steps != source.steps:
        return rest
    left = range(source.epochs.start + epochs, source.epochs.stop)
    return BatchDataset(rest, source._replace(epochs=left))
