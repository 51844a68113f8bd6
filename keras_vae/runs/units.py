"""Units of a measured number: its quantity, and its conversion to the units of the file."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vae.data import Schema
from keras_vae.data.preparation import Preparation
from keras_vae.model import VAE

__all__ = ["Units", "share_at_atoms", "shown_range", "value_range"]

_ATOM = 0.01
_ROWS, _COLUMNS = 5000, 1000


@dataclass(frozen=True)
class Units:
    """Conversion of nats of the prepared data to nats of the data in the file.

    A density changes with its variable: if y = (x - a) / b, then log p(x) = log p(y) - log b. A
    density of whole numbers to which uniform noise was added bounds their log-probability from
    below; if some features are whole and others real, it is a density of the real ones.

    Attributes:
        quantity: "log-probability" of discrete data, "log-density" of real data, or "log p(x)"
            if the support of a custom likelihood does not say which of the two it is.
        data: description of the data.
        offset: nats per example added to log p of the prepared data.
        variables: numbers that one example has in the file; a one-hot vector counts as one.
        training_offset: that of the training set, where it differs: that of tables and time series
            depends on which values are missing.
    """

    quantity: str
    data: str
    offset: float
    variables: int
    training_offset: float | None = None

    @classmethod
    def of(cls, vae: VAE, preparation: Preparation, row_nats: tuple[float, ...] = ()) -> Units:
        """Returns the units of a model and of the preparation that it was trained with.

        Args:
            vae: the model.
            preparation: the preparation of its data.
            row_nats: for time series, means of the offset over training and test set.
        """
        support, shape = vae.likelihood.support, vae.event_shape
        quantity = {None: "log p(x)", True: "log-probability", False: "log-density"}[
            True if preparation.is_dequantised else support.is_discrete
        ]
        return cls(
            quantity=quantity,
            data=_data_in_words(preparation),
            offset=row_nats[1] if row_nats else preparation.nats_offset * math.prod(shape),
            variables=math.prod(shape[: len(shape) - support.event_dim]),
            training_offset=row_nats[0] if row_nats else None,
        )

    @classmethod
    def of_table(cls, schema: Schema, row_nats: tuple[float, ...]) -> Units:
        """Returns the units of a table as it is.

        Args:
            schema: its columns.
            row_nats: means of the offset over training and test set.
        """
        densities = [
            column
            for column in schema
            if column.form not in ("plain", "one_hot") and not column.whole
        ]
        quantity = "log-density" if densities else "log-probability"
        training, test = row_nats or (0.0, 0.0)
        data = "the observed values of a row"
        if densities and len(densities) < len(schema):
            data += " (density of its real columns, probability of the others)"
        return cls(quantity, data, test, len(schema), training)

    def given_labels(self) -> Units:
        """Returns the units of log p(x | label), of a model that is given the labels."""
        return dataclasses.replace(self, data=f"{self.data} given its label")

    def offset_of(self, name: str) -> float:
        """Returns the nats that are added to a log p of a set, "train" or "test"."""
        if name == "train" and self.training_offset is not None:
            return self.training_offset
        return self.offset

    def log_p(self, nats: Any, of: str = "test") -> np.ndarray:
        """Converts a log p of the prepared data, or a bound on it, to the file's units."""
        return np.asarray(nats, np.float64) + self.offset_of(of)

    def distortion(self, nats: Any) -> np.ndarray:
        """Converts a distortion, -E_q log p(x | z), or a loss to the file's units."""
        return np.asarray(nats, np.float64) - self.offset

    def bits_per_dim(self, log_p: float) -> float | None:
        """Returns -log2 p per number of an example, from nats in the file's units.

        Returns None unless it is a log-probability: bits of a density depend on the unit of the
        data.
        """
        if self.quantity != "log-probability":
            return None
        return -log_p / (self.variables * math.log(2.0))

    def __str__(self) -> str:
        return f"{self.quantity} of {self.data}, nats per example"


def _data_in_words(preparation: Preparation) -> str:
    if preparation.step == "binarize":
        return "the data binarised with one draw per number"
    if preparation.is_mixed:
        return (
            "the data in the file (density of its real columns, lower bound on the probability of "
            "its whole-number ones)"
        )
    return "the data in the file"


def share_at_atoms(raw: np.ndarray, preparation: Preparation) -> float:
    """Computes the share of prepared numbers whose exact value fills at least 1 % of their column.

    A model can make a density at such a value arbitrarily large. At most 5000 rows and 1000
    columns, evenly spaced, are used.

    Args:
        raw: data as in the file [N, ...].
        preparation: preparation of the model's data; noise on whole numbers removes their atoms.
    """
    rows = preparation.array(np.asarray(raw[:: -(-len(raw) // _ROWS)]))
    columns = rows.reshape(len(rows), -1)
    columns = columns[:, :: -(-columns.shape[1] // _COLUMNS)]
    least = max(3, math.ceil(_ATOM * len(columns)))
    at_atoms = 0
    for column in columns.T:
        column = column[~np.isnan(column)]
        counts = np.unique(column, return_counts=True)[1]
        at_atoms += int(counts[counts >= least].sum())
    return at_atoms / columns.size


def value_range(vae: VAE, preparation: Preparation) -> tuple[float | None, float | None]:
    """Returns the smallest and largest number that the file may hold, or None."""
    return preparation.range or (vae.likelihood.support.low, vae.likelihood.support.high)


def shown_range(vae: VAE, preparation: Preparation, images: np.ndarray) -> tuple[float, float]:
    """Returns the values shown as black and as white: the range of the data, or of `images`."""
    low, high = value_range(vae, preparation)
    if low is None or high is None:
        return float(images.min()), float(images.max())
    return low, high
