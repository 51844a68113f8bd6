"""Objectives: what `fit` minimises, with the bound it stands for reported beside it.

Every objective returns its loss and, unweighted, the distortion and the rate of the same draws, so
`elbo = -(distortion + rate)` is logged as a bound in nats whatever is optimised.
"""

import abc
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

from keras_vae import estimators
from keras_vae.arguments import as_count, as_weight, register
from keras_vae.estimators import Gradient, Laws

__all__ = ["ELBO", "IWAE", "Objective", "Terms"]


class Terms(NamedTuple):
    """What an objective says of each example, [B], in nats.

    Attributes:
        loss: what is minimised.
        distortion: estimate of -E_q log p(x | z).
        rate: KL(q(z | x) || p(z)), in closed form or estimated.
    """

    loss: tf.Tensor
    distortion: tf.Tensor
    rate: tf.Tensor


class Objective(keras.losses.Loss, abc.ABC):
    """A value to minimise, as a function of the three laws of a batch.

    Variables that a schedule moves (`beta`, `capacity`) are kept by name in `schedulable`; they are
    saved and restored with the model.

    Args:
        num_samples: draws z per example, S.
        gradient: the estimator, see `keras_vae.estimators`.
    """

    _gradients: tuple[Gradient, ...] = ("pathwise",)

    def __init__(self, num_samples: int, gradient: Gradient, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_samples = as_count("num_samples", num_samples, least=1)
        if gradient not in self._gradients:
            raise ValueError(
                f"Invalid value for argument `gradient`. {type(self).__name__} expects one of "
                f"{', '.join(map(repr, self._gradients))}. Received: gradient={gradient!r}"
            )
        self.gradient = gradient
        self.schedulable: dict[str, keras.Variable] = {}

    def check(self, laws: Laws) -> None:
        """Hook of `compile`: refuses laws of which the objective needs what they do not have."""

    @abc.abstractmethod
    def terms(self, laws: Laws, seed: tf.Tensor) -> Terms:
        """Loss, distortion and rate of each example, from one set of draws.

        Args:
            laws: prior, posterior and likelihood of the batch.
            seed: int32 [2], for the draws.
        """

    def save_own_variables(self, store: Any) -> None:
        """Writes the scheduled variables."""
        for name, variable in self.schedulable.items():
            store[name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads the scheduled variables; those that the file lacks keep their values."""
        known = set(store.keys())
        for name, variable in self.schedulable.items():
            if name in known:
                variable.assign(store[name])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"num_samples": self.num_samples, "gradient": self.gradient, "name": self.name}

    def _schedulable(self, name: str, value: float) -> keras.Variable:
        variable = keras.Variable(value, trainable=False, dtype="float64", name=name)
        self.schedulable[name] = variable
        return variable


@register
class ELBO(Objective):
    """Evidence lower bound: loss = distortion + beta * rate, which is -ELBO at beta 1.

    With `free_bits` f the rate in the loss is sum_j max(f, KL_j), so that latents below f nats are
    left alone; with `capacity` C it is |rate - C|. Both act on each example, so the loss does not
    depend on how examples fall into batches. Sources: Kingma and Welling (2014), arXiv:1312.6114;
    Higgins et al. (2017), beta-VAE; Kingma et al. (2016), free bits, arXiv:1606.04934; Burgess et
    al. (2018), capacity, arXiv:1804.03599.

    Args:
        kl: "analytic", "monte_carlo", or None: the closed form where there is one.
        num_samples: draws z per example.
        beta: weight of the rate, at least 0; may be scheduled.
        free_bits: nats per latent that are free; needs laws that factorise over latents.
        capacity: nats that the rate is drawn to; may be scheduled. None leaves it out.
        gradient: "pathwise" or "sticking_the_landing" (which needs the Monte Carlo rate).

    Raises:
        ValueError: if an argument is none of these, or when compiled if the closed form asked for
            does not exist.
    """

    _gradients = ("pathwise", "sticking_the_landing")

    def __init__(
        self,
        *,
        kl: Literal["analytic", "monte_carlo"] | None = None,
        num_samples: int = 1,
        beta: float = 1.0,
        free_bits: float = 0.0,
        capacity: float | None = None,
        gradient: Gradient = "pathwise",
        name: str = "elbo",
    ) -> None:
        super().__init__(num_samples, gradient, name=name)
        if kl not in (None, "analytic", "monte_carlo"):
            raise ValueError(
                "Invalid value for argument `kl`. Expected 'analytic', 'monte_carlo' or None. "
                f"Received: kl={kl!r}"
            )
        if kl == "analytic" and gradient == "sticking_the_landing":
            raise ValueError(
                "Sticking the landing acts on log q(z | x), which the closed form of the rate does "
                "not contain: choose kl='monte_carlo' or gradient='pathwise'."
            )
        beta = as_weight("beta", beta)
        free_bits = as_weight("free_bits", free_bits)
        capacity = None if capacity is None else as_weight("capacity", capacity)
        if free_bits and (kl == "monte_carlo" or gradient != "pathwise" or capacity is not None):
            raise ValueError(
                "free_bits needs the closed form of the rate, latent by latent: leave kl, gradient "
                "and capacity as they are."
            )
        self.kl = kl
        self.free_bits = free_bits
        self.beta = self._schedulable("beta", beta)
        self.capacity = None if capacity is None else self._schedulable("capacity", capacity)

    def terms(self, laws: Laws, seed: tf.Tensor) -> Terms:
        """The bound's two terms, and the loss made of them."""
        z = laws.sample(self.num_samples, seed)
        distortion, rate = estimators.elbo_terms(laws, z, self.kl, self.gradient)
        beta = tf.cast(self.beta.value, rate.dtype)
        return Terms(distortion + beta * self._penalty(laws, rate), distortion, rate)

    def check(self, laws: Laws) -> None:
        """Refuses laws without the closed form that `kl` or `free_bits` needs."""
        if self.kl == "analytic":
            estimators.analytic_rate(laws)
        if self.free_bits:
            estimators.rate_per_latent(laws)

    def _penalty(self, laws: Laws, rate: tf.Tensor) -> tf.Tensor:
        if self.free_bits:
            per_latent = estimators.rate_per_latent(laws)
            return tf.reduce_sum(tf.maximum(per_latent, self.free_bits), axis=-1)
        if self.capacity is not None:
            return tf.abs(rate - tf.cast(self.capacity.value, rate.dtype))
        return rate

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, with the present beta and capacity."""
        return {
            **super().get_config(),
            "kl": self.kl,
            "beta": float(self.beta.numpy()),
            "free_bits": self.free_bits,
            "capacity": None if self.capacity is None else float(self.capacity.numpy()),
        }


@register
class IWAE(Objective):
    """Importance-weighted bound: loss = -log 1/k sum_s p(x, z_s) / q(z_s | x).

    A lower bound on log p(x) that rises with k; at k = 1 it is the ELBO. `elbo`, `distortion` and
    `rate` are those of the same draws. Source: Burda, Grosse and Salakhutdinov (2016),
    Importance weighted autoencoders, arXiv:1509.00519.

    Args:
        num_samples: number k of draws per example.
        gradient: "pathwise" or "doubly_reparameterized". Sticking the landing is biased here and
            is refused.

    Raises:
        ValueError: if an argument is none of these.
    """

    _gradients = ("pathwise", "doubly_reparameterized")

    def __init__(
        self, num_samples: int, *, gradient: Gradient = "pathwise", name: str = "iwae"
    ) -> None:
        super().__init__(num_samples, gradient, name=name)

    def terms(self, laws: Laws, seed: tf.Tensor) -> Terms:
        """The bound, and the ELBO's two terms from the same draws."""
        z = laws.sample(self.num_samples, seed)
        bound, log_likelihood, log_ratio = estimators.weighted_log_mean_exp(
            lambda draws: estimators.log_weights(laws, draws, self.gradient), z, self.gradient
        )
        return Terms(
            loss=-bound,
            distortion=-tf.reduce_mean(log_likelihood, axis=0),
            rate=-tf.reduce_mean(log_ratio, axis=0),
        )
