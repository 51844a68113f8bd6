"""Absent entries given the present ones: imputations, and probabilities of classes.

The draws z_k of q(z given x_O), x_O being what is present, have self-normalised importance weights

    W_k = w_k / sum_j w_j,     w_k = p(x_O, z_k) / q(z_k given x_O)

so that sum_k W_k f(z_k) tends to E[f(z) given x_O] of the model itself as K grows, however good q
is. Sources: Mattei and Frellsen (2019), MIWAE, arXiv:1812.02633; Rubin (1988), Using the SIR
algorithm to simulate posterior distributions.

Axes: K weighted draws, M draws of the absent entries, B examples. `posterior_draws`, `resampled`
and `absent_draws` are functions of tensors alone, for signatures; `impute` and `classify` take any
data.
"""

from keras_vae.imputation.absent_entries import Imputation, absent_draws, impute
from keras_vae.imputation.classification import Classification, by_class, classes_of, classify
from keras_vae.imputation.containers import filled_column
from keras_vae.imputation.posterior_draws import (
    ABSENT,
    PosteriorDraws,
    posterior_draws,
    resampled,
)
from keras_vae.imputation.statistics import (
    class_probabilities,
    expected,
    single_values,
    statistic_of,
)

__all__ = [
    "ABSENT",
    "Classification",
    "Imputation",
    "PosteriorDraws",
    "absent_draws",
    "by_class",
    "class_probabilities",
    "classes_of",
    "classify",
    "expected",
    "filled_column",
    "impute",
    "posterior_draws",
    "resampled",
    "single_values",
    "statistic_of",
]
