"""Tracing: turns a signature into a pure `tf.function` that captures only weights."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from export import gates
from export.errors import ExportError, sentence
from export.sealing import sealed
from keras_vae.signatures import Signature

__all__ = ["placeholder", "traced"]


def traced(signature: Signature, given: Sequence[keras.Variable] = ()) -> Any:
    """Traces a signature as a pure `tf.function` with named inputs that captures only weights.

    Args:
        signature: the signature to trace.
        given: variables that also become inputs of the function, after those of the signature.

    Raises:
        ExportError: if it cannot be traced or is not pure; names signature, op and layer.
    """
    names = list(signature.inputs)
    specs = [
        *signature.inputs.values(),
        *(tf.TensorSpec(v.shape, v.dtype, placeholder(i)) for i, v in enumerate(given)),
    ]

    def function(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs, values = tensors[: len(names)], tensors[len(names) :]
        with _values_of(given, values):
            outputs = signature.function(**dict(zip(names, inputs, strict=True)))
        return {name: tf.identity(outputs[name], name) for name in signature.outputs}

    result = tf.function(function, input_signature=specs, autograph=False)
    try:
        concrete = result.get_concrete_function()
    except Exception as error:
        raise ExportError(
            f"{signature.name}: the function cannot be traced: {sentence(error)}"
        ) from error
    gates.check_function(signature, concrete)
    return sealed(signature.name, concrete, specs)


def placeholder(index: int) -> str:
    """Returns the name of the input that takes the place of a large variable."""
    return f"weight_{index}"


def _values_of(
    variables: Sequence[keras.Variable], values: Sequence[tf.Tensor]
) -> contextlib.AbstractContextManager[Any]:
    """Makes a context in which layers read these values instead of their variables."""
    if not variables:
        return contextlib.nullcontext()
    return keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True)))
