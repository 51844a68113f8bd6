"""Models of a run: builds the model of a configuration."""

from __future__ import annotations

from typing import Any

import keras

from keras_vae import factories, objectives
from keras_vae.data import Schema
from keras_vae.hierarchical import HierarchicalVAE
from keras_vae.likelihood_model import LikelihoodModel
from keras_vae.model import VAE
from keras_vae.runs.config import LEVELS, TEXT, RunConfig, RunError

__all__ = ["build", "build_table"]

_STEPS_OF_WARM_UP = 20
"""Training steps per execution during KL warm-up; beta is updated once per execution."""


def build(config: RunConfig, event_shape: tuple[int, ...]) -> LikelihoodModel:
    """Builds the compiled model of a configuration, with new weights.

    Args:
        config: what to train; its likelihood is not "auto".
        event_shape: shape of one prepared example.
    """
    if config.is_sequence:
        return _compiled(config, _of_sequences(config, event_shape))
    if config.latents == "codes":
        return _compiled(config, _of_codes(config, event_shape))
    if config.latents in LEVELS:
        return _compiled(config, _of_levels(config, event_shape))
    make = factories.conv_vae if config.network == "conv" else factories.mlp_vae
    widths: dict[str, Any] = {"filters" if config.network == "conv" else "hidden": config.widths}
    vae = make(
        event_shape,
        config.latent,
        config.likelihood,
        **_of_vector(config),
        **widths,
        condition_shape=_condition_shape(config),
        **config.likelihood_options,
    )
    return _compiled(config, vae)


def _of_vector(config: RunConfig) -> dict[str, Any]:
    """Returns the arguments that all models of one latent vector take."""
    return {
        "activation": config.activation,
        "posterior": config.posterior,
        "prior": config.prior,
        "num_components": config.components,
        "posterior_options": config.options_of("posterior"),
        "prior_options": config.options_of("prior"),
    }


def _of_sequences(config: RunConfig, event_shape: tuple[int, ...]) -> VAE:
    """Builds the model of texts or time series; a width for all layers is checked before."""
    network: Any = config.network
    return factories.sequence_vae(
        event_shape,
        config.latent,
        "categorical" if config.likelihood == TEXT else config.likelihood,
        network=network,
        width=config.widths[0],
        depth=len(config.widths),
        seasons=config.seasons or None,
        autoregressive=config.autoregressive,
        word_dropout=config.word_dropout,
        **_of_vector(config),
        **config.likelihood_options,
    )


def _of_codes(config: RunConfig, event_shape: tuple[int, ...]) -> VAE:
    return factories.vq_vae(
        event_shape,
        config.likelihood,
        codes=config.codes,
        code_size=config.code_size,
        count=None if config.network == "conv" else config.latent,
        hidden=config.widths,
        activation=config.activation,
        prior=config.code_prior,
        **config.likelihood_options,
    )


def _of_levels(config: RunConfig, event_shape: tuple[int, ...]) -> HierarchicalVAE:
    """Builds the model of several levels of a configuration."""
    structure: Any = config.latents
    network: Any = config.network
    return factories.hierarchical_vae(
        event_shape,
        config.levels,
        config.likelihood,
        structure=structure,
        network=network,
        hidden=config.widths or None,
        hidden_above=config.hidden_above or None,
        activation=config.activation,
        condition_shape=_condition_shape(config),
        **config.likelihood_options,
    )


def _condition_shape(config: RunConfig) -> int | None:
    return len(config.classes) if config.condition else None


def build_table(config: RunConfig, schema: Schema) -> LikelihoodModel:
    """Builds the compiled model of a table as it is, with new weights.

    Raises:
        RunError: if its latents are to be codes or levels.
    """
    if config.latents != "vector":
        raise RunError(
            f"latents = {config.latents!r} is for arrays and images, and this data is a table with "
            "a likelihood for each column: leave it out."
        )
    vae = factories.table_vae(
        schema,
        config.latent,
        hidden=config.widths,
        **_of_vector(config),
        drop=config.drop_observed,
    )
    return _compiled(config, vae)


def _compiled(config: RunConfig, vae: LikelihoodModel) -> LikelihoodModel:
    gradient: Any = config.gradient
    kl: Any = config.kl or None
    objective: objectives.Objective
    if config.objective == "iwae":
        objective = objectives.IWAE(config.num_samples, gradient=gradient)
    else:
        objective = objectives.ELBO(
            kl=kl,
            num_samples=config.num_samples,
            beta=config.beta,
            free_bits=config.free_bits,
            gradient=gradient,
        )
    adam = keras.optimizers.Adam(
        config.first_learning_rate, config.adam_beta_1, epsilon=config.adam_epsilon
    )
    steps = _STEPS_OF_WARM_UP if config.warmup_epochs else None
    vae.compile(adam, objective, monitor=config.monitor, steps_per_execution=steps)
    return vae
