"""Choosing a model: likelihood, latents, width and prior by paired held-out nats.

`keras-vae choose` is this on the command line.
"""

from keras_vae.choosing.candidates import Candidate as Candidate
from keras_vae.choosing.choice import Choice as Choice
from keras_vae.choosing.choose import choose as choose
from keras_vae.choosing.search import Trial as Trial
from keras_vae.choosing.search import difference as difference

__all__ = ["Candidate", "Choice", "Trial", "choose", "difference"]
