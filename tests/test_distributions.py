"""Tests of every public layer, prior, objective and schedule, over their registry."""

import inspect
import json

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from keras.src import testing
from scipy import integrate

import keras_vae
from keras_vae import ELBO, IWAE, callbacks, random
from keras_vae.distributions.supports import reals
from keras_vae.distributions.tfp import tfd
from tests.models import mean_and_error, terms_of
from tests.registry import (
    ATOMS,
    CONDITIONALS,
    EVENT,
    LARGEST,
    LATENTS,
    LIKELIHOODS,
    OBJECTIVES,
    ORACLES,
    POSTERIORS,
    PRIORS,
    SCHEDULES,
    WIDTH,
    built,
    every,
    vae_of,
)


def public_classes(*kinds):
    names = {**vars(keras_vae.api), **vars(callbacks)}.values()
    classes = {value for value in names if inspect.isclass(value) and issubclass(value, kinds)}
    return {cls for cls in classes if not inspect.isabstract(cls) and cls.__name__[0] != "_"}


def test_registry_is_complete():
    registered = {
        keras_vae.ConditionalNormal,  # in test_structures.py: it needs a condition
        keras_vae.SemiSupervised,  # in test_semi_supervised.py: it needs a label
    }
    registered |= {  # in test_experts.py: they need named parts
        keras_vae.SubsetELBO,
        keras_vae.ProductOfExperts,
        keras_vae.MixtureOfExperts,
        keras_vae.MixtureOfProducts,
    }
    registered |= {  # in test_codes.py: prior and posterior need each other
        keras_vae.AutoregressiveCodes,
        keras_vae.CategoricalLatent,
        keras_vae.EnumeratedELBO,
        keras_vae.FiniteScalarQuantizer,
        keras_vae.LookupFreeQuantizer,
        keras_vae.RelaxedELBO,
        keras_vae.UniformCodes,
        keras_vae.VectorQuantizer,
    }
    registered |= {  # in test_flows.py: they have no moments
        keras_vae.CouplingFlow,
        keras_vae.InverseAutoregressiveFlow,
        keras_vae.FlowPrior,
        keras_vae.AutoregressivePrior,
    }
    registered |= {  # in test_heavy_tails.py: a draw is made of uniform numbers
        keras_vae.LaplacePosterior,
        keras_vae.LaplacePrior,
        keras_vae.StudentTPosterior,
        keras_vae.StudentTPrior,
    }
    registered |= {keras_vae.VonMisesFisher, keras_vae.UniformSphere}  # in test_spheres.py
    registered.add(keras_vae.NormalMixturePosterior)  # in test_mixtures.py
    registered.add(keras_vae.AutoregressiveLikelihood)  # in test_autoregressive.py
    registered |= {
        type(make())
        for registry in (LIKELIHOODS, POSTERIORS, PRIORS, OBJECTIVES, SCHEDULES)
        for make in registry.values()
    }
    public = public_classes(
        keras_vae.ConditionalDistribution,
        keras_vae.Prior,
        keras_vae.Objective,
        callbacks.LinearSchedule.__base__,
    )
    assert registered == public
    modes = {make().scale for make in LIKELIHOODS.values() if hasattr(make(), "scale")}
    assert modes >= {1.0, 0.3, "learned", "per_feature", "decoder", "optimal"}


def multivariate_normal(loc, scale=None, scale_tril=None):
    if scale_tril is None:
        scale_tril = [np.diag(row * np.ones_like(loc[0])) for row in scale]
    return lambda z: np.array(
        [
            scipy.stats.multivariate_normal(centre, factor @ factor.T).logpdf(point)
            for centre, factor, point in zip(loc, scale_tril, z, strict=True)
        ]
    )


@every["conditional"]
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float64", 1e-12)])
def test_log_prob_agrees_with_scipy(make, dtype, tolerance):
    layer, c = built(make, dtype=dtype)
    distribution = layer.distribution(c)
    event = distribution.sample(seed=3).numpy()
    assert event.dtype == dtype
    parameters = layer.parameters(c)
    numbers = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
    if type(layer) in ORACLES:
        expected = ORACLES[type(layer)](**numbers)(event.astype("float64")).sum(axis=(1, 2))
    else:
        expected = multivariate_normal(**numbers)(event.astype("float64"))
    # Sums of 6 terms of size up to 10, each with the rounding error of the dtype.
    np.testing.assert_allclose(
        distribution.log_prob(event), expected, atol=tolerance, rtol=tolerance
    )


def integral(distribution, support):
    """Integrates a density by the rule of midpoints, and adds point masses at the limits.

    The error is h^2 / 24 of the jump of the slope: h = 0.001, the scale of Laplace is 0.1. Powers
    of x and 1 - x, which are unbounded at the ends, are integrated over their logarithms.
    """
    if support.inside != 0.0 and support.low == 0.0:
        ends = np.linspace(-400.0, 400.0, 400_001)
        t = 0.5 * (ends[1:] + ends[:-1])
        if support.high is None:
            x, width = np.exp(t), np.exp(t)
        else:
            t = t[t < 30.0]  # 1 - x has few digits beyond
            x, width = scipy.special.expit(t), scipy.special.expit(t) * scipy.special.expit(-t)
        width = width * (ends[1] - ends[0])
    else:
        middle = float(distribution.mean()[0, 0])
        low = middle - 60.0 if support.low is None else support.low
        high = middle + 60.0 if support.high is None else support.high
        ends = np.linspace(low, high, 120_001)
        x, width = 0.5 * (ends[1:] + ends[:-1]), ends[1] - ends[0]
    total = np.sum(np.exp(distribution.log_prob(x[:, None])) * width)
    if support.is_discrete is None:
        limits = np.array([end for end in (support.low, support.high) if end is not None])
        total += np.sum(np.exp(distribution.log_prob(limits[:, None])))
    return total


@every["conditional"]
def test_distribution_is_normalised(make):
    size = ATOMS[type(make())].shape[-1] if type(make()) in ATOMS else 1
    layer, c = built(lambda **kwargs: make(size, **kwargs), dtype="float64")
    for row in c[:2]:
        distribution = layer.distribution(row[None])
        if type(layer) in ATOMS:
            total, error = np.exp(distribution.log_prob(ATOMS[type(layer)])).sum(), 1e-12
        else:
            support = layer.support if isinstance(layer, keras_vae.Likelihood) else reals()
            total, error = integral(distribution, support), 1e-5
            if isinstance(layer, keras_vae.Beta):  # the mass above 1 - exp(-30)
                error += np.exp(-30.0 * float(distribution.distribution.shapes()[1][0, 0]))
        assert total == pytest.approx(1.0, abs=error)


@every["conditional"]
def test_mean_and_seeded_draws_are_those_of_the_distribution(make):
    layer, c = built(make)
    c = np.repeat(c[:1], 20_000, axis=0)
    parameters = layer.parameters(c[:1])
    distribution = layer.make_distribution(**parameters)
    draws = layer.draw_rows(random.row_seeds(0, len(c)), **layer.parameters(c))
    assert draws.shape == (len(c), *layer.event_shape)
    samples = distribution.sample(len(c), seed=0)[:, 0]
    for numbers in (samples, draws):
        mean, error = mean_and_error(numbers)
        assert np.all(
            np.abs(mean - distribution.mean()[0]) <= 5 * error + 1e-6
        )  # 1 in 10^6; a constant
    (a, b), (c_error, d_error) = zip(
        *(mean_and_error(distribution.log_prob(numbers)) for numbers in (samples, draws)),
        strict=True,
    )
    assert abs(a - b) <= 5 * np.hypot(c_error, d_error) + 1e-6


def log_prob_and_slopes(layer, specs):
    @tf.function
    def of(numbers, event):
        with tf.GradientTape() as tape:
            tape.watch(numbers)
            parts = tf.split(numbers, [spec.size for spec in specs.values()], axis=-1)
            parameters = {
                name: spec.transform(part)
                for (name, spec), part in zip(specs.items(), parts, strict=True)
            }
            distribution = layer.make_distribution(**parameters, **layer.shared_parameters())
            log_prob = distribution.log_prob(event)
        return log_prob, tape.gradient(log_prob, numbers)

    return of


@every["likelihood"]
def test_extreme_parameters_leave_log_prob_and_gradient_finite(make):
    single, double = make(), make(dtype="float64")
    specs, top = single.parameter_specs(), LARGEST.get(type(single), 1e4)
    shape = (*EVENT[:-1], sum(spec.size for spec in specs.values()))
    support = single.support
    ends = [end for end in (support.low, support.high) if end is not None]
    numbers = np.float32([*ends, support.inside, 1e-30, 0.5, 1.0 - 2.0**-24, 1.0, 4.0])
    events = [np.full(EVENT, number, float) for number in np.unique(numbers)]
    slopes = [(layer, log_prob_and_slopes(layer, specs)) for layer in (single, double)]
    for event in [np.eye(3)[:2]] if support.is_one_hot else events:
        if not np.all(support.contains(tf.constant(event, tf.float32))):
            continue
        for raw in (-top, -80.0, -1.0, -1e-8, 0.0, 1e-3, 1.0, 80.0, top):
            found = []
            for layer, slopes_of in slopes:
                numbers = tf.fill(shape, tf.constant(raw, layer.float_dtype))
                numbers *= tf.cast(tf.linspace(0.5, 1.0, shape[-1]), layer.float_dtype)
                log_prob, by_raw = slopes_of(numbers, event.astype(layer.float_dtype))
                found.append([*np.ravel(by_raw), float(log_prob)])
            assert np.all(np.isfinite(found[0])), (raw, event)
            scale = max(1.0, np.abs(found[1]).max())
            np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-5 * scale)  # float32 and double


@every["conditional"]
def test_leading_axes_fold_into_the_batch(make):
    layer, _ = built(make)
    c = np.random.default_rng(4).normal(size=(3, 6, WIDTH)).astype("float32")
    folded = layer.head_parameters(c)
    looped = [layer.head_parameters(part) for part in c]
    for name, value in folded.items():
        expected = np.stack([part[name] for part in looped])
        np.testing.assert_allclose(value, expected, atol=1e-6)  # matmul of another height
    distribution = layer.distribution(c)
    assert (distribution.batch_shape, distribution.event_shape) == ((3, 6), layer.event_shape)
    assert layer.distribution(c[0]).batch_shape == (6,)


@every["conditional"]
def test_half_precision_stays_inside_the_network(make):
    half, c = built(make, network=False, dtype="mixed_float16")
    single, _ = built(make, network=False)
    single.set_weights(half.get_weights())
    np.testing.assert_array_equal(half(c), single(c))
    assert np.asarray(half(c)).dtype == "float32"


@every["conditional"]
def test_config_makes_the_same_layer(make):
    for head in (None, keras.layers.Dense(make()._total_size, use_bias=False)):
        layer = make(network=keras.layers.Dense(5), head=head, name="distribution")
        config = json.loads(json.dumps(layer.get_config()))
        again = type(layer).from_config(config)
        assert again.get_config() == layer.get_config()
        assert (again.event_shape, again.name) == (layer.event_shape, "distribution")


@pytest.mark.parametrize("first", range(3))
def test_layers_live_in_functional_models_and_files(first, tmp_path):
    """A third of all in a model, which is traced, saved and loaded once."""
    layers, (c, *_) = zip(*map(built, [*CONDITIONALS.values()][first::3]), strict=True)
    inputs, outer = keras.Input((WIDTH,)), keras.Input((WIDTH,))
    outputs = [layer(inputs) for layer in layers]
    model = keras.Model(outer, keras.Model(inputs, outputs)(outer))
    before = model.predict(c, verbose=0)
    for layer, output, value in zip(layers, outputs, before, strict=True):
        assert output.shape == (None, *layer.event_shape)
        assert value.shape == (6, *layer.event_shape)
        mean = layer.distribution(c).mean()
        np.testing.assert_allclose(value, mean, rtol=2e-6, atol=1e-6)  # graph and eager
        assert np.any(layer(c, training=True) != layer(c, training=True))
    model.save(tmp_path / "m.keras")
    after = keras.saving.load_model(tmp_path / "m.keras").predict(c, verbose=0)
    for one, other in zip(after, before, strict=True):
        np.testing.assert_array_equal(one, other)


FIRST = {type(make()): name for name, make in reversed(CONDITIONALS.items())}.values()
OF_EACH_CLASS = {name: CONDITIONALS[name] for name in (*FIRST, "normal_learned")}


# Keras' own test feeds `fit` a generator, of which Keras warns that it will not be shuffled.
@pytest.mark.filterwarnings("ignore:.shuffle=True. was passed:UserWarning")
@pytest.mark.parametrize("make", OF_EACH_CLASS.values(), ids=OF_EACH_CLASS)
def test_keras_accepts_the_layer(make):
    layer = make()
    arguments = inspect.signature(type(layer)).parameters
    config = {name: value for name, value in layer.get_config().items() if name in arguments}
    testing.TestCase().run_layer_test(
        type(layer),
        init_kwargs={**config, "network": keras.layers.Dense(4)},
        input_shape=(5, WIDTH),
        expected_output_shape=(5, *layer.event_shape),
        expected_num_trainable_weights=4 + len(layer.trainable_weights),
        expected_num_non_trainable_weights=len(layer.non_trainable_weights),
        expected_num_seed_generators=1,
        expected_num_losses=0,
        supports_masking=False,
        assert_built_after_instantiation=False,
        # Draws of a discrete distribution have no gradient; families below train them by log_prob.
        run_training_check=type(layer) in (keras_vae.Normal, keras_vae.Laplace),
    )


@every["posterior"]
def test_a_draw_knows_its_density(make):
    layer, c = built(make, dtype="float64")
    parameters, noise = layer.parameters(c), np.random.default_rng(0).normal(size=(6, LATENTS))
    draw = layer.draw(noise, **parameters)
    expected = layer.make_distribution(**parameters).log_prob(draw.value)
    np.testing.assert_allclose(draw.log_prob, expected, atol=1e-12)


@pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS)
@every["prior"]
def test_prior_is_the_mixture_it_says(make, posterior):
    prior = vae_of(prior=make, posterior=posterior, dtype="float64")[0].prior
    distribution, (logits, loc, scale) = prior.distribution(), prior.components()
    assert (distribution.batch_shape, distribution.event_shape) == ((), (LATENTS,))
    z = distribution.sample(50, seed=0)
    factors = tf.linalg.diag(scale) if len(scale.shape) == 2 else scale
    mixture = tfd.MixtureSameFamily(
        tfd.Categorical(logits=logits), tfd.MultivariateNormalTriL(loc, factors)
    )
    np.testing.assert_allclose(distribution.log_prob(z), mixture.log_prob(z), atol=1e-12)
    np.testing.assert_array_equal(prior(z), distribution.log_prob(z))
    assert prior.compute_output_shape((None, LATENTS)) == (None,)

    draws = prior.draw_rows(random.row_seeds(0, 20_000))
    constants = {name: value.numpy() for name, value in prior.parameters().items()}
    np.testing.assert_allclose(
        prior.log_density(z, **constants), distribution.log_prob(z), atol=1e-12
    )
    mean, error = mean_and_error(draws)
    assert np.all(np.abs(mean - distribution.mean()) <= 5 * error)  # 1 in 10^6
    (a, b), (e, f) = zip(
        *(
            mean_and_error(distribution.log_prob(x))
            for x in (draws, distribution.sample(20_000, seed=1))
        ),
        strict=True,
    )
    assert abs(a - b) <= 5 * np.hypot(e, f)

    again = type(prior).from_config(json.loads(json.dumps(prior.get_config())))
    assert again.get_config() == prior.get_config()


def test_divergence_of_a_full_from_a_diagonal_normal_is_that_of_two_full_ones():
    q, c = built(POSTERIORS["full"], dtype="float64")
    q = q.distribution(c)
    loc, scale = np.random.default_rng(0).normal(size=(2, LATENTS))
    diagonal = tfd.Independent(tfd.Normal(loc, np.exp(scale)), 1)
    full = tfd.MultivariateNormalTriL(loc, np.diag(np.exp(scale)))
    expected = tfd.kl_divergence(tfd.MultivariateNormalTriL(q.loc, q.scale_tril), full)
    np.testing.assert_allclose(tfd.kl_divergence(q, diagonal), expected, atol=1e-12)


@every["prior"]
def test_prior_is_normalised(make):
    one = make(1, dtype="float64")
    keras_vae.VAE(
        prior=one,
        likelihood=keras_vae.Normal(2, dtype="float64"),
        posterior=keras_vae.DiagonalNormal(1, dtype="float64"),
        dtype="float64",
    )
    points = np.linspace(-60.0, 60.0, 4001)
    total = integrate.trapezoid(np.exp(one(points[:, None])), points)
    assert total == pytest.approx(1.0, abs=1e-10)  # the rule is spectral for normal bumps


@every["objective"]
def test_objective_reports_the_bound_whatever_it_optimises(make):
    vae, x = vae_of()
    objective = make()
    terms = terms_of(vae, objective, x, 3)
    assert {tuple(part.shape) for part in terms[:3]} == {(16,)}
    plain = terms_of(vae, ELBO(kl="monte_carlo", num_samples=objective.num_samples), x, 3)
    np.testing.assert_allclose(terms.distortion, plain.distortion, rtol=1e-6)  # float32
    if objective.get_config().get("kl") == "monte_carlo" or objective.gradient != "pathwise":
        np.testing.assert_allclose(terms.rate, plain.rate, rtol=1e-5)  # a difference of two logs
    else:
        assert np.all(terms.rate > 0.0) or isinstance(objective, IWAE)

    config = json.loads(json.dumps(objective.get_config()))
    again = type(objective).from_config(config)
    assert again.get_config() == objective.get_config()
    np.testing.assert_array_equal(terms_of(vae, again, x, 3).loss, terms.loss)
    with pytest.raises(ValueError, match="gradient"):
        type(objective).from_config({**config, "gradient": "guess"})


def test_estimators_change_gradients_and_never_values():
    vae, x = vae_of()
    for a, b in (
        (ELBO(kl="monte_carlo"), ELBO(gradient="sticking_the_landing")),
        (IWAE(4), IWAE(4, gradient="doubly_reparameterized")),
    ):
        np.testing.assert_array_equal(*(terms_of(vae, each, x, 3).loss for each in (a, b)))


@every["schedule"]
def test_schedule_goes_from_start_to_stop_and_stays(make):
    schedule = make()
    values = np.array([schedule.value_at(epoch) for epoch in np.linspace(0.0, 20.0, 2001)])
    low, high = sorted((schedule.start, schedule.stop))
    assert values[0] == schedule.start
    assert np.all((values >= low) & (values <= high))
    assert schedule.value_at(schedule.epochs_needed) == pytest.approx(schedule.stop, rel=1e-12)
    assert schedule.value_at(20.0) == schedule.value_at(1e6) == schedule.stop


def test_a_head_of_ones_own_keeps_the_pixels():
    decoder = keras.Sequential([keras.layers.Dense(12), keras.layers.Reshape((2, 3, 2))])
    layer = keras_vae.Normal((2, 3, 1), decoder, scale="decoder", head=keras.layers.Conv2D(2, 1))
    z = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    distribution = layer.distribution(z)
    raw = layer.head(decoder(z))
    np.testing.assert_allclose(distribution.mean()[..., 0], raw[..., 0], atol=1e-6)  # float32
    expected = keras_vae.distributions.positive(raw[..., 1])
    np.testing.assert_allclose(distribution.stddev()[..., 0], expected, rtol=1e-6)


@every["prior"]
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "float64"])
def test_prior_returns_the_dtype_that_it_declares(make, dtype):
    prior = vae_of(prior=make, dtype=dtype)[0].prior
    z = np.zeros((4, LATENTS), "float16" if dtype == "mixed_float16" else dtype)
    declared = prior.compute_output_spec(keras.KerasTensor(z.shape, z.dtype.name))
    found = prior(z)
    assert (declared.shape, declared.dtype) == (tuple(found.shape), prior.float_dtype)
    assert keras.backend.standardize_dtype(found.dtype) == prior.float_dtype


def test_prior_with_a_build_of_its_own_is_built_by_the_model():
    class Built(keras_vae.StandardNormal):
        def build(self, input_shape):
            self.shift = self.add_weight(name="shift", shape=input_shape[1:])
            self.built = True

        def distribution(self):
            return tfd.MultivariateNormalDiag(tf.convert_to_tensor(self.shift))

    prior = Built(2)
    assert not prior.built
    vae = keras_vae.VAE(
        prior=prior, likelihood=keras_vae.Normal(3), posterior=keras_vae.DiagonalNormal(2)
    )
    assert prior.built
    assert any(weight is prior.shift for weight in vae.trainable_weights)


@every["posterior"]
def test_posterior_has_its_moments(make):
    layer, c = built(make, dtype="float64")
    distribution = layer.distribution(c)
    np.testing.assert_allclose(distribution.stddev() ** 2, distribution.variance(), rtol=1e-12)
    np.testing.assert_allclose(
        tf.linalg.diag_part(distribution.covariance()), distribution.variance(), rtol=1e-12
    )
    draws = distribution.sample(20_000, seed=1).numpy()
    expected = np.cov(draws[:, 0], rowvar=False)
    size = np.sqrt(np.outer(distribution.variance()[0], distribution.variance()[0]))
    assert np.max(np.abs(distribution.covariance()[0] - expected) / size) < 5 * (2 / 20_000) ** 0.5
    with pytest.raises(NotImplementedError, match="an event of one axis"):
        keras_vae.Normal((2, 3)).distribution(c).covariance()


@pytest.mark.parametrize(
    "layer",
    [
        keras_vae.Categorical((2, 2, 1, 3)),
        keras_vae.MixtureOfLogistics((2, 2, 3), levels=5, num_logistics=2),
    ],
)
def test_means_of_many_draws_of_images_have_more_axes_than_a_softmax_takes(layer):
    c = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    layer.build((None, 3))
    mean = layer.distribution(c).mean()
    assert mean.shape == (4, 5, *layer.event_shape)
    # The same arithmetic in float32, of other batches.
    np.testing.assert_allclose(mean[1], layer.distribution(c[1]).mean(), rtol=1e-5)
