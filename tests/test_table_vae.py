"""A model of a table takes data frames and returns them."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy.stats import norm

import keras_vae
from keras_vae import DataError, DiagonalNormal, Parts, PartsEncoder, StandardNormal
from keras_vae.data import Schema
from keras_vae.distributions.names import LIKELIHOODS
from keras_vae.factories import table_likelihoods

RNG = np.random.default_rng(0)
ROWS = 300


def table():
    """Makes a table in which columns say something about each other, with absent values."""
    size = RNG.choice(3, ROWS)
    frame = pd.DataFrame(
        {
            "id": np.arange(ROWS),
            "sepal length (cm)": np.round(RNG.normal(5.0 + size, 0.3, ROWS), 1),
            "visits": RNG.poisson(3.0 + 20.0 * size),
            "size": pd.Categorical.from_codes(size, ["small", "medium", "large"], ordered=True),
            "city": RNG.choice(["Oslo", "Rome", "Lima"], ROWS),
            "income": np.exp(RNG.normal(8.0 + size, 0.5, ROWS)).astype("int64"),
            "share": RNG.beta(0.8, 0.8, ROWS),
            "member": RNG.random(ROWS) < 0.4,
            "delta": RNG.integers(-50, 50, ROWS),
        }
    )
    for name in ("visits", "city", "sepal length (cm)"):
        frame[name] = frame[name].astype("Int64" if name == "visits" else frame[name].dtype)
        frame.loc[RNG.random(ROWS) < 0.2, name] = None
    return frame


FRAME = table()
SCHEMA = Schema.of(FRAME)
KEPT = FRAME.drop(columns="id")


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(0)
    model = keras_vae.table_vae(SCHEMA, 2, hidden=(16,))
    model.compile(keras.optimizers.Adam(1e-2))
    before = float(np.mean(model.elbo(FRAME, seed=0).elbo))
    history = model.fit(FRAME, epochs=12, verbose=0, validation_data=FRAME.iloc[:50])
    assert np.isfinite(history.history["val_elbo"]).all()
    assert float(np.mean(model.elbo(FRAME, seed=0).elbo)) > before + 1.0
    return model


def test_rows_come_out_as_the_table_has_them(vae):
    for frame in (vae.sample(40, seed=3), vae.sample_mean(40, seed=3), vae.reconstruct(FRAME)):
        assert list(frame) == list(KEPT)
        assert dict(frame.dtypes) == dict(KEPT.dtypes)
        assert not frame.isna().any(axis=None)
        assert frame["income"].min() >= 0
        assert frame["share"].between(0.0, 1.0).all()
    assert len(vae.reconstruct(FRAME)) == ROWS
    pd.testing.assert_frame_equal(vae.sample(40, seed=3)[:7], vae.sample(7, seed=3))


def test_frames_and_their_arrays_are_the_same_data(vae):
    arrays = SCHEMA.encode(FRAME, seed=0)
    expected = vae.elbo(arrays, seed=1)
    shuffled = FRAME[list(reversed(FRAME.columns))].drop(columns="id")
    for frame in (FRAME, shuffled):
        np.testing.assert_array_equal(vae.elbo(frame, seed=1).elbo, expected.elbo)
    assert isinstance(vae.reconstruct(arrays), dict)
    np.testing.assert_array_equal(
        vae.evaluate(FRAME, verbose=0, return_dict=True)["elbo"] < 0, True
    )


def test_bound_of_an_absent_row_is_that_of_no_data(vae):
    nothing = {
        name: np.full((1, c.size), np.nan) for name, c in SCHEMA.columns.items() if c.missing
    }
    rest = {name: x[:1] for name, x in SCHEMA.encode(FRAME).items() if name not in nothing}
    q = vae.encode({**rest, **nothing})
    assert np.isfinite(q.mean()).all()
    p = vae.decode(q.mean())
    observed = sum(
        tf.reduce_sum(p[name].log_prob(tf.constant(values))) for name, values in rest.items()
    )
    prior = vae.prior.distribution().log_prob(q.mean())[0]
    found = vae.log_joint({**rest, **nothing}, q.mean())[0]
    # two sums in another order, in float32
    np.testing.assert_allclose(found, observed + prior, rtol=1e-5)


def test_it_is_saved_with_its_schema(vae, tmp_path):
    vae.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.likelihood.schema == SCHEMA
    pd.testing.assert_frame_equal(loaded.sample(5, seed=1), vae.sample(5, seed=1))
    np.testing.assert_array_equal(
        loaded.elbo(FRAME[:9], seed=1).elbo, vae.elbo(FRAME[:9], seed=1).elbo
    )


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.drop(columns="city"), "lacks city; the model was trained on the columns sepal"),
        (FRAME.assign(city="Roma"), r"'city' holds the unknown category 'Roma' \(did you mean Rom"),
        (FRAME.assign(share=None), r"Column 'share' has no value in row 0 \(300 such rows\)"),
        (FRAME.assign(visits=0.5), "Column 'visits' holds 0.5 in row 0"),
        (FRAME.assign(extra=1), "holds extra, which the model does not know"),
        (np.zeros([3, 8]), "expects a dict of the parts .* or a data frame"),
    ],
)
@pytest.mark.parametrize("door", ["fit", "elbo", "reconstruct", "evaluate", "encode"])
def test_other_tables_are_refused_at_every_door(vae, frame, message, door):
    with pytest.raises(DataError, match=message):
        getattr(vae, door)(frame, **({"verbose": 0} if door in ("fit", "evaluate") else {}))


def test_parts_and_schema_describe_the_same_columns():
    likelihoods = table_likelihoods(SCHEMA)
    assert list(likelihoods) == list(SCHEMA.columns)
    for name, part in likelihoods.items():
        column = SCHEMA.columns[name]
        assert type(part).__name__ == LIKELIHOODS[column.likelihood].name
        assert (part.event_shape, part.missing) == ((column.size,), column.missing)
    del likelihoods["city"]
    with pytest.raises(ValueError, match=r"'city' is not in the parts. .*table_likelihoods"):
        Parts(likelihoods, schema=SCHEMA)
    likelihoods["city"] = keras_vae.Categorical(3)
    with pytest.raises(ValueError, match=r"missing=True, as its column; got .* missing=False"):
        Parts(likelihoods, schema=SCHEMA)


def test_starting_means_of_counts_are_those_of_the_table():
    model = keras_vae.table_vae(SCHEMA, 2, hidden=(4,))
    mean = model.decode(np.zeros([1, 2]))["visits"].mean()
    # the features at z = 0 are 0 under relu, so the bias alone decides; float32
    np.testing.assert_allclose(mean, [[SCHEMA.columns["visits"].mean]], rtol=1e-5)


def test_nats_of_the_table_are_those_of_its_numbers():
    frame = pd.DataFrame({"x": [0.5, 7.25, None] * 20, "y": [3.5, 1.25, 2.5] * 20})
    schema = Schema.of(frame, kinds={"x": "real", "y": "real"})
    model = keras_vae.VAE(
        prior=StandardNormal(1),
        likelihood=Parts(
            {
                "x": keras_vae.Normal(1, scale=1.0, missing=True),
                "y": keras_vae.Normal(1, scale=1.0),
            },
            schema=schema,
        ),
        posterior=DiagonalNormal(1, network=PartsEncoder(keras.layers.Dense(3))),
    )
    z = np.zeros([len(frame), 1])
    found = model.log_joint(frame, z) + schema.row_nats(schema.encode(frame))
    means = {name: p.mean().numpy()[:, 0] for name, p in model.decode(z).items()}
    expected = np.full(len(frame), norm.logpdf(0.0))  # of z under the prior
    for name, column in schema.columns.items():
        (center,), (spread,) = column.preparation.center, column.preparation.spread
        log_p = norm.logpdf(frame[name], means[name] * spread + center, spread)
        expected = expected + np.where(frame[name].isna(), 0.0, log_p)
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32
