"""Likelihoods of ordered levels: grades, ratings and the grey levels of images."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, register
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.distributions import level_families, supports
from keras_vae.distributions.base import Likelihood, Parameter, inverse_positive, positive
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd

__all__ = ["MixtureOfLogistics", "Ordinal"]


class _Levels(Likelihood):
    """Likelihood of the integers 0 .. levels - 1.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        levels: number of levels.
        head: layer from features to raw parameters; None is one Dense layer.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        levels: int,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.levels = as_count("levels", levels, least=2)
        super().__init__(event_shape, network, head=head, **kwargs)

    @property
    def support(self) -> supports.Support:
        """The integers 0 .. levels - 1."""
        return supports.integers(self.levels - 1)

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Leaves the levels as they are; the largest possible one decides their number."""
        return Preparation(), {"levels": max(2, int(facts.top) + 1)}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "levels": self.levels}


@register
class Ordinal(_Levels):
    """Likelihood of ordered levels: P(x <= r) = sigmoid(thresholds[r] - location).

    The location is computed from z. The thresholds are weights of the layer, levels - 1 of each
    entry, which increase and begin where all levels are equally probable at location 0. This is the
    cumulative logit model of R's `MASS::polr`, its zeta being the thresholds. Source: McCullagh
    (1980), Regression models for ordinal data.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        levels: number of levels K; the data is integers from 0 to K - 1.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `levels` is less than 2.

    Example:
        >>> likelihood = Ordinal(2, levels=5)
        >>> likelihood.make_distribution(tf.zeros([2]), **likelihood.shared_parameters()).mean()
        <tf.Tensor: shape=(2,), dtype=float32, numpy=array([2., 2.], dtype=float32)>
    """

    joins = True

    reading = "P(x <= r) = 1 / (1 + exp(location - thresholds_r)) for the levels r = 0, 1, ..."

    @property
    def support(self) -> supports.Support:
        """The integers 0 .. levels - 1, as classes in order."""
        return replace(super().support, is_ordinal=True)

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        levels: int,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(event_shape, network, levels=levels, head=head, **kwargs)
        p = np.arange(1, self.levels) / self.levels
        thresholds = np.log(p) - np.log1p(-p)
        first, gaps = thresholds[:1], inverse_positive(np.diff(thresholds))
        own: dict[str, Any] = {"dtype": self.float_dtype, "autocast": False}
        self.raw_thresholds = self.add_weight(
            name="raw_thresholds",
            shape=(*self.event_shape, self.levels - 1),
            initializer=lambda shape, dtype=None: tf.broadcast_to(
                tf.constant(np.concatenate([first, gaps]), dtype), shape
            ),
            **own,
        )

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns one location per entry."""
        return {"location": Parameter(self.channels)}

    def shared_parameters(self) -> dict[str, tf.Tensor]:
        """Returns the thresholds, [*event_shape, levels - 1]."""
        raw = tf.convert_to_tensor(self.raw_thresholds)
        steps = tf.concat([raw[..., :1], positive(raw[..., 1:])], axis=-1)
        return {"thresholds": tf.cumsum(steps, axis=-1)}

    def make_distribution(self, location: tf.Tensor, thresholds: tf.Tensor) -> tfd.Distribution:
        """Returns independent ordinal distributions."""
        return self.independent(level_families.Ordinal(location, thresholds))

    def draw(self, noise: tf.Tensor, location: tf.Tensor, thresholds: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        return Draw(self._inverted(random.ordinal, noise, location, thresholds))


@register
class MixtureOfLogistics(_Levels):
    """Likelihood of integer levels: a mixture of logistic distributions integrated over bins.

    Each entry is a mixture of its own, with weights softmax(logits), of components as in
    `DiscretizedLogistic`: P(x = k) = sum_j w_j (F_j(k + 1/2) - F_j(k - 1/2)), the outer bins open.
    Given z all entries are independent, channels included; PixelCNN++ also lets a channel depend on
    those before it. At raw parameters of zero the centres divide the range evenly. Source:
    Salimans, Karpathy, Chen and Kingma (2017), PixelCNN++, arXiv:1701.05517.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        levels: number of integer levels, 256 for 8 bits.
        num_logistics: number of logistic distributions in each mixture.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `levels` is less than 2 or `num_logistics` less than 1.

    Example:
        >>> likelihood = MixtureOfLogistics((28, 28, 1), num_logistics=3)
        >>> likelihood.distribution(tf.zeros([2, 8])).batch_shape
        TensorShape([2])
    """

    reading = (
        "P(x = k) = sum_j w_j (F_j(k + 1/2) - F_j(k - 1/2)), w = softmax(logits) and F_j(t) = 1 / "
        "(1 + exp(-(t - loc_j) / scale_j)) along the last axis, the outer levels open."
    )

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        levels: int = 256,
        num_logistics: int = 5,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.num_logistics = as_count("num_logistics", num_logistics, least=1)
        super().__init__(event_shape, network, levels=levels, head=head, **kwargs)

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns log-weights, centres and scales, [*event_shape, num_logistics]."""
        size = self.channels * self.num_logistics
        return {
            "logits": Parameter(size, self._by_component),
            "loc": Parameter(size, self._centres),
            "scale": Parameter(size, self._spreads),
        }

    def make_distribution(
        self, logits: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor
    ) -> tfd.Distribution:
        """Returns independent mixtures of discretised logistic distributions."""
        return self.independent(level_families.MixtureOfLogistics(logits, loc, scale, self.levels))

    def draw(self, noise: tf.Tensor, logits: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        inverse = functools.partial(random.mixture_of_logistics, levels=self.levels)
        return Draw(self._inverted(inverse, noise, logits, loc, scale))

    def _by_component(self, raw: tf.Tensor) -> tf.Tensor:
        shape = [tf.shape(raw)[:-1], [self.channels, self.num_logistics]]
        return tf.reshape(raw, tf.concat(shape, axis=0))

    def _centres(self, raw: tf.Tensor) -> tf.Tensor:
        places = (np.arange(self.num_logistics) + 0.5) / self.num_logistics
        return (self.levels - 1) * (self._by_component(raw) + tf.constant(places, raw.dtype))

    def _spreads(self, raw: tf.Tensor) -> tf.Tensor:
        return (self.levels - 1) / 8.0 * positive(self._by_component(raw)) / self.num_logistics

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "num_logistics": self.num_logistics}
