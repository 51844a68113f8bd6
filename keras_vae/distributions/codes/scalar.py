"""Quantisers without a book: every feature is rounded to one of a few levels."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count, as_weight, is_integer, register
from keras_vae.distributions.base import Parameter
from keras_vae.distributions.codes.base import CodePosterior, for_each_draw, straight_through
from keras_vae.distributions.codes.distributions import PointOfCodes
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd
from keras_vae.replicas import summed

__all__ = ["FiniteScalarQuantizer", "LookupFreeQuantizer"]

_MOST_CODES = 2**22


@register
class FiniteScalarQuantizer(CodePosterior):
    """Point mass q(codes | x) at features that are rounded to a few levels each.

    The logistic function maps a feature to (0, 1), which the L levels divide into equal parts; z
    holds them from -1 to 1. A code is the number of a combination of levels, so there are K =
    product of levels codes and no weights. The decoder's gradient passes straight through the
    rounding. log q = 0, so the ELBO is log p(x | codes) + log p(codes). Source: Mentzer, Minnen,
    Agustsson and Tschannen (2024), Finite scalar quantization, arXiv:2309.15505.

    Args:
        codes_shape: shape of the codes, such as 10 or (7, 7).
        levels: number of levels of each feature of a code, such as (8, 5, 5, 5).
        network: the encoder, from x to features. Of a grid of codes, an image [h, w, channels].
        head: layer from features to as many numbers per position as there are levels; None is one
            Dense layer.

    Raises:
        ValueError: if a size is not a positive integer, or there are fewer than two levels or more
            than 2^22 codes.

    Example:
        >>> q = FiniteScalarQuantizer(2, levels=(3, 5))
        >>> q.num_codes, q.embed([[0, 14]]).numpy().tolist()
        (15, [[-1.0, -1.0, 1.0, 1.0]])
    """

    def __init__(
        self,
        codes_shape: int | Sequence[int],
        levels: Sequence[int],
        network: keras.layers.Layer | None = None,
        *,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.levels = tuple(int(each) for each in levels) if _are_levels(levels) else ()
        number = math.prod(self.levels)
        if not self.levels or number > _MOST_CODES:
            raise ValueError(
                "Invalid value for argument `levels`. Expected integers of at least 2 whose "
                f"product is at most {_MOST_CODES}, such as (8, 5, 5, 5). Received: "
                f"levels={levels!r}"
            )
        size = len(self.levels)
        super().__init__(codes_shape, number, size, size, 1, network, head=head, **kwargs)
        self._steps = np.cumprod([1, *self.levels[:-1]]).astype(np.int32)

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the features, before they are rounded."""
        return {"features": Parameter(self._head_size)}

    def make_distribution(self, features: tf.Tensor) -> tfd.Distribution:
        """Returns the point mass at the rounded features."""
        _, places = self._rounded(features)
        z = self._together(self._value_at(places))
        return PointOfCodes(z, self.in_shape(self._number(places)))

    def draw(self, noise: tf.Tensor, features: tf.Tensor) -> Draw:
        """Returns the rounded features."""
        scaled, places = self._rounded(features)
        soft = self._value_at(scaled - 0.5)
        z = straight_through(self._together(self._value_at(places)), self._together(soft))
        z = for_each_draw(z, noise)
        return Draw(z, tf.zeros(tf.shape(z)[:-1], z.dtype))

    def embed(self, codes: Any, **book: Any) -> tf.Tensor:
        """Returns the levels of codes, [..., L], from -1 to 1."""
        flat = self.side_by_side(codes)[..., tf.newaxis]
        places = tf.math.floordiv(flat, self._steps) % np.asarray(self.levels, np.int32)
        return self._together(self._value_at(tf.cast(places, self.float_dtype)))

    def codes_of(self, z: tf.Tensor, **book: Any) -> tf.Tensor:
        """Returns the numbers of the levels in z."""
        return self._number(tf.round((self._by_code(z) + 1.0) * self._most(z) / 2.0))

    def _rounded(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns features scaled to (0, levels), and the places of their levels, by code."""
        levels = tf.constant(self.levels, features.dtype)
        scaled = tf.math.sigmoid(self._by_code(features)) * levels
        return scaled, tf.minimum(tf.floor(scaled), levels - 1.0)

    def _value_at(self, places: tf.Tensor) -> tf.Tensor:
        return 2.0 * places / self._most(places) - 1.0

    def _most(self, like: tf.Tensor) -> tf.Tensor:
        return tf.constant(self.levels, like.dtype) - 1.0

    def _number(self, places: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(places, tf.int32) * self._steps, axis=-1)

    def _by_code(self, values: tf.Tensor) -> tf.Tensor:
        shape = [self.count, self.code_size]
        return tf.reshape(values, tf.concat([tf.shape(values)[:-1], shape], 0))

    def _together(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reshape(values, tf.concat([tf.shape(values)[:-2], [self.latent_size]], 0))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "levels": list(self.levels)}


@register
class LookupFreeQuantizer(FiniteScalarQuantizer):
    """Point mass q(codes | x) at the signs of features: a code is a binary number of `bits` digits.

    An entropy term in the loss makes each sign certain and, over the data, as often positive as
    negative: with the probability s = sigmoid(feature) of a positive sign and the running mean m of
    s, sum over features of H(s) + s log m + (1 - s) log(1 - m), times its weight. It is part of no
    bound. Source: Yu et al. (2024), Language model beats diffusion: tokenizer is key to visual
    generation, arXiv:2310.05737; the mean over the data is taken bit by bit here.

    Args:
        codes_shape: shape of the codes, such as 10 or (7, 7).
        bits: number of signs of each code, K = 2^bits.
        network: the encoder, from x to features. Of a grid of codes, an image [h, w, channels].
        entropy: weight of the entropy term, at least 0.
        decay: share of the past that a batch leaves in the running mean.
        head: layer from features to `bits` numbers per position; None is one Dense layer.

    Raises:
        ValueError: if a size is not a positive integer, or there are more than 22 bits.

    Example:
        >>> q = LookupFreeQuantizer(1, bits=3)
        >>> q.num_codes, q.embed([[6]]).numpy().tolist()
        (8, [[-1.0, 1.0, 1.0]])
    """

    def __init__(
        self,
        codes_shape: int | Sequence[int],
        bits: int,
        network: keras.layers.Layer | None = None,
        *,
        entropy: float = 0.1,
        decay: float = 0.99,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        levels = (2,) * as_count("bits", bits, least=1)
        super().__init__(codes_shape, levels, network, head=head, **kwargs)
        self.entropy, self.decay = as_weight("entropy", entropy), as_weight("decay", decay)
        self.means = self.add_weight(
            name="means",
            shape=(self.code_size,),
            initializer=keras.initializers.Constant(0.5),
            trainable=False,
            dtype=self.float_dtype,
            autocast=False,
            aggregation="only_first_replica",
        )

    def shared_parameters(self) -> dict[str, tf.Tensor]:
        """Returns the running mean of the probability of each positive sign, [bits]."""
        return {"means": tf.convert_to_tensor(self.means)}

    def make_distribution(self, features: tf.Tensor, means: Any = None) -> tfd.Distribution:
        """Returns the point mass at the signs."""
        return super().make_distribution(features)

    def draw(self, noise: tf.Tensor, features: tf.Tensor, means: Any = None) -> Draw:
        """Returns the signs and the entropy term."""
        drawn = super().draw(noise, features)
        logits = self._by_code(features)
        log_s, log_not = -tf.math.softplus(-logits), -tf.math.softplus(logits)
        s = tf.math.sigmoid(logits)
        # A mean of 0 or 1 would make the term infinite.
        mean = tf.clip_by_value(self.means if means is None else means, 1e-3, 1.0 - 1e-3)
        certain = -s * log_s - (1.0 - s) * log_not
        balance = s * tf.math.log(mean) + (1.0 - s) * tf.math.log(1.0 - mean)
        term = self.entropy * tf.reduce_sum(certain + balance, axis=[-2, -1])
        return drawn._replace(penalties={"entropy": term})

    def observe(
        self, parameters: dict[str, tf.Tensor], sample_weight: tf.Tensor | None = None
    ) -> None:
        """Moves the running mean towards that of the batch."""
        s = tf.math.sigmoid(self._by_code(tf.stop_gradient(parameters["features"])))
        per_example = tf.reduce_mean(s, axis=-2)
        weight = tf.ones(tf.shape(per_example)[:1], s.dtype)
        if sample_weight is not None:
            weight *= tf.cast(sample_weight, s.dtype)
        total = tf.reduce_sum(weight[:, tf.newaxis] * per_example, axis=0)
        total, mass = summed([total, tf.reduce_sum(weight)])
        rate = (1.0 - self.decay) * tf.math.divide_no_nan(tf.ones_like(mass), mass)
        self.means.assign_add(rate * (total - mass * self.means))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        config = super().get_config()
        del config["levels"]
        return {**config, "bits": self.code_size, "entropy": self.entropy, "decay": self.decay}


def _are_levels(levels: Any) -> bool:
    return isinstance(levels, (list, tuple)) and all(is_integer(n) and n >= 2 for n in levels)
