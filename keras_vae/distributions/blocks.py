"""Blocks: parts of one family with the same options, which are evaluated together."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

import tensorflow as tf

from keras_vae.distributions.base import Likelihood

__all__ = ["Block", "blocks_of"]


class Block:
    """Parts of one family with the same options, evaluated together.

    Their tensors are joined on an axis of their own in front of the event's, [..., P, *event_shape]
    for P parts, so that one distribution of batch shape [..., P] takes the place of P. The weights
    stay with the parts.

    Args:
        parts: likelihoods by name, two or more, that `blocks_of` has put together.

    Attributes:
        parts: likelihoods by name.
        layer: the first of them, which speaks for the family and its options.
    """

    def __init__(self, parts: Mapping[str, Likelihood]) -> None:
        self.parts = dict(parts)
        self.layer = next(iter(self.parts.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(self.parts)

    def read(self, raw: tf.Tensor, leading: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """Returns the parameters of all parts, from the raw numbers of their heads.

        Args:
            raw: outputs of the heads, joined, [n, P m].
            leading: shape of the axes in front that were folded into n; None means there are none.

        Returns:
            Tensors by name, [n, P, ...] or [*leading, P, ...].
        """
        first = [-1] if leading is None else leading
        read = self.layer.read(raw, tf.concat([first, [len(self.parts)]], 0))
        return {**read, **self.layer.joined_parameters(list(self.parts.values()))}

    def apart(
        self, parameters: Mapping[str, tf.Tensor], name: str, axes: int
    ) -> dict[str, tf.Tensor]:
        """Returns the parameters of one part.

        Args:
            parameters: parameters of the block, from `read`.
            name: the part.
            axes: number of axes in front of that of the parts.
        """
        part, place = self.parts[name], (*[slice(None)] * axes, self.names.index(name))
        own = {key: parameters[key][place] for key in part.parameter_specs()}
        return {**own, **part.shared_parameters()}


def blocks_of(parts: Mapping[str, Likelihood]) -> list[Block]:
    """Returns the blocks of two parts or more that can be evaluated together.

    They have no network, the default head, one family that allows it, and the same options.
    """
    groups: dict[Hashable, dict[str, Likelihood]] = {}
    for name, part in parts.items():
        if (key := _key(part)) is not None:
            groups.setdefault(key, {})[name] = part
    return [Block(group) for group in groups.values() if len(group) > 1]


def _key(part: Likelihood) -> Hashable | None:
    """Returns what parts of a block have in common; None if a part cannot be one of a block.

    A class has to say itself that its parts can be, since a subclass may change anything.
    """
    config: dict[str, Any] = {**part.get_config(), "name": None}
    allows = "joins" in vars(type(part)) and part.joins
    own_way = config["network"] or config["head"] or part.sequence or part.training_noise()
    if not allows or own_way:
        return None
    if set(part.of_condition) & set(config):
        return None
    return type(part), json.dumps(config, sort_keys=True, default=repr)
