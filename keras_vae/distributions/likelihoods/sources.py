"""Where a parameter that is not the centre of a likelihood comes from."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import tensorflow as tf

from keras_vae.arguments import is_real
from keras_vae.distributions.base import Likelihood, Parameter

__all__ = ["MODES", "Mode", "Source", "within_reach"]

Mode = float | Literal["learned", "per_feature", "decoder"]

MODES: Final = ("learned", "per_feature", "decoder")
"""Words for where a parameter comes from, if it is not a fixed number."""


def within_reach(raw: tf.Tensor) -> tf.Tensor:
    """Maps a raw number to its exponential, which is kept from 1e-7 to 1e8."""
    return tf.exp(tf.clip_by_value(raw, math.log(1e-7), math.log(1e8)))


class Source:
    """A parameter that is a number, one weight, one weight per entry, or computed by the decoder.

    A layer makes it before `super().__init__`, calls `add_weight` after it, and returns the
    parameter from `parameter_specs` or `shared_parameters` with the methods of the same names.

    Args:
        name: name of the parameter, which is the constructor's argument, too.
        value: a positive number or one of `modes`.
        transform: map of raw numbers, 0 at the start, to the parameter.
        weight: name of the weight and of the layer's attribute; None is "raw_" and the name.
        modes: words that are accepted. Beside `MODES` it may hold others, which the layer handles.

    Raises:
        ValueError: if `value` is none of these.
    """

    def __init__(
        self,
        name: str,
        value: Any,
        transform: Callable[[tf.Tensor], tf.Tensor],
        *,
        weight: str | None = None,
        modes: Sequence[str] = MODES,
    ) -> None:
        is_fixed = is_real(value) and 0.0 < float(value) < math.inf
        if not is_fixed and not (isinstance(value, str) and value in modes):
            words = ", ".join(map(repr, modes))
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected a positive number or one of "
                f"{words}. Received: {name}={value!r}"
            )
        self.name = name
        self.mode: Any = float(value) if is_fixed else value
        self.transform = transform
        self.raw: Any = None
        self._weight = weight or f"raw_{name}"

    def add_weight(self, layer: Likelihood, shape: tuple[int, ...] | None = None) -> None:
        """Adds the weight of a learned parameter to its layer.

        Args:
            layer: the layer, initialised.
            shape: shape of the weight; None is that of the mode, and no weight for other modes.
        """
        if shape is None and self.mode in ("learned", "per_feature"):
            shape = layer.event_shape if self.mode == "per_feature" else ()
        if shape is not None:
            self.raw = layer.add_weight(
                name=self._weight,
                shape=shape,
                initializer="zeros",
                dtype=layer.float_dtype,
                autocast=False,
            )
            setattr(layer, self._weight, self.raw)

    def parameter_specs(self, channels: int) -> dict[str, Parameter]:
        """Returns the parameter if the decoder computes it."""
        return {self.name: Parameter(channels, self.transform)} if self.mode == "decoder" else {}

    def shared_parameters(self, dtype: str) -> dict[str, tf.Tensor]:
        """Returns the parameter if it is a number or a weight that is the same in every row."""
        if self.mode in ("learned", "per_feature"):
            return {self.name: self.transform(tf.convert_to_tensor(self.raw))}
        if isinstance(self.mode, float):
            return {self.name: tf.constant(self.mode, dtype)}
        return {}
