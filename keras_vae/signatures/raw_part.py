"""Parts of the data in the units of the file, and their conversion in a graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.data.preparation import Preparation
from keras_vae.data.schema import Column
from keras_vae.distributions.noise import Noise
from keras_vae.integrity import as_word
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.training.data_spec import Part

__all__ = ["Limits", "Preparations", "RawPart", "raw_parts", "within"]

Preparations = Preparation | Mapping[str, Preparation] | None
"""Preparation of the only part of the data, or preparations by part; None where there is none."""


@dataclass(frozen=True)
class Limits:
    """Numbers that a tensor may hold: finite ones from low to high.

    Attributes:
        low, high: bounds, which are among them; infinite if there are none.
        whole: whether all are whole.
        missing: whether NaN, an absent number, may be among them.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    missing: bool = False


def within(tensors: Sequence[tuple[tf.Tensor, Limits]]) -> tf.Tensor:
    """Tells which numbers of tensors [b, ...] are within the limits of each, as one matrix.

    All are checked as one tensor: an op of a small graph costs as much as many numbers.
    """
    sizes = [math.prod(x.shape[1:]) for x, _ in tensors]
    flat = [
        x if x.shape.rank == 2 else tf.reshape(x, [-1, size])
        for (x, _), size in zip(tensors, sizes, strict=True)
    ]
    x = flat[0] if len(flat) == 1 else tf.concat(flat, axis=1)

    def of_all(name: str, dtype: type) -> np.ndarray:
        """Returns a limit of every number of a row, or one if it is that of all."""
        values: np.ndarray = np.array([getattr(limits, name) for _, limits in tensors], dtype)
        return values[0] if (values == values[0]).all() else np.repeat(values, sizes)

    low, high = of_all("low", np.float32), of_all("high", np.float32)
    whole, missing = of_all("whole", bool), of_all("missing", bool)
    nearest = tf.maximum(x, low) if np.isfinite(low).any() else x
    nearest = tf.minimum(nearest, high) if np.isfinite(high).any() else nearest
    if whole.any():
        rounded = tf.round(nearest)
        nearest = rounded if whole.all() else tf.where(whole, rounded, nearest)
    if np.isfinite(low).all() and np.isfinite(high).all():
        inside = tf.equal(x, nearest)  # infinity, and NaN, are not
    else:
        inside = tf.abs(x) < np.float32(np.inf)
        inside = inside if nearest is x else inside & tf.equal(x, nearest)
    if missing.any():
        absent = tf.math.is_nan(x)
        inside = inside | (absent if missing.all() else absent & missing)
    return inside


@dataclass(frozen=True)
class RawPart:
    """A part of the data as the file holds it.

    Attributes:
        name: name of the part.
        part: its shape and support as the model takes it.
        how: its preparation.
        index: its place among the parts, which numbers its noise.
        is_named: whether tensors of the signatures bear its name.
        column: its column of the model's schema, if there is one.
    """

    name: str
    part: Part
    how: Preparation
    index: int
    is_named: bool
    column: Column | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example in the file; one category of a named part is [1]."""
        if not self.how.categories:
            return self.part.shape
        return self.part.shape[:-1] or ((1,) if self.is_named else ())

    @property
    def variables(self) -> int:
        """Number of variables; a one-hot vector is one."""
        event_dim = self.part.support.event_dim if self.part.support else 0
        return math.prod(self.part.shape[: len(self.part.shape) - event_dim])

    @property
    def range(self) -> tuple[float | None, float | None]:
        """Smallest and largest number that the file may hold; None where there is no bound."""
        support, column = self.part.support, self.column
        if column is not None and column.kind in ("count", "positive", "proportion"):
            return 0.0, (column.top if column.kind == "proportion" else None)
        return self.how.range or ((None, None) if support is None else (support.low, support.high))

    @property
    def is_open(self) -> bool:
        """Whether the ends of the range are numbers that the file may not hold."""
        support, column = self.part.support, self.column
        if column is not None:
            has_no_zero = column.kind == "positive" and not column.whole
            return has_no_zero or column.form == "open_share"
        return support is not None and support.is_open and self._is_as_in_the_file

    @property
    def is_one_hot(self) -> bool:
        """Whether the last axis of the numbers in the file holds one-hot vectors."""
        support = self.part.support
        return support is not None and support.is_one_hot and not self.how.categories

    @property
    def is_whole(self) -> bool:
        """Whether the file may hold whole numbers alone, by its column or its support."""
        support, column = self.part.support, self.column
        if column is not None and not column.is_coded:
            return column.whole
        return support is not None and support.is_whole and self._is_as_in_the_file

    @property
    def grid(self) -> float | None:
        """Distance of the numbers to which draws are rounded, by its column; None leaves them.

        Whole numbers of the likelihood or the preparation need no rounding.
        """
        column, support = self.column, self.part.support
        if column is None or column.is_coded or column.digits is None or any(self.how.whole):
            return None
        is_whole = support is not None and support.is_whole
        return None if is_whole and self._is_as_in_the_file else 10.0**-column.digits

    @property
    def _is_as_in_the_file(self) -> bool:
        """Whether the numbers of the file are those that the likelihood models, or their codes."""
        return self.how.step == "none" and self.how.divide == 1.0 and not self.how.center

    def tensor(self, kind: str) -> str:
        """Returns the name of a tensor of the signatures: x, mean, sample, distortion, ..."""
        return f"{kind}_{as_word(self.name)}" if self.is_named else kind

    @property
    def noise(self) -> Noise | None:
        """Noise of the random step of the preparation; None if it has none."""
        how = self.how
        if how.step not in ("binarize", "dequantize") and not how.noise.size:
            return None
        return Noise(self.shape, "uniform", random.PREPARATION, self.index)

    def given(self, x: tf.Tensor) -> tf.Tensor:
        """Returns numbers of the file in which those that stand for a missing one are NaN."""
        if self.column is None or self.column.is_coded:
            return x
        for number in self.column.missing_numbers:
            x = tf.where(x == np.float32(number), np.float32(np.nan), x)
        return x

    @property
    def limits(self) -> Limits:
        """Which numbers the file may hold.

        An open end is among them: the model takes it for the nearest number inside.
        """
        low, high = self.range
        return Limits(
            -math.inf if low is None else low,
            math.inf if high is None else high,
            self.is_whole or bool(self.how.categories),
            self.part.missing,
        )

    def single_ones(self, x: tf.Tensor) -> tf.Tensor:
        """Tells which one-hot vectors along the last axis of x have the sum 1, or may be absent."""
        found = tf.equal(tf.reduce_sum(x, axis=-1), 1.0)
        return found | tf.reduce_all(tf.math.is_nan(x), axis=-1) if self.part.missing else found

    def prepared(self, x: tf.Tensor, u: tf.Tensor | None, dtype: str) -> tf.Tensor:
        """Returns model data, by the arithmetic of `Preparation.static` and its random step.

        NaN stays NaN. What follows the end of a text is absent. Numbers outside the `limits` become
        anything.

        Args:
            x: numbers of the file, [b, *shape].
            u: uniform numbers for the random step, of the shape that `noise` says; None puts its
                mean in its place.
            dtype: dtype of the result.
        """
        how, raw = self.how, self.given(x)
        x = raw
        if how.center:
            x = (x - np.asarray(how.center, np.float32)) / np.asarray(how.spread, np.float32)
        if how.vocabulary is not None:
            x = tf.where(_follows_end(x), np.float32(np.nan), x)
        if how.categories:
            x = self._one_hot(tf.reshape(x, [-1, *self.part.shape[:-1]]))
        if how.divide != 1.0:
            x = x / how.divide
        if how.step == "binarize" and u is not None:
            drawn = tf.cast(u < x, tf.float32)
            x = tf.where(tf.math.is_nan(raw), raw, drawn)
        if how.step == "dequantize" or how.noise.size:
            added = 0.5 if u is None else u
            x = (x + added) / how.levels if how.step == "dequantize" else x + added * how.noise
        return tf.cast(x, dtype)

    def ended(self, x: tf.Tensor) -> tf.Tensor:
        """Repeats the end of a text after it, in numbers of tokens [b, T]; other data is kept."""
        return x if self.how.vocabulary is None else tf.where(_follows_end(x), 0.0, x)

    def _one_hot(self, codes: tf.Tensor) -> tf.Tensor:
        codes = codes[..., tf.newaxis]
        coded = codes == np.arange(self.how.categories, dtype=np.float32)
        return tf.where(tf.math.is_nan(codes), codes, tf.cast(coded, tf.float32))

    def raw(self, x: tf.Tensor, is_mean: bool = False) -> tf.Tensor:
        """Returns model data in the units of the file; whole numbers where the file has them.

        Args:
            x: draws, or means, of which those of categories stay probabilities.
            is_mean: whether x is a mean.
        """
        how, x = self.how, tf.cast(x, tf.float32)
        if how.categories and not is_mean:
            x = tf.cast(tf.argmax(x, axis=-1), tf.float32)
            x = tf.reshape(x, [-1, *self.shape]) if self.is_named else x
        if how.step == "dequantize":
            levels = x * how.levels - (0.5 if is_mean else 0.0)
            x = levels if is_mean else tf.clip_by_value(tf.floor(levels), 0.0, how.levels - 1.0)
        x = x * how.divide if how.divide != 1.0 else x
        if how.center:
            x = x * np.asarray(how.spread, np.float32) + np.asarray(how.center, np.float32)
        if any(how.whole):
            x = tf.where(np.asarray(how.whole), x - 0.5 if is_mean else tf.floor(x), x)
        if any(how.constant):
            x = tf.where(np.asarray(how.constant), np.asarray(how.center, np.float32), x)
        return x if is_mean or self.column is None else self._inside(self.column, x)

    def _inside(self, column: Column, x: tf.Tensor) -> tf.Tensor:
        """Moves draws into what the column may hold, as the schema does."""
        if column.is_coded:
            return x
        low, high = column.bounds
        x = tf.maximum(x, low) if np.isfinite(low) else x
        x = tf.minimum(x, high) if np.isfinite(high) else x
        if self.grid is None:
            return x
        units = np.float32(1.0 / self.grid)
        return tf.round(x * units) / units

    def log_volume(self, present: tf.Tensor | None) -> tf.Tensor | float:
        """Returns the nats that convert log p of model data to log p of the numbers in the file.

        Args:
            present: which entries are present, [b, *shape]; None if all are.
        """
        how, shape = self.how, self.part.shape
        if present is None or how.nats_offset == 0.0:
            return how.nats_offset * math.prod(shape)
        each = -np.log(np.asarray(how.spread)) if how.spread else how.nats_offset
        entries = tf.where(present, np.broadcast_to(each, shape).astype(np.float32), 0.0)
        return tf.reduce_sum(entries, axis=list(range(1, 1 + len(shape))))


def _follows_end(tokens: tf.Tensor) -> tf.Tensor:
    """Returns which numbers of tokens [b, T] follow the first end, which is token 0."""
    return tf.cumsum(tf.cast(tokens == 0.0, tf.float32), axis=-1, exclusive=True) > 0.0


def raw_parts(model: LatentVariableModel, preparation: Preparations = None) -> dict[str, RawPart]:
    """Returns the observed parts of a model's data in the units of the file, by name.

    Args:
        model: the model.
        preparation: preparation of its only part, or preparations by part; None is that of the
            model's schema if it has one.

    Raises:
        ValueError: if a preparation is for no part, one is given for several, or the tensors of two
            parts would have the same names.
    """
    observed, schema = model.data.observed, model.data.schema
    is_named = model.data.is_dict or len(observed) > 1
    columns = {} if schema is None else schema.columns
    if columns and preparation in (None, Preparation()):
        preparation = {name: column.preparation for name, column in columns.items()}
    if preparation is None:
        preparation = {}
    elif isinstance(preparation, Preparation):
        if is_named and preparation != Preparation():
            raise ValueError(
                f"This model has the parts {', '.join(observed)}; got one preparation. Give a dict "
                "of preparations by part."
            )
        preparation = {} if is_named else {next(iter(observed)): preparation}
    unknown = [name for name in preparation if name not in observed]
    if unknown:
        raise ValueError(
            f"Got a preparation of {unknown[0]!r}, but the parts of this model are "
            f"{', '.join(observed)}. Correct the name."
        )
    words: dict[str, str] = {}
    for name in observed:
        if (other := words.setdefault(as_word(name), name)) != name:
            raise ValueError(
                f"The parts {other!r} and {name!r} would share tensors called x_{as_word(name)}, "
                "of letters, digits and _ alone. Rename one of them."
            )
    return {
        name: RawPart(
            name, part, preparation.get(name, Preparation()), index, is_named, columns.get(name)
        )
        for index, (name, part) in enumerate(observed.items())
    }
