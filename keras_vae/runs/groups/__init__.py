"""Settings of a run, in groups: the data, the model, its sequences, and the training."""

from keras_vae.runs.groups.data import TABLE as TABLE
from keras_vae.runs.groups.data import TEXT as TEXT
from keras_vae.runs.groups.data import DataSettings as DataSettings
from keras_vae.runs.groups.model import FAMILIES as FAMILIES
from keras_vae.runs.groups.model import LEVELS as LEVELS
from keras_vae.runs.groups.model import ModelSettings as ModelSettings
from keras_vae.runs.groups.sequences import SEQUENCE_NETWORKS as SEQUENCE_NETWORKS
from keras_vae.runs.groups.sequences import SequenceSettings as SequenceSettings
from keras_vae.runs.groups.training import TrainingSettings as TrainingSettings
