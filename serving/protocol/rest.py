"""REST bodies: the JSON of TensorFlow Serving, in rows and in columns.

    rows     request  {"signature_name": "score", "instances": [{"x": [...], "seed": [7, 0]}, ...]}
             answer   {"predictions": [{"elbo": -9.1, ...}, ...]}
    columns  request  {"signature_name": "score", "inputs": {"x": [[...], ...], "seed": [[7, 0]]}}
             answer   {"outputs": {"elbo": [-9.1, ...], ...}}

With one input, and with one output, both forms leave its name out: the value stands alone. NaN and
Infinity are bare tokens in answers; in requests they are refused, as are `1.0` for int32, numbers
out of range, repeated keys and keys that nobody reads.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, Literal

import numpy as np
from google.protobuf import json_format

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
    """The body of a request, for a client; inputs are those of `check_inputs`."""
    name = json.dumps(signature.name)
    return f'{{"signature_name":{name},"{_INPUTS[layout]}":{_lay_out(inputs, layout)}}}'.encode()


def read_predict(
    body: bytes, signatures: Mapping[str, Signature]
) -> tuple[Signature, Layout, Arrays]:
    """What the body of a request calls: the signature, the form, and the inputs, checked.

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
            f"Nobody reads the key {_show(unread[0])}; a request holds signature_name, and "
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
    return signature, layout, check_inputs(signature, arrays)


def write_outputs(signature: Signature, outputs: Arrays, layout: Layout) -> bytes:
    """The body of an answer, for a server."""
    ordered = {name: outputs[name] for name in signature.outputs}
    return f'{{"{_OUTPUTS[layout]}":{_lay_out(ordered, layout)}}}'.encode()


def read_outputs(body: bytes, signature: Signature, layout: Layout) -> Arrays:
    """The outputs in the body of an answer, for a client; rows and names are not yet checked.

    Raises:
        ReplyError: if the body is not such an answer, as when it was cut off.
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
    """The body of a refusal."""
    return _dump({"error": message})


def read_error(body: bytes) -> str:
    """The sentence in the body of a refusal; the start of the body if it is another's."""
    try:
        return str(_load(body)["error"])
    except (MalformedError, KeyError):
        return body[:200].decode(errors="replace").strip()


def write_metadata(spec: Any, signatures: Mapping[str, Signature]) -> bytes:
    """The body that describes a model.

    Args:
        spec: ModelSpec of the model and its version.
        signatures: what it serves.
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
    """ModelSpec and signatures in the body that describes a model.

    Raises:
        ReplyError: if it does not.
    """
    try:
        reply = _load(body)
        definitions = _parse(reply["metadata"][messages.METADATA_FIELD], pb.SignatureDefMap())
        spec = _parse(reply["model_spec"], pb.ModelSpec())
    except (MalformedError, KeyError, TypeError, json_format.ParseError) as error:
        raise ReplyError(f"The metadata of the model cannot be read ({error}).") from error
    return spec, messages.signatures_of(definitions)


def write_status(response: Any) -> bytes:
    """The body that says what versions do.

    Args:
        response: GetModelStatusResponse.
    """
    return _dump(_plain(response))


def read_status(body: bytes) -> Any:
    """GetModelStatusResponse in the body that says what versions do.

    Raises:
        ReplyError: if it does not.
    """
    try:
        return _parse(_load(body), pb.GetModelStatusResponse())
    except (MalformedError, json_format.ParseError) as error:
        raise ReplyError(f"The status of the model cannot be read ({error}).") from error


def _lay_out(arrays: Arrays, layout: Layout) -> str:
    """Arrays as JSON text.

    The text of a row is made once, and filled for all rows at once: several times as fast as
    `json.dumps` of nested lists. Nine digits tell any two float32 apart.
    """
    if layout == "columns" or len(arrays) == 1:
        columns = {name: _fill("%s", [array]) for name, array in arrays.items()}
        if len(columns) == 1:
            return next(iter(columns.values()))
        return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in columns.items()) + "}"
    row = ",".join(json.dumps(name).replace("%", "%%%%") + ":%s" for name in arrays)
    return _fill("{" + row + "}", list(arrays.values()))


def _fill(row: str, arrays: list[np.ndarray]) -> str:
    """A JSON list of rows, each the text `row` with the arrays' values in the places of `%s`."""
    flat = np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1, dtype=float)
    form = row % tuple(_template(array.shape[1:], _format(array)) for array in arrays)
    text = ",".join([form] * len(flat)) % tuple(flat.ravel().tolist())
    if not np.isfinite(flat).all():
        text = _NOT_FINITE.sub(lambda match: _TOKENS[match[0]], text)
    return f"[{text}]"


_NOT_FINITE = re.compile(r"(?<![^\[,:-])(?:nan|inf)(?![^\],}])")
_TOKENS = {"nan": "NaN", "inf": "Infinity"}


def _format(array: np.ndarray) -> str:
    if array.dtype.kind == "i":
        return "%d"
    return "%.1f" if (array == np.rint(array)).all() else "%.9g"


@functools.lru_cache
def _template(shape: tuple[int, ...], number: str) -> str:
    """A JSON list of that shape with a format in the place of each number."""
    for size in reversed(shape):
        number = f"[{','.join([number] * size)}]"
    return number


def _columns(value: Any, layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Values by name in either form; one that stands alone belongs to the only tensor."""
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
    """Nested lists of numbers as an array: float64 for float32, int64 for int32.

    The lists are opened level by level, so that each level has one length, and no string, boolean
    or null becomes a number unseen.
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
    if not set(map(type, items)) <= numbers:
        wrong = next(item for item in items if type(item) not in numbers)
        if isinstance(wrong, list):
            raise ShapeError(f"{where}: expected lists {depth} deep; got others.")
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
    """The array in the type of an output; what is too large becomes infinite."""
    if dtype == "int32" and (np.abs(array) >= 2**31).any():
        raise ValueRangeError("an integer is out of the range of int32.")
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _load(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body, object_pairs_hook=_object)
    except MalformedError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"the body is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise MalformedError(f"expected a JSON object; got {_show(value)}.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise MalformedError("a key is repeated in a JSON object.")
    return value


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _plain(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _parse(value: Any, message: Any) -> Any:
    if not isinstance(value, dict):
        raise MalformedError(f"expected an object; got {_show(value)}.")
    return json_format.ParseDict(value, message, ignore_unknown_fields=True)


def _show(value: Any) -> str:
    """A value in an error, cut where it is long."""
    text = json.dumps(value) if not isinstance(value, list | dict) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}..."
