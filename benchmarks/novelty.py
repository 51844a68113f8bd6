"""Scores of novelty on five tables and on Fashion-MNIST against MNIST, beside trivial baselines.

    python -m benchmarks.novelty tables PATH_OF_TABLES
    python -m benchmarks.novelty images PATH_OF_FASHION PATH_OF_MNIST

Tables are .npz files with `X` and `y` (1 = anomaly) of ADBench (Han et al. 2022, arXiv:2206.09426).
The split is that of benchmarks/tabular_anomaly.py, which also chooses latents and fits again to all
rows; here the model has half as many latents as features and keeps its early-stopped weights. The
normal rows that no model saw are divided 10 000 times at random into a calibration and a test half:
false alarms of the conformal p-value are counted among the test half, finds among the anomalies.

Images are 8-bit grey. Every model is one dense VAE with a discretised logistic likelihood; the
background model of the likelihood ratio is trained on images of which a fifth of the pixels are
replaced at random. A matched set holds as many novel as normal images of each compressed size, or
of each mean.
"""

import argparse
import gzip
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from sklearn.ensemble import IsolationForest

import keras_vae
from benchmarks import tabular_anomaly
from keras_vae import evaluation

RESAMPLINGS = 10_000
ALPHAS = (0.01, 0.05, 0.1)


# -------------------------------------------------------------------------------------- tables


class Alarms(NamedTuple):
    """Shares in percent of normal rows and of anomalies with a p-value of at most alpha."""

    promised: float
    false: float
    error: float
    found: float


def alarms(normal: np.ndarray, novel: np.ndarray, alpha: float, seed: int) -> Alarms:
    """Counts alarms of conformal p-values over random divisions of the normal scores."""
    rng = np.random.default_rng(seed)
    n = len(normal) // 2
    false, found = np.empty(RESAMPLINGS), np.empty(RESAMPLINGS)
    for i in range(RESAMPLINGS):
        order = rng.permutation(normal)
        calibration = evaluation.Conformal(order[:n])
        false[i] = (calibration.p_value(order[n:]) <= alpha).mean()
        found[i] = (calibration.p_value(novel) <= alpha).mean()
    promised = math.floor(alpha * (n + 1) + 1e-9) / (n + 1)
    error = false.std(ddof=1) / math.sqrt(RESAMPLINGS)
    return Alarms(*(100.0 * x for x in (promised, false.mean(), error, found.mean())))


def table(path: Path, seed: int) -> tuple[evaluation.ScoreTable, dict[float, Alarms]]:
    """Trains on one split of a table and compares the scores of its test rows."""
    data = tabular_anomaly.split(path, "novelty", seed)
    latents = -(-data.train.shape[1] // 2)
    model, stream = tabular_anomaly.model_and_stream(
        data, len(data.train), latents, "learned", seed
    )
    stop = keras.callbacks.EarlyStopping(
        "val_elbo", mode="max", patience=6, restore_best_weights=True
    )
    model.fit(
        stream,
        steps_per_epoch=tabular_anomaly.STEPS,
        epochs=40,
        validation_data=data.held_out,
        validation_batch_size=500,
        callbacks=[stop],
        verbose=0,
    )
    found = evaluation.anomaly_scores(model, data.test, num_samples=300)
    normal = evaluation.log_marginal(model, data.held_out, num_samples=300).value
    train = np.concatenate([data.train, data.held_out])
    scores = {
        "VAE, -log p": found.negative_log_marginal,
        "VAE, -ELBO": found.negative_elbo,
        "VAE, reconstruction": found.reconstruction,
        "VAE, regret": evaluation.likelihood_regret(model, data.test, steps=60, num_samples=16),
        "VAE, typicality": evaluation.typicality(-found.negative_log_marginal, normal),
        "Gaussian, any covariance": -evaluation.FullGaussian.fit(train).log_prob(data.test),
        "isolation forest": -IsolationForest(random_state=seed).fit(train).score_samples(data.test),
    }
    result = evaluation.score_table(
        scores, data.labels, train=train, x=data.test, latent_size=latents
    )
    is_novel = data.labels == 1
    score = found.negative_log_marginal
    return result, {
        alpha: alarms(score[~is_novel], score[is_novel], alpha, seed) for alpha in ALPHAS
    }


def tables(folder: Path, splits: int, first: int) -> None:
    """Prints the areas of all scores on all tables, and the alarms of the p-values."""
    names, areas, lines = [], [], []
    for path in sorted(folder.glob("*.npz")):
        started = time.perf_counter()
        results = [table(path, seed) for seed in range(first, first + splits)]
        name = path.stem.split("_", 1)[1]
        names.append(name)
        areas.append([mean_area(result for result, _ in results)])
        for alpha in ALPHAS:
            part = np.array([found[alpha] for _, found in results])
            promised, false, _, found = part.mean(axis=0)
            error = math.sqrt((part[:, 2] ** 2).sum()) / len(part)
            lines.append(
                f"{name:12s} {alpha:5.2f}  {promised:8.3f}  {false:8.3f} +- {error:.3f}  "
                f"{found:6.1f}"
            )
        print(f"# {name}: {time.perf_counter() - started:.0f} s", flush=True)
    print(f"AUROC in percent, mean of {splits} splits; trivial scores from the first mean on")
    print_columns(names, [part[0] for part in areas])
    print(
        f"\nconformal p-value of -log p, {RESAMPLINGS} resamplings of the normal test rows of each "
        "split, percent\ntable        alpha  promised  false alarms      anomalies found"
    )
    print("\n".join(lines))


def mean_area(results: object) -> dict[str, float]:
    """Averages the areas of several tables of scores, in percent."""
    found: dict[str, list[float]] = {}
    for result in results:  # type: ignore[attr-defined]
        for name, area in result:
            found.setdefault(name.split(", ")[0] if "PCA" in name else name, []).append(area.value)
    return {name: 100.0 * float(np.mean(values)) for name, values in found.items()}


def print_columns(names: list[str], columns: list[dict[str, float]]) -> None:
    """Prints one row for each score and one column for each set."""
    widths = [max(12, len(name) + 2) for name in names]
    print(" " * 26 + "".join(f"{name:>{w}s}" for name, w in zip(names, widths, strict=True)))
    for score in columns[0]:
        values = (f"{column[score]:{w}.1f}" for column, w in zip(columns, widths, strict=True))
        print(f"{score:26s}" + "".join(values))


# -------------------------------------------------------------------------------------- images


class Images(NamedTuple):
    """Grey images [n, 784], of levels from 0 to 255."""

    train: np.ndarray
    held_out: np.ndarray
    normal: np.ndarray
    novel: np.ndarray


def read(path: Path) -> np.ndarray:
    """Reads a gzipped IDX file of bytes."""
    raw = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def images(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the images and the labels of "train" or "t10k"."""
    x = read(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read(folder / f"{part}-labels-idx1-ubyte.gz")
    return x.reshape(len(x), -1), labels


def model_of(x: np.ndarray, epochs: int, seed: int) -> keras_vae.VAE:
    """Trains a dense VAE of 8-bit images."""
    keras.utils.set_random_seed(seed)
    model = keras_vae.mlp_vae(
        x.shape[1], 20, "discretized_logistic", hidden=(200, 200), levels=256, scale="decoder"
    )
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(x, batch_size=100, epochs=epochs, verbose=0)
    return model


def matched(values: np.ndarray, is_novel: np.ndarray, bins: int, most: int) -> np.ndarray:
    """Chooses as many novel as normal examples in each bin of a value; returns their indices."""
    rng = np.random.default_rng(0)
    edges = np.quantile(values, np.linspace(0.0, 1.0, bins + 1)[1:-1])
    place = np.digitize(values, edges)
    pairs = []
    for index in range(bins):
        normal, novel = (
            rng.permutation(np.flatnonzero((place == index) & (is_novel == kind)))
            for kind in (False, True)
        )
        count = min(len(normal), len(novel))
        pairs += zip(normal[:count], novel[:count], strict=True)
    chosen = rng.permutation(len(pairs))[:most]
    return np.array([pairs[i] for i in chosen]).T.ravel()


def scores_of(
    models: list[keras_vae.VAE], background: keras_vae.VAE, held_out: np.ndarray, x: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes all scores of images; the ensemble is all models, the others are of the first."""
    vae, draws = models[0], 100
    logs = [evaluation.log_marginal(model, x, num_samples=draws).value for model in models]
    normal = evaluation.log_marginal(vae, held_out, num_samples=draws).value
    simple = evaluation.anomaly_scores(vae, x, num_samples=1)
    return {
        "-log p": -logs[0],
        "-ELBO": simple.negative_elbo,
        "reconstruction": simple.reconstruction,
        "regret": evaluation.likelihood_regret(vae, x, steps=50, num_samples=8),
        "ratio": evaluation.likelihood_ratio(vae, background, x, num_samples=draws),
        "input complexity": evaluation.input_complexity(logs[0], x),
        "typicality": evaluation.typicality(logs[0], normal),
        "ensemble": evaluation.ensemble_score(logs),
    }


def compare(data: Images, epochs: int, count: int, ensemble: int) -> None:
    """Trains on one set of images and prints the areas on all and on matched examples."""
    started = time.perf_counter()
    models = [model_of(data.train, epochs, seed) for seed in range(ensemble)]
    noisy = evaluation.mutated(data.train, 0.2, values=np.arange(256), seed=0)
    background = model_of(noisy, epochs, 0)
    x = np.concatenate([data.normal, data.novel])
    is_novel = np.repeat([False, True], [len(data.normal), len(data.novel)])
    measures: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
        "matched size": evaluation.compressed_bits,
        "matched mean": lambda part: part.mean(axis=1),
    }
    sets = {"all": np.flatnonzero(matched_count(is_novel, count))}
    sets |= {name: matched(measure(x), is_novel, 100, count) for name, measure in measures.items()}
    areas, errors = {}, []
    for name, rows in sets.items():
        found = evaluation.score_table(
            scores_of(models, background, data.held_out, x[rows]),
            is_novel[rows],
            train=data.train.reshape(-1, 28, 28),
            x=x[rows].reshape(-1, 28, 28),
        )
        areas[f"{name} ({len(rows)})"] = mean_area([found])
        errors += [area.error for _, area in found]
    print_columns(list(areas), list(areas.values()))
    print(
        f"largest standard error {100 * max(errors):.1f}; {len(data.train)} images, {epochs} "
        f"epochs, {ensemble} models, {time.perf_counter() - started:.0f} s",
        flush=True,
    )


def matched_count(is_novel: np.ndarray, count: int) -> np.ndarray:
    """Tells which examples are among the first `count` of their kind."""
    return np.where(is_novel, np.cumsum(is_novel), np.cumsum(~is_novel)) <= count


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    of_tables = commands.add_parser("tables")
    of_tables.add_argument("folder", type=Path)
    of_tables.add_argument("--splits", type=int, default=3)
    of_tables.add_argument("--first-split", type=int, default=500)
    of_images = commands.add_parser("images")
    of_images.add_argument("fashion", type=Path)
    of_images.add_argument("mnist", type=Path)
    of_images.add_argument("--epochs", type=int, default=6)
    of_images.add_argument("--count", type=int, default=500, help="examples of each kind")
    of_images.add_argument("--ensemble", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    if arguments.command == "tables":
        tables(arguments.folder, arguments.splits, arguments.first_split)
        return
    sets = {name: getattr(arguments, name) for name in ("fashion", "mnist")}
    for inside, outside in (("fashion", "mnist"), ("mnist", "fashion")):
        train, _ = images(sets[inside], "train")
        test, _ = images(sets[inside], "t10k")
        novel, _ = images(sets[outside], "t10k")
        print(f"\n{inside} in, {outside} out, AUROC in percent", flush=True)
        data = Images(train, test[:1000], test[1000:], novel)
        compare(data, arguments.epochs, arguments.count, arguments.ensemble)
    (train, kinds), (test, test_kinds) = (images(sets["fashion"], s) for s in ("train", "t10k"))
    known = (0, 2, 3, 4, 6)
    normal = test[np.isin(test_kinds, known)]
    print("\nfashion, tops and dresses in, trousers, shoes and bags out, AUROC in percent")
    data = Images(
        train[np.isin(kinds, known)],
        normal[:1000],
        normal[1000:],
        test[~np.isin(test_kinds, known)],
    )
    compare(data, 2 * arguments.epochs, arguments.count, arguments.ensemble)


if __name__ == "__main__":
    main()
