"""An artifact that several test files read and none changes, exported once in all processes."""

import fcntl
import os
from pathlib import Path

import keras
import pytest
from models import tiny_vae

from export import pipeline
from keras_vae.model import VAE


def published_vae() -> VAE:
    """Makes the model that is published."""
    keras.utils.set_random_seed(1)
    return tiny_vae("bernoulli", (4, 4, 1))


def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Publishes `digits/1`, a model of 4 x 4 binary images with 2 latents."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    target = root / "published" / "digits"
    with (root / "published.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "1").is_dir():
            pipeline.export_model(published_vae(), target)
    return target / "1"
