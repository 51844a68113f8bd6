"""One level of a hierarchy: its prior, its posterior and what it passes down."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import keras
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_shape, deserialize, register, serialize
from keras_vae.distributions import ConditionalDistribution, Draw, Noise, Parameter, positive, tfp
from keras_vae.distributions.base.shapes import folded
from keras_vae.distributions.noise import log_standard_normal
from keras_vae.distributions.tfp import tfd
from keras_vae.likelihood_model import build_on

__all__ = ["Kind", "TopDownBlock"]

Kind = Literal["ladder", "residual", "bottom_up"]

Tensors = dict[str, tf.Tensor]

_NETWORKS = ("prior", "posterior", "network")


class _LevelNormal(ConditionalDistribution):
    """Normal distribution over a latent of any shape, with one scale per number."""

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns a centre and a scale per number."""
        return {"loc": Parameter(self.channels), "scale": Parameter(self.channels, positive)}

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent normal distributions."""
        return self.independent(tfp.Normal(loc, scale))

    def noise(self) -> Noise:
        """Returns one normal number per latent number."""
        return Noise(self.event_shape, "normal", random.POSTERIOR)

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws loc + scale noise."""
        axes = list(range(-len(self.event_shape), 0))
        leading = tf.shape(noise)[: noise.shape.rank - len(axes)]
        log_noise = log_standard_normal(tf.reshape(noise, tf.concat([leading, [self.size]], 0)))
        log_det = tf.reduce_sum(tf.math.log(scale), axis=axes)
        return Draw(loc + scale * noise, log_noise - log_det)

    @property
    def size(self) -> int:
        """Count of the numbers of one latent."""
        return int(tf.TensorShape(self.event_shape).num_elements())


@register
class TopDownBlock(keras.layers.Layer):
    """One level of a `HierarchicalVAE`: p(z | above), q(z | above, x) and the state below.

    `above` is the state that the block above passes down. Both distributions are normal with one
    scale per number. There are three kinds:

    - "ladder": q is the product of the prior and a normal N(m, s) that the posterior's network
      computes from the features of x alone, each weighted by its precision:
      q = N(loc, scale) with 1 / scale^2 = 1 / s^2 + 1 / prior scale^2. The state below is
      network(z). Source: Sonderby et al. (2016), Ladder variational autoencoders,
      arXiv:1602.02282.
    - "residual": the posterior's network is called with [above, features], and the state below is
      network([above, z]); a network that adds its first input to what it computes makes the path
      residual. Source: Child (2021), Very deep VAEs generalize autoregressive models,
      arXiv:2011.10650.
    - "bottom_up": q(z | below) is given the latent of the level below alone, or in the last block
      the features of x, so the levels are inferred from the bottom up. The state below is
      network(z). Source: Burda, Grosse and Salakhutdinov (2016), Importance weighted
      autoencoders, arXiv:1509.00519.

    The first block has nothing above it, unless the model has a condition: then its prior is
    standard normal, and its networks are called with features alone and with z alone.

    Args:
        latent_shape: number of latents, or the shape of a latent such as (4, 4, 8).
        kind: "ladder", "residual" or "bottom_up".
        prior: network from the state above to the features of p; None is the identity.
        posterior: network to the features of q; None is the identity.
        network: network to the state below; None passes z down, with the state above joined to it
            in a residual block.

    Heads from features to centre and scale are one Dense layer, or for images a convolution of
    kernel 1, on features of the height and width of the latent.

    Raises:
        ValueError: if the shape or the kind is none of these.
        TypeError: if a network is not a layer.

    Example:
        >>> TopDownBlock(4, kind="ladder", network=keras.layers.Dense(8, "relu")).latent_shape
        (4,)
    """

    def __init__(
        self,
        latent_shape: int | Sequence[int],
        *,
        kind: Kind = "residual",
        prior: keras.layers.Layer | None = None,
        posterior: keras.layers.Layer | None = None,
        network: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if kind not in get_args(Kind):
            raise ValueError(
                "Invalid value for argument `kind`. Expected 'ladder', 'residual' or 'bottom_up'. "
                f"Received: kind={kind!r}"
            )
        if not (network is None or isinstance(network, keras.layers.Layer)):
            raise TypeError(
                "Invalid value for argument `network`. Expected a Keras layer or model, or None. "
                f"Received: {network!r}"
            )
        self.latent_shape = as_shape(latent_shape, type(self).__name__)
        self.kind: Kind = kind
        self.prior = self._normal("prior", prior)
        self.posterior = self._normal("posterior", posterior)
        self.network = network
        self._ranks: dict[str, int] = {}

    def _normal(self, name: str, network: keras.layers.Layer | None) -> _LevelNormal:
        policy = self.dtype_policy
        dtype = "float64" if policy.compute_dtype == "float64" else "float32"
        head = None
        if len(self.latent_shape) == 3:
            head = keras.layers.Conv2D(2 * self.latent_shape[-1], 1, dtype=dtype, name="parameters")
        return _LevelNormal(self.latent_shape, network, head=head, dtype=policy, name=name)

    @property
    def float_dtype(self) -> str:
        """Dtype of parameters and states: float32, or float64 under that policy."""
        return self.prior.float_dtype

    def build_between(
        self, above: tuple[int, ...] | None, features: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Creates the weights; returns the shape of the state below.

        Args:
            above: shape of the state above, without the batch; None if there is none.
            features: shape of the features of x, without the batch; in a bottom-up block above
                another that of the latent below.
        """
        given = {"above": above} if above is not None else {}
        if above is not None:
            self.prior.build((None, *above))
        shapes = {"features": features, "z": self.latent_shape, **given}
        self._ranks = {name: len(shape) for name, shape in shapes.items()}
        self._joins = above is not None and self.kind == "residual"
        of_q, of_state = (
            [shapes[name] for name in (*(("above",) if self._joins else ()), own)]
            for own in ("features", "z")
        )
        build_on(self.posterior, of_q, "the features" if not self._joins else "the state above")
        below = self._pass_down([keras.KerasTensor((None, *shape)) for shape in of_state], False)
        if None in below.shape[1:]:
            raise ValueError(
                f"The state below a TopDownBlock needs a fixed size; got shape "
                f"{tuple(below.shape[1:])} of one example."
            )
        self.built = True
        return tuple(below.shape[1:])

    def prior_parameters(self, above: tf.Tensor | None, training: bool = False) -> Tensors:
        """Returns the parameters of p(z | above), [..., B, *Z], or [*Z] with nothing above."""
        if above is None:
            zeros = tf.zeros(self.latent_shape, self.float_dtype)
            return {"loc": zeros, "scale": tf.ones_like(zeros)}
        return self.prior.parameters(above, training)

    def posterior_parameters(
        self,
        above: tf.Tensor | None,
        features: tf.Tensor,
        p: Tensors,
        training: bool = False,
    ) -> Tensors:
        """Returns the parameters of q(z | above, x), [B, *Z], or [S, B, *Z] below a draw.

        Args:
            above: state above, [B, ...] or [S, B, ...], or None.
            features: features of x, [B, ...]; in a bottom-up block above another the latent below,
                [..., B, *Z].
            p: parameters of the prior there.
            training: whether the networks are in training mode.
        """
        if self.kind == "ladder":
            return product(self.posterior.parameters(features, training), p)
        if above is None or self.kind == "bottom_up":
            return self.posterior.parameters(features, training)
        leading = tf.shape(above)[: above.shape.rank - self._ranks["above"]]
        return self.posterior.parameters([above, repeated(features, leading)], training)

    def state_below(
        self, above: tf.Tensor | None, z: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Returns the state that the block passes down, [..., B, *state].

        Args:
            above: state above, [..., B, *state], or None.
            z: latents, [..., B, *Z].
            training: whether the network is in training mode.
        """
        inputs = [z]
        if self._joins and above is not None:
            leading = tf.shape(z)[: z.shape.rank - self._ranks["z"]]
            behind = above.shape.rank - self._ranks["above"]
            if z.shape.rank - self._ranks["z"] > behind:
                above = repeated(above, leading)
            inputs = [above, z]
        ranks = [self._ranks[name] for name in ("above", "z")[-len(inputs) :]]
        flat, leading = folded(inputs, ranks)
        below = self._pass_down(flat, training)
        if leading is not None:
            below = tf.reshape(below, tf.concat([leading, tf.shape(below)[1:]], 0))
        return tf.cast(below, self.float_dtype)

    def _pass_down(self, inputs: list[Any], training: bool) -> Any:
        if self.network is not None:
            return self.network(inputs if len(inputs) > 1 else inputs[0], training=training)
        return keras.ops.concatenate(inputs, axis=-1) if len(inputs) > 1 else inputs[0]

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "latent_shape": list(self.latent_shape),
            "kind": self.kind,
            "prior": serialize(self.prior.network),
            "posterior": serialize(self.posterior.network),
            "network": serialize(self.network),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TopDownBlock":
        """Makes the block with new weights."""
        return cls(**{**config, **{name: deserialize(config[name]) for name in _NETWORKS}})


def product(expert: Tensors, p: Tensors) -> Tensors:
    """Returns the parameters of the normalised product of two normal distributions.

    Args:
        expert: centre and scale that x suggests.
        p: centre and scale of the prior.
    """
    variance, prior_variance = expert["scale"] ** 2, p["scale"] ** 2
    total = variance + prior_variance
    share = prior_variance / total
    loc = p["loc"] + share * (expert["loc"] - p["loc"])
    return {"loc": loc, "scale": expert["scale"] * p["scale"] * tf.math.rsqrt(total)}


def repeated(value: tf.Tensor, leading: tf.Tensor) -> tf.Tensor:
    """Repeats a value [B, ...] to [*leading, ...], of which B is the last leading axis."""
    return tf.broadcast_to(value, tf.concat([leading, tf.shape(value)[1:]], 0))
