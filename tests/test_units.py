"""What is measured: one table stands on one data set, in the units of the file, and says so."""

import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.stats

import keras_vae
from keras_vae import commands, evaluation
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare
from keras_vae.distributions.supports import Support
from keras_vae.factories import LIKELIHOODS
from keras_vae.runs import baselines, measurements
from keras_vae.runs.building import build
from keras_vae.runs.config import RunConfig
from keras_vae.runs.run import Run
from keras_vae.runs.units import Units, share_at_atoms
from tests.models import tiny_vae

LEVELS = np.random.default_rng(0).integers(0, 5, (300, 3, 3, 1))
BOUND = " (dequantised, lower bound)"
TABLE = np.random.default_rng(1).normal(size=(300, 3)) @ np.diag([1.0, 10.0, 0.1])


def untrained(path: Path, raw: np.ndarray, likelihood: str, **options: object) -> Run:
    """Makes a run whose model keeps its initial weights, the same at every call."""
    path.mkdir()
    np.save(path / "data.npy", raw)
    preparation, found = prepare(LIKELIHOODS[likelihood], raw)
    config = RunConfig(
        data=str(path / "data.npy"),
        likelihood=likelihood,
        likelihood_options={**found, **options},
        hidden=(4,),
        latent=2,
        preparation=preparation,
        test_fraction=0.5,
    )
    keras.utils.set_random_seed(0)
    (path / "config.toml").write_text(config.to_toml())
    run = Run(path)
    run.save(build(config, preparation.static(raw).shape[1:]))
    return run


def evaluate(run: Run, limit: int = 0) -> dict:
    return commands.evaluate(
        run, num_samples=20, limit=limit, seed=0, progress=False, report=lambda sentence: None
    )


def means(values: dict) -> np.ndarray:
    rows = [values["elbo"], values["log_marginal"], *values["baselines"].values()]
    return np.array([row["mean"] for row in rows])


def test_every_number_of_an_evaluation_stands_on_the_same_examples(tmp_path: Path) -> None:
    raw = np.concatenate([TABLE, 100.0 * TABLE])
    run = untrained(tmp_path / "run", raw, "normal")
    few, every = evaluate(run, limit=40), evaluate(run)
    rows = [few["elbo"], few["log_marginal"], few["distortion"], few["rate"]]
    rows += few["baselines"].values()
    assert {row["examples"] for row in rows} == {few["test_examples"]} == {40}
    assert few["examples"] == "the first 40 of 300 test examples"
    assert few["elbo_of_all"] == every["elbo"]
    assert every["examples"] == "all 300 test examples"
    assert "elbo_of_all" not in every
    # Independent normals of a known fit: their mean over the first 40 rows and over all.
    train, test = (run.preparation.array(part).astype(np.float64) for part in run.raw())
    log_p = -0.5 * ((test - train.mean(0)) / train.std(0)) ** 2
    log_p += -np.log(train.std(0)) - 0.5 * np.log(2 * np.pi)
    for values, rows in ((few, slice(40)), (every, slice(None))):
        expected = log_p[rows].sum(1).mean() - np.log(run.preparation.spread).sum()
        found = values["baselines"]["independent normals"]["mean"]
        assert found == pytest.approx(expected, abs=1e-9)
    # More draws tighten the bound; on two data sets this failed by 5 nats.
    assert few["log_marginal"]["mean"] > few["elbo"]["mean"]
    for text in (measurements.table(few).title, measurements.in_markdown(few)[0]):
        assert text.startswith(
            "The first 40 of 300 test examples: log-density of the data in the file"
        )


def test_densities_are_in_the_units_of_the_file(tmp_path: Path) -> None:
    """Metres to millimetres: each log-density falls by log 1000 for each column, exactly."""
    metres = evaluate(untrained(tmp_path / "metres", TABLE, "normal"))
    run = untrained(tmp_path / "millimetres", 1000.0 * TABLE, "normal")
    millimetres = evaluate(run)
    # The model sees the same numbers up to roundings of float32, a few units of 1e-7 each.
    np.testing.assert_allclose(
        means(millimetres), means(metres) - 3 * math.log(1000.0), rtol=0, atol=1e-4
    )
    for name in ("distortion", "rate"):
        change = 3 * math.log(1000.0) if name == "distortion" else 0.0
        difference = millimetres[name]["mean"] - metres[name]["mean"]
        assert difference == pytest.approx(change, abs=1e-4)
    assert metres["bits_per_dim"] is None
    assert any("depend on the units" in note for note in measurements.table(metres).notes)
    # The same units wherever a number leaves: the bound of the signature `score`.
    vae, x = run.load(), run.preparation.array(run.raw()[1])
    units = Units.of(vae, run.preparation)
    assert units.offset == pytest.approx(-np.log(run.preparation.spread).sum())
    elbo = units.log_p(vae.elbo(x, seed=0).elbo).mean()
    assert elbo == pytest.approx(millimetres["elbo"]["mean"])


def test_bits_of_integer_levels_are_those_of_the_levels(tmp_path: Path) -> None:
    """A density of dequantised levels bounds their probability: no fewer than their entropy."""
    run = untrained(tmp_path / "run", LEVELS, "normal", scale="decoder")
    values = evaluate(run)
    vae, x = run.load(), run.preparation.array(run.raw()[1], run.config.seed)
    prepared = evaluation.log_marginal(vae, x, num_samples=20, seed=0).value
    expected = evaluation.bits_per_dim(prepared, (3, 3, 1), levels=5).mean()
    assert values["bits_per_dim"] == pytest.approx(expected, rel=1e-6)
    assert values["bits_per_dim"] > math.log2(5.0)  # the source is uniform
    assert values["quantity"] == "log-probability"
    independent = values["baselines"].pop("independent pixels")
    # Uniform on five levels is -9 log 5; what 150 training examples do not tell costs 0.1 nats.
    assert independent["mean"] == pytest.approx(-9 * math.log(5.0), abs=0.3)
    assert all(name.endswith(BOUND) for name in values["baselines"])
    assert all(row["mean"] < -9 * math.log(5.0) for row in values["baselines"].values())


def test_categorical_bits_are_counted_for_variables(tmp_path: Path) -> None:
    """Six variables, uniform over four categories: two bits each, not half a bit."""
    raw = np.random.default_rng(2).integers(0, 4, (300, 6))
    run = untrained(tmp_path / "run", raw, "categorical")
    vae = run.load()
    vae.set_weights([np.zeros_like(weight) for weight in vae.get_weights()])
    run.save(vae)
    values = evaluate(run)
    assert values["variables"] == 6
    assert values["bits_per_dim"] == pytest.approx(2.0, abs=1e-6)
    found = values["baselines"]["independent variables"]["mean"]
    assert found == pytest.approx(-6 * math.log(4.0), abs=0.2)


class Unknown(keras_vae.Normal):
    """A likelihood whose support does not say whether it is discrete."""

    @property
    def support(self) -> Support:
        """Whatever is finite."""
        return Support("numbers", "Give numbers.", super().support.contains)


def test_an_unknown_family_is_compared_with_nothing() -> None:
    raw, support = TABLE.astype(np.float32), Unknown(3).support
    assert baselines.log_probs(raw, raw, Preparation(), support, 2) == {}
    vae = keras_vae.VAE(
        prior=keras_vae.StandardNormal(2),
        likelihood=Unknown(3),
        posterior=keras_vae.DiagonalNormal(2),
    )
    units = Units.of(vae, Preparation())
    assert units.quantity == "log p(x)"
    assert units.bits_per_dim(-1.0) is None


@pytest.mark.parametrize(
    ("likelihood", "raw", "expected"),
    [
        ("bernoulli", 15 * LEVELS.astype(np.uint8), {"independent pixels"}),
        (
            "normal",
            (60 * LEVELS[:, 0, :, 0] - 120).astype(np.int8),
            {"independent variables", "bound"},
        ),
        ("poisson", LEVELS[..., 0, 0], {"independent variables", "bound"}),
        ("normal", LEVELS[:, 0, :, 0] - 2, {"independent variables", "bound"}),
        (
            "normal",
            1000 * LEVELS[:, 0, :, 0],
            {"independent normals (dequantised, lower bound)", "bound"},
        ),
        (
            "normal",
            LEVELS[:, 0, :, 0] * [1, 0.5, 1],
            {"independent normals (dequantised, lower bound)", "bound"},
        ),
        ("laplace", TABLE, {"independent normals", "density"}),
        ("continuous_bernoulli", LEVELS / 4.0, {"density", "independent normals"}),
    ],
)
def test_baselines_are_of_the_quantity_that_the_model_has(
    likelihood: str, raw: np.ndarray, expected: set[str]
) -> None:
    preparation, options = prepare(LIKELIHOODS[likelihood], raw)
    support = tiny_vae(likelihood, raw.shape[1:], **options).likelihood.support
    found = baselines.log_probs(raw[:200], raw[200:], preparation, support, 2)
    kinds = {
        name if name.startswith("independent") else "bound" if name.endswith(BOUND) else "density"
        for name in found
    }
    assert kinds == expected


def given_classes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the class of each of 300 examples, one of which is rare, and their condition."""
    kind = np.random.default_rng(seed).choice(3, size=300, p=[0.5, 0.48, 0.02])
    return kind, np.eye(3, dtype=np.float32)[kind]


def test_frequencies_given_the_label_are_those_of_its_examples() -> None:
    kind, condition = given_classes(7)
    raw = (LEVELS + kind[:, None, None, None]) % 5
    support = tiny_vae("discretized_logistic", raw.shape[1:], levels=5).likelihood.support
    given = condition[:200], condition[200:]
    found = baselines.log_probs(raw[:200], raw[200:], Preparation(), support, 2, condition=given)
    flat, expected = raw.reshape(300, -1), np.zeros(100)
    for row in range(100):
        of_class = flat[:200][kind[:200] == kind[200 + row]]
        for pixel, level in enumerate(flat[200 + row]):
            of_all = (np.sum(flat[:200, pixel] == level) + 1 / 5) / 201
            often = np.sum(of_class[:, pixel] == level)
            expected[row] += np.log((often + of_all) / (len(of_class) + 1))
    # Rounding of 9 logarithms.
    np.testing.assert_allclose(found["independent pixels"], expected, rtol=1e-12)


def test_densities_given_the_label_have_a_mean_for_each_and_one_covariance() -> None:
    kind, condition = given_classes(8)
    raw = (TABLE + 3.0 * kind[:, None] * TABLE.std(axis=0)).astype(np.float32).astype(float)
    given, support = (condition[:200], condition[200:]), keras_vae.Normal(3).support
    found = baselines.log_probs(raw[:200], raw[200:], Preparation(), support, 2, condition=given)
    train = kind[:200]
    means = np.stack(
        [np.concatenate([raw[:200][train == k], raw[:200].mean(0)[None]]).mean(0) for k in range(3)]
    )
    rest = raw[:200] - means[train]
    centre = means[kind[200:]] + rest.mean(axis=0)
    # With D - 1 latents the covariance of probabilistic PCA is that of the data.
    full = scipy.stats.multivariate_normal(cov=np.cov(rest.T, bias=True)).logpdf(raw[200:] - centre)
    np.testing.assert_allclose(found["probabilistic PCA, 2 latents"], full, rtol=1e-9)
    alone = scipy.stats.norm.logpdf(raw[200:], centre, rest.std(axis=0)).sum(axis=1)
    np.testing.assert_allclose(found["independent normals"], alone, rtol=1e-9)


def test_a_mixed_table_says_of_what_its_numbers_are(tmp_path: Path) -> None:
    table = np.concatenate([TABLE, np.arange(len(TABLE))[:, None] % 2], axis=1)
    title = measurements.table(evaluate(untrained(tmp_path / "run", table, "normal"))).title
    assert "density of its real columns, lower bound on the probability of its whole" in title


def test_dependent_columns_leave_out_the_model_that_cannot_be() -> None:
    x = np.random.default_rng(3).normal(size=(300, 2))
    raw = np.concatenate([x, x, x @ [[1.0], [2.0]]], axis=1)
    found = baselines.log_probs(raw, raw, Preparation(), keras_vae.Normal(5).support, 2)
    assert set(found) == {"independent normals", "Gaussian mixture, 10 components"}


@pytest.mark.parametrize(
    ("make", "likelihood", "share"),
    [
        (lambda rng: rng.normal(size=(1000, 4)), "normal", 0.0),
        (lambda rng: rng.integers(0, 17, (1000, 8, 8, 1)) / 16.0, "continuous_bernoulli", 1.0),
        (lambda rng: rng.integers(0, 17, (1000, 8, 8, 1)), "normal", 0.0),  # dequantised
        (lambda rng: rng.integers(0, 17, (1000, 3)) * [1, 0.5, 1], "normal", 1 / 3),
        (lambda rng: rng.random((4000, 2)) * (rng.random((4000, 2)) < [0.5, 1.0]), "normal", 0.25),
    ],
)
def test_atoms_are_found(
    make: Callable[[np.random.Generator], np.ndarray], likelihood: str, share: float
) -> None:
    raw = make(np.random.default_rng(0))
    preparation, _ = prepare(LIKELIHOODS[likelihood], raw)
    # Half of 4000 fair draws: a standard error of 0.004 of all numbers.
    assert share_at_atoms(raw, preparation) == pytest.approx(share, abs=0.02)


def test_densities_at_atoms_come_with_a_sentence(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", LEVELS / 4.0, "continuous_bernoulli")
    values = evaluate(run)
    assert values["share_at_atoms"] == 1.0
    said = [note for note in measurements.table(values).notes if "how sharp a spike" in note]
    assert said == [note for note in measurements.table(values).notes if "100 %" in note] != []


def test_numbers_of_an_earlier_version_are_not_shown(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", TABLE, "normal")
    values = evaluate(run)
    path = run.path / "evaluation.json"
    assert measurements.read(path) == values
    run.write_json("evaluation.json", {k: v for k, v in values.items() if k != "schema_version"})
    assert measurements.read(path) is None
    assert measurements.read(run.path / "nothing.json") is None


def test_rates_and_distortions_are_in_the_units_of_the_file(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", TABLE, "normal")
    values = evaluate(run)
    said: list[str] = []
    found = commands.rate_distortion(run, betas=(1.0,), seed=0, report=said.append)
    # One draw against eight, for the same examples: within the scatter of a draw.
    error = values["distortion"]["standard_error"]
    assert found.distortion[0] == pytest.approx(values["distortion"]["mean"], abs=4 * error)
    assert found.rate[0] == pytest.approx(values["rate"]["mean"], rel=1e-5)
    assert "all 150 test examples: log-density of the data in the file" in said[-1]


def test_training_says_its_bound_in_the_units_of_the_file(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", 1000.0 * TABLE, "normal")
    row = {"epoch": 1.0, "elbo": -4.0, "val_elbo": -4.25}
    run.write_history([row])
    offset = -np.log(run.preparation.spread).sum()
    said = commands.held_out(run)
    assert f"held-out elbo {offset - 4.25:.2f}," in said
    progress = commands.EpochProgress(run.path, lambda sentence: lines.append(sentence))
    lines: list[str] = []
    progress.set_model(run.load())
    progress.set_params({"epochs": 1, "steps": 1})
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    progress.on_epoch_end(0, row)
    progress.on_train_end()
    assert lines == [f"epoch 1/1: elbo {offset - 4.0:.2f}, held-out {offset - 4.25:.2f} nats"]
