"""Arithmetic over the steps of a sequence that padding does not change, not even in the last bit.

A sum in floating point depends on the order of its terms, and kernels choose that order by the
number of terms. Here sums over steps are taken in a fixed order: steps in blocks of 16, blocks in
pairs of neighbours. Zeros at the end of a sequence then change nothing.
"""

from typing import Any

import keras
from keras import ops

__all__ = [
    "BLOCK",
    "StepDense",
    "at_each_step",
    "padded",
    "repeated",
    "scores",
    "sum_over_steps",
    "weighted_sums",
    "whole_blocks",
]

BLOCK = 16
"""Steps that are summed in one matrix product."""

_register = keras.saving.register_keras_serializable(package="keras_vae")


def sum_over_steps(x: Any, axis: int = 1) -> Any:
    """Sums over an axis of static size by pairs of neighbours; zeros at its end change nothing.

    Example:
        >>> float(sum_over_steps(keras.ops.arange(5.0)[None])[0])
        10.0
    """
    axis %= len(x.shape)
    size = x.shape[axis]
    x = padded(x, axis, 2 ** (size - 1).bit_length() - size)
    before = (slice(None),) * axis
    while x.shape[axis] > 1:
        x = x[(*before, slice(0, None, 2))] + x[(*before, slice(1, None, 2))]
    return ops.squeeze(x, axis)


def at_each_step(x: Any, count: int, training: bool = False) -> Any:
    """Repeats vectors [..., n] at each step, [..., count, n].

    Args:
        x: the vectors.
        count: number of steps.
        training: whether the gradient, too, must not depend on zeros at the end.
    """

    def spread(x: Any) -> Any:
        return ops.repeat(ops.expand_dims(x, -2), count, axis=-2)

    @ops.custom_gradient
    def trained(x: Any) -> Any:
        return spread(x), lambda upstream: sum_over_steps(upstream, -2)

    return (trained if training else spread)(x)


def repeated(x: Any, like: Any, event_rank: int) -> Any:
    """Returns one number at each entry of sequences [..., steps, ...].

    Args:
        x: the number.
        like: tensor of the shape of the result.
        event_rank: number of axes of a sequence.
    """

    @ops.custom_gradient
    def spread(x: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            entries = list(range(1 - event_rank, 0))
            of_steps = ops.sum(upstream, axis=entries) if entries else upstream
            return ops.sum(sum_over_steps(of_steps, -1))

        return ops.broadcast_to(x, ops.shape(like)), gradient

    return spread(x)


def whole_blocks(steps: int) -> int:
    """Returns the number of steps of the blocks that hold this many."""
    return -(-steps // BLOCK) * BLOCK


def padded(x: Any, axis: int, count: int) -> Any:
    """Returns the tensor with zeros at the end of an axis."""
    if not count:
        return x
    return ops.pad(x, [[0, count if each == axis else 0] for each in range(len(x.shape))])


def _product(a: Any, b: Any) -> Any:
    """Returns a @ b, [..., n, m], of a [..., n, k] and b [..., k, m], summed over k steps."""
    steps = a.shape[-1]
    count = -(-steps // BLOCK)
    a = padded(a, len(a.shape) - 1, count * BLOCK - steps)
    b = padded(b, len(b.shape) - 2, count * BLOCK - steps)
    if count == 1:
        return ops.matmul(a, b)
    a = ops.reshape(a, (*ops.shape(a)[:-1], count, BLOCK))
    b = ops.reshape(b, (*ops.shape(b)[:-2], count, BLOCK, ops.shape(b)[-1]))
    return sum_over_steps(ops.matmul(ops.moveaxis(a, -2, -3), b), -3)


def _turned(x: Any) -> Any:
    """Returns matrices with their last two axes exchanged."""
    return ops.moveaxis(x, -1, -2)


@ops.custom_gradient
def _trained_weighted_sums(weights: Any, values: Any) -> Any:
    def gradient(upstream: Any) -> Any:
        towards_weights = ops.matmul(upstream, _turned(values))
        return towards_weights, _product(_turned(weights), upstream)

    return _product(weights, values), gradient


def weighted_sums(weights: Any, values: Any, training: bool = False) -> Any:
    """Returns sums over keys, [..., queries, n], of weights [..., queries, keys] times values.

    Args:
        weights: weight of each key for each query; absent keys have the weight 0.
        values: values of the keys, [..., keys, n].
        training: whether the gradient, too, must not depend on zeros at the end.
    """
    return (_trained_weighted_sums if training else _product)(weights, values)


@ops.custom_gradient
def _trained_scores(queries: Any, keys: Any) -> Any:
    def gradient(upstream: Any) -> Any:
        return _product(upstream, keys), _product(_turned(upstream), queries)

    return ops.matmul(queries, _turned(keys)), gradient


def scores(queries: Any, keys: Any, training: bool = False) -> Any:
    """Returns the inner products [..., queries, keys] of queries and keys; `training` as above."""
    return _trained_scores(queries, keys) if training else ops.matmul(queries, _turned(keys))


@ops.custom_gradient
def _trained_affine(x: Any, kernel: Any, bias: Any) -> Any:
    def gradient(upstream: Any) -> Any:
        inputs = ops.concatenate([x, ops.ones_like(x[..., :1])], axis=-1)
        of_blocks = ops.matmul(_turned(_blocks(inputs)), _blocks(upstream))
        whole = sum_over_steps(of_blocks, 0)
        return ops.matmul(upstream, _turned(kernel)), whole[:-1], whole[-1]

    return ops.matmul(x, kernel) + bias, gradient


def _blocks(x: Any) -> Any:
    """Returns sequences [B, T, n] as blocks of steps, [T / BLOCK, BLOCK B, n]."""
    steps, size = x.shape[1:]
    count = -(-steps // BLOCK)
    by_step = padded(ops.moveaxis(x, 1, 0), 0, count * BLOCK - steps)
    return ops.reshape(by_step, (count, -1, size))


@_register
class StepDense(keras.layers.Dense):
    """Dense layer for each step of sequences [B, T, n], with the same weights for all.

    Its outputs are those of `keras.layers.Dense`. The gradient of its weights does not depend on
    steps at the end whose outputs do not enter the loss.

    Example:
        >>> StepDense(4)(keras.ops.zeros([2, 5, 3])).shape
        TensorShape([2, 5, 4])
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Returns the outputs of each step, [B, T, units]."""
        if not training or len(inputs.shape) != 3 or not self.use_bias:
            return super().call(inputs)
        kernel, bias = (ops.reshape(each, each.shape) for each in (self.kernel, self.bias))
        outputs = _trained_affine(inputs, kernel, bias)
        return outputs if self.activation is None else self.activation(outputs)
