"""A linear VAE trained by `fit` reaches the maximum of the likelihood, which is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae
from tests.models import digits, mean_and_error

BEST = 17.451947  # mean log p(x) of probabilistic PCA, held in test_linear_gaussian.py
EPOCHS, BATCH = 100, 100


@pytest.mark.parametrize("scale", ["learned", "optimal"])
def test_linear_vae_reaches_probabilistic_pca_and_no_more(scale):
    x = digits().astype("float32")
    steps = -(-len(x) // BATCH)
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(10),
        likelihood=keras_vae.Normal(64, scale=scale),
        posterior=keras_vae.DiagonalNormal(10),
    )
    rate = keras.optimizers.schedules.CosineDecay(0.02, EPOCHS * steps)
    vae.compile(keras.optimizers.Adam(rate), steps_per_execution=steps)
    history = vae.fit(x, epochs=EPOCHS, batch_size=BATCH, verbose=0).history

    mean, error = mean_and_error([tf.reduce_mean(vae.elbo(x, seed=s).elbo) for s in range(10)])
    assert BEST - 0.5 < mean <= BEST + error
    assert max(history["elbo"]) <= BEST + error
    np.testing.assert_allclose(history["loss"], -np.array(history["elbo"]), rtol=1e-6)  # float32

    exact = keras_vae.LinearGaussian.from_vae(vae)
    evidence = float(tf.reduce_mean(exact.log_prob(x)))
    assert mean - error <= evidence <= BEST
    assert exact.scale**2 == pytest.approx(0.02275137, rel=0.03)  # of the best noise variance


@pytest.mark.parametrize(
    ("family", "expected"), [("Normal", (0.1, 7.07)), ("Laplace", (0.08, 4.03))]
)
def test_optimal_scale_is_that_of_the_weighted_loss(family, expected):
    """Rows of weight 0 do not count: the scale is the deviation of the others."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.1, (1000, 4)), rng.normal(0, 10, (1000, 4))])
    weight = np.repeat([1.0, 0.0], 1000).astype("float32")
    found = []
    for sample_weight in (weight, None):
        vae = keras_vae.VAE(
            prior=keras_vae.StandardNormal(1),
            likelihood=getattr(keras_vae, family)(4, scale="optimal"),
            posterior=keras_vae.DiagonalNormal(1),
        )
        for weights in (*vae.likelihood.trainable_weights, *vae.posterior.trainable_weights):
            weights.assign(tf.zeros_like(weights))  # a decoder that knows the mean, 0, and no more
        vae.compile(keras.optimizers.SGD(0.0))
        vae.fit(
            x.astype("float32"),
            sample_weight=sample_weight,
            batch_size=50,
            epochs=10,
            verbose=0,
        )
        found.append(float(vae.likelihood.shared_parameters()["scale"]))
    assert found == pytest.approx(expected, rel=0.05)  # about 5 epochs of 2000 rows are remembered


def test_optimal_scale_is_the_weighted_mean_of_what_it_has_seen():
    rng = np.random.default_rng(0)
    likelihood = keras_vae.Normal((2, 3), scale="optimal", dtype="float64")
    distribution = likelihood.make_distribution(tf.zeros([1, 5, 2, 3], tf.float64), 1.0)
    x, weight = rng.normal(size=(3, 5, 2, 3)), rng.integers(0, 3, (3, 5)).astype(float)
    weight[0] = 0.0  # a batch that counts for nothing, before any other
    for batch, sample_weight in zip(x, weight, strict=True):
        likelihood.observe(tf.constant(batch), distribution, tf.constant(sample_weight))
    mass = weight * 0.99 ** np.arange(2, -1, -1)[:, None]
    expected = (mass * (x**2).mean(axis=(2, 3))).sum() / mass.sum()
    assert float(likelihood.deviation) == pytest.approx(expected, rel=1e-12)
