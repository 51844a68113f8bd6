"""Clients: a blocking and an asynchronous one, over the same core."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import tenacity
from numpy.typing import ArrayLike

from serving.artifact import Artifact
from serving.client.address import Address
from serving.client.core import Calls, Core, Pause, Steps
from serving.client.transports import async_transport, transport
from serving.client.wire import Call, Metadata, VersionStatus, wire
from serving.errors import DeadlineError, ServingError, UnavailableError
from serving.protocol.checks import Arrays
from serving.protocol.rest import Layout

__all__ = ["AsyncClient", "Client"]

T = TypeVar("T")

Data = ArrayLike | Mapping[str, Any]
"""An array, a list of texts, or a dict of arrays or a data frame by the names of the parts."""


class _Base:
    """Common base of both clients."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        layout: Layout = "columns",
        deadline: float = 60.0,
        timeout: float = 20.0,
        retries: int = 4,
        max_rows: int = 32,
        concurrency: int = 8,
        root_certificates: str | os.PathLike[str] | None = None,
        artifact: str | os.PathLike[str] | None = None,
    ) -> None:
        self._address = Address.parse(url, model, version, label)
        if layout not in ("rows", "columns"):
            raise ServingError(f"Expected the layout rows or columns; got {layout!r}.")
        for name, value, least in (
            ("deadline", deadline, 1e-3),
            ("timeout", timeout, 1e-3),
            ("retries", retries, 0),
            ("max_rows", max_rows, 1),
            ("concurrency", concurrency, 1),
        ):
            if not value >= least:
                raise ServingError(f"Expected {name} of at least {least:g}; got {value!r}.")
        certificates = None if root_certificates is None else Path(root_certificates)
        if certificates is not None and not self._address.is_secure:
            raise ServingError(f"Root certificates are for https:// and grpcs://; got {url!r}.")
        if certificates is not None and not certificates.is_file():
            raise ServingError(f"{certificates} is not a file of root certificates.")
        self._wire = wire(self._address, layout)
        published = None if artifact is None else Artifact.read(artifact)
        self._core = Core(self._address, self._wire, max_rows, published)
        self._deadline, self._timeout, self._retries = deadline, timeout, retries
        self._concurrency = concurrency
        self._connect(certificates)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._address}>"

    def texts(self, numbers: ArrayLike) -> list[str]:
        """Returns the texts of tokens, such as the `sample` or the `mean` of a model of texts.

        Args:
            numbers: numbers of tokens [n, T], or their probabilities [n, T, K], of which the
                largest counts; each text goes up to its first end.

        Raises:
            ServingError: if the client was made without the artifact, or it is of no texts.
        """
        return self._core.texts(numbers)

    def _connect(self, certificates: Path | None) -> None:
        raise NotImplementedError

    def _retries_until(self, end: float, is_retried: bool) -> dict[str, Any]:
        """Returns the retry policy for unanswered calls, as arguments of tenacity."""
        return {
            "retry": tenacity.retry_if_exception_type(UnavailableError),
            "stop": tenacity.stop_after_attempt(1 + self._retries * is_retried)
            | tenacity.stop_before_delay(end - time.monotonic()),
            "wait": tenacity.wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.1),
            "reraise": True,
        }

    def _seconds(self, end: float) -> float:
        """Returns the seconds left for an attempt.

        Raises:
            DeadlineError: if there are none left.
        """
        left = end - time.monotonic()
        if left <= 0:
            raise DeadlineError(
                f"{self._address.url} did not answer everything before the deadline; send fewer "
                "rows at once, or set a longer deadline."
            )
        return min(left, self._timeout)


class Client(_Base):
    """A client for a model served by TensorFlow Serving or by `keras-vae serve local`.

    NumPy in, NumPy out: every method returns the signature's outputs by name, with the rows of the
    input as axis 0. Signatures are read once, from the server's metadata, and every request is
    checked against them before it is sent. A client may be used from several threads.

    Every signature is a pure function, so a request that got no answer (no connection, a broken
    connection, an overloaded or slow server) is sent again after delays that double. A request that
    the server refused is not. Large inputs are sent as several requests; answers keep their order.

    Args:
        url: `http://HOST:8501` or `https://` for REST, `grpc://HOST:8500` or `grpcs://` for gRPC.
        model: name of the model.
        version: a version; by default the server's newest.
        label: a label, such as "stable", instead of a version.
        layout: form of REST requests: "columns" names each input once and is shorter, "rows" names
            it in every row.
        deadline: seconds that one method may take, including all requests and attempts.
        timeout: seconds that one attempt at a request may take.
        retries: further attempts at a request that got no answer.
        max_rows: maximum number of rows per request; 32 is the largest batch that the warm-up
            requests of an artifact cover.
        concurrency: requests of one method that are in flight at once.
        root_certificates: PEM file with the authorities to trust instead of the default ones.
        artifact: version of the artifact that is served, as in artifacts/texts/1. With it, x may be
            a list of texts, and NaN wherever the model allows it; a server's metadata say neither.

    Raises:
        ServingError: if an argument is invalid.

    Example:
        >>> from serving import Client
        >>> with Client("http://localhost:8501", "digits") as client:  # doctest: +SKIP
        ...     client.wait_ready()
        ...     images = client.sample(seed=7, n=3)["sample"]
    """

    def encode(self, x: Data, *, condition: ArrayLike | None = None) -> Arrays:
        """Returns the parameters of q(z | x), such as `loc` and `scale` [n, L], for x [n, *D].

        Args:
            x: data in the units of the training data's file. Of a model with named parts a dict of
                arrays or a data frame; a part that may be absent holds NaN, None or masked entries
                where it is, or is left out.
            condition: for a conditional model, conditions [n, *C], or one [*C] for all rows.

        Raises:
            InputError, UnavailableError, ServingError: see `serving.errors`; all methods raise
                these.
        """
        return self._run(self._core.of_data("encode", x, condition=condition))

    def decode(
        self, z: ArrayLike | Mapping[str, ArrayLike], *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Returns `mean` [n, *D] and the parameters of p(x | z) for latents z [n, L].

        Of a model with several latents z is a dict of them by name, as in {"z1": ..., "z2": ...};
        the names of `encode`, as in z_z1, do too. Where the latents are codes, z
        is the codes, whole numbers.
        """
        return self._run(self._core.decode(z, condition))

    def sample(
        self, seed: int | ArrayLike, n: int | None = None, *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Draws from p(x): returns `sample` and `mean` [n, *D], and `z` [n, L].

        Args:
            seed: a 32-bit integer gives row i the pair [seed, i], as `vae.sample(n, seed)` does; an
                int32 array [n, 2] is used as it is.
            n: number of draws if the seed is an integer; 1 by default.
            condition: as in `encode`.
        """
        return self._run(self._core.sample(seed, n, condition))

    def reconstruct(self, x: Data, *, condition: ArrayLike | None = None) -> Arrays:
        """Returns the `mean` [n, *D] of p(x | z) at the mean of q(z | x), for data x [n, *D].

        Of a model of texts it holds the probabilities of the tokens; `texts` makes texts of it.
        """
        return self._run(self._core.of_data("reconstruct", x, condition=condition))

    def score(
        self, x: Data, seed: int | ArrayLike, *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Returns `elbo`, `distortion` and `rate` [n] in nats for x [n, *D], from one draw of z.

        An artifact that was exported with calibration examples returns `p_value` [n], too: small
        for unusual x, at most a for at most a share a of normal examples.

        Args:
            x: data in the units of the training data's file.
            seed: seed of the draws, as in `sample`.
            condition: as in `encode`.
        """
        return self._run(self._core.of_data("score", x, seed, condition))

    def impute(
        self, x: Data, seed: int | ArrayLike, *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Returns what is absent from x: `value`, `mean` and one `sample` of each part, and `ess`.

        Of a model with named parts they are called value_NAME, mean_NAME and sample_NAME. What is
        present stays as given. `ess` is the effective sample size of the weighted draws [n].

        Args:
            x: data in the units of the training data's file; absent is NaN, None or masked.
            seed: seed of the draws, as in `sample`.
            condition: as in `encode`.
        """
        return self._run(self._core.of_data("impute", x, seed, condition))

    def classify(
        self, x: Data, seed: int | ArrayLike | None = None, *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Returns the probabilities of the classes of each part given all other parts.

        They are called probabilities_NAME [n, K]; `ess_NAME` [n] is their effective sample size.
        Arguments as for `impute`; a model with a classifier draws nothing and needs no seed.
        """
        return self._run(self._core.of_data("classify", x, seed, condition))

    def predict(self, signature: str, inputs: Mapping[str, ArrayLike]) -> Arrays:
        """Runs a signature: takes inputs by name and returns outputs by name."""
        return self._run(self._core.predict(signature, inputs))

    def metadata(self) -> Metadata:
        """Reads version and signatures from the server; later checks use them."""
        return self._run(self._core.metadata())

    def status(self) -> list[VersionStatus]:
        """Returns the status of each version, newest first."""
        return self._run(self._core.status())

    def wait_ready(self, timeout: float = 60.0) -> Metadata:
        """Waits until the model answers and returns its metadata.

        Raises:
            DeadlineError: if it does not answer within `timeout` seconds; quotes the last reply.
        """
        return self._run(self._core.wait_ready(timeout), timeout + 1.0)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self, certificates: Path | None) -> None:
        self._transport = transport(self._address, self._wire, certificates)

    def _run(self, steps: Steps[T], seconds: float | None = None) -> T:
        end = time.monotonic() + (seconds or self._deadline)
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._answer(step, end)
                except ServingError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as stop:
            return stop.value

    def _answer(self, step: Calls | Pause, end: float) -> list[Any]:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return []
        if len(step.calls) == 1:
            return [self._call(step.calls[0], end, step.is_retried)]
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(lambda call: self._call(call, end, step.is_retried), step.calls))

    def _call(self, call: Call, end: float, is_retried: bool) -> Any:
        return tenacity.Retrying(**self._retries_until(end, is_retried))(self._attempt, call, end)

    def _attempt(self, call: Call, end: float) -> Any:
        return call.read(self._transport.send(call, self._seconds(end)))


class AsyncClient(_Base):
    """The asyncio version of `Client`: the same arguments, and the same methods as coroutines.

    It belongs to the event loop that first uses it.

    Example:
        >>> from serving import AsyncClient
        >>> async def main():
        ...     async with AsyncClient("grpc://localhost:8500", "digits") as client:
        ...         return await client.sample(seed=7, n=3)
    """

    async def encode(self, x: Data, *, condition: ArrayLike | None = None) -> Arrays:
        """Returns the parameters of q(z | x); see `Client.encode`."""
        return await self._run(self._core.of_data("encode", x, condition=condition))

    async def decode(
        self, z: ArrayLike | Mapping[str, ArrayLike], *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Returns mean and parameters of p(x | z); see `Client.decode`."""
        return await self._run(self._core.decode(z, condition))

    async def sample(
        self, seed: int | ArrayLike, n: int | None = None, *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Draws from p(x); see `Client.sample`."""
        return await self._run(self._core.sample(seed, n, condition))

    async def reconstruct(self, x: Data, *, condition: ArrayLike | None = None) -> Arrays:
        """Returns the mean of p(x | z) at the mean of q(z | x); see `Client.reconstruct`."""
        return await self._run(self._core.of_data("reconstruct", x, condition=condition))

    async def score(
        self, x: Data, seed: int | ArrayLike, *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Returns ELBO, distortion and rate in nats; see `Client.score`."""
        return await self._run(self._core.of_data("score", x, seed, condition))

    async def impute(
        self, x: Data, seed: int | ArrayLike, *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Returns what is absent from x; see `Client.impute`."""
        return await self._run(self._core.of_data("impute", x, seed, condition))

    async def classify(
        self, x: Data, seed: int | ArrayLike | None = None, *, condition: ArrayLike | None = None
    ) -> Arrays:
        """Returns the probabilities of classes; see `Client.classify`."""
        return await self._run(self._core.of_data("classify", x, seed, condition))

    async def predict(self, signature: str, inputs: Mapping[str, ArrayLike]) -> Arrays:
        """Runs a signature: takes inputs by name and returns outputs by name."""
        return await self._run(self._core.predict(signature, inputs))

    async def metadata(self) -> Metadata:
        """Reads version and signatures from the server; see `Client.metadata`."""
        return await self._run(self._core.metadata())

    async def status(self) -> list[VersionStatus]:
        """Returns the status of each version, newest first."""
        return await self._run(self._core.status())

    async def wait_ready(self, timeout: float = 60.0) -> Metadata:
        """Waits until the model answers and returns its metadata; see `Client.wait_ready`."""
        return await self._run(self._core.wait_ready(timeout), timeout + 1.0)

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _connect(self, certificates: Path | None) -> None:
        self._transport = async_transport(self._address, self._wire, certificates)

    async def _run(self, steps: Steps[T], seconds: float | None = None) -> T:
        end = time.monotonic() + (seconds or self._deadline)
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._answer(step, end)
                except ServingError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as stop:
            return stop.value

    async def _answer(self, step: Calls | Pause, end: float) -> list[Any]:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return []
        gate = asyncio.Semaphore(self._concurrency)

        async def one(call: Call) -> Any:
            async with gate:
                return await self._call(call, end, step.is_retried)

        tasks = [asyncio.ensure_future(one(call)) for call in step.calls]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _call(self, call: Call, end: float, is_retried: bool) -> Any:
        retrying = tenacity.AsyncRetrying(**self._retries_until(end, is_retried))
        return await retrying(self._attempt, call, end)

    async def _attempt(self, call: Call, end: float) -> Any:
        return call.read(await self._transport.send(call, self._seconds(end)))
