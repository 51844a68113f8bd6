"""Calibration: scores of held-out normal examples, from which `score` computes p-values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from export.errors import ExportError
from keras_vae import data, random
from keras_vae.conformal import Conformal
from keras_vae.data import Schema
from keras_vae.data.columns import positions
from keras_vae.data.mapped import is_mapped
from keras_vae.integrity import as_word
from keras_vae.model import VAE
from keras_vae.runs import sequences
from keras_vae.runs.run import Run
from keras_vae.signatures import Signature

__all__ = ["CALIBRATION_SEED", "HELD_OUT", "of_rows", "rows"]

HELD_OUT = "held-out"
"""Word for the test examples of the run, given in place of a file."""

CALIBRATION_SEED = 1_745_920_317
"""Seed of the calibration scores, one that users are unlikely to score with."""

_CHUNK = 1000
_TABLE = 1024


def rows(model: Path, vae: VAE, source: str) -> dict[str, np.ndarray]:
    """Reads calibration examples as inputs of `score`, in the units of the file.

    Args:
        model: path of the model; the run is its directory.
        vae: the model.
        source: file of examples, or `HELD_OUT`.

    Raises:
        ExportError: if the run has no test examples, or the examples do not suit the model.
        DataError: if the file cannot be read, or does not suit the model.
    """
    run = Run(model.parent) if (model.parent / "config.toml").is_file() else None
    if source == HELD_OUT and run is None:
        raise ExportError(
            f"Expected {model} in the directory of a run, whose held-out examples are the "
            "calibration; there is no config.toml beside it. Give a file: --calibration FILE."
        )
    schema = vae.data.schema
    if schema is not None:
        frame = (
            run.table().test.few().frame if run and source == HELD_OUT else data.load_frame(source)
        )
        return _of_table(frame, schema)
    has_labels = run is not None and bool(run.config.condition)
    if vae.data.is_dict or ("condition" in vae.data.parts and not has_labels):
        raise ExportError(
            "A file holds the calibration examples of a table or of a single x; this model has "
            f"{', '.join(vae.data.parts)}. Call export_model(..., calibration_rows={{...}})."
        )
    if run and source == HELD_OUT:
        sets = run.read()
        return _given(run, sets.test, sets.labels[1])
    if run and run.config.is_sequence:
        steps = vae.event_shape[0]
        x = sequences.read_examples(run.config, source, run.tokens)
        return {"x": x if run.tokens is not None else data.padded(list(x), steps)}
    found = run.config.load(source) if run else data.load(source)
    x, names = found.x, vae.feature_names
    if names and found.feature_names is not None:
        x = x[:, positions(found.feature_names, names, source)]
    return _given(run, x, found.labels)


def _given(run: Run | None, x: Any, labels: np.ndarray | None) -> dict[str, Any]:
    """Returns examples by name, with their condition if the run has one."""
    found = x if run is None else run.with_condition(x, labels)
    return found if isinstance(found, dict) else {"x": found}


def _of_table(frame: Any, schema: Schema) -> dict[str, np.ndarray]:
    columns = schema.columns
    schema.encode(frame[:1])  # names a column that is missing or of another type
    return {
        f"x_{as_word(name)}": column.raw(frame[name]).reshape(-1, 1)
        for name, column in columns.items()
    }


def of_rows(score: Signature, inputs: Mapping[str, Any]) -> Conformal:
    """Calibrates with the scores -elbo of examples.

    Args:
        score: the signature `score` without p-values.
        inputs: examples by name of the input, all but `seed`.

    Raises:
        ExportError: if the inputs are not those of the signature, or a score is not finite.
    """
    wanted = {name: spec for name, spec in score.inputs.items() if name != "seed"}
    if set(inputs) != set(wanted):
        raise ExportError(
            f"Expected calibration examples of {', '.join(wanted)}; got {', '.join(inputs)}."
        )
    arrays = {
        name: x if is_mapped(x) else np.asarray(x, np.float32)
        for name, x in ((name, inputs[name]) for name in wanted)
    }
    count = len(next(iter(arrays.values())))
    for name, spec in wanted.items():
        shape = (count, *spec.shape[1:])
        if arrays[name].shape != shape:
            raise ExportError(
                f"Expected calibration examples {name} of shape {list(shape)}; got "
                f"{list(arrays[name].shape)}."
            )
    seeds = random.row_seeds(CALIBRATION_SEED, count)
    found = []
    for start in range(0, count, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        given = {
            name: tf.constant(np.asarray(value[chunk], np.float32))
            for name, value in arrays.items()
        }
        found.append(-score.function(seed=seeds[chunk], **given)["elbo"].numpy())
    scores = np.concatenate(found) if found else np.zeros(0)
    if not np.isfinite(scores).all() or not count:
        row = int(np.argmin(np.isfinite(scores))) if count else 0
        raise ExportError(
            f"Expected calibration examples with a finite score; "
            f"{f'that of row {row} is {scores[row]}' if count else 'got none'}. Every value must "
            "be one that the model allows."
        )
    return Conformal(scores, _TABLE)
