"""Encoder of data whose parts or entries may be absent."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

import keras

from keras_vae.arguments import deserialize, is_real, register, serialize

__all__ = ["PartsEncoder"]


@register
class PartsEncoder(keras.layers.Layer):
    """Encoder of data of which parts or entries may be absent, which are NaN.

    Every absent entry is filled, and the mask of what is present goes beside the filled values:
    the features are network([values_1, mask_1, values_2, mask_2, ...]), the parts in alphabetical
    order, each flattened or first encoded by a network of its own. A condition is never absent and
    has no mask. The features do not depend on what an absent entry held. Source: Mattei and
    Frellsen (2019), MIWAE, arXiv:1812.02633.

    Args:
        network: layer from the joined values and masks, [B, n], to the features; None returns them.
        networks: layers by part that encode its filled values, [B, *D] to [B, m], such as a
            convolutional network for an image.
        complete: names of parts that are never absent, and have no mask.
        fill: what absent entries hold: "zero", or "learned", a trained number per entry.
        drop: probability with which a part is hidden from the encoder in training, so that it
            learns to do without. A single x is hidden entry by entry. The bound stays one of all
            observed entries.

    Raises:
        ValueError: if `fill` or `drop` is out of range, or a name in `networks` or `complete` is
            not a part.

    Example:
        >>> import keras, keras_vae, numpy as np
        >>> encoder = PartsEncoder(keras.layers.Dense(4, "relu"))
        >>> encoder(np.array([[0.5, np.nan, 2.0]], "float32")).shape
        TensorShape([1, 4])
    """

    def __init__(
        self,
        network: keras.layers.Layer | None = None,
        *,
        networks: Mapping[str, keras.layers.Layer] | None = None,
        complete: Sequence[str] = (),
        fill: Literal["zero", "learned"] = "zero",
        drop: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if fill not in ("zero", "learned"):
            raise ValueError(
                "Invalid value for argument `fill`. Expected 'zero' or 'learned'. Received: "
                f"{fill!r}"
            )
        if not is_real(drop) or not 0.0 <= drop < 1.0:
            raise ValueError(
                f"Invalid value for argument `drop`. Expected a probability below 1. Received: "
                f"{drop!r}"
            )
        for name, layer in {"network": network, **(networks or {})}.items():
            if not (layer is None or isinstance(layer, keras.layers.Layer)):
                raise TypeError(f"Expected a Keras layer as network of {name}. Received: {layer!r}")
        self.network = network
        self.networks = dict(networks or {})
        self.complete = tuple(complete)
        self.fill = fill
        self.drop = float(drop)
        self.fillings: dict[str, keras.Variable] = {}
        self._draws = keras.random.SeedGenerator()

    def build(self, input_shape: Any) -> None:
        """Creates the weights of the networks, and the numbers that fill absent entries."""
        shapes = {name: tuple(shape) for name, shape in _named(input_shape)}
        known = [name for name in shapes if name != "condition"]
        for name in (*self.networks, *self.complete):
            if name not in known:
                raise ValueError(
                    f"PartsEncoder names the part {name!r}, but its input has "
                    f"{', '.join(known)}. Correct the name."
                )
        if self.fill == "learned":
            for index, name in enumerate(known):
                if name not in self.complete:
                    self.fillings[name] = self.add_weight(
                        name=f"filling_{index}", shape=shapes[name][1:], initializer="zeros"
                    )
        width = 0
        for name, shape in shapes.items():
            encoded = shape
            if name in self.networks:
                given = keras.KerasTensor((None, *shape[1:]), dtype=self.compute_dtype)
                encoded = self.networks[name](given).shape
            width += math.prod(encoded[1:]) + (math.prod(shape[1:]) if self._masks(name) else 0)
        if self.network is not None:
            self.network(keras.KerasTensor((None, width), dtype=self.compute_dtype))
        self.built = True

    def _masks(self, name: str) -> bool:
        """Tells whether the mask of a part goes beside its values."""
        return name != "condition" and name not in self.complete

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Returns the features, [B, m], of a tensor, a list or a dict of tensors with NaN."""
        named = dict(_named(inputs))
        filled = {} if training and self.drop else self._vectors(named)
        parts = []
        for name, value in named.items():
            values, mask = filled.get(name) or self._filled(name, value, training)
            if name in self.networks:
                values = self.networks[name](values, training=training)
            parts += [_flat(values)] if mask is None else [_flat(values), _flat(mask)]
        joined = keras.ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        return joined if self.network is None else self.network(joined, training=training)

    def _filled(self, name: str, value: Any, training: bool) -> tuple[Any, Any]:
        """Returns a part without NaN, and its mask if it has one."""
        mask = None
        if self._masks(name):
            present = keras.ops.logical_not(keras.ops.isnan(value))
            if training and self.drop:
                present = keras.ops.logical_and(present, self._kept(name, value))
            filling = self.fillings.get(name)
            fill = keras.ops.zeros_like(value)
            if filling is not None:
                fill += keras.ops.cast(filling, value.dtype)
            value = keras.ops.where(present, value, fill)
            mask = keras.ops.cast(present, self.compute_dtype)
        return keras.ops.cast(value, self.compute_dtype), mask

    def _vectors(self, named: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Returns what `_filled` returns of the vectors that have a mask, computed all at once."""
        vectors = {k: v for k, v in named.items() if self._masks(k) and len(v.shape) == 2}
        if len(vectors) < 2:
            return {}
        joined = keras.ops.concatenate(list(vectors.values()), axis=-1)
        present = keras.ops.logical_not(keras.ops.isnan(joined))
        fill: Any = 0.0
        if self.fillings:
            fill = keras.ops.concatenate([self.fillings[name] for name in vectors], axis=0)
        filled = keras.ops.where(present, joined, keras.ops.cast(fill, joined.dtype))
        ends = list(accumulate(value.shape[1] for value in vectors.values()))[:-1]
        values, masks = (
            keras.ops.split(keras.ops.cast(each, self.compute_dtype), ends, axis=-1)
            for each in (filled, present)
        )
        return dict(zip(vectors, zip(values, masks, strict=True), strict=True))

    def _kept(self, name: str, value: Any) -> Any:
        """Draws what stays visible: entries of a single x, otherwise the part of each example."""
        shape = keras.ops.shape(value)
        if name != "x":
            shape = (shape[0], *[1] * (len(value.shape) - 1))
        return keras.random.uniform(shape, seed=self._draws) >= self.drop

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "network": serialize(self.network),
            "networks": {name: serialize(layer) for name, layer in self.networks.items()},
            "complete": list(self.complete),
            "fill": self.fill,
            "drop": self.drop,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PartsEncoder":
        """Makes the layer with new weights."""
        networks = {name: deserialize(each) for name, each in config["networks"].items()}
        return cls(**{**config, "network": deserialize(config["network"]), "networks": networks})


def _named(inputs: Any) -> list[tuple[str, Any]]:
    """Returns parts and their names: of a dict in alphabetical order, the condition last."""
    if isinstance(inputs, dict):
        return sorted(inputs.items(), key=lambda item: (item[0] == "condition", item[0]))
    if isinstance(inputs, list) and (
        hasattr(inputs[0], "shape") or isinstance(inputs[0], (list, tuple))
    ):
        return list(zip(("x", "condition"), inputs, strict=False))
    return [("x", inputs)]


def _flat(value: Any) -> Any:
    return keras.ops.reshape(value, (-1, math.prod(value.shape[1:])))
