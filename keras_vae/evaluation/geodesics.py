"""Interpolation in latent space along the shortest curves in data space."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.optimize import minimize

from keras_vae.distributions.likelihoods import Normal
from keras_vae.model import VAE

__all__ = ["Geodesics", "geodesics"]

Slope = Callable[..., tuple[float, np.ndarray, float]]

_STEPS = 1000
_TINY = 1e-12


@dataclass(frozen=True)
class Geodesics:
    """Curves in latent space, and how long they are where the decoder maps them.

    Attributes:
        z: points of each curve, ends included, [B, P, L].
        length: length of each curve in the space of the decoder's means, in units of the model's
            data, [B].
        line_length: the same of the straight line between the ends, [B].

    Example:
        >>> found = Geodesics(np.zeros([1, 5, 2]), np.array([3.0]), np.array([4.0]))
        >>> f"{1 - (found.length / found.line_length)[0]:.0%} shorter"
        '25% shorter'
    """

    z: np.ndarray
    length: np.ndarray
    line_length: np.ndarray


def geodesics(
    vae: VAE, start: Any, end: Any, *, num_points: int = 20, condition: Any = None
) -> Geodesics:
    """Finds the shortest curves between latents, as the decoder's metric measures them.

    A curve z(t) has the energy int |d/dt g(z(t))|^2 dt with g(z) the mean of p(x | z), joined by
    its standard deviation if the likelihood is `Normal(scale="decoder")`. The curve of least energy
    is a geodesic under the metric that the decoder pulls back, run through at constant speed. Here
    it is a polygon of `num_points` points, and the sum of the squared steps of g is minimised by
    L-BFGS from the straight line. It is a local minimum: another curve may be shorter.

    Args:
        vae: a model with one vector of continuous latents and one part x.
        start: latents at one end, [B, L].
        end: latents at the other end, [B, L].
        num_points: points P of each curve, at least 3.
        condition: conditions [B, *C] of a conditional model, the same along each curve.

    Raises:
        ValueError: if the latents are codes or form levels, the model has named parts, a shape is
            wrong, or the decoder's mean is not a number.

    Source:
        Arvanitidis, Hansen, Hauberg (2018), Latent space oddity, arXiv:1710.11379.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.VAE(  # a linear decoder, so curves are straight
        ...     prior=keras_vae.StandardNormal(2),
        ...     likelihood=keras_vae.Normal(3),
        ...     posterior=keras_vae.DiagonalNormal(2),
        ... )
        >>> found = geodesics(vae, [[0.0, 0.0]], [[1.0, 2.0]], num_points=3)
        >>> found.z.shape, np.round(found.z[0, 1], 3).tolist()
        ((1, 3, 2), [0.5, 1.0])
    """
    if not isinstance(vae, VAE) or vae.posterior.is_discrete:
        raise ValueError(
            "geodesics needs a keras_vae.VAE with one vector of continuous latents; got "
            f"{type(vae).__name__}, whose latents are codes or form levels."
        )
    if len(vae.likelihood.by_part()) > 1:
        raise ValueError(
            "geodesics measures distances in the units of one x; this model has the parts "
            f"{', '.join(vae.likelihood.by_part())}."
        )
    if num_points < 3:
        raise ValueError(f"num_points must be at least 3; got {num_points}.")
    ends = [np.asarray(z, np.float64) for z in (start, end)]
    if ends[0].shape != ends[1].shape or ends[0].shape[1:] != (vae.latent_size,):
        raise ValueError(
            f"start and end must both have shape [B, {vae.latent_size}]; got {list(ends[0].shape)} "
            f"and {list(ends[1].shape)}."
        )
    tolerance = max(float(np.finfo(vae.float_dtype).eps), 1e-14)
    given = None if condition is None else np.repeat(np.asarray(condition), num_points, axis=0)
    slope = _slope(_features(vae), (num_points, vae.latent_size))
    curves = []
    for row, (a, b) in enumerate(zip(*ends, strict=True)):
        own = None if given is None else given[row * num_points : (row + 1) * num_points]
        along = functools.partial(slope, condition=own)
        curves.append(_shortest(along, a, b, num_points, tolerance))
    z, length, line_length = (np.asarray(values) for values in zip(*curves, strict=True))
    return Geodesics(z.astype(np.float32), length, line_length)


def _features(vae: VAE) -> Callable[..., tf.Tensor]:
    """Makes the function g of latents [P, L] and conditions [P, *C]: [P, D] or [P, 2 D]."""
    with_scale = isinstance(vae.likelihood, Normal) and vae.likelihood.scale == "decoder"

    def features(z: tf.Tensor, condition: Any) -> tf.Tensor:
        p = vae.decode(tf.cast(z, vae.float_dtype), condition)
        values = [p.mean(), p.stddev()] if with_scale else [p.mean()]
        return tf.concat([tf.reshape(value, [z.shape[0], -1]) for value in values], axis=1)

    return features


def _slope(features: Callable[..., tf.Tensor], shape: tuple[int, int]) -> Slope:
    """Makes a function of a polygon [P, L]: its energy, the gradient of that, and its length."""

    @tf.function(autograph=False)
    def graph(z: tf.Tensor, condition: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(z)
            values = tf.cast(features(tf.ensure_shape(z, shape), condition), tf.float64)
            squares = tf.reduce_sum((values[1:] - values[:-1]) ** 2, axis=1)
            energy = tf.reduce_sum(squares)
        return energy, tape.gradient(energy, z), tf.reduce_sum(tf.sqrt(squares))

    def slope(z: np.ndarray, condition: Any = None) -> tuple[float, np.ndarray, float]:
        given = None if condition is None else tf.constant(condition)
        energy, gradient, length = (part.numpy() for part in graph(tf.constant(z), given))
        return float(energy), gradient, float(length)

    return slope


def _shortest(
    slope: Slope, start: np.ndarray, end: np.ndarray, count: int, tolerance: float = 1e-14
) -> tuple[np.ndarray, float, float]:
    """Returns the polygon of least energy, its length, and the length of the straight line."""
    weights = np.linspace(0.0, 1.0, count)[:, None]
    line = (1.0 - weights) * start + weights * end
    # With a constant Jacobian J the Hessian is T x J'J, T tridiagonal. In this basis T is 1.
    second = 2.0 * np.eye(count - 2) - np.eye(count - 2, k=1) - np.eye(count - 2, k=-1)
    roots, vectors = np.linalg.eigh(second)
    basis = vectors / np.sqrt(roots)

    def curve(moved: np.ndarray) -> np.ndarray:
        z = line.copy()
        z[1:-1] += basis @ moved.reshape(count - 2, -1)
        return z

    first, _, line_length = slope(line)
    if not np.isfinite(first):
        raise ValueError(
            "The mean of p(x | z) is not a finite number between these latents, so distances "
            "between them are unknown. Choose latents nearer to those of the data."
        )
    unit = max(first, _TINY)

    def objective(moved: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient, _ = slope(curve(moved))
        return energy / unit, (basis.T @ gradient[1:-1]).ravel() / unit

    options = {"maxiter": _STEPS, "ftol": tolerance, "gtol": 1e-10, "maxcor": 20}
    found = minimize(
        objective, np.zeros(line[1:-1].size), jac=True, method="L-BFGS-B", options=options
    )
    z = curve(found.x)
    return z, slope(z)[2], line_length
