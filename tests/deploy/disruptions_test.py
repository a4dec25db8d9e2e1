"""What docs/disruptions.md says of one pod: the processes of the overlay embedded with their own command lines, drained and killed
in the middle of jobs, and a task that kills each worker that takes it. kubernetes_failover_test.py does the overlay postgres-s3."""
import json
import re
import signal
import time

from processes import QUICK_JOB, ROOT, SAMPLE, TMP, check, finish, free_port, get, lwq, lwqctl, run, skip, start, stop, wait_for

try:
    import yaml
except ImportError:
    skip("this Python has no PyYAML")

LEASE_SECONDS = 3


class Pod:
    """The server and worker of the overlay on folders of this machine; `options` go to the server."""

    def __init__(self, name, *options):
        manifest = (ROOT / "deploy/kubernetes/overlays/embedded/lwq.yaml").read_text()
        pod = next(r for r in yaml.safe_load_all(manifest) if r["kind"] == "StatefulSet")["spec"]["template"]["spec"]
        self.words = {container["name"]: container["args"] for container in pod["containers"]}
        self.grace = pod["terminationGracePeriodSeconds"]
        self.name, self.folder, self.options = name, TMP / name, list(options)
        self.folder.mkdir()
        self.address = f"127.0.0.1:{free_port()}"
        self.ports = {"server": free_port(), "worker": free_port()}

    def local(self, container):
        replaced = []
        for word in self.words[container]:
            for there, here in ((r"127\.0\.0\.1:7421$", self.address), (r"=/data$", f"={self.folder}/{container}"),
                                (r"0\.0\.0\.0:\d+", f"127.0.0.1:{self.ports[container]}"), (r"=/models$", f"={SAMPLE.parent}"),
                                (r"\$\(POD\)", self.name)):
                word = re.sub(there, here, word)
            replaced.append(word)
        return replaced

    def begin(self, *containers):
        for container in containers or ("server", "worker"):
            program, more = {"server": ("lwq-server", self.options), "worker": ("lwq-worker", ["--threads=1"])}[container]
            setattr(self, container, start(f"{self.name}-{container}", [lwq(program), *self.local(container), *more]))
            wait_for(f"{container} to be ready", lambda: get(self.ports[container], "/readyz")[0] == 200)

    def end(self, number):
        """Both get the signal at once, as the kubelet sends it. Their exit codes, and the seconds that took."""
        began = time.monotonic()
        for process in (self.server, self.worker):
            process.send_signal(number)
        codes = []
        for process in (self.server, self.worker):
            codes.append(process.wait(self.grace))
            process.returncode = 0  # as it should be, for wait_for
        return codes, time.monotonic() - began

    def submit(self, *options):
        words = list(QUICK_JOB)
        words[words.index("--calibration-tokens") + 1] = "8192"
        return lwqctl(self.address, "submit", "sample", "--budget", "4.5bpw", *words, "--no-cache", *options).strip()

    def at_work(self, kind):
        """Whether the worker that is there, not one before it, runs a task of that kind."""
        tasks = json.loads(lwqctl(self.address, "tasks", self.job, "--json"))["tasks"]
        return any(task["kind"] == kind and task.get("state") == "LEASED" and task["worker"].removeprefix("workers/") == self.name for task in tasks)


def drained_and_killed():
    pod = Pod("pod")
    pod.begin()
    lwqctl(pod.address, "model", "add", SAMPLE, "--id", "sample")
    for what, number in (("drained", signal.SIGTERM), ("killed, as by a node that fails", signal.SIGKILL)):
        pod.job = pod.submit()
        wait_for("a task to run", lambda: pod.at_work("calibrate"))
        codes, seconds = pod.end(number)
        check(codes == ([0, 0] if number == signal.SIGTERM else [-9, -9]), f"the pod is {what}: its containers end with {codes} after {seconds:.1f} s")
        check(seconds < pod.grace, f"that is within its {pod.grace} s")
        began = time.monotonic()
        pod.begin()
        lwqctl(pod.address, "watch", pod.job)
        check(True, f"the pod was {what}: when it is back the job ends well, after {time.monotonic() - began:.1f} s")
    for container in ("worker", "server"):
        pod.job = pod.submit()
        wait_for("a task to run", lambda: pod.at_work("calibrate"))
        began = time.monotonic()
        process = getattr(pod, container)
        process.kill()
        process.wait()
        process.returncode = 0
        pod.begin(container)  # the kubelet starts a container alone
        lwqctl(pod.address, "watch", pod.job)
        check(True, f"the {container} alone is killed for memory: the job ends well {time.monotonic() - began:.1f} s after that")
    idle_worker_killed(pod)
    stop(pod.server)


def idle_worker_killed(pod):
    """It is soon shown to be away, though nothing is lost with it."""
    def state():
        workers = json.loads(lwqctl(pod.address, "workers", "--json"))["workers"]
        return next(w["state"] for w in workers if w["name"].removeprefix("workers/") == pod.name)
    check(state() == "READY", "a worker that waits for tasks is shown as ready")
    pod.worker.kill()
    pod.worker.wait()
    pod.worker.returncode = 0
    began = time.monotonic()
    wait_for("the worker to be shown as silent", lambda: state() == "SILENT", 45)  # well below the minute after which it is LOST
    check(True, f"one that is killed as silent, after {time.monotonic() - began:.1f} s")


def a_task_that_kills():
    """Workers of different names die of the same task: the service gives it up instead of taking every worker there is."""
    pod = Pod("deadly", f"--lease-ttl={LEASE_SECONDS}", "--heartbeat=0.5")
    pod.begin()
    lwqctl(pod.address, "model", "add", SAMPLE, "--id", "sample")
    pod.job = pod.submit()
    killed = 0
    while killed < 6:
        wait_for("the task to run, or the job to end", lambda: ended(pod) or pod.at_work("calibrate"))
        if ended(pod):
            break
        pod.worker.kill()
        pod.worker.wait()
        pod.worker.returncode = 0
        killed += 1
        pod.name = f"deadly-{killed}"
        pod.begin("worker")
    job = json.loads(lwqctl(pod.address, "show", pod.job, "--json"))
    check(job["state"] == "FAILED" and job["failure"]["reason"] == "CRASH_LOOP", f"a task that killed {killed} workers fails its job: {job.get('failure')}")
    check(killed == 3, "after the third")
    run([lwq("lwqctl"), "retry", pod.job, "--server", pod.address])
    lwqctl(pod.address, "watch", pod.job)
    check(True, "lwqctl retry goes on where it was when the cause is mended, and the job succeeds")


def ended(pod):
    return json.loads(lwqctl(pod.address, "show", pod.job, "--json"))["state"] in ("FAILED", "SUCCEEDED")


drained_and_killed()
a_task_that_kills()
finish()
