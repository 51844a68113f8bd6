"""Logit-transformed MNIST of the flow papers; a full-covariance Gaussian verifies the data.

    python benchmarks/logit_mnist.py PATH_OF_MNIST OUT

Writes OUT/train.npy and OUT/test.npy, float32 [50000, 784] and [10000, 784]: y = logit(lambda +
(1 - 2 lambda) (x + u) / 256) of the grey levels x, with u uniform on [0, 1) drawn once and lambda
1e-6, as in Papamakarios, Pavlakou and Murray (2017), Masked autoregressive flow, arXiv:1705.07057.
It prints the mean log-density of the test set in nats and its standard error.
"""

import argparse
from pathlib import Path

import numpy as np

from keras_vae import data
from keras_vae.evaluation import mean_and_error

LAMBDA = 1e-6
TRAIN = 50_000


def logits(levels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Logits [N, 784] of dequantised grey levels, float64."""
    levels = levels.reshape(len(levels), -1)
    x = LAMBDA + (1.0 - 2.0 * LAMBDA) * (levels + random.random(levels.shape)) / 256.0
    return np.log(x) - np.log1p(-x)


def gaussian(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Log-density of test examples under the normal distribution fitted to training examples."""
    factor = np.linalg.cholesky(np.cov(train.T, bias=True))
    white = np.linalg.solve(factor, (test - train.mean(axis=0)).T)
    constant = np.log(np.diag(factor)).sum() + 0.5 * train.shape[1] * np.log(2.0 * np.pi)
    return -0.5 * (white**2).sum(axis=0) - constant


def main() -> None:
    """Writes the two files and prints the log-density of the Gaussian."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    train = logits(data.load(arguments.mnist, split="train").x[:TRAIN], random)
    test = logits(data.load(arguments.mnist, split="test").x, random)
    arguments.out.mkdir(parents=True, exist_ok=True)
    np.save(arguments.out / "train.npy", train.astype(np.float32))
    np.save(arguments.out / "test.npy", test.astype(np.float32))
    mean, error = mean_and_error(gaussian(train, test))
    print(f"Gaussian with full covariance: {mean:.1f} +- {error:.1f} nats per image")


if __name__ == "__main__":
    main()
