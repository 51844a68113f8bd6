"""Distributions of real numbers that TensorFlow Probability lacks or rounds badly."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.distributions import densities, tfp
from keras_vae.distributions.tfp import tfd
from keras_vae.random.inversion.gammas import BETA_UNIFORMS, GAMMA_UNIFORMS, STUDENT_UNIFORMS
from keras_vae.random.normal_tails import erf, integrated_hazard, log_cdf, upper

__all__ = ["Beta", "CensoredNormal", "Gamma", "LogNormal", "StudentT", "TruncatedNormal"]

_LARGEST = 80.0
"""Largest logarithm of a mean or of a standard deviation whose exponential is taken."""

_HALF_A_STEP = 2.0**-24
_REACH = 7.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)


def _draws(
    distribution: tfp.Numbers,
    n: int,
    seed: tf.Tensor,
    draw: Callable[..., tf.Tensor],
    *parameters: Any,
    uniforms: tuple[int, ...] = (),
) -> tf.Tensor:
    """Draws n times by a function of `keras_vae.random`, which computes in float32."""
    shape = tf.concat([[n], distribution.batch_shape_tensor(), uniforms], axis=0)
    u = tfd.Uniform().sample(shape, seed=seed) + _HALF_A_STEP
    return tf.cast(draw(u, *(tf.cast(part, u.dtype) for part in parameters)), distribution.dtype)


class Gamma(tfp.Numbers):
    """Gamma distribution by the logarithm of its mean and its shape, the concentration."""

    log_mean: tf.Tensor
    concentration: tf.Tensor

    def __init__(self, log_mean: tf.Tensor, concentration: tf.Tensor, name: str = "Gamma") -> None:
        super().__init__(name, {"log_mean": log_mean, "concentration": concentration})

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return densities.gamma_log_prob(x, self.log_mean, self.concentration)

    def _mean(self) -> tf.Tensor:
        return tf.exp(self.log_mean) * tf.ones_like(self.concentration)

    def _stddev(self) -> tf.Tensor:
        return tf.exp(self.log_mean) * tf.math.rsqrt(self.concentration)

    def _variance(self) -> tf.Tensor:
        return tf.exp(2.0 * self.log_mean) / self.concentration

    def _cdf(self, x: tf.Tensor) -> tf.Tensor:
        k = self.concentration
        return tf.math.igamma(k * tf.ones_like(x), k * x * tf.exp(-self.log_mean))

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        k = self.concentration
        return tf.exp(self.log_mean) * _draws(
            self, n, seed, random.gamma, k, uniforms=(GAMMA_UNIFORMS,)
        )


class LogNormal(tfp.Numbers):
    """Distribution of exp(loc + scale Z) for Z standard normal."""

    loc: tf.Tensor
    scale: tf.Tensor

    def __init__(self, loc: tf.Tensor, scale: tf.Tensor, name: str = "LogNormal") -> None:
        super().__init__(name, {"loc": loc, "scale": scale})

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return densities.log_normal_log_prob(x, self.loc, self.scale)

    def _mean(self) -> tf.Tensor:
        return tf.exp(tf.minimum(self.loc + 0.5 * tf.square(self.scale), _LARGEST))

    def _stddev(self) -> tf.Tensor:
        square = tf.square(self.scale)
        log_ratio = 0.5 * (square + tf.math.log(-tf.math.expm1(-square)))
        return tf.exp(tf.minimum(self.loc + 0.5 * square + log_ratio, _LARGEST))

    def _variance(self) -> tf.Tensor:
        return tf.square(self._stddev())

    def _cdf(self, x: tf.Tensor) -> tf.Tensor:
        return tf.exp(log_cdf((tf.math.log(x) - self.loc) / self.scale))

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        noise = tf.cast(tfd.Normal(0.0, 1.0).sample(shape, seed=seed), self.dtype)
        return tf.exp(self.loc + self.scale * noise)


class StudentT(tfp.Numbers):
    """Student's t distribution, moved by `loc` and stretched by `scale`."""

    df: tf.Tensor
    loc: tf.Tensor
    scale: tf.Tensor

    def __init__(
        self, df: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor, name: str = "StudentT"
    ) -> None:
        super().__init__(name, {"df": df, "loc": loc, "scale": scale})

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return densities.student_t_log_prob(x, self.df, self.loc, self.scale)

    def _mean(self) -> tf.Tensor:
        return self.loc * tf.ones_like(self.scale * self.df)

    def _stddev(self) -> tf.Tensor:
        ratio = self.df / tf.maximum(self.df - 2.0, 1e-30)
        stddev = self.scale * tf.where(self.df > 2.0, tf.sqrt(ratio), math.inf)
        return stddev * tf.ones_like(self.loc)

    def _variance(self) -> tf.Tensor:
        return tf.square(self._stddev())

    def _cdf(self, x: tf.Tensor) -> tf.Tensor:
        return tfd.StudentT(self.df, self.loc, self.scale).cdf(x)

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        draws = _draws(self, n, seed, random.student_t, self.df, uniforms=(STUDENT_UNIFORMS,))
        return self.loc + self.scale * draws


class Beta(tfp.Numbers):
    """Beta distribution by the log-odds of its mean and the sum of its shapes."""

    logits: tf.Tensor
    concentration: tf.Tensor

    def __init__(self, logits: tf.Tensor, concentration: tf.Tensor, name: str = "Beta") -> None:
        super().__init__(name, {"logits": logits, "concentration": concentration})

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return densities.beta_log_prob(x, self.logits, self.concentration)

    def shapes(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns both shapes: the exponents of x and 1 - x in the density, plus one."""
        signs = self.logits, -self.logits
        a, b = (self.concentration * tf.math.sigmoid(logits) for logits in signs)
        return a, b

    def _mean(self) -> tf.Tensor:
        return tf.math.sigmoid(self.logits) * tf.ones_like(self.concentration)

    def _variance(self) -> tf.Tensor:
        product = tf.math.sigmoid(self.logits) * tf.math.sigmoid(-self.logits)
        return product / (self.concentration + 1.0)

    def _cdf(self, x: tf.Tensor) -> tf.Tensor:
        return tf.math.betainc(*densities.together(*self.shapes(), x))

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        return _draws(self, n, seed, random.beta, *self.shapes(), uniforms=(BETA_UNIFORMS,))


class _Bounded(tfp.Numbers):
    """A distribution made of a normal one and an interval, one of whose ends may be infinite."""

    loc: tf.Tensor
    scale: tf.Tensor

    def __init__(
        self, loc: tf.Tensor, scale: tf.Tensor, low: float, high: float, name: str | None = None
    ) -> None:
        self.low, self.high = low, high
        super().__init__(
            name or type(self).__name__, {"loc": loc, "scale": scale}, low=low, high=high
        )


class TruncatedNormal(_Bounded):
    """Normal distribution restricted to an interval."""

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return densities.truncated_normal_log_prob(x, self.loc, self.scale, self.low, self.high)

    def _from_nearer_end(self, x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return densities.from_nearer_end(x, self.loc, self.scale, self.low, self.high)

    def _moments(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes mean and standard deviation by quadrature of where the density is not 0."""
        _, near, width, is_high = self._from_nearer_end(self.loc)
        start, inner = tf.maximum(near, 0.0), tf.maximum(-near, 0.0)
        lower = tf.minimum(tf.maximum(inner - _REACH, 0.0), width)
        reach = _REACH**2 / (start + tf.sqrt(tf.square(start) + _REACH**2))
        length = (tf.minimum(inner + reach, width) - lower)[..., tf.newaxis]
        share = tf.constant(0.5 * (1.0 + _NODES), self.dtype)
        distance = lower[..., tf.newaxis] + length * share
        start, inner = start[..., tf.newaxis], inner[..., tf.newaxis]
        exponent = tf.where(
            inner > 0.0, 0.5 * tf.square(distance - inner), distance * (0.5 * distance + start)
        )
        mass = tf.constant(_WEIGHTS, self.dtype) * tf.exp(-exponent)
        mass /= tf.reduce_sum(mass, axis=-1, keepdims=True)
        mean = tf.reduce_sum(mass * distance, axis=-1, keepdims=True)
        variance = tf.reduce_sum(mass * tf.square(distance - mean), axis=-1)
        step = self.scale * mean[..., 0]
        if math.isinf(self.high):
            return self.low + step, self.scale * tf.sqrt(variance)
        if math.isinf(self.low):
            return self.high - step, self.scale * tf.sqrt(variance)
        mean = tf.where(is_high, self.high - step, self.low + step)
        return tf.clip_by_value(mean, self.low, self.high), self.scale * tf.sqrt(variance)

    def _mean(self) -> tf.Tensor:
        return self._moments()[0]

    def _stddev(self) -> tf.Tensor:
        return self._moments()[1]

    def _variance(self) -> tf.Tensor:
        return tf.square(self._stddev())

    def _cdf(self, x: tf.Tensor) -> tf.Tensor:
        distance, near, width, is_high = self._from_nearer_end(x)
        start, root = tf.maximum(near, 0.0), math.sqrt(0.5)
        outside = tf.math.expm1(-integrated_hazard(start, distance)) / tf.math.expm1(
            -integrated_hazard(start, width)
        )
        ends = [erf(root * part) for part in (near, near + distance, near + width)]
        share = tf.where(near > 0.0, outside, (ends[1] - ends[0]) / (ends[2] - ends[0]))
        return tf.where(is_high, 1.0 - share, share)

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        return _draws(
            self, n, seed, random.truncated_normal, self.loc, self.scale, self.low, self.high
        )


class CensoredNormal(_Bounded):
    """Distribution of a normal number clipped to an interval, with point masses at its ends."""

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return densities.censored_normal_log_prob(x, self.loc, self.scale, self.low, self.high)

    def _mean(self) -> tf.Tensor:
        if math.isinf(self.low):
            return self.high - self.scale * self._mean_excess((self.high - self.loc) / self.scale)
        above_low = self._mean_excess((self.loc - self.low) / self.scale)
        if math.isinf(self.high):
            return self.low + self.scale * above_low
        above_high = self._mean_excess((self.loc - self.high) / self.scale)
        mean = self.low + self.scale * (above_low - above_high)
        return tf.clip_by_value(mean, self.low, self.high)

    def _mean_excess(self, z: tf.Tensor) -> tf.Tensor:
        """Computes the mean of max(z + Z, 0) for Z standard normal."""
        size = tf.minimum(tf.abs(z), 1e18)
        density = tf.exp(-0.5 * tf.square(size)) / math.sqrt(2.0 * math.pi)
        return tf.nn.relu(z) + density - size * upper(size)

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        noise = tf.cast(tfd.Normal(0.0, 1.0).sample(shape, seed=seed), self.dtype)
        return tf.clip_by_value(self.loc + self.scale * noise, self.low, self.high)
