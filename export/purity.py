"""Purity: whether an op of TensorFlow does anything besides computing outputs from inputs."""

from __future__ import annotations

import re

from tensorflow.core.framework import op_def_pb2, types_pb2
from tensorflow.python.framework import op_def_registry

__all__ = ["impurity"]

_PURE = frozenset(
    {"Assert", "Case", "If", "PartitionedCall", "StatefulPartitionedCall", "While"}
    | {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VarHandleOp"}
)
"""Ops that are registered as stateful but are pure: checks, function calls, reading a weight."""

_RANDOM = re.compile(
    r"Random|Rng|Multinomial|TruncatedNormal|Shuffle|Distorted|Stochastic|Fractional|K[Mm]"
)
_OUTSIDE = re.compile(
    r"_|Abort|Batch$|BatchFunction|Unbatch|Copy|CustomAggregator|DTensor|Debug|Get|Host"
    r"|ImmutableConst|Infeed|Inplace|MlirPassthrough|Prelinearize|Relayout|SymbolicGradient|TPU|Tpu"
    r"|Xla"
)
"""Ops not registered as stateful that end the process, wait for other callers, write debug files,
change their inputs, map files or belong to a device."""

_LISTS = re.compile(r"EmptyTensorList|TensorList")


def impurity(op: str) -> str | None:
    """Returns why an op is refused in exported functions, as the end of a sentence; None if pure.

    The op's registration with TensorFlow decides: whether it is stateful, and whether it takes or
    returns resources, references, strings (which name files) or variants other than the lists of
    loops. Names decide only where the registration does not tell.

    Args:
        op: name of the op, as in a node of a graph.
    """
    definition = op_def_registry.get(op)
    if definition is None:
        return "is unknown to TensorFlow"
    if op in _PURE:
        return None
    if _RANDOM.search(op):
        return "is random"
    if "PyFunc" in op:
        return "runs Python"
    if definition.is_stateful:
        return "keeps state or acts outside the graph"
    if _OUTSIDE.match(op):
        return "acts outside the graph"
    return _foreign(definition)


def _foreign(definition: op_def_pb2.OpDef) -> str | None:
    arguments = [*definition.input_arg, *definition.output_arg]
    kinds = {argument.type for argument in arguments}
    if types_pb2.DT_RESOURCE in kinds or any(argument.is_ref for argument in arguments):
        return "changes or reads a resource that is not a weight"
    if types_pb2.DT_STRING in kinds:
        return "works on strings or files"
    if types_pb2.DT_VARIANT in kinds and not _LISTS.match(definition.name):
        return "works on data that is not an array"
    return None
