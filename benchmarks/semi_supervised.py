"""Accuracy on MNIST with few labels: the model M2 beside Pyro's example.

    python benchmarks/semi_supervised.py PATH_OF_MNIST --labels 3000 --epochs 20 --seconds 2400

The setting of Pyro's ss_vae_M2 is 784-500-50 with softplus layers, Adam 4.2e-4, batches of 200, the
label summed out, a classifier term of weight 46, 50 000 training images of which some are labelled,
as many of each class, and the accuracy on the test set. `--pyro` selects its layers, learning rate
and sum. Without it the layers are ReLU, the learning rate falls from 2e-3 to 0 by a cosine over the
epochs, and of the classes of an image the most probable and one of the others are evaluated
(`SemiSupervised(top_classes=1)`). With `--dropout 0.5` the classifier drops that part of its hidden
units and 0.4 of it of its pixels; with `--share 0.1` a tenth of each batch is labelled images.

Pyro's figures are means over five splits, and were read in its tutorial `ss-vae`, not run here. It
has grey pixels as targets and inputs. Here they are drawn anew in each epoch with the grey level as
the probability of a one, and cut at one half to be classified. It takes labelled images in batches
of their own, with a step for the bound and one for the classifier; here they are mixed with others.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae import data

CLASSES, LATENTS, HIDDEN, TRAIN, BATCH = 10, 50, 500, 50_000, 200
PYRO = {100: 0.9319, 600: 0.9437, 1000: 0.9487, 3000: 0.9582}
PYRO_SUPERVISED = {100: 0.7712, 600: 0.8716, 1000: 0.8863, 3000: 0.9108}


class Stop(keras.callbacks.Callback):
    """Ends training after a time, and prints the accuracy on some images after each epoch."""

    def __init__(self, seconds: float, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.end = time.perf_counter() + seconds
        self.x, self.y, self.epochs = x, y, 0
        self.began = time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Prints the logs; stops if the time is over."""
        self.epochs = epoch + 1
        found = accuracy(self.model, self.x, self.y)
        if self.epochs % 5 == 0:
            some = generative_accuracy(self.model, self.x[:2000], self.y[:2000])
            print(f"  by the highest bound on log p(x, y), of 2000: {some:.4f}", flush=True)
        shown = ", ".join(f"{name} {value:.2f}" for name, value in sorted((logs or {}).items()))
        seconds = (time.process_time() - self.began) / self.epochs
        print(
            f"  epoch {epoch + 1}: validation accuracy {found:.4f}, {shown}; "
            f"{seconds:.1f} CPU seconds per epoch",
            flush=True,
        )
        if time.perf_counter() > self.end:
            self.model.stop_training = True


def joined(size: int, activation: str) -> keras.Model:
    """Makes f(A v + B y) of [v, y]; the features A v of an encoder are shared by classes."""
    v, label = keras.Input((size,)), keras.Input((CLASSES,))
    left = v if size == HIDDEN else keras.layers.Dense(HIDDEN)(v)
    right = keras.layers.Dense(HIDDEN, use_bias=False)(label)
    features = keras.layers.Activation(activation)(left + right)
    return keras.Model([v, label], features)


def make(activation: str, dropout: float) -> keras_vae.SemiSupervisedVAE:
    """Makes the model, whose first layer of the encoder is shared by the classes."""
    classifier = keras_vae.networks.mlp((784,), (HIDDEN,), activation=activation)
    if dropout:
        first, last = keras.layers.Dropout(0.4 * dropout), keras.layers.Dropout(dropout)
        classifier = keras.Sequential([first, classifier, last])
    return keras_vae.SemiSupervisedVAE(
        num_classes=CLASSES,
        prior=keras_vae.StandardNormal(LATENTS),
        likelihood=keras_vae.Bernoulli(784, network=joined(LATENTS, activation)),
        posterior=keras_vae.DiagonalNormal(LATENTS, network=joined(HIDDEN, activation)),
        classifier=classifier,
        trunk=keras.layers.Dense(HIDDEN),
    )


class Batches(keras.utils.PyDataset):
    """Batches of images whose pixels are drawn anew each time they are seen, in random order.

    A share of each batch may be replaced by random labelled images.
    """

    def __init__(self, x: np.ndarray, label: np.ndarray, seed: int, share: float) -> None:
        super().__init__()
        self.x, self.label, self.rng = x, label, np.random.default_rng(seed)
        self.known, self.count = np.flatnonzero(np.isfinite(label[:, 0])), round(share * BATCH)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.x) // BATCH

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rows = self.order[index * BATCH : (index + 1) * BATCH].copy()
        rows[: self.count] = self.rng.choice(self.known, self.count)
        grey = self.x[rows]
        drawn = self.rng.random(grey.shape, np.float32) < grey
        return {"x": drawn.astype(np.float32), "label": self.label[rows]}

    def on_epoch_end(self) -> None:
        """Shuffles."""
        self.order = self.rng.permutation(len(self.x))


def read(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads images in [0, 1] and labels."""
    found = data.load(path, split=split, labels=True)
    return found.x.reshape(len(found.x), -1).astype("float32") / 255.0, np.asarray(found.labels)


def accuracy(vae: keras_vae.SemiSupervisedVAE, x: np.ndarray, y: np.ndarray) -> float:
    """Returns the share of images whose most probable class by q(y | x) is their label."""
    return float((vae.classify(_binary(x)).probabilities.argmax(axis=1) == y).mean())


def generative_accuracy(vae: keras_vae.SemiSupervisedVAE, x: np.ndarray, y: np.ndarray) -> float:
    """Returns the share of images whose label has the highest bound on log p(x, y)."""
    bounds = []
    for each in np.eye(CLASSES, dtype=np.float32):
        label = np.tile(each, (len(x), 1))
        bounds.append(np.asarray(vae.elbo({"x": _binary(x), "label": label}, seed=0).elbo))
    return float((np.argmax(bounds, axis=0) == y).mean())


def _binary(x: np.ndarray) -> np.ndarray:
    return (x > 0.5).astype(np.float32)


def run(
    labels: int,
    train: tuple,
    test: tuple,
    *,
    epochs: int,
    seconds: float,
    seed: int,
    alpha: float,
    dropout: float,
    share: float,
    pyro: bool,
) -> tuple[float, int]:
    """Trains on some labels; returns the accuracy on the test set and the number of epochs."""
    keras.utils.set_random_seed(seed)
    x, y = (part[:TRAIN] for part in train)
    order = np.random.default_rng(seed).permutation(TRAIN)
    rows = np.concatenate([order[y[order] == k][: labels // CLASSES] for k in range(CLASSES)])
    label = np.full((TRAIN, CLASSES), np.nan, np.float32)
    label[rows] = np.eye(CLASSES)[y[rows]]
    vae = make("softplus" if pyro else "relu", dropout)
    falling = keras.optimizers.schedules.CosineDecay(2e-3, epochs * (TRAIN // BATCH))
    vae.compile(
        keras.optimizers.Adam(4.2e-4 if pyro else falling),
        keras_vae.SemiSupervised(alpha, top_classes=None if pyro else 1),
    )
    stop = Stop(seconds, *(part[TRAIN:] for part in train))
    vae.fit(Batches(x, label, seed, share), epochs=epochs, callbacks=[stop], verbose=0)
    some = generative_accuracy(vae, *(part[:2000] for part in test))
    print(f"  by the highest bound on log p(x, y): {some:.4f} of 2000 test images", flush=True)
    return accuracy(vae, *test), stop.epochs


def main() -> None:
    """Prints accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 600, 1000, 3000])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3600.0, help="of training for each")
    parser.add_argument("--alpha", type=float, default=46.0)
    parser.add_argument("--dropout", type=float, default=0.0, help="of the classifier")
    parser.add_argument("--share", type=float, default=0.0, help="of labelled images in a batch")
    parser.add_argument("--pyro", action="store_true", help="Pyro's layers, learning rate and sum")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="of TensorFlow; 0 is all")
    arguments = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    train, test = (read(arguments.mnist, split) for split in ("train", "test"))
    for labels in arguments.labels:
        began = time.perf_counter()
        found, epochs = run(
            labels,
            train,
            test,
            epochs=arguments.epochs,
            seconds=arguments.seconds,
            seed=arguments.seed,
            alpha=arguments.alpha,
            dropout=arguments.dropout,
            share=arguments.share,
            pyro=arguments.pyro,
        )
        error = (found * (1 - found) / len(test[0])) ** 0.5
        print(
            f"{labels} labels: test accuracy {found:.4f} +- {error:.4f} after {epochs} epochs, "
            f"{time.perf_counter() - began:.0f} s; Pyro {PYRO.get(labels, float('nan')):.4f}, "
            f"its classifier alone {PYRO_SUPERVISED.get(labels, float('nan')):.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
