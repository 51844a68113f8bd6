"""Likelihoods of counts more dispersed than Poisson and binomial ones."""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, is_real, register
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.distributions import count_families, supports
from keras_vae.distributions.base import Likelihood, Parameter
from keras_vae.distributions.likelihoods.log_linked import LogLinked
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd

__all__ = ["BetaBinomial", "NegativeBinomial"]

SpreadMode = Literal["learned", "per_feature", "decoder"]


class Dispersed(Likelihood):
    """Likelihood of counts with a mean from the decoder and a spread from one of four sources.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        spread: a positive number (fixed), "learned" (one weight), "per_feature" (one weight per
            entry) or "decoder" (computed from z). It is the parameter named `spread_name`.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if the spread is none of these.
    """

    spread_name: ClassVar[str] = "dispersion"

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        spread: float | SpreadMode,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        name = self.spread_name
        is_fixed = is_real(spread) and 0.0 < float(spread) < math.inf
        if not is_fixed and spread not in ("learned", "per_feature", "decoder"):
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected a positive number or one of "
                f"'learned', 'per_feature', 'decoder'. Received: {name}={spread!r}"
            )
        self._spread = float(spread) if is_fixed else spread
        setattr(self, name, self._spread)
        super().__init__(event_shape, network, head=head, **kwargs)
        if self._spread in ("learned", "per_feature"):
            weight = self.add_weight(
                name=f"log_{name}",
                shape=self.event_shape if self._spread == "per_feature" else (),
                initializer="zeros",
                dtype=self.float_dtype,
                autocast=False,
            )
            setattr(self, f"log_{name}", weight)

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the parameter of the mean, and the spread if the decoder computes it."""
        specs = self.mean_specs()
        if self._spread == "decoder":
            specs[self.spread_name] = Parameter(self.channels, _within_reach)
        return specs

    @abc.abstractmethod
    def mean_specs(self) -> dict[str, Parameter]:
        """Returns the parameters apart from the spread; the first one decides the mean."""

    def shared_parameters(self) -> dict[str, tf.Tensor]:
        """Returns the spread unless the decoder computes it."""
        if self._spread == "decoder":
            return {}
        if self._spread in ("learned", "per_feature"):
            weight = getattr(self, f"log_{self.spread_name}")
            return {self.spread_name: _within_reach(tf.convert_to_tensor(weight))}
        return {self.spread_name: tf.constant(self._spread, self.float_dtype)}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), self.spread_name: self._spread}


@register
class NegativeBinomial(Dispersed, LogLinked):
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
        dispersion: float | SpreadMode = "per_feature",
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(event_shape, network, spread=dispersion, head=head, **kwargs)

    def mean_specs(self) -> dict[str, Parameter]:
        """Returns one log-mean per entry."""
        return {"log_mean": Parameter(self.channels)}

    def make_distribution(self, log_mean: tf.Tensor, dispersion: tf.Tensor) -> tfd.Distribution:
        """Returns independent negative binomial distributions."""
        return self.independent(count_families.NegativeBinomial(log_mean, dispersion))

    def draw(self, noise: tf.Tensor, log_mean: tf.Tensor, dispersion: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        mean = tf.exp(log_mean)
        return Draw(self._inverted(random.negative_binomial, noise, mean, dispersion))


@register
class BetaBinomial(Dispersed):
    """Likelihood of counts out of a known total, more dispersed than binomial ones.

        P(x) = C(n, x) B(x + a, n - x + b) / B(a, b),   a = concentration sigmoid(logits)
                                                        b = concentration sigmoid(-logits)

    with n = total_count: a binomial distribution whose probability of success is drawn from a beta
    distribution of mean sigmoid(logits). It approaches Binomial(n, sigmoid(logits)) as the
    concentration grows; the variance is (n + concentration) / (1 + concentration) times that of the
    binomial distribution.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        total_count: number of trials of each entry.
        concentration: a positive number (fixed), "learned" (one weight), "per_feature" (one weight
            per entry, the default) or "decoder" (computed from z). Those that are trained stay
            between 1e-7 and 1e8, and so do a and b.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `total_count` is not a positive integer, or `concentration` is none of these.

    Example:
        >>> likelihood = BetaBinomial(3, total_count=10, concentration=2.0)
        >>> likelihood.make_distribution(tf.zeros([3]), 2.0).variance().numpy()
        array([10., 10., 10.], dtype=float32)
    """

    reading = (
        "x successes of total_count trials, whose probability is drawn from a beta distribution of "
        "mean p = 1 / (1 + exp(-logits)) and shapes concentration p and concentration (1 - p)."
    )
    spread_name = "concentration"

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        total_count: int,
        concentration: float | SpreadMode = "per_feature",
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.total_count = as_count("total_count", total_count, least=1)
        super().__init__(event_shape, network, spread=concentration, head=head, **kwargs)

    @property
    def support(self) -> supports.Support:
        """The integers 0 .. total_count."""
        return supports.integers(self.total_count)

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Leaves the counts as they are; the largest possible one is the number of trials."""
        return Preparation(), {"total_count": max(1, int(facts.top))}

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Returns True: means lie far from half of the trials."""
        return True

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logits of the mean share of successes, which is kept from 0.001 to 0.999."""
        p = np.clip(mean / self.total_count, 0.001, 0.999)
        return np.log(p) - np.log1p(-p)

    def mean_specs(self) -> dict[str, Parameter]:
        """Returns one logit per entry."""
        return {"logits": Parameter(self.channels)}

    def make_distribution(self, logits: tf.Tensor, concentration: tf.Tensor) -> tfd.Distribution:
        """Returns independent beta-binomial distributions."""
        total_count = tf.constant(self.total_count, logits.dtype)
        shapes = _shapes(logits, concentration)
        return self.independent(count_families.BetaBinomial(total_count, *shapes))

    def draw(self, noise: tf.Tensor, logits: tf.Tensor, concentration: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        total_count = tf.constant(self.total_count, logits.dtype)
        shapes = _shapes(logits, concentration)
        return Draw(self._inverted(random.beta_binomial, noise, total_count, *shapes))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "total_count": self.total_count}


def _shapes(logits: tf.Tensor, concentration: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the shapes of the beta distribution of a success's probability."""
    log_both = tf.math.log(concentration)
    return (
        _within_reach(log_both - tf.math.softplus(-logits)),
        _within_reach(log_both - tf.math.softplus(logits)),
    )


def _within_reach(log_spread: tf.Tensor) -> tf.Tensor:
    return tf.exp(tf.clip_by_value(log_spread, math.log(1e-7), math.log(1e8)))
