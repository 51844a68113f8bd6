"""How a command imports TensorFlow: silently, and with oneDNN."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator, MutableMapping

__all__ = ["ONEDNN", "has_onednn", "load_tensorflow"]

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
"""Environment variable by which TensorFlow computes with oneDNN ("1") or without ("0")."""


def load_tensorflow() -> None:
    """Imports TensorFlow without the messages its libraries write at start, unless it fails."""
    choose(os.environ)
    with _quiet_standard_error():
        import keras
        import tensorflow as tf

        keras.utils.disable_interactive_logging()
        tf.constant(0)


def choose(environment: MutableMapping[str, str]) -> None:
    """Sets the variables that TensorFlow and Keras read when they are imported.

    A variable that is set already keeps its value.
    """
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    environment.setdefault("KERAS_BACKEND", "tensorflow")
    if has_onednn():
        environment.setdefault(ONEDNN, "1")


def has_onednn() -> bool:
    """Tells whether TensorFlow is built with oneDNN for this kind of machine.

    That is so on Linux and Windows with an x86-64 processor.
    """
    return platform.system() in ("Linux", "Windows") and platform.machine() in ("x86_64", "AMD64")


@contextlib.contextmanager
def _quiet_standard_error() -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
