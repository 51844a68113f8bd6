"""Settings of a run about networks, latents, posterior and prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_vae.distributions.names import CODE_PRIORS, POSTERIORS, PRIORS
from keras_vae.runs.setting import setting

__all__ = ["FAMILIES", "LEVELS", "ModelSettings"]

FAMILIES = {"posterior": POSTERIORS, "prior": PRIORS}
"""Families with options, by the setting that names one."""

LEVELS = ("ladder", "residual", "bottom_up")
"""Values of `latents` with several levels."""

_TRANSFORMS = ("affine", "spline")


def _taking(kind: str, option: str) -> tuple[str, tuple[str, ...]]:
    """Returns a setting, and its values whose families take an option."""
    families = FAMILIES[kind].items()
    return kind, tuple(name for name, family in families if option in family.options)


def _widths_of_steps(kind: str) -> Any:
    """Declares the widths of the networks of a flow posterior or prior."""
    return setting(
        (64, 64),
        "Widths of the network of each of its steps.",
        interval="[1, inf)",
        only=_taking(kind, "hidden"),
    )


def _steps(kind: str) -> Any:
    """Declares what the steps of a flow posterior or prior are."""
    return setting(
        "affine",
        "What each of its steps is.",
        choices=_TRANSFORMS,
        only=_taking(kind, "transform"),
    )


@dataclass(frozen=True)
class ModelSettings:
    """Settings about the model.

    Attributes:
        network: "mlp" or "conv"; for texts and time series "recurrent", "convolution" or
            "attention", see `keras_vae.sequence_vae`. Texts have "recurrent" in place of "mlp".
        hidden: widths of the layers, or filters of the convolutions; of sequences the width of
            each layer, which is the same for all. Empty is 200, 200, and of convolutions 32, 64, or
            with several levels as in `keras_vae.hierarchical_vae`.
        activation: activation of the hidden layers.
        latents: "vector"; "codes": those of a `keras_vae.vq_vae`; "ladder", "residual" or
            "bottom_up": several levels, those of a `keras_vae.hierarchical_vae`.
        latent: number of latents; with codes, the number of codes under Dense layers, and without
            effect under convolutions and with `level_sizes`.
        codes: number of vectors in the book.
        code_size: size of each vector.
        code_prior: "uniform" or "autoregressive".
        level_sizes: numbers of latents of the levels, from the top down; empty makes two levels, of
            half of `latent` and of `latent`.
        hidden_above: widths of the layers between two levels, from the bottom up; empty is
            `hidden`.
        posterior: name as in `keras_vae.mlp_vae`.
        posterior_layers: steps of a flow posterior.
        posterior_hidden: widths of the network of each step.
        posterior_transform: "affine" or "spline", what each step is.
        posterior_components: components of a mixture posterior.
        prior: name as in `keras_vae.mlp_vae`.
        prior_layers: steps of a flow prior.
        prior_hidden: widths of the network of each step.
        prior_transform: "affine" or "spline", what each step is.
        components: components of a mixture or vamp prior.
    """

    network: str = setting(
        "mlp",
        "Layers of encoder and decoder; the last three are for texts and time series.",
        choices=("mlp", "conv", "recurrent", "convolution", "attention"),
    )
    hidden: tuple[int, ...] = setting(
        (),
        "Widths, by default 200,200, or filters of convolutions, by default 32,64.",
        interval="[1, inf)",
    )
    activation: str = setting("tanh", "Of hidden layers.")
    latents: str = setting(
        "vector",
        "A vector, codes of a VQ-VAE, or levels of vectors: ladder, residual or bottom_up.",
        choices=("vector", "codes", *LEVELS),
    )
    latent: int = setting(
        16, "Number of latents; of codes with network = 'mlp'.", interval="[1, inf)"
    )
    codes: int = setting(
        128, "Vectors in the book.", interval="[2, inf)", only=("latents", ("codes",))
    )
    code_size: int = setting(
        16, "Size of each vector.", interval="[1, inf)", only=("latents", ("codes",))
    )
    code_prior: str = setting(
        "uniform",
        "p(codes); autoregressive is trained with the model.",
        choices=tuple(CODE_PRIORS),
        only=("latents", ("codes",)),
    )
    level_sizes: tuple[int, ...] = setting(
        (),
        "Latents of each level from the top down, as in 4,8,16.",
        interval="[1, inf)",
        only=("latents", LEVELS),
    )
    hidden_above: tuple[int, ...] = setting(
        (),
        "Widths of the layers between two levels; by default those of --hidden.",
        interval="[1, inf)",
        only=("latents", ("ladder", "bottom_up")),
    )
    posterior: str = setting("diagonal", choices=tuple(POSTERIORS), only=("latents", ("vector",)))
    posterior_layers: int = setting(
        4,
        "Steps of a flow posterior.",
        interval="[1, inf)",
        only=_taking("posterior", "num_layers"),
    )
    posterior_hidden: tuple[int, ...] = _widths_of_steps("posterior")
    posterior_transform: str = _steps("posterior")
    posterior_components: int = setting(
        5,
        "Components of a mixture posterior.",
        interval="[1, inf)",
        only=_taking("posterior", "num_components"),
    )
    prior: str = setting("standard_normal", choices=tuple(PRIORS), only=("latents", ("vector",)))
    prior_layers: int = setting(
        4, "Steps of a flow prior.", interval="[1, inf)", only=_taking("prior", "num_layers")
    )
    prior_hidden: tuple[int, ...] = _widths_of_steps("prior")
    prior_transform: str = _steps("prior")
    components: int = setting(
        50,
        "Components of a mixture or vamp prior.",
        interval="[1, inf)",
        only=_taking("prior", "num_components"),
    )
