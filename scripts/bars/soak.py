#!/usr/bin/env python3
"""Job after job for an hour, with a SIGKILL every 20 s: of two workers by turns, of the server every ten minutes. A third
worker is left alone. Ended jobs are deleted, and what nobody needs is collected. Memory, descriptors, threads and disk of
one ten minutes after the other, each the median of its samples: what grows shows.
usage: scripts/bars/soak.py [MINUTES]   (default 60)"""
import os
import statistics
import sys
import threading
import time

import bars
import service

KILL_EVERY, SERVER_EVERY = 20, 30   # seconds; kills
WINDOW, SAMPLE_EVERY = 600, 5       # seconds
BETWEEN_JOBS, COLLECT_EVERY = 3, 60


def size_of(path):
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:  # it went meanwhile
                pass
    return total / 2**20


def usage_of(process):
    """{what: value} of a process, nothing while it is away."""
    try:
        pid = process.child.pid
        with open(f"/proc/{pid}/status") as f:
            fields = dict(line.split(":", 1) for line in f)
        return {"MiB": int(fields["RssAnon"].split()[0]) / 1024, "threads": int(fields["Threads"]),
                "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}
    except (AttributeError, OSError, KeyError):
        return {}


class Soak:
    def __init__(self, minutes):
        self.end = time.time() + minutes * 60
        self.start = time.time()
        self.target = service.Service(3, server_options=["--lease-ttl", "10", "--heartbeat", "2", "--blob-grace", "60"],
                                      worker_options=["--cache-size", "16MiB"])
        self.samples = {}  # (what, window): values

    def add(self, what, value):
        self.samples.setdefault((what, int((time.time() - self.start) // WINDOW)), []).append(value)

    def watch(self):
        data, worker = (os.path.join(bars.TMP, name) for name in ("data0", "w2"))
        while time.time() < self.end:
            for name, process in (("server", self.target.servers[0]), ("worker left alone", self.target.workers[2])):
                for field, value in usage_of(process).items():
                    self.add(f"{name}, {field}", value)
            self.add("records, MiB", sum(size_of_file(os.path.join(data, f)) for f in ("lwq.db", "lwq.db-wal")))
            self.add("blobs, MiB", size_of(os.path.join(data, "blobs")))
            self.add("worker's cache, MiB", size_of(worker))
            time.sleep(SAMPLE_EVERY)

    def strike(self):
        number = 0
        while time.time() + KILL_EVERY < self.end:
            time.sleep(KILL_EVERY)
            number += 1
            victim = self.target.servers[0] if number % SERVER_EVERY == 0 else self.target.workers[number % 2]
            if victim.is_up():
                victim.kill(0.5)

    def work(self):
        """(jobs that ended, artifacts that differ, tasks done twice)"""
        peace, _ = self.target.run_job("in-peace", 60)
        jobs, differ, twice, collected = 0, 0, 0, time.time()
        while time.time() < self.end:
            jobs += 1
            digests, done = self.target.run_job(f"j{jobs}", 1000)
            differ += digests != peace
            twice += sum(1 for count in done.values() if count > 1)
            self.target.lwqctl("delete", "job", f"j{jobs}", tries=1000)
            if time.time() > collected + COLLECT_EVERY:
                collected = time.time()
                self.target.lwqctl("gc", tries=1000)
            time.sleep(BETWEEN_JOBS)
        return jobs, differ, twice

    def print(self):
        windows = sorted({window for _, window in self.samples})
        bars.header("", *(f"{w * WINDOW // 60} to {(w + 1) * WINDOW // 60} min" for w in windows))
        for what in dict.fromkeys(what for what, _ in self.samples):
            bars.row(what, *(f"{statistics.median(self.samples.get((what, w), [0])):.1f}" for w in windows))


def size_of_file(path):
    return os.path.getsize(path) / 2**20 if os.path.exists(path) else 0


def main():
    soak = Soak(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
    for work in (soak.watch, soak.strike):
        threading.Thread(target=work, daemon=True).start()
    jobs, differ, twice = soak.work()
    soak.print()
    kills = ", ".join(f"{p.name} {p.kills}" for p in soak.target.everybody)
    print(f"\n{soak.target.num_kills()} kills ({kills}) in {time.time() - soak.start:.0f} s: {jobs} jobs ended; artifacts that "
          f"differ: {differ}; tasks done twice: {twice}; ends that nobody caused: {sum(p.ends for p in soak.target.everybody)}")
    sys.exit(1 if differ or twice or soak.target.num_kills() == 0 else 0)


if __name__ == "__main__":
    main()
