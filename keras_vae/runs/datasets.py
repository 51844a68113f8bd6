"""Data sets of a run: training and test examples as in their files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_vae import data
from keras_vae.data.columns import positions
from keras_vae.runs.config import RunConfig, RunError

__all__ = ["Datasets", "read"]


class Datasets(NamedTuple):
    """Training and test set as in their files.

    Attributes:
        train, test: arrays [N, ...], columns in the order of `features`.
        features: names of the columns, or empty.
        columns: description of how columns are used.
    """

    train: np.ndarray
    test: np.ndarray
    features: tuple[str, ...]
    columns: str


def read(config: RunConfig) -> Datasets:
    """Reads the data of a configuration.

    Raises:
        DataError: if it cannot be read.
        RunError: if its parts do not fit together.
    """
    if not config.data:
        raise RunError("The configuration names no data: set data to a path.")
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
        return Datasets(*arrays, names, columns)
    whole = config.load(config.data)
    names = config.features or whole.feature_names or ()
    arrays = data.split(
        _arranged(whole, names, config.data), test_fraction=config.test_fraction, seed=config.seed
    )
    return Datasets(*arrays, names, whole.columns)


def _arranged(found: data.Data, names: tuple[str, ...], source: str) -> np.ndarray:
    """Returns the examples with their columns in the order of `names`."""
    if not names or found.feature_names is None:
        if names and found.x.shape[-1] != len(names):
            raise RunError(
                f"{source} has {found.x.shape[-1]} columns without names; expected "
                f"{len(names)}: {', '.join(names)}."
            )
        return found.x
    order = positions(found.feature_names, names, source)
    return found.x if order == list(range(len(order))) else found.x[:, order]
