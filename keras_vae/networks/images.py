"""Convolutional networks for images."""

import math
from collections.abc import Sequence

import keras

from keras_vae.networks.dense import rescaled, with_condition

__all__ = ["check_image", "conv_decoder", "conv_encoder", "grid_decoder", "grid_encoder"]


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

    Example:
        >>> conv_encoder((8, 8, 1), (4, 8), width=16).output_shape
        (None, 16)
    """
    check_image(input_shape, filters, activation)
    x = keras.Input(input_shape, name="x")
    features = _halved(rescaled(x, offset, scale, logarithm), filters, activation)
    features = keras.layers.Flatten()(features)
    inputs, features = with_condition(x, features, condition_shape)
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

    Example:
        >>> conv_decoder(2, (8, 8, 1), (8, 4), width=16).output_shape
        (None, 8, 8, 4)
    """
    check_image(output_shape, filters, activation)
    z = keras.Input((latent_size,), name="z")
    inputs, features = with_condition(z, z, condition_shape)
    rows, columns = (math.ceil(size / 2 ** len(filters)) for size in output_shape[:2])
    features = keras.layers.Dense(width, activation=activation)(features)
    features = keras.layers.Dense(rows * columns * filters[0], activation=activation)(features)
    features = keras.layers.Reshape((rows, columns, filters[0]))(features)
    features = _doubled(features, output_shape, filters, activation)
    return keras.Model(inputs, features, name=name)


def grid_encoder(
    input_shape: Sequence[int],
    filters: Sequence[int] = (32, 64),
    *,
    activation: str = "relu",
    offset: float = 0.0,
    scale: float = 1.0,
    name: str | None = None,
) -> keras.Model:
    """Builds strided 3x3 convolutions that halve the image: features [B, h, w, filters[-1]].

    Args:
        input_shape: shape of one image, (height, width, channels).
        filters: filters of each convolution.
        activation: activation of each layer.
        offset, scale: the input is first mapped to (x - offset) * scale.
        name: name of the model.

    Raises:
        ValueError: if the input is not an image, there is no convolution, or the activation is
            glu.

    Example:
        >>> grid_encoder((8, 8, 1), (4, 8)).output_shape
        (None, 2, 2, 8)
    """
    check_image(input_shape, filters, activation)
    x = keras.Input(input_shape, name="x")
    features = _halved(rescaled(x, offset, scale, False), filters, activation)
    return keras.Model(x, features, name=name)


def grid_decoder(
    grid_shape: Sequence[int],
    output_shape: Sequence[int],
    filters: Sequence[int] = (64, 32),
    *,
    activation: str = "relu",
    name: str | None = None,
) -> keras.Model:
    """Builds 3x3 transposed convolutions that double the image, from features on a grid.

    Features are images [B, height, width, filters[-1]]; use a Conv2D as the likelihood's `head`.

    Args:
        grid_shape: shape of the features, (h, w, channels).
        output_shape: shape of one image, (height, width, channels).
        filters: filters of each transposed convolution.
        activation: activation of each layer.
        name: name of the model.

    Raises:
        ValueError: if the output is not an image, there is no convolution, or the activation is
            glu.

    Example:
        >>> grid_decoder((2, 2, 8), (8, 8, 1), (8, 4)).output_shape
        (None, 8, 8, 4)
    """
    check_image(output_shape, filters, activation)
    z = keras.Input(tuple(grid_shape), name="z")
    return keras.Model(z, _doubled(z, output_shape, filters, activation), name=name)


def _halved(
    features: keras.KerasTensor, filters: Sequence[int], activation: str
) -> keras.KerasTensor:
    """Halves an image by each strided convolution."""
    for count in filters:
        features = keras.layers.Conv2D(count, 3, 2, "same", activation=activation)(features)
    return features


def _doubled(
    features: keras.KerasTensor,
    output_shape: Sequence[int],
    filters: Sequence[int],
    activation: str,
) -> keras.KerasTensor:
    """Doubles an image by each transposed convolution, and crops it to the output's size."""
    for count in filters:
        features = keras.layers.Conv2DTranspose(count, 3, 2, "same", activation=activation)(
            features
        )
    excess = (features.shape[1] - output_shape[0], features.shape[2] - output_shape[1])
    if any(excess):
        features = keras.layers.Cropping2D(((0, excess[0]), (0, excess[1])))(features)
    return features


def check_image(shape: Sequence[int], filters: Sequence[int], activation: str) -> None:
    """Refuses what convolutions cannot be built on.

    Raises:
        ValueError: if the shape is not an image's, there is no convolution, or the activation is
            glu.

    Example:
        >>> check_image((28, 28, 1), (32, 64), "relu")
        >>> check_image((28, 28), (32, 64), "relu")
        Traceback (most recent call last):
            ...
        ValueError: ...
    """
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
