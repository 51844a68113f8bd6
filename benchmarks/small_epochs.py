"""Short epochs with validation, the arrays of it beside a dataset of the same batches.

    python benchmarks/small_epochs.py

A dataset goes through Keras' own `evaluate`, which makes two iterators in each epoch; so did arrays
before. Both are trained in turns in one process, without and with validation. Milliseconds of
processor time an epoch, from beginning to end of `fit`, and the seconds from the end of the last
epoch to the return of it, medians of three. Five minutes. Results go to
benchmarks/results/small_epochs.txt.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_vae

EPOCHS, ROUNDS = 60, 3


class End(keras.callbacks.Callback):
    """Notes when the last epoch has ended."""

    time = 0.0

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Notes the time."""
        self.time = time.perf_counter()


def one_array() -> tuple[keras_vae.VAE, Any]:
    """Makes a network of one hidden layer for 20 columns, and 600 rows."""
    x = np.random.default_rng(0).normal(size=(600, 20)).astype(np.float32)
    return keras_vae.mlp_vae(20, 4, "normal", hidden=(64,)), x


def parts() -> tuple[keras_vae.VAE, Any]:
    """Makes a model of 16 columns that may be absent, each a part, and 600 rows."""
    values = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)
    x = {f"column {i}": values[:, [i]] for i in range(16)}
    likelihood = keras_vae.Parts(
        {name: keras_vae.Normal(1, missing=True) for name in x},
        network=keras.layers.Dense(64, "tanh"),
    )
    encoder = keras_vae.PartsEncoder(keras.layers.Dense(64, "tanh"))
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(4),
        likelihood=likelihood,
        posterior=keras_vae.DiagonalNormal(4, network=encoder),
    )
    return vae, x


def images() -> tuple[keras_vae.VAE, Any]:
    """Makes a network for binary images of 784 pixels, and 1200 of them."""
    x = (np.random.default_rng(0).random((1200, 784)) < 0.3).astype(np.float32)
    return keras_vae.mlp_vae(784, 20, "bernoulli", hidden=(200, 200)), x


def fit(vae: keras_vae.VAE, x: Any, validation: Any) -> tuple[float, float]:
    """Trains; returns milliseconds of processor time an epoch, and seconds after the last one."""
    end, begin = End(), time.process_time()
    vae.fit(
        x, epochs=EPOCHS, batch_size=100, validation_data=validation, verbose=0, callbacks=[end]
    )
    taken = time.process_time() - begin
    return taken / EPOCHS * 1e3, time.perf_counter() - end.time


def main() -> None:
    """Times all cases in turns, and writes the table."""
    lines = ["data | no validation | arrays | dataset | arrays over dataset | after the end, s"]
    for make in (one_array, parts, images):
        vae, x = make()
        vae.compile()
        kept = len(keras.tree.flatten(x)[0]) * 5 // 6
        train, held = (
            keras.tree.map_structure(lambda part, rows=rows: part[rows], x)
            for rows in (slice(kept), slice(kept, None))
        )
        ways = (None, held, tf.data.Dataset.from_tensors(held))
        for way in ways:  # traces the graphs
            fit(vae, train, way)
        found = [[fit(vae, train, way) for way in ways] for _ in range(ROUNDS)]
        medians = [statistics.median(turn[way][0] for turn in found) for way in range(3)]
        after = statistics.median(each[1] for turn in found for each in turn)
        plain, arrays, dataset = medians
        lines.append(
            f"{make.__name__} | {plain:.1f} | {arrays:.1f} | {dataset:.1f} | "
            f"{arrays / dataset:.2f} | {after:.3f}"
        )
        print(lines[-1], flush=True)
    path = Path(__file__).parent / "results" / "small_epochs.txt"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
