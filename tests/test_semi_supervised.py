"""The semi-supervised model against its exact solution, where every distribution is Gaussian.

x = W z + b_y + noise, so p(x | y) = N(b_y, W W' + s^2 I), p(y | x) is a softmax of linear functions
of x, and q can be the posterior.
"""

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

import keras_vae
from keras_vae import DataError, SemiSupervised, SemiSupervisedVAE
from keras_vae.distributions import inverse_positive
from keras_vae.distributions.noise import from_seed
from tests.models import terms_of

CLASSES, SIZE, LATENTS, SCALE = 10, 4, 2, 0.6
EXACT = 1e-9  # float64: sums of a few dozen terms of size 100
RNG = np.random.default_rng(0)
W, B = RNG.normal(size=(SIZE, LATENTS)), 1.5 * RNG.normal(size=(CLASSES, SIZE))
P = RNG.dirichlet(np.full(CLASSES, 3.0))
COVARIANCE = W @ W.T + SCALE**2 * np.eye(SIZE)
LABELS = RNG.choice(CLASSES, 30, p=P)
X = B[LABELS] + RNG.multivariate_normal(np.zeros(SIZE), COVARIANCE, 30)
LOG_JOINT = np.stack(
    [np.log(P[k]) + scipy.stats.multivariate_normal(B[k], COVARIANCE).logpdf(X) for k in range(10)],
    axis=1,
)
LOG_EVIDENCE = scipy.special.logsumexp(LOG_JOINT, axis=1)
POSTERIOR = np.exp(LOG_JOINT - LOG_EVIDENCE[:, None])


class Counting(keras.layers.Layer):
    """Identity that keeps the number of rows of each call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rows = []

    def call(self, x):
        self.rows.append(x.shape[0])
        return x


def exact(trunk=None, shift=0.0):
    """Makes the model whose q is the posterior, but for a shift of the classifier's logits."""
    policy = {"dtype": "float64"}
    vae = SemiSupervisedVAE(
        num_classes=CLASSES,
        prior=keras_vae.StandardNormal(LATENTS, **policy),
        likelihood=keras_vae.Normal(SIZE, scale=SCALE, **policy),
        posterior=keras_vae.FullCovarianceNormal(LATENTS, **policy),
        trunk=trunk,
        class_probabilities=P,
        **policy,
    )
    vae.likelihood.head.set_weights([np.concatenate([W.T, B]), np.zeros(SIZE)])
    inverse = np.linalg.inv(W.T @ W + SCALE**2 * np.eye(LATENTS))
    gain, factor = W @ inverse, SCALE * np.linalg.cholesky(inverse)
    raw = np.concatenate([inverse_positive(np.diag(factor)), factor[1, :1]])
    kernel = np.concatenate([np.concatenate([gain, -B @ gain]), np.zeros((SIZE + CLASSES, 3))], 1)
    vae.posterior.head.set_weights([kernel, np.concatenate([np.zeros(LATENTS), raw])])
    precise = np.linalg.solve(COVARIANCE, B.T)
    bias = np.log(P) - 0.5 * (B.T * precise).sum(0) + shift * np.arange(CLASSES)
    vae.classifier.head.set_weights([precise, bias])
    return vae


def one_hot(labels, known=True):
    return np.where(np.broadcast_to(known, labels.shape)[:, None], np.eye(CLASSES)[labels], np.nan)


def data(known):
    return {"x": tf.constant(X), "label": tf.constant(one_hot(LABELS, known))}


def test_bound_without_labels_is_the_evidence_at_the_posterior_and_less_elsewhere():
    objective = SemiSupervised(kl="monte_carlo", num_samples=2)
    terms = terms_of(exact(), objective, data(False), 0)
    np.testing.assert_allclose(-(terms.distortion + terms.rate), LOG_EVIDENCE, atol=EXACT)
    np.testing.assert_allclose(terms.loss, -LOG_EVIDENCE, atol=EXACT)
    other = exact(shift=0.3)
    terms = terms_of(other, objective, data(False), 0)
    logits = np.log(POSTERIOR) + 0.3 * np.arange(CLASSES)
    log_q = logits - scipy.special.logsumexp(logits, axis=1, keepdims=True)
    gap = (np.exp(log_q) * (log_q - np.log(POSTERIOR))).sum(1)
    assert gap.mean() > 0.01
    np.testing.assert_allclose(LOG_EVIDENCE + terms.distortion + terms.rate, gap, atol=EXACT)


def test_bound_with_a_label_is_the_joint_and_the_classifier_is_in_the_loss_alone():
    rows = np.arange(len(X))
    log_joint = LOG_JOINT[rows, LABELS]
    objective = SemiSupervised(7.0, kl="monte_carlo")
    terms = terms_of(exact(), objective, data(True), 0)
    np.testing.assert_allclose(-(terms.distortion + terms.rate), log_joint, atol=EXACT)
    classifier = -7.0 * np.log(POSTERIOR[rows, LABELS])
    np.testing.assert_allclose(terms.extra["classifier"], classifier, atol=EXACT)
    np.testing.assert_allclose(terms.loss, -log_joint + classifier, atol=EXACT)
    some = rows % 3 == 0
    terms = terms_of(exact(), objective, data(some), 0)
    np.testing.assert_allclose(
        terms.loss, np.where(some, -log_joint + classifier, -LOG_EVIDENCE), atol=EXACT
    )


def test_a_label_is_a_condition_whose_probability_counts():
    """L(x, y) is the ELBO of the conditional model with the same weights, plus log p(y)."""
    vae, policy = exact(), {"dtype": "float64"}
    conditional = keras_vae.VAE(
        prior=keras_vae.StandardNormal(LATENTS, **policy),
        likelihood=keras_vae.Normal(SIZE, scale=SCALE, **policy),
        posterior=keras_vae.FullCovarianceNormal(LATENTS, **policy),
        condition_shape=CLASSES,
        **policy,
    )
    conditional.likelihood.head.set_weights(vae.likelihood.head.get_weights())
    conditional.posterior.head.set_weights(vae.posterior.head.get_weights())
    y = one_hot(LABELS)
    expected = conditional.elbo({"x": X, "condition": y}, 3, seed=1).elbo + np.log(P[LABELS])
    found = vae.elbo({"x": X, "label": y}, 3, seed=1)
    np.testing.assert_allclose(found.elbo, expected, atol=EXACT)
    np.testing.assert_allclose(vae.decode(np.ones([30, 2]), y).mean(), W.sum(1) + B[LABELS])


def test_the_classifier_is_at_rest_at_the_posterior_and_moves_elsewhere():
    objective = SemiSupervised(kl="monte_carlo", num_samples=3)
    norms = []
    for shift in (0.0, 0.3):
        vae = exact(shift=shift)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(terms_of(vae, objective, data(False), 0).loss)
        gradients = tape.gradient(loss, vae.classifier.trainable_weights)
        norms.append(max(np.abs(gradient).max() for gradient in gradients))
    assert norms[0] < 1e-9 < 1e-3 < norms[1]


@pytest.mark.parametrize("top", [1, 3])
def test_some_classes_have_the_expectation_of_all_in_value_and_gradient(top):
    """The expectation is enumerated: each of the other classes is drawn once, by its noise."""
    vae, x = exact(shift=0.3), data(False)
    weights = vae.trainable_variables
    noise = from_seed(vae.noise(), tf.constant([3, 0]), (2, len(X)), "float64")
    log_q = tf.nn.log_softmax(vae.classifier.parameters(tf.constant(X))["logits"]).numpy()
    others = np.argsort(np.argsort(-log_q, axis=1), axis=1) >= top
    chances = np.where(others, np.exp(log_q), 0.0)
    chances /= chances.sum(1, keepdims=True)

    def objective(top_classes):
        return SemiSupervised(kl="monte_carlo", num_samples=2, top_classes=top_classes)

    with tf.GradientTape(persistent=True) as tape:
        exact_loss = objective(None).terms(vae.infer(x), noise).loss
        exact_total = tf.reduce_sum(exact_loss)
        losses = []
        for k in range(CLASSES):
            likely = np.where(np.arange(CLASSES) == k, np.nextafter(1.0, 0.0), 1e-300)
            drawn = np.broadcast_to(likely, (2, len(X), CLASSES))
            terms = objective(top).terms(vae.infer(x), {**noise, "label": tf.constant(drawn)})
            losses.append(terms.loss)
        expected = tf.reduce_sum(tf.stack(losses, axis=1) * chances, axis=1)
        total = tf.reduce_sum(expected)
    assert np.std(losses, axis=0).max() > 1e-3  # so a single draw differs from the sum
    np.testing.assert_allclose(expected, exact_loss, atol=EXACT)
    pairs = zip(tape.gradient(total, weights), tape.gradient(exact_total, weights), strict=True)
    for found, gradient in pairs:
        np.testing.assert_allclose(found, gradient, atol=1e-7)  # sums of terms of size 1e3


def test_some_classes_are_all_where_one_is_left_and_where_the_label_is_known():
    vae, known = exact(shift=0.3), data(np.arange(len(X)) % 2 == 0)
    expected = terms_of(vae, SemiSupervised(5.0), known, 0).loss
    for top in (CLASSES - 1, CLASSES, 50):
        found = terms_of(vae, SemiSupervised(5.0, top_classes=top), known, 0).loss
        np.testing.assert_array_equal(found, expected)
    found = terms_of(vae, SemiSupervised(5.0, top_classes=1), known, 0).loss
    np.testing.assert_allclose(found[::2], expected[::2], atol=EXACT)


def test_the_trunk_runs_once_and_not_once_per_class():
    trunk = Counting(dtype="float64")
    vae = exact(trunk)
    trunk.rows.clear()
    terms_of(vae, SemiSupervised(num_samples=2), data(False), 0)
    terms_of(vae, SemiSupervised(top_classes=2), data(False), 0)
    assert trunk.rows == [30, 30]


def test_elbo_sums_the_label_out_and_importance_weights_give_the_evidence():
    vae = exact()
    # Only the closed-form rate of z given each label differs from the draws; 2 nats at most here.
    bound = vae.elbo({"x": X}, 4000, seed=0)
    np.testing.assert_allclose(bound.elbo, LOG_EVIDENCE, atol=4 * 2 / np.sqrt(4000))
    rate = (POSTERIOR * (np.log(POSTERIOR) - np.log(P))).sum(1)
    assert (np.asarray(bound.rate) > rate).all()
    evidence = keras_vae.evaluation.log_marginal(vae, {"x": X}, num_samples=20)
    np.testing.assert_allclose(evidence.value, LOG_EVIDENCE, atol=EXACT)


def test_classes_come_from_the_classifier_or_from_importance_weights():
    vae = exact(shift=0.3)
    logits = np.log(POSTERIOR) + 0.3 * np.arange(CLASSES)
    q = scipy.special.softmax(logits, axis=1)
    for x in (X, {"x": X}, {"x": X, "label": one_hot(LABELS)}):
        found = vae.classify(x)
        np.testing.assert_allclose(found.probabilities, q, atol=1e-12)
    weighted = vae.classify({"x": X}, num_samples=4000, seed=0)
    error = np.sqrt(POSTERIOR * (1 - POSTERIOR) / weighted.ess[:, None])
    assert (np.abs(weighted.probabilities - POSTERIOR) <= 4.5 * error + 1e-3).all()
    assert np.abs(q - POSTERIOR).max() > 0.1  # so the classifier's own would fail


def test_labels_are_imputed_and_sampled_with_what_they_belong_to():
    vae = exact()
    found = vae.impute({"x": X}, 200, multiple=50, seed=0)
    np.testing.assert_allclose(found.ess, 200.0, rtol=1e-6)
    np.testing.assert_allclose(found.draws["label"].mean(0), POSTERIOR, atol=4 * 0.5 / np.sqrt(40))
    drawn = vae.sample(4000, seed=0)
    classes = np.asarray(drawn["label"]).argmax(1)
    shares = np.bincount(classes, minlength=CLASSES) / 4000
    assert (np.abs(shares - P) <= 4 * np.sqrt(P * (1 - P) / 4000)).all()
    for k in range(CLASSES):
        rows = np.asarray(drawn["x"])[classes == k]
        error = 4 * np.sqrt(np.diag(COVARIANCE) / len(rows))
        assert (np.abs(rows.mean(0) - B[k]) <= error).all()


def test_given_labels_are_sampled_with_and_others_drawn():
    vae = exact()
    drawn = vae.sample(6, seed=3)
    again = vae.sample(6, seed=3, label=np.asarray(drawn["label"]))
    some = np.asarray(drawn["label"]).copy()
    some[2:] = np.nan
    mixed = vae.sample(6, seed=3, label=some)
    one = vae.sample(6, seed=3, label=np.eye(CLASSES)[4])
    for name in ("x", "label"):
        np.testing.assert_array_equal(drawn[name], again[name])
        np.testing.assert_array_equal(drawn[name], mixed[name])
    assert (np.asarray(one["label"]).argmax(1) == 4).all()
    change = one["x"] - drawn["x"]
    labels = np.asarray(drawn["label"]).argmax(1)
    np.testing.assert_allclose(change, B[4] - B[labels], atol=EXACT)


def test_named_parts_beside_the_label_are_the_single_x_of_their_columns():
    """Two parts of two columns have the bound of one x of four, with the same weights."""
    whole, policy = exact(), {"dtype": "float64"}
    parts = SemiSupervisedVAE(
        num_classes=CLASSES,
        prior=keras_vae.StandardNormal(LATENTS, **policy),
        likelihood=keras_vae.Parts(
            {name: keras_vae.Normal(2, scale=SCALE, missing=True, **policy) for name in "ab"},
            **policy,
        ),
        posterior=keras_vae.FullCovarianceNormal(LATENTS, **policy),
        classifier=keras_vae.PartsEncoder(**policy),
        trunk=keras_vae.PartsEncoder(**policy),
        class_probabilities=P,
        **policy,
    )
    kernel, bias = whole.likelihood.head.get_weights()
    for columns, name in ((slice(0, 2), "a"), (slice(2, 4), "b")):
        parts.likelihood.parts[name].head.set_weights([kernel[:, columns], bias[columns]])
    for own, layer, rest in (
        (parts.classifier, whole.classifier, 0),
        (parts.posterior, whole.posterior, CLASSES),
    ):
        kernel, bias = layer.head.get_weights()
        filled = np.zeros((2 * SIZE + rest, kernel.shape[1]))
        filled[[0, 1, 4, 5]] = kernel[:SIZE]  # values of a, its mask, values of b, its mask
        filled[2 * SIZE :] = kernel[SIZE:]
        own.head.set_weights([filled, bias])
    x = {"a": X[:, :2], "b": X[:, 2:], "label": one_hot(LABELS, LABELS < 4)}
    expected = whole.elbo({"x": X, "label": x["label"]}, 2, seed=1)
    np.testing.assert_allclose(parts.elbo(x, 2, seed=1).elbo, expected.elbo, atol=EXACT)
    found = parts.classify(x).probabilities
    np.testing.assert_allclose(found, whole.classify(X).probabilities, atol=1e-12)
    hidden = {**x, "b": np.full((30, 2), np.nan)}
    assert np.isfinite(parts.elbo(hidden, seed=1).elbo).all()
    y, ones = np.eye(CLASSES)[:3], np.ones([3, 2])
    decoded = np.concatenate([parts.decode(ones, y)[name].mean() for name in "ab"], axis=1)
    np.testing.assert_allclose(decoded, whole.decode(ones, y).mean(), atol=1e-12)


def test_scores_of_rows_need_a_draw_of_every_latent():
    with pytest.raises(TypeError, match="sums 'label' out"):
        keras_vae.evaluation.row_scores(exact(), {"x": X})


def test_a_model_of_the_latents_of_another_bounds_the_two_level_model():
    """M1+M2, where the labels of `exact` shift the mean of z1, and x is linear in z1."""
    rng, scale = np.random.default_rng(4), 0.5
    matrix = rng.normal(size=(6, SIZE))
    m = matrix.T @ matrix + scale**2 * np.eye(SIZE)
    gain, factor = np.linalg.solve(m, matrix.T), scale * np.linalg.cholesky(np.linalg.inv(m))
    first = keras_vae.LinearGaussian(matrix, np.zeros(6), scale).vae(full_covariance=True)
    x = rng.normal(size=(5, 6))
    np.testing.assert_allclose(first.encode(x).covariance()[0], factor @ factor.T, atol=EXACT)
    own = scale**2 * np.eye(6)

    def log_joint(x, left, noise):
        """Computes log p(x, y) of every class, [n, K], for x = left z1 + noise."""
        covariance = left @ COVARIANCE @ left.T + noise
        return np.stack(
            [
                np.log(P[k]) + scipy.stats.multivariate_normal(left @ B[k], covariance).logpdf(x)
                for k in range(CLASSES)
            ],
            axis=-1,
        )

    num_samples = 2000
    z = x[None] @ gain.T[None] + rng.normal(size=(num_samples, 5, SIZE)) @ factor.T
    log_x = scipy.stats.norm(0, scale).logpdf(x - z @ matrix.T).sum(-1)
    log_q = scipy.stats.norm.logpdf(np.linalg.solve(factor, (z - x @ gain.T)[..., None])[..., 0])
    log_q = log_q.sum(-1) - np.log(np.diag(factor)).sum()
    inner = log_joint(z, np.eye(SIZE), 0.0)
    label = one_hot(np.arange(5))
    for given, chosen, outer in (
        (None, scipy.special.logsumexp(inner, axis=-1), scipy.special.logsumexp),
        (label, inner[:, np.arange(5), np.arange(5)], None),
    ):
        draws = log_x - log_q + chosen
        found = keras_vae.evaluation.stacked_elbo(
            first, exact(), x, label=given, num_samples=200, seed=1
        )
        # Of 200 draws here; their closed-form rates of z2 add at most 1 nat of deviation to each.
        error = 5 * (draws.std(0) + 1.0) / np.sqrt(200)
        assert (np.abs(found.elbo - draws.mean(0)) <= error).all()
        assert (error < 3.0).all()
        evidence = log_joint(x, matrix, own)
        evidence = (
            evidence[np.arange(5), np.arange(5)] if outer is None else outer(evidence, axis=1)
        )
        assert (draws.mean(0) <= evidence).all()
    for model, options, error, match in (
        (exact(), {"x": np.zeros((2, 3))}, ValueError, "shape"),
        (first, {"label": label}, ValueError, "x of shape"),
        (exact(), {"label": label[:3]}, ValueError, "each of 5 examples; got 3"),
    ):
        with pytest.raises((error, keras_vae.DataError), match=match):
            keras_vae.evaluation.stacked_elbo(first, model, **{"x": x, **options})


def small():
    keras.utils.set_random_seed(0)

    def join(size):
        return keras_vae.networks.mlp((size,), (16,), condition_shape=(CLASSES,))

    return SemiSupervisedVAE(
        num_classes=CLASSES,
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Normal(SIZE, network=join(2), scale="learned", missing=True),
        posterior=keras_vae.DiagonalNormal(2, network=join(16)),
        classifier=keras_vae.PartsEncoder(keras.layers.Dense(16, "tanh")),
        trunk=keras_vae.PartsEncoder(keras.layers.Dense(16, "tanh")),
    )


def test_fit_with_a_few_labels_and_holes_classifies_and_is_saved_whole(tmp_path):
    rng = np.random.default_rng(1)
    labels = rng.choice(3, 600)
    x = 3.0 * B[labels] + rng.normal(size=(600, SIZE)) * 0.3
    x[rng.random(x.shape) < 0.05] = np.nan
    known = np.arange(600) < 30
    vae = small()
    objective = SemiSupervised(alpha=20.0, top_classes=1)
    vae.compile(keras.optimizers.Adam(0.01), objective, jit_compile=False)
    train = {"x": x, "label": one_hot(labels, known)}
    history = vae.fit(train, epochs=30, batch_size=100, verbose=0, validation_data=train).history
    assert set(history) >= {"classifier", "val_classifier", "elbo", "loss"}
    np.testing.assert_allclose(
        history["loss"], np.subtract(history["classifier"], history["elbo"]), rtol=1e-4
    )
    accuracy = (vae.classify({"x": x}).probabilities.argmax(1) == labels)[~known].mean()
    assert accuracy > 0.9  # by chance 0.33
    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras")
    assert float(loaded.objective.alpha.numpy()) == 20.0
    assert loaded.objective.top_classes == 1
    for found, expected in zip(loaded.elbo(train, seed=0), vae.elbo(train, seed=0), strict=True):
        np.testing.assert_array_equal(found, expected)
    reconstructed = vae.predict(train, verbose=0)
    np.testing.assert_allclose(reconstructed["label"][known], one_hot(labels)[known], atol=1e-40)
    best = vae.classify({"x": x}).probabilities.argmax(1)
    np.testing.assert_array_equal(reconstructed["label"].argmax(1)[~known], best[~known])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: small().compile("adam", keras_vae.ELBO()), ValueError, "SemiSupervised"),
        (
            lambda: keras_vae.mlp_vae(3, 2, hidden=(4,)).compile("adam", SemiSupervised()),
            ValueError,
            "'label', which this model does not have",
        ),
        (lambda: SemiSupervised(-1.0), ValueError, "alpha"),
        (lambda: SemiSupervised(kl="exact"), ValueError, "`kl`"),
        (lambda: SemiSupervised(top_classes=0), ValueError, "top_classes"),
        (lambda: small().classify({"x": X}, "x"), ValueError, "no finite set of classes"),
        (lambda: small().decode(np.zeros([2, 2]), np.zeros([2, 3])), ValueError, "label must have"),
        (lambda: small().sample(2, label=np.zeros([3, 10])), ValueError, "label must have shape"),
        (lambda: small().sample(2, label="cat"), DataError, "label must be an array of numbers"),
        (lambda: small().elbo(X), DataError, "a dict of the parts x, label"),
        *(
            (lambda label=label: small().elbo({"x": X, "label": label}), DataError, match)
            for label, match in (
                (np.arange(len(X)) % 2, "one-hot: keras.utils.to_categorical.label, 10."),
                (np.arange(len(X))[:, None] % 2, "one-hot: keras.utils.to_categorical.label, 10."),
                (np.eye(3)[np.arange(len(X)) % 3], r"label must have shape \[n, 10\]; got"),
                (pd.Series(["a", "b"] * len(X))[: len(X)], "label holds .* pandas.get_dummies"),
                (np.ones([len(X), CLASSES]), "one-hot vectors along the last axis; got"),
                (np.full([len(X), CLASSES], 0.5), "one-hot vectors"),
                (np.array([[1.0, *[np.nan] * 9]] * len(X)), "present or absent as a whole"),
            )
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"num_classes": 1}, ValueError, "num_classes"),
        ({"prior": keras_vae.StandardNormal(3)}, ValueError, "Latent sizes disagree"),
        ({"prior": None}, TypeError, "`prior`"),
        ({"trunk": 3}, TypeError, "`trunk`"),
        (
            {"likelihood": keras_vae.Parts({"label": keras_vae.Normal(3)})},
            ValueError,
            "name of the class",
        ),
        ({"likelihood": keras_vae.Parts({"a": keras_vae.Normal(3)})}, ValueError, "PartsEncoder"),
        ({"class_probabilities": [0.5, 0.4]}, ValueError, "numbers of sum 1"),
        ({"posterior": keras_vae.DiagonalNormal(2, dtype="float64")}, ValueError, "same dtype="),
        (
            {
                "prior": keras_vae.UniformCodes(),
                "posterior": keras_vae.VectorQuantizer((2,), 8, 4),
            },
            ValueError,
            "VectorQuantizer draws codes, and z of a SemiSupervisedVAE is continuous",
        ),
    ],
)
def test_wrong_arguments_of_the_model_are_refused(change, error, match):
    arguments = {
        "num_classes": 2,
        "prior": keras_vae.StandardNormal(2),
        "likelihood": keras_vae.Normal(3),
        "posterior": keras_vae.DiagonalNormal(2),
    }
    with pytest.raises(error, match=match):
        SemiSupervisedVAE(**{**arguments, **change})
