"""Commands that write what TensorFlow Serving is run with, and roll versions out."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from serving import rollout
from serving.deploy import deployment as deployments
from serving.deploy import directory as directories
from serving.deploy import server
from serving.deploy.compose import USER
from serving.errors import ServingError

__all__ = [
    "compare_command",
    "config_command",
    "label_command",
    "promote_command",
    "rollback_command",
    "tls_command",
]

DIFFERS = 3
"""Exit status of a comparison that was made and does not pass."""


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
@click.option("--to", "target", type=_PATH, required=True, help="Directory that is written.")
@click.option("--model", "names", multiple=True, help="Serve this model only; may be repeated.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    callback=_labels,
    metavar="MODEL:LABEL=VERSION",
    help="Serve this version under a label; by default the newest as stable.",
)
@click.option(
    "--follow-latest",
    is_flag=True,
    help="Serve the newest version as soon as it is published, without labels.",
)
@click.option("--image", default=deployments.IMAGE, show_default=True, help="TensorFlow Serving.")
@click.option(
    "--cpus",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Processors of one server.",
)
@click.option(
    "--memory", "memory_mib", type=click.IntRange(256), default=2048, show_default=True, help="MiB."
)
@click.option(
    "--replicas",
    default="2..6",
    show_default=True,
    callback=_replicas,
    help="Fewest and most servers in Kubernetes.",
)
@click.option(
    "--poll",
    "poll_seconds",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Seconds between two looks at models.config.",
)
@click.option("--tls", type=_PATH, help="gRPC under TLS with this file of `keras-vae serve tls`.")
@click.option("--replace", is_flag=True, help="Write an earlier deployment anew; labels stay.")
def config_command(
    artifacts: Path,
    target: Path,
    names: tuple[str, ...],
    labels: dict[str, dict[str, int]],
    replace: bool,
    **settings: Any,
) -> None:
    """Write a directory to run TensorFlow Serving from.

    It holds what Docker Compose, Kubernetes and KServe need.
    """
    target = target.absolute()
    if replace:
        chosen = {
            name: kept
            for name, kept in directories.labels_in(target).items()
            if not names or name in names
        }
        labels = {
            name: {**chosen.get(name, {}), **labels.get(name, {})} for name in chosen | labels
        }
    deployment = deployments.plan(
        artifacts, deployments.Settings(**settings), names=names, labels=labels
    )
    directories.publish(directories.render(deployment, target), target, replace=replace)
    for model in deployment.models:
        served = ", ".join(f"{label}={version}" for label, version in sorted(model.labels.items()))
        click.echo(f"{model.name}: {served or 'the newest version'}")
    click.echo(f"batch sizes: {', '.join(map(str, deployment.batch_sizes))}")
    click.secho(f"Wrote {target}", bold=True)
    click.echo(f"docker compose --project-directory {target} up --wait")
    click.echo(f"kubectl apply -k {target}")
    if replace:
        click.echo("What runs holds the old directory: add --force-recreate to the first line.")


@click.command("tls")
@click.option("--key", type=_PATH, required=True, help="Private key of the server, PEM.")
@click.option("--cert", type=_PATH, required=True, help="Its certificate and chain, PEM.")
@click.option("--client-ca", type=_PATH, help="Ask callers for a certificate signed by this, PEM.")
@click.option("--to", "target", type=_PATH, required=True, help="File that is written, mode 0400.")
def tls_command(key: Path, cert: Path, client_ca: Path | None, target: Path) -> None:
    """Write the server's key pair for TensorFlow Serving.

    The file holds the key itself.
    """
    text = server.ssl_config(
        _pem(key, "PRIVATE KEY"),
        _pem(cert, "CERTIFICATE"),
        None if client_ca is None else _pem(client_ca, "CERTIFICATE"),
    )
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    except FileExistsError as error:
        raise ServingError(f"{target} exists; a key is never overwritten.") from error
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    click.secho(f"Wrote {target}", bold=True)
    click.echo(f"It holds the private key. Give it to the server's user: chown {USER} {target}")


_SERVERS = (
    "Server that must have loaded the version, such as http://localhost:8501; repeat for each."
)
_WAIT = click.option(
    "--wait",
    type=click.FloatRange(1.0),
    default=120.0,
    show_default=True,
    help="Seconds to wait until the server has loaded a version.",
)


@click.command("label")
@click.argument("deployment", type=_PATH)
@click.argument("model", required=False)
@click.argument("change", required=False, metavar="[LABEL=VERSION]")
@click.option("--url", "urls", multiple=True, help=_SERVERS)
@_WAIT
def label_command(
    deployment: Path, model: str | None, change: str | None, urls: tuple[str, ...], wait: float
) -> None:
    """Serve a version under a label.

    LABEL= takes the label away; without a change, it says what is served.
    """
    if model is None or change is None:
        for name, found in rollout.served(deployment).items():
            if model in (None, name):
                _say(name, found)
        return
    match = re.fullmatch(r"([^=]+)=(\d*)", change)
    if match is None:
        raise ServingError(f"Expected LABEL=VERSION, or LABEL= to take it away; got {change!r}.")
    if not match[2]:
        _say(model, rollout.unlabel(deployment, model, match[1]))
        return
    load = _loader(urls, model, wait) if urls else None
    _say(model, rollout.label(deployment, model, match[1], int(match[2]), load))


@click.command("compare")
@click.argument("deployment", type=_PATH)
@click.argument("model")
@click.option("--url", default="http://localhost:8501", show_default=True, help="Server.")
@click.option("--first", default=deployments.STABLE, show_default=True, help="Label.")
@click.option("--second", default=rollout.CANARY, show_default=True, help="Label.")
@click.option(
    "--requests",
    "recorded",
    type=_PATH,
    help="Recorded requests: the JSON body of one per line. By default the warm-up requests of the "
    "first version, whose rows its own model drew and which favour it.",
)
@click.option("--elbo", default=0.5, show_default=True, help="Nats that the mean may be lower.")
@click.option("--latency", default=2.0, show_default=True, help="Times as long as an answer.")
@click.option("--outputs", type=float, help="Largest difference of an output; by default any.")
def compare_command(
    deployment: Path,
    model: str,
    url: str,
    first: str,
    second: str,
    recorded: Path | None,
    **tolerance: Any,
) -> None:
    """Compare two versions of a model that are served.

    The exit status is 3 if the second is worse.
    """
    from serving import comparison
    from serving.client import Client

    limits = comparison.Tolerance(**tolerance)
    versions = {label: rollout.of(deployment, model).version(label) for label in (first, second)}
    stable, canary = (Client(url, model, label=label) for label in versions)
    with stable, canary:
        for label, client in ((first, stable), (second, canary)):
            found = client.metadata()
            if found.version != versions[label]:
                raise ServingError(
                    f"{url} has version {found.version} of {model} as {label}, and the deployment "
                    f"version {versions[label]}: wait until the server has read its file."
                )
        if recorded is None:
            path = deployments.artifacts_of(deployment) / model
            artifact = deployments.published(path, versions[first])
            requests = comparison.warm_up_requests(artifact)
        else:
            requests = comparison.read_recorded(recorded, stable.metadata().signatures)
        result = comparison.compare(stable, canary, requests)
    checks = result.checks(limits)
    click.echo(
        f"{model}: {first} (version {versions[first]}) -> {second} (version {versions[second]}), "
        f"{result.requests} requests"
    )
    for line in result.failures[:10]:
        click.echo(f"  {second} fails: {line}")
    for check in checks:
        verdict = ("ok   ", "green") if check.passed else ("WORSE", "red")
        click.echo(
            f"  {click.style(verdict[0], fg=verdict[1])}  {check.what}: {check.found}, "
            f"allowed {check.allowed}"
        )
    if not all(check.passed for check in checks):
        click.secho(f"{second} is worse than {first}.", bold=True)
        raise click.exceptions.Exit(DIFFERS)
    click.secho(f"{second} is as good as {first}, within what is allowed.", bold=True)


@click.command("promote")
@click.argument("deployment", type=_PATH)
@click.argument("model")
@click.option("--url", "urls", multiple=True, required=True, help=_SERVERS)
@_WAIT
def promote_command(deployment: Path, model: str, urls: tuple[str, ...], wait: float) -> None:
    """Make the canary stable.

    What was stable stays loaded as previous.
    """
    _say(model, rollout.promote(deployment, model, _loader(urls, model, wait)))


@click.command("rollback")
@click.argument("deployment", type=_PATH)
@click.argument("model")
def rollback_command(deployment: Path, model: str) -> None:
    """Make the previous version stable again."""
    _say(model, rollout.rollback(deployment, model))


def _loader(urls: tuple[str, ...], model: str, wait: float) -> rollout.Load:
    from serving.client import Client

    def load(version: int) -> None:
        for url in urls:
            with Client(url, model, version=version) as client:
                client.wait_ready(wait)

    return load


def _say(model: str, served: rollout.Served) -> None:
    labels = ", ".join(f"{name}={version}" for name, version in sorted(served.labels.items()))
    versions = ", ".join(map(str, served.versions)) or "the newest version"
    click.echo(f"{model}: {labels or 'no labels'}; loaded: {versions}")
    stable = served.labels.get(deployments.STABLE)
    if stable is not None and max(served.versions) > stable:
        click.echo(
            f"Callers that name neither version nor label get version {max(served.versions)}: name "
            f"{deployments.STABLE}."
        )


def _pem(path: Path, kind: str) -> str:
    text = path.read_text(encoding="ascii", errors="replace")
    if not re.search(rf"-----BEGIN [A-Z ]*{kind}-----", text):
        raise ServingError(f"Expected a PEM file with a {kind} in {path}; it holds none.")
    return text
