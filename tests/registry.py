"""Registry of every public layer, prior, objective and schedule, for the tests they all pass."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import mpmath
import numpy as np
import pytest
from scipy import special, stats

import keras_vae
from keras_vae import ELBO, IWAE, callbacks, random
from keras_vae.distributions import tfp
from keras_vae.random.inversion.gammas import BETA_UNIFORMS, GAMMA_UNIFORMS, STUDENT_UNIFORMS

EVENT, LATENTS, WIDTH = (2, 3), 3, 4


def likelihood(cls, **options):
    return lambda event=EVENT, **kwargs: cls(event, **{**options, **kwargs})


def latent(cls, **options):
    return lambda latents=LATENTS, **kwargs: cls(latents, **{**options, **kwargs})


LIMITS = {"low": -1.0, "high": 2.0}

LIKELIHOODS = {
    "bernoulli": likelihood(keras_vae.Bernoulli),
    "continuous_bernoulli": likelihood(keras_vae.ContinuousBernoulli),
    "normal": likelihood(keras_vae.Normal),
    "normal_fixed": likelihood(keras_vae.Normal, scale=0.3),
    "normal_learned": likelihood(keras_vae.Normal, scale="learned"),
    "normal_per_feature": likelihood(keras_vae.Normal, scale="per_feature"),
    "normal_decoder": likelihood(keras_vae.Normal, scale="decoder"),
    "normal_optimal": likelihood(keras_vae.Normal, scale="optimal"),
    "laplace_decoder": likelihood(keras_vae.Laplace, scale="decoder"),
    "laplace_optimal": likelihood(keras_vae.Laplace, scale="optimal"),
    "discretized_logistic": likelihood(keras_vae.DiscretizedLogistic, levels=5),
    "discretized_logistic_learned": likelihood(
        keras_vae.DiscretizedLogistic, levels=5, scale="learned"
    ),
    "binomial": likelihood(keras_vae.Binomial, total_count=5),
    "multinomial": likelihood(keras_vae.Multinomial, total_count=4),
    "ordinal": likelihood(keras_vae.Ordinal, levels=4),
    "mixture_of_logistics": likelihood(keras_vae.MixtureOfLogistics, levels=5, num_logistics=3),
    "categorical": likelihood(keras_vae.Categorical),
    "poisson": likelihood(keras_vae.Poisson),
    "negative_binomial": likelihood(keras_vae.NegativeBinomial),
    "negative_binomial_fixed": likelihood(keras_vae.NegativeBinomial, dispersion=2.5),
    "negative_binomial_learned": likelihood(keras_vae.NegativeBinomial, dispersion="learned"),
    "negative_binomial_decoder": likelihood(keras_vae.NegativeBinomial, dispersion="decoder"),
    "zero_inflated_poisson": likelihood(keras_vae.ZeroInflatedPoisson),
    "zero_inflated_negative_binomial": likelihood(keras_vae.ZeroInflatedNegativeBinomial),
    "beta_binomial": likelihood(keras_vae.BetaBinomial, total_count=5),
    "beta_binomial_decoder": likelihood(
        keras_vae.BetaBinomial, total_count=5, concentration="decoder"
    ),
    "student_t": likelihood(keras_vae.StudentT, df="decoder", scale="decoder"),
    "gamma": likelihood(keras_vae.Gamma),
    "log_normal": likelihood(keras_vae.LogNormal, scale="learned"),
    "beta": likelihood(keras_vae.Beta, concentration="decoder"),
    "truncated_normal": likelihood(keras_vae.TruncatedNormal, **LIMITS),
    "censored_normal": likelihood(keras_vae.CensoredNormal, scale="decoder", **LIMITS),
}

OPTIONS = {
    "binomial": {"total_count": 3},
    "beta_binomial": {"total_count": 3},
    "truncated_normal": LIMITS,
    "censored_normal": LIMITS,
    "multinomial": {"total_count": 6},
    "ordinal": {"levels": 4},
}
"""Arguments that `mlp_vae` needs for a likelihood, by its name."""

LARGEST = {keras_vae.Poisson: 80.0, keras_vae.ZeroInflatedPoisson: 80.0, keras_vae.Gamma: 80.0}
"""Largest raw parameter whose distribution float32 can hold, where that is below 1e4."""


def log_continuous_bernoulli(logits):
    def logpdf(x):
        # log of logits / tanh(logits / 2) is the normaliser that the cross entropy lacks.
        return np.log(logits / np.tanh(logits / 2)) + x * logits - np.logaddexp(0.0, logits)

    return logpdf


def log_discretized_logistic(loc, scale):
    distribution = stats.logistic(loc, scale)

    def logpmf(x):
        low, high = np.where(x < 0.5, -np.inf, x - 0.5), np.where(x > 3.5, np.inf, x + 0.5)
        below, above = (each(high) - each(low) for each in (distribution.cdf, distribution.sf))
        return np.log(np.where(x > loc, -above, below))  # the smaller tail keeps its digits

    return logpmf


def log_negative_binomial(log_mean, dispersion):
    return stats.nbinom(dispersion, dispersion / (dispersion + np.exp(log_mean))).logpmf


def zero_inflated(logpmf):
    def of(gate_logits, **parameters):
        log_open, own = -np.logaddexp(0.0, gate_logits), logpmf(**parameters)
        zero = np.logaddexp(-np.logaddexp(0.0, -gate_logits), log_open + own(0.0))
        return lambda x: np.where(x == 0.0, zero, log_open + own(x))

    return of


def log_poisson_at(log_rate):
    return stats.poisson(np.exp(log_rate)).logpmf


def log_beta_binomial(logits, concentration):
    p = special.expit(logits)
    return stats.betabinom(5, concentration * p, concentration * (1.0 - p)).logpmf


def log_truncated_normal(loc, scale):
    low, high = ((end - loc) / scale for end in LIMITS.values())
    return stats.truncnorm(low, high, loc, scale).logpdf


def log_censored_normal(loc, scale):
    low, high = LIMITS.values()
    entries = stats.norm(loc, scale)

    def log_prob(x):
        value = np.where(x <= low, entries.logcdf(low), entries.logpdf(x))
        return np.where(x >= high, entries.logsf(high), value)

    return log_prob


def log_multinomial(logits):
    def logpmf(x):
        shares = zip(special.softmax(logits, -1).reshape(-1, 3), x.reshape(-1, 3), strict=True)
        found = [stats.multinomial(4, p / p.sum()).logpmf(each) for p, each in shares]
        return np.reshape(found, (*x.shape[:-1], 1))

    return logpmf


def log_ordinal(location, thresholds):
    cumulative = special.expit(thresholds - location[..., None])
    ends = [np.zeros_like(cumulative[..., :1]), cumulative, np.ones_like(cumulative[..., :1])]
    probs = np.diff(np.concatenate(ends, axis=-1))

    def logpmf(x):
        levels = np.broadcast_to(x[..., None] == np.arange(probs.shape[-1]), (*x.shape, 4))
        return np.log((levels * probs).sum(-1))

    return logpmf


def log_mixture_of_logistics(logits, loc, scale):
    weights, own = special.log_softmax(logits, -1), log_discretized_logistic(loc, scale)
    return lambda x: special.logsumexp(weights + own(x[..., None]), axis=-1)


ORACLES = {
    keras_vae.Bernoulli: lambda logits: stats.bernoulli(special.expit(logits)).logpmf,
    keras_vae.ContinuousBernoulli: log_continuous_bernoulli,
    keras_vae.Normal: lambda loc, scale: stats.norm(loc, scale).logpdf,
    keras_vae.Laplace: lambda loc, scale: stats.laplace(loc, scale).logpdf,
    keras_vae.DiscretizedLogistic: log_discretized_logistic,
    keras_vae.Binomial: lambda logits: stats.binom(5, special.expit(logits)).logpmf,
    keras_vae.Categorical: lambda logits: lambda x: x * special.log_softmax(logits, -1),
    keras_vae.Poisson: log_poisson_at,
    keras_vae.NegativeBinomial: log_negative_binomial,
    keras_vae.ZeroInflatedPoisson: zero_inflated(log_poisson_at),
    keras_vae.ZeroInflatedNegativeBinomial: zero_inflated(log_negative_binomial),
    keras_vae.BetaBinomial: log_beta_binomial,
    keras_vae.StudentT: lambda loc, df, scale: stats.t(df, loc, scale).logpdf,
    keras_vae.Gamma: lambda log_mean, concentration: (
        stats.gamma(concentration, scale=np.exp(log_mean) / concentration).logpdf
    ),
    keras_vae.LogNormal: lambda loc, scale: stats.lognorm(scale, scale=np.exp(loc)).logpdf,
    keras_vae.Beta: lambda logits, concentration: (
        stats.beta(
            concentration * special.expit(logits), concentration * special.expit(-logits)
        ).logpdf
    ),
    keras_vae.TruncatedNormal: log_truncated_normal,
    keras_vae.CensoredNormal: log_censored_normal,
    keras_vae.Multinomial: log_multinomial,
    keras_vae.Ordinal: log_ordinal,
    keras_vae.MixtureOfLogistics: log_mixture_of_logistics,
}
"""Log-probability of independent entries by the parameters, of an implementation not ours."""

ATOMS = {
    keras_vae.Bernoulli: np.arange(2.0)[:, None],
    keras_vae.DiscretizedLogistic: np.arange(5.0)[:, None],
    keras_vae.Binomial: np.arange(6.0)[:, None],
    keras_vae.Categorical: np.eye(3),
    keras_vae.Poisson: np.arange(200.0)[:, None],
    keras_vae.NegativeBinomial: np.arange(2000.0)[:, None],
    keras_vae.ZeroInflatedPoisson: np.arange(200.0)[:, None],
    keras_vae.ZeroInflatedNegativeBinomial: np.arange(2000.0)[:, None],
    keras_vae.BetaBinomial: np.arange(6.0)[:, None],
    keras_vae.Multinomial: np.array([[i, j, 4.0 - i - j] for i in range(5) for j in range(5 - i)]),
    keras_vae.Ordinal: np.arange(4.0)[:, None],
    keras_vae.MixtureOfLogistics: np.arange(5.0)[:, None],
}
"""All events of one entry, or so many that the others have no weight."""


POSTERIORS = {
    "diagonal": latent(keras_vae.DiagonalNormal),
    "isotropic": latent(keras_vae.IsotropicNormal),
    "full": latent(keras_vae.FullCovarianceNormal),
}
PRIORS = {
    "standard_normal": latent(keras_vae.StandardNormal),
    "normal_mixture": latent(keras_vae.NormalMixture, num_components=4),
    "vamp": latent(keras_vae.VampPrior, num_components=4),
}
OBJECTIVES = {
    "elbo": ELBO,
    "elbo_analytic": lambda: ELBO(kl="analytic", num_samples=2),
    "elbo_monte_carlo": lambda: ELBO(kl="monte_carlo"),
    "elbo_sticking": lambda: ELBO(gradient="sticking_the_landing"),
    "elbo_beta": lambda: ELBO(beta=0.5),
    "elbo_free_bits": lambda: ELBO(free_bits=0.1),
    "elbo_capacity": lambda: ELBO(capacity=2.0),
    "iwae": lambda: IWAE(3),
    "iwae_doubly": lambda: IWAE(3, gradient="doubly_reparameterized"),
}
SCHEDULES = {
    "linear": lambda: callbacks.LinearSchedule("beta", start=0.1, stop=2.0, epochs=3),
    "linear_down": lambda: callbacks.LinearSchedule("beta", start=2.0, stop=0.5, epochs=0.5),
    "cyclical": lambda: callbacks.CyclicalSchedule("beta", stop=2.0, cycle_epochs=2, cycles=3),
}


class Inversion(NamedTuple):
    """A draw by inversion, its parameters, and the distribution it should have.

    `uniforms` is the size of the last axis of its uniforms, 0 if there is no such axis.
    """

    draw: Callable
    parameters: tuple[float | list[float], ...]
    exact: Any
    is_discrete: bool
    uniforms: int = 0


def continuous_bernoulli_cdf(logits: float) -> Callable:
    if logits == 0:
        return lambda x: np.clip(x, 0, 1)
    return lambda x: special.expm1(logits * np.clip(x, 0, 1)) / special.expm1(logits)


def continuous_bernoulli_draws(logits: float) -> Inversion:
    cdf = continuous_bernoulli_cdf(logits)
    return Inversion(random.continuous_bernoulli, (logits,), cdf, False)


def categorical_draws(*weights: float) -> Inversion:
    with np.errstate(divide="ignore"):
        logits = np.log(np.array(weights)).tolist()
    probs = np.array(weights) / sum(weights)
    distribution = stats.rv_discrete(values=(np.arange(len(probs)), probs))
    return Inversion(random.categorical, (logits,), distribution, True)


def as_float32(value: float) -> float:
    return float(np.float32(value))


def negative_binomial_draws(mean: float, dispersion: float) -> Inversion:
    m, t = as_float32(mean), as_float32(dispersion)
    exact = stats.nbinom(t, t / (t + m))
    return Inversion(random.negative_binomial, (mean, dispersion), exact, True)


class InflatedZeros:
    """Counts of a distribution of SciPy, with excess zeros."""

    def __init__(self, gate_logits: float, counts: Any) -> None:
        self._gate, self._counts = special.expit(as_float32(gate_logits)), counts

    def cdf(self, x):
        return np.where(np.asarray(x) < 0, 0.0, self._gate + (1 - self._gate) * self._counts.cdf(x))

    def pmf(self, x):
        return self._gate * (np.asarray(x) == 0) + (1 - self._gate) * self._counts.pmf(x)

    def ppf(self, q):
        return self._counts.ppf(np.clip((q - self._gate) / (1 - self._gate), 0.0, 1.0)).clip(0.0)


def zero_inflated_draws(gate_logits: float, mean: float, dispersion: float | None) -> Inversion:
    if dispersion is None:
        exact = InflatedZeros(gate_logits, stats.poisson(as_float32(mean)))
        return Inversion(random.zero_inflated_poisson, (gate_logits, mean), exact, True)
    exact = InflatedZeros(gate_logits, negative_binomial_draws(mean, dispersion).exact)
    parameters = gate_logits, mean, dispersion
    return Inversion(random.zero_inflated_negative_binomial, parameters, exact, True)


def levels_draws(draw: Callable, probs: np.ndarray, *parameters: Any) -> Inversion:
    exact = stats.rv_discrete(values=(np.arange(len(probs)), probs))
    return Inversion(draw, parameters, exact, True)


def ordinal_draws(location: float, *thresholds: float) -> Inversion:
    probs = np.diff(special.expit([-np.inf, *(np.array(thresholds) - location), np.inf]))
    return levels_draws(random.ordinal, probs, location, list(thresholds))


def mixture_draws(logits: list[float], loc: list[float], scale: list[float]) -> Inversion:
    edges = (np.arange(255.0)[:, None] + 0.5 - loc) / scale
    cdf = special.expit(edges) @ special.softmax(logits)
    probs = np.diff(np.concatenate([[0.0], cdf, [1.0]]))
    return levels_draws(random.mixture_of_logistics, probs, logits, loc, scale)


def beta_binomial_draws(n: float, a: float, b: float) -> Inversion:
    exact = stats.betabinom(int(n), as_float32(a), as_float32(b))
    return Inversion(random.beta_binomial, (n, a, b), exact, True)


def gamma_draws(concentration: float) -> Inversion:
    k = as_float32(concentration)
    exact = stats.gamma(k, scale=1 / k).cdf
    return Inversion(random.gamma, (concentration,), exact, False, GAMMA_UNIFORMS)


def beta_draws(a: float, b: float) -> Inversion:
    exact = stats.beta(as_float32(a), as_float32(b)).cdf
    return Inversion(random.beta, (a, b), exact, False, BETA_UNIFORMS)


def student_draws(df: float) -> Inversion:
    return Inversion(random.student_t, (df,), stats.t(df).cdf, False, STUDENT_UNIFORMS)


def truncated_normal(loc: float, scale: float, low: float, high: float) -> Any:
    ends = (as_float32(low) - loc) / scale, (as_float32(high) - loc) / scale
    return stats.truncnorm(*ends, loc, scale)


def truncated_draws(*parameters: float) -> Inversion:
    exact = truncated_normal(*map(as_float32, parameters)).cdf
    return Inversion(random.truncated_normal, parameters, exact, False)


def angle_draws(concentration: float) -> Inversion:
    """Draws in three dimensions, where cos a has a distribution function in closed form."""
    k = as_float32(concentration)

    def cdf(angle):
        return special.expm1(-2 * k * np.sin(angle / 2) ** 2) / np.expm1(-2 * k)

    return Inversion(random.polar_angle, (concentration,), cdf, False)


TRUNCATED = [
    *[(0.0, 1.0, -1.0, 2.0), (5.0, 1.0, -1.0, 2.0), (-3.0, 0.5, 0.0, 1.0), (100.0, 1.0, 0.0, 1.0)],
    *[(0.5, 1e4, 0.0, 1.0), (-1.0, 1e3, 0.0, 1.0), (0.4, 0.01, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0)],
    *[(0.0, 1.0, 0.0, math.inf), (-20.0, 1.0, 0.0, math.inf), (3.0, 2.0, -math.inf, 1.0)],
    *[(1000.0, 3.0, -2.0, 1.0)],
]
"""Centre, scale and limits: centres inside, near, outside and far away; narrow and wide."""


def multinomial(u: Any, total_count: Any, logits: Any) -> Any:
    """Draws the first of two counts."""
    return random.multinomial(u[..., None], total_count, logits)[..., 0]


INVERSIONS = {
    "bernoulli": Inversion(random.bernoulli, (-1.0,), stats.bernoulli(special.expit(-1)), True),
    "logistic": Inversion(random.logistic, (), "logistic", False),
    "laplace": Inversion(random.laplace, (), "laplace", False),
    "continuous_bernoulli, 0": continuous_bernoulli_draws(0.0),
    "continuous_bernoulli, 1e-4": continuous_bernoulli_draws(1e-4),
    "continuous_bernoulli, -0.2": continuous_bernoulli_draws(-0.2),
    "continuous_bernoulli, 3": continuous_bernoulli_draws(3.0),
    "continuous_bernoulli, -40": continuous_bernoulli_draws(-40.0),
    "categorical": categorical_draws(1.0, 2.0, 0.0, 4.0, 0.5),
    "categorical, ends": categorical_draws(0.0, 1.0, 0.0),
    "poisson, 0": Inversion(random.poisson, (0.0,), stats.poisson(0.0), True),
    "poisson, 0.3": Inversion(random.poisson, (0.3,), stats.poisson(as_float32(0.3)), True),
    "poisson, 7.9": Inversion(random.poisson, (7.9,), stats.poisson(as_float32(7.9)), True),
    "poisson, 8": Inversion(random.poisson, (8.0,), stats.poisson(8.0), True),
    "poisson, 250.5": Inversion(random.poisson, (250.5,), stats.poisson(250.5), True),
    "poisson, 1e4": Inversion(random.poisson, (1e4,), stats.poisson(1e4), True),
    "binomial, 0": Inversion(random.binomial, (12.0, 0.0), stats.binom(12, 0.0), True),
    "binomial, 1": Inversion(random.binomial, (12.0, 1.0), stats.binom(12, 1.0), True),
    "binomial, rare": Inversion(random.binomial, (1e5, 1e-5), stats.binom(100000, 1e-5), True),
    "binomial, 20": Inversion(random.binomial, (20.0, 0.75), stats.binom(20, 0.75), True),
    "binomial, 255": Inversion(
        random.binomial, (255.0, 0.9), stats.binom(255, as_float32(0.9)), True
    ),
    "binomial, 2000": Inversion(
        random.binomial, (2000.0, 0.3), stats.binom(2000, as_float32(0.3)), True
    ),
    **{
        f"negative_binomial, {mean:g} {dispersion:g}": negative_binomial_draws(mean, dispersion)
        for mean, dispersion in [
            *[(0.0, 1.0), (1e-3, 1e-3), (3.0, 0.5), (3.0, 1e8), (20.0, 1.5), (60.5, 40.0)],
            *[(1e3, 0.5), (3e5, 1e8)],
        ]
    },
    "multinomial, two categories": Inversion(
        multinomial, (20.0, [0.0, 1.5]), stats.binom(20, special.expit(-1.5)), True
    ),
    "ordinal": ordinal_draws(0.5, -2.0, 0.0, 0.1, 3.0),
    "ordinal, two levels": ordinal_draws(-1.0, 0.0),
    "mixture_of_logistics": mixture_draws([0.0, 1.0, -1.0], [20.0, 130.0, 300.0], [2.0, 30.0, 5.0]),
    "zero_inflated_poisson, -1": zero_inflated_draws(-1.0, 3.5, None),
    "zero_inflated_negative_binomial, 0": zero_inflated_draws(0.0, 20.0, 1.5),
    **{
        f"beta_binomial, {n:g} {a:g} {b:g}": beta_binomial_draws(n, a, b)
        for n, a, b in [
            *[(5.0, 1.0, 1.0), (12.0, 0.3, 0.2), (50.0, 1e-6, 2e-6), (255.0, 30.0, 10.0)],
            *[(2000.0, 1e7, 2e7), (1e4, 3.0, 7.0), (1e5, 1e-3, 1e4)],
        ]
    },
    **{f"gamma, {k:g}": gamma_draws(k) for k in (0.2, 1.0, 2.9, 3.0, 8.5, 1e3)},
    **{
        f"beta, {a:g} {b:g}": beta_draws(a, b)
        for a, b in [(0.5, 0.7), (1.0, 1.0), (2.0, 30.0), (1e4, 3e4)]
    },
    **{f"polar_angle, {k:g}": angle_draws(k) for k in (1e-3, 2.0, 1e4)},
    **{f"student_t, {df:g}": student_draws(df) for df in (0.5, 1.0, 4.0, 1e6)},
    **{
        f"truncated_normal, {' '.join(f'{p:g}' for p in parameters)}": truncated_draws(*parameters)
        for parameters in TRUNCATED
    },
}


def shapes_of_counts(rng: np.random.Generator, shape: tuple[int, int]) -> list[np.ndarray]:
    return [np.exp(rng.normal(size=shape)), 0.5 + np.exp(rng.normal(size=shape))]


CONVERTED: dict[str, Callable[[np.random.Generator, tuple[int, int]], list[np.ndarray]]] = {
    "bernoulli": lambda rng, shape: [4 * rng.normal(size=shape)],
    "logistic": lambda *_: [],
    "laplace": lambda *_: [],
    "continuous_bernoulli": lambda rng, shape: [4 * rng.normal(size=shape)],
    "categorical": lambda rng, shape: [3 * rng.normal(size=(*shape, 7))],
    "poisson": lambda rng, shape: [np.exp(2 * rng.normal(size=shape))],
    "binomial": lambda rng, shape: [
        rng.integers(0, 300, size=shape),
        rng.uniform(0, 1, size=shape),
    ],
    "negative_binomial": shapes_of_counts,
    "multinomial": lambda rng, shape: [
        rng.integers(0, 300, size=shape[:1]),
        rng.normal(size=(shape[0], 13)),
    ],
    "ordinal": lambda rng, shape: [
        rng.normal(size=shape),
        np.sort(2 * rng.normal(size=(*shape, 4)), axis=-1),
    ],
    "mixture_of_logistics": lambda rng, shape: [
        rng.normal(size=(*shape, 3)),
        rng.uniform(0, 255, size=(*shape, 3)),
        np.exp(rng.normal(size=(*shape, 3))),
    ],
    "zero_inflated_poisson": lambda rng, shape: [
        rng.normal(size=shape),
        np.exp(rng.normal(size=shape)),
    ],
    "zero_inflated_negative_binomial": lambda rng, shape: [
        rng.normal(size=shape),
        *shapes_of_counts(rng, shape),
    ],
    "beta_binomial": lambda rng, shape: [
        rng.integers(1, 300, size=shape),
        *shapes_of_counts(rng, shape),
    ],
    "gamma": lambda rng, shape: [np.exp(2 * rng.normal(size=shape))],
    "beta": lambda rng, shape: list(np.exp(2 * rng.normal(size=(2, *shape)))),
    "polar_angle": lambda rng, shape: [np.exp(2 * rng.normal(size=shape))],
    "student_t": lambda rng, shape: [3 + np.exp(2 * rng.normal(size=shape))],
    "truncated_normal": lambda rng, shape: [
        2 * rng.normal(size=shape),
        np.exp(2 * rng.normal(size=shape)),
        np.full(shape, -1.0),
        np.full(shape, 2.0),
    ],
}


def log_poisson(x, log_rate):
    return x * log_rate - mpmath.exp(log_rate) - mpmath.loggamma(x + 1)


def log_binomial(n):
    def log_prob(x, logits):
        choose = mpmath.loggamma(n + 1) - mpmath.loggamma(x + 1) - mpmath.loggamma(n - x + 1)
        return (
            choose
            - x * mpmath.log1p(mpmath.exp(-logits))
            - (n - x) * mpmath.log1p(mpmath.exp(logits))
        )

    return log_prob


def poisson_case(rate: float, spread: float, dtype: str) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    log_rate = (np.log(rate) + spread * rng.standard_normal(60)).astype(dtype)
    x = rng.poisson(np.minimum(rate, 1e9), 60).astype(dtype)
    d = x - np.exp(log_rate.astype(float))
    return lambda p: tfp.Poisson(log_rate=p), x, log_rate, d, log_poisson


def binomial_case(n: int, spread: float, dtype: str) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    logits = (spread * rng.standard_normal(60)).astype(dtype)
    p = special.expit(logits.astype(float))
    x = rng.binomial(n, p if spread < 10 else rng.random(60)).astype(dtype)
    total = np.asarray(n, dtype)
    return lambda p: tfp.Binomial(total, logits=p), x, logits, x - n * p, log_binomial(n)


def log_negative(x, log_mean, t):
    m = mpmath.exp(log_mean)
    choose = mpmath.loggamma(x + t) - mpmath.loggamma(t) - mpmath.loggamma(x + 1)
    return choose - t * mpmath.log1p(m / t) + x * (log_mean - mpmath.log(t + m))


def negative_binomial_case(mean: float, dispersion: float, dtype: str) -> tuple[Any, ...]:
    """Makes a case in the logarithm of the mean; its counts include 0 and one far out."""
    rng, t = np.random.default_rng(0), np.asarray(dispersion, dtype)
    log_mean = (np.log(mean) + 0.1 * rng.standard_normal(60)).astype(dtype)
    x = rng.poisson(rng.gamma(dispersion, mean / dispersion, 60)).astype(dtype)
    x[:2] = 0, min(20.0 * mean + 5.0, 1e6)
    m, exact_t = np.exp(log_mean.astype(float)), float(t)
    layer = keras_vae.NegativeBinomial(1, dtype=dtype)
    return (
        lambda p: layer.make_distribution(p, t).distribution,
        x,
        log_mean,
        (x - m) * (exact_t / (m + exact_t)),
        lambda x, log_mean: log_negative(x, log_mean, mpmath.mpf(exact_t)),
    )


def dispersion_case(mean: float, dispersion: float, dtype: str) -> tuple[Any, ...]:
    """Makes a case in the dispersion, by which it is also differentiated."""
    rng, log_mean = np.random.default_rng(0), np.asarray(np.log(mean), dtype)
    t = (dispersion * np.exp(0.1 * rng.standard_normal(60))).astype(dtype)
    x = rng.poisson(rng.gamma(t, mean / t)).astype(dtype)
    layer, exact = keras_vae.NegativeBinomial(1, dtype=dtype), mpmath.mpf(float(log_mean))

    def slope(x: float, t: float) -> float:
        m, x, t = mpmath.exp(exact), mpmath.mpf(x), mpmath.mpf(t)
        gain = mpmath.digamma(x + t) - mpmath.digamma(t) - mpmath.log1p(m / t)
        return float(gain + (m - x) / (m + t))

    return (
        lambda p: layer.make_distribution(log_mean, p).distribution,
        x,
        t,
        np.array([slope(*map(float, pair)) for pair in zip(x, t, strict=True)]),
        lambda x, t: log_negative(x, exact, t),
    )


def beta_binomial_case(n: int, concentration: float, dtype: str) -> tuple[Any, ...]:
    """Makes a case in the logits of the mean, with both ends of the support among the counts."""
    rng, s = np.random.default_rng(0), np.asarray(concentration, dtype)
    logits = (2.0 * rng.standard_normal(60)).astype(dtype)
    p = special.expit(logits.astype(float))
    x = rng.binomial(n, rng.beta(1.0 + concentration * p, 1.0 + concentration * (1.0 - p)))
    x[:2] = 0, n
    layer = keras_vae.BetaBinomial(1, total_count=n, dtype=dtype)
    s_exact = mpmath.mpf(float(s))

    def shapes(logits: Any) -> tuple[Any, Any]:
        odds = mpmath.exp(mpmath.mpf(logits))
        return s_exact * odds / (1 + odds), s_exact / (1 + odds)

    def log_prob(x: Any, logits: Any) -> Any:
        (a, b), gamma = shapes(logits), mpmath.loggamma
        choose = gamma(n + 1) - gamma(x + 1) - gamma(n - x + 1) + gamma(a + b) - gamma(n + a + b)
        return choose + gamma(x + a) - gamma(a) + gamma(n - x + b) - gamma(b)

    def slope(x: float, logits: float) -> float:
        (a, b), digamma = shapes(logits), mpmath.digamma
        gain = digamma(x + a) - digamma(a) - digamma(n - x + b) + digamma(b)
        return float(gain * a * b / s_exact)

    with mpmath.workdps(40):
        slopes = [slope(*map(float, pair)) for pair in zip(x, logits, strict=True)]
    return (
        lambda p: layer.make_distribution(p, s).distribution,
        x.astype(dtype),
        logits,
        np.array(slopes),
        log_prob,
    )


COUNTS = {
    **{
        f"poisson {rate:g} {spread}": (poisson_case, rate, spread)
        for rate, spread in [(0.1, 1), (7, 0.1), (100, 0.1), (1e4, 0.01), (1e6, 0.001), (1e3, 6)]
    },
    **{
        f"binomial {n} {spread}": (binomial_case, n, spread)
        for n, spread in [(5, 1), (255, 2), (65_535, 1), (1_000_000, 6), (65_535, 30)]
    },
    **{
        f"negative_binomial {mean:g} {dispersion:g}": (negative_binomial_case, mean, dispersion)
        for mean in (1e-3, 3.0, 1e4, 1e6)
        for dispersion in (1e-3, 0.7, 7.9, 1e3, 1e8)
    },
    **{
        f"beta_binomial {n} {concentration:g}": (beta_binomial_case, n, concentration)
        for n, concentration in [
            *[(5, 0.1), (255, 2.0), (1000, 1e3), (65_535, 50.0), (20, 1e8)],
            *[(1_000_000, 1e6), (1_000_000, 0.1)],
        ]
    },
    **{
        f"dispersion {mean:g} {dispersion:g}": (dispersion_case, mean, dispersion)
        for mean in (3.0, 1e3)
        for dispersion in (0.1, 7.9, 1e6)
    },
}

EXPORTED = {
    ("bernoulli", "diagonal", "standard_normal"): lambda **k: keras_vae.mlp_vae(
        (28, 28, 1), 16, **k
    ),
    ("continuous_bernoulli", "isotropic", "normal_mixture"): lambda **k: keras_vae.mlp_vae(
        (28, 28, 1), 8, num_components=10, **k
    ),
    ("binomial", "full", "vamp"): lambda **k: keras_vae.mlp_vae(
        (28, 28, 1), 8, total_count=255, num_components=10, **k
    ),
    ("discretized_logistic", "isotropic", "standard_normal"): lambda **k: keras_vae.conv_vae(
        (28, 28, 1), 16, **k
    ),
    ("normal", "diagonal", "standard_normal"): lambda **k: keras_vae.conv_vae(
        (64, 64, 3), 32, scale="learned", **k
    ),
    ("laplace", "laplace", "laplace"): lambda **k: keras_vae.mlp_vae(
        20, 4, hidden=(16,), scale="per_feature", **k
    ),
    ("categorical", "student_t", "student_t"): lambda **k: keras_vae.mlp_vae(
        (20, 5), 4, hidden=(16,), **k
    ),
    ("poisson", "inverse_autoregressive", "autoregressive"): lambda **k: keras_vae.mlp_vae(
        20, 4, hidden=(16,), **k
    ),
    ("negative_binomial", "coupling", "flow"): lambda **k: keras_vae.mlp_vae(
        20, 4, hidden=(16,), dispersion="decoder", **k
    ),
    ("bernoulli", "normal_mixture", "standard_normal"): lambda **k: keras_vae.mlp_vae(
        20, 4, hidden=(16,), **k
    ),
    ("bernoulli", "von_mises_fisher", "uniform_sphere"): lambda **k: keras_vae.mlp_vae(
        20, 4, hidden=(16,), **k
    ),
}
"""Every posterior and prior, and likelihoods of many kinds, at sizes people have."""

PARTS = {
    "multinomial": lambda **k: keras_vae.Multinomial(4, total_count=50, **k),
    "ordinal": lambda **k: keras_vae.Ordinal(2, levels=5, **k),
    "mixture_of_logistics": lambda **k: keras_vae.MixtureOfLogistics(
        (2, 2, 3), levels=256, num_logistics=3, **k
    ),
    "zero_inflated_poisson": lambda **k: keras_vae.ZeroInflatedPoisson(2, **k),
    "zero_inflated_negative_binomial": lambda **k: keras_vae.ZeroInflatedNegativeBinomial(2, **k),
    "beta_binomial": lambda **k: keras_vae.BetaBinomial(2, total_count=30, **k),
    "student_t": lambda **k: keras_vae.StudentT(2, df="decoder", scale="decoder", **k),
    "gamma": lambda **k: keras_vae.Gamma(2, concentration="decoder", **k),
    "log_normal": lambda **k: keras_vae.LogNormal(2, **k),
    "beta": lambda **k: keras_vae.Beta(2, concentration="decoder", **k),
    "truncated_normal": lambda **k: keras_vae.TruncatedNormal(2, low=0.0, high=50.0, **k),
    "censored_normal": lambda **k: keras_vae.CensoredNormal(2, low=0.0, **k),
}
"""Every other likelihood, exported as a part that may be absent."""

CONDITIONALS = {**LIKELIHOODS, **POSTERIORS}

every = {
    "likelihood": pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS),
    "posterior": pytest.mark.parametrize("make", POSTERIORS.values(), ids=POSTERIORS),
    "prior": pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS),
    "objective": pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES),
    "schedule": pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES),
    "conditional": pytest.mark.parametrize("make", CONDITIONALS.values(), ids=CONDITIONALS),
}


def together(names):
    """Makes the maker of a likelihood whose parts are those of the names."""

    def make(network=None, dtype=None):
        parts = {name: LIKELIHOODS[name](dtype=dtype) for name in names}
        return keras_vae.Parts(parts, network=network, dtype=dtype)

    return make


MODELS = {
    "bernoulli": {"likelihood": LIKELIHOODS["bernoulli"]},
    **{f"parts {k}": {"likelihood": together([*LIKELIHOODS][k::4])} for k in range(4)},
    **{name: {"posterior": POSTERIORS[name]} for name in POSTERIORS if name != "diagonal"},
    **{name: {"prior": PRIORS[name]} for name in PRIORS if name != "standard_normal"},
    "vamp_full": {"prior": PRIORS["vamp"], "posterior": POSTERIORS["full"]},
}
"""VAEs that hold each distribution once: most take longer to make and to trace than to run."""

every_model = pytest.mark.parametrize("distributions", MODELS.values(), ids=MODELS)


def built(make, network=True, condition=WIDTH, **kwargs):
    """Builds the layer with a hidden layer, moved off its initial state, and conditions [6, 4]."""
    hidden = keras.layers.Dense(5, "tanh", dtype=kwargs.get("dtype")) if network else None
    layer = make(network=hidden, **kwargs)
    c = np.random.default_rng(0).normal(size=(6, condition)).astype(layer.float_dtype)
    layer.build(c.shape)
    rng = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign_add(0.5 * rng.normal(size=weight.shape))
    return layer, c


def vae_of(likelihood=None, posterior=None, prior=None, dtype=None):
    """Makes a VAE of the given distributions, and 16 examples of data from its support."""

    def dense(activation=None):
        return keras.layers.Dense(5, activation, dtype=dtype)

    observed = (likelihood or LIKELIHOODS["bernoulli"])(network=dense("tanh"), dtype=dtype)
    if isinstance(observed, keras_vae.Parts):
        encoder = keras_vae.PartsEncoder(dense("tanh"), complete=[*observed.parts], dtype=dtype)
    else:
        encoder = keras.Sequential([keras.layers.Flatten(dtype=dtype), dense("tanh")])
    vae = keras_vae.VAE(
        prior=(prior or PRIORS["standard_normal"])(dtype=dtype),
        likelihood=observed,
        posterior=(posterior or POSTERIORS["diagonal"])(network=encoder, dtype=dtype),
        dtype=dtype,
    )
    x = keras.tree.map_structure(
        lambda part: np.array(part, observed.float_dtype), vae.sample(16, seed=1)
    )
    return vae, x
