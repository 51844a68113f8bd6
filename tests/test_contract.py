"""One contract: what `fit` refuses of an array is refused in every container and at every door."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from keras_vae import DataError, LinearGaussian, data, evaluation
from tests.models import Batches, binary, compiled, tiny_vae

RNG = np.random.default_rng(0)
REALS = RNG.normal(size=(48, 6)).astype("float32")
LEVELS = RNG.integers(0, 9, (48, 6))
NAMES = list("abcdef")
FRAME = pd.DataFrame(REALS, columns=NAMES)


DOORS = {
    "fit": lambda vae, x: vae.fit(x, verbose=0),
    "fit, batches": lambda vae, x: vae.fit(data.batches(x, 16), verbose=0),
    "fit, batches repeated": lambda vae, x: vae.fit(
        data.batches(x, 16).repeat().prefetch(1), steps_per_epoch=3, verbose=0
    ),
    "fit, generator": lambda vae, x: vae.fit(iter([x[:16], x[16:]]), steps_per_epoch=2, verbose=0),
    "fit, PyDataset": lambda vae, x: vae.fit(Batches(x), verbose=0),
    "validation": lambda vae, x: vae.fit(REALS, validation_data=x, verbose=0),
    "validation, batches": lambda vae, x: vae.fit(
        REALS, validation_data=data.batches(x, 16), verbose=0
    ),
    "evaluate": lambda vae, x: vae.evaluate(x, verbose=0),
    "evaluate, batches": lambda vae, x: vae.evaluate(data.batches(x, 16), verbose=0),
    "elbo": lambda vae, x: vae.elbo(x),
    "log_marginal": lambda vae, x: evaluation.log_marginal(vae, x, num_samples=2),
}


@pytest.fixture(scope="module")
def normal():
    return compiled(tiny_vae("normal"))


@pytest.mark.parametrize("door", DOORS)
def test_integers_under_a_density_are_refused_at_every_door(normal, door):
    with pytest.raises(DataError, match=r"Normal models real numbers by a density; got .*integers"):
        DOORS[door](normal, LEVELS)


def test_integers_are_refused_before_a_graph_is_made():
    vae = compiled(tiny_vae("normal"), run_eagerly=False)
    for stream in (data.batches(LEVELS, 16), data.batches(LEVELS, 16, epochs=2).take(3)):
        with pytest.raises(DataError, match="int64 integers"):
            vae.fit(stream, verbose=0)
    assert vae.optimizer.iterations == 0


def test_what_counts_of_a_stream_is_the_transformed_data(normal):
    levels = data.batches(LEVELS, 16, transform=lambda x, seed: data.dequantize(x, seed, levels=9))
    for stream in (
        levels,
        data.batches(LEVELS, 16, rescale=1 / 9),
        data.batches(LEVELS, 16).map(lambda x: x / 9),
    ):
        normal.evaluate(stream, verbose=0)
    with pytest.raises(DataError, match=r"batches of x of shape \[n, 6\]; got \(16, 5\)"):
        normal.fit(data.batches(REALS[:, :5], 16), verbose=0)


MASKED = np.ma.masked_array(REALS, mask=np.zeros_like(REALS, bool))
MASKED[3, 2] = MASKED[20, 4] = np.ma.masked
MISSING = FRAME.astype("Float64")
MISSING.loc[3, "c"] = pd.NA
HIDDEN = {
    "masked": (MASKED, r"masked in (2 of 288|1 of \d+) entries, first in example (3|4).*filled"),
    "missing": (MISSING, "missing values in the columns c. Impute"),
    "not a number": (FRAME.where(FRAME < 9, np.nan).assign(e=np.nan), "missing .* columns e"),
    "text": (FRAME.assign(b="word", d="x"), "not numbers: b, d. Encode"),
    "dates": (FRAME.assign(b=pd.Timestamp(0)), "not numbers: b"),
    "categories": (FRAME.assign(b=pd.Categorical([True, False] * 24)), "not numbers: b"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", HIDDEN)
def test_hidden_and_foreign_values_are_refused_at_every_door(normal, door, case):
    x, message = HIDDEN[case]
    with pytest.raises(DataError, match=message):
        DOORS[door](normal, x)


@pytest.mark.parametrize("case", HIDDEN)
def test_hidden_and_foreign_values_are_refused_where_only_shapes_count(normal, case):
    x, message = HIDDEN[case]
    for read in (lambda x: x, lambda x: iter([x]), Batches):
        with pytest.raises(DataError, match=message):
            normal.predict(read(x), verbose=0)
    for call in (normal.encode, normal.reconstruct, normal.predict_on_batch):
        with pytest.raises(DataError, match=message):
            call(x)


@pytest.mark.parametrize("case", ["text", "dates", "categories"])
def test_foreign_values_are_refused_by_the_closed_form(case):
    x, message = HIDDEN[case]
    for call in (lambda x: LinearGaussian.fit(x, 2), LinearGaussian.fit(REALS, 2).log_prob):
        with pytest.raises(DataError, match=message):
            call(x)


@pytest.mark.parametrize("case", ["masked", "missing"])
def test_hidden_values_are_absent_in_the_closed_form(case):
    x, _ = HIDDEN[case]
    holes = x.filled(np.nan) if case == "masked" else x.to_numpy("float64", na_value=np.nan)
    for call in (
        lambda x: LinearGaussian.fit(x, 2).log_prob(REALS),
        LinearGaussian.fit(REALS, 2).log_prob,
    ):
        np.testing.assert_array_equal(call(x), call(holes))


def test_plain_numbers_are_read_whatever_holds_them(normal):
    expected = normal.elbo(REALS, seed=1).elbo.numpy()
    nothing_masked = np.ma.masked_array(REALS)
    for x in (nothing_masked, FRAME.convert_dtypes(), FRAME.astype("Float32"), REALS.tolist()):
        np.testing.assert_array_equal(normal.elbo(x, seed=1).elbo.numpy(), expected)
    series = pd.Series(np.ones(48), dtype="Int64")
    normal.evaluate(REALS, sample_weight=series, verbose=0)
    counts = pd.DataFrame(LEVELS, columns=NAMES).convert_dtypes()
    assert set(map(str, counts.dtypes)) == {"Int64"}
    poisson = tiny_vae("poisson")
    np.testing.assert_array_equal(poisson.elbo(counts, seed=1).elbo, poisson.elbo(LEVELS, 1, 1)[0])


class Loader:
    """A stand-in for `torch.utils.data.DataLoader`, which is not installed here."""


Loader.__module__, Loader.__name__ = "torch.utils.data.dataloader", "DataLoader"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (tf.sparse.from_dense(REALS), r"SparseTensor, .*tf\.sparse\.to_dense\(x\)"),
        (tf.ragged.constant([[1.0], [1.0, 2.0]]), r"RaggedTensor, .*x\.to_tensor\(\)"),
        (
            tf.data.Dataset.from_tensors(tf.sparse.from_dense(REALS)),
            "dense tensors; got SparseTensorSpec.*tf.sparse.to_dense",
        ),
        (Loader(), "torch DataLoader, .* generator .* steps_per_epoch"),
    ],
    ids=["SparseTensor", "RaggedTensor", "sparse dataset", "DataLoader"],
)
def test_foreign_containers_are_refused_with_the_remedy(normal, x, message):
    with pytest.raises(DataError, match=message):
        normal.fit(x, verbose=0)


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        ({"likelihood": "categorical"}, LEVELS[:, 0] % 6, r"one-hot: .*to_categorical\(x, 6\)"),
        ({"condition_shape": 3}, LEVELS[:, 0] % 3, r"to_categorical\(condition, 3\)"),
        ({"condition_shape": 1}, LEVELS[:, 0], r"last axis: condition\[\.\.\., None\]"),
        ({"condition_shape": 1}, LEVELS[:, 0] / 2, r"last axis: condition\[\.\.\., None\]"),
    ],
)
def test_codes_in_place_of_vectors_are_explained(model, x, message):
    vae = compiled(tiny_vae(**model))
    inputs = {"x": binary(), "condition": x} if vae.condition_shape else x
    streams = tf.data.Dataset.from_tensor_slices(inputs).batch(16)
    for given in (inputs, streams):
        with pytest.raises(DataError, match=message) as caught:
            vae.fit(given, verbose=0)
        assert "channel" not in str(caught.value)


# ------------------------------------------------------------------------- names of columns


@pytest.fixture(scope="module")
def named():
    vae = compiled(tiny_vae("normal"))
    vae.fit(FRAME, validation_data=FRAME[NAMES[::-1]], verbose=0)
    return vae


def test_columns_are_matched_by_name_in_any_order(named, tmp_path):
    assert named.feature_names == tuple(NAMES)
    named.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    other = FRAME[NAMES[::-1]]
    for vae in (named, loaded):
        for call in (
            lambda vae, x: vae.elbo(x, seed=1).elbo,
            lambda vae, x: vae.encode(x).mean(),
            lambda vae, x: vae.predict(x, verbose=0),
            lambda vae, x: vae.reconstruct(x),
            lambda vae, x: evaluation.log_marginal(vae, x, num_samples=5, seed=1).value,
        ):
            expected = np.asarray(call(vae, REALS))
            np.testing.assert_array_equal(call(vae, FRAME), expected)
            np.testing.assert_array_equal(call(vae, other), expected)
    np.testing.assert_array_equal(loaded.elbo(other, seed=1).elbo, named.elbo(REALS, seed=1).elbo)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (FRAME[NAMES[:4]], "x lacks e, f; the model was trained on the columns a, b, c, d, e, f"),
        (FRAME.rename(columns={"a": "z"}), "lacks a and holds z, which the model does not know"),
        (FRAME.assign(g=1.0), "holds g, which the model does not know"),
        (FRAME.set_axis([*"aabcde"], axis=1), "several columns a. Rename"),
        (data.batches(FRAME[NAMES[::-1]], 16), "order f, e, d, c, b, a, .*feature_names"),
    ],
    ids=["missing", "renamed", "extra", "twice", "stream"],
)
def test_columns_that_do_not_match_are_named(named, x, message):
    with pytest.raises(DataError, match=message):
        named.fit(x, verbose=0)
    if not isinstance(x, tf.data.Dataset):
        with pytest.raises(DataError, match=message):
            named.predict(x, verbose=0)


def test_names_come_with_a_stream_and_columns_without_names_go_by_position():
    vae = compiled(tiny_vae("normal"))
    vae.fit(pd.DataFrame(REALS), verbose=0)
    assert vae.feature_names is None
    with pytest.raises(DataError, match="missing values in the columns f"):
        vae.fit(FRAME.assign(f=np.nan), verbose=0)
    assert vae.feature_names is None
    train, test = data.split(FRAME)
    vae.fit(data.batches(train, 16), validation_data=test, verbose=0)
    assert vae.feature_names == tuple(NAMES)
    batches = [FRAME[:9], FRAME[NAMES[::-1]][9:]]
    expected = vae.predict(REALS, verbose=0)
    for stream, options in ((iter(batches), {"steps": 2}), (Batches(FRAME[NAMES[::-1]]), {})):
        np.testing.assert_array_equal(vae.predict(stream, verbose=0, **options), expected)
    with pytest.raises(DataError, match="order f, e, d"):
        vae.predict(data.batches(FRAME[NAMES[::-1]], 16), verbose=0)
    vae.fit((frame[NAMES[::-1]] for frame in [FRAME[:9], FRAME[9:]]), steps_per_epoch=2, verbose=0)
    with pytest.raises(ValueError, match=r"one feature name .* shape \[n, 6\]; got 2"):
        vae.feature_names = ["a", "b"]


LATE = FRAME.astype("float64")
LATE["c"] = 20.0 * LATE["c"] + 1.7e9
FAR = REALS.astype("float64") + 1e9


@pytest.mark.parametrize(
    ("x", "what"),
    [
        (LATE, "Column 'c' of x"),
        (FAR, "Entry 0 of x"),
        (data.batches(LATE, 16), "Column 'c' of x"),
        (data.batches(FAR, 16), "Entry 0 of x"),
    ],
)
def test_columns_that_float32_cannot_tell_apart_are_refused_by_fit(x, what):
    with pytest.raises(DataError, match=rf"{what} has a mean of 1.*e\+09.*Subtract a constant"):
        compiled(tiny_vae("normal")).fit(x, verbose=0)


def test_constant_columns_and_scores_of_few_rows_are_read_in_float64(normal):
    x = REALS.astype("float64")
    x[:, 1] = 1e6
    compiled(tiny_vae("normal")).fit(x, verbose=0)
    normal.evaluate(FAR[:2] - 1e9, verbose=0)


MIXED = FRAME.assign(b=LEVELS[:, 1])


@pytest.mark.parametrize("door", DOORS)
def test_an_integer_column_among_real_ones_is_refused_by_name(door):
    vae = compiled(tiny_vae("normal"))
    message = r"by a density; got integers in the columns b \(int64\)\. .*frame\.astype\(float\)"
    with pytest.raises(DataError, match=message):
        DOORS[door](vae, MIXED)
    DOORS[door](vae, MIXED.astype(float))


class Pairs(Batches):
    """Batches of x with targets."""

    def __getitem__(self, index):
        return super().__getitem__(index), np.zeros(16)


@pytest.mark.parametrize(
    "pairs",
    [
        lambda: tf.data.Dataset.from_tensor_slices((REALS, np.zeros(48))).batch(16),
        lambda: iter([(REALS, np.zeros(48))]),
        lambda: Pairs(REALS),
    ],
)
def test_pairs_of_x_and_y_are_refused_in_every_stream(normal, pairs):
    for method in (normal.fit, normal.evaluate):
        with pytest.raises(DataError, match=r"yields pairs \(x, y\), whose y would be ignored"):
            method(pairs(), verbose=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size`. Expected an integer of at least 1. Received"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"validation_batch_size": 0, "validation_split": 0.5}, "validation_batch_size=0"),
        ({"epochs": 1.5}, "epochs=1.5"),
    ],
)
def test_sizes_that_are_no_counts_are_refused(normal, options, message):
    with pytest.raises(ValueError, match=message):
        normal.fit(REALS, verbose=0, **options)


def test_a_categorical_of_integers_is_refused_in_a_file_as_in_a_frame(normal, tmp_path):
    frame = FRAME.assign(c=pd.Categorical(LEVELS[:, 2]))
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="columns that are not numbers: c"):
        normal.fit(frame, verbose=0)
    with pytest.raises(DataError, match="columns that are not numbers: c"):
        data.load(tmp_path / "x.parquet")
    assert data.load(tmp_path / "x.parquet", drop=["c"]).x.shape == (48, 5)
