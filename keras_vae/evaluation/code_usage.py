"""Use of the codes of a discrete latent on a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vae.distributions.codes import CodePosterior
from keras_vae.evaluation._batches import batches
from keras_vae.model import VAE

__all__ = ["CodeUsage", "code_usage"]

_ROWS = 1024


@dataclass(frozen=True)
class CodeUsage:
    """Counts of each code in a data set.

    Attributes:
        shape: shape of the codes of one example.
        num_codes: number K of different codes.
        frequencies: share of each code among all positions and examples, [stages, K].
        used: number of codes that occur; of several stages, the mean.
        perplexity: exp of the entropy of the frequencies, from 1 to K; likewise.

    Example:
        >>> found = CodeUsage((3,), 4, np.array([[0.5, 0.5, 0.0, 0.0]]), used=2.0, perplexity=2.0)
        >>> f"{found.used:g} of {found.num_codes} codes occur"
        '2 of 4 codes occur'
    """

    shape: tuple[int, ...]
    num_codes: int
    frequencies: np.ndarray
    used: float
    perplexity: float


def code_usage(vae: VAE, x: Any) -> CodeUsage:
    """Counts the most probable codes of a whole data set.

    The perplexity of a batch depends on its size; this one is that of all examples.

    Args:
        vae: a model whose latents are codes.
        x: data.

    Raises:
        DataError: if x does not fit the model.
        ValueError: if the latents are not codes.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.vq_vae(5, codes=8, code_size=2, count=3, hidden=(4,))
        >>> code_usage(vae, np.zeros([10, 5])).shape
        (3,)
    """
    codes = vae.posterior
    if not isinstance(codes, CodePosterior):
        raise ValueError(
            f"code_usage counts codes, and the latents of {type(codes).__name__} are continuous: "
            "choose evaluation.diagnose."
        )
    counts = np.zeros((codes.stages, codes.num_codes))
    for _, batch in batches(vae.data.arrays(x, in_support=False), _ROWS):
        found = codes.side_by_side(vae.encode(batch).codes).numpy().reshape(-1, codes.stages)
        for stage, column in enumerate(found.T):
            counts[stage] += np.bincount(column, minlength=codes.num_codes)
    shares = counts / counts.sum(axis=1, keepdims=True)
    logs = np.log(shares, where=shares > 0.0, out=np.zeros_like(shares))
    return CodeUsage(
        shape=codes.codes_shape,
        num_codes=codes.num_codes,
        frequencies=shares,
        used=float((counts > 0).sum(axis=1).mean()),
        perplexity=float(np.exp(-(shares * logs).sum(axis=1)).mean()),
    )
