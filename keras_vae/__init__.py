"""Variational autoencoders in Keras 3 whose every number is what its name says."""

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

__version__ = "0.1.0"


def _is_command() -> bool:
    """Whether this process runs a command, which imports what it needs when it needs it.

    Python sets argv[0] to "-m" while it looks for the module of `python -m`, then to its path.
    """
    path = PurePath(sys.argv[0] if sys.argv else "")
    module = path.name == "__main__.py" and path.parent.name in ("keras_vae", "export", "serving")
    return module or str(path) == "-m" or path.stem == "keras-vae"


if TYPE_CHECKING or not _is_command():
    from keras_vae.api import *  # noqa: F403
