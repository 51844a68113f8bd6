"""Specification of the data of a model: shapes, dtypes and supports, checked in any container."""

from keras_vae.distributions.supports import DataError
from keras_vae.training.data_spec.part import Part
from keras_vae.training.data_spec.spec import DataSpec

__all__ = ["DataError", "DataSpec", "Part"]
