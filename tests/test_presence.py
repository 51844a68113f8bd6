"""Training data without any value: refused as a whole, named by part, column and row."""

import numpy as np
import pandas as pd
import pytest

import keras_vae
from keras_vae import DataError, data
from keras_vae.data import Schema
from keras_vae.runs.config import RunConfig
from keras_vae.runs.tasks import task_of
from keras_vae.training.data_spec.presence import presence

NAN = np.nan
FRAME = pd.DataFrame({"age": [31.5, 4.2, NAN, 58.1] * 9, "city": ["Oslo", "Rome", None, None] * 9})


@pytest.mark.parametrize(
    ("arrays", "names", "messages"),
    [
        ({"x": np.eye(2)}, None, []),
        ({"x": np.array([[1.0, NAN], [2.0, 3.0]])}, None, []),
        (
            {"x": np.array([[1.0, NAN], [NAN, NAN]])},
            None,
            [
                "No row has a value of column 1: the model learns nothing about it.",
                "1 of 2 rows has no value at all, and adds nothing to the training.",
            ],
        ),
        (
            {"x": np.array([[NAN, 1.0, NAN]])},
            ("a", "b", "c"),
            ["No row has a value of a, c: the model learns nothing about them."],
        ),
        (
            {"image": np.ones((3, 4, 4, 1)), "label": np.full((3, 10), NAN)},
            None,
            ["No row has a value of label: the model learns nothing about it."],
        ),
        (
            {"a": np.array([[NAN], [NAN], [1.0]]), "b": np.array([[NAN], [NAN], [NAN]])},
            None,
            [
                "No row has a value of b: the model learns nothing about it.",
                "2 of 3 rows have no value at all, and add nothing to the training.",
            ],
        ),
    ],
)
def test_what_has_no_value_is_named(arrays, names, messages) -> None:
    assert presence(arrays, names) == messages


def test_classes_that_never_occur_are_named() -> None:
    label = np.eye(4)[[0, 1, 1, 0]]
    label[0] = NAN
    x = {"x": np.ones((4, 2)), "label": label}
    said = "No row has classes 2, 3 of label: the model learns that this never occurs."
    assert presence(x, one_hot=["label"]) == [said]
    assert presence({**x, "label": np.eye(4)}, one_hot=["label"]) == []
    never = {**x, "label": np.full((4, 4), NAN)}
    assert presence(never, one_hot=["label"])[0].startswith("No row has a value of label")


def test_rows_are_not_counted_where_other_parts_are_unknown() -> None:
    assert presence({"a": np.array([[NAN], [1.0]])}, is_all=False) == []
    assert len(presence({"a": np.array([[NAN], [NAN]])}, is_all=False)) == 1


def test_fit_refuses_data_without_a_value_and_names_what_has_none(capsys) -> None:
    vae = keras_vae.table_vae(Schema.of(FRAME), 1, hidden=(2,))
    vae.compile(run_eagerly=True)
    nothing = FRAME.assign(age=NAN, city=None)
    with pytest.raises(DataError, match=r"Every value of the 36 rows is absent \(NaN\)"):
        vae.fit(nothing, verbose=0)
    vae.fit(FRAME.assign(city=None), verbose=2)
    shown = capsys.readouterr().out
    assert "No row has a value of city: the model learns nothing about it.\n9 of 36 rows" in shown
    vae.compile()
    arrays = {name: np.full_like(x, NAN) for name, x in vae.data.schema.encode(FRAME).items()}
    with pytest.raises(DataError, match="Every value of the 36 rows"):
        vae.fit(data.batches(arrays, 12), steps_per_epoch=3, verbose=0)


def test_the_command_line_says_the_same(tmp_path) -> None:
    FRAME.to_csv(tmp_path / "some.csv", index=False)
    FRAME.assign(age=NAN, city=None).to_csv(tmp_path / "none.csv", index=False)
    Schema.of(FRAME).save(tmp_path / "schema.toml")
    said: list[str] = []
    config = RunConfig(data=str(tmp_path / "some.csv"), epochs=1)
    task_of(config, None, said.append)
    assert "rows have no value at all, and add nothing to the training." in said[-1]
    config = RunConfig(data=str(tmp_path / "none.csv"), schema=str(tmp_path / "schema.toml"))
    with pytest.raises(DataError, match="Every value of the 32 rows is absent"):
        task_of(config, None, said.append)
    with pytest.raises(DataError, match="No column is left to model: age is left out"):
        task_of(RunConfig(data=str(tmp_path / "none.csv")), None, said.append)
