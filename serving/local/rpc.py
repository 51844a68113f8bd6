"""gRPC interface of TensorFlow Serving: Predict, GetModelMetadata and GetModelStatus."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import structlog

from serving.errors import (
    DeadlineError,
    InputError,
    ServingError,
    UnavailableError,
    UnknownModelError,
)
from serving.local.repository import Loaded, Status
from serving.local.service import Service, apart
from serving.protocol import messages
from serving.protocol import tensorflow_serving_pb2 as pb

__all__ = ["build", "spec_of", "status_response"]

_log = structlog.get_logger("serving.local")
_CODES: tuple[tuple[type[ServingError], grpc.StatusCode], ...] = (
    (DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (UnknownModelError, grpc.StatusCode.NOT_FOUND),
    (ServingError, grpc.StatusCode.INVALID_ARGUMENT),
)


def build(service: Service, options: list[tuple[str, Any]] | None = None) -> grpc.aio.Server:
    """Builds the gRPC server of a running service; it has no port yet."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", service.settings.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            *(options or []),
        ]
    )

    async def predict(request: Any) -> Any:
        loaded = service.repository.get(*_named(request.model_spec))
        signature, inputs = await apart(
            request.ByteSize(), messages.read_predict, request, loaded.artifact.signatures
        )
        outputs = await loaded.batcher(signature)(inputs)
        spec = spec_of(loaded)
        spec.signature_name = request.model_spec.signature_name or messages.DEFAULT
        return messages.write_outputs(spec, outputs, request.output_filter)

    async def metadata(request: Any) -> Any:
        if list(request.metadata_field) != [messages.METADATA_FIELD]:
            raise InputError(
                f"Expected the metadata field {messages.METADATA_FIELD}; got "
                f"{', '.join(request.metadata_field)[:200] or 'none'}."
            )
        loaded = service.repository.get(*_named(request.model_spec))
        return messages.metadata(spec_of(loaded), loaded.artifact.signatures)

    async def status(request: Any) -> Any:
        name, version, _ = _named(request.model_spec)
        return status_response(service.repository.status(name, version))

    for name, answer in (
        ("Predict", predict),
        ("GetModelMetadata", metadata),
        ("GetModelStatus", status),
    ):
        method = messages.METHODS[name]
        _, interface, verb = method.path.split("/")
        handler = grpc.unary_unary_rpc_method_handler(_handler(service, method, answer))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(interface, {verb: handler}),)
        )
    return server


def spec_of(loaded: Loaded) -> Any:
    """Makes the ModelSpec of a version."""
    return messages.model_spec(loaded.name, loaded.artifact.version)


def status_response(versions: Mapping[int, Status]) -> Any:
    """Makes a GetModelStatusResponse from the status of versions."""
    return pb.GetModelStatusResponse(
        model_version_status=[
            pb.ModelVersionStatus(
                version=number,
                state=status.state,
                status=pb.StatusProto(
                    error_code=pb.INTERNAL if status.error else pb.OK, error_message=status.error
                ),
            )
            for number, status in versions.items()
        ]
    )


def _named(spec: Any) -> tuple[str, int | None, str | None]:
    kind = spec.WhichOneof("version_choice")
    return (
        spec.name,
        spec.version.value if kind == "version" else None,
        spec.version_label if kind == "version_label" else None,
    )


def _handler(
    service: Service, method: messages.Method, answer: Callable[[Any], Awaitable[Any]]
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """Makes a handler from bytes to bytes that also counts, times and logs the request."""

    async def handle(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
        started = time.perf_counter()
        model, code, sentence, reply = "", grpc.StatusCode.CANCELLED, "", b""
        try:
            request = messages.parse(method.request, body)
            name = request.model_spec.name
            model = name if service.repository.serves(name) else ""
            with service.admitted():
                async with service.in_time():
                    reply = (await answer(request)).SerializeToString()
            code = grpc.StatusCode.OK
        except ServingError as error:
            code = next(code for kind, code in _CODES if isinstance(error, kind))
            sentence = str(error)[:2000]
        finally:
            seconds = time.perf_counter() - started
            service.metrics.request(model, "grpc", code.name, seconds)
            log = _log.info if code is grpc.StatusCode.OK else _log.warning
            log("request", method=method.path, status=code.name, ms=round(1e3 * seconds, 2))
        if code is not grpc.StatusCode.OK:
            await context.abort(code, sentence)
        return reply

    return handle
