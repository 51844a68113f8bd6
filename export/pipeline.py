"""Pipeline: turns a model file into a published artifact, or fails and leaves nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export import (
    calibration,
    gates,
    loading,
    onnx_files,
    onnx_graphs,
    parity,
    publish,
    saved_model,
    variants,
    warmup,
)
from export import manifest as manifests
from export.cases import Case
from export.clock import Clock, Report, silent
from export.errors import ExportError
from export.model_card import model_card
from export.parity import live, table
from export.verify import VERIFIED_IN, identified, refusals
from keras_vae import integrity
from keras_vae.devices import without_tensor_float_32
from keras_vae.latent_variable_model import LatentVariableModel
from keras_vae.signatures import Preparations, Signature, signatures

__all__ = ["Options", "export", "export_model"]


@dataclass(frozen=True)
class Options:
    """Choices of an export: what is written besides the signatures, and where it is verified.

    Attributes:
        version: integer version; None takes the next one.
        runtimes: runtimes to verify in besides `VERIFIED_IN`, names of `export.runtimes.RUNTIMES`.
        allow_partial: whether to leave out signatures that ONNX cannot express; the manifest says
            so.
        precisions: further precisions of the ONNX files, "float16" or "int8".
        max_nats: maximum cost of a precision, nats per example.
        tflite: whether to write `decode.tflite` too.
        imputation_samples: weighted draws for `impute` and `classify` of a model whose data may be
            absent; 0 leaves these signatures out.
        calibration: file of held-out normal examples, or "held-out" for the test examples of the
            run, with whose scores `score` computes p-values; None leaves these out.

    Example:
        >>> Options(runtimes=("openvino",)).verified_in
        ['onnxruntime', 'saved_model', 'openvino']
    """

    version: int | None = None
    runtimes: tuple[str, ...] = ()
    allow_partial: bool = False
    precisions: tuple[str, ...] = ()
    max_nats: float = variants.MAX_NATS
    tflite: bool = False
    imputation_samples: int = 64
    calibration: str | None = None

    def __post_init__(self) -> None:
        """Refuses options that could not be carried out."""
        if self.version is not None and self.version < 1:
            raise ExportError(f"Expected a version of at least 1; got {self.version}.")
        if self.imputation_samples < 0:
            raise ExportError(
                f"Expected imputation_samples of at least 0; got {self.imputation_samples}."
            )
        unknown = [name for name in self.precisions if name not in variants.PRECISIONS]
        if unknown:
            raise ExportError(
                f"Unknown precision {unknown[0]!r}; expected one of "
                f"{', '.join(variants.PRECISIONS)}."
            )
        if not self.max_nats >= 0.0:
            raise ExportError(f"Expected max_nats of at least 0; got {self.max_nats}.")
        parity.check_runtimes(self.verified_in)

    @property
    def verified_in(self) -> list[str]:
        """All runtimes that verify the artifact."""
        return list(dict.fromkeys([*VERIFIED_IN, *self.runtimes]))


def export(
    model: Path, target: Path, options: Options | None = None, report: Report = silent
) -> Path:
    """Exports the model in a file; takes the arguments of `export_model`.

    Example:
        >>> export(Path("runs/none/model.keras"), Path("artifacts/none"))
        Traceback (most recent call last):
            ...
        export.errors.ExportError: runs/none/model.keras is not a file; ...
    """
    options = options or Options()
    _check_target(target, options.version)
    vae, preparation, training = loading.load(model)
    rows = None
    if options.calibration is not None:
        rows = calibration.rows(model, vae, options.calibration)
    return export_model(
        vae,
        target,
        options,
        preparation=preparation,
        training=training,
        calibration_rows=rows,
        report=report,
    )


def export_model(
    vae: LatentVariableModel,
    target: Path,
    options: Options | None = None,
    *,
    preparation: Preparations = None,
    training: dict[str, Any] | None = None,
    calibration_rows: Mapping[str, np.ndarray] | None = None,
    report: Report = silent,
) -> Path:
    """Writes, verifies and publishes an artifact, `target/<version>`.

    Args:
        vae: the model.
        target: directory of the artifact's versions; its name is that of the artifact.
        options: what to write and where to verify it.
        preparation: how raw numbers become data, as in `keras_vae.signatures`.
        training: what the manifest states about the training.
        calibration_rows: held-out normal examples in the units of the file, by input of `score`,
            such as {"x": ...}; its p-values come from their scores.
        report: called with messages and timings.

    Returns:
        The published directory.

    Raises:
        ExportError: if any check fails; the target is then unchanged.

    Example:
        >>> export_model("model.keras", Path("artifacts/none"))
        Traceback (most recent call last):
            ...
        export.errors.ExportError: Expected a keras_vae.VAE or another ...
    """
    options, target = options or Options(), Path(target).absolute()
    _check_target(target, options.version)
    gates.check_model(vae)
    trained_in = loading.policies(vae)
    vae = loading.computing_in_float32(vae)
    gates.check_contract(vae)
    clock = Clock(report)
    if trained_in:
        report(f"Exported in float32; the training used {' and '.join(trained_in)}.")
    work = _Work(vae, preparation, trained_in, options, calibration_rows, clock, report)
    with publish.staging(target) as directory, loading.float32_by_default():
        work.ask_the_live_model()
        with clock("SavedModel and warm-up requests"):
            with loading.traceable(vae):
                saved_model.write(work.functions, directory)
            saved_model.check_ops(directory)
            warmup.write(directory, target.name, work.cases)
            warmup.replay(directory)
        omitted = work.write_onnx(directory)
        comparisons = work.compare(directory, omitted)
        extra, more = work.write_variants(directory, omitted)
        comparisons += more
        table.log(comparisons, report)
        parity.refuse_failed(comparisons)
        _write_json(directory / "parity.json", parity.as_json(comparisons))
        manifest = manifests.build(
            name=target.name,
            about=work.about,
            signatures=work.signatures,
            functions=work.functions,
            opsets=work.opsets,
            omitted=omitted,
            variants=extra,
            comparisons=comparisons,
            training=training or {},
        )
        (directory / "MODEL_CARD.md").write_text(model_card(manifest))
        with refusals():
            sealed = integrity.seal(directory, manifest)
        published = publish.publish(directory, target, options.version)
    report(identified(sealed))
    clock.total()
    return published


class _Work:
    """One export: the model, its signatures, and their answers."""

    def __init__(
        self,
        vae: LatentVariableModel,
        preparation: Preparations,
        trained_in: list[str],
        options: Options,
        calibration_rows: Mapping[str, np.ndarray] | None,
        clock: Clock,
        report: Report,
    ) -> None:
        self._vae, self._options = vae, options
        self._clock, self._report = clock, report
        self.signatures = signatures(vae, preparation, options.imputation_samples)
        known = None
        if calibration_rows is not None:
            with clock("scores of the calibration examples"):
                known = calibration.of_rows(self.signatures["score"], calibration_rows)
            self.signatures = signatures(vae, preparation, options.imputation_samples, known)
        gates.check_names(self.signatures)
        self.about = manifests.metadata(
            vae, preparation, trained_in, options.imputation_samples, known
        )
        self.functions: dict[str, Any] = {}
        self._graphs: dict[str, onnx_files.Graph] = {}
        self.cases: list[Case] = []
        self.expected: list[dict[str, np.ndarray]] = []

    def ask_the_live_model(self) -> None:
        """Traces the signatures, checks them, and computes their answers to all cases."""
        with self._clock("live model, traced and asked all cases"):
            with loading.traceable(self._vae):
                for name, signature in self.signatures.items():
                    self.functions[name] = onnx_graphs.traced(signature)
            sample = self.functions["sample"]
            draw = live.draws(lambda **inputs: sample(*inputs.values()), self.about)
            with without_tensor_float_32():
                cases = live.make_cases(live.shapes_of(self.signatures), self.about, draw)
                self.expected = live.reference(self.functions, cases)
                self.cases = live.measured(
                    cases,
                    self.expected,
                    lambda case: live.asked(self.functions[case.signature], case),
                    saved_model.weights(
                        entry.get_concrete_function() for entry in self.functions.values()
                    ),
                    self.about,
                )

    def write_onnx(self, directory: Path) -> dict[str, str]:
        """Writes the ONNX files; returns the reason for each signature left out."""
        (directory / "onnx").mkdir()
        omitted = {}
        for name, signature in self.signatures.items():
            try:
                with self._clock(f"ONNX of {name}"):
                    self._convert(signature)
            except ExportError as error:
                reason = f"{error} (The model is {gates.family(self._vae)}.)"
                if not self._options.allow_partial:
                    raise ExportError(reason) from error
                omitted[name] = reason
                self._report(f"          left out: {reason}")
        onnx_files.save(
            {directory / "onnx" / f"{name}.onnx": graph for name, graph in self._graphs.items()}
        )
        return omitted

    @property
    def opsets(self) -> dict[str, int]:
        """Op sets of the ONNX files, by signature."""
        return {name: graph.opset for name, graph in self._graphs.items()}

    def compare(self, directory: Path, omitted: dict[str, str]) -> list[parity.Comparison]:
        """Compares all cases in every runtime that verifies the artifact."""
        tensors = saved_model.tensor_names(directory)
        comparisons = []
        for runtime in self._options.verified_in:
            with self._clock(f"all cases in {runtime}"):
                comparisons += parity.compare_runtime(
                    runtime, directory, self.cases, self.expected, self.about, omitted, tensors
                )
        return comparisons

    def write_variants(
        self, directory: Path, omitted: dict[str, str]
    ) -> tuple[dict[str, Any], list[parity.Comparison]]:
        """Writes other precisions and formats; returns their manifest entries and comparisons."""
        options, entries = self._options, {}
        comparisons: list[parity.Comparison] = []
        asked = (self.cases, self.expected, self.about)
        if options.precisions and "score" in omitted:
            raise ExportError("Without score, other precisions cannot be measured in nats.")
        for precision in options.precisions:
            with self._clock(f"ONNX in {precision}"):
                paths = []
                for name in (name for name in variants.SIGNATURES if name not in omitted):
                    paths.append(directory / "onnx" / f"{name}.{precision}.onnx")
                    variants.convert(self._graphs[name], precision).save(paths[-1])
                found = variants.compare_onnx(
                    directory, precision, *asked, precision=precision, max_nats=options.max_nats
                )
                comparisons += found
                what = variants.PRECISIONS[precision]
                for path in paths:
                    entry = _entry(path, what, precision, found[0].mean_nats, options.max_nats)
                    entries[f"onnx/{path.name}"] = entry
        if options.tflite:
            with self._clock("LiteRT"):
                path = variants.write_lite(directory)
                comparisons += variants.compare_lite(path, *asked)
                entries[path.name] = _entry(path, "LiteRT; takes no empty batch.")
        return entries, comparisons

    def _convert(self, signature: Signature) -> None:
        name = signature.name
        with loading.traceable(self._vae):
            graph = onnx_graphs.convert(signature, self._vae.weights, self.functions[name])
        onnx.helper.set_model_props(graph.model, manifests.properties(self.about, name))
        self._graphs[name] = graph


def _entry(
    path: Path,
    what: str,
    precision: str = "float32",
    mean_nats: float | None = None,
    max_nats: float | None = None,
) -> dict[str, Any]:
    return {
        "signature": path.name.split(".")[0],
        "format": path.suffix[1:],
        "precision": precision,
        "what": what,
        "bytes": path.stat().st_size,
        "mean_nats": mean_nats,
        "max_nats": max_nats,
    }


def _check_target(target: Path, version: int | None) -> None:
    publish.refuse_inside_a_version(target)
    publish.check_name(target.absolute())
    if version is not None:
        publish.refuse_existing(target / str(version))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
