"""Settings of the local server."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Limits of the server; each of them bounds memory or waiting time.

    Attributes:
        max_body: bytes of a request's body; larger ones get status 413.
        max_batch: rows of one request and of one batch; larger requests get status 400.
        max_queue: rows that may wait for one signature; further ones get status 503.
        max_requests: requests in progress at once; further ones get status 503.
        batch_delay: seconds that a request waits for others. At 0 it waits only while the previous
            batch runs.
        timeout: seconds that a request may take; then it gets status 504, or 408 if its body has
            not arrived. A connection with no complete request head for as long is closed.
        poll: seconds between checks of the artifacts' directory.
        threads: threads of ONNX Runtime per signature.
        hosts: names accepted in the Host header besides addresses and localhost; "*" for any.
    """

    max_body: int = 16 * 2**20
    max_batch: int = 512
    max_queue: int = 4096
    max_requests: int = 256
    batch_delay: float = 0.0
    timeout: float = 30.0
    poll: float = 1.0
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    hosts: tuple[str, ...] = ()
