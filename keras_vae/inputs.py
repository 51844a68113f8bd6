"""Contract between a model and its data: shapes, dtypes and support, for every container."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.mapped import is_mapped, slices
from keras_vae.distributions import Likelihood
from keras_vae.supports import CHECKED_BYTES, DataError

__all__ = ["Contract", "DataError", "in_batches"]


@dataclass(frozen=True)
class Contract:
    """What a model accepts as x, or as {"x": ..., "condition": ...} if it is conditional.

    Attributes:
        likelihood: the law whose event shape and support x must fit.
        condition_shape: shape of one condition, or None.
    """

    likelihood: Likelihood
    condition_shape: tuple[int, ...] | None

    def split(self, inputs: Any) -> tuple[Any, Any]:
        """The pair x, condition; condition is None for an unconditional model.

        Raises:
            DataError: if the inputs are not of the form that the model takes.
        """
        if self.condition_shape is None:
            if isinstance(inputs, dict):
                raise DataError(
                    f"This model is unconditional and expects x itself; got a dict with keys "
                    f"{sorted(inputs)}. Pass the array, or build the VAE with condition_shape=."
                )
            return inputs, None
        if not isinstance(inputs, dict) or set(inputs) != {"x", "condition"}:
            found = f"keys {sorted(inputs)}" if isinstance(inputs, dict) else type(inputs).__name__
            raise DataError(
                'This model is conditional and expects {"x": ..., "condition": ...}; '
                f"got {found}."
            )
        return inputs["x"], inputs["condition"]

    def arrays(self, inputs: Any, *, in_support: bool) -> Any:
        """The inputs as checked arrays, in the form they came in.

        Args:
            inputs: anything NumPy makes an array of, or the dict of two such things.
            in_support: whether x must lie in the support; otherwise it must only be finite.

        Raises:
            DataError: if there is no example, a shape is wrong, a number is not finite or x lies
                outside the support.
        """
        x, condition = self.split(inputs)
        x = self._array(x, "x", self.likelihood.event_shape)
        name = type(self.likelihood).__name__
        if in_support:
            self.likelihood.support.check(x, name)
        else:
            _check_finite(x, "x")
        if self.condition_shape is None:
            return x
        condition = self._array(condition, "condition", self.condition_shape)
        _check_finite(condition, "condition")
        if len(condition) != len(x):
            raise DataError(f"x has {len(x)} examples and condition {len(condition)}.")
        return {"x": x, "condition": condition}

    def source(self, inputs: Any) -> Any:
        """What `fit` may read: arrays checked now, datasets and generators as they are read.

        Raises:
            DataError: as `arrays`, at once or, inside `data_errors`, when the batch is read.
        """
        if isinstance(inputs, tf.data.Dataset):
            self._check_spec(inputs.element_spec)
            if inputs.cardinality() == 0:
                raise DataError("The dataset is empty. Give one batch or more.")
            return inputs.map(self._assert_batch, num_parallel_calls=2)
        if isinstance(inputs, keras.utils.PyDataset):
            return _CheckedPyDataset(inputs, self)
        if isinstance(inputs, Iterator):
            return (self.checked_batch(batch) for batch in inputs)
        if _is_stream(inputs):
            return inputs
        return self.arrays(inputs, in_support=True)

    def weighted(self, inputs: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """The triple x, y, sample_weight for `keras.Model.fit`, checked; y says nothing.

        Keras drops weights that come without targets, so weights bring zeros as targets.

        Raises:
            DataError: as `source`, or if the weights are not N finite numbers of at least 0.
            ValueError: if weights are given for a dataset or generator, which yields its own.
        """
        checked = self.source(inputs)
        if sample_weight is None:
            return checked, None, None
        if _is_stream(inputs):
            raise ValueError(
                f"sample_weight goes with arrays; let the {type(inputs).__name__} yield "
                "(x, y, sample_weight) instead, of which y is ignored."
            )
        count = len(keras.tree.flatten(checked)[0])
        weights = np.asarray(sample_weight)
        if weights.shape not in ((count,), (count, 1)) or weights.dtype.kind not in "buif":
            raise DataError(
                f"sample_weight must be one number per example, shape [{count}]; got "
                f"{list(weights.shape)} of dtype {weights.dtype}."
            )
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise DataError("sample_weight must be finite and at least 0.")
        return checked, np.zeros(count, np.float32), weights.reshape(count).astype(np.float32)

    def readable(self, inputs: Any) -> Any:
        """What `predict` may read: arrays checked for shape, streams as they are."""
        return inputs if _is_stream(inputs) else self.arrays(inputs, in_support=False)

    @contextlib.contextmanager
    def data_errors(self) -> Iterator[None]:
        """Raises the refusal of a batch as the `DataError` it was before TensorFlow wrapped it."""
        try:
            yield
        except tf.errors.OpError as error:
            if said := re.search(r"DataError: ([^\n]+)", error.message):
                raise DataError(said[1]) from error
            for sentence in self.assertions(self.zeros()):
                if sentence in error.message:
                    raise DataError(sentence) from error
            raise

    def _array(self, value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            array = value if isinstance(value, np.ndarray) else np.asarray(value)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{name} must be an array of shape [n, {_words(shape)}]; got "
                f"{type(value).__name__}, which NumPy cannot read: {error}"
            ) from error
        if array.dtype.kind not in "buif":
            raise DataError(
                f"{name} must be an array of numbers of shape [n, {_words(shape)}]; got "
                f"{type(value).__name__} of dtype {array.dtype}."
            )
        if array.shape[1:] != shape or array.ndim == 0:
            hint = ""
            if (*array.shape[1:], 1) == shape:
                hint = " Add the channel axis: x[..., None]."
            elif array.shape == shape:
                hint = " Add the batch axis: x[None]."
            elif array.size and array.ndim > 1 and np.prod(array.shape[1:]) == np.prod(shape):
                hint = f" The sizes agree: x.reshape(-1, {_words(shape)})."
            raise DataError(
                f"{name} must have shape [n, {_words(shape)}]; got {list(array.shape)}.{hint}"
            )
        if len(array) == 0:
            raise DataError(
                f"{name} is empty: shape {list(array.shape)}. Give one example or more."
            )
        return array

    def _check_spec(self, spec: Any) -> None:
        x, condition = self.split(keras.utils.unpack_x_y_sample_weight(spec)[0])
        for name, part, shape in (
            ("x", x, self.likelihood.event_shape),
            ("condition", condition, self.condition_shape),
        ):
            if part is None or shape is None:
                continue
            if not tf.TensorShape([None, *shape]).is_compatible_with(part.shape):
                raise DataError(
                    f"The dataset must yield batches of {name} of shape [n, {_words(shape)}]; got "
                    f"{part.shape}. (Was it batched?)"
                )
        if (x.dtype.is_integer or x.dtype.is_bool) and not self.likelihood.support.integer_dtype:
            owner = type(self.likelihood).__name__
            raise DataError(self.likelihood.support.sentence(owner, f"{x.dtype.name} integers"))

    def _assert_batch(self, *batch: Any) -> Any:
        batch = batch if len(batch) > 1 else batch[0]
        assertions = self.assertions(keras.utils.unpack_x_y_sample_weight(batch)[0])
        checks = [tf.debugging.Assert(holds, [text]) for text, holds in assertions.items()]
        with tf.control_dependencies(checks):
            return tf.nest.map_structure(
                lambda part: None if part is None else tf.identity(part), batch
            )

    def assertions(self, inputs: Any) -> dict[str, tf.Tensor]:
        """What must hold of a batch in a graph, by the sentence to say if it does not."""
        x, condition = self.split(inputs)
        assertions = self.likelihood.support.assertions(x, type(self.likelihood).__name__)
        if condition is not None:
            finite = tf.reduce_all(tf.math.is_finite(tf.cast(condition, tf.float32)))
            assertions["condition is not finite in the dataset."] = finite
        return assertions

    def zeros(self) -> Any:
        """One example of zeros, for what depends on shapes alone."""
        x = np.zeros((1, *self.likelihood.event_shape), np.float32)
        if self.condition_shape is None:
            return x
        return {"x": x, "condition": np.zeros((1, *self.condition_shape), np.float32)}

    def checked_batch(self, batch: Any) -> tuple[Any, ...]:
        """A batch of a generator as a tuple, checked as arrays are."""
        batch = batch if isinstance(batch, tuple) else (batch,)
        try:
            self.arrays(keras.utils.unpack_x_y_sample_weight(batch)[0], in_support=True)
        except DataError as error:
            raise DataError(f"In a batch: {error}") from error
        return batch


class _CheckedPyDataset(keras.utils.PyDataset):
    """A PyDataset whose batches are checked as they are read."""

    def __init__(self, inner: keras.utils.PyDataset, contract: Contract) -> None:
        super().__init__(
            workers=inner.workers,
            use_multiprocessing=inner.use_multiprocessing,
            max_queue_size=inner.max_queue_size,
        )
        self._inner = inner
        self._contract = contract

    @property
    def num_batches(self) -> int | None:
        return self._inner.num_batches

    def __getitem__(self, index: int) -> Any:
        return self._contract.checked_batch(self._inner[index])

    def on_epoch_begin(self) -> None:
        self._inner.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._inner.on_epoch_end()


class _Slices(keras.utils.PyDataset):
    """Batches of arrays in their order, none of which is read or copied before its turn."""

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
        return keras.tree.map_structure(lambda part: part[rows], self._parts)


def in_batches(
    data: tuple[Any, Any, Any], given: int | None, most: int
) -> tuple[tuple[Any, Any, Any], int]:
    """The triple x, y, sample_weight as Keras shall read it, and in batches of which size.

    Keras copies an array whole, a memory-mapped one from its file, before it takes batches of it.
    So long arrays become a PyDataset of slices, unless small batches are asked for, which are read
    faster from memory.

    Args:
        data: arrays, or a stream of batches.
        given: examples in a batch that the user asks for, or None.
        most: examples that should be in memory at once.
    """
    x, y, sample_weight = data
    size = given or most
    parts = (x,) if sample_weight is None else (x, y, sample_weight)
    arrays = keras.tree.flatten(parts)
    in_files = any(map(is_mapped, arrays))
    if _is_stream(x) or len(arrays[0]) <= size or not (given is None or in_files):
        return data, size
    return (_Slices(parts, size), None, None), size


def _is_stream(inputs: Any) -> bool:
    kinds = (
        tf.data.Dataset,
        tf.distribute.DistributedDataset,
        keras.utils.PyDataset,
        Iterator,
    )
    return isinstance(inputs, kinds)


def _check_finite(array: np.ndarray, name: str) -> None:
    if array.dtype.kind != "f":
        return
    for start, part in slices(array, CHECKED_BYTES):
        if not np.isfinite(part).all():
            bad = ~np.isfinite(part).reshape(len(part), -1).all(axis=1)
            raise DataError(
                f"{name} is not finite in example {start + int(bad.argmax())} "
                f"({int(bad.sum())} such examples seen); remove or impute them first."
            )


def _words(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
