"""Measurements of the run of a table as it is: bounds, columns, and cells hidden on purpose."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from keras_vae import evaluation
from keras_vae.data import Schema
from keras_vae.evaluation.row_scores import terms_of_rows
from keras_vae.model import VAE
from keras_vae.runs import bounds, measurements
from keras_vae.runs.run import Run
from keras_vae.runs.tables import Sample, Table
from keras_vae.spelling import counted

__all__ = ["column_distortions", "columns", "evaluate", "hidden_cells"]

_HIDDEN = 0.2
_MOST_ROWS = 1000
_MEASURES = dict.fromkeys(("binary", "categorical"), "share wrong") | {"ordinal": "levels apart"}


def evaluate(
    run: Run,
    *,
    num_samples: int,
    limit: int,
    seed: int,
    progress: bool,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Measures a run on its test set; writes `evaluation.json`. Arguments as for the command.

    Every number is about the same rows and in nats of the table: log p of the values that are
    present in a row. Beside the model stand independent columns, each with the maximum likelihood
    distribution of its kind.
    """
    vae, table = run.load(), run.table()
    units, schema = run.units(vae), table.schema
    found = bounds.measure(
        run,
        vae,
        table.test.x,
        num_samples=num_samples,
        limit=limit,
        seed=seed,
        progress=progress,
        report=report,
    )
    x = bounds.first_of(table.test.x, limit)
    if nothing := int((~np.any([*present(x).values()], axis=0)).sum()):
        has = "has" if nothing == 1 else "have"
        report(f"{counted(nothing, 'test row')} {has} no value at all; log p of nothing is 0.")
    independent, log_q = _independent(table, len(found.log_p))
    values: dict[str, Any] = {
        "schema_version": measurements.SCHEMA_VERSION,
        **found.values(),
        "quantity": units.quantity,
        "data": units.data,
        "units": "nats per row, natural logarithm, in the units of the table",
        "bits_per_dim": None,
        "variables": units.variables,
        "observed_per_row": float(np.mean(np.sum([*present(x).values()], axis=0))),
        **measurements.use_of_latents(vae, x, seed),
        "baselines": {"independent columns": measurements.summary(np.sum([*log_q.values()], 0))},
        "likelihood": run.config.likelihood,
        "preparation": "by its schema",
        "preparation_nats": 0.0,
        "share_at_atoms": 0.0,
        "columns": columns(vae, schema, x, log_q, seed),
        "hidden_cells": hidden_cells(vae, schema, x, independent, min(num_samples, 1000), seed),
        "seed": seed,
    }
    run.write_json("evaluation.json", values)
    return values


def present(x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns where each column has a value, [n]."""
    return {name: ~np.isnan(value).any(axis=-1) for name, value in x.items()}


class _Independent(NamedTuple):
    """Independent columns, fitted to the training set.

    Attributes:
        model: their distributions.
        middles: what stands in place of a missing value: mean, median level or most frequent
            value.
    """

    model: evaluation.IndependentColumns
    middles: dict[str, Any]


def _independent(table: Table, count: int) -> tuple[_Independent, dict[str, np.ndarray]]:
    """Fits independent columns; returns them and their log p of test values, 0 where absent.

    Whole numbers under a density have the noise that the model's have, so both are densities of
    the same numbers.
    """
    train = _file_numbers(table.schema, table.train.few())
    test = _file_numbers(table.schema, table.test.first(count))
    model = evaluation.IndependentColumns.fit(train, table.schema)
    middles = {name: column.middle for name, column in model.columns.items()}
    return _Independent(model, middles), model.log_probs(test)


def _file_numbers(schema: Schema, sample: Sample) -> Any:
    """Returns a data frame whose whole numbers under a positive or real density have noise."""
    frame = sample.frame[list(schema.columns)].copy()
    for name, column in schema.columns.items():
        how = column.preparation
        if how.noise.size and column.kind in ("real", "positive"):
            values = sample.x[name][:, 0].astype(np.float64)
            frame[name] = values * how.spread[0] + how.center[0]
    return frame


def column_distortions(vae: VAE, x: Any, seed: int) -> dict[str, np.ndarray]:
    """Computes -E_q log p(column | z) of each column and row in model nats, [n] by column.

    Their sum over the columns is the distortion of `vae.elbo` with the same seed.
    """
    by_column, _ = terms_of_rows(vae, vae.data.arrays(x, in_support=True), seed)
    return {name: -log_p for name, log_p in by_column.items()}


def columns(
    vae: VAE,
    schema: Schema,
    x: Mapping[str, np.ndarray],
    log_q: Mapping[str, np.ndarray],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Measures each column in nats per value that is present; None where there is none.

    Args:
        vae: the model.
        schema: the columns.
        x: test rows.
        log_q: log p of the same rows under independent columns.
        seed: seed of the draws.
    """
    distortions, seen = column_distortions(vae, x, seed), present(x)
    found: dict[str, dict[str, Any]] = {}
    for name, offset in schema.nats_offset.items():
        rows = seen[name]
        some = bool(rows.any())
        found[name] = {
            "present": float(rows.mean()),
            "distortion": float(distortions[name][rows].mean() - offset) if some else None,
            "independent": float(-log_q[name][rows].mean()) if some else None,
        }
    return found


def hidden_cells(
    vae: VAE,
    schema: Schema,
    x: Mapping[str, np.ndarray],
    independent: _Independent,
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Hides a fifth of the cells that may be missing, at random, and imputes them.

    The error of labels is the share that is wrong, that of ordered levels the mean distance in
    levels, and that of numbers the root of the mean squared error over the standard deviation of
    the column.

    Returns:
        By column the number of hidden cells and the errors of the model and of the column's mean,
        median level or most frequent value; the share that is hidden; empty if no column may have
        missing values.
    """
    may = [name for name, column in schema.columns.items() if column.missing]
    if not may:
        return {}
    rows = slice(0, _MOST_ROWS)
    given = {name: value[rows] for name, value in x.items()}
    seen, rng = present(given), np.random.default_rng(seed)
    hidden = {name: seen[name] & (rng.random(len(seen[name])) < _HIDDEN) for name in may}
    holes = dict(given)
    for name, mask in hidden.items():
        holes[name] = np.where(mask[:, np.newaxis], np.float32(np.nan), given[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the least effective sample size is told
        found = vae.impute(holes, num_samples, seed=seed)
    errors = {}
    for name, mask in hidden.items():
        column = schema.columns[name]
        if not mask.any():
            continue
        truth = column.to_raw(given[name][mask]).ravel().astype(np.float64)
        ours = column.to_raw(found.values[name][mask]).ravel().astype(np.float64)
        middle = independent.middles[name]
        if column.is_coded:
            theirs = float(column.categories.index(middle)) if middle in column.categories else -1.0
            far = _levels_apart if column.kind == "ordinal" else _share_wrong
            error, simple = far(ours, truth), far(theirs, truth)
        else:
            spread = column.deviation
            error, simple = (
                float(np.sqrt(np.mean((guess - truth) ** 2)) / spread) for guess in (ours, middle)
            )
        errors[name] = {
            "cells": int(mask.sum()),
            "measure": _MEASURES.get(column.kind, "error / standard deviation"),
            "error": error,
            "simple": simple,
        }
    ess = found.ess[~np.isnan(found.ess)]
    return {
        "share": _HIDDEN,
        "rows": len(next(iter(given.values()))),
        "least_effective_sample_size": float(ess.min()) if len(ess) else None,
        "columns": errors,
    }


def _share_wrong(guess: Any, truth: np.ndarray) -> float:
    return float(np.mean(guess != truth))


def _levels_apart(guess: Any, truth: np.ndarray) -> float:
    return float(np.mean(np.abs(guess - truth)))
