"""Likelihoods p(x | z): what every family of distributions of data has."""

import abc
import inspect
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from keras_vae.data.facts import Facts
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import Proposal
from keras_vae.distributions import supports, tfp
from keras_vae.distributions.base.conditional import ConditionalDistribution
from keras_vae.distributions.base.shapes import shapes_of, symbolic
from keras_vae.distributions.names import LIKELIHOODS
from keras_vae.distributions.noise import Noise
from keras_vae.distributions.tfp import tfd
from keras_vae.networks.steps import StepDense, repeated

__all__ = ["Likelihood"]


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
        sequence: whether the first axis of an event is time. The default head then has the same
            weights for each step of features [B, steps, n], and sums over steps are in an order in
            which absent steps at the end change nothing.

    Attributes:
        reading: one sentence on how to read the parameters outside of Python.
        has_cdf: whether it has a standard deviation, and its entries a distribution function, as
            the measurement of calibration requires.
        is_threshold: whether `draw` is 1 where the uniform lies below the mean, and 0 elsewhere.
        absent_at_end: whether only the steps at the end of a sequence may be absent.
        of_condition: constructor's arguments that need a condition, so the command line, which has
            none, leaves them out. The configuration has them only if they are used.
        joins: whether like parts of `Parts` are evaluated together: parameters and noise may have
            one more axis in front of the event. It holds for the class alone that defines it, not
            for its subclasses.

    Example:
        >>> import keras_vae
        >>> likelihood = keras_vae.Bernoulli(3, keras.layers.Dense(8, "relu"))
        >>> isinstance(likelihood, Likelihood), likelihood.support.is_discrete
        (True, True)
    """

    reading: ClassVar[str] = ""
    has_cdf: ClassVar[bool] = False
    is_threshold: ClassVar[bool] = False
    absent_at_end: ClassVar[bool] = False
    of_condition: ClassVar[tuple[str, ...]] = ()
    joins: ClassVar[bool] = False

    def __init__(
        self,
        event_shape: int | Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        head: keras.layers.Layer | None = None,
        missing: bool = False,
        sequence: bool = False,
        **kwargs: Any,
    ) -> None:
        for name, value in (("missing", missing), ("sequence", sequence)):
            if not isinstance(value, bool):
                raise TypeError(
                    f"Invalid value for argument `{name}`. Expected True or False. Received: "
                    f"{value!r}"
                )
        self.sequence = sequence
        super().__init__(event_shape, network, head=head, **kwargs)
        self.missing = missing
        if sequence and len(self.event_shape) < 2:
            raise ValueError(
                "sequence=True expects an event shape of steps and entries, such as (24, 1); got "
                f"{self.event_shape}."
            )
        self.has_own_head = self.has_own_head or sequence

    def _default_head(self) -> keras.layers.Layer:
        if not self.sequence:
            return super()._default_head()
        size = math.prod(self.event_shape[1:-1]) * self._last_size
        return StepDense(size, dtype=self.float_dtype, name="parameters")

    def _features(self, inputs: Any, training: bool) -> Any:
        if self.sequence and self.network is None and len(inputs.shape) < 3:
            raise ValueError(
                f"{type(self).__name__} with sequence=True needs a network that returns features "
                "of each step, [B, steps, n], such as keras_vae.networks.sequence_decoder."
            )
        return super()._features(inputs, training)

    def parameters(self, c: Any, training: bool = False) -> dict[str, tf.Tensor]:
        """Returns the parameters of the distribution; arguments as for the base class."""
        found = super().parameters(c, training)
        if not (self.sequence and training):
            return found
        entry = next(iter(found.values()))[..., :1]
        return {
            name: value if value.shape.rank else repeated(value, entry, len(self.event_shape))
            for name, value in found.items()
        }

    def independent(self, entries: tfd.Distribution) -> tfd.Distribution:
        """Returns the distribution of an event whose entries are independent of each other."""
        if not self.sequence:
            return super().independent(entries)
        return tfp.Sequence(entries, len(self.event_shape))

    def build(self, input_shape: Any) -> None:
        """Creates the weights of network and head; input shapes may leave the batch open."""
        if not self.built:
            inputs = symbolic(input_shape, self.compute_dtype)
            self.check_condition(inputs)
            input_shape = shapes_of(self.network_input(inputs))
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
            self.build(shapes_of(c))
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

    def of_entries(self) -> "Likelihood":
        """Returns the likelihood whose head emits the parameters of entries: by default, itself."""
        return self

    def joined_parameters(self, parts: Sequence["Likelihood"]) -> dict[str, tf.Tensor]:
        """Returns the shared parameters of several parts with the options of this one.

        Args:
            parts: likelihoods of the same class and options.

        Returns:
            Tensors by name, [P, ...], whose axes after the first broadcast against an event.
        """
        each = [part.shared_parameters() for part in parts]
        return {name: self.joined([one[name] for one in each]) for name in each[0]}

    def joined(self, values: Sequence[Any]) -> tf.Tensor:
        """Returns values that broadcast against an event, one of each part, as [P, ...]."""
        stacked = tf.stack([tf.convert_to_tensor(value) for value in values])
        lacking = len(self.event_shape) + 1 - stacked.shape.rank
        if lacking <= 0:
            return stacked
        return tf.reshape(stacked, [len(values), *[1] * lacking, *stacked.shape[1:]])

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
        """Returns the constructor arguments; `missing` and `sequence` only if they are True."""
        flags = {"missing": self.missing, "sequence": self.sequence}
        return {**super().get_config(), **{name: True for name, flag in flags.items() if flag}}

    @property
    @abc.abstractmethod
    def support(self) -> supports.Support:
        """Set in which data may lie; `fit` refuses data outside it."""

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

    def training_noise(self) -> Noise | None:
        """Returns the noise by which training disturbs the parameters; by default there is none."""
        return None

    def disturbed(self, parameters: dict[str, Any], noise: tf.Tensor) -> dict[str, Any]:
        """Returns parameters disturbed by the noise of a training step.

        Args:
            parameters: those at the draws, [S, B, ...].
            noise: noise as specified by `training_noise`, [S, B, *shape].
        """
        return parameters

    @property
    def observes(self) -> bool:
        """Whether `observe` does anything."""
        return type(self).observe is not Likelihood.observe

    def observe(
        self, x: tf.Tensor, p: tfd.Distribution, sample_weight: tf.Tensor | None = None
    ) -> None:
        """Updates a closed-form scale; a hook that is called in every training pass.

        Args:
            x: data of the batch, [B, *D].
            p: p(x | z) at its draws, batch shape [S, B].
            sample_weight: weights of the examples in the loss, [B]; None for equal ones.
        """
