"""ONNX graphs: a signature converted, put into a canonical form and checked."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

from export import gates
from export.errors import ExportError, sentence
from export.handlers import CUSTOM_OP_HANDLERS
from export.handlers.values import Value, handler, where
from export.sealing import sealed
from keras_vae.signatures import Signature

__all__ = ["IR_VERSION", "OPSET", "check", "convert", "reads", "traced"]

OPSET = 18
IR_VERSION = 8


def _diag_part(x: Value, k: Value, padding: Value) -> Value:
    """The main diagonals of square matrices; tf2onnx's own way fails on an empty batch."""
    rows, columns = x.graph.get_shape(x.name)[-2:]
    offset = x.graph.get_node_by_output(k.name)
    if rows != columns or rows < 1 or not offset.is_const() or offset.get_tensor_value() != 0:
        raise ValueError("Expected the main diagonal of square matrices of static size.")
    diagonal = where(x.constant(np.eye(rows), bool), x, x.constant(0.0))
    return diagonal.apply("ReduceSum", x.constant([-1], np.int64), keepdims=0)


_HANDLERS = {**CUSTOM_OP_HANDLERS, "MatrixDiagPartV3": handler(_diag_part)}

_RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike", "Dropout"}
)


def traced(signature: Signature) -> Any:
    """Returns the signature as a pure `tf.function` with named inputs that captures weights alone.

    Raises:
        ExportError: if it cannot be traced, or is not pure; names signature, op and layer.
    """
    names = list(signature.inputs)

    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = signature.function(**dict(zip(names, tensors, strict=True)))
        return {name: tf.identity(outputs[name], name) for name in signature.outputs}

    result = tf.function(function, input_signature=[*signature.inputs.values()], autograph=False)
    try:
        concrete = result.get_concrete_function()
    except Exception as error:
        raise ExportError(
            f"{signature.name}: the function cannot be traced: {sentence(error)}"
        ) from error
    gates.check_function(signature, concrete)
    return sealed(signature.name, concrete, [*signature.inputs.values()])


def convert(signature: Signature, function: Any = None) -> onnx.ModelProto:
    """The signature as a canonical, checked ONNX model of opset 18.

    Two conversions of the same model give the same bytes, in any process.

    Args:
        signature: what is converted.
        function: what `traced` made of it; None traces it here.

    Raises:
        ExportError: if an op cannot be converted or a check fails; names signature, op and layer.
    """
    function = traced(signature) if function is None else function
    outputs = function.get_concrete_function().structured_outputs
    shapes = {name: outputs[name].shape.as_list() for name in signature.outputs}
    try:
        model, problems = _from_function(signature, function, copies="FALSE")
    except Exception:
        try:
            model, problems = _from_function(signature, function, copies="TRUE")
        except Exception as error:
            raise ExportError(f"{signature.name}: tf2onnx failed: {sentence(error)}") from error
    _refuse_foreign(signature.name, model.graph, problems)
    _count_axes_from_the_front(model)
    model = _canonical(model, signature, shapes)
    check(model, signature.name, list(signature.inputs), list(signature.outputs))
    return model


def check(model: onnx.ModelProto, name: str, inputs: list[str], outputs: list[str]) -> None:
    """Refuses a model that a runtime could not load or that is not what its signature declares.

    Args:
        model: the model.
        name: name of the signature.
        inputs, outputs: names that the signature declares, in order.

    Raises:
        ExportError: naming the signature and what is wrong.
    """
    imports = {entry.domain: entry.version for entry in model.opset_import}
    if imports != {"": OPSET}:
        raise ExportError(
            f"{name}: expected op set {OPSET} of the standard domain alone; got {imports}."
        )
    _refuse_foreign(name, model.graph, [])
    for what, entries, declared in (
        ("takes", model.graph.input, inputs),
        ("gives", model.graph.output, outputs),
    ):
        found = [entry.name for entry in entries]
        if found != declared:
            raise ExportError(
                f"{name}: the graph {what} {found} and the signature declares {declared}."
            )
        for entry in entries:
            dims = entry.type.tensor_type.shape.dim
            if not dims or dims[0].dim_param != "batch":
                raise ExportError(f"{name}: axis 0 of {entry.name} is not the batch.")
            if any(not dim.HasField("dim_value") for dim in dims[1:]):
                raise ExportError(f"{name}: {entry.name} has a second axis of unknown size.")
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:
        raise ExportError(
            f"{name}: the ONNX checker refuses the model: {sentence(error)}"
        ) from error


def _from_function(
    signature: Signature, function: Any, copies: str
) -> tuple[onnx.ModelProto, list[str]]:
    """What tf2onnx makes of a function, and the errors that it logged.

    By default tf2onnx copies the graph before each of its optimizations, to go back should one
    fail. Without copies, and without collections of garbage in a heap that holds TensorFlow, it
    takes half the time; the result is the same.

    Args:
        signature: whose inputs it has.
        function: the traced signature.
        copies: "TRUE" or "FALSE".
    """
    import tf2onnx

    variable = "TF2ONNX_CATCH_ERRORS"
    saved, collects = os.environ.get(variable), gc.isenabled()
    os.environ[variable] = copies
    gc.disable()
    try:
        with _captured_errors() as problems:
            model, _ = tf2onnx.convert.from_function(
                function,
                input_signature=[*signature.inputs.values()],
                opset=OPSET,
                custom_op_handlers=_HANDLERS,
            )
    finally:
        if collects:
            gc.enable()
        if saved is None:
            del os.environ[variable]
        else:
            os.environ[variable] = saved
    return model, problems


def _refuse_foreign(name: str, graph: onnx.GraphProto, problems: list[str]) -> None:
    for node in _nodes(graph):
        known = node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type, OPSET, "")
        if known and node.op_type not in _RANDOM_OPS:
            continue
        detail = f" tf2onnx says: {problems[0]}" if problems else ""
        reason = "draws random numbers" if known else f"has no ONNX form at op set {OPSET}"
        raise ExportError(
            f"{name}: the op {node.op_type} of {gates.layer_of(node.name)} {reason}. Replace that "
            f"layer, or leave the signature out of ONNX with --allow-partial.{detail}"
        )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


@contextlib.contextmanager
def _captured_errors() -> Iterator[list[str]]:
    """What tf2onnx logs as errors instead of raising; its other lines are dropped."""
    problems: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                problems.append(" ".join(record.getMessage().split()))

    logger, keep = logging.getLogger("tf2onnx"), Keep()
    saved = logger.handlers[:], logger.propagate, logger.level
    logger.handlers, logger.propagate = [keep], False
    logger.setLevel(logging.ERROR)
    try:
        yield problems
    finally:
        logger.handlers, logger.propagate = saved[:2]
        logger.setLevel(saved[2])


def _count_axes_from_the_front(model: onnx.ModelProto) -> None:
    """Writes the axes of reductions as 1, 2, 3 instead of -3, -2, -1.

    ONNX Runtime 1.31 does not reduce an empty batch over several negative axes: it answers with the
    shape of the input.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    ranks = {
        entry.name: len(entry.type.tensor_type.shape.dim)
        for entry in [*inferred.value_info, *inferred.input]
        if entry.type.tensor_type.HasField("shape")
    }
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        is_reduction = node.op_type.startswith("Reduce") and len(node.input) == 2
        if is_reduction and node.input[0] in ranks and node.input[1] in constants:
            axes = np.sort(constants[node.input[1]] % ranks[node.input[0]])
            name = f"{node.output[0]}/axes"
            graph.initializer.append(onnx.numpy_helper.from_array(axes, name))
            node.input[1] = name


def _canonical(
    model: onnx.ModelProto, signature: Signature, shapes: dict[str, list[int | None]]
) -> onnx.ModelProto:
    """The same model with nodes in one order and names that say nothing of how they were made."""
    graph = onnx.GraphProto(name=signature.name)
    graph.input.extend(
        _value_info(spec.name, spec.shape, spec.dtype) for spec in signature.inputs.values()
    )
    wanted = list(signature.outputs)
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.output}
    for name in wanted:
        entry = onnx.helper.make_tensor_value_info(name, kinds[name], ["batch", *shapes[name][1:]])
        graph.output.append(entry)
    _Renamer().fill(model.graph, graph, {name: name for name in [*signature.inputs, *wanted]})
    result = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    result.producer_name = "keras_vae"
    result.doc_string = signature.description
    return result


class _Renamer:
    """Copies graphs depth first from their outputs, with names numbered in the order of visits."""

    def __init__(self) -> None:
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


def reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those of its subgraphs from outside included."""
    result = list(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = attribute.g
            made = {entry.name for entry in inner.input} | {t.name for t in inner.initializer}
            made |= {name for each in inner.node for name in each.output}
            outside = [name for each in inner.node for name in reads(each)]
            outside += [entry.name for entry in inner.output]
            result += [name for name in dict.fromkeys(outside) if name not in made]
    return result


def _forget_dim_names(entry: onnx.ValueInfoProto) -> None:
    for dim in entry.type.tensor_type.shape.dim:
        if dim.HasField("dim_param"):
            dim.ClearField("dim_param")


def _key(array: np.ndarray) -> bytes:
    return f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()


def _value_info(name: str, shape: tf.TensorShape, dtype: tf.DType) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype.as_numpy_dtype))
    return onnx.helper.make_tensor_value_info(name, kind, ["batch", *shape.as_list()[1:]])
