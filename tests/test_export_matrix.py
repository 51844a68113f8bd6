"""Every family at sizes people have through the whole pipeline; pairs of them, layers and dtypes in
this process."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from asked import ask
from manifests import seal
from models import labelled_vae, mixed_vae, tiny_vae
from registry import EXPORTED, PARTS

import keras_vae
from export import manifest, parity, pipeline
from export.model_card import model_card
from export.parity import live
from export.verify import read_manifest
from export.verify import verify as verify_files
from keras_vae.data.preparation import Preparation
from keras_vae.factories import LIKELIHOODS, POSTERIORS, PRIORS
from keras_vae.signatures import signatures


def obeys_tensorflow_serving(functions):
    """Checks what the graphs declare by the rules of batching and of the row format."""
    for function in functions.values():
        graph = function.get_concrete_function()
        inputs = {tensor.name: tensor for tensor in graph.structured_input_signature[0]}
        assert inputs, "REST cannot call a signature without inputs"
        for name, tensor in [*inputs.items(), *graph.structured_outputs.items()]:
            assert tensor.shape.rank >= 1, "a scalar is refused"
            assert tensor.shape[0] is None, "axis 0 is the batch, or it is sliced wrong"
            assert tensor.shape[1:].is_fully_defined()
            assert tensor.dtype in (tf.float32, tf.int32), "JSON has no half"
            assert not name.endswith("_bytes"), "REST takes it for base64"


def verify(vae, preparation=None, only=None):
    """Gates, conversion and parity of a model, as `export` does it, without files."""
    asked = ask(vae, preparation, only)
    obeys_tensorflow_serving(asked.functions)
    comparisons = parity.compare("onnxruntime", *asked.parity, asked.answers(), asked.about)
    parity.refuse_failed(comparisons)
    asked.tells_what_is_impossible()
    return comparisons


def test_every_family_goes_through_the_whole_pipeline():
    likelihoods, posteriors, priors = (set(names) for names in zip(*EXPORTED, strict=True))
    assert likelihoods | set(PARTS) == set(LIKELIHOODS)
    assert posteriors == set(POSTERIORS)
    assert priors == set(PRIORS)


SMALL = [names for names in EXPORTED if names[1] not in ("diagonal", "isotropic", "full")]


def case_of(names):
    likelihood, posterior, prior = names
    return EXPORTED[names](likelihood=likelihood, posterior=posterior, prior=prior)


def each(cases):
    return pytest.mark.parametrize("names", cases, ids=["-".join(names) for names in cases])


@each([names for names in EXPORTED if names not in SMALL])
def test_whole_pipeline(names, tmp_path):
    """What is published was compared in two runtimes, with draws and bounds that agree."""
    vae = case_of(names)
    directory = pipeline.export_model(vae, tmp_path / "model")
    found = read_manifest(directory)
    assert found["omitted"] == {}
    assert len(list((directory / "onnx").iterdir())) == len(found["signatures"]) == 5
    entries = json.loads((directory / "parity.json").read_text())
    assert all(entry["passed"] for entry in entries)
    assert {entry["runtime"] for entry in entries} == {"onnxruntime", "saved_model"}
    for entry in entries:
        if entry["output"] == "z":
            assert entry["max_scaled"] < 1e-6
        if entry["output"] == "sample" and vae.likelihood.support.is_whole:
            assert entry["different"] <= 1e-4 * entry["numbers"]
        if entry["output"] == "elbo":
            assert entry["mean_nats"] < 1e-6 * 64 * 64 * 3


@each(SMALL)
def test_other_posteriors_and_priors(names):
    """What `score` and `sample` ask of both is all that any signature asks of them."""
    compared = verify(case_of(names), only=("encode", "sample", "score"))
    (z,) = (each for each in compared if each.output == "z" and each.signature == "sample")
    assert z.max_scaled < 1e-6


OTHERS = {"coupling", "inverse_autoregressive", "flow", "autoregressive", "laplace", "student_t"}
OTHERS |= {"von_mises_fisher", "uniform_sphere"}
PAIRS = [pair for pair in itertools.product(POSTERIORS, PRIORS) if not OTHERS & set(pair)]
PAIRS = [pair for pair in PAIRS if pair[0] != "normal_mixture"]
PAIRS += [("coupling", "vamp"), ("full", "flow"), ("von_mises_fisher", "vamp")]
PAIRS += [("normal_mixture", "vamp")]
PAIRS = [pair for pair in PAIRS if pair not in {names[1:] for names in EXPORTED}]
"""Normal posteriors with mixtures of such; the pairs of others are exported whole, or here."""


@pytest.mark.parametrize(("posterior", "prior"), PAIRS)
def test_pairs(posterior, prior):
    """The rate of `score` is another expression for each posterior and prior.

    What `encode` returns is that of the posterior alone, and each is exported above.
    """
    components = {} if prior == "standard_normal" else {"num_components": 3}
    verify(tiny_vae(posterior=posterior, prior=prior, **components), only=("score",))


@pytest.mark.parametrize("scale", [0.3, "learned", "optimal"])
def test_scales_that_are_no_output_of_the_decoder(scale):
    verify(tiny_vae("normal", scale=scale), only=("decode",))


@pytest.mark.parametrize("scale", [0.3, "per_feature"])
def test_images_whose_mean_has_a_shape_that_only_the_model_knows(scale):
    """The mean of TensorFlow Probability's Laplace forgets the channels where scales broadcast."""
    verify(tiny_vae("laplace", (4, 4, 1), scale=scale), only=("decode",))


def test_conditional_model_with_a_vamp_prior_and_full_covariance():
    vae = tiny_vae("bernoulli", condition_shape=3, posterior="full", prior="vamp", num_components=2)
    verify(vae)


@pytest.mark.parametrize(
    ("likelihood", "options"),
    [
        ("multinomial", {}),
        ("negative_binomial", {"link": "softmax", "dispersion": "per_group", "num_groups": 2}),
    ],
)
def test_sizes_and_groups_of_rows_are_read_from_the_condition(likelihood, options):
    vae = tiny_vae(likelihood, condition_shape=3, offset=True, **options)
    assert manifest.metadata(vae, Preparation())["likelihood"]["options"]["offset"] is True
    verify(vae, only=("decode", "sample"))


@pytest.mark.parametrize(
    ("kind", "only"),
    [
        (keras_vae.ProductOfExperts, ("encode", "score")),
        (keras_vae.MixtureOfExperts, ("score",)),
        (keras_vae.MixtureOfProducts, ("encode", "score", "impute")),
    ],
)
def test_experts_of_named_parts(kind, only):
    networks = {"age": None, "image": None, "label": keras.layers.Dense(4, "tanh")}
    parts = mixed_vae()
    vae = keras_vae.VAE(prior=parts.prior, likelihood=parts.likelihood, posterior=kind(2, networks))
    verify(vae, only=only)


STRUCTURES = {
    "ladder": lambda: keras_vae.hierarchical_vae(6, (2, 3), hidden=(5,)),
    "bottom up": lambda: keras_vae.hierarchical_vae(
        6, (2, 3), structure="bottom_up", hidden=(5,), hidden_above=(4,)
    ),
    "residual, convolutions": lambda: keras_vae.hierarchical_vae(
        (8, 8, 1), (2, 1), structure="residual", network="conv", hidden=(4, 5)
    ),
    "series of level, trend and seasons": lambda: keras_vae.sequence_vae(
        (6, 2), 2, network="convolution", width=4, depth=1, seasons=(3,), scale="learned"
    ),
    "codes, autoregressive": lambda: keras_vae.vq_vae(
        6, "bernoulli", codes=4, code_size=3, count=2, hidden=(5,), prior="autoregressive"
    ),
}


@pytest.mark.parametrize("make", STRUCTURES.values(), ids=STRUCTURES)
def test_levels_series_and_codes(make):
    verify(make())


def test_batch_normalization_dropout_and_other_layers():
    """Statistics are those of the training; nothing is dropped."""

    def network():
        return keras.Sequential(
            [
                keras.layers.Flatten(),
                keras.layers.Dense(8, "gelu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(8, "silu"),
                keras.layers.LayerNormalization(),
                keras.layers.PReLU(),
            ]
        )

    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli((3, 2), network=network()),
        posterior=keras_vae.DiagonalNormal(2, network=network()),
    )
    for layer in vae._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(tf.random.stateless_normal(layer.moving_mean.shape, [1, 2]))
    verify(vae, only=("decode", "encode", "reconstruct"))


def encoder(*layers):
    """Makes a model of series [6, 4] of whole numbers whose encoder has the layers."""
    return keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Bernoulli((6, 4)),
        posterior=keras_vae.DiagonalNormal(2, network=keras.Sequential(layers)),
    )


class SelfAttention(keras.layers.Layer):
    """Attention of a sequence to itself."""

    def build(self, shape):
        self.attention = keras.layers.MultiHeadAttention(2, 3)
        self.attention.build(shape, shape)

    def call(self, x):
        return self.attention(x, x)


def normalization():
    layer = keras.layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, size=(50, 6, 4)))
    return layer


L = keras.layers
LAYERS = {
    "LSTM": lambda: [L.LSTM(5)],
    "bidirectional GRU": lambda: [L.Bidirectional(L.GRU(3, return_sequences=True)), L.Flatten()],
    "attention": lambda: [SelfAttention(), L.Flatten()],
    "adapted normalization": lambda: [normalization(), L.Flatten()],
    "given normalization": lambda: [L.Normalization(mean=1.0, variance=4.0), L.Flatten()],
    "grouped convolution": lambda: [L.Conv1D(6, 3, groups=2), L.Flatten()],
    "categories": lambda: [L.Flatten(), L.CategoryEncoding(2, output_mode="count")],
}


@pytest.mark.parametrize("layers", list(LAYERS.values()), ids=list(LAYERS))
def test_layers_whose_ops_keep_lists_constants_or_requests(layers):
    verify(encoder(*layers()), only=("encode",))


@pytest.mark.parametrize(
    ("likelihood", "shape", "preparation"),
    [
        ("bernoulli", 6, Preparation("binarize", 255.0)),
        ("normal", (2, 2, 1), Preparation("dequantize", levels=256)),
        (
            "laplace",
            3,
            Preparation(center=(1.0, 100.0, -3.0), spread=(0.1, 50.0, 1.0)),
        ),
        (
            "laplace",
            3,
            Preparation(
                center=(40.5, 1e5, -3.0),
                spread=(20.0, 3e4, 1.0),
                whole=(True, True, False),
                constant=(False, False, True),
            ),
        ),
        ("categorical", (4, 3), Preparation(categories=3)),
        ("continuous_bernoulli", 6, Preparation(divide=255.0)),
    ],
    ids=["binarize", "dequantize", "standardise", "whole", "categories", "divide"],
)
def test_preparation_inside(likelihood, shape, preparation):
    scale = {"scale": 0.5} if likelihood in ("normal", "laplace") else {}
    only = ("reconstruct", "score", *(["sample"] if preparation.center else []))
    verify(tiny_vae(likelihood, shape, **scale), preparation, only)


def test_adversarial_rows_stay_in_the_support():
    for likelihood, shape in (("poisson", 5), ("categorical", (2, 3)), ("bernoulli", 5)):
        vae = tiny_vae(likelihood, shape)
        about = manifest.metadata(vae, Preparation())
        draw = live.draws(signatures(vae)["sample"].function, about)
        shapes = {"encode": ({"x": ("float32", list(vae.event_shape))}, ("loc",))}
        cases = live.make_cases(shapes, about, draw)
        for case in cases:
            vae.likelihood.support.check(case.inputs["x"], likelihood)
        (hostile,) = (case for case in cases if case.kind == "adversarial")
        assert len(np.unique(hostile.inputs["x"])) > 1


def test_named_parts_with_absent_entries(tmp_path):
    """A number, an image, a label as a code and a count; a third of the data is absent."""
    preparation = {
        "age": Preparation(center=(40.5,), spread=(20.0,), whole=(True,)),
        "image": Preparation("binarize", 255.0),
        "the label": Preparation(categories=3),
    }
    vae = mixed_vae(label="the label")
    directory = pipeline.export_model(vae, tmp_path / "mixed", preparation=preparation)
    found = read_manifest(directory)
    assert found["omitted"] == {}
    assert "data" not in found
    assert list(found["observations"]) == ["age", "image", "the label", "visits"]
    assert found["observations"]["the label"]["tensors"]["x"] == "x_the_label"
    score = found["signatures"]["score"]
    assert score["inputs"]["x_the_label"]["shape"] == ["batch", 1]
    assert "distortion_the_label" in score["outputs"]
    assert found["imputation"] == {"num_samples": 64}
    imputed = found["signatures"]["impute"]["outputs"]
    assert {"value_the_label", "mean_the_label", "sample_age", "ess"} <= set(imputed)
    assert "value_image" not in imputed
    assert list(found["signatures"]["classify"]["outputs"]) == [
        "probabilities_the_label",
        "ess_the_label",
    ]
    entries = json.loads((directory / "parity.json").read_text())
    assert all(entry["passed"] for entry in entries)
    verify_files(directory)
    card = (directory / "MODEL_CARD.md").read_text()
    assert "| the label | `x_the_label` | (1,) | Categorical | from 0 to 2 | yes |" in card


def test_a_label_that_is_a_latent_and_a_part(tmp_path):
    """Labels are codes; `classify` is the classifier, `score` sums an absent label out."""
    vae = labelled_vae()
    preparation = {
        "age": Preparation(center=(40.5,), spread=(20.0,)),
        "label": Preparation(categories=3),
    }
    verify(vae, preparation, only=("decode", "score", "classify", "sample_given"))
    table, about = signatures(vae, preparation), manifest.metadata(vae, preparation)
    tensor = {"seed": {"dtype": "int32", "shape": ["batch", 2]}}
    entry = {"description": "it", "inputs": tensor, "outputs": tensor, "onnx": None}
    omitted = dict.fromkeys(table, "not asked here")
    (tmp_path / "file").write_text("an artifact has files")
    seal(tmp_path, dict.fromkeys(table, entry), **{**about, "omitted": omitted})  # checks a schema
    assert (about["structure"], about["latent_size"]) == ("SemiSupervisedVAE", 5)
    assert [one["tensor"] for one in about["latents"].values()] == ["z_label", "z_z"]
    assert about["latents"]["label"]["posterior"]["family"] == "Classifier"
    assert list(table["classify"].inputs) == ["x_age", "x_visits"]
    assert list(table["sample_given"].inputs) == ["x_label", "seed"]
    seed = tf.constant([[7, row] for row in range(3)])
    label = tf.constant([[2.0], [0.0], [np.nan]])
    drawn = table["sample_given"].function(x_label=label, seed=seed)
    assert drawn["sample_label"].numpy()[:2].tolist() == [[2.0], [0.0]]
    one_hot = np.array([[0, 0, 1], [1, 0, 0], [np.nan] * 3], np.float32)
    live = vae.sample(3, seed=7, label=one_hot)
    age = np.asarray(live["age"]) * 20 + 40.5
    np.testing.assert_allclose(drawn["sample_age"], age, rtol=1e-5)  # one rounding of float32
    x = {"age": (np.asarray(drawn["sample_age"]) - 40.5) / 20, "visits": drawn["sample_visits"]}
    asked = {"x_age": drawn["sample_age"], "x_visits": drawn["sample_visits"]}
    np.testing.assert_allclose(
        table["classify"].function(**asked)["probabilities_label"],
        vae.classify(x).probabilities,
        atol=1e-5,  # probabilities, of sums of a few float32
    )
    score = table["score"].function(**asked, x_label=label, seed=seed)
    bound = vae.elbo({**x, "label": one_hot}, seed=7)
    np.testing.assert_allclose(score["elbo"], bound.elbo - np.log(20), atol=1e-4)
    parts = [score[f"distortion_{name}"] for name in ("age", "visits", "label")]
    np.testing.assert_allclose(sum(parts), score["distortion"], atol=1e-5)
    entries = {"name": "few", "training": {}, "variants": {}, "omitted": {}, **about}
    card = model_card(entries)
    assert "A SemiSupervisedVAE of 3 named parts with the latents label `z_label` (3,)" in card


def test_values_missing_not_at_random():
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Normal(3, missing=True),
        posterior=keras_vae.DiagonalNormal(2, network=keras_vae.PartsEncoder()),
    )
    verify(keras_vae.MissingNotAtRandom(vae), only=("decode", "score"))


@pytest.mark.parametrize("third", range(3))
def test_every_other_family_as_a_part_that_may_be_absent(third):
    """Scores of each part are outputs of their own, so a few models hold all families.

    Their draws are converted one by one in test_random.py.
    """
    parts = {name: make(missing=True) for name, make in list(PARTS.items())[third::3]}
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=keras_vae.Parts(parts, network=keras.layers.Dense(4, "tanh")),
        posterior=keras_vae.DiagonalNormal(2, network=keras_vae.PartsEncoder()),
    )
    compared = {each.output for each in verify(vae, only=("score",))}
    assert compared >= {f"distortion_{name}" for name in parts}
