"""Functions behind the signatures of a model of any structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Any

import keras
import tensorflow as tf

from keras_vae import estimators
from keras_vae.distributions.noise import centre, from_rows
from keras_vae.distributions.priors import Prior
from keras_vae.integrity import as_word
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.model import VAE
from keras_vae.signatures.raw_part import RawPart
from keras_vae.trace import Generation, Latent, Site, Trace

__all__ = ["Functions", "Tensors", "in_float32"]

Tensors = dict[str, tf.Tensor]


class Functions:
    """The functions behind the signatures of a model, with the preparation of its data inside.

    Tensors of the only latent are called z, and those of the only part of the data x, mean and
    sample; with several latents or named parts they are z_NAME, x_NAME, mean_NAME, sample_NAME.
    """

    def __init__(self, model: LatentVariableModel, parts: Mapping[str, RawPart]) -> None:
        self._model, self._parts = model, parts
        self._dtype = model.float_dtype
        self._prior: dict[str, Any] | None = None
        if isinstance(model, VAE):
            self.latents: dict[str, tuple[int, ...]] = {"z": (model.latent_size,)}
            if not model.prior.is_conditional:
                values = _constants_of(model.prior)
                self._prior = {name: value.numpy() for name, value in values.items()}
        else:
            noise = centre(model.noise(), [1, 1], self._dtype)
            trace = model.infer(model.data.zeros()).trace(noise)
            self.latents = {
                name: tuple(latent.draw.value.shape[2:]) for name, latent in trace.latents.items()
            }

    def latent(self, kind: str, name: str) -> str:
        """Returns the name of a tensor of a latent: z or rate."""
        return f"{kind}_{as_word(name)}" if len(self.latents) > 1 else kind

    @property
    def shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Shapes of one row of the inputs: of latents, of observed and of other data, by name."""
        others = {k: part.shape for k, part in self._model.data.parts.items()}
        return {
            "latents": {self.latent("z", name): shape for name, shape in self.latents.items()},
            "observed": {part.tensor("x"): part.shape for part in self._parts.values()},
            "given": {name: shape for name, shape in others.items() if name not in self._parts},
        }

    @property
    def means(self) -> tuple[str, ...]:
        """Names of the means."""
        return tuple(part.tensor("mean") for part in self._parts.values())

    @property
    def decoded(self) -> tuple[str, ...]:
        """Names of the outputs of `decode`."""
        return (*self.means, *self._parameter_names())

    def _parameter_names(self) -> list[str]:
        model = self._model
        if isinstance(model, VAE):
            layers = model.likelihood.by_part()
            keys = {k: (*p.parameter_specs(), *p.shared_parameters()) for k, p in layers.items()}
        else:
            zeros = {name: tf.zeros([1, *shape]) for name, shape in self.latents.items()}
            part = model.data.parts.get("condition")
            condition = None if part is None else tf.zeros([1, *part.shape], self._dtype)
            sites = model.generate(latents=self._cast(zeros), condition=condition).observations
            keys = {name: tuple(site.parameters) for name, site in sites.items()}
        return [self._parts[name].tensor(key) for name in keys for key in keys[name]]

    @property
    def encoded(self) -> tuple[str, ...]:
        """Names of the outputs of `encode`."""
        if isinstance(self._model, VAE):
            posterior = self._model.posterior
            return (*posterior.parameter_specs(), *posterior.shared_parameters())
        return tuple(self.latent("z", name) for name in self.latents)

    @property
    def sampled(self) -> tuple[str, ...]:
        """Names of the outputs of `sample`."""
        draws = (part.tensor("sample") for part in self._parts.values())
        return (*draws, *self.means, *(self.latent("z", name) for name in self.latents))

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the outputs of `score`."""
        parts = [part.tensor("distortion") for part in self._parts.values() if part.is_named]
        rates = [self.latent("rate", name) for name in self.latents if len(self.latents) > 1]
        return ("elbo", "distortion", "rate", *parts, *rates)

    def decode(self, **inputs: tf.Tensor) -> Tensors:
        """Returns means and parameters of p(x | z)."""
        latents = {name: inputs[self.latent("z", name)] for name in self.latents}
        condition = self._cast(inputs.get("condition"))
        generation = self._model.generate(latents=self._cast(latents), condition=condition)
        found = self._means_of(generation)
        for name, site in generation.observations.items():
            for key, value in _broadcast(site).items():
                found[self._parts[name].tensor(key)] = value
        return found

    def _means_of(self, generation: Generation) -> Tensors:
        found = {}
        for name, site in generation.observations.items():
            mean, part = site.distribution.mean(), self._parts[name]
            mean.set_shape([None, *part.part.shape])  # lost where loc and scale broadcast
            found[part.tensor("mean")] = part.raw(mean, is_mean=True)
        return found

    def encode(self, **inputs: tf.Tensor) -> Tensors:
        """Returns the parameters of q(z | x); where there is no one such layer, latents."""
        x = self._data(inputs)
        if not isinstance(self._model, VAE):
            return {self.latent("z", name): z for name, z in self._centre(x).items()}
        by_row = self._model.posterior.parameter_specs()
        size = tf.shape(keras.tree.flatten(x)[0])[:1]
        return {
            name: value
            if name in by_row
            else tf.broadcast_to(value, tf.concat([size, tf.shape(value)], 0))
            for name, value in self._posterior(self._model, x).items()
        }

    def reconstruct(self, **inputs: tf.Tensor) -> Tensors:
        """Returns the means of p(x | z) at the centre of q(z | x)."""
        latents = self._centre(self._data(inputs))
        condition = self._cast(inputs.get("condition"))
        return self._means_of(self._model.generate(latents=latents, condition=condition))

    def _centre(self, x: Tensors) -> Tensors:
        """Returns the latents at the centre of q(z | x)."""
        if isinstance(self._model, VAE):
            parameters = self._posterior(self._model, x)
            return {"z": self._model.posterior.centre(parameters, "The signature reconstruct")}
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        noise = centre(self._model.noise(), [1, size], self._dtype)
        trace = self._model.infer(self._model.data.together(x)).trace(noise)
        return {name: latent.value[0] for name, latent in trace.latents.items()}

    def _posterior(self, vae: VAE, x: Tensors) -> Tensors:
        parts = list(x.values())
        alone = parts if len(parts) > 1 else parts[0]
        return vae.posterior.parameters(x if vae.data.is_dict else alone)

    def sample(self, seed: tf.Tensor, condition: tf.Tensor | None = None) -> Tensors:
        """Returns draws from p(x), their means, and the latents, for each seed pair."""
        model = self._model
        noise = from_rows(model.generation_noise(), seed, dtype=self._dtype)
        latents = None
        if isinstance(model, VAE) and self._prior is not None:
            latents = {"z": model.prior.draw(noise["z"], **self._prior).value}
        generation = model.generated(noise, latents=latents, condition=self._cast(condition))
        draws = {
            self._parts[name].tensor("sample"): self._parts[name].raw(draw)
            for name, draw in model.draws(generation, seed).items()
        }
        z = {self.latent("z", name): value for name, value in generation.latents.items()}
        return {**draws, **self._means_of(generation), **z}

    def score(self, seed: tf.Tensor, **inputs: tf.Tensor) -> Tensors:
        """Returns the bound on log p of what is present, and its terms, from one draw."""
        trace = self._trace(inputs, seed, 1)
        distortions = {
            name: -each.log_prob()[0] - self._parts[name].log_volume(each.mask)
            for name, each in trace.observations.items()
        }
        rates = {self.latent("rate", k): self._rate(each) for k, each in trace.latents.items()}
        distortion, rate = (reduce(add, each.values()) for each in (distortions, rates))
        found = {self._parts[k].tensor("distortion"): v for k, v in distortions.items()} | rates
        return found | {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}

    def _trace(self, inputs: Tensors, seed: tf.Tensor, num_samples: int) -> Trace:
        """Returns the trace at posterior draws from row seeds, [S, b, ...]."""
        noise = from_rows(self._model.noise(), seed, num_samples, self._dtype)
        x = self._model.data.together(self._data(inputs, seed))
        return self._model.infer(x).trace(noise)

    def _rate(self, latent: Latent) -> tf.Tensor:
        """Computes the rate of one latent at one draw, [b], in closed form if there is one."""
        prior = self._prior
        if isinstance(self._model, VAE) and prior is not None:
            latent = latent._replace(p=self._model.prior.make_distribution(**prior))
        try:
            return estimators.analytic_rate(latent)
        except ValueError:
            own = latent.draw.log_prob
            log_q = (latent.log_q() if own is None else own)[0]
            if isinstance(self._model, VAE) and prior is not None:
                return log_q - self._model.prior.log_density(latent.value[0], **prior)
            return log_q - latent.log_p()[0]

    def _data(self, inputs: Tensors, seed: tf.Tensor | None = None) -> Tensors:
        """Returns the model data of all parts by name; draws random steps from row seeds."""
        return {
            name: self._parts[name].prepared(
                inputs[self._parts[name].tensor("x")], seed, self._dtype
            )
            if name in self._parts
            else self._cast(inputs[name])
            for name in self._model.data.parts
        }

    def _cast(self, tensors: Any) -> Any:
        return keras.tree.map_structure(
            lambda one: None if one is None else tf.cast(one, self._dtype), tensors
        )


def _constants_of(prior: Prior) -> Tensors:
    """Returns the parameters of p(z)."""
    try:
        return prior.parameters()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{type(prior).__name__} has no parameters without a condition: {error} If it is "
            "p(z | c), set is_conditional = True in the class."
        ) from error


def in_float32(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
    """Makes a function whose outputs are float32."""

    def cast(**inputs: tf.Tensor) -> Tensors:
        return {name: tf.cast(value, tf.float32) for name, value in function(**inputs).items()}

    return cast


def _broadcast(site: Site) -> Tensors:
    """Repeats the parameters that do not depend on the row.

    They get the shape of the first parameter, or if they have more axes than an event one axis of
    the batch before their own.
    """
    shape = tf.shape(next(iter(site.parameters.values())))
    by_row, rank = site.layer.parameter_specs(), len(site.layer.event_shape)

    def of_rows(name: str, value: tf.Tensor) -> tf.Tensor:
        if name in by_row:
            return value
        own = tf.concat([shape[:1], tf.shape(value)], 0) if value.shape.rank > rank else shape
        return tf.broadcast_to(value, own)

    return {name: of_rows(name, value) for name, value in site.parameters.items()}
