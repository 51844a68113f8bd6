"""Arguments: checks what constructors are given, and writes it into configurations."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

__all__ = [
    "as_count",
    "as_shape",
    "as_weight",
    "deserialize",
    "is_integer",
    "is_real",
    "register",
    "serialize",
]

register = keras.saving.register_keras_serializable(package="keras_vae")


def as_shape(event_shape: int | Sequence[int], owner: str) -> tuple[int, ...]:
    """Returns the shape as a tuple of positive integers; otherwise raises a `ValueError`."""
    shape = tuple(event_shape) if isinstance(event_shape, Iterable) else (event_shape,)
    if not shape or not all(is_integer(size) and size > 0 for size in shape):
        raise ValueError(
            f"{owner} expects an event shape of positive integers, such as 50 or (28, 28, 1); "
            f"got {event_shape!r}."
        )
    return tuple(int(size) for size in shape)


def as_count(name: str, value: int, *, least: int) -> int:
    """Returns the value as an integer of at least `least`; otherwise raises a `ValueError`."""
    if not is_integer(value) or value < least:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an integer of at least {least}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def serialize(layer: keras.layers.Layer | None) -> dict[str, Any] | None:
    """Returns the configuration of a layer, or None."""
    return None if layer is None else keras.saving.serialize_keras_object(layer)


def deserialize(config: Any) -> keras.layers.Layer | None:
    """Makes the layer of a configuration; returns a layer or None unchanged."""
    return keras.saving.deserialize_keras_object(config) if isinstance(config, dict) else config


def as_weight(name: str, value: float) -> float:
    """Returns the value as a finite number of at least 0; otherwise raises a `ValueError`."""
    if not is_real(value) or not 0.0 <= value < math.inf:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a finite number of at least 0. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def is_integer(value: Any) -> bool:
    """Tells whether the value is an integer and not a boolean."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Tells whether the value is a real number and not a boolean."""
    return isinstance(value, (float, np.floating)) or is_integer(value)
