"""Files read into arrays; data that cannot be trained on is refused with a clear message."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_vae.data.archives import npz
from keras_vae.data.arrays import idx, mnist_images, mnist_part, npy
from keras_vae.data.cache import cached
from keras_vae.data.columns import Labels, columns_line, identifiers
from keras_vae.data.content import LABEL_NAMES, Content, DataError, listed, reason
from keras_vae.data.delimited import DELIMITED_SUFFIXES
from keras_vae.data.foreign import as_known
from keras_vae.data.images import Form, image_paths, image_rows, images
from keras_vae.data.mapped import chunks
from keras_vae.data.sparse import dense, dense_rows, is_sparse, read_sparse
from keras_vae.data.tables import TABLE_SUFFIXES, delimited_rows, frame_content, parquet_rows, table
from keras_vae.spelling import counted

_CHUNK_VALUES = 2**22
_MOST_CHANNELS = 4


@dataclass(frozen=True, eq=False)
class Data:
    """Examples read from a file.

    Attributes:
        x: Array of shape [N, ...]: images [N, H, W, C], series [N, T, C], tables [N, columns]. It
            has the file's dtype, and is read-only if the file is mapped into memory.
        labels: Array of N labels, numbers or strings; None unless asked for.
        name: Short name of the source.
        feature_names: Column names of a table, None otherwise.
        left_out: Reasons why parts of the source are not in `x`, by name: "labels" or "dropped".
        identifiers: Names of features that look like identifiers or row numbers.

    Example:
        >>> found = load("digits", labels=True)
        >>> found.name, found.x.shape, found.groups[:3]
        ('digits', (1797, 8, 8, 1), ('0', '1', '2'))
    """

    x: np.ndarray
    labels: np.ndarray | None
    name: str
    feature_names: tuple[str, ...] | None
    left_out: Mapping[str, str] = field(default_factory=dict)
    identifiers: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """Different labels in order, such as the names of sub-directories; empty without labels."""
        return () if self.labels is None else tuple(map(str, np.unique(self.labels)))

    @property
    def inputs(self) -> dict[str, Any]:
        """Arguments of `fit` for a model conditioned on the label: {"x": ..., "condition": ...}.

        The condition is one-hot, float32 [N, G], in the order of `groups`.

        Raises:
            DataError: If there are no labels.

        Example:
            >>> found = Data(np.ones([3, 2]), np.array(["b", "a", "b"]), "pictures", None)
            >>> found.groups, found.inputs["condition"].tolist()
            (('a', 'b'), [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
        """
        if self.labels is None:
            raise DataError(
                f"{self.name} was read without labels, and they are the condition. Read it with "
                "labels=True."
            )
        _, codes = np.unique(self.labels, return_inverse=True)
        return {"x": self.x, "condition": np.eye(len(self.groups), dtype=np.float32)[codes]}

    @property
    def columns(self) -> str:
        """One line about how the columns are used.

        Example:
            >>> Data(np.ones([3, 2]), None, "t", ("age", "income"), {"id": "dropped"}).columns
            '2 features: age, income; left out: id (dropped)'
        """
        return columns_line(self.x, self.feature_names, self.left_out, self.identifiers)


def load(
    source: Any,
    *,
    labels: Labels = False,
    split: Literal["train", "test"] | None = None,
    cache: str | os.PathLike[str] | None = None,
    drop: str | Sequence[str] = (),
    image_size: tuple[int, int] | None = None,
    image_mode: str | None = None,
) -> Data:
    """Reads examples, and labels if wanted, from a file, a directory or scikit-learn's digits.

    | source | examples | labels |
    |---|---|---|
    | `"digits"` | float32 [1797, 8, 8, 1], integer levels 0 to 16 | 0 to 9 |
    | `.npy` | mapped into memory, not read | none |
    | `.npz` | the array named x, data, ... (below) or `"f.npz:key"` | array y, label, ... |
    | `.npz` of scipy.sparse, `.mtx` | the matrix, made dense | none |
    | `.csv`, `.tsv`, `.parquet`, `.feather` | numeric columns | column y, label, ... |
    | IDX, gzip or not | unsigned bytes | the MNIST-style label file beside it |
    | directory of images | in order of their paths | sub-directories |
    | directory of MNIST-style files | `split` selects, "train" by default | the label file |

    The data in an .npz file is the array named x, X, data, images or arr_0, or the only one. Labels
    are named label, labels, y, target or class; unless labels are asked for, a column of that name
    is data like the others. Fields of text are separated by commas, semicolons or tabs, with
    decimal points or commas. One axis [N] becomes [N, 1]. Three axes become images [N, H, W, 1] if
    they hold bytes, or rows of more than four whole numbers from 0 on or of numbers in [0, 1];
    otherwise they are series [N, T, C]. An array of more than 256 MiB in an .npz file that is not
    compressed is mapped into memory. Nothing is rescaled: use `batches(..., rescale=)`. Nothing is
    ever unpickled.

    Args:
        source: Path, or the word "digits" (`Path("digits")` is a path); or a data frame of pandas
            or Polars, an Arrow table or a Hugging Face dataset.
        labels: Whether to read the labels; with True, missing labels are an error, with "if_any"
            not.
        split: Part of a directory of MNIST-style files.
        cache: Directory for data that does not fit into memory: a table in text or Parquet, a
            sparse matrix, a directory of images or a compressed array of more than 256 MiB in an
            .npz file is written there once as rows of one file, which is then mapped, and reused
            while the source is unchanged. Other sources ignore it.
        drop: Names of columns of a table to leave out, such as identifiers.
        image_size: Height and width for a directory of images: each image is scaled to cover them
            and cropped at its centre.
        image_mode: Mode to convert images to: "1", "L" (grey), "RGB", "RGBA" or "I;16" (grey levels
            of 16 bits).

    Returns:
        The examples, with at least one row and finite values throughout.

    Raises:
        DataError: The source is missing, of an unknown kind, damaged, empty, or holds anything but
            finite real numbers.

    Example:
        >>> load("digits").x.shape
        (1797, 8, 8, 1)
    """
    if split not in (None, "train", "test"):
        raise DataError(f'Expected `split` "train", "test" or None; got {split!r}.')
    if labels not in (True, False, "if_any"):
        raise DataError(f'Expected `labels` True, False or "if_any"; got {labels!r}.')
    form = Form(image_size if image_size is None else tuple(image_size), image_mode)  # type: ignore[arg-type]
    form.check()
    drop = (drop,) if isinstance(drop, str) else tuple(drop)
    if not isinstance(source, str | os.PathLike):
        return _of_frame(source, labels, drop)
    path, key = _path_and_key(source)
    pairs = [] if source == "digits" or not path.is_dir() else mnist_images(path)
    if split is not None and not pairs:
        raise DataError(
            f"{source} has no parts to select: `split` is for a directory that holds "
            "train-images-idx3-ubyte, t10k-images-idx3-ubyte and their labels. Leave it out."
        )
    of_images = source != "digits" and path.is_dir() and not pairs
    if form != Form() and not of_images:
        raise DataError(
            f"{source} is not a directory of images, and image_size and image_mode apply only to "
            "these. Leave them out."
        )

    name = Path(path.name.removesuffix(".gz")).stem
    if source == "digits":
        content = _digits()
    elif pairs:
        path = mnist_part(path, pairs, split or "train")
        name = f"{path.parent.resolve().name}-{split or 'train'}"
        content = idx(path, labels)
    elif of_images:
        name = path.resolve().name
        if cache is None:
            content = images(path, form)
        else:
            paths = image_paths(path)
            content = cached(cache, path, paths, lambda: image_rows(path, paths, form), str(form))
    else:
        content = _file(path, key, labels, drop, cache)
    if drop and content.feature_names is None:
        raise DataError(
            f"{source} has no columns with names, so {listed(drop)} cannot be dropped. "
            "Leave drop out, or give a table with a header."
        )
    return _checked(path, name, content, labels)


def _of_frame(source: Any, labels: Labels, drop: Sequence[str]) -> Data:
    frame = as_known(source)
    if not hasattr(frame, "columns"):
        raise DataError(
            f"Expected a path or a data frame; got {type(source).__name__}. An array needs no "
            "reading: give it to fit."
        )
    content = frame_content(frame, labels, drop)
    return _checked(Path("The data frame"), type(source).__name__, content, labels)


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


def _file(
    path: Path,
    key: str | None,
    labels: Labels,
    drop: Sequence[str],
    cache: str | os.PathLike[str] | None,
) -> Content:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes). Write or download it again.")
    name = path.name.lower()
    if name.endswith(".parquet") and cache is not None:
        options = f"{bool(labels)} {sorted(drop)}"
        return cached(cache, path, [path], lambda: parquet_rows(path, labels, drop), options)
    if name.endswith(DELIMITED_SUFFIXES) and cache is not None:
        options = f"{bool(labels)} {sorted(drop)}"
        return cached(cache, path, [path], lambda: delimited_rows(path, labels, drop), options)
    if name.endswith(TABLE_SUFFIXES):
        return table(path, labels, drop)
    if name.endswith(".npy"):
        return npy(path)
    if key is None and is_sparse(path):
        if cache is not None:
            return cached(cache, path, [path], lambda: dense_rows(read_sparse(path)))
        return dense(path, read_sparse(path))
    if name.endswith(".npz"):
        return npz(path, key, labels, cache)
    if name.endswith((".h5ad", ".h5", ".hdf5")):
        raise DataError(
            f"{path} is an HDF5 file, which is not read. Save its matrix as .npz: for .h5ad "
            'scipy.sparse.save_npz("x.npz", scipy.sparse.csr_matrix(anndata.read_h5ad(path).X)), '
            "for others numpy.savez with h5py."
        )
    return idx(path, labels)


def _digits() -> Content:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = digits.images.astype(np.float32)
    return Content(x, digits.target, left_out={"digit": "labels"})


def _checked(path: Path, name: str, content: Content, labels: Labels) -> Data:
    x = content.x
    if x.dtype.kind not in "biuf" or x.dtype.itemsize > 8:
        raise DataError(
            f"{path} holds {_dtype_words(x.dtype)}; expected booleans, integers or floats of at "
            "most 64 bits. Convert the array before saving it."
        )
    if x.ndim == 0 or x.size == 0:
        raise DataError(
            f"{path} holds an array of shape {x.shape}, which holds no examples. "
            "Expected at least one, along axis 0."
        )
    _check_finite(path, x, content.feature_names)
    if x.ndim == 1 or (x.ndim == 3 and _are_images(x)):
        x = x[..., np.newaxis]
    given = content.labels if labels else None
    if labels is True and given is None:
        raise DataError(
            f"{path} has no labels (a column or array {', '.join(LABEL_NAMES)}, a label file "
            "beside the images, or sub-directories). Ask for the data without labels."
        )
    if given is not None and given.shape[:1] != x.shape[:1]:
        raise DataError(
            f"{path} has {counted(len(x), 'example')} but labels of shape {given.shape}. "
            "Expected one label for each example."
        )
    names, left_out = content.feature_names, content.left_out
    if not labels:
        left_out = {part: why for part, why in left_out.items() if why != "labels"}
    suspects = identifiers(x, names) if names else ()
    return Data(x, given, name, names, left_out, suspects)


def _are_images(x: np.ndarray) -> bool:
    """Tells whether arrays [N, A, B] are grey images rather than series of A steps, B channels."""
    if x.dtype.kind == "b" or x.dtype == np.uint8:
        return True
    if x.shape[2] <= _MOST_CHANNELS:
        return False
    is_whole = in_unit_interval = True
    for _, part in chunks(x, _CHUNK_VALUES * x.itemsize):
        is_whole = is_whole and bool((part == np.rint(part)).all())
        in_unit_interval = in_unit_interval and bool(part.max() <= 1)
        if part.min() < 0 or not (is_whole or in_unit_interval):
            return False
    return True


def _check_finite(path: Path, x: np.ndarray, feature_names: tuple[str, ...] | None) -> None:
    if x.dtype.kind != "f":
        return
    count, where = 0, ""
    for start, part in chunks(x, _CHUNK_VALUES * x.itemsize):
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
