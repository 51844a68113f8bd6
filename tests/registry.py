"""Registry of every public layer, prior, objective and schedule, for the laws they all obey."""

import keras
import numpy as np
import pytest

import keras_vae
from keras_vae import ELBO, IWAE, callbacks

EVENT, LATENTS, WIDTH = (2, 3), 3, 4


def likelihood(cls, **options):
    return lambda event=EVENT, **kwargs: cls(event, **{**options, **kwargs})


def latent(cls, **options):
    return lambda latents=LATENTS, **kwargs: cls(latents, **{**options, **kwargs})


LIKELIHOODS = {
    "bernoulli": likelihood(keras_vae.Bernoulli),
    "continuous_bernoulli": likelihood(keras_vae.ContinuousBernoulli),
    "normal": likelihood(keras_vae.Normal),
    "normal_fixed": likelihood(keras_vae.Normal, scale=0.3),
    "normal_learned": likelihood(keras_vae.Normal, scale="learned"),
    "normal_per_feature": likelihood(keras_vae.Normal, scale="per_feature"),
    "normal_decoder": likelihood(keras_vae.Normal, scale="decoder"),
    "normal_optimal": likelihood(keras_vae.Normal, scale="optimal"),
    "laplace_decoder": likelihood(keras_vae.Laplace, scale="decoder"),
    "laplace_optimal": likelihood(keras_vae.Laplace, scale="optimal"),
    "discretized_logistic": likelihood(keras_vae.DiscretizedLogistic, levels=5),
    "discretized_logistic_learned": likelihood(
        keras_vae.DiscretizedLogistic, levels=5, scale="learned"
    ),
    "binomial": likelihood(keras_vae.Binomial, total_count=5),
    "categorical": likelihood(keras_vae.Categorical),
    "poisson": likelihood(keras_vae.Poisson),
}
POSTERIORS = {
    "diagonal": latent(keras_vae.DiagonalNormal),
    "isotropic": latent(keras_vae.IsotropicNormal),
    "full": latent(keras_vae.FullCovarianceNormal),
}
PRIORS = {
    "standard_normal": latent(keras_vae.StandardNormal),
    "normal_mixture": latent(keras_vae.NormalMixture, num_components=4),
    "vamp": latent(keras_vae.VampPrior, num_components=4),
}
OBJECTIVES = {
    "elbo": ELBO,
    "elbo_analytic": lambda: ELBO(kl="analytic", num_samples=2),
    "elbo_monte_carlo": lambda: ELBO(kl="monte_carlo"),
    "elbo_sticking": lambda: ELBO(gradient="sticking_the_landing"),
    "elbo_beta": lambda: ELBO(beta=0.5),
    "elbo_free_bits": lambda: ELBO(free_bits=0.1),
    "elbo_capacity": lambda: ELBO(capacity=2.0),
    "iwae": lambda: IWAE(3),
    "iwae_doubly": lambda: IWAE(3, gradient="doubly_reparameterized"),
}
SCHEDULES = {
    "linear": lambda: callbacks.LinearSchedule("beta", start=0.1, stop=2.0, epochs=3),
    "linear_down": lambda: callbacks.LinearSchedule("beta", start=2.0, stop=0.5, epochs=0.5),
    "cyclical": lambda: callbacks.CyclicalSchedule("beta", stop=2.0, cycle_epochs=2, cycles=3),
}
CONDITIONALS = {**LIKELIHOODS, **POSTERIORS}

every = {
    "likelihood": pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS),
    "posterior": pytest.mark.parametrize("make", POSTERIORS.values(), ids=POSTERIORS),
    "prior": pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS),
    "objective": pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES),
    "schedule": pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES),
    "conditional": pytest.mark.parametrize("make", CONDITIONALS.values(), ids=CONDITIONALS),
}

# One VAE for each law beside plain partners, and one for each objective.
MODELS = {
    **{name: {"likelihood": make} for name, make in LIKELIHOODS.items()},
    **{name: {"posterior": make} for name, make in POSTERIORS.items()},
    **{name: {"prior": make} for name, make in PRIORS.items()},
    "vamp_full": {"prior": PRIORS["vamp"], "posterior": POSTERIORS["full"]},
}
every_model = pytest.mark.parametrize("laws", MODELS.values(), ids=MODELS)


def built(make, network=True, condition=WIDTH, **kwargs):
    """The layer with a hidden layer, moved off its initial state, and conditions [6, 4]."""
    hidden = keras.layers.Dense(5, "tanh", dtype=kwargs.get("dtype")) if network else None
    layer = make(network=hidden, **kwargs)
    c = np.random.default_rng(0).normal(size=(6, condition)).astype(layer.law_dtype)
    layer.build(c.shape)
    rng = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign_add(0.5 * rng.normal(size=weight.shape))
    return layer, c


def vae_of(likelihood=None, posterior=None, prior=None, dtype=None):
    """A VAE of the laws given, and 16 examples of data from its support."""

    def dense(activation=None):
        return keras.layers.Dense(5, activation, dtype=dtype)

    vae = keras_vae.VAE(
        prior=(prior or PRIORS["standard_normal"])(dtype=dtype),
        likelihood=(likelihood or LIKELIHOODS["bernoulli"])(network=dense("tanh"), dtype=dtype),
        posterior=(posterior or POSTERIORS["diagonal"])(
            network=keras.Sequential([keras.layers.Flatten(dtype=dtype), dense("tanh")]),
            dtype=dtype,
        ),
        dtype=dtype,
    )
    return vae, np.array(vae.sample(16, seed=1), vae.likelihood.law_dtype)
