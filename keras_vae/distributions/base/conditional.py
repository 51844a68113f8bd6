"""Conditional distributions: a network, a head, parameters, a distribution."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_shape, deserialize, serialize
from keras_vae.distributions import tfp
from keras_vae.distributions.base.parameters import HeadSizeError, Parameter
from keras_vae.distributions.base.renamed import refuse_old_methods
from keras_vae.distributions.base.shapes import folded, shapes_of, symbolic
from keras_vae.distributions.noise import Draw, Noise, from_rows
from keras_vae.distributions.tfp import tfd
from keras_vae.spelling import counted

__all__ = ["ConditionalDistribution", "distribution_of", "producer_of"]


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

    Example:
        >>> import keras_vae
        >>> layer = keras_vae.Normal(1, keras.layers.Dense(8, "relu"), scale="learned")
        >>> layer.distribution(tf.zeros([4, 3])).log_prob(tf.zeros([4, 1])).shape
        TensorShape([4])
    """

    tells_density = True
    """Whether it has a density at any point; otherwise only its own draws know their density."""

    scores_draws = False
    """Whether the log-density of a draw is the one that the draw knows, which saves an inverse."""

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
        self.head: keras.layers.Layer = head or self._default_head()
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

    def _default_head(self) -> keras.layers.Layer:
        return keras.layers.Dense(self._total_size, dtype=self.float_dtype, name="parameters")

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

    def own_weights(self) -> dict[str, Any]:
        """Returns weights inside the distribution, such as those of a flow, by argument.

        `parameters` includes them, as tensors or structures of such. They are no outputs of
        signatures.
        """
        return {}

    def completed(self, head_parameters: dict[str, tf.Tensor]) -> dict[str, Any]:
        """Returns the parameters that the head emits with those that no condition changes."""
        return {**head_parameters, **self.shared_parameters(), **self.own_weights()}

    def parameters(self, c: Any, training: bool = False) -> dict[str, tf.Tensor]:
        """Returns the parameters of the distribution at a condition.

        Args:
            c: condition [B, ...] or [S, B, ...], or a list of such tensors.
            training: whether Dropout, BatchNormalization and their like are in training mode.

        Returns:
            Tensors [B, ...] or [S, B, ...] by name, and the shared parameters in their own shapes.
        """
        return self.completed(self.head_parameters(c, training))

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
            self.build(shapes_of(inputs))
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
                f"The head of {type(self).__name__} emits {counted(emitted, 'number')} per "
                f"example (shape {tuple(raw.shape[1:])}); event shape {self.event_shape} needs "
                f"{self._total_size} ({names}). Change the head, or leave head=None for a Dense "
                "layer of that size."
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
        return self.head(features, training=training)

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
            self.build(shapes_of(c))
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
        return tfp.Independent(
            entries, reinterpreted_batch_ndims=len(self.event_shape) - entries.event_shape.rank
        )

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

    Example:
        >>> import keras_vae
        >>> layer = keras_vae.Normal(1, scale=2.0)
        >>> distribution_of(layer(tf.zeros([3, 4]))).stddev().numpy().ravel()
        array([2., 2., 2.], dtype=float32)
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
