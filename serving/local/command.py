"""Command `keras-vae serve local`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from serving.local.service import Service

__all__ = ["local"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


@click.command()
@click.argument("artifacts", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Also accept this name in the Host header; * for any. May be repeated.",
)
@click.option("--port", default=8501, show_default=True, help="Port of REST; 0 for a free port.")
@click.option("--grpc-port", default=8500, show_default=True, help="Port of gRPC; 0 as above.")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A models.config, as `keras-vae serve config` writes it: models, versions, labels.",
)
@click.option("--max-body", default=16.0, show_default=True, help="MiB of a request body.")
@click.option("--max-batch", default=512, show_default=True, help="Rows of a request and a batch.")
@click.option("--max-queue", default=4096, show_default=True, help="Rows that may wait.")
@click.option(
    "--max-requests", default=256, show_default=True, help="Requests in progress at once."
)
@click.option(
    "--batch-delay",
    default=0.0,
    show_default=True,
    help="Milliseconds to wait for more requests per batch.",
)
@click.option("--timeout", default=30.0, show_default=True, help="Seconds that a request may take.")
@click.option(
    "--poll", default=1.0, show_default=True, help="Seconds between checks for new versions."
)
@click.option(
    "--threads", default=os.cpu_count() or 1, show_default=True, help="Threads of ONNX Runtime."
)
@click.option(
    "--log",
    type=click.Choice(["console", "json"]),
    help="Form of the log; by default console in a terminal, otherwise JSON.",
)
@click.option(
    "--log-level",
    type=click.Choice(list(_LEVELS)),
    default="info",
    show_default=True,
    help="Lowest level to log; single requests are info.",
)
def local(
    artifacts: Path,
    host: str,
    port: int,
    grpc_port: int,
    config: Path | None,
    log: str | None,
    log_level: str,
    **limits: Any,
) -> None:
    """Serve ARTIFACTS on this machine, for development.

    ARTIFACTS holds NAME/VERSION directories. The server has the REST and gRPC interfaces of
    TensorFlow Serving and runs on ONNX Runtime; it loads new versions as they are published. In
    production, TensorFlow Serving itself serves the same directory.
    """
    from serving.local.server import serve
    from serving.local.service import Service
    from serving.local.settings import Settings

    _configure_log(log or ("console" if sys.stderr.isatty() else "json"), _LEVELS[log_level])
    limits["max_body"] = int(limits["max_body"] * 2**20)
    limits["batch_delay"] /= 1e3
    service = Service(artifacts, Settings(**limits), config)
    asyncio.run(
        serve(service, host, port, grpc_port, lambda *ports: _announce(service, host, *ports))
    )


def _announce(service: Service, host: str, port: int, grpc_port: int) -> None:
    from rich.console import Console
    from rich.table import Table

    where = f"[{host}]" if ":" in host else host
    console = Console()
    table = Table("model", "version", "state", "labels", "signatures", box=None, pad_edge=False)
    for name, versions, labels in service.repository.models():
        for number, status in versions.items():
            names = [label for label, version in labels.items() if version == number]
            loaded = status.loaded
            table.add_row(
                name,
                str(number),
                status.state,
                ", ".join(names) or "-",
                ", ".join(loaded.batchers) if loaded else status.error,
            )
    console.print(table)
    console.print(f"REST  http://{where}:{port}/v1/models/NAME:predict", highlight=False)
    console.print(f"gRPC  {where}:{grpc_port}", highlight=False)
    console.print(f"Read  http://{where}:{port}/docs  (also /metrics, /readyz)", highlight=False)
    if not _is_loopback(host):
        console.print(
            f"Anyone who can reach {host} can use these models: there is neither password nor "
            "encryption.",
            style="bold",
        )
    console.print("A development server. Press Ctrl-C to stop.", style="dim")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _configure_log(form: str, level: int) -> None:
    import structlog

    renderer = (
        structlog.dev.ConsoleRenderer()
        if form == "console"
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
