"""Transports: connections that carry calls, blocking and asynchronous.

Each sends bytes and returns bytes within a given number of seconds. It raises `UnavailableError`
if there is no connection, the connection breaks or the answer is cut off, and `DeadlineError` if
the answer is late. The wire translates every other failure. The library of an interface is
imported when it is first used.
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
    """A blocking connection."""

    def send(self, call: Call, seconds: float) -> bytes:
        """Sends a call and returns the answer."""

    def close(self) -> None:
        """Closes the connection."""


class AsyncTransport(Protocol):
    """An asynchronous connection."""

    async def send(self, call: Call, seconds: float) -> bytes:
        """Sends a call and returns the answer."""

    async def close(self) -> None:
        """Closes the connection."""


def transport(address: Address, wire: Wire, certificates: Path | None) -> Transport:
    """Makes a blocking connection; with certificates, only these authorities are trusted."""
    return _interface(address).Blocking(address, wire, certificates)


def async_transport(address: Address, wire: Wire, certificates: Path | None) -> AsyncTransport:
    """Makes an asynchronous connection."""
    return _interface(address).Awaiting(address, wire, certificates)


def _interface(address: Address) -> ModuleType:
    name = "grpc" if address.interface == "grpc" else "http"
    return import_module(f"serving.client.transport_{name}")
