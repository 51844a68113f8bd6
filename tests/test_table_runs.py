"""Runs of tables as they are: from a file with holes to a filled file, by commands alone."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from keras_vae import data, evaluation
from keras_vae.cli import main
from keras_vae.data import DataError
from keras_vae.data.encoded import encoded_rows
from keras_vae.data.lazy_rows import LazyRows
from keras_vae.report import figures, page, table_draws
from keras_vae.report.subject import Subject
from keras_vae.runs import measurements, table_files, table_measures, tables
from keras_vae.runs.config import RunConfig, RunError
from keras_vae.runs.run import Run
from keras_vae.runs.train import train

ROWS = 240


def people() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    tall = rng.random(ROWS) < 0.5
    job = np.where(tall ^ (rng.random(ROWS) < 0.1), "smith", "clerk").astype(object)
    job[rng.random(ROWS) < 0.15] = None
    age = pd.Series(rng.poisson(np.where(tall, 60.0, 20.0)), dtype="Int64")
    age[rng.random(ROWS) < 0.1] = pd.NA
    return pd.DataFrame(
        {
            "id": np.arange(1000, 1000 + ROWS),
            "age": age,
            "job": job,
            "height": np.round(np.where(tall, 1.9, 1.6) + 0.05 * rng.normal(size=ROWS), 3),
            "town": rng.choice(["Oslo", "Rome", "Lima"], ROWS),
        }
    )


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(word) for word in words])
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people.csv, and the run of a model trained on it."""
    folder = tmp_path_factory.mktemp("tables")
    people().to_csv(folder / "people.csv", index=False)
    code, output = invoke(
        *("train", "--data", folder / "people.csv", "--out", folder / "run"),
        *("--epochs", 2, "--hidden", 8, "--latent", 2, "--batch-size", 54),
    )
    assert code == 0, output
    assert "4 of 5 columns are modelled; 240 rows" in output
    assert "id is left out: an identifier" in output
    assert "216 training and 24 test rows" in output
    return folder


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> dict:
    code, output = invoke("evaluate", folder / "run", "--num-samples", 20)
    assert code == 0, output
    assert "independent columns" in output
    assert "24 rows, hidden at random" in output
    return json.loads((folder / "run" / "evaluation.json").read_text())


def test_a_table_in_a_cache_gives_the_numbers_of_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same schema, noise, batches, weights and measurements, to the bit."""
    path = tmp_path / "people.parquet"
    people().to_parquet(path)
    monkeypatch.setattr("keras_vae.data.tables._ROWS_AT_ONCE", 100)
    options = ("--epochs", 2, "--hidden", 4, "--latent", 2, "--batch-size", 54)
    runs = []
    for name, cache in (("memory", ()), ("cache", ("--cache", tmp_path / "kept"))):
        out = tmp_path / name
        code, output = invoke("train", "--data", path, "--out", out, *options, *cache)
        assert code == 0, output
        assert "216 training and 24 test rows" in output
        assert invoke("evaluate", out, "--num-samples", 10)[0] == 0
        runs.append(Run(out))
    tables_ = [run.table() for run in runs]
    assert isinstance(tables_[1].train.x["age"], LazyRows)
    for mine, theirs in zip(tables_[0], tables_[1], strict=True):
        if isinstance(mine, tables.TableRows):
            for name, value in mine.x.items():
                np.testing.assert_array_equal(np.asarray(theirs.x[name]), value)
            pd.testing.assert_frame_equal(
                theirs.few().frame, mine.few().frame[[*theirs.few().frame]], check_dtype=False
            )
    weights = [run.load().get_weights() for run in runs]
    for mine, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(theirs, mine)
    first, second = (json.loads((run.path / "evaluation.json").read_text()) for run in runs)
    assert second == first


def test_a_cache_keeps_parquet_alone_and_names_the_rows_at_fault(
    folder: Path, tmp_path: Path
) -> None:
    code, output = invoke(
        *("train", "--data", folder / "people.csv", "--out", tmp_path / "run", "--missing"),
        *("--cache", tmp_path / "kept"),
    )
    assert code == 1
    assert "Write it as one" in output
    assert not (tmp_path / "kept").exists()
    frame = people()
    schema = data.Schema.of(frame)
    frame.loc[ROWS - 1, "town"] = "Paris"
    frame.to_parquet(tmp_path / "people.parquet")
    with pytest.raises(DataError, match=r"begins at row 0 and ends before 240.*'Paris' in row 239"):
        encoded_rows(schema, tmp_path / "people.parquet", tmp_path / "kept", 0)
    assert list((tmp_path / "kept").iterdir()) == []


def test_bounds_and_columns_are_in_nats_of_the_table(folder: Path, evaluated: dict) -> None:
    run = Run(folder / "run")
    vae, table = run.load(), run.table()
    offset = table.schema.row_nats(table.test.x)
    bound = vae.elbo(table.test.x, seed=0)
    assert evaluated["elbo"]["mean"] == pytest.approx(np.mean(bound.elbo + offset), rel=1e-6)
    by_column = table_measures.column_distortions(vae, table.test.x, 0)
    # Both are float32 sums of four columns.
    np.testing.assert_allclose(np.sum([*by_column.values()], axis=0), bound.distortion, rtol=1e-5)
    columns = evaluated["columns"]
    assert list(columns) == ["age", "job", "height", "town"]
    total = sum(each["present"] * each["distortion"] for each in columns.values())
    assert total == pytest.approx(evaluated["distortion"]["mean"], rel=1e-5)
    independent = evaluation.IndependentColumns.fit(table.train.frame, table.schema)
    log_q = independent.log_probs(table.test.frame)
    for name, found in columns.items():
        seen = table.test.frame[name].notna().to_numpy()
        assert found["present"] == pytest.approx(seen.mean())
        assert found["independent"] == pytest.approx(-log_q[name][seen].mean())
    np.testing.assert_allclose(
        evaluated["baselines"]["independent columns"]["mean"], np.mean([*log_q.values()], 1).sum()
    )
    assert run.history()[-1]["val_elbo"] < 0.0


def test_hidden_cells_are_counted_and_compared(evaluated: dict) -> None:
    hidden = evaluated["hidden_cells"]
    assert set(hidden["columns"]) <= {"age", "job"}  # nothing else may be missing
    for name, found in hidden["columns"].items():
        assert found["cells"] > 0
        assert found["error"] >= 0.0
        assert found["measure"].startswith("share" if name == "job" else "error")


@pytest.mark.filterwarnings("ignore:The importance weights")
def test_impute_fills_the_holes_and_nothing_else(folder: Path) -> None:
    out = folder / "filled.csv"
    words = ("impute", folder / "run", "--data", folder / "people.csv", "--out", out)
    code, output = invoke(*words, "--num-samples", 30)
    assert code == 0, output
    given, filled = pd.read_csv(folder / "people.csv"), pd.read_csv(out)
    missing = given.isna()
    count = int(missing.to_numpy().sum())
    assert f"Filled {count} cells in {int(missing.any(axis=1).sum())} of 240 rows" in output
    assert "Effective sample size of 30 draws" in output
    assert list(filled) == list(given)
    assert not filled.isna().to_numpy().any()
    assert filled["age"].dtype == "int64"  # whole numbers stay whole
    for name in given:
        seen = ~missing[name]
        assert (filled[name][seen] == given[name][seen]).all()

    run = Run(folder / "run")
    single = run.load().impute(data.load_frame(folder / "people.csv"), 30, multiple=20, seed=0)
    assert filled["job"].tolist() == single.values["job"].tolist()
    assert filled["age"].tolist() == single.values["age"].tolist()

    code, output = invoke(*words)
    assert code == 1
    assert "filled.csv exists: choose another --out, or replace it with --overwrite" in output


@pytest.mark.filterwarnings("ignore:The importance weights")
def test_multiple_imputations_are_one_file_each(folder: Path) -> None:
    words = ("impute", folder / "run", "--data", folder / "people.csv", "--num-samples", 30)
    code, output = invoke(*words, "--out", folder / "many.parquet", "--multiple", 3)
    assert code == 0, output
    tables = [pd.read_parquet(folder / f"many-{k}.parquet") for k in (1, 2, 3)]
    assert not any(table.isna().to_numpy().any() for table in tables)
    assert not tables[0].equals(tables[1])
    holes = data.load_frame(folder / "people.csv")
    drawn = Run(folder / "run").load().impute(holes, 30, multiple=3, seed=0).draws
    for table, one in zip(tables, drawn, strict=True):
        assert table["job"].tolist() == one["job"].tolist()
    assert not list(folder.glob(".keras_vae*"))


def test_scores_of_rows_are_the_bound_and_its_terms_in_nats_of_the_table(folder: Path) -> None:
    run = Run(folder / "run")
    vae, table = run.load(), run.table()
    x, frame = table.test.x, table.test.frame
    scores = evaluation.row_scores(vae, x, seed=0)
    expected = vae.elbo(x, seed=0).elbo + table.schema.row_nats(x)
    np.testing.assert_allclose(scores["elbo"], expected, rtol=1e-5)  # float32 sums of five terms
    names = list(table.schema.columns)
    terms = scores[[f"log p({name})" for name in names]].set_axis(names, axis=1)
    np.testing.assert_array_equal(terms.isna(), frame[names].isna())
    assert terms.isna().to_numpy().any()
    np.testing.assert_allclose(terms.sum(axis=1) - scores["rate"], scores["elbo"], rtol=1e-12)
    of_frame = evaluation.row_scores(vae, frame.iloc[3:6])
    assert list(of_frame.index) == list(frame.index[3:6])


def test_a_number_that_most_rows_have_is_told_and_not_drawn() -> None:
    real = pd.Series([0] * 30 + [*range(1, 21)])
    made = pd.Series([0] * 10 + [*range(1, 31)])
    found, drawn, words = table_draws._without_most_frequent(real, made)
    assert (len(found), len(drawn)) == (20, 30)
    assert "other than 0, which 60.0% of the test data and 25.0% of the draws have" in words
    for rows in (made, real.where(real > 12, 0)):  # no such number, and too few others
        kept = table_draws._without_most_frequent(rows, made)
        assert kept[0] is rows
        assert not kept[2]


def test_bars_of_whole_numbers_hold_equally_many_of_them() -> None:
    rng = np.random.default_rng(0)
    for top in (40, 90, 5000):
        real = rng.integers(17, top, 1000).astype(float)
        ends = figures.edges(real, real)
        steps = np.diff(ends)
        assert len(steps) <= 62
        np.testing.assert_array_equal(steps, np.round(steps[0]))
        assert ((ends - 0.5) % 1.0 == 0.0).all()
        assert ends[0] < np.quantile(real, 0.005)
        assert ends[-1] > np.quantile(real, 0.995)


def test_the_notes_name_the_errors_there_are_and_a_model_that_has_not_learned() -> None:
    values = {
        "columns": {"stars": {"present": 0.9, "distortion": 1.4, "independent": 1.3}},
        "hidden_cells": {
            "share": 0.2,
            "rows": 40,
            "least_effective_sample_size": 30.0,
            "columns": {"stars": {"error": 0.8, "simple": 0.9, "measure": "levels apart"}},
        },
        "observed_per_row": 0.9,
        "variables": 1,
        "rate": {"mean": 0.1},
        "log_marginal": {"mean": -1.5},
        "baselines": {"independent columns": {"mean": -1.3}},
    }
    found = measurements.columns(values)
    assert found is not None
    assert found.rows == [("stars", "90.0%", "1.400", "1.300", "0.800", "0.900")]
    notes = " ".join(found.notes)
    assert "the mean distance of ordered levels; middle: those of the median level." in notes
    assert "not better than independent columns" in notes
    values["log_marginal"] = {"mean": -1.2}
    assert "not better" not in " ".join(measurements.columns(values).notes)


def test_draws_that_lie_elsewhere_are_shown() -> None:
    for real in (np.array([101.25, 101.5]), np.array([101.0, 103.0])):
        ends = figures.edges(real, np.linspace(50.0, 90.0, 41))
        assert ends[0] < 52.5
        assert ends[-1] > real.max() - 0.1


def test_the_report_shows_columns_and_drawn_rows(folder: Path, evaluated: dict) -> None:
    run = Run(folder / "run")
    subject = Subject.of(run, 0)
    pictures = table_draws.table_draws(subject)
    assert [picture.title for picture in pictures] == ["age", "job", "height", "town"]
    assert "of the test data is missing" in pictures[0].caption
    real = run.table().train.frame[list(run.table_schema.columns)]
    compared = evaluation.synthetic_report(
        real, subject.vae.sample(40, 0)[list(real)], real[:60], most=20
    )
    columns, pairs = table_draws.compared(compared)
    assert columns.title == "Columns, one by one"
    worst = (compared.pairs["train"] - compared.pairs["synthetic"]).abs().idxmax()
    assert "6 pairs of columns" in pairs.caption
    assert f"{worst[0]} and {worst[1]}, " in pairs.caption
    text = page.page(subject, "Fine.", [("Data and draws", pictures)], None, compared)
    assert "4 of 5 columns, each with its own likelihood" in text
    assert "middle: those of the most frequent label" in text
    assert "Drawn rows beside real ones" in text
    measured = f"{evaluated['columns']['town']['independent']:.3f}"
    assert f'<td class="number">{measured}</td>' in text


def test_draws_are_rows_of_the_table(folder: Path) -> None:
    code, output = invoke("sample", folder / "run", "--n", 30, "--out", folder / "draws.csv")
    assert code == 0, output
    drawn = pd.read_csv(folder / "draws.csv")
    assert list(drawn) == ["age", "job", "height", "town"]
    assert len(drawn) == 30
    assert set(drawn["job"]) <= {"smith", "clerk"}
    assert drawn["age"].dtype == "int64"
    code, output = invoke("sample", folder / "run", "--out", folder / "draws.png")
    assert code == 1
    assert "Expected --out to end in .csv" in output


def test_a_resumed_training_is_the_uninterrupted_one(folder: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(Run(folder / "run").config, schema="", row_nats=())
    train(dataclasses.replace(config, epochs=1), tmp_path / "resumed")
    resumed = train(dataclasses.replace(config, epochs=2), tmp_path / "resumed", resume=True)
    whole = Run(folder / "run")
    assert resumed.history() == whole.history()
    for mine, theirs in zip(resumed.load().get_weights(), whole.load().get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_edited_schema_trains_another_model(folder: Path, tmp_path: Path) -> None:
    schema = Run(folder / "run").table_schema
    text = schema.to_toml().replace('kind = "real"', 'kind = "positive"', 1)
    text = text.replace("[columns.job]", "[columns.job]\nmissing_values = ['none yet']")
    (tmp_path / "schema.toml").write_text(text)
    marked = people()
    marked.loc[marked["job"].isna(), "job"] = "none yet"
    marked.to_csv(tmp_path / "marked.csv", index=False)
    config = RunConfig(
        data=str(tmp_path / "marked.csv"),
        schema=str(tmp_path / "schema.toml"),
        hidden=(4,),
        latent=1,
        epochs=1,
    )
    with pytest.raises(RunError, match="already says which columns are left out"):
        train(dataclasses.replace(config, missing=True), tmp_path / "other")
    run = train(config, tmp_path / "run")
    assert run.table_schema.to_toml() == data.Schema.from_toml(text).to_toml()
    held = Run(folder / "run").table()
    assert run.table().test.frame["job"].isna().sum() == held.test.frame["job"].isna().sum() > 0
    filled = []
    for source in (folder / "people.csv", tmp_path / "marked.csv"):
        out = tmp_path / "filled.csv"
        words = ("impute", run.path, "--data", source, "--out", out, "--num-samples", 20)
        code, output = invoke(*words, "--overwrite")
        assert code == 0, output
        filled.append(out.read_text())
    assert filled[0] == filled[1]
    assert "none yet" not in filled[0]
    (tmp_path / "run" / "schema.toml").write_text(schema.to_toml())
    if text != schema.to_toml():
        with pytest.raises(RunError, match=r"is not the model of its schema.toml"):
            Run(tmp_path / "run").load()
    (tmp_path / "run" / "schema.toml").unlink()
    with pytest.raises(RunError, match=r"schema.toml cannot be read.*restore it"):
        Run(tmp_path / "run")


def test_numbers_without_holes_are_no_table_unless_asked(tmp_path: Path) -> None:
    source = str(tmp_path / "numbers.csv")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
    frame.to_csv(source, index=False)
    config = RunConfig(data=source)
    assert not tables.is_asked(config)
    assert not tables.is_needed(config)
    asked = dataclasses.replace(config, missing=True)
    assert tables.is_asked(asked)
    assert all(column.missing for column in tables.decided(asked)[1])
    frame.assign(a=frame["a"].where(frame["a"] > 0.0)).to_csv(source, index=False)
    assert tables.is_needed(config)
    assert not tables.is_needed(dataclasses.replace(config, likelihood="normal"))
    with pytest.raises(DataError, match="missing, NaN or infinite"):
        train(dataclasses.replace(config, likelihood="normal"), tmp_path / "run")
    complete = dataclasses.replace(config, network="conv", likelihood="table")
    with pytest.raises(RunError, match="network = 'conv'"):
        train(complete, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_without_missing_values_says_how_to_allow_them(tmp_path: Path) -> None:
    frame = people()[["height", "town"]]
    frame.to_csv(tmp_path / "complete.csv", index=False)
    config = RunConfig(
        data=str(tmp_path / "complete.csv"), hidden=(4,), latent=1, epochs=1, batch_size=120
    )
    run = train(config, tmp_path / "run")
    values = table_measures.evaluate(
        run, num_samples=5, limit=0, seed=0, progress=False, report=lambda message: None
    )
    assert values["hidden_cells"] == {}
    code, output = invoke(
        "impute", run.path, "--data", tmp_path / "complete.csv", "--out", tmp_path / "x.csv"
    )
    assert code == 1
    assert "train again with --missing" in output


def test_a_file_is_complete_or_not_there(tmp_path: Path) -> None:
    class Failing(pd.DataFrame):
        def to_csv(self, path, **options):  # type: ignore[override]
            Path(path).write_text("half")
            raise OSError("disk full")

        def assign(self, **columns):
            return self

    with pytest.raises(OSError, match="disk full"):
        table_files.write_frame(Failing({"a": [1.5]}), tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())
