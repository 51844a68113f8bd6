"""Autoregressive likelihoods of sequences: each step depends on z and on the steps before it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import deserialize, is_real, register, serialize
from keras_vae.distributions import supports
from keras_vae.distributions.base import Likelihood, Parameter
from keras_vae.distributions.noise import Draw, Noise, from_seed
from keras_vae.distributions.tfp import split_seed, tfd
from keras_vae.networks.causal import CausalSteps
from keras_vae.networks.steps import StepDense, at_each_step, whole_blocks

__all__ = ["AutoregressiveLikelihood"]


class AutoregressiveSteps(tfd.Distribution):
    """A joint distribution over sequences, p(x) = prod_t p(x_t given x_<t).

    Its mean and mode are those of a path: at each step the mean, and the value that is most
    probable or else the mean, given the path before it.

    Args:
        given: function from sequences to the distribution of independent steps whose parameters
            are computed from the steps before.
        draw: function from noise [..., *shape] to sequences.
        path: function that returns the values and the means of the path.
        noise: specification of the noise.
        batch: batch shape, static and as a tensor.
        event_shape: shape of a sequence.
        dtype: dtype of the sequences.
    """

    def __init__(
        self,
        given: Callable[[tf.Tensor], tfd.Distribution],
        draw: Callable[[Any], tf.Tensor],
        path: Callable[[], tuple[tf.Tensor, tf.Tensor]],
        *,
        noise: Any,
        batch: tuple[tf.TensorShape, Any],
        event_shape: tuple[int, ...],
        dtype: str,
        name: str = "AutoregressiveSteps",
    ) -> None:
        self.given, self._draw, self._path, self._noise = given, draw, path, noise
        self._batch, self._event = batch, event_shape
        super().__init__(
            dtype=tf.as_dtype(dtype),
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={"name": name},
            name=name,
        )

    def _batch_shape(self) -> tf.TensorShape:
        return self._batch[0]

    def _batch_shape_tensor(self, **_: Any) -> tf.Tensor:
        return tf.convert_to_tensor(self._batch[1], tf.int32)

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape(self._event)

    def _event_shape_tensor(self, *_: Any, **__: Any) -> tf.Tensor:
        return tf.constant(self._event, tf.int32)

    def _default_event_space_bijector(self) -> None:
        return None

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return self.given(x).log_prob(x)

    def _mean(self) -> tf.Tensor:
        return self._path()[1]

    def _mode(self) -> tf.Tensor:
        return self._path()[0]

    def _sample_n(self, n: int, seed: Any = None) -> tf.Tensor:
        (own,) = tf.unstack(split_seed(seed, n=1))
        leading = tf.concat([[n], self.batch_shape_tensor()], 0)
        return self._draw(from_seed(self._noise, own, tf.unstack(leading), self.dtype.name))


@register
class AutoregressiveLikelihood(Likelihood):
    """Likelihood of sequences, p(x | z) = prod_t p(x_t | x_<t, z), for text and for series.

    At each step a causal network sees the step before, and z through a context that the decoder
    computes; its features are the parameters of the next step. log p(x | z) is exact and takes one
    pass over the sequence. A draw takes one step after the other.

    Sequences may be of different lengths. Steps that are absent, which are NaN, come last and add
    nothing. The mean is that of a path: at each step the mean given the path before it, of which
    categories are the most probable ones and others the means. E[x | z] has no closed form.

    Sources: Bowman et al. (2016), Generating sentences from a continuous space, arXiv:1511.06349;
    Sutskever, Vinyals and Le (2014), arXiv:1409.3215.

    Args:
        steps: likelihood of the sequences if all steps were independent, with sequence=True and
            without network. It has the family and the shape of the sequences.
        network: the decoder, from z to features of which the context is made; None is z itself.
        core: causal layer, from what is fed back at each step to the features of the next: a
            `CausalSteps`, or a layer with the same `start` and `step`. None is a `CausalSteps`.
        word_dropout: probability with which training hides a step that is fed back, so that the
            decoder has to ask z. log p(x | z) outside of training hides nothing.
        head: layer from the features of the network to the context; None is one Dense layer.

    Raises:
        TypeError: if `steps` is no likelihood, or `core` cannot run step by step.
        ValueError: if `steps` is no sequence, or `word_dropout` no probability below 1.

    Example:
        >>> import keras_vae
        >>> tokens = keras_vae.Categorical((7, 5), sequence=True, missing=True)
        >>> likelihood = AutoregressiveLikelihood(tokens, core=CausalSteps(width=8))
        >>> p = likelihood.distribution(tf.zeros([2, 3]))
        >>> p.log_prob(p.sample(seed=0)).shape, p.mode().shape
        (TensorShape([2]), TensorShape([2, 7, 5]))
    """

    reading = (
        "p(x | z) = prod_t p(x_t | x_<t, z) by a network inside the model, to which z enters as "
        "the context. mean is that of each step given the most probable steps before it, or their "
        "means if they are no categories."
    )
    absent_at_end = True

    def __init__(
        self,
        steps: Likelihood,
        network: keras.layers.Layer | None = None,
        *,
        core: keras.layers.Layer | None = None,
        word_dropout: float = 0.0,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        _check_steps(steps)
        core = CausalSteps() if core is None else core
        if not (isinstance(core, keras.layers.Layer) and hasattr(core, "step")):
            raise TypeError(
                "Invalid value for argument `core`. Expected a layer with `start` and `step`, such "
                f"as keras_vae.networks.CausalSteps. Received: {core!r}"
            )
        if not is_real(word_dropout) or not 0.0 <= word_dropout < 1.0:
            raise ValueError(
                "Invalid value for argument `word_dropout`. Expected a probability below 1. "
                f"Received: word_dropout={word_dropout!r}"
            )
        self._width = getattr(core, "width", 64)
        super().__init__(steps.event_shape, network, head=head, missing=steps.missing, **kwargs)
        self.steps, self.core, self.word_dropout = steps, core, float(word_dropout)
        self.fed_back = StepDense(self._width, dtype=self.float_dtype, name="fed_back")
        one = _of_one_step(steps)
        self._one = lambda: one

    def of_entries(self) -> Likelihood:
        """Returns the likelihood of the steps, whose head emits their parameters."""
        return self.steps

    @property
    def support(self) -> supports.Support:
        """Set in which data may lie; that of the steps."""
        return self.steps.support

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the context, of as many numbers as the core has features."""
        return {"context": Parameter(self._width)}

    @property
    def _total_size(self) -> int:
        return self._width

    def read(self, raw: tf.Tensor, leading: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Returns the context, [n, width] or [*leading, width]."""
        whole = [-1, self._width] if leading is None else tf.concat([leading, [self._width]], 0)
        return {"context": tf.reshape(tf.cast(raw, self.float_dtype), whole)}

    def parameters(self, c: Any, training: bool = False) -> dict[str, Any]:
        """Returns the context, and whether layers are in training mode if they are."""
        return {**super().parameters(c, training), **({"training": True} if training else {})}

    def training_noise(self) -> Noise | None:
        """Returns one uniform number per step if steps are hidden, otherwise None."""
        if not self.word_dropout:
            return None
        return Noise(self.event_shape[:1], "uniform", random.OBSERVATION)

    def disturbed(self, parameters: dict[str, Any], noise: tf.Tensor) -> dict[str, Any]:
        """Returns the parameters with which steps are fed back, booleans [..., T]."""
        return {**parameters, "known": noise >= self.word_dropout}

    def build(self, input_shape: Any) -> None:
        """Creates the weights; input shapes may leave the batch open."""
        super().build(input_shape)
        self._build_steps()

    def build_head(self, features_shape: Any, input_shape: Any) -> None:
        """Creates the weights on features that another network makes of the inputs."""
        super().build_head(features_shape, input_shape)
        self._build_steps()

    def _build_steps(self) -> None:
        for layer, count, size in (
            (self.fed_back, self._whole, math.prod(self.event_shape[1:]) + 1),
            (self.core, self.event_shape[0], self._width),
            (self.steps, self.event_shape[0], self._width),
        ):
            if not layer.built:
                layer.build((None, count, size))

    @property
    def _whole(self) -> int:
        """Number of steps of the layers inside, a multiple of 16."""
        return whole_blocks(self.event_shape[0])

    def make_distribution(
        self, context: tf.Tensor, training: bool = False, known: tf.Tensor | None = None
    ) -> tfd.Distribution:
        """Returns the joint distribution of the steps.

        Args:
            context: what the core is told of z, [..., width].
            training: whether layers are in training mode.
            known: which steps are fed back, booleans [..., T]; None is all.
        """
        return AutoregressiveSteps(
            lambda x: self._given(x, context, training, known),
            lambda noise: self.draw(noise, context).value,
            lambda: self._greedy(context),
            noise=self.noise(),
            batch=(context.shape[:-1], tf.shape(context)[:-1]),
            event_shape=self.event_shape,
            dtype=self.float_dtype,
            name=type(self.steps).__name__,
        )

    def _given(
        self, x: tf.Tensor, context: tf.Tensor, training: bool, known: tf.Tensor | None
    ) -> tfd.Distribution:
        """Returns the distribution of steps that are independent given those before."""
        rank = len(self.event_shape)
        x = tf.cast(tf.convert_to_tensor(x), self.float_dtype)
        leading = tf.shape(x)[: x.shape.rank - rank]
        entries = math.prod(self.event_shape[1:])
        flat = tf.reshape(x, tf.concat([leading, [self.event_shape[0], entries]], 0))
        flat = tf.where(tf.math.is_nan(flat), tf.zeros_like(flat), flat)
        added = [[0, 0]] * (flat.shape.rank - 2)
        after = self._whole - self.event_shape[0]
        before = tf.pad(flat[..., :-1, :], [*added, [1, after], [0, 0]])
        told = np.arange(self._whole) > 0
        if known is not None:
            added = [[0, 0]] * (known.shape.rank - 1)
            told = tf.logical_and(told, tf.pad(known, [*added, [0, after]]))
        inputs = self._fed_back(before, told, training)
        inputs += at_each_step(context, self._whole, training)
        inputs = inputs[..., : self.event_shape[0], :]
        steps = [self.event_shape[0], self._width]
        features = self.core(tf.reshape(inputs, [-1, *steps]), training=training)
        features = tf.reshape(features, tf.shape(inputs))
        features.set_shape(inputs.shape)
        return self.steps.distribution(tf.cast(features, self.float_dtype), training)

    def _fed_back(self, before: tf.Tensor, told: Any, training: bool) -> tf.Tensor:
        """Returns what the core sees of the step before, [..., T, width].

        Args:
            before: the step before each step, [..., T, n].
            told: whether it is told, [..., T] or [T]; the one before the first is not.
        """
        told = tf.cast(tf.convert_to_tensor(told), before.dtype)[..., tf.newaxis]
        seen = before * told
        flags = tf.broadcast_to(told, tf.concat([tf.shape(seen)[:-1], [1]], 0))
        seen = tf.concat([seen, flags], axis=-1)
        flat = tf.reshape(seen, [-1, before.shape[-2], before.shape[-1] + 1])
        found = self.fed_back(flat, training=training)
        found = tf.reshape(found, tf.concat([tf.shape(seen)[:-1], [self._width]], 0))
        found.set_shape([*seen.shape[:-1], self._width])
        return found

    def noise(self) -> Any:
        """Returns the noise of a draw, that of the steps."""
        return self.steps.noise()

    def draw(
        self,
        noise: tf.Tensor,
        context: tf.Tensor,
        training: bool = False,
        known: tf.Tensor | None = None,
    ) -> Draw:
        """Draws one step after the other; step t uses the noise of step t alone."""
        one, rank = self._one(), len(self.noise().shape)
        leading = tf.shape(noise)[:-rank]
        context = tf.broadcast_to(context, tf.concat([leading, [self._width]], 0))
        flat = tf.reshape(noise, [-1, *noise.shape[-rank:]])

        def draw(index: tf.Tensor, parameters: dict[str, tf.Tensor]) -> list[tf.Tensor]:
            own = tf.gather(flat, index, axis=1)[:, tf.newaxis]
            return [one.draw(own, **parameters).value]

        (values,) = self._walk(context, draw, 1)
        return Draw(values)

    def _greedy(self, context: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns values and means of the path, each [..., *event_shape]."""
        one, support = self._one(), self.support

        def likeliest(index: tf.Tensor, parameters: dict[str, tf.Tensor]) -> list[tf.Tensor]:
            mean = one.make_distribution(**parameters).mean()
            value = mean
            if support.is_one_hot:
                value = tf.one_hot(tf.argmax(mean, axis=-1), mean.shape[-1], dtype=mean.dtype)
            elif support.is_whole and support.high == 1.0:
                value = tf.cast(mean > 0.5, mean.dtype)
            return [value, mean]

        values, means = self._walk(context, likeliest, 2)
        return values, means

    def _walk(
        self,
        context: tf.Tensor,
        choose: Callable[[tf.Tensor, dict[str, tf.Tensor]], list[tf.Tensor]],
        kinds: int,
    ) -> list[tf.Tensor]:
        """Runs the core step by step on the steps that `choose` makes.

        Args:
            context: [..., width].
            choose: function from the index of a step and its parameters [n, 1, ...] to what is fed
                back, and more of the same shape, [n, 1, *entries].
            kinds: number of tensors that it returns.

        Returns:
            Those tensors of all steps, each [..., *event_shape].
        """
        count, *entries = self.event_shape
        flat = tf.reshape(context, [-1, self._width])
        size = tf.shape(flat)[0]
        places = np.arange(count).reshape(count, *[1] * len(entries))
        shared = self.steps.shared_parameters()

        def step(index: tf.Tensor, before: tf.Tensor, found: Any, state: Any) -> Any:
            told = tf.reshape(index > 0, [1])
            inputs = self._fed_back(before[:, tf.newaxis], told, False)[:, 0] + flat
            features, state = self.core.step(inputs, index, state)
            features = tf.cast(features, self.float_dtype)
            raw = self.steps.head(features[:, tf.newaxis])
            own = {name: _at(value, index, count) for name, value in shared.items()}
            chosen = choose(index, {**self._one().read(raw), **own})
            here = tf.equal(places, tf.cast(index, places.dtype))
            found = [tf.where(here, new, old) for new, old in zip(chosen, found, strict=True)]
            return index + 1, tf.reshape(chosen[0], [-1, before.shape[-1]]), found, state

        start = tf.zeros([size, math.prod(entries)], self.float_dtype)
        empty = [tf.zeros([size, *self.event_shape], self.float_dtype) for _ in range(kinds)]
        state = [tf.convert_to_tensor(each) for each in self.core.start(size)]
        _, _, found, _ = tf.while_loop(
            lambda index, *_: index < count,
            step,
            (tf.constant(0), start, empty, state),
            parallel_iterations=1,
            maximum_iterations=count,
        )
        if context.shape.rank == 2:
            return found
        shape = tf.concat([tf.shape(context)[:-1], self.event_shape], 0)
        return [tf.reshape(each, shape) for each in found]

    def observe(
        self, x: tf.Tensor, p: tfd.Distribution, sample_weight: tf.Tensor | None = None
    ) -> None:
        """Updates a closed-form scale of the steps."""
        self.steps.observe(x, p.given(x), sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        config = super().get_config()
        for name in ("event_shape", "missing"):
            config.pop(name, None)
        return {
            **config,
            "steps": serialize(self.steps),
            "core": serialize(self.core),
            "word_dropout": self.word_dropout,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AutoregressiveLikelihood":
        """Makes the layer with new weights."""
        layers = {key: deserialize(config[key]) for key in ("steps", "core", "network", "head")}
        return cls(**{**config, **layers})


def _check_steps(steps: Any) -> None:
    """Refuses what is no likelihood of sequences without a network."""
    if not isinstance(steps, Likelihood):
        raise TypeError(
            "Invalid value for argument `steps`. Expected a keras_vae likelihood with "
            f"sequence=True. Received: {steps!r}"
        )
    name = type(steps).__name__
    if not steps.sequence or steps.network is not None:
        raise ValueError(
            f"AutoregressiveLikelihood expects steps with sequence=True and without a network; got "
            f"{name} with sequence={steps.sequence} and "
            f"network={getattr(steps.network, 'name', None)}. Give the network to "
            "AutoregressiveLikelihood itself."
        )
    shapes: Sequence[Any] = tf.nest.flatten(steps.noise())
    if any(one.shape[:1] != steps.event_shape[:1] for one in shapes) or len(shapes) != 1:
        raise ValueError(
            f"{name} does not draw each step from noise of its own, so a sequence cannot be drawn "
            "step by step. Choose another family."
        )


def _of_one_step(steps: Likelihood) -> Likelihood:
    """Returns the family of sequences of one step, for its functions of parameters alone."""
    config = steps.get_config()
    shape = [1, *steps.event_shape[1:]]
    return type(steps).from_config(
        {**config, "event_shape": shape, "network": None, "head": None, "name": "one_step"}
    )


def _at(value: tf.Tensor, index: tf.Tensor, count: int) -> tf.Tensor:
    """Returns a shared parameter at one step: it is one for all, or has the steps first."""
    if value.shape.rank == 0 or value.shape[0] != count:
        return value
    return value[index : index + 1]
