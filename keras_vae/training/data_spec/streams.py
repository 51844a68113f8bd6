"""Checks of the batches of datasets and generators, before and while they are read."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_vae.data.columns import positions
from keras_vae.distributions.supports import DataError
from keras_vae.training.data_spec.part import Part, as_sizes, shape_hint

__all__ = [
    "assertions",
    "check_column_order",
    "element_dtypes",
    "refuse_targets",
]


def element_dtypes(specs: Mapping[str, Any], parts: Mapping[str, Part]) -> dict[str, tf.DType]:
    """Returns the dtypes of the parts in a dataset whose batches have the right shapes.

    Args:
        specs: specification of the elements by part.
        parts: the parts by name.

    Raises:
        DataError: if a part is not dense, or has another shape.
    """
    for name, spec in specs.items():
        part = parts[name]
        if not isinstance(spec, tf.TensorSpec):
            remedy = {
                "SparseTensorSpec": "tf.sparse.to_dense",
                "RaggedTensorSpec": "the method to_tensor of each",
            }.get(type(spec).__name__, "a map to tensors")
            raise DataError(
                f"The dataset must yield {name} as dense tensors; got {type(spec).__name__}. "
                f"Make them dense with dataset.map and {remedy}."
            )
        if not tf.TensorShape([None, *part.shape]).is_compatible_with(spec.shape):
            found = spec.shape.as_list() if spec.shape.rank is not None else []
            hint = " (Was it batched?)"
            if tuple(found) != part.shape:
                hint = shape_hint(found, spec.dtype.is_integer, name, part) or hint
            raise DataError(
                f"The dataset must yield batches of {name} of shape [n, {as_sizes(part.shape)}]; "
                f"got {spec.shape}.{hint}"
            )
    return {name: spec.dtype for name, spec in specs.items()}


def check_column_order(names: tuple[str, ...] | None, columns: tuple[str, ...] | None) -> None:
    """Refuses columns of a stream in another order, which its batches do not tell.

    Args:
        names: names of the columns of x in the stream; None if they have none.
        columns: those of the model.

    Raises:
        DataError: if they differ.
    """
    if names and columns and names != columns:
        positions(names, columns, "x")
        raise DataError(
            f"x of the stream has its columns in the order {', '.join(names)}, but the model "
            f"in the order {', '.join(columns)}. Make the stream of "
            "frame[list(vae.feature_names)]."
        )


def assertions(name: str, part: Part, owner: str, value: Any) -> dict[str, tf.Tensor]:
    """Makes the checks of a part of a batch in a graph, by the message for a false one.

    Args:
        name: name of the part.
        part: the part.
        owner: what messages call its distribution.
        value: its data in the batch.
    """
    if part.support is None:
        finite = tf.reduce_all(tf.math.is_finite(tf.cast(value, tf.float32)))
        return {f"{name} is not finite in the dataset.": finite}
    mask, filler = part.mask_of(value)
    holes = {}
    if part.at_end and part.missing:
        holes = {part.holes_message(name): tf.logical_not(tf.reduce_any(part.holes(value)))}
    if mask is not None:
        for _ in range(part.support.event_dim):
            mask = mask[..., tf.newaxis]
        value = tf.where(mask, value, tf.cast(filler, value.dtype))
    return {**holes, **part.support.assertions(value, owner)}


def refuse_targets(element: Any, owner: str) -> None:
    """Refuses the pair (x, y), whose y would be ignored.

    Args:
        element: batch, or specification of one.
        owner: what yields it, for the message.

    Raises:
        DataError: if it is such a pair.
    """
    if isinstance(element, tuple) and len(element) == 2 and _is_given(element[1]):
        raise DataError(
            f"A VAE models only p(x) and expects batches of x, or (x, None, sample_weight); the "
            f"{owner} yields pairs (x, y), whose y would be ignored. Yield x alone (of a dataset: "
            "dataset.map(lambda x, y: x)), or build the VAE with condition_shape= and yield "
            '{"x": x, "condition": y}.'
        )


def _is_given(part: Any) -> bool:
    return part is not None and not isinstance(part, tf.NoneTensorSpec)
