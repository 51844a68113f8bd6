"""Estimators: what one batch of draws gives, and how the gradient passes through it.

Axes: S draws, B examples, L latents. All values are nats. An estimator changes gradients only,
never values: it decides whether q(z | x) is differentiated through its parameters as well as
through z.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import tensorflow as tf

from keras_vae.distributions.tfp import tfd

__all__ = [
    "Gradient",
    "Laws",
    "Rate",
    "analytic_rate",
    "elbo_terms",
    "log_mean_exp",
    "log_weights",
    "rate_per_latent",
    "weighted_log_mean_exp",
]

Gradient = Literal["pathwise", "sticking_the_landing", "doubly_reparameterized"]
Rate = Literal["analytic", "monte_carlo"]


class Laws(NamedTuple):
    """The three laws that meet in one batch.

    Attributes:
        x: data [B, *D].
        prior: p(z), event shape [L].
        posterior: q(z | x), batch shape [B].
        frozen_posterior: q(z | x) with its parameters held constant under differentiation.
        likelihood: map from z [S, B, L] to p(x | z), batch shape [S, B].
        sample: map from the shape S, one number or several, and a seed int32 [2] to draws
            z [*S, B, L] from q(z | x), through which gradients pass to its parameters.
    """

    x: tf.Tensor
    prior: tfd.Distribution
    posterior: tfd.Distribution
    frozen_posterior: tfd.Distribution
    likelihood: Callable[[tf.Tensor], tfd.Distribution]
    sample: Callable[[int | Sequence[int], tf.Tensor], tf.Tensor]


def log_weights(
    laws: Laws, z: tf.Tensor, gradient: Gradient = "pathwise"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Terms of log w = log p(x | z) + log p(z) - log q(z | x), whose mean is the ELBO.

    Args:
        laws: the three laws.
        z: draws from q(z | x), [S, B, L].
        gradient: "pathwise" differentiates q through z and through its parameters; the others
            through z alone, since the score E_q[grad log q] is zero and its noise is not. Source:
            Roeder, Wu and Duvenaud (2017), Sticking the landing, arXiv:1703.09194.

    Returns:
        log p(x | z) and log p(z) - log q(z | x), each [S, B].
    """
    q = laws.posterior if gradient == "pathwise" else laws.frozen_posterior
    return laws.likelihood(z).log_prob(laws.x), laws.prior.log_prob(z) - q.log_prob(z)


def elbo_terms(
    laws: Laws, z: tf.Tensor, kl: Rate | None = None, gradient: Gradient = "pathwise"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Distortion -E_q log p(x | z) and rate KL(q(z | x) || p(z)), whose negative sum is the ELBO.

    Args:
        laws: the three laws.
        z: draws from q(z | x), [S, B, L].
        kl: how the rate is had; None is the closed form where there is one and the gradient is
            pathwise, else the draws.
        gradient: as for `log_weights`; the closed form knows "pathwise" alone.

    Returns:
        The two terms, each [B].

    Raises:
        ValueError: if the closed form is asked for and does not exist.
    """
    rate = None
    if kl == "analytic":
        rate = analytic_rate(laws)
    elif kl is None and gradient == "pathwise":
        with contextlib.suppress(ValueError):
            rate = analytic_rate(laws)
    if rate is not None:
        return -tf.reduce_mean(laws.likelihood(z).log_prob(laws.x), axis=0), rate
    log_likelihood, log_ratio = log_weights(laws, z, gradient)
    return -tf.reduce_mean(log_likelihood, axis=0), -tf.reduce_mean(log_ratio, axis=0)


def analytic_rate(laws: Laws) -> tf.Tensor:
    """Rate KL(q(z | x) || p(z)) in closed form, [B].

    Raises:
        ValueError: if the pair of laws has none.
    """
    try:
        return tfd.kl_divergence(laws.posterior, laws.prior)
    except NotImplementedError as error:
        raise ValueError(
            f"KL({laws.posterior.name} || {laws.prior.name}) has no closed form; choose "
            'kl="monte_carlo" (or kl=None: the closed form where there is one).'
        ) from error


def rate_per_latent(laws: Laws) -> tf.Tensor:
    """Rate of each latent in closed form, [B, L], for a factorised posterior and prior.

    Raises:
        ValueError: if the laws do not factorise over latents.
    """
    q, p = laws.posterior, laws.prior
    if not (isinstance(q, tfd.Independent) and isinstance(p, tfd.Independent)):
        raise ValueError(
            "A rate per latent needs a posterior and a prior that factorise over latents, such as "
            f"DiagonalNormal and StandardNormal; got {q.name} and {p.name}."
        )
    return tfd.kl_divergence(q.distribution, p.distribution)


def log_mean_exp(log_w: tf.Tensor, axis: int = 0) -> tf.Tensor:
    """Logarithm of the mean of exp(log_w) along an axis."""
    count = tf.cast(tf.shape(log_w)[axis], log_w.dtype)
    return tf.reduce_logsumexp(log_w, axis=axis) - tf.math.log(count)


def weighted_log_mean_exp(
    log_w_of: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    z: tf.Tensor,
    gradient: Gradient,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Multi-sample bound log 1/S sum_s w_s with the gradient asked for.

    The plain gradient weighs each draw by its normalised weight W_s. The doubly reparameterised one
    weighs what flows through z by W_s^2 and drops the score of q. Source: Tucker, Lawson, Gu and
    Maddison (2019), Doubly reparameterized gradient estimators, arXiv:1810.04152.

    Args:
        log_w_of: map from z to the two terms of `log_weights`.
        z: draws [S, B, L].
        gradient: "pathwise" or "doubly_reparameterized".

    Returns:
        The bound [B], and the two terms of `log_weights`, each [S, B].
    """
    normalised: list[tf.Tensor] = []
    if gradient == "doubly_reparameterized":
        z = _scale_gradient(z, normalised)
    log_likelihood, log_ratio = log_w_of(z)
    log_w = log_likelihood + log_ratio
    normalised.append(tf.stop_gradient(tf.nn.softmax(log_w, axis=0)))
    return log_mean_exp(log_w), log_likelihood, log_ratio


def _scale_gradient(z: tf.Tensor, later: list[tf.Tensor]) -> tf.Tensor:
    """Identity whose gradient is multiplied by the weights [S, B] that `later` holds by then."""

    @tf.custom_gradient
    def identity(value: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.identity(value), lambda upstream: upstream * later[0][..., tf.newaxis]

    return identity(z)
