"""Likelihoods of counts with more zeros than their family gives."""

import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import register
from keras_vae.distributions import count_families, tfp
from keras_vae.distributions.base import Parameter
from keras_vae.distributions.likelihoods.dispersed import Overdispersed
from keras_vae.distributions.likelihoods.sized import LogLinked
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd

__all__ = ["ZeroInflatedNegativeBinomial", "ZeroInflatedPoisson"]


@register
class ZeroInflatedPoisson(LogLinked):
    """Likelihood of counts with excess zeros: 0 with probability g, else x ~ Poisson.

    The rate exp(log_rate) and g = sigmoid(gate_logits) are computed from z, so P(0) = g + (1 - g)
    exp(-rate) and the mean is (1 - g) rate. Source: Lambert (1992), Zero-inflated Poisson
    regression, with an application to defects in manufacturing. Arguments are those of `Poisson`.

    Example:
        >>> likelihood = ZeroInflatedPoisson(2)
        >>> likelihood.make_distribution(tf.zeros([2]), tf.zeros([2])).mean().numpy()
        array([0.5, 0.5], dtype=float32)
    """

    joins = True

    reading = (
        "0 with probability g = 1 / (1 + exp(-gate_logits)), otherwise Poisson counts of rate "
        "exp(log_rate); the mean is (1 - g) exp(log_rate)."
    )

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logarithm of twice the mean, for half of the counts are excess zeros."""
        return super().raw_mean(2.0 * mean)

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns a log-rate and the log-odds of an excess zero per entry."""
        return {"log_rate": self.linked(), "gate_logits": Parameter(self.channels)}

    def make_distribution(self, log_rate: tf.Tensor, gate_logits: tf.Tensor) -> tfd.Distribution:
        """Returns independent zero-inflated Poisson distributions."""
        entries = tfp.Poisson(log_rate=log_rate)
        return self.independent(count_families.ZeroInflated(gate_logits, entries))

    def draw(self, noise: tf.Tensor, log_rate: tf.Tensor, gate_logits: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        rate = tf.exp(log_rate)
        return Draw(self._inverted(random.zero_inflated_poisson, noise, gate_logits, rate))


@register
class ZeroInflatedNegativeBinomial(Overdispersed):
    """Likelihood of overdispersed counts with excess zeros: 0 with probability g, else x ~ NB.

    g = sigmoid(gate_logits), computed from z, and NB is that of `NegativeBinomial`, with its
    `dispersion`. So P(0) = g + (1 - g) (t / (t + m))^t, and the mean is (1 - g) m. It is the
    distribution of R's `zeroinfl(dist = "negbin")` and of scvi-tools' `zinb`. Arguments and errors
    are those of `NegativeBinomial`.

    Example:
        >>> likelihood = ZeroInflatedNegativeBinomial(2, dispersion=2.0)
        >>> likelihood.make_distribution(tf.zeros([2]), tf.zeros([2]), 2.0).mean().numpy()
        array([0.5, 0.5], dtype=float32)
    """

    joins = True

    reading = (
        "0 with probability g = 1 / (1 + exp(-gate_logits)), otherwise counts of mean m = "
        "exp(log_mean) and variance m + m^2 / dispersion; the mean is (1 - g) m."
    )

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logarithm of twice the mean, for half of the counts are excess zeros."""
        return super().raw_mean(2.0 * mean)

    def mean_specs(self) -> dict[str, Parameter]:
        """Returns a log-mean and the log-odds of an excess zero per entry."""
        return {"log_mean": self.linked(), "gate_logits": Parameter(self.channels)}

    def make_distribution(
        self, log_mean: tf.Tensor, gate_logits: tf.Tensor, dispersion: tf.Tensor
    ) -> tfd.Distribution:
        """Returns independent zero-inflated negative binomial distributions."""
        entries = count_families.NegativeBinomial(log_mean, dispersion)
        return self.independent(count_families.ZeroInflated(gate_logits, entries))

    def draw(
        self,
        noise: tf.Tensor,
        log_mean: tf.Tensor,
        gate_logits: tf.Tensor,
        dispersion: tf.Tensor,
    ) -> Draw:
        """Draws by inversion of the distribution function."""
        parameters = gate_logits, tf.exp(log_mean), dispersion
        return Draw(self._inverted(random.zero_inflated_negative_binomial, noise, *parameters))
