"""Likelihoods of positive real numbers."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import register
from keras_vae.data import preparation
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.distributions import density_families, supports
from keras_vae.distributions.base import Parameter
from keras_vae.distributions.likelihoods.location_scale import LocationScale
from keras_vae.distributions.likelihoods.sources import Mode, Source, Sourced, within_reach
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.tfp import tfd
from keras_vae.random.inversion.gammas import GAMMA_UNIFORMS

__all__ = ["Gamma", "LogNormal"]

_SMALLEST = 2.0**-126
"""Smallest draw: the smallest normal float32."""


@register
class Gamma(Sourced):
    """Likelihood of positive numbers, with mean m and standard deviation m / sqrt(concentration).

        log p(x) = k log(k / m) - log Gamma(k) + (k - 1) log x - k x / m

    with m = exp(log_mean) and k the concentration: a regression with a logarithmic link, whose
    spread is proportional to its mean. k = 1 is the exponential distribution.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        concentration: a positive number (fixed), "learned" (one weight), "per_feature" (one weight
            per entry, the default) or "decoder" (computed from z); those that are trained start at
            1 and stay between 1e-7 and 1e8.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `concentration` is none of these.

    Example:
        >>> Gamma(2, concentration=4.0).make_distribution(tf.zeros([2]), 4.0).stddev().numpy()
        array([0.5, 0.5], dtype=float32)
    """

    joins = True

    reading = (
        "Gamma density of mean m = exp(log_mean) and shape k = concentration; its standard "
        "deviation is m / sqrt(k)."
    )
    has_cdf = True

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        concentration: Mode = "per_feature",
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        source = Source("concentration", concentration, within_reach, weight="log_concentration")
        super().__init__(event_shape, network, sources=[source], head=head, **kwargs)

    @property
    def support(self) -> supports.Support:
        """The positive real numbers."""
        return supports.positive()

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Divides each feature by its mean; noise is added to whole numbers."""
        return preparation.positive(facts, cls.key()), {}

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Tells whether the data is not divided by its means."""
        return not preparation.spread

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logarithm of the mean."""
        return np.log(np.maximum(mean, _SMALLEST))

    def mean_specs(self) -> dict[str, Parameter]:
        """Returns one log-mean per entry."""
        return {"log_mean": Parameter(self.channels)}

    def make_distribution(self, log_mean: tf.Tensor, concentration: tf.Tensor) -> tfd.Distribution:
        """Returns independent gamma distributions."""
        return self.independent(density_families.Gamma(log_mean, concentration))

    def noise(self) -> Noise:
        """Returns four uniform numbers per entry."""
        return Noise((*self.event_shape, GAMMA_UNIFORMS), "uniform", random.OBSERVATION)

    def draw(self, noise: tf.Tensor, log_mean: tf.Tensor, concentration: tf.Tensor) -> Draw:
        """Draws the mean times a draw of mean 1, made by inversion."""
        ratio = self._inverted(random.gamma, noise, concentration)
        return Draw(tf.maximum(tf.exp(log_mean) * ratio, _SMALLEST))


@register
class LogNormal(LocationScale):
    """Likelihood of positive numbers whose logarithm is normal: log x ~ Normal(loc, scale).

    log p(x) = log Normal(log x; loc, scale) - log x is the density of x itself, so it is compared
    with other densities of the same data. The median is exp(loc), and the mean, which `reconstruct`
    returns, is exp(loc + scale^2 / 2).

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        scale: standard deviation of log x: a positive number (fixed), "learned" (one weight),
            "per_feature" (one weight per entry, the default) or "decoder" (computed from z).
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `scale` is none of these.

    Example:
        >>> p = LogNormal(1, scale=1.0).make_distribution(tf.zeros([1]), tf.ones([1]))
        >>> p.mean().numpy()  # exp(1/2)
        array([1.649], dtype=float32)
    """

    joins = True

    reading = "log x is normal with mean loc and standard deviation scale."
    has_cdf = True
    _default_scale = "per_feature"
    _modes = ("learned", "per_feature", "decoder")

    @property
    def support(self) -> supports.Support:
        """The positive real numbers."""
        return supports.positive()

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Divides each feature by its mean; noise is added to whole numbers."""
        return preparation.positive(facts, cls.key()), {"scale": "per_feature"}

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Tells whether the data is not divided by its means."""
        return not preparation.spread

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the centre at which the mean is as given, at the scale of the start."""
        scale = self.scale if isinstance(self.scale, float) else 1.0
        return np.log(np.maximum(mean, _SMALLEST)) - 0.5 * scale**2

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent log-normal distributions."""
        return self.independent(density_families.LogNormal(loc, scale))

    def noise(self) -> Noise:
        """Returns one normal number per entry."""
        return Noise(self.event_shape, "normal", random.OBSERVATION)

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws exp(loc + scale noise)."""
        return Draw(tf.exp(tf.clip_by_value(loc + scale * noise, -87.0, 88.0)))
