"""OpenVINO on the CPU in float32; it computes int64 in 32 bits, so noise must not be made of it."""

import importlib
from pathlib import Path

import numpy as np

from export.runtimes.python.runner import Call, check, main, threads

# Where a CPU has bfloat16, OpenVINO computes in it unless it is told not to.
_CONFIGURATION = {"INFERENCE_PRECISION_HINT": "f32"}


def load(artifact: Path, signature: str) -> Call:
    """Loads the ONNX model of a signature."""
    openvino = importlib.import_module("openvino")  # an extra that only the tests install
    path = artifact / "onnx" / f"{signature}.onnx"
    configuration = {**_CONFIGURATION, "INFERENCE_NUM_THREADS": threads()}
    model = openvino.Core().compile_model(path, "CPU", configuration)
    request = model.create_infer_request()

    def call(inputs: dict[str, np.ndarray], outputs: tuple[str, ...]) -> list[np.ndarray]:
        for name, value in inputs.items():  # it would compute something from any shape and type
            port = model.input(name)
            sizes = [None if d.is_dynamic else d.get_length() for d in port.get_partial_shape()]
            check(name, value, sizes, port.get_element_type().to_dtype())
        results = request.infer(inputs)
        return [np.array(results[name]) for name in outputs]

    return call


if __name__ == "__main__":
    main(load)
