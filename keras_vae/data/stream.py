"""Arrays as a stream of batches that is a pure function of (seed, epoch, batch index)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from keras_vae.data.content import DataError
from keras_vae.data.foreign import as_known
from keras_vae.data.frames import frame_names, rows_of_numbers, whole_columns
from keras_vae.data.mapped import is_mapped, reads_by_rows
from keras_vae.data.row_views import SelectedRows
from keras_vae.data.source import Change, Gather, Source
from keras_vae.data.sparse_rows import SparseRows
from keras_vae.spelling import counted

if TYPE_CHECKING:
    import tensorflow as tf

_MAX_SEED = 2**31 - 1

_Transform: TypeAlias = Callable[[Any, Any], Any]


def split(
    x: Any, *, test_fraction: float = 0.1, seed: int = 0, copy: bool = True
) -> tuple[Any, Any]:
    """Splits an array or data frame into random training and test parts, in the order of `x`.

    The split depends only on `len(x)`, `test_fraction` and `seed`, on every machine and numpy
    version: labels split with the same arguments stay beside their examples.

    Args:
        x: Array of shape [N, ...], sparse matrix or pandas data frame of N rows.
        test_fraction: Share of the examples in the test part, between 0 and 1; their number
            is rounded to the nearest integer.
        seed: Non-negative integer.
        copy: Whether both parts are copies in memory. With False, those of a memory-mapped `x` stay
            in its file: `batches`, `fit`, `evaluate`, `elbo` and the evaluators read the rows that
            they need, and `numpy.asarray` reads all.

    Returns:
        The pair (train, test), of arrays, of sparse matrices in rows (CSR) or of data frames.

    Raises:
        DataError: `x` is not an array of numbers.
        ValueError: An argument is out of range, or a part would be empty.

    Example:
        >>> train, test = split(np.arange(10), test_fraction=0.2)
        >>> len(train), len(test), sorted([*train, *test]) == list(range(10))
        (8, 2, True)
    """
    x = as_known(x)
    rows = getattr(x, "iloc", None)
    x = _array("x", x)
    if isinstance(x, SparseRows):
        rows = x.matrix
    _check_seed(seed)
    if not 0.0 < test_fraction < 1.0:
        raise ValueError(
            f"Expected `test_fraction` between 0 and 1, both excluded; got {test_fraction}. "
            "To use all examples for training, skip the split."
        )
    test_size = round(len(x) * test_fraction)
    if not 0 < test_size < len(x):
        raise ValueError(
            f"Expected at least one example in each part; got {len(x) - test_size} for training "
            f"and {test_size} for the test out of {len(x)}. Give more examples or another "
            f"`test_fraction` than {test_fraction}."
        )
    order = np.argsort(np.random.Philox(seed).random_raw(len(x)), kind="stable")
    parts = np.sort(order[test_size:]), np.sort(order[:test_size])
    if rows is None and not copy and is_mapped(x):
        return SelectedRows(x, parts[0]), SelectedRows(x, parts[1])
    rows = x if rows is None else rows
    return rows[parts[0]], rows[parts[1]]


def steps(n: int, batch_size: int, *, drop_remainder: bool = False) -> int:
    """Returns the number of batches in an epoch of `n` examples: the `steps_per_epoch` of `fit`.

    Args:
        n: Number of examples.
        batch_size: Number of examples in a batch.
        drop_remainder: Whether to leave out a last batch that is short.

    Returns:
        A number >= 1.

    Raises:
        ValueError: A size is below 1, or no full batch exists and short ones are left out.

    Example:
        >>> steps(250, 100), steps(250, 100, drop_remainder=True)
        (3, 2)
    """
    for name, value in (("n", n), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"Expected `{name}` of at least 1; got {value}.")
    if drop_remainder and n < batch_size:
        raise ValueError(
            f"Expected at least `batch_size` = {counted(batch_size, 'example')}; got {n}, which "
            "make no full batch. Give a smaller `batch_size` or `drop_remainder=False`."
        )
    return n // batch_size if drop_remainder else math.ceil(n / batch_size)


def batches(
    x: ArrayLike | Mapping[str, ArrayLike],
    batch_size: int,
    *,
    epochs: int = 1,
    seed: int = 0,
    initial_epoch: int = 0,
    shuffle: bool = True,
    drop_remainder: bool = False,
    rescale: float | Mapping[str, float] | None = None,
    transform: _Transform | Mapping[str, _Transform] | None = None,
    condition: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> tf.data.Dataset:
    """Makes a stream of float32 batches, epochs `initial_epoch` to `epochs - 1` in order.

    Batch b of epoch e is a pure function of the arguments and of (seed, e, b): its rows come
    from a permutation drawn with (seed, e), its noise from a seed derived from (seed, e, b).
    So each epoch presents every example once, in a new order, with fresh noise, and a training
    resumed at `initial_epoch=k` sees bit for bit the batches of the uninterrupted one. Iterating
    over the dataset again repeats it.

    For training, pass all epochs at once, with the same `epochs` and `initial_epoch` to `fit`,
    and `shuffle=False` so that Keras does not warn about an order it cannot change:

        vae.fit(
            batches(x, 100, epochs=20, seed=1, transform=binarize),
            steps_per_epoch=steps(len(x), 100),
            epochs=20,
            shuffle=False,
        )

    For validation and evaluation, make one pass in order; its noise is the same in every run:

        vae.evaluate(batches(x_test, 100, shuffle=False, transform=binarize))

    The array stays in memory as it is (uint8 stays uint8), and only a batch becomes float32. Up to
    64 MiB are copied; a larger array is not, so do not change it while the stream is in use. Rows
    of a memory-mapped array, such as `load("x.npy").x`, are read as they are needed. So are those
    of a sparse matrix; only the rows of a batch become dense.

    By the convention of Keras, an element is one of

        x                                        float32 [B, ...]
        {"x": x, "condition": c}                 with `condition`
        {"age": x1, "image": x2, ...}            for a dict of named parts, and "condition" with it
        (x or that dictionary, None, weight)     with `sample_weight`; the None stands for y, which
                                                 a generative model does not have

    Args:
        x: Array of shape [N, ...] of booleans, integers or floats, a sparse matrix, or a data frame
            of such columns; or a dict of such, by the name of the part. Unless it is rescaled or
            transformed, `fit` makes the same checks as for an array.
        batch_size: B, the number of examples in a batch; the last of an epoch may be shorter.
        epochs: End of the stream, counted from epoch 0.
        seed: Non-negative integer below 2**31.
        initial_epoch: First epoch of the stream, below `epochs`.
        shuffle: Whether to draw a new order for each epoch; otherwise the order of `x` is kept.
        drop_remainder: Whether to leave out the short last batch of each epoch.
        rescale: Positive factor, applied to each batch after the conversion to float32 and
            before `transform`. 1/255 gives the bits of `x / 255`. For a dict of parts, a dict of
            the factors of those parts that have one.
        transform: Function of (batch, int32 seed[2]) to batch, made of TensorFlow ops, such as
            `binarize` or `functools.partial(dequantize, levels=256)`. For a dict of parts, a dict
            of the functions of those parts that have one.
        condition: Array of N rows, given beside `x`; floats become float32, integers stay.
        sample_weight: Array of N finite non-negative numbers.

    Returns:
        A dataset of known cardinality, `(epochs - initial_epoch) * steps(N, batch_size)`.

    Raises:
        DataError: An array does not hold real numbers, or has masked or missing values.
        ValueError: An argument is out of range or two lengths differ.

    Example:
        >>> stream = batches(np.arange(5), 2, epochs=3, shuffle=False)
        >>> [batch.numpy().tolist() for batch in stream.take(3)], len(stream)
        ([[0.0, 1.0], [2.0, 3.0], [4.0]], 9)
    """
    from keras_vae.data.batch_dataset import BatchDataset

    x = as_known(x)
    given: dict[str, Any] = dict(x) if isinstance(x, Mapping) else {"x": x}
    changes = _changes(given, not isinstance(x, Mapping), rescale, transform)
    if condition is not None:
        if "condition" in given:
            raise ValueError(
                "Expected the condition once; got it in the dict x and as `condition`. Leave one "
                "of them out."
            )
        x = {**given, "condition": condition}
    source = source_of_arrays(
        x,
        batch_size,
        epoch_range(initial_epoch, epochs),
        seed=seed,
        shuffle=shuffle,
        drop_remainder=drop_remainder,
        changes=changes,
        sample_weight=sample_weight,
    )
    return BatchDataset(source.in_batches(), source)


def epoch_range(initial_epoch: int, epochs: int) -> range:
    """Returns the epochs of a stream.

    Raises:
        ValueError: if there are none.
    """
    if not 0 <= initial_epoch < epochs:
        raise ValueError(
            f"Expected 0 <= initial_epoch < epochs; got initial_epoch={initial_epoch} and "
            f"epochs={epochs}. `epochs` is the end of the training, not the number still to run."
        )
    return range(initial_epoch, epochs)


def source_of_arrays(
    x: ArrayLike | Mapping[str, ArrayLike],
    batch_size: int,
    epochs: range,
    *,
    seed: int,
    shuffle: bool,
    drop_remainder: bool = False,
    changes: Mapping[str, Change] | None = None,
    sample_weight: ArrayLike | None = None,
) -> Source:
    """Makes the source behind a stream of `batches`; `fit` needs no dataset beside it."""
    import tensorflow as tf

    x = as_known(x)
    given: dict[str, Any] = dict(x) if isinstance(x, Mapping) else {"x": x}
    names, whole = frame_names(given.get("x")), whole_columns(given.get("x"))
    tables = _tables(given)
    n = len(next(iter(tables.values())))
    per_epoch = steps(n, batch_size, drop_remainder=drop_remainder)
    _check_seed(seed)
    weight = None if sample_weight is None else _weights(sample_weight, n)
    with tf.device("CPU:0"):
        for name, table in tables.items():
            if not reads_by_rows(table):
                tables[name] = tf.constant(table.astype(table.dtype.newbyteorder("="), copy=False))
        weight = None if weight is None else tf.constant(weight)
        seed = tf.constant(seed, tf.int64)
    gather = Gather(not isinstance(x, Mapping), changes or {})
    return Source(
        tables,
        gather,
        n,
        batch_size,
        per_epoch,
        epochs,
        shuffle,
        seed,
        weight,
        names,
        whole,
    )


def _changes(
    parts: Mapping[str, Any], alone: bool, rescale: Any, transform: Any
) -> dict[str, Change]:
    """Returns the preprocessing of each part that has some.

    Raises:
        ValueError: if a factor is not positive, or parts are not named as those of x.
    """
    by_name: dict[str, dict[str, Any]] = {}
    for option, value in (("rescale", rescale), ("transform", transform)):
        if alone and not isinstance(value, Mapping):
            by_name[option] = {} if value is None else {"x": value}
            continue
        if value is not None and not (isinstance(value, Mapping) and set(value) <= set(parts)):
            got = f"keys {sorted(value)}" if isinstance(value, Mapping) else repr(value)
            raise ValueError(
                f"Expected `{option}` as a dict by part, with keys among {sorted(parts)}; got "
                f"{got}. Name the parts that it is for."
            )
        by_name[option] = dict(value or {})
    for factor in by_name["rescale"].values():
        if not 0.0 < factor < math.inf:
            raise ValueError(
                f"Expected `rescale` positive and finite, such as 1/255; got {factor}."
            )
    return {
        name: Change(by_name["rescale"].get(name), by_name["transform"].get(name))
        for name in parts
        if name in by_name["rescale"] or name in by_name["transform"]
    }


def _tables(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts as arrays of equally many rows."""
    if not parts:
        raise ValueError("Expected `x` with at least one part; got an empty dict.")
    tables: dict[str, Any] = {}
    for name, value in parts.items():
        rows = len(next(iter(tables.values()))) if tables else None
        tables[name] = _array(name, value) if rows is None else _side_array(name, value, rows)
    return tables


def _array(name: str, value: Any) -> Any:
    array = rows_of_numbers(value, name)
    if array.ndim < 1 or array.size == 0:
        raise DataError(
            f"Expected `{name}` with the examples along axis 0; got shape {array.shape}. "
            "Give at least one example."
        )
    return array


def _side_array(name: str, value: ArrayLike, n: int) -> np.ndarray:
    array = _array(name, value)
    if len(array) != n:
        raise ValueError(
            f"Expected `{name}` with one row for each of the {n} examples; got {len(array)}. "
            "Split and filter both in the same way."
        )
    return array


def _weights(value: ArrayLike, n: int) -> np.ndarray:
    weights = _side_array("sample_weight", value, n).astype(np.float32)
    if weights.ndim != 1 or not np.isfinite(weights).all() or weights.min() < 0.0:
        raise ValueError(
            f"Expected `sample_weight` of shape [{n}] with finite numbers >= 0; got shape "
            f"{weights.shape} and values from {weights.min()} to {weights.max()}."
        )
    return weights


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= _MAX_SEED:
        raise ValueError(f"Expected `seed` from 0 to 2**31 - 1; got {seed}.")
