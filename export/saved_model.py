"""SavedModel: writes the signatures for TensorFlow Serving and checks the ops in it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tensorflow as tf

from export.errors import ExportError
from export.purity import impurity

__all__ = ["check_ops", "tensor_names", "weights", "write"]

_SAVING_OPS = frozenset(
    {"AssignVariableOp", "DisableCopyOnRead", "MergeV2Checkpoints", "RestoreV2", "SaveV2"}
    | {"ShardedFilename", "StaticRegexFullMatch", "StringJoin", "VarIsInitializedOp"}
)


def write(functions: dict[str, Any], directory: Path) -> None:
    """Writes the SavedModel: the signatures and the weights that they read, without Keras layers.

    Servers do not compare inputs with the signature, and an input that is too flat or has a single
    row may pass through a network unnoticed. So each signature checks the shapes of its inputs and
    that all have the same number of rows; the caller gets the message.

    Args:
        functions: traced signatures by name; the first is also `serving_default`.
        directory: target directory.

    Raises:
        OSError: if the disk is full.
    """
    served = {
        name: _checked(name, function).get_concrete_function()
        for name, function in functions.items()
    }
    module = tf.Module()
    module.weights = weights(served.values())
    default = {"serving_default": next(iter(served.values()))}
    try:
        tf.saved_model.save(module, str(directory), signatures={**served, **default})
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    (directory / "fingerprint.pb").unlink(missing_ok=True)


def weights(functions: Iterable[Any]) -> list[tf.Variable]:
    """Returns the variables that concrete functions read, each once."""
    found = {id(v.handle): v for function in functions for v in function.graph.variables}
    return list(found.values())


def _checked(name: str, function: Any) -> Any:
    specs = function.input_signature

    def checked(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        first, rows = specs[0].name, tf.shape(tensors[0])[0]
        for spec, tensor in zip(specs[1:], tensors[1:], strict=True):
            message = f"{name} takes as many rows of {spec.name} as of {first}; got"
            found = tf.shape(tensor)[0]
            tf.debugging.Assert(found == rows, [message, found, "and", rows])
        shaped = zip(specs, tensors, strict=True)
        return function(*(tf.ensure_shape(tensor, spec.shape) for spec, tensor in shaped))

    return tf.function(checked, input_signature=list(specs), autograph=False)


def check_ops(directory: Path) -> None:
    """Refuses a SavedModel with an op that is not pure or requests XLA.

    Everything that a signature reaches must be pure. Functions that only the loader calls may also
    save and restore variables.

    Raises:
        ExportError: naming the op and where it is.
    """
    meta_graph = _meta_graph(directory)
    graph = meta_graph.graph_def
    functions = {function.signature.name: function for function in graph.library.function}
    served = _served_functions(meta_graph)
    for name, function in functions.items():
        if function.attr["_XlaMustCompile"].b:
            raise ExportError(
                f"SavedModel: the function {name} requests XLA; set jit_compile=False."
            )
    places = [(graph.node, _SAVING_OPS)]
    for name, function in functions.items():
        places.append((function.node_def, frozenset() if name in served else _SAVING_OPS))
    for nodes, allowed in places:
        for node in nodes:
            reason = None if node.op in allowed else impurity(node.op)
            if reason:
                raise ExportError(
                    f"SavedModel: the op {node.op} ({node.name}) {reason}; exported functions "
                    "neither draw, nor keep state, nor touch files."
                )


def _served_functions(meta_graph: tf.compat.v1.MetaGraphDef) -> set[str]:
    """Returns the names of the functions that a signature reaches."""
    graph = meta_graph.graph_def
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    waiting = [
        info.name.split(":")[0]
        for definition in meta_graph.signature_def.values()
        for info in definition.outputs.values()
    ]
    seen: set[str] = set()
    called: list[str] = []
    while waiting:
        name = waiting.pop()
        if name not in seen and name in nodes:
            seen.add(name)
            called += _calls(nodes[name])
            waiting += [entry.lstrip("^").split(":")[0] for entry in nodes[name].input]
    served: set[str] = set()
    while called:
        name = called.pop()
        if name not in served and name in functions:
            served.add(name)
            for node in functions[name].node_def:
                called += _calls(node)
    return served


def _calls(node: tf.compat.v1.NodeDef) -> list[str]:
    names = []
    for attribute in node.attr.values():
        names += [attribute.func.name] if attribute.HasField("func") else []
        names += [function.name for function in attribute.list.func]
    return names


def tensor_names(directory: Path) -> dict[tuple[str, str], str]:
    """Returns the graph's tensor names by (signature, input or output), for the C API."""
    names = {}
    for signature, definition in _meta_graph(directory).signature_def.items():
        for name, info in [*definition.inputs.items(), *definition.outputs.items()]:
            names[signature, name] = info.name
    return names


def _meta_graph(directory: Path) -> tf.compat.v1.MetaGraphDef:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved_model = SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    return saved_model.meta_graphs[0]
