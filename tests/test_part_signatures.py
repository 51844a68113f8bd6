"""Signatures of models with named parts, and of data with absent entries."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import mixed_data, mixed_vae

import keras_vae
from keras_vae import random
from keras_vae.data.preparation import Preparation
from keras_vae.integrity import as_word
from keras_vae.signatures import signatures

SEED = np.array([[7, row] for row in range(12)], np.int32)
NAMES = ["age", "image", "label", "visits"]
CODES = {"label": Preparation(categories=3)}


def asked(table, name, **inputs):
    """Calls a signature; returns arrays."""
    found = table[name].function(**{key: tf.constant(value) for key, value in inputs.items()})
    assert set(found) == set(table[name].outputs)
    return {key: value.numpy() for key, value in found.items()}


def named(x, kind="x"):
    return {f"{kind}_{name}": value.astype("float32") for name, value in x.items()}


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(0)
    return mixed_vae()


def test_tensors_bear_the_names_of_their_parts(vae):
    table = signatures(vae, CODES)
    assert list(table["score"].inputs) == [*(f"x_{name}" for name in NAMES), "seed"]
    assert table["score"].inputs["x_label"].shape == [None, 1]
    parameters = ("loc_age", "scale_age", "logits_image", "logits_label", "log_rate_visits")
    assert table["decode"].outputs == (*(f"mean_{name}" for name in NAMES), *parameters)
    assert table["encode"].outputs == ("loc", "scale")
    scored = ("elbo", "distortion", "rate", *(f"distortion_{name}" for name in NAMES))
    assert table["score"].outputs == scored
    assert table["reconstruct"].outputs == tuple(f"mean_{name}" for name in NAMES)


def test_draws_and_means_are_the_models_own_bit_for_bit(vae):
    found = asked(signatures(vae), "sample", seed=SEED)
    for kind, own in (("sample", vae.sample(12, seed=7)), ("mean", vae.sample_mean(12, seed=7))):
        for name, value in own.items():
            np.testing.assert_array_equal(found[f"{kind}_{name}"], value)


def test_score_is_the_models_bound_on_what_is_present(vae):
    x = mixed_data(12)
    found = asked(signatures(vae), "score", **named(x), seed=SEED)
    bound = vae.elbo(x, seed=7)
    for name in ("elbo", "distortion", "rate"):
        np.testing.assert_allclose(found[name], getattr(bound, name), rtol=1e-6, atol=1e-6)
    absent = np.isnan(x["age"][:, 0])
    assert 2 < absent.sum() < 10
    np.testing.assert_array_equal(found["distortion_age"] == 0.0, absent)
    total = sum(found[f"distortion_{name}"] for name in NAMES)
    np.testing.assert_allclose(total, found["distortion"], rtol=1e-6)
    centre = asked(signatures(vae), "encode", **named(x))
    np.testing.assert_array_equal(centre["loc"], vae.encode(x).mean())
    for name, value in vae.reconstruct(x).items():
        mean = asked(signatures(vae), "reconstruct", **named(x))[f"mean_{name}"]
        np.testing.assert_array_equal(mean, value)


def test_categories_are_codes_and_their_mean_probabilities(vae):
    x = mixed_data(12)
    absent = np.isnan(x["label"]).any(axis=1, keepdims=True)
    codes = {**x, "label": np.where(absent, np.nan, x["label"].argmax(1)[:, None])}
    plain, coded = signatures(vae), signatures(vae, CODES)
    for name, seed in (("score", {"seed": SEED}), ("encode", {}), ("reconstruct", {})):
        expected = asked(plain, name, **named(x), **seed)
        found = asked(coded, name, **named(codes), **seed)
        for key, value in found.items():
            np.testing.assert_array_equal(value, expected[key])
    drawn, one_hot = asked(coded, "sample", seed=SEED), asked(plain, "sample", seed=SEED)
    np.testing.assert_array_equal(drawn["sample_label"][:, 0], one_hot["sample_label"].argmax(1))
    np.testing.assert_array_equal(drawn["mean_label"], one_hot["mean_label"])


def told(found):
    """Lists the rows that are NaN in all outputs; in the others no number is."""
    rows = [np.isnan(value.reshape(len(value), -1)) for value in found.values()]
    rows = np.concatenate(rows, axis=1)
    assert (rows.all(axis=1) | ~rows.any(axis=1)).all()
    return np.flatnonzero(rows.all(axis=1)).tolist()


IMPOSSIBLE = {
    "label": (-1.0, 3.0, 1.5, np.inf),
    "visits": (-1.0, 0.5, np.inf),
    "image": (0.5, -1.0, 2.0, np.nan),
    "age": (np.inf, -np.inf),
}
POSSIBLE = {"label": (2.0, np.nan), "visits": (1e6, np.nan), "image": (1.0,), "age": (-1e6, np.nan)}


def test_a_row_of_data_that_cannot_be_has_no_answer(vae):
    values = [(name, value) for name, row in IMPOSSIBLE.items() for value in row]
    bad = list(range(len(values)))
    values += [(name, value) for name, row in POSSIBLE.items() for value in row]
    count = len(values)
    x = {**mixed_data(count), "label": np.zeros((count, 1))}
    for row, (name, value) in enumerate(values):
        x[name].reshape(count, -1)[row, 0] = value
    table = signatures(vae, CODES, num_samples=4)
    given = {**named(x), "seed": np.resize(SEED, (count, 2))}
    for name in ("encode", "reconstruct", "score", "impute", "classify"):
        inputs = {key: each for key, each in given.items() if key in table[name].inputs}
        assert told(asked(table, name, **inputs)) == bad


def test_a_vector_without_a_single_one_has_no_answer(vae):
    x = mixed_data(12)
    nan = np.nan
    x["label"] = np.eye(3)[np.arange(12) % 3]
    x["label"][:6] = [[1, 1, 0], [0, 0, 0], [nan, 1, 0], [0, 0, nan], [2, -1, 0], [nan, nan, nan]]
    assert told(asked(signatures(vae), "encode", **named(x))) == [0, 1, 2, 3, 4]


def test_a_condition_that_is_no_number_has_no_answer():
    vae = keras_vae.mlp_vae(4, 2, condition_shape=3, hidden=(3,))
    condition = np.zeros((12, 3), "float32")
    condition[5, 1], condition[7, 2] = np.nan, np.inf
    table = signatures(vae)
    given = {"x": np.ones((12, 4), "float32"), "z": np.zeros((12, 2), "float32"), "seed": SEED}
    for name in table:
        inputs = {key: each for key, each in given.items() if key in table[name].inputs}
        found = asked(table, name, **inputs, condition=condition)
        assert told(found) == [5, 7]


def test_binarised_grey_levels_are_those_of_the_file():
    table = signatures(keras_vae.mlp_vae(4, 2, hidden=(3,)), Preparation("binarize", 255.0))
    x = np.full((12, 4), 255.0, "float32")
    x[:6, 2] = [np.nan, 256.0, -1.0, np.inf, 0.5, 0.0]
    found = asked(table, "score", x=x, seed=SEED)
    assert told(found) == [0, 1, 2, 3]


def test_standardisation_counts_what_is_present():
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Normal(3, missing=True),
        posterior=keras_vae.DiagonalNormal(2, network=keras_vae.PartsEncoder()),
    )
    center, spread = (1.0, -20.0, 300.0), (0.1, 5.0, 40.0)
    rng = np.random.default_rng(0)
    inner = rng.normal(size=(12, 3)).astype("float32")
    inner[rng.random((12, 3)) < 0.4] = np.nan
    raw = (inner * spread + center).astype("float32")
    table = signatures(vae, Preparation(center=center, spread=spread))
    assert list(table["score"].inputs) == ["x", "seed"]
    found = asked(table, "score", x=raw, seed=SEED)["elbo"]
    nats = np.where(np.isnan(inner), 0.0, np.log(spread)).sum(axis=1)
    np.testing.assert_allclose(found, vae.elbo(inner, seed=7).elbo - nats, rtol=1e-4, atol=1e-4)


def test_random_steps_of_two_parts_share_no_number():
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(1),
        likelihood=keras_vae.Parts({"a": keras_vae.Bernoulli(50), "b": keras_vae.Bernoulli(50)}),
        posterior=keras_vae.DiagonalNormal(1, network=keras_vae.PartsEncoder(complete=["a", "b"])),
    )
    half = np.full((12, 50), 0.5, "float32")
    table = signatures(vae, dict.fromkeys("ab", Preparation("binarize")))
    inputs = {"x_a": half, "x_b": half, "seed": SEED}
    found = asked(table, "score", **inputs)
    u = [random.uniform(SEED, (50,), stream=random.PREPARATION, index=k) for k in (0, 1)]
    x = {"a": (u[0] < 0.5).numpy() * 1.0, "b": (u[1] < 0.5).numpy() * 1.0}
    np.testing.assert_allclose(found["elbo"], vae.elbo(x, seed=7).elbo, rtol=1e-6)


def test_names_of_columns_become_words():
    assert as_word("native country") == "native_country"
    assert as_word("sepal length (cm)") == "sepal_length__cm_"
    assert as_word("größe") == "groudfe"
    assert as_word("年") == "u5e74"


def test_parts_whose_tensors_would_share_a_name_are_refused():
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(1),
        likelihood=keras_vae.Parts({"a b": keras_vae.Normal(1), "a-b": keras_vae.Normal(1)}),
        posterior=keras_vae.DiagonalNormal(
            1, network=keras_vae.PartsEncoder(complete=["a b", "a-b"])
        ),
    )
    with pytest.raises(ValueError, match="'a b' and 'a-b' would share tensors called x_a_b"):
        signatures(vae)


def test_a_preparation_is_for_a_part(vae):
    with pytest.raises(ValueError, match="has the parts age, image, label, visits; got one"):
        signatures(vae, Preparation(divide=255.0))
    with pytest.raises(ValueError, match="preparation of 'images', but the parts"):
        signatures(vae, {"images": Preparation(divide=255.0)})


def test_a_table_with_a_schema_is_sampled_and_scored_in_its_units():
    import pandas as pd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "income": np.exp(rng.normal(8.0, 0.5, 60)).round(2),
            "delta": rng.integers(-50, 50, 60),
            "visits": pd.Series(rng.poisson(3.0, 60)).where(rng.random(60) < 0.7),
            "city": rng.choice(["Oslo", "Rome", "Lima"], 60),
            "member": rng.random(60) < 0.4,
            "share": rng.beta(0.8, 0.8, 60),
            "rate": rng.beta(0.8, 0.8, 60).round(2).clip(0.01, 0.99),
            "percent": rng.integers(1, 100, 60),
            "full_percent": rng.integers(0, 101, 60),
            "height": rng.normal(1.7, 0.1, 60).round(2),
        }
    )
    percents = dict.fromkeys(("percent", "full_percent"), "proportion")
    schema = keras_vae.data.Schema.of(frame, kinds=percents)
    keras.utils.set_random_seed(0)
    vae = keras_vae.table_vae(schema, 2, hidden=(8,))
    table = signatures(vae)
    found = asked(table, "sample", seed=SEED)
    raw = {name: found[f"sample_{name}"] for name in schema.columns}
    drawn = vae.sample(12, seed=7)
    pd.testing.assert_frame_equal(schema.frame(raw), drawn)
    for name in ("income", "delta", "visits", "rate", "percent", "full_percent", "height"):
        # The artifact has the numbers of the file, float32, and not only what rounds to them.
        np.testing.assert_array_equal(raw[name].ravel(), drawn[name].to_numpy("float32"))
    assert np.isfinite(vae.elbo(drawn).elbo).all()  # what is drawn may be scored
    x = {name: value.reshape(60, 1) for name, value in schema.raw(frame).items()}
    seed = np.stack([np.full(60, 7), np.arange(60)], 1).astype("int32")
    elbo = asked(table, "score", **named(x), seed=seed)["elbo"]
    model = {}
    for index, (name, column) in enumerate(schema.columns.items()):
        u = random.uniform(seed, (1,), stream=random.PREPARATION, index=index).numpy()
        model[name] = column.encode(schema.raw(frame)[name], u)
    expected = vae.elbo(model, seed=7).elbo + schema.row_nats(model)
    np.testing.assert_allclose(elbo, expected, rtol=1e-4, atol=1e-4)  # of standardised float32


def test_impute_and_classify_are_the_models_own(vae):
    x = mixed_data(12)
    table = signatures(vae, num_samples=10)
    found = asked(table, "impute", **named(x), seed=SEED)
    own = vae.impute(x, num_samples=10, multiple=1, seed=7)
    incomplete = np.isfinite(own.ess)
    np.testing.assert_allclose(found["ess"][incomplete], own.ess[incomplete], rtol=1e-5)
    for name in ("age", "label", "visits"):
        # The weights are computed in another order of sums.
        np.testing.assert_allclose(found[f"value_{name}"], own.values[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[f"mean_{name}"], own.mean[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[f"sample_{name}"], own.draws[name][0], rtol=1e-5)
        given = ~np.isnan(x[name])
        np.testing.assert_array_equal(found[f"sample_{name}"][given], x[name][given].astype("f4"))
    classes = asked(table, "classify", **named(x), seed=SEED)
    assert set(classes) == {"probabilities_label", "ess_label"}
    expected = vae.classify(x, "label", num_samples=10, seed=7)
    np.testing.assert_allclose(classes["probabilities_label"], expected.probabilities, rtol=1e-5)
    np.testing.assert_allclose(classes["ess_label"], expected.ess, rtol=1e-5)


def test_imputations_of_codes_are_codes(vae):
    x = mixed_data(12)
    absent = np.isnan(x["label"]).any(axis=1, keepdims=True)
    codes = {**x, "label": np.where(absent, np.nan, x["label"].argmax(1)[:, None])}
    plain = asked(signatures(vae, num_samples=8), "impute", **named(x), seed=SEED)
    found = asked(signatures(vae, CODES, num_samples=8), "impute", **named(codes), seed=SEED)
    for kind in ("value", "sample"):
        code = plain[f"{kind}_label"].argmax(axis=1)[:, None]
        np.testing.assert_array_equal(found[f"{kind}_label"], code)
    np.testing.assert_allclose(found["mean_label"], plain["mean_label"], rtol=1e-6)
    np.testing.assert_array_equal(found["value_label"][~absent], codes["label"][~absent])
