"""Decoder of time series: level, trend and seasons beside a residual network."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vae.networks.dense import with_condition
from keras_vae.networks.sequences import SequenceKind, sequence_decoder

__all__ = ["SeriesComponents", "series_decoder"]

_register = keras.saving.register_keras_serializable(package="keras_vae")


@_register
class SeriesComponents(keras.layers.Layer):
    """Level, trend and seasons of a series, [B, steps, channels], from coefficients [B, n].

    x_t = level + sum_p trend_p (t / steps)^p + sum over seasons of season[t mod its length].

    Args:
        length: number of steps.
        channels: number of series side by side.
        degree: degree of the polynomial trend; 0 is a level alone.
        seasons: lengths of the seasons in steps.

    Attributes:
        size: number of coefficients n.

    Example:
        >>> layer = SeriesComponents(4, 1, degree=0, seasons=(2,))
        >>> layer(keras.ops.convert_to_tensor([[10.0, 1.0, 2.0]])).numpy().ravel().tolist()
        [11.0, 12.0, 11.0, 12.0]
    """

    def __init__(
        self,
        length: int,
        channels: int,
        degree: int = 1,
        seasons: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.length, self.channels, self.degree = length, channels, degree
        self.seasons = tuple(seasons)
        self.size = channels * (1 + degree + sum(self.seasons))

    def call(self, coefficients: Any) -> Any:
        """Returns the series."""
        basis = [
            [
                *((step / self.length) ** power for power in range(self.degree + 1)),
                *(
                    float(step % season == place)
                    for season in self.seasons
                    for place in range(season)
                ),
            ]
            for step in range(self.length)
        ]
        shape = (-1, self.size // self.channels, self.channels)
        table = ops.cast(ops.convert_to_tensor(basis, "float32"), coefficients.dtype)
        return ops.matmul(table, ops.reshape(coefficients, shape))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        own = {"length": self.length, "channels": self.channels, "degree": self.degree}
        return {**super().get_config(), **own, "seasons": list(self.seasons)}


def series_decoder(
    latent_size: int,
    output_shape: Sequence[int],
    *,
    degree: int = 1,
    seasons: Sequence[int] = (),
    residual: SequenceKind | None = "convolution",
    width: int = 64,
    depth: int = 2,
    activation: str = "gelu",
    condition_shape: Sequence[int] | None = None,
    name: str | None = None,
) -> keras.Model:
    """Builds a decoder of windows of a time series: level, trend, seasons and a residual.

    The features of a step are those components, one per channel, beside the features of the
    residual. Source: Desai, Freeman, Wang and Beaver (2021), TimeVAE, arXiv:2111.08095.

    Args:
        latent_size: number of latents.
        output_shape: shape of one window, (steps, channels).
        degree: degree of the polynomial trend.
        seasons: lengths of the seasons in steps, such as (24, 168) for hours.
        residual: kind of the residual network, as for `sequence_decoder`; None has none.
        width: width of the Dense layer, and features of each step of the residual.
        depth: number of layers of the residual.
        activation: activation of the Dense layer and inside the residual.
        condition_shape: shape of one condition, which is joined to z.
        name: name of the model.

    Raises:
        ValueError: if the output is no sequence, or the degree or a season is out of range.

    Example:
        >>> series_decoder(2, (48, 3), seasons=(24,), width=8)(keras.ops.ones([5, 2])).shape
        TensorShape([5, 48, 11])
    """
    if len(output_shape) != 2:
        raise ValueError(
            f"Expected windows of shape (steps, channels), such as (48, 1); got "
            f"{tuple(output_shape)}."
        )
    if degree < 0 or any(season < 2 for season in seasons):
        raise ValueError(
            "Expected a degree of at least 0 and seasons of at least 2 steps; got "
            f"degree={degree}, seasons={tuple(seasons)}."
        )
    z = keras.Input((latent_size,), name="z")
    inputs, features = with_condition(z, z, condition_shape)
    steps, channels = output_shape
    components = SeriesComponents(steps, channels, degree, seasons)
    hidden = keras.layers.Dense(width, activation=activation)(features)
    series = components(keras.layers.Dense(components.size)(hidden))
    if residual is not None:
        rest = sequence_decoder(
            latent_size if condition_shape is None else latent_size + math.prod(condition_shape),
            output_shape,
            residual,
            width=width,
            depth=depth,
            activation=activation,
        )
        series = keras.layers.Concatenate()([series, rest(features)])
    return keras.Model(inputs, series, name=name)
