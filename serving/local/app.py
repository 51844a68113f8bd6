"""REST interface of TensorFlow Serving, with health, metrics and a page that describes it."""

from __future__ import annotations

import asyncio
import time

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import DeadlineError, ServingError, UnavailableError, UnknownModelError
from serving.local import openapi
from serving.local.manners import Manners
from serving.local.rpc import spec_of, status_response
from serving.local.service import Service, apart
from serving.local.settings import Settings
from serving.protocol import rest

__all__ = ["build"]

_JSON = "application/json"
_log = structlog.get_logger("serving.local")


class _Word(Convertor[str]):
    """A name of a model or label: one segment of the path, up to the colon before the verb."""

    regex = "[^/:]+"

    def convert(self, value: str) -> str:
        """Returns the value unchanged."""
        return value

    def to_string(self, value: str) -> str:
        """Returns the value unchanged."""
        return value


class _Version(Convertor[int]):
    """A number with no more digits than an int64 has."""

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        """Returns the number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """Returns its digits."""
        return str(value)


register_url_convertor("word", _Word())
register_url_convertor("version", _Version())


def build(service: Service) -> FastAPI:
    """Builds the ASGI application of a running service."""
    app = FastAPI(
        title="keras_vae local server", docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.openapi = lambda: openapi.document(service.repository)  # type: ignore[method-assign]

    async def predict(
        request: Request, name: str, version: int | None = None, label: str | None = None
    ) -> Response:
        loaded = service.repository.get(name, version, label)
        with service.admitted():
            body = await _body(request, service.settings)
            signature, layout, inputs = await apart(
                len(body), rest.read_predict, body, loaded.artifact.signatures
            )
            async with service.in_time():
                outputs = await loaded.batcher(signature)(inputs)
            size = sum(array.nbytes for array in outputs.values())
            answer = await apart(size, rest.write_outputs, signature, outputs, layout)
        return Response(answer, media_type=_JSON)

    async def status(name: str, version: int | None = None, label: str | None = None) -> Response:
        # TensorFlow Serving shows all versions, whatever the label.
        response = status_response(service.repository.status(name, version))
        return Response(rest.write_status(response), media_type=_JSON)

    async def metadata(name: str, version: int | None = None, label: str | None = None) -> Response:
        loaded = service.repository.get(name, version, label)
        body = rest.write_metadata(spec_of(loaded), loaded.artifact.signatures)
        return Response(body, media_type=_JSON)

    for path in ("", "/versions/{version:version}", "/labels/{label:word}"):
        model = f"/v1/models/{{name:word}}{path}"
        app.add_api_route(f"{model}:predict", predict, methods=["POST"])
        app.add_api_route(f"{model}/metadata", metadata, methods=["GET"])
        app.add_api_route(model, status, methods=["GET"])

    @app.get("/livez")
    async def livez() -> Response:
        return JSONResponse({"status": "live"})

    @app.get("/readyz")
    async def readyz() -> Response:
        if service.is_ready:
            return JSONResponse({"status": "ready"})
        what = "closing" if service.is_closing else "a model has no version in service"
        return JSONResponse({"status": what}, status_code=503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/docs")
    async def docs() -> Response:
        return HTMLResponse(openapi.page(service.repository))

    app.add_exception_handler(ServingError, _refuse)
    app.add_exception_handler(HTTPException, _unroutable)
    app.add_middleware(Manners, hosts=service.settings.hosts)
    app.add_middleware(_Observed, service=service)
    return app


async def _body(request: Request, settings: Settings) -> bytes:
    """Reads the body and refuses it as soon as it is known to be too large.

    Raises:
        HTTPException: 413 if it is too large, 408 if it does not arrive in time.
    """
    too_large = HTTPException(
        413,
        f"The body is larger than {settings.max_body} bytes; send fewer rows, or start the server "
        "with a larger --max-body.",
    )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > settings.max_body):
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(settings.timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size > settings.max_body:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError as error:
        raise HTTPException(
            408, f"Only {size} bytes of the body came within {settings.timeout:g} s; send it again."
        ) from error
    return b"".join(chunks)


_STATUS: tuple[tuple[type[ServingError], int], ...] = (
    (DeadlineError, 504),
    (UnavailableError, 503),
    (UnknownModelError, 404),
    (ServingError, 400),
)


async def _refuse(request: Request, error: Exception) -> Response:
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    return Response(rest.write_error(str(error)), status, media_type=_JSON)


async def _unroutable(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code in (408, 413):
        # The rest of the body is not read, so nothing can follow it on this connection.
        headers = {"connection": "close"}
        return Response(rest.write_error(error.detail), error.status_code, headers, _JSON)
    # TensorFlow Serving answers 400 to a malformed request of its interface, 404 to the rest.
    path = request.scope["path"]
    status = 400 if path.startswith("/v1/") else error.status_code
    sentence = (
        f"Malformed request: {request.method} {path[:200]}; the accepted requests are "
        "listed under /docs."
    )
    return Response(rest.write_error(sentence), status, media_type=_JSON)


class _Observed:
    """Middleware that counts, times and logs every request."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # the caller went away

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - started
            path = scope["path"]
            if path.startswith("/v1/"):
                model = path[len("/v1/models/") :].split("/")[0].split(":")[0]
                model = model if self._service.repository.serves(model) else ""
                self._service.metrics.request(model, "rest", str(status), seconds)
            level = _log.info if status < 400 else _log.warning
            level(
                "request",
                method=scope["method"],
                path=path[:200],
                status=status,
                ms=round(1e3 * seconds, 2),
            )
