"""What a caller of the installed client may expect, against a small server that answers as it should: nothing is begun that
cannot end well, listeners may call the client, waits end in time, errors say all there is. Started by python_client_test.py.
usage: python_client_calls.py DIR"""
import asyncio
import contextlib
import gc
import hashlib
import os
import pathlib
import pickle
import sys
import threading
import time
import types

import grpc
import grpc.aio

import lwq
import lwq.aio
import lwq.progress
from lwq._proto.v1 import (artifact_service_pb2, artifact_service_pb2_grpc, event_pb2, job_service_pb2, job_service_pb2_grpc,
                           model_service_pb2_grpc)

DIR = pathlib.Path(sys.argv[1])
Job, Model = lwq.types.Job, lwq.types.Model
CONTENT = bytes(range(256)) * 4096


def ok(good, what):
    print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
    if not good:
        sys.exit(1)


def raised(error, reason, call):
    """The error, when it is one of that class with that reason."""
    try:
        call()
    except error as e:
        ok(getattr(e, "reason", None) == reason, f"{error.__name__} {reason}: {str(e)[:110]}")
        return e
    except BaseException as e:
        ok(False, f"{error.__name__} {reason} is raised, not {e!r}")
    ok(False, f"{error.__name__} {reason} is raised")


class Models(model_service_pb2_grpc.ModelServiceServicer):
    """state: VERIFYING is that of a service without workers."""

    def __init__(self, state=Model.ACTIVE):
        self.created = []
        self.state = state

    async def CreateModel(self, request, context):
        self.created.append(request.source.directory)
        return Model(name="models/m", state=self.state)

    async def GetModel(self, request, context):
        if self.state == Model.ACTIVE:
            await context.abort(grpc.StatusCode.NOT_FOUND, "deleted")
        await asyncio.sleep(0.2)
        return Model(name="models/m", state=self.state)


class Jobs(job_service_pb2_grpc.JobServiceServicer):
    """One job that takes `seconds`; `end` is how it ends."""

    def __init__(self, seconds=0.3, end=Job.SUCCEEDED):
        self.seconds, self.end = seconds, end
        self.created = []
        self.state = Job.RUNNING
        self.open = 0

    def job(self):
        job = Job(name="jobs/x", state=self.state, artifact="artifacts/a" if self.state == Job.SUCCEEDED else "")
        if self.state == Job.FAILED:
            job.failure.reason, job.failure.code, job.failure.message = "HOST_OOM", 8, "no memory"
        return job

    async def CreateJob(self, request, context):
        self.created.append(request.job)
        return self.job()

    async def GetJob(self, request, context):
        return self.job()

    async def CancelJob(self, request, context):
        self.state = Job.CANCELLED
        return self.job()

    async def WatchJob(self, request, context):
        self.open += 1
        try:
            yield event_pb2.JobEvent(seq=1, snapshot=self.job())
            yield event_pb2.JobEvent(seq=1, progress=lwq.types.Progress(fraction=0.5, current="half"))
            end = time.monotonic() + self.seconds
            while self.state == Job.RUNNING and time.monotonic() < end:
                await asyncio.sleep(0.05)
            if self.state == Job.RUNNING:
                self.state = self.end
            yield event_pb2.JobEvent(seq=2, state=event_pb2.JobStateChange(to=self.state, job=self.job()))
        finally:
            self.open -= 1


class Artifacts(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """One artifact of the named files, each with the same bytes, sent when `sends` is set."""

    def __init__(self, *names):
        self.asked, self.sends = threading.Event(), threading.Event()
        self.sends.set()
        blob = lwq.types.BlobRef(sha256=hashlib.sha256(CONTENT).hexdigest(), size_bytes=len(CONTENT))
        self.artifact = lwq.types.Artifact(name="artifacts/a", job="jobs/x",
                                           files=[lwq.types.NamedBlob(name=name, blob=blob) for name in names])

    async def GetArtifact(self, request, context):
        return self.artifact

    async def ReadArtifact(self, request, context):
        self.asked.set()
        while not self.sends.is_set():
            await asyncio.sleep(0.01)
        for offset in range(request.read_offset, len(CONTENT), 1 << 16):
            yield artifact_service_pb2.ReadArtifactResponse(offset=offset, data=CONTENT[offset:offset + (1 << 16)])


_loop = asyncio.new_event_loop()  # of all servers
threading.Thread(target=_loop.run_forever, name="servers", daemon=True).start()


@contextlib.contextmanager
def served(jobs=None, models=None, artifacts=None):
    """The address of a server with these services."""
    async def begin():
        server = grpc.aio.server()
        if jobs is not None:
            job_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
        if models is not None:
            model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
        if artifacts is not None:
            artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(artifacts, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(begin(), _loop).result()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), _loop).result()


def within(seconds, call):
    """What `call` returns or raises, on a thread of its own; None when it takes longer."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except BaseException as e:
            outcome.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else None


def wrong_requests_begin_nothing():
    models, jobs = Models(), Jobs()
    taken = DIR / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    with served(jobs, models) as address, lwq.Client(address) as client:
        raised(lwq.AlreadyExists, "OUTPUT_EXISTS", lambda: client.quantize("/m", "4bpw", out=taken))
        raised(lwq.InvalidArgument, "BUDGET_INVALID", lambda: client.quantize("/m", "3,25bpw"))
        raised(lwq.InvalidArgument, "BUDGET_INVALID", lambda: client.quantize("/m", 3.25))
        raised(lwq.InvalidArgument, "USAGE", lambda: client.quantize("/m", "4bpw", out="/dev/shm"))
        raised(lwq.InvalidArgument, "USAGE", lambda: client.quantize("/m", "4bpw", out=DIR / "late.gguf"))
        raised(OSError, None, lambda: client.quantize("/m", "4bpw", out="/proc/x/y"))
        ok(not list(DIR.glob("late*")) and not list(DIR.glob(".lwq-*")), "nothing lies where it was looked whether it could")
        raised(lwq.InvalidArgument, "FLAG_INVALID", lambda: client.quantize("/m", "4bpw", priority="urgent"))
        raised(lwq.NotFound, "FILE_NOT_FOUND", lambda: client.quantize("/m", "4bpw", eval_text=DIR / "nowhere.txt"))
        raised(lwq.InvalidArgument, "FLAG_INVALID", lambda: client.quantize("s3://bucket/model", "4bpw"))
        raised(lwq.InvalidArgument, "FLAG_INVALID", lambda: client.add_model("hf://org/name"))
        try:
            client.quantize("/m", "4bpw", magic=1)
            ok(False, "an unknown option is refused")
        except TypeError:
            pass
    ok(not models.created and not jobs.created, f"none of them reached the server {models.created}")


def listeners_may_call():
    jobs = Jobs(seconds=600)
    threads = set()
    with served(jobs) as address:
        client = lwq.Client(address)

        def stop_it(progress):
            threads.add(threading.current_thread())
            client.cancel("jobs/x")

        ended = within(60, lambda: client.wait("jobs/x", progress=stop_it))
        ok(isinstance(ended, lwq.JobCancelled), f"a listener may call its client: {ended!r}")
        ok(all(not thread.name.startswith("lwq") for thread in threads), "it runs on the thread that waits")
        jobs.state = Job.RUNNING

        def fail(progress):
            raise KeyError("the listener's own")

        for _ in range(20):  # the next event comes in the same moment as its error, or does not
            ended = within(60, lambda: client.wait("jobs/x", progress=fail))
            ok(isinstance(ended, KeyError), f"its error is the caller's: {ended!r}")
        end = time.monotonic() + 60
        while jobs.open and time.monotonic() < end:
            time.sleep(0.05)
        ok(jobs.open == 0, "the stream is ended with it")
        client.close()


def waits_end_in_time():
    def timed_out(call, about):
        """What the call with a timeout ends with, once that was long enough to begin what it is about."""
        for timeout in (0.5, 2, 8):
            ended = within(60, lambda: call(timeout))
            if about in str(ended):
                break
        return ended

    jobs = Jobs(seconds=600)
    with served(jobs, Models()) as address, lwq.Client(address) as client:
        for what, call in (("wait", lambda timeout: client.wait("jobs/x", timeout=timeout)),
                           ("quantize", lambda timeout: client.quantize("/m", "4bpw", timeout=timeout))):
            ended = timed_out(call, "jobs/x" if what == "quantize" else "")
            ok(isinstance(ended, lwq.Timeout) and isinstance(ended, TimeoutError) and ended.reason == "TIMEOUT", f"{what} ends: {ended!r}")
        ok("jobs/x" in str(ended), "and says which job goes on")
    with served(jobs, Models(Model.VERIFYING)) as address, lwq.Client(address) as client:
        for what, call in (("quantize", lambda timeout: client.quantize("/m", "4bpw", timeout=timeout)),
                           ("add_model", lambda timeout: client.add_model("/m", timeout=timeout))):
            ended = timed_out(call, "models/m")
            ok(isinstance(ended, lwq.Timeout) and "models/m" in str(ended), f"{what} ends where no worker checks the model: {ended!r}")


def abandoned_clients_end():
    with served(Jobs()) as address:
        lwq.Client(address).close()
        before = threading.active_count()
        for _ in range(5):
            lwq.Client(address).job("x")
        gc.collect()
        end = time.monotonic() + 60
        while threading.active_count() > before and time.monotonic() < end:
            time.sleep(0.05)
        ok(threading.active_count() <= before, f"clients that nobody closed leave no threads: {threading.active_count() - before}")


def downloads_keep_apart():
    artifacts = Artifacts("config.json", "model.safetensors")
    with served(Jobs(), Models(), artifacts) as address, lwq.Client(address) as client:
        artifacts.sends.clear()
        first = []
        thread = threading.Thread(target=lambda: first.append(within(60, lambda: client.download("artifacts/a", DIR / "both"))))
        thread.start()
        artifacts.asked.wait(60)
        raised(lwq.LwqError, "LOCK_HELD", lambda: client.download("artifacts/a", DIR / "both"))
        artifacts.sends.set()
        thread.join()
        ok(first == [DIR / "both"], f"of two downloads to one place the second says so: {first}")
        ok((DIR / "both/model.safetensors").read_bytes() == CONTENT, "and the other one is right")
        ok(sorted(p.name for p in DIR.iterdir() if p.name.startswith("both")) == ["both"], "nothing is left beside it")

        here = DIR / "here"
        here.mkdir()
        os.chdir(here)
        ok(client.download("artifacts/a", ".") == here, "into the empty directory where one is")
        os.chdir(DIR)
        ok((here / "config.json").read_bytes() == CONTENT, "the files are there")
    for names in (("a", "a"), ("model.partial",), ("../a",)):
        with served(Jobs(), Models(), Artifacts(*names)) as address, lwq.Client(address) as client:
            raised(lwq.InvalidArgument, "ARTIFACT_FILE_NAME", lambda: client.download("artifacts/a", DIR / "names"))


def jobs_are_named():
    """What fails after a job was submitted says its name."""
    with served(Jobs(), Models(), Artifacts("../a")) as address, lwq.Client(address) as client:
        error = raised(lwq.InvalidArgument, "ARTIFACT_FILE_NAME", lambda: client.quantize("/m", "4bpw", out=DIR / "lost"))
        ok('download("jobs/x"' in "".join(error.__notes__), f"a download that fails: {error.__notes__}")
    with served(Jobs(end=Job.FAILED), Models()) as address, lwq.Client(address) as client:
        error = raised(lwq.JobFailed, "HOST_OOM", lambda: client.quantize("/m", "4bpw"))
        ok(not getattr(error, "__notes__", []), "a job that failed says so itself")
    with served(Jobs(seconds=600), Models()) as address, lwq.Client(address) as client:
        for timeout in (0.5, 2, 8, 32):  # until it is long enough to submit the job
            notes = getattr(raised(lwq.Timeout, "TIMEOUT", lambda: client.quantize("/m", "4bpw", timeout=timeout)), "__notes__", [])
            if notes:
                break
        ok('cancel("jobs/x")' in "".join(notes), f"one that goes on: {notes}")


def gguf_is_a_file():
    with served(Jobs(), Models(), Artifacts("model.gguf", "lwq-manifest.json")) as address, lwq.Client(address) as client:
        ok(client.download("artifacts/a", DIR / "out.gguf") == DIR / "out.gguf", "a path that ends in .gguf")
        ok((DIR / "out.gguf").read_bytes() == CONTENT, "is the file, as of lwqctl")
        ok((DIR / "out.gguf.lwq-manifest.json").exists(), "its proof lies beside it")
        ok(sorted(p.name for p in DIR.iterdir() if p.name.startswith("out.gguf")) ==
           ["out.gguf", "out.gguf.README.md", "out.gguf.lwq-manifest.json", "out.gguf.lwq-report.json"], "and nothing else but report and card")
        raised(lwq.AlreadyExists, "OUTPUT_EXISTS", lambda: client.download("artifacts/a", DIR / "out.gguf"))
    with served(Jobs(), Models(), Artifacts("model.safetensors", "config.json")) as address, lwq.Client(address) as client:
        raised(lwq.InvalidArgument, "USAGE", lambda: client.download("artifacts/a", DIR / "other.gguf"))
        ok(not list(DIR.glob("other*")), "and nothing of it was brought")


def addresses_are_looked_at():
    for address in ("http://localhost:7421", "localhost", "localhost:99999", "localhost:", ":7421", "a b:1", "unix:", "a:1,b"):
        raised(lwq.InvalidArgument, "ADDRESS_INVALID", lambda: lwq.Client(address))
    for address in ("localhost:1", "unix:/x", "[::1]:7421", "a.invalid:1,127.0.0.1:2", "dns:///localhost:1", "dns:///localhost:1,dns:///127.0.0.1:2"):
        lwq.Client(address).close()
    with served(Jobs()) as address, lwq.Client(f"no-such-host.invalid:1,dns:///localhost:{address.split(':')[1]}", retry_seconds=5) as client:
        ok(client.job("x").name == "jobs/x", "of several addresses one that answers is enough")


class Refusing(job_service_pb2_grpc.JobServiceServicer):
    """Errors as the service gives them: reason, facts and fields in google.rpc.Status."""

    def __init__(self, code, with_details=True):
        self.code, self.with_details = code, with_details

    async def GetJob(self, request, context):
        from google.rpc import error_details_pb2, status_pb2

        status = status_pb2.Status(code=self.code.value[0], message="smallest plan: 10")
        info = error_details_pb2.ErrorInfo(reason="BUDGET_INFEASIBLE", domain="lwq.dev", metadata={"smallest_bytes": "10"})
        other = error_details_pb2.ErrorInfo(reason="SOMEBODY_ELSES", domain="example.com")
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field="quantize.budget", description="too small")
        for detail in (other, info, bad):
            status.details.add().Pack(detail)
        trailer = (("grpc-status-details-bin", status.SerializeToString()),) if self.with_details else (("lwq-reason", "BUDGET_INFEASIBLE"),)
        await context.abort(self.code, "smallest plan: 10", trailer)


def errors_say_all():
    for code, error in ((grpc.StatusCode.FAILED_PRECONDITION, lwq.FailedPrecondition), (grpc.StatusCode.PERMISSION_DENIED, lwq.PermissionDenied),
                        (grpc.StatusCode.UNAUTHENTICATED, lwq.PermissionDenied), (grpc.StatusCode.UNIMPLEMENTED, lwq.Unsupported)):
        with served(Refusing(code)) as address, lwq.Client(address) as client:
            e = raised(error, "BUDGET_INFEASIBLE", lambda: client.job("x"))
            ok(e.facts == {"smallest_bytes": "10"} and e.fields == {"quantize.budget": "too small"}, f"{code.name}: with facts and fields")
    with served(Refusing(grpc.StatusCode.FAILED_PRECONDITION, with_details=False)) as address, lwq.Client(address) as client:
        ok(raised(lwq.FailedPrecondition, "BUDGET_INFEASIBLE", lambda: client.job("x")).facts == {}, "also of a server that gives no details")
    for error in (e, lwq.JobFailed(Job(name="jobs/x")), lwq.JobCancelled(Job(name="jobs/x")), lwq.ModelRejected(Model(name="models/m"))):
        again = pickle.loads(pickle.dumps(error))
        ok(type(again) is type(error) and str(again) == str(error) and again.reason == error.reason, f"{type(error).__name__} reaches another process")
    ok(again.model.name == "models/m", "with what it is about")


class SilentStream(Jobs):
    """Its first stream says nothing more, not even that it lives."""

    def __init__(self):
        super().__init__()
        self.watched = 0

    async def WatchJob(self, request, context):
        self.watched += 1
        if self.watched == 1:
            yield event_pb2.JobEvent(seq=1, snapshot=self.job())
            await asyncio.sleep(3600)
        self.state = Job.SUCCEEDED
        yield event_pb2.JobEvent(seq=2, state=event_pb2.JobStateChange(to=self.state, job=self.job()))


def silent_streams_end():
    lwq.aio.IDLE_SECONDS = 0.5
    jobs = SilentStream()
    with served(jobs) as address, lwq.Client(address) as client:
        ended = within(60, lambda: client.wait("jobs/x"))
        ok(getattr(ended, "state", None) == Job.SUCCEEDED and jobs.watched >= 2, f"a stream that says nothing is begun again: {ended!r}")


def bars_are_closed():
    bars = []

    class Bar:
        def __init__(self, **options):
            self.closed = 0
            bars.append(self)

        def set_postfix_str(self, text, refresh=True):
            ok(not self.closed, "a closed bar is left alone")

        def refresh(self):
            pass

        def close(self):
            self.closed += 1

    module = types.ModuleType("tqdm.auto")
    module.tqdm = Bar
    sys.modules["tqdm"], sys.modules["tqdm.auto"] = types.ModuleType("tqdm"), module
    for end, error in ((Job.SUCCEEDED, None), (Job.FAILED, lwq.JobFailed)):
        with served(Jobs(end=end)) as address, lwq.Client(address) as client:
            ended = within(60, lambda: client.wait("jobs/x", progress=True))
            ok(type(ended) is (error or Job) and bars[-1].closed == 1, f"the bar of a job that ends as {Job.State.Name(end)} is closed")
    sys.modules["tqdm"] = sys.modules["tqdm.auto"] = None  # as where it is not installed
    sys.modules["rich"] = sys.modules["rich.progress"] = None
    with served(Jobs()) as address, lwq.Client(address) as client:
        ok(within(60, lambda: client.wait("jobs/x", progress=True)).state == Job.SUCCEEDED, "without any library of bars: lines")


def options_are_lwqctls():
    def spec(budget="4bpw", **options):
        jobs = Jobs()
        with served(jobs, Models()) as address, lwq.Client(address) as client:
            client.quantize("/m", budget, wait=False, **options)
        return jobs.created[0].spec.quantize

    ok(spec("q4_k_m").budget.recipe == "Q4_K_M" and spec("IQ4_XS").budget.recipe == "IQ4_XS", "budgets by llama.cpp's recipes")
    ok(spec(engine="llama.cpp").profile == "llama.cpp" and spec(engine="sglang").profile == "portable", "engine=, which is --for")
    ok(spec(format="gguf").profile == "llama.cpp" and spec(format="compressed-tensors").profile == "vllm-lowbit", "format=")
    ok(spec(engine="gptqmodel").profile == "gptqmodel" and spec(engine="sglang", format="gptq").profile == "gptq", "engine= and format= of GPTQ")
    for wrong in (dict(engine="llama.cpp", format="compressed-tensors"), dict(engine="vllm", profile="portable"), dict(engine="magic")):
        raised(lwq.InvalidArgument, "FLAG_INVALID", lambda: spec(**wrong))
    for wrong in (dict(bits=(17,)), dict(group_size="wide"), dict(group_size=-1)):
        raised(lwq.InvalidArgument, "FLAG_INVALID", lambda: spec(**wrong))
    ok(list(spec(group_size=("row", 64)).group_sizes) == [0, 64] and list(spec(bits=(2, 16)).formats) == ["int2", "dense"], "widths and groups")
    measured, none, tasks = spec(), spec(no_eval=True), lwq.spec.make_spec("m", "4bpw", {"eval_tasks": (DIR / "x.jsonl",)}).evaluation
    ok(not measured.HasField("evaluation") and none.HasField("evaluation") and not none.evaluation.text_dataset
       and tasks.text_dataset == "datasets/builtin-held-out" and tasks.text_tokens == 4096, "a job is measured without being asked")
    raised(lwq.InvalidArgument, "FLAG_INVALID", lambda: spec(no_eval=True, eval_text=DIR / "x.txt"))
    ok(spec(calibration=None, eval_text=None, bits=None, profile=None) == spec(), "None is as if it were left out")
    ok(dict(spec(method_options={"damping": 0.01, "act-order": False}).method_options) == {"damping": "0.01", "act-order": "false"},
       "options of the method")


def secured_by_files():
    for name, value in (("LWQ_TLS_CA", "/nowhere/ca.crt"), ("LWQ_TLS_CERT", "/nowhere/x.crt")):
        os.environ[name] = value
        raised(lwq.NotFound, "FILE_NOT_FOUND", lambda: lwq.Client("localhost:1"))
        del os.environ[name]


def main():
    DIR.mkdir()
    os.chdir(DIR)
    for case in (addresses_are_looked_at, wrong_requests_begin_nothing, listeners_may_call, waits_end_in_time, abandoned_clients_end,
                 downloads_keep_apart, jobs_are_named, gguf_is_a_file, errors_say_all, silent_streams_end, bars_are_closed, options_are_lwqctls,
                 secured_by_files):
        case()


if __name__ == "__main__":
    main()
