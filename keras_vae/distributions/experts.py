"""Posteriors of named parts that combine one expert for each part that is present."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import keras
import tensorflow as tf

from keras_vae.arguments import deserialize, is_real, register, serialize
from keras_vae.distributions.base import ConditionalDistribution, Parameter, Posterior
from keras_vae.distributions.mixtures import MixtureOfNormals
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.parts_encoder import PartsEncoder
from keras_vae.distributions.posteriors import DiagonalNormal

__all__ = ["MixtureOfExperts", "MixtureOfProducts", "ProductOfExperts"]

_MOST_PARTS = 8


class _Opinions(NamedTuple):
    """Normal distributions of the experts of M parts for a batch.

    Attributes:
        loc: centres, [B, M, L]; 0 of an absent part.
        scale: standard deviations, [B, M, L]; 1 of an absent part.
        present: which parts are present, booleans [B, M, 1].
    """

    loc: tf.Tensor
    scale: tf.Tensor
    present: tf.Tensor

    def precisions(self) -> tf.Tensor:
        """Returns the precisions 1 / scale^2, [B, M, L]; 0 of an absent part."""
        precision = 1.0 / tf.square(self.scale)
        return tf.where(self.present, precision, tf.zeros_like(precision))


class Experts(keras.layers.Layer):
    """Network of a posterior of experts: from named parts to the raw parameters of q(z | x).

    Args:
        latent_size: number L of latents.
        networks: networks of the experts by part.
        drop: probability with which a part is hidden in training.
        combine: function of the experts' opinions to the raw parameters, [B, n].
    """

    def __init__(
        self,
        latent_size: int,
        networks: Mapping[str, keras.layers.Layer | None],
        drop: float,
        combine: Callable[[_Opinions], tf.Tensor],
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.experts = {
            name: DiagonalNormal(latent_size, networks[name], dtype=self.dtype_policy)
            for name in sorted(networks)
        }
        self.drop = drop
        self._combine = combine
        self._draws = keras.random.SeedGenerator()

    def build(self, input_shape: Any) -> None:
        """Builds each expert for the shape of its part."""
        if not isinstance(input_shape, dict):
            raise ValueError(
                "Experts are for a model of several named parts, and this one has a single x: "
                "build its likelihood with Parts, or choose DiagonalNormal."
            )
        known = [name for name in input_shape if name != "condition"]
        for name, expert in self.experts.items():
            if name not in known:
                raise ValueError(
                    f"There is an expert for the part {name!r}, but the data has "
                    f"{', '.join(known)}. Correct the name in networks=."
                )
            expert.build(_beside_condition(name, input_shape))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Returns the raw parameters, [B, n], of a dict of parts whose absent entries are NaN."""
        found = [self._opinion(name, inputs, training) for name in self.experts]
        loc, scale, present = (tf.stack(each, axis=1) for each in zip(*found, strict=True))
        if training and self.drop:
            kept = keras.random.uniform(tf.shape(present), seed=self._draws) >= self.drop
            present = tf.logical_and(present, kept)
        loc = tf.where(present, loc, tf.zeros_like(loc))
        scale = tf.where(present, scale, tf.ones_like(scale))
        return self._combine(_Opinions(loc, scale, present))

    def _opinion(
        self, name: str, inputs: Mapping[str, tf.Tensor], training: bool
    ) -> tuple[tf.Tensor, ...]:
        """Returns centre, scale [B, L] and presence [B, 1] of one part; finite if it is absent."""
        value, expert = inputs[name], self.experts[name]
        there = tf.logical_not(tf.math.is_nan(value))
        entries = list(range(1, value.shape.rank))
        if _is_told_of_holes(expert.network):
            present = tf.reduce_any(there, axis=entries)
        else:
            present = tf.reduce_all(there, axis=entries)
            value = tf.where(there, value, tf.zeros_like(value))
        given = _beside_condition(name, {**inputs, name: value})
        parameters = expert.parameters(given, training)
        return parameters["loc"], parameters["scale"], present[:, tf.newaxis]


def _beside_condition(name: str, parts: Mapping[str, Any]) -> Any:
    """Returns what the expert of a part takes: the part, or [part, condition]."""
    return [parts[name], parts["condition"]] if "condition" in parts else parts[name]


def _is_told_of_holes(network: keras.layers.Layer | None) -> bool:
    """Tells whether a network is, or begins with, a `PartsEncoder`."""
    layers = getattr(network, "layers", None) or [network]
    return any(isinstance(layer, PartsEncoder) for layer in layers)


class _PosteriorOfExperts(Posterior):
    """A posterior whose network is one expert for each part."""

    def __init__(
        self,
        latent_size: int,
        networks: Mapping[str, keras.layers.Layer | None],
        *,
        drop: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if not isinstance(networks, Mapping) or not networks:
            raise ValueError(
                "Invalid value for argument `networks`. Expected a dict of one network or more by "
                f"part, such as {{'image': keras.layers.Dense(64)}}. Received: {networks!r}"
            )
        if not is_real(drop) or not 0.0 <= drop < 1.0:
            raise ValueError(
                f"Invalid value for argument `drop`. Expected a probability below 1. Received: "
                f"{drop!r}"
            )
        self._part_names = tuple(sorted(networks))
        self.drop = float(drop)
        own: dict[str, Any] = {"dtype": kwargs.get("dtype")}
        experts = Experts(latent_size, networks, self.drop, self._combined, name="experts", **own)
        head = keras.layers.Identity(name="parameters", **own)
        super().__init__(latent_size, experts, head=head, **kwargs)

    def _combined(self, opinions: _Opinions) -> tf.Tensor:
        """Returns the raw parameters of q(z | x), [B, n]."""
        raise NotImplementedError

    def expert(self, part: str) -> DiagonalNormal:
        """Returns the expert of a part, a family q_m(z | x_m).

        Raises:
            ValueError: if the part has none.
        """
        if part not in self._part_names:
            raise ValueError(
                f"Expected a part that has an expert, one of {', '.join(self._part_names)}. "
                f"Received: {part!r}"
            )
        return cast(Experts, self.network).experts[part]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super(ConditionalDistribution, self).get_config(),
            "latent_size": self.latent_size,
            "networks": {name: serialize(self.expert(name).network) for name in self._part_names},
            "drop": self.drop,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _PosteriorOfExperts:
        """Makes the posterior with new weights."""
        networks = {name: deserialize(network) for name, network in config["networks"].items()}
        return cls(**{**config, "networks": networks})


@register
class ProductOfExperts(_PosteriorOfExperts, DiagonalNormal):
    """Normal q(z | x) proportional to N(z; 0, I) times the experts of the parts that are present.

    The expert of part m is N(z; loc_m, scale_m) of that part alone. With the precisions
    T_m = 1 / scale_m^2,

        q(z | x) = N(loc, scale),  1 / scale^2 = 1 + sum_m T_m,  loc = scale^2 sum_m T_m loc_m,

    the sums over the parts that are present. The 1 is the prior expert, which assumes that p(z) is
    near N(0, I). A part that is absent adds exactly nothing, so one model has a posterior for every
    subset of its parts; that of no part is N(0, I). If p(z) is standard normal and each p(x_m | z)
    is a normal function of z, the exact posterior has this form. Source: Wu and Goodman (2018),
    Multimodal generative models for scalable weakly-supervised learning, arXiv:1802.05335.

    Args:
        latent_size: number L of latents.
        networks: encoders by part, from its value, or from [value, condition], to features; None is
            linear. A part counts as present if all of its entries are. An encoder for parts with
            holes inside is a `PartsEncoder`, which is given the filled values and the mask; its
            part is present if any entry is. A part that is not named here does not inform q.
        drop: probability with which a part is hidden from q in training, so that it learns to do
            without. The bound stays one of all observed entries.

    Raises:
        ValueError: if there is no network, `drop` is out of range, or a name is not a part.

    Example:
        >>> import keras_vae, numpy as np
        >>> q = keras_vae.ProductOfExperts(2, {"a": None, "b": keras.layers.Dense(8, "relu")})
        >>> absent = np.full([5, 3], np.nan, "float32")
        >>> q.distribution({"a": absent, "b": absent}).stddev()[0].numpy().tolist()
        [1.0, 1.0]
    """

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns a centre and a scale per latent."""
        return {"loc": Parameter(self.latent_size), "scale": Parameter(self.latent_size)}

    def _combined(self, opinions: _Opinions) -> tf.Tensor:
        precision = opinions.precisions()
        total = 1.0 + tf.reduce_sum(precision, axis=1)
        loc = tf.reduce_sum(precision * opinions.loc, axis=1) / total
        return tf.concat([loc, 1.0 / tf.sqrt(total)], axis=-1)


class _ExpertMixture(_PosteriorOfExperts, MixtureOfNormals):
    """A mixture with equal weights of the components that apply."""

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the weights [..., K], and centres and scales [..., K, L]."""
        each = Parameter(self.num_components * self.latent_size, self.by_component)
        return {"weights": Parameter(self.num_components), "loc": each, "scale": each}

    def draw(
        self, noise: Mapping[str, tf.Tensor], weights: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor
    ) -> Draw:
        """Draws a component, then loc + scale noise from it.

        Of S draws [S, B] the components are stratified: draw s takes the one at the uniform number
        of the first draw plus s / S, modulo 1. Each draw has the distribution q, and their mean
        varies less than that of independent draws.
        """
        u = _stratified(tf.cast(noise["component"], tf.float32))
        value = self.drawn(u, noise["latent"], weights, loc, scale)
        log_prob = self.make_distribution(weights, loc, scale).log_prob(value)
        return Draw(value, log_prob, independent=False)

    def _weighted(self, applies: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Returns the raw parameters of components [B, K, L] that apply or not, [B, K]."""
        applies = tf.cast(applies, loc.dtype)
        count = tf.reduce_sum(applies, axis=1, keepdims=True)
        some = tf.maximum(count, 1.0)
        weights = tf.where(count > 0.0, applies / some, 1.0 / self.num_components)
        flat = [-1, self.num_components * self.latent_size]
        return tf.concat([weights, tf.reshape(loc, flat), tf.reshape(scale, flat)], axis=-1)


def _stratified(u: tf.Tensor) -> tf.Tensor:
    """Spreads the uniform numbers of S draws, [S, B], evenly over (0, 1); others stay as they are.

    The number of the first draw decides those of the others.
    """
    if u.shape.rank != 2:
        return u
    size = tf.shape(u)[0]
    steps = tf.cast(tf.range(size), u.dtype) / tf.cast(size, u.dtype)
    return tf.math.floormod(u[:1] + steps[:, tf.newaxis], 1.0)


@register
class MixtureOfExperts(_ExpertMixture):
    """Mixture q(z | x) of the experts of the parts that are present, with equal weights.

        q(z | x) = 1/|O| sum over m in O of N(z; loc_m, scale_m),  O the parts that are present.

    Every part alone must find the latents of all. If no part is present, q is N(0, I). The rate has
    no closed form and is estimated with the density of the whole mixture. Source: Shi, Siddharth,
    Paige and Torr (2019), Variational mixture-of-experts autoencoders for multi-modal deep
    generative models, arXiv:1911.03393.

    Args:
        latent_size: number L of latents.
        networks: encoders by part, as for `ProductOfExperts`.
        drop: as for `ProductOfExperts`.

    Raises:
        ValueError: as `ProductOfExperts` does.

    Example:
        >>> import keras_vae, numpy as np
        >>> q = keras_vae.MixtureOfExperts(2, {"a": None, "b": None})
        >>> x = np.zeros([5, 3], "float32")
        >>> q.parameters({"a": x, "b": x * np.nan})["weights"][0].numpy().tolist()
        [1.0, 0.0]
    """

    @property
    def num_components(self) -> int:
        """Number of parts that have an expert."""
        return len(self._part_names)

    def _combined(self, opinions: _Opinions) -> tf.Tensor:
        return self._weighted(opinions.present[..., 0], opinions.loc, opinions.scale)


@register
class MixtureOfProducts(_ExpertMixture):
    """Mixture q(z | x) of the products of experts of all subsets of the parts that are present.

    Each subset that is not empty has equal weight and the product that `ProductOfExperts` has of
    it, with the prior expert N(0, I). If no part is present, q is N(0, I). The rate has no closed
    form and is estimated with the density of the whole mixture. Source: Sutter, Daunhawer and Vogt
    (2021), Generalized multimodal ELBO, arXiv:2105.02470.

    Args:
        latent_size: number L of latents.
        networks: encoders by part, as for `ProductOfExperts`, at most 8: there is a component for
            each of their subsets.
        drop: as for `ProductOfExperts`.

    Raises:
        ValueError: as `ProductOfExperts` does, or if there are more than 8 networks.

    Example:
        >>> import keras_vae
        >>> keras_vae.MixtureOfProducts(2, {"a": None, "b": None}).num_components
        3
    """

    def __init__(
        self,
        latent_size: int,
        networks: Mapping[str, keras.layers.Layer | None],
        *,
        drop: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if isinstance(networks, Mapping) and len(networks) > _MOST_PARTS:
            raise ValueError(
                f"MixtureOfProducts has a component for each subset of its parts; expected at most "
                f"{_MOST_PARTS} networks, got {len(networks)}. Choose ProductOfExperts."
            )
        super().__init__(latent_size, networks, drop=drop, **kwargs)

    @property
    def num_components(self) -> int:
        """Number of subsets of the parts that are not empty."""
        return 2 ** len(self._part_names) - 1

    def _combined(self, opinions: _Opinions) -> tf.Tensor:
        members = tf.constant(_subsets(len(self._part_names)), opinions.loc.dtype)
        precision = opinions.precisions()
        total = 1.0 + tf.matmul(members, precision)
        loc = tf.matmul(members, precision * opinions.loc) / total
        absent = tf.cast(tf.logical_not(opinions.present), members.dtype)
        applies = tf.matmul(members, absent)[..., 0] < 0.5
        return self._weighted(applies, loc, 1.0 / tf.sqrt(total))


def _subsets(count: int) -> list[list[float]]:
    """Returns the subsets of so many parts that are not empty, as rows of 0 and 1, small first."""
    parts = range(count)
    return [
        [float(part in chosen) for part in parts]
        for size in range(1, count + 1)
        for chosen in itertools.combinations(parts, size)
    ]
