"""The command `keras-vae choose`."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import Any

import click

from keras_vae.runs.arguments import AtLeast
from keras_vae.runs.durations import as_seconds
from keras_vae.runs.options import Listed, add_settings, settings_of
from keras_vae.tensorflow_start import load_tensorflow

__all__ = ["choose_command"]

_CHOSEN = ("likelihood", "latent", "hidden", "prior")
_OF_ONE_PRIOR = ("prior_layers", "prior_hidden", "prior_transform", "components")
_OTHER_LATENTS = ("latents", "codes", "code_size", "code_prior", "level_sizes", "hidden_above")
_LEFT_OUT = ("data", "condition", "epochs", "monitor", *_CHOSEN, *_OF_ONE_PRIOR, *_OTHER_LATENTS)


@click.command("choose")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--budget", required=True, help="Time to spend, as in 90s, 30m or 1h.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/choice"),
    show_default=True,
    help="Directory of the trials and of the recommended config.toml.",
)
@click.option("--resume", is_flag=True, help="Continue the choice in --out where it stopped.")
@click.option(
    "--likelihood",
    type=Listed(str),
    default=(),
    help="Likelihoods to compare, as in normal,student_t; by default those that suit the data.",
)
@click.option(
    "--latent", type=Listed(int), default=(), help="Numbers of latents to compare, as in 2,4,8."
)
@click.option("--width", type=Listed(int), default=(), help="Widths to compare, as in 100,200.")
@click.option(
    "--prior",
    type=Listed(str),
    default=(),
    help="Priors to compare, as in standard_normal,flow, the simplest first.",
)
@click.option(
    "--epochs",
    type=AtLeast(1),
    default=1000,
    show_default=True,
    help="Most epochs of one training.",
)
@functools.partial(add_settings, leave_out=_LEFT_OUT)
def choose_command(
    file: Path,
    budget: str,
    out: Path,
    resume: bool,
    likelihood: tuple[str, ...],
    latent: tuple[int, ...],
    width: tuple[int, ...],
    prior: tuple[str, ...],
    epochs: int,
    **options: Any,
) -> None:
    """Choose a model of FILE by paired held-out nats.

    Likelihood, number of latents, width and prior are varied. FILE is an array, images, counts or a
    table, as `keras-vae train --data` takes them. Models are compared on validation examples, pair
    by pair, in nats with standard errors. The search stops when no change of one setting is ahead,
    or when the budget is spent. It writes the simplest of the best models as config.toml, for
    `keras-vae train --config`. A choice that is killed continues with --resume.
    """
    as_seconds(budget)
    config = settings_of(None, {"data": str(file), **options}, resume_from=None)
    load_tensorflow()
    from rich.console import Console

    from keras_vae.choosing import choose

    console = Console()
    with console.status("Reading the data") as status:
        try:
            found = choose(
                config,
                budget=budget,
                out=out,
                likelihoods=likelihood,
                latents=latent,
                widths=width,
                priors=prior,
                epochs=epochs,
                resume=resume,
                report=functools.partial(console.print, highlight=False, markup=False),
                watch=status.update,
            )
        except KeyboardInterrupt as interruption:
            if not (out / "settings.json").is_file():
                raise
            click.echo(
                "Interrupted. Continue after the last finished training with the same command and "
                f"--resume; the trials are in {shlex.quote(str(out))}.",
                err=True,
            )
            raise click.exceptions.Exit(130) from interruption
    console.print()
    found.show(console)
