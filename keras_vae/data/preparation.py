"""Preparation: turns the numbers of a file into the data that a likelihood models."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from keras_vae import data
from keras_vae.data.content import listed
from keras_vae.data.mapped import slices
from keras_vae.data.precision import moments, resolution, unresolved_message

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "Facts",
    "Preparation",
    "Proposal",
    "binarized",
    "divided",
    "one_hot",
    "prepare",
    "propose",
    "real",
]

_READ_BYTES = 16 * 2**20
_BIT_DEPTHS = (8, 10, 12, 14, 16)
_MOST_LEVELS = 2**16
_MOST_BINS = 2**10
_SPARSE = 0.5
_FEW_PIXELS = 64


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

    def static(self, raw: np.ndarray) -> np.ndarray:
        """Applies the deterministic steps that change shape or centre, or returns `raw` itself.

        Raises:
            DataError: if a value lies outside `range`.
        """
        self._check(raw)
        if self.center:
            centred = raw.astype(np.float32) - np.asarray(self.center, np.float32)
            centred /= np.asarray(self.spread, np.float32)
            return centred
        if self.categories:
            return np.eye(self.categories, dtype=np.float32)[raw.astype(np.int64)]
        return raw

    def _check(self, raw: np.ndarray) -> None:
        if self.center and len(self.center) != raw.shape[-1]:
            raise data.DataError(
                f"Expected the {len(self.center)} features of the training data; got "
                f"{raw.shape[-1]}. Give the same ones."
            )
        if self.range is None:
            return
        low, high = self.range
        for start, part in slices(raw, _READ_BYTES):
            outside = ((part < low) | (part > high)).reshape(len(part), -1)
            if outside.any():
                row, entry = np.argwhere(outside)[0]
                raise data.DataError(
                    f"The model was trained on values from {low:g} to {high:g}; got "
                    f"{part.reshape(len(part), -1)[row, entry]:g} in example {start + int(row)}. "
                    "Leave such examples out, or train again and set the largest possible value "
                    "with --top (or --levels or --total-count, if the likelihood takes it)."
                )

    def stream(self) -> dict[str, Any]:
        """Arguments `rescale` and `transform` of `keras_vae.data.batches`."""
        transform: Callable[..., Any] | None = None
        if self.step == "binarize":
            transform = data.binarize
        elif self.step == "dequantize":
            transform = functools.partial(data.dequantize, levels=self.levels)
        elif self.noise.size:
            transform = _AddUniform(tuple(self.noise.tolist()))
        return {
            "rescale": None if self.divide == 1.0 else 1.0 / self.divide,
            "transform": transform,
        }

    def array(self, raw: np.ndarray, seed: int = 0) -> np.ndarray:
        """Returns all of `raw` [N, ...] as model data, random steps drawn once with `seed`."""
        stream = data.batches(self.static(raw), 1000, seed=seed, shuffle=False, **self.stream())
        return np.concatenate([batch.numpy() for batch in stream])

    def mean(self, raw: np.ndarray) -> np.ndarray:
        """Returns the mean of the model data over `raw` [N, ...] and the random step, [...]."""
        mean = self.static(raw).mean(axis=0, dtype=np.float64) / self.divide
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


def _plain(value: Any) -> Any:
    """Converts the numbers of a field to Python floats, however they were written."""
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


class Proposal(NamedTuple):
    """A likelihood proposed from data.

    Attributes:
        likelihood: name as in `keras_vae.mlp_vae`.
        options: arguments of the likelihood.
        reason: what the data looks like, for readers.
    """

    likelihood: str
    options: dict[str, Any]
    reason: str


@dataclass(frozen=True)
class Facts:
    """Properties of a data set, from which a likelihood decides how to prepare it.

    Attributes:
        raw: training data [N, ...].
        low, high: smallest and largest number of each feature, over all parts of the data set.
        whole: per feature, whether it holds whole numbers.
        zeros: share of zeros.
        declared_top: the largest possible value of an entry if the user gave it, or None.
        names: names of the features, or empty.
    """

    raw: np.ndarray
    low: np.ndarray
    high: np.ndarray
    whole: np.ndarray
    zeros: float
    declared_top: float | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        parts: Sequence[np.ndarray],
        *,
        top: float | None = None,
        names: Sequence[str] = (),
    ) -> Facts:
        """Collects the properties of all parts of a data set; the first is the training set."""
        features = parts[0].shape[-1]
        low, high = np.full(features, np.inf), np.full(features, -np.inf)
        whole = np.ones(features, bool)
        zeros = 0
        for array in parts:
            for _, part in slices(array, _READ_BYTES):
                rows = part.reshape(-1, features)
                low = np.minimum(low, rows.min(axis=0))
                high = np.maximum(high, rows.max(axis=0))
                zeros += rows.size - int(np.count_nonzero(rows))
                if rows.dtype.kind == "f" and whole.any():
                    whole &= (rows == np.rint(rows)).all(axis=0)
        share = zeros / sum(array.size for array in parts)
        return cls(parts[0], low, high, whole, share, top, tuple(names))

    @property
    def rank(self) -> int:
        """Number of axes: 2 of a table, 3 of series, 4 of images."""
        return self.raw.ndim

    @property
    def lowest(self) -> float:
        """Smallest number."""
        return float(self.low.min())

    @property
    def highest(self) -> float:
        """Largest number."""
        return float(self.high.max())

    @property
    def are_counts(self) -> bool:
        """Whether all numbers are whole and none is negative."""
        return bool(self.whole.all()) and self.lowest >= 0.0

    @property
    def are_levels(self) -> bool:
        """Whether whole numbers of such data are grey levels."""
        return self.rank == 4 or self._is_flat_image or self.declared_top is not None

    @property
    def are_grey(self) -> bool:
        """Whether all entries share one range from 0, as the pixels of images do."""
        is_shared = self.rank == 4 or self.highest <= 1.0 or self.declared_top is not None
        return self.lowest >= 0.0 and is_shared

    @property
    def are_sparse(self) -> bool:
        """Whether at least half of the numbers are 0."""
        return self.zeros >= _SPARSE

    @property
    def are_one_hot(self) -> bool:
        """Whether the last axis holds a single 1."""
        raw = self.raw
        is_one = raw.ndim > 2 and (raw.max(axis=-1) == 1).all() and (raw.sum(axis=-1) == 1).all()
        return bool(is_one)

    @property
    def kind(self) -> str:
        """Description of the data."""
        return {2: "a table", 3: "series", 4: "images"}.get(self.rank, "arrays")

    @property
    def scale(self) -> str:
        """Mode of the scale of a density for such data."""
        return "optimal" if self.rank == 4 else "per_feature"

    @property
    def _is_flat_image(self) -> bool:
        """Whether a table looks like the pixels of 8-bit images."""
        return self.rank == 2 and self.highest == 255.0 and len(self.low) >= _FEW_PIXELS

    @property
    def top(self) -> float:
        """Largest value that an entry can have, judged by the data and its dtype."""
        if self.declared_top is not None:
            return self.declared_top
        if self.highest <= 1.0:
            return 1.0
        if self.raw.dtype == np.uint8:
            return 255.0
        if self.raw.dtype == np.uint16 and self.rank == 4:
            return float(next(2**k - 1 for k in _BIT_DEPTHS if self.highest < 2**k))
        return self.highest

    @property
    def are_few_levels(self) -> bool:
        """Whether the data is grey levels, and few enough to sum over."""
        return self.are_counts and self.are_levels and self.top < _MOST_BINS


class Family(Protocol):
    """Decisions of a likelihood about data."""

    def proposal(self, facts: Facts) -> Proposal | None:
        """Proposes the family for data that it suits; returns None for other data."""

    def prepare(self, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Decides how the data becomes model data, and options that follow from the data."""


def propose(
    families: Iterable[Family], parts: Sequence[np.ndarray], *, top: float | None = None
) -> Proposal:
    """Returns the proposal of the first likelihood that suits a data set.

    With those of `keras_vae.factories.LIKELIHOODS`:

    | data | likelihood |
    |---|---|
    | zeros and ones | bernoulli |
    | images of up to 1024 levels, 0 to 1023 | discretized_logistic |
    | images of real numbers in [0, 1] | continuous_bernoulli |
    | whole numbers from 0 on, at least half of them 0 | poisson |
    | other tables and series | normal, one scale per feature |
    | other images | normal, one optimal scale |

    Nothing is binarised: black-and-white data stays as it is, and grey levels are modelled
    directly. The mean of a discretised logistic is a sum over its levels, so images with more
    levels are proposed as dequantised normal data.

    Args:
        families: classes of likelihoods, in the order in which they are asked.
        parts: all parts of the data set, such as training and test part, [N, ...] each.
        top: the largest possible value of an entry, which makes whole numbers grey levels.

    Raises:
        DataError: if no likelihood suits the data.
    """
    facts = Facts.of(parts, top=top)
    for family in families:
        if (found := family.proposal(facts)) is not None:
            return found
    raise data.DataError(f"No likelihood suits {facts.kind}: choose one with --likelihood.")


def prepare(
    family: Family,
    raw: np.ndarray,
    others: Sequence[np.ndarray] = (),
    *,
    top: float | None = None,
    names: Sequence[str] = (),
) -> tuple[Preparation, dict[str, Any]]:
    """Returns how to prepare data for a likelihood, and the options that the data decides.

    Means and standard deviations are those of the training data. Ranges, levels and categories are
    those of all data, or of its dtype if that has a range, so no test example lies outside.

    Args:
        family: class of the likelihood.
        raw: training data [N, ...].
        others: other parts of the same data set, such as the test part.
        top: the largest possible value of an entry; None takes it from the data.
        names: names of the features, for messages.

    Returns:
        The preparation, and options such as `levels`, `total_count` or `scale` if the likelihood
        takes one.

    Raises:
        DataError: if the likelihood does not suit the data, or float32 cannot tell the values of a
            feature apart.
    """
    facts = Facts.of([raw, *others], top=top, names=names)
    if top is not None and facts.highest > top:
        raise data.DataError(
            f"The largest possible value is set to {top:g}, but the data reaches "
            f"{facts.highest:g}. Raise --top or leave it out."
        )
    return family.prepare(facts)


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
        raise data.DataError(
            f"{owner} models images and numbers in [0, 1]; {kind} holds values from "
            f"{facts.lowest:g} to {facts.highest:g}. Choose --likelihood normal, or poisson for "
            "counts; for grey levels set the largest possible value with --top."
        )


def one_hot(facts: Facts) -> Preparation:
    """Returns the preparation for a likelihood of one-hot vectors; whole numbers are coded."""
    if not facts.are_counts or facts.are_one_hot:
        return Preparation()
    count = int(facts.highest) + 1
    return Preparation(categories=count, sentence=f"one-hot coded, {count} categories")


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
        raise data.DataError(
            f"The largest possible value {facts.declared_top:g} is for images of whole numbers, "
            f"and has no effect on {owner} here. Leave --top out."
        )
    return _standardised(facts)


def _standardised(facts: Facts) -> Preparation:
    """Returns the preparation that centres and scales each feature, whole numbers with noise.

    Centre and spread are float32 numbers, so float32 arithmetic is the same everywhere.
    """
    mean, deviation = moments(facts.raw)
    names = facts.names
    spread = np.sqrt(deviation**2 + facts.whole / 12.0)
    error, negligible, unresolved = resolution(facts.low, facts.high, spread)
    constant = negligible & (~facts.whole | unresolved)
    whole = facts.whole & ~constant
    for index in map(int, np.flatnonzero(unresolved & ~constant)):
        what = f"Feature {names[index]!r}" if names else f"Feature number {index}"
        raise data.DataError(unresolved_message(what, mean[index], deviation[index], error[index]))
    sentence = "each feature centred and divided by its standard deviation"
    if whole.any():
        which = "whole numbers" if whole.all() else f"{int(whole.sum())} features of whole numbers"
        sentence = f"{which} dequantised, x + u with u uniform on [0, 1), then {sentence}"
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
