"""The client for asyncio. lwq.Client has the same methods for everybody else."""
from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pathlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar, Unpack

import grpc
import grpc.aio

from lwq import progress as progress_
from lwq import output, report, transfer
from lwq._proto.v1 import (admin_service_pb2, admin_service_pb2_grpc, artifact_service_pb2, artifact_service_pb2_grpc,
                           job_service_pb2, job_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc)
from lwq.errors import JobCancelled, JobFailed, ModelRejected, NotFound, Timeout, Unavailable, from_rpc, invalid
from lwq.handshake import TlsFiles
from lwq.spec import Options, Path, check_files, given, make_spec, model_directory
from lwq.transport import Patience, Server, call, credentials_of, make_channel, tls_files, with_token
from lwq.types import Artifact, Budget, Dataset, Job, JobEvent, Model, PlanJobResponse, Progress, QuantizeSpec, ServerInfo, Worker

_log = logging.getLogger("lwq")
T = TypeVar("T")
IDLE_SECONDS = 45.0  # the server says something at least every 15 s; a stream that misses three times is dead
_ENDED = (Job.SUCCEEDED, Job.FAILED, Job.CANCELLED)
_PRIORITIES = {"low": Job.LOW, "normal": Job.NORMAL, "high": Job.HIGH}


@contextlib.asynccontextmanager
async def _at_most(seconds: float | None, what: Callable[[], str]) -> AsyncIterator[None]:
    """Ends the block with Timeout after so long."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise Timeout(f"{what()} has not ended after {seconds:g} s; it goes on") from None


def _new_id() -> str:
    """Of a request: the server does what it asks once, however often it is sent."""
    return str(uuid.uuid4())


def _named(folder: str, name: str) -> str:
    return name if name.startswith(f"{folder}/") else f"{folder}/{name}"


class Client:
    """A connection to one lwq service.

    server: host:port, unix:/path, or several with commas between, of which the leader is found. None: $LWQ_SERVER.
    retry_seconds: how long a server that is away is waited for. tls_ca, tls_cert, tls_key: PEM files of the server's authority, and
    of the caller's own certificate and key; without any of them $LWQ_TLS_CA, $LWQ_TLS_CERT, $LWQ_TLS_KEY, as for lwqctl.
    credentials: instead of them, of grpc.ssl_channel_credentials. token_file: of `lwqctl token create`, shown instead of a
    certificate and read again when it changes; None: $LWQ_TOKEN_FILE.
    Every method raises subclasses of LwqError (and OSError where a file cannot be written), and may be called from several tasks
    at once. timeout: seconds until a wait ends with Timeout, while the job goes on; None: never.
    """

    def __init__(self, server: str | None = None, *, retry_seconds: float = 60, credentials: grpc.ChannelCredentials | None = None,
                 tls_ca: Path | None = None, tls_cert: Path | None = None, tls_key: Path | None = None, token_file: Path | None = None):
        self._server = server or os.environ.get("LWQ_SERVER", "")
        if not self._server:
            raise ValueError("no server: give host:port or unix:/path, or set LWQ_SERVER")
        files = TlsFiles()
        if credentials is None and not self._server.startswith("unix:"):
            files = tls_files(TlsFiles(tls_ca, tls_cert, tls_key))
        self._contact = Server(self._server, files, own_credentials=credentials is not None)
        credentials = credentials or credentials_of(files)
        credentials = with_token(credentials, token_file, self._server)
        self._retry_seconds = retry_seconds
        self._channel = make_channel(self._server, credentials)
        # What protoc's plugin makes has no types.
        self._jobs: Any = job_service_pb2_grpc.JobServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._models: Any = model_service_pb2_grpc.ModelServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._datasets: Any = model_service_pb2_grpc.DatasetServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._artifacts: Any = artifact_service_pb2_grpc.ArtifactServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._blobs: Any = artifact_service_pb2_grpc.BlobServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._admin: Any = admin_service_pb2_grpc.AdminServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self._channel.close(None)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _patience(self) -> Patience:
        return Patience(self._retry_seconds, self._contact)

    async def _call(self, method: Callable[..., Any], request: object, answer: type[T]) -> T:
        return await call(method, request, answer, self._patience())

    async def quantize(self, model: Path, budget: str | int | Budget, *, wait: bool = True, out: Path | None = None,
                       progress: bool | progress_.Listener = False, timeout: float | None = None, job_id: str = "",
                       labels: Mapping[str, str] | None = None, priority: str = "normal", **options: Unpack[Options]) -> Job:
        """Quantizes a model to a budget.

        model: a directory of the server's machine, or the name of a model that it knows ("models/..."). budget: "3.25bpw",
        "900MiB", bytes, "50%", "20GB@8192x4", "4bit" or "Q4_K_M". wait: returns the finished job, or raises JobFailed; with `out` its
        files are brought there, a directory or a file that ends in .gguf. progress: True shows a bar; a function is called with each
        Progress. options: as the flags of `lwqctl quantize`, see lwq.spec.Options.
        """
        if out is not None:
            if not wait:
                raise ValueError("out= needs wait=True; download() brings the files later")
            output.check(out)
        if priority not in _PRIORITIES:
            raise invalid("FLAG_INVALID", f'priority "{priority}": expected low, normal or high')
        began = time.monotonic()
        spec = await self._spec(model, budget, options, timeout, out)
        request = job_service_pb2.CreateJobRequest(job_id=job_id, request_id=_new_id())
        request.job.spec.quantize.CopyFrom(spec)
        request.job.labels.update(labels or {})
        request.job.priority = _PRIORITIES[priority]
        job = await self._call(self._jobs.CreateJob, request, Job)
        _log.info("submitted %s", job.name)
        try:
            if wait:
                left = None if timeout is None else max(0.0, began + timeout - time.monotonic())
                job = await self.wait(job.name, progress=progress, timeout=left)
            if out is not None:
                await self.download(job, out)
        except BaseException as e:  # an interrupt too: the hours that the job took are not to be lost for want of its name
            if job.state == Job.SUCCEEDED:
                e.add_note(f'{job.name} has succeeded: download("{job.name}", OUT) brings its files')
            elif not isinstance(e, JobFailed | JobCancelled):
                e.add_note(f'{job.name} goes on: wait("{job.name}") and download("{job.name}", OUT), or cancel("{job.name}")')
            raise
        return job

    async def plan(self, model: Path, budget: str | int | Budget, **options: Unpack[Options]) -> PlanJobResponse:
        """What a job would give, without a job: exact bytes, memory, and the formats where they can be known in advance."""
        request = job_service_pb2.PlanJobRequest(spec=await self._spec(model, budget, options))
        return await self._call(self._jobs.PlanJob, request, PlanJobResponse)

    async def _spec(self, model: Path, budget: str | int | Budget, options: Options, timeout: float | None = None,
                    out: Path | None = None) -> QuantizeSpec:
        """All that this side can refuse is refused before anything is sent."""
        options = given(options)
        spec = make_spec(str(model), budget, options)
        check_files(options)
        if out is not None:
            output.check_profile(out, spec.profile)
        if not spec.model.startswith("models/"):
            spec.model = (await self.add_model(model, timeout=timeout)).name
        await self._send_datasets(spec, options)
        return spec

    async def _send_datasets(self, spec: QuantizeSpec, options: Options) -> None:
        if "calibration" in options:
            spec.calibration.dataset = (await self.add_dataset(options["calibration"])).name
        if "eval_text" in options:
            spec.evaluation.text_dataset = (await self.add_dataset(options["eval_text"])).name
        for path in options.get("eval_tasks", ()):
            spec.evaluation.task_datasets.append((await self.add_dataset(path)).name)

    async def add_model(self, directory: Path, *, model_id: str = "", timeout: float | None = None) -> Model:
        """Makes a directory of the server's machine known as a model; returns when a worker has checked it. Raises ModelRejected."""
        request = model_service_pb2.CreateModelRequest(model_id=model_id, request_id=_new_id())
        request.source.directory = model_directory(directory)
        model = await self._call(self._models.CreateModel, request, Model)
        async with _at_most(timeout, lambda: f"the check of {model.name} by a worker"):
            while model.state == Model.VERIFYING:
                ask = model_service_pb2.GetModelRequest(name=model.name, wait_seconds=10)
                model = await self._call(self._models.GetModel, ask, Model)
        if model.state == Model.REJECTED:
            raise ModelRejected(model)
        return model

    async def models(self) -> Sequence[Model]:
        return await self._all(self._models.ListModels, model_service_pb2.ListModelsRequest(), model_service_pb2.ListModelsResponse, "models")

    async def add_dataset(self, path: Path) -> Dataset:
        """Sends a text or JSON lines file of this machine. The same content is the same dataset."""
        path = pathlib.Path(path)
        blob = await transfer.upload(self._blobs, path, self._patience())
        kind = Dataset.JSONL if path.suffix in (".jsonl", ".json") else Dataset.TEXT
        dataset = Dataset(blob=blob, kind=kind, display_name=path.name)
        request = model_service_pb2.CreateDatasetRequest(dataset=dataset, request_id=_new_id())
        return await self._call(self._datasets.CreateDataset, request, Dataset)

    async def job(self, name: str) -> Job:
        return await self._call(self._jobs.GetJob, job_service_pb2.GetJobRequest(name=_named("jobs", name)), Job)

    async def jobs(self) -> Sequence[Job]:
        """All of them, newest first."""
        return await self._all(self._jobs.ListJobs, job_service_pb2.ListJobsRequest(), job_service_pb2.ListJobsResponse, "jobs")

    async def cancel(self, name: str) -> Job:
        request = job_service_pb2.CancelJobRequest(name=_named("jobs", name), request_id=_new_id())
        return await self._call(self._jobs.CancelJob, request, Job)

    async def retry(self, name: str) -> Job:
        """Starts a job that failed or was cancelled again; what it finished is kept."""
        request = job_service_pb2.RetryJobRequest(name=_named("jobs", name), request_id=_new_id())
        return await self._call(self._jobs.RetryJob, request, Job)

    async def delete_job(self, name: str) -> None:
        """With its events and its artifact. One that has not ended is FailedPrecondition STATE_CONFLICT: cancel it first."""
        request = job_service_pb2.DeleteJobRequest(name=_named("jobs", name), request_id=_new_id())
        await self._call(self._jobs.DeleteJob, request, job_service_pb2.DeleteJobResponse)

    async def delete_artifact(self, name: str) -> None:
        """Its files go when nothing else needs them. The job stays."""
        request = artifact_service_pb2.DeleteArtifactRequest(name=_named("artifacts", name), request_id=_new_id())
        await self._call(self._artifacts.DeleteArtifact, request, artifact_service_pb2.DeleteArtifactResponse)

    async def watch(self, name: str) -> AsyncGenerator[JobEvent, None]:
        """The job's events, from a snapshot to its end, over restarts of the server too."""
        request = job_service_pb2.WatchJobRequest(name=_named("jobs", name))
        patience = self._patience()
        while True:
            stream = self._jobs.WatchJob(request)
            try:
                while (event := await self._next(stream)) is not None:
                    patience.sign_of_life()
                    request.resume_seq = max(request.resume_seq, event.seq)
                    yield event
                    job = _job_of(event)
                    if job is not None and job.state in _ENDED:
                        return
                return  # resumed after its last event
            except grpc.aio.AioRpcError as e:
                error = from_rpc(e)
                if error.reason == "RESUME_TOKEN_AHEAD" and request.resume_seq > 0:
                    request.resume_seq = 0  # the store was put back to an earlier state: from a snapshot again
                else:
                    await patience.after(error)
            except Unavailable as e:
                await patience.after(e)
            finally:
                stream.cancel()

    async def _next(self, stream: Any) -> JobEvent | None:
        """None at the end."""
        try:
            async with asyncio.timeout(IDLE_SECONDS):  # wait_for() of Python 3.11 may lose a cancellation
                event = await stream.read()
        except TimeoutError:
            raise Unavailable("UNAVAILABLE", "UNAVAILABLE", f"the stream of events said nothing for {IDLE_SECONDS:g} s") from None
        return event if isinstance(event, JobEvent) else None

    async def wait(self, name: str, *, progress: bool | progress_.Listener = False, timeout: float | None = None) -> Job:
        """The job when it has succeeded. Raises JobFailed or JobCancelled."""
        with progress_.shown(progress) as tell:
            async with _at_most(timeout, lambda: _named("jobs", name)):
                job = await self._wait(name, tell)
            if tell is not None and job.state == Job.SUCCEEDED:
                tell(Progress(fraction=1, tasks_total=job.progress.tasks_total, tasks_done=job.progress.tasks_done, current="done"))
        if job.state == Job.FAILED:
            raise JobFailed(job)
        if job.state == Job.CANCELLED:
            raise JobCancelled(job)
        return job

    async def _wait(self, name: str, tell: progress_.Listener | None) -> Job:
        job = Job()
        while job.state not in _ENDED:  # one that was started again has ended before
            async with contextlib.aclosing(self.watch(name)) as events:
                async for event in events:
                    changed = _job_of(event)
                    if tell is not None and (event.HasField("progress") or changed is not None):
                        tell(changed.progress if changed is not None else event.progress)
            job = await self.job(name)
        return job

    async def artifact(self, name: str) -> Artifact:
        request = artifact_service_pb2.GetArtifactRequest(name=_named("artifacts", name))
        return await self._call(self._artifacts.GetArtifact, request, Artifact)

    async def download(self, job: Job | Artifact | str, out: Path, *, progress: transfer.BytesListener | None = None) -> pathlib.Path:
        """Brings the files of an artifact, or of a job's, into the directory `out`, or to a file that ends in .gguf: each checked by
        its SHA-256, all or none. The same call after an interruption goes on where it was. Beside them lie lwq-report.json, the
        whole record of the job, and README.md, a model card, unless the artifact brings its own."""
        output.check(out)
        if isinstance(job, str):
            job = await (self.artifact(job) if job.startswith("artifacts/") else self.job(job))
        if isinstance(job, Job):
            if not job.artifact:
                raise NotFound("NOT_FOUND", "NOT_FOUND", f"{job.name} has no artifact: it is {Job.State.Name(job.state)}")
            job = await self.artifact(job.artifact)
        output.check_fits(out, (file.name for file in job.files))
        with output.staged(out) as staging:
            await transfer.download(self._artifacts, job, staging, self._patience(), progress)
            await self._add_report(job, staging)
            return output.publish(staging, out)

    async def _add_report(self, artifact: Artifact, staging: pathlib.Path) -> None:
        try:
            job = await self.job(artifact.job)
        except NotFound:
            return  # deleted; its artifact stayed
        titles = {}
        with contextlib.suppress(NotFound):
            ask = model_service_pb2.GetModelRequest(name=job.spec.quantize.model)
            titles[ask.name] = os.path.basename((await self._call(self._models.GetModel, ask, Model)).source.directory)
        for name in {result.dataset for result in job.evaluations}:
            with contextlib.suppress(NotFound):
                dataset = model_service_pb2.GetDatasetRequest(name=name)
                titles[name] = (await self._call(self._datasets.GetDataset, dataset, Dataset)).display_name or name
        report.write(job, artifact, staging, titles)

    async def workers(self) -> Sequence[Worker]:
        return await self._all(self._admin.ListWorkers, admin_service_pb2.ListWorkersRequest(), admin_service_pb2.ListWorkersResponse, "workers")

    async def server_info(self) -> ServerInfo:
        return await self._call(self._admin.GetServerInfo, admin_service_pb2.GetServerInfoRequest(), ServerInfo)

    async def _all(self, method: Callable[..., Any], request: Any, answer: type[Any], field: str) -> list[Any]:
        found: list[Any] = []
        while True:
            page = await self._call(method, request, answer)
            found.extend(getattr(page, field))
            request.page_token = page.next_page_token
            if not request.page_token:
                return found


def _job_of(event: JobEvent) -> Job | None:
    if event.HasField("snapshot"):
        return event.snapshot
    return event.state.job if event.HasField("state") else None
