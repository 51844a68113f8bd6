"""Likelihood of several named parts of the data, independent given z."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_vae.arguments import deserialize, register, serialize
from keras_vae.data.schema import Schema
from keras_vae.distributions.base import Likelihood
from keras_vae.distributions.base.shapes import folded, symbolic
from keras_vae.distributions.blocks import Block, blocks_of

__all__ = ["Parts"]

_RESERVED = ("condition", "present", "seed")


@register
class Parts(keras.layers.Layer):
    """Likelihood of named parts: log p(x | z) = sum over the parts that are present of log p_m.

    The parts are independent given z, and each may have any likelihood. A part whose likelihood has
    `missing=True` may be absent in an example, and so may single entries of it; the bound is then
    one on the log-probability of what is present. Data is a dict of arrays by part, or a data frame
    with such columns.

    Parts without a network share the trunk and have one head each. A part with a network of its
    own is given z itself. Sources: Nazabal et al. (2020), Handling incomplete heterogeneous data
    using VAEs, arXiv:1807.03653; Wu and Goodman (2018), Multimodal generative models for scalable
    weakly-supervised learning, arXiv:1802.05335.

    Args:
        parts: likelihoods by name, each without a network or with one of its own.
        network: the trunk, from z to the features that the other parts share; None is z itself.
        schema: the table whose columns the parts are; see `keras_vae.data.Schema`. The model then
            takes data frames as they are in the file, and returns rows as such frames.

    Raises:
        ValueError: if there is no part, a name is empty, contains "/" or is reserved, the parts
            compute in different dtypes, or they are not the columns of the schema.
        TypeError: if a part is not a `Likelihood`, or the network is not a layer.

    Example:
        >>> import keras, keras_vae
        >>> likelihood = keras_vae.Parts(
        ...     {
        ...         "age": keras_vae.Normal(1, scale="learned", missing=True),
        ...         "sex": keras_vae.Categorical(2),
        ...     },
        ...     network=keras.layers.Dense(8, "relu"),
        ... )
        >>> sorted(likelihood.parts)
        ['age', 'sex']
    """

    def __init__(
        self,
        parts: Mapping[str, Likelihood],
        network: keras.layers.Layer | None = None,
        *,
        schema: Schema | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if not isinstance(parts, Mapping) or not parts:
            raise ValueError(
                "Invalid value for argument `parts`. Expected a dict of one likelihood or more, "
                f"such as {{'age': Normal(1)}}. Received: {parts!r}"
            )
        for name, part in parts.items():
            _check_name(name)
            if not isinstance(part, Likelihood):
                raise TypeError(
                    f"Invalid part {name!r}. Expected a keras_vae Likelihood. Received: {part!r}"
                )
        if not (network is None or isinstance(network, keras.layers.Layer)):
            raise TypeError(
                "Invalid value for argument `network`. Expected a Keras layer or model, or None. "
                f"Received: {network!r}"
            )
        dtypes = {name: part.float_dtype for name, part in parts.items()}
        if len(set(dtypes.values())) > 1:
            raise ValueError(
                f"The parts compute in different dtypes: {dtypes}. Give all the same dtype=."
            )
        if schema is not None:
            _check_schema(schema, parts)
        self.parts = dict(parts)
        self.network = network
        self.schema = schema
        self._ranks: list[int] = []

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The parts that are evaluated together, because they have one family and its options."""
        return tuple(blocks_of(self.parts))

    @property
    def float_dtype(self) -> str:
        """Dtype of parameters and log-probabilities: float32, or float64 under that policy."""
        return next(iter(self.parts.values())).float_dtype

    def by_part(self) -> dict[str, Likelihood]:
        """Returns the likelihoods of the parts of the data."""
        return dict(self.parts)

    def build(self, input_shape: Any) -> None:
        """Creates the weights of all networks and heads; the batch size may be open.

        Args:
            input_shape: shape of z, or list of those of z and the condition.
        """
        if self._ranks:
            return
        inputs = symbolic(input_shape, self.compute_dtype)
        features = self._trunk(inputs, False)
        for part in self.parts.values():
            if part.network is None:
                part.build_head(features.shape, input_shape)
            else:
                part.build(input_shape)
        self._ranks = [len(part.shape) - 1 for part in keras.tree.flatten(inputs)]
        self.built = True

    def _trunk(self, inputs: Any, training: bool) -> Any:
        if self.network is not None:
            return self.network(inputs, training=training)
        return keras.ops.concatenate(inputs, axis=-1) if isinstance(inputs, list) else inputs

    def head_parameters_by_part(
        self, c: Any, training: bool = False
    ) -> dict[str, dict[str, tf.Tensor]]:
        """Returns the parameters of each part that its head emits, by name.

        Args:
            c: z [B, L] or [S, B, L], or a list of z and the condition.
            training: whether Dropout, BatchNormalization and their like are in training mode.
        """
        raw, c, leading = self._raw(c, training)
        return {name: self._read(name, raw, c, leading, training) for name in self.parts}

    def parameters_by_part(self, c: Any, training: bool = False) -> dict[str, dict[str, tf.Tensor]]:
        """Returns the parameters of each part by name; arguments as for the heads alone."""
        return {
            name: {**parameters, **self.parts[name].shared_parameters()}
            for name, parameters in self.head_parameters_by_part(c, training).items()
        }

    def parameters_by_block(
        self, c: Any, training: bool = False
    ) -> dict[tuple[str, ...], dict[str, tf.Tensor]]:
        """Returns the parameters of blocks of like parts, and of the others each by itself.

        Args:
            c: z [B, L] or [S, B, L], or a list of z and the condition.
            training: whether Dropout, BatchNormalization and their like are in training mode.

        Returns:
            Parameters by the names of the parts of a block, [..., P, ...], and by the name of every
            other part, [..., ...].
        """
        raw, c, leading = self._raw(c, training)
        found = {}
        for block in self.blocks:
            joined = tf.concat([raw[name] for name in block.names], axis=1)
            found[block.names] = block.read(joined, leading)
        joint = {name for block in self.blocks for name in block.names}
        for name, part in self.parts.items():
            if name not in joint:
                own = self._read(name, raw, c, leading, training)
                found[name,] = {**own, **part.shared_parameters()}
        return found

    def _raw(self, c: Any, training: bool) -> tuple[dict[str, tf.Tensor], Any, tf.Tensor | None]:
        """Returns the raw numbers of the parts that share the trunk, c, and its first axes."""
        c = keras.tree.map_structure(tf.convert_to_tensor, c)
        inputs, leading = folded(c, self._ranks)
        sharing = {name: part for name, part in self.parts.items() if part.network is None}
        if not sharing:
            return {}, c, leading
        return self._heads(sharing, self._trunk(inputs, training), training), c, leading

    def _read(
        self,
        name: str,
        raw: Mapping[str, tf.Tensor],
        c: Any,
        leading: tf.Tensor | None,
        training: bool,
    ) -> dict[str, tf.Tensor]:
        """Returns the parameters that the head of one part emits."""
        part = self.parts[name]
        if name not in raw:
            return part.head_parameters(c, training)
        return part.at_condition(part.read(raw[name], leading), c)

    def _heads(
        self, parts: Mapping[str, Likelihood], features: tf.Tensor, training: bool
    ) -> dict[str, tf.Tensor]:
        """Returns the raw numbers of each head; all Dense heads are one matrix product."""
        dense = {name: part for name, part in parts.items() if not part.has_own_head}
        raw = {
            name: part.head(features, training=training)
            for name, part in parts.items()
            if part.has_own_head
        }
        if dense:
            flat = tf.reshape(features, [-1, math.prod(features.shape[1:])])
            flat = tf.cast(flat, self.float_dtype)
            heads = [part.head for part in dense.values()]
            kernel = tf.concat([head.kernel for head in heads], axis=1)
            bias = tf.concat([head.bias for head in heads], axis=0)
            sizes = [head.units for head in heads]
            raw |= dict(zip(dense, tf.split(flat @ kernel + bias, sizes, axis=1), strict=True))
        return raw

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "parts": [[name, serialize(part)] for name, part in self.parts.items()],
            "network": serialize(self.network),
            **({} if self.schema is None else {"schema": self.schema.to_toml()}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Parts:
        """Makes the likelihood with new weights."""
        made: dict[str, Any] = {"network": deserialize(config["network"])}
        made["parts"] = {name: deserialize(part) for name, part in config["parts"]}
        if "schema" in config:
            made["schema"] = Schema.from_toml(config["schema"])
        return cls(**{**config, **made})


def _check_schema(schema: Schema, parts: Mapping[str, Likelihood]) -> None:
    """Refuses a schema that does not describe the parts."""
    wanted = {name: ((column.size,), column.missing) for name, column in schema.columns.items()}
    found = {name: (part.event_shape, part.missing) for name, part in parts.items()}
    if set(found) != set(wanted):
        odd = sorted(set(found) ^ set(wanted))[0]
        where = "the schema" if odd in found else "the parts"
        raise ValueError(
            f"Expected one part for each column of the schema; {odd!r} is not in {where}. "
            "keras_vae.factories.table_likelihoods(schema) makes them."
        )
    for name, (shape, missing) in wanted.items():
        if found[name] != (shape, missing):
            raise ValueError(
                f"Expected part {name!r} to have event shape {shape} and missing={missing}, as its "
                f"column; got {found[name][0]} and missing={found[name][1]}."
            )


def _check_name(name: Any) -> None:
    """Refuses a name that is no text, or that means something else in the data."""
    if not isinstance(name, str) or not name or name in _RESERVED:
        raise ValueError(
            f"Expected names of parts that are text, other than {', '.join(_RESERVED)}. Received: "
            f"{name!r}"
        )
