"""MNIST that is binarised once: each pixel is a one with its grey level as the probability.

    python benchmarks/static_mnist.py PATH_OF_MNIST OUT

Writes OUT/train.npy and OUT/test.npy, uint8 [60000, 28, 28, 1] and [10000, 28, 28, 1]. The file of
Larochelle and Murray (2011), The neural autoregressive distribution estimator, is another draw of
the same distribution, of which papers train on 50 000 or 60 000 images.
"""

import argparse
from pathlib import Path

import numpy as np

from keras_vae import data


def main() -> None:
    """Writes the two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mnist", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed, split in enumerate(("train", "test")):
        grey = data.load(arguments.mnist, split=split).x / 255.0
        drawn = np.random.default_rng(seed).random(grey.shape) < grey
        np.save(arguments.out / f"{split}.npy", drawn.astype(np.uint8))


if __name__ == "__main__":
    main()
