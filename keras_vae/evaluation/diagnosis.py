"""Diagnosis of a trained model: use of its latents and calibration of its decoder."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.distributions import tfp
from keras_vae.distributions.priors import Components
from keras_vae.distributions.tfp import FullNormal, statistic
from keras_vae.estimators import elbo_terms
from keras_vae.evaluation._batches import (
    SEED,
    batch_seed,
    batches,
    compiled,
    count_of,
    rows_in,
    spec_of,
)
from keras_vae.evaluation._draws import only_posterior, refuse_other
from keras_vae.evaluation._progress import Progress
from keras_vae.model import VAE
from keras_vae.spelling import counted
from keras_vae.training.monitor import ACTIVE, marginal_rates

__all__ = ["Calibration", "Diagnosis", "diagnose", "is_normal", "rate_per_latent"]

_CHUNK = 1000
_LEAST_INFORMATION = 0.1
_STEP = 0.1
_LEVELS = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Calibration:
    """Agreement of the spread of p(x | z) with the spread of the data.

    If z is from the true posterior and data from the model, residuals have mean 0 and deviation 1,
    and each interval covers its level.

    Attributes:
        residual_mean: mean of (x - E[x | z]) / sd[x | z] over examples and entries.
        residual_deviation: standard deviation of the same; above 1 the decoder is overconfident.
        coverage: share of entries inside the central interval of p(x | z), by its level.

    Example:
        >>> found = Calibration(0.02, 1.4, {0.5: 0.38, 0.9: 0.76})
        >>> found.coverage[0.9] < 0.9  # the decoder's intervals are too narrow
        True
    """

    residual_mean: float
    residual_deviation: float
    coverage: dict[float, float]


@dataclass(frozen=True)
class Diagnosis:
    """Use that a model makes of its latents, in nats per example unless said otherwise.

    Attributes:
        distortion: -E_q log p(x | z), mean.
        rate: KL(q(z | x) || p(z)), mean.
        rate_per_latent: E_x KL(q(z_j | x) || p(z_j)), [L]; their sum is the rate if q and the prior
            factorise over latents.
        posterior_mean_variance: Var_x(E_q z_j), [L].
        active_units: number of latents for which it exceeds 0.01.
        mutual_information: I(x; z) = E log q(z | x) / q(z), with q(z) the mean of the N
            posteriors; at most log N.
        marginal_kl: KL(q(z) || p(z)); rate = mutual information + marginal KL.
        information_error: standard error of the mutual information, from one draw per example.
        log_count: log N, the maximum of the mutual information.
        sensitivity: root mean square over x of |d E[x | z] / d z_j|, [L], in units of the data, by
            central differences of step 0.1.
        calibration: calibration of the continuous likelihood of a complete x; None for others.
        collapsed: whether the latents carry nothing.
        verdict: the diagnosis in one sentence with its numbers.
        num_examples: N.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> found = diagnose(vae, np.random.default_rng(0).normal(size=(64, 1)))
        >>> found.collapsed, found.active_units
        (False, 1)
    """

    distortion: float
    rate: float
    rate_per_latent: np.ndarray
    posterior_mean_variance: np.ndarray
    active_units: int
    mutual_information: float
    marginal_kl: float
    information_error: float
    log_count: float
    sensitivity: np.ndarray
    calibration: Calibration | None
    collapsed: bool
    verdict: str
    num_examples: int


def diagnose(
    vae: VAE,
    x: Any,
    *,
    num_samples: int = 8,
    seed: int = 0,
    memory: int = 256 * 2**20,
    progress: bool | None = None,
) -> Diagnosis:
    """Diagnoses a model on a data set.

    The rate of a latent is that of the marginal distributions; if the prior is a mixture, it is
    estimated from the draws. Mutual information and KL of the aggregated posterior use all N x N
    pairs of a draw and a posterior. The model is called collapsed if no latent is active or the
    mutual
    information is below 0.1 nats. Sources: Burda et al. (2016), arXiv:1509.00519, for active units;
    Hoffman and Johnson (2016), ELBO surgery, for the split of the rate.

    Args:
        vae: the model.
        x: data [N, *D], or {"x": ..., "condition": ...}, at least 2 examples.
        num_samples: draws per example for distortion, rates and calibration.
        seed: integer, for all draws.
        memory: approximate memory to use, in bytes.
        progress: whether to show the time left; None shows it in a terminal.

    Raises:
        DataError: if x lies outside the support of the likelihood.
        ValueError: if there is only one example, an argument is out of range or the posterior is
            not normal.

    Example:
        >>> import keras_vae, numpy as np
        >>> vae = keras_vae.mlp_vae(5, 2, "normal", hidden=(8,))
        >>> diagnose(vae, np.random.default_rng(0).normal(size=(64, 5))).rate_per_latent.shape
        (2,)
    """
    refuse_other(vae, "diagnose")
    num_samples = as_count("num_samples", num_samples, least=1)
    x = vae.data.arrays(x, in_support=True)
    _check_normal(vae, "diagnose")
    count = count_of(x)
    if count < 2:
        raise ValueError("diagnose compares examples with each other and needs at least 2; got 1.")
    size = max(1, rows_in(memory, vae) // max(num_samples, 2))
    terms = compiled(_pass(vae, num_samples), spec_of(x), SEED)
    parts: list[dict[str, np.ndarray]] = []
    with Progress("diagnose", count, progress) as done:
        for start, batch in batches(x, size, done):
            out = terms(batch, batch_seed(seed, start))
            parts.append({name: value.numpy() for name, value in out.items()})
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    sensitivity = _sensitivity(vae, x, found["loc"], size)
    log_q = _log_aggregate(found, memory)
    information = found["log_posterior"] - log_q
    variance = found["loc"].var(axis=0, dtype=np.float64)
    active = int((variance > ACTIVE).sum())
    mutual = float(information.mean())
    collapsed = active == 0 or mutual < _LEAST_INFORMATION
    rate = float(found["rate"].mean(dtype=np.float64))
    return Diagnosis(
        distortion=float(found["distortion"].mean(dtype=np.float64)),
        rate=rate,
        rate_per_latent=found["rate_per_latent"].mean(axis=0, dtype=np.float64),
        posterior_mean_variance=variance,
        active_units=active,
        mutual_information=mutual,
        marginal_kl=float((log_q - found["log_prior"]).mean()),
        information_error=float(information.std(ddof=1) / math.sqrt(count)),
        log_count=math.log(count),
        sensitivity=sensitivity,
        calibration=_calibration(found),
        collapsed=collapsed,
        verdict=_verdict(vae.latent_size, active, rate, mutual, count, collapsed),
        num_examples=count,
    )


def is_normal(vae: VAE) -> bool:
    """Tells whether posterior and prior are normal, the prior perhaps a mixture of such.

    `diagnose` and `rate_per_latent` need that.

    Example:
        >>> import keras_vae
        >>> is_normal(keras_vae.mlp_vae(3, 2)), is_normal(keras_vae.mlp_vae(3, 2, prior="flow"))
        (True, False)
    """
    if (
        not isinstance(vae, VAE)
        or not vae.posterior.tells_density
        or vae.prior.components() is None
    ):
        return False
    return tfp.is_normal(vae.encode(vae.data.zeros()))


def rate_per_latent(vae: VAE, x: Any, *, seed: int = 0) -> np.ndarray:
    """Computes the rate of each latent, E_x KL(q(z_j | x) || p(z_j)), in nats per example, [L].

    If the prior is a mixture, it is estimated from one draw per example.

    Args:
        vae: the model.
        x: data [N, *D], or {"x": ..., "condition": ...}.
        seed: integer, for the draws.

    Raises:
        ValueError: if the posterior is not normal, or the prior is no mixture of normal
            distributions: then the rate is not a sum over latents that this could read off.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> rate_per_latent(vae, [[0.0]]).round(3)
        array([0.216])
    """
    x = vae.data.arrays(x, in_support=False)
    _check_normal(vae, "rate_per_latent")
    parts = []
    for start, batch in batches(x, _CHUNK):
        q = vae.encode(batch)
        z = q.sample(1, seed=batch_seed(seed, start))
        parts.append(marginal_rates(_components(vae), z, q.mean(), q.stddev()).numpy())
    return np.concatenate(parts).mean(axis=0, dtype=np.float64)


def _components(vae: VAE) -> Components:
    components = vae.prior.components()
    if components is None:
        raise ValueError(
            "The rate of a single latent needs a prior that is normal or a mixture of normal "
            f"distributions; got {type(vae.prior).__name__}. `elbo` has the rate of all of them."
        )
    return components


def _check_normal(vae: VAE, needed_by: str) -> None:
    q = vae.encode(vae.data.zeros())
    if not tfp.is_normal(q):
        raise ValueError(
            f"{needed_by} compares normal posteriors by their means and scales (DiagonalNormal, "
            f"IsotropicNormal, FullCovarianceNormal); this one is {q.name}. `elbo` and "
            "`log_marginal` measure it."
        )


def _verdict(
    latents: int, active: int, rate: float, mutual: float, count: int, collapsed: bool
) -> str:
    if collapsed:
        word = "Collapsed"
    elif active < latents:
        word = f"Partly collapsed, {counted(latents - active, 'latent')} unused"
    else:
        word = "Not collapsed"
    cap, shared = math.log(count), max(mutual, 0.0)  # the estimate of a small one may be negative
    at_cap = "at least " if mutual > 0.9 * cap else ""
    return (
        f"{word}: {active} of {latents} latents are active (variance of the posterior mean above "
        f"{ACTIVE}), the rate is {rate:.3g} nats and x and z share {at_cap}{shared:.3g} nats of "
        f"at most {cap:.3g} that {counted(count, 'example')} can show."
    )


def _pass(vae: VAE, num_samples: int) -> Callable[..., dict[str, tf.Tensor]]:
    """Makes a function from a batch and a seed to the numbers needed of each example."""

    def terms(x: Any, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        inference = vae.infer(x)
        q = only_posterior(vae, inference, x)
        z = tf.identity(q.sample(num_samples, seed=seed))
        trace = inference.at({"z": z})
        distortion, rate = elbo_terms(trace)
        loc, scale = (statistic(q, name, "diagnose") for name in ("mean", "stddev"))
        out = {
            "distortion": distortion,
            "rate": rate,
            "rate_per_latent": marginal_rates(_components(vae), z, loc, scale),
            "loc": loc,
            "factor": q.scale.to_dense() if isinstance(q, FullNormal) else scale,
            "z": z[0],
            "log_posterior": q.log_prob(z[0]),
            "log_prior": trace.latents["z"].p.log_prob(z[0]),
        }
        if _is_calibrated(vae):
            value, p = trace.observations["x"].value, trace.observations["x"].p
            residual = (value - p.mean()) / p.stddev()
            inside = tf.abs(2.0 * p.distribution.cdf(value) - 1.0)
            axes = [0, *range(2, residual.shape.rank)]
            out["residual"] = tf.reduce_mean(residual, axis=axes)
            out["residual_square"] = tf.reduce_mean(residual**2, axis=axes)
            for level in _LEVELS:
                covered = tf.cast(inside <= level, z.dtype)
                out[f"coverage_{level}"] = tf.reduce_mean(covered, axis=axes)
        return out

    return terms


def _log_aggregate(found: dict[str, np.ndarray], memory: int) -> np.ndarray:
    """Computes the log-density of 1/N sum_n q(z | x_n) at one draw per example, [N].

    The square of the whitened distance is expanded, so all pairs are matrix products.
    """
    z, loc, factor = (found[name].astype(np.float64) for name in ("z", "loc", "factor"))
    count, latents = z.shape
    centre = loc.mean(axis=0)
    z, loc = z - centre, loc - centre
    if factor.ndim == 2:
        precision = 1.0 / factor**2
        log_det = np.log(factor).sum(axis=1)
        square, linear = precision, precision * loc
    else:
        inverse = np.linalg.inv(factor)
        matrices = np.einsum("nij,nik->njk", inverse, inverse)
        log_det = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        linear = np.einsum("njk,nk->nj", matrices, loc)
        square = matrices.reshape(count, -1)
    constant = -0.5 * (linear * loc).sum(axis=1) - log_det
    constant -= 0.5 * latents * math.log(2.0 * math.pi) + math.log(count)
    log_q = np.empty(count)
    chunk = max(1, memory // (32 * count))
    for start in range(0, count, chunk):
        part = z[start : start + chunk]
        if factor.ndim == 2:
            quadratic = part**2 @ square.T
        else:
            quadratic = np.einsum("mi,mj->mij", part, part).reshape(len(part), -1) @ square.T
        log_each = -0.5 * quadratic + part @ linear.T + constant
        top = log_each.max(axis=1)
        log_q[start : start + chunk] = top + np.log(np.exp(log_each - top[:, None]).sum(axis=1))
    return log_q


def _sensitivity(vae: VAE, x: Any, loc: np.ndarray, size: int) -> np.ndarray:
    shifts = _STEP * np.eye(vae.latent_size)

    def squares(batch: Any, centre: tf.Tensor) -> tf.Tensor:
        inference = vae.infer(batch)

        def of_one(shift: tf.Tensor) -> tf.Tensor:
            trace = inference.at({"z": tf.stack([centre + shift, centre - shift])})
            return reduce(add, (_slope(each.p.mean()) for each in trace.observations.values()))

        rows = tf.map_fn(of_one, tf.constant(shifts, centre.dtype), parallel_iterations=1)
        return tf.transpose(rows)

    graph = compiled(squares, spec_of(x), tf.TensorSpec([None, vae.latent_size], loc.dtype))
    parts = [
        graph(batch, tf.constant(loc[start : start + size])).numpy()
        for start, batch in batches(x, size)
    ]
    return np.sqrt(np.concatenate(parts).mean(axis=0, dtype=np.float64))


def _slope(means: tf.Tensor) -> tf.Tensor:
    """Computes the squared slope of decoder means at two shifted points, [2, B, *D], as [B]."""
    slope = (means[0] - means[1]) / (2.0 * _STEP)
    return tf.reduce_sum(slope**2, axis=list(range(1, slope.shape.rank)))


def _is_calibrated(vae: VAE) -> bool:
    """Tells whether the spread of the likelihood is compared with the data: of a complete x."""
    part = vae.likelihood.by_part().get("x")
    return part is not None and part.has_cdf and not part.missing


def _calibration(found: dict[str, np.ndarray]) -> Calibration | None:
    if "residual" not in found:
        return None
    mean = float(found["residual"].mean(dtype=np.float64))
    square = float(found["residual_square"].mean(dtype=np.float64))
    return Calibration(
        residual_mean=mean,
        residual_deviation=math.sqrt(max(square - mean**2, 0.0)),
        coverage={
            level: float(found[f"coverage_{level}"].mean(dtype=np.float64)) for level in _LEVELS
        },
    )
