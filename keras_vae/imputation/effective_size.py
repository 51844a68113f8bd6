"""Warning of importance weights that rest on few draws."""

import warnings

import numpy as np

from keras_vae.spelling import counted

__all__ = ["warn_of_few"]

_FEWEST_EFFECTIVE = 10.0
_TOLERATED = 0.05


def warn_of_few(ess: np.ndarray, num_samples: int) -> None:
    """Warns if more than one example in twenty has an effective sample size below 10."""
    doubtful = ess < _FEWEST_EFFECTIVE
    if num_samples > _FEWEST_EFFECTIVE and doubtful.mean() > _TOLERATED:
        warnings.warn(
            f"The importance weights of {int(doubtful.sum())} of {counted(len(ess), 'example')} "
            f"have an effective sample size below {_FEWEST_EFFECTIVE:.0f} (least {ess.min():.1f} "
            f"of {counted(num_samples, 'draw')}): what is imputed rests on few draws. Draw more "
            "samples, or train a posterior that is closer, for example with objective=IWAE(20).",
            stacklevel=4,
        )
