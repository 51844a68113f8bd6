"""Signatures: the pure functions of a model that are exported.

Each is stateless, takes and returns named tensors whose axis 0 is the batch, and is traced into the
SavedModel and into ONNX. Inputs and outputs are in the units of the data file: rescaling,
standardisation and one-hot coding are part of the functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae import estimators, random
from keras_vae.data.preparation import Preparation
from keras_vae.distributions.noise import Draw, centre, from_rows
from keras_vae.distributions.priors import Prior
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.model import VAE
from keras_vae.trace import Generation, Latent, Trace

__all__ = ["Signature", "signatures"]

Tensors = dict[str, tf.Tensor]


class Signature(NamedTuple):
    """One exported function.

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


def signatures(
    vae: LatentVariableModel, preparation: Preparation | None = None
) -> dict[str, Signature]:
    """Returns the five signatures of a model, `decode` first.

    | name | inputs | outputs |
    |---|---|---|
    | decode | z [b, L] | mean, and the likelihood's parameters |
    | encode | x | the posterior's parameters |
    | sample | seed int32 [b, 2] | sample, mean, z |
    | reconstruct | x | mean |
    | score | x, seed int32 [b, 2] | elbo, distortion, rate, each [b], nats |

    A conditional model takes `condition` beside z, x or seed. `x`, `mean` and `sample` are in the
    units of the data file; the parameters are those of the prepared data. Data that the training
    binarised is used as the probability of a one by `encode` and `reconstruct`, and drawn from
    the row's seed by `score`, like dequantisation noise; `score` is a bound on the log-probability
    of x as the file holds it (for binarised data: of the draw). All numbers except seeds are
    float32, whatever dtype the model computes in.

    Args:
        vae: the model; its weights are captured.
        preparation: how the training prepared its data; None if it did not.
    """
    kind = _VaeFunctions if isinstance(vae, VAE) else _Functions
    functions = kind(vae, preparation or Preparation())
    inputs = functions.specs()
    table = [
        Signature(
            "decode",
            _in_float32(functions.decode),
            {**inputs["latents"], **inputs["given"]},
            functions.decoded,
            "Distribution p(x | z) of the latents z: its mean and its parameters.",
        ),
        Signature(
            "encode",
            _in_float32(functions.encode),
            inputs["data"],
            functions.encoded,
            "Distribution q(z | x) of the data x: its parameters."
            if kind is _VaeFunctions
            else "Latents at the centre of q(z | x).",
        ),
        Signature(
            "sample",
            _in_float32(functions.sample),
            {**inputs["seed"], **inputs["given"]},
            functions.sampled,
            "A draw from p(x) for each seed pair, the mean at its z, and z.",
        ),
        Signature(
            "reconstruct",
            _in_float32(functions.reconstruct),
            inputs["data"],
            functions.means,
            "Mean of p(x | z) at the mean of q(z | x).",
        ),
        Signature(
            "score",
            _in_float32(functions.score),
            inputs["scored"],
            functions.scored,
            "Lower bound on log p(x) in nats from one draw of z, and its two terms.",
        ),
    ]
    for signature in table:
        _refuse_twice(signature.outputs, f"outputs of {signature.name}")
    return {signature.name: signature for signature in table}


def _refuse_twice(names: Sequence[str], what: str) -> None:
    """Refuses names of which two are equal, for one of the tensors would be lost.

    Raises:
        ValueError: naming the first of them.
    """
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise ValueError(
            f"Two {what} are called {twice[0]!r}. Rename the parameter, the latent or the part of "
            "the data that takes this name."
        )


class _Functions:
    """The functions behind the signatures of a model of any structure.

    With one latent and one part of the data, tensors are called z, x, mean, sample; with several,
    z_NAME, x_NAME, mean_NAME, sample_NAME.
    """

    def __init__(self, model: LatentVariableModel, preparation: Preparation) -> None:
        self._model = model
        self._preparation = preparation
        self._dtype = model.float_dtype
        noise = centre(model.noise(), [1, 1], self._dtype)
        trace = model.infer(model.data.zeros()).trace(noise)
        self._latents = {
            name: tuple(latent.draw.value.shape[2:]) for name, latent in trace.latents.items()
        }
        self._parts = list(model.data.observed)
        latents = {name: latent.draw.value[0] for name, latent in trace.latents.items()}
        self._sites = model.generate(latents=latents, condition=self._zero_condition()).observations

    def _zero_condition(self) -> tf.Tensor | None:
        part = self._model.data.parts.get("condition")
        return None if part is None else tf.zeros([1, *part.shape], self._dtype)

    def specs(self) -> dict[str, dict[str, tf.TensorSpec]]:
        """Returns the inputs of the signatures by kind and name."""
        parts = self._model.data.parts

        def spec(shape: tuple[int, ...], name: str) -> tf.TensorSpec:
            return tf.TensorSpec([None, *shape], tf.float32, name)

        latents = {self._name("z", name): shape for name, shape in self._latents.items()}
        observed = {self._name("x", name): parts[name].shape for name in self._parts}
        given = {name: part.shape for name, part in parts.items() if name not in self._parts}
        _refuse_twice([*latents, *observed, *given, "seed"], "inputs of the signatures")
        kinds = {"latents": latents, "observed": observed, "given": given}
        found = {
            kind: {name: spec(shape, name) for name, shape in shapes.items()}
            for kind, shapes in kinds.items()
        }
        found["data"] = {**found["observed"], **found["given"]}
        found["seed"] = {"seed": tf.TensorSpec([None, 2], tf.int32, "seed")}
        found["scored"] = {**found["observed"], **found["seed"], **found["given"]}
        found["given"] = {k: v for k, v in found["given"].items() if k == "condition"}
        return found

    @property
    def means(self) -> tuple[str, ...]:
        """Names of the means."""
        return tuple(self._name("mean", name) for name in self._parts)

    @property
    def decoded(self) -> tuple[str, ...]:
        """Names of the outputs of `decode`."""
        parameters = (
            self._parameter(key, name)
            for name, site in self._sites.items()
            for key in site.parameters
        )
        return (*self.means, *parameters)

    @property
    def encoded(self) -> tuple[str, ...]:
        """Names of the outputs of `encode`."""
        return tuple(self._name("z", name) for name in self._latents)

    @property
    def sampled(self) -> tuple[str, ...]:
        """Names of the outputs of `sample`."""
        return (*(self._name("sample", name) for name in self._parts), *self.means, *self.encoded)

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the outputs of `score`."""
        names = ["elbo", "distortion", "rate"]
        if len(self._parts) > 1:
            names += [f"distortion_{name}" for name in self._parts]
        if len(self._latents) > 1:
            names += [f"rate_{name}" for name in self._latents]
        return tuple(names)

    def _name(self, kind: str, site: str) -> str:
        several = self._latents if kind in ("z", "rate") else self._parts
        return f"{kind}_{site}" if len(several) > 1 else kind

    def _parameter(self, key: str, part: str) -> str:
        return f"{key}_{part}" if len(self._parts) > 1 else key

    def _data(self, inputs: Tensors) -> Any:
        """Returns the data in the form in which the model takes it."""
        parts = {
            name: inputs[self._name("x", name) if name in self._parts else name]
            for name in self._model.data.parts
        }
        return parts if len(parts) > 1 else next(iter(parts.values()))

    def decode(self, *args: Any, **inputs: Any) -> Tensors:
        latents = {
            name: tf.cast(inputs[self._name("z", name)], self._dtype) for name in self._latents
        }
        return self._described(
            self._model.generate(latents=latents, condition=inputs.get("condition"))
        )

    def _described(self, generation: Generation, with_parameters: bool = True) -> Tensors:
        """Returns means, and parameters with a batch axis."""
        found = {}
        for name, site in generation.observations.items():
            mean = site.distribution.mean()
            mean.set_shape([None, *self._model.data.parts[name].shape])
            found[self._name("mean", name)] = mean
            if with_parameters:
                parameters = _broadcast(site.parameters)
                found |= {self._parameter(key, name): v for key, v in parameters.items()}
        return found

    def encode(self, *args: Any, **inputs: Any) -> Tensors:
        trace = self._at_centre(inputs)
        return {self._name("z", k): each.draw.value[0] for k, each in trace.latents.items()}

    def reconstruct(self, *args: Any, **inputs: Any) -> Tensors:
        trace = self._at_centre(inputs)
        return {self._name("mean", k): each.p.mean()[0] for k, each in trace.observations.items()}

    def _at_centre(self, inputs: Tensors) -> Trace:
        x = self._data(inputs)
        size = tf.shape(tf.nest.flatten(x)[0])[0]
        return self._model.infer(x).trace(centre(self._model.noise(), [1, size], self._dtype))

    def sample(self, seed: tf.Tensor, condition: tf.Tensor | None = None) -> Tensors:
        noise = from_rows(self._model.generation_noise(), seed, dtype=self._dtype)
        generation = self._model.generated(noise, condition=condition)
        draws = {
            self._name("sample", name): draw
            for name, draw in self._model.draws(generation, seed).items()
        }
        latents = {self._name("z", name): z for name, z in generation.latents.items()}
        return {**draws, **self._described(generation, with_parameters=False), **latents}

    def score(self, *args: Any, **inputs: Any) -> Tensors:
        seed = inputs.pop("seed")
        noise = from_rows(self._model.noise(), seed, 1, self._dtype)
        trace = self._model.infer(self._data(inputs)).trace(noise)
        distortions = {k: -each.log_prob()[0] for k, each in trace.observations.items()}
        rates = {k: _rate(each) for k, each in trace.latents.items()}
        distortion, rate = (reduce(add, each.values()) for each in (distortions, rates))
        found = {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
        if len(distortions) > 1:
            found |= {f"distortion_{name}": value for name, value in distortions.items()}
        if len(rates) > 1:
            found |= {f"rate_{name}": value for name, value in rates.items()}
        return found


def _rate(latent: Latent) -> tf.Tensor:
    """Computes the rate of one latent at one draw, [b], in closed form if there is one."""
    try:
        return estimators.analytic_rate(latent)
    except ValueError:
        own = latent.draw.log_prob
        return ((latent.log_q() if own is None else own) - latent.log_p())[0]


class _VaeFunctions(_Functions):
    """The functions behind the signatures of a VAE, with the preparation of its data inside."""

    def __init__(self, vae: VAE, preparation: Preparation) -> None:
        self._vae = vae
        self._preparation = preparation
        self._dtype = vae.float_dtype
        self._latents, self._parts = {"z": (vae.latent_size,)}, ["x"]
        self._prior: dict[str, Any] | None = None
        if not vae.prior.is_conditional:
            self._prior = {name: value.numpy() for name, value in _constants_of(vae.prior).items()}
        shape = vae.event_shape
        self.raw_shape = shape[:-1] if preparation.categories else shape

    def specs(self) -> dict[str, dict[str, tf.TensorSpec]]:
        """Returns the inputs of the signatures by kind and name."""
        z = {"z": tf.TensorSpec([None, self._vae.latent_size], tf.float32, "z")}
        x = {"x": tf.TensorSpec([None, *self.raw_shape], tf.float32, "x")}
        seed = {"seed": tf.TensorSpec([None, 2], tf.int32, "seed")}
        given = {}
        if self._vae.condition_shape is not None:
            spec = tf.TensorSpec([None, *self._vae.condition_shape], tf.float32, "condition")
            given = {"condition": spec}
        data = {**x, **given}
        scored = {**x, **seed, **given}
        return {"latents": z, "given": given, "data": data, "seed": seed, "scored": scored}

    @property
    def decoded(self) -> tuple[str, ...]:
        """Names of the outputs of `decode`."""
        likelihood = self._vae.likelihood
        return ("mean", *likelihood.parameter_specs(), *likelihood.shared_parameters())

    @property
    def encoded(self) -> tuple[str, ...]:
        """Names of the outputs of `encode`."""
        posterior = self._vae.posterior
        return (*posterior.parameter_specs(), *posterior.shared_parameters())

    @property
    def sampled(self) -> tuple[str, ...]:
        """Names of the outputs of `sample`."""
        return ("sample", "mean", "z")

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
        parameters = self._posterior(self._prepare(x), condition)
        z = self._vae.posterior.centre(parameters, "The signature reconstruct")
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
        """Computes the rate of one latent at one draw, [b], in closed form if there is one."""
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


def _constants_of(prior: Prior) -> Tensors:
    """Returns the parameters of p(z)."""
    try:
        return prior.parameters()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{type(prior).__name__} has no parameters without a condition: {error} If it is "
            "p(z | c), set is_conditional = True in the class."
        ) from error


def _in_float32(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
    def cast(**inputs: tf.Tensor) -> Tensors:
        return {name: tf.cast(value, tf.float32) for name, value in function(**inputs).items()}

    return cast


def _broadcast(parameters: Tensors) -> Tensors:
    """Repeats parameters without a batch axis to the shape of the first one."""
    shape = tf.shape(next(iter(parameters.values())))
    first = next(iter(parameters.values()))
    return {
        name: value if value.shape.rank == first.shape.rank else tf.broadcast_to(value, shape)
        for name, value in parameters.items()
    }
