"""Files read into arrays; what cannot be trained on is refused in one clear sentence."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_vae.data.arrays import idx, mnist_images, mnist_part, npy, npz
from keras_vae.data.cache import cached
from keras_vae.data.content import LABEL_NAMES, Content, DataError, reason
from keras_vae.data.images import image_paths, image_rows, images
from keras_vae.data.mapped import slices
from keras_vae.data.tables import parquet_rows, table

_CHUNK_VALUES = 2**22


@dataclass(frozen=True, eq=False)
class Data:
    """Examples read from a file.

    Attributes:
        x: Array of shape [N, ...]: images [N, H, W, C], tables [N, columns]. The dtype is the
            file's. Read-only where the file is mapped into memory.
        labels: Array of N labels, numbers or strings; None unless asked for.
        name: Short name of the source.
        feature_names: Column names of a table, None otherwise.
    """

    x: np.ndarray
    labels: np.ndarray | None
    name: str
    feature_names: tuple[str, ...] | None


def load(
    source: str | os.PathLike[str],
    *,
    labels: bool = False,
    split: Literal["train", "test"] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Data:
    """Examples, and labels if wanted, from a file, a directory or scikit-learn's digits.

    | source | examples | labels |
    |---|---|---|
    | `"digits"` | float32 [1797, 8, 8, 1], integer levels 0 to 16 | 0 to 9 |
    | `.npy` | mapped into memory, not read | none |
    | `.npz` | the array named x, data, ... (below) or `"f.npz:key"` | array y, label, ... |
    | `.csv`, `.parquet` | numeric columns, the one of the labels excepted | column y, label, ... |
    | IDX, gzip or not | unsigned bytes | the MNIST-style label file beside it |
    | directory of images | all of one size and mode, in order of their paths | sub-directories |
    | directory of MNIST-style files | `split` selects, "train" by default | the label file |

    An .npz array is called x, X, data, images or arr_0, or is the only one. Labels are called
    label, labels, y, target or class. One axis [N] becomes [N, 1]; three axes are taken for
    images [N, H, W] and become [N, H, W, 1]. Nothing is rescaled or converted: that is for
    `batches(..., rescale=)`. Nothing is ever unpickled.

    Args:
        source: Path, or the word "digits" (`Path("digits")` is a path).
        labels: Read the labels too; it is an error if there are none.
        split: Part of a directory of MNIST-style files.
        cache: Directory for what does not fit into memory: a Parquet table, read in groups of
            rows, or a directory of images is written there once as rows of one file, which is
            mapped, and found again while the source is the same. Other sources ignore it.

    Returns:
        The examples, with at least one row and finite values throughout.

    Raises:
        DataError: The source is missing, of an unknown kind, damaged, empty, or holds what is
            not a finite real number.

    Example:
        >>> load("digits").x.shape
        (1797, 8, 8, 1)
    """
    if split not in (None, "train", "test"):
        raise DataError(f'Expected `split` "train", "test" or None; got {split!r}.')
    path, key = _path_and_key(source)
    pairs = [] if source == "digits" or not path.is_dir() else mnist_images(path)
    if split is not None and not pairs:
        raise DataError(
            f"{source} has no parts to select: `split` is for a directory that holds "
            "train-images-idx3-ubyte, t10k-images-idx3-ubyte and their labels. Leave it out."
        )

    name = Path(path.name.removesuffix(".gz")).stem
    if source == "digits":
        content = _digits()
    elif pairs:
        path = mnist_part(path, pairs, split or "train")
        name = f"{path.parent.resolve().name}-{split or 'train'}"
        content = idx(path, labels)
    elif path.is_dir():
        name = path.resolve().name
        if cache is None:
            content = images(path)
        else:
            paths = image_paths(path)
            content = cached(cache, path, paths, lambda: image_rows(path, paths))
    elif cache is not None and path.suffix.lower() == ".parquet":
        content = cached(cache, path, [path], lambda: parquet_rows(path))
    else:
        content = _file(path, key, labels)
    return _checked(path, name, content, labels)


def _path_and_key(source: str | os.PathLike[str]) -> tuple[Path, str | None]:
    text = os.fspath(source)
    key = None
    if (match := re.fullmatch(r"(.+\.npz):(.+)", text)) is not None:
        text, key = match.groups()
    path = Path(text).expanduser()
    if source == "digits":
        return path, None
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f'{path} does not exist. Give the path of a file or directory, or the word "digits".'
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be opened: {reason(error)}.") from error
    return path, key


def _file(path: Path, key: str | None, labels: bool) -> Content:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes). Write or download it again.")
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz", ".parquet")):
        return table(path, labels)
    if name.endswith(".npy"):
        return npy(path)
    if name.endswith(".npz"):
        return npz(path, key, labels)
    return idx(path, labels)


def _digits() -> Content:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Content(digits.images.astype(np.float32), digits.target)


def _checked(path: Path, name: str, content: Content, labels: bool) -> Data:
    x = content.x
    if x.dtype.kind not in "biuf" or x.dtype.itemsize > 8:
        raise DataError(
            f"{path} holds {_dtype_words(x.dtype)}; expected booleans, integers or floats of at "
            "most 64 bits. Convert the array before saving it."
        )
    if x.ndim == 0 or x.size == 0:
        raise DataError(
            f"{path} holds an array of shape {x.shape}, which has no examples. "
            "Expected at least one, along axis 0."
        )
    if x.ndim in (1, 3):
        x = x[..., np.newaxis]
    _check_finite(path, x, content.feature_names)
    given = content.labels if labels else None
    if labels and given is None:
        raise DataError(
            f"{path} has no labels (a column or array {', '.join(LABEL_NAMES)}, a label file "
            "beside the images, or sub-directories). Ask for the data without labels."
        )
    if given is not None and given.shape[:1] != x.shape[:1]:
        raise DataError(
            f"{path} has {len(x)} examples but labels of shape {given.shape}. "
            "Expected one label for each example."
        )
    return Data(x, given, name, content.feature_names)


def _check_finite(path: Path, x: np.ndarray, feature_names: tuple[str, ...] | None) -> None:
    if x.dtype.kind != "f":
        return
    count, where = 0, ""
    for start, part in slices(x, _CHUNK_VALUES * x.itemsize):
        bad = ~np.isfinite(part)
        if not count and bad.any():
            row, *position = map(int, np.unravel_index(np.argmax(bad), bad.shape))
            where = f"row {start + row} (counted from 0)"
            where += f", column {feature_names[position[0]]!r}" if feature_names else ""
        count += int(np.count_nonzero(bad))
    if count:
        raise DataError(
            f"{path} holds {count} missing, NaN or infinite values, the first in {where}. "
            "Fill them in or leave those rows out."
        )


def _dtype_words(dtype: np.dtype[Any]) -> str:
    words = {"c": "complex numbers", "S": "strings", "U": "strings", "T": "strings"}
    words |= {"V": "records", "M": "dates", "m": "time spans", "O": "Python objects"}
    return f"{words.get(dtype.kind, 'numbers')} (dtype {dtype})"
