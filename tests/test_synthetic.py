"""The report on a synthetic table tells copies, shuffles and independent draws from one another."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from keras_vae import DataError
from keras_vae.data import Schema
from keras_vae.evaluation import synthetic_report
from keras_vae.evaluation.synthetic import _correlation_ratio, _cramer


def draw(n, seed, noise=0.3):
    """Draws a table in which every column depends on the others."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    table = pd.DataFrame(
        {
            "a": a,
            "b": a + noise * rng.normal(size=n),
            "count": rng.poisson(np.exp(3.0 + 0.5 * a)),
            "kind": np.where(a > 0.7, "high", np.where(a < -0.7, "low", "middle")),
            "yes": rng.random(n) < 1.0 / (1.0 + np.exp(-3.0 * a)),
        }
    )
    table.loc[rng.random(n) < 0.1, "b"] = np.nan
    return table


TRAIN, HOLDOUT = draw(800, 1), draw(800, 2)


@pytest.fixture(scope="module")
def independent():
    return synthetic_report(TRAIN, draw(600, 3), HOLDOUT, targets=["yes", "kind", "a"], most=250)


def test_an_independent_draw_is_as_good_as_the_holdout(independent):
    table = independent.table
    assert list(table.columns) == ["synthetic", "real", "independent"]
    # The critical value of two samples of 400 and 800 at 1e-4, which ten columns never exceed.
    assert independent.columns["synthetic"].max() < 2.2 * np.sqrt(1 / 400 + 1 / 800)
    for name in ("column distance, mean", "pair difference, mean"):
        synthetic, real, _ = table.loc[name]
        assert synthetic == pytest.approx(real, abs=0.03)  # of 400 rows each: errors of 0.05 / 3
    apart = table.loc["told apart, AUROC"]
    # The error of an area of 250 against 250 is 0.026; trees of three folds add their own.
    assert abs(apart["synthetic"] - 0.5) < 0.1
    near = table.loc["closer to training"]
    assert abs(near["synthetic"] - 0.5) < 4.0 * np.sqrt(0.25 / 250) * 1.4  # ties of neighbours
    assert table.loc["copies", "synthetic"] == 0.0
    for name in ("yes, linear, AUROC", "kind, linear, accuracy", "a, linear, R^2"):
        synthetic, real, independent_columns = table.loc[name]
        assert synthetic == pytest.approx(real, abs=0.05)
        if "AUROC" not in name:  # noise, times columns that are one, is on one side of one half
            assert independent_columns < synthetic - 0.2


def test_shuffled_columns_are_right_alone_and_wrong_together(independent):
    rng = np.random.default_rng(5)
    shuffled = pd.DataFrame({name: rng.permutation(TRAIN[name].array) for name in TRAIN})
    found = synthetic_report(TRAIN, shuffled, HOLDOUT, targets=["a"], most=250)
    table = found.table
    assert found.columns["synthetic"].max() < 2.2 * np.sqrt(1 / 400 + 1 / 800)
    assert found.pairs["synthetic"].abs().max() < 0.25
    assert found.pairs.loc[("a", "b"), "train"] > 0.9
    assert table.loc["pair difference, mean", "synthetic"] > 0.4
    assert table.loc["told apart, AUROC", "synthetic"] > 0.9
    assert table.loc["a, linear, R^2", "synthetic"] < 0.2
    for name in ("pair difference, mean", "told apart, AUROC"):
        synthetic, _, independent_columns = table.loc[name]
        assert synthetic == pytest.approx(independent_columns, abs=0.05)


def test_copies_are_found():
    found = synthetic_report(TRAIN, TRAIN, HOLDOUT, most=100).table
    assert found.loc["copies", "synthetic"] == 1.0
    assert found.loc["copies", "real"] == 0.0
    assert found.loc["nearest training row", "real"] > 0.0
    some = synthetic_report(TRAIN[:100], TRAIN[:100], HOLDOUT, most=100).table
    assert some.loc["nearest training row", "synthetic"] == 0.0
    assert some.loc["closer to training", "synthetic"] > 0.99
    noisy = TRAIN[:100].assign(a=TRAIN["a"] + 1e-3)
    close = synthetic_report(TRAIN[:100], noisy, HOLDOUT, most=100).table
    assert close.loc["copies", "synthetic"] == 0.0
    assert close.loc["closer to training", "synthetic"] > 0.95


def test_measures_of_columns_are_those_of_scipy():
    other = draw(800, 7).assign(kind="low")
    found = synthetic_report(TRAIN, other, HOLDOUT[:800], most=100)
    chosen = found.columns["synthetic"]
    shares = TRAIN["kind"].value_counts(normalize=True)
    assert chosen["kind"] == pytest.approx(1.0 - shares["low"], abs=1e-12)
    whole = synthetic_report(TRAIN, other, pd.concat([HOLDOUT, HOLDOUT]), most=100).columns
    expected = stats.ks_2samp(TRAIN["a"], other["a"]).statistic
    assert whole.loc["a", "synthetic"] == pytest.approx(expected, abs=1e-12)
    absent = synthetic_report(TRAIN, other.assign(b=np.nan), HOLDOUT, most=100).columns
    assert absent.loc["b", "synthetic"] == 1.0


def test_signed_amounts_dates_and_durations_are_compared_as_numbers():
    rng = np.random.default_rng(0)

    def table(n):
        day = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 2000, n), "D")
        amount = rng.normal(0.0, 1e4, n).round().astype(int)
        return pd.DataFrame({"amount": amount, "day": day, "since": day - day.min()})

    train, other, holdout = (table(n) for n in (900, 200, 400))
    found = synthetic_report(train, other, holdout, targets=["amount"], most=50)
    # The critical value of two samples of 200 and 900 at 1e-4 for each of six distances.
    assert found.columns[["synthetic", "real"]].max(axis=None) < 2.2 * np.sqrt(1 / 200 + 1 / 900)
    assert found.pairs.loc[("day", "since"), "train"] == pytest.approx(1.0)
    assert "amount, linear, R^2" in found.table.index


def test_kinds_decide_what_integers_with_holes_are():
    coded = [table.assign(b=table["yes"].where(table["b"].notna())) for table in (TRAIN, HOLDOUT)]
    coded = [table.astype({"b": float}) for table in coded]
    by_name = synthetic_report(
        coded[0], coded[1], coded[1], targets=["b"], kinds={"b": "binary"}, most=50
    )
    assert "b, linear, AUROC" in by_name.table.index
    schema = Schema.of(coded[0].assign(row=range(800)), drop=["row"])
    by_schema = synthetic_report(
        coded[0].assign(row=1), coded[1], coded[1], targets=["b"], kinds=schema, most=50
    )
    assert list(by_schema.columns.index) == list(TRAIN.columns)
    pd.testing.assert_frame_equal(by_schema.table, by_name.table)


def test_associations_of_known_tables():
    a = np.repeat([0, 1, 2], 50)
    assert _cramer(a, a) == pytest.approx(1.0)
    assert _cramer(a, np.tile([0, 1], 75)) == 0.0
    assert _cramer(a, np.zeros(150, int)) == 0.0
    assert _correlation_ratio(a, a.astype(float)) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    codes, numbers = rng.integers(0, 3, 300), rng.normal(size=300)
    ranks = stats.rankdata(numbers)
    groups = [ranks[codes == k] for k in range(3)]
    f = stats.f_oneway(*groups).statistic
    eta = np.sqrt(2 * f / (2 * f + 297))
    assert _correlation_ratio(codes, numbers) == pytest.approx(eta, abs=1e-12)
    chi = stats.contingency.association(np.array([[30, 10], [5, 55]]), method="cramer")
    pairs = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], [30, 10, 5, 55], axis=0).T
    corrected = np.sqrt((chi**2 - 1 / 99) / (2 - 1 / 99 - 1))
    assert _cramer(*pairs) == pytest.approx(corrected, abs=1e-12)


def test_one_column_and_constant_targets_have_a_report():
    one = synthetic_report(TRAIN[["a"]], HOLDOUT[["a"]], HOLDOUT[["a"]], most=100)
    assert "pair difference, mean" not in one.table.index
    same = synthetic_report(TRAIN, TRAIN.assign(yes=True), HOLDOUT, targets=["yes"], most=100)
    assert same.table.loc["yes, linear, AUROC", "synthetic"] == 0.5
    assert "told apart, AUROC" in str(same)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: synthetic_report(TRAIN, TRAIN[["a"]], HOLDOUT), r"synthetic; it lacks \['b', "),
        (lambda: synthetic_report(TRAIN, TRAIN, HOLDOUT[:5]), "20 rows in holdout; got 5"),
        (lambda: synthetic_report(TRAIN, TRAIN, HOLDOUT, targets=["c"]), r"got \['c'\]"),
        (
            lambda: synthetic_report(TRAIN, TRAIN, HOLDOUT, kinds={"kind": "real"}),
            "numbers in column 'kind'; got 'middle'",
        ),
        (
            lambda: synthetic_report(TRAIN.assign(a=np.nan), TRAIN, HOLDOUT),
            "observed entry in column 'a'",
        ),
    ],
)
def test_tables_that_do_not_match_are_refused(call, message):
    with pytest.raises((DataError, ValueError), match=message):
        call()
