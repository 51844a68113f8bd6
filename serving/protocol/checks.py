"""Checks: whether arrays fit the inputs and outputs of a signature.

TensorFlow Serving ignores unknown names in columns, lets uint8 wrap, turns 1e39 into infinity,
hangs on an empty batch, and leaves shapes to the graph. Here each of these is an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vae.spelling import counted
from serving.artifact import Signature, Tensor
from serving.errors import (
    DtypeError,
    InputError,
    ReplyError,
    ShapeError,
    UnknownSignatureError,
    ValueRangeError,
)
from serving.protocol.texts import with_numbers

__all__ = ["DEFAULT", "Arrays", "check_inputs", "check_names", "check_outputs", "find_signature"]

Arrays = dict[str, np.ndarray]

DEFAULT = "serving_default"
"""Name of the signature that a request without a name means; an artifact calls it `decode`."""

_EXACT_IN_FLOAT32 = 2**24  # every integer up to here is exact in float32
_INT32 = np.iinfo(np.int32)


def find_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """Finds the signature of that name; no name and `serving_default` mean `decode`.

    Raises:
        UnknownSignatureError: naming the existing ones.
    """
    name = name or DEFAULT
    if name == DEFAULT and name not in signatures:
        name = "decode"
    if name not in signatures:
        raise UnknownSignatureError(
            f"There is no signature {name!r}; this model has {_list(signatures)}."
        )
    return signatures[name]


def check_names(signature: Signature, inputs: Mapping[str, Any]) -> None:
    """Refuses inputs whose names are not the signature's.

    Raises:
        InputError: naming what is missing and what is unknown.
    """
    missing = [name for name in signature.inputs if name not in inputs]
    unknown = [name for name in inputs if name not in signature.inputs]
    if missing or unknown:
        what = [f"lacks {_list(missing)}"] if missing else []
        what += [f"has the unknown {_list(unknown)}"] if unknown else []
        raise InputError(
            f"{signature.name}: expected the inputs {_list(signature.inputs)}; the request "
            f"{' and '.join(what)}."
        )


def check_inputs(
    signature: Signature, inputs: Mapping[str, ArrayLike], *, exact: bool = False
) -> Arrays:
    """Converts the inputs of a signature to contiguous float32 and int32 arrays, in its order.

    A float32 input accepts floats whose rounding stays finite, integers up to 2^24 in size, and
    booleans. An int32 input accepts integers in its range. Where data may be absent, so do NaN,
    None, pandas.NA and masked entries, which become NaN. Texts become the numbers of their tokens
    where these are known.

    Args:
        signature: the signature to call.
        inputs: arrays of shape [b, *row] by name, with the same b >= 1 for all.
        exact: whether arrays must have the signature's type already, as on the wire.

    Raises:
        InputError: on unknown or missing names, and on an empty batch.
        ShapeError: on a wrong shape, or different numbers of rows.
        DtypeError: on a type that cannot be converted to the signature's.
        ValueRangeError: on NaN, infinity, numbers out of the range of the type, and numbers and
            texts that the model cannot take.
    """
    check_names(signature, inputs)
    arrays = {
        name: _convert(f"{signature.name}: input {name!r}", inputs[name], tensor, exact)
        for name, tensor in signature.inputs.items()
    }
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise ShapeError(f"{signature.name}: inputs need the same number of rows; {counts}.")
    return arrays


def check_outputs(signature: Signature, outputs: Mapping[str, np.ndarray], rows: int) -> Arrays:
    """Checks the outputs of a signature for that many rows, and returns them in its order.

    Raises:
        ReplyError: on missing or unknown names, a wrong type or shape, or numbers that are not
            finite.
    """
    if set(outputs) != set(signature.outputs):
        raise ReplyError(
            f"{signature.name}: the reply should hold {_list(signature.outputs)}; it holds "
            f"{_list(outputs) or 'nothing'}."
        )
    for name, tensor in signature.outputs.items():
        array, where = outputs[name], f"{signature.name}: output {name!r} of the reply"
        if array.ndim == 0 or len(array) != rows:
            got = "none" if array.ndim == 0 else len(array)
            raise ReplyError(f"{where} should have {counted(rows, 'row')}; it has {got}.")
        if array.shape[1:] != tensor.shape or array.dtype != tensor.dtype:
            raise ReplyError(
                f"{where} should be {tensor.dtype} {_shape(tensor)}; it is {array.dtype} "
                f"{list(array.shape)}."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array).reshape(rows, -1).all(axis=1)))
            raise ReplyError(f"{where} is not finite in row {row}.")
    return {name: outputs[name] for name in signature.outputs}


def _convert(where: str, value: ArrayLike, tensor: Tensor, exact: bool) -> np.ndarray:
    try:
        array = np.asarray(_with_nan(where, with_numbers(where, value, tensor), tensor))
    except InputError:
        raise
    except ValueError as error:
        raise ShapeError(
            f"{where}: expected shape {_shape(tensor)}; got rows of different lengths."
        ) from error
    if array.shape[:1] == (0,):
        raise InputError(f"{where}: expected at least one row; got an empty batch.")
    if array.dtype != tensor.dtype and (exact or array.dtype.kind not in _KINDS[tensor.dtype]):
        raise DtypeError(f"{where}: expected {tensor.dtype}; got {array.dtype}.")
    if array.ndim != len(tensor.shape) + 1 or array.shape[1:] != tensor.shape:
        hint = " Add the axis of the batch: x[np.newaxis]." if array.shape == tensor.shape else ""
        raise ShapeError(
            f"{where}: expected shape {_shape(tensor)}; got {list(array.shape)}.{hint}"
        )
    _check_range(where, array, tensor)
    array = np.ascontiguousarray(array, tensor.dtype)
    if tensor.allowed is not None and (bad := tensor.allowed.bad(array)).any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        problem = tensor.allowed.problem(float(array[place]))
        raise ValueRangeError(f"{where}: expected {problem} at {list(place)}.")
    return array


_KINDS = {"float32": "fiub", "int32": "iu"}


def _with_nan(where: str, value: Any, tensor: Tensor) -> Any:
    """Returns values whose absent entries (None, pandas.NA, masked) are NaN, where they may be.

    Raises:
        ValueRangeError: if a masked entry may not be absent.
    """
    if np.ma.isMaskedArray(value) and np.ma.getmaskarray(value).any():
        if not tensor.missing:
            raise ValueRangeError(f"{where}: expected numbers; got a masked entry.")
        return np.ma.filled(value.astype(np.float64), np.nan)
    if not tensor.missing or (isinstance(value, np.ndarray) and value.dtype != object):
        return value
    array = np.asarray(value)
    if array.dtype != object:
        return array
    if not all(_is_absent(one) or _is_real(one) for one in array.flat):
        return array
    numbers = [math.nan if _is_absent(one) else float(one) for one in array.flat]
    return np.array(numbers).reshape(array.shape)


def _is_absent(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_)


def _check_range(where: str, array: np.ndarray, tensor: Tensor) -> None:
    dtype, kind = tensor.dtype, array.dtype.kind
    if not array.size or kind == "b" or array.dtype == np.int32 == np.dtype(dtype):
        return
    if kind == "f":
        bad = ~(np.abs(array) <= np.finfo(np.float32).max)
        bad = bad & ~np.isnan(array) if tensor.missing else bad
        wanted = "finite numbers in the range of float32"
    else:
        low, high = (
            (_INT32.min, _INT32.max)
            if dtype == "int32"
            else (-_EXACT_IN_FLOAT32, _EXACT_IN_FLOAT32)
        )
        if low <= int(array.min()) and int(array.max()) <= high:
            return
        bad = (array < low) | (array > high)
        wanted = f"integers from {low} to {high}"
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueRangeError(f"{where}: expected {wanted}; got {array[place]} at {list(place)}.")


def _shape(tensor: Tensor) -> str:
    return "[" + ", ".join(["batch", *map(str, tensor.shape)]) + "]"


def _list(names: Any) -> str:
    return ", ".join(map(str, names))
