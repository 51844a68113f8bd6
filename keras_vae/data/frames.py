"""Conversion of data frames, masked and sparse arrays to plain arrays of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vae.data.content import DataError, listed
from keras_vae.data.lazy_rows import LazyRows
from keras_vae.data.sparse_rows import SparseRows, is_scipy_sparse

__all__ = [
    "column_numbers",
    "frame_names",
    "is_frame",
    "is_numeric",
    "numbers",
    "refuse_infinite",
    "rows_of_numbers",
    "whole_columns",
]


def is_frame(value: Any) -> bool:
    """Tells whether a value is a data frame."""
    return getattr(value, "columns", None) is not None and hasattr(value, "to_numpy")


def frame_names(value: Any) -> tuple[str, ...] | None:
    """Returns the column names of a data frame; None for anything else, or if any is not text."""
    if not is_frame(value):
        return None
    names = tuple(value.columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def rows_of_numbers(
    value: Any, name: str, expected: str = "an array of numbers", *, missing: bool = False
) -> Any:
    """Converts a value like `numbers`, but leaves lazy rows and matrices of scipy.sparse unread.

    Returns:
        An array, or `LazyRows`.
    """
    if isinstance(value, LazyRows):
        return value
    if isinstance(value, np.ndarray) or not is_scipy_sparse(value) or value.ndim != 2:
        return numbers(value, name, expected, missing=missing)
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        return numbers(value[:1].toarray(), name, expected)
    return SparseRows(value)


def numbers(
    value: Any, name: str, expected: str = "an array of numbers", *, missing: bool = False
) -> np.ndarray:
    """Converts a value to an array of booleans, integers or floats of at most 64 bits.

    Data frames may have nullable columns without missing values, and masked arrays are accepted if
    no entry is masked.

    Args:
        value: anything that NumPy converts to an array, or a data frame.
        name: name of the value in messages, such as "x".
        expected: what was expected, for messages.
        missing: whether values may be absent: masked, None, NaN or pandas.NA. They become NaN.

    Raises:
        DataError: if it is not an array of numbers, or holds text or sparse values, or missing or
            masked ones without `missing`.
    """
    if isinstance(value, np.ma.MaskedArray):
        if not missing:
            _check_unmasked(value, name)
        value = _unmasked(value) if missing else value.data
    if isinstance(value, np.ndarray):
        array = value
    elif (columns := _pandas_columns(value)) is not None:
        array = _from_pandas(value, columns, name, missing)
    else:
        _refuse_containers(value, name)
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{name} must be {expected}; got {type(value).__name__}, which NumPy cannot read: "
                f"{' '.join(str(error).split())}"
            ) from error
    if missing and array.dtype == object:
        array = _without_none(array, name)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise DataError(
            f"{name} must be {expected} of at most 64 bits; got {type(value).__name__} of dtype "
            f"{array.dtype}. Convert it to booleans, integers or floats first."
        )
    return array


def refuse_infinite(array: np.ndarray, name: str, *, missing: bool = False) -> None:
    """Refuses numbers that are not finite; NaN is let through if it says that a value is missing.

    Raises:
        DataError: if there is one; it names the first.
    """
    wrong = np.isinf(array) if missing else ~np.isfinite(array)
    if wrong.any():
        place = [int(axis[0]) for axis in np.nonzero(wrong)]
        raise DataError(
            f"Expected finite numbers in {name}; got {array[tuple(place)]} at {place}. Remove such "
            "rows, or correct what computed them."
        )


def _check_unmasked(value: Any, name: str) -> None:
    mask = np.ma.getmaskarray(value)
    if mask.any():
        first = int(np.argmax(mask.reshape(len(mask), -1).any(axis=1))) if mask.ndim else 0
        raise DataError(
            f"{name} is masked in {int(mask.sum())} of {mask.size} entries, first in example "
            f"{first}, and a VAE needs every entry. Fill them in ({name}.filled(value), or an "
            f"imputer of scikit-learn), or drop those examples."
        )


def _refuse_containers(value: Any, name: str) -> None:
    """Refuses containers that NumPy would wrap as one Python object."""
    kind, module = type(value).__name__, type(value).__module__
    if is_scipy_sparse(value):
        raise DataError(
            f"{name} is a sparse {kind} of shape {list(value.shape)}, but only the data itself may "
            f"be sparse. Give {name}.toarray()."
        )
    if kind in ("SparseTensor", "RaggedTensor") and module.startswith("tensorflow"):
        remedy = "tf.sparse.to_dense(x)" if kind == "SparseTensor" else "x.to_tensor()"
        raise DataError(f"{name} is a {kind}, but a VAE reads dense arrays. Give {remedy}.")
    if module.startswith("tensorflow") and kind.endswith("Dataset"):
        raise DataError(
            f"{name} is a dataset of batches, which fit, evaluate and predict read; this takes "
            "arrays. Give numpy.concatenate(list(dataset.as_numpy_iterator()))."
        )
    if module.startswith("torch.utils.data"):
        raise DataError(
            f"{name} is a torch {kind}, which a VAE does not read. Give a generator of NumPy "
            "arrays that starts again when it ends (while True: yield from (batch[0].numpy() for "
            "batch in loader)) and steps_per_epoch=len(loader), or the whole data as one array."
        )


def _pandas_columns(value: Any) -> list[tuple[Any, Any]] | None:
    """Returns label and values of each column of a pandas frame or series; None otherwise."""
    if not type(value).__module__.startswith("pandas"):
        return None
    if hasattr(value, "columns"):
        return [(label, value.iloc[:, place]) for place, label in enumerate(value.columns)]
    return [(value.name, value)] if hasattr(value, "isna") else None


def _unmasked(value: np.ma.MaskedArray) -> np.ndarray:
    """Returns the values as an array, NaN where they are masked."""
    mask = np.ma.getmaskarray(value)
    if not mask.any():
        return value.data
    dtype = value.dtype if value.dtype.kind == "f" else np.dtype(np.float64)
    return np.where(mask, np.asarray(np.nan, dtype), value.data.astype(dtype))


def _without_none(array: np.ndarray, name: str) -> np.ndarray:
    """Returns an array of Python objects as floats, NaN where they are None or pandas.NA."""
    absent = np.array([each is None or type(each).__name__ == "NAType" for each in array.flat])
    try:
        return np.where(absent.reshape(array.shape), np.nan, array).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name} holds values that are neither numbers nor absent: {error}. Encode them as "
            "numbers, with NaN for absent ones."
        ) from error


def _from_pandas(
    value: Any, columns: Sequence[tuple[Any, Any]], name: str, may_miss: bool
) -> np.ndarray:
    text = [str(label) for label, column in columns if not is_numeric(column.dtype)]
    if text:
        if value.ndim == 1:
            raise DataError(
                f"{name} holds {value.dtype} values, and numbers are expected. Encode labels as "
                f"one-hot numbers, for example with pandas.get_dummies({name})."
            )
        raise DataError(
            f"{name} has columns that are not numbers: {listed(text)}. Encode them as numbers or "
            "leave them out."
        )
    missing = [str(label) for label, column in columns if column.isna().any()]
    if missing and not may_miss:
        raise DataError(
            f"{name} has missing values in the columns {listed(missing)}. Impute them or leave "
            "those rows out."
        )
    arrays = [column_numbers(column) for _, column in columns]
    if value.ndim == 1:
        return arrays[0]
    return np.stack(arrays, axis=1) if arrays else np.empty((len(value), 0))


def whole_columns(value: Any) -> dict[str, str]:
    """Returns the dtypes of the boolean and integer columns of a pandas frame, by label."""
    if getattr(value, "ndim", 0) != 2 or (columns := _pandas_columns(value)) is None:
        return {}
    dtypes = {str(label): column.dtype for label, column in columns}
    return {label: str(dtype) for label, dtype in dtypes.items() if dtype.kind in "biu"}


def is_numeric(dtype: Any) -> bool:
    """Tells whether a pandas dtype holds booleans, integers or floats."""
    from pandas import CategoricalDtype
    from pandas.api import types

    return not isinstance(dtype, CategoricalDtype) and bool(
        types.is_bool_dtype(dtype) or types.is_integer_dtype(dtype) or types.is_float_dtype(dtype)
    )


def column_numbers(column: Any) -> np.ndarray:
    """Returns the values of a numeric pandas column; missing values become NaN."""
    if column.isna().any():
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(column.to_numpy(dtype=getattr(column.dtype, "numpy_dtype", None)))
