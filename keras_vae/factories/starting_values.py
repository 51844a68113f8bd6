"""Values at which training starts."""

import numpy as np

from keras_vae.distributions import Likelihood
from keras_vae.likelihood_model import LikelihoodModel

__all__ = ["start_at_mean", "start_likelihood_at"]


def start_at_mean(vae: LikelihoodModel, mean: np.ndarray) -> None:
    """Sets the decoder's last bias so that, with features of zero, its mean is the given one.

    Burda, Grosse and Salakhutdinov (2016) start their decoders in this way. The likelihood's
    `raw_mean` gives the bias; its head must be a Dense layer, as in `mlp_vae`.

    Args:
        vae: a model whose likelihood has a parameter that determines its mean.
        mean: mean of the training data, with the shape of one example.

    Raises:
        ValueError: if the likelihood has no such parameter or the shape is wrong.

    Example:
        >>> from keras_vae import mlp_vae
        >>> vae = mlp_vae(2, 1, "bernoulli", hidden=(4,))
        >>> start_at_mean(vae, np.array([0.25, 0.5]))
        >>> vae.likelihood.head.bias.numpy()
        array([-1.0986,  0.    ], dtype=float32)
    """
    start_likelihood_at(vae.likelihood, mean)


def start_likelihood_at(likelihood: Likelihood, mean: np.ndarray) -> None:
    """Sets the last bias of a likelihood; see `start_at_mean`."""
    likelihood, mean = likelihood.of_entries(), np.asarray(mean, np.float64)
    if mean.shape != likelihood.event_shape:
        raise ValueError(
            f"Expected a mean of the shape {likelihood.event_shape} of one example; got "
            f"{mean.shape}."
        )
    if likelihood.sequence:
        mean = mean.mean(axis=0)
    raw = likelihood.raw_mean(mean)
    bias = np.zeros((*mean.shape[:-1], likelihood._last_size))
    bias[..., : mean.shape[-1]] = raw
    likelihood.head.bias.assign(bias.ravel())
