"""Choosing: the race over paired differences, and the command from a file to a model."""

import json
import math
import sys
import tomllib
import zlib
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from keras_vae import data, evaluation
from keras_vae.choosing import choose, training
from keras_vae.choosing.candidates import Axis, Candidate, axes_of, first_of
from keras_vae.choosing.choice import Choice
from keras_vae.choosing.problem import Problem
from keras_vae.choosing.records import Records
from keras_vae.choosing.search import DROPPED, Search, Spent, Trial, difference
from keras_vae.cli import main
from keras_vae.data.proposal import propose
from keras_vae.factories import LIKELIHOODS
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.config_file import read_config
from keras_vae.runs.durations import as_seconds
from keras_vae.runs.options import settings_of
from keras_vae.runs.tasks import of_arrays, read

choosing = sys.modules["keras_vae.choosing.choose"]
AXES = (
    Axis("likelihood", ("poisson", "negative_binomial")),
    Axis("latent", (2, 4, 8, 16, 32), is_ordered=True),
    Axis("width", (50, 100, 200), is_ordered=True),
    Axis("prior", ("standard_normal", "flow")),
)
START = Candidate("poisson", 8, 100, "standard_normal")
HARD = np.random.default_rng(0).normal(scale=20.0, size=200)  # examples differ far more than models


def trial(candidate: Candidate, mean: float, ended: str = "settled") -> Trial:
    """Makes a trial whose bounds differ from `HARD + mean` by noise of a standard error of 0.1."""
    noise = np.random.default_rng(zlib.crc32(repr(candidate).encode())).normal(size=200)
    noise = (noise - noise.mean()) / noise.std(ddof=1) * 0.1 * math.sqrt(200 / 2)
    return Trial(candidate, HARD + mean + noise, 10, 1.0, ended, 60.0)


def value(candidate: Candidate) -> float:
    """Nats of a candidate: a negative binomial, 4 latents and width 100 or more are worth some."""
    found = -50.0 + 9.0 * (candidate.likelihood == "negative_binomial")
    found += 3.0 * min(2.0, math.log2(candidate.latent)) - 1.0 * (candidate.width < 100)
    return found


def test_the_search_finds_the_simplest_of_the_best() -> None:
    asked = []

    def measure(candidate: Candidate, rival: Trial | None) -> Trial:
        asked.append((candidate, rival))
        return trial(candidate, value(candidate))

    search = Search(AXES, measure)
    found = search.run(START)
    assert found is not None
    assert found.candidate == Candidate("negative_binomial", 4, 100, "standard_normal")
    assert search.is_complete
    names = [candidate for candidate, _ in asked]
    assert len(names) == len(set(names)) <= 9  # of 60 candidates
    assert asked[0][1] is None
    assert asked[1][1].candidate == START
    assert all(rival is search.trials[1] or index < 2 for index, (_, rival) in enumerate(asked[:3]))


def test_the_search_climbs_while_more_is_better() -> None:
    search = Search(AXES, lambda one, rival: trial(one, 2.0 * math.log2(one.latent)))
    found = search.run(START)
    assert found is not None
    assert found.candidate.latent == 32
    assert {each.candidate.latent for each in search.trials} == {8, 16, 32}


def test_small_steps_down_do_not_add_up() -> None:
    """Each smaller size is inside the noise of the next, and the smallest is not of the best."""
    search = Search(AXES, lambda one, rival: trial(one, 0.12 * math.log2(one.latent)))
    found = search.run(Candidate("poisson", 32, 50, "standard_normal"))
    assert found is not None
    best = max(search.trials, key=lambda each: each.mean)
    mean, error = difference(best.bounds, found.bounds)
    assert mean <= 2.0 * error
    assert found.candidate.latent > 2


def test_a_dropped_candidate_is_never_recommended() -> None:
    def measure(candidate: Candidate, rival: Trial | None) -> Trial:
        return trial(candidate, 0.0, DROPPED if candidate != START else "settled")

    found = Search(AXES, measure).run(START)
    assert found is not None
    assert found.candidate == START


def test_a_search_ends_where_the_budget_does() -> None:
    def measure(candidate: Candidate, rival: Trial | None) -> Trial:
        if len(search.trials) == 2:
            raise Spent
        return trial(candidate, value(candidate))

    search = Search(AXES, measure)
    found = search.run(START)
    assert found is not None
    assert found.candidate.likelihood == "negative_binomial"
    assert not search.is_complete


def test_a_candidate_that_cannot_be_trained_is_passed_over() -> None:
    search = Search(AXES, lambda one, rival: None if one.latent > 8 else trial(one, one.latent))
    found = search.run(START)
    assert found is not None
    assert found.candidate.latent == 8
    assert Search(AXES, lambda one, rival: None).run(START) is None


def test_another_likelihood_is_first_where_the_first_one_cannot_be_trained() -> None:
    refused = START.likelihood
    search = Search(AXES, lambda one, rival: None if one.likelihood == refused else trial(one, 0))
    found = search.run(START)
    assert found is not None
    assert found.candidate.likelihood == AXES[0].values[1]


def test_the_budget_pays_for_what_comes_beside_the_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each training takes 6 s beside its epochs, and so does the measurement at the end."""
    now, shares = 0.0, []

    def fake(problem, candidate, *, share: float, **options: object):
        nonlocal now
        shares.append(share)
        now += 6.0 + share
        return Trial(candidate, HARD, 9, 6.0 + share, "time", share), None, 6.0

    monkeypatch.setattr(choosing, "trained", fake)
    monkeypatch.setattr(choosing, "time", SimpleNamespace(perf_counter=lambda: now))
    records = SimpleNamespace(load=lambda *about: None, save=lambda *about: None)
    run = choosing._Run(
        SimpleNamespace(examples=(800, 200, 100)),
        records,
        share=10.0,
        limit=60.0,
        began=0.0,
        epochs=100,
        report=lambda message: None,
        watch=lambda message: None,
    )
    for latent in (1, 2, 3):
        run.measure(START._replace(latent=latent), None)
    with pytest.raises(Spent):
        run.measure(START, None)
    assert shares == [10.0] * 3
    assert now + 6.0 == 54.0


def test_sizes_follow_the_data() -> None:
    axes = axes_of(likelihoods=["normal"], size=6)
    assert axes[1].values == (2, 4)
    assert first_of(axes, 6).latent == 2
    assert axes_of(likelihoods=["normal"], size=3)[1].values == (1, 2)
    images = axes_of(likelihoods=["normal"], size=784, is_convolution=True)
    assert first_of(images, 784) == Candidate("normal", 16, 64, "standard_normal")


@pytest.mark.parametrize("budget", ["", "5", "m", "0s", "-3m", "5 days", True, 0, math.inf])
def test_a_budget_is_a_time(budget: object) -> None:
    with pytest.raises(RunError, match=r"budget such as 90s, 30m or 1h, longer than nothing; got"):
        as_seconds(budget)


ROWS = 250


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with counts.csv, whose counts vary more than those of a Poisson distribution."""
    folder = tmp_path_factory.mktemp("choosing")
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(0.3, 0.05, size=(ROWS, 4))
    pd.DataFrame(counts, columns=list("abcd")).to_csv(folder / "counts.csv", index=False)
    return folder


FIRST = "poisson-1-8-standard_normal-0"
QUICK = ("--latent", "1", "--width", "8", "--prior", "standard_normal", "--epochs", "30")


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def chosen(folder: Path) -> str:
    """Output of a choice that was killed in its second training and continued."""
    words = ("choose", folder / "counts.csv", "--budget", "2m", "--out", folder / "choice", *QUICK)
    words += ("--batch-size", 50, "--likelihood", "poisson,negative_binomial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "trained", _killed_in_the_second)
        code, output = invoke(*words)
    assert code == 130
    assert "Continue after the last finished training with the same command and --resume" in output
    code, output = invoke(*words)
    assert code == 1
    assert "exists and is not empty. Continue it with --resume or choose another --out" in output
    before = (folder / "choice" / "trials" / FIRST / "trial.json").stat().st_mtime_ns
    code, output = invoke(*words, "--resume")
    assert code == 0, output
    assert (folder / "choice" / "trials" / FIRST / "trial.json").stat().st_mtime_ns == before
    return output


def _killed_in_the_second(*arguments, rival, **options):
    if rival is not None:
        raise KeyboardInterrupt
    return training.trained(*arguments, rival=rival, **options)


def test_over_dispersed_counts_are_recognised(folder: Path, chosen: str) -> None:
    assert "180 training, 45 validation and 25 test examples" in chosen
    assert "* recommended, negative_binomial, 1 latent, width 8, standard_normal" in chosen
    assert "Every other change of one setting was tried, and none is ahead." in chosen
    assert "log-probability of the data in the file, nats per example" in chosen
    record = folder / "choice" / "trials" / FIRST / "trial.json"
    assert json.loads(record.read_text())["elbo"] < 0.0


def test_the_recommended_configuration_trains(folder: Path, chosen: str) -> None:
    path = folder / "choice" / "config.toml"
    values = tomllib.loads(path.read_text())
    assert values["likelihood"] == "negative_binomial"
    assert (values["latent"], values["hidden"]) == (1, [8, 8])
    assert 1 <= values["epochs"] <= 30
    assert f"keras-vae train --config {path} --out {folder / 'choice' / 'run'}" in chosen
    assert read_config(path).batch_size == 50
    config = settings_of(path, {}, resume_from=None)
    sets = read(config, None, lambda sentence: None)
    completed, task = of_arrays(config, sets, lambda sentence: None)
    assert (len(sets.train), len(sets.test)) == (225, 25)
    assert task.make(completed).latent_size == 1


def test_trials_of_other_data_or_settings_are_refused(folder: Path, chosen: str) -> None:
    words = ("choose", folder / "counts.csv", "--budget", "2m", "--out", folder / "choice", *QUICK)
    code, output = invoke(*words, "--resume", "--likelihood", "poisson")
    assert code == 1
    assert "holds trials of other batch_size, likelihood" in output


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trial.json", b"{"),
        ("trial.json", b"[]"),
        ("trial.json", b"{}"),
        ("trial.json", b'{"ended": "failed", "seconds": 1}'),
        ("bounds.npy", b""),
        ("bounds.npy", b"hello"),
        ("model.keras", None),
    ],
)
def test_damaged_trials_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = tmp_path / "trials" / "poisson-1-8-flow-0"
    folder.mkdir(parents=True)
    values = {"epochs": 2, "seconds": 1.0, "ended": "settled", "share": 9}
    (folder / "trial.json").write_text(json.dumps(values))
    (folder / "model.keras").write_bytes(b"")
    np.save(folder / "bounds.npy", np.zeros(3))
    (tmp_path / "settings.json").write_text("{}")
    records = Records(tmp_path, resume=True)
    candidate = Candidate("poisson", 1, 8, "flow")
    assert records.load(candidate, 1.0, 3).bounds.shape == (3,)
    with pytest.raises(RunError, match=r"bounds.npy is missing or damaged"):
        records.load(candidate, 1.0, 4)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name} is missing or damaged. Remove the directory"):
        records.load(candidate, 1.0, 3)


def test_a_choice_without_any_model_leaves_nothing(folder: Path, amounts: np.ndarray) -> None:
    words = ("choose", folder / "amounts.npy", "--out", folder / "none", "--budget", "1s", *QUICK)
    code, output = invoke(*words, "--likelihood", "poisson")
    assert code == 1
    assert "No model could be trained. Left out poisson, 1 latent" in output
    assert not (folder / "none").exists()


def problem(path: Path, likelihoods: tuple[str, ...] = (), **settings: object) -> Problem:
    return Problem(RunConfig(data=str(path), **settings), likelihoods, lambda sentence: None)


@pytest.fixture(scope="module")
def amounts(folder: Path) -> np.ndarray:
    x = np.random.default_rng(1).gamma(2.0, 3.0, size=(80, 3)).astype("float32")
    np.save(folder / "amounts.npy", x)
    np.save(folder / "larger.npy", 1024.0 * x)
    return x


def test_likelihoods_are_those_of_the_datas_kind(folder: Path, amounts: np.ndarray) -> None:
    found = problem(folder / "amounts.npy")
    assert found.likelihoods == ("normal", "laplace", "student_t", "gamma", "log_normal")
    assert found.units == "log-density of the data in the file, nats per example"
    assert found.examples == (58, 14, 8)
    sparse = np.random.default_rng(0).poisson(0.5, size=(50, 4))
    for x, rivals in (
        (sparse, "zero_inflated_poisson negative_binomial zero_inflated_negative_binomial"),
        (sparse + 3, "poisson negative_binomial laplace student_t"),
        (sparse > 0, ""),
        (sparse[..., None, None], "beta_binomial mixture_of_logistics normal"),
        (sparse[..., None, None] / 8.0, "normal truncated_normal"),
        (0.1 + sparse / 9.0, "laplace student_t gamma log_normal beta"),
    ):
        assert propose(LIKELIHOODS.values(), [x.astype("float32")]).rivals == tuple(rivals.split())


@pytest.mark.parametrize("likelihood", ["normal", "log_normal"])
def test_bounds_are_in_the_units_of_the_file(
    likelihood: str, folder: Path, amounts: np.ndarray
) -> None:
    """Of the same numbers in a unit 1024 times smaller, each has a density 1024 times smaller."""
    candidate = Candidate(likelihood, 1, 4, "standard_normal")
    values = []
    for name in ("amounts.npy", "larger.npy"):
        found = problem(folder / name, (likelihood,))
        config, task = found.task(candidate, 1)
        if not values:
            weights = task.make(config).get_weights()
        vae = task.make(config)
        vae.set_weights(weights)
        values.append(found.validation(vae, candidate))
    gap = 3.0 * math.log(1024.0)
    # The prepared numbers are the same but for the rounding of float32, as are the densities.
    np.testing.assert_allclose(values[0] - values[1], gap, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "likelihoods", "message"),
    [
        (
            "amounts.npy",
            ("normal", "censored_normal"),
            r"censored_normal cannot be compared with normal: its bound is on the log p\(x\) .*",
        ),
        ("counts.csv", ("poisson", "gamma"), "gamma models positive numbers"),
        ("counts.csv", ("poison",), r"got poison \(did you mean poisson\?\)"),
        ("short.csv", (), "at least 50 training examples, of which a fifth is held out; got 18"),
        (
            "people.csv",
            ("normal",),
            "likelihood of its own. Leave the likelihood",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    name: str, likelihoods: tuple[str, ...], message: str, folder: Path, amounts: np.ndarray
) -> None:
    pd.DataFrame({"a": range(20), "b": 0.5}).to_csv(folder / "short.csv", index=False)
    people().to_csv(folder / "people.csv", index=False)
    with pytest.raises(ValueError, match=message):
        problem(folder / name, likelihoods)


def people() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    age = rng.normal(40.0, 9.0, 90)
    town = np.where(age + rng.normal(size=90) > 40.0, "Oslo", "Rome")
    return pd.DataFrame({"age": np.where(rng.random(90) < 0.1, np.nan, age), "town": town})


def test_a_table_as_it_is_chooses_the_rest(folder: Path, tmp_path: Path) -> None:
    people().to_csv(tmp_path / "people.csv", index=False)
    found = choose(
        tmp_path / "people.csv",
        budget="1s",
        out=tmp_path / "choice",
        latents=[1],
        widths=[4],
        priors=["standard_normal"],
    )
    assert found.recommended.candidate == Candidate("table", 1, 4, "standard_normal")
    assert found.examples == (65, 16, 9)
    assert found.is_complete
    assert found.recommended.ended == "time"
    assert found.again is None  # no time was left
    values = tomllib.loads(found.path.read_text())
    assert values["likelihood"] == "table"
    assert "probability of the others" in found.verdict
    assert "On 9 test examples, which no choice has seen" in str(found)
    assert "the only one that was trained, so nothing was compared." in " ".join(found.legend)


@pytest.mark.parametrize(
    ("count", "is_complete", "said"),
    [
        (1, True, "a longer --budget trains it further."),
        (1, False, "a longer --budget trains it further and tries others."),
        (2, True, "a longer --budget may change its rank. Every other change of one setting"),
        (2, False, "a longer --budget may change its rank. The budget was spent before every"),
    ],
)
def test_what_a_longer_budget_would_bring_is_said_once(
    count: int, is_complete: bool, said: str
) -> None:
    trials = [
        trial(Candidate("normal", 2**i, 50, "standard_normal"), 0.0, "time") for i in range(count)
    ]
    found = Choice(
        trials,
        trials[0],
        is_complete=is_complete,
        again=None,
        config=RunConfig(),
        test=(0.0, 1.0),
        examples=(8, 2, 3),
        units="nats",
        seconds=1.0,
        out=Path("choice"),
    )
    legend = " ".join(found.legend)
    assert said in legend
    assert legend.count("--budget") == 1


CODES = RunConfig(data="digits", latents="codes")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "soon"}, "Expected a budget such as 90s"),
        ({"latents": [0]}, "Expected latents to be whole numbers of at least 1; got 0"),
        ({"widths": [2.5]}, "Expected widths to be whole numbers of at least 1; got 2.5"),
        ({"priors": ["vampp"]}, r"Expected priors among .*; got vampp \(did you mean vamp\?\)"),
        ({"data": CODES}, "Expected models with a vector of latents; got latents = 'codes'"),
        ({"data": "notes.txt"}, "Expected arrays, images, counts or a table; texts and time"),
        ({"data": ""}, "Name the data to compare models on"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_read(
    settings: dict, message: str, tmp_path: Path
) -> None:
    words = {"data": "digits", "budget": "1m", "out": tmp_path / "choice", **settings}
    with pytest.raises(RunError, match=message):
        choose(words.pop("data"), **words)
    assert not (tmp_path / "choice").exists()


def test_the_last_line_is_the_bound_of_the_test_set_of_train(folder: Path, chosen: str) -> None:
    counts = pd.read_csv(folder / "counts.csv").to_numpy(np.float32)
    name = "negative_binomial-1-8-standard_normal-0"
    vae = keras.saving.load_model(folder / "choice" / "trials" / name / "model.keras")
    bounds = np.asarray(vae.elbo(data.split(counts)[1], num_samples=10, seed=0).elbo)
    mean, error = evaluation.mean_and_error(bounds)
    assert (
        f"On 25 test examples, which no choice has seen, its ELBO is {mean:.2f} ± {error:.2f}:"
        in chosen
    )
