"""Loading: reads a model file, with layers that compute in float32 and names that graphs accept."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import re
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras

from export.errors import ExportError, sentence
from keras_vae.data.preparation import Preparation
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.runs import measurements
from keras_vae.runs.run import Run, refuse_damaged

__all__ = [
    "computing_in_float32",
    "float32_by_default",
    "import_modules",
    "load",
    "policies",
    "traceable",
]

_HALF_AND_DOUBLE = frozenset({"float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"})
_UNKNOWN_CLASS = re.compile(r"Could not locate (?:class|function) '([^']+)'")


def import_modules(names: Sequence[str]) -> None:
    """Imports modules that register layers and likelihoods with Keras.

    The working directory is searched last, so no file in it can replace a package.

    Raises:
        ExportError: naming the module that cannot be imported.
    """
    if names and "" not in sys.path:
        sys.path.append("")
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ExportError(
                f"--import {name} failed: {type(error).__name__}: {sentence(error)}. Give the name "
                "of a module that is installed or lies in the working directory, as in my.module."
            ) from error


def load(path: Path) -> tuple[LatentVariableModel, Preparation, dict[str, Any]]:
    """Returns the model of a file, the preparation of its data, and facts about its training.

    Raises:
        ExportError: if the file does not hold a model that can be exported.
        RunError: if the file is damaged.
    """
    if not path.is_file():
        raise ExportError(f"{path} is not a file; give the model.keras of a run.")
    try:
        vae, beta = _read(path)
    except Exception as error:
        refuse_damaged(path)
        raise ExportError(_why_not_loaded(path, error)) from error
    if not (path.parent / "config.toml").is_file():
        return vae, Preparation(), {}
    run = Run(path.parent)
    run.check(vae)
    training: dict[str, Any] = {"config": dataclasses.asdict(run.config), "final_beta": beta}
    del training["config"]["preparation"]
    evaluation = measurements.read(path.parent / "evaluation.json")
    if evaluation is not None:
        training["evaluation"] = evaluation
    return vae, run.preparation, training


def _read(path: Path) -> tuple[Any, float | None]:
    """Reads a model and its last beta without the optimizer, which is twice as large."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        with archive.open("model.weights.h5") as file, h5py.File(file) as weights:
            beta = weights.get("objective/vars/beta")
            value = None if beta is None else float(beta[()])
    model = keras.saving.deserialize_keras_object({**config, "compile_config": None})
    model.load_weights(path)
    return model, value


def policies(vae: LatentVariableModel) -> list[str]:
    """Returns the dtype policies of the layers other than float32, sorted by name."""
    found = {layer.dtype_policy.name for layer in _layers(vae)}
    return sorted(found & _HALF_AND_DOUBLE)


def computing_in_float32(vae: LatentVariableModel) -> LatentVariableModel:
    """Returns the model with the same weights and every layer under the policy float32.

    Runtimes differ in half precision: ONNX has no products of bfloat16 and no transposed
    convolutions of float64, and sums of float16 are added in float16 or in float32. A model whose
    layers already compute in float32 is returned unchanged. Weights of float16 and bfloat16 are
    exact in float32; those of float64 are rounded.

    Raises:
        ExportError: if the model cannot be rebuilt from its configuration.
    """
    found = policies(vae)
    if not found:
        return vae
    try:
        with float32_by_default(), tempfile.TemporaryDirectory() as name:
            result = type(vae).from_config(_in_float32(vae.get_config()))
            weights = Path(name) / "model.weights.h5"
            vae.save_weights(weights)
            result.load_weights(weights)
    except Exception as error:
        raise ExportError(
            f"The model computes under the policy {' and '.join(found)} and cannot be rebuilt "
            f"under float32, in which it is exported: {sentence(error)}. Register its classes with "
            "keras.saving.register_keras_serializable, or train it under float32."
        ) from error
    return result


@contextlib.contextmanager
def traceable(vae: LatentVariableModel) -> Iterator[None]:
    """Makes the layers of a model traceable for any machine inside the block.

    Names of layers and weights are restricted to letters that scopes of TensorFlow's graphs accept,
    and recurrent layers do not use cuDNN, whose ops run only on a GPU.
    """
    kept = {layer: (layer.name, getattr(layer, "use_cudnn", None)) for layer in _layers(vae)}
    handles = [(variable.value, variable.value._handle_name) for variable in vae.variables]
    try:
        for layer, (name, use_cudnn) in kept.items():
            layer.name = _plain(name) or "layer"
            if use_cudnn is not None:
                layer.use_cudnn = False
        for variable, name in handles:
            variable._handle_name = _plain(name)
        yield
    finally:
        for layer, (name, use_cudnn) in kept.items():
            layer.name = name
            if use_cudnn is not None:
                layer.use_cudnn = use_cudnn
        for variable, name in handles:
            variable._handle_name = name


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.:/-]+", "_", letters)


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """Makes Keras create numbers and layers in float32 by default inside the block."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def _in_float32(config: Any) -> Any:
    """Returns a configuration with every other precision replaced by float32."""
    if isinstance(config, dict):
        return {key: _in_float32(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(map(_in_float32, config))
    return "float32" if isinstance(config, str) and config in _HALF_AND_DOUBLE else config


def _layers(vae: LatentVariableModel) -> list[keras.layers.Layer]:
    return list(vae._flatten_layers())


def _why_not_loaded(path: Path, error: Exception) -> str:
    text = sentence(error)
    if "deserialization of a `Lambda` layer" in text:
        return (
            f"{path} holds a Lambda layer, whose Python code would run on loading and cannot be "
            "part of an artifact. Replace it with a registered layer of keras.ops."
        )
    if unknown := _UNKNOWN_CLASS.search(str(error)):
        return (
            f"{path} holds {unknown[1]}, which no imported module registers with Keras. Name the "
            "module that does with --import my.module; in Python, import it and call export_model."
        )
    return f"{path} cannot be loaded: {text}"
