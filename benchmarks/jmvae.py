"""JMVAE on binarised MNIST and its labels: log p(image, label) and log p(image), nats.

    python benchmarks/jmvae.py --data PATH_OF_MNIST

The setting of the reproduction in MultiVae: images binarised anew in every epoch, encoders of image
784-512-512, label 10-512-512 and both (512 | 512)-512, decoders 512-512, 64 latents, ReLU, alpha
0.1, a warm-up of 200 epochs, batches of 100, 500 epochs of Adam at 1e-4. MultiVae quotes -86.86
from the paper and measures -86.85 +- 0.03, the joint log p(image, label) by importance sampling
with 1000 draws, of the epoch that is best on the test set. Here the last epoch is kept, and a scale
is softplus of the head, not the root of it. About an hour on two cores. `--epochs` shortens it,
with the warm-up in proportion; with another `--rate` the learning rate falls from there to 0 by a
cosine.

    loss = distortion + w (KL(q || p(z)) + alpha sum_m KL(q || q_m)),  q = q(z | image, label)

where q_m(z | x_m) are the encoders of one part alone and w warms up. `elbo` is the joint bound.
Source: Suzuki, Nakayama and Matsuo (2016), Joint multimodal learning with deep generative models,
arXiv:1611.01891. Results go to benchmarks/results/jmvae.txt.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae import Bernoulli, Categorical, DiagonalNormal, Parts, PartsEncoder, StandardNormal
from keras_vae.data import batches, binarize, load, steps
from keras_vae.distributions.tfp import tfd
from keras_vae.estimators import elbo_terms
from keras_vae.evaluation import log_marginal, mean_and_error
from keras_vae.objectives import Objective, Player, Terms

LATENTS, WIDTH, BATCH, DRAWS, RATE = 64, 512, 100, 1000, 1e-4
SHAPES = {"image": (784,), "label": (10,)}


def dense(*widths: int) -> keras.Sequential:
    """Returns layers of the given widths."""
    return keras.Sequential([keras.layers.Dense(width, "relu") for width in widths])


def likelihood(missing: bool) -> Parts:
    """Returns the decoders of image and label, which may be absent or not."""
    return Parts(
        {
            "image": Bernoulli(784, network=dense(WIDTH, WIDTH), missing=missing),
            "label": Categorical(10, network=dense(WIDTH, WIDTH), missing=missing),
        }
    )


class JointAndSingle(Objective):
    """Minus the joint ELBO, plus alpha times the distance from q to the encoder of each part."""

    metric_names = ("alignment",)

    def __init__(
        self, optimizer: keras.optimizers.Optimizer, alpha: float = 0.1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha
        self.beta = self._schedulable("beta", 1.0)
        self.single = keras_vae.MixtureOfExperts(LATENTS, {m: dense(WIDTH, WIDTH) for m in SHAPES})
        self.single.build({name: (None, *shape) for name, shape in SHAPES.items()})
        self.optimizer = self.make_optimizer(optimizer)

    def terms(self, inference: Any, noise: Any) -> Terms:
        """Returns the loss and the two terms of the joint bound."""
        trace = inference.trace(noise)
        distortion, rate = elbo_terms(trace)
        joint = trace.latents["z"].posterior()
        alignment = tf.add_n(
            [
                tfd.kl_divergence(joint, self.single.expert(name).distribution(seen.value, True))
                for name, seen in trace.observations.items()
            ]
        )
        weight = tf.cast(self.beta.value, rate.dtype)
        loss = distortion + weight * (rate + self.alpha * alignment)
        return Terms(loss, distortion, rate, {"alignment": alignment}, trace)

    def players(self, model: Any) -> list[Player]:
        """Returns two players of one loss: the model, and the encoders of single parts."""
        own = Player(self.trainable_weights, self.optimizer, lambda terms: terms.loss)
        return [*super().players(model), own]


def mnist(path: str, part: str) -> dict[str, np.ndarray]:
    """Reads images in [0, 255] and one-hot labels."""
    found = load(path, labels=True, split=part)
    return {"image": found.x.reshape(-1, 784), "label": np.eye(10, dtype="float32")[found.labels]}


def adam(rate: float, updates: int) -> keras.optimizers.Adam:
    """Returns Adam at 1e-4, or at another rate that falls to 0 by a cosine over the updates."""
    falling = keras.optimizers.schedules.CosineDecay(rate, updates)
    return keras.optimizers.Adam(falling if rate != RATE else RATE)


def train(
    x: dict[str, np.ndarray], epochs: int, rate: float, warm_up: float
) -> tuple[keras_vae.VAE, JointAndSingle]:
    """Trains the recipe."""
    vae = keras_vae.VAE(
        prior=StandardNormal(LATENTS),
        likelihood=likelihood(missing=False),
        posterior=DiagonalNormal(
            LATENTS,
            network=PartsEncoder(
                dense(WIDTH),
                networks={name: dense(WIDTH) for name in SHAPES},
                complete=list(SHAPES),
            ),
        ),
    )
    per_epoch = steps(len(x["image"]), BATCH)
    objective = JointAndSingle(adam(rate, epochs * per_epoch))
    vae.compile(adam(rate, epochs * per_epoch), objective=objective)
    vae.fit(
        batches(
            x,
            BATCH,
            epochs=epochs,
            seed=1,
            rescale={"image": 1 / 255},
            transform={"image": binarize},
        ),
        steps_per_epoch=per_epoch,
        epochs=epochs,
        shuffle=False,
        verbose=2,
        callbacks=[keras_vae.callbacks.LinearSchedule("beta", epochs=warm_up * epochs)],
    )
    return vae, objective


def with_single(vae: keras_vae.VAE, objective: JointAndSingle) -> keras_vae.VAE:
    """Returns the model with the encoders of single parts as its posterior."""
    model = keras_vae.VAE(
        prior=vae.prior, likelihood=likelihood(missing=True), posterior=objective.single
    )
    model.likelihood.set_weights(vae.likelihood.get_weights())
    return model


def main() -> None:
    """Trains, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="directory of the four MNIST files")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--warm-up", type=float, default=0.4, help="part of the epochs")
    parser.add_argument("--rate", type=float, default=RATE, help="another falls to 0 by a cosine")
    parser.add_argument("--images", type=int, default=10_000, help="test images to measure")
    arguments = parser.parse_args()
    warnings.simplefilter("always")
    keras.utils.set_random_seed(0)
    started = time.perf_counter()
    vae, objective = train(
        mnist(arguments.data, "train"), arguments.epochs, arguments.rate, arguments.warm_up
    )
    trained = time.perf_counter() - started
    test = {
        name: value[: arguments.images] for name, value in mnist(arguments.data, "test").items()
    }
    test["image"] = binarize(test["image"] / 255.0, [0, 0]).numpy()
    single = with_single(vae, objective)
    values = {
        "ELBO of image and label": vae.elbo(test, num_samples=10, seed=0).elbo.numpy(),
        f"log p(image, label), {DRAWS} draws": log_marginal(vae, test, num_samples=DRAWS).value,
        f"log p(image), {DRAWS} draws": log_marginal(
            single, {"image": test["image"]}, num_samples=DRAWS
        ).value,
        f"log p(label), {DRAWS} draws": log_marginal(
            single, {"label": test["label"]}, num_samples=DRAWS
        ).value,
    }
    lines = [
        f"{arguments.epochs} epochs in {trained / 60:.1f} minutes, "
        f"{len(test['image'])} test images binarised once; nats, mean and standard error",
        *(
            "{:34s} {:9.3f} +- {:.3f}".format(name, *mean_and_error(value))
            for name, value in values.items()
        ),
        "published, 500 epochs: -86.86 (paper), -86.85 +- 0.03 (MultiVae, joint)",
    ]
    text = "\n".join(lines)
    print(text)
    Path(__file__).parent.joinpath("results", "jmvae.txt").write_text(text + "\n")


if __name__ == "__main__":
    main()
