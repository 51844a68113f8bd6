"""Encoder of images by attention between patches."""

import math
from collections.abc import Sequence

import keras
from keras import ops

from keras_vae.networks.dense import with_condition
from keras_vae.networks.sequences import (
    MeanOverSteps,
    ObservedSteps,
    PositionedSteps,
    step_network,
)

__all__ = ["vision_encoder"]


def vision_encoder(
    input_shape: Sequence[int],
    patch: int = 4,
    *,
    width: int = 64,
    depth: int = 2,
    num_heads: int = 4,
    activation: str = "gelu",
    condition_shape: Sequence[int] | None = None,
    offset: float = 0.0,
    scale: float = 1.0,
    logarithm: bool = False,
    name: str | None = None,
) -> keras.Model:
    """Builds a small vision transformer: attention between the patches of an image, [B, width].

    Pixels may be absent, which are NaN. No patch attends to one without any pixel, and the features
    are the mean over the others. Source: Dosovitskiy et al. (2021), An image is worth 16x16 words,
    arXiv:2010.11929.

    Args:
        input_shape: shape of one image, (height, width, channels).
        patch: height and width of a patch, which divides those of the image.
        width: features of each patch.
        depth: number of transformer blocks.
        num_heads: heads of attention.
        activation: activation inside the blocks.
        condition_shape: shape of one condition, which is joined to the features.
        offset, scale: the input is first mapped to (x - offset) * scale.
        logarithm: whether it is then mapped to log(1 + x), which suits counts.
        name: name of the model.

    Raises:
        ValueError: if the input is not an image, patches do not divide it, or the heads do not
            divide the width.

    Example:
        >>> vision_encoder((8, 8, 1), width=8)(keras.ops.ones([5, 8, 8, 1])).shape
        TensorShape([5, 8])
    """
    if len(input_shape) != 3 or input_shape[0] % patch or input_shape[1] % patch:
        raise ValueError(
            f"Expected images of shape (height, width, channels) whose height and width {patch} "
            f"divides; got {tuple(input_shape)}. Choose another patch."
        )
    x = keras.Input(tuple(input_shape), name="x")
    rows, columns = input_shape[0] // patch, input_shape[1] // patch
    patches = ops.reshape(x, (-1, rows, patch, columns, patch, input_shape[2]))
    patches = ops.reshape(
        ops.transpose(patches, (0, 1, 3, 2, 4, 5)),
        (-1, rows * columns, math.prod(input_shape) // (rows * columns)),
    )
    features, mask = ObservedSteps(offset, scale, logarithm)(patches)
    features = step_network(
        PositionedSteps()(features),
        "attention",
        width,
        depth,
        causal=False,
        mask=mask,
        num_heads=num_heads,
        activation=activation,
    )
    pooled = MeanOverSteps()([features, mask])
    inputs, pooled = with_condition(x, pooled, condition_shape)
    pooled = keras.layers.Dense(width, activation=activation)(pooled)
    return keras.Model(inputs, pooled, name=name)
