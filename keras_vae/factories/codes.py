"""Models whose latents are codes."""

import math
from collections.abc import Sequence
from typing import Any

from keras_vae import networks
from keras_vae.arguments import as_shape
from keras_vae.distributions.codes import VectorQuantizer
from keras_vae.factories.assembly import (
    CODE_PRIORS,
    LIKELIHOODS,
    image_head,
    look_up,
    seen_by_encoder,
)
from keras_vae.model import VAE

__all__ = ["vq_vae"]


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
    make = look_up("likelihood", LIKELIHOODS, likelihood)
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
        head = image_head(flat)
    else:
        decoder = networks.mlp((grid[0] * code_size,), backwards, name="decoder", **common)
    layer = make(shape, network=decoder, head=head, **likelihood_options)
    seen = seen_by_encoder(layer)
    if is_image and seen.pop("logarithm", False):
        raise ValueError(
            "Counts without an upper limit need Dense layers: give the number of codes, count=...."
        )
    build: Any = networks.grid_encoder if is_image else networks.mlp
    encoder = build(shape, tuple(hidden), name="encoder", **common, **seen)
    return VAE(
        prior=look_up("prior", CODE_PRIORS, prior)(),
        likelihood=layer,
        posterior=VectorQuantizer(
            grid, codes, code_size, encoder, stages=stages, commitment=commitment
        ),
    )


def _halved(shape: tuple[int, ...], times: int) -> tuple[int, ...]:
    """Returns height and width of an image after convolutions of stride two."""
    return tuple(math.ceil(size / 2**times) for size in shape[:2])
