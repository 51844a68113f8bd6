"""Draws of counts by inversion: their probabilities are visited outwards from the mode."""

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_vae.random.elementary import horner, log1p, log1p_near
from keras_vae.random.in_a_graph import in_a_graph
from keras_vae.random.philox import Tensor

__all__ = [
    "beta_binomial",
    "binomial",
    "multinomial",
    "negative_binomial",
    "poisson",
    "zero_inflated_negative_binomial",
    "zero_inflated_poisson",
]


def _walk(
    u: Tensor,
    start: Tensor,
    mass: Tensor,
    up: Callable[[Tensor], Tensor],
    down: Callable[[Tensor], Tensor],
) -> Tensor:
    """Inverts a unimodal distribution on the integers, visited outwards from `start`.

    The masses of start, start + 1, start - 1, start + 2, ... are subtracted from u until it is
    negative; the last integer visited is the draw. Any order of the support gives the distribution.

    Args:
        u: Uniforms.
        start: First integer, at or near the mode, as float32 of the shape of `u`.
        mass: Its probability.
        up: p(k + 1) / p(k) as a function of k.
        down: p(k - 1) / p(k) as a function of k.
    """

    def is_open(_: Tensor, rest: Tensor, __: Tensor, above: Tensor, below: Tensor) -> Tensor:
        return tf.reduce_any((rest >= 0.0) & (above + below > 2.0**-36))

    def visit(
        step: Tensor, rest: Tensor, draw: Tensor, above: Tensor, below: Tensor
    ) -> tuple[Tensor, ...]:
        above = above * up(start + step)
        after = rest - above
        draw = tf.where((rest >= 0.0) & (after < 0.0), start + (step + 1.0), draw)
        below = below * down(start - step)
        rest = after - below
        draw = tf.where((after >= 0.0) & (rest < 0.0), start - (step + 1.0), draw)
        return step + 1.0, rest, draw, above, below

    state = (tf.constant(0.0), u - mass, start, mass, mass)
    return tf.while_loop(is_open, visit, state, maximum_iterations=2**14)[2]


def _stirling_remainder(n: Tensor) -> Tensor:
    """Computes log n! - (n + 1/2) log n + n - log(2 pi) / 2, for n >= 8."""
    return horner(1.0 / (n * n), [1 / 12, -1 / 360, 1 / 1260]) / n


def _deviance(k: Tensor, excess: Tensor) -> Tensor:
    """Computes the deviance k log(k / m) + m - k for m = k + excess, |excess| <= 1, k >= 8."""
    ratio = excess / k
    return excess * ratio * horner(ratio, [(-1) ** j / (j + 2) for j in range(8)])


@in_a_graph
def poisson(u: Tensor, rate: Tensor) -> Tensor:
    """Draws from Poisson distributions by inversion, visiting counts outwards from the mode.

    Below a rate of 8, counts are visited from 0. The number of steps is the largest distance of a
    draw from the mode, about 5 sqrt(rate). The distribution is exact except for rounding: of 2^20
    equidistant uniforms, every count gets its share to within one for rates up to 1e4, and to
    within two up to 1e5. For rates above 2^20, the steps, at most 16384, may not reach the tails.

    Args:
        u: Uniforms in (0, 1), float32.
        rate: Mean, at least 0, of a shape that broadcasts to that of `u`.

    Returns:
        float32, whole numbers; NaN where the rate is NaN.
    """
    rate = tf.broadcast_to(rate, tf.shape(u))
    is_small = rate < 8.0
    mode = tf.where(is_small, 0.0, tf.floor(rate))
    center = tf.maximum(mode, 8.0)
    log_ratio = -_stirling_remainder(center) - _deviance(center, rate - center)
    at_mode = tf.exp(tf.where(is_small, -rate, log_ratio))
    mass = at_mode * tf.where(is_small, 1.0, tf.math.rsqrt(2.0 * math.pi * center))
    floor = tf.maximum(rate, 1e-30)
    return _walk(u, mode, mass, lambda k: rate / (k + 1.0), lambda k: k / floor)


@in_a_graph
def binomial(u: Tensor, total_count: Tensor, probs: Tensor) -> Tensor:
    """Draws from binomial distributions by inversion, visiting counts outwards from the mode.

    The rarer of success and failure is counted. If its mean is below 8, counts are visited from 0.
    Steps and accuracy are those of `poisson`, with the variance in place of the rate.

    Args:
        u: Uniforms in (0, 1), float32.
        total_count: Number of trials, whole, float32, of a shape that broadcasts to that of `u`.
        probs: Probability of success, likewise.

    Returns:
        float32, whole numbers from 0 to `total_count`.
    """
    n = tf.broadcast_to(total_count, tf.shape(u))
    probs = tf.broadcast_to(probs, tf.shape(u))
    is_flipped = probs > 0.5
    p = tf.where(is_flipped, 1.0 - probs, probs)
    is_small = n * p < 8.0

    ratio = p / (2.0 - p)
    log_failure = -ratio * horner(ratio * ratio, [2.0 / (2 * k + 1) for k in range(9)])

    mode = tf.where(is_small, 0.0, tf.floor((n + 1.0) * p))
    hits, trials = tf.maximum(mode, 8.0), tf.maximum(n, 16.0)
    misses = trials - hits
    excess = trials * p - hits
    log_ratio = (
        _stirling_remainder(trials)
        - _stirling_remainder(hits)
        - _stirling_remainder(misses)
        - _deviance(hits, excess)
        - _deviance(misses, -excess)
    )
    at_mode = tf.exp(tf.where(is_small, n * log_failure, log_ratio))
    spread = 2.0 * math.pi * hits * (misses / trials)
    mass = at_mode * tf.where(is_small, 1.0, tf.math.rsqrt(spread))

    odds = tf.maximum(p, 1e-30) / (1.0 - p)
    draw = _walk(
        u,
        mode,
        mass,
        lambda k: (n - k) / (k + 1.0) * odds,
        lambda k: k / ((n - k + 1.0) * odds),
    )
    return tf.where(is_flipped, n - draw, draw)


@in_a_graph
def negative_binomial(u: Tensor, mean: Tensor, dispersion: Tensor) -> Tensor:
    """Draws from negative binomial distributions by inversion, in blocks outwards from the mode.

    With peak = m - m / t and tail = 1 + m / t, p(k + 1) / p(k) - 1 = (peak / (k + 1) - 1) / tail.
    Where the mode is below 8 or the dispersion below 1, the counts are visited from 0. A block is
    as wide as a 128th of its counts and of the standard deviation (of m / t for t < 1), over which
    the probabilities are all but equal, so that no draw takes more than about 3000 steps. Of 2^14
    equidistant uniforms every count gets its share to within one.

    Args:
        u: Uniforms in (0, 1), float32.
        mean: Mean m, at least 0, of a shape that broadcasts to that of `u`.
        dispersion: Positive number t, likewise; the variance is m + m^2 / t.

    Returns:
        float32, whole numbers; NaN where the mean is NaN.
    """
    m = tf.broadcast_to(mean, tf.shape(u))
    t = tf.broadcast_to(dispersion, tf.shape(u))
    tail = 1.0 + m / t
    peak = m - m / t
    is_small = (peak < 8.0) | (t < 1.0)
    mode = tf.where(is_small, 0.0, tf.floor(peak))

    # The mass at the mode k is that of k successes among n = k + t trials, times t / n.
    k, failures = tf.maximum(mode, 8.0), tf.maximum(t, 1.0)
    excess = tf.clip_by_value((m - k) / tail, 0.0, 1.0)
    log_ratio = (
        _stirling_remainder(k + failures)
        - _stirling_remainder(k)
        - _stieltjes_remainder(failures)
        - _deviance(k, excess)
        + failures * log1p(-tf.minimum(excess / failures, 1.0 - 2.0**-20))
        + excess
    )
    at_mode = tf.exp(tf.where(is_small, -t * log1p(m / t), log_ratio))
    spread = 2.0 * math.pi * k * (1.0 + k / failures)
    mass = at_mode * tf.where(is_small, 1.0, tf.math.rsqrt(spread))
    width = tf.where(t < 1.0, tail, tf.sqrt(m * tail))

    def size(edge: Tensor) -> Tensor:
        return tf.maximum(1.0, tf.floor(tf.minimum(edge, width) / 128.0))

    def up(density: Tensor, middle: Tensor, distance: Tensor) -> Tensor:
        return _moved(density, (peak / middle - 1.0) / tail, distance)

    def down(density: Tensor, middle: Tensor, distance: Tensor) -> Tensor:
        change = (middle - peak) / tf.maximum(peak + (tail - 1.0) * middle, 1e-30)
        return _moved(density, tf.where(middle > 0.0, change, -1.0), distance)

    blocks = _Blocks(up, down, size)
    return _walk_in_blocks(u, mode, mass, blocks, 2.0**-36 / size(width))


@in_a_graph
def beta_binomial(u: Tensor, total_count: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Draws from beta-binomial distributions by inversion, in blocks outwards from the mode.

    With n trials, p(k) / p(k - 1) = (n - k + 1) (k - 1 + a) / (k (n - k + b)), which is 1 plus
    ((n + 1) (a - 1) - k (a + b - 2)) / (k (n - k + b)). The rarer of success and failure is
    counted, and visited from 0 where its shape is below 1. The visited probabilities are summed
    before they are inverted, so none is needed in closed form. Blocks and accuracy are those of
    `negative_binomial`.

    Args:
        u: Uniforms in (0, 1), float32.
        total_count: Number of trials, whole, float32, of a shape that broadcasts to that of `u`.
        a, b: Positive shapes of the beta distribution of the probability of success, likewise.

    Returns:
        float32, whole numbers from 0 to `total_count`.
    """
    n, a, b = (tf.broadcast_to(each, tf.shape(u)) for each in (total_count, a, b))
    is_flipped = a > b
    a, b = tf.minimum(a, b), tf.maximum(a, b)
    both = a + b
    mode = tf.floor((n + 1.0) * (a - 1.0) / tf.maximum(both - 2.0, 1e-30))
    mode = tf.where(a <= 1.0, 0.0, tf.clip_by_value(mode, 0.0, n))
    variance = n * (a / both) * (b / both) * ((n + both) / (1.0 + both))
    width = tf.where(a < 1.0, 1.0 + n / both, tf.sqrt(variance))

    def size(edge: Tensor) -> Tensor:
        return tf.maximum(1.0, tf.floor(tf.minimum(tf.minimum(edge, n - edge), width) / 128.0))

    def slope(middle: Tensor) -> Tensor:
        return (n + 1.0) * (a - 1.0) - middle * (both - 2.0)

    def up(density: Tensor, middle: Tensor, distance: Tensor) -> Tensor:
        old = middle * tf.maximum(n - middle + b, 1e-30)
        new = tf.maximum(n - middle + 1.0, 0.0) * (middle - 1.0 + a)
        return _moved(density, slope(middle) / old, distance, new / old)

    def down(density: Tensor, middle: Tensor, distance: Tensor) -> Tensor:
        old = tf.maximum((n - middle + 1.0) * (middle - 1.0 + a), 1e-30)
        return _moved(density, -slope(middle) / old, distance, middle * (n - middle + b) / old)

    blocks = _Blocks(up, down, size)
    least = tf.where(b < 1.0, 0.0, 2.0**-36)  # two modes, at the ends
    total = _mass_of_blocks(mode, blocks, least)
    draw = _walk_in_blocks(u * total, mode, tf.ones_like(u), blocks, least)
    return tf.where(is_flipped, n - draw, draw)


def splits(size: int) -> int:
    """Returns how many uniforms one draw of `multinomial` takes for a number of categories."""
    return 2 ** (size - 1).bit_length() - 1


def multinomial(u: Tensor, total_count: Tensor, logits: Tensor) -> Tensor:
    """Draws from multinomial distributions by halving the categories again and again.

    The counts of either half are a binomial split of those of both, which `binomial` draws.

    Args:
        u: Uniforms in (0, 1), float32 `[..., U]`, U at least `splits(K)`.
        total_count: Number of trials, whole, float32 `[...]`.
        logits: Unnormalised log-probabilities `[..., K]`.

    Returns:
        float32 `[..., K]`, whole numbers whose sum is `total_count`.
    """
    size, leading = logits.shape[-1], tf.shape(u)[:-1]
    weights = tf.exp(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
    weights = tf.broadcast_to(weights, tf.concat([leading, [size]], axis=0))
    missing = [*[[0, 0]] * (len(u.shape) - 1), [0, splits(size) + 1 - size]]
    halves = [tf.pad(weights, missing)]
    while halves[0].shape[-1] > 1:
        halves.insert(0, halves[0][..., 0::2] + halves[0][..., 1::2])
    counts = tf.broadcast_to(total_count, leading)[..., None]
    for weights in halves[1:]:
        left, right, nodes = weights[..., 0::2], weights[..., 1::2], weights.shape[-1] // 2
        rarer = tf.minimum(left, right) / tf.maximum(left + right, 1e-30)
        hits = binomial(u[..., nodes - 1 : 2 * nodes - 1], counts, rarer)
        first = tf.where(left <= right, hits, counts - hits)
        pairs = tf.stack([first, counts - first], axis=-1)
        counts = tf.reshape(pairs, tf.concat([leading, [2 * nodes]], axis=0))
    return counts[..., :size]


def zero_inflated_poisson(u: Tensor, gate_logits: Tensor, rate: Tensor) -> Tensor:
    """Draws from zero-inflated Poisson distributions: 0 where u < sigmoid(gate_logits).

    Where it is not, the rest of u is spread over (0, 1) and inverted by `poisson`.

    Args:
        u: Uniforms in (0, 1), float32.
        gate_logits: Log-odds of an excess zero, of a shape that broadcasts to that of `u`.
        rate: Mean of the other counts, likewise.

    Returns:
        float32, whole numbers.
    """
    is_open, rest = _through_gate(u, gate_logits)
    return tf.where(is_open, poisson(rest, rate), 0.0)


def zero_inflated_negative_binomial(
    u: Tensor, gate_logits: Tensor, mean: Tensor, dispersion: Tensor
) -> Tensor:
    """Draws from zero-inflated negative binomial distributions: 0 where u < sigmoid(gate_logits).

    Where it is not, the rest of u is spread over (0, 1) and inverted by `negative_binomial`.

    Args:
        u: Uniforms in (0, 1), float32.
        gate_logits: Log-odds of an excess zero, of a shape that broadcasts to that of `u`.
        mean, dispersion: Those of the other counts, likewise.

    Returns:
        float32, whole numbers.
    """
    is_open, rest = _through_gate(u, gate_logits)
    return tf.where(is_open, negative_binomial(rest, mean, dispersion), 0.0)


def _through_gate(u: Tensor, gate_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where u is at least sigmoid(gate_logits), and uniforms that are u there."""
    closed = tf.sigmoid(gate_logits)
    rest = (u - closed) / tf.maximum(tf.sigmoid(-gate_logits), 1e-30)
    return u >= closed, tf.clip_by_value(rest, 2.0**-25, 1.0 - 2.0**-24)


def _stieltjes_remainder(n: Tensor) -> Tensor:
    """Computes `_stirling_remainder` for n >= 1 by the continued fraction of Stieltjes."""
    result = n
    for part in (29944523 / 19733142, 22999 / 22737, 195 / 371, 53 / 210, 1 / 30):
        result = n + part / result
    return 1.0 / (12.0 * result)


class _Blocks(NamedTuple):
    """A distribution on the counts, as blocks that are taken for equally probable.

    Attributes:
        up: Function of a density, k and a distance to the density that far above, by the ratio
            p(k) / p(k - 1) midway; k may be fractional.
        down: The same downwards, by p(k - 1) / p(k).
        size: Number of counts, at least one, in the block that begins at k.
    """

    up: Callable[[Tensor, Tensor, Tensor], Tensor]
    down: Callable[[Tensor, Tensor, Tensor], Tensor]
    size: Callable[[Tensor], Tensor]

    def begin(self, start: Tensor, mass: Tensor) -> tuple[Tensor, ...]:
        """Returns the state around `start`: first count, last centre, last density, both ways."""
        return start + 1.0, start, mass, start - 1.0, start, mass

    def above(self, first: Tensor, last: Tensor, density: Tensor) -> tuple[Tensor, ...]:
        """Returns the number of counts, centre and density of the next block above."""
        count = self.size(first)
        center = first + 0.5 * (count - 1.0)
        middle = 0.5 * (last + center + 1.0)
        return count, center, self.up(density, middle, center - last)

    def below(self, first: Tensor, last: Tensor, density: Tensor) -> tuple[Tensor, ...]:
        """Returns the number of counts, centre and density of the next block below."""
        count = self.size(first)
        center = first - 0.5 * (count - 1.0)
        middle = tf.maximum(0.5 * (last + center + 1.0), 0.0)
        return count, center, self.down(density, middle, last - center)


def _moved(
    density: Tensor, change: Tensor, distance: Tensor, ratio: Tensor | None = None
) -> Tensor:
    """Moves a density over a distance; `ratio` is 1 + change if that would cancel."""
    many = density * tf.exp(distance * log1p_near(change))
    one = density + density * change if ratio is None else density * ratio
    return tf.where(distance == 1.0, one, many)


def _mass_of_blocks(start: Tensor, blocks: _Blocks, least: Tensor) -> Tensor:
    """Sums the probabilities relative to that of `start`; arguments as for `_walk_in_blocks`."""

    def is_open(_: Tensor, *state: Tensor) -> Tensor:
        return tf.reduce_any(state[2] + state[5] > least)

    def visit(total: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        upper, upper_center, above = blocks.above(*state[:3])
        lower, lower_center, below = blocks.below(*state[3:])
        total = total + (upper * above + lower * below)
        top, bottom = state[0] + upper, state[3] - lower
        return total, top, upper_center, above, bottom, lower_center, below

    one = tf.ones_like(start)
    state = (one, *blocks.begin(start, one))
    return tf.while_loop(is_open, visit, state, maximum_iterations=2**14)[0]


def _walk_in_blocks(
    u: Tensor, start: Tensor, mass: Tensor, blocks: _Blocks, least: Tensor
) -> Tensor:
    """Inverts a distribution on the counts, visiting blocks of them outwards from `start`.

    The masses of the blocks are subtracted from u until it is negative.

    Args:
        u: Uniforms.
        start: First count, at or near the mode, as float32 of the shape of `u`.
        mass: Its probability.
        blocks: The distribution.
        least: Probability of a count below which the rest is left out.
    """

    def is_open(_: Tensor, rest: Tensor, __: Tensor, *state: Tensor) -> Tensor:
        return tf.reduce_any((rest >= 0.0) & (state[2] + state[5] > least))

    def visit(step: Tensor, rest: Tensor, draw: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        top, bottom = state[0], state[3]
        count, upper, above = blocks.above(*state[:3])
        after = rest - count * above
        place = tf.minimum(tf.floor(rest / tf.maximum(above, 1e-30)), count - 1.0)
        draw = tf.where((rest >= 0.0) & (after < 0.0), top + place, draw)
        top = top + count

        count, lower, below = blocks.below(*state[3:])
        rest = after - count * below
        place = tf.minimum(tf.floor(after / tf.maximum(below, 1e-30)), count - 1.0)
        draw = tf.where((after >= 0.0) & (rest < 0.0), bottom - place, draw)
        return step + 1.0, rest, draw, top, upper, above, bottom - count, lower, below

    state = (tf.constant(0.0), u - mass, start, *blocks.begin(start, mass))
    return tf.while_loop(is_open, visit, state, maximum_iterations=2**14)[2]
