"""Imputation and classification against exact conditional distributions."""

import keras
import numpy as np
import pandas
import pytest
import tensorflow as tf

import keras_vae
from keras_vae import (
    DiagonalNormal,
    FullCovarianceNormal,
    Parts,
    PartsEncoder,
    StandardNormal,
    imputation,
    random,
)
from keras_vae.distributions import inverse_positive
from keras_vae.distributions.noise import from_rows
from keras_vae.training.data_spec import Part
from tests.models import digits, linear_gaussian

ERRORS = 4.0  # standard errors: one comparison in 16 000 fails by chance, and seeds are fixed


class ExactHead(keras.layers.Layer):
    """Raw parameters of the posterior of a linear-Gaussian model given what is present."""

    def __init__(self, model, full, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.model, self.full = model, full

    def call(self, x):
        w, b, s = self.model.weights, self.model.bias, self.model.scale
        present = tf.cast(~tf.math.is_nan(x), x.dtype)
        residual = tf.where(present > 0, x - b, tf.zeros_like(x))
        eye = np.eye(w.shape[1])
        precision = tf.einsum("dl,bd,dm->blm", w, present, w) + s**2 * eye
        loc = tf.linalg.solve(precision, (residual @ w)[..., None])[..., 0]
        if not self.full:
            return tf.concat([loc, inverse(s / tf.sqrt(tf.linalg.diag_part(precision)))], -1)
        factor = s * tf.linalg.cholesky(tf.linalg.inv(precision))
        below = [factor[:, row, :row] for row in range(w.shape[1])]
        return tf.concat([loc, inverse(tf.linalg.diag_part(factor)), *below], -1)


def inverse(scale):
    return tf.ensure_shape(tf.numpy_function(inverse_positive, [scale], scale.dtype), scale.shape)


def with_holes(model, full=True):
    """Makes the VAE of a linear-Gaussian model whose q is its best one for every set of holes."""
    size, latents = model.weights.shape
    kind = FullCovarianceNormal if full else DiagonalNormal
    vae = keras_vae.VAE(
        prior=StandardNormal(latents, dtype="float64"),
        likelihood=keras_vae.Normal(size, scale=model.scale, missing=True, dtype="float64"),
        posterior=kind(latents, head=ExactHead(model, full, dtype="float64"), dtype="float64"),
        dtype="float64",
    )
    vae.likelihood.head.set_weights([model.weights.T, model.bias])
    return vae


def hidden(x, share=0.5, seed=0):
    return np.where(np.random.default_rng(seed).random(x.shape) < share, x, np.nan)


def test_imputation_of_digits_with_holes_reaches_the_exact_error():
    """DESIGN's oracle: the exact conditional mean has the squared error 0.039632044."""
    x = digits()
    model, holes = keras_vae.LinearGaussian.fit(x, 10), hidden(x)
    found = with_holes(model).impute(holes, num_samples=100, seed=0)
    absent = np.isnan(holes)
    np.testing.assert_array_equal(found.values[~absent], x[~absent])
    np.testing.assert_allclose(found.ess, 100.0, rtol=1e-9)  # every weight of the exact q is equal
    exact = model.impute(holes)
    assert abs(np.mean((exact - x)[absent] ** 2) - 0.039632044) < 1e-8
    # The draws add the variance of E[x given z] over 100, at most that of x given x_O: 3.1e-4.
    error = np.mean((found.values - x)[absent] ** 2)
    assert 0.0 < error - 0.039632044 < 4e-4


def test_weights_correct_a_diagonal_posterior_to_the_exact_conditional_mean():
    model = linear_gaussian()
    vae = with_holes(model, full=False)
    x = np.array([[0.5, np.nan, -1.0, np.nan, 2.0], [np.nan, 1.0, np.nan, 0.3, np.nan]])
    exact, many = model.impute(x), 40000
    found = vae.impute(x, num_samples=many, seed=1)
    spread = np.linalg.norm(model.weights, axis=1)  # at least the deviation of E[x given z]
    error = spread / np.sqrt(found.ess.min())
    assert (np.abs(found.values - exact) <= ERRORS * error).all()
    unweighted = vae.encode(x).mean() @ model.weights.T + model.bias
    np.testing.assert_allclose(unweighted, np.where(np.isnan(x), exact, unweighted), atol=1e-9)
    assert (found.ess < 0.95 * many).all()


def test_multiple_imputations_are_draws_of_the_exact_conditional():
    """Moments of 2000 draws of four absent entries, which are correlated given the fifth."""
    model = linear_gaussian()
    x = np.array([[0.5, np.nan, np.nan, np.nan, np.nan]])
    found = with_holes(model, full=False).impute(x, 5000, multiple=2000, seed=2)
    w = model.weights[1:]
    covariance = w @ model.posterior(x).covariance()[0].numpy() @ w.T
    covariance += model.scale**2 * np.eye(4)
    draws, variance = found.draws[:, 0, 1:], np.diag(covariance)
    error = np.sqrt(variance * (1 / 2000 + 1 / found.ess[0]))
    assert (np.abs(draws.mean(0) - model.impute(x)[0, 1:]) <= ERRORS * error).all()
    # The deviation of an empirical covariance of normals is at most sqrt(2 / n) of the variances.
    error = np.sqrt(2 * np.outer(variance, variance) * (1 / 2000 + 1 / found.ess[0]))
    assert (np.abs(np.cov(draws.T) - covariance) <= ERRORS * error).all()
    assert (np.abs(covariance) > 2 * ERRORS * error).sum() > 6  # so independent draws fail
    np.testing.assert_array_equal(found.draws[:, 0, 0], 0.5)


def test_intervals_cover_as_often_as_they_say_even_with_the_seed_that_drew_the_data():
    model = linear_gaussian()
    vae = with_holes(model)
    x = vae.sample(3000, seed=7).numpy()
    found = vae.impute(hidden(x, 0.6), 100, multiple=19, interval=0.9, seed=7)
    absent = np.isnan(hidden(x, 0.6))
    inside = np.where(absent, (found.lower <= x) & (x <= found.upper), np.nan)
    by_row = np.nansum(inside - 0.9, axis=1)
    error = by_row.std() * np.sqrt(len(x)) / absent.sum()
    assert abs(np.nanmean(inside) - 0.9) <= ERRORS * error
    assert error < 0.005
    for end in (found.lower, found.upper):
        np.testing.assert_array_equal(end[~absent], x[~absent])


def test_numbers_do_not_depend_on_chunks_of_draws_or_rows(monkeypatch):
    model = linear_gaussian()
    vae, x = (
        with_holes(model, full=False),
        hidden(linear_gaussian().marginal().sample(9, 0).numpy()),
    )
    seeds = random.row_seeds(3, 9)
    noise = from_rows(vae.noise(), seeds, 50, "float64")
    statistics = {"x": lambda p: p.mean()}
    whole = imputation.posterior_draws(vae, tf.constant(x), noise, statistics)
    for at_once in (7, 25, 49, 50):
        parts = imputation.posterior_draws(vae, tf.constant(x), noise, statistics, at_once)
        for found, expected in zip(tf.nest.flatten(parts), tf.nest.flatten(whole), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)  # rounding
    expected = vae.impute(x, 50, multiple=4, seed=3)
    few = vae.impute(x[:4], 50, multiple=4, seed=3)
    np.testing.assert_allclose(few.draws, expected.draws[:, :4], rtol=1e-11, atol=1e-12)
    monkeypatch.setattr(type(vae), "_rows_at_once", lambda self, draws=1: max(1, 20 // draws))
    chunked = vae.impute(x, 50, multiple=4, seed=3)
    for found, wanted in zip(chunked, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)


def test_data_that_is_complete_comes_back_bit_for_bit():
    vae = with_holes(linear_gaussian())
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    found = vae.impute(x, multiple=3, seed=0)
    for value in (found.values, found.mean, found.lower, found.upper, *found.draws):
        np.testing.assert_array_equal(value, x)
        assert value.dtype == x.dtype
    assert np.isnan(found.ess).all()


# One latent, and parts of every kind, so that quadrature over z is exact


def mixed(dtype="float64"):
    """Makes a model of one latent with parts of every kind."""
    keras.utils.set_random_seed(5)
    options = {"missing": True, "dtype": dtype}
    vae = keras_vae.VAE(
        prior=StandardNormal(1, dtype=dtype),
        likelihood=Parts(
            {
                "age": keras_vae.Normal(1, scale=0.8, **options),
                "grade": keras_vae.DiscretizedLogistic(1, levels=4, **options),
                "label": keras_vae.Categorical(3, **options),
                "sick": keras_vae.Bernoulli(1, **options),
                "visits": keras_vae.Poisson(1, **options),
            }
        ),
        posterior=DiagonalNormal(1, network=PartsEncoder(dtype=dtype), dtype=dtype),
        dtype=dtype,
    )
    rng = np.random.default_rng(0)
    for part in vae.likelihood.parts.values():
        kernel, bias = part.head.get_weights()
        part.head.set_weights([1.5 * rng.normal(size=kernel.shape), rng.normal(size=bias.shape)])
    vae.posterior.head.set_weights([0.0 * each for each in vae.posterior.head.get_weights()])
    return vae


ROW = {
    "age": np.array([[0.4]]),
    "grade": np.array([[2.0]]),
    "label": np.array([[0.0, 1.0, 0.0]]),
    "sick": np.array([[1.0]]),
    "visits": np.array([[2.0]]),
}

VALUES = {
    "grade": [np.array([[float(k)]]) for k in range(4)],
    "label": [np.eye(3)[[k]] for k in range(3)],
    "sick": [np.array([[float(k)]]) for k in range(2)],
}


def evidence(vae, x):
    """Computes p(x) of one row, by the trapezoidal rule on [-10, 10], exact to rounding."""
    z, step = np.linspace(-10.0, 10.0, 2001, retstep=True)
    log_joint = vae.log_joint(x, z[:, None, None]).numpy()[:, 0]
    return np.exp(log_joint).sum() * step


@pytest.mark.parametrize("part", list(VALUES))
def test_probabilities_of_classes_are_those_of_quadrature(part):
    vae, many = mixed(), 40000
    rest = {name: value for name, value in ROW.items() if name != part}
    exact = np.array([evidence(vae, {**rest, part: value}) for value in VALUES[part]])
    np.testing.assert_allclose(exact.sum(), evidence(vae, rest), rtol=1e-12)  # summed out
    exact /= exact.sum()
    found = vae.classify(ROW, part, many, seed=0)
    assert found.probabilities.shape == (1, len(exact))
    np.testing.assert_allclose(found.probabilities.sum(), 1.0, rtol=1e-12)
    error = np.sqrt(exact * (1 - exact) / found.ess)
    assert (np.abs(found.probabilities[0] - exact) <= ERRORS * error).all()
    assert found.ess[0] > 1000
    np.testing.assert_array_equal(vae.classify(rest, part, many, seed=0).probabilities, found[0])


def test_the_bound_of_any_subset_lies_below_its_exact_evidence():
    vae = mixed()
    for names in (["age", "label"], ["sick", "visits"]):
        x = {name: ROW[name] for name in names}
        assert vae.elbo(x, 2000, seed=0).elbo.numpy()[0] < np.log(evidence(vae, x))
        exact = keras_vae.evaluation.log_marginal(vae, x, num_samples=20000)
        difference = exact.value[0] - np.log(evidence(vae, x))
        assert abs(difference) <= ERRORS * exact.standard_error[0]


def test_imputations_are_means_or_classes_by_the_type_of_the_part():
    vae, many = mixed(), 20000
    found = vae.impute({"age": ROW["age"]}, many, multiple=400, seed=0)
    age = {"age": ROW["age"]}
    for name, values in VALUES.items():
        exact = np.array([evidence(vae, {**age, name: value}) for value in values])
        exact /= exact.sum()
        mean = sum(p * value for p, value in zip(exact, values, strict=True))
        np.testing.assert_allclose(found.mean[name], mean, atol=0.06)  # 4 errors of 4 levels
        drawn = found.draws[name]
        shares = np.array([(drawn == value).all(axis=(1, 2)).mean() for value in values])
        assert (np.abs(shares - exact) <= ERRORS * np.sqrt(exact * (1 - exact) / 300)).all()
        if name == "grade":  # levels: the whole number that is nearest to the mean
            assert found.values[name] == np.round(mean)
        else:
            np.testing.assert_array_equal(found.values[name], values[int(exact.argmax())])
    assert found.values["visits"] == np.round(found.mean["visits"])
    assert found.mean["visits"] != found.values["visits"]
    assert np.isnan(found.lower["label"]).all()
    assert found.lower["visits"] == np.floor(found.lower["visits"]) < found.upper["visits"]
    vae.log_joint(found.values, np.zeros([1, 1]))  # values lie in the support


def test_ordered_classes_are_imputed_by_their_median():
    layer = keras_vae.Ordinal(1, levels=4, missing=True)
    part = Part(layer.event_shape, layer.support, "Ordinal", missing=True)
    rows = np.random.default_rng(0).dirichlet(np.ones(4), (50, 1)).astype("float32")
    rows[0] = [0.4, 0.1, 0.2, 0.3]
    found = imputation.single_values(part, tf.constant(rows)).numpy()
    apart = np.abs(np.arange(4)[:, None] - np.arange(4)) @ rows[..., None].astype(float)
    np.testing.assert_array_equal(found[1:], apart[1:].argmin(axis=-2)[..., 0])
    assert apart[0, 0, int(found[0, 0])] == pytest.approx(apart[0].min(), abs=1e-7)  # two medians
    np.testing.assert_allclose(imputation.expected(part, tf.constant(rows[:1])), [[1.4]], rtol=1e-6)
    p = layer.make_distribution(tf.fill([5, 2, 1], 0.3), **layer.shared_parameters())
    found = imputation.statistic_of(part)(p)
    above = np.append(1 / (1 + np.exp(0.3 - np.log([1 / 3, 1, 3]))), 1.0)
    expected = np.diff(above, prepend=0.0)
    np.testing.assert_allclose(found, np.broadcast_to(expected, (5, 2, 1, 4)), rtol=1e-5)
    np.testing.assert_allclose(imputation.expected(part, found), p.mean(), rtol=1e-5)


def test_a_row_is_a_function_of_the_seed_and_its_index():
    vae = mixed("float32")
    rng = np.random.default_rng(0)
    x = {name: np.repeat(value, 8, 0) for name, value in ROW.items()}
    x["age"] = rng.normal(size=(8, 1))
    x["label"][::2] = np.nan
    x["visits"][3:] = np.nan
    many = vae.impute(x, 60, multiple=5, seed=11)
    other = {name: np.concatenate([value[:5], value[:2]]) for name, value in x.items()}
    few = vae.impute(other, 60, multiple=5, seed=11)
    for name in x:
        np.testing.assert_array_equal(few.draws[name][:, :5], many.draws[name][:, :5])
        np.testing.assert_array_equal(few.values[name][:5], many.values[name][:5])
    np.testing.assert_array_equal(np.isnan(many.ess), [False, True, False] + 5 * [False])
    again = vae.impute(x, 60, multiple=5, seed=12)
    assert (again.draws["visits"] != many.draws["visits"]).any()


@pytest.mark.parametrize(
    ("dtype", "found", "expected"),
    [
        ("float32", [0.1, 2.0], "float32"),
        ("float64", [True, False], "float64"),
        ("Int8", [1.0, 2.0], "Int8"),
        ("Int64", [0.5, 2.0], "Float64"),
        ("boolean", [1, 0], "boolean"),
        ("object", [0.5, 2.0], "object"),
        ("category", [0.5, 3.0], "category"),
    ],
)
def test_a_column_is_filled_in_its_own_dtype(dtype, found, expected):
    column = pandas.Series([1.0, None, 0.0, None]).astype(dtype)
    mask = np.array([False, True, False, True])
    filled = imputation.filled_column(column, mask, np.array(found, object))
    assert filled.dtype == expected
    assert filled[~mask].tolist() == [1.0, 0.0]
    nearest = np.array(found, "float32" if dtype == "float32" else float)
    np.testing.assert_array_equal(filled[mask].to_numpy(nearest.dtype), nearest)


@pytest.mark.parametrize(
    ("found", "kind"), [(["a", "b"], "O"), ([True, False], "b"), ([1, 2], "f")]
)
def test_a_column_without_values_is_filled_with_labels(found, kind):
    empty = pandas.Series([np.nan, np.nan], [5, 6], name="x")
    filled = imputation.filled_column(empty, np.array([True, True]), np.array(found, object))
    assert filled.tolist() == found
    assert filled.index.tolist() == [5, 6]
    assert filled.name == "x"
    assert pandas.api.types.is_bool_dtype(filled.dtype) == (kind == "b")
    assert pandas.api.types.is_float_dtype(filled.dtype) == (kind == "f")


def test_a_frame_comes_back_as_a_frame_with_its_holes_filled():
    vae = mixed("float32")
    frame = pandas.DataFrame(
        {
            "visits": pandas.array([1, None, 3], dtype="Int64"),
            "age": [0.5, 1.0, np.nan],
            "grade": [1.0, 2.0, 3.0],
        },
        index=[7, 8, 9],
    )
    found = vae.impute(frame, 50, seed=0)
    assert found.values["visits"].dtype == "Int64"
    assert found.values.index.tolist() == [7, 8, 9]
    assert list(found.values)[:3] == ["visits", "age", "grade"]
    assert found.values["visits"].tolist()[::2] == [1, 3]
    assert not found.values.isna().any(axis=None)
    single = with_holes(keras_vae.LinearGaussian(np.eye(3)[:, :2], np.zeros(3), 0.5))
    holes = pandas.DataFrame([[1.0, np.nan, 2.0]], columns=["a", "b", "c"])
    filled = single.impute(holes, 20, seed=0).values
    assert list(filled) == ["a", "b", "c"]
    assert filled["a"][0] == 1.0
    assert np.isfinite(filled["b"][0])


def test_a_table_with_a_schema_comes_back_with_its_labels():
    rng = np.random.default_rng(0)
    size = rng.choice(3, 200)
    frame = pandas.DataFrame(
        {
            "key": [f"row {k}" for k in range(200)],
            "city": pandas.Categorical.from_codes(size, ["Lima", "Oslo", "Rome"]),
            "income": np.exp(rng.normal(8.0 + size, 0.5)).astype("int64"),
            "visits": pandas.array(rng.poisson(3.0 + 9.0 * size), "Int64"),
            "share": rng.normal(size=200),
        }
    )
    holes = frame.copy()
    for name in ("city", "share", "visits"):
        holes.loc[rng.random(200) < 0.3, name] = None
    keras.utils.set_random_seed(0)
    vae = keras_vae.table_vae(keras_vae.data.Schema.of(holes), 2, hidden=(16,))
    vae.compile(keras.optimizers.Adam(1e-2))
    vae.fit(holes, epochs=40, verbose=0)
    found = vae.impute(holes, 50, multiple=3, seed=0)
    for filled in (found.values, *found.draws):
        pandas.testing.assert_frame_equal(filled[holes.notna()], holes[holes.notna()])
        assert dict(filled.dtypes) == dict(holes.dtypes)
        assert not filled.isna().any(axis=None)
    assert found.mean["city"].shape == (200, 3)
    classified = vae.classify(holes, "city", 50, seed=0)
    classes = np.array(["Lima", "Oslo", "Rome"])[classified.probabilities.argmax(1)]
    assert (classes == frame["city"]).mean() > 0.6  # 1/3 by chance, with a deviation of 0.034
    without = vae.classify(holes.drop(columns="city"), "city", 50, seed=0)
    np.testing.assert_array_equal(classified.probabilities, without.probabilities)


def test_a_condition_is_given_to_every_draw():
    """x | z, c ~ N(z + 2 c, 1/4) with the exact q: E[x_2 | x_1, c] = 2 c + 0.8 (x_1 - 2 c)."""

    class Head(keras.layers.Layer):
        def call(self, inputs):
            residual = inputs[:, :1] - 2.0 * inputs[:, 2:]
            raw = inverse_positive(np.sqrt(0.2)) * tf.ones_like(residual)
            return tf.concat([0.8 * residual, raw], -1)

    class Join(keras.layers.Layer):
        def call(self, inputs):
            x, c = inputs
            return tf.concat([tf.where(tf.math.is_nan(x), tf.zeros_like(x), x), c], -1)

    policy = {"dtype": "float64"}
    vae = keras_vae.VAE(
        prior=StandardNormal(1, **policy),
        likelihood=keras_vae.Normal(2, scale=0.5, missing=True, **policy),
        posterior=DiagonalNormal(
            1, network=Join(autocast=False, **policy), head=Head(autocast=False, **policy), **policy
        ),
        condition_shape=1,
        **policy,
    )
    vae.likelihood.head.set_weights([np.array([[1.0, 1.0], [2.0, 2.0]]), np.zeros(2)])
    c, x = np.array([[0.0], [1.0], [-3.0]]), np.array([[1.0, np.nan]] * 3)
    found = vae.impute({"x": x, "condition": c}, 4000, multiple=400, seed=0)
    exact = 2 * c[:, 0] + 0.8 * (1.0 - 2 * c[:, 0])
    np.testing.assert_allclose(found.ess, 4000.0, rtol=1e-9)
    np.testing.assert_allclose(found.values[:, 1], exact, atol=ERRORS * np.sqrt(0.2 / 4000))
    draws = found.draws[:, :, 1].mean(0)
    np.testing.assert_allclose(draws, exact, atol=ERRORS * np.sqrt(0.45 / 400))


def test_weights_that_rest_on_few_draws_are_told():
    model = keras_vae.LinearGaussian(4.0 * np.ones((6, 1)), np.zeros(6), 0.05)
    vae = keras_vae.VAE(
        prior=StandardNormal(1),
        likelihood=keras_vae.Normal(6, scale=0.05, missing=True),
        posterior=DiagonalNormal(1, network=PartsEncoder()),
    )
    vae.likelihood.head.set_weights([model.weights.T, model.bias])
    vae.posterior.head.set_weights([0.0 * each for each in vae.posterior.head.get_weights()])
    x = hidden(model.marginal().sample(20, 0).numpy().astype("float32"), 0.7)
    with pytest.warns(UserWarning, match="examples have an effective sample size below"):
        vae.impute(x, 100, seed=0)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda vae: vae.impute(ROW, 0), "num_samples"),
        (lambda vae: vae.impute(ROW, multiple=0), "multiple"),
        (lambda vae: vae.impute(ROW, interval=1.0), "interval"),
        (lambda vae: vae.classify(ROW, "labl"), "got 'labl' .did you mean label"),
        (lambda vae: vae.classify(ROW, "visits"), "no finite set of classes"),
        (lambda vae: keras_vae.mlp_vae(3, 2, hidden=(4,)).impute(np.zeros((2, 3))), "missing=True"),
        (
            lambda vae: keras_vae.mlp_vae(3, 2, hidden=(4,)).classify(np.zeros((2, 3)), "x"),
            "may not be absent",
        ),
    ],
)
def test_what_cannot_be_imputed_or_classified_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call(mixed())
