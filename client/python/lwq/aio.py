"""The client for asyncio. lwq.Client has the same methods for everybody else."""
from __future__ import annotations

import os
import pathlib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Unpack

import grpc
import grpc.aio

from lwq import progress as progress_
from lwq import transfer
from lwq._proto.v1 import (admin_service_pb2, admin_service_pb2_grpc, artifact_service_pb2, artifact_service_pb2_grpc,
                           job_service_pb2, job_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc)
from lwq.errors import JobCancelled, JobFailed, ModelRejected, NotFound, from_rpc
from lwq.spec import Options, Path, make_spec
from lwq.transport import Patience, call, make_channel
from lwq.types import Artifact, Budget, Dataset, Job, JobEvent, Model, PlanJobResponse, Progress, QuantizeSpec, ServerInfo, Worker

_ENDED = (Job.SUCCEEDED, Job.FAILED, Job.CANCELLED)
_PRIORITIES = {"low": Job.LOW, "normal": Job.NORMAL, "high": Job.HIGH}


def _new_id() -> str:
    """Of a request: the server does what it asks once, however often it is sent."""
    return str(uuid.uuid4())


def _named(folder: str, name: str) -> str:
    return name if name.startswith(f"{folder}/") else f"{folder}/{name}"


class Client:
    """A connection to one lwq service.

    server: host:port, unix:/path, or several with commas between, of which the leader is found. None: $LWQ_SERVER.
    retry_seconds: how long a server that is away is waited for. credentials: of grpc.ssl_channel_credentials, where TLS
    is in between.
    Every method raises subclasses of LwqError and may be called from several tasks at once.
    """

    def __init__(self, server: str | None = None, *, retry_seconds: float = 60, credentials: grpc.ChannelCredentials | None = None):
        self._server = server or os.environ.get("LWQ_SERVER", "")
        if not self._server:
            raise ValueError("no server: give host:port or unix:/path, or set LWQ_SERVER")
        self._retry_seconds = retry_seconds
        self._channel = make_channel(self._server, credentials)
        self._jobs = job_service_pb2_grpc.JobServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._datasets = model_service_pb2_grpc.DatasetServiceStub(self._channel)
        self._artifacts = artifact_service_pb2_grpc.ArtifactServiceStub(self._channel)
        self._blobs = artifact_service_pb2_grpc.BlobServiceStub(self._channel)
        self._admin = admin_service_pb2_grpc.AdminServiceStub(self._channel)

    async def close(self) -> None:
        await self._channel.close(None)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _patience(self) -> Patience:
        return Patience(self._retry_seconds, self._server)

    async def _call(self, method, request):
        return await call(method, request, self._patience())

    async def quantize(self, model: Path, budget: str | int | Budget, *, wait: bool = True, out: Path | None = None,
                       progress: bool | progress_.Listener = False, job_id: str = "", labels: Mapping[str, str] | None = None,
                       priority: str = "normal", **options: Unpack[Options]) -> Job:
        """Quantizes a model to a budget.

        model: a directory of the server's machine, or the name of a model that it knows ("models/..."). budget: "3.25bpw",
        "900MiB", bytes, or "20GB@8192x4". wait: returns the finished job, or raises JobFailed; with `out` its files are
        brought there. progress: True shows a bar; a function is called with each Progress. options: as the flags of
        `lwqctl quantize`, see lwq.spec.Options.
        """
        if out is not None and not wait:
            raise ValueError("out= needs wait=True; download() brings the files later")
        name = str(model) if str(model).startswith("models/") else (await self.add_model(model)).name
        spec = make_spec(name, budget, options)
        await self._send_datasets(spec, options)
        request = job_service_pb2.CreateJobRequest(job_id=job_id, request_id=_new_id())
        request.job.spec.quantize.CopyFrom(spec)
        request.job.labels.update(labels or {})
        request.job.priority = _PRIORITIES[priority]
        job = await self._call(self._jobs.CreateJob, request)
        if wait:
            job = await self.wait(job.name, progress=progress)
        if out is not None:
            await self.download(job, out)
        return job

    async def plan(self, model: Path, budget: str | int | Budget, **options: Unpack[Options]) -> PlanJobResponse:
        """What a job would give, without a job: exact bytes, memory, and the formats where they can be known in advance."""
        name = str(model) if str(model).startswith("models/") else (await self.add_model(model)).name
        spec = make_spec(name, budget, options)
        await self._send_datasets(spec, options)
        return await self._call(self._jobs.PlanJob, job_service_pb2.PlanJobRequest(spec=spec))

    async def _send_datasets(self, spec: QuantizeSpec, options: Options) -> None:
        if "calibration" in options:
            spec.calibration.dataset = (await self.add_dataset(options["calibration"])).name
        if "eval_text" in options:
            spec.evaluation.text_dataset = (await self.add_dataset(options["eval_text"])).name
        for path in options.get("eval_tasks", ()):
            spec.evaluation.task_datasets.append((await self.add_dataset(path)).name)

    async def add_model(self, directory: Path, *, model_id: str = "") -> Model:
        """Makes a directory of the server's machine known as a model; returns when a worker has checked it. Raises ModelRejected."""
        request = model_service_pb2.CreateModelRequest(model_id=model_id, request_id=_new_id())
        request.source.directory = os.path.abspath(directory)
        model = await self._call(self._models.CreateModel, request)
        while model.state == Model.VERIFYING:
            ask = model_service_pb2.GetModelRequest(name=model.name, wait_seconds=10)
            model = await self._call(self._models.GetModel, ask)
        if model.state == Model.REJECTED:
            raise ModelRejected(model)
        return model

    async def models(self) -> Sequence[Model]:
        return await self._all(self._models.ListModels, model_service_pb2.ListModelsRequest(), "models")

    async def add_dataset(self, path: Path) -> Dataset:
        """Sends a text or JSON lines file of this machine. The same content is the same dataset."""
        path = pathlib.Path(path)
        blob = await transfer.upload(self._blobs, path, self._patience())
        kind = Dataset.JSONL if path.suffix in (".jsonl", ".json") else Dataset.TEXT
        dataset = Dataset(blob=blob, kind=kind, display_name=path.name)
        request = model_service_pb2.CreateDatasetRequest(dataset=dataset, request_id=_new_id())
        return await self._call(self._datasets.CreateDataset, request)

    async def job(self, name: str) -> Job:
        return await self._call(self._jobs.GetJob, job_service_pb2.GetJobRequest(name=_named("jobs", name)))

    async def jobs(self) -> Sequence[Job]:
        """All of them, newest first."""
        return await self._all(self._jobs.ListJobs, job_service_pb2.ListJobsRequest(), "jobs")

    async def cancel(self, name: str) -> Job:
        request = job_service_pb2.CancelJobRequest(name=_named("jobs", name), request_id=_new_id())
        return await self._call(self._jobs.CancelJob, request)

    async def retry(self, name: str) -> Job:
        """Starts a job that failed or was cancelled again; what it finished is kept."""
        request = job_service_pb2.RetryJobRequest(name=_named("jobs", name), request_id=_new_id())
        return await self._call(self._jobs.RetryJob, request)

    async def delete_job(self, name: str) -> None:
        """With its events and its artifact. One that has not ended is FailedPrecondition STATE_CONFLICT: cancel it first."""
        request = job_service_pb2.DeleteJobRequest(name=_named("jobs", name), request_id=_new_id())
        await self._call(self._jobs.DeleteJob, request)

    async def delete_artifact(self, name: str) -> None:
        """Its files go when nothing else needs them. The job stays."""
        request = artifact_service_pb2.DeleteArtifactRequest(name=_named("artifacts", name), request_id=_new_id())
        await self._call(self._artifacts.DeleteArtifact, request)

    async def watch(self, name: str) -> AsyncIterator[JobEvent]:
        """The job's events, from a snapshot to its end, over restarts of the server too."""
        request = job_service_pb2.WatchJobRequest(name=_named("jobs", name))
        patience = self._patience()
        while True:
            try:
                async for event in self._jobs.WatchJob(request):
                    patience.sign_of_life()
                    request.resume_seq = max(request.resume_seq, event.seq)
                    yield event
                    job = _job_of(event)
                    if job is not None and job.state in _ENDED:
                        return
                return  # resumed after its last event
            except grpc.aio.AioRpcError as e:
                await patience.after(from_rpc(e))

    async def wait(self, name: str, *, progress: bool | progress_.Listener = False) -> Job:
        """The job when it has succeeded. Raises JobFailed or JobCancelled."""
        tell = progress_.listener(progress)
        job = Job()
        while job.state not in _ENDED:  # one that was started again has ended before
            async for event in self.watch(name):
                changed = _job_of(event)
                if tell is not None and (event.HasField("progress") or changed is not None):
                    tell(changed.progress if changed is not None else event.progress)
            job = await self.job(name)
        if job.state == Job.FAILED:
            raise JobFailed(job)
        if job.state == Job.CANCELLED:
            raise JobCancelled(job)
        if tell is not None:
            tell(Progress(fraction=1, tasks_total=job.progress.tasks_total, tasks_done=job.progress.tasks_done, current="done"))
        return job

    async def artifact(self, name: str) -> Artifact:
        return await self._call(self._artifacts.GetArtifact, artifact_service_pb2.GetArtifactRequest(name=_named("artifacts", name)))

    async def download(self, job: Job | Artifact | str, out: Path, *, progress: transfer.BytesListener | None = None) -> pathlib.Path:
        """Brings the files of an artifact, or of a job's, into the directory `out`: each checked by its SHA-256, all or
        none. The same call after an interruption goes on where it was."""
        if isinstance(job, str):
            job = await (self.artifact(job) if job.startswith("artifacts/") else self.job(job))
        if isinstance(job, Job):
            if not job.artifact:
                raise NotFound("NOT_FOUND", "NOT_FOUND", f"{job.name} has no artifact: it is {Job.State.Name(job.state)}")
            job = await self.artifact(job.artifact)
        return await transfer.download(self._artifacts, job, out, self._patience(), progress)

    async def workers(self) -> Sequence[Worker]:
        return await self._all(self._admin.ListWorkers, admin_service_pb2.ListWorkersRequest(), "workers")

    async def server_info(self) -> ServerInfo:
        return await self._call(self._admin.GetServerInfo, admin_service_pb2.GetServerInfoRequest())

    async def _all(self, method, request, field: str) -> list:
        found: list = []
        while True:
            answer = await self._call(method, request)
            found.extend(getattr(answer, field))
            request.page_token = answer.next_page_token
            if not request.page_token:
                return found


def _job_of(event: JobEvent) -> Job | None:
    if event.HasField("snapshot"):
        return event.snapshot
    return event.state.job if event.HasField("state") else None
