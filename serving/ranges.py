"""Ranges of the data that a model takes, and messages for values outside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_vae.integrity import Observation
from keras_vae.spelling import numbers_in

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Range"]

_LARGEST = (2.0 - 2.0**-23) * 2.0**127
"""Largest number of float32."""


@dataclass(frozen=True)
class Range:
    """Values that an entry of x can take.

    Attributes:
        low, high: bounds; infinite if there are none.
        is_open: whether the bounds themselves are left out.
        whole: whether only whole numbers have a probability.
        missing: whether it may be absent, which is NaN.
        marks: other numbers that stand for an absent one.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    missing: bool = False
    is_open: bool = False
    marks: tuple[float, ...] = ()

    @classmethod
    def of(cls, part: Observation) -> Range:
        """Reads the range of a part of the data."""
        return cls(
            -math.inf if part.low is None else part.low,
            math.inf if part.high is None else part.high,
            part.whole,
            part.missing,
            part.is_open,
            () if part.categories else tuple(numbers_in(part.missing_values)),
        )

    def problem(self, value: float) -> str:
        """Says what was expected instead of an impossible value, and what came."""
        if not math.isfinite(value):
            return f"a finite number; got {value}"
        if abs(value) > _LARGEST:
            return f"a number that float32 holds; got {value:g}"
        if self.whole and not value.is_integer():
            return f"a whole number; got {value:g}"
        if math.isinf(self.low):
            bounds = f"of at most {self.high:g}"
        elif math.isinf(self.high):
            bounds = f"above {self.low:g}" if self.is_open else f"of at least {self.low:g}"
        else:
            bounds = f"from {self.low:g} to {self.high:g}"
            bounds += ", both left out" if self.is_open else ""
        return f"a number {bounds}; got {value:g}"

    def bad(self, values: np.ndarray) -> np.ndarray:
        """Tells which values are impossible."""
        import numpy as np

        bad = ~np.isfinite(values) | (values < self.low) | (values > self.high)
        bad = bad | (values == self.low) | (values == self.high) if self.is_open else bad
        bad = bad | (values != np.rint(values)) if self.whole else bad
        bad = bad & ~np.isnan(values) if self.missing else bad
        return bad & ~np.isin(values, np.asarray(self.marks, values.dtype)) if self.marks else bad
