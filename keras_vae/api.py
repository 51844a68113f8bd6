"""The public names of `keras_vae`.

Its modules are imported when they are first used, so that training does not wait for evaluation.
"""

from typing import TYPE_CHECKING

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"keras_vae needs the TensorFlow backend of Keras, and this process uses "
        f"{keras.backend.backend()!r}: set the environment variable KERAS_BACKEND=tensorflow "
        "before Keras is imported."
    )

from keras_vae.distributions import ConditionalDistribution as ConditionalDistribution
from keras_vae.distributions import Likelihood as Likelihood
from keras_vae.distributions import Parameter as Parameter
from keras_vae.distributions import Posterior as Posterior
from keras_vae.distributions import distribution_of as distribution_of
from keras_vae.distributions.codes import AutoregressiveCodes as AutoregressiveCodes
from keras_vae.distributions.codes import CategoricalLatent as CategoricalLatent
from keras_vae.distributions.codes import FiniteScalarQuantizer as FiniteScalarQuantizer
from keras_vae.distributions.codes import LookupFreeQuantizer as LookupFreeQuantizer
from keras_vae.distributions.codes import UniformCodes as UniformCodes
from keras_vae.distributions.codes import VectorQuantizer as VectorQuantizer
from keras_vae.distributions.experts import *  # noqa: F403
from keras_vae.distributions.flows import *  # noqa: F403
from keras_vae.distributions.heavy_tails import *  # noqa: F403
from keras_vae.distributions.likelihoods import *  # noqa: F403
from keras_vae.distributions.mixtures import NormalMixturePosterior as NormalMixturePosterior
from keras_vae.distributions.parts import Parts as Parts
from keras_vae.distributions.parts_encoder import PartsEncoder as PartsEncoder
from keras_vae.distributions.posteriors import *  # noqa: F403
from keras_vae.distributions.priors import ConditionalNormal as ConditionalNormal
from keras_vae.distributions.priors import NormalMixture as NormalMixture
from keras_vae.distributions.priors import Prior as Prior
from keras_vae.distributions.priors import StandardNormal as StandardNormal
from keras_vae.distributions.priors import VampPrior as VampPrior
from keras_vae.distributions.spheres import *  # noqa: F403
from keras_vae.distributions.supports import DataError as DataError
from keras_vae.explain import LossExplanation as LossExplanation
from keras_vae.explain import explain_loss as explain_loss
from keras_vae.factories import conv_vae as conv_vae
from keras_vae.factories import hierarchical_vae as hierarchical_vae
from keras_vae.factories import mlp_vae as mlp_vae
from keras_vae.factories import sequence_vae as sequence_vae
from keras_vae.factories import table_vae as table_vae
from keras_vae.factories import vq_vae as vq_vae
from keras_vae.hierarchical import HierarchicalVAE as HierarchicalVAE
from keras_vae.hierarchical import TopDownBlock as TopDownBlock
from keras_vae.hub import from_hub as from_hub
from keras_vae.hub import push_to_hub as push_to_hub
from keras_vae.imputation import Classification as Classification
from keras_vae.imputation import Imputation as Imputation
from keras_vae.latent_variable_model import LatentVariableModel as LatentVariableModel
from keras_vae.linear_gaussian import LinearGaussian as LinearGaussian
from keras_vae.losses import NegativeLogLikelihood as NegativeLogLikelihood
from keras_vae.missing_not_at_random import MissingNotAtRandom as MissingNotAtRandom
from keras_vae.model import VAE as VAE
from keras_vae.model import Bound as Bound
from keras_vae.networks.causal import CausalSteps as CausalSteps
from keras_vae.networks.sequences import AttentionOverSteps as AttentionOverSteps
from keras_vae.networks.sequences import MeanOverSteps as MeanOverSteps
from keras_vae.networks.sequences import NeighbouringSteps as NeighbouringSteps
from keras_vae.networks.sequences import ObservedSteps as ObservedSteps
from keras_vae.networks.sequences import PositionedSteps as PositionedSteps
from keras_vae.networks.series import SeriesComponents as SeriesComponents
from keras_vae.networks.steps import StepDense as StepDense
from keras_vae.objectives import ELBO as ELBO
from keras_vae.objectives import IWAE as IWAE
from keras_vae.objectives import EnumeratedELBO as EnumeratedELBO
from keras_vae.objectives import Objective as Objective
from keras_vae.objectives import RelaxedELBO as RelaxedELBO
from keras_vae.objectives import SemiSupervised as SemiSupervised
from keras_vae.objectives import SubsetELBO as SubsetELBO
from keras_vae.semi_supervised import SemiSupervisedVAE as SemiSupervisedVAE
from keras_vae.training.guard import NonFiniteError as NonFiniteError

if TYPE_CHECKING:
    from keras_vae import callbacks as callbacks
    from keras_vae import data as data
    from keras_vae import evaluation as evaluation
    from keras_vae import networks as networks
