"""Runs: what is on disk at any moment of a training, and that it can always go on."""

import contextlib
import dataclasses
import fcntl
import functools
import io
import itertools
import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import preloaded
import pytest
import rich.console
from click.testing import CliRunner

from export import loading, manifest
from keras_vae import commands, data
from keras_vae.cli import main
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare
from keras_vae.factories import LIKELIHOODS
from keras_vae.runs import measurements, run
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.config_file import read_config
from keras_vae.runs.run import FINGERPRINT, Run
from keras_vae.runs.tasks import task_of
from keras_vae.runs.train import train
from keras_vae.training.backup import write_atomically
from keras_vae.training.guard import NonFiniteError

# Three batches an epoch; a short last one would be a second graph to trace, as in test_loop.py.
CONFIG = RunConfig(
    data="digits", likelihood="bernoulli", hidden=(8,), latent=2, epochs=3, batch_size=539
)


def weights(run: Run) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in run.load().get_weights()])


def invoke(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, `whole`, and with its directory before each file was replaced, 0 to 7.

    Three epochs replace config.toml and the digest of the data once, and history.csv and
    model.keras three times each.
    """
    folder = tmp_path_factory.mktemp("run")
    replace, calls = Path.replace, itertools.count()

    def copying_replace(self: Path, target: Path) -> Path:
        shutil.copytree(folder / "whole", folder / str(next(calls)))
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", copying_replace)
        train(CONFIG, folder / "whole")
    assert next(calls) == 8
    return folder


@pytest.fixture(scope="module")
def finished(moments: Path) -> Run:
    return Run(moments / "whole")


def test_a_run_holds_what_it_promises(finished: Run) -> None:
    assert sorted(path.name for path in finished.path.iterdir()) == [
        "config.toml",
        FINGERPRINT,
        "history.csv",
        "model.keras",
    ]
    assert [row["epoch"] for row in finished.history()] == [1, 2, 3]
    assert {"loss", "elbo", "val_elbo", "rate"} <= set(finished.history()[0])
    assert Run(finished.path).config == finished.config


@pytest.mark.parametrize("moment", [0, 1, 2, 3, 4, 7])
def test_killed_at_any_write_it_goes_on_as_if_nothing_had_happened(
    moment: int, moments: Path, finished: Run
) -> None:
    """Before any file; with a configuration, a digest, a history, a model; with a history ahead."""
    out = moments / str(moment)
    assert len([*out.glob(".*")]) == 1, "the file that was about to replace another"
    run = train(CONFIG, out, resume=True)
    assert [row["epoch"] for row in run.history()] == [1, 2, 3]
    # The same operations on the same numbers, on one thread: equal but for nothing.
    np.testing.assert_array_equal(weights(run), weights(finished))
    assert run.history()[-1] == finished.history()[-1]
    assert not [*out.glob(".*")]


class _Interrupts(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if epoch == 46:
            raise KeyboardInterrupt


def test_short_epochs_are_saved_together_and_none_is_lost_or_done_twice(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=51, batch_size=2000)  # of one step: saved in twos
    whole = train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", extra_callbacks=(_Interrupts(),))
    run = Run(tmp_path / "run")
    assert run.finished(run.load(), 1617) == len(run.history()) == 46
    run = train(config, tmp_path / "run", resume=True)
    assert len(run.history()) == 51
    assert run.history() == whole.history()
    np.testing.assert_array_equal(weights(run), weights(whole))


@pytest.mark.parametrize(
    ("rows", "epochs"), [(1, 500), (400, 500), (401, 400), (9901, 20), (10**6, 20)]
)
def test_auto_epochs_are_20_or_make_2000_steps_up_to_500(rows: int, epochs: int) -> None:
    assert RunConfig(data="a.csv").epochs_of(rows) == epochs
    assert RunConfig(data="a.csv", epochs=3).epochs_of(rows) == 3


@pytest.mark.parametrize(
    ("settings", "decided"),
    [
        ({}, (3e-3, "cosine")),
        ({"epochs": 100}, (1e-3, "steps")),
        ({"batch_size": 1}, (1e-3, "steps")),
        ({"learning_rate": 1e-3}, (1e-3, "cosine")),
        ({"learning_rate_schedule": "steps"}, (1e-3, "steps")),
        ({"learning_rate_schedule": "cosine", "epochs": 9}, (1e-3, "cosine")),
        ({"learning_rate_milestones": (30,)}, (1e-3, "steps")),
    ],
)
def test_the_learning_rate_falls_where_auto_makes_more_than_20_epochs(
    settings: dict[str, Any], decided: tuple[float, str]
) -> None:
    config = RunConfig(data="a.csv", **settings).decided_for(2000)
    assert (config.learning_rate, config.learning_rate_schedule) == decided
    assert config.decided_for(10) == config


def test_a_run_records_the_number_that_auto_became_and_keeps_it(tmp_path: Path) -> None:
    said: list[str] = []
    auto = dataclasses.replace(CONFIG, epochs="auto", batch_size=10)
    config, task = task_of(auto, None, said.append)
    assert (task.examples, config.epochs) == (1617, 20)
    assert said[-1] == "Trains 20 epochs, 3240 steps; --epochs chooses another number."
    config, _ = task_of(dataclasses.replace(auto, batch_size=100), None, said.append)
    assert config.epochs == 118
    assert said[-1] == (
        "Trains 118 epochs, 2006 steps, with a learning rate that falls from 0.003 to 0; "
        "--epochs chooses another number."
    )
    run = train(dataclasses.replace(CONFIG, epochs=1), tmp_path / "run")
    said.clear()
    train(dataclasses.replace(CONFIG, epochs="auto"), run.path, resume=True, report=said.append)
    assert said[-1].startswith("1 epoch finished, 1 requested: nothing to do.")
    assert Run(run.path).config.epochs == 1


@pytest.mark.slow
def test_kill_9_leaves_a_readable_run_and_resume_continues(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*preloaded.python(), "-m", "keras_vae", "train", "--out", str(out)]
    first = ["--data=digits", "--likelihood=bernoulli", "--hidden=8", "--latent=2"]
    first.append("--batch-size=300")
    for attempt in range(2):
        words = ["--resume"] if attempt else [*first, "--epochs", "400"]
        finished_before = len(Run(out).history()) if attempt else 0
        process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
            if (out / "history.csv").exists() and len(Run(out).history()) > finished_before + 8:
                break
        assert process.poll() is None, "the training ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        run = Run(out)
        iterations = int(run.load().optimizer.iterations.numpy())
        assert iterations % 6 == 0  # 1 617 examples in batches of 300
        assert len(run.history()) - iterations // 6 in (0, 8)  # 8 epochs are saved together
    assert iterations // 6 > finished_before


def test_epochs_are_what_was_asked_for_last(finished: Run, tmp_path: Path) -> None:
    """Of a run of 400 epochs with 3 finished, 4 are one more, 3 and 1 are no more."""
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    text = (out / "config.toml").read_text()
    (out / "config.toml").write_text(text.replace("epochs = 3", "epochs = 400"))
    for epochs, trained, kept in ((1, 3, 400), (3, 3, 400), (4, 4, 4)):
        said: list[str] = []
        config = dataclasses.replace(CONFIG, epochs=epochs)
        run = train(config, out, resume=True, report=said.append)
        assert len(run.history()) == trained
        assert Run(out).config.epochs == kept
        assert (said[-1] == "Continuing after epoch 3 of 4.") == (epochs == 4)
        assert (f"3 epochs finished, {epochs} requested" in said[-1]) == (epochs < 4)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, NonFiniteError])
def test_the_terminal_is_as_it_was_however_a_training_ends(
    error: type[BaseException] | None, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        "rich.console.Console",
        functools.partial(rich.console.Console, file=screen, force_terminal=True),
    )
    vae = finished.load()
    with contextlib.suppress(error or ()), commands.EpochProgress(finished.path, print) as bar:
        bar.set_params({"epochs": 3, "steps": 6})
        bar.set_model(vae)
        bar.on_train_begin()
        bar.on_epoch_begin(0)
        if error is not None:
            raise error
    hidden, shown = (screen.getvalue().count(f"\x1b[?25{end}") for end in "lh")
    assert hidden == shown == 1
    assert screen.getvalue().endswith(("\n", "\x1b[?25h"))


def test_an_interrupted_training_names_the_command_that_continues_it(tmp_path: Path) -> None:
    """In a terminal, by the signal that Ctrl-C sends."""
    out = tmp_path / "my run"
    words = ["--data=digits", "--likelihood=bernoulli", "--hidden=8", "--latent=2"]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*preloaded.python(), "-m", "keras_vae", "train", *words, "--epochs=5000", f"--out={out}"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm"},
        # Tests that run in the background of a shell ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(slave)
    said, is_interrupted = b"", False
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(master, 2**16):
            said += part
            if not is_interrupted and b"[?25l" in said and (out / "model.keras").exists():
                process.send_signal(signal.SIGINT)
                is_interrupted = True
    os.close(master)
    assert process.wait() == 130
    screen = said.decode()
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h") == 1
    last = screen.splitlines()[-1].removeprefix("\x1b[?25h")
    assert last.startswith("Interrupted. Continue after its last finished epoch with: keras-vae")
    assert last.endswith(f"train --resume --out '{out}'")
    assert Run(out).load().latent_size == 2


def test_a_recipe_resumes_the_run_that_it_made_and_no_other(finished: Run, tmp_path: Path) -> None:
    same, other = tmp_path / "same.toml", tmp_path / "other.toml"
    same.write_text("likelihood = 'bernoulli'\nlatent = 2\nepochs = 3")
    other.write_text("latent = 5\nepochs = 9\n[likelihood_options]\nscale = 0.5")
    code, output = invoke("train", "--config", same, "--resume", "--out", finished.path)
    assert code == 0, output
    assert "3 epochs finished, 3 requested" in output
    code, output = invoke(
        "train", "--config", other, "--hidden", "9", "--resume", "--out", finished.path
    )
    assert code == 2
    assert "leave out --hidden, latent in" in output
    assert f"scale in {other}." in output


def test_more_epochs_can_be_asked_for(finished: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(dataclasses.replace(CONFIG, epochs=1), out)
    run = train(CONFIG, out, resume=True)
    np.testing.assert_array_equal(weights(run), weights(finished))


def test_resume_notices_data_that_has_changed(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    out, more = tmp_path / "run", {"epochs": 2}
    config = RunConfig(
        data=str(tmp_path / "x.npy"), likelihood="normal", hidden=(2,), latent=1, epochs=1
    )
    np.save(config.data, x)
    train(config, out)
    x[17, 1] += 0.01
    np.save(config.data, x)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(RunError, match=r"has changed or other data.* --data .* another --out"):
        train(dataclasses.replace(config, **more), out, resume=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / FINGERPRINT).unlink()
    assert len(train(dataclasses.replace(config, **more), out, resume=True).history()) == 2
    assert (out / FINGERPRINT).is_file()


def test_a_directory_that_is_in_use_is_left_alone(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"exists and is not empty\. Continue it with --resume"):
        train(CONFIG, finished.path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file"):
        train(CONFIG, tmp_path / "file")
    with pytest.raises(OSError, match="Not a directory"):
        train(CONFIG, tmp_path / "file" / "run")


def test_two_processes_do_not_train_into_one_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(RunError, match="Another process is training"):
        train(CONFIG, out, resume=True)
    os.close(handle)


def test_a_refused_training_leaves_the_run_as_it_is(finished: Run, tmp_path: Path) -> None:
    """The lock comes before the look at the directory and before anything is written."""
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    other = dataclasses.replace(CONFIG, latent=9, likelihood="discretized_logistic")
    for resume in (True, False):
        with pytest.raises(RunError, match="Another process is training"):
            train(other, out, resume=resume)
    os.close(handle)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_of_two_trainings_that_start_together_one_is_refused(tmp_path: Path) -> None:
    out, refused = tmp_path / "run", []

    class Second(keras.callbacks.Callback):
        def on_train_begin(self, logs: dict | None = None) -> None:
            with pytest.raises(RunError, match="Another process is training") as caught:
                train(dataclasses.replace(CONFIG, latent=9), out)
            refused.append(caught)

    train(dataclasses.replace(CONFIG, epochs=1), out, extra_callbacks=(Second(),))
    assert refused
    assert Run(out).load().latent_size == Run(out).config.latent == 2


def test_a_training_that_fails_leaves_no_directory(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "deep" / "run"
    with pytest.raises(data.DataError):
        train(dataclasses.replace(CONFIG, data=str(tmp_path / "missing.npy")), out)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "other", "message"),
    [
        ('likelihood = "bernoulli"', 'likelihood = "poisson"', "likelihood is Poisson and not Be"),
        ("latent = 2", "latent = 4", "latent is 4 and not 2"),
        ('posterior = "diagonal"', 'posterior = "full"', "posterior is FullCovarianceNormal"),
        ('prior = "standard_normal"', 'prior = "vamp"', "prior is VampPrior and not StandardNo"),
    ],
)
def test_a_config_that_is_not_the_models_is_noticed(
    line: str, other: str, message: str, finished: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    text = (out / "config.toml").read_text()
    assert line in text
    (out / "config.toml").write_text(text.replace(line, other))
    with pytest.raises(RunError, match=f"is not the model of its config.toml, where {message}"):
        Run(out).load()
    code, output = invoke("sample", out, "--out", tmp_path / "s.npy")
    assert code == 1
    assert "is not the model of its config.toml" in output


def test_training_removes_nothing_that_is_not_its_own(finished: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    with write_atomically(out / "model.keras") as temporary:
        temporary.write_bytes(finished.model_path.read_bytes())
        left = temporary.with_name(temporary.name.replace("model", "history"))
    left.write_text("left by a process that was killed")
    mine = {".my-notes.md", ".pre-commit-config.yaml", ".model-abcdefgh.keras"}
    for name in mine:
        (out / name).write_text("mine")
    (out / ".dvc-cache").mkdir()
    train(dataclasses.replace(CONFIG, epochs=4), out, resume=True)
    hidden = {path.name for path in out.iterdir() if path.name.startswith(".")}
    assert hidden == {*mine, ".dvc-cache"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trains a run on a table of whole and real numbers, with a label and likelihood auto."""
    folder = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    age = random.integers(18, 80, 300)
    frame = pd.DataFrame(
        {
            "age": age,
            "salary": (1000 * age + 3000 * random.normal(size=300)).astype(int),
            "height": 1.7 + 0.1 * random.normal(size=300),
            "target": age > 50,
        }
    )
    frame.to_csv(folder / "train.csv", index=False)
    frame.iloc[:50, [2, 3, 0, 1]].to_csv(folder / "reversed.csv", index=False)
    frame.iloc[:50].to_csv(folder / "same.csv", index=False)
    frame.iloc[:50].drop(columns="salary").assign(wage=1).to_csv(folder / "other.csv", index=False)
    np.save(folder / "plain.npy", frame.iloc[:50, :3].to_numpy(float))
    np.save(folder / "narrow.npy", frame.iloc[:50, :2].to_numpy(float))
    config = RunConfig(
        data=str(folder / "train.csv"),
        test_data=str(folder / "same.csv"),
        hidden=(8,),
        latent=2,
        epochs=1,
    )
    said: list[str] = []
    run = train(config, folder / "run", report=said.append)
    assert said == [
        "300 training and 50 test examples; 3 features: age, salary, height; left out: target "
        "(labels, which `train --condition labels` uses).",
        "Likelihood normal, scale per_feature, for a table of real numbers and 2 features of whole "
        "numbers; --likelihood chooses another.",
        "Preparation: 2 features of whole numbers dequantised, x + u with u uniform on [0, 1), "
        "then each feature centred and divided by its standard deviation.",
    ]
    return run


def test_what_was_proposed_and_the_names_are_kept(table: Run) -> None:
    names = ("age", "salary", "height")
    again = Run(table.path)
    assert again.config.likelihood == "normal"
    assert again.config.likelihood_options == {"scale": "per_feature"}
    assert again.config.output_bias == "zeros"
    assert again.config.features == names
    assert again.preparation.whole == (True, True, False)
    vae = again.load()
    assert vae.feature_names == names
    about = manifest.metadata(vae, again.preparation)
    assert about["data"]["feature_names"] == list(names)


def test_a_preparation_in_the_config_that_is_not_the_models_is_noticed(
    table: Run, tmp_path: Path
) -> None:
    """Whether config.toml was edited or model.keras is that of another run with these columns."""
    said = table.preparation
    out = tmp_path / "run"
    shutil.copytree(table.path, out)
    others = (
        dataclasses.replace(said, spread=(2.0, *said.spread[1:])),
        dataclasses.replace(
            said, center=(*said.center[:2], float(np.nextafter(said.center[2], 9)))
        ),
        dataclasses.replace(said, whole=()),
    )
    for other in others:
        config = dataclasses.replace(table.config, preparation=other)
        (out / "config.toml").write_text(config.to_toml())
        with pytest.raises(
            RunError, match=r"where \[preparation\] has the digest \w{8} and not \w"
        ):
            Run(out).load()
        for words in (["evaluate", out], ["sample", out, "--out", tmp_path / "s.csv"]):
            code, output = invoke(*words)
            assert code == 1
            assert "edited or replaced. Restore the one that belongs to the other" in output
        with pytest.raises(RunError, match="edited or replaced"):
            loading.load(out / "model.keras")
    assert not (tmp_path / "s.csv").exists()

    reworded = dataclasses.replace(said, sentence="in other words")
    config = dataclasses.replace(table.config, preparation=reworded)
    (out / "config.toml").write_text(config.to_toml())
    vae = Run(out).load()
    assert vae.preparation_digest == said.digest

    vae.preparation_digest = None  # as in models that were trained before there was one
    assert set(vae.get_config()) == {*table.load().get_config()} - {"preparation_digest"}
    Run(out).save(vae)
    (out / "config.toml").write_text(
        dataclasses.replace(table.config, preparation=others[0]).to_toml()
    )
    assert Run(out).load().preparation_digest is None


def test_the_digest_of_a_preparation_is_that_of_its_numbers(tmp_path: Path) -> None:
    third = float(np.float32(1 / 3))
    preparations = [
        Preparation(),
        Preparation("binarize", 255.0),
        Preparation("dequantize", levels=256),
        Preparation(categories=3),
        Preparation(center=(third, -1e-30), spread=(1e30, third), whole=(True, False)),
        Preparation(center=(third, -1e-30), spread=(1e30, third), constant=(True, False)),
    ]
    for preparation in preparations:
        config = dataclasses.replace(CONFIG, preparation=preparation)
        (tmp_path / "config.toml").write_text(config.to_toml())
        read = read_config(tmp_path / "config.toml").preparation
        assert read is not None
        assert read.digest == preparation.digest
    assert len({preparation.digest for preparation in preparations}) == len(preparations)
    assert Preparation("binarize", 255).digest == preparations[1].digest
    assert Preparation(sentence="nothing").digest == Preparation().digest
    # As a constant: models that are on disk hold it.
    assert preparations[1].digest.startswith("6f3d132daa86c578")


def test_columns_are_matched_by_name(table: Run) -> None:
    def held_out(name: str) -> np.ndarray:
        run = Run(table.path)
        path = str(table.path.parent / name)
        run.config = dataclasses.replace(run.config, test_data=path)
        return run.raw()[1]

    expected = table.raw()[1]
    np.testing.assert_array_equal(held_out("reversed.csv"), expected)
    np.testing.assert_array_equal(held_out("plain.npy"), expected)
    with pytest.raises(data.DataError, match="lacks salary and holds wage, which the model does"):
        held_out("other.csv")
    with pytest.raises(RunError, match="has 2 columns without names; expected 3: age, salary"):
        held_out("narrow.npy")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("mean", [False, True])
def test_a_sampled_table_is_read_back(suffix: str, mean: bool, table: Run, tmp_path: Path) -> None:
    out, plain = tmp_path / f"s.{suffix}", tmp_path / "s.npy"
    for path in (out, plain):
        words = ["sample", table.path, "--n", "20", "--out", path, *(["--mean"] if mean else [])]
        code, output = invoke(*words)
        assert code == 0, output
    back = data.load(out)
    assert back.feature_names == ("age", "salary", "height")
    np.testing.assert_array_equal(back.x.astype(np.float32), np.load(plain))
    if suffix == "csv":
        first = out.read_text().splitlines()[1].split(",")
        assert ["." in word for word in first] == [mean, mean, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data = 'digits'\nlatent_size = 3", "unknown settings: latent_size"),
        ("latent = 3", "names no data"),
        ("data = [", "is not TOML"),
        (
            "data = 'digits'\nnetwork = 'rnn'",
            "network to be one of mlp, conv, recurrent, convolution, attention; got 'rnn'",
        ),
        ("data = 'digits'\nepochs = 0", "epochs of at least 1; got 0"),
        ("data = 'digits'\nlearning_rate = -1.0", "positive learning_rate"),
    ],
)
def test_a_bad_configuration_is_reported(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(RunError, match=message):
        read_config(path)


def test_nan_stops_training_and_the_last_good_model_stays(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(dataclasses.replace(CONFIG, epochs=1), out)
    good = (out / "model.keras").read_bytes()
    trained = Run(out)
    vae = trained.load()
    vae.optimizer.learning_rate.assign(1e38)
    trained.save(vae)
    broken = (out / "model.keras").read_bytes()
    code, output = invoke("train", "--out", out, "--resume", "--epochs", "3")
    assert code == 1
    assert "became" in output
    assert "epoch 2" in output
    assert f"Continue after its last finished epoch with: {run.resume_command(out)}" in output
    assert (out / "model.keras").read_bytes() == broken != good


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--learning-rate", "-1"), "positive learning_rate"),
        (("--learning-rate", "1e300"), "became NaN or infinite at the end of epoch 1"),
        (("--likelihood", "poisson"), "Poisson models counts"),
        (("--likelihood", "bernoulli"), "bernoulli models images and numbers"),
    ],
)
def test_a_refused_training_leaves_nothing(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    table = tmp_path / "table.npy"
    np.save(table, np.random.default_rng(0).normal(size=(40, 2)))
    out = tmp_path / "runs" / "first"
    code, output = invoke("train", "--data", table, "--hidden", "4", "--out", out, *words)
    assert code == 1
    assert message in output
    assert "--resume" not in output
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--out", "x"], "Name the data to train on"),
        (["train", "--data", "missing.npz", "--out", "x"], "missing.npz"),
        (["train", "--data", "digits", "--hidden", "wide", "--out", "x"], "is not like 200,200"),
        (["train", "--data", "digits", "--scale", "0", "--likelihood", "normal", "--out", "x"],
         "Invalid value for argument `scale`"),
        (["train", "--data", "digits", "--objective", "iwae", "--kl", "analytic", "--out", "x"],
         "kl does nothing with objective = 'iwae': leave it out."),
        (["train", "--data", "digits", "--drop", "a", "--out", "x"], "has no columns with names"),
        (["train", "--data", "digits", "--likelihood", "binomial", "--top", "9", "--out", "x"],
         "The largest possible value is set to 9, but the data reaches 16."),
        (["evaluate", "nowhere"], "nowhere is not a run directory"),
        (["sample", "nowhere", "--out", "x.npy"], "nowhere is not a run directory"),
    ],
)  # fmt: skip
def test_commands_fail_with_one_sentence(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = invoke(*words)
    assert code != 0
    assert message in output
    assert "Traceback" not in output
    assert not (tmp_path / "x").exists()


def test_truncated_and_damaged_models_are_told(finished: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.toml").write_bytes((finished.path / "config.toml").read_bytes())
    with pytest.raises(RunError, match=r"holds no model\.keras yet"):
        Run(out).load()
    (out / "model.keras").write_bytes(finished.model_path.read_bytes()[:1000])
    for words in (
        ["evaluate", out],
        ["sample", out, "--out", tmp_path / "s.npy"],
        ["report", out],
        ["train", "--resume", "--epochs", "4", "--out", out],
        ["export", out / "model.keras", "--out", tmp_path / "art"],
    ):
        code, output = invoke(*words)
        assert code == 1
        assert (
            "model.keras is damaged: expected a complete model file as Keras saves it; " in output
        )
        assert output.endswith(
            "got 1000 bytes that are cut off or changed: restore it from a backup, or train again "
            "with another --out."
        )
    whole = bytearray(finished.model_path.read_bytes())
    whole[len(whole) // 2] ^= 255
    (out / "model.keras").write_bytes(whole)
    with pytest.raises(RunError, match=r"model\.keras is damaged"):
        run.refuse_damaged(out / "model.keras")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: None, "with one row per finished epoch; there is none"),
        (lambda lines: [], "to hold 3 rows, one per finished epoch of the model; it holds 0"),
        (
            lambda lines: lines[:3],
            "to hold 3 rows, one per finished epoch of the model; it holds 2",
        ),
        (lambda lines: [*lines[:2], "garbage", lines[3]], "the row of epoch 2 is damaged"),
        (lambda lines: [*lines[:3], lines[3] + ",7"], "the row of epoch 3 is damaged"),
        (lambda lines: [lines[0], *lines[2:]], "the row of epoch 1 is damaged"),
        (lambda lines: lines[1:], "the row of epoch 1 is damaged"),
    ],
)
def test_a_damaged_history_is_reported(damage, message: str, finished: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    lines = damage((out / "history.csv").read_text().splitlines())
    if lines is None:
        (out / "history.csv").unlink()
    else:
        (out / "history.csv").write_text("\n".join(lines))
    before = (out / "model.keras").read_bytes()
    for words in (
        ["report", out],
        ["train", "--resume", "--epochs", "3", "--out", out],
        ["train", "--resume", "--epochs", "4", "--out", out],
    ):
        code, output = invoke(*words)
        assert code == 1
        assert f"{message}: restore it from a backup, or train again with another --out." in output
    assert (out / "model.keras").read_bytes() == before


def test_every_row_of_a_resumed_history_counts_epochs_in_integers(
    finished: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    train(dataclasses.replace(CONFIG, epochs=4), out, resume=True)
    rows = (out / "history.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["sample", "run", "--out", "a.npy", "--n", "0"],
            "'--n': expected an integer of at least 1",
        ),
        (
            ["evaluate", "run", "--num-samples", "0"],
            "'--num-samples': expected an integer of at least 1",
        ),
        (
            ["evaluate", "run", "--limit", "-3"],
            "'--limit': expected an integer of at least 0; got -3",
        ),
    ],
)
def test_numbers_that_are_too_small_are_refused_by_name(words: list[str], message: str) -> None:
    code, output = invoke(*words)
    assert code == 2
    assert message in output


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("center = [1.0, 2.0]\nspread = [1.0]", "got center of 2, spread of 1"),
        ("spread = [1.0]", "got spread of 1"),
        ("center = [1.0]", "got center of 1, spread of 0"),
        ("center = [1.0]\nspread = [1.0]\nwhole = [true, true]", "spread of 1, whole of 2"),
        (
            "center = 1.0\nspread = [1.0]",
            "center of .preparation. to be a list of numbers; got 1.0",
        ),
    ],
)
def test_a_preparation_of_wrong_lengths_is_reported(
    section: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"data = 'digits'\nlikelihood = 'normal'\n[preparation]\n{section}\n")
    with pytest.raises(RunError, match=f"{message}: restore it from a backup"):
        read_config(path)


def test_evaluate_and_sample(finished: Run, tmp_path: Path) -> None:
    code, output = invoke("evaluate", finished.path, "--num-samples", "20", "--limit", "50")
    assert code == 0, output
    assert "independent pixels" in output
    values = run.read_json(finished.path / "evaluation.json")
    # A bound with 20 samples lies above the bound with one, up to their errors.
    error = values["elbo"]["standard_error"] + values["log_marginal"]["standard_error"]
    assert values["log_marginal"]["mean"] > values["elbo"]["mean"] - 4 * error
    assert values["log_marginal"]["heavy_tails"] is None, "20 draws have no tail"
    heavy = {**values["log_marginal"], "heavy_tails": 7}
    notes = measurements.table({**values, "log_marginal": heavy}).notes
    assert any(note.startswith("For 7 of 50 examples a few draws dominate") for note in notes)
    # The rates of the latents sum to that of the model, whose prior and posterior factorise.
    assert sum(values["rate_per_latent"]) == pytest.approx(values["rate"]["mean"], rel=1e-5)
    code, output = invoke("evaluate", finished.path, "--num-samples", "20", "--limit", "1")
    assert code == 0, output
    alone = run.read_json(finished.path / "evaluation.json")
    assert alone["log_marginal"]["standard_error"] is None
    for suffix in ("npy", "csv", "png"):
        first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        for path in (first, second):
            code, output = invoke("sample", finished.path, "--n", "9", "--seed", "3", "--out", path)
            assert code == 0, output
        assert first.read_bytes() == second.read_bytes()
    draws = np.load(tmp_path / "a.npy")
    assert draws.shape == (9, 8, 8, 1)
    assert set(np.unique(draws)) <= {0.0, 16.0}  # in the units of the file
    code, output = invoke("sample", finished.path, "--out", tmp_path / "nodir" / "a.npy")
    assert code == 1
    assert "nodir: there is no such directory; make it first." in output
    code, output = invoke("sample", finished.path, "--out", tmp_path / "a.txt")
    assert code == 1
    assert ".npy, .csv, .parquet or .png" in output


@pytest.mark.parametrize(
    ("likelihood", "raw", "step", "prepared"),
    [
        (
            "bernoulli",
            np.array([0, 255, 255, 0], np.uint8).reshape(2, 1, 2, 1),
            "binarize",
            {0.0, 1.0},
        ),
        ("bernoulli", np.array([[0.0, 1.0], [1.0, 1.0]]), "none", {0.0, 1.0}),
        (
            "continuous_bernoulli",
            np.float32([0, 4, 2, 4]).reshape(2, 2, 1, 1),
            "none",
            {0.0, 0.5, 1.0},
        ),
        ("poisson", np.array([[0, 4], [2, 4]]), "none", {0.0, 2.0, 4.0}),
        ("normal", np.array([[1.5, 5.5], [3.5, 9.5]]), "none", {-1.0, 1.0}),
        ("categorical", np.array([[0, 2], [1, 2]]), "none", {0.0, 1.0}),
    ],
)
def test_preparation(likelihood: str, raw: np.ndarray, step: str, prepared: set[float]) -> None:
    preparation, _ = prepare(LIKELIHOODS[likelihood], raw)
    assert preparation.step == step
    assert set(np.unique(preparation.array(raw))) == prepared
    if likelihood == "categorical":
        assert preparation.array(raw).shape == (2, 2, 3)


def test_dequantised_bounds_are_bounds_on_levels() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (50, 2, 2, 1)).astype(np.uint8)
    preparation, _ = prepare(LIKELIHOODS["normal"], raw)
    assert preparation.step == "dequantize"
    x = preparation.array(raw)
    assert ((x >= 0) & (x < 1)).all()
    np.testing.assert_array_equal(np.floor(x * 256), raw)
    assert preparation.nats_offset == pytest.approx(-np.log(256))
