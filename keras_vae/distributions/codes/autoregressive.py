"""Autoregressive distribution over codes, by causal attention."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count, register
from keras_vae.distributions.base import Posterior
from keras_vae.distributions.codes.base import CodePrior

__all__ = ["AutoregressiveCodes"]


@register
class AutoregressiveCodes(CodePrior):
    """p(codes) = prod_i p(code_i | codes before it), by a small causal transformer.

    The order is that of reading: row by row, and at each position stage by stage. It starts as the
    uniform distribution, and is trained with the model or, on the codes of a trained model, by
    `keras_vae.evaluation.fit_code_prior`. A draw runs the network once per code. Sources: Vaswani
    et al. (2017), Attention is all you need, arXiv:1706.03762; van den Oord, Vinyals and
    Kavukcuoglu (2017), arXiv:1711.00937.

    Args:
        width: size of the features of each code.
        depth: number of attention layers.
        heads: number of attention heads, which divides the width.

    Raises:
        ValueError: if a size is not a positive integer, or the heads do not divide the width.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.VAE(
        ...     prior=AutoregressiveCodes(width=8, heads=2),
        ...     likelihood=keras_vae.Normal(5),
        ...     posterior=keras_vae.VectorQuantizer(4, num_codes=8, code_size=2),
        ... )
        >>> float(vae.elbo(tf.zeros([1, 5]), seed=0).rate[0])  # 4 log 8, before training
        8.317766...
    """

    def __init__(self, width: int = 64, depth: int = 2, heads: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = as_count("width", width, least=1)
        self.depth = as_count("depth", depth, least=1)
        self.heads = as_count("heads", heads, least=1)
        if self.width % self.heads:
            raise ValueError(
                "Invalid value for argument `heads`. Expected a divisor of the width "
                f"{self.width}. Received: heads={heads!r}"
            )

    def bind(self, posterior: Posterior, *others: Any) -> None:
        """Takes the codes of the posterior, and makes the network for their number."""
        super().bind(posterior, *others)
        codes, own = self.codes, {"dtype": self.float_dtype, "autocast": False}
        small = keras.initializers.RandomNormal(stddev=0.02)
        shape = (codes.num_codes, self.width)
        self.of_codes = self.add_weight(name="codes", shape=shape, initializer=small, **own)
        shape = (codes.count, self.width)
        self.of_places = self.add_weight(name="places", shape=shape, initializer=small, **own)
        dtype = self.float_dtype
        inputs = (None, codes.count, self.width)
        self.blocks = [
            _Block(self.heads, dtype=dtype, name=f"block_{index}") for index in range(self.depth)
        ]
        self.last_norm = keras.layers.LayerNormalization(dtype=dtype, name="last_norm")
        self.head = keras.layers.Dense(
            codes.num_codes, kernel_initializer="zeros", dtype=dtype, name="logits"
        )
        for layer in (*self.blocks, self.last_norm, self.head):
            layer.build(inputs)

    def log_prob_of(self, codes: tf.Tensor, indicators: tf.Tensor | None = None) -> tf.Tensor:
        """Returns log p(codes) in nats, [...]; the gradient passes through the code that is scored.

        Codes that others depend on are held constant.
        """
        leading, size = tf.shape(codes)[:-1], self.codes.num_codes
        flat = tf.reshape(codes, [-1, self.codes.count])
        log_p = tf.nn.log_softmax(self.head(self._features(flat)))
        one_hot = tf.one_hot(flat, size, dtype=log_p.dtype)
        if indicators is not None:
            one_hot = tf.reshape(indicators, tf.shape(log_p))
        return tf.reshape(tf.reduce_sum(log_p * one_hot, axis=[-2, -1]), leading)

    def draw_codes(self, u: tf.Tensor) -> tf.Tensor:
        """Draws the codes one after the other, each by inversion of its uniform number."""
        count = self.codes.count
        numbers = tf.reshape(u, [-1, count])
        places = tf.range(count)

        def draw(index: tf.Tensor, codes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            is_here = tf.equal(places, index)
            here = tf.cast(is_here, numbers.dtype)
            features = tf.reduce_sum(self._features(codes) * here[:, tf.newaxis], axis=1)
            logits = self.head(features)
            weights = tf.exp(logits - tf.reduce_max(logits, axis=-1, keepdims=True))
            cumulative = tf.cumsum(weights, axis=-1)
            own = tf.reduce_sum(numbers * here, axis=1, keepdims=True)
            passed = cumulative[:, :-1] <= own * cumulative[:, -1:]
            drawn = tf.reduce_sum(tf.cast(passed, tf.int32), axis=-1, keepdims=True)
            return index + 1, tf.where(is_here, drawn, codes)

        _, codes = tf.while_loop(
            lambda index, _: index < count,
            draw,
            (tf.constant(0), tf.zeros(tf.shape(numbers), tf.int32)),
            parallel_iterations=1,
            maximum_iterations=count,
        )
        return tf.reshape(codes, tf.shape(u))

    def _features(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns features of each place, [n, N, width], of the codes [n, N] before it."""
        embedded = tf.gather(tf.convert_to_tensor(self.of_codes), codes)
        before = tf.pad(embedded[:, :-1], [[0, 0], [1, 0], [0, 0]])
        features = before + self.of_places
        for block in self.blocks:
            features = block(features)
        return self.last_norm(features)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        sizes = {"width": self.width, "depth": self.depth, "heads": self.heads}
        return {**super().get_config(), **sizes}


class _Block(keras.layers.Layer):
    """Causal self-attention and a pointwise network, each added to its normalised input."""

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, input_shape: Any) -> None:
        """Creates the layers for features [n, N, width]."""
        _, count, width = input_shape
        dtype = self.dtype_policy

        def dense(units: int, name: str, activation: str | None = None) -> keras.layers.Dense:
            return keras.layers.Dense(units, activation, dtype=dtype, name=name)

        self.norms = [
            keras.layers.LayerNormalization(dtype=dtype, name=f"norm_{index}") for index in (1, 2)
        ]
        self.query_key_value = dense(3 * width, "query_key_value")
        self.out = dense(width, "out")
        self.wide, self.narrow = dense(4 * width, "wide", "gelu"), dense(width, "narrow")
        for layer in (*self.norms, self.query_key_value, self.out, self.wide):
            layer.build(input_shape)
        self.narrow.build((None, count, 4 * width))
        self._mask = np.where(np.tri(count, dtype=bool), 0.0, -1e9)
        self.built = True

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Returns features of each place, [n, N, width], that depend on none after it."""
        count, width = features.shape[1:]
        each = self.query_key_value(self.norms[0](features))
        each = tf.reshape(each, [-1, count, 3, self.heads, width // self.heads])
        query, key, value = tf.unstack(tf.transpose(each, [2, 0, 3, 1, 4]))
        scores = tf.matmul(query, key, transpose_b=True) / np.sqrt(width // self.heads)
        weights = tf.nn.softmax(scores + tf.constant(self._mask, scores.dtype))
        mixed = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        features += self.out(tf.reshape(mixed, [-1, count, width]))
        return features + self.narrow(self.wide(self.norms[1](features)))
