"""Models with several levels of latents, on one path from the top down."""

from keras_vae.hierarchical.block import TopDownBlock as TopDownBlock
from keras_vae.hierarchical.model import HierarchicalVAE as HierarchicalVAE
from keras_vae.hierarchical.networks import conv_levels as conv_levels
from keras_vae.hierarchical.networks import dense_levels as dense_levels
