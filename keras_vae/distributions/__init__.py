"""Conditional distributions: layers that map a tensor to a law.

A conditional distribution is an event shape, a network and a head. The network maps the condition
to features, the head maps the features to the raw parameters, and `law` maps the parameters to a
TensorFlow Probability distribution. Likelihoods p(x | z) and posteriors q(z | x) are such layers.

A new family declares its support and its parameters, and overrides `law`, and `draw` if models
are to be sampled:

    @keras.saving.register_keras_serializable()
    class Logistic(Likelihood):
        @property
        def support(self):
            return supports.reals()

        def parameter_specs(self):
            return {"loc": Parameter(self.channels), "scale": Parameter(self.channels, positive)}

        def law(self, loc, scale):
            return self.independent(tfd.Logistic(loc, scale))

        def draw(self, seed, loc, scale):
            u = random.uniform(seed, self.event_shape, stream=random.OBSERVATION)
            return loc + scale * random.logistic(u)
"""

from keras_vae.distributions.base import ConditionalDistribution as ConditionalDistribution
from keras_vae.distributions.base import HeadSizeError as HeadSizeError
from keras_vae.distributions.base import Likelihood as Likelihood
from keras_vae.distributions.base import Parameter as Parameter
from keras_vae.distributions.base import Posterior as Posterior
from keras_vae.distributions.base import distribution_of as distribution_of
from keras_vae.distributions.base import inverse_positive as inverse_positive
from keras_vae.distributions.base import positive as positive
from keras_vae.distributions.likelihoods import Bernoulli as Bernoulli
from keras_vae.distributions.likelihoods import Binomial as Binomial
from keras_vae.distributions.likelihoods import Categorical as Categorical
from keras_vae.distributions.likelihoods import ContinuousBernoulli as ContinuousBernoulli
from keras_vae.distributions.likelihoods import DiscretizedLogistic as DiscretizedLogistic
from keras_vae.distributions.likelihoods import Laplace as Laplace
from keras_vae.distributions.likelihoods import Normal as Normal
from keras_vae.distributions.likelihoods import Poisson as Poisson
from keras_vae.distributions.posteriors import DiagonalNormal as DiagonalNormal
from keras_vae.distributions.posteriors import FullCovarianceNormal as FullCovarianceNormal
from keras_vae.distributions.posteriors import IsotropicNormal as IsotropicNormal
