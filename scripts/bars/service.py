"""A service for the bars that kill it: real server, workers and, where asked for, PostgreSQL, S3 and a second server. Each
process that is killed is started again. Standard library only; S3 is moto's server (LWQ_PEERS_PYTHON has it)."""
import atexit
import collections
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import bars

NOBODY = 65534
SPEC = ["m", "--budget", "4.5bpw", "--method", "rtn", "--scorer", "lim", "--allocator", "two-level",
        "--calibration", bars.HELD_OUT, "--calibration-tokens", "512", "--no-eval", "--no-cache"]
MOTO = """import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print('%s:%d' % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Process:
    """One that is started again whenever it is killed, and a second after it has ended by itself, as a server does that
    starts while its database is away."""

    def __init__(self, name, command, environment=None, whole_group=False, **options):
        self.name, self.command, self.kills, self.ends = name, list(map(str, command)), 0, 0
        self.environment = {**os.environ, **(environment or {})}
        self.whole_group, self.options = whole_group, options
        self.log = os.path.join(bars.TMP, name + ".log")
        self.start()
        atexit.register(self.end)
        threading.Thread(target=self.supervise, daemon=True).start()

    def supervise(self):
        while True:
            time.sleep(1)
            child = self.child
            if child is not None and child.poll() is not None and child is self.child:
                self.ends += 1
                self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.environment,
                                          start_new_session=self.whole_group, **self.options)

    def is_up(self):
        return self.child is not None and self.child.poll() is None

    def end(self):
        child, self.child = self.child, None
        if child is None:
            return
        try:
            if self.whole_group:
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
        except ProcessLookupError:
            pass
        child.wait()

    def kill(self, wait):
        """SIGKILL now; it is back after `wait` seconds."""
        self.end()
        self.kills += 1
        threading.Timer(wait, self.start).start()


def start_postgres():
    """(process, URL) of a PostgreSQL of its own, from Debian's packages."""
    programs = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))[-1].parent
    folder = tempfile.mkdtemp(prefix="lwq-postgres-")
    atexit.register(lambda: subprocess.run(["rm", "-rf", folder]))
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        os.chown(folder, NOBODY, NOBODY)
    subprocess.run([programs / "initdb", "-D", f"{folder}/db", "-U", "lwq", "--auth=trust", "--encoding=UTF8", "--locale=C",
                    "--no-sync"], cwd=folder, check=True, capture_output=True, **user)
    process = Process("postgres", [programs / "postgres", "-D", f"{folder}/db", "-k", folder, "-c", "listen_addresses=",
                                   "-c", "fsync=off"],  # what a power cut takes is not asked here
                      whole_group=True, cwd=folder, **user)
    for _ in range(200):
        if subprocess.run([programs / "createdb", "-h", folder, "-U", "lwq", "lwq"], capture_output=True).returncode == 0:
            return process, f"postgresql://lwq@/lwq?host={folder}"
        time.sleep(0.1)
    sys.exit("PostgreSQL does not start: " + open(process.log).read()[-2000:])


def start_moto():
    """The address of an S3 server that lives as long as this script."""
    python = os.environ.get("LWQ_PEERS_PYTHON") or os.path.join(bars.ROOT, ".venv-peers/bin/python")
    server = subprocess.Popen([python, "-c", MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=open(os.path.join(bars.TMP, "moto.log"), "wb"), text=True)
    atexit.register(server.kill)
    address = server.stdout.readline().strip()
    urllib.request.urlopen(urllib.request.Request(f"http://{address}/bucket", method="PUT"), timeout=30).read()
    return address


class Service:
    """`shared`: two servers over PostgreSQL and S3; else one over SQLite and a folder."""

    def __init__(self, num_workers, shared=False, server_options=(), worker_options=()):
        self.postgres, places, environment = None, [], {}
        if shared:
            self.postgres, url = start_postgres()
            places = ["--store", url, "--blobs", f"s3://bucket/lwq?endpoint=http://{start_moto()}&region=us-east-1"]
            environment = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
        listen = [f"127.0.0.1:{free_port()}" for _ in range(2)] if shared else ["unix:" + os.path.join(bars.TMP, "s")]
        self.address = ",".join(listen)
        self.servers = [
            Process("server" if i == 0 else "standby",
                    [bars.program("lwq-server"), "--listen", address, "--data-dir", os.path.join(bars.TMP, f"data{i}"), *places,
                     *server_options], environment)
            for i, address in enumerate(listen)]
        self.workers = [
            Process(f"w{i}", [bars.program("lwq-worker"), "--server", self.address, "--threads", "1", "--work-dir",
                              os.path.join(bars.TMP, f"w{i}"), "--worker-id", f"w{i}", *worker_options])
            for i in range(num_workers)]
        self.everybody = [*self.servers, *self.workers, *([self.postgres] if shared else [])]
        self.lwqctl("model", "add", bars.SAMPLE, "--id", "m", tries=60)

    def num_kills(self):
        return sum(p.kills for p in self.everybody)

    def num_takeovers(self):
        """How often a server won a term that was not its own before."""
        terms = {}
        for server in self.servers:
            with open(server.log, errors="replace") as log:
                for term in re.findall(r"leader, term (\d+)", log.read()):
                    terms[int(term)] = server.name
        leaders = [terms[term] for term in sorted(terms)]
        return sum(a != b for a, b in zip(leaders, leaders[1:]))

    def lwqctl(self, *words, tries=1):
        """What it prints. Others than `watch` do not wait for a server that is away, so they are tried again."""
        for _ in range(tries):
            done = subprocess.run([bars.program("lwqctl"), *words, "--server", self.address], capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout
            time.sleep(0.5)
        sys.exit(f"lwqctl {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")

    def run_job(self, name, tries):
        """The digests of its artifact, and how often each task was done."""
        request = f"00000000-0000-4000-8000-{random.getrandbits(48):012x}"
        self.lwqctl("submit", *SPEC, "--job-id", name, "--request-id", request, tries=tries)
        events = self.lwqctl("watch", name, "--json", tries=tries)
        out = os.path.join(bars.TMP, name)
        self.lwqctl("artifact", "get", "jobs/" + name, "--out", out, tries=tries)
        done = collections.Counter()
        for line in events.splitlines():
            task = json.loads(line).get("task", {})
            if task.get("state") == "DONE":
                done[task["task"]] += 1
        digests = bars.digests(out)
        subprocess.run(["rm", "-rf", out])
        return digests, done
