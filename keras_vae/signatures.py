"""Signatures: the pure functions of a model that leave the building.

Each is stateless, takes and returns named tensors whose axis 0 is the batch, and is traced as it is
into the SavedModel and into ONNX. Clients send and receive what the data file held: rescaling,
standardisation and one-hot coding are inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae import estimators, random
from keras_vae.data.preparation import Preparation
from keras_vae.distributions.noise import Draw, from_rows
from keras_vae.distributions.tfp import statistic
from keras_vae.model import VAE
from keras_vae.trace import Latent

__all__ = ["Signature", "signatures"]

Tensors = dict[str, tf.Tensor]


class Signature(NamedTuple):
    """One function that is exported.

    Attributes:
        name: decode, encode, sample, reconstruct or score.
        function: map of keyword tensors to a dict of tensors, both with the batch as axis 0.
        inputs: specification of each input, by name.
        outputs: names of the outputs.
        description: one sentence for the reader of the artifact.
    """

    name: str
    function: Callable[..., Tensors]
    inputs: dict[str, tf.TensorSpec]
    outputs: tuple[str, ...]
    description: str


def signatures(vae: VAE, preparation: Preparation | None = None) -> dict[str, Signature]:
    """The five signatures of a model, `decode` first.

    | name | inputs | outputs |
    |---|---|---|
    | decode | z [b, L] | mean, and the likelihood's parameters |
    | encode | x | the posterior's parameters |
    | sample | seed int32 [b, 2] | sample, mean, z |
    | reconstruct | x | mean |
    | score | x, seed int32 [b, 2] | elbo, distortion, rate, each [b], nats |

    A conditional model takes `condition` beside z, x or seed. `x`, `mean` and `sample` are in the
    units of the data file; the parameters are those of the prepared data. Data that the training
    binarised is taken as the probability of a one by `encode` and `reconstruct`, and drawn from
    the row's seed by `score`, as dequantisation noise is; `score` is a bound on the log-probability
    of x as the file held it (for binarised data: of the draw). All numbers are float32 but the
    seeds, whatever the model computes in.

    Args:
        vae: the model; its weights are captured as they are.
        preparation: how the training prepared its data; None for not at all.
    """
    model = _Model(vae, preparation or Preparation())
    z = {"z": tf.TensorSpec([None, vae.latent_size], tf.float32, "z")}
    x = {"x": tf.TensorSpec([None, *model.raw_shape], tf.float32, "x")}
    seed = {"seed": tf.TensorSpec([None, 2], tf.int32, "seed")}
    condition = {}
    if vae.condition_shape is not None:
        spec = tf.TensorSpec([None, *vae.condition_shape], tf.float32, "condition")
        condition = {"condition": spec}
    likelihood = (*vae.likelihood.parameter_specs(), *vae.likelihood.shared_parameters())
    posterior = (*vae.posterior.parameter_specs(), *vae.posterior.shared_parameters())
    table = [
        Signature(
            "decode",
            _in_float32(model.decode),
            {**z, **condition},
            ("mean", *likelihood),
            "Distribution p(x | z) of the latents z: its mean and its parameters.",
        ),
        Signature(
            "encode",
            _in_float32(model.encode),
            {**x, **condition},
            posterior,
            "Distribution q(z | x) of the data x: its parameters.",
        ),
        Signature(
            "sample",
            _in_float32(model.sample),
            {**seed, **condition},
            ("sample", "mean", "z"),
            "A draw from p(x) for each seed pair, the mean at its z, and z.",
        ),
        Signature(
            "reconstruct",
            _in_float32(model.reconstruct),
            {**x, **condition},
            ("mean",),
            "Mean of p(x | z) at the mean of q(z | x).",
        ),
        Signature(
            "score",
            _in_float32(model.score),
            {**x, **seed, **condition},
            ("elbo", "distortion", "rate"),
            "Lower bound on log p(x) in nats from one draw of z, and its two terms.",
        ),
    ]
    return {signature.name: signature for signature in table}


class _Model:
    """The functions behind the signatures."""

    def __init__(self, vae: VAE, preparation: Preparation) -> None:
        self._vae = vae
        self._preparation = preparation
        self._dtype = vae.float_dtype
        self._prior: dict[str, Any] | None = None
        if not vae.prior.is_conditional:
            self._prior = {name: value.numpy() for name, value in vae.prior.parameters().items()}
        shape = vae.event_shape
        self.raw_shape = shape[:-1] if preparation.categories else shape

    def decode(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> Tensors:
        parameters = self._likelihood(z, condition)
        return {"mean": self._mean(parameters), **_broadcast(parameters)}

    def encode(self, x: tf.Tensor, condition: tf.Tensor | None = None) -> Tensors:
        parameters = self._posterior(self._prepare(x), condition)
        by_row = self._vae.posterior.parameter_specs()
        size = tf.shape(x)[:1]
        return {
            name: value
            if name in by_row
            else tf.broadcast_to(value, tf.concat([size, tf.shape(value)], 0))
            for name, value in parameters.items()
        }

    def sample(self, seed: tf.Tensor, condition: tf.Tensor | None = None) -> Tensors:
        vae = self._vae
        noise = from_rows(vae.prior.noise(), seed, dtype=self._dtype)
        z = vae.prior.draw(noise, **self._prior_parameters(condition)).value
        parameters = self._likelihood(z, condition)
        draw = vae.likelihood.draw_rows(seed, **parameters)
        return {"sample": self._to_raw(draw), "mean": self._mean(parameters), "z": z}

    def reconstruct(self, x: tf.Tensor, condition: tf.Tensor | None = None) -> Tensors:
        q = self._vae.posterior.make_distribution(**self._posterior(self._prepare(x), condition))
        z = statistic(q, "mean", "The signature reconstruct")
        return {"mean": self._mean(self._likelihood(z, condition))}

    def score(self, x: tf.Tensor, seed: tf.Tensor, condition: tf.Tensor | None = None) -> Tensors:
        vae = self._vae
        x = self._prepare(x, seed)
        parameters = self._posterior(x, condition)
        draw = vae.posterior.draw(
            from_rows(vae.posterior.noise(), seed, dtype=self._dtype), **parameters
        )
        p = vae.likelihood.make_distribution(**self._likelihood(draw.value, condition))
        distortion = -p.log_prob(x) - self._preparation.nats_offset * math.prod(vae.event_shape)
        rate = self._rate(parameters, draw, self._prior_parameters(condition))
        return {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}

    def _rate(self, parameters: Tensors, draw: Draw, prior: Tensors) -> tf.Tensor:
        """Returns the rate, [b], in closed form where there is one."""
        posterior, p = self._vae.posterior, self._vae.prior
        q = posterior.make_distribution if posterior.tells_density else None
        latent = Latent(
            draw, p.make_distribution(**prior), None if q is None else lambda _: q(**parameters)
        )
        try:
            return estimators.analytic_rate(latent)
        except ValueError:
            log_q = latent.log_q() if draw.log_prob is None else draw.log_prob
            return log_q - p.log_density(draw.value, **prior)

    def _prior_parameters(self, condition: tf.Tensor | None) -> Tensors:
        """Returns the parameters of p(z), which are constants, or those of p(z | c)."""
        if self._prior is not None:
            return self._prior
        return self._vae.prior.parameters(tf.cast(condition, self._dtype))

    def _likelihood(self, z: tf.Tensor, condition: tf.Tensor | None) -> Tensors:
        likelihood = self._vae.likelihood
        z = tf.cast(z, self._dtype)
        inputs = z if condition is None else [z, tf.cast(condition, self._dtype)]
        return likelihood.parameters(inputs)

    def _posterior(self, x: tf.Tensor, condition: tf.Tensor | None) -> Tensors:
        inputs = x if condition is None else [x, tf.cast(condition, self._dtype)]
        return self._vae.posterior.parameters(inputs)

    def _mean(self, parameters: Tensors) -> tf.Tensor:
        mean = self._vae.likelihood.make_distribution(**parameters).mean()
        mean.set_shape([None, *self._vae.event_shape])  # lost where loc and scale broadcast
        return self._to_raw(mean, is_mean=True)

    def _prepare(self, x: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Returns model data, by the arithmetic of `Preparation.static` and its random step."""
        how, shape = self._preparation, self.raw_shape
        if how.center:
            x = (x - np.asarray(how.center, np.float32)) / np.asarray(how.spread, np.float32)
        if how.categories:
            x = tf.one_hot(tf.cast(x, tf.int32), how.categories)
        if how.divide != 1.0:
            x = x / how.divide
        if how.step == "binarize" and seed is not None:
            x = tf.cast(random.uniform(seed, shape, stream=random.PREPARATION) < x, tf.float32)
        if how.step == "dequantize" or how.noise.size:
            u = 0.5 if seed is None else random.uniform(seed, shape, stream=random.PREPARATION)
            x = (x + u) / how.levels if how.step == "dequantize" else x + u * how.noise
        return tf.cast(x, self._dtype)

    def _to_raw(self, x: tf.Tensor, is_mean: bool = False) -> tf.Tensor:
        """Returns x in the units of the file; of draws, whole numbers where the file has them."""
        how, x = self._preparation, tf.cast(x, tf.float32)
        if how.categories and not is_mean:
            x = tf.cast(tf.argmax(x, axis=-1), tf.float32)
        if how.step == "dequantize":
            levels = x * how.levels - (0.5 if is_mean else 0.0)
            x = levels if is_mean else tf.clip_by_value(tf.floor(levels), 0.0, how.levels - 1.0)
        x = x * how.divide if how.divide != 1.0 else x
        if how.center:
            x = x * np.asarray(how.spread, np.float32) + np.asarray(how.center, np.float32)
        if any(how.whole):
            x = tf.where(np.asarray(how.whole), x - 0.5 if is_mean else tf.floor(x), x)
        if any(how.constant):
            x = tf.where(np.asarray(how.constant), np.asarray(how.center, np.float32), x)
        return x


def _in_float32(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
    def cast(**inputs: tf.Tensor) -> Tensors:
        return {name: tf.cast(value, tf.float32) for name, value in function(**inputs).items()}

    return cast


def _broadcast(parameters: Tensors) -> Tensors:
    """The parameters, those without a batch axis repeated to the shape of the first."""
    shape = tf.shape(next(iter(parameters.values())))
    first = next(iter(parameters.values()))
    return {
        name: value if value.shape.rank == first.shape.rank else tf.broadcast_to(value, shape)
        for name, value in parameters.items()
    }
