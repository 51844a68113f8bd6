"""`fit` of keras_vae, and the pattern of the well-known Keras example."""

import math

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from benchmarks.peers.cases import Case, Layer, initial_weights
from benchmarks.peers.worker import Gate
from keras_vae.training.step import draw_noise

_FOREVER = 1_000_000


def versions() -> dict[str, str]:
    """Versions and settings."""
    return {
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "keras_vae": keras_vae.__version__,
        "threads": f"{tf.config.threading.get_intra_op_parallelism_threads() or 'all'}",
    }


class _Epochs(keras.callbacks.Callback):
    """The gate, as a callback of epochs: it asks for no call per batch."""

    def __init__(self, gate: Gate, loss) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.gate, self.loss = gate, loss

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Waits."""
        self.gate.begin()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Reports."""
        self.gate.end(self.loss)


def model(case: Case) -> keras_vae.VAE:
    """The case's model with its initial weights."""
    make = keras_vae.conv_vae if case.convolutional else keras_vae.mlp_vae
    sizes = {"filters" if case.convolutional else "hidden": case.hidden}
    vae = make(case.event_shape, case.latent_size, case.likelihood, **sizes)
    for distribution, layers, seed in (
        (vae.posterior, case.encoder, 1),
        (vae.likelihood, case.decoder, 2),
    ):
        arrays = [array for pair in initial_weights(layers, seed) for array in pair]
        weights = [*distribution.network.trainable_weights, *distribution.head.trainable_weights]
        for weight, array in zip(weights, arrays, strict=True):
            weight.assign(array)
    return vae


def fit(case: Case, x: np.ndarray, gate: Gate) -> None:
    """`compile` and `fit`, as in the README."""
    vae = model(case)
    x, checked = case.split(x)
    objective = keras_vae.ELBO() if case.num_samples == 1 else keras_vae.IWAE(case.num_samples)

    def loss() -> float:
        noise = draw_noise(vae, tf.constant([0, 0]), len(checked))
        terms = vae.objective.terms(vae.infer(tf.constant(checked)), noise)
        return float(tf.reduce_mean(terms.loss))

    vae.compile(keras.optimizers.Adam(case.learning_rate), objective)
    vae.fit(x, batch_size=case.batch, epochs=_FOREVER, verbose=0, callbacks=[_Epochs(gate, loss)])


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
        self.seeds = keras.random.SeedGenerator(0)
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
    model = _Example(case)
    x, checked = case.split(x)
    model.compile(optimizer=keras.optimizers.Adam(case.learning_rate))

    def loss() -> float:
        return float(model.losses_of(tf.constant(checked))[0])

    model.fit(x, batch_size=case.batch, epochs=_FOREVER, verbose=0, callbacks=[_Epochs(gate, loss)])


SYSTEMS = {
    ("fit", "keras_vae"): fit,
    ("fit", "keras_example"): example,
    ("evidence", "keras_vae"): evidence,
}
