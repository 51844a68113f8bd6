"""Objectives: what `fit` minimises, with the bound it stands for reported beside it.

Every objective returns its loss and, unweighted, the distortion and the rate of the same draws, so
`elbo = -(distortion + rate)` is logged as a bound in nats whatever is optimised.
"""

import abc
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.estimators import Gradient, Laws

__all__ = ["Objective", "Terms"]


class Terms(NamedTuple):
    """What an objective says of each example, [B], in nats.

    Attributes:
        loss: what is minimised.
        distortion: estimate of -E_q log p(x | z).
        rate: KL(q(z | x) || p(z)), in closed form or estimated.
    """

    loss: tf.Tensor
    distortion: tf.Tensor
    rate: tf.Tensor


class Objective(keras.losses.Loss, abc.ABC):
    """A value to minimise, as a function of the three laws of a batch.

    Variables that a schedule moves (`beta`, `capacity`) are kept by name in `schedulable`; they are
    saved and restored with the model.

    Args:
        num_samples: draws z per example, S.
        gradient: the estimator, see `keras_vae.estimators`.
    """

    _gradients: tuple[Gradient, ...] = ("pathwise",)

    def __init__(self, num_samples: int, gradient: Gradient, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_samples = as_count("num_samples", num_samples, least=1)
        if gradient not in self._gradients:
            raise ValueError(
                f"Invalid value for argument `gradient`. {type(self).__name__} expects one of "
                f"{', '.join(map(repr, self._gradients))}. Received: gradient={gradient!r}"
            )
        self.gradient = gradient
        self.schedulable: dict[str, keras.Variable] = {}

    def check(self, laws: Laws) -> None:
        """Hook of `compile`: refuses laws of which the objective needs what they do not have."""

    @abc.abstractmethod
    def terms(self, laws: Laws, seed: tf.Tensor) -> Terms:
        """Loss, distortion and rate of each example, from one set of draws.

        Args:
            laws: prior, posterior and likelihood of the batch.
            seed: int32 [2], for the draws.
        """

    def save_own_variables(self, store: Any) -> None:
        """Writes the scheduled variables."""
        for name, variable in self.schedulable.items():
            store[name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads the scheduled variables; those that the file lacks keep their values."""
        known = set(store.keys())
        for name, variable in self.schedulable.items():
            if name in known:
                variable.assign(store[name])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"num_samples": self.num_samples, "gradient": self.gradient, "name": self.name}

    def _schedulable(self, name: str, value: float) -> keras.Variable:
        variable = keras.Variable(value, trainable=False, dtype="float64", name=name)
        self.schedulable[name] = variable
        return variable
