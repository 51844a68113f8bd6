"""Sources of a parameter that is not the centre of a likelihood."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import keras
import tensorflow as tf

from keras_vae.arguments import is_real
from keras_vae.distributions.base import Likelihood, Parameter

__all__ = ["MODES", "Mode", "Source", "Sourced", "within_reach"]

Mode = float | Literal["learned", "per_feature", "decoder"]

MODES: Final = ("learned", "per_feature", "decoder")
"""Words for where a parameter comes from, if it is not a fixed number."""


def within_reach(raw: tf.Tensor) -> tf.Tensor:
    """Maps a raw number to its exponential, which is kept from 1e-7 to 1e8."""
    return tf.exp(tf.clip_by_value(raw, math.log(1e-7), math.log(1e8)))


class Source:
    """A parameter that is a number, one weight, one weight per entry, or computed by the decoder.

    Args:
        name: name of the parameter, which is the constructor's argument, too.
        value: a positive number or one of `modes`.
        transform: map of raw numbers, 0 at the start, to the parameter.
        weight: name of the weight and of the layer's attribute; None is "raw_" and the name.
        modes: words that are accepted. Beside `MODES` it may hold "per_group", which is one weight
            per entry and group, and others, which the layer handles.
        num_groups: number of groups.

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
        num_groups: int | None = None,
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
        self._num_groups = num_groups

    def add_weight(self, layer: Likelihood) -> None:
        """Adds the weight of a learned parameter to its layer, which is initialised."""
        shape = {
            "learned": (),
            "per_feature": layer.event_shape,
            "per_group": (self._num_groups, *layer.event_shape),
        }.get(self.mode)
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

    def shared_parameters(self, dtype: str, raw: Any = None) -> dict[str, tf.Tensor]:
        """Returns the parameter if it is a number or a weight that is the same in every row.

        Args:
            dtype: dtype of a number.
            raw: value of the weight; None takes that of this source.
        """
        if self.is_weight:
            value = tf.convert_to_tensor(self.raw) if raw is None else raw
            return {self.name: self.transform(value)}
        if isinstance(self.mode, float):
            return {self.name: tf.constant(self.mode, dtype)}
        return {}

    @property
    def is_weight(self) -> bool:
        """Whether the parameter is a weight that is the same in every row."""
        return self.mode in ("learned", "per_feature")


class Sourced(Likelihood):
    """Likelihood with parameters that need not be computed by the decoder.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        sources: where these parameters come from. The mode of each is an attribute of the layer and
            an entry of its configuration, by the name of the parameter.
        head: layer from features to raw parameters; None is one Dense layer.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        sources: Sequence[Source],
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.sources = tuple(sources)
        for source in self.sources:
            setattr(self, source.name, source.mode)
        super().__init__(event_shape, network, head=head, **kwargs)
        for source in self.sources:
            source.add_weight(self)

    @abc.abstractmethod
    def mean_specs(self) -> dict[str, Parameter]:
        """Returns the parameters that the decoder always computes; the first decides the mean."""

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the parameters that the decoder computes, those without a source first."""
        specs = self.mean_specs()
        for source in self.sources:
            specs |= source.parameter_specs(self.channels)
        return specs

    def shared_parameters(self) -> dict[str, tf.Tensor]:
        """Returns the parameters that are numbers, or weights that are the same in every row."""
        shared: dict[str, tf.Tensor] = {}
        for source in self.sources:
            shared |= source.shared_parameters(self.float_dtype)
        return shared

    def joined_parameters(self, parts: Sequence[Likelihood]) -> dict[str, tf.Tensor]:
        """Returns the shared parameters of several parts with the options of this one, [P, ...].

        The weights are joined before they are transformed.
        """
        shared: dict[str, tf.Tensor] = {}
        for place, source in enumerate(self.sources):
            raw = None
            if source.is_weight:
                raw = self.joined([part.sources[place].raw for part in parts])
            shared |= source.shared_parameters(self.float_dtype, raw)
        return shared

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), **{source.name: source.mode for source in self.sources}}
