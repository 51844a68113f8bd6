"""The reference evaluator of the `onnx` package: the ops as the standard writes them, in NumPy."""

from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from export.runtimes.python.runner import Call, check, main


def load(artifact: Path, signature: str) -> Call:
    """Loads the ONNX model of a signature."""
    model = onnx.load(str(artifact / "onnx" / f"{signature}.onnx"))
    evaluator = ReferenceEvaluator(model)
    types = {entry.name: entry.type.tensor_type for entry in model.graph.input}

    def call(inputs: dict[str, np.ndarray], outputs: tuple[str, ...]) -> list[np.ndarray]:
        for name, value in inputs.items():  # the evaluator ignores declared types
            dims = types[name].shape.dim
            sizes = [d.dim_value if d.HasField("dim_value") else None for d in dims]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(types[name].elem_type)
            check(name, value, sizes, dtype)
        with np.errstate(all="ignore"):  # infinities and wrap-around are what the ops ask for
            return list(evaluator.run(list(outputs), inputs))

    return call


if __name__ == "__main__":
    main(load)
