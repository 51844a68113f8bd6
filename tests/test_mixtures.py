"""A posterior that is a mixture of normals: density, implicit gradient, bound and estimators."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from models import binary, tiny_vae

import keras_vae
from keras_vae import evaluation, random
from keras_vae.distributions.noise import from_rows

K, L = 3, 2


def parameters(dtype="float64"):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(K, 3.0), 1)
    loc, scale = rng.normal(size=(1, K, L)), 0.5 + rng.random((1, K, L))
    return {
        "weights": tf.constant(weights, dtype),
        "loc": tf.constant(loc, dtype),
        "scale": tf.constant(scale, dtype),
    }


def distribution_functions(z, weights, loc, scale):
    """P(z_1) and P(z_2 given z_1) of the mixture, by SciPy."""
    first = scipy.stats.norm(loc[:, :, 0], scale[:, :, 0])
    second = scipy.stats.norm(loc[:, :, 1], scale[:, :, 1])
    share = weights * first.pdf(z[:, :1])
    share /= share.sum(axis=1, keepdims=True)
    values = (weights * first.cdf(z[:, :1])).sum(1), (share * second.cdf(z[:, 1:])).sum(1)
    return np.stack(values, axis=1)


def test_density_and_gradient_hold_the_distribution_functions():
    layer = keras_vae.NormalMixturePosterior(L, num_components=K, dtype="float64")
    own = parameters()
    noise = from_rows(layer.noise(), random.row_seeds(1, 200), dtype="float64")
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(own)
        each = {key: tf.repeat(value, 200, axis=0) for key, value in own.items()}
        tape.watch(each)
        z = layer.draw(noise, **each).value
        parts = [z[:, j] for j in range(L)]
    at = {key: value.numpy() for key, value in each.items()}
    entries = scipy.stats.norm(at["loc"], at["scale"]).logpdf(z.numpy()[:, None])
    expected = scipy.special.logsumexp(np.log(at["weights"]) + entries.sum(-1), axis=1)
    np.testing.assert_allclose(layer.make_distribution(**own).log_prob(z), expected, atol=1e-12)
    rng, step = np.random.default_rng(2), 1e-5
    change = {key: rng.normal(size=value.shape) for key, value in own.items()}
    change["weights"] -= change["weights"].mean()  # the weights still sum to 1
    dz = np.zeros([200, L])
    for j, part in enumerate(parts):
        gradients = tape.gradient(part, each)
        dz[:, j] = sum(
            (gradients[key].numpy() * change[key]).reshape(200, -1).sum(1) for key in own
        )
    before, after = (
        distribution_functions(
            z.numpy() + side * step * dz,
            *(at[key] + side * step * change[key] for key in ("weights", "loc", "scale")),
        )
        for side in (-1.0, 1.0)
    )
    # A central difference of step 1e-5: of third order, and 1e-16 / 1e-5 of rounding.
    np.testing.assert_allclose(after, before, atol=1e-9)


def test_gradient_of_an_expectation_is_unbiased():
    layer, own = keras_vae.NormalMixturePosterior(L, num_components=K), parameters("float32")
    noise = from_rows(layer.noise(), random.row_seeds(1, 20_000))
    with tf.GradientTape() as tape:
        tape.watch(own)
        each = {key: tf.repeat(value, 20_000, axis=0) for key, value in own.items()}
        tape.watch(each)
        z = layer.draw(noise, **each).value
        total = tf.reduce_sum(tf.square(z[:, 0]) + z[:, 0] * z[:, 1])
    found = tape.gradient(total, each)
    loc, scale, weights = (own[key].numpy()[0] for key in ("loc", "scale", "weights"))
    moment = loc[:, 0] ** 2 + scale[:, 0] ** 2 + loc[:, 0] * loc[:, 1]
    exact = {
        "loc": weights[:, None] * np.stack([2 * loc[:, 0] + loc[:, 1], loc[:, 0]], axis=1),
        "scale": weights[:, None] * np.stack([2 * scale[:, 0], 0 * scale[:, 0]], axis=1),
        "weights": moment - moment.mean(),
    }
    for key, expected in exact.items():
        sample = found[key].numpy().astype("float64")
        if key == "weights":  # along directions in which they still sum to 1
            sample -= sample.mean(axis=1, keepdims=True)
        error = sample.std(axis=0) / np.sqrt(len(sample))
        assert np.all(np.abs(sample.mean(axis=0) - expected) < 5 * error)  # 1 in 10^6


def test_bound_is_below_the_evidence_and_every_estimator_trains():
    vae, x = tiny_vae(posterior="normal_mixture"), binary(3)
    evidence = evaluation.log_marginal(vae, x, "quadrature").value
    drawn = vae.elbo(np.tile(x, (300, 1)), seed=1).elbo.numpy().reshape(300, -1)
    assert np.all(drawn.mean(axis=0) < evidence)
    found = evaluation.log_marginal(vae, x, num_samples=500)
    assert np.all(np.abs(found.value - evidence) < 5 * found.standard_error + 1e-4)
    for objective in (
        keras_vae.IWAE(3, gradient="doubly_reparameterized"),
        keras_vae.ELBO(gradient="sticking_the_landing"),
    ):
        vae.compile("adam", objective)
        assert np.isfinite(vae.fit(binary(16), verbose=0).history["elbo"][0])
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(vae.posterior)
    )
    assert again.num_components == vae.posterior.num_components
    with pytest.raises(ValueError, match="NormalMixturePosterior"):
        evaluation.diagnose(vae, x)


def test_two_modes_that_one_normal_cannot_hold():
    """x = z^2 plus noise: given x = 1, z lies near either root."""
    x, bound = np.full([64, 1], 1.0, "float32"), {}
    for posterior, bias in (
        (keras_vae.DiagonalNormal(1), [0.9, -1.0]),
        (keras_vae.NormalMixturePosterior(1, num_components=2), [0, 0, -0.9, 0.9, -1, -1]),
    ):
        keras.utils.set_random_seed(0)
        square = keras.layers.Lambda(lambda z: z**2, output_shape=(1,))
        head = keras.layers.Identity()
        vae = keras_vae.VAE(
            prior=keras_vae.StandardNormal(1),
            likelihood=keras_vae.Normal(1, scale=0.3, network=square, head=head),
            posterior=posterior,
        )
        posterior.head.set_weights([np.zeros([1, len(bias)]), np.array(bias)])
        vae.compile(keras.optimizers.Adam(0.05), keras_vae.ELBO(num_samples=16))
        vae.fit(x, epochs=80, batch_size=64, verbose=0)
        bound[type(posterior)] = vae.elbo(x, seed=0, num_samples=100).elbo.numpy().mean()
    normal, mixture = bound.values()
    # log p(x) = -1.3346. A normal loses log 2 with one of two modes, and 0.03 more; the mixture
    # loses 0.04 after 400 steps, and these are 80.
    assert normal < -1.3346 - 0.69
    assert -1.3346 - 0.3 < mixture < -1.3346
