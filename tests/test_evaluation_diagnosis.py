"""Diagnoses, scores and metrics hold where their values are known."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import entropy, laplace, multivariate_normal
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.svm import LinearSVC

import keras_vae
from keras_vae import LinearGaussian
from keras_vae.evaluation import (
    anomaly_scores,
    bits_per_dim,
    dci,
    diagnose,
    disentanglement,
    ex_post_density,
    factor_vae_score,
    log_marginal,
    mig,
    rate_distortion,
    rate_per_latent,
    sap,
)
from keras_vae.evaluation._batches import batch_seed
from keras_vae.evaluation._draws import trace_of
from keras_vae.evaluation.diagnosis import _verdict
from tests.models import digits, linear_gaussian, mean_and_error, tiny_vae


@pytest.mark.parametrize("full", [False, True])
def test_linear_gaussian_model_is_diagnosed_as_it_is(full):
    model = linear_gaussian()
    x = model.marginal().sample(3000, seed=1).numpy()
    vae = model.vae(full_covariance=full)
    found = diagnose(vae, x)
    q = vae.encode(x)
    covariance = q.covariance() if full else tf.linalg.diag(q.variance())
    elbo = model.elbo(x, q.mean(), covariance).numpy().mean()
    assert found.distortion + found.rate == pytest.approx(-elbo, abs=0.02)  # 24 000 draws
    np.testing.assert_allclose(found.sensitivity, np.linalg.norm(model.weights, axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.posterior_mean_variance, np.var(q.mean(), axis=0), rtol=1e-9)
    marginal = 0.5 * (q.variance() + q.mean() ** 2 - 1.0) - tf.math.log(q.stddev())
    np.testing.assert_allclose(found.rate_per_latent, tf.reduce_mean(marginal, 0), rtol=1e-9)
    np.testing.assert_allclose(rate_per_latent(vae, x), found.rate_per_latent, rtol=1e-9)
    if not full:
        assert found.rate_per_latent.sum() == pytest.approx(found.rate, rel=1e-9)
    # rate = information + KL of the aggregate; both from draws, the rate in closed form
    split = found.mutual_information + found.marginal_kl
    assert split == pytest.approx(found.rate, abs=4.0 * 2.0 / math.sqrt(3000))
    assert (found.active_units, found.collapsed, found.num_examples) == (3, False, 3000)
    assert found.mutual_information < found.log_count == math.log(3000)


def test_information_of_the_exact_posterior_is_that_of_the_channel():
    """I(x; z) = 1/2 log det(W'W / scale^2 + I) under the model, and q(z) is then the prior."""
    model = linear_gaussian(size=3, latents=2, scale=1.5)
    x = model.marginal().sample(6000, seed=2).numpy()
    found = diagnose(model.vae(full_covariance=True), x, num_samples=2)
    channel = model.weights.T @ model.weights / model.scale**2 + np.eye(2)
    expected = 0.5 * np.linalg.slogdet(channel).logabsdet
    # error of the draws, and the bias of a density from 6000 posteriors, of order volume / N
    assert found.mutual_information == pytest.approx(
        expected, abs=4.0 * found.information_error + 0.01
    )
    assert found.marginal_kl == pytest.approx(0.0, abs=0.03)
    calibration = found.calibration
    assert calibration.residual_mean == pytest.approx(0.0, abs=0.03)
    assert calibration.residual_deviation == pytest.approx(1.0, abs=0.02)
    for level, covered in calibration.coverage.items():
        # 36 000 entries, of which pairs share x: half as many count
        assert covered == pytest.approx(level, abs=4.0 * math.sqrt(level * (1 - level) / 18_000))


def test_overconfident_decoder_is_noticed():
    model = linear_gaussian(size=3, latents=2, scale=1.0)
    x = model.marginal().sample(2000, seed=2).numpy()
    narrow = keras_vae.LinearGaussian(model.weights, model.bias, 0.5)
    calibration = diagnose(narrow.vae(full_covariance=True), x, num_samples=2).calibration
    assert calibration.residual_deviation > 1.2
    assert calibration.coverage[0.9] < 0.85


def test_calibration_of_a_laplace_decoder():
    vae = tiny_vae("laplace", 3, scale=0.7)
    vae.likelihood.head.set_weights([np.zeros((8, 3)), np.zeros(3)])
    x = laplace(0.0, 0.7).rvs((4000, 3), random_state=1).astype("float32")
    calibration = diagnose(vae, x, num_samples=1).calibration
    assert calibration.residual_deviation == pytest.approx(1.0, abs=0.05)
    for level, covered in calibration.coverage.items():
        assert covered == pytest.approx(level, abs=4.0 * math.sqrt(level * (1 - level) / 12_000))
    assert diagnose(tiny_vae("bernoulli", 3), x > 0, num_samples=1).calibration is None


def test_rates_under_a_mixture_of_one_are_those_of_the_normal():
    vae = tiny_vae("normal", 6)
    mixed = tiny_vae("normal", 6, prior="normal_mixture", num_components=2)
    mixed.prior.loc.assign(np.zeros((2, 2)))
    vae.posterior.head.set_weights(mixed.posterior.head.get_weights())
    vae.posterior.network.set_weights(mixed.posterior.network.get_weights())
    x = np.random.default_rng(0).normal(size=(50, 6)).astype("float32")
    one, two = (diagnose(model, x, num_samples=2000) for model in (vae, mixed))
    # 100 000 draws of a log-ratio of deviation about 1
    np.testing.assert_allclose(one.rate_per_latent, two.rate_per_latent, atol=0.02)


def test_collapse_is_called_collapse_and_health_health():
    x = (digits() > 0.5).astype("float32")[:1500]

    def trained(beta, hidden):
        keras.utils.set_random_seed(0)
        vae = keras_vae.mlp_vae(64, 4, "bernoulli", hidden=hidden)
        vae.compile(keras.optimizers.Adam(3e-3), keras_vae.ELBO(beta=beta))
        vae.fit(x, epochs=15, batch_size=100, verbose=0)
        return diagnose(vae, x)

    sick, well = trained(10.0, (128, 128)), trained(1.0, (64,))
    assert sick.collapsed
    assert sick.verdict.startswith("Collapsed: 0 of 4 latents are active")
    # An estimate of a mutual information near 0 may be negative, the information cannot.
    assert "share 0 nats of at most 3 " in _verdict(4, 0, 0.1, -0.02, round(math.exp(3)), True)
    assert not well.collapsed
    assert f"{well.active_units} of 4 latents are active" in well.verdict
    assert well.active_units >= 3
    assert well.mutual_information > 2.0
    assert f"most {well.log_count:.3g} that {well.num_examples} examples can show" in well.verdict
    few = diagnose(tiny_vae("normal", 2), np.eye(2, dtype="float32"))
    assert few.mutual_information <= few.log_count + 4.0 * few.information_error


def test_unused_latent_is_counted():
    weights = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    model = keras_vae.LinearGaussian(weights, np.zeros(3), 0.5)
    x = model.marginal().sample(500, seed=1).numpy()
    found = diagnose(model.vae(), x)
    assert found.active_units == 1
    assert found.verdict.startswith("Partly collapsed, 1 latent unused: 1 of 2")
    assert found.sensitivity[1] == 0.0


def test_anomalies_are_told_apart():
    model = linear_gaussian(size=6, latents=2, scale=0.3)
    normal = model.marginal().sample(300, seed=1).numpy()
    strange = np.random.default_rng(0).normal(size=(30, 6)) * 3.0
    x, labels = np.concatenate([normal, strange]), np.repeat([0, 1], [300, 30])
    vae = model.vae()
    found = anomaly_scores(vae, x, labels, num_samples=90)
    assert found.auroc["negative_log_marginal"] > 0.98
    assert set(found.auroc) == {"negative_log_marginal", "negative_elbo", "reconstruction"}
    exact = -model.log_prob(x).numpy()
    np.testing.assert_allclose(found.negative_log_marginal[:300], exact[:300], atol=1.0)
    q = vae.encode(x)
    elbo = model.elbo(x, q.mean(), tf.linalg.diag(q.variance())).numpy()
    mean, error = mean_and_error(found.negative_elbo + elbo)
    assert abs(mean) < 4.0 * error
    covariance = model.scale**2 * np.eye(6)
    centre = q.mean().numpy() @ model.weights.T + model.bias
    residuals = [multivariate_normal(row, covariance) for row in centre]
    expected = [-distribution.logpdf(row) for distribution, row in zip(residuals, x, strict=True)]
    np.testing.assert_allclose(found.reconstruction, expected, rtol=1e-9)
    assert anomaly_scores(vae, x[:5], num_samples=90).auroc is None


def test_bits_per_dim():
    """A uniform distribution over 16 levels has 4 bits, whether counted or dequantised."""
    assert bits_per_dim(-3 * math.log(16.0), 3) == pytest.approx(4.0)
    assert bits_per_dim(0.0, 3, levels=16) == pytest.approx(4.0)
    rng = np.random.default_rng(0)
    x = rng.binomial(15, 0.5, size=20_000)
    y = (x + rng.random(x.shape)) / 16.0
    density = np.histogram(y, bins=16, range=(0, 1), density=True)[0]
    log_p = np.log(density[x])
    share = np.bincount(x, minlength=16) / len(x)
    entropy = -np.sum(share * np.log2(share, where=share > 0, out=np.zeros(16)))
    assert bits_per_dim(log_p, 1, levels=16).mean() == pytest.approx(entropy, rel=1e-9)


def test_ex_post_density_is_a_prior_with_its_own_bound():
    keras.utils.set_random_seed(0)
    data = (digits() > 0.5).astype("float32")
    x, held_out = data[:1500], data[1500:]
    vae = keras_vae.mlp_vae(64, 2, "bernoulli", hidden=(64,))
    vae.compile(keras.optimizers.Adam(5e-3))
    vae.fit(x, epochs=10, batch_size=100, verbose=0)
    mixed = ex_post_density(vae, x, 10)
    assert mixed.likelihood is vae.likelihood
    assert mixed.posterior is vae.posterior
    z = trace_of(vae, x, 1, batch_seed(0, 0)).latents["z"].draw.value.numpy()[0].astype("float64")
    fitted = GaussianMixture(10, covariance_type="diag", random_state=0, max_iter=500).fit(z)
    # float32 weights, of a scale that passes through a softplus
    np.testing.assert_allclose(mixed.prior(z), fitted.score_samples(z), rtol=1e-3, atol=1e-3)
    before, after = (
        log_marginal(model, held_out[:100], "quadrature").value for model in (vae, mixed)
    )
    mean, error = mean_and_error(after - before)
    assert mean > 2.0 * error
    gain = mixed.elbo(held_out, 16, seed=0).elbo - vae.elbo(held_out, 16, seed=0).elbo
    assert float(tf.reduce_mean(gain)) > 0.0
    assert mixed.sample(3, seed=1).shape == (3, 64)


def factors_and_codes(n=1000, k=4, values=8):
    rng = np.random.default_rng(0)
    factors = rng.integers(values, size=(n, k))
    noise = 0.02 * rng.normal(size=(n, k))
    centred = (factors - factors.mean(0)) / factors.std(0)
    return factors, centred + noise, rng


def test_metrics_of_permuted_factors_are_near_one():
    factors, codes, rng = factors_and_codes()
    flipped = codes[:, [2, 0, 3, 1]] * np.array([1.0, -2.0, 0.5, 3.0])
    found = disentanglement(np.concatenate([flipped, rng.normal(size=(1000, 1))], 1), factors)
    assert found.mig > 0.96
    assert found.disentanglement > 0.95
    assert found.completeness > 0.95
    assert found.informativeness > 0.99
    assert found.factor_vae == 1.0
    assert found.sap > 0.08  # a linear machine tells few of 8 ordered values apart
    two, codes, _ = factors_and_codes(values=2)
    assert sap(codes, two) == pytest.approx(0.5, abs=0.05)  # from all right to chance


def test_metrics_of_rotated_factors_are_low():
    factors, codes, rng = factors_and_codes()
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    rotated = codes @ rotation
    assert mig(rotated, factors) < 0.2
    assert sap(rotated, factors) < 0.1
    assert max(dci(rotated, factors)[:2]) < 0.5


def test_metrics_of_noise_are_near_zero():
    factors, _, rng = factors_and_codes()
    noise = rng.normal(size=(1000, 5))
    found = disentanglement(noise, factors)
    assert found.mig < 0.02
    assert found.sap < 0.03
    assert found.disentanglement < 0.1
    assert found.informativeness < 0.2  # 1 in 8 by chance
    assert found.factor_vae < 0.4  # 1 in 4 by chance


def test_latents_that_do_not_vary_are_left_out():
    factors, codes, _ = factors_and_codes()
    codes[:, 0] = 3.0
    assert factor_vae_score(codes, factors) < 1.0
    assert factor_vae_score(np.zeros_like(codes), factors) == 0.25
    assert 0.0 <= sap(codes, factors) < 1.0
    assert mig(codes, factors) == pytest.approx(0.75, abs=0.03)  # three factors of four


def test_refusals():
    vae = tiny_vae("normal", 6)
    x = np.zeros((3, 6), np.float32)
    codes, factors = np.zeros((4, 2)), np.array([[0], [1], [0], [1]])
    for match, call in (
        ("needs at least 2; got 1", lambda: diagnose(vae, x[:1])),
        ("num_samples.*at least 1", lambda: diagnose(vae, x, num_samples=0)),
        (r"labels must be 3 numbers.*\[2\]", lambda: anomaly_scores(vae, x, [0, 1])),
        ("both present", lambda: anomaly_scores(vae, x, [0, 0, 0])),
        ("elbo_samples.*at least 1", lambda: anomaly_scores(vae, x, elbo_samples=0)),
        ("levels.*at least 2", lambda: bits_per_dim(0.0, 3, levels=1)),
        ("event shape of positive integers", lambda: bits_per_dim(0.0, 0)),
        ("needs at least as many draws", lambda: ex_post_density(vae, x, 10)),
        ("num_components.*at least 1", lambda: ex_post_density(vae, x, 0)),
        (r"codes \[N, L\] and factors \[N, K\]", lambda: mig(codes, factors[:3])),
        ("at least 2 of them; got 1", lambda: mig(codes[:, :1], factors)),
        ("Expected 'width' or 'quantile'", lambda: mig(codes, factors, bins="equal")),
        ("Expected 'boosted' or 'forest'", lambda: dci(codes, factors, trees="oak")),
        ("must be finite", lambda: mig(codes + np.nan, factors)),
        ("must be integers", lambda: mig(codes, factors + 0.5)),
        ("Factor 0 has only one value", lambda: mig(codes, 0 * factors)),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_frontier_of_the_linear_model_has_the_slope_minus_beta():
    """At beta the best q is the posterior under beta times the noise variance."""
    model = linear_gaussian()
    x = model.marginal().sample(400, seed=0).numpy()
    betas, models = (0.5, 0.9, 1.0, 1.1, 2.0, 4.0), {}
    for beta in betas:
        noisier = LinearGaussian(model.weights, model.bias, np.sqrt(beta) * model.scale)
        models[beta] = model.vae(full_covariance=True)
        models[beta].posterior.set_weights(
            noisier.vae(full_covariance=True).posterior.get_weights()
        )
    found = rate_distortion(dict(reversed(models.items())), x, num_samples=64)
    assert found.beta.tolist() == list(betas)
    weights, scale = np.asarray(model.weights), float(model.scale)
    for index, beta in enumerate(betas):
        covariance = np.linalg.inv(np.eye(3) + weights.T @ weights / (beta * scale**2))
        centre = (x - np.asarray(model.bias)) @ weights @ covariance / (beta * scale**2)
        residual = x - np.asarray(model.bias) - centre @ weights.T
        error = (residual**2).sum(1) + np.trace(weights @ covariance @ weights.T)
        distortion = 0.5 * error / scale**2 + 2.5 * np.log(2.0 * np.pi * scale**2)
        rate = 0.5 * (np.trace(covariance) + (centre**2).sum(1) - 3.0)
        rate -= 0.5 * np.linalg.slogdet(covariance)[1]
        assert found.rate[index] == pytest.approx(rate.mean(), abs=1e-10)
        # 64 draws of 400 examples: a deviation of about 1 nat / 160
        assert found.distortion[index] == pytest.approx(distortion.mean(), abs=0.03)
    slope = (found.distortion[3] - found.distortion[1]) / (found.rate[3] - found.rate[1])
    assert slope == pytest.approx(-1.0, abs=0.02)  # the draws are the same, their noise cancels
    assert found.elbo.argmax() == 2
    with pytest.raises(ValueError, match="got none"):
        rate_distortion({}, x)


def test_gap_of_mutual_information_withstands_an_outlier_by_quantiles():
    factors = np.stack(np.divmod(np.arange(1200) % 100, 10), axis=1)
    codes = factors.astype(float)
    assert mig(codes, factors) == mig(codes, factors, bins="quantile") == 1.0
    codes[7] = 1000.0  # the map from factors to codes stays one to one but for this row
    assert mig(codes, factors) < 0.01  # equal widths, as in the literature, see one bin
    assert mig(codes, factors, bins="quantile") > 0.99


def test_attribute_predictability_is_that_of_the_codes_as_they_are():
    """By the formula of Kumar et al.; small codes are told apart less by a regularised machine."""
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 3, (600, 2))
    codes = factors + 0.3 * rng.normal(size=(600, 2))
    train, test = train_test_split(np.arange(600), test_size=0.5, random_state=0)
    for scale in (1.0, 0.1):
        expected = []
        for factor in factors.T:
            scores = []
            for code in scale * codes.T[:, :, None]:
                machine = LinearSVC(C=0.01, class_weight="balanced", dual=False)
                scores.append(
                    machine.fit(code[train], factor[train]).score(code[test], factor[test])
                )
            expected.append(abs(scores[0] - scores[1]))
        assert sap(scale * codes, factors) == pytest.approx(np.mean(expected), abs=1e-12)
    assert sap(codes, factors) != sap(0.1 * codes, factors)


@pytest.mark.parametrize("trees", ["boosted", "forest"])
def test_completeness_and_disentanglement_are_those_of_the_importances(trees):
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 3, (300, 2))
    codes = np.concatenate([factors @ rng.normal(size=(2, 2)), rng.normal(size=(300, 1))], axis=1)
    train, test = train_test_split(np.arange(300), test_size=0.5, random_state=0)
    make = {
        "boosted": lambda: GradientBoostingClassifier(random_state=0),
        "forest": lambda: RandomForestClassifier(50, max_features=None, random_state=0),
    }[trees]
    fitted = [make().fit(codes[train], factor[train]) for factor in factors.T]
    importance = np.stack([each.feature_importances_ for each in fitted], axis=1) + 1e-11
    found = dci(codes, factors, trees=trees)
    per_code = 1.0 - entropy(importance.T, base=2)
    weight = importance.sum(axis=1) / importance.sum()
    assert found[0] == pytest.approx(weight @ per_code, abs=1e-8)
    assert found[1] == pytest.approx(np.mean(1.0 - entropy(importance, base=3)), abs=1e-8)
    accuracy = [e.score(codes[test], f[test]) for e, f in zip(fitted, factors.T, strict=True)]
    assert found[2] == pytest.approx(np.mean(accuracy), abs=1e-12)
