"""Evidence lower bound, with a weight on the rate, free bits or a capacity."""

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_vae import estimators
from keras_vae.arguments import as_weight, register
from keras_vae.estimators import Gradient, Rate, sum_of
from keras_vae.objectives.base import Objective, Terms, check_kl, rate_names, with_penalties
from keras_vae.trace import Inference, Trace

__all__ = ["ELBO"]


@register
class ELBO(Objective):
    """Evidence lower bound: loss = distortion + beta * rate, which is -ELBO at beta 1.

    With `free_bits` f, the rate in the loss is sum_j max(f, KL_j), so the loss does not push
    latents below f nats; with {"z1": f} it is max(f, KL of z1) plus the rates of the other levels.
    With `capacity` C, it is |rate - C|. All act on each example, so the loss does not depend on how
    examples fall into batches. A model with several latents also logs `rate_NAME` of each. Sources:
    Kingma and Welling (2014), arXiv:1312.6114; Higgins et al. (2017), beta-VAE; Kingma et al.
    (2016), free bits, arXiv:1606.04934; Burgess et al. (2018), capacity, arXiv:1804.03599.

    Args:
        kl: "analytic", "monte_carlo", or None, the closed form if there is one.
        num_samples: draws z per example.
        beta: weight of the rate, at least 0; may be scheduled.
        free_bits: nats that are free: a number for each latent number z_j, which needs
            distributions that factorise over these, or a dict of numbers by level, for each level
            as a whole, such as {"z1": 2.0, "z2": 2.0}.
        capacity: target of the rate in nats; may be scheduled. None means no target.
        gradient: "pathwise" or "sticking_the_landing" (which needs the Monte Carlo rate).

    Raises:
        ValueError: if an argument is none of these, or in `compile` if a requested closed form does
            not exist.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.mlp_vae(6, 2, "normal", hidden=(8,))
        >>> vae.compile(objective=ELBO(beta=0.5, num_samples=2))
        >>> vae.objective.beta.numpy().item()
        0.5
    """

    _gradients = ("pathwise", "sticking_the_landing")

    def __init__(
        self,
        *,
        kl: Rate | None = None,
        num_samples: int = 1,
        beta: float = 1.0,
        free_bits: float | Mapping[str, float] = 0.0,
        capacity: float | None = None,
        gradient: Gradient = "pathwise",
        name: str = "elbo",
    ) -> None:
        super().__init__(num_samples, gradient, name=name)
        check_kl(kl)
        if kl == "analytic" and gradient == "sticking_the_landing":
            raise ValueError(
                "Sticking the landing acts on log q(z | x), which the closed form of the rate does "
                "not contain: choose kl='monte_carlo' or gradient='pathwise'."
            )
        beta = as_weight("beta", beta)
        if isinstance(free_bits, Mapping):
            free_bits = {k: as_weight(f"free_bits[{k!r}]", v) for k, v in free_bits.items()}
        else:
            free_bits = as_weight("free_bits", free_bits)
        capacity = None if capacity is None else as_weight("capacity", capacity)
        if free_bits and (kl == "monte_carlo" or gradient != "pathwise" or capacity is not None):
            raise ValueError(
                "free_bits needs the closed form of the rate, latent by latent: leave kl, gradient "
                "and capacity as they are."
            )
        self.kl = kl
        self.free_bits: float | dict[str, float] = free_bits
        self.beta = self._schedulable("beta", beta)
        self.capacity = None if capacity is None else self._schedulable("capacity", capacity)

    def terms(self, inference: Inference, noise: Any) -> Terms:
        """Returns the bound's two terms, and the loss made of them."""
        trace = inference.trace(noise)
        rates = estimators.rates_of(trace, self.kl, self.gradient)
        distortion, rate = -tf.reduce_mean(trace.log_likelihood(), axis=0), sum_of(rates)
        beta = tf.cast(self.beta.value, rate.dtype)
        loss = with_penalties(distortion + beta * self._weighted(trace, rates, rate), trace)
        extra = {key: rates[name] for name, key in rate_names(rates).items()}
        return Terms(loss, distortion, rate, extra, trace)

    def logged(self, model: Any) -> tuple[str, ...]:
        """Returns the names of the rates of several latents."""
        return (*self.metric_names, *rate_names(model.noise()).values())

    def check(self, inference: Inference, noise: Any) -> None:
        """Refuses distributions without the closed form that `kl` or `free_bits` needs."""
        super().check(inference, noise)
        if self.kl == "analytic" or self.free_bits:
            trace = inference.trace(noise)
            for latent in trace.latents.values():
                estimators.analytic_rate(latent)
            if isinstance(self.free_bits, dict):
                unknown = sorted(set(self.free_bits) - set(trace.latents))
                if unknown:
                    raise ValueError(
                        f"free_bits names {', '.join(unknown)}, and the latents of this model are "
                        f"{', '.join(trace.latents)}."
                    )
            elif self.free_bits:
                estimators.rate_per_latent(trace)

    def _weighted(self, trace: Trace, rates: Mapping[str, tf.Tensor], rate: tf.Tensor) -> tf.Tensor:
        if isinstance(self.free_bits, dict):
            return sum_of(
                {k: tf.maximum(v, self.free_bits.get(k, -math.inf)) for k, v in rates.items()}
            )
        if self.free_bits:
            per_latent = estimators.rate_per_latent(trace)
            return tf.reduce_sum(tf.maximum(per_latent, self.free_bits), axis=-1)
        if self.capacity is not None:
            return tf.abs(rate - tf.cast(self.capacity.value, rate.dtype))
        return rate

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, with the present beta and capacity."""
        return {
            **super().get_config(),
            "kl": self.kl,
            "beta": float(self.beta.numpy()),
            "free_bits": self.free_bits,
            "capacity": None if self.capacity is None else float(self.capacity.numpy()),
        }
