"""Command line: `python -m keras_vae` or `keras-vae`.

TensorFlow is imported inside the commands, so that help and usage errors come at once.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from keras_vae import siblings

if TYPE_CHECKING:
    from keras_vae.runs import RunConfig

__all__ = ["Group", "load_tensorflow", "main"]

_LIKELIHOODS = (
    "bernoulli",
    "continuous_bernoulli",
    "normal",
    "laplace",
    "discretized_logistic",
    "binomial",
    "categorical",
    "poisson",
)


class Group(click.Group):
    """A group of commands that ends in one sentence instead of a traceback, unless `--debug`."""

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
            _fail(error)


def _fail(error: Exception) -> NoReturn:
    sentence = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.filename:
        sentence = f"{error.filename}: {error.strerror}."
    elif not isinstance(error, (ValueError, FloatingPointError)):
        sentence = f"{type(error).__name__}: {sentence} (Run with --debug for the traceback.)"
    raise click.ClickException(sentence)


def load_tensorflow() -> None:
    """Imports TensorFlow without the lines its libraries write at start, unless it fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with _quiet_standard_error():
        import keras
        import tensorflow as tf

        keras.utils.disable_interactive_logging()
        tf.constant(0)


@contextlib.contextmanager
def _quiet_standard_error() -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


class _Main(Group):
    """The commands of this module and those of the packages beside it, imported when named."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the commands."""
        return [*super().list_commands(context), *siblings.COMMANDS]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of that name."""
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
@click.option(
    "--data", help="digits, or .npz, .npy, .csv, .tsv, .parquet, .mtx, IDX file, or a directory."
)
@click.option("--test-data", help="Test set; by default a part of the data, or t10k beside train.")
@click.option("--drop", help="Columns of a table to leave out, as in id,date.")
@click.option(
    "--keep-labels",
    is_flag=True,
    default=None,
    help="Model a column named label, labels, y, target or class as the others.",
)
@click.option("--image-size", help="Height and width to bring images to, as in 64,64.")
@click.option(
    "--image-mode",
    type=click.Choice(["1", "L", "RGB", "RGBA", "I;16"]),
    help="Mode to convert images to: L is grey, I;16 grey of 16 bits.",
)
@click.option("--likelihood", type=click.Choice(_LIKELIHOODS), help="p(x|z).  [default: bernoulli]")
@click.option(
    "--scale",
    help="normal, laplace, discretized_logistic: a number, learned, "
    "per_feature, decoder or optimal.",
)
@click.option("--levels", type=int, help="discretized_logistic: number of levels.")
@click.option("--total-count", type=int, help="binomial: number of trials.")
@click.option("--network", type=click.Choice(["mlp", "conv"]), help="[default: mlp]")
@click.option("--hidden", help="Widths or filters, as in 200,200.")
@click.option("--activation", help="Of hidden layers.  [default: tanh]")
@click.option("--latent", type=int, help="Number of latents.  [default: 16]")
@click.option("--posterior", type=click.Choice(["diagonal", "isotropic", "full"]))
@click.option("--prior", type=click.Choice(["standard_normal", "normal_mixture", "vamp"]))
@click.option("--components", type=int, help="Components of a mixture or vamp prior.")
@click.option("--objective", type=click.Choice(["elbo", "iwae"]))
@click.option("--num-samples", type=int, help="Draws per example.  [default: 1]")
@click.option("--gradient", help="pathwise, sticking_the_landing, doubly_reparameterized.")
@click.option("--kl", type=click.Choice(["analytic", "monte_carlo"]))
@click.option("--beta", type=float, help="Weight of the rate.  [default: 1]")
@click.option("--free-bits", type=float, help="Nats per latent that are free.")
@click.option("--warmup-epochs", type=float, help="Epochs in which beta rises from 0.")
@click.option("--epochs", type=int, help="[default: 20]")
@click.option("--batch-size", type=int, help="[default: 100]")
@click.option("--learning-rate", type=float, help="Of Adam.  [default: 0.001]")
@click.option("--learning-rate-milestones", help="Epochs after which it falls, as in 30,40.")
@click.option("--learning-rate-decay", type=float, help="Its factor there.  [default: 0.1]")
@click.option("--adam-beta-1", type=float, help="[default: 0.9]")
@click.option("--adam-epsilon", type=float, help="[default: 1e-7]")
@click.option(
    "--output-bias",
    type=click.Choice(["zeros", "data_mean"]),
    help="Where the decoder's mean starts.  [default: zeros]",
)
@click.option("--monitor", is_flag=True, default=None, help="Log what the latents carry, too.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="[default: 0]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Run directory.")
@click.option("--resume", is_flag=True, help="Continue the run in --out where it stopped.")
def train_command(config: Path | None, out: Path, resume: bool, **options: Any) -> None:
    """Train a model into a run directory.

    Killed at any moment, it continues with --resume from its last finished epoch, on the same
    batches and draws as if it had not stopped.
    """
    load_tensorflow()
    from keras_vae import commands

    settings = _settings(config, options, resume_from=out if resume else None)
    started = time.perf_counter()
    run = commands.train_with_progress(settings, out, resume, click.echo)
    click.echo(
        f"Trained {len(run.history())} epochs in {time.perf_counter() - started:.0f} s: "
        f"{commands.held_out(run)}. Next: keras-vae evaluate {out}"
    )


@main.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--samples", default=1000, show_default=True, help="Importance samples per example.")
@click.option(
    "--limit",
    default=1000,
    show_default=True,
    help="Test examples to measure, from the first on; 0 for all.",
)
@click.option("--seed", default=0, show_default=True, help="Of all draws.")
def evaluate_command(run: Path, samples: int, limit: int, seed: int) -> None:
    """Measure bound and log-likelihood of a run on its test set, beside simple models."""
    load_tensorflow()
    from keras_vae import commands
    from keras_vae.runs import Run

    values = commands.evaluate(
        Run(run),
        num_samples=samples,
        limit=limit,
        seed=seed,
        progress=sys.stdout.isatty(),
        report=click.echo,
    )
    commands.print_evaluation(values)


@main.command("rate-distortion")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--betas",
    default="0.25,0.5,2,4,8",
    show_default=True,
    help="Weights of the rate, beside RUN's.",
)
@click.option("--seed", default=0, show_default=True, help="Of the draws that measure.")
def rate_distortion_command(run: Path, betas: str, seed: int) -> None:
    """Train a run's model anew at each beta; what the latents cost and what they buy."""
    weights = _numbers(betas, "--betas")
    load_tensorflow()
    from rich.console import Console
    from rich.table import Table

    from keras_vae import commands
    from keras_vae.runs import Run

    found = commands.rate_distortion(Run(run), betas=weights, seed=seed, report=click.echo)
    table = Table(title="Nats per test example")
    for name in ("beta", "rate", "distortion", "ELBO"):
        table.add_column(name, justify="right")
    for row in zip(found.beta, found.rate, found.distortion, found.elbo, strict=True):
        table.add_row(f"{row[0]:g}", *(f"{value:.2f}" for value in row[1:]))
    Console().print(table)
    click.echo(f"Draw it with: keras-vae report {run}")


@main.command("sample")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--n", "count", default=100, show_default=True, help="Number of draws.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same draws.")
@click.option("--mean", is_flag=True, help="Decoder means at prior draws instead of draws of x.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help=".npy, .csv or .png.")
def sample_command(run: Path, count: int, seed: int, mean: bool, out: Path) -> None:
    """Draw from a run's model, p(x): z from the prior, x from the likelihood."""
    load_tensorflow()
    from keras_vae import commands
    from keras_vae.runs import Run

    commands.sample(Run(run), count=count, seed=seed, mean=mean, out=out, report=click.echo)


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
    help="Over the numbers of an example.",
)
@click.option("--kl-weight", type=float, default=1.0, show_default=True, help="w in R + w KL.")
@click.option(
    "--kl-reduction",
    type=click.Choice(["sum", "mean"]),
    default="sum",
    show_default=True,
    help="Over the latents.",
)
@click.option("--shape", required=True, help="Of one example, as in 64,64,3.")
@click.option("--latent", type=int, required=True, help="Number of latents.")
def explain_loss_command(
    reconstruction: str,
    reduction: str,
    kl_weight: float,
    kl_reduction: str,
    shape: str,
    latent: int,
) -> None:
    """Say which model, likelihood scale and beta a hand-written loss R + w KL is."""
    from keras_vae.explain import explain_loss

    explanation = explain_loss(
        reconstruction,  # type: ignore[arg-type]
        reduction=reduction,  # type: ignore[arg-type]
        kl_weight=kl_weight,
        data_shape=_integers(shape, "--shape"),
        latent_size=latent,
        kl_reduction=kl_reduction,  # type: ignore[arg-type]
    )
    click.echo(explanation.sentence)
    click.echo(f"In keras_vae: {explanation.code}")


@main.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--artifact",
    type=click.Path(path_type=Path),
    help="Exported version of the run's model, such as artifacts/digits/1, whose parity is shown.",
)
@click.option("--seed", default=0, show_default=True, help="Of all draws.")
def report_command(run: Path, artifact: Path | None, seed: int) -> None:
    """Write report.html into a run: curves, bounds, latents, draws; one file, no network."""
    load_tensorflow()
    from keras_vae import report
    from keras_vae.runs import Run

    click.echo(f"Wrote {report.write(Run(run), artifact=artifact, seed=seed, report=click.echo)}")


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
@click.option("--epochs", type=int, help="Fewer epochs, to try it out.")
@click.pass_context
def quickstart_command(
    context: click.Context, out: Path, artifacts: Path, epochs: int | None
) -> None:
    """Train, measure, export and verify a VAE of handwritten digits, in about a minute."""
    load_tensorflow()
    import dataclasses

    from keras_vae import commands

    settings = commands.quickstart_config()
    if epochs is not None:
        settings = dataclasses.replace(settings, epochs=epochs)
    click.secho("1/4  Training on scikit-learn's digits, 8x8 images of 17 grey levels", bold=True)
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
    context.invoke(siblings.command("export"), model=run.model_path, target=artifacts)
    keras_vae = _invoked()
    click.echo(
        f"\nLook at {out / 'samples.png'} first. Then train on your own data:\n"
        f"  {keras_vae} train --data FILE --out runs/mine\n"
        f"  {keras_vae} evaluate runs/mine\n"
        f"  {keras_vae} export runs/mine/model.keras --to artifacts/mine"
    )


def _invoked() -> str:
    """How this command was called, for what the user types next."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return f"{sys.executable} -m keras_vae"
    return path.name if shutil.which(path.name) == str(path) else str(path)


def _integers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not like 200,200.", param_hint=option) from error


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not like 0.5,2,4.", param_hint=option) from error
    if not all(0.0 <= number < math.inf for number in found):
        raise click.BadParameter("expected numbers of at least 0.", param_hint=option)
    return found


def _settings(config: Path | None, options: dict[str, Any], resume_from: Path | None) -> RunConfig:
    import dataclasses

    from keras_vae import runs

    given = {name: value for name, value in options.items() if value is not None}
    likelihood_options: dict[str, Any] = {}
    for name in ("scale", "levels", "total_count"):
        if name in given:
            likelihood_options[name] = given.pop(name)
    if "scale" in likelihood_options:
        with contextlib.suppress(ValueError):
            likelihood_options["scale"] = float(likelihood_options["scale"])
    if "drop" in given:
        given["drop"] = tuple(name.strip() for name in given["drop"].split(","))
    for name in ("hidden", "learning_rate_milestones", "image_size"):
        if name in given:
            given[name] = _integers(given[name], f"--{name.replace('_', '-')}")
    if config is not None:
        base = runs.read_config(config, needs_data="data" not in given)
    elif resume_from is not None and (resume_from / "config.toml").is_file():
        base = runs.read_config(resume_from / "config.toml")
        changed = sorted(set(given) - {"epochs", "data", "test_data"})
        if changed:
            raise click.UsageError(
                f"--resume continues the run as it was configured; leave out "
                f"{', '.join('--' + name.replace('_', '-') for name in changed)}."
            )
    elif "data" in given:
        base = runs.RunConfig(data=given["data"])
    else:
        raise click.UsageError("Say which data to train on: --data PATH, or --data digits.")
    merged = {**base.likelihood_options, **likelihood_options}
    return dataclasses.replace(base, **given, likelihood_options=merged)


if __name__ == "__main__":
    main()
