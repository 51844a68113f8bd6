"""Statistics of a part whose expectations are its imputation, or the probabilities of classes."""

from collections.abc import Callable

import tensorflow as tf

from keras_vae.distributions.tfp import tfd
from keras_vae.training.data_spec import Part

__all__ = ["Statistic", "class_probabilities", "expected", "single_values", "statistic_of"]

Statistic = Callable[[tfd.Distribution], tf.Tensor]
"""Function from p(x | z) to a tensor of its batch shape and further axes."""


def class_probabilities(part: Part) -> Statistic | None:
    """Returns the function from p(x | z) to the probability of each class, on a new last axis.

    Returns None if the variables of the part do not have finitely many values 0, 1, ... of which
    each is a class. One-hot variables have their classes on their own last axis.
    """
    support = part.support
    if support is None or not support.is_whole:
        return None
    if support.is_one_hot:
        return _mean
    if support.high is None:
        return None
    classes = int(support.high) + 1
    return _of_binary if classes == 2 else lambda p: _of_classes(p, classes)


def _mean(p: tfd.Distribution) -> tf.Tensor:
    return p.mean()


def _of_binary(p: tfd.Distribution) -> tf.Tensor:
    mean = p.mean()
    return tf.stack([1.0 - mean, mean], axis=-1)


def _of_classes(p: tfd.Distribution, classes: int) -> tf.Tensor:
    shape = tf.concat([p.batch_shape_tensor(), p.event_shape_tensor()], 0)
    entries = p.distribution if isinstance(p, tfd.Independent) else p
    values = [
        tf.exp(entries.log_prob(tf.fill(shape, tf.constant(value, p.dtype))))
        for value in range(classes)
    ]
    return tf.stack(values, axis=-1)


def statistic_of(part: Part) -> Statistic:
    """Returns the function from p(x | z) to what the imputation of a part is made of."""
    if part.support is not None and part.support.is_ordinal:
        of_classes = class_probabilities(part)
        if of_classes is not None:
            return of_classes
    return _mean


def expected(part: Part, found: tf.Tensor) -> tf.Tensor:
    """Returns E[x | present] of a part, [B, *D], from the expectation of its statistic."""
    if part.support is None or not part.support.is_ordinal:
        return found
    return tf.reduce_sum(found * tf.range(found.shape[-1], dtype=found.dtype), axis=-1)


def single_values(part: Part, found: tf.Tensor) -> tf.Tensor:
    """Returns the single imputation of a part, [B, *D], from the expectation of its statistic.

    It is the mean of real numbers, which has the least expected squared error; the median of
    ordered levels, which has the least expected distance in levels; and the most probable class of
    all others, which is wrong least often.
    """
    support = part.support
    if support is None or not support.is_whole:
        return found
    if support.is_one_hot:
        return tf.one_hot(tf.argmax(found, axis=-1), found.shape[-1], dtype=found.dtype)
    if support.is_ordinal:
        total = tf.reduce_sum(found, axis=-1, keepdims=True)
        is_below = 2.0 * tf.cumsum(found, axis=-1) < total
        return tf.reduce_sum(tf.cast(is_below, found.dtype), axis=-1)
    if support.high == 1.0:
        return tf.cast(found > 0.5, found.dtype)
    return tf.round(found)
