"""Annealed importance sampling: chains from a distribution that can be sampled to the posterior.

Axes: C chains, B examples, L latents, T temperatures.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.distributions.tfp import typical_scale
from keras_vae.evaluation._batches import (
    SEED,
    batch_seed,
    batches,
    compiled,
    fused,
    rows_in,
    spec_of,
)
from keras_vae.evaluation._draws import FlatLatents, draw_noise, prior_draws, size_of, trace_of
from keras_vae.evaluation._progress import Progress
from keras_vae.model import VAE
from keras_vae.trace import Trace

__all__ = ["Chains", "Settings", "Start", "forward", "log_mean", "round_trip", "schedule"]

Start = Literal["posterior", "prior"]

_ACCEPTANCE = 0.8
_TAPES = 3


@dataclass(frozen=True)
class Settings:
    """Settings of the chains.

    Attributes:
        chains: C, per example.
        temperatures: T, intermediate distributions.
        leapfrog_steps: leapfrog steps of each Hamiltonian proposal.
        start: "posterior" for q(z | x) or "prior" for p(z).

    Raises:
        ValueError: if a number is not a positive integer or the start is unknown.
    """

    chains: int = 16
    temperatures: int = 500
    leapfrog_steps: int = 5
    start: Start = "posterior"

    def work(self, examples: int) -> float:
        """Returns the number of decoder gradients in one run of the chains of some examples."""
        return float(examples * self.chains * self.temperatures * self.leapfrog_steps)

    def __post_init__(self) -> None:
        for name in ("chains", "temperatures", "leapfrog_steps"):
            as_count(name, getattr(self, name), least=1)
        if self.start not in ("posterior", "prior"):
            raise ValueError(
                "Invalid value for argument `start`. Expected 'posterior' or 'prior'. "
                f"Received: start={self.start!r}"
            )


class Chains(NamedTuple):
    """Weights and acceptance of finished chains.

    Attributes:
        log_weights: log w of each chain, [N, C], in nats; E[w] = p(x). For reverse chains -log w,
            whose exponential has the mean 1 / p(x).
        acceptance: share of the proposals accepted, [N].
    """

    log_weights: np.ndarray
    acceptance: np.ndarray


class _State(NamedTuple):
    """A point of each chain, with log-densities and gradients there."""

    z: tf.Tensor
    base: tf.Tensor
    ratio: tf.Tensor
    base_gradient: tf.Tensor
    ratio_gradient: tf.Tensor


def schedule(temperatures: int) -> np.ndarray:
    """Computes a sigmoid schedule 0 = b_0 < b_1 < ... < b_T = 1, slow at both ends, [T + 1].

    b_t is sigmoid(4 (2 t / T - 1)), shifted and scaled to end in 0 and 1. Source: Wu et al. (2017),
    arXiv:1611.04273.
    """
    b = 1.0 / (1.0 + np.exp(-4.0 * np.linspace(-1.0, 1.0, temperatures + 1)))
    return (b - b[0]) / (b[-1] - b[0])


def log_mean(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the log mean of each example's weights and their effective sample size, [N] each."""
    top = log_weights.max(axis=1, keepdims=True)
    w = np.exp(log_weights - top)
    return top[:, 0] + np.log(w.mean(axis=1)), w.sum(axis=1) ** 2 / (w**2).sum(axis=1)


def forward(
    vae: VAE, x: Any, settings: Settings, seed: int, memory: int, progress: Progress
) -> Chains:
    """Runs chains from the start distribution f_0 to the joint f_1 = p(x, z).

    The intermediate distributions are f_b = f_0^(1-b) p(x, z)^b. A chain draws z_0 from f_0,
    multiplies its weight by f_{b_t}(z) / f_{b_{t-1}}(z) and moves z by Hamiltonian Monte Carlo that
    leaves f_{b_t} invariant. Step sizes, one per example and temperature, aim at an acceptance of
    0.8 and come from a separate run of the same length, because steps adapted to the measured
    chains would bias them. Positions are scaled by the standard deviations of f_0 and q. Since E[w]
    = p(x), log mean w is a lower bound in expectation. Sources: Neal (2001), Annealed importance
    sampling; Wu et al. (2017), On the quantitative analysis of decoder-based generative models,
    arXiv:1611.04273.
    """
    run = _compiled_run(vae, x, settings, progress)

    def both(batch: Any, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps = run(batch, _fold(seed, 0))[3]
        _, log_w, acceptance, _ = run(batch, _fold(seed, 1), steps)
        return log_w, acceptance

    return _over_batches(vae, x, settings, seed, memory, both)[0]


def round_trip(
    vae: VAE,
    x: Any,
    settings: Settings,
    seed: int,
    memory: int,
    progress: Progress,
    end: np.ndarray | None = None,
) -> tuple[Chains, Chains]:
    """Runs forward chains, and reverse chains from posterior draws with the same steps.

    A reverse chain starts at a draw from the posterior and moves and weights in the opposite order.
    E[1 / w] = 1 / p(x), so -log mean 1/w is an upper bound in expectation.

    Args:
        vae: the model.
        x: checked data.
        settings: settings of the chains.
        seed: integer.
        memory: memory to use, in bytes.
        progress: counts gradients of the decoder.
        end: draws from the posterior p(z | x), [N, L]. None takes the ends of the forward chains,
            drawn by their weights, which are such draws only in the limit of many temperatures.
    """
    run = _compiled_run(vae, x, settings, progress)
    ends = iter(())

    def both(batch: Any, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        steps = run(batch, _fold(seed, 0))[3]
        z, log_w, acceptance, _ = run(batch, _fold(seed, 1), steps)
        if end is None:
            picked = tf.random.stateless_categorical(
                tf.transpose(log_w), settings.chains, _fold(seed, 2)
            )
            z = tf.transpose(tf.gather(tf.transpose(z, [1, 0, 2]), picked, batch_dims=1), [1, 0, 2])
        else:
            z = tf.repeat(next(ends)[tf.newaxis], settings.chains, axis=0)
        _, back, back_acceptance, _ = run(batch, _fold(seed, 3), steps, z)
        return log_w, acceptance, -back, back_acceptance

    if end is not None:
        size = _batch_size(vae, settings, memory)
        dtype = vae.float_dtype
        ends = iter([tf.constant(end[i : i + size], dtype) for i in range(0, len(end), size)])
    there, back = _over_batches(vae, x, settings, seed, memory, both)
    return there, back


def _over_batches(
    vae: VAE,
    x: Any,
    settings: Settings,
    seed: int,
    memory: int,
    run: Callable[[Any, tf.Tensor], tuple[tf.Tensor, ...]],
) -> list[Chains]:
    results = []
    for start, batch in batches(x, _batch_size(vae, settings, memory)):
        results.append([part.numpy() for part in run(batch, batch_seed(seed, start))])
    columns = list(zip(*results, strict=True))
    chains = []
    for log_w, acceptance in zip(columns[::2], columns[1::2], strict=True):
        log_weights = np.concatenate(log_w, axis=1).T.astype(np.float64)
        chains.append(Chains(log_weights, np.concatenate(acceptance).astype(np.float64)))
    return chains


def _batch_size(vae: VAE, settings: Settings, memory: int) -> int:
    return max(1, rows_in(memory, vae) // (_TAPES * settings.chains))


def _fold(seed: tf.Tensor, data: int | tf.Tensor) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, data)


def _compiled_run(
    vae: VAE, x: Any, settings: Settings, progress: Progress
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """Compiles the run of chains, one graph for every use of it.

    It takes a batch, a seed, step sizes [T, B] and ends [C, B, L], and returns z, log w, the
    acceptance and the step sizes. Without step sizes it adapts them; with ends it runs backward.
    """
    dtype = vae.float_dtype
    latents = FlatLatents(trace_of(vae, vae.data.zeros(), 1, tf.zeros([2], tf.int32))).size
    steps = tf.TensorSpec([settings.temperatures, None], dtype)
    end = tf.TensorSpec([settings.chains, None, latents], dtype)
    graph = compiled(_make_run(vae, settings, progress), spec_of(x), SEED, steps, end)
    no_steps, no_end = (
        tf.zeros([steps.shape[0], 0], dtype),
        tf.zeros([end.shape[0], 0, latents], dtype),
    )

    def run(
        batch: Any, seed: tf.Tensor, steps: tf.Tensor = no_steps, end: tf.Tensor = no_end
    ) -> tuple[tf.Tensor, ...]:
        return graph(batch, seed, steps, end)

    return run


def _make_run(
    vae: VAE, settings: Settings, progress: Progress
) -> Callable[..., tuple[tf.Tensor, ...]]:
    chains, temperatures = settings.chains, settings.temperatures
    ladder = schedule(temperatures)

    def run(x: Any, seed: tf.Tensor, steps: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Runs the chains; empty steps are adapted, and an empty end is a forward run."""
        adapting, forward = tf.size(steps) == 0, tf.size(end) == 0
        inference = vae.infer(x)
        size, dtype = tf.shape(tf.nest.flatten(x)[0])[0], vae.float_dtype
        betas = tf.constant(ladder, dtype)
        own_seed = _fold(seed, temperatures)
        trace = inference.trace(draw_noise(vae, own_seed, [chains], size_of(x)))
        flat, draws = FlatLatents(trace), {k: each.draw.value for k, each in trace.latents.items()}
        q_scale = flat.joined(_scales(trace, of_prior=False))
        from_prior = settings.start == "prior"
        start_scale = flat.joined(_scales(trace, of_prior=True)) if from_prior else q_scale

        def first() -> tf.Tensor:
            if from_prior:
                return flat.joined(prior_draws(vae, x, trace, [chains], size, own_seed))
            return flat.joined(draws)

        z = tf.cond(forward, first, lambda: end)

        calls = temperatures * settings.leapfrog_steps
        at = fused(vae, lambda z: _at(lambda z: flat.at(inference, z), z, from_prior), calls)

        rate = tf.cast(2.0 / temperatures**0.5, dtype)

        def advance(
            index: tf.Tensor,
            state: _State,
            log_w: tf.Tensor,
            accepted: tf.Tensor,
            log_step: tf.Tensor,
            used: tf.Tensor,
        ) -> tuple[Any, ...]:
            level = tf.where(forward, index, temperatures - 1 - index)
            beta, before = betas[level + 1], betas[level]
            precision = (1.0 - beta) / start_scale**2 + beta / q_scale**2
            step = tf.cond(adapting, lambda: tf.exp(log_step), lambda: steps[level])
            moved, chance = _transition(
                at,
                state,
                beta,
                step[:, tf.newaxis] * tf.math.rsqrt(precision),
                settings.leapfrog_steps,
                _fold(seed, level),
            )
            log_w += (beta - before) * tf.where(forward, state.ratio, moved.ratio)
            used = used.write(level, step)
            log_step += rate * (chance - _ACCEPTANCE)
            progress.add_in_graph(chains * settings.leapfrog_steps * size)
            return index + 1, moved, log_w, accepted + chance, log_step, used

        zeros = tf.zeros([size], dtype)
        first_step = zeros + math.log(0.7 / flat.size**0.25)
        used = tf.TensorArray(dtype, size=temperatures, element_shape=[None])
        _, state, log_w, accepted, _, used = tf.while_loop(
            lambda index, *_: index < temperatures,
            advance,
            (
                tf.constant(0),
                at(z),
                tf.zeros(tf.shape(z)[:2], dtype),
                zeros,
                first_step,
                used,
            ),
            parallel_iterations=1,
        )
        return state.z, log_w, accepted / temperatures, used.stack()

    return run


def _scales(trace: Trace, of_prior: bool) -> dict[str, tf.Tensor]:
    """Returns the standard deviations of p or q of each latent, [B, ...].

    Those that depend on draws of other latents are averaged over them.
    """
    scales = {}
    for name, latent in trace.latents.items():
        scale = typical_scale(latent.posterior(), "Annealed importance sampling")
        if of_prior:
            scale = typical_scale(latent.p, "Annealing from the prior") * tf.ones_like(scale)
        by_draw = scale.shape.rank == latent.value.shape.rank
        scales[name] = tf.reduce_mean(scale, 0) if by_draw else scale
    return scales


def _at(trace_at: Callable[[tf.Tensor], Trace], z: tf.Tensor, from_prior: bool) -> _State:
    """Returns log f_0, log p(x, z) minus it, and their gradients at z.

    z is copied: TFP remembers the noise of a draw, and would not differentiate at the draw.
    """
    z = tf.identity(z)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        trace = trace_at(z)
        base = trace.log_prior() if from_prior else trace.log_posterior()
        ratio = trace.log_likelihood() if from_prior else trace.log_weights()
    return _State(z, base, ratio, tape.gradient(base, z), tape.gradient(ratio, z))


def _transition(
    at: Callable[[tf.Tensor], _State],
    state: _State,
    beta: tf.Tensor,
    step: tf.Tensor,
    leapfrog_steps: int,
    seed: tf.Tensor,
) -> tuple[_State, tf.Tensor]:
    """Makes a Hamiltonian move that leaves base^(1-b) joint^b invariant; returns its chance [B].

    The step size is jittered by a fifth to prevent closed orbits.

    Args:
        at: map from z to the state there.
        state: current points.
        beta: inverse temperature b.
        step: step size times scale, [B, L].
        leapfrog_steps: leapfrog steps of the trajectory.
        seed: int32 [2].
    """
    dtype = state.z.dtype
    momentum_seed, jitter_seed, accept_seed = tf.unstack(
        tf.random.experimental.stateless_split(seed, 3)
    )
    jitter = tf.random.stateless_uniform(tf.shape(step)[:1], jitter_seed, 0.8, 1.2, dtype)
    step = step * jitter[:, tf.newaxis]
    start = tf.random.stateless_normal(tf.shape(state.z), momentum_seed, dtype=dtype)

    def kick(point: _State, momentum: tf.Tensor, share: float) -> tf.Tensor:
        return momentum + share * step * (point.base_gradient + beta * point.ratio_gradient)

    momentum = kick(state, start, 0.5)
    point = state
    for index in range(leapfrog_steps):
        point = at(point.z + step * momentum)
        momentum = kick(point, momentum, 1.0 if index < leapfrog_steps - 1 else 0.5)
    energy = point.base + beta * point.ratio - 0.5 * tf.reduce_sum(momentum**2, axis=-1)
    before = state.base + beta * state.ratio - 0.5 * tf.reduce_sum(start**2, axis=-1)
    gain = energy - before
    gain = tf.where(tf.math.is_finite(gain), gain, tf.constant(-math.inf, dtype))
    u = tf.random.stateless_uniform(tf.shape(gain), accept_seed, dtype=dtype)
    accept = tf.math.log(u) < gain

    def choose(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
        return tf.where(accept[..., tf.newaxis] if new.shape.rank == 3 else accept, new, old)

    chosen = _State(*(choose(new, old) for new, old in zip(point, state, strict=True)))
    return chosen, tf.reduce_mean(tf.exp(tf.minimum(gain, 0.0)), axis=0)
