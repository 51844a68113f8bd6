"""What trackers log is what `fit` returns, and they leave `fit` its many steps at once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import assert_same_weights, binary, compiled, tiny_vae
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_vae.training import fast_loop

X = binary(45)
GRAPH = {"run_eagerly": False}


def scalars(folder: Path) -> dict[str, list[float]]:
    """Reads the scalars by epoch in the files of TensorBoard."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if tag.startswith("epoch_")
    }


def test_tensorboard_logs_the_history_in_the_loop(tmp_path: Path) -> None:
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
    models, histories = [], []
    for callbacks in ([], [board]):
        keras.utils.set_random_seed(0)
        vae = compiled(tiny_vae(), **GRAPH, optimizer="adam")
        history = vae.fit(
            X, batch_size=8, epochs=2, validation_data=X[:9], verbose=0, callbacks=callbacks
        )
        models.append(vae)
        histories.append(history.history)
        assert vae._loop is not None
        assert vae._loop._per_call == 6
    assert_same_weights(*models)
    assert histories[0] == histories[1]
    logged = {"": scalars(tmp_path / "train"), "val_": scalars(tmp_path / "validation")}
    for name in ("loss", "elbo", "distortion", "rate"):
        for prefix, found in logged.items():
            values = histories[0][prefix + name]
            np.testing.assert_allclose(found[f"epoch_{name}"], values, rtol=1e-6)  # float32


def test_a_tracker_may_read_all_that_fit_hands_to_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MLflow's autolog does, which wraps `keras.Model.fit` and hashes its data."""
    original, read = keras.Model.fit, []

    def autologged(self: keras.Model, x: tf.data.Dataset, **options: Any) -> Any:
        read.append(sum(1 for _ in x))
        return original(self, x, **options)

    histories = []
    for method in (original, autologged):
        monkeypatch.setattr(keras.Model, "fit", method)
        keras.utils.set_random_seed(0)
        vae = compiled(tiny_vae(), **GRAPH, optimizer="adam")
        histories.append(vae.fit(X, batch_size=8, epochs=3, verbose=0).history)
        assert vae._loop is not None
    assert histories[0] == histories[1]
    assert len(read) == 1


def test_trackers_that_log_epochs_are_known(tmp_path: Path) -> None:
    def tensorboard(**options: object) -> keras.callbacks.Callback:
        return keras.callbacks.TensorBoard(tmp_path, **options)

    class Tracker(keras.callbacks.Callback):
        """A callback with an attribute of those of MLflow and Weights & Biases."""

        def __init__(self, **options: object) -> None:
            super().__init__()
            vars(self).update(vars(SimpleNamespace(**options)))

        def on_batch_end(self, batch: int, logs: object = None) -> None:
            """Logs every few batches, if asked to."""

    for callback, acts in (
        (tensorboard(), False),
        (tensorboard(update_freq=10), True),
        (tensorboard(write_steps_per_second=True), True),
        (tensorboard(profile_batch=(2, 4)), True),
        (Tracker(log_every_epoch=True), False),
        (Tracker(log_every_epoch=False), True),
        (Tracker(logging_batch_wise=False), False),
        (Tracker(), True),
    ):
        assert fast_loop.acts_within_epochs(callback) == acts
