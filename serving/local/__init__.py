"""Local server: TensorFlow Serving's API on ONNX Runtime, for a laptop and for tests."""

from serving.local.settings import Settings

__all__ = ["Settings"]
