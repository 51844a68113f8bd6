"""Pandas dtypes: names to write down, numbers and codes of a series, and series made of these."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from keras_vae.data.content import DataError
from keras_vae.spelling import as_number, numbers_in

__all__ = [
    "NotANumberError",
    "codes",
    "dtype_name",
    "is_category",
    "is_ordered",
    "numbers",
    "plain",
    "series_of_codes",
    "series_of_numbers",
    "with_holes",
]

_CATEGORY = re.compile(r"(ordered )?category\[(.+)\]")
_NULLABLE = {"bool": "boolean"} | {
    f"{sign}int{bits}": f"{sign.upper()}Int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


class NotANumberError(ValueError):
    """A value that is not a number.

    Attributes:
        place: its position in the series.
        what: description of it, for messages.
    """

    def __init__(self, place: int, value: Any) -> None:
        self.place = place
        kind = "the text" if isinstance(value, str) else f"a {type(value).__name__},"
        self.what = f"{kind} {str(value)[:40]!r}"
        super().__init__(self.what)


def dtype_name(dtype: Any) -> str:
    """Returns the name of a dtype, such as int64, Int64, str or ordered category[str]."""
    if is_category(dtype):
        ordered = "ordered " if dtype.ordered else ""
        is_text = all(isinstance(label, str) for label in dtype.categories)
        return f"{ordered}category[{'str' if is_text else dtype.categories.dtype}]"
    return str(getattr(dtype, "subtype", dtype))


def is_category(dtype: Any) -> bool:
    """Tells whether a dtype is a pandas categorical."""
    from pandas import CategoricalDtype

    return isinstance(dtype, CategoricalDtype)


def is_ordered(name: str) -> bool:
    """Tells whether a dtype of that name orders its categories."""
    return name.startswith("ordered ")


def plain(value: Any) -> Any:
    """Returns a NumPy scalar as the Python value; anything else unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def numbers(values: Any) -> np.ndarray:
    """Returns the numbers of a series without absent values, as float64.

    Raises:
        NotANumberError: if a value is anything but a number.
    """
    from pandas.api import types

    is_number = types.is_numeric_dtype(values.dtype) and not types.is_bool_dtype(values.dtype)
    if is_number and not types.is_complex_dtype(values.dtype):
        return values.to_numpy(dtype=np.float64)
    found = values.astype(object).to_numpy()
    for place, value in enumerate(found):
        if isinstance(value, (str, bytes, bool, np.bool_)) or not hasattr(value, "__float__"):
            raise NotANumberError(place, value)
    return found.astype(np.float64)


def with_holes(values: Any, marks: Sequence[Any], *, as_numbers: bool = True) -> Any:
    """Returns a series in which values that stand for a missing one are absent.

    Numbers are compared as numbers and labels as text, so "-999" stands for -999, too.

    Args:
        values: pandas series.
        marks: values that stand for a missing one.
        as_numbers: whether text that is nothing but numbers beside the marks becomes numbers.
    """
    import pandas as pd
    from pandas.api import types

    if not marks:
        return values
    texts = {str(mark) for mark in marks}
    if is_category(values.dtype):
        known = [label for label in values.cat.categories if str(label) in texts]
        return values.cat.remove_categories(known) if known else values
    if types.is_numeric_dtype(values.dtype) and not types.is_bool_dtype(values.dtype):
        is_mark = values.isin(numbers_in(marks))
        return values.mask(is_mark) if is_mark.any() else values
    is_mark = values.map(str).isin(texts)
    kept = values.mask(is_mark) if is_mark.any() else values
    present = kept[kept.notna()]
    if (
        as_numbers
        and len(present)
        and all(isinstance(value, str) and as_number(value) is not None for value in present)
    ):
        return pd.to_numeric(kept)
    return kept


def codes(values: Any, categories: Sequence[Any]) -> np.ndarray:
    """Returns the position of each value among the categories, -1 if absent or unknown."""
    import pandas as pd

    if is_category(values.dtype):
        place = codes(pd.Series(values.cat.categories), categories)
        found = values.cat.codes.to_numpy()
        return np.where(found < 0, -1, place[found]) if len(place) else found.astype(np.int64)
    labels = pd.Index(list(categories), dtype=object)
    return labels.get_indexer(pd.Index(values.astype(object)))


def series_of_codes(codes: np.ndarray, categories: Sequence[Any], dtype: str) -> Any:
    """Makes a series of labels from their codes.

    Args:
        codes: whole numbers [n], NaN where absent.
        categories: labels in the order of their codes.
        dtype: name of the dtype, as `dtype_name` writes it.
    """
    import pandas as pd

    present = ~np.isnan(codes)
    places = np.where(present, codes, -1.0).astype(np.int64)
    if match := _CATEGORY.fullmatch(dtype):
        labels = pd.Index(_labels(categories, match[2]))
        kind = pd.CategoricalDtype(labels, ordered=is_ordered(dtype))
        return pd.Series(pd.Categorical.from_codes(places, dtype=kind))
    labels_and_none = np.empty(len(categories) + 1, object)
    labels_and_none[:-1] = categories
    return _labels(labels_and_none[places], dtype, not present.all())


def _labels(values: Iterable[Any], dtype: str, has_absent: bool = False) -> Any:
    """Makes a series of labels; None stands for an absent one."""
    import pandas as pd

    if has_absent:
        dtype = _NULLABLE.get(dtype, dtype)
    if dtype == "str" and int(pd.__version__.split(".")[0]) < 3:
        dtype = "object"
    if dtype.startswith("float"):
        return pd.Series([np.nan if value is None else value for value in values], dtype=dtype)
    return _converted(pd.Series(list(values), dtype=object), dtype)


def series_of_numbers(values: np.ndarray, dtype: str, whole: bool) -> Any:
    """Makes a series of numbers.

    Args:
        values: float64 [n], NaN where absent.
        dtype: name of the dtype, as `dtype_name` writes it. Integer dtypes that cannot be absent
            become the nullable ones if a value is.
        whole: whether the numbers are whole.
    """
    import pandas as pd

    absent = np.isnan(values)
    if absent.any():
        dtype = _NULLABLE.get(dtype, dtype)
    if dtype.startswith(("float", "Float", "double")):
        found = pd.Series(values)
        return found if dtype == "float64" else _converted(found, dtype)
    if whole and (bits := re.match(r"(u?)int(\d+)", dtype.lower())):
        limits = np.iinfo(bits[0])
        rounded = np.rint(np.where(absent, 0.0, values))
        held = np.clip(rounded, limits.min, np.nextafter(limits.max + 1.0, 0.0)).astype(bits[0])
        if not absent.any():
            return _converted(pd.Series(held), dtype)
        series = pd.Series(held, dtype=_NULLABLE[bits[0]])
        series[absent] = pd.NA
        return _converted(series, dtype)
    plain_numbers = [
        None if gone else (int(value) if whole else float(value))
        for value, gone in zip(values, absent, strict=True)
    ]
    return _converted(pd.Series(plain_numbers, dtype=object), dtype)


def _converted(series: Any, dtype: str) -> Any:
    """Converts a series, or says which dtype this installation does not know."""
    try:
        return series.astype(dtype)
    except (TypeError, ImportError) as error:
        raise DataError(
            f"This installation cannot make a column of dtype {dtype!r}: "
            f"{' '.join(str(error).split())}. Change the dtype in the schema, for example to "
            "'float64' or 'object'."
        ) from error
