"""Files of a table's rows: a filled table, multiple imputations, and draws."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_vae import data
from keras_vae.data.content import listed
from keras_vae.data.schema import Column
from keras_vae.data.tables import TABLE_SUFFIXES
from keras_vae.imputation import Imputation, filled_column
from keras_vae.runs.config import RunError
from keras_vae.runs.endings import check_ending
from keras_vae.runs.run import Run
from keras_vae.spelling import counted
from keras_vae.training.backup import write_atomically

__all__ = ["impute", "sample", "write_frame"]

_FEWEST_EFFECTIVE = 10.0
_DRAWS = 20
_INTERVAL = 0.9


def impute(
    run: Run,
    source: str | os.PathLike[str],
    out: Path,
    *,
    num_samples: int,
    multiple: int | None,
    seed: int,
    overwrite: bool,
    report: Callable[[str], None],
) -> list[Path]:
    """Fills the missing values of a table and writes it, with the columns that it has.

    Args:
        run: run of a table as it is.
        source: the table.
        out: file to write, .csv, .tsv, .parquet or .feather. Multiple imputations go into files
            with their number before the suffix.
        num_samples: weighted draws of z per row.
        multiple: number of imputations that are drawn; None fills in the single most likely values
            and means.
        seed: seed of all draws.
        overwrite: whether to replace files.
        report: called with messages.

    Returns:
        The files.

    Raises:
        RunError: if the run is of no table, allows no missing values, or a file exists.
        DataError: if the table cannot be read or does not suit the schema.
    """
    schema = run.table_schema
    check_ending(out, TABLE_SUFFIXES)
    paths = [out] if multiple is None else [_numbered(out, k + 1) for k in range(multiple)]
    existing = [str(path) for path in paths if path.exists()]
    if existing and not overwrite:
        raise RunError(
            f"{listed(existing)} exists: choose another --out, or replace it with --overwrite."
        )
    if not any(column.missing for column in schema.columns.values()):
        raise RunError(
            f"{run.path} was trained on a table without missing values and allows none: train "
            "again with --missing."
        )
    vae, frame = run.load(), schema.with_holes(data.load_frame(source))
    x = schema.encode(frame)
    absent = {name: np.isnan(value).any(axis=-1) for name, value in x.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the summary tells the same
        found = vae.impute(
            x, num_samples, multiple=multiple or _DRAWS, interval=_INTERVAL, seed=seed
        )
    rows = np.flatnonzero(np.any(list(absent.values()), axis=0))
    for index, path in enumerate(paths):
        values = found.values if multiple is None else _draw(found, index)
        write_frame(_filled(run, frame, values, absent, rows), path)
    for line in _summary(schema.columns, frame, found, absent, len(rows), num_samples):
        report(line)
    shown = str(paths[0]) if len(paths) == 1 else f"{paths[0]} to {paths[-1].name}"
    report(f"Wrote {shown}.")
    return paths


def sample(run: Run, *, count: int, seed: int, mean: bool, out: Path) -> None:
    """Writes draws from the model of a table, or decoder means, as rows of the table.

    Args:
        run: run of a table as it is.
        count: number of rows.
        seed: seed of the draws.
        mean: whether to write decoder means at draws of z instead of draws.
        out: as for `impute`.

    Raises:
        RunError: if `out` is no path of a table.
    """
    check_ending(out, TABLE_SUFFIXES)
    vae = run.load()
    write_frame(vae.sample_mean(count, seed) if mean else vae.sample(count, seed), out)


def _draw(found: Imputation, index: int) -> dict[str, np.ndarray]:
    return {name: value[index] for name, value in found.draws.items()}


def _numbered(out: Path, number: int) -> Path:
    suffix = next(each for each in _suffixes() if out.name.lower().endswith(each))
    return out.with_name(f"{out.name[: -len(suffix)]}-{number}{out.name[-len(suffix) :]}")


def _suffixes() -> list[str]:
    return sorted(TABLE_SUFFIXES, key=len, reverse=True)


def _filled(
    run: Run,
    frame: Any,
    values: Mapping[str, np.ndarray],
    absent: Mapping[str, np.ndarray],
    rows: np.ndarray,
) -> Any:
    """Returns a data frame with its missing values filled, in the dtypes of the schema."""
    filled = frame.copy()
    if not len(rows):
        return filled
    schema = run.table_schema
    decoded = schema.decode({name: value[rows] for name, value in values.items()})
    for name, mask in absent.items():
        if not mask.any():
            continue
        found = decoded[name][mask[rows]].to_numpy()
        column = filled_column(filled[name].reset_index(drop=True), mask, found)
        wanted = schema.columns[name].dtype
        if str(column.dtype) != wanted and wanted.lower().startswith(("int", "uint")):
            column = column.astype(wanted)
        filled[name] = column.set_axis(filled.index)
    return filled


def _summary(
    columns: Mapping[str, Column],
    frame: Any,
    found: Imputation,
    absent: Mapping[str, np.ndarray],
    rows: int,
    num_samples: int,
) -> list[str]:
    """Describes what was filled in, and how sure it is."""
    total = sum(int(mask.sum()) for mask in absent.values())
    if not total:
        return ["The table has no missing values in the columns of the model."]
    lines = [f"Filled {counted(total, 'cell')} in {rows} of {counted(len(frame), 'row')}:"]
    width = max(len(name) for name, mask in absent.items() if mask.any())
    for name, mask in absent.items():
        if mask.any():
            sure = _certainty(columns[name], found, name, mask)
            lines.append(f"  {name.ljust(width)}  {counted(int(mask.sum()), 'cell', '6d')}{sure}")
    nothing = int(np.all(list(absent.values()), axis=0).sum())
    if nothing:
        has, it_is = ("has", "it is") if nothing == 1 else ("have", "they are")
        lines.append(
            f"{counted(nothing, 'row')} {has} no value at all: {it_is} filled with what the model "
            "says of any row, its prior."
        )
    left = [
        f"{name} ({int(frame[name].isna().sum())})"
        for name in frame.columns
        if name not in absent and frame[name].isna().any()
    ]
    if left:
        lines.append(f"Left as they are, in columns without a model: {listed(left)}.")
    ess = found.ess[~np.isnan(found.ess)]
    few = int((ess < _FEWEST_EFFECTIVE).sum())
    line = (
        f"Effective sample size of {counted(num_samples, 'draw')}: least {ess.min():.1f}, median "
    )
    line += f"{np.median(ess):.0f}."
    if few:
        line += (
            f" Fewer than {_FEWEST_EFFECTIVE:.0f} draws are behind {counted(few, 'row')}; "
            "--num-samples draws more."
        )
    return [*lines, line]


def _certainty(column: Column, found: Imputation, name: str, mask: np.ndarray) -> str:
    """Describes how sure the imputed values of a column are."""
    if column.form == "one_hot":
        sure = found.mean[name][mask].max(axis=-1)
        return f", mean probability of the label {sure.mean():.2f}"
    if column.kind == "binary":
        p = found.mean[name][mask]
        return f", mean probability of the label {np.maximum(p, 1.0 - p).mean():.2f}"
    if column.is_coded:
        return ""
    ends = (column.to_raw(end[name][mask]) for end in (found.lower, found.upper))
    low, high = (np.median(end.astype(np.float64)) for end in ends)
    return f", median {100 * _INTERVAL:.0f} % interval {low:.6g} to {high:.6g}"


def write_frame(frame: Any, path: Path) -> None:
    """Writes a data frame into a table, which is complete or not there.

    In text, whole numbers that pandas holds as floats are written as whole numbers.

    Args:
        frame: data frame.
        path: path of a .csv, .tsv (gzip or not), .parquet or .feather file.
    """
    with write_atomically(path) as temporary:
        name = path.name.lower()
        if name.endswith(".parquet"):
            frame.to_parquet(temporary, index=False)
        elif name.endswith(".feather"):
            frame.reset_index(drop=True).to_feather(temporary)
        else:
            _as_text(frame).to_csv(
                temporary,
                sep="\t" if ".tsv" in name else ",",
                index=False,
                lineterminator="\n",
                compression="gzip" if name.endswith(".gz") else None,
            )


def _as_text(frame: Any) -> Any:
    changed = {}
    for name, column in frame.items():
        if column.dtype.kind != "f":
            continue
        seen = column.dropna()
        if bool(((seen == np.rint(seen)) & (abs(seen) < 2.0**53)).all()):
            changed[name] = column.astype("Int64")
    return frame.assign(**changed)
