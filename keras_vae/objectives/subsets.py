"""Bound of named parts, trained together with the bounds of some of them alone."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_vae import estimators
from keras_vae.arguments import as_weight, register
from keras_vae.estimators import Rate
from keras_vae.objectives.base import Objective, Terms, check_kl, with_penalties
from keras_vae.trace import Inference

__all__ = ["SubsetELBO"]


@register
class SubsetELBO(Objective):
    """ELBO of all parts, and in the loss also those of subsets of them from these alone.

    loss = -ELBO(x) - weight * sum over the subsets s of ELBO(x_s), where

        ELBO(x_s) = E_q(z | x_s)[sum over the parts m in s of log p(x_m | z)] - KL(q(z | x_s) || p)

    is a lower bound on log p(x_s). So q learns to do with any of the subsets, as `ProductOfExperts`
    needs it to: the product alone does not teach the single experts. `loss` is a weighted sum of
    several bounds and no bound on log p(x). `elbo`, `distortion` and `rate` are those of all parts,
    unweighted. `subsets` is the part of the loss that the subsets add. Each subset costs as much as
    the whole. Source: Wu and Goodman (2018), Multimodal generative models for scalable
    weakly-supervised learning, arXiv:1802.05335.

    Args:
        subsets: names of the parts of each subset; None is each part alone.
        weight: weight of the subsets, at least 0; may be scheduled.
        kl: how rates are computed, as for `ELBO`.
        num_samples: draws z per example, of the whole and of each subset.

    Raises:
        ValueError: if an argument is out of range, or in `compile` if the model has no named parts,
            a name is none of them, or a part that a subset hides may not be absent.

    Example:
        >>> SubsetELBO([("image",), ("label",)], weight=0.5).weight.numpy().item()
        0.5
    """

    metric_names = ("subsets",)

    def __init__(
        self,
        subsets: Sequence[Sequence[str]] | None = None,
        *,
        weight: float = 1.0,
        kl: Rate | None = None,
        num_samples: int = 1,
        name: str = "subset_elbo",
    ) -> None:
        super().__init__(num_samples, name=name)
        check_kl(kl)
        if subsets is not None and (
            not subsets or any(isinstance(each, str) or not each for each in subsets)
        ):
            raise ValueError(
                "Invalid value for argument `subsets`. Expected a list of lists of names of parts, "
                f"or None for each part alone. Received: {subsets!r}"
            )
        self.subsets = None if subsets is None else tuple(tuple(each) for each in subsets)
        self.kl = kl
        self.weight = self._schedulable("weight", as_weight("weight", weight))

    def check(self, inference: Inference, noise: Any) -> None:
        """Refuses a model without named parts, or one whose parts cannot be hidden."""
        super().check(inference, noise)
        if inference.of is None:
            raise ValueError(
                "SubsetELBO hides some of several named parts, which this model does not have: "
                "give its VAE a likelihood of Parts, or choose ELBO()."
            )
        self.terms(inference, noise)

    def terms(self, inference: Inference, noise: Any) -> Terms:
        """Returns the terms of the bound of all parts, and the loss with those of the subsets."""
        trace = inference.trace(noise)
        distortion, rate = estimators.elbo_terms(trace, self.kl)
        added = tf.zeros_like(rate)
        for names in self.subsets or [(name,) for name in trace.observations]:
            one = inference.of(names).trace(noise)  # type: ignore[misc]
            added += sum(estimators.elbo_terms(one, self.kl))
        added *= tf.cast(self.weight.value, added.dtype)
        loss = with_penalties(distortion + rate, trace) + added
        return Terms(loss, distortion, rate, {"subsets": added}, trace)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, with the present weight."""
        config = super().get_config()
        del config["gradient"]
        subsets = None if self.subsets is None else [list(each) for each in self.subsets]
        return {**config, "subsets": subsets, "kl": self.kl, "weight": float(self.weight.numpy())}
