"""Base classes of conditional distributions: a network, a head, parameters, a distribution."""

import abc
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_shape, deserialize, serialize
from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import Proposal
from keras_vae.distributions import supports, tfp
from keras_vae.distributions.names import LIKELIHOODS
from keras_vae.distributions.noise import Draw, Noise, from_rows
from keras_vae.distributions.noise import centre as noise_centre
from keras_vae.distributions.tfp import tfd

__all__ = [
    "SMALLEST_SCALE",
    "ConditionalDistribution",
    "HeadSizeError",
    "Likelihood",
    "Parameter",
    "Posterior",
    "distribution_of",
    "inverse_positive",
    "positive",
    "producer_of",
]

_SOFTPLUS_ONE = math.log(math.e - 1.0)
SMALLEST_SCALE = 1e-6


def positive(raw: tf.Tensor) -> tf.Tensor:
    """Maps a raw number to softplus(raw + log(e - 1)) + 1e-6, which is 1 + 1e-6 at raw = 0."""
    return tf.math.softplus(raw + _SOFTPLUS_ONE) + SMALLEST_SCALE


def inverse_positive(value: float | np.ndarray) -> np.ndarray:
    """Returns the raw number that `positive` maps to `value`."""
    shifted = np.asarray(value, np.float64) - SMALLEST_SCALE
    return shifted + np.log(-np.expm1(-shifted)) - _SOFTPLUS_ONE


def _identity(raw: tf.Tensor) -> tf.Tensor:
    return raw


class HeadSizeError(ValueError):
    """A head that emits another number of parameters than the distribution takes."""


class Parameter(NamedTuple):
    """One parameter of a distribution, as the head emits it.

    Attributes:
        size: how many numbers it takes on the last axis; 0 if the layer adds it itself, after the
            head, in `at_condition`.
        transform: map from the head's raw numbers [..., size] to the parameter.
    """

    size: int
    transform: Callable[[tf.Tensor], tf.Tensor] = _identity


_OLD_METHODS = {
    "law": "make_distribution",
    "constants": "shared_parameters",
    "transport": "draw(noise, **parameters)",
    "log_volume": "Draw(value, log_prob)",
    "law_dtype": "float_dtype",
}


def refuse_old_methods(kind: type) -> None:
    """Refuses a class that defines what an earlier version called and this one does not.

    Raises:
        TypeError: naming the methods and what they are called now.
    """
    old = [name for name in _OLD_METHODS if name in vars(kind)]
    draw = vars(kind).get("draw")
    if draw is not None and "seed" in inspect.signature(draw).parameters:
        raise TypeError(
            f"{kind.__name__}.draw takes a seed, as in an earlier version; a draw is a function of "
            "noise now: define draw(noise, **parameters) that returns Draw(value), and noise()."
        )
    if old:
        renamed = ", ".join(f"{name} is now {_OLD_METHODS[name]}" for name in old)
        raise TypeError(
            f"{kind.__name__} defines {', '.join(old)}, which nothing calls any more: {renamed}."
        )


class ConditionalDistribution(keras.layers.Layer, abc.ABC):
    """A layer that maps a condition c to a distribution p(event | c).

    `layer.distribution(c)` is built afresh at each call. `layer(c)` is a tensor
    [B, *event_shape], legal in Sequential and Functional models: a draw when training, the mean
    otherwise. Because it draws, a model that ends in such a layer must not be trained by comparing
    outputs with targets, as mean squared error does, but by -log p(y | c):

        model = keras.Sequential([keras.layers.Dense(16, "relu"), Normal(1, scale="learned")])
        model.compile("adam", loss=keras_vae.NegativeLogLikelihood())

    `distribution_of(layer(c))` is the distribution that an output was computed from. Parameters are
    float32 (float64 under that policy) whatever the network computes in.

    Args:
        event_shape: shape of one event, an integer or a tuple.
        network: layer from the condition to features; None is the identity. A network with several
            inputs (condition given to the VAE) is called with a list.
        head: layer from features to raw parameters; None is one Dense layer. A convolution with as
            many filters as parameters per pixel suits images.

    Raises:
        ValueError: if the event shape is not made of positive integers.
        TypeError: if `network` or `head` is not a layer.
        HeadSizeError: when built, if the head emits another number of parameters than the
            distribution takes.
    """

    tells_density = True
    """Whether it has a density at any point; otherwise only its own draws know their density."""

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.event_shape = as_shape(event_shape, type(self).__name__)
        for name, layer in (("network", network), ("head", head)):
            if not (layer is None or isinstance(layer, keras.layers.Layer)):
                raise TypeError(
                    f"Invalid value for argument `{name}`. Expected a Keras layer or model, or "
                    f"None. Received: {layer!r}"
                )
        self.network = network
        self.has_own_head = head is not None
        self.head: keras.layers.Layer = head or keras.layers.Dense(
            self._total_size, dtype=self.float_dtype, name="parameters"
        )
        self._input_ranks: list[int] = []
        self._draws = keras.random.SeedGenerator()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuses a subclass written for an earlier version, whose methods nothing would call.

        Raises:
            TypeError: naming the methods and what they are called now.
        """
        super().__init_subclass__(**kwargs)
        refuse_old_methods(cls)

    @abc.abstractmethod
    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the parameters that the head emits, by name, in their order on the last axis."""

    @abc.abstractmethod
    def make_distribution(self, *args: Any, **parameters: Any) -> tfd.Distribution:
        """Returns the distribution of given parameters [..., *event_shape]: a pure function.

        Its batch shape is [...] and its event shape that of the layer.
        """

    def noise(self) -> Any:
        """Returns the noise that a draw is made of: one uniform number per entry, by default."""
        return Noise(self.event_shape, "uniform", random.OBSERVATION)

    def draw(self, noise: tf.Tensor, *args: Any, **parameters: Any) -> Draw:
        """Draws from the distribution as a pure function of noise.

        Args:
            noise: noise as specified by `noise()`, [..., *shape].
            *args: parameters of `make_distribution` by position.
            **parameters: parameters of `make_distribution` by name, [..., *event_shape].

        Returns:
            `Draw(value)`, the value of shape [..., *event_shape].
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot draw: define draw(noise, **parameters) and, if the "
            "noise is not one uniform number per entry, noise()."
        )

    def draw_rows(self, seed: tf.Tensor, **parameters: tf.Tensor) -> tf.Tensor:
        """Draws one value per row seed, the same in every runtime.

        Args:
            seed: int32 [B, 2], one pair per row; see `keras_vae.random`.
            **parameters: parameters by name, [B, ...].

        Returns:
            Tensor [B, *event_shape].
        """
        noise = from_rows(self.noise(), seed, dtype=self.float_dtype)
        return self.draw(noise, **parameters).value

    @property
    def float_dtype(self) -> str:
        """Dtype of parameters and log-probabilities: float32, or float64 under that policy."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    @property
    def channels(self) -> int:
        """Size of the event's last axis."""
        return self.event_shape[-1]

    @property
    def _total_size(self) -> int:
        return math.prod(self.event_shape[:-1]) * self._last_size

    @property
    def _last_size(self) -> int:
        return sum(spec.size for spec in self.parameter_specs().values())

    def shared_parameters(self) -> dict[str, tf.Tensor]:
        """Returns the parameters that do not depend on the condition, such as one learned scale.

        Their shapes broadcast against those that the head emits. `parameters` includes them.
        """
        return {}

    def parameters(self, c: Any, training: bool = False) -> dict[str, tf.Tensor]:
        """Returns the parameters of the distribution at a condition.

        Args:
            c: condition [B, ...] or [S, B, ...], or a list of such tensors.
            training: whether Dropout, BatchNormalization and their like are in training mode.

        Returns:
            Tensors [B, ...] or [S, B, ...] by name, and the shared parameters in their own shapes.
        """
        return {**self.head_parameters(c, training), **self.shared_parameters()}

    def head_parameters(self, c: Any, training: bool = False) -> dict[str, tf.Tensor]:
        """Returns the parameters that the head emits, as `parameters` without the shared ones.

        Args:
            c: condition [B, ...] or [S, B, ...] (leading axes are folded around the network), or a
                list or dict of such tensors with the same leading axes.
            training: whether Dropout, BatchNormalization and their like are in training mode.

        Returns:
            Tensors [B, ...] or [S, B, ...] by name.
        """
        inputs = keras.tree.map_structure(tf.convert_to_tensor, c)
        if not self.built:
            self.build(_shapes_of(inputs))
        inputs, leading = folded(inputs, self._input_ranks)
        return self.read(self._features(inputs, training), leading)

    def read(self, raw: tf.Tensor, leading: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Returns the parameters that a head emits, from its raw numbers.

        Args:
            raw: output of the head, [n, ...].
            leading: shape of the axes in front that were folded into n; None means there are none.

        Returns:
            Tensors by name, [n, ...] or [*leading, ...].
        """
        raw = tf.cast(raw, self.float_dtype)
        shape = [*self.event_shape[:-1], self._last_size]
        whole = [-1, *shape] if leading is None else tf.concat([leading, shape], 0)
        specs = self.parameter_specs()
        sizes = [spec.size for spec in specs.values()]
        parts = tf.split(tf.reshape(raw, whole), sizes, axis=-1)
        return {
            name: spec.transform(part)
            for (name, spec), part in zip(specs.items(), parts, strict=True)
        }

    def distribution(self, c: Any, training: bool = False) -> tfd.Distribution:
        """Returns the distribution at a condition; arguments as for `parameters`."""
        return self.make_distribution(**self.parameters(c, training))

    def call(self, c: Any, training: bool = False) -> tf.Tensor:
        """Returns a draw when training, the mean otherwise, [B, *event_shape]."""
        distribution = self.distribution(c, training)
        if training:
            value = distribution.sample(seed=random.stateless_seed(self._draws.next()))
        else:
            value = tf.identity(distribution.mean())
        value._keras_vae_source = (self, distribution)  # as Keras keeps `_keras_mask`
        return value

    def build(self, input_shape: Any) -> None:
        """Creates the weights of network and head; input shapes may leave the batch open."""
        if self._input_ranks:
            return
        inputs = symbolic(input_shape, self.compute_dtype)
        raw = self._features(inputs, False)
        self._check_size(raw.shape)
        emitted = math.prod(raw.shape[1:])
        if emitted != self._total_size:
            names = ", ".join(
                f"{name} {spec.size * math.prod(self.event_shape[:-1])}"
                for name, spec in self.parameter_specs().items()
            )
            raise HeadSizeError(
                f"The head of {type(self).__name__} emits {emitted} numbers per example (shape "
                f"{tuple(raw.shape[1:])}); event shape {self.event_shape} needs {self._total_size} "
                f"({names}). Change the head, or leave head=None for a Dense layer of that size."
            )
        self._input_ranks = [len(part.shape) - 1 for part in keras.tree.flatten(inputs)]
        self.built = True

    def _features(self, inputs: Any, training: bool) -> Any:
        features = inputs
        if self.network is not None:
            features = self.network(inputs, training=training)
        elif isinstance(inputs, list):
            features = keras.ops.concatenate(inputs, axis=-1)
        elif isinstance(inputs, dict):
            raise ValueError(
                f"{type(self).__name__} is given several named parts, {', '.join(inputs)}, and has "
                "no network that joins them: give it network=PartsEncoder(...)."
            )
        if not self.has_own_head and len(features.shape) > 2:
            self._check_size(features.shape)
            features = keras.ops.reshape(features, (-1, math.prod(features.shape[1:])))
        return self.head(features)

    def _check_size(self, shape: Sequence[int | None]) -> None:
        """Refuses features or raw parameters without a fixed size."""
        if None in shape[1:]:
            raise ValueError(
                f"{type(self).__name__} makes one event of each example, and features of shape "
                f"{tuple(shape)} have no fixed size. Fix it, or wrap the distribution in "
                "keras.layers.TimeDistributed for one event per step."
            )

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Returns batch size and event shape."""
        first = keras.tree.flatten(symbolic(input_shape, self.compute_dtype))[0]
        return (first.shape[0], *self.event_shape)

    def compute_output_spec(self, c: Any, training: bool = False) -> keras.KerasTensor:
        """Returns the symbolic result of `call`."""
        if not self.built:
            self.build(_shapes_of(c))
        first = keras.tree.flatten(c)[0]
        return keras.KerasTensor((first.shape[0], *self.event_shape), dtype=self.float_dtype)

    def _inverted(
        self, inverse: Callable[..., tf.Tensor], u: tf.Tensor, *parameters: tf.Tensor
    ) -> tf.Tensor:
        """Inverts a distribution function at uniforms, in float32 as all of `keras_vae.random`."""
        draw = inverse(*(tf.cast(part, tf.float32) for part in (u, *parameters)))
        return tf.cast(draw, self.float_dtype)

    def independent(self, entries: tfd.Distribution) -> tfd.Distribution:
        """Returns the distribution of an event whose entries are independent of each other."""
        return tfp.Independent(entries, reinterpreted_batch_ndims=len(self.event_shape))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "event_shape": list(self.event_shape),
            "network": serialize(self.network),
            "head": serialize(self.head) if self.has_own_head else None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ConditionalDistribution":
        """Makes the layer with new weights."""
        layers = {key: deserialize(config[key]) for key in ("network", "head")}
        return cls(**{**config, **layers})


def distribution_of(output: Any) -> tfd.Distribution:
    """Returns the distribution that an output was drawn from, or is the mean of.

    Args:
        output: output of the layer, or of a model that ends in it, itself.

    Raises:
        ValueError: if it is anything else.
    """
    return _source(output)[1]


def producer_of(output: Any) -> ConditionalDistribution:
    """Returns the distribution layer of an output; raises as `distribution_of` does."""
    return _source(output)[0]


def _source(output: Any) -> tuple[ConditionalDistribution, tfd.Distribution]:
    source = getattr(output, "_keras_vae_source", None)
    if source is None:
        raise ValueError(
            "Expected the output of a keras_vae distribution layer, such as keras_vae.Normal(1), "
            f"at the end of the model; got a {type(output).__name__} from elsewhere."
        )
    return source


class Likelihood(ConditionalDistribution):
    """A family of distributions p(x | z), with the support of its data.

    A new family defines `support` and the abstract methods of `ConditionalDistribution`; everything
    else has a default.

    Args:
        event_shape: shape of one example.
        network: the decoder, from z to features.
        head: layer from features to raw parameters; None is one Dense layer.
        missing: whether entries of the data may be absent, which are NaN. They add nothing to
            log p(x | z), so a bound is one on the log-probability of the entries that are present.

    Attributes:
        reading: one sentence on how to read the parameters outside of Python.
        has_cdf: whether it has a standard deviation, and its entries a distribution function, as
            the measurement of calibration requires.
        is_threshold: whether `draw` is 1 where the uniform lies below the mean, and 0 elsewhere.
        of_condition: constructor's arguments that need a condition, so the command line, which has
            none, leaves them out.
    """

    reading: ClassVar[str] = ""
    has_cdf: ClassVar[bool] = False
    is_threshold: ClassVar[bool] = False
    of_condition: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        head: keras.layers.Layer | None = None,
        missing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(event_shape, network, head=head, **kwargs)
        if not isinstance(missing, bool):
            raise TypeError(
                f"Invalid value for argument `missing`. Expected True or False. Received: "
                f"{missing!r}"
            )
        self.missing = missing

    def build(self, input_shape: Any) -> None:
        """Creates the weights of network and head; input shapes may leave the batch open."""
        if not self.built:
            inputs = symbolic(input_shape, self.compute_dtype)
            self.check_condition(inputs)
            input_shape = _shapes_of(self.network_input(inputs))
        super().build(input_shape)

    def build_head(self, features_shape: Any, input_shape: Any) -> None:
        """Creates the weights of the head on features that another network makes of the inputs."""
        self.check_condition(symbolic(input_shape, self.compute_dtype))
        super().build(features_shape)

    def check_condition(self, c: Any) -> None:
        """Refuses symbolic inputs without the condition that the likelihood needs."""

    def head_parameters(self, c: Any, training: bool = False) -> dict[str, tf.Tensor]:
        """Returns the parameters of each row; arguments as for `ConditionalDistribution`."""
        c = keras.tree.map_structure(tf.convert_to_tensor, c)
        if not self.built:
            self.build(_shapes_of(c))
        return self.at_condition(super().head_parameters(self.network_input(c), training), c)

    def network_input(self, c: Any) -> Any:
        """Returns what the network is given of a condition: all of it, by default."""
        return c

    def at_condition(self, parameters: dict[str, tf.Tensor], c: Any) -> dict[str, tf.Tensor]:
        """Returns the parameters after what the condition changes past the head.

        Args:
            parameters: those that the head emits, by name.
            c: z, or a list of z and the condition, all of it.
        """
        return parameters

    def by_part(self) -> dict[str, "Likelihood"]:
        """Returns the likelihoods of the parts of the data; the only part is called "x"."""
        return {"x": self}

    def parameters_by_part(self, c: Any, training: bool = False) -> dict[str, dict[str, tf.Tensor]]:
        """Returns the parameters of each part by name; arguments as for `parameters`."""
        return {"x": self.parameters(c, training)}

    def head_parameters_by_part(
        self, c: Any, training: bool = False
    ) -> dict[str, dict[str, tf.Tensor]]:
        """Returns those that the heads emit; arguments as for `parameters`."""
        return {"x": self.head_parameters(c, training)}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments; `missing` only if it is True."""
        return {**super().get_config(), **({"missing": True} if self.missing else {})}

    @property
    @abc.abstractmethod
    def support(self) -> supports.Support:
        """Where data may lie; `fit` refuses data outside it."""

    @classmethod
    def key(cls) -> str:
        """Returns the name that recipes and the command line use, else that of the class."""
        keys = {family.name: key for key, family in LIKELIHOODS.items()}
        return keys.get(cls.__name__, cls.__name__)

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Returns the names of the constructor's arguments that are the family's own."""
        shared = inspect.signature(Likelihood).parameters
        own = set(inspect.signature(cls).parameters) - set(shared) - set(cls.of_condition)
        return tuple(sorted(own))

    @classmethod
    def proposal(cls, facts: Facts) -> Proposal | None:
        """Returns a proposal of the family for data that it suits, None for other data."""
        return None

    @classmethod
    def prepare(cls, facts: Facts) -> tuple[Preparation, dict[str, Any]]:
        """Returns how data becomes model data, and the options that the data decides.

        Raises:
            DataError: if the family does not suit the data.
        """
        return Preparation(), {}

    @classmethod
    def starts_at_mean(cls, preparation: Preparation) -> bool:
        """Tells whether prepared data is so far from zero that the decoder starts at its mean.

        The setting `output_bias = "auto"` uses it.
        """
        return False

    def raw_mean(self, mean: np.ndarray) -> np.ndarray:
        """Returns the first raw parameter at which the mean is as given, [*event_shape].

        Raises:
            ValueError: if no single parameter decides the mean.
        """
        raise ValueError(
            f"The mean of {type(self).__name__} is not one of its raw parameters, so no bias "
            "starts there: leave the bias at zero."
        )

    def observe(
        self, x: tf.Tensor, p: tfd.Distribution, sample_weight: tf.Tensor | None = None
    ) -> None:
        """Updates a closed-form scale; a hook that is called in every training pass.

        Args:
            x: data of the batch, [B, *D].
            p: p(x | z) at its draws, batch shape [S, B].
            sample_weight: weights of the examples in the loss, [B]; None for equal ones.
        """


class Posterior(ConditionalDistribution):
    """A family of distributions q(z | x) over a latent vector, drawn by reparameterisation.

    Args:
        latent_size: number L of latents.
        network: the encoder, from x to features.
        head: layer from features to raw parameters; None is one Dense layer.
    """

    def __init__(
        self,
        latent_size: int,
        network: keras.layers.Layer | None = None,
        *,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(latent_size, network, head=head, **kwargs)
        if len(self.event_shape) != 1:
            raise ValueError(
                f"{type(self).__name__} expects a latent size such as 50; got {latent_size}."
            )

    @property
    def latent_size(self) -> int:
        """Number L of latents."""
        return self.event_shape[0]

    def noise(self) -> Any:
        """Returns the noise that a draw is made of: one normal number per latent, by default."""
        return Noise(self.event_shape, "normal", random.POSTERIOR)

    def centre(self, parameters: dict[str, tf.Tensor], needed_by: str) -> tf.Tensor:
        """Returns the mean of q, [B, L], or the draw at the medians of the noise if it has none.

        Args:
            parameters: of q, by name.
            needed_by: what needs it, for the message.

        Raises:
            ValueError: if q has no mean in closed form.
        """
        if self.tells_density:
            return tfp.statistic(self.make_distribution(**parameters), "mean", needed_by)
        noise = noise_centre(self.noise(), [self.size_of(parameters)], self.float_dtype)
        return self.draw(noise, **parameters).value

    def size_of(self, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the number of rows of parameters."""
        return tf.shape(parameters[next(iter(self.parameter_specs()))])[0]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        config = super().get_config()
        config["latent_size"] = config.pop("event_shape")[0]
        return config


def folded(inputs: Any, ranks: Sequence[int]) -> tuple[Any, tf.Tensor | None]:
    """Folds all axes in front of the event into one, as networks take their inputs.

    Args:
        inputs: tensor [..., *E], or a structure of such with the same axes in front.
        ranks: number of axes of each event.

    Returns:
        The inputs of shape [n, *E], and the shape of the axes in front; None if it is one already.
    """
    parts = keras.tree.flatten(inputs)
    if parts[0].shape.rank - ranks[0] == 1:
        return inputs, None
    leading = tf.shape(parts[0])[: parts[0].shape.rank - ranks[0]]
    flat = [
        tf.reshape(part, tf.concat([[-1], tf.shape(part)[part.shape.rank - rank :]], 0))
        for part, rank in zip(parts, ranks, strict=True)
    ]
    return keras.tree.pack_sequence_as(inputs, flat), leading


def _shapes_of(inputs: Any) -> Any:
    """Returns the shapes of a tensor, or of a list or dict of tensors."""
    if isinstance(inputs, dict):
        return {name: part.shape for name, part in inputs.items()}
    return [part.shape for part in inputs] if isinstance(inputs, list) else inputs.shape


def symbolic(shapes: Any, dtype: str) -> Any:
    """Returns symbolic tensors of a shape, or of a list or dict of shapes, for any batch size."""
    if isinstance(shapes, dict):
        return {name: symbolic(shape, dtype) for name, shape in shapes.items()}
    if len(shapes) > 0 and isinstance(shapes[0], (tuple, list, tf.TensorShape)):
        return [symbolic(shape, dtype) for shape in shapes]
    return keras.KerasTensor((None, *shapes[1:]), dtype=dtype)
