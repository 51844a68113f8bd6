"""Settings of the local server."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Limits of the server; every one is there to keep memory and waiting bounded.

    Attributes:
        max_body: bytes of a request's body; more is 413.
        max_batch: rows of one request and of one batch; more in one request is 400.
        max_queue: rows that may wait for one signature; more is 503.
        max_requests: requests in hand at once; more is 503.
        batch_delay: seconds that a request waits for company. At 0 it waits only while the batch
            before it runs.
        timeout: seconds that a request may take; then 504, or 408 if its body has not come. A
            connection on which no whole request head comes for as long is closed.
        poll: seconds between two looks at the directory of the artifacts.
        threads: threads of ONNX Runtime per signature.
        hosts: names in the Host header that are answered beside addresses and localhost; "*" for
            any.
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
