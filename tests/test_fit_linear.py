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
