"""Anomaly detection on five tables: a Gaussian VAE scored by -log p(x) beside probabilistic PCA.

    python benchmarks/tabular_anomaly.py PATH_OF_TABLES

PATH_OF_TABLES holds .npz files with `X` and `y` (1 = anomaly) of ADBench. Both models see the same
split: half of the normal examples to train on, standardised by them, the other half and all
anomalies to test. Probabilistic PCA, by maximum likelihood, has as many latents as the VAE.
"""

import argparse
import time
import warnings
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import roc_auc_score

import keras_vae
from keras_vae.evaluation import anomaly_scores


def split(path: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training examples, test examples and their labels."""
    with np.load(path) as table:
        x, y = table["X"].astype(np.float64), table["y"]
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
    train, held_out = np.array_split(normal, 2)
    test = np.concatenate([held_out, np.flatnonzero(y == 1)])
    loc, scale = x[train].mean(axis=0), x[train].std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    return (x[train] - loc) / scale, (x[test] - loc) / scale, y[test]


def fit(x: np.ndarray, latents: int, seed: int, steps: int) -> keras_vae.VAE:
    """A VAE of one hidden layer, stopped where the bound on a held-out seventh is highest."""
    keras.utils.set_random_seed(seed)
    vae = keras_vae.mlp_vae(
        x.shape[1], latents, "normal", hidden=(64,), activation="tanh", scale="learned"
    )
    cut = len(x) * 6 // 7
    epochs = min(150, max(30, steps // -(-cut // 64)))
    stop = keras.callbacks.EarlyStopping(
        "val_elbo", mode="max", patience=15, restore_best_weights=True
    )
    vae.compile(keras.optimizers.Adam(3e-3))
    vae.fit(
        x[:cut],
        validation_data=x[cut:],
        epochs=epochs,
        batch_size=64,
        callbacks=[stop],
        verbose=0,
    )
    return vae


def main() -> None:
    """Prints one line for each table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path)
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    print(
        "AUROC in percent, mean over splits   VAE -log p   VAE -ELBO   reconstr.   PPCA   seconds"
    )
    for path in sorted(arguments.tables.glob("*.npz")):
        if arguments.only not in path.stem:
            continue
        rows, started = [], time.perf_counter()
        for seed in range(arguments.splits):
            train, test, labels = split(path, seed)
            latents = max(1, train.shape[1] // 2)
            ppca = keras_vae.LinearGaussian.fit(train, latents)
            vae = fit(train.astype("float32"), latents, seed, arguments.steps)
            auroc = anomaly_scores(vae, test.astype("float32"), labels, num_samples=500).auroc
            assert auroc is not None
            rows.append([*auroc.values(), roc_auc_score(labels, -ppca.log_prob(test).numpy())])
        mean = 100.0 * np.mean(rows, axis=0)
        print(
            f"{path.stem:18s} {len(train):5d} x {train.shape[1]:2d}, {latents:2d} latents"
            "   {:10.2f}  {:10.2f}  {:10.2f} {:6.2f}".format(*mean),
            f"  {time.perf_counter() - started:7.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
