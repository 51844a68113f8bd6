"""Connections over HTTP."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import httpx

from serving.client.address import Address
from serving.client.wire import MOST_BYTES, Call, Wire
from serving.errors import DeadlineError, ReplyError, ServingError, UnavailableError

__all__ = ["Awaiting", "Blocking"]


class Blocking:
    """A `Transport`."""

    def __init__(self, address: Address, wire: Wire, certificates: Path | None) -> None:
        self._address, self._wire = address, wire
        self._client = httpx.Client(**_options(address, certificates))

    def send(self, call: Call, seconds: float) -> bytes:
        """Sends a call and returns the answer."""
        end = time.monotonic() + seconds
        body = bytearray()
        try:
            with self._client.stream(**_request(call), timeout=seconds) as response:
                for chunk in response.iter_bytes():
                    _add(body, chunk, self._address)
                    if time.monotonic() > end:
                        raise _late(self._address, seconds)
        except httpx.HTTPError as error:
            raise _error(error, self._address, seconds) from error
        return _content(response, body, self._wire)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


class Awaiting:
    """An `AsyncTransport`."""

    def __init__(self, address: Address, wire: Wire, certificates: Path | None) -> None:
        self._address, self._wire = address, wire
        self._client = httpx.AsyncClient(**_options(address, certificates))

    async def send(self, call: Call, seconds: float) -> bytes:
        """Sends a call and returns the answer."""
        body = bytearray()
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(**_request(call), timeout=None) as response,
            ):
                async for chunk in response.aiter_bytes():
                    _add(body, chunk, self._address)
        except TimeoutError as error:
            raise _late(self._address, seconds) from error
        except httpx.HTTPError as error:
            raise _error(error, self._address, seconds) from error
        return _content(response, body, self._wire)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def _options(address: Address, certificates: Path | None) -> dict[str, Any]:
    verify: ssl.SSLContext | bool = address.is_secure
    if certificates is not None:
        verify = ssl.create_default_context(cafile=certificates)
    return {
        "base_url": f"{'https' if address.is_secure else 'http'}://{address.target}",
        "verify": verify,
        "limits": httpx.Limits(max_connections=64, max_keepalive_connections=64),
        "headers": {"Accept": "application/json"},
    }


def _request(call: Call) -> dict[str, Any]:
    if call.body is None:
        return {"method": "GET", "url": call.path}
    headers = {"Content-Type": "application/json"}
    return {"method": "POST", "url": call.path, "content": call.body(), "headers": headers}


def _add(body: bytearray, chunk: bytes, address: Address) -> None:
    body += chunk
    if len(body) > MOST_BYTES:
        raise ReplyError(
            f"{address.url} sent more than {MOST_BYTES} bytes; ask for fewer rows at once."
        )


def _content(response: httpx.Response, body: bytearray, wire: Wire) -> bytes:
    if response.status_code != 200:
        raise wire.refusal(response.status_code, bytes(body))
    return bytes(body)


def _late(address: Address, seconds: float) -> DeadlineError:
    return DeadlineError(f"{address.url} did not answer within {seconds:.3g} s.")


def _error(error: httpx.HTTPError, address: Address, seconds: float) -> ServingError:
    if isinstance(error, httpx.TimeoutException):
        return _late(address, seconds)
    if isinstance(error, httpx.DecodingError):
        return ReplyError(f"The answer of {address.url} cannot be read ({error}).")
    if isinstance(error, httpx.ConnectError):
        return UnavailableError(
            f"{address.url} cannot be reached ({error}); start the server, or wait for it with "
            "wait_ready()."
        )
    reason = str(error) or type(error).__name__
    return UnavailableError(
        f"{address.url} closed the connection before the answer was complete ({reason})."
    )
