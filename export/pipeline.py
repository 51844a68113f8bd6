"""Pipeline: model file to published artifact, or an error and nothing."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

from export import (
    gates,
    live,
    loading,
    onnx_files,
    onnx_graphs,
    parity,
    publish,
    saved_model,
    terminal,
    tolerances,
    variants,
    warmup,
)
from export import manifest as manifests
from export.cases import Case
from export.errors import ExportError
from export.runtimes import RUNTIMES
from keras_vae import integrity
from keras_vae.data.preparation import Preparation
from keras_vae.model import VAE
from keras_vae.signatures import Signature, signatures

__all__ = ["VERIFIED_IN", "Options", "export", "export_model", "read_manifest", "verify"]

VERIFIED_IN = ("onnxruntime", "saved_model")
"""Runtimes that every artifact is verified in before it is published."""

Report = Callable[[str], None]


def _silent(sentence: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class Options:
    """What is written beside the five signatures, and where it is verified.

    Attributes:
        version: integer version; None takes the next one.
        runtimes: where it is verified beside `VERIFIED_IN`, names of `export.runtimes.RUNTIMES`.
        allow_partial: leave out signatures that ONNX cannot express, and say so in the manifest.
        precisions: also write the ONNX files in these, "float16" or "int8".
        max_nats: what a precision may cost, nats per example.
        tflite: also write `decode.tflite`.
    """

    version: int | None = None
    runtimes: tuple[str, ...] = ()
    allow_partial: bool = False
    precisions: tuple[str, ...] = ()
    max_nats: float = variants.MAX_NATS
    tflite: bool = False

    def __post_init__(self) -> None:
        """Refuses what could not be done, before anything is."""
        if self.version is not None and self.version < 1:
            raise ExportError(f"Expected a version of at least 1; got {self.version}.")
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
        """Every runtime that verifies the artifact."""
        return list(dict.fromkeys([*VERIFIED_IN, *self.runtimes]))


def export(
    model: Path, target: Path, options: Options | None = None, report: Report = _silent
) -> Path:
    """Exports the model of a file; arguments as for `export_model`."""
    options = options or Options()
    _check_target(target, options.version)
    vae, preparation, training = loading.load(model)
    return export_model(
        vae, target, options, preparation=preparation, training=training, report=report
    )


def export_model(
    vae: VAE,
    target: Path,
    options: Options | None = None,
    *,
    preparation: Preparation | None = None,
    training: dict[str, Any] | None = None,
    report: Report = _silent,
) -> Path:
    """Writes, verifies and publishes an artifact, `target/<version>`.

    Args:
        vae: the model.
        target: directory of the artifact's versions; its name is the artifact's.
        options: what is written and verified.
        preparation: how raw numbers become data, as in `keras_vae.signatures`.
        training: what the manifest says of the training.
        report: called with sentences and timings.

    Returns:
        The published directory.

    Raises:
        ExportError: if anything is not as it should be; the target is then as it was.
    """
    options, target = options or Options(), Path(target).absolute()
    _check_target(target, options.version)
    gates.check_model(vae)
    trained_in = loading.policies(vae)
    vae = loading.computing_in_float32(vae)
    gates.check_contract(vae)
    clock = _Clock(report)
    if trained_in:
        report(f"Exported in float32; the training used {' and '.join(trained_in)}.")
    work = _Work(vae, preparation or Preparation(), trained_in, options, clock, report)
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
        _print(comparisons, report)
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
        (directory / "MODEL_CARD.md").write_text(manifests.model_card(manifest))
        with _refusals():
            sealed = integrity.seal(directory, manifest)
        published = publish.publish(directory, target, options.version)
    report(_identified(sealed))
    clock.total()
    return published


def verify(
    directory: Path,
    *,
    runtimes: Sequence[str] = VERIFIED_IN[:1],
    sha256: str | None = None,
    report: Report = _silent,
) -> list[parity.Comparison]:
    """Checks a published artifact: every hash, the gates, and runtimes against its SavedModel.

    Args:
        directory: one version of an artifact.
        runtimes: what is compared with the SavedModel, which is loaded without Keras and TFP.
        sha256: of the manifest, as the publisher stated it elsewhere; None does not compare it.
        report: called with sentences.

    Raises:
        ExportError: if a file was changed, is missing or was added, or a runtime disagrees.
    """
    parity.check_runtimes(["saved_model", *runtimes])
    directory = Path(directory).absolute()
    with _refusals():
        sealed = integrity.check(directory)
    if sha256 is not None and sealed.sha256 != sha256.lower():
        raise ExportError(
            f"{directory} is not the artifact that was meant: expected manifest.json with the "
            f"sha256 {sha256}; got {sealed.sha256}."
        )
    manifest = sealed.entries
    report(f"All {len(manifest['files'])} files are as they were published.")
    report(_identified(sealed))
    try:
        return _verify(directory, manifest, runtimes, report)
    except ExportError:
        raise
    except Exception as error:  # whatever a library says of bytes that it cannot use
        raise ExportError(
            f"{directory} has the files of its manifest and cannot be run "
            f"({type(error).__name__}: {integrity.one_line(error)}). Do not use it; export the "
            "model again."
        ) from error


def _verify(
    directory: Path, manifest: dict[str, Any], runtimes: Sequence[str], report: Report
) -> list[parity.Comparison]:
    """What `verify` does with an artifact whose files are those of its manifest."""
    _check_onnx(directory, manifest)
    saved_model.check_ops(directory)
    count = warmup.replay(directory)
    report(f"Ops, names and metadata are right; {count} warm-up requests are answered.")
    clock = _Clock(report)
    loaded = tf.saved_model.load(str(directory))  # it alone keeps the weights
    cases = live.make_cases(
        _declared(manifest["signatures"]),
        manifest["data"],
        _draws(loaded.signatures["sample"], manifest),
    )
    tensors = saved_model.tensor_names(directory)
    with clock("all cases in the SavedModel"):
        answers = parity.run_runtime("saved_model", directory, cases, tensors)
        cases, expected = _measured(loaded.signatures, cases, answers, manifest)
    comparisons = []
    for runtime in runtimes:
        with clock(f"all cases in {runtime}"):
            comparisons += _compare(
                runtime, directory, cases, expected, manifest, manifest["omitted"], tensors
            )
    if manifest["variants"]:
        with clock("variants"):
            comparisons += _compare_variants(directory, cases, expected, manifest)
    _print(comparisons, report)
    parity.refuse_failed(comparisons)
    return comparisons


def read_manifest(directory: Path) -> dict[str, Any]:
    """The validated manifest of an artifact.

    Raises:
        ExportError: if there is none, or it is damaged.
    """
    with _refusals():
        return integrity.read(directory).entries


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Makes refusals of `keras_vae.integrity` those of the pipeline."""
    try:
        yield
    except integrity.ArtifactError as error:
        raise ExportError(str(error)) from error


def _identified(sealed: integrity.Manifest) -> str:
    """What tells an artifact from a forgery of it, for those who published or received it."""
    sentence = f"sha256 of manifest.json: {sealed.sha256}"
    if sealed.is_covered:
        return sentence
    return (
        f"{sentence}\nThis artifact follows schema 1: no digest covers its name, signatures, "
        "omitted, variants, training and versions. Export the model again to cover them."
    )


class _Work:
    """One export: the model, its signatures, and what they answer."""

    def __init__(
        self,
        vae: VAE,
        preparation: Preparation,
        trained_in: list[str],
        options: Options,
        clock: _Clock,
        report: Report,
    ) -> None:
        self._vae, self._options = vae, options
        self._clock, self._report = clock, report
        self.signatures = signatures(vae, preparation)
        self.about = manifests.metadata(vae, preparation, trained_in)
        self.functions: dict[str, Any] = {}
        self._graphs: dict[str, onnx_files.Graph] = {}
        self.cases: list[Case] = []
        self.expected: list[dict[str, np.ndarray]] = []

    def ask_the_live_model(self) -> None:
        """Traces the signatures through the gates, and has them answer all cases."""
        with self._clock("live model, traced and asked all cases"):
            with loading.traceable(self._vae):
                for name, signature in self.signatures.items():
                    self.functions[name] = onnx_graphs.traced(signature)
            draw = _draws(self.signatures["sample"].function, self.about)
            with tolerances.without_tensor_float_32():
                cases = live.make_cases(_shapes(self.signatures), self.about["data"], draw)
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
        """All cases in every runtime that verifies the artifact."""
        tensors = saved_model.tensor_names(directory)
        comparisons = []
        for runtime in self._options.verified_in:
            with self._clock(f"all cases in {runtime}"):
                comparisons += _compare(
                    runtime, directory, self.cases, self.expected, self.about, omitted, tensors
                )
        return comparisons

    def write_variants(
        self, directory: Path, omitted: dict[str, str]
    ) -> tuple[dict[str, Any], list[parity.Comparison]]:
        """Other precisions and formats; what the manifest says of them, and their comparisons."""
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
            graph = onnx_graphs.convert(signature, self._vae.weights)
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


def _shapes(table: Mapping[str, Signature]) -> live.Shapes:
    """The signatures of a model."""
    return {
        name: (
            {k: (s.dtype.name, s.shape.as_list()[1:]) for k, s in entry.inputs.items()},
            entry.outputs,
        )
        for name, entry in table.items()
    }


def _declared(table: dict[str, Any]) -> live.Shapes:
    """The signatures of a manifest."""
    return {
        name: (
            {key: (spec["dtype"], spec["shape"][1:]) for key, spec in entry["inputs"].items()},
            tuple(entry["outputs"]),
        )
        for name, entry in table.items()
    }


def _draws(
    sample: Callable[..., dict[str, tf.Tensor]], about: dict[str, Any]
) -> Callable[[np.ndarray], np.ndarray]:
    """Map from seeds to x, as the file would hold it: grey levels where they are binarised."""
    is_binarised = about["data"]["preparation"]["step"] == "binarize"
    condition = about["condition_shape"]

    def draw(seeds: np.ndarray) -> np.ndarray:
        inputs = {"seed": tf.constant(seeds)}
        if condition is not None:
            inputs["condition"] = tf.zeros([len(seeds), *condition])
        return sample(**inputs)["mean" if is_binarised else "sample"].numpy()

    return draw


def _measured(
    served: Mapping[str, Any],
    cases: Sequence[Case],
    answers: Sequence[dict[str, np.ndarray] | str],
    manifest: dict[str, Any],
) -> tuple[list[Case], list[dict[str, np.ndarray]]]:
    """Cases with their tolerances, and what the SavedModel answers, from that of its process.

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
    with tolerances.without_tensor_float_32():
        variables = saved_model.weights(served[case.signature] for case in cases)
        return live.measured(cases, expected, ask, variables, manifest), expected


def _compare(
    runtime: str,
    directory: Path,
    cases: Sequence[Case],
    expected: Sequence[dict[str, np.ndarray]],
    about: dict[str, Any],
    omitted: dict[str, str],
    tensors: dict[tuple[str, str], str],
) -> list[parity.Comparison]:
    """All cases in a runtime, but for those of signatures that it has no file of."""
    missing = omitted if RUNTIMES[runtime].format == "onnx" else {}
    kept = [index for index, case in enumerate(cases) if case.signature not in missing]
    chosen = [cases[index] for index in kept]
    answers = parity.run_runtime(runtime, directory, chosen, tensors)
    return parity.compare(runtime, chosen, [expected[i] for i in kept], answers, about)


def _compare_variants(
    directory: Path,
    cases: Sequence[Case],
    expected: Sequence[dict[str, np.ndarray]],
    manifest: dict[str, Any],
) -> list[parity.Comparison]:
    """The other precisions and formats of a published artifact."""
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


def _print(comparisons: Sequence[parity.Comparison], report: Report) -> None:
    report(f"\n{terminal.table(comparisons)}\n")
    for runtime in dict.fromkeys(entry.runtime for entry in comparisons):
        refused = [
            entry.signature
            for entry in comparisons
            if entry.runtime == runtime and not entry.takes_empty_batch
        ]
        if refused:
            names = ", ".join(dict.fromkeys(refused))
            report(f"{runtime} takes no empty batch in {names}.")


def _check_onnx(directory: Path, manifest: dict[str, Any]) -> None:
    """The gates again, and whether the files say of the model what the manifest says."""
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


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


class _Clock:
    """Reports how long each part took."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._report(f"{time.perf_counter() - start:6.1f} s  {what}")

    def total(self) -> None:
        """Reports the whole."""
        self._report(f"{time.perf_counter() - self._start:6.1f} s  in all")
