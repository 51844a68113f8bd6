"""Likelihoods by logits: binary data, numbers in [0, 1] and categories."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import register
from keras_vae.data import preparation
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import Proposal
from keras_vae.distributions import supports, tfp
from keras_vae.distributions.base import Likelihood, Parameter
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.tfp import tfd

__all__ = ["Bernoulli", "Categorical", "ContinuousBernoulli"]


@register
class Bernoulli(Likelihood):
    """Likelihood of binary data: P(x = 1) = sigmoid(logits).

    Example:
        >>> likelihood = Bernoulli((28, 28, 1))
        >>> likelihood.distribution(tf.zeros([2, 50])).batch_shape
        TensorShape([2])
    """

    joins = True

    reading = "P(x = 1) = 1 / (1 + exp(-logits)); mean is that probability."
    is_threshold = True

    @property
    def support(self) -> supports.Support:
        """The set {0, 1}."""
        return supports.binary()

    @classmethod
    def proposal(cls, facts: Facts) -> Proposal | None:
        """Proposes the family for zeros and ones."""
        is_binary = facts.are_counts and facts.highest <= 1.0
        return Proposal(cls.key(), {}, "zeros and ones") if is_binary else None

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Binarises grey levels again at each presentation."""
        return preparation.binarized(facts, cls.key()), {}

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logits of the mean, which is kept from 0.001 to 0.999."""
        p = np.clip(mean, 0.001, 0.999)
        return np.log(p) - np.log1p(-p)

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns one logit per entry."""
        return {"logits": Parameter(self.channels)}

    def make_distribution(self, logits: tf.Tensor) -> tfd.Distribution:
        """Returns independent Bernoulli distributions."""
        if self.sequence:
            return self.independent(tfd.Bernoulli(logits, dtype=logits.dtype))
        return tfp.IndependentBernoulli(logits, len(self.event_shape))

    def draw(self, noise: tf.Tensor, logits: tf.Tensor) -> Draw:
        """Draws 1 where u < sigmoid(logits)."""
        return Draw(self._inverted(random.bernoulli, noise, logits))


@register
class ContinuousBernoulli(Likelihood):
    """Likelihood of numbers in [0, 1]: p(x) = C(logits) exp(x logits).

    It is a cross entropy on grey pixels with its normaliser C. Source: Loaiza-Ganem and Cunningham
    (2019), The continuous Bernoulli, arXiv:1907.06845.

    Example:
        >>> p = ContinuousBernoulli(1).make_distribution(tf.zeros([1]))
        >>> float(p.prob([0.3]))  # uniform
        1.0
    """

    joins = True

    reading = "Density proportional to exp(x logits) on [0, 1]."
    has_cdf = True

    @property
    def support(self) -> supports.Support:
        """The interval [0, 1]."""
        return supports.unit_interval()

    @classmethod
    def proposal(cls, facts: Facts) -> Proposal | None:
        """Proposes the family for images of numbers in [0, 1]."""
        is_unit = facts.rank == 4 and facts.lowest >= 0.0 and facts.highest <= 1.0
        if not is_unit:
            return None
        is_open = facts.lowest > 0.0 and facts.highest < 1.0
        rivals = ("normal", "truncated_normal", *(["beta"] if is_open else []))
        return Proposal(cls.key(), {}, "images of numbers in [0, 1]", rivals)

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Divides grey levels by the largest possible one."""
        return preparation.divided(facts, cls.key()), {}

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns one logit per entry."""
        return {"logits": Parameter(self.channels)}

    def make_distribution(self, logits: tf.Tensor) -> tfd.Distribution:
        """Returns independent continuous Bernoulli distributions."""
        return self.independent(tfd.ContinuousBernoulli(logits=logits, dtype=logits.dtype))

    def draw(self, noise: tf.Tensor, logits: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        return Draw(self._inverted(random.continuous_bernoulli, noise, logits))


@register
class Categorical(Likelihood):
    """Likelihood of one-hot data [..., K]: P(x = e_k) = softmax(logits)_k on the last axis.

    The mean is the vector of probabilities, so `reconstruct` and `decode` return those.

    Example:
        >>> p = Categorical(4).make_distribution(tf.zeros([4]))
        >>> float(p.prob([0.0, 0.0, 1.0, 0.0]))
        0.25
    """

    joins = True

    reading = "P(category k) = softmax(logits)_k along the last axis."

    @property
    def support(self) -> supports.Support:
        """One-hot vectors."""
        return supports.one_hot()

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns one logit per category."""
        return {"logits": Parameter(self.channels)}

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Codes whole numbers as one-hot vectors."""
        return preparation.one_hot(facts), {}

    def make_distribution(self, logits: tf.Tensor) -> tfd.Distribution:
        """Returns independent one-hot categorical distributions."""
        entries = tfp.OneHotCategorical(logits=logits, dtype=logits.dtype)
        return self.independent(entries)

    def noise(self) -> Noise:
        """Returns one uniform number per variable."""
        return Noise(self.event_shape[:-1], "uniform", random.OBSERVATION)

    def draw(self, noise: tf.Tensor, logits: tf.Tensor) -> Draw:
        """Draws the first category whose cumulative probability exceeds u."""
        return Draw(self._inverted(random.categorical, noise, logits))
