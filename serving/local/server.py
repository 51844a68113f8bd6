"""Process of the local server: sockets, signals, and a shutdown that answers every request."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.errors import ServingError
from serving.local import app, rpc
from serving.local.service import Service

__all__ = ["serve"]


class _Server(uvicorn.Server):
    """Uvicorn that closes the gRPC server at the same moment as its own sockets."""

    def __init__(self, config: uvicorn.Config, service: Service, grpc_server: Any) -> None:
        super().__init__(config)
        self._service = service
        self._grpc_server = grpc_server

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends the server on SIGTERM and SIGINT, and does not raise them again afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.is_closing = True
        grace = self._service.settings.timeout
        await asyncio.gather(super().shutdown(sockets), self._grpc_server.stop(grace))


class _Patience(H11Protocol):
    """HTTP/1.1 that closes a connection if no complete request head arrives in time.

    The timer is uvicorn's own, which otherwise starts after a response and ends with the first
    byte of the next request.
    """

    seconds = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.seconds, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        timer = self.timeout_keep_alive_task
        super().data_received(data)
        has_ended = self.timeout_keep_alive_task is None
        if timer is not None and has_ended and self.conn.their_state is h11.IDLE:
            self.timeout_keep_alive_task = self.loop.call_at(
                timer.when(), self.timeout_keep_alive_handler
            )


def listen(host: str, port: int) -> socket.socket:
    """Opens and binds a socket; port 0 picks a free port.

    Raises:
        ServingError: if the port cannot be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY; otherwise every answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ServingError(
            f"{host}:{port} cannot be opened ({reason}); choose another --port or --host."
        ) from error
    return listener


async def serve(
    service: Service,
    host: str,
    port: int,
    grpc_port: int,
    announce: Callable[[int, int], None] = lambda port, grpc_port: None,
) -> None:
    """Serves until SIGTERM or SIGINT, then answers running requests and refuses new ones.

    Args:
        service: models and limits.
        host: address to listen on.
        port: port of REST; 0 for a free one.
        grpc_port: port of gRPC; 0 for a free one.
        announce: called with both ports once every model is loaded and the server accepts requests.

    Raises:
        ServingError: if a port cannot be opened, or no model can be served.
    """
    with contextlib.closing(listen(host, port)) as listener:
        async with service.running():
            if not any(service.repository.latest()):
                raise ServingError(_reasons(service))
            grpc_server = rpc.build(service)
            address = f"[{host}]:{grpc_port}" if ":" in host else f"{host}:{grpc_port}"
            try:
                bound = grpc_server.add_insecure_port(address)
            except RuntimeError as error:
                raise ServingError(
                    f"{address} cannot be opened; choose another --grpc-port."
                ) from error
            patience = {"seconds": service.settings.timeout}
            config = uvicorn.Config(
                app.build(service),
                http=type("Patience", (_Patience,), patience),
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=int(service.settings.timeout) + 1,
                server_header=False,
            )
            await grpc_server.start()
            listener.listen(config.backlog)
            announce(listener.getsockname()[1], bound)
            await _Server(config, service, grpc_server).serve([listener])


def _reasons(service: Service) -> str:
    sentences = [
        f"{name}/{number}: {status.error}"
        for name, versions, _ in service.repository.models()
        for number, status in versions.items()
        if status.error
    ]
    sentences += [
        f"{name!a} cannot stand in a URL: rename its directory to letters, digits, '.', '_' "
        "and '-'."
        for name in service.repository.passed_over
    ]
    return f"No model can be served. {' '.join(sentences)}"
