"""Small models and data that several tests share."""

from typing import Any

import keras
import numpy as np
import scipy.optimize
import tensorflow as tf

import keras_vae
from keras_vae.distributions.noise import from_seed

SEED = 20131220


def binary(n: int = 48, *shape: int) -> np.ndarray:
    """Draws binary data [n, *shape], of 6 features if no shape is given."""
    return (np.random.default_rng(0).random((n, *(shape or (6,)))) < 0.3).astype("float32")


def tiny_vae(likelihood: str = "bernoulli", shape: Any = 6, **kwargs: Any) -> keras_vae.VAE:
    """Makes a VAE of 2 latents with one hidden layer of 8 units."""
    return keras_vae.mlp_vae(shape, 2, likelihood, hidden=(8,), **kwargs)


def mixed_vae(latents: int = 2, label: str = "label", **encoder: Any) -> keras_vae.VAE:
    """Makes a VAE of a number, an image, a label and a count, all but the image possibly absent."""
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(latents),
        likelihood=keras_vae.Parts(
            {
                "age": keras_vae.Normal(1, scale="learned", missing=True),
                "image": keras_vae.Bernoulli((2, 2, 1), network=keras.layers.Dense(6, "tanh")),
                label: keras_vae.Categorical(3, missing=True),
                "visits": keras_vae.Poisson(1, missing=True),
            },
            network=keras.layers.Dense(6, "tanh"),
        ),
        posterior=keras_vae.DiagonalNormal(
            latents,
            network=keras_vae.PartsEncoder(
                keras.layers.Dense(6, "tanh"), complete=["image"], **encoder
            ),
        ),
    )


def labelled_vae() -> keras_vae.SemiSupervisedVAE:
    """Makes a model of two columns that may be absent, and of one of three labels."""

    def join(size: int) -> keras.Model:
        return keras_vae.networks.mlp((size,), (6,), condition_shape=(3,))

    return keras_vae.SemiSupervisedVAE(
        num_classes=3,
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Parts(
            {
                "age": keras_vae.Normal(1, scale="learned", missing=True),
                "visits": keras_vae.Poisson(1, missing=True),
            },
            network=join(2),
        ),
        posterior=keras_vae.DiagonalNormal(2, network=join(4)),
        classifier=keras_vae.PartsEncoder(keras.layers.Dense(6, "tanh")),
        trunk=keras_vae.PartsEncoder(keras.layers.Dense(4, "tanh")),
    )


def mixed_data(count: int) -> dict[str, np.ndarray]:
    """Draws data for `mixed_vae`, a third of it absent where it may be."""
    rng = np.random.default_rng(0)
    x = {
        "age": rng.normal(size=(count, 1)),
        "image": rng.integers(0, 2, (count, 2, 2, 1)).astype("float32"),
        "label": np.eye(3)[rng.integers(0, 3, count)],
        "visits": rng.poisson(3.0, (count, 1)).astype("float64"),
    }
    for name in ("age", "label", "visits"):
        x[name][rng.random(count) < 1 / 3] = np.nan
    return x


def compiled(vae: keras_vae.VAE, objective: Any = None, **kwargs: Any) -> keras_vae.VAE:
    """Compiles the model to run eagerly, which is far faster than tracing for a few steps."""
    kwargs = {"optimizer": "sgd", "run_eagerly": True, **kwargs}
    vae.compile(objective=objective, **kwargs)
    return vae


def linear_gaussian(
    size: int = 5, latents: int = 3, scale: float = 0.7
) -> keras_vae.LinearGaussian:
    """Makes a linear-Gaussian model in float64 whose posterior is correlated."""
    rng = np.random.default_rng(1)
    return keras_vae.LinearGaussian(rng.normal(size=(size, latents)), rng.normal(size=size), scale)


def digits() -> np.ndarray:
    """Loads the handwritten digits of scikit-learn, [1797, 64], divided by 16."""
    from sklearn.datasets import load_digits

    return load_digits().data / 16.0


def gradient(
    vae: keras_vae.VAE, objective: keras_vae.Objective, x: Any, seed: int, weights: Any = None
) -> np.ndarray:
    """Computes the flat gradient of the mean loss over x, by default for the posterior."""
    weights = vae.posterior.trainable_weights if weights is None else weights
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(terms_of(vae, objective, x, seed).loss)
    return flat(tape.gradient(loss, weights))


def terms_of(
    vae: keras_vae.VAE, objective: keras_vae.Objective, x: Any, seed: int, **kwargs: Any
) -> Any:
    """Computes the terms of an objective on a batch, with noise from the seed pair [seed, 0]."""
    noise = from_seed(
        objective.noise(vae),
        tf.constant([seed, 0]),
        [objective.num_samples, len(tf.nest.flatten(x)[0])],
        vae.float_dtype,
    )
    return objective.terms(vae.infer(x, **kwargs), noise)


def flat(tensors: Any) -> np.ndarray:
    """Joins all numbers of some tensors in one vector."""
    return np.concatenate([np.reshape(keras.ops.convert_to_numpy(part), -1) for part in tensors])


def mean_and_error(draws: Any) -> tuple[np.ndarray, np.ndarray]:
    """Computes the mean over axis 0 and its standard error."""
    draws = np.asarray(draws)
    return draws.mean(0), draws.std(0, ddof=1) / np.sqrt(len(draws))


ORDERED = {"batch_size": 16, "shuffle": False, "verbose": 0}


def again(make: Any = tiny_vae, *args: Any, **kwargs: Any) -> keras_vae.VAE:
    """Makes the compiled model with the same initial weights and random states at every call."""
    keras.utils.set_random_seed(SEED)
    return compiled(make(*args, **kwargs))


def assert_same_weights(a: keras_vae.VAE, b: keras_vae.VAE) -> None:
    """Asserts that all weights are equal to the last bit."""
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


class Batches(keras.utils.PyDataset):
    """The rows of an array or data frame in batches of 16."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.x[16 * index : 16 * index + 16]


def maximise(layer, c, x):
    """Maximises the mean log-likelihood of a layer by BFGS with its gradients; returns it."""
    if not layer.built:
        layer.build([part.shape for part in c] if isinstance(c, list) else c.shape)
    weights = layer.trainable_weights
    sizes = [int(np.prod(weight.shape)) for weight in weights]

    def assign(flat):
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        for weight, part in zip(weights, parts, strict=True):
            weight.assign(part.reshape(weight.shape))

    @tf.function
    def slopes():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(layer.distribution(c).log_prob(x))
        return loss, tape.gradient(loss, [weight.value for weight in weights])

    def loss(flat):
        assign(flat)
        value, gradients = slopes()
        return float(value), np.concatenate([np.ravel(each) for each in gradients])

    start = np.concatenate([np.ravel(weight) for weight in weights])
    best = scipy.optimize.minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-8})
    assign(best.x)
    return -best.fun
