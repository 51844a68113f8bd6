"""Draws of the latents of a model, for evaluators."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from keras_vae.distributions.noise import centre, from_seed
from keras_vae.distributions.tfp import tfd
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.model import VAE
from keras_vae.trace import Inference, Trace
from keras_vae.training.step import size_of

__all__ = [
    "FlatLatents",
    "draw_noise",
    "only_posterior",
    "prior_draws",
    "refuse_other",
    "size_of",
    "trace_of",
]


def refuse_other(model: LatentVariableModel, evaluator: str) -> None:
    """Refuses a model of another structure than one latent vector and one x.

    Raises:
        TypeError: if the model is not a `VAE`.
    """
    if not isinstance(model, VAE):
        raise TypeError(
            f"{evaluator} is for a keras_vae.VAE, with one latent vector and one x; got "
            f"{type(model).__name__}. elbo and log_marginal work for a model of any structure."
        )


def draw_noise(vae: LatentVariableModel, seed: tf.Tensor, leading: Sequence[Any], size: Any) -> Any:
    """Draws noise of posterior draws by latent, [*leading, B, ...], from one seed int32 [2]."""
    return from_seed(vae.noise(), seed, [*leading, size], vae.float_dtype)


def trace_of(vae: LatentVariableModel, batch: Any, num_samples: int, seed: tf.Tensor) -> Trace:
    """Makes the trace of a batch at posterior draws, from one seed int32 [2]."""
    return vae.infer(batch).trace(draw_noise(vae, seed, [num_samples], size_of(batch)))


def only_posterior(vae: LatentVariableModel, inference: Inference, batch: Any) -> tfd.Distribution:
    """Returns q(z | x) of a model with one latent, from its inference on a batch.

    In a graph, the likelihood at the centre, which is also in the trace, is never computed.
    """
    noise = centre(vae.noise(), [1, size_of(batch)], vae.float_dtype)
    (latent,) = inference.trace(noise).latents.values()
    return latent.posterior()


def prior_draws(
    vae: LatentVariableModel,
    batch: Any,
    trace: Trace,
    leading: Sequence[Any],
    size: Any,
    seed: tf.Tensor,
) -> Mapping[str, tf.Tensor]:
    """Draws from p(z), or p(z | c), by latent, [*leading, B, ...].

    Args:
        vae: the model.
        batch: the data, whose condition counts.
        trace: trace of any draws for the batch; a prior that depends on no draw is read from it.
        leading: axes before the batch.
        size: number of examples B.
        seed: int32 [2].
    """
    if len(trace.latents) == 1:
        (name, latent), *_ = trace.latents.items()
        by_example = [] if latent.p.batch_shape.rank else [size]
        return {name: latent.p.sample([*leading, *by_example], seed=seed)}
    noise = from_seed(vae.generation_noise(), seed, [*leading, size], vae.float_dtype)
    condition = vae.data.by_name(batch).get("condition")
    if condition is not None:
        condition = tf.cast(condition, vae.float_dtype)
    return vae.generate(noise, condition=condition).latents


class FlatLatents:
    """All latents of a model side by side, as one vector.

    Args:
        trace: trace of any draws.
    """

    def __init__(self, trace: Trace) -> None:
        self._shapes = {
            name: tuple(latent.draw.value.shape[2:]) for name, latent in trace.latents.items()
        }
        self._sizes = [math.prod(shape) for shape in self._shapes.values()]

    @property
    def size(self) -> int:
        """Number of latents."""
        return sum(self._sizes)

    def joined(self, parts: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Joins values by latent, [..., *shape], to [..., L]."""
        if len(self._shapes) == 1:
            ((name, shape),) = self._shapes.items()
            if len(shape) == 1:
                return parts[name]
        flat = []
        for name, shape in self._shapes.items():
            value = parts[name]
            leading = tf.shape(value)[: value.shape.rank - len(shape)]
            flat.append(tf.reshape(value, tf.concat([leading, [math.prod(shape)]], 0)))
        return tf.concat(flat, axis=-1)

    def split(self, z: tf.Tensor) -> dict[str, tf.Tensor]:
        """Splits a vector [..., L] into the values by latent."""
        if len(self._shapes) == 1:
            ((name, shape),) = self._shapes.items()
            if len(shape) == 1:
                return {name: z}
        parts = {}
        for (name, shape), value in zip(
            self._shapes.items(), tf.split(z, self._sizes, axis=-1), strict=True
        ):
            parts[name] = tf.reshape(value, tf.concat([tf.shape(z)[:-1], shape], 0))
        return parts

    def at(self, inference: Inference, z: tf.Tensor) -> Trace:
        """Makes the trace at a vector [S, B, L]."""
        return inference.at(self.split(z))
