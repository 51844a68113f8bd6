"""Quadrature of p(x, z) over 1 to 3 latents, on a grid laid over the posterior of each example."""

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.distributions.tfp import has_moments, tfd
from keras_vae.evaluation._batches import batches, compiled, rows_in, spec_of
from keras_vae.evaluation._draws import (
    FlatLatents,
    draw_noise,
    prior_draws,
    size_of,
    trace_of,
)
from keras_vae.evaluation._progress import Progress
from keras_vae.model import VAE
from keras_vae.spelling import counted

__all__ = ["Integral", "integrate"]

_MOST_LATENTS = 3
_MOST_POINTS = 2**21
_TOLERANCE = 1e-6
_EXAMPLES = 64
_DRAWS = 1024
_PRIOR_DRAWS = 4096
_MOST_ROUNDS = 60
_RADIUS = 6.0
_OVERVIEW = {1: 4096, 2: 128, 3: 32}
"""Points along each axis of the wide grid, which finds probability outside of the fine one."""
_FAR = math.asinh(60.0)
_MOST_MOVES = 3

LogJoint = Callable[[Any, np.ndarray], np.ndarray]


class Integral(NamedTuple):
    """Log-integral of each example.

    Attributes:
        value: log of the integral, [N], in nats.
        error: change under the last refinement, or the mass outside of the grid if that is more,
            [N].
        points: points along each axis of the finest grid.
    """

    value: np.ndarray
    error: np.ndarray
    points: int


def integrate(
    vae: VAE, x: Any, points: int, seed: int, memory: int, progress: Progress
) -> Integral:
    """Computes log p(x) = log sum_u p(x, m + A u) h^L det A by the trapezoid rule.

    Centre m and factor A, with A A' the covariance, are those of the posterior. A sequence of
    normal
    distributions fitted to weighted draws finds them: it goes from the mixture of prior and q to
    the posterior, in steps that keep a twentieth of the draws effective. The grid covers 6 standard
    deviations at first; each refinement doubles the points and widens the grid by a half, so its
    step shrinks to three quarters, until the value moves by less than 1e-6 or the grid would have
    2^21 points. The rule converges geometrically, since p(x, z) is smooth and vanishes at the
    boundary.

    Refinements of a grid that misses a mode agree with each other. So a wide grid of 4096, 128^2 or
    32^3 points, denser towards the middle, covers 60 prior standard deviations. If it finds more
    mass than the fine grid holds, the fine grid moves there and is refined again. The mass that
    remains outside is added to the value and is its error. A mode narrower than the step of the
    wide grid, 0.002, 0.07 or 0.3 prior standard deviations in the middle, may be missed.
    Source of the fitted sequence: Cappe, Guillin, Marin and Robert (2004), Population
    Monte Carlo; of the rule: Trefethen and Weideman (2014), The exponentially convergent
    trapezoidal rule.

    Args:
        vae: the model.
        x: checked data.
        points: points along each axis of the first grid.
        seed: seed of the draws that find the posterior.
        memory: memory to use, in bytes.
        progress: counts examples.

    Raises:
        ValueError: if there are more than 3 latents or fewer than 4 points.

    Warns:
        UserWarning: if the finest grid disagrees with the one before, or much mass lies outside.
    """
    if not isinstance(vae, VAE) or vae.prior.is_conditional:
        raise ValueError(
            "Quadrature lays a grid over one latent vector whose prior depends on nothing. "
            "Choose method='importance' or 'annealed'."
        )
    if vae.posterior.on_sphere:
        raise ValueError(
            "Quadrature lays a grid over all vectors, and the latents of "
            f"{type(vae.posterior).__name__} have length 1. Choose method='importance'."
        )
    if vae.latent_size > _MOST_LATENTS:
        raise ValueError(
            f"Quadrature is for 1 to {_MOST_LATENTS} latents, but this model has "
            f"{vae.latent_size}: a grid of 50 points along each axis would have "
            f"{50.0**vae.latent_size:.0e}. Choose method='importance' or 'annealed'."
        )
    if points < 4:
        raise ValueError(f"Quadrature needs at least 4 points along each axis; got {points}.")

    def joint(batch: Any, z: tf.Tensor) -> tf.Tensor:
        return flat.at(vae.infer(batch), z).log_joint()

    seed = random.as_seed(seed)
    dtype = vae.float_dtype
    flat = FlatLatents(trace_of(vae, vae.data.zeros(), 1, tf.constant([0, 0])))
    graph = compiled(joint, spec_of(x), tf.TensorSpec([None, None, vae.latent_size], dtype))

    def log_joint(batch: Any, z: np.ndarray) -> np.ndarray:
        return graph(batch, tf.cast(z, dtype)).numpy().astype(np.float64)

    rows = rows_in(memory, vae)
    overview = _Overview(vae, rows)
    results = []
    finest = points
    for start, batch in batches(x, min(_EXAMPLES, rows), progress):
        rng = np.random.default_rng([seed % 2**32, start])
        seen = overview.log_joint(batch, log_joint)
        loc, factor = _locate(vae, batch, log_joint, rng)
        value, error, radius, used = _refine(batch, log_joint, loc, factor, points, rows, dtype)
        for _ in range(_MOST_MOVES):
            outside = overview.outside(seen, loc, factor, radius)
            moved = np.flatnonzero(outside > value)
            if not len(moved):
                break
            part = keras.tree.map_structure(lambda whole, keep=moved: tf.gather(whole, keep), batch)
            peak, width = overview.largest_outside(seen, loc, factor, radius)
            at = _fitted(part, log_joint, peak[moved], width[moved], rng)
            *found, used_there = _refine(part, log_joint, *at, points, rows, dtype)
            better = found[0] > value[moved]
            for kept, new in zip((loc, factor, value, error, radius), (*at, *found), strict=True):
                kept[moved[better]] = new[better]
            used = max(used, used_there)
        outside = overview.outside(seen, loc, factor, radius)
        whole = np.logaddexp(value, outside)
        finest = max(finest, used)
        results.append((whole, np.maximum(error, whole - value)))
    value, error = (np.concatenate(parts) for parts in zip(*results, strict=True))
    doubtful = error > 100 * _tolerance(value, dtype)
    if doubtful.any():
        warnings.warn(
            f"Quadrature is not reliable for {int(doubtful.sum())} of "
            f"{counted(len(value), 'example')}: the last refinement, or the mass outside of the "
            f"grid, moves the value by up to {error.max():.1e} nats.",
            stacklevel=4,
        )
    return Integral(value, error, finest)


def _tolerance(value: np.ndarray, dtype: str) -> np.ndarray:
    return np.maximum(_TOLERANCE, 4.0 * np.finfo(dtype).eps * np.abs(value))


def _locate(
    vae: VAE, batch: Any, log_joint: LogJoint, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Finds centre [B, L] and Cholesky factor of the covariance [B, L, L] of the posterior."""
    seeds = tf.constant(rng.integers(2**31, size=[2, 2]), tf.int32)
    half, inference = _DRAWS // 2, vae.infer(batch)
    noise = draw_noise(vae, seeds[0], [half], size_of(batch))
    trace = inference.trace(noise)
    flat = FlatLatents(trace)
    drawn = flat.joined({name: latent.draw.value for name, latent in trace.latents.items()})
    others = flat.joined(prior_draws(vae, batch, trace, [half], size_of(batch), seeds[1]))
    z = tf.concat([drawn, others], axis=0)
    at_both = flat.at(inference, z)
    log_mixture = np.logaddexp(at_both.log_posterior(), at_both.log_prior()) - math.log(2.0)
    loc, factor, _ = _moments(z.numpy().astype(np.float64), log_joint(batch, z) - log_mixture)
    return _fitted(batch, log_joint, loc, factor, rng)


def _fitted(
    batch: Any,
    log_joint: LogJoint,
    loc: np.ndarray,
    factor: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Fits normal distributions to the posterior in turn, beginning with the given ones."""
    done = np.zeros(len(loc), bool)
    for _ in range(_MOST_ROUNDS):
        noise = rng.standard_normal([_DRAWS, *loc.shape])
        z = loc + math.sqrt(2.0) * np.einsum("blm,sbm->sbl", factor, noise)
        log_q = -0.5 * (noise**2).sum(-1)
        was_done = done
        loc, factor, done = _moments(z, log_joint(batch, z) - log_q)
        if (done & was_done).all():
            break
    return loc, factor


def _moments(z: np.ndarray, log_w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes mean, covariance factor and whether the full weights were used, by example.

    Weights w^b, with the largest b <= 1 that leaves a twentieth of the draws effective.
    """
    log_w = log_w - log_w.max(axis=0)
    low, high = np.zeros(log_w.shape[1]), np.ones(log_w.shape[1])
    done = _effective(log_w) >= len(z) / 20
    for _ in range(40):
        middle = 0.5 * (low + high)
        enough = _effective(middle * log_w) >= len(z) / 20
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    w = np.exp(np.where(done, 1.0, low) * log_w)
    w /= w.sum(axis=0)
    loc = np.einsum("sb,sbl->bl", w, z)
    shifted = z - loc
    covariance = np.einsum("sb,sbl,sbm->blm", w, shifted, shifted)
    scale = np.trace(covariance, axis1=1, axis2=2)[:, None, None]
    covariance = covariance + 1e-9 * scale * np.eye(z.shape[-1])
    return loc, np.linalg.cholesky(covariance), done


def _moments_of(prior: tfd.Distribution) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation, of draws if they have no closed form: a grid is wide."""
    if has_moments(prior):
        return np.asarray(prior.mean(), np.float64), np.asarray(prior.stddev(), np.float64)
    draws = np.asarray(prior.sample(_PRIOR_DRAWS, seed=(0, 0)), np.float64)
    return draws.mean(axis=0), draws.std(axis=0)


class _Overview:
    """A wide grid over the latents, with log p(x, z) at its points and the mass outside a box."""

    def __init__(self, vae: VAE, rows: int) -> None:
        prior = vae.prior.distribution()
        u, step = np.linspace(-_FAR, _FAR, _OVERVIEW[vae.latent_size], retstep=True)
        centre, scale = _moments_of(prior)
        axes = np.meshgrid(*[u] * vae.latent_size, indexing="ij")
        at = np.stack([axis.ravel() for axis in axes], axis=-1)
        self.z = centre + scale * np.sinh(at)
        self.steps = scale * np.cosh(at) * step
        self.log_volume = np.log(self.steps).sum(axis=-1)
        self.is_conditional = vae.condition_shape is not None
        self.rows = rows

    def log_joint(self, batch: Any, log_joint: LogJoint) -> np.ndarray:
        """Computes log p(x, z) at the points, [G, B]; the decoder runs once for all examples."""
        count = len(keras.tree.flatten(batch)[0])
        chunk = max(1, self.rows // count)
        parts = []
        for start in range(0, len(self.z), chunk):
            z = self.z[start : start + chunk, np.newaxis]
            parts.append(log_joint(batch, np.repeat(z, count, 1) if self.is_conditional else z))
        return np.concatenate(parts)

    def _masses(
        self, seen: np.ndarray, loc: np.ndarray, factor: np.ndarray, radius: np.ndarray
    ) -> np.ndarray:
        """Computes the log-mass of each point, [G, B]; minus infinity inside of the box."""
        inverse = np.linalg.inv(factor)
        far = np.zeros(seen.shape)
        for axis in range(loc.shape[1]):
            along = self.z @ inverse[:, axis].T - (inverse[:, axis] * loc).sum(axis=-1)
            np.maximum(far, np.abs(along), out=far)
        masses = seen + self.log_volume[:, np.newaxis]
        return np.where((far > radius) & np.isfinite(masses), masses, -np.inf)

    def outside(
        self, seen: np.ndarray, loc: np.ndarray, factor: np.ndarray, radius: np.ndarray
    ) -> np.ndarray:
        """Computes the log-integral outside of each example's box, [B]."""
        return np.logaddexp.reduce(self._masses(seen, loc, factor, radius), axis=0)

    def largest_outside(
        self, seen: np.ndarray, loc: np.ndarray, factor: np.ndarray, radius: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds where most of the outer mass is, [B, L], and a factor of the steps, [B, L, L]."""
        best = self._masses(seen, loc, factor, radius).argmax(axis=0)
        return self.z[best], self.steps[best][..., np.newaxis] * np.eye(loc.shape[1])


def _effective(log_w: np.ndarray) -> np.ndarray:
    w = np.exp(log_w)
    return w.sum(axis=0) ** 2 / (w**2).sum(axis=0)


def _refine(
    batch: Any,
    log_joint: LogJoint,
    loc: np.ndarray,
    factor: np.ndarray,
    points: int,
    rows: int,
    dtype: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Refines the grid as often as needed; returns value, error, radius [B] and the points used."""
    count, latents = loc.shape
    value, error = np.full(count, np.nan), np.full(count, np.inf)
    radii = np.full(count, _RADIUS)
    open_rows, radius, used = np.arange(count), _RADIUS, points
    while len(open_rows):
        used = points
        part = keras.tree.map_structure(lambda whole, keep=open_rows: tf.gather(whole, keep), batch)
        found = _trapezoid(part, log_joint, loc[open_rows], factor[open_rows], points, radius, rows)
        change = np.abs(found - value[open_rows])
        value[open_rows], error[open_rows] = found, np.where(np.isnan(change), np.inf, change)
        radii[open_rows] = radius
        open_rows = open_rows[~(change < _tolerance(found, dtype))]
        points, radius = 2 * points, 1.5 * radius
        if points**latents > _MOST_POINTS:
            break
    return value, error, radii, used


def _trapezoid(
    batch: Any,
    log_joint: LogJoint,
    loc: np.ndarray,
    factor: np.ndarray,
    points: int,
    radius: float,
    rows: int,
) -> np.ndarray:
    count, latents = loc.shape
    axis, step = np.linspace(-radius, radius, points, retstep=True)
    total = np.full(count, -np.inf)
    chunk = max(1, rows // count)
    for first in range(0, points**latents, chunk):
        flat = np.arange(first, min(first + chunk, points**latents))
        grid = axis[np.stack(np.unravel_index(flat, (points,) * latents), axis=-1)]
        z = loc + np.einsum("blm,sm->sbl", factor, grid)
        total = np.logaddexp(total, np.logaddexp.reduce(log_joint(batch, z), axis=0))
    log_det = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
    return total + latents * math.log(step) + log_det
