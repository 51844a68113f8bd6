"""Batch scoring: one right row for each row, whatever is killed, cut, repeated or wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from manifests import reseal

import keras_vae
from export.pipeline import export_model
from keras_vae.integrity import observations
from serving.artifact import Artifact, Tensor
from serving.cli import main
from serving.errors import ServingError
from serving.ranges import Range
from serving.score import files, rows, run
from serving.score.plan import plan
from serving.score.results import averaged
from serving.score.run import score
from serving.score.series import SeriesReader, about_windows
from serving.score.worker import METADATA, Worker

ROWS = 3001
SEED = 11
WITHIN = 1e-5  # nats; ONNX Runtime sums products in another order for another size of batch


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    keras.utils.set_random_seed(7)
    vae = keras_vae.mlp_vae(5, 2, "normal", hidden=(8,))
    return Artifact.read(export_model(vae, tmp_path_factory.mktemp("artifacts") / "table"))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).standard_normal((ROWS, 5)).astype(np.float32)


def columns_of(x, first=0):
    names = {f"f{index}": x[:, index] for index in range(x.shape[1])}
    return pa.table({"id": np.arange(first, first + len(x)) * 10, **names})


@pytest.fixture(scope="module")
def data(x, tmp_path_factory):
    """Writes one file whose row groups end where no batch and no part ends."""
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    pq.write_table(columns_of(x), path, row_group_size=700)
    return path


@pytest.fixture(scope="module")
def cluster():
    """Starts Ray once for all tests of this module, since its start takes seconds."""
    with run._ray(None, 2):
        import ray

        assert ray.util.get_node_ip_address() == "127.0.0.1"
        yield


@pytest.fixture(scope="module")
def whole(artifact, data, cluster, tmp_path_factory):
    """Results of the one file, by one worker."""
    out = tmp_path_factory.mktemp("whole")
    summary = score(artifact, job_of(artifact, data), data, out)
    assert (summary.rows, summary.scored) == (ROWS, ROWS)
    return pq.read_table(out)


def job_of(artifact, data, **options):
    return plan(artifact, data, **{"seed": SEED, "key": ["id"], "batch_size": 64} | options)


def bare(artifact, name, x, outputs, **inputs):
    session = onnxruntime.InferenceSession(artifact.signatures[name].onnx)
    return session.run(outputs, {"x": x, **inputs})


def seeds(seed, count):
    return np.stack([np.full(count, seed), np.arange(count)], axis=1).astype(np.int32)


def test_scores_are_those_of_onnx_runtime(artifact, x, whole):
    names = ["elbo", "distortion", "rate"]
    assert whole.column_names == ["file", "row", "id", *names]
    assert whole["row"].to_pylist() == list(range(ROWS))
    assert whole["id"].to_pylist() == list(range(0, 10 * ROWS, 10))
    assert set(whole["file"].to_pylist()) == {"rows.parquet"}
    for name, expected in zip(
        names, bare(artifact, "score", x, names, seed=seeds(SEED, ROWS)), strict=True
    ):
        assert whole[name].type == pa.float32()
        np.testing.assert_allclose(whole[name].to_numpy(), expected, rtol=0, atol=WITHIN)


def test_results_do_not_depend_on_files_parts_or_workers(artifact, x, whole, tmp_path):
    data = tmp_path / "data"
    (data / "b").mkdir(parents=True)
    pq.write_table(columns_of(x[:1000]), data / "a.parquet", row_group_size=11)
    pq.write_table(columns_of(x[1000:1001], 1000), data / "b" / "0.parquet")
    pq.write_table(columns_of(x[1001:1001], 1001), data / "b" / "1.parquet")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x[1001:].ravel()), 5)
    pq.write_table(columns_of(x[1001:], 1001).append_column("x", lists), data / "c.parquet")
    (data / "_hidden.parquet").write_text("no data")
    layout = [f"f{index}" for index in range(5)]
    job = job_of(artifact, data, columns=layout, part_rows=256)
    score(artifact, job, data, tmp_path / "out", workers=2)
    parts = pq.read_table(tmp_path / "out")
    assert parts.drop(["file", "row"]).equals(whole.drop(["file", "row"]))
    expected = [("a.parquet", row) for row in range(1000)] + [("b/0.parquet", 0)]
    expected += [("c.parquet", row) for row in range(ROWS - 1001)]
    assert list(zip(*parts.select(["file", "row"]).to_pydict().values(), strict=True)) == expected


NAMES = tuple("edcba")
SHAPES = {"x": Tensor("float32", (5,)), "seed": Tensor("int32", (2,))}


def layout_of(names, lists=(), **given):
    fields = [(name, pa.list_(pa.float32()) if name in lists else pa.float32()) for name in names]
    given = {"columns": (), "condition": (), "key": (), "features": NAMES} | given
    return rows.column_layout(pa.schema(fields), SHAPES, **given)


def test_columns_are_found_by_the_names_of_the_model():
    assert layout_of("abcde").columns == NAMES
    assert layout_of("xbadce", key=("x",)).columns == NAMES
    assert layout_of("abcde", key=("a",)).columns == NAMES
    assert layout_of("zabcde", columns=tuple("abcde")).columns == NAMES
    assert layout_of("vwxyz", columns=tuple("zyxwv")).columns == tuple("zyxwv")  # renamed
    assert layout_of("xy", lists="x", key=("y",)).columns == ("x",)
    assert layout_of("abcde", features=()).columns == tuple("abcde")
    with pytest.raises(ServingError, match="the file lacks e and also has x"):
        layout_of("abcdx")
    with pytest.raises(ServingError, match="the file also has x, y"):
        layout_of("abcdexy")


def test_columns_in_another_order_give_the_same_scores(artifact, x, whole, tmp_path):
    copy = tmp_path / "table" / "1"
    shutil.copytree(artifact.path, copy)
    names = [f"f{index}" for index in range(5)]
    reseal(copy, lambda entries: entries["data"].update(feature_names=names))
    shuffled = columns_of(x).select(["f3", "f0", "id", "f4", "f2", "f1"])
    pq.write_table(shuffled, tmp_path / "rows.parquet")
    named = Artifact.read(copy)
    job = job_of(named, tmp_path / "rows.parquet")
    assert job.columns == tuple(names)
    score(named, job, tmp_path / "rows.parquet", tmp_path / "out")
    assert pq.read_table(tmp_path / "out").equals(whole)


def test_samples_are_averaged_over_seeds(artifact, x, data, cluster, tmp_path):
    score(artifact, job_of(artifact, data, num_samples=3), data, tmp_path)
    draws = [
        bare(artifact, "score", x, ["elbo"], seed=seeds(SEED + draw, ROWS))[0] for draw in range(3)
    ]
    got = pq.read_table(tmp_path)["elbo"].to_numpy()
    np.testing.assert_allclose(got, np.mean(draws, axis=0), rtol=0, atol=WITHIN)


@pytest.mark.parametrize(
    ("name", "outputs"), [("encode", ["loc", "scale"]), ("reconstruct", ["mean"])]
)
def test_other_signatures_from_lists(artifact, x, cluster, tmp_path, name, outputs):
    data = tmp_path / "lists.parquet"
    kinds = {"encode": pa.list_(pa.float64()), "reconstruct": pa.list_(pa.float32(), 5)}
    pq.write_table(pa.table({"x": pa.array(list(x), kinds[name])}), data)
    score(artifact, job_of(artifact, data, signature=name, key=()), data, tmp_path / "out")
    table = pq.read_table(tmp_path / "out")
    for output, expected in zip(outputs, bare(artifact, name, x, outputs), strict=True):
        got = np.stack(table[output].to_numpy())
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
        assert json.loads(table.schema.field(output).metadata[b"shape"]) == list(got.shape[1:])


def descendants(parent):
    """Processes that a process has started, and those that they have."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {parent}
    while more := {pid for pid, above in parents.items() if above in found} - found:
        found |= more
    return found - {parent}


def workers(parent):
    """Processes that score."""
    for pid in descendants(parent):
        try:
            if Path(f"/proc/{pid}/cmdline").read_text().startswith("ray::MapWorker"):
                yield pid
        except OSError:
            continue


def command(artifact, data, out):
    options = [str(artifact.path), "--data", str(data), "--out", str(out), "--key", "id"]
    return [*options, "--seed", str(SEED), "--batch-size", "64", "--part-rows", "64"]


def started(options, out, log):
    """Starts the command in a separate process and waits for three parts."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving", "score", *options], stdout=file, stderr=file
        )
    while process.poll() is None and len(list(out.glob("*.parquet"))) < 3:
        time.sleep(0.01)
    return process


def test_killed_worker_costs_no_row(artifact, data, whole, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    process = started(command(artifact, data, out), out, log)
    (worker,) = workers(process.pid)
    (out / ".part.tmp").touch()  # as a worker leaves one that is killed while it writes
    os.kill(worker, signal.SIGKILL)
    assert 0 < len(list(out.glob("*.parquet"))) < 47
    assert process.wait(timeout=100) == 0
    lines = log.read_text().splitlines()
    assert [line.split(":")[0] for line in lines[-1:]] == [f"{ROWS} rows in 47 parts"]
    assert pq.read_table(out).equals(whole)
    assert not list(out.glob(".*"))
    assert json.loads((out / "_SUCCESS").read_text())["rows"] == ROWS


def test_killed_command_is_continued(artifact, data, whole, tmp_path):
    log, tmp_path = tmp_path / "log", tmp_path / "out"
    options = command(artifact, data, tmp_path)
    process = started(options, tmp_path, log)
    left = list(workers(process.pid))
    process.kill()
    process.wait()
    assert not (tmp_path / "_SUCCESS").exists()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/exe").exists() for pid in left):
        assert time.monotonic() < until, "a worker outlives the command that started it"
        time.sleep(0.05)
    parts = sorted(tmp_path.glob("*.parquet"))
    assert 3 <= len(parts) < 47
    parts[0].write_bytes(parts[0].read_bytes()[:100])
    (tmp_path / ".file-000000-row-000000000064.parquet.0.tmp").write_text("half a part")
    done = CliRunner().invoke(main, ["score", *options])
    assert done.exit_code == 0, done.output
    assert f"Scored before: {64 * (len(parts) - 1)} rows" in done.output
    assert pq.read_table(tmp_path).equals(whole)
    assert not list(tmp_path.glob(".*"))
    again = CliRunner().invoke(main, ["score", *options])
    assert f"Scored before: {ROWS} rows" in again.output


def test_results_of_another_job_are_refused(artifact, data, whole, tmp_path):
    out = tmp_path / "out"
    score(artifact, job_of(artifact, data), data, out)
    for options, word in [
        ({"seed": 12}, "its seed is 11, here it is 12"),
        ({"signature": "encode"}, "its signature is 'score'"),
        ({"key": ()}, "its columns is|its key is"),
        ({"batch_size": 32}, "its batch_size is 64"),
    ]:
        options = {"columns": [f"f{index}" for index in range(5)], **options}
        with pytest.raises(ServingError, match=word):
            score(artifact, job_of(artifact, data, **options), data, out)
    copy = tmp_path / "rows.parquet"
    copy.write_bytes(data.read_bytes())
    with pytest.raises(ServingError, match=r"other data: rows.parquet was added, removed or ch"):
        score(artifact, job_of(artifact, copy), copy, out)
    (out / "mine.parquet").touch()
    with pytest.raises(ServingError, match=r"mine\.parquet is not a part of this job"):
        score(artifact, job_of(artifact, data), data, out)
    with pytest.raises(ServingError, match="holds other files"):
        score(artifact, job_of(artifact, data), data, tmp_path)


def test_part_says_where_it_comes_from(artifact, data, cluster, tmp_path):
    score(artifact, job_of(artifact, data), data, tmp_path)
    (part,) = tmp_path.glob("*.parquet")
    about = json.loads(pq.read_schema(part).metadata[METADATA])
    assert (about["model"], about["seed"], about["signature"]) == ("table/1", SEED, "score")
    assert about["source"]["path"] == "rows.parquet"
    assert (about["start"], about["stop"]) == (0, ROWS)


def test_second_run_waits_for_no_one(artifact, data, tmp_path):
    job = job_of(artifact, data)
    with (
        run._claimed(tmp_path, job),
        pytest.raises(ServingError, match="Another run is writing to"),
        run._claimed(tmp_path, job),
    ):
        pass


def test_changed_model_is_refused(artifact, data, tmp_path):
    copy = tmp_path / "table" / "1"
    (copy / "onnx").mkdir(parents=True)
    (copy / "manifest.json").write_bytes((artifact.path / "manifest.json").read_bytes())
    (copy / "onnx" / "score.onnx").write_bytes(b"\0")
    changed = Artifact.read(copy)
    with pytest.raises(ServingError, match=r"score\.onnx was changed after publishing"):
        score(changed, job_of(changed, data), data, tmp_path / "out")


def test_model_that_cannot_be_loaded_is_reported(artifact, data, tmp_path):
    copy = tmp_path / "table" / "1"
    shutil.copytree(artifact.path, copy)
    (copy / "onnx" / "score.onnx").write_bytes(b"\xff" * 100)
    reseal(copy)
    forged = Artifact.read(copy)
    with pytest.raises(ServingError, match="ONNX Runtime cannot load the model"):
        score(forged, job_of(forged, data), data, tmp_path / "out")


BAD = [
    ("f1", 30, np.nan, r"row 30, column 'f1': expected a finite number; got nan"),
    ("f2", 31, np.inf, r"row 31, column 'f2': expected a finite number; got inf"),
    ("f3", 32, 1e39, r"row 32, column 'f3': expected a number that float32 holds; got 1e\+39"),
    ("f4", 33, None, r"row 33, column 'f4': expected a number; got null"),
]


@pytest.mark.parametrize(("column", "row", "value", "sentence"), BAD)
def test_bad_value_is_refused_where_it_is(
    artifact, x, cluster, tmp_path, column, row, value, sentence
):
    data, table = tmp_path / "bad.parquet", columns_of(x.astype(np.float64)).to_pydict()
    table[column][row] = value
    pq.write_table(pa.table(table), data)
    with pytest.raises(ServingError, match=r"bad\.parquet, " + sentence):
        score(artifact, job_of(artifact, data, part_rows=64), data, tmp_path / "out")
    assert not (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([[1.0, 2.0], None], "row 8, column 'x': expected a list of 2 numbers; got null"),
        ([[1.0, 2.0], [1.0]], "row 8, column 'x': expected a list of 2 numbers; got 1"),
        ([[1.0, None], [1.0, 2.0]], "row 7, column 'x': expected numbers; got null"),
        ([[1.0, 2.0], [3.0, -1.0]], r"row 8, column 'x\[1\]': expected a number from 0 to 9; got"),
        ([[1.0, 2.5], [3.0, 1.0]], r"row 7, column 'x\[1\]': expected a whole number; got 2.5"),
    ],
)
def test_bad_list_is_refused_where_it_is(values, sentence):
    table = pa.table({"x": pa.array(values)})
    with pytest.raises(ServingError, match=sentence):
        rows.tensor(table, ["x"], (2,), Range(0.0, 9.0, True), Path("a.parquet"), 7)


def test_numbers_of_every_type_and_nested_lists_become_float32():
    for kind in (pa.int8(), pa.uint64(), pa.bool_(), pa.float16(), pa.decimal128(9, 2)):
        values = pa.array([0, 1, 1], pa.int64()).cast(pa.float64()).cast(kind)
        x = rows.tensor(pa.table({"x": values}), ["x"], (1,), Range(), Path("a"), 0)
        np.testing.assert_array_equal(x, np.float32([[0], [1], [1]]), strict=True)
    nested = pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], pa.list_(pa.list_(pa.uint8(), 2)))
    x = rows.tensor(pa.table({"x": nested}), ["x"], (2, 2, 1), Range(), Path("a"), 0)
    np.testing.assert_array_equal(x.ravel(), np.arange(1, 9))
    assert x.shape == (2, 2, 2, 1)


@pytest.mark.parametrize(
    ("family", "preparation", "expected"),
    [
        ("Bernoulli", {"step": "none", "divide": 1.0}, Range(0.0, 9.0, True)),
        ("Bernoulli", {"step": "binarize", "divide": 9.0}, Range(0.0, 9.0, False)),
        ("Normal", {"step": "none", "divide": 1.0}, Range(0.0, 9.0, False)),
    ],
)
def test_range_is_that_of_the_manifest(family, preparation, expected):
    """Older manifests name the family alone; newer ones say whether x is whole."""
    data = {"range": [0.0, 9.0], "preparation": preparation, "shape": [1], "one_hot": False}
    likelihood = {"family": family, "parameters": [], "options": {}}
    old = {"data": data, "likelihood": likelihood}
    new = {
        "data": {**data, "whole": expected.whole},
        "likelihood": {**likelihood, "family": "Own"},
    }
    for about in (old, new):
        assert Range.of(observations(about)["x"]) == expected


@pytest.mark.parametrize(
    ("table", "options", "sentence"),
    [
        ({"a": [1.0]}, {}, "x of shape .5,. is in 5 columns of numbers or in one of lists of 5"),
        ({f"f{i}": ["1"] for i in range(5)}, {}, "column 'f0': expected numbers; got string"),
        ({f"f{i}": [1.0] for i in range(5)}, {"key": ["k"]}, "has no column 'k'"),
        ({f"f{i}": [1.0] for i in range(5)}, {"condition": ["f0"]}, "takes no condition"),
        ({f"f{i}": [1.0] for i in range(5)}, {"signature": "decode"}, "Expected the signature"),
        ({f"f{i}": [1.0] for i in range(5)}, {"seed": 2**31}, "Expected 32-bit seeds"),
        (
            {f"f{i}": [1.0] for i in range(5)},
            {"signature": "encode", "num_samples": 2},
            "Draws of encode are not averaged",
        ),
    ],
)
def test_plan_refuses_what_does_not_fit(artifact, tmp_path, table, options, sentence):
    data = tmp_path / "rows.parquet"
    pq.write_table(pa.table(table), data)
    with pytest.raises(ServingError, match=sentence):
        job_of(artifact, data, **{"key": ()} | options)


def test_key_with_the_name_of_a_result_is_refused(artifact, x, tmp_path):
    data = tmp_path / "rows.parquet"
    pq.write_table(columns_of(x).rename_columns(["elbo", "a", "b", "c", "d", "e"]), data)
    with pytest.raises(ServingError, match="has a column 'elbo' of its own"):
        score(artifact, job_of(artifact, data, key=["elbo"]), data, tmp_path / "out")


def test_command_refuses_in_one_sentence(artifact, tmp_path):
    for path, sentence in [
        (tmp_path, "holds no Parquet files. Give one of these files"),
        (artifact.path / "manifest.json", "is of another kind than what can be scored"),
    ]:
        options = ["--data", str(path), "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(main, ["score", str(artifact.path), *options])
        assert done.exit_code == 1
        assert sentence in done.output
    assert "arrays in .npy, and texts in .txt or .jsonl" in " ".join(done.output.split())


def test_without_ray_the_command_says_what_to_install(artifact, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ServingError, match=r'pip install "keras-vae\[batch\]"'):
        score(artifact, job_of(artifact, data), data, tmp_path)


def test_ray_client_is_refused(artifact, data, tmp_path):
    with pytest.raises(ServingError, match="as in --address HEAD:6379"):
        score(artifact, job_of(artifact, data), data, tmp_path, address="ray://localhost:10001")


def test_codes_stay_whole_numbers():
    codes = np.array([[0, 3], [2, 1]], np.int32)
    found = averaged("codes", [codes])
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, codes)


def test_files_of_other_kinds_hold_the_same_rows(tmp_path):
    x = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "x.npy", x.reshape(3, 1, 2))
    (tmp_path / "x.csv").write_text("a;b\n0,0;1\n2;3\n4;5\n")
    found = {}
    for name, columns in (("x.npy", ["x"]), ("x.csv", ["b", "a"])):
        schema, count = files.schema_and_rows(tmp_path / name)
        assert (set(schema.names), count) == (set(columns), 3)
        found[name] = pa.concat_tables(files.chunks(tmp_path / name, columns, 1, 3, 1))
    assert found["x.npy"].to_pydict() == {"x": [[2.0, 3.0], [4.0, 5.0]]}
    assert found["x.csv"].to_pydict() == {"b": [3, 5], "a": [2.0, 4.0]}
    for name, content, sentence in (
        ("x.parquet", b"no", "cannot be read as a Parquet file"),
        ("y.npy", b"no", "cannot be read as a .npy array: it is damaged"),
        ("x.zip", b"no", "another kind than what can be scored: Parquet files, tables in .csv"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ServingError, match=sentence):
            files.schema_and_rows(tmp_path / name)


def series_reader(missing=False, **config):
    x = {"shape": [3, 1], "missing": missing}
    about = {"observations": {"x": x}, "training": {"config": config}}
    return SeriesReader.of(about)


def test_rows_that_were_read_are_let_go(tmp_path):
    """A row group of 32 MB, read by buffers of 1 MiB for each column and pages of 1 MiB."""
    x = np.random.default_rng(0).standard_normal(8_000_000, np.float32)
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"x": x}), path, row_group_size=len(x), compression="none", use_dictionary=False
    )
    before, most = pa.total_allocated_bytes(), 0
    for _ in files.chunks(path, ["x"], 0, len(x), 2**16):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 2**18 < most < 2**23


class Counted(pq.ParquetFile):
    """A Parquet file that counts the rows that are decoded."""

    decoded = 0

    def iter_batches(self, *arguments, **options):
        for batch in super().iter_batches(*arguments, **options):
            Counted.decoded += len(batch)
            yield batch


@pytest.mark.parametrize("group", [ROWS, 70], ids=["one group", "small groups"])
def test_workers_that_take_turns_decode_no_row_again(artifact, x, group, tmp_path, monkeypatch):
    """Each worker decodes one large group once; of small ones those of its parts, and their ends.

    A part of 64 rows lies in at most two groups of 70, which begin at most 69 rows before it and
    end as far behind it; rows are decoded in batches of 64.
    """
    path, out, alone = (tmp_path / name for name in ("rows.parquet", "out", "alone"))
    pq.write_table(columns_of(x), path, row_group_size=group)
    job = job_of(artifact, path, part_rows=64)
    workers = []
    for folder in (out, out, alone):
        folder.mkdir(exist_ok=True)
        workers.append(Worker(run._task(artifact, job, tmp_path, folder)))
    monkeypatch.setattr(pq, "ParquetFile", Counted)
    Counted.decoded = 0
    parts = list(job.parts())
    for index, part in enumerate(parts):
        workers[index % 2].publish(part)
    most = 2 * ROWS if group == ROWS else len(parts) * (64 + 2 * 69)
    assert ROWS <= Counted.decoded <= most
    monkeypatch.undo()
    workers[0].publish(parts[1])  # as after the death of the other worker
    for part in parts:
        workers[2].publish(part)
    found = pq.read_table(out)
    assert found.equals(pq.read_table(alone))
    assert found["id"].to_pylist() == list(range(0, 10 * ROWS, 10))


def test_workers_that_take_turns_read_no_line_again(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("a\n" * 10)
    assert [files.leads_on(path, 4, start) for start in (3, 4, 9)] == [False, True, True]
    pq.write_table(pa.table({"x": range(10)}), tmp_path / "x.parquet", row_group_size=4)
    found = [files.leads_on(tmp_path / "x.parquet", 4, start) for start in (3, 4, 7, 8, 9)]
    assert found == [False, True, True, False, False]
    np.save(tmp_path / "x.npy", np.ones((10, 1)))
    assert [files.leads_on(tmp_path / "x.npy", 4, start) for start in (4, 5)] == [True, False]


def test_series_are_read_as_in_training(tmp_path):
    (tmp_path / "s.csv").write_text(
        "site,hour,load\n" + "".join(f"{s},{h},{h + 10 * s}\n" for s in (1, 2) for h in range(7))
    )
    names = ("site", "hour", "load")
    keys = {"id_column": "site", "time_column": "hour"}
    table = series_reader(entries=["load"], window=3, **keys).read(tmp_path / "s.csv", names)
    assert table.to_pydict() == {
        "series": [1, 1, 2, 2],
        "step": [0, 3, 0, 3],
        "steps": [3, 3, 3, 3],
        "x": [[10, 11, 12], [13, 14, 15], [20, 21, 22], [23, 24, 25]],
    }
    whole = "4 windows of 3 steps. Left out: 2 steps at the ends of series"
    assert about_windows([table.schema], 3) == whole
    with pytest.raises(ServingError, match=r"at most 3 steps in .*; got one of 7"):
        series_reader(entries=["load"], **keys).read(tmp_path / "s.csv", names)
    np.save(tmp_path / "s.npy", np.arange(7.0))
    table = series_reader(window=3, missing=True).read(tmp_path / "s.npy")
    places = {"series": [0, 0, 0], "step": [0, 3, 6], "steps": [3, 3, 1]}
    assert table.drop_columns(["x"]).to_pydict() == places
    x = np.array(table["x"].to_pylist())
    np.testing.assert_array_equal(x, [[0, 1, 2], [3, 4, 5], [6, np.nan, np.nan]])
    shorter = "3 windows of 3 steps; 1 of them, at the end of a series, has fewer"
    assert about_windows([table.schema], 3) == shorter
    assert about_windows([pa.schema([])], 3) == ""
    series = np.arange(9.0)
    series[3:6] = np.nan
    np.save(tmp_path / "s.npy", series)
    table = series_reader(window=3, missing=True).read(tmp_path / "s.npy")
    assert table["step"].to_pylist() == [0, 6]
    assert about_windows([table.schema], 3).endswith("Left out: 1 window with nothing observed")
    np.save(tmp_path / "s.npy", np.arange(2.0))
    with pytest.raises(ServingError, match=r"series of 3 steps or more, .* got at most 2"):
        series_reader(window=3).read(tmp_path / "s.npy")
    np.save(tmp_path / "s.npy", np.ones((2, 2, 1)))
    table = series_reader().read(tmp_path / "s.npy")
    assert np.isnan(table["x"].to_pylist()).tolist() == [[False, False, True]] * 2
    wide = pa.schema([("a", pa.float64()), ("b", pa.float64())])
    with pytest.raises(ServingError, match=r"one row a step with load beside site, hour.*has a, b"):
        series_reader(entries=["load"], **keys).check(tmp_path / "s.csv", wide, ())
    assert SeriesReader.of({"observations": {"x": {"shape": [3]}}}) is None
