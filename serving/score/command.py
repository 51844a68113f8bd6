"""Command `keras-vae score`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from keras_vae.spelling import counted

__all__ = ["score_command"]

_SECONDS_BETWEEN_LINES = 10.0


def _names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


@click.command("score")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="A Parquet file or a directory of them, another table (.csv, .tsv, .feather) or a .npy "
    "array; of a model of texts a .txt or .jsonl file, too.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory of the results; an interrupted run is resumed.",
)
@click.option(
    "--columns",
    default="",
    callback=_names,
    help="Columns of x, separated by commas: one for each number, or one of lists. By default the "
    "columns with the model's names, in any order; without names the column of lists, or all "
    "others. Of a model with named parts one column for each, in their order.",
)
@click.option("--condition", default="", callback=_names, help="The same for the condition.")
@click.option("--key", default="", callback=_names, help="Columns to copy beside the results.")
@click.option(
    "--signature",
    type=click.Choice(["score", "encode", "reconstruct", "impute", "classify"]),
    default="score",
    show_default=True,
    help="What to compute.",
)
@click.option(
    "--outputs",
    default="",
    callback=_names,
    help="Outputs to write, separated by commas, as in elbo,rate; by default all. reconstruct and "
    "impute of texts have columns of texts, reconstruction and imputation.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Row i over all files has the seed pair [seed, i].",
)
@click.option(
    "--num-samples",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Draws that score averages; draw k has the seed pair [seed + k, i]. A p_value is that of "
    "the first.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Rows at once; by default chosen by the size of x."
)
@click.option(
    "--part-rows",
    type=click.IntRange(1),
    default=2**17,
    show_default=True,
    help="Rows of a part, the most that a killed worker loses.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes, each on one core.",
)
@click.option(
    "--address", help="Head of a Ray cluster, as in head:6379; by default, Ray is started here."
)
def score_command(
    artifact: Path,
    data: Path,
    out: Path,
    columns: tuple[str, ...],
    condition: tuple[str, ...],
    key: tuple[str, ...],
    signature: str,
    outputs: tuple[str, ...],
    seed: int,
    num_samples: int,
    batch_size: int | None,
    part_rows: int,
    workers: int,
    address: str | None,
) -> None:
    """Compute a signature, by default score, for each row.

    Null is absent where the model allows it. A model of time series takes a table with one row a
    step, as in training, and cuts it into windows that do not overlap; the last of a series may be
    shorter. Runs on Ray Data, on one core or on a cluster.
    """
    from serving.artifact import Artifact
    from serving.score.plan import plan
    from serving.score.run import score

    model = Artifact.read(artifact)
    job = plan(
        model,
        data,
        signature=signature,
        seed=seed,
        num_samples=num_samples,
        columns=columns,
        condition=condition,
        key=key,
        batch_size=batch_size,
        part_rows=part_rows,
        outputs=outputs,
        report=click.echo,
    )
    click.echo(
        f"{signature} of {job.model} for {counted(job.rows, 'row')} in "
        f"{counted(len(job.sources), 'file')}"
    )
    with _Bar(job.rows) as bar:
        summary = score(model, job, data, out, workers=workers, address=address, progress=bar)
    kept = summary.rows - summary.scored
    if kept:
        click.echo(f"Scored before: {counted(kept, 'row')}")
    if summary.scored:
        speed = summary.scored / summary.scoring_seconds
        click.echo(
            f"{counted(summary.scored, 'row')} in {summary.seconds:.1f} s; {speed:.0f} rows/s for "
            "each worker once it had started"
        )
    click.secho(
        f"{counted(summary.rows, 'row')} in {counted(summary.parts, 'part')}: {out}", bold=True
    )


class _Bar:
    """A progress bar; prints a line now and then if the output is not a terminal."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console()
        self._is_terminal = console.is_terminal
        self._bar = Progress(
            TextColumn("{task.completed:.0f} of {task.total:.0f} rows"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]}"),
            console=console,
            disable=not self._is_terminal,
        )
        self._task = self._bar.add_task("", total=total, speed="starting Ray")
        self._began, self._first, self._said = 0.0, -1, 0.0

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Moves the bar."""
        now = time.perf_counter()
        if self._first < 0:
            self._began, self._first, self._said = now, done, now
        speed = ""
        if done > self._first:
            speed = f"{(done - self._first) / (now - self._began):.0f} rows/s"
        self._bar.update(self._task, completed=done, speed=speed or "starting Ray")
        if not self._is_terminal and now - self._said > _SECONDS_BETWEEN_LINES:
            self._said = now
            click.echo(f"{done} of {counted(total, 'row')}, {speed}")
