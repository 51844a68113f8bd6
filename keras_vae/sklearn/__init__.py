"""Estimators for scikit-learn: density, embedding, outlier detection and imputation by a VAE.

They take arrays [n, d] of numbers, in which NaN is absent, and data frames with text and categories
as they are, and work in `Pipeline`, `GridSearchCV` and `clone`. Scores are in nats per row and in
the units of the data.
"""

from keras_vae.sklearn.estimators import VAEDensity as VAEDensity
from keras_vae.sklearn.estimators import VAEImputer as VAEImputer
from keras_vae.sklearn.estimators import VAEOutlierDetector as VAEOutlierDetector
from keras_vae.sklearn.estimators import VAETransformer as VAETransformer

__all__ = ["VAEDensity", "VAEImputer", "VAEOutlierDetector", "VAETransformer"]
