"""ONNX graphs: a signature converted, put into a canonical form and checked."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx.reference import ReferenceEvaluator

from export import gates, onnx_files
from export.errors import ExportError, sentence
from export.handlers import CUSTOM_OP_HANDLERS
from export.handlers.values import Handler, Value, handler, where
from export.onnx_files import Graph, Weight, as_input
from export.sealing import sealed
from keras_vae import random
from keras_vae.signatures import Signature

__all__ = ["IR_VERSION", "OPSETS", "check", "convert", "reads", "traced"]

OPSETS = (13, 18)
"""Op sets that graphs are written in: the first that has an op for everything."""

IR_VERSION = 8

_END = 10**9  # how tf2onnx writes the end of an axis


def _diag_part(x: Value, k: Value, padding: Value) -> Value:
    """The main diagonals of square matrices; tf2onnx's own way fails on an empty batch."""
    rows, columns = x.graph.get_shape(x.name)[-2:]
    offset = x.graph.get_node_by_output(k.name)
    if rows != columns or rows < 1 or not offset.is_const() or offset.get_tensor_value() != 0:
        raise ValueError("Expected the main diagonal of square matrices of static size.")
    diagonal = where(x.constant(np.eye(rows), bool), x, x.constant(0.0))
    return diagonal.apply("ReduceSum", x.constant([-1], np.int64), keepdims=0)


def _softplus(x: Value) -> Value:
    """ONNX's own softplus, within 2e-7, or 2e-6 in OpenVINO, which without Relu may be below 0."""
    return x.apply("Softplus").apply("Relu")


_HANDLERS = {**CUSTOM_OP_HANDLERS, "MatrixDiagPartV3": handler(_diag_part)}

_HANDLERS_WITHOUT_SEED = {**_HANDLERS, "Softplus": handler(_softplus)}
"""For signatures that give means and parameters, whose absolute error counts.

What `score` adds up is the logarithm of a scale, which needs a small relative error.
"""

_BITWISE_OPS = frozenset({"BitwiseAnd", "BitwiseOr", "BitwiseXor", "Invert"})

_RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike", "Dropout"}
)


_LAYOUT_OPS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Ops that only change how a weight lies in memory; they are applied when it is written."""


def traced(signature: Signature, given: Sequence[keras.Variable] = ()) -> Any:
    """Returns the signature as a pure `tf.function` with named inputs that captures weights alone.

    Args:
        signature: what is traced.
        given: variables that become inputs of the function too, after those of the signature.

    Raises:
        ExportError: if it cannot be traced, or is not pure; names signature, op and layer.
    """
    names = list(signature.inputs)
    specs = [
        *signature.inputs.values(),
        *(tf.TensorSpec(v.shape, v.dtype, _placeholder(i)) for i, v in enumerate(given)),
    ]

    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs, values = tensors[: len(names)], tensors[len(names) :]
        with _values_of(given, values):
            outputs = signature.function(**dict(zip(names, inputs, strict=True)))
        return {name: tf.identity(outputs[name], name) for name in signature.outputs}

    result = tf.function(function, input_signature=specs, autograph=False)
    try:
        concrete = result.get_concrete_function()
    except Exception as error:
        raise ExportError(
            f"{signature.name}: the function cannot be traced: {sentence(error)}"
        ) from error
    gates.check_function(signature, concrete)
    return sealed(signature.name, concrete, specs)


def convert(signature: Signature, variables: Sequence[keras.Variable] = ()) -> Graph:
    """The signature as a canonical, checked ONNX model, in the lowest op set that carries it.

    Two conversions of the same model give the same bytes, in any process. Noise is made of 32-bit
    integers, which every runtime computes right. Large variables are inputs for tf2onnx, which
    would otherwise hold them many times over, and stay inputs of the result, with their values
    beside it.

    Args:
        signature: what is converted.
        variables: those of the model.

    Raises:
        ExportError: if an op cannot be converted or a check fails; names signature, op and layer.
    """
    large = [
        v for v in variables if np.prod(v.shape) * tf.as_dtype(v.dtype).size >= onnx_files.LARGE
    ]
    with random.int32_arithmetic():
        function = traced(signature, large)
    *lower, highest = OPSETS
    for opset in () if _combines_bits(function) else lower:
        with contextlib.suppress(Exception):
            return _converted(signature, function, large, opset)
    return _converted(signature, function, large, highest)


def _combines_bits(function: Any) -> bool:
    """Whether a function has ops that only the highest op set has."""
    graph = function.get_concrete_function().graph.as_graph_def()
    bodies = [graph.node, *(each.node_def for each in graph.library.function)]
    return any(node.op in _BITWISE_OPS for body in bodies for node in body)


def _converted(
    signature: Signature, function: Any, large: Sequence[keras.Variable], opset: int
) -> Graph:
    """The traced signature as a canonical, checked ONNX model of an op set."""
    found = function.get_concrete_function().structured_outputs
    shapes = {name: found[name].shape.as_list() for name in signature.outputs}
    handlers = _HANDLERS if "seed" in signature.inputs else _HANDLERS_WITHOUT_SEED
    try:
        model, problems = _from_function(function, opset, handlers, copies="FALSE")
    except Exception:
        try:
            model, problems = _from_function(function, opset, handlers, copies="TRUE")
        except Exception as error:
            raise ExportError(f"{signature.name}: tf2onnx failed: {sentence(error)}") from error
    _refuse_foreign(signature.name, model, problems)
    _drop_whole_slices(model)
    _count_axes_from_the_front(model)
    _keep_zeros_of_max_pools(model)
    weights = {_placeholder(index): _weight(variable) for index, variable in enumerate(large)}
    graph = _canonical(model, signature, shapes, _lay_out(model, weights), opset)
    inputs, outputs = list(signature.inputs), list(signature.outputs)
    check(graph.model, signature.name, inputs, outputs, list(graph.weights), opset)
    return graph


def check(
    model: onnx.ModelProto,
    name: str,
    inputs: list[str],
    outputs: list[str],
    weights: Sequence[str] = (),
    opset: int | None = None,
) -> None:
    """Refuses a model that a runtime could not load or that is not what its signature declares.

    Args:
        model: the model.
        name: name of the signature.
        inputs, outputs: names that the signature declares, in order.
        weights: names of its large weights, its last inputs.
        opset: the only op set that it may have; any of `OPSETS` if None.

    Raises:
        ExportError: naming the signature and what is wrong.
    """
    imports = {entry.domain: entry.version for entry in model.opset_import}
    allowed = OPSETS if opset is None else (opset,)
    if imports not in [{"": version} for version in allowed]:
        raise ExportError(
            f"{name}: expected op set {' or '.join(map(str, allowed))} of the standard domain "
            f"alone; got {imports}."
        )
    _refuse_foreign(name, model, [])
    given = len(model.graph.input) - len(weights)
    for what, entries, declared in (
        ("takes", model.graph.input[:given], inputs),
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
    function: Any, opset: int, handlers: dict[str, Handler], copies: str
) -> tuple[onnx.ModelProto, list[str]]:
    """What tf2onnx makes of a function, and the errors that it logged.

    By default tf2onnx copies the graph before each of its optimizations, to go back should one
    fail. Without copies, and without collections of garbage in a heap that holds TensorFlow, it
    takes half the time; the result is the same.

    Args:
        function: the traced signature.
        opset: of the result.
        handlers: of ops, as tf2onnx takes them.
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
                input_signature=function.input_signature,
                opset=opset,
                custom_op_handlers=handlers,
            )
    finally:
        if collects:
            gc.enable()
        if saved is None:
            del os.environ[variable]
        else:
            os.environ[variable] = saved
    return model, problems


def _refuse_foreign(name: str, model: onnx.ModelProto, problems: list[str]) -> None:
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    for node in _nodes(model.graph):
        known = node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type, opset, "")
        if known and node.op_type not in _RANDOM_OPS:
            continue
        detail = f" tf2onnx says: {problems[0]}" if problems else ""
        reason = "draws random numbers" if known else f"has no ONNX form at op set {opset}"
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
                error = record.exc_info[1] if record.exc_info else None
                said = str(error or "") or record.getMessage().partition(" (fct=")[0]
                problems.append(" ".join(said.split()))

    logger, keep = logging.getLogger("tf2onnx"), Keep()
    saved = logger.handlers[:], logger.propagate, logger.level
    logger.handlers, logger.propagate = [keep], False
    logger.setLevel(logging.ERROR)
    try:
        yield problems
    finally:
        logger.handlers, logger.propagate = saved[:2]
        logger.setLevel(saved[2])


def _drop_whole_slices(model: onnx.ModelProto) -> None:
    """Removes slices of everything, which tf2onnx makes of `x[..., None]`.

    Some runtimes do not slice a batch of unknown size.
    """
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    same: dict[str, str] = {}
    kept = []
    needed = {entry.name for entry in graph.output}
    needed |= {name for node in graph.node for name in set(reads(node)) - set(node.input)}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)
        if node.op_type == "Slice" and node.output[0] not in needed:
            bounds = [constants.get(name) for name in (*node.input[1:3], *node.input[4:])]
            if _is_whole(*bounds):
                same[node.output[0]] = node.input[0]
                continue
        kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _is_whole(starts: np.ndarray | None, ends: np.ndarray | None, steps: Any = 1) -> bool:
    if starts is None or ends is None or steps is None:
        return False
    return bool((starts == 0).all() and (ends >= _END).all() and np.all(steps == 1))


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
        if not node.op_type.startswith("Reduce") or node.input[0] not in ranks:
            continue
        for attribute in node.attribute:
            if attribute.name == "axes":
                rank = ranks[node.input[0]]
                attribute.ints[:] = sorted(axis % rank for axis in attribute.ints)
        if len(node.input) == 2 and node.input[1] in constants:
            axes = np.sort(constants[node.input[1]] % ranks[node.input[0]])
            name = f"{node.output[0]}/axes"
            graph.initializer.append(onnx.numpy_helper.from_array(axes, name))
            node.input[1] = name


def _keep_zeros_of_max_pools(model: onnx.ModelProto) -> None:
    """Pads what a MaxPool reads by the smallest normal float32 instead of 0.

    Optimizers fold a Pad of 0 into the MaxPool after it, which ignores what it pads with, and so
    lose the 0 beside negative numbers: ONNX Runtime (since pull request 18136) and onnx-simplifier
    (issue 290) do.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    dtypes = {
        entry.name: onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        for entry in [*inferred.value_info, *inferred.input]
    }
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for pool in graph.node:
        node = makers.get(pool.input[0]) if pool.op_type == "MaxPool" else None
        while node is not None and node.op_type in _LAYOUT_OPS:
            node = makers.get(node.input[0])
        if node is None or node.op_type != "Pad" or dtypes[node.input[0]].kind != "f":
            continue
        if any(each.name == "mode" and each.s != b"constant" for each in node.attribute):
            continue
        value = node.input[2] if len(node.input) > 2 else ""
        if value and (value not in constants or constants[value] != 0.0):
            continue
        name = f"{node.output[0]}/value"
        smallest = np.array(np.finfo(np.float32).tiny, dtypes[node.input[0]])
        graph.initializer.append(onnx.numpy_helper.from_array(smallest, name))
        node.input[2:] = [name, *node.input[3:]]


def _placeholder(index: int) -> str:
    """Name of the input that stands for a large variable."""
    return f"weight_{index}"


def _values_of(
    variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]
) -> contextlib.AbstractContextManager[Any]:
    """A context in which layers read these values instead of their variables."""
    if not variables:
        return contextlib.nullcontext()
    return keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))


def _weight(variable: keras.Variable) -> Weight:
    dtype = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)
    return Weight(tuple(variable.shape), dtype, lambda: np.asarray(tf.convert_to_tensor(variable)))


def _lay_out(model: onnx.ModelProto, weights: dict[str, Weight]) -> dict[str, Weight]:
    """Takes ops that only transpose, reshape or cast a weight out of the model.

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
        is_layout = node.op_type in _LAYOUT_OPS and node.input[0] in weights and kind is not None
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
    """What a node makes of a weight, of this type."""
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


def _canonical(
    model: onnx.ModelProto,
    signature: Signature,
    shapes: dict[str, list[int | None]],
    weights: dict[str, Weight],
    opset: int,
) -> Graph:
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
    """Copies graphs depth first from their outputs, with names numbered in the order of visits.

    Attributes:
        weights: those of the given names that the graphs read, in the order of visits.
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
