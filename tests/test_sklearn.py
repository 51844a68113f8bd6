"""Estimators for scikit-learn."""

import pickle
import random
from unittest import SkipTest

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.utils.estimator_checks import estimator_checks_generator

from keras_vae import sklearn as estimators

X = load_iris().data
SMALL = {"latent_size": 2, "hidden": (4,), "epochs": 2, "num_samples": 4, "random_state": 0}
FRAME = pd.DataFrame(
    {"age": [31.0, 45.5, 28.0, None] * 10, "city": ["Oslo", "Rome", None, "Bern"] * 10}
)


@pytest.fixture(scope="module")
def density():
    return estimators.VAEDensity(**SMALL).fit(X)


@pytest.fixture
def eager():
    """Runs TensorFlow without graphs: the checks fit a hundred small models."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


OF_FIT = {
    *("check_complex_data", "check_dont_overwrite_parameters", "check_estimator_sparse_array"),
    *("check_estimator_sparse_matrix", "check_estimator_sparse_tag"),
    *("check_estimators_empty_data_messages", "check_estimators_fit_returns_self"),
    *("check_estimators_overwrite_params",),
    *("check_f_contiguous_array_estimator", "check_fit1d", "check_fit2d_1feature"),
    *("check_fit2d_1sample", "check_fit_check_is_fitted", "check_n_features_in"),
    *("check_positive_only_tag_during_fit", "check_readonly_memmap_input"),
}
"""Checks that only fit, which is the same for all four: VAEDensity stands for the others.

The tests below use what `fit` of each of them returns.
"""


@pytest.mark.filterwarnings("ignore")  # of scikit-learn's own checks
@pytest.mark.parametrize("name", estimators.__all__)
def test_scikit_learn_accepts_it(name, eager):
    is_first = name == "VAEDensity"
    settings = {"hidden": (4,), "epochs": 1, "num_samples": 4, "early_stopping": is_first}
    passed, skipped = [], set()
    for estimator, check in estimator_checks_generator(getattr(estimators, name)(2, **settings)):
        called = check.func.__name__
        if is_first or called not in OF_FIT:
            try:
                check(estimator)
                passed.append(called)
            except SkipTest:
                skipped.add(called)
    assert len(passed) >= (39 if is_first else 27)
    assert {*passed} >= OF_FIT or not is_first
    assert skipped <= {"check_array_api_input"}  # which needs a variable of the environment


def test_scores_are_nats_in_the_units_of_the_data(density):
    scaled = estimators.VAEDensity(**SMALL).fit(1000.0 * X)
    change = density.score_samples(X) - scaled.score_samples(1000.0 * X)
    np.testing.assert_allclose(change, 4 * np.log(1000.0), rtol=1e-4)  # float32 standardisation


def test_log_p_of_a_decoder_that_ignores_z_is_that_of_the_columns():
    density = estimators.VAEDensity(**SMALL, likelihood_options={"scale": 1.0}).fit(X)
    for layer in (density.vae_.likelihood, density.vae_.posterior):
        for variable in layer.trainable_variables:
            variable.assign(tf.zeros_like(variable))
    some = X.copy()
    some[0, 1] = np.nan
    z = (some - density.center_) / density.spread_
    log_p = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - np.log(density.spread_)
    found = density.score_samples(some)
    np.testing.assert_allclose(found, np.nansum(log_p, axis=1), atol=2e-5)  # q has scale 1 + 1e-6


def test_a_row_scores_alike_alone_and_in_company(density):
    together = density.score_samples(X)
    alone = np.concatenate([density.score_samples(row[np.newaxis]) for row in X[::15]])
    np.testing.assert_array_equal(alone, together[::15])
    np.testing.assert_array_equal(density.score_samples(X[::-1]), together[::-1])


def test_a_seed_decides_everything_and_the_generator_of_python_is_put_back(density):
    state = random.getstate()
    again = clone(density).fit(X)
    assert random.getstate() == state
    np.testing.assert_array_equal(again.score_samples(X), density.score_samples(X))
    copied = pickle.loads(pickle.dumps(density))
    np.testing.assert_array_equal(copied.score_samples(X), density.score_samples(X))
    np.testing.assert_array_equal(copied.sample(3), density.sample(3))


def test_absent_entries_are_filled_and_the_others_stay():
    some = X.copy()
    some[::3, 1] = np.nan
    imputer = estimators.VAEImputer(**SMALL).fit(some)
    filled = imputer.transform(some)
    held = ~np.isnan(some)
    np.testing.assert_array_equal(filled[held], some[held])
    assert np.isfinite(filled).all()
    other_order = imputer.transform(some[::-1])[::-1]  # whose products round elsewhere in float32
    np.testing.assert_allclose(other_order, filled, rtol=1e-6)


def test_a_frame_comes_back_as_a_frame():
    imputer = estimators.VAEImputer(**SMALL).fit(FRAME)
    filled = imputer.transform(FRAME)
    assert list(filled) == ["age", "city"]
    assert not filled.isna().any().any()
    assert set(filled["city"]) <= {"Oslo", "Rome", "Bern"}
    assert np.isfinite(imputer.score(FRAME))
    assert list(imputer.sample(2)) == ["age", "city"]
    embed = estimators.VAETransformer(**SMALL).set_output(transform="pandas").fit(FRAME)
    z = embed.transform(FRAME)
    assert list(z) == ["vaetransformer0", "vaetransformer1"]
    assert list(embed.inverse_transform(z)) == ["age", "city"]
    with pytest.raises(ValueError, match="Expected a data frame with the columns"):
        imputer.transform(X)


def test_p_values_are_those_of_held_out_rows():
    detector = estimators.VAEOutlierDetector(**SMALL, contamination=0.2).fit(X[::2])
    assert np.mean(detector.predict(X[::2]) == -1) == pytest.approx(0.2)
    with pytest.raises(Exception, match="Call calibrate with held-out rows"):
        detector.p_values(X)
    p = detector.calibrate(X[1::2]).p_values(X[1::2])
    np.testing.assert_allclose(np.sort(p), np.arange(2, 77) / 76.0)  # each ties with itself


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": "gauss"}, "Invalid value for argument `likelihood`"),
        ({"validation_fraction": 0.999}, "holds out"),
        ({"likelihood": "bernoulli"}, "Bernoulli models binary data"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        estimators.VAEDensity(**{**SMALL, **options}).fit(X)


def test_a_column_without_values_is_refused():
    some = X.copy()
    some[:, 2] = np.nan
    with pytest.raises(ValueError, match="Column 2 has no value"):
        estimators.VAEImputer(**SMALL).fit(some)
    with pytest.raises(ValueError, match="contamination"):
        estimators.VAEOutlierDetector(**SMALL, contamination=0.0).fit(X)
