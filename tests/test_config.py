"""Configurations: every setting is checked, does something, and is an option of the command."""

import dataclasses
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from keras_vae import factories
from keras_vae.cli import main
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare
from keras_vae.distributions import names
from keras_vae.runs.building import build
from keras_vae.runs.config import RunConfig, RunError, override, settings
from keras_vae.runs.config_file import read_config

RECIPES = Path(__file__).parent.parent / "recipes"


def read(tmp_path: Path, text: str) -> RunConfig:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return read_config(path, needs_data=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('epochs = "many"', "Expected epochs to be a whole number or 'auto'; got 'many'"),
        ("epochs = 1.5", r"Expected epochs to be a whole number or 'auto'; got 1\.5"),
        ("epochs = true", "Expected epochs to be a whole number or 'auto'; got True"),
        ("latent = 0", "Expected latent of at least 1; got 0"),
        ("hidden = [200, 0]", "Expected hidden of at least 1; got 0"),
        ('hidden = "200"', "Expected hidden to be a list of whole numbers; got '200'"),
        ("hidden = [1.5]", r"Expected hidden to be a list of whole numbers; got \[1\.5\]"),
        ("beta = nan", "Expected beta to be a finite number; got nan"),
        ("beta = -1", r"Expected beta of at least 0; got -1\.0"),
        ("test_fraction = 1", r"Expected test_fraction in \(0, 1\); got 1\.0"),
        ("monitor = 1", "Expected monitor to be true or false; got 1"),
        ("data = 3", "Expected data to be text; got 3"),
        (
            'likelihood = "gaussian"',
            "likelihood to be one of auto, table, text, bernoulli, .*; got 'gaussian'",
        ),
        ("likelihood_options = 3", "Expected likelihood_options to be a table; got 3"),
        ("seed = -1", r"Expected seed in \[0, 2147483647\]; got -1"),
        ("image_size = [64]", "image_size to be height and width; got 1 number"),
        ("latnt = 3", r"unknown settings: latnt \(did you mean latent\?\)\. Known ones"),
        (
            "likelihood = 'normal'\n[likelihood_options]\nscael = 1",
            r"The likelihood normal takes the option scale; got scael \(did you mean scale\?\)",
        ),
        (
            "likelihood = 'bernoulli'\n[likelihood_options]\nscale = 1",
            r"The likelihood bernoulli takes no options; got scale\.",
        ),
        (
            "[likelihood_options]\nscael = 1",
            "The likelihood auto takes the options levels, scale, ",
        ),
        ("top = 255\n[likelihood_options]\nlevels = 3", "top and levels mean the same"),
        ("[preparation]\nshift = 1", r"\[preparation\] differs from what the training wrote"),
    ],
)
def test_a_bad_value_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=message):
        read(tmp_path, text)


def test_one_width_is_one_layer_and_whole_numbers_are_numbers(tmp_path: Path) -> None:
    config = read(tmp_path, "hidden = 200\nbeta = 2\ndrop = 'id'")
    assert (config.hidden, config.beta, config.drop) == ((200,), 2.0, ("id",))


@pytest.mark.parametrize(
    ("given", "widths"),
    [
        ({}, (200, 200)),
        ({"network": "conv"}, (32, 64)),
        ({"network": "conv", "hidden": (4,)}, (4,)),
        ({"network": "conv", "latents": "ladder"}, ()),
    ],
)
def test_layers_have_the_widths_given_or_those_of_their_kind(
    given: dict[str, object], widths: tuple[int, ...]
) -> None:
    config = override(RunConfig(), given)
    assert config.widths == config.effective()["hidden"] == widths


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    config = RunConfig(
        data="t.csv",
        likelihood="normal",
        likelihood_options={"scale": 0.5},
        features=("age", "größe"),
        preparation=Preparation(center=(1.0, 2.5), spread=(1.0, 0.5), whole=(True, False)),
    )
    assert read(tmp_path, config.to_toml()) == config


def test_a_range_is_kept_beside_the_levels_that_came_of_it(tmp_path: Path) -> None:
    options = {"levels": 256}
    config = RunConfig(
        data="d",
        likelihood="discretized_logistic",
        top=255,
        likelihood_options=options,
        preparation=Preparation(),
    )
    assert read(tmp_path, config.to_toml()) == config


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It has neither the newer settings nor the newer entries of the preparation."""
    text = "data = 'd'\nlikelihood = 'normal'\nobjective = 'iwae'\nbeta = 2.0\n[preparation]\n"
    config = read(tmp_path, text + "step = 'none'\ncenter = [0.1]\nspread = [0.3]\nsentence = 's'")
    assert config.preparation == Preparation(center=(0.1,), spread=(0.3,), sentence="s")
    assert config.features == ()


OTHERWISE = {
    "test_data": "t.npy",
    "likelihood": "poisson",
    "prior": "standard_normal",
    "posterior": "full",
    "objective": "iwae",
    "learning_rate_schedule": "cosine",
    "learning_rate_milestones": (),
    "network": "mlp",
    "autoregressive": False,
    "window": 0,
}
"""For each setting that others depend on, a value with which those do nothing."""

OTHERWISE_LATENTS = ("vector", "codes", "ladder")

OTHER_VALUES = {
    "kl": "analytic",
    "schema": "schema.toml",
    "missing": True,
    "posterior": "full",
    "posterior_hidden": (3,),
    "posterior_transform": "spline",
    "prior": "vamp",
    "prior_hidden": (3,),
    "prior_transform": "spline",
    "code_prior": "autoregressive",
    "learning_rate_milestones": (3,),
    "level_sizes": (2, 3),
    "hidden_above": (3,),
    "monitor": True,
    "text_column": "words",
    "tokens": "words",
    "vocabulary_size": 50,
    "longest": 9,
    "id_column": "patient",
    "time_column": "day",
    "window": 24,
    "stride": 4,
    "autoregressive": True,
    "seasons": (12,),
}
"""Values other than the default, of settings that are no numbers."""


@pytest.mark.parametrize(
    "name", [name for name, setting in settings().items() if setting.only is not None]
)
def test_a_setting_that_does_nothing_is_refused(name: str) -> None:
    other, allowed = settings()[name].only
    otherwise = next(
        (word for word in OTHERWISE_LATENTS if other == "latents" and word not in allowed),
        OTHERWISE.get(other),
    )
    default = getattr(RunConfig(), name)
    value = OTHER_VALUES.get(name) or (default / 2 + 0.25 if default < 1 else default * 2)
    config = RunConfig(**{name: value, other: otherwise})
    with pytest.raises(RunError, match=f"^{name} does nothing with(out)? {other}"):
        config.refuse_idle()
    plain = RunConfig(**{other: otherwise})
    plain.refuse_idle()
    with pytest.raises(RunError, match=f"^{name} does nothing"):
        plain.refuse_idle(given=[name])


def test_sizes_of_levels_make_the_number_of_latents_idle() -> None:
    sized = RunConfig(latents="ladder", level_sizes=(2, 3), latent=7)
    with pytest.raises(RunError, match=r"^latent does nothing with level_sizes: leave it out"):
        sized.refuse_idle()
    assert "latent" not in dataclasses.replace(sized, latent=16).effective()
    halved = RunConfig(latents="ladder", latent=7)
    halved.refuse_idle()
    assert halved.effective()["latent"] == 7
    assert (sized.num_latents, halved.num_latents, RunConfig(latent=7).num_latents) == (5, 10, 7)


def test_what_a_command_makes_idle_in_a_recipe_goes_back_to_its_default() -> None:
    vamp = read_config(RECIPES / "vamp-prior.toml", needs_data=False)
    assert vamp.components == 500
    assert override(vamp, {"prior": "standard_normal"}).components == RunConfig().components
    assert override(vamp, {"components": 7}).components == 7
    iwae = read_config(RECIPES / "iwae-1.toml", needs_data=False)
    falling = override(iwae, {"learning_rate_schedule": "cosine"})
    assert (falling.learning_rate_milestones, falling.learning_rate_decay) == ((), 0.1)
    levels = override(iwae, {"latents": "bottom_up", "level_sizes": (50, 100)})
    assert (levels.latent, levels.levels) == (RunConfig().latent, (50, 100))
    sigma = read_config(RECIPES / "sigma-vae.toml", needs_data=False)
    changed = override(sigma, {"likelihood": "poisson", "objective": "iwae"})
    assert changed.likelihood_options == {}
    assert changed.warmup_epochs == 0.0


def test_sizes_of_flows_and_mixtures_reach_the_model() -> None:
    config = RunConfig(
        likelihood="bernoulli",
        latent=2,
        hidden=(4,),
        posterior="coupling",
        posterior_layers=2,
        posterior_hidden=(3, 5),
        prior="autoregressive",
        prior_layers=1,
        prior_transform="spline",
    )
    config.refuse_idle()
    vae = build(config, (6,))
    assert (vae.posterior.steps.num_layers, tuple(vae.posterior.steps.hidden)) == (2, (3, 5))
    assert (vae.prior.steps.num_layers, vae.prior.steps.transform) == (1, "spline")
    mixture = RunConfig(posterior="normal_mixture", posterior_components=3, prior="vamp")
    assert mixture.options_of("posterior") == {"num_components": 3}
    assert mixture.options_of("prior") == {}
    with pytest.raises(ValueError, match="'diagonal' takes no options"):
        factories.mlp_vae(3, 2, posterior_options={"num_layers": 2})


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_no_recipe_has_idle_settings(path: Path) -> None:
    read_config(path, needs_data=False).refuse_idle()


@pytest.mark.parametrize("table", ["LIKELIHOODS", "POSTERIORS", "PRIORS"])
def test_what_is_known_before_tensorflow_is_what_the_classes_say(table: str) -> None:
    known, classes = getattr(names, table), getattr(factories, table)
    assert list(known) == list(classes)
    for key, family in known.items():
        found = set(inspect.signature(classes[key]).parameters)
        base = set(inspect.signature(next(iter(classes.values()))).parameters)
        conditional = set(getattr(classes[key], "of_condition", ()))
        assert tuple(family.options) == tuple(sorted(found - base - conditional)), key
    if table != "LIKELIHOODS":
        assert settings()[table[:-1].lower()].choices == tuple(known)
        return
    for key, likelihood in classes.items():
        assert likelihood.key() == key
        assert likelihood.options() == tuple(known[key].options)


def test_docstrings_list_every_setting_in_order():
    groups = [group for group in reversed(RunConfig.__mro__) if dataclasses.is_dataclass(group)]
    texts = [(inspect.getdoc(group) or "").split("\nRaises:")[0] for group in groups]
    described = re.findall(r"^    (\w+): ", "\n".join(texts), re.M)
    assert described == [entry.name for entry in dataclasses.fields(RunConfig)]


@pytest.mark.parametrize("key", names.LIKELIHOODS)
def test_a_largest_value_does_something_where_it_is_said_to(key: str) -> None:
    raw = np.arange(1.0, 9.0).reshape(2, 2, 2, 1)
    if key == "categorical":
        raw = raw[..., 0]
    if key == "beta":
        raw = raw / 9.0
    if key == "multinomial":
        raw = np.concatenate([raw, 9.0 - raw], axis=-1)
    plain, declared = (prepare(factories.LIKELIHOODS[key], raw, top=top) for top in (None, 9.0))
    assert (plain != declared) == names.LIKELIHOODS[key].takes_top


def test_the_command_has_an_option_for_every_setting() -> None:
    shown = CliRunner().invoke(main, ["train", "--help"]).output
    for entry in dataclasses.fields(RunConfig):
        is_shown = f"--{entry.name.replace('_', '-')}" in shown
        assert is_shown == entry.metadata["setting"].is_option, entry.name
    for option in ("--scale", "--levels", "--total-count", "[default: auto]", "[default: 64,64]"):
        assert option in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective", "iwae", "--beta", "2"], "beta does nothing with objective = 'iwae'"),
        (["--objective", "iwae", "--beta", "1"], "beta does nothing with objective = 'iwae'"),
        (["--likelihood", "bernoulli", "--scale", "learned"], "bernoulli takes no options"),
        (["--hidden", "0"], "Expected hidden of at least 1; got 0."),
        (["--learning-rate-decay", "0.5"], "does nothing without learning_rate_milestones"),
        (["--components", "3"], "components does nothing with prior = 'standard_normal'"),
        (["--image-size", "64"], "image_size to be height and width"),
    ],
)
def test_the_command_says_so_before_anything_is_loaded(words: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["train", "--data", "digits", "--out", "x", *words])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert not Path("x").exists()
