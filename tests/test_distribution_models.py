"""Tests of every model that the registry makes: files, dtypes, XLA, and gradients everywhere."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae
from export import manifest
from keras_vae import ELBO, random
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare
from keras_vae.distributions.noise import Draw
from keras_vae.distributions.tfp import tfd
from tests import test_distributions
from tests.models import binary, compiled, terms_of, tiny_vae
from tests.registry import (
    EVENT,
    LATENTS,
    MODELS,
    OBJECTIVES,
    OPTIONS,
    PRIORS,
    every_model,
    likelihood,
    vae_of,
)


def test_pseudo_inputs_stay_in_the_range_of_the_data():
    vae, _ = vae_of(prior=PRIORS["vamp"])
    (u,) = vae.prior.pseudo_inputs
    assert np.all((u >= 0.0) & (u <= 1.0))
    before = vae.encode(np.ones((1, *EVENT)))
    u.assign(np.full(u.shape, 7.0))
    z = before.sample(9, seed=0)[:, 0]
    np.testing.assert_allclose(  # every component is the posterior at 1, the largest value
        vae.prior.distribution().log_prob(z), before.log_prob(z[:, None])[:, 0], rtol=1e-5
    )


@every_model
def test_gradient_reaches_every_weight(distributions):
    vae, x = vae_of(**distributions)
    with tf.GradientTape() as tape:
        terms = terms_of(vae, ELBO(), x, 0, training=True)
    weights = vae.trainable_weights
    gradients = tape.gradient(terms.loss, weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.any(gradient), weight.path


@every_model
def test_model_file_keeps_the_model(distributions, tmp_path):
    vae, x = vae_of(**distributions)
    compiled(vae).fit(x, epochs=1, verbose=0)
    vae.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.elbo(x, seed=1).elbo, vae.elbo(x, seed=1).elbo)
    for call in (lambda each: each.reconstruct(x), lambda each: each.sample(5, seed=1)):
        keras.tree.map_structure(np.testing.assert_array_equal, call(again), call(vae))
    assert json.dumps(again.get_config()) == json.dumps(vae.get_config())  # lists for tuples


@every_model
@pytest.mark.parametrize("dtype", ["mixed_float16", "float64"])
def test_model_trains_in_other_dtypes(distributions, dtype):
    floatx = "float64" if dtype == "float64" else "float32"
    keras.config.set_floatx(floatx)  # which the fixture of conftest.py sets back
    vae, x = vae_of(**distributions, dtype=dtype)
    history = compiled(vae).fit(x, batch_size=8, verbose=0).history
    assert np.all(np.isfinite([history[name] for name in history]))
    q, p = vae.encode(x), tf.nest.flatten(vae.decode(np.zeros((2, LATENTS))))
    means = [each.mean() for each in (q, *p)]
    found = [*means, *tf.nest.flatten(vae.sample(2)), vae.elbo(x).elbo]
    assert {each.dtype.name for each in found} == {floatx}
    assert {weight.dtype for weight in vae.weights} == {floatx}


def test_data_beyond_half_precision_reaches_the_network_whole():
    policy = {"dtype": "mixed_float16"}
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2, **policy),
        likelihood=keras_vae.Normal(3, **policy),
        posterior=keras_vae.DiagonalNormal(2, **policy),
        **policy,
    )
    x = np.array([[1e5, 1.0001, -1e5]], "float32")  # half precision ends at 65504
    mean = vae.decode(vae.encode(x).mean()).mean()
    assert np.all(np.isfinite(mean))
    for found in (vae(x), vae.reconstruct(x), vae.predict(x, verbose=0)):
        np.testing.assert_allclose(found, mean, rtol=1e-6)  # eager and graph


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_factories_follow_the_policy(policy):
    keras.config.set_dtype_policy(policy)  # which the fixture of conftest.py clears
    vae = keras_vae.conv_vae((7, 5, 3), 2, "normal", scale="decoder", filters=(2,), width=4)
    compiled(vae).fit(np.zeros((4, 7, 5, 3)), verbose=0)
    expected = "float64" if policy == "float64" else "float32"
    assert {weight.dtype for weight in vae.weights} == {expected}
    assert vae.sample(2).dtype == vae.likelihood.float_dtype == expected


@pytest.mark.parametrize("name", [*MODELS, *sorted(OBJECTIVES.keys() - {"elbo", "elbo_beta"})])
def test_model_trains_under_xla(name):
    objective = OBJECTIVES.get(name, ELBO)()
    vae, x = vae_of(**MODELS.get(name, {}))
    before = [weight.numpy() for weight in vae.trainable_weights]
    vae.compile("sgd", objective, jit_compile=True)
    logs = vae.fit(x, batch_size=16, verbose=0).history  # a batch that is not whole is not compiled
    assert vae._loop._train.experimental_get_tracing_count() == 1
    assert np.all(np.isfinite([logs[name] for name in logs]))
    assert all(np.any(a != b) for a, b in zip(before, vae.trainable_weights, strict=True))


@keras.saving.register_keras_serializable()
class Logistic(keras_vae.Likelihood):
    """The recipe in the docstring of `keras_vae.distributions`."""

    @property
    def support(self):
        return keras_vae.distributions.supports.reals()

    def parameter_specs(self):
        positive = keras_vae.distributions.positive
        return {
            "loc": keras_vae.Parameter(self.channels),
            "scale": keras_vae.Parameter(self.channels, positive),
        }

    def make_distribution(self, loc, scale):
        return self.independent(tfd.Logistic(loc, scale))

    def draw(self, noise, loc, scale):
        return Draw(loc + scale * random.logistic(noise))


def test_a_user_defined_family_passes_the_same_tests(tmp_path):
    make = likelihood(Logistic)
    test_distributions.test_mean_and_seeded_draws_are_those_of_the_distribution(make)
    test_distributions.test_leading_axes_fold_into_the_batch(make)
    test_distributions.test_config_makes_the_same_layer(make)
    test_model_file_keeps_the_model({"likelihood": make}, tmp_path)


@keras.saving.register_keras_serializable()
class Geometric(keras_vae.Likelihood):
    """Counts, each less probable than the one before by the same factor."""

    reading = "P(x) = (1 - p) p^x, p = 1 / (1 + exp(-logits))."

    def __init__(self, event_shape, network=None, *, slowest=0.99, **kwargs):
        self.slowest = slowest
        super().__init__(event_shape, network, **kwargs)

    @property
    def support(self):
        return keras_vae.distributions.supports.integers()

    @classmethod
    def prepare(cls, facts):
        return Preparation(), {"slowest": facts.zeros}

    def raw_mean(self, mean):
        return np.log(mean)

    def parameter_specs(self):
        return {"logits": keras_vae.Parameter(self.channels)}

    def make_distribution(self, logits):
        return self.independent(tfd.Geometric(logits=-logits))

    def get_config(self):
        return {**super().get_config(), "slowest": self.slowest}


def test_what_a_family_of_ones_own_says_is_heard():
    counts = np.array([[0.0, 3.0], [1.0, 0.0]])
    assert prepare(Geometric, counts) == (Preparation(), {"slowest": 0.5})
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(LATENTS),
        likelihood=Geometric(2, slowest=0.5),
        posterior=keras_vae.DiagonalNormal(LATENTS),
    )
    vae.likelihood.head.kernel.assign(np.zeros((LATENTS, 2)))
    keras_vae.factories.start_at_mean(vae, counts.mean(axis=0))
    np.testing.assert_allclose(vae.decode(np.ones((1, LATENTS))).mean()[0], [0.5, 1.5], rtol=1e-6)
    about = manifest.metadata(vae, Preparation())
    assert about["data"]["whole"]
    assert about["likelihood"] == {
        "family": "Geometric",
        "parameters": ["logits"],
        "options": {"slowest": 0.5},
        "how_to_read": Geometric.reading,
        "discrete": True,
        "threshold": False,
    }


def test_factories_make_every_family_by_name():
    names = keras_vae.factories
    for name in names.LIKELIHOODS:
        assert type(tiny_vae(name, **OPTIONS.get(name, {})).likelihood) is names.LIKELIHOODS[name]
    others, on_sphere = "standard_normal", {"von_mises_fisher": "uniform_sphere"}
    pairs = [(posterior, on_sphere.get(posterior, others)) for posterior in names.POSTERIORS]
    pairs += [("full", prior) for prior in names.PRIORS if prior != "uniform_sphere"]
    for posterior, prior in pairs:
        vae = tiny_vae(posterior=posterior, prior=prior, num_components=3)
        assert type(vae.posterior) is names.POSTERIORS[posterior]
        assert type(vae.prior) is names.PRIORS[prior]
        assert np.all(np.isfinite(vae.elbo(binary(4)).elbo))
