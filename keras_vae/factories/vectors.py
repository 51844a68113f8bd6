"""Models of one latent vector, with Dense layers or convolutions."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_vae import networks
from keras_vae.arguments import as_shape
from keras_vae.factories.assembly import (
    LIKELIHOODS,
    as_condition,
    assemble,
    image_head,
    look_up,
    seen_by_decoder,
    seen_by_encoder,
)
from keras_vae.model import VAE

__all__ = ["conv_vae", "mlp_vae"]


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
    posterior_options: Mapping[str, Any] | None = None,
    prior_options: Mapping[str, Any] | None = None,
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
        posterior_options, prior_options: arguments of the posterior's and of the prior's class,
            such as {"num_layers": 8, "hidden": (32,)} of a flow.
        condition_shape: shape of one condition, for a conditional model.
        **likelihood_options: arguments of the likelihood, such as scale, levels, total_count.

    Raises:
        ValueError: if a name is unknown, or an argument of the likelihood is wrong.

    Example:
        >>> mlp_vae((28, 28, 1), 50, "bernoulli").count_params()
        425284
    """
    shape, condition = as_shape(event_shape, "mlp_vae"), as_condition(condition_shape)
    make = look_up("likelihood", LIKELIHOODS, likelihood)
    decoder = networks.mlp(
        (latent_size,),
        tuple(hidden)[::-1],
        activation=activation,
        condition_shape=seen_by_decoder(condition, likelihood_options),
        name="decoder",
    )
    layer = make(shape, network=decoder, **likelihood_options)
    encoder = networks.mlp(
        shape,
        hidden,
        activation=activation,
        condition_shape=condition,
        name="encoder",
        **seen_by_encoder(layer),
    )
    return assemble(
        layer,
        encoder,
        latent_size,
        posterior,
        prior,
        num_components,
        condition,
        posterior_options,
        prior_options,
    )


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
    posterior_options: Mapping[str, Any] | None = None,
    prior_options: Mapping[str, Any] | None = None,
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
        posterior_options, prior_options: arguments of the posterior's and of the prior's class,
            such as {"num_layers": 8, "hidden": (32,)} of a flow.
        condition_shape: shape of one condition, for a conditional model.
        **likelihood_options: arguments of the likelihood.

    Raises:
        ValueError: if a name is unknown, or the data is not images.

    Example:
        >>> vae = conv_vae((8, 8, 1), 4, "bernoulli", filters=(4, 8), width=16)
        >>> vae.latent_size, vae.event_shape
        (4, (8, 8, 1))
    """
    shape, condition = as_shape(event_shape, "conv_vae"), as_condition(condition_shape)
    make = look_up("likelihood", LIKELIHOODS, likelihood)
    decoder = networks.conv_decoder(
        latent_size,
        shape,
        tuple(filters)[::-1],
        width=width,
        activation=activation,
        condition_shape=seen_by_decoder(condition, likelihood_options),
        name="decoder",
    )
    flat = make(shape, **likelihood_options)
    layer = make(shape, network=decoder, head=image_head(flat), **likelihood_options)
    encoder = networks.conv_encoder(
        shape,
        filters,
        width=width,
        activation=activation,
        condition_shape=condition,
        name="encoder",
        **seen_by_encoder(layer),
    )
    return assemble(
        layer,
        encoder,
        latent_size,
        posterior,
        prior,
        num_components,
        condition,
        posterior_options,
        prior_options,
    )
