"""Networks: encoders and decoders, tensor to tensor, in plain Keras.

Each is a Functional model whose first input is x or z and whose second, if any, is the condition.
"""

from keras_vae.networks.causal import CausalSteps as CausalSteps
from keras_vae.networks.dense import logarithm as logarithm
from keras_vae.networks.dense import mlp as mlp
from keras_vae.networks.dense import rescaled as rescaled
from keras_vae.networks.images import check_image as check_image
from keras_vae.networks.images import conv_decoder as conv_decoder
from keras_vae.networks.images import conv_encoder as conv_encoder
from keras_vae.networks.images import grid_decoder as grid_decoder
from keras_vae.networks.images import grid_encoder as grid_encoder
from keras_vae.networks.sequences import sequence_decoder as sequence_decoder
from keras_vae.networks.sequences import sequence_encoder as sequence_encoder
from keras_vae.networks.series import series_decoder as series_decoder
from keras_vae.networks.vision import vision_encoder as vision_encoder
