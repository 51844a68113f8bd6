"""What is refused, and in which words: data, arguments, a wrong backend, training gone astray."""

import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import keras_vae
from keras_vae import ELBO, IWAE, DataError, NonFiniteError
from keras_vae.callbacks import CyclicalSchedule, LinearSchedule
from keras_vae.training.guard import NonFiniteGuard
from tests.models import Batches, binary, compiled, tiny_vae

X = binary()
IMAGES = binary(4, 8, 8, 1)


def at(x, row, value):
    """Copies the data with one number of a row replaced."""
    x = np.array(x)
    x[(row, *(0,) * (x.ndim - 1))] = value
    return x


CONTAINERS = {
    "array": lambda x: x,
    "tf.data": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(16),
    "PyDataset": Batches,
    "generator": lambda x: (x[i : i + 16] for i in (0, 16, 32)),
}
BINARISE = "Binarise it .* or choose ContinuousBernoulli"

# likelihood, its options, data of 48 examples that it refuses in any container, and the message
OUTSIDE = {
    "grey": ("bernoulli", {}, at(X, 40, 0.5), rf"binary data \{{0, 1\}}; got .*{BINARISE}"),
    "8 bit": ("bernoulli", {}, (X * 255).astype("uint8"), rf"binary data .* got .*{BINARISE}"),
    "over 1": ("continuous_bernoulli", {}, at(X, 40, 1.5), r"in \[0, 1\]; got .* divide by"),
    "negative count": ("poisson", {}, at(X, 40, -1.0), "counts 0, 1, 2.* got .* raw counts"),
    "fraction": ("poisson", {}, at(X, 40, 0.5), "counts 0, 1, 2.* got .* raw counts"),
    "over total": ("binomial", {"total_count": 3}, at(X, 40, 4.0), "integers from 0 to 3; got"),
    "over levels": (
        "discretized_logistic",
        {"levels": 16},
        at(X, 40, 16.0),
        "integers from 0 to 15; got .* raw levels",
    ),
    "two hot": ("categorical", {}, at(np.eye(6)[np.arange(48) % 6], 40, 1.0), "to_categorical"),
    "none hot": ("categorical", {}, np.zeros((48, 6)), "one-hot vectors .*; got"),
    "integers": ("normal", {}, (X * 255).astype("uint8"), "density; got .* DiscretizedLogistic"),
    "booleans": ("laplace", {}, X.astype(bool), "density; got .*DiscretizedLogistic"),
    "zeros and ones": (
        "continuous_bernoulli",
        {},
        (X > 0.5).astype("int64"),
        r"numbers in \[0, 1\]; got .*integers.* For zeros and ones choose Bernoulli",
    ),
    "truth values": ("continuous_bernoulli", {}, X > 0.5, "got booleans.* choose Bernoulli"),
    "NaN": ("normal", {}, at(X, 40, np.nan), "was given (nan|NaN) .* remove or impute"),
    "infinity": ("bernoulli", {}, at(X, 40, -np.inf), "was given (-inf|NaN or inf).* remove or"),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("case", OUTSIDE)
def test_data_outside_the_support_is_refused_in_every_container(case, container):
    likelihood, options, x, message = OUTSIDE[case]
    vae = compiled(tiny_vae(likelihood, **options))
    kwargs = {"steps_per_epoch": 3} if container == "generator" else {}
    with pytest.raises(DataError, match=f"{type(vae.likelihood).__name__} .*{message}"):
        vae.fit(CONTAINERS[container](x), verbose=0, **kwargs)


@pytest.mark.parametrize("container", ["array", "tf.data", "PyDataset"])
def test_validation_and_evaluation_data_are_checked_too(container):
    vae, bad = compiled(tiny_vae()), CONTAINERS[container](at(X, 40, 0.5))
    with pytest.raises(DataError, match=BINARISE):
        vae.fit(X, validation_data=bad, verbose=0)
    with pytest.raises(DataError, match=BINARISE):
        vae.evaluate(bad, verbose=0)


def test_message_names_the_example_and_the_number():
    for row in (3, 40):
        with pytest.raises(DataError, match=rf"got 0\.25 in example {row}\."):
            compiled(tiny_vae()).fit(at(X, row, 0.25), verbose=0)
    with pytest.raises(DataError, match=r"In a batch: .* got 0\.25 in example 8\."):
        compiled(tiny_vae()).fit(Batches(at(X, 40, 0.25)), verbose=0)
    with pytest.raises(DataError, match=r"given nan in example 2 \(2 such examples seen\)"):
        compiled(tiny_vae()).fit(at(at(X, 2, np.nan), 5, np.inf), verbose=0)


IMAGE = lambda: keras_vae.conv_vae((8, 8, 1), 2, filters=(2,), width=4)  # noqa: E731


@pytest.mark.parametrize(
    ("make", "x", "message"),
    [
        (tiny_vae, X[:0], r"x is empty: shape \[0, 6\]"),
        (tiny_vae, X[:, :5], r"x must have shape \[n, 6\]; got \[48, 5\]\.$"),
        (tiny_vae, X[0], r"got \[6\]\. Add the batch axis: x\[None\]"),
        (tiny_vae, np.float32(1.0), r"must have shape \[n, 6\]; got \[\]"),
        (IMAGE, IMAGES[..., 0], r"got \[4, 8, 8\]\. Add the channel axis: x\[\.\.\., None\]"),
        (IMAGE, IMAGES.reshape(4, 64), r"got \[4, 64\]\. The sizes .* x.reshape\(-1, 8, 8, 1\)"),
        (
            tiny_vae,
            [["a"] * 6],
            r"array of numbers of shape \[n, 6\] of at most 64 bits; got list of dtype <U1",
        ),
        (tiny_vae, None, r"got NoneType of dtype object"),
        (tiny_vae, [[1.0], [1.0, 2.0]], "list, which NumPy cannot read"),
        (tiny_vae, {"x": X}, r"unconditional .* dict with keys \['x'\]"),
        (lambda: tiny_vae("normal"), X.astype("float64") * 1e300, r"real numbers .*; got 1e\+300"),
    ],
)
def test_arrays_of_the_wrong_form_are_refused(make, x, message):
    vae = compiled(make())
    with pytest.raises(DataError, match=message):
        vae.fit(x, verbose=0)
    if "1e" not in message:
        for call in (vae.encode, vae.reconstruct, vae.elbo, vae.predict, vae.evaluate):
            with pytest.raises(DataError, match=message):
                call(x)


def test_datasets_of_the_wrong_form_are_refused():
    vae, slices = compiled(tiny_vae()), tf.data.Dataset.from_tensor_slices
    with pytest.raises(DataError, match=r"batches of x of shape \[n, 6\]; got \(6,\).*batched\?"):
        vae.fit(slices(X), verbose=0)
    with pytest.raises(DataError, match="The dataset is empty"):
        vae.fit(slices(X[:0]).batch(2), verbose=0)


def test_condition_is_checked_as_data_is():
    vae, condition = compiled(tiny_vae(condition_shape=3)), np.zeros((48, 3), "float32")
    stream = tf.data.Dataset.from_tensor_slices({"x": X, "condition": condition * np.nan}).batch(9)
    for data, message in (
        (X, r"conditional and expects \{\"x\": \.\.\., \"condition\": \.\.\.\}; got ndarray"),
        ({"x": X}, r"got keys \['x'\]"),
        ({"x": X, "condition": condition[:, :2]}, r"condition must have shape \[n, 3\]; got \[48"),
        ({"x": X, "condition": condition[:9]}, "x has 48 examples and condition 9"),
        ({"x": X, "condition": at(condition, 7, np.nan)}, "condition is not finite in example 7"),
        ({"x": at(X, 7, 0.5), "condition": condition}, BINARISE),
        (stream, "condition is not finite in the dataset"),
    ):
        with pytest.raises(DataError, match=message):
            vae.fit(data, verbose=0)
    wanted = r"needs a condition of shape \[n, 3\]"
    for call, message in (
        (lambda: vae.sample(2), wanted),
        (lambda: vae.decode(np.zeros((2, 2))), wanted),
        (lambda: vae.sample(2, condition=np.zeros((2, 4))), r"have shape \[n, 3\]; got \[2, 4\]"),
        (lambda: vae.sample(3, condition=np.zeros((2, 3))), "each of the 3 draws; got 2"),
        (lambda: vae.decode(np.zeros((4, 2)), np.zeros((3, 3))), "each of the 4 latents; got 3"),
        (lambda: vae.sample(2, condition=pd.Series(["a", "b"])), r"pandas.get_dummies\(condition"),
        (lambda: tiny_vae().sample(2, condition=np.zeros((2, 3))), "is unconditional"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"y": X}, ValueError, r"targets y, but a VAE models only p\(x\)"),
        ({"class_weight": {0: 1.0}}, ValueError, "use sample_weight"),
        ({"validation_data": (X, X)}, ValueError, "validation_data was given targets"),
        ({"sample_weight": np.ones(47)}, DataError, r"shape \[48\]; got \[47\]"),
        ({"sample_weight": np.ones((48, 6))}, DataError, r"shape \[48\]; got \[48, 6\]"),
        ({"sample_weight": at(np.ones(48), 3, np.nan)}, DataError, "finite and at least 0"),
        ({"sample_weight": at(np.ones(48), 3, -1.0)}, DataError, "finite and at least 0"),
    ],
)
def test_fit_refuses_what_a_vae_does_not_have(kwargs, error, message):
    with pytest.raises(error, match=message):
        compiled(tiny_vae()).fit(X, verbose=0, **kwargs)


def test_weights_of_a_stream_come_with_it():
    stream = CONTAINERS["tf.data"](X)
    with pytest.raises(ValueError, match=r"yield \(x, y, sample_weight\)"):
        compiled(tiny_vae()).fit(stream, sample_weight=np.ones(48), verbose=0)
    wide = tf.data.Dataset.from_tensor_slices((X, X, X)).batch(16)
    with pytest.raises(ValueError, match=r"one number per example, shape \[n\]; got \(16, 6\)"):
        compiled(tiny_vae()).fit(wide, verbose=0)
    with pytest.raises(ValueError, match="evaluate was given targets"):
        compiled(tiny_vae()).evaluate(X, X)


dense, normal, prior = keras.layers.Dense, keras_vae.Normal, keras_vae.StandardNormal


def sized(units, inputs):
    return keras.Sequential([keras.Input((inputs,)), dense(units)])


def vae_with(latents=2, likelihood=None, posterior=None, **kwargs):
    return keras_vae.VAE(
        prior=prior(latents),
        likelihood=likelihood or normal(6),
        posterior=posterior or keras_vae.DiagonalNormal(2),
        **kwargs,
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: vae_with(3), ValueError, "prior has 3 and the posterior 2"),
        (
            lambda: vae_with(likelihood=normal(6, network=sized(4, inputs=3))),
            ValueError,
            r"network of Normal does not take z of shape \[n, 2\]: .*expected shape=\(None, 3\)",
        ),
        (
            lambda: vae_with(posterior=keras_vae.DiagonalNormal(2, network=sized(4, inputs=3))),
            ValueError,
            r"network of DiagonalNormal does not take x of shape \[n, 6\]",
        ),
        (
            lambda: vae_with(
                posterior=keras_vae.DiagonalNormal(2, network=sized(4, 3)), condition_shape=5
            ),
            ValueError,
            r"x of shape \[n, 6\] and a condition of shape \[n, 5\]",
        ),
        (
            lambda: vae_with(likelihood=normal(6, head=dense(7))),
            ValueError,
            r"head of Normal emits 7 numbers .* needs 6 \(loc 6\)",
        ),
        (
            lambda: vae_with(posterior=keras_vae.DiagonalNormal(2, head=dense(2))),
            ValueError,
            r"emits 2 numbers .* needs 4 \(loc 2, scale 2\)",
        ),
        (lambda: vae_with(likelihood=prior(2)), TypeError, "argument `likelihood`. Expected a"),
        (lambda: vae_with(posterior=normal(2)), TypeError, "argument `posterior`. Expected a"),
        (lambda: normal(6, network=lambda z: z), TypeError, "argument `network`.*Keras layer"),
        (lambda: normal(6, head=8), TypeError, "argument `head`. Expected a Keras layer"),
        (lambda: vae_with(likelihood=normal(6, dtype="float64")), ValueError, "same dtype="),
        (lambda: keras_vae.VampPrior(2, 3).distribution(), ValueError, "needs an encoder"),
    ],
)
def test_distributions_that_do_not_fit_together_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_vamp_prior_belongs_to_one_model():
    vae = tiny_vae(prior="vamp", num_components=3)
    with pytest.raises(ValueError, match="already belongs to a VAE"):
        keras_vae.VAE(prior=vae.prior, likelihood=normal(6), posterior=keras_vae.DiagonalNormal(2))


ARGUMENTS = {
    "scale.*positive number or one of 'learned'": [
        *(lambda s=s: normal(3, scale=s) for s in (0, -1.0, np.nan, np.inf, True, "x", [1.0])),
        lambda: normal(3, scale=np.ones(3)),
        lambda: keras_vae.DiscretizedLogistic(3, scale="optimal"),
    ],
    "levels.*at least 2": [lambda: keras_vae.DiscretizedLogistic(3, levels=1)],
    "total_count.*at least 1": [
        *(lambda n=n: keras_vae.Binomial(3, total_count=n) for n in (0, 2.5, True))
    ],
    "event shape of positive integers": [
        *(lambda s=s: keras_vae.Bernoulli(s) for s in ((), 0, (2, -1), 2.5, None, "abc", True)),
        lambda: keras_vae.DiagonalNormal(0),
    ],
    "a latent size such as 50": [lambda: keras_vae.DiagonalNormal((2, 3))],
    "latent_size.*at least 1": [lambda: prior(0), lambda: tiny_vae().prior.__class__(1.5)],
    "num_components.*at least 1": [
        lambda: keras_vae.NormalMixture(2, 0),
        lambda: keras_vae.VampPrior(2, 1.5),
    ],
    "num_samples.*at least 1": [
        lambda: ELBO(num_samples=0),
        lambda: IWAE(2.0),
        lambda: tiny_vae().elbo(X, 0),
    ],
    "beta.*finite number of at least 0": [
        *(lambda b=b: ELBO(beta=b) for b in (-1, np.nan, np.inf, "a", None))
    ],
    "free_bits.*finite number": [lambda: ELBO(free_bits=-1.0)],
    "capacity.*finite number": [lambda: ELBO(capacity=-1.0)],
    "free_bits needs the closed form": [
        lambda: ELBO(free_bits=1.0, capacity=1.0),
        lambda: ELBO(free_bits=1.0, kl="monte_carlo"),
        lambda: ELBO(free_bits=1.0, gradient="sticking_the_landing"),
    ],
    "kl.*'analytic', 'monte_carlo' or None": [lambda: ELBO(kl="exact")],
    "closed form of the rate does not contain": [
        lambda: ELBO(kl="analytic", gradient="sticking_the_landing")
    ],
    "expects one of 'pathwise'": [
        lambda: ELBO(gradient="doubly_reparameterized"),
        lambda: IWAE(3, gradient="sticking_the_landing"),
    ],
    "positive number of epochs|epochs.*at least 0": [
        *(lambda e=e: LinearSchedule("beta", epochs=e) for e in (0, -1, np.nan))
    ],
    "st.*finite number of at least 0": [
        lambda: LinearSchedule("beta", start=-1, epochs=1),
        lambda: LinearSchedule("beta", stop=np.inf, epochs=1),
    ],
    "cycles.*at least 1": [lambda: CyclicalSchedule("beta", cycle_epochs=1, cycles=1.5)],
    "positive cycle_epochs and rise": [
        lambda: CyclicalSchedule("beta", cycle_epochs=0),
        lambda: CyclicalSchedule("beta", cycle_epochs=1, rise=1.5),
    ],
    "likelihood.*one of bernoulli, .*'gauss'": [lambda: tiny_vae("gauss")],
    "posterior.*one of diagonal": [lambda: tiny_vae(posterior="gauss")],
    "prior.*one of standard_normal": [lambda: tiny_vae(prior="gauss")],
    "at least one hidden layer": [lambda: keras_vae.mlp_vae(6, 2, hidden=())],
    r"\(height, width, channels\); got \(6,\)": [lambda: keras_vae.conv_vae(6, 2)],
    "at least one convolution": [lambda: keras_vae.conv_vae((5, 5, 1), 2, filters=())],
    "number of draws of at least 1": [*(lambda n=n: tiny_vae().sample(n) for n in (0, 2.5, True))],
    r"seed.*(in \[-2\^31, 2\^31\)|fits in 32 bits)": [
        lambda: tiny_vae().sample(2, seed=2**31),
        lambda: tiny_vae().elbo(X, seed=2**31),
        lambda: tiny_vae().elbo(X, seed=True),
    ],
    r"z must have shape \[n, 2\]; got": [
        *(lambda s=s: tiny_vae().decode(np.zeros(s)) for s in ((3, 5), 2))
    ],
    "x holds 48 examples and z 3": [lambda: tiny_vae().log_joint(X, np.zeros((3, 2)))],
}


@pytest.mark.parametrize("message", ARGUMENTS)
def test_bad_arguments_are_refused_with_what_was_expected(message):
    for call in ARGUMENTS[message]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"loss": "mse", "metrics": ["mse"]}, "does not take loss, metrics: .*keras_vae.ELBO"),
        ({"objective": "elbo"}, "Expected a keras_vae objective such as .* Received: 'elbo'"),
        ({"objective": ELBO}, "Expected a keras_vae objective"),
    ],
)
def test_compile_takes_an_objective_and_no_loss(kwargs, message):
    with pytest.raises(TypeError, match=message):
        tiny_vae().compile("adam", **kwargs)
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        tiny_vae().fit(X)


# ------------------------------------------------------------------- training that goes astray


class Poison(keras.callbacks.Callback):
    """Sets a variable to NaN before one step."""

    def __init__(self, variable, epoch=1, step=1):
        super().__init__()
        self.variable, self.moment = variable, (epoch, step)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.moment:
            self.variable.assign(np.full(self.variable.shape, np.nan))


POISONED = {
    "distortion": lambda vae: vae.likelihood.head.bias,
    "rate": lambda vae: vae.prior.loc,
    "distortion and the rate": lambda vae: vae.posterior.head.bias,
    "loss": lambda vae: vae.objective.beta,
}


@pytest.mark.parametrize("term", POISONED)
@pytest.mark.parametrize("saves", ["epoch", 1])
def test_training_stops_at_nan_and_keeps_the_last_good_file(term, saves, tmp_path):
    vae = compiled(tiny_vae(prior="normal_mixture", num_components=2))
    path = tmp_path / "m.weights.h5"
    poison = Poison(POISONED[term](vae))
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True, save_freq=saves)
    with pytest.raises(NonFiniteError, match=rf"The {term} became nan in step 2 of epoch 2;"):
        vae.fit(X, epochs=3, batch_size=16, callbacks=[checkpoint, poison], verbose=0)
    good = compiled(tiny_vae(prior="normal_mixture", num_components=2))
    good.optimizer.build(good.trainable_variables)
    good.load_weights(path)
    assert int(good.optimizer.iterations) == (3 if saves == "epoch" else 4)
    assert all(np.all(np.isfinite(weight)) for weight in good.get_weights())


class BreaksAtStep3(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is NaN at the third step."""

    def __call__(self, step):
        return tf.where(step < 2, 0.1, np.nan)


@pytest.mark.parametrize(
    ("saves", "message"),
    [
        ("epoch", r"The weight .* NaN or infinite at the end of epoch 1, though the loss was"),
        (1, r"The weight .* NaN or infinite in step 3 of epoch 1, though the loss was finite"),
    ],
)
def test_weights_broken_by_the_last_step_are_not_saved(saves, message, tmp_path):
    vae = compiled(tiny_vae(), optimizer=keras.optimizers.SGD(BreaksAtStep3()))
    path = tmp_path / "m{batch}.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True, save_freq=saves)
    with pytest.raises(NonFiniteError, match=message):
        vae.fit(X, epochs=2, batch_size=16, callbacks=[checkpoint], verbose=0)
    expected = ["m1.weights.h5", "m2.weights.h5"] if saves == 1 else []
    assert sorted(os.listdir(tmp_path)) == expected


def test_too_high_a_learning_rate_is_reported():
    vae = compiled(tiny_vae("normal"), optimizer=keras.optimizers.SGD(1e30))
    with pytest.raises(NonFiniteError, match=r"became (nan|inf) in step 2 .* Lower the learning"):
        vae.fit(X, batch_size=16, verbose=0)


def test_guard_knows_executions_lists_and_validation():
    vae = compiled(tiny_vae(), run_eagerly=False, steps_per_execution=3)
    vae.likelihood.head.bias.assign(np.full(6, np.nan))
    callbacks = keras.callbacks.CallbackList([keras.callbacks.Callback()], model=vae)
    with pytest.raises(NonFiniteError, match="in one of steps 1 to 3 of epoch 1"):
        vae.fit(X, batch_size=16, callbacks=callbacks, verbose=0)
    guard = NonFiniteGuard()
    guard.set_model(tiny_vae())
    guard.on_epoch_end(0, {"val_loss": 1.0})
    with pytest.raises(NonFiniteError, match="val_elbo is -inf after epoch 1"):
        guard.on_epoch_end(0, {"val_loss": 1.0, "val_elbo": -np.inf})


# --------------------------------------------------------------------------------- the import


def python(program):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )


def test_another_backend_of_keras_gives_one_sentence():
    # Every other backend of Keras imports jax or torch, which are not here: say that it is one.
    done = python(
        "import keras; keras.backend.backend = lambda: 'numpy'; import keras_vae; keras_vae.VAE"
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    expected = r"ImportError: keras_vae needs the TensorFlow backend .* 'numpy': set .*=tensorflow"
    assert re.match(expected, last)


STATE = """
import json, logging, os, random, sys, warnings
import numpy, keras, tensorflow, tensorflow_probability
tensorflow_probability.distributions
def state():
    return {
        "environment": dict(os.environ),
        "files": sorted(os.listdir(".")),
        "loggers": {n: getattr(l, "level", 0) for n, l in logging.root.manager.loggerDict.items()
                    if not n.startswith(("PIL", "matplotlib"))},
        "handlers": str(logging.root.handlers),
        "warnings": str(warnings.filters),
        "random": str(random.getstate()) + str(numpy.random.get_state()),
        "seed": str(tensorflow.random.get_global_generator().state.numpy().tolist()),
        "keras": keras.config.floatx() + keras.config.dtype_policy().name,
        "devices": str(tensorflow.config.get_visible_devices()),
        "threads": tensorflow.config.threading.get_inter_op_parallelism_threads(),
        "excepthook": str(sys.excepthook),
    }
before = state()
import keras_vae
keras_vae.VAE
after = state()
print(json.dumps([key for key in before if before[key] != after[key]]))
"""


def test_import_changes_nothing_else(tmp_path):
    done = python(f"import os; os.chdir({str(tmp_path)!r}){STATE}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1]) == []
    assert os.listdir(tmp_path) == []
