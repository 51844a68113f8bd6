"""Likelihoods with a centre and a scale: real numbers, and integer levels."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, register
from keras_vae.data import preparation
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import Proposal
from keras_vae.distributions import density_families, supports, tfp
from keras_vae.distributions.base import SMALLEST_SCALE, Likelihood, Parameter, positive
from keras_vae.distributions.likelihoods.sources import Mode, Source, Sourced
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.tfp import tfd
from keras_vae.random.inversion.gammas import STUDENT_UNIFORMS
from keras_vae.replicas import summed
from keras_vae.spelling import counted

__all__ = ["DiscretizedLogistic", "Laplace", "Normal", "StudentT"]

_FORGOTTEN = 0.01
"""Share of its past examples that an optimal scale forgets with each batch."""

ScaleMode = float | Literal["learned", "per_feature", "decoder", "optimal"]


class LocationScale(Sourced):
    """Likelihood with a centre from the decoder and a scale from one of five sources.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        scale: a positive number (fixed), "learned" (one weight), "per_feature" (one weight per
            entry), "decoder" (computed from z) or "optimal" (closed form, see `Normal`).
        head: layer from features to raw parameters; None is one Dense layer.
    """

    scale: ScaleMode
    _default_scale: ScaleMode = 1.0
    _modes: tuple[str, ...] = ("learned", "per_feature", "decoder", "optimal")
    _further: tuple[Source, ...] = ()
    """Sources of parameters beside the scale, which a subclass states before it is initialised."""

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        scale: ScaleMode | None = None,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        given = self._default_scale if scale is None else scale
        sources = [Source("scale", given, self._spread, modes=self._modes), *self._further]
        super().__init__(event_shape, network, sources=sources, head=head, **kwargs)
        if self.scale == "optimal":
            own = {"dtype": self.float_dtype, "autocast": False}
            self.deviation = self.add_weight(
                name="deviation", initializer="ones", trainable=False, aggregation="mean", **own
            )
            self.observations = self.add_weight(
                name="observations",
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",
                **own,
            )

    def mean_specs(self) -> dict[str, Parameter]:
        """Returns the centre."""
        return {"loc": Parameter(self.channels, self._centre)}

    def shared_parameters(self) -> dict[str, tf.Tensor]:
        """Returns the parameters that the decoder does not compute."""
        if self.scale == "optimal":
            return {"scale": self._scale_of(tf.convert_to_tensor(self.deviation))}
        return super().shared_parameters()

    def joined_parameters(self, parts: Sequence[Likelihood]) -> dict[str, tf.Tensor]:
        """Returns those of several parts with the options of this one, [P, ...]."""
        found = super().joined_parameters(parts)
        if self.scale == "optimal":
            deviations = [part.deviation for part in parts]
            found["scale"] = self._scale_of(self.joined(deviations))
        return found

    @property
    def observes(self) -> bool:
        """Whether the scale is the optimal one."""
        return self.scale == "optimal"

    def observe(
        self, x: tf.Tensor, p: tfd.Distribution, sample_weight: tf.Tensor | None = None
    ) -> None:
        """Moves an optimal scale towards its closed form on the present entries of this batch.

        `observations` is the weight of past examples, a hundredth of which is forgotten with each
        batch.
        """
        if not self.observes:
            return
        residual = tf.stop_gradient(x - p.distribution.loc)
        axes = [0, *range(2, residual.shape.rank)]
        if self.missing:
            present = tf.math.is_finite(residual)
            share = tf.cast(present, residual.dtype)
            deviation = self._deviation_of(tf.where(present, residual, tf.zeros_like(residual)))
            weight = tf.reduce_mean(share, axis=axes)
            of_example = tf.math.divide_no_nan(tf.reduce_mean(deviation, axis=axes), weight)
        else:
            of_example = tf.reduce_mean(self._deviation_of(residual), axis=axes)
            weight = tf.ones_like(of_example)
        if sample_weight is not None:
            weight *= tf.cast(sample_weight, weight.dtype)
        total, mass = summed([tf.reduce_sum(weight * of_example), tf.reduce_sum(weight)])
        seen = (1.0 - _FORGOTTEN) * self.observations + mass
        rate = tf.math.divide_no_nan(tf.ones_like(seen), seen)
        self.deviation.assign_add(rate * (total - mass * self.deviation))
        self.observations.assign(seen)

    def _centre(self, raw: tf.Tensor) -> tf.Tensor:
        return raw

    def _spread(self, raw: tf.Tensor) -> tf.Tensor:
        return positive(raw)

    def _deviation_of(self, residual: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no closed-form scale.")

    def _scale_of(self, deviation: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no closed-form scale.")


class _Real(LocationScale):
    """Density of real numbers whose centre is its mean."""

    has_cdf = True

    @property
    def support(self) -> supports.Support:
        """The real numbers."""
        return supports.reals()

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Dequantises images of whole numbers, and standardises the features of other data."""
        return preparation.real(facts, cls.key()), {"scale": facts.scale}

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Tells whether the data is not centred."""
        return not preparation.center

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the mean itself."""
        return mean


def _rivals(facts: Facts) -> tuple[str, ...]:
    """Returns the names of other likelihoods of data for which a normal one is proposed."""
    rivals = ["laplace", "student_t"]
    if facts.are_counts:
        return "poisson", "negative_binomial", *rivals
    if facts.lowest > 0.0:
        rivals += ["gamma", "log_normal"]
    if facts.lowest > 0.0 and facts.highest < 1.0:
        rivals.append("beta")
    return tuple(rivals)


@register
class Normal(_Real):
    """Likelihood of real data: log p = -1/2 |(x - loc) / scale|^2 - sum log scale - D/2 log 2 pi.

    `scale` is a positive number (default 1), "learned" (one weight for all entries), "per_feature"
    (one weight per entry), "decoder" (computed from z) or "optimal": the root mean squared error,
    which maximises the bound in closed form, over examples weighted as in the loss. Each training
    step uses the current scale, so its bound is valid, and then moves the scale to the mean over
    the examples of about the last hundred batches. Source of the optimal scale: Rybkin, Daniilidis
    and Levine (2021), Simple and effective VAE training with calibrated decoders, arXiv:2006.13202.

    Raises:
        ValueError: if `scale` is none of these.

    Example:
        >>> Normal(3, scale="learned").distribution(tf.zeros([4, 2])).event_shape
        TensorShape([3])
    """

    joins = True

    reading = "Normal density with centre loc and standard deviation scale."

    @classmethod
    def proposal(cls, facts: Facts) -> Proposal | None:
        """Proposes the family for any data."""
        is_whole = bool(facts.whole.all())
        numbers = "whole numbers" if is_whole else "real numbers"
        if facts.whole.any() and not is_whole:
            numbers += f" and {counted(int(facts.whole.sum()), 'feature')} of whole numbers"
        reason = f"{facts.kind} of {numbers}"
        return Proposal(cls.key(), {"scale": facts.scale}, reason, _rivals(facts))

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent normal distributions."""
        return self.independent(tfp.Normal(loc, scale))

    def noise(self) -> Noise:
        """Returns one normal number per entry."""
        return Noise(self.event_shape, "normal", random.OBSERVATION)

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws loc + scale noise."""
        return Draw(loc + scale * noise)

    def _deviation_of(self, residual: tf.Tensor) -> tf.Tensor:
        return residual**2

    def _scale_of(self, deviation: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(deviation) + SMALLEST_SCALE


@register
class Laplace(_Real):
    """Likelihood of real data: log p(x | z) = -sum |x - loc| / scale - sum log(2 scale).

    `scale` as for `Normal`; the optimal one is the mean absolute error.

    Example:
        >>> p = Laplace(1, scale=1.0).make_distribution(tf.zeros([1]), tf.ones([1]))
        >>> float(p.log_prob([0.0]))  # -log 2
        -0.693
    """

    joins = True

    reading = "Laplace density with centre loc and scale."

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent Laplace distributions."""
        return self.independent(tfd.Laplace(loc, scale))

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        return Draw(loc + scale * self._inverted(random.laplace, noise))

    def _deviation_of(self, residual: tf.Tensor) -> tf.Tensor:
        return tf.abs(residual)

    def _scale_of(self, deviation: tf.Tensor) -> tf.Tensor:
        return deviation + SMALLEST_SCALE


@register
class StudentT(_Real):
    """Likelihood of real data with outliers: x = loc + scale T, T of Student's distribution.

    The smaller `df`, the heavier the tails: an entry far out costs (df + 1) log |x - loc| nats, not
    half its square, so that one loud column or row does not outweigh all others. It is the
    likelihood of Mattei and Frellsen (2019), MIWAE: deep generative modelling and imputation of
    incomplete data sets, arXiv:1812.02633, with `df="decoder"` and `scale="decoder"`.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        scale: a positive number, "learned", "per_feature" (the default) or "decoder"; the standard
            deviation is scale sqrt(df / (df - 2)).
        df: degrees of freedom: a positive number (fixed), "learned" (one weight), "per_feature"
            (one weight per entry, the default) or "decoder" (computed from z). Those that are
            trained are 3 + softplus of a number that starts at 0, so that mean and variance exist;
            the mean that is reported is `loc`, also for a fixed `df` of at most 1, which has none.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `scale` or `df` is none of these.

    Example:
        >>> StudentT(1, df=4.0, scale=1.0).make_distribution(tf.zeros([1]), 4.0, 1.0).stddev()
        <tf.Tensor: shape=(1,), dtype=float32, numpy=array([1.4142135], dtype=float32)>
    """

    joins = True

    reading = (
        "x = loc + scale T, T of Student's distribution with df degrees of freedom; its standard "
        "deviation is scale sqrt(df / (df - 2))."
    )
    _default_scale = "per_feature"
    _modes = ("learned", "per_feature", "decoder")

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        scale: ScaleMode | None = None,
        df: Mode = "per_feature",
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self._further = (Source("df", df, lambda raw: 3.0 + tf.math.softplus(raw)),)
        super().__init__(event_shape, network, scale=scale, head=head, **kwargs)

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Dequantises images of whole numbers, and standardises the features of other data."""
        return preparation.real(facts, cls.key()), {"scale": "per_feature"}

    def make_distribution(
        self, loc: tf.Tensor, df: tf.Tensor, scale: tf.Tensor
    ) -> tfd.Distribution:
        """Returns independent Student-t distributions."""
        return self.independent(density_families.StudentT(df, loc, scale))

    def noise(self) -> Noise:
        """Returns two uniform numbers per entry."""
        shape = (*self.event_shape, STUDENT_UNIFORMS)
        return Noise(shape, "uniform", random.OBSERVATION)

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, df: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws in polar coordinates."""
        return Draw(loc + scale * self._inverted(random.student_t, noise, df))


@register
class DiscretizedLogistic(LocationScale):
    """Likelihood of integer levels 0 .. levels-1: a logistic distribution integrated over bins.

    P(x = k) = F(k + 1/2) - F(k - 1/2) with the outer bins open, as for 8-bit pixels. Raw parameters
    are relative to the range of levels: at zero the centre is mid-range and the scale an eighth of
    the range. Source: Salimans, Karpathy, Chen and Kingma (2017), PixelCNN++, arXiv:1701.05517.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        levels: number of integer levels, 256 for 8 bits.
        scale: a positive number in levels, "learned", "per_feature" or "decoder" (default).
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `levels` is less than 2 or `scale` is none of these.

    Example:
        >>> p = DiscretizedLogistic(1, levels=3).make_distribution(tf.ones([1]), tf.ones([1]))
        >>> float(sum(p.prob([level]) for level in (0.0, 1.0, 2.0)))
        1.0
    """

    joins = True

    reading = (
        "P(x = k) = F(k + 1/2) - F(k - 1/2), F(t) = 1 / (1 + exp(-(t - loc) / scale)), the outer "
        "levels open."
    )
    _default_scale = "decoder"
    _modes = ("learned", "per_feature", "decoder")

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        levels: int = 256,
        scale: ScaleMode | None = None,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.levels = as_count("levels", levels, least=2)
        super().__init__(event_shape, network, scale=scale, head=head, **kwargs)

    @property
    def support(self) -> supports.Support:
        """The integers 0 .. levels-1."""
        return supports.integers(self.levels - 1)

    @classmethod
    def proposal(cls, facts: Facts) -> Proposal | None:
        """Proposes the family for images of up to 1024 levels."""
        if not facts.are_few_levels:
            return None
        rivals = ("beta_binomial", "mixture_of_logistics", "normal")
        return Proposal(cls.key(), {}, f"images of levels 0 to {facts.top:g}", rivals)

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Leaves the levels as they are; the largest possible one decides their number."""
        return Preparation(), {"levels": max(2, int(facts.top) + 1)}

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Returns True: levels lie far from the middle of their range."""
        return True

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the raw centre at which the distribution has nearly this mean."""
        return mean / (self.levels - 1) - 0.5

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent discretised logistic distributions."""
        return self.independent(tfp.DiscretizedLogistic(loc, scale, self.levels))

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws a logistic number by inversion, rounded to the nearest level."""
        draw = loc + scale * self._inverted(random.logistic, noise)
        return Draw(tf.clip_by_value(tf.round(draw), 0.0, self.levels - 1.0))

    def _centre(self, raw: tf.Tensor) -> tf.Tensor:
        return (self.levels - 1) * (raw + 0.5)

    def _spread(self, raw: tf.Tensor) -> tf.Tensor:
        return (self.levels - 1) * positive(raw) / 8.0

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "levels": self.levels}
