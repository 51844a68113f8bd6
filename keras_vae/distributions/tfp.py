"""Distributions of TensorFlow Probability, and those that it lacks, rounds badly or is slow at.

The rest of the package takes `tfd` from here; `tfp_modules` imports it.
"""

import collections.abc
import functools
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tensorflow as tf

from keras_vae.distributions.counts import binomial_log_prob, poisson_log_prob
from keras_vae.distributions.tfp_modules import Distributions, split_seed
from keras_vae.networks.steps import sum_over_steps

__all__ = [
    "Binomial",
    "DiscretizedLogistic",
    "FullNormal",
    "Independent",
    "IndependentBernoulli",
    "MixtureOfVectors",
    "Normal",
    "Numbers",
    "OneHotCategorical",
    "Poisson",
    "Sequence",
    "fill_scale_tril",
    "fused_log_prob",
    "has_moments",
    "is_normal",
    "softmax",
    "split_seed",
    "statistic",
    "sum_entries",
    "tfd",
    "typical_scale",
]


if TYPE_CHECKING:
    from tensorflow_probability import distributions as tfd
else:
    tfd = Distributions()

_PRODUCT = 100
"""Factors between 1 and 2 whose product is far from overflow in float32."""

_SLICES = 16

_MOST_AXES = 5
"""Axes that oneDNN's softmax takes."""

_TAILS = 16
"""Tail probabilities summed at once: the mean takes this many times the parameters' memory."""


class Independent(tfd.Independent):
    """Independent entries as one event; the covariance of a vector is diagonal."""

    def _covariance(self) -> tf.Tensor:
        if self.event_shape.rank != 1:
            raise NotImplementedError("The covariance is that of a vector, an event of one axis.")
        return tf.linalg.diag(self.variance())


class Sequence(Independent):
    """Independent entries of a sequence, summed so that absent steps at its end change nothing.

    Args:
        entries: distributions of the entries, with the steps on the first of the event's axes.
        event_rank: number of axes of the event, of which those of one entry are the last.
    """

    def __init__(self, entries: tfd.Distribution, event_rank: int, name: str = "Sequence") -> None:
        parameters = dict(locals())
        super().__init__(entries, event_rank - entries.event_shape.rank, name=name)
        self._parameters = parameters

    def _sum_fn(self) -> Callable[..., tf.Tensor]:
        return _sum_of_steps


def _sum_of_steps(x: tf.Tensor, axis: collections.abc.Sequence[int]) -> tf.Tensor:
    """Sums over the last axes, the first of which is that of the steps."""
    rest = list(range(1 - len(axis), 0))
    return sum_over_steps(tf.reduce_sum(x, rest) if rest else x, -1)


def sum_entries(distribution: tfd.Independent, log_prob: tf.Tensor) -> tf.Tensor:
    """Sums the log-probabilities of the entries of an event."""
    entries = log_prob.shape.rank - distribution.batch_shape.rank
    return distribution._sum_fn()(log_prob, axis=list(range(-entries, 0)))


def statistic(
    distribution: tfd.Distribution, name: Literal["mean", "stddev"], needed_by: str
) -> tf.Tensor:
    """Computes the mean or standard deviation of a posterior.

    Args:
        distribution: q(z | x).
        name: "mean" or "stddev".
        needed_by: what needs it, for the message.

    Raises:
        ValueError: if the posterior has none in closed form, like most flows, or is discrete.
    """
    if name == "stddev" and getattr(distribution, "is_discrete", False):
        raise ValueError(
            f"{needed_by} moves or measures continuous latents, and {distribution.name} is a "
            "distribution over codes. `elbo`, `sample` and log_marginal by importance sampling "
            "work for codes, and log_marginal(method='enumeration') is exact where they are few."
        )
    try:
        return getattr(distribution, name)()
    except NotImplementedError as error:
        word = "mean" if name == "mean" else "standard deviation"
        raise ValueError(
            f"{needed_by} needs the {word} of q(z | x), and {distribution.name} has none in closed "
            "form. `elbo`, `sample` and `log_marginal` by importance sampling or quadrature need "
            "only draws; for a reconstruction decode a draw, "
            "vae.decode(vae.encode(x).sample(seed=0)).mean()."
        ) from error


def has_moments(distribution: tfd.Distribution) -> bool:
    """Tells whether a distribution has mean and standard deviation in closed form."""
    try:
        distribution.mean()
        distribution.stddev()
    except (NotImplementedError, ValueError):
        return False
    return True


def typical_scale(distribution: tfd.Distribution, needed_by: str) -> tf.Tensor:
    """Returns the standard deviation, or of a flow the scale that multiplies its noise.

    It sets the size of a step, on which no result depends but by its error.

    Raises:
        ValueError: if the distribution has neither, or is one of unit vectors.
    """
    if getattr(distribution, "is_on_sphere", False):
        raise ValueError(
            f"{needed_by} moves latents in every direction, and those of {distribution.name} keep "
            "length 1: choose method='importance'."
        )
    scale = getattr(distribution, "typical_scale", None)
    return statistic(distribution, "stddev", needed_by) if scale is None else scale


class Normal(tfd.Normal):
    """Normal distribution whose log-density is that of (x - loc) / scale.

    TFP subtracts loc / scale from x / scale, which leaves float32 no digits if loc is large.
    """

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        loc, scale = tf.convert_to_tensor(self.loc), tf.convert_to_tensor(self.scale)
        normaliser = tf.math.log(scale) + 0.5 * math.log(2.0 * math.pi)
        return -0.5 * tf.math.square((x - loc) / scale) - normaliser


@tfd.RegisterKL(Normal, Normal)
def _kl_normal(q: Normal, p: Normal, name: str | None = None) -> tf.Tensor:
    """Computes KL(q || p) = 1/2 (r^2 + ((m_q - m_p) / s_p)^2 - 1) - log r, r = s_q / s_p."""
    with tf.name_scope(name or "kl_normal"):
        ratio = q.scale / p.scale
        shift = (q.loc - p.loc) / p.scale
        excess = (ratio - 1.0) * (ratio + 1.0)
        return 0.5 * (excess + tf.math.square(shift)) - tf.math.log(ratio)


def softmax(logits: tf.Tensor) -> tf.Tensor:
    """Returns the softmax over the last axis, of any rank: the CPU's own kernel has at most 5."""
    if logits.shape.rank is not None and logits.shape.rank <= _MOST_AXES:
        return tf.nn.softmax(logits)
    flat = tf.nn.softmax(tf.reshape(logits, [-1, logits.shape[-1]]))
    return tf.reshape(flat, tf.shape(logits))


class OneHotCategorical(tfd.OneHotCategorical):
    """A one-hot categorical distribution whose mean has any number of axes."""

    def _mean(self) -> tf.Tensor:
        return softmax(self.logits)


class Poisson(tfd.Poisson):
    """Poisson distribution with the log-probability of `keras_vae.counts`."""

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return poisson_log_prob(x, tf.convert_to_tensor(self.log_rate))


class Binomial(tfd.Binomial):
    """Binomial distribution with the log-probability of `keras_vae.counts`."""

    def _log_prob(self, counts: tf.Tensor) -> tf.Tensor:
        total_count = tf.convert_to_tensor(self.total_count)
        return binomial_log_prob(counts, total_count, tf.convert_to_tensor(self.logits))


class IndependentBernoulli(tfd.Independent):
    """Independent Bernoulli entries of an event, log p(x) = sum x logits - softplus(logits).

    Args:
        logits: log-odds [..., *event_shape].
        event_rank: number of axes of the event.
    """

    def __init__(
        self, logits: tf.Tensor, event_rank: int, name: str = "IndependentBernoulli"
    ) -> None:
        parameters = dict(locals())
        entries = tfd.Bernoulli(logits=logits, dtype=logits.dtype)
        super().__init__(entries, event_rank, name=name)
        self._parameters = parameters
        self._event_rank = event_rank

    def _log_prob(self, event: tf.Tensor) -> tf.Tensor:
        logits, rank = self.distribution.logits, self._event_rank
        chosen = tf.cast(event, logits.dtype) * logits - tf.stop_gradient(tf.nn.relu(logits))
        return tf.reduce_sum(chosen, list(range(-rank, 0))) - _sum_remainder(_flat(logits, rank))


def fused_log_prob(distribution: tfd.Distribution, event: tf.Tensor) -> tf.Tensor:
    """Computes the log-probability; that of Bernoulli distributions in one kernel of XLA.

    TensorFlow passes over memory once for each of nine operations; XLA does so once. The kernel
    takes most of a second to compile, has no gradient and must not be part of an exported graph.
    """
    if not isinstance(distribution, IndependentBernoulli):
        return distribution.log_prob(event)
    return _fused_bernoulli(distribution.distribution.logits, event, distribution._event_rank)


@tf.function(jit_compile=True, autograph=False)
def _fused_bernoulli(logits: tf.Tensor, event: tf.Tensor, rank: int) -> tf.Tensor:
    """Computes the sums in chunks, which XLA fuses into one vectorised loop, unlike a reduction."""
    size = math.prod(logits.shape[-rank:])
    count = next(n for n in range(_SLICES, 0, -1) if size % n == 0)
    logits, event = (
        tf.split(tf.reshape(part, tf.concat([tf.shape(part)[:-rank], [size]], 0)), count, axis=-1)
        for part in (logits, tf.cast(event, logits.dtype))
    )
    total, product = 0.0, 1.0
    for logit, x in zip(logits, event, strict=True):
        total += x * logit - tf.nn.relu(logit)
        product *= 1.0 + tf.exp(-tf.abs(logit))
    return tf.reduce_sum(total - tf.math.log(product), axis=-1)


def _flat(values: tf.Tensor, event_rank: int) -> tf.Tensor:
    """Folds the event's axes into two, [..., G, W], with G the largest divisor up to 100."""
    size = math.prod(values.shape[-event_rank:])
    group = next(n for n in range(_PRODUCT, 0, -1) if size % n == 0)
    return tf.reshape(
        values, tf.concat([tf.shape(values)[:-event_rank], [group, size // group]], 0)
    )


@tf.custom_gradient
def _sum_remainder(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Sums log(1 + exp(-|x|)) over the last two axes, with the gradient of all of softplus.

    softplus(x) = max(x, 0) + log(1 + exp(-|x|)). The first term is subtracted from x times the
    event entry by entry, where it cancels, and held constant there. Logarithms are
    expensive: each is taken of a product over the last axis but one, whose factors lie between 1
    and 2.
    """
    factors = 1.0 + tf.exp(-tf.abs(x))
    logs = tf.math.log(tf.reduce_prod(factors, axis=-2))
    total = tf.reduce_sum(logs, axis=-1)
    return total, lambda upstream: upstream[..., tf.newaxis, tf.newaxis] * tf.math.sigmoid(x)


class Numbers(tfd.Distribution):
    """A distribution of single numbers; a subclass defines `_log_prob`, `_mean` and `_sample_n`.

    Args:
        name: name of the distribution.
        tensors: parameters by name; their shapes broadcast to the batch shape.
        vectors: parameters by name of which each number has several, on a last axis more.
        constants: other arguments of the constructor.
    """

    def __init__(
        self,
        name: str,
        tensors: dict[str, tf.Tensor],
        vectors: dict[str, tf.Tensor] | None = None,
        **constants: Any,
    ) -> None:
        with tf.name_scope(name) as scope:
            self._tensors, self._vectors = tuple(tensors), tuple(vectors or {})
            tensors = {**tensors, **(vectors or {})}
            dtype = tf.convert_to_tensor(next(iter(tensors.values()))).dtype
            for key, value in tensors.items():
                setattr(self, key, tf.convert_to_tensor(value, dtype=dtype))
            super().__init__(
                dtype=dtype,
                reparameterization_type=tfd.NOT_REPARAMETERIZED,
                validate_args=False,
                allow_nan_stats=True,
                parameters={**tensors, **constants, "name": name},
                name=scope,
            )

    def _batch_shape(self) -> tf.TensorShape:
        shapes = [getattr(self, key).shape for key in self._tensors]
        shapes += [getattr(self, key).shape[:-1] for key in self._vectors]
        return functools.reduce(tf.broadcast_static_shape, shapes)

    def _batch_shape_tensor(self, **_: tf.Tensor) -> tf.Tensor:
        shapes = [tf.shape(getattr(self, key)) for key in self._tensors]
        shapes += [tf.shape(getattr(self, key))[:-1] for key in self._vectors]
        return functools.reduce(tf.broadcast_dynamic_shape, shapes)

    def _inverted(
        self,
        inverse: Callable[..., tf.Tensor],
        n: int,
        seed: tf.Tensor,
        *parameters: tf.Tensor,
    ) -> tf.Tensor:
        """Draws n times by inversion, which takes float32."""
        u = tfd.Uniform().sample(tf.concat([[n], self.batch_shape_tensor()], axis=0), seed=seed)
        draw = inverse(u, *(tf.cast(part, u.dtype) for part in parameters))
        return tf.cast(draw, self.dtype)

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _event_shape_tensor(self, *_: tf.Tensor, **__: tf.Tensor) -> tf.Tensor:
        return tf.constant([], dtype=tf.int32)

    def _default_event_space_bijector(self) -> None:
        return None


class DiscretizedLogistic(Numbers):
    r"""A logistic distribution rounded to the integers 0 .. levels-1, the outer bins open.

    P(x = k) = F(k + 1/2) - F(k - 1/2), F(t) = sigmoid((t - loc) / scale), F(-1/2) := 0 and
    F(levels - 1/2) := 1. With a = (k + 1/2 - loc) / scale and b = a - 1/scale the difference is
    sigmoid(a) sigmoid(-b) (1 - exp(-1/scale)), finite in the logarithm for any parameters.

    Args:
        loc: centre of the logistic, in levels; any shape.
        scale: its scale, in levels, positive; broadcasts with `loc`.
        levels: number of integers, at least 2.

    Source: Salimans, Karpathy, Chen and Kingma (2017), PixelCNN++, arXiv:1701.05517.
    """

    loc: tf.Tensor
    scale: tf.Tensor

    def __init__(
        self, loc: tf.Tensor, scale: tf.Tensor, levels: int, name: str = "DiscretizedLogistic"
    ) -> None:
        self.levels = levels
        super().__init__(name, {"loc": loc, "scale": scale}, levels=levels)

    def _log_prob(self, event: tf.Tensor) -> tf.Tensor:
        upper = (event + 0.5 - self.loc) / self.scale
        lower = (event - 0.5 - self.loc) / self.scale
        below_upper = -tf.math.softplus(-upper)
        above_lower = -tf.math.softplus(lower)
        width = tf.math.log(-tf.math.expm1(-1.0 / self.scale))
        log_prob = below_upper + above_lower + width
        log_prob = tf.where(event < 0.5, below_upper, log_prob)
        return tf.where(event > self.levels - 1.5, above_lower, log_prob)

    def _sample_n(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        draw = tfd.Logistic(self.loc, self.scale).sample(n, seed=seed)
        return tf.clip_by_value(tf.round(draw), 0.0, self.levels - 1.0)

    def _mean(self) -> tf.Tensor:
        loc, scale = self.loc[..., tf.newaxis], self.scale[..., tf.newaxis]
        parts = []
        for start in range(1, self.levels, _TAILS):
            edges = np.arange(start, min(start + _TAILS, self.levels)) - 0.5
            tails = (loc - tf.constant(edges, loc.dtype)) / scale
            parts.append(tf.reduce_sum(tf.math.sigmoid(tails), axis=-1))
        return functools.reduce(operator.add, parts)


class FullNormal(tfd.MultivariateNormalTriL):
    """A normal distribution with full covariance and a closed divergence from diagonal ones."""


class MixtureOfVectors(tfd.MixtureSameFamily):
    """A mixture of distributions over vectors, whose density and moments keep static shapes."""

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        log_weights = tf.math.log(self.mixture_distribution.probs_parameter())
        each = self.components_distribution.log_prob(x[..., tf.newaxis, :])
        return tf.reduce_logsumexp(each + log_weights, axis=-1)

    def _mean(self) -> tf.Tensor:
        return self._average(self.components_distribution.mean())

    def _variance(self) -> tf.Tensor:
        components = self.components_distribution
        shift = components.mean() - self._mean()[..., tf.newaxis, :]
        return self._average(components.variance() + shift**2)

    def _average(self, values: tf.Tensor) -> tf.Tensor:
        """Computes the weighted mean over the components of values [..., K, L], [..., L]."""
        weights = self.mixture_distribution.probs_parameter()
        return tf.reduce_sum(weights[..., tf.newaxis] * values, axis=-2)


def is_normal(distribution: tfd.Distribution) -> bool:
    """Tells whether a distribution over vectors is normal, with any covariance."""
    if isinstance(distribution, tfd.Independent):
        return isinstance(distribution.distribution, tfd.Normal)
    return isinstance(distribution, FullNormal)


@tfd.RegisterKL(FullNormal, tfd.Independent)
def _kl_full_diagonal(q: FullNormal, p: tfd.Independent, name: str | None = None) -> tf.Tensor:
    """Computes 1/2 (|inv(P) S|^2 + |inv(P)(m_p - m_q)|^2 - N) + log|P| - log|S|."""
    base = p.distribution
    if not isinstance(base, tfd.Normal) or base.batch_shape.rank is None:
        raise NotImplementedError(f"No closed KL from {q.name} to Independent({base.name}).")
    with tf.name_scope(name or "kl_full_diagonal"):
        scale_tril = q.scale.to_dense()
        log_det = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(scale_tril)), axis=-1)
        whitened = scale_tril / base.scale[..., tf.newaxis]
        shift = (base.loc - q.loc) / base.scale
        per_latent = tf.reduce_sum(whitened**2, axis=-1) + shift**2 - 1.0
        scale_term = tf.math.log(base.scale) * tf.ones_like(per_latent)
        return tf.reduce_sum(0.5 * per_latent + scale_term, axis=-1) - log_det


def fill_scale_tril(
    raw: tf.Tensor, size: int, positive: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Makes a lower triangular factor [..., size, size] with `positive` on the diagonal.

    Args:
        raw: unconstrained numbers [..., size (size + 1) / 2]; the first `size` are the diagonal,
            the rest the strict lower triangle, row by row.
        size: number of rows.
        positive: map of the reals to the positive reals.
    """
    diagonal, below = raw[..., :size], raw[..., size:]
    rows = [
        tf.concat(
            [
                below[..., row * (row - 1) // 2 : row * (row + 1) // 2],
                positive(diagonal[..., row : row + 1]),
                tf.zeros_like(diagonal[..., row + 1 :]),
            ],
            axis=-1,
        )
        for row in range(size)
    ]
    return tf.stack(rows, axis=-2)
