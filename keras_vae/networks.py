"""Networks: encoders and decoders, tensor to tensor, in plain Keras.

Each function builds a Functional model whose first input is x or z and whose second, if any, is the
condition. `PartsEncoder` is the layer in front of an encoder whose data may be absent or has
several parts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import keras

from keras_vae.arguments import deserialize, is_real, register, serialize

__all__ = ["PartsEncoder", "conv_decoder", "conv_encoder", "mlp"]


def mlp(
    input_shape: Sequence[int],
    hidden: Sequence[int] = (200, 200),
    *,
    activation: str = "tanh",
    condition_shape: Sequence[int] | None = None,
    offset: float = 0.0,
    scale: float = 1.0,
    logarithm: bool = False,
    name: str | None = None,
) -> keras.Model:
    """Builds Dense layers on the flattened input; the features are [B, hidden[-1]].

    Args:
        input_shape: shape of one x or z.
        hidden: width of each layer.
        activation: activation of each layer; "glu" is the gated layer a * sigmoid(b) of two affine
            maps.
        condition_shape: shape of one condition, which is joined to the input.
        offset, scale: the input is first mapped to (x - offset) * scale.
        logarithm: whether it is then mapped to log(1 + x), which suits counts.
        name: name of the model.

    Raises:
        ValueError: if there is no layer.
    """
    if not hidden:
        raise ValueError("Expected at least one hidden layer; got none. (network=None is linear.)")
    inputs, features = _flat_inputs(input_shape, condition_shape, offset, scale, logarithm)
    for width in hidden:
        if activation == "glu":
            features = keras.ops.glu(keras.layers.Dense(2 * width)(features))
        else:
            features = keras.layers.Dense(width, activation=activation)(features)
    return keras.Model(inputs, features, name=name)


def conv_encoder(
    input_shape: Sequence[int],
    filters: Sequence[int] = (32, 64),
    *,
    width: int = 256,
    activation: str = "relu",
    condition_shape: Sequence[int] | None = None,
    offset: float = 0.0,
    scale: float = 1.0,
    logarithm: bool = False,
    name: str | None = None,
) -> keras.Model:
    """Builds strided 3x3 convolutions that halve the image, and a Dense layer: [B, width].

    Args:
        input_shape: shape of one image, (height, width, channels).
        filters: filters of each convolution.
        width: width of the Dense layer.
        activation: activation of each layer.
        condition_shape: shape of one condition, which is joined before the Dense layer.
        offset, scale: the input is first mapped to (x - offset) * scale.
        logarithm: whether it is then mapped to log(1 + x), which suits counts.
        name: name of the model.

    Raises:
        ValueError: if the input is not an image, there is no convolution, or the activation is
            glu.
    """
    _check_image(input_shape, filters, activation)
    x = keras.Input(input_shape, name="x")
    features = _rescaled(x, offset, scale, logarithm)
    for count in filters:
        features = keras.layers.Conv2D(count, 3, 2, "same", activation=activation)(features)
    features = keras.layers.Flatten()(features)
    inputs, features = _with_condition(x, features, condition_shape)
    features = keras.layers.Dense(width, activation=activation)(features)
    return keras.Model(inputs, features, name=name)


def conv_decoder(
    latent_size: int,
    output_shape: Sequence[int],
    filters: Sequence[int] = (64, 32),
    *,
    width: int = 256,
    activation: str = "relu",
    condition_shape: Sequence[int] | None = None,
    name: str | None = None,
) -> keras.Model:
    """Builds Dense layers, then 3x3 transposed convolutions that double the image.

    Features are images [B, height, width, filters[-1]]; use a Conv2D as the likelihood's `head`.

    Args:
        latent_size: number of latents.
        output_shape: shape of one image, (height, width, channels).
        filters: filters of each transposed convolution.
        width: width of the first Dense layer.
        activation: activation of each layer.
        condition_shape: shape of one condition, which is joined to z.
        name: name of the model.

    Raises:
        ValueError: if the output is not an image, there is no convolution, or the activation is
            glu.
    """
    _check_image(output_shape, filters, activation)
    z = keras.Input((latent_size,), name="z")
    inputs, features = _with_condition(z, z, condition_shape)
    rows, columns = (math.ceil(size / 2 ** len(filters)) for size in output_shape[:2])
    features = keras.layers.Dense(width, activation=activation)(features)
    features = keras.layers.Dense(rows * columns * filters[0], activation=activation)(features)
    features = keras.layers.Reshape((rows, columns, filters[0]))(features)
    for count in filters:
        features = keras.layers.Conv2DTranspose(count, 3, 2, "same", activation=activation)(
            features
        )
    excess = (features.shape[1] - output_shape[0], features.shape[2] - output_shape[1])
    if any(excess):
        features = keras.layers.Cropping2D(((0, excess[0]), (0, excess[1])))(features)
    return keras.Model(inputs, features, name=name)


def _flat_inputs(
    input_shape: Sequence[int],
    condition_shape: Sequence[int] | None,
    offset: float,
    scale: float,
    logarithm: bool,
) -> tuple[list[keras.KerasTensor] | keras.KerasTensor, keras.KerasTensor]:
    x = keras.Input(tuple(input_shape), name="x")
    features = _rescaled(x, offset, scale, logarithm)
    if len(input_shape) > 1:
        features = keras.layers.Flatten()(features)
    return _with_condition(x, features, condition_shape)


def _with_condition(
    x: keras.KerasTensor, features: keras.KerasTensor, condition_shape: Sequence[int] | None
) -> tuple[list[keras.KerasTensor] | keras.KerasTensor, keras.KerasTensor]:
    if condition_shape is None:
        return x, features
    condition = keras.Input(tuple(condition_shape), name="condition")
    flat = condition if len(condition_shape) == 1 else keras.layers.Flatten()(condition)
    return [x, condition], keras.layers.Concatenate()([features, flat])


def _rescaled(
    x: keras.KerasTensor, offset: float, scale: float, logarithm: bool
) -> keras.KerasTensor:
    if offset != 0.0 or scale != 1.0:
        x = keras.layers.Rescaling(scale, offset=-offset * scale)(x)
    return keras.ops.log1p(x) if logarithm else x


def _check_image(shape: Sequence[int], filters: Sequence[int], activation: str) -> None:
    if not filters:
        raise ValueError("Expected at least one convolution; got no filters.")
    if activation == "glu":
        raise ValueError(
            "Gated layers, activation 'glu', are for mlp; choose another such as 'relu'."
        )
    if len(shape) != 3:
        raise ValueError(
            f"Expected images of shape (height, width, channels); got {tuple(shape)}. "
            "For other data use mlp."
        )


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
            for name in known:
                if name not in self.complete:
                    self.fillings[name] = self.add_weight(
                        name=f"filling_{name}", shape=shapes[name][1:], initializer="zeros"
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
        parts = [
            feature for name, value in _named(inputs) for feature in self._of(name, value, training)
        ]
        joined = keras.ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        return joined if self.network is None else self.network(joined, training=training)

    def _of(self, name: str, value: Any, training: bool) -> Iterator[Any]:
        """Yields the features of a part: its encoded values, and its mask."""
        if self._masks(name):
            present = keras.ops.logical_not(keras.ops.isnan(value))
            if training and self.drop:
                present = keras.ops.logical_and(present, self._kept(name, value))
            filling = self.fillings.get(name)
            fill = keras.ops.zeros_like(value)
            if filling is not None:
                fill += keras.ops.cast(filling, value.dtype)
            value = keras.ops.where(present, value, fill)
        value = keras.ops.cast(value, self.compute_dtype)
        if name in self.networks:
            yield _flat(self.networks[name](value, training=training))
        else:
            yield _flat(value)
        if self._masks(name):
            yield _flat(keras.ops.cast(present, self.compute_dtype))

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
