"""Likelihoods p(x | z): families of distributions of data, each with its support."""

from typing import TYPE_CHECKING

from keras_vae.distributions.likelihoods import counts, location_scale, logits
from keras_vae.distributions.likelihoods.counts import *  # noqa: F403
from keras_vae.distributions.likelihoods.location_scale import *  # noqa: F403
from keras_vae.distributions.likelihoods.logits import *  # noqa: F403

if not TYPE_CHECKING:
    __all__ = [*counts.__all__, *location_scale.__all__, *logits.__all__]
