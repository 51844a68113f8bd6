"""Data of other libraries gives the numbers of the same data frame or array."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from PIL import Image

import keras_vae
from keras_vae import data
from keras_vae.data import DataError
from keras_vae.data.foreign import as_known, described

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({"age": RNG.normal(size=40), "income": RNG.normal(size=40)})
TABLE = pa.Table.from_pandas(FRAME, preserve_index=False)


class Protocol:
    """A table that speaks the Arrow protocol, as Polars and DuckDB do, and nothing else."""

    columns = ("age", "income")

    def __arrow_c_stream__(self, requested_schema=None):
        return TABLE.__arrow_c_stream__(requested_schema)


class Legacy:
    """A table with a method for pandas alone."""

    columns = ("age", "income")

    def to_pandas(self):
        return FRAME.copy()


def hugging_face(**columns):
    """An object with the type and the methods of a Hugging Face dataset."""
    kinds = {True: type("Value", (), {}), False: type("Array2D", (), {})}
    features = {name: kinds[np.ndim(part[0]) == 0]() for name, part in columns.items()}
    for feature in features.values():
        feature.dtype = "float64"

    class Dataset:
        def with_format(self, kind):
            return Rows(kind)

    class Rows:
        def __init__(self, kind):
            self.kind = kind

        def __getitem__(self, rows):
            return pd.DataFrame(columns) if self.kind == "pandas" else dict(columns)

    Dataset.__module__ = "datasets.arrow_dataset"
    Dataset.features = features
    return Dataset()


def tables():
    plain = {name: FRAME[name].to_numpy() for name in FRAME}
    return [TABLE, TABLE.to_batches()[0], Protocol(), Legacy(), hugging_face(**plain)]


@pytest.fixture(scope="module")
def vae():
    vae = keras_vae.mlp_vae(2, 1, "normal", hidden=(3,))
    vae.compile(run_eagerly=True)
    return vae


@pytest.mark.parametrize("table", tables(), ids=["table", "batch", "arrow", "pandas", "datasets"])
def test_a_table_is_its_data_frame(table):
    pd.testing.assert_frame_equal(as_known(table), FRAME)
    assert re.fullmatch(
        r"x is a .+, read as a table of 40 rows and the columns age, income\.",
        described(table, as_known(table)),
    )
    np.testing.assert_array_equal(data.load(table).x, FRAME)
    assert data.load(table, drop="age").feature_names == ("income",)


def test_every_method_takes_a_table(vae, capsys):
    vae.fit(TABLE, epochs=1, batch_size=20, validation_data=Protocol(), verbose=2)
    assert "x is a pyarrow Table, read as a table of 40 rows" in capsys.readouterr().out
    assert vae.feature_names == ("age", "income")
    turned = TABLE.select(["income", "age"])
    np.testing.assert_array_equal(vae.elbo(turned, seed=1).elbo, vae.elbo(FRAME, seed=1).elbo)
    np.testing.assert_array_equal(vae.reconstruct(turned), vae.reconstruct(FRAME))
    assert vae.evaluate(TABLE, verbose=0, return_dict=True)["elbo"]
    train, test = data.split(TABLE)
    pd.testing.assert_frame_equal(pd.concat([train, test]).sort_index(), FRAME)
    assert data.batches(TABLE, 10).source.feature_names == ("age", "income")
    with pytest.raises(DataError, match="lacks age"):
        vae.elbo(TABLE.rename_columns(["years", "income"]))


def test_a_schema_reads_a_table():
    frame = FRAME.assign(city=pd.Categorical(RNG.choice(["Oslo", "Rome"], 40)))
    table = pa.Table.from_pandas(frame)
    schema = data.Schema.of(table)
    assert schema == data.Schema.of(frame)
    for name, found in schema.encode(table, seed=1).items():
        np.testing.assert_array_equal(found, schema.encode(frame, seed=1)[name])


def test_arrays_in_a_dataset_are_arrays():
    images = RNG.integers(0, 2, (5, 4, 3))
    np.testing.assert_array_equal(as_known(hugging_face(image=list(images))), images)
    both = as_known(hugging_face(image=list(images), y=np.arange(5.0)))
    assert {name: part.shape for name, part in both.items()} == {"image": (5, 4, 3), "y": (5,)}
    assert described(0, both) == "x is a builtins int, read as the arrays image [5, 4, 3], y [5]."
    ragged = [np.zeros((2, 3)), np.zeros((4, 3))]
    with pytest.raises(DataError, match=r"'image' holds arrays of different shapes, .*\[2, 3\]"):
        as_known(hugging_face(image=ragged))


@pytest.mark.parametrize(
    ("module", "kind", "sentence"),
    [
        ("anndata._core.anndata", "AnnData", "Give keras_vae.data.from_anndata"),
        ("polars.lazyframe.frame", "LazyFrame", r"Give x\.collect\(\)"),
        ("datasets.iterable_dataset", "IterableDataset", "which has no length"),
        ("datasets.dataset_dict", "DatasetDict", r"DatasetDict of train. Give .* x\['train'\]"),
    ],
)
def test_what_needs_a_decision_is_refused(vae, module, kind, sentence):
    value = type(kind, (dict,), {"__module__": module})(train=1)
    with pytest.raises(DataError, match=sentence):
        vae.elbo(value)


def test_a_dataset_of_batches_is_refused_where_arrays_are_needed(vae):
    batches = tf.data.Dataset.from_tensor_slices(FRAME.to_numpy("float32")).batch(10)
    with pytest.raises(DataError, match="which fit, evaluate and predict read; this takes arrays"):
        vae.elbo(batches)
    joined = np.concatenate(list(batches.as_numpy_iterator()))
    np.testing.assert_array_equal(joined, FRAME.to_numpy("float32"))


def test_names_of_folders_are_the_condition(tmp_path):
    for number in range(4):
        folder = tmp_path / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(folder / f"{number}.png")
    found = data.load(tmp_path, labels=True)
    assert found.groups == ("cat", "dog")
    inputs = found.inputs
    assert (inputs["x"][:, 0, 0, 0] % 2 == inputs["condition"][:, 1]).all()
    with pytest.raises(DataError, match="read without labels"):
        data.load(tmp_path).inputs  # noqa: B018
    with pytest.raises(DataError, match="Expected a path or a data frame; got SimpleNamespace"):
        data.load(SimpleNamespace())
