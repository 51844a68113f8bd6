"""Core: what a client sends and in what order, independent of any connection.

Every operation is a generator. It yields `Calls` or a `Pause`, receives the answers in order (or
has the error thrown into it), and returns its result. The logic is therefore written once, and a
driver is a loop: `serving.client.clients` has a blocking one and an asynchronous one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from keras_vae import integrity
from serving.artifact import Artifact, Signature
from serving.client.address import Address
from serving.client.parts import data_inputs, latent_inputs
from serving.client.wire import Call, Metadata, VersionStatus, Wire
from serving.errors import (
    DeadlineError,
    InputError,
    RefusedError,
    ServingError,
    ShapeError,
    UnavailableError,
    UnknownModelError,
    ValueRangeError,
)
from serving.protocol.checks import DEFAULT, Arrays, check_inputs, check_outputs, find_signature
from serving.protocol.texts import texts_of

__all__ = ["Calls", "Core", "Pause", "Steps"]

T = TypeVar("T")

_MOST_NUMBERS = 2**19  # per request and answer: about 10 MB of JSON
_MANY_NUMBERS = 2**20  # per method call: seconds as JSON, a tenth of a second by gRPC
_log = logging.getLogger("serving.client")


@dataclass(frozen=True)
class Calls:
    """Independent calls, which may run at the same time.

    Attributes:
        calls: what to send.
        is_retried: whether a call is sent again if no server answered.
    """

    calls: list[Call]
    is_retried: bool = True


@dataclass(frozen=True)
class Pause:
    """A time in which nothing is sent.

    Attributes:
        seconds: how long to wait.
    """

    seconds: float


Steps = Generator[Calls | Pause, Any, T]


class Core:
    """The operations of a client.

    Args:
        address: server and model.
        wire: interface of the server.
        max_rows: maximum number of rows per request.
        artifact: the artifact that the server has, which says what of x may be absent and how texts
            become numbers; None leaves this out.
    """

    def __init__(
        self, address: Address, wire: Wire, max_rows: int, artifact: Artifact | None = None
    ) -> None:
        if not _is_integer(max_rows) or max_rows < 1:
            raise ServingError(f"Expected max_rows of at least 1; got {max_rows!r}.")
        self._address = address
        self._wire = wire
        self._max_rows = max_rows
        self._artifact = artifact
        self._signatures: dict[str, Signature] | None = None
        self._has_advised = False

    def metadata(self) -> Steps[Metadata]:
        """Reads the metadata of the model; later checks use its signatures."""
        try:
            [metadata] = yield Calls([self._wire.metadata()])
        except RefusedError as error:
            raise self._unknown(error) from error
        if self._artifact is not None:
            metadata = replace(
                metadata, signatures=_known(metadata.signatures, self._artifact.signatures)
            )
        self._signatures = metadata.signatures
        return metadata

    def texts(self, numbers: ArrayLike) -> list[str]:
        """Returns the texts of numbers of tokens [n, T] or of probabilities [n, T, K]."""
        parts = (
            []
            if self._artifact is None
            else integrity.observations(self._artifact.manifest).values()
        )
        tokens = next((part.tokens for part in parts if part.tokens is not None), None)
        if tokens is None:
            raise ServingError(
                "Only the artifact of a model of texts knows its tokens: make the client with "
                "artifact=PATH."
            )
        return texts_of(tokens, numbers)

    def status(self) -> Steps[list[VersionStatus]]:
        """Reads the status of the versions, newest first."""
        return (yield from self._status(is_retried=True))

    def wait_ready(self, timeout: float) -> Steps[Metadata]:
        """Waits until a version answers and returns the metadata of the model."""
        end, pause = time.monotonic() + timeout, 0.05
        while True:
            try:
                states = yield from self._status(is_retried=False)
                if any(status.state == "AVAILABLE" for status in states):
                    return (yield from self.metadata())
                last = "; ".join(
                    f"version {status.version} is {status.state} {status.message}".strip()
                    for status in states
                )
            except (UnavailableError, UnknownModelError) as error:
                last = str(error)
            if time.monotonic() + pause > end:
                raise DeadlineError(
                    f"{self._address} was not ready within {timeout:g} s; last reply: {last}"
                )
            yield Pause(pause)
            pause = min(2 * pause, 1.0)

    def predict(self, name: str, inputs: Mapping[str, ArrayLike | None]) -> Steps[Arrays]:
        """Runs a signature and returns its outputs; inputs that are None are left out."""
        if self._signatures is None:
            yield from self.metadata()
        signature = find_signature(self._signatures or {}, name)
        arrays = check_inputs(signature, _with_condition(signature, inputs))
        return (yield from self._answered(signature, arrays))

    def decode(self, z: Any, condition: ArrayLike | None = None) -> Steps[Arrays]:
        """Decodes latents: an array of z or codes, or a dict of several latents."""
        if self._signatures is None:
            yield from self.metadata()
        takes = find_signature(self._signatures or {}, "decode").inputs
        latents = latent_inputs([name for name in takes if name != "condition"], z)
        return (yield from self.predict("decode", {**latents, "condition": condition}))

    def of_data(
        self, name: str, x: Any, seed: Any = None, condition: ArrayLike | None = None
    ) -> Steps[Arrays]:
        """Runs a signature on data: an array, or a dict or data frame of named parts.

        Args:
            name: name of the signature.
            x: the data.
            seed: integer or pairs; a signature that draws nothing leaves it out.
            condition: conditions of a conditional model.
        """
        if self._signatures is None:
            yield from self.metadata()
        signature = find_signature(self._signatures or {}, name)
        inputs = data_inputs(signature, x)
        if seed is not None and "seed" in signature.inputs:
            first = next(iter(inputs.values()))
            inputs["seed"] = _pairs(seed, max(1, next(iter(_shape(first)), 1)))
        return (yield from self.predict(name, {**inputs, "condition": condition}))

    def _answered(self, signature: Signature, arrays: Arrays) -> Steps[Arrays]:
        """Sends checked inputs, in several requests if they are many."""
        rows = len(next(iter(arrays.values())))
        tensors = [*signature.inputs.values(), *signature.outputs.values()]
        numbers = sum(math.prod(tensor.shape) for tensor in tensors)
        self._advise(rows * numbers)
        size = min(self._max_rows, max(1, _MOST_NUMBERS // numbers))
        if rows <= size:
            [answer] = yield Calls([_predict(self._wire, signature, arrays)])
            return answer
        parts = [
            {key: array[start : start + size] for key, array in arrays.items()}
            for start in range(0, rows, size)
        ]
        try:
            answers = yield from self._parts(signature, parts)
        except UnknownModelError:
            answers = yield from self._parts(signature, parts)
        return {
            key: np.concatenate([answer[key] for answer in answers]) for key in signature.outputs
        }

    def _advise(self, numbers: int) -> None:
        """Logs once that gRPC is the better interface for so many numbers."""
        if self._address.interface == "rest" and numbers > _MANY_NUMBERS and not self._has_advised:
            self._has_advised = True
            _log.warning(
                "%d numbers are sent through %s as JSON; gRPC (grpc://%s:8500) would take a small "
                "fraction of the time.",
                numbers,
                self._address.url,
                self._address.host,
            )

    def _parts(self, signature: Signature, parts: list[Arrays]) -> Steps[list[Arrays]]:
        """Answers the requests that one input was split into, all from the same version.

        Raises:
            UnknownModelError: if that version is replaced meanwhile.
        """
        metadata = yield from self.metadata()
        wire = self._wire.pinned(metadata.version)
        return (yield Calls([_predict(wire, signature, part) for part in parts]))

    def sample(self, seed: Any, n: int | None, condition: ArrayLike | None) -> Steps[Arrays]:
        """Draws from p(x)."""
        if n is not None and not _is_integer(seed):
            raise InputError(
                "Give n only with one integer as seed; an array of pairs sets the number."
            )
        seeds = _pairs(seed, 1 if n is None else n)
        return (yield from self.predict("sample", {"seed": seeds, "condition": condition}))

    def _status(self, is_retried: bool) -> Steps[list[VersionStatus]]:
        try:
            [states] = yield Calls([self._wire.status()], is_retried)
        except RefusedError as error:
            raise self._unknown(error) from error
        return sorted(states, key=lambda status: -status.version)

    def _unknown(self, error: RefusedError) -> ServingError:
        """Returns the error of a refusal, which for an unknown label is a bad request."""
        return error if self._address.label is None else UnknownModelError(str(error))


def _known(
    signatures: Mapping[str, Signature], published: Mapping[str, Signature]
) -> dict[str, Signature]:
    """Returns the signatures of a server with what its artifact says of their inputs.

    Raises:
        ServingError: if they are not those of the artifact.
    """
    found = {}
    for name, signature in signatures.items():
        own = published.get("decode" if name == DEFAULT else name)
        same = own is not None and all(
            own.inputs.get(key, tensor).shape == tensor.shape
            for key, tensor in signature.inputs.items()
        )
        if own is None or not same:
            raise ServingError(
                f"The server's signature {name} is not that of the artifact. Name the artifact "
                "that this server has."
            )
        inputs = {key: own.inputs.get(key, tensor) for key, tensor in signature.inputs.items()}
        found[name] = replace(signature, inputs=inputs)
    return found


def _predict(wire: Wire, signature: Signature, inputs: Arrays) -> Call:
    """Makes a call for outputs, which are checked when they arrive."""
    call = wire.predict(signature, inputs)
    rows = len(next(iter(inputs.values())))
    return Call(call.path, call.body, lambda body: check_outputs(signature, call.read(body), rows))


def _with_condition(
    signature: Signature, inputs: Mapping[str, ArrayLike | None]
) -> dict[str, ArrayLike]:
    """Leaves out absent inputs and repeats a single condition for every row."""
    given = {name: value for name, value in inputs.items() if value is not None}
    row = signature.inputs.get("condition")
    if row is not None and "condition" in given and _shape(given["condition"]) == row.shape:
        rows = [_shape(value)[:1] for name, value in given.items() if name != "condition"]
        shape = (*next(iter(rows), ()), *row.shape)
        given["condition"] = np.broadcast_to(np.asarray(given["condition"]), shape)
    return given


def _pairs(seed: Any, n: int) -> ArrayLike:
    """Turns an integer into the seed pairs [seed, i] of n rows; returns anything else unchanged.

    Raises:
        ValueRangeError: if the integer does not fit into 32 bits.
        ShapeError: if n is less than 1.
    """
    if not _is_integer(seed):
        return seed
    if not -(2**31) <= seed < 2**31:
        raise ValueRangeError(f"Expected a seed from -2^31 to 2^31 - 1; got {seed}.")
    if not _is_integer(n) or n < 1:
        raise ShapeError(f"Expected n of at least 1; got {n!r}.")
    return np.stack([np.full(n, seed, np.int32), np.arange(n, dtype=np.int32)], axis=1)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _shape(value: ArrayLike) -> tuple[int, ...]:
    """Returns the shape of an array, or () if its rows differ, which `check_inputs` refuses."""
    try:
        return np.shape(value)
    except ValueError:
        return ()
