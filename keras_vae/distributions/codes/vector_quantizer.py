"""Vector quantiser: codes are the nearest vectors of a learned book."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_vae.arguments import as_count, as_weight, register
from keras_vae.distributions.base import Parameter
from keras_vae.distributions.codes.base import CodePosterior, for_each_draw, straight_through
from keras_vae.distributions.codes.distributions import PointOfCodes
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd
from keras_vae.replicas import summed

__all__ = ["VectorQuantizer"]

_ROWS_PER_CODE = 16
_LLOYD_STEPS = 10


@register
class VectorQuantizer(CodePosterior):
    """Point mass q(codes | x) at the vectors of a book that are nearest to the encoder's features.

    z is certain, so log q = 0 and the ELBO is log p(x | codes) + log p(codes), a lower bound on
    log p(x). The decoder's gradient passes straight through to the features. The commitment
    |features - z|^2, times its weight, is part of the loss and of no bound.

    The vectors are no trained weights: each is the mean of the features that chose it, with
    exponential forgetting. They start as the k-means of the first batch, and one that is rarely
    chosen moves to features of the present batch. With several `stages`, each quantises what the
    stages before it left over, and their vectors are added up. On several replicas, the means are
    those of the whole batch, and the start and the moved vectors come from the first replica's
    share of it.

    Sources: van den Oord, Vinyals and Kavukcuoglu (2017), Neural discrete representation learning,
    arXiv:1711.00937; Razavi, van den Oord and Vinyals (2019), arXiv:1906.00446; Lee et al. (2022),
    Autoregressive image generation using residual quantization, arXiv:2203.01941.

    Args:
        codes_shape: shape of the codes, such as 10 or (7, 7).
        num_codes: number K of vectors in the book of each stage.
        code_size: size of each vector.
        network: the encoder, from x to features. Of a grid of codes, an image [h, w, channels].
        stages: number of residual stages.
        commitment: weight of the commitment, at least 0.
        decay: share of the past that a batch leaves in the means, between 0 and 1.
        revive: share of the mean use below which a vector moves to features of the batch; 0 never
            moves one.
        head: layer from features to `code_size` numbers per position; None is one Dense layer.

    Raises:
        ValueError: if a size is not a positive integer, or a share is out of range.

    Example:
        >>> q = VectorQuantizer((2, 2), num_codes=8, code_size=3)
        >>> q.distribution(tf.zeros([5, 2, 2, 16])).codes.shape
        TensorShape([5, 2, 2])
    """

    def __init__(
        self,
        codes_shape: int | Sequence[int],
        num_codes: int,
        code_size: int,
        network: keras.layers.Layer | None = None,
        *,
        stages: int = 1,
        commitment: float = 0.25,
        decay: float = 0.99,
        revive: float = 0.05,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        size = as_count("code_size", code_size, least=1)
        self.commitment = as_weight("commitment", commitment)
        self.decay, self.revive = as_weight("decay", decay), as_weight("revive", revive)
        for name, share in (("decay", self.decay), ("revive", self.revive)):
            if share >= 1.0:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected a number of at least 0 and "
                    f"below 1. Received: {name}={share!r}"
                )
        super().__init__(codes_shape, num_codes, size, size, stages, network, head=head, **kwargs)
        shape = (self.stages, self.num_codes, self.code_size)
        own: dict[str, Any] = {
            "trainable": False,
            "dtype": self.float_dtype,
            "autocast": False,
            "aggregation": "only_first_replica",
        }
        normal = keras.initializers.RandomNormal(stddev=1.0)
        self.codebook = self.add_weight(name="codebook", shape=shape, initializer=normal, **own)
        self.totals = self.add_weight(name="totals", shape=shape, initializer="zeros", **own)
        self.counts = self.add_weight(name="counts", shape=shape[:2], initializer="zeros", **own)
        self.updates = self.add_weight(
            name="updates", shape=(), initializer="zeros", **{**own, "dtype": "int32"}
        )

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns the features, before they are quantised."""
        return {"features": Parameter(self._head_size)}

    def shared_parameters(self) -> dict[str, tf.Tensor]:
        """Returns the vectors, [stages, K, code_size]."""
        return {"codebook": tf.convert_to_tensor(self.codebook)}

    def parameters(self, c: Any, training: bool = False) -> dict[str, tf.Tensor]:
        """Returns features and vectors; in training, the first batch starts the vectors."""
        found = self.head_parameters(c, training)
        if training:
            self._start(found["features"])
        return {**found, **self.shared_parameters()}

    def make_distribution(self, features: tf.Tensor, codebook: tf.Tensor) -> tfd.Distribution:
        """Returns the point mass at the nearest vectors."""
        z, codes = self._quantised(features, codebook)
        return PointOfCodes(z, self.in_shape(codes))

    def draw(self, noise: tf.Tensor, features: tf.Tensor, codebook: tf.Tensor) -> Draw:
        """Returns the nearest vectors and the commitment to them."""
        nearest, _ = self._quantised(features, codebook)
        leading = tf.shape(features)[:-1]
        shape = tf.concat([leading, [self._positions, self.stages, self.code_size]], 0)
        total = tf.reduce_sum(tf.reshape(nearest, shape), axis=-2)
        distance = tf.stop_gradient(tf.reshape(total, tf.shape(features))) - features
        commitment = self.commitment * tf.reduce_sum(distance**2, axis=-1)
        shares = tf.reshape(features, tf.concat([leading, [self._positions, 1, self.code_size]], 0))
        soft = tf.reshape(tf.broadcast_to(shares, shape) / self.stages, tf.shape(nearest))
        z = for_each_draw(straight_through(nearest, soft), noise)
        zeros = tf.zeros(tf.shape(z)[:-1], z.dtype)
        return Draw(z, zeros, {"commitment": commitment})

    def embed(self, codes: Any, **book: Any) -> tf.Tensor:
        """Returns the vectors of codes, [..., L]."""
        book = book or self.shared_parameters()
        flat = self.side_by_side(codes)
        stage = tf.range(self.count) % self.stages
        vectors = tf.reshape(book["codebook"], [-1, self.code_size])
        found = tf.gather(vectors, flat + stage * self.num_codes)
        return tf.reshape(found, tf.concat([tf.shape(flat)[:-1], [self.latent_size]], 0))

    def codes_of(self, z: tf.Tensor, **book: Any) -> tf.Tensor:
        """Returns the codes of the vectors nearest to those in z."""
        book = book or self.shared_parameters()
        leading = tf.shape(z)[:-1]
        shape = [-1, self.stages, self.code_size]
        each = tf.unstack(tf.reshape(z, shape), axis=1)
        vectors = tf.unstack(tf.convert_to_tensor(book["codebook"]), axis=0)
        codes = [_nearest(x, e) for x, e in zip(each, vectors, strict=True)]
        return tf.reshape(tf.stack(codes, axis=-1), tf.concat([leading, [self.count]], 0))

    def observe(
        self, parameters: dict[str, tf.Tensor], sample_weight: tf.Tensor | None = None
    ) -> None:
        """Moves the vectors towards the means of the features that chose them."""
        features = tf.stop_gradient(parameters["features"])
        weight = tf.ones(tf.shape(features)[:-1], features.dtype)
        if sample_weight is not None:
            weight *= tf.cast(sample_weight, weight.dtype)
        weight = tf.repeat(weight, self._positions)
        rest = tf.reshape(features, [-1, self.code_size])
        counts, totals, spare = [], [], []
        for vectors in tf.unstack(parameters["codebook"], axis=0):
            codes = _nearest(rest, vectors)
            chosen = tf.one_hot(codes, self.num_codes, dtype=rest.dtype) * weight[:, tf.newaxis]
            counts.append(tf.reduce_sum(chosen, axis=0))
            totals.append(tf.matmul(chosen, rest, transpose_a=True))
            spare.append(self._some_of(rest))
            rest -= tf.gather(vectors, codes)
        summed_up = summed([tf.stack(counts), tf.stack(totals), _of_first_replica(spare)])
        self._move(*summed_up)

    def _move(self, counts: tf.Tensor, totals: tf.Tensor, spare: tf.Tensor) -> None:
        """Updates the means, and moves the vectors that are rarely chosen.

        Args:
            counts: weight of the features that chose each vector, [stages, K].
            totals: weighted sum of them, [stages, K, code_size].
            spare: features of the batch, [stages, rows, code_size].
        """
        kept = tf.cast(self.decay, counts.dtype)
        counts = kept * self.counts + (1.0 - kept) * counts
        totals = kept * self.totals + (1.0 - kept) * totals
        least = self.revive * tf.reduce_mean(counts, axis=-1, keepdims=True)
        is_dead = counts < least
        rows = spare.shape[1]
        order = tf.cumsum(tf.cast(is_dead, tf.int32), axis=-1) - 1
        picks = (self.updates + order * (rows // self.num_codes)) % rows
        revived = tf.gather(spare, picks, batch_dims=1)
        counts = tf.where(is_dead, tf.broadcast_to(least, tf.shape(counts)), counts)
        totals = tf.where(is_dead[..., tf.newaxis], revived * least[..., tf.newaxis], totals)
        means = tf.math.divide_no_nan(totals, counts[..., tf.newaxis])
        known = (counts > 0.0)[..., tf.newaxis]
        self.codebook.assign(tf.where(known, means, self.codebook))
        self.counts.assign(counts)
        self.totals.assign(totals)
        self.updates.assign_add(1)

    def _start(self, features: tf.Tensor) -> None:
        """Sets the vectors to the k-means of the features, unless they were updated before."""
        rest = tf.reshape(tf.stop_gradient(features), [-1, self.code_size])
        (rows,) = summed([_of_first_replica([self._some_of(rest)])[0]])
        known = tf.convert_to_tensor(self.codebook)
        self.codebook.assign(tf.cond(self.updates > 0, lambda: known, lambda: self._means_of(rows)))

    def _means_of(self, rest: tf.Tensor) -> tf.Tensor:
        """Returns the k-means of each stage, [stages, K, code_size], of rows."""
        books = []
        for _ in range(self.stages):
            vectors = rest[:: rest.shape[0] // self.num_codes][: self.num_codes]
            for _ in range(_LLOYD_STEPS):
                chosen = tf.one_hot(_nearest(rest, vectors), self.num_codes, dtype=rest.dtype)
                counts = tf.reduce_sum(chosen, axis=0)[:, tf.newaxis]
                means = tf.matmul(chosen, rest, transpose_a=True) / tf.maximum(counts, 1.0)
                vectors = tf.where(counts > 0.0, means, vectors)
            rest -= tf.gather(vectors, _nearest(rest, vectors))
            books.append(vectors)
        return tf.stack(books)

    def _some_of(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns rows at equal distances, as many for any batch."""
        count = _ROWS_PER_CODE * self.num_codes
        places = tf.linspace(0.0, tf.cast(tf.shape(rows)[0] - 1, tf.float32), count)
        found = tf.gather(rows, tf.cast(tf.round(places), tf.int32))
        return tf.ensure_shape(found, [count, self.code_size])

    @property
    def _positions(self) -> int:
        return self.count // self.stages

    def _quantised(self, features: tf.Tensor, codebook: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns z [..., L] and the codes [..., N] of features [..., positions * code_size]."""
        leading = tf.shape(features)[:-1]
        rest = tf.reshape(features, [-1, self.code_size])
        codes, nearest = [], []
        for vectors in tf.unstack(codebook, axis=0):
            codes.append(_nearest(rest, vectors))
            nearest.append(tf.gather(vectors, codes[-1]))
            rest -= nearest[-1]
        z = tf.reshape(tf.stack(nearest, axis=1), tf.concat([leading, [self.latent_size]], 0))
        found = tf.reshape(tf.stack(codes, axis=1), tf.concat([leading, [self.count]], 0))
        return z, found

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "code_size": self.code_size,
            "stages": self.stages,
            "commitment": self.commitment,
            "decay": self.decay,
            "revive": self.revive,
        }


def _nearest(rows: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Returns the places of the vectors [K, D] nearest to rows [n, D]; of equals the first.

    Distances are taken from the mean of the vectors: far from the origin their differences are less
    than the rounding of their squares.
    """
    center = tf.reduce_mean(vectors, axis=0)
    rows, vectors = rows - center, vectors - center
    squares = 0.5 * tf.reduce_sum(vectors**2, axis=-1)
    distances = squares - tf.matmul(rows, vectors, transpose_b=True)
    return tf.argmin(distances, axis=-1, output_type=tf.int32)


def _of_first_replica(parts: list[tf.Tensor]) -> tf.Tensor:
    """Stacks tensors, with zeros on all replicas but the first, so that their sum is its value."""
    stacked = tf.stack(parts)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return stacked
    is_first = tf.equal(context.replica_id_in_sync_group, 0)
    return stacked * tf.cast(is_first, stacked.dtype)
