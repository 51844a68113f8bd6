"""Handlers for the TensorFlow ops that tf2onnx 1.17 lacks, or converts with a loss of accuracy.

    tf2onnx.convert.from_function(
        function, input_signature=signature, opset=18, custom_op_handlers=CUSTOM_OP_HANDLERS
    )

They use only ops of the standard domain, op set 13 except for bitwise ops, which need op set 18.
They compute in the argument's dtype, float32 or float64 (float16 in float32), and return infinities
and NaN where TensorFlow does. Errors measured in ONNX Runtime on the CPU against 40 digits, in
units in the last place (ulp):

| op                            | how                                       | float32 | float64  |
|-------------------------------|-------------------------------------------|---------|----------|
| Log                           | ONNX's own, not through float32           | 2.4     | 1.2      |
| Log1p                         | artanh series, or log(1 + x)              | 2.4     | 2.5      |
| Expm1                         | Taylor series, or exp(x) - 1              | 1.4     | 1.8      |
| Sigmoid                       | 1 / (1 + exp(-x)), also far below 0       | 2.0     | 2.0      |
| Softplus                      | max(x, 0) + log1p(exp(-abs x))            | 2.5     | 2.6      |
| Erfc                          | exp(-x^2) times a Chebyshev series        | 2.5     | 3.0      |
| Erfinv, Ndtri                 | algorithm AS 241                          | 4.0     | 4.1      |
| Lgamma, x > 0                 | Chebyshev, or Stirling's series           | 4.6     | 57       |
| Lgamma, x < 0                 | reflection; ulp of max(1, result)         | 3.8     | 23       |
| Digamma                       | Stirling's series; ulp of max(1, result)  | 6.2     | 8.8      |
| Xlogy, Xlog1py                | with the logarithms above                 | 3       | 3        |
| Xdivy, MulNoNan               | a quotient or product, and 0              | 0.5     | 0.5      |
| Cholesky                      | Loop over columns, any size               | eps     | eps      |
| MatrixTriangularSolve         | Loop over rows, any size                  | eps     | eps      |
| SelectV2 of floats            | Where; not 0 times what is left out       | exact   | exact    |
| BroadcastArgs                 | sizes, a one gives way                    | exact   | exact    |
| LeftShift, RightShift         | signed and unsigned integers              | exact   | exact    |

If a handler raises, tf2onnx logs the exception and leaves the TensorFlow op in the graph; the later
check of the ops finds it by name. tf2onnx breaks any graph whose input and output have the same
name, with or without handlers.
"""

from typing import Final

from export.handlers import elementary, integers, linear_algebra, special
from export.handlers.values import Handler, handler, log, select

CUSTOM_OP_HANDLERS: Final[dict[str, Handler]] = {
    "BroadcastArgs": handler(integers.broadcast_args),
    "Cholesky": handler(linear_algebra.cholesky),
    "Digamma": handler(special.digamma),
    "Erfc": handler(special.erfc),
    "Erfinv": handler(special.erfinv),
    "Expm1": handler(elementary.expm1),
    "LeftShift": handler(integers.left_shift),
    "Lgamma": handler(special.lgamma),
    "Log": handler(log),
    "Log1p": handler(elementary.log1p),
    "MatrixTriangularSolve": handler(linear_algebra.triangular_solve, "lower", "adjoint"),
    "MulNoNan": handler(elementary.mul_no_nan),
    "Ndtri": handler(special.ndtri),
    "RightShift": handler(integers.right_shift),
    "SelectV2": (select, []),
    "Sigmoid": handler(elementary.sigmoid),
    "Softplus": handler(elementary.softplus),
    "Xdivy": handler(elementary.xdivy),
    "Xlog1py": handler(elementary.xlog1py),
    "Xlogy": handler(elementary.xlogy),
}
