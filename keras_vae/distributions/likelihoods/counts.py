"""Likelihoods of counts."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, is_real, register
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import Proposal
from keras_vae.distributions import counts, supports, tfp
from keras_vae.distributions.base import Likelihood, Parameter
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd
from keras_vae.random.elementary import horner

__all__ = ["Binomial", "NegativeBinomial", "Poisson"]

_LARGEST = 80.0
"""Largest logarithm of a mean whose exponential is taken; beyond it formulas are their limits."""

_STIRLING_FROM = 3.0
_SHIFTS = {tf.float32: 0, tf.float64: 5}
"""Steps from 3 to where the series of Stirling's formula is exact in each dtype."""

_TINY = 1e-30


@register
class Binomial(Likelihood):
    """Likelihood of counts out of a known total: x ~ Binomial(total_count, sigmoid(logits)).

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        total_count: number of trials of each entry.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `total_count` is not a positive integer.
    """

    reading = "x successes of total_count trials with probability 1 / (1 + exp(-logits))."

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        total_count: int,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.total_count = as_count("total_count", total_count, least=1)
        super().__init__(event_shape, network, head=head, **kwargs)

    @property
    def support(self) -> supports.Support:
        """The integers 0 .. total_count."""
        return supports.integers(self.total_count)

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns one logit per entry."""
        return {"logits": Parameter(self.channels)}

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Leaves the counts as they are; the largest possible one is the number of trials."""
        return Preparation(), {"total_count": max(1, int(facts.top))}

    def make_distribution(self, logits: tf.Tensor) -> tfd.Distribution:
        """Returns independent binomial distributions."""
        total_count = tf.constant(self.total_count, logits.dtype)
        return self.independent(tfp.Binomial(total_count, logits=logits))

    def draw(self, noise: tf.Tensor, logits: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        total_count = tf.constant(self.total_count, logits.dtype)
        return Draw(self._inverted(random.binomial, noise, total_count, tf.math.sigmoid(logits)))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "total_count": self.total_count}


@register
class Poisson(Likelihood):
    """Likelihood of counts: x ~ Poisson(exp(log_rate))."""

    reading = "Poisson counts of rate exp(log_rate)."

    @property
    def support(self) -> supports.Support:
        """The integers from 0 on."""
        return supports.integers()

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns one log-rate per entry."""
        return {"log_rate": Parameter(self.channels)}

    @classmethod
    def proposal(cls, facts: Facts) -> Proposal | None:
        """Proposes the family for counts of which at least half are 0."""
        if facts.are_levels or not (facts.are_counts and facts.are_sparse):
            return None
        reason = f"counts up to {facts.highest:g}, {facts.zeros:.0%} of them 0"
        return Proposal(cls.key(), {}, reason)

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Returns True: rates lie far from 1."""
        return True

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logarithm of the mean, which is kept above 0.001."""
        return np.log(np.maximum(mean, 0.001))

    def make_distribution(self, log_rate: tf.Tensor) -> tfd.Distribution:
        """Returns independent Poisson distributions."""
        return self.independent(tfp.Poisson(log_rate=log_rate))

    def draw(self, noise: tf.Tensor, log_rate: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        return Draw(self._inverted(random.poisson, noise, tf.exp(log_rate)))


@register
class NegativeBinomial(Likelihood):
    """Likelihood of overdispersed counts, with mean m and variance m + m^2 / dispersion.

        P(x) = Gamma(x + t) / (Gamma(t) x!) (t / (t + m))^t (m / (t + m))^x

    with m = exp(log_mean) and t the dispersion: a Poisson distribution whose rate is drawn from a
    gamma distribution of mean m and shape t. It approaches Poisson(m) as t grows. `size` in R's
    `dnbinom` and the inverse dispersion of scvi-tools are this t.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        dispersion: a positive number (fixed), "learned" (one weight), "per_feature" (one weight per
            entry, the default) or "decoder" (computed from z); those that are trained stay between
            1e-7 and 1e8.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `dispersion` is none of these.

    Example:
        >>> likelihood = NegativeBinomial(3, dispersion=2.0)
        >>> likelihood.make_distribution(tf.zeros([3]), 2.0).variance().numpy()
        array([1.5, 1.5, 1.5], dtype=float32)
    """

    reading = (
        "Counts of mean m = exp(log_mean) and variance m + m^2 / dispersion; dispersion is size of "
        "R's dnbinom."
    )

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        dispersion: float | Literal["learned", "per_feature", "decoder"] = "per_feature",
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        is_fixed = is_real(dispersion) and 0.0 < float(dispersion) < math.inf
        if not is_fixed and dispersion not in ("learned", "per_feature", "decoder"):
            raise ValueError(
                "Invalid value for argument `dispersion`. Expected a positive number or one of "
                f"'learned', 'per_feature', 'decoder'. Received: dispersion={dispersion!r}"
            )
        self.dispersion = float(dispersion) if is_fixed else dispersion
        super().__init__(event_shape, network, head=head, **kwargs)
        if self.dispersion in ("learned", "per_feature"):
            self.log_dispersion = self.add_weight(
                name="log_dispersion",
                shape=self.event_shape if self.dispersion == "per_feature" else (),
                initializer="zeros",
                dtype=self.float_dtype,
                autocast=False,
            )

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

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns one log-mean per entry, and the dispersion if the decoder computes it."""
        specs = {"log_mean": Parameter(self.channels)}
        if self.dispersion == "decoder":
            specs["dispersion"] = Parameter(self.channels, _within_reach)
        return specs

    def shared_parameters(self) -> dict[str, tf.Tensor]:
        """Returns the dispersion unless the decoder computes it."""
        if self.dispersion == "decoder":
            return {}
        if self.dispersion in ("learned", "per_feature"):
            return {"dispersion": _within_reach(tf.convert_to_tensor(self.log_dispersion))}
        return {"dispersion": tf.constant(self.dispersion, self.float_dtype)}

    def make_distribution(self, log_mean: tf.Tensor, dispersion: tf.Tensor) -> tfd.Distribution:
        """Returns independent negative binomial distributions."""
        return self.independent(_NegativeBinomial(log_mean, dispersion))

    def draw(self, noise: tf.Tensor, log_mean: tf.Tensor, dispersion: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        mean = tf.exp(log_mean)
        return Draw(self._inverted(random.negative_binomial, noise, mean, dispersion))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "dispersion": self.dispersion}


def _within_reach(log_dispersion: tf.Tensor) -> tf.Tensor:
    return tf.exp(tf.clip_by_value(log_dispersion, math.log(1e-7), math.log(1e8)))


class _NegativeBinomial(tfp.Numbers):
    """Negative binomial distribution by the logarithm of its mean and its dispersion."""

    log_mean: tf.Tensor
    dispersion: tf.Tensor

    def __init__(
        self, log_mean: tf.Tensor, dispersion: tf.Tensor, name: str = "NegativeBinomial"
    ) -> None:
        super().__init__(name, {"log_mean": log_mean, "dispersion": dispersion})

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return _log_prob(*_broadcast(x, self.log_mean, self.dispersion))

    def _mean(self) -> tf.Tensor:
        return tf.exp(self.log_mean) * tf.ones_like(self.dispersion)

    def _variance(self) -> tf.Tensor:
        mean = tf.exp(self.log_mean)
        return mean + mean**2 / self.dispersion

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        u = tfd.Uniform().sample(shape, seed=seed)
        parameters = tf.exp(self.log_mean), self.dispersion
        draw = random.negative_binomial(u, *(tf.cast(part, u.dtype) for part in parameters))
        return tf.cast(draw, self.dtype)


def _broadcast(*tensors: tf.Tensor) -> list[tf.Tensor]:
    """Broadcasts tensors to their common shape, so that gradients have the shapes of inputs."""
    shape = functools.reduce(tf.broadcast_dynamic_shape, map(tf.shape, tensors))
    return [tf.broadcast_to(tensor, shape) for tensor in tensors]


def _log_prob(x: tf.Tensor, log_mean: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """Computes the log-probability as a saturated value minus deviances.

    With n = x + t and p = m / (m + t), it is the probability of x successes and t failures of a
    binomial distribution, times t / n:

        log P(x) = saturated(x) + saturated(t) - saturated(n) + log(t / n)
                   - deviance(x, n p) - deviance(t, n (1 - p))

    If t is large, Stirling's formula replaces the difference of saturated(t) and saturated(n).
    """
    large, small = tf.maximum(t, _STIRLING_FROM), tf.minimum(t, _STIRLING_FROM)
    far = _remainder(x + large) - _remainder(large) - 0.5 * tf.math.log1p(x / large)
    near = _saturated(small) - _saturated(x + small) - tf.math.log1p(x / small)
    return (
        counts.saturated(x) + tf.where(t < _STIRLING_FROM, near, far) - _deviances(x, log_mean, t)
    )


def _saturated(k: tf.Tensor) -> tf.Tensor:
    """Computes `counts.saturated` with Stirling's formula from 3 on, where lgamma loses digits."""
    large, small = tf.maximum(k, _STIRLING_FROM), tf.minimum(k, _STIRLING_FROM)
    exact = small * tf.math.log(tf.maximum(small, _TINY)) - small - tf.math.lgamma(small + 1.0)
    series = -0.5 * tf.math.log(2.0 * math.pi * large) - _remainder(large)
    return tf.where(k < _STIRLING_FROM, exact, series)


def _remainder(k: tf.Tensor) -> tf.Tensor:
    """Computes the remainder r of Stirling's formula from 3 on.

    With w = 1 / (2 k + 1) it is r(k) = r(k + 1) + w^2 / 3 + w^4 / 5 + ...; float64 takes five such
    steps before the series is exact.
    """
    shifts = _SHIFTS[k.dtype]
    total = counts.remainder(k + float(shifts))
    for shift in range(shifts):
        square = tf.square(1.0 / (2.0 * (k + float(shift)) + 1.0))
        total += square * horner(square, [1.0 / (2 * j + 3) for j in range(9)])
    return total


@tf.custom_gradient
def _deviances(
    x: tf.Tensor, log_mean: tf.Tensor, t: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]]:
    """Computes the sum of both deviances.

    Differences are taken of x and m, so nothing cancels if t is large.
    """
    mean = tf.exp(tf.minimum(log_mean, _LARGEST))
    relative = (x - mean) / (mean + t)
    excess = (x - mean) * (t / (mean + t))  # x - n p, and n (1 - p) - t
    shortfall = tf.nn.relu(mean - x)
    surplus = tf.nn.relu(x - mean)
    to_failures = (
        tf.math.log1p(shortfall / (x + t))
        - tf.math.log1p(tf.nn.relu(relative))
        + tf.nn.relu(log_mean - _LARGEST)
    )
    log_odds = tf.math.log(tf.maximum(t * (surplus / (x + t)), _TINY)) - log_mean
    to_successes = tf.where(
        x > mean,
        tf.math.softplus(log_odds),
        -tf.math.log1p(shortfall * (t / (mean + t)) / tf.maximum(x, _TINY)),
    )

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        one = tf.ones_like(x)
        by_t = counts.deviance(one, one + relative, to_failures, -relative)
        return upstream * to_successes, -upstream * excess, upstream * by_t

    value = counts.deviance(x, x - excess, to_successes, excess)
    value += counts.deviance(t, t + excess, to_failures, -excess)
    return value, gradient
