"""Variants: the ONNX files in fewer bits, and LiteRT.

Each variant is run and compared before it is published; the cost of fewer bits is measured in nats.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

from export import onnx_graphs, parity
from export.cases import Case
from export.errors import ExportError
from export.onnx_files import LIMIT, Graph, Weight, as_input

__all__ = ["MAX_NATS", "PRECISIONS", "compare_lite", "compare_onnx", "convert", "write_lite"]

MAX_NATS = 0.1
"""Default limit of a precision's cost: a tenth of the differences that papers report."""

PRECISIONS: dict[str, str] = {
    "float16": "Weights and products of Dense layers and convolutions in float16.",
    "int8": "Weights of Dense layers in int8, their inputs in uint8 by the range of the batch: "
    "a row's result depends a little on its neighbours.",
}
"""Precisions besides float32, described. Noise, distributions and sums stay in float32."""

SIGNATURES = ("decode", "encode", "reconstruct", "score")
"""Signatures with other precisions; in `sample` a rounded threshold would change the draw."""

_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

Tensors = dict[str, np.ndarray]


def convert(graph: Graph, precision: str) -> Graph:
    """Converts a graph to another precision; inputs and outputs keep their types.

    Raises:
        ExportError: if the precision is unknown, or a weight is out of its range.
    """
    if precision not in PRECISIONS:
        raise ExportError(
            f"Unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}."
        )
    result = _to_float16(graph) if precision == "float16" else _to_int8(graph)
    inputs = [entry.name for entry in graph.model.graph.input][: -len(graph.weights) or None]
    outputs = [entry.name for entry in graph.model.graph.output]
    what = f"{graph.model.graph.name} in {precision}"
    onnx_graphs.check(result.model, what, inputs, outputs, list(result.weights))
    return result


def compare_onnx(
    directory: Path,
    suffix: str,
    cases: Sequence[Case],
    expected: Sequence[Tensors],
    about: dict[str, Any],
    *,
    precision: str = "float32",
    max_nats: float | None = None,
) -> list[parity.Comparison]:
    """Compares the files `onnx/SIGNATURE.SUFFIX.onnx` in ONNX Runtime with the live model.

    Args:
        directory: the artifact.
        suffix: suffix of the files.
        cases: the cases to run; those of signatures without such a file are left out.
        expected: answers of the live model.
        about: description of the model in the manifest.
        precision: precision of the files.
        max_nats: maximum cost in nats per example.

    Raises:
        ExportError: if a file does not run, or returns numbers that are not finite.
    """
    ending = f".{suffix}.onnx"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "onnx"
        folder.mkdir()
        for file in (directory / "onnx").glob(f"*{ending}"):
            (folder / file.name.replace(ending, ".onnx")).symlink_to(file.absolute())
        chosen = [i for i, c in enumerate(cases) if (folder / f"{c.signature}.onnx").exists()]
        some = [cases[index] for index in chosen]
        answers = parity.run_runtime("onnxruntime", Path(name), some)
    return parity.compare(
        f"onnxruntime {suffix}" if precision == "float32" else "onnxruntime",
        some,
        [expected[index] for index in chosen],
        answers,
        about,
        precision=precision,
        max_nats=max_nats,
    )


def write_lite(directory: Path, name: str = "decode") -> Path:
    """Writes `decode.tflite` from the SavedModel; its signature keeps the names.

    Raises:
        ExportError: if LiteRT lacks an op.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(directory), signature_keys=[name])
    try:
        with _quiet():
            content = converter.convert()
    except Exception as error:
        raise ExportError(
            f"{name}: LiteRT cannot express it; leave out --tflite. {' '.join(str(error).split())}"
        ) from error
    path = directory / f"{name}.tflite"
    path.write_bytes(content)
    return path


def compare_lite(
    path: Path, cases: Sequence[Case], expected: Sequence[Tensors], about: dict[str, Any]
) -> list[parity.Comparison]:
    """Compares a LiteRT file with the live model; LiteRT takes no empty batch.

    Raises:
        ExportError: if it does not run.
    """
    chosen = [
        index
        for index, case in enumerate(cases)
        if case.signature == path.stem and len(next(iter(case.inputs.values())))
    ]
    some = [cases[index] for index in chosen]
    with _quiet():
        interpreter = tf.lite.Interpreter(
            model_content=path.read_bytes(),
            experimental_op_resolver_type=(
                tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
        )
        run = interpreter.get_signature_runner(path.stem)
        try:
            answers: list[Tensors | str] = [run(**case.inputs) for case in some]
        except Exception as error:
            raise ExportError(
                f"{path.name} does not run: {' '.join(str(error).split())}"
            ) from error
    wanted = [expected[index] for index in chosen]
    return parity.compare("litert", some, wanted, answers, about)


def _to_float16(source: Graph) -> Graph:
    """Casts weights of linear ops to float16, and the inputs and outputs of these ops."""
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    graph = model.graph
    constants = {tensor.name: _as_weight(tensor) for tensor in graph.initializer}
    constants |= source.weights
    nodes, halves = [], {}
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type in _LINEAR else None
        if weight is None or weight.dtype != np.float32:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            half = f"{name}_float16"
            if name in constants:
                halves[name] = half
            elif name:
                half = f"{node.output[0]}_input_{index}"
                nodes.append(_cast(name, half, onnx.TensorProto.FLOAT16))
            node.input[index] = half if name else ""
        output = node.output[0]
        node.output[0] = f"{output}_float16"
        nodes += [node, _cast(node.output[0], output, onnx.TensorProto.FLOAT)]
    read = {name for node in nodes for name in onnx_graphs.reads(node)}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    inputs = [entry for entry in graph.input if entry.name not in source.weights]
    weights = {name: weight for name, weight in source.weights.items() if name in read}
    for name, half in halves.items():
        if name in source.weights:
            weights[half] = _half(constants[name])
        else:
            kept.append(onnx.numpy_helper.from_array(_half(constants[name]).read(), half))
    inputs += [as_input(name, weight) for name, weight in weights.items()]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    graph.input.extend(inputs)
    return Graph(model, weights)


def _as_weight(tensor: onnx.TensorProto) -> Weight:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return Weight(tuple(tensor.dims), dtype, lambda: onnx.numpy_helper.to_array(tensor))


def _half(weight: Weight) -> Weight:
    values = weight.read()
    largest = max(abs(values.max(initial=0.0)), abs(values.min(initial=0.0)))
    if largest > np.finfo(np.float16).max:
        raise ExportError(
            f"float16: a weight is {largest:g}, out of its range. Leave float16 out of "
            "--precisions."
        )
    dtype = np.dtype(np.float16)
    return Weight(weight.shape, dtype, lambda: weight.read().astype(dtype))


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)


def _to_int8(graph: Graph) -> Graph:
    """Converts Dense layers to `MatMulInteger` of the standard domain."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if graph.size > LIMIT:
        raise ExportError(
            f"int8: expected a graph of at most {LIMIT / 1e9:.2f} GB, the most that ONNX Runtime's "
            f"quantizer takes; {graph.model.graph.name} has {graph.size / 1e9:.2f} GB. "
            "Leave int8 out of --precisions."
        )
    with tempfile.TemporaryDirectory() as name, _quiet():
        source, target = Path(name) / "float32.onnx", Path(name) / "int8.onnx"
        graph.save(source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        result = onnx.load(target)
    model = graph.model
    del result.opset_import[:]
    result.opset_import.extend(model.opset_import)
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    return Graph(result, {})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences warnings, logs and output of libraries inside the block."""
    threshold = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(threshold)
