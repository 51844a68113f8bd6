"""Path rules of TensorFlow Serving's REST interface, and protection from foreign web pages."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.protocol import rest

__all__ = ["Manners", "is_known_host"]

_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/(?P<kind>versions|labels)/(?P<which>[^/:]+))?(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)


class Manners:
    """Middleware that reads paths as TensorFlow Serving does and checks the Host header.

    The fixed words of a path may be in upper or lower case, and a query is malformed. A web page of
    another origin whose name resolves to this machine is recognised by its Host header.

    Args:
        app: the application that answers.
        hosts: names of this machine besides addresses and localhost; "*" for any.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request or passes it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        if not is_known_host(host.decode("latin-1"), self._hosts):
            await _refuse(
                f"This server does not accept the Host {host.decode('latin-1')[:100]!a}; call it "
                "by its address, or start it with --allow-host NAME."
            )(scope, receive, send)
            return
        match = _PATH.fullmatch(scope["path"])
        if match is not None:
            if scope["query_string"]:
                await _refuse("Malformed request: expected a path without a query.")(
                    scope, receive, send
                )
                return
            version = f"/{match['kind'].lower()}/{match['which']}" if match["kind"] else ""
            path = f"/v1/models/{match['name']}{version}{match['rest']}"
            scope = {**scope, "path": path}
        await self._app(scope, receive, send)


def is_known_host(header: str, names: frozenset[str] = frozenset()) -> bool:
    """Tells whether a Host header names this machine: by address, as localhost or by another name.

    An address always is what it says; a name may have been made to resolve to this machine. A
    client that sends no Host header is not a browser.
    """
    host = re.sub(r":[0-9]*$", "", header.strip()).lower().rstrip(".")
    if not host or host == "localhost" or "*" in names or host in names:
        return True
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _refuse(sentence: str) -> Response:
    return Response(rest.write_error(sentence), 400, media_type="application/json")
