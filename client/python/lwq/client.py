"""The client for programs without asyncio: lwq.aio.Client on a thread of its own."""
from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import pathlib
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Unpack

import grpc

from lwq import aio
from lwq.errors import LwqError
from lwq.progress import Listener, shown
from lwq.spec import Options, Path
from lwq.transfer import BytesListener
from lwq.types import Artifact, Budget, Dataset, Job, JobEvent, Model, PlanJobResponse, ServerInfo, Worker

T = TypeVar("T")


class _Relay:
    """Calls of listeners, from the loop to the thread that waits for the outcome: a listener may call the client again, and its
    errors are its caller's."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()

    def of(self, listener: Callable[..., object] | None) -> Callable[..., None] | None:
        if listener is None:
            return None
        return lambda *arguments: self._calls.put(functools.partial(listener, *arguments))

    def run(self, future: concurrent.futures.Future[Any]) -> None:
        """Until the future is done."""
        future.add_done_callback(lambda _: self._calls.put(None))
        while (call := self._calls.get()) is not None:
            call()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _abandon(loop: asyncio.AbstractEventLoop, client: aio.Client) -> None:
    """Ends the thread of a client that nobody closed."""
    async def end() -> None:
        await client.close()
        loop.stop()

    if not loop.is_closed():
        ending = end()
        try:
            asyncio.run_coroutine_threadsafe(ending, loop)
        except RuntimeError:
            ending.close()


class Client:
    """A connection to one lwq service; see lwq.aio.Client for what each method does. Thread-safe. An interrupt (Ctrl-C) ends the call,
    not the job; close() ends the calls of other threads, which raise LwqError CANCELLED. Listeners run on the thread that called."""

    def __init__(self, server: str | None = None, *, retry_seconds: float = 60, credentials: grpc.ChannelCredentials | None = None,
                 tls_ca: Path | None = None, tls_cert: Path | None = None, tls_key: Path | None = None, token_file: Path | None = None):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_serve, args=(self._loop,), name="lwq-client", daemon=True)
        self._thread.start()
        self._closed = False
        self._lock = threading.Lock()  # nothing is given to the loop once _closed is set

        async def make() -> aio.Client:
            return aio.Client(server, retry_seconds=retry_seconds, credentials=credentials, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key,
                              token_file=token_file)

        try:
            self._client = self._run(make())
        except BaseException:
            self._end_thread()
            raise
        weakref.finalize(self, _abandon, self._loop, self._client)

    def _run(self, work: Coroutine[Any, Any, T], relay: _Relay | None = None) -> T:
        with self._lock:
            if self._closed:
                work.close()
                raise _closed()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            if relay is not None:
                relay.run(future)
            return future.result()
        except concurrent.futures.CancelledError:
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ended = asyncio.run_coroutine_threadsafe(self._end_calls(), self._loop)
        try:
            ended.result()
        finally:
            self._end_thread()

    async def _end_calls(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def quantize(self, model: Path, budget: str | int | Budget, *, wait: bool = True, out: Path | None = None,
                 progress: bool | Listener = False, timeout: float | None = None, job_id: str = "",
                 labels: Mapping[str, str] | None = None, priority: str = "normal", **options: Unpack[Options]) -> Job:
        relay = _Relay()
        with shown(progress) as tell:
            return self._run(self._client.quantize(model, budget, wait=wait, out=out, progress=relay.of(tell) or False, timeout=timeout,
                                                   job_id=job_id, labels=labels, priority=priority, **options), relay)

    def plan(self, model: Path, budget: str | int | Budget, **options: Unpack[Options]) -> PlanJobResponse:
        return self._run(self._client.plan(model, budget, **options))

    def add_model(self, directory: Path, *, model_id: str = "", timeout: float | None = None) -> Model:
        return self._run(self._client.add_model(directory, model_id=model_id, timeout=timeout))

    def models(self) -> Sequence[Model]:
        return self._run(self._client.models())

    def add_dataset(self, path: Path) -> Dataset:
        return self._run(self._client.add_dataset(path))

    def job(self, name: str) -> Job:
        return self._run(self._client.job(name))

    def jobs(self) -> Sequence[Job]:
        return self._run(self._client.jobs())

    def cancel(self, name: str) -> Job:
        return self._run(self._client.cancel(name))

    def retry(self, name: str) -> Job:
        return self._run(self._client.retry(name))

    def delete_job(self, name: str) -> None:
        self._run(self._client.delete_job(name))

    def delete_artifact(self, name: str) -> None:
        self._run(self._client.delete_artifact(name))

    def watch(self, name: str) -> Iterator[JobEvent]:
        events = self._client.watch(name)

        async def next_event() -> JobEvent | None:
            return await anext(events, None)

        try:
            while (event := self._run(next_event())) is not None:
                yield event
        finally:
            if threading.current_thread() is self._thread:  # collected as garbage there, which must not wait for itself
                self._loop.create_task(events.aclose())
            elif not self._closed:
                with contextlib.suppress(LwqError):  # closed meanwhile
                    self._run(events.aclose())

    def wait(self, name: str, *, progress: bool | Listener = False, timeout: float | None = None) -> Job:
        relay = _Relay()
        with shown(progress) as tell:
            return self._run(self._client.wait(name, progress=relay.of(tell) or False, timeout=timeout), relay)

    def artifact(self, name: str) -> Artifact:
        return self._run(self._client.artifact(name))

    def download(self, job: Job | Artifact | str, out: Path, *, progress: BytesListener | None = None) -> pathlib.Path:
        relay = _Relay()
        return self._run(self._client.download(job, out, progress=relay.of(progress)), relay)

    def workers(self) -> Sequence[Worker]:
        return self._run(self._client.workers())

    def server_info(self) -> ServerInfo:
        return self._run(self._client.server_info())


def _closed() -> LwqError:
    return LwqError("CANCELLED", "CANCELLED", "the client was closed")
