"""Where a parameter that is not the centre of a likelihood comes from."""

import math
from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf

from keras_vae.arguments import is_real
from keras_vae.distributions.base import Likelihood, Parameter

__all__ = ["Mode", "Source", "within_reach"]

Mode = float | Literal["learned", "per_feature", "decoder"]

_WORDS = ("learned", "per_feature", "decoder")


def within_reach(raw: tf.Tensor) -> tf.Tensor:
    """Maps a raw number to its exponential, which is kept from 1e-7 to 1e8."""
    return tf.exp(tf.clip_by_value(raw, math.log(1e-7), math.log(1e8)))


class Source:
    """A parameter that is a number, one weight, one weight per entry, or computed by the decoder.

    A layer makes it before `super().__init__`, calls `add_weight` after it, and returns the
    parameter from `parameter_specs` or `shared_parameters` with the methods of the same names.

    Args:
        name: name of the parameter, which is the constructor's argument, too.
        value: a positive number, "learned", "per_feature" or "decoder".
        transform: map of raw numbers, 0 at the start, to the parameter.

    Raises:
        ValueError: if `value` is none of these.
    """

    def __init__(self, name: str, value: Any, transform: Callable[[tf.Tensor], tf.Tensor]) -> None:
        is_fixed = is_real(value) and 0.0 < float(value) < math.inf
        if not is_fixed and not (isinstance(value, str) and value in _WORDS):
            words = ", ".join(map(repr, _WORDS))
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected a positive number or one of "
                f"{words}. Received: {name}={value!r}"
            )
        self.name = name
        self.mode: Mode = float(value) if is_fixed else value
        self._transform = transform
        self._weight: Any = None

    def add_weight(self, layer: Likelihood) -> None:
        """Adds the weight of a learned parameter to its layer."""
        if self.mode in ("learned", "per_feature"):
            self._weight = layer.add_weight(
                name=f"raw_{self.name}",
                shape=layer.event_shape if self.mode == "per_feature" else (),
                initializer="zeros",
                dtype=layer.float_dtype,
                autocast=False,
            )

    def parameter_specs(self, channels: int) -> dict[str, Parameter]:
        """Returns the parameter if the decoder computes it."""
        return {self.name: Parameter(channels, self._transform)} if self.mode == "decoder" else {}

    def shared_parameters(self, dtype: str) -> dict[str, tf.Tensor]:
        """Returns the parameter unless the decoder computes it."""
        if self.mode == "decoder":
            return {}
        if self._weight is not None:
            return {self.name: self._transform(tf.convert_to_tensor(self._weight))}
        return {self.name: tf.constant(self.mode, dtype)}
