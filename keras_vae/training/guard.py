"""Guard of `fit`: stops a training at once, before anything is saved, if it is not finite."""

from typing import Any

import keras
import numpy as np

__all__ = ["NonFiniteError", "NonFiniteGuard", "check_step", "saves_within_epochs"]


class NonFiniteError(FloatingPointError):
    """Error raised when a term of the loss, or a weight, becomes NaN or infinite.

    Example:
        >>> issubclass(NonFiniteError, FloatingPointError)
        True
    """


class NonFiniteGuard(keras.callbacks.Callback):
    """Callback that raises `NonFiniteError` with the step and the terms that are not finite.

    `fit` calls it before every other callback, so none of them saves a broken model: the files of
    an earlier epoch stay the last good state.

    Args:
        each_step: whether to check the weights after every step instead of every epoch, for
            callbacks that save within epochs.
    """

    def __init__(self, *, each_step: bool = False) -> None:
        super().__init__()
        self.each_step = each_step

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remembers the epoch."""
        self._epoch = epoch
        self._last_batch = -1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks the running means, which stay non-finite after one bad term."""
        logs = logs or {}
        if terms := _broken_terms(logs):
            first, last = self._last_batch + 2, min(batch + 1, self.params["steps"] or batch + 1)
            steps = f"step {last}" if first >= last else f"one of steps {first} to {last}"
            raise NonFiniteError(
                f"The {' and the '.join(terms)} became {logs[terms[0]]} in {steps} of epoch "
                f"{self._epoch + 1}; training stopped and nothing was saved since. Lower the "
                "learning rate, clip gradients (clipnorm=), or bound the scales of the model."
            )
        self._last_batch = batch
        if self.each_step:
            _check_weights(self.model, f"in step {batch + 1} of epoch {self._epoch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks validation, and the weights, which a last bad gradient may have broken."""
        _check_weights(self.model, f"at the end of epoch {epoch + 1}")
        for name, value in (logs or {}).items():
            if name.startswith("val_") and not np.isfinite(value):
                raise NonFiniteError(
                    f"{name} is {value} after epoch {epoch + 1}, though the training loss was "
                    "finite; training stopped and nothing was saved since. Look for validation "
                    "data unlike the training data, or bound the scales of the model."
                )


def check_step(model: keras.Model, logs: dict[str, Any]) -> None:
    """Checks the terms and the weights after a single step.

    Raises:
        NonFiniteError: if one of them is NaN or infinite.
    """
    if terms := _broken_terms(logs):
        raise NonFiniteError(
            f"The {' and the '.join(terms)} became {logs[terms[0]]} in this step, and the weights "
            "with it. Load the last good ones; lower the learning rate, clip gradients "
            "(clipnorm=), or bound the scales of the model."
        )
    _check_weights(model, "in this step")


def _broken_terms(logs: dict[str, Any]) -> list[str]:
    """Lists the terms of the loss that are not finite, or the loss if all of them are finite."""
    if np.isfinite(logs["loss"]):
        return []
    return [name for name in ("distortion", "rate") if not np.isfinite(logs[name])] or ["loss"]


def _check_weights(model: keras.Model, moment: str) -> None:
    for weight in model.weights:
        if not np.isfinite(weight.numpy()).all():
            raise NonFiniteError(
                f"The weight {weight.path} became NaN or infinite {moment}, though the loss "
                "was finite; training stopped and nothing was saved since. Lower the learning "
                "rate or clip gradients (clipnorm=)."
            )


def saves_within_epochs(callback: keras.callbacks.Callback) -> bool:
    """Tells whether a callback, such as `BackupAndRestore(save_freq=100)`, saves within epochs."""
    return getattr(callback, "save_freq", "epoch") != "epoch"
