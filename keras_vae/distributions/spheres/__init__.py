"""Latent vectors of length 1: a posterior and a prior on the sphere."""

from keras_vae.distributions.spheres.layers import UniformSphere, VonMisesFisher

__all__ = ["UniformSphere", "VonMisesFisher"]
