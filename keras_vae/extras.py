"""Extras: packages that parts of keras_vae need beyond training and evaluation."""

from __future__ import annotations

import importlib.util

__all__ = ["MODULES", "advice", "missing"]

MODULES: dict[str, tuple[str, ...]] = {
    "parquet": ("pyarrow",),
    "export": ("jsonschema", "onnx", "onnxruntime", "tensorflow_serving", "tf2onnx"),
    "serving": (
        "fastapi",
        "grpc",
        "h11",
        "httpx",
        "jsonschema",
        "onnxruntime",
        "orjson",
        "prometheus_client",
        "starlette",
        "structlog",
        "tenacity",
        "tensorflow_serving",
        "uvicorn",
        "yaml",
    ),
    "batch": ("jsonschema", "onnxruntime", "pyarrow", "ray"),
    "hub": ("huggingface_hub", "jsonschema"),
}
"""Modules that each extra installs."""


def missing(extra: str) -> str | None:
    """Returns how to install an extra if one of its modules is missing; None otherwise."""
    for module in MODULES[extra]:
        if importlib.util.find_spec(module) is None:
            return _sentence(module, extra)
    return None


def advice(error: BaseException, preferred: str) -> str | None:
    """Returns how to install the module that an import did not find; None for any other error.

    Args:
        error: the exception.
        preferred: the extra to name if several install the module.
    """
    if not isinstance(error, ModuleNotFoundError):
        return None
    module = (error.name or "").split(".")[0]
    extras = [extra for extra, modules in MODULES.items() if module in modules]
    if not extras:
        return None
    return _sentence(module, preferred if preferred in extras else extras[0])


def _sentence(module: str, extra: str) -> str:
    return (
        f'The package {module} is needed here and not installed: pip install "keras-vae[{extra}]".'
    )
