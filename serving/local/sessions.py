"""One version of a model in ONNX Runtime: checked against its manifest, then run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from keras_vae.integrity import one_line
from keras_vae.spelling import counted
from serving.artifact import Artifact, Signature, Tensor
from serving.errors import ServingError

__all__ = ["Session", "load"]

_DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32"}


class Session:
    """A signature, ready to run. It may be called from several threads.

    Args:
        artifact: the version that it belongs to.
        signature: one of its signatures that has an ONNX file.
        threads: threads of ONNX Runtime.

    Raises:
        ServingError: if the file differs from the one in the manifest, or contradicts the manifest.
    """

    def __init__(self, artifact: Artifact, signature: Signature, threads: int) -> None:
        self.signature = signature
        self._outputs = list(signature.outputs)
        if signature.onnx is None:
            raise ServingError(f"The signature {signature.name!r} has no ONNX file.")
        model = artifact.onnx_model(signature.onnx)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Idle threads that spin would take the CPU from the event loop and other sessions.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = model.session(options)
        except Exception as error:
            raise ServingError(f"{signature.onnx} cannot be loaded: {one_line(error)}") from error
        self._check_interface()
        zeros = {
            name: np.zeros((1, *tensor.shape), tensor.dtype)
            for name, tensor in signature.inputs.items()
        }
        try:
            outputs = self(zeros)
        except Exception as error:
            raise ServingError(f"{signature.onnx} cannot be run: {one_line(error)}") from error
        for name, tensor in signature.outputs.items():
            _agree(signature, name, tensor, outputs[name].dtype.name, outputs[name].shape[1:])

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes outputs [B, ...] by name from inputs [B, ...] by name.

        Raises:
            ServingError: if the graph cannot compute them or returns another number of rows.
        """
        rows = len(next(iter(inputs.values())))
        try:
            values = self._session.run(self._outputs, inputs)
        except Exception as error:
            raise ServingError(
                f"The graph of {self.signature.name!r} refused its input: {one_line(error)}"
            ) from error
        for name, value in zip(self._outputs, values, strict=True):
            if value.shape[:1] != (rows,):
                raise ServingError(
                    f"The output {name!r} of {self.signature.name!r} has shape {value.shape}, "
                    f"expected {counted(rows, 'row')}."
                )
        return dict(zip(self._outputs, values, strict=True))

    def _check_interface(self) -> None:
        signature = self.signature
        for what, nodes, tensors in (
            ("inputs", self._session.get_inputs(), signature.inputs),
            ("outputs", self._session.get_outputs(), signature.outputs),
        ):
            found = {node.name: node for node in nodes}
            if set(found) != set(tensors):
                raise ServingError(
                    f"{signature.onnx} has the {what} {sorted(found)}, the manifest says "
                    f"{sorted(tensors)}."
                )
            for name, tensor in tensors.items():
                node = found[name]
                dtype = _DTYPES.get(node.type, node.type)
                shape = tuple(node.shape[1:])
                # An output's size may be unknown to the graph; the run with one row tells.
                if what == "inputs" or dtype != tensor.dtype:
                    _agree(signature, name, tensor, dtype, shape)


def load(artifact: Artifact, threads: int) -> dict[str, Session]:
    """Loads every signature that has an ONNX file, by name, and runs each once.

    Raises:
        ServingError: if one cannot be served.
    """
    sessions = {
        name: Session(artifact, signature, threads)
        for name, signature in artifact.signatures.items()
        if signature.onnx is not None
    }
    if not sessions:
        raise ServingError(
            f"{artifact.path} has no ONNX file: no signature of its model has an ONNX form. Serve "
            "its SavedModel with TensorFlow Serving."
        )
    return sessions


def _agree(signature: Signature, name: str, tensor: Tensor, dtype: str, shape: Any) -> None:
    if (dtype, tuple(shape)) != (tensor.dtype, tensor.shape):
        raise ServingError(
            f"{signature.onnx}: {name!r} is {dtype} with rows of shape {tuple(shape)}, the "
            f"manifest says {tensor.dtype} with rows of shape {tensor.shape}."
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
