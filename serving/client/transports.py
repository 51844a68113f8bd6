"""Transports: connections that carry calls, blocking and awaiting.

Each sends bytes and gives bytes back within the seconds it is given. No connection, a broken one
and an answer that is cut off are an `UnavailableError`, lateness a `DeadlineError`, and every other
answer than success what the wire says it stands for. The library of an interface is imported when
it is used.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

from serving.client.address import Address
from serving.client.wire import Call, Wire

__all__ = ["AsyncTransport", "Transport", "async_transport", "transport"]


class Transport(Protocol):
    """A connection that blocks."""

    def send(self, call: Call, seconds: float) -> bytes:
        """The answer to a call."""

    def close(self) -> None:
        """Ends the connection."""


class AsyncTransport(Protocol):
    """A connection that is awaited."""

    async def send(self, call: Call, seconds: float) -> bytes:
        """The answer to a call."""

    async def close(self) -> None:
        """Ends the connection."""


def transport(address: Address, wire: Wire, certificates: Path | None) -> Transport:
    """A connection that blocks; with certificates, these authorities are trusted and no others."""
    return _interface(address).Blocking(address, wire, certificates)


def async_transport(address: Address, wire: Wire, certificates: Path | None) -> AsyncTransport:
    """A connection that is awaited."""
    return _interface(address).Awaiting(address, wire, certificates)


def _interface(address: Address) -> ModuleType:
    name = "grpc" if address.interface == "grpc" else "http"
    return import_module(f"serving.client.transport_{name}")
