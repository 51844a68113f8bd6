"""Specification of the data of a model: shapes, dtypes and supports, checked in any container."""

import contextlib
import difflib
import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.batch_dataset import source_behind
from keras_vae.data.columns import positions
from keras_vae.data.content import listed
from keras_vae.data.frames import (
    frame_names,
    is_frame,
    numbers,
    rows_of_numbers,
    whole_columns,
)
from keras_vae.data.mapped import chunks, is_mapped
from keras_vae.data.precision import moments, resolution, unresolved_message
from keras_vae.data.schema import Schema
from keras_vae.data.source import Source
from keras_vae.distributions.supports import CHECKED_BYTES, DataError, Support
from keras_vae.training.containers import CheckedPyDataset, is_stream

__all__ = ["DataError", "DataSpec", "Part"]


@dataclass(frozen=True)
class Part:
    """One named array of the data.

    Attributes:
        shape: shape of one example.
        support: where its values may lie; None for any finite number.
        owner: name of its distribution, for messages.
        missing: whether entries may be absent, which are NaN. A variable of several numbers, such
            as a one-hot vector, is absent as a whole.
    """

    shape: tuple[int, ...]
    support: Support | None = None
    owner: str = ""
    missing: bool = False

    def mask_of(self, value: tf.Tensor) -> tuple[tf.Tensor | None, np.ndarray | float]:
        """Returns where a batch [B, *shape] is present, and what stands for its absent entries.

        The mask has one boolean for each variable; it is None if no entry may be absent.
        """
        if not self.missing or self.support is None:
            return None, 0.0
        present = tf.logical_not(tf.math.is_nan(value))
        axes = list(range(-self.support.event_dim, 0))
        return tf.reduce_all(present, axis=axes) if axes else present, self.filler

    @property
    def filler(self) -> np.ndarray | float:
        """A value of the support that stands for an absent variable, of a shape to broadcast."""
        if self.support is None:
            return 0.0
        if not self.support.event_dim:
            return self.support.inside
        filler = np.zeros(self.shape[len(self.shape) - self.support.event_dim :], np.float32)
        filler.flat[0] = self.support.inside
        return filler

    def filled(self, array: np.ndarray, name: str) -> np.ndarray:
        """Returns an array whose absent variables hold a value of the support, for its check.

        Raises:
            DataError: if a variable of several numbers is absent in some of them.
        """
        if array.dtype.kind != "f" or self.support is None:
            return array
        absent = np.isnan(array)
        if not absent.any():
            return array
        if self.support.event_dim:
            axes = tuple(range(-self.support.event_dim, 0))
            whole = absent.all(axis=axes, keepdims=True)
            if (torn := absent.any(axis=axes, keepdims=True) & ~whole).any():
                raise DataError(
                    f"{name} holds {self.support.description}, each of which is present or absent "
                    f"as a whole; that of example {int(np.argwhere(torn)[0][0])} is NaN in some "
                    "entries only. Set all of its entries to NaN, or none."
                )
            absent = np.broadcast_to(whole, array.shape)
        return np.where(absent, np.asarray(self.filler, array.dtype), array)


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
        if self.is_dict:
            return self._named(inputs)
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

    def _named(self, inputs: Any) -> dict[str, Any]:
        """Returns the parts of a dict or of a data frame, of which absent ones may be left out."""
        present = None
        if self.schema is not None and is_frame(inputs):
            given: dict[str, Any] = dict(self.schema.encode(inputs, seed=0))
        elif frame_names(inputs) is not None:
            given = {name: inputs[name] for name in inputs.columns}
        elif isinstance(inputs, Mapping):
            given = dict(inputs)
            present = given.pop("present", None) if "present" not in self.parts else None
        else:
            raise DataError(
                f"This model expects a dict of the parts {listed(list(self.parts))}, or a data "
                f"frame with such columns; got {type(inputs).__name__}."
            )
        if unknown := [name for name in given if name not in self.parts]:
            raise DataError(
                f"This model has the parts {listed(list(self.parts))}; got {unknown[0]!r} too."
                f"{_nearest(unknown[0], self.parts)} Leave it out."
            )
        absent = [name for name in self.parts if name not in given]
        if needed := [name for name in absent if not self.parts[name].missing]:
            raise DataError(
                f"The part {needed[0]!r} is not given, and may not be absent in this model; got "
                f"{listed(list(given)) or 'no part'}. Give it, or build its likelihood with "
                "missing=True."
            )
        if not given:
            raise DataError(f"No part is given; expected some of {listed(list(self.parts))}.")
        if present is not None:
            given = {**given, **self._hidden(given, present)}
        for name in absent:
            like = next(iter(given.values()))
            if isinstance(like, tf.TypeSpec) or tf.is_symbolic_tensor(like):
                raise DataError(f"The dataset does not yield the part {name!r}. Yield it as NaN.")
            shape = (len(like), *self.parts[name].shape)
            given[name] = np.broadcast_to(np.float32(np.nan), shape)
        return {name: given[name] for name in self.parts}

    def _hidden(self, given: Mapping[str, Any], present: Any) -> dict[str, np.ndarray]:
        """Returns the parts of which `present` tells what is there, NaN elsewhere."""
        if not isinstance(present, Mapping) or not set(present) <= set(given):
            raise DataError(
                '"present" must be a dict of booleans by part, of parts that are given; got '
                f"{sorted(present) if isinstance(present, Mapping) else type(present).__name__}."
            )
        hidden = {}
        for name, mask in present.items():
            part = self.parts[name]
            value = self._array(given[name], name, part)
            mask = np.asarray(mask)
            axes = value.shape[: mask.ndim]
            if mask.dtype != bool or not mask.ndim or mask.shape != axes:
                raise DataError(
                    f"present[{name!r}] must be booleans with the first axes of the part, of shape "
                    f"{list(value.shape)}; got {mask.dtype} of shape {list(mask.shape)}."
                )
            mask = mask.reshape(*mask.shape, *[1] * (value.ndim - mask.ndim))
            dtype = value.dtype if value.dtype.kind == "f" else np.float64
            hidden[name] = np.where(mask, value.astype(dtype), np.asarray(np.nan, dtype))
        return hidden

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
                    f"{self.first} has {len(arrays[self.first])} examples and {name} {len(array)}."
                )
        return self.together(arrays)

    def array(self, name: str, value: Any, *, in_support: bool = True) -> np.ndarray:
        """Returns one part as a checked array [n, ...]; arguments and errors as for `arrays`."""
        part = self.parts[name]
        array = self._array(value, name, part, self.feature_names)
        checked = part.filled(array, name) if part.missing else array
        if part.support is not None and in_support:
            if not part.missing:
                self._check_mixed(part, whole_columns(value), array.dtype)
            part.support.check(checked, self._owner(name))
        else:
            _check_finite(checked, name)
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
        dtypes = self._checked_spec(dataset.element_spec)
        if in_support:
            _refuse_targets(dataset.element_spec, "dataset")
        if (source := source_behind(dataset)) is not None:
            self._check_names(source.feature_names)
            tables = self._unchanged(source)
            dtypes |= {name: tf.as_dtype(table.dtype) for name, table in tables.items()}
            if in_support and not self.is_dict and self.first in tables:
                found = dtypes[self.first].as_numpy_dtype
                self._check_mixed(self.parts[self.first], source.whole, found)
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

    def _check_mixed(self, part: Part, whole: Mapping[str, str], dtype: Any) -> None:
        """Refuses integer columns that a data frame hides among real ones, under a density."""
        support = part.support
        if support and whole and np.dtype(dtype).kind == "f" and not support.integer_dtype:
            raise DataError(
                f"{part.owner} models {support.description}; got integers in "
                f"the columns {listed([f'{name} ({dtype})' for name, dtype in whole.items()])}. "
                "Add uniform noise on [0, 1) to them, as the command line does, or declare them "
                "real numbers with frame.astype(float)."
            )

    def check_resolution(self, inputs: Any) -> None:
        """Refuses training data under a density whose columns float32 cannot tell apart.

        Args:
            inputs: checked arrays, or a stream. Of streams those of `data.batches` are checked
                whose source is in memory and neither rescaled nor transformed.

        Raises:
            DataError: if the error of a column in float32 is over 1/64 of its standard deviation.
        """
        if isinstance(inputs, tf.data.Dataset):
            source = source_behind(inputs)
            arrays = {} if source is None else self._unchanged(source)
        elif is_stream(inputs):
            return
        else:
            arrays = self.by_name(inputs)
        for name, part in self.observed.items():
            if name in arrays and part.support is not None and not is_mapped(arrays[name]):
                self._check_resolution(name, part.support, arrays[name])

    def _check_resolution(self, part: str, support: Support, x: np.ndarray) -> None:
        if support.is_discrete is not False or x.dtype != np.float64:
            return
        x = np.asarray(x).reshape(len(x), -1, x.shape[-1] if x.ndim > 1 else 1)
        with np.errstate(invalid="ignore", over="ignore"):
            if self.parts[part].missing and (absent := np.isnan(x)).any():
                counts = np.maximum((~absent).sum((0, 1)), 1)
                x = np.where(absent, np.where(absent, 0.0, x).sum((0, 1)) / counts, x)
            mean, deviation = moments(x)
            ends = [(each.min((0, 1)), each.max((0, 1))) for _, each in chunks(x, CHECKED_BYTES)]
            low = np.min([least for least, _ in ends], axis=0)
            high = np.max([most for _, most in ends], axis=0)
            error, negligible, unresolved = resolution(low, high, deviation)
        for index in map(int, np.flatnonzero(unresolved & ~negligible)):
            names = self.feature_names
            what = f"Column {names[index]!r} of x" if names else f"Entry {index} of {part}"
            raise DataError(unresolved_message(what, mean[index], deviation[index], error[index]))

    def _check_names(self, names: tuple[str, ...] | None) -> None:
        """Refuses columns of a stream in another order, which its batches do not tell."""
        if names and self.feature_names and names != self.feature_names:
            positions(names, self.feature_names, "x")
            raise DataError(
                f"x of the stream has its columns in the order {', '.join(names)}, but the model "
                f"in the order {', '.join(self.feature_names)}. Make the stream of "
                "frame[list(vae.feature_names)]."
            )

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

    def _array(
        self,
        value: Any,
        name: str,
        part: Part,
        columns: tuple[str, ...] | None = None,
    ) -> np.ndarray:
        shape = part.shape
        expected = f"an array of numbers of shape [n, {_words(shape)}]"
        array = rows_of_numbers(value, name, expected, missing=part.missing)
        if self.is_dict and shape == (1,) and array.ndim == 1:
            array = array[:, np.newaxis]
        if (names := frame_names(value)) is not None and name == "x":
            order = positions(names, names if columns is None else columns, name)
            array = array if order == list(range(len(order))) else array[:, order]
        if array.shape[1:] != shape or array.ndim == 0:
            hint = self._hint(array.shape, array.dtype.kind in "iu", name, shape)
            raise DataError(
                f"{name} must have shape [n, {_words(shape)}]; got {list(array.shape)}.{hint}"
            )
        if len(array) == 0:
            raise DataError(
                f"{name} is empty: shape {list(array.shape)}. Give one example or more."
            )
        return array

    def _hint(
        self, found: Sequence[int | None], whole: bool, name: str, shape: tuple[int, ...]
    ) -> str:
        """Returns what to do about a shape that is not [n, *shape], as a sentence after a space."""
        event, categories = tuple(found[1:]), shape[-1]
        support = self.parts[name].support
        one_hot = support is None or support.event_dim == 1
        if whole and one_hot and categories > 1 and len(found) and event == shape[:-1]:
            return f" Code integers as one-hot: keras.utils.to_categorical({name}, {categories})."
        if len(found) and (*event, 1) == shape:
            axis = "channel axis" if len(shape) > 2 else "last axis"
            return f" Add the {axis}: {name}[..., None]."
        if tuple(found) == shape:
            return f" Add the batch axis: {name}[None]."
        sizes = [size for size in event if size is not None]
        if sizes and len(sizes) == len(event) and math.prod(sizes) == math.prod(shape):
            return f" The sizes agree: {name}.reshape(-1, {_words(shape)})."
        return ""

    def _checked_spec(self, spec: Any) -> dict[str, tf.DType]:
        """Returns the dtypes in a dataset whose specification has the right shapes."""
        specs = self.by_name(keras.utils.unpack_x_y_sample_weight(spec)[0])
        for name, part in specs.items():
            shape = self.parts[name].shape
            if not isinstance(part, tf.TensorSpec):
                remedy = {
                    "SparseTensorSpec": "tf.sparse.to_dense",
                    "RaggedTensorSpec": "the method to_tensor of each",
                }.get(type(part).__name__, "a map to tensors")
                raise DataError(
                    f"The dataset must yield {name} as dense tensors; got {type(part).__name__}. "
                    f"Make them dense with dataset.map and {remedy}."
                )
            if not tf.TensorShape([None, *shape]).is_compatible_with(part.shape):
                found = part.shape.as_list() if part.shape.rank is not None else []
                hint = " (Was it batched?)"
                if tuple(found) != shape:
                    hint = self._hint(found, part.dtype.is_integer, name, shape) or hint
                raise DataError(
                    f"The dataset must yield batches of {name} of shape [n, {_words(shape)}]; got "
                    f"{part.shape}.{hint}"
                )
        return {name: part.dtype for name, part in specs.items()}

    def _assert_batch(self, *batch: Any) -> Any:
        batch = batch if len(batch) > 1 else batch[0]
        assertions = self.assertions(keras.utils.unpack_x_y_sample_weight(batch)[0])
        checks = [tf.debugging.Assert(holds, [text]) for text, holds in assertions.items()]
        with tf.control_dependencies(checks):
            return tf.nest.map_structure(
                lambda part: None if part is None else tf.identity(part), batch
            )

    def assertions(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Makes the checks of a batch in a graph, by the message for a false one."""
        assertions: dict[str, tf.Tensor] = {}
        for name, value in self.by_name(inputs).items():
            part = self.parts[name]
            if part.support is not None:
                mask, filler = part.mask_of(value)
                if mask is not None:
                    for _ in range(part.support.event_dim):
                        mask = mask[..., tf.newaxis]
                    value = tf.where(mask, value, tf.cast(filler, value.dtype))
                assertions |= part.support.assertions(value, self._owner(name))
            else:
                finite = tf.reduce_all(tf.math.is_finite(tf.cast(value, tf.float32)))
                assertions[f"{name} is not finite in the dataset."] = finite
        return assertions

    def zeros(self) -> Any:
        """Makes one example of zeros, for computations of shapes."""
        return self.together(
            {name: np.zeros((1, *part.shape), np.float32) for name, part in self.parts.items()}
        )

    def checked_batch(self, batch: Any, *, in_support: bool = True) -> tuple[Any, ...]:
        """Returns a batch of a generator as a tuple, checked and ordered as arrays are."""
        batch = batch if isinstance(batch, tuple) else (batch,)
        if in_support:
            _refuse_targets(batch, "generator")
        try:
            x = keras.utils.unpack_x_y_sample_weight(batch)[0]
            x = self.arrays(x, in_support=in_support)
        except DataError as error:
            raise DataError(f"In a batch: {error}") from error
        return (x, *batch[1:])


def _refuse_targets(element: Any, owner: str) -> None:
    """Refuses the pair (x, y): y would be ignored."""
    if isinstance(element, tuple) and len(element) == 2 and _is_given(element[1]):
        raise DataError(
            f"A VAE models only p(x) and expects batches of x, or (x, None, sample_weight); the "
            f"{owner} yields pairs (x, y), whose y would be ignored. Yield x alone (of a dataset: "
            "dataset.map(lambda x, y: x)), or build the VAE with condition_shape= and yield "
            '{"x": x, "condition": y}.'
        )


def _is_given(part: Any) -> bool:
    return part is not None and not isinstance(part, tf.NoneTensorSpec)


def _check_finite(array: np.ndarray, name: str) -> None:
    if array.dtype.kind != "f":
        return
    for start, part in chunks(array, CHECKED_BYTES):
        if not np.isfinite(part).all():
            bad = ~np.isfinite(part).reshape(len(part), -1).all(axis=1)
            raise DataError(
                f"{name} is not finite in example {start + int(bad.argmax())} "
                f"({int(bad.sum())} such examples seen); remove or impute them first."
            )


def _nearest(name: str, names: Iterable[str]) -> str:
    """Returns the nearest of the names as a question after a space, or nothing."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _words(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
