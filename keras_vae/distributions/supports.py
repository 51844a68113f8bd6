"""Supports of likelihoods: where data may lie, and messages for data outside."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_vae.data import DataError
from keras_vae.data.mapped import chunks
from keras_vae.spelling import counted

__all__ = [
    "CHECKED_BYTES",
    "DataError",
    "Support",
    "binary",
    "integers",
    "interval",
    "one_hot",
    "open_unit_interval",
    "positive",
    "reals",
    "unit_interval",
    "vectors_of_counts",
]

CHECKED_BYTES = 16 * 2**20
"""Maximum bytes of an array, possibly in a mapped file, that are read at once for a check."""


@dataclass(frozen=True)
class Support:
    """A set of arrays, with the message for data outside it.

    Attributes:
        description: the set in words, as in "binary data {0, 1}".
        remedy: what to do with data outside it.
        contains: map of a float batch [B, ...] to booleans of any shape, all true inside.
        low, high: bounds of each number, or None.
        is_open: whether the bounds themselves lie outside.
        integer_dtype: whether an integer dtype is acceptable.
        is_discrete: whether distributions on it have probabilities (True) or densities (False);
            None if unknown; then they are not compared with others.
        is_whole: whether all of its numbers are whole.
        is_one_hot: whether its elements are one-hot vectors along the last axis.
        is_ordinal: whether its whole numbers 0 .. high are classes in order, and not amounts.
        event_dim: number of last axes that hold one variable together, 1 for one-hot vectors.
        inside: a number inside, which stands for an absent entry where a log-probability is
            computed and then dropped.
    """

    description: str
    remedy: str
    contains: Callable[[tf.Tensor], tf.Tensor]
    low: float | None = None
    high: float | None = None
    is_open: bool = False
    integer_dtype: bool = True
    is_discrete: bool | None = None
    is_whole: bool = False
    is_one_hot: bool = False
    is_ordinal: bool = False
    event_dim: int = 0
    inside: float = 0.0

    def sentence(self, owner: str, found: str) -> str:
        """Returns the message of a refusal: what `owner` expects, what came, what to do."""
        return f"{owner} models {self.description}; got {found}. {self.remedy}"

    def dtype_refusal(self, dtype: tf.DType, owner: str) -> str | None:
        """Returns the message that refuses a dtype; None if the dtype is acceptable."""
        if self.integer_dtype or not (dtype.is_bool or dtype.is_integer):
            return None
        return self.sentence(owner, "booleans" if dtype.is_bool else f"{dtype.name} integers")

    def check(self, x: np.ndarray, owner: str) -> None:
        """Refuses an array that is not finite or lies outside the support.

        Args:
            x: data [N, ...]; memory-mapped arrays are read in chunks.
            owner: name of the likelihood, for the message.

        Raises:
            DataError: if any number is NaN or infinite, the dtype is wrong or x lies outside.
        """
        if x.dtype.kind not in "buif":
            raise DataError(self.sentence(owner, f"dtype {x.dtype}"))
        if x.dtype.kind in "bui" and not self.integer_dtype:
            found = f"integers from {x.min()} to {x.max()} of dtype {x.dtype}"
            raise DataError(self.sentence(owner, "booleans" if x.dtype.kind == "b" else found))
        for start, part in chunks(x, CHECKED_BYTES * x.itemsize // 4):
            self._check_chunk(part, start, owner)

    def _check_chunk(self, x: np.ndarray, start: int, owner: str) -> None:
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
            value = x[bad][0][~np.isfinite(x[bad][0])][0]
            raise DataError(
                f"{owner} was given {value} in example {start + int(bad.argmax())} "
                f"({counted(int(bad.sum()), 'such example')} seen); remove or impute them first."
            )
        with tf.device("CPU"), np.errstate(over="ignore"):
            inside = self.contains(tf.convert_to_tensor(x.astype(np.float32))).numpy()
        if not inside.all():
            where = np.argwhere(~inside)[0]
            value = x[tuple(where[: x.ndim - self.event_dim])]
            found = f"{value}" if np.ndim(value) == 0 else f"{np.array2string(value, threshold=6)}"
            raise DataError(self.sentence(owner, f"{found} in example {start + int(where[0])}"))

    def assertions(self, x: tf.Tensor, owner: str) -> dict[str, tf.Tensor]:
        """Makes the same checks in a graph: booleans by the message for a false one."""
        x = tf.cast(x, tf.float32)
        not_finite = f"{owner} was given NaN or infinity by the dataset; remove or impute it first."
        outside = self.sentence(owner, "values outside it in the dataset")
        return {
            not_finite: tf.reduce_all(tf.math.is_finite(x)),
            outside: tf.reduce_all(self.contains(x)),
        }


def _is_integral(x: tf.Tensor) -> tf.Tensor:
    return tf.equal(x, tf.round(x))


def binary() -> Support:
    """Makes the set {0, 1}."""
    return Support(
        description="binary data {0, 1}",
        remedy=(
            "Binarise it (keras_vae.data.binarize draws from grey levels in [0, 1], or threshold) "
            "or choose ContinuousBernoulli for grey levels in [0, 1]."
        ),
        contains=lambda x: (x == 0.0) | (x == 1.0),
        low=0.0,
        high=1.0,
        is_discrete=True,
        is_whole=True,
    )


def unit_interval() -> Support:
    """Makes the interval [0, 1] of a floating dtype: integers have no density."""
    return Support(
        description="numbers in [0, 1]",
        remedy=(
            "Rescale it: divide by the largest possible value (255 for 8-bit images). For zeros "
            "and ones choose Bernoulli."
        ),
        integer_dtype=False,
        contains=lambda x: (x >= 0.0) & (x <= 1.0),
        low=0.0,
        high=1.0,
        is_discrete=False,
    )


def open_unit_interval() -> Support:
    """Makes the interval (0, 1) without its ends, of a floating dtype."""
    return Support(
        description="numbers in (0, 1), without 0 and 1",
        remedy=(
            "Divide by the largest possible value, and move 0 and 1 inwards, for example by "
            "(x (n - 1) + 1/2) / n for n examples. Choose ContinuousBernoulli for data that "
            "reaches 0 or 1, and Bernoulli for zeros and ones."
        ),
        contains=lambda x: (x > 0.0) & (x < 1.0),
        low=0.0,
        high=1.0,
        is_open=True,
        integer_dtype=False,
        is_discrete=False,
        inside=0.5,
    )


def positive() -> Support:
    """Makes the positive real numbers of a floating dtype: integers have no density."""
    return Support(
        description="positive real numbers by a density",
        remedy=(
            "For counts choose Poisson or NegativeBinomial. Zeros and negative numbers have no "
            "density here: choose Normal, or CensoredNormal(low=0) for measurements that stop at 0."
        ),
        contains=lambda x: (x > 0.0) & tf.math.is_finite(x),
        low=0.0,
        is_open=True,
        integer_dtype=False,
        is_discrete=False,
        inside=1.0,
    )


def interval(low: float | None, high: float | None, has_masses: bool = False) -> Support:
    """Makes the closed interval [low, high] of a floating dtype.

    Args:
        low, high: ends; None is no end, for one of them.
        has_masses: whether distributions on it have probabilities at the ends and densities
            between them.
    """
    ends = [end for end in (low, high) if end is not None]
    if low is None:
        words = f"real numbers up to {high:g}"
    elif high is None:
        words = f"real numbers from {low:g} on"
    else:
        words = f"real numbers from {low:g} to {high:g}"
    least, most = -math.inf if low is None else low, math.inf if high is None else high
    return Support(
        description=f"{words} by a density",
        remedy="Check the limits `low` and `high` of the likelihood, which are in units of x.",
        contains=lambda x: (x >= least) & (x <= most) & tf.math.is_finite(x),
        low=low,
        high=high,
        integer_dtype=False,
        is_discrete=None if has_masses else False,
        inside=sum(ends) / len(ends),
    )


def reals() -> Support:
    """Makes the real numbers of a floating dtype: integers have no density."""
    return Support(
        description="real numbers by a density",
        remedy=(
            "For integer levels choose DiscretizedLogistic or Poisson, or rescale to floating "
            "point (keras_vae.data.dequantize keeps the density a bound)."
        ),
        contains=tf.math.is_finite,
        integer_dtype=False,
        is_discrete=False,
    )


def integers(high: int | None = None) -> Support:
    """Makes the integers 0 .. high, or all from 0 on."""
    if high is None:
        return Support(
            description="counts 0, 1, 2, ...",
            remedy="Give the raw counts, neither centred nor normalised.",
            contains=lambda x: (x >= 0.0) & _is_integral(x),
            low=0.0,
            is_discrete=True,
            is_whole=True,
        )
    return Support(
        description=f"integers from 0 to {high}",
        remedy="Give the raw levels, not rescaled, and check the number of levels.",
        contains=lambda x: (x >= 0.0) & (x <= float(high)) & _is_integral(x),
        low=0.0,
        high=float(high),
        is_discrete=True,
        is_whole=True,
    )


def vectors_of_counts(total: int | None = None) -> Support:
    """Makes the set of vectors of counts along the last axis, with a given sum or any."""

    def contains(x: tf.Tensor) -> tf.Tensor:
        counts = tf.reduce_all((x >= 0.0) & _is_integral(x), axis=-1)
        return counts if total is None else counts & (tf.reduce_sum(x, axis=-1) == float(total))

    sums = "" if total is None else f" with sum {total}"
    remedy = "Give the raw counts, neither centred nor normalised."
    if total is not None:
        remedy += " If sums differ, give their logarithms as the condition, with offset=True."
    return Support(
        description=f"vectors of counts{sums} along the last axis",
        remedy=remedy,
        contains=contains,
        low=0.0,
        high=None if total is None else float(total),
        is_discrete=True,
        is_whole=True,
        event_dim=1,
    )


def one_hot() -> Support:
    """Makes the set of vectors with a single 1 along the last axis."""

    def contains(x: tf.Tensor) -> tf.Tensor:
        sums = tf.tensordot(x, tf.ones([x.shape[-1], 1]), 1)
        return ((x == 0.0) | (x == 1.0)) & (sums == 1.0)

    return Support(
        description="one-hot vectors along the last axis",
        remedy="Code the categories with keras.utils.to_categorical.",
        contains=contains,
        low=0.0,
        high=1.0,
        is_discrete=True,
        is_whole=True,
        is_one_hot=True,
        event_dim=1,
        inside=1.0,
    )
