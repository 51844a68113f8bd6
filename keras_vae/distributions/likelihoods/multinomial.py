"""Likelihood of vectors of counts that share a total."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, register
from keras_vae.data import DataError
from keras_vae.data.facts import Facts
from keras_vae.data.mapped import chunks
from keras_vae.data.preparation import Preparation
from keras_vae.distributions import count_families, supports
from keras_vae.distributions.base import Parameter
from keras_vae.distributions.likelihoods.sized import Sized
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.tfp import tfd

__all__ = ["Multinomial"]


@register
class Multinomial(Sized):
    """Likelihood of vectors of counts [..., K] given their sum n: n trials of softmax(logits).

        log P(x | n) = log n! - sum_k log x_k! + sum_k x_k log softmax(logits)_k

    The log-probability takes n from the data. Means and draws take it from `total_count`, or from
    the condition.

    Args:
        event_shape: shape of one example; the last axis has the K counts.
        network: the decoder, from z to features.
        total_count: n, if it is the same everywhere; data with another sum is refused.
        offset: whether the last number of the condition is log n of the row. The network is not
            given it.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if not exactly one of `total_count` and `offset` is given.

    Example:
        >>> likelihood = Multinomial(4, total_count=8)
        >>> likelihood.distribution(tf.zeros([1, 2])).mean().numpy()
        array([[2., 2., 2., 2.]], dtype=float32)
    """

    reading = "Counts of total_count trials, P(category k) = softmax(logits)_k along the last axis."

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        total_count: int | None = None,
        offset: bool = False,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        if (total_count is None) != bool(offset):
            raise ValueError(
                "Means and draws of Multinomial need the number of trials: give either "
                "total_count=, or offset=True and its logarithm as the last number of the "
                f"condition. Received: total_count={total_count!r}, offset={offset!r}"
            )
        if total_count is not None:
            total_count = as_count("total_count", total_count, least=1)
        self.total_count = total_count
        super().__init__(event_shape, network, offset=offset, head=head, **kwargs)

    @property
    def support(self) -> supports.Support:
        """Vectors of counts, whose sum is `total_count` if that is given."""
        return supports.vectors_of_counts(self.total_count)

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Leaves the counts as they are; their sum must be the same everywhere.

        Raises:
            DataError: if it is not.
        """
        sums = [np.unique(part.sum(axis=-1, dtype=np.float64)) for _, part in chunks(facts.raw)]
        totals = np.unique(np.concatenate(sums))
        if len(totals) > 1:
            raise DataError(
                f"{cls.key()} models counts with one sum, and these sum to {totals[0]:g} up to "
                f"{totals[-1]:g}. Choose --likelihood poisson or negative_binomial, or in Python "
                "Multinomial(offset=True), which takes the logarithm of the sum as its condition."
            )
        return Preparation(), {"total_count": int(totals[0])}

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Returns True: shares lie far from equal ones."""
        return True

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logarithm of the mean, which is kept above 0.001."""
        return np.log(np.maximum(mean, 0.001))

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns one logit per category, and the number of trials if the condition gives it."""
        trials = {"total_count": Parameter(0)} if self.offset else {}
        return {"logits": Parameter(self.channels), **trials}

    def at_condition(self, parameters: dict[str, tf.Tensor], c: Any) -> dict[str, tf.Tensor]:
        """Returns the parameters with the number of trials of the row."""
        parameters = super().at_condition(parameters, c)
        if not self.offset:
            return parameters
        axes = len(self.event_shape) - 1
        trials = tf.round(tf.exp(self.log_size(c, axes)))
        shape = tf.shape(parameters["logits"])[:-1]
        return {**parameters, "total_count": tf.broadcast_to(trials, shape)}

    def make_distribution(
        self, logits: tf.Tensor, total_count: tf.Tensor | None = None
    ) -> tfd.Distribution:
        """Returns independent multinomial distributions."""
        n = self._trials(logits) if total_count is None else total_count
        entries = count_families.Multinomial(n, logits=logits)
        return self.independent(entries)

    def noise(self) -> Noise:
        """Returns one uniform number for each split of a group of categories."""
        shape = (*self.event_shape[:-1], random.splits(self.channels))
        return Noise(shape, "uniform", random.OBSERVATION)

    def draw(
        self, noise: tf.Tensor, logits: tf.Tensor, total_count: tf.Tensor | None = None
    ) -> Draw:
        """Draws by splitting the total between halves of the categories, by inversion."""
        n = self._trials(logits) if total_count is None else total_count
        return Draw(self._inverted(random.multinomial, noise, n, logits))

    def _trials(self, logits: tf.Tensor) -> tf.Tensor:
        return tf.constant(self.total_count, logits.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "total_count": self.total_count}
