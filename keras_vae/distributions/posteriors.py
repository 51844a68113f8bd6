"""Posteriors q(z | x): families of normal distributions over the latents, reparameterised."""

import tensorflow as tf

from keras_vae.arguments import register
from keras_vae.distributions import tfp
from keras_vae.distributions.base import Parameter, Posterior, positive
from keras_vae.distributions.noise import Draw, log_standard_normal
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
        """Returns a centre and a scale per latent."""
        size = self.latent_size
        return {"loc": Parameter(size), "scale": Parameter(size, positive)}

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent normal distributions."""
        return self.independent(tfp.Normal(loc, scale))

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws loc + scale noise."""
        log_det = tf.reduce_sum(tf.math.log(scale), axis=-1)
        return Draw(loc + scale * noise, log_standard_normal(noise) - log_det)


@register
class IsotropicNormal(Posterior):
    """Normal q(z | x) with one scale for all latents.

    Example:
        >>> q = IsotropicNormal(2).distribution(tf.ones([1, 3]))
        >>> scale = q.stddev().numpy()[0]
        >>> bool(scale[0] == scale[1])
        True
    """

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns a centre per latent and one scale."""
        return {"loc": Parameter(self.latent_size), "scale": Parameter(1, positive)}

    def make_distribution(self, loc: tf.Tensor, scale: tf.Tensor) -> tfd.Distribution:
        """Returns independent normal distributions of the same scale."""
        return self.independent(tfp.Normal(loc, scale * tf.ones_like(loc)))

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor) -> Draw:
        """Draws loc + scale noise."""
        log_det = self.latent_size * tf.math.log(scale[..., 0])
        return Draw(loc + scale * noise, log_standard_normal(noise) - log_det)


@register
class FullCovarianceNormal(Posterior):
    """Normal q(z | x) with any covariance, by its lower triangular factor `scale_tril`.

    Example:
        >>> FullCovarianceNormal(2).distribution(tf.zeros([5, 3])).covariance().shape
        TensorShape([5, 2, 2])
    """

    def parameter_specs(self) -> dict[str, Parameter]:
        """Returns a centre per latent and the L (L + 1) / 2 numbers of the factor."""
        size = self.latent_size
        return {
            "loc": Parameter(size),
            "scale_tril": Parameter(
                size * (size + 1) // 2, lambda raw: tfp.fill_scale_tril(raw, size, positive)
            ),
        }

    def make_distribution(self, loc: tf.Tensor, scale_tril: tf.Tensor) -> tfd.Distribution:
        """Returns a multivariate normal distribution."""
        return tfp.FullNormal(loc, scale_tril)

    def draw(self, noise: tf.Tensor, loc: tf.Tensor, scale_tril: tf.Tensor) -> Draw:
        """Draws loc + scale_tril noise."""
        log_det = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(scale_tril)), axis=-1)
        value = loc + tf.linalg.matvec(scale_tril, noise)
        return Draw(value, log_standard_normal(noise) - log_det)
