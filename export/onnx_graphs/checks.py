"""Checks: whether a runtime can load a model, and whether the model fits its signature."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from export import gates
from export.errors import ExportError, sentence
from export.onnx_graphs.nodes import all_nodes

__all__ = ["IR_VERSION", "OPSETS", "check", "refuse_foreign"]

OPSETS = (13, 18)
"""Op sets that graphs are written in; the first one that has all required ops is used."""

IR_VERSION = 8

_RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike", "Dropout"}
)


def check(
    model: onnx.ModelProto,
    name: str,
    inputs: list[str],
    outputs: list[str],
    weights: Sequence[str] = (),
    opset: int | None = None,
) -> None:
    """Refuses a model that a runtime could not load or that does not fit its signature.

    Args:
        model: the model.
        name: name of the signature.
        inputs, outputs: names that the signature declares, in order.
        weights: names of its large weights, its last inputs.
        opset: the only allowed op set; any of `OPSETS` if None.

    Raises:
        ExportError: naming the signature and what is wrong.
    """
    imports = {entry.domain: entry.version for entry in model.opset_import}
    allowed = OPSETS if opset is None else (opset,)
    if imports not in [{"": version} for version in allowed]:
        raise ExportError(
            f"{name}: expected op set {' or '.join(map(str, allowed))} of the standard domain "
            f"alone; got {imports}."
        )
    refuse_foreign(name, model, [])
    given = len(model.graph.input) - len(weights)
    for what, entries, declared in (
        ("takes", model.graph.input[:given], inputs),
        ("gives", model.graph.output, outputs),
    ):
        found = [entry.name for entry in entries]
        if found != declared:
            raise ExportError(
                f"{name}: the graph {what} {found}, but the signature declares {declared}."
            )
        for entry in entries:
            dims = entry.type.tensor_type.shape.dim
            if not dims or dims[0].dim_param != "batch":
                raise ExportError(f"{name}: axis 0 of {entry.name} is not the batch.")
            if any(not dim.HasField("dim_value") for dim in dims[1:]):
                raise ExportError(f"{name}: {entry.name} has a second axis of unknown size.")
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:
        raise ExportError(
            f"{name}: the ONNX checker refuses the model: {sentence(error)}"
        ) from error


def refuse_foreign(name: str, model: onnx.ModelProto, problems: list[str]) -> None:
    """Refuses an op that the standard domain does not have, or that draws random numbers.

    Args:
        name: name of the signature.
        model: the model.
        problems: errors that tf2onnx logged.

    Raises:
        ExportError: naming the op and the layer.
    """
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    for node in all_nodes(model.graph):
        known = node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type, opset, "")
        if known and node.op_type not in _RANDOM_OPS:
            continue
        detail = f" tf2onnx says: {problems[0]}" if problems else ""
        reason = "draws random numbers" if known else f"has no ONNX form at op set {opset}"
        raise ExportError(
            f"{name}: the op {node.op_type} of {gates.layer_of(node.name)} {reason}. Replace that "
            f"layer, or leave the signature out of ONNX with --allow-partial.{detail}"
        )
