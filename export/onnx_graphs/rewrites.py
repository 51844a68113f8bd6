"""Rewrites: replace what tf2onnx writes and some runtime computes wrongly."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from export.onnx_graphs.nodes import LAYOUT_OPS, reads

__all__ = ["count_axes_from_the_front", "drop_whole_slices", "keep_zeros_of_max_pools"]

_END = 10**9  # how tf2onnx writes the end of an axis


def drop_whole_slices(model: onnx.ModelProto) -> None:
    """Removes slices of whole axes, which tf2onnx makes of `x[..., None]`.

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


def count_axes_from_the_front(model: onnx.ModelProto) -> None:
    """Writes the axes of reductions as 1, 2, 3 instead of -3, -2, -1.

    ONNX Runtime 1.31 does not reduce an empty batch over several negative axes: it returns the
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


def keep_zeros_of_max_pools(model: onnx.ModelProto) -> None:
    """Pads the input of a MaxPool with the smallest normal float32 instead of 0.

    Optimizers fold a Pad of 0 into the following MaxPool, which ignores its padding, and so lose
    the 0 beside negative numbers: ONNX Runtime (since pull request 18136) and onnx-simplifier
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
        while node is not None and node.op_type in LAYOUT_OPS:
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
