"""Service: carries out a request, whichever transport it came by."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from serving.errors import DeadlineError, UnavailableError
from serving.local.metrics import Metrics
from serving.local.repository import Repository
from serving.local.settings import Settings

__all__ = ["Service", "apart"]

T = TypeVar("T")

_LARGE = 2**20  # bytes; reading or writing more would block the event loop


async def apart(size: int, work: Callable[..., T], *arguments: Any) -> T:
    """Calls `work`, in a thread if `size` bytes would block the event loop."""
    if size < _LARGE:
        return work(*arguments)
    return await asyncio.to_thread(work, *arguments)


class Service:
    """Models, limits and threads that REST and gRPC share.

    Args:
        root: directory that holds NAME/VERSION.
        settings: limits.
        config: a models.config, or None.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        settings: Settings | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.metrics = Metrics()
        self._graphs = ThreadPoolExecutor(os.cpu_count(), "graphs")
        self.repository = Repository(root, self.settings, self._graphs, config, self.metrics.batch)
        self._in_hand = 0
        self.is_closing = False

    @property
    def is_ready(self) -> bool:
        """Whether the service accepts requests."""
        return self.repository.is_ready and not self.is_closing

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Loads the models and keeps them in step with the directory until the block ends."""
        watch = None
        try:
            await self.repository.refresh()
            watch = asyncio.create_task(self.repository.watch())
            yield
        finally:
            if watch is not None:
                watch.cancel()
                await asyncio.wait([watch])
            self._graphs.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request as running, within the limit.

        Raises:
            UnavailableError: if too many requests are running.
        """
        if self._in_hand >= self.settings.max_requests:
            raise UnavailableError(
                f"{self._in_hand} requests are running; try again with growing delays."
            )
        self._in_hand += 1
        self.metrics.in_hand.set(self._in_hand)
        try:
            yield
        finally:
            self._in_hand -= 1
            self.metrics.in_hand.set(self._in_hand)

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Limits the time of a request.

        Raises:
            DeadlineError: if it takes longer.
        """
        try:
            async with asyncio.timeout(self.settings.timeout):
                yield
        except TimeoutError as error:
            raise DeadlineError(
                f"No answer within {self.settings.timeout:g} s; send fewer rows, or start the "
                "server with a larger --timeout."
            ) from error
