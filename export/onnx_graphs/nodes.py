"""Nodes of ONNX graphs, including those of subgraphs."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

__all__ = ["LAYOUT_OPS", "all_nodes", "reads"]

LAYOUT_OPS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Ops that only change the layout of a weight in memory; they are applied when it is written."""


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yields the nodes of a graph, including those of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def reads(node: onnx.NodeProto) -> list[str]:
    """Returns the outer names that a node reads, including those that its subgraphs read."""
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
