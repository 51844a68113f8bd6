"""The models of the cases in JAX: loss of a batch as a function of weights and noise.

A loss also takes and returns the averages that move with the batches, which only a VQ-VAE has.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers.cases import (
    CODE_SIZE,
    CODES,
    COMMITMENT,
    DECAY,
    FORGOTTEN,
    LARGEST_LOG_SCALE,
    LLOYD_STEPS,
    LOG_SOFTPLUS_ONE,
    REVIVE,
    SMALLEST_SCALE,
    Case,
    Layer,
    orders,
    sampled_rows,
)

_IMAGES = ("NHWC", "HWIO", "NHWC")

Weights = Any
Averages = dict[str, jax.Array]
Noise = Sequence[jax.Array]


def apply(case: Case, name: str, weights: Weights, x: jax.Array) -> jax.Array:
    """Runs one network of a case."""
    activation = jax.nn.relu if case.convolutional else jnp.tanh
    for layer, (kernel, bias) in zip(case.networks[name], weights[name], strict=True):
        x = _linear(layer, kernel, x) + bias
        if not layer.is_head:
            x = activation(x)
    return x


def _linear(layer: Layer, kernel: jax.Array, x: jax.Array) -> jax.Array:
    if layer.kind == "pointwise":
        return x @ kernel
    if layer.kind == "dense":
        return x.reshape(x.shape[0], -1) @ kernel
    if layer.kind == "conv":
        strides = (layer.stride, layer.stride)
        return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=_IMAGES)
    x = x.reshape(-1, layer.rows, layer.rows, layer.inputs)
    return jax.lax.conv_transpose(
        x, kernel, (2, 2), "SAME", dimension_numbers=_IMAGES, transpose_kernel=True
    )


def _normal(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre and scale from the raw numbers of a head."""
    loc, scale = jnp.split(raw, 2, axis=-1)
    return loc, jax.nn.softplus(scale + LOG_SOFTPLUS_ONE) + SMALLEST_SCALE


def _distortion(case: Case, x: jax.Array, out: jax.Array) -> jax.Array:
    """-log p(x | z) of each draw, out being [k * B, ...]."""
    out = out.reshape(case.num_samples, *x.shape)
    if case.likelihood == "bernoulli":
        each = jax.nn.softplus(out) - x * out
    else:
        each = 0.5 * (x - out) ** 2 + 0.5 * math.log(2 * math.pi)
    return each.reshape(*out.shape[:2], -1).sum(-1)


def vae(case: Case, weights: Weights, noise: Noise, x: jax.Array) -> jax.Array:
    """A VAE with a standard normal prior, or with a flow."""
    loc, scale = _normal(apply(case, "encoder", weights, x))
    z = loc + scale * noise[0]
    decoded = apply(case, "decoder", weights, z.reshape(-1, case.latent_size))
    distortion = _distortion(case, x, decoded)
    if case.model == "vae" and case.num_samples == 1:
        rate = (0.5 * (loc**2 + scale**2 - 1) - jnp.log(scale)).sum(-1)
        return (distortion[0] + rate).mean()
    log_q = (-0.5 * noise[0] ** 2 - jnp.log(scale)).sum(-1)
    log_p = _flow(case, weights, z) if case.model == "flow" else (-0.5 * z**2).sum(-1)
    log_w = log_p - log_q - distortion
    if case.num_samples == 1:
        return -log_w.mean()
    return math.log(case.num_samples) - jax.scipy.special.logsumexp(log_w, axis=0).mean()


def _flow(case: Case, weights: Weights, z: jax.Array) -> jax.Array:
    """log p(z) of a flow prior, without the constant of the normal distribution."""
    half, log_det = case.latent_size // 2, jnp.zeros(z.shape[:-1])
    order = orders(case)
    for index, (before, now) in enumerate(itertools.pairwise([order[0], *order])):
        z = z[..., before.argsort()[now]] if index else z
        kept, moved = z[..., :half], z[..., half:]
        raw = apply(case, f"coupling_{index}", weights, kept.reshape(-1, half))
        shift, log_scale = jnp.split(raw.reshape(*z.shape[:-1], -1), 2, axis=-1)
        log_scale = LARGEST_LOG_SCALE * jnp.tanh(log_scale / LARGEST_LOG_SCALE)
        z = jnp.concatenate([kept, moved * jnp.exp(log_scale) + shift], axis=-1)
        log_det += log_scale.sum(-1)
    return (-0.5 * z**2).sum(-1) + log_det


def ladder(case: Case, weights: Weights, noise: Noise, x: jax.Array) -> jax.Array:
    """A ladder: each q is the product of the prior and of what x suggests."""
    features, found = x, {}
    for level in range(len(case.levels), 0, -1):
        features = found[level] = apply(case, f"up_{level}", weights, features)
    state, prior_loc, prior_scale, loss = x, 0.0, 1.0, 0.0
    for level, own in enumerate(noise, 1):
        loc, scale = _normal(apply(case, f"q_{level}", weights, found[level]))
        if level > 1:
            prior_loc, prior_scale = _normal(apply(case, f"p_{level}", weights, state))
        total = scale**2 + prior_scale**2
        loc = prior_loc + prior_scale**2 / total * (loc - prior_loc)
        scale = scale * prior_scale * jax.lax.rsqrt(total)
        ratio, shift = scale / prior_scale, (loc - prior_loc) / prior_scale
        loss += (0.5 * (ratio**2 + shift**2 - 1) - jnp.log(ratio)).sum(-1)
        state = apply(case, f"down_{level}", weights, loc + scale * own[0])
    decoded = apply(case, "decoder", weights, state)
    return (loss + _distortion(case, x, decoded)[0]).mean()


def codes(
    case: Case, weights: Weights, averages: Averages, x: jax.Array
) -> tuple[jax.Array, Averages]:
    """A VQ-VAE, its book and the scale of its likelihood being averages."""
    features = apply(case, "features", weights, apply(case, "encoder", weights, x))
    rows, book = features.reshape(-1, CODE_SIZE), averages["book"]
    chosen = _nearest(rows, book)
    nearest = book[chosen]
    commitment = COMMITMENT * ((jax.lax.stop_gradient(nearest) - rows) ** 2).sum() / len(x)
    z = rows + jax.lax.stop_gradient(nearest - rows)
    residual = x - apply(case, "decoder", weights, z.reshape(features.shape))
    scale = jnp.sqrt(averages["deviation"]) + SMALLEST_SCALE
    each = 0.5 * (residual / scale) ** 2 + jnp.log(scale) + 0.5 * math.log(2 * math.pi)
    rate = features[0, ..., 0].size * math.log(CODES)
    moved = _moved_book(averages, jax.lax.stop_gradient(rows), chosen)
    seen = (1 - FORGOTTEN) * averages["seen"] + len(x)
    error = (jax.lax.stop_gradient(residual) ** 2).mean(axis=(1, 2, 3)).sum()
    deviation = averages["deviation"]
    moved["deviation"] = deviation + (error - len(x) * deviation) / seen
    return each.sum() / len(x) + rate + commitment, {**moved, "seen": seen}


def _nearest(rows: jax.Array, book: jax.Array) -> jax.Array:
    return jnp.argmin(0.5 * (book**2).sum(-1) - rows @ book.T, axis=-1)


def _moved_book(averages: Averages, rows: jax.Array, chosen: jax.Array) -> Averages:
    """The vectors as means of the rows that chose them; a rare one moves to a row."""
    one_hot = jax.nn.one_hot(chosen, CODES)
    counts = DECAY * averages["counts"] + (1 - DECAY) * one_hot.sum(0)
    totals = DECAY * averages["totals"] + (1 - DECAY) * one_hot.T @ rows
    least = REVIVE * counts.mean()
    is_dead = counts < least
    spare = rows[sampled_rows(len(rows))]
    each = len(spare) // CODES
    picks = (averages["updates"] + (jnp.cumsum(is_dead) - 1) * each) % len(spare)
    counts = jnp.where(is_dead, least, counts)
    totals = jnp.where(is_dead[:, None], spare[picks] * least, totals)
    return {
        "book": totals / counts[:, None],
        "counts": counts,
        "totals": totals,
        "updates": averages["updates"] + 1,
    }


def first_averages(case: Case, weights: Weights, x: jax.Array) -> Averages:
    """Returns the averages before the first batch: a book of the k-means of its features."""
    if case.model != "codes":
        return {}
    features = apply(case, "features", weights, apply(case, "encoder", weights, x))
    rows = features.reshape(-1, CODE_SIZE)
    rows = rows[sampled_rows(len(rows))]
    book = rows[:: len(rows) // CODES]
    for _ in range(LLOYD_STEPS):
        one_hot = jax.nn.one_hot(_nearest(rows, book), CODES)
        counts = one_hot.sum(0)[:, None]
        book = jnp.where(counts > 0, one_hot.T @ rows / jnp.maximum(counts, 1.0), book)
    return {
        "book": book,
        "counts": jnp.zeros([CODES]),
        "totals": jnp.zeros([CODES, CODE_SIZE]),
        "updates": jnp.int32(0),
        "deviation": jnp.float32(1.0),
        "seen": jnp.float32(0.0),
    }


def loss(
    case: Case, weights: Weights, averages: Averages, noise: Noise, x: jax.Array
) -> tuple[jax.Array, Averages]:
    """Mean loss of a batch in nats, and the averages after it."""
    if case.model == "codes":
        return codes(case, weights, averages, x)
    return (ladder if case.model == "ladder" else vae)(case, weights, noise, x), averages
