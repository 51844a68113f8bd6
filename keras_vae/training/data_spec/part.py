"""One named array of the data: its shape and support, and the checks of its numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae.data.columns import positions
from keras_vae.data.content import listed
from keras_vae.data.frames import frame_names, rows_of_numbers
from keras_vae.data.mapped import chunks
from keras_vae.data.precision import moments, resolution, unresolved_message
from keras_vae.distributions.supports import CHECKED_BYTES, DataError, Support
from keras_vae.spelling import counted

__all__ = [
    "Part",
    "as_rows",
    "as_sizes",
    "check_finite",
    "check_mixed",
    "check_resolution",
    "shape_hint",
]


@dataclass(frozen=True)
class Part:
    """One named array of the data.

    Attributes:
        shape: shape of one example.
        support: where its values may lie; None for any finite number.
        owner: name of its distribution, for messages.
        missing: whether entries may be absent, which are NaN. A variable of several numbers, such
            as a one-hot vector, is absent as a whole.
        at_end: whether only whole steps at the end of a sequence may be absent.
    """

    shape: tuple[int, ...]
    support: Support | None = None
    owner: str = ""
    missing: bool = False
    at_end: bool = False

    def holes(self, value: tf.Tensor) -> tf.Tensor:
        """Returns which steps of sequences [n, T, ...] are absent before others, or in part."""
        absent = tf.reshape(tf.math.is_nan(value), [-1, self.shape[0], math.prod(self.shape[1:])])
        whole, some = tf.reduce_all(absent, axis=-1), tf.reduce_any(absent, axis=-1)
        followed = tf.pad(tf.logical_not(some[:, 1:]), [[0, 0], [0, 1]])
        return tf.logical_or(tf.logical_and(whole, followed), tf.logical_and(some, ~whole))

    def mask_of(self, value: tf.Tensor) -> tuple[tf.Tensor | None, np.ndarray | float]:
        """Returns where a batch [B, *shape] is present, and what stands for its absent entries.

        The mask has one boolean for each variable; it is None if no entry may be absent.
        """
        if not self.missing or self.support is None:
            return None, 0.0
        present = tf.logical_not(tf.math.is_nan(value))
        axes = list(range(-self.support.event_dim, 0))
        return tf.reduce_all(present, axis=axes) if axes else present, self.filler

    @staticmethod
    def holes_message(name: str, where: str = "") -> str:
        """Returns the message that refuses holes in sequences."""
        return (
            f"{name} has a hole{where}. Each step depends on those before it, so only whole steps "
            "at the end of a sequence may be absent (NaN). Cut the sequence there, or fill it."
        )

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
            DataError: if a variable of several numbers is absent in some of them, or a step before
                others where only the last ones may be.
        """
        if array.dtype.kind != "f" or self.support is None:
            return array
        absent = np.isnan(array)
        if not absent.any():
            return array
        if self.at_end:
            for start, rows in chunks(array, CHECKED_BYTES):
                holes = self.holes(rows).numpy()
                if holes.any():
                    example, step = np.argwhere(holes)[0]
                    raise DataError(
                        self.holes_message(name, f" at step {step} of example {start + example}")
                    )
        if self.support.event_dim:
            whole = absent[(..., *[slice(1)] * self.support.event_dim)]
            if (torn := absent != whole).any():
                raise DataError(
                    f"{name} holds {self.support.description}, each of which is present or absent "
                    f"as a whole; that of example {int(np.argwhere(torn)[0][0])} is NaN in some "
                    "entries only. Set all of its entries to NaN, or none."
                )
            absent = whole
        return np.where(absent, np.asarray(self.filler, array.dtype), array)


def as_rows(
    value: Any,
    name: str,
    part: Part,
    columns: tuple[str, ...] | None = None,
    *,
    is_named: bool = False,
) -> np.ndarray:
    """Converts the data of a part to an array [n, *shape] with one example or more.

    Args:
        value: anything that NumPy converts to an array.
        name: name of the part.
        part: the part.
        columns: order of the columns of x in the model, by which a data frame is arranged.
        is_named: whether it is one of several named parts, which may be a column [n] of numbers.

    Raises:
        DataError: if it has another shape, has no example, or does not hold numbers.
    """
    shape = part.shape
    expected = f"an array of numbers of shape [n, {as_sizes(shape)}]"
    array = rows_of_numbers(value, name, expected, missing=part.missing)
    if is_named and shape == (1,) and array.ndim == 1:
        array = array[:, np.newaxis]
    if (names := frame_names(value)) is not None and name == "x":
        order = positions(names, names if columns is None else columns, name)
        array = array if order == list(range(len(order))) else array[:, order]
    if array.shape[1:] != shape or array.ndim == 0:
        hint = shape_hint(array.shape, array.dtype.kind in "iu", name, part)
        raise DataError(
            f"{name} must have shape [n, {as_sizes(shape)}]; got {list(array.shape)}.{hint}"
        )
    if len(array) == 0:
        raise DataError(f"{name} is empty: shape {list(array.shape)}. Give one example or more.")
    return array


def shape_hint(found: Sequence[int | None], whole: bool, name: str, part: Part) -> str:
    """Returns what to do about a shape that is not [n, *shape], as a sentence after a space."""
    shape, support = part.shape, part.support
    event, categories = tuple(found[1:]), shape[-1]
    one_hot = support is None or support.event_dim == 1
    if whole and one_hot and categories > 1 and len(found) and event in (shape[:-1], (1,)):
        return f" Code integers as one-hot: keras.utils.to_categorical({name}, {categories})."
    if len(found) and (*event, 1) == shape:
        axis = "channel axis" if len(shape) > 2 else "last axis"
        return f" Add the {axis}: {name}[..., None]."
    if tuple(found) == shape:
        return f" Add the batch axis: {name}[None]."
    sizes = [size for size in event if size is not None]
    if sizes and len(sizes) == len(event) and math.prod(sizes) == math.prod(shape):
        return f" The sizes agree: {name}.reshape(-1, {as_sizes(shape)})."
    return ""


def as_sizes(shape: tuple[int, ...]) -> str:
    """Returns a shape without its brackets, for messages."""
    return ", ".join(map(str, shape))


def check_finite(array: np.ndarray, name: str) -> None:
    """Refuses numbers that are not finite.

    Raises:
        DataError: naming the first example that has one.
    """
    if array.dtype.kind != "f":
        return
    for start, chunk in chunks(array, CHECKED_BYTES):
        if not np.isfinite(chunk).all():
            bad = ~np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1)
            raise DataError(
                f"{name} is not finite in example {start + int(bad.argmax())} "
                f"({counted(int(bad.sum()), 'such example')} seen); remove or impute them first."
            )


def check_mixed(part: Part, whole: Mapping[str, str], dtype: Any) -> None:
    """Refuses integer columns that a data frame hides among real ones, under a density.

    Args:
        part: the part.
        whole: dtypes of the integer columns by name.
        dtype: dtype of all columns together.

    Raises:
        DataError: naming the integer columns.
    """
    support = part.support
    if support and whole and np.dtype(dtype).kind == "f" and not support.integer_dtype:
        raise DataError(
            f"{part.owner} models {support.description}; got integers in "
            f"the columns {listed([f'{name} ({dtype})' for name, dtype in whole.items()])}. "
            "Add uniform noise on [0, 1) to them, as the command line does, or declare them "
            "real numbers with frame.astype(float)."
        )


def check_resolution(
    name: str, part: Part, x: np.ndarray, columns: tuple[str, ...] | None = None
) -> None:
    """Refuses data under a density whose columns float32 cannot tell apart.

    Args:
        name: name of the part.
        part: the part, with a support.
        x: its data, [n, *shape].
        columns: names of the columns of x, for the message.

    Raises:
        DataError: if the error of a column in float32 is over 1/64 of its standard deviation.
    """
    if part.support is None or part.support.is_discrete is not False or x.dtype != np.float64:
        return
    x = np.asarray(x).reshape(len(x), -1, x.shape[-1] if x.ndim > 1 else 1)
    with np.errstate(invalid="ignore", over="ignore"):
        if part.missing and (absent := np.isnan(x)).any():
            counts = np.maximum((~absent).sum((0, 1)), 1)
            x = np.where(absent, np.where(absent, 0.0, x).sum((0, 1)) / counts, x)
        mean, deviation = moments(x)
        ends = [(each.min((0, 1)), each.max((0, 1))) for _, each in chunks(x, CHECKED_BYTES)]
        low = np.min([least for least, _ in ends], axis=0)
        high = np.max([most for _, most in ends], axis=0)
        error, negligible, unresolved = resolution(low, high, deviation)
    for index in map(int, np.flatnonzero(unresolved & ~negligible)):
        what = f"Column {columns[index]!r} of x" if columns else f"Entry {index} of {name}"
        raise DataError(unresolved_message(what, mean[index], deviation[index], error[index]))
