"""The live model: its test cases, its answers, and its sensitivity to rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from export.cases import Case, Tensors
from export.errors import ExportError, sentence
from export.parity import tolerances
from keras_vae import integrity
from keras_vae.integrity import Observation
from keras_vae.signatures import Signature
from keras_vae.spelling import counted

__all__ = [
    "Shapes",
    "asked",
    "draws",
    "make_cases",
    "measured",
    "nothing",
    "reference",
    "shapes_of",
    "shapes_stated",
]

_LARGEST = (257, 65, 17)
_NUMBERS = 2**18
_MOST_SENSITIVE = 1e-2
_ABSENT = 1 / 3
_WEIGHTED = ("impute", "classify")

Ask = Callable[[Case], Tensors]
Shapes = dict[str, tuple[dict[str, tuple[str, list[int]]], tuple[str, ...]]]
"""By signature: dtype and shape without the batch of each input, and names of the outputs."""


def shapes_of(table: Mapping[str, Signature]) -> Shapes:
    """Returns the shapes of the signatures of a model."""
    return {
        name: (
            {k: (s.dtype.name, s.shape.as_list()[1:]) for k, s in entry.inputs.items()},
            entry.outputs,
        )
        for name, entry in table.items()
    }


def shapes_stated(table: dict[str, Any]) -> Shapes:
    """Returns the shapes of the signatures in a manifest."""
    return {
        name: (
            {key: (spec["dtype"], spec["shape"][1:]) for key, spec in entry["inputs"].items()},
            tuple(entry["outputs"]),
        )
        for name, entry in table.items()
    }


def make_cases(
    shapes: Shapes,
    about: dict[str, Any],
    draw_x: Callable[[np.ndarray], Tensors],
    seed: int = 0,
) -> list[Case]:
    """Returns random and adversarial inputs of every signature.

    Batches have 0, 1, 2, 7 and 257 rows: one row more than whole vectors of 4, 8 or 16 floats. If
    257 examples hold more than 2^18 numbers, 65 or 17 rows take the place of 257.

    Random x is drawn from the model itself, so it is in its support and in the units of the file,
    and so are latents of another structure than one vector; adversarial x is made of the lowest
    and highest possible values. A third of what may be absent is. The first, the middle and the
    last row of the largest batch are repeated alone, as cases of kind "row". Signatures that weigh
    draws of z get no adversarial x, at which one draw has all the weight, by rounding.

    Args:
        shapes: the signatures.
        about: description of the model in the manifest.
        draw_x: map from seeds int32 [b, 2] to draws of the parts of x by the names of their inputs.
        seed: seed of the inputs.

    Raises:
        ExportError: if a draw of x lies outside the range that its likelihood declares.
    """
    generator = np.random.default_rng(seed)
    parts = {part.tensors["x"]: part for part in integrity.observations(about).values()}
    latents = _drawn_latents(about)
    width = sum(part.size for part in parts.values())
    most = next((n for n in _LARGEST if n * width <= _NUMBERS), _LARGEST[-1])

    def integers(*size: int) -> np.ndarray:
        return generator.integers(-(2**31), 2**31, size).astype(np.int32)

    cases = []
    for signature, (inputs, outputs) in shapes.items():
        largest: Tensors = {}
        drawn: Tensors = {}
        for name, (dtype, shape) in inputs.items():
            if name == "codes":
                size = tolerances.codes_of(about)["num_codes"]
                largest[name] = generator.integers(0, size, [most, *shape]).astype(np.int32)
            elif dtype == "int32":
                largest[name] = integers(most, *shape)
            elif name in parts or name in latents:
                drawn = drawn or draw_x(integers(most, 2))
                largest[name] = drawn[name]
                if name in parts:
                    _refuse_impossible(drawn[name], parts[name])
                    largest[name] = _with_holes(drawn[name], parts[name], generator)
            else:
                largest[name] = generator.standard_normal([most, *shape]).astype(np.float32)
        rows = [("random", slice(count)) for count in (0, 1, 2, 7, most)]
        rows += [(f"row {row}", slice(row, row + 1)) for row in (0, most // 2, most - 1)]
        for kind, part in rows:
            some = {name: value[part] for name, value in largest.items()}
            cases.append(Case(signature, some, outputs, kind))
        if signature in _WEIGHTED:
            continue
        hostile = {
            name: value[:7]
            if name in latents and tolerances.is_whole(value)
            else _adversarial(name, value[:7], parts.get(name))
            for name, value in largest.items()
        }
        cases.append(Case(signature, hostile, outputs, "adversarial"))
    return cases


def _drawn_latents(about: dict[str, Any]) -> list[str]:
    """Returns the names of the latents that cases draw from the model."""
    return [one["tensor"] for one in about.get("latents", {}).values() if "tensor" in one]


def draws(
    sample: Callable[..., dict[str, tf.Tensor]], about: dict[str, Any]
) -> Callable[[np.ndarray], Tensors]:
    """Makes a map from seeds to x as a file holds it, grey levels if x is binarised, and latents.

    Args:
        sample: the signature `sample`.
        about: description of the model in the manifest.
    """
    condition = about["condition_shape"]
    kinds = {
        part.tensors["x"]: part.tensors[
            "mean" if part.preparation["step"] == "binarize" else "sample"
        ]
        for part in integrity.observations(about).values()
    } | {name: name for name in _drawn_latents(about)}

    def draw(seeds: np.ndarray) -> Tensors:
        inputs = {"seed": tf.constant(seeds)}
        if condition is not None:
            inputs["condition"] = tf.zeros([len(seeds), *condition])
        found = sample(**inputs)
        return {name: found[output].numpy() for name, output in kinds.items()}

    return draw


def reference(functions: dict[str, Any], cases: Sequence[Case]) -> list[Tensors]:
    """Returns the answers of the live model; an empty batch gives empty arrays of declared shapes.

    Args:
        functions: the traced signatures.
        cases: inputs of the calls.

    Raises:
        ExportError: if an answer is not finite, or its axis 0 is not the batch.
    """
    answers = []
    for case in cases:
        size = case.size
        if size == 0:
            declared = functions[case.signature].get_concrete_function().structured_outputs
            answers.append(nothing(case, {name: declared[name].shape[1:] for name in case.outputs}))
            continue
        try:
            answer = asked(functions[case.signature], case)
        except Exception as error:
            raise ExportError(
                f"{case.signature}: the live model fails on a batch of {size} ({case.kind}): "
                f"{sentence(error)}"
            ) from error
        for name, value in answer.items():
            if value.shape[:1] != (size,):
                raise ExportError(
                    f"{case.signature}: axis 0 of {name} is not the batch: it has shape "
                    f"{value.shape} for {counted(size, 'row')}. Server-side batching would give "
                    "callers each other's rows."
                )
            if not np.isfinite(value).all():
                raise ExportError(
                    f"{case.signature}: {name} is not finite on {case.kind} input; the model would "
                    "answer NaN or infinity in production."
                )
        answers.append(answer)
    return answers


def asked(function: Any, case: Case) -> Tensors:
    """Calls a function of tensors with the inputs of a case, in order, and returns its outputs."""
    outputs = function(*map(tf.constant, case.inputs.values()))
    return {name: outputs[name].numpy() for name in case.outputs}


def measured(
    cases: Sequence[Case],
    expected: Sequence[Tensors],
    ask: Ask,
    variables: Iterable[tf.Variable],
    about: dict[str, Any],
) -> list[Case]:
    """Returns the cases with their sensitivity to rounding of the weights, for `tolerances`.

    The largest random case and the adversarial case of each signature are run again with changed
    weights; the other random cases are subsets of the largest.

    Args:
        cases: the cases.
        expected: answers of `ask` with unchanged weights.
        ask: function that answers a case.
        variables: the weights, which are changed and restored.
        about: description of the model in the manifest.

    Raises:
        ExportError: if rounding alone changes an output by more than a hundredth of its size.
    """
    largest: dict[tuple[str, str], int] = {}
    for index, case in enumerate(cases):
        if case.kind in ("random", "adversarial"):
            largest[case.signature, case.kind] = index  # batches grow, so the last is the largest
    found = {}
    with tolerances.changed_weights(variables):
        for key, index in largest.items():
            found[key] = _sensitivities(cases[index], expected[index], ask(cases[index]), about)
    return [
        dataclasses.replace(case, sensitivity=found[case.signature, _measured_as(case)])
        for case in cases
    ]


def _sensitivities(
    case: Case, want: Tensors, changed: Tensors, about: dict[str, Any]
) -> dict[str, float]:
    """Measures how much each output changes, and the share of rows that choose other codes.

    Rows of other codes are left out of the changes: all their numbers are others.
    """
    rows = case.size
    is_other = np.zeros(rows, bool)
    if tolerances.chooses_codes(case.signature, about):
        for name in case.outputs:
            size = tolerances.size_of(case.signature, name, about)
            off = np.abs(changed[name] - want[name].astype(np.float64))
            jumps = off > _MOST_SENSITIVE * np.maximum(size, np.abs(want[name]))
            if "codes" not in case.outputs or name == "codes":
                is_other |= jumps.reshape(rows, -1).any(axis=1)
    want, changed = ({k: v[~is_other] for k, v in each.items()} for each in (want, changed))
    if is_other.all():
        return {"codes chosen": 1.0}
    found = {
        name: _sensitivity(case, name, want[name], changed[name], about) for name in case.outputs
    }
    return {**found, "codes chosen": float(is_other.mean())} if is_other.any() else found


def nothing(case: Case, shapes: Mapping[str, Sequence[int]]) -> Tensors:
    """Makes the answer to an empty batch, from the shapes of the outputs without the batch."""
    return {name: np.zeros([0, *shapes[name]], np.float32) for name in case.outputs}


def _measured_as(case: Case) -> str:
    """Returns the kind of the case whose sensitivity applies to this one."""
    return "adversarial" if case.kind == "adversarial" else "random"


def _sensitivity(
    case: Case, output: str, want: np.ndarray, changed: np.ndarray, about: dict[str, Any]
) -> float:
    """Measures how much an output changes: share of draws, or change relative to its size."""
    if case.signature == "score" and output == "p_value":
        return 0.0  # a step function of the ELBO, whose sensitivity counts
    kind, part = integrity.observation_of(about, output) or ("", None)
    is_value = kind in ("sample", "value")
    size = tolerances.size_of(case.signature, output, about)
    off = np.abs(changed - want.astype(np.float64)) / np.maximum(size, np.abs(want))
    if case.signature == "impute" and kind == "sample":
        return float(np.mean((off > tolerances.PICKED).reshape(len(off), -1).any(axis=1)))
    if part and is_value and (part.grid or any(part.preparation.get("whole", ()))):
        return 0.0  # rounded from real numbers, whose sensitivity is that of the mean
    if is_value and tolerances.is_whole(want):
        return float(np.mean(want != changed))
    largest = float(off.max())
    if not largest <= _MOST_SENSITIVE:
        raise ExportError(
            f"{case.signature}: rounding of the weights in float32 alone changes {output} by "
            f"{largest:.1g} of its size on {case.kind} input, so no two programs agree on it. "
            "Look for layers that amplify differences, such as normalisations of nearly constant "
            "numbers, or for weights so large that their products cancel."
        )
    return largest


def _refuse_impossible(drawn: np.ndarray, part: Observation) -> None:
    """Refuses draws that the model itself does not take for data: graphs answer them with NaN."""
    found = drawn[~np.isnan(drawn)]
    low = -np.inf if part.low is None else part.low
    high = np.inf if part.high is None else part.high
    outside = found[(found < low) | (found > high) | (part.whole & (found != np.rint(found)))]
    if outside.size:
        kind = "whole numbers" if part.whole else "numbers"
        raise ExportError(
            f"sample: the model draws {outside[0]:g} for {part.name}, but takes only {kind} from "
            f"{low:g} to {high:g}, and answers NaN to others. Correct the likelihood: what `draw` "
            "returns must lie in its `support`."
        )


def _with_holes(x: np.ndarray, part: Observation, generator: np.random.Generator) -> np.ndarray:
    """Makes a third of the variables absent, if they may be."""
    if not part.missing:
        return x
    axes = x.shape[:-1] if part.one_hot else x.shape
    absent = generator.random(axes) < _ABSENT
    return np.where(absent[..., np.newaxis] if part.one_hot else absent, np.float32(np.nan), x)


def _adversarial(name: str, values: np.ndarray, part: Observation | None) -> np.ndarray:
    """Makes seven rows: lowest, highest and zero, alternations of them, and three rows unchanged.

    If x has no bound, three times the largest number of its feature takes its place. z reaches as
    far as the normals of `keras_vae.random` do. One-hot x has its first, its last and its other
    categories. In the last row everything is absent that may be.
    """
    if name == "seed":
        extreme = [[0, 0], [-1, -1], [2**31 - 1, -(2**31)], [-(2**31), 2**31 - 1]]
        return np.array([*extreme, [1, 0], [0, 1], [-1, 0]], np.int32)
    if name == "codes":
        return np.stack([values.min(axis=0), values.max(axis=0), *values[2:]])
    result = values.copy()
    if part and part.missing:
        result[6:] = np.nan
    if part and part.one_hot:
        codes = np.eye(values.shape[-1], dtype=np.float32)
        result[0], result[1] = codes[0], codes[-1]
        result[2:4] = values[2:4][..., ::-1]
        return result
    low: Any = -6.66
    high: Any = 6.66
    zero: Any = 0.0
    if part:
        present = np.nan_to_num(np.abs(values))
        most = 3.0 * present.max(axis=tuple(range(values.ndim - 1)))
        low = -most if part.low is None else part.low
        high = most if part.high is None else part.high
        zero = np.clip(0.0, low, high)
    result[0], result[1], result[2] = low, high, zero
    is_even = np.arange(result[3].size).reshape(result[3].shape) % 2 == 0
    result[3] = np.where(is_even, low, high)
    return result
