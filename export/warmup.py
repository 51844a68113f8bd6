"""Warm-up requests: calls that TensorFlow Serving makes before it accepts others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog, PredictLog

from export.cases import Case
from export.errors import ExportError, sentence

__all__ = ["FILE", "SIZES", "read", "replay", "write"]

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
SIZES = (1, 2, 4, 8, 16, 32)
"""Batch sizes of the requests, the same as in the batching configuration of `serving`."""

BYTES = 2**20
"""Maximum bytes of a signature's requests; the largest batches of large rows are left out."""

_MOST = 1000


def write(directory: Path, name: str, cases: Sequence[Case]) -> None:
    """Writes one request per signature and batch size, with rows of the largest random case.

    Larger sizes are left out if a signature's requests would exceed `BYTES`; one row is always
    kept.
    """
    path = directory / FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for case in _largest(cases):
            for size in _sizes(case):
                request = PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = case.signature
                for key, value in case.inputs.items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(value[:size]))
                log = PredictionLog(predict_log=PredictLog(request=request))
                writer.write(log.SerializeToString())


def read(directory: Path) -> Iterator[Case]:
    """Reads the requests of an artifact as cases.

    Raises:
        ExportError: if the file is damaged.
    """
    try:
        records = [r.numpy() for r in tf.data.TFRecordDataset(str(directory / FILE))]
    except tf.errors.OpError as error:
        raise ExportError(f"{FILE} is damaged: {error.message}") from error
    if not 0 < len(records) <= _MOST:
        raise ExportError(f"{FILE} holds {len(records)} requests; a server takes 1 to {_MOST}.")
    for number, record in enumerate(records):
        try:
            request = PredictionLog.FromString(record).predict_log.request
            inputs = {
                key: np.array(tf.make_ndarray(value)) for key, value in request.inputs.items()
            }
        except Exception as error:
            raise ExportError(f"{FILE}: request {number} is damaged: {sentence(error)}") from error
        yield Case(request.model_spec.signature_name, inputs, (), "warm-up")


def replay(directory: Path) -> int:
    """Calls the loaded signatures with every request; a failure would keep a server from starting.

    Returns:
        The number of requests.

    Raises:
        ExportError: naming the signature that refuses its request.
    """
    signatures = tf.saved_model.load(str(directory)).signatures
    count = 0
    for case in read(directory):
        inputs = {name: tf.constant(value) for name, value in case.inputs.items()}
        try:
            signatures[case.signature](**inputs)
        except (KeyError, TypeError, ValueError, tf.errors.OpError) as error:
            raise ExportError(
                f"{FILE}: the signature {case.signature!r} refuses its request, which would keep a "
                f"server from starting: {sentence(error)}"
            ) from error
        count += 1
    return count


def _sizes(case: Case) -> list[int]:
    """Returns the batch sizes of the requests of a signature."""
    row = sum(value[:1].nbytes for value in case.inputs.values())
    totals = itertools.accumulate(SIZES)
    fits = [size for size, rows in zip(SIZES, totals, strict=True) if rows * row <= BYTES]
    return fits or list(SIZES[:1])


def _largest(cases: Sequence[Case]) -> list[Case]:
    best: dict[str, Case] = {}
    for case in cases:
        size = len(next(iter(case.inputs.values())))
        known = best.get(case.signature)
        if known is None or size > len(next(iter(known.inputs.values()))):
            best[case.signature] = case
    return list(best.values())
