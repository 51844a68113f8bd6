"""Tests of `keras_vae.data`: what is read, what is refused, and what a stream repeats."""

import functools
import gzip
import os
import re
import struct
import zlib
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from scipy import io, sparse
from sklearn.datasets import load_digits

from keras_vae.data import (
    Data,
    DataError,
    batches,
    binarize,
    dequantize,
    load,
    split,
    steps,
)
from keras_vae.data.mapped import is_mapped

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
TABLE = np.random.default_rng(1).normal(size=(6, 2))
DIGITS_OF_FIVE = np.arange(5, dtype=np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim])
    return head + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


def write_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def write_image(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def drawn(stream: tf.data.Dataset) -> list[np.ndarray]:
    return [batch.numpy() for batch in stream]


def assert_same_bits(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# Reading: round trips


def test_digits_are_the_levels_of_scikit_learn():
    data = load("digits", labels=True)
    assert (data.x.shape, data.x.dtype, data.name) == ((1797, 8, 8, 1), np.float32, "digits")
    np.testing.assert_array_equal(data.x[..., 0], load_digits().images)
    np.testing.assert_array_equal(data.labels, load_digits().target)
    assert load("digits").labels is None


@pytest.mark.parametrize("dtype", ["bool", "u1", "i2", "u4", "i8", "f2", "f4", "f8", ">f4", ">i2"])
def test_npy_is_mapped_and_keeps_its_dtype(tmp_path, dtype):
    stored = np.concatenate([IMAGES, IMAGES], axis=2).astype(dtype)
    np.save(tmp_path / "x.npy", stored)
    data = load(tmp_path / "x.npy")
    assert isinstance(data, Data)
    assert is_mapped(data.x)
    assert data.x.dtype == stored.dtype
    assert data.name == "x"
    np.testing.assert_array_equal(data.x, stored[..., np.newaxis])


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.ones(4), (4, 1)),
        (np.ones((4, 3)), (4, 3)),
        (np.ones((4, 3, 5)), (4, 3, 5, 1)),
        (16.0 * np.ones((4, 3, 5)), (4, 3, 5, 1)),
        (np.full((4, 3, 5), 0.25), (4, 3, 5, 1)),
        (np.ones((4, 3, 2), np.uint8), (4, 3, 2, 1)),
        (np.ones((4, 3, 2, 3)), (4, 3, 2, 3)),
        (np.ones((4, 3, 2)), (4, 3, 2)),  # series from here on
        (np.full((4, 3, 5), 1.25), (4, 3, 5)),
        (np.full((4, 3, 5), -1), (4, 3, 5)),
    ],
)
def test_images_get_a_channel_axis_and_scalars_a_feature_axis(tmp_path, x, expected):
    np.save(tmp_path / "x.npy", x)
    data = load(str(tmp_path / "x.npy"))
    assert data.x.shape == expected
    assert len(expected) != 3 or "series of 3 steps and" in data.columns


@pytest.mark.parametrize("key", ["x", "X", "data", "images", "arr_0", "whatever"])
@pytest.mark.parametrize("label_key", ["y", "labels", "label", "target", "class"])
def test_npz_keys(tmp_path, key, label_key):
    path = write_npz(tmp_path / "f.npz", **{key: TABLE, label_key: np.arange(6)})
    data = load(path, labels=True)
    np.testing.assert_array_equal(data.x, TABLE)
    np.testing.assert_array_equal(data.labels, np.arange(6))
    assert load(path).labels is None


def test_npz_key_is_chosen_after_a_colon_and_finds_its_twin(tmp_path):
    arrays = {"x_train": TABLE, "y_train": np.zeros(6), "x_test": TABLE + 1, "y_test": np.ones(6)}
    path = write_npz(tmp_path / "f.npz", **arrays)
    data = load(f"{path}:x_test", labels=True)
    np.testing.assert_array_equal(data.x, TABLE + 1)
    np.testing.assert_array_equal(data.labels, np.ones(6))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize("label_name", ["label", "labels", "y", "target", "Class"])
def test_tables(tmp_path, suffix, label_name):
    frame = pd.DataFrame({"a": TABLE[:, 0], label_name: list("uvwxyz"), "b": TABLE[:, 1]})
    path = tmp_path / f"table{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    data = load(path, labels=True)
    np.testing.assert_array_equal(data.x, TABLE)
    assert data.labels.tolist() == list("uvwxyz")
    assert (data.feature_names, data.name) == (("a", "b"), "table")
    assert data.left_out == {label_name: "labels"}
    assert load(path, labels="if_any").feature_names == ("a", "b")
    with pytest.raises(DataError, match=f"not numbers: {label_name}.*--drop {label_name}"):
        load(path)
    assert load(path, drop=label_name).left_out == {label_name: "dropped"}


def test_table_dtypes_are_kept_and_joined(tmp_path):
    frame = pd.DataFrame({"a": np.uint8([1, 2]), "b": np.uint8([3, 4]), "y": [0.5, 1.5]})
    frame.to_parquet(tmp_path / "bytes.parquet")
    data = load(tmp_path / "bytes.parquet", labels="if_any")
    assert data.x.dtype == np.uint8
    assert data.labels.tolist() == [0.5, 1.5]
    assert load(tmp_path / "bytes.parquet").feature_names == ("a", "b", "y")
    mixed = pd.DataFrame({"a": [True, False], "b": pd.array([3, 4], "Int64"), "c": [0.5, 1.5]})
    mixed.to_parquet(tmp_path / "mixed.parquet")
    assert load(tmp_path / "mixed.parquet").x.tolist() == [[1.0, 3.0, 0.5], [0.0, 4.0, 1.5]]


USE_OF_LABELS = "labels, which `train --condition labels` uses"
COLUMNS = pd.DataFrame({"age": [30.0, 31.5, 18.0, 44.0], "y": [0.0, 1.0, 1.0, 0.0]})
IDENTIFIERS = {
    "id": [17, 4, 99, 1400],
    "customer_id": [17.0, 4.0, 99.0, 1400.0],
    "orderID": [5, 4, 3, 1],
    "n": [0, 1, 2, 3],
    "number": [1000, 1001, 1002, 1003],
}
ORDINARY = {
    "id": [1, 1, 2, 2],
    "userid": [0.5, 1.5, 2.5, 3.5],
    "valid": [17, 4, 99, 1400],
    "grid": [3, 1, 4, 7],
    "age": [30, 31, 33, 34],
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_one_line_says_which_columns_are_used_as_what(tmp_path, suffix):
    frame = COLUMNS.assign(id=IDENTIFIERS["id"])
    path = tmp_path / f"table{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_csv(path, index=False)
    data = load(path)
    assert data.columns == (
        "3 features: age, y, id; id looks like an identifier (leave it out with --drop id)"
    )
    data = load(path, labels="if_any", drop="id")
    assert data.columns == f"1 feature: age; left out: id (dropped), y ({USE_OF_LABELS})"
    np.testing.assert_array_equal(data.x[:, 0], COLUMNS["age"])
    np.testing.assert_array_equal(data.labels, COLUMNS["y"])
    assert load(path, drop=["age", "id"], labels="if_any").feature_names == ("y",)
    with pytest.raises(DataError, match=r"no column town to drop; it has age, y, id\."):
        load(path, drop=["town"])


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_identifiers_are_noticed(tmp_path, name):
    COLUMNS.assign(**{name: IDENTIFIERS[name]}).to_csv(tmp_path / "t.csv", index=False)
    assert load(tmp_path / "t.csv").identifiers == (name,)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_columns_are_no_identifiers(tmp_path, name):
    COLUMNS.assign(**{name: ORDINARY[name]}).to_csv(tmp_path / "t.csv", index=False)
    assert load(tmp_path / "t.csv").identifiers == ()


def test_identifiers_are_judged_by_all_rows(tmp_path):
    rows = np.arange(3000)
    frame = pd.DataFrame({"a": rows % 7, "id": rows[::-1], "key": np.minimum(rows, 2000)})
    frame.to_parquet(tmp_path / "t.parquet")
    for options in ({}, {"cache": tmp_path / "cache"}):
        assert load(tmp_path / "t.parquet", **options).identifiers == ("id",)


def test_line_of_what_has_no_columns(tmp_path, mnist_folder):
    assert load(write_npz(tmp_path / "f.npz", x=TABLE, y=np.arange(6))).columns == "2 features"
    archive = load(tmp_path / "f.npz", labels="if_any")
    assert archive.columns == f"2 features; left out: y ({USE_OF_LABELS})"
    images = load(mnist_folder, labels="if_any")
    assert images.columns.startswith("images of 4 x 3 pixels (height x width); left out: train-lab")
    assert load(bad_npy(tmp_path, np.ones((4, 3, 2, 2, 2)))).columns == (
        "arrays of shape (3, 2, 2, 2)"
    )
    with pytest.raises(DataError, match="no columns with names, so id cannot be dropped"):
        load(tmp_path / "f.npz", drop="id")


DELIMITED = {
    "semicolon": ("t.csv", "a;b\n1.5;2\n-3.25;4\n"),
    "decimal comma": ("t.csv", "a;b\n1,5;2\n-3,25;4\n"),
    "thousands of rows later": ("t.csv", "a;b\n" + "1,5;2\n" * 99 + "-3,25;4\n"),
    "comma in a name": ("t.csv", '"a, EUR";b\n1,5;2\n-3,25;4\n'),
    "tab": ("t.tsv", "a\tb\n1.5\t2\n-3.25\t4\n"),
    "tab and comma": ("t.tsv", "a\tb\n1,5\t2\n-3,25\t4\n"),
    "byte order mark": ("t.csv", "\ufeffa;b\n1,5;2\n-3,25;4\n"),
    "Windows": ("t.csv", "a;b\r\n1,5;2\r\n-3,25;4\r\n"),
    "exponent": ("t.csv", "a;b\n1,5e0;2\n-3,25;4\n"),
}


@pytest.mark.parametrize("case", DELIMITED)
def test_separators_and_decimals_are_found(tmp_path, case):
    name, text = DELIMITED[case]
    data = load(write_csv(tmp_path / name, text))
    assert [part.strip("\ufeff") for part in data.feature_names][1] == "b"
    assert data.feature_names[0] in ("a", "a, EUR")
    np.testing.assert_array_equal(data.x[[0, -1]], [[1.5, 2.0], [-3.25, 4.0]])


SPARSE = np.random.default_rng(3).random((300, 50))
SPARSE = sparse.coo_array(np.where(SPARSE < 0.1, SPARSE, 0.0))


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "mtx", "mtx.gz"])
def test_sparse_matrices_become_dense(tmp_path, form, cache, monkeypatch):
    monkeypatch.setattr("keras_vae.data.sparse._ROWS_AT_ONCE", 128)
    counts = (SPARSE * 100).astype(np.int32)
    if form.startswith("mtx"):
        path = tmp_path / f"counts.{form}"
        with gzip.open(path, "wb") if form.endswith("gz") else path.open("wb") as file:
            io.mmwrite(file, counts)
    else:
        path = tmp_path / "counts.npz"
        sparse.save_npz(path, counts.asformat(form))
    data = load(path, **({"cache": tmp_path / "cache"} if cache else {}))
    assert data.x.shape == (300, 50)
    assert data.x.dtype.kind == "i"
    np.testing.assert_array_equal(data.x, counts.toarray())


def test_sparse_matrix_that_is_too_large_is_refused(tmp_path):
    sparse.save_npz(tmp_path / "s.npz", sparse.csr_array((100_000, 50_000), dtype=np.float32))
    with pytest.raises(DataError, match=r"100000, 50000\].* 18.6 GiB .*cache="):
        load(tmp_path / "s.npz")


def test_csv_header_of_column_numbers_is_a_header(tmp_path):
    pd.DataFrame(TABLE).to_csv(tmp_path / "t.csv", index=False)
    assert load(tmp_path / "t.csv").feature_names == ("0", "1")
    np.testing.assert_array_equal(load(tmp_path / "t.csv").x, TABLE)


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_idx(tmp_path, ndim, compress):
    array = np.arange(24, dtype=np.uint8).reshape((24, 1, 1, 1)[:ndim])
    (tmp_path / "some-file").write_bytes(compress(idx_bytes(array)))
    data = load(tmp_path / "some-file")
    assert data.x.dtype == np.uint8
    assert data.x.ndim == (2 if ndim <= 2 else 4)
    np.testing.assert_array_equal(data.x.ravel(), array.ravel())


@pytest.fixture(params=["-idx3-ubyte", "-idx3-ubyte.gz", ".idx3-ubyte"])
def mnist_folder(tmp_path, request):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for part, images in (("train", IMAGES), ("t10k", IMAGES[::-1])):
        pack = gzip.compress if request.param.endswith("gz") else bytes
        images_path = folder / f"{part}-images{request.param}"
        images_path.write_bytes(pack(idx_bytes(images)))
        labels_path = folder / images_path.name.replace("images", "labels").replace("idx3", "idx1")
        labels_path.write_bytes(pack(idx_bytes(DIGITS_OF_FIVE)))
    return folder


def test_mnist_folder(mnist_folder):
    train, test = load(mnist_folder, labels=True), load(mnist_folder, split="test")
    np.testing.assert_array_equal(train.x[..., 0], IMAGES)
    np.testing.assert_array_equal(train.labels, DIGITS_OF_FIVE)
    np.testing.assert_array_equal(test.x[..., 0], IMAGES[::-1])
    assert (train.name, test.name, test.labels) == ("tiny-train", "tiny-test", None)
    np.testing.assert_array_equal(load(mnist_folder, split="train").x, train.x)


def test_idx_finds_the_labels_beside_it(mnist_folder):
    path = next(mnist_folder.glob("t10k-images*"))
    np.testing.assert_array_equal(load(path, labels=True).labels, DIGITS_OF_FIVE)
    plain = mnist_folder / "train-images-idx3-ubyte"
    plain.write_bytes(idx_bytes(IMAGES))
    (mnist_folder / "train-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(idx_bytes(DIGITS_OF_FIVE))
    )
    np.testing.assert_array_equal(load(plain, labels=True).labels, DIGITS_OF_FIVE)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "gif", "PNG"])
def test_images_are_sorted_by_path(tmp_path, suffix):
    for i in reversed(range(5)):
        options = {"lossless": True} if suffix == "webp" else {}
        pixels = np.repeat(IMAGES[i][..., np.newaxis], 3, axis=-1)
        write_image(tmp_path / f"{i}.{suffix}", pixels, **options)
    (tmp_path / ".hidden.png").write_bytes(b"not an image")
    (tmp_path / "notes.txt").write_text("not an image")
    data = load(tmp_path)
    assert data.x.dtype == np.uint8
    np.testing.assert_array_equal(data.x, np.repeat(IMAGES[..., np.newaxis], 3, axis=-1))
    assert data.name == tmp_path.name


def test_grey_images_with_folders_for_labels(tmp_path):
    for i, label in enumerate(["cat", "cat", "dog", "fox", "fox"]):
        write_image(tmp_path / label / f"{i}.png", IMAGES[i])
    data = load(tmp_path, labels=True)
    np.testing.assert_array_equal(data.x[..., 0], IMAGES)
    assert data.labels.tolist() == ["cat", "cat", "dog", "fox", "fox"]


def test_palette_becomes_colour_and_bilevel_stays_boolean(tmp_path):
    colours = Image.fromarray(np.full((2, 2, 3), 204, np.uint8)).convert("P")
    (tmp_path / "p").mkdir()
    colours.save(tmp_path / "p" / "0.png")
    np.testing.assert_array_equal(load(tmp_path / "p").x, np.full((1, 2, 2, 3), 204))
    (tmp_path / "b").mkdir()
    Image.fromarray(np.eye(3, dtype=bool)).save(tmp_path / "b" / "0.png")
    bits = load(tmp_path / "b").x
    assert bits.dtype == bool
    np.testing.assert_array_equal(bits[0, ..., 0], np.eye(3))


GREY16 = (np.arange(40 * 30).reshape(40, 30) * 54).astype(np.uint16)


def mixed_folder(folder):
    write_image(folder / "a.png", GREY16)
    write_image(folder / "b.png", np.full((30, 60, 3), (250, 0, 0), np.uint8))
    write_image(folder / "c.png", np.full((8, 8), 77, np.uint8))
    write_image(folder / "d.png", np.full((20, 20, 4), 200, np.uint8))
    return folder


def test_images_of_16_bits_keep_their_levels(tmp_path):
    write_image(tmp_path / "0.png", GREY16)
    data = load(tmp_path)
    assert data.x.dtype == np.uint16
    np.testing.assert_array_equal(data.x[0, ..., 0], GREY16)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
    ("mode", "channels", "dtype"),
    [("L", 1, "uint8"), ("RGB", 3, "uint8"), ("RGBA", 4, "uint8"), ("I;16", 1, "uint16")],
)
def test_images_are_converted_and_resized(tmp_path, mode, channels, dtype, cache):
    folder = mixed_folder(tmp_path / "images")
    options = {"cache": tmp_path / "cache"} if cache else {}
    x = load(folder, image_size=(16, 12), image_mode=mode, **options).x
    assert (x.shape, x.dtype) == ((4, 16, 12, channels), np.dtype(dtype))
    white = 257 if mode == "I;16" else 1
    assert (x[2][..., 0] == 77 * white).all()
    if mode in ("RGB", "RGBA"):
        assert (x[1][..., :3] == (250, 0, 0)).all()
    # The middle of the ramp stays in the middle; conversion to 8 bits neither clips nor wraps.
    middle = GREY16.mean() * white / 257
    assert abs(x[0][..., 0].mean() - middle) < 0.02 * middle


def test_conversion_alone_keeps_levels_to_half_of_one(tmp_path):
    write_image(tmp_path / "0.png", GREY16)
    grey = load(tmp_path, image_mode="L").x[0, ..., 0]
    assert np.abs(grey.astype(float) - GREY16 / 257).max() <= 0.5
    colours = tmp_path / "colours"
    bad_bytes(tmp_path, "x.png", png_of_16_bits(np.full((4, 5, 3), 40001)))
    colours.mkdir()
    (tmp_path / "x.png").rename(colours / "x.png")
    assert load(colours, image_mode="RGB").x.max() == 156  # 40001 / 256


def test_photographs_stand_upright(tmp_path):
    image = Image.fromarray(IMAGES[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "0.png", exif=exif)
    np.testing.assert_array_equal(load(tmp_path).x[0, ..., 0], np.rot90(IMAGES[0], -1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": (0, 4)}, r"height and width .* \(64, 64\); got \(0, 4\)"),
        ({"image_size": (4,)}, r"height and width"),
        ({"image_mode": "CMYK"}, "one of 1, L, RGB, RGBA, I;16; got 'CMYK'"),
    ],
)
def test_sizes_and_modes_that_are_none(tmp_path, options, words):
    with pytest.raises(DataError, match=words):
        load(tmp_path, **options)
    np.save(tmp_path / "x.npy", TABLE)
    with pytest.raises(DataError, match="is not a directory of images"):
        load(tmp_path / "x.npy", image_size=(4, 4))


def test_floating_point_images_are_not_converted(tmp_path):
    Image.fromarray(np.ones((4, 3), np.float32)).save(tmp_path / "a.tiff")
    assert load(tmp_path).x.dtype == np.float32
    with pytest.raises(DataError, match=r"floating-point numbers.*\.npy"):
        load(tmp_path, image_mode="L")


def test_jpeg_is_near_what_was_saved(tmp_path):
    grey = np.full((8, 8), 100, np.uint8)
    write_image(tmp_path / "a.jpg", grey)
    write_image(tmp_path / "b.jpeg", grey)
    # A constant block is quantised in one coefficient, in steps of at most 2 grey levels.
    np.testing.assert_allclose(load(tmp_path).x, 100, atol=2)


# Reading: refusals. One row per sentence: how to make the source, and words it must contain.


def bad_npy(folder, value, **options):
    np.save(folder / "bad.npy", value, **options)
    return folder / "bad.npy"


def truncated(path, keep=0.6):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    return path


def bad_bytes(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


def two_images(folder, first, second):
    write_image(folder / "0.png", first)
    write_image(folder / "1.png", second)
    return folder


def png_of_16_bits(pixels):
    """Makes a PNG file of 16-bit colours, which Pillow does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def animation(folder):
    frames = [Image.fromarray(image) for image in IMAGES]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    return folder


def parquet(folder, frame):
    frame.to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def with_bad_values(dtype, shape=(50, 3)):
    x = np.zeros(shape, dtype)
    x[17, 1], x[20, 0] = np.nan, np.inf
    return x


REFUSED = {
    "missing": (lambda d: d / "no.npy", ["does not exist", '"digits"']),
    "missing_npz_key": (lambda d: f"{d}/no.npz:x", ["no.npz does not exist"]),
    "below_a_file": (lambda d: bad_npy(d, TABLE) / "x", ["does not exist"]),
    "name_too_long": (lambda d: d / ("x" * 5000), ["cannot be opened"]),
    "unknown_kind": (
        lambda d: bad_bytes(d, "f.h5", b"\x89HDF\r\n"),
        ["f.h5", "HDF5", "not read", ".npz"],
    ),
    "unknown_bytes": (
        lambda d: bad_bytes(d, "f.bin", b"\x89HDF\r\n"),
        ["f.bin", "unknown kind", r"b'\x89HDF'", ".parquet"],
    ),
    "unknown_gzip": (lambda d: bad_bytes(d, "f.gz", gzip.compress(b"hello")), ["unknown kind"]),
    "zero_bytes": (lambda d: bad_bytes(d, "f.npy", b""), ["is empty (0 bytes)"]),
    "truncated_npy": (lambda d: truncated(bad_npy(d, TABLE)), ["bad.npy", "incomplete"]),
    "csv_windows_1252": (
        lambda d: bad_bytes(d, "f.csv", "größe,b\n1.5,2\n".encode("cp1252")),
        ["f.csv holds the byte 0xf6", "Save it again", "WINDOWS-1252"],
    ),
    "csv_windows_1252_late": (
        lambda d: bad_bytes(d, "f.csv", b"a,b\n" + b"1.5,2\n" * 99 + b"\xe9,3\n"),
        ["f.csv holds the byte 0xe9"],
    ),
    "csv_utf_16": (
        lambda d: bad_bytes(d, "f.csv.gz", gzip.compress("a,b\n1.5,2\n".encode("utf-16"))),
        ["f.csv.gz holds the byte 0xff", "iconv -f UTF-16"],
    ),
    "not_npy": (lambda d: bad_bytes(d, "f.npy", b"hello world"), ["cannot be read as a .npy"]),
    "objects_npy": (
        lambda d: bad_npy(d, np.array([{}, 1], object), allow_pickle=True),
        ["Python objects", "never unpickled"],
    ),
    "strings": (lambda d: bad_npy(d, np.array(["a", "b"])), ["strings", "Convert"]),
    "bytes": (lambda d: bad_npy(d, np.array([b"a", b"b"])), ["strings"]),
    "complex": (lambda d: bad_npy(d, TABLE * 1j), ["complex numbers", "complex128"]),
    "dates": (lambda d: bad_npy(d, np.array(["2020-01-01"], "M8[D]")), ["dates"]),
    "records": (lambda d: bad_npy(d, np.zeros(2, [("a", "f4")])), ["records"]),
    "long_doubles": (lambda d: bad_npy(d, TABLE.astype(np.longdouble)), ["at most 64 bits"]),
    "scalar": (lambda d: bad_npy(d, np.float32(1)), ["shape ()", "no examples"]),
    "no_rows": (lambda d: bad_npy(d, np.zeros((0, 3))), ["shape (0, 3)"]),
    "no_columns": (lambda d: bad_npy(d, np.zeros((3, 0))), ["shape (3, 0)"]),
    "nan_f4": (lambda d: bad_npy(d, with_bad_values("f4")), ["holds 2", "row 17 (counted from 0)"]),
    "nan_f2": (lambda d: bad_npy(d, with_bad_values("f2", (50, 3, 2))), ["holds 4", "row 17"]),
    "truncated_npz": (
        lambda d: truncated(write_npz(d / "f.npz", x=TABLE)),
        ["f.npz", "truncated", "again"],
    ),
    "npz_bad_member": (
        lambda d: bad_bytes(
            d,
            "f.npz",
            write_npz(d / "g.npz", x=TABLE).read_bytes().replace(b"\x93NUMPY", b"\x93NUMBY"),
        ),
        ["f.npz", "cannot be read as a .npz"],
    ),
    "npz_objects": (
        lambda d: write_npz(d / "f.npz", x=np.array([{}, 1], object)),
        ["never unpickled"],
    ),
    "npz_nothing": (lambda d: write_npz(d / "f.npz"), ["it holds: nothing"]),
    "npz_ambiguous": (
        lambda d: write_npz(d / "f.npz", a=TABLE, b=TABLE),
        ["it holds: a, b", "f.npz:key"],
    ),
    "npz_two_names": (lambda d: write_npz(d / "f.npz", x=TABLE, data=TABLE), ["x, data"]),
    "npz_no_such_key": (
        lambda d: f"{write_npz(d / 'f.npz', a=TABLE, b=TABLE)}:c",
        ["no array 'c'", "a, b"],
    ),
    "csv_text": (
        lambda d: write_csv(d / "t.csv", "a,town,when\n1,Rome,x\n2,Oslo,y\n"),
        ["not numbers: town, when", "Encode"],
    ),
    "csv_many_text": (
        lambda d: write_csv(d / "t.csv", "a,b,c,d,e,f,g\n" + "u,v,w,x,y,z,s\n"),
        ["a, b, c, d, e and 2 more"],
    ),
    "csv_missing_value": (
        lambda d: write_csv(d / "t.csv", "a,b\n1,2\n3,\n"),
        ["holds 1 missing", "row 1 (counted from 0), column 'b'"],
    ),
    "csv_ragged": (lambda d: write_csv(d / "t.csv", "a,b\n1,2\n1,2,3\n"), ["CSV", "line 3"]),
    "csv_nameless": (
        lambda d: write_csv(d / "t.csv", "a,b\n1,2,3\n4,5,6\n"),
        ["more values", "Name every column"],
    ),
    "csv_no_header": (
        lambda d: write_csv(d / "t.csv", "1.5,2\n3,4\n"),
        ["row of values (1.5, 2)", "Add a first line"],
    ),
    "csv_name_twice": (
        lambda d: write_csv(d / "t.csv", "age,b,age\n1,2,3\n"),
        ["several columns age", "Rename all but one"],
    ),
    "csv_of_a_spreadsheet": (
        lambda d: write_csv(d / "t.csv", "sep=;\na;b\n1;2\n"),
        ["begins with 'sep='", "Delete this line"],
    ),
    "csv_of_bars": (
        lambda d: write_csv(d / "t.csv", "a|b\n1|2\n"),
        ["values of a row between |", "commas, semicolons"],
    ),
    "csv_index": (lambda d: write_csv(d / "t.csv", ",a\n0,1\n1,2\n"), ["index=False"]),
    "csv_binary": (
        lambda d: bad_bytes(d, "t.csv", b"\xff\xfe\x00\x81" * 9),
        ["text in UTF-8 was expected"],
    ),
    "csv_blank": (lambda d: write_csv(d / "t.csv", "\n"), ["CSV table", "No columns"]),
    "csv_header_only": (lambda d: write_csv(d / "t.csv", "a,b\n"), ["0 rows"]),
    "csv_truth_value_in_header": (
        lambda d: write_csv(d / "t.csv", "age,True,3\n1,False,2\n"),
        ["row of values (age, True, 3)", "Add a first line"],
    ),
    "csv_number_in_header": (
        lambda d: write_csv(d / "t.csv", "setosa,5.1\nvirginica,4.9\n"),
        ["row of values (setosa, 5.1)"],
    ),
    "csv_mixed_decimals": (
        lambda d: write_csv(d / "t.csv", "a;b\n1,5;2.5\n2,5;3.5\n"),
        ["not numbers: b", "with a point or with a comma"],
    ),
    "parquet_truncated": (
        lambda d: truncated(parquet(d, pd.DataFrame({"a": TABLE[:, 0]}))),
        ["t.parquet", "Parquet table"],
    ),
    "parquet_null": (
        lambda d: parquet(d, pd.DataFrame({"a": pd.array([1, None, 3], "Int64")})),
        ["holds 1 missing", "row 1", "column 'a'"],
    ),
    "parquet_dates": (
        lambda d: parquet(d, pd.DataFrame({"a": [1.0], "t": [pd.Timestamp(0)]})),
        ["not numbers: t"],
    ),
    "gzip_truncated": (
        lambda d: truncated(bad_bytes(d, "i.gz", gzip.compress(idx_bytes(IMAGES)))),
        ["IDX", "i.gz"],
    ),
    "gzip_corrupt": (lambda d: bad_bytes(d, "i.gz", b"\x1f\x8b\x08" + b"x" * 40), ["IDX"]),
    "idx_short": (
        lambda d: truncated(bad_bytes(d, "i", idx_bytes(IMAGES))),
        ["damaged IDX", "shape (5, 4, 3), 60 bytes, but 29 follow"],
    ),
    "idx_long": (lambda d: bad_bytes(d, "i", idx_bytes(IMAGES) + b"z"), ["but 61 follow"]),
    "idx_header": (lambda d: bad_bytes(d, "i", idx_bytes(IMAGES)[:9]), ["ends within its header"]),
    "idx_float": (
        lambda d: bad_bytes(d, "i", b"\0\0\x0d\x01" + bytes(8)),
        ["type 0x0d", "unsigned bytes"],
    ),
    "idx_5_axes": (lambda d: bad_bytes(d, "i", b"\0\0\x08\x05" + bytes(20)), ["5 axes"]),
    "idx_empty": (lambda d: bad_bytes(d, "i", idx_bytes(IMAGES[:0])), ["shape (0, 4, 3)"]),
    "h5ad": (lambda d: bad_bytes(d, "a.h5ad", b"\x89HDF\r\n"), ["a.h5ad", "save_npz"]),
    "mtx": (lambda d: bad_bytes(d, "a.mtx", b"hello"), ["a.mtx", "Matrix Market"]),
    "image_colours_of_16_bits": (
        lambda d: bad_bytes(d, "0.png", png_of_16_bits(np.full((4, 5, 3), 4000))).parent,
        ["0.png", "16 bits", 'image_mode="RGB"'],
    ),
    "no_images": (lambda d: d, ["holds no images", ".png"]),
    "image_sizes": (
        lambda d: two_images(d, IMAGES[0], IMAGES[1][:2]),
        ["1.png is 3x2 L but 0.png is 3x4 L", "image_size=(4, 3)", "--image-size 4,3"],
    ),
    "image_modes": (
        lambda d: two_images(d, IMAGES[0], np.zeros((4, 3, 3), np.uint8)),
        ["1.png is 3x4 RGB but 0.png is 3x4 L", "image_mode='L'", "--image-mode L"],
    ),
    "image_mode_for_a_shell": (
        lambda d: two_images(d, GREY16, GREY16[:9]),
        ["image_mode='I;16'", "--image-mode 'I;16')"],
    ),
    "image_truncated": (
        lambda d: truncated(write_image(d / "0.png", np.zeros((64, 64), np.uint8))).parent,
        ["0.png", "cannot be read as an image"],
    ),
    "image_not": (lambda d: bad_bytes(d, "0.jpg", b"hello").parent, ["0.jpg", "an image"]),
    "image_animation": (animation, ["a.gif", "animation of 5 frames"]),
    "image_mixed_folders": (
        lambda d: (
            (write_image(d / "0.png", IMAGES[0]), write_image(d / "s/1.png", IMAGES[0])) and d
        ),
        ["both directly and in sub-directories such as s"],
    ),
    "mnist_twice": (
        lambda d: (
            bad_bytes(d, "train-images-idx3-ubyte", b"")
            and bad_bytes(d, "train-images.idx3-ubyte", b"").parent
        ),
        ["holds 2 files of images of the train part", "exactly one"],
    ),
    "mnist_only_test": (
        lambda d: bad_bytes(d, "t10k-images-idx3-ubyte", b"").parent,
        ["no files of images of the train part"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(tmp_path, case):
    make, words = REFUSED[case]
    source = make(tmp_path)
    with pytest.raises(DataError) as caught:
        load(source)
    sentence = str(caught.value)
    assert str(tmp_path) in sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert sentence.endswith((".", 'key".'))
    for word in words:
        assert word in sentence


def test_reasons_are_chained(tmp_path):
    with pytest.raises(DataError) as caught:
        load(bad_bytes(tmp_path, "f.npy", b"hello world"))
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: bad_npy(d, TABLE), "has no labels"),
        (lambda d: write_npz(d / "f.npz", x=TABLE), "has no labels"),
        (
            lambda d: write_npz(d / "f.npz", x=TABLE, y=np.arange(5)),
            r"6 examples but labels of shape \(5,\)",
        ),
        (lambda d: write_npz(d / "f.npz", x=TABLE, y=np.float32(1)), r"labels of shape \(\)"),
        (lambda d: write_npz(d / "f.npz", data=TABLE, y=TABLE, label=TABLE), "several candidates"),
        (
            lambda d: write_csv(d / "t.csv", "a,y\n1,u\n2,\n"),
            "1 row without a label in column 'y'",
        ),
        (lambda d: write_csv(d / "t.csv", "a,y,Class\n1,2,3\n"), "candidates .* y, Class"),
        (lambda d: bad_bytes(d, "train-images-idx3-ubyte", idx_bytes(IMAGES)), "has no labels"),
        (lambda d: write_image(d / "0.png", IMAGES[0]).parent, "has no labels"),
    ],
)
def test_label_refusals(tmp_path, make, words):
    source = make(tmp_path)
    with pytest.raises(DataError, match=words):
        load(source, labels=True)


def test_split_is_for_mnist_folders(tmp_path):
    path = bad_npy(tmp_path, TABLE)
    with pytest.raises(DataError, match="no parts to select"):
        load(path, split="test")
    with pytest.raises(DataError, match="no parts to select"):
        load("digits", split="test")
    with pytest.raises(DataError, match="got 'validation'"):
        load(path, split="validation")


@pytest.mark.parametrize("function", ["listdir", "walk"])
def test_unreadable_directory(tmp_path, monkeypatch, function):
    def refuse(*_, **options):
        error = PermissionError(13, "Permission denied")
        if "onerror" in options:
            options["onerror"](error)
        raise error

    monkeypatch.setattr(os, function, refuse)
    with pytest.raises(DataError, match="cannot be opened: Permission denied"):
        load(tmp_path)


def test_unreadable_file(tmp_path, monkeypatch):
    path = bad_npy(tmp_path, TABLE)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    with pytest.raises(DataError, match="cannot be opened: Permission denied"):
        load(path)


def test_first_bad_row_is_counted_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_vae.data.files._CHUNK_VALUES", 15)
    with pytest.raises(DataError, match=r"holds 2 .* row 17 "):
        load(bad_npy(tmp_path, with_bad_values("f8")))


# Splitting and counting


def test_split_is_disjoint_complete_and_repeatable():
    x = np.arange(1000)
    train, test = split(x, test_fraction=0.25, seed=3)
    assert (len(train), len(test)) == (750, 250)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), x)
    np.testing.assert_array_equal(train, np.sort(train))
    assert_same_bits([train, test], [*split(x, test_fraction=0.25, seed=3)])
    assert not np.array_equal(test, split(x, test_fraction=0.25, seed=4)[1])
    labels = [*split(x * 10, test_fraction=0.25, seed=3)]
    assert_same_bits(labels, [train * 10, test * 10])


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (np.arange(4), {}, "4 for training and 0 for the test out of 4"),
        (np.arange(1), {"test_fraction": 0.9}, "at least one example in each part"),
        (np.arange(9), {"test_fraction": 0.0}, "between 0 and 1"),
        (np.arange(9), {"test_fraction": 1.0}, "between 0 and 1"),
        (np.arange(9), {"seed": -1}, "`seed` from 0"),
        (np.float32(1), {}, "along axis 0"),
    ],
)
def test_split_refusals(x, options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        split(x, **options)


@pytest.mark.parametrize(
    ("n", "size", "kept", "full"), [(10, 5, 2, 2), (11, 5, 3, 2), (5, 5, 1, 1)]
)
def test_steps(n, size, kept, full):
    assert steps(n, size) == kept
    assert steps(n, size, drop_remainder=True) == full


def test_steps_refusals():
    with pytest.raises(ValueError, match="`n` of at least 1; got 0"):
        steps(0, 5)
    with pytest.raises(ValueError, match="`batch_size` of at least 1; got 0"):
        steps(5, 0)
    with pytest.raises(ValueError, match="no full batch"):
        steps(3, 5, drop_remainder=True)


# Streams

EXAMPLES = np.random.default_rng(2).integers(0, 256, (23, 3, 2, 1), np.uint8)
NOISY = {"rescale": 1 / 255, "transform": binarize, "seed": 7}


@pytest.fixture(params=["memory", "mapped"])
def source(request, tmp_path):
    if request.param == "memory":
        return EXAMPLES
    np.save(tmp_path / "x.npy", EXAMPLES)
    return load(tmp_path / "x.npy").x


def test_every_example_once_per_epoch_in_a_new_order(source):
    n, size = len(source), 5
    stream = drawn(batches(source, size, epochs=4, seed=1))
    per_epoch = steps(n, size)
    assert len(stream) == 4 * per_epoch
    epochs = [np.concatenate(stream[e * per_epoch : (e + 1) * per_epoch]) for e in range(4)]
    for epoch in epochs:
        assert epoch.dtype == np.float32
        assert sorted(map(bytes, epoch.astype(np.uint8))) == sorted(map(bytes, EXAMPLES))
    assert [len(batch) for batch in stream[:per_epoch]] == [5, 5, 5, 5, 3]
    assert len({epoch.tobytes() for epoch in [*epochs, EXAMPLES.astype(np.float32)]}) == 5


@pytest.mark.parametrize("initial_epoch", [1, 3])
@pytest.mark.parametrize("options", [NOISY, {**NOISY, "drop_remainder": True, "shuffle": False}])
def test_resumed_stream_is_the_tail_of_the_full_one(source, initial_epoch, options):
    full = drawn(batches(source, 5, epochs=4, **options))
    tail = batches(source, 5, epochs=4, initial_epoch=initial_epoch, **options)
    per_epoch = steps(len(source), 5, drop_remainder=options.get("drop_remainder", False))
    assert len(tail) == (4 - initial_epoch) * per_epoch
    assert_same_bits(drawn(tail), full[initial_epoch * per_epoch :])


def test_stream_replays_and_depends_on_the_seed(source):
    stream = batches(source, 5, epochs=2, **NOISY)
    assert_same_bits(drawn(stream), drawn(stream))
    other = drawn(batches(source, 5, epochs=2, **{**NOISY, "seed": 8}))
    assert any(not np.array_equal(a, b) for a, b in zip(drawn(stream), other, strict=True))


@pytest.mark.parametrize("shuffle", [True, False])
def test_mapped_stream_has_the_bits_of_the_one_in_memory(tmp_path, shuffle):
    for dtype in ("u1", ">f4"):
        x = EXAMPLES.astype(dtype)
        np.save(tmp_path / "x.npy", x)
        mapped = load(tmp_path / "x.npy").x
        assert is_mapped(mapped[2:, ::2])
        assert not is_mapped(x)
        options = {"epochs": 2, "shuffle": shuffle, "rescale": 1 / 255, "transform": binarize}
        assert_same_bits(drawn(batches(mapped, 4, **options)), drawn(batches(x, 4, **options)))


@pytest.mark.parametrize("kind", ["u1", ">f4", "columns", "fortran"])
def test_a_large_array_is_not_copied_and_gives_the_same_bits(kind, monkeypatch):
    x = EXAMPLES.astype(">f4" if kind == ">f4" else "u1")
    x = {"columns": x[:, ::2], "fortran": np.asfortranarray(x)}.get(kind, x)
    options = {"epochs": 2, "rescale": 1 / 255, "transform": binarize}
    copied = batches(x, 4, **options)
    monkeypatch.setattr("keras_vae.data.mapped._COPIED", 0)
    by_rows = batches(x, 4, **options)
    assert by_rows.source.tables["x"] is x
    assert_same_bits(drawn(by_rows), drawn(copied))


def test_only_a_mapped_stream_calls_python(tmp_path, monkeypatch):
    traced = []
    numpy_function = tf.numpy_function

    def counted(*arguments):
        traced.append(arguments)
        return numpy_function(*arguments)

    monkeypatch.setattr(tf, "numpy_function", counted)
    np.save(tmp_path / "x.npy", EXAMPLES)
    batches(EXAMPLES, 4, **NOISY)
    assert not traced
    batches(load(tmp_path / "x.npy").x, 4, **NOISY)
    assert traced


def test_noise_is_fresh_in_each_epoch_and_has_the_right_mean():
    epochs, levels = 400, np.array([0.0, 0.1, 0.5, 0.9, 1.0], np.float32)
    x = np.broadcast_to(levels, (6, 5))
    stream = batches(x, 4, epochs=epochs, shuffle=False, transform=binarize)
    draws = np.concatenate(drawn(stream)).reshape(epochs, -1)
    assert set(np.unique(draws)) == {0.0, 1.0}
    # 5 standard errors of a Bernoulli mean: a false alarm once in 10^6 for each of 3 levels.
    error = 5 * np.sqrt(levels * (1 - levels) / (epochs * 6))
    assert (np.abs(draws.reshape(-1, 5).mean(0) - levels) <= error).all()
    # 18 fair-ish bits per epoch: a repeated neighbour has a probability below 2^-8 each; if noise
    # were the same in each epoch all 399 neighbours would repeat.
    assert (draws[1:] == draws[:-1]).all(axis=1).sum() < 20
    first_batch, second_batch = draws[:, :10], draws[:, 10:20]
    assert (first_batch != second_batch).any()


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
)
def test_every_real_dtype_becomes_float32(dtype):
    x = np.array([[0], [1], [1]], dtype)
    (batch,) = drawn(batches(x, 3, shuffle=False))
    assert_same_bits([batch], [x.astype(np.float32)])


@pytest.mark.parametrize("top", [16, 49, 4095])
def test_rescale_has_the_bits_of_a_division_and_comes_before_the_transform(top):
    x = np.arange(top + 1, dtype=np.uint16)
    (batch,) = drawn(batches(x, len(x), shuffle=False, rescale=1 / top))
    assert_same_bits([batch], [x.astype(np.float32) / np.float32(top)])
    doubled = batches(x, len(x), shuffle=False, rescale=1 / top, transform=lambda x, seed: x * 2)
    assert_same_bits(drawn(doubled), [batch * 2])


def test_transform_is_given_a_new_int32_seed_for_each_batch():
    seeds = drawn(batches(EXAMPLES, 5, epochs=3, seed=2**31 - 1, transform=lambda x, seed: seed))
    assert {(seed.dtype.name, seed.shape) for seed in seeds} == {("int32", (2,))}
    assert len({tuple(seed) for seed in seeds}) == len(seeds) == 15


def test_a_transform_of_ones_own_may_branch_on_tensors():
    def doubled_if_large(x, seed):
        if tf.reduce_max(x) > 3.0:
            x = 2.0 * x
        return x

    x = np.array([[1.0], [4.0]], np.float32)
    found = drawn(batches(x, 1, shuffle=False, transform=doubled_if_large))
    np.testing.assert_array_equal(np.concatenate(found), [[1.0], [8.0]])


def test_static_shapes():
    assert batches(EXAMPLES, 5).element_spec.shape.as_list() == [None, 3, 2, 1]
    assert batches(EXAMPLES[:20], 5).element_spec.shape.as_list() == [5, 3, 2, 1]
    assert batches(EXAMPLES, 5, drop_remainder=True).element_spec.shape.as_list() == [5, 3, 2, 1]


def test_condition_and_weights_stay_beside_their_examples(source):
    ids = EXAMPLES.reshape(23, -1).astype(np.int64) @ np.array([1, 256, 256**2, 256**3, 0, 0])
    stream = batches(
        source,
        5,
        epochs=2,
        condition=ids,
        sample_weight=np.arange(23) / 2,
        transform=lambda x, _: x,
    )
    for inputs, y, weight in stream:
        assert y is None
        assert (inputs["condition"].dtype, weight.dtype) == (tf.int64, tf.float32)
        x = inputs["x"].numpy()
        rows = [int(np.flatnonzero(ids == given)[0]) for given in inputs["condition"].numpy()]
        np.testing.assert_array_equal(x, EXAMPLES[rows])
        np.testing.assert_array_equal(weight, np.array(rows) / 2)
    floats = batches(EXAMPLES, 5, condition=np.ones((23, 2)))
    assert floats.element_spec["condition"] == tf.TensorSpec([None, 2], tf.float32)


def test_parts_stay_together_and_have_noise_of_their_own():
    parts = {"a": np.arange(23), "b": np.arange(23)[:, None] + 0.5, "condition": np.arange(23)}
    for batch in batches(parts, 5, epochs=2):
        assert {name: part.dtype for name, part in batch.items()} == {
            "a": tf.float32,
            "b": tf.float32,
            "condition": tf.int64,
        }
        np.testing.assert_array_equal(batch["a"], batch["condition"])
        np.testing.assert_array_equal(batch["b"][:, 0], batch["a"] + 0.5)
    levels = {name: np.full((4, 50), 0.5) for name in ("x", "b", "c")}
    noisy = {name: binarize for name in levels}
    (drawn_parts,) = batches(levels, 4, transform=noisy)
    (reordered,) = batches(dict(reversed(levels.items())), 4, transform=noisy)
    (alone,) = batches(levels["x"], 4, transform=binarize)
    np.testing.assert_array_equal(drawn_parts["x"], alone)
    for name in levels:
        np.testing.assert_array_equal(drawn_parts[name], reordered[name])
    assert np.any(drawn_parts["x"].numpy() != drawn_parts["b"].numpy())
    assert np.any(drawn_parts["b"].numpy() != drawn_parts["c"].numpy())


class Recorder(keras.Model):
    """A model that keeps what `fit` gives it, with a scalar weight to train."""

    def __init__(self):
        super().__init__()
        self.seen, self.weights_seen = [], []
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        x = inputs["x"] if isinstance(inputs, dict) else inputs
        return x * self.scale

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if not isinstance(x, keras.KerasTensor):
            self.seen.append(np.array(x["x"] if isinstance(x, dict) else x))
            self.weights_seen.append(sample_weight)
        assert y is None
        return keras.ops.mean(y_pred**2)


@pytest.mark.parametrize("side", [{}, {"condition": np.arange(23)}, {"sample_weight": np.ones(23)}])
def test_fit_takes_each_form_and_resumes_on_the_same_batches(side):
    def fit(**epochs):
        model = Recorder()
        model.compile(optimizer="sgd", run_eagerly=True)
        stream = batches(EXAMPLES, 5, **NOISY, **side, **epochs)
        model.fit(stream, steps_per_epoch=steps(23, 5), shuffle=False, verbose=0, **epochs)
        return model

    whole, resumed = fit(epochs=3), fit(epochs=3, initial_epoch=1)
    assert len(whole.seen) == 15
    assert_same_bits(resumed.seen, whole.seen[5:])
    assert all((w is not None) == ("sample_weight" in side) for w in whole.weights_seen)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"epochs": 0}, ValueError, "initial_epoch < epochs"),
        ({"epochs": 3, "initial_epoch": 3}, ValueError, "initial_epoch=3 and epochs=3"),
        ({"initial_epoch": -1}, ValueError, "0 <= initial_epoch"),
        ({"seed": -1}, ValueError, "`seed` from 0 to 2**31 - 1; got -1"),
        ({"seed": 2**31}, ValueError, "`seed`"),
        ({"rescale": 0.0}, ValueError, "`rescale` positive"),
        ({"rescale": float("nan")}, ValueError, "`rescale` positive"),
        ({"condition": np.arange(4)}, ValueError, "each of the 23 examples; got 4"),
        ({"condition": ["a"] * 23}, DataError, "condition must be an array of numbers"),
        ({"sample_weight": np.ones(4)}, ValueError, "each of the 23 examples; got 4"),
        ({"sample_weight": np.ones((23, 1))}, ValueError, "shape [23]"),
        ({"sample_weight": -np.ones(23)}, ValueError, ">= 0"),
        ({"sample_weight": np.full(23, np.nan)}, ValueError, "finite"),
        ({"batch_size": 0}, ValueError, "`batch_size` of at least 1"),
        ({"batch_size": 24, "drop_remainder": True}, ValueError, "no full batch"),
        ({"x": np.array(["a"])}, DataError, "ndarray of dtype <U1"),
        ({"x": np.zeros((0, 3))}, ValueError, "shape (0, 3)"),
        ({"x": 3.0}, ValueError, "shape ()"),
        ({"x": {}}, ValueError, "at least one part"),
        ({"x": {"a": EXAMPLES, "b": np.ones(4)}}, ValueError, "`b` with one row for each"),
        ({"x": {"a": EXAMPLES}, "rescale": 0.5}, ValueError, "`rescale` as a dict by part"),
        ({"x": {"a": EXAMPLES}, "transform": {"b": binarize}}, ValueError, "among ['a']; got keys"),
        ({"x": {"condition": EXAMPLES}, "condition": EXAMPLES}, ValueError, "the condition once"),
    ],
)
def test_batches_refusals(options, kind, words):
    with pytest.raises(kind, match=re.escape(words)):
        batches(**{"x": EXAMPLES, "batch_size": 5, **options})


# Random steps


@pytest.mark.parametrize("step", [binarize, functools.partial(dequantize, levels=2)])
def test_steps_are_stateless_in_eager_mode_and_in_a_graph(step):
    x = np.random.default_rng(3).integers(0, 2, (50, 8))
    draws = [step(x, seed=[1, 2]), step(x, seed=[1, 3]), tf.function(step)(tf.constant(x), [1, 2])]
    assert all((draw.dtype, draw.shape) == (tf.float32, x.shape) for draw in draws)
    np.testing.assert_array_equal(draws[0], draws[2])
    if step is not binarize:
        assert (draws[0] != draws[1]).numpy().mean() > 0.99


def test_binarize_leaves_ends_alone_and_refuses_what_is_outside():
    x = np.repeat([[0.0], [1.0]], 10_000, axis=1)
    np.testing.assert_array_equal(binarize(x, seed=[4, 5]), x)
    for bad in (-0.1, 1.1, 255.0, np.nan):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"binarize: expected prob"):
            binarize([[0.5, bad]], seed=[1, 2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="rescale"):
        drawn(batches(EXAMPLES, 5, transform=binarize))


@pytest.mark.parametrize("levels", [2, 3, 16, 17, 256, 1000, 65536])
def test_dequantize_stays_in_the_cell_of_its_level(levels):
    x = np.random.default_rng(6).integers(0, levels, 20_000)
    x[:2] = 0, levels - 1
    y = dequantize(x, seed=[1, 2], levels=levels).numpy()
    assert y.min() > 0
    assert y.max() < 1
    u = y.astype(np.float64) * levels - x
    # float32 rounds y < 1 by at most 2^-25, hence y * levels by levels * 2^-25.
    slack = levels * 2.0**-25
    assert u.min() > -slack
    assert u.max() < 1 + slack
    # u is uniform: mean 1/2 and standard deviation 12^-1/2, held within 5 standard errors.
    assert abs(u.mean() - 0.5) < 5 / np.sqrt(12 * len(u))
    if levels & (levels - 1) == 0:
        np.testing.assert_array_equal(np.floor(y * np.float32(levels)), x)


def test_dequantize_at_the_ends_of_the_uniform(monkeypatch):
    for value in (0.0, 1 - 2.0**-23):
        monkeypatch.setattr(
            tf.random,
            "stateless_uniform",
            lambda shape, *_, value=value, **__: tf.fill(shape, value),
        )
        for levels in (2, 17, 255, 256, 65536):
            y = dequantize([0, levels - 1], seed=[1, 2], levels=levels).numpy()
            assert y.min() > 0
            assert y.max() < 1


def test_dequantize_refusals():
    for levels in (1, 2**16 + 1):
        with pytest.raises(ValueError, match="`levels` from 2 to 65536"):
            dequantize([0], seed=[1, 2], levels=levels)
    for bad in (-1, 4, 0.5, np.nan):
        with pytest.raises(tf.errors.InvalidArgumentError, match="dequantize: expected integers"):
            dequantize([1, bad], seed=[1, 2], levels=4)


def test_dequantized_density_bounds_the_discrete_likelihood():
    """With p(y) = 2y everything is known: P(x) = (2x + 1) / levels^2, its bound is an integral."""
    levels, draws = 8, 20_000
    x = np.arange(levels)
    y = dequantize(np.tile(x, (draws, 1)), seed=[1, 2], levels=levels).numpy().astype(np.float64)
    terms = np.log(2 * y) - np.log(levels)
    bound, error = terms.mean(0), terms.std(0) / np.sqrt(draws)

    def antiderivative(v):
        return v * np.log(np.maximum(v, 1e-300)) - v

    exact = np.log(2) - 2 * np.log(levels) + antiderivative(x + 1.0) - antiderivative(x + 0.0)
    # 5 standard errors: a false alarm once in 10^6 for each of 8 levels.
    assert (np.abs(bound - exact) < 5 * error).all()
    assert (exact < np.log((2 * x + 1) / levels**2)).all()
