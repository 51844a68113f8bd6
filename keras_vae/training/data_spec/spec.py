"""Specification of the data of a model: shapes, dtypes and supports, checked in any container."""

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.batch_dataset import source_behind
from keras_vae.data.foreign import as_known
from keras_vae.data.frames import frame_names, numbers, whole_columns
from keras_vae.data.mapped import is_mapped
from keras_vae.data.schema import Schema
from keras_vae.data.source import Source
from keras_vae.distributions.supports import DataError
from keras_vae.spelling import counted
from keras_vae.training.containers import CheckedPyDataset, is_stream
from keras_vae.training.data_spec.named_parts import named_parts
from keras_vae.training.data_spec.part import (
    Part,
    as_rows,
    check_finite,
    check_mixed,
    check_resolution,
)
from keras_vae.training.data_spec.presence import presence
from keras_vae.training.data_spec.streams import (
    assertions,
    check_column_order,
    element_dtypes,
    refuse_targets,
)

__all__ = ["DataSpec"]


@dataclass(frozen=True)
class DataSpec:
    """Data that a model accepts: x itself if that is the only part, otherwise a dict of parts.

    Attributes:
        parts: parts by name, in the order in which networks take them. "condition" is the part that
            prior, likelihood and posterior depend on.
        feature_names: names of the columns of x, by which data frames are matched.
        is_dict: whether data is a dict even if it has a single part.
        schema: how the columns of a data frame become the parts; None if they are the parts.
    """

    parts: Mapping[str, Part]
    feature_names: tuple[str, ...] | None = None
    is_dict: bool = False
    schema: Schema | None = None

    @property
    def observed(self) -> dict[str, Part]:
        """The parts that have a distribution."""
        return {name: part for name, part in self.parts.items() if part.support is not None}

    @property
    def missing(self) -> dict[str, Part]:
        """The parts that have a distribution and whose entries may be absent."""
        return {name: part for name, part in self.observed.items() if part.missing}

    @property
    def imputable(self) -> dict[str, Part]:
        """The parts whose absent entries can be imputed, as they decide no other entry."""
        return {name: part for name, part in self.missing.items() if not part.at_end}

    def _owner(self, name: str) -> str:
        """Returns what messages call the distribution of a part."""
        owner = self.parts[name].owner
        return f"{owner} ({name})" if self.is_dict else owner

    @property
    def first(self) -> str:
        """The name of the first part."""
        return next(iter(self.parts))

    def named_by(self, inputs: Any) -> "DataSpec":
        """Returns the specification with the names of the columns of x, if the inputs have some."""
        if self.feature_names is not None or self.is_dict:
            return self
        inputs = as_known(inputs)
        if isinstance(inputs, tf.data.Dataset):
            source = source_behind(inputs)
            return self if source is None else replace(self, feature_names=source.feature_names)
        x = inputs.get("x") if isinstance(inputs, dict) else inputs
        return replace(self, feature_names=frame_names(x))

    def by_name(self, inputs: Any) -> dict[str, Any]:
        """Returns the parts of the inputs by name.

        Raises:
            DataError: if the inputs are not of the form that the model takes.
        """
        inputs = as_known(inputs)
        if self.is_dict:
            return named_parts(inputs, self.parts, self.schema)
        if len(self.parts) == 1:
            if isinstance(inputs, dict):
                raise DataError(
                    f"This model is unconditional and expects x itself; got a dict with keys "
                    f"{sorted(inputs)}. Pass the array, or build the VAE with condition_shape=."
                )
            return {self.first: inputs}
        if not isinstance(inputs, dict) or set(inputs) != set(self.parts):
            found = f"keys {sorted(inputs)}" if isinstance(inputs, dict) else type(inputs).__name__
            form = ", ".join(f'"{name}": ...' for name in self.parts)
            is_conditional = set(self.parts) == {"x", "condition"}
            what = "is conditional and expects" if is_conditional else "expects"
            raise DataError(f"This model {what} {{{form}}}; got {found}.")
        return {name: inputs[name] for name in self.parts}

    def together(self, parts: dict[str, Any]) -> Any:
        """Returns parts in the form in which the model takes them."""
        return parts if self.is_dict or len(self.parts) > 1 else parts[self.first]

    def arrays(self, inputs: Any, *, in_support: bool) -> Any:
        """Converts the inputs to checked arrays, in the form they came in.

        Args:
            inputs: anything that NumPy converts to an array, or a dict of parts. The columns of a
                data frame are matched by name if the specification has names.
            in_support: whether x must lie in the support; otherwise it must only be finite.

        Raises:
            DataError: if there is no example, a shape is wrong, a number is not finite or x lies
                outside the support.
        """
        arrays = {
            name: self.array(name, value, in_support=in_support)
            for name, value in self.by_name(inputs).items()
        }
        for name, array in arrays.items():
            if len(array) != len(arrays[self.first]):
                raise DataError(
                    f"{self.first} has {counted(len(arrays[self.first]), 'example')} and {name} "
                    f"{len(array)}."
                )
        return self.together(arrays)

    def array(self, name: str, value: Any, *, in_support: bool = True) -> np.ndarray:
        """Returns one part as a checked array [n, ...]; arguments and errors as for `arrays`."""
        part, value = self.parts[name], as_known(value)
        array = as_rows(value, name, part, self.feature_names, is_named=self.is_dict)
        checked = part.filled(array, name) if part.missing else array
        if part.support is not None and in_support:
            if not part.missing:
                check_mixed(part, whole_columns(value), array.dtype)
            part.support.check(checked, self._owner(name))
        else:
            check_finite(checked, name)
        return array

    def source(self, inputs: Any) -> Any:
        """Checks what `fit` reads: arrays now, datasets and generators as they are read.

        Raises:
            DataError: as `arrays`, at once or, inside `data_errors`, when the batch is read.
        """
        if isinstance(inputs, tf.data.Dataset):
            self.check_dataset(inputs, in_support=True)
            if inputs.cardinality() == 0:
                raise DataError("The dataset is empty. Give one batch or more.")
            return inputs.map(self._assert_batch, num_parallel_calls=2)
        if isinstance(inputs, keras.utils.PyDataset):
            return CheckedPyDataset(inputs, self.checked_batch)
        if isinstance(inputs, Iterator):
            return (self.checked_batch(batch) for batch in inputs)
        if is_stream(inputs):
            return inputs
        return self.arrays(inputs, in_support=True)

    def check_dataset(self, dataset: tf.data.Dataset, *, in_support: bool) -> None:
        """Refuses a dataset by what is known before the first batch is read.

        Batches of `data.batches` are always float32; unless they are rescaled or transformed, the
        dtype of the source is checked.

        Args:
            dataset: dataset of batches.
            in_support: whether the dtype must be one of the support.

        Raises:
            DataError: if a shape is wrong, a dtype is outside the support, a tensor is sparse or
                columns are in another order.
        """
        dtypes = element_dtypes(
            self.by_name(keras.utils.unpack_x_y_sample_weight(dataset.element_spec)[0]), self.parts
        )
        if in_support:
            refuse_targets(dataset.element_spec, "dataset")
        if (source := source_behind(dataset)) is not None:
            check_column_order(source.feature_names, self.feature_names)
            tables = self._unchanged(source)
            dtypes |= {name: tf.as_dtype(table.dtype) for name, table in tables.items()}
            if in_support and not self.is_dict and self.first in tables:
                found = dtypes[self.first].as_numpy_dtype
                check_mixed(self.parts[self.first], source.whole, found)
        for name, part in self.observed.items() if in_support else ():
            if said := part.support.dtype_refusal(dtypes[name], part.owner):  # type: ignore[union-attr]
                raise DataError(said)

    def _unchanged(self, source: Source) -> dict[str, Any]:
        """Returns the tables whose numbers the batches of a source hold, by part."""
        names = {"x": self.first} if source.gather.alone else {name: name for name in source.tables}
        return {
            names[name]: table
            for name, table in source.tables.items()
            if name not in source.gather.changes
        }

    def check_resolution(self, inputs: Any) -> None:
        """Refuses training data under a density whose columns float32 cannot tell apart.

        Args:
            inputs: checked arrays, or a stream. Of streams those of `data.batches` are checked
                whose source is in memory and neither rescaled nor transformed.

        Raises:
            DataError: if the error of a column in float32 is over 1/64 of its standard deviation.
        """
        for name, array in self._in_memory(inputs).items():
            check_resolution(name, self.parts[name], array, self.feature_names)

    def presence(self, inputs: Any) -> list[str]:
        """Returns messages about parts, columns and rows of training data without any value.

        Args:
            inputs: as for `check_resolution`.

        Raises:
            DataError: if there is no value at all.
        """
        arrays = {
            name: array
            for name, array in self._in_memory(inputs).items()
            if name in self.missing and isinstance(array, (np.ndarray, tf.Tensor)) and len(array)
        }
        if not arrays:
            return []
        is_all = len(arrays) == len(self.observed)
        one_hot = [
            name
            for name in arrays
            if (support := self.parts[name].support) is not None and support.is_one_hot
        ]
        return presence(arrays, self.feature_names, is_all=is_all, one_hot=one_hot)

    def _in_memory(self, inputs: Any) -> dict[str, Any]:
        """Returns the observed parts that are in memory as the model takes them, by name."""
        if isinstance(inputs, tf.data.Dataset):
            source = source_behind(inputs)
            arrays = {} if source is None else self._unchanged(source)
        else:
            arrays = {} if is_stream(inputs) else self.by_name(inputs)
        return {
            name: arrays[name]
            for name in self.observed
            if name in arrays and not is_mapped(arrays[name])
        }

    def weighted(self, inputs: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Returns checked `(x, y, sample_weight)`; y is a dummy.

        Keras drops weights that come without targets, so weights come with zeros as targets.

        Raises:
            DataError: as for `source`, or if the weights are not N finite numbers of at least 0.
            ValueError: if weights are given for a dataset or generator, which yields its own.
        """
        checked = self.source(inputs)
        if sample_weight is None:
            return checked, None, None
        if is_stream(inputs):
            raise ValueError(
                f"sample_weight goes with arrays; let the {type(inputs).__name__} yield "
                "(x, y, sample_weight) instead, of which y is ignored."
            )
        count = len(keras.tree.flatten(checked)[0])
        weights = numbers(sample_weight, "sample_weight")
        if weights.shape not in ((count,), (count, 1)):
            raise DataError(
                f"sample_weight must be one number per example, shape [{count}]; got "
                f"{list(weights.shape)} of dtype {weights.dtype}."
            )
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise DataError("sample_weight must be finite and at least 0.")
        return checked, np.zeros(count, np.float32), weights.reshape(count).astype(np.float32)

    def readable(self, inputs: Any) -> Any:
        """Checks what `predict` reads: arrays must be finite, datasets only of the right shape."""
        check = functools.partial(self.checked_batch, in_support=False)
        if isinstance(inputs, tf.data.Dataset):
            self.check_dataset(inputs, in_support=False)
        elif isinstance(inputs, keras.utils.PyDataset):
            return CheckedPyDataset(inputs, check)
        elif isinstance(inputs, Iterator):
            return (check(batch) for batch in inputs)
        return inputs if is_stream(inputs) else self.arrays(inputs, in_support=False)

    @contextlib.contextmanager
    def data_errors(self) -> Iterator[None]:
        """Raises the refusal of a batch as a `DataError`, which TensorFlow has wrapped."""
        try:
            yield
        except tf.errors.OpError as error:
            if said := re.search(r"DataError: ([^\n]+)", error.message):
                raise DataError(said[1]) from error
            for sentence in self.assertions(self.zeros()):
                if sentence in error.message:
                    raise DataError(sentence) from error
            raise

    @tf.autograph.experimental.do_not_convert
    def _assert_batch(self, *batch: Any) -> Any:
        batch = batch if len(batch) > 1 else batch[0]
        messages = self.assertions(keras.utils.unpack_x_y_sample_weight(batch)[0])
        checks = [tf.debugging.Assert(holds, [text]) for text, holds in messages.items()]
        with tf.control_dependencies(checks):
            return tf.nest.map_structure(
                lambda part: None if part is None else tf.identity(part), batch
            )

    def assertions(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Makes the checks of a batch in a graph, by the message for a false one."""
        return {
            message: holds
            for name, value in self.by_name(inputs).items()
            for message, holds in assertions(
                name, self.parts[name], self._owner(name), value
            ).items()
        }

    def zeros(self) -> Any:
        """Makes one example of zeros, for computations of shapes."""
        return self.together(
            {name: np.zeros((1, *part.shape), np.float32) for name, part in self.parts.items()}
        )

    def checked_batch(self, batch: Any, *, in_support: bool = True) -> tuple[Any, ...]:
        """Returns a batch of a generator as a tuple, checked and ordered as arrays are."""
        batch = batch if isinstance(batch, tuple) else (batch,)
        if in_support:
            refuse_targets(batch, "generator")
        try:
            x = keras.utils.unpack_x_y_sample_weight(batch)[0]
            x = self.arrays(x, in_support=in_support)
        except DataError as error:
            raise DataError(f"In a batch: {error}") from error
        return (x, *batch[1:])
