"""A hand-written JAX loop: an epoch as one `lax.scan`, or one jitted step at a time.

The data is on the device, shuffled there each epoch, and Adam is a tree map of a few lines.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.cases import (
    BETA_1,
    BETA_2,
    EPSILON,
    Case,
    all_weights,
    checks,
    held_out_loss,
    presented,
)
from benchmarks.peers.jax_models import Noise, first_averages, loss
from benchmarks.peers.worker import Gate

State = Any


def versions() -> dict[str, str]:
    """Versions."""
    return {"jax": jax.__version__}


def _noise(case: Case, key: jax.Array, batch: int) -> Noise:
    shapes = case.noise_shapes(batch)
    keys = [key] if len(shapes) == 1 else jax.random.split(key, len(shapes))
    return [jax.random.normal(one, shape) for one, shape in zip(keys, shapes, strict=True)]


def _step(
    case: Case, rate: jax.Array | float, state: State, x: jax.Array, noise: Noise | None = None
) -> tuple[State, jax.Array]:
    weights, averages, m, v, count, key = state
    key, now = jax.random.split(key)
    noise = _noise(case, now, len(x)) if noise is None else noise
    differentiated = jax.value_and_grad(loss, argnums=1, has_aux=True)
    (value, averages), gradient = differentiated(case, weights, averages, noise, x)
    count = count + 1
    m = jax.tree.map(lambda m, g: m + (1 - BETA_1) * (g - m), m, gradient)
    v = jax.tree.map(lambda v, g: v + (1 - BETA_2) * (g * g - v), v, gradient)
    rate = rate * jnp.sqrt(1 - BETA_2**count) / (1 - BETA_1**count)
    weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), weights, m, v)
    return (weights, averages, m, v, count, key), value


def _shuffled(case: Case, state: State) -> tuple[State, jax.Array]:
    """The state with a new key, and the rows of each batch."""
    *others, key = state
    key, now = jax.random.split(key)
    order = jax.random.permutation(now, case.examples)
    return (*others, key), order[: case.steps * case.batch].reshape(case.steps, case.batch)


def _initial(case: Case, x: jax.Array) -> State:
    """The state before the first step, of which x is the batch."""
    weights = jax.tree.map(jnp.asarray, all_weights(case))
    averages = jax.jit(functools.partial(first_averages, case))(weights, x)
    zeros = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
    return weights, averages, *zeros, jnp.float32(0), jax.random.key(case.seed)


_loss = jax.jit(loss, static_argnums=0)


def _check(case: Case, state: State, x: jax.Array) -> float:
    def loss_of(case: Case, x: jax.Array, seed: int) -> float:
        noise = _noise(case, jax.random.key(1 + seed), len(x))
        return float(_loss(case, *state[:2], noise, x)[0])

    return held_out_loss(case, loss_of, x)


def scan(case: Case, x: np.ndarray, gate: Gate) -> None:
    """An epoch as one compiled program."""
    given, checked = case.split(x)
    rows, checked = jnp.asarray(given), jnp.asarray(checked)
    state = _initial(case, rows[: case.batch])

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state: State, rows: jax.Array, rate: jax.Array) -> tuple[State, jax.Array]:
        state, order = _shuffled(case, state)
        state, losses = jax.lax.scan(lambda s, at: _step(case, rate, s, rows[at]), state, order)
        return state, losses.mean()

    for index in itertools.count():
        gate.begin()
        if case.binarise:
            rows = jnp.asarray(presented(case, given, index))
        state, mean = epoch(state, rows, jnp.float32(case.rate(index)))
        float(mean)
        gate.end(lambda state=state: _check(case, state, checked))


def step(case: Case, x: np.ndarray, gate: Gate) -> None:
    """A compiled program per step; the mean loss is read once an epoch."""
    rows, checked = map(jnp.asarray, case.split(x))
    state = _initial(case, rows[: case.batch])
    shuffle = jax.jit(functools.partial(_shuffled, case), donate_argnums=0)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def one(
        state: State, total: jax.Array, rows: jax.Array, order: jax.Array, index: jax.Array
    ) -> tuple[State, jax.Array]:
        state, value = _step(case, case.learning_rate, state, rows[order[index]])
        return state, total + value

    while True:
        gate.begin()
        state, order = shuffle(state)
        total = jnp.zeros([])
        for index in range(case.steps):
            state, total = one(state, total, rows, order, index)
        float(total)
        gate.end(lambda state=state: _check(case, state, checked))


def same(case: Case, x: np.ndarray, gate: Gate) -> None:
    """The losses of a few steps on copied noise."""
    taken, losses = jax.jit(functools.partial(_step, case, case.learning_rate)), []
    state = _initial(case, jnp.asarray(x[: case.batch]))
    for batch, noise in checks(case, x):
        state, value = taken(state, batch, noise)
        losses.append(float(value))
    gate.begin()
    gate.end(lambda: losses)


SYSTEMS = {("fit", "jax_scan"): scan, ("fit", "jax_step"): step, ("same", "jax_step"): same}
