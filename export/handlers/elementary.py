"""Elementary functions that tf2onnx does not convert, or not accurately.

Each is computed in the dtype of its argument, float32 or float64, from ops that round each step,
and by series where a direct formula would cancel.
"""

import math

import numpy as np

from export.handlers.values import Value, exp, log, where


def log1p(x: Value) -> Value:
    """Computes log(1 + x), accurate near 0.

    log(1 + x) = 2 artanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...) with s = x / (2 + x), if 1 + x lies
    between sqrt(1/2) and sqrt(2); otherwise the logarithm of the sum.
    """
    terms = 5 if x.dtype == np.float32 else 12
    ratio = x / (x + 2.0)
    near = ratio * (ratio * ratio).polynomial([2.0 / (2 * k + 1) for k in range(terms)])
    is_near = (x > math.sqrt(0.5) - 1.0) & (x < math.sqrt(2.0) - 1.0)
    return where(is_near, near, log(x + 1.0))


def expm1(x: Value) -> Value:
    """Computes exp(x) - 1, accurate near 0: by the Taylor series below 1/2."""
    terms = 9 if x.dtype == np.float32 else 15
    near = x * x.polynomial([1.0 / math.factorial(k + 1) for k in range(terms)])
    return where(abs(x) < 0.5, near, exp(x) - 1.0)


def softplus(x: Value) -> Value:
    """Computes log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)).

    ONNX has this op, but its precision is the runtime's choice: OpenVINO returns -2e-6 at -20, so
    the logarithm of a scale would be NaN.
    """
    return x.apply("Max", 0.0) + log1p(exp(-abs(x)))


def sigmoid(x: Value) -> Value:
    """Computes the logistic function 1 / (1 + exp(-x)).

    ONNX has this op, but its precision is the runtime's choice: ONNX Runtime returns 0 below -18.
    """
    return 1.0 / (exp(-x) + 1.0)


def mul_no_nan(x: Value, y: Value) -> Value:
    """Computes x y, and 0 where y is 0 even if x is infinite or NaN."""
    return where(y.equals(0.0), 0.0, x * y)


def xlogy(x: Value, y: Value) -> Value:
    """Computes x log y, and 0 where x is 0."""
    return where(x.equals(0.0), 0.0, x * log(y))


def xlog1py(x: Value, y: Value) -> Value:
    """Computes x log(1 + y), and 0 where x is 0."""
    return where(x.equals(0.0), 0.0, x * log1p(y))


def xdivy(x: Value, y: Value) -> Value:
    """Computes x / y, and 0 where x is 0."""
    return where(x.equals(0.0), 0.0, x / y)
