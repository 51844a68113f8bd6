"""Completion of MNIST from 1, 2 or 3 quadrants: a conditional VAE beside a plain network.

    python benchmarks/quadrants.py --data PATH_OF_MNIST [--epochs 50] [--seen 1 2 3]

The setting of Pyro's tutorial on the conditional VAE: hidden layers 500-500, ReLU, 200 latents, a
prior p(z | c) whose network is given the seen quadrants and the guess of a plain network, Adam at
1e-3, at most 50 epochs, patience 3. The hidden quadrants are named parts. Seen are the lower left,
the left half, or all but the lower right.

Pyro prints, per image, the cross entropy of the network with grey targets, and of the VAE minus the
conditional bound with the same cross entropy in place of log p: 100.4 / 61.9 / 25.4 and
71.8 / 51.0 / 24.2. A cross entropy with grey targets is no log-probability. Here training and
bounds are of images that are binarised at random, of which the cross entropy with grey targets is
the mean. Printed, in nats per image over the test images:

- network, grey: the cross entropy of the network, what Pyro prints of it;
- grey bound: rate, plus the cross entropy with grey targets at the draws, of q(z | grey image, c):
  what Pyro prints of the VAE;
- network, binary: -log p of the binarised pixels;
- bound: minus the conditional ELBO of the binarised pixels, a lower bound on their log p(x | c);
- -log p: the same by importance sampling with 200 draws.

Differences from Pyro: 5000 training images decide when to stop, not the test set; the decoder is
given the condition too; the learning rate falls to 0 by a cosine over the epochs. Source: Sohn, Lee
and Yan (2015), Learning structured output representation using deep conditional generative models.
Results go to benchmarks/results/quadrants.txt.
"""

import argparse
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae import Bernoulli, ConditionalNormal, DiagonalNormal, Parts, PartsEncoder
from keras_vae.data import batches, binarize, load, steps
from keras_vae.distributions.tfp import tfd
from keras_vae.evaluation import log_marginal, mean_and_error

LATENTS, WIDTH, BATCH, HELD_OUT, DRAWS = 200, 500, 128, 5000, 10
QUADRANTS = {
    "upper left": (slice(0, 14), slice(0, 14)),
    "upper right": (slice(0, 14), slice(14, 28)),
    "lower left": (slice(14, 28), slice(0, 14)),
    "lower right": (slice(14, 28), slice(14, 28)),
}
SEEN = {
    1: ["lower left"],
    2: ["lower left", "upper left"],
    3: ["lower left", "upper left", "upper right"],
}
PUBLISHED = {1: (100.4, 71.8), 2: (61.9, 51.0), 3: (25.4, 24.2)}


def dense() -> keras.Sequential:
    """Returns two hidden layers."""
    return keras.Sequential([keras.layers.Dense(WIDTH, "relu") for _ in range(2)])


def joined() -> keras.layers.Layer:
    """Returns two hidden layers on z and the condition side by side."""
    z, condition = keras.Input((LATENTS,)), keras.Input((784,))
    features = dense()(keras.layers.Concatenate()([z, condition]))
    return keras.Model([z, condition], features)


def falling(updates: int) -> keras.optimizers.schedules.CosineDecay:
    """Returns the learning rate, which falls from 1e-3 to 0."""
    return keras.optimizers.schedules.CosineDecay(1e-3, updates)


def stopping(monitor: str, mode: str) -> keras.callbacks.Callback:
    """Returns the rule that ends the training after 3 epochs without a gain."""
    return keras.callbacks.EarlyStopping(monitor, mode=mode, patience=3, restore_best_weights=True)


def quadrants(path: str, part: str) -> dict[str, np.ndarray]:
    """Reads the quadrants of the images, in [0, 1], flattened."""
    images = load(path, split=part).x.reshape(-1, 28, 28) / np.float32(255)
    return {name: images[:, *place].reshape(-1, 196) for name, place in QUADRANTS.items()}


def side_by_side(x: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    """Joins quadrants, [n, 196 k]."""
    return np.concatenate([x[name] for name in names], axis=1)


def network_of(seen: np.ndarray, hidden: np.ndarray, epochs: int) -> keras.Model:
    """Trains the plain network from the seen to the hidden pixels, with fresh binary targets."""
    model = keras.Sequential([dense(), Bernoulli(hidden.shape[1])])
    train, valid = slice(HELD_OUT, None), slice(HELD_OUT)
    rate = falling(epochs * steps(len(seen[train]), BATCH))
    model.compile(keras.optimizers.Adam(rate), loss=keras_vae.NegativeLogLikelihood())

    def binarised(c: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return c, tf.cast(tf.random.uniform(tf.shape(y)) < y, tf.float32)

    data = tf.data.Dataset.from_tensor_slices((seen[train], hidden[train])).shuffle(10_000)
    held = (seen[valid], binarize(hidden[valid], [0, 1]).numpy())
    model.fit(
        data.batch(BATCH).map(binarised),
        validation_data=held,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[stopping("val_loss", "min")],
    )
    return model


def probabilities(model: keras.Model, seen: np.ndarray) -> np.ndarray:
    """Returns the network's probabilities of ones."""
    return np.asarray(model.predict(seen, batch_size=1000, verbose=0))


def cross_entropy(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Computes -sum of y log p + (1 - y) log(1 - p) over the last axis."""
    p = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p)).sum(axis=-1)


def conditional_vae(hidden: list[str]) -> keras_vae.VAE:
    """Returns the model of the hidden quadrants given the seen ones and a guess."""
    return keras_vae.VAE(
        prior=ConditionalNormal(LATENTS, network=dense()),
        likelihood=Parts({name: Bernoulli(196) for name in hidden}, network=joined()),
        posterior=DiagonalNormal(LATENTS, network=PartsEncoder(dense(), complete=hidden)),
        condition_shape=784,
    )


def train(vae: keras_vae.VAE, x: dict[str, np.ndarray], epochs: int) -> int:
    """Trains the model on images binarised anew in every epoch; returns the number of epochs."""
    hidden = list(vae.likelihood.by_part())
    per_epoch = steps(len(x["condition"]) - HELD_OUT, BATCH)
    vae.compile(keras.optimizers.Adam(falling(epochs * per_epoch)))
    parts = [{name: value[rows] for name, value in x.items()} for rows in _halves()]
    transform = dict.fromkeys(hidden, binarize)
    held = batches(parts[1], 1000, shuffle=False, transform=transform)
    history = vae.fit(
        batches(parts[0], BATCH, epochs=epochs, seed=1, transform=transform),
        steps_per_epoch=per_epoch,
        epochs=epochs,
        shuffle=False,
        validation_data=held,
        verbose=0,
        callbacks=[stopping("val_elbo", "max")],
    )
    return len(history.history["elbo"])


def _halves() -> tuple[slice, slice]:
    return slice(HELD_OUT, None), slice(HELD_OUT)


def grey_bound(vae: keras_vae.VAE, x: dict[str, np.ndarray]) -> np.ndarray:
    """Computes rate plus the cross entropy with grey targets, at draws of q(z | grey, c)."""
    q = vae.encode(x)
    prior = vae.prior.distribution(x["condition"])
    distortion = np.zeros(len(x["condition"]))
    for seed in range(DRAWS):
        p = vae.decode(q.sample(seed=seed), x["condition"])
        distortion += sum(cross_entropy(x[name], part.mean().numpy()) for name, part in p.items())
    return tfd.kl_divergence(q, prior).numpy() + distortion / DRAWS


def measure(count: int, data: str, epochs: int, images: int) -> list[str]:
    """Trains both models with so many quadrants seen; returns the lines of the table."""
    started = time.perf_counter()
    seen, hidden = SEEN[count], [name for name in QUADRANTS if name not in SEEN[count]]
    raw, test = quadrants(data, "train"), quadrants(data, "test")
    test = {name: value[:images] for name, value in test.items()}
    network = network_of(side_by_side(raw, seen), side_by_side(raw, hidden), epochs)

    def given(x: dict[str, np.ndarray]) -> np.ndarray:
        c = side_by_side(x, seen)
        return np.concatenate([c, probabilities(network, c)], axis=1)

    vae = conditional_vae(hidden)
    ran = train(vae, {**{name: raw[name] for name in hidden}, "condition": given(raw)}, epochs)
    grey = {name: test[name] for name in hidden}
    binary = {name: binarize(test[name], [0, 2 + k]).numpy() for k, name in enumerate(hidden)}
    x = {**binary, "condition": given(test)}
    guess = x["condition"][:, 196 * count :]
    values = {
        "network, grey": cross_entropy(side_by_side(grey, hidden), guess),
        "grey bound": grey_bound(vae, {**x, **grey}),
        "network, binary": cross_entropy(side_by_side(binary, hidden), guess),
        "bound": -vae.elbo(x, num_samples=DRAWS, seed=0).elbo.numpy(),
        "-log p": -log_marginal(vae, x, num_samples=200).value,
    }
    minutes = (time.perf_counter() - started) / 60
    figures = " ".join(
        "{:16s}".format("{:.2f} +- {:.2f}".format(*mean_and_error(value)))
        for value in values.values()
    )
    head = " ".join(f"{name:16s}" for name in values)
    published = "published {:.1f} and {:.1f}".format(*PUBLISHED[count])
    return [
        f"{'seen':5s} {head}",
        f"{count:<5d} {figures} {published}; {ran} epochs, {minutes:.1f} minutes",
    ]


def main() -> None:
    """Prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="directory of the four MNIST files")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seen", type=int, nargs="+", default=[1, 2, 3], choices=[1, 2, 3])
    parser.add_argument("--images", type=int, default=10_000, help="test images to measure")
    arguments = parser.parse_args()
    warnings.simplefilter("always")
    keras.utils.set_random_seed(0)
    lines = [
        f"at most {arguments.epochs} epochs, {arguments.images} test images; nats per image, mean "
        "and standard error"
    ]
    for count in arguments.seen:
        found = measure(count, arguments.data, arguments.epochs, arguments.images)
        lines += found if len(lines) == 1 else found[1:]
        print("\n".join(found), flush=True)
    Path(__file__).parent.joinpath("results", "quadrants.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
