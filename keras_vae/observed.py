"""Observed parts of a batch: their distributions at a condition, and the data scored under them.

Like parts of `keras_vae.Parts` are evaluated together, as blocks; see `distributions.blocks`.
Axes: S draws, B examples, P parts of a block. All log-probabilities are in nats.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf

from keras_vae.distributions import Likelihood, Parts
from keras_vae.distributions.base import ConditionalDistribution
from keras_vae.distributions.noise import checked_draw
from keras_vae.distributions.tfp import sum_entries, tfd

__all__ = [
    "Observation",
    "Observations",
    "Site",
    "Sites",
    "draws_of",
    "layers_of",
    "log_likelihood",
    "log_probs",
    "means_of",
    "observations_of",
    "refuse_event",
    "sizes_of",
]

LogProb = Callable[[tfd.Distribution, tf.Tensor], tf.Tensor]
"""Function from a distribution and data to log-probabilities."""

Mask = Callable[[tf.Tensor], tuple[tf.Tensor | None, Any]]
"""Function from data to where it is present, and to what stands for absent entries."""


class Observation(NamedTuple):
    """An observed variable of a trace.

    Attributes:
        value: the data, [B, *D]; absent entries may hold anything, such as NaN.
        p: p(x given z), batch shape [S, B].
        mask: where the data is present, booleans of the first axes of the data: [B] for whole
            examples, up to [B, *D] for single entries. None means everywhere. An absent entry
            adds exactly 0 to the log-probability and to every gradient.
        inside: value in the support of p that stands for absent entries, of a shape that broadcasts
            against the data.
        axes: number of the first axes of the data that are none of an event: 1, or 2 for a block of
            parts, [B, P, *D].
    """

    value: tf.Tensor
    p: tfd.Distribution
    mask: tf.Tensor | None = None
    inside: Any = 0.0
    axes: int = 1

    def log_prob(self, of: LogProb = tfd.Distribution.log_prob) -> tf.Tensor:
        """Returns log p of the entries that are present, [S, B]; of a block of parts, [S, B, P].

        Args:
            of: how the log-probability is computed where nothing may be absent.
        """
        shape = self.value.shape
        refuse_event(self.p, shape[self.axes :], "The distribution of the data")
        if self.mask is None:
            return of(self.p, self.value)
        given = getattr(self.p, "given", None)
        if given is not None:
            return self._replace(p=given(self.value)).log_prob()
        mask = tf.cast(self.mask, tf.bool)
        rank = mask.shape.rank
        if rank < self.axes or not mask.shape.is_compatible_with(shape[:rank]):
            raise ValueError(
                f"A mask must have the shape of the first axes of the data, {shape.as_list()}; got "
                f"{mask.shape.as_list()}."
            )
        entries = tf.reshape(mask, [*sizes_of(mask), *[1] * (shape.rank - rank)])
        value = tf.where(entries, self.value, tf.cast(self.inside, self.value.dtype))
        if rank == self.axes:
            log_prob = self.p.log_prob(value)
            return tf.where(mask, log_prob, tf.zeros_like(log_prob))
        if not isinstance(self.p, tfd.Independent):
            raise ValueError(
                "A mask of single entries requires entries that are independent given z; "
                f"{self.p.name} is one joint distribution of them. Give a mask of shape [B]."
            )
        log_prob = self.p.distribution.log_prob(value)
        axes = log_prob.shape.rank - self.p.batch_shape.rank
        if axes != rank - self.axes:
            raise ValueError(
                f"Expected a mask with one entry for each variable that {self.p.name} holds, "
                f"{axes} axes after [B]; got shape {mask.shape.as_list()}."
            )
        log_prob = tf.where(mask, log_prob, tf.zeros_like(log_prob))
        return sum_entries(self.p, log_prob)


def sizes_of(value: tf.Tensor) -> list[Any]:
    """Returns the sizes of the axes, static where they are known."""
    shape = tf.shape(value)
    return [shape[axis] if size is None else size for axis, size in enumerate(value.shape)]


class Site(NamedTuple):
    """A conditional distribution at a condition.

    Attributes:
        layer: the family.
        parameters: its parameters by name.
    """

    layer: ConditionalDistribution
    parameters: dict[str, tf.Tensor]

    @property
    def distribution(self) -> tfd.Distribution:
        """The distribution."""
        return self.layer.make_distribution(**self.parameters)

    def draw(self, noise: Any) -> tf.Tensor:
        """Draws as a function of noise."""
        return checked_draw(self.layer, noise, self.parameters).value


class Sites(Mapping[str, Site]):
    """Distributions of the observed parts at one condition, by name.

    A part of a block is cut out when it is asked for. `means_of`, `draws_of` and `log_probs`
    evaluate whole blocks.

    Args:
        likelihood: the likelihood of the data.
        c: the condition: z, or a list of z and the condition of the model.
        training: whether Dropout, BatchNormalization and their like are in training mode.
        noise: noise by part that disturbs its parameters in a training step; None where there is
            none.
        others: distributions of what is observed beside the parts, by name.
    """

    def __init__(
        self,
        likelihood: Likelihood | Parts,
        c: Any,
        training: bool = False,
        noise: Mapping[str, Any] = MappingProxyType({}),
        others: Mapping[str, Site] = MappingProxyType({}),
    ) -> None:
        self.layers: dict[str, Any] = likelihood.by_part()
        self._blocks: dict[tuple[str, ...], Any] = {}
        if isinstance(likelihood, Parts):
            self._blocks = {block.names: block for block in likelihood.blocks}
            self._parameters = likelihood.parameters_by_block(c, training)
        else:
            by_part = likelihood.parameters_by_part(c, training)
            self._parameters = {(name,): own for name, own in by_part.items()}
        for name, numbers in noise.items():
            if numbers is not None:
                own = self._parameters[name,]
                self._parameters[name,] = self.layers[name].disturbed(own, numbers)
        self._home = {name: names for names in self._parameters for name in names}
        self._others = dict(others)
        self.layers |= {name: site.layer for name, site in others.items()}

    def __getitem__(self, name: str) -> Site:
        """Returns the distribution of one part."""
        if name in self._others:
            return self._others[name]
        names = self._home[name]
        if (block := self._blocks.get(names)) is None:
            return Site(self.layers[name], self._parameters[names])
        axes = self.joint(names).distribution.batch_shape.rank - 1
        return Site(self.layers[name], block.apart(self._parameters[names], name, axes))

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the parts."""
        return iter(self.layers)

    def __len__(self) -> int:
        """Returns the number of parts."""
        return len(self.layers)

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """Names of the parts of each block of two or more."""
        return tuple(self._blocks)

    def joint(self, names: tuple[str, ...]) -> Site:
        """Returns the distribution of a block, batch shape [..., P]."""
        return Site(self._blocks[names].layer, self._parameters[names])

    def of_each(
        self,
        alone: Callable[[str], tf.Tensor],
        joint: Callable[[tuple[str, ...]], tf.Tensor],
        event: bool = True,
    ) -> dict[str, tf.Tensor]:
        """Computes a tensor of each part, those of a block at once.

        Args:
            alone: function from the name of a part that is in no block to its tensor.
            joint: function from the names of a block to the tensor of all of them.
            event: whether the axis of the parts stands in front of those of an event, or is last.
        """
        found: dict[str, tf.Tensor] = {}
        for names in self._blocks:
            axis = -1 - (len(self.layers[names[0]].event_shape) if event else 0)
            found |= zip(names, tf.unstack(joint(names), len(names), axis), strict=True)
        return {name: found[name] if name in found else alone(name) for name in self}


class Observations(Mapping[str, Observation]):
    """Observed parts of a batch by name, which are scored together where they are alike.

    Args:
        values: data by part, [B, *D].
        sites: distributions of the parts.
        masks: functions by part from data to its mask, and to what stands for absent entries.
        others: observations beside the parts, by name.
    """

    def __init__(
        self,
        values: Mapping[str, tf.Tensor],
        sites: Sites,
        masks: Mapping[str, Mask],
        others: Mapping[str, Observation] = MappingProxyType({}),
    ) -> None:
        self._values, self._sites, self._masks = values, sites, masks
        self._others = dict(others)

    def __getitem__(self, name: str) -> Observation:
        """Returns the observation of one part."""
        if name in self._others:
            return self._others[name]
        value = self._values[name]
        return Observation(value, self._sites[name].distribution, *self._masks[name](value))

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the parts, and then of the others."""
        return iter([*self._sites, *self._others])

    def __len__(self) -> int:
        """Returns the number of observations."""
        return len(self._sites) + len(self._others)

    def joint(self, names: tuple[str, ...]) -> Observation:
        """Returns the observation of a block, whose data is [B, P, *D]."""
        value = tf.stack([self._values[name] for name in names], axis=1)
        p = self._sites.joint(names).distribution
        return Observation(value, p, *self._masks[names[0]](value), axes=2)

    def log_probs(self, of: LogProb) -> dict[str, tf.Tensor]:
        """Returns log p of each part, [S, B]; `of` as for `Observation.log_prob`."""
        found = self._sites.of_each(
            lambda name: self[name].log_prob(of),
            lambda names: self.joint(names).log_prob(of),
            event=False,
        )
        return found | {name: each.log_prob(of) for name, each in self._others.items()}


def observations_of(
    values: Mapping[str, tf.Tensor],
    sites: Mapping[str, Site],
    masks: Mapping[str, Mask],
) -> Mapping[str, Observation]:
    """Returns data as observations of its parts; arguments as for `Observations`."""
    if isinstance(sites, Sites):
        return Observations(values, sites, masks)
    return {
        name: Observation(values[name], site.distribution, *masks[name](values[name]))
        for name, site in sites.items()
    }


def log_probs(
    observations: Mapping[str, Observation], of: LogProb = tfd.Distribution.log_prob
) -> dict[str, tf.Tensor]:
    """Returns log p of each observation by name, [S, B].

    Args:
        observations: observations by name.
        of: how a log-probability is computed where nothing may be absent.
    """
    if isinstance(observations, Observations):
        return observations.log_probs(of)
    return {name: each.log_prob(of) for name, each in observations.items()}


def log_likelihood(
    observations: Mapping[str, Observation], of: LogProb = tfd.Distribution.log_prob
) -> tf.Tensor:
    """Returns log p of all observations together, [S, B]; arguments as for `log_probs`."""
    return reduce(add, log_probs(observations, of).values())


def layers_of(sites: Mapping[str, Site]) -> dict[str, Any]:
    """Returns the family of each part by name."""
    if isinstance(sites, Sites):
        return dict(sites.layers)
    return {name: site.layer for name, site in sites.items()}


def means_of(sites: Mapping[str, Site]) -> dict[str, tf.Tensor]:
    """Returns the mean of each part by name."""
    if isinstance(sites, Sites):
        return sites.of_each(
            lambda name: sites[name].distribution.mean(),
            lambda names: sites.joint(names).distribution.mean(),
        )
    return {name: site.distribution.mean() for name, site in sites.items()}


def draws_of(sites: Mapping[str, Site], noise: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Draws each part as a function of its noise, by name."""
    if not isinstance(sites, Sites):
        return {name: site.draw(noise[name]) for name, site in sites.items()}

    def joint(names: tuple[str, ...]) -> tf.Tensor:
        site = sites.joint(names)
        axis = -1 - len(site.layer.noise().shape)
        return site.draw(tf.stack([noise[name] for name in names], axis))

    return sites.of_each(lambda name: sites[name].draw(noise[name]), joint)


def refuse_event(p: tfd.Distribution, shape: tf.TensorShape, what: str) -> None:
    """Refuses a distribution of events of another shape."""
    if not p.event_shape.is_compatible_with(shape):
        raise ValueError(
            f"{what} must have event shape {shape.as_list()}; got {p.name} with event shape "
            f"{p.event_shape.as_list()} and batch shape {p.batch_shape.as_list()}. A layer's "
            "self.independent(...), or tfd.Independent, makes one event of several entries."
        )
