"""Candidates: the models that are compared, and the values of each of their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["Axis", "Candidate", "axes_of", "first_of"]

_LATENTS = (2, 4, 8, 16, 32, 64, 128)
_WIDTHS = (50, 100, 200, 400, 800)
_FILTERS = (16, 32, 64, 128)
_PRIORS = ("standard_normal", "vamp", "flow")
_START = {"latent": 16, "width": 200, "filters": 64}


class Candidate(NamedTuple):
    """One model to train.

    Attributes:
        likelihood: name as in `keras_vae.mlp_vae`, or "table".
        latent: number of latents.
        width: width of each hidden layer; filters of the last convolution.
        prior: name as in `keras_vae.mlp_vae`.
        repeat: 0, or the number of a training with another seed.

    Example:
        >>> print(Candidate("normal", 1, 50, "flow"))
        normal, 1 latent, width 50, flow
    """

    likelihood: str
    latent: int
    width: int
    prior: str
    repeat: int = 0

    def __str__(self) -> str:
        return self.beside(None)

    def beside(self, other: Candidate | None) -> str:
        """Returns the settings that are not those of another candidate, in words.

        Example:
            >>> first = Candidate("normal", 16, 200, "standard_normal")
            >>> print(first._replace(latent=8, prior="flow").beside(first))
            8 latents, flow
        """
        words = (
            self.likelihood,
            f"{self.latent} latent{'' if self.latent == 1 else 's'}",
            f"width {self.width}",
            self.prior,
            "another seed" if self.repeat else "",
        )
        return ", ".join(
            word
            for index, word in enumerate(words)
            if word and (other is None or self[index] != other[index])
        )


@dataclass(frozen=True)
class Axis:
    """One setting and its values, the simplest first.

    Attributes:
        name: name of the setting, a field of `Candidate`.
        values: its values.
        is_ordered: whether they are sizes, of which only neighbours need to be tried.
    """

    name: str
    values: tuple[Any, ...]
    is_ordered: bool = False

    def index(self, candidate: Candidate) -> int:
        """Returns the place of a candidate's value."""
        return self.values.index(getattr(candidate, self.name))


def axes_of(
    *,
    likelihoods: Sequence[str],
    size: int,
    latents: Sequence[int] = (),
    widths: Sequence[int] = (),
    priors: Sequence[str] = (),
    is_convolution: bool = False,
) -> tuple[Axis, ...]:
    """Returns the settings to choose, in the order in which they are varied.

    Args:
        likelihoods: names, the proposed one first.
        size: numbers in an example; no default has more latents.
        latents, widths, priors: values to compare instead of the default ones.
        is_convolution: whether widths are numbers of filters.

    Example:
        >>> axes = axes_of(likelihoods=["normal"], size=8, priors=["flow"])
        >>> {axis.name: axis.values for axis in axes[:2]}
        {'likelihood': ('normal',), 'latent': (2, 4, 8)}
    """
    default = tuple(value for value in _LATENTS if value <= max(2, size))
    if size <= 4:
        default = (1, *default)
    return (
        Axis("likelihood", tuple(likelihoods)),
        Axis("latent", tuple(sorted(set(latents))) or default, is_ordered=True),
        Axis(
            "width",
            tuple(sorted(set(widths))) or (_FILTERS if is_convolution else _WIDTHS),
            is_ordered=True,
        ),
        Axis("prior", tuple(priors) or _PRIORS),
    )


def first_of(axes: Sequence[Axis], size: int) -> Candidate:
    """Returns the candidate that is trained first: the first names and sizes in the middle.

    Example:
        >>> print(first_of(axes_of(likelihoods=["normal"], size=64), 64))
        normal, 16 latents, width 200, standard_normal
    """
    likelihood, latent, width, prior = (axis.values for axis in axes)
    filters = width == _FILTERS
    return Candidate(
        likelihood[0],
        _largest(latent, min(_START["latent"], max(2, size // 2))),
        _largest(width, _START["filters" if filters else "width"]),
        prior[0],
    )


def _largest(values: Sequence[int], limit: int) -> int:
    """Returns the largest value up to a limit, or the smallest of all."""
    return max((value for value in values if value <= limit), default=values[0])
