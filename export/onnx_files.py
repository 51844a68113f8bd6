"""ONNX files: graphs whose large weights are written one at a time, without a second copy.

A protobuf message holds less than 2 GiB. If every file of an artifact is smaller, each holds its
own weights; otherwise all of them read their weights from a common file, `weights.bin`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx

from export.errors import ExportError
from keras_vae.integrity import WEIGHTS

__all__ = ["LARGE", "LIMIT", "WEIGHTS_FILE", "Graph", "Weight", "as_input", "read", "save"]

LARGE = 2**16
"""Minimum size in bytes of a weight that is kept outside the graph until it is written."""

LIMIT = 2**31 - 2**20
"""Maximum size in bytes of a file that holds its weights; protobuf ends at 2^31."""

WEIGHTS_FILE = Path(WEIGHTS).name

_ALIGNMENT = 2**16  # Windows aligns memory maps to this; other systems to a page
_LENGTH_DELIMITED = 2


@dataclass(frozen=True)
class Weight:
    """A tensor that is read only when it is needed.

    Attributes:
        shape: its sizes.
        dtype: its NumPy dtype.
        read: function that returns the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray] = field(repr=False)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def content(self) -> memoryview:
        """Returns the values as they stand in a file: in C order, little-endian."""
        values = self.read()
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        return values.reshape(-1).view(np.uint8).data


@dataclass(frozen=True)
class Graph:
    """An ONNX model without its large weights, which are its last inputs.

    Attributes:
        model: the model.
        weights: weights by the name of the input.
    """

    model: onnx.ModelProto
    weights: Mapping[str, Weight]

    @property
    def opset(self) -> int:
        """The model's op set."""
        return self.model.opset_import[0].version

    @property
    def size(self) -> int:
        """Size of the model and all of its weights in bytes."""
        return self.model.ByteSize() + sum(weight.size for weight in self.weights.values())

    def save(self, path: Path) -> None:
        """Writes the model with its weights inside."""
        with path.open("wb") as file:
            _write(file, self)


def as_input(name: str, weight: Weight) -> onnx.ValueInfoProto:
    """Describes a weight as an input of a graph."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, weight.shape)


def save(graphs: Mapping[Path, Graph]) -> None:
    """Writes the graphs of a directory; equal graphs give equal bytes.

    Args:
        graphs: graphs by the path of the file.
    """
    if all(graph.size <= LIMIT for graph in graphs.values()):
        for path, graph in graphs.items():
            graph.save(path)
        return
    (directory,) = {path.parent for path in graphs}
    with (directory / WEIGHTS_FILE).open("wb") as file:
        places: dict[bytes, int] = {}
        for path, graph in graphs.items():
            _refer(graph, file, places).save(path)


def read(path: Path) -> tuple[onnx.ModelProto, list[str]]:
    """Reads a model and the names of its large weights, which become its last inputs.

    Raises:
        ExportError: if it is not an ONNX file, or takes weights from anywhere but `weights.bin`.
    """
    try:
        whole = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise ExportError(
            f"{path} is not an ONNX file ({' '.join(str(error).split())}); export the model again."
        ) from error
    initializers, names = list(whole.graph.initializer), []
    del whole.graph.initializer[:]
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    for tensor in initializers:
        is_outside = tensor.data_location == onnx.TensorProto.EXTERNAL
        if is_outside:
            _check_place(path, tensor)
        if is_outside or len(tensor.raw_data) >= LARGE:
            entry = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(entry)
            names.append(tensor.name)
        else:
            model.graph.initializer.append(tensor)
    return model, names


def _write(file: BinaryIO, graph: Graph) -> None:
    """Writes a message field by field, because a protobuf library would hold it in memory twice.

    The fields of a message may come in any order, and a repeated field in several places.
    """
    model, inner = onnx.ModelProto(), onnx.GraphProto()
    model.CopyFrom(graph.model)
    inner.CopyFrom(model.graph)
    model.ClearField("graph")
    del inner.input[len(inner.input) - len(graph.weights) :]
    tensors = [
        (_tensor_head(name, weight), weight) for name, weight in sorted(graph.weights.items())
    ]
    sizes = [len(head) + weight.size for head, weight in tensors]
    tags = [_tag(inner, "initializer", size) for size in sizes]
    body = inner.SerializeToString(deterministic=True)
    whole = len(body) + sum(map(len, tags)) + sum(sizes)
    file.write(model.SerializeToString(deterministic=True))
    file.write(_tag(model, "graph", whole))
    file.write(body)
    for tag, (head, weight) in zip(tags, tensors, strict=True):
        file.write(tag)
        file.write(head)
        file.write(weight.content())


def _tensor_head(name: str, weight: Weight) -> bytes:
    """Encodes a tensor up to its values, which follow."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=weight.shape)
    return tensor.SerializeToString(deterministic=True) + _tag(tensor, "raw_data", weight.size)


def _tag(
    message: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto, name: str, size: int
) -> bytes:
    """Encodes the tag and length before a field of `size` bytes."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def _refer(graph: Graph, file: BinaryIO, places: dict[bytes, int]) -> Graph:
    """Returns the graph with initializers that say where in the file their values are.

    Args:
        graph: the graph.
        file: open for writing at its end.
        places: offsets of the values in the file, by digest.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    inner = model.graph
    del inner.input[len(inner.input) - len(graph.weights) :]
    for name, weight in sorted(graph.weights.items()):
        content = weight.content()
        digest = hashlib.sha256(content).digest()
        if digest not in places:
            file.write(bytes(-file.tell() % _ALIGNMENT))
            places[digest] = file.tell()
            file.write(content)
        tensor = inner.initializer.add(name=name, dims=weight.shape)
        tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(weight.dtype)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = {"location": WEIGHTS_FILE, "offset": places[digest], "length": weight.size}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
    return Graph(model, {})


def _check_place(path: Path, tensor: onnx.TensorProto) -> None:
    """Refuses values outside the artifact's own file of weights."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    source = path.parent / WEIGHTS_FILE
    size = source.stat().st_size if source.is_file() and not source.is_symlink() else 0
    ends = [place.get(key, "") for key in ("offset", "length")]
    is_inside = all(end.isdecimal() for end in ends) and sum(map(int, ends)) <= size
    if place.get("location") != WEIGHTS_FILE or not is_inside:
        raise ExportError(
            f"{path}: expected the values of {tensor.name} inside {WEIGHTS_FILE} of {size} bytes; "
            f"got {place}. Do not serve it; export the model again."
        )
