"""Cholesky factors and triangular systems, as one ONNX Loop over the columns or rows.

The loop has about ten nodes whatever the size of the matrix, which may be dynamic.
"""

from collections.abc import Callable

from onnx import TensorProto
from tf2onnx import utils

from export.handlers.values import Value, sqrt, where

Step = Callable[[Value, Value], tuple[Value, Value]]


def _scan(count: Value, state: Value, rank: int, step: Step) -> Value:
    """Stacks the outputs of `step(index, state) -> state, output` along a new first axis.

    State and stacked outputs have the given rank.
    """
    graph, dtype, shape = state.graph, state.graph.get_dtype(state.name), [-1] * rank
    body = graph.create_new_graph_with_same_config()
    body.parent_graph = graph

    index, proceed, current = (utils.make_name(part) for part in ("index", "proceed", "state"))
    body.add_graph_input(index, TensorProto.INT64, [])
    body.add_graph_input(proceed, TensorProto.BOOL, [])
    body.add_graph_input(current, dtype, shape)

    following, output = step(Value(body, index), Value(body, current))
    for name, output_dtype, output_shape in (
        (proceed, TensorProto.BOOL, []),
        (following.name, dtype, shape),
        (output.name, dtype, shape[1:]),
    ):
        copy = body.make_node("Identity", [name], shapes=[output_shape], dtypes=[output_dtype])
        body.add_graph_output(copy.output[0], output_dtype, output_shape)

    loop = graph.make_node(
        "Loop",
        [count.name, utils.ONNX_EMPTY_INPUT, state.name],
        output_count=2,
        shapes=[shape, shape],
        dtypes=[dtype, dtype],
        branches={"body": body},
    )
    return Value(graph, loop.output[1])


def _range(count: Value) -> Value:
    return count.constant(0).apply("Range", count, 1)


def cholesky(matrix: Value) -> Value:
    """Computes the lower Cholesky factors of matrices `[..., n, n]` from their lower triangles.

    One step per column j: with c the column j of the remaining matrix and l = c / sqrt(c[j]) from
    row j on, l is the column j of the factor, and l l^T is subtracted. A matrix that is not
    positive definite gives NaN.
    """
    rank = matrix.rank
    count = matrix.apply("Shape").at(-1, axis=0)
    rows = _range(count)

    def step(index: Value, rest: Value) -> tuple[Value, Value]:
        column = rest.at(index, axis=-1)
        pivot = column.at(index, axis=-1).expand_dims(-1)
        factor = where(index <= rows, column / sqrt(pivot), 0.0)
        return rest - factor.expand_dims(-1) * factor.expand_dims(-2), factor

    columns = _scan(count, matrix, rank, step)
    return columns.transpose([*range(1, rank), 0])


def triangular_solve(matrix: Value, rhs: Value, *, lower: bool, adjoint: bool) -> Value:
    """Solves matrix x = rhs, or matrix^T x = rhs if `adjoint`.

    One step per row of x, downwards for a lower triangle and upwards for an upper one: row i is
    that of the remaining right-hand side divided by the pivot, and its product with column i of the
    matrix is subtracted. The other triangle is not used.

    Args:
        matrix: Triangular matrices `[..., m, m]`.
        rhs: Right-hand sides `[..., m, k]`, whose leading axes broadcast with those of `matrix`.
        lower: Whether the lower triangle of `matrix` is read, or the upper one.
        adjoint: Whether to transpose the matrices.
    """
    rank = max(matrix.rank, rhs.rank)
    if adjoint:
        axes = range(matrix.rank)
        matrix = matrix.transpose([*axes[:-2], axes[-1], axes[-2]])
    is_downward = bool(lower) != bool(adjoint)

    shape = matrix.apply("Shape", end=-2)
    rhs = rhs.apply("Expand", shape.apply("Concat", shape.constant([1, 1]), axis=0))
    count = matrix.apply("Shape").at(-1, axis=0)

    def step(index: Value, rest: Value) -> tuple[Value, Value]:
        row = index if is_downward else Value(index.graph, count.name) - 1 - index
        column = Value(index.graph, matrix.name).at(row, axis=-1)
        solved = rest.at(row, axis=-2) / column.at(row, axis=-1).expand_dims(-1)
        return rest - column.expand_dims(-1) * solved.expand_dims(-2), solved

    rows = _scan(count, rhs, rank, step)
    if not is_downward:
        rows = rows.at(count - 1 - _range(count), axis=0)
    return rows.transpose([*range(1, rank - 1), 0, rank - 1])
