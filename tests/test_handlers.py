"""Every handler: the op is converted, and right in ONNX Runtime over its whole range."""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx
from converted import convert

from export import onnx_graphs
from export.handlers import CUSTOM_OP_HANDLERS
from export.onnx_graphs import conversion
from keras_vae import random
from keras_vae.distributions.tfp import tfd
from keras_vae.signatures import Signature

RNG_SEED = 7
DTYPES = (np.float32, np.float64)


def run(function: Callable, **feeds: np.ndarray) -> tuple[Any, Any]:
    """Runs a function of tensors with one output in ONNX Runtime and in TensorFlow."""
    signature = [
        tf.TensorSpec([None, *value.shape[1:]] if value.ndim else [], value.dtype, name=name)
        for name, value in feeds.items()
    ]
    model = convert(lambda *inputs: {"result": function(*inputs)}, signature, CUSTOM_OP_HANDLERS)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["result"], feeds)[0], function(*feeds.values()).numpy()


class Unary(NamedTuple):
    """A function, what it should be, where it is tried, and the error that is allowed.

    Segments are `(low, high)` of one sign, tried at logarithmically spaced points, or
    `(center, low, high)` for distances from a center on both sides. Errors are in units in the last
    place of the result, or of `floor` where the result is smaller. They are what was measured on
    ten times as many points and about a half more; 1 to 2 of them belong to ONNX Runtime's exp and
    log.
    """

    function: Callable
    exact: Callable
    segments: list[tuple[float, ...]]
    ulps: float
    ulps64: float
    floor: float = 0.0


def log_gamma(x: Any) -> Any:
    return mpmath.re(mpmath.loggamma(x))


UNARY = {
    "Log": Unary(tf.math.log, mpmath.log, [(1e-37, 1e38), (1.0, 1e-6, 0.5)], 3.5, 2),
    "Log1p": Unary(tf.math.log1p, mpmath.log1p, [(1e-30, 1e30), (-1e-30, -0.9999)], 3, 3),
    "Expm1": Unary(tf.math.expm1, mpmath.expm1, [(1e-30, 80.0), (-1e-30, -80.0)], 2.5, 2.5),
    "Sigmoid": Unary(
        tf.sigmoid, lambda x: 1 / (1 + mpmath.exp(-x)), [(1e-6, 80.0), (-1e-6, -85.0)], 3, 3
    ),
    "Softplus": Unary(
        tf.nn.softplus,
        lambda x: mpmath.log1p(mpmath.exp(x)),
        [(1e-6, 80.0), (-1e-6, -85.0)],
        3,
        3,
    ),
    "Erfc": Unary(tf.math.erfc, mpmath.erfc, [(1e-20, 9.1), (-1e-20, -6.0)], 4, 4),
    "Erfinv": Unary(
        tf.math.erfinv, mpmath.erfinv, [(1e-20, 0.999), (-1e-20, -0.999), (1.0, 1e-7, 0.1)], 6, 6
    ),
    "Ndtri": Unary(
        tf.math.ndtri,
        lambda p: mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1),
        [(1e-7, 0.5), (0.5, 1e-6, 0.4), (1.0, 1e-7, 0.1)],
        6,
        6,
    ),
    "Lgamma": Unary(
        tf.math.lgamma,
        log_gamma,
        [(1e-30, 3.0), (3.0, 1e30), (1.0, 1e-6, 0.5), (2.0, 1e-6, 0.5)],
        6,
        90,
    ),
    "Lgamma below 0": Unary(tf.math.lgamma, log_gamma, [(-1e-6, -20.0)], 6, 90, floor=1.0),
    "Digamma": Unary(
        tf.math.digamma,
        mpmath.digamma,
        [(1e-6, 1e20), (-1e-6, -20.0)],
        10,
        14,
        floor=1.0,
    ),
}


def points(segment: tuple[float, ...], dtype: type) -> np.ndarray:
    rng = np.random.default_rng(RNG_SEED)
    *center, low, high = segment
    sizes = np.exp(rng.uniform(np.log(abs(low)), np.log(abs(high)), 120)) * np.sign(low)
    if center:
        sizes = center[0] + sizes * rng.choice([-1, 1], sizes.size)
        sizes = sizes[sizes < 1.0] if center == [1.0] and high <= 0.1 else sizes
    return sizes.astype(dtype)


@functools.cache
def unary_session(dtype: type) -> onnxruntime.InferenceSession:
    """Makes one model of all unary functions; each has an input and an output."""
    names = list(UNARY)
    signature = [tf.TensorSpec([None], dtype, name=f"x{i}") for i in range(len(names))]

    def functions(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        values = zip(names, inputs, strict=True)
        return {f"y{i}": UNARY[name].function(x) for i, (name, x) in enumerate(values)}

    model = convert(functions, signature, CUSTOM_OP_HANDLERS)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def evaluate(name: str, x: np.ndarray) -> np.ndarray:
    index = list(UNARY).index(name)
    feeds = {f"x{i}": x if i == index else x[:0] for i in range(len(UNARY))}
    return unary_session(x.dtype.type).run([f"y{index}"], feeds)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_are_accurate(name: str, dtype: type) -> None:
    case = UNARY[name]
    x = np.concatenate([points(segment, dtype) for segment in case.segments])
    result = evaluate(name, x)
    with mpmath.workdps(40):
        exact = [case.exact(mpmath.mpf(float(value))) for value in x]
        size = np.maximum(np.abs(np.array([float(value) for value in exact])), case.floor)
        unit = np.spacing(size.astype(dtype)).astype(float)
        error = [
            abs(float((float(a) - b) / u)) for a, b, u in zip(result, exact, unit, strict=True)
        ]
    worst = int(np.argmax(error))
    assert error[worst] <= (case.ulps if dtype == np.float32 else case.ulps64), x[worst]


@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_have_the_infinities_and_nan_of_tensorflow(name: str) -> None:
    x = np.float32(
        [
            -np.inf,
            -1e38,
            -100.5,
            -3,
            -2.5,
            -1,
            -0.5,
            -0.0,
            0,
            0.3,
            0.5,
            1,
            1.5,
            2,
            200,
            np.inf,
            np.nan,
        ]
    )
    expected = UNARY[name].function(x).numpy()
    # Both are within 1e-6 of the exact value; which of them is nearer is held above.
    np.testing.assert_allclose(evaluate(name, x), expected, rtol=2e-6, atol=1e-6)


def test_erfc_underflows_gradually() -> None:
    x = np.float32([9.2, 9.5, 9.9, 10.0, 10.1, 20.0, 1e38])
    exact = [float(mpmath.erfc(mpmath.mpf(float(value)))) for value in x]
    # Below the smallest normal number the spacing is 1.4e-45; the factors are rounded to it.
    np.testing.assert_allclose(evaluate("Erfc", x), exact, rtol=0, atol=3e-45)


def test_an_empty_batch_stays_empty() -> None:
    for name in UNARY:
        assert evaluate(name, np.float32([])).shape == (0,)


BINARY = {
    "MulNoNan": tf.math.multiply_no_nan,
    "Xdivy": tf.math.xdivy,
    "Xlog1py": tf.math.xlog1py,
    "Xlogy": tf.math.xlogy,
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_are_those_of_tensorflow(name: str) -> None:
    values = np.float32([-np.inf, -2, -1, -0.5, -0.0, 0, 1e-6, 0.5, 1, 3, 1e30, np.inf, np.nan])
    x, y = (grid.ravel() for grid in np.meshgrid(values, values))
    result, expected = run(BINARY[name], x=x, y=y)
    # The logarithms are within 3 units in the last place, 4e-7, of the exact ones on both sides.
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    mixed, expected = run(lambda x: BINARY[name](x, tf.constant([[2.0], [3.0]])), x=values)
    np.testing.assert_allclose(mixed, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_shifts_are_those_of_tensorflow(dtype: str) -> None:
    info = np.iinfo(dtype)
    x = np.array([info.min, info.max, 0, 5, 100, info.max // 3, info.min + 1], dtype)
    y = np.array([1, 3, 2, 0, 4, 5, info.bits - 1], dtype)
    for shift in (tf.bitwise.right_shift, tf.bitwise.left_shift):
        result, expected = run(shift, x=x, y=y)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 1, 3), (5, 3)), ((0, 1, 3), (1, 3)), ((1, 1, 3), (0, 3)), ((2, 1, 3), ())],
)
def test_shapes_broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    def shape(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.BroadcastArgs(s0=tf.shape(a), s1=tf.shape(b))

    result, expected = run(shape, a=np.zeros(left, np.float32), b=np.zeros(right, np.float32))
    np.testing.assert_array_equal(result, expected)


def matrices(size: int, dtype: type) -> np.ndarray:
    factor = np.random.default_rng(RNG_SEED).normal(size=(3, size, 2 * size))
    return (factor @ factor.transpose(0, 2, 1)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 5, 50])
def test_cholesky_factors(size: int, dtype: type) -> None:
    a = matrices(size, dtype)
    above = np.triu(np.full((size, size), 1e6, dtype), 1)
    result, expected = run(tf.linalg.cholesky, a=a + above)
    # Both are backward stable: errors of about the size of eps times the norm, measured 1.3 eps.
    tolerance = 8 * np.finfo(dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(result, np.tril(result))


def test_cholesky_of_an_indefinite_matrix_is_nan() -> None:
    result, _ = run(tf.linalg.cholesky, a=np.float32([[[1, 2], [2, 1]], [[4, 2], [2, 2]]]))
    assert np.isnan(result[0, 1, 1])
    np.testing.assert_array_equal(result[1], [[2, 0], [1, 1]])


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_triangular_systems(dtype: type, lower: bool, adjoint: bool) -> None:
    size = 20
    factor = np.linalg.cholesky(matrices(size, dtype)).astype(dtype)
    unread = np.triu(np.full((size, size), np.nan, dtype), 1)
    matrix = factor + unread if lower else factor.transpose(0, 2, 1) + unread.T
    rhs = np.random.default_rng(RNG_SEED).normal(size=(3, size, 4)).astype(dtype)
    solve = functools.partial(tf.linalg.triangular_solve, lower=lower, adjoint=adjoint)

    result, expected = run(solve, matrix=matrix, rhs=rhs)
    # The matrices are well conditioned: measured 2 eps.
    tolerance = 16 * np.finfo(dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)

    shared, expected = run(lambda rhs: solve(tf.constant(matrix[0]), rhs), rhs=rhs)
    np.testing.assert_allclose(shared, expected, rtol=0, atol=tolerance)


def test_half_precision_is_computed_in_float32() -> None:
    x = np.float16([-0.5, 1e-3, 0.1, 3])
    result, expected = run(tf.math.log1p, x=x)
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, expected)


def test_what_cannot_be_converted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        tf2onnx.tfonnx.logger, "error", lambda *_, **__: logged.append(str(sys.exc_info()[1]))
    )
    signature = [tf.TensorSpec([None], tf.complex64, name="x")]
    function = tf.function(lambda x: {"y": tf.abs(tf.math.expm1(x))}, input_signature=signature)
    model, _ = tf2onnx.convert.from_function(
        function, signature, opset=18, custom_op_handlers=CUSTOM_OP_HANDLERS
    )
    assert "Expected Expm1 'Expm1' on floats or integers; got complex64." in logged
    assert "Expm1" in {node.op_type for node in model.graph.node}


def test_quick_passes_of_tf2onnx_give_the_same_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = tf.Variable(tf.eye(3))

    def function(*, x: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        u = random.uniform(seed, (3,), stream=random.OBSERVATION)
        spare = tf.transpose(tf.transpose(x))
        found = {f"count_{k}": random.poisson(u + k, spare + k) for k in range(2)}
        tf.debugging.assert_less(tf.size(x), 1000)  # which no output needs
        twice = tf.reshape(x @ weight, [-1, 3]) + tf.constant(2.0) * tf.constant(3.0)
        return found | {"twice": twice}

    specs = {"x": tf.TensorSpec([None, 3], name="x")}
    specs["seed"] = tf.TensorSpec([None, 2], tf.int32, "seed")
    outputs = ("count_0", "count_1", "twice")
    signature = Signature("draws", function, specs, outputs, "Counts.")
    quick = onnx_graphs.convert(signature).model.SerializeToString(deterministic=True)
    monkeypatch.setattr(conversion, "quick_passes", contextlib.nullcontext)
    slow = onnx_graphs.convert(signature).model.SerializeToString(deterministic=True)
    assert quick == slow
    assert b"Loop" in quick


def test_every_handler_is_tested() -> None:
    others = ["BroadcastArgs", "Cholesky", "LeftShift", "MatrixTriangularSolve", "RightShift"]
    others += ["SelectV2"]
    tested = {name.split()[0] for name in UNARY} | set(BINARY) | set(others)
    assert tested == set(CUSTOM_OP_HANDLERS)


@pytest.mark.parametrize("dtype", [*DTYPES, np.int32])
def test_a_selection_leaves_out_what_is_not_finite(dtype: Any) -> None:
    """The product with 0 by which tf2onnx selects would be NaN."""
    x = np.array([1, 2, 3, 4], dtype)
    other = np.array([np.nan, np.inf, -np.inf, 5], dtype) if dtype != np.int32 else x - 7
    result, expected = run(
        lambda x, other: tf.where(x < 4, tf.where(x < 0, other, x), other), x=x, other=other
    )
    np.testing.assert_array_equal(result, expected)


DISTRIBUTIONS: dict[str, tuple[Callable[[], Any], np.ndarray]] = {
    "normal mixture": (
        lambda: tfd.MixtureSameFamily(
            tfd.Categorical(logits=[0.0, 1.0]), tfd.Normal([-1.0, 2.0], [0.5, 1.5])
        ),
        np.linspace(-5, 5, 11),
    ),
    "truncated normal": (lambda: tfd.TruncatedNormal(0.5, 2.0, -1.0, 3.0), np.linspace(-1, 3, 9)),
    "student": (lambda: tfd.StudentT(3.0, 0.5, 2.0), np.linspace(-20, 20, 9)),
    "gamma": (lambda: tfd.Gamma(2.5, 0.7), np.geomspace(1e-3, 30, 9)),
    "beta": (lambda: tfd.Beta(0.7, 2.0), np.linspace(0.01, 0.99, 9)),
    "poisson": (lambda: tfd.Poisson(log_rate=1.3), np.arange(12)),
    "binomial": (lambda: tfd.Binomial(20.0, logits=0.3), np.arange(21)),
    "negative binomial": (lambda: tfd.NegativeBinomial(3.5, logits=0.3), np.arange(12)),
    "continuous bernoulli": (lambda: tfd.ContinuousBernoulli(logits=1.5), np.linspace(0, 1, 5)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_log_densities_convert(name: str) -> None:
    distribution, x = DISTRIBUTIONS[name]
    result, expected = run(lambda x: distribution().log_prob(x), x=x.astype(np.float32))
    # Differences of log-gammas up to 50, each within 5 units in the last place, 2e-5.
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=2e-5)


def test_a_full_covariance_normal_converts() -> None:
    x = np.random.default_rng(RNG_SEED).normal(size=(4, 5)).astype(np.float32)
    covariance = matrices(5, np.float32)[0]

    def log_prob(x: tf.Tensor) -> tf.Tensor:
        factor = tf.linalg.cholesky(tf.constant(covariance) * (1.0 + 0.0 * x[0, 0]))
        return tfd.MultivariateNormalTriL(tf.zeros(5), factor).log_prob(x)

    result, expected = run(log_prob, x=x)
    np.testing.assert_allclose(result, expected, rtol=1e-5)  # sums of 10 terms of one size
