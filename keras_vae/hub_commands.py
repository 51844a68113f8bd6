"""Commands `keras-vae push` and `keras-vae pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from keras_vae import extras, hub
from keras_vae.hub import remote
from keras_vae.hub.push import model_file
from keras_vae.tensorflow_start import load_tensorflow

__all__ = ["pull_command", "push_command"]


def _ready(repo: str) -> None:
    """Refuses a wrong name, or a missing package, before TensorFlow is imported."""
    remote.repository(repo)
    if lack := extras.missing("hub"):
        raise click.ClickException(lack)
    load_tensorflow()


@click.command("push")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("repo", metavar="OWNER/NAME")
@click.option(
    "--artifact",
    type=click.Path(path_type=Path),
    help="Exported version of the model to push beside it, such as artifacts/quickstart/1.",
)
@click.option("--license", help="Licence of the weights, such as apache-2.0.")
@click.option("--description", default="", help="Text for the top of the model card.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--message", default="Push a model of keras_vae", help="Message of the commit.")
def push_command(model: Path, repo: str, private: bool, **options: Any) -> None:
    """Push MODEL to the Hugging Face Hub.

    MODEL is a run, or a .keras file. One commit holds the model, the run without its data, and a
    model card with the bounds that `evaluate` measured.
    """
    model_file(model)
    _ready(repo)
    pushed = hub.push_to_hub(model, repo, private=private or None, report=click.echo, **options)
    click.echo(f"Load it with: keras_vae.from_hub({pushed.repo!r}, revision={pushed.commit!r})")


@click.command("pull")
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to make.")
@click.option("--revision", help="Branch, tag or commit; by default the newest of main.")
def pull_command(repo: str, out: Path, revision: str | None) -> None:
    """Download a model from the Hugging Face Hub.

    What could run code is refused, and the files of an artifact are compared with its manifest.
    """
    _ready(repo)
    hub.pull(repo, out, revision, report=click.echo)
    click.echo(f"Wrote {out}")
