"""Training from files that do not fit into memory is training from the arrays in them."""

import mmap
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import preloaded
import pyarrow as pa
import pytest
from PIL import Image

from benchmarks.from_files import growth
from keras_vae import data
from keras_vae.data import archives, cache, mapped, tables
from keras_vae.data.content import DataError
from tests.models import again, assert_same_weights, binary, compiled, tiny_vae

X = binary(45)
GRAPH = {"run_eagerly": False}


def on_disk(folder, x):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def trained(x, options, **arguments):
    vae = compiled(again(), **options, optimizer="adam")
    vae.fit(x, epochs=3, verbose=0, **arguments)
    return vae


@pytest.mark.parametrize("options", [{}, GRAPH], ids=["eager", "graph"])
def test_mapped_stream_gives_the_same_bits(tmp_path, options):
    grey = np.random.default_rng(0).integers(0, 256, (45, 6), dtype=np.uint8)

    def train(x, **more):
        stream = data.batches(
            x, 8, epochs=3, seed=3, rescale=1 / 255, transform=data.binarize, **more
        )
        return trained(stream, options, steps_per_epoch=6)

    weights = np.linspace(0.0, 2.0, 45)
    assert_same_weights(
        train(grey, sample_weight=weights), train(on_disk(tmp_path, grey), sample_weight=weights)
    )


@pytest.mark.parametrize("steps", [None, 1, 4])
def test_mapped_array_gives_the_same_bits(tmp_path, steps):
    options = {**GRAPH, "steps_per_execution": steps}
    arguments = {"batch_size": 8, "validation_split": 0.2}
    vae = trained(on_disk(tmp_path, X), options, **arguments)
    assert vae._loop is not None
    assert_same_weights(trained(X, options, **arguments), vae)


@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4", ">i8"])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x[7:30],
        lambda x: x[3::4],
        lambda x: x[..., np.newaxis],
        lambda x: x[::-1],
        lambda x: x[:, 1:3],
        lambda x: x[:, ::2],
    ],
    ids=["whole", "slice", "steps", "axis", "reversed", "columns", "every second"],
)
def test_rows_are_read_from_any_view(tmp_path, dtype, view):
    x = np.random.default_rng(0).integers(0, 100, (40, 5)).astype(dtype)
    there, here = view(on_disk(tmp_path, x)), view(x)
    rows = np.array([3, 0, 1, 2, 9, 3])
    np.testing.assert_array_equal(mapped.read(there, rows), here[rows])
    assert mapped.read(there, rows).dtype.isnative
    parts = list(mapped.chunks(there, 64))
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), here)
    starts = np.cumsum([0, *(len(part) for _, part in parts)])
    assert [start for start, _ in parts] == starts[:-1].tolist()


@pytest.mark.parametrize(
    "view",
    [lambda x: x, lambda x: x[700:3000], lambda x: x[3::4], lambda x: x[:, 1:3]],
    ids=["whole", "slice", "steps", "columns"],
)
def test_many_short_rows_are_copied_by_regions_of_the_file(tmp_path, monkeypatch, view):
    monkeypatch.setattr(mapped, "_REGION", mmap.PAGESIZE)
    x = np.random.default_rng(0).integers(0, 100, (4000, 5)).astype(">f4")
    there, here = view(on_disk(tmp_path, x)), view(x)
    rows = np.random.default_rng(1).integers(0, len(here), 900)
    np.testing.assert_array_equal(mapped.read(there, rows), here[rows])
    os.truncate(tmp_path / "x.npy", 40_000)
    with pytest.raises(DataError, match=r"x\.npy ends before row \d+: it was changed"):
        mapped.read(there, rows)


def test_column_order_is_read_too(tmp_path):
    x = np.asfortranarray(np.arange(30.0).reshape(6, 5))
    np.testing.assert_array_equal(mapped.read(on_disk(tmp_path, x), np.array([4, 1])), x[[4, 1]])


@pytest.mark.parametrize("read_before", [True, False])
def test_file_that_shrinks_is_refused(tmp_path, read_before):
    there = on_disk(tmp_path, np.repeat(X, 1000, axis=0))
    vae = compiled(tiny_vae(), **GRAPH)
    stream = data.batches(there, 100, shuffle=False)
    if read_before:
        mapped.read(there, np.array([44_000]))
    os.truncate(tmp_path / "x.npy", 100_000)
    sentence = "was changed while it was read" if read_before else "was replaced or changed"
    with pytest.raises(DataError, match=sentence):
        vae.fit(stream, verbose=0)


def test_file_that_was_replaced_is_refused(tmp_path):
    there = on_disk(tmp_path, X)
    np.save(tmp_path / "other.npy", 1.0 - X)
    os.replace(tmp_path / "other.npy", tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"x\.npy was replaced or changed since"):
        compiled(tiny_vae(), **GRAPH).fit(there, verbose=0)


def test_changes_in_memory_alone_are_read(tmp_path):
    np.save(tmp_path / "x.npy", X)
    there = np.load(tmp_path / "x.npy", mmap_mode="c")
    there *= 2.0
    rows = np.arange(45)[::-1]
    np.testing.assert_array_equal(mapped.read(there, rows), 2.0 * X[::-1])
    np.testing.assert_array_equal(mapped.read(there, rows), 2.0 * X[::-1])


def resident():
    return int(re.search(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def test_pages_of_the_map_are_given_back(tmp_path):
    shape = (2000, 8000)  # 61 MiB in columns
    header = np.lib.format.open_memmap(
        tmp_path / "x.npy", "w+", np.float32, shape, fortran_order=True
    )
    header.flush()
    there, before = np.load(tmp_path / "x.npy", mmap_mode="r"), resident()
    for _, part in mapped.chunks(there, 2**22):
        assert not part.any()
    assert resident() - before < 20.0


def parquet(path, rows=1000, groups=100, **columns):
    rng = np.random.default_rng(0)
    values = {"a": rng.normal(size=rows), "b": rng.integers(0, 9, rows), **columns}
    frame = pd.DataFrame({**values, "label": rng.integers(0, 3, rows)})
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, row_group_size=groups)
    return path


def pictures(folder, count=12):
    rng = np.random.default_rng(0)
    for i in range(count):
        (folder / str(i % 3)).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / str(i % 3) / f"{i}.png")
    return folder


@pytest.mark.parametrize("kind", ["t.parquet", "t.csv", "images"])
def test_cache_holds_what_the_source_holds(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("keras_vae.data.tables._ROWS_AT_ONCE", 64)
    source = pictures(tmp_path / kind) if kind == "images" else parquet(tmp_path / kind)
    plain = data.load(source, labels=True)
    held = data.load(source, labels=True, cache=tmp_path / "cache")
    assert mapped.is_mapped(held.x)
    np.testing.assert_array_equal(held.x, plain.x)
    assert held.x.dtype == plain.x.dtype
    np.testing.assert_array_equal(held.labels, plain.labels)
    assert (held.name, held.feature_names) == (plain.name, plain.feature_names)
    assert held.left_out == plain.left_out
    (entry,) = os.listdir(tmp_path / "cache")

    written = (tmp_path / "cache" / entry / "x.npy").stat().st_mtime_ns
    data.load(source, labels="if_any", cache=tmp_path / "cache")
    assert (tmp_path / "cache" / entry / "x.npy").stat().st_mtime_ns == written
    changed = source / "0" / "0.png" if kind == "images" else source
    os.utime(changed, ns=(1, 1))
    data.load(source, labels=True, cache=tmp_path / "cache")
    assert len(os.listdir(tmp_path / "cache")) == 2


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["u1", ">f4"])
def test_large_arrays_of_an_archive_are_read_by_rows(tmp_path, monkeypatch, save, dtype):
    x = np.random.default_rng(0).integers(0, 200, (3000, 5)).astype(dtype)
    path, folder = tmp_path / "f.npz", tmp_path / "cache"
    save(path, others=np.ones(3), x=x, y=np.arange(3000))
    assert not mapped.is_mapped(data.load(path).x)
    monkeypatch.setattr(archives, "_LARGE", 1000)
    monkeypatch.setattr(archives, "_CHUNK", 700)
    found = data.load(path, labels=True, cache=folder)
    assert mapped.is_mapped(found.x)
    assert folder.exists() == (save is np.savez_compressed)
    np.testing.assert_array_equal(mapped.read(found.x, np.array([7, 8, 2])), x[[7, 8, 2]])
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.labels, np.arange(3000))
    assert found.left_out == {"y": "labels"}
    assert found.x.dtype == x.dtype
    whole = data.load(path)
    assert mapped.is_mapped(whole.x) == (save is np.savez)
    assert archives.compressed_bytes(path) == (0 if save is np.savez else x.nbytes)

    stored, place = bytearray(path.read_bytes()), x.tobytes()[4000:4016]
    at = stored.find(place) if save is np.savez else stored.find(b"x.npy") + 4000
    stored[at] ^= 1
    path.write_bytes(stored)
    with pytest.raises(DataError, match=r"damaged: x.npy does not have the checksum|cannot be rea"):
        data.load(path, cache=tmp_path / "another")
    save(path, x=np.asfortranarray(x))
    np.testing.assert_array_equal(data.load(path, cache=folder).x, x)


def test_a_parquet_file_is_not_kept_in_memory_while_it_is_read(tmp_path):
    """30 MiB; a megabyte of each column is buffered, and 16 384 rows take another."""
    values = np.random.default_rng(0).normal(size=(500_000, 8))
    frame = pd.DataFrame(values, columns=list("abcdefgh"))
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=20_000)
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for chunk in tables.frame_chunks(tmp_path / "t.parquet"):
        most = max(most, pa.total_allocated_bytes() - before)
        np.testing.assert_array_equal(chunk.to_numpy(), values[rows : rows + len(chunk)])
        rows += len(chunk)
    assert rows == len(values)
    assert most < values.nbytes / 2


def test_cache_keeps_what_is_asked_for_apart(tmp_path):
    source, folder = parquet(tmp_path / "t.parquet"), tmp_path / "cache"
    for options in ({}, {"labels": True}, {"drop": "a"}, {"drop": ["a"], "labels": "if_any"}):
        held, plain = data.load(source, cache=folder, **options), data.load(source, **options)
        assert held.feature_names == plain.feature_names
        assert (held.left_out, held.labels is None) == (plain.left_out, plain.labels is None)
        np.testing.assert_array_equal(held.x, plain.x)
    assert len(os.listdir(folder)) == 4


def test_cache_that_was_killed_or_damaged_is_not_used(tmp_path, monkeypatch):
    source, folder = parquet(tmp_path / "t.parquet"), tmp_path / "cache"
    write = cache._write

    def killed(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        data.load(source, cache=folder)
    monkeypatch.undo()
    assert os.listdir(folder) == []
    (folder / ".part-of-another").mkdir()
    shape = data.load(source, cache=folder).x.shape
    (entry,) = (name for name in os.listdir(folder) if not name.startswith("."))
    assert shape == (1000, 3)
    path = folder / entry / "about.json"
    about = path.read_text()
    for content in ("{", "[]", "{}", about.replace("1000", "999"), None):
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(DataError, match=r"is damaged. Remove it, and it will be written again"):
            data.load(source, cache=folder)
    path.write_text(about)
    os.truncate(folder / entry / "x.npy", 1000)
    with pytest.raises(DataError, match=r"is damaged. Remove it, and it will be written again"):
        data.load(source, cache=folder)
    with pytest.raises(DataError, match=r"is a file; choose a directory for the cache"):
        data.load(source, cache=path)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"c": [1.0] * 999 + [np.nan]}, "1 missing, NaN or infinite values"),
        ({"a": range(1000), "c": pd.array([1] * 999 + [None], "Int64")}, "missing values in colu"),
        ({"c": ["word"] * 1000}, "columns that are not numbers: c"),
    ],
    ids=["not a number", "no number", "text"],
)
def test_cache_refuses_what_load_refuses(tmp_path, columns, sentence):
    source = parquet(tmp_path / "t.parquet", **columns)
    with pytest.raises(DataError, match=sentence):
        data.load(source, cache=tmp_path / "cache")


def test_chunks_of_text_have_the_dtypes_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_vae.data.tables._ROWS_AT_ONCE", 2)
    table = tmp_path / "t.csv"
    table.write_text("a;b;label\n1;2;x\n3;4;y\n5,5;6;3\n")
    for options in ({"drop": "label"}, {"labels": True}):
        held, plain = data.load(table, cache=tmp_path, **options), data.load(table, **options)
        np.testing.assert_array_equal(held.x, plain.x)
        assert held.x.dtype == plain.x.dtype
        if plain.labels is not None:
            np.testing.assert_array_equal(held.labels, plain.labels)
    table.write_text("a,b\n1,2\n3,4\n5,6,7\n")
    with pytest.raises(DataError, match="Expected 2 fields in line 4, saw 3"):
        data.load(table, cache=tmp_path)
    table.write_text("a,b\n1,2\n3,4\nword,6\n")
    with pytest.raises(DataError, match="columns that are not numbers: a"):
        data.load(table, cache=tmp_path)


def test_training_from_a_file_stays_within_a_tenth_of_its_size():
    budget, size = 96, 30_000
    rows = 10 * budget * 2**20 // size
    assert growth(rows, size, (2,), batch=64, few=256, python=preloaded.python()) < budget
