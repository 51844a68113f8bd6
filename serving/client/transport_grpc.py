"""Connections over gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from serving.client.address import Address
from serving.client.wire import MOST_BYTES, Call, Wire
from serving.errors import ServingError
from serving.protocol.messages import METHODS

__all__ = ["Awaiting", "Blocking"]

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MOST_BYTES),  # 4 MB by default
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Blocking:
    """A `Transport`."""

    def __init__(self, address: Address, wire: Wire, certificates: Path | None) -> None:
        self._wire = wire
        self._channel = _channel(grpc, address, certificates)
        self._methods = _methods(self._channel)

    def send(self, call: Call, seconds: float) -> bytes:
        """Sends a call and returns the answer."""
        try:
            return self._methods[call.path](_body(call), timeout=seconds)
        except grpc.RpcError as error:
            raise _refusal(self._wire, error) from error

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()


class Awaiting:
    """An `AsyncTransport`. The channel belongs to the event loop that sends the first call."""

    def __init__(self, address: Address, wire: Wire, certificates: Path | None) -> None:
        self._address, self._wire, self._certificates = address, wire, certificates
        self._channel: Any = None
        self._methods: dict[str, Any] = {}

    async def send(self, call: Call, seconds: float) -> bytes:
        """Sends a call and returns the answer."""
        if self._channel is None:
            self._channel = _channel(grpc.aio, self._address, self._certificates)
            self._methods = _methods(self._channel)
        try:
            return await self._methods[call.path](_body(call), timeout=seconds)
        except grpc.RpcError as error:
            raise _refusal(self._wire, error) from error

    async def close(self) -> None:
        """Closes the connection."""
        if self._channel is not None:
            await self._channel.close()


def _channel(module: Any, address: Address, certificates: Path | None) -> Any:
    if not address.is_secure:
        return module.insecure_channel(address.target, _OPTIONS)
    roots = None if certificates is None else certificates.read_bytes()
    return module.secure_channel(address.target, grpc.ssl_channel_credentials(roots), _OPTIONS)


def _methods(channel: Any) -> dict[str, Any]:
    """Returns functions from bytes to bytes, by path."""
    return {method.path: channel.unary_unary(method.path) for method in METHODS.values()}


def _body(call: Call) -> bytes:
    return b"" if call.body is None else call.body()


def _refusal(wire: Wire, error: Any) -> ServingError:
    return wire.refusal(error.code().name, (error.details() or "").encode())
