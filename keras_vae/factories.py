"""Ready models, by data shape, latent size and the name of a likelihood."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_vae import distributions, networks
from keras_vae.arguments import as_shape
from keras_vae.data.schema import Column, Schema
from keras_vae.distributions import Likelihood, Parts, PartsEncoder, Posterior, Prior, names
from keras_vae.distributions.codes import VectorQuantizer
from keras_vae.hierarchical import HierarchicalVAE, conv_levels, dense_levels
from keras_vae.likelihood_model import LikelihoodModel
from keras_vae.model import VAE

__all__ = [
    "CODE_PRIORS",
    "LIKELIHOODS",
    "POSTERIORS",
    "PRIORS",
    "conv_vae",
    "hierarchical_vae",
    "mlp_vae",
    "sequence_vae",
    "start_at_mean",
    "table_likelihoods",
    "table_vae",
    "vq_vae",
]

LIKELIHOODS: dict[str, type[Likelihood]] = {
    key: getattr(distributions, family.name) for key, family in names.LIKELIHOODS.items()
}
POSTERIORS: dict[str, type[Posterior]] = {
    key: getattr(distributions, family.name) for key, family in names.POSTERIORS.items()
}
PRIORS: dict[str, type[Prior]] = {
    key: getattr(distributions, family.name) for key, family in names.PRIORS.items()
}
"""Classes by the names in `keras_vae.distributions.names`."""

CODE_PRIORS: dict[str, type[Prior]] = {
    key: getattr(distributions, name) for key, name in names.CODE_PRIORS.items()
}
"""Priors of codes by the names in `keras_vae.distributions.names`."""


def mlp_vae(
    event_shape: int | Sequence[int],
    latent_size: int,
    likelihood: str = "bernoulli",
    *,
    hidden: Sequence[int] = (200, 200),
    activation: str = "tanh",
    posterior: str = "diagonal",
    prior: str = "standard_normal",
    num_components: int = 50,
    condition_shape: int | Sequence[int] | None = None,
    **likelihood_options: Any,
) -> VAE:
    """Builds a VAE whose encoder and decoder are Dense layers.

    Args:
        event_shape: shape of one example.
        latent_size: number of latents.
        likelihood: a name in `LIKELIHOODS`, such as bernoulli, normal or poisson.
        hidden: widths of the encoder's layers; the decoder's are the same backwards.
        activation: activation of the hidden layers; "glu" makes them gated.
        posterior: a name in `POSTERIORS`, such as diagonal, full or coupling.
        prior: a name in `PRIORS`, such as standard_normal, vamp or flow.
        num_components: components of a mixture or vamp prior.
        condition_shape: shape of one condition, for a conditional model.
        **likelihood_options: arguments of the likelihood, such as scale, levels, total_count.

    Raises:
        ValueError: if a name is unknown, or an argument of the likelihood is wrong.

    Example:
        >>> mlp_vae((28, 28, 1), 50, "bernoulli").count_params()
        425284
    """
    shape, condition = as_shape(event_shape, "mlp_vae"), _condition(condition_shape)
    make = _lookup("likelihood", LIKELIHOODS, likelihood)
    decoder = networks.mlp(
        (latent_size,),
        tuple(hidden)[::-1],
        activation=activation,
        condition_shape=_seen_by_decoder(condition, likelihood_options),
        name="decoder",
    )
    layer = make(shape, network=decoder, **likelihood_options)
    encoder = networks.mlp(
        shape,
        hidden,
        activation=activation,
        condition_shape=condition,
        name="encoder",
        **_range_of(layer),
    )
    return _assemble(layer, encoder, latent_size, posterior, prior, num_components, condition)


def conv_vae(
    event_shape: Sequence[int],
    latent_size: int,
    likelihood: str = "bernoulli",
    *,
    filters: Sequence[int] = (32, 64),
    width: int = 256,
    activation: str = "relu",
    posterior: str = "diagonal",
    prior: str = "standard_normal",
    num_components: int = 50,
    condition_shape: int | Sequence[int] | None = None,
    **likelihood_options: Any,
) -> VAE:
    """Builds a VAE of images with convolutional encoder and decoder; arguments as for `mlp_vae`.

    Args:
        event_shape: shape of one image, (height, width, channels).
        latent_size: number of latents.
        likelihood: as for `mlp_vae`.
        filters: filters of the encoder's convolutions; the decoder's are the same backwards.
        width: width of the Dense layers between the convolutions and the latents.
        activation: activation of the hidden layers.
        posterior: as for `mlp_vae`.
        prior: as for `mlp_vae`.
        num_components: components of a mixture or vamp prior.
        condition_shape: shape of one condition, for a conditional model.
        **likelihood_options: arguments of the likelihood.

    Raises:
        ValueError: if a name is unknown, or the data is not images.
    """
    shape, condition = as_shape(event_shape, "conv_vae"), _condition(condition_shape)
    make = _lookup("likelihood", LIKELIHOODS, likelihood)
    decoder = networks.conv_decoder(
        latent_size,
        shape,
        tuple(filters)[::-1],
        width=width,
        activation=activation,
        condition_shape=_seen_by_decoder(condition, likelihood_options),
        name="decoder",
    )
    flat = make(shape, **likelihood_options)
    layer = make(shape, network=decoder, head=_image_head(flat), **likelihood_options)
    encoder = networks.conv_encoder(
        shape,
        filters,
        width=width,
        activation=activation,
        condition_shape=condition,
        name="encoder",
        **_range_of(layer),
    )
    return _assemble(layer, encoder, latent_size, posterior, prior, num_components, condition)


def vq_vae(
    event_shape: int | Sequence[int],
    likelihood: str = "normal",
    *,
    codes: int = 128,
    code_size: int = 16,
    count: int | None = None,
    stages: int = 1,
    hidden: Sequence[int] = (32, 64),
    activation: str = "relu",
    prior: str = "uniform",
    commitment: float = 0.25,
    **likelihood_options: Any,
) -> VAE:
    """Builds a VAE whose latents are the nearest vectors of a book: a VQ-VAE.

    Of images, each of the convolutions `hidden` halves height and width, and the codes are the grid
    that is left. With `count`, or of other data, encoder and decoder are Dense layers, and there
    are `count` codes.

    Args:
        event_shape: shape of one example.
        likelihood: as for `mlp_vae`.
        codes: number of vectors in the book.
        code_size: size of each vector.
        count: number of codes of one example; None is the grid of the convolutions.
        stages: number of residual stages, see `VectorQuantizer`.
        hidden: filters of the encoder's convolutions, or widths of its Dense layers; the decoder's
            are the same backwards.
        activation: activation of the hidden layers.
        prior: a name in `CODE_PRIORS`: uniform or autoregressive. `evaluation.fit_code_prior` fits
            an autoregressive one afterwards.
        commitment: weight of the commitment.
        **likelihood_options: arguments of the likelihood.

    Raises:
        ValueError: if a name is unknown, or the data is neither images nor given a `count`.

    Example:
        >>> vae = vq_vae((28, 28, 1), scale="optimal")
        >>> vae.posterior.codes_shape, vae.prior.name
        ((7, 7), 'uniform_codes')
    """
    shape = as_shape(event_shape, "vq_vae")
    make = _lookup("likelihood", LIKELIHOODS, likelihood)
    is_image = count is None
    if is_image and len(shape) != 3:
        raise ValueError(
            f"Expected images of shape (height, width, channels); got {shape}. For other data give "
            "the number of codes, count=..., and the layers are Dense."
        )
    flat, backwards = make(shape, **likelihood_options), tuple(hidden)[::-1]
    grid: tuple[int, ...] = (count,) if count is not None else _halved(shape, len(hidden))
    common: dict[str, Any] = {"activation": activation}
    head = None
    if is_image:
        decoder = networks.grid_decoder(
            (*grid, code_size), shape, backwards, name="decoder", **common
        )
        head = keras.layers.Conv2D(
            flat._last_size, 3, padding="same", dtype=flat.float_dtype, name="parameters"
        )
    else:
        decoder = networks.mlp((grid[0] * code_size,), backwards, name="decoder", **common)
    layer = make(shape, network=decoder, head=head, **likelihood_options)
    seen = _range_of(layer)
    if is_image and seen.pop("logarithm", False):
        raise ValueError(
            "Counts without an upper limit need Dense layers: give the number of codes, count=...."
        )
    build: Any = networks.grid_encoder if is_image else networks.mlp
    encoder = build(shape, tuple(hidden), name="encoder", **common, **seen)
    return VAE(
        prior=_lookup("prior", CODE_PRIORS, prior)(),
        likelihood=layer,
        posterior=VectorQuantizer(
            grid, codes, code_size, encoder, stages=stages, commitment=commitment
        ),
    )


def _halved(shape: tuple[int, ...], times: int) -> tuple[int, ...]:
    """Returns height and width of an image after convolutions of stride two."""
    return tuple(math.ceil(size / 2**times) for size in shape[:2])


def hierarchical_vae(
    event_shape: int | Sequence[int],
    latent_sizes: Sequence[int],
    likelihood: str = "bernoulli",
    *,
    structure: Literal["ladder", "residual"] = "ladder",
    network: Literal["mlp", "conv"] = "mlp",
    hidden: Sequence[int] = (200, 200),
    activation: str = "tanh",
    condition_shape: int | Sequence[int] | None = None,
    **likelihood_options: Any,
) -> HierarchicalVAE:
    """Builds a VAE with a level of latents z1, z2, ... for each size, z1 at the top.

    Args:
        event_shape: shape of one example.
        latent_sizes: number of latents of each level, from the top down; with convolutions their
            channels.
        likelihood: as for `mlp_vae`.
        structure: "ladder" or "residual", the kind of `keras_vae.TopDownBlock`.
        network: "mlp", or "conv" for images, whose latents are images too: one level at each
            halving of the size.
        hidden: widths of the layers of each level, from the bottom up; with convolutions the
            filters of each halving.
        activation: activation of the hidden layers.
        condition_shape: shape of one condition, for a conditional model; not with convolutions.
        **likelihood_options: arguments of the likelihood.

    Raises:
        ValueError: if a name is unknown, there is no level, or an argument is wrong.

    Example:
        >>> vae = hierarchical_vae((28, 28, 1), (8, 16, 32), hidden=(64,))
        >>> {name: block.latent_shape for name, block in vae.blocks.items()}
        {'z1': (8,), 'z2': (16,), 'z3': (32,)}
    """
    shape, condition = as_shape(event_shape, "hierarchical_vae"), _condition(condition_shape)
    make = _lookup("likelihood", LIKELIHOODS, likelihood)
    kind = _lookup("structure", {name: name for name in ("ladder", "residual")}, structure)
    _lookup("network", dict.fromkeys(("mlp", "conv")), network)
    counts = as_shape(latent_sizes, "hierarchical_vae(latent_sizes=)")
    sizes = {f"z{index + 1}": size for index, size in enumerate(counts)}
    flat = make(shape, **likelihood_options)
    seen = _range_of(flat)
    if network == "mlp":
        of_decoder = _seen_by_decoder(condition, likelihood_options)
        levels = dense_levels(shape, sizes, kind, hidden, activation, condition, of_decoder, **seen)
        layer = make(shape, network=levels.decoder, **likelihood_options)
    else:
        if condition is not None:
            raise ValueError(
                "hierarchical_vae(network='conv') takes no condition: choose network='mlp', or "
                "build a HierarchicalVAE of blocks that read it."
            )
        levels = conv_levels(shape, sizes, kind, hidden, activation, **seen)
        layer = make(shape, network=levels.decoder, head=_image_head(flat), **likelihood_options)
    return HierarchicalVAE(
        encoder=levels.encoder,
        blocks=levels.blocks,
        likelihood=layer,
        condition_shape=condition,
    )


def _image_head(flat: Likelihood) -> keras.layers.Layer:
    """Returns a convolution to the parameters of each pixel of a likelihood."""
    return keras.layers.Conv2D(
        flat._last_size, 3, padding="same", dtype=flat.float_dtype, name="parameters"
    )


def sequence_vae(
    event_shape: Sequence[int],
    latent_size: int,
    likelihood: str = "normal",
    *,
    network: Literal["recurrent", "convolution", "attention"] = "recurrent",
    width: int = 64,
    depth: int = 2,
    activation: str = "gelu",
    seasons: Sequence[int] | None = None,
    degree: int = 1,
    missing: bool = True,
    posterior: str = "diagonal",
    prior: str = "standard_normal",
    num_components: int = 50,
    condition_shape: int | Sequence[int] | None = None,
    **likelihood_options: Any,
) -> VAE:
    """Builds a VAE of sequences, which may have different lengths and holes.

    What is absent is NaN: the end of a short sequence, whole steps and single entries. The bound is
    one on log p of what is present, given the length. It does not depend, not even in the last bit,
    on how many absent steps follow a sequence. The steps are independent given z.

    Args:
        event_shape: shape of one sequence, (steps, entries).
        latent_size: number of latents.
        likelihood: as for `mlp_vae`; "categorical" for tokens, which are one-hot vectors.
        network: layers of encoder and decoder; see `networks.sequence_encoder`.
        width: features of each step.
        depth: number of layers of the encoder and of the decoder.
        activation: activation inside the layers.
        seasons: lengths of the seasons of a time series, whose decoder is then level, trend and
            seasons beside the layers; () has no season, None is a decoder of layers alone.
        degree: degree of the polynomial trend.
        missing: whether steps or entries may be absent.
        posterior, prior, num_components, condition_shape: as for `mlp_vae`.
        **likelihood_options: arguments of the likelihood.

    Raises:
        ValueError: if a name is unknown, or the data is no sequences.

    Example:
        >>> from keras_vae.data import padded
        >>> vae = sequence_vae((3, 1), 2, width=4, scale="learned")
        >>> vae.elbo(padded([[0.1, 0.2, 0.3], [0.4]]), seed=0).elbo.shape
        TensorShape([2])
    """
    shape, condition = as_shape(event_shape, "sequence_vae"), _condition(condition_shape)
    make = _lookup("likelihood", LIKELIHOODS, likelihood)
    shared: dict[str, Any] = {"width": width, "depth": depth, "activation": activation}
    given = _seen_by_decoder(condition, likelihood_options)
    seen: dict[str, Any] = {**shared, "condition_shape": given, "name": "decoder"}
    if seasons is None:
        decoder = networks.sequence_decoder(latent_size, shape, network, **seen)
    else:
        decoder = networks.series_decoder(
            latent_size, shape, degree=degree, seasons=seasons, residual=network, **seen
        )
    layer = make(shape, network=decoder, missing=missing, sequence=True, **likelihood_options)
    encoder = networks.sequence_encoder(
        shape, network, condition_shape=condition, name="encoder", **shared, **_range_of(layer)
    )
    return _assemble(layer, encoder, latent_size, posterior, prior, num_components, condition)


def table_likelihoods(schema: Schema) -> dict[str, Likelihood]:
    """Returns the likelihood of each column of a schema, by name, for `keras_vae.Parts`."""
    return {
        name: _lookup("likelihood", LIKELIHOODS, column.likelihood)(
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
        posterior, prior, num_components: as for `mlp_vae`.
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
            if (seen := _seen_by_encoder(column, likelihoods[name])) is not None
        },
        complete=complete,
        drop=drop,
    )
    parts = Parts(likelihoods, network=trunk, schema=schema)
    vae = _assemble(parts, encoder, latent_size, posterior, prior, num_components, None)
    for name, column in schema.columns.items():
        if likelihoods[name].starts_at_mean(column.preparation):
            _start_at(likelihoods[name], np.array([column.typical]))
    return vae


def _seen_by_encoder(column: Column, likelihood: Likelihood) -> keras.layers.Layer | None:
    """Returns how the encoder sees a column: amounts by their logarithm, levels within [-1, 1]."""
    support = likelihood.support
    if support.low == 0.0 and support.high is None:
        return networks.logarithm(math.log1p(column.typical))
    if column.kind == "ordinal" and column.size == 1:
        return keras.layers.Rescaling(2.0 / (len(column.categories) - 1), offset=-1.0)
    return None


def start_at_mean(vae: LikelihoodModel, mean: np.ndarray) -> None:
    """Sets the decoder's last bias so that, with features of zero, its mean is the given one.

    Burda, Grosse and Salakhutdinov (2016) start their decoders in this way. The likelihood's
    `raw_mean` gives the bias; its head must be a Dense layer, as in `mlp_vae`.

    Args:
        vae: a model whose likelihood has a parameter that determines its mean.
        mean: mean of the training data, with the shape of one example.

    Raises:
        ValueError: if the likelihood has no such parameter or the shape is wrong.

    Example:
        >>> vae = mlp_vae(2, 1, "bernoulli", hidden=(4,))
        >>> start_at_mean(vae, np.array([0.25, 0.5]))
        >>> vae.likelihood.head.bias.numpy()
        array([-1.0986,  0.    ], dtype=float32)
    """
    _start_at(vae.likelihood, mean)


def _start_at(likelihood: Likelihood, mean: np.ndarray) -> None:
    mean = np.asarray(mean, np.float64)
    if mean.shape != likelihood.event_shape:
        raise ValueError(
            f"Expected a mean of the shape {likelihood.event_shape} of one example; got "
            f"{mean.shape}."
        )
    if likelihood.sequence:
        mean = mean.mean(axis=0)
    raw = likelihood.raw_mean(mean)
    bias = np.zeros((*mean.shape[:-1], likelihood._last_size))
    bias[..., : mean.shape[-1]] = raw
    likelihood.head.bias.assign(bias.ravel())


def _assemble(
    likelihood: Likelihood | Parts,
    encoder: keras.layers.Layer,
    latent_size: int,
    posterior: str,
    prior: str,
    num_components: int,
    condition_shape: tuple[int, ...] | None,
) -> VAE:
    make_prior = _lookup("prior", PRIORS, prior)
    takes_components = "num_components" in names.PRIORS[prior].options
    components = {"num_components": num_components} if takes_components else {}
    return VAE(
        prior=make_prior(latent_size, **components),
        likelihood=likelihood,
        posterior=_lookup("posterior", POSTERIORS, posterior)(latent_size, network=encoder),
        condition_shape=condition_shape,
    )


def _range_of(likelihood: Likelihood) -> dict[str, Any]:
    """Returns how the encoder sees x: bounded data in [0, 1], counts by their logarithm."""
    support = likelihood.support
    if support.low is None:
        return {}
    if support.high is None:
        return {"offset": support.low, "logarithm": True}
    return {"offset": support.low, "scale": 1.0 / (support.high - support.low)}


def _lookup(argument: str, table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise ValueError(
            f"Invalid value for argument `{argument}`. Expected one of {', '.join(table)}. "
            f"Received: {argument}={name!r}"
        )
    return table[name]


def _seen_by_decoder(
    condition: tuple[int, ...] | None, options: dict[str, Any]
) -> tuple[int, ...] | None:
    """Returns the shape of the condition without the size of the row, which is an offset."""
    if condition is None or not options.get("offset"):
        return condition
    return None if condition == (1,) else (condition[0] - 1,)


def _condition(shape: int | Sequence[int] | None) -> tuple[int, ...] | None:
    return None if shape is None else as_shape(shape, "condition_shape")
