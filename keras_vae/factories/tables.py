"""Models of tables of mixed columns."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_vae import networks
from keras_vae.data.schema import Column, Schema
from keras_vae.distributions import Likelihood, Parts, PartsEncoder
from keras_vae.factories.assembly import LIKELIHOODS, assemble, look_up
from keras_vae.factories.starting_values import start_likelihood_at
from keras_vae.model import VAE

__all__ = ["table_likelihoods", "table_vae"]


def table_likelihoods(schema: Schema) -> dict[str, Likelihood]:
    """Returns the likelihood of each column of a schema, by name, for `keras_vae.Parts`."""
    return {
        name: look_up("likelihood", LIKELIHOODS, column.likelihood)(
            column.size, missing=column.missing, **column.arguments
        )
        for name, column in schema.columns.items()
    }


def table_vae(
    schema: Schema,
    latent_size: int,
    *,
    hidden: Sequence[int] = (128, 128),
    activation: str = "relu",
    posterior: str = "diagonal",
    prior: str = "standard_normal",
    num_components: int = 50,
    posterior_options: Mapping[str, Any] | None = None,
    prior_options: Mapping[str, Any] | None = None,
    drop: float = 0.0,
) -> VAE:
    """Builds a VAE of a table as it is: mixed columns, values absent where the schema says so.

    `fit`, `elbo`, `reconstruct` and their like take data frames, and `sample` and `reconstruct`
    return them. All nats are those of the model's numbers; `schema.row_nats` turns them into those
    of the table.

    Args:
        schema: the columns.
        latent_size: number of latents.
        hidden: widths of the encoder's layers; the decoder's are the same backwards.
        activation: activation of the hidden layers; "glu" makes them gated.
        posterior, prior, num_components, posterior_options, prior_options: as for `mlp_vae`.
        drop: share of the values, in columns that may have missing ones, that training hides from
            the encoder; see `PartsEncoder`.

    Raises:
        ValueError: if a name is unknown.

    Example:
        >>> import pandas as pd
        >>> from keras_vae.data import Schema
        >>> frame = pd.DataFrame({"age": [31, 45, 28] * 20, "city": ["Oslo", "Rome", None] * 20})
        >>> vae = table_vae(Schema.of(frame), 2, hidden=(8,))
        >>> vae.compile("adam")
        >>> history = vae.fit(frame, verbose=0)
        >>> sorted(vae.sample(5, seed=0))
        ['age', 'city']
    """
    likelihoods = table_likelihoods(schema)
    trunk = networks.mlp((latent_size,), tuple(hidden)[::-1], activation=activation, name="decoder")
    complete = [name for name, column in schema.columns.items() if not column.missing]
    width = sum(column.size * (2 if column.missing else 1) for column in schema.columns.values())
    encoder = PartsEncoder(
        networks.mlp((width,), hidden, activation=activation, name="encoder"),
        networks={
            name: seen
            for name, column in schema.columns.items()
            if (seen := _column_seen_by_encoder(column, likelihoods[name])) is not None
        },
        complete=complete,
        drop=drop,
    )
    parts = Parts(likelihoods, network=trunk, schema=schema)
    vae = assemble(
        parts,
        encoder,
        latent_size,
        posterior,
        prior,
        num_components,
        None,
        posterior_options,
        prior_options,
    )
    for name, column in schema.columns.items():
        if likelihoods[name].starts_at_mean(column.preparation):
            start_likelihood_at(likelihoods[name], np.array([column.typical]))
    return vae


def _column_seen_by_encoder(column: Column, likelihood: Likelihood) -> keras.layers.Layer | None:
    """Returns how the encoder sees a column: amounts by their logarithm, levels within [-1, 1]."""
    support = likelihood.support
    if support.low == 0.0 and support.high is None:
        return networks.logarithm(math.log1p(column.typical))
    if column.kind == "ordinal" and column.size == 1:
        return keras.layers.Rescaling(2.0 / (len(column.categories) - 1), offset=-1.0)
    return None
