"""Digest of the weights of a model, which tells whether two files hold the same model."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.model import VAE

__all__ = ["digest"]


def digest(vae: LatentVariableModel) -> str:
    """Returns the SHA-256 of the weights in order: shape, dtype and bytes of each."""
    result = hashlib.sha256()
    layers = (vae.prior, vae.likelihood, vae.posterior) if isinstance(vae, VAE) else (vae,)
    for layer in layers:
        for weight in layer.weights:
            array = np.ascontiguousarray(tf.convert_to_tensor(weight))
            result.update(f"{array.dtype.str}{array.shape}".encode())
            result.update(array.data)
    return result.hexdigest()
