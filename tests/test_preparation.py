"""Preparation: what raw numbers become, what is proposed for them, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from keras_vae import random
from keras_vae.data import DataError
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare, propose
from keras_vae.factories import LIKELIHOODS
from keras_vae.signatures import signatures
from tests.models import tiny_vae

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_are_those_of_float64_whatever_the_dtype(dtype: str) -> None:
    """A standard error of 50 / sqrt(n) on the mean, and its 0.7th part on the deviation."""
    raw = (101_325 + 50 * RANDOM.normal(size=(300_000, 2))).astype(dtype)
    preparation, _ = prepare(LIKELIHOODS["normal"], raw)
    exact = raw.astype(np.float64)
    np.testing.assert_allclose(preparation.center, exact.mean(axis=0), rtol=2**-24)  # float32
    np.testing.assert_allclose(preparation.spread, exact.std(axis=0), rtol=2**-23)
    assert preparation.center == pytest.approx([101_325] * 2, abs=5 * 50 / 300_000**0.5)
    assert preparation.spread == pytest.approx([50] * 2, abs=5 * 50 / 600_000**0.5)


@pytest.mark.parametrize("value", [0.1, 3.3, 37.2, -1e6 / 3, 20_240_101.0, 0.0])
def test_a_constant_feature_adds_no_nats_and_stays_what_it_is(value: float) -> None:
    raw = np.stack([np.full(1000, value), RANDOM.normal(size=1000)], axis=1)
    preparation, _ = prepare(LIKELIHOODS["normal"], raw)
    alone, _ = prepare(LIKELIHOODS["normal"], raw[:, 1:])
    # float32 spreads; a whole number that float32 resolves is a feature of whole numbers.
    if preparation.constant:
        assert 2 * preparation.nats_offset == pytest.approx(alone.nats_offset, rel=1e-6)
        assert preparation.sentence.endswith("constant: number 0")
    x = preparation.array(raw)[:, 0] * preparation.spread[0]
    assert np.ptp(x) < 1.0 < 5 * np.std(x)  # one cell of width 1, filled with noise
    table = signatures(tiny_vae("normal", 2), preparation)
    if preparation.constant:
        found = table["sample"].function(seed=random.row_seeds(0, 5))
        for name in ("sample", "mean"):
            np.testing.assert_array_equal(found[name][:, 0], np.float32(value))


def test_a_constant_with_rounding_errors_is_constant() -> None:
    raw = np.full((1000, 1), 0.1)
    raw[::3] = 0.3 - 0.2
    assert prepare(LIKELIHOODS["normal"], raw)[0].spread == (1.0,)


@pytest.mark.parametrize("shape", [(50, 3), (50, 4, 3), (50, 4, 4, 3)])
@pytest.mark.parametrize("kind", ["real", "whole"])
def test_any_rank_is_standardised_by_feature(shape: tuple[int, ...], kind: str) -> None:
    raw = RANDOM.normal(size=shape) * [1.0, 100.0, 1e4] + [0.0, -500.0, 1e6]
    raw = np.rint(raw).astype(int) if kind == "whole" else raw
    preparation, _ = prepare(LIKELIHOODS["normal"], raw)
    x = preparation.array(raw).reshape(-1, 3)
    # Exact for real numbers in float32; for whole ones up to the scatter of n uniform numbers.
    tolerance = 1e-4 if kind == "real" else 5 / np.sqrt(12 * len(x))
    assert np.abs(x.mean(axis=0)).max() < tolerance
    assert np.abs(x.std(axis=0) - 1).max() < tolerance + 1e-4
    assert preparation.is_dequantised == (kind == "whole")


def test_mixed_columns_are_dequantised_one_by_one() -> None:
    raw = np.stack([RANDOM.integers(-5, 90, 400), RANDOM.normal(size=400)], axis=1)
    preparation, _ = prepare(LIKELIHOODS["normal"], raw)
    assert preparation.whole == (True, False)
    assert not preparation.is_dequantised
    assert "1 feature of whole numbers" in preparation.sentence
    found = signatures(tiny_vae("normal", 2), preparation)["sample"].function(
        seed=random.row_seeds(0, 200)
    )["sample"]
    np.testing.assert_array_equal(found[:, 0], np.rint(found[:, 0]))
    assert (np.asarray(found[:, 1]) != np.rint(found[:, 1])).all()


def test_a_density_of_whole_numbers_bounds_their_probability() -> None:
    """Each exp(E elbo) is at most P(x), and these sum to at most one."""
    preparation = Preparation(center=(0.5,), spread=(1.5,), whole=(True,))
    score = signatures(tiny_vae("normal", 1, scale=0.3), preparation)["score"].function
    seed, count = random.row_seeds(0, 400), 400
    means = [
        np.mean(score(x=tf.fill([count, 1], float(level)), seed=seed)["elbo"])
        for level in range(-6, 7)
    ]
    assert 0.0 < np.exp(means).sum() < 1.0


def test_artifacts_prepare_as_the_training_did() -> None:
    raw = np.stack(
        [
            101_325 + 50 * RANDOM.normal(size=100),
            RANDOM.integers(0, 10**6, 100),
            np.full(100, 0.1),
            1.7e9 + 1e7 * RANDOM.normal(size=100) + 0.5,
        ],
        axis=1,
    )
    preparation, _ = prepare(LIKELIHOODS["normal"], raw)
    static = preparation.static(raw)
    expected = static + np.float32(0.5) * preparation.noise
    vae = tiny_vae("normal", 4)
    found = signatures(vae, preparation)["encode"].function(x=tf.constant(raw, tf.float32))
    # The same operations on the same float32 numbers.
    np.testing.assert_array_equal(found["loc"], vae.encode(expected).mean())
    exact = (raw - preparation.center) / preparation.spread
    # What float32 x can hold: the check that refuses data allows a 64th of a standard deviation.
    np.testing.assert_allclose(static, exact, atol=1 / 64)


def test_artifacts_score_whole_numbers_as_python_does() -> None:
    vae = tiny_vae("normal", 3, scale=0.5)
    preparation = Preparation(
        center=(40.5, 1e5, 0.1),
        spread=(20.0, 3e4, 1.0),
        whole=(True, True, False),
        constant=(False, False, True),
    )
    raw = np.float32([[18, 9e4, 0.1], [60, 12e4, 0.1], [41, 1e5, 0.1]])
    seed = random.row_seeds(3, 3)
    u = random.uniform(seed, (3,), stream=random.PREPARATION).numpy()
    x = preparation.static(raw) + u * preparation.noise
    plain = signatures(vae)["score"].function(x=tf.constant(x), seed=seed)
    found = signatures(vae, preparation)["score"].function(x=tf.constant(raw), seed=seed)
    # float32 of sums of a few nats
    np.testing.assert_allclose(
        found["elbo"], plain["elbo"] + 3 * preparation.nats_offset, rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (1.7e9 + RANDOM.normal(size=100), "'time' has a mean of 1.7e\\+09 .* only to 128"),
        (10**9 + RANDOM.integers(0, 100, 100), "only to 64. Subtract a constant"),
    ],
)
def test_what_float32_cannot_tell_apart_is_refused(column: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare(
            LIKELIHOODS["normal"],
            np.stack([column, RANDOM.normal(size=100)], axis=1),
            names=("time", "b"),
        )


@pytest.mark.parametrize(
    ("likelihood", "top"),
    [
        ("bernoulli", 4095),
        ("continuous_bernoulli", 4095),
        ("normal", 4095),
        ("discretized_logistic", 4095),
        ("binomial", 4095),
    ],
)
def test_the_range_is_that_of_all_parts_and_of_the_bit_depth(likelihood: str, top: int) -> None:
    """Twelve-bit images in 16-bit files; the brightest one is in the test part."""
    train = RANDOM.integers(0, 3000, (20, 2, 2, 1)).astype(np.uint16)
    test = train + np.uint16(1000)
    preparation, options = prepare(LIKELIHOODS[likelihood], train, [test])
    expected = {"levels": top + 1, "total_count": top, "scale": "optimal"}
    assert expected | options == expected
    assert preparation.range in (None, (0.0, top))
    assert np.isfinite(preparation.array(test)).all()
    with pytest.raises(DataError, match="set to 100, but the data reaches"):
        prepare(LIKELIHOODS[likelihood], train, [test], top=100)
    if preparation.range:
        with pytest.raises(DataError, match=r"from 0 to 4095; got 5000 in example 1\."):
            preparation.array(np.array([[[[0]]], [[[5000]]]], np.uint16))


@pytest.mark.parametrize("likelihood", ["normal", "laplace"])
def test_scales_are_learned_where_none_is_given(likelihood: str) -> None:
    """A scale of 1 would cost 700 nats on images that are divided by their levels."""
    assert prepare(LIKELIHOODS[likelihood], IMAGES)[1] == {"scale": "optimal"}
    assert prepare(LIKELIHOODS[likelihood], IMAGES[:, :, 0, 0] / 2)[1] == {"scale": "per_feature"}


def test_categories_are_those_of_all_parts() -> None:
    train, test = np.array([[0, 1], [1, 0]]), np.array([[2, 1]])
    assert prepare(LIKELIHOODS["categorical"], train, [test])[0].categories == 3


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli"])
def test_a_table_is_not_taken_for_grey_levels(likelihood: str) -> None:
    incomes = RANDOM.integers(0, 117_127, (100, 3))
    with pytest.raises(DataError, match=r"this table holds values from [\d.]+ to [\d.]+\. Choose"):
        prepare(LIKELIHOODS[likelihood], incomes)
    with pytest.raises(DataError, match="these series"):
        prepare(LIKELIHOODS[likelihood], incomes[..., None])
    preparation, _ = prepare(LIKELIHOODS[likelihood], incomes, top=2**17)
    assert preparation.divide == 2**17
    assert prepare(LIKELIHOODS[likelihood], RANDOM.random((100, 3)))[0].divide == 1.0


def test_a_declared_range_makes_whole_numbers_grey_levels() -> None:
    table = RANDOM.integers(0, 200, (50, 5))
    assert propose(LIKELIHOODS.values(), [table], top=255).likelihood == "discretized_logistic"
    assert prepare(LIKELIHOODS["discretized_logistic"], table, top=255)[1] == {"levels": 256}
    with pytest.raises(DataError, match=r"has no effect on .* here\. Leave --top out"):
        prepare(LIKELIHOODS["normal"], table, top=255)


IMAGES = RANDOM.integers(0, 256, (10, 4, 4, 1)).astype(np.uint8)


@pytest.mark.parametrize(
    ("raw", "likelihood", "reason"),
    [
        (IMAGES > 128, "bernoulli", "zeros and ones"),
        (np.array([[0.0, 1.0], [1.0, 1.0]]), "bernoulli", "zeros and ones"),
        (IMAGES, "discretized_logistic", "images of levels 0 to 255"),
        (IMAGES.astype(np.uint16) * 4, "discretized_logistic", "images of levels 0 to 1023"),
        (IMAGES.astype(np.uint16) * 16, "normal", "images of whole numbers"),
        (IMAGES.astype(np.uint16) // 255 * 4000, "normal", "images of whole numbers"),
        (np.float32(IMAGES % 17), "discretized_logistic", "images of levels 0 to 16"),
        (np.resize(IMAGES, (2, 80)), "discretized_logistic", "images of levels 0 to 255"),
        (IMAGES / 255, "continuous_bernoulli", "images of numbers in [0, 1]"),
        (IMAGES / 255 - 0.5, "normal", "images of real numbers"),
        (RANDOM.poisson(0.3, (50, 20)), "poisson", "counts up to"),
        (np.float32(IMAGES[:, 0] / 2).round(), "normal", "series of whole numbers"),
        (RANDOM.integers(18, 80, (50, 3)), "normal", "a table of whole numbers"),
        (RANDOM.normal(size=(50, 3)), "normal", "a table of real numbers"),
        (RANDOM.random((50, 7, 3)), "normal", "series of real numbers"),
    ],
)  # fmt: skip
def test_proposals(raw: np.ndarray, likelihood: str, reason: str) -> None:
    found = propose(LIKELIHOODS.values(), [raw[:-1], raw[-1:]])
    assert found.likelihood == likelihood
    assert reason in found.reason
    preparation, _ = prepare(LIKELIHOODS[found.likelihood], raw)
    assert preparation.step != "binarize"
