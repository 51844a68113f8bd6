"""ONNX Runtime in Python, on the CPU, with its graph optimisations; no TensorFlow."""

from pathlib import Path

import onnxruntime

from export.runtimes.python.runner import Call, main, threads


def load(artifact: Path, signature: str) -> Call:
    """Loads the ONNX model of a signature."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(artifact / "onnx" / f"{signature}.onnx"), options, providers=["CPUExecutionProvider"]
    )
    return lambda inputs, outputs: session.run(list(outputs), inputs)


if __name__ == "__main__":
    main(load)
