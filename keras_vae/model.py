"""Variational autoencoder: three laws, trained by `model.fit`."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae import estimators, random
from keras_vae.arguments import as_count, as_shape, deserialize, is_integer, register, serialize
from keras_vae.data.frames import numbers
from keras_vae.distributions import HeadSizeError, Likelihood, Posterior
from keras_vae.distributions.priors import Prior
from keras_vae.distributions.tfp import statistic, tfd
from keras_vae.estimators import Laws
from keras_vae.training.chunking import by_chunks, spec_of
from keras_vae.training.data_spec import Contract
from keras_vae.training.trainer import Noise, Trainer

__all__ = ["VAE", "Bound"]


class Bound(NamedTuple):
    """The evidence lower bound of each example and its two terms, [B], in nats.

    Attributes:
        elbo: lower bound on log p(x), -(distortion + rate).
        distortion: -E_q log p(x | z), every constant included.
        rate: KL(q(z | x) || p(z)).
    """

    elbo: tf.Tensor
    distortion: tf.Tensor
    rate: tf.Tensor


class _NetworkOf:
    """Descriptor: the network of one of the distributions, unless an instance has the name."""

    def __init__(self, distribution: str) -> None:
        self.distribution = distribution

    def __get__(self, vae: Any, owner: type) -> Any:
        return self if vae is None else getattr(vae, self.distribution).network


@register
class VAE(Trainer):
    """Latent variable model p(x, z) = p(z) p(x | z) with an inference model q(z | x).

    `fit` maximises a bound on log p(x) and logs `loss`, `elbo`, `distortion` and `rate`, in nats
    per example; `loss` is the objective, with sample weights and the penalties of Keras
    regularizers in it, the others are unweighted. A call, like `predict` and `reconstruct`, returns
    the decoder mean at the posterior mean. Source: Kingma and Welling
    (2014), Auto-encoding variational Bayes, arXiv:1312.6114.

    Args:
        prior: p(z).
        likelihood: p(x | z), whose network is the decoder.
        posterior: q(z | x), whose network is the encoder.
        condition_shape: shape of one condition c, for p(x | z, c) and q(z | x, c). Encoder and
            decoder are then called with lists [x, c] and [z, c], and data is passed as
            {"x": ..., "condition": ...}.
        feature_names: names of the columns of x, for a table; `fit` takes them from a data frame.
            Data frames are then matched by name.

    `encoder` and `decoder` are the networks of posterior and likelihood, None where there is none.
    `preparation_digest` names the preparation of the data of a run, None outside of runs.

    Raises:
        ValueError: if the latent sizes or the dtypes of the three laws disagree, or a network does
            not take its input.
        TypeError: if an argument is not of its kind.

    Example:
        >>> import keras_vae, numpy as np
        >>> vae = VAE(
        ...     prior=keras_vae.StandardNormal(2),
        ...     likelihood=keras_vae.Normal(5, network=keras.layers.Dense(8, "relu")),
        ...     posterior=keras_vae.DiagonalNormal(2, network=keras.layers.Dense(8, "relu")),
        ... )
        >>> vae.compile()
        >>> history = vae.fit(np.zeros([64, 5], "float32"), verbose=0)
        >>> sorted(history.history)
        ['distortion', 'elbo', 'loss', 'rate']
    """

    encoder = _NetworkOf("posterior")
    decoder = _NetworkOf("likelihood")

    def __init__(
        self,
        *,
        prior: Prior,
        likelihood: Likelihood,
        posterior: Posterior,
        condition_shape: int | Sequence[int] | None = None,
        feature_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value, kind in (
            ("prior", prior, Prior),
            ("likelihood", likelihood, Likelihood),
            ("posterior", posterior, Posterior),
        ):
            if not isinstance(value, kind):
                raise TypeError(
                    f"Invalid value for argument `{name}`. Expected a keras_vae {kind.__name__}, "
                    f"a layer with a law. Received: {value!r}"
                )
        if prior.latent_size != posterior.latent_size:
            raise ValueError(
                f"Latent sizes disagree: the prior has {prior.latent_size} and the posterior "
                f"{posterior.latent_size}. Give both the same number."
            )
        dtypes = [law.law_dtype for law in (prior, likelihood, posterior)]
        if len(set(dtypes)) > 1:
            raise ValueError(
                f"The laws compute in different dtypes: prior {dtypes[0]}, likelihood {dtypes[1]}, "
                f"posterior {dtypes[2]}. Give all three the same dtype=."
            )
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior
        self.latent_size = prior.latent_size
        self.condition_shape = (
            None if condition_shape is None else as_shape(condition_shape, "condition_shape")
        )
        self.feature_names = feature_names
        self.preparation_digest: str | None = None
        self._build_laws()
        self.built = True

    def _build_laws(self) -> None:
        data_shapes = [self.likelihood.event_shape]
        latent_shapes: list[tuple[int, ...]] = [(self.latent_size,)]
        if self.condition_shape is not None:
            data_shapes.append(self.condition_shape)
            latent_shapes.append(self.condition_shape)
        for layer, shapes, inputs in (
            (self.posterior, data_shapes, "x"),
            (self.likelihood, latent_shapes, "z"),
        ):
            batched = [(None, *shape) for shape in shapes]
            try:
                layer.build(batched if len(batched) > 1 else batched[0])
            except HeadSizeError:
                raise
            except (TypeError, ValueError) as error:
                wanted = " and a condition of shape ".join(_batch_of(shape) for shape in shapes)
                raise ValueError(
                    f"The network of {type(layer).__name__} does not take {inputs} of shape "
                    f"{wanted}: {_reason(error)}"
                ) from error
        if not self.prior.built:
            self.prior.build((None, self.latent_size))
        support = self.likelihood.support
        self.prior.bind(self.posterior, data_shapes, support.low, support.high)

    @property
    def _contract(self) -> Contract:
        return Contract(self.likelihood, self.condition_shape, self.feature_names)

    def __dir__(self) -> list[str]:
        """The attributes, without second names of networks: Keras would save them twice."""
        second_names = {"encoder", "decoder"} - set(self.__dict__)
        return [name for name in super().__dir__() if name not in second_names]

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the columns of x, None where they have none."""
        return None if self._feature_names is None else tuple(self._feature_names)

    @feature_names.setter
    def feature_names(self, names: Sequence[str] | None) -> None:
        shape = self.likelihood.event_shape
        columns = shape[: len(shape) - self.likelihood.support.event_dim]
        if names is not None and (len(names),) != columns:
            raise ValueError(
                f"Expected one feature name for each of the columns of x of shape "
                f"{_batch_of(shape)}; got {len(names)} names."
            )
        self._feature_names = None if names is None else tuple(map(str, names))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example x."""
        return self.likelihood.event_shape

    def encode(self, x: Any) -> tfd.Distribution:
        """Posterior q(z | x), batch shape [B], event shape [L].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.

        Raises:
            DataError: if a shape is wrong or a number is not finite.
        """
        x = self._checked(x, in_support=False)
        parameters = self._by_rows("encode", lambda x: self._encoded(self._cast(x)), x)
        return self.posterior.law(**parameters, **self.posterior.constants())

    def _encoded(self, x: Any, training: bool = False) -> dict[str, tf.Tensor]:
        values, condition = self._contract.split(x)
        inputs = values if condition is None else [values, condition]
        return self.posterior.parameters(inputs, training)

    def decode(self, z: Any, condition: Any = None) -> tfd.Distribution:
        """Likelihood p(x | z), batch shape [B] or [S, B], event shape [*D].

        Args:
            z: latents [B, L] or [S, B, L].
            condition: conditions [B, *C] of a conditional model.

        Raises:
            ValueError: if the last axis of z is not the latents, or the condition is missing.
        """
        z = tf.convert_to_tensor(z, dtype=self.likelihood.law_dtype)
        if z.shape.rank < 2 or z.shape[-1] != self.latent_size:
            raise ValueError(f"z must have shape [n, {self.latent_size}]; got {z.shape.as_list()}.")
        inputs = self._beside(z, self._condition(condition))
        if z.shape.rank > 2:
            inputs = keras.tree.map_structure(
                lambda part: tf.reshape(part, [-1, *part.shape[z.shape.rank - 1 :]]), inputs
            )
        parameters = self._by_rows("decode", self.likelihood.parameters, inputs)
        if z.shape.rank > 2:
            parameters = {
                name: tf.reshape(value, tf.concat([tf.shape(z)[:-1], tf.shape(value)[1:]], 0))
                for name, value in parameters.items()
            }
        return self.likelihood.law(**parameters, **self.likelihood.constants())

    def log_joint(self, x: Any, z: Any) -> tf.Tensor:
        """Joint log p(x, z) = log p(z) + log p(x | z) in nats, [B], or [S, B] for z [S, B, L].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.
            z: latents [B, L] or [S, B, L].

        Raises:
            DataError: if x lies outside the support of the likelihood.
        """
        x, condition = self._contract.split(self._cast(self._checked(x, in_support=True)))
        z = tf.convert_to_tensor(z, dtype=self.likelihood.law_dtype)
        law = self.decode(z, condition)
        if not z.shape[-2:-1].is_compatible_with(x.shape[:1]):
            raise ValueError(f"x holds {x.shape[0]} examples and z {z.shape[-2]} of them.")
        return self.prior.distribution().log_prob(z) + law.log_prob(x)

    def elbo(self, x: Any, num_samples: int = 1, seed: int | None = None) -> Bound:
        """Evidence lower bound of each example, with the rate in closed form where there is one.

        The draws of example i are a pure function of (seed, i): it matters neither what stands
        beside it nor how many there are. They are those of the exported `score` for the seed pair
        [seed, i], and independent of what `sample` draws with the same seed.

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.
            num_samples: draws from the posterior per example.
            seed: integer for reproducible draws; None draws anew each time.

        Returns:
            `Bound(elbo, distortion, rate)`, each [B], in nats.

        Raises:
            DataError: if x lies outside the support of the likelihood.
        """
        num_samples = as_count("num_samples", num_samples, least=1)
        x = self._checked(x, in_support=True)
        first = keras.tree.flatten(x)[0]
        count = tf.shape(first)[0] if tf.is_symbolic_tensor(first) else len(first)

        def terms(x: Any, seeds: tf.Tensor) -> Bound:
            noise = self.posterior.noise(seeds, num_samples)
            laws = self.laws(x, noise=lambda *_: noise)
            distortion, rate = estimators.elbo_terms(laws, laws.sample(num_samples, seeds))
            return Bound(-(distortion + rate), distortion, rate)

        return self._by_rows(
            f"elbo {num_samples}",
            lambda inputs: terms(*inputs),
            [x, self._row_seeds(count, seed)],
            num_samples,
        )

    def sample(self, n: int, seed: int | None = None, *, condition: Any = None) -> tf.Tensor:
        """Draws from p(x): z from the prior, x from the likelihood; [n, *D].

        Row i is a pure function of (seed, i), by the counter-based noise of `keras_vae.random`: an
        exported model gives the same row for the seed pair [seed, i].

        Args:
            n: number of draws.
            seed: integer of 32 bits for reproducible draws; None draws anew each time.
            condition: conditions [n, *C], or one [*C] for all, of a conditional model.

        Raises:
            ValueError: if `n` or `seed` is out of range, or the condition is missing.
        """
        return self._by_rows("sample", self._drawn, self._prior_inputs(n, seed, condition))

    def sample_mean(self, n: int, seed: int | None = None, *, condition: Any = None) -> tf.Tensor:
        """Decoder means at the prior draws that `sample` uses for the same seed; [n, *D].

        These are not draws from p(x): they leave out the noise of the likelihood.
        """
        return self._by_rows("sample_mean", self._mean, self._prior_inputs(n, seed, condition))

    def reconstruct(self, x: Any) -> tf.Tensor:
        """Decoder mean at the posterior mean, [B, *D]; deterministic, as is `predict`.

        Raises:
            DataError: if a shape is wrong or a number is not finite.
        """
        x = self._checked(x, in_support=False)
        return self._by_rows("reconstruct", lambda x: self(x, training=False), x)

    def call(self, x: Any, training: bool = False) -> tf.Tensor:
        """Decoder mean at the posterior mean, or when training at a posterior draw."""
        x = self._cast(x)
        q = self.posterior.law(**self._encoded(x, training), **self.posterior.constants())
        z = (
            q.sample(seed=random.stateless_seed(self._draws.next()))
            if training
            else self._centre(q)
        )
        return self._likelihood(z, self._contract.split(x)[1], training).mean()

    def laws(
        self,
        x: Any,
        training: bool = False,
        noise: Noise | None = None,
        sample_weight: tf.Tensor | None = None,
    ) -> Laws:
        """The three laws that meet at a batch.

        Args:
            x: tensors [B, *D], or {"x": ..., "condition": ...}; neither checked nor converted.
            training: whether the networks are in training mode.
            noise: what posterior draws are made of, instead of the method `noise`.
            sample_weight: what each example counts in the loss, [B], for a scale in closed form.
        """
        make_noise = self.noise if noise is None else noise
        x = self._cast(x)
        values, condition = self._contract.split(x)
        prior, parameters = self.prior.distribution(), self._encoded(x, training)
        constant = {name: tf.stop_gradient(value) for name, value in parameters.items()}

        def sample(num_samples: int | Sequence[int], seed: tf.Tensor) -> tf.Tensor:
            size = values.shape[0] or tf.shape(values)[0]
            return self.posterior.transport(make_noise(seed, num_samples, size), **parameters)

        def likelihood(z: tf.Tensor) -> tfd.Distribution:
            law = self._likelihood(z, condition, training)
            if training:
                self.likelihood.observe(values, law, sample_weight)
            return law

        return Laws(
            x=values,
            prior=prior,
            posterior=self.posterior.law(**parameters),
            frozen_posterior=self.posterior.law(**constant),
            likelihood=likelihood,
            sample=sample,
        )

    def _centre(self, q: tfd.Distribution) -> tf.Tensor:
        return statistic(q, "mean", "A reconstruction, and so `predict`,")

    def _likelihood(
        self, z: tf.Tensor, condition: tf.Tensor | None, training: bool = False
    ) -> tfd.Distribution:
        return self.likelihood.distribution(self._beside(z, condition), training)

    def _beside(self, z: tf.Tensor, condition: tf.Tensor | None) -> Any:
        """What the decoder takes: z [..., L], or [z, condition] with the condition at each z."""
        if condition is None:
            return z
        shape = tf.concat([tf.shape(z)[:-1], tf.constant(self.condition_shape, tf.int32)], 0)
        return [z, _spread(condition, shape, z)]

    def _prior_inputs(self, n: int, seed: int | None, condition: Any) -> Any:
        """Row seeds of n draws, or [seeds, conditions]."""
        if not is_integer(n) or not 1 <= n < 2**31:
            raise ValueError(f"Expected a number of draws of at least 1, below 2^31; got n={n!r}.")
        seeds, condition = self._row_seeds(int(n), seed), self._condition(condition)
        if condition is None or self.condition_shape is None:
            return seeds
        if condition.shape[0] not in (1, n):
            raise ValueError(
                f"Expected one condition, or one for each of the {n} draws; got "
                f"{condition.shape[0]}."
            )
        return [seeds, tf.broadcast_to(condition, [n, *self.condition_shape])]

    def _row_seeds(self, n: int | tf.Tensor, seed: int | None) -> tf.Tensor:
        if seed is None:
            return random.row_seeds(random.stateless_seed(self._draws.next()), n)
        if not is_integer(seed) or not -(2**31) <= seed < 2**31:
            raise ValueError(f"Expected a seed that fits in 32 bits, or None; got seed={seed!r}.")
        return random.row_seeds(int(seed), n)

    def _at_prior_draws(self, inputs: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The row seeds, and the parameters of p(x | z) at the draws of z that belong to them."""
        seeds, *condition = keras.tree.flatten(inputs)
        z = self.prior.components().draw(seeds)
        inputs = [z, tf.cast(condition[0], z.dtype)] if condition else z
        return seeds, {**self.likelihood.parameters(inputs), **self.likelihood.constants()}

    def _drawn(self, inputs: Any) -> tf.Tensor:
        seeds, parameters = self._at_prior_draws(inputs)
        return self.likelihood.draw(seeds, **parameters)

    def _mean(self, inputs: Any) -> tf.Tensor:
        return self.likelihood.law(**self._at_prior_draws(inputs)[1]).mean()

    def _by_rows(
        self, name: str, function: Callable[[Any], Any], inputs: Any, draws: int = 1
    ) -> Any:
        """A function of [n, ...], row by row the same; a graph goes through many in chunks."""
        rows = self._rows_at_once(draws)
        if not tf.executing_eagerly() or len(keras.tree.flatten(inputs)[0]) <= rows:
            return function(inputs)
        specs = spec_of(inputs)
        graph = self._graph(
            (name, str(specs)),
            lambda: tf.function(function, input_signature=[specs], autograph=False),
        )
        return by_chunks(graph, inputs, rows)

    def _condition(self, condition: Any) -> tf.Tensor | None:
        """The condition as [n, *C], or [1, *C] if it came without the batch axis."""
        if self.condition_shape is None:
            if condition is not None:
                raise ValueError("This model is unconditional; leave condition out.")
            return None
        wanted = f"This model needs a condition of shape {_batch_of(self.condition_shape)}"
        if condition is None:
            raise ValueError(f"{wanted}.")
        array: Any = condition if tf.is_tensor(condition) else numbers(condition, "condition")
        if tuple(array.shape) == self.condition_shape:
            array = array[np.newaxis]
        if not tf.is_symbolic_tensor(array):
            self._contract.condition(array)
        elif not array.shape[1:].is_compatible_with(self.condition_shape):
            raise ValueError(f"{wanted}; got {array.shape.as_list()}.")
        return self._cast(array)

    def _checked(self, x: Any, *, in_support: bool) -> Any:
        """Arrays, checked; tensors stay, for a gradient to pass, and symbolic ones unchecked."""
        parts = keras.tree.flatten(x)
        if parts and tf.is_symbolic_tensor(parts[0]):
            return x
        arrays = self._contract.arrays(x, in_support=in_support)
        if isinstance(x, dict):
            return {key: x[key] if tf.is_tensor(x[key]) else arrays[key] for key in x}
        return x if tf.is_tensor(x) else arrays

    def _cast(self, x: Any) -> Any:
        return keras.tree.map_structure(
            lambda part: tf.cast(tf.convert_to_tensor(part), self.likelihood.law_dtype), x
        )

    def save_own_variables(self, store: Any) -> None:
        """Writes the states of the random generators, which Keras leaves out."""
        for index, variable in enumerate(self._seed_states()):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads the states of the random generators."""
        known = set(store.keys())
        for index, variable in enumerate(self._seed_states()):
            if str(index) in known:
                variable.assign(store[str(index)])

    def _seed_states(self) -> list[keras.Variable]:
        return [v for v in self.variables if v.path.endswith("seed_generator_state")]

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, and `preparation_digest` where there is one."""
        digest = self.preparation_digest
        return {
            **super().get_config(),
            **({} if digest is None else {"preparation_digest": digest}),
            "prior": serialize(self.prior),
            "likelihood": serialize(self.likelihood),
            "posterior": serialize(self.posterior),
            "condition_shape": None if self.condition_shape is None else list(self.condition_shape),
            "feature_names": None if self.feature_names is None else list(self.feature_names),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "VAE":
        """The model with new weights."""
        laws = {key: deserialize(config[key]) for key in ("prior", "likelihood", "posterior")}
        arguments = {**config, **laws}
        digest = arguments.pop("preparation_digest", None)
        vae = cls(**arguments)
        vae.preparation_digest = digest
        return vae


def _batch_of(shape: Sequence[int]) -> str:
    return f"[n, {', '.join(map(str, shape))}]"


def _reason(error: Exception) -> str:
    """What Keras says, without colours and without the arguments of the call."""
    text = re.sub("\x1b\\[[0-9;]*m", "", str(error)).split("\n\nArguments received")[0]
    return " ".join(text.split())


def _spread(condition: tf.Tensor, shape: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    return tf.broadcast_to(tf.cast(condition, like.dtype), shape)
