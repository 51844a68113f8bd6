"""ONNX files of an artifact in ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OnnxModel"]


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file as it was published.

    Attributes:
        content: its bytes.
        folder: folder of the file that holds its weights; None if it holds them itself.
    """

    content: bytes = field(repr=False)
    folder: Path | None = None

    def session(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        """Loads the model on the CPU."""
        import onnxruntime

        if self.folder is not None:
            key = "session.model_external_initializers_file_folder_path"
            options.add_session_config_entry(key, str(self.folder))
        return onnxruntime.InferenceSession(
            self.content, options, providers=["CPUExecutionProvider"]
        )
