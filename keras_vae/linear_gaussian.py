"""Linear-Gaussian model: a latent variable model whose distributions are known exactly."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, overload

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.frames import numbers, refuse_infinite
from keras_vae.data.holes import alike, column_means
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

_AT_ONCE = 2**24  # numbers of the matrices of a chunk of rows
_LEAST_NOISE = 1e-12  # of the variance
_NO_NOISE = (
    "The data lies in {} dimensions: no variance is left for the noise. Choose fewer latents."
)


class _Known(NamedTuple):
    """Moments given the observed entries of some rows.

    Attributes:
        rows: indices of the rows, [n].
        which: index of the set of observed entries of each row, [n].
        loc: E[z | x_O], [n, L].
        covariance: Cov[z | x_O] for each set, [P, L, L].
        log_prob: log p(x_O), [n].
    """

    rows: np.ndarray
    which: np.ndarray
    loc: np.ndarray
    covariance: np.ndarray
    log_prob: np.ndarray


class LinearGaussian:
    """Probabilistic PCA: z ~ N(0, I_L), x | z ~ N(W z + b, scale^2 I_D).

    Evidence p(x) = N(b, W W' + scale^2 I). Posterior p(z | x) = N(inv(M) W'(x - b), scale^2 inv(M))
    with M = W'W + scale^2 I. The best diagonal posterior has the same centre and variances
    scale^2 / M_ii, and its distance from log p(x) is 1/2 (sum log M_ii - log det M). Source:
    Tipping and Bishop (1999), Probabilistic principal component analysis.

    An absent entry of x is NaN, missing in a data frame or masked, and is integrated out. For a row
    with the observed entries O every quantity is that of the model with the rows W_O and b_O: each
    row has its own M = W_O' W_O + scale^2 I, and its best diagonal posterior is not exact even if
    the columns of W are orthogonal.

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
        self.dtype = dtype
        self.weights = self._finite("weights", weights)
        self.bias = self._finite("bias", bias)
        self.scale = float(scale)
        if self.weights.ndim != 2 or self.bias.shape != self.weights.shape[:1]:
            raise ValueError(
                f"Expected weights [D, L] and bias [D]; got {self.weights.shape} and "
                f"{self.bias.shape}."
            )
        if not 0.0 < self.scale < math.inf:
            raise ValueError(f"Expected a positive finite scale; got {scale!r}.")

    @classmethod
    def fit(
        cls,
        x: Any,
        latent_size: int,
        dtype: str = "float64",
        *,
        iterations: int = 2000,
        tolerance: float = 1e-6,
    ) -> "LinearGaussian":
        """Fits the maximum likelihood model of the data [N, D].

        Complete data has a closed form, by an eigendecomposition. With absent entries the
        likelihood of the observed ones is climbed by expectation maximisation from the model of the
        data whose holes hold the column means. Each step also frees the mean and the covariance of
        z and puts them back into W and b, which saves many steps (Liu, Rubin and Wu 1998, Parameter
        expansion to accelerate EM). It climbs to a local maximum, and stops short of it by what the
        tolerance allows.

        Args:
            x: data [N, ...], flattened to [N, D]; absent entries are NaN.
            latent_size: L, less than D.
            dtype: dtype of the model.
            iterations: largest number of steps, if entries are absent.
            tolerance: the steps end when one adds less than this to the mean of log p(x_O), in
                nats.

        Raises:
            DataError: if the data is not an array of numbers, or a column has no observed entry.
            ValueError: if L is not in 1 .. D-1, or the remaining variance is zero.
        """
        x = numbers(x, "x", missing=True).astype(np.float64).reshape(len(x), -1)
        size = x.shape[1]
        if not 1 <= latent_size < size:
            raise ValueError(f"Expected latent_size from 1 to {size - 1}; got {latent_size}.")
        observed = ~np.isnan(x)
        if not observed.all():
            means = column_means(x)
            start = cls.fit(np.where(observed, x, means), latent_size)
            return start._climb(x[observed.any(axis=1)], iterations, tolerance, dtype)
        bias = x.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(x.T, bias=True).reshape(size, size))
        noise = values[:-latent_size].mean()
        if not noise > 0.0:
            raise ValueError(_NO_NOISE.format(latent_size))
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
        """Computes the log-evidence log p(x) in nats, [N], at x [N, D].

        Of a row with absent entries it is log p(x_O), and 0 if none is observed.
        """
        x, observed = self._read(x)
        if observed.all():
            return self.marginal().log_prob(x)
        log_prob = np.empty(len(x))
        for known in self._known(x, observed):
            log_prob[known.rows] = known.log_prob
        return tf.constant(log_prob, self.dtype)

    def posterior(self, x: Any) -> tfd.Distribution:
        """Returns the posterior p(z | x), batch shape [N], event shape [L]."""
        x, observed = self._read(x)
        inverse = np.linalg.inv(self._precision(observed))
        factor = self.scale * np.linalg.cholesky(inverse)
        return tfd.MultivariateNormalTriL(self._centre(x, observed), factor)

    def best_diagonal_posterior(self, x: Any) -> tfd.Distribution:
        """Returns the diagonal q(z | x) closest to the posterior in KL(q || p), batch shape [N]."""
        x, observed = self._read(x)
        scale = self._diagonal_scale(observed)
        return tfd.MultivariateNormalDiag(self._centre(x, observed), scale)

    @overload
    def gap(self, x: None = None) -> float: ...

    @overload
    def gap(self, x: Any) -> np.ndarray: ...

    def gap(self, x: Any = None) -> float | np.ndarray:
        """Computes log p(x) - ELBO(x) of the best diagonal posterior, in nats.

        Args:
            x: data [N, D]; None for the gap of any complete x.

        Returns:
            One number for None, otherwise the gap of each row, [N]; absent entries change it.
        """
        precision = self._precision(None if x is None else self._read(x)[1])
        diagonal = np.diagonal(precision, axis1=-2, axis2=-1)
        gap = 0.5 * (np.log(diagonal).sum(axis=-1) - np.linalg.slogdet(precision).logabsdet)
        return float(gap) if x is None else np.broadcast_to(gap, len(x))

    def elbo(self, x: Any, loc: Any, covariance: Any) -> tf.Tensor:
        """Computes the ELBO in nats, [N], of posteriors q = N(loc, covariance) in closed form.

        Args:
            x: data [N, D]; absent entries are NaN.
            loc: centres [N, L].
            covariance: [L, L] or [N, L, L].

        Raises:
            DataError: if a number is infinite, or NaN in an argument other than x.
        """
        covariance = self._finite("covariance", covariance)
        loc = self._finite("loc", loc)
        variance = self.scale**2
        x, observed = self._read(x)
        residual = x - loc @ self.weights.T - self.bias
        if observed.all():
            size: Any = len(self.bias)
            spread = np.einsum("dl,...lm,dm->...", self.weights, covariance, self.weights)
        else:
            size, residual = observed.sum(axis=1), np.where(observed, residual, 0.0)
            of_entries = np.einsum("dl,...lm,dm->...d", self.weights, covariance, self.weights)
            spread = (of_entries * observed).sum(axis=-1)
        distortion = 0.5 * ((residual**2).sum(-1) + spread) / variance
        distortion = distortion + 0.5 * size * math.log(2.0 * math.pi * variance)
        trace = np.trace(covariance, axis1=-2, axis2=-1)
        log_det = np.linalg.slogdet(covariance).logabsdet
        rate = 0.5 * (trace + (loc**2).sum(-1) - self.latent_size - log_det)
        return tf.convert_to_tensor(-(distortion + rate))

    def impute(self, x: Any) -> np.ndarray:
        """Returns x [N, D] with E[x_d | x_O] = W_d E[z | x_O] + b_d in place of absent entries."""
        x, observed = self._read(x)
        mean = self._centre(x, observed) @ self.weights.T + self.bias
        return np.where(observed, x, mean)

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

    def _precision(self, observed: np.ndarray | None = None) -> np.ndarray:
        """Computes M, [L, L], or [N, L, L] of rows of which some entries [N, D] are observed."""
        if observed is None or observed.all():
            return self.weights.T @ self.weights + self.scale**2 * np.eye(self.latent_size)
        return self._precisions(observed)

    def _precisions(self, observed: np.ndarray) -> np.ndarray:
        weights = self.weights.astype(np.float64, copy=False)
        products = (weights[:, :, None] * weights[:, None, :]).reshape(len(weights), -1)
        precisions = (observed @ products).reshape(-1, self.latent_size, self.latent_size)
        return precisions + self.scale**2 * np.eye(self.latent_size)

    def _diagonal_scale(self, observed: np.ndarray | None = None) -> np.ndarray:
        diagonal = np.diagonal(self._precision(observed), axis1=-2, axis2=-1)
        return self.scale / np.sqrt(diagonal)

    def _centre(self, x: np.ndarray, observed: np.ndarray) -> np.ndarray:
        if observed.all():
            return np.linalg.solve(self._precision(), self.weights.T @ (x - self.bias).T).T
        centre = np.empty([len(x), self.latent_size])
        for known in self._known(x, observed):
            centre[known.rows] = known.loc
        return centre

    def _known(self, x: np.ndarray, observed: np.ndarray) -> Iterator[_Known]:
        """Yields what the observed entries say, for all rows, in chunks."""
        variance = self.scale**2
        for some in alike(observed, max(1, _AT_ONCE // self.latent_size**2)):
            precision = self._precisions(some.observed)
            inverse = np.linalg.inv(precision)
            residual = np.where(observed[some.rows], x[some.rows] - self.bias, 0.0)
            projected = residual @ self.weights
            loc = (inverse[some.which] @ projected[:, :, None])[:, :, 0]
            counts = some.observed.sum(axis=1)
            log_det = np.linalg.slogdet(precision).logabsdet
            log_det = counts * math.log(2.0 * math.pi * variance) + (
                log_det - self.latent_size * math.log(variance)
            )
            square = ((residual**2).sum(axis=1) - (projected * loc).sum(axis=1)) / variance
            log_prob = -0.5 * (np.where(counts > 0, log_det, 0.0)[some.which] + square)
            yield _Known(some.rows, some.which, loc, variance * inverse, log_prob)

    def _climb(
        self, x: np.ndarray, iterations: int, tolerance: float, dtype: str
    ) -> "LinearGaussian":
        """Climbs the likelihood of the observed entries of x from this model."""
        observed = ~np.isnan(x)
        middle = column_means(x)
        x = x - middle
        model, before = LinearGaussian(self.weights, self.bias - middle, self.scale), -math.inf
        for _ in range(iterations):
            better, log_prob = model._step(x, observed)
            if log_prob - before < tolerance:
                break
            model, before = better, log_prob
        axes, lengths, _ = np.linalg.svd(model.weights, full_matrices=False)
        return LinearGaussian(axes * lengths, model.bias + middle, model.scale, dtype)

    def _step(self, x: np.ndarray, observed: np.ndarray) -> tuple["LinearGaussian", float]:
        """Returns the model after a step of expectation maximisation, and mean log p(x_O) here."""
        size, latents = self.weights.shape
        ends = latents + 1
        filled = np.where(observed, x, 0.0)
        seconds, products = np.zeros([size, ends, ends]), np.zeros([size, ends])
        mean, second, log_prob = np.zeros(latents), np.zeros([latents, latents]), 0.0
        for known in self._known(x, observed):
            rows, loc = known.rows, known.loc
            moments = np.empty([len(rows), ends, ends])
            moments[:, :-1, :-1] = known.covariance[known.which] + loc[:, :, None] * loc[:, None]
            moments[:, :-1, -1] = moments[:, -1, :-1] = loc
            moments[:, -1, -1] = 1.0
            seconds += np.reshape(
                observed[rows].T.astype(np.float64) @ moments.reshape(len(rows), -1), seconds.shape
            )
            products += filled[rows].T @ moments[:, :, -1]
            mean += loc.sum(axis=0)
            second += moments[:, :-1, :-1].sum(axis=0)
            log_prob += known.log_prob.sum()
        solved = np.linalg.solve(seconds, products[:, :, None])[:, :, 0]
        noise = ((filled**2).sum() - (solved * products).sum()) / observed.sum()
        if not noise > _LEAST_NOISE * (filled**2).sum() / observed.sum():
            raise ValueError(_NO_NOISE.format(latents))
        weights, bias = solved[:, :-1], solved[:, -1]
        mean, second = mean / len(x), second / len(x)
        factor = np.linalg.cholesky(second - np.outer(mean, mean))
        better = LinearGaussian(weights @ factor, bias + weights @ mean, math.sqrt(noise))
        return better, log_prob / len(x)

    def _read(self, x: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns x [N, D] in the model's dtype, and which entries are observed."""
        x = numbers(x, "x", missing=True).astype(self.dtype).reshape(len(x), -1)
        refuse_infinite(x, "x", missing=True)
        return x, ~np.isnan(x)

    def _finite(self, name: str, value: Any) -> np.ndarray:
        """Returns finite numbers in the model's dtype."""
        array = numbers(value, name).astype(self.dtype)
        refuse_infinite(array, name)
        return array
