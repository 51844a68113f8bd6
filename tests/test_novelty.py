"""Scores of novelty equal their closed forms, and conformal p-values keep their promise."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.metrics import roc_auc_score

import keras_vae
from keras_vae import evaluation
from keras_vae.conformal import p_values
from keras_vae.evaluation import Conformal
from tests.models import linear_gaussian, tiny_vae

EXACT = 1e-10  # float64 holds 16 digits; sums of about 30 terms of size 10 keep 12 of them

RNG = np.random.default_rng(5)


# ------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("full", [False, True])
def test_regret_equals_its_closed_form(full):
    model = linear_gaussian()
    x = model.marginal().sample(6, seed=1).numpy()
    vae = model.vae(full_covariance=full)
    for weight in vae.posterior.trainable_weights:
        weight.assign_add(0.1 * np.random.default_rng(3).normal(size=weight.shape))
    q = vae.encode(x)
    covariance = q.covariance() if full else tf.linalg.diag(q.variance())
    best = model.log_prob(x) - (0.0 if full else model.gap())
    expected = best - model.elbo(x, q.mean(), covariance)
    found = evaluation.likelihood_regret(vae, x, steps=500, num_samples=128)
    np.testing.assert_allclose(found, expected, atol=1e-3)  # that of bound_gap: Adam's last step
    assert expected.numpy().min() > 0.1  # there is something to regret
    if full:
        np.testing.assert_array_equal(found, evaluation.bound_gap(vae, x).amortisation)


def test_regret_and_gap_of_rows_with_holes_equal_their_closed_forms():
    model = linear_gaussian()
    x = model.marginal().sample(6, seed=1).numpy()
    x[np.random.default_rng(0).random(x.shape) < 0.4] = np.nan
    policy = {"dtype": "float64"}
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(3, **policy),
        likelihood=keras_vae.Normal(5, scale=model.scale, missing=True, **policy),
        posterior=keras_vae.DiagonalNormal(3, network=keras_vae.PartsEncoder(**policy), **policy),
        **policy,
    )
    vae.likelihood.head.set_weights([model.weights.T, model.bias])
    q = vae.encode(x)
    elbo = model.elbo(x, q.mean(), tf.linalg.diag(q.variance()))
    regret = model.log_prob(x) - model.gap(x) - elbo
    found = evaluation.bound_gap(vae, x)
    assert found.method == "exact"
    np.testing.assert_allclose(found.log_marginal, model.log_prob(x), atol=EXACT)
    np.testing.assert_allclose(found.approximation, model.gap(x), atol=1e-3)
    np.testing.assert_allclose(found.amortisation, regret, atol=1e-3)
    np.testing.assert_array_equal(
        evaluation.likelihood_regret(vae, x, steps=500, num_samples=128), found.amortisation
    )


def test_regret_of_the_best_encoder_is_nothing_and_never_negative():
    model = linear_gaussian()
    x = np.concatenate([model.marginal().sample(3, seed=1).numpy(), np.full((1, 5), 30.0)])
    found = evaluation.likelihood_regret(model.vae(), x, steps=20)
    assert (found >= 0.0).all()
    np.testing.assert_allclose(found, 0.0, atol=1e-3)  # steps around the best end near it


def test_ratio_is_that_of_two_known_gaussians():
    models = linear_gaussian(), keras_vae.LinearGaussian(np.eye(5, 3), np.ones(5), 1.3)
    x = models[0].marginal().sample(7, seed=2).numpy()
    logs = [
        stats.multivariate_normal(
            model.bias, model.weights @ model.weights.T + model.scale**2 * np.eye(5)
        ).logpdf(x)
        for model in models
    ]
    exact = [model.vae(full_covariance=True) for model in models]  # weights that do not vary
    found = evaluation.likelihood_ratio(*exact, x, num_samples=20)
    np.testing.assert_allclose(found, logs[1] - logs[0], atol=EXACT)
    with pytest.raises(ValueError, match="two models of the same parts and quantities"):
        evaluation.likelihood_ratio(tiny_vae("normal"), tiny_vae("bernoulli"), np.zeros((2, 6)))


def test_regret_and_ratio_of_named_parts():
    def model(kind):
        likelihood = keras_vae.Parts(
            {"a": keras_vae.Normal(2, missing=True), "b": kind(3, missing=True)}
        )
        encoder = keras_vae.PartsEncoder()
        return keras_vae.VAE(
            prior=keras_vae.StandardNormal(2),
            likelihood=likelihood,
            posterior=keras_vae.DiagonalNormal(2, network=encoder),
        )

    x = {"a": np.ones((4, 2), "float32"), "b": np.zeros((4, 3), "float32")}
    x["a"][0], x["b"][1] = np.nan, np.nan
    one, other = model(keras_vae.Bernoulli), model(keras_vae.Bernoulli)
    assert (evaluation.likelihood_regret(one, x, steps=5, num_samples=4) >= 0.0).all()
    found = evaluation.likelihood_ratio(one, other, x, num_samples=30)
    logs = [evaluation.log_marginal(each, x, num_samples=30).value for each in (one, other)]
    np.testing.assert_array_equal(found, logs[1] - logs[0])
    with pytest.raises(ValueError, match="two models of the same parts and quantities"):
        evaluation.likelihood_ratio(one, model(keras_vae.Normal), x)


def test_mutation_replaces_the_share_that_it_says():
    x = np.arange(20_000.0).reshape(4000, 5)
    kept = evaluation.mutated(x, 0.2, seed=1)
    error = math.sqrt(0.2 * 0.8 / x.size)
    assert abs((kept != x).mean() - 0.2) < 4.0 * error + 1 / 4000  # one in 4000 draws itself
    np.testing.assert_array_equal(kept % 5, np.broadcast_to(np.arange(5.0), x.shape))
    levels = evaluation.mutated(np.full((4000, 5), 9), 1.0, values=(0, 1, 2), seed=1)
    assert levels.dtype == np.int64
    assert stats.chisquare(np.bincount(levels.ravel())).pvalue > 1e-4
    with pytest.raises(ValueError, match="rate above 0"):
        evaluation.mutated(x, 0.0, seed=1)


def test_complexity_is_in_bits_and_orders_what_a_compressor_orders():
    flat, noise = np.zeros((2, 784), np.uint8), RNG.integers(0, 256, (2, 784), np.uint8)
    for compressor in ("zlib", "bz2", "lzma"):
        plain, full = (evaluation.compressed_bits(x, compressor) for x in (flat, noise))
        assert (plain < 784).all()
        assert (full > 8 * 784).all()  # noise does not get smaller
    bits = evaluation.compressed_bits(noise)
    np.testing.assert_array_equal(evaluation.compressed_bits(noise / 255.0), bits)
    found = evaluation.input_complexity([-math.log(2.0), 0.0], noise)
    np.testing.assert_allclose(found, np.array([1.0, 0.0]) - bits)
    with pytest.raises(ValueError, match=r"got float64 from -1\.0 to 1\.0"):
        evaluation.compressed_bits(np.array([[-1.0, 1.0]]))
    with pytest.raises(ValueError, match="Expected one of zlib, bz2, lzma"):
        evaluation.compressed_bits(flat, "gzip")


def test_typicality_of_a_standard_normal_is_its_distance_from_the_shell():
    x = RNG.normal(size=(20_000, 100))
    normal = stats.norm.logpdf(x).sum(axis=1)
    entropy = 50.0 * (1.0 + math.log(2.0 * math.pi))
    found = evaluation.typicality(stats.norm.logpdf(np.zeros((1, 100))).sum(axis=1), normal)
    expected = entropy - 50.0 * math.log(2.0 * math.pi)
    assert abs(found[0] - expected) < 4.0 * math.sqrt(50.0 / 20_000)  # variance of log p is 50


def test_ensemble_needs_two_models():
    with pytest.raises(ValueError, match=r"at least two models.*\[1, 3\]"):
        evaluation.ensemble_score([[1.0, 2.0, 3.0]])


# ---------------------------------------------------------------------------- conformal p-values


@pytest.mark.parametrize("n", [1, 19, 60])
def test_false_alarms_are_as_rare_as_promised_over_resamplings(n):
    """Of 10 000 calibration sets, each with one new example, a share alpha raises an alarm."""
    times = 10_000
    draws = np.random.default_rng(n).gumbel(size=(times, n + 1))
    p = np.array([Conformal(row[:n]).p_value(row[n:])[0] for row in draws])
    levels = np.bincount(np.round(p * (n + 1)).astype(int), minlength=n + 2)
    assert levels[0] == 0
    assert stats.chisquare(levels[1:]).pvalue > 1e-4  # every multiple of 1 / (n + 1) equally often
    for alpha in (0.01, 0.05, 0.1, 0.5):
        expected = math.floor(alpha * (n + 1) + 1e-9) / (n + 1)
        error = math.sqrt(expected * (1.0 - expected) / times)
        assert abs((p <= alpha).mean() - expected) <= 4.0 * error
        assert Conformal(draws[0, :n]).guarantee(alpha).expected == pytest.approx(expected)


def test_ties_and_small_tables_only_make_false_alarms_rarer():
    times, n = 10_000, 50
    draws = np.random.default_rng(0).poisson(3.0, (times, n + 1)).astype(float)
    for size in (None, 7):
        p = np.array([Conformal(row[:n], size).p_value(row[n:])[0] for row in draws])
        for alpha in (0.05, 0.1, 0.3):
            assert (p <= alpha).mean() <= alpha + 4.0 * math.sqrt(alpha * (1.0 - alpha) / times)


def test_a_calibration_set_alarms_as_often_as_its_guarantee_says():
    n, alpha = 200, 0.05
    rng = np.random.default_rng(1)
    shares = np.array(
        [stats.norm.sf(Conformal(rng.normal(size=n)).threshold(alpha)) for _ in range(2000)]
    )
    expected, low, high = Conformal(rng.normal(size=n)).guarantee(alpha)
    assert abs(shares.mean() - expected) < 4.0 * shares.std() / math.sqrt(2000)
    inside = ((low <= shares) & (shares <= high)).mean()
    assert abs(inside - 0.95) < 4.0 * math.sqrt(0.95 * 0.05 / 2000)


def test_scores_of_a_model_keep_the_promise_over_splits():
    model = keras_vae.LinearGaussian([[1.0], [0.5]], [0.0, 1.0], 0.5)
    x = model.marginal().sample(400, seed=3).numpy()
    scores = evaluation.anomaly_scores(model.vae(), x, num_samples=50).negative_log_marginal
    rng, times, n = np.random.default_rng(2), 10_000, 99
    splits = rng.permuted(np.tile(scores, (times, 1)), axis=1)[:, : n + 1]
    p = (1 + (splits[:, :n] >= splits[:, n:]).sum(axis=1)) / (n + 1)
    np.testing.assert_array_equal(
        [Conformal(row[:n]).p_value(row[n:])[0] for row in splits[:100]], p[:100]
    )
    for alpha in (0.01, 0.05, 0.2):
        assert abs((p <= alpha).mean() - alpha) <= 4.0 * math.sqrt(alpha * (1.0 - alpha) / times)


@pytest.mark.parametrize("size", [None, 1, 2, 16, 63])
def test_graph_and_small_table_agree_with_the_definition(size):
    scores = np.round(RNG.normal(size=150), 1)
    new = np.concatenate([np.round(RNG.normal(size=200), 1), [-np.inf, np.inf, 99.0]])
    exact = (1 + (scores[:, None] >= new).sum(axis=0)) / 151
    calibration = Conformal(scores, size)
    assert len(calibration.table) <= (size or 150)
    assert calibration.n == 150
    found = calibration.p_value(new)
    if size is None:
        np.testing.assert_array_equal(found, exact)
    else:
        assert (found >= exact).all()
        assert found[-1] == exact[-1]  # the largest score is kept
    again = Conformal.from_config(json.loads(json.dumps(calibration.get_config())))
    np.testing.assert_array_equal(again.p_value(new), found)

    graph = tf.function(lambda s: p_values(s, again.table, again.steps, again.n))
    in_graph = graph(tf.constant(new, tf.float32))
    assert in_graph.dtype == tf.float32
    np.testing.assert_allclose(in_graph, found, rtol=2e-7)  # one division in float32
    assert np.isnan(graph(tf.constant([np.nan, 0.0]))).tolist() == [True, False]
    assert np.isnan(calibration.p_value([np.nan, 0.0])).tolist() == [True, False]


def test_threshold_separates_what_the_p_value_separates():
    calibration = Conformal(RNG.normal(size=99))
    new = RNG.normal(size=500) * 2.0
    for alpha in (0.01, 0.05, 0.3, 1.0):
        alarms = calibration.p_value(new) <= alpha
        np.testing.assert_array_equal(alarms, new.astype("float32") > calibration.threshold(alpha))
    assert calibration.threshold(0.001) == math.inf
    assert calibration.guarantee(0.001) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Conformal([]), r"finite scores \[n\].*got shape \[0\]"),
        (lambda: Conformal([[1.0]]), r"got shape \[1, 1\]"),
        (lambda: Conformal([1.0, np.nan, np.inf]), "with 2 that are not finite"),
        (lambda: Conformal([1.0], size=0), "got size=0"),
        (lambda: Conformal([1.0]).guarantee(1.5), "alpha from 0 to 1; got 1.5"),
        (
            lambda: Conformal.from_config({"n": 1, "table": [1.0, 0.0], "steps": [1, 1]}),
            "Expected a table that ascends",
        ),
    ],
)
def test_calibrations_that_promise_nothing_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------------------------ table of scores


def test_area_agrees_with_scikit_learn_and_its_error_with_the_scatter():
    labels = np.repeat([0, 1], [60, 40])
    values, errors = [], []
    for seed in range(400):
        scores = np.random.default_rng(seed).normal(labels, 1.0).round(1)
        found = evaluation.auroc(scores, labels)
        values.append(found.value)
        errors.append(found.error)
    assert found.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    # The scatter of 400 values is known to 3.5 %: 14 % is 4 standard errors.
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=0.14)
    with pytest.raises(ValueError, match="at least two examples of each kind; got 1 normal"):
        evaluation.auroc([1.0, 2.0, 3.0], [0, 1, 1])
    with pytest.raises(ValueError, match="1 scores are NaN"):
        evaluation.auroc([1.0, np.nan, 3.0], [0, 1, 1])


def test_trivial_scores_are_what_they_say():
    train = RNG.normal([0.0, 5.0, -3.0, 1.0], [1.0, 2.0, 0.5, 0.1], (500, 4))
    x = train[:50] + 0.1
    found = evaluation.trivial_scores(train, x, latent_size=2)
    expected = stats.norm(train.mean(axis=0), train.std(axis=0)).logpdf(x).sum(axis=1)
    np.testing.assert_allclose(found["independent entries"], -expected, atol=EXACT)
    scale = train.std(axis=0)
    ppca = keras_vae.LinearGaussian.fit(train / scale, 2)  # columns count alike
    np.testing.assert_allclose(
        found["probabilistic PCA, 2 latents"], -ppca.log_prob(x / scale), atol=EXACT
    )
    assert len(found) == 8
    np.testing.assert_array_equal([*evaluation.trivial_scores(train, 1e3 * x, 2)], [*found])
    binary = (RNG.random((400, 3)) < [0.1, 0.5, 0.9]).astype(float)
    share = (binary.sum(axis=0) + 0.5) / 401
    expected = stats.bernoulli(share).logpmf(binary.astype(int)).sum(axis=1)
    found = evaluation.trivial_scores(binary, binary)["independent entries"]
    np.testing.assert_allclose(found, -expected, atol=EXACT)


def test_trivial_scores_of_images_have_one_scale():
    train = RNG.normal(size=(300, 2, 2)) * [[1.0, 2.0], [0.5, 0.0]]
    found = evaluation.trivial_scores(train, train[:9], latent_size=1)
    flat = train.reshape(300, 4)
    floor = np.sqrt(np.maximum(flat.var(axis=0), 1e-3 * flat.var(axis=0).mean()))
    expected = stats.norm(flat.mean(axis=0), floor).logpdf(flat[:9]).sum(axis=1)
    np.testing.assert_allclose(found["independent entries"], -expected, atol=EXACT)
    np.testing.assert_allclose(found["mean, large"], flat[:9].mean(axis=1), atol=EXACT)


def test_trivial_scores_of_a_table_with_holes_and_categories():
    n = 300
    table = pd.DataFrame(
        {"a": RNG.normal(size=n), "b": RNG.normal(5.0, 9.0, n), "c": RNG.choice(["x", "y"], n)}
    ).assign(same="z")
    table["b"] += 9.0 * table["a"]
    table = table.mask(RNG.random(table.shape) < 0.2)
    found = evaluation.trivial_scores(table, table[:40], latent_size=1)
    columns = evaluation.IndependentColumns.fit(table[["a", "b", "c"]])
    np.testing.assert_allclose(
        found["independent entries"], -columns.log_prob(table[:40]), atol=EXACT
    )
    share = table[["a", "b", "c"]].isna().mean(axis=1)[:40]
    np.testing.assert_allclose(found["share absent, large"], share, atol=EXACT)
    numbers = table[["a", "b"]].to_numpy()
    numbers = (numbers - np.nanmean(numbers, axis=0)) / np.nanstd(numbers, axis=0)
    ppca = keras_vae.LinearGaussian.fit(numbers, 1)
    np.testing.assert_allclose(
        found["probabilistic PCA, 1 latent"], -ppca.log_prob(numbers[:40]), atol=1e-8
    )
    assert all(np.isfinite(score).all() for score in found.values())
    holes = evaluation.trivial_scores(numbers, numbers[:40], latent_size=1)
    np.testing.assert_allclose(
        holes["probabilistic PCA, 1 latent"], found["probabilistic PCA, 1 latent"], atol=1e-8
    )


def test_table_prints_trivial_baselines_beside_every_score():
    black = (RNG.random((200, 8, 8)) < 0.1).astype(float)
    white = (RNG.random((50, 8, 8)) < 0.5).astype(float)
    x, labels = np.concatenate([black[100:], white]), np.repeat([0, 1], [100, 50])
    table = evaluation.score_table(
        {"noise": RNG.normal(size=150)}, labels, train=black[:100], x=x, latent_size=3
    )
    assert table.counts == (100, 50)
    assert table.trivial["mean, large"].value == 1.0
    assert table.trivial["mean, unusual"].value == 1.0
    assert table.trivial["mean, small"].value == 0.0
    assert abs(table.scores["noise"].value - 0.5) < 4.0 * table.scores["noise"].error
    lines = str(table).splitlines()
    assert lines[0] == "AUROC, 100 normal examples and 50 anomalies"
    assert lines.index("  trivial") == 3
    assert len(lines) == 4 + 8
