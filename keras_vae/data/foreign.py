"""Data of other libraries: Polars, Arrow, Hugging Face datasets, as pandas data frames or arrays.

No such library is imported. Tables are recognised by the Arrow protocol, which Polars, Arrow,
DuckDB and pandas speak, and others by the module of their type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_vae.data.content import DataError, listed

__all__ = ["as_known", "described"]

_STREAM = "__arrow_c_stream__"
_ARRAY = "__arrow_c_array__"


def as_known(value: Any) -> Any:
    """Converts a table of another library to a pandas data frame; returns anything else unchanged.

    | value | becomes |
    |---|---|
    | Polars data frame, Arrow table or record batch, others with the Arrow protocol | data frame |
    | other frames with a method `to_pandas` | data frame |
    | Hugging Face dataset of numbers and text | data frame |
    | Hugging Face dataset of images or arrays | dict of arrays; an array if it has one column |

    Columns become what `pandas.read_parquet` makes of the same types: integers with absent values
    are floats, dictionaries are categoricals.

    Raises:
        DataError: if it is an AnnData object, a table whose rows are not computed, or a Hugging
            Face dataset that is read as a stream.
    """
    module = type(value).__module__.split(".")[0]
    if isinstance(value, np.ndarray) or module in ("builtins", "pandas", "tensorflow", "keras"):
        return value
    if module == "anndata":
        raise DataError(
            "This is an AnnData object. Give keras_vae.data.from_anndata(adata, layer=..., "
            "batch_key=...).inputs, which says where the counts and the batches of the cells are; "
            "or adata.X for its numbers alone."
        )
    if module == "datasets":
        return _of_dataset(value)
    if type(value).__name__ == "LazyFrame":
        raise DataError("This is a LazyFrame, whose rows are not computed. Give x.collect().")
    return _of_table(value)


def described(value: Any, known: Any) -> str | None:
    """Returns one line about what `as_known` made of a value; None if it left it as it is."""
    if known is value:
        return None
    kind = f"{type(value).__module__.split('.')[0]} {type(value).__name__}"
    if hasattr(known, "columns"):
        names = listed(list(map(str, known.columns)))
        return f"x is a {kind}, read as a table of {len(known)} rows and the columns {names}."
    if isinstance(known, dict):
        shapes = [f"{name} {list(part.shape)}" for name, part in known.items()]
        return f"x is a {kind}, read as the arrays {listed(shapes)}."
    return f"x is a {kind}, read as an array of shape {list(known.shape)}."


def _of_table(value: Any) -> Any:
    kind = type(value)
    has_columns = hasattr(kind, "columns")
    is_table = has_columns or hasattr(kind, "schema")
    if is_table and (hasattr(kind, _STREAM) or hasattr(kind, _ARRAY)):
        return _of_arrow(value)
    if has_columns and hasattr(kind, "to_pandas"):
        return _texts(value.to_pandas())
    return value


def _of_arrow(value: Any) -> Any:
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise DataError(
            f"A {type(value).__name__} is read by way of Arrow, and pyarrow is not installed: pip "
            'install "keras-vae[parquet]".'
        ) from error
    return _texts(pa.table(value).to_pandas())


def _texts(frame: Any) -> Any:
    """Returns a data frame whose columns have text as names."""
    frame.columns = [str(name) for name in frame.columns]
    return frame


def _of_dataset(value: Any) -> Any:
    """Reads a Hugging Face dataset."""
    kind = type(value).__name__
    if kind == "DatasetDict":
        parts = listed(sorted(value))
        raise DataError(f"This is a DatasetDict of {parts}. Give one of them, such as x['train'].")
    if kind == "IterableDataset":
        raise DataError(
            "This is an IterableDataset, which has no length. Give a generator of its batches as "
            "NumPy arrays and steps_per_epoch, or the dataset itself without streaming=True."
        )
    is_plain = all(hasattr(feature, "dtype") for feature in value.features.values())
    kinds = [type(feature).__name__ for feature in value.features.values()]
    if is_plain and all(name in ("Value", "ClassLabel") for name in kinds):
        return value.with_format("pandas")[:]
    arrays = {name: _stacked(name, part) for name, part in value.with_format("numpy")[:].items()}
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _stacked(name: str, part: Any) -> np.ndarray:
    if isinstance(part, np.ndarray) and part.dtype != object:
        return part
    shapes = sorted({np.shape(each) for each in part})
    if len(shapes) > 1:
        raise DataError(
            f"The column {name!r} holds arrays of different shapes, such as {list(shapes[0])} and "
            f"{list(shapes[1])}. Bring them to one with dataset.map."
        )
    return np.stack([np.asarray(each) for each in part])
