"""Objectives: values that `fit` minimises, with the corresponding bound reported beside them."""

from keras_vae.objectives.base import Objective as Objective
from keras_vae.objectives.base import Player as Player
from keras_vae.objectives.base import Terms as Terms
from keras_vae.objectives.codes import EnumeratedELBO as EnumeratedELBO
from keras_vae.objectives.codes import RelaxedELBO as RelaxedELBO
from keras_vae.objectives.elbo import ELBO as ELBO
from keras_vae.objectives.iwae import IWAE as IWAE
from keras_vae.objectives.semi_supervised import SemiSupervised as SemiSupervised
from keras_vae.objectives.subsets import SubsetELBO as SubsetELBO
