"""Readers of array files: .npy and IDX, the format of MNIST."""

from __future__ import annotations

import gzip
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_vae.data.columns import Labels
from keras_vae.data.content import Content, DataError, listed, reading

KNOWN_KINDS = (
    ".npy, .npz, .csv, .csv.gz, .tsv, .parquet, .feather, .mtx, IDX (gzip or not), "
    "or a directory of png, jpg, bmp, gif or webp images"
)
_MNIST_IMAGES = re.compile(r"(train|t10k)-images[-.]idx[34]-ubyte(\.gz)?", re.IGNORECASE)
_IDX_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"


def npy(path: Path) -> Content:
    """Maps the array of a .npy file into memory, read-only."""
    with reading(path, "a .npy array"):
        return Content(np.lib.format.open_memmap(path, mode="r"))


def idx(path: Path, labels: Labels) -> Content:
    """Reads the bytes of an IDX file, and the label file beside an MNIST-style image file."""
    x = _idx_array(path)
    if not labels:
        return Content(x)
    twin = re.sub(r"images([-.])idx[34]", r"labels\1idx1", path.name, flags=re.IGNORECASE)
    stem = twin.removesuffix(".gz")
    for name in (twin, stem, f"{stem}.gz"):
        if name != path.name and (path.parent / name).is_file():
            return Content(x, _idx_array(path.parent / name), left_out={name: "labels"})
    return Content(x)


def _idx_array(path: Path) -> np.ndarray:
    with reading(path, "an IDX file"):
        opener = gzip.open if _starts_with(path, _GZIP_MAGIC) else open
        with opener(path, "rb") as file:
            head = file.read(4)
            _check_idx_head(path, head)
            body = file.read()
    header_size = 4 * head[3]
    shape = tuple(
        int.from_bytes(body[i : i + 4], "big") for i in range(0, min(header_size, len(body)), 4)
    )
    size = len(body) - header_size
    if size < 0:
        raise DataError(
            f"{path} is a damaged IDX file: it ends within its header. Download it again."
        )
    if size != math.prod(shape):
        raise DataError(
            f"{path} is a damaged IDX file: its header states shape {shape}, "
            f"{math.prod(shape)} bytes, but {size} follow. Download it again."
        )
    return np.frombuffer(body, np.uint8)[header_size:].reshape(shape)


def _check_idx_head(path: Path, head: bytes) -> None:
    if len(head) < 4 or head[:2] != b"\0\0":
        raise DataError(
            f"{path} is of an unknown kind (its content begins with {head!r}). Give one of: "
            f"{KNOWN_KINDS}."
        )
    if head[2] != _IDX_UNSIGNED_BYTE or not 1 <= head[3] <= 4:
        raise DataError(
            f"{path} looks like an IDX file of type 0x{head[2]:02x} with {head[3]} axes; only "
            "unsigned bytes (0x08) with 1 to 4 axes are read. Save the array as .npy instead."
        )


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def mnist_images(root: Path) -> list[str]:
    """Lists the names of the MNIST-style image files in a directory."""
    with reading(root, "a directory"):
        return sorted(name for name in os.listdir(root) if _MNIST_IMAGES.fullmatch(name))


def mnist_part(root: Path, names: Sequence[str], split: str) -> Path:
    """Finds the only image file of the "train" or "test" part."""
    part = {"train": "train", "test": "t10k"}[split]
    found = [name for name in names if name.lower().startswith(part)]
    if len(found) != 1:
        raise DataError(
            f"{root} holds {len(found) or 'no'} files of images of the {split} part "
            f"({listed(names)}). "
            f"Expected exactly one, such as {part}-images-idx3-ubyte.gz; or give the file's path."
        )
    return root / found[0]
