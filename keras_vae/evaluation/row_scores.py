"""Row scores: the bound of each row of a table, and what each of its columns adds to it."""

from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_vae.data.frames import is_frame
from keras_vae.distributions.noise import from_rows
from keras_vae.estimators import rates_of, sum_of
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.observed import log_probs

__all__ = ["row_scores", "terms_of_rows"]


def row_scores(vae: LatentVariableModel, x: Any, *, seed: int = 0) -> pd.DataFrame:
    """Splits the ELBO of each row into one term for each part of the data, and the rate.

    A low term of a column, beside those of other rows, marks a value that does not fit the rest of
    its row. From one draw of z for each row, that of `vae.elbo` with the same seed:

        elbo = sum over the parts that are present of log p(part) - rate

    Args:
        vae: a model of named parts, such as the columns of a table, or of a single x.
        x: data, as `vae.elbo` takes it.
        seed: 32-bit integer for the draws.

    Returns:
        A data frame with the index of x, if it has one. Its columns are `elbo`, `rate` and, for
        each part, `log p(PART)`, which is NaN where the part is absent. All are nats, in the units
        of the table if the model has a schema, otherwise in those of the model's numbers.

    Raises:
        DataError: if x lies outside the support of the likelihood.
        TypeError: if the model sums a latent out, so that no single draw has these terms.

    Example:
        >>> import keras_vae
        >>> parts = {name: keras_vae.Normal(1, missing=True) for name in ("age", "height")}
        >>> vae = keras_vae.VAE(
        ...     prior=keras_vae.StandardNormal(2),
        ...     likelihood=keras_vae.Parts(parts),
        ...     posterior=keras_vae.DiagonalNormal(2, network=keras_vae.PartsEncoder()),
        ... )
        >>> scores = row_scores(vae, {"age": [0.5, 9.0], "height": [1.0, np.nan]})
        >>> list(scores), int(scores["log p(height)"].isna().sum())
        (['elbo', 'rate', 'log p(age)', 'log p(height)'], 1)
    """
    if vae.summed_out is not None:
        raise TypeError(
            f"row_scores needs one draw of every latent; {type(vae).__name__} sums "
            f"{vae.summed_out!r} out. `elbo` has the sum."
        )
    arrays = vae.data.arrays(x, in_support=True)
    by_part, rate = terms_of_rows(vae, arrays, seed)
    given, schema = vae.data.by_name(arrays), vae.data.schema
    offsets = {} if schema is None else schema.nats_offset
    total, columns = -rate, {}
    for name, log_p in by_part.items():
        if name in given:
            absent = np.isnan(given[name]).reshape(len(rate), -1)
            gone = absent.all(axis=1)
            log_p = np.where(gone, 0.0, log_p + offsets.get(name, 0.0))
            columns[f"log p({name})"] = np.where(gone, np.nan, log_p)
        else:
            columns[f"log p({name})"] = log_p
        total = total + log_p
    index = x.index if is_frame(x) and isinstance(x, pd.DataFrame) else None
    return pd.DataFrame({"elbo": total, "rate": rate, **columns}, index=index)


def terms_of_rows(
    vae: LatentVariableModel, x: Any, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Computes log p of each part given z, [N] by part, and the rate, [N], in model nats.

    Args:
        vae: the model.
        x: checked arrays.
        seed: seed of the draws, one of z for each row, those of `vae.elbo`.
    """

    def terms(inputs: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        rows, seeds = inputs
        trace = vae.infer(rows).trace(from_rows(vae.noise(), seeds, 1, vae.float_dtype))
        found = {name: log_p[0] for name, log_p in log_probs(trace.observations).items()}
        return found, sum_of(rates_of(trace))

    seeds = vae._row_seeds(len(keras.tree.flatten(x)[0]), seed)
    found, rate = vae._by_rows("terms of rows", terms, [x, seeds])
    by_part = {name: np.asarray(log_p, np.float64) for name, log_p in found.items()}
    return by_part, np.asarray(rate, np.float64)
