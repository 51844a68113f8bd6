"""What `fit` optimises, what it reports, what it accepts, and what moves while it runs."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

import keras_vae
from keras_vae import ELBO, IWAE
from keras_vae.callbacks import CyclicalSchedule, LinearSchedule
from tests.models import (
    ORDERED,
    again,
    assert_same_weights,
    binary,
    compiled,
    flat,
    linear_gaussian,
    mean_and_error,
    mixed_vae,
    terms_of,
    tiny_vae,
)

X = binary()
KEYS = ["loss", "elbo", "distortion", "rate"]


@pytest.fixture
def exact():
    """Makes a VAE whose bound is log p(x) for all draws, with data drawn from it."""
    keras.config.set_floatx("float64")  # which the fixture of conftest.py sets back
    model = linear_gaussian()
    vae = compiled(model.vae(full_covariance=True), ELBO(kl="monte_carlo"), optimizer="sgd")
    x = model.marginal().sample(11, seed=0).numpy()
    return vae, x, float(tf.reduce_mean(model.log_prob(x)))


@pytest.mark.parametrize("batch_size", [2, 5, 11, 100])
def test_means_do_not_depend_on_how_examples_fall_into_batches(exact, batch_size):
    vae, x, evidence = exact
    vae.optimizer.learning_rate = 0.0
    logs = vae.fit(x, batch_size=batch_size, verbose=0).history
    found = vae.evaluate(x, batch_size=batch_size, verbose=0, return_dict=True)
    for values in ({name: log[0] for name, log in logs.items()}, found):
        assert set(values) == set(KEYS)
        assert values["elbo"] == pytest.approx(evidence, abs=1e-10)
        assert values["loss"] == pytest.approx(-evidence, abs=1e-10)
        assert values["distortion"] + values["rate"] == pytest.approx(-evidence, abs=1e-10)


def test_beta_changes_the_loss_and_not_the_bound():
    found = {
        beta: again().evaluate(X, verbose=0, return_dict=True)
        if beta is None
        else compiled(again(), ELBO(beta=beta)).evaluate(X, verbose=0, return_dict=True)
        for beta in (None, 0.0, 1.0, 4.0)
    }
    for beta, logs in found.items():
        assert [logs[name] for name in KEYS[1:]] == [found[None][name] for name in KEYS[1:]]
        expected = logs["distortion"] + (1.0 if beta is None else beta) * logs["rate"]
        assert logs["loss"] == pytest.approx(expected, rel=1e-6)  # float32


def test_free_bits_and_capacity_by_hand():
    vae = tiny_vae()
    q = vae.encode(X)
    loc, scale = q.mean().numpy(), q.stddev().numpy()
    per_latent = 0.5 * (scale**2 + loc**2 - 1.0 - 2.0 * np.log(scale))
    free = float(np.median(per_latent))
    expected = np.maximum(per_latent, free).sum(-1)
    for options, penalty in (
        ({}, per_latent.sum(-1)),
        ({"free_bits": free}, expected),
        ({"free_bits": free, "beta": 2.0}, 2.0 * expected),
        ({"capacity": 0.3}, np.abs(per_latent.sum(-1) - 0.3)),
        ({"capacity": 0.3, "beta": 10.0}, 10.0 * np.abs(per_latent.sum(-1) - 0.3)),
    ):
        terms = terms_of(vae, ELBO(**options), X, 0)
        np.testing.assert_allclose(terms.loss - terms.distortion, penalty, atol=1e-5)  # of ~ 5
        np.testing.assert_allclose(terms.rate, per_latent.sum(-1), atol=1e-6)  # float32
    logits = vae.likelihood.parameters(q.sample(1, seed=tf.constant([0, 0])))["logits"][0].numpy()
    expected = -(X * np.log(expit(logits)) + (1 - X) * np.log(1 - expit(logits))).sum(-1)
    np.testing.assert_allclose(terms.distortion, expected, rtol=1e-5)


@pytest.mark.parametrize("kwargs", [{"kl": "analytic"}, {"free_bits": 0.1}])
def test_a_closed_form_that_does_not_exist_is_refused_at_once(kwargs):
    vae = tiny_vae(prior="normal_mixture", num_components=3)
    with pytest.raises(ValueError, match=r"has no closed form|factorise over latents"):
        vae.compile(objective=ELBO(**kwargs))
    assert np.all(np.isfinite(vae.elbo(X).rate))  # by draws, as documented


def test_sample_weight_weighs_the_loss_and_nothing_else():
    plain = again().evaluate(X, verbose=0, return_dict=True)
    double = again().evaluate(X, sample_weight=np.full(48, 2.0), verbose=0, return_dict=True)
    assert double["loss"] == pytest.approx(2.0 * plain["loss"], rel=1e-6)  # float32
    assert [double[name] for name in KEYS[1:]] == [plain[name] for name in KEYS[1:]]


def test_examples_of_weight_zero_do_not_train():
    weight = (np.arange(48) % 2).astype("float32")
    other = np.where(weight[:, None] == 1.0, X, 1.0 - X)
    models = [again(), again(), again(), again()]
    for vae, x, weights in zip(
        models, (X, other, X, other), (weight, weight[:, None], None, None), strict=True
    ):
        vae.fit(x, sample_weight=weights, **ORDERED)
    assert_same_weights(*models[:2])
    assert np.any(models[0].get_weights()[0] != models[2].get_weights()[0])
    assert np.any(models[2].get_weights()[0] != models[3].get_weights()[0])

    streamed = again()
    stream = tf.data.Dataset.from_tensor_slices((X, np.zeros(48), weight)).batch(16)
    streamed.fit(stream, verbose=0)
    assert_same_weights(streamed, models[0])


def test_penalties_of_the_networks_are_in_the_loss_and_not_in_the_bound():
    def penalised(rate):
        vae = again()
        vae.posterior.head.kernel.regularizer = keras.regularizers.L2(rate)
        vae.likelihood.network.layers[-1].activity_regularizer = keras.regularizers.L1(rate)
        return vae

    heavy, light = penalised(1.0), penalised(0.0)
    logs, plain = (v.evaluate(X, verbose=0, return_dict=True) for v in (heavy, light))
    assert logs["elbo"] == plain["elbo"]
    assert logs["loss"] - plain["loss"] > np.square(heavy.posterior.head.kernel).sum() - 1e-4
    for vae in (heavy, light):
        vae.fit(X, epochs=5, **ORDERED)
    kernels = [np.square(vae.posterior.head.kernel).sum() for vae in (heavy, light)]
    assert kernels[0] < 0.8 * kernels[1]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[16 * index : 16 * index + 16]


def stream(data, *rest):
    return tf.data.Dataset.from_tensor_slices((data, *rest) if rest else data).batch(16)


CONTAINERS = {
    "tensor": lambda: tf.constant(X),
    "list": X.tolist,
    "float64": lambda: X.astype("float64"),
    "bool": lambda: X.astype(bool),
    "uint8": lambda: X.astype("uint8"),
    "tf.data": lambda: stream(X),
    "tf.data uint8": lambda: stream(X.astype("uint8")),
    "tf.data (x, y, weight)": lambda: stream(X, np.zeros(48), np.ones(48)),
    "PyDataset": Batches,
    "generator": lambda: itertools.cycle([X[:16], X[16:32], X[32:]]),
    "generator of tuples": lambda: itertools.cycle([(X[:16],), (X[16:32],), (X[32:],)]),
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_containers_of_the_same_data_train_the_same(container):
    expected, found = again(), again()
    expected.fit(X, **ORDERED)
    data = container()
    options = ORDERED if isinstance(data, (list, np.ndarray, tf.Tensor)) else {"verbose": 0}
    if isinstance(data, keras.utils.PyDataset):
        options = {"verbose": 0, "shuffle": False}
    found.fit(data, steps_per_epoch=3, **options)
    assert_same_weights(found, expected)


def test_pandas_is_an_array():
    import pandas as pd

    expected, found = again(), again()
    expected.fit(X, **ORDERED)
    found.fit(pd.DataFrame(X), **ORDERED)
    assert_same_weights(found, expected)


@pytest.mark.parametrize("n", [1, 2])
def test_few_examples_and_small_sizes_train(n):
    vae = keras_vae.mlp_vae(1, 1, "normal", hidden=(1,))
    logs = compiled(vae).fit(np.zeros((n, 1)), verbose=0).history
    assert np.all(np.isfinite([logs[name] for name in KEYS]))
    assert vae.sample(1).shape == (1, 1)


def test_graph_and_eager_steps_agree_and_so_do_many_in_one_execution():
    histories = []
    for options in ({}, {"run_eagerly": False}, {"run_eagerly": False, "steps_per_execution": 3}):
        vae = compiled(again(), **options)
        histories.append(vae.fit(X, epochs=2, **{**ORDERED, "batch_size": 7}).history)
    for history in histories[1:]:
        for name in KEYS:
            np.testing.assert_allclose(history[name], histories[0][name], rtol=1e-5)  # fused ops


def test_validation_draws_from_the_posterior_in_every_form(exact):
    vae, x, evidence = exact
    vae.optimizer.learning_rate = 0.0
    for data in (x, stream(x), (x,), (x, None, np.full(len(x), 2.0))):
        logs = vae.fit(x, validation_data=data, verbose=0).history
        assert set(logs) == {*KEYS, *(f"val_{name}" for name in KEYS)}
        assert logs["val_elbo"][0] == pytest.approx(evidence, abs=1e-10)
        weight = 2.0 if isinstance(data, tuple) and len(data) == 3 else 1.0
        assert logs["val_loss"][0] == pytest.approx(-weight * evidence, abs=1e-10)
    logs = vae.fit(x, validation_split=0.3, verbose=0).history
    held = linear_gaussian().log_prob(x[int(len(x) * 0.7) :])
    assert logs["val_elbo"][0] == pytest.approx(float(tf.reduce_mean(held)), abs=1e-10)


def _parts_with_holes():
    numbers = np.arange(len(X), dtype="float32")[:, np.newaxis]
    x = {"image": X[:, :4].reshape(-1, 2, 2, 1), "age": np.where(numbers % 3, numbers, np.nan)}
    x |= {"label": np.eye(3, dtype="float32")[np.arange(len(X)) % 3], "visits": numbers}
    return mixed_vae(), x


@pytest.mark.parametrize(
    ("make", "weight"),
    [
        (lambda: (again(), X), None),
        (lambda: (again(), X), np.linspace(0.0, 2.0, len(X), dtype="float32")),
        (
            lambda: (tiny_vae("binomial", total_count=9), np.arange(6 * len(X)).reshape(-1, 6) % 9),
            None,
        ),
        (_parts_with_holes, None),
    ],
    ids=["array", "weights", "integers", "parts with holes"],
)
def test_validation_on_arrays_is_that_of_keras_on_their_batches(make, weight):
    """Keras makes iterators of datasets, whose batches are of the same size and in this order."""
    found = []
    for as_dataset in (False, True):
        keras.utils.set_random_seed(0)
        vae, x = make()
        parts = x if weight is None else (x, np.zeros(len(X), "float32"), weight)
        data = x if weight is None else (x, None, weight)
        if as_dataset:
            data = tf.data.Dataset.from_tensor_slices(parts).batch(7)
        given = {"validation_data": data, "epochs": 3, "batch_size": 8, "verbose": 0}
        sizes = {} if as_dataset else {"validation_batch_size": 7}
        found.append(compiled(vae, run_eagerly=False).fit(x, **given, **sizes).history)
    assert found[0] == found[1]
    assert len(set(found[0]["val_elbo"])) == 3


def test_a_callback_evaluates_other_data_while_arrays_are_validated():
    class Evaluates(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.append(self.model.evaluate(stream(X), verbose=0, return_dict=True)["elbo"])

    found, vae = [], compiled(again(), run_eagerly=False)
    given = {"validation_data": X, "epochs": 2, **ORDERED}
    logs = [vae.fit(X, callbacks=each, **given).history for each in ([Evaluates()], [])]
    assert np.all(np.isfinite(found))
    assert len(found) == 2
    assert all(np.all(np.isfinite(each["val_elbo"])) for each in logs)
    assert vae.evaluate(X, verbose=0, return_dict=True)["elbo"] < 0.0


def test_a_training_that_fails_in_its_validation_leaves_the_model_as_it_was():
    class Fails(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            raise InterruptedError

    vae = compiled(again(), run_eagerly=False)
    with pytest.raises(InterruptedError):
        vae.fit(X, validation_data=X, callbacks=[Fails()], **ORDERED)
    assert vae._eval_epoch_iterator is None  # which held the data
    assert np.isfinite(vae.evaluate(X, verbose=0, return_dict=True)["elbo"])


def test_validation_draws_anew_and_means_the_bound():
    vae = compiled(tiny_vae(), ELBO(kl="monte_carlo"))
    found = [vae.evaluate(X, verbose=0, return_dict=True)["elbo"] for _ in range(12)]
    assert len(set(found)) == 12
    mean, error = mean_and_error(found)
    assert abs(mean - np.mean(vae.elbo(X, 300, seed=0).elbo)) < 4 * error  # 1 in 500, for 12 draws


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"jit_compile": False}])
def test_training_is_the_same_with_and_without_validation(options):
    plain, validated = (compiled(again(), **options) for _ in range(2))
    logs = [
        plain.fit(X, epochs=3, **ORDERED).history,
        validated.fit(X, epochs=3, validation_data=X, **ORDERED).history,
    ]
    assert_same_weights(plain, validated)
    assert [logs[1][name] for name in KEYS] == [logs[0][name] for name in KEYS]
    assert len(set(logs[1]["val_elbo"])) == 3
    for vae in (plain, validated):
        vae.fit(X, **ORDERED)
    assert_same_weights(plain, validated)  # the next training, too


def test_early_stopping_watches_the_validation_bound():
    vae = compiled(again(), optimizer=keras.optimizers.SGD(0.0))
    stop = keras.callbacks.EarlyStopping("val_elbo", mode="max", patience=1, min_delta=100.0)
    logs = vae.fit(X, validation_data=X, epochs=9, callbacks=stop, **ORDERED).history
    assert len(logs["loss"]) == 2


def test_fit_goes_on_where_it_stopped_with_any_optimizer():
    class Halving(keras.optimizers.SGD):
        """A user's own optimizer."""

        def update_step(self, gradient, variable, learning_rate):
            super().update_step(gradient * 0.5, variable, learning_rate)

    for optimizer in ("rmsprop", keras.optimizers.AdamW(1e-2), Halving(0.1)):
        vae = compiled(again(), optimizer=optimizer)
        before = vae.get_weights()
        for total in (3, 6):
            vae.fit(X, **ORDERED)
            assert int(vae.optimizer.iterations) == total
        assert all(np.any(a != b) for a, b in zip(before, vae.get_weights(), strict=True))


def test_frozen_layers_stay():
    vae = again()
    vae.posterior.trainable = False
    before = flat(vae.posterior.get_weights())
    compiled(vae).fit(X, **ORDERED)
    np.testing.assert_array_equal(flat(vae.posterior.get_weights()), before)


class Record(keras.callbacks.Callback):
    """The scheduled values, before each step and after each epoch."""

    def __init__(self, name="beta"):
        super().__init__()
        self.name, self.steps, self.epochs = name, [], []

    def _value(self):
        return float(self.model.objective.schedulable[self.name])

    def on_train_batch_begin(self, batch, logs=None):
        self.steps.append(self._value())

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(self._value())


@pytest.mark.parametrize(
    ("schedule", "name", "epochs", "steps"),
    [
        (LinearSchedule("beta", epochs=2), "beta", [0.5, 1, 1], np.minimum(np.arange(9) / 6, 1)),
        (
            LinearSchedule("capacity", start=3.0, stop=0.0, epochs=1),
            "capacity",
            [0.0, 0.0, 0.0],
            [3, 2, 1, 0, 0, 0, 0, 0, 0],
        ),
        (
            CyclicalSchedule("beta", cycle_epochs=1.5, cycles=2, rise=2 / 3),
            "beta",
            [1.0, 0.5, 1.0],
            [0, 1 / 3, 2 / 3, 1, 1, 1 / 6, 1 / 2, 5 / 6, 1],
        ),
    ],
)
def test_schedule_moves_its_variable_step_by_step(schedule, name, epochs, steps):
    vae, record = compiled(again(), ELBO(capacity=1.0)), Record(name)
    vae.fit(X, epochs=3, callbacks=[schedule, record], **ORDERED)
    np.testing.assert_allclose(record.epochs, epochs, atol=1e-6)  # the variable is float32
    if isinstance(schedule, LinearSchedule):
        np.testing.assert_allclose(record.steps, steps, atol=1e-6)
    else:
        expected = [schedule.value_at(step / 3) for step in range(9)]
        np.testing.assert_allclose(record.steps, expected, atol=1e-6)
        np.testing.assert_allclose(record.steps[:4], [0, 1 / 3, 2 / 3, 1], atol=1e-6)


def test_schedule_follows_the_epoch_that_fit_begins_with():
    vae, record = again(), Record()
    schedule = LinearSchedule("beta", epochs=4)
    vae.fit(X, initial_epoch=2, epochs=4, callbacks=[schedule, record], **ORDERED)
    np.testing.assert_allclose(record.steps, np.arange(6, 12) / 12, atol=1e-6)  # float32


@pytest.mark.parametrize(
    ("objective", "schedule", "message"),
    [
        (
            ELBO(),
            LinearSchedule("beta", epochs=5),
            "needs 5 epochs, but fit was asked for 2: it would end at 0.4 instead of 1",
        ),
        (ELBO(), CyclicalSchedule("beta", cycle_epochs=2), "needs 7 epochs"),
        (ELBO(), LinearSchedule("capacity", epochs=1), r"Give ELBO\(capacity=\.\.\.\)"),
        (IWAE(2), LinearSchedule("beta", epochs=1), "variables of IWAE are: none"),
    ],
)
def test_schedule_that_cannot_finish_is_refused_before_training(objective, schedule, message):
    vae = compiled(again(), objective)
    before = vae.get_weights()
    with pytest.raises(ValueError, match=message):
        vae.fit(X, epochs=2, callbacks=[schedule], **ORDERED)
    assert all(np.array_equal(a, b) for a, b in zip(before, vae.get_weights(), strict=True))


def test_monitor_logs_what_the_latents_carry_and_changes_nothing_else(tmp_path):
    x = binary(90)
    plain, watched = (again(tiny_vae) for _ in range(2))
    watched.compile(plain.optimizer.__class__(0.05), run_eagerly=True, monitor=True)
    plain.compile(plain.optimizer.__class__(0.05), run_eagerly=True)
    logs = [vae.fit(x, validation_data=x, **ORDERED).history for vae in (plain, watched)]
    assert_same_weights(plain, watched)
    names = ["active_units", "rate_max", "rate_median"]
    assert set(logs[1]) - set(logs[0]) == {*names, *(f"val_{name}" for name in names)}
    assert all(logs[0][key] == logs[1][key] for key in logs[0])
    q = watched.encode(x)
    loc, scale = q.mean().numpy(), q.stddev().numpy()
    rates = (0.5 * (scale**2 + loc**2 - 1.0) - np.log(scale)).mean(axis=0)
    expected = [(loc.var(axis=0) > 0.01).sum(), rates.max(), np.median(rates)]
    # the sums of 90 float32 numbers
    np.testing.assert_allclose([logs[1][f"val_{name}"][0] for name in names], expected, rtol=1e-4)
    watched.save(tmp_path / "m.keras")
    again_watched = keras.saving.load_model(tmp_path / "m.keras")
    assert set(again_watched.evaluate(x, return_dict=True, verbose=0)) == {*KEYS, *names}


@pytest.mark.parametrize("prior", ["normal_mixture", "vamp"])
def test_monitor_sees_collapse_under_a_mixture(prior):
    vae = again(tiny_vae, prior=prior, num_components=3)
    vae.compile("sgd", monitor=True)
    scaled = {}
    for share in (0.0, 3.0):
        kernel, bias = vae.posterior.head.get_weights()
        kernel[:, :2] = share * np.random.default_rng(0).normal(size=kernel[:, :2].shape)
        vae.posterior.head.set_weights([kernel, bias])
        scaled[share] = vae.evaluate(binary(64), return_dict=True, verbose=0)
    assert (scaled[0.0]["active_units"], scaled[3.0]["active_units"]) == (0, 2)
    assert scaled[3.0]["rate_median"] > scaled[0.0]["rate_median"]
    assert scaled[3.0]["rate_max"] >= scaled[3.0]["rate_median"]


def test_monitor_keeps_its_digits_far_from_zero():
    """Sums of squares cancel: at an offset of 200 float32 was 13 % off."""
    rng = np.random.default_rng(0)
    loc = (200.0 + 0.1 * rng.normal(size=(900, 2))).astype("float32")
    monitor, prior = keras_vae.training.monitor.LatentMonitor(2), keras_vae.StandardNormal(2)
    for part in np.split(loc, 9):
        q = keras_vae.DiagonalNormal(2).make_distribution(tf.constant(part), tf.ones_like(part))
        draw = keras_vae.distributions.Draw(q.sample(1, seed=0))
        latent = keras_vae.trace.Latent(draw, prior.distribution(), lambda _, q=q: q)
        monitor.update_state(keras_vae.trace.Trace({"z": latent}, {}), prior.components())
    variance = monitor.squares / monitor.count - (monitor.means / monitor.count) ** 2
    np.testing.assert_allclose(variance, loc.astype(float).var(axis=0), rtol=1e-7)


def test_scheduled_numbers_are_exact_in_float64():
    for objective in (ELBO(beta=0.1, capacity=1.3), ELBO(beta=0.7)):
        for name, variable in objective.schedulable.items():
            assert float(variable.numpy()) == objective.get_config()[name]
    assert ELBO(capacity=1.3).get_config()["capacity"] == 1.3
