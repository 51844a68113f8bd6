"""Command line: `python -m keras_vae` or `keras-vae`.

TensorFlow is imported inside the commands, so that help and usage errors come at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from keras_vae import extras
from keras_vae.runs import siblings
from keras_vae.runs.arguments import (
    AtLeast,
    RunDirectory,
    numbers,
    of_run,
    table_endings,
    with_limit,
    with_samples,
    with_seed,
)
from keras_vae.runs.config_file import read_run
from keras_vae.runs.endings import check_ending, endings_of
from keras_vae.runs.options import Listed, OfColumn, add_settings, integers, settings_of
from keras_vae.tensorflow_start import load_tensorflow

__all__ = ["Group", "main"]


class Group(click.Group):
    """Command group whose errors end in one message without a traceback, unless `--debug`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error.")
        )

    def invoke(self, context: click.Context) -> Any:
        """Runs the command."""
        debug = context.params.pop("debug", False) or context.meta.get("debug", False)
        context.meta["debug"] = debug
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if debug:
                raise
            extra = siblings.EXTRAS.get(context.invoked_subcommand or "", "export")
            raise click.ClickException(extras.advice(error, extra) or _sentence(error)) from error


def _sentence(error: Exception) -> str:
    """Returns the message of an error and its notes, in one line."""
    sentence = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        sentence = f"{error.filename}: {error.strerror}."
    elif not isinstance(error, (ValueError, FloatingPointError)):
        sentence = f"{type(error).__name__}: {sentence} (Run with --debug for the traceback.)"
    return " ".join([sentence, *getattr(error, "__notes__", ())])


class _Main(Group):
    """Group of this module's and other packages' commands, imported when they are named."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Lists the names of the commands."""
        return [*super().list_commands(context), *siblings.COMMANDS]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Returns the command of that name."""
        if name in siblings.COMMANDS:
            return siblings.command(name)
        return super().get_command(context, name)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="keras-vae", message="%(version)s")
def main() -> None:
    """Train variational autoencoders, measure them and draw from them.

    All bounds are in nats per example. A run is a directory with model.keras, history.csv,
    config.toml and evaluation.json.
    """


@main.command("train")
@click.option(
    "--config", type=click.Path(path_type=Path), help="TOML file with settings (a recipe)."
)
@add_settings
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Run directory.")
@click.option("--resume", is_flag=True, help="Continue the run in --out where it stopped.")
def train_command(config: Path | None, out: Path, resume: bool, **options: Any) -> None:
    """Train a model into a run directory.

    A training that is killed at any moment continues with --resume after its last finished epoch,
    with the same batches and draws as an uninterrupted one.
    """
    settings = settings_of(config, options, resume_from=out if resume else None)
    load_tensorflow()
    from keras_vae import commands

    started = time.perf_counter()
    with _naming_resume(out):
        run = commands.train_with_progress(settings, out, resume, click.echo)
    click.echo(
        f"At epoch {len(run.history())} after {time.perf_counter() - started:.0f} s: "
        f"{commands.held_out(run)}. Next: keras-vae evaluate {out}"
    )
    if run.schema is not None:
        click.echo(f"Fill the holes of a table: keras-vae impute {out} --data FILE --out FILLED")


@contextlib.contextmanager
def _naming_resume(out: Path) -> Iterator[None]:
    """Ends a training that was interrupted or failed with the command that continues it."""
    from keras_vae.runs.run import resume_command

    how = f"Continue after its last finished epoch with: {resume_command(out)}"
    try:
        yield
    except KeyboardInterrupt as interruption:
        if not (out / "config.toml").is_file():
            raise
        click.echo(f"Interrupted. {how}", err=True)
        raise click.exceptions.Exit(130) from interruption
    except Exception as error:
        if not isinstance(error, ValueError) and (out / "config.toml").is_file():
            error.add_note(how)
        raise


@main.command("schema")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--drop", type=Listed(str), default=(), help="Columns to leave out, as in id,date.")
@click.option("--missing", is_flag=True, help="Allow missing values in every column.")
@click.option(
    "--missing-value",
    "marks",
    type=OfColumn(),
    multiple=True,
    help="Value that stands for a missing one, as in age=-999; may be repeated.",
)
@click.option("--verbose", is_flag=True, help="Add the reason for each column.")
@click.option("--out", type=click.Path(path_type=Path), help="TOML file to write, for editing.")
def schema_command(
    file: Path,
    drop: tuple[str, ...],
    missing: bool,
    marks: tuple[tuple[str, str], ...],
    verbose: bool,
    out: Path | None,
) -> None:
    """Say how the columns of a table would be modelled.

    FILE is a table in CSV, Parquet or Feather. The kind of each column is inferred from its values;
    edit the file that --out writes to change it.
    """
    from keras_vae.data import Schema

    values = {name: [value for other, value in marks if other == name] for name, _ in marks}
    schema = Schema.of_file(file, drop=drop, missing=missing, missing_values=values)
    click.echo(schema.explained() if verbose else str(schema))
    if out is not None:
        schema.save(out)
        click.echo(
            f"Wrote {out}. Edit it to change how a column is modelled, and train with: keras-vae "
            f"train --data {file} --schema {out} --out RUN"
        )


@main.command("evaluate")
@of_run
@with_samples("example")
@with_limit
@with_seed
def evaluate_command(run: Path, num_samples: int, limit: int, seed: int) -> None:
    """Measure a run on its test set, beside simple models.

    Bound and log-likelihood are in nats per example and in the units of the data file.
    """
    load_tensorflow()
    from keras_vae import commands
    from keras_vae.runs.run import Run

    values = commands.evaluate(
        Run(run),
        num_samples=num_samples,
        limit=limit,
        seed=seed,
        progress=sys.stdout.isatty(),
        report=click.echo,
    )
    commands.print_evaluation(values)


@main.command("rate-distortion")
@of_run
@click.option(
    "--betas",
    default="0.25,0.5,2,4,8",
    show_default=True,
    help="Weights of the rate, beside RUN's.",
)
@with_seed
def rate_distortion_command(run: Path, betas: str, seed: int) -> None:
    """Train a run's model again at each of several betas.

    The table shows what the latents cost in rate and gain in distortion.
    """
    weights = numbers(betas, "--betas")
    load_tensorflow()
    from rich.console import Console
    from rich.table import Table

    from keras_vae import commands
    from keras_vae.runs.run import Run

    found = commands.rate_distortion(Run(run), betas=weights, seed=seed, report=click.echo)
    table = Table(title="Nats per test example")
    for name in ("beta", "rate", "distortion", "ELBO"):
        table.add_column(name, justify="right")
    for row in zip(found.beta, found.rate, found.distortion, found.elbo, strict=True):
        table.add_row(f"{row[0]:g}", *(f"{value:.2f}" for value in row[1:]))
    Console().print(table)
    click.echo(f"Draw it with: keras-vae report {run}")


@main.command("sample")
@of_run
@click.option(
    "--n", "count", type=AtLeast(1), default=100, show_default=True, help="Number of draws."
)
@with_seed
@click.option("--label", "labels", multiple=True, help="Label of a run with --condition; repeat.")
@click.option("--mean", is_flag=True, help="Decoder means at prior draws instead of draws of x.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help=".npy, .csv, .parquet or .png; .txt.",
)
def sample_command(
    run: Path, count: int, seed: int, labels: tuple[str, ...], mean: bool, out: Path
) -> None:
    """Draw x from a run's model.

    z comes from the prior p(z), x from the likelihood p(x | z). Of a run with --condition labels,
    the labels take turns.
    """
    check_ending(out, endings_of(read_run(run)))
    load_tensorflow()
    from keras_vae import commands
    from keras_vae.runs.run import Run

    commands.sample(
        Run(run), count=count, seed=seed, mean=mean, out=out, report=click.echo, labels=labels
    )


@main.command("impute")
@of_run
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Table with holes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help=".csv, .tsv, .parquet or .feather.",
)
@with_samples("row")
@click.option("--multiple", type=AtLeast(1), help="Number of imputations to draw, one file each.")
@with_seed
@click.option("--overwrite", is_flag=True, help="Replace --out if it exists.")
def impute_command(
    run: Path,
    data: Path,
    out: Path,
    num_samples: int,
    multiple: int | None,
    seed: int,
    overwrite: bool,
) -> None:
    """Fill the missing values of a table by a run's model.

    Numbers become their mean given the rest of the row, ordered levels the median, and labels the
    most probable one. With --multiple, they are drawn, and each imputation is written into a file
    of its own.
    """
    check_ending(out, table_endings())
    load_tensorflow()
    from keras_vae.runs import table_files
    from keras_vae.runs.run import Run

    table_files.impute(
        Run(run),
        data,
        out,
        num_samples=num_samples,
        multiple=multiple,
        seed=seed,
        overwrite=overwrite,
        report=click.echo,
    )


@main.command("explain-loss")
@click.option(
    "--reconstruction",
    type=click.Choice(["mse", "bce"]),
    default="mse",
    show_default=True,
    help="Squared error or cross entropy.",
)
@click.option(
    "--reduction",
    type=click.Choice(["mean", "sum", "mean_channels"]),
    default="mean",
    show_default=True,
    help="Reduction over the numbers of an example.",
)
@click.option("--kl-weight", type=float, default=1.0, show_default=True, help="w in R + w KL.")
@click.option(
    "--kl-reduction",
    type=click.Choice(["sum", "mean"]),
    default="sum",
    show_default=True,
    help="Reduction over the latents.",
)
@click.option("--shape", required=True, help="Shape of one example, as in 64,64,3.")
@click.option("--latent", type=int, required=True, help="Number of latents.")
def explain_loss_command(
    reconstruction: str,
    reduction: str,
    kl_weight: float,
    kl_reduction: str,
    shape: str,
    latent: int,
) -> None:
    """Say which model a hand-written loss R + w KL is.

    The answer names the likelihood, its scale and beta.
    """
    from keras_vae.explain import explain_loss

    explanation = explain_loss(
        reconstruction,  # type: ignore[arg-type]
        reduction=reduction,  # type: ignore[arg-type]
        kl_weight=kl_weight,
        data_shape=integers(shape, "--shape"),
        latent_size=latent,
        kl_reduction=kl_reduction,  # type: ignore[arg-type]
    )
    click.echo(explanation.sentence)
    click.echo(f"In keras_vae: {explanation.code}")


@main.command("report")
@of_run
@click.option(
    "--artifact",
    type=click.Path(path_type=Path),
    help="Exported version of the run's model, such as artifacts/quickstart/1; shows its parity.",
)
@with_seed
def report_command(run: Path, artifact: Path | None, seed: int) -> None:
    """Write report.html into a run.

    It is a single offline file with curves, bounds, latents and draws.
    """
    load_tensorflow()
    from keras_vae import report
    from keras_vae.runs.run import Run

    click.echo(f"Wrote {report.write(Run(run), artifact=artifact, seed=seed, report=click.echo)}")


@main.command("compare")
@click.argument("first", metavar="RUN_A", type=RunDirectory())
@click.argument("second", metavar="RUN_B", type=RunDirectory())
@click.option(
    "--out", type=click.Path(path_type=Path), help="HTML page of both, with pictures, to write."
)
@click.option(
    "--num-samples",
    type=AtLeast(0),
    default=0,
    show_default=True,
    help="Importance samples per example to compare log p(x) too; 0 for the ELBO alone.",
)
@with_limit
@with_seed
def compare_command(
    first: Path, second: Path, out: Path | None, num_samples: int, limit: int, seed: int
) -> None:
    """Compare two runs on the same test examples.

    The bound of each example under one model is subtracted from that under the other; the mean
    difference comes with its standard error, in nats per example. The ELBO is that of all test
    examples.
    """
    given = click.get_current_context().get_parameter_source("limit")
    if not num_samples and given is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--limit is for log p(x), which is measured with --num-samples.")
    load_tensorflow()
    from rich.console import Console
    from rich.table import Table

    from keras_vae.report import comparison
    from keras_vae.runs.run import Run

    found = comparison.compare(
        Run(first), Run(second), num_samples=num_samples, limit=limit, seed=seed, report=click.echo
    )
    table = Table()
    for number, name in enumerate(found.header):
        table.add_column(name, justify="right" if number else "left")
    for row in found.rows:
        table.add_row(*row)
    console = Console()
    console.print(f"{found.units}:", highlight=False)
    console.print(table)
    about = Table(*found.header[:3], box=None, pad_edge=False)
    for row in found.about:
        about.add_row(*row)
    console.print(about)
    console.print(found.verdict, highlight=False)
    if out is not None:
        comparison.write(found, out)
        click.echo(f"Wrote {out}")


@main.command("quickstart")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/quickstart"),
    show_default=True,
    help="Run directory.",
)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path),
    default=Path("artifacts/quickstart"),
    show_default=True,
    help="Where the exported versions go.",
)
@click.option("--epochs", type=int, help="Number of epochs; fewer for a trial.")
@click.pass_context
def quickstart_command(
    context: click.Context, out: Path, artifacts: Path, epochs: int | None
) -> None:
    """Train, measure and export a VAE of handwritten digits.

    It takes about a minute and verifies the artifact that it publishes.
    """
    if lack := extras.missing("export"):
        raise click.ClickException(lack)
    load_tensorflow()

    from keras_vae import commands

    settings = commands.quickstart_config()
    if epochs is not None:
        settings = dataclasses.replace(settings, epochs=epochs)
    click.secho("1/4  Training on scikit-learn's digits, 8x8 images of 17 grey levels", bold=True)
    with _naming_resume(out):
        run = commands.train_with_progress(settings, out, True, click.echo)
    click.secho("2/4  Measuring on the test set", bold=True)
    values = commands.evaluate(
        run, num_samples=1000, limit=0, seed=0, progress=sys.stdout.isatty(), report=click.echo
    )
    commands.print_evaluation(values)
    click.secho("3/4  Drawing pictures", bold=True)
    for path in commands.draw_pictures(run, seed=0):
        click.echo(f"  {path}")
    click.secho("4/4  Exporting, and verifying in other processes", bold=True)
    context.invoke(siblings.command("export"), model=run.model_path, out=artifacts)
    keras_vae = commands.invoked()
    click.echo(
        f"\nLook at {out / 'samples.png'} first. Then train on your own data:\n"
        f"  {keras_vae} train --data FILE --out runs/mine\n"
        f"  {keras_vae} evaluate runs/mine\n"
        f"  {keras_vae} export runs/mine --out artifacts/mine"
    )


if __name__ == "__main__":
    main()
