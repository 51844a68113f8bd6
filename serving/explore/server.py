"""Server of the explorer: serves one folder on the loopback interface."""

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
    """Makes the read-only application of a site; it answers requests that name this machine."""
    app = FastAPI(openapi_url=None)
    # A page of another origin whose name resolves to the loopback interface gets no answer.
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
    """Opens a socket on the loopback interface; port 0 picks a free port.

    Raises:
        ServingError: if the port is taken.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ServingError(
            f"Port {port} cannot be opened ({reason}); choose another with --port, or 0 for a free "
            "port."
        ) from error


def serve(directory: Path, listener: socket.socket) -> None:
    """Serves a site until the process is interrupted."""
    config = uvicorn.Config(application(directory), log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])
