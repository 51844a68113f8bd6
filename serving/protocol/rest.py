"""REST bodies: the JSON of TensorFlow Serving, in rows and in columns.

    rows     request  {"signature_name": "score", "instances": [{"x": [...], "seed": [7, 0]}, ...]}
             answer   {"predictions": [{"elbo": -9.1, ...}, ...]}
    columns  request  {"signature_name": "score", "inputs": {"x": [[...], ...], "seed": [[7, 0]]}}
             answer   {"outputs": {"elbo": [-9.1, ...], ...}}

With one input, and with one output, both forms omit its name: the value stands alone. NaN and
Infinity are bare tokens in answers. Where data may be absent, a request holds NaN in its place (the
only form that TensorFlow Serving reads) or null. Elsewhere requests with them are refused, as are
`1.0` for int32, numbers out of range, repeated keys and unknown keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, Literal

import numpy as np
import orjson
from google.protobuf import json_format

from keras_vae.integrity import one_line
from serving.artifact import Signature, Tensor
from serving.errors import (
    DtypeError,
    InputError,
    MalformedError,
    ReplyError,
    ShapeError,
    ValueRangeError,
)
from serving.protocol import messages
from serving.protocol import tensorflow_serving_pb2 as pb
from serving.protocol.checks import Arrays, check_inputs, check_names, find_signature
from serving.protocol.texts import ONLY_NUMBERS

__all__ = [
    "Layout",
    "read_error",
    "read_metadata",
    "read_outputs",
    "read_predict",
    "read_status",
    "write_error",
    "write_metadata",
    "write_outputs",
    "write_predict",
    "write_status",
]

Layout = Literal["rows", "columns"]

_INPUTS: dict[Layout, str] = {"rows": "instances", "columns": "inputs"}
_OUTPUTS: dict[Layout, str] = {"rows": "predictions", "columns": "outputs"}


def write_predict(signature: Signature, inputs: Arrays, layout: Layout) -> bytes:
    """Writes the body of a request, for a client; `inputs` come from `check_inputs`."""
    body = {"signature_name": signature.name, _INPUTS[layout]: _lay_out(inputs, layout)}
    return _dump(body, inputs)


def read_predict(
    body: bytes, signatures: Mapping[str, Signature]
) -> tuple[Signature, Layout, Arrays]:
    """Reads the body of a request: returns the signature, the form and the checked inputs.

    Raises:
        UnknownSignatureError, MalformedError, InputError: if the request is at fault.
    """
    request = _load(body)
    name = request.get("signature_name", "")
    if not isinstance(name, str):
        raise MalformedError(f"Expected the name of a signature; got {_show(name)}.")
    signature = find_signature(signatures, name)
    unread = [key for key in request if key not in ("signature_name", *_INPUTS.values())]
    if unread:
        raise MalformedError(
            f"The key {_show(unread[0])} is unknown; a request holds signature_name, and "
            "instances (rows) or inputs (columns)."
        )
    layouts = [layout for layout, key in _INPUTS.items() if key in request]
    if len(layouts) != 1:
        raise MalformedError(
            f"Expected either instances (rows) or inputs (columns); got "
            f"{'both' if layouts else 'neither'}."
        )
    layout = layouts[0]
    key = _INPUTS[layout]
    try:
        columns = _columns(request[key], layout, signature.inputs)
    except MalformedError as error:
        raise MalformedError(f"{signature.name}: {key}: {error}") from error
    check_names(signature, columns)
    arrays = {
        name: _array(columns[name], tensor, f"{signature.name}: input {name!r}")
        for name, tensor in signature.inputs.items()
    }
    _refuse_repeated_keys(body, request, layout)
    return signature, layout, check_inputs(signature, arrays)


def write_outputs(signature: Signature, outputs: Arrays, layout: Layout) -> bytes:
    """Writes the body of an answer, for a server."""
    ordered = {name: outputs[name] for name in signature.outputs}
    return _dump({_OUTPUTS[layout]: _lay_out(ordered, layout)}, ordered)


def read_outputs(body: bytes, signature: Signature, layout: Layout) -> Arrays:
    """Reads the outputs in the body of an answer, for a client; does not check rows or names.

    Raises:
        ReplyError: if the body is not such an answer, for example because it was cut off.
    """
    try:
        reply = _load(body)
        if _OUTPUTS[layout] not in reply:
            raise MalformedError(f"it holds no {_OUTPUTS[layout]}.")
        columns = _columns(reply[_OUTPUTS[layout]], layout, signature.outputs)
        return {
            name: _narrow(_array(columns[name], tensor, f"output {name!r}"), tensor.dtype)
            for name, tensor in signature.outputs.items()
            if name in columns
        }
    except (MalformedError, InputError) as error:
        raise ReplyError(f"{signature.name}: the reply cannot be read: {error}") from error


def write_error(message: str) -> bytes:
    """Writes the body of a refusal."""
    return _dump({"error": message})


def read_error(body: bytes) -> str:
    """Reads the message in the body of a refusal, or the start of a body in another form."""
    try:
        return str(_load(body)["error"])
    except (MalformedError, KeyError):
        return body[:200].decode(errors="replace").strip()


def write_metadata(spec: Any, signatures: Mapping[str, Signature]) -> bytes:
    """Writes the body that describes a model.

    Args:
        spec: ModelSpec of the model and its version.
        signatures: signatures of the model.
    """
    return _dump(
        {
            "model_spec": {
                "name": spec.name,
                "signature_name": "",
                "version": str(spec.version.value),
            },
            "metadata": {messages.METADATA_FIELD: _plain(messages.signature_map(signatures))},
        }
    )


def read_metadata(body: bytes) -> tuple[Any, dict[str, Signature]]:
    """Reads ModelSpec and signatures from the body that describes a model.

    Raises:
        ReplyError: if the body does not describe a model.
    """
    try:
        reply = _load(body)
        definitions = _parse(reply["metadata"][messages.METADATA_FIELD], pb.SignatureDefMap())
        spec = _parse(reply["model_spec"], pb.ModelSpec())
    except (MalformedError, KeyError, TypeError, json_format.ParseError) as error:
        raise ReplyError(f"The metadata of the model cannot be read ({error}).") from error
    return spec, messages.signatures_of(definitions)


def write_status(response: Any) -> bytes:
    """Writes the body with the status of each version.

    Args:
        response: GetModelStatusResponse.
    """
    return _dump(_plain(response))


def read_status(body: bytes) -> Any:
    """Reads a GetModelStatusResponse from the body with the status of each version.

    Raises:
        ReplyError: if the body does not hold one.
    """
    try:
        return _parse(_load(body), pb.GetModelStatusResponse())
    except (MalformedError, json_format.ParseError) as error:
        raise ReplyError(f"The status of the model cannot be read ({error}).") from error


def _lay_out(arrays: Arrays, layout: Layout) -> Any:
    """Lays arrays out as a JSON value."""
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if layout == "columns":
        return arrays
    rows = len(next(iter(arrays.values())))
    return [{name: array[row] for name, array in arrays.items()} for row in range(rows)]


def _columns(value: Any, layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Reads values by name from either form; a lone value belongs to the only tensor."""
    if layout == "columns" and isinstance(value, dict):
        return value
    if not isinstance(value, list):
        raise MalformedError(f"expected a list of rows; got {_show(value)}.")
    keys = value[0].keys() if value and isinstance(value[0], dict) else None
    if layout == "rows" and keys is not None:
        if not all(isinstance(row, dict) and row.keys() == keys for row in value):
            raise MalformedError("every row should be an object of the same keys.")
        return {key: [row[key] for row in value] for key in keys}
    if value and len(tensors) > 1:
        raise MalformedError(f"expected values by name, for {', '.join(tensors)}.")
    return dict.fromkeys(tensors, value)


def _array(value: Any, tensor: Tensor, where: str) -> np.ndarray:
    """Converts nested lists of numbers to an array: float64 for float32, int64 for int32.

    The lists are opened level by level. Each level must have one length, and no string, boolean or
    null silently becomes a number.
    """
    shape: list[int] = []
    items, depth = [value], len(tensor.shape) + 1
    while items and set(map(type, items)) == {list} and len(shape) < depth:
        lengths = set(map(len, items))
        if len(lengths) > 1:
            some = " and ".join(map(str, sorted(lengths)[:2]))
            raise ShapeError(f"{where}: expected lists of the same length; got {some}.")
        shape.append(lengths.pop())
        items = list(chain.from_iterable(items))
    numbers = _NUMBERS[tensor.dtype]
    if tensor.missing:
        items = [math.nan if item is None else item for item in items]
    if not set(map(type, items)) <= numbers:
        wrong = next(item for item in items if type(item) not in numbers)
        if isinstance(wrong, list):
            raise ShapeError(f"{where}: expected lists {depth} deep; got others.")
        if isinstance(wrong, str) and tensor.tokens is not None:
            raise DtypeError(f"{where}: expected the numbers of tokens; got texts. {ONLY_NUMBERS}")
        kind = "integers" if tensor.dtype == "int32" else "numbers"
        raise DtypeError(f"{where}: expected JSON {kind}; got {_show(wrong)}.")
    try:
        array = np.array(items, np.int64 if tensor.dtype == "int32" else np.float64)
    except OverflowError as error:
        raise ValueRangeError(
            f"{where}: expected numbers in the range of {tensor.dtype}; got one that is not."
        ) from error
    return array.reshape(shape)


_NUMBERS: dict[str, set[type]] = {"float32": {float, int}, "int32": {int}}


def _narrow(array: np.ndarray, dtype: str) -> np.ndarray:
    """Converts an array to the type of an output; numbers that are too large become infinite."""
    if dtype == "int32" and (np.abs(array) >= 2**31).any():
        raise ValueRangeError("an integer is out of the range of int32.")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _load(body: bytes) -> dict[str, Any]:
    try:
        value = _parse_json(body)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"the body is not JSON ({one_line(error)}).") from error
    if not isinstance(value, dict):
        raise MalformedError(f"expected a JSON object; got {_show(value)}.")
    return value


def _parse_json(body: bytes) -> Any:
    """Parses JSON in UTF-8 in which NaN and Infinity may be bare tokens."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return json.loads(body.decode())


def _refuse_repeated_keys(body: bytes, request: dict[str, Any], layout: Layout) -> None:
    """Refuses a request with a repeated key, of which a server might read the other value.

    Every string in a request whose values are numbers is a key or the name of the signature.
    """
    value = request[_INPUTS[layout]]
    objects = [request, value] if layout == "columns" else [request, *value]
    strings = sum(len(entry) for entry in objects if isinstance(entry, dict))
    if body.count(b'"') != 2 * (strings + ("signature_name" in request)):
        raise MalformedError("a key is repeated in a JSON object.")


def _dump(value: Any, arrays: Arrays | None = None) -> bytes:
    """Writes a value that holds these arrays as JSON; NaN and Infinity are bare tokens."""
    if all(np.isfinite(array).all() for array in (arrays or {}).values()):
        return orjson.dumps(value, _listed, orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(value, separators=(",", ":"), default=_listed).encode()


def _listed(array: np.ndarray) -> Any:
    return array.tolist()


def _plain(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _parse(value: Any, message: Any) -> Any:
    if not isinstance(value, dict):
        raise MalformedError(f"expected an object; got {_show(value)}.")
    return json_format.ParseDict(value, message, ignore_unknown_fields=True)


def _show(value: Any) -> str:
    """Formats a value for an error message and cuts it if it is long."""
    text = json.dumps(value) if not isinstance(value, list | dict) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}..."
