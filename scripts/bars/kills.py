#!/usr/bin/env python3
"""SIGKILLs of the server and of two workers, at random moments of job after job, on SQLite and a blob folder: every
job ends, its artifact is byte-identical to one made in peace, and no task is done twice.
usage: scripts/bars/kills.py [KILLS]   (default 500; LWQ_SEED=N for other moments)"""
import atexit
import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import bars

BETWEEN = (0.5, 4.0)  # seconds from one kill to the next
SPEC = ["m", "--budget", "4.5bpw", "--method", "rtn", "--scorer", "lim", "--allocator", "two-level",
        "--calibration", bars.HELD_OUT, "--calibration-tokens", "512", "--no-eval", "--no-cache"]
SERVER = "unix:" + os.path.join(bars.TMP, "s")


class Process:
    """One that is started again whenever it is killed."""

    def __init__(self, name, command):
        self.name, self.command, self.kills = name, command, 0
        self.start()
        atexit.register(lambda: self.child.kill())

    def start(self):
        with open(os.path.join(bars.TMP, self.name + ".log"), "ab") as log:
            self.child = subprocess.Popen(self.command, stdout=log, stderr=log)

    def kill(self, wait):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self.kills += 1
        time.sleep(wait)
        self.start()


def lwqctl(*words, tries=1):
    """What it prints. Others than `watch` do not wait for a server that is away, so they are tried again."""
    for _ in range(tries):
        done = subprocess.run([bars.program("lwqctl"), *words, "--server", SERVER], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
        time.sleep(0.5)
    sys.exit(f"lwqctl {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")


def run_job(name, tries):
    """The digests of its artifact, and how often each task was done."""
    request = f"00000000-0000-4000-8000-{random.getrandbits(48):012x}"
    lwqctl("submit", *SPEC, "--job-id", name, "--request-id", request, tries=tries)
    events = lwqctl("watch", name, "--json", tries=tries)
    out = os.path.join(bars.TMP, name)
    lwqctl("artifact", "get", "jobs/" + name, "--out", out, tries=tries)
    done = collections.Counter()
    for line in events.splitlines():
        task = json.loads(line).get("task", {})
        if task.get("state") == "DONE":
            done[task["task"]] += 1
    return bars.digests(out), done


def main():
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    seed = int(os.environ.get("LWQ_SEED", "1"))
    draws = random.Random(seed)
    server = Process("server", [bars.program("lwq-server"), "--listen", SERVER, "--data-dir",
                                os.path.join(bars.TMP, "data"), "--lease-ttl", "10", "--heartbeat", "2"])
    workers = [Process(f"w{i}", [bars.program("lwq-worker"), "--server", SERVER, "--threads", "1", "--work-dir",
                                 os.path.join(bars.TMP, f"w{i}"), "--worker-id", f"w{i}"]) for i in range(2)]
    everybody = [server, *workers]
    lwqctl("model", "add", bars.SAMPLE, "--id", "m", tries=60)
    peace, _ = run_job("in-peace", 1)
    stop = threading.Event()

    def strike():
        while not stop.wait(draws.uniform(*BETWEEN)) and sum(p.kills for p in everybody) < wanted:
            draws.choice(everybody).kill(draws.uniform(0, 1))

    killer = threading.Thread(target=strike)
    killer.start()
    jobs, differ, twice = 0, 0, 0
    start = time.time()
    while killer.is_alive():
        jobs += 1
        digests, done = run_job(f"j{jobs}", 1000)
        differ += digests != peace
        twice += sum(1 for count in done.values() if count > 1)
    stop.set()
    killer.join()
    kills = ", ".join(f"{p.name} {p.kills}" for p in everybody)
    print(f"{sum(p.kills for p in everybody)} kills ({kills}) in {time.time() - start:.0f} s, seed {seed}: {jobs} jobs "
          f"ended; artifacts that differ: {differ}; tasks done twice: {twice}")
    sys.exit(1 if differ or twice or not peace else 0)


if __name__ == "__main__":
    main()
