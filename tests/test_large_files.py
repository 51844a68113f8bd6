"""Commands on files larger than memory: the numbers of the same array in memory, in few bytes."""

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import preloaded
import pytest

from keras_vae import commands, data
from keras_vae.data import archives, mapped
from keras_vae.data.preparation import Preparation
from keras_vae.data.proposal import prepare
from keras_vae.data.row_views import ComputedRows, SelectedRows
from keras_vae.factories import LIKELIHOODS
from keras_vae.runs import datasets
from keras_vae.runs.config import RunConfig
from keras_vae.runs.train import train

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (2300, 3, 2, 1), dtype=np.uint8)
TABLE = np.stack([RNG.normal(3.0, 2.0, 2300), RNG.integers(0, 9, 2300), np.ones(2300)], axis=1)
CODES = RNG.integers(0, 3, (2300, 4))


def on_disk(path: Path, x: np.ndarray) -> np.ndarray:
    np.save(path, x)
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize(
    ("name", "x"),
    [("bernoulli", GREY), ("normal", GREY), ("normal", TABLE), ("categorical", CODES)],
    ids=["binarised", "dequantised", "standardised", "one-hot"],
)
def test_prepared_rows_of_a_file_have_the_bits_of_the_array(
    name: str, x: np.ndarray, tmp_path: Path
) -> None:
    there = on_disk(tmp_path / "x.npy", x)
    rows = np.flatnonzero(RNG.random(len(x)) < 0.9)
    file, array = SelectedRows(there, rows), x[rows]
    preparation, _ = prepare(LIKELIHOODS[name], array)
    assert prepare(LIKELIHOODS[name], file)[0] == preparation
    static = preparation.static(file)
    np.testing.assert_array_equal(np.asarray(static), preparation.static(array))
    found, expected = preparation.array(file, 3), preparation.array(array, 3)
    np.testing.assert_array_equal(np.asarray(found), expected)
    np.testing.assert_array_equal(found[1500], expected[1500])
    np.testing.assert_array_equal(np.asarray(found[::-7][3:]), expected[::-7][3:])
    assert (found.shape, found.dtype, found.min()) == (expected.shape, "f4", expected.min())
    np.testing.assert_allclose(preparation.mean(file), preparation.mean(array), rtol=1e-13)
    with pytest.raises(data.DataError, match=r"from 0 to 0\.5; got .* in example \d"):
        Preparation(divide=0.5).static(file)


def test_a_split_that_copies_nothing_is_the_same_split(tmp_path: Path) -> None:
    there = on_disk(tmp_path / "x.npy", TABLE)
    for file, array in zip(
        data.split(there, seed=2, copy=False), data.split(TABLE, seed=2), strict=True
    ):
        assert mapped.is_mapped(file)
        np.testing.assert_array_equal(np.asarray(file), array)
    assert isinstance(data.split(TABLE, copy=False)[0], np.ndarray)


@pytest.mark.parametrize(
    ("x", "name"), [(GREY, "x.npy"), (TABLE, "x.npz")], ids=["images", "table in an archive"]
)
def test_a_run_on_a_file_is_the_run_on_its_array(
    x: np.ndarray, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith(".npy"):
        np.save(tmp_path / name, x)
    else:
        np.savez(tmp_path / name, x=x)
    likelihood = "bernoulli" if x.ndim == 4 else "normal"
    config = RunConfig(
        data=str(tmp_path / name), likelihood=likelihood, hidden=(4,), latent=2, epochs=1
    )
    found = []
    for held in (2**28, 0):
        monkeypatch.setattr(datasets, "_HELD", held)
        monkeypatch.setattr(archives, "_LARGE", held)
        run = train(config, tmp_path / str(held))
        assert mapped.is_mapped(run.raw()[0]) == (held == 0)
        values = commands.evaluate(
            run, num_samples=2, limit=20, seed=0, progress=False, report=lambda _: None
        )
        found.append((run.history(), run.load().get_weights(), values))
    (history, weights, values), (history_of_file, weights_of_file, values_of_file) = found
    assert history == history_of_file
    for one, other in zip(weights, weights_of_file, strict=True):
        np.testing.assert_array_equal(one, other)
    assert values == values_of_file


def test_columns_of_a_test_file_are_read_in_the_models_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "_HELD", 0)
    frame = pd.DataFrame(TABLE, columns=["a", "b", "c"])
    for name, columns in (("train", "abc"), ("test", "cab")):
        frame[list(columns)].to_parquet(tmp_path / f"{name}.parquet")
    config = RunConfig(
        data=str(tmp_path / "train.parquet"),
        test_data=str(tmp_path / "test.parquet"),
        cache=str(tmp_path / "cache"),
    )
    found = datasets.read(config)
    assert isinstance(found.test, ComputedRows)
    np.testing.assert_array_equal(np.asarray(found.test), TABLE)
    np.testing.assert_array_equal(np.asarray(found.train), TABLE)


PROGRAM = """
import pathlib, re, sys
import numpy as np
from keras_vae import commands
from keras_vae.runs.config import RunConfig
from keras_vae.runs.train import train

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

def go(name):
    path = f"{sys.argv[1]}/{name}"
    config = RunConfig(data=path + ".npy", likelihood="bernoulli", hidden=(2,), latent=2, epochs=1)
    run = train(config, path)
    commands.evaluate(run, num_samples=2, limit=8, seed=0, progress=False, report=lambda _: None)

go("small")
before = memory("VmRSS")
pathlib.Path("/proc/self/clear_refs").write_text("5")
go("large")
print((memory("VmHWM") - before) / 1024)
"""


def test_commands_on_a_file_take_the_memory_of_chunks(tmp_path: Path) -> None:
    """480 MiB that take no disk; loading them would take as much, and the float32 copy of the test
    set another 192 MiB. Chunks have 16 to 32 MiB, and some are being read, checked, cast and
    trained on at a time.
    """
    size = 2000
    for name, rows in (("small", 6000), ("large", 480 * 2**20 // size)):
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.uint8, (rows, size))
    done = subprocess.run(
        [*preloaded.python(), "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 288.0
