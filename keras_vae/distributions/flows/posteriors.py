"""Posteriors that are invertible functions of noise."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_vae.arguments import as_count, register
from keras_vae.distributions.base import Parameter, Posterior, positive
from keras_vae.distributions.flows.steps import Autoregressive, Coupling, Moved, Step, Steps
from keras_vae.distributions.flows.transformed import Transformed
from keras_vae.distributions.noise import Draw, log_standard_normal
from keras_vae.distributions.tfp import tfd

__all__ = ["CouplingFlow", "InverseAutoregressiveFlow"]


class _Flow(Posterior):
    """Posterior z = loc + scale f(noise; context) with an invertible f, the identity at first.

    Args:
        latent_size: number L of latents.
        network: the encoder, from x to features.
        num_layers: number of steps of f.
        hidden: widths of the hidden layers of the network of each step.
        transform: "affine", or "spline" for a monotone spline followed by an affine map.
        context_size: how many numbers of x the steps see, which the head emits; None is 16 or the
            number of latents, whichever is more. With 0 all x share one f.
        head: layer from features to raw parameters; None is one Dense layer.

    Raises:
        ValueError: if a number is out of range or the transform is unknown.
    """

    scores_draws = True
    step: ClassVar[type[Step]]

    def __init__(
        self,
        latent_size: int,
        network: keras.layers.Layer | None = None,
        *,
        num_layers: int = 4,
        hidden: Sequence[int] = (64, 64),
        transform: str = "affine",
        context_size: int | None = None,
        head: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        given = max(16, as_count("latent_size", latent_size, least=1))
        self.context_size = as_count(
            "context_size", given if context_size is None else context_size, least=0
        )
        super().__init__(latent_size, network, head=head, **kwargs)
        self.steps = Steps(
            self.step,
            self.latent_size,
            num_layers=num_layers,
            hidden=hidden,
            transform=transform,
            context_size=self.context_size,
            dtype=self.float_dtype,
            name="steps",
        )

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns a centre and a scale per latent, and the context of the steps."""
        size = self.latent_size
        specs = {"loc": Parameter(size), "scale": Parameter(size, positive)}
        return specs | ({"context": Parameter(self.context_size)} if self.context_size else {})

    def own_weights(self) -> dict[str, Any]:
        """Returns the weights of the steps."""
        return {"steps": self.steps.tensors()}

    def make_distribution(
        self, loc: tf.Tensor, scale: tf.Tensor, steps: Any, context: tf.Tensor | None = None
    ) -> tfd.Distribution:
        """Returns the distribution, which has a density but no moments in closed form."""

        def to_noise(z: tf.Tensor) -> Moved:
            noise, log_det = self.steps.inverse(steps, (z - loc) / scale, context)
            return Moved(noise, -log_det)

        def to_value(noise: tf.Tensor) -> tf.Tensor:
            return loc + scale * self.steps.forward(steps, noise, context).value

        return Transformed(scale, to_noise, to_value, type(self).__name__)

    def draw(
        self,
        noise: tf.Tensor,
        loc: tf.Tensor,
        scale: tf.Tensor,
        steps: Any,
        context: tf.Tensor | None = None,
    ) -> Draw:
        """Draws loc + scale f(noise)."""
        value, log_det = self.steps.forward(steps, noise, context)
        log_volume = tf.reduce_sum(tf.math.log(scale), axis=-1) + log_det
        return Draw(loc + scale * value, log_standard_normal(noise) - log_volume)

    def centre(self, parameters: dict[str, tf.Tensor], needed_by: str) -> tf.Tensor:
        """Returns the draw at noise 0, [B, L]."""
        return self.centre_of_noise(parameters)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor arguments."""
        return {
            **super().get_config(),
            "num_layers": self.steps.num_layers,
            "hidden": list(self.steps.hidden),
            "transform": self.steps.transform,
            "context_size": self.context_size,
        }


@register
class CouplingFlow(_Flow):
    """Posterior z = loc + scale f(noise; context), f a stack of couplings.

    Each coupling moves half of the latents given the other half and numbers of x, so that draws
    and densities take one pass, and q can have correlations, skewness and several modes. A new
    flow is `DiagonalNormal`, to the last bit. Source: Dinh, Sohl-Dickstein and Bengio (2017),
    Density estimation using Real NVP, arXiv:1605.08803.

    Example:
        >>> q = CouplingFlow(2).distribution(tf.zeros([5, 3]))
        >>> q.batch_shape, q.event_shape
        (TensorShape([5]), TensorShape([2]))
    """

    step = Coupling


@register
class InverseAutoregressiveFlow(_Flow):
    """Posterior z = loc + scale f(noise; context), f a stack of autoregressive maps.

    Each step moves every number given the noise before it. A draw and its density take one pass,
    but the density of another point would take L passes for each step: it is refused, and so is
    what needs it. Train it with gradient="pathwise". A new flow is `DiagonalNormal`. Source:
    Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling (2016), Improving variational
    inference with inverse autoregressive flow, arXiv:1606.04934.

    Example:
        >>> flow = InverseAutoregressiveFlow(2)
        >>> parameters = flow.parameters(tf.zeros([5, 3]))
        >>> flow.draw(tf.zeros([5, 2]), **parameters).log_prob.shape
        TensorShape([5])
    """

    step = Autoregressive
    tells_density = False

    def make_distribution(self, *args: Any, **parameters: Any) -> tfd.Distribution:
        """Refuses: only the draws of an inverse autoregressive flow know their density.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "InverseAutoregressiveFlow knows only the density of its own draws, not that of other "
            "points; choose CouplingFlow where it is needed."
        )
