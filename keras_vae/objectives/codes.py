"""Objectives of categorical latents: every code summed up, or a relaxed draw for the gradient."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import estimators
from keras_vae.arguments import as_weight, register
from keras_vae.distributions.codes.distributions import CategoricalCodes
from keras_vae.distributions.codes.table import configurations
from keras_vae.objectives.base import Objective, Terms, with_penalties
from keras_vae.trace import Inference, Latent, Trace

__all__ = ["EnumeratedELBO", "RelaxedELBO"]


@register
class EnumeratedELBO(Objective):
    """ELBO of a categorical latent with all codes summed up; neither bound nor gradient is noisy.

        ELBO = sum over codes of q(codes | x) (log p(x | codes) + log p(codes) - log q(codes | x))

    The decoder runs once for each of the K^N values of N codes. Training is exact gradient ascent
    on the bound, where straight-through gradients are biased.

    Raises:
        ValueError: in `compile`, if the only latent is not categorical or has more than 4096
            values.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.VAE(
        ...     prior=keras_vae.UniformCodes(),
        ...     likelihood=keras_vae.Normal(5),
        ...     posterior=keras_vae.CategoricalLatent(2, num_codes=3),
        ... )
        >>> vae.compile("adam", EnumeratedELBO())
        >>> sorted(vae.fit(np.zeros([8, 5], "float32"), verbose=0).history)
        ['distortion', 'elbo', 'loss', 'rate']
    """

    def __init__(self, *, name: str = "enumerated_elbo") -> None:
        super().__init__(1, name=name)

    def check(self, inference: Inference, noise: Any) -> None:
        """Refuses a model whose codes cannot be summed up."""
        super().check(inference, noise)
        _, latent = _only_categorical(inference.trace(noise), type(self).__name__)
        q: Any = latent.posterior()
        configurations(q.count, q.categories)

    def terms(self, inference: Inference, noise: Any) -> Terms:
        """Returns the bound's two terms, each a sum over all codes."""
        drawn = inference.trace(noise)
        name, latent = _only_categorical(drawn, type(self).__name__)
        q: Any = latent.posterior()
        every = configurations(q.count, q.categories)
        one_hot = np.eye(q.categories)[every].reshape(len(every), 1, -1)
        rows = tf.shape(latent.value)[1]
        values = tf.tile(tf.constant(one_hot, latent.value.dtype), [1, rows, 1])
        trace = inference.at({name: values})
        every_latent = trace.latents[name]
        log_q = every_latent.log_q()
        weights = tf.exp(log_q)
        log_ratio = log_q - every_latent.log_p()
        distortion, rate = (
            tf.reduce_sum(tf.math.multiply_no_nan(each, weights), axis=0)
            for each in (-trace.log_likelihood(), log_ratio)
        )
        return Terms(distortion + rate, distortion, rate, trace=drawn)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {"name": self.name}


@register
class RelaxedELBO(Objective):
    """ELBO whose gradient is that of Gumbel-softmax draws: loss = relaxed distortion + beta rate.

    The decoder is trained on softmax vectors, which are not codes, so the loss is no bound. `elbo`,
    `distortion` and `rate` are those of exact draws from the same noise. Source: Jang, Gu and Poole
    (2017), Categorical reparameterization with Gumbel-softmax, arXiv:1611.01144.

    Args:
        num_samples: draws per example.
        beta: weight of the rate, at least 0; may be scheduled.

    Raises:
        ValueError: in `compile`, if no latent is categorical.

    Example:
        >>> RelaxedELBO(num_samples=2).num_samples
        2
    """

    def __init__(
        self, *, num_samples: int = 1, beta: float = 1.0, name: str = "relaxed_elbo"
    ) -> None:
        super().__init__(num_samples, name=name)
        self.beta = self._schedulable("beta", as_weight("beta", beta))

    def check(self, inference: Inference, noise: Any) -> None:
        """Refuses a model without a categorical latent."""
        super().check(inference, noise)
        latents = inference.trace(noise).latents
        if all(latent.draw.relaxed is None for latent in latents.values()):
            raise ValueError(
                "RelaxedELBO needs a latent with relaxed draws, such as CategoricalLatent; this "
                f"model has {_kinds(latents)}. Choose ELBO()."
            )

    def terms(self, inference: Inference, noise: Any) -> Terms:
        """Returns the bound's two terms at exact draws, and the loss at relaxed ones."""
        trace = inference.trace(noise)
        distortion, rate = (tf.stop_gradient(each) for each in estimators.elbo_terms(trace))
        relaxed = inference.at(
            {
                name: latent.value if latent.draw.relaxed is None else latent.draw.relaxed
                for name, latent in trace.latents.items()
            }
        )
        own_distortion, own_rate = estimators.elbo_terms(relaxed)
        loss = own_distortion + tf.cast(self.beta.value, rate.dtype) * own_rate
        return Terms(with_penalties(loss, trace), distortion, rate, trace=trace)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, with the present beta."""
        config = super().get_config()
        del config["gradient"]
        return {**config, "beta": float(self.beta.numpy())}


def _only_categorical(trace: Trace, owner: str) -> tuple[str, Latent]:
    """Returns the name and the latent of a trace, if it is categorical and the only one."""
    if len(trace.latents) == 1:
        ((name, latent),) = trace.latents.items()
        if latent.q is not None and isinstance(latent.q(False), CategoricalCodes):
            return name, latent
    raise ValueError(
        f"{owner} sums over the codes of a single CategoricalLatent; this model has "
        f"{_kinds(trace.latents)}. Choose ELBO()."
    )


def _kinds(latents: Mapping[str, Latent]) -> str:
    kinds = [
        "own draws only" if each.q is None else each.q(False).name for each in latents.values()
    ]
    return f"{len(kinds)} latent{'s' if len(kinds) > 1 else ''}: {', '.join(kinds)}"
