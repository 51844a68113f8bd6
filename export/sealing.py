"""Sealing: reduces a traced function to its inputs, its weights and its computation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context

from export.errors import ExportError

__all__ = ["sealed"]

_SUFFIX = "_sealed"


def sealed(name: str, concrete: Any, signature: Sequence[tf.TensorSpec]) -> Any:
    """Returns the graph of a traced function as a new `tf.function` that captures only weights.

    Three things that belong to training or to Python are removed:

    - Tensors that a layer made eagerly and the function captured, such as the mean of a
      `Normalization`, become constants of the graph.
    - Custom gradients: without their names on the nodes, a SavedModel holds no gradient function.
    - Requests for XLA (`jit_compile=True`, which Keras itself sets around grouped convolutions):
      a server has XLA only if it was started with it. The ops compute the same without it.

    Args:
        name: name of the signature, for messages.
        concrete: the traced function; its outputs are a dict of tensors.
        signature: specifications of its inputs, in order.

    Raises:
        ExportError: if it captures anything but variables and tensors with values.
    """
    variables = {id(variable.handle): variable for variable in concrete.graph.variables}
    captures = []
    for outside, inside in concrete.graph.captures:
        variable = variables.get(id(outside))
        if variable is None and (outside.dtype == tf.resource or not hasattr(outside, "numpy")):
            raise ExportError(
                f"{name}: {inside.name} is captured and is neither a weight nor a constant "
                f"({outside.dtype.name}). Exported functions hold no tables, iterators or queues."
            )
        captures.append((inside.name, outside if variable is None else variable))
    graph_def = _without_training(concrete.graph.as_graph_def())
    inputs = [tensor.name for tensor in concrete.inputs[: len(signature)]]
    outputs = {key: tensor.name for key, tensor in concrete.structured_outputs.items()}
    shapes = [tensor.shape for tensor in concrete.structured_outputs.values()]

    for each in graph_def.library.function:
        context.context().add_function_def(each)

    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        graph = tf.compat.v1.get_default_graph()
        given = dict(zip(inputs, tensors, strict=True))
        for inside, outside in captures:
            if isinstance(outside, tf.Variable):
                graph.watch_variable(outside)
                given[inside] = graph.capture(outside.handle)
            else:
                given[inside] = tf.constant(outside.numpy())
        names = list(outputs.values())
        found = tf.graph_util.import_graph_def(graph_def, given, names, name="")
        for tensor, shape in zip(found, shapes, strict=True):
            tensor.set_shape(shape)  # `set_shape` in the model leaves no op in its graph
        return dict(zip(outputs, found, strict=True))

    return tf.function(function, input_signature=list(signature), autograph=False)


def _without_training(graph_def: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Returns the graph without gradients and XLA, its functions under new names."""
    library = graph_def.library
    del library.gradient[:]
    names = {function.signature.name for function in library.function}
    for function in library.function:
        function.signature.name += _SUFFIX
        _forget(function.attr)
    bodies = [graph_def.node, *(function.node_def for function in library.function)]
    for node in (node for body in bodies for node in body):
        _forget(node.attr)
        if node.op in names:
            node.op += _SUFFIX
        for value in node.attr.values():
            called = [value.func] if value.HasField("func") else []
            for reference in (*called, *value.list.func):
                if reference.name in names:
                    reference.name += _SUFFIX
    return graph_def


def _forget(attributes: Any) -> None:
    for key in [key for key in attributes if key.startswith("_gradient") or "Xla" in key]:
        del attributes[key]
