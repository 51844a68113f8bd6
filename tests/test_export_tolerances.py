"""What rounding explains passes in every comparison, and what it does not is refused."""

import contextlib
import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from asked import ask
from models import tiny_vae

import keras_vae
from export import manifest, parity, pipeline
from export.cases import Case
from export.errors import ExportError
from export.parity import live, tolerances
from export.parity.pairs import Pair
from keras_vae import integrity, random
from keras_vae.data.preparation import Preparation


@pytest.fixture(scope="module")
def wide():
    """Makes the dense model of 784 pixels that `keras-vae train` makes by default."""
    keras.utils.set_random_seed(1)
    return keras_vae.mlp_vae((28, 28, 1), 16)


@pytest.fixture(scope="module")
def asked(wide):
    return ask(wide, only=("decode", "encode", "sample"))


def refusal(asked, answers):
    """Returns the message with which answers are refused, or None."""
    try:
        comparisons = parity.compare("a runtime", *asked.parity, answers, asked.about)
        parity.refuse_failed(comparisons)
    except ExportError as error:
        return str(error)
    return None


# The rule itself


@pytest.mark.parametrize("terms", [10, 784, 4000])
@pytest.mark.parametrize("width", [1, 257])
def test_sums_in_any_order_stay_within_the_changed_weights(terms, width):
    """A product of float32 added term by term, the worst order, is no further off than s allows."""
    rng = np.random.default_rng(terms)
    x = rng.normal(size=(width, terms)).astype("float32")
    kernel = tf.Variable((rng.normal(size=(terms, 50)) / np.sqrt(terms)).astype("float32"))
    want = x @ kernel.numpy()
    with tolerances.changed_weights([kernel]):
        changed = x @ kernel.numpy()
    one_by_one = np.cumsum(x[:, :, np.newaxis] * kernel.numpy(), axis=1, dtype="float32")[:, -1]
    sensitivity = float((np.abs(changed - want) / np.maximum(1.0, np.abs(want))).max())
    allowed = tolerances.allowed(want, 1.0, 1, sensitivity)
    assert (np.abs(one_by_one - want) <= allowed).all()
    exact = x.astype("float64") @ kernel.numpy().astype("float64")
    assert (np.abs(want - exact) <= allowed).all()
    assert sensitivity < 100 * tolerances.ROUNDOFF * np.sqrt(terms)


def test_weights_are_put_back_whatever_happens():
    floats, integers = tf.Variable([[1.5, -2.0]]), tf.Variable([3])
    with contextlib.suppress(KeyError), tolerances.changed_weights([floats, integers]):
        assert 0 < np.abs(floats.numpy() - [[1.5, -2.0]]).max() < 1e-6
        np.testing.assert_array_equal(integers, [3])
        raise KeyError
    np.testing.assert_array_equal(floats, [[1.5, -2.0]])


def test_differing_draws_grow_with_their_number_and_their_spread():
    assert tolerances.allowed_draws(100, 1.0) <= 1
    assert tolerances.allowed_draws(2770, 1.0) <= 2
    assert tolerances.allowed_draws(200_000, 1.0) <= 8
    # Poisson draws of rate e^11 have 1 500 thresholds: 9 of 2 770 differed.
    assert 9 < tolerances.allowed_draws(2770, np.exp(5.5)) < 100
    assert 50 < tolerances.allowed_draws(1000, 1.0, 0.05) < 100


def test_a_sum_of_two_million_nats_is_held_relative_to_its_size():
    """4.25 nats of an ELBO of -2.17e6 with 34 terms are rounding; 4.25 nats of -100 are not."""
    assert tolerances.allowed(np.array(-2.17e6), 34.0, 34) > 4.25
    assert tolerances.allowed(np.array(-100.0), 34.0, 34) < 1e-3


# Right answers pass


def test_onnx_runtime_and_rows_alone_pass_with_room(asked):
    """The largest difference is below a fifth of what is allowed, so other machines pass too."""
    answers = asked.answers()
    assert refusal(asked, answers) is None
    assert refusal(asked, asked.expected) is None
    for case, want, got in zip(asked.cases, asked.expected, answers, strict=True):
        for name in case.outputs:
            if case.size and name != "sample":
                pair = Pair(case, name, want, got[name], asked.about)
                assert pair.excess.max() < 0.2


def test_batches_of_no_rows_are_reported_and_refuse_nothing(asked):
    answers = [
        "no empty batch" if case.signature == "decode" and not case.size else want
        for case, want in zip(asked.cases, asked.expected, strict=True)
    ]
    entries = parity.compare("a runtime", *asked.parity, answers, asked.about)
    taken = {entry.signature: entry.takes_empty_batch for entry in entries}
    assert taken == {"decode": False, "encode": True, "sample": True}


def test_large_examples_come_in_smaller_batches():
    def batches(*shape):
        shapes = {"decode": ({"z": ("float32", [2])}, ("mean",))}
        about = manifest.metadata(tiny_vae("bernoulli", 2), Preparation())
        about["data"]["shape"] = shape
        cases = live.make_cases(shapes, about, lambda _: {})
        return [case.size for case in cases]

    assert batches(784) == [0, 1, 2, 7, 257, 1, 1, 1, 7]
    assert batches(32, 32, 3) == [0, 1, 2, 7, 65, 1, 1, 1, 7]
    assert batches(64, 64, 3) == batches(512, 512, 3) == [0, 1, 2, 7, 17, 1, 1, 1, 7]


# Faults are refused


def changed(asked, change):
    """Changes the expected answers by `change(case, answer)`."""
    answers = [dict(answer) for answer in asked.expected]
    for case, answer in zip(asked.cases, answers, strict=True):
        change(case, answer)
    return answers


def with_weights(asked, weight, value):
    """Computes the answers of the model with another value of a weight."""
    kept = weight.numpy()
    weight.assign(value)
    try:
        return live.reference(asked.functions, asked.cases)
    finally:
        weight.assign(kept)


@pytest.mark.parametrize("layer", ["posterior", "likelihood"])
def test_one_wrong_weight_is_refused(asked, wide, layer):
    """A thousandth of the scale of a kernel, in one of its 784 x 200 or 200 x 200 entries."""
    kernel = getattr(wide, layer).network.layers[-1].kernel
    wrong = kernel.numpy()
    wrong[3, 5] += 1e-3
    message = refusal(asked, with_weights(asked, kernel, wrong))
    assert "disagrees with the model" in message


def test_half_precision_weights_are_refused(asked, wide):
    kernel = wide.posterior.network.layers[-1].kernel
    half = kernel.numpy().astype("float16").astype("float32")
    assert "encode, loc differs" in refusal(asked, with_weights(asked, kernel, half))


def test_a_message_names_signature_case_row_values_and_remedy(asked):
    def change(case, answer):
        if case.signature == "encode" and case.kind == "adversarial":
            answer["loc"] = answer["loc"].copy()
            answer["loc"][3, 7] += 0.5

    message = refusal(asked, changed(asked, change))
    (index,) = (
        i
        for i, case in enumerate(asked.cases)
        if case.signature == "encode" and case.kind == "adversarial"
    )
    value = asked.expected[index]["loc"][3, 7]
    assert message.startswith(
        "a runtime disagrees with the model: encode, loc differs in 1 of 4432 numbers; row 3 of "
        f"the adversarial batch of 7: loc[7] is {np.float32(value + np.float32(0.5)):.9g} instead "
        f"of {value:.9g}, allowed is "
    )
    assert message.endswith("to find it, and replace it.")


def mixed(function):
    """Runs a model whose encoder is changed by a function of a batch."""

    class Mixing(keras.layers.Layer):
        def call(self, x):
            return function(x)

    network = keras.Sequential([keras.layers.Dense(8), Mixing()])
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6),
        posterior=keras_vae.DiagonalNormal(2, network=network),
    )
    return ask(vae, only=("encode",))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - tf.reduce_mean(x, axis=0),
        lambda x: x + 1e-3 * tf.reduce_mean(x, axis=0),
        lambda x: x + 0.01 * tf.roll(x, 1, axis=0),
        lambda x: x / tf.reduce_max(tf.abs(x)),
    ],
    ids=["centred", "a thousandth of the mean", "neighbour", "scaled by the batch"],
)
def test_rows_that_depend_on_their_neighbours_are_refused(function):
    asked = mixed(function)
    message = refusal(asked, asked.expected)
    assert "a runtime, encode: row 0 alone differs from row 0 among 257 rows; loc[" in message
    assert "A layer mixes the rows of a batch" in message


def test_draws_from_other_seeds_are_refused():
    """Of whole numbers too, whose draws may differ near thresholds."""
    for likelihood, options in (("poisson", {}), ("binomial", {"total_count": 9})):
        asked = ask(tiny_vae(likelihood, **options), only=("sample",))

        def shifted(case, answer):
            answer["sample"] = np.roll(answer["sample"], 1, axis=1)

        assert "sample, sample differs" in refusal(asked, changed(asked, shifted))


def test_model_that_amplifies_rounding_is_refused():
    """The difference of two products that are equal but for rounding, a million times."""

    class Amplify(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 8), initializer="glorot_uniform")
            self.copy = self.add_weight(shape=(shape[-1], 8))
            self.copy.assign(self.kernel)

        def call(self, x):
            return 1e6 * (x @ self.kernel - x @ self.copy)

    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli(6),
        posterior=keras_vae.DiagonalNormal(2, network=Amplify()),
    )
    with pytest.raises(ExportError, match="encode: rounding of the weights in float32 alone cha"):
        ask(vae, only=("encode",))


# Bernoulli draws


def bernoulli(change):
    """Compares a sample of Bernoulli draws that was changed before."""
    seeds = random.row_seeds(1, 40)
    mean = np.full([40, 5], 0.5, np.float32)
    u = random.uniform(seeds, (5,), stream=random.OBSERVATION).numpy()
    mean[0, 0] = u[0, 0] + 2e-7
    want = {"sample": (u < mean).astype(np.float32), "mean": mean}
    got = {name: value.copy() for name, value in want.items()}
    change(got)
    case = Case("sample", {"seed": seeds.numpy()}, ("sample", "mean"))
    about = manifest.metadata(tiny_vae("bernoulli", 5), Preparation())
    return parity.compare("node", [case], [want], [got], about)


EARLIER = {
    "bernoulli": {},
    "continuous_bernoulli": {"prior": "vamp", "num_components": 1},
    "normal": {"prior": "normal_mixture", "num_components": 1},
    "laplace": {},
    "discretized_logistic": {},
    "binomial": {"total_count": 3},
    "categorical": {"event_shape": (2, 3)},
    "poisson": {},
}
"""Families whose artifacts may be of versions that wrote down no more than the name."""


@pytest.mark.parametrize("key", EARLIER)
def test_what_a_manifest_says_of_a_family_is_what_its_name_said_before(key):
    options = {"event_shape": 5, **EARLIER[key]}
    vae = keras_vae.mlp_vae(latent_size=2, likelihood=key, hidden=(2,), **options)
    for preparation in (Preparation(), Preparation("binarize", 9.0)):
        about = manifest.metadata(vae, preparation)
        earlier = copy.deepcopy(about)
        del earlier["observations"]
        for part, name in (("data", "whole"), ("likelihood", "threshold"), ("prior", "standard")):
            del earlier[part][name]
        assert integrity.is_standard(earlier) == integrity.is_standard(about)
        (now,), (before,) = (
            integrity.observations(entries).values() for entries in (about, earlier)
        )
        assert before == now


def flip(row, column):
    def change(got):
        got["sample"][row, column] = 1.0 - got["sample"][row, column]

    return change


def test_bernoulli_draws_may_differ_at_their_threshold_alone():
    parity.refuse_failed(bernoulli(flip(0, 0)))
    with pytest.raises(ExportError, match="node disagrees with the model: sample, sample"):
        parity.refuse_failed(bernoulli(flip(0, 1)))


def test_parity_refuses_other_numbers_shapes_and_nan():
    def nudge(got):
        got["mean"] += 3e-5

    def nan(got):
        got["mean"][3] = np.nan

    for change in (nudge, nan):
        with pytest.raises(ExportError, match="sample, mean differs in"):
            parity.refuse_failed(bernoulli(change))
    with pytest.raises(ExportError, match=r"mean has shape \(40, 4\); expected \(40, 5\)"):
        bernoulli(lambda got: got.update(mean=got["mean"][:, :4]))
    with pytest.raises(ExportError, match="mean has shape nothing"):
        bernoulli(lambda got: got.pop("mean"))


# TF32


def test_gpus_multiply_in_float32_while_the_live_model_is_asked(monkeypatch, tmp_path):
    """TensorFlow's default on a GPU keeps 10 bits of each factor, an error of 1e-3."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    was_enabled, seen = enabled(), []

    def observe(function):
        def observed(*arguments):
            seen.append(enabled())
            return function(*arguments)

        return observed

    def stop(*_):
        raise ExportError("stopped")

    for name in ("reference", "measured"):
        monkeypatch.setattr(live, name, observe(getattr(live, name)))
    monkeypatch.setattr(pipeline.saved_model, "write", stop)
    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        with pytest.raises(ExportError, match="stopped"):
            pipeline.export_model(tiny_vae(), tmp_path / "a")
        assert seen == [False, False]
        assert enabled()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(was_enabled)
