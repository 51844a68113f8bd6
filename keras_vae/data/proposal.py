"""Proposal of a likelihood for a data set, and of the preparation of its data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_vae.data.content import DataError
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation

__all__ = ["Family", "Proposal", "prepare", "propose"]


class Proposal(NamedTuple):
    """A likelihood proposed from data.

    Attributes:
        likelihood: name as in `keras_vae.mlp_vae`.
        options: arguments of the likelihood.
        reason: what the data looks like, for readers.
        rivals: names of other likelihoods of such data, with which `keras_vae.choosing` compares
            it.
    """

    likelihood: str
    options: dict[str, Any]
    reason: str
    rivals: tuple[str, ...] = ()


class Family(Protocol):
    """Decisions of a likelihood about data."""

    def proposal(self, facts: Facts) -> Proposal | None:
        """Proposes the family for data that it suits; returns None for other data."""

    def prepare(self, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Decides how the data becomes model data, and options that follow from the data."""


def propose(
    families: Iterable[Family], parts: Sequence[np.ndarray], *, top: float | None = None
) -> Proposal:
    """Returns the proposal of the first likelihood that suits a data set.

    With the families of `keras_vae.factories.LIKELIHOODS`, the proposals are

    | data | likelihood |
    |---|---|
    | zeros and ones | bernoulli |
    | images of up to 1024 levels, 0 to 1023 | discretized_logistic |
    | images of real numbers in [0, 1] | continuous_bernoulli |
    | whole numbers from 0 on, at least half of them 0 | poisson |
    | other tables and series | normal, one scale per feature |
    | other images | normal, one optimal scale |

    Nothing is binarised: black-and-white data stays as it is, and grey levels are modelled
    directly. The mean of a discretised logistic is a sum over its levels, so images with more
    levels are proposed as dequantised normal data.

    Args:
        families: classes of likelihoods, in the order in which they are asked.
        parts: all parts of the data set, such as training and test part, [N, ...] each.
        top: the largest possible value of an entry, which makes whole numbers grey levels.

    Raises:
        DataError: if no likelihood suits the data.
    """
    facts = Facts.of(parts, top=top)
    for family in families:
        if (found := family.proposal(facts)) is not None:
            return found
    raise DataError(f"No likelihood suits {facts.kind}: choose one with --likelihood.")


def prepare(
    family: Family,
    raw: np.ndarray,
    others: Sequence[np.ndarray] = (),
    *,
    top: float | None = None,
    names: Sequence[str] = (),
) -> tuple[Preparation, dict[str, Any]]:
    """Returns how to prepare data for a likelihood, and the options that the data decides.

    Means and standard deviations are those of the training data. Ranges, levels and categories are
    those of all data, or of its dtype if that has a range, so no test example lies outside.

    Args:
        family: class of the likelihood.
        raw: training data [N, ...].
        others: other parts of the same data set, such as the test part.
        top: the largest possible value of an entry; None takes it from the data.
        names: names of the features, for messages.

    Returns:
        The preparation, and options such as `levels`, `total_count` or `scale` if the likelihood
        takes one.

    Raises:
        DataError: if the likelihood does not suit the data, or float32 cannot tell the values of a
            feature apart.
    """
    facts = Facts.of([raw, *others], top=top, names=names)
    if top is not None and facts.highest > top:
        raise DataError(
            f"The largest possible value is set to {top:g}, but the data reaches "
            f"{facts.highest:g}. Raise --top or leave it out."
        )
    return family.prepare(facts)
