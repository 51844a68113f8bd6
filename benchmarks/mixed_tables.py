"""Imputation, held-out nats and synthetic rows of mixed tables, beside simple models.

    python -m benchmarks.mixed_tables PATH_OF_TABLES --only Wine [--percent 30] [--epochs 100]

PATH_OF_TABLES holds the folders Wine, Adult and defaultCredit of
github.com/probabilistic-learning/HI-VAE with its masks of cells that are missing at random (Nazabal
et al. 2020, arXiv:1807.03653). Errors are theirs: of numbers the root mean squared error over the
range of the column, of categories the share that is wrong, of ordered levels the mean distance over
their number; each averaged over the columns of the type. A tenth of the rows is not trained on; of
them held-out nats are those of the table, all entries observed.
"""

import argparse
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pandas as pd

import keras_vae
from keras_vae import evaluation
from keras_vae.data import Schema


def read(folder: Path, percent: int) -> tuple[pd.DataFrame, np.ndarray, dict[str, str]]:
    """Returns a table, which cells are hidden, and the types of its columns."""
    types = pd.read_csv(folder / "data_types.csv.gz")["type"]
    names = [f"{kind}{index}" for index, kind in enumerate(types)]
    table = pd.read_csv(folder / "data.csv.gz", header=None, names=names)
    cells = pd.read_csv(folder / f"Missing{percent}_1.csv.gz", header=None).to_numpy() - 1
    hidden = np.zeros(table.shape, bool)
    hidden[cells[:, 0], cells[:, 1]] = True
    return table, hidden, dict(zip(names, types, strict=True))


def errors(
    table: pd.DataFrame, filled: pd.DataFrame, hidden: np.ndarray, types: dict[str, str]
) -> dict[str, float]:
    """Computes the error of each type over its columns."""
    found: dict[str, list[float]] = {}
    for place, (name, kind) in enumerate(types.items()):
        rows = hidden[:, place]
        truth, guess = table[name][rows].to_numpy(), filled[name][rows].to_numpy()
        if kind == "cat":
            found.setdefault("categories", []).append((truth != guess).mean())
            continue
        apart = truth.astype(float) - guess.astype(float)
        if kind == "ordinal":
            levels = table[name].nunique()
            found.setdefault("ordinal", []).append(np.abs(apart).mean() / levels)
        else:
            span = float(table[name].max() - table[name].min())
            found.setdefault("numbers", []).append(float(np.sqrt((apart**2).mean())) / span)
    return {kind: float(np.mean(values)) for kind, values in found.items()}


def by_gaussian(holes: pd.DataFrame, types: dict[str, str], most: int) -> pd.DataFrame:
    """Imputes by a normal distribution of numbers and one-hot categories, fitted by EM."""
    parts, places = [], {}
    for name, kind in types.items():
        start = sum(part.shape[1] for part in parts)
        column = holes[name]
        if kind == "cat":
            levels = np.sort(column.dropna().unique())
            part = (column.to_numpy()[:, None] == levels).astype(float)
            part[column.isna()] = np.nan
        else:
            levels, part = None, column.to_numpy(float)[:, None]
        parts.append(part)
        places[name] = (start, start + part.shape[1], levels)
    x = np.concatenate(parts, axis=1)
    loc, scale = np.nanmean(x, axis=0), np.nanstd(x, axis=0)
    x = (x - loc) / np.where(scale > 0.0, scale, 1.0)
    gaussian = evaluation.FullGaussian.fit(x[:most], ridge=1e-2, tolerance=1e-3)
    filled = gaussian.impute(x) * scale + loc
    table = holes.copy()
    for name, (start, stop, levels) in places.items():
        absent = holes[name].isna()
        values = filled[:, start:stop]
        guess = values[:, 0] if levels is None else levels[values.argmax(axis=1)]
        if types[name] == "ordinal":
            guess = guess.round()
        table[name] = holes[name].where(~absent, guess)
    return table


def main() -> None:
    """Prints the errors, the held-out nats, and the report on synthetic rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("--only", default="Wine")
    parser.add_argument("--percent", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rows", type=int, default=None, help="most rows that are used")
    parser.add_argument("--latents", type=int, default=10)
    parser.add_argument("--samples", type=int, default=200)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    table, hidden, types = read(arguments.tables / arguments.only, arguments.percent)
    order = np.random.default_rng(0).permutation(len(table))[: arguments.rows]
    table, hidden = table.iloc[order].reset_index(drop=True), hidden[order]
    train = np.arange(len(table)) < len(table) * 9 // 10
    holes = table.mask(hidden)
    named = {"cat": "categorical", "ordinal": "ordinal"}
    kinds = {name: named[kind] for name, kind in types.items() if kind in named}
    binary = {name for name in kinds if kinds[name] == "categorical" and table[name].nunique() == 2}
    schema = Schema.of(holes[train], kinds=kinds | dict.fromkeys(binary, "binary"))
    print(f"{arguments.only}, {hidden.mean():.0%} of the cells hidden, {train.sum()} rows")
    print(schema, flush=True)

    results: dict[str, tuple[dict[str, float], float, float]] = {}
    started = time.perf_counter()
    columns = evaluation.IndependentColumns.fit(holes[train], schema)
    nats = float(np.mean(columns.log_prob(table[~train])))
    found = errors(table, columns.impute(holes), hidden, types)
    results["mean and mode"] = found, nats, time.perf_counter() - started
    started = time.perf_counter()
    found = errors(table, by_gaussian(holes, types, 3000), hidden, types)
    results["Gaussian by EM"] = found, float("nan"), time.perf_counter() - started
    started = time.perf_counter()
    keras.utils.set_random_seed(0)
    vae = keras_vae.table_vae(schema, arguments.latents)
    vae.compile(keras.optimizers.Adam(1e-3))
    vae.fit(holes[train], epochs=arguments.epochs, batch_size=100, verbose=0)
    filled = vae.impute(holes, arguments.samples, seed=0).values
    known = schema.encode(table[~train])
    marginal = evaluation.log_marginal(vae, table[~train], num_samples=arguments.samples)
    nats = float(np.mean(marginal.value + schema.row_nats(known)))
    found = errors(table, filled, hidden, types)
    results["VAE"] = found, nats, time.perf_counter() - started
    print(
        "error of imputed     " + "".join(f"{kind:>12s}" for kind in found) + "  held-out nats   s"
    )
    for name, (found, nats, seconds) in results.items():
        shown = "".join(f"{error:12.4f}" for error in found.values())
        print(f"{name:21s}{shown}  {nats:13.2f}  {seconds:4.0f}", flush=True)
    synthetic = vae.sample(int((~train).sum()) // 2, seed=0)
    target = list(types)[-1]
    report = evaluation.synthetic_report(
        table[train], synthetic.astype(table.dtypes), table[~train], targets=[target]
    )
    print(f"\nsynthetic rows of the VAE\n{report}")


if __name__ == "__main__":
    main()
