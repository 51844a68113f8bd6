"""Discrete latents: posteriors that map x to codes, and priors over the codes.

A code is a whole number below K. The latent vector z holds an embedding of each of N codes, side by
side, so it is a vector as any other latent: prior and posterior convert between codes and z.
"""

from keras_vae.distributions.codes.autoregressive import (
    AutoregressiveCodes as AutoregressiveCodes,
)
from keras_vae.distributions.codes.base import CodePosterior as CodePosterior
from keras_vae.distributions.codes.base import CodePrior as CodePrior
from keras_vae.distributions.codes.categorical import CategoricalLatent as CategoricalLatent
from keras_vae.distributions.codes.scalar import FiniteScalarQuantizer as FiniteScalarQuantizer
from keras_vae.distributions.codes.scalar import LookupFreeQuantizer as LookupFreeQuantizer
from keras_vae.distributions.codes.uniform import UniformCodes as UniformCodes
from keras_vae.distributions.codes.vector_quantizer import VectorQuantizer as VectorQuantizer

__all__ = [
    "AutoregressiveCodes",
    "CategoricalLatent",
    "CodePosterior",
    "CodePrior",
    "FiniteScalarQuantizer",
    "LookupFreeQuantizer",
    "UniformCodes",
    "VectorQuantizer",
]
