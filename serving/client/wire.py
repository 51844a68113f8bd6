"""Wires: how requests are written and answers read, over REST and over gRPC.

A `Call` is one request for a transport to send. Only this module knows how the two interfaces
differ; `core` decides what is sent and in what order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from serving.artifact import Signature
from serving.client.address import Address
from serving.errors import (
    DeadlineError,
    FailedError,
    RefusedError,
    ReplyError,
    ServingError,
    UnavailableError,
    UnknownModelError,
)
from serving.protocol import messages, rest
from serving.protocol import tensorflow_serving_pb2 as pb
from serving.protocol.checks import Arrays

__all__ = ["MOST_BYTES", "Call", "Metadata", "VersionStatus", "Wire", "wire"]

MOST_BYTES = 2**28
"""Maximum size of an answer in bytes."""

_STATES = {number: name for name, number in pb.ModelVersionStatus.State.items()}


@dataclass(frozen=True)
class Metadata:
    """Description of a model by its server.

    Attributes:
        name: the model's name.
        version: the version that answers.
        signatures: what can be called, with names, types and shapes of inputs and outputs.
    """

    name: str
    version: int
    signatures: dict[str, Signature]


@dataclass(frozen=True)
class VersionStatus:
    """Status of one version of a model.

    Attributes:
        version: its number.
        state: "START", "LOADING", "AVAILABLE", "UNLOADING" or "END".
        message: the error, if there was one.
    """

    version: int
    state: str
    message: str


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        path: path of the REST interface, or of the gRPC method.
        body: function that returns the bytes to send; None for a GET.
        read: function that parses the bytes of an answer.
    """

    path: str
    body: Callable[[], bytes] | None
    read: Callable[[bytes], Any]


class Wire(Protocol):
    """One of the two interfaces."""

    def metadata(self) -> Call:
        """Makes a call that returns the model's `Metadata`."""

    def status(self) -> Call:
        """Makes a call that returns a `VersionStatus` for each version."""

    def predict(self, signature: Signature, inputs: Arrays) -> Call:
        """Makes a call that returns the outputs of a signature."""

    def pinned(self, version: int) -> Wire:
        """Returns the same wire for one version of the model."""

    def refusal(self, code: Any, body: bytes) -> ServingError:
        """Translates an answer other than success into an error."""


def wire(address: Address, layout: rest.Layout) -> Wire:
    """Makes the wire of an address."""
    return _GrpcWire(address) if address.interface == "grpc" else _RestWire(address, layout)


class _RestWire:
    """JSON over HTTP."""

    def __init__(self, address: Address, layout: rest.Layout) -> None:
        self._address = address
        self._layout = layout

    def metadata(self) -> Call:
        return Call(f"{self._address.path}/metadata", None, self._read_metadata)

    def status(self) -> Call:
        return Call(self._address.path, None, lambda body: _statuses(rest.read_status(body)))

    def predict(self, signature: Signature, inputs: Arrays) -> Call:
        return Call(
            f"{self._address.path}:predict",
            lambda: rest.write_predict(signature, inputs, self._layout),
            lambda body: rest.read_outputs(body, signature, self._layout),
        )

    def pinned(self, version: int) -> Wire:
        return _RestWire(self._address.pinned(version), self._layout)

    def refusal(self, code: int, body: bytes) -> ServingError:
        words = rest.read_error(body) or "no reason given"
        if code in (429, 502, 503):
            return UnavailableError(f"{self._address.url} cannot answer now ({code}): {words}")
        if code in (408, 504):
            return DeadlineError(f"{self._address.url} did not answer in time ({code}): {words}")
        if code == 404:
            return UnknownModelError(f"The server has no {self._address}: {words}")
        kind = FailedError if code >= 500 else RefusedError
        verb = "failed on" if code >= 500 else "refused"
        return kind(f"{self._address.url} {verb} the request ({code}): {words}")

    def _read_metadata(self, body: bytes) -> Metadata:
        spec, signatures = rest.read_metadata(body)
        return Metadata(spec.name, spec.version.value, signatures)


class _GrpcWire:
    """Protocol buffers over gRPC."""

    def __init__(self, address: Address) -> None:
        self._address = address

    def metadata(self) -> Call:
        method = messages.METHODS["GetModelMetadata"]
        request = method.request(model_spec=self._spec(), metadata_field=[messages.METADATA_FIELD])

        def read(body: bytes) -> Metadata:
            response = _parsed(method, body)
            spec = response.model_spec
            return Metadata(spec.name, spec.version.value, messages.read_metadata(response))

        return Call(method.path, request.SerializeToString, read)

    def status(self) -> Call:
        method = messages.METHODS["GetModelStatus"]
        request = method.request(model_spec=self._spec())
        return Call(
            method.path, request.SerializeToString, lambda body: _statuses(_parsed(method, body))
        )

    def predict(self, signature: Signature, inputs: Arrays) -> Call:
        method = messages.METHODS["Predict"]
        spec = self._spec(signature.name)
        return Call(
            method.path,
            lambda: messages.predict_request(spec, inputs).SerializeToString(),
            lambda body: messages.read_outputs(_parsed(method, body)),
        )

    def pinned(self, version: int) -> Wire:
        return _GrpcWire(self._address.pinned(version))

    def refusal(self, code: str, body: bytes) -> ServingError:
        words = body.decode(errors="replace") or "no reason given"
        if code in ("UNAVAILABLE", "CANCELLED"):
            return UnavailableError(f"{self._address.url} cannot answer now ({code}): {words}")
        if code == "DEADLINE_EXCEEDED":
            return DeadlineError(f"{self._address.url} did not answer in time ({code}): {words}")
        if code == "NOT_FOUND":
            return UnknownModelError(f"The server has no {self._address}: {words}")
        failed = code in ("UNKNOWN", "INTERNAL", "DATA_LOSS", "ABORTED")
        kind, verb = (FailedError, "failed on") if failed else (RefusedError, "refused")
        return kind(f"{self._address.url} {verb} the request ({code}): {words}")

    def _spec(self, signature: str = "") -> Any:
        address = self._address
        return messages.model_spec(address.model, address.version, address.label, signature)


def _parsed(method: messages.Method, body: bytes) -> Any:
    try:
        return messages.parse(method.response, body)
    except ServingError as error:
        raise ReplyError(f"The reply cannot be read. {error}") from error


def _statuses(response: Any) -> list[VersionStatus]:
    return [
        VersionStatus(
            entry.version, _STATES.get(entry.state, "UNKNOWN"), entry.status.error_message
        )
        for entry in response.model_version_status
    ]
