"""Shared parts of the builders: classes by name, and the inputs of encoder and decoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_vae import distributions
from keras_vae.arguments import as_shape
from keras_vae.distributions import Likelihood, Parts, Posterior, Prior, names
from keras_vae.model import VAE

__all__ = [
    "CODE_PRIORS",
    "LIKELIHOODS",
    "POSTERIORS",
    "PRIORS",
    "as_condition",
    "assemble",
    "image_head",
    "look_up",
    "seen_by_decoder",
    "seen_by_encoder",
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


def look_up(argument: str, table: dict[str, Any], name: str) -> Any:
    """Returns the entry of a name, or refuses a name that the table does not have."""
    if name not in table:
        raise ValueError(
            f"Invalid value for argument `{argument}`. Expected one of {', '.join(table)}. "
            f"Received: {argument}={name!r}"
        )
    return table[name]


def assemble(
    likelihood: Likelihood | Parts,
    encoder: keras.layers.Layer,
    latent_size: int,
    posterior: str,
    prior: str,
    num_components: int,
    condition_shape: tuple[int, ...] | None,
    posterior_options: Mapping[str, Any] | None = None,
    prior_options: Mapping[str, Any] | None = None,
) -> VAE:
    """Builds the model of one latent vector from its likelihood, its encoder and names."""
    make_posterior = look_up("posterior", POSTERIORS, posterior)
    make_prior = look_up("prior", PRIORS, prior)
    of_posterior = _options("posterior", posterior, names.POSTERIORS, posterior_options)
    of_prior = _options("prior", prior, names.PRIORS, prior_options)
    if "num_components" in names.PRIORS[prior].options:
        of_prior = {"num_components": num_components, **of_prior}
    return VAE(
        prior=make_prior(latent_size, **of_prior),
        likelihood=likelihood,
        posterior=make_posterior(latent_size, network=encoder, **of_posterior),
        condition_shape=condition_shape,
    )


def _options(
    argument: str,
    name: str,
    table: Mapping[str, names.Family],
    options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns the options of a family; refuses those that it does not take."""
    known = table[name].options
    for option in options or {}:
        if option not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no options"
            raise ValueError(
                f"Invalid value for argument `{argument}_options`. The {argument} {name!r} "
                f"{takes}. Received: {option!r}"
            )
    return dict(options or {})


def seen_by_encoder(likelihood: Likelihood) -> dict[str, Any]:
    """Returns how the encoder sees x: bounded data in [0, 1], counts by their logarithm."""
    support = likelihood.support
    if support.low is None:
        return {}
    if support.high is None:
        return {"offset": support.low, "logarithm": True}
    return {"offset": support.low, "scale": 1.0 / (support.high - support.low)}


def seen_by_decoder(
    condition: tuple[int, ...] | None, options: dict[str, Any]
) -> tuple[int, ...] | None:
    """Returns the shape of the condition without the size of the row, which is an offset."""
    if condition is None or not options.get("offset"):
        return condition
    return None if condition == (1,) else (condition[0] - 1,)


def as_condition(shape: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """Checks the shape of one condition; None stays None."""
    return None if shape is None else as_shape(shape, "condition_shape")


def image_head(flat: Likelihood) -> keras.layers.Layer:
    """Returns a convolution to the parameters of each pixel of a likelihood."""
    return keras.layers.Conv2D(
        flat._last_size, 3, padding="same", dtype=flat.float_dtype, name="parameters"
    )
