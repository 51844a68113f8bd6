"""Variational autoencoder: a prior, a likelihood and a posterior, trained by `model.fit`."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vae.arguments import deserialize, register, serialize
from keras_vae.distributions import Likelihood, Parts, Posterior
from keras_vae.distributions.codes import CodePosterior
from keras_vae.distributions.noise import checked_draw, from_seed, only_own_draws
from keras_vae.distributions.priors import Components, Prior
from keras_vae.distributions.spheres.distributions import projected
from keras_vae.distributions.tfp import tfd
from keras_vae.latent_variable_model import Bound, finite_tensor
from keras_vae.likelihood_model import LikelihoodModel, build_on, check_distributions
from keras_vae.observed import log_likelihood, means_of
from keras_vae.spelling import counted
from keras_vae.trace import (
    Generation,
    Inference,
    LatentOf,
    Trace,
    spread,
)
from keras_vae.training.code_usage import CodeUsage

__all__ = ["VAE", "Bound"]


class _NetworkOf:
    """Descriptor for a distribution's network; an instance's own attribute takes precedence."""

    def __init__(self, distribution: str) -> None:
        self.distribution = distribution

    def __get__(self, vae: Any, owner: type) -> Any:
        return self if vae is None else getattr(vae, self.distribution).network


@register
class VAE(LikelihoodModel):
    """Latent variable model p(x, z) = p(z) p(x | z) with an inference model q(z | x).

    `fit` maximises a bound on log p(x) and logs `loss`, `elbo`, `distortion` and `rate`, in nats
    per example; `loss` is the objective, with sample weights and the penalties of Keras
    regularizers; the others are unweighted. A call, like `predict` and `reconstruct`, returns
    the decoder mean at the posterior mean. Source: Kingma and Welling
    (2014), Auto-encoding variational Bayes, arXiv:1312.6114.

    Args:
        prior: p(z).
        likelihood: p(x | z), whose network is the decoder; `Parts` for data of several named parts.
        posterior: q(z | x), whose network is the encoder. Where entries of the data may be absent,
            and for several parts, it is a `PartsEncoder` or another network that takes NaN.
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
        likelihood: Likelihood | Parts,
        posterior: Posterior,
        condition_shape: int | Sequence[int] | None = None,
        feature_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_distributions(prior, likelihood, posterior)
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior
        self.latent_size = posterior.latent_size
        self._describe_data(condition_shape, feature_names)
        self._build_distributions()
        self.built = True

    def _build_distributions(self) -> None:
        inputs_of_encoder = self._shapes_of_inputs
        features = self.posterior.features_shape
        latent_shapes = [features, *([self.condition_shape] if self.conditional else [])]
        build_on(self.posterior, inputs_of_encoder, "x")
        build_on(self.likelihood, latent_shapes, "z")
        if not self.prior.built:
            self.prior.build((None, self.latent_size))
        if self.prior.is_conditional and not self.conditional:
            raise ValueError(
                f"{type(self.prior).__name__} is p(z | c), and this model has no condition: build "
                "the VAE with condition_shape=, or choose StandardNormal."
            )
        bounds = self._bounds()
        self.prior.bind(self.posterior, inputs_of_encoder, *bounds)
        self._refuse_absent_unread(
            f"The network of {type(self.posterior).__name__}", self.posterior.head_parameters
        )

    def _bounds(self) -> tuple[float | None, float | None]:
        """Returns the bounds of x; None where there are none, or several parts."""
        if self.data.is_dict:
            return None, None
        support = self.likelihood.support
        return support.low, support.high

    def __dir__(self) -> list[str]:
        """Lists the attributes, without second names of networks, which Keras would save twice."""
        second_names = {"encoder", "decoder"} - set(self.__dict__)
        return [name for name in super().__dir__() if name not in second_names]

    def encode(self, x: Any) -> tfd.Distribution:
        """Returns the posterior q(z | x), batch shape [B], event shape [L].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.

        Raises:
            DataError: if a shape is wrong or a number is not finite.
            ValueError: if the posterior knows only the density of its own draws.
        """
        if not self.posterior.tells_density:
            raise ValueError(only_own_draws(type(self.posterior).__name__))
        x = self._checked(x, in_support=False)
        parameters = self._by_rows(
            "encode", lambda x: self.posterior.head_parameters(self._inputs(self._cast(x))), x
        )
        return self.posterior.make_distribution(**self.posterior.completed(parameters))

    def decode(self, z: Any, condition: Any = None) -> Any:
        """Returns the likelihood p(x | z), batch shape [B] or [S, B], event shape [*D].

        Args:
            z: latents [B, L] or [S, B, L]. Where latents have length 1, z of another length stands
                for its direction, and 0 for the first axis.
            condition: conditions [B, *C] of a conditional model.

        Returns:
            The distribution; of a model with named parts a dict of the distribution of each.

        Raises:
            DataError: if a number of z is not finite.
            ValueError: if the last axis of z is not the latents, or the condition is missing.
        """
        z = self._latents(z)
        z = projected(z) if self.posterior.on_sphere else z
        inputs = self._beside(z, self._condition(condition, z.shape[-2], "latents"))
        if z.shape.rank > 2:
            inputs = keras.tree.map_structure(
                lambda part: tf.reshape(part, [-1, *part.shape[z.shape.rank - 1 :]]), inputs
            )
        by_part = self._by_rows("decode", self.likelihood.head_parameters_by_part, inputs)
        if z.shape.rank > 2:
            by_part = keras.tree.map_structure(
                lambda part: tf.reshape(part, tf.concat([tf.shape(z)[:-1], tf.shape(part)[1:]], 0)),
                by_part,
            )
        return self.one_or_all(
            {
                name: part.make_distribution(**by_part[name], **part.shared_parameters())
                for name, part in self.likelihood.by_part().items()
            }
        )

    def log_joint(self, x: Any, z: Any) -> tf.Tensor:
        """Computes log p(x, z) = log p(z) + log p(x | z) in nats, [B], or [S, B] for z [S, B, L].

        Args:
            x: data [B, *D], or {"x": ..., "condition": ...}.
            z: latents [B, L] or [S, B, L].

        Raises:
            DataError: if x lies outside the support of the likelihood, or z is not finite.
        """
        x, z = self._checked(x, in_support=True), self._latents(z)
        count = keras.tree.flatten(x)[0].shape[:1]
        if not z.shape[-2:-1].is_compatible_with(count):
            raise ValueError(f"x holds {counted(count[0], 'example')} and z {z.shape[-2]} of them.")
        if z.shape.rank == 2:
            return self._by_rows("log_joint", self._log_joint, [x, z])

        def of_draws(inputs: Any) -> tf.Tensor:
            x, by_example = inputs
            return tf.transpose(self._log_joint([x, tf.transpose(by_example, [1, 0, 2])]))

        draws = tf.reshape(z, [-1, *z.shape[-2:]]) if z.shape.rank > 3 else z
        most = self._rows_at_once(1)
        found = []
        for start in range(0, draws.shape[0] or 1, most):
            few = draws if draws.shape[0] is None else draws[start : start + most]
            by_example = [x, tf.transpose(few, [1, 0, 2])]
            rows = self._by_rows("log_joint of draws", of_draws, by_example, few.shape[0] or 1)
            found.append(tf.transpose(rows))
        log_joint = found[0] if len(found) == 1 else tf.concat(found, axis=0)
        return log_joint if z.shape.rank == 3 else tf.reshape(log_joint, tf.shape(z)[:-1])

    def _latents(self, z: Any) -> tf.Tensor:
        """Returns latents as a tensor, whose last axis must be theirs."""
        z = finite_tensor("z", z, self.likelihood.float_dtype)
        if z.shape.rank < 2 or z.shape[-1] != self.latent_size:
            raise ValueError(f"z must have shape [n, {self.latent_size}]; got {z.shape.as_list()}.")
        return z

    def _log_joint(self, inputs: Any) -> tf.Tensor:
        """Computes log p(x, z) of a batch and its latents, [B] or [S, B]."""
        x, z = inputs
        parts = self.data.by_name(self._cast(x))
        condition = parts.get("condition")
        sites = self._sites(self._beside(z, condition))
        log_prior = self.prior.distribution(condition).log_prob(z)
        return log_prior + log_likelihood(self._observations(parts, sites))

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
        whole = self._inference(x, training, sample_weight)
        if not self.data.is_dict:
            return whole
        return whole._replace(
            of=lambda names: self._inference(self._only(x, names), training, None, False)
        )

    def _inference(
        self,
        x: Any,
        training: bool,
        sample_weight: tf.Tensor | None,
        observes: bool = True,
    ) -> Inference:
        """Infers the latents of a batch that is cast; `observes` updates closed-form weights."""
        values = self.data.by_name(x)
        condition = values.get("condition")
        prior = self.prior.distribution(condition)
        parameters = self.posterior.parameters(self._inputs(x), training)

        def say(latent: LatentOf) -> Trace:
            z = latent("z", self.posterior, parameters, prior)
            sites = self._sites(self._beside(z.value, condition), training, latent.noise)
            if training and observes:
                self.posterior.observe(parameters, sample_weight)
                self._observe(values, sites, sample_weight)
            return Trace({"z": z}, self._observations(values, sites))

        return Inference.by(say)

    def _beside(self, z: tf.Tensor, condition: tf.Tensor | None) -> Any:
        """Returns the decoder's input: the features of z, or a list of them and the condition."""
        features = self.posterior.features(z)
        return features if condition is None else [features, spread(condition, z)]

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
        return Generation(latents, self._sites(self._beside(latents["z"], condition)))

    def components(self) -> Components | None:
        """Returns the prior as a mixture of normal distributions; None if it is no such mixture."""
        return self.prior.components()

    def _monitor(self) -> keras.metrics.Metric:
        """Returns the metric of the use of the codes, or of continuous latents."""
        if isinstance(self.posterior, CodePosterior):
            return CodeUsage(self.posterior)
        return super()._monitor()

    def call(self, x: Any, training: bool = False) -> Any:
        """Returns the decoder mean at the posterior mean, or when training at a posterior draw."""
        x = self._cast(x)
        parameters = self.posterior.parameters(self._inputs(x), training)
        if training:
            z = self._posterior_draw(parameters)
        else:
            z = self.posterior.centre(parameters, "A reconstruction, and so `predict`,")
        inputs = self._beside(z, self.data.by_name(x).get("condition"))
        sites = self._sites(inputs, training)
        return self.one_or_all(means_of(sites))

    def _posterior_draw(self, parameters: dict[str, tf.Tensor]) -> tf.Tensor:
        seed = self.take_seed()
        if self.posterior.tells_density:
            return self.posterior.make_distribution(**parameters).sample(seed=seed)
        size = self.posterior.size_of(parameters)
        noise = from_seed(self.posterior.noise(), seed, [size], self.float_dtype)
        return self.posterior.draw(noise, **parameters).value

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
