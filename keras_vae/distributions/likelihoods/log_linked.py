"""Likelihoods of counts whose mean is an exponential of what the decoder computes."""

import numpy as np

from keras_vae.data.preparation import Preparation
from keras_vae.distributions import supports
from keras_vae.distributions.base import Likelihood

__all__ = ["LogLinked"]


class LogLinked(Likelihood):
    """Likelihood of counts 0, 1, 2, ... whose first parameter is the logarithm of a mean."""

    @property
    def support(self) -> supports.Support:
        """The integers from 0 on."""
        return supports.integers()

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Returns True: means lie far from 1."""
        return True

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logarithm of the mean, which is kept above 0.001."""
        return np.log(np.maximum(mean, 0.001))
