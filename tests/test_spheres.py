"""Latents on the sphere against SciPy, Bessel functions of many digits, and integrals."""

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf
from models import binary, tiny_vae

import keras_vae
from keras_vae import evaluation, random
from keras_vae.distributions.noise import from_rows
from keras_vae.distributions.spheres.concentration import log_area, peak
from keras_vae.distributions.tfp import tfd
from keras_vae.signatures import signatures

SIZES = (2, 3, 5, 20, 100)
CONCENTRATIONS = (1e-3, 0.5, 3.0, 30.0, 1e3, 1e5)
sizes = pytest.mark.parametrize("size", SIZES)


def exact_peak(k, size):
    """k - M(k) and 1 - A(k) of the concentration, in 40 digits."""
    with mpmath.workdps(40):
        k, order = mpmath.mpf(float(k)), mpmath.mpf(size) / 2 - 1
        bessel = [mpmath.besseli(order + step, k) for step in (0, 1)]
        log_mean = mpmath.loggamma(order + 1) - order * mpmath.log(k / 2) + mpmath.log(bessel[0])
        return float(k - log_mean), float(1 - bessel[1] / bessel[0])


@sizes
def test_peak_and_its_derivative_are_those_of_bessel_functions(size):
    # Measured: 8e-13 in float64; in float32 a few units in the last place.
    for dtype, tolerance in (("float64", 2e-12), ("float32", 6e-6)):
        k = tf.constant(CONCENTRATIONS, dtype)
        with tf.GradientTape() as tape:
            tape.watch(k)
            found = peak(k, size)
        exact = np.array([exact_peak(each, size) for each in k.numpy()]).T
        np.testing.assert_allclose(found.log_density, exact[0], rtol=tolerance)
        np.testing.assert_allclose(found.shortfall, exact[1], rtol=tolerance)
        slope = tape.gradient(found.log_density, k)
        np.testing.assert_allclose(slope, exact[1], rtol=10 * tolerance)


def density(k, size):
    """Unnormalised density of the angle, at most 1 in size where k is large."""
    return lambda a: np.exp(-2 * k * np.sin(a / 2) ** 2) * np.sin(a) ** (size - 2)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_density_is_that_of_scipy_and_the_rate_its_integral(size):
    layer, prior = (kind(size, dtype="float64") for kind in (OF["posterior"], OF["prior"]))
    rng = np.random.default_rng(0)
    loc = rng.normal(size=(3, size))
    loc /= np.linalg.norm(loc, axis=1, keepdims=True)
    z = np.concatenate([prior.draw_rows(random.row_seeds(0, 20)), loc[:1], -loc[:1]])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    area = scipy.special.gamma(size / 2) / (2 * np.pi ** (size / 2))
    np.testing.assert_allclose(prior(z), np.full(len(z), np.log(area)), rtol=1e-12)
    np.testing.assert_allclose(prior.log_density(z), prior(z), rtol=1e-12)
    for k in (1e-3, 0.5, 3.0, 30.0, 300.0):
        q = layer.make_distribution(loc, np.full((3, 1), k))
        for mu in loc:
            own = layer.make_distribution(mu, np.full(1, k))
            expected = scipy.stats.vonmises_fisher(mu, k).logpdf(z)
            # SciPy keeps 1e-12 of k, which its normaliser is scaled by.
            np.testing.assert_allclose(own.log_prob(z), expected, rtol=1e-10, atol=1e-10)
        total = scipy.integrate.quad(density(k, size), 0, np.pi, epsabs=0, epsrel=1e-12)[0]
        uniform = scipy.integrate.quad(density(0.0, size), 0, np.pi, epsabs=0, epsrel=1e-12)[0]

        log_ratio = np.log(uniform / total)

        def integrand(a, k=k, log_ratio=log_ratio, total=total):
            return density(k, size)(a) / total * (log_ratio - 2 * k * np.sin(a / 2) ** 2)

        rate = scipy.integrate.quad(integrand, 0, np.pi, epsabs=1e-13, epsrel=1e-12)[0]
        closed = tfd.kl_divergence(q, prior.distribution())
        np.testing.assert_allclose(closed, np.full(3, rate), atol=1e-10)


OF = {"posterior": keras_vae.VonMisesFisher, "prior": keras_vae.UniformSphere}


@sizes
def test_rate_and_its_gradient_in_float32(size):
    k = tf.constant(CONCENTRATIONS)[:, tf.newaxis]
    loc = tf.one_hot([0] * len(CONCENTRATIONS), size)
    with tf.GradientTape() as tape:
        tape.watch(k)
        q = OF["posterior"](size).make_distribution(loc, k)
        rate = tfd.kl_divergence(q, OF["prior"](size).distribution())
    slope = tape.gradient(rate, k)[:, 0].numpy()
    for found, gradient, each in zip(
        rate.numpy(), slope, k[:, 0].numpy().astype(float), strict=True
    ):
        log_density, shortfall = exact_peak(each, size)
        # Two numbers of the size of k are subtracted, if it is small.
        np.testing.assert_allclose(
            found, log_density - each * shortfall, rtol=2e-5, atol=1e-5 * min(each, 1.0)
        )
        with mpmath.workdps(40):
            at, order = mpmath.mpf(each), mpmath.mpf(size) / 2 - 1
            mean = mpmath.besseli(order + 1, at) / mpmath.besseli(order, at)
            exact = float(at * (1 - mean**2 - (size - 1) / at * mean))
        np.testing.assert_allclose(gradient, exact, rtol=1e-4, atol=1e-6)


@sizes
def test_large_concentrations_are_points_and_overflow_nothing(size):
    """Laplace's method: I_v(k) is exp(k) / sqrt(2 pi k) up to terms of 1 / k."""
    k = np.array([1e12, 1e19, 1e25, 1e36], np.float32)
    order = size / 2 - 1
    exact = 0.5 * np.log(2 * np.pi * k.astype(float)) + order * np.log(k.astype(float) / 2)
    exact -= scipy.special.gammaln(order + 1)
    loc, given = tf.one_hot([0] * len(k), size), tf.constant(k)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(given)
        q = OF["posterior"](size).make_distribution(loc, given[:, tf.newaxis])
        rate = tfd.kl_divergence(q, OF["prior"](size).distribution())
        peak_of = peak(given, size).log_density
        z = q.sample(20, seed=1)
    np.testing.assert_allclose(peak_of, exact, rtol=2e-6)
    np.testing.assert_allclose(rate, exact - 0.5 * (size - 1), rtol=2e-6)
    # The slopes of some terms nearly cancel in float32.
    np.testing.assert_allclose(tape.gradient(peak_of, given), 0.5 * (size - 1) / k, rtol=1e-4)
    np.testing.assert_allclose(tape.gradient(rate, given), 0.5 * (size - 1) / k, atol=1e-12)
    # Nine standard deviations of 1e-6 in each direction.
    assert np.abs(z - loc).max() < 1e-5
    assert np.isfinite(tape.gradient(z, given)).all()
    assert np.isfinite(q.log_prob(loc)).all()


def test_concentration_zero_is_uniform():
    q = OF["posterior"](4).make_distribution(tf.one_hot([1], 4), tf.zeros([1, 1]))
    p = OF["prior"](4).distribution()
    z = p.sample(50, seed=1)
    np.testing.assert_allclose(q.log_prob(z[:, tf.newaxis])[:, 0], p.log_prob(z), rtol=1e-6)
    assert abs(float(tfd.kl_divergence(q, p)[0])) < 1e-6  # float32


@pytest.mark.parametrize("size", [2, 4, 30])
def test_angles_are_quantiles_and_move_with_the_concentration(size):
    u = np.concatenate([[2.0**-24], (np.arange(200) + 0.5) / 200, [1 - 2.0**-24]]).astype("float32")
    for k in (0.1, 4.0, 300.0):
        k32 = tf.constant(k)
        with tf.GradientTape() as tape:
            tape.watch(k32)
            each = tf.broadcast_to(k32, u.shape)
            tape.watch(each)
            angle = random.polar_angle(u, each, size)
        slope = tape.gradient(angle, each).numpy()
        grid = np.linspace(0.0, np.pi, 40001)

        def cdf(k, at, grid=grid):
            cumulative = scipy.integrate.cumulative_simpson(density(k, size)(grid), x=grid)
            cumulative = np.concatenate([[0.0], cumulative])
            return np.interp(at, grid, cumulative / cumulative[-1])

        at = angle.numpy().astype("float64")
        # 4e-6 of the draw, and 2e-6 of the linear interpolation.
        np.testing.assert_allclose(cdf(k, at), u, atol=6e-6)
        # Of third order in a change of k by a hundredth.
        before, after = (cdf((1 + h) * k, at + h * k * slope) for h in (-0.01, 0.01))
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_draws_turn_to_the_mean_direction_and_their_gradient_is_exact():
    layer, k, count = OF["posterior"](5), 6.0, 40_000
    loc = tf.constant([[-0.5, 0.1, 0.3, -0.2, np.sqrt(1 - 0.39)]], "float32")
    noise = from_rows(layer.noise(), random.row_seeds(3, count))
    concentration = tf.constant([[k]])
    with tf.GradientTape() as tape:
        tape.watch(concentration)
        z = layer.draw(noise, loc, concentration).value
        cosine = tf.reduce_mean(tf.reduce_sum(z * loc, axis=-1))
    np.testing.assert_allclose(tf.norm(z, axis=-1), 1.0, atol=1e-6)
    mean, deviation = np.mean(z, axis=0), np.std(z, axis=0) / np.sqrt(count)
    exact = 1.0 - exact_peak(k, 5)[1]
    assert np.all(np.abs(mean - exact * loc[0]) < 5 * deviation)  # 1 in 10^6
    tangent = z - tf.reduce_sum(z * loc, -1, keepdims=True) * loc
    other = (
        np.linalg.svd(loc)[2][1:] @ (tangent / tf.norm(tangent, axis=-1, keepdims=True)).numpy().T
    )
    for row in other:  # a coordinate of a direction in four dimensions
        assert scipy.stats.kstest((1 + row) / 2, scipy.stats.beta(1.5, 1.5).cdf).pvalue > 1e-6
    slope = float(tape.gradient(cosine, concentration)[0, 0])
    expected = 1.0 - exact**2 - 4.0 / k * exact
    assert abs(slope - expected) < 0.02 * expected  # of 40,000 draws
    plain = layer.make_distribution(loc, concentration).sample(count, seed=4)[:, 0]
    assert np.all(np.abs(np.mean(plain, axis=0) - exact * loc[0]) < 5 * deviation)


def test_bound_is_below_the_evidence_on_the_circle():
    vae, x = tiny_vae(posterior="von_mises_fisher", prior="uniform_sphere"), binary(3)
    turn = np.linspace(0.0, 2 * np.pi, 256, endpoint=False)
    grid = np.stack([np.cos(turn), np.sin(turn)], axis=-1)[:, np.newaxis].astype("float32")
    log_joint = vae.log_joint(x, np.repeat(grid, len(x), axis=1)).numpy().astype("float64")
    evidence = scipy.special.logsumexp(log_joint, axis=0) + np.log(2 * np.pi / len(turn))
    drawn = vae.elbo(np.tile(x, (200, 1)), seed=1).elbo.numpy()
    assert np.all(drawn.reshape(200, len(x)).mean(axis=0) < evidence)
    found = evaluation.log_marginal(vae, x, num_samples=500)
    assert np.all(np.abs(found.value - evidence) < 5 * found.standard_error + 1e-5)
    np.testing.assert_allclose(tf.norm(vae.encode(x).sample(seed=0), axis=-1), 1.0, atol=1e-6)
    assert np.all(np.isfinite(vae.reconstruct(x)))
    moments = evaluation.posterior_moments(vae, x, num_samples=2000)
    np.testing.assert_allclose(moments[0], vae.encode(x).mean(), atol=0.1)  # of 2000 draws


@pytest.mark.parametrize(
    "objective",
    [
        lambda: keras_vae.ELBO(gradient="sticking_the_landing"),
        lambda: keras_vae.IWAE(3, gradient="doubly_reparameterized"),
    ],
)
def test_every_gradient_estimator_takes_it(objective):
    vae = tiny_vae(posterior="von_mises_fisher", prior="uniform_sphere")
    vae.compile("adam", objective())
    assert np.isfinite(vae.fit(binary(32), verbose=0).history["elbo"][0])


def test_decode_takes_a_vector_for_its_direction():
    """In Python and in the signature alike; the first axis stands for 0."""
    vae = tiny_vae(posterior="von_mises_fisher", prior="uniform_sphere")
    size = vae.latent_size
    z = tf.constant(np.random.default_rng(3).normal(size=(4, size)), tf.float32)
    unit = tf.linalg.normalize(z, axis=-1)[0]
    first = tf.one_hot([0], size)
    asked = tf.concat([unit, z, 1e30 * z, tf.zeros([1, size])], axis=0)
    expected = tf.concat([unit, unit, unit, first], axis=0)
    decode = signatures(vae)["decode"].function
    whole = vae.likelihood.distribution(expected).mean()
    for found in (vae.decode(asked).mean(), decode(z=asked)["mean"]):
        np.testing.assert_array_equal(found[:4], whole[:4])
        np.testing.assert_allclose(found, whole, rtol=1e-5)  # of a length in float32


def test_what_needs_all_vectors_refuses_unit_vectors():
    sphere, plain = keras_vae.VonMisesFisher(2), keras_vae.DiagonalNormal(2)
    likelihood = keras_vae.Bernoulli(3)
    with pytest.raises(ValueError, match="choose the prior UniformSphere"):
        keras_vae.VAE(prior=keras_vae.StandardNormal(2), likelihood=likelihood, posterior=sphere)
    with pytest.raises(ValueError, match="choose the posterior VonMisesFisher"):
        keras_vae.VAE(prior=keras_vae.UniformSphere(2), likelihood=likelihood, posterior=plain)
    vae = keras_vae.VAE(prior=keras_vae.UniformSphere(2), likelihood=likelihood, posterior=sphere)
    x = np.zeros([2, 3])
    for method in ("annealed", "quadrature"):
        with pytest.raises(ValueError, match="length 1"):
            evaluation.log_marginal(vae, x, method, num_samples=4)
    for kind in OF.values():
        with pytest.raises(ValueError, match="at least 2"):
            kind(1)


def test_area_of_circle_and_sphere():
    np.testing.assert_allclose(np.exp([log_area(2), log_area(3)]), [2 * np.pi, 4 * np.pi])
