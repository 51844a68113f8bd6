"""Server of the explorer: a folder on the loopback interface, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.staticfiles import StaticFiles

from serving.errors import ServingError

__all__ = ["HOST", "application", "listen", "serve"]

HOST: Final = "127.0.0.1"
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the rest is in the page itself
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def application(directory: Path) -> FastAPI:
    """The files of a site, read-only, for requests that name this machine."""
    app = FastAPI(openapi_url=None)
    # A page of another origin whose name resolves to the loopback interface is not answered.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @app.middleware("http")
    async def headers(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    app.mount("/", StaticFiles(directory=directory, html=True))
    return app


def listen(port: int) -> socket.socket:
    """A socket on the loopback interface; port 0 takes any that is free.

    Raises:
        ServingError: if the port is taken.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ServingError(
            f"Port {port} cannot be had ({reason}); choose another with --port, or 0 for any that "
            "is free."
        ) from error


def serve(directory: Path, listener: socket.socket) -> None:
    """Serves a site until the process is interrupted."""
    config = uvicorn.Config(application(directory), log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])
