"""Priors p(z): layers whose `distribution()` is a distribution over a latent vector."""

from keras_vae.distributions.priors.base import Components as Components
from keras_vae.distributions.priors.base import InputShapes as InputShapes
from keras_vae.distributions.priors.base import Prior
from keras_vae.distributions.priors.base import refuse_other_space as refuse_other_space
from keras_vae.distributions.priors.mixtures import NormalMixture, VampPrior
from keras_vae.distributions.priors.normals import ConditionalNormal, StandardNormal

__all__ = [
    "ConditionalNormal",
    "NormalMixture",
    "Prior",
    "StandardNormal",
    "VampPrior",
]
