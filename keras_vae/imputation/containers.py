"""Imputed values in the container that the data came in."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vae.data.frames import frame_names, is_frame

__all__ = ["filled_column", "like"]


def like(
    x: Any, model: Any, values: Mapping[str, np.ndarray], absent: Mapping[str, np.ndarray]
) -> Any:
    """Returns data as it came: a data frame with its absent entries filled, a dict or an array."""
    if not is_frame(x):
        return model.one_or_all(values)
    frame = x.to_pandas() if hasattr(x, "to_pandas") else x.copy()
    if not model.data.is_dict:
        own = model.feature_names or frame_names(x) or frame.columns
        columns = dict(zip(own, values["x"].T, strict=True))
        masks = dict(zip(own, absent["x"].T, strict=True))
    else:
        schema = model.data.schema
        single = {name: value for name, value in values.items() if value.shape[1:] == (1,)}
        columns = single if schema is None else schema.decode(values)
        masks = {name: np.all(absent[name], axis=-1) for name in absent if name in columns}
    for name, mask in masks.items():
        found = np.asarray(columns[name]).reshape(len(frame))
        if name not in frame:
            frame[name] = found
        elif mask.any():
            frame[name] = filled_column(frame[name], mask, found[mask])
    return frame


def filled_column(column: Any, mask: np.ndarray, found: Any) -> Any:
    """Returns a column of a data frame with some entries replaced.

    It keeps its dtype, except that integers become floats where fractions are filled in, and that a
    column without any value, which pandas reads as floats, gets the dtype of labels or booleans.
    """
    import pandas as pd

    types, filled = pd.api.types, column.copy()
    if mask.all() and types.is_float_dtype(filled.dtype):
        labels = pd.Series(found, column.index, name=column.name).infer_objects()
        if not types.is_numeric_dtype(labels.dtype) or types.is_bool_dtype(labels.dtype):
            return labels
    if types.is_numeric_dtype(filled.dtype) and not types.is_bool_dtype(filled.dtype):
        numbers = np.asarray(found, np.float64)
        if types.is_integer_dtype(filled.dtype) and (numbers != np.rint(numbers)).any():
            filled = filled.astype("Float64")
        filled[mask] = pd.array(numbers, "Float64").astype(filled.dtype)
        return filled
    if types.is_bool_dtype(filled.dtype):
        found = np.asarray(found, bool)
    if hasattr(filled, "cat"):
        labels = type(filled)(found).dropna().unique()
        new = [label for label in labels if label not in filled.cat.categories]
        filled = filled.cat.add_categories(new)
    filled[mask] = found
    return filled
