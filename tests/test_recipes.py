"""Recipes: each is a configuration, and trains on data of its shape."""

import dataclasses
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import keras_vae
from keras_vae import factories
from keras_vae.cli import main
from keras_vae.data import Vocabulary
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare
from keras_vae.factories import LIKELIHOODS
from keras_vae.runs.building import build
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.config_file import read_config
from keras_vae.runs.run import Run
from keras_vae.runs.train import learning_rate, train
from tests.models import tiny_vae

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))
DOCUMENT = RECIPES[0].parent.parent / "docs" / "recipes.md"


STARTING = {
    key
    for key, family in LIKELIHOODS.items()
    if family.raw_mean is not keras_vae.Likelihood.raw_mean
}
"""Likelihoods of which a parameter decides the mean; that of levels is not quite their centre."""


def raw(config: RunConfig) -> np.ndarray:
    """Makes twelve examples of the kind that a recipe is for."""
    random = np.random.default_rng(0)
    if config.likelihood == "bernoulli":
        return random.integers(0, 256, (12, 28, 28, 1)).astype(np.uint8)
    if config.likelihood == "poisson":
        return random.poisson(0.3, (12, 30))
    return random.normal(size=(12, 9))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_one_step(path: Path) -> None:
    config = read_config(path, needs_data=False)
    if config.is_text:
        examples = Vocabulary.of(["a cat", "a dog sees"], "words").one_hot(["a cat", "dog"] * 6)
        preparation, options = Preparation(), {}
    else:
        examples = raw(config)
        preparation, options = prepare(LIKELIHOODS[config.likelihood], examples)
    config = dataclasses.replace(
        config, likelihood_options={**options, **config.likelihood_options}
    )
    vae = build(config, examples.shape[1:])
    vae.run_eagerly = True
    vae.fit(preparation.array(examples), batch_size=12, verbose=0)
    assert int(vae.optimizer.iterations.numpy()) == 1
    assert np.isfinite(vae.history.history["loss"]).all()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_documented_with_its_command(path: Path) -> None:
    assert path.name in DOCUMENT.read_text()
    assert f"--config recipes/{path.name}" in path.read_text()


def test_the_schedule_of_the_iwae_paper() -> None:
    """Learning rate 1e-3 * 10^(-i/7) for 3^i passes, i = 0 .. 7: 3280 passes in all."""
    config = read_config(RECIPES[0].parent / "iwae-1.toml", needs_data=False)
    expected = [1e-3 * 10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert config.epochs == len(expected) == 3280
    rates = [learning_rate(config, epoch, config.epochs) for epoch in range(config.epochs)]
    # The factor is written with four digits and applied seven times.
    np.testing.assert_allclose(rates, expected, rtol=7 * 1e-4)


def test_the_learning_rate_falls_in_training_and_after_a_resume(tmp_path: Path) -> None:
    config = RunConfig(
        data="digits",
        likelihood="bernoulli",
        hidden=(8,),
        latent=2,
        epochs=2,
        batch_size=539,
        learning_rate_milestones=(1, 2),
        learning_rate_decay=0.5,
        adam_beta_1=0.8,
        adam_epsilon=1e-3,
    )
    train(config, tmp_path / "run")
    run = train(dataclasses.replace(config, epochs=3), tmp_path / "run", resume=True)
    rates = [row["learning_rate"] for row in run.history()]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4], rel=1e-6)  # float32
    optimizer = run.load().optimizer
    assert (optimizer.beta_1, optimizer.epsilon) == (0.8, 1e-3)
    assert run.config.learning_rate_milestones == (1, 2)


def test_a_cosine_ends_near_zero_and_takes_no_milestones(tmp_path: Path) -> None:
    config = RunConfig(
        data="digits",
        likelihood="bernoulli",
        hidden=(8,),
        latent=2,
        epochs=4,
        batch_size=1617,
        learning_rate=2e-3,
        learning_rate_schedule="cosine",
    )
    rates = [row["learning_rate"] for row in train(config, tmp_path / "run").history()]
    half_of_root = math.sqrt(0.5)
    exact = [2e-3, 1e-3 * (1 + half_of_root), 1e-3, 1e-3 * (1 - half_of_root)]
    assert rates == pytest.approx(exact, rel=1e-6)  # float32
    both = dataclasses.replace(config, learning_rate_milestones=(1,))
    assert "learning_rate_milestones" in both.idle()


@pytest.mark.parametrize("likelihood", sorted(STARTING - {"discretized_logistic"}))
def test_a_decoder_starts_at_the_mean_of_the_data(likelihood: str) -> None:
    options = {"total_count": 3} if likelihood in ("beta_binomial", "multinomial") else {}
    vae = tiny_vae(likelihood, **options)
    mean = np.linspace(0.1, 0.9, 6)  # its sum is 3
    factories.start_at_mean(vae, mean)
    vae.likelihood.head.kernel.assign(np.zeros(vae.likelihood.head.kernel.shape))
    # Float32 of a logit or a logarithm and back.
    np.testing.assert_allclose(vae.decode(np.ones((1, 2))).mean()[0], mean, rtol=1e-6)


def test_a_decoder_of_levels_is_centred_at_their_mean() -> None:
    vae = tiny_vae("discretized_logistic", levels=17)
    mean = np.linspace(0.5, 15.5, 6)
    factories.start_at_mean(vae, mean)
    vae.likelihood.head.kernel.assign(np.zeros(vae.likelihood.head.kernel.shape))
    loc = vae.likelihood.parameters(np.ones((1, 2), np.float32))["loc"]
    np.testing.assert_allclose(loc[0], mean, rtol=1e-6)  # float32, once there and back


def test_a_mean_that_cannot_be_a_start_is_reported() -> None:
    with pytest.raises(ValueError, match="Categorical is not one of its raw parameters"):
        factories.start_at_mean(tiny_vae("categorical"), np.full(6, 0.1))
    with pytest.raises(ValueError, match=r"Expected a mean of the shape \(6,\)"):
        factories.start_at_mean(tiny_vae(), np.full(5, 0.1))


def test_a_run_starts_at_the_mean_of_its_training_set(tmp_path: Path) -> None:
    """One step of a tiny learning rate moves no mean by more than it."""
    config = RunConfig(
        data="digits", likelihood="bernoulli", hidden=(8,), latent=2, epochs=1, batch_size=2000,
        learning_rate=1e-7, output_bias="data_mean",
    )  # fmt: skip
    run = train(config, tmp_path / "run")
    train_raw, _ = run.raw()
    bias = run.load().likelihood.head.bias.numpy().reshape(8, 8, 1)
    mean = np.clip(train_raw.mean(axis=0, dtype=float) / 16, 0.001, 0.999)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), mean, atol=1e-6)


@pytest.mark.parametrize(
    ("likelihood", "examples"),
    [
        ("bernoulli", np.array([0, 255, 51, 255], np.uint8).reshape(2, 2, 1, 1)),
        ("normal", np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)),
        ("normal", np.array([[1.0, 5.0], [3.0, 9.0]])),
        ("poisson", np.array([[0, 4], [2, 4]])),
    ],
)
def test_the_mean_of_a_preparation_is_that_of_its_arrays(
    likelihood: str, examples: np.ndarray
) -> None:
    preparation, _ = prepare(LIKELIHOODS[likelihood], examples)
    many = preparation.array(np.tile(examples, (2000, *[1] * (examples.ndim - 1))))
    means = many.reshape(2000, *examples.shape).mean(axis=1)
    error = means.std(axis=0) / math.sqrt(2000) + 1e-6
    assert (np.abs(means.mean(axis=0) - preparation.mean(examples)) <= 5 * error).all()


def test_gated_layers() -> None:
    """The layer is a * sigmoid(b) of the two halves of one affine map; it survives a file."""
    network = keras_vae.networks.mlp((3,), (4, 5), activation="glu")
    x = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")
    features = x
    for kernel, bias in zip(network.get_weights()[::2], network.get_weights()[1::2], strict=True):
        a, b = np.split(features @ kernel + bias, 2, axis=-1)
        features = a / (1 + np.exp(-b))
    np.testing.assert_allclose(network(x), features, rtol=1e-5, atol=1e-6)  # float32
    again = keras.Model.from_config(network.get_config())
    assert again.count_params() == network.count_params()
    with pytest.raises(ValueError, match="are for mlp"):
        factories.conv_vae((8, 8, 1), 2, activation="glu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate_milestones": (3, 2)}, "ascending epochs from 1 on; got 3, 2"),
        ({"learning_rate_milestones": (0, 2)}, "ascending epochs from 1 on"),
        ({"learning_rate_decay": 0.0}, r"learning_rate_decay in \(0, 1\]; got 0.0"),
        ({"adam_beta_1": 1.0}, r"adam_beta_1 in \[0, 1\)"),
        ({"adam_epsilon": 0.0}, "positive adam_epsilon"),
        ({"output_bias": "mean"}, "output_bias to be one of auto, zeros, data_mean; got 'mean'"),
        ({"output_bias": "data_mean", "network": "conv"}, "which network = 'conv' does not have"),
    ],
)
def test_a_bad_setting_is_reported(settings: dict, message: str) -> None:
    with pytest.raises(RunError, match=message):
        RunConfig(data="digits", **settings)


def test_the_command_line_says_them_too(tmp_path: Path) -> None:
    options = {
        "data": "digits",
        "likelihood": "bernoulli",
        "hidden": 8,
        "latent": 2,
        "epochs": 2,
        "batch-size": 1000,
        "learning-rate-milestones": 1,
        "learning-rate-decay": 0.5,
        "adam-beta-1": 0.8,
        "adam-epsilon": 1e-3,
        "output-bias": "data_mean",
        "out": tmp_path / "run",
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    result = CliRunner().invoke(main, ["train", *words])
    assert result.exit_code == 0, result.output
    config = Run(tmp_path / "run").config
    assert config.learning_rate_milestones == (1,)
    assert (config.learning_rate_decay, config.adam_beta_1, config.adam_epsilon) == (0.5, 0.8, 1e-3)
    assert config.output_bias == "data_mean"


def test_encoders_see_counts_by_their_logarithm() -> None:
    """So that a count of 10^5 and one of 10^4 are told apart where a tanh follows."""
    counts = np.array([[0.0, 3.0], [1e4, 7.0], [1e5, 2e5]], np.float32)
    for make in (keras_vae.mlp_vae, keras_vae.conv_vae):
        shape, sizes = ((2,), {}) if make is keras_vae.mlp_vae else ((2, 1, 1), {"filters": (4,)})
        x = counts.reshape(3, *shape)
        encoder = make(shape, 2, "poisson", **sizes).posterior.network
        plain = make(shape, 2, "normal", **sizes).posterior.network
        plain.set_weights(encoder.get_weights())
        # float32: log1p here and there
        np.testing.assert_allclose(encoder(x), plain(np.log1p(x)), rtol=1e-5, atol=1e-6)
    again = keras.Model.from_config(encoder.get_config())
    again.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(again(x), encoder(x))
