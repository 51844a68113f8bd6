"""In a graph: eager calls of functions of many small steps, run as one."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = ["in_a_graph"]


def in_a_graph(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Makes a function of tensors whose eager calls run in a graph, with the same bits.

    A walk over the counts takes up to thousands of steps of dozens of operations, which take ten
    times as long to call as to compute. No gradient passes through an eager call: draws of counts
    have none.

    Args:
        function: pure function of tensors of any sizes.
    """
    graphs: dict[Any, Callable[..., tf.Tensor]] = {}

    @functools.wraps(function)
    def called(*arguments: Any) -> tf.Tensor:
        if not tf.executing_eagerly():
            return function(*arguments)
        tensors = [tf.stop_gradient(tf.convert_to_tensor(each)) for each in arguments]
        key = tuple((tensor.dtype, tensor.shape.rank) for tensor in tensors)
        if key not in graphs:
            specs = [tf.TensorSpec([None] * rank, dtype) for dtype, rank in key]
            made = tf.function(function, input_signature=specs, autograph=False)
            graphs[key] = made.get_concrete_function()
        return graphs[key](*tensors)

    return called
