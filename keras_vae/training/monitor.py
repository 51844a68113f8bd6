"""Monitor: use of the latents, as Keras metrics during training."""

import math

import keras
import tensorflow as tf

from keras_vae.distributions.priors import Components
from keras_vae.distributions.tfp import statistic
from keras_vae.trace import Trace

__all__ = ["ACTIVE", "LatentMonitor", "marginal_rates"]

ACTIVE = 0.01
"""Variance of a latent's posterior mean above which it is active."""

_SUMS = "float64"


class LatentMonitor(keras.metrics.Metric):
    """Diagnostics of the latents over the examples of an epoch, at the cost of a few sums.

    `result` holds, and `fit` logs:

    - `active_units`: number of latents with Var_x(E_q z_j) > 0.01. Source: Burda, Grosse and
      Salakhutdinov (2016), arXiv:1509.00519.
    - `rate_max`, `rate_median`: largest and median of E_x KL(q(z_j | x) || p(z_j)) over the
      latents j, in nats. If the prior is a mixture, it is estimated from one draw per example.

    If all three are near zero, the posterior has collapsed; `evaluation.diagnose` measures more.

    Args:
        latent_size: number L of latents.

    Example:
        >>> import keras_vae, numpy as np
        >>> vae = keras_vae.mlp_vae(6, 2, "normal", hidden=(8,))
        >>> vae.compile(monitor=True)
        >>> history = vae.fit(np.zeros([32, 6]), verbose=0).history
        >>> sorted(name for name in history if name not in ("loss", "elbo", "distortion", "rate"))
        ['active_units', 'rate_max', 'rate_median']
    """

    def __init__(self, latent_size: int, name: str = "latents") -> None:
        super().__init__(name=name)
        # The variance is a difference of sums, which loses digits in float32 far from 0.
        self.count = self.add_variable((), "zeros", dtype=_SUMS, name="count")
        self.means, self.squares, self.rates = (
            self.add_variable((latent_size,), "zeros", dtype=_SUMS, name=name)
            for name in ("means", "squares", "rates")
        )

    def update_state(
        self, trace: Trace, components: Components, weight: float | tf.Tensor = 1.0
    ) -> None:
        """Adds a batch.

        Args:
            trace: trace of the batch; its only latent is a vector.
            components: components of the prior, to which the rates are relative.
            weight: weight of an example.
        """
        (latent,) = trace.latents.values()
        q = latent.posterior()
        loc, scale = (statistic(q, name, "compile(monitor=True)") for name in ("mean", "stddev"))
        z = latent.draw.value[:1]
        rates = tf.cast(marginal_rates(components, z, loc, scale), _SUMS)
        loc, weight = tf.cast(loc, _SUMS), tf.cast(weight, _SUMS)
        self.count.assign_add(weight * tf.cast(tf.shape(loc)[0], _SUMS))
        for variable, values in ((self.means, loc), (self.squares, loc**2), (self.rates, rates)):
            variable.assign_add(weight * tf.reduce_sum(values, axis=0))

    def result(self) -> dict[str, tf.Tensor]:
        """Returns the numbers by name, zero before the first batch."""
        count = tf.maximum(self.count.value, 1.0)
        variance = self.squares / count - (self.means / count) ** 2
        variance, rates = tf.cast(variance, self.dtype), tf.sort(self.rates / count)
        size = self.rates.shape[0]
        middle = [(size - 1) // 2, size // 2]
        return {
            "active_units": tf.reduce_sum(tf.cast(variance > ACTIVE, self.dtype)),
            "rate_max": tf.cast(rates[-1], self.dtype),
            "rate_median": tf.cast(tf.reduce_mean(tf.gather(rates, middle)), self.dtype),
        }


def marginal_rates(prior: Components, z: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Computes KL(q(z_j | x) || p(z_j)), [B, L], in closed form if the prior is normal.

    Args:
        prior: components of the prior.
        z: draws from q(z | x), [S, B, L], for the estimate if the prior is a mixture.
        loc, scale: means and standard deviations of q(z_j | x), [B, L].
    """
    spread = tf.convert_to_tensor(prior.scale)
    if spread.shape.rank == 3:
        spread = tf.norm(spread, axis=-1)
    centre = tf.convert_to_tensor(prior.loc)
    if centre.shape[0] == 1:
        ratio = scale / spread
        return 0.5 * (ratio**2 + ((loc - centre) / spread) ** 2 - 1.0) - tf.math.log(ratio)
    log_weights = tf.nn.log_softmax(prior.logits)[:, tf.newaxis]
    each = log_weights + _log_normal(z[:, :, tf.newaxis], centre, spread)
    log_p = tf.reduce_logsumexp(each, axis=2)
    return tf.reduce_mean(_log_normal(z, loc, scale) - log_p, axis=0)


def _log_normal(z: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    return -0.5 * ((z - loc) / scale) ** 2 - tf.math.log(scale) - 0.5 * math.log(2.0 * math.pi)
