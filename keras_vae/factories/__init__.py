"""Ready models, by data shape, latent size and the name of a likelihood."""

from keras_vae.factories.assembly import CODE_PRIORS, LIKELIHOODS, POSTERIORS, PRIORS
from keras_vae.factories.codes import vq_vae
from keras_vae.factories.levels import hierarchical_vae
from keras_vae.factories.sequences import sequence_vae
from keras_vae.factories.starting_values import start_at_mean
from keras_vae.factories.tables import table_likelihoods, table_vae
from keras_vae.factories.vectors import conv_vae, mlp_vae

__all__ = [
    "CODE_PRIORS",
    "LIKELIHOODS",
    "POSTERIORS",
    "PRIORS",
    "conv_vae",
    "hierarchical_vae",
    "mlp_vae",
    "sequence_vae",
    "start_at_mean",
    "table_likelihoods",
    "table_vae",
    "vq_vae",
]
