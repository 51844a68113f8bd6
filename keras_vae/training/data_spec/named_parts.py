"""Named parts: their data by name, from a dict or from a data frame."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae.data.content import listed
from keras_vae.data.frames import frame_names, is_frame
from keras_vae.data.schema import Schema
from keras_vae.distributions.supports import DataError
from keras_vae.training.data_spec.part import Part, as_rows

__all__ = ["named_parts"]


def named_parts(
    inputs: Any, parts: Mapping[str, Part], schema: Schema | None = None
) -> dict[str, Any]:
    """Returns the data of each part by name; parts that may be absent may be left out.

    Args:
        inputs: dict of the parts, with booleans of what is there by part under `"present"` if there
            is no part of this name, or a data frame.
        parts: the parts by name.
        schema: how the columns of a data frame become the parts; None if they are the parts.

    Returns:
        The given data in the order of the parts, NaN for what is absent.

    Raises:
        DataError: if a part is unknown or lacks, or none is given.
    """
    present = None
    if schema is not None and is_frame(inputs):
        given: dict[str, Any] = dict(schema.encode(inputs, seed=0))
    elif frame_names(inputs) is not None:
        given = {name: inputs[name] for name in inputs.columns}
    elif isinstance(inputs, Mapping):
        given = dict(inputs)
        present = given.pop("present", None) if "present" not in parts else None
    else:
        raise DataError(
            f"This model expects a dict of the parts {listed(list(parts))}, or a data "
            f"frame with such columns; got {type(inputs).__name__}."
        )
    if unknown := [name for name in given if name not in parts]:
        raise DataError(
            f"This model has the parts {listed(list(parts))}; got {unknown[0]!r} too."
            f"{_nearest(unknown[0], parts)} Leave it out."
        )
    absent = [name for name in parts if name not in given]
    if needed := [name for name in absent if not parts[name].missing]:
        raise DataError(
            f"The part {needed[0]!r} is not given, and may not be absent in this model; got "
            f"{listed(list(given)) or 'no part'}. Give it, or build its likelihood with "
            "missing=True."
        )
    if not given:
        raise DataError(f"No part is given; expected some of {listed(list(parts))}.")
    if present is not None:
        given = {**given, **_hidden(given, present, parts)}
    for name in absent:
        like = next(iter(given.values()))
        if isinstance(like, tf.TypeSpec) or tf.is_symbolic_tensor(like):
            raise DataError(f"The dataset does not yield the part {name!r}. Yield it as NaN.")
        given[name] = np.broadcast_to(np.float32(np.nan), (len(like), *parts[name].shape))
    return {name: given[name] for name in parts}


def _hidden(
    given: Mapping[str, Any], present: Any, parts: Mapping[str, Part]
) -> dict[str, np.ndarray]:
    """Returns the parts of which `present` tells what is there, NaN elsewhere."""
    if not isinstance(present, Mapping) or not set(present) <= set(given):
        raise DataError(
            '"present" must be a dict of booleans by part, of parts that are given; got '
            f"{sorted(present) if isinstance(present, Mapping) else type(present).__name__}."
        )
    hidden = {}
    for name, mask in present.items():
        value = as_rows(given[name], name, parts[name], is_named=True)
        mask = np.asarray(mask)
        axes = value.shape[: mask.ndim]
        if mask.dtype != bool or not mask.ndim or mask.shape != axes:
            raise DataError(
                f"present[{name!r}] must be booleans with the first axes of the part, of shape "
                f"{list(value.shape)}; got {mask.dtype} of shape {list(mask.shape)}."
            )
        mask = mask.reshape(*mask.shape, *[1] * (value.ndim - mask.ndim))
        dtype = value.dtype if value.dtype.kind == "f" else np.float64
        hidden[name] = np.where(mask, value.astype(dtype), np.asarray(np.nan, dtype))
    return hidden


def _nearest(name: str, names: Iterable[str]) -> str:
    """Returns the nearest of the names as a question after a space, or nothing."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f" Did you mean {near[0]!r}?" if near else ""
