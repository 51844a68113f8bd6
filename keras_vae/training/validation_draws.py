"""Draws of the validation within `fit`."""

from typing import Any

import keras
import numpy as np

__all__ = ["ValidationDraws"]

_APART = 2**31
"""Steps between the draws of a training and those of its validation."""


class ValidationDraws(keras.callbacks.Callback):
    """Callback that gives validation draws of its own: training is the same with and without it.

    Args:
        generator: whose state the steps of training and of validation advance.
    """

    def __init__(self, generator: keras.random.SeedGenerator) -> None:
        super().__init__()
        self._state = generator.state

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Goes far ahead of the training."""
        self._before = keras.ops.convert_to_numpy(self._state)
        self._state.assign(self._before + np.array([0, _APART]))

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Goes back to where the training is."""
        self._state.assign(self._before)
