"""PyOD's VAE on the splits of a folder, in an environment that has PyOD.

    python benchmarks/peers/pyod_worker.py FOLDER

Each `NAME.npz` of FOLDER holds the arrays train and test. The anomaly scores of the test rows, by a
VAE with the default arguments of PyOD, go to `NAME.scores.npy`.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pyod
import torch
from pyod.models.vae import VAE


def main() -> None:
    """Trains a model for each split and writes its scores."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as split:
            train, test = split["train"], split["test"]
        started = time.process_time()
        detector = VAE(verbose=0).fit(train)
        np.save(path.with_suffix(".scores.npy"), detector.decision_function(test))
        print(path.stem, f"{time.process_time() - started:.1f} s", flush=True)
    (folder / "version").write_text(pyod.version.__version__)


if __name__ == "__main__":
    main()
