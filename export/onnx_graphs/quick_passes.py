"""Quick passes: tf2onnx without the work that it repeats after each of its optimizations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

__all__ = ["quick_passes"]


@contextlib.contextmanager
def quick_passes() -> Iterator[None]:
    """Makes tf2onnx do less after each of its thirty or so optimizations, with the same result.

    - It looks for the nodes that its graph needs once, not once for each output, of which a table
      has dozens.
    - It makes its indices of the nodes again only if some were dropped.
    - It neither counts the nodes, for messages that nobody reads, nor writes them as protobuf,
      which it does at the end anyway.
    """
    from tf2onnx.graph import Graph
    from tf2onnx.optimizer.optimizer_base import GraphOptimizerBase

    saved = Graph.extract_sub_graph_nodes, Graph.delete_unused_nodes, GraphOptimizerBase.optimize
    Graph.extract_sub_graph_nodes = _needed
    Graph.delete_unused_nodes = _delete_unused
    GraphOptimizerBase.optimize = _one_pass
    try:
        yield
    finally:
        Graph.extract_sub_graph_nodes, Graph.delete_unused_nodes = saved[:2]
        GraphOptimizerBase.optimize = saved[2]


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


def _one_pass(optimizer: Any, graph: Any, iteration: int) -> Any:
    """Runs one optimization."""
    optimizer.opt_iteration = iteration
    graph = optimizer._optimize(graph)
    graph.delete_unused_nodes(graph.outputs)
    return graph
