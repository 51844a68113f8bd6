"""Models of sequences."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from keras_vae import networks
from keras_vae.arguments import as_shape
from keras_vae.distributions import Likelihood
from keras_vae.distributions.likelihoods import AutoregressiveLikelihood
from keras_vae.factories.assembly import (
    LIKELIHOODS,
    as_condition,
    assemble,
    look_up,
    seen_by_decoder,
    seen_by_encoder,
)
from keras_vae.model import VAE

__all__ = ["sequence_vae"]


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
    autoregressive: bool = False,
    word_dropout: float = 0.0,
    missing: bool = True,
    posterior: str = "diagonal",
    prior: str = "standard_normal",
    num_components: int = 50,
    posterior_options: Mapping[str, Any] | None = None,
    prior_options: Mapping[str, Any] | None = None,
    condition_shape: int | Sequence[int] | None = None,
    **likelihood_options: Any,
) -> VAE:
    """Builds a VAE of sequences, which may have different lengths and holes.

    What is absent is NaN: the end of a short sequence, whole steps and single entries. The bound is
    one on log p of what is present, given the length. It does not depend, not even in the last bit,
    on how many absent steps follow a sequence. The steps are independent given z, or with
    `autoregressive` each depends on z and on the steps before it; then only the steps at the end of
    a sequence may be absent.

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
        autoregressive: whether a step depends on those before it; see `AutoregressiveLikelihood`.
        word_dropout: probability with which training hides a step from those after it.
        missing: whether steps or entries may be absent.
        posterior, prior, num_components, posterior_options, prior_options, condition_shape: as for
            `mlp_vae`.
        **likelihood_options: arguments of the likelihood.

    Raises:
        ValueError: if a name is unknown, the data is no sequences, or an option is for another
            decoder.

    Example:
        >>> from keras_vae.data import padded
        >>> vae = sequence_vae((3, 1), 2, width=4, scale="learned")
        >>> vae.elbo(padded([[0.1, 0.2, 0.3], [0.4]]), seed=0).elbo.shape
        TensorShape([2])
    """
    shape, condition = as_shape(event_shape, "sequence_vae"), as_condition(condition_shape)
    make = look_up("likelihood", LIKELIHOODS, likelihood)
    shared: dict[str, Any] = {"width": width, "depth": depth, "activation": activation}
    given = seen_by_decoder(condition, likelihood_options)
    seen: dict[str, Any] = {**shared, "condition_shape": given, "name": "decoder"}
    options: dict[str, Any] = {"missing": missing, "sequence": True, **likelihood_options}
    if not autoregressive and word_dropout:
        raise ValueError(
            "word_dropout hides steps from those after them, and here no step depends on another: "
            "add autoregressive=True, or leave word_dropout out."
        )
    if autoregressive and seasons is not None:
        raise ValueError(
            "Expected seasons or autoregressive=True; got both. A decoder of level, trend and "
            "seasons has steps that are independent given z."
        )
    if autoregressive:
        decoder = networks.mlp(
            (latent_size,), (width,), activation=activation, condition_shape=given, name="decoder"
        )
        layer: Likelihood = AutoregressiveLikelihood(
            make(shape, **options),
            decoder,
            core=networks.CausalSteps(network, width, depth, activation=activation),
            word_dropout=word_dropout,
        )
    elif seasons is None:
        decoder = networks.sequence_decoder(latent_size, shape, network, **seen)
    else:
        decoder = networks.series_decoder(
            latent_size, shape, degree=degree, seasons=seasons, residual=network, **seen
        )
    if not autoregressive:
        layer = make(shape, network=decoder, **options)
    encoder = networks.sequence_encoder(
        shape,
        network,
        condition_shape=condition,
        name="encoder",
        **shared,
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
