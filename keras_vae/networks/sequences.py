"""Networks for sequences: recurrent, convolutional and of causal or masked attention.

Steps that are absent, NaN in all entries, are passed over. Sequences of different lengths are
padded with such steps at their end, and neither features nor gradients depend on how many. Inside,
sequences have a multiple of 16 steps, so that no kernel ends in the middle of one.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_vae.networks.dense import with_condition
from keras_vae.networks.steps import (
    StepDense,
    padded,
    scores,
    sum_over_steps,
    weighted_sums,
    whole_blocks,
)

__all__ = [
    "KINDS",
    "AttentionOverSteps",
    "MeanOverSteps",
    "NeighbouringSteps",
    "ObservedSteps",
    "PositionedSteps",
    "SequenceKind",
    "check_kind",
    "sequence_decoder",
    "sequence_encoder",
    "step_network",
]

SequenceKind = Literal["recurrent", "convolution", "attention"]
KINDS = ("recurrent", "convolution", "attention")

_POSITIONS = 16
_LONGEST_PERIOD = 10000.0

_register = keras.saving.register_keras_serializable(package="keras_vae")


@_register
class ObservedSteps(keras.layers.Layer):
    """Sequences [B, T, ...] with NaN as features [B, T', 2 D] and a mask [B, T'].

    T' is the next multiple of 16; steps that are added are absent. The features are the values, 0
    where they are absent, and which of them are present. The mask is true at steps of which any
    entry is present.

    Args:
        offset, scale: values are first mapped to (x - offset) * scale.
        logarithm: whether they are then mapped to log(1 + x), which suits counts.

    Example:
        >>> import numpy as np
        >>> features, mask = ObservedSteps()(np.array([[[2.0], [np.nan]]], "float32"))
        >>> features[:, :2].numpy().tolist(), mask[:, :2].numpy().tolist()
        ([[[2.0, 1.0], [0.0, 0.0]]], [[True, False]])
    """

    def __init__(
        self, offset: float = 0.0, scale: float = 1.0, logarithm: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.offset, self.scale, self.logarithm = offset, scale, logarithm

    def call(self, x: Any) -> Any:
        """Returns the features and the mask."""
        steps = x.shape[1]
        x = ops.reshape(x, (-1, steps, math.prod(x.shape[2:])))
        x = ops.pad(x, [[0, 0], [0, whole_blocks(steps) - steps], [0, 0]], constant_values=math.nan)
        present = ops.logical_not(ops.isnan(x))
        x = (ops.where(present, x, self.offset) - self.offset) * self.scale
        x = ops.log1p(x) if self.logarithm else x
        features = ops.concatenate([x, ops.cast(present, x.dtype)], axis=-1)
        return features, ops.any(present, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        own = {"offset": self.offset, "scale": self.scale, "logarithm": self.logarithm}
        return {**super().get_config(), **own}


@_register
class PositionedSteps(keras.layers.Layer):
    """Vectors [B, n] at each step beside the step's position, or sequences [B, T, n] beside it.

    The position of step t is 16 sines and cosines of t, of periods from 6 to 20 000 steps. Source:
    Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762.

    Args:
        length: number of steps; None takes that of the sequences.

    Example:
        >>> PositionedSteps(7)(keras.ops.zeros([2, 3])).shape
        TensorShape([2, 7, 19])
    """

    def __init__(self, length: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = length

    def call(self, x: Any) -> Any:
        """Returns the vectors joined to positions, [B, T, n + 16]."""
        length = self.length or x.shape[1]
        if len(x.shape) == 2:
            x = ops.repeat(x[:, None], length, axis=1)
        half = _POSITIONS // 2
        rates = [_LONGEST_PERIOD ** (-index / half) for index in range(half)]
        table = [
            [wave(step * rate) for wave in (math.sin, math.cos) for rate in rates]
            for step in range(length)
        ]
        positions = ops.cast(ops.convert_to_tensor(table, "float32"), x.dtype)
        size = ops.shape(x)[0]
        spread = ops.broadcast_to(positions[None], (size, length, _POSITIONS))
        return ops.concatenate([x, spread], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "length": self.length}


@_register
class NeighbouringSteps(keras.layers.Layer):
    """Sequences [B, T, n] beside their steps at other times, [B, T, len(offsets) n].

    A Dense layer on the result is a convolution over time, dilated by the distance of the offsets.
    Steps before the first and after the last are 0.

    Args:
        offsets: which steps stand beside step t, such as (-2, -1, 0) for t - 2, t - 1 and t.

    Example:
        >>> x = keras.ops.convert_to_tensor([[[1.0], [2.0], [3.0]]])
        >>> NeighbouringSteps((-1, 0))(x).numpy().tolist()
        [[[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]]
    """

    def __init__(self, offsets: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offsets = tuple(offsets)

    def call(self, x: Any) -> Any:
        """Returns the steps side by side."""
        steps = x.shape[1]
        before, after = max(0, -min(self.offsets)), max(0, max(self.offsets))
        padded = ops.pad(x, [[0, 0], [before, after], [0, 0]])
        starts = [before + offset for offset in self.offsets]
        return ops.concatenate([padded[:, start : start + steps] for start in starts], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "offsets": list(self.offsets)}


@_register
class AttentionOverSteps(keras.layers.Layer):
    """Attention between the steps of sequences, from queries, keys and values [B, T, 3 n].

    Args:
        num_heads: number of heads, which divides n.
        causal: whether a step attends to itself and earlier steps only.

    Call arguments:
        inputs: queries, keys and values of each step side by side.
        mask: booleans [B, T]; no step attends to those where it is false. None attends to all.

    Example:
        >>> AttentionOverSteps(2)(keras.ops.zeros([5, 7, 12])).shape
        TensorShape([5, 7, 4])
    """

    def __init__(self, num_heads: int = 4, causal: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads, self.causal = num_heads, causal
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None, training: bool = False) -> Any:
        """Returns the mean of the values, weighted by attention, [B, T, n]."""
        count, width = inputs.shape[1], inputs.shape[2] // 3
        steps = whole_blocks(count)
        inputs = padded(inputs, 1, steps - count)
        size = width // self.num_heads
        parts = ops.split(inputs, 3, axis=-1)
        heads = [ops.reshape(part, (-1, steps, self.num_heads, size)) for part in parts]
        queries, keys, values = (ops.moveaxis(part, 2, 1) for part in heads)
        logits = scores(queries / math.sqrt(size), keys, training)
        places = ops.arange(steps)
        seen = (places < count)[None, None, None]
        if self.causal:
            seen = (places[:, None] >= places)[None, None]
        if mask is not None:
            absent = padded(1.0 - ops.cast(mask, "float32"), 1, steps - count)
            seen = ops.logical_and(seen, (absent < 0.5)[:, None, None])
        lowest = ops.cast(-1e9 if logits.dtype != "float16" else -6e4, logits.dtype)
        logits = ops.where(seen, logits, lowest)
        shifted = logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
        weights = ops.where(seen, ops.exp(shifted), ops.zeros_like(logits))
        beside = ops.concatenate([values, ops.ones_like(values[..., :1])], axis=-1)
        sums = weighted_sums(weights, beside, training)
        total = sums[..., -1:]
        means = sums[..., :-1] / ops.where(total > 0, total, ops.ones_like(total))
        return ops.reshape(ops.moveaxis(means, 1, 2), (-1, steps, width))[:, :count]

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Returns None: the mask is passed to each layer by name."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {**super().get_config(), "num_heads": self.num_heads, "causal": self.causal}


@_register
class MeanOverSteps(keras.layers.Layer):
    """Mean over the steps where a mask is true, [B, n]; 0 if it is true nowhere.

    Example:
        >>> import numpy as np
        >>> MeanOverSteps()([np.array([[[2.0], [9.0]]]), np.array([[True, False]])]).numpy()
        array([[2.]], dtype=float32)
    """

    def call(self, inputs: Any) -> Any:
        """Returns the means of sequences [B, T, n], given beside their masks [B, T]."""
        x, mask = inputs
        present = ops.cast(mask, x.dtype)[..., None]
        total = sum_over_steps(ops.where(present > 0, x, ops.zeros_like(x)))
        return total / ops.maximum(sum_over_steps(present), 1.0)


def _norm(x: Any) -> Any:
    """Normalises each step; the layer after it has the weights."""
    return keras.layers.LayerNormalization(center=False, scale=False)(x)


def step_network(
    features: Any,
    kind: SequenceKind,
    width: int,
    depth: int,
    *,
    causal: bool,
    mask: Any = None,
    num_heads: int = 4,
    activation: str = "gelu",
) -> Any:
    """Applies layers over steps to features [B, T, n] and returns features [B, T, width].

    Args:
        features: symbolic sequences.
        kind: recurrent: GRU layers; convolution: kernels of 3 steps, dilated by 1, 2, 4, ... in
            residual blocks; attention: transformer blocks.
        width: features of each step.
        depth: number of layers.
        causal: whether step t depends on steps up to t alone.
        mask: symbolic booleans [B, T]: steps that others may depend on. None is all.
        num_heads: heads of attention.
        activation: activation inside the blocks.

    Raises:
        ValueError: if the kind is unknown, or the heads do not divide the width.
    """
    check_kind(kind, width, num_heads)
    if kind == "recurrent":
        for _ in range(depth):
            layer = _recurrent(width, causal)
            features = layer(features) if mask is None else layer(features, mask=mask)
        return features
    features = StepDense(width)(features)
    for index in range(depth):
        if kind == "attention":
            projected = StepDense(3 * width)(_norm(features))
            attention = AttentionOverSteps(num_heads, causal)
            mixed = attention(projected) if mask is None else attention(projected, mask=mask)
            features = features + StepDense(width)(mixed)
            inner = StepDense(2 * width, activation=activation)(_norm(features))
        else:
            near = 2**index
            offsets = (-2 * near, -near, 0) if causal else (-near, 0, near)
            seen = _norm(features)
            if mask is not None:
                seen = seen * ops.cast(mask, features.dtype)[..., None]
            inner = StepDense(width, activation=activation)(NeighbouringSteps(offsets)(seen))
        features = features + StepDense(width)(inner)
    return features


def check_kind(kind: str, width: int, num_heads: int) -> None:
    """Refuses an unknown kind of layers, and heads that do not divide the width.

    Raises:
        ValueError: if it is so.
    """
    if kind not in KINDS:
        raise ValueError(
            f"Invalid value for argument `kind`. Expected one of {', '.join(KINDS)}. Received: "
            f"kind={kind!r}"
        )
    if kind == "attention" and width % num_heads:
        raise ValueError(
            f"Expected a width that the number of heads divides; got width={width} and "
            f"num_heads={num_heads}."
        )


def _recurrent(width: int, causal: bool, whole: bool = True) -> keras.layers.Layer:
    """Returns a GRU layer; in both directions unless it is causal."""
    if causal:
        return keras.layers.GRU(width, return_sequences=whole)
    half = keras.layers.GRU(-(-width // 2), return_sequences=whole)
    return keras.layers.Bidirectional(half)


def sequence_encoder(
    input_shape: Sequence[int],
    kind: SequenceKind = "recurrent",
    *,
    width: int = 64,
    depth: int = 2,
    num_heads: int = 4,
    activation: str = "gelu",
    condition_shape: Sequence[int] | None = None,
    offset: float = 0.0,
    scale: float = 1.0,
    logarithm: bool = False,
    name: str | None = None,
) -> keras.Model:
    """Builds an encoder of sequences with absent steps and entries, which are NaN: [B, width].

    Features are those of the last states of recurrent layers in both directions, or the mean over
    the steps that are present. They do not depend on the number of absent steps at the end.

    Args:
        input_shape: shape of one sequence, (steps, ...).
        kind: "recurrent", "convolution" or "attention"; see `step_network`.
        width: features of each step.
        depth: number of layers.
        num_heads: heads of attention.
        activation: activation inside the blocks.
        condition_shape: shape of one condition, which is joined to the features.
        offset, scale: the input is first mapped to (x - offset) * scale.
        logarithm: whether it is then mapped to log(1 + x), which suits counts.
        name: name of the model.

    Raises:
        ValueError: if the kind is unknown, the input is no sequence, or there is no layer.

    Example:
        >>> sequence_encoder((24, 3), "attention", width=8)(keras.ops.ones([5, 24, 3])).shape
        TensorShape([5, 8])
    """
    _check(input_shape, depth)
    x = keras.Input(tuple(input_shape), name="x")
    features, mask = ObservedSteps(offset, scale, logarithm)(x)
    if kind == "recurrent":
        if depth > 1:
            features = step_network(features, kind, width, depth - 1, causal=False, mask=mask)
        pooled = _recurrent(width, False, whole=False)(features, mask=mask)
    else:
        if kind == "attention":
            features = PositionedSteps()(features)
        features = step_network(
            features,
            kind,
            width,
            depth,
            causal=False,
            mask=mask,
            num_heads=num_heads,
            activation=activation,
        )
        pooled = MeanOverSteps()([_norm(features), mask])
    inputs, pooled = with_condition(x, pooled, condition_shape)
    pooled = keras.layers.Dense(width, activation=activation)(pooled)
    return keras.Model(inputs, pooled, name=name)


def sequence_decoder(
    latent_size: int,
    output_shape: Sequence[int],
    kind: SequenceKind = "recurrent",
    *,
    width: int = 64,
    depth: int = 2,
    num_heads: int = 4,
    activation: str = "gelu",
    condition_shape: Sequence[int] | None = None,
    name: str | None = None,
) -> keras.Model:
    """Builds a decoder from z to features of each step, [B, steps, width].

    Every layer is causal, so the features of step t are the same for any number of steps.

    Args:
        latent_size: number of latents.
        output_shape: shape of one sequence, (steps, ...).
        kind: "recurrent", "convolution" or "attention"; see `step_network`.
        width: features of each step.
        depth: number of layers.
        num_heads: heads of attention.
        activation: activation inside the blocks.
        condition_shape: shape of one condition, which is joined to z.
        name: name of the model.

    Raises:
        ValueError: if the kind is unknown, the output is no sequence, or there is no layer.

    Example:
        >>> sequence_decoder(2, (24, 3), "convolution", width=8)(keras.ops.ones([5, 2])).shape
        TensorShape([5, 24, 8])
    """
    _check(output_shape, depth)
    z = keras.Input((latent_size,), name="z")
    inputs, features = with_condition(z, z, condition_shape)
    steps = output_shape[0]
    features = PositionedSteps(whole_blocks(steps))(features)
    features = StepDense(width, activation=activation)(features)
    features = step_network(
        features,
        kind,
        width,
        depth,
        causal=True,
        num_heads=num_heads,
        activation=activation,
    )
    return keras.Model(inputs, features[:, :steps], name=name)


def _check(shape: Sequence[int], depth: int) -> None:
    """Refuses what is no sequence, and no layers."""
    if len(shape) < 2:
        raise ValueError(
            f"Expected sequences of shape (steps, entries), such as (24, 1); got {tuple(shape)}. "
            "For other data use mlp."
        )
    if depth < 1:
        raise ValueError(f"Expected at least one layer; got depth={depth}.")
