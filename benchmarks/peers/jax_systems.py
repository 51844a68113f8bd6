"""A hand-written JAX loop: an epoch as one `lax.scan`, or one jitted step at a time.

The data is on the device, shuffled there each epoch, and Adam is a tree map of a few lines.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.cases import (
    BETA_1,
    BETA_2,
    EPSILON,
    Case,
    Layer,
    initial_weights,
)
from benchmarks.peers.worker import Gate

_IMAGES = ("NHWC", "HWIO", "NHWC")

Weights = Any
State = Any


def versions() -> dict[str, str]:
    """Versions."""
    return {"jax": jax.__version__}


def _apply(layers: list[Layer], weights: Weights, x: jax.Array, convolutional: bool) -> jax.Array:
    activation = jax.nn.relu if convolutional else jnp.tanh
    for index, (layer, (kernel, bias)) in enumerate(zip(layers, weights, strict=True)):
        if layer.kind == "dense":
            x = x.reshape(x.shape[0], -1) @ kernel + bias
        elif layer.kind == "conv":
            strides = (layer.stride, layer.stride)
            x = jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=_IMAGES)
            x = x + bias
        else:
            x = x.reshape(-1, layer.rows, layer.rows, layer.inputs)
            x = jax.lax.conv_transpose(
                x, kernel, (2, 2), "SAME", dimension_numbers=_IMAGES, transpose_kernel=True
            )
            x = x + bias
        if index < len(layers) - 1:
            x = activation(x)
    return x


def _loss(case: Case, weights: Weights, key: jax.Array, x: jax.Array) -> jax.Array:
    encoder, decoder = weights
    k, batch = case.num_samples, x.shape[0]
    raw = _apply(case.encoder, encoder, x, case.convolutional)
    loc, log_var = jnp.split(raw, 2, axis=-1)
    noise = jax.random.normal(key, (k, batch, case.latent_size))
    z = loc + jnp.exp(0.5 * log_var) * noise
    out = _apply(case.decoder, decoder, z.reshape(-1, case.latent_size), case.convolutional)
    out = out.reshape(k, *x.shape)
    if case.likelihood == "bernoulli":
        each = jax.nn.softplus(out) - x * out
    else:
        each = 0.5 * (x - out) ** 2 + 0.5 * math.log(2 * math.pi)
    distortion = each.reshape(k, batch, -1).sum(-1)
    if k == 1:
        rate = 0.5 * (loc**2 + jnp.exp(log_var) - 1 - log_var).sum(-1)
        return (distortion[0] + rate).mean()
    rate = (0.5 * z**2 - 0.5 * noise**2 - 0.5 * log_var).sum(-1)
    return math.log(k) - jax.scipy.special.logsumexp(-distortion - rate, axis=0).mean()


def _step(case: Case, state: State, x: jax.Array) -> tuple[State, jax.Array]:
    weights, m, v, count, key = state
    key, now = jax.random.split(key)
    loss, gradient = jax.value_and_grad(functools.partial(_loss, case))(weights, now, x)
    count = count + 1
    m = jax.tree.map(lambda m, g: m + (1 - BETA_1) * (g - m), m, gradient)
    v = jax.tree.map(lambda v, g: v + (1 - BETA_2) * (g * g - v), v, gradient)
    rate = case.learning_rate * jnp.sqrt(1 - BETA_2**count) / (1 - BETA_1**count)
    weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + EPSILON), weights, m, v)
    return (weights, m, v, count, key), loss


def _shuffled(case: Case, state: State) -> tuple[State, jax.Array]:
    """The state with a new key, and the rows of each batch."""
    *others, key = state
    key, now = jax.random.split(key)
    order = jax.random.permutation(now, case.examples)
    return (*others, key), order[: case.steps * case.batch].reshape(case.steps, case.batch)


def _initial(case: Case) -> State:
    weights = jax.tree.map(
        jnp.asarray, (initial_weights(case.encoder, 1), initial_weights(case.decoder, 2))
    )
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return weights, zeros, jax.tree.map(jnp.zeros_like, weights), jnp.float32(0), jax.random.key(0)


def _check(case: Case, state: State, x: jax.Array) -> float:
    return float(jax.jit(functools.partial(_loss, case))(state[0], jax.random.key(1), x))


def scan(case: Case, x: np.ndarray, gate: Gate) -> None:
    """An epoch as one compiled program."""
    rows, checked = map(jnp.asarray, case.split(x))
    state = _initial(case)

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state: State, rows: jax.Array) -> tuple[State, jax.Array]:
        state, order = _shuffled(case, state)
        state, losses = jax.lax.scan(lambda s, at: _step(case, s, rows[at]), state, order)
        return state, losses.mean()

    while True:
        gate.begin()
        state, loss = epoch(state, rows)
        float(loss)
        gate.end(lambda state=state: _check(case, state, checked))


def step(case: Case, x: np.ndarray, gate: Gate) -> None:
    """A compiled program per step; the mean loss is read once an epoch."""
    rows, checked = map(jnp.asarray, case.split(x))
    state = _initial(case)
    shuffle = jax.jit(functools.partial(_shuffled, case), donate_argnums=0)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def one(
        state: State, total: jax.Array, rows: jax.Array, order: jax.Array, index: jax.Array
    ) -> tuple[State, jax.Array]:
        state, loss = _step(case, state, rows[order[index]])
        return state, total + loss

    while True:
        gate.begin()
        state, order = shuffle(state)
        total = jnp.zeros([])
        for index in range(case.steps):
            state, total = one(state, total, rows, order, index)
        float(total)
        gate.end(lambda state=state: _check(case, state, checked))


SYSTEMS = {("fit", "jax_scan"): scan, ("fit", "jax_step"): step}
