"""Absent entries given the present ones: imputations, and probabilities of classes.

The draws z_k of q(z given x_O), x_O being what is present, have self-normalised importance weights

    W_k = w_k / sum_j w_j,     w_k = p(x_O, z_k) / q(z_k given x_O)

so that sum_k W_k f(z_k) tends to E[f(z) given x_O] of the model itself as K grows, however good q
is. Sources: Mattei and Frellsen (2019), MIWAE, arXiv:1812.02633; Rubin (1988), Using the SIR
algorithm to simulate posterior distributions.

Axes: K weighted draws, M draws of the absent entries, B examples. `posterior_draws`, `resampled`
and `absent_draws` are functions of tensors alone, for signatures; `impute` and `classify` take any
data.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_vae import random
from keras_vae.arguments import as_count, is_real
from keras_vae.data.content import listed
from keras_vae.data.frames import frame_names, is_frame
from keras_vae.distributions.noise import from_rows, numbered
from keras_vae.distributions.tfp import tfd
from keras_vae.spelling import meant
from keras_vae.training.data_spec import Part

__all__ = [
    "Classification",
    "Imputation",
    "PosteriorDraws",
    "absent_draws",
    "class_probabilities",
    "classify",
    "expected",
    "filled_column",
    "impute",
    "posterior_draws",
    "resampled",
    "single_values",
    "statistic_of",
]

ABSENT = "absent_"
"""Prefix of the name of a latent that holds the absent entries of a part, which it also draws."""

_FEWEST_EFFECTIVE = 10.0
_TOLERATED = 0.05

Statistic = Callable[[tfd.Distribution], tf.Tensor]


class PosteriorDraws(NamedTuple):
    """Weighted draws from the posterior given what is present.

    Attributes:
        latents: draws z_k by name, [K, B, ...].
        weights: self-normalised importance weights, [K, B], whose sum over the draws is 1.
        ess: effective sample size 1 / sum W^2, [B], from 1 to K.
        expectations: weighted means of statistics of the parts by name, [B, ...].
    """

    latents: dict[str, tf.Tensor]
    weights: tf.Tensor
    ess: tf.Tensor
    expectations: dict[str, tf.Tensor]


class Imputation(NamedTuple):
    """Data whose absent entries are imputed. Present entries are those that were given.

    The fields that hold data are arrays, or dicts of arrays by part; for a data frame, all but
    `mean` are such frames.

    Attributes:
        values: single imputation, [N, *D], which lies in the support: the mean E[x | present] of
            real numbers, the whole number nearest to it of counts and levels, and the most probable
            class of binary, categorical and ordinal variables.
        mean: E[x | present] of the model's numbers, [N, *D]: of binary variables the probability of
            1, of one-hot variables the probability of each class.
        ess: effective sample size of the weights, [N]; NaN for an example that is complete.
        draws: draws from p(absent | present), [M, N, *D], or a list of M data frames; None unless
            they were asked for.
        lower: lower end of an interval for each entry, from the draws, [N, *D]; None without draws.
            NaN for absent one-hot variables, which have no order.
        upper: its upper end.
    """

    values: Any
    mean: Any
    ess: np.ndarray
    draws: Any = None
    lower: Any = None
    upper: Any = None


class Classification(NamedTuple):
    """Probabilities of the classes of a part given everything else that is present.

    Attributes:
        probabilities: p(part = class | the rest), [N, K]; of a part with several variables
            [N, *D, K].
        ess: effective sample size of the importance weights, [N]. Where the part is classified by
            a network instead, there are no weights, and it is NaN.
    """

    probabilities: np.ndarray
    ess: np.ndarray


def posterior_draws(
    model: Any,
    x: Any,
    noise: Mapping[str, Any],
    statistics: Mapping[str, Statistic] | None = None,
    at_once: int | None = None,
) -> PosteriorDraws:
    """Draws from q(z | present), weighs the draws, and averages statistics of the parts.

    Args:
        model: latent variable model.
        x: tensors, as `model.infer` takes them; absent entries are NaN.
        noise: noise of the latents, [K, B, ...].
        statistics: by part, a function of p(x | z_k), [K, B, ...] in batch shape, to a tensor
            [K, B, ...].
        at_once: number of draws that are decoded at once; None is all of them. Results depend on
            it by rounding only.
    """
    inference = model.infer(x)
    statistics = statistics or {}

    def at(some: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        trace = inference.trace(some)
        latents = {name: latent.value for name, latent in trace.latents.items()}
        found = {
            name: latents[ABSENT + name]
            if ABSENT + name in latents
            else of(trace.observations[name].p)
            for name, of in statistics.items()
        }
        return trace.log_weights(), latents, found

    count = tf.nest.flatten(noise)[0].shape[0]
    if at_once is None or count is None or count <= at_once:
        log_w, latents, found = at(noise)
        weights = tf.nn.softmax(log_w, axis=0)
        sums = {name: _weighted(values, weights) for name, values in found.items()}
    else:
        log_w, latents, sums = _in_turns(at, noise, count, at_once)
        weights = tf.nn.softmax(log_w, axis=0)
    ess = 1.0 / tf.reduce_sum(weights**2, axis=0)
    return PosteriorDraws(latents, weights, ess, sums)


def _in_turns(
    at: Callable[..., Any], noise: Any, count: int, at_once: int
) -> tuple[tf.Tensor, dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Returns log-weights [K, B], latents, and weighted means, from some draws after the others."""
    first = tf.nest.map_structure(lambda one: one[:at_once], noise)
    log_w, latents, found = at(first)
    top = tf.reduce_max(log_w, axis=0)
    weights = tf.exp(log_w - top)
    total = tf.reduce_sum(weights, axis=0)
    sums = {name: _weighted(values, weights) for name, values in found.items()}
    turns = -(-count // at_once)
    kept = [
        tf.TensorArray(
            each.dtype, turns, infer_shape=False, element_shape=[None, *each.shape[1:]]
        ).write(0, each)
        for each in (log_w, *latents.values())
    ]

    def step(turn: tf.Tensor, top: Any, total: Any, sums: Any, kept: Any) -> tuple[Any, ...]:
        start = turn * at_once
        some = tf.nest.map_structure(lambda one: one[start : start + at_once], noise)
        log_w, latents, found = at(some)
        higher = tf.maximum(top, tf.reduce_max(log_w, axis=0))
        shrink, weights = tf.exp(top - higher), tf.exp(log_w - higher)
        total = total * shrink + tf.reduce_sum(weights, axis=0)
        sums = {
            name: _times(sums[name], shrink) + _weighted(values, weights)
            for name, values in found.items()
        }
        kept = [
            array.write(turn, each)
            for array, each in zip(kept, (log_w, *latents.values()), strict=True)
        ]
        return turn + 1, higher, total, sums, kept

    _, _, total, sums, kept = tf.while_loop(
        lambda turn, *_: turn < turns,
        step,
        (tf.constant(1), top, total, sums, kept),
        parallel_iterations=1,
    )
    log_w, *values = (array.concat() for array in kept)
    means = {name: _times(value, 1.0 / total) for name, value in sums.items()}
    return log_w, dict(zip(latents, values, strict=True)), means


def _times(values: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies by a factor of the first axes; where the factor is 0 so is the product."""
    while factor.shape.rank < values.shape.rank:
        factor = factor[..., tf.newaxis]
    return tf.math.multiply_no_nan(values, factor)


def _weighted(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(_times(values, weights), axis=0)


def resampled(found: PosteriorDraws, u: tf.Tensor) -> dict[str, tf.Tensor]:
    """Draws latents from the posterior, by resampling the weighted draws.

    Args:
        found: weighted draws.
        u: uniform numbers in (0, 1), [M, B]; each picks the first draw at which the sum of the
            weights exceeds it.

    Returns:
        Latents by name, [M, B, ...].
    """
    cumulative = tf.cumsum(found.weights, axis=0)
    passed = cumulative[:-1, tf.newaxis] <= u * cumulative[-1]
    index = tf.transpose(tf.reduce_sum(tf.cast(passed, tf.int32), axis=0))

    def picked(z: tf.Tensor) -> tf.Tensor:
        order = [1, 0, *range(2, z.shape.rank)]
        return tf.transpose(tf.gather(tf.transpose(z, order), index, batch_dims=1), order)

    return {name: picked(z) for name, z in found.latents.items()}


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
    missing = list(model.data.missing)
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


def class_probabilities(part: Part) -> Statistic | None:
    """Returns the function from p(x | z) to the probability of each class, on a new last axis.

    Returns None if the variables of the part do not have finitely many values 0, 1, ... of which
    each is a class. One-hot variables have their classes on their own last axis.
    """
    support = part.support
    if support is None or not support.is_whole:
        return None
    if support.is_one_hot:
        return _mean
    if support.high is None:
        return None
    classes = int(support.high) + 1
    return _of_binary if classes == 2 else lambda p: _of_classes(p, classes)


def _mean(p: tfd.Distribution) -> tf.Tensor:
    return p.mean()


def _of_binary(p: tfd.Distribution) -> tf.Tensor:
    mean = p.mean()
    return tf.stack([1.0 - mean, mean], axis=-1)


def _of_classes(p: tfd.Distribution, classes: int) -> tf.Tensor:
    shape = tf.concat([p.batch_shape_tensor(), p.event_shape_tensor()], 0)
    entries = p.distribution if isinstance(p, tfd.Independent) else p
    values = [
        tf.exp(entries.log_prob(tf.fill(shape, tf.constant(value, p.dtype))))
        for value in range(classes)
    ]
    return tf.stack(values, axis=-1)


def statistic_of(part: Part) -> Statistic:
    """Returns the function from p(x | z) to what the imputation of a part is made of."""
    if part.support is not None and part.support.is_ordinal:
        of_classes = class_probabilities(part)
        if of_classes is not None:
            return of_classes
    return _mean


def expected(part: Part, found: tf.Tensor) -> tf.Tensor:
    """Returns E[x | present] of a part, [B, *D], from the expectation of its statistic."""
    if part.support is None or not part.support.is_ordinal:
        return found
    return tf.reduce_sum(found * tf.range(found.shape[-1], dtype=found.dtype), axis=-1)


def single_values(part: Part, found: tf.Tensor) -> tf.Tensor:
    """Returns the single imputation of a part, [B, *D], from the expectation of its statistic."""
    support = part.support
    if support is None or not support.is_whole:
        return found
    if support.is_one_hot:
        return tf.one_hot(tf.argmax(found, axis=-1), found.shape[-1], dtype=found.dtype)
    if support.is_ordinal:
        return tf.cast(tf.argmax(found, axis=-1), found.dtype)
    if support.high == 1.0:
        return tf.cast(found > 0.5, found.dtype)
    return tf.round(found)


def impute(
    model: Any,
    x: Any,
    num_samples: int = 1000,
    *,
    multiple: int | None = None,
    interval: float = 0.9,
    seed: int | None = None,
) -> Imputation:
    """Imputes the absent entries of data; see `LatentVariableModel.impute`."""
    num_samples = as_count("num_samples", num_samples, least=1)
    multiple = None if multiple is None else as_count("multiple", multiple, least=1)
    if not is_real(interval) or not 0.0 < interval < 1.0:
        raise ValueError(
            "Invalid value for argument `interval`. Expected a probability between 0 and 1. "
            f"Received: interval={interval!r}"
        )
    parts = model.data.missing
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
        _warn(ess[rows], num_samples)
    values, mean = _like(x, model, single, absent), model.one_or_all(mean)
    if draws is None:
        return Imputation(values, mean, ess)
    ends = _ends(model.data.observed, given, absent, draws, interval)
    lower, upper = (_like(x, model, end, absent) for end in ends)
    if not is_frame(x):
        return Imputation(values, mean, ess, model.one_or_all(draws), lower, upper)
    each = [{name: value[k] for name, value in draws.items()} for k in range(multiple or 0)]
    frames = [_like(x, model, one, absent) for one in each]
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


def _like(
    x: Any, model: Any, values: Mapping[str, np.ndarray], absent: Mapping[str, np.ndarray]
) -> Any:
    """Returns data as it came: a data frame with its absent entries filled, a dict or an array."""
    if not is_frame(x):
        return model.one_or_all(values)
    frame = x.to_pandas() if hasattr(x, "to_pandas") else x.copy()
    if not model.data.is_dict:
        own = model.feature_names or frame_names(x) or frame.columns
        columns = dict(zip(own, values["x"].T, strict=True))
        masks = dict(zip(own, absent["x"].T, strict=True))
    else:
        schema = model.data.schema
        single = {name: value for name, value in values.items() if value.shape[1:] == (1,)}
        columns = single if schema is None else schema.decode(values)
        masks = {name: np.all(absent[name], axis=-1) for name in absent if name in columns}
    for name, mask in masks.items():
        found = np.asarray(columns[name]).reshape(len(frame))
        if name not in frame:
            frame[name] = found
        elif mask.any():
            frame[name] = filled_column(frame[name], mask, found[mask])
    return frame


def filled_column(column: Any, mask: np.ndarray, found: Any) -> Any:
    """Returns a column of a data frame with some entries replaced, in its own dtype."""
    filled = column.copy()
    if hasattr(filled, "cat"):
        labels = type(filled)(found).dropna().unique()
        new = [label for label in labels if label not in filled.cat.categories]
        filled = filled.cat.add_categories(new)
    filled[mask] = found
    return filled


def classify(
    model: Any, x: Any, part: str, num_samples: int = 1000, *, seed: int | None = None
) -> Classification:
    """Computes p(part | the rest) of each class; see `LatentVariableModel.classify`."""
    num_samples = as_count("num_samples", num_samples, least=1)
    spec, of_classes = classes_of(model, part)
    given = dict(model.data.by_name(model.data.arrays(_without(model, x, part), in_support=True)))
    count = len(next(iter(given.values())))
    given[part] = np.broadcast_to(np.float32(np.nan), (count, *spec.shape))
    at_once = model._rows_at_once(1)

    def estimates(inputs: Any) -> dict[str, tf.Tensor]:
        x, seeds = inputs
        noise = from_rows(model.noise(), seeds, num_samples, model.float_dtype)
        found = posterior_draws(model, model._cast(x), noise, {part: of_classes}, at_once)
        return {"ess": found.ess, "probabilities": found.expectations[part]}

    found = model._by_rows(
        f"classify {part} {num_samples}",
        estimates,
        [model.data.together(given), model._row_seeds(count, seed)],
        num_samples,
    )
    ess = np.asarray(found["ess"])
    _warn(ess, num_samples)
    return Classification(by_class(spec, np.asarray(found["probabilities"])), ess)


def classes_of(model: Any, part: str) -> tuple[Part, Statistic]:
    """Returns a part that can be classified, and its statistic.

    Raises:
        ValueError: if it is no part of the model, may not be absent, or has no classes.
    """
    observed = model.data.observed
    if part not in observed:
        raise ValueError(
            f"Expected one of the parts {listed(list(observed))} to classify; got {part!r}"
            f"{meant(str(part), observed)}."
        )
    spec = observed[part]
    of_classes = class_probabilities(spec)
    if of_classes is None:
        raise ValueError(
            f"The part {part!r} is a {spec.owner}, which has no finite set of classes: classify a "
            "Bernoulli, Categorical or Ordinal part, or use impute."
        )
    if not spec.missing:
        raise ValueError(
            f"The part {part!r} may not be absent in this model, and its encoder has always seen "
            "it: build its likelihood with missing=True to classify it."
        )
    return spec, of_classes


def by_class(spec: Part, probabilities: np.ndarray) -> np.ndarray:
    """Returns probabilities [N, *D, K] of a part; of a single variable as [N, K]."""
    axes = spec.shape[:-1] if spec.support is not None and spec.support.is_one_hot else spec.shape
    if math.prod(axes) == 1:
        return probabilities.reshape(len(probabilities), -1)
    return probabilities


def _without(model: Any, x: Any, part: str) -> Any:
    """Returns the data without a part, so that whatever it holds is not even checked."""
    if not model.data.is_dict or len(model.data.observed) == 1:
        return x
    if is_frame(x):
        if model.data.schema is not None:
            return x.assign(**{part: None})
        return x[[name for name in x.columns if name != part]]
    if not isinstance(x, Mapping):
        return x
    kept = {name: value for name, value in x.items() if name != part}
    if isinstance(present := kept.get("present"), Mapping) and "present" not in model.data.parts:
        kept["present"] = {name: mask for name, mask in present.items() if name != part}
    return kept


def _warn(ess: np.ndarray, num_samples: int) -> None:
    doubtful = ess < _FEWEST_EFFECTIVE
    if num_samples > _FEWEST_EFFECTIVE and doubtful.mean() > _TOLERATED:
        warnings.warn(
            f"The importance weights of {int(doubtful.sum())} of {len(ess)} examples have an "
            f"effective sample size below {_FEWEST_EFFECTIVE:.0f} (least {ess.min():.1f} of "
            f"{num_samples} draws): what is imputed rests on few draws. Draw more samples, or "
            "train a posterior that is closer, for example with objective=IWAE(20).",
            stacklevel=4,
        )
