"""Models of named parts served: absent values over REST and gRPC, in the client and in Parquet."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf

import keras_vae
from export import manifest
from keras_vae import DataError, integrity
from keras_vae.data import Schema
from keras_vae.data.schema import Column
from keras_vae.signatures import signatures
from keras_vae.signatures.raw_part import RawPart
from keras_vae.training.data_spec import Part
from serving.artifact import Signature, Tensor
from serving.client.address import Address
from serving.client.core import Core
from serving.client.parts import data_inputs, latent_inputs
from serving.client.wire import Call
from serving.errors import DtypeError, InputError, ServingError, ValueRangeError
from serving.protocol import messages, rest
from serving.protocol.checks import check_inputs
from serving.ranges import Range
from serving.score.parts import check_columns, columns_of_parts, part_tensor

AGE, IMAGE = Tensor("float32", (1,), missing=True), Tensor("float32", (2, 2))
SEED = Tensor("int32", (2,))
INPUTS = {"x_the_age": AGE, "x_image": IMAGE, "seed": SEED}
IMPUTE = Signature(
    "impute",
    "",
    INPUTS,
    {"value_the_age": Tensor("float32", (1,)), "ess": Tensor("float32", ())},
    None,
)
SCORE = Signature("score", "", INPUTS, {"elbo": Tensor("float32", ())}, None)
TABLE = {"impute": IMPUTE, "score": SCORE}
PIXELS = np.zeros((3, 2, 2), "float32")


def given(age, image=PIXELS):
    return {"x_the_age": age, "x_image": image, "seed": np.zeros((3, 2), np.int32)}


@pytest.mark.parametrize(
    "age",
    [
        np.array([[1.0], [np.nan], [3.0]]),
        [[1.0], [None], [3]],
        np.array([[1.0], [pd.NA], [3.0]], object),
        np.ma.masked_array([[1], [7], [3]], [[0], [1], [0]]),
    ],
)
def test_absent_values_become_nan_where_they_may_be(age):
    found = check_inputs(SCORE, given(age))["x_the_age"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.float32([[1.0], [np.nan], [3.0]]))


def test_absent_values_are_refused_elsewhere():
    ages = np.ones((3, 1))
    for image in (PIXELS * np.nan, np.ma.masked_array(PIXELS, PIXELS == 0)):
        with pytest.raises(ValueRangeError, match="input 'x_image': expected"):
            check_inputs(SCORE, given(ages, image))
    with pytest.raises(ValueRangeError, match="x_the_age"):
        check_inputs(SCORE, given(np.full((3, 1), np.inf)))
    with pytest.raises(DtypeError, match="x_the_age"):
        check_inputs(SCORE, given([["Oslo"], [None], ["Rome"]]))


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_absent_values_travel_as_nan_and_may_come_as_null(layout):
    inputs = check_inputs(SCORE, given([[1.0], [None], [3.0]]))
    body = rest.write_predict(SCORE, inputs, layout)
    assert b"NaN" in body
    assert b"null" not in body
    for sent in (body, body.replace(b"NaN", b"null")):
        signature, read, arrays = rest.read_predict(sent, TABLE)
        assert (signature.name, read) == ("score", layout)
        for name, value in inputs.items():
            np.testing.assert_array_equal(arrays[name], value)
    with pytest.raises(DtypeError, match=r"x_image.*got null"):
        rest.read_predict(
            json.dumps(
                {
                    "signature_name": "score",
                    "inputs": {
                        "x_the_age": [[1]],
                        "x_image": [[[0, None], [0, 0]]],
                        "seed": [[0, 0]],
                    },
                }
            ).encode(),
            TABLE,
        )


def test_a_client_learns_from_impute_what_may_be_absent():
    plain = {
        name: Signature(
            name, "", {k: Tensor(t.dtype, t.shape) for k, t in INPUTS.items()}, s.outputs, None
        )
        for name, s in TABLE.items()
    }
    spec = messages.model_spec("m", 1)
    for read in (
        messages.read_metadata(messages.metadata(spec, plain)),
        rest.read_metadata(rest.write_metadata(spec, plain))[1],
    ):
        for name in TABLE:
            assert read[name].inputs == INPUTS


class Sent:
    """A wire that keeps what is sent."""

    def predict(self, signature, inputs):
        return Call(signature.name, inputs, lambda body: body)


def test_latents_are_decoded_by_name_and_a_classifier_needs_no_seed():
    latents = {"z_label": Tensor("float32", (3,)), "z_z": Tensor("float32", (2,))}
    found = {"mean": Tensor("float32", (1,))}
    core = Core(Address.parse("http://localhost:8501", "m", None, None), Sent(), 10)
    core._signatures = {
        "decode": Signature("decode", "", latents, found, None),
        "classify": Signature("classify", "", {"x_the_age": AGE}, found, None),
    }
    calls = next(core.decode({"label": np.eye(3), "z": np.zeros((3, 2))}))
    assert set(calls.calls[0].body) == set(latents)
    for seed in (None, 3):
        calls = next(core.of_data("classify", {"the age": [[1.0], [2.0]]}, seed))
        assert set(calls.calls[0].body) == {"x_the_age"}


def test_parts_are_given_as_a_dict_or_a_data_frame():
    age = np.array([1.0, np.nan, 3.0])
    for x in (
        {"the age": age, "image": PIXELS},
        {"the_age": age[:, None], "image": PIXELS},
    ):
        found = check_inputs(SCORE, {**data_inputs(SCORE, x), "seed": np.zeros((3, 2), int)})
        np.testing.assert_array_equal(found["x_the_age"], age[:, None].astype("float32"))
    left_out = data_inputs(SCORE, {"image": PIXELS})
    assert np.isnan(left_out["x_the_age"]).all()
    table = Signature("encode", "", {"x_the_age": AGE, "x_size": AGE}, {"loc": AGE}, None)
    frame = pd.DataFrame({"size": [1, 2], "the age": [None, 4.5]})
    found = check_inputs(table, data_inputs(table, frame))
    np.testing.assert_array_equal(found["x_the_age"], np.float32([[np.nan], [4.5]]))
    np.testing.assert_array_equal(found["x_size"], np.float32([[1.0], [2.0]]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"image": PIXELS, "the edge": [1.0]}, "got 'the edge' too. Did you mean 'the_age'"),
        ({"the age": [1.0]}, "image is not given, and may not be absent"),
        (PIXELS, "has the parts the_age, image; expected a dict"),
        ({"image": PIXELS, "the age": 31.0}, r"the_age is 31.0; expected one value for each row"),
    ],
)
def test_parts_that_are_not_those_of_the_model_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        data_inputs(SCORE, x)
    with pytest.raises(DtypeError, match=r"the_age holds 'old'; a server takes the code"):
        data_inputs(SCORE, {"image": PIXELS, "the age": [None, "old", 3.0]})
    alone = Signature("encode", "", {"x": IMAGE}, {"loc": AGE}, None)
    with pytest.raises(InputError, match="takes one array x; got a dict of image"):
        data_inputs(alone, {"image": PIXELS})


# Parquet


PARTS = tuple(
    integrity.observations(
        {
            "observations": {
                name: {
                    "tensors": {"x": f"x_{name}"},
                    "shape": list(shape),
                    "range": bounds,
                    "one_hot": False,
                    "whole": whole,
                    "missing": missing,
                    "threshold": False,
                    "categories": categories,
                    "options": {},
                    "preparation": {},
                }
                for name, shape, bounds, whole, missing, categories in (
                    ("age", (1,), [None, None], False, True, None),
                    ("city", (1,), [0.0, 1.0], True, True, ["Oslo", "Rome"]),
                    ("pixels", (2, 2), [0.0, 1.0], False, True, None),
                    ("visits", (1,), [0.0, None], True, False, None),
                )
            }
        }
    ).values()
)
HERE = Path("rows.parquet")
FILE = pa.table(
    {
        "age": [1.5, None, 3.0],
        "city": ["Rome", None, "Oslo"],
        "id": [7, 8, 9],
        "pixels": [[[0.0, 1.0], [0.5, 0.25]], None, [[0.0, 0.0], [None, 1.0]]],
        "visits": [0, 1, 2],
    }
)


def read(file):
    columns = columns_of_parts(file.schema, PARTS, (), ("id",))
    check_columns(HERE, file.schema, PARTS, columns)
    parts = zip(PARTS, columns, strict=True)
    return [part_tensor(file, name, part, HERE, 0) for part, name in parts]


def test_nulls_of_columns_are_absent_and_labels_are_codes():
    found = read(FILE)
    nan = np.nan
    pixels = [[[0, 1], [0.5, 0.25]], [[nan, nan], [nan, nan]], [[0, 0], [nan, 1]]]
    expected = ([[1.5], [nan], [3]], [[1], [nan], [0]], pixels, [[0], [1], [2]])
    for array, wanted in zip(found, expected, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, np.float32(wanted))
    coded = FILE.set_column(1, "city", FILE["city"].dictionary_encode())
    np.testing.assert_array_equal(part_tensor(coded, "city", PARTS[1], HERE, 0), expected[1])
    empty = FILE.set_column(1, "city", [pa.nulls(3)])
    assert np.isnan(read(empty)[1]).all()
    left_out = FILE.drop_columns(["age", "id"])
    assert columns_of_parts(left_out.schema, PARTS, (), ())[0] == ""
    assert np.isnan(part_tensor(left_out, "", PARTS[0], HERE, 0)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.rename_columns(["age", "town", "id", "pixels", "visits"]), "has 'town'"),
        (
            lambda file: file.rename_columns(["AGE", "city", "id", "pixels", "visits"]),
            r"has 'AGE' \(did you mean 'age'\?\)\. Name",
        ),
        (
            lambda file: file.set_column(4, "visits", [pa.nulls(3)]),
            "row 0.*expected a number; got null",
        ),
        (lambda file: file.drop_columns(["visits"]), "no column 'visits', and this part may not"),
        (lambda file: file.set_column(4, "visits", [["a", "b", "c"]]), "expected numbers; got str"),
        (lambda file: file.set_column(4, "visits", [[0, None, 1]]), "row 1.*expected a number"),
        (lambda file: file.set_column(4, "visits", [[0.5, 0.0, 1.0]]), "row 0.*a whole number"),
        (lambda file: file.set_column(1, "city", [["Rome", "Romee", None]]), "row 1.*is it 'Rome'"),
        (lambda file: file.set_column(1, "city", [[0, 2, 1]]), "row 1.*from 0 to 1; got 2"),
    ],
)
def test_columns_that_are_not_those_of_the_parts_are_refused(change, message):
    with pytest.raises(ServingError, match=message):
        read(change(FILE))


NUMBERS = {"whole": True, "low": 0.0, "high": 90.0, "mean": 20.0, "deviation": 9.0}
SHARES = {"low": 2.0, "high": 90.0, "mean": 20.0, "deviation": 9.0, "top": 100.0}
COLUMNS = {
    "visits": Column("visits", "count", "int64", **NUMBERS),
    "age": Column("age", "count", "int64", "normal", **NUMBERS),
    "change": Column("change", "real", "int64", **{**NUMBERS, "low": -9.0}),
    "income": Column("income", "positive", "int64", **NUMBERS),
    "weight": Column("weight", "positive", "float64", **{**NUMBERS, "whole": False, "low": 0.1}),
    "share": Column("share", "proportion", "float64", **SHARES),
    "part": Column("part", "proportion", "float64", "continuous_bernoulli", **SHARES),
    "percent": Column("percent", "proportion", "int64", **SHARES, whole=True),
    "size": Column("size", "ordinal", "int64", categories=(0, 1, 2)),
}


@pytest.fixture(scope="module")
def described():
    """Parts of a model of a table, as its manifest describes them."""
    vae = keras_vae.table_vae(Schema(tuple(COLUMNS.values()), 9), 1, hidden=(2,))
    return integrity.observations(manifest.metadata(vae, None))


@pytest.mark.parametrize("name", COLUMNS)
def test_files_may_hold_what_the_schema_says(described, name):
    for value in (-1.0, -0.5, 0.0, 0.5, 2.0, 2.5, 100.0, 101.0):
        read = (
            lambda value=value: COLUMNS[name].raw(pd.Series([value])),
            lambda value=value: part_tensor(
                pa.table({name: [value]}), name, described[name], HERE, 0
            ),
        )
        found = []
        for of_schema_or_file, refusal in zip(read, (DataError, ServingError), strict=True):
            try:
                found.append(of_schema_or_file().item())
            except refusal as error:
                found.append(f"column {name!r}" in str(error).lower())
        assert [type(each) for each in found] in ([bool, bool], [float, float]), (value, found)
        assert found[0] == found[1], (value, found)


@pytest.mark.parametrize("values", [[True, False], ["a", "b"], [None, "a"]])
def test_columns_of_other_types_are_no_numbers(described, values):
    """In files and data frames alike."""
    table = pa.table({"visits": values})
    with pytest.raises(ServingError, match="column 'visits': expected numbers; got"):
        check_columns(HERE, table.schema, [described["visits"]], ["visits"])
    with pytest.raises(DataError, match=r"Column 'visits' (holds|has no value)"):
        COLUMNS["visits"].raw(table.to_pandas()["visits"])


def test_numbers_that_are_labels_are_no_codes(described):
    """A table with the labels 1, 2, 5 holds these numbers, not their places among them."""
    column = Column("grade", "categorical", "int64", categories=(1, 2, 5), missing=True)
    vae = keras_vae.table_vae(Schema((column,), 9), 1, hidden=(2,))
    (part,) = integrity.observations(manifest.metadata(vae, None)).values()
    for values in ([5, 1, 2], [5.0, 1.0, None], pa.array([2, 2, None], pa.int8())):
        table = pa.table({"grade": values})
        found = part_tensor(table, "grade", part, HERE, 0)
        np.testing.assert_array_equal(found[:, 0], column.raw(table.to_pandas()["grade"]))
    with pytest.raises(ServingError, match=r"row 1, column 'grade': .* 1, 2, 5; got 0"):
        part_tensor(pa.table({"grade": [1, 0, 2]}), "grade", part, HERE, 0)


MARKED = {
    "score": Column(
        "score", "real", "float64", missing=True, missing_values=(-999, "n/a"),
        low=-3.0, high=3.0, deviation=1.0,
    ),
    "city": Column(
        "city", "categorical", "str", missing=True, missing_values=("unknown", "?"),
        categories=("Lima", "Oslo", "Rome"),
    ),
    "level": Column("level", "ordinal", "int64", missing=True, missing_values=(9,),
                    categories=(1, 2, 3)),
}  # fmt: skip


def test_values_that_stand_for_a_missing_one_are_absent_everywhere():
    """In data frames, files and the graphs of an artifact."""
    vae = keras_vae.table_vae(Schema(tuple(MARKED.values()), 9), 1, hidden=(2,))
    described = manifest.metadata(vae, None)
    parts = integrity.observations(described)
    assert described["observations"]["city"]["missing_values"] == ["unknown", "?"]
    table = pa.table(
        {
            "score": [-999.0, 1.5, None],
            "city": pa.array(["Oslo", "?", "unknown"]).dictionary_encode(),
            "level": [9, 3, 9],
        }
    )
    raw = vae.data.schema.raw(table.to_pandas())
    for name, part in parts.items():
        found = part_tensor(table, name, part, HERE, 0)
        np.testing.assert_array_equal(found.ravel(), raw[name].ravel())
    assert np.isnan(raw["score"].ravel()).tolist() == [True, False, True]
    assert np.isnan(raw["city"]).tolist() == [False, True, True]
    assert np.isnan(raw["level"].ravel()).tolist() == [True, False, True]
    graphs = signatures(vae, num_samples=8)
    x = {f"x_{name}": value.reshape(3, 1) for name, value in raw.items()}
    seed = np.array([[1, 0], [1, 1], [1, 2]], np.int32)
    said = {**x, "x_score": np.float32([[-999.0], [1.5], [np.nan]])}
    for name in ("score", "impute", "encode"):
        given = {} if name == "encode" else {"seed": seed}
        expected = graphs[name].function(**given, **x)
        for key, value in graphs[name].function(**given, **said).items():
            np.testing.assert_array_equal(value, expected[key], err_msg=key)


@pytest.mark.parametrize("name", ["age", "change", "income", "weight", "share", "part"])
def test_draws_are_what_the_schema_makes_of_them(name):
    """A normal distribution draws no negative counts either."""
    column = COLUMNS[name]
    part = RawPart(name, Part((1,)), column.preparation, 0, True, column)
    x = np.linspace(-4.0, 4.0, 401, dtype="float32")[:, np.newaxis]
    np.testing.assert_array_equal(part.raw(tf.constant(x)), column.to_raw(x))


def test_ends_that_are_left_out_are_named(described):
    for name, sentence in (
        ("age", "column 'age': expected a whole number; got 0.5"),
        ("weight", "column 'weight': expected a number above 0; got 0"),
        ("share", "column 'share': expected a number from 0 to 100, both left out; got 0"),
    ):
        value = 0.5 if name == "age" else 0.0
        with pytest.raises(ServingError, match=sentence):
            part_tensor(pa.table({name: [value]}), name, described[name], HERE, 0)


Z = np.zeros((2, 3), "float32")
CODES = Z.astype("int32")


@pytest.mark.parametrize(
    ("takes", "z", "found"),
    [
        (["z"], Z, {"z": Z}),
        (["z"], {"z": Z}, {"z": Z}),
        (["codes"], CODES, {"codes": CODES}),
        (["codes"], {"codes": CODES}, {"codes": CODES}),
        (["z_z1", "z_z2"], {"z2": Z, "z1": Z}, {"z_z1": Z, "z_z2": Z}),
        (["z_z1", "z_z2"], {"z_z1": Z, "z_z2": Z}, {"z_z1": Z, "z_z2": Z}),
        (["z"], {"y": Z}, "the latent z; expected an array of it, or a dict with this name, got y"),
        (["z_z1", "z_z2"], {"z1": Z}, "the latents z1, z2; expected a dict .* got z1"),
        (["z_z1", "z_z2"], Z, "the latents z1, z2; expected a dict .* got one ndarray"),
        (["z_z1", "z_z2"], {}, "the latents z1, z2; expected a dict .* got an empty dict"),
        (["codes"], Z, "codes, whole numbers of an integer dtype, .* as 'codes'; got float"),
    ],
)
def test_latents_of_any_kind_are_given_by_name(takes, z, found):
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            latent_inputs(takes, z)
        return
    given = latent_inputs(takes, z)
    assert given.keys() == found.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(given[name], value)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (5, "a number from 0 to 4; got 5"),
        (-1, "a number from 0 to 4; got -1"),
        (1.5, "a whole number; got 1.5"),
        (np.inf, "finite numbers in the range of float32; got inf"),
    ],
)
def test_numbers_that_the_data_cannot_hold_are_refused(wrong, expected):
    """The graphs are trained on other numbers; what they answer to these would mean nothing."""
    allowed = Range(0, 4, whole=True, missing=True, marks=(-9.0,))
    takes = {"x": Tensor("float32", (1,), missing=True, allowed=allowed)}
    score = Signature("score", "", takes, {"elbo": Tensor("float32", ())}, None)
    known = check_inputs(score, {"x": [[0], [4.0], [None], [-9]]})["x"]
    np.testing.assert_array_equal(known, np.float32([[0], [4], [np.nan], [-9]]))
    with pytest.raises(
        ValueRangeError, match=rf"score: input 'x': expected {expected} at \[1, 0\]"
    ):
        check_inputs(score, {"x": [[0], [wrong]]})


@pytest.mark.parametrize("wrong", [8, -1])
def test_codes_that_the_book_does_not_have_are_refused(wrong):
    takes = {"codes": Tensor("int32", (2,), allowed=Range(0, 7, whole=True))}
    decode = Signature("decode", "", takes, {"mean": Tensor("float32", ())}, None)
    known = check_inputs(decode, {"codes": [[0, 7]]})["codes"]
    np.testing.assert_array_equal(known, [[0, 7]])
    with pytest.raises(ValueRangeError, match=rf"a number from 0 to 7; got {wrong} at \[0, 1\]"):
        check_inputs(decode, {"codes": [[0, wrong]]})
    body = json.dumps({"signature_name": "decode", "instances": [[0, wrong]]}).encode()
    with pytest.raises(ValueRangeError, match="a number from 0 to 7"):
        rest.read_predict(body, {"decode": decode})
