"""ONNX graphs: traces and converts a signature, makes the graph canonical and checks it."""

from export.onnx_graphs.checks import IR_VERSION, OPSETS, check
from export.onnx_graphs.conversion import convert
from export.onnx_graphs.nodes import reads
from export.onnx_graphs.tracing import traced

__all__ = ["IR_VERSION", "OPSETS", "check", "convert", "reads", "traced"]
