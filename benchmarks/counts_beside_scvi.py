"""Counts of single cells beside scvi-tools: the same weights, and each trained in its own way.

    python benchmarks/counts_beside_scvi.py PATH_OF_10X_MATRIX --python PEERS/bin/python

PEERS is an environment with scvi-tools (1.4.2 was measured). SCVI and keras_vae are given the same
cells, split as in `benchmarks/counts.py`, and the total of each cell: figures are held-out nats per
cell, log p(x | total) by 500 weighted draws. The model trained here and "plain" SCVI have 8
latents, one hidden layer of 64, ReLU, no batch normalisation and no dropout. "default" SCVI has
both, as it comes. All are trained by Adam at 2e-3 in batches of 64 without a KL warm-up, and end
after 15 epochs without a gain on the held-out cells. SCVI then keeps the last epoch, keras_vae the
best.

Copied: the weights of plain SCVI in a model of keras_vae, whose posterior is SCVI's too. Its
estimates use other draws, so the two differ by their noise and by the 1e-8 that SCVI adds within
logarithms. Results go to benchmarks/results/counts_beside_scvi.txt.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from benchmarks.counts import DRAWS, figure, inputs_of, read_cells, trained
from keras_vae import data
from keras_vae.evaluation import log_marginal, mean_and_error

WORKER = Path(__file__).parent / "peers" / "scvi_worker.py"
FAMILIES = {
    "poisson": "poisson",
    "nb": "negative_binomial",
    "zinb": "zero_inflated_negative_binomial",
}
_SMALLEST = 1e-6


class Encoder(keras.layers.Layer):
    """SCVI's encoder of counts, as raw parameters of a `DiagonalNormal`."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.given = {name: tf.constant(value) for name, value in weights.items()}

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        """Returns loc and the raw number of the scale; the condition is not looked at."""
        of = self.given
        hidden = tf.nn.relu(tf.math.log1p(inputs[0]) @ of["encoder_kernel"] + of["encoder_bias"])
        loc = hidden @ of["loc_kernel"] + of["loc_bias"]
        log_variance = hidden @ of["variance_kernel"] + of["variance_bias"]
        scale = tf.sqrt(tf.exp(log_variance) + 1e-4) - _SMALLEST
        raw = scale + tf.math.log(-tf.math.expm1(-scale)) - np.log(np.e - 1.0)
        return tf.concat([loc, raw], axis=-1)


def copied(family: str, weights: dict[str, np.ndarray]) -> keras_vae.VAE:
    """Returns the model of keras_vae with SCVI's weights."""
    latents, width = weights["decoder_kernel"].shape
    genes = len(weights["log_dispersion"])
    network = keras.Sequential([keras.Input((latents,)), keras.layers.Dense(width, "relu")])
    make = {
        "poisson": keras_vae.Poisson,
        "nb": keras_vae.NegativeBinomial,
        "zinb": keras_vae.ZeroInflatedNegativeBinomial,
    }[family]
    likelihood = make(genes, network=network, offset=True, link="softmax")
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(latents),
        likelihood=likelihood,
        posterior=keras_vae.DiagonalNormal(latents, network=Encoder(weights)),
        condition_shape=1,
    )
    network.set_weights([weights["decoder_kernel"], weights["decoder_bias"]])
    heads = ["share", "gate"] if family == "zinb" else ["share"]
    kernel, bias = (
        np.concatenate([weights[f"{name}_{what}"] for name in heads], axis=-1)
        for what in ("kernel", "bias")
    )
    likelihood.head.set_weights([kernel, bias])
    vae.posterior.head.set_weights([np.eye(2 * latents), np.zeros(2 * latents)])
    if family != "poisson":
        likelihood.sources[0].raw.assign(weights["log_dispersion"])
    return vae


def main() -> None:
    """Trains the models and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--python", required=True, help="interpreter that has scvi-tools")
    arguments = parser.parse_args()
    rest, test = data.split(read_cells(arguments.path), test_fraction=0.1, seed=0)
    train, held_out = data.split(rest, test_fraction=0.1, seed=1)
    parts = {"train": train, "held_out": held_out, "test": test}
    cells = inputs_of(test, True)

    def ours(vae: keras_vae.VAE) -> np.ndarray:
        return np.asarray(log_marginal(vae, cells, num_samples=DRAWS, seed=0).value)

    with tempfile.TemporaryDirectory() as folder:
        arrays = {name: part.toarray() for name, part in parts.items()}
        np.savez(Path(folder) / "cells.npz", **arrays)
        subprocess.run([arguments.python, str(WORKER), folder], check=True)
        found = {path.stem: dict(np.load(path)) for path in Path(folder).glob("*-*.npz")}
    lines = [
        f"{test.shape[0]} test cells, log p(x | total) by {DRAWS} weighted draws, nats per cell; "
        f"keras_vae {keras_vae.__version__}, scvi-tools {found['plain-nb']['version']}",
        f"{'':6}{'scvi plain':>17}{'copied here':>17}{'copied - scvi':>18}"
        f"{'scvi default':>17}{'trained here':>17}{'here - plain':>18}",
    ]
    for family, name in FAMILIES.items():
        plain, default = found[f"plain-{family}"], found[f"default-{family}"]
        same = ours(copied(family, plain))
        vae, epochs = trained(name, True, train, held_out, "relu")
        own = ours(vae)
        differences = [
            "{:+.4f} +- {:.4f}".format(*mean_and_error(one - plain["log_p"])) for one in (same, own)
        ]
        lines.append(
            f"{family:8}{figure(plain['log_p'])}{figure(same):>17}{differences[0]:>18}"
            f"{figure(default['log_p']):>17}{figure(own):>17}{differences[1]:>18}"
            f"   {plain['epochs']}, {default['epochs']} and {epochs} epochs"
        )
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    Path(__file__).parent.joinpath("results", "counts_beside_scvi.txt").write_text(text)


if __name__ == "__main__":
    main()
