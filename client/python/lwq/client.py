"""The client for programs without asyncio: lwq.aio.Client on a thread of its own."""
from __future__ import annotations

import asyncio
import concurrent.futures
import pathlib
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Unpack

import grpc

from lwq import aio
from lwq.errors import LwqError
from lwq.progress import Listener
from lwq.spec import Options, Path
from lwq.transfer import BytesListener
from lwq.types import Artifact, Budget, Dataset, Job, JobEvent, Model, PlanJobResponse, ServerInfo, Worker

T = TypeVar("T")


class Client:
    """A connection to one lwq service; see lwq.aio.Client for what each method does. Thread-safe. An interrupt (Ctrl-C) ends the call,
    not the job; close() ends the calls of other threads, which raise LwqError CANCELLED."""

    def __init__(self, server: str | None = None, *, retry_seconds: float = 60, credentials: grpc.ChannelCredentials | None = None):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lwq-client", daemon=True)
        self._thread.start()
        self._closed = False
        self._lock = threading.Lock()  # nothing is given to the loop once _closed is set

        async def make() -> aio.Client:
            return aio.Client(server, retry_seconds=retry_seconds, credentials=credentials)

        try:
            self._client = self._run(make())
        except BaseException:
            self._end_thread()
            raise

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._closed:
                work.close()
                raise _closed()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

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
                 progress: bool | Listener = False, job_id: str = "", labels: Mapping[str, str] | None = None,
                 priority: str = "normal", **options: Unpack[Options]) -> Job:
        return self._run(self._client.quantize(model, budget, wait=wait, out=out, progress=progress, job_id=job_id, labels=labels,
                                               priority=priority, **options))

    def plan(self, model: Path, budget: str | int | Budget, **options: Unpack[Options]) -> PlanJobResponse:
        return self._run(self._client.plan(model, budget, **options))

    def add_model(self, directory: Path, *, model_id: str = "") -> Model:
        return self._run(self._client.add_model(directory, model_id=model_id))

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
            if not self._closed:
                self._run(events.aclose())  # type: ignore[attr-defined]

    def wait(self, name: str, *, progress: bool | Listener = False) -> Job:
        return self._run(self._client.wait(name, progress=progress))

    def artifact(self, name: str) -> Artifact:
        return self._run(self._client.artifact(name))

    def download(self, job: Job | Artifact | str, out: Path, *, progress: BytesListener | None = None) -> pathlib.Path:
        return self._run(self._client.download(job, out, progress=progress))

    def workers(self) -> Sequence[Worker]:
        return self._run(self._client.workers())

    def server_info(self) -> ServerInfo:
        return self._run(self._client.server_info())


def _closed() -> LwqError:
    return LwqError("CANCELLED", "CANCELLED", "the client was closed")
