"""Simple models of the same data, for comparison with a number of nats."""

import contextlib
import math
from collections.abc import Iterator

import numpy as np

from keras_vae.data.preparation import Preparation
from keras_vae.distributions.supports import Support
from keras_vae.linear_gaussian import LinearGaussian
from keras_vae.spelling import counted

__all__ = ["log_probs"]

Condition = tuple[np.ndarray, np.ndarray] | None

_NORMALS = "independent normals"
_BOUND = " (dequantised, lower bound)"
_LEAST_NOISE = 1e-9  # of the variance; smaller values are rounding errors of exact dependence
_MOST_FEATURES = 1024
_MOST_LEVELS = 1024
_MOST_MIXTURE_FEATURES = 128
_MOST_MIXTURE_EXAMPLES = 10_000


def log_probs(
    train_raw: np.ndarray,
    test_raw: np.ndarray,
    preparation: Preparation,
    support: Support,
    latent_size: int,
    seed: int = 0,
    condition: Condition = None,
) -> dict[str, np.ndarray]:
    """Computes log-probabilities or densities of test examples under simple models, in nats.

    All have the same quantity as the log p(x) of the model, in the units of the file; the data
    decides which models apply. Real data: independent normal entries, probabilistic PCA and a
    Gaussian mixture. Categories and binary data: independent entries with the frequencies of the
    training set. Whole numbers: independent entries, and the densities of the dequantised numbers,
    which are lower bounds on their log-probability (Theis, van den Oord and Bethge 2016,
    arXiv:1511.01844). If some columns are whole and others real, the densities are bounds in the
    same sense.

    Of texts the models are tokens that are independent, and tokens given the one before. Of time
    series with holes there is only one: independent normal entries of what is present.

    With a condition, each class has frequencies or means of its own, and all classes share one
    covariance. The average over all examples counts as one further example of each class, which
    keeps those of a rare class near it.

    Args:
        train_raw: training data as in the file [N, ...].
        test_raw: test data as in the file [M, ...].
        preparation: how the model's training prepared them.
        support: support of the model's likelihood. If it does not say whether it is discrete,
            nothing is compared.
        latent_size: latents of probabilistic PCA, at most D - 1.
        seed: seed of the preparation, of dequantisation and of the mixture.
        condition: one-hot class of each training example [N, K] and test example [M, K], for
            models that are given it.

    Returns:
        Arrays [M] by the name of the model.
    """
    if preparation.vocabulary is not None:
        return _of_tokens(train_raw, test_raw, preparation.categories)
    train, test = (preparation.array(raw, seed) for raw in (train_raw, test_raw))
    if np.isnan(train).any() or np.isnan(test).any():
        return _of_present(train, test, preparation, support)
    size = math.prod(train.shape[1:])
    if not (preparation.is_dequantised or support.is_discrete):
        if support.is_discrete is None:
            return {}
        densities = _densities(train, test, latent_size, seed, condition)
        bound = _BOUND if preparation.is_mixed else ""
        offset = preparation.nats_offset * size
        return {f"{name}{bound}": value + offset for name, value in densities.items()}
    independent = f"independent {'pixels' if train_raw.ndim == 4 else 'variables'}"
    if support.event_dim:
        return _of_integers(independent, train.argmax(axis=-1), test.argmax(axis=-1), condition)
    if preparation.is_dequantised:
        models = _of_integers(independent, train_raw, test_raw, condition)
        offset = preparation.nats_offset * size
    else:
        models = _of_integers(independent, train, test, condition)
        low, high = min(train.min(), test.min()), max(train.max(), test.max())
        if high - low <= 1.0:
            return models
        scale, random = float(high - low) + 1.0, np.random.default_rng(seed)
        train, test = ((x - low + random.random(x.shape)) / scale for x in (train, test))
        offset = -math.log(scale) * size
    densities = _densities(train, test, latent_size, seed, condition)
    if models:
        densities.pop(_NORMALS, None)  # the frequencies are a better model
    bounds = {f"{name}{_BOUND}": v + offset for name, v in densities.items()}
    return {**models, **bounds}


def _of_tokens(train: np.ndarray, test: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Computes log-probabilities of texts by how often tokens, and pairs of tokens, occur.

    Each token counts 1 / K of an occurrence more, and the frequencies of pairs are mixed with those
    of single tokens, which count as one occurrence.

    Args:
        train, test: numbers of tokens [N, T], NaN after the end of a text, which is token 0.
        count: number of different tokens K.
    """
    pairs, tokens = np.zeros([count, count]), np.full(count, 1.0 / count)
    for before, after in _pairs(train):
        np.add.at(pairs, (before, after), 1.0)
        np.add.at(tokens, after, 1.0)
    alone = tokens / tokens.sum()
    given = (pairs + alone) / (pairs.sum(axis=1, keepdims=True) + 1.0)
    found = np.array(
        [
            [np.log(alone[after]).sum(), np.log(given[before, after]).sum()]
            for before, after in _pairs(test)
        ]
    )
    names = ("independent tokens", "tokens given the one before")
    return dict(zip(names, found.T, strict=True))


def _pairs(texts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the tokens before, and the tokens of each text; an end stands before the first."""
    for text in texts:
        after = text[~np.isnan(text)].astype(np.int64)
        yield np.concatenate([[0], after[:-1]]), after


def _of_present(
    train: np.ndarray, test: np.ndarray, preparation: Preparation, support: Support
) -> dict[str, np.ndarray]:
    """Computes log-densities of what is present in series, as independent normal entries.

    All steps share one distribution of each entry.
    """
    if not preparation.is_dequantised and support.is_discrete is not False:
        return {}
    steps = train.reshape(-1, train.shape[-1]).astype(np.float64)
    mean, spread = np.nanmean(steps, axis=0), np.nanstd(steps, axis=0)
    if not (spread > 0.0).all():
        return {}
    standard = (test.astype(np.float64) - mean) / spread
    offset = -np.log(preparation.spread) if preparation.spread else preparation.nats_offset
    nats = offset - 0.5 * standard**2 - np.log(spread) - 0.5 * np.log(2.0 * np.pi)
    is_bound = preparation.is_dequantised or preparation.is_mixed
    return {f"{_NORMALS}{_BOUND if is_bound else ''}": np.nansum(nats, axis=(1, 2))}


def _of_integers(
    name: str, train: np.ndarray, test: np.ndarray, condition: Condition
) -> dict[str, np.ndarray]:
    """Computes log-probabilities of independent whole numbers by their training frequencies.

    All pixels of images share one range; each column of a table has its own.
    """
    pixels = train.ndim == 4
    train, test = (x.reshape(len(x), -1) for x in (train, test))
    lows = np.minimum(train.min(axis=0), test.min(axis=0))
    highs = np.maximum(train.max(axis=0), test.max(axis=0))
    if pixels:
        lows[:], highs[:] = lows.min(), highs.max()
    sizes = (highs.astype(np.float64) - lows).astype(np.int64) + 1
    if sizes.max() > _MOST_LEVELS:
        return {}
    total = np.zeros(len(test))
    kinds, given = ((), None) if condition is None else (condition[0].T > 0, condition[1].argmax(1))
    for column, (low, levels) in enumerate(zip(lows, sizes, strict=True)):
        seen, new = (
            np.subtract(x[:, column], low, dtype=np.float64).astype(np.int64) for x in (train, test)
        )
        shares = _shares(np.bincount(seen, minlength=levels), 1.0 / levels)
        if given is None:
            total += np.log(shares)[new]
        else:
            cells = np.stack([np.bincount(seen[kind], minlength=levels) for kind in kinds])
            total += np.log(_shares(cells, shares))[given, new]
    return {name: total}


def _shares(counts: np.ndarray, before: np.ndarray | float) -> np.ndarray:
    """Returns frequencies along the last axis; `before` counts as one occurrence more."""
    return (counts + before) / (counts.sum(axis=-1, keepdims=True) + 1.0)


def _densities(
    train: np.ndarray, test: np.ndarray, latent_size: int, seed: int, condition: Condition
) -> dict[str, np.ndarray]:
    """Computes log-densities of simple models of real data."""
    train, test = (x.reshape(len(x), -1).astype(np.float64, copy=False) for x in (train, test))
    if condition is not None:
        often = condition[0].sum(axis=0, dtype=np.float64)[:, None]
        means = (condition[0].T @ train + train.mean(axis=0)) / (often + 1.0)
        train, test = train - condition[0] @ means, test - condition[1] @ means
    size = train.shape[1]
    models = {}
    spread = train.std(axis=0)
    if (spread > 0.0).all():
        standard = (test - train.mean(axis=0)) / spread
        models[_NORMALS] = -(0.5 * standard**2 + np.log(spread) + 0.5 * np.log(2.0 * np.pi)).sum(
            axis=1
        )
    if 1 < size <= _MOST_FEATURES and len(train) > size:
        latents = min(latent_size, size - 1)
        name = f"probabilistic PCA, {counted(latents, 'latent')}"
        with contextlib.suppress(ValueError):  # the data lies in fewer dimensions
            ppca = LinearGaussian.fit(train, latents)
            if ppca.scale**2 > _LEAST_NOISE * train.var(axis=0).mean():
                models[name] = ppca.log_prob(test).numpy()
    if size <= _MOST_MIXTURE_FEATURES and len(train) >= 200:
        from sklearn.mixture import GaussianMixture

        mixture = GaussianMixture(10, reg_covar=1e-3, random_state=seed)
        mixture.fit(train[:_MOST_MIXTURE_EXAMPLES])
        models["Gaussian mixture, 10 components"] = mixture.score_samples(test)
    return models
