"""Likelihoods p(x | z): families of distributions of data, each with its support."""

from typing import TYPE_CHECKING

from keras_vae.distributions.likelihoods import (
    autoregressive,
    bounded,
    counts,
    dispersed,
    levels,
    location_scale,
    logits,
    multinomial,
    positives,
    zero_inflated,
)
from keras_vae.distributions.likelihoods.autoregressive import *  # noqa: F403
from keras_vae.distributions.likelihoods.bounded import *  # noqa: F403
from keras_vae.distributions.likelihoods.counts import *  # noqa: F403
from keras_vae.distributions.likelihoods.dispersed import *  # noqa: F403
from keras_vae.distributions.likelihoods.levels import *  # noqa: F403
from keras_vae.distributions.likelihoods.location_scale import *  # noqa: F403
from keras_vae.distributions.likelihoods.logits import *  # noqa: F403
from keras_vae.distributions.likelihoods.multinomial import *  # noqa: F403
from keras_vae.distributions.likelihoods.positives import *  # noqa: F403
from keras_vae.distributions.likelihoods.zero_inflated import *  # noqa: F403

if not TYPE_CHECKING:
    __all__ = [
        *autoregressive.__all__,
        *bounded.__all__,
        *counts.__all__,
        *dispersed.__all__,
        *levels.__all__,
        *location_scale.__all__,
        *logits.__all__,
        *multinomial.__all__,
        *positives.__all__,
        *zero_inflated.__all__,
    ]
