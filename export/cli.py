"""Command line: `keras-vae export`, `verify` and `parity`, also as `python -m export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from export.errors import ExportError
from keras_vae import extras
from keras_vae.cli import Group
from keras_vae.tensorflow_start import load_tensorflow

__all__ = ["main"]

_RUNTIMES = "onnxruntime, reference, openvino, saved_model, node, browser, c"
_OWN_OPTIONS = ("--debug", "--help", "-h")


class _PublishByDefault(Group):
    """Command group in which `publish` is the default command."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Puts `publish` before words that are neither a command nor an option of the group."""
        own = 0
        while own < len(args) and args[own] in _OWN_OPTIONS:
            own += 1
        if own < len(args) and args[own] not in self.commands:
            args = [*args[:own], "publish", *args[own:]]
        return super().parse_args(context, args)


def _split(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(word for word in value.replace(" ", "").split(",") if word)


def _always(context: click.Context, parameter: click.Parameter, is_given: bool) -> None:
    if is_given:
        raise click.UsageError(
            "--int32-random was removed: sample.onnx and score.onnx now always compute noise in "
            "32-bit integers. Leave the option out."
        )


def _model_file(path: Path) -> Path:
    """Returns the file of a model, of which the directory of its run may be given."""
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise ExportError(
            f"{path} holds no model.keras. Give the directory of a run, or a .keras file."
            if path.is_dir()
            else f"{path} does not exist. Give the directory of a run, or a .keras file."
        )
    return file


def _ready() -> None:
    """Refuses a missing package before TensorFlow is imported."""
    if lack := extras.missing("export"):
        raise click.ClickException(lack)
    load_tensorflow()


@click.group(cls=_PublishByDefault, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Export a trained model as SavedModel and ONNX, verified before it is published.

    keras-vae export runs/quickstart --out artifacts/quickstart
    """


@main.command("publish")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Directory of the artifact's versions.",
)
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Module that registers layers or likelihoods of your own, installed or in the working "
    "directory; may be repeated.",
)
@click.option("--version", type=click.IntRange(1), help="Version; by default the next one.")
@click.option(
    "--runtimes",
    default="",
    callback=_split,
    help=f"Further runtimes to verify in, besides onnxruntime and saved_model: {_RUNTIMES}.",
)
@click.option(
    "--allow-partial", is_flag=True, help="Leave out signatures that ONNX cannot express."
)
@click.option("--int32-random", is_flag=True, hidden=True, expose_value=False, callback=_always)
@click.option(
    "--precisions",
    default="",
    callback=_split,
    help="Also write the ONNX files in float16, int8 or both.",
)
@click.option(
    "--max-nats",
    type=click.FloatRange(0.0),
    default=0.1,
    show_default=True,
    help="Maximum cost of a precision, nats per example.",
)
@click.option("--tflite", is_flag=True, help="Also write decode.tflite.")
@click.option(
    "--imputation-samples",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Weighted draws of impute and classify, where data may be absent; 0 leaves them out.",
)
@click.option(
    "--calibration",
    metavar="FILE",
    help="Normal examples that the model was not trained on, as a file like the training data, or "
    "held-out for the run's own test examples: score then returns p_value, too.",
)
def publish_command(model: Path, out: Path, modules: tuple[str, ...], **options: Any) -> None:
    """Publish a trained MODEL as SavedModel and ONNX.

    MODEL is a run, or a .keras file. All files are verified first; nothing is published that
    disagrees with the model.
    """
    file = _model_file(model)
    _ready()
    from export import loading, pipeline

    loading.import_modules(modules)
    published = pipeline.export(file, out, pipeline.Options(**options), report=click.echo)
    click.secho(f"Published {published}", bold=True)
    click.echo(f"Check it later with: keras-vae verify {published}")


@main.command("verify")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--sha256", help="SHA-256 of manifest.json, as stated by its publisher.")
def verify_command(artifact: Path, sha256: str | None) -> None:
    """Check a published version: hashes, gates, parity.

    Its cases are computed again, in the SavedModel and in ONNX Runtime.
    """
    _ready()
    from export.verify import verify

    verify(artifact, sha256=sha256, report=click.echo)
    click.secho(f"{artifact} is unchanged since it was published.", bold=True)


@main.command("parity")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--runtimes",
    default="onnxruntime",
    show_default=True,
    callback=_split,
    help=f"{_RUNTIMES}; or all.",
)
def parity_command(artifact: Path, runtimes: tuple[str, ...]) -> None:
    """Compare other runtimes with a published version.

    Their results are compared with those of its SavedModel.
    """
    _ready()
    from export.runtimes import RUNTIMES
    from export.verify import verify

    chosen = tuple(RUNTIMES) if runtimes == ("all",) else runtimes
    verify(artifact, runtimes=chosen, report=click.echo)
