"""Causal networks over steps that also run one step at a time, for autoregressive decoders."""

from typing import Any

import keras
from keras import ops

from keras_vae.networks.sequences import (
    PositionedSteps,
    SequenceKind,
    check_kind,
    step_network,
)
from keras_vae.networks.steps import padded, whole_blocks

__all__ = ["CausalSteps"]


@keras.saving.register_keras_serializable(package="keras_vae")
class CausalSteps(keras.layers.Layer):
    """Features of each step of sequences, [B, T, width], from the steps up to it.

    A call computes those of a whole sequence at once; `start` and `step` compute the same features
    one step after the other. Recurrent layers keep their states between steps. The others keep the
    steps so far, and run on all of them again.

    Args:
        kind: "recurrent", "convolution" or "attention"; see `networks.sequences.step_network`.
        width: features of each step.
        depth: number of layers.
        num_heads: heads of attention.
        activation: activation inside the blocks.

    Raises:
        ValueError: if the kind is unknown, or the heads do not divide the width.

    Example:
        >>> x = keras.random.normal([2, 5, 3], seed=0)
        >>> layer = CausalSteps("recurrent", width=4)
        >>> whole = layer(x)
        >>> state = layer.start(2)
        >>> for index in range(5):
        ...     features, state = layer.step(x[:, index], index, state)
        >>> bool(ops.all(ops.abs(features - whole[:, -1]) < 1e-6))
        True
    """

    def __init__(
        self,
        kind: SequenceKind = "recurrent",
        width: int = 64,
        depth: int = 1,
        num_heads: int = 4,
        activation: str = "gelu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_kind(kind, width, num_heads)
        self.kind, self.width, self.depth = kind, width, depth
        self.num_heads, self.activation = num_heads, activation

    def build(self, input_shape: Any) -> None:
        """Creates the layers for sequences [B, T, n] of a fixed number of steps."""
        _, self._count, self._size = input_shape
        if self.kind == "recurrent":
            self.recurrent = [
                keras.layers.GRU(self.width, return_sequences=True, dtype=self.dtype_policy)
                for _ in range(self.depth)
            ]
            for index, layer in enumerate(self.recurrent):
                layer.build((None, self._count, self.width if index else self._size))
        else:
            policy = keras.config.dtype_policy()
            keras.config.set_dtype_policy(self.dtype_policy)
            try:
                self.network = self._make_network()
            finally:
                keras.config.set_dtype_policy(policy)
        self.built = True

    @property
    def _steps(self) -> int:
        """Number of steps of the network, a multiple of 16."""
        return whole_blocks(self._count)

    def _make_network(self) -> keras.Model:
        x = keras.Input((self._steps, self._size))
        features = PositionedSteps()(x) if self.kind == "attention" else x
        features = step_network(
            features,
            self.kind,
            self.width,
            self.depth,
            causal=True,
            num_heads=self.num_heads,
            activation=self.activation,
        )
        return keras.Model(x, features)

    def call(self, x: Any, training: bool = False) -> Any:
        """Returns the features of sequences [B, T, n]."""
        if self.kind != "recurrent":
            x = padded(x, 1, self._steps - self._count)
            return self.network(x, training=training)[:, : self._count]
        for layer in self.recurrent:
            x = layer(x)
        return x

    def start(self, size: Any) -> list[Any]:
        """Returns the state before the first step of `size` sequences."""
        if self.kind == "recurrent":
            return [ops.zeros((size, self.width), self.compute_dtype) for _ in self.recurrent]
        return [ops.zeros((size, self._count, self._size), self.compute_dtype)]

    def step(self, x: Any, index: Any, state: list[Any]) -> tuple[Any, list[Any]]:
        """Returns the features [B, width] of a step, and the state after it.

        Args:
            x: the step, [B, n].
            index: which step it is, from 0 on.
            state: the state before it.
        """
        x = ops.cast(x, self.compute_dtype)
        if self.kind == "recurrent":
            after = []
            for layer, before in zip(self.recurrent, state, strict=True):
                x, _ = layer.cell(x, [before])
                after.append(x)
            return x, after
        here = (ops.arange(self._count) == index)[:, None]
        (steps,) = state
        steps = ops.where(here, x[:, None], steps)
        features = self(steps)
        return ops.sum(ops.where(here, features, ops.zeros_like(features)), axis=1), [steps]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Returns the shape of the features."""
        return (*input_shape[:2], self.width)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        names = ("kind", "width", "depth", "num_heads", "activation")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
