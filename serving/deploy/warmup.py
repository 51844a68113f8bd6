"""Warm-up requests of an artifact, read without TensorFlow: which batch sizes they cover."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from serving.artifact import Artifact
from serving.deploy.configuration_pb2 import PredictionLog
from serving.errors import ServingError

__all__ = ["FILE", "batch_sizes", "records"]

FILE = Path("assets.extra") / "tf_serving_warmup_requests"


def records(artifact: Artifact) -> Iterator[bytes]:
    """The records of the warm-up file: serialised `PredictionLog` messages.

    A record is its length in 8 bytes, a checksum of that in 4, the content, and a checksum of that
    in 4. The checksums are not looked at: the manifest has the SHA-256 of the whole file.

    Raises:
        ServingError: if the file is missing or ends within a record.
    """
    path = artifact.path / FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ServingError(
            f"{path} cannot be read ({error.strerror}): a server would answer its first callers "
            "slowly; publish the version again with `keras-vae export`."
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


def batch_sizes(artifact: Artifact) -> list[int]:
    """Batch sizes that the warm-up requests of every signature have, ascending.

    Raises:
        ServingError: if the file is damaged, or a signature has no request.
    """
    sizes: dict[str, set[int]] = {name: set() for name in artifact.signatures}
    for record in records(artifact):
        try:
            request = PredictionLog.FromString(record).predict_log.request
            size = next(iter(request.inputs.values())).tensor_shape.dim[0].size
            sizes[request.model_spec.signature_name].add(size)
        except (DecodeError, IndexError, KeyError, StopIteration) as error:
            raise ServingError(
                f"{artifact.path / FILE} holds a request that is none of this artifact's; publish "
                "the version again with `keras-vae export`."
            ) from error
    common = sorted(set.intersection(*sizes.values()))
    if not common:
        raise ServingError(
            f"{artifact.path / FILE} has no batch size that every signature is warmed up with; "
            "publish the version again with `keras-vae export`."
        )
    return common
