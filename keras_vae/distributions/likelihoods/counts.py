"""Likelihoods of counts: Poisson and binomial."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, register
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import Proposal
from keras_vae.distributions import supports, tfp
from keras_vae.distributions.base import Likelihood, Parameter
from keras_vae.distributions.likelihoods.sized import LogLinked
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd

__all__ = ["Binomial", "Poisson"]


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

    Example:
        >>> Binomial(1, total_count=10).make_distribution(tf.zeros([1])).mean().numpy()
        array([5.], dtype=float32)
    """

    joins = True

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
class Poisson(LogLinked):
    """Likelihood of counts: x ~ Poisson(exp(log_rate)).

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        offset: whether the last number of the condition is the logarithm of the row's size, such as
            an exposure, which is added to log_rate and not given to the network.
        link: "log", or with an offset also "softmax": rates are shares of the size, which sum to 1
            over the last axis.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `link` is neither, or "softmax" without an offset.

    Example:
        >>> p = Poisson(1).make_distribution(tf.math.log([2.0]))
        >>> float(p.prob([0.0]))  # exp(-2)
        0.135
    """

    joins = True

    reading = "Poisson counts of rate exp(log_rate)."

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns one log-rate per entry."""
        return {"log_rate": self.linked()}

    @classmethod
    def proposal(cls, facts: Facts) -> Proposal | None:
        """Proposes the family for counts of which at least half are 0."""
        if facts.are_levels or not (facts.are_counts and facts.are_sparse):
            return None
        reason = f"counts up to {facts.highest:g}, {facts.zeros:.0%} of them 0"
        rivals = ("zero_inflated_poisson", "negative_binomial", "zero_inflated_negative_binomial")
        return Proposal(cls.key(), {}, reason, rivals)

    def make_distribution(self, log_rate: tf.Tensor) -> tfd.Distribution:
        """Returns independent Poisson distributions."""
        return self.independent(tfp.Poisson(log_rate=log_rate))

    def draw(self, noise: tf.Tensor, log_rate: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        return Draw(self._inverted(random.poisson, noise, tf.exp(log_rate)))
