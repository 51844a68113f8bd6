"""Quadrature finds the mode that matters, or says that it may not have."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import keras_vae
from keras_vae.evaluation import log_marginal
from keras_vae.evaluation.quadrature import _Overview

ROUNDING = 1e-6  # values to 1e4 in float64, and refinements that stop below 1e-6


def tanh_vae(seed: int) -> tuple[keras_vae.VAE, np.ndarray]:
    """Makes a random decoder of 1 latent that has hundreds of modes for foreign data."""
    rng = np.random.default_rng(seed)
    policy = {"dtype": "float64"}
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(1, **policy),
        likelihood=keras_vae.Normal(
            20, keras.layers.Dense(30, "tanh", **policy), scale=0.15, **policy
        ),
        posterior=keras_vae.DiagonalNormal(1, **policy),
        **policy,
    )
    for weight in vae.likelihood.trainable_weights:
        weight.assign(1.5 * rng.normal(size=weight.shape))
    return vae, np.concatenate([vae.sample(2, seed=seed), 3.0 * rng.normal(size=(5, 20))])


def by_a_dense_grid(vae: keras_vae.VAE, x: np.ndarray) -> np.ndarray:
    z = np.linspace(-30.0, 30.0, 300_001)
    mean = vae.decode(z[:, None]).mean().numpy()
    log_prior = stats.norm.logpdf(z)
    constant = -20 * np.log(0.15) - 10 * np.log(2 * np.pi) + np.log(z[1] - z[0])
    return np.array(
        [
            np.logaddexp.reduce(log_prior - 0.5 * ((row - mean) ** 2).sum(1) / 0.15**2) + constant
            for row in x
        ]
    )


def checked(vae: keras_vae.VAE, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = log_marginal(vae, x, "quadrature")
    assert all("Quadrature is not reliable" in str(warning.message) for warning in caught)
    return found.value, found.standard_error, bool(caught)


def test_the_mode_that_matters_is_found(monkeypatch):
    missed = []
    for seed in range(4):
        vae, x = tanh_vae(seed)
        truth = by_a_dense_grid(vae, x)
        value, error, _ = checked(vae, x)
        assert np.all(np.abs(value - truth) <= error + ROUNDING)
        assert np.max(error) < 0.01
        with monkeypatch.context() as without:
            without.setattr(
                _Overview, "outside", lambda _, seen, *__: np.full(seen.shape[1], -np.inf)
            )
            missed.append(np.abs(checked(vae, x)[0] - truth).max())
    # Without the overview refinements agree with each other on a wrong value.
    assert max(missed) > 10.0


@keras.saving.register_keras_serializable()
class Folded(keras.layers.Layer):
    """The decoder (z_1, z_2) -> (z_1^2, z_2), of which every x has two posterior modes."""

    def call(self, z):
        return tf.concat([z[..., :1] ** 2, z[..., 1:]], axis=-1)


@pytest.mark.parametrize("square", [1.0, 9.0, 16.0])
def test_two_modes_are_counted_or_warned_about(square):
    policy = {"dtype": "float64"}
    likelihood = keras_vae.Normal(2, Folded(**policy), scale=0.1, **policy)
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2, **policy),
        likelihood=likelihood,
        posterior=keras_vae.DiagonalNormal(2, **policy),
        **policy,
    )
    likelihood.head.set_weights([np.eye(2), np.zeros(2)])
    z = np.linspace(-9.0, 9.0, 900_001)
    log_joint = stats.norm.logpdf(z) + stats.norm.logpdf(square, z**2, 0.1)
    truth = np.logaddexp.reduce(log_joint) + np.log(z[1] - z[0])
    truth += stats.norm.logpdf(0.5, 0.0, np.hypot(1.0, 0.1))
    value, error, warned = checked(vae, np.array([[square, 0.5]]))
    # A grid over both modes may be too coarse for either; its error then is a size and no bound.
    assert abs(value[0] - truth) <= (3.0 if warned else 1.0) * error[0] + ROUNDING
    assert warned == (error[0] > 1e-4)


def test_conditions_are_seen_by_the_overview():
    vae = keras_vae.mlp_vae(3, 2, "normal", hidden=(4,), condition_shape=2)
    rng = np.random.default_rng(0)
    x = {"x": rng.normal(size=(5, 3)), "condition": rng.normal(size=(5, 2))}
    grid = log_marginal(vae, x, "quadrature")
    drawn = log_marginal(vae, x, "prior", num_samples=4000)
    assert np.all(np.abs(grid.value - drawn.value) <= 4.0 * drawn.standard_error)
