"""Classification: probabilities of the classes of a part given everything else."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_vae.arguments import as_count
from keras_vae.data.content import listed
from keras_vae.data.frames import is_frame
from keras_vae.distributions.noise import from_rows
from keras_vae.imputation.effective_size import warn_of_few
from keras_vae.imputation.posterior_draws import posterior_draws
from keras_vae.imputation.statistics import Statistic, class_probabilities
from keras_vae.spelling import meant
from keras_vae.training.data_spec import Part

__all__ = ["Classification", "by_class", "classes_of", "classify"]


class Classification(NamedTuple):
    """Probabilities of the classes of a part given everything else that is present.

    Attributes:
        probabilities: p(part = class | the rest), [N, K]; of a part with several variables
            [N, *D, K].
        ess: effective sample size of the importance weights, [N]. Where the part is classified by
            a network instead, there are no weights, and it is NaN.

    Example:
        >>> import keras_vae, pandas as pd
        >>> frame = pd.DataFrame({"age": [20.0, 40.5, 60.0], "sex": ["f", "m", None]})
        >>> vae = keras_vae.table_vae(keras_vae.data.Schema.of(frame), 2, hidden=(8,))
        >>> found = vae.classify(frame, part="sex", num_samples=10, seed=0)
        >>> found.probabilities.shape, found.ess.shape
        ((3, 2), (3,))
    """

    probabilities: np.ndarray
    ess: np.ndarray


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
    warn_of_few(ess, num_samples)
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
    if spec.at_end:
        raise ValueError(
            f"Each step of {part!r} depends on those before it, so its classes have no "
            "probabilities given z alone. Compare the `elbo` of the sequences instead."
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
