"""Counts of single cells: models of three families beside independent genes.

    python benchmarks/counts.py PATH_OF_10X_MATRIX [--out benchmarks/results/counts.txt]

The file is a 10x matrix (HDF5, group `matrix`). One cell in ten is held out for the figures, and
one in ten of the others stops the training. Figures are held-out nats per cell, log p(x) by
importance sampling, a lower bound, with the standard error over cells.

There are two tables. In the first nothing is known of a cell. In the second its total is given: the
means are shares of it, m = total * softmax(decoder), and log p(x) is log p(x | total).
The two are not comparable. Every model has 8 latents, one hidden layer of 64 and a dispersion per
gene, and reads the sparse matrix as it is.
"""

import argparse
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import scipy.optimize
from scipy import sparse, stats

import keras_vae
from keras_vae import data
from keras_vae.evaluation import IndependentColumns, log_marginal, mean_and_error

FAMILIES = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")
DRAWS = 500


def read_cells(path: Path) -> sparse.csr_array:
    """Returns the counts of a 10x matrix, cells x genes, without empty cells."""
    with h5py.File(path) as file:
        parts = file["matrix"]
        shape = parts["shape"][()]
        cells = sparse.csc_array((parts["data"], parts["indices"], parts["indptr"]), shape).T
    cells = cells.tocsr().astype(np.float32)
    return cells[cells.sum(axis=1) > 0]


def inputs_of(x: sparse.csr_array, sized: bool) -> Any:
    """Returns what a model takes: the counts, with the logarithm of their total if it is given."""
    if not sized:
        return x
    return {"x": x, "condition": np.log(x.sum(axis=1))[:, None].astype(np.float32)}


def trained(
    family: str, sized: bool, train: Any, held_out: Any, activation: str = "tanh"
) -> tuple[keras_vae.VAE, int]:
    """Trains a model until the bound on held-out cells stops rising; returns it and the epochs."""
    keras.utils.set_random_seed(0)
    options = {"offset": True, "link": "softmax", "condition_shape": 1} if sized else {}
    vae = keras_vae.mlp_vae(
        train.shape[1], 8, family, hidden=(64,), activation=activation, **options
    )
    keras_vae.factories.start_at_mean(vae, np.asarray(train.mean(axis=0)))
    vae.compile(keras.optimizers.Adam(2e-3))
    stop = keras.callbacks.EarlyStopping(
        "val_loss", patience=15, restore_best_weights=True, start_from_epoch=10
    )
    history = vae.fit(
        inputs_of(train, sized),
        epochs=200,
        batch_size=64,
        validation_data=inputs_of(held_out, sized),
        callbacks=[stop],
        verbose=0,
    )
    return vae, len(history.epoch)


def of_independent_genes(train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Returns log p(x) of each test cell under genes that know nothing of one another."""
    frequencies = IndependentColumns.fit(train, dict.fromkeys(range(train.shape[1]), "categorical"))
    counts = IndependentColumns.fit(train, dict.fromkeys(range(train.shape[1]), "count"))
    return {
        "independent genes, histograms": frequencies.log_prob(test),
        "independent genes, negative binomial": counts.log_prob(test),
    }


def of_shares(train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Returns log p(x | total) of each test cell if a gene's share is the same in every cell."""
    shares = np.maximum(train.sum(axis=0), 0.5) / train.sum()
    sizes = test.sum(axis=1, keepdims=True)
    found = np.zeros(len(test))
    for gene, share in enumerate(shares):
        mean = share * train.sum(axis=1)

        def loss(log_t: float, x: np.ndarray = train[:, gene], mean: np.ndarray = mean) -> float:
            t = np.exp(log_t)
            return -stats.nbinom(t, t / (t + mean)).logpmf(x).sum()

        best = scipy.optimize.minimize_scalar(loss, bounds=(-8.0, 12.0), method="bounded")
        t, mean = np.exp(best.x), share * sizes[:, 0]
        found += stats.nbinom(t, t / (t + mean)).logpmf(test[:, gene])
    return {
        "constant shares, Poisson": stats.poisson(shares * sizes).logpmf(test).sum(axis=1),
        "constant shares, negative binomial": found,
    }


def figure(values: np.ndarray) -> str:
    """Returns a mean with its standard error."""
    mean, error = mean_and_error(values)
    return f"{mean:9.2f} +- {error:4.2f}"


def main() -> None:
    """Trains the models and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cells = read_cells(arguments.path)
    rest, test = data.split(cells, test_fraction=0.1, seed=0)
    train, held_out = data.split(rest, test_fraction=0.1, seed=1)
    share = 100 * cells.nnz / np.prod(cells.shape)
    lines = [
        f"{cells.shape[0]} cells, {cells.shape[1]} genes, {share:.1f} % of the entries not 0, "
        f"median total {np.median(cells.sum(axis=1)):g}; {test.shape[0]} test cells; "
        f"log p(x) by {DRAWS} weighted draws; keras_vae {keras_vae.__version__}"
    ]
    for sized, baselines in ((False, of_independent_genes), (True, of_shares)):
        lines += ["", f"{'log p(x | total)' if sized else 'log p(x)':46}{'nats per cell':>17}"]
        for name, values in baselines(rest.toarray(), test.toarray()).items():
            lines.append(f"{name:46}{figure(values):>17}")
        for family in FAMILIES:
            vae, epochs = trained(family, sized, train, held_out)
            values = log_marginal(vae, inputs_of(test, sized), num_samples=DRAWS, seed=0).value
            line = f"{'VAE, ' + family:46}{figure(np.asarray(values)):>17}"
            lines.append(f"{line}   {epochs} epochs")
            print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
