"""Distributions of counts that TensorFlow Probability lacks or rounds badly."""

import tensorflow as tf

from keras_vae import random
from keras_vae.distributions import counts, tfp
from keras_vae.distributions.tfp import tfd

__all__ = ["BetaBinomial", "Multinomial", "NegativeBinomial", "ZeroInflated"]


class NegativeBinomial(tfp.Numbers):
    """Negative binomial distribution by the logarithm of its mean and its dispersion."""

    log_mean: tf.Tensor
    dispersion: tf.Tensor

    def __init__(
        self, log_mean: tf.Tensor, dispersion: tf.Tensor, name: str = "NegativeBinomial"
    ) -> None:
        super().__init__(name, {"log_mean": log_mean, "dispersion": dispersion})

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return counts.negative_binomial_log_prob(x, self.log_mean, self.dispersion)

    def _mean(self) -> tf.Tensor:
        return tf.exp(self.log_mean) * tf.ones_like(self.dispersion)

    def _variance(self) -> tf.Tensor:
        mean = tf.exp(self.log_mean)
        return mean + mean**2 / self.dispersion

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        parameters = tf.exp(self.log_mean), self.dispersion
        return self._inverted(random.negative_binomial, n, seed, *parameters)


class BetaBinomial(tfp.Numbers):
    """Beta-binomial distribution of total_count trials, by the shapes of the beta distribution."""

    concentration1: tf.Tensor
    concentration0: tf.Tensor

    def __init__(
        self,
        total_count: tf.Tensor,
        concentration1: tf.Tensor,
        concentration0: tf.Tensor,
        name: str = "BetaBinomial",
    ) -> None:
        self.total_count = total_count
        tensors = {"concentration1": concentration1, "concentration0": concentration0}
        super().__init__(name, tensors, total_count=total_count)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return counts.beta_binomial_log_prob(
            x, self.total_count, self.concentration1, self.concentration0
        )

    def _mean(self) -> tf.Tensor:
        return self.total_count * (
            self.concentration1 / (self.concentration1 + self.concentration0)
        )

    def _variance(self) -> tf.Tensor:
        both = self.concentration1 + self.concentration0
        binomial = self._mean() * (self.concentration0 / both)
        return binomial * ((both + self.total_count) / (both + 1.0))

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        parameters = self.total_count, self.concentration1, self.concentration0
        return self._inverted(random.beta_binomial, n, seed, *parameters)


class Multinomial(tfd.Multinomial):
    """Multinomial distribution with the log-probability of `keras_vae.distributions.counts`.

    A log-probability is that of counts given their own sum; `total_count` is that of the mean and
    of draws.
    """

    def _log_prob(self, counts_: tf.Tensor) -> tf.Tensor:
        return counts.multinomial_log_prob(counts_, tf.convert_to_tensor(self.logits))

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        logits = tf.convert_to_tensor(self.logits)
        batch, size = self.batch_shape_tensor(), logits.shape[-1]
        shape = tf.concat([[n], batch, [random.splits(size)]], axis=0)
        u = tfd.Uniform().sample(shape, seed=seed)
        total = tf.broadcast_to(tf.cast(self.total_count, u.dtype), shape[:-1])
        draw = random.multinomial(u, total, tf.cast(logits, u.dtype))
        return tf.cast(draw, self.dtype)


class ZeroInflated(tfp.Numbers):
    """Counts that are 0 with probability sigmoid(gate_logits), and else from another distribution.

    Args:
        gate_logits: log-odds of an excess zero; the shape broadcasts with that of `entries`.
        entries: distribution of counts that are no excess zeros.
    """

    gate_logits: tf.Tensor

    def __init__(
        self, gate_logits: tf.Tensor, entries: tfd.Distribution, name: str = "ZeroInflated"
    ) -> None:
        self.entries = entries
        super().__init__(name, {"gate_logits": gate_logits}, entries=entries)

    def _batch_shape(self) -> tf.TensorShape:
        return tf.broadcast_static_shape(self.gate_logits.shape, self.entries.batch_shape)

    def _batch_shape_tensor(self, **_: tf.Tensor) -> tf.Tensor:
        return tf.broadcast_dynamic_shape(
            tf.shape(self.gate_logits), self.entries.batch_shape_tensor()
        )

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        own = self.entries.log_prob(x)
        zero = counts.zero_inflated_zero(own, self.gate_logits)
        return tf.where(x == 0.0, zero, own - tf.math.softplus(self.gate_logits))

    def _mean(self) -> tf.Tensor:
        return self.entries.mean() * tf.math.sigmoid(-self.gate_logits)

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        gates, counted = tfp.split_seed(seed)
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        chance = tf.cast(tf.math.sigmoid(self.gate_logits), tf.float32)
        is_open = tfd.Uniform().sample(shape, seed=gates) >= chance
        draw = self.entries.sample(n, seed=counted) * tf.ones(shape, self.dtype)
        return tf.where(is_open, draw, tf.zeros_like(draw))
