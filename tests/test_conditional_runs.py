"""Runs whose model is given the label of each example: images in folders named by label."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from export import calibration
from export.manifest import metadata
from export.model_card import model_card
from keras_vae import commands, data
from keras_vae.choosing import choose
from keras_vae.cli import main
from keras_vae.report import comparison, draws, latents
from keras_vae.report.subject import Subject
from keras_vae.runs import classes
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.run import Run
from keras_vae.runs.train import train
from keras_vae.signatures import signatures

SETTINGS: dict[str, Any] = {
    "condition": "labels",
    "hidden": (8,),
    "latent": 2,
    "epochs": 2,
    "batch_size": 15,
    "test_fraction": 0.25,
}
NAMES = ("cat", "dog", "newt")
BRIGHT = {"cat": 40, "dog": 120, "newt": 200}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, random = tmp_path_factory.mktemp("data") / "pets", np.random.default_rng(0)
    for number in range(60):
        name = NAMES[number % 3]
        (root / name).mkdir(parents=True, exist_ok=True)
        image = random.integers(BRIGHT[name] - 40, BRIGHT[name] + 41, (4, 4)).astype(np.uint8)
        Image.fromarray(image).save(root / name / f"{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    said: list[str] = []
    config = RunConfig(data=str(folders), likelihood="normal", **SETTINGS)
    found = train(config, tmp_path_factory.mktemp("runs") / "pets", report=said.append)
    often = np.unique(found.read().labels[0], return_counts=True)[1]
    listed = ", ".join(f"{name} ({count})" for name, count in zip(NAMES, often, strict=True))
    assert f"Condition: the label, one of 3 classes: {listed}." in said
    return found


def test_the_bound_is_that_of_the_examples_with_their_labels(run: Run, folders: Path) -> None:
    vae = run.load()
    assert run.config.classes == NAMES
    assert vae.condition_shape == (3,)
    given = data.load(folders, labels=True).inputs
    mixed = np.random.default_rng(0).permutation(15)  # the folders are in turn
    test = {name: data.split(x, test_fraction=0.25)[1][mixed] for name, x in given.items()}
    assert set(run.read().labels[1][:10]) == set(NAMES)
    prepared = run.preparation.array(test["x"], run.config.seed)
    expected = vae.elbo({"x": prepared, "condition": test["condition"]}, seed=5)
    values = commands.evaluate(
        run, num_samples=50, limit=0, seed=5, progress=False, report=lambda message: None
    )
    nats = run.preparation.nats_offset * 16
    assert values["elbo"]["mean"] == pytest.approx(np.mean(expected.elbo) + nats, rel=1e-6)
    assert values["test_set"] == values["log_marginal"]["examples"] == 15
    assert values["data"].endswith("given its label")
    wrong = {"x": prepared, "condition": np.roll(test["condition"], 1, axis=1)}
    assert np.mean(vae.elbo(wrong, seed=5).elbo) != np.mean(expected.elbo)


def test_draws_of_labels_are_those_of_the_model(run: Run, tmp_path: Path) -> None:
    def drawn(name: str, *arguments: str) -> Path:
        path = tmp_path / name
        command = ["sample", str(run.path), "--seed", "4", "--out", str(path), *arguments]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        said.append(result.output)
        return path

    said: list[str] = []
    only = np.load(drawn("newts.npy", "--n", "6", "--label", "newt"))
    newts = np.repeat([[0.0, 0.0, 1.0]], 6, axis=0)
    expected = signatures(run.load(), run.preparation)["sample"].function(
        seed=np.stack([np.full(6, 4), np.arange(6)], axis=1).astype(np.int32),
        condition=newts.astype(np.float32),
    )
    assert np.array_equal(only, expected["sample"])
    assert said[-1].endswith("; label: newt.\n")
    table = np.genfromtxt(drawn("all.csv", "--n", "6"), delimiter=",", names=True, dtype=None)
    assert [str(label) for label in table["label"]] == [*NAMES, *NAMES]
    turns = np.load(drawn("two.npy", "--n", "6", "--label", "newt", "--label", "cat"))
    assert np.array_equal(turns[::2], only[::2])
    assert not np.array_equal(turns[1::2], only[1::2])
    drawn("all.png", "--n", "6")
    assert said[-1].endswith("; labels in turn: cat, dog, newt.\n")
    refused = CliRunner().invoke(
        main, ["sample", str(run.path), "--label", "nwt", "--out", str(tmp_path / "x.npy")]
    )
    assert refused.exit_code == 1
    assert (
        "got nwt in --label (did you mean newt?). The classes are cat, dog, newt." in refused.output
    )


def test_a_changed_label_is_changed_data(run: Run, folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders, tmp_path / "pets")
    shutil.copytree(run.path, tmp_path / "run")
    first = sorted((tmp_path / "pets" / "cat").iterdir())[-1]
    # The name is the last one of cat and the first one of dog, so the order of images is the same.
    first.rename(tmp_path / "pets" / "dog" / "!.png")
    moved = RunConfig(data=str(tmp_path / "pets"), epochs=3)
    with pytest.raises(RunError, match="has changed or other data was given"):
        train(moved, tmp_path / "run", resume=True)
    resumed = train(dataclasses.replace(moved, data=""), tmp_path / "run", resume=True)
    assert len(resumed.history()) == 3
    (tmp_path / "pets" / "dog").rename(tmp_path / "pets" / "wolf")
    with pytest.raises(RunError, match=r"got wolf in .*pets\. The classes are cat, dog, newt\."):
        train(moved, tmp_path / "run", resume=True)


@pytest.mark.filterwarnings("ignore:Importance sampling is not reliable")  # as `report` does
def test_report_and_comparison_are_given_the_labels(
    run: Run, folders: Path, tmp_path: Path
) -> None:
    subject = Subject.of(run, 0)
    shown = {picture.title: picture.caption for picture in draws.draws(subject)}
    assert shown["Draws from p(x)"].endswith("given the labels of the test data.")
    assert shown["Interpolations"].endswith("given the label of the first.")
    assert np.array_equal(subject.given([0, 15])["condition"][0], subject.x["condition"][0])
    assert np.array_equal(subject.given([0, 15])["condition"][1], subject.x["condition"][0])
    assert any("coloured by label" in picture.caption for picture in latents.latents(subject))
    levels = train(
        RunConfig(
            data=str(folders), likelihood="normal", **{**SETTINGS, "epochs": 1}, latents="ladder"
        ),
        tmp_path / "levels",
    )
    found = comparison.compare(run, levels)
    assert found.units.startswith("log-probability of the data in the file given its label")
    fewer = Subject.of(levels, 0).by_level(20)  # there are only 15 test examples
    assert [x.shape for x in fewer] == [(15, 4, 4, 1)] * 2
    said: list[str] = []
    values = commands.evaluate(
        levels, num_samples=2, limit=4, seed=0, progress=False, report=said.append
    )
    assert said[-1] == "The first 4 test examples have 2 of 3 labels; --limit 0 measures all."
    assert set(values["rate_per_level"]) == {"z1", "z2"}


def test_export_calibrates_with_labels_and_names_them(run: Run, folders: Path) -> None:
    vae = run.load()
    held_out = calibration.rows(run.model_path, vae, calibration.HELD_OUT)
    assert {name: x.shape for name, x in held_out.items()} == {
        "x": (15, 4, 4, 1),
        "condition": (15, 3),
    }
    every = calibration.rows(run.model_path, vae, str(folders))
    assert np.array_equal(every["condition"], data.load(folders, labels=True).inputs["condition"])
    calibrated = calibration.of_rows(signatures(vae, run.preparation)["score"], held_out)
    assert calibrated.n == 15
    training = {"config": dataclasses.asdict(run.config), "final_beta": 1.0}
    entries = {"name": "pets", "training": training, "variants": {}, "omitted": {}}
    card = model_card({**entries, **metadata(vae, run.preparation)})
    assert "(3,) beside each x, the label one-hot in this order: cat, dog, newt." in card


def test_data_without_classes_is_refused(folders: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 2))

    def refused(match: str, y: Any = None, **settings: Any) -> None:
        path = tmp_path / "table.npz"
        np.savez(path, x=rows, **({} if y is None else {"y": y}))
        config = RunConfig(data=str(path), condition="labels", hidden=(8,), **settings)
        with pytest.raises(RunError, match=match):
            train(config, tmp_path / "refused")
        shutil.rmtree(tmp_path / "refused", ignore_errors=True)

    refused("needs labels, and .*table.npz has none")
    refused("2 to 1000 classes; got 1 class", np.zeros(20))
    refused("2 to 1000 classes; got numbers such as 0.5", np.arange(20) / 2)
    refused(
        r"one label for each example of .* got labels of shape \[20, 2\]", np.eye(2)[[0, 1] * 10]
    )
    np.savez(tmp_path / "test.npz", x=rows, y=np.arange(20) % 3)
    other = {"test_data": str(tmp_path / "test.npz")}
    refused(r"got 2 in .*test.npz. The classes are 0, 1\.", np.arange(20) % 2, **other)
    np.savez(tmp_path / "test.npz", x=rows)
    refused("needs labels, and .*test.npz has none", np.arange(20) % 2, **other)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"data": "a.txt"}, "for texts"),
        ({"network": "attention", "hidden": (8,)}, "for sequences"),
        ({"likelihood": "table"}, "for a table as it is, where the label is a column"),
        ({"latents": "codes"}, "with latents = 'codes'"),
        ({"keep_labels": True}, "with keep_labels, which models the label"),
    ],
)
def test_models_without_a_condition_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(RunError, match=f"There is no condition {re.escape(what)}"):
        RunConfig(**{"data": "digits", "condition": "labels", **settings})


def test_choose_compares_no_conditional_models(tmp_path: Path) -> None:
    config = RunConfig(data="digits", condition="labels")
    with pytest.raises(RunError, match="cannot be compared by choose yet: leave condition out"):
        choose(config, budget="5s", out=tmp_path / "choice")


def test_numbers_and_words_of_files_are_the_same_classes() -> None:
    known = classes.found(np.array([10.0, 9.0, 9.0]), "a.csv")
    assert known == ("9", "10")
    for labels in (np.array([10, 9]), np.array(["10", "9"]), np.array([10.0, 9.0])):
        assert classes.one_hot(labels, known, "b.csv").tolist() == [[0.0, 1.0], [1.0, 0.0]]
    with pytest.raises(RunError, match="no labels to choose from"):
        classes.take_turns(["9"], (), 2)
