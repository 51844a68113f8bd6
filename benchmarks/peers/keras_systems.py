"""`fit` of keras_vae, and the pattern of the well-known Keras example."""

import math
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from benchmarks.peers.cases import (
    CODES,
    Case,
    Layer,
    all_weights,
    checks,
    held_out_loss,
    initial_weights,
)
from benchmarks.peers.worker import Gate
from keras_vae.data import batches, binarize
from keras_vae.distributions.noise import from_seed
from keras_vae.training.step import draw_noise, train_on

_FOREVER = 1_000_000


def versions() -> dict[str, str]:
    """Versions and settings."""
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "keras_vae": keras_vae.__version__,
        "threads": f"{tf.config.threading.get_intra_op_parallelism_threads() or 'all'}",
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "TensorFlow's default"),
    }


class _Epochs(keras.callbacks.Callback):
    """The gate, as a callback of epochs: it asks for no call per batch."""

    def __init__(self, case: Case, gate: Gate, loss) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.case, self.gate, self.loss = case, gate, loss

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Waits."""
        self.gate.begin()
        if self.case.decay:
            self.model.optimizer.learning_rate = self.case.rate(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Reports."""
        self.gate.end(self.loss)


def model(case: Case) -> Any:
    """The case's model with its initial weights."""
    if case.model == "ladder":
        vae: Any = keras_vae.hierarchical_vae(
            case.event_shape, case.levels, case.likelihood, structure="ladder", hidden=case.hidden
        )
    elif case.model == "codes":
        vae = keras_vae.vq_vae(
            case.event_shape, case.likelihood, codes=CODES, hidden=case.hidden, scale="optimal"
        )
    else:
        make = keras_vae.conv_vae if case.convolutional else keras_vae.mlp_vae
        sizes = {"filters" if case.convolutional else "hidden": case.hidden}
        prior = "flow" if case.model == "flow" else "standard_normal"
        vae = make(case.event_shape, case.latent_size, case.likelihood, prior=prior, **sizes)
    weights, arrays = _weights(case, vae), all_weights(case)
    for name, own in weights.items():
        given = [array for pair in arrays.pop(name) for array in pair]
        for weight, array in zip(own, given, strict=True):
            weight.assign(array)
    count = sum(map(len, weights.values()))
    if arrays or count != len(vae.trainable_weights):
        raise RuntimeError(f"{case.name}: {count} of {len(vae.trainable_weights)} weights copied.")
    return vae


def _weights(case: Case, vae: Any) -> dict[str, list[keras.Variable]]:
    """The trainable weights of each network of a case by its name."""
    found = {}
    if case.model == "ladder":
        above = vae.encoder.trainable_weights
        each = 2 * len(case.hidden)
        for index, level in enumerate(range(len(case.levels), 0, -1)):
            found[f"up_{level}"] = above[index * each : (index + 1) * each]
        for level, block in enumerate(vae.blocks.values(), 1):
            found[f"q_{level}"] = block.posterior.trainable_weights
            found[f"p_{level}"] = block.prior.trainable_weights
            found[f"down_{level}"] = block.network.trainable_weights
        del found["p_1"]
        return {**found, "decoder": vae.likelihood.trainable_weights}
    for name, distribution in (("encoder", vae.posterior), ("decoder", vae.likelihood)):
        network, head = (
            part.trainable_weights for part in (distribution.network, distribution.head)
        )
        if case.model == "codes" and name == "encoder":
            found |= {"encoder": network, "features": head}
        else:
            found[name] = [*network, *head]
    if case.model == "flow":
        own = vae.prior.trainable_weights
        each = len(own) // vae.prior.steps.num_layers
        for index in range(vae.prior.steps.num_layers):
            found[f"coupling_{index}"] = own[index * each : (index + 1) * each]
    return found


def _objective(case: Case) -> keras_vae.ELBO | keras_vae.IWAE:
    return keras_vae.ELBO() if case.num_samples == 1 else keras_vae.IWAE(case.num_samples)


def fit(case: Case, x: np.ndarray, gate: Gate) -> None:
    """`compile` and `fit`, as in the README."""
    keras.utils.set_random_seed(case.seed)
    vae = model(case)
    x, checked = case.split(x)

    def loss(measured: Case, x: np.ndarray, seed: int) -> float:
        objective = _objective(measured)
        shape = [measured.num_samples, len(x)]
        noise = from_seed(objective.noise(vae), tf.constant([seed, 0]), shape, vae.float_dtype)
        terms = objective.terms(vae.infer(tf.constant(x)), noise)
        return float(tf.reduce_mean(terms.loss))

    epochs = _Epochs(case, gate, lambda: held_out_loss(case, loss, checked))
    vae.compile(keras.optimizers.Adam(case.learning_rate), _objective(case))
    how: dict[str, Any] = {"epochs": _FOREVER, "verbose": 0, "callbacks": [epochs]}
    if case.binarise:
        stream = batches(x, case.batch, epochs=_FOREVER, seed=case.seed, transform=binarize)
        vae.fit(stream, steps_per_epoch=case.steps, shuffle=False, **how)
    else:
        vae.fit(x, batch_size=case.batch, **how)


def same(case: Case, x: np.ndarray, gate: Gate) -> None:
    """The losses of a few steps on copied noise."""
    vae, losses = model(case), []
    vae.compile(keras.optimizers.Adam(case.learning_rate), _objective(case))
    for batch, given in checks(case, x):
        noise = draw_noise(vae, tf.constant([0, 0]), case.batch)
        if given:
            noise = dict(zip(noise, map(tf.constant, given), strict=True))
        vae.reset_metrics()
        losses.append(float(train_on(vae, tf.constant(batch), noise)["loss"]))
    gate.begin()
    gate.end(lambda: losses)


def evidence(case: Case, x: np.ndarray, gate: Gate) -> None:
    """`evaluation.log_marginal` by importance sampling."""
    vae = model(case)
    while True:
        gate.begin()
        value = keras_vae.evaluation.log_marginal(vae, x, num_samples=case.num_samples).value
        gate.end(lambda value=value: -float(np.mean(value)))


class _Example(keras.Model):
    """An encoder, a decoder and a train_step, as tutorials write it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.encoder = _network(case.encoder, case, (*case.event_shape,), seed=1)
        self.decoder = _network(case.decoder, case, (case.latent_size,), seed=2)
        self.seeds = keras.random.SeedGenerator(case.seed)
        self.trackers = [keras.metrics.Mean(name) for name in ("loss", "reconstruction", "kl")]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self.trackers

    def losses_of(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Loss, reconstruction and KL of the batch."""
        size, k = self.case.latent_size, self.case.num_samples
        loc, log_var = tf.split(self.encoder(x), 2, axis=-1)
        shape = (k, tf.shape(x)[0], size)
        z = loc + tf.exp(0.5 * log_var) * keras.random.normal(shape, seed=self.seeds)
        decoded = self.decoder(tf.reshape(z, [-1, size]))
        decoded = tf.reshape(decoded, [k, -1, *self.case.event_shape])
        axes = list(range(2, 2 + len(self.case.event_shape)))
        if self.case.likelihood == "bernoulli":
            target = tf.broadcast_to(x, tf.shape(decoded))
            each = keras.ops.binary_crossentropy(target, decoded)
        else:
            each = 0.5 * (x - decoded) ** 2 + 0.5 * math.log(2 * math.pi)
        reconstruction = tf.reduce_sum(each, axis=axes)
        if k == 1:
            kl = 0.5 * tf.reduce_sum(loc**2 + tf.exp(log_var) - 1.0 - log_var, axis=-1)
            total = tf.reduce_mean(reconstruction + kl)
        else:
            log_q = -0.5 * tf.reduce_sum((z - loc) ** 2 / tf.exp(log_var) + log_var, axis=-1)
            kl = log_q + 0.5 * tf.reduce_sum(z**2, axis=-1)
            total = math.log(k) - tf.reduce_mean(tf.reduce_logsumexp(-reconstruction - kl, axis=0))
        return total, tf.reduce_mean(reconstruction), tf.reduce_mean(kl)

    def train_step(self, data: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step."""
        if self.case.binarise:
            u = keras.random.uniform(tf.shape(data), seed=self.seeds)
            data = tf.cast(u < data, tf.float32)
        with tf.GradientTape() as tape:
            losses = self.losses_of(data)
        gradients = tape.gradient(losses[0], self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        for tracker, value in zip(self.trackers, losses, strict=True):
            tracker.update_state(value)
        return {tracker.name: tracker.result() for tracker in self.trackers}


def _network(
    layers: list[Layer], case: Case, shape: tuple[int, ...], seed: int
) -> keras.Sequential:
    """The layers with their initial weights."""
    network = keras.Sequential([keras.Input(shape)])
    before = "dense" if seed == 2 else layers[0].kind
    last = len(layers) - 1
    activation = "relu" if case.convolutional else "tanh"
    for index, layer in enumerate(layers):
        chosen = activation if index < last else None
        if index == last and seed == 2 and case.likelihood == "bernoulli":
            chosen = "sigmoid"
        options = {"activation": chosen, "name": f"layer_{index}"}
        if layer.kind == "dense":
            if before != "dense":
                network.add(keras.layers.Flatten())
            network.add(keras.layers.Dense(layer.outputs, **options))
        elif layer.kind == "conv":
            convolution = keras.layers.Conv2D(layer.outputs, 3, layer.stride, "same", **options)
            network.add(convolution)
        else:
            if before == "dense":
                network.add(keras.layers.Reshape((layer.rows, layer.rows, layer.inputs)))
            network.add(keras.layers.Conv2DTranspose(layer.outputs, 3, 2, "same", **options))
        before = layer.kind
    arrays = [array for pair in initial_weights(layers, seed) for array in pair]
    network.set_weights(arrays)
    return network


def example(case: Case, x: np.ndarray, gate: Gate) -> None:
    """The tutorial's model, `compile` with Keras Adam and `fit`."""
    keras.utils.set_random_seed(case.seed)
    model = _Example(case)
    x, checked = case.split(x)
    model.compile(optimizer=keras.optimizers.Adam(case.learning_rate))

    def loss(measured: Case, x: np.ndarray, seed: int) -> float:
        model.case = measured
        value = float(model.losses_of(tf.constant(x))[0])
        model.case = case
        return value

    epochs = _Epochs(case, gate, lambda: held_out_loss(case, loss, checked))
    model.fit(x, batch_size=case.batch, epochs=_FOREVER, verbose=0, callbacks=[epochs])


SYSTEMS = {
    ("fit", "keras_vae"): fit,
    ("fit", "without_onednn"): fit,
    ("fit", "keras_example"): example,
    ("same", "keras_vae"): same,
    ("evidence", "keras_vae"): evidence,
}
