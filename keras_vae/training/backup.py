"""Backup: a state from which a killed training continues, complete at any moment."""

from __future__ import annotations

import errno
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_vae import replicas

__all__ = ["Backup", "leftovers", "write_atomically"]

_NAME = re.compile(r"epoch-(\d+)\.weights\.h5")
_TEMPORARY = ".keras_vae-"


class Backup(keras.callbacks.Callback):
    """Backup of a training after each epoch, with which the next `fit` continues by itself.

    A training that was killed and started again by the same program ends with the weights of an
    uninterrupted one: `fit` restores weights, optimizer, scheduled variables and random states
    before the first batch, and continues the order of the examples. Other callbacks start afresh,
    including the patience of early stopping.

    A file is written beside the last one and replaces it by one rename. On several machines the
    chief writes and every worker reads, so all of them must see the directory.

    Args:
        directory: directory of the backups; created if it does not exist. The callback's own files
            are removed from it at the end of the training.
        keep: whether to keep the last backup after the training.

    Example:
        >>> import keras_vae, numpy as np
        >>> folder = tempfile.mkdtemp()
        >>> vae = keras_vae.mlp_vae(5, 2, "normal", hidden=(8,))
        >>> vae.compile()
        >>> x = np.zeros([64, 5], "float32")
        >>> _ = vae.fit(x, epochs=2, verbose=0, callbacks=[Backup(folder, keep=True)])
        >>> os.listdir(folder)
        ['epoch-2.weights.h5']
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: bool = False) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.keep = keep

    def restore(self, model: Any) -> int:
        """Restores the last backup into a model, and returns its number of epochs, or 0.

        Raises:
            ValueError: if the backup belongs to another model, or workers see different ones.
        """
        epochs = max(self._found(), default=0)
        if not replicas.agree(model.strategy, epochs):
            raise ValueError(
                f"Workers see different backups in {self.directory}, here that of epoch {epochs}: "
                "give all of them a directory on a shared file system."
            )
        if epochs:
            path = self._path(epochs)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # Keras leaves out what the file does not hold
                    model.load_weights(path)
            except (OSError, KeyError, ValueError, UserWarning) as error:
                raise ValueError(
                    f"{path} is not a backup of this model. Remove it to train from the "
                    f"beginning: {error}"
                ) from error
        return epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the state, and removes the previous one."""
        if not replicas.is_chief(self.model.strategy):
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        with write_atomically(self._path(epoch + 1)) as temporary:
            self.model.save_weights(temporary, overwrite=True)
        self._remove(but=epoch + 1)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Removes the last backup, unless it is to be kept."""
        if not self.keep and replicas.is_chief(self.model.strategy):
            self._remove()

    def _found(self) -> list[int]:
        if not self.directory.is_dir():
            return []
        names = map(_NAME.fullmatch, os.listdir(self.directory))
        return [int(match[1]) for match in names if match]

    def _path(self, epochs: int) -> Path:
        return self.directory / f"epoch-{epochs}.weights.h5"

    def _remove(self, but: int = 0) -> None:
        for epochs in self._found():
            if epochs != but:
                self._path(epochs).unlink(missing_ok=True)


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it if the block succeeds.

    Raises:
        OSError: if the directory cannot be written.
    """
    if not path.parent.is_dir():
        reason = "there is no such directory; make it first"
        raise FileNotFoundError(errno.ENOENT, reason, str(path.parent))
    suffix = "".join(path.suffixes[-2:])
    handle, name = tempfile.mkstemp(
        prefix=f"{_TEMPORARY}{path.stem}-", suffix=suffix, dir=path.parent
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


def leftovers(directory: Path) -> list[Path]:
    """Lists the temporary files that killed processes left in a directory."""
    return [path for path in directory.glob(f"{_TEMPORARY}*") if path.is_file()]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
