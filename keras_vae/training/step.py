"""Training step: updates every player on one batch; and the evaluation of one batch."""

from typing import Any

import keras
import tensorflow as tf

from keras_vae.distributions.noise import from_seed
from keras_vae.objectives import Player, Terms
from keras_vae.objectives.base import check_per_example, check_terms
from keras_vae.replicas import Share, on_each, summed

__all__ = ["draw_noise", "evaluate_on", "size_of", "train_on"]


def train_on(model: Any, data: Any, noise: Any) -> dict[str, tf.Tensor]:
    """Updates the weights of every player on one batch, shared among the replicas.

    Args:
        model: the model, compiled.
        data: batch from Keras, x or (x, y, sample_weight).
        noise: noise of the whole batch, from `draw_noise`.

    Returns:
        The means of the metrics so far.
    """
    players: list[Player] = model.objective.players(model)

    def update(share: Share) -> None:
        with tf.GradientTape(persistent=len(players) > 1) as tape:
            losses = _losses(model, players, data, noise, share, training=True)
            losses = [
                player.optimizer.scale_loss(_mean_over_batch(loss, share))
                for player, loss in zip(players, losses, strict=True)
            ]
        for index, (player, loss) in enumerate(zip(players, losses, strict=True)):
            gradients = tape.gradient(loss, player.weights)
            if gradients and all(gradient is None for gradient in gradients):
                raise ValueError(
                    f"The loss of player {1 + index} of {model.objective.name} depends on none of "
                    "its weights. Return a loss that its weights decide, or leave the player out."
                )
            gradients = summed(gradients)
            player.optimizer.apply_gradients(zip(gradients, player.weights, strict=True))

    on_each(model.strategy, size_of(data), update)
    return model.get_metrics_result()


def evaluate_on(model: Any, data: Any, noise: Any) -> dict[str, tf.Tensor]:
    """Adds one batch to the metrics; arguments and result as for `train_on`."""
    players: list[Player] = model.objective.players(model)

    def evaluate(share: Share) -> None:
        _losses(model, players, data, noise, share, training=False)

    on_each(model.strategy, size_of(data), evaluate)
    return model.get_metrics_result()


def draw_noise(model: Any, seed: tf.Tensor, size: Any) -> Any:
    """Draws the noise of a batch: the numbers do not depend on the number of replicas.

    Args:
        model: the model, compiled.
        seed: int32 [2].
        size: number of examples B.

    Returns:
        Tensors by name, [S, B, ...].
    """
    objective = model.objective
    return from_seed(objective.noise(model), seed, [objective.num_samples, size], model.float_dtype)


def _losses(
    model: Any, players: list[Player], data: Any, noise: Any, share: Share, training: bool
) -> list[tf.Tensor]:
    """Computes the loss of each player for each example of a shard, and records the terms."""
    x, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    rows = tf.nest.map_structure(share.of, x)
    own_noise = tf.nest.map_structure(lambda part: share.of(part, axis=1), noise)
    weights = None if sample_weight is None else _per_example(share.of(sample_weight))
    counts = tf.fill([share.size], tf.cast(share.weight, model.float_dtype))
    if weights is not None:
        counts *= tf.cast(weights, counts.dtype)
    terms = model.objective.terms(model.infer(rows, training, counts), own_noise)
    check_terms(model.objective, terms, is_monitored=model.monitor is not None)
    losses = []
    for index, player in enumerate(players):
        loss = player.loss(terms)
        check_per_example(loss, f"The loss of player {index + 1} of {model.objective.name}")
        if weights is not None:
            loss *= tf.cast(weights, loss.dtype)
        for penalty in model.losses if index == 0 else model.objective.losses:
            loss += tf.cast(tf.reduce_sum(penalty), loss.dtype)
        losses.append(loss)
    _record(model, share, losses[0], terms)
    return losses


def _record(model: Any, share: Share, loss: tf.Tensor, terms: Terms) -> None:
    """Adds the terms of a shard to the metrics of the model."""
    weight = tf.fill(tf.shape(loss), tf.cast(share.weight, loss.dtype))
    named = {
        model.loss_metric: loss,
        model.elbo_metric: -(terms.distortion + terms.rate),
        model.distortion_metric: terms.distortion,
        model.rate_metric: terms.rate,
    }
    named |= {metric: terms.extra[metric.name] for metric in model.extra_metrics}
    for metric, values in named.items():
        metric.update_state(values, sample_weight=weight)
    if model.monitor is not None:
        model.monitor.update_state(terms.trace, model.components(), share.weight)


def _mean_over_batch(loss: tf.Tensor, share: Share) -> tf.Tensor:
    """Computes the contribution of a shard to the mean over the batch."""
    count = tf.cast(share.total, loss.dtype)
    return tf.reduce_sum(loss) * tf.cast(share.weight, loss.dtype) / count


def size_of(data: Any) -> Any:
    """Returns the number of examples of a batch, static where it is known."""
    first = tf.nest.flatten(keras.utils.unpack_x_y_sample_weight(data)[0])[0]
    return first.shape[0] or tf.shape(first)[0]


def _per_example(sample_weight: tf.Tensor) -> tf.Tensor:
    """Reshapes weights [B] or [B, 1] to [B]; any other shape would broadcast silently."""
    if sample_weight.shape.rank == 2 and sample_weight.shape[1] == 1:
        return sample_weight[:, 0]
    if sample_weight.shape.rank != 1:
        raise ValueError(
            f"sample_weight must have one number per example, shape [n]; got {sample_weight.shape}."
        )
    return sample_weight
