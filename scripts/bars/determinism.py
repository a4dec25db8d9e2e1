#!/usr/bin/env python3
"""Bar 8: the artifact is byte-identical with one thread and two, with two workers, and after kill -9 of the
worker in the middle of quantize and of the trials and of the server in the middle of the job.
usage: scripts/bars/determinism.py [options of lwqctl quantize]"""
import os
import signal
import subprocess
import sys
import threading
import time

import bars

options = sys.argv[1:] or ["--budget", "3.25bpw", "--method", "gptq"]
undisturbed = os.path.join(bars.TMP, "undisturbed")
seconds, _, _ = bars.quantize(bars.SAMPLE, undisturbed, os.path.join(bars.TMP, "undisturbed-service"), *options)
expected = bars.digests(undisturbed)
bars.header("run", "result", "seconds")
bars.row("undisturbed", f"{len(expected)} files", f"{seconds:.1f}")
bad = 0


def judge(name, out, elapsed, note=""):
    global bad
    found = bars.digests(out)
    different = sorted(f for f in set(found) | set(expected) if found.get(f) != expected.get(f))
    bad += bool(different)
    bars.row(name, ("byte-identical" if not different else f"FAIL: {', '.join(different)} differ") + note, f"{elapsed:.1f}")


for threads in (1, 2):
    name = f"{threads} thread{'s' * (threads > 1)}"
    out = os.path.join(bars.TMP, f"threads-{threads}")
    elapsed, _, _ = bars.quantize(bars.SAMPLE, out, os.path.join(bars.TMP, f"service-{threads}"), "--threads", threads, *options)
    judge(name, out, elapsed)


def killed(victim, phase, delay):
    """A job whose `victim` gets SIGKILL `delay` seconds after `phase` was first shown."""
    slug = f"killed-{victim}-{phase}"
    out, data_dir = os.path.join(bars.TMP, slug), os.path.join(bars.TMP, slug + "-service")
    begin = time.monotonic()
    job = subprocess.Popen(bars.quantize_command(bars.SAMPLE, out, data_dir, *options), stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
    lines = []

    def read():
        # Progress may be one line rewritten with carriage returns: read in pieces, not in lines.
        while piece := os.read(job.stdout.fileno(), 4096):
            lines.append(piece.decode(errors="replace"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    limit = time.monotonic() + 300
    while not any(phase in line.lower() for line in lines) and job.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    time.sleep(delay)
    victims = [pid for pid, name in bars.processes(data_dir).items() if name == victim]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    code = job.wait()
    reader.join()
    name = f"kill -9 of {victim}, {delay} s into {phase}"
    if code != 0:
        global bad
        bad += 1
        bars.row(name, f"FAIL: ended with {code}: {''.join(lines)[-300:]!r}", f"{time.monotonic() - begin:.1f}")
        return
    judge(name, out, time.monotonic() - begin, f" ({len(victims)} killed)")
    bad += not victims


def two_workers():
    """The same with a second worker beside the first; how many tasks each did is shown."""
    out, data_dir = os.path.join(bars.TMP, "two"), os.path.join(bars.TMP, "two-service")
    control = bars.program("lwqctl")
    subprocess.run([control, "up", "--data-dir", data_dir], check=True, capture_output=True)
    second = subprocess.Popen([bars.program("lwq-worker"), "--server", f"unix:{data_dir}/run/lwq.sock", "--worker-id", "second",
                               "--work-dir", os.path.join(bars.TMP, "second")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    elapsed, _, done = bars.quantize(bars.SAMPLE, out, data_dir, *options)
    second.terminate()
    second.wait()
    subprocess.run([control, "down", "--data-dir", data_dir], capture_output=True)
    counts = {name: done.stderr.count(f"on {name}") for name in ("embedded", "second")}
    judge("two workers", out, elapsed, f" ({counts['embedded']} and {counts['second']} tasks)")
    global bad
    bad += 0 in counts.values()


two_workers()
killed("lwq-worker", "quantize", 0.3)
killed("lwq-server", "quantize", 0.3)
killed("lwq-server", "score", 0.3)
killed("lwq-worker", "trial", 0.1)
killed("lwq-server", "trial", 0.1)
sys.exit(bad > 0)
