"""Models of the data of one likelihood, single or in named parts, with a condition if given."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_shape
from keras_vae.distributions import HeadSizeError, Likelihood, Parts, Posterior
from keras_vae.distributions.noise import Noise
from keras_vae.distributions.priors import Prior, refuse_other_space
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.observed import Observation, Observations, Site, Sites
from keras_vae.trace import no_noise, spread
from keras_vae.training.data_spec import DataSpec, Part

__all__ = [
    "LikelihoodModel",
    "batched",
    "build_on",
    "check_distributions",
    "part_of",
    "sites_of",
    "training_noise_of",
]

_TRAINING = "training of "


class LikelihoodModel(LatentVariableModel):
    """A latent variable model whose data is that of one likelihood, and a condition if it has one.

    A subclass sets its layers, calls `_describe_data`, and defines the noise, inference and
    generation of its latents with the inputs and sites from here.

    Attributes:
        likelihood: distribution of the data given the latents.
        condition_shape: shape of one condition, or None.
        preparation_digest: identifies the preparation of a run's data; None outside of runs.
    """

    likelihood: Likelihood | Parts
    condition_shape: tuple[int, ...] | None
    preparation_digest: str | None
    _data_parts: tuple[tuple[str, Part], ...]

    def _describe_data(
        self,
        condition_shape: int | Sequence[int] | None,
        feature_names: Sequence[str] | None,
    ) -> None:
        """Sets what the data is; `likelihood` is set before."""
        self.condition_shape = (
            None if condition_shape is None else as_shape(condition_shape, "condition_shape")
        )
        self.feature_names = feature_names
        self.preparation_digest = None
        self._data_parts = tuple(self._parts_of_data().items())

    @property
    def _shapes_of_inputs(self) -> Any:
        """Shapes of what the encoder takes: by name for named parts, else of x and condition."""
        shapes = {name: part.shape for name, part in self.data.parts.items()}
        return shapes if self.data.is_dict else list(shapes.values())

    @property
    def conditional(self) -> bool:
        """Whether the model has a condition."""
        return self.condition_shape is not None

    @property
    def data(self) -> DataSpec:
        """The specification of the data: the parts of x, and the condition if there is one."""
        schema = getattr(self.likelihood, "schema", None)
        is_dict = isinstance(self.likelihood, Parts)
        return DataSpec(dict(self._data_parts), self.feature_names, is_dict, schema)

    def _parts_of_data(self) -> dict[str, Part]:
        """Returns the parts of the data. A support may be made of layers, so not inside a graph."""
        parts = {name: part_of(each) for name, each in self.likelihood.by_part().items()}
        if self.condition_shape is not None:
            parts["condition"] = Part(self.condition_shape)
        return parts

    @property
    def float_dtype(self) -> str:
        """Dtype of log-probabilities: float32, or float64 under that policy."""
        return self.likelihood.float_dtype

    def _refuse_absent_unread(self, owner: str, read: Callable[[Any], Any]) -> None:
        """Refuses an encoder that answers NaN where entries of the data are absent.

        Args:
            owner: what the encoder is, for the message.
            read: function from what the encoder takes to its numbers.
        """
        absent = list(self.data.missing)
        if not absent:
            return
        x = self.data.zeros()
        hidden = {
            name: np.full_like(value, np.nan) if name in absent else value
            for name, value in self.data.by_name(x).items()
        }
        inputs = self._inputs(self._cast(self.data.together(hidden)))
        numbers = tf.nest.flatten(read(inputs))
        if not all(np.isfinite(value).all() for value in numbers):
            raise ValueError(
                f"{owner} does not take absent entries, which are NaN and which missing=True "
                f"allows in {', '.join(absent)}. Put it into PartsEncoder(network), which gives it "
                "filled entries and their mask."
            )

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the columns of x, or None."""
        return None if self._feature_names is None else tuple(self._feature_names)

    @feature_names.setter
    def feature_names(self, names: Sequence[str] | None) -> None:
        self._feature_names = None
        if names is None:
            return
        if isinstance(self.likelihood, Parts):
            raise ValueError(
                "feature_names are those of the columns of a single x; the parts of this model "
                "have names of their own. Leave feature_names out."
            )
        shape = self.likelihood.event_shape
        columns = shape[: len(shape) - self.likelihood.support.event_dim]
        if (len(names),) != columns:
            raise ValueError(
                f"Expected one feature name for each of the columns of x of shape "
                f"{_batch_of(shape)}; got {len(names)} names."
            )
        self._feature_names = tuple(map(str, names))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example x.

        Raises:
            ValueError: if the data has several named parts; their shapes are in `data.parts`.
        """
        if isinstance(self.likelihood, Parts):
            raise ValueError(
                "The data of this model has several named parts, each with a shape of its own: see "
                "data.parts."
            )
        return self.likelihood.event_shape

    def _inputs(self, x: Any) -> Any:
        """Returns what the encoder takes: x, [x, condition], or a dict of several parts."""
        by_name = self.data.by_name(x)
        if self.data.is_dict:
            return by_name
        parts = list(by_name.values())
        return parts if len(parts) > 1 else parts[0]

    def _only(self, x: Any, names: Collection[str]) -> dict[str, tf.Tensor]:
        """Returns data with the named parts and the condition, and NaN in place of the others.

        Raises:
            ValueError: if a name is no part of the data, or a part to hide may not be absent.
        """
        values, observed = self.data.by_name(x), self.data.observed
        if unknown := [name for name in names if name not in observed]:
            raise ValueError(
                f"Expected names of the parts {', '.join(observed)}; got {unknown[0]!r}."
            )
        hidden = [name for name in observed if name not in names]
        if lacking := [name for name in hidden if not observed[name].missing]:
            raise ValueError(
                f"The part {lacking[0]!r} may not be absent, so it cannot be hidden: build its "
                "likelihood with missing=True."
            )
        return {
            name: tf.fill(tf.shape(value), tf.constant(np.nan, value.dtype))
            if name in hidden
            else value
            for name, value in values.items()
        }

    def training_noise(self) -> dict[str, Noise]:
        """Returns the noise by which a training step disturbs the likelihoods of the parts."""
        return training_noise_of(self.likelihood)

    def _sites(
        self, inputs: Any, training: bool = False, noise: Callable[[str], Any] = no_noise
    ) -> Sites:
        """Returns each part's likelihood at the decoder's input; see `sites_of`."""
        return sites_of(self.likelihood, inputs, training, noise)

    def _observations(
        self,
        values: Mapping[str, tf.Tensor],
        sites: Sites,
        others: Mapping[str, Observation] = MappingProxyType({}),
    ) -> Observations:
        """Returns each part as an observation, whose absent entries are masked, and the others."""
        masks = {name: part.mask_of for name, part in self.data.observed.items()}
        return Observations(values, sites, masks, others)

    def _observe(
        self, values: Mapping[str, tf.Tensor], sites: Sites, sample_weight: tf.Tensor | None
    ) -> None:
        """Updates the scales of the likelihood that are in closed form."""
        for name, part in self.likelihood.by_part().items():
            if part.observes:
                part.observe(values[name], sites[name].distribution, sample_weight)

    def _beside(self, z: tf.Tensor, condition: tf.Tensor | None) -> Any:
        """Returns the decoder's input: z [..., L], or [z, condition], a condition for each z."""
        if condition is None:
            return z
        return [z, spread(condition, z)]


def part_of(likelihood: Likelihood) -> Part:
    """Returns the part of the data that a likelihood is of."""
    owner, missing = type(likelihood).__name__, likelihood.missing
    shape, support = likelihood.event_shape, likelihood.support
    return Part(shape, support, owner, missing, at_end=likelihood.absent_at_end)


def training_noise_of(likelihood: Likelihood | Parts) -> dict[str, Noise]:
    """Returns the noise by which a training step disturbs the likelihoods of the parts, by name."""
    noises = {name: part.training_noise() for name, part in likelihood.by_part().items()}
    return {_TRAINING + name: noise for name, noise in noises.items() if noise is not None}


def sites_of(
    likelihood: Likelihood | Parts,
    inputs: Any,
    training: bool,
    noise: Callable[[str], Any],
    others: Mapping[str, Site] = MappingProxyType({}),
) -> Sites:
    """Returns each part's likelihood at the decoder's input.

    Args:
        likelihood: likelihood of one part or of several.
        inputs: what the decoder takes.
        training: whether its networks are in training mode.
        noise: function from a name to noise of the trace, such as `LatentOf` has; that of a
            training step disturbs the parameters.
        others: distributions of what is observed beside the parts, by name.
    """
    numbers = {name: noise(_TRAINING + name) for name in likelihood.by_part() if training}
    return Sites(likelihood, inputs, training, numbers, others)


def build_on(layer: Any, shapes: Any, what: str) -> None:
    """Builds a distribution layer on inputs of some shapes.

    Args:
        layer: the layer.
        shapes: shapes of one example of the inputs, a list of them or by name.
        what: name of the first input, for the message.

    Raises:
        ValueError: if its network does not take them.
    """
    try:
        layer.build(batched(shapes))
    except HeadSizeError:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The network of {type(layer).__name__} does not take {what} of shape "
            f"{_described(shapes)}: {_reason(error)}"
        ) from error


def batched(shapes: Any) -> Any:
    """Returns a shape, or several, with an open batch axis, as a distribution is built with."""
    if isinstance(shapes, dict):
        return {name: (None, *shape) for name, shape in shapes.items()}
    batched = [(None, *shape) for shape in shapes]
    return batched if len(batched) > 1 else batched[0]


def _described(shapes: Any) -> str:
    if isinstance(shapes, dict):
        return ", ".join(f"{_batch_of(shape)} ({name})" for name, shape in shapes.items())
    return " and a condition of shape ".join(_batch_of(shape) for shape in shapes)


def _batch_of(shape: Sequence[int]) -> str:
    return f"[n, {', '.join(map(str, shape))}]"


def _reason(error: Exception) -> str:
    """Returns the message of Keras, without colours and without the arguments of the call."""
    text = re.sub("\x1b\\[[0-9;]*m", "", str(error)).split("\n\nArguments received")[0]
    return " ".join(text.split())


def check_distributions(prior: Prior, likelihood: Likelihood | Parts, posterior: Posterior) -> None:
    """Refuses distributions that do not make a model of one latent together.

    Raises:
        TypeError: if one is not a distribution of its kind.
        ValueError: if they disagree on what the latent is, on its size, or on the dtype.
    """
    for name, value, kinds in (
        ("prior", prior, (Prior,)),
        ("likelihood", likelihood, (Likelihood, Parts)),
        ("posterior", posterior, (Posterior,)),
    ):
        if not isinstance(value, kinds):
            raise TypeError(
                f"Invalid value for argument `{name}`. Expected a keras_vae "
                f"{kinds[0].__name__}, a layer with a distribution. Received: {value!r}"
            )
    if prior.is_discrete != posterior.is_discrete:
        prior.bind(posterior, [], None, None)
        raise ValueError(
            f"{type(posterior).__name__} draws codes, and {type(prior).__name__} is a density "
            "of continuous latents: choose a prior such as UniformCodes()."
        )
    if prior.latent_size not in (None, posterior.latent_size):
        raise ValueError(
            f"Latent sizes disagree: the prior has {prior.latent_size} and the posterior "
            f"{posterior.latent_size}. Give both the same number."
        )
    refuse_other_space(prior, posterior)
    dtypes = [each.float_dtype for each in (prior, likelihood, posterior)]
    if len(set(dtypes)) > 1:
        raise ValueError(
            f"The distributions compute in different dtypes: prior {dtypes[0]}, "
            f"likelihood {dtypes[1]}, posterior {dtypes[2]}. Give all three the same dtype=."
        )
