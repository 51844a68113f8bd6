"""Quick passes: tf2onnx without the work that it does more than once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partialmethod
from typing import Any

import tensorflow as tf

__all__ = ["quick_passes"]


@contextlib.contextmanager
def quick_passes() -> Iterator[None]:
    """Makes tf2onnx do less for the same result.

    Before its thirty or so optimizations:

    - It takes the graph with constants instead of variables as it is, and makes neither a function
      of it, only to write that as a graph again, nor a session.
    - It finds the functions that a graph calls without reading every attribute of every node.

    After each of them:

    - It looks for the nodes that its graph needs once, not once for each output, of which a table
      has dozens.
    - It makes its indices of the nodes again only if some were dropped.
    - It registers no node as a reader of a tensor that it does not read.
    - It neither counts the nodes, for messages that nobody reads, nor writes them as protobuf,
      which it does at the end anyway.
    """
    from tf2onnx import tf_loader
    from tf2onnx.graph import Graph
    from tf2onnx.optimizer.optimizer_base import GraphOptimizerBase

    quick: list[tuple[Any, str, Any]] = [
        (tf_loader, "from_function", _frozen),
        (tf_loader, "tflist_to_onnx", _calls),
        (Graph, "extract_sub_graph_nodes", _needed),
        (Graph, "delete_unused_nodes", _delete_unused),
        (Graph, "replace_all_inputs", partialmethod(_replace_inputs, Graph.replace_all_inputs)),
        (GraphOptimizerBase, "optimize", _one_pass),
    ]
    saved = [getattr(owner, name) for owner, name, _ in quick]
    for owner, name, function in quick:
        setattr(owner, name, function)
    try:
        yield
    finally:
        for (owner, name, _), function in zip(quick, saved, strict=True):
            setattr(owner, name, function)


def _frozen(
    function: Any, inputs: list[str], outputs: list[str], large_model: bool = False
) -> tf.compat.v1.GraphDef:
    """Returns the graph that the outputs need, with constants instead of variables."""
    from tf2onnx import tf_loader

    graph = tf_loader.convert_variables_to_constants_large_model(function)
    graph = tf_loader.fix_freezing_errors_part2(graph)
    nodes = {node.name: node for node in graph.node}
    names, needed = [*inputs, *outputs], set()
    while names:
        name = names.pop().removeprefix("^").partition(":")[0]
        if name not in needed:
            needed.add(name)
            names += nodes[name].input
    for index in reversed(range(len(graph.node))):
        if graph.node[index].name not in needed:
            del graph.node[index]
    with tf.Graph().as_default():  # whose collections, none, go with it
        return tf_loader.tf_optimize(inputs, outputs, graph)


def _calls(graph: tf.Graph, shapes: dict[str, Any]) -> tuple[Any, ...]:
    """Returns the functions that a graph calls, with the shapes of their inputs, as item 5."""
    from tf2onnx.tf_utils import TF_SUBGRAPH_ATTRS

    found = {}
    for op in graph.get_operations():
        for name in (each.name for each in op.op_def.attr if each.name in TF_SUBGRAPH_ATTRS):
            found[op.get_attr(name).name] = [tensor.shape for tensor in op.inputs]
    return None, None, None, None, None, found


def _needed(
    graph: Any,
    outputs_name: Sequence[str],
    input_checker: Callable[[Any], bool] | None = None,
    remove_unused_inputs: bool = True,
) -> list[Any]:
    """Returns the nodes that outputs depend on, in the order of the graph."""
    names = list(outputs_name)
    if not remove_unused_inputs:
        names += [entry.output[0] for entry in graph.inputs]
    found: set[Any] = set()
    while names:
        node = graph.get_node_by_output(names.pop(), search_in_parent_graphs=False)
        if node is None or node in found:
            continue
        if input_checker is not None and input_checker(node) is False:
            continue
        found.add(node)
        names += node.input
        if node.name in graph.contained_graphs:
            names += node.get_implicit_inputs()
    return [node for node in graph.get_nodes() if node in found]


def _delete_unused(graph: Any, outputs_name: Sequence[str]) -> None:
    """Deletes the nodes that no output depends on, inside the bodies of loops too."""
    if not outputs_name:
        return
    needed = graph.extract_sub_graph_nodes(outputs_name, remove_unused_inputs=False)
    for node in needed:
        for body in (node.get_body_graphs() or {}).values():
            body.delete_unused_nodes(body.outputs)
    if len(needed) < len(graph.get_nodes()):
        graph.reset_nodes(needed)


def _replace_inputs(
    graph: Any,
    replace: Callable[..., None],
    old_input: str,
    new_input: str,
    ops: Sequence[Any] | None = None,
) -> None:
    """Replaces an input of the given nodes, or of all nodes that read it."""
    readers = None if ops is None else [node for node in ops if old_input in node.input]
    replace(graph, old_input, new_input, readers)


def _one_pass(optimizer: Any, graph: Any, iteration: int) -> Any:
    """Runs one optimization."""
    optimizer.opt_iteration = iteration
    graph = optimizer._optimize(graph)
    graph.delete_unused_nodes(graph.outputs)
    return graph
