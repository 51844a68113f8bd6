"""Base classes of posteriors that map x to codes, and of priors over codes."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, as_shape
from keras_vae.distributions.base import Posterior
from keras_vae.distributions.codes.distributions import EmbeddedCodes
from keras_vae.distributions.noise import Draw, Noise
from keras_vae.distributions.priors import Prior
from keras_vae.distributions.tfp import tfd

__all__ = ["CodePosterior", "CodePrior", "for_each_draw", "straight_through"]


@tf.custom_gradient
def straight_through(
    hard: tf.Tensor, soft: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    """Returns `hard`, exactly, with the gradient of `soft`."""
    return tf.identity(hard), lambda upstream: (tf.zeros_like(upstream), upstream)


def for_each_draw(value: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Repeats a value [B, L] for each draw, noise being [B] or [S, B]."""
    if noise.shape.rank == value.shape.rank - 1:
        return value
    found = tf.broadcast_to(value, tf.concat([tf.shape(noise), [value.shape[-1]]], 0))
    found.set_shape([*noise.shape, value.shape[-1]])
    return found


class CodePosterior(Posterior):
    """A family q(codes | x) over N codes, whole numbers below K, with an embedding of each.

    z [L] holds the embeddings of all codes side by side, L = N * code_size. A likelihood's network
    receives `features(z)`: of a grid of codes (h, w) the image [h, w, code_size], of a plain vector
    of codes z itself.

    Args:
        codes_shape: shape of the codes, such as 10 or (7, 7).
        num_codes: number K of different codes.
        code_size: size of the embedding of one code.
        features_size: numbers per position of the codes that the head emits.
        stages: number of codes at each position; their embeddings are added up.
        network: the encoder, from x to features. Of a grid of codes, an image [h, w, channels].
        head: layer from features to raw parameters; None is a Dense layer, of a grid one that acts
            at each position.

    Raises:
        ValueError: if a size is not a positive integer.
    """

    is_discrete = True

    def __init__(
        self,
        codes_shape: int | Sequence[int],
        num_codes: int,
        code_size: int,
        features_size: int,
        stages: int = 1,
        network: keras.layers.Layer | None = None,
        *,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        self.grid = as_shape(codes_shape, type(self).__name__)
        self.num_codes = as_count("num_codes", num_codes, least=2)
        self.code_size = as_count("code_size", code_size, least=1)
        self.stages = as_count("stages", stages, least=1)
        self._head_size = math.prod(self.grid) * features_size
        self._has_default_head = head is None
        if head is None and len(self.grid) > 1:
            head = keras.layers.Dense(features_size, dtype=_float_dtype(kwargs), name="parameters")
        super().__init__(self.count * self.code_size, network, head=head, **kwargs)

    @property
    def codes_shape(self) -> tuple[int, ...]:
        """Shape of the codes of one example; its last axis are the stages if there are several."""
        return (*self.grid, self.stages) if self.stages > 1 else self.grid

    @property
    def count(self) -> int:
        """Number N of codes of one example."""
        return math.prod(self.grid) * self.stages

    @property
    def features_shape(self) -> tuple[int, ...]:
        """Shape of what a likelihood's network receives of one z."""
        if len(self.grid) == 1:
            return (self.grid[0] * self.code_size,)
        return (*self.grid, self.code_size)

    def features(self, z: tf.Tensor) -> tf.Tensor:
        """Returns what a likelihood's network receives of z [..., L], [..., *features_shape]."""
        leading = tf.shape(z)[:-1]
        if self.stages > 1:
            shape = [*self.grid, self.stages, self.code_size]
            z = tf.reduce_sum(tf.reshape(z, tf.concat([leading, shape], 0)), axis=-2)
        return tf.reshape(z, tf.concat([leading, self.features_shape], 0))

    def noise(self) -> Any:
        """Returns one uniform number, of which only the shape is used: z is certain."""
        return Noise((), "uniform", random.POSTERIOR)

    @abc.abstractmethod
    def embed(self, codes: Any, **book: Any) -> tf.Tensor:
        """Returns the z [..., L] of codes.

        Args:
            codes: whole numbers below K, [..., *codes_shape].
            **book: the shared parameters; None are those of the layer.
        """

    @abc.abstractmethod
    def codes_of(self, z: tf.Tensor, **book: Any) -> tf.Tensor:
        """Returns the codes, int32 [..., N], whose embeddings are z [..., L]."""

    def indicators(self, z: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        """Returns the codes [..., N] of z as one-hot vectors [..., N, K]."""
        return tf.one_hot(codes, self.num_codes, dtype=z.dtype)

    def in_shape(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns codes [..., N] as [..., *codes_shape]."""
        return tf.reshape(codes, tf.concat([tf.shape(codes)[:-1], self.codes_shape], 0))

    def side_by_side(self, codes: Any) -> tf.Tensor:
        """Returns codes [..., *codes_shape] as int32 [..., N].

        Raises:
            ValueError: if the last axes are not those of the codes, or values that are not symbolic
                are no whole numbers below K.
        """
        if not tf.is_symbolic_tensor(codes):
            self._check_codes(np.asarray(codes))
        codes = tf.cast(tf.convert_to_tensor(codes), tf.int32)
        axes = len(self.codes_shape)
        if not codes.shape[-axes:].is_compatible_with(self.codes_shape):
            raise ValueError(
                f"Expected codes of shape [..., {', '.join(map(str, self.codes_shape))}]; got "
                f"{codes.shape.as_list()}."
            )
        return tf.reshape(codes, tf.concat([tf.shape(codes)[:-axes], [self.count]], 0))

    def _check_codes(self, codes: np.ndarray) -> None:
        wanted = f"Expected codes as whole numbers from 0 to {self.num_codes - 1}"
        if codes.dtype.kind not in "biuf":
            raise ValueError(f"{wanted}; got values of dtype {codes.dtype}.")
        wrong = ~((codes >= 0) & (codes < self.num_codes) & (np.floor(codes) == codes))
        if wrong.any():
            raise ValueError(f"{wanted}; got {codes[wrong][0]}.")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        config = super().get_config()
        del config["latent_size"]
        if self._has_default_head:
            config["head"] = None
        return {**config, "codes_shape": list(self.grid)}


class CodePrior(Prior):
    """A distribution p(codes) over the codes of the posterior that it is given with to a VAE.

    It takes the number of codes and their embeddings from the posterior, so it has no sizes of its
    own. A subclass defines `log_prob_of` and `draw_codes`.
    """

    is_discrete = True

    is_uniform = False
    """Whether all codes are equally probable and independent."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(None, **kwargs)
        self._posterior: Callable[[], CodePosterior] | None = None

    @property
    def codes(self) -> CodePosterior:
        """The posterior whose codes these are.

        Raises:
            ValueError: if the prior is in no model.
        """
        if self._posterior is None:
            raise ValueError(
                f"{type(self).__name__} is a distribution over the codes of a posterior: give both "
                "to keras_vae.VAE(prior=..., posterior=...)."
            )
        return self._posterior()

    def bind(self, posterior: Posterior, *_: Any) -> None:
        """Takes the codes of the posterior.

        Raises:
            ValueError: if the posterior has no codes, or the prior has those of another.
        """
        name = type(self).__name__
        if not isinstance(posterior, CodePosterior):
            raise ValueError(
                f"{name} is a distribution over codes, and {type(posterior).__name__} has none. "
                "Choose a posterior such as VectorQuantizer, or a prior such as StandardNormal."
            )
        if self._posterior is not None:
            raise ValueError(f"This {name} already belongs to another model. Make a new one.")
        self._posterior = lambda: posterior
        self.latent_size = posterior.latent_size

    def parameters(self, condition: Any = None) -> dict[str, tf.Tensor]:
        """Returns the embeddings of the codes, if they are weights of the posterior."""
        return self.codes.shared_parameters()

    def make_distribution(self, **book: Any) -> tfd.Distribution:
        """Returns the distribution of z."""
        codes = self.codes

        def codes_of(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            found = codes.codes_of(z, **book)
            return found, codes.indicators(z, found)

        return EmbeddedCodes(
            codes_of,
            self.log_prob_of,
            lambda u: self.draw(u, **book).value,
            size=codes.latent_size,
            count=codes.count,
            uniform_over=codes.num_codes if self.is_uniform else None,
            dtype=self.float_dtype,
            name=type(self).__name__,
        )

    @abc.abstractmethod
    def log_prob_of(self, codes: tf.Tensor, indicators: tf.Tensor | None = None) -> tf.Tensor:
        """Returns log p(codes) in nats, [...].

        Args:
            codes: int32 [..., N].
            indicators: the same as one-hot vectors [..., N, K], through which a gradient may pass.
        """

    @abc.abstractmethod
    def draw_codes(self, u: tf.Tensor) -> tf.Tensor:
        """Draws codes, int32 [..., N], from uniform numbers [..., N]."""

    def noise(self) -> Noise:
        """Returns one uniform number per code."""
        return Noise((self.codes.count,), "uniform", random.LATENT)

    def draw(self, noise: tf.Tensor, **book: Any) -> Draw:
        """Draws codes, and returns their embeddings."""
        drawn = self.draw_codes(noise)
        return Draw(self.codes.embed(self.codes.in_shape(drawn), **book))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        config = super().get_config()
        del config["latent_size"]
        return config


def _float_dtype(arguments: dict[str, Any]) -> str:
    """Returns the dtype of the parameters of a layer with these arguments."""
    policy = arguments.get("dtype") or keras.config.dtype_policy()
    is_double = keras.dtype_policies.get(policy).compute_dtype == "float64"
    return "float64" if is_double else "float32"
