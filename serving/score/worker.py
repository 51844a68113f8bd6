"""Worker: scores parts, one after another, and publishes each by one rename."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

from keras_vae.integrity import Observation, one_line
from keras_vae.spelling import counted
from serving.errors import ServingError
from serving.onnx_model import OnnxModel
from serving.ranges import Range
from serving.score import rows
from serving.score.files import leads_on
from serving.score.parts import part_tensor
from serving.score.plan import Job, Part, Source, identity_of
from serving.score.results import Results, averaged
from serving.score.series import SeriesReader

__all__ = ["METADATA", "Task", "Worker", "session"]

METADATA = b"keras_vae.part"
"""Key of a part's description in the metadata of its Parquet schema."""

_GROUP_BYTES = 2**25  # bytes of results that are held before they are written


@dataclass(frozen=True)
class Task:
    """Everything that a worker needs to know of a job, for any part.

    Attributes:
        job: the job without its sources.
        digest: digest of the job with its sources.
        results: the signature to run, and the columns of its outputs.
        parts: parts of the data.
        model: the ONNX file.
        data, out: root of the sources, and where parts go.
        schema: schema of a part.
        series: reader of the model's time series; None if its data is something else.
    """

    job: Job
    digest: str
    results: Results
    parts: tuple[Observation, ...]
    model: OnnxModel
    data: Path
    out: Path
    schema: pa.Schema
    series: SeriesReader | None = None


def session(model: OnnxModel) -> onnxruntime.InferenceSession:
    """Loads the model to run on one core.

    Raises:
        ServingError: if ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return model.session(options)
    except Exception as error:  # its type depends on what is wrong with the bytes
        raise ServingError(f"ONNX Runtime cannot load the model: {one_line(error)}") from error


class Worker:
    """Scorer of parts in a process of its own, on one core."""

    def __init__(self, task: Task) -> None:
        self._task = task
        # The last file, the end of the last part, and the rows from there on.
        self._rest: tuple[Source, int, Iterator[pa.Table]] | None = None
        self._session = session(task.model)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Returns rows and seconds of each part, and the problem if one could not be scored."""
        result: dict[str, list[Any]] = {"rows": [], "seconds": [], "problem": []}
        for part in batch["item"]:
            began, scored, problem = time.perf_counter(), 0, ""
            try:
                scored = self.publish(part)
            except (ServingError, OSError) as error:
                problem = str(error)
            result["rows"].append(scored)
            result["seconds"].append(time.perf_counter() - began)
            result["problem"].append(problem)
        return result

    def publish(self, part: Part) -> int:
        """Scores a part, publishes it by one rename, and returns its number of rows."""
        task, source = self._task, part.source
        path = task.data / source.path
        self._check_unchanged(path, part)
        about = {
            "job": task.digest,
            "model": task.job.model,
            "artifact": task.job.artifact,
            "signature": task.job.signature,
            "seed": task.job.seed,
            "num_samples": task.job.num_samples,
            "source": vars(source),
            "start": part.start,
            "stop": part.stop,
        }
        schema = task.schema.with_metadata({METADATA: json.dumps(about).encode()})
        temporary = task.out / f".{part.name}.{uuid.uuid4().hex}.tmp"
        written = 0
        try:
            with temporary.open("xb") as file:
                with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                    for table in _grouped(self._results(path, part, schema)):
                        writer.write_table(table)
                        written += len(table)
                file.flush()
                os.fsync(file.fileno())
            self._check_unchanged(path, part)
            if written != part.stop - part.start:
                raise ServingError(
                    f"{path}: expected the rows {part.start} to {part.stop}; got "
                    f"{counted(written, 'row')}."
                )
            temporary.rename(task.out / part.name)
        finally:
            temporary.unlink(missing_ok=True)
        return written

    def _check_unchanged(self, path: Path, part: Part) -> None:
        if identity_of(path) != (part.source.size, part.source.modified):
            raise ServingError(
                f"{path} was changed while it was scored: score into a new directory."
            )

    def _results(self, path: Path, part: Part, schema: pa.Schema) -> Iterator[pa.Table]:
        at, number = part.start, part.source.first + part.start
        tables = self._tables(path, part)
        while at < part.stop and (table := next(tables, None)) is not None:
            yield self._result(table, path, at, number, schema)
            at += len(table)
            number += len(table)
        self._rest = part.source, at, tables

    def _tables(self, path: Path, part: Part) -> Iterator[pa.Table]:
        """Returns the rows of a file from the start of a part on.

        Usually they are what is left of the file, after the parts that other workers have taken.
        """
        job, series = self._task.job, self._task.series
        rest, self._rest = self._rest, None
        if rest is not None and rest[0] == part.source:
            _, at, tables = rest
            if leads_on(path, at, part.start, series):
                while at < part.start and (table := next(tables, None)) is not None:
                    at += len(table)
                return tables
        columns = rows.Layout(job.columns, job.condition, job.key).all
        start, stop, number = part.start, part.source.rows, part.source.first + part.start
        return rows.read(path, columns, start, stop, number, job.batch_size, series)

    def _result(
        self, table: pa.Table, path: Path, at: int, number: int, schema: pa.Schema
    ) -> pa.Table:
        job, count = self._task.job, len(table)
        inputs, parts = self._task.results.signature.inputs, self._task.parts
        if "x" in inputs and rows.is_text(table.schema.field(job.columns[0]).type):
            given = {"x": rows.text_tensor(table, job.columns[0], inputs["x"], path, at)}
        elif "x" in inputs:
            (x,) = parts
            allowed = Range.of(x)
            given = {"x": rows.tensor(table, job.columns, inputs["x"].shape, allowed, path, at)}
        else:
            given = {
                part.tensors["x"]: part_tensor(table, name, part, path, at)
                for part, name in zip(parts, job.columns, strict=True)
            }
        if job.condition:
            shape = inputs["condition"].shape
            given["condition"] = rows.tensor(table, job.condition, shape, Range(), path, at)
        outputs = self._run(given, number)
        arrays: list[Any] = [
            pa.repeat(path.relative_to(self._task.data).as_posix(), count),
            pa.array(np.arange(at, at + count)),
            *(table.column(name) for name in job.key),
        ]
        arrays += self._task.results.columns(outputs, schema)
        return pa.Table.from_arrays(arrays, schema=schema)

    def _run(self, given: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
        """Computes the outputs of rows; `number` is that of the first row over all files."""
        job, size = self._task.job, self._task.job.batch_size
        count, offset = len(next(iter(given.values()))), number % size
        # Its place in the batch and the batch size change the order in which products are summed.
        whole = {
            name: np.concatenate(
                [value[:1].repeat(offset, 0), value, value[:1].repeat(size - offset - count, 0)]
            )
            for name, value in given.items()
        }
        names = self._task.results.computed
        draws: list[list[np.ndarray]] = []
        for draw in range(job.num_samples):
            if "seed" in self._task.results.signature.inputs:
                seed = np.empty((size, 2), np.int32)
                seed[:, 0] = job.seed + draw
                first = number - offset
                seed[:, 1] = np.arange(first, first + size).astype(np.uint32).view(np.int32)
                whole["seed"] = seed
            results = self._session.run(names, whole)
            draws.append([value[offset : offset + count] for value in results])
        return {
            name: averaged(name, values)
            for name, values in zip(names, zip(*draws, strict=True), strict=True)
        }


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Joins the tables into fewer, larger ones."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(part.nbytes for part in held) >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
