"""Sparse matrices are data like dense ones, of which only the rows that are read become dense."""

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import sparse

import keras_vae
from keras_vae import DataError, data
from keras_vae.data.sparse_rows import SparseRows

RNG = np.random.default_rng(0)
DENSE = (RNG.poisson(1.5, (150, 6)) * (RNG.random((150, 6)) < 0.3)).astype("float32")
DENSE[:, 0] += 1.0
CSR = sparse.csr_array(DENSE)


@pytest.fixture
def never_whole(monkeypatch):
    """Refuses to make more than a part of the matrix dense at once."""

    def limited(self, *args, **kwargs):
        assert self.shape[0] <= 100
        return toarray(self, *args, **kwargs)

    toarray = sparse.csr_array.toarray
    monkeypatch.setattr(sparse.csr_array, "toarray", limited)


def trained(x, **options):
    keras.utils.set_random_seed(0)
    vae = keras_vae.mlp_vae(6, 2, "poisson", hidden=(8,))
    vae.compile()
    return vae, vae.fit(x, epochs=2, batch_size=50, verbose=0, **options).history


def test_training_on_sparse_rows_has_the_numbers_of_the_dense_array():
    options = {"validation_split": 1 / 3, "sample_weight": RNG.random(150)}
    dense, expected = trained(DENSE, **options)
    for x in (CSR, sparse.csc_matrix(DENSE)):
        vae, history = trained(x, **options)
        assert history == expected
    np.testing.assert_array_equal(vae.elbo(CSR, seed=1).elbo, dense.elbo(DENSE, seed=1).elbo)
    np.testing.assert_array_equal(vae.predict(CSR, verbose=0), dense.predict(DENSE, verbose=0))
    keras.utils.set_random_seed(1)
    found = vae.evaluate(CSR, verbose=0)
    keras.utils.set_random_seed(1)
    assert np.shape(found) == np.shape(dense.evaluate(DENSE, verbose=0))
    found = keras_vae.evaluation.log_marginal(vae, CSR, num_samples=5, seed=0)
    expected = keras_vae.evaluation.log_marginal(vae, DENSE, num_samples=5, seed=0)
    np.testing.assert_array_equal(found.value, expected.value)


def test_batches_of_sparse_rows_are_those_of_the_dense_array(never_whole):
    streams = [
        data.batches({"x": x, "y": DENSE[:, :2]}, 40, epochs=2, seed=3) for x in (CSR, DENSE)
    ]
    for found, expected in zip(*streams, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


def test_split_keeps_a_matrix_sparse():
    train, test = data.split(CSR, seed=1)
    dense = data.split(DENSE, seed=1)
    assert sparse.issparse(train)
    np.testing.assert_array_equal(train.toarray(), dense[0])
    np.testing.assert_array_equal(test.toarray(), dense[1])


def test_sparse_rows_read_as_the_array():
    rows = SparseRows(CSR)
    assert (len(rows), rows.size, rows.nbytes) == (150, 900, 3600)
    assert (rows.min(), rows.max()) == (DENSE.min(), DENSE.max())
    np.testing.assert_array_equal(np.asarray(rows[5:9]), DENSE[5:9])
    np.testing.assert_array_equal(rows.read(np.array([7, 7, 2])), DENSE[[7, 7, 2]])


def test_wrong_sparse_data_is_refused():
    vae, _ = trained(CSR)
    with pytest.raises(DataError, match=r"counts 0, 1, 2, \.\.\.; got 0.5 in example 149"):
        trained(sparse.csr_array(np.where(np.arange(150)[:, None] == 149, 0.5, DENSE)))
    with pytest.raises(DataError, match=r"shape \[n, 6\]; got \[150, 3\]"):
        vae.elbo(CSR[:, :3])
    with pytest.raises(DataError, match="Keras' own loop does not do"):
        vae.fit(CSR, steps_per_epoch=1, verbose=0)
    with pytest.raises(DataError, match="only the data itself may be sparse"):
        vae.fit(CSR, sample_weight=CSR[:, :1], verbose=0)


def adata(**changes):
    """Makes a stand-in with the attributes of `anndata.AnnData`, which is not installed here."""
    obs = pd.DataFrame({"batch": pd.Categorical(np.resize(["b", "a", "c"], 150))})
    names = pd.Index([f"gene {i}" for i in range(6)])
    made = {"X": np.log1p(DENSE), "layers": {"counts": CSR}, "obs": obs, "var_names": names}
    return SimpleNamespace(**{**made, **changes})


def test_cells_of_an_anndata_object_train_with_batches_and_sizes():
    cells = data.from_anndata(adata(), layer="counts", batch_key="batch")
    assert (cells.groups, cells.feature_names[5]) == (("a", "b", "c"), "gene 5")
    np.testing.assert_array_equal(cells.condition[:3, :3], np.eye(3)[[1, 0, 2]])
    np.testing.assert_allclose(cells.condition[:, 3], np.log(DENSE.sum(1)), rtol=1e-6)
    keras.utils.set_random_seed(0)
    vae = keras_vae.mlp_vae(
        6,
        2,
        "zero_inflated_negative_binomial",
        hidden=(8,),
        condition_shape=4,
        offset=True,
        link="softmax",
        dispersion="per_group",
        num_groups=3,
    )
    vae.compile(keras.optimizers.Adam(0.01))
    history = vae.fit(cells.inputs, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert vae.elbo(cells.inputs, seed=0).elbo.shape == (150,)
    again = data.from_anndata(adata(X=DENSE), batch_key="batch", groups=("c", "a", "b"))
    np.testing.assert_array_equal(again.condition[:, :3], cells.condition[:, [2, 0, 1]])
    np.testing.assert_array_equal(again.x, DENSE)
    assert data.from_anndata(adata(), layer="counts").condition.shape == (150, 1)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {}, "adata.X holds other numbers than counts"),
        ({"X": None}, {}, "adata.X is empty"),
        ({}, {"layer": "raw"}, "no layer 'raw'; it has counts"),
        ({"X": 0 * DENSE}, {}, "150 cells without a count, first cell 0.*filter_cells"),
        ({"X": CSR}, {"batch_key": "donor"}, "no column 'donor'; it has batch"),
        ({"X": CSR}, {"batch_key": "batch", "groups": "ab"}, "the batch 'c'; the model knows a, b"),
        (
            {"X": CSR, "obs": pd.DataFrame({"batch": [None] * 150})},
            {"batch_key": "batch"},
            "has missing values",
        ),
    ],
)
def test_wrong_anndata_objects_are_refused(changes, options, message):
    with pytest.raises(DataError, match=message):
        data.from_anndata(adata(**changes), **options)
