"""Runs of time series: tables with one row a step, arrays with lengths, holes and units."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from click.testing import CliRunner

from keras_vae import commands
from keras_vae.cli import main
from keras_vae.data import DataError, lengths
from keras_vae.data.long_series import cut, split_by_time
from keras_vae.data.preparation import Preparation
from keras_vae.data.series_files import load_series
from keras_vae.distributions.supports import reals
from keras_vae.report import draws
from keras_vae.report.subject import Subject
from keras_vae.runs import baselines, sequences
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.run import Run

COUNTS = [6, 4, 6, 5] * 10


def table() -> pd.DataFrame:
    """Series of two columns in units of their own, rows in no order, one cell empty."""
    rng = np.random.default_rng(0)
    frames = [
        pd.DataFrame(
            {
                "patient": f"p{k:02d}",
                "hour": np.arange(count) * 0.5,
                "pulse": 70.0 + 5.0 * rng.normal(size=count),
                "pressure": 120.0 + 20.0 * rng.normal(size=count),
            }
        )
        for k, count in enumerate(COUNTS)
    ]
    frame = pd.concat(frames, ignore_index=True)
    frame.loc[7, "pulse"] = np.nan
    return frame


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with series.csv, and the run of a model trained on it."""
    folder = tmp_path_factory.mktemp("series")
    table().sample(frac=1.0, random_state=0).to_csv(folder / "series.csv", index=False)
    words = [
        *("train", "--data", folder / "series.csv", "--out", folder / "run"),
        *("--id-column", "patient", "--time-column", "hour", "--network", "convolution"),
        *("--hidden", 4, "--latent", 2, "--epochs", 2, "--batch-size", 12, "--seasons", 3),
    ]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    assert "36 training and 4 test examples; 6 steps of pulse, pressure" in result.output
    return folder


def test_rows_become_series_whatever_their_order(folder: Path) -> None:
    found = load_series(folder / "series.csv", id_column="patient", time_column="hour")
    assert found.names == ("pulse", "pressure")
    by_patient = dict(
        zip(pd.read_csv(folder / "series.csv")["patient"].unique(), found.x, strict=True)
    )
    frame = table()
    for patient, x in by_patient.items():
        own = frame[frame["patient"] == patient][["pulse", "pressure"]].to_numpy()
        np.testing.assert_allclose(x[: len(own)], own, rtol=1e-12)  # text of doubles
        assert np.isnan(x[len(own) :]).all()


def test_nats_are_those_of_the_units_of_the_file(folder: Path) -> None:
    """log p of the numbers in the file is that of the standardised ones minus log of the spreads
    of what is present."""
    run = Run(folder / "run")
    vae, how = run.load(), run.preparation
    raw = run.raw()[1]
    present = ~np.isnan(raw)
    assert how.spread[1] > 10.0
    x = how.array(raw)
    np.testing.assert_allclose(x[present], ((raw - how.center) / how.spread)[present], atol=1e-4)
    offset = -(present * np.log(how.spread)).sum(axis=(1, 2))
    values = commands.evaluate(
        run, num_samples=5, limit=0, seed=0, progress=False, report=lambda line: None
    )
    elbo = np.asarray(vae.elbo(x, seed=0).elbo, np.float64) + offset
    assert values["elbo"]["mean"] == pytest.approx(elbo.mean(), rel=1e-12)
    steps = int(lengths(raw).sum())
    assert values["per_step"]["elbo"] == pytest.approx(elbo.sum() / steps, rel=1e-12)
    assert "perplexity" not in values["per_step"]
    assert values["bits_per_dim"] is None
    units = run.units(vae)
    assert units.offset_of("test") == pytest.approx(offset.mean(), rel=1e-12)
    train = ~np.isnan(run.raw()[0])
    mean = -(train * np.log(how.spread)).sum(axis=(1, 2)).mean()
    assert units.offset_of("train") == pytest.approx(mean, rel=1e-12)


def test_independent_entries_of_what_is_present() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 4, 2)) * [1.0, 9.0] + [0.0, 50.0]
    x[::3, 2:] = np.nan
    x[1, 0, 1] = np.nan
    how = Preparation(center=(0.0, 50.0), spread=(1.0, 9.0))
    (found,) = baselines.log_probs(x[:20], x[20:], how, reals(), 2).values()
    train = x[:20].reshape(-1, 2)
    normal = scipy.stats.norm(np.nanmean(train, axis=0), np.nanstd(train, axis=0))
    expected = np.nansum(normal.logpdf(x[20:]), axis=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # the preparation is in float32


def test_what_is_present_has_the_statistics_of_the_entries() -> None:
    x = np.full((2, 3, 2), np.nan)
    x[0] = [[1.0, 5.0], [2.0, np.nan], [3.0, np.nan]]
    x[1, 0] = [4.0, 7.0]
    found = sequences.present_steps(x)
    assert found.shape == (4, 1, 2)
    assert sorted(found[:, 0, 0]) == [1.0, 2.0, 3.0, 4.0]
    assert sorted(found[:, 0, 1]) == [5.0, 5.0, 7.0, 7.0]
    with pytest.raises(DataError, match="never observed"):
        sequences.present_steps(x * [1.0, np.nan])


def test_report_draws_lines_with_gaps(folder: Path) -> None:
    titles = [each.title for each in draws.draws(Subject.of(Run(folder / "run"), 0))]
    assert titles == [
        f"{kind}, {name}"
        for name in ("pulse", "pressure")
        for kind in ("Test data", "Draws from p(x)")
    ]


def test_arrays_with_lengths(tmp_path: Path) -> None:
    values = np.arange(24.0).reshape(4, 6)
    np.savez(tmp_path / "s.npz", values=values, lengths=[6, 2, 1, 5])
    x = load_series(tmp_path / "s.npz").x
    assert x.shape == (4, 6, 1)
    assert lengths(x).tolist() == [6, 2, 1, 5]
    np.save(tmp_path / "s.npy", values.astype(int))
    np.testing.assert_array_equal(load_series(tmp_path / "s.npy").x[..., 0], values)
    for name, arrays, message in (
        ("a.npz", {"values": values, "lengths": [7, 1, 1, 1]}, "4 whole numbers from 1 to 6"),
        ("b.npz", {"values": values, "lengths": [1.5] * 4}, "4 whole numbers from 1 to 6"),
        ("c.npz", {"other": values}, "has no array `values`; it holds other"),
        ("d.npz", {"values": np.array([["a"]])}, "to hold numbers of shape"),
        ("e.npz", {"values": np.full((2, 3), np.inf)}, "infinite"),
        ("f.npz", {"values": np.full((2, 3), 1e39)}, "float32 cannot hold"),
        ("g.npz", {"values": values, "lengths": ["a"] * 4}, "4 whole numbers from 1 to 6.*<U1"),
        ("h.npz", {"values": values, "lengths": [np.nan] * 4}, "4 whole numbers from 1 to 6"),
        ("i.npz", {"values": values, "lengths": [1, 2]}, r"got an array of shape \(2,\)"),
    ):
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(DataError, match=message):
            load_series(tmp_path / name)
    (tmp_path / "j.npz").write_text("hello")
    with pytest.raises(DataError, match=r"j.npz is no .npz archive, or incomplete"):
        load_series(tmp_path / "j.npz")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n", {}, "name the column that says to which series a row belongs"),
        ("a,b\n1,2\n", {"id_column": "c"}, "has no column 'c'; it has a, b"),
        ("a,b\n1,2\n,3\n", {"id_column": "a"}, r"row 1 \(counted from 0\), has no a"),
        ("a,b\n1,x\n", {"id_column": "a"}, "'b' holds text or dates; leave it out with --drop"),
        ("a,b,t\n1,2,1\n1,3,1\n", {"id_column": "a", "time_column": "t"}, "two rows of the series"),
        ("a,b\n", {"id_column": "a"}, "no rows below its header"),
        ("a\n1\n", {"id_column": "a"}, "columns of numbers in .* beside a: got none"),
        ("a,b\n1,2\n", {"id_column": "a", "time_column": "a"}, "got 'a' twice. Name each once"),
        ("a,b\n1,2\n", {"id_column": "a", "drop": ("a",)}, "got 'a' twice. Name each once"),
        (
            "a,b,t\n1,2,t9\n1,3,t10\n",
            {"id_column": "a", "time_column": "t"},
            "Expected numbers or dates such as .*in 't'.*got 't9'",
        ),
        (
            "a,b,t\n1,2,28/02/2024\n1,3,01/03/2024\n",
            {"id_column": "a", "time_column": "t"},
            "Text has no order in time: write the times as numbers",
        ),
    ],
)
def test_what_is_no_series_is_refused_in_a_sentence(
    text: str, options: dict, message: str, tmp_path: Path
) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_series(tmp_path / "s.csv", **options)


def test_dates_order_the_steps(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("a,b,t\n1,2,2024-10-01\n1,3,2024-09-30 23:00\n")
    x = load_series(tmp_path / "s.csv", id_column="a", time_column="t").x
    assert x[..., 0].tolist() == [[3.0, 2.0]]


def test_networks_that_take_no_series_say_which_do() -> None:
    with pytest.raises(RunError, match="with network = 'mlp': choose recurrent, convolution"):
        RunConfig(data="s.csv", id_column="a").refuse_idle()


def test_digits_are_no_sequences() -> None:
    with pytest.raises(DataError, match="digits are images"):
        sequences.read_series(RunConfig(data="digits", network="recurrent"))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with long.csv, one series whose entry is its time, rows in no order."""
    folder = tmp_path_factory.mktemp("long")
    hours = pd.date_range("2024-01-01", periods=100, freq="h").astype(str)
    frame = pd.DataFrame({"hour": hours, "load": np.arange(100.0), "heat": 0.5})
    frame.sample(frac=1.0, random_state=0).to_csv(folder / "long.csv", index=False)
    return folder


def test_windows_of_one_series_are_split_by_time(long: Path) -> None:
    config = RunConfig(
        data=str(long / "long.csv"),
        time_column="hour",
        network="recurrent",
        window=8,
        stride=3,
        test_fraction=0.2,
    )
    found = sequences.read_series(config)
    np.testing.assert_array_equal(found.train[:, 0, 0], np.arange(0.0, 73.0, 3.0))
    np.testing.assert_array_equal(found.test[:, 0, 0], [80.0, 88.0])
    steps = found.train[:, :1, 0] + np.arange(8)
    np.testing.assert_array_equal(found.train[..., 0], steps)
    assert found.train[..., 0].max() < found.test[..., 0].min()
    assert found.sentence == (
        "windows of 8 steps of load, heat, split by time. Training windows start every 3 steps; "
        "test windows do not overlap, and lie in the last 20 of 100 steps"
    )
    other = dataclasses.replace(config, test_data=config.data, entries=("heat", "load"))
    found = sequences.read_series(other)
    assert found.names == ("heat", "load")
    assert len(found.train) == 31
    np.testing.assert_array_equal(found.test[:, 0, 1], np.arange(0.0, 89.0, 8.0))


def test_windows_of_many_series_and_of_holes() -> None:
    x = np.full((2, 12, 1), np.nan)
    x[0, :, 0] = np.arange(12.0)
    x[1, :6, 0] = 100.0 + np.arange(6.0)
    x[0, 2:4] = np.nan
    found = split_by_time(x, 2, 2, test_fraction=1 / 3)
    assert found.train[:, 0, 0].tolist() == [0.0, 4.0, 6.0, 100.0, 102.0]
    assert found.test[:, 0, 0].tolist() == [8.0, 10.0, 104.0]
    assert (found.steps, found.test_steps, found.left_out) == (18, 6, 1)
    assert cut(x, 5, 5)[:, 0, 0].tolist() == [0.0, 5.0, 100.0]
    with pytest.raises(DataError, match=r"for the test in the last 6 of 18 steps of 2 series"):
        split_by_time(x, 5, 1, test_fraction=1 / 3)
    with pytest.raises(DataError, match="of 13 steps or more, the length of a window; got at most"):
        cut(x, 13, 1)


def test_long_series_from_the_command_line(long: Path) -> None:
    def invoke(*words: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, list(map(str, words)))
        return result.exit_code, " ".join(result.output.split())

    about = ("--data", long / "long.csv", "--network", "convolution", "--hidden", 4)
    code, output = invoke("train", *about, "--window", 8, "--out", long / "a")
    assert (code, "order the steps by it with --time-column" in output) == (1, True)
    code, output = invoke("train", *about, "--out", long / "a")
    assert (code, "into windows with --window" in output) == (1, True)
    code, output = invoke("train", *about, "--stride", 8, "--out", long / "a")
    assert (code, "stride does nothing without window" in output) == (1, True)
    code, output = invoke(
        *("train", *about, "--time-column", "hour", "--window", 8, "--latent", 2),
        *("--epochs", 1, "--out", long / "run"),
    )
    assert code == 0, output
    assert "11 training and 1 test examples; windows of 8 steps of load, heat" in output
    code, output = invoke("sample", long / "run", "--n", 3, "--out", long / "drawn.csv")
    assert code == 0, output
    drawn = load_series(long / "drawn.csv", id_column="series", time_column="step")
    assert (drawn.x.shape, drawn.names) == ((3, 8, 2), ("load", "heat"))
    invoke("sample", long / "run", "--n", 3, "--out", long / "drawn.npy")
    np.testing.assert_allclose(drawn.x, np.load(long / "drawn.npy"), rtol=1e-8)  # nine digits


@pytest.mark.parametrize(
    ("times", "remark"),
    [
        ([0, 1, 2, 3, 4, 5], ""),
        ([5, 3, 4, 1, 2, 0], ""),
        (["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31", "2024-06-30"], ""),
        ([0, 1, 2, 5, 6, 7], "1 of 5 steps between rows are not 1.0 in 'at', the commonest,"),
        (
            [f"2024-01-01 {hour:02}:00" for hour in (0, 1, 3, 4, 5, 9)],
            "2 of 5 steps between rows are not 0 days 01:00:00 in 'at', the commonest,",
        ),
    ],
)
def test_rows_that_are_not_equally_far_apart_are_counted(tmp_path: Path, times, remark) -> None:
    frame = pd.DataFrame({"at": times, "load": np.arange(6.0)})
    frame.to_csv(tmp_path / "long.csv", index=False)
    found = load_series(tmp_path / "long.csv", time_column="at", long=True).remark
    assert found.startswith(remark)
    assert bool(found) == bool(remark)

    two = pd.concat([frame.assign(id="a"), frame.assign(id="b")])  # the way from a to b is no step
    two.to_csv(tmp_path / "two.csv", index=False)
    data = str(tmp_path / "two.csv")
    columns = {"id_column": "id", "time_column": "at", "network": "recurrent"}
    config = RunConfig(data=data, test_fraction=0.5, **columns)
    sentence = sequences.read_series(config).sentence
    assert ("of 10 steps between rows" in sentence) == bool(remark)


def test_texts_have_no_windows() -> None:
    with pytest.raises(RunError, match="window is for time series, and this data is texts"):
        RunConfig(data="a.txt", window=4)


def test_arrays_of_one_long_series(tmp_path: Path) -> None:
    for shape in ((12,), (12, 1), (1, 12, 1)):
        np.save(tmp_path / "long.npy", np.arange(12.0).reshape(shape))
        assert load_series(tmp_path / "long.npy", long=True).x.shape == (1, 12, 1)
