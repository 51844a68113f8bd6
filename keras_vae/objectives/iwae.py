"""Importance-weighted bound."""

from typing import Any

import tensorflow as tf

from keras_vae import estimators
from keras_vae.arguments import register
from keras_vae.estimators import Gradient
from keras_vae.objectives.base import Objective, Terms, rate_names, with_penalties
from keras_vae.trace import Inference, Latent

__all__ = ["IWAE"]


@register
class IWAE(Objective):
    """Importance-weighted bound: loss = -log 1/k sum_s p(x, z_s) / q(z_s | x).

    It is a lower bound on log p(x) that rises with k; at k = 1 it is the ELBO. `elbo`, `distortion`
    and `rate` come from the same draws. Source: Burda, Grosse and Salakhutdinov (2016),
    Importance weighted autoencoders, arXiv:1509.00519.

    Where entries of x are absent, p(x, z) is that of the entries that are present, and this is the
    bound of MIWAE (Mattei and Frellsen, 2019, arXiv:1812.02633); with `MissingNotAtRandom` that of
    not-MIWAE (Ipsen, Mattei and Frellsen, 2021, arXiv:2006.12871).

    Args:
        num_samples: number k of draws per example.
        gradient: "pathwise" or "doubly_reparameterized". Sticking the landing is biased here and
            is refused.

    Raises:
        ValueError: if an argument is none of these.

    Example:
        >>> import keras_vae, numpy as np
        >>> vae = keras_vae.mlp_vae(6, 2, "normal", hidden=(8,))
        >>> vae.compile(objective=IWAE(5))
        >>> logs = vae.fit(np.zeros([32, 6], "float32"), verbose=0).history
        >>> logs["loss"][0] <= -logs["elbo"][0]
        True
    """

    _gradients = ("pathwise", "doubly_reparameterized")

    def __init__(
        self, num_samples: int, *, gradient: Gradient = "pathwise", name: str = "iwae"
    ) -> None:
        super().__init__(num_samples, gradient, name=name)

    def terms(self, inference: Inference, noise: Any) -> Terms:
        """Returns the bound, and the ELBO's two terms from the same draws."""
        bound, log_likelihood, log_ratio, trace = estimators.importance_bound(
            inference, noise, self.gradient
        )
        return Terms(
            loss=with_penalties(-bound, trace),
            distortion=-tf.reduce_mean(log_likelihood, axis=0),
            rate=-tf.reduce_mean(log_ratio, axis=0),
            extra={
                key: _rate(trace.latents[name]) for name, key in rate_names(trace.latents).items()
            },
            trace=trace,
        )

    def logged(self, model: Any) -> tuple[str, ...]:
        """Returns the names of the rates of several latents, from the draws."""
        return (*self.metric_names, *rate_names(model.noise()).values())


def _rate(latent: Latent) -> tf.Tensor:
    """Computes the rate of a latent from its draws, [B]."""
    return -tf.reduce_mean(latent.log_p() - latent.log_q(), axis=0)
