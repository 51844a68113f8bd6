"""Baselines of tables with absent entries: all of them are exact where closed forms exist."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import stats

from keras_vae import DataError, LinearGaussian
from keras_vae.data import Schema
from keras_vae.data.holes import alike
from keras_vae.evaluation import FullGaussian, IndependentColumns
from tests.models import digits, linear_gaussian

EXACT = 1e-10  # float64 holds 16 digits; sums of about 30 terms of size 10 keep 12 of them

RNG = np.random.default_rng(7)
X = RNG.normal(size=(40, 5)) * 2.0
HOLES = np.where(RNG.random(X.shape) < 0.6, X, np.nan)
HOLES[:3] = [[np.nan] * 5, X[1], [np.nan] * 4 + [1.0]]


def log_prob_of_observed(x, loc, covariance):
    """Computes log p(x_O) of each row with SciPy."""
    found = np.zeros(len(x))
    for i, row in enumerate(x):
        seen = np.flatnonzero(~np.isnan(row))
        if len(seen):
            block = covariance[np.ix_(seen, seen)]
            found[i] = stats.multivariate_normal(loc[seen], block).logpdf(row[seen])
    return found


def conditional_means(x, loc, covariance):
    """Fills each row with E[x | x_O]."""
    filled = x.copy()
    for row in filled:
        seen, hidden = np.flatnonzero(~np.isnan(row)), np.flatnonzero(np.isnan(row))
        weights = np.linalg.solve(covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, hidden)])
        row[hidden] = loc[hidden] + (row[seen] - loc[seen]) @ weights
    return filled


@pytest.fixture(scope="module")
def models():
    ppca = linear_gaussian()
    covariance = ppca.weights @ ppca.weights.T + ppca.scale**2 * np.eye(5)
    return ppca, FullGaussian(ppca.bias, covariance)


def test_probability_of_the_observed_entries_agrees_with_scipy(models):
    for model in models:
        expected = log_prob_of_observed(HOLES, models[1].loc, models[1].covariance)
        np.testing.assert_allclose(model.log_prob(HOLES), expected, atol=EXACT)
        assert model.log_prob(HOLES)[0] == 0.0
        np.testing.assert_allclose(
            model.impute(HOLES),
            conditional_means(HOLES, models[1].loc, models[1].covariance),
            atol=EXACT,
        )


def test_chain_rule_of_observed_and_absent_entries(models):
    for model in models:
        given = np.where(np.arange(5) < 2, X, np.nan)
        parts = log_prob_of_observed(X, models[1].loc, models[1].covariance)
        seen = models[1].covariance[:2, :2]
        shift = np.linalg.solve(seen, models[1].covariance[:2, 2:])
        rest = models[1].covariance[2:, 2:] - models[1].covariance[2:, :2] @ shift
        means = models[1].loc[2:] + (X[:, :2] - models[1].loc[:2]) @ shift
        conditional = stats.multivariate_normal(np.zeros(3), rest).logpdf(X[:, 2:] - means)
        np.testing.assert_allclose(model.log_prob(given) + conditional, parts, atol=EXACT)


def test_posterior_and_gap_of_rows_with_holes(models):
    ppca = models[0]
    q = ppca.posterior(HOLES)
    elbo = ppca.elbo(HOLES, q.mean(), q.covariance())
    np.testing.assert_allclose(elbo, ppca.log_prob(HOLES), atol=EXACT)
    np.testing.assert_allclose(q.mean()[0], 0.0, atol=EXACT)  # nothing observed: the prior
    np.testing.assert_allclose(q.covariance()[0], np.eye(3), atol=EXACT)

    gap, best = ppca.gap(HOLES), ppca.best_diagonal_posterior(HOLES)
    variances = best.variance().numpy()[:, :, None] * np.eye(3)
    elbo = ppca.elbo(HOLES, best.mean(), variances)
    np.testing.assert_allclose(ppca.log_prob(HOLES) - elbo, gap, atol=EXACT)
    assert gap[1] == pytest.approx(ppca.gap(), abs=EXACT)
    assert gap[0] == pytest.approx(0.0, abs=EXACT)
    for factor in (0.8, 1.25):
        worse = ppca.elbo(HOLES, best.mean(), factor**2 * variances)
        assert np.all(worse < elbo)


def test_digits_with_holes_have_their_known_values():
    x = digits()
    observed = np.random.default_rng(0).random((1797, 64)) < 0.5
    holes, model = np.where(observed, x, np.nan), LinearGaussian.fit(x, 10)
    assert observed.sum() == 57_704
    assert np.mean(model.log_prob(holes)) == pytest.approx(7.128464028, abs=1e-8)
    assert np.mean(model.gap(holes)) == pytest.approx(0.525880425, abs=1e-8)
    assert model.gap(x).max() == pytest.approx(0.0, abs=EXACT)  # columns of W are orthogonal

    def error(filled):
        return np.mean((filled - x)[~observed] ** 2)

    assert error(model.impute(holes)) == pytest.approx(0.039632044, abs=1e-8)
    assert error(np.broadcast_to(x.mean(axis=0), x.shape)) == pytest.approx(0.073319183, abs=1e-8)
    covariance = model.marginal().covariance().numpy()
    gaussian = FullGaussian(model.bias, covariance)
    np.testing.assert_allclose(gaussian.log_prob(holes), model.log_prob(holes), atol=1e-9)


def test_hidden_values_and_the_container_change_nothing(models):
    observed = ~np.isnan(HOLES)
    expected = [model.log_prob(HOLES) for model in models]
    for hidden in (0.0, 1e300):
        masked = np.ma.MaskedArray(np.where(observed, HOLES, hidden), ~observed)
        frame = pd.DataFrame(HOLES).convert_dtypes()
        for x in (masked, frame):
            for model, value in zip(models, expected, strict=True):
                np.testing.assert_array_equal(model.log_prob(x), value)


def test_float32_model_answers_in_float32(models):
    ppca = models[0]
    single = LinearGaussian(ppca.weights, ppca.bias, ppca.scale, "float32")
    found = single.log_prob(HOLES)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, ppca.log_prob(HOLES), rtol=1e-5)  # x and W have 24 bits


def test_few_rows_at_once_give_the_same(models, monkeypatch):
    expected = [(model.log_prob(HOLES), model.impute(HOLES)) for model in models]
    monkeypatch.setattr("keras_vae.linear_gaussian._AT_ONCE", 1)
    monkeypatch.setattr("keras_vae.evaluation.full_gaussian._AT_ONCE", 1)
    for model, (log_prob, filled) in zip(models, expected, strict=True):
        np.testing.assert_allclose(model.log_prob(HOLES), log_prob, atol=1e-13)  # one rounding
        np.testing.assert_allclose(model.impute(HOLES), filled, atol=1e-13)


def test_rows_with_equal_holes_are_taken_together():
    observed = RNG.random((300, 9)) < 0.8
    observed[:100] = observed[0]
    for most in (1, 7, 1000):
        rows = []
        for some in alike(observed, most):
            assert len(some.rows) <= most
            assert len(np.unique(some.observed, axis=0)) == len(some.observed)
            np.testing.assert_array_equal(some.observed[some.which], observed[some.rows])
            rows.extend(some.rows)
        assert sorted(rows) == list(range(300))


# ------------------------------------------------------------------- expectation maximisation


def test_complete_data_and_a_climb_agree_where_nothing_is_absent():
    x = RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 6)) + RNG.normal(size=(200, 6))
    closed = LinearGaussian.fit(x, 2)
    off = LinearGaussian(closed.weights + 0.3, closed.bias + 0.2, 2.0 * closed.scale)
    climbed = off._climb(x, 3000, 1e-13, "float64")
    np.testing.assert_allclose(
        climbed.marginal().covariance(), closed.marginal().covariance(), atol=1e-5
    )  # the likelihood is flat at its maximum: 1e-13 nats leave the root of it
    np.testing.assert_allclose(
        climbed.weights.T @ climbed.weights,
        np.diag(np.diag(climbed.weights.T @ climbed.weights)),
        atol=1e-9,
    )
    gaussian = FullGaussian.fit(x, ridge=0.0)
    np.testing.assert_allclose(gaussian.loc, x.mean(axis=0), atol=EXACT)
    np.testing.assert_allclose(gaussian.covariance, np.cov(x.T, bias=True), atol=EXACT)


@pytest.mark.parametrize("kind", ["ppca", "gaussian"])
def test_steps_climb_to_where_the_gradient_vanishes(kind):
    x = RNG.normal(size=(150, 2)) @ RNG.normal(size=(2, 4)) + 0.5 * RNG.normal(size=(150, 4))
    x = np.where(RNG.random(x.shape) < 0.7, x, np.nan)
    x = x[~np.isnan(x).all(axis=1)]
    if kind == "ppca":
        model = LinearGaussian.fit(x, 1, tolerance=1e-13)
        loc = model.bias
        covariance = model.weights @ model.weights.T + model.scale**2 * np.eye(4)

        def value(step, entry):
            weights = model.weights.copy()
            weights[entry, 0] += step
            return np.mean(LinearGaussian(weights, model.bias, model.scale).log_prob(x))
    else:
        model = FullGaussian.fit(x, ridge=0.0, tolerance=1e-13)
        loc, covariance = model.loc, model.covariance

        def value(step, entry):
            moved = covariance.copy()
            moved[entry, 0] += step
            moved[0, entry] = moved[entry, 0]
            return np.mean(FullGaussian(loc, moved).log_prob(x))

    for entry in range(4):
        slope = (value(1e-4, entry) - value(-1e-4, entry)) / 2e-4
        assert abs(slope) < 1e-5  # 1e-13 nats under the top of a curvature of about 1, and 1e-8
    expected = log_prob_of_observed(x, loc, covariance)
    np.testing.assert_allclose(model.log_prob(x), expected, atol=EXACT)


def test_column_that_is_constant_but_for_rounding_moves_no_other():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 2)), np.full((60, 1), -0.1 / 3.0)], axis=1)
    x[rng.random(x.shape) < 0.3] = np.nan
    later = np.where(np.arange(3) == 2, 4.0, np.nan) * np.ones((5, 1))
    filled = FullGaussian.fit(x, ridge=1e-2).impute(later)
    assert np.abs(filled[:, :2]).max() < 1.0


def test_ridge_fits_fewer_rows_than_columns():
    x = RNG.normal(size=(6, 9))
    x[0, 0] = np.nan
    model = FullGaussian.fit(x, ridge=0.1)
    assert np.isfinite(model.log_prob(x)).all()
    with pytest.raises(ValueError, match="Add a ridge"):
        FullGaussian.fit(x, ridge=0.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: LinearGaussian.fit(x, 2), DataError, "columns 1 have none. Leave them out"),
        (lambda x: FullGaussian.fit(x), DataError, "columns 1 have none"),
        (lambda x: FullGaussian.fit(x, ridge=-1.0), ValueError, "at least 0; got -1.0"),
        (lambda x: FullGaussian([0.0], np.eye(2)), ValueError, r"got \(1,\) and \(2, 2\)"),
        (lambda x: FullGaussian([0.0, 0.0], np.ones((2, 2))), ValueError, "no Cholesky factor"),
        (lambda x: LinearGaussian.fit(x[:, [0, 0, 0]], 2), ValueError, "lies in 2 dimensions"),
    ],
)
def test_impossible_fits_are_refused(call, error, message):
    x = np.where(np.arange(5) == 1, np.nan, X)
    x[0, 0] = np.nan
    with pytest.raises(error, match=message):
        call(x)


# ------------------------------------------------------------------------- independent columns


def frame(n=400):
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "real": rng.normal(3.0, 2.0, n),
            "positive": rng.lognormal(1.0, 0.5, n),
            "many": rng.negative_binomial(2.0, 0.1, n),
            "few": rng.poisson(40.0, n),
            "sex": rng.choice(["f", "m"], n, p=[0.7, 0.3]),
        }
    )
    return table, {"positive": "positive"}


def test_columns_have_the_densities_of_scipy():
    table, kinds = frame()
    columns = IndependentColumns.fit(table, kinds)
    found = columns.log_probs(table)
    normal = stats.norm(table["real"].mean(), table["real"].std(ddof=0))
    np.testing.assert_allclose(found["real"], normal.logpdf(table["real"]), atol=EXACT)
    shape, _, scale = stats.lognorm.fit(table["positive"], floc=0)
    lognormal = stats.lognorm(shape, scale=scale).logpdf(table["positive"])
    np.testing.assert_allclose(found["positive"], lognormal, atol=1e-3)  # SciPy's own search
    mean, t = table["many"].mean(), np.exp(columns.columns["many"].log_dispersion)
    counts = stats.nbinom(t, t / (t + mean)).logpmf(table["many"])
    np.testing.assert_allclose(found["many"], counts, atol=EXACT)
    for other in (0.98 * t, 1.02 * t):
        assert (
            stats.nbinom(other, other / (other + mean)).logpmf(table["many"]).sum() < counts.sum()
        )
    share = (table["sex"] == "f").mean()
    women = np.log((share * 400 + 1 / 3) / 401)
    np.testing.assert_allclose(found["sex"][table["sex"] == "f"], women, atol=EXACT)
    np.testing.assert_allclose(columns.log_prob(table), sum(found.values()), atol=EXACT)
    poisson = IndependentColumns.fit({"x": np.arange(30) + 100}).log_prob({"x": [110]})
    np.testing.assert_allclose(poisson, stats.poisson(114.5).logpmf(110), atol=EXACT)


def test_columns_are_fitted_as_a_schema_says():
    table, _ = frame()
    table = table.assign(
        share=100.0 * np.random.default_rng(4).beta(2.0, 5.0, len(table)), key=np.arange(400)
    )
    schema = Schema.of(table, kinds={"share": "proportion"})
    columns = IndependentColumns.fit(table, schema)
    assert list(columns.columns) == list(schema.columns)
    assert "key" not in columns.columns
    found = columns.log_probs(table)["share"]
    shape = stats.beta.fit(table["share"] / 100.0, floc=0, fscale=1)
    expected = stats.beta(*shape[:2], scale=100.0).logpdf(table["share"])
    np.testing.assert_allclose(found, expected, atol=EXACT)
    ends = {"x": [0.0, 0.25, 1.0]}
    normal = IndependentColumns.fit(ends, {"x": "proportion"}).log_prob(ends)
    np.testing.assert_allclose(normal, IndependentColumns.fit(ends).log_prob(ends), atol=EXACT)


def test_ordered_levels_are_filled_with_their_median():
    sizes = ["small", "middle", "large", "huge"]
    values = ["large"] * 3 + ["small"] * 4 + ["middle"] * 2 + [None]
    ordered = pd.DataFrame({"size": pd.Categorical(values, sizes, ordered=True)})
    schema = Schema.of(ordered, kinds={"size": "ordinal"})
    kinds = {"size": "ordinal"}
    for table, how in ((ordered, schema), (ordered.astype(object), schema), (ordered, kinds)):
        assert IndependentColumns.fit(table, how).impute(table)["size"].iloc[-1] == "middle"
    grades = pd.DataFrame({"grade": [1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 4.0, None]})
    assert IndependentColumns.fit(grades, {"grade": "ordinal"}).impute(grades).iloc[-1, 0] == 2.0


def test_frequencies_sum_to_one_with_what_was_never_seen():
    columns = IndependentColumns.fit({"x": ["a", "b", "b"]})
    found = columns.log_prob({"x": ["a", "b", "c"]})
    assert np.exp(found).sum() == pytest.approx(1.0, abs=EXACT)


def test_absent_entries_are_left_out_and_filled():
    table, kinds = frame()
    holes = table.convert_dtypes().mask(np.random.default_rng(0).random(table.shape) < 0.3)
    columns = IndependentColumns.fit(holes, kinds)
    filled, absent = columns.impute(holes), holes.isna()
    assert not filled.isna().any(axis=None)
    assert (filled.dtypes == holes.dtypes).all()
    assert set(filled["sex"][absent["sex"]]) == {"f"}
    assert set(filled["real"][absent["real"]]) == {holes["real"].mean()}
    assert set(filled["few"][absent["few"]]) == {round(holes["few"].mean())}
    hidden = columns.log_probs(holes)
    assert all((hidden[name][absent[name]] == 0.0).all() for name in table)
    np.testing.assert_array_equal(IndependentColumns.fit(HOLES).impute(HOLES)[1], X[1])
    assert list(columns.impute(dict(holes.items()))) == list(table)


@pytest.mark.parametrize(
    ("x", "kinds", "message"),
    [
        ({"x": [None, None]}, {}, "observed entry in column 'x'"),
        ({"x": ["a", "b"]}, {"x": "real"}, "numbers in column 'x'; got 'a'. Call it categorical"),
        ({"x": [1.0, 1.0]}, {}, "all are 1, of which no density exists"),
        ({"x": [0.0, 1.0]}, {"x": "positive"}, "the least is 0"),
        ({"x": [-1.0, 1.0]}, {"x": "count"}, "of at least 0 in column 'x'; they lie between -1"),
        ({"x": [0.5, 1.0]}, {"x": "count"}, "whole numbers in column 'x'"),
        ({"x": [0.5, 101.0]}, {"x": "proportion"}, "of 1 or of 100 in column 'x'"),
        ({"x": [0.5, 1.0]}, {"x": "colour"}, "kind among real, .*got 'colour'"),
        ({"x": [0.5, 1.0]}, {"y": "real"}, r"columns \['x'\]; got \['y'\]"),
    ],
)
def test_columns_that_cannot_be_fitted_are_named(x, kinds, message):
    with pytest.raises((DataError, ValueError), match=message):
        IndependentColumns.fit(x, kinds)
