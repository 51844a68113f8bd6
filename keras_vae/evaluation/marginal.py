"""Log-evidence log p(x) of each example, by sampling, annealing, quadrature or in closed form."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.devices import Device, device
from keras_vae.distributions.noise import numbers_in
from keras_vae.distributions.tfp import fused_log_prob, tfd
from keras_vae.evaluation import annealed, quadrature
from keras_vae.evaluation._batches import (
    SEED,
    batch_seed,
    batches,
    compiled,
    count_of,
    rows_in,
    spec_of,
)
from keras_vae.evaluation._draws import draw_noise, prior_draws
from keras_vae.evaluation._progress import Progress
from keras_vae.evaluation.annealed import Start
from keras_vae.evaluation.enumeration import enumerate_codes
from keras_vae.evaluation.pareto import FEWEST_DRAWS, TRUSTED, pareto_k, tail_size
from keras_vae.evaluation.summary import log_mean_error
from keras_vae.linear_gaussian import LinearGaussian
from keras_vae.model import VAE
from keras_vae.observed import log_likelihood as log_likelihood_of
from keras_vae.trace import Trace
from keras_vae.training.fast_loop import compiles_well

__all__ = ["LogMarginal", "Method", "log_marginal"]

Method = Literal["importance", "annealed", "quadrature", "enumeration", "prior", "exact"]

_DRAWS = {"importance": 5000, "prior": 5000, "annealed": 16, "quadrature": 24}
_FEWEST_EFFECTIVE = 10.0
_TOLERATED = 0.05
_CACHED = 48 * 2**20
"""Bytes of a chunk whose activations stay in the CPU's cache; larger chunks are slower."""
_NOISE = 2**21
"""Number of latents that are drawn at once: TensorFlow draws small amounts more slowly."""
_WORTH_FUSING = 2**28
"""Number of single-entry log-probabilities above which compilation by XLA, about a second, pays."""


@dataclass(frozen=True)
class LogMarginal:
    """Log-evidence log p(x) of each example, in nats.

    Attributes:
        value: log p(x), [N]. The expectation of an estimate from k samples is the k-sample bound
            L_k, which lies below log p(x) and rises to it with k; the same holds for k annealed
            chains.
        standard_error: standard error of each value, [N]; for k samples by the delta method,
            sqrt((1/ESS - 1/k) k / (k - 1)), which is NaN for one; for quadrature the change under
            the last refinement or the mass outside of the grid. With few samples or heavy weights,
            two errors cover less than 95 %, see `pareto_k`.
        effective_sample_size: (sum w)^2 / sum w^2 of each example, [N], between 1 and k.
        side: "below" if the expectation is a lower bound, "exact" if it is log p(x) itself,
            "either" if the error may have any sign.
        method: how it was computed.
        num_samples: k: draws, chains, or points along each axis of the last grid.
        pareto_k: shape of the weights' tail, [N], if there were enough weighted draws; above 0.7,
            the value and its error are not reliable.
        acceptance: share of the Hamiltonian proposals accepted, [N], of annealed chains.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> found = log_marginal(vae, [[1.0], [2.0]], num_samples=10)
        >>> found.method, found.num_samples, found.standard_error.shape
        ('importance', 10, (2,))
    """

    value: np.ndarray
    standard_error: np.ndarray
    effective_sample_size: np.ndarray
    side: Literal["below", "exact", "either"]
    method: Method
    num_samples: int
    pareto_k: np.ndarray | None = None
    acceptance: np.ndarray | None = None


def log_marginal(
    vae: VAE,
    x: Any,
    method: Method = "importance",
    *,
    num_samples: int | None = None,
    temperatures: int = 500,
    leapfrog_steps: int = 5,
    start: Start = "posterior",
    seed: int = 0,
    memory: int = 256 * 2**20,
    progress: bool | None = None,
) -> LogMarginal:
    """Computes log p(x) = log E_q[p(x, z) / q(z | x)] of each example.

    | method | how | side |
    |---|---|---|
    | importance | k weighted draws from q(z given x) | below |
    | annealed | k chains from q or the prior to the posterior, see `annealed` | below |
    | quadrature | a grid over the posterior of 1 to 3 latents, see `quadrature` | either |
    | enumeration | the sum over all values of a few codes | exact |
    | prior | k draws from p(z), for comparison: exp(rate) of them are needed | below |
    | exact | closed form of the linear-Gaussian model | exact |

    Sources: Rezende, Mohamed and Wierstra (2014), arXiv:1401.4082; Burda, Grosse and Salakhutdinov
    (2016), arXiv:1509.00519; Wu, Burda, Salakhutdinov and Grosse (2017), arXiv:1611.04273.

    Args:
        vae: the model.
        x: data [N, *D], or {"x": ..., "condition": ...}.
        method: one of the above.
        num_samples: draws k per example (default 5000), annealed chains per example (default 16),
            or points along each axis of the first grid (default 24).
        temperatures: number of intermediate distributions of "annealed".
        leapfrog_steps: leapfrog steps of each Hamiltonian proposal of "annealed".
        start: where annealed chains start, "posterior" for q(z | x) or "prior".
        seed: integer, for the draws.
        memory: approximate bytes for the draws of one chunk; the result depends on it only by
            rounding and the choice of draws.
        progress: whether to show the time left; None shows it in a terminal.

    Raises:
        DataError: if x lies outside the support of the likelihood.
        ValueError: if the method or the start is unknown, the model has no closed form for "exact",
            more than 3 latents for "quadrature", or no codes or too many for "enumeration".

    Warns:
        UserWarning: if for more than one example in twenty the Pareto-k of importance sampling
            exceeds 0.7 or the effective sample size is below 10 (one in a hundred exceeds it by
            chance if the true k is 1/2), or if the quadrature has not converged.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> found = log_marginal(vae, [[1.0]], num_samples=100)
        >>> found.value.round(3), found.side
        (array([-1.455]), 'below')
    """
    x = vae.data.arrays(x, in_support=True)
    if method == "exact":
        exact = LinearGaussian.from_vae(vae).log_prob(x).numpy()
        zeros = np.zeros(len(exact))
        return LogMarginal(exact, zeros, np.full(len(exact), math.inf), "exact", method, 0)
    if method == "enumeration":
        with Progress("log_marginal", count_of(x), progress) as done:
            summed = enumerate_codes(vae, x, memory, done)
        zeros = np.zeros(len(summed))
        return LogMarginal(summed, zeros, np.full(len(summed), math.inf), "exact", method, 0)
    if method not in _DRAWS:
        raise ValueError(
            "Invalid value for argument `method`. Expected 'importance', 'prior' or 'exact', or, "
            "tighter and slower, 'annealed' or 'quadrature', or for a few codes 'enumeration'. "
            f"Received: method={method!r}"
        )
    number = _DRAWS[method] if num_samples is None else num_samples
    number = as_count("num_samples", number, least=1)
    if method == "quadrature":
        with Progress("log_marginal", count_of(x), progress) as done:
            grid = quadrature.integrate(vae, x, number, seed, memory, done)
        nothing = np.full(len(grid.value), math.inf)
        return LogMarginal(grid.value, grid.error, nothing, "either", method, grid.points)
    if method == "annealed":
        settings = annealed.Settings(number, temperatures, leapfrog_steps, start)
        with Progress("log_marginal", 2 * settings.work(count_of(x)), progress) as done:
            chains = annealed.forward(vae, x, settings, seed, memory, done)
        value, ess = annealed.log_mean(chains.log_weights)
        error = log_mean_error(ess, number)
        return LogMarginal(value, error, ess, "below", method, number, acceptance=chains.acceptance)
    with Progress("log_marginal", count_of(x), progress) as done:
        value, ess, k = _weighed(vae, x, method, number, seed, memory, done)
    if method == "importance" and k is not None:
        _warn(ess, k)
    return LogMarginal(value, log_mean_error(ess, number), ess, "below", method, number, k)


def _warn(ess: np.ndarray, k: np.ndarray) -> None:
    doubtful = (k > TRUSTED) | (ess < _FEWEST_EFFECTIVE)
    if doubtful.mean() > _TOLERATED:
        warnings.warn(
            f"Importance sampling is not reliable for {int(doubtful.sum())} of {len(k)} "
            f"examples, whose Pareto-k exceeds {TRUSTED} (largest {k.max():.2f}) or whose "
            f"effective sample size is below {_FEWEST_EFFECTIVE:.0f} (least {ess.min():.1f}): "
            "log p(x) lies above the value by more than the standard error says; draw more "
            "samples or choose method='annealed'.",
            stacklevel=3,
        )


def _weighed(
    vae: VAE, x: Any, method: Method, num_samples: int, seed: int, memory: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Computes log mean of the weights, effective sample size and Pareto-k, [N] each."""
    plan = _plan(vae, count_of(x), num_samples, memory, device())
    fuse = count_of(x) * num_samples * vae.numbers_per_example >= _WORTH_FUSING
    spec = spec_of(x)
    weigh = vae._graph(
        (method, plan, fuse, str(spec)),
        lambda: compiled(_make_weigh(vae, method, plan, fuse), spec, SEED, SEED),
    )
    kept = tail_size(num_samples) + 1 if num_samples >= FEWEST_DRAWS else 1
    results = []
    for start, batch in batches(x, plan.examples, progress):
        count = count_of(batch)
        batch = keras.tree.map_structure(lambda part: _filled(part, plan.examples), batch)
        sums = _Sums(kept)
        for block in range(0, plan.blocks, plan.blocks_at_once):
            stop = min(block + plan.blocks_at_once, plan.blocks)
            log_w = weigh(batch, batch_seed(seed, start), tf.constant([block, stop])).numpy()
            sums.add(log_w[: num_samples - block * plan.draws, :count])
        results.append((sums.top + np.log(sums.first / num_samples), sums.ess, sums.tail))
    value, ess, largest = (np.concatenate(parts) for parts in zip(*results, strict=True))
    return value, ess, pareto_k(largest) if kept > 1 else None


class _Plan(NamedTuple):
    """Division of N examples and S draws into equal chunks; the excess is left out.

    Attributes:
        examples: examples per batch.
        slices: chunks that one call of the fused program processes one after the other.
        chunk: draws per example in a chunk.
        blocks: calls of the fused program for the S draws of a batch.
        blocks_at_once: calls of the fused program per call of the graph, which holds their weights.
    """

    examples: int
    slices: int
    chunk: int
    blocks: int
    blocks_at_once: int

    @property
    def draws(self) -> int:
        """Draws per example of a block."""
        return self.slices * self.chunk


def _plan(vae: VAE, count: int, num_samples: int, memory: int, where: Device) -> _Plan:
    """Divides the work into chunks.

    On a GPU, where a program takes 9 to 16 seconds to compile, the examples in a batch are a power
    of two or the most that fit, so that few programs serve every number of examples.
    """
    held = memory // 4
    if not where.is_gpu:
        memory = min(memory, _CACHED)
    rows = rows_in(memory, vae)
    most = min(rows, max(128, min(8192, rows // num_samples)))
    examples = min(most, 2 ** (count - 1).bit_length()) if where.is_gpu else _even(count, most)
    chunk = _even(num_samples, max(1, rows // examples))
    slices = -(-num_samples // chunk)
    slices = _even(slices, max(1, _NOISE // (chunk * examples * numbers_in(vae.noise()))))
    blocks = -(-num_samples // (slices * chunk))
    at_once = max(1, held // (32 * examples * slices * chunk))
    return _Plan(examples, slices, chunk, blocks, at_once)


def _even(total: int, most: int) -> int:
    """Returns the size, at most `most`, of the fewest equal chunks that hold `total`."""
    return -(-total // -(-total // most))


def _filled(part: tf.Tensor, count: int) -> tf.Tensor:
    """Repeats the first row of a batch until there are `count` rows."""
    return tf.concat([part, tf.repeat(part[:1], count - len(part), axis=0)], axis=0)


class _Sums:
    """Sums of the weights of B examples, and their largest `kept` logarithms."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.top: Any = -np.inf
        self.first: Any = 0.0
        self.second: Any = 0.0
        self.tail: Any = None

    def add(self, log_w: np.ndarray) -> None:
        """Adds log-weights [S, B]; sums are relative to the largest so far, in float64."""
        top = np.maximum(self.top, log_w.max(axis=0).astype(np.float64))
        w = np.exp(log_w - top)
        shrink = np.exp(self.top - top)
        self.first = self.first * shrink + w.sum(axis=0)
        self.second = self.second * shrink**2 + (w * w).sum(axis=0)
        self.top = top
        tail = log_w.T if self.tail is None else np.concatenate([self.tail, log_w.T], axis=1)
        if tail.shape[1] > self.kept:
            tail = np.partition(tail, tail.shape[1] - self.kept, axis=1)[:, -self.kept :]
        self.tail = tail

    @property
    def ess(self) -> np.ndarray:
        """Effective sample size (sum w)^2 / sum w^2, [B]."""
        return self.first**2 / self.second


def _make_weigh(vae: VAE, method: Method, plan: _Plan, fuse: bool) -> Callable[..., tf.Tensor]:
    """Makes a function from a batch, a seed and the first and last block to log-weights [S, B]."""
    whole = fuse and compiles_well(vae, device())
    log_prob = fused_log_prob if fuse else tfd.Distribution.log_prob
    shape, dtype = [plan.slices, plan.chunk], vae.float_dtype

    def weigh(x: Any, seed: tf.Tensor, blocks: tf.Tensor) -> tf.Tensor:
        inference = vae.infer(x)

        def log_likelihood(trace: Trace) -> tf.Tensor:
            return log_likelihood_of(trace.observations, log_prob)

        def log_weights(drawn: Any) -> tf.Tensor:
            if method == "prior":
                return log_likelihood(inference.at(drawn))
            trace = inference.trace(drawn)
            return log_likelihood(trace) + trace.log_ratio()

        @tf.function(jit_compile=whole or None, autograph=False)
        def slice_by_slice(drawn: Any) -> tf.Tensor:
            log_w = tf.map_fn(log_weights, drawn, fn_output_signature=dtype, parallel_iterations=1)
            return tf.reshape(log_w, [plan.draws, plan.examples])

        def add_block(block: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            block_seed = tf.random.experimental.stateless_fold_in(seed, block)
            if method == "importance":
                drawn = draw_noise(vae, block_seed, shape, plan.examples)
            else:
                drawn = prior_draws(vae, x, some, shape, plan.examples, block_seed)
            return block + 1, found.write(block - blocks[0], slice_by_slice(drawn))

        some = inference.trace(draw_noise(vae, seed, [1], plan.examples))
        found = tf.TensorArray(
            dtype, blocks[1] - blocks[0], element_shape=[plan.draws, plan.examples]
        )
        _, found = tf.while_loop(
            lambda block, _: block < blocks[1], add_block, (blocks[0], found), parallel_iterations=1
        )
        return found.concat()

    return weigh
