"""Verify: checks a published artifact again, file by file and runtime by runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from export import manifest as manifests
from export import onnx_files, onnx_graphs, parity, saved_model, variants, warmup
from export.cases import Case
from export.clock import Clock, Report, silent
from export.errors import ExportError
from export.parity import live, table
from keras_vae import integrity
from keras_vae.devices import without_tensor_float_32

__all__ = ["VERIFIED_IN", "identified", "read_manifest", "refusals", "verify"]

VERIFIED_IN = ("onnxruntime", "saved_model")
"""Runtimes that every artifact is verified in before it is published."""


def verify(
    directory: Path,
    *,
    runtimes: Sequence[str] = VERIFIED_IN[:1],
    sha256: str | None = None,
    report: Report = silent,
) -> list[parity.Comparison]:
    """Checks a published artifact: every hash, the gates, and runtimes against its SavedModel.

    Args:
        directory: one version of an artifact.
        runtimes: runtimes to compare with the SavedModel, which is loaded without Keras and TFP.
        sha256: SHA-256 of the manifest, as its publisher stated it elsewhere; None skips this
            check.
        report: called with messages.

    Raises:
        ExportError: if a file was changed, is missing or was added, or a runtime disagrees.
    """
    parity.check_runtimes(["saved_model", *runtimes])
    directory = Path(directory).absolute()
    with refusals():
        sealed = integrity.check(directory)
    if sha256 is not None and sealed.sha256 != sha256.lower():
        raise ExportError(
            f"{directory} is not the intended artifact: expected manifest.json with the "
            f"sha256 {sha256}; got {sealed.sha256}."
        )
    manifest = sealed.entries
    report(f"All {len(manifest['files'])} files are unchanged since they were published.")
    report(identified(sealed))
    try:
        return _verify(directory, manifest, runtimes, report)
    except ExportError:
        raise
    except Exception as error:  # the type depends on the library that reads the bytes
        raise ExportError(
            f"{directory} has the files of its manifest but cannot be run "
            f"({type(error).__name__}: {integrity.one_line(error)}). Do not use it; export the "
            "model again."
        ) from error


def read_manifest(directory: Path) -> dict[str, Any]:
    """Reads and validates the manifest of an artifact.

    Raises:
        ExportError: if it is missing or damaged.
    """
    with refusals():
        return integrity.read(directory).entries


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raises errors of `keras_vae.integrity` as `ExportError`."""
    try:
        yield
    except integrity.ArtifactError as error:
        raise ExportError(str(error)) from error


def identified(sealed: integrity.Manifest) -> str:
    """Describes what tells an artifact from a forgery, for its publishers and receivers."""
    sentence = f"sha256 of manifest.json: {sealed.sha256}"
    if sealed.is_covered:
        return sentence
    return (
        f"{sentence}\nThis artifact follows schema 1: no digest covers its name, signatures, "
        "omitted, variants, training and versions. Export the model again to cover them."
    )


def _verify(
    directory: Path, manifest: dict[str, Any], runtimes: Sequence[str], report: Report
) -> list[parity.Comparison]:
    """Verifies an artifact whose files are known to be those of its manifest."""
    _check_onnx(directory, manifest)
    saved_model.check_ops(directory)
    count = warmup.replay(directory)
    report(f"Ops, names and metadata are correct; {count} warm-up requests are answered.")
    clock = Clock(report)
    loaded = tf.saved_model.load(str(directory))  # it alone keeps the weights
    cases = live.make_cases(
        live.shapes_stated(manifest["signatures"]),
        manifest,
        live.draws(loaded.signatures["sample"], manifest),
    )
    tensors = saved_model.tensor_names(directory)
    with clock("all cases in the SavedModel"):
        answers = parity.run_runtime("saved_model", directory, cases, tensors)
        cases, expected = _measured(loaded.signatures, cases, answers, manifest)
    comparisons = []
    for runtime in runtimes:
        with clock(f"all cases in {runtime}"):
            comparisons += parity.compare_runtime(
                runtime, directory, cases, expected, manifest, manifest["omitted"], tensors
            )
    if manifest["variants"]:
        with clock("variants"):
            comparisons += _compare_variants(directory, cases, expected, manifest)
    table.log(comparisons, report)
    parity.refuse_failed(comparisons)
    return comparisons


def _measured(
    served: Mapping[str, Any],
    cases: Sequence[Case],
    answers: Sequence[dict[str, np.ndarray] | str],
    manifest: dict[str, Any],
) -> tuple[list[Case], list[dict[str, np.ndarray]]]:
    """Returns cases with their tolerances and the answers of the SavedModel in its process.

    Raises:
        ExportError: if it refuses a case.
    """

    def ask(case: Case) -> dict[str, np.ndarray]:
        inputs = {name: tf.constant(value) for name, value in case.inputs.items()}
        return {name: value.numpy() for name, value in served[case.signature](**inputs).items()}

    expected = []
    for case, answer in zip(cases, answers, strict=True):
        if not case.size:
            outputs = manifest["signatures"][case.signature]["outputs"]
            shapes = {name: outputs[name]["shape"][1:] for name in case.outputs}
            answer = live.nothing(case, shapes)
        if isinstance(answer, str):
            raise ExportError(f"The SavedModel refuses a case of {case.signature}: {answer}")
        expected.append(answer)
    with without_tensor_float_32():
        variables = saved_model.weights(served[case.signature] for case in cases)
        return live.measured(cases, expected, ask, variables, manifest), expected


def _compare_variants(
    directory: Path,
    cases: Sequence[Case],
    expected: Sequence[dict[str, np.ndarray]],
    manifest: dict[str, Any],
) -> list[parity.Comparison]:
    """Compares the other precisions and formats of a published artifact."""
    comparisons = []
    files = {path.split(".")[-2]: entry for path, entry in manifest["variants"].items()}
    for suffix, entry in files.items():
        if entry["format"] == "onnx":
            comparisons += variants.compare_onnx(
                directory,
                suffix,
                cases,
                expected,
                manifest,
                precision=entry["precision"],
                max_nats=entry["max_nats"],
            )
    if "decode.tflite" in manifest["variants"]:
        path = directory / "decode.tflite"
        comparisons += variants.compare_lite(path, cases, expected, manifest)
    return comparisons


def _check_onnx(directory: Path, manifest: dict[str, Any]) -> None:
    """Checks the ONNX files again, and that their metadata agrees with the manifest."""
    paths = {entry["onnx"]: name for name, entry in manifest["signatures"].items() if entry["onnx"]}
    paths |= {
        path: entry["signature"]
        for path, entry in manifest["variants"].items()
        if entry["format"] == "onnx"
    }
    for path, name in paths.items():
        model, weights = onnx_files.read(directory / path)
        entry = manifest["signatures"][name]
        names = list(entry["inputs"]), list(entry["outputs"])
        onnx_graphs.check(model, path, *names, weights, entry.get("opset"))
        found = {item.key: item.value for item in model.metadata_props}
        declared = manifests.properties(manifests.stated(manifest), name)
        keys = declared.keys() | {key for key in found if key.startswith("keras_vae.")}
        wrong = sorted(key for key in keys if declared.get(key) != found.get(key))
        if wrong:
            raise ExportError(
                f"{directory}: manifest.json and {path} disagree about "
                f"{wrong[0].removeprefix('keras_vae.')}; one of them was changed after publishing."
            )
