"""Preparation: turns the numbers of a file into the data that a likelihood models."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vae.data.content import DataError, listed
from keras_vae.data.facts import Facts
from keras_vae.data.mapped import chunks, is_mapped
from keras_vae.data.precision import moments, resolution, unresolved_message
from keras_vae.data.row_views import ComputedRows, DrawnRows
from keras_vae.data.source import Source
from keras_vae.data.stream import batches
from keras_vae.data.transforms import binarize, dequantize
from keras_vae.spelling import counted
from keras_vae.tokens import Tokens

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Preparation", "binarized", "divided", "one_hot", "positive", "proportions", "real"]

_MOST_LEVELS = 2**16
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Preparation:
    """Map from raw data to model data, determined by the training set and stored with the run.

    The steps are `(raw - center) / spread` per feature, in float32 as in every artifact, or one-hot
    coding with `categories`; then division by `divide`; then one random step per presentation. A
    feature is an entry of the last axis.

    Attributes:
        step: "none", "binarize" (Bernoulli draw) or "dequantize" (uniform noise within a level).
        divide: the largest level, for "binarize" and "none".
        levels: number of levels, for "dequantize".
        categories: number of categories of one-hot coding, 0 for none.
        center, spread: float32 numbers per feature; empty for none.
        whole: per feature, whether it holds whole numbers: uniform noise on [0, 1) is added to
            them, which makes the density a bound on their probability. Empty for none.
        constant: per feature, whether it is constant: it gets the same noise, so the density cannot
            grow without bound, and every draw is the constant. Empty for none.
        vocabulary: tokens of texts, whose numbers are the categories; None for other data.
        sentence: description for readers.
    """

    step: str = "none"
    divide: float = 1.0
    levels: int = 0
    categories: int = 0
    center: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    whole: tuple[bool, ...] = ()
    constant: tuple[bool, ...] = ()
    sentence: str = "as in the file"
    vocabulary: Tokens | None = None

    @property
    def range(self) -> tuple[float, float] | None:
        """Lowest and highest raw value that it accepts; None if the likelihood decides."""
        if self.categories:
            return 0.0, self.categories - 1.0
        if self.step == "dequantize":
            return 0.0, self.levels - 1.0
        if self.step == "binarize" or self.divide != 1.0:
            return 0.0, self.divide
        return None

    @property
    def noise(self) -> np.ndarray:
        """Width of the uniform noise on each feature of the model data, float32; empty for none."""
        noisy = [any(flags) for flags in zip_longest(self.whole, self.constant, fillvalue=False)]
        if not any(noisy):
            return np.zeros(0, np.float32)
        return np.asarray(noisy, np.float32) / np.asarray(self.spread, np.float32)

    @property
    def is_dequantised(self) -> bool:
        """Whether all data is whole numbers, whose probability the density bounds."""
        return self.step == "dequantize" or (bool(self.noise.size) and bool(self.noise.all()))

    @property
    def is_mixed(self) -> bool:
        """Whether some features are dequantised whole numbers and the others real."""
        return any(self.whole) and not self.is_dequantised

    def static(self, raw: Any) -> Any:
        """Applies the deterministic steps that change shape or centre, or returns `raw` itself.

        What follows the end of a text is absent.

        Rows of a file become `LazyRows`, which are changed when they are read.

        Raises:
            DataError: if a value lies outside `range`.
        """
        self._check(raw)
        if not (self.center or self.categories):
            return raw
        if not is_mapped(raw):
            return self._moved(raw)
        one_hot = (self.categories,) if self.categories else ()
        return ComputedRows(raw, self._moved, (*raw.shape[1:], *one_hot), np.float32)

    def _moved(self, raw: np.ndarray) -> np.ndarray:
        """Centres and scales, or codes one-hot."""
        if self.center:
            centred = raw.astype(np.float32) - np.asarray(self.center, np.float32)
            centred /= np.asarray(self.spread, np.float32)
            return centred
        absent = np.isnan(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, bool)
        if self.vocabulary is not None:
            is_end = raw == 0
            absent |= np.cumsum(is_end, axis=-1) > is_end
        codes = np.where(absent, 0, raw).astype(np.int64)
        coded = np.eye(self.categories, dtype=np.float32)[codes]
        coded[absent] = np.nan
        return coded

    def _check(self, raw: np.ndarray) -> None:
        if self.center and len(self.center) != raw.shape[-1]:
            raise DataError(
                f"Expected the {counted(len(self.center), 'feature')} of the training data; got "
                f"{raw.shape[-1]}. Give the same ones."
            )
        if self.range is None:
            return
        low, high = self.range
        for start, part in chunks(raw):
            outside = ((part < low) | (part > high)).reshape(len(part), -1)
            if outside.any():
                row, entry = np.argwhere(outside)[0]
                raise DataError(
                    f"The model was trained on values from {low:g} to {high:g}; got "
                    f"{part.reshape(len(part), -1)[row, entry]:g} in example {start + int(row)}. "
                    "Leave such examples out, or train again and set the largest possible value "
                    "with --top (or --levels or --total-count, if the likelihood takes it)."
                )

    def stream(self) -> dict[str, Any]:
        """Returns the arguments `rescale` and `transform` of `keras_vae.data.batches`."""
        transform: Callable[..., Any] | None = None
        if self.step == "binarize":
            transform = binarize
        elif self.step == "dequantize":
            transform = functools.partial(dequantize, levels=self.levels)
        elif self.noise.size:
            transform = _AddUniform(tuple(self.noise.tolist()))
        return {
            "rescale": None if self.divide == 1.0 else 1.0 / self.divide,
            "transform": transform,
        }

    def array(self, raw: Any, seed: int = 0) -> Any:
        """Returns all of `raw` [N, ...] as model data, random steps drawn once with `seed`.

        Rows of a file become `LazyRows` with the same numbers, which are drawn when they are read.
        """
        static = self.static(raw)
        stream = batches(static, _ROWS_AT_ONCE, seed=seed, shuffle=False, **self.stream())
        if not is_mapped(static):
            return np.concatenate([batch.numpy() for batch in stream])
        return DrawnRows(functools.partial(_drawn, stream.source), _ROWS_AT_ONCE, static.shape)

    def mean(self, raw: Any) -> np.ndarray:
        """Returns the mean of the model data over `raw` [N, ...] and the random step, [...]."""
        static = self.static(raw)
        if is_mapped(static):
            sums = (part.sum(axis=0, dtype=np.float64) for _, part in chunks(static))
            mean = sum(sums) / len(static) / self.divide
        else:
            mean = static.mean(axis=0, dtype=np.float64) / self.divide
        if self.step == "dequantize":
            return (mean + 0.5) / self.levels
        return mean + 0.5 * self.noise if self.noise.size else mean

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal of everything that changes a number: all fields but the sentence.

        Fields at their defaults do not count, so a new field does not change old digests.
        """
        said = {
            entry.name: (_plain(getattr(self, entry.name)), _plain(entry.default))
            for entry in fields(self)
            if entry.name != "sentence"
        }
        values = {name: value for name, (value, default) in said.items() if value != default}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def nats_offset(self) -> float:
        """Nats per dimension that convert a bound on prepared data to one on the raw data.

        They come from the change of variables of densities; binarised data has no density.
        """
        if self.step == "dequantize":
            return -float(np.log(self.levels))
        if self.step == "none" and self.divide != 1.0:
            return -float(np.log(self.divide))
        if self.spread:
            return -float(np.mean(np.log(self.spread)))
        return 0.0


def _drawn(source: Source, number: int) -> np.ndarray:
    """Returns a batch of the first epoch of a source, in order."""
    import tensorflow as tf

    first = number * source.batch_size
    rows = tf.range(first, min(first + source.batch_size, source.examples), dtype=tf.int64)
    epoch, batch = tf.constant(0, tf.int64), tf.constant(number, tf.int64)
    return source.gather(source.all_tables, epoch, batch, rows).numpy()


def _plain(value: Any) -> Any:
    """Converts the numbers of a field to Python floats, however they were written."""
    if isinstance(value, Tokens):
        return value.stated()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return float(value) if isinstance(value, int | float | np.generic) else value


@dataclass(frozen=True)
class _AddUniform:
    """Random step of `data.batches`: adds uniform noise of the given width to each feature."""

    width: tuple[float, ...]

    def __call__(self, x: Any, seed: Any) -> tf.Tensor:
        import tensorflow as tf

        u = tf.random.stateless_uniform(tf.shape(x), seed, alg="philox")
        return x + u * tf.constant(self.width, x.dtype)


def binarized(facts: Facts, owner: str) -> Preparation:
    """Returns the preparation for a likelihood of zeros and ones; grey levels are binarised.

    Raises:
        DataError: if the data is neither.
    """
    _check_grey(facts, owner)
    if bool(facts.whole.all()) and facts.top <= 1.0:
        return Preparation()
    sentence = f"grey levels 0 to {facts.top:g} binarised anew at each presentation"
    return Preparation("binarize", facts.top, sentence=sentence)


def divided(facts: Facts, owner: str) -> Preparation:
    """Returns the preparation for a likelihood of numbers in [0, 1].

    Raises:
        DataError: if the data is not grey levels.
    """
    _check_grey(facts, owner)
    top = facts.top
    return Preparation() if top == 1.0 else Preparation(divide=top, sentence=f"divided by {top:g}")


def _check_grey(facts: Facts, owner: str) -> None:
    if not facts.are_grey:
        kind = {2: "this table", 3: "these series"}.get(facts.rank, "this data")
        raise DataError(
            f"{owner} models images and numbers in [0, 1]; {kind} holds values from "
            f"{facts.lowest:g} to {facts.highest:g}. Choose --likelihood normal, or poisson for "
            "counts; for grey levels set the largest possible value with --top."
        )


def one_hot(facts: Facts) -> Preparation:
    """Returns the preparation for a likelihood of one-hot vectors; whole numbers are coded."""
    if not facts.are_counts or facts.are_one_hot:
        return Preparation()
    count = int(facts.highest) + 1
    return Preparation(
        categories=count,
        sentence=f"one-hot coded, {counted(count, 'category', plural='categories')}",
    )


def real(facts: Facts, owner: str) -> Preparation:
    """Returns the preparation for a density of real numbers.

    Images of whole numbers are dequantised, and each feature of other data is standardised.

    Raises:
        DataError: if a largest value is given and has no meaning, or float32 cannot tell the values
            of a feature apart.
    """
    if facts.rank == 4 and facts.are_counts and facts.top < _MOST_LEVELS:
        levels = int(facts.top) + 1
        sentence = f"levels 0 to {facts.top:g} dequantised: (x + u) / {levels}, u uniform on [0, 1)"
        return Preparation("dequantize", levels=levels, sentence=sentence)
    if facts.declared_top is not None:
        raise DataError(
            f"The largest possible value {facts.declared_top:g} is for images of whole numbers, "
            f"and has no effect on {owner} here. Leave --top out."
        )
    return _standardised(facts)


def proportions(facts: Facts, owner: str) -> Preparation:
    """Returns the preparation for a likelihood of numbers strictly between 0 and 1.

    Raises:
        DataError: if a number is neither that nor strictly between 0 and the declared largest one.
    """
    top = 1.0 if facts.declared_top is None else facts.declared_top
    if not (facts.lowest > 0.0 and facts.highest < top):
        raise DataError(
            f"{owner} models numbers between 0 and {top:g} without either; this data reaches from "
            f"{facts.lowest:g} to {facts.highest:g}. Choose --likelihood continuous_bernoulli for "
            "grey levels and for data with zeros or ones; for percentages set --top 100."
        )
    return Preparation() if top == 1.0 else Preparation(divide=top, sentence=f"divided by {top:g}")


def positive(facts: Facts, owner: str) -> Preparation:
    """Returns the preparation for a density of positive numbers: each feature has a mean of 1.

    Whole numbers get uniform noise on [0, 1).

    Raises:
        DataError: if a feature reaches 0 or below, or float32 cannot tell its values apart.
    """
    for index in map(int, np.flatnonzero(facts.low <= 0.0)):
        raise DataError(
            f"{owner} models positive numbers; {_feature(facts, index)} reaches down to "
            f"{facts.low[index]:g}. Choose --likelihood normal or student_t, or censored_normal "
            "for measurements that stop at a limit."
        )
    mean, deviation = moments(facts.raw)
    _refuse_unresolved(facts, mean, deviation, np.sqrt(deviation**2 + facts.whole / 12.0))
    sentence = "each feature divided by its mean"
    if facts.whole.any():
        sentence = f"{_dequantised(facts.whole)}, then {sentence}"
    return Preparation(
        center=(0.0,) * len(mean),
        spread=tuple((mean + 0.5 * facts.whole).astype(np.float32).tolist()),
        whole=tuple(facts.whole.tolist()) if facts.whole.any() else (),
        sentence=sentence,
    )


def _feature(facts: Facts, index: int) -> str:
    return f"feature {facts.names[index]!r}" if facts.names else f"feature number {index}"


def _dequantised(whole: np.ndarray) -> str:
    which = (
        "whole numbers"
        if whole.all()
        else f"{counted(int(whole.sum()), 'feature')} of whole numbers"
    )
    return f"{which} dequantised, x + u with u uniform on [0, 1)"


def _refuse_unresolved(
    facts: Facts, mean: np.ndarray, deviation: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """Refuses features that vary but not in float32; returns whether each counts as constant."""
    error, negligible, unresolved = resolution(facts.low, facts.high, spread)
    constant = negligible & (~facts.whole | unresolved)
    for index in map(int, np.flatnonzero(unresolved & ~constant)):
        what = _feature(facts, index).replace("f", "F", 1)
        raise DataError(unresolved_message(what, mean[index], deviation[index], error[index]))
    return constant


def _standardised(facts: Facts) -> Preparation:
    """Returns the preparation that centres and scales each feature, whole numbers with noise.

    Centre and spread are float32 numbers, so float32 arithmetic is the same everywhere.
    """
    mean, deviation = moments(facts.raw)
    names = facts.names
    spread = np.sqrt(deviation**2 + facts.whole / 12.0)
    constant = _refuse_unresolved(facts, mean, deviation, spread)
    whole = facts.whole & ~constant
    sentence = "each feature centred and divided by its standard deviation"
    if whole.any():
        sentence = f"{_dequantised(whole)}, then {sentence}"
    if constant.any():
        labels = [names[i] if names else f"number {i}" for i in map(int, np.flatnonzero(constant))]
        sentence += f"; constant: {listed(labels)}"
    center = np.where(constant, facts.low, mean + 0.5 * whole).astype(np.float32)
    return Preparation(
        center=tuple(center.tolist()),
        spread=tuple(np.where(constant, 1.0, spread).astype(np.float32).tolist()),
        whole=tuple(whole.tolist()) if whole.any() else (),
        constant=tuple(constant.tolist()) if constant.any() else (),
        sentence=sentence,
    )
