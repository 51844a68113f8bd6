"""Micro-batching: requests that wait for the same signature run as one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from keras_vae.spelling import counted
from serving.errors import InputError, ServingError, UnavailableError
from serving.local.settings import Settings

__all__ = ["Batcher"]

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Waiting:
    inputs: Arrays
    rows: int
    answer: asyncio.Future[Arrays]


class Batcher:
    """The queue before one signature of one version.

    One batch runs at a time; requests that arrive meanwhile form the next one. Rows of a request
    stay together and in order, and each request gets its own rows back.

    Args:
        run: function from inputs [B, ...] to outputs [B, ...]; raises ServingError.
        settings: limits.
        executor: where `run` is called, off the event loop.
        observe: called with the number of rows of each batch.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        settings: Settings,
        executor: Executor,
        observe: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._run = run
        self._settings = settings
        self._executor = executor
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._is_full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, inputs: Arrays) -> Arrays:
        """Runs inputs [B, ...], which all have the same B, and returns outputs [B, ...].

        Raises:
            InputError: if there are too many rows.
            UnavailableError: if too many rows are waiting.
            ServingError: if the graph refuses the inputs.
        """
        rows = len(next(iter(inputs.values())))
        if rows > self._settings.max_batch:
            raise InputError(
                f"The request has {counted(rows, 'row')}, expected at most "
                f"{self._settings.max_batch}; split it, or start the server with a larger "
                "--max-batch.",
            )
        if self._queued + rows > self._settings.max_queue:
            raise UnavailableError(
                f"{counted(self._queued, 'row')} already in the queue; try again with growing "
                "delays."
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(inputs, rows, loop.create_future())
        self._queue.append(waiting)
        self._queued += rows
        if self._queued >= self._settings.max_batch:
            self._is_full.set()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await waiting.answer

    async def _work(self) -> None:
        try:
            while self._queue:
                if self._settings.batch_delay > 0:
                    await self._wait_for_company()
                batch = self._take()
                if batch:
                    await self._answer(batch)
        finally:
            self._worker = None

    async def _wait_for_company(self) -> None:
        self._is_full.clear()
        if self._queued < self._settings.max_batch:
            try:
                async with asyncio.timeout(self._settings.batch_delay):
                    await self._is_full.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting]:
        """Takes from the queue as many requests as fit into a batch; skips those cancelled."""
        batch: list[_Waiting] = []
        rows = 0
        while self._queue and rows + self._queue[0].rows <= self._settings.max_batch:
            waiting = self._queue.popleft()
            self._queued -= waiting.rows
            if not waiting.answer.done():
                batch.append(waiting)
                rows += waiting.rows
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            outputs = await loop.run_in_executor(self._executor, self._together, batch)
        except ServingError as error:
            if len(batch) > 1:  # one bad request must not fail the others
                for waiting in batch:
                    await self._answer([waiting])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        except Exception as error:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        self._observe(sum(waiting.rows for waiting in batch))
        for waiting, answer in zip(batch, outputs, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(answer)

    def _together(self, batch: list[_Waiting]) -> list[Arrays]:
        if len(batch) == 1:
            return [self._run(batch[0].inputs)]
        inputs = {
            name: np.concatenate([waiting.inputs[name] for waiting in batch])
            for name in batch[0].inputs
        }
        outputs = self._run(inputs)
        stops = np.cumsum([waiting.rows for waiting in batch])
        return [
            {name: value[stop - waiting.rows : stop] for name, value in outputs.items()}
            for waiting, stop in zip(batch, stops, strict=True)
        ]
