"""Run of a job: hands its parts to Ray Data until all of them are done."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from keras_vae import integrity
from serving.artifact import Artifact
from serving.errors import ServingError
from serving.score.files import schema_and_rows
from serving.score.plan import Job, Part, onnx_model
from serving.score.results import Results
from serving.score.series import SeriesReader
from serving.score.worker import METADATA, Task, Worker, session

__all__ = ["Progress", "Summary", "score"]

Progress = Callable[[int, int], None]
"""Function of the number of finished rows and the number of all rows."""

_JOB, _SUCCESS = "_job.json", "_SUCCESS"
_MOST_BLOCKS = 1000  # more make Ray's plan slow, and a block need not be one part
_STORE_BYTES = 2**27  # Ray's smallest is 75 MiB; rows do not pass through it


@dataclass(frozen=True)
class Summary:
    """Counts and times of a run.

    Attributes:
        rows: rows of the job.
        scored: rows scored in this run; the others were scored before.
        parts: files with results.
        seconds: duration of this run, including the start of Ray.
        scoring_seconds: time that its workers spent on parts, summed over the workers.
    """

    rows: int
    scored: int
    parts: int
    seconds: float
    scoring_seconds: float


def score(
    artifact: Artifact,
    job: Job,
    data: Path,
    out: Path,
    *,
    workers: int = 1,
    address: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Summary:
    """Scores all rows of a job that have not been scored yet.

    Args:
        artifact: the model.
        job: from `plan`.
        data: the file or directory that was planned.
        out: directory of the results; results of an interrupted run of the same job are kept.
        workers: processes, each on one core.
        address: head of a Ray cluster that this machine is a node of, such as head:6379; by default
            Ray is started here, for this run alone.
        progress: called with the progress.

    Raises:
        ServingError: if `out` belongs to another job, a row cannot be scored, or Ray is missing or
            unreachable.
    """
    data, out = data.resolve(), out.resolve()
    root = data.parent if data.is_file() else data
    began = time.perf_counter()
    with _claimed(out, job):
        parts = list(job.parts())
        pending = [part for part in parts if not _is_done(out, part, job)]
        done = job.rows - sum(part.stop - part.start for part in pending)
        progress(done, job.rows)
        scored, scoring = 0, 0.0
        if pending:
            task = _task(artifact, job, root, out)
            with _ray(address, workers):
                for count, seconds in _scored(task, pending, workers):
                    scored += count
                    scoring += seconds
                    progress(done + scored, job.rows)
            _remove_unfinished(out)
        missing = [part.name for part in parts if not _is_done(out, part, job)]
        if missing:
            raise ServingError(f"{out / missing[0]} is missing; run the command again.")
        took = time.perf_counter() - began
        summary = Summary(job.rows, scored, len(parts), round(took, 3), round(scoring, 3))
        about = {key: getattr(job, key) for key in ("model", "artifact", "signature", "seed")}
        text = json.dumps({**about, "job": job.digest, **dataclasses.asdict(summary)}, indent=1)
        _write(out / _SUCCESS, text + "\n")
    return summary


def _task(artifact: Artifact, job: Job, root: Path, out: Path) -> Task:
    signature = dataclasses.replace(artifact.signatures[job.signature], onnx=None)
    parts = tuple(integrity.observations(artifact.manifest).values())
    results = Results.of(signature, parts, job.outputs)
    series = SeriesReader.of(artifact.manifest)
    source, _ = schema_and_rows(root / job.sources[0].path, series)
    model = onnx_model(artifact, job.signature)
    session(model)  # a model that cannot be loaded is refused before workers start
    return Task(
        job=dataclasses.replace(job, sources=()),
        digest=job.digest,
        results=results,
        parts=parts,
        model=model,
        data=root,
        out=out,
        schema=results.schema(job.key, source),
        series=series,
    )


@contextlib.contextmanager
def _claimed(out: Path, job: Job) -> Iterator[None]:
    """Locks the directory of the results for this run, and checks that it belongs to this job."""
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServingError(
                f"Another run is writing to {out}; wait for it, or name another directory."
            ) from None
        if (out / _JOB).exists():
            _check_same(out, job)
        elif any(out.iterdir()):
            raise ServingError(f"{out} holds other files: name a new or an empty directory.")
        else:
            _write(out / _JOB, job.to_json())
        _check_names(out, job)
        _remove_unfinished(out)
        yield
    finally:
        os.close(descriptor)


def _remove_unfinished(out: Path) -> None:
    """Removes the files that workers were writing when they were killed."""
    for left in out.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def _check_same(out: Path, job: Job) -> None:
    try:
        before = Job.from_json((out / _JOB).read_text())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ServingError(
            f"{out / _JOB} is damaged ({error!r}): score into a new directory."
        ) from error
    for field in dataclasses.fields(Job):
        was, now = getattr(before, field.name), getattr(job, field.name)
        if was == now:
            continue
        if field.name == "sources":
            changed = sorted({one.path for one in {*was} ^ {*now}})
            raise ServingError(
                f"{out} holds results of other data: {changed[0]} was added, removed or changed. "
                "Score into a new directory."
            )
        raise ServingError(
            f"{out} holds results of another job: its {field.name} is {was!r}, here it is {now!r}. "
            "Score into a new directory."
        )


def _check_names(out: Path, job: Job) -> None:
    """Refuses Parquet files that a reader of the directory would mistake for results."""
    foreign = {path.name for path in out.glob("*.parquet")} - {part.name for part in job.parts()}
    if foreign:
        raise ServingError(f"{out / min(foreign)} is not a part of this job: remove it.")


def _is_done(out: Path, part: Part, job: Job) -> bool:
    """Tells whether a part is complete; one that cannot be read is scored again."""
    try:
        footer = pq.read_metadata(out / part.name)
        about = json.loads((footer.metadata or {})[METADATA])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return False
    if about["job"] != job.digest:
        raise ServingError(f"{out / part.name} belongs to another job: score into a new directory.")
    return footer.num_rows == part.stop - part.start


@contextlib.contextmanager
def _ray(address: str | None, workers: int) -> Iterator[None]:
    """Connects to Ray, or starts a Ray for this run that only this machine can reach."""
    quiet = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",
    }
    if address is None:
        # As Ray does on Windows and macOS: the loopback address instead of that of the machine.
        quiet["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ServingError(
            f'Batch scoring runs on Ray Data; install it with pip install "keras-vae[batch]" '
            f"({error})."
        ) from error
    if address is not None and address.startswith("ray://"):
        raise ServingError(
            f"Ray Data does not run through the Ray Client, {address}: run this command on a node "
            "of the cluster, with the address of its head, as in --address HEAD:6379."
        )
    started_here = not ray.is_initialized()
    if started_here:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address is None:
            # Ray itself takes a place among the processes, but none of the cores.
            settings |= {
                "address": "local",
                "num_cpus": workers,
                "num_gpus": 0,
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
            }
        else:
            settings["address"] = address
        try:
            with _silent_stderr():
                ray.init(**settings)
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            raise ServingError(f"Ray cannot be reached or started: {error}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield
    finally:
        if started_here:
            ray.shutdown()


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hides from the terminal what Ray's libraries write to stderr outside Python."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _scored(task: Task, parts: list[Part], workers: int) -> Iterator[tuple[int, float]]:
    """Yields rows and seconds of parts as they finish; Ray repeats the work of a dead worker."""
    import ray.data

    items = ray.data.from_items(parts, override_num_blocks=min(len(parts), _MOST_BLOCKS))
    results = items.map_batches(
        Worker,
        fn_constructor_args=(task,),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    for result in results.iter_rows():
        if result["problem"]:
            raise ServingError(result["problem"])
        yield result["rows"], result["seconds"]


def _write(path: Path, text: str) -> None:
    """Writes text to a file, all of it or nothing."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
