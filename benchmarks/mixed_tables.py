"""Imputation, held-out nats and synthetic rows of mixed tables, beside simple models.

    python -m benchmarks.mixed_tables PATH_OF_TABLES --only Wine [--percent 30] [--epochs 100]
        [--python PEERS/bin/python]

PATH_OF_TABLES holds the folders Wine, Adult and defaultCredit of
github.com/probabilistic-learning/HI-VAE with its masks of cells that are missing at random (Nazabal
et al. 2020, arXiv:1807.03653). Errors are theirs: of numbers the root mean squared error over the
range of the column, of categories the share that is wrong, of ordered levels the mean distance over
their number; each averaged over the columns of the type. A tenth of the rows is not trained on; of
them held-out nats are those of the table, all entries observed. `--percent 0` hides nothing.

PEERS is an environment with ctgan (benchmarks/requirements.txt). Then TVAE of the same package (Xu
et al. 2019, arXiv:1907.00503) is trained with its default arguments on the same rows, and the VAE
trained here stops after as many seconds of CPU as TVAE took. TVAE cannot be given absent entries,
so its rows are filled with means and modes, as its users must do; and it can neither impute nor
tell log p(x), so it is compared by its synthetic rows alone. Run it on one core
(`taskset -c 0`). Results go to benchmarks/results/mixed_tables.txt.
"""

import argparse
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pandas as pd

import keras_vae
from keras_vae import evaluation
from keras_vae.data import Schema

WORKER = Path(__file__).parent / "peers" / "tvae_worker.py"
TARGETS = {"Wine": ["cat12"], "Adult": ["cat8", "count11"], "defaultCredit": ["cat23", "pos0"]}


class StopAt(keras.callbacks.Callback):
    """Ends training before the epoch that would pass a CPU time of this process, in seconds."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.end = end
        self.last = time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Takes the next epoch to last as long as this one."""
        now = time.process_time()
        self.model.stop_training = now + (now - self.last) > self.end
        self.last = now


def read(folder: Path, percent: int) -> tuple[pd.DataFrame, np.ndarray, dict[str, str]]:
    """Returns a table, which cells are hidden, and the types of its columns."""
    types = pd.read_csv(folder / "data_types.csv.gz")["type"]
    names = [f"{kind}{index}" for index, kind in enumerate(types)]
    table = pd.read_csv(folder / "data.csv.gz", header=None, names=names)
    hidden = np.zeros(table.shape, bool)
    if percent:
        cells = pd.read_csv(folder / f"Missing{percent}_1.csv.gz", header=None).to_numpy() - 1
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


def by_tvae(
    filled: pd.DataFrame, types: dict[str, str], count: int, epochs: int, python: str
) -> tuple[pd.DataFrame, float]:
    """Returns synthetic rows of TVAE and the CPU seconds of its training."""
    discrete = [name for name, kind in types.items() if kind in ("cat", "ordinal")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled.to_csv(folder / "train.csv", index=False)
        command = [python, str(WORKER), name, str(count), str(epochs), *discrete]
        subprocess.run(command, check=True)
        rows = pd.read_csv(folder / "synthetic.csv")
        return rows, float((folder / "seconds").read_text())


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
    parser.add_argument("--python", help="interpreter that has ctgan, to train TVAE too")
    parser.add_argument("--peer-epochs", type=int, default=300, help="epochs of TVAE")
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
    known = np.ones(len(table), bool)
    for name in kinds:
        known &= table[name].isin(holes.loc[train, name].dropna()).to_numpy()
    # A level that no training row shows has no probability: such rows are left out.
    table, holes = (frame[known].reset_index(drop=True) for frame in (table, holes))
    hidden, train = hidden[known], train[known]
    print(f"{arguments.only}, {hidden.mean():.0%} of the cells hidden, {train.sum()} rows")
    print(schema, flush=True)

    results: dict[str, tuple[dict[str, float], float, float]] = {}
    synthetic: dict[str, pd.DataFrame] = {}
    half = int((~train).sum()) // 2
    started = time.process_time()
    columns = evaluation.IndependentColumns.fit(holes[train], schema)
    nats = float(np.mean(columns.log_prob(table[~train])))
    filled = columns.impute(holes)
    results["mean and mode"] = (
        errors(table, filled, hidden, types),
        nats,
        time.process_time() - started,
    )
    seconds = None
    if arguments.python:
        rows, seconds = by_tvae(filled[train], types, half, arguments.peer_epochs, arguments.python)
        synthetic["TVAE"] = rows
        print(f"TVAE: {arguments.peer_epochs} epochs, {seconds:.0f} s of CPU", flush=True)
    if hidden.any():
        started = time.process_time()
        found = errors(table, by_gaussian(holes, types, 3000), hidden, types)
        results["Gaussian by EM"] = found, float("nan"), time.process_time() - started
    started = time.process_time()
    callbacks = [] if seconds is None else [StopAt(started + seconds)]
    keras.utils.set_random_seed(0)
    vae = keras_vae.table_vae(schema, arguments.latents)
    vae.compile(keras.optimizers.Adam(1e-3))
    history = vae.fit(
        holes[train], epochs=arguments.epochs, batch_size=100, verbose=0, callbacks=callbacks
    )
    seconds = time.process_time() - started
    print(f"VAE: {len(history.epoch)} epochs, {seconds:.0f} s of CPU", flush=True)
    synthetic = {"VAE": vae.sample(half, seed=0), **synthetic}
    target = TARGETS[arguments.only]
    reports = {
        name: evaluation.synthetic_report(
            table[train], rows.astype(table.dtypes), table[~train], targets=target, kinds=kinds
        ).table
        for name, rows in synthetic.items()
    }
    shown = pd.DataFrame({name: report["synthetic"] for name, report in reports.items()})
    others = reports["VAE"][["real", "independent"]]
    title = "\nsynthetic rows".ljust(34)
    print(title + shown.join(others).to_string(float_format="{:.3f}".format).lstrip(), flush=True)
    marginal = evaluation.log_marginal(vae, table[~train], num_samples=arguments.samples)
    nats = float(np.mean(marginal.value + schema.row_nats(schema.encode(table[~train]))))
    found = {}
    if hidden.any():
        filled = vae.impute(holes, arguments.samples, seed=0).values
        found = errors(table, filled, hidden, types)
    results["VAE"] = found, nats, seconds
    print(
        "\nerror of imputed     "
        + "".join(f"{kind:>12s}" for kind in found)
        + "  held-out nats   s"
    )
    for name, (found, nats, seconds) in results.items():
        shown = "".join(f"{error:12.4f}" for error in found.values())
        print(f"{name:21s}{shown}  {nats:13.2f}  {seconds:4.0f}", flush=True)


if __name__ == "__main__":
    main()
