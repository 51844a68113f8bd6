"""Warm-up requests of an artifact, read without TensorFlow, and the batch sizes they cover."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from serving.artifact import Artifact
from serving.deploy.configuration_pb2 import PredictionLog
from serving.errors import ServingError

__all__ = ["FILE", "batch_sizes", "records", "requests"]

FILE = Path("assets.extra") / "tf_serving_warmup_requests"


def records(artifact: Artifact) -> Iterator[bytes]:
    """Reads the records of the warm-up file: serialised `PredictionLog` messages.

    A record is its length in 8 bytes, a 4-byte checksum of that, the content, and a 4-byte checksum
    of the content. The checksums are not read: the manifest has the SHA-256 of the whole file.

    Raises:
        ServingError: if the file is missing or ends within a record.
    """
    path = artifact.path / FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ServingError(
            f"{path} cannot be read ({error.strerror}): without it a server answers its first "
            "callers slowly; publish the version again with `keras-vae export`."
        ) from error
    start = 0
    while start < len(content):
        (length,) = struct.unpack("<Q", content[start : start + 8].ljust(8, b"\0"))
        end = start + 12 + length
        if end + 4 > len(content):
            raise ServingError(
                f"{path} ends within a request, which keeps a server from starting; publish the "
                "version again with `keras-vae export`."
            )
        yield content[start + 12 : end]
        start = end + 4


def requests(artifact: Artifact) -> Iterator[Any]:
    """Reads the requests in the warm-up file: `PredictRequest` messages.

    Raises:
        ServingError: if the file is missing or damaged.
    """
    for record in records(artifact):
        try:
            yield PredictionLog.FromString(record).predict_log.request
        except DecodeError as error:
            raise _foreign(artifact) from error


def batch_sizes(artifact: Artifact) -> list[int]:
    """Returns the batch sizes that every signature has warm-up requests of, ascending.

    Raises:
        ServingError: if the file is damaged, or a signature has no request.
    """
    sizes: dict[str, set[int]] = {name: set() for name in artifact.signatures}
    for request in requests(artifact):
        shapes = [tensor.tensor_shape.dim for tensor in request.inputs.values()]
        name = request.model_spec.signature_name
        if name not in sizes or not shapes or not shapes[0] or not 0 < shapes[0][0].size < 2**20:
            raise _foreign(artifact)
        sizes[name].add(shapes[0][0].size)
    common = sorted(set.intersection(*sizes.values()))
    if not common:
        raise ServingError(
            f"{artifact.path / FILE} has no batch size that every signature is warmed up with; "
            "publish the version again with `keras-vae export`."
        )
    return common


def _foreign(artifact: Artifact) -> ServingError:
    return ServingError(
        f"{artifact.path / FILE} holds a request that does not fit this artifact; publish the "
        "version again with `keras-vae export`."
    )
