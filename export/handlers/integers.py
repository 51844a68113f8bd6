"""Ops on integers: shifts of signed numbers and the broadcasting of shapes."""

import numpy as np

from export.handlers.values import Value, where


def left_shift(x: Value, y: Value) -> Value:
    """Computes x << y, modulo the width of the dtype."""
    return _shift(x, y, "LEFT").cast(x.dtype)


def right_shift(x: Value, y: Value) -> Value:
    """Computes x >> y and keeps the sign: for negative x, it shifts the complement."""
    if x.dtype == np.uint64:
        return _shift(x, y, "RIGHT")
    wide = x.cast(np.int64)
    is_negative = wide < 0
    size = where(is_negative, wide.apply("BitwiseNot"), wide)
    shifted = _shift(size, y, "RIGHT").cast(np.int64)
    return where(is_negative, shifted.apply("BitwiseNot"), shifted).cast(x.dtype)


def _shift(x: Value, y: Value, direction: str) -> Value:
    return x.cast(np.uint64).apply("BitShift", y.cast(np.uint64), direction=direction)


def broadcast_args(s0: Value, s1: Value) -> Value:
    """Computes the shape to which two shapes broadcast; does not check that they do.

    The shorter shape is padded with ones on the left; then each one is replaced by the other size.
    Both ranks must be static.
    """
    rank = max(s0.size, s1.size)
    left, right = (_pad(shape, rank - shape.size) for shape in (s0, s1))
    return where(left.equals(1), right, left)


def _pad(shape: Value, count: int) -> Value:
    return shape.constant([1] * count).apply("Concat", shape, axis=0) if count else shape
