"""Draws from distributions by inversion: pure functions of uniforms.

A draw uses one uniform, or a few along the last axis, which `keras_vae.random.uniform` supplies;
every function is finite for every normal float32 in (0, 1).
"""

from typing import TYPE_CHECKING

from keras_vae.random.inversion import (
    angles,
    categories,
    continuous,
    counts,
    gammas,
    levels,
    truncated,
)
from keras_vae.random.inversion.angles import *  # noqa: F403
from keras_vae.random.inversion.categories import *  # noqa: F403
from keras_vae.random.inversion.continuous import *  # noqa: F403
from keras_vae.random.inversion.counts import *  # noqa: F403
from keras_vae.random.inversion.gammas import *  # noqa: F403
from keras_vae.random.inversion.levels import *  # noqa: F403
from keras_vae.random.inversion.truncated import *  # noqa: F403

if not TYPE_CHECKING:
    __all__ = [
        *angles.__all__,
        *categories.__all__,
        *continuous.__all__,
        *counts.__all__,
        *gammas.__all__,
        *levels.__all__,
        *truncated.__all__,
    ]
