"""Flows: posteriors and priors that are invertible functions of standard normal noise."""

from keras_vae.distributions.flows.posteriors import CouplingFlow as CouplingFlow
from keras_vae.distributions.flows.posteriors import (
    InverseAutoregressiveFlow as InverseAutoregressiveFlow,
)
from keras_vae.distributions.flows.priors import AutoregressivePrior as AutoregressivePrior
from keras_vae.distributions.flows.priors import FlowPrior as FlowPrior

__all__ = ["AutoregressivePrior", "CouplingFlow", "FlowPrior", "InverseAutoregressiveFlow"]
