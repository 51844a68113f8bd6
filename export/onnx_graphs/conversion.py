"""Conversion: turns a signature into a canonical, checked ONNX model, by tf2onnx."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf

from export import onnx_files
from export.errors import ExportError, sentence
from export.handlers import CUSTOM_OP_HANDLERS
from export.handlers.values import Handler, Value, handler, where
from export.onnx_files import Graph, Weight
from export.onnx_graphs.canonical import canonical, lay_out
from export.onnx_graphs.checks import OPSETS, check, refuse_foreign
from export.onnx_graphs.quick_passes import quick_passes
from export.onnx_graphs.rewrites import (
    count_axes_from_the_front,
    drop_whole_slices,
    keep_zeros_of_max_pools,
)
from export.onnx_graphs.tracing import placeholder, traced
from keras_vae import random
from keras_vae.signatures import Signature

__all__ = ["convert"]


def _diag_part(x: Value, k: Value, padding: Value) -> Value:
    """Takes the main diagonals of square matrices; tf2onnx's own way fails on an empty batch."""
    rows, columns = x.graph.get_shape(x.name)[-2:]
    offset = x.graph.get_node_by_output(k.name)
    if rows != columns or rows < 1 or not offset.is_const() or offset.get_tensor_value() != 0:
        raise ValueError("Expected the main diagonal of square matrices of static size.")
    diagonal = where(x.constant(np.eye(rows), bool), x, x.constant(0.0))
    return diagonal.apply("ReduceSum", x.constant([-1], np.int64), keepdims=0)


def _softplus(x: Value) -> Value:
    """Uses ONNX's own softplus, within 2e-7, or 2e-6 in OpenVINO; Relu keeps it above 0."""
    return x.apply("Softplus").apply("Relu")


_HANDLERS = {**CUSTOM_OP_HANDLERS, "MatrixDiagPartV3": handler(_diag_part)}

_HANDLERS_WITHOUT_SEED = {**_HANDLERS, "Softplus": handler(_softplus)}
"""For signatures that return means and parameters, whose absolute error counts.

`score` adds up logarithms of scales, which need a small relative error.
"""

_BITWISE_OPS = frozenset({"BitwiseAnd", "BitwiseOr", "BitwiseXor", "Invert"})


def convert(
    signature: Signature, variables: Sequence[keras.Variable] = (), known: Any = None
) -> Graph:
    """Converts a signature to a canonical, checked ONNX model in the lowest op set it needs.

    Two conversions of the same model give the same bytes, in any process. Noise is made of 32-bit
    integers, which every runtime computes correctly. Large variables are inputs for tf2onnx, which
    would otherwise hold them many times over. They stay inputs of the result, with their values
    beside it.

    Args:
        signature: the signature to convert.
        variables: variables of the model.
        known: what `traced` returned for it, which is used as it is where nothing depends on noise
            and no variable is large.

    Raises:
        ExportError: if an op cannot be converted or a check fails; names signature, op and layer.
    """
    large = [
        v for v in variables if np.prod(v.shape) * tf.as_dtype(v.dtype).size >= onnx_files.LARGE
    ]
    function = known
    if known is None or large or "seed" in signature.inputs:
        with random.int32_arithmetic():
            function = traced(signature, large)
    *lower, highest = OPSETS
    for opset in () if _combines_bits(function) else lower:
        with contextlib.suppress(Exception):
            return _converted(signature, function, large, opset)
    return _converted(signature, function, large, highest)


def _combines_bits(function: Any) -> bool:
    """Tells whether a function has ops that only the highest op set has."""
    graph = function.get_concrete_function().graph
    if any(op.type in _BITWISE_OPS for op in graph.get_operations()):
        return True
    bodies = graph.as_graph_def().library.function
    return any(node.op in _BITWISE_OPS for body in bodies for node in body.node_def)


def _converted(
    signature: Signature, function: Any, large: Sequence[keras.Variable], opset: int
) -> Graph:
    """Converts the traced signature to a canonical, checked ONNX model of an op set."""
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
    refuse_foreign(signature.name, model, problems)
    drop_whole_slices(model)
    count_axes_from_the_front(model)
    keep_zeros_of_max_pools(model)
    weights = {placeholder(index): _weight(variable) for index, variable in enumerate(large)}
    graph = canonical(model, signature, shapes, lay_out(model, weights), opset)
    inputs, outputs = list(signature.inputs), list(signature.outputs)
    check(graph.model, signature.name, inputs, outputs, list(graph.weights), opset)
    return graph


def _from_function(
    function: Any, opset: int, handlers: dict[str, Handler], copies: str
) -> tuple[onnx.ModelProto, list[str]]:
    """Runs tf2onnx on a function; returns the model and the errors that it logged.

    By default, tf2onnx copies the graph before each of its optimizations, so that it can undo one
    that fails. Without copies, and without garbage collection in a heap that holds TensorFlow, it
    takes half the time; the result is the same. So it is with `quick_passes`.

    Args:
        function: the traced signature.
        opset: op set of the result.
        handlers: handlers of ops, as tf2onnx takes them.
        copies: "TRUE" or "FALSE".
    """
    import tf2onnx

    variable = "TF2ONNX_CATCH_ERRORS"
    saved, collects = os.environ.get(variable), gc.isenabled()
    os.environ[variable] = copies
    gc.disable()
    try:
        with _captured_errors() as problems, quick_passes():
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


@contextlib.contextmanager
def _captured_errors() -> Iterator[list[str]]:
    """Collects what tf2onnx logs as errors instead of raising; drops its other messages."""
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


def _weight(variable: keras.Variable) -> Weight:
    dtype = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)
    return Weight(tuple(variable.shape), dtype, lambda: np.asarray(tf.convert_to_tensor(variable)))
