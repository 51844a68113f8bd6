"""Functions of tensors as ONNX models, converted by tf2onnx, in the quick way of `export`."""

from collections.abc import Callable
from typing import Any

import onnx
import pytest
import tensorflow as tf
import tf2onnx

from export.onnx_graphs.quick_passes import quick_passes


def convert(
    function: Callable, signature: list[tf.TensorSpec], handlers: dict[str, Any] | None = None
) -> onnx.ModelProto:
    """Converts a function of named tensors that returns a dictionary to ONNX."""
    graph = tf.function(function, input_signature=signature, autograph=False)
    with pytest.MonkeyPatch.context() as patch, quick_passes():
        patch.setenv("TF2ONNX_CATCH_ERRORS", "FALSE")  # no copy of the graph for each optimization
        model, _ = tf2onnx.convert.from_function(
            graph, input_signature=signature, opset=18, custom_op_handlers=handlers
        )
    onnx.checker.check_model(model, full_check=True)
    assert {spec.name for spec in signature} == {value.name for value in model.graph.input}
    assert {node.domain for node in model.graph.node} == {""}
    return model
