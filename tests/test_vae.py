"""The VAE: every call of it, the networks it takes, and what survives a file."""

import os
import subprocess
import sys

import keras
import numpy as np
import preloaded
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

import keras_vae
from keras_vae import ELBO, IWAE, evaluation
from keras_vae.callbacks import LinearSchedule
from keras_vae.distributions import Draw
from keras_vae.distributions.tfp import tfd
from tests.models import (
    ORDERED,
    again,
    assert_same_weights,
    binary,
    compiled,
    linear_gaussian,
    mean_and_error,
    tiny_vae,
)

X = binary()


def conditional(**kwargs):
    return tiny_vae(condition_shape=3, **kwargs)


def labelled(n=48):
    condition = np.eye(3, dtype="float32")[np.arange(n) % 3]
    return {"x": binary(n), "condition": condition}


@pytest.mark.parametrize(
    ("vae", "data", "shape"),
    [
        (tiny_vae, lambda: X[:4], (6,)),
        (conditional, lambda: labelled(4), (6,)),
        (
            lambda: keras_vae.conv_vae((7, 5, 3), 2, filters=(2, 3), width=4),
            lambda: binary(4, 7, 5, 3),
            (7, 5, 3),
        ),
    ],
    ids=["plain", "conditional", "convolutional"],
)
def test_calls_return_what_the_theory_names(vae, data, shape):
    vae, x = vae(), data()
    given = {"condition": x["condition"]} if isinstance(x, dict) else {}
    values = x["x"] if given else x
    q, z = vae.encode(x), np.ones((4, 2), "float32")
    assert (q.batch_shape, q.event_shape) == ((4,), (2,))
    p = vae.decode(z, **given)
    assert (p.batch_shape, p.event_shape) == ((4,), shape)
    many = np.ones((5, 4, 2), "float32")
    assert vae.decode(many, **given).batch_shape == (5, 4)
    assert vae.prior.distribution().event_shape == (2,)

    joint = vae.prior.distribution().log_prob(z) + p.log_prob(values)
    np.testing.assert_allclose(vae.log_joint(x, z), joint, rtol=1e-6)  # float32
    np.testing.assert_allclose(vae.log_joint(x, many)[3], joint, rtol=1e-5)  # another matmul

    bound = vae.elbo(x, num_samples=3, seed=1)
    assert bound._fields == ("elbo", "distortion", "rate")
    assert all(part.shape == (4,) for part in bound)
    np.testing.assert_array_equal(bound.elbo, -(bound.distortion + bound.rate))
    assert vae.sample(4, seed=0, **given).shape == (4, *shape)
    assert vae.sample_mean(4, seed=0, **given).shape == (4, *shape)

    mean = vae.decode(q.mean(), **given).mean()
    for found in (vae.reconstruct(x), vae.predict(x, verbose=0), vae(x)):
        np.testing.assert_allclose(found, mean, atol=1e-6)  # eager and graph


def test_bound_is_reproducible_and_its_error_falls_with_samples():
    vae = tiny_vae()
    one, other = vae.elbo(X, seed=1).elbo, vae.elbo(X, seed=2).elbo
    np.testing.assert_array_equal(vae.elbo(X, seed=1).elbo, one)
    assert np.all(one != other)
    assert np.all(vae.elbo(X).elbo != vae.elbo(X).elbo)
    few, many = (
        np.std([vae.elbo(X[:5], n, seed).elbo for seed in range(40)], axis=0).mean()
        for n in (1, 25)
    )
    assert many == pytest.approx(few / 5, rel=0.4)  # 5 scatters of 40 draws are known to 5 % each
    traced = tf.function(lambda x: vae.elbo(x, seed=1).elbo)
    np.testing.assert_allclose(traced(tf.constant(X)), one, rtol=1e-5)  # graph and eager


def test_sample_and_sample_mean_share_z_and_nothing_else():
    quiet = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Normal(6, scale=1e-3),
        posterior=keras_vae.DiagonalNormal(2),
    )
    x, mean = quiet.sample(200, seed=1).numpy(), quiet.sample_mean(200, seed=1).numpy()
    assert np.all(x != mean)
    assert (x - mean).std() == pytest.approx(1e-3, rel=0.1)  # 1200 draws know it to 2 %
    assert mean.std() > 0.1
    np.testing.assert_array_equal(quiet.sample(200, seed=1), x)
    assert np.all(quiet.sample(200, seed=2) != x)
    assert np.all(quiet.sample(9) != quiet.sample(9))
    np.testing.assert_allclose(quiet.sample(3, seed=1), x[:3], atol=1e-6)  # rows stand alone
    noisy = tiny_vae()
    assert set(np.unique(noisy.sample(50))) == {0.0, 1.0}
    assert np.all((noisy.sample_mean(50) > 0.0) & (noisy.sample_mean(50) < 1.0))


def test_draws_have_the_moments_of_the_model():
    model = linear_gaussian()
    x = model.vae().sample(20_000, seed=3).numpy()
    mean, error = mean_and_error(x)
    assert np.all(np.abs(mean - model.bias) < 5 * error)  # 1 in 10^6
    expected = model.marginal().covariance().numpy()
    # A covariance of n draws errs by about sqrt(2 / n) of the variances.
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.all(np.abs(np.cov(x.T) - expected) < 5 * np.sqrt(2 / len(x)) * scale)


@pytest.mark.parametrize("prior", ["standard_normal", "vamp"])
@pytest.mark.parametrize("objective", [ELBO(), IWAE(3)])
def test_batch_normalisation_moves_once_per_step(prior, objective):
    norm = keras.layers.BatchNormalization(momentum=0.5)
    options = {} if prior == "standard_normal" else {"num_components": 3}
    vae = keras_vae.VAE(
        prior=keras_vae.factories.PRIORS[prior](2, **options),
        likelihood=keras_vae.Bernoulli(6),
        posterior=keras_vae.DiagonalNormal(2, network=norm),
    )
    compiled(vae, objective).fit(X, batch_size=48, verbose=0)
    np.testing.assert_allclose(norm.moving_mean, 0.5 * X.mean(0), rtol=1e-5)  # float32
    vae.evaluate(X, verbose=0)
    np.testing.assert_allclose(norm.moving_mean, 0.5 * X.mean(0), rtol=1e-5)


def test_dropout_acts_in_training_alone():
    network = keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Dense(8)])
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6),
        posterior=keras_vae.DiagonalNormal(2, network=network),
    )
    np.testing.assert_array_equal(vae(X), vae(X))
    np.testing.assert_array_equal(vae.encode(X).mean(), vae.encode(X).mean())
    assert np.any(vae(X, training=True) != vae(X, training=True))
    a, b = (vae.posterior.parameters(X, training=True)["loc"] for _ in range(2))
    assert np.any(a != b)
    assert np.isfinite(compiled(vae).fit(X, verbose=0).history["loss"][0])


NETWORKS = {
    "rescaling": lambda: keras.layers.Rescaling(2.0, offset=-1.0),
    "nested without Input": lambda: keras.Sequential(
        [keras.layers.Rescaling(2.0), keras.Sequential([keras.layers.Dense(3)])]
    ),
    "registered": lambda: Squares(),
}


@keras.saving.register_keras_serializable()
class Squares(keras.layers.Layer):
    """A user's own layer, which knows nothing of `training`."""

    def call(self, x):
        return keras.ops.concatenate([x, x**2], axis=-1)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_networks_of_any_make_train_and_survive_a_file(network, tmp_path):
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6, network=network()),
        posterior=keras_vae.DiagonalNormal(2, network=network()),
    )
    compiled(vae).fit(X, verbose=0)
    vae.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.reconstruct(X), vae.reconstruct(X))


def test_two_models_may_share_a_network():
    shared = keras.layers.Dense(4)
    a, b = (
        keras_vae.VAE(
            prior=keras_vae.StandardNormal(2),
            likelihood=keras_vae.Bernoulli(6),
            posterior=keras_vae.DiagonalNormal(2, network=shared),
        )
        for _ in range(2)
    )
    before = b.encode(X).mean().numpy()
    compiled(a).fit(X, verbose=0)
    assert np.any(b.encode(X).mean() != before)
    compiled(b).fit(X, verbose=0)


def test_conditional_model_learns_what_the_condition_says(tmp_path):
    data = labelled(90)
    data["x"] = np.repeat(data["condition"], 2, axis=1)  # x says c and nothing else
    vae = again(conditional)
    vae.compile(keras.optimizers.Adam(0.05))
    logs = vae.fit(data, batch_size=90, epochs=60, verbose=0).history
    assert logs["elbo"][-1] > -0.5  # the entropy of x given c is 0, of x alone log 3 = 1.1
    condition = np.eye(3, dtype="float32")
    mean = vae.sample_mean(3, seed=0, condition=condition)
    np.testing.assert_allclose(mean, np.repeat(condition, 2, axis=1), atol=0.2)
    one = vae.sample_mean(3, seed=0, condition=condition[1])
    np.testing.assert_allclose(one[1], mean[1], atol=1e-6)  # float32
    assert vae.predict(data, verbose=0).shape == (90, 6)
    vae.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.elbo(data, seed=1), vae.elbo(data, seed=1))
    found = keras_vae.evaluation.log_marginal(vae, data, num_samples=20)
    assert found.value.shape == (90,)


def trained(**kwargs):
    vae = compiled(again(**kwargs), ELBO(beta=0.0), optimizer="adam")
    vae.fit(X, epochs=2, callbacks=[LinearSchedule("beta", stop=0.5, epochs=2)], **ORDERED)
    return vae


def test_file_keeps_everything_that_training_needs(tmp_path):
    """Two more epochs after loading are two more epochs without saving, to the last bit."""
    vae = trained()
    vae.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert (float(vae.objective.beta), float(loaded.objective.beta)) == (0.5, 0.5)
    for a, b in zip(vae.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    histories = [model.fit(X, epochs=2, **ORDERED).history for model in (vae, loaded)]
    assert histories[0] == histories[1]
    assert_same_weights(vae, loaded)
    np.testing.assert_array_equal(vae.sample(4), loaded.sample(4))


def test_file_of_an_untrained_model_opens_without_a_word(tmp_path):
    compiled(tiny_vae(), optimizer="adam").save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")  # warnings are errors in these tests
    assert int(loaded.optimizer.iterations) == 0
    tiny_vae().save(tmp_path / "m.keras")
    assert not keras.saving.load_model(tmp_path / "m.keras").compiled


def test_file_opens_in_a_fresh_process(tmp_path):
    vae = trained(prior="vamp", num_components=3)
    vae.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", X)
    program = (
        "import sys, numpy as np, keras, keras_vae\n"
        "vae = keras.saving.load_model(sys.argv[1])\n"
        "x = np.load(sys.argv[2])\n"
        "np.save(sys.argv[3], vae.elbo(x, seed=1).elbo)\n"
        "vae.fit(x, verbose=0)\n"
    )
    paths = [str(tmp_path / name) for name in ("m.keras", "x.npy", "elbo.npy")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*preloaded.python(), "-c", program, *paths]
    subprocess.run(command, check=True, env=environment)
    np.testing.assert_array_equal(np.load(paths[2]), vae.elbo(X, seed=1).elbo)


def test_clone_is_a_model_of_its_own():
    vae = trained()
    clone = keras.models.clone_model(vae)
    assert type(clone) is keras_vae.VAE
    assert [w.shape for w in clone.weights] == [w.shape for w in vae.weights]
    assert np.any(clone.get_weights()[0] != vae.get_weights()[0])
    before = vae.get_weights()
    clone.set_weights(before)
    np.testing.assert_array_equal(clone.elbo(X, seed=1), vae.elbo(X, seed=1))
    compiled(clone).fit(X, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, vae.get_weights(), strict=True))


class Interrupt(keras.callbacks.Callback):
    """Stops training as a signal would, after some epochs."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_training_resumes_as_if_it_had_not_been_interrupted(tmp_path):
    def fit(vae, *callbacks):
        schedule = LinearSchedule("beta", epochs=4)
        return vae.fit(X, epochs=4, callbacks=[schedule, *callbacks], **ORDERED).history

    whole = compiled(again(), optimizer="adam")
    expected = fit(whole)
    broken = compiled(again(), optimizer="adam")
    with pytest.raises(KeyboardInterrupt):
        fit(broken, keras.callbacks.BackupAndRestore(tmp_path), Interrupt())
    resumed = compiled(tiny_vae(), optimizer="adam")
    history = fit(resumed, keras.callbacks.BackupAndRestore(tmp_path))
    assert history["loss"] == expected["loss"][2:]
    assert_same_weights(resumed, whole)
    assert int(resumed.optimizer.iterations) == 12


class Bent(keras_vae.DiagonalNormal):
    """A posterior by a map of normal draws that is not affine: TFP does not know its mean."""

    def make_distribution(self, loc, scale):
        return tfd.TransformedDistribution(
            super().make_distribution(loc, scale), tfb.SinhArcsinh(0.1, 0.9)
        )

    def draw(self, noise, loc, scale):
        return Draw(tfb.SinhArcsinh(0.1, 0.9).forward(super().draw(noise, loc, scale).value))


def test_posterior_without_a_mean_says_what_works():
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2), likelihood=keras_vae.Normal(6), posterior=Bent(2)
    )
    vae.compile("sgd", monitor=True)
    x = np.zeros((3, 6), np.float32)
    for call in (vae.reconstruct, vae.predict, vae, vae.fit):
        with pytest.raises(ValueError, match=r"needs the mean of q\(z \| x\).*decode a draw"):
            call(x)
    assert np.isfinite(evaluation.anomaly_scores(vae, x).negative_log_marginal).all()
    with pytest.raises(ValueError, match="diagnose compares normal posteriors"):
        evaluation.diagnose(vae, x)
    with pytest.raises(ValueError, match="Annealed importance sampling needs the standard dev"):
        evaluation.log_marginal(vae, x, "annealed")
    with pytest.raises(ValueError, match="this posterior is Bent"):
        evaluation.bound_gap(vae, x)
    assert vae.decode(vae.encode(x).sample(seed=0)).mean().shape == (3, 6)
    sampled = evaluation.log_marginal(vae, x, num_samples=500)
    exact = evaluation.log_marginal(vae, x, "quadrature").value
    assert np.all(np.abs(sampled.value - exact) <= 4.0 * sampled.standard_error)
