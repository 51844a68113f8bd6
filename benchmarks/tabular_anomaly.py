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
others. A seventh of the training rows is held out: by its bound the VAE is stopped early, by its
log p(x) the number of latents is chosen, among half the features and one less than all, and that of
probabilistic PCA among all numbers. Both are then fitted again to all training rows, the VAE for as
many steps as led to its best bound. The noise of both is one scale for all standardised features.
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
from keras_vae.evaluation import anomaly_scores, log_marginal, mean_and_error
from keras_vae.runs.building import build
from keras_vae.runs.config_file import read_config

RECIPE = Path(__file__).parent.parent / "recipes" / "tabular-anomaly.toml"
STEPS = 100  # between two looks at the held-out bound


class Split(NamedTuple):
    """Rows [n, D], standardised; all but the clean ones are dequantised.

    Attributes:
        clean: all training rows without noise, the held-out ones last.
        train, held_out: the two parts of the training rows.
        test, labels: rows to score, and 1 for an anomaly.
        resolution: width of the noise of each feature, [D].
    """

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
    noisy = (x + noise).astype(np.float32)
    return Split(
        x[train].astype(np.float32),
        noisy[train[:cut]],
        noisy[train[cut:]],
        noisy[test],
        y[test],
        resolution.astype(np.float32),
    )


def step(column: np.ndarray) -> float:
    """Median distance between neighbouring values of a standardised column."""
    values = np.unique(column.round(6))
    return float(np.median(np.diff(values))) if len(values) > 1 else 1.0


class Candidate(NamedTuple):
    """A number of latents, the steps that led to its best held-out bound, and log p(x) there."""

    latents: int
    steps: int
    held_out: float


def model_and_stream(
    data: Split, rows: int, latents: int, scale: str, seed: int
) -> tuple[keras_vae.VAE, tf.data.Dataset]:
    """The recipe's model and batches without end of the first training rows, with fresh noise."""
    config = dataclasses.replace(
        read_config(RECIPE, needs_data=False),
        latent=latents,
        likelihood_options={"scale": scale},
    )
    keras.utils.set_random_seed(seed)
    model = build(config, data.train.shape[1:])
    model.steps_per_execution = 20
    stream = (
        tf.data.Dataset.from_tensor_slices(data.clean[:rows])
        .cache()
        .shuffle(rows, seed=seed)
        .repeat()
        .batch(config.batch_size)
        .map(lambda x: x + data.resolution * tf.random.uniform(tf.shape(x), -0.5, 0.5))
    )
    return model, stream


def candidate(data: Split, latents: int, scale: str, seed: int) -> Candidate:
    """Trains with one number of latents and measures the held-out rows."""
    model, stream = model_and_stream(data, len(data.train), latents, scale, seed)
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
    held_out = float(np.mean(log_marginal(model, data.held_out, num_samples=100).value))
    return Candidate(latents, STEPS * (stop.best_epoch + 1), held_out)


def vae(data: Split, scale: str, seed: int) -> tuple[Candidate, keras_vae.VAE]:
    """The VAE with the better number of latents, trained on all training rows."""
    features = data.train.shape[1]
    tried = [candidate(data, n, scale, seed) for n in (-(-features // 2), features - 1)]
    best = max(tried, key=lambda one: one.held_out)
    model, stream = model_and_stream(data, len(data.clean), best.latents, scale, seed)
    model.fit(stream, steps_per_epoch=STEPS, epochs=best.steps // STEPS, verbose=0)
    return best, model


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
    """Result for one split of a table.

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
    best, model = vae(data, scale, seed)
    scores = anomaly_scores(model, data.test, num_samples=500)
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
    seconds = time.perf_counter() - started
    return Result(auroc, (best.latents, latents), *data.clean.shape, seconds)


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
    parser.add_argument("--first-split", type=int, default=400, help="seed of the first split")
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
