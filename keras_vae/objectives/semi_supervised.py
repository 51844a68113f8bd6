"""Bound of data of which some examples are labelled."""

from typing import Any

import tensorflow as tf

from keras_vae import estimators
from keras_vae.arguments import as_count, as_weight, register
from keras_vae.estimators import Rate
from keras_vae.objectives.base import Objective, Terms, check_kl
from keras_vae.trace import Inference

__all__ = ["SemiSupervised"]


@register
class SemiSupervised(Objective):
    """ELBO with the label summed out, and a classifier's cross entropy: loss = -ELBO + classifier.

    For an example with the label y, and for one without, the ELBO is

        L(x, y) = E_q(z | x, y)[log p(x | y, z) + log p(z) - log q(z | x, y)] + log p(y)
        U(x)    = sum_y q(y | x) (L(x, y) - log q(y | x))

    which are lower bounds on log p(x, y) and log p(x). The sum over y is exact, or with
    `top_classes` an unbiased estimate that costs less. In L the classifier q(y | x) does not occur,
    so examples with a label also add -alpha log q(y | x) to the loss. This term is logged as
    `classifier`; it is no part of the bound, nor of `elbo`. Source: Kingma, Rezende, Mohamed and
    Welling (2014), Semi-supervised learning with deep generative models, arXiv:1406.5298.

    Args:
        alpha: weight of the classifier term of each labelled example, in the loss of which every
            example has the weight 1; may be scheduled. The paper's 0.1 N, for N examples of which M
            are labelled, is alpha = 0.1 N / M.
        label: name of the latent that is the label.
        kl: how the rate of the other latents is computed, as for `ELBO`.
        num_samples: draws of the other latents per label and example.
        top_classes: number T of the most probable classes of each example that are summed exactly;
            one of the others is drawn from q(y | x) and stands for all of them. The decoder then
            runs T + 1 times per example instead of once per class. The loss and its gradient keep
            their expectation. None sums all classes. Source: Liu, Regier, Tripuraneni, Jordan and
            McAuliffe (2019), Rao-Blackwellized stochastic gradients for discrete distributions,
            arXiv:1810.04777.

    Raises:
        ValueError: if an argument is out of range, or in `compile` if the model has no such latent.

    Example:
        >>> SemiSupervised(alpha=50.0).alpha.numpy().item()
        50.0
    """

    metric_names = ("classifier",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        label: str = "label",
        kl: Rate | None = None,
        num_samples: int = 1,
        top_classes: int | None = None,
        name: str = "semi_supervised",
    ) -> None:
        super().__init__(num_samples, name=name)
        check_kl(kl)
        self.label, self.kl = label, kl
        self.top_classes = top_classes
        if top_classes is not None:
            self.top_classes = as_count("top_classes", top_classes, least=1)
        self.alpha = self._schedulable("alpha", as_weight("alpha", alpha))

    def check(self, inference: Inference, noise: Any) -> None:
        """Refuses a model whose label cannot be summed out."""
        super().check(inference, noise)
        if self.label not in noise or inference.over is None:
            raise ValueError(
                f"SemiSupervised sums out the latent {self.label!r}, which this model does not "
                "have: build a keras_vae.SemiSupervisedVAE, or choose ELBO()."
            )

    def terms(self, inference: Inference, noise: Any) -> Terms:
        """Returns the bound's two terms, the sum over labels of each, and the loss."""
        distortion, rate, trace = estimators.summed_terms(
            inference, noise, self.label, self.kl, self.top_classes
        )
        classifier = tf.zeros_like(rate)
        for penalty in trace.latents[self.label].draw.penalties.values():
            classifier += tf.cast(self.alpha.value, rate.dtype) * penalty
        loss = distortion + rate + classifier
        return Terms(loss, distortion, rate, {"classifier": classifier}, trace)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments, with the present alpha."""
        config = super().get_config()
        del config["gradient"]
        return {
            **config,
            "label": self.label,
            "kl": self.kl,
            "alpha": float(self.alpha.numpy()),
            "top_classes": self.top_classes,
        }
