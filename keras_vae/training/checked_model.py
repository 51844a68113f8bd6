"""Base of the model: methods inherited from Keras check their data or say what to do instead."""

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae.distributions import ConditionalDistribution
from keras_vae.training.chunking import CHUNK, rows_in, spec_of
from keras_vae.training.containers import in_batches, is_stream
from keras_vae.training.data_spec import DataSpec
from keras_vae.training.guard import check_step

__all__ = ["CheckedModel"]

_HOOKS = ("compute_loss", "compute_metrics")
"""Methods that Keras' own training step calls and a VAE's does not."""


class CheckedModel(keras.Model):
    """A Keras model that checks its data in every method that takes data.

    A subclass has `data` and an objective.
    """

    objective: Any

    @property
    def data(self) -> DataSpec:
        """Description of the data that the model accepts."""
        raise NotImplementedError

    def evaluate(
        self, x: Any = None, y: Any = None, *, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """Computes mean loss, elbo, distortion and rate over a data set, by the objective's draws.

        Unless `batch_size` is given, arrays are processed in batches of about 128 MiB; only the
        draws depend on it.
        """
        contract = self.data
        if not kwargs.get("_use_cached_eval_dataset"):
            refuse_targets("evaluate", y)
            (x, y, sample_weight), kwargs["batch_size"] = in_batches(
                contract.weighted(x, sample_weight), kwargs.get("batch_size"), self._rows_at_once()
            )
        with contract.data_errors():
            return super().evaluate(x, y, sample_weight=sample_weight, **kwargs)

    def predict(self, x: Any, **kwargs: Any) -> np.ndarray:
        """Computes decoder means at the posterior means, in batches, [N, *D]; see `reconstruct`.

        Unless `batch_size` is given, arrays are processed in batches of about 128 MiB; the means do
        not depend on it.
        """
        (x, *_), kwargs["batch_size"] = in_batches(
            (self.data.readable(x), None, None),
            kwargs.get("batch_size"),
            self._rows_at_once(),
        )
        return super().predict(x, **kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Makes one step of the optimizer on one batch of arrays, checked as in `fit`.

        Raises:
            DataError: if data lies outside the support, has a wrong shape or is not finite.
            NonFiniteError: if a term of the loss or a weight becomes NaN or infinite.
        """
        if class_weight is not None:
            raise ValueError(
                "train_on_batch was given class_weight, but a VAE has no classes: use "
                "sample_weight."
            )
        batch = self._batch("train_on_batch", x, y, sample_weight)
        logs = super().train_on_batch(*batch, return_dict=True)
        check_step(self, logs)
        return logs if return_dict else self._flatten_metrics_in_order(logs)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Computes loss, elbo, distortion and rate of one batch, checked as in `evaluate`."""
        batch = self._batch("test_on_batch", x, y, sample_weight)
        return super().test_on_batch(*batch, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> np.ndarray:
        """Computes decoder means at the posterior means of one batch of arrays, [B, *D]."""
        return super().predict_on_batch(self.data.arrays(x, in_support=False))

    def _batch(self, method: str, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        refuse_targets(method, y)
        if is_stream(x):
            raise ValueError(f"{method} takes one batch of arrays; got {type(x).__name__}.")
        return self.data.weighted(x, sample_weight)

    def _rows_at_once(self, draws: int | None = None) -> int:
        """Returns the number of examples in a chunk, by default with the objective's draws."""
        if draws is None:
            draws = self.objective.num_samples if self.compiled else 1
        return max(1, rows_in(CHUNK, self) // draws)

    def save(
        self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
    ) -> None:
        """Saves the model as a .keras file, as `keras.Model.save` does.

        An address hf://OWNER/NAME pushes it by `keras_vae.push_to_hub`, whose options apply.

        Raises:
            ValueError: for an HDF5 file, from which Keras cannot load a model of this class.
        """
        if os.fspath(filepath).lower().endswith((".h5", ".hdf5")) or kwargs.get("save_format"):
            raise ValueError(
                f"A VAE is saved as .keras, since Keras cannot load it from other formats; got "
                f'{os.fspath(filepath)!r}. Call save("model.keras"), or for the weights '
                'alone save_weights("x.weights.h5").'
            )
        if os.fspath(filepath).startswith("hf://"):
            importlib.import_module("keras_vae.hub").push_to_hub(self, filepath, **kwargs)
            return
        super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Refuses: Keras would export other signatures than this package, unverified.

        Raises:
            NotImplementedError: always, with the command to use.
        """
        raise NotImplementedError(
            "A VAE has its own export command, which verifies what it writes: call "
            'save("model.keras") and run "keras-vae export model.keras --out DIRECTORY" (also '
            '"python -m export"), for SavedModel and ONNX together.'
        )

    def summary(self, *args: Any, expand_nested: bool = False, **kwargs: Any) -> None:
        """Prints the distributions, with expand_nested=True also the layers of their networks."""
        parts = [layer for layer in self.layers if isinstance(layer, ConditionalDistribution)]
        with _listing_their_layers(parts):
            super().summary(*args, expand_nested=expand_nested, **kwargs)

    def add_loss(self, loss: Any) -> None:
        """Adds a loss in a call, as `keras.Model.add_loss` does, if a train_step may read it.

        Raises:
            TypeError: if the training step is not overridden: it evaluates the distributions and
                does not call the model.
        """
        self._adds_loss = True
        if not self._overrides("train_step"):
            raise TypeError(_refusal(self, "add_loss in call"))
        super().add_loss(loss)

    def refuse_unused_overrides(self) -> None:
        """Refuses methods of a subclass that Keras documents for training and a VAE never calls.

        Raises:
            TypeError: if there is one and the subclass does not define `train_step` either.
        """
        if self._overrides("train_step"):
            return
        if hasattr(type(self), "laws"):
            raise TypeError(
                f"{type(self).__name__} defines laws, which nothing calls any more: override infer."
            )
        for hook in _HOOKS:
            if self._overrides(hook):
                raise TypeError(_refusal(self, hook))
        if self._overrides("call"):
            self._adds_loss = False
            specs = spec_of(self.data.zeros())
            graph = tf.function(lambda x: self(x, training=True), autograph=False)
            with contextlib.suppress(Exception):  # other errors of the call are not checked here
                graph.get_concrete_function(specs)
            if self._adds_loss:
                raise TypeError(_refusal(self, "add_loss in call"))

    def _overrides(self, method: str) -> bool:
        """Tells whether a user's class defines the method."""
        return getattr(type(self), method).__module__.split(".")[0] not in ("keras", "keras_vae")


def refuse_targets(method: str, y: Any) -> None:
    """Refuses targets, which would be ignored.

    Raises:
        ValueError: if there are any.
    """
    if y is not None:
        raise ValueError(
            f"{method} was given targets y, but a VAE models only p(x): call {method}(x). To "
            f"condition on y build it with condition_shape= and call "
            f'{method}({{"x": x, "condition": y}}).'
        )


def _refusal(model: keras.Model, what: str) -> str:
    return (
        f"{type(model).__name__} defines {what}, which the training of a VAE never uses: its "
        "loss is the objective. Write a subclass of keras_vae.Objective with the term in it, or "
        "override train_step."
    )


@contextlib.contextmanager
def _listing_their_layers(parts: list[ConditionalDistribution]) -> Iterator[None]:
    """Shows networks and heads to the summary of Keras, which looks for `layers`.

    It is not a property of the class, because Keras would also save the layers under this name.
    """
    for part in parts:
        object.__setattr__(part, "layers", part._layers)
    try:
        yield
    finally:
        for part in parts:
            object.__delattr__(part, "layers")
