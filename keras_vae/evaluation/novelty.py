"""Scores of novelty: how little an example looks like what a model was trained on.

Larger is always more novel. Every score that is a difference of log-probabilities is in nats.
"""

import bz2
import lzma
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from keras_vae import random
from keras_vae.evaluation.inference_gap import best_elbos
from keras_vae.evaluation.marginal import log_marginal
from keras_vae.model import VAE

__all__ = [
    "compressed_bits",
    "ensemble_score",
    "input_complexity",
    "likelihood_ratio",
    "likelihood_regret",
    "mutated",
    "typicality",
]

Compressor = Literal["zlib", "bz2", "lzma"]

_LEVELS = 256
_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": lambda raw: zlib.compress(raw, 9),
    "bz2": lambda raw: bz2.compress(raw, 9),
    "lzma": lambda raw: lzma.compress(raw, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}]),
}


def likelihood_regret(
    vae: VAE,
    x: Any,
    *,
    steps: int = 200,
    num_samples: int = 32,
    seed: int = 0,
    memory: int = 256 * 2**20,
    progress: bool | None = None,
) -> np.ndarray:
    """Computes max_q ELBO(x; q) - ELBO(x; encoder), [N], in nats, at least 0.

    It is the share of the gap that `bound_gap` calls amortisation: what is lost because the encoder
    was not trained on this x. q is climbed within the family of the model's posterior, so the score
    is a lower bound on the regret. The cost is steps x num_samples gradients of the decoder per
    example. Source: Xiao, Yan and Amit (2020), Likelihood regret, arXiv:2003.02977.

    Args:
        vae: a model whose posterior is isotropic, diagonal or full normal.
        x: data [N, *D], or {"x": ..., "condition": ...}.
        steps: number of Adam steps.
        num_samples: draws per step.
        seed: integer, for all draws.
        memory: approximate memory to use, in bytes.
        progress: whether to show the time left; None shows it in a terminal.

    Raises:
        DataError: if x lies outside the support of the likelihood.
        ValueError: if the posterior is of another kind or an argument is out of range.

    Example:
        >>> import keras_vae
        >>> vae = keras_vae.LinearGaussian([[1.0]], [0.0], 0.5**0.5).vae()
        >>> likelihood_regret(vae, [[1.0]], steps=20).round(2)  # its encoder is the best one
        array([0.])
    """
    elbo, best = best_elbos(
        vae,
        x,
        "likelihood_regret",
        steps=steps,
        num_samples=num_samples,
        seed=seed,
        memory=memory,
        progress=progress,
    )
    return best - elbo


def likelihood_ratio(
    vae: VAE,
    background: VAE,
    x: Any,
    *,
    num_samples: int = 500,
    seed: int = 0,
    memory: int = 256 * 2**20,
    progress: bool | None = None,
) -> np.ndarray:
    """Computes log p_background(x) - log p(x), [N], in nats, both by importance sampling.

    What both models know, such as how much of an image is black, drops out. The background model is
    trained like the other one, on `mutated` data. Source: Ren et al. (2019), Likelihood ratios for
    out-of-distribution detection, arXiv:1906.02845.

    Args:
        vae: the model.
        background: a model of the same quantity, of data in which the meaning is destroyed.
        x: data [N, *D], or {"x": ..., "condition": ...}.
        num_samples: importance samples per example and model.
        seed: integer, for the draws of both.
        memory: approximate memory to use, in bytes.
        progress: whether to show the time left; None shows it in a terminal.

    Raises:
        DataError: if x lies outside the support of a likelihood.
        ValueError: if the models have other parts, or one has a density and the other a
            probability.

    Warns:
        UserWarning: as `log_marginal`.

    Example:
        >>> import keras_vae
        >>> narrow = keras_vae.LinearGaussian([[1.0]], [0.0], 1.0).vae()
        >>> wide = keras_vae.LinearGaussian([[3.0]], [0.0], 1.0).vae()
        >>> likelihood_ratio(narrow, wide, [[0.0], [9.0]], num_samples=100) > 0.0
        array([False,  True])
    """
    own, other = (
        {
            name: part.support and part.support.is_discrete
            for name, part in model.data.observed.items()
        }
        for model in (vae, background)
    )
    if own != other:
        raise ValueError(
            "Expected two models of the same parts and quantities: the ratio of a density and a "
            "probability depends on the unit of the data. Give the background model the "
            "likelihoods of the other one."
        )
    log_prob = [
        log_marginal(
            model, x, num_samples=num_samples, seed=seed, memory=memory, progress=progress
        ).value
        for model in (vae, background)
    ]
    return log_prob[1] - log_prob[0]


def mutated(x: Any, rate: float, *, values: Sequence[float] | None = None, seed: int) -> np.ndarray:
    """Replaces each entry of x with probability `rate`, to train a background model.

    Args:
        x: data [N, *D].
        rate: probability; Ren et al. (2019) choose it between 0.1 and 0.3.
        values: values to replace by, all equally likely, as in their paper; None takes the entry of
            another row at the same place, which leaves each entry's own distribution as it is.
        seed: integer.

    Raises:
        ValueError: if the rate does not lie in (0, 1].

    Example:
        >>> mutated(np.zeros((1, 8)), 0.5, values=(1.0,), seed=0)
        array([[0., 1., 1., 1., 0., 0., 0., 0.]])
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"Expected a rate above 0 and at most 1; got {rate!r}.")
    x = np.asarray(x)
    rng = np.random.default_rng(random.as_seed(seed))
    is_new = rng.random(x.shape) < rate
    if values is None:
        rows = rng.integers(len(x), size=x.shape)
        other = np.take_along_axis(x, rows, axis=0)
    else:
        other = rng.choice(np.asarray(values, x.dtype), size=x.shape)
    return np.where(is_new, other, x)


def compressed_bits(x: Any, compressor: Compressor = "zlib") -> np.ndarray:
    """Computes the size of each example when a general compressor has packed it, [N], in bits.

    Args:
        x: data [N, *D]: integers from 0 to 255 or booleans, one byte each, or floats from 0 to 1,
            which are rounded to 256 levels.
        compressor: "zlib", "bz2" or "lzma", each at its highest setting.

    Raises:
        ValueError: if the compressor is unknown or x has other values.

    Example:
        >>> compressed_bits(np.zeros((1, 784), np.uint8))
        array([128])
    """
    if compressor not in _COMPRESSORS:
        raise ValueError(
            f"Invalid value for argument `compressor`. Expected one of {', '.join(_COMPRESSORS)}. "
            f"Received: compressor={compressor!r}"
        )
    pack = _COMPRESSORS[compressor]
    return np.array([8 * len(pack(row.tobytes())) for row in _bytes(np.asarray(x))])


def _bytes(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f" and x.size and x.min() >= 0.0 and x.max() <= 1.0:
        return np.round(x * (_LEVELS - 1)).astype(np.uint8)
    if x.dtype.kind in "biu" and (not x.size or (x.min() >= 0 and x.max() < _LEVELS)):
        return x.astype(np.uint8)
    raise ValueError(
        "Expected floats from 0 to 1 or integers from 0 to 255, which are bytes to a compressor; "
        f"got {x.dtype} from {np.min(x, initial=math.inf)} to {np.max(x, initial=-math.inf)}. "
        "Scale the data, with one scale for all sets that are compared."
    )


def input_complexity(log_prob: Any, x: Any, compressor: Compressor = "zlib") -> np.ndarray:
    """Computes -log2 p(x) - compressed size of x, [N], in bits.

    A compressor stands for the likelihood under a model that knows nothing of the data: an example
    is novel if the model needs many more bits than that. Only differences between examples mean
    something, unless log p(x) is that of the integers that are compressed. Source: Serra et al.
    (2020), Input complexity and out-of-distribution detection, arXiv:1909.11480.

    Args:
        log_prob: log p(x) or a bound on it, [N], in nats.
        x: data [N, *D] for `compressed_bits`.
        compressor: see `compressed_bits`.

    Example:
        >>> x = np.zeros((1, 784), np.uint8)  # 128 bits of zlib
        >>> input_complexity([-100.0 * np.log(2.0)], x)
        array([-28.])
    """
    return -np.asarray(log_prob, np.float64) / math.log(2.0) - compressed_bits(x, compressor)


def typicality(log_prob: Any, normal_log_prob: Any) -> np.ndarray:
    """Computes |log p(x) - mean of log p over normal examples|, [N], in nats.

    An example that is far more likely than normal ones is as untypical as one that is far less
    likely. Source: Nalisnick, Matsukawa, Teh and Lakshminarayanan (2019), Detecting
    out-of-distribution inputs to deep generative models using typicality, arXiv:1906.02994, for
    batches of one.

    Args:
        log_prob: log p(x) or a bound on it, [N].
        normal_log_prob: that of held-out normal examples, [M]; their mean is minus the entropy.

    Example:
        >>> typicality([-3.0, -5.0, -1.0], [-2.0, -4.0])
        array([0., 2., 2.])
    """
    entropy = -np.mean(np.asarray(normal_log_prob, np.float64))
    return np.abs(np.asarray(log_prob, np.float64) + entropy)


def ensemble_score(log_probs: Any) -> np.ndarray:
    """Computes variance - mean of log p(x) over an ensemble, [N].

    Its negative is what Watanabe's information criterion takes for log p(x): models that were
    trained from different seeds disagree where they saw no data. The variance is in nats squared.
    Source: Choi, Jang and Alemi (2018), WAIC, but why?, arXiv:1810.01392.

    Args:
        log_probs: log p(x) of each of M >= 2 models, [M, N], in nats.

    Raises:
        ValueError: if it does not have this shape.

    Example:
        >>> ensemble_score([[-1.0, -1.0], [-1.0, -3.0]])
        array([1., 4.])
    """
    found = np.asarray(log_probs, np.float64)
    if found.ndim != 2 or len(found) < 2:
        raise ValueError(
            f"Expected log p(x) of at least two models, [M, N]; got shape {list(found.shape)}."
        )
    return found.var(axis=0, ddof=1) - found.mean(axis=0)
