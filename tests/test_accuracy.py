"""Log-probabilities in float32 are as accurate as their inputs allow, at any count and any centre.

The unit is u = 2^-23 of 1 + |log p| + |d| (1 + |parameter|), where d is the derivative of log p by
the parameter: the rounding of the result, and what a change of the parameter by one unit in its
last place does. Exact values are mpmath's at the very inputs, with 40 digits.
"""

from typing import Any

import mpmath
import numpy as np
import onnxruntime
import pytest
import scipy.special
import tensorflow as tf

import keras_vae
from export import onnx_graphs
from keras_vae.distributions import tfp
from keras_vae.distributions.tfp import tfd
from keras_vae.random.elementary import STIRLING
from keras_vae.signatures import Signature
from tests.registry import COUNTS

UNITS = 8.0  # log p is a sum of at most 5 numbers of its size, each rounded twice
EXACT = mpmath.mpf


@pytest.fixture(autouse=True)
def forty_digits():
    with mpmath.workdps(40):
        yield


def exactly(function: Any, *inputs: np.ndarray) -> np.ndarray:
    return np.array(
        [float(function(*map(EXACT, map(float, row)))) for row in zip(*inputs, strict=True)]
    )


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_counts(name, dtype):
    make, *options = COUNTS[name]
    distribution, x, parameter, d, exact = make(*options, dtype)
    parameter_ = tf.constant(parameter)
    with tf.GradientTape() as tape:
        tape.watch(parameter_)
        found = distribution(parameter_).log_prob(x)
    expected = exactly(exact, x, parameter)
    unit = np.finfo(dtype).eps
    scale = 1.0 + np.abs(expected) + np.abs(d) * (1.0 + np.abs(parameter))
    assert np.max(np.abs(found.numpy() - expected) / scale) <= UNITS * unit
    gradient = tape.gradient(found, parameter_).numpy()
    size = np.abs(x) + np.abs(x - d)  # d is a difference of two numbers
    assert np.max(np.abs(gradient - d) / (1.0 + size)) <= UNITS * max(unit, 2**-52 * 4)


@pytest.mark.parametrize("name", ["poisson 1000", "poisson 1e6", "binomial 255", "binomial 65535"])
def test_counts_are_not_biased(name):
    """The mean error over draws of the distribution is far below what 20 000 draws can show."""
    rng, (family, size) = np.random.default_rng(1), name.split()
    n, gammaln = float(size), scipy.special.gammaln
    if family == "poisson":
        parameter = np.float32(np.log(n))
        x = rng.poisson(n, 20_000)
        log_p = x * float(parameter) - np.exp(float(parameter)) - gammaln(x + 1)
        distribution = tfp.Poisson(log_rate=parameter)
    else:
        parameter = np.float32(-0.8)
        p = scipy.special.expit(float(parameter))
        x = rng.binomial(int(n), p, 20_000)
        choose = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)
        log_p = choose + x * np.log(p) + (n - x) * np.log1p(-p)
        distribution = tfp.Binomial(np.float32(n), logits=parameter)
    error = distribution.log_prob(x.astype("float32")).numpy() - log_p
    assert abs(error.mean()) < 0.01 * log_p.std() / np.sqrt(len(x))


@pytest.mark.parametrize(
    ("centre", "scale"), [(0.0, 1.0), (1000.3, 1e-3), (2000.0, 0.01), (1e6, 10)]
)
@pytest.mark.parametrize("family", ["Normal", "Laplace", "full"])
def test_location_and_scale_far_from_zero(centre, scale, family):
    rng = np.random.default_rng(0)
    x, loc = (centre + scale * rng.standard_normal((2, 60))).astype(np.float32)
    spread = np.float32(scale)

    def exact(x, loc):
        z, log_scale = (x - loc) / EXACT(float(spread)), mpmath.log(EXACT(float(spread)))
        if family == "Laplace":
            return -abs(z) - log_scale - mpmath.log(2)
        return -(z**2) / 2 - log_scale - mpmath.log(2 * mpmath.pi) / 2

    if family == "full":
        distribution = tfp.FullNormal(loc[:, None], np.full((60, 1, 1), spread))
        found = distribution.log_prob(x[:, None]).numpy()
    else:
        likelihood = getattr(keras_vae, family)(1)
        found = likelihood.make_distribution(loc[:, None], spread).log_prob(x[:, None]).numpy()
    expected = exactly(exact, x, loc)
    assert np.max(np.abs(found - expected) / (1.0 + np.abs(expected))) <= UNITS * 2**-23


def test_divergence_of_normals_far_from_zero():
    q, p = tfp.Normal(2000.01, 0.01), tfp.Normal(2000.0, 0.02)
    shift = (float(np.float32(2000.01)) - 2000.0) / float(np.float32(0.02))
    expected = 0.5 * (0.25 + shift**2 - 1.0) - np.log(0.5)
    assert float(tfd.kl_divergence(q, p)) == pytest.approx(expected, rel=1e-6)


def test_many_certain_pixels_keep_their_digits():
    """Of 784 logits of size 15 the sum of x logits is 1e4, and log p is a few nats."""
    rng = np.random.default_rng(0)
    logits = (15.0 * rng.standard_normal((50, 784))).astype(np.float32)
    x = (rng.random((50, 784)) < scipy.special.expit(logits)).astype(np.float32)
    expected = -np.logaddexp(0.0, np.where(x > 0, -1.0, 1.0) * logits.astype(float)).sum(axis=1)
    found = tfp.IndependentBernoulli(tf.constant(logits), 1).log_prob(x).numpy()
    assert np.max(np.abs(found - expected) / (1.0 + np.abs(expected))) <= UNITS * 2**-23


@pytest.mark.parametrize("name", ["poisson 1e+06 0.001", "binomial 65535 1"])
def test_counts_in_onnx_runtime(name):
    make, *options = COUNTS[name]
    distribution, x, parameter, d, exact = make(*options, "float32")
    signature = Signature(
        "log_prob",
        lambda x, parameter: {"log_p": distribution(parameter).log_prob(x)},
        {key: tf.TensorSpec([None], tf.float32, key) for key in ("x", "parameter")},
        ("log_p",),
        "Log-probability.",
    )
    session = onnxruntime.InferenceSession(
        onnx_graphs.convert(signature).model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["log_p"], {"x": x, "parameter": parameter})
    expected = exactly(exact, x, parameter)
    scale = 1.0 + np.abs(expected) + np.abs(d) * (1.0 + np.abs(parameter))
    assert np.max(np.abs(found - expected) / scale) <= UNITS * 2**-23


def test_the_coefficients_of_stirlings_series():
    even = [mpmath.bernoulli(2 * k) / (2 * k * (2 * k - 1)) for k in range(1, len(STIRLING) + 1)]
    assert list(map(float, even)) == list(STIRLING)
