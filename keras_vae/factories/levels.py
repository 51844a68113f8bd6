"""Models with several levels of latents."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from keras_vae.arguments import as_shape
from keras_vae.factories.assembly import (
    LIKELIHOODS,
    as_condition,
    image_head,
    look_up,
    seen_by_decoder,
    seen_by_encoder,
)
from keras_vae.hierarchical import HierarchicalVAE, conv_levels, dense_levels
from keras_vae.hierarchical.block import Kind

__all__ = ["hierarchical_vae"]


def hierarchical_vae(
    event_shape: int | Sequence[int],
    latent_sizes: Sequence[int],
    likelihood: str = "bernoulli",
    *,
    structure: Kind = "ladder",
    network: Literal["mlp", "conv"] = "mlp",
    hidden: Sequence[int] | None = None,
    hidden_above: Sequence[int] | None = None,
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
        structure: "ladder", "residual" or "bottom_up", the kind of `keras_vae.TopDownBlock`;
            "bottom_up" is for `network="mlp"`.
        network: "mlp", or "conv" for images, whose latents are images too: one level at each
            halving of the size.
        hidden: widths of the layers of each level, from the bottom up, None is (200, 200); with
            convolutions the filters of each halving, None is 16, 32, 64, 64, ..., one for each
            level.
        hidden_above: widths of the layers between each other level and the one below it, from the
            bottom up; None is `hidden`. Only of "ladder" and "bottom_up" with `network="mlp"`.
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
    shape, condition = as_shape(event_shape, "hierarchical_vae"), as_condition(condition_shape)
    make = look_up("likelihood", LIKELIHOODS, likelihood)
    kind = look_up("structure", {name: name for name in get_args(Kind)}, structure)
    look_up("network", dict.fromkeys(("mlp", "conv")), network)
    if kind == "bottom_up" and network == "conv":
        raise ValueError(
            "hierarchical_vae(structure='bottom_up') has Dense layers alone: choose network='mlp', "
            "or structure='ladder' or 'residual'."
        )
    if hidden_above is not None and (kind == "residual" or network == "conv"):
        raise ValueError(
            "hidden_above is for structure='ladder' or 'bottom_up' with network='mlp'; residual "
            "levels share one state, and convolutions have one level at each halving. Leave it out."
        )
    counts = as_shape(latent_sizes, "hierarchical_vae(latent_sizes=)")
    if hidden is None and network == "conv":
        hidden = [min(16 * 2**level, 64) for level in range(len(counts))]
    elif hidden is None:
        hidden = (200, 200)
    sizes = {f"z{index + 1}": size for index, size in enumerate(counts)}
    flat = make(shape, **likelihood_options)
    seen = seen_by_encoder(flat)
    if network == "mlp":
        of_decoder = seen_by_decoder(condition, likelihood_options)
        above = hidden if hidden_above is None else hidden_above
        levels = dense_levels(
            shape, sizes, kind, hidden, above, activation, condition, of_decoder, **seen
        )
        layer = make(shape, network=levels.decoder, **likelihood_options)
    else:
        if condition is not None:
            raise ValueError(
                "hierarchical_vae(network='conv') takes no condition: choose network='mlp', or "
                "build a HierarchicalVAE of blocks that read it."
            )
        levels = conv_levels(shape, sizes, kind, hidden, activation, **seen)
        layer = make(shape, network=levels.decoder, head=image_head(flat), **likelihood_options)
    return HierarchicalVAE(
        encoder=levels.encoder,
        blocks=levels.blocks,
        likelihood=layer,
        condition_shape=condition,
    )
