"""Canonical form: the same model gives the same bytes, whichever process converted it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from onnx.reference import ReferenceEvaluator

from export.onnx_files import Graph, Weight, as_input
from export.onnx_graphs.checks import IR_VERSION, OPSETS
from export.onnx_graphs.nodes import LAYOUT_OPS, reads
from keras_vae.signatures import Signature

__all__ = ["canonical", "lay_out"]


def lay_out(model: onnx.ModelProto, weights: dict[str, Weight]) -> dict[str, Weight]:
    """Removes ops that only transpose, reshape or cast a weight, and applies them to the weight.

    Returns:
        The weights as the rest of the model reads them, by name.
    """
    graph, weights = model.graph, dict(weights)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {entry.name: entry.type.tensor_type for entry in inferred.value_info}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        kind = types.get(node.output[0])
        is_layout = node.op_type in LAYOUT_OPS and node.input[0] in weights and kind is not None
        if not is_layout or any(name not in constants for name in node.input[1:]):
            nodes.append(node)
            continue
        weights[node.output[0]] = _laid_out(weights[node.input[0]], node, kind, constants)
    del graph.node[:]
    graph.node.extend(nodes)
    return weights


def _laid_out(
    weight: Weight, node: onnx.NodeProto, kind: Any, constants: dict[str, onnx.TensorProto]
) -> Weight:
    """Applies a node to a weight; the result has the given type."""
    source, *others = node.input
    ends = [onnx.helper.make_empty_tensor_value_info(n) for n in (source, node.output[0])]
    values = [constants[name] for name in others]
    graph = onnx.helper.make_graph([node], "layout", ends[:1], ends[1:], values)
    opset = onnx.helper.make_opsetid("", OPSETS[0])
    model = onnx.helper.make_model(graph, opset_imports=[opset])
    run: Callable[..., Any] = ReferenceEvaluator(model).run
    return Weight(
        tuple(dim.dim_value for dim in kind.shape.dim),
        onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type),
        lambda: run(None, {source: weight.read()})[0],
    )


def canonical(
    model: onnx.ModelProto,
    signature: Signature,
    shapes: dict[str, list[int | None]],
    weights: dict[str, Weight],
    opset: int,
) -> Graph:
    """Returns the same model with nodes and names in an order that depends only on the graph.

    Args:
        model: the model as tf2onnx converted it.
        signature: the converted signature.
        shapes: shapes of the outputs, by name.
        weights: large weights as the model reads them, by name.
        opset: the op set.
    """
    graph = onnx.GraphProto(name=signature.name)
    graph.input.extend(
        _value_info(spec.name, spec.shape, spec.dtype) for spec in signature.inputs.values()
    )
    wanted = list(signature.outputs)
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.output}
    for name in wanted:
        entry = onnx.helper.make_tensor_value_info(name, kinds[name], ["batch", *shapes[name][1:]])
        graph.output.append(entry)
    names = {name: name for name in [*signature.inputs, *wanted]}
    renamer = _Renamer(weights)
    renamer.fill(model.graph, graph, names)
    used = {names[name]: weights[name] for name in renamer.weights}
    graph.input.extend(as_input(name, weight) for name, weight in used.items())
    result = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=IR_VERSION
    )
    result.producer_name = "keras_vae"
    result.doc_string = signature.description
    return Graph(result, used)


class _Renamer:
    """Copier of graphs, depth first from their outputs, that numbers names in visiting order.

    Attributes:
        weights: those of the given names that the graphs read, in visiting order.
    """

    def __init__(self, weights: Collection[str] = ()) -> None:
        self.weights: list[str] = []
        self._large = frozenset(weights)
        self._count = 0

    def fill(self, source: onnx.GraphProto, target: onnx.GraphProto, names: dict[str, str]) -> None:
        """Copies nodes and initializers of `source`, whose outer and outward `names` are given."""
        producers = {output: node for node in source.node for output in node.output}
        initializers = {tensor.name: tensor for tensor in source.initializer}
        constants: dict[bytes, str] = {}
        done: set[int] = set()
        stack: list[tuple[str, bool]] = [(out.name, False) for out in reversed(source.output)]
        while stack:
            value, is_ready = stack.pop()
            node = producers.get(value)
            if node is None:
                if value in initializers and value not in names:
                    names[value] = self._initializer(initializers[value], target, constants)
                elif value in self._large and value not in names:
                    names[value] = self._name("constant")
                    self.weights.append(value)
                continue
            if id(node) in done:
                continue
            if not is_ready:
                stack.append((value, True))
                stack.extend((name, False) for name in reversed(reads(node)) if name)
                continue
            done.add(id(node))
            target.node.append(self._node(node, names))

    def _initializer(
        self, tensor: onnx.TensorProto, target: onnx.GraphProto, constants: dict[bytes, str]
    ) -> str:
        array = onnx.numpy_helper.to_array(tensor)
        key = _key(array)
        if key not in constants:
            constants[key] = self._name("constant")
            target.initializer.append(
                onnx.numpy_helper.from_array(
                    np.ascontiguousarray(array).reshape(array.shape), constants[key]
                )
            )
        return constants[key]

    def _node(self, node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
        copy = onnx.NodeProto(op_type=node.op_type)
        copy.input.extend(names[name] if name else "" for name in node.input)
        for name in node.output:
            if name and name not in names:
                names[name] = self._name(node.op_type)
            copy.output.append(names[name] if name else "")
        copy.name = f"node_{copy.output[0]}"
        for attribute in sorted(node.attribute, key=lambda entry: entry.name):
            clone = copy.attribute.add()
            clone.CopyFrom(attribute)
            if attribute.type == onnx.AttributeProto.GRAPH:
                clone.g.CopyFrom(self._subgraph(attribute.g, names))
            elif attribute.type == onnx.AttributeProto.TENSOR:
                clone.t.name = ""
        return copy

    def _subgraph(self, source: onnx.GraphProto, outer: dict[str, str]) -> onnx.GraphProto:
        target = onnx.GraphProto(name=self._name("body"))
        names = dict(outer)
        for entry in source.input:
            names[entry.name] = self._name("argument")
            copy = target.input.add()
            copy.CopyFrom(entry)
            copy.name = names[entry.name]
            _forget_dim_names(copy)
        self.fill(source, target, names)
        for entry in source.output:
            copy = target.output.add()
            copy.CopyFrom(entry)
            copy.name = names[entry.name]
            _forget_dim_names(copy)
        return target

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"


def _forget_dim_names(entry: onnx.ValueInfoProto) -> None:
    for dim in entry.type.tensor_type.shape.dim:
        if dim.HasField("dim_param"):
            dim.ClearField("dim_param")


def _key(array: np.ndarray) -> bytes:
    return f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()


def _value_info(name: str, shape: tf.TensorShape, dtype: tf.DType) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype.as_numpy_dtype))
    return onnx.helper.make_tensor_value_info(name, kind, ["batch", *shape.as_list()[1:]])
