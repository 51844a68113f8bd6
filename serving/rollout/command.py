"""Commands that roll versions of a served model out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from serving.deploy import deployment as deployments
from serving.errors import ServingError
from serving.rollout import labels

__all__ = ["compare_command", "label_command", "promote_command", "rollback_command"]

DIFFERS = 3
"""Exit status of a comparison that ran and did not pass."""

_PATH = click.Path(path_type=Path)
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

    LABEL= removes the label; without a change, the command prints what is served.
    """
    if model is None or change is None:
        for name, found in labels.served(deployment).items():
            if model in (None, name):
                _say(name, found)
        return
    match = re.fullmatch(r"([^=]+)=(\d*)", change)
    if match is None:
        raise ServingError(f"Expected LABEL=VERSION, or LABEL= to remove it; got {change!r}.")
    if not match[2]:
        _say(model, labels.unlabel(deployment, model, match[1]))
        return
    load = _make_load(urls, model, wait) if urls else None
    _say(model, labels.label(deployment, model, match[1], int(match[2]), load))


@click.command("compare")
@click.argument("deployment", type=_PATH)
@click.argument("model")
@click.option("--url", default="http://localhost:8501", show_default=True, help="Server.")
@click.option("--first", default=deployments.STABLE, show_default=True, help="Label.")
@click.option("--second", default=labels.CANARY, show_default=True, help="Label.")
@click.option(
    "--requests",
    "recorded",
    type=_PATH,
    help="Recorded requests: one JSON body per line. By default the warm-up requests of the first "
    "version, whose rows were drawn by its own model and which favour it.",
)
@click.option(
    "--elbo", default=0.5, show_default=True, help="Nats by which the mean ELBO may be lower."
)
@click.option(
    "--latency", default=2.0, show_default=True, help="Maximum ratio of the median response times."
)
@click.option("--outputs", type=float, help="Largest difference of an output; no limit by default.")
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
    from serving.client import Client
    from serving.rollout import comparison

    limits = comparison.Tolerance(**tolerance)
    versions = {label: labels.of(deployment, model).version(label) for label in (first, second)}
    stable, canary = (Client(url, model, label=label) for label in versions)
    with stable, canary:
        for label, client in ((first, stable), (second, canary)):
            found = client.metadata()
            if found.version != versions[label]:
                raise ServingError(
                    f"{url} has version {found.version} of {model} as {label}, but the deployment "
                    f"has version {versions[label]}: wait until the server has read its file."
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
    click.secho(f"{second} is as good as {first}, within the tolerances.", bold=True)


@click.command("promote")
@click.argument("deployment", type=_PATH)
@click.argument("model")
@click.option("--url", "urls", multiple=True, required=True, help=_SERVERS)
@_WAIT
def promote_command(deployment: Path, model: str, urls: tuple[str, ...], wait: float) -> None:
    """Make the canary stable.

    The version that was stable stays loaded as previous.
    """
    _say(model, labels.promote(deployment, model, _make_load(urls, model, wait)))


@click.command("rollback")
@click.argument("deployment", type=_PATH)
@click.argument("model")
def rollback_command(deployment: Path, model: str) -> None:
    """Make the previous version stable again."""
    _say(model, labels.rollback(deployment, model))


def _make_load(urls: tuple[str, ...], model: str, wait: float) -> labels.Load:
    from serving.client import Client

    def load(version: int) -> None:
        for url in urls:
            with Client(url, model, version=version) as client:
                client.wait_ready(wait)

    return load


def _say(model: str, served: labels.Served) -> None:
    named = ", ".join(f"{name}={version}" for name, version in sorted(served.labels.items()))
    versions = ", ".join(map(str, served.versions)) or "the newest version"
    click.echo(f"{model}: {named or 'no labels'}; loaded: {versions}")
    stable = served.labels.get(deployments.STABLE)
    if stable is not None and max(served.versions) > stable:
        click.echo(
            f"Callers that name neither version nor label get version {max(served.versions)}: name "
            f"{deployments.STABLE}."
        )
