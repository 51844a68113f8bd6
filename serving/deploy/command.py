"""Commands that write a deployment for TensorFlow Serving."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from serving.deploy import deployment as deployments
from serving.deploy import directory as directories
from serving.deploy import server
from serving.deploy.compose import USER
from serving.errors import ServingError

__all__ = ["config_command", "tls_command"]


def _labels(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for value in values:
        match = re.fullmatch(r"([^:]+):([^=]+)=(\d+)", value)
        if match is None:
            raise click.BadParameter(f"expected MODEL:LABEL=VERSION; got {value!r}.")
        deployments.check_label(match[2])
        found.setdefault(match[1], {})[match[2]] = int(match[3])
    return found


def _replicas(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)\.\.(\d+)", value)
    if match is None:
        raise click.BadParameter(f"expected FEWEST..MOST, such as 2..6; got {value!r}.")
    return int(match[1]), int(match[2])


_PATH = click.Path(path_type=Path)


@click.command("config")
@click.argument("artifacts", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Directory to write.")
@click.option("--model", "names", multiple=True, help="Serve this model only; may be repeated.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    callback=_labels,
    metavar="MODEL:LABEL=VERSION",
    help="Serve this version under a label; by default, the newest as stable.",
)
@click.option(
    "--follow-latest",
    is_flag=True,
    help="Serve the newest version as soon as it is published, without labels.",
)
@click.option(
    "--image", default=deployments.IMAGE, show_default=True, help="Image of TensorFlow Serving."
)
@click.option(
    "--cpus",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="CPUs per server.",
)
@click.option(
    "--memory",
    "memory_mib",
    type=click.IntRange(256),
    default=2048,
    show_default=True,
    help="MiB per server.",
)
@click.option(
    "--replicas",
    default="2..6",
    show_default=True,
    callback=_replicas,
    help="Minimum and maximum number of servers in Kubernetes.",
)
@click.option(
    "--poll",
    "poll_seconds",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Seconds between checks of models.config.",
)
@click.option("--tls", type=_PATH, help="gRPC under TLS with this file of `keras-vae serve tls`.")
@click.option("--overwrite", is_flag=True, help="Rewrite an existing deployment; labels stay.")
def config_command(
    artifacts: Path,
    out: Path,
    names: tuple[str, ...],
    labels: dict[str, dict[str, int]],
    overwrite: bool,
    **settings: Any,
) -> None:
    """Write a directory to run TensorFlow Serving from.

    It holds what Docker Compose, Kubernetes and KServe need.
    """
    out = out.absolute()
    if overwrite:
        chosen = {
            name: kept
            for name, kept in directories.labels_in(out).items()
            if not names or name in names
        }
        labels = {
            name: {**chosen.get(name, {}), **labels.get(name, {})} for name in chosen | labels
        }
    deployment = deployments.plan(
        artifacts, deployments.Settings(**settings), names=names, labels=labels
    )
    directories.publish(directories.render(deployment, out), out, overwrite=overwrite)
    for model in deployment.models:
        served = ", ".join(f"{label}={version}" for label, version in sorted(model.labels.items()))
        click.echo(f"{model.name}: {served or 'the newest version'}")
    click.echo(f"batch sizes: {', '.join(map(str, deployment.batch_sizes))}")
    click.secho(f"Wrote {out}", bold=True)
    click.echo(f"docker compose --project-directory {out} up --wait")
    click.echo(f"kubectl apply -k {out}")
    if overwrite:
        click.echo(
            "Running containers hold the old directory: add --force-recreate to the first command."
        )


@click.command("tls")
@click.option("--key", type=_PATH, required=True, help="Private key of the server, PEM.")
@click.option("--cert", type=_PATH, required=True, help="Its certificate and chain, PEM.")
@click.option("--client-ca", type=_PATH, help="Ask callers for a certificate signed by this, PEM.")
@click.option("--out", type=_PATH, required=True, help="File to write, mode 0400.")
def tls_command(key: Path, cert: Path, client_ca: Path | None, out: Path) -> None:
    """Write the server's key pair for TensorFlow Serving.

    The file holds the key itself.
    """
    text = server.ssl_config(
        _pem(key, "PRIVATE KEY"),
        _pem(cert, "CERTIFICATE"),
        None if client_ca is None else _pem(client_ca, "CERTIFICATE"),
    )
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    except FileExistsError as error:
        raise ServingError(
            f"{out} exists, and a key is never overwritten; name another file."
        ) from error
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    click.secho(f"Wrote {out}", bold=True)
    click.echo(f"It holds the private key. Give it to the server's user: chown {USER} {out}")


def _pem(path: Path, kind: str) -> str:
    text = path.read_text(encoding="ascii", errors="replace")
    if not re.search(rf"-----BEGIN [A-Z ]*{kind}-----", text):
        raise ServingError(f"Expected a PEM file with a {kind}; {path} holds none.")
    return text
