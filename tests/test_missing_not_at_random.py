"""The bound of MIWAE, and of not-MIWAE against quadrature in a linear-Gaussian model."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import keras_vae
from keras_vae import IWAE, DiagonalNormal, MissingNotAtRandom, PartsEncoder, StandardNormal, random
from keras_vae.distributions import inverse_positive
from keras_vae.distributions.noise import from_rows, from_seed
from keras_vae.observed import log_probs
from keras_vae.random import row_seeds
from keras_vae.signatures import signatures
from tests.models import terms_of

ERRORS = 4.0  # standard errors: one comparison in 16 000 fails by chance, and seeds are fixed
W, B, SCALE = np.array([0.9, -1.2]), np.array([0.3, 0.5]), 0.7
SLOPE, OFFSET = np.array([0.0, -2.0]), np.array([1.0, 0.4])


class Exact(keras.layers.Layer):
    """Raw parameters of p(z | x_O) of the model with one latent."""

    def call(self, x):
        present = tf.cast(~tf.math.is_nan(x), x.dtype)
        residual = tf.where(present > 0, x - B, tf.zeros_like(x))
        precision = 1.0 + tf.reduce_sum(present * W**2, 1, keepdims=True) / SCALE**2
        loc = tf.reduce_sum(residual * W, 1, keepdims=True) / SCALE**2 / precision
        scale = tf.numpy_function(inverse_positive, [1.0 / tf.sqrt(precision)], x.dtype)
        return tf.concat([loc, tf.ensure_shape(scale, loc.shape)], -1)


def vae():
    policy = {"dtype": "float64"}
    model = keras_vae.VAE(
        prior=StandardNormal(1, **policy),
        likelihood=keras_vae.Normal(2, scale=SCALE, missing=True, **policy),
        posterior=DiagonalNormal(1, head=Exact(autocast=False, **policy), **policy),
        **policy,
    )
    model.likelihood.head.set_weights([W[None], B])
    return model


def self_masking():
    """Makes the model in which the second entry is the less likely to be present, the larger."""
    model = MissingNotAtRandom(vae(), dtype="float64")
    model.mechanism.head.set_weights([SLOPE, OFFSET])
    return model


X = np.array([[0.5, np.nan], [-1.0, np.nan], [0.2, 0.1], [1.5, -2.0]])


def quadrature(x):
    """Computes log p(x_O, s) and E[x_2 | x_O, s] of each row by the trapezoidal rule, exactly."""
    covariance = np.outer(W, W) + SCALE**2 * np.eye(2)
    grid, step = np.linspace(-15, 15, 6001, retstep=True)
    found = []
    for row in x:
        values = np.stack([np.full_like(grid, row[0]), grid], 1)
        density = scipy.stats.multivariate_normal(B, covariance).pdf(values)
        first = scipy.special.expit(OFFSET[0])
        if np.isnan(row[1]):
            joint = density * first * scipy.special.expit(-(SLOPE[1] * grid + OFFSET[1]))
            total = joint.sum() * step
            found.append((np.log(total), (joint * grid).sum() * step / total))
        else:
            total = scipy.stats.multivariate_normal(B, covariance).pdf(row)
            total *= first * scipy.special.expit(SLOPE[1] * row[1] + OFFSET[1])
            found.append((np.log(total), row[1]))
    return np.array(found).T


def test_the_evidence_of_data_and_mask_and_the_imputation_are_those_of_quadrature():
    model, many = self_masking(), 40000
    log_evidence, mean = quadrature(X)
    found = keras_vae.evaluation.log_marginal(model, X, num_samples=many)
    error = ERRORS * found.standard_error + 1e-9  # rows that are complete are exact
    assert (np.abs(found.value - log_evidence) <= error).all()
    assert found.standard_error[2:].max() < 1e-9 < found.standard_error[:2].min() < 0.01
    imputed = model.impute(X, many, multiple=400, seed=0)
    spread = 1.0 / np.sqrt(imputed.ess[:2])  # the deviation of x_2 given x_1 is below 1
    assert (np.abs(imputed.values[:2, 1] - mean[:2]) <= ERRORS * spread).all()
    draws = imputed.draws[:, :2, 1].mean(0)
    assert (np.abs(draws - mean[:2]) <= ERRORS * (spread + 1 / np.sqrt(400))).all()
    at_random = model.vae.impute(X, many, seed=0).values[:2, 1]
    assert (mean[:2] - at_random > 0.2).all()  # absent values are large, and the mask tells it
    np.testing.assert_array_equal(imputed.values[2:], X[2:])


def test_the_bound_of_several_draws_rises_to_the_evidence_from_below():
    model = self_masking()
    x = np.repeat(X[:2], 400, axis=0)
    log_evidence = np.repeat(quadrature(X[:2])[0], 400)
    gaps = []
    for count in (1, 20):
        terms = terms_of(model, IWAE(count), tf.constant(x), 3)
        gap = log_evidence + terms.loss.numpy()
        gaps.append((gap.mean(), ERRORS * gap.std() / np.sqrt(len(gap))))
    assert gaps[0][0] > gaps[0][1]
    assert -gaps[1][1] < gaps[1][0] < 0.3 * gaps[0][0]


def test_a_mechanism_that_knows_nothing_changes_nothing_but_its_own_probability():
    model = MissingNotAtRandom(vae(), dtype="float64")
    plain = model.vae.elbo(X, seed=0)
    found = model.elbo(X, seed=0)
    np.testing.assert_allclose(found.elbo, plain.elbo - 2 * np.log(2.0), atol=1e-12)
    np.testing.assert_allclose(found.rate, plain.rate, atol=1e-12)
    imputed = model.impute(X, 4000, seed=0)
    np.testing.assert_allclose(imputed.ess[:2], 4000.0, rtol=1e-9)


def test_training_finds_the_mechanism():
    """The decoder is known; the slope and offset of the mask are trained from zero."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 1))
    x = z * W + B + SCALE * rng.normal(size=(2000, 2))
    present = rng.random(x.shape) < scipy.special.expit(SLOPE * x + OFFSET)
    x = np.where(present, x, np.nan)
    model = MissingNotAtRandom(vae(), dtype="float64")
    model.vae.trainable = False
    model.compile(keras.optimizers.Adam(0.03), IWAE(10), jit_compile=False)
    model.fit(x, epochs=12, batch_size=100, verbose=0)
    slope, offset = model.mechanism.head.get_weights()
    # Standard errors of a logistic regression on 2000 rows are 0.05 to 0.1; half are absent here.
    np.testing.assert_allclose(slope, SLOPE, atol=0.5)
    np.testing.assert_allclose(offset, OFFSET, atol=0.4)


def test_parts_with_a_network_of_all_parts_are_trained_and_saved(tmp_path):
    keras.utils.set_random_seed(0)
    made = keras_vae.VAE(
        prior=StandardNormal(2),
        likelihood=keras_vae.Parts(
            {
                "a": keras_vae.Normal(2, scale="learned", missing=True),
                "b": keras_vae.Bernoulli(3),
            },
            network=keras.layers.Dense(8, "tanh"),
        ),
        posterior=DiagonalNormal(2, network=PartsEncoder(keras.layers.Dense(8, "tanh"))),
    )
    model = MissingNotAtRandom(made, keras.layers.Dense(6, "tanh"))
    rng = np.random.default_rng(0)
    x = {
        "a": np.where(rng.random((100, 2)) < 0.7, rng.normal(size=(100, 2)), np.nan),
        "b": rng.integers(0, 2, (100, 3)).astype("float32"),
    }
    model.compile(keras.optimizers.Adam(0.01), IWAE(3), run_eagerly=True)
    history = model.fit(x, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.elbo(x, seed=0).elbo, model.elbo(x, seed=0).elbo)
    found = loaded.impute(x, 50, multiple=3, seed=0)
    assert not np.isnan(found.draws["a"]).any()
    assert model.sample(3, seed=0)["a"].shape == (3, 2)


def test_like_parts_are_scored_together_beside_the_mask():
    parts = {name: keras_vae.Normal(1, scale="learned", missing=True) for name in "ab"}
    made = keras_vae.VAE(
        prior=StandardNormal(2),
        likelihood=keras_vae.Parts(parts),
        posterior=DiagonalNormal(2, network=PartsEncoder()),
    )
    model = MissingNotAtRandom(made)
    x = {"a": np.float32([[0.5], [np.nan]]), "b": np.float32([[1.0], [2.0]])}
    noise = from_rows(model.noise(), row_seeds(0, 2), 3)
    observed = model.infer(x).trace(noise).observations
    assert list(observed) == ["a", "b", "mask"]
    joined = log_probs(observed)
    assert list(joined) == list(observed)
    for name, each in observed.items():
        np.testing.assert_allclose(joined[name], each.log_prob(), rtol=1e-6)  # vectors of floats
    np.testing.assert_array_equal(joined["a"][:, 1], 0.0)


def test_the_importance_weighted_bound_of_data_with_holes_is_that_of_miwae():
    """log 1/K sum_k p(x_O | z_k) p(z_k) / q(z_k | x_O, mask), by SciPy from the same draws."""
    keras.utils.set_random_seed(1)
    model = keras_vae.VAE(
        prior=StandardNormal(2, dtype="float64"),
        likelihood=keras_vae.Normal(5, scale="learned", missing=True, dtype="float64"),
        posterior=DiagonalNormal(2, network=PartsEncoder(dtype="float64"), dtype="float64"),
        dtype="float64",
    )
    rng = np.random.default_rng(0)
    x = np.where(rng.random((7, 5)) < 0.6, rng.normal(size=(7, 5)), np.nan)
    found = -terms_of(model, IWAE(20), tf.constant(x), 5).loss.numpy()
    noise = from_seed(model.noise(), tf.constant([5, 0]), [20, 7], "float64")["z"].numpy()
    q = model.encode(x)
    z = q.mean().numpy() + q.stddev().numpy() * noise
    log_q = scipy.stats.norm(q.mean(), q.stddev()).logpdf(z).sum(-1)
    log_prior = scipy.stats.norm.logpdf(z).sum(-1)
    p = model.decode(z)
    entries = scipy.stats.norm(p.mean(), p.stddev()).logpdf(x)
    log_w = np.nansum(entries, axis=-1) + log_prior - log_q
    np.testing.assert_allclose(
        found, scipy.special.logsumexp(log_w, axis=0) - np.log(20), atol=1e-10
    )


def test_signatures_score_data_with_its_mask_and_impute_as_python_does():
    model = self_masking()
    x = np.array([[0.5, np.nan], [np.nan, -1.0], [1.0, 2.0]], np.float32)
    table, seed = signatures(model, num_samples=20), random.row_seeds(3, 3)
    score = table["score"].function(x=tf.constant(x), seed=seed)
    np.testing.assert_allclose(score["elbo"], model.elbo(x, seed=3).elbo, rtol=1e-6)
    parts = score["distortion"] - score["distortion_mask"] + score["rate"]
    rest = model.vae.elbo(x, seed=3).elbo
    np.testing.assert_allclose(-parts, rest, rtol=1e-5)  # the mask is all that the VAE lacks
    found, live = table["impute"].function(x=tf.constant(x), seed=seed), model.impute(x, 20, seed=3)
    np.testing.assert_allclose(found["mean"], live.mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: MissingNotAtRandom(3), TypeError, "Expected a VAE"),
        (lambda: MissingNotAtRandom(vae(), 3), TypeError, "`mechanism`"),
        (
            lambda: MissingNotAtRandom(keras_vae.mlp_vae(3, 2, hidden=(4,))),
            ValueError,
            "allows no absent",
        ),
        (
            lambda: MissingNotAtRandom(
                keras_vae.VAE(
                    prior=StandardNormal(1),
                    likelihood=keras_vae.Poisson(2, missing=True),
                    posterior=DiagonalNormal(1, network=PartsEncoder()),
                )
            ),
            ValueError,
            "which is discrete",
        ),
        (
            lambda: self_masking().compile("adam", IWAE(3, gradient="doubly_reparameterized")),
            ValueError,
            "gradient='pathwise'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()
