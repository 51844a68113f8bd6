"""Priors that are invertible functions of noise."""

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from keras_vae.arguments import register
from keras_vae.distributions.flows.steps import Autoregressive, Coupling, Step, Steps
from keras_vae.distributions.flows.transformed import Transformed
from keras_vae.distributions.noise import Draw, log_standard_normal
from keras_vae.distributions.priors import Prior
from keras_vae.distributions.tfp import tfd

__all__ = ["AutoregressivePrior", "FlowPrior"]


class _Flow(Prior):
    """Prior under which f(z) is standard normal, with an invertible f, the identity at first.

    log p(z) = log N(f(z); 0, I) + log |det df/dz|.

    Args:
        latent_size: number L of latents.
        num_layers: number of steps of f.
        hidden: widths of the hidden layers of the network of each step.
        transform: "affine", or "spline" for a monotone spline followed by an affine map.

    Raises:
        ValueError: if a number is out of range or the transform is unknown.
    """

    step: ClassVar[type[Step]]

    def __init__(
        self,
        latent_size: int,
        *,
        num_layers: int = 4,
        hidden: Sequence[int] = (64, 64),
        transform: str = "affine",
        **kwargs: Any,
    ) -> None:
        super().__init__(latent_size, **kwargs)
        self.steps = Steps(
            self.step,
            self.latent_size,
            num_layers=num_layers,
            hidden=hidden,
            transform=transform,
            dtype=self.float_dtype,
            name="steps",
        )

    def parameters(self, condition: Any = None) -> dict[str, Any]:
        """Returns the weights of the steps."""
        return {"steps": self.steps.tensors()}

    def make_distribution(self, steps: Any) -> tfd.Distribution:
        """Returns the distribution, which has a density but no moments in closed form."""
        return Transformed(
            tf.ones([self.latent_size], self.float_dtype),
            lambda z: self.steps.forward(steps, z),
            lambda noise: self.steps.inverse(steps, noise).value,
            type(self).__name__,
        )

    def draw(self, noise: tf.Tensor, steps: Any) -> Draw:
        """Draws the z at which f is the noise."""
        return Draw(self.steps.inverse(steps, noise).value)

    def log_density(self, z: tf.Tensor, steps: Any) -> tf.Tensor:
        """Returns log p(z), [B]."""
        noise, log_det = self.steps.forward(steps, z)
        return log_standard_normal(noise) + log_det

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "num_layers": self.steps.num_layers,
            "hidden": list(self.steps.hidden),
            "transform": self.steps.transform,
        }


@register
class FlowPrior(_Flow):
    """Trained prior under which f(z) is standard normal, f a stack of couplings.

    Density and draw take one pass. A new one is `StandardNormal`, to the last bit. Source: Dinh,
    Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, arXiv:1605.08803.

    Example:
        >>> float(FlowPrior(2)(tf.zeros([1, 2]))[0])  # -log 2 pi
        -1.837877...
    """

    step = Coupling


@register
class AutoregressivePrior(_Flow):
    """Trained prior p(z) = prod_j p(z_j | z_<j), in several orders with more than one step.

    The density takes one pass of each network; a draw takes L, one for each latent, so training is
    fast and sampling is slower. A new one is `StandardNormal`. Source: Papamakarios, Pavlakou and
    Murray (2017), Masked autoregressive flow, arXiv:1705.07057.

    Example:
        >>> AutoregressivePrior(2, num_layers=1).distribution().event_shape
        TensorShape([2])
    """

    step = Autoregressive
