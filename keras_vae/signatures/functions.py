"""Functions behind the signatures of a model of any structure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import estimators, random
from keras_vae.conformal import p_values
from keras_vae.distributions.codes import CodePrior
from keras_vae.distributions.noise import Noise, Wanted, centre, from_rows, from_rows_at_once
from keras_vae.distributions.spheres.distributions import projected
from keras_vae.imputation import (
    PosteriorDraws,
    absent_draws,
    class_probabilities,
    expected,
    posterior_draws,
    resampled,
    single_values,
    statistic_of,
)
from keras_vae.imputation.posterior_draws import weighted_sum
from keras_vae.integrity import as_word
from keras_vae.model import VAE
from keras_vae.observed import log_probs, means_of, observations_of
from keras_vae.signatures.layout import Layout, Tensors
from keras_vae.signatures.raw_part import Limits, within
from keras_vae.trace import Generation, Latent, Site, Trace

__all__ = ["Functions"]


class Functions(Layout):
    """The functions behind the signatures of a model, with the preparation of its data inside."""

    def possible(self, inputs: Tensors) -> tf.Tensor | None:
        """Tells which rows [b] hold data that can be; None if no data is given.

        Of a text what follows the end is not read.
        """
        tensors: list[tuple[tf.Tensor, Limits]] = []
        checks: list[tf.Tensor] = []
        for part in self._parts.values():
            if (x := inputs.get(part.tensor("x"))) is not None:
                x = part.ended(part.given(x))
                tensors.append((x, part.limits))
                checks += [part.single_ones(x)] if part.is_one_hot else []
        others = [name for name in self._model.data.parts if name not in self._parts]
        tensors += [(inputs[name], Limits()) for name in others if name in inputs]
        checks += [within(tensors)] if tensors else []
        rows = (tf.reduce_all(each, axis=list(range(1, each.shape.rank))) for each in checks)
        return reduce(tf.logical_and, rows) if checks else None

    def decode(self, **inputs: tf.Tensor) -> Tensors:
        """Returns means and parameters of p(x | z).

        Of latents of length 1, a z of another length stands for its direction.
        """
        if self.codes is None:
            latents = {name: inputs[self.latent("z", name)] for name in self.latents}
        else:
            latents = {"z": self.codes.embed(inputs["codes"])}
        if isinstance(self._model, VAE) and self._model.posterior.on_sphere:
            latents = {"z": projected(latents["z"])}
        condition = self._cast(inputs.get("condition"))
        generation = self._model.generate(latents=self._cast(latents), condition=condition)
        found = self._means_of(generation)
        for name, site in generation.observations.items():
            for key, value in _broadcast(site).items():
                found[self._parts[name].tensor(key)] = value
        return found

    def _means_of(self, generation: Generation) -> Tensors:
        found = {}
        for name, mean in means_of(generation.observations).items():
            part = self._parts[name]
            mean.set_shape([None, *part.part.shape])  # lost where loc and scale broadcast
            found[part.tensor("mean")] = part.raw(mean, is_mean=True)
        return found

    def encode(self, **inputs: tf.Tensor) -> Tensors:
        """Returns the parameters of q(z | x); of several latents, the centre and scale of each.

        A latent that is drawn given others has those at their centres.
        """
        x = self._data(inputs)
        if not isinstance(self._model, VAE):
            trace = self._at_centre(x)
            centres = {self.latent("z", k): trace.latents[k].value[0] for k in self.latents}
            return centres | {
                self.latent("scale", k): self._scale(trace.latents[k]) for k in self._scaled
            }
        if self.codes is not None:
            parameters = self._posterior(self._model, x)
            q = self.codes.make_distribution(**parameters)
            found = {"codes": q.codes, "z": q.mode(), **parameters}
            return {name: found[name] for name in self.encoded}
        by_row = self._model.posterior.parameter_specs()
        size = tf.shape(keras.tree.flatten(x)[0])[:1]
        return {
            name: value
            if name in by_row
            else tf.broadcast_to(value, tf.concat([size, tf.shape(value)], 0))
            for name, value in self._posterior(self._model, x).items()
            if name in self.encoded
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
        trace = self._at_centre(x)
        return {name: trace.latents[name].value[0] for name in self.latents}

    def _at_centre(self, x: Tensors) -> Trace:
        """Returns the trace at the centre of the noise."""
        size = tf.shape(keras.tree.flatten(x)[0])[0]
        noise = centre(self._model.noise(), [1, size], self._dtype)
        return self._model.infer(self._model.data.together(x)).trace(noise)

    @staticmethod
    def _scale(latent: Latent) -> tf.Tensor:
        """Returns the standard deviations of a latent, [B, ...]; one q may serve all draws."""
        scale = latent.posterior().stddev()
        return scale[0] if scale.shape.rank == latent.value.shape.rank else scale

    def _posterior(self, vae: VAE, x: Tensors) -> Tensors:
        parts = list(x.values())
        alone = parts if len(parts) > 1 else parts[0]
        return vae.posterior.parameters(x if vae.data.is_dict else alone)

    def sample(self, seed: tf.Tensor, condition: tf.Tensor | None = None) -> Tensors:
        """Returns draws from p(x), their means, and the latents, for each seed pair."""
        model = self._model
        noise = from_rows(model.generation_noise(), seed, dtype=self._dtype)
        latents, found = None, {}
        if isinstance(model, VAE) and isinstance(model.prior, CodePrior) and self.codes is not None:
            drawn = self.codes.in_shape(model.prior.draw_codes(noise["z"]))
            latents, found = {"z": self.codes.embed(drawn)}, {"codes": drawn}
        elif isinstance(model, VAE) and self._prior is not None:
            latents = {"z": model.prior.draw(noise["z"], **self._prior).value}
        generation = model.generated(noise, latents=latents, condition=self._cast(condition))
        return self._drawn(generation, seed) | found

    def sample_given(self, seed: tf.Tensor, **inputs: tf.Tensor) -> Tensors:
        """Returns draws from p(x | given latents), their means, and the latents."""
        model = self._model
        noise = from_rows(model.generation_noise(), seed, dtype=self._dtype)
        latents = {
            part.name: part.prepared(inputs[part.tensor("x")], None, self._dtype)
            for part in self.given
        }
        return self._drawn(model.generated(noise, latents=latents), seed)

    def _drawn(self, generation: Generation, seed: tf.Tensor) -> Tensors:
        """Draws the data of a generation from the seeds of its rows."""
        model = self._model
        draws = {
            self._parts[name].tensor("sample"): self._parts[name].ended(self._parts[name].raw(draw))
            for name, draw in model.draws(generation, seed).items()
        }
        z = {self.latent("z", name): value for name, value in generation.latents.items()}
        return {**draws, **self._means_of(generation), **z}

    def score(self, seed: tf.Tensor, **inputs: tf.Tensor) -> Tensors:
        """Returns the bound on log p of what is present, and its terms, from one draw."""
        steps, noise = self._noise(seed)
        x = self._data(inputs, steps)
        trace, name = self._trace(x, noise), self._model.summed_out
        weights = None if name is None else tf.exp(trace.latents[name].log_q())
        distortions = {
            k: -self._averaged(log_prob, weights) - self._volume(k, x)
            for k, log_prob in log_probs(trace.observations).items()
        }
        rates = {k: self._rate(each, weights) for k, each in trace.latents.items()}
        distortion, rate = (reduce(add, each.values()) for each in (distortions, rates))
        found = {self._distortion(k): value for k, value in distortions.items()}
        found |= {self.latent("rate", k): rates[k] for k in self.latents}
        found |= {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
        if (known := self._calibration) is not None:
            found["p_value"] = p_values(-found["elbo"], known.table, known.steps, known.n)
        return found

    def _distortion(self, name: str) -> str:
        """Returns the name of the distortion of a part, or of what is observed beside them."""
        if name in self._parts:
            return self._parts[name].tensor("distortion")
        return f"distortion_{as_word(name)}"

    def _volume(self, name: str, x: Tensors) -> tf.Tensor | float:
        if name not in self._parts:
            return 0.0
        present, _ = self._model.data.parts[name].mask_of(x[name])
        return self._parts[name].log_volume(present)

    def impute(self, seed: tf.Tensor, **inputs: tf.Tensor) -> Tensors:
        """Returns single imputations, means, and one draw of what is absent, from K draws."""
        resampling = Noise((1,), "uniform", random.RESAMPLING)
        steps, noise, u = self._noise(seed, self._num_samples, resampling)
        x = self._data(inputs, steps)
        statistics = {part.name: statistic_of(part.part) for part in self.absent}
        drawn = self._posterior_draws(x, noise, statistics)
        latents = resampled(drawn, tf.transpose(u))
        draws = absent_draws(self._model, self._model.data.together(x), latents, seed)
        found = {}
        for part in self.absent:
            raw = part.given(inputs[part.tensor("x")])
            expectation = drawn.expectations[part.name]
            mean = expected(part.part, expectation)
            if part.shape == part.part.shape:
                mean, given = part.raw(mean, is_mean=True), raw
            else:
                given = x[part.name]
            coded = part.how.categories
            single = expectation if coded else single_values(part.part, expectation)
            found[part.tensor("value")] = part.ended(_filled(raw, part.raw(single)))
            found[part.tensor("mean")] = _filled(given, mean)
            drawn_x = part.raw(draws[part.name][0])
            found[part.tensor("sample")] = part.ended(_filled(raw, drawn_x))
        return {**found, "ess": drawn.ess}

    def classify(self, **inputs: tf.Tensor) -> Tensors:
        """Returns the probability of each class of a part given all others, from K draws.

        Parts that a network classifies have its probabilities, and take no draws.
        """
        found = self._recognise(inputs) if self.recognised else {}
        return found | self._classify(**inputs) if self.classified else found

    def _recognise(self, inputs: Tensors) -> Tensors:
        """Returns the probabilities of the classes of the parts that a network classifies."""
        size = tf.shape(next(iter(inputs.values())))[0]
        own = {
            part.tensor("x"): tf.fill([size, *part.shape], np.float32(np.nan))
            for part in self.recognised
        }
        x = self._model.data.together(self._data({**inputs, **own}))
        classifiers = self._model.classifiers()
        return {part.tensor("probabilities"): classifiers[part.name](x) for part in self.recognised}

    def _classify(self, seed: tf.Tensor, **inputs: tf.Tensor) -> Tensors:
        """Returns probabilities and effective sample sizes of the other parts with classes."""
        steps, noise = self._noise(seed, self._num_samples)
        x, parts = self._data(inputs, steps), self.classified
        hidden = {
            name: tf.concat(
                [value * np.nan if part.name == name else value for part in parts], axis=0
            )
            for name, value in x.items()
        }
        statistics = {part.name: class_probabilities(part.part) for part in parts}
        noise = tf.nest.map_structure(lambda one: tf.concat([one] * len(parts), axis=1), noise)
        drawn = self._posterior_draws(hidden, noise, statistics)
        found = {}
        for place, part in enumerate(parts):
            of_classes = drawn.expectations[part.name]
            of_classes = tf.reshape(of_classes, [len(parts), -1, of_classes.shape[-1]])
            found[part.tensor("probabilities")] = of_classes[place]
            found[part.tensor("ess")] = tf.reshape(drawn.ess, [len(parts), -1])[place]
        return found

    def _posterior_draws(
        self, x: Tensors, noise: Any, statistics: Mapping[str, Any]
    ) -> PosteriorDraws:
        """Draws K latents from q, weighs them, and averages statistics of the parts."""
        if not isinstance(self._model, VAE):
            x = self._model.data.together(x)
            return posterior_draws(self._model, x, noise, statistics)
        trace = self._trace(x, noise)
        log_w = trace.log_likelihood()
        for latent in trace.latents.values():
            log_w += self._log_p(latent) - _log_q(latent)
        weights = tf.nn.softmax(log_w, axis=0)
        expectations = {}
        for name, statistic in statistics.items():
            values = statistic(trace.observations[name].p)
            expectations[name] = weighted_sum(values, weights)
        latents = {name: latent.value for name, latent in trace.latents.items()}
        ess = 1.0 / tf.reduce_sum(weights**2, axis=0)
        return PosteriorDraws(latents, weights, ess, expectations)

    def _noise(
        self, seed: tf.Tensor, num_samples: int | None = None, *more: Noise
    ) -> tuple[Any, ...]:
        """Returns noise of the random steps of the preparation, of q, and more, from row seeds.

        One draw of a VAE has no axis S, with which ONNX Runtime cannot reshape an empty batch.
        """
        model = self._model
        steps = {name: part.noise for name, part in self._parts.items() if part.noise}
        if isinstance(model, VAE):
            latents = Wanted(model.posterior.noise(), num_samples, self._dtype)
        else:
            latents = Wanted(model.noise(), num_samples or 1, self._dtype)
        others = (Wanted(one, dtype=self._dtype) for one in more)
        return tuple(from_rows_at_once([Wanted(steps), latents, *others], seed))

    def _trace(self, x: Tensors, noise: Any) -> Trace:
        """Returns the trace at the noise of q, or at each class that is summed out."""
        model = self._model
        if not isinstance(model, VAE):
            inference = model.infer(model.data.together(x))
            if model.summed_out is None or inference.over is None:
                return inference.trace(noise)
            return inference.over(noise, model.summed_out)
        posterior, parameters = model.posterior, self._posterior(model, x)
        draw = posterior.draw(noise, **parameters)
        condition = x.get("condition")
        sites = model.generate(latents={"z": draw.value}, condition=condition).observations
        observations = observations_of(
            x, sites, {name: part.mask_of for name, part in model.data.parts.items()}
        )
        prior = model.prior.parameters(condition) if self._prior is None else self._prior
        p = model.prior.make_distribution(**prior)
        q = posterior.make_distribution if posterior.tells_density else None
        latent = Latent(draw, p, None if q is None else lambda _: q(**parameters))
        return Trace({"z": latent}, observations)

    def _averaged(self, values: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
        """Returns values [b] of one draw, or the weighted mean of those of each class, [K, b]."""
        if weights is not None:
            return tf.reduce_sum(tf.math.multiply_no_nan(values, weights), axis=0)
        return values if isinstance(self._model, VAE) else values[0]

    def _rate(self, latent: Latent, weights: tf.Tensor | None) -> tf.Tensor:
        """Computes the rate of one latent at one draw, [b], in closed form if there is one."""
        if weights is not None:
            return self._averaged(estimators.rate_per_draw(latent), weights)
        try:
            return estimators.analytic_rate(latent)
        except ValueError:
            return self._averaged(_log_q(latent) - self._log_p(latent), None)

    def _log_p(self, latent: Latent) -> tf.Tensor:
        """Computes log p of a draw, [..., b], of a constant prior in ops that ONNX has."""
        if not isinstance(self._model, VAE) or self._prior is None:
            return latent.log_p()
        z = latent.value
        if z.shape.rank == 2:
            return self._model.prior.log_density(z, **self._prior)
        flat = self._model.prior.log_density(tf.reshape(z, [-1, z.shape[-1]]), **self._prior)
        return tf.reshape(flat, tf.shape(z)[:-1])

    def _data(
        self, inputs: Tensors, steps: Mapping[str, tf.Tensor] = MappingProxyType({})
    ) -> Tensors:
        """Returns the model data of all parts by name; random steps by their noise."""
        return {
            name: self._parts[name].prepared(
                inputs[self._parts[name].tensor("x")], steps.get(name), self._dtype
            )
            if name in self._parts
            else self._cast(inputs[name])
            for name in self._model.data.parts
        }


def _log_q(latent: Latent) -> tf.Tensor:
    """Computes log q of a draw, [..., b]."""
    own = latent.draw.log_prob
    return latent.log_q() if own is None else own


def _filled(given: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
    """Returns what is given, and elsewhere what was found."""
    return tf.where(tf.math.is_nan(given), found, tf.cast(given, found.dtype))


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
