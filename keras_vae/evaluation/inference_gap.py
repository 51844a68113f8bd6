"""Inference gap log p(x) - ELBO(x): its size, and its split into approximation and amortisation."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.distributions import DiagonalNormal, FullCovarianceNormal, IsotropicNormal
from keras_vae.distributions.tfp import FullNormal, is_normal, tfd
from keras_vae.evaluation import annealed
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
from keras_vae.evaluation.marginal import Method, log_marginal
from keras_vae.evaluation.summary import log_mean_error
from keras_vae.linear_gaussian import LinearGaussian
from keras_vae.model import VAE
from keras_vae.trace import Inference

__all__ = ["BoundGap", "best_elbos", "bound_gap"]

Truth = Literal["auto", "exact", "quadrature", "annealed"]
Family = Literal["isotropic", "diagonal", "full"]

_BLOCKS = 8
_TAPES = 3


@dataclass(frozen=True)
class BoundGap:
    """The gap of each example and its parts, in nats.

    gap = approximation + amortisation. With the best full covariance instead of the best member of
    q's family, `approximation_full` remains.

    Attributes:
        elbo: ELBO of the encoder's q(z | x), [N].
        elbo_family: ELBO of the best member of q's family for each x, [N].
        elbo_full: ELBO of the best normal distribution with any covariance for each x, [N].
        lower, upper: bounds on log p(x), [N]; equal to `log_marginal` if it is exact. With
            annealed chains, the lower one is a bound in expectation. The upper one comes from
            chains run back from the ends of the forward ones, so it is a bound in expectation only
            to the extent that these ends are posterior draws.
        log_marginal: log p(x), or its estimate from below, [N].
        log_marginal_error: its standard error, [N].
        elbo_error: largest standard error of the three bounds, [N].
        method: how log p(x) was computed.
        family: family of q.

    Example:
        >>> bounds = np.array([[-3.4], [-3.2], [-3.1], [-3.0], [-3.0], [-3.0], [0.0], [0.0]])
        >>> found = BoundGap(*bounds, method="quadrature", family="diagonal")
        >>> found.gap, found.approximation, found.amortisation
        (array([0.4]), array([0.2]), array([0.2]))
    """

    elbo: np.ndarray
    elbo_family: np.ndarray
    elbo_full: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    log_marginal: np.ndarray
    log_marginal_error: np.ndarray
    elbo_error: np.ndarray
    method: Truth
    family: Family

    @property
    def gap(self) -> np.ndarray:
        """log p(x) - ELBO(x) = KL(q(z | x) || p(z | x)), [N]."""
        return self.log_marginal - self.elbo

    @property
    def gap_interval(self) -> tuple[np.ndarray, np.ndarray]:
        """The gap by the lower and by the upper bound on log p(x), [N] each.

        Annealed bounds are estimates: if they are closer than their noise, they may cross.
        """
        return self.lower - self.elbo, self.upper - self.elbo

    @property
    def approximation(self) -> np.ndarray:
        """Gap of the best member of q's family for each x, [N]."""
        return self.log_marginal - self.elbo_family

    @property
    def amortisation(self) -> np.ndarray:
        """Gap that remains because one encoder serves every x, [N]."""
        return self.elbo_family - self.elbo

    @property
    def approximation_full(self) -> np.ndarray:
        """Gap of the best normal distribution with any covariance for each x, [N]."""
        return self.log_marginal - self.elbo_full

    def __str__(self) -> str:
        low, high = sorted(float(np.mean(bound)) for bound in self.gap_interval)
        return (
            f"gap {np.mean(self.gap):.3f} nats, between {low:.3f} and {high:.3f} ({self.method}): "
            f"{np.mean(self.approximation):.3f} because q is {self.family} "
            f"({np.mean(self.approximation_full):.3f} with full covariance), "
            f"{np.mean(self.amortisation):.3f} because one encoder serves all"
        )


def bound_gap(
    vae: VAE,
    x: Any,
    *,
    method: Truth = "auto",
    steps: int = 500,
    num_samples: int = 128,
    num_chains: int = 16,
    temperatures: int = 500,
    seed: int = 0,
    memory: int = 256 * 2**20,
    progress: bool | None = None,
) -> BoundGap:
    """Measures the gap log p(x) - ELBO(x) of each example: approximation and amortisation.

    The best q of a family maximises the ELBO of one x without an encoder. Adam finds it from the
    encoder's q, with a learning rate that falls to zero, in coordinates scaled by q. Adam may stop
    short of the best, so approximation is an upper bound on its share and amortisation a lower
    bound. Expectations use noise in antithetic pairs, rotated and scaled to covariance I, so terms
    up to the third order in z are exact; of fourth-order terms, a share of 2 over the draws of a
    block is missing.

    The cost is 2 steps num_samples + 15 num_chains temperatures gradients of the decoder per
    example, 250 000 with the defaults and annealed chains: about 4 seconds of CPU time per example
    for a decoder 50-200-200-784. Take few examples, steps and temperatures for a first look.
    Source: Cremer, Li and Duvenaud (2018), Inference suboptimality in variational autoencoders,
    arXiv:1801.03558.

    Args:
        vae: a model whose posterior is isotropic, diagonal or full normal.
        x: data [N, *D], or {"x": ..., "condition": ...}.
        method: how log p(x) is computed: "exact", "quadrature", "annealed", or "auto", the first of
            these that the model allows.
        steps: number of Adam steps.
        num_samples: draws per step; final bounds use 8 blocks of 8 times as many.
        num_chains: annealed chains per example and direction.
        temperatures: number of temperatures of the annealed chains.
        seed: integer, for all draws.
        memory: approximate memory to use, in bytes.
        progress: whether to show the time left; None shows it in a terminal.

    Raises:
        DataError: if x lies outside the support of the likelihood.
        ValueError: if the posterior is of another kind or an argument is out of range.

    Example:
        >>> import keras_vae, numpy as np
        >>> vae = keras_vae.mlp_vae(5, 1, "normal", hidden=(8,))
        >>> x = np.random.default_rng(0).normal(size=(2, 5))
        >>> gap = bound_gap(vae, x, steps=10)
        >>> gap.method, gap.gap.shape
        ('quadrature', (2,))
    """
    refuse_other(vae, "bound_gap")
    family = _family_of(vae, "bound_gap")
    x = vae.data.arrays(x, in_support=True)
    if method not in ("auto", "exact", "quadrature", "annealed"):
        raise ValueError(
            "Invalid value for argument `method`. Expected 'auto', 'exact', 'quadrature' or "
            f"'annealed'. Received: method={method!r}"
        )
    steps = as_count("steps", steps, least=1)
    num_samples = as_count("num_samples", num_samples, least=2)
    if method == "auto":
        method = _cheapest(vae)
    settings = annealed.Settings(num_chains, temperatures)
    kinds: list[Family] = ["full"] if family == "full" else [family, "full"]
    work = float(count_of(x) * len(kinds) * steps * num_samples)
    if method == "annealed":
        work += 3 * settings.work(count_of(x))
    with Progress("bound_gap", work, progress) as done:
        elbos, error = _best_bounds(vae, x, kinds, steps, num_samples, seed, memory, done)
        if method == "annealed":
            there, back = annealed.round_trip(vae, x, settings, seed, memory, done)
    if method == "annealed":
        value, ess = annealed.log_mean(there.log_weights)
        lower, upper = value, -annealed.log_mean(back.log_weights)[0]
        value_error = log_mean_error(ess, num_chains)
    else:
        way: Method = "exact" if method == "exact" else "quadrature"
        found = log_marginal(vae, x, way, seed=seed, memory=memory, progress=progress)
        value, value_error = found.value, found.standard_error
        lower, upper = value - value_error, value + value_error
    return BoundGap(
        elbo=elbos[0],
        elbo_family=elbos[1],
        elbo_full=elbos[-1],
        lower=lower,
        upper=upper,
        log_marginal=value,
        log_marginal_error=value_error,
        elbo_error=error,
        method=method,
        family=family,
    )


def best_elbos(
    vae: VAE,
    x: Any,
    name: str,
    *,
    steps: int,
    num_samples: int,
    seed: int,
    memory: int,
    progress: bool | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the ELBO of the encoder's q and of the best member of q's family, [N] each, in nats.

    The arguments are those of `bound_gap`; `name` is that of the caller, for messages.
    """
    refuse_other(vae, name)
    kinds = [_family_of(vae, name)]
    x = vae.data.arrays(x, in_support=True)
    steps = as_count("steps", steps, least=1)
    num_samples = as_count("num_samples", num_samples, least=2)
    with Progress(name, float(count_of(x) * steps * num_samples), progress) as done:
        elbos, _ = _best_bounds(vae, x, kinds, steps, num_samples, seed, memory, done)
    return elbos[0], elbos[1]


def _family_of(vae: VAE, name: str) -> Family:
    kinds: dict[type, Family] = {
        IsotropicNormal: "isotropic",
        DiagonalNormal: "diagonal",
        FullCovarianceNormal: "full",
    }
    for kind, family in kinds.items():
        if isinstance(vae.posterior, kind) and is_normal(vae.encode(vae.data.zeros())):
            return family
    raise ValueError(
        f"{name} optimises q within the families IsotropicNormal, DiagonalNormal and "
        f"FullCovarianceNormal; this posterior is {type(vae.posterior).__name__}. Its gap is "
        "log_marginal(vae, x).value - vae.elbo(x).elbo."
    )


def _cheapest(vae: VAE) -> Truth:
    try:
        LinearGaussian.from_vae(vae)
    except ValueError:
        on_grid = vae.latent_size <= 3 and not vae.prior.is_conditional
        return "quadrature" if on_grid else "annealed"
    return "exact"


def _best_bounds(
    vae: VAE,
    x: Any,
    kinds: Sequence[Family],
    steps: int,
    num_samples: int,
    seed: int,
    memory: int,
    progress: Progress,
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Computes the bounds of the encoder's q and of the best of each kind, [N], and their error."""
    rows = rows_in(memory, vae)
    evaluation_samples = max(8 * num_samples, 2 * vae.latent_size + 2)
    size = max(1, rows // max(_TAPES * num_samples, evaluation_samples))
    climb = compiled(_make_climb(vae, kinds, steps, num_samples, progress), spec_of(x), SEED)
    batch_spec, dtype = spec_of(x), vae.likelihood.float_dtype
    latents = vae.latent_size
    shapes = ([None, latents], [None, latents, latents])
    specs = [tf.TensorSpec(shape, dtype) for shape in shapes]
    measure = compiled(_make_measure(vae, evaluation_samples), batch_spec, SEED, *specs)
    results = []
    for start, batch in batches(x, size):
        at = batch_seed(seed, start)
        bounds, errors = [], []
        for loc, factor in climb(batch, at):
            blocks = measure(batch, at, loc, factor).numpy().astype(np.float64)
            bounds.append(blocks.mean(axis=0))
            errors.append(blocks.std(axis=0, ddof=1) / math.sqrt(_BLOCKS))
        results.append((*np.maximum.accumulate(bounds), np.max(errors, axis=0)))
    *elbos, error = (np.concatenate(parts) for parts in zip(*results, strict=True))
    return tuple(elbos), error


def _matched_noise(num_samples: int, latents: int, seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Draws normal noise [S, L] in antithetic pairs, of covariance I if there are enough."""
    half = tf.random.stateless_normal([max(1, num_samples // 2), latents], seed, dtype=dtype)
    if half.shape[0] >= latents + 1:
        covariance = tf.matmul(half, half, transpose_a=True) / half.shape[0]
        cholesky = tf.linalg.cholesky(covariance)
        half = tf.transpose(tf.linalg.triangular_solve(cholesky, tf.transpose(half)))
    return tf.concat([half, -half], axis=0)


def _elbo(inference: Inference, noise: tf.Tensor, loc: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Computes the ELBO [B] of q = N(loc, factor factor'), with the entropy in closed form."""
    z = loc + tf.einsum("blm,sm->sbl", factor, noise)
    log_joint = inference.at({"z": z}).log_joint()
    log_det = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(factor)), axis=-1)
    entropy = 0.5 * loc.shape[-1] * (1.0 + math.log(2.0 * math.pi)) + log_det
    return tf.reduce_mean(log_joint, axis=0) + entropy


def _make_measure(vae: VAE, num_samples: int) -> Callable[..., tf.Tensor]:
    def measure(x: Any, seed: tf.Tensor, loc: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        inference = vae.infer(x)

        def block(index: tf.Tensor) -> tf.Tensor:
            block_seed = tf.random.experimental.stateless_fold_in(seed, -1 - index)
            noise = _matched_noise(num_samples, vae.latent_size, block_seed, loc.dtype)
            return _elbo(inference, noise, loc, factor)

        return tf.map_fn(
            block, tf.range(_BLOCKS), fn_output_signature=loc.dtype, parallel_iterations=1
        )

    return measure


def _moments(q: tfd.Distribution) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns centre [B, L] and factor [B, L, L] of a normal distribution."""
    if isinstance(q, FullNormal):
        return q.mean(), q.scale.to_dense()
    return q.mean(), tf.linalg.diag(q.stddev())


def _make_climb(
    vae: VAE, kinds: Sequence[Family], steps: int, num_samples: int, progress: Progress
) -> Callable[[Any, tf.Tensor], list[tuple[tf.Tensor, tf.Tensor]]]:
    """Makes a function from a batch to (loc, factor) of the encoder's q and of each kind's best.

    Each kind holds the one before it, from whose best its own climb starts. With m, S of the
    encoder's q, a candidate is loc = m + s a, factor = exp(d) S + s T, with s the diagonal of S and
    T strictly lower triangular: at zero it is q. The families differ in which of the numbers a, d,
    T are free.
    """
    latents = vae.latent_size

    def climb(x: Any, seed: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        inference = vae.infer(x)
        q = only_posterior(vae, inference, x)
        loc, factor = (tf.stop_gradient(part) for part in _moments(q))
        dtype = loc.dtype
        found = [(loc, factor)]
        for kind in kinds:
            start = found[-1]
            scale = tf.linalg.diag_part(start[1])
            widths = [latents, 1 if kind == "isotropic" else latents]
            widths.append(latents * latents if kind == "full" else 0)
            size = tf.shape(loc)[0]
            total = sum(widths)

            def candidate(
                raw: tf.Tensor,
                start: tuple[tf.Tensor, tf.Tensor] = start,
                scale: tf.Tensor = scale,
                widths: list[int] = widths,
                kind: Family = kind,
            ) -> tuple[tf.Tensor, tf.Tensor]:
                shift, log_scale, below = tf.split(raw, widths, axis=-1)
                moved = start[1] * tf.exp(log_scale)[:, :, tf.newaxis]
                if kind == "full":
                    square = tf.reshape(below, [-1, latents, latents])
                    strict = tf.linalg.band_part(square, -1, 0) - tf.linalg.diag(
                        tf.linalg.diag_part(square)
                    )
                    moved += scale[:, :, tf.newaxis] * strict
                return start[0] + scale * shift, moved

            def step(
                index: tf.Tensor,
                raw: tf.Tensor,
                first: tf.Tensor,
                second: tf.Tensor,
                candidate: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]] = candidate,
            ) -> tuple[tf.Tensor, ...]:
                step_seed = tf.random.experimental.stateless_fold_in(seed, index)
                noise = _matched_noise(num_samples, latents, step_seed, dtype)
                with tf.GradientTape() as tape:
                    tape.watch(raw)
                    elbo = _elbo(inference, noise, *candidate(raw))
                gradient = tape.gradient(elbo, raw)
                count = tf.cast(index + 1, dtype)
                first = 0.9 * first + 0.1 * gradient
                second = 0.99 * second + 0.01 * gradient**2
                unbiased = first / (1.0 - 0.9**count)
                spread = tf.sqrt(second / (1.0 - 0.99**count)) + 1e-8
                rate = 0.05 * (1.0 + tf.cos(math.pi * (count - 1.0) / steps))
                progress.add_in_graph(num_samples * tf.shape(raw)[0])
                return index + 1, raw + rate * unbiased / spread, first, second

            zeros = tf.zeros([size, total], dtype)
            _, raw, *_ = tf.while_loop(
                lambda index, *_: index < steps,
                step,
                (tf.constant(0), zeros, zeros, zeros),
                parallel_iterations=1,
            )
            found.append(candidate(raw))
        return found

    return climb
