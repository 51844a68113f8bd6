"""A table as it is: what is inferred of it, how it becomes numbers and a table again."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from keras_vae.cli import main
from keras_vae.data import Column, DataError, Schema, load_frame
from keras_vae.data.schema.column import FAMILIES
from keras_vae.data.schema.seen import Seen
from keras_vae.distributions.names import LIKELIHOODS

RNG = np.random.default_rng(0)
ROWS = 600
CITIES = ["Oslo", "Rome", "Lima", "Cairo"]
SIZES = pd.CategoricalDtype(["small", "medium", "large", "huge"], ordered=True)


def holed(values, dtype=None, share=0.2):
    """Makes a series in which some values are absent."""
    series = pd.Series(values, dtype=dtype).copy()
    if series.dtype.kind in "iu" and dtype is None:
        series = series.astype(float)
    series[RNG.random(len(series)) < share] = None
    return series


def codes(*weights):
    return RNG.choice(len(weights), ROWS, p=np.array(weights) / sum(weights))


# a column and the kind that it is known to be
TRUTH = {
    "normal": (RNG.normal(3.0, 2.0, ROWS), "real"),
    "float32": (RNG.normal(0.0, 1.0, ROWS).astype("float32"), "real"),
    "two decimals": (np.round(RNG.normal(0.0, 5.0, ROWS), 2), "real"),
    "temperature": (np.round(RNG.normal(37.0, 0.5, ROWS), 1), "real"),
    "balance": (RNG.normal(0.0, 5000.0, ROWS).astype(int), "real"),
    "scores": (np.rint(RNG.normal(70.0, 5.0, ROWS)).astype(int), "count"),
    "rain": (np.where(RNG.random(ROWS) < 0.3, 0.0, RNG.gamma(1.0, 3.0, ROWS)), "real"),
    "outlier": (np.append(RNG.normal(0.0, 1.0, ROWS - 1), 30.0), "real"),
    "income": (np.exp(RNG.normal(10.0, 1.0, ROWS)), "positive"),
    "price": (np.exp(RNG.normal(9.0, 1.0, ROWS)).astype("int64"), "positive"),
    "share": (RNG.beta(0.7, 0.7, ROWS), "proportion"),
    "scaled": (np.append(RNG.random(ROWS - 2), [0.0, 1.0]), "proportion"),
    "percent_fat": (RNG.random(ROWS) * 60.0, "proportion"),
    "visits": (RNG.poisson(2.0, ROWS), "count"),
    "visits as floats": (RNG.poisson(2.0, ROWS).astype(float), "count"),
    "age": (RNG.negative_binomial(8, 0.2, ROWS), "count"),
    "sparse": (RNG.poisson(0.1, ROWS) * RNG.integers(1, 5000, ROWS), "count"),
    "holes in counts": (holed(RNG.poisson(4.0, ROWS)), "count"),
    "nullable": (holed(RNG.poisson(4.0, ROWS), "Int64"), "count"),
    "small ints": (RNG.poisson(3.0, ROWS).astype("uint8"), "count"),
    "objects": (holed(pd.Series(RNG.poisson(3.0, ROWS), dtype=object)), "count"),
    "zero one": (RNG.integers(0, 2, ROWS), "binary"),
    "zero one float": (holed(RNG.integers(0, 2, ROWS)), "binary"),
    "one two": (RNG.integers(1, 3, ROWS), "binary"),
    "bool": (RNG.random(ROWS) < 0.3, "binary"),
    "boolean": (holed(RNG.random(ROWS) < 0.3, "boolean"), "binary"),
    "bool objects": (holed(pd.Series(RNG.random(ROWS) < 0.3, dtype=object)), "binary"),
    "yes no": (RNG.choice(["yes", "no"], ROWS), "binary"),
    "city": (RNG.choice(CITIES, ROWS), "categorical"),
    "city with holes": (holed(RNG.choice(CITIES, ROWS)), "categorical"),
    "city objects": (pd.Series(RNG.choice(CITIES, ROWS), dtype=object), "categorical"),
    "city string": (holed(RNG.choice(CITIES, ROWS), "string"), "categorical"),
    "city category": (pd.Series(RNG.choice(CITIES, ROWS), dtype="category"), "categorical"),
    "int category": (pd.Series(RNG.integers(3, 7, ROWS)).astype("category"), "categorical"),
    "size": (pd.Series(RNG.choice(SIZES.categories[:3], ROWS), dtype=SIZES), "ordinal"),
    "size with holes": (holed(pd.Series(RNG.choice(SIZES.categories, ROWS), dtype=SIZES)),
                        "ordinal"),
    "codes": (1 + codes(9, 1, 6, 1, 5), "categorical"),
    "species": (RNG.integers(0, 3, ROWS), "categorical"),
    "levels": (3 + codes(1, 8, 30, 60, 25, 6), "ordinal"),
    "delays": (codes(20, 40, 100, 30, 20, 3) - 2, "ordinal"),
    "user_id": (RNG.permutation(ROWS) * 7 + 13, "left_out"),
    "row": (np.arange(ROWS), "left_out"),
    "shuffled": (RNG.permutation(ROWS), "left_out"),
    "names": ([f"name {i}" for i in range(ROWS)], "left_out"),
    "constant": (np.full(ROWS, 3), "left_out"),
    "constant text": (["all"] * ROWS, "left_out"),
    "empty": ([None] * ROWS, "left_out"),
    "empty float": (np.full(ROWS, np.nan), "left_out"),
}  # fmt: skip
FRAME = pd.DataFrame({name: values for name, (values, _) in TRUTH.items()})
SCHEMA = Schema.of(FRAME)
KEPT = FRAME[[*SCHEMA.columns, "constant", "constant text"]]
# Their fractions have more digits than float32.
LONG = ["normal", "outlier", "float32", "rain", "income", "share", "scaled", "percent_fat"]


@pytest.mark.parametrize("name", TRUTH)
def test_kind_is_inferred(name):
    (column,) = (column for column in SCHEMA.table if column.name == name)
    assert column.kind == TRUTH[name][1], column.reason
    assert column.reason
    assert column.missing == FRAME[name].isna().any()


def assert_frames_equal(found, expected):
    """Equal to the bit, but for fractions that float32 cannot hold; columns in the same order."""
    for frame in (found, expected):
        for name in frame:
            if frame[name].dtype == object:  # None and NaN are the same
                frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    long = [name for name in LONG if name in expected]
    pd.testing.assert_frame_equal(found.drop(columns=long), expected.drop(columns=long))
    assert list(found) == list(expected)
    assert list(found[long].dtypes) == list(expected[long].dtypes)
    for name in long:  # a number near 0 has the error of the largest, 2 roundings to 24 bits
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=scale * 2.0**-22)


@pytest.mark.parametrize(
    ("name", "likelihood"),
    [
        ("normal", "normal"),
        ("outlier", "student_t"),
        ("scores", "normal"),
        ("income", "log_normal"),
        ("price", "log_normal"),
        ("share", "beta"),
        ("scaled", "normal"),  # 0 and 1 have no density under beta
        ("visits", "negative_binomial"),
        ("sparse", "zero_inflated_negative_binomial"),
        ("bool", "bernoulli"),
        ("city", "categorical"),
        ("size", "ordinal"),
        ("levels", "ordinal"),
    ],
)
def test_likelihood_is_inferred(name, likelihood):
    column = SCHEMA.columns[name]
    assert column.likelihood == likelihood
    assert dict(column.options) == FAMILIES[likelihood].options


@pytest.mark.parametrize("seed", [None, 3])
def test_frame_comes_back(seed):
    arrays = SCHEMA.encode(FRAME, seed)
    assert list(arrays) == list(SCHEMA.columns)
    for name, column in SCHEMA.columns.items():
        assert arrays[name].dtype == np.float32
        assert arrays[name].shape == (ROWS, column.size)
        absent = np.isnan(arrays[name])
        np.testing.assert_array_equal(absent.all(axis=1), FRAME[name].isna())
        assert (absent.all(axis=1) == absent.any(axis=1)).all()
    decoded = SCHEMA.decode(arrays)
    assert_frames_equal(decoded, KEPT.copy())
    assert_frames_equal(SCHEMA.frame(SCHEMA.raw(FRAME)), KEPT.copy())


def test_columns_come_in_any_order_and_left_out_ones_may_lack():
    shuffled = FRAME[list(reversed(SCHEMA.columns))]
    for name, values in SCHEMA.encode(shuffled).items():
        np.testing.assert_array_equal(values, SCHEMA.encode(FRAME)[name])


DECIMALS = st.integers(0, 4)


@given(
    st.data(),
    st.sampled_from(["int64", "int16", "float64", "decimals", "Int64", "uint8", "str", "category"]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_column_comes_back(data, dtype, has_holes):
    count = data.draw(st.integers(24, 60))
    if dtype in ("str", "category"):
        values = data.draw(st.lists(st.sampled_from("abcdef"), min_size=count, max_size=count))
        series = pd.Series(values, dtype=dtype)
    else:
        low, high = {"uint8": (0, 255), "int16": (-(2**15), 2**15 - 1)}.get(
            dtype, (-(10**6), 10**6)
        )
        numbers = st.integers(low, high)
        values = data.draw(st.lists(numbers, min_size=count, max_size=count))
        series = pd.Series(values, dtype="float64" if dtype == "decimals" else dtype)
        if dtype == "decimals":
            series = (series / 100).round(data.draw(st.integers(1, 2)))
    if has_holes:
        series = series.astype(float) if series.dtype.kind in "iu" and dtype[0] in "iu" else series
        series[::5] = None
        if series.nunique() < 2:  # a constant comes back without its holes
            series = series.bfill().ffill()
    frame = pd.DataFrame({"x": series, "steady": np.tile([0.5, 1.5, 2.5], 20)[:count]})
    schema = Schema.of(frame)
    for seed in (None, 0):
        decoded = schema.decode(schema.encode(frame, seed))
        for name in decoded:
            pd.testing.assert_series_equal(decoded[name], frame[name])


def test_noise_of_whole_numbers_is_uniform_and_stays_within_them():
    frame = pd.DataFrame({"x": RNG.integers(-5000, 5000, 4000)})
    schema = Schema.of(frame)
    (column,) = schema
    encoded = schema.encode(frame, seed=1)["x"]
    how = column.preparation
    u = (encoded.astype(np.float64) * how.spread[0] + how.center[0] - frame)["x"]
    assert ((u > -1e-3) & (u < 1.0 + 1e-3)).all()  # 5000 in float32 has steps of 5e-4
    # mean and variance of a uniform number, within 4 standard errors of 4000
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 4000)
    assert abs(u.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 4000)
    again = schema.encode(frame.iloc[:10], seed=1)["x"]
    np.testing.assert_array_equal(again, encoded[:10])
    assert (schema.encode(frame, seed=2)["x"] != encoded).mean() > 0.9


@pytest.mark.parametrize("name", ["normal", "income", "balance", "percent_fat"])
def test_nats_are_those_of_the_file(name):
    column = SCHEMA.columns[name]
    how = column.preparation
    x = np.array([40.0, 55.0])
    center, spread = (*how.center, 0.0)[0], (*how.spread, how.divide)[0]
    y = (x - center) / spread
    file = norm(center, spread).logpdf(x)
    np.testing.assert_allclose(
        norm.logpdf(y) + SCHEMA.nats_offset[name], file, rtol=1e-12
    )  # float64 rounding


def test_families_are_those_of_the_library():
    for key, family in FAMILIES.items():
        assert set(family.options) <= set(LIKELIHOODS[key].options), key
    for column in SCHEMA:
        assert column.likelihood in LIKELIHOODS
        assert column.kind in FAMILIES[column.likelihood].kinds


# what no model can describe, and how it is refused
REFUSED = {
    "text": (
        [f"remark {i % 400}" for i in range(ROWS)],
        "'x' holds text, 400 different strings in 600 rows, which is too many for categories",
    ),
    "numbers as text": ([f"{i % 400}.5" for i in range(ROWS)], "all of them numbers. Convert"),
    "thousands": (
        [f"{i % 9 + 1},{i:03d}.50" for i in range(ROWS)],
        r"600 different strings in 600 rows, all of them numbers with other characters, such as "
        r"'1,000\.50'\. Write them as digits with a decimal point and nothing else",
    ),
    "percent signs": ([f"{i / 4}%" for i in range(ROWS)], "numbers with other .* such as '0.0%'"),
    "a total": ([*(f"{i / 4}" for i in range(ROWS - 1)), "Total"], "some not, such as 'Total'"),
    "numbers and a mark": (
        [f"{i % 400}.5" if i % 7 else "unknown" for i in range(ROWS)],
        "most of them numbers and some not, such as 'unknown'. If that marks a missing value",
    ),
    "numbers and text": ([1, 2.5, None, "n/a"] * 150, "numbers and text, first 'n/a' in row 3. If"),
    "dates": (pd.date_range("2020-01-01", periods=ROWS), "'x' holds dates. Turn it into numbers"),
    "date objects": (list(pd.date_range("2020-01-01", periods=ROWS).date), "holds dates"),
    "times that all differ": (
        pd.date_range("2020-01-01", periods=ROWS, freq="7h").strftime("%d/%m/%Y %H:%M"),
        "look like dates or times, such as '01/01/2020 00:00'. Turn it into numbers .* day of the",
    ),
    "times of the day": ([f"{i % 24}:{i % 60:02}" for i in range(ROWS)], "dates or times, such as"),
    "date of a mail": (
        pd.date_range("2020-01-01", periods=ROWS).strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "look like dates or times",
    ),
    "date text": (
        [f"2020-{i % 12 + 1:02}-{i % 25 + 1:02}" for i in range(ROWS)],
        "which look like dates",
    ),
    "spans": (pd.to_timedelta(np.arange(ROWS), "s"), "'x' holds durations"),
    "lists": ([[1, 2]] * ROWS, r"'x' holds nested values \(list\). Turn it into numbers or text"),
    "dicts": ([{"a": 1}] * ROWS, r"nested values \(dict\)"),
    "bytes": ([b"ab"] * ROWS, "holds bytes"),
    "intervals": (pd.cut(RNG.random(ROWS), 5), "intervals. .*rename_categories"),
    "infinite": (np.where(RNG.random(ROWS) < 0.1, np.inf, 1.5), "infinite numbers. Make them"),
    "complex": (RNG.random(ROWS) * 1j, "complex numbers"),
    "far": (1e9 + RNG.random(ROWS), "float32, in which models and artifacts compute, resolves"),
    "huge": (RNG.normal(size=ROWS) * 1e300, "too large for float32. Divide"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_modelled_is_refused(name):
    values, message = REFUSED[name]
    frame = pd.DataFrame({"y": RNG.random(ROWS), "x": values})
    with pytest.raises(DataError, match=message) as caught:
        Schema.of(frame)
    assert str(caught.value).startswith("Column 'x' ")
    assert Schema.of(frame, drop=["x"]).left_out == {"x": "as asked"}


MANY = 6000  # more texts than are counted


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            pd.date_range("2020", periods=MANY, freq="h").strftime("%Y-%m-%dT%H:%M:%SZ"),
            "like dates",
        ),
        ([f"{i // 1000},{i % 1000:03}.5" for i in range(MANY)], "numbers with other characters"),
        ([f"{100 + i % 900}-{10 + i % 80}-{1000 + i}" for i in range(MANY)], "identifier"),
    ],
)
def test_a_long_table_is_refused_as_a_short_one(values, message):
    frame = pd.DataFrame({"y": np.arange(MANY) % 7, "x": values})
    try:
        said = Schema.of(frame).left_out["x"]
    except DataError as error:
        said = str(error)
    assert message in said


SMALL = RNG.random(ROWS) < 0.1  # rows with a value that stands for a missing one


def marked(mark, values):
    return np.where(SMALL, mark, values)


AGES = RNG.integers(18, 80, ROWS)
JOBS = RNG.choice(["smith", "clerk", "baker"], ROWS)
NOTED = {
    "far below": (marked(-999, AGES), "x holds -999 in .* its other numbers, 18 to 79. If"),
    "far above": (marked(9999.0, RNG.normal(size=ROWS)), "x holds 9999 in "),
    "a code of nines": (marked(9, RNG.integers(1, 6, ROWS)), "x holds 9 in .* numbers, 1 to 5"),
    "minus one": (marked(-1, RNG.poisson(4.0, ROWS)), "x holds -1 in "),
    "a cap": (marked(5000, RNG.integers(0, 2000, ROWS)), "x holds 5000 in "),
    "a word": (marked("Unknown", JOBS), r"x has the label 'Unknown' in .*--missing-value x=Unk"),
    "a sign": (marked("?", JOBS), r"--missing-value 'x=\?' .*missing_values=\{'x': \['\?'\]\}"),
    "nothing": (marked("", JOBS), "x has the label ''"),
    "spellings": (marked("Clerk ", JOBS), "alone: 'Clerk ', 'clerk'. They are separate"),
    "spellings of two": (marked("YES", ["yes"] * ROWS), "differ in case or blanks alone: 'YES', "),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTED)
def test_values_that_may_stand_for_a_missing_one_are_noted(name, monkeypatch):
    values, message = NOTED[name]
    monkeypatch.setenv("COLUMNS", "1000")
    schema = Schema.of(pd.DataFrame({"y": RNG.random(ROWS), "x": values}))
    assert [bool(column.note) for column in schema] == [False, True]
    for text in (str(schema), schema.explained(), *schema.notes):
        assert re.search(message, " ".join(text.split()))
    assert Schema.from_toml(schema.to_toml()) == schema


def test_columns_without_such_values_have_no_note():
    assert [column.name for column in SCHEMA if column.note] == []
    rare = pd.DataFrame({"x": np.append(AGES[:-2], [-999, -999]), "two": marked(999, 0)})
    assert Schema.of(rare).notes == []
    in_chunks = Seen("x", AGES.dtype)
    for values in np.array_split(marked(-999, AGES), 7):
        in_chunks.update(pd.Series(values))
    assert in_chunks.low == -999
    assert in_chunks.lowest == (SMALL.sum(), 18)
    assert in_chunks.highest == ((AGES[~SMALL] == 79).sum(), 78)


MARKS = {"age": [-999], "job": ["unknown"], "visits": ["n/a"], "height": ["?"]}


@pytest.mark.parametrize("age", ["int64", "Int64", "float32", "int64[pyarrow]"])
def test_declared_values_are_absent(age, tmp_path):
    """A table with such values is the table without them, however they are stored."""
    height = RNG.normal(1.8, 0.1, ROWS).round(2)
    full = {"age": AGES, "job": JOBS, "visits": RNG.poisson(3.0, ROWS), "height": height}
    holed = pd.DataFrame(full).astype(object).mask(pd.DataFrame(dict.fromkeys(full, SMALL)))
    given = pd.DataFrame(
        {
            "age": pd.Series(marked(-999, AGES)).astype(age),
            "job": pd.Series(marked("unknown", JOBS)).astype("category"),
            "visits": pd.Series(full["visits"].tolist(), dtype=object).mask(SMALL, "n/a"),
            "height": marked("?", height.astype(str)),
        }
    )
    schema, expected = Schema.of(given, missing_values=MARKS), Schema.of(holed)
    assert [c.kind for c in schema] == [c.kind for c in expected]
    assert all(c.missing and not c.note and c.absent == SMALL.mean() for c in schema)
    assert schema.columns["job"].categories == ("baker", "clerk", "smith")
    for name, values in schema.encode(given).items():
        np.testing.assert_array_equal(values, expected.encode(holed)[name])
        np.testing.assert_array_equal(values, schema.encode(holed)[name])
    assert Schema.from_toml(schema.to_toml()) == schema
    path = tmp_path / "t.csv"
    given.to_csv(path, index=False)
    of_file = Schema.of_file(path, missing_values={k: list(map(str, v)) for k, v in MARKS.items()})
    assert [(c.kind, c.low, c.high, c.absent) for c in of_file] == [
        (c.kind, c.low, c.high, c.absent) for c in schema
    ]
    pd.testing.assert_frame_equal(
        schema.with_holes(given).isna(), pd.DataFrame(dict.fromkeys(given, SMALL))
    )


def test_declared_values_that_do_not_fit_are_refused():
    frame = pd.DataFrame({"age": marked(-999, AGES), "job": marked("unknown", JOBS)})
    with pytest.raises(DataError, match=r"no column 'ages' \(did you mean age\?\)"):
        Schema.of(frame, missing_values={"ages": [-999]})
    text = Schema.of(frame, missing=True).to_toml()
    for key, value, message in [
        ("age", "-999", "-999 stands for a missing value, and was a number of this column when"),
        ("job", '"unknown"', "'unknown' stands among its categories and among its missing_values"),
        ("job", "[1]", "missing_values of .* to be text, numbers or true and false; got .1."),
    ]:
        edited = text.replace(f"[columns.{key}]", f"[columns.{key}]\nmissing_values = [{value}]")
        with pytest.raises(DataError, match=message):
            Schema.from_toml(edited)
    with pytest.raises(DataError, match="write missing = true, too"):
        Schema.from_toml(
            Schema.of(frame)
            .to_toml()
            .replace("[columns.age]", "[columns.age]\nmissing_values = [-9]")
        )


def test_all_refused_columns_are_named():
    frame = pd.DataFrame({"a": pd.date_range("2020-01-01", periods=ROWS), "b": [[1]] * ROWS})
    with pytest.raises(DataError, match=r"Column 'a' holds dates.* Column 'b' holds nested"):
        Schema.of(frame)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({0: [1.0, 2.0]}), "names of columns that are text; got 0. Rename them"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns a. Rename all but one"),
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame({"a": [1, 1, 1]}), "No column is left to model: a is left out .constant: 1"),
        (np.zeros([3, 2]), "a data frame or a dict of columns; got ndarray. Name the"),
    ],
)
def test_what_is_no_table_is_refused(frame, message):
    with pytest.raises(DataError, match=message):
        Schema.of(frame)


def test_kinds_are_taken_as_asked():
    frame = FRAME[["visits", "income", "user_id"]]
    kinds = {"visits": "categorical", "income": "real", "user_id": "real"}
    schema = Schema.of(frame, kinds=kinds)
    assert {column.name: column.kind for column in schema} == kinds
    assert schema.columns["visits"].categories == tuple(sorted(set(frame["visits"])))
    for wrong, message in [
        ({"visits": "number"}, "kind of column 'visits' to be one of real.*; got 'number'"),
        ({"income": "count"}, "'income' cannot be count: It holds numbers from .* Choose kind"),
        ({"income": "categorical"}, "'income' cannot be categorical: it has too many different"),
        ({"visit": "count"}, r"no column 'visit' \(did you mean visits\?\); it has visits"),
    ]:
        with pytest.raises(DataError, match=message):
            Schema.of(frame, kinds=wrong)


TABLE = pd.DataFrame(
    {
        "age": RNG.negative_binomial(1, 0.05, 50),
        "city": RNG.choice(CITIES, 50),
        "income": np.round(np.exp(RNG.normal(8.0, 1.0, 50)), 1),
        "share": np.linspace(0.01, 0.99, 50),
        "delta": RNG.integers(-500, 500, 50),
        "member": RNG.random(50) < 0.5,
        "id": np.arange(50),
    }
)
HOLED = TABLE.assign(age=holed(TABLE["age"], "Int64"), city=holed(TABLE["city"]))


def at(column, row, value):
    """Replaces one value of the table."""
    frame = TABLE.astype({column: object})
    frame.loc[row, column] = value
    return frame


# a table that differs from the one of the schema, and the message
DRIFT = {
    "category": (at("city", 7, "Roma"), r"'city' holds the unknown category 'Roma' \(did you mean "
                 r"Rome\?\) in row 7 \(1 such row\); the schema has 'Cairo', 'Lima', 'Oslo', "),
    "code": (at("city", 7, 3), "'city' holds the unknown category 3 in row 7"),
    "boolean": (at("member", 4, "maybe"), "'member' holds the unknown category 'maybe' in row 4"),
    "lacking": (TABLE.drop(columns="city"), "lacks city; the model was trained on the columns age"),
    "renamed": (TABLE.rename(columns={"age": "Age"}), r"lacks age \(did you mean Age\?\) and"),
    "extra": (TABLE.assign(zip=1), "holds zip, which the model does not know"),
    "text": (at("age", 3, "forty"), "'age' holds the text 'forty' in row 3, and the schema says "
             r"numbers \(count\). Convert"),
    "list": (at("age", 3, [4]), r"'age' holds a list, '\[4\]' in row 3"),
    "fraction": (at("age", 9, 1.5), r"'age' holds 1.5 in row 9 \(1 such row\), and the schema "
                 r"says counts \(count\). Correct it"),
    "negative": (at("age", 9, -1), "'age' holds -1 in row 9 .* says numbers from 0 on"),
    "not whole": (at("delta", 9, 0.5), "'delta' holds 0.5 in row 9 .* says whole numbers"),
    "zero": (at("income", 2, 0.0), "'income' holds 0 in row 2 .* says numbers above 0"),
    "over 1": (at("share", 2, 1.2), "'share' holds 1.2 in row 2 .* says numbers from 0 to 1"),
    "1": (at("share", 2, 1.0), "'share' holds 1 in row 2 .* both of which beta leaves out"),
    "infinite": (at("share", 2, np.inf), "'share' holds inf in row 2 .* says a finite number"),
    "true and false": (TABLE.assign(age=TABLE["age"] > 9), "'age' holds a bool.*, 'False' in row"),
    "true": (at("delta", 2, True), "'delta' holds a bool, 'True' in row 2"),
    "too large": (at("delta", 2, 10**40), "'delta' holds 1e.40 in row 2 .* a finite number"),
    "hole": (at("income", 5, None), r"'income' has no value in row 5 \(1 such row\), and the "
             r"schema says that it always has one. Fill it in, or allow it, with Schema.of"),
    "NA": (at("city", 5, pd.NA), "'city' has no value in row 5"),
    "dates": (TABLE.assign(age=pd.date_range("2020", periods=50)), "'age' holds a Timestamp, '20"),
    "nothing": (pd.DataFrame({"id": [1]}), "has no columns; the schema has age"),
}  # fmt: skip


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_refused_with_the_column_and_the_first_row(name):
    frame, message = DRIFT[name]
    schema = Schema.of(TABLE)
    assert schema.left_out == {"id": "an identifier: all of its whole numbers differ"}
    with pytest.raises(DataError, match=message) as caught:
        schema.encode(frame)
    assert "\n" not in str(caught.value)


def test_absent_values_in_any_form():
    schema = Schema.of(HOLED)
    rows = {"age": 3, "city": "Oslo", "income": 1.0, "share": 0.5, "delta": 2, "member": True}
    for absent in (None, np.nan, pd.NA, float("nan")):
        frame = pd.DataFrame([rows | {"age": absent, "city": absent}, rows])
        encoded = schema.encode(frame)
        assert np.isnan(encoded["age"]).tolist() == [[True], [False]]
        assert np.isnan(encoded["city"]).all(axis=1).tolist() == [True, False]
    masked = {name: np.ma.masked_array(TABLE[name], TABLE.index == 4) for name in ("age", "city")}
    found = Schema.of({**{name: TABLE[name].to_numpy() for name in TABLE}, **masked})
    assert [c.name for c in found if c.missing] == ["age", "city"]
    assert found.columns["age"].absent == 0.02


def test_every_column_may_be_absent_where_that_is_asked():
    schema = Schema.of(TABLE, missing=True)
    assert all(column.missing for column in schema)
    absent = TABLE.iloc[:2].astype(object).assign(income=None, member=None)
    assert np.isnan(schema.encode(absent)["income"]).all()


def test_draws_become_rows_of_the_table():
    schema = Schema.of(TABLE.astype({"age": "uint8"}))
    draws = {name: values[:3].copy() for name, values in schema.encode(TABLE).items()}
    draws["age"] = np.array([[3.2], [400.0], [-1.0]])
    draws["city"] = np.array([[0.1, 0.2, 0.6, 0.1], [0.9, 0.1, 0.0, 0.0], [0, 0, 0, 1.0]])
    draws["member"] = np.array([0.2, 0.5, 0.9])
    draws["share"] = np.array([[-9.0], [0.0], [9.0]])
    frame = schema.decode(draws)
    assert frame["age"].tolist() == [3, 255, 0]
    assert frame["age"].dtype == "uint8"
    assert frame["city"].tolist() == ["Oslo", "Cairo", "Rome"]
    assert frame["member"].tolist() == [False, True, True]
    assert frame["share"].iloc[[0, 2]].tolist() == [0.0, 1.0]
    with pytest.raises(DataError, match=r"city of shape \[n, 4\]; got \[3, 3\]"):
        schema.decode({**draws, "city": np.eye(3)})
    with pytest.raises(DataError, match=r"Expected arrays of age, .*; got city. Column 'age' is"):
        schema.decode({"city": draws["city"]})


def test_absent_numbers_and_labels_take_the_nullable_dtype():
    schema = Schema.of(TABLE)
    absent = {name: np.full_like(values, np.nan) for name, values in schema.encode(TABLE).items()}
    frame = schema.decode(absent)
    assert frame.isna().all(axis=None)
    assert frame.dtypes.map(str).to_dict() == {
        "age": "Int64",
        "city": str(TABLE["city"].dtype),
        "income": "float64",
        "share": "float64",
        "delta": "Int64",
        "member": "boolean",
    }


def test_toml_comes_back():
    text = SCHEMA.to_toml()
    assert Schema.from_toml(text) == SCHEMA
    assert "# You may change" in text
    assert re.search(r'^\[columns."two decimals"\]$', text, re.M)


def edited(text, section, old, new):
    """Replaces a line within one column of a schema."""
    head, found, rest = text.partition(f"[columns.{section}]\n")
    assert found
    assert old in rest
    return head + found + rest.replace(old, new, 1)


def test_toml_is_edited_by_hand():
    text = Schema.of(TABLE).to_toml()
    lines = 'kind = "count"\nlikelihood = "negative_binomial"\noptions = { dispersion = "learned" }'
    text = edited(text, "age", lines, 'kind = "real"\nlikelihood = "laplace"')
    text = edited(text, "city", '"Rome"]', '"Rome", "Paris"]')
    text = edited(text, "income", "missing = false", "missing = true")
    text = edited(text, "id", 'kind = "left_out"', 'kind = "real"')
    schema = Schema.from_toml(text)
    assert schema.columns["age"].likelihood == "laplace"
    assert schema.columns["age"].preparation.center
    assert schema.encode(TABLE)["city"].shape == (50, 5)
    assert np.isnan(schema.encode(at("income", 5, None))["income"][5])
    assert_frames_equal(schema.decode(schema.encode(TABLE)), TABLE.copy())


EDITS = {
    "key": ("age", "missing = false", "mising = false", r"\[columns.age\] of The schema holds the "
            r"unknown key 'mising' \(did you mean missing\?\). Known ones: kind"),
    "kind": ("age", 'kind = "count"', 'kind = "counts"', r"\[columns.age\] of The schema: Expected "
             r"kind .*; got 'counts' \(did you mean count\?\)"),
    "likelihood": ("age", '"negative_binomial"', '"bernoulli"', "likelihood of a count column to "
                   "be one of negative_binomial, .*, laplace; got 'bernoulli'"),
    "ends": ("share", "high = 0.99", "high = 1.0", "of a proportion column to be one of normal"),
    "option": ("age", "{ dispersion", "{ scale", "negative_binomial takes dispersion; got scale"),
    "impossible": ("delta", 'kind = "real"', 'kind = "count"', r"\[columns.delta\] of .*: It holds "
                   r"whole numbers from -.*, which numbers from 0 on cannot hold. Choose"),
    "categories": ("city", 'categories = ["Cairo", ', 'categories = ["Lima", ', "'Lima' stands tw"),
    "category": ("city", '["Cairo", ', "[[1], ", "to be text, numbers or true and false; got .1"),
    "truth": ("age", "missing = false", 'missing = "no"', "missing .* true or false; got 'no'"),
    "no labels": ("age", 'kind = "count"\nlikelihood = "negative_binomial"\noptions = { dispersion '
                  '= "learned" }', 'kind = "ordinal"', "two categories or more; got 0. Write"),
    "no numbers": ("city", 'kind = "categorical"\nlikelihood = "categorical"', 'kind = "real"',
                   "was read as labels"),
    "no kind": ("age", 'kind = "count"', "", "has no kind: add one"),
    "syntax": ("age", "missing = false", "missing = maybe", "is not TOML"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_wrong_edits_are_refused(name):
    section, old, new, message = EDITS[name]
    text = edited(Schema.of(TABLE).to_toml(), section, old, new)
    with pytest.raises(DataError, match=message):
        Schema.from_toml(text)


def test_other_toml_is_refused():
    text = Schema.of(TABLE).to_toml()
    for wrong, message in [
        ("", "has format = None; expected 1"),
        (text.replace("rows =", "row ="), r"unknown key 'row' \(did you mean rows\?\)"),
        ("format = 1\nrows = 3\n", "has no columns: write one"),
        (
            "format = 1\n[columns]\nage = 1\n",
            r"Expected \[columns.age\] of .* to be a table; got 1",
        ),
    ]:
        with pytest.raises(DataError, match=message):
            Schema.from_toml(wrong)


def test_it_prints_a_line_per_column(monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    schema = Schema.of(HOLED)
    text = str(schema)
    assert "6 of 7 columns are modelled; 50 rows" in text
    (line,) = (line for line in text.splitlines() if line.startswith("city "))
    assert re.search(r"categorical +categorical +\d+\.0%  4: Cairo, Lima, Oslo, Rome$", line)
    assert "city: 4 labels" in schema.explained()
    monkeypatch.setenv("COLUMNS", "80")
    for text in (str(schema), schema.explained()):
        assert max(map(len, text.splitlines())) <= 80


CSV = """age, job, salary, note
39, clerk, 2.5, NA
50, ?, 3.5, a
, clerk, 1.5, b
28, smith, , a
"""


def test_text_files_are_read_as_they_are(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    frame = load_frame(path)
    assert frame.isna().sum().to_dict() == {"age": 1, "job": 1, "salary": 1, "note": 1}
    assert frame["job"].tolist()[0] == "clerk"
    with pytest.raises(DataError, match="does not exist"):
        load_frame(tmp_path / "none.csv")
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(DataError, match=r"is not a table. Give a file that ends in .csv"):
        load_frame(tmp_path / "t.json")


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_files_have_the_schema_of_their_frame(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"t.{suffix}"
    frame = FRAME.drop(columns="objects")
    getattr(frame, f"to_{suffix}")(path)
    monkeypatch.setattr("keras_vae.data.tables._ROWS_AT_ONCE", 90)
    in_chunks, whole = Schema.of_file(path), Schema.of(load_frame(path))
    assert in_chunks.rows == whole.rows == ROWS
    for found, expected in zip(in_chunks.table, whole.table, strict=True):
        for entry in ("mean", "deviation"):  # summed in another order, in float64
            value = getattr(expected, entry)
            assert getattr(found, entry) == pytest.approx(value, rel=1e-12, abs=1e-12)
        same = {entry: getattr(expected, entry) for entry in ("mean", "deviation")}
        assert found == expected or Column(**{**vars(found), **same}) == expected


def test_command_prints_and_writes_a_schema(tmp_path):
    path, out = tmp_path / "t.csv", tmp_path / "schema.toml"
    HOLED.assign(when="2020-01-01 10:00").to_csv(path, index=False)
    words = ["schema", str(path), "--out", str(out)]
    result = CliRunner().invoke(main, words, env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    assert "negative binomial" in result.output
    assert f"Wrote {out}" in result.output
    schema = Schema.load(out)
    assert schema == Schema.of(load_frame(path))
    assert set(schema.left_out) == {"id", "when"}
    declared = CliRunner().invoke(main, [*words, "--missing-value", "city=Oslo"])
    assert declared.exit_code == 0, declared.output
    assert Schema.load(out).columns["city"].missing_values == ("Oslo",)
    wrong = CliRunner().invoke(main, [*words, "--missing-value", "Oslo"])
    assert "expected COLUMN=VALUE, as in age=-999; got 'Oslo'" in wrong.output
    again = CliRunner().invoke(main, [*words, "--drop", "ages"])
    assert again.exit_code == 1
    assert "no column 'ages' (did you mean age?)" in again.output
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Schema.load(tmp_path / "none.toml")


def test_schema_needs_no_tensorflow(tmp_path):
    path = tmp_path / "t.csv"
    TABLE.to_csv(path, index=False)
    script = (
        "import sys; from keras_vae.cli import main\n"
        f"main(['schema', {str(path)!r}], standalone_mode=False)\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
