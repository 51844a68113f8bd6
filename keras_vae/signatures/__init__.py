"""Signatures: the pure functions of a model that are exported.

Each is stateless, takes and returns named tensors whose axis 0 is the batch, and is traced into the
SavedModel and into ONNX. Inputs and outputs are in the units of the data file: rescaling,
standardisation and one-hot coding are part of the functions.
"""

from keras_vae.signatures.raw_part import Preparations as Preparations
from keras_vae.signatures.raw_part import RawPart as RawPart
from keras_vae.signatures.raw_part import raw_parts as raw_parts
from keras_vae.signatures.table import Signature as Signature
from keras_vae.signatures.table import signatures as signatures
