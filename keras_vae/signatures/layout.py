"""Names and shapes of the tensors of a model's signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_vae.conformal import Conformal
from keras_vae.distributions import tfp
from keras_vae.distributions.codes import CodePosterior
from keras_vae.distributions.priors import Prior
from keras_vae.imputation import class_probabilities
from keras_vae.integrity import as_word
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.model import VAE
from keras_vae.signatures.raw_part import RawPart
from keras_vae.trace import Latent

__all__ = ["Layout", "Tensors"]

Tensors = dict[str, tf.Tensor]


class Layout:
    """Inputs and outputs of a model's signatures, by name.

    Tensors of the only latent are called z, and those of the only part of the data x, mean and
    sample; with several latents or named parts they are z_NAME, x_NAME, mean_NAME, sample_NAME.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        parts: Mapping[str, RawPart],
        num_samples: int = 0,
        calibration: Conformal | None = None,
    ) -> None:
        self._calibration = calibration
        self._model, self._parts, self._num_samples = model, parts, num_samples
        self._dtype = model.float_dtype
        self._prior: dict[str, Any] | None = None
        self.codes: CodePosterior | None = None
        self._besides: list[str] = []
        self._scaled: list[str] = []
        if isinstance(model, VAE):
            if isinstance(model.posterior, CodePosterior):
                self.codes = model.posterior
            self.latents: dict[str, tuple[int, ...]] = {"z": (model.latent_size,)}
            if not model.prior.is_conditional:
                values = _constants_of(model.prior)
                self._prior = tf.nest.map_structure(lambda value: value.numpy(), values)
        else:
            trace = model.centre_trace()
            self.latents = {
                name: tuple(trace.latents[name].draw.value.shape[2:])
                for name in model.generation_noise()
            }
            self._besides = [name for name in trace.observations if name not in parts]
            self._scaled = [name for name in self.latents if _is_normal(trace.latents[name])]

    @property
    def absent(self) -> list[RawPart]:
        """Parts that may be absent, and so can be imputed."""
        imputable = self._model.data.imputable if self._num_samples else ()
        return [part for name, part in self._parts.items() if name in imputable]

    @property
    def classified(self) -> list[RawPart]:
        """Named parts of a single variable that may be absent and have classes."""
        return [
            part
            for part in self.absent
            if part.is_named
            and part.variables == 1
            and part.name not in self._model.classifiers()
            and class_probabilities(part.part)
        ]

    @property
    def recognised(self) -> list[RawPart]:
        """Parts that a network of the model classifies."""
        return [self._parts[name] for name in self._model.classifiers()]

    @property
    def given(self) -> list[RawPart]:
        """Parts that are latents too, and which draws may be given."""
        return [self._parts[name] for name in self._model.given_latents]

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
        if self.codes is not None:
            logits = [name for name in self.codes.parameter_specs() if name == "logits"]
            return ("codes", "z", *logits)
        if isinstance(self._model, VAE):
            posterior = self._model.posterior
            return (*posterior.parameter_specs(), *posterior.shared_parameters())
        scales = (self.latent("scale", name) for name in self._scaled)
        return (*(self.latent("z", name) for name in self.latents), *scales)

    @property
    def sampled(self) -> tuple[str, ...]:
        """Names of the outputs of `sample`."""
        draws = (part.tensor("sample") for part in self._parts.values())
        codes = () if self.codes is None else ("codes",)
        z = (self.latent("z", name) for name in self.latents)
        return (*draws, *self.means, *z, *codes)

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the outputs of `score`."""
        parts = [part.tensor("distortion") for part in self._parts.values() if part.is_named]
        parts += [f"distortion_{as_word(name)}" for name in self._besides]
        rates = [self.latent("rate", name) for name in self.latents if len(self.latents) > 1]
        p_value = () if self._calibration is None else ("p_value",)
        return ("elbo", "distortion", "rate", *p_value, *parts, *rates)

    @property
    def imputed(self) -> tuple[str, ...]:
        """Names of the outputs of `impute`."""
        kinds = ("value", "mean", "sample")
        return (*(part.tensor(kind) for kind in kinds for part in self.absent), "ess")

    @property
    def probabilities(self) -> tuple[str, ...]:
        """Names of the outputs of `classify`."""
        found = [part.tensor("probabilities") for part in (*self.recognised, *self.classified)]
        return (*found, *(part.tensor("ess") for part in self.classified))

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


def _is_normal(latent: Latent) -> bool:
    """Tells whether q of a latent is normal."""
    return latent.q is not None and tfp.is_normal(latent.posterior())
