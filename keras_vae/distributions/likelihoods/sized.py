"""Likelihoods of counts whose rows have a size, such as a depth of sequencing or an exposure."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.preparation import Preparation
from keras_vae.distributions import supports
from keras_vae.distributions.base import Likelihood, Parameter

__all__ = ["OF_CONDITION", "Link", "LogLinked", "Sized", "condition_of"]

Link = Literal["log", "softmax"]

OF_CONDITION = ("link", "num_groups", "offset")
"""Arguments of likelihoods of counts that need a condition."""


def condition_of(c: Any, owner: str, argument: str) -> tf.Tensor:
    """Returns the condition beside z, of shape [..., C].

    Args:
        c: what the likelihood is given, a list of z and the condition.
        owner, argument: class and argument that need the condition, for the message.

    Raises:
        ValueError: if there is none, or it is not a vector.
    """
    if not isinstance(c, list) or len(c) != 2 or len(c[1].shape) != len(c[0].shape):
        raise ValueError(
            f"{owner} with {argument} takes a list of z and a condition that is a vector. Build "
            "the VAE with condition_shape=, a number, and pass {'x': ..., 'condition': ...}."
        )
    return c[1]


class Sized(Likelihood):
    """Likelihood of counts in which the size of a row may be known.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        offset: whether the last number of the condition is the logarithm of the row's size. The
            network and the head are not given it.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        TypeError: if `offset` is not a boolean.
    """

    of_condition: ClassVar[tuple[str, ...]] = OF_CONDITION

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        offset: bool = False,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(offset, bool):
            raise TypeError(
                f"Invalid value for argument `offset`. Expected True or False. Received: {offset!r}"
            )
        self.offset = offset
        super().__init__(event_shape, network, head=head, **kwargs)

    def check_condition(self, c: Any) -> None:
        """Refuses inputs without the size."""
        super().check_condition(c)
        if self.offset:
            condition_of(c, type(self).__name__, "offset=True")

    def network_input(self, c: Any) -> Any:
        """Returns z and the condition without the size."""
        if not self.offset:
            return c
        condition = condition_of(c, type(self).__name__, "offset=True")
        return [c[0], condition[..., :-1]] if condition.shape[-1] > 1 else c[0]

    def log_size(self, c: Any, rank: int) -> tf.Tensor:
        """Returns the logarithm of the row's size, with ones for the axes of an event.

        Args:
            c: list of z [..., L] and the condition [..., C].
            rank: number of axes of an event.
        """
        found = condition_of(c, type(self).__name__, "offset=True")[..., -1]
        ones = tf.ones([rank], tf.int32)
        return tf.cast(tf.reshape(found, tf.concat([tf.shape(found), ones], 0)), self.float_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments; `offset` only if it is True."""
        return {**super().get_config(), **({"offset": True} if self.offset else {})}


class LogLinked(Sized):
    """Likelihood of counts 0, 1, 2, ... whose first parameter is the logarithm of a mean.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        offset: whether the last number of the condition is the logarithm of the row's size, which
            is added to the logarithm of the mean; R calls it an offset.
        link: "log", or with an offset also "softmax": means are shares of the size, which sum to 1
            over the last axis.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `link` is neither, or "softmax" without an offset.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        offset: bool = False,
        link: Link = "log",
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        if link not in ("log", "softmax"):
            raise ValueError(
                "Invalid value for argument `link`. Expected 'log' or 'softmax'. Received: "
                f"link={link!r}"
            )
        if link == "softmax" and not offset:
            raise ValueError(
                "link='softmax' makes means that sum to the size of the row, which the condition "
                "gives: set offset=True, too."
            )
        self.link: Link = link
        super().__init__(event_shape, network, offset=offset, head=head, **kwargs)

    @property
    def support(self) -> supports.Support:
        """The integers from 0 on."""
        return supports.integers()

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Returns True: means lie far from 1."""
        return True

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logarithm of the mean, which is kept above 0.001."""
        return np.log(np.maximum(mean, 0.001))

    def linked(self) -> Parameter:
        """Returns the parameter of the mean as the head emits it."""
        transform = {"transform": tf.nn.log_softmax} if self.link == "softmax" else {}
        return Parameter(self.channels, **transform)

    def at_condition(self, parameters: dict[str, tf.Tensor], c: Any) -> dict[str, tf.Tensor]:
        """Returns the parameters with the logarithm of the row's size added to the first."""
        parameters = super().at_condition(parameters, c)
        if self.offset:
            first = next(iter(parameters))
            parameters = dict(parameters)
            parameters[first] += self.log_size(c, len(self.event_shape))
        return parameters

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments; `link` only if it is "softmax"."""
        return {**super().get_config(), **({"link": self.link} if self.link != "log" else {})}
