"""Explanation of a hand-written VAE loss: which likelihood, scale and beta it trains."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from keras_vae.spelling import counted

__all__ = ["KL_REDUCTIONS", "REDUCTIONS", "LossExplanation", "explain_loss"]

Reconstruction = Literal["mse", "bce"]
Reduction = Literal["mean", "sum", "mean_channels"]
KLReduction = Literal["sum", "mean"]

REDUCTIONS: dict[str, str] = {
    "mean": "mean over all numbers of an example",
    "sum": "sum over all numbers of an example",
    "mean_channels": "mean over the last axis, sum over the others (Keras losses, then a sum)",
}
KL_REDUCTIONS: dict[str, str] = {
    "sum": "sum over the latents, the KL itself",
    "mean": "mean over the latents, the KL divided by their number",
}


@dataclass(frozen=True)
class LossExplanation:
    """Model that a loss R + w K trains.

    factor * (R + w K) + constant = distortion + beta * rate in nats per example.

    Attributes:
        likelihood: "Normal" or "Bernoulli".
        beta: weight of the rate against the distortion of a unit-variance Normal or a Bernoulli.
        scale: scale of the Normal with which the same loss has beta 1, sqrt(beta); None for a
            Bernoulli, which has no scale.
        factor: nats per unit of the loss.
        constant: nats that the loss leaves out, D/2 log 2 pi of the unit-variance Normal, else 0.
        constant_at_scale: the same for the Normal of that scale, D/2 log(2 pi scale^2).
        code: the same model in keras_vae.
        sentence: the whole explanation in words.

    Example:
        >>> found = explain_loss("mse", reduction="sum", data_shape=(28, 28, 1), latent_size=16)
        >>> found.likelihood, found.beta, found.factor
        ('Normal', 0.5, 0.5)
    """

    likelihood: Literal["Normal", "Bernoulli"]
    beta: float
    scale: float | None
    factor: float
    constant: float
    constant_at_scale: float | None
    code: str
    sentence: str


def explain_loss(
    reconstruction: Reconstruction = "mse",
    *,
    reduction: Reduction = "mean",
    kl_weight: float = 1.0,
    data_shape: Sequence[int],
    latent_size: int,
    kl_reduction: KLReduction = "sum",
) -> LossExplanation:
    """Finds the model that the loss R + w K trains; R and K are both averaged or both summed.

    R = c sum_d e_d and K = a KL, with c = 1 ("sum"), 1/D ("mean") or 1/channels ("mean_channels")
    and a = 1 ("sum") or 1/L ("mean"). With e = (x - m)^2 the distortion of a Normal of scale 1 is
    1/2 sum e + D/2 log 2 pi, so R + w K is 2 c times distortion + beta rate less a constant, with
    beta = w a / (2 c). Dividing by beta instead gives a Normal of scale sqrt(beta) with beta 1.
    With e the cross entropy of binary x the distortion is sum e and beta = w a / c.

    Args:
        reconstruction: "mse" or "bce" (cross entropy).
        reduction: how e is reduced over the D numbers of an example: "mean", "sum" or
            "mean_channels".
        kl_weight: w, positive.
        data_shape: shape of one example, such as (64, 64, 3).
        latent_size: L.
        kl_reduction: how the KL is reduced over the latents: "sum" or "mean".

    Raises:
        ValueError: if a word is unknown or a number is not positive.

    Example:
        >>> loss = explain_loss("mse", kl_weight=0.00025, data_shape=(64, 64, 3), latent_size=128)
        >>> loss.sentence.split(";")[0]
        'mean MSE + 0.00025 KL at 64x64x3 is a unit-variance Gaussian VAE with beta 1.54'
        >>> loss.beta
        1.536
    """
    shape = tuple(data_shape)
    _check(reconstruction, reduction, kl_reduction, kl_weight, shape, latent_size)
    size = math.prod(shape)
    per = {"mean": size, "sum": 1, "mean_channels": shape[-1]}[reduction]
    latents = 1 if kl_reduction == "sum" else latent_size
    error = "MSE" if reconstruction == "mse" else "BCE"
    words = {"mean": f"mean {error}", "sum": f"summed {error}"}
    name = words.get(reduction, f"{error} averaged over channels and summed over the rest")
    kl = "KL" if kl_reduction == "sum" else f"KL averaged over {counted(latent_size, 'latent')}"
    weight = "" if kl_weight == 1.0 else f"{kl_weight:g} "
    loss = f"{name} + {weight}{kl} at {'x'.join(map(str, shape))}"
    if reconstruction == "bce":
        beta = kl_weight * per / latents
        return LossExplanation(
            likelihood="Bernoulli",
            beta=beta,
            scale=None,
            factor=float(per),
            constant=0.0,
            constant_at_scale=None,
            code=(
                f"likelihood=keras_vae.Bernoulli({shape}), objective=keras_vae.ELBO(beta={beta:g})"
            ),
            sentence=(
                f"{loss} is a Bernoulli VAE with beta {_short(beta)}{_verdict(beta)}, if x is "
                "binary; on grey levels it is no log-likelihood, and ContinuousBernoulli has the "
                f"missing normaliser. One unit of the loss is {_short(per)} nats."
            ),
        )
    factor = 0.5 * per
    beta = kl_weight * factor / latents
    scale = math.sqrt(beta)
    constant = 0.5 * size * math.log(2.0 * math.pi)
    at_scale = constant + size * math.log(scale)
    same = math.isclose(beta, 1.0, rel_tol=1e-9)
    reading = "" if same else f"; read with beta 1 its scale is {_short(scale)}"
    return LossExplanation(
        likelihood="Normal",
        beta=beta,
        scale=scale,
        factor=factor,
        constant=constant,
        constant_at_scale=at_scale,
        code=f"likelihood=keras_vae.Normal({shape}, scale={scale:g}), objective=keras_vae.ELBO()",
        sentence=(
            f"{loss} is a unit-variance Gaussian VAE with beta {_short(beta)}{_verdict(beta)}"
            f"{reading}. One unit of the loss is {_short(factor)} nats, and it leaves out "
            f"{_short(constant)} nats{'' if same else f' ({_short(at_scale)} at that scale)'}."
        ),
    )


def _short(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 1000.0 else f"{number:.0f}"


def _verdict(beta: float) -> str:
    if math.isclose(beta, 1.0, rel_tol=1e-9):
        return ", hence a bound on log p(x)"
    return ""


def _check(
    reconstruction: str,
    reduction: str,
    kl_reduction: str,
    kl_weight: float,
    shape: tuple[int, ...],
    latent_size: int,
) -> None:
    for name, value, known in (
        ("reconstruction", reconstruction, ("mse", "bce")),
        ("reduction", reduction, tuple(REDUCTIONS)),
        ("kl_reduction", kl_reduction, tuple(KL_REDUCTIONS)),
    ):
        if value not in known:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected one of "
                f"{', '.join(map(repr, known))}. Received: {name}={value!r}"
            )
    if not 0.0 < kl_weight < math.inf:
        raise ValueError(
            "Invalid value for argument `kl_weight`. Expected a positive number (without a KL "
            f"there is no variational autoencoder). Received: kl_weight={kl_weight!r}"
        )
    if not shape or any(not isinstance(size, int) or size < 1 for size in shape):
        raise ValueError(
            "Invalid value for argument `data_shape`. Expected positive integers such as "
            f"(64, 64, 3). Received: data_shape={shape!r}"
        )
    if not isinstance(latent_size, int) or latent_size < 1:
        raise ValueError(
            "Invalid value for argument `latent_size`. Expected a positive integer. Received: "
            f"latent_size={latent_size!r}"
        )
