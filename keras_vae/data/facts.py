"""Facts: properties of a data set, from which likelihoods decide how to model it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_vae.data.mapped import chunks

__all__ = ["Facts"]


_BIT_DEPTHS = (8, 10, 12, 14, 16)

_MOST_BINS = 2**10

_SPARSE = 0.5

_FEW_PIXELS = 64


@dataclass(frozen=True)
class Facts:
    """Properties of a data set, from which a likelihood decides how to prepare it.

    Attributes:
        raw: training data [N, ...].
        low, high: smallest and largest number of each feature, over all parts of the data set.
        whole: per feature, whether it holds whole numbers.
        zeros: share of zeros.
        declared_top: the largest possible value of an entry if the user gave it, or None.
        names: names of the features, or empty.
    """

    raw: np.ndarray
    low: np.ndarray
    high: np.ndarray
    whole: np.ndarray
    zeros: float
    declared_top: float | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        parts: Sequence[np.ndarray],
        *,
        top: float | None = None,
        names: Sequence[str] = (),
    ) -> Facts:
        """Collects the properties of all parts of a data set; the first is the training set."""
        features = parts[0].shape[-1]
        low, high = np.full(features, np.inf), np.full(features, -np.inf)
        whole = np.ones(features, bool)
        zeros = 0
        for array in parts:
            for _, part in chunks(array):
                rows = part.reshape(-1, features)
                low = np.minimum(low, rows.min(axis=0))
                high = np.maximum(high, rows.max(axis=0))
                zeros += rows.size - int(np.count_nonzero(rows))
                if rows.dtype.kind == "f" and whole.any():
                    whole &= (rows == np.rint(rows)).all(axis=0)
        share = zeros / sum(array.size for array in parts)
        return cls(parts[0], low, high, whole, share, top, tuple(names))

    @property
    def rank(self) -> int:
        """Number of axes: 2 for a table, 3 for series, 4 for images."""
        return self.raw.ndim

    @property
    def lowest(self) -> float:
        """Smallest number."""
        return float(self.low.min())

    @property
    def highest(self) -> float:
        """Largest number."""
        return float(self.high.max())

    @property
    def are_counts(self) -> bool:
        """Whether all numbers are whole and none is negative."""
        return bool(self.whole.all()) and self.lowest >= 0.0

    @property
    def are_levels(self) -> bool:
        """Whether whole numbers of such data are grey levels."""
        return self.rank == 4 or self._is_flat_image or self.declared_top is not None

    @property
    def are_grey(self) -> bool:
        """Whether all entries share one range from 0, as the pixels of images do."""
        is_shared = self.rank == 4 or self.highest <= 1.0 or self.declared_top is not None
        return self.lowest >= 0.0 and is_shared

    @property
    def are_sparse(self) -> bool:
        """Whether at least half of the numbers are 0."""
        return self.zeros >= _SPARSE

    @property
    def are_one_hot(self) -> bool:
        """Whether the last axis holds a single 1."""
        return self.rank > 2 and all(
            (part.max(axis=-1) == 1).all() and (part.sum(axis=-1) == 1).all()
            for _, part in chunks(self.raw)
        )

    @property
    def kind(self) -> str:
        """Description of the data."""
        return {2: "a table", 3: "series", 4: "images"}.get(self.rank, "arrays")

    @property
    def scale(self) -> str:
        """Mode of the scale of a density for such data."""
        return "optimal" if self.rank == 4 else "per_feature"

    @property
    def _is_flat_image(self) -> bool:
        """Whether a table looks like the pixels of 8-bit images."""
        return self.rank == 2 and self.highest == 255.0 and len(self.low) >= _FEW_PIXELS

    @property
    def top(self) -> float:
        """Largest value that an entry can have, judged by the data and its dtype."""
        if self.declared_top is not None:
            return self.declared_top
        if self.highest <= 1.0:
            return 1.0
        if self.raw.dtype == np.uint8:
            return 255.0
        if self.raw.dtype == np.uint16 and self.rank == 4:
            return float(next(2**k - 1 for k in _BIT_DEPTHS if self.highest < 2**k))
        return self.highest

    @property
    def are_few_levels(self) -> bool:
        """Whether the data is grey levels, and few enough to sum over."""
        return self.are_counts and self.are_levels and self.top < _MOST_BINS
