"""Distributions of ordered levels 0 .. levels - 1."""

import functools

import tensorflow as tf

from keras_vae import random
from keras_vae.distributions import tfp

__all__ = ["MixtureOfLogistics", "Ordinal"]

_CLOSEST = 1e-7
"""Distance of cut points that rounding has made equal."""


class Ordinal(tfp.Numbers):
    """Levels by a logistic variable around a location, cut at increasing thresholds.

    P(x <= r) = sigmoid(thresholds[r] - location). The probability of a level in between is
    sigmoid(a) sigmoid(-b) (1 - exp(b - a)) with a and b the thresholds above and below it less the
    location.

    Args:
        location: any shape.
        thresholds: increasing along a last axis of levels - 1.
    """

    location: tf.Tensor
    thresholds: tf.Tensor

    def __init__(self, location: tf.Tensor, thresholds: tf.Tensor, name: str = "Ordinal") -> None:
        super().__init__(name, {"location": location}, {"thresholds": thresholds})

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        distance = self.thresholds - self.location[..., tf.newaxis]
        gaps = tf.maximum(self.thresholds[..., 1:] - self.thresholds[..., :-1], _CLOSEST)
        below, above = -tf.math.softplus(-distance), -tf.math.softplus(distance)
        inner = below[..., 1:] + above[..., :-1] + tf.math.log(-tf.math.expm1(-gaps))
        levels = tf.concat([below[..., :1], inner, above[..., -1:]], axis=-1)
        chosen = tf.one_hot(tf.cast(x, tf.int32), levels.shape[-1], dtype=levels.dtype)
        return tf.reduce_sum(chosen * levels, axis=-1)

    def _mean(self) -> tf.Tensor:
        distance = self.location[..., tf.newaxis] - self.thresholds
        return tf.reduce_sum(tf.math.sigmoid(distance), axis=-1)

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        return self._inverted(random.ordinal, n, seed, self.location, self.thresholds)


class MixtureOfLogistics(tfp.Numbers):
    """Levels by a mixture of discretised logistic distributions, the outer bins open.

    Args:
        logits: unnormalised log-weights of the components, on the last axis.
        loc: their centres, in levels.
        scale: their scales, in levels, positive.
        levels: number of levels.

    Source: Salimans, Karpathy, Chen and Kingma (2017), PixelCNN++, arXiv:1701.05517.
    """

    logits: tf.Tensor
    loc: tf.Tensor
    scale: tf.Tensor

    def __init__(
        self,
        logits: tf.Tensor,
        loc: tf.Tensor,
        scale: tf.Tensor,
        levels: int,
        name: str = "MixtureOfLogistics",
    ) -> None:
        self.levels = levels
        vectors = {"logits": logits, "loc": loc, "scale": scale}
        super().__init__(name, {}, vectors, levels=levels)

    @property
    def _components(self) -> tfp.DiscretizedLogistic:
        return tfp.DiscretizedLogistic(self.loc, self.scale, self.levels)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        by_component = self._components.log_prob(x[..., tf.newaxis])
        return tf.reduce_logsumexp(tf.nn.log_softmax(self.logits) + by_component, axis=-1)

    def _mean(self) -> tf.Tensor:
        return tf.reduce_sum(tfp.softmax(self.logits) * self._components.mean(), axis=-1)

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        inverse = functools.partial(random.mixture_of_logistics, levels=self.levels)
        return self._inverted(inverse, n, seed, self.logits, self.loc, self.scale)
