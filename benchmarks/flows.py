"""Priors side by side on the handwritten digits of scikit-learn, two latents.

    python benchmarks/flows.py --seeds 3 | tee benchmarks/results/flows.txt

The setting is that of the notebook vaes/vae_priors_example.ipynb of jmtomczak/intro_dgm, which
prints no figure: 8 x 8 images of 17 levels, a categorical likelihood of 17 classes for each pixel,
2 latents, two hidden layers of 256 leaky rectified units on either side, Adam 1e-3, batches of 64,
the first 1000 images for training, the next 350 for validation, the last 447 for the test, and an
end after 20 epochs without a better validation bound, whose weights are kept. Mixtures have 16
components. All numbers are log-probabilities of whole images in nats.

The bound is the mean of 50 draws, log p(x) importance sampling with 500 draws. Each row is
compared with the standard normal prior on the same test images and seeds; the standard error of the
difference is that of the paired differences of images, averaged over seeds, plus the scatter of the
seeds' means.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_vae
from keras_vae import evaluation

LATENTS, WIDTH, LEVELS, COMPONENTS = 2, 256, 17, 16
DRAWS, WEIGHTED = 50, 500

PRIORS: dict[str, Callable[[], keras_vae.Prior]] = {
    "standard normal": lambda: keras_vae.StandardNormal(LATENTS),
    "mixture of 16 normals": lambda: keras_vae.NormalMixture(LATENTS, COMPONENTS),
    "VampPrior, 16": lambda: keras_vae.VampPrior(LATENTS, COMPONENTS),
    "flow, affine": lambda: keras_vae.FlowPrior(LATENTS),
    "flow, spline": lambda: keras_vae.FlowPrior(LATENTS, transform="spline"),
    "autoregressive, spline": lambda: keras_vae.AutoregressivePrior(
        LATENTS, num_layers=2, transform="spline"
    ),
}
"""Priors by the name of the row."""

POSTERIORS: dict[str, Callable[..., keras_vae.Posterior]] = {
    "diagonal": keras_vae.DiagonalNormal,
    "coupling": keras_vae.CouplingFlow,
    "coupling, spline": lambda *args, **kwargs: keras_vae.CouplingFlow(
        *args, transform="spline", **kwargs
    ),
    "inverse autoregressive": keras_vae.InverseAutoregressiveFlow,
}
"""Posteriors by the name of the row."""


def hidden(name: str) -> keras.Sequential:
    """Makes two hidden layers."""
    layers = [keras.layers.Dense(WIDTH, keras.layers.LeakyReLU(0.01)) for _ in range(2)]
    return keras.Sequential(layers, name=name)


@keras.saving.register_keras_serializable("benchmark")
class AsLevels(keras.layers.Layer):
    """Map of one-hot levels [B, 64, 17] to numbers in [-1, 1], [B, 64]."""

    def call(self, x):
        """Returns the levels."""
        return keras.ops.sum(x * keras.ops.linspace(-1.0, 1.0, LEVELS), axis=-1)


def model(posterior: str, prior: str) -> keras_vae.VAE:
    """Makes a model."""
    encoder = keras.Sequential([AsLevels(), *hidden("encoder").layers], name="encoder")
    return keras_vae.VAE(
        prior=PRIORS[prior](),
        likelihood=keras_vae.Categorical((64, LEVELS), network=hidden("decoder")),
        posterior=POSTERIORS[posterior](LATENTS, network=encoder),
    )


def measured(
    posterior: str,
    prior: str,
    seed: int,
    epochs: int,
    train: np.ndarray,
    held: np.ndarray,
    test: np.ndarray,
) -> dict[str, np.ndarray | float]:
    """Trains a model; returns its bound and log p of each test image, its rate and its epochs."""
    keras.utils.set_random_seed(seed)
    vae = model(posterior, prior)
    vae.compile(keras.optimizers.Adam(1e-3))
    stop = keras.callbacks.EarlyStopping(
        "val_elbo", mode="max", patience=20, restore_best_weights=True
    )
    began = time.process_time()
    logs = vae.fit(
        train, epochs=epochs, batch_size=64, validation_data=held, callbacks=[stop], verbose=0
    ).history
    seconds = time.process_time() - began
    bounds = [vae.elbo(test, seed=draw) for draw in range(DRAWS)]
    return {
        "elbo": np.mean([each.elbo for each in bounds], axis=0, dtype=np.float64),
        "rate": float(np.mean([each.rate for each in bounds])),
        "log_p": evaluation.log_marginal(vae, test, num_samples=WEIGHTED, seed=seed).value,
        "epochs": len(logs["loss"]) - 20,
        "seconds": seconds / len(logs["loss"]),
    }


def beside(found: list[np.ndarray], base: list[np.ndarray]) -> str:
    """Describes the difference of two lists of values of images, one array for each seed."""
    difference = np.array(found) - np.array(base)
    means = difference.mean(axis=1)
    images = difference.mean(axis=0).std(ddof=1) / np.sqrt(difference.shape[1])
    seeds = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else 0.0
    return f"{means.mean():+7.3f} {np.hypot(images, seeds):6.3f}"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1000, help="at most")
    parser.add_argument("--posteriors", action="store_true", help="also other posteriors")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # of weights, whose bound stays a bound
    levels = load_digits().data.astype(int)
    x = np.eye(LEVELS, dtype="float32")[levels]
    parts = x[:1000], x[1000:1350], x[1350:]
    rows = [("diagonal", prior) for prior in PRIORS]
    if options.posteriors:
        rows += [(posterior, "standard normal") for posterior in list(POSTERIORS)[1:]]
        rows += [("coupling", "flow, affine")]
    print(
        f"scikit-learn digits, {LATENTS} latents, {options.seeds} seeds, at most {options.epochs} "
        "epochs, nats per image\n"
    )
    print(
        f"{'posterior':24s}{'prior':24s}{'ELBO':>10s}{'log p':>10s}{'rate':>7s}{'gap':>7s}"
        f"{'ELBO beside':>15s}{'log p beside':>15s}{'epochs':>8s}{'s/epoch':>9s}"
    )
    base: dict[str, list[np.ndarray]] = {}
    for posterior, prior in rows:
        found = [
            measured(posterior, prior, seed, options.epochs, *parts)
            for seed in range(options.seeds)
        ]
        values = {name: [each[name] for each in found] for name in found[0]}
        base = base or values
        elbo, log_p = (float(np.mean(values[name])) for name in ("elbo", "log_p"))
        print(
            f"{posterior:24s}{prior:24s}{elbo:10.3f}{log_p:10.3f}{np.mean(values['rate']):7.2f}"
            f"{log_p - elbo:7.3f} {beside(values['elbo'], base['elbo'])} "
            f"{beside(values['log_p'], base['log_p'])}{np.mean(values['epochs']):8.0f}"
            f"{np.mean(values['seconds']):9.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
