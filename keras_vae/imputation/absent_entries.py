"""Imputation: estimates and draws of the absent entries, and intervals for them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, is_real
from keras_vae.data.frames import is_frame
from keras_vae.distributions.noise import from_rows, numbered
from keras_vae.imputation.containers import like
from keras_vae.imputation.effective_size import warn_of_few
from keras_vae.imputation.posterior_draws import ABSENT, posterior_draws, resampled
from keras_vae.imputation.statistics import expected, single_values, statistic_of
from keras_vae.training.data_spec import Part

__all__ = ["Imputation", "absent_draws", "impute"]


class Imputation(NamedTuple):
    """Data whose absent entries are imputed. Present entries are those that were given.

    The fields that hold data are arrays, or dicts of arrays by part; for a data frame, all but
    `mean` are such frames.

    Attributes:
        values: single imputation, [N, *D], which lies in the support: the mean E[x | present] of
            real numbers, the whole number nearest to it of counts and levels, the median of ordinal
            variables, and the most probable class of binary and categorical ones.
        mean: E[x | present] of the model's numbers, [N, *D]: of binary variables the probability of
            1, of one-hot variables the probability of each class.
        ess: effective sample size of the weights, [N]; NaN for an example that is complete.
        draws: draws from p(absent | present), [M, N, *D], or a list of M data frames; None unless
            they were asked for.
        lower: lower end of an interval for each entry, from the draws, [N, *D]; None without draws.
            NaN for absent one-hot variables, which have no order.
        upper: its upper end.

    Example:
        >>> import keras_vae, pandas as pd
        >>> frame = pd.DataFrame({"age": [20.0, None, 60.5], "sex": ["f", "m", None]})
        >>> vae = keras_vae.table_vae(keras_vae.data.Schema.of(frame), 2, hidden=(8,))
        >>> found = vae.impute(frame, num_samples=10, seed=0)
        >>> found.values.isna().any().tolist(), found.ess.shape
        ([False, False], (3,))
    """

    values: Any
    mean: Any
    ess: np.ndarray
    draws: Any = None
    lower: Any = None
    upper: Any = None


def absent_draws(
    model: Any, x: Any, latents: Mapping[str, tf.Tensor], seeds: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Draws the absent entries given latents; returns all parts, [M, B, *D].

    Args:
        model: latent variable model.
        x: tensors, as `model.infer` takes them; absent entries are NaN.
        latents: latents by name, [M, B, ...]; those named `ABSENT` and a part are its draws.
        seeds: row seeds, int32 [B, 2]. The streams are those of `sample` plus `random.IMPUTED`,
            so data drawn with a seed and imputed with the same seed does not meet its own noise.
    """
    values = model.data.by_name(x)
    sites = model.generate(latents=latents, condition=values.get("condition")).observations
    count = tf.nest.flatten(latents)[0].shape[0]
    noise = tf.nest.map_structure(
        lambda one: replace(one, stream=one.stream + random.IMPUTED),
        numbered({name: site.layer.noise() for name, site in sites.items()}),
    )
    missing = list(model.data.imputable)
    numbers = from_rows({name: noise[name] for name in missing}, seeds, count, model.float_dtype)
    drawn = {
        name: latents[ABSENT + name]
        if ABSENT + name in latents
        else sites[name].draw(numbers[name])
        for name in missing
    }
    return {
        name: tf.where(tf.math.is_nan(value), drawn[name], value)
        if name in missing
        else tf.broadcast_to(value, tf.concat([[count], tf.shape(value)], 0))
        for name, value in values.items()
        if name in sites
    }


def impute(
    model: Any,
    x: Any,
    num_samples: int = 1000,
    *,
    multiple: int | None = None,
    interval: float = 0.9,
    seed: Any = None,
) -> Imputation:
    """Imputes the absent entries of data; see `LatentVariableModel.impute`."""
    num_samples = as_count("num_samples", num_samples, least=1)
    multiple = None if multiple is None else as_count("multiple", multiple, least=1)
    if not is_real(interval) or not 0.0 < interval < 1.0:
        raise ValueError(
            "Invalid value for argument `interval`. Expected a probability between 0 and 1. "
            f"Received: interval={interval!r}"
        )
    parts = model.data.imputable
    if later := [name for name in model.data.missing if name not in parts and not parts]:
        raise ValueError(
            f"{later[0]} is a sequence of which each step depends on those before it; what comes "
            "after its end is not imputed. Draw new sequences with `sample`."
        )
    if not parts:
        raise ValueError(
            "This model allows no absent entries, so there is nothing to impute: build its "
            "likelihood, or some of its parts, with missing=True."
        )
    arrays = model.data.arrays(x, in_support=True)
    given = model.data.by_name(arrays)
    count = len(next(iter(given.values())))
    absent = {name: _absent(given[name]) for name in parts}
    rows = np.flatnonzero(
        np.any([mask.reshape(count, -1).any(axis=1) for mask in absent.values()], axis=0)
    )
    seeds = model._row_seeds(count, seed)
    ess = np.full(count, np.nan, model.float_dtype)
    single = {name: given[name] for name in model.data.observed}
    mean, draws = dict(single), None
    if multiple is not None:
        draws = {name: np.repeat(value[np.newaxis], multiple, 0) for name, value in single.items()}
    if len(rows):
        some = keras.tree.map_structure(lambda part: part[rows], arrays)
        found = model._by_rows(
            f"impute {num_samples} {multiple}",
            _make_impute(model, parts, num_samples, multiple),
            [some, tf.gather(seeds, rows)],
            max(num_samples, multiple or 1),
        )
        ess[rows] = found["ess"]
        for name, mask in absent.items():
            single[name] = _filled(single[name], mask, rows, found["values"][name])
            mean[name] = _filled(mean[name], mask, rows, found["mean"][name])
            for k in range(multiple or 0):
                draws[name][k] = _filled(  # type: ignore[index]
                    given[name], mask, rows, found["draws"][name][:, k]
                )
        warn_of_few(ess[rows], num_samples)
    values, mean = like(x, model, single, absent), model.one_or_all(mean)
    if draws is None:
        return Imputation(values, mean, ess)
    ends = _ends(model.data.observed, given, absent, draws, interval)
    lower, upper = (like(x, model, end, absent) for end in ends)
    if not is_frame(x):
        return Imputation(values, mean, ess, model.one_or_all(draws), lower, upper)
    each = [{name: value[k] for name, value in draws.items()} for k in range(multiple or 0)]
    frames = [like(x, model, one, absent) for one in each]
    return Imputation(values, mean, ess, frames, lower, upper)


def _make_impute(
    model: Any, parts: Mapping[str, Part], num_samples: int, multiple: int | None
) -> Callable[[Any], Any]:
    """Makes the function from rows and their seeds to estimates of their absent entries."""
    statistics = {name: statistic_of(part) for name, part in parts.items()}
    at_once = model._rows_at_once(1)

    def estimates(inputs: Any) -> dict[str, Any]:
        x, seeds = inputs
        x = model._cast(x)
        noise = from_rows(model.noise(), seeds, num_samples, model.float_dtype)
        drawn = posterior_draws(model, x, noise, statistics, at_once)
        found = {
            "ess": drawn.ess,
            "values": {k: single_values(parts[k], v) for k, v in drawn.expectations.items()},
            "mean": {k: expected(parts[k], v) for k, v in drawn.expectations.items()},
        }
        if multiple is not None:
            u = random.uniform(seeds, (multiple,), stream=random.RESAMPLING)
            u = tf.cast(tf.transpose(u), model.float_dtype)
            draws = absent_draws(model, x, resampled(drawn, u), seeds)
            found["draws"] = {
                name: tf.transpose(draws[name], [1, 0, *range(2, draws[name].shape.rank)])
                for name in parts
            }
        return found

    return estimates


def _absent(value: np.ndarray) -> np.ndarray:
    if value.dtype.kind == "f":
        return np.isnan(value)
    return np.zeros(value.shape, bool)


def _filled(value: np.ndarray, mask: np.ndarray, rows: np.ndarray, found: Any) -> np.ndarray:
    """Returns an array whose absent entries are those found for some rows."""
    if not mask.any():
        return value
    filled = np.array(value)
    some = np.asarray(found).astype(value.dtype)
    filled[rows] = np.where(mask[rows], some, value[rows])
    return filled


def _ends(
    parts: Mapping[str, Part],
    given: Mapping[str, np.ndarray],
    absent: Mapping[str, np.ndarray],
    draws: Mapping[str, np.ndarray],
    interval: float,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the ends of the central interval of the draws of each entry, by part.

    The quantile of probability p is the order statistic p (M + 1), between two of them by linear
    interpolation, so that the interval covers a further draw with the probability it is named
    after, if M is large enough. Ends of whole numbers are rounded outwards.
    """
    lower, upper = ({name: value for name, value in given.items() if name in parts} for _ in "lu")
    for name, mask in absent.items():
        if not mask.any():
            continue
        tails = [0.5 * (1.0 - interval), 0.5 * (1.0 + interval)]
        low, high = np.quantile(draws[name], tails, axis=0, method="weibull")
        support = parts[name].support
        if support is not None and support.is_one_hot:
            low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
        elif support is not None and support.is_whole:
            low, high = np.floor(low), np.ceil(high)
        dtype = given[name].dtype
        lower[name] = np.where(mask, low.astype(dtype), given[name])
        upper[name] = np.where(mask, high.astype(dtype), given[name])
    return lower, upper
