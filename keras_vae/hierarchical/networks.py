"""Encoders and blocks of ready hierarchies, dense and convolutional."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_vae import networks
from keras_vae.hierarchical.block import Kind, TopDownBlock

__all__ = ["conv_levels", "dense_levels"]

layers = keras.layers


class Levels(NamedTuple):
    """Networks of a hierarchy.

    Attributes:
        encoder: from x to the features of each block.
        blocks: the blocks by name, from the top down.
        decoder: network of the likelihood; None is the last state itself.
    """

    encoder: keras.Model
    blocks: dict[str, TopDownBlock]
    decoder: keras.Model | None


def dense_levels(
    event_shape: Sequence[int],
    latent_sizes: dict[str, int],
    kind: Kind,
    hidden: Sequence[int],
    hidden_above: Sequence[int],
    activation: str,
    condition_shape: tuple[int, ...] | None,
    seen_by_decoder: tuple[int, ...] | None,
    **seen: Any,
) -> Levels:
    """Builds levels of Dense layers.

    Args:
        event_shape: shape of one example.
        latent_sizes: number of latents of each level, from the top down.
        kind: "ladder", "residual" or "bottom_up".
        hidden: widths of the layers between x and the last level, from the bottom up.
        hidden_above: widths of the layers between each other level and the one below it.
        activation: activation of these layers.
        condition_shape: shape of one condition, or None.
        seen_by_decoder: shape of what the likelihood's network is given of it.
        **seen: how the encoder sees x, arguments of `keras_vae.networks.mlp`.
    """

    def mlp(*shapes: tuple[int, ...], of: Sequence[int] = hidden, up: bool = False) -> keras.Model:
        widths = tuple(of) if up else tuple(of)[::-1]
        beside = shapes[1] if len(shapes) > 1 else None
        return networks.mlp(shapes[0], widths, activation=activation, condition_shape=beside)

    width, state = hidden[-1], hidden[0]
    inputs = [keras.Input(tuple(event_shape), name="x")]
    if condition_shape is not None:
        inputs.append(keras.Input(condition_shape, name="condition"))
    given = inputs if len(inputs) > 1 else inputs[0]
    features = networks.mlp(
        event_shape, hidden, activation=activation, condition_shape=condition_shape, **seen
    )(given)
    found = {}
    for name in reversed(latent_sizes):
        found[name] = features
        if kind == "bottom_up":
            break
        if len(found) < len(latent_sizes):
            features = mlp((features.shape[-1],), of=hidden_above, up=True)(features)
    blocks, above = {}, condition_shape
    sizes = [*latent_sizes.values()]
    for index, (name, size) in enumerate(latent_sizes.items()):
        is_last = index == len(sizes) - 1
        if kind != "residual":
            from_below = None
            if kind == "bottom_up" and not is_last:
                from_below = mlp((sizes[index + 1],), of=hidden_above, up=True)
            blocks[name] = TopDownBlock(
                size,
                kind=kind,
                posterior=from_below,
                network=mlp((size,), of=hidden if is_last else hidden_above),
            )
        else:
            blocks[name] = TopDownBlock(
                size,
                prior=None if above is None else mlp(above),
                posterior=mlp((width,)) if above is None else mlp(above, (width,)),
                network=_added(mlp, above, size, state, len(latent_sizes), is_first=not blocks),
            )
        above = (state,)
    decoder = None
    if kind == "residual":
        decoder = mlp((state,)) if seen_by_decoder is None else mlp((state,), seen_by_decoder)
    return Levels(keras.Model(given, found, name="encoder"), blocks, decoder)


def _added(
    mlp: Any, above: tuple[int, ...] | None, size: int, state: int, levels: int, *, is_first: bool
) -> keras.Model:
    """Builds the network to the state below, which is added to the state above."""
    z = keras.Input((size,))
    start = keras.initializers.VarianceScaling(1.0 / levels, "fan_avg", "uniform")
    last = layers.Dense(state, kernel_initializer=start)
    if above is None:
        return keras.Model(z, last(mlp((size,))(z)))
    given = keras.Input(above)
    found = last(mlp(above, (size,))([given, z]))
    return keras.Model([given, z], found if is_first else layers.Add()([given, found]))


class _Place(NamedTuple):
    """Height and width of a level, and its number of filters."""

    size: tuple[int, int]
    filters: int


def conv_levels(
    event_shape: Sequence[int],
    latent_sizes: dict[str, int],
    kind: Kind,
    filters: Sequence[int],
    activation: str,
    **seen: Any,
) -> Levels:
    """Builds convolutional levels, whose latents are images; arguments as for `dense_levels`.

    Each convolution of stride 2 halves the image and is the place of one level. Where there are
    more convolutions than levels, the first have none; where there are fewer, the last has several.

    Args:
        event_shape: shape of one image, (height, width, channels).
        latent_sizes: channels of the latents of each level, from the top down.
        kind: "ladder" or "residual".
        filters: filters of the convolutions, from the bottom up.
        activation: activation of the convolutions.
        **seen: how the encoder sees x.
    """
    networks.check_image(event_shape, filters, activation)

    def conv(count: int, stride: int = 1) -> keras.layers.Layer:
        return layers.Conv2D(count, 3, stride, "same", activation=activation)

    names = list(reversed(latent_sizes))
    x = keras.Input(tuple(event_shape), name="x")
    features = networks.rescaled(x, **seen)
    places: dict[str, _Place] = {}
    found: dict[str, Any] = {}
    sizes = [(event_shape[0], event_shape[1])]
    waiting = len(filters) - len(names)
    for index in range(max(len(filters), len(names))):
        is_new = index < len(filters)
        features = conv(filters[index] if is_new else filters[-1], 2 if is_new else 1)(features)
        if is_new:
            sizes.append((features.shape[1], features.shape[2]))
        if index >= waiting and len(found) < len(names):
            name = names[len(found)]
            found[name] = features
            places[name] = _Place(sizes[-1], features.shape[-1])
    order = list(latent_sizes)
    blocks: dict[str, TopDownBlock] = {}
    for name, below in zip(order, [*order[1:], order[-1]], strict=True):
        place, target = places[name], places[below]
        shape = (*place.size, latent_sizes[name])
        above = (*place.size, place.filters)
        is_first = not blocks
        blocks[name] = TopDownBlock(
            shape,
            kind=kind,
            prior=None if is_first else conv(place.filters),
            posterior=_joined_conv(conv, above, is_first) if kind == "residual" else None,
            network=_conv_below(conv, kind, shape, above, target, activation, is_first),
        )
    last = places[order[-1]]
    state = keras.Input((*last.size, last.filters))
    image = state
    for size in reversed(sizes[: sizes.index(last.size)]):
        image = _grown(image, _Place(size, last.filters), activation)
    return Levels(
        keras.Model(x, found, name="encoder"), blocks, keras.Model(state, image, name="decoder")
    )


def _joined_conv(conv: Any, above: tuple[int, ...], is_first: bool) -> keras.Model:
    """Builds a convolution of [above, features], or of the features of the first level."""
    features = keras.Input(above)
    if is_first:
        return keras.Model(features, conv(above[-1])(features))
    given = keras.Input(above)
    return keras.Model([given, features], conv(above[-1])(layers.Concatenate()([given, features])))


def _conv_below(
    conv: Any,
    kind: Kind,
    latent: tuple[int, ...],
    above: tuple[int, ...],
    target: _Place,
    activation: str,
    is_first: bool,
) -> keras.Model:
    """Builds the network to the state of the next level, in its size and with its filters."""
    z = keras.Input(latent)
    if kind == "ladder" or is_first:
        return keras.Model(z, _grown(conv(above[-1])(z), target, activation))
    given = keras.Input(above)
    inner = conv(above[-1])(layers.Concatenate()([given, z]))
    added = layers.Add()([given, layers.Conv2D(above[-1], 3, padding="same")(inner)])
    if above == (*target.size, target.filters):
        return keras.Model([given, z], added)
    return keras.Model([given, z], _grown(added, target, activation))


def _grown(image: Any, target: _Place, activation: str) -> Any:
    """Doubles an image until it has the size of the target, whose number of filters it gets."""
    doublings = max(0, round(math.log2(max(1.0, target.size[0] / image.shape[1]))))
    if not doublings:
        return layers.Conv2D(target.filters, 3, padding="same", activation=activation)(image)
    for _ in range(doublings):
        image = layers.Conv2DTranspose(target.filters, 3, 2, "same", activation=activation)(image)
    excess = (image.shape[1] - target.size[0], image.shape[2] - target.size[1])
    return layers.Cropping2D(((0, excess[0]), (0, excess[1])))(image) if any(excess) else image
