"""The SavedModel in TensorFlow alone: Keras and TensorFlow Probability cannot be imported here."""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from export.runtimes.python.runner import Call, main

__all__ = ["BLOCKED", "Blocker", "block", "load"]

BLOCKED = frozenset({"keras", "tf_keras", "tensorflow_probability", "keras_vae"})
"""Packages that an artifact must load without."""


class Blocker(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finder and loader that refuses the packages in `BLOCKED`, installed or not.

    TensorFlow looks where Keras lies when it is imported, so finding is allowed, and finds nothing.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Blocks a name with an empty module; leaves every other to the next finder."""
        return ModuleSpec(name, self) if name.partition(".")[0] in BLOCKED else None

    def exec_module(self, module: ModuleType) -> None:
        """Refuses to import.

        Raises:
            ModuleNotFoundError: always.
        """
        name = module.__name__
        raise ModuleNotFoundError(f"{name} is blocked in this process", name=name)


def block() -> None:
    """Makes the packages in `BLOCKED` impossible to import from here on.

    Raises:
        RuntimeError: if one of them is already imported.
    """
    if early := sorted(BLOCKED & sys.modules.keys()):
        raise RuntimeError(f"{', '.join(early)} was imported before it could be blocked")
    sys.meta_path.insert(0, Blocker())


def load(artifact: Path, signature: str) -> Call:
    """Loads a signature of the SavedModel."""
    import tensorflow as tf

    if artifact not in _loaded:
        _loaded[artifact] = tf.saved_model.load(str(artifact))
    function = _loaded[artifact].signatures[signature]

    def call(inputs: dict[str, np.ndarray], outputs: tuple[str, ...]) -> list[np.ndarray]:
        results = function(**{name: tf.constant(value) for name, value in inputs.items()})
        return [results[name].numpy() for name in outputs]

    return call


_loaded: dict[Path, Any] = {}


if __name__ == "__main__":
    block()
    main(load)
