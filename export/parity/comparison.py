"""Comparison: whether the answers of a runtime agree with the live model's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.cases import Case, Tensors
from export.errors import ExportError
from export.parity import tolerances
from export.parity.answers import run_runtime
from export.parity.other_codes import OtherCodes
from export.parity.pairs import Pair
from export.runtimes import RUNTIMES
from keras_vae.spelling import counted

__all__ = ["Comparison", "as_json", "compare", "compare_runtime", "refuse_failed"]

_ULP_FLOOR = 1e-3


@dataclass(frozen=True)
class Comparison:
    """One output of one signature in one runtime, compared with the live model.

    Attributes:
        runtime: name of the runtime.
        precision: float32, float16 or int8.
        signature: name of the signature.
        output: name of the output.
        cases: number of calls compared.
        takes_empty_batch: whether the runtime accepts a batch of 0 rows.
        max_abs: largest absolute difference.
        max_scaled: largest |a - b| / max(u, |b|), where u is 1 or the width of the data's range.
        max_ulp: largest difference in units in the last place where |b| > 1e-3.
        different: number of values that differ at all; 0 for z means equal random bits.
        numbers: number of values compared.
        max_nats: largest difference of the ELBO in nats; only for `elbo` of `score`.
        mean_nats: mean difference of the ELBO in nats on data drawn from the model; likewise.
        passed: whether the tolerance holds.
        tolerance: the tolerance in words.
        worst: the value furthest from the expected one relative to its tolerance, in words.
    """

    runtime: str
    precision: str
    signature: str
    output: str
    cases: int
    takes_empty_batch: bool
    max_abs: float
    max_scaled: float
    max_ulp: float
    different: int
    numbers: int
    max_nats: float | None
    mean_nats: float | None
    passed: bool
    tolerance: str
    worst: str


def compare(
    runtime: str,
    cases: Sequence[Case],
    expected: Sequence[Tensors],
    answers: Sequence[Tensors | str],
    about: dict[str, Any],
    *,
    precision: str = "float32",
    max_nats: float | None = None,
) -> list[Comparison]:
    """Compares the answers of one runtime with the live model's, output by output.

    In float32 every number, and every row alone with the row in the largest batch, obeys
    `export.parity.tolerances`. Draws by a threshold of the uniform differ only where it lies within
    the tolerance of the probability; of other draws of whole numbers only so many differ.

    Other precisions pass if they cost at most `max_nats` nats per example, the mean difference of
    the ELBO on data drawn from the model; where no `score` is compared they pass.

    A batch of 0 rows may be refused, which is recorded: no client sends one, and kernels of
    TensorFlow (convolutions) and ONNX Runtime (attention) do not accept it.

    Args:
        runtime: name of the runtime.
        cases: the cases.
        expected: answers of the live model.
        answers: answers of the runtime.
        about: description of the model in the manifest.
        precision: precision of the files.
        max_nats: maximum cost of a precision other than float32, in nats per example.

    Raises:
        ExportError: if the runtime refused a case, or a row depends on its neighbours.
    """
    gathered: dict[tuple[str, str], list[Pair]] = {}
    chosen = OtherCodes(about)
    refuse_nothing: set[str] = set()
    for case, want, got in zip(cases, expected, answers, strict=True):
        if case.size == 0 and _is_refused(case, want, got):
            refuse_nothing.add(case.signature)
            continue
        if isinstance(got, str):
            raise ExportError(
                f"{runtime} refuses {case.signature} on a batch of {case.size} ({case.kind}): {got}"
            )
        for name in case.outputs:
            shape = got[name].shape if name in got else "nothing"
            if shape != want[name].shape:
                raise ExportError(
                    f"{runtime}, {case.signature}: {name} has shape {shape}; expected "
                    f"{want[name].shape} on a batch of {case.size}."
                )
        if precision == "float32":
            case, want, got = chosen.left_out(case, want, got)
        for name in case.outputs:
            pair = Pair(case, name, want, got[name], about)
            gathered.setdefault((case.signature, name), []).append(pair)
    chosen.refuse(runtime)
    if precision == "float32":
        _check_rows(runtime, cases, answers, about)
    entries = [
        _comparison(runtime, precision, pairs, about, signature not in refuse_nothing)
        for (signature, _), pairs in gathered.items()
    ]
    return entries if precision == "float32" else _priced(entries, gathered, max_nats)


def compare_runtime(
    runtime: str,
    directory: Path,
    cases: Sequence[Case],
    expected: Sequence[Tensors],
    about: dict[str, Any],
    omitted: dict[str, str],
    tensors: dict[tuple[str, str], str],
) -> list[Comparison]:
    """Runs all cases of signatures that a runtime has a file of, and compares its answers.

    Args:
        runtime: name of the runtime.
        directory: the artifact.
        cases: the cases.
        expected: answers of the live model or of the SavedModel.
        about: description of the model in the manifest.
        omitted: signatures without an ONNX file, with the reason.
        tensors: names of the SavedModel's tensors, as for `export.cases.write_cases`.

    Raises:
        ExportError: as for `run_runtime` and `compare`.
    """
    missing = omitted if RUNTIMES[runtime].format == "onnx" else {}
    kept = [index for index, case in enumerate(cases) if case.signature not in missing]
    chosen = [cases[index] for index in kept]
    answers = run_runtime(runtime, directory, chosen, tensors)
    return compare(runtime, chosen, [expected[i] for i in kept], answers, about)


def refuse_failed(comparisons: Sequence[Comparison]) -> None:
    """Refuses an artifact on which a runtime disagrees with the model.

    Raises:
        ExportError: naming runtime, signature, output and the value.
    """
    for entry in comparisons:
        if not entry.passed and entry.precision != "float32":
            raise ExportError(
                f"{entry.precision} costs {entry.mean_nats:.3g} nats per example; allowed are "
                f"{entry.tolerance}. Leave it out of --precisions or raise --max-nats."
            )
        if not entry.passed:
            raise ExportError(
                f"{entry.runtime} disagrees with the model: {entry.signature}, {entry.output} "
                f"differs in {entry.different} of {counted(entry.numbers, 'number')}; "
                f"{entry.worst}. Rounding does not explain it: a layer is computed differently "
                "there. Export the model without layers of your own to find it, and replace it."
            )


def as_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Converts the comparisons to the form of `parity.json`."""
    return [asdict(comparison) for comparison in comparisons]


def _comparison(
    runtime: str,
    precision: str,
    pairs: list[Pair],
    about: dict[str, Any],
    takes_empty_batch: bool,
) -> Comparison:
    signature, output = pairs[0].case.signature, pairs[0].output
    pairs = [pair for pair in pairs if pair.want.size]
    want = np.concatenate([pair.want.ravel() for pair in pairs])
    difference = np.concatenate([pair.difference.ravel() for pair in pairs])
    size = np.concatenate([np.maximum(pair.size, np.abs(pair.want)).ravel() for pair in pairs])
    large = np.abs(want) > _ULP_FLOOR
    ulp = difference[large] / np.spacing(np.abs(want[large]).astype(np.float32))
    different = int((~(difference == 0.0)).sum())
    max_nats = mean_nats = None
    if signature == "score" and output == "elbo":
        drawn = np.concatenate([pair.difference for pair in pairs if pair.is_from_model])
        max_nats, mean_nats = float(difference.max()), float(drawn.mean())
    worst = max(pairs, key=lambda pair: pair.excess.max())
    passed = bool(worst.excess.max() <= 1.0)
    if all(pair.is_picked for pair in pairs):
        rows = sum(len(pair.want) for pair in pairs)
        share = max(pair.case.sensitivity.get(output, 0.0) for pair in pairs)
        num_samples = about["imputation"]["num_samples"]
        terms = tolerances.terms_of(signature, "ess", about)
        most = tolerances.allowed_picks(rows, num_samples, terms, share)
        passed = sum(pair.other_picks for pair in pairs) <= most
        tolerance = f"{tolerances.PICKED:g} of their size; {most} of {rows} rows may pick another z"
    elif all(pair.is_draw for pair in pairs) and not pairs[0].is_threshold:
        sigma = max(pair.sigma for pair in pairs)
        share = max(pair.case.sensitivity.get(output, 0.0) for pair in pairs)
        most = tolerances.allowed_draws(len(want), sigma, share)
        passed = different <= most
        tolerance = f"equal but for {most} of {counted(len(want), 'draw')} near a threshold"
    elif pairs[0].is_threshold:
        tolerance = "equal but where u lies within the tolerance of its probability"
    else:
        relative = max(
            float(((pair.allowed - pair.grid) / np.maximum(pair.size, abs(pair.want))).max())
            for pair in pairs
        )
        tolerance = f"{relative:.1e} max({np.max(pairs[0].size):g}, |value|)"
        if any(pair.is_rounded.any() for pair in pairs):
            most = tolerances.at_most(sum(pair.expected for pair in pairs))
            passed &= (
                sum(int((pair.difference > 0)[pair.is_rounded].sum()) for pair in pairs) <= most
            )
            tolerance += f"; {most} numbers may be rounded otherwise"
    return Comparison(
        runtime=runtime,
        precision=precision,
        signature=signature,
        output=output,
        cases=len(pairs),
        takes_empty_batch=takes_empty_batch,
        max_abs=float(difference.max(initial=0.0)),
        max_scaled=float((difference / size).max(initial=0.0)),
        max_ulp=float(ulp.max(initial=0.0)),
        different=different,
        numbers=len(want),
        max_nats=max_nats,
        mean_nats=mean_nats,
        passed=passed,
        tolerance=tolerance,
        worst=worst.worst() if different else "all equal",
    )


def _priced(
    entries: list[Comparison],
    gathered: dict[tuple[str, str], list[Pair]],
    max_nats: float | None,
) -> list[Comparison]:
    """Lets comparisons of another precision pass or fail by its cost in nats."""
    for (signature, output), pairs in gathered.items():
        if not all(np.isfinite(pair.got).all() for pair in pairs):
            raise ExportError(
                f"{signature}: {output} is not finite in {entries[0].precision}: numbers inside "
                "the network are out of its range. Leave it out of --precisions."
            )
    costs = [entry.mean_nats for entry in entries if entry.mean_nats is not None]
    cost = costs[0] if costs else 0.0
    limit = float("inf") if max_nats is None else max_nats
    return [
        dataclasses.replace(
            entry,
            mean_nats=cost,
            passed=cost <= limit,
            tolerance=f"{limit:g} nats per example",
        )
        for entry in entries
    ]


def _check_rows(
    runtime: str,
    cases: Sequence[Case],
    answers: Sequence[Tensors | str],
    about: dict[str, Any],
) -> None:
    """Refuses a row whose result differs between alone and in the largest batch."""
    whole: dict[str, Tensors] = {}
    for case, answer in zip(cases, answers, strict=True):
        if isinstance(answer, str):
            continue
        if case.kind == "random":
            whole[case.signature] = answer
        elif case.kind.startswith("row"):
            row = int(case.kind.split()[1])
            among = {name: value[row : row + 1] for name, value in whole[case.signature].items()}
            for name in case.outputs:
                pair = Pair(case, name, among, answer[name], about)
                entry = _comparison(runtime, "float32", [pair], about, True)
                if not entry.passed:
                    raise ExportError(
                        f"{runtime}, {case.signature}: row {row} alone differs from row {row} "
                        f"among {counted(len(whole[case.signature][name]), 'row')}; "
                        f"{pair.number()}. A layer mixes the rows of a batch, as a mean over axis "
                        "0 does: make each row's result depend on that row alone."
                    )


def _is_refused(case: Case, want: Tensors, got: Tensors | str) -> bool:
    return isinstance(got, str) or any(
        name not in got or got[name].shape != want[name].shape for name in case.outputs
    )
