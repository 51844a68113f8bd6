"""Messages: the gRPC interface of TensorFlow Serving, and arrays in its messages.

The messages are those of `tensorflow_serving.proto`, byte for byte as `tensorflow_serving.apis`
writes and reads them. A server registers `METHODS` under their paths.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError, Message

from keras_vae.spelling import counted
from serving.artifact import Signature, Tensor
from serving.errors import DtypeError, InputError, MalformedError, ReplyError
from serving.protocol import tensorflow_serving_pb2 as pb
from serving.protocol.checks import DEFAULT, Arrays, check_inputs, find_signature

__all__ = [
    "METADATA_FIELD",
    "METHODS",
    "SIGNATURES_URL",
    "Method",
    "from_proto",
    "metadata",
    "model_spec",
    "parse",
    "predict_request",
    "read_metadata",
    "read_outputs",
    "read_predict",
    "signature_map",
    "signatures_of",
    "to_proto",
    "write_outputs",
]


class Method(NamedTuple):
    """A method of the gRPC interface: its path, and the classes of its messages."""

    path: str
    request: Any
    response: Any


METHODS: dict[str, Method] = {
    "Predict": Method(
        "/tensorflow.serving.PredictionService/Predict", pb.PredictRequest, pb.PredictResponse
    ),
    "GetModelMetadata": Method(
        "/tensorflow.serving.PredictionService/GetModelMetadata",
        pb.GetModelMetadataRequest,
        pb.GetModelMetadataResponse,
    ),
    "GetModelStatus": Method(
        "/tensorflow.serving.ModelService/GetModelStatus",
        pb.GetModelStatusRequest,
        pb.GetModelStatusResponse,
    ),
}
"""Methods of an artifact's server, by name."""

METADATA_FIELD = "signature_def"
"""The only metadata field."""

SIGNATURES_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
"""Type of that field, as TensorFlow Serving names it."""

_TYPES = {"float32": pb.DT_FLOAT, "int32": pb.DT_INT32}
_NAMES = {number: name for name, number in _TYPES.items()}
_PREDICT = "tensorflow/serving/predict"
_MOST_FILLED = 2**24  # numbers that one repeated value may stand for


def to_proto(array: np.ndarray) -> Any:
    """Converts a float32 or int32 array to a TensorProto.

    Raises:
        DtypeError: if it is neither.
    """
    name = array.dtype.name
    if name not in _TYPES:
        raise DtypeError(f"Expected a float32 or int32 array; got {name}.")
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return pb.TensorProto(
        dtype=_TYPES[name], tensor_shape=_shape(array.shape), tensor_content=little.tobytes()
    )


def from_proto(proto: Any, name: str = "tensor") -> np.ndarray:
    """Reads the array in a TensorProto, from `tensor_content` or from the typed field.

    As in TensorFlow, a typed field that is shorter than the shape repeats its last number, and an
    empty one means zeros.

    Args:
        proto: the message.
        name: how an error names it.

    Raises:
        DtypeError: if it holds neither float32 nor int32.
        MalformedError: if shape and numbers do not agree.
    """
    if proto.dtype not in _NAMES:
        known = proto.dtype in pb.DataType.values()
        what = pb.DataType.Name(proto.dtype) if known else f"type {proto.dtype}"
        raise DtypeError(f"{name}: expected DT_FLOAT or DT_INT32; got {what}.")
    dtype = np.dtype(_NAMES[proto.dtype])
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        raise MalformedError(f"{name}: a tensor needs a shape that is known; got {list(shape)}.")
    count, content = math.prod(shape), proto.tensor_content
    if content:
        if len(content) != count * dtype.itemsize:
            raise MalformedError(
                f"{name}: {dtype} of shape {list(shape)} is {count * dtype.itemsize} bytes; got "
                f"{len(content)}."
            )
        flat = np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype)
        return _reshaped(flat, shape, name)
    values = np.array(proto.float_val if dtype == np.float32 else proto.int_val, dtype)
    if len(values) > count or (len(values) < count and count > _MOST_FILLED):
        raise MalformedError(
            f"{name}: shape {list(shape)} is {counted(count, 'number')}; got {len(values)} of them."
        )
    filled = np.full(count, values[-1] if len(values) else 0, dtype)
    filled[: len(values)] = values
    return _reshaped(filled, shape, name)


def _reshaped(flat: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Reshapes the numbers, and refuses a shape that NumPy finds too large or too deep."""
    try:
        return flat.reshape(shape)
    except ValueError as error:
        raise MalformedError(f"{name}: no tensor has the shape {list(shape)}.") from error


def parse(message: Any, body: bytes) -> Any:
    """Parses bytes as a message of a class.

    Raises:
        MalformedError: if they are not such a message.
    """
    try:
        return message.FromString(body)
    except DecodeError as error:
        raise MalformedError(f"Expected a {message.DESCRIPTOR.name}; got other bytes.") from error


def model_spec(
    name: str, version: int | None = None, label: str | None = None, signature: str = ""
) -> Any:
    """Makes a ModelSpec."""
    spec = pb.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        spec.version.value = version
    elif label is not None:
        spec.version_label = label
    return spec


def predict_request(spec: Any, inputs: Arrays) -> Any:
    """Makes a PredictRequest, for a client."""
    return pb.PredictRequest(
        model_spec=spec, inputs={name: to_proto(array) for name, array in inputs.items()}
    )


def read_predict(request: Any, signatures: Mapping[str, Signature]) -> tuple[Signature, Arrays]:
    """Reads a PredictRequest: returns the signature and its checked inputs.

    `output_filter` is checked too; `write_outputs` applies it.

    Raises:
        UnknownSignatureError, MalformedError, InputError: if the request is at fault.
    """
    signature = find_signature(signatures, request.model_spec.signature_name)
    arrays = {name: from_proto(proto, name) for name, proto in request.inputs.items()}
    unknown = [name for name in request.output_filter if name not in signature.outputs]
    if unknown:
        raise InputError(
            f"{signature.name}: output_filter names {', '.join(unknown)}; the outputs are "
            f"{', '.join(signature.outputs)}."
        )
    return signature, check_inputs(signature, arrays, exact=True)


def write_outputs(spec: Any, outputs: Arrays, only: Iterable[str] = ()) -> Any:
    """Makes a PredictResponse, for a server.

    Args:
        spec: model, version and signature that answered.
        outputs: arrays by name.
        only: the request's `output_filter`; empty for all.
    """
    names = list(only) or list(outputs)
    return pb.PredictResponse(
        model_spec=spec, outputs={name: to_proto(outputs[name]) for name in names}
    )


def read_outputs(response: Any) -> Arrays:
    """Reads the outputs in a PredictResponse, for a client; does not check them.

    Raises:
        ReplyError: if one cannot be read.
    """
    try:
        return {name: from_proto(proto, name) for name, proto in response.outputs.items()}
    except (DtypeError, MalformedError) as error:
        raise ReplyError(f"The reply cannot be read. {error}") from error


def signature_map(signatures: Mapping[str, Signature]) -> Any:
    """Makes a SignatureDefMap, for a server; `serving_default` is a second name of `decode`."""
    table = dict(signatures)
    if "decode" in table:
        table.setdefault(DEFAULT, table["decode"])
    return pb.SignatureDefMap(
        signature_def={
            key: pb.SignatureDef(
                inputs=_infos(f"{key}_", signature.inputs),
                outputs=_infos(f"{key}_output_", signature.outputs),
                method_name=_PREDICT,
            )
            for key, signature in table.items()
        }
    )


def signatures_of(definitions: Any) -> dict[str, Signature]:
    """Reads the signatures in a SignatureDefMap that take and return batches of float32 and int32.

    Others, such as the initialiser that a SavedModel shows, are left out.
    """
    table = {}
    for name, definition in sorted(definitions.signature_def.items()):
        inputs, outputs = _tensors(definition.inputs), _tensors(definition.outputs)
        if inputs and outputs:
            table[name] = Signature(name, "", inputs, outputs, None)
    return {name: _with_absent(signature, table) for name, signature in table.items()}


def _with_absent(signature: Signature, table: Mapping[str, Signature]) -> Signature:
    """Marks the inputs that may be absent: those that `impute` returns values of."""
    imputed = table["impute"].outputs if "impute" in table else {}
    inputs = {
        name: replace(tensor, missing=True) if _value_of(name) in imputed else tensor
        for name, tensor in signature.inputs.items()
    }
    return replace(signature, inputs=inputs)


def _value_of(name: str) -> str:
    """Returns the output of `impute` that belongs to an input x or x_NAME."""
    return f"value{name[1:]}" if name == "x" or name.startswith("x_") else ""


def metadata(spec: Any, signatures: Mapping[str, Signature]) -> Any:
    """Makes a GetModelMetadataResponse, for a server."""
    response = pb.GetModelMetadataResponse(model_spec=spec)
    field = response.metadata[METADATA_FIELD]
    field.type_url, field.value = SIGNATURES_URL, signature_map(signatures).SerializeToString()
    return response


def read_metadata(response: Any) -> dict[str, Signature]:
    """Reads the signatures in a GetModelMetadataResponse, for a client.

    Raises:
        ReplyError: if it holds none.
    """
    field = response.metadata.get(METADATA_FIELD)
    if field is None or field.type_url != SIGNATURES_URL:
        raise ReplyError("The metadata of the model holds no signatures.")
    try:
        return signatures_of(pb.SignatureDefMap.FromString(field.value))
    except DecodeError as error:
        raise ReplyError("The metadata of the model cannot be read.") from error


def _infos(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Message]:
    return {
        name: pb.TensorInfo(
            name=f"{prefix}{name}:0",
            dtype=_TYPES[tensor.dtype],
            tensor_shape=_shape((-1, *tensor.shape)),
        )
        for name, tensor in tensors.items()
    }


def _tensors(infos: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors = {}
    for name, info in sorted(infos.items()):
        sizes = [dim.size for dim in info.tensor_shape.dim]
        if info.dtype not in _NAMES or not sizes or sizes[0] != -1 or min(sizes[1:], default=1) < 1:
            return {}
        tensors[name] = Tensor(_NAMES[info.dtype], tuple(sizes[1:]))
    return tensors


def _shape(sizes: Iterable[int]) -> Any:
    return pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=size) for size in sizes])
