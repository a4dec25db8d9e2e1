"""What the tests of deploy/ share: lwq's programs and others as child processes that end with the test."""
import atexit
import ctypes
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("LWQ_BIN_DIR", ROOT / "build/dev/bin"))
SAMPLE = ROOT / "examples/lwq-books-10m"
SKIP = 77  # what ctest takes for "skipped"

_temporary = tempfile.TemporaryDirectory(prefix="lwq-deploy-")
TMP = pathlib.Path(_temporary.name)
_started = []

# A job that takes seconds and is measured.
QUICK_JOB = ("--method rtn --scorer lim --allocator two-level --calibration-tokens 512 "
             f"--calibration {SAMPLE}/held-out.txt --eval-text {SAMPLE}/held-out.txt --eval-tokens 512").split()


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIP)


def need(program):
    """The path of a program of the system; skips the test without it."""
    path = shutil.which(program)
    if path is None:
        skip(f"{program} is not installed")
    return path


def lwq(program):
    path = BIN / program
    if not path.exists():
        skip(f"{path} is not built")
    return str(path)


_held = []


def free_port():
    """One that stays this test's: it is bound, so that no other process is given it, while a server that sets SO_REUSEADDR, as
    all of these do, may listen there, again and again."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _held.append(held)
    return held.getsockname()[1]


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def start(name, command, environment=None, **options):
    """Starts a process; its output goes to TMP/<name>.log."""
    log = open(TMP / f"{name}.log", "ab")
    process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                               env={**os.environ, **(environment or {})}, preexec_fn=_die_with_parent, **options)
    process.log = TMP / f"{name}.log"
    _started.append(process)
    return process


def stop(process, seconds=30):
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@atexit.register
def _stop_all():
    for process in reversed(_started):
        stop(process, 5)


def run(command, **options):
    """The standard output of a command that has to end well."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def wait_for(what, condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        for process in _started:
            if process.poll() not in (None, 0, -signal.SIGTERM):
                sys.exit(f"waiting for {what}: a process ended with {process.returncode}:\n{process.log.read_text()[-3000:]}")
        time.sleep(0.1)
    logs = "\n".join(f"{p.log.name}: {p.log.read_text()[-800:]}" for p in _started)
    sys.exit(f"{what} did not come within {seconds} s\n{logs}")


def get(port, path):
    """(status, body) of an HTTP GET on the loopback; (0, "") where nobody listens."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""


def start_server(name="server", listen=None, metrics_port=None, *options, environment=None):
    """(process, address) of an lwq-server that serves."""
    listen = listen or f"unix:{TMP}/{name}.sock"
    ready = TMP / f"{name}.ready"
    metrics = ["--metrics-listen", f"127.0.0.1:{metrics_port}"] if metrics_port else []
    process = start(name, [lwq("lwq-server"), "--listen", listen, "--data-dir", TMP / name, "--ready-file", ready,
                           *metrics, *options], environment)
    wait_for("the server", ready.exists)
    return process, json.loads(ready.read_text())["address"]


def start_worker(address, name="worker", metrics_port=None, *options):
    metrics = ["--metrics-listen", f"127.0.0.1:{metrics_port}"] if metrics_port else []
    return start(name, [lwq("lwq-worker"), "--server", address, "--work-dir", TMP / name, "--worker-id", name,
                        "--threads", "1", *metrics, *options])


def lwqctl(address, *words):
    return run([lwq("lwqctl"), *words, "--server", address, "--timeout", "200"])


_failures = []


def check(good, what):
    print(f"{'ok  ' if good else 'FAIL'} {what}", flush=True)
    if not good:
        _failures.append(what)


def finish():
    if _failures:
        sys.exit(f"{len(_failures)} check(s) failed:\n  " + "\n  ".join(_failures))
