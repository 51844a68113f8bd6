"""Posteriors q(z | x): families of normal laws over the latents, reparameterised."""

import tensorflow as tf

from keras_vae.arguments import register
from keras_vae.distributions import tfp
from keras_vae.distributions.base import Parameter, Posterior, positive
from keras_vae.distributions.tfp import tfd

__all__ = ["DiagonalNormal", "FullCovarianceNormal", "IsotropicNormal"]


@register
class DiagonalNormal(Posterior):
    """Normal q(z | x) with one scale per latent.

    Example:
        >>> q = DiagonalNormal(2).distribution(tf.zeros([5, 3]))
        >>> q.batch_shape, q.event_shape
        (TensorShape([5]), TensorShape([2]))
    """

    def parameter_specs(self) -> dict[str, Parameter]:
        """A centre and a scale per latent."""
        size = self.latent_size
        return {"loc": Parameter(size), "scale": Parameter(size, positive)}

    def law(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Independent normal laws."""
        return self.independent(tfp.Normal(loc, scale))

    def transport(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """The draw loc + scale noise."""
        return loc + scale * noise

    def log_volume(self, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Sum of the logarithms of the scales."""
        return tf.reduce_sum(tf.math.log(scale), axis=-1)


@register
class IsotropicNormal(Posterior):
    """Normal q(z | x) with one scale for all latents."""

    def parameter_specs(self) -> dict[str, Parameter]:
        """A centre per latent and one scale."""
        return {"loc": Parameter(self.latent_size), "scale": Parameter(1, positive)}

    def law(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Independent normal laws of the same scale."""
        return self.independent(tfp.Normal(loc, scale * tf.ones_like(loc)))

    def transport(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """The draw loc + scale noise."""
        return loc + scale * noise

    def log_volume(self, loc: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """L times the logarithm of the scale."""
        return self.latent_size * tf.math.log(scale[..., 0])


@register
class FullCovarianceNormal(Posterior):
    """Normal q(z | x) with any covariance, by its lower triangular factor `scale_tril`."""

    def parameter_specs(self) -> dict[str, Parameter]:
        """A centre per latent and the L (L + 1) / 2 numbers of the factor."""
        size = self.latent_size
        return {
            "loc": Parameter(size),
            "scale_tril": Parameter(
                size * (size + 1) // 2, lambda raw: tfp.fill_scale_tril(raw, size, positive)
            ),
        }

    def law(self, loc: tf.Tensor, scale_tril: tf.Tensor) -> tfd.Distribution:
        """Multivariate normal law."""
        return tfp.FullNormal(loc, scale_tril)

    def transport(self, noise: tf.Tensor, loc: tf.Tensor, scale_tril: tf.Tensor) -> tf.Tensor:
        """The draw loc + scale_tril noise."""
        return loc + tf.linalg.matvec(scale_tril, noise)

    def log_volume(self, loc: tf.Tensor, scale_tril: tf.Tensor) -> tf.Tensor:
        """Sum of the logarithms of the diagonal."""
        return tf.reduce_sum(tf.math.log(tf.linalg.diag_part(scale_tril)), axis=-1)
