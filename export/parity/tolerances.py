"""Tolerances: how far apart two correct programs may lie in float32.

One rule holds for every runtime, every output and both comparisons (a runtime with the live model,
and a single row with the same row in a batch). With u = 2^-24, the unit roundoff of float32, an
output may differ by

    4 [u (4 + sqrt(n)) + s] max(size, |value|)

- u (4 + sqrt(n)): exp, log and similar functions are approximated to a few u, and a sum of n terms
  in any order is off by about sqrt(n) u (Higham and Mary, 2019, "A new approach to probabilistic
  rounding error analysis"). n is the number of terms that the output sums: entries of an example
  and latents for `score`, latents for z, otherwise 1.
- s: how much the model itself amplifies rounding on the inputs of the case. A product of n terms in
  float32, added in any order (gemv for one row, gemm for many), is the exact product for weights
  that differ by about sqrt(n) u. So every weight is changed by plus or minus u sqrt(16 + n), at
  random, and s is the largest resulting change of the output, relative to max(size, |value|).
  The 16 stands for activations approximated to 4 u.
- size: the size of the numbers from which the output is computed: the width of the data's range for
  data and means, 1 nat per entry for `score`, otherwise 1.
- 4: s comes from a single random change; the runtime's rounding is a second one, and the live
  model's a third.

Draws of whole numbers are equal unless the uniform falls between the thresholds of the two
programs. Let f be the share of draws that differ after the change of the weights above, and let
thresholds be sums over about 1 + 6 sigma values (sigma: the standard deviation of the draws). Then
the number of differing draws is a Poisson variable of mean below N [f + 4 u (1 + 6 sigma)^1.5]. A
number that it exceeds with probability below 1e-6 is refused. Numbers that are rounded from
real draws, to whole numbers or to the digits of a column, differ with the probability that the
tolerance of the real number has, and may differ by one step more than that tolerance.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import special

from keras_vae import integrity

__all__ = [
    "PICKED",
    "ROUNDOFF",
    "allowed",
    "allowed_draws",
    "allowed_picks",
    "at_most",
    "changed_weights",
    "chooses_codes",
    "codes_of",
    "is_whole",
    "other_codes",
    "size_of",
    "terms_of",
]

ROUNDOFF = 2.0**-24
"""Unit roundoff of float32: the largest relative error of one operation."""

PICKED = 1e-3
"""An imputed draw that is further off, relative to its size, comes from another draw of z."""

_SAFETY = 4.0
_APPROXIMATION = 4.0
_PART = 2**20
_ONCE_IN = 1e6


def allowed(
    value: np.ndarray, size: float | np.ndarray, terms: int = 1, sensitivity: float = 0.0
) -> np.ndarray:
    """Returns how far another program's number may lie from each value.

    Args:
        value: expected values.
        size: size of the numbers from which they are computed.
        terms: number of terms that were summed.
        sensitivity: s above.
    """
    relative = _SAFETY * (ROUNDOFF * (_APPROXIMATION + math.sqrt(terms)) + sensitivity)
    return relative * np.maximum(size, np.abs(value))


def allowed_draws(count: int, sigma: float, share: float = 0.0) -> int:
    """Returns how many of `count` draws of whole numbers may differ.

    Args:
        count: number of draws.
        sigma: standard deviation of the draws.
        share: share of draws that differ after the change of the weights.
    """
    return at_most(count * (share + _SAFETY * ROUNDOFF * (1.0 + 6.0 * sigma) ** 1.5))


def allowed_picks(count: int, num_samples: int, terms: int, share: float = 0.0) -> int:
    """Returns how many of `count` imputed draws may come from another draw of z.

    Args:
        count: number of rows.
        num_samples: number of weighted draws.
        terms: number of terms that a log-weight sums.
        share: share of rows that pick another draw after the change of the weights.
    """
    weight = _SAFETY * ROUNDOFF * (_APPROXIMATION + math.sqrt(terms))
    return at_most(count * (share + num_samples * weight))


def codes_of(about: dict[str, Any]) -> dict[str, Any]:
    """Returns what the manifest says of the codes of a model that has codes."""
    return integrity.codes_of(about) or {}


def chooses_codes(signature: str, about: dict[str, Any]) -> bool:
    """Tells whether a signature chooses codes by comparing numbers, which rounding may decide."""
    codes = integrity.codes_of(about)
    if codes is None or signature == "decode":
        return False
    return signature != "sample" or not codes["uniform"]


def other_codes(count: int, about: dict[str, Any], share: float = 0.0) -> int:
    """Returns how many of `count` rows may have other codes.

    Args:
        count: number of rows.
        about: description of the model in the manifest.
        share: share of rows that have other codes after the change of the weights.
    """
    number = math.prod(codes_of(about)["shape"])
    terms = int(about["latent_size"])
    each = _SAFETY * ROUNDOFF * (_APPROXIMATION + math.sqrt(terms))
    return at_most(count * (_SAFETY * share + number * each))


def at_most(mean: float) -> int:
    """Returns the number that a Poisson variable exceeds with probability 1e-6."""
    return next(k for k in itertools.count() if special.pdtrc(k, mean) < 1.0 / _ONCE_IN)


@contextlib.contextmanager
def changed_weights(variables: Iterable[tf.Variable]) -> Iterator[None]:
    """Changes every weight by its rounding error inside the block, the same each time."""
    generator = np.random.default_rng(0)
    kept = [(v, v.read_value()) for v in variables if v.dtype.is_floating]
    try:
        for variable, value in kept:
            terms = math.prod(value.shape[:-1]) if value.shape.rank > 1 else 1
            change = ROUNDOFF * math.sqrt(_APPROXIMATION**2 + terms)
            changed = np.array(value)
            factors = np.array([1.0 - change, 1.0 + change], changed.dtype)
            flat = changed.reshape(-1)
            for start in range(0, flat.size, _PART):
                part = flat[start : start + _PART]
                part *= factors[generator.integers(0, 2, part.size, np.int8)]
            variable.assign(changed)
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def size_of(signature: str, output: str, about: dict[str, Any]) -> float | np.ndarray:
    """Returns the size of the numbers behind an output: one number, or one for each feature.

    Args:
        signature: name of the signature.
        output: name of the output.
        about: description of the model in the manifest.
    """
    if signature == "score":
        return float(terms_of(signature, output, about))
    found = integrity.observation_of(about, output)
    if found is None:
        return 1.0
    kind, part = found
    levels = part.options.get("levels", 1)
    if kind not in ("mean", "sample", "value"):
        return float(levels)
    preparation = part.preparation
    if preparation["center"]:
        return np.maximum(np.abs(preparation["center"]), preparation["spread"])
    return float(max(levels, preparation["levels"], preparation["divide"], 1.0))


def terms_of(signature: str, output: str, about: dict[str, Any]) -> int:
    """Returns the number of terms that an output sums; arguments as for `size_of`."""
    latents = int(about["latent_size"])
    if signature in ("score", "impute"):
        found = integrity.observation_of(about, output)
        parts = integrity.observations(about).values() if found is None else [found[1]]
        return sum(part.size for part in parts) + latents
    return latents if output == "z" or output.startswith("z_") else 1


def is_whole(values: np.ndarray) -> bool:
    """Tells whether all values are whole numbers."""
    return bool((values == np.round(values)).all())
