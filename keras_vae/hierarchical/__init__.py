"""Models with several levels of latents, on one path from the top down."""

from keras_vae.hierarchical.block import TopDownBlock as TopDownBlock
from keras_vae.hierarchical.model import HierarchicalVAE as HierarchicalVAE
