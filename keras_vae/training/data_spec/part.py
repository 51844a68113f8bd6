"""One named array of the data: its shape, its support and what stands for absent entries."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_vae.distributions.supports import DataError, Support

__all__ = ["Part"]


@dataclass(frozen=True)
class Part:
    """One named array of the data.

    Attributes:
        shape: shape of one example.
        support: where its values may lie; None for any finite number.
        owner: name of its distribution, for messages.
        missing: whether entries may be absent, which are NaN. A variable of several numbers, such
            as a one-hot vector, is absent as a whole.
    """

    shape: tuple[int, ...]
    support: Support | None = None
    owner: str = ""
    missing: bool = False

    def mask_of(self, value: tf.Tensor) -> tuple[tf.Tensor | None, np.ndarray | float]:
        """Returns where a batch [B, *shape] is present, and what stands for its absent entries.

        The mask has one boolean for each variable; it is None if no entry may be absent.
        """
        if not self.missing or self.support is None:
            return None, 0.0
        present = tf.logical_not(tf.math.is_nan(value))
        axes = list(range(-self.support.event_dim, 0))
        return tf.reduce_all(present, axis=axes) if axes else present, self.filler

    @property
    def filler(self) -> np.ndarray | float:
        """A value of the support that stands for an absent variable, of a shape to broadcast."""
        if self.support is None:
            return 0.0
        if not self.support.event_dim:
            return self.support.inside
        filler = np.zeros(self.shape[len(self.shape) - self.support.event_dim :], np.float32)
        filler.flat[0] = self.support.inside
        return filler

    def filled(self, array: np.ndarray, name: str) -> np.ndarray:
        """Returns an array whose absent variables hold a value of the support, for its check.

        Raises:
            DataError: if a variable of several numbers is absent in some of them.
        """
        if array.dtype.kind != "f" or self.support is None:
            return array
        absent = np.isnan(array)
        if not absent.any():
            return array
        if self.support.event_dim:
            axes = tuple(range(-self.support.event_dim, 0))
            whole = absent.all(axis=axes, keepdims=True)
            if (torn := absent.any(axis=axes, keepdims=True) & ~whole).any():
                raise DataError(
                    f"{name} holds {self.support.description}, each of which is present or absent "
                    f"as a whole; that of example {int(np.argwhere(torn)[0][0])} is NaN in some "
                    "entries only. Set all of its entries to NaN, or none."
                )
            absent = np.broadcast_to(whole, array.shape)
        return np.where(absent, np.asarray(self.filler, array.dtype), array)
