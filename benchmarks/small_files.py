"""Held-out bounds of small files after 20 epochs, and after those that "auto" chooses.

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

from keras_vae.runs.config import RunConfig
from keras_vae.runs.tasks import task_of
from keras_vae.runs.train import fit

BUNCHES = ("wine", "breast_cancer", "iris", "diabetes")


SETTINGS: tuple[dict, ...] = ({"epochs": 20}, {"epochs": "auto"})
"""Settings of the trainings of a file."""


def measure(name: str, source: str) -> str:
    """Trains models of a file and returns their held-out and training bounds in a line."""
    shown = ""
    for settings in SETTINGS:
        config, task = task_of(RunConfig(data=source, **settings), None, lambda sentence: None)
        keras.utils.set_random_seed(0)
        vae = task.make(config)
        fit(vae, config, task)
        bounds = (vae.elbo(x, num_samples=16, seed=0).elbo for x in (task.test, task.train))
        held_out, seen = map(np.mean, bounds)
        shown += f"   {config.epochs:4d} {held_out:8.2f} ({seen:7.2f})"
    return f"{name:14s} {task.examples:6d}{shown}"


def main() -> None:
    """Prints a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*")
    warnings.simplefilter("ignore", UserWarning)
    print(
        "file, training rows; epochs, held-out ELBO (and that of the training rows) after 20 epochs"
    )
    print("and after those that --epochs auto chooses")
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
