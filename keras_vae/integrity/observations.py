"""The data and the prior, as a manifest of any version describes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from keras_vae.tokens import Tokens

__all__ = ["Observation", "codes_of", "is_standard", "observation_of", "observations"]

_WHOLE_BEFORE = ("Bernoulli", "Binomial", "Categorical", "DiscretizedLogistic", "Poisson")
"""Families of whole numbers, for manifests written before they stated this."""


@dataclass(frozen=True)
class Observation:
    """A part of the data as a manifest describes it; the only part of a model is called x.

    Attributes:
        name: name of the part.
        index: its place among the parts, which numbers its noise.
        tensors: names of its tensors by kind: x, mean, sample, distortion, and its parameters.
        shape: shape of one row of x.
        low, high: smallest and largest number of x; None where there is no bound.
        is_open: whether x may not be `low` or `high` itself.
        one_hot: whether the last axis of x holds a 1 and zeros.
        whole: whether every number of x is whole, because others have no probability or the schema
            says so.
        grid: distance of the numbers to which draws are rounded; None where they are not.
        missing: whether it may be absent, which is NaN.
        missing_values: values of the file that stand for a missing one.
        threshold: whether a draw is the largest value where the row's uniform lies below the mean's
            share of it, and 0 elsewhere.
        categories: labels of the codes 0, 1, ...; empty where there are none.
        feature_names: names of the columns of x; empty where they have none.
        options: arguments of its family.
        preparation: how its numbers become model data.
        tokens: tokens of texts, whose numbers x holds; None for other data.
    """

    name: str
    index: int
    tensors: dict[str, str]
    shape: tuple[int, ...]
    low: float | None
    high: float | None
    is_open: bool
    one_hot: bool
    whole: bool
    grid: float | None
    missing: bool
    threshold: bool
    categories: tuple[Any, ...]
    feature_names: tuple[str, ...]
    options: dict[str, Any]
    preparation: dict[str, Any]
    tokens: Tokens | None = None
    missing_values: tuple[Any, ...] = ()

    @property
    def size(self) -> int:
        """Number of numbers in one row of x."""
        return math.prod(self.shape)


def observations(entries: dict[str, Any]) -> dict[str, Observation]:
    """Returns the parts of the data that a manifest of any version describes, by name."""
    return {
        name: _observation(name, index, about)
        for index, (name, about) in enumerate(_described(entries).items())
    }


def observation_of(entries: dict[str, Any], tensor: str) -> tuple[str, Observation] | None:
    """Returns the kind of a tensor and the part it belongs to; None if it belongs to none."""
    for index, (name, about) in enumerate(_described(entries).items()):
        for kind, other in _tensors_of(about).items():
            if other == tensor:
                return kind, _observation(name, index, about)
    return None


def _described(entries: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns `observations`; of a single x the entries that manifests of all versions have."""
    if "data" not in entries:
        return entries["observations"]
    data, likelihood = entries["data"], entries["likelihood"]
    whole = data.get("whole")
    if whole is None:
        preparation = data["preparation"]
        as_it_is = preparation["step"] == "none" and preparation.get("divide", 1.0) == 1.0
        whole = likelihood["family"] in _WHOLE_BEFORE and as_it_is
    threshold = likelihood.get("threshold", likelihood["family"] == "Bernoulli")
    about = entries.get("observations", {}).get("x", {})
    return {"x": {**about, **likelihood, **data, "whole": whole, "threshold": threshold}}


def _tensors_of(about: dict[str, Any]) -> dict[str, str]:
    kinds = ("x", "mean", "sample", "distortion")
    return about.get("tensors") or {name: name for name in (*kinds, *about["parameters"])}


def _observation(name: str, index: int, about: dict[str, Any]) -> Observation:
    low, high = about["range"]
    return Observation(
        name=name,
        index=index,
        tensors=_tensors_of(about),
        shape=tuple(about["shape"]),
        low=low,
        high=high,
        is_open=about.get("open_range", False),
        one_hot=about["one_hot"],
        whole=about["whole"],
        grid=about.get("grid"),
        missing=about.get("missing", False),
        threshold=about["threshold"],
        categories=tuple(about.get("categories") or ()),
        feature_names=tuple(about.get("feature_names") or ()),
        options=about["options"],
        preparation=about["preparation"],
        tokens=_tokens_of(about.get("vocabulary")),
        missing_values=tuple(about.get("missing_values", ())),
    )


def _tokens_of(about: dict[str, Any] | None) -> Tokens | None:
    """Reads the tokens of texts.

    Raises:
        ValueError: if a token occurs twice, or the special ones are not the first.
    """
    if about is None:
        return None
    return Tokens(tuple(about["tokens"]), about["unit"], about["unknown"])


def is_standard(entries: dict[str, Any]) -> bool:
    """Tells whether the prior of an artifact is the standard normal, by its manifest."""
    prior = entries["prior"]
    return bool(prior.get("standard", prior["family"] == "StandardNormal"))


def codes_of(entries: dict[str, Any]) -> dict[str, Any] | None:
    """Returns what a manifest says of the codes of a discrete latent; None if there are none."""
    latents = entries.get("latents", {})
    found: dict[str, Any] | None = latents.get("z", {}).get("codes")
    return found
