"""Values missing not at random: a model of the data, and one of which entries are present."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import deserialize, register, serialize
from keras_vae.distributions import Bernoulli
from keras_vae.distributions.noise import numbered
from keras_vae.imputation import ABSENT
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.model import VAE
from keras_vae.trace import Generation, Inference, Latent, LatentOf, Observation, Trace
from keras_vae.training.data_spec import DataSpec

__all__ = ["MissingNotAtRandom"]


class _Completion(Latent):
    """Absent entries drawn from p(x | z): they are scored under what they are drawn from."""

    def log_p(self) -> tf.Tensor:
        """Returns 0, [S, B]: p and q of the draw are the same, and cancel."""
        return tf.zeros(tf.shape(self.value)[:2], self.value.dtype)

    def log_q(self, constant: bool = False) -> tf.Tensor:
        """Returns 0, [S, B]."""
        return self.log_p()


class _SelfMasking(keras.layers.Layer):
    """Logits a_d x_d + b_d, from each entry alone."""

    def build(self, input_shape: Any) -> None:
        """Creates a and b, zero at first."""
        self.slope = self.add_weight(name="slope", shape=(input_shape[-1],), initializer="zeros")
        self.offset = self.add_weight(name="offset", shape=(input_shape[-1],), initializer="zeros")
        self.built = True

    def call(self, x: Any) -> Any:
        """Returns the logits."""
        return x * self.slope + self.offset


@register
class MissingNotAtRandom(LatentVariableModel):
    """Model p(z) p(x | z) p(mask | x) of data whose absence depends on the values themselves.

    Which entries are present is data too: the mask s is 1 where an entry is present, and
    p(s | x) = prod_d Bernoulli(s_d; sigmoid(logits_d(x))) of the completed x. Absent entries are
    latent variables, drawn from p(x_m | z), under which they are also scored. So the bound is one
    on log p(x_O, s), and `IWAE(k)` is the bound of not-MIWAE. `impute` weighs the draws by how well
    they explain that the entries are absent. Source: Ipsen, Mattei and Frellsen (2021), not-MIWAE:
    Deep generative modelling with missing not at random data, arXiv:2006.12871.

    Where values are missing at random given the rest, the VAE alone is the simpler and better
    model: there the mask says nothing more.

    Args:
        vae: the model of the data. Parts that may be absent have densities.
        mechanism: network from the completed data of all parts, flattened and joined, to the
            features of the logits. None is self-masking: logits_d = a_d x_d + b_d, in which an
            entry decides alone whether it is present.

    Raises:
        TypeError: if `vae` is not a `VAE` or `mechanism` not a layer.
        ValueError: if no part may be absent, or one that may is discrete: no gradient passes
            through its draws.

    Example:
        >>> import keras_vae, numpy as np
        >>> vae = keras_vae.VAE(
        ...     prior=keras_vae.StandardNormal(2),
        ...     likelihood=keras_vae.Normal(3, missing=True),
        ...     posterior=keras_vae.DiagonalNormal(2, network=keras_vae.PartsEncoder()),
        ... )
        >>> model = MissingNotAtRandom(vae)
        >>> model.compile("adam", keras_vae.IWAE(5))
        >>> x = np.random.default_rng(0).normal(size=(64, 3))
        >>> history = model.fit(np.where(x < 1.0, x, np.nan), verbose=0)
        >>> sorted(history.history)
        ['distortion', 'elbo', 'loss', 'rate', 'rate_absent_x', 'rate_z']
    """

    def __init__(
        self, vae: VAE, mechanism: keras.layers.Layer | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(vae, VAE):
            raise TypeError(f"Invalid value for argument `vae`. Expected a VAE. Received: {vae!r}")
        if not (mechanism is None or isinstance(mechanism, keras.layers.Layer)):
            raise TypeError(
                "Invalid value for argument `mechanism`. Expected a Keras layer or model, or None. "
                f"Received: {mechanism!r}"
            )
        parts = vae.data.imputable
        if not parts:
            raise ValueError(
                "This VAE allows no absent entries: build its likelihood, or some of its parts, "
                "with missing=True."
            )
        for name, part in parts.items():
            if part.support is None or part.support.is_discrete is not False:
                raise ValueError(
                    f"The part {name!r} is a {part.owner}, which is discrete: no gradient passes "
                    "through draws of its absent entries. Model parts with densities as missing "
                    "not at random."
                )
        self.vae = vae
        self._masked = tuple(parts)
        size = sum(int(np.prod(part.shape)) for part in parts.values())
        head = (
            {"head": _SelfMasking(name="self_masking", dtype=self.float_dtype)}
            if mechanism is None
            else {}
        )
        self.mechanism = Bernoulli(
            size, network=mechanism, dtype=self.float_dtype, name="mechanism", **head
        )
        every = size
        if mechanism is not None:
            every = sum(int(np.prod(part.shape)) for part in vae.data.observed.values())
        self.mechanism.build((None, every))
        self.built = True

    @property
    def data(self) -> DataSpec:
        """The specification of the data, that of the VAE."""
        return self.vae.data

    @property
    def float_dtype(self) -> str:
        """Dtype of log-probabilities: float32, or float64 under that policy."""
        return self.vae.float_dtype

    def noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of z from q(z | x), and of the absent entries."""
        own = numbered({name: part.noise() for name, part in self.vae.likelihood.by_part().items()})
        drawn = {
            ABSENT + name: tf.nest.map_structure(
                lambda one: replace(one, stream=one.stream + random.IMPUTED), own[name]
            )
            for name in self._masked
        }
        return {**self.vae.noise(), **drawn}

    def training_noise(self) -> dict[str, Any]:
        """Returns the noise by which a training step disturbs the VAE."""
        return self.vae.training_noise()

    def generation_noise(self) -> dict[str, Any]:
        """Returns the noise of one draw of z from p(z)."""
        return self.vae.generation_noise()

    def infer(
        self, x: Any, training: bool = False, sample_weight: tf.Tensor | None = None
    ) -> Inference:
        """Infers the latents of a batch; arguments as for `VAE.infer`."""
        vae = self.vae
        x = self._cast(x)
        values = vae.data.by_name(x)
        condition = values.get("condition")
        prior = vae.prior.distribution(condition)
        parameters = vae.posterior.parameters(vae._inputs(x), training)
        mask = tf.concat(
            [_flat(tf.logical_not(tf.math.is_nan(values[name])), 1) for name in self._masked], -1
        )

        def say(latent: LatentOf) -> Trace:
            z = latent("z", vae.posterior, parameters, prior)
            sites = vae._sites(vae._beside(z.value, condition), training, latent.noise)
            latents, completed = {"z": z}, dict(values)
            for name in self._masked:
                site = sites[name]
                p = site.distribution
                drawn = latent(ABSENT + name, site.layer, site.parameters, p)
                latents[ABSENT + name] = _Completion(drawn.draw, p)
                present = tf.logical_not(tf.math.is_nan(values[name]))
                completed[name] = tf.where(present, values[name], drawn.value)
            if training:
                vae._observe(values, sites, sample_weight)
            own = self.mechanism.distribution(self._joined(completed, z.value), training)
            of_mask = Observation(tf.cast(mask, self.float_dtype), own)
            return Trace(latents, vae._observations(values, sites, {"mask": of_mask}))

        return Inference.by(say)

    def _joined(self, completed: Mapping[str, tf.Tensor], z: tf.Tensor) -> tf.Tensor:
        """Returns what the mechanism is given, [S, B, n]."""
        names = self._masked if self.mechanism.network is None else tuple(self.data.observed)
        parts = []
        for name in names:
            value = completed[name]
            own = tf.concat(
                [tf.shape(z)[:2], tf.shape(value)[-len(self.data.parts[name].shape) :]], 0
            )
            parts.append(_flat(tf.broadcast_to(value, own), 2))
        return tf.concat(parts, -1)

    def generate(
        self,
        noise: Mapping[str, Any] | None = None,
        latents: Mapping[str, tf.Tensor] | None = None,
        condition: Any = None,
    ) -> Generation:
        """Generates complete data, as the VAE does."""
        if latents is not None:
            latents = {"z": latents["z"]}
        return self.vae.generate(noise, latents, condition)

    def call(self, x: Any, training: bool = False) -> Any:
        """Returns decoder means at the posterior mean, as the VAE does."""
        return self.vae(x, training=training)

    def _prepare(self, objective: Any) -> None:
        if objective.gradient != "pathwise":
            raise ValueError(
                f"gradient={objective.gradient!r} holds q constant, but absent entries are drawn "
                "from the decoder itself: choose gradient='pathwise'."
            )
        super()._prepare(objective)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "vae": serialize(self.vae),
            "mechanism": serialize(self.mechanism.network),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MissingNotAtRandom":
        """Makes the model with new weights."""
        return cls(
            **{**config, **{name: deserialize(config[name]) for name in ("vae", "mechanism")}}
        )


def _flat(value: tf.Tensor, axes: int) -> tf.Tensor:
    """Joins the axes of a tensor but for the first ones."""
    size = int(np.prod(value.shape[axes:]))
    return tf.reshape(value, tf.concat([tf.shape(value)[:axes], [size]], 0))
