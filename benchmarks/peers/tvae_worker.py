"""TVAE of the package ctgan on the table of a folder, in an environment that has it.

    python benchmarks/peers/tvae_worker.py FOLDER COUNT EPOCHS [DISCRETE ...]

Trains TVAE with its default arguments but for the epochs on FOLDER/train.csv, whose columns
DISCRETE are categories. COUNT synthetic rows go to FOLDER/synthetic.csv, and the CPU seconds of the
training to FOLDER/seconds.
"""

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ctgan import TVAE


def main() -> None:
    """Trains a model and writes its rows."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    folder, count, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    table = pd.read_csv(folder / "train.csv")
    started = time.process_time()
    model = TVAE(epochs=epochs, enable_gpu=False)
    model.fit(table, sys.argv[4:])
    (folder / "seconds").write_text(str(time.process_time() - started))
    model.sample(count).to_csv(folder / "synthetic.csv", index=False)


if __name__ == "__main__":
    main()
