"""Plan of a job: the model, the data, and the parts they are divided into."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from keras_vae import integrity
from serving.artifact import Artifact
from serving.errors import ServingError
from serving.onnx_model import OnnxModel
from serving.score.files import FILES, schema_and_rows
from serving.score.parts import check_columns, columns_of_parts
from serving.score.results import Results
from serving.score.rows import column_layout, listed
from serving.score.series import PLACES, SeriesReader, about_windows

__all__ = ["SIGNATURES", "Job", "Part", "Source", "identity_of", "plan"]

SIGNATURES = ("score", "encode", "reconstruct", "impute", "classify")
"""Signatures that take x."""

_DRAWN = ("score",)
"""Signatures whose draws may be averaged."""

_MOST_ROWS = 2**32  # a seed is one 32-bit word
_BATCH_NUMBERS = 2**18  # approximate numbers of x per batch; 1 MiB of float32


@dataclass(frozen=True)
class Source:
    """A Parquet file, as it was when the job was planned.

    Attributes:
        path: relative to the root of the data.
        size, modified: size in bytes, and time of the last change in nanoseconds.
        rows: number of rows.
        first: number of its first row, counted over all files.
    """

    path: str
    size: int
    modified: int
    rows: int
    first: int


@dataclass(frozen=True)
class Part:
    """Consecutive rows of one file that are scored together.

    Attributes:
        source: its file.
        start, stop: its rows within the file.
        name: name of the file with its results.
    """

    source: Source
    start: int
    stop: int
    name: str


@dataclass(frozen=True)
class Job:
    """Everything that determines the results; a resumed run must agree with all of it.

    Attributes:
        model: name and version, for readers.
        artifact: SHA-256 of the manifest, which holds the hashes of all files.
        signature: name of the signature.
        seed: first word of the seed pair of a row; the second is the row's number.
        num_samples: draws averaged; draw k has the seed pair [seed + k, row].
        columns, condition: columns that hold x and the condition; of a model with named parts one
            column for each, or "" for one that is absent.
        key: columns that are copied.
        batch_size, part_rows: rows of a batch, and maximum rows of a part.
        outputs: outputs to write; empty for all.
        sources: files in the order of their names.
    """

    model: str
    artifact: str
    signature: str
    seed: int
    num_samples: int
    columns: tuple[str, ...]
    condition: tuple[str, ...]
    key: tuple[str, ...]
    batch_size: int
    part_rows: int
    sources: tuple[Source, ...]
    outputs: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows over all files."""
        return sum(source.rows for source in self.sources)

    @property
    def digest(self) -> str:
        """SHA-256 of the whole job; every part carries it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def parts(self) -> Iterator[Part]:
        """Yields the parts in row order; a part ends with its file or when it is full."""
        for number, source in enumerate(self.sources):
            start = 0
            while start < source.rows:
                room = self.part_rows - (source.first + start) % self.part_rows
                stop = min(source.rows, start + room)
                yield Part(source, start, stop, f"file-{number:06d}-row-{start:012d}.parquet")
                start = stop

    def to_json(self) -> str:
        """Writes the job as JSON."""
        fields = dataclasses.asdict(self)
        if not self.outputs:  # jobs that were begun before one could choose go on
            del fields["outputs"]
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Reads a job that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        sources = tuple(Source(**entry) for entry in fields.pop("sources"))
        lists = ("columns", "condition", "key", "outputs")
        fields |= {key: tuple(fields.get(key, ())) for key in lists}
        return cls(**fields, sources=sources)


def plan(
    artifact: Artifact,
    data: Path,
    *,
    signature: str = "score",
    seed: int = 0,
    num_samples: int = 1,
    columns: Sequence[str] = (),
    condition: Sequence[str] = (),
    key: Sequence[str] = (),
    batch_size: int | None = None,
    part_rows: int = 2**17,
    outputs: Sequence[str] = (),
    report: Callable[[str], None] = lambda message: None,
) -> Job:
    """Plans a signature over a file, or over all Parquet files below a directory.

    Args:
        artifact: the model.
        data: the file or directory.
        signature: score, encode, reconstruct, impute or classify.
        seed: seed of the draws, a 32-bit integer.
        num_samples: draws of `score` to average.
        columns: one column for each number of x, or one of lists; by default the columns with the
            model's names, or all remaining columns if it has no names. Of a model with named parts
            one column for each, by default that of its name.
        condition: the same for the condition of a conditional model.
        key: columns to copy beside the results.
        batch_size: rows per call of ONNX Runtime; by default chosen by the size of x.
        part_rows: rows of a part, rounded up to whole batches.
        outputs: outputs to write; empty for all.
        report: called with a sentence on how long series are cut.

    Raises:
        ServingError: if model, data and options do not fit together.
    """
    if signature not in SIGNATURES or signature not in artifact.signatures:
        raise ServingError(f"Expected the signature {', '.join(SIGNATURES)}; got {signature}.")
    inputs = artifact.signatures[signature].inputs
    if num_samples != 1 and signature not in _DRAWN:
        raise ServingError(
            f"Draws of {signature} are not averaged: num_samples is 1; got {num_samples}."
        )
    if seed < -(2**31) or seed + num_samples > 2**31:
        raise ServingError(f"Expected 32-bit seeds; got {seed} to {seed + num_samples - 1}.")
    parts = tuple(integrity.observations(artifact.manifest).values())
    Results.of(artifact.signatures[signature], parts, outputs)
    named = "x" not in inputs
    numbers = max(1, sum(part.size * len(part.tokens or "x") for part in parts))
    if batch_size is None:
        batch_size = 2 ** min(12, max(4, (_BATCH_NUMBERS // numbers).bit_length() - 1))
    sources: list[Source] = []
    schemas: list[pa.Schema] = []
    first = 0
    root, files = _files(data)
    series = SeriesReader.of(artifact.manifest)
    for path in files:
        schema, rows = schema_and_rows(path, series)
        schemas.append(schema)
        if not sources:
            if not key and schema.names == [*PLACES, "x"]:
                key = PLACES
            if series is not None and not columns:
                series.check(path, schema, {*key, *condition})
            layout = column_layout(
                schema,
                inputs,
                columns=columns_of_parts(schema, parts, columns, (*key, *condition))
                if named
                else columns,
                condition=condition,
                key=key,
                features=() if named else parts[0].feature_names,
            )
        layout.check(path, schema, inputs)
        if named:
            check_columns(path, schema, parts, layout.columns)
        size, modified = identity_of(path)
        name = str(path.relative_to(root))
        sources.append(Source(name, size, modified, rows, first))
        first += rows
    if named and (lacking := [p.name for p, c in zip(parts, layout.columns, strict=True) if not c]):
        report(f"The data has no column {listed(lacking)}: it counts as missing in every row.")
    if series is not None and (about := about_windows(schemas, series.steps)):
        report(about)
    if first > _MOST_ROWS:
        raise ServingError(f"Expected at most {_MOST_ROWS} rows, one for each seed; got {first}.")
    return Job(
        model=f"{artifact.name}/{artifact.version}",
        artifact=artifact.sha256,
        signature=signature,
        seed=seed,
        num_samples=num_samples,
        columns=layout.columns,
        condition=layout.condition,
        key=layout.key,
        batch_size=batch_size,
        part_rows=-(-part_rows // batch_size) * batch_size,
        sources=tuple(sources),
        outputs=tuple(outputs),
    )


def identity_of(path: Path) -> tuple[int, int]:
    """Returns the size in bytes and the time of the last change in nanoseconds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def onnx_model(artifact: Artifact, signature: str) -> OnnxModel:
    """Reads the ONNX file of a signature.

    Raises:
        ServingError: if it has none, or the file differs from what was published.
    """
    path = artifact.signatures[signature].onnx
    if path is None:
        raise ServingError(
            f"{artifact.path} has no ONNX file of {signature}: its model has no ONNX form."
        )
    return artifact.onnx_model(path)


def _files(data: Path) -> tuple[Path, list[Path]]:
    """Finds the root and the sorted files; skips hidden names and names that begin with _."""
    data = data.resolve()
    if data.is_file():
        return data.parent, [data]
    files = [
        path
        for path in sorted(data.rglob("*.parquet"))
        if not any(name.startswith((".", "_")) for name in path.relative_to(data).parts)
    ]
    if not files:
        raise ServingError(
            f"{data} {'holds no Parquet files' if data.is_dir() else 'does not exist'}. Give "
            f"one of these files: {FILES}; or a directory with Parquet files."
        )
    return data, files
