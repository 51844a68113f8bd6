"""Variational autoencoder: a prior, a likelihood and a posterior, trained by `model.fit`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vae.arguments import as_shape, deserialize, register, serialize
from keras_vae.distributions import HeadSizeError, Likelihood, Posterior
from keras_vae.distributions.noise import checked_draw, from_seed
from keras_vae.distributions.priors import Components, Prior
from keras_vae.distributions.tfp import tfd
from keras_vae.latent_variable_model import Bound, LatentVariableModel
from keras_vae.trace import (
    Generation,
    Inference,
    LatentOf,
    Observation,
    Site,
    Trace,
    spread,
)
from keras_vae.training.data_spec import DataSpec, Part

__all__ = ["VAE", "Bound"]


class _NetworkOf:
    """Descriptor for a distribution's network; an instance's own attribute takes precedence."""

    def __init__(self, distribution: str) -> None:
        self.distribution = distribution

    def __get__(self, vae: Any, owner: type) -> Any:
        return self if vae is None else getattr(vae, self.distribution).network


@register
class VAE(LatentVariableModel):
    """Latent variable model p(x, z) = p(z) p(x | z) with an inference model q(z | x).

    `fit` maximises a bound on log p(x) and logs `loss`, `elbo`, `distortion` and `rate`, in nats
    per example; `loss` is the objective, with sample weights and the penalties of Keras
    regularizers; the others are unweighted. A call, like `predict` and `reconstruct`, returns
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

    `encoder` and `decoder` are the networks of posterior and likelihood, or None.
    `preparation_digest` identifies the preparation of a run's data; it is None outside of runs.

    Raises:
        ValueError: if the latent sizes or the dtypes of the three distributions disagree, or a
            network does not take its input.
        TypeError: if an argument has the wrong type.

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
                    f"a layer with a distribution. Received: {value!r}"
                )
        if prior.latent_size != posterior.latent_size:
            raise ValueError(
                f"Latent sizes disagree: the prior has {prior.latent_size} and the posterior "
                f"{posterior.latent_size}. Give both the same number."
            )
        dtypes = [each.float_dtype for each in (prior, likelihood, posterior)]
        if len(set(dtypes)) > 1:
            raise ValueError(
                f"The distributions compute in different dtypes: prior {dtypes[0]}, "
                f"likelihood {dtypes[1]}, posterior {dtypes[2]}. Give all three the same dtype=."
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
        self._build_distributions()
        self.built = True

    def _build_distributions(self) -> None:
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
        if self.prior.is_conditional and self.condition_shape is None:
            raise ValueError(
                f"{type(self.prior).__name__} is p(z | c), and this model has no condition: build "
                "the VAE with condition_shape=, or choose StandardNormal."
            )
        self.prior.bind(self.posterior, data_shapes, support.low, support.high)

    @property
    def data(self) -> DataSpec:
        """The specification of the data: x, and the condition of a conditional model."""
        x = Part(
            self.likelihood.event_shape, self.likelihood.support, type(self.likelihood).__name__
        )
        parts = {"x": x}
        if self.condition_shape is not None:
            parts["condition"] = Part(self.condition_shape)
        return DataSpec(parts, self.feature_names)

    @property
    def float_dtype(self) -> str:
        """Dtype of log-probabilities: float32, or float64 under that policy."""
        return self.likelihood.float_dtype

    def __dir__(self) -> list[str]:
        """Lists the attributes, without second names of networks, which Keras would save twice."""
        second_names = {"encoder", "decoder"} - set(self.__dict__)
        return [name for name in super().__dir__() if name not in second_names]

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the columns of x, or None."""
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
        """Returns the posterior q(z | x), batch shape [B], event shape [L].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.

        Raises:
            DataError: if a shape is wrong or a number is not finite.
        """
        x = self._checked(x, in_support=False)
        parameters = self._by_rows(
            "encode", lambda x: self.posterior.head_parameters(self._inputs(self._cast(x))), x
        )
        return self.posterior.make_distribution(**parameters, **self.posterior.shared_parameters())

    def _inputs(self, x: Any) -> Any:
        """Returns what the encoder takes: x, or [x, condition]."""
        parts = list(self.data.by_name(x).values())
        return parts if len(parts) > 1 else parts[0]

    def decode(self, z: Any, condition: Any = None) -> tfd.Distribution:
        """Returns the likelihood p(x | z), batch shape [B] or [S, B], event shape [*D].

        Args:
            z: latents [B, L] or [S, B, L].
            condition: conditions [B, *C] of a conditional model.

        Raises:
            ValueError: if the last axis of z is not the latents, or the condition is missing.
        """
        z = tf.convert_to_tensor(z, dtype=self.likelihood.float_dtype)
        if z.shape.rank < 2 or z.shape[-1] != self.latent_size:
            raise ValueError(f"z must have shape [n, {self.latent_size}]; got {z.shape.as_list()}.")
        inputs = self._beside(z, self._condition(condition))
        if z.shape.rank > 2:
            inputs = keras.tree.map_structure(
                lambda part: tf.reshape(part, [-1, *part.shape[z.shape.rank - 1 :]]), inputs
            )
        parameters = self._by_rows("decode", self.likelihood.head_parameters, inputs)
        if z.shape.rank > 2:
            parameters = {
                name: tf.reshape(value, tf.concat([tf.shape(z)[:-1], tf.shape(value)[1:]], 0))
                for name, value in parameters.items()
            }
        return self.likelihood.make_distribution(
            **parameters, **self.likelihood.shared_parameters()
        )

    def log_joint(self, x: Any, z: Any) -> tf.Tensor:
        """Computes log p(x, z) = log p(z) + log p(x | z) in nats, [B], or [S, B] for z [S, B, L].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.
            z: latents [B, L] or [S, B, L].

        Raises:
            DataError: if x lies outside the support of the likelihood.
        """
        parts = self.data.by_name(self._cast(self._checked(x, in_support=True)))
        x, condition = parts["x"], parts.get("condition")
        z = tf.convert_to_tensor(z, dtype=self.likelihood.float_dtype)
        p = self.decode(z, condition)
        if not z.shape[-2:-1].is_compatible_with(x.shape[:1]):
            raise ValueError(f"x holds {x.shape[0]} examples and z {z.shape[-2]} of them.")
        return self.prior.distribution(condition).log_prob(z) + p.log_prob(x)

    def noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of z from q(z | x)."""
        return {"z": self.posterior.noise()}

    def generation_noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of z from p(z)."""
        return {"z": self.prior.noise()}

    def infer(
        self, x: Any, training: bool = False, sample_weight: tf.Tensor | None = None
    ) -> Inference:
        """Infers the latents of a batch.

        Args:
            x: tensors [B, *D], or {"x": ..., "condition": ...}; neither checked nor converted.
            training: whether the networks are in training mode.
            sample_weight: weight of each example in the loss, [B], for a scale in closed form.
        """
        x = self._cast(x)
        parts = self.data.by_name(x)
        values, condition = parts["x"], parts.get("condition")
        prior = self.prior.distribution(condition)
        parameters = self.posterior.parameters(self._inputs(x), training)

        def say(latent: LatentOf) -> Trace:
            z = latent("z", self.posterior, parameters, prior)
            p = self.likelihood.distribution(self._beside(z.value, condition), training)
            if training:
                self.likelihood.observe(values, p, sample_weight)
            return Trace({"z": z}, {"x": Observation(values, p)})

        return Inference.by(say)

    def generate(
        self,
        noise: Mapping[str, Any] | None = None,
        latents: Mapping[str, tf.Tensor] | None = None,
        condition: Any = None,
    ) -> Generation:
        """Generates z from the prior, unless it is given, and p(x | z) at it."""
        if latents is None:
            parameters = self.prior.parameters(condition)
            drawn = checked_draw(self.prior, (noise or {})["z"], parameters)
            latents = {"z": drawn.value}
        parameters = self.likelihood.parameters(self._beside(latents["z"], condition))
        return Generation(latents, {"x": Site(self.likelihood, parameters)})

    def components(self) -> Components | None:
        """Returns the prior as a mixture of normal distributions; None if it is no such mixture."""
        return self.prior.components()

    def call(self, x: Any, training: bool = False) -> tf.Tensor:
        """Returns the decoder mean at the posterior mean, or when training at a posterior draw."""
        x = self._cast(x)
        parameters = self.posterior.parameters(self._inputs(x), training)
        if training:
            z = self._posterior_draw(parameters)
        else:
            z = self.posterior.centre(parameters, "A reconstruction, and so `predict`,")
        inputs = self._beside(z, self.data.by_name(x).get("condition"))
        return self.likelihood.distribution(inputs, training).mean()

    def _posterior_draw(self, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        seed = self.take_seed()
        if self.posterior.tells_density:
            return self.posterior.make_distribution(**parameters).sample(seed=seed)
        size = self.posterior.size_of(parameters)
        noise = from_seed(self.posterior.noise(), seed, [size], self.float_dtype)
        return self.posterior.draw(noise, **parameters).value

    def _beside(self, z: tf.Tensor, condition: tf.Tensor | None) -> Any:
        """Returns the decoder's input: z [..., L], or [z, condition], a condition for each z."""
        if condition is None:
            return z
        return [z, spread(condition, z)]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, and `preparation_digest` if there is one."""
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
        """Makes the model with new weights."""
        parts = {key: deserialize(config[key]) for key in ("prior", "likelihood", "posterior")}
        arguments = {**config, **parts}
        digest = arguments.pop("preparation_digest", None)
        vae = cls(**arguments)
        vae.preparation_digest = digest
        return vae


def _batch_of(shape: Sequence[int]) -> str:
    return f"[n, {', '.join(map(str, shape))}]"


def _reason(error: Exception) -> str:
    """Returns the message of Keras, without colours and without the arguments of the call."""
    text = re.sub("\x1b\\[[0-9;]*m", "", str(error)).split("\n\nArguments received")[0]
    return " ".join(text.split())
