"""Linear-Gaussian model: a latent variable model whose distributions are known exactly."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.frames import numbers
from keras_vae.distributions import (
    DiagonalNormal,
    FullCovarianceNormal,
    Normal,
    inverse_positive,
)
from keras_vae.distributions.priors import StandardNormal
from keras_vae.distributions.tfp import tfd
from keras_vae.model import VAE

__all__ = ["LinearGaussian"]


class LinearGaussian:
    """Probabilistic PCA: z ~ N(0, I_L), x | z ~ N(W z + b, scale^2 I_D).

    Evidence p(x) = N(b, W W' + scale^2 I). Posterior p(z | x) = N(inv(M) W'(x - b), scale^2 inv(M))
    with M = W'W + scale^2 I. The best diagonal posterior has the same centre and variances
    scale^2 / M_ii, and its distance from log p(x) is 1/2 (sum log M_ii - log det M). Source:
    Tipping and Bishop (1999), Probabilistic principal component analysis.

    Args:
        weights: W, [D, L].
        bias: b, [D].
        scale: standard deviation of the noise, positive.
        dtype: "float64" or "float32".

    Raises:
        ValueError: if the shapes disagree or `scale` is not positive.

    Example:
        >>> model = LinearGaussian([[1.0]], [0.0], math.sqrt(0.5))
        >>> float(model.log_prob([[1.0]])[0])
        -1.455004...
    """

    def __init__(self, weights: Any, bias: Any, scale: float, dtype: str = "float64") -> None:
        self.weights = np.asarray(weights, dtype)
        self.bias = np.asarray(bias, dtype)
        self.scale = float(scale)
        self.dtype = dtype
        if self.weights.ndim != 2 or self.bias.shape != self.weights.shape[:1]:
            raise ValueError(
                f"Expected weights [D, L] and bias [D]; got {self.weights.shape} and "
                f"{self.bias.shape}."
            )
        if not 0.0 < self.scale < math.inf:
            raise ValueError(f"Expected a positive finite scale; got {scale!r}.")

    @classmethod
    def fit(cls, x: Any, latent_size: int, dtype: str = "float64") -> "LinearGaussian":
        """Fits the maximum likelihood model of the data [N, D], by an eigendecomposition.

        Args:
            x: data [N, ...], flattened to [N, D].
            latent_size: L, less than D.
            dtype: dtype of the model.

        Raises:
            DataError: if the data is not an array of numbers.
            ValueError: if L is not in 1 .. D-1, or the remaining variance is zero.
        """
        x = numbers(x, "x").astype(np.float64).reshape(len(x), -1)
        size = x.shape[1]
        if not 1 <= latent_size < size:
            raise ValueError(f"Expected latent_size from 1 to {size - 1}; got {latent_size}.")
        bias = x.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(x.T, bias=True).reshape(size, size))
        noise = values[:-latent_size].mean()
        if not noise > 0.0:
            raise ValueError(
                f"The data lies in {latent_size} dimensions: no variance is left for the noise. "
                "Choose fewer latents."
            )
        top = slice(None, -latent_size - 1, -1)
        weights = vectors[:, top] * np.sqrt(values[top] - noise)
        return cls(weights, bias, math.sqrt(noise), dtype)

    @classmethod
    def from_vae(cls, vae: VAE) -> "LinearGaussian":
        """Reads the model from a VAE whose decoder is one affine layer.

        Raises:
            ValueError: if the VAE is not linear-Gaussian: prior StandardNormal, likelihood Normal
                with one scale, no decoder network, the default head.
        """
        likelihood = vae.likelihood
        linear = (
            isinstance(vae.prior, StandardNormal)
            and isinstance(likelihood, Normal)
            and likelihood.scale not in ("decoder", "per_feature")
            and likelihood.network is None
            and type(likelihood.head) is keras.layers.Dense
            and likelihood.head.activation is keras.activations.linear
            and vae.condition_shape is None
        )
        if not linear:
            raise ValueError(
                "Exact values exist only for the linear-Gaussian model: prior StandardNormal, "
                "likelihood Normal with one scale and network=None. For this model choose "
                "method='importance'."
            )
        kernel, *bias = likelihood.head.get_weights()
        bias = bias[0] if bias else np.zeros(kernel.shape[1])
        return cls(kernel.T, bias, float(likelihood.shared_parameters()["scale"]))

    @property
    def latent_size(self) -> int:
        """Number L of latents."""
        return self.weights.shape[1]

    def marginal(self) -> tfd.Distribution:
        """Returns the evidence p(x), event shape [D]."""
        size = len(self.bias)
        covariance = self.weights @ self.weights.T + self.scale**2 * np.eye(size, dtype=self.dtype)
        return tfd.MultivariateNormalTriL(self.bias, np.linalg.cholesky(covariance))

    def log_prob(self, x: Any) -> tf.Tensor:
        """Computes the log-evidence log p(x) in nats, [N], at x [N, D]."""
        return self.marginal().log_prob(self._flat(x))

    def posterior(self, x: Any) -> tfd.Distribution:
        """Returns the posterior p(z | x), batch shape [N], event shape [L]."""
        factor = self.scale * np.linalg.cholesky(np.linalg.inv(self._precision()))
        return tfd.MultivariateNormalTriL(self._centre(x), factor)

    def best_diagonal_posterior(self, x: Any) -> tfd.Distribution:
        """Returns the diagonal q(z | x) closest to the posterior in KL(q || p), batch shape [N]."""
        return tfd.MultivariateNormalDiag(self._centre(x), self._diagonal_scale())

    def gap(self) -> float:
        """Computes log p(x) - ELBO(x) of the best diagonal posterior, in nats, for any x."""
        precision = self._precision()
        return 0.5 * float(
            np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision).logabsdet
        )

    def elbo(self, x: Any, loc: Any, covariance: Any) -> tf.Tensor:
        """Computes the ELBO in nats, [N], of posteriors q = N(loc, covariance) in closed form.

        Args:
            x: data [N, D].
            loc: centres [N, L].
            covariance: [L, L] or [N, L, L].
        """
        covariance = np.asarray(covariance, self.dtype)
        loc = np.asarray(loc, self.dtype)
        size, variance = len(self.bias), self.scale**2
        residual = self._flat(x) - loc @ self.weights.T - self.bias
        spread = np.einsum("dl,...lm,dm->...", self.weights, covariance, self.weights)
        distortion = 0.5 * ((residual**2).sum(-1) + spread) / variance
        distortion = distortion + 0.5 * size * math.log(2.0 * math.pi * variance)
        trace = np.trace(covariance, axis1=-2, axis2=-1)
        log_det = np.linalg.slogdet(covariance).logabsdet
        rate = 0.5 * (trace + (loc**2).sum(-1) - self.latent_size - log_det)
        return tf.convert_to_tensor(-(distortion + rate))

    def vae(self, *, full_covariance: bool = False) -> VAE:
        """Makes a VAE of this model whose encoder is the exact or the best diagonal posterior.

        Args:
            full_covariance: whether to use a FullCovarianceNormal posterior, which is exact,
                instead of a DiagonalNormal one.
        """
        size, latents = self.weights.shape
        policy: dict[str, Any] = {"dtype": self.dtype}
        kind = FullCovarianceNormal if full_covariance else DiagonalNormal
        model = VAE(
            prior=StandardNormal(latents, **policy),
            likelihood=Normal(size, scale=self.scale, **policy),
            posterior=kind(latents, **policy),
            **policy,
        )
        model.likelihood.head.set_weights([self.weights.T, self.bias])
        inverse = np.linalg.inv(self._precision())
        to_centre = self.weights @ inverse
        if full_covariance:
            factor = self.scale * np.linalg.cholesky(inverse)
            below = [factor[row, :row] for row in range(latents)]
            raw = np.concatenate([inverse_positive(np.diag(factor)), *below])
        else:
            raw = inverse_positive(self._diagonal_scale())
        kernel = np.concatenate([to_centre, np.zeros((size, len(raw)))], axis=1)
        model.posterior.head.set_weights([kernel, np.concatenate([-self.bias @ to_centre, raw])])
        return model

    def _precision(self) -> np.ndarray:
        return self.weights.T @ self.weights + self.scale**2 * np.eye(self.latent_size)

    def _diagonal_scale(self) -> np.ndarray:
        return self.scale / np.sqrt(np.diag(self._precision()))

    def _centre(self, x: Any) -> np.ndarray:
        return np.linalg.solve(self._precision(), self.weights.T @ (self._flat(x) - self.bias).T).T

    def _flat(self, x: Any) -> np.ndarray:
        return numbers(x, "x").astype(self.dtype).reshape(len(x), -1)
