"""Trains the same models on one device and on two, and prints what came of it as JSON."""

import contextlib
import json

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae import data

X = (np.random.default_rng(0).random((45, 6)) < 0.3).astype("float32")
GREY = np.random.default_rng(1).random((45, 6)).astype("float32")
REAL = np.random.default_rng(2).normal(size=(45, 6)).astype("float32")


def stream():
    """Makes a stream of 45 = 5 * 8 + 5 rows, binarised each time; mixture prior, monitor."""
    vae = keras_vae.mlp_vae(6, 2, "bernoulli", hidden=(8,), prior="normal_mixture")
    vae.compile("adam", monitor=True)
    batches = data.batches(GREY, 8, epochs=2, seed=3, transform=data.binarize)
    return vae, batches, {"steps_per_epoch": 6}


def weighted():
    """Makes a training with several draws, weights, a regularizer and clipped norms; odd batch."""
    network = keras.layers.Dense(8, "tanh", kernel_regularizer=keras.regularizers.L2(0.1))
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6, network=network),
        posterior=keras_vae.FullCovarianceNormal(2, network=keras.layers.Dense(8, "tanh")),
    )
    vae.compile(keras.optimizers.SGD(0.1, global_clipnorm=0.5), keras_vae.IWAE(3))
    return vae, X, {"batch_size": 7, "sample_weight": np.linspace(0.0, 2.0, 45)}


def dataset():
    """Makes a training on a user's data set with a scale that follows the batches."""
    vae = keras_vae.mlp_vae(6, 2, "normal", hidden=(8,), scale="optimal")
    vae.compile("adam", steps_per_execution=2)
    return vae, tf.data.Dataset.from_tensor_slices(REAL).batch(9), {}


def train(make, strategy):
    """Logs, and weights before and after."""
    keras.utils.set_random_seed(1)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        vae, x, options = make()
    before = np.concatenate([weight.ravel() for weight in vae.get_weights()])
    validation = REAL if make is dataset else X
    logs = vae.fit(x, epochs=2, verbose=0, validation_data=validation[:9], **options).history
    after = np.concatenate([weight.ravel() for weight in vae.get_weights()])
    return {"logs": logs, "before": before.tolist(), "weights": after.tolist()}


def main():
    """Prints one line."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    found = {
        make.__name__: [train(make, None), train(make, strategy)]
        for make in (stream, weighted, dataset)
    }
    with strategy.scope():
        vae = keras_vae.mlp_vae(6, 2, "bernoulli", hidden=(8,))
    try:
        vae.compile(run_eagerly=True)
    except ValueError as error:
        found["refused"] = str(error)
    print(json.dumps(found, default=float))


if __name__ == "__main__":
    main()
