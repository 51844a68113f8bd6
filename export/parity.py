"""Parity: what the live model answers, what each runtime answers, and whether they agree."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from export.cases import Case, read_answers, write_cases
from export.errors import ExportError
from export.runtimes import RUNTIMES, RuntimeFailure
from keras_vae import random

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "BATCHES",
    "Comparison",
    "Shapes",
    "as_json",
    "check_runtimes",
    "compare",
    "make_cases",
    "nothing",
    "reference",
    "refuse_failed",
    "run_runtime",
    "table",
]

BATCHES = (0, 1, 2, 7, 257)

_SCALED = 1e-5
_NOISE = 2e-6
_NATS = 1e-3
_ROW = 1e-6
_SUMS_ROWS_OTHERWISE = frozenset({"litert", "openvino", "reference"})
_THRESHOLD = 1e-6
_ULP_FLOOR = 1e-3
_TIMEOUT = 600.0

Tensors = dict[str, np.ndarray]
Shapes = dict[str, tuple[dict[str, tuple[str, list[int]]], tuple[str, ...]]]
"""By signature: dtype and shape without the batch of each input, and the outputs."""


@dataclass(frozen=True)
class Comparison:
    """One output of one signature in one runtime against the live model.

    Attributes:
        runtime: name of the runtime.
        precision: float32, float16 or int8.
        signature: name of the signature.
        output: name of the output.
        cases: number of calls compared.
        max_abs: largest absolute difference.
        max_scaled: largest |a - b| / max(u, |b|), where u is 1 or the width of the data's range.
        max_ulp: largest difference in units in the last place where |b| > 1e-3.
        different: numbers that differ at all; 0 for z says that the random bits are equal.
        numbers: numbers compared.
        max_nats: largest difference of the ELBO in nats; for `elbo` of `score` alone.
        mean_nats: mean difference of the ELBO in nats on data drawn from the model; likewise.
        passed: whether the tolerance holds.
        tolerance: in words.
    """

    runtime: str
    precision: str
    signature: str
    output: str
    cases: int
    max_abs: float
    max_scaled: float
    max_ulp: float
    different: int
    numbers: int
    max_nats: float | None
    mean_nats: float | None
    passed: bool
    tolerance: str


def make_cases(
    shapes: Shapes,
    data: dict[str, Any],
    draw_x: Callable[[np.ndarray], np.ndarray],
    seed: int = 0,
) -> list[Case]:
    """Random and adversarial inputs of every signature, at batches of 0, 1, 2, 7 and 257.

    Random x is drawn from the model itself, so that it is in its support and in the units of the
    file; adversarial x is made of the lowest and highest values that it may have. Rows 0, 128 and
    256 of the largest batch come again alone, of the kind "row".

    Args:
        shapes: the signatures.
        data: what the manifest says of x.
        draw_x: map from seeds int32 [b, 2] to draws of x.
        seed: of the inputs.
    """
    generator = np.random.default_rng(seed)
    most = max(BATCHES)

    def integers(*size: int) -> np.ndarray:
        return generator.integers(-(2**31), 2**31, size).astype(np.int32)

    cases = []
    for signature, (inputs, outputs) in shapes.items():
        largest: Tensors = {}
        for name, (dtype, shape) in inputs.items():
            if dtype == "int32":
                largest[name] = integers(most, *shape)
            elif name == "x":
                largest[name] = draw_x(integers(most, 2))
            else:
                largest[name] = generator.standard_normal([most, *shape]).astype(np.float32)
        rows = [("random", slice(count)) for count in BATCHES]
        rows += [(f"row {row}", slice(row, row + 1)) for row in (0, most // 2, most - 1)]
        for kind, part in rows:
            some = {name: value[part] for name, value in largest.items()}
            cases.append(Case(signature, some, outputs, kind))
        hostile = {name: _adversarial(name, value[:7], data) for name, value in largest.items()}
        cases.append(Case(signature, hostile, outputs, "adversarial"))
    return cases


def reference(functions: dict[str, Any], cases: Sequence[Case]) -> list[Tensors]:
    """What the live Keras model answers; nothing to an empty batch, of the shapes it declares.

    Args:
        functions: the traced signatures.
        cases: what they are asked.

    Raises:
        ExportError: if an answer is not finite, or its axis 0 is not the batch.
    """
    answers = []
    for case in cases:
        size = _size(case)
        if size == 0:
            declared = functions[case.signature].get_concrete_function().structured_outputs
            answers.append(nothing(case, {name: declared[name].shape[1:] for name in case.outputs}))
            continue
        try:
            outputs = functions[case.signature](*map(tf.constant, case.inputs.values()))
        except Exception as error:
            raise ExportError(
                f"{case.signature}: the live model fails on a batch of {size} ({case.kind}): "
                f"{' '.join(str(error).split())}"
            ) from error
        answer = {name: outputs[name].numpy() for name in case.outputs}
        for name, value in answer.items():
            if value.shape[:1] != (size,):
                raise ExportError(
                    f"{case.signature}: axis 0 of {name} is not the batch: shape {value.shape} for "
                    f"{size} rows. Server-side batching would give callers each other's rows."
                )
            if not np.isfinite(value).all():
                raise ExportError(
                    f"{case.signature}: {name} is not finite on {case.kind} input; the model would "
                    "answer NaN or infinity in production."
                )
        answers.append(answer)
    return answers


def nothing(case: Case, shapes: Mapping[str, Sequence[int]]) -> Tensors:
    """The answer to an empty batch, by the shapes of the outputs without the batch."""
    return {name: np.zeros([0, *shapes[name]], np.float32) for name in case.outputs}


def check_runtimes(runtimes: Sequence[str]) -> None:
    """Refuses runtimes that are unknown or not on this machine.

    Raises:
        ExportError: saying which there are, or how to bring one.
    """
    for runtime in runtimes:
        if runtime not in RUNTIMES:
            raise ExportError(
                f"Unknown runtime {runtime!r}; expected one of {', '.join(RUNTIMES)}."
            )
        if lack := RUNTIMES[runtime].missing():
            raise ExportError(lack)


def run_runtime(
    runtime: str,
    artifact: Path,
    cases: Sequence[Case],
    tensors: dict[tuple[str, str], str] | None = None,
) -> list[Tensors | str]:
    """What a runtime answers in a process of its own, an error in words where it refuses a case.

    Args:
        runtime: its name.
        artifact: the directory that it reads.
        cases: what it is asked.
        tensors: names of the SavedModel's tensors, as for `write_cases`.

    Raises:
        ExportError: if it cannot load the artifact.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_cases(directory / "cases", list(cases), tensors)
        try:
            RUNTIMES[runtime].run(artifact, directory / "cases", directory / "answers", _TIMEOUT)
        except RuntimeFailure as error:
            raise ExportError(f"The artifact does not run: {error}") from error
        return read_answers(directory / "answers")


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
    """The answers of one runtime against the live model, output by output.

    Tolerances in float32, all scaled by max(1, |value|); data and its mean by the width of the
    data's range where that is more, since their zero is the end of a sum of numbers of that size:

    | what              | tolerance       | reason                                              |
    |-------------------|-----------------|-----------------------------------------------------|
    | z of `sample`     | 2e-6            | polynomials on equal bits: rounding of six products |
    | laws and means    | 1e-5            | sums over a layer's inputs in another order         |
    | `score`           | 1e-3 nat + 1e-6 | sums over the data; float32 itself keeps 1e-7       |
    | Bernoulli draws   | equal           | but where u lies within 1e-6 of its threshold       |
    | other whole draws | equal           | but for 4 + 1e-5 of them, near a threshold likewise |
    | a row alone       | 1e-6            | the row in a batch of 257; whole draws are equal    |

    LiteRT, OpenVINO and onnx.reference multiply one row by another routine than many, which sums in
    another order: there a row alone may differ by 1e-5.

    Other precisions pass if they cost at most `max_nats` nats per example, the mean difference of
    the ELBO on data drawn from the model; where no `score` is compared they pass.

    TensorFlow itself fails on empty batches in convolutions (oneDNN gives them the wrong number of
    channels), so that what runs SavedModels may refuse them.

    Args:
        runtime: for the report.
        cases: what was asked.
        expected: what the live model answered.
        answers: what the runtime answered.
        about: what the manifest says of the model.
        precision: of the files that were run.
        max_nats: what another precision than float32 may cost.

    Raises:
        ExportError: if the runtime refused a case, or a row depends on its neighbours.
    """
    gathered: dict[tuple[str, str], list[_Pair]] = {}
    is_tensorflow = runtime in RUNTIMES and RUNTIMES[runtime].format == "saved_model"
    for case, want, got in zip(cases, expected, answers, strict=True):
        if isinstance(got, str) and _size(case) == 0 and is_tensorflow:
            continue
        if isinstance(got, str):
            raise ExportError(
                f"{runtime} refuses {case.signature} on a batch of {_size(case)} ({case.kind}): "
                f"{got}"
            )
        for name in case.outputs:
            shape = got[name].shape if name in got else "nothing"
            if shape != want[name].shape:
                raise ExportError(
                    f"{runtime}, {case.signature}: {name} has shape {shape} instead of "
                    f"{want[name].shape} on a batch of {_size(case)}."
                )
            near = _near_threshold(case, name, want, about)
            pair = _Pair(case, want[name], got[name], near, _unit(case.signature, name, about))
            gathered.setdefault((case.signature, name), []).append(pair)
    if precision != "float32":
        return _priced(runtime, precision, max_nats, gathered)
    _check_rows(runtime, cases, answers, about)
    return [
        _comparison(runtime, signature, output, pairs)
        for (signature, output), pairs in gathered.items()
    ]


def refuse_failed(comparisons: Sequence[Comparison]) -> None:
    """Refuses an artifact on which a runtime disagrees with the model.

    Raises:
        ExportError: naming runtime, signature and output.
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
                f"differs by {entry.max_abs:.2g} ({entry.different} of {entry.numbers} numbers); "
                f"allowed is {entry.tolerance}."
            )


def table(comparisons: Sequence[Comparison]) -> Table:
    """The comparisons for the terminal: the worst output of each signature, runtime, precision."""
    from rich import box
    from rich.table import Table

    result = Table(
        title="Agreement with the live model",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("runtime", "precision", "signature", "worst output"):
        result.add_column(column, no_wrap=True)
    for column in ("max error", "draws differ", "ELBO, nats"):
        result.add_column(column, justify="right", no_wrap=True)
    result.add_column("")
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for entry in comparisons:
        groups.setdefault((entry.runtime, entry.precision, entry.signature), []).append(entry)
    previous = None
    for (runtime, precision, signature), entries in groups.items():
        worst = max(entries, key=lambda entry: (not entry.passed, entry.max_scaled))
        drawn = [entry for entry in entries if entry.output == "sample"]
        nats = [entry for entry in entries if entry.max_nats is not None]
        result.add_row(
            "" if previous == (runtime, precision) else runtime,
            "" if previous == (runtime, precision) else precision,
            signature,
            worst.output if worst.max_scaled else "all equal",
            f"{worst.max_scaled:.1e}" if worst.max_scaled else "0",
            f"{drawn[0].different}/{drawn[0].numbers}" if drawn else "",
            _nats(nats[0]) if nats else "",
            "ok" if all(entry.passed for entry in entries) else "[red]FAILED[/red]",
        )
        previous = runtime, precision
    return result


def as_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The comparisons for `parity.json`."""
    return [asdict(comparison) for comparison in comparisons]


@dataclass(frozen=True)
class _Pair:
    """An output of one case: wanted, got, where a draw may fall on either side, and its scale."""

    case: Case
    want: np.ndarray
    got: np.ndarray
    near: np.ndarray | None
    unit: float

    @property
    def difference(self) -> np.ndarray:
        return np.abs(self.got.astype(np.float64) - self.want.astype(np.float64)).ravel()


def _comparison(
    runtime: str,
    signature: str,
    output: str,
    pairs: list[_Pair],
    precision: str = "float32",
) -> Comparison:
    want = np.concatenate([pair.want.ravel() for pair in pairs]).astype(np.float64)
    got = np.concatenate([pair.got.ravel() for pair in pairs]).astype(np.float64)
    difference = np.abs(got - want)
    size = np.maximum(pairs[0].unit, np.abs(want))
    large = np.abs(want) > _ULP_FLOOR
    ulp = difference[large] / np.spacing(np.abs(want[large]).astype(np.float32))
    different = int((difference > 0).sum())
    max_nats = mean_nats = None
    if signature == "score" and output == "elbo":
        drawn = [pair.difference for pair in pairs if pair.case.kind == "random"]
        max_nats, mean_nats = float(difference.max()), float(np.concatenate(drawn).mean())
    if signature == "score":
        passed = bool((difference <= _NATS + _ROW * size).all())
        tolerance = f"{_NATS:g} nat + {_ROW:g} |value|"
    elif output == "sample" and all(pair.near is not None for pair in pairs):
        near = np.concatenate([pair.near.ravel() for pair in pairs if pair.near is not None])
        passed = bool(near[difference > 0].all())
        tolerance = f"equal but where u is within {_THRESHOLD:g} of its threshold"
    elif output == "sample" and _is_integral(want):
        allowed = 4 + int(_SCALED * len(want))
        passed = different <= allowed
        tolerance = f"equal but for {allowed} of {len(want)} draws near a threshold"
    else:
        limit = _NOISE if output == "z" else _SCALED
        passed = bool((difference <= limit * size).all())
        tolerance = f"{limit:g} max({pairs[0].unit:g}, |value|)"
    return Comparison(
        runtime=runtime,
        precision=precision,
        signature=signature,
        output=output,
        cases=len(pairs),
        max_abs=float(difference.max(initial=0.0)),
        max_scaled=float((difference / size).max(initial=0.0)),
        max_ulp=float(ulp.max(initial=0.0)),
        different=different,
        numbers=len(want),
        max_nats=max_nats,
        mean_nats=mean_nats,
        passed=passed,
        tolerance=tolerance,
    )


def _priced(
    runtime: str,
    precision: str,
    max_nats: float | None,
    gathered: dict[tuple[str, str], list[_Pair]],
) -> list[Comparison]:
    """Comparisons of another precision, all of which pass or fail by what it costs in nats."""
    for (signature, output), pairs in gathered.items():
        if not all(np.isfinite(pair.got).all() for pair in pairs):
            raise ExportError(
                f"{signature}: {output} is not finite in {precision}: numbers inside the network "
                "are out of its range. Leave it out of --precisions."
            )
    entries = [
        _comparison(runtime, signature, output, pairs, precision)
        for (signature, output), pairs in gathered.items()
    ]
    costs = [entry.mean_nats for entry in entries if entry.mean_nats is not None]
    cost = costs[0] if costs else 0.0
    limit = float("inf") if max_nats is None else max_nats
    return [
        Comparison(
            **{
                **asdict(entry),
                "mean_nats": cost,
                "passed": cost <= limit,
                "tolerance": f"{limit:g} nats per example",
            }
        )
        for entry in entries
    ]


def _check_rows(
    runtime: str,
    cases: Sequence[Case],
    answers: Sequence[Tensors | str],
    about: dict[str, Any],
) -> None:
    """A row alone is the row in a batch."""
    whole: dict[str, Tensors] = {}
    for case, answer in zip(cases, answers, strict=True):
        if isinstance(answer, str):
            continue
        if case.kind == "random":
            whole[case.signature] = answer
        elif case.kind.startswith("row"):
            row = int(case.kind.split()[1])
            for name, alone in answer.items():
                among = whole[case.signature][name][row : row + 1]
                unit = _unit(case.signature, name, about)
                scaled = np.abs(alone - among) / np.maximum(unit, np.abs(among))
                limit = _SCALED if runtime in _SUMS_ROWS_OTHERWISE else _ROW
                if name == "sample" and _is_integral(among):
                    limit = 0.0
                if scaled.max(initial=0.0) > limit:
                    raise ExportError(
                        f"{runtime}, {case.signature}: row {row} of {name} differs by "
                        f"{scaled.max():.2g} alone and among {max(BATCHES)} rows."
                    )


def _near_threshold(
    case: Case, output: str, want: Tensors, about: dict[str, Any]
) -> np.ndarray | None:
    """Where the uniform of a Bernoulli draw lies so near its threshold that either value is right.

    None if the output is no Bernoulli draw.
    """
    if output != "sample" or about["likelihood"]["family"] != "Bernoulli":
        return None
    probability = want["mean"] / about["data"]["range"][1]
    seeds = tf.constant(case.inputs["seed"])
    u = random.uniform(seeds, probability.shape[1:], stream=random.OBSERVATION).numpy()
    return np.abs(u - probability) <= _THRESHOLD


def _unit(signature: str, output: str, about: dict[str, Any]) -> float:
    """The size of the numbers that an output is made of, at least 1."""
    levels = about["likelihood"]["options"].get("levels", 1)
    preparation = about["data"]["preparation"]
    if output in ("mean", "sample"):
        sizes = [*map(abs, preparation["center"]), *preparation["spread"]]
        return float(max(levels, preparation["levels"], preparation["divide"], 1.0, *sizes))
    return float(levels) if signature == "decode" else 1.0


def _nats(entry: Comparison) -> str:
    is_whole = entry.precision == "float32"
    nats = entry.max_nats if is_whole else entry.mean_nats
    return f"{'max' if is_whole else 'mean'} {nats:.1e}" if nats else "0"


def _is_integral(values: np.ndarray) -> bool:
    return bool((values == np.round(values)).all())


def _size(case: Case) -> int:
    return len(next(iter(case.inputs.values())))


def _adversarial(name: str, values: np.ndarray, data: dict[str, Any]) -> np.ndarray:
    """Seven rows: lowest, highest and zero, alternations of them, and three rows as they are.

    Where x has no bound, three times the largest number of the sample stands for it. z reaches as
    far as the normals of `keras_vae.random` do. One-hot x has its first, its last and its other
    categories.
    """
    if name == "seed":
        extreme = [[0, 0], [-1, -1], [2**31 - 1, -(2**31)], [-(2**31), 2**31 - 1]]
        return np.array([*extreme, [1, 0], [0, 1], [-1, 0]], np.int32)
    result = values.copy()
    if name == "x" and data["one_hot"]:
        codes = np.eye(values.shape[-1], dtype=np.float32)
        result[0], result[1] = codes[0], codes[-1]
        result[2:4] = values[2:4][..., ::-1]
        return result
    low, high, zero = -6.66, 6.66, 0.0
    if name == "x":
        most = 3.0 * np.abs(values).max()
        lowest, highest = data["range"]
        low = -most if lowest is None else lowest
        high = most if highest is None else highest
        zero = float(np.clip(0.0, low, high))
    result[0], result[1], result[2] = low, high, zero
    result[3].flat[::2], result[3].flat[1::2] = low, high
    return result
