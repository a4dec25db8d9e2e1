"""The installed client against a server that does what a real one does rarely: cuts, hangs, tells of the past. Started by
python_client_test.py.
usage: python_client_faults.py DIR"""
import asyncio
import contextlib
import pathlib
import sys
import threading
import time

import grpc
import grpc.aio

import lwq
from lwq._proto.v1 import artifact_service_pb2 as blobs
from lwq._proto.v1 import artifact_service_pb2_grpc, event_pb2, job_service_pb2_grpc, model_service_pb2_grpc

DIR = pathlib.Path(sys.argv[1])
Job = lwq.types.Job


def ok(good, what):
    print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
    if not good:
        sys.exit(1)


class Datasets(model_service_pb2_grpc.DatasetServiceServicer):
    async def CreateDataset(self, request, context):
        return request.dataset


class Cutting(artifact_service_pb2_grpc.BlobServiceServicer):
    """Ends the first uploads, each after some seconds and its first message, which it keeps or loses."""

    def __init__(self, cut_after_seconds, cuts=1, keeps=True):
        self.cut_after_seconds = cut_after_seconds
        self.cuts = cuts
        self.keeps = keeps
        self.calls = 0
        self.content = bytearray()

    async def FindMissingBlobs(self, request, context):
        return blobs.FindMissingBlobsResponse(missing=request.blobs)

    async def QueryWriteStatus(self, request, context):
        return blobs.QueryWriteStatusResponse(committed_bytes=len(self.content))

    async def WriteBlob(self, requests, context):
        self.calls += 1
        async for request in requests:
            if request.HasField("blob") and request.write_offset != len(self.content):
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, "not where it was cut")
            self.content += request.data
            if self.calls <= self.cuts:
                await asyncio.sleep(self.cut_after_seconds)
                if not self.keeps:
                    self.content.clear()
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
        return blobs.WriteBlobResponse(committed_bytes=len(self.content))


class HavingAll(artifact_service_pb2_grpc.BlobServiceServicer):
    async def FindMissingBlobs(self, request, context):
        return blobs.FindMissingBlobsResponse()


class Retried(job_service_pb2_grpc.JobServiceServicer):
    """A job that failed while nobody watched and was started again: its old end is told first."""

    def __init__(self):
        self.state = Job.RUNNING
        self.watched = 0

    async def WatchJob(self, request, context):
        self.watched += 1
        if self.watched == 1:
            yield event_pb2.JobEvent(seq=7, state=event_pb2.JobStateChange(to=Job.FAILED, job=Job(name=request.name, state=Job.FAILED)))
            return
        yield event_pb2.JobEvent(seq=8, snapshot=Job(name=request.name, state=self.state))
        await asyncio.sleep(0.3)
        self.state = Job.SUCCEEDED
        yield event_pb2.JobEvent(seq=9, state=event_pb2.JobStateChange(to=self.state, job=Job(name=request.name, state=self.state)))

    async def GetJob(self, request, context):
        return Job(name=request.name, state=self.state)


class PutBack(job_service_pb2_grpc.JobServiceServicer):
    """Its store is put back to an earlier state while a job is watched."""

    def __init__(self):
        self.resumed = []

    async def WatchJob(self, request, context):
        self.resumed.append(request.resume_seq)
        if len(self.resumed) == 1:
            yield event_pb2.JobEvent(seq=9, snapshot=Job(name=request.name, state=Job.RUNNING))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "restarted")
        if request.resume_seq > 3:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "ahead", (("lwq-reason", "RESUME_TOKEN_AHEAD"),))
        yield event_pb2.JobEvent(seq=3, snapshot=Job(name=request.name, state=Job.RUNNING))
        yield event_pb2.JobEvent(seq=4, state=event_pb2.JobStateChange(to=Job.SUCCEEDED, job=Job(name=request.name, state=Job.SUCCEEDED)))

    async def GetJob(self, request, context):
        return Job(name=request.name, state=Job.SUCCEEDED)


class Silent(job_service_pb2_grpc.JobServiceServicer):
    """Answers nothing."""

    async def GetJob(self, request, context):
        await asyncio.sleep(3600)

    async def WatchJob(self, request, context):
        yield event_pb2.JobEvent(seq=1, snapshot=Job(name=request.name, state=Job.RUNNING))
        await asyncio.sleep(3600)


@contextlib.asynccontextmanager
async def served(*, jobs=None, blobs=None):
    """The address of a server with these services."""
    server = grpc.aio.server()
    model_service_pb2_grpc.add_DatasetServiceServicer_to_server(Datasets(), server)
    if jobs is not None:
        job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    if blobs is not None:
        artifact_service_pb2_grpc.add_BlobServiceServicer_to_server(blobs, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(None)


async def an_upload_goes_on():
    path = DIR / "text.txt"
    path.write_bytes(bytes(range(256)) * 4096)
    for cuts, seconds in ((1, 1.0), (3, 0.4)):
        cutting = Cutting(seconds, cuts)
        async with served(blobs=cutting) as address, lwq.aio.Client(address, retry_seconds=0.5) as client:
            await client.add_dataset(path)
        ok(cutting.calls == cuts + 1 and bytes(cutting.content) == path.read_bytes(),
           f"an upload that is cut {cuts} times, each after {seconds:g} s, goes on where it was")
    losing = Cutting(0.2, cuts=100, keeps=False)
    async with served(blobs=losing) as address, lwq.aio.Client(address, retry_seconds=0.5) as client:
        try:
            await client.add_dataset(path)
            ok(False, "an upload that gets nowhere ends")
        except lwq.Unavailable:
            ok(losing.calls > 1, f"an upload that gets nowhere ends, after {losing.calls} calls")


async def a_wait_outlasts_an_old_end():
    retried = Retried()
    async with served(jobs=retried) as address, lwq.aio.Client(address) as client:
        job = await asyncio.wait_for(client.wait("jobs/x"), 60)
    ok(job.state == Job.SUCCEEDED and retried.watched == 2, "a wait that hears of an end before a retry goes on to the last one")


async def a_store_that_was_put_back_is_watched_anew():
    put_back = PutBack()
    async with served(jobs=put_back) as address, lwq.aio.Client(address) as client:
        seen = [event.seq async for event in client.watch("jobs/x")]
    ok(put_back.resumed == [0, 9, 0] and seen == [9, 3, 4], f"watch() starts from a snapshot again: resumed from {put_back.resumed}, saw {seen}")


async def hashing_lets_others_run():
    path = DIR / "large.txt"
    with open(path, "wb") as f:
        f.truncate(512 << 20)  # takes a second or so to hash, and no space
    for _ in range(5):  # others may wait for the machine too, but not each time
        longest, took = await waited_while_hashed(path)
        if longest < took / 2:
            break
    ok(longest < took / 2, f"other tasks waited {longest:.2f} s at most while a file was hashed for {took:.2f} s")


async def waited_while_hashed(path):
    """(the longest that another task waited, all), in seconds."""
    longest = 0.0

    async def tick():
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)

    async with served(blobs=HavingAll()) as address, lwq.aio.Client(address) as client:
        ticker = asyncio.create_task(tick())
        await asyncio.sleep(0)
        began = time.monotonic()
        await client.add_dataset(path)
        took = time.monotonic() - began
        ticker.cancel()
    return longest, took


def ends_with_its_client(address, what, call):
    """`call` runs on a thread of its own when the client is closed."""
    client = lwq.Client(address)
    outcome = []

    def run():
        try:
            outcome.append(call(client))
        except lwq.LwqError as e:
            outcome.append(e.reason)
        except BaseException as e:
            outcome.append(repr(e))

    caller = threading.Thread(target=run, daemon=True)
    caller.start()
    time.sleep(0.5)
    client.close()
    caller.join(60)
    ok(outcome == ["CANCELLED"], f"{what} ends when its client is closed: {outcome}")
    try:
        client.job("x")
        ok(False, "a closed client makes no calls")
    except lwq.LwqError as e:
        ok(e.reason == "CANCELLED", f"a closed client says so: {e}")


async def closing_ends_calls():
    text = DIR / "short.txt"
    text.write_text("text")
    async with served(jobs=Silent(), blobs=Cutting(cut_after_seconds=3600)) as address:
        for what, server, call in (("a call", address, lambda client: client.job("x")),
                                   ("a wait", address, lambda client: client.wait("x")),
                                   ("a loop over events", address, lambda client: list(client.watch("x"))),
                                   ("an upload", address, lambda client: client.add_dataset(text)),
                                   ("a call to a server that is away", "127.0.0.1:1", lambda client: client.job("x"))):
            await asyncio.to_thread(ends_with_its_client, server, what, call)


def main():
    DIR.mkdir()
    for case in (an_upload_goes_on, a_wait_outlasts_an_old_end, a_store_that_was_put_back_is_watched_anew, hashing_lets_others_run, closing_ends_calls):
        asyncio.run(case())


main()
