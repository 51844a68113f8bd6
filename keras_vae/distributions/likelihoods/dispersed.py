"""Likelihoods of counts more dispersed than Poisson and binomial ones."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, register
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.distributions import count_families, supports
from keras_vae.distributions.base import Parameter
from keras_vae.distributions.likelihoods.sized import (
    OF_CONDITION,
    LogLinked,
    condition_of,
)
from keras_vae.distributions.likelihoods.sources import Source, Sourced, within_reach
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd
from keras_vae.spelling import counted

__all__ = ["BetaBinomial", "NegativeBinomial"]

GroupedMode = Literal["learned", "per_feature", "per_group", "decoder"]

_MODES = ("learned", "per_feature", "per_group", "decoder")


class Dispersed(Sourced):
    """Likelihood of counts with a mean from the decoder and a spread from one of five sources.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        spread: a positive number (fixed), "learned" (one weight), "per_feature" (one weight per
            entry), "per_group" (one weight per entry and group) or "decoder" (computed from z). It
            is the parameter named `spread_name`.
        num_groups: number of groups for "per_group"; the first numbers of the condition are the
            group, one-hot.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if the spread is none of these, or only one of "per_group" and `num_groups` is
            given.
    """

    spread_name: ClassVar[str] = "dispersion"
    of_condition: ClassVar[tuple[str, ...]] = OF_CONDITION

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        spread: float | GroupedMode,
        num_groups: int | None = None,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        name = self.spread_name
        self.num_groups = (
            None if num_groups is None else as_count("num_groups", num_groups, least=1)
        )
        source = Source(
            name,
            spread,
            within_reach,
            weight=f"log_{name}",
            modes=_MODES,
            num_groups=self.num_groups,
        )
        if (spread == "per_group") != (num_groups is not None):
            raise ValueError(
                f"{name}='per_group' goes with num_groups=, the number of groups. Received: "
                f"{name}={spread!r}, num_groups={num_groups!r}"
            )
        super().__init__(event_shape, network, sources=[source], head=head, **kwargs)

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the parameter of the mean, and the spread if it depends on the row."""
        specs = super().parameter_specs()
        if self.num_groups is not None:
            specs[self.spread_name] = Parameter(0, within_reach)
        return specs

    def check_condition(self, c: Any) -> None:
        """Refuses inputs without the group."""
        super().check_condition(c)
        if self.num_groups is None:
            return
        found = condition_of(c, *self._grouped).shape[-1]
        if found < self.num_groups:
            raise ValueError(
                f"{type(self).__name__} has {self.num_groups} groups, one-hot at the start of the "
                f"condition, which has {counted(found, 'number')}. Give a longer one."
            )

    @property
    def _grouped(self) -> tuple[str, str]:
        return type(self).__name__, f"{self.spread_name}='per_group'"

    def at_condition(self, parameters: dict[str, tf.Tensor], c: Any) -> dict[str, tf.Tensor]:
        """Returns the parameters with the spread of the row's group."""
        parameters = super().at_condition(parameters, c)
        if self.num_groups is None:
            return parameters
        group = tf.cast(condition_of(c, *self._grouped)[..., : self.num_groups], self.float_dtype)
        raw = tf.tensordot(group, tf.convert_to_tensor(self.sources[0].raw), axes=1)
        return {**parameters, self.spread_name: within_reach(raw)}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments; `num_groups` only if it is given."""
        groups = {} if self.num_groups is None else {"num_groups": self.num_groups}
        return {**super().get_config(), **groups}


class Overdispersed(Dispersed, LogLinked):
    """Likelihood of counts 0, 1, 2, ... whose spread is called their dispersion.

    Arguments and errors are those of `NegativeBinomial`.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        dispersion: float | GroupedMode = "per_feature",
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(event_shape, network, spread=dispersion, head=head, **kwargs)


@register
class NegativeBinomial(Overdispersed):
    """Likelihood of overdispersed counts, with mean m and variance m + m^2 / dispersion.

        P(x) = Gamma(x + t) / (Gamma(t) x!) (t / (t + m))^t (m / (t + m))^x

    with m = exp(log_mean) and t the dispersion: a Poisson distribution whose rate is drawn from a
    gamma distribution of mean m and shape t. It approaches Poisson(m) as t grows. `size` in R's
    `dnbinom` and the inverse dispersion of scvi-tools are this t.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        dispersion: a positive number (fixed), "learned" (one weight), "per_feature" (one weight per
            entry, the default), "per_group" (one weight per entry and group) or "decoder" (computed
            from z); those that are trained stay between 1e-7 and 1e8.
        num_groups: number of groups for "per_group"; the first numbers of the condition are the
            group, one-hot.
        offset: whether the last number of the condition is the logarithm of the row's size, such as
            a depth of sequencing, which is added to log_mean and not given to the network.
        link: "log", or with an offset also "softmax": means are shares of the size, which sum to 1
            over the last axis.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `dispersion` or `link` is none of these, or something is missing that one of
            them goes with.

    Example:
        >>> likelihood = NegativeBinomial(3, dispersion=2.0)
        >>> likelihood.make_distribution(tf.zeros([3]), 2.0).variance().numpy()
        array([1.5, 1.5, 1.5], dtype=float32)
    """

    joins = True

    reading = (
        "Counts of mean m = exp(log_mean) and variance m + m^2 / dispersion; dispersion is size of "
        "R's dnbinom."
    )

    def mean_specs(self) -> dict[str, Parameter]:
        """Returns one log-mean per entry."""
        return {"log_mean": self.linked()}

    def make_distribution(self, log_mean: tf.Tensor, dispersion: tf.Tensor) -> tfd.Distribution:
        """Returns independent negative binomial distributions."""
        return self.independent(count_families.NegativeBinomial(log_mean, dispersion))

    def draw(self, noise: tf.Tensor, log_mean: tf.Tensor, dispersion: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        mean = tf.exp(log_mean)
        return Draw(self._inverted(random.negative_binomial, noise, mean, dispersion))


@register
class BetaBinomial(Dispersed):
    """Likelihood of counts out of a known total, more dispersed than binomial ones.

        P(x) = C(n, x) B(x + a, n - x + b) / B(a, b),   a = concentration sigmoid(logits)
                                                        b = concentration sigmoid(-logits)

    with n = total_count: a binomial distribution whose probability of success is drawn from a beta
    distribution of mean sigmoid(logits). It approaches Binomial(n, sigmoid(logits)) as the
    concentration grows; the variance is (n + concentration) / (1 + concentration) times that of the
    binomial distribution.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        total_count: number of trials of each entry.
        concentration: a positive number (fixed), "learned" (one weight), "per_feature" (one weight
            per entry, the default), "per_group" (one weight per entry and group) or "decoder"
            (computed from z). Those that are trained stay between 1e-7 and 1e8, and so do a and b.
        num_groups: as for `NegativeBinomial`.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if `total_count` is not a positive integer, or `concentration` is none of these.

    Example:
        >>> likelihood = BetaBinomial(3, total_count=10, concentration=2.0)
        >>> likelihood.make_distribution(tf.zeros([3]), 2.0).variance().numpy()
        array([10., 10., 10.], dtype=float32)
    """

    joins = True

    reading = (
        "x successes of total_count trials, whose probability is drawn from a beta distribution of "
        "mean p = 1 / (1 + exp(-logits)) and shapes concentration p and concentration (1 - p)."
    )
    spread_name = "concentration"

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        total_count: int,
        concentration: float | GroupedMode = "per_feature",
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.total_count = as_count("total_count", total_count, least=1)
        super().__init__(event_shape, network, spread=concentration, head=head, **kwargs)

    @property
    def support(self) -> supports.Support:
        """The integers 0 .. total_count."""
        return supports.integers(self.total_count)

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Leaves the counts as they are; the largest possible one is the number of trials."""
        return Preparation(), {"total_count": max(1, int(facts.top))}

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Returns True: means lie far from half of the trials."""
        return True

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the logits of the mean share of successes, which is kept from 0.001 to 0.999."""
        p = np.clip(mean / self.total_count, 0.001, 0.999)
        return np.log(p) - np.log1p(-p)

    def mean_specs(self) -> dict[str, Parameter]:
        """Returns one logit per entry."""
        return {"logits": Parameter(self.channels)}

    def make_distribution(self, logits: tf.Tensor, concentration: tf.Tensor) -> tfd.Distribution:
        """Returns independent beta-binomial distributions."""
        total_count = tf.constant(self.total_count, logits.dtype)
        shapes = _shapes(logits, concentration)
        return self.independent(count_families.BetaBinomial(total_count, *shapes))

    def draw(self, noise: tf.Tensor, logits: tf.Tensor, concentration: tf.Tensor) -> Draw:
        """Draws by inversion of the distribution function."""
        total_count = tf.constant(self.total_count, logits.dtype)
        shapes = _shapes(logits, concentration)
        return Draw(self._inverted(random.beta_binomial, noise, total_count, *shapes))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "total_count": self.total_count}


def _shapes(logits: tf.Tensor, concentration: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the shapes of the beta distribution of a success's probability."""
    log_both = tf.math.log(concentration)
    return (
        within_reach(log_both - tf.math.softplus(-logits)),
        within_reach(log_both - tf.math.softplus(logits)),
    )
