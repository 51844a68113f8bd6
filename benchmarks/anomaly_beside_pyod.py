"""PyOD's VAE on the splits of `benchmarks/tabular_anomaly.py`, beside two baselines.

    python -m benchmarks.anomaly_beside_pyod PATH_OF_TABLES --python PEERS/bin/python

PEERS is an environment with PyOD. Its VAE is trained with its default arguments on the training
rows of each split, and scores test rows by the distance to their reconstruction. Probabilistic PCA
and the isolation forest see the same rows. Results go to benchmarks/results/anomaly_beside_pyod.txt
and stand beside those of tabular_anomaly.txt.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from benchmarks.tabular_anomaly import ppca, split

WORKER = Path(__file__).parent / "peers" / "pyod_worker.py"


def main() -> None:
    """Prints one line for each table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("--python", required=True, help="interpreter that has PyOD")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--first-split", type=int, default=400, help="seed of the first split")
    arguments = parser.parse_args()
    seeds = range(arguments.first_split, arguments.first_split + arguments.splits)
    tables = sorted(arguments.tables.glob("*.npz"))
    splits = {(path.stem, seed): split(path, "novelty", seed) for path in tables for seed in seeds}
    rows = {key: np.concatenate([each.train, each.held_out]) for key, each in splits.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for (table, seed), each in splits.items():
            np.savez(folder / f"{table}-{seed}.npz", train=rows[table, seed], test=each.test)
        subprocess.run([arguments.python, str(WORKER), name], check=True)
        version = (folder / "version").read_text()
        scores = {key: np.load(folder / "{}-{}.scores.npy".format(*key)) for key in splits}
    lines = [
        f"AUROC in percent, novelty, mean and standard deviation over {len(seeds)} splits; PyOD "
        f"{version}, default arguments",
        f"{'table':16}{'PyOD VAE':>16}{'PPCA':>16}{'forest':>16}",
    ]
    for path in tables:
        columns = []
        for seed in seeds:
            key = (path.stem, seed)
            forest = IsolationForest(random_state=seed).fit(rows[key])
            found = (
                scores[key],
                -ppca(splits[key])[1].log_prob(splits[key].test).numpy(),
                -forest.score_samples(splits[key].test),
            )
            columns.append([100 * roc_auc_score(splits[key].labels, one) for one in found])
        means, spread = np.mean(columns, axis=0), np.std(columns, axis=0, ddof=1)
        figures = [f"{m:.1f} +- {s:.1f}" for m, s in zip(means, spread, strict=True)]
        lines.append(f"{path.stem:16}" + "".join(f"{one:>16}" for one in figures))
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    Path(__file__).parent.joinpath("results", "anomaly_beside_pyod.txt").write_text(text)


if __name__ == "__main__":
    main()
