"""Held-out bounds of small files after 20 epochs, 1000 steps and 2000 steps.

    python benchmarks/small_files.py [FILE ...]

Each FILE is trained as `keras-vae train --data FILE` would, with every other setting at its
default; so are scikit-learn's digits, wine, breast cancer, iris and diabetes. ELBOs are in nats of
the prepared data per row. Results go to benchmarks/results/small_files.txt.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
from sklearn import datasets

from keras_vae import data
from keras_vae.runs.config import RunConfig
from keras_vae.runs.tasks import task_of

BUNCHES = ("wine", "breast_cancer", "iris", "diabetes")


def measure(name: str, source: str) -> str:
    """Trains a model and returns its held-out and training bounds at three moments."""
    config, task = task_of(RunConfig(data=source), None, lambda sentence: None)
    keras.utils.set_random_seed(0)
    vae = task.make(config)
    steps = data.steps(task.examples, config.batch_size)
    moments = [20, *(epochs for epochs in (-(-1000 // steps), -(-2000 // steps)) if epochs > 20)]
    shown = f"{name:14s} {task.examples:6d}"
    for start, stop in zip([0, *moments], moments, strict=False):
        epochs = {"epochs": stop, "initial_epoch": start}
        stream = data.batches(task.train, config.batch_size, seed=0, **epochs, **task.stream)
        vae.fit(stream, steps_per_epoch=steps, verbose=0, **epochs)
        bounds = (vae.elbo(x, num_samples=16, seed=0).elbo for x in (task.test, task.train))
        held_out, seen = map(np.mean, bounds)
        shown += f"   {stop:4d} {held_out:8.2f} ({seen:7.2f})"
    return shown


def main() -> None:
    """Prints a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*")
    warnings.simplefilter("ignore", UserWarning)
    print("file, training rows; epochs, held-out ELBO (and that of the training rows) after")
    print("20 epochs, 1000 steps and 2000 steps")
    with tempfile.TemporaryDirectory() as folder:
        sources = {"digits": "digits"}
        for name in BUNCHES:
            sources[name] = f"{folder}/{name}.csv"
            frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
            frame.to_csv(sources[name], index=False)
        for path in parser.parse_args().files:
            sources[path.stem] = str(path)
        for name, source in sources.items():
            print(measure(name, source), flush=True)


if __name__ == "__main__":
    main()
