"""VQ-VAE on MNIST: reconstruction error, and the bound in nats and bits per dimension.

    python benchmarks/codes.py --data PATH_OF_MNIST

The setting of the Keras example `vq_vae`: pixels / 255 - 0.5, convolutions of 32 and 64 filters
that halve the image, 7 x 7 codes of 128 vectors of 16 numbers, batches of 128, Adam at 1e-3, 30
epochs. That page states the squared error over the variance of the data, 0.0444, on the training
set. Here the vectors are means with forgetting instead of trained weights, and the scale of the
normal likelihood has its optimal value, so the squared error weighs more against the commitment.

The page has no bound. Here it is that of grey levels, log p(x | codes) + log p(codes), with a
discretised logistic p(x | codes) around the decoder's mean whose scale of each pixel is fitted to
training images, and with the uniform and a learned p(codes). About a quarter of an hour on two
cores; `--epochs` and `--prior-epochs` shorten it. Results go to benchmarks/results/codes.txt.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae.data import load
from keras_vae.distributions.tfp import DiscretizedLogistic
from keras_vae.evaluation import bits_per_dim, fit_code_prior, mean_and_error

LEVELS, FITTED, STEPS = 256, 4000, 300


def log_likelihood(images: tf.Tensor, loc: tf.Tensor, raw_scale: tf.Tensor) -> tf.Tensor:
    """Returns log p(x | codes) of grey levels, [B], in nats."""
    p = DiscretizedLogistic(loc, tf.nn.softplus(raw_scale) + 0.02, LEVELS)
    return tf.reduce_sum(p.log_prob(images), axis=[1, 2, 3])


def fitted_scale(images: np.ndarray, loc: np.ndarray) -> tf.Variable:
    """Fits the scale of each pixel to images and their means."""
    raw = tf.Variable(tf.fill(loc.shape[1:], 3.0))
    adam = keras.optimizers.Adam(0.05)
    adam.build([raw])

    @tf.function
    def step(x: tf.Tensor, mean: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(log_likelihood(x, mean, raw))
        adam.apply_gradients(zip(tape.gradient(loss, [raw]), [raw], strict=True))

    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        some = rng.integers(0, len(images), 500)
        step(tf.constant(images[some]), tf.constant(loc[some]))
    return raw


def main() -> None:
    """Trains, measures, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="directory of MNIST")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--prior-epochs", type=int, default=10)
    parser.add_argument("--prior-images", type=int, default=60_000)
    parser.add_argument("--out", default="benchmarks/results/codes.txt")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    grey = {
        split: load(arguments.data, split=split).x.reshape(-1, 28, 28, 1).astype("float32")
        for split in ("train", "test")
    }
    x = {split: values / 255.0 - 0.5 for split, values in grey.items()}
    vae = keras_vae.vq_vae((28, 28, 1), "normal", codes=128, code_size=16, scale="optimal")
    vae.compile(keras.optimizers.Adam(1e-3), monitor=True)
    start = time.perf_counter()
    history = vae.fit(x["train"], epochs=arguments.epochs, batch_size=128, verbose=2).history
    seconds = time.perf_counter() - start
    means = {split: np.asarray(vae.reconstruct(values)) for split, values in x.items()}
    error = {
        split: np.mean((means[split] - values) ** 2) / x["train"].var()
        for split, values in x.items()
    }
    loc = {split: 255.0 * (values + 0.5) for split, values in means.items()}
    scale = fitted_scale(grey["train"][:FITTED], loc["train"][:FITTED])
    distortion = np.concatenate(
        [
            -log_likelihood(grey["test"][i : i + 500], loc["test"][i : i + 500], scale).numpy()
            for i in range(0, len(grey["test"]), 500)
        ]
    )
    some = x["train"][: arguments.prior_images]
    learned = fit_code_prior(vae, some, epochs=arguments.prior_epochs)
    lines = [
        f"VQ-VAE of the Keras example: MNIST, 7 x 7 codes of 128, {arguments.epochs} epochs "
        f"({seconds:.0f} s); prior fitted to {len(some)} images, {arguments.prior_epochs} epochs",
        f"squared error / variance: train {error['train']:.4f}, test {error['test']:.4f} "
        "(the page states 0.0444 on train after 30 epochs)",
        f"codes used {history['codes_used'][-1]:.0f} of 128, perplexity "
        f"{history['perplexity'][-1]:.1f}, over the last epoch",
        "",
        f"{'test set, grey levels 0 to 255':32} {'rate':>9} {'elbo':>20} {'bits/dim':>9}",
    ]
    for name, model in (("uniform codes", vae), ("autoregressive codes", learned)):
        rate = model.elbo(x["test"], seed=0).rate.numpy()
        elbo = -(distortion + rate)
        mean, deviation = mean_and_error(elbo)
        bits = bits_per_dim(elbo, 784).mean()
        lines.append(f"{name:32} {rate.mean():9.2f} {mean:12.2f} +- {deviation:4.2f} {bits:9.4f}")
    lines.append(f"distortion {distortion.mean():.2f} nats in both")
    text = "\n".join(lines)
    print(text)
    Path(arguments.out).write_text(text + "\n")


if __name__ == "__main__":
    main()
