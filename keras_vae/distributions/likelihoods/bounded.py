"""Likelihoods of real numbers in an interval."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import is_real, register
from keras_vae.data import preparation
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.distributions import density_families, supports
from keras_vae.distributions.base import Parameter
from keras_vae.distributions.likelihoods.location_scale import LocationScale, ScaleMode
from keras_vae.distributions.likelihoods.sources import Mode, Source, Sourced, within_reach
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.tfp import tfd
from keras_vae.random.inversion.gammas import BETA_UNIFORMS

__all__ = ["Beta", "CensoredNormal", "TruncatedNormal"]


@register
class Beta(Sourced):
    """Likelihood of numbers in (0, 1), with mean m and variance m (1 - m) / (concentration + 1).

        p(x) = x^(c m - 1) (1 - x)^(c (1 - m) - 1) / B(c m, c (1 - m))

    with m = sigmoid(logits) and c the concentration, the sum of both shapes: a regression with a
    logistic link. 0 and 1 have no density; `ContinuousBernoulli` takes them.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        concentration: a positive number (fixed), "learned" (one weight), "per_feature" (one weight
            per entry, the default) or "decoder" (computed from z); those that are trained start at
            2, where the density is uniform at m = 1/2, and stay between 2e-7 and 2e8.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `concentration` is none of these.

    Example:
        >>> Beta(2, concentration=3.0).make_distribution(tf.zeros([2]), 3.0).stddev().numpy()
        array([0.25, 0.25], dtype=float32)
    """

    joins = True

    reading = (
        "Beta density of shapes c m and c (1 - m), m = 1 / (1 + exp(-logits)) and c = "
        "concentration; the mean is m."
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
        source = Source("concentration", concentration, lambda raw: 2.0 * within_reach(raw))
        super().__init__(event_shape, network, sources=[source], head=head, **kwargs)

    @property
    def support(self) -> supports.Support:
        """The interval (0, 1) without its ends."""
        return supports.open_unit_interval()

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Divides by the largest possible value if one is given, as 100 for percentages."""
        return preparation.proportions(facts, cls.key()), {}

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the log-odds of the mean, which is kept from 1e-6 to 1 - 1e-6."""
        m = np.clip(mean, 1e-6, 1.0 - 1e-6)
        return np.log(m) - np.log1p(-m)

    def mean_specs(self) -> dict[str, Parameter]:
        """Returns one logit per entry."""
        return {"logits": Parameter(self.channels)}

    def make_distribution(self, logits: tf.Tensor, concentration: tf.Tensor) -> tfd.Distribution:
        """Returns independent beta distributions."""
        return self.independent(density_families.Beta(logits, concentration))

    def noise(self) -> Noise:
        """Returns eight uniform numbers per entry."""
        return Noise((*self.event_shape, BETA_UNIFORMS), "uniform", random.OBSERVATION)

    def draw(self, noise: tf.Tensor, logits: tf.Tensor, concentration: tf.Tensor) -> Draw:
        """Draws X / (X + Y) for gamma variables X and Y."""
        shapes = (concentration * tf.math.sigmoid(part) for part in (logits, -logits))
        return Draw(self._inverted(random.beta, noise, *shapes))


class _Bounded(LocationScale):
    """A normal variable and two limits.

    Raw parameters are relative to the limits: at zero the centre is the middle and the scale a
    quarter of the range. With a single limit the centre starts there, and the scale at 1.
    """

    _default_scale = "per_feature"
    _modes = ("learned", "per_feature", "decoder")

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        low: float | None = None,
        high: float | None = None,
        scale: ScaleMode | None = None,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.low, self.high = _limit("low", low), _limit("high", high)
        self._low = -math.inf if self.low is None else self.low
        self._high = math.inf if self.high is None else self.high
        if not self._low < self._high or (self.low is None and self.high is None):
            raise ValueError(
                "Expected the limits low < high, or one of them. "
                f"Received: low={low!r}, high={high!r}"
            )
        super().__init__(event_shape, network, scale=scale, head=head, **kwargs)

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Leaves the data as it is; its smallest and largest number are the limits."""
        return Preparation(), {"low": facts.lowest, "high": facts.highest, "scale": "per_feature"}

    def _centre(self, raw: tf.Tensor) -> tf.Tensor:
        if self.low is None or self.high is None:
            return raw + (self._high if self.low is None else self._low)
        return 0.5 * (self.low + self.high) + (self.high - self.low) * raw

    def _spread(self, raw: tf.Tensor) -> tf.Tensor:
        scale = super()._spread(raw)
        if self.low is None or self.high is None:
            return scale
        return 0.25 * (self.high - self.low) * scale

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "low": self.low, "high": self.high}


def _limit(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if not is_real(value) or not math.isfinite(value):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a finite number, or None for no limit. "
            f"Received: {name}={value!r}"
        )
    return float(value)


@register
class TruncatedNormal(_Bounded):
    """Likelihood of numbers in an interval: a normal density restricted to it.

        log p(x) = log Normal(x; loc, scale) - log P(low <= N <= high)

    with N ~ Normal(loc, scale), which may be centred outside. A large scale gives the uniform
    density. There is no point mass at the limits: numbers that pile up there are `CensoredNormal`.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        low, high: limits, in units of x; None is no limit, for one of them.
        scale: a positive number in units of x, "learned", "per_feature" (the default) or "decoder".
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `low` and `high` are no limits, or `scale` is none of these.

    Example:
        >>> layer = TruncatedNormal(1, low=0.0, high=None)
        >>> p = layer.make_distribution(tf.zeros([1]), tf.ones([1]))
        >>> p.mean().numpy()  # sqrt(2 / pi)
        array([0.798], dtype=float32)
    """

    joins = True

    reading = (
        "Normal density with centre loc and standard deviation scale, restricted to the numbers "
        "from low to high and divided by its mass there."
    )
    has_cdf = True

    @property
    def support(self) -> supports.Support:
        """The interval from `low` to `high`."""
        return supports.interval(self.low, self.high)

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent truncated normal distributions."""
        entries = density_families.TruncatedNormal(loc, scale, self._low, self._high)
        return self.independent(entries)

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        limits = (tf.constant(limit, tf.float32) for limit in (self._low, self._high))
        return Draw(self._inverted(random.truncated_normal, noise, loc, scale, *limits))


@register
class CensoredNormal(_Bounded):
    """Likelihood of measurements that stop at a limit: x is a normal number clipped to [low, high].

    A number at a limit says only that the variable lies there or beyond, as with a detection limit
    or a full scale. Its `log_prob` is therefore of two kinds (Tobin 1958, Estimation of
    relationships for limited dependent variables):

        low < x < high   the log-density log Normal(x; loc, scale)
        x = low          the log-probability log P(N <= low), N ~ Normal(loc, scale)
        x = high         the log-probability log P(N >= high)

    Probabilities of both limits and the integral of the density between them add up to 1. Such nats
    compare with those of another model only if it has the same point masses. The mean is that of
    x, not of N. Arguments and errors are those of `TruncatedNormal`.

    Example:
        >>> layer = CensoredNormal(1, low=0.0, high=None)
        >>> p = layer.make_distribution(tf.zeros([1]), tf.ones([1]))
        >>> float(p.prob([0.0])), float(p.mean()[0])  # half of it is at the limit; 1 / sqrt(2 pi)
        (0.5, 0.399)
    """

    joins = True

    reading = (
        "x is a normal number of centre loc and standard deviation scale, clipped to the numbers "
        "from low to high: a probability at low and at high, a density between them."
    )

    @property
    def support(self) -> supports.Support:
        """The interval from `low` to `high`, with point masses at its ends."""
        return supports.interval(self.low, self.high, has_masses=True)

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent censored normal distributions."""
        entries = density_families.CensoredNormal(loc, scale, self._low, self._high)
        return self.independent(entries)

    def noise(self) -> Noise:
        """Returns one normal number per entry."""
        return Noise(self.event_shape, "normal", random.OBSERVATION)

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws loc + scale noise, clipped to the limits."""
        return Draw(tf.clip_by_value(loc + scale * noise, self._low, self._high))
