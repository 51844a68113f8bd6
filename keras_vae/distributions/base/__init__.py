"""Base classes of conditional distributions, likelihoods and posteriors."""

from keras_vae.distributions.base.conditional import (
    ConditionalDistribution,
    distribution_of,
    producer_of,
)
from keras_vae.distributions.base.likelihood import Likelihood
from keras_vae.distributions.base.parameters import (
    SMALLEST_SCALE,
    HeadSizeError,
    Parameter,
    inverse_positive,
    positive,
)
from keras_vae.distributions.base.posterior import Posterior

__all__ = [
    "SMALLEST_SCALE",
    "ConditionalDistribution",
    "HeadSizeError",
    "Likelihood",
    "Parameter",
    "Posterior",
    "distribution_of",
    "inverse_positive",
    "positive",
    "producer_of",
]
