"""Time of L_5000 on the 784-200-200-50 network beside the time of its matrix products alone.

    python benchmarks/log_marginal.py [--data PATH_OF_MNIST]

Both are measured in turn in one process, the products at the size that the evaluation uses, so
that what else the machine does falls on both; medians and spread over the repeats. The weights are
new: their values do not change the time. Then the peak of the process's memory at ten times the
samples.
"""

import argparse
import itertools
import resource
import statistics
import time
import warnings

import keras
import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae import data
from keras_vae.evaluation import log_marginal, marginal
from keras_vae.evaluation._batches import rows_in

SIZES = (50, 200, 200, 784)
FLOP = 2.0 * sum(a * b for a, b in itertools.pairwise(SIZES))
"""Floating-point operations of the decoder's matrix products, per draw and example."""


def products(rows: int):  # type: ignore[no-untyped-def]
    """Function that computes the decoder's products alone for some rows."""
    inputs = [tf.random.normal([rows, size]) for size in SIZES[:-1]]
    kernels = [tf.random.normal(shape) for shape in itertools.pairwise(SIZES)]

    @tf.function
    def function(times: tf.Tensor) -> tf.Tensor:
        total = tf.zeros([])
        for _ in tf.range(times):
            for part, kernel in zip(inputs, kernels, strict=True):
                total += tf.matmul(part + 0.0 * total, kernel)[0, 0]
        return total

    return function


def seconds(function) -> float:  # type: ignore[no-untyped-def]
    """Wall time of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def memory() -> float:
    """Peak resident size of the process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="directory of MNIST; random images without it")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    keras.utils.set_random_seed(0)
    vae = keras_vae.mlp_vae((28, 28, 1), 50, "bernoulli", hidden=(200, 200), activation="tanh")
    if arguments.data:
        grey = data.load(arguments.data, split="test").x[: arguments.images]
        grey = tf.constant(np.reshape(grey, [-1, 28, 28, 1]) / 255.0, tf.float32)
        x = data.binarize(grey, tf.constant([0, 0])).numpy()
    else:
        x = np.random.default_rng(0).random((arguments.images, 28, 28, 1)) < 0.13
    x = x.astype("float32")
    rows = rows_in(marginal._CACHED, vae)
    multiply = products(rows)
    times = tf.constant(max(1, round(1.5e11 / (rows * FLOP))))
    multiply(times)
    log_marginal(vae, x[:256], num_samples=arguments.samples)
    rates, ratios, took = [], [], []
    for _ in range(arguments.repeats):
        before = seconds(lambda: multiply(times).numpy())
        took.append(seconds(lambda: log_marginal(vae, x, num_samples=arguments.samples)))
        after = seconds(lambda: multiply(times).numpy())
        rates.append(2.0 * float(times) * rows * FLOP / (before + after))
        ratios.append(took[-1] * rates[-1] / (len(x) * arguments.samples * FLOP))
    print(
        f"L_{arguments.samples} of {len(x)} images, {arguments.repeats} repeats:\n"
        f"  {statistics.median(took):.1f} s ({min(took):.1f} to {max(took):.1f}), "
        f"{1e3 * statistics.median(took) / len(x):.1f} ms per image\n"
        f"  matrix products alone at {statistics.median(rates) / 1e9:.0f} GFLOP/s: "
        f"{len(x) * arguments.samples * FLOP / statistics.median(rates):.1f} s\n"
        f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    at_first = memory()
    log_marginal(vae, x[:20], num_samples=10 * arguments.samples)
    print(
        f"Peak memory {at_first:.0f} MiB; with ten times the samples {memory():.0f} MiB "
        "(budget of a chunk: 256 MiB)"
    )


if __name__ == "__main__":
    main()
