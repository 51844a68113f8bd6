"""Anomaly detection on five tables: a Gaussian VAE scored by -log p(x) beside probabilistic PCA.

    python benchmarks/tabular_anomaly.py PATH_OF_TABLES [--protocol unsupervised] [--scale decoder]

PATH_OF_TABLES holds .npz files with `X` and `y` (1 = anomaly) of ADBench (Han et al. 2022,
arXiv:2206.09426). Every model sees the same split of each table:

    novelty        trained on half of the normal rows, tested on the other half and all anomalies
    unsupervised   trained on 70 % of all rows, anomalies among them, tested on the others; both
                   parts hold the same share of anomalies, as in ADBench

No label is used but to draw the split and to compute the final AUROC. Features are standardised by
the training rows and dequantised by their resolution (the median distance between neighbouring
values), so that no density can become infinite on repeated values or on columns that are sums of
others. A seventh of the training rows is held out: by its log p(x) the VAE is stopped early, its
number of latents chosen among half the features and one less than all, and that of probabilistic
PCA among all numbers. The noise of both is one scale for all standardised features.
"""

import argparse
import dataclasses
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

import keras_vae
from keras_vae import runs
from keras_vae.evaluation import anomaly_scores, log_marginal, mean_and_error

RECIPE = Path(__file__).parent.parent / "recipes" / "tabular-anomaly.toml"
STEPS = 100  # between two looks at the held-out bound


class Split(NamedTuple):
    """Rows [n, D], standardised; the training rows without noise, all others dequantised."""

    clean: np.ndarray
    train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    labels: np.ndarray
    resolution: np.ndarray


def split(path: Path, protocol: str, seed: int) -> Split:
    """The rows that a protocol trains and tests on."""
    with np.load(path) as table:
        x, y = table["X"].astype(np.float64), table["y"].astype(int)
    rows = np.arange(len(x))
    if protocol == "novelty":
        normal = np.random.default_rng(seed).permutation(rows[y == 0])
        train, rest = np.array_split(normal, 2)
        test = np.concatenate([rest, rows[y == 1]])
    else:
        train, test = train_test_split(rows, test_size=0.3, stratify=y, random_state=seed)
    loc, scale = x[train].mean(axis=0), x[train].std(axis=0)
    x = (x - loc) / np.where(scale > 1e-9, scale, 1.0)
    resolution = np.array([step(column) for column in x[train].T])
    noise = np.random.default_rng([seed, 1]).uniform(-0.5, 0.5, x.shape) * resolution
    cut = len(train) * 6 // 7
    fitted, held_out = train[:cut], train[cut:]
    noisy = (x + noise).astype(np.float32)
    return Split(
        x[fitted].astype(np.float32),
        noisy[fitted],
        noisy[held_out],
        noisy[test],
        y[test],
        resolution.astype(np.float32),
    )


def step(column: np.ndarray) -> float:
    """Median distance between neighbouring values of a standardised column."""
    values = np.unique(column.round(6))
    return float(np.median(np.diff(values))) if len(values) > 1 else 1.0


def vae(data: Split, latents: int, scale: str, seed: int) -> tuple[float, keras_vae.VAE]:
    """The recipe's model, stopped early, and its held-out log p(x)."""
    config = dataclasses.replace(
        runs.read_config(RECIPE, needs_data=False),
        latent=latents,
        likelihood_options={"scale": scale},
    )
    keras.utils.set_random_seed(seed)
    model = config.build(data.train.shape[1:])
    model.steps_per_execution = 20
    stream = (
        tf.data.Dataset.from_tensor_slices(data.clean)
        .cache()
        .shuffle(len(data.clean), seed=seed)
        .repeat()
        .batch(config.batch_size)
        .map(lambda x: x + data.resolution * tf.random.uniform(tf.shape(x), -0.5, 0.5))
    )
    stop = keras.callbacks.EarlyStopping(
        "val_elbo", mode="max", patience=6, restore_best_weights=True
    )
    model.fit(
        stream,
        steps_per_epoch=STEPS,
        epochs=40,
        validation_data=data.held_out,
        validation_batch_size=500,
        callbacks=[stop],
        verbose=0,
    )
    return float(np.mean(log_marginal(model, data.held_out, num_samples=100).value)), model


def ppca(data: Split) -> tuple[int, keras_vae.LinearGaussian]:
    """Probabilistic PCA with the number of latents that held-out rows like best."""
    both = np.concatenate([data.train, data.held_out])
    held_out = {
        latents: float(
            np.mean(keras_vae.LinearGaussian.fit(data.train, latents).log_prob(data.held_out))
        )
        for latents in range(1, both.shape[1])
    }
    best = max(held_out, key=held_out.__getitem__)
    return best, keras_vae.LinearGaussian.fit(both, best)


class Result(NamedTuple):
    """What one split of a table gave.

    Attributes:
        auroc: in percent: VAE by -log p and by -ELBO, probabilistic PCA, isolation forest.
        latents: that were chosen for the VAE and for probabilistic PCA.
        rows, features: of the training part.
        seconds: for all of it.
    """

    auroc: list[float]
    latents: tuple[int, int]
    rows: int
    features: int
    seconds: float


def measure(path: Path, protocol: str, scale: str, seed: int) -> Result:
    """Trains, chooses and scores all models on one split."""
    started = time.perf_counter()
    data = split(path, protocol, seed)
    features = data.train.shape[1]
    tried = {n: vae(data, n, scale, seed) for n in (-(-features // 2), features - 1)}
    best = max(tried, key=lambda n: tried[n][0])
    scores = anomaly_scores(tried[best][1], data.test, num_samples=500)
    latents, linear = ppca(data)
    forest = IsolationForest(random_state=seed)
    forest.fit(np.concatenate([data.train, data.held_out]))
    auroc = [
        100.0 * float(roc_auc_score(data.labels, score))
        for score in (
            scores.negative_log_marginal,
            scores.negative_elbo,
            -linear.log_prob(data.test).numpy(),
            -forest.score_samples(data.test),
        )
    ]
    rows = len(data.train) + len(data.held_out)
    seconds = time.perf_counter() - started
    return Result(auroc, (best, latents), rows, features, seconds)


def line(name: str, results: Sequence[Result]) -> str:
    """A table's results in one line."""
    auroc = np.array([result.auroc for result in results])
    columns = "  ".join(f"{column.mean():5.1f} +- {column.std(ddof=1):3.1f}" for column in auroc.T)
    difference, error = mean_and_error(auroc[:, 0] - auroc[:, 2])
    latents = [
        "-".join(map(str, sorted({*pair})))
        for pair in zip(*(r.latents for r in results), strict=True)
    ]
    return (
        f"{name:13s} {results[0].rows:5d} x {results[0].features:2d}  {columns}   "
        f"{difference:+6.2f} +- {error:4.2f}  {' and '.join(latents)}, "
        f"{sum(result.seconds for result in results):.0f} s"
    )


def main() -> None:
    """Prints one line for each table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("--protocol", choices=["novelty", "unsupervised"], default="novelty")
    parser.add_argument("--scale", choices=["learned", "per_feature", "decoder"], default="learned")
    parser.add_argument("--splits", type=int, default=5, help="at least 2")
    parser.add_argument("--first-split", type=int, default=200, help="seed of the first split")
    parser.add_argument("--only", default="", help="part of a table's name")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    print(
        f"AUROC in percent, {arguments.protocol}, scale {arguments.scale}; mean and standard "
        f"deviation over {arguments.splits} splits; difference with its standard error\n"
        "table                       VAE -log p   VAE -ELBO         PPCA       forest"
        "       VAE - PPCA  latents of VAE and PPCA, time"
    )
    seeds = range(arguments.first_split, arguments.first_split + arguments.splits)
    for path in sorted(arguments.tables.glob("*.npz")):
        if arguments.only in path.stem:
            results = [measure(path, arguments.protocol, arguments.scale, seed) for seed in seeds]
            print(line(path.stem, results), flush=True)


if __name__ == "__main__":
    main()
