"""Inference of how a column is modelled, from the values that it has been seen to hold."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np

from keras_vae.data.columns import is_named_identifier
from keras_vae.data.content import DataError
from keras_vae.data.precision import resolution, unresolved_message
from keras_vae.data.schema.column import FAMILIES, KINDS, LEFT_OUT, Column
from keras_vae.data.schema.notes import declaration, note
from keras_vae.data.schema.seen import Seen
from keras_vae.spelling import as_number, counted

__all__ = ["describe"]

_MOST_CATEGORIES = 256
_FEW = 10
_MOST_LEVELS = 20
_ROWS_PER_LEVEL = 5
_MOST_COUNT = 1000
_CLEARLY = 0.05
_SKEWED = 0.3
_FAR_FROM_ZERO = 2.0
_HALF = 0.5
_MANY_ZEROS = 0.01
_FAR_OUT = 8.0
_NEAR_ONE = 0.9
_DECIMALS_RESOLVED = 2**21
_MARKS = re.compile(r"[\s,'%$€£]")
_CODES = re.compile(
    r"(.*[_ .-])?(id|code|type|kind|class|category|group|label|target|species|sex|gender)",
    re.IGNORECASE,
)
_DAY = (
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
    r"|\d{1,2}[ -][A-Za-z]{3,9}\.?,?[ -]\d{2,4}|[A-Za-z]{3,9}\.? \d{1,2},? \d{4})"
)
_TIME = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?"
_ZONE = r" ?(Z|[A-Z]{3,4}|[+-]\d{2}:?\d{2})"
_DATE = re.compile(rf"\s*(([A-Za-z]{{3,9}},? )?{_DAY}([T ,]+{_TIME}({_ZONE})?)?|{_TIME})\s*")
_SHARES = re.compile(r".*(percent|pct|%).*", re.IGNORECASE)
_REMEDIES = {
    "dates": "Turn it into numbers (the year, the month, the day of the week, seconds since a "
    "start)",
    "durations": "Turn it into numbers, for example with dt.total_seconds()",
    "intervals": "Turn it into text that keeps its order, with cat.rename_categories(str) of a "
    "categorical",
    "infinite numbers": "Make them absent (numpy.nan) or correct them",
    "numbers too large": "Divide the column by a constant",
    "complex numbers": "Give real and imaginary part as two columns",
    "numbers and text": "If the text marks a missing value, make it absent or declare it in "
    "missing_values; otherwise make all of it text with astype(str)",
    "categories": "Rename them to text with cat.rename_categories(str)",
}


def describe(seen: Seen, kind: str | None = None) -> Column:
    """Decides how a column is modelled.

    Args:
        seen: its values.
        kind: kind that it must have; None decides by the values.

    Raises:
        DataError: if no model can describe the column, or not as `kind`.
    """
    if kind is not None and kind not in (*KINDS, LEFT_OUT):
        raise DataError(
            f"Expected the kind of column {seen.name!r} to be one of "
            f"{', '.join((*KINDS, LEFT_OUT))}; got {kind!r}."
        )
    if kind == LEFT_OUT:
        return _column(seen, _Decision(LEFT_OUT, "as asked"))
    if seen.trouble:
        remedy = next(
            (words for start, words in _REMEDIES.items() if seen.trouble.startswith(start)),
            "Turn it into numbers or text",
        )
        raise DataError(f"Column {seen.name!r} holds {seen.trouble}. {remedy}, or drop the column.")
    if kind is None:
        return _column(seen, _decided(seen))
    try:
        return _column(seen, _asked(seen, kind))
    except DataError as error:
        raise DataError(f"Column {seen.name!r} cannot be {kind}: {error}") from error


class _Decision(NamedTuple):
    kind: str
    reason: str
    categories: tuple[Any, ...] = ()
    likelihood: str = ""
    top: float = 1.0


def _column(seen: Seen, decision: _Decision) -> Column:
    is_number = seen.form == "numbers" and seen.present > 0
    dtype = seen.dtype
    if seen.absent and re.fullmatch(r"u?int\d+", dtype):
        dtype = "float64"  # as pandas reads a whole table of such a Parquet file
    if dtype == "bool" and seen.absent:
        dtype = "object"
    column = Column(
        name=seen.name,
        kind=decision.kind,
        dtype=dtype,
        likelihood=decision.likelihood,
        options=dict(FAMILIES[decision.likelihood].options) if decision.likelihood else {},
        missing=seen.absent > 0 or bool(seen.missing_values),
        categories=decision.categories,
        whole=is_number and seen.whole,
        decimals=_held_decimals(seen) if is_number else None,
        low=seen.low if is_number else None,
        high=seen.high if is_number else None,
        mean=seen.mean if is_number else 0.0,
        deviation=seen.deviation if is_number else 0.0,
        top=decision.top,
        absent=seen.absent / max(seen.rows, 1),
        reason=decision.reason,
        missing_values=seen.missing_values,
        note="" if decision.kind == LEFT_OUT else note(seen),
    )
    if column.is_modelled and not column.is_coded:
        _refuse_unresolved(column)
    return column


def _held_decimals(seen: Seen) -> int | None:
    """Returns the digits after the point, if float32 resolves the last of them."""
    decimals = seen.decimals
    if decimals is None or seen.whole:
        return 0 if seen.whole else None
    size = max(abs(seen.low), abs(seen.high), seen.high - seen.low)
    return decimals if size * 10.0**decimals < _DECIMALS_RESOLVED else None


def _refuse_unresolved(column: Column) -> None:
    low, high = np.array([column.low]), np.array([column.high])
    error, _, unresolved = resolution(low, high, np.array([column.deviation]))
    if unresolved[0] or not np.isfinite(error[0]):
        what = f"Column {column.name!r}"
        raise DataError(unresolved_message(what, column.mean, column.deviation, error[0]))


def _asked(seen: Seen, kind: str) -> _Decision:
    """Returns the decision for the kind that the user gave."""
    reason = "as asked"
    if kind in ("binary", "categorical", "ordinal"):
        if seen.categories is None and seen.counts is None:
            raise DataError("it has too many different values. Choose another kind.")
        return _Decision(kind, reason, _labels(seen))
    top = 100.0 if kind == "proportion" and seen.high > 1.0 else 1.0
    return _Decision(kind, reason, top=top)


def _decided(seen: Seen) -> _Decision:
    if not seen.present:
        return _Decision(LEFT_OUT, "holds no value")
    if seen.form == "labels":
        return _of_labels(seen)
    return _of_numbers(seen)


def _labels(seen: Seen) -> tuple[Any, ...]:
    if seen.categories is not None:
        return tuple(seen.categories)
    labels = list(seen.counts or ())
    if seen.form == "numbers":
        is_float = seen.dtype.lower().startswith(("float", "double"))
        return tuple(sorted(float(n) if is_float or n != round(n) else int(n) for n in labels))
    return tuple(sorted(labels, key=lambda label: (type(label).__name__, label)))


def _of_labels(seen: Seen) -> _Decision:
    different = len(seen.counts) if seen.counts is not None else None
    if different == 1:
        only = next(iter(seen.counts or ()))
        return _Decision(LEFT_OUT, f"constant: {only!r}", (only,))
    is_named = is_named_identifier(seen.name)
    is_said = _are_amounts(seen) or _are_dates(seen)
    if seen.all_differ and seen.present > _FEW and not is_named and is_said:
        raise DataError(_text_message(seen))
    if seen.all_differ and (seen.present > _FEW or is_named):
        return _Decision(LEFT_OUT, "an identifier: all of its values differ")
    is_text = _is_text(seen) or (_are_dates(seen) and len(seen.labels) > _MOST_LEVELS)
    if seen.categories is None and is_text:
        raise DataError(_text_message(seen))
    labels = _labels(seen)
    if len(labels) > _MOST_CATEGORIES:
        raise DataError(_text_message(seen))
    unseen = len(labels) - (different or 0)
    note = f", of which {unseen} never occur{'s' if unseen == 1 else ''}" if unseen else ""
    if set(map(type, labels)) == {bool} and len(labels) == 2:
        return _Decision("binary", "true or false", labels)
    if len(labels) == 2:
        return _Decision("binary", f"two labels{note}", labels)
    if seen.ordered:
        return _Decision("ordinal", f"{len(labels)} ordered categories{note}", labels)
    what = "labels" if seen.categories is None else "categories"
    return _Decision("categorical", f"{len(labels)} {what}{note}", labels)


def _is_text(seen: Seen) -> bool:
    if seen.counts is None or len(seen.counts) > _MOST_CATEGORIES:
        return True
    return len(seen.counts) > _FEW and len(seen.counts) > _HALF * seen.present


def _text_message(seen: Seen) -> str:
    different = "more than 5000" if seen.counts is None else f"{len(seen.counts)}"
    said = f"Column {seen.name!r} holds text, {different} different strings in {seen.present} rows"
    labels = [label for label in seen.labels if isinstance(label, str)]
    odd = [label for label in labels if not _is_number(label)]
    if labels and not odd:
        marked = [label for label in labels if _MARKS.search(label)]
        if not marked:
            return f"{said}, all of them numbers. Convert it with pandas.to_numeric."
        return (
            f"{said}, all of them numbers with other characters, such as {marked[0][:40]!r}. Write "
            "them as digits with a decimal point and nothing else."
        )
    if _are_numbers(seen):
        return (
            f"{said}, most of them numbers and some not, such as {odd[0][:40]!r}. If that marks a "
            f"missing value, declare it: {declaration(seen.name, odd[0])}. Otherwise convert the "
            "column with pandas.to_numeric."
        )
    if _are_dates(seen):
        return (
            f"{said}, which look like dates or times, such as {labels[0][:40]!r}. "
            f"{_REMEDIES['dates']}, or drop the column."
        )
    return (
        f"{said}, which is too many for categories. Group the rare ones, turn it into numbers, or "
        "drop the column."
    )


def _are_numbers(seen: Seen) -> bool:
    """Tells whether most of the labels are text that reads as numbers."""
    labels = [label for label in seen.labels if isinstance(label, str)]
    return bool(labels) and sum(map(_is_number, labels)) > _HALF * len(labels)


def _are_dates(seen: Seen) -> bool:
    """Tells whether all labels are text that reads as dates or times of the day."""
    labels = seen.labels
    return bool(labels) and all(isinstance(x, str) and _DATE.fullmatch(x) for x in labels)


def _are_amounts(seen: Seen) -> bool:
    """Tells whether they do, and are no row of digits, which may be an identifier."""
    return _are_numbers(seen) and not all(map(str.isdecimal, filter(_is_number, seen.labels)))


def _is_number(text: str) -> bool:
    return as_number(_MARKS.sub("", text)) is not None


def _of_numbers(seen: Seen) -> _Decision:
    counts = seen.counts
    if counts is not None and len(counts) == 1:
        only = _labels(seen)[0]
        return _Decision(LEFT_OUT, f"constant: {only!r}", (only,))
    if seen.whole and seen.present > 2 and _is_identifier(seen):
        return _Decision(LEFT_OUT, "an identifier: all of its whole numbers differ")
    if counts is not None and len(counts) == 2:
        if set(counts) == {0, 1}:
            return _Decision("binary", "zeros and ones", _labels(seen))
        if seen.present > _FEW:
            return _Decision("binary", "two different numbers", _labels(seen))
    return _of_whole_numbers(seen) if seen.whole else _of_fractions(seen)


def _is_identifier(seen: Seen) -> bool:
    if not seen.all_differ:
        return False
    is_run = seen.present > _FEW and seen.high - seen.low == seen.present - 1
    return seen.counts_up or is_run or is_named_identifier(seen.name)


def _of_whole_numbers(seen: Seen) -> _Decision:
    span = f"whole numbers from {seen.low:.0f} to {seen.high:.0f}"
    if (found := _as_levels(seen, span)) is not None:
        return found
    if seen.low < 0.0:
        return _real(seen, span)
    zeros = seen.zeros / seen.present
    if seen.high > _MOST_COUNT and zeros < _MANY_ZEROS:
        return _amounts(seen, span)
    if seen.high > _MOST_COUNT:
        reason = f"{span}, {zeros:.0%} of them 0"
        return _Decision("count", reason, likelihood="zero_inflated_negative_binomial")
    if seen.low > 0.0 and seen.mean > _FAR_FROM_ZERO * seen.deviation:
        return _Decision("count", f"{span}, far from 0 for their spread", likelihood="normal")
    return _Decision("count", span)


def _amounts(seen: Seen, span: str) -> _Decision:
    if seen.deviation < _SKEWED * seen.mean:
        return _real(seen, f"{span}, far from 0 for their spread")
    return _Decision("positive", f"{span}, too large for counts")


def _as_levels(seen: Seen, span: str) -> _Decision | None:
    """Returns the decision for a few whole numbers that are codes or ordered levels."""
    counts = seen.counts
    if counts is None or len(counts) > _MOST_LEVELS:
        return None
    enough = seen.present >= _ROWS_PER_LEVEL * len(counts)
    if not enough or seen.high - seen.low >= 2 * len(counts):
        return None
    labels = _labels(seen)
    if _CODES.fullmatch(seen.name):
        return _Decision("categorical", f"{len(counts)} codes by its name, {span}", labels)
    values = np.array(sorted(counts))
    frequencies = np.array([counts[value] for value in values], np.float64)
    if not _fits_badly(values, frequencies):
        return None
    every = np.zeros(int(seen.high - seen.low) + 1)
    every[(values - seen.low).astype(int)] = frequencies
    if seen.low >= 0.0 and (peaks := _peaks(every)) > 1:
        return _Decision(
            "categorical",
            f"{len(counts)} codes: {span} whose frequencies peak {peaks} times",
            labels,
        )
    return _Decision(
        "ordinal", f"{counted(len(counts), 'level')}: {span}, with frequencies of their own", labels
    )


def _fits_badly(values: np.ndarray, frequencies: np.ndarray) -> bool:
    """Tells whether counts, or rounded normal numbers below 0, clearly have other frequencies.

    The best negative binomial (or normal) distribution is compared with the frequencies themselves
    in nats per row, by the Bayesian information criterion (Schwarz (1978), Estimating the dimension
    of a model, Annals of Statistics 6).
    """
    count = frequencies.sum()
    share = frequencies / count
    mean = float(share @ values)
    if values[0] < 0:
        from scipy.stats import norm

        deviation = math.sqrt(float(share @ (values - mean) ** 2))
        edges = (values[:, None] + [-0.5, 0.5] - mean) / deviation
        log_p = np.log(np.maximum(np.diff(norm.cdf(edges), axis=1)[:, 0], 1e-300))
        best = float(share @ log_p)
    else:
        best = _best_negative_binomial(values, share, mean)
    gain = float(share @ np.log(share)) - best
    return gain > max(_CLEARLY, 0.5 * (len(values) - 3) * math.log(count) / count)


def _best_negative_binomial(values: np.ndarray, share: np.ndarray, mean: float) -> float:
    """Returns the largest mean log-probability over the dispersions, for the mean given."""
    from scipy.special import gammaln

    best = -math.inf
    for dispersion in np.geomspace(1e-2, 1e6, 65):
        log_p = gammaln(values + dispersion) - gammaln(dispersion) - gammaln(values + 1.0)
        log_p += dispersion * math.log(dispersion / (dispersion + mean))
        log_p += values * math.log(mean / (dispersion + mean))
        best = max(best, float(share @ log_p))
    return best


def _peaks(frequencies: np.ndarray) -> int:
    """Counts the peaks that differ from the valleys beside them by three standard errors."""
    peaks, is_rising = 0, True
    top = low = float(frequencies[0])
    for frequency in map(float, frequencies[1:]):
        if is_rising:
            top = max(top, frequency)
            if top - frequency > 3.0 * math.sqrt(top + frequency):
                peaks, is_rising, low = peaks + 1, False, frequency
        else:
            low = min(low, frequency)
            if frequency - low > 3.0 * math.sqrt(low + frequency):
                is_rising, top = True, frequency
    return peaks + is_rising


def _of_fractions(seen: Seen) -> _Decision:
    span = f"numbers from {seen.low:g} to {seen.high:g}"
    if seen.low >= 0.0:
        if _SHARES.fullmatch(seen.name) and 1.0 < seen.high <= 100.0:
            reason = f"{span}, percentages by its name"
            return _Decision("proportion", reason, top=100.0)
        if _NEAR_ONE <= seen.high <= 1.0 and seen.low <= 1.0 - _NEAR_ONE:
            return _Decision("proportion", f"{span}, nearly all of [0, 1]")
    if seen.low > 0.0:
        if seen.deviation >= _SKEWED * seen.mean:
            return _Decision("positive", f"{span}, wide for their mean")
        return _real(seen, f"{span}, far from 0 for their spread")
    if seen.low == 0.0:
        zeros = seen.zeros / seen.present
        return _real(seen, f"{span}; {zeros:.1%} are 0, which no positive density holds")
    return _real(seen, span)


def _real(seen: Seen, reason: str) -> _Decision:
    """Returns the decision for a real column: heavy tails where a number lies far out."""
    farthest = max(seen.high - seen.mean, seen.mean - seen.low) / max(seen.deviation, 1e-300)
    if farthest < _FAR_OUT:
        return _Decision("real", reason)
    reason += f"; one lies {farthest:.0f} standard deviations from the mean"
    return _Decision("real", reason, likelihood="student_t")
