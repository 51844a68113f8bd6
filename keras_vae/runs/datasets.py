"""Data sets of a run: training and test examples as in their files."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_vae import data
from keras_vae.data.archives import compressed_bytes
from keras_vae.data.columns import positions
from keras_vae.data.mapped import is_mapped
from keras_vae.data.row_views import ComputedRows, SelectedRows
from keras_vae.data.sparse import is_sparse
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.sequences import read_series
from keras_vae.spelling import counted

__all__ = ["Datasets", "advice", "few", "read", "spacing"]

_HELD = 2**28
"""Most bytes of an array in a file that are read into memory, which trains a tenth faster."""

_MOST_NUMBERS = 2**22
"""Most numbers in `few` rows of an array in a file."""

_LARGE = 2**30
"""Bytes of a file from which on `advice` says how to train without reading all of it."""


class Datasets(NamedTuple):
    """Training and test set as in their files.

    Attributes:
        train, test: arrays [N, ...], columns in the order of `features`; those of a large file are
            `LazyRows` or mapped.
        features: names of the columns, or empty.
        columns: description of how columns are used.
        entries: names of the entries of a step of time series, or empty.
        labels: labels of training and test examples; None where there are none.
    """

    train: Any
    test: Any
    features: tuple[str, ...]
    columns: str
    entries: tuple[str, ...] = ()
    labels: tuple[np.ndarray | None, np.ndarray | None] = (None, None)


def read(config: RunConfig) -> Datasets:
    """Reads the data of a configuration.

    Raises:
        DataError: if it cannot be read.
        RunError: if its parts do not fit together.
    """
    if not config.data:
        raise RunError("The configuration names no data: set data to a path.")
    if config.is_sequence:
        found = read_series(config)
        return Datasets(found.train, found.test, (), found.sentence, found.names)
    source = Path(config.data)
    in_two = config.data != "digits" and source.is_dir() and list(source.glob("t10k-images*"))
    if config.test_data or in_two:
        train = config.load(config.data, "train" if not config.test_data and in_two else None)
        test = (
            config.load(config.test_data) if config.test_data else config.load(config.data, "test")
        )
        names = config.features or train.feature_names or ()
        arrays = _arranged(train, names, config.data), _arranged(test, names, config.test_data)
        if arrays[0].shape[1:] != arrays[1].shape[1:]:
            raise RunError(
                f"Training examples have the shape {arrays[0].shape[1:]}, those of "
                f"{config.test_data or 'the test part'} {arrays[1].shape[1:]}. Give the same kind "
                "of data."
            )
        columns = train.columns
        if names and test.feature_names is None:
            columns += f"; {config.test_data} names no columns and is read in this order"
        sets = Datasets(*arrays, names, columns, labels=(train.labels, test.labels))
        return _mixed(sets, config)
    whole = config.load(config.data)
    names = config.features or whole.feature_names or ()
    divided = functools.partial(
        data.split, test_fraction=config.test_fraction, seed=config.seed, copy=False
    )
    arrays = divided(_arranged(whole, names, config.data))
    sets = Datasets(*arrays, names, whole.columns)
    if whole.labels is None:
        return sets
    train, test = divided(np.arange(len(whole.labels)))
    return _mixed(sets._replace(labels=(whole.labels[train], whole.labels[test])), config)


def _mixed(sets: Datasets, config: RunConfig) -> Datasets:
    """Returns test examples in a random order if, with a condition, they come class by class.

    The first ones, which reports show, are then of all classes. The order is the same for every
    seed of a run, so that `compare` finds the same examples.
    """
    train, labels = sets.labels
    if not config.condition or labels is None or labels.ndim != 1:
        return sets
    if (labels[1:] < labels[:-1]).any():
        return sets
    order = np.random.default_rng(0).permutation(len(labels))
    test = SelectedRows(sets.test, order) if is_mapped(sets.test) else sets.test[order]
    return sets._replace(test=test, labels=(train, labels[order]))


def few(x: Any) -> Any:
    """Returns an array in memory: all rows, or of a file as many, evenly spaced, as fit well."""
    return np.asarray(x[:: spacing(x)])


def spacing(x: Any) -> int:
    """Returns how far apart the rows of `few` are: 1 for an array in memory."""
    return -(-x.size // _MOST_NUMBERS) if is_mapped(x) else 1


def advice(config: RunConfig) -> str | None:
    """Returns how to train on a large file without reading all of it; None for any other source."""
    name, _, key = config.data.partition(".npz:")
    path = Path(f"{name}.npz" if key else name)
    if config.cache or config.data == "digits" or not path.is_file():
        return None
    if path.suffix.lower() == ".npz" and not is_sparse(path):
        size = compressed_bytes(path, key or None)
    else:
        size = 0 if path.suffix.lower() == ".npy" else path.stat().st_size
    if size < _LARGE:
        return None
    return (
        f"{path} has {size / 2**30:.1f} GiB and is read into memory. --cache DIRECTORY keeps its "
        "rows in a file there instead."
    )


def _arranged(found: data.Data, names: tuple[str, ...], source: str) -> Any:
    """Returns the examples with their columns in the order of `names`."""
    x = found.x
    if is_mapped(x) and x.nbytes <= _HELD:
        x = np.array(x)
    if not names or found.feature_names is None:
        if names and x.shape[-1] != len(names):
            raise RunError(
                f"{source} has {counted(x.shape[-1], 'column')} without names; expected "
                f"{len(names)}: {', '.join(names)}."
            )
        return x
    order = positions(found.feature_names, names, source)
    if order == list(range(len(order))):
        return x
    if is_mapped(x):
        return ComputedRows(x, lambda rows: rows[:, order], (len(order),), x.dtype)
    return x[:, order]
