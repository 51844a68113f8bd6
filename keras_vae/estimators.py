"""Estimators of the ELBO and the multi-sample bound from one batch of draws.

Axes: S draws, B examples, L latents. All values are in nats. A gradient estimator changes gradients
and never values: it decides whether q(z | x) is differentiated through its parameters as well as
through z.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Any, Literal

import tensorflow as tf

from keras_vae.distributions.tfp import tfd
from keras_vae.trace import Inference, Latent, Trace, identity

__all__ = [
    "Gradient",
    "Rate",
    "analytic_rate",
    "elbo_terms",
    "importance_bound",
    "log_mean_exp",
    "log_weights",
    "rate_per_draw",
    "rate_per_latent",
    "rates_of",
    "refuse_own_weights",
    "sum_of",
    "summed_terms",
]

Gradient = Literal["pathwise", "sticking_the_landing", "doubly_reparameterized"]
Rate = Literal["analytic", "monte_carlo"]


def log_weights(trace: Trace, gradient: Gradient = "pathwise") -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the terms of log w = log p(x | z) + log p(z) - log q(z | x), whose mean is the ELBO.

    Args:
        trace: trace at draws from q(z | x).
        gradient: "pathwise" differentiates q through z and through its parameters; the others
            only through z, because the expected score E_q[grad log q] is zero. Source:
            Roeder, Wu and Duvenaud (2017), Sticking the landing, arXiv:1703.09194.

    Returns:
        log p(x | z) and log p(z) - log q(z | x), each [S, B].
    """
    return trace.log_likelihood(), trace.log_ratio(constant=gradient != "pathwise")


def elbo_terms(
    trace: Trace, kl: Rate | None = None, gradient: Gradient = "pathwise"
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes distortion -E_q log p(x | z) and rate KL(q(z | x) || p(z)).

    Their negative sum is the ELBO.

    Args:
        trace: trace at draws from q(z | x).
        kl: how the rate of each latent is computed. None is the closed form if there is one and the
            gradient is pathwise, otherwise the mean over the draws.
        gradient: as for `log_weights`; the closed form supports only "pathwise".

    Returns:
        The two terms, each [B].

    Raises:
        ValueError: if the closed form is requested and does not exist.
    """
    rates = rates_of(trace, kl, gradient)
    return -tf.reduce_mean(trace.log_likelihood(), axis=0), sum_of(rates)


def sum_of(terms: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Adds terms of latents or observations, in their order."""
    return reduce(add, terms.values())


def rates_of(
    trace: Trace, kl: Rate | None = None, gradient: Gradient = "pathwise"
) -> dict[str, tf.Tensor]:
    """Computes the rate of each latent by name, [B]; arguments and errors as for `elbo_terms`."""
    return {name: _rate(latent, kl, gradient) for name, latent in trace.latents.items()}


def _rate(latent: Latent, kl: Rate | None, gradient: Gradient) -> tf.Tensor:
    """Computes the rate of one latent, [B]."""
    rate = _closed_rate(latent) if kl is None and gradient == "pathwise" else None
    if kl == "analytic":
        rate = analytic_rate(latent)
    if rate is not None:
        return rate
    log_ratio = latent.log_p() - latent.log_q(constant=gradient != "pathwise")
    return -tf.reduce_mean(log_ratio, axis=0)


def rate_per_draw(latent: Latent, kl: Rate | None = None) -> tf.Tensor:
    """Computes the rate of a latent at each draw of the latents before it, [S, B] or [1, B].

    Args:
        latent: the latent, whose q or p depends on latents that are drawn before it.
        kl: as for `elbo_terms`; without the closed form it is log q - log p of each draw.

    Raises:
        ValueError: if the closed form is requested and does not exist.
    """
    rate = None if kl == "monte_carlo" else _closed_rates(latent)
    if kl == "analytic":
        rate = _existing(latent, rate)
    if rate is None:
        return latent.log_q() - latent.log_p()
    return rate if rate.shape.rank == 2 else rate[tf.newaxis]


def summed_terms(
    inference: Inference,
    noise: Any,
    name: str,
    kl: Rate | None = None,
    top: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor, Trace]:
    """Computes distortion and rate with a categorical latent summed out, not drawn.

    Args:
        inference: inference of the model from the batch.
        noise: noise of S draws of the latents by name, of which that of the categories is not used
            unless `top` is given.
        name: name of the latent that is summed out, the first that the model infers.
        kl: how the rates of the other latents are computed, as for `elbo_terms`.
        top: number of the most probable categories of each example that are summed exactly. One
            more is drawn from q among the others, and stands for them with their probability.
            Values and gradients are then unbiased. None is the exact sum. Source: Liu, Regier,
            Tripuraneni, Jordan and McAuliffe (2019), Rao-Blackwellized stochastic gradients for
            discrete distributions, arXiv:1810.04777.

    Returns:
        Distortion and rate, each [B], and the trace, whose draws are each category with each draw
        of the other latents.
    """
    trace = inference.over(noise, name, top)  # type: ignore[misc]
    label = trace.latents[name]
    log_q = label.log_q()
    rate = log_q - label.log_p()
    for key, latent in trace.latents.items():
        if key != name:
            rate += rate_per_draw(latent, kl)
    num_samples = tf.nest.flatten(noise)[0].shape[0]
    values = (-trace.log_likelihood(), rate)
    if top is not None and top < label.value.shape[-1] - 1:
        distortion, rate = _sums_of_some(values, log_q, num_samples)
    else:
        weights = tf.exp(log_q) / num_samples
        distortion, rate = (
            tf.reduce_sum(tf.math.multiply_no_nan(each, weights), axis=0) for each in values
        )
    return distortion, rate, trace


def _sums_of_some(
    values: tuple[tf.Tensor, ...], log_q: tf.Tensor, num_samples: int
) -> list[tf.Tensor]:
    """Estimates sums over categories from the most probable, and one draw of the others.

    The weights have the sum 1, so the value at the most probable category may be subtracted before
    and added after. That leaves values as they are and takes most of the noise from gradients.
    """
    top, drawn = tf.exp(log_q[:-num_samples]), log_q[-num_samples:]
    rest = tf.maximum(1.0 - tf.reduce_sum(top, axis=0) / num_samples, 0.0)
    one = tf.exp(drawn - tf.stop_gradient(drawn))
    weights = tf.concat([top, one * tf.stop_gradient(rest)], axis=0) / num_samples
    sums = []
    for each in values:
        baseline = tf.stop_gradient(tf.reduce_mean(each[:num_samples], axis=0))
        centred = tf.math.multiply_no_nan(each - baseline, weights)
        sums.append(tf.reduce_sum(centred, axis=0) + baseline)
    return sums


def analytic_rate(latent: Latent) -> tf.Tensor:
    """Computes the rate KL(q || p) of a latent in closed form, [B].

    If p or q depends on earlier draws, there is one KL per draw, and the rate is their mean.

    Raises:
        ValueError: if the pair of distributions has none.
    """
    return _existing(latent, _closed_rate(latent))


def _existing(latent: Latent, rate: tf.Tensor | None) -> tf.Tensor:
    """Returns a closed form; refuses that there is none."""
    if rate is None:
        name = "this posterior" if latent.q is None else latent.q(False).name
        raise ValueError(
            f"KL({name} || {latent.p.name}) has no closed form; choose "
            'kl="monte_carlo" (or kl=None, the closed form if there is one).'
        )
    return rate


def _closed_rate(latent: Latent) -> tf.Tensor | None:
    """Computes the rate in closed form, [B]; returns None if there is none."""
    rate = _closed_rates(latent)
    if rate is not None and rate.shape.rank == 2:
        rate = tf.reduce_mean(rate, axis=0)
    return rate


def _closed_rates(latent: Latent) -> tf.Tensor | None:
    """Computes the rate in closed form, [B], or [S, B] if it depends on earlier draws."""
    if latent.q is None or not latent.in_order:
        return None
    with contextlib.suppress(NotImplementedError):
        return tfd.kl_divergence(latent.q(False), latent.p)
    return None


def rate_per_latent(trace: Trace) -> tf.Tensor:
    """Computes the rate of each number z_j in closed form, [B, L], of all latents side by side.

    A latent of more than one axis is flattened.

    Raises:
        ValueError: if a distribution does not factorise over its latents.
    """
    return tf.concat([_rate_per_number(latent) for latent in trace.latents.values()], axis=-1)


def _rate_per_number(latent: Latent) -> tf.Tensor:
    q, p = None if latent.q is None else latent.q(False), latent.p
    if not (isinstance(q, tfd.Independent) and isinstance(p, tfd.Independent)):
        raise ValueError(
            "A rate per latent needs a posterior and a prior that factorise over latents, such as "
            f"DiagonalNormal and StandardNormal; got {'this posterior' if q is None else q.name} "
            f"and {p.name}."
        )
    rate = tfd.kl_divergence(q.distribution, p.distribution)
    axes = q.event_shape.rank
    if rate.shape.rank == 2 + axes:
        rate = tf.reduce_mean(rate, axis=0)
    return rate if axes == 1 else tf.reshape(rate, [-1, q.event_shape.num_elements()])


def log_mean_exp(log_w: tf.Tensor, axis: int = 0) -> tf.Tensor:
    """Computes the logarithm of the mean of exp(log_w) along an axis."""
    count = tf.cast(tf.shape(log_w)[axis], log_w.dtype)
    return tf.reduce_logsumexp(log_w, axis=axis) - tf.math.log(count)


def importance_bound(
    inference: Inference, noise: Any, gradient: Gradient
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Trace]:
    """Computes the multi-sample bound log 1/S sum_s w_s with the requested gradient.

    The plain gradient weights each draw by its normalised weight W_s. The doubly reparameterised
    one weights the gradient through z by W_s^2 and drops the score of q. Source: Tucker, Lawson, Gu
    and Maddison (2019), Doubly reparameterized gradient estimators, arXiv:1810.04152.

    Args:
        inference: inference of the model from the batch.
        noise: noise of S draws.
        gradient: "pathwise" or "doubly_reparameterized".

    Returns:
        The bound [B], the two terms of `log_weights`, each [S, B], and the trace.
    """
    normalised: list[tf.Tensor] = []
    through: Callable[[tf.Tensor], tf.Tensor] = identity
    if gradient == "doubly_reparameterized":
        through = _scaled_gradient(normalised)
    trace = inference.trace(noise, through)
    log_likelihood, log_ratio = log_weights(trace, gradient)
    log_w = log_likelihood + log_ratio
    normalised.append(tf.stop_gradient(tf.nn.softmax(log_w, axis=0)))
    return log_mean_exp(log_w), log_likelihood, log_ratio, trace


def _scaled_gradient(later: list[tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes an identity whose gradient is multiplied by the weights [S, B] in `later`."""

    @tf.custom_gradient
    def scaled(value: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            weights = later[0]
            for _ in range(value.shape.rank - weights.shape.rank):
                weights = weights[..., tf.newaxis]
            return upstream * weights

        return tf.identity(value), gradient

    return scaled


def _refuse_draws_given_draws(inference: Inference, noise: Any) -> None:
    """Refuses a model of which one latent is drawn given another."""
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:

        def watched(value: tf.Tensor) -> tf.Tensor:
            value = tf.identity(value)
            tape.watch(value)
            return value

        latents = inference.trace(noise, watched).latents
    for name, latent in latents.items():
        for other, earlier in latents.items():
            if other != name and tape.gradient(latent.value, earlier.value) is not None:
                raise ValueError(
                    "gradient='doubly_reparameterized' needs latents that are drawn independently "
                    f"given x, and {name} is drawn given {other}: choose gradient='pathwise'."
                )


def refuse_own_weights(inference: Inference, noise: Any, gradient: Gradient) -> None:
    """Refuses a posterior whose density would be differentiated where it must be constant.

    If the gradient is doubly reparameterised, refuses stratified draws too, and latents that are
    drawn given one another: the identity behind it is one of independent draws, and it weights the
    gradient through each draw once.

    Args:
        inference: inference from one example or more.
        noise: noise of one draw or more.
        gradient: an estimator that differentiates q through z alone.

    Raises:
        ValueError: naming the weight that the posterior reads besides its parameters.
    """
    trace = inference.trace(noise)
    stratified = not all(latent.draw.independent for latent in trace.latents.values())
    if stratified and gradient == "doubly_reparameterized":
        raise ValueError(
            "gradient='doubly_reparameterized' needs independent draws, and this posterior "
            "stratifies the draws of an example over its components: choose gradient='pathwise'."
        )
    if gradient == "doubly_reparameterized":
        _refuse_draws_given_draws(inference, noise)
    with tf.GradientTape() as tape:
        for latent in trace.latents.values():
            latent.log_q(constant=True)
    if watched := tape.watched_variables():
        raise ValueError(
            f"gradient={gradient!r} holds q(z | x) constant except for its draw, but the density "
            f"of this posterior reads the weight {watched[0].name} besides its parameters. Return "
            "it from `shared_parameters`, or choose gradient='pathwise'."
        )
