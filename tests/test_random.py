"""Noise: the generator, its invariances, and the distributions that are drawn from it."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import mpmath
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx.reference import ReferenceEvaluator
from scipy import special, stats

from keras_vae import random
from keras_vae.distributions.noise import Noise, Wanted, from_rows, from_rows_at_once
from keras_vae.random.elementary import log
from keras_vae.random.inversion import gammas
from tests.converted import convert
from tests.registry import CONVERTED, INVERSIONS, TRUNCATED, Inversion, truncated_normal

# One seed is drawn once, so a test that passes will pass again. A correct distribution fails at
# this level with one seed in ten thousand.
LEVEL = 1e-4
ARITHMETICS = {"int64": contextlib.nullcontext, "int32": random.int32_arithmetic}


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def seeds(n: int) -> np.ndarray:
    ends = [[0, 0], [-1, -1], [2**31 - 1, -(2**31)]]
    rows = np.random.default_rng(1).integers(-(2**31), 2**31, (n, 2))
    return np.concatenate([ends, rows]).astype(np.int32)[:n]


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Computes Philox-4x32-10 as in the paper, in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def words(seed: np.ndarray, count: int, stream: int) -> np.ndarray:
    """Computes words by the documented layout: key = seed, counter = (block, 0, stream, 0)."""
    rows = []
    for pair in seed.view(np.uint32).tolist():
        blocks = [philox([block, 0, stream, 0], pair) for block in range(-(-count // 4))]
        rows.append(np.ravel(blocks)[:count])
    return np.array(rows, np.uint32)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_reference_gives_the_known_answers_of_random123(
    counter: str, key: str, expected: str
) -> None:
    numbers = [[int(word, 16) for word in text.split()] for text in (counter, key, expected)]
    assert philox(numbers[0], numbers[1]) == numbers[2]


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("stream", [0, 3, 65535])
@pytest.mark.parametrize("count", [1, 4, 51])
def test_bits_are_philox(count: int, stream: int, arithmetic: str) -> None:
    seed = seeds(20)
    with ARITHMETICS[arithmetic]():
        result = random.bits(seed, count, stream=stream).numpy()
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result.view(np.uint32), words(seed, count, stream))


def test_bits_are_those_of_tensorflow_with_the_same_key_and_counter() -> None:
    seed = seeds(5)
    result = random.bits(seed, 101, stream=random.OBSERVATION).numpy().view(np.uint32)
    for row, (low, high) in zip(result, seed.view(np.uint32).astype(np.uint64), strict=True):
        expected = tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[101],
            key=[low | high << np.uint64(32)],
            counter=tf.constant([0, random.OBSERVATION], tf.uint64),
            alg=1,
            dtype=tf.uint32,
        )
        np.testing.assert_array_equal(row, expected)


def test_uniforms_are_the_midpoints_of_the_upper_23_bits() -> None:
    u = random.uniform(seeds(50), (101,), stream=random.LATENT).numpy()
    k = words(seeds(50), 101, random.LATENT) >> 9
    assert u.dtype == np.float32
    np.testing.assert_array_equal(u.astype(np.float64), (k + 0.5) / 2**23)


def test_normals_are_box_and_muller_in_double_precision() -> None:
    seed = seeds(50)
    z = random.normal(seed, (100,), stream=random.LATENT).numpy()
    w = words(seed, 100, random.LATENT)
    radius = np.sqrt(-2 * np.log((w[:, 0::2] | 1) / 2**32))
    quarter = ((w[:, 1::2] >> 9) + 0.5) / 2**23 - 0.5
    cosine, sine = np.cos(np.pi / 2 * quarter), np.sin(np.pi / 2 * quarter)
    cosine = np.where(w[:, 1::2] & 2, -cosine, cosine)
    swap = w[:, 1::2] & 1
    expected = radius[..., None] * np.where(
        swap[..., None], np.stack([sine, cosine], -1), np.stack([cosine, sine], -1)
    )
    # Rounding of a radius below 7 and of a sine, 3 units of 2^-24 each.
    np.testing.assert_allclose(z, expected.reshape(50, 100), rtol=0, atol=7 * 6 * 2.0**-24)


def test_the_logarithm_is_accurate_to_its_ends() -> None:
    x = np.concatenate([2.0 ** np.arange(-126, 1), np.geomspace(2.0**-126, 1, 5000)])
    x = np.float32(x)
    exact = np.log(x.astype(np.float64))
    unit = np.spacing(np.maximum(np.abs(exact), 1e-30).astype(np.float32))
    assert np.max(np.abs(log(tf.constant(x), 64).numpy() - exact) / unit) < 2  # measured 1.5
    tail = x[x >= 2.0**-32]
    np.testing.assert_allclose(log(tf.constant(tail), 16), np.log(tail), rtol=3e-7)


def test_uniforms_and_normals_follow_their_distributions() -> None:
    seed = random.row_seeds(20, 1000)
    u = random.uniform(seed, (100,), stream=random.OBSERVATION).numpy()
    z = random.normal(seed, (100,), stream=random.LATENT).numpy()
    assert stats.kstest(u.ravel(), "uniform").pvalue > LEVEL
    assert stats.kstest(z.ravel(), "norm").pvalue > LEVEL
    assert stats.normaltest(z.ravel()).pvalue > LEVEL

    # Neighbours in a row, neighbouring rows (whose seeds differ by one) and two streams.
    other = random.normal(seed, (100,), stream=random.COMPONENT).numpy()
    for left, right in (
        (z[:, 0::2], z[:, 1::2]),
        (z[:, 0::2] ** 2, z[:, 1::2] ** 2),
        (z[:-1], z[1:]),
        (z, other),
    ):
        assert stats.pearsonr(left.ravel(), right.ravel()).pvalue > LEVEL


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 3, 4), (5, 0)])
def test_shapes_are_prefixes_of_one_sequence(shape: tuple[int, ...]) -> None:
    seed = seeds(3)
    for draw in (random.uniform, random.normal):
        sequence = draw(seed, (40,), stream=random.LATENT).numpy()
        result = draw(seed, shape, stream=random.LATENT)
        assert result.dtype == tf.float32
        np.testing.assert_array_equal(result, sequence[:, : math.prod(shape)].reshape(3, *shape))


def test_a_row_depends_on_its_seed_alone() -> None:
    seed = seeds(9)
    whole = random.normal(seed, (7,), stream=random.LATENT).numpy()
    np.testing.assert_array_equal(random.normal(seed[4:6], (7,), stream=random.LATENT), whole[4:6])
    assert random.normal(seed[:0], (7,), stream=random.LATENT).shape == (0, 7)
    assert random.bits(seed, 0, stream=random.LATENT).shape == (9, 0)


NOISE: dict[str, Callable[[Any], Any]] = {
    "bits": lambda seed: random.bits(seed, 50, stream=random.LATENT),
    "u": lambda seed: random.uniform(seed, (10, 5), stream=random.LATENT),
    "z": lambda seed: random.normal(seed, (50,), stream=random.LATENT),
}


@functools.cache
def noise_model(arithmetic: str) -> onnx.ModelProto:
    """Makes a model of all kinds of noise, or only of normals if conversion is slow."""
    names = list(NOISE) if arithmetic == "int64" else ["z"]
    with ARITHMETICS[arithmetic]():
        return convert(
            lambda seed: {name: NOISE[name](seed) for name in names},
            [tf.TensorSpec([None, 2], tf.int32, name="seed")],
        )


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("runtime", ["onnxruntime", "onnx.reference"])
def test_onnx_gives_the_same_numbers_to_the_last_bit(runtime: str, arithmetic: str) -> None:
    model, seed = noise_model(arithmetic), seeds(64)
    names = [output.name for output in model.graph.output]
    run = session(model).run if runtime == "onnxruntime" else ReferenceEvaluator(model).run
    for name, result in zip(names, run(names, {"seed": seed}), strict=True):
        np.testing.assert_array_equal(result, NOISE[name](seed))


def test_onnx_takes_any_number_of_rows() -> None:
    run = session(noise_model("int64")).run
    for rows in (0, 1, 3):
        u, z = run(["u", "z"], {"seed": seeds(rows)})
        assert u.shape == (rows, 10, 5)
        assert z.shape == (rows, 50)


def test_int32_arithmetic_uses_no_wide_integer() -> None:
    @tf.function
    def noise(seed: tf.Tensor) -> tf.Tensor:
        return random.normal(seed, (6,), stream=random.LATENT)

    with random.int32_arithmetic():
        graph = noise.get_concrete_function(tf.TensorSpec([None, 2], tf.int32)).graph
    dtypes = {output.dtype for op in graph.get_operations() for output in op.outputs}
    assert not dtypes & {tf.int64, tf.uint64, tf.uint32}
    integers = {"MatMul", "Mul", "Div", "BitwiseAnd", "BitwiseXor", "BitShift"}
    model = noise_model("int32")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    wide = {v.name for v in inferred.value_info if v.type.tensor_type.elem_type == 7}
    assert not [n for n in model.graph.node if n.op_type in integers and n.output[0] in wide]


def test_graphs_and_saved_models_give_the_same_numbers(tmp_path: Any) -> None:
    signature = [tf.TensorSpec([None, 2], tf.int32, name="seed")]
    seed = tf.constant(seeds(8))
    expected = random.normal(seed, (50,), stream=random.LATENT).numpy()

    module = tf.Module()
    module.noise = tf.function(
        lambda seed: random.normal(seed, (50,), stream=random.LATENT), input_signature=signature
    )
    np.testing.assert_array_equal(module.noise(seed), expected)
    tf.saved_model.save(module, str(tmp_path))
    np.testing.assert_array_equal(tf.saved_model.load(str(tmp_path)).noise(seed), expected)

    compiled = tf.function(
        lambda seed: random.normal(seed, (50,), stream=random.LATENT), jit_compile=True
    )
    # XLA fuses multiplications with additions: 4 units in the last place of values below 7.
    np.testing.assert_allclose(compiled(seed), expected, rtol=0, atol=4 * 2.0**-21)


def test_graphs_are_small() -> None:
    nodes = {name: len(noise_model(name).graph.node) for name in ARITHMETICS}
    assert nodes["int64"] <= 230  # 197 for normals alone, which take 0.16 ms for 64 rows of 50
    assert nodes["int32"] <= 600


def test_row_seeds_of_an_int_count_the_rows() -> None:
    np.testing.assert_array_equal(random.row_seeds(-5, 3), [[-5, 0], [-5, 1], [-5, 2]])
    assert random.row_seeds(np.int64(3), 0).shape == (0, 2)
    assert random.row_seeds(3, tf.constant(4, tf.int64)).shape == (4, 2)


def test_row_seeds_of_a_pair_are_words_of_philox() -> None:
    pair = [7, -(2**31)]
    key = np.array(pair, np.int32).view(np.uint32).tolist()
    expected = np.array([philox([i, 0, random.ROWS, 0], key)[:2] for i in range(5)], np.uint32)
    for seed in (pair, np.array(pair), tf.constant(pair), tf.constant(pair, tf.int64)):
        result = random.row_seeds(seed, 5)
        assert result.dtype == tf.int32
        np.testing.assert_array_equal(result.numpy().view(np.uint32), expected)


def test_seeds_from_keras_become_int32() -> None:
    generator = keras.random.SeedGenerator(2**32 - 1)
    np.testing.assert_array_equal(random.stateless_seed(generator.next()), [-1, 0])
    np.testing.assert_array_equal(
        random.stateless_seed(tf.constant([2**31, 2**31 - 1], tf.uint32)), [-(2**31), 2**31 - 1]
    )
    assert random.stateless_seed(tf.constant([1, 2])).dtype == tf.int32


def test_fresh_seeds_are_int32_and_differ() -> None:
    drawn = {random.fresh_seed() for _ in range(100)}
    assert all(-(2**31) <= seed < 2**31 for seed in drawn)
    assert len(drawn) > 95  # two of a hundred are equal with probability 1e-6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: random.normal(s[0], (3,), stream=0), ValueError, r"int32 of shape \[b, 2\]"),
        (lambda s: random.normal(s.astype(np.int64), (3,), stream=0), ValueError, "got int64"),
        (lambda s: random.normal(s[:, :1], (3,), stream=0), ValueError, r"shape \(4, 1\)"),
        (lambda s: random.normal(s, 3, stream=0), TypeError, "`shape` to be a tuple of ints"),
        (lambda s: random.normal(s, (3, None), stream=0), TypeError, "got None"),
        (lambda s: random.normal(s, (-3,), stream=0), ValueError, r"0 or more; got \(-3,\)"),
        (lambda s: random.normal(s, (3,), stream=2**16), ValueError, "between 0 and 65535"),
        (lambda s: random.normal(s, (3,), stream=-1), ValueError, "between 0 and 65535"),
        (lambda s: random.normal(s, (3,), stream=0.0), TypeError, "`stream` to be an int"),
        (lambda s: random.bits(s, 1.5, stream=0), TypeError, "to be an int; got 1.5"),
        (lambda _: random.row_seeds(2**31, 3), ValueError, r"\[-2\^31, 2\^31\); got 2147483648"),
        (lambda _: random.row_seeds(True, 3), TypeError, "got True"),
        (lambda _: random.row_seeds(1.0, 3), TypeError, "`seed` to be an int"),
        (lambda _: random.row_seeds("7", 3), TypeError, "`seed` to be an int"),
        (lambda _: random.row_seeds([1, 2, 3], 3), ValueError, "a pair of ints"),
        (lambda _: random.row_seeds(1, -1), ValueError, "`n` from 0 to 2"),
        (lambda _: random.row_seeds(1, 2**31), ValueError, "with another seed"),
        (lambda _: random.row_seeds(1, 2.0), TypeError, "`n` to be an int"),
        (lambda _: random.stateless_seed(tf.constant([1.0, 2.0])), ValueError, "got float32"),
        (lambda _: random.stateless_seed(tf.constant([1, 2, 3])), ValueError, r"shape \(3,\)"),
    ],
)
def test_wrong_arguments_are_refused(call: Callable, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(seeds(4))


def draws(distribution: Inversion, u: np.ndarray) -> np.ndarray:
    """Draws as numbers; a one-hot vector gives its class."""
    shape = (*u.shape, -1) if distribution.draw is random.categorical else u.shape
    entries = u.shape[:-1] if distribution.uniforms else u.shape
    parameters = [
        np.broadcast_to(np.float32(p), np.shape(p) or entries) for p in distribution.parameters
    ]
    if distribution.draw is random.categorical:
        parameters = [np.broadcast_to(parameters[0], (*u.shape, parameters[0].size))]
    values = tf.function(distribution.draw, autograph=False)(u, *parameters).numpy()
    assert values.dtype == np.float32
    if distribution.draw is not random.categorical:
        return values
    values = values.reshape(shape)
    assert set(np.unique(values)) <= {0.0, 1.0}
    np.testing.assert_array_equal(values.sum(-1), 1)
    return values.argmax(-1)


@pytest.mark.parametrize("name", INVERSIONS)
def test_draws_follow_their_distribution(name: str) -> None:
    distribution = INVERSIONS[name]
    shape = (100, distribution.uniforms) if distribution.uniforms else (100,)
    u = random.uniform(random.row_seeds(11, 400), shape, stream=random.OBSERVATION).numpy()
    x = draws(distribution, u).ravel()
    assert np.isfinite(x).all()
    if not distribution.is_discrete:
        assert stats.kstest(x, distribution.exact).pvalue > LEVEL
        return

    # Cells of equal probability as nearly as the atoms allow, so that each expects hundreds.
    edges = np.unique(distribution.exact.ppf(np.linspace(0, 1, 60)[1:-1]))
    cdf = np.concatenate([[0.0], distribution.exact.cdf(edges), [1.0]])
    observed = np.bincount(np.searchsorted(edges, x), minlength=edges.size + 1)
    expected = np.diff(cdf) * x.size
    possible = expected > 1e-6
    assert observed[~possible].sum() == 0
    if possible.sum() > 1:
        assert stats.chisquare(observed[possible], expected[possible]).pvalue > LEVEL


@pytest.mark.parametrize(
    "name", [name for name, distribution in INVERSIONS.items() if distribution.is_discrete]
)
def test_every_atom_gets_its_share_of_equidistant_uniforms(name: str) -> None:
    distribution, size = INVERSIONS[name], 2**14
    u = ((np.arange(size) + 0.5) / size).astype(np.float32)
    observed = np.bincount(draws(distribution, u).astype(int), minlength=2)
    expected = distribution.exact.pmf(np.arange(observed.size)) * size
    # An interval of length p holds p N of the points to within one; its ends move by about 1e-6.
    assert np.max(np.abs(observed - expected)) < 1.05


@pytest.mark.parametrize("logits", [0.0, 1e-6, 0.2, 0.24999, 0.25, 1.0, 30.0, 1e4])
def test_continuous_bernoulli_is_the_quantile_function(logits: float) -> None:
    u = np.float32([1e-30, 2.0**-24, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.999, 1 - 2.0**-24])
    for sign in (-1.0, 1.0):
        parameter = np.full_like(u, sign * logits)
        result = random.continuous_bernoulli(u, parameter).numpy()
        with mpmath.workdps(50):
            exact = [
                float(mpmath.log1p(v * mpmath.expm1(a)) / a) if a else float(v)
                for v, a in zip(map(mpmath.mpf, u.tolist()), parameter.tolist(), strict=True)
            ]
        np.testing.assert_allclose(result, exact, rtol=0, atol=1e-6)  # measured 3.5e-7


def test_logistic_and_laplace_are_quantile_functions() -> None:
    u = np.float32([1e-37, 1e-30, 2.0**-24, 1e-3, 0.3, 0.5, 0.7, 0.999, 1 - 2.0**-24])
    wide = u.astype(np.float64)
    # The logarithm is within 2 units in the last place; its argument is rounded, too.
    np.testing.assert_allclose(random.logistic(u), special.logit(wide), rtol=3e-7, atol=3e-7)
    tail = np.log(2 * np.minimum(wide, 1 - wide))
    np.testing.assert_allclose(random.laplace(u), np.sign(0.5 - wide) * tail, rtol=3e-7)


def equidistant() -> np.ndarray:
    """Makes uniforms of the grid, the ends of which are included."""
    tail = 2.0**-24 * np.array([1, 3, 9, 30, 100, 300])
    return np.concatenate([tail, (np.arange(1000) + 0.5) / 1000, 1 - tail]).astype(np.float32)


@pytest.mark.parametrize("concentration", [3.0, 3.1, 5.0, 20.0, 1e3, 1e5])
def test_gamma_is_the_quantile_function_of_its_first_uniform(concentration: float) -> None:
    u, k = equidistant(), float(np.float32(concentration))
    found = random.gamma(np.repeat(u[:, None], 4, axis=1), np.float32(k)).numpy()
    wide = u.astype(float)
    exact = np.where(u < 0.5, special.gammaincinv(k, wide), special.gammainccinv(k, 1 - wide)) / k
    # In standard deviations: the fit is within 1.3e-7 and float32 within 3e-6; a draw is float32.
    error = np.abs(found / exact - 1.0) * np.sqrt(k)
    assert np.max(error) < 4e-6 + 2.0**-23 * np.sqrt(k)


@pytest.mark.parametrize("concentration", [1e-3, 0.05, 1.0])
def test_gamma_below_three_has_its_moments_in_logarithms(concentration: float) -> None:
    """Draws of 1e-3 lie far below the smallest float32; beta draws depend on their logarithms."""
    k, count = float(np.float32(concentration)), 100_000
    u = random.uniform(random.row_seeds(0, count), (4,), stream=random.OBSERVATION)
    logs = gammas._log_gamma(u, np.float32(k)).numpy().astype(float)
    mean, variance = special.digamma(k) - np.log(k), special.polygamma(1, k)
    assert abs(logs.mean() - mean) < 5 * np.sqrt(variance / count)  # 1 in 10^6
    fourth = special.polygamma(3, k) + 3 * variance**2
    assert abs(logs.var() - variance) < 5 * np.sqrt((fourth - variance**2) / count)


def test_draws_of_tiny_shapes_stay_inside_their_supports() -> None:
    u = random.uniform(random.row_seeds(0, 2000), (8,), stream=random.OBSERVATION)
    tiny, huge = np.float32(1e-7), np.float32(1e8)
    draws_ = [random.gamma(u[:, :4], k).numpy() for k in (tiny, huge)]
    draws_ += [random.beta(u, a, b).numpy() for a in (tiny, huge) for b in (tiny, huge)]
    assert all(np.all(np.isfinite(x) & (x > 0.0)) for x in draws_)
    assert all(np.all(x < 1.0) for x in draws_[2:])
    assert np.all(np.isfinite(random.student_t(u[:, :2], tiny)))


@pytest.mark.parametrize("parameters", TRUNCATED)
def test_truncated_normal_is_the_quantile_function(parameters: tuple[float, ...]) -> None:
    u = equidistant()
    found = random.truncated_normal(u, *map(np.float32, parameters)).numpy().astype(float)
    exact = truncated_normal(*(float(np.float32(p)) for p in parameters))
    wide = u.astype(float)
    expected = np.where(u < 0.5, exact.ppf(wide), exact.isf(1 - wide))
    # Measured 1.5e-6 standard deviations, and two units in the last place of the draw.
    error = np.abs(found - expected) - 2.0**-22 * np.abs(expected)
    assert np.max(error / exact.std()) < 3e-6
    assert np.all((found >= parameters[2]) & (found <= parameters[3]))


def test_bernoulli_is_certain_where_its_logits_are() -> None:
    u = np.float32([2.0**-24, 0.5, 1 - 2.0**-24])
    np.testing.assert_array_equal(random.bernoulli(u, np.full(3, 200.0, np.float32)), 1)
    np.testing.assert_array_equal(random.bernoulli(u, np.full(3, -200.0, np.float32)), 0)


def test_categorical_takes_the_first_class_above_u() -> None:
    u = np.float32([2.0**-24, 0.24, 0.26, 1 - 2.0**-24])
    logits = np.log(np.float32([[1, 1, 1, 1]] * 4)) + 300
    index = random.categorical(u, logits).numpy().argmax(-1)
    np.testing.assert_array_equal(index, [0, 0, 1, 3])
    np.testing.assert_array_equal(random.categorical(u, logits[:, :1]), np.ones((4, 1)))


def test_counts_of_an_unknown_rate_are_unknown() -> None:
    result = random.poisson(np.float32([0.3, 0.3]), np.float32([np.nan, 2.0])).numpy()
    assert np.isnan(result[0])
    assert result[1] == 1


CONTINUOUS = {"logistic", "laplace", "continuous_bernoulli"}
CONTINUOUS |= {"gamma", "beta", "student_t", "truncated_normal", "polar_angle"}


@pytest.mark.parametrize("name", CONVERTED)
def test_onnx_runtime_draws_the_same(name: str) -> None:
    draw, shape = getattr(random, name), (200, 30)
    parameters = CONVERTED[name](np.random.default_rng(3), shape)
    cases = INVERSIONS.values()
    uniforms = next(case.uniforms for case in cases if case.draw.__name__ == name)
    noise = (30, uniforms) if uniforms else (30,)
    u = random.uniform(random.row_seeds(5, 200), noise, stream=random.OBSERVATION).numpy()
    feeds = {"u": u} | {f"p{i}": np.float32(p) for i, p in enumerate(parameters)}
    signature = [
        tf.TensorSpec([None, *value.shape[1:]], tf.float32, name=key)
        for key, value in feeds.items()
    ]
    run = session(convert(lambda *inputs: {"x": draw(*inputs)}, signature)).run
    result, expected = run(["x"], feeds)[0], draw(*feeds.values()).numpy()

    empty = run(["x"], {key: value[:0] for key, value in feeds.items()})[0]
    assert empty.shape == (0, *expected.shape[1:])
    if name in CONTINUOUS:
        # Equal but for the exponential of the two runtimes, which differs by a few 1e-7.
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)
        return
    near = [draw(u + np.float32(step), *list(feeds.values())[1:]).numpy() for step in (-1e-6, 1e-6)]
    assert np.all((result == expected) | (result == near[0]) | (result == near[1]))


def test_every_draw_is_tested() -> None:
    drawn = {distribution.draw.__name__ for distribution in INVERSIONS.values()}
    assert drawn == set(random.inversion.__all__) == set(CONVERTED)


@pytest.mark.parametrize("noise", [random.uniform, random.normal])
def test_noise_from_the_graph_of_later_calls_has_the_same_bits(noise) -> None:
    seeds = random.row_seeds(3, 1000)
    first, second = (noise(seeds, (3, 7), stream=random.LATENT).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match="one pair per row"):
        noise(seeds[:, :1], (3, 7), stream=random.LATENT)


def test_several_draws_are_those_drawn_alone() -> None:
    seed = random.row_seeds(3, 5)
    requests = [
        random.Request("normal", (2, 3), random.OBSERVATION, 4),
        random.Request("uniform", (), random.OBSERVATION, 0),
        random.Request("uniform", (5,), random.POSTERIOR, 9),
        random.Request("normal", (0,), random.LATENT, 1),
        random.Request("normal", (7,), random.LATENT, 0),
    ]
    make = {"normal": random.normal, "uniform": random.uniform}
    for arithmetic in (contextlib.nullcontext(), random.int32_arithmetic()):
        with arithmetic:
            for _ in range(2):  # eager, then in a graph
                found = random.several(seed, requests)
                for one, numbers in zip(requests, found, strict=True):
                    alone = make[one.kind](seed, one.shape, stream=one.stream, index=one.index)
                    np.testing.assert_array_equal(numbers, alone)


def test_eager_draws_of_counts_run_in_a_graph_with_the_bits_of_their_operations() -> None:
    u = random.uniform(random.row_seeds(2, 40), (9,), stream=random.OBSERVATION)
    rng = np.random.default_rng(0)
    mean, dispersion = (np.exp(rng.normal(1.0, 1.5, (40, 9))).astype("float32") for _ in "md")
    total, share = np.float32(rng.integers(1, 60, (40, 1))), np.float32(rng.random(9))
    for draw, parameters in (
        (random.poisson, (mean,)),
        (random.binomial, (total, share)),
        (random.negative_binomial, (mean, dispersion)),
        (random.beta_binomial, (total, mean, dispersion)),
    ):
        eager = draw.__wrapped__(u, *map(tf.constant, parameters))
        np.testing.assert_array_equal(draw(u, *parameters), eager)
        with tf.GradientTape() as tape:
            moving = tf.constant(parameters[0])
            tape.watch(moving)
            drawn = draw(u, moving, *parameters[1:])
        assert tape.gradient(drawn, moving) is None


def test_noise_drawn_at_once_is_that_of_each_alone() -> None:
    seed = random.row_seeds(1, 4)
    steps = {"a": Noise((2,), "uniform", random.PREPARATION), "b": Noise((), "uniform", 4, 1)}
    q = {"z": Noise((3,), "normal", random.POSTERIOR)}
    found = from_rows_at_once([Wanted(steps), Wanted(q, 5, "float64"), Wanted({})], seed)
    assert found[2] == {}
    for name, each in steps.items():
        np.testing.assert_array_equal(found[0][name], from_rows(each, seed))
    np.testing.assert_array_equal(found[1]["z"], from_rows(q["z"], seed, 5, "float64"))
    assert found[1]["z"].dtype == tf.float64
    with pytest.raises(ValueError, match="would share their numbers"):
        from_rows_at_once([Wanted(q), Wanted(q)], seed)
