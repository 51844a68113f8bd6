"""Use of the codes of a discrete latent, as a Keras metric during training."""

from typing import Any

import keras
import tensorflow as tf

from keras_vae.distributions.codes import CodePosterior
from keras_vae.distributions.codes.distributions import PointOfCodes
from keras_vae.trace import Trace

__all__ = ["CodeUsage"]


class CodeUsage(keras.metrics.Metric):
    """Use of the codes over the examples of an epoch, summed over all positions.

    `result` holds, and `fit` logs with `compile(monitor=True)`:

    - `codes_used`: number of codes that occurred; of several stages, the mean over the stages.
    - `perplexity`: exp of the entropy of the codes' frequencies, between 1 and K; likewise.

    Args:
        codes: the posterior.
    """

    def __init__(self, codes: CodePosterior, name: str = "codes") -> None:
        super().__init__(name=name)
        self._codes = lambda: codes
        shape = (codes.stages, codes.num_codes)
        self.counts = self.add_variable(shape, "zeros", dtype="float64", name="counts")

    def update_state(self, trace: Trace, _: Any = None, weight: float | tf.Tensor = 1.0) -> None:
        """Adds a batch.

        Args:
            trace: trace of the batch, whose only latent are the codes.
            weight: weight of an example.
        """
        codes = self._codes()
        (latent,) = trace.latents.values()
        q = latent.posterior()
        found = q.codes if isinstance(q, PointOfCodes) else codes.codes_of(latent.value[0])
        one_hot = tf.one_hot(found, codes.num_codes, dtype=tf.float64)
        by_stage = tf.reshape(one_hot, [-1, codes.stages, codes.num_codes])
        self.counts.assign_add(tf.cast(weight, tf.float64) * tf.reduce_sum(by_stage, axis=0))

    def result(self) -> dict[str, tf.Tensor]:
        """Returns the numbers by name, zero before the first batch."""
        counts = tf.convert_to_tensor(self.counts)
        shares = tf.math.divide_no_nan(counts, tf.reduce_sum(counts, axis=-1, keepdims=True))
        entropy = -tf.reduce_sum(tf.math.xlogy(shares, shares), axis=-1)
        used = tf.reduce_sum(tf.cast(counts > 0.0, tf.float64), axis=-1)
        return {
            "codes_used": tf.cast(tf.reduce_mean(used), self.dtype),
            "perplexity": tf.cast(tf.reduce_mean(tf.exp(entropy)), self.dtype),
        }
