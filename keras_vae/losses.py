"""Losses for Keras models that end in a distribution layer: regression and classification."""

from typing import Any

import keras
import tensorflow as tf

from keras_vae.arguments import register
from keras_vae.distributions import distribution_of
from keras_vae.distributions.base import producer_of

__all__ = ["NegativeLogLikelihood"]


@register
class NegativeLogLikelihood(keras.losses.Loss):
    """Loss -log p(y | x) in nats per example, of a model that ends in a distribution layer.

    The loss contains every constant: for `Normal` it is 1/2 |(y - loc) / scale|^2 + sum log scale
    + D/2 log 2 pi. Sample weights multiply it. A metric such as mean squared error compares y with
    the layer's output, which is a draw in training and the mean otherwise.

    Args:
        name: name of the loss.
        reduction: reduction of the values of a batch, as in Keras.

    Call arguments:
        y_true: targets [B, *event_shape], or [B] if an event is one number.
        y_pred: output of the distribution layer itself, with nothing after it.
        sample_weight: numbers [B].

    Raises:
        ValueError: if `y_pred` is not the output of a distribution layer, the shape of `y_true` is
            not that of its events, or its scale is "optimal".
        tf.errors.InvalidArgumentError: if a target is not finite or outside the support, unless the
            step is compiled by XLA.

    Example:
        >>> import keras_vae, numpy as np
        >>> model = keras.Sequential(
        ...     [
        ...         keras.layers.Dense(16, "relu"),
        ...         keras_vae.Normal(1, scale="learned"),
        ...     ]
        ... )
        >>> model.compile("adam", loss=keras_vae.NegativeLogLikelihood())
        >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
        >>> history = model.fit(x, 2 * x, verbose=0)
        >>> keras_vae.distribution_of(model(x)).stddev().shape
        TensorShape([64, 1])
    """

    def __init__(
        self,
        name: str = "negative_log_likelihood",
        reduction: str = "sum_over_batch_size",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """Computes the reduced loss of a batch."""
        return super().__call__(y_true, self._nats(y_true, y_pred), sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Returns the values [B] that `__call__` has computed."""
        return y_pred

    def _nats(self, y: Any, output: Any) -> tf.Tensor:
        if _is_placeholder(output):  # Keras builds the loss on the shapes of outputs
            return tf.zeros(tf.shape(output)[:1], output.dtype)
        layer, distribution = producer_of(output), distribution_of(output)
        if getattr(layer, "scale", None) == "optimal":
            raise ValueError(
                f'{layer.name} has scale="optimal", which only the training of a VAE updates. '
                'Choose scale="learned".'
            )
        y = _targets(tf.convert_to_tensor(y), layer)
        checks = []
        if hasattr(layer, "support"):
            owner = f"Target of {layer.name}: {type(layer).__name__}"
            assertions = layer.support.assertions(y, owner)
            checks = [tf.debugging.Assert(holds, [said]) for said, holds in assertions.items()]
        with tf.control_dependencies([check for check in checks if check is not None]):
            return -distribution.log_prob(tf.identity(tf.cast(y, layer.float_dtype)))


def _targets(y: tf.Tensor, layer: Any) -> tf.Tensor:
    """Reshapes the targets to [B, *event_shape]."""
    event = layer.event_shape
    if event == (1,) and y.shape.rank == 1:
        return y[:, tf.newaxis]
    if y.shape.rank is not None and not y.shape[1:].is_compatible_with(event):
        hint = ""
        if y.dtype.is_integer and y.shape[1:] == event[:-1]:
            hint = f" Code categories with keras.utils.to_categorical(y, {event[-1]})."
        raise ValueError(
            f"{layer.name} expected targets with events of shape {list(event)}; got targets of "
            f"shape {y.shape.as_list()}.{hint}"
        )
    return y


def _is_placeholder(output: Any) -> bool:
    return tf.is_symbolic_tensor(output) and output.op.type == "Placeholder"
