"""Named parts, absent entries, and encoders that are told what is absent."""

import keras
import numpy as np
import pandas
import pytest
import registry
import tensorflow as tf
from models import mixed_vae
from sklearn.datasets import load_digits

import keras_vae
from keras_vae import DiagonalNormal, Parts, PartsEncoder, StandardNormal
from keras_vae.trace import Observation


def dense(width=6, **kwargs):
    return keras.layers.Dense(width, "tanh", **kwargs)


def mixed_data(count=40):
    rng = np.random.default_rng(0)
    x = {
        "age": rng.normal(size=(count, 1)),
        "image": rng.integers(0, 2, (count, 2, 2, 1)).astype("float32"),
        "label": np.eye(3)[rng.integers(0, 3, count)],
        "visits": rng.poisson(3.0, (count, 1)).astype("float64"),
    }
    present = {name: rng.random(count) < 0.6 for name in ("age", "label", "visits")}
    return x, present


def hide(x, present, hidden=np.nan):
    """Returns the data with what is absent replaced."""
    return {
        name: np.where(present[name].reshape(-1, *[1] * (value.ndim - 1)), value, hidden)
        if name in present
        else value
        for name, value in x.items()
    }


def test_parts_that_are_all_normal_are_one_normal_with_a_scale_per_feature_bit_for_bit():
    columns = ["a/b", "c (%)", "d.e", "f", "g"]
    parts = keras_vae.VAE(
        prior=StandardNormal(2),
        likelihood=Parts(
            {name: keras_vae.Normal(1, scale="learned") for name in columns}, network=dense()
        ),
        posterior=DiagonalNormal(2, network=PartsEncoder(dense(), complete=columns)),
    )
    whole = keras_vae.VAE(
        prior=StandardNormal(2),
        likelihood=keras_vae.Normal(5, network=dense(), scale="per_feature"),
        posterior=DiagonalNormal(2, network=dense()),
    )
    heads = [parts.likelihood.parts[name].head for name in columns]
    kernels, biases = zip(*(head.get_weights() for head in heads), strict=True)
    whole.likelihood.head.set_weights([np.concatenate(kernels, 1), np.concatenate(biases)])
    whole.likelihood.network.set_weights(parts.likelihood.network.get_weights())
    whole.posterior.set_weights(parts.posterior.get_weights())
    raw = np.linspace(-1, 1, 5).astype("float32")
    whole.likelihood.raw_scale.assign(raw)
    for name, value in zip(columns, raw, strict=True):
        parts.likelihood.parts[name].raw_scale.assign(value)
    x = np.random.default_rng(0).normal(size=(50, 5)).astype("float32")
    frame = pandas.DataFrame(x, columns=columns)
    for found, expected in zip(parts.elbo(frame, seed=0), whole.elbo(x, seed=0), strict=True):
        np.testing.assert_array_equal(found, expected)
    drawn, sampled = parts.sample(7, seed=3), whole.sample_mean(7, seed=3)
    means = parts.sample_mean(7, seed=3)
    np.testing.assert_array_equal(np.concatenate([means[name] for name in columns], 1), sampled)
    assert all(len(np.unique(drawn[name])) == 7 for name in columns)


def test_what_is_hidden_changes_nothing_bit_for_bit():
    vae, (x, present) = mixed_vae(fill="learned"), mixed_data()
    bounds = [
        vae.elbo({**x, "present": present}, seed=0),
        vae.elbo(hide(x, present), seed=0),
        vae.elbo({**hide(x, present, 7.0), "present": present}, seed=0),
        vae.elbo({**hide(x, present, np.inf), "present": present}, seed=0),
    ]
    for other in bounds[1:]:
        for found, expected in zip(other, bounds[0], strict=True):
            np.testing.assert_array_equal(found, expected)
    complete = vae.elbo(x, seed=0).elbo.numpy()
    assert (bounds[0].elbo.numpy() != complete).sum() > 20


def test_data_without_holes_has_the_bound_of_a_model_that_allows_none():
    x = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
    bounds = []
    for missing in (False, True):
        vae = keras_vae.VAE(
            prior=StandardNormal(2),
            likelihood=keras_vae.Normal(4, network=dense(), scale=0.5, missing=missing),
            posterior=DiagonalNormal(2, network=PartsEncoder(dense())),
        )
        bounds.append((vae, vae.elbo))
    bounds[1][0].set_weights(bounds[0][0].get_weights())
    for found, expected in zip(bounds[0][1](x, seed=0), bounds[1][1](x, seed=0), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_an_example_of_which_nothing_is_present_has_the_bound_minus_its_rate():
    vae, (x, _) = mixed_vae(), mixed_data(5)
    single = keras_vae.VAE(
        prior=StandardNormal(2),
        likelihood=keras_vae.Normal(4, network=dense(), missing=True),
        posterior=DiagonalNormal(2, network=PartsEncoder(dense())),
    )
    bound = single.elbo(np.full((3, 4), np.nan), seed=0)
    np.testing.assert_array_equal(bound.distortion, np.zeros(3))
    np.testing.assert_array_equal(bound.elbo, -bound.rate)
    image_alone = vae.elbo({"image": x["image"]}, seed=0)
    p = vae.decode(np.zeros([1, 2]))["image"]
    assert np.isfinite(image_alone.elbo).all()
    assert p.event_shape == (2, 2, 1)


def test_the_joint_of_observed_entries_is_exact_for_digits_with_holes():
    """DESIGN's oracle: log p(x_O, z) - log p(z | x_O) is log p(x_O) at every z."""
    x = load_digits().data / 16.0
    observed = np.random.default_rng(0).random(x.shape) < 0.5
    model = keras_vae.LinearGaussian.fit(x, 10)
    vae = keras_vae.VAE(
        prior=StandardNormal(10, dtype="float64"),
        likelihood=keras_vae.Normal(64, scale=model.scale, missing=True, dtype="float64"),
        posterior=DiagonalNormal(10, network=PartsEncoder(dtype="float64"), dtype="float64"),
        dtype="float64",
    )
    vae.likelihood.head.set_weights([model.weights.T, model.bias])
    holes = np.where(observed, x, np.nan)
    q = model.posterior(holes)
    z = q.sample(seed=1)
    log_prob = (vae.log_joint(holes, z) - q.log_prob(z)).numpy()
    np.testing.assert_allclose(log_prob, model.log_prob(holes), rtol=0, atol=1e-9)
    # The value was computed by two other programs; the rest is the rounding of 1797 sums.
    np.testing.assert_allclose(log_prob.mean(), 7.128464028, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in registry.LIKELIHOODS if "optimal" not in name])
def test_absent_variables_reach_no_log_probability_and_no_gradient(name):
    """Holds for each likelihood with 2 x 3 entries, in half of the examples absent as a whole."""
    make = registry.LIKELIHOODS[name]
    layer, c = registry.built(make, missing=True)
    x = layer.draw_rows(keras_vae.random.row_seeds(0, len(c)), **layer.parameters(c))
    support = layer.support
    part = keras_vae.training.data_spec.Part(layer.event_shape, support, "", True)
    absent = np.arange(len(c)) % 2 == 0
    holes = np.where(absent.reshape(-1, 1, 1), np.nan, x)
    mask, filler = part.mask_of(tf.constant(holes))
    with tf.GradientTape() as tape:
        p = layer.distribution(tf.constant(c)[tf.newaxis])
        log_prob = Observation(tf.constant(holes), p, mask, filler).log_prob()
    np.testing.assert_array_equal(log_prob[0].numpy()[absent], 0.0)
    present = layer.distribution(tf.constant(c[~absent])[tf.newaxis])
    expected = present.log_prob(tf.gather(x, np.flatnonzero(~absent)))
    np.testing.assert_allclose(log_prob[0].numpy()[~absent], expected[0], rtol=2e-6, atol=2e-6)
    weights = layer.trainable_weights
    gradients = tape.gradient(log_prob, weights)
    with tf.GradientTape() as tape:
        p = layer.distribution(tf.constant(c[~absent])[tf.newaxis])
        log_prob = p.log_prob(tf.gather(x, np.flatnonzero(~absent)))
    for found, wanted in zip(gradients, tape.gradient(log_prob, weights), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_fit_trains_parts_with_holes_and_a_saved_model_is_the_same(tmp_path):
    vae, (x, present) = mixed_vae(fill="learned", drop=0.2), mixed_data(200)
    x = hide(x, present)
    vae.compile(keras.optimizers.Adam(0.01), monitor=True)
    history = vae.fit(x, epochs=20, batch_size=50, validation_data=x, verbose=0).history
    assert history["val_elbo"][-1] > history["val_elbo"][0] + 0.5
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    np.testing.assert_array_equal(loaded.elbo(x, seed=0).elbo, vae.elbo(x, seed=0).elbo)
    for name, value in loaded.predict(x, verbose=0).items():
        np.testing.assert_array_equal(value, vae.predict(x, verbose=0)[name])
    few = {name: value[:6] for name, value in x.items()}
    exact = keras_vae.evaluation.log_marginal(vae, few, method="quadrature").value
    assert exact.mean() > vae.elbo(few, num_samples=200, seed=0).elbo.numpy().mean()


def test_a_dataset_of_parts_is_read_by_fit_and_predict():
    x = mixed_data()[0]
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(20)
    vae = mixed_vae()
    vae.compile("adam")
    history = vae.fit(dataset, validation_data=dataset, verbose=0).history
    assert np.isfinite(history["val_elbo"]).all()
    for name, value in vae.predict(x, verbose=0).items():
        # Products of 20 rows and of 40 may add in another order.
        np.testing.assert_allclose(vae.predict(dataset, verbose=0)[name], value, rtol=1e-6)


def test_a_frame_a_masked_array_and_missing_values_of_pandas_are_the_same_data():
    vae, (x, present) = mixed_vae(), mixed_data(12)
    expected = vae.elbo(hide(x, present), seed=0).elbo
    masked = {
        name: np.ma.masked_array(
            value, np.broadcast_to(~present[name].reshape(-1, *[1] * (value.ndim - 1)), value.shape)
        )
        if name in present
        else value
        for name, value in x.items()
    }
    np.testing.assert_array_equal(vae.elbo(masked, seed=0).elbo, expected)
    series = {
        **hide(x, present),
        "visits": pandas.Series(
            [
                int(v) if there else pandas.NA
                for v, there in zip(x["visits"][:, 0], present["visits"], strict=True)
            ],
            dtype="Int64",
        ),
        "age": [
            v if there else None for v, there in zip(x["age"][:, 0], present["age"], strict=True)
        ],
    }
    np.testing.assert_array_equal(vae.elbo(series, seed=0).elbo, expected)


def test_samples_are_dicts_whose_rows_are_functions_of_the_seed():
    vae = mixed_vae()
    many, few = vae.sample(9, seed=5), vae.sample(4, seed=5)
    assert list(many) == ["age", "image", "label", "visits"]
    for name, value in few.items():
        np.testing.assert_array_equal(value, many[name][:4])
    assert (np.asarray(many["label"]).sum(-1) == 1).all()


def test_a_mixture_of_posteriors_is_a_prior_for_parts_too():
    vae, (x, present) = mixed_vae(), mixed_data()
    vae = keras_vae.VAE(
        prior=keras_vae.VampPrior(2, 3), likelihood=vae.likelihood, posterior=vae.posterior
    )
    vae.compile()
    history = vae.fit(hide(x, present), verbose=0).history
    assert np.isfinite(history["loss"][0])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image": None}, "'image' is not given"),
        ({"aeg": np.zeros(4)}, "'aeg' too. Did you mean 'age'"),
        ({"label": np.array([[1, 0, np.nan]] * 4)}, "as a whole; that of example 0 is NaN in some"),
        ({"image": np.full((4, 2, 2, 1), np.nan)}, r"Bernoulli \(image\) was given nan"),
        ({"visits": np.array([1.0, 2.5, 1.0, 0.0])}, r"Poisson \(visits\) models counts"),
        ({"age": np.zeros((4, 2))}, r"age must have shape \[n, 1\]"),
        ({"age": np.zeros(3)}, "age has 3 examples and image 4"),
        ({"present": {"agee": np.ones(4, bool)}}, "booleans by part"),
        ({"present": {"age": np.ones(3, bool)}}, r"present\['age'\] must be booleans"),
        ({"age": np.array(["a", "b", "c", "d"])}, "age must be an array of numbers"),
    ],
)
def test_wrong_parts_are_refused_by_name(change, match):
    vae, (x, _) = mixed_vae(), mixed_data(4)
    changed = {name: value for name, value in {**x, **change}.items() if value is not None}
    with pytest.raises(keras_vae.DataError, match=match):
        vae.elbo(changed)


def test_an_encoder_that_does_not_take_absent_entries_is_refused():
    with pytest.raises(ValueError, match="does not take absent entries"):
        keras_vae.VAE(
            prior=StandardNormal(2),
            likelihood=keras_vae.Normal(3, missing=True),
            posterior=DiagonalNormal(2, network=dense()),
        )
    with pytest.raises(ValueError, match="no network that joins them"):
        keras_vae.VAE(
            prior=StandardNormal(2),
            likelihood=Parts({"a": keras_vae.Normal(3)}),
            posterior=DiagonalNormal(2),
        )


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ({}, ValueError, "one likelihood or more"),
        ({"a": keras.layers.Dense(1)}, TypeError, "Invalid part 'a'"),
        ({"": keras_vae.Normal(1)}, ValueError, "Expected names"),
        ({"condition": keras_vae.Normal(1)}, ValueError, "other than condition"),
    ],
)
def test_wrong_arguments_of_parts_are_refused(parts, error, match):
    with pytest.raises(error, match=match):
        Parts(parts)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"fill": "mean"}, ValueError, "`fill`"),
        ({"drop": 1.0}, ValueError, "`drop`"),
        ({"networks": {"age": 3}}, TypeError, "network of age"),
    ],
)
def test_wrong_arguments_of_the_encoder_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        PartsEncoder(**arguments)


def test_an_encoder_names_only_parts_that_exist():
    with pytest.raises(ValueError, match="names the part 'aeg'"):
        PartsEncoder(complete=["aeg"]).build({"age": (None, 1)})


def test_an_optimal_scale_is_that_of_the_present_entries():
    rng = np.random.default_rng(0)
    x = np.where(rng.random((400, 3)) < 0.7, rng.normal(2.0, 0.5, (400, 3)), np.nan)
    vae = keras_vae.VAE(
        prior=StandardNormal(1),
        likelihood=keras_vae.Normal(3, scale="optimal", missing=True),
        posterior=DiagonalNormal(1, network=PartsEncoder()),
    )
    kernel, _ = vae.likelihood.head.get_weights()
    vae.likelihood.head.set_weights([0.0 * kernel, np.full(3, 2.0)])
    vae.infer(x.astype("float32"), training=True).trace({"z": np.zeros((1, 400, 1), "float32")})
    expected = np.sqrt(np.nanmean((x - 2.0) ** 2))
    # The closed form of the first batch, in float32.
    scale = vae.likelihood.shared_parameters()["scale"]
    np.testing.assert_allclose(scale, expected, rtol=1e-5)


def test_bidirectional_monte_carlo_brackets_a_model_of_parts():
    bracket = keras_vae.evaluation.bdmc(
        mixed_vae(), 2, num_chains=2, temperatures=20, leapfrog_steps=1
    )
    assert sorted(bracket.x) == ["age", "image", "label", "visits"]
    assert -0.5 < bracket.width < 0.5


def test_bidirectional_monte_carlo_draws_from_a_conditional_prior():
    vae = keras_vae.VAE(
        prior=keras_vae.ConditionalNormal(1, network=dense()),
        likelihood=keras_vae.Normal(
            2, network=keras_vae.networks.mlp((1,), (4,), condition_shape=(2,))
        ),
        posterior=DiagonalNormal(
            1, network=keras_vae.networks.mlp((2,), (4,), condition_shape=(2,))
        ),
        condition_shape=2,
    )
    condition = np.eye(2)[[0, 1, 0, 1]]
    few = {"num_chains": 2, "temperatures": 20, "leapfrog_steps": 1}
    bracket = keras_vae.evaluation.bdmc(vae, 4, condition=condition, **few)
    assert -0.5 < bracket.width < 0.5
    with pytest.raises(ValueError, match="each of 5 examples; got 4"):
        keras_vae.evaluation.bdmc(vae, 5, condition=condition)
